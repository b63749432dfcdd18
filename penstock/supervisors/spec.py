"""Child specifications and supervisor flags: plain data, as in OTP."""

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
"""Restart a child always; only after a crash; never."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which children are restarted with one that ends: no other; all; those that were started after it."""

AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
"""When a supervisor ends by itself: never; when one significant child has ended; when the last one has."""

ChildState: TypeAlias = Literal["running", "undefined", "restarting"]
"""The child runs; it does not run; it has ended and will be started again."""

BRUTAL_KILL: Final = "brutal_kill"
Shutdown: TypeAlias = float | Literal["brutal_kill"] | None
"""How a child is ended: by an exit signal, and killed after so many seconds; killed at once; by an exit signal alone,
without a limit (None)."""

_UNSAID: Final[Any] = msgspec.UNSET


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before a restart: ``min`` seconds, doubled each time up to ``max``.

    After a child has run for ``max`` seconds, its next wait is ``min`` again. ``jitter`` is the random part of each
    wait: 0.2 makes it 80 to 100 % of the full time.
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
        id: unique among the supervisor's children.
        cls: the class to start, a subclass of `Process`.
        args, kwargs: arguments of its constructor.
        restart: when the child is started again.
        shutdown: how the child is ended. The default is 5 seconds, for a supervisor None.
        name: a name to register the child under, the same after every restart.
        supervisor: whether the child is itself a supervisor; set automatically for Penstock's own.
        significant: whether the child's end may end the supervisor, see `SupervisorFlags`. Not allowed for permanent
            children.
        backoff: how long to wait before a restart; None restarts at once.
        start_timeout: seconds for the child's start; None sets no limit.

    Raises:
        OptionError: a value is not allowed.
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
    """How a supervisor restarts its children. It ends after more than ``intensity`` restarts in ``period`` seconds.

    Raises:
        OptionError: a value is not allowed.
    """

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
    """Check that a supervisor can have these children.

    Raises:
        SupervisorError: ``invalid_child_spec``, ``duplicate_child_name``, or ``bad_combination``: a significant child
            that is permanent, or whose supervisor has ``auto_shutdown="never"``.
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
    """State of a child, as returned by `which_children`. ``ref`` is None while the child does not run."""

    id: str
    ref: ProcessRef | None
    cls: type[Process]
    restart: Restart
    restarts: int
    state: ChildState
    supervisor: bool


class ChildCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Number of children: specified, running, and of those specified, supervisors and workers."""

    specs: int
    active: int
    supervisors: int
    workers: int


class ChildExited(msgspec.Struct, frozen=True):
    """A child of a dynamic supervisor has ended and is not restarted. Sent to the supervisor's observer.

    It carries the specification, since another child may use the same id later.
    """

    spec: ChildSpec
    ref: ProcessRef | None
    reason: object
    supervisor: str | None = None
