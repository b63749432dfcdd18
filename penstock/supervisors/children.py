"""What all supervisors do: start a child, end it, put it off; and know it by the process that it is just now."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock.actors.runtime.clock import Timer
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, ProcessRef, Refusal
from penstock.actors.runtime.signals import KILL, SHUTDOWN
from penstock.config.logs import get_logger
from penstock.errors import StartError, SupervisorError, describe_reason
from penstock.supervisors.calls import CountChildren, WhichChildren
from penstock.supervisors.restart import RestartWindow, backoff_delay
from penstock.supervisors.spec import BRUTAL_KILL, ChildCounts, ChildInfo, ChildSpec, ChildState, Shutdown

__all__ = ["Child", "Retry", "Supervising", "must_not_run", "refused"]

_PATIENCE: Final = 5.0  # seconds to wait for a name whose owner is about to end


class Child:
    """What a supervisor knows of one child."""

    __slots__ = (
        "alarm",
        "args",
        "failures",
        "id",
        "past",
        "ref",
        "restarts",
        "since",
        "spec",
        "state",
        "turn",
        "window",
    )

    def __init__(self, spec: ChildSpec, id: str | None = None, args: tuple[Any, ...] | None = None) -> None:
        self.id = spec.id if id is None else id
        self.spec = spec
        self.args = spec.args if args is None else args
        self.state: ChildState = "undefined"
        self.ref: ProcessRef | None = None
        self.past: ProcessRef | None = None  # who it was before, while it is being restarted
        self.turn = 0  # counts changes of state
        self.since = 0.0  # when it was started
        self.restarts = 0
        self.failures = 0  # restarts that did not last
        self.window: RestartWindow | None = None
        self.alarm: _Alarm | None = None

    def forget_arguments(self) -> None:
        """It will not be started again: what it was given may be large, and is its own."""
        self.args = ()
        self.spec = msgspec.structs.replace(self.spec, args=(), kwargs={})

    def info(self) -> ChildInfo:
        spec = self.spec
        return ChildInfo(self.id, self.ref, spec.cls, spec.restart, self.restarts, self.state, spec.supervisor)


class Retry(msgspec.Struct, frozen=True):
    """A note to itself: try again to start a child, if it is still at the same turn.

    ``due`` says that this restart has been counted and waited for.
    """

    child: Child
    turn: int
    due: bool


class _Alarm(Timer):
    __slots__ = ("_inbox", "_retry")

    def __init__(self, inbox: Mailbox, retry: Retry) -> None:
        super().__init__()
        self._inbox = inbox
        self._retry = retry

    def fire(self, generation: int) -> None:
        self._inbox.put(self._retry)


class Supervising(Process):
    """Traps exits, so an end of a child is a message to it; holds the children, in start order."""

    trap_exit = True
    in_pykka_registry = False
    is_supervisor = True

    def __init__(self) -> None:
        super().__init__()
        self._children: dict[str, Child] = {}
        self._by_ref: dict[ProcessRef, Child] = {}  # also who is being restarted, under the ref it had
        self._alarms: set[_Alarm] = set()
        self._random: random.Random | None = None

    def on_receive(self, message: Any) -> Any:
        match message:
            case WhichChildren():
                return [child.info() for child in reversed(self._children.values())]
            case CountChildren():
                return self._count()
        super().on_receive(message)
        raise refused("unknown_call", detail=type(message).__name__)

    def _count(self) -> ChildCounts:
        supervisors = active = 0
        for child in self._children.values():
            supervisors += child.spec.supervisor
            active += child.state == "running"
        count = len(self._children)
        return ChildCounts(specs=count, active=active, supervisors=supervisors, workers=count - supervisors)

    # --- starting ------------------------------------------------------------------------------------------------

    def _start_child(self, child: Child) -> None:
        """Start it; if it ignores, it is undefined afterwards. Raises what its start raises."""
        try:
            ref = self._spawn(child)
        except StartError as error:
            if not _says(error, "ignore"):
                raise
            self._put_down(child)
            return
        self._put_down(child)
        child.ref = ref
        child.state = "running"
        child.since = self.runtime.clock.monotonic()
        self._by_ref[ref] = child

    def _spawn(self, child: Child) -> ProcessRef:
        try:
            return self._spawn_once(child)
        except StartError as error:
            if not (_says(error, "already_started") and self._is_orphan(error.ref)):
                raise
            # It has its exit signal already: the supervisor that had it before was killed.
            self.runtime.join(error.ref, _PATIENCE)
        return self._spawn_once(child)

    def _spawn_once(self, child: Child) -> ProcessRef:
        spec = child.spec
        return self.runtime.spawn(
            spec.cls, *child.args, name=spec.name, link=self.ref, start_timeout=spec.start_timeout, **spec.kwargs
        )

    def _is_orphan(self, ref: Any) -> bool:
        process = ref._actor_weakref() if isinstance(ref, ProcessRef) else None
        parent = process.parent if process is not None else None
        if parent is None or not getattr(parent.actor_class, "is_supervisor", False):
            return False
        return not self.runtime.is_alive(parent)

    # --- ending --------------------------------------------------------------------------------------------------

    def _put_down(self, child: Child) -> None:
        """Note that it does not run and will not by itself; a restart under way is called off."""
        for ref in (child.ref, child.past):
            if ref is not None:
                self._by_ref.pop(ref, None)
        child.ref = child.past = None
        child.state = "undefined"
        child.turn += 1
        alarm, child.alarm = child.alarm, None
        if alarm is not None:
            self._alarms.discard(alarm)
            self.runtime.timers.cancel(alarm)

    def _end_child(self, child: Child) -> None:
        """End it; returns when it is dead."""
        ref = child.ref
        self._put_down(child)
        if ref is not None:
            self._end_process(ref, child.spec.shutdown)

    def _end_children(self, children: Iterable[Child]) -> None:
        """End them one after the other; returns when the last one is dead."""
        for child in children:
            self._end_child(child)

    def _end_process(self, ref: ProcessRef, shutdown: Shutdown) -> None:
        if shutdown != BRUTAL_KILL:
            self.runtime.exit(ref, SHUTDOWN, self.ref)
            if self.runtime.join(ref, shutdown):
                return
        self.runtime.exit(ref, KILL)

    def _set_aside(self, child: Child) -> None:
        """Note that it has ended and is about to be started again; it can be asked for by the ref that it had."""
        past = child.ref or child.past
        self._put_down(child)
        child.state = "restarting"
        child.past = past
        if past is not None:
            self._by_ref[past] = child

    # --- restarting ----------------------------------------------------------------------------------------------

    def _put_off(self, child: Child, delay: float = 0.0, *, due: bool = False) -> None:
        """Let its next start come through the mailbox, after ``delay`` seconds; it is ``restarting`` until then."""
        self._set_aside(child)
        retry = Retry(child, child.turn, due)
        if delay <= 0:
            if self.is_alive:
                self.ref.tell(retry)
            return
        child.alarm = alarm = _Alarm(self.actor_inbox, retry)
        self._alarms.add(alarm)
        self.runtime.timers.set(alarm, self.runtime.clock.monotonic() + delay)
        if not self.is_alive:  # killed meanwhile, so `dispose` may not have seen it
            self.runtime.timers.cancel(alarm)

    def _delay(self, child: Child) -> float:
        """How long its restart is to wait; counts it."""
        backoff = child.spec.backoff
        if backoff is None:
            return 0.0
        if self._random is None:
            self._random = random.Random(self.name or type(self).__name__)  # noqa: S311 - jitter, and the same in every simulation
        if child.state == "running" and self.runtime.clock.monotonic() - child.since >= backoff.max:
            child.failures = 0
        child.failures += 1
        return backoff_delay(backoff, child.failures - 1, self._random.random())

    def _log_restart(self, child: Child, reason: object) -> None:
        get_logger(actor=self.label).warning(
            "child_restarted", child=child.id, reason=describe_reason(reason), restarts=child.restarts
        )

    def _log_failure(self, child: Child, error: Exception) -> None:
        get_logger(actor=self.label).error("restart_failed", child=child.id, reason=describe_reason(error))

    def dispose(self, reason: object) -> None:
        """Called once by the runtime, when it is dead: release what it holds. Any thread."""
        for alarm in tuple(self._alarms):
            self.runtime.timers.cancel(alarm)
        super().dispose(reason)


def refused(code: str, child: object = None, detail: object = None) -> Refusal:
    """What to raise for the caller to get a `SupervisorError`."""
    return Refusal(SupervisorError(code, child, detail))


def must_not_run(child: Child) -> None:
    """Refuse what is only for a child that does not run."""
    if child.state != "undefined":
        raise refused(child.state, child.id)


def _says(error: StartError, word: str) -> bool:
    return isinstance(error.code, str) and error.code == word
