"""Errors of processes and supervisors."""

from __future__ import annotations

from typing import Any

import pykka

from penstock.errors.base import PenstockError, describe_reason

__all__ = [
    "MailboxFull",
    "ProcessCrashed",
    "ProcessDead",
    "ProcessError",
    "StartError",
    "SupervisorError",
    "SystemStopped",
]


class ProcessError(PenstockError):
    """Something about a process (an actor on the dispatcher)."""


class ProcessDead(ProcessError, pykka.ActorDeadError):
    """The process is dead, or died before it answered (OTP's ``noproc`` and exits seen by a caller).

    ``reason`` is its exit reason where it is known, else ``"noproc"``.
    """

    def __init__(self, process: str, reason: object = "noproc") -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} is not alive: {describe_reason(reason)}")


class ProcessCrashed(ProcessError):
    """A process died of something else than a normal end; ``reason`` is its exit reason."""

    def __init__(self, process: str, reason: object) -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} crashed: {describe_reason(reason)}")


class MailboxFull(ProcessError):
    """A message found no room in a bounded mailbox; the process was not told."""

    def __init__(self, process: str, max_size: int) -> None:
        self.process = process
        self.max_size = max_size
        super().__init__(f"the mailbox of {process} is full ({max_size} messages)")


class StartError(ProcessError):
    """A process did not start; nothing of it is left.

    ``code`` is one of ``"already_started"`` (``ref`` is who has the name), ``"bad_return_from_init"``,
    ``"ignore"``, ``"timeout"``, or what ``init`` gave as its reason to stop.
    """

    def __init__(self, process: str, code: object, ref: Any = None) -> None:
        self.process = process
        self.code = code
        self.ref = ref
        super().__init__(f"{process} did not start: {describe_reason(code)}")


class SystemStopped(ProcessError):
    """The system has been stopped, or was never started."""

    def __init__(self, what: str = "the system") -> None:
        super().__init__(f"{what} is not running")


class SupervisorError(PenstockError):
    """A supervisor refused a call. ``code`` is OTP's word for it: ``"already_present"``, ``"not_found"`` …"""

    def __init__(self, code: str, child: object = None, detail: object = None) -> None:
        self.code = code
        self.child = child
        self.detail = detail
        about = f" (child {child!r})" if child is not None else ""
        more = f": {describe_reason(detail)}" if detail is not None else ""
        super().__init__(f"{code}{about}{more}")
