"""The supervisor of the user's own processes, the last child of the root."""

from __future__ import annotations

import threading
from typing import Any, Final

from penstock.actors.runtime.process import ProcessRef
from penstock.supervisors.children import Child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import ChildSpec

__all__ = ["USER", "UserSpecs", "UserSupervisor"]

USER: Final = "user"


class UserSpecs:
    """The specifications of the user's processes. They outlive the supervisor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._specs: dict[str, ChildSpec] = {}

    def add(self, spec: ChildSpec) -> None:
        """Enter a specification."""
        with self._lock:
            self._specs[spec.id] = spec

    def find(self, id: str) -> ChildSpec | None:
        """The specification with that id, or None."""
        return self._specs.get(id)

    def forget(self, id: str) -> None:
        """Remove a specification."""
        with self._lock:
            self._specs.pop(id, None)

    def all(self) -> list[ChildSpec]:
        """All specifications, oldest first."""
        with self._lock:
            return list(self._specs.values())


class UserSupervisor(DynamicSupervisor):
    """A `DynamicSupervisor` that starts its children again when it is restarted, but not the temporary ones."""

    def __init__(self, specs: UserSpecs) -> None:
        super().__init__()
        self._specs = specs

    def on_start(self) -> None:
        for spec in self._specs.all():
            if spec.restart == "temporary":
                self._specs.forget(spec.id)
                continue
            child = Child(spec)
            self._children[child.id] = child
            self._start_later(child)  # a child that fails to start must not keep this supervisor from starting

    def _start(self, child: Child) -> ProcessRef | None:
        ref = super()._start(child)
        if ref is not None:
            self._specs.add(child.spec)
        return ref

    def _remove(self, child: Child, reason: object) -> None:
        self._specs.forget(child.id)
        super()._remove(child, reason)

    def _terminate_child(self, id: Any) -> None:
        child = self._find(id)
        self._specs.forget(child.id)
        super()._terminate_child(id)
