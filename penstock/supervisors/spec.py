"""Child specifications: plain data, as in OTP.

What a supervisor is to start, and what it is to do when that ends. Nothing here starts anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError, SupervisorError

__all__ = [
    "BRUTAL_KILL",
    "AutoShutdown",
    "Backoff",
    "ChildCounts",
    "ChildExited",
    "ChildInfo",
    "ChildSpec",
    "ChildState",
    "Restart",
    "Shutdown",
    "Strategy",
    "SupervisorFlags",
    "check_children",
]

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""Restart it always; only after a crash; never."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Who is restarted with a child that ends: nobody else; everybody; those that were started after it."""

AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
"""Whether a supervisor ends by itself: no; when one significant child has ended; when the last one has."""

ChildState: TypeAlias = Literal["running", "undefined", "restarting"]
"""It runs; it does not; it did, and the next attempt to start it is still to come."""

BRUTAL_KILL: Final = "brutal_kill"
Shutdown: TypeAlias = float | Literal["brutal_kill"] | None
"""How a child is ended: asked, and killed after so many seconds; killed at once; asked, and waited for (None)."""

_UNSAID: Final[Any] = msgspec.UNSET


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before a restart: ``min`` seconds, doubled each time up to ``max``.

    A child that has run for ``max`` seconds starts again at ``min``. ``jitter`` is the part of each wait that is left
    to chance: 0.2 makes it 80 to 100 % of that.
    """

    min: float = 0.1
    max: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_number("min", self.min, 0.001, 86_400)
        check_number("max", self.max, self.min, 86_400)
        check_number("jitter", self.jitter, 0, 1)


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One child of a supervisor.

    Attributes:
        id: what the supervisor calls it; unique among its children.
        cls: the class to start.
        args, kwargs: what its constructor gets.
        restart: when it is started again.
        shutdown: how it is ended. If nothing is said: 5 seconds; a supervisor is waited for.
        name: a name to register it under, the same after every restart.
        supervisor: it is a supervisor itself; known of Penstock's own.
        significant: its end may be the supervisor's, see `SupervisorFlags`. Not for permanent ones.
        backoff: how long to wait before it is started again; None starts it at once.
        start_timeout: seconds for its start; None waits for as long as it takes.
    """

    id: str
    cls: type[Process]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    restart: Restart = "permanent"
    shutdown: Shutdown = _UNSAID
    name: str | None = None
    supervisor: bool = False
    significant: bool = False
    backoff: Backoff | None = None
    start_timeout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise OptionError("id", self.id, "a non-empty str")
        if not (isinstance(self.cls, type) and issubclass(self.cls, Process)):
            raise OptionError("cls", self.cls, "a subclass of Process")
        if getattr(self.cls, "is_supervisor", False):
            msgspec.structs.force_setattr(self, "supervisor", True)
        if self.shutdown is _UNSAID:
            msgspec.structs.force_setattr(self, "shutdown", None if self.supervisor else 5.0)
        check_choice("restart", self.restart, ("permanent", "transient", "temporary"))
        check_choice("significant", self.significant, (True, False))
        if self.shutdown != BRUTAL_KILL:
            check_number("shutdown", self.shutdown, 0, 86_400, optional=True)
        if not (self.backoff is None or isinstance(self.backoff, Backoff)):
            raise OptionError("backoff", self.backoff, "a Backoff or None")
        check_number("start_timeout", self.start_timeout, 0, 86_400, optional=True)

    def __repr__(self) -> str:
        return f"ChildSpec(id={self.id!r}, cls={self.cls.__name__}, restart={self.restart!r})"


class SupervisorFlags(msgspec.Struct, frozen=True, kw_only=True):
    """How a supervisor restarts: ``intensity`` restarts within ``period`` seconds are fine, one more is too many."""

    strategy: Strategy = "one_for_one"
    intensity: int = 1
    period: float = 5.0
    auto_shutdown: AutoShutdown = "never"

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, ("one_for_one", "one_for_all", "rest_for_one"))
        check_number("intensity", self.intensity, 0, 1_000_000_000, whole=True)
        check_number("period", self.period, 0.001, 1e9)
        check_choice("auto_shutdown", self.auto_shutdown, ("never", "any_significant", "all_significant"))


def check_children(specs: Iterable[ChildSpec], auto_shutdown: AutoShutdown = "never") -> None:
    """See whether a supervisor can have these children together.

    Raises:
        SupervisorError: ``invalid_child_spec``, ``duplicate_child_name``, or ``bad_combination``: a significant child
            that is permanent, or of a supervisor that never shuts itself down.
    """
    known: set[str] = set()
    for spec in specs:
        if not isinstance(spec, ChildSpec):
            raise SupervisorError("invalid_child_spec", detail=type(spec).__name__)
        if spec.id in known:
            raise SupervisorError("duplicate_child_name", spec.id)
        if spec.significant and (spec.restart == "permanent" or auto_shutdown == "never"):
            raise SupervisorError("bad_combination", spec.id)
        known.add(spec.id)


class ChildInfo(msgspec.Struct, frozen=True):
    """A child as a supervisor shows it. ``ref`` is None while it does not run."""

    id: str
    ref: ProcessRef | None
    cls: type[Process]
    restart: Restart
    restarts: int
    state: ChildState
    supervisor: bool


class ChildCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a supervisor has: specified, running; and of those specified, supervisors and workers."""

    specs: int
    active: int
    supervisors: int
    workers: int


class ChildExited(msgspec.Struct, frozen=True):
    """A child of a dynamic supervisor is gone and will not come back. Told to the supervisor's observer.

    Its specification is in it because ids are used again: this one is about just that child.
    """

    spec: ChildSpec
    ref: ProcessRef | None
    reason: object
    supervisor: str | None = None
