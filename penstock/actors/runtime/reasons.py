"""Exit reasons.

An exit reason is a value, as in OTP: one of the words below, a `Shutdown` with a detail, or the exception that was the
cause. `is_clean` tells a planned end from a crash.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["KILL", "KILLED", "NOPROC", "NORMAL", "SHUTDOWN", "ProcessExit", "Shutdown", "is_clean"]

NORMAL: Final = "normal"
SHUTDOWN: Final = "shutdown"
KILL: Final = "kill"
KILLED: Final = "killed"
NOPROC: Final = "noproc"


class Shutdown(msgspec.Struct, frozen=True):
    """OTP's ``{shutdown, Detail}``: a clean end with a detail."""

    detail: object


def is_clean(reason: object) -> bool:
    """Return whether ``reason`` is a planned end: normal, shutdown, or shutdown with a detail."""
    return isinstance(reason, Shutdown) or (isinstance(reason, str) and reason in (NORMAL, SHUTDOWN))


class ProcessExit(BaseException):
    """Raised by ``Process.exit(reason)``; not an `Exception`, so that handler code does not catch it by accident."""

    def __init__(self, reason: object) -> None:
        self.reason = reason
        super().__init__(reason)
