"""A stage for supervisors: workers that do as they are told and note what happens to them, on any runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.errors import ProcessDead, StartError
from penstock.supervisors.calls import StartChild, which_children
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor

GENEROUS = 20.0  # seconds to wait for what comes at once


class Stage:
    """What the workers of one test share."""

    def __init__(self) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.failing: dict[str, Any] = {}  # by worker: what its start raises, until it is taken out
        self.on_stop: dict[str, Callable[[], Any]] = {}

    def starting(self, id: str) -> None:
        if id in self.failing:
            self.journal.append(("fail", id))
            raise self.failing[id]
        self.journal.append(("start", id))

    def take(self) -> list[tuple[Any, ...]]:
        """What has been noted since the last time."""
        taken, self.journal = self.journal, []
        return taken


class Worker(Process):
    """Traps exits, so that it can note its end. A stubborn one does not obey its parent."""

    in_pykka_registry = False

    def __init__(self, stage: Stage, id: str, *, stubborn: bool = False) -> None:
        super().__init__()
        self.stage = stage
        self.id = id
        self.stubborn = stubborn

    def on_start(self) -> None:
        self.trap_exit = True
        if self.stubborn:
            self.parent = None  # its exit signals are mere messages then
        self.stage.starting(self.id)

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else None

    def terminate(self, reason: object) -> None:
        self.stage.journal.append(("stop", self.id, reason))
        if self.id in self.stage.on_stop:
            self.stage.on_stop[self.id]()


class World:
    """A runtime, a stage, and a way to wait until something is so."""

    def __init__(self, runtime: Runtime, until: Callable[[Callable[[], Any]], Any]) -> None:
        self.runtime = runtime
        self.stage = Stage()
        self.until = until

    def spec(self, id: str, restart: Any = "permanent", *, stubborn: bool = False, **more: Any) -> ChildSpec:
        kwargs = {"stubborn": True} if stubborn else {}
        return ChildSpec(id=id, cls=Worker, args=(self.stage, id), kwargs=kwargs, restart=restart, **more)

    def specs(self, ids: str, restart: Any = "permanent", **more: Any) -> list[ChildSpec]:
        return [self.spec(id, restart, **more) for id in ids]

    def supervisor(
        self, specs: Any, strategy: Any = "one_for_one", *, intensity: int = 100, **flags: Any
    ) -> ProcessRef:
        return self.runtime.spawn(Supervisor, specs, self.flags(strategy, intensity=intensity, **flags))

    def flags(self, strategy: Any = "one_for_one", *, intensity: int = 100, **flags: Any) -> SupervisorFlags:
        return SupervisorFlags(strategy=strategy, intensity=intensity, **flags)

    def simple(
        self, restart: Any = "permanent", *, stubborn: bool = False, intensity: int = 100, **more: Any
    ) -> ProcessRef:
        """A supervisor with a template; its children are named when they are started."""
        kwargs = {"stubborn": True} if stubborn else {}
        template = ChildSpec(id="simple", cls=Worker, args=(self.stage,), kwargs=kwargs, restart=restart, **more)
        return self.runtime.spawn(DynamicSupervisor, template, intensity=intensity, escalate=True)

    def add(self, supervisor: ProcessRef, id: str) -> ProcessRef:
        """Start a child by the template."""
        ref: ProcessRef = supervisor.ask(StartChild((id,)), timeout=GENEROUS)
        return ref

    def refs(self, supervisor: ProcessRef) -> dict[str, ProcessRef | None]:
        """The children in start order."""
        return {info.id: info.ref for info in reversed(which_children(supervisor, GENEROUS))}

    def ref(self, supervisor: ProcessRef, id: str) -> ProcessRef:
        ref = self.refs(supervisor)[id]
        assert ref is not None
        return ref

    def states(self, supervisor: ProcessRef) -> dict[str, str]:
        return {info.id: info.state for info in reversed(which_children(supervisor, GENEROUS))}

    def exit(self, supervisor: ProcessRef, id: str, reason: object = "crash") -> ProcessRef:
        """Let a child end; return the ref that it had when its supervisor has noticed, or is dead itself."""
        ref = self.ref(supervisor, id)
        self.end(ref, reason)

        def noticed() -> bool:
            try:
                return self.refs(supervisor).get(id) is not ref
            except ProcessDead:
                return True

        self.until(noticed)
        return ref

    def end(self, ref: ProcessRef, reason: object = "crash") -> None:
        ref.tell(lambda actor: actor.exit(reason))

    def dead(self, ref: ProcessRef) -> object:
        """Its exit reason, when it is dead."""
        assert self.runtime.join(ref, GENEROUS)
        return self.runtime.exit_reason(ref)

    def fail(self, id: str, code: object = "broken") -> None:
        """Let the next starts of a worker fail."""
        self.stage.failing[id] = StartError(id, code)

    def heal(self, id: str) -> None:
        self.stage.failing.pop(id, None)

    def take(self) -> list[tuple[Any, ...]]:
        return self.stage.take()


def starts(ids: str) -> list[tuple[Any, ...]]:
    return [("start", id) for id in ids]


def stops(ids: str, reason: object = "shutdown") -> list[tuple[Any, ...]]:
    return [("stop", id, reason) for id in ids]
