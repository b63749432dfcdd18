"""Waking the tasks of an event loop: together, once a tick, however many there are.

Waking a loop from another thread costs a write to its socket pair. With a thousand tasks that each wait for the events
of a stream, one for each would keep the loop and the streams busy with that alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from typing import Any, Final

__all__ = ["LoopTicker", "running_loop", "ticker_of"]

TICK: Final = 0.005  # seconds, where many wait
_MANY: Final = 16  # tasks woken together; after fewer, the next ones are woken at once
_TOGETHER: Final = 25  # tasks woken in one round of the loop: it gets to its other callbacks within a millisecond

_local = threading.local()


def running_loop() -> asyncio.AbstractEventLoop:
    """The running asyncio event loop.

    Raises:
        RuntimeError: there is none; under trio, say.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        raise RuntimeError(
            "Penstock's async methods need a running asyncio event loop, and there is none here. Under trio, call the"
            " synchronous ones in a thread: await trio.to_thread.run_sync(stream.result)"
        )
    return loop


def ticker_of(loop: asyncio.AbstractEventLoop) -> LoopTicker:
    """The ticker of the loop that runs in this thread."""
    ticker: LoopTicker | None = getattr(_local, "ticker", None)
    if ticker is None or ticker.loop() is not loop:
        ticker = _local.ticker = LoopTicker(loop)
    return ticker


class LoopTicker:
    """Sets futures of one loop, from any thread.

    While more than 16 are set at a time, that happens at most once in 5 ms, else at once. The loop is woken once a
    tick.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.ticks = 0
        self._due: deque[asyncio.Future[None]] = deque()
        self._is_armed = False
        self._woken = 0  # in the last tick
        self._last = loop.time() - TICK

    def note(self, future: asyncio.Future[None]) -> None:
        """Set ``future`` at the next tick. Any thread; harmless if it is done or cancelled by then."""
        self._due.append(future)
        if not self._is_armed:  # two threads may arm it; it then ticks once too often
            self._is_armed = True
            loop = self.loop()
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # it is closed
                    loop.call_soon_threadsafe(self._arm, loop)

    def _arm(self, loop: Any) -> None:
        if self._woken > _MANY and loop.time() < self._last + TICK:
            loop.call_at(self._last + TICK, self._tick, loop)
        else:
            self._tick(loop)

    def _tick(self, loop: Any) -> None:
        self._is_armed = False  # before the queue is read, so that what is noted from now on arms it again
        self._last = loop.time()
        self.ticks += 1
        self._woken = 0
        self._wake(loop, len(self._due))

    def _wake(self, loop: Any, left: int) -> None:
        due = self._due
        for _ in range(min(left, _TOGETHER)):
            try:
                future = due.popleft()
            except IndexError:  # of two ticks at a time the other one took it
                return
            if not future.done():
                future.set_result(None)
            self._woken += 1
        if left > _TOGETHER:
            loop.call_soon(self._wake, loop, left - _TOGETHER)
