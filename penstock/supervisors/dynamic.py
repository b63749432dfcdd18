"""The supervisor of children that come and go: each by a specification of its own, or all by one template.

What may be asked of it is in `penstock.supervisors.calls`.
"""

from __future__ import annotations

import itertools
from typing import Any

from penstock.actors.runtime.process import ProcessRef, Refusal
from penstock.actors.runtime.signals import KILL, NOPROC, NORMAL, SHUTDOWN, ExitNotice, ProcessExit
from penstock.config.logs import get_logger
from penstock.errors import StartError, SupervisorError, describe_reason
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
from penstock.supervisors.children import Child, Retry, Supervising, must_not_run, refused
from penstock.supervisors.restart import RestartWindow, should_restart
from penstock.supervisors.spec import BRUTAL_KILL, ChildCounts, ChildExited, ChildSpec, SupervisorFlags, check_children

__all__ = ["DynamicSupervisor"]


class DynamicSupervisor(Supervising):
    """Starts children when asked to, and forgets those that are gone for good.

    Args:
        template: the specification of all children (OTP's ``simple_one_for_one``): whoever starts one only gives the
            arguments that follow the template's own. They are told apart by their refs. None: each comes with a
            specification of its own.
        intensity, period: how often *one* child may be restarted; one more, and this child is given up. Children do
            not escalate: that one stream crashes again and again must not end the others.
        escalate: as in OTP: restarts of all children count together, and one too many ends the supervisor and all.
        observer: the name of a process that is told `ChildExited` when a child is gone for good.
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

    def on_receive(self, message: Any) -> Any:
        match message:
            case StartChild(spec=spec):
                return self._start(self._child_of(spec))
            case ExitNotice(sender=sender, reason=reason):
                child = self._by_ref.get(sender) if sender is not None else None
                if child is not None and child.ref is sender:
                    self._child_ended(child, reason)
            case Retry(child=child, turn=turn, due=due):
                if child.turn == turn:
                    if due:
                        self._start_again(child, "it was time")
                    else:
                        self._restart(child, "its restart failed")
            case TerminateChild(id=id):
                self._terminate_child(id)
            case ReportChild(spec=spec):
                if spec.id not in self._children:
                    self._tell_observer(ChildExited(spec, None, NOPROC, self.name))
            case RestartChild(id=id) | DeleteChild(id=id):  # who does not run is not kept
                if self._template is not None:
                    raise refused("simple_one_for_one", id)
                must_not_run(self._find(id))
            case WhichChild(id=id):
                return self._find(id).info()
            case GetChildSpec(id=id):
                return self._find(id).spec
            case _:
                return super().on_receive(message)
        return None

    # --- requests ------------------------------------------------------------------------------------------------

    def _find(self, id: ChildId) -> Child:
        if isinstance(id, ProcessRef):
            child = self._by_ref.get(id)
        elif self._template is not None:
            raise refused("simple_one_for_one", id)
        else:
            child = self._children.get(id)
        if child is None:
            raise refused("not_found", id)
        return child

    def _terminate_child(self, id: ChildId) -> None:
        if isinstance(id, ProcessRef) and id not in self._by_ref and not id.is_alive():
            return
        child = self._find(id)
        self._children.pop(child.id, None)
        self._end_child(child)

    def _child_of(self, spec: Any) -> Child:
        template = self._template
        if template is not None:
            if not isinstance(spec, tuple):
                raise refused("simple_one_for_one", template.id)
            return Child(template, f"{template.id}#{next(self._numbers)}", (*template.args, *spec))
        try:
            check_children([spec])
        except SupervisorError as error:
            raise Refusal(error) from None
        other = self._children.get(spec.id)
        if other is not None:
            raise refused("already_started", spec.id, other.ref)  # or just being restarted: the asker need not care
        return Child(spec)

    def _start(self, child: Child) -> ProcessRef | None:
        try:
            self._start_child(child)
        except Exception as error:
            self._tell_observer(ChildExited(child.spec, None, error, self.name))
            raise Refusal(error) from error
        if child.ref is None:  # it ignores
            self._tell_observer(ChildExited(child.spec, None, NORMAL, self.name))
            return None
        if child.spec.restart == "temporary":  # an observer is told of its specification in the end
            if self._template is not None:
                child.args = ()
            elif self._observer is None:
                child.forget_arguments()
        self._children[child.id] = child
        return child.ref

    def _count(self) -> ChildCounts:
        """As in OTP, a template is one specification; what has been started by it counts as the rest."""
        counts = super()._count()
        if self._template is None:
            return counts
        return ChildCounts(specs=1, active=counts.active, supervisors=counts.supervisors, workers=counts.workers)

    # --- ends and restarts ---------------------------------------------------------------------------------------

    def _child_ended(self, child: Child, reason: object) -> None:
        if should_restart(child.spec.restart, reason):
            self._restart(child, reason)
        else:
            self._give_up(child, reason)

    def _restart(self, child: Child, reason: object) -> None:
        delay = self._delay(child)
        self._set_aside(child)
        window = self._window or child.window
        if window is None:
            window = child.window = RestartWindow(self._intensity, self._period)
        if window.exceeded(self.runtime.clock.monotonic()):
            if window is self._window:
                get_logger(actor=self.label).error("too_many_restarts", child=child.id)
                raise ProcessExit(SHUTDOWN)
            get_logger(actor=self.label).error("child_given_up", child=child.id, reason=describe_reason(reason))
            self._give_up(child, reason)
        elif delay > 0:
            self._put_off(child, delay, due=True)
        else:
            self._start_again(child, reason)

    def _start_again(self, child: Child, reason: object) -> None:
        child.restarts += 1
        past = child.past
        try:
            self._start_child(child)
        except Exception as error:
            if isinstance(error, StartError) and isinstance(error.code, str) and error.code == NORMAL:
                self._give_up(child, NORMAL)  # it finds nothing left to do
            else:
                self._log_failure(child, error)
                self._put_off(child)
            return
        if child.ref is None:  # it ignores
            child.past = past
            self._give_up(child, NORMAL)
        else:
            self._log_restart(child, reason)

    def _give_up(self, child: Child, reason: object) -> None:
        """Forget a child that has ended."""
        ref = child.ref or child.past
        self._children.pop(child.id, None)
        self._put_down(child)
        self._tell_observer(ChildExited(child.spec, ref, reason, self.name))

    def _tell_observer(self, exited: ChildExited) -> None:
        observer = self.runtime.whereis(self._observer) if self._observer else None
        if observer is not None:
            observer.tell(exited)

    def terminate(self, reason: object) -> None:
        """End all children at once; who is not dead when its own time-out is over is killed."""
        clock, running = self.runtime.clock, []
        for child in self._children.values():
            if child.ref is None:
                continue
            if child.spec.shutdown == BRUTAL_KILL:
                self.runtime.exit(child.ref, KILL)
            else:
                self.runtime.exit(child.ref, SHUTDOWN, self.ref)
                running.append((_seconds(child.spec.shutdown), child.ref))
        began = clock.monotonic()
        for limit, ref in sorted(running, key=lambda entry: entry[0]):  # whose time is over first, first
            left = None if limit == _FOR_EVER else max(0.0, began + limit - clock.monotonic())
            if not self.runtime.join(ref, left):
                self.runtime.exit(ref, KILL)


_FOR_EVER = float("inf")


def _seconds(shutdown: Any) -> float:
    return _FOR_EVER if shutdown is None else float(shutdown)
