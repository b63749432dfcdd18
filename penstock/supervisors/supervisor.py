"""Supervisors: processes that start, watch, restart and end other processes.

`Supervisor` has a fixed list of children and a strategy; `DynamicSupervisor` starts and forgets children on request.
Both trap exits, so an end of a child is a message to them; and both answer calls from a third process at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from penstock.actors.runtime.process import Process, ProcessRef, Refusal
from penstock.actors.runtime.signals import KILL, NOPROC, NORMAL, SHUTDOWN, ExitNotice, ProcessExit
from penstock.config.logs import get_logger
from penstock.errors import StartError, SupervisorError, describe_reason
from penstock.supervisors.restart import RestartWindow, plan_restart, should_restart
from penstock.supervisors.spec import BRUTAL_KILL, ChildExited, ChildInfo, ChildSpec, SupervisorFlags

__all__ = ["DynamicSupervisor", "ReportChild", "StartChild", "Supervisor", "TerminateChild", "WhichChildren"]


_FOR_EVER: Final = 86_400.0  # a wait has an end


class WhichChildren(msgspec.Struct, frozen=True):
    """Ask for a list of `ChildInfo`."""


class StartChild(msgspec.Struct, frozen=True):
    """Ask a dynamic supervisor to start a child; the answer is its ref, or what its start raised."""

    spec: ChildSpec


class TerminateChild(msgspec.Struct, frozen=True):
    """Ask to end a child as its specification says and forget it; unknown ids get a `SupervisorError`."""

    id: str


class ReportChild(msgspec.Struct, frozen=True):
    """Ask to be told (`ChildExited` with ``"noproc"``, to the observer) if there is no such child."""

    spec: ChildSpec


class _Retry(msgspec.Struct, frozen=True):
    """A note to itself: a restart failed, try again."""

    id: str


class _Child:
    __slots__ = ("ref", "restarts", "spec", "window")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.ref: ProcessRef | None = None
        self.restarts = 0
        self.window: RestartWindow | None = None

    def info(self) -> ChildInfo:
        return ChildInfo(self.spec.id, self.ref, self.spec.cls, self.spec.restart, self.restarts)


class _Supervising(Process):
    """What both kinds do: start a child, end children."""

    trap_exit = True
    in_pykka_registry = False
    is_supervisor = True

    def _start_child(self, child: _Child) -> None:
        spec = child.spec
        child.ref = self.runtime.spawn(spec.cls, *spec.args, name=spec.name, link=self.ref, **spec.kwargs)

    def _end_children(self, children: Iterable[_Child]) -> None:
        """End them one after the other; returns when the last one is dead."""
        for child in children:
            ref, child.ref = child.ref, None
            if ref is None:
                continue
            if child.spec.shutdown != BRUTAL_KILL:
                self.runtime.exit(ref, SHUTDOWN, self.ref)
                if self.runtime.join(ref, child.spec.shutdown):
                    continue
            self.runtime.exit(ref, KILL)

    def _log_restart(self, child: _Child, reason: object) -> None:
        get_logger(actor=self.label).warning(
            "child_restarted", child=child.spec.id, reason=describe_reason(reason), restarts=child.restarts
        )


class Supervisor(_Supervising):
    """Starts its children in order and keeps them running.

    If a child's first start fails, those before it are ended in reverse and this start raises. If children end more
    often than ``flags`` allow, it ends all of them in reverse and itself with ``"shutdown"``.
    """

    def __init__(self, specs: Sequence[ChildSpec], flags: SupervisorFlags | None = None) -> None:
        super().__init__()
        self._flags = flags or SupervisorFlags()
        self._children: dict[str, _Child] = {}
        for spec in specs:
            if spec.id in self._children:
                raise SupervisorError("duplicate_child_name", spec.id)
            self._children[spec.id] = _Child(spec)
        self._window = RestartWindow(self._flags.intensity, self._flags.period)

    def on_start(self) -> None:
        started: list[_Child] = []
        for child in self._children.values():
            try:
                self._start_child(child)
            except Exception as error:
                self._end_children(reversed(started))
                raise SupervisorError("failed_to_start_child", child.spec.id, error) from error
            started.append(child)

    def on_receive(self, message: Any) -> Any:
        match message:
            case WhichChildren():
                return [child.info() for child in self._children.values()]
            case ExitNotice(sender=sender, reason=reason):
                ended = next((child for child in self._children.values() if child.ref is sender), None)
                if ended is not None and sender is not None:
                    self._child_ended(ended, reason)
            case _Retry(id=id):
                child = self._children.get(id)
                if child is not None and child.ref is None:
                    self._restart(child)
            case _:
                return super().on_receive(message)
        return None

    def _child_ended(self, child: _Child, reason: object) -> None:
        child.ref = None
        if should_restart(child.spec.restart, reason):
            self._log_restart(child, reason)
            self._restart(child)
        elif child.spec.restart == "temporary":
            del self._children[child.spec.id]

    def _restart(self, ended: _Child) -> None:
        if self._window.exceeded(self.runtime.clock.monotonic()):
            get_logger(actor=self.label).error("too_many_restarts", child=ended.spec.id)
            raise ProcessExit(SHUTDOWN)
        plan = plan_restart(self._flags.strategy, list(self._children), ended.spec.id)
        self._end_children([self._children[id] for id in plan.stop])
        for id in plan.start:
            child = self._children[id]
            if child.spec.restart == "temporary" and child is not ended:
                del self._children[id]
                continue
            try:
                self._start_child(child)
            except Exception as error:
                get_logger(actor=self.label).error("restart_failed", child=id, reason=describe_reason(error))
                self.ref.tell(_Retry(id))
                return
            child.restarts += 1

    def terminate(self, reason: object) -> None:
        """End the children in reverse order."""
        self._end_children(list(reversed(self._children.values())))


class DynamicSupervisor(_Supervising):
    """Starts children when asked to, each by a specification of its own.

    Args:
        intensity, period: how often *one* child may be restarted; one more, and this child is given up. Children do
            not escalate: that one stream crashes again and again must not end the others.
        observer: the name of a process that is told `ChildExited` when a child is gone for good.
    """

    def __init__(self, *, intensity: int = 3, period: float = 5.0, observer: str | None = None) -> None:
        super().__init__()
        SupervisorFlags(intensity=intensity, period=period)  # validates
        self._intensity = intensity
        self._period = period
        self._observer = observer
        self._children: dict[str, _Child] = {}
        self._by_ref: dict[ProcessRef, _Child] = {}

    def on_receive(self, message: Any) -> Any:
        match message:
            case StartChild(spec=spec):
                return self._start(spec)
            case ExitNotice(sender=sender, reason=reason):
                child = self._by_ref.pop(sender, None) if sender is not None else None
                if child is not None:
                    self._child_ended(child, reason)
            case _Retry(id=id):
                child = self._children.get(id)
                if child is not None and child.ref is None:
                    self._restart(child, "restart failed")
            case TerminateChild(id=id):
                child = self._children.get(id)
                if child is None:
                    raise Refusal(SupervisorError("not_found", id))
                self._forget(child)
                self._end_children([child])
            case ReportChild(spec=spec):
                if spec.id not in self._children:
                    self._tell_observer(ChildExited(spec, None, NOPROC, self.name))
            case WhichChildren():
                return [child.info() for child in self._children.values()]
            case _:
                return super().on_receive(message)
        return None

    def _start(self, spec: ChildSpec) -> ProcessRef:
        if spec.id in self._children:
            raise Refusal(SupervisorError("already_started", spec.id))
        child = _Child(spec)
        try:
            self._start_child(child)
        except Exception as error:
            self._tell_observer(ChildExited(spec, None, error, self.name))
            raise Refusal(error) from error
        assert child.ref is not None
        self._children[spec.id] = child
        self._by_ref[child.ref] = child
        return child.ref

    def _child_ended(self, child: _Child, reason: object) -> None:
        if should_restart(child.spec.restart, reason):
            ended, child.ref = child.ref, None
            self._restart(child, reason, ended)
        else:
            self._forget(child)
            self._tell_observer(ChildExited(child.spec, child.ref, reason, self.name))

    def _restart(self, child: _Child, reason: object, ended: ProcessRef | None = None) -> None:
        if child.window is None:
            child.window = RestartWindow(self._intensity, self._period)
        if child.window.exceeded(self.runtime.clock.monotonic()):
            get_logger(actor=self.label).error("child_given_up", child=child.spec.id, reason=describe_reason(reason))
            self._forget(child)
            self._tell_observer(ChildExited(child.spec, ended, reason, self.name))
            return
        child.restarts += 1
        try:
            self._start_child(child)
        except StartError as error:
            if error.code in (NORMAL, "ignore"):  # it finds nothing left to do
                self._forget(child)
                self._tell_observer(ChildExited(child.spec, ended, NORMAL, self.name))
            else:
                self.ref.tell(_Retry(child.spec.id))
            return
        except Exception as error:
            get_logger(actor=self.label).error("restart_failed", child=child.spec.id, reason=describe_reason(error))
            self.ref.tell(_Retry(child.spec.id))
            return
        self._log_restart(child, reason)
        assert child.ref is not None
        self._by_ref[child.ref] = child

    def _forget(self, child: _Child) -> None:
        self._children.pop(child.spec.id, None)
        if child.ref is not None:
            self._by_ref.pop(child.ref, None)

    def _tell_observer(self, exited: ChildExited) -> None:
        observer = self.runtime.whereis(self._observer) if self._observer else None
        if observer is not None:
            observer.tell(exited)

    def terminate(self, reason: object) -> None:
        """End all children at once, and kill who is left when the longest of their time-outs is over."""
        children = list(self._children.values())
        refs = [child.ref for child in children if child.ref is not None]
        limits = [child.spec.shutdown for child in children if child.spec.shutdown != BRUTAL_KILL]
        for child in children:
            if child.ref is not None:
                brutal = child.spec.shutdown == BRUTAL_KILL
                self.runtime.exit(child.ref, KILL if brutal else SHUTDOWN, None if brutal else self.ref)
        longest = max((_FOR_EVER if limit is None else float(limit) for limit in limits), default=0.0)
        deadline = self.runtime.clock.monotonic() + longest
        for ref in refs:
            if not self.runtime.join(ref, max(0.0, deadline - self.runtime.clock.monotonic())):
                self.runtime.exit(ref, KILL)
