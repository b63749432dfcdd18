"""What all supervisors have in common: start a child, end it, restart it later, and find it by its ref."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock.actors.runtime.clock import Timer
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, ProcessRef, Refusal
from penstock.actors.runtime.reasons import KILL, SHUTDOWN
from penstock.config.logs import get_logger
from penstock.errors import StartError, SupervisorError, describe_reason
from penstock.supervisors.calls import CountChildren, Successor, WhichChildren
from penstock.supervisors.restart import RestartWindow, backoff_delay
from penstock.supervisors.spec import BRUTAL_KILL, ChildCounts, ChildInfo, ChildSpec, ChildState, Shutdown

__all__ = ["Child", "Retry", "Supervising", "check_not_running", "has_code", "refusal"]

_FORMER: Final = 8  # refs of earlier incarnations that are kept
_PATIENCE: Final = 5.0  # seconds to wait for a name whose process is about to end


class Child:
    """A supervisor's record of one child."""

    __slots__ = (
        "args",
        "failures",
        "former",
        "id",
        "name",
        "previous_ref",
        "ref",
        "restarts",
        "spec",
        "started_at",
        "state",
        "timer",
        "version",
        "window",
    )

    def __init__(
        self,
        spec: ChildSpec,
        id: str | None = None,
        args: tuple[Any, ...] | None = None,
        name: str | None = None,
    ) -> None:
        self.id = spec.id if id is None else id
        self.name = spec.name if name is None else name
        self.spec = spec
        self.args = spec.args if args is None else args
        self.state: ChildState = "undefined"
        self.ref: ProcessRef | None = None
        self.former: tuple[ProcessRef, ...] = ()  # its last refs before the present one
        self.previous_ref: ProcessRef | None = None  # its ref before the restart, while it is being restarted
        self.version = 0  # counts changes of state
        self.started_at = 0.0  # when it was started
        self.restarts = 0
        self.failures = 0  # restarts that did not last
        self.window: RestartWindow | None = None
        self.timer: _RetryTimer | None = None

    def forget_arguments(self) -> None:
        """Drop the arguments, which may be large, of a child that will not be started again."""
        self.args = ()
        self.spec = msgspec.structs.replace(self.spec, args=(), kwargs={})

    def own_spec(self) -> ChildSpec:
        """The specification that would start this child again, also if several children share ``spec``."""
        spec = self.spec
        if self.name == spec.name:
            return spec
        spec = copy.copy(spec)  # what is in it has been checked
        for field, value in (("id", self.id), ("args", self.args), ("name", self.name)):
            msgspec.structs.force_setattr(spec, field, value)
        return spec

    def info(self) -> ChildInfo:
        spec = self.spec
        return ChildInfo(self.id, self.ref, spec.cls, spec.restart, self.restarts, self.state, spec.supervisor)


class Retry(msgspec.Struct, frozen=True):
    """A supervisor's message to itself: try again to start a child, unless its state has changed since.

    ``due``: this restart has been counted, and its wait is over.
    """

    child: Child
    version: int
    due: bool


class _RetryTimer(Timer):
    __slots__ = ("_inbox", "_retry")

    def __init__(self, inbox: Mailbox, retry: Retry) -> None:
        super().__init__()
        self._inbox = inbox
        self._retry = retry

    def fire(self, generation: int) -> None:
        self._inbox.put(self._retry)


