"""Requests to a supervisor: OTP's ``supervisor`` module as functions, and the messages that they send.

Every function takes the supervisor's ref and a time-out in seconds (None, as in OTP, waits without a limit). Each
raises `ProcessDead` (``"noproc"``) if the supervisor is dead, `CallTimeout`, or a `SupervisorError` whose ``code`` is
OTP's word. A child must not call its own supervisor while it starts: the supervisor is waiting for the child.
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
    "Successor",
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
"""A child's id, or with a `DynamicSupervisor` its ref, which may be the one it had before its last restart."""


class StartChild(msgspec.Struct, frozen=True):
    """Ask to start a child. The answer is its ref, or the exception of its start. See `start_child`."""

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
    """Ask a dynamic supervisor to send its observer `ChildExited` (``"noproc"``) if it has no such child."""

    spec: ChildSpec


class Successor(msgspec.Struct, frozen=True):
    """Ask for the process that runs in the place of a dead child.

    The answer is its ref; ``"restarting"`` if the child will be started again, also if the supervisor has not heard of
    its death yet; None if it will not.
    """

    ref: ProcessRef


def start_child(
    supervisor: ProcessRef, spec: ChildSpec | tuple[Any, ...], timeout: float | None = None
) -> ProcessRef | None:
    """Start a child after the others and return its ref, or None if its ``init`` returned `IGNORE`.

    A dynamic supervisor with a template takes a tuple instead: arguments that follow those of the template.

    Raises:
        SupervisorError: ``already_started`` (``detail`` is its ref), ``already_present`` (it has been stopped, or is
            being restarted), ``bad_combination``, ``invalid_child_spec``.
        StartError: the child did not start; the specification is not kept.
        Exception: what the child's start raised; the specification is not kept.
    """
    ref: ProcessRef | None = supervisor.ask(StartChild(spec), timeout=timeout)
    return ref


def terminate_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> None:
    """End a child as its specification says and return when it is dead. A pending restart is cancelled.

    Its specification is kept for `restart_child`, unless the child is temporary or the supervisor dynamic.

    Raises:
        SupervisorError: ``not_found``; ``simple_one_for_one``: a supervisor with a template needs the ref.
    """
    supervisor.ask(TerminateChild(child), timeout=timeout)


def restart_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ProcessRef | None:
    """Start a child that is not running and return its ref, or None if its ``init`` returned `IGNORE`.

    Raises:
        SupervisorError: ``running``, ``restarting``, ``not_found``, ``simple_one_for_one``.
        StartError: the child did not start; the specification is kept.
        Exception: what the child's start raised; the specification is kept.
    """
    ref: ProcessRef | None = supervisor.ask(RestartChild(child), timeout=timeout)
    return ref


def delete_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> None:
    """Remove the specification of a child that is not running.

    Raises:
        SupervisorError: ``running``, ``restarting``, ``not_found``, ``simple_one_for_one``.
    """
    supervisor.ask(DeleteChild(child), timeout=timeout)


def which_children(supervisor: ProcessRef, timeout: float | None = None) -> list[ChildInfo]:
    """Return all children, newest first."""
    children: list[ChildInfo] = supervisor.ask(WhichChildren(), timeout=timeout)
    return children


def which_child(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ChildInfo:
    """Return one child.

    Raises:
        SupervisorError: ``not_found``, ``simple_one_for_one``.
    """
    info: ChildInfo = supervisor.ask(WhichChild(child), timeout=timeout)
    return info


def count_children(supervisor: ProcessRef, timeout: float | None = None) -> ChildCounts:
    """Count the children. One that is being restarted is not active."""
    counts: ChildCounts = supervisor.ask(CountChildren(), timeout=timeout)
    return counts


def get_childspec(supervisor: ProcessRef, child: ChildId, timeout: float | None = None) -> ChildSpec:
    """Return a child's specification. That of a temporary child lacks the arguments once the child runs.

    Raises:
        SupervisorError: ``not_found``, ``simple_one_for_one``.
    """
    spec: ChildSpec = supervisor.ask(GetChildSpec(child), timeout=timeout)
    return spec
