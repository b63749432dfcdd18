"""Exit reasons, and the messages with which processes hear of each other's end.

An exit reason is a value, as in OTP: one of the words below, a `Shutdown` with a detail, or the exception that was
the cause. `is_clean` says which of them are no crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from penstock.actors.runtime.process import ProcessRef

__all__ = [
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "Down",
    "Ephemeral",
    "ExitNotice",
    "ProcessExit",
    "Shutdown",
    "is_clean",
]

NORMAL: Final = "normal"
SHUTDOWN: Final = "shutdown"
KILL: Final = "kill"
KILLED: Final = "killed"
NOPROC: Final = "noproc"


class Shutdown(msgspec.Struct, frozen=True):
    """OTP's ``{shutdown, Detail}``: a clean end with something to say."""

    detail: object


def is_clean(reason: object) -> bool:
    """Whether ``reason`` is an end as planned: normal, shutdown, or shutdown with a detail."""
    return isinstance(reason, Shutdown) or (isinstance(reason, str) and reason in (NORMAL, SHUTDOWN))


class Ephemeral:
    """Base class of messages that mean nothing to a dead process: one that arrives too late is no dead letter.

    Derive from it the messages between the processes of one unit of work that may end at any moment, such as a stream
    and its provider call. A message whose loss somebody has to know of must not derive from it.
    """

    __slots__ = ()


class Down(msgspec.Struct, frozen=True):
    """A monitored process is gone. Sent once per monitor, at once if there was no such process (``"noproc"``).

    ``process`` is what was monitored: the ref, or the name if the monitor was set on a name.
    """

    monitor: int
    process: Any
    reason: object


class ExitNotice(msgspec.Struct, frozen=True):
    """A linked process ended, or somebody sent an exit signal; only processes with ``trap_exit`` get to see it."""

    sender: ProcessRef | None
    reason: object


class ProcessExit(BaseException):
    """Raised by ``Process.exit(reason)``; not an `Exception`, so that handler code does not catch it by accident."""

    def __init__(self, reason: object) -> None:
        self.reason = reason
        super().__init__(reason)
