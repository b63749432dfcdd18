"""`Stream.with_timeout`: time limits for a whole stream, and for its silence."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.config.checks import check_number
from penstock.errors import OptionError, StreamTimeout
from penstock.events import SideEvent, StreamFailed, StreamReset, TokenEvent, Usage
from penstock.toolbox.stage import AtOnce, Output, Stage, Steps, failed

__all__ = ["WithTimeout"]


class WithTimeout(Stage):
    """Fails with `StreamTimeout`, ``total`` seconds after the opening or ``idle`` seconds after the last event.

    Args:
        total: counts pauses and slow readers too. Fails at once.
        idle: does not count while the derived stream has no room.
        usage: returns the usage so far, for the terminal event.
    """

    kind = "with_timeout"

    def __init__(self, total: float | None, idle: float | None, usage: Callable[[], Usage | None]) -> None:
        if total is None and idle is None:
            raise OptionError("total", None, "a number of seconds, where idle is not given either")
        check_number("total", total, 0.001, 86_400, optional=True)
        check_number("idle", idle, 0.001, 86_400, optional=True)
        self._total = total
        self._idle = idle
        self._usage = usage

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        if self._total is not None:
            self.expires = self.now + self._total
        self.resumed()
        return ()

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        self.resumed()
        return (event,)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        self.resumed()
        return (reset,)

    def resumed(self) -> None:
        """See `Stage.resumed`. The silence begins anew."""
        if self._idle is not None:
            self.deadline = self.now + self._idle

    def overdue(self) -> Steps:
        """See `Stage.overdue`."""
        assert self._idle is not None
        self.deadline = None
        return (self._failure("idle", self._idle),)

    def expired(self) -> Output | None:
        """See `Stage.expired`."""
        assert self._total is not None
        return AtOnce(self._failure("total", self._total))

    def _failure(self, which: str, timeout: float) -> StreamFailed:
        end = failed(StreamTimeout(self.stream_id, which, timeout))
        return msgspec.structs.replace(end, usage=self._usage())
