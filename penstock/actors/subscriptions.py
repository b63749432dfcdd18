"""Who reads a stream: a hub that tells all subscribers of news, and the two kinds of subscribers.

A *push* subscriber is an actor, any Pykka actor. It is told events as long as less than ``window`` of those it was
told are unhandled. How many it has handled is found out without its cooperation: now and then an envelope that asks
for its ``actor_urn`` goes along, and the answer, which any Pykka actor gives in its turn, is the receipt. A *pull*
subscriber is an iterator, sync or async, that reads the log when its consumer asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Self

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyGetAttr

from penstock.actors.flow.fanout import Cursor
from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.process import Process
from penstock.config.options import Slow
from penstock.errors import CallTimeout, SubscriberTooSlow
from penstock.events import Disconnected, Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["CallbackProcess", "Events", "Hub", "PullSubscription", "PushSubscription", "Subscription"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_RECEIPT: Final = ProxyGetAttr(("actor_urn",))


class Hub:
    """The subscribers of one stream. Any thread may come and go; the stream tells everybody of news."""

    __slots__ = (
        "_lock",
        "had_subscriber",
        "held",
        "holds",
        "on_abandoned",
        "on_empty",
        "on_release",
        "subscriptions",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.subscriptions: tuple[Subscription, ...] = ()
        self.had_subscriber = False
        self.held = False  # the stream waits until no `block` subscriber is slow any more
        self.holds = 0  # who waits for the end without being a subscriber
        self.on_release: Callable[[], None] = _nothing  # a held stream may go on
        self.on_empty: Callable[[], None] = _nothing  # the last subscriber has left
        self.on_abandoned: Callable[[Subscription], None] = self.remove

    def add(self, subscription: Subscription) -> None:
        """Let somebody in. What is in the log already, it gets at once."""
        with self._lock:
            self.subscriptions = (*self.subscriptions, subscription)
            self.had_subscriber = True
        subscription.wake()

    def remove(self, subscription: Subscription) -> None:
        """Let it go; harmless if it has gone."""
        with self._lock:
            left = tuple(other for other in self.subscriptions if other is not subscription)
            gone = len(left) < len(self.subscriptions)
            self.subscriptions = left
        if gone:
            self.caught_up()
            if self.is_orphaned:
                self.on_empty()

    @property
    def is_orphaned(self) -> bool:
        """Whether somebody was there and nobody is."""
        return self.had_subscriber and not self.subscriptions and not self.holds

    def hold(self, change: int) -> None:
        """Count somebody who waits for the end (+1) or does so no longer (-1)."""
        with self._lock:
            self.holds += change
        if change < 0 and self.is_orphaned:
            self.on_empty()

    def announce(self) -> bool:
        """There is something new in the log: tell everybody. Returns whether the stream has to wait for somebody."""
        slow = False
        for subscription in self.subscriptions:
            subscription.wake()
            slow = slow or subscription.is_holding
        if not slow:
            return False
        self.held = True
        if any(subscription.is_holding for subscription in self.subscriptions):
            return True
        self.held = False  # caught up in this very moment
        return False

    def caught_up(self) -> None:
        """Somebody has read on, or left: let the stream go on if it waited for nobody else."""
        if self.held and not any(subscription.is_holding for subscription in self.subscriptions):
            self.held = False
            self.on_release()

    def find(self, target: Any) -> Subscription | None:
        """The subscription of an actor (or callback), if it has one."""
        return next((one for one in self.subscriptions if one.target is not None and one.target == target), None)


class Subscription:
    """A subscriber's place in a stream, in the hands of whoever subscribed it."""

    __slots__ = ("_cursor", "_hub", "is_active", "target")

    def __init__(self, hub: Hub, cursor: Cursor, target: Any) -> None:
        self._hub = hub
        self._cursor = cursor
        self.target = target
        self.is_active = True

    def unsubscribe(self) -> None:
        """Get nothing any more. Harmless if it is over already."""
        self.is_active = False
        self._hub.remove(self)

    @property
    def slow(self) -> Slow:
        """What happens when it is slow."""
        return self._cursor.slow

    @property
    def seq(self) -> int:
        """The number of the last event it was given."""
        return self._cursor.seq

    @property
    def pending(self) -> int:
        """How many events wait for it."""
        return self._cursor.pending

    @property
    def dropped(self) -> int:
        """How many tokens it missed by its own choice (``slow="drop"``)."""
        return self._cursor.dropped

    @property
    def is_holding(self) -> bool:
        """Whether the stream must not emit because of it."""
        return self._cursor.slow == "block" and self._cursor.is_slow

    def wake(self) -> None:
        """Something is new."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        state = "active" if self.is_active else "over"
        return f"<{type(self).__name__} of {self._cursor.log.stream_id!r}, {state}, seq={self.seq}>"


class PushSubscription(Subscription):
    """An actor that is told the events."""

    __slots__ = ("_acknowledged", "_owned", "_pumping", "_receipt_every", "_told", "on_dead", "ref")

    def __init__(self, hub: Hub, cursor: Cursor, target: Any, ref: pykka.ActorRef[Any], *, owned: bool = False) -> None:
        super().__init__(hub, cursor, target)
        self.ref = ref
        self.on_dead: Callable[[], None] = _nothing
        self._owned = owned  # the actor was made for this subscription and ends with it
        self._told = 0
        self._acknowledged = 0
        self._receipt_every = max(1, cursor.window // 2)
        self._pumping = threading.Lock()

    @property
    def pending(self) -> int:
        """How many events wait for it, those in its mailbox included (as far as is known)."""
        return self._cursor.pending + self._told - self._acknowledged

    @property
    def is_holding(self) -> bool:
        """Whether the stream must not emit because of it."""
        return self._cursor.slow == "block" and self.is_active and self._cursor.is_slow

    def wake(self) -> None:
        """Tell it what it may be told now. Whoever finds somebody else at it leaves the work to that one."""
        while self._pumping.acquire(False):
            try:
                self._pump()
            finally:
                self._pumping.release()
            if not (self.is_active and self._cursor.pending and self._told - self._acknowledged < self._cursor.window):
                return

    def acknowledge(self, told: int) -> None:
        """It has handled the first ``told`` events. Called in its own thread."""
        self._acknowledged = max(self._acknowledged, told)
        self.wake()
        self._hub.caught_up()

    def died(self) -> None:
        """Its actor is dead."""
        if self.is_active:
            self.on_dead()
            self.unsubscribe()

    def unsubscribe(self) -> None:
        super().unsubscribe()
        if self._owned:
            with contextlib.suppress(pykka.ActorDeadError):
                self.ref.stop(block=False)

    def _pump(self) -> None:
        cursor, ref = self._cursor, self.ref
        while self.is_active and self._told - self._acknowledged < cursor.window:
            try:
                event = cursor.take()
            except SubscriberTooSlow as error:
                self._tell(Disconnected(cursor.log.stream_id, cursor.seq, error))
                self.unsubscribe()
                return
            if event is None:
                return
            if not self._tell(event):
                return
            self._told += 1
            if isinstance(event, _TERMINAL):
                self.unsubscribe()
            elif self._told % self._receipt_every == 0:
                with contextlib.suppress(pykka.ActorDeadError):
                    ref.actor_inbox.put(Envelope(_RECEIPT, reply_to=_Receipt(self, self._told)))

    def _tell(self, message: Any) -> bool:
        try:
            self.ref.tell(message)
        except pykka.ActorDeadError:
            self.died()
            return False
        return True


class _Receipt(pykka.Future[Any]):
    """What an actor answers when it comes to this message: it has handled all before it, or it is dead."""

    def __init__(self, subscription: PushSubscription, told: int) -> None:
        super().__init__()
        self._subscription = subscription
        self._told = told

    def set(self, value: Any = None) -> None:
        self._subscription.acknowledge(self._told)

    def set_exception(self, exc_info: Any = None) -> None:
        self._subscription.died()


class CallbackProcess(Process):
    """Runs a subscriber's callback, so that it is slow or breaks on its own account."""

    in_pykka_registry = False

    def __init__(self, callback: Callable[[Event], object]) -> None:
        super().__init__()
        self._callback = callback

    def on_receive(self, message: Any) -> None:
        self._callback(message)


