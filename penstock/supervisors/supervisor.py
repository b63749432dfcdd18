"""The supervisor of a list of children: starts them in order, keeps them running, ends them in reverse.

What may be asked of it is in `penstock.supervisors.calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from penstock.actors.runtime.process import ProcessRef, Refusal
from penstock.actors.runtime.signals import SHUTDOWN, ExitNotice, ProcessExit
from penstock.actors.runtime.transitions import IGNORE
from penstock.config.logs import get_logger
from penstock.errors import StartError, SupervisorError
from penstock.supervisors.calls import (
    ChildId,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChild,
)
from penstock.supervisors.children import Child, Retry, Supervising, must_not_run, refused
from penstock.supervisors.restart import Plan, RestartWindow, plan_restart, should_restart, should_shut_down
from penstock.supervisors.spec import ChildSpec, SupervisorFlags, check_children

__all__ = ["Supervisor"]


class Supervisor(Supervising):
    """Starts its children in order and keeps them running, by ``flags.strategy``.

    Give it its children, or write a subclass whose `init` returns them.

    If a child's first start fails, those before it are ended in reverse and this start raises `SupervisorError`
    (``failed_to_start_child``). If children are restarted more often than ``flags`` allow, it ends all of them in
    reverse and itself with ``"shutdown"``. A restart that fails is tried again, and counts, each time.
    """

    def __init__(self, specs: Sequence[ChildSpec] = (), flags: SupervisorFlags | None = None) -> None:
        super().__init__()
        self._given = (specs, flags or SupervisorFlags())
        self._flags = self._given[1]
        self._window = RestartWindow(self._flags.intensity, self._flags.period)

    def init(self) -> Any:
        """Return the children and the flags, ``(specs, flags)``, or `IGNORE`; asked once, when it starts."""
        return self._given

    # --- its life ------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        wanted = self.init()
        if wanted is IGNORE:
            raise StartError(self.label, "ignore")
        match wanted:
            case (Sequence() as specs, SupervisorFlags() as flags):
                pass
            case _:
                raise StartError(self.label, "bad_return")
        self._flags = flags
        self._window = RestartWindow(flags.intensity, flags.period)
        check_children(specs, flags.auto_shutdown)
        for spec in specs:
            self._add_first(Child(spec))

    def _add_first(self, child: Child) -> None:
        try:
            self._start_child(child)
        except Exception as error:
            self._end_children(list(reversed(self._children.values())))
            raise SupervisorError("failed_to_start_child", child.id, error) from error
        self._keep(child)

    def terminate(self, reason: object) -> None:
        """End the children in reverse order."""
        self._end_children(list(reversed(self._children.values())))

    def on_receive(self, message: Any) -> Any:
        match message:
            case ExitNotice(sender=sender, reason=reason):
                child = self._by_ref.get(sender) if sender is not None else None
                if child is not None and child.ref is sender:
                    self._child_ended(child, reason)
            case Retry(child=child, turn=turn, due=due):
                if child.turn == turn:
                    if due:
                        self._start_again(self._plan(child).start, child, "it was time")
                    else:
                        self._restart(child, "its restart failed")
            case StartChild(spec=spec):
                return self._start(spec)
            case TerminateChild(id=id):
                child = self._find(id)
                self._end_child(child)
                if child.spec.restart == "temporary":
                    del self._children[child.id]
            case RestartChild(id=id):
                return self._start_stopped(self._find(id))
            case DeleteChild(id=id):
                child = self._find(id)
                must_not_run(child)
                del self._children[child.id]
            case WhichChild(id=id):
                return self._find(id).info()
            case GetChildSpec(id=id):
                return self._find(id).spec
            case _:
                return super().on_receive(message)
        return None

    # --- requests ------------------------------------------------------------------------------------------------

    def _find(self, id: ChildId) -> Child:
        child = self._children.get(id) if isinstance(id, str) else None
        if child is None:
            raise refused("not_found", id)
        return child

    def _start(self, spec: Any) -> ProcessRef | None:
        try:
            check_children([spec], self._flags.auto_shutdown)
        except SupervisorError as error:
            raise Refusal(error) from None
        child = self._children.get(spec.id)
        if child is not None:
            raise refused("already_started" if child.state == "running" else "already_present", spec.id, child.ref)
        child = Child(spec)
        try:
            self._start_child(child)
        except Exception as error:
            raise Refusal(error) from error
        self._keep(child)
        return child.ref

    def _start_stopped(self, child: Child) -> ProcessRef | None:
        must_not_run(child)
        try:
            self._start_child(child)
        except Exception as error:
            raise Refusal(error) from error
        return child.ref

    def _keep(self, child: Child) -> None:
        """Have it among the children. A temporary one is kept only while it runs, and what it was given not at all."""
        if child.spec.restart == "temporary":
            if child.ref is None:
                return
            child.forget_arguments()
        self._children[child.id] = child

    # --- ends and restarts ---------------------------------------------------------------------------------------

    def _child_ended(self, child: Child, reason: object) -> None:
        if should_restart(child.spec.restart, reason):
            self._restart(child, reason)
            return
        self._put_down(child)
        if child.spec.restart == "temporary":
            del self._children[child.id]
        policy = self._flags.auto_shutdown
        significant = child.spec.significant
        others_active = significant and policy == "all_significant" and self._has_active_significant()
        if should_shut_down(policy, significant, others_active):
            raise ProcessExit(SHUTDOWN)

    def _has_active_significant(self) -> bool:
        return any(child.spec.significant and child.state != "undefined" for child in self._children.values())

    def _plan(self, ended: Child) -> Plan:
        strategy = self._flags.strategy
        if strategy == "one_for_one":
            return plan_restart(strategy, {}, ended.id)
        return plan_restart(strategy, {id: child.spec.restart for id, child in self._children.items()}, ended.id)

    def _restart(self, ended: Child, reason: object) -> None:
        """Count a restart, end who has to end with it, and start them all, now or when the back-off is over."""
        delay = self._delay(ended)
        self._set_aside(ended)
        if self._window.exceeded(self.runtime.clock.monotonic()):
            get_logger(actor=self.label).error("too_many_restarts", child=ended.id)
            raise ProcessExit(SHUTDOWN)
        plan = self._plan(ended)
        for id in plan.stop:
            child = self._children[id]
            self._end_child(child)
            if child.spec.restart == "temporary":
                del self._children[id]
        if delay > 0:
            self._put_off(ended, delay, due=True)
        else:
            self._start_again(plan.start, ended, reason)

    def _start_again(self, ids: Iterable[str], ended: Child, reason: object) -> None:
        for id in ids:
            child = self._children[id]
            if child.state == "running":  # somebody has asked for it while the back-off went on
                continue
            try:
                self._start_child(child)
            except Exception as error:
                self._log_failure(child, error)
                self._put_off(child)
                return
            child.restarts += 1
        self._log_restart(ended, reason)
