"""The ticker of a gateway: one timer for all streams, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from penstock.config.logs import get_logger
from penstock.errors import describe_reason

__all__ = ["Due", "Ticker"]


class Due(Protocol):
    """Something that has news."""

    def pump(self) -> None:
        """Handle the news. Called on the loop, at most once a tick. An error is logged, and keeps no other one."""


class Ticker:
    """Handles news from any thread on an event loop, together, at most once in ``interval`` seconds.

    News that come after a silence are handled at once. The loop is woken once a tick, however many there are.

    Args:
        loop: the event loop.
        interval: seconds from tick to tick.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self.loop = loop
        self.interval = interval
        self.ticks = 0
        self._due: deque[Due] = deque()
        self._is_armed = False
        self._last = loop.time() - interval
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def note(self, due: Due) -> None:
        """Have ``due`` pumped at the next tick. Any thread; one that is noted twice is pumped twice."""
        self._due.append(due)
        if not self._is_armed:  # two threads may arm it; it then ticks once too often
            self._is_armed = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if self._timer is None and not self._is_closed:
            self._timer = self.loop.call_at(self._last + self.interval, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._is_armed = False  # before the queue is read, so that what is noted from now on arms it again
        self._last = self.loop.time()
        self.ticks += 1
        due = self._due
        for _ in range(len(due)):
            try:
                due.popleft().pump()
            except Exception as error:  # a fault of ours: the others have readers of their own
                get_logger().error("pump_failed", reason=describe_reason(error), exc_info=error)
        if due and not self._is_armed:
            self._is_armed = True
            self._arm()

    def close(self) -> None:
        """End the timer. On the loop."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()