class PullSubscription(Subscription):
    """The seat of an iterator: what the hub knows of it. The iterator itself is `Events`."""

    __slots__ = ("_dispatcher", "_on_news")

    def __init__(self, hub: Hub, cursor: Cursor, dispatcher: Dispatcher) -> None:
        super().__init__(hub, cursor, None)
        self._dispatcher = dispatcher
        self._on_news: Callable[[], None] | None = None

    def wake(self) -> None:
        on_news, self._on_news = self._on_news, None
        if on_news is not None:
            on_news()

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.wake()

    def abandon(self) -> None:
        """Its iterator is garbage: see to it that it is unsubscribed. Safe to call in a finaliser."""
        if self.is_active:
            self.is_active = False
            self._hub.on_abandoned(self)

    def take(self) -> Event | None:
        """The next event, or None if there is none yet; raises what `Events.next` does."""
        if not self.is_active:
            raise StopIteration
        try:
            event = self._cursor.take()
        except SubscriberTooSlow:
            self.unsubscribe()
            raise
        if event is not None:
            if isinstance(event, _TERMINAL):
                self.unsubscribe()
            elif self._hub.held:
                self._hub.caught_up()
        return event

    def wait(self, timeout: float | None) -> bool:
        """Wait for news; returns whether there are any."""
        latch = threading.Lock()
        latch.acquire()
        self._on_news = latch.release
        if self._is_news():
            self._on_news = None
            return True
        if self._dispatcher.wait(latch, timeout):
            return True
        self._on_news = None
        return False

    async def wait_async(self) -> None:
        """Wait for news without blocking the event loop."""
        loop = asyncio.get_running_loop()
        news = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, news)

        self._on_news = tell
        if self._is_news():
            self._on_news = None
        else:
            await news

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
        while True:
            event = seat.take()
            if event is not None:
                return event
            if not seat.wait(timeout):
                raise CallTimeout("the next event", timeout or 0.0)

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


def _nothing() -> None:
    """Nobody wants to know."""
