"""What may be asked of a supervisor: OTP's ``supervisor`` module as functions, and the messages that they send.

Every function takes the supervisor's ref and a time-out in seconds (None, as in OTP: wait for as long as it takes).
Each raises `ProcessDead` (``"noproc"``) if the supervisor is dead, `CallTimeout`, or a `SupervisorError` whose ``code``
is OTP's word. A child must not call its own supervisor while it starts: that waits for the child.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from penstock.actors.runtime.process import ProcessRef
from penstock.supervisors.spec import ChildCounts, ChildInfo, ChildSpec

__all__ = [
    "ChildId",
    "CountChildren",
    "DeleteChild",
    "GetChildSpec",
    "ReportChild",
    "RestartChild",
    "StartChild",
    "TerminateChild",
    "WhichChild",
    "WhichChildren",
    "count_children",
    "delete_child",
    "get_childspec",
    "restart_child",
    "start_child",
    "terminate_child",
    "which_child",
    "which_children",
]

ChildId: TypeAlias = str | ProcessRef
"""A child's id, or with a `DynamicSupervisor` its ref, which may be that of its life before."""


class StartChild(msgspec.Struct, frozen=True):
    """Ask to start a child; the answer is its ref, or what its start raised. See `start_child`."""

    spec: ChildSpec | tuple[Any, ...]


class TerminateChild(msgspec.Struct, frozen=True):
    """See `terminate_child`."""

    id: ChildId


class RestartChild(msgspec.Struct, frozen=True):
    """See `restart_child`."""

    id: ChildId


class DeleteChild(msgspec.Struct, frozen=True):
    """See `delete_child`."""

    id: ChildId


class WhichChildren(msgspec.Struct, frozen=True):
    """Ask for a list of `ChildInfo`, newest first."""


class WhichChild(msgspec.Struct, frozen=True):
    """See `which_child`."""

    id: ChildId


class CountChildren(msgspec.Struct, frozen=True):
    """Ask for `ChildCounts`."""


class GetChildSpec(msgspec.Struct, frozen=True):
    """See `get_childspec`."""

    id: ChildId


class ReportChild(msgspec.Struct, frozen=True):
    """Ask a dynamic supervisor to say (`ChildExited` with ``"noproc"``, to the observer) if it has no such child."""

    spec: ChildSpec


def start_child(
    supervisor: ProcessRef, spec: ChildSpec | tuple[Any, ...], timeout: float | None = None
) -> ProcessRef | None:
    """Start a child behind the others and return its ref, or None if its ``init`` ignored.

    A dynamic supervisor with a template takes a tuple instead: what the template's arguments are followed by.

    Raises:
        SupervisorError: ``already_started`` (``detail`` is its ref), ``already_present`` (it has been stopped, or is
            being restarted), ``bad_combination``, ``invalid_child_spec``.
        Exception: what the start raised, e.g. `StartError`; the specification is thrown away.
    """
    ref: ProcessRef | None = supervisor.ask(StartChild(spec), timeout=timeout)
    return ref


def terminate_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> None:
    """End a child as its specification says and return when it is dead. A restart under way is called off.

    Its specification is kept for `restart_child`, unless it is temporary or the supervisor dynamic.

    Raises:
        SupervisorError: ``not_found``; ``simple_one_for_one``: a supervisor with a template wants the ref.
    """
    supervisor.ask(TerminateChild(child), timeout=timeout)


def restart_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ProcessRef | None:
    """Start a child that has been terminated, or did not want to run, and return its ref (None if it ignores again).

    Raises:
        SupervisorError: ``running``, ``restarting``, ``not_found``, ``simple_one_for_one``.
        Exception: what the start raised; the specification is kept.
    """
    ref: ProcessRef | None = supervisor.ask(RestartChild(child), timeout=timeout)
    return ref


def delete_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> None:
    """Forget a child that does not run.

    Raises:
        SupervisorError: ``running``, ``restarting``, ``not_found``, ``simple_one_for_one``.
    """
    supervisor.ask(DeleteChild(child), timeout=timeout)


def which_children(supervisor: ProcessRef, timeout: float | None = None) -> list[ChildInfo]:
    """All children, newest first."""
    children: list[ChildInfo] = supervisor.ask(WhichChildren(), timeout=timeout)
    return children


def which_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ChildInfo:
    """One child.

    Raises:
        SupervisorError: ``not_found``, ``simple_one_for_one``.
    """
    info: ChildInfo = supervisor.ask(WhichChild(child), timeout=timeout)
    return info


def count_children(supervisor: ProcessRef, timeout: float | None = None) -> ChildCounts:
    """How many children there are; one that is being restarted is not active."""
    counts: ChildCounts = supervisor.ask(CountChildren(), timeout=timeout)
    return counts


def get_childspec(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ChildSpec:
    """A child's specification. A temporary one has lost its arguments when it runs.

    Raises:
        SupervisorError: ``not_found``, ``simple_one_for_one``.
    """
    spec: ChildSpec = supervisor.ask(GetChildSpec(child), timeout=timeout)
    return spec
