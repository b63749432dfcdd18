"""The hub of a stream's subscribers, and the base class of all kinds of subscribers.

The kinds are in `penstock.actors.stream.subscribers`: actors (push), iterators (pull) and functions (callback).
"""

from __future__ import annotations

import threading
from itertools import chain
from typing import Any, Final, Self

from penstock.actors.stream.crowd import LARGEST_TUPLE, Crowd, key_of
from penstock.actors.stream.cursor import Cursor
from penstock.config.options import Slow

__all__ = ["UNOWNED", "Hub", "HubOwner", "Subscription", "are_prompt", "nothing"]


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
        "_crowd",
        "_few",
        "_holding_at",
        "_lock",
        "had_subscriber",
        "held",
        "owner",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: the garbage collector may close an iterator while it is held
        self._few: tuple[Subscription, ...] = ()
        self._crowd: Crowd[Subscription] | None = None  # instead of `_few`, once there have been many
        self._holding_at = 0  # the place of a subscription that held the stream when it was last looked at
        self.had_subscriber = False
        self.held = False  # the stream waits until no `block` subscriber is slow
        self.owner: HubOwner = UNOWNED  # until the end is announced

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All subscriptions, in the order in which they came. Any thread; takes no lock."""
        few = self._few  # first: it is emptied once there is a crowd
        crowd = self._crowd
        return few if crowd is None else crowd.all()

    def add(self, subscription: Subscription) -> Subscription:
        """Add a subscription, unless its target has one; returns the one that counts.

        The caller then calls `Subscription.wake`, which delivers the events that are in the log already.
        """
        with self._lock:
            known = None if subscription.target is None else self.find(subscription.target)
            if known is not None:
                return known
            self._enter(subscription)
            self.had_subscriber = self.had_subscriber or subscription.counts
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription; harmless if that has been done."""
        with self._lock:
            gone = self._leave(subscription)
        if gone:
            self.caught_up()
            if subscription.counts and self.is_orphaned:
                self.owner.emptied()

    def abandoned(self, subscription: Subscription) -> None:
        """Have a subscription removed whose iterator was dropped. Safe to call in a finalizer."""
        if not self.owner.abandoned(subscription):
            self.remove(subscription)

    def targets_changed(self, subscription: Subscription, before: Any) -> None:
        """Find a subscription by its new targets; ``before`` may not be one of them any more."""
        with self._lock:
            if self._crowd is not None:
                self._crowd.targets_changed(subscription, before)

    # The garbage collector may have a subscription leave at any moment of these two, also in this very thread.

    def _enter(self, subscription: Subscription) -> None:
        while self._crowd is None:
            before = self._few
            if len(before) < LARGEST_TUPLE:
                after = (*before, subscription)
                if self._few is before:
                    self._few = after
                    return
            else:
                crowd = Crowd(before)
                if self._few is before:
                    self._crowd = crowd
                    self._few = ()
        self._crowd.enter(subscription)

    def _leave(self, subscription: Subscription) -> bool:
        while self._crowd is None:
            before = self._few
            after = tuple(other for other in before if other is not subscription)
            if self._few is before:
                self._few = after
                return len(after) < len(before)
        return self._crowd.leave(subscription)

    def after_fork(self) -> None:
        """End all subscriptions, in the child of a fork, without a message: no thread is there to get it."""
        self._lock = threading.RLock()  # another thread may have held it at that moment
        subscriptions, self._few, self._crowd = self.subscriptions, (), None
        for subscription in subscriptions:
            subscription.is_active = False

    @property
    def is_orphaned(self) -> bool:
        """Whether there have been subscribers and there are none now."""
        if not self.had_subscriber:
            return False
        crowd = self._crowd
        return not (self.subscribers if crowd is None else crowd.has_active)

    @property
    def subscribers(self) -> int:
        """The number of subscribers that count, without dropped iterators that have not been removed yet."""
        count = 0
        for subscription in self.subscriptions:
            if subscription.is_active and subscription.counts:
                count += 1
        return count

    def read_by_all(self, last_seq: int) -> int:
        """The number of the last event that each subscriber has had, where the log ends with number ``last_seq``.

        One that is further behind than its window counts as if it were not. Takes no lock: the log asks under its own.
        """
        least = last_seq
        for subscription in self.subscriptions:
            if subscription.is_active:
                least = min(least, max(subscription.seq, last_seq - subscription.window))
        return least

    def announce(self, subscriptions: tuple[Subscription, ...] | None = None, *, prompt_only: bool = False) -> bool:
        """Notify all subscribers of new events in the log; returns whether the stream has to wait for a slow one.

        ``subscriptions``: only these, of those that there are now. One that is added from now on wakes itself.
        ``prompt_only``: do not wake those that are not `Subscription.is_prompt`, but wait for them all the same.
        """
        slow = False
        for subscription in self.subscriptions if subscriptions is None else subscriptions:
            if not prompt_only or subscription.is_prompt:
                subscription.wake()
            slow = slow or subscription.is_holding
        if not slow:
            return False
        self.held = True
        if self._is_holding():
            return True
        self.held = False  # it has caught up meanwhile
        return False

    def caught_up(self) -> None:
        """Let a held stream continue if no subscriber holds it now. Called after one has read or left."""
        if self.held and not self._is_holding():
            self.owner.note_release()
            self.held = False
            self.owner.released()

    def _is_holding(self) -> bool:
        """Whether a subscription holds the stream.

        The look begins where one did last time. While many of them catch up, all these looks together take as long as
        a few rounds, since none begins to hold a stream that is held.
        """
        subscriptions, first = self.subscriptions, self._holding_at
        for place in chain(range(first, len(subscriptions)), range(min(first, len(subscriptions)))):
            if subscriptions[place].is_holding:
                self._holding_at = place
                return True
        return False

    def sweep(self) -> None:
        """Have each subscription look whether it has ended without a message. Called once in 1 to 10 seconds."""
        for subscription in self.subscriptions:
            subscription.sweep()
        self.caught_up()

    def find(self, target: Any) -> Subscription | None:
        """The subscription of an actor or a function, if it has one."""
        few = self._few  # first, as in `subscriptions`
        crowd = self._crowd
        if crowd is not None:
            return None if target is None else crowd.find(target)
        return next((one for one in few if one.is_of(target)), None)


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

    @property
    def targets(self) -> tuple[Any, ...]:
        """What it is the subscription of; nothing for an iterator."""
        return () if self.target is None else (self.target,)

    def is_of(self, target: Any) -> bool:
        """Whether it is the subscription of ``target``."""
        return target is not None and any(key_of(one) == key_of(target) for one in self.targets)

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


def are_prompt(subscriptions: tuple[Subscription, ...]) -> bool:
    """Whether all of them are prompt; see `Subscription.is_prompt`."""
    for subscription in subscriptions:  # noqa: SIM110 - a generator takes longer than all else here
        if not subscription.is_prompt:
            return False
    return True


def nothing() -> None:
    """Default callback; does nothing."""
