"""Names for plain Pykka actors.

The name of a process is in the runtime's table, and is free before its death is announced. A plain Pykka actor does
not announce its death: a name given here is freed when the dead actor is noticed, at the next request for the name or
within a second.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pykka

from penstock.actors.runtime.process import Process, Refusal
from penstock.errors import StartError

__all__ = ["REGISTRY", "Names", "Register", "Registry", "Sweep", "Unregister", "Whereis"]

REGISTRY: Final = "registry"


class Register(msgspec.Struct, frozen=True):
    """Give an actor a name; refused with `StartError` (``already_started``) if a living one has it."""

    name: str
    ref: pykka.ActorRef[Any]


class Unregister(msgspec.Struct, frozen=True):
    """Free a name. Has no effect if it is not taken."""

    name: str


class Whereis(msgspec.Struct, frozen=True):
    """Look up a name; the answer is a ref or None."""

    name: str


class Sweep(msgspec.Struct, frozen=True):
    """Look for changes that are not announced, such as dead plain actors. Sent by the reaper once a second."""


class Names(dict[str, "pykka.ActorRef[Any]"]):
    """The table of names. It outlives the registry's process."""


class Registry(Process):
    """Keeps the names; each request takes constant time."""

    in_pykka_registry = False

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def on_receive(self, message: Any) -> Any:
        match message:
            case Register(name=name, ref=ref):
                other = self._find(name) or self.runtime.whereis(name)
                if other is not None and other is not ref:
                    raise Refusal(StartError(name, "already_started", other))
                self._names[name] = ref
                return ref
            case Unregister(name=name):
                self._names.pop(name, None)
            case Whereis(name=name):
                return self.runtime.whereis(name) or self._find(name)
            case Sweep():
                for name in [name for name, ref in self._names.items() if not ref.is_alive()]:
                    del self._names[name]
            case _:
                return super().on_receive(message)
        return None

    def _find(self, name: str) -> pykka.ActorRef[Any] | None:
        ref = self._names.get(name)
        if ref is not None and not ref.is_alive():
            del self._names[name]
            return None
        return ref
