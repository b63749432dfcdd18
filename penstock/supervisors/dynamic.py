"""The supervisor of children that come and go, with a specification each or one template for all.

Requests to it are functions in `penstock.supervisors.calls`.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from penstock.actors.runtime.process import ProcessRef, Refusal
from penstock.actors.runtime.reasons import KILL, NOPROC, NORMAL, SHUTDOWN, ProcessExit
from penstock.actors.runtime.signals import ExitNotice
from penstock.config.logs import get_logger
from penstock.errors import SupervisorError, describe_reason
from penstock.supervisors.calls import (
    ChildId,
    DeleteChild,
    GetChildSpec,
    ReportChild,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChild,
)
from penstock.supervisors.children import Child, Retry, Supervising, check_not_running, has_code, refusal
from penstock.supervisors.restart import RestartWindow, should_restart
from penstock.supervisors.spec import BRUTAL_KILL, ChildCounts, ChildExited, ChildSpec, SupervisorFlags, check_children

__all__ = ["DynamicSupervisor"]


class DynamicSupervisor(Supervising):
    """Starts children on request, and removes those that have ended and are not restarted.

    Args:
        template: the specification of all children (OTP's ``simple_one_for_one``). A request to start a child gives
            only the arguments that follow those of the template; children are known by their refs. None: each request
            brings its own specification.
        intensity, period: after more than ``intensity`` restarts of *one* child in ``period`` seconds, that child is
            removed. Its siblings go on: a stream that keeps crashing must not end the others.
        escalate: as in OTP, restarts of all children count together; one too many ends the supervisor and all
            children.
        observer: the name of a process that gets `ChildExited` when a child has ended and is not restarted.

    Raises:
        SupervisorError: ``bad_start_spec``, ``bad_combination``: the template is not allowed.
        OptionError: ``intensity`` or ``period`` is not allowed.
    """

    def __init__(
        self,
        template: ChildSpec | None = None,
        *,
        intensity: int = 3,
        period: float = 5.0,
        escalate: bool = False,
        observer: str | None = None,
    ) -> None:
        super().__init__()
        SupervisorFlags(intensity=intensity, period=period)  # validates
        if template is not None:
            if not isinstance(template, ChildSpec):
                raise SupervisorError("bad_start_spec", detail=type(template).__name__)
            check_children([template])
        self._template = template
        self._intensity = intensity
        self._period = period
        self._window = RestartWindow(intensity, period) if escalate else None
        self._observer = observer
        self._numbers = itertools.count(1)
        self._freeing = threading.Lock()  # several threads free ids, see `_free_id`

    def on_receive(self, message: Any) -> Any:
        match message:
            case StartChild(spec=spec):
                return self._start(self._child_of(spec))
            case ExitNotice(sender=sender, reason=reason):
                child = self._by_ref.get(sender) if sender is not None else None
                if child is not None and child.ref is sender:
                    self._child_ended(child, reason)
            case Retry(child=child, version=version, due=due):
                if child.version == version:
                    if due:
                        self._start_again(child, "the back-off is over")
                    else:
                        self._restart(child, "the last restart failed")
            case TerminateChild(id=id):
                self._terminate_child(id)
            case ReportChild(spec=spec):
                if spec.id not in self._children:
                    self._tell_observer(ChildExited(spec, None, NOPROC, self.name))
            case RestartChild(id=id) | DeleteChild(id=id):  # a child that is not running is not kept
                if self._template is not None:
                    raise refusal("simple_one_for_one", id)
                check_not_running(self._find(id))
            case WhichChild(id=id):
                return self._find(id).info()
            case GetChildSpec(id=id):
                return self._find(id).own_spec()
            case _:
                return super().on_receive(message)
        return None

    # --- requests ------------------------------------------------------------------------------------------------

    def _find(self, id: ChildId) -> Child:
        if isinstance(id, ProcessRef):
            child = self._by_ref.get(id)
        elif self._template is not None:
            raise refusal("simple_one_for_one", id)
        else:
            child = self._children.get(id)
        if child is None:
            raise refusal("not_found", id)
        return child

    def _terminate_child(self, id: ChildId) -> None:
        if isinstance(id, ProcessRef) and id not in self._by_ref and not id.is_alive():
            return
        child = self._find(id)
        self._free_id(child)
        self._end_child(child)

    def _child_of(self, spec: Any) -> Child:
        template = self._template
        if template is not None:
            if not isinstance(spec, tuple):
                raise refusal("simple_one_for_one", template.id)
            return Child(template, f"{template.id}#{next(self._numbers)}", (*template.args, *spec))
        try:
            check_children([spec])
        except SupervisorError as error:
            raise Refusal(error) from None
        return Child(spec)

    def _start(self, child: Child) -> ProcessRef | None:
        self._enter(child)
        try:
            self._start_child(child)
        except Exception as error:
            self._free_id(child)
            self._tell_observer(ChildExited(child.spec, None, error, self.name))
            raise Refusal(error) from error
        if child.ref is None:  # its `init` returned IGNORE
            self._free_id(child)
            self._tell_observer(ChildExited(child.spec, None, NORMAL, self.name))
            return None
        if child.spec.restart == "temporary":  # its specification is kept for the observer
            if self._template is not None:
                child.args = ()
            elif self._observer is None:
                child.forget_arguments()
        return child.ref

    def _enter(self, child: Child) -> None:
        """Take the child's id, before it starts: another thread may be about to start a child with the same id."""
        other = self._children.setdefault(child.id, child)
        if other is not child:
            raise refusal("already_started", child.id, other.ref)  # or it is about to be restarted

    def _free_id(self, child: Child) -> None:
        """Let another child have the id, unless one has it already: this one may have been ended by its id before."""
        with self._freeing:
            if self._children.get(child.id) is child:
                del self._children[child.id]

    def start_here(self, child: Child) -> ProcessRef:
        """Start a child in the calling thread, which need not be this process. It has no time-out for its start.

        The child is linked to this supervisor before it runs. From then on it is like any other child.

        The observer is told of a child that did not start, unless its name is taken or this supervisor is dead: the
        child may be started in another way then.

        Raises:
            SupervisorError: ``already_started``: there is a child with its id, or is about to be.
            StartError: it did not start. Its ``code`` is ``"already_started"`` if another process has its name; it
                is a `ProcessDead` if this supervisor is dead.
            Exception: what its start raised.
        """
        try:
            self._enter(child)
        except Refusal as refused:
            raise refused.error from None
        try:
            ref = self._spawn_once(child)
            child.started_at = self.runtime.clock.monotonic()
            child.ref, child.state = ref, "running"
            self._by_ref[ref] = child
        except BaseException as error:
            self._free_id(child)
            if not isinstance(error, Exception):  # Ctrl-C: the process may run all the same
                self._kill_interrupted(child)
            elif self.is_alive and not has_code(error, "already_started"):
                self._tell_observer(ChildExited(child.own_spec(), None, error, self.name))
            raise
        if not ref.is_alive():  # its exit may have been handled before it was entered; harmless twice
            self.actor_inbox.put(ExitNotice(ref, self.runtime.exit_reason(ref)))
        if self._children.get(child.id) is not child:  # ended by its id while it started
            self.runtime.exit(ref, KILL)
        return ref

    def _kill_interrupted(self, child: Child) -> None:
        """Kill the process of a child whose start was interrupted, if it runs all the same."""
        ref = child.ref or (None if child.name is None else self.runtime.whereis(child.name))
        if ref is None:
            return
        process = ref._actor_weakref()
        if process is not None and process.parent is self.ref and self._by_ref.get(ref, child) is child:
            self.runtime.exit(ref, KILL)

    def _count(self) -> ChildCounts:
        """As in OTP, a template is one specification. The other counts are of the children started from it."""
        counts = super()._count()
        if self._template is None:
            return counts
        return ChildCounts(specs=1, active=counts.active, supervisors=counts.supervisors, workers=counts.workers)

    # --- ends and restarts ---------------------------------------------------------------------------------------

    def _child_ended(self, child: Child, reason: object) -> None:
        if should_restart(child.spec.restart, reason):
            self._restart(child, reason)
        else:
            self._remove(child, reason)

    def _restart(self, child: Child, reason: object) -> None:
        delay = self._next_delay(child)
        self._mark_restarting(child)
        window = self._window or child.window
        if window is None:
            window = child.window = RestartWindow(self._intensity, self._period)
        if window.exceeded(self.runtime.clock.monotonic()):
            if window is self._window:
                get_logger(actor=self.label).error("too_many_restarts", child=child.id)
                raise ProcessExit(SHUTDOWN)
            get_logger(actor=self.label).error("child_removed", child=child.id, reason=describe_reason(reason))
            self._remove(child, reason)
        elif delay > 0:
            self._start_later(child, delay, due=True)
        else:
            self._start_again(child, reason)

    def _start_again(self, child: Child, reason: object) -> None:
        self._count_restart(child)
        previous_ref = child.previous_ref
        try:
            self._start_child(child)
        except Exception as error:
            if has_code(error, NORMAL):
                self._remove(child, NORMAL)  # it has nothing left to do
            else:
                self._log_failure(child, error)
                self._start_later(child)
            return
        if child.ref is None:  # its `init` returned IGNORE
            child.previous_ref = previous_ref
            self._remove(child, NORMAL)
        else:
            self._log_restart(child, reason)

    def forget_child(self, ref: ProcessRef) -> bool:
        """Forget a child that ends quietly; see `Process.forget_child`."""
        child = self._by_ref.get(ref)
        if child is None or child.ref is not ref or child.spec.restart == "permanent":
            return False
        self._free_id(child)
        self._by_ref.pop(ref, None)
        return True

    def _remove(self, child: Child, reason: object) -> None:
        """Remove a child that has ended, and tell the observer."""
        ref = child.ref or child.previous_ref
        self._free_id(child)
        self._mark_stopped(child)
        self._tell_observer(ChildExited(child.own_spec(), ref, reason, self.name))

    def _tell_observer(self, exited: ChildExited) -> None:
        observer = self.runtime.whereis(self._observer) if self._observer else None
        if observer is not None:
            observer.tell(exited)

    def terminate(self, reason: object) -> None:
        """End all children at the same time; kill each one that is not dead after its own ``shutdown`` time."""
        clock, running = self.runtime.clock, []
        for child in tuple(self._children.values()):
            if child.ref is None:
                continue
            if child.spec.shutdown == BRUTAL_KILL:
                self.runtime.exit(child.ref, KILL)
            else:
                self.runtime.exit(child.ref, SHUTDOWN, self.ref)
                running.append((_seconds(child.spec.shutdown), child.ref))
        began = clock.monotonic()
        for limit, ref in sorted(running, key=lambda entry: entry[0]):  # the shortest time first
            left = None if limit == _FOR_EVER else max(0.0, began + limit - clock.monotonic())
            if not self.runtime.join(ref, left):
                self.runtime.exit(ref, KILL)


_FOR_EVER = float("inf")


def _seconds(shutdown: Any) -> float:
    return _FOR_EVER if shutdown is None else float(shutdown)