class Supervising(Process):
    """Base of all supervisors. It traps exits, so it gets a message when a child ends, and keeps the children in start
    order.
    """

    trap_exit = True
    in_pykka_registry = False
    is_supervisor = True

    def __init__(self) -> None:
        super().__init__()
        self._children: dict[str, Child] = {}
        self._by_ref: dict[ProcessRef, Child] = {}  # a child that is being restarted is found by its last ref
        self._retry_timers: set[_RetryTimer] = set()
        self._random: random.Random | None = None

    def on_receive(self, message: Any) -> Any:
        match message:
            case WhichChildren():
                return [child.info() for child in reversed(tuple(self._children.values()))]
            case CountChildren():
                return self._count()
            case Successor(ref=ref):
                return self._successor(ref)
        super().on_receive(message)
        raise refusal("unknown_call", detail=type(message).__name__)

    def _successor(self, ref: ProcessRef) -> ProcessRef | str | None:
        child = next((one for one in tuple(self._children.values()) if one.ref is ref or ref in one.former), None)
        if child is None:
            return None
        if child.state == "running" and child.ref is not ref:
            return child.ref
        # A stopped child may be restarted together with a sibling.
        is_restarting = child.ref is ref or any(one.state == "restarting" for one in tuple(self._children.values()))
        return "restarting" if is_restarting else None

    def _count(self) -> ChildCounts:
        supervisors = active = 0
        children = tuple(self._children.values())
        for child in children:
            supervisors += child.spec.supervisor
            active += child.state == "running"
        count = len(children)
        return ChildCounts(specs=count, active=active, supervisors=supervisors, workers=count - supervisors)

    # --- starting ------------------------------------------------------------------------------------------------

    def _start_child(self, child: Child) -> None:
        """Start a child. If its ``init`` returns `IGNORE`, its state is ``undefined`` afterwards.

        Raises:
            StartError: it did not start.
            Exception: what its start raised.
        """
        try:
            ref = self._spawn(child)
        except StartError as error:
            if not has_code(error, "ignore"):
                raise
            self._mark_stopped(child)
            return
        self._mark_stopped(child)
        child.ref = ref
        child.state = "running"
        child.started_at = self.runtime.clock.monotonic()
        self._by_ref[ref] = child

    def _spawn(self, child: Child) -> ProcessRef:
        """Spawn a child; wait for its name if a killed supervisor's child still has it.

        Raises:
            StartError: it did not start.
            Exception: what its start raised.
        """
        try:
            return self._spawn_once(child)
        except StartError as error:
            if not (has_code(error, "already_started") and self._is_orphan(error.ref)):
                raise
            # Its supervisor was killed, so it has its exit signal already.
            self.runtime.join(error.ref, _PATIENCE)
        return self._spawn_once(child)

    def _spawn_once(self, child: Child) -> ProcessRef:
        spec = child.spec
        return self.runtime.spawn(
            spec.cls, *child.args, name=child.name, link=self.ref, start_timeout=spec.start_timeout, **spec.kwargs
        )

    def _is_orphan(self, ref: Any) -> bool:
        """Whether the process is the child of a supervisor that is dead."""
        process = ref._actor_weakref() if isinstance(ref, ProcessRef) else None
        parent = process.parent if process is not None else None
        if parent is None or not getattr(parent.actor_class, "is_supervisor", False):
            return False
        return not self.runtime.is_alive(parent)

    # --- ending --------------------------------------------------------------------------------------------------

    def _mark_stopped(self, child: Child) -> None:
        """Record that a child is not running; a pending restart is cancelled."""
        for ref in (child.ref, child.previous_ref):
            if ref is not None:
                self._by_ref.pop(ref, None)
        if child.ref is not None:
            child.former = (*child.former, child.ref)[-_FORMER:]
        child.ref = child.previous_ref = None
        child.state = "undefined"
        child.version += 1
        timer, child.timer = child.timer, None
        if timer is not None:
            self._retry_timers.discard(timer)
            self.runtime.timers.cancel(timer)

    def _end_child(self, child: Child) -> None:
        """End a child; returns when it is dead."""
        ref = child.ref
        self._mark_stopped(child)
        if ref is not None:
            self._end_process(ref, child.spec.shutdown)

    def _end_children(self, children: Iterable[Child]) -> None:
        """End children one after the other; returns when the last one is dead."""
        for child in children:
            self._end_child(child)

    def _end_process(self, ref: ProcessRef, shutdown: Shutdown) -> None:
        if shutdown != BRUTAL_KILL:
            self.runtime.exit(ref, SHUTDOWN, self.ref)
            if self.runtime.join(ref, shutdown):
                return
        self.runtime.exit(ref, KILL)

    def _mark_restarting(self, child: Child) -> None:
        """Record that a child has ended and will be started again. It is still found by its last ref."""
        previous_ref = child.ref or child.previous_ref
        self._mark_stopped(child)
        child.state = "restarting"
        child.previous_ref = previous_ref
        if previous_ref is not None:
            self._by_ref[previous_ref] = child

    # --- restarting ----------------------------------------------------------------------------------------------

    def _start_later(self, child: Child, delay: float = 0.0, *, due: bool = False) -> None:
        """Start a child in a later message, after ``delay`` seconds. Its state is ``restarting`` until then."""
        self._mark_restarting(child)
        retry = Retry(child, child.version, due)
        if delay <= 0:
            if self.is_alive:
                self.ref.tell(retry)
            return
        child.timer = timer = _RetryTimer(self.actor_inbox, retry)
        self._retry_timers.add(timer)
        self.runtime.timers.set(timer, self.runtime.clock.monotonic() + delay)
        if not self.is_alive:  # killed meanwhile: `dispose` may have missed this timer
            self.runtime.timers.cancel(timer)

    def _next_delay(self, child: Child) -> float:
        """Count a restart and return the seconds it has to wait."""
        backoff = child.spec.backoff
        if backoff is None:
            return 0.0
        if self._random is None:
            self._random = random.Random(self.name or type(self).__name__)  # noqa: S311 - jitter, and the same in every simulation
        if child.state == "running" and self.runtime.clock.monotonic() - child.started_at >= backoff.max:
            child.failures = 0
        child.failures += 1
        return backoff_delay(backoff, child.failures - 1, self._random.random())

    def _count_restart(self, child: Child) -> None:
        child.restarts += 1
        self.runtime.note_restart(self.name or type(self).__name__)

    def _log_restart(self, child: Child, reason: object) -> None:
        get_logger(actor=self.label).warning(
            "child_restarted", child=child.id, reason=describe_reason(reason), restarts=child.restarts
        )

    def _log_failure(self, child: Child, error: Exception) -> None:
        get_logger(actor=self.label).error("restart_failed", child=child.id, reason=describe_reason(error))

    def dispose(self, reason: object) -> None:
        """Cancel all timers. Called once by the runtime when the supervisor is dead, in any thread."""
        for timer in tuple(self._retry_timers):
            self.runtime.timers.cancel(timer)
        super().dispose(reason)


def refusal(code: str, child: object = None, detail: object = None) -> Refusal:
    """Return an exception to raise in a call, so that the caller gets a `SupervisorError`."""
    return Refusal(SupervisorError(code, child, detail))


def check_not_running(child: Child) -> None:
    """Raise a refusal unless the child is stopped, and not about to be restarted."""
    if child.state != "undefined":
        raise refusal(child.state, child.id)


def has_code(error: Exception, code: str) -> bool:
    """Whether it is a `StartError` with that code. A process may also end its start with any object as the reason."""
    return isinstance(error, StartError) and isinstance(error.code, str) and error.code == code
