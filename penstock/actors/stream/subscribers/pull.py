"""Iterators over a stream's events, for ``for`` and ``async for``.

A pull subscriber reads the log when its consumer asks for the next event. It has no thread or task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from penstock.actors.runtime.dispatcher import Dispatcher, check_process
from penstock.actors.runtime.loop_ticker import running_loop, ticker_of
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub, Subscription
from penstock.errors import CallTimeout, SubscriberTooSlow
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["NOTHING", "Events", "Findings", "PullSubscription"]

T = TypeVar("T")

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_LOOK_AGAIN: Final = 0.25  # seconds between two looks whether the task of a thread of anyio's has been cancelled
NOTHING: Final[Any] = object()
"""What a function of `Findings` returns for an event that has nothing for the consumer."""


class PullSubscription(Subscription):
    """The subscription of an iterator. The iterator itself, `Events`, may be dropped before it."""

    __slots__ = ("_dispatcher", "_waiting")

    is_prompt = True

    def __init__(self, hub: Hub, cursor: Cursor, dispatcher: Dispatcher) -> None:
        super().__init__(hub, cursor, None)
        self._dispatcher = dispatcher
        self._waiting: list[Callable[[], None]] = []  # callbacks; the thread that removes one calls it

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
        """Have the handler unsubscribe it after its iterator was dropped. Safe to call in a finalizer."""
        if self.is_active:
            self.is_active = False
            self._hub.abandoned(self)
            self._hub.caught_up()  # the handler may be dead

    def take(self) -> Event | None:
        """The next event, or None if there is none yet. Raises what `Events.next` raises."""
        if not self.is_active:
            check_process(self._dispatcher)
            raise StopIteration
        try:
            event = self._cursor.take()
        except SubscriberTooSlow:
            self.unsubscribe()
            raise
        if event is None and self._cursor.is_at_end:  # it began after the end
            self.unsubscribe()
            raise StopIteration
        if isinstance(event, _TERMINAL):
            self.unsubscribe()
        elif self._hub.held:  # also without an event: it may have skipped events that were folded to nothing
            self._hub.caught_up()
        return event

    def wait(self, timeout: float | None) -> bool:
        """Wait until there may be an event; returns whether that is so."""
        latch = threading.Lock()
        latch.acquire()
        with self._listening(latch.release):
            return self._is_news() or self._dispatcher.wait(latch, timeout) or self._is_news()

    async def wait_async(self) -> None:
        """Wait until there may be an event, without blocking the event loop."""
        loop = running_loop()
        self._dispatcher.check_loop(loop)
        news: asyncio.Future[None] = loop.create_future()
        on_news = partial(ticker_of(loop).note, news)
        waiting = self._waiting
        waiting.append(on_news)  # as in `_listening`
        try:
            if not self._is_news():
                await news
        finally:
            if waiting:
                with contextlib.suppress(ValueError):
                    waiting.remove(on_news)

    def next(self, timeout: float | None = None) -> Event:
        """Wait for the next event; see `Events.next`."""
        event = self.take()
        if event is not None:
            return event
        now = self._dispatcher.monotonic
        deadline = None if timeout is None else now() + timeout
        left = timeout
        check = self._check_of_task()
        while True:
            if not self._wait_for_task(left, check):
                raise CallTimeout("the next event", timeout or 0.0)
            event = self.take()
            if event is not None:
                return event
            left = None if deadline is None else max(0.0, deadline - now())

    def _check_of_task(self) -> Callable[[], None] | None:
        """In a thread of anyio, as Starlette uses for sync bodies: what raises if the task it works for is cancelled.

        anyio can neither interrupt such a thread nor close a generator that it has run, so the waits look themselves.
        """
        if "anyio.to_thread" not in sys.modules:
            return None
        check: Callable[[], None] | None = getattr(import_module("anyio.from_thread"), "check_cancelled", None)
        try:
            if check is not None:
                check()
        except RuntimeError:  # the thread is none of anyio's
            return None
        except BaseException:
            self.unsubscribe()
            raise
        return check

    def _wait_for_task(self, timeout: float | None, check: Callable[[], None] | None) -> bool:
        """Wait as `wait` does, and unsubscribe if ``check`` raises."""
        if check is None:
            return self.wait(timeout)
        now = self._dispatcher.monotonic
        deadline = math.inf if timeout is None else now() + timeout
        while True:
            left = deadline - now()
            is_news = self.wait(max(0.0, min(left, _LOOK_AGAIN)))
            try:
                check()
            except BaseException:
                self.unsubscribe()
                raise
            if is_news or left <= _LOOK_AGAIN:
                return is_news

    async def next_async(self) -> Event:
        """Wait for the next event; see `Events.next`.

        If there is one, it is returned at once, unless the readers of this event loop have taken many in this turn of
        it: then the others get theirs first.
        """
        loop = asyncio._get_running_loop()
        ticker = None
        if loop is not None:
            ticker = ticker_of(loop)
            if ticker.is_spent:
                await ticker.turn(loop)
        while True:
            try:
                event = self.take()
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                if ticker is not None:
                    assert loop is not None
                    ticker.spend(loop)
                return event
            await self.wait_async()

    @contextlib.contextmanager
    def _listening(self, on_news: Callable[[], None]) -> Iterator[None]:
        """Call ``on_news`` when there may be an event. Look for one after this, so that none is missed."""
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

    # An iterator that is dropped unsubscribes. A traceback keeps the frames that an exception has left, so after a wait
    # that was cancelled or interrupted no frame may hold the iterator. For `for` none ever does: `__next__` is a slot
    # that contains a method of the subscription. The other waits need the iterator, as in `await anext(aiter(stream))`
    # nothing else keeps it; they forget it on their way out.

    __slots__ = ("__next__", "_subscription")
    if TYPE_CHECKING:

        def __next__(self) -> Event: ...

    def __init__(self, subscription: PullSubscription) -> None:
        self._subscription = subscription
        self.__next__ = subscription.next  # type: ignore[method-assign]

    def next(self, timeout: float | None = None) -> Event:
        """The next event.

        Raises:
            CallTimeout: none came within ``timeout`` seconds (None waits without limit). It can be called again.
            StopIteration: the terminal event has been returned.
            SubscriberTooSlow: with ``slow="disconnect"``.
        """
        try:
            return self._subscription.next(timeout)
        finally:
            del self

    @property
    def subscription(self) -> PullSubscription:
        """Its subscription."""
        return self._subscription

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.unsubscribe()

    async def aclose(self) -> None:
        """Unsubscribe."""
        self._subscription.unsubscribe()

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._subscription.next_async()
        finally:
            del self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._subscription.abandon()


class Findings(Generic[T], Iterator[T], AsyncIterator[T]):
    """An iterator over what a function finds in a stream's events, for ``for`` and ``async for``.

    It is one subscriber, as `Events` is, from the first event that it asks for.
    """

    __slots__ = ("__next__", "_search")
    if TYPE_CHECKING:

        def __next__(self) -> T: ...

    def __init__(self, subscribe: Callable[[], PullSubscription], find: Callable[[Event], T]) -> None:
        self._search = _Search(subscribe, find)  # as in `Events`, no frame may hold this iterator
        self.__next__ = self._search.next  # type: ignore[method-assign]

    def close(self) -> None:
        """End the iteration, and unsubscribe if it has begun."""
        self._search.close()

    async def aclose(self) -> None:
        """End the iteration, and unsubscribe if it has begun."""
        self._search.close()

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._search.next_async()
        finally:
            del self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._search.has_begun:
            self._search.subscription.abandon()


class _Search(Generic[T]):
    """The waits of `Findings`."""

    __slots__ = ("_find", "_is_closed", "_subscribe", "_subscription")

    def __init__(self, subscribe: Callable[[], PullSubscription], find: Callable[[Event], T]) -> None:
        self._subscribe = subscribe
        self._subscription: PullSubscription | None = None
        self._find = find
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True
        if self._subscription is not None:
            self._subscription.unsubscribe()

    @property
    def has_begun(self) -> bool:
        return self._subscription is not None

    @property
    def subscription(self) -> PullSubscription:
        if self._subscription is None:
            self._subscription = self._subscribe()
        return self._subscription

    def next(self) -> T:
        if self._is_closed:
            raise StopIteration
        while (found := self._find(self.subscription.next())) is NOTHING:
            pass
        return found

    async def next_async(self) -> T:
        if self._is_closed:
            raise StopAsyncIteration
        while (found := self._find(await self.subscription.next_async())) is NOTHING:
            pass
        return found
