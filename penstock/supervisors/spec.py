"""Child specifications: plain data, as in OTP.

What a supervisor is to start, and what it is to do when that ends. Nothing here starts anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.config.options import check_choice, check_number
from penstock.errors import OptionError

__all__ = [
    "BRUTAL_KILL",
    "ChildExited",
    "ChildInfo",
    "ChildSpec",
    "Restart",
    "Shutdown",
    "Strategy",
    "SupervisorFlags",
]

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""Restart it always; only after a crash; never."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Who is restarted with a child that ends: nobody else; everybody; those that were started after it."""

BRUTAL_KILL: Final = "brutal_kill"
Shutdown: TypeAlias = float | Literal["brutal_kill"] | None
"""How a child is ended: asked, and killed after so many seconds; killed at once; asked, and waited for (None)."""


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One child of a supervisor.

    Attributes:
        id: what the supervisor calls it; unique among its children.
        cls: the class to start.
        args, kwargs: what its constructor gets.
        restart: when it is started again.
        shutdown: how it is ended.
        name: a name to register it under, the same after every restart.
        supervisor: it is a supervisor itself.
    """

    id: str
    cls: type[Process]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    restart: Restart = "permanent"
    shutdown: Shutdown = 5.0
    name: str | None = None
    supervisor: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise OptionError("id", self.id, "a non-empty str")
        if not (isinstance(self.cls, type) and issubclass(self.cls, Process)):
            raise OptionError("cls", self.cls, "a subclass of Process")
        check_choice("restart", self.restart, ("permanent", "transient", "temporary"))
        if self.shutdown != BRUTAL_KILL:
            check_number("shutdown", self.shutdown, 0, 86_400, optional=True)

    def __repr__(self) -> str:
        return f"ChildSpec(id={self.id!r}, cls={self.cls.__name__}, restart={self.restart!r})"


class SupervisorFlags(msgspec.Struct, frozen=True, kw_only=True):
    """How a supervisor restarts: ``intensity`` restarts within ``period`` seconds are fine, one more is too many."""

    strategy: Strategy = "one_for_one"
    intensity: int = 1
    period: float = 5.0

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, ("one_for_one", "one_for_all", "rest_for_one"))
        check_number("intensity", self.intensity, 0, 1_000_000_000, whole=True)
        check_number("period", self.period, 0.001, 1e9)


class ChildInfo(msgspec.Struct, frozen=True):
    """A child as a supervisor shows it. ``ref`` is None while it does not run."""

    id: str
    ref: ProcessRef | None
    cls: type[Process]
    restart: Restart
    restarts: int


class ChildExited(msgspec.Struct, frozen=True):
    """A child of a dynamic supervisor is gone and will not come back. Told to the supervisor's observer.

    Its specification is in it because ids are used again: this one is about just that child.
    """

    spec: ChildSpec
    ref: ProcessRef | None
    reason: object
    supervisor: str | None = None
