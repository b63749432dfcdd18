"""The hub of a stream's subscribers, and the base class of all kinds of subscribers.

The kinds are in `penstock.actors.stream.subscribers`: actors (push), iterators (pull) and functions (callback).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import MethodType
from typing import Any, Final, Self

from penstock.actors.stream.cursor import Cursor
from penstock.config.options import Slow

__all__ = ["UNOWNED", "Hub", "HubOwner", "Subscription", "nothing"]


class HubOwner:
    """What a hub tells the stream that it belongs to. This is none: a hub by itself, or of a stream that is over."""

    __slots__ = ()

    def note_release(self) -> None:
        """A held stream may continue. Called before `Hub.held` is cleared."""

    def released(self) -> None:
        """The same, after it is cleared."""

    def emptied(self) -> None:
        """The last subscriber has left."""

    def abandoned(self, subscription: Subscription) -> bool:
        """An iterator was dropped without being closed, perhaps by the garbage collector.

        Returns whether its subscription will be removed: from another place, since a lock may be held here.
        """
        return False


UNOWNED: Final = HubOwner()


class Hub:
    """The subscribers of one stream. Any thread may add and remove them; the stream announces new events."""

    __slots__ = (
        "_lock",
        "had_subscriber",
        "held",
        "owner",
        "subscriptions",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: the garbage collector may close an iterator while it is held
        self.subscriptions: tuple[Subscription, ...] = ()
        self.had_subscriber = False
        self.held = False  # the stream waits until no `block` subscriber is slow
        self.owner: HubOwner = UNOWNED  # until the end is announced

    def add(self, subscription: Subscription) -> Subscription:
        """Add a subscription, unless its target has one; returns the one that counts.

        The caller then calls `Subscription.wake`, which delivers the events that are in the log already.
        """
        with self._lock:
            known = None if subscription.target is None else self.find(subscription.target)
            if known is not None:
                return known
            self._replace(lambda before: (*before, subscription))
            self.had_subscriber = self.had_subscriber or subscription.counts
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription; harmless if that has been done."""
        with self._lock:
            gone = self._replace(lambda before: tuple(other for other in before if other is not subscription))
        if gone:
            self.caught_up()
            if subscription.counts and self.is_orphaned:
                self.owner.emptied()

    def abandoned(self, subscription: Subscription) -> None:
        """Have a subscription removed whose iterator was dropped. Safe to call in a finalizer."""
        if not self.owner.abandoned(subscription):
            self.remove(subscription)

    def _replace(self, change: Callable[[tuple[Subscription, ...]], tuple[Subscription, ...]]) -> bool:
        """Replace the tuple; returns whether it got shorter. The garbage collector may do the same at any moment."""
        while True:
            before = self.subscriptions
            after = change(before)
            if self.subscriptions is before:
                self.subscriptions = after
                return len(after) < len(before)

    def after_fork(self) -> None:
        """End all subscriptions, in the child of a fork, without a message: no thread is there to get it."""
        self._lock = threading.RLock()  # another thread may have held it at that moment
        subscriptions, self.subscriptions = self.subscriptions, ()
        for subscription in subscriptions:
            subscription.is_active = False

    @property
    def is_orphaned(self) -> bool:
        """Whether there have been subscribers and there are none now."""
        return self.had_subscriber and not self.subscribers

    @property
    def subscribers(self) -> int:
        """The number of subscribers that count, without dropped iterators that have not been removed yet."""
        return sum(subscription.is_active and subscription.counts for subscription in self.subscriptions)

    def read_by_all(self, last_seq: int) -> int:
        """The number of the last event that each subscriber has had, where the log ends with number ``last_seq``.

        One that is further behind than its window counts as if it were not. Takes no lock: the log asks under its own.
        """
        least = last_seq
        for subscription in self.subscriptions:
            if subscription.is_active:
                least = min(least, max(subscription.seq, last_seq - subscription.window))
        return least

    def announce(self, subscriptions: tuple[Subscription, ...] | None = None) -> bool:
        """Notify all subscribers of new events in the log; returns whether the stream has to wait for a slow one.

        ``subscriptions``: only these. One that is added later wakes itself.
        """
        slow = False
        for subscription in self.subscriptions if subscriptions is None else subscriptions:
            subscription.wake()
            slow = slow or subscription.is_holding
        if not slow:
            return False
        self.held = True
        if any(subscription.is_holding for subscription in self.subscriptions):
            return True
        self.held = False  # it has caught up meanwhile
        return False

    def caught_up(self) -> None:
        """Let a held stream continue if no subscriber holds it now. Called after one has read or left."""
        if self.held and not any(subscription.is_holding for subscription in self.subscriptions):
            self.owner.note_release()
            self.held = False
            self.owner.released()

    def sweep(self) -> None:
        """Have each subscription look whether it has ended without a message. Called once a second."""
        for subscription in self.subscriptions:
            subscription.sweep()
        self.caught_up()

    def find(self, target: Any) -> Subscription | None:
        """The subscription of an actor or a function, if it has one."""
        return next((one for one in self.subscriptions if one.is_of(target)), None)


class Subscription:
    """A subscriber's place in a stream. Returned by `Stream.subscribe`; a context manager that unsubscribes."""

    __slots__ = ("_cursor", "_hub", "is_active", "target")

    counts = True
    """Whether it is one that ``on_orphan`` waits for."""

    is_prompt = False
    """Whether `wake` runs no code of the application, and cannot wait for anything."""

    def __init__(self, hub: Hub, cursor: Cursor, target: Any) -> None:
        self._hub = hub
        self._cursor = cursor
        self.target = target
        self.is_active = True

    def unsubscribe(self) -> None:
        """Receive no more events. Harmless if already unsubscribed."""
        self.is_active = False
        self._hub.remove(self)

    @property
    def slow(self) -> Slow:
        """The policy that applies when it is slow."""
        return self._cursor.slow

    @property
    def seq(self) -> int:
        """The number of the last event that was delivered to it."""
        return self._cursor.seq

    @property
    def window(self) -> int:
        """How many events may wait before it counts as slow."""
        return self._cursor.window

    @property
    def pending(self) -> int:
        """How many events wait for it."""
        return self._cursor.pending

    @property
    def lag_bytes(self) -> int:
        """About how many bytes of memory the events take that wait for it; see `StreamLog.bytes_after`."""
        return self._cursor.log.bytes_after(self._cursor.seq)

    @property
    def dropped(self) -> int:
        """How many tokens it has missed (``slow="drop"`` only)."""
        return self._cursor.dropped

    @property
    def is_holding(self) -> bool:
        """Whether the stream must wait for it."""
        cursor = self._cursor
        return cursor.slow == "block" and self.is_active and cursor.is_slow

    def is_of(self, target: Any) -> bool:
        """Whether it is the subscription of ``target``."""
        return _is_same(self.target, target)

    def wake(self) -> None:
        """Deliver new events, or wake the consumer."""
        raise NotImplementedError

    def sweep(self) -> None:
        """Unsubscribe if the consumer is gone and no message will report it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        state = "active" if self.is_active else "over"
        return f"<{type(self).__name__} of {self._cursor.log.stream_id!r}, {state}, seq={self.seq}>"


def _is_same(one: Any, other: Any) -> bool:
    """Whether two targets are the same. A foreign ``__eq__`` is not used: it may raise, or return anything."""
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is not None and one is other


def nothing() -> None:
    """Default callback; does nothing."""
