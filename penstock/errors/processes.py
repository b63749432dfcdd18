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
    "SystemDraining",
    "SystemForked",
    "SystemStopped",
]


class ProcessError(PenstockError):
    """An error about a process (an actor on the dispatcher)."""


class ProcessDead(ProcessError, pykka.ActorDeadError):
    """The process is dead, or died before it answered.

    ``reason`` is its exit reason if known, else OTP's word ``"noproc"``: no such process.
    """

    def __init__(self, process: str, reason: object = "noproc") -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} is dead: {describe_reason(reason)}")


class ProcessCrashed(ProcessError):
    """A process died abnormally; ``reason`` is its exit reason."""

    def __init__(self, process: str, reason: object) -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} crashed: {describe_reason(reason)}")


class MailboxFull(ProcessError):
    """A bounded mailbox has no room for a message. The message was not delivered."""

    def __init__(self, process: str, max_size: int) -> None:
        self.process = process
        self.max_size = max_size
        super().__init__(f"the mailbox of {process} is full ({max_size} messages)")


class StartError(ProcessError):
    """A process did not start. Nothing of it is left.

    ``code`` is ``"already_started"`` (``ref`` is the process that has the name), ``"bad_return_from_init"``,
    ``"bad_return"`` (a supervisor's ``init``), ``"ignore"``, ``"timeout"``, or the reason that ``init`` gave to stop.
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


class SystemDraining(SystemStopped):
    """The system is being drained (`System.drain`): it opens no further stream. Those that run go on."""

    def __init__(self) -> None:
        ProcessError.__init__(self, "the system is being drained: it opens no further stream")


class SystemForked(SystemStopped):
    """The system was started in another process, of which this one is a fork. Its threads are not here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        ProcessError.__init__(self, f"this System was made in another process (pid {pid}); make a new one")


class SupervisorError(PenstockError):
    """A supervisor refused a call.

    ``code`` is OTP's word for the reason, ``child`` the id or ref of the child. ``detail`` depends on the code: the
    ref of the child that has the id already, or the exception of a child that did not start.
    """

    def __init__(self, code: str, child: object = None, detail: object = None) -> None:
        self.code = code
        self.child = child
        self.detail = detail
        about = f" (child {child!r})" if child is not None else ""
        meaning = f": {_MEANINGS[code]}" if code in _MEANINGS else ""
        more = f": {describe_reason(detail)}" if isinstance(detail, (str, BaseException)) else ""
        super().__init__(f"{code}{about}{meaning}{more}")


_MEANINGS = {
    "already_present": "the supervisor has this child, but it is not running; restart or delete it",
    "already_started": "a child with this id is already running",
    "bad_combination": "a significant child must not be permanent, and needs a supervisor with auto_shutdown",
    "bad_start_spec": "the template must be a ChildSpec",
    "duplicate_child_name": "two children have the same id",
    "failed_to_start_child": "the child did not start",
    "invalid_child_spec": "a child must be described by a ChildSpec",
    "not_found": "the supervisor has no such child",
    "restarting": "the child is being restarted; terminate it first",
    "running": "the child is running; terminate it first",
    "simple_one_for_one": "with a template, children are started with a tuple of arguments and addressed by their ref",
    "unknown_call": "the supervisor does not understand this message",
}
