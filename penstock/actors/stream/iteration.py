"""Iterators over a stream's events, for ``for`` and ``async for``.

A pull subscriber reads the log when its consumer asks; nothing runs, and nothing waits, between two events but the
consumer's own thread or task.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, Self

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.subscriptions import Hub, Subscription
from penstock.errors import CallTimeout, SubscriberTooSlow
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["Events", "PullSubscription"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


class PullSubscription(Subscription):
    """The seat of an iterator: what the hub knows of it. The iterator itself is `Events`."""

    __slots__ = ("_dispatcher", "_waiting")

    def __init__(self, hub: Hub, cursor: Cursor, dispatcher: Dispatcher) -> None:
        super().__init__(hub, cursor, None)
        self._dispatcher = dispatcher
        self._waiting: list[Callable[[], None]] = []  # who takes one out calls it

    def wake(self) -> None:
        waiting = self._waiting
        for _ in range(len(waiting)):
            try:
                on_news = waiting.pop(0)
            except IndexError:
                return
            on_news()

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.wake()

    def abandon(self) -> None:
        """Its iterator is garbage: see to it that it is unsubscribed. Safe to call in a finaliser."""
        if self.is_active:
            self.is_active = False
            self._hub.on_abandoned(self)
            self._hub.caught_up()  # whoever was told may not be there to hear it

    def take(self) -> Event | None:
        """The next event, or None if there is none yet; raises what `Events.next` does."""
        if not self.is_active:
            raise StopIteration
        try:
            event = self._cursor.take()
        except SubscriberTooSlow:
            self.unsubscribe()
            raise
        if event is None and self._cursor.is_at_end:  # it began behind the end
            self.unsubscribe()
            raise StopIteration
        if isinstance(event, _TERMINAL):
            self.unsubscribe()
        elif self._hub.held:  # also without an event: it may have read on over what has been folded to nothing
            self._hub.caught_up()
        return event

    @property
    def monotonic(self) -> Callable[[], float]:
        """The time that `wait` is counted in."""
        return self._dispatcher.monotonic

    def wait(self, timeout: float | None) -> bool:
        """Wait for news; returns whether there may be any."""
        latch = threading.Lock()
        latch.acquire()
        with self._listening(latch.release):
            return self._is_news() or self._dispatcher.wait(latch, timeout) or self._is_news()

    async def wait_async(self) -> None:
        """Wait for news without blocking the event loop."""
        loop = asyncio.get_running_loop()
        news = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, news)

        with self._listening(tell):
            if not self._is_news():
                await news

    @contextlib.contextmanager
    def _listening(self, on_news: Callable[[], None]) -> Iterator[None]:
        """Have ``on_news`` called when there is news. To be looked for after this, so that none is missed."""
        self._waiting.append(on_news)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(on_news)

    def _is_news(self) -> bool:
        return self._cursor.pending > 0 or not self.is_active


class Events(Iterator[Event], AsyncIterator[Event]):
    """An iterator over a stream's events, for ``for`` and ``async for``; it ends after the terminal event.

    It counts as a subscriber until it ends, is closed, or is dropped. One consumer at a time.
    """

    __slots__ = ("_seat",)

    def __init__(self, seat: PullSubscription) -> None:
        self._seat = seat

    def next(self, timeout: float | None = None) -> Event:
        """The next event.

        Raises:
            CallTimeout: none came within ``timeout`` seconds (None waits for ever); one may ask again.
            StopIteration: the terminal event was the last one.
            SubscriberTooSlow: with ``slow="disconnect"``.
        """
        seat = self._seat
        event = seat.take()
        if event is None:
            event = self._wait(timeout)
        return event

    def _wait(self, timeout: float | None) -> Event:
        seat = self._seat
        now = seat.monotonic
        deadline = None if timeout is None else now() + timeout
        left = timeout
        while True:
            if not seat.wait(left):
                raise CallTimeout("the next event", timeout or 0.0)
            event = seat.take()
            if event is not None:
                return event
            left = None if deadline is None else max(0.0, deadline - now())

    @property
    def subscription(self) -> Subscription:
        """What it counts as."""
        return self._seat

    def close(self) -> None:
        """Unsubscribe."""
        self._seat.unsubscribe()

    async def aclose(self) -> None:
        """Unsubscribe."""
        self._seat.unsubscribe()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return self.next()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        seat = self._seat
        while True:
            try:
                event = seat.take()
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                return event
            await seat.wait_async()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._seat.abandon()


def _set(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
