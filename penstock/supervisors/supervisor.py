"""The supervisor of a list of children: starts them in order, keeps them running, ends them in reverse order.

Requests to it are functions in `penstock.supervisors.calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from penstock.actors.runtime.process import ProcessRef, Refusal
from penstock.actors.runtime.reasons import SHUTDOWN, ProcessExit
from penstock.actors.runtime.signals import ExitNotice
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
from penstock.supervisors.children import Child, Retry, Supervising, check_not_running, refusal
from penstock.supervisors.restart import Plan, RestartWindow, plan_restart, should_restart, should_shut_down
from penstock.supervisors.spec import ChildSpec, SupervisorFlags, check_children

__all__ = ["Supervisor"]


class Supervisor(Supervising):
    """Starts its children in order and keeps them running, as ``flags.strategy`` says.

    Pass the children to ``spawn``, or write a subclass whose `init` returns them.

    If children are restarted more often than ``flags`` allow, the supervisor ends all of them in reverse order and
    itself with ``"shutdown"``. A restart that fails is tried again; each attempt counts.

    Raises, at its start:
        SupervisorError: ``failed_to_start_child``: a child did not start (``detail`` is the exception), and those
            before it have been ended in reverse order; ``duplicate_child_name``, ``invalid_child_spec``,
            ``bad_combination``: these children are not allowed together.
        StartError: `init` returned `IGNORE` (``ignore``) or something else than children and flags (``bad_return``).
    """

    def __init__(self, specs: Sequence[ChildSpec] = (), flags: SupervisorFlags | None = None) -> None:
        super().__init__()
        self._given = (specs, flags or SupervisorFlags())
        self._flags = self._given[1]
        self._window = RestartWindow(self._flags.intensity, self._flags.period)

    def init(self) -> Any:
        """Return the children and the flags, ``(specs, flags)``, or `IGNORE`. Called once, at the start."""
        return self._given

    # --- start, end, messages ------------------------------------------------------------------------------------

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
            case Retry(child=child, version=version, due=due):
                if child.version == version:
                    if due:
                        self._start_again(self._plan(child).start, child, "the back-off is over")
                    else:
                        self._restart(child, "the last restart failed")
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
                check_not_running(child)
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
            raise refusal("not_found", id)
        return child

    def _start(self, spec: Any) -> ProcessRef | None:
        try:
            check_children([spec], self._flags.auto_shutdown)
        except SupervisorError as error:
            raise Refusal(error) from None
        child = self._children.get(spec.id)
        if child is not None:
            raise refusal("already_started" if child.state == "running" else "already_present", spec.id, child.ref)
        child = Child(spec)
        try:
            self._start_child(child)
        except Exception as error:
            raise Refusal(error) from error
        self._keep(child)
        return child.ref

    def _start_stopped(self, child: Child) -> ProcessRef | None:
        check_not_running(child)
        try:
            self._start_child(child)
        except Exception as error:
            raise Refusal(error) from error
        return child.ref

    def _keep(self, child: Child) -> None:
        """Add a child to the children. A temporary one is kept only while it runs, and without its arguments."""
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
        self._mark_stopped(child)
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
        """Count a restart, end the children affected by it, and start all of them now or after the back-off."""
        delay = self._next_delay(ended)
        self._mark_restarting(ended)
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
            self._start_later(ended, delay, due=True)
        else:
            self._start_again(plan.start, ended, reason)

    def _start_again(self, ids: Iterable[str], ended: Child, reason: object) -> None:
        for id in ids:
            child = self._children[id]
            if child.state == "running":  # started on request during the back-off
                continue
            try:
                self._start_child(child)
            except Exception as error:
                self._log_failure(child, error)
                self._start_later(child)
                return
            self._count_restart(child)
        self._log_restart(ended, reason)
