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
_TOGETHER: Final = 25  # tasks woken in one turn of the loop: it gets to its other callbacks within a millisecond
_BUDGET: Final = 50  # events taken in one turn without waiting, all tasks together; for the same reason

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
    """Sets futures of one loop, from any thread, and has the tasks that read streams take turns.

    While more than 16 are set at a time, that happens at most once in 5 ms, else at once. The loop is woken once a
    tick. No turn of the loop sets more than 25, whatever ticks meanwhile; and tasks that need not wait for their events
    take 50 of them in a turn, all together, before they wait for another turn (`spend`, `turn`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.ticks = 0
        self._due: deque[asyncio.Future[None]] = deque()  # any thread appends
        self._ready: deque[asyncio.Future[None]] = deque()  # to be set in this turn and the next ones; of the loop
        self._is_armed = False
        self._is_waking = False  # a further turn is scheduled
        self._woken = 0  # in the last tick
        self._last = loop.time() - TICK
        self._spent = 0

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
        due, ready = self._due, self._ready
        self._woken = len(due)
        for _ in range(self._woken):
            ready.append(due.popleft())
        if not self._is_waking:
            self._wake(loop)

    def _wake(self, loop: Any) -> None:
        """Set the next ones, and then those that are left in the next turns."""
        ready = self._ready
        for _ in range(min(len(ready), _TOGETHER)):
            future = ready.popleft()
            if not future.done():
                future.set_result(None)
        self._is_waking = bool(ready)
        if ready:
            loop.call_soon(self._wake, loop)

    # --- turns; only for the loop's thread ------------------------------------------------------------------------

    @property
    def is_spent(self) -> bool:
        """Whether the tasks have taken what they may in this turn, so that the next one should wait for `turn`."""
        return self._spent >= _BUDGET

    def spend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a task has taken an event."""
        if not self._spent:
            loop.call_soon(self._renew)
        self._spent += 1

    def _renew(self) -> None:
        self._spent = 0

    def turn(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that is set in a later turn, in order with all others."""
        future = loop.create_future()
        self._ready.append(future)
        if not self._is_waking:
            self._is_waking = True
            loop.call_soon(self._wake, loop)
        return future
