"""Names for plain Pykka actors.

A process has its name in the runtime's own table, where it is free before anybody hears of its death. A plain Pykka
actor announces no death; under a name given here it is found until it is dead, which is noticed at the next look or
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
    """Take a name back; harmless if nobody has it."""

    name: str


class Whereis(msgspec.Struct, frozen=True):
    """Ask who has a name: a ref or None."""

    name: str


class Sweep(msgspec.Struct, frozen=True):
    """Look for what nobody announces, dead foreign actors above all. The reaper says so once a second."""


class Names(dict[str, "pykka.ActorRef[Any]"]):
    """The table; it survives the registry's actor."""


class Registry(Process):
    """Keeps the names; O(1) for each request."""

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
