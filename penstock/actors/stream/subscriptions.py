"""Who reads a stream: a hub that tells all subscribers of news, and those who are told.

A *push* subscriber is an actor, any Pykka actor. It is told events as long as less than ``window`` of those it was
told are unhandled. How many it has handled is found out without its cooperation: now and then an envelope that asks
for its ``actor_urn`` goes along, and the answer, which any Pykka actor gives in its turn, is the receipt. *Pull*
subscribers, the iterators, are in `penstock.actors.stream.iteration`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import MethodType
from typing import Any, Final, Self

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyGetAttr

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.signals import SHUTDOWN
from penstock.actors.stream.cursor import Cursor
from penstock.config.logs import get_logger
from penstock.config.options import Slow
from penstock.errors import SubscriberTooSlow
from penstock.events import Disconnected, Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["CallbackProcess", "Hub", "PushSubscription", "Subscription", "nothing"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_RECEIPT: Final = ProxyGetAttr(("actor_urn",))


class Hub:
    """The subscribers of one stream. Any thread may come and go; the stream tells everybody of news."""

    __slots__ = (
        "_lock",
        "had_subscriber",
        "held",
        "on_abandoned",
        "on_empty",
        "on_release",
        "subscriptions",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may close an iterator in here, in this very thread
        self.subscriptions: tuple[Subscription, ...] = ()
        self.had_subscriber = False
        self.held = False  # the stream waits until no `block` subscriber is slow any more
        self.on_release: Callable[[], None] = nothing  # a held stream may go on
        self.on_empty: Callable[[], None] = nothing  # the last subscriber has left
        self.on_abandoned: Callable[[Subscription], None] = self.remove

    def add(self, subscription: Subscription) -> Subscription:
        """Let somebody in, unless its target has a subscription; returns the one that counts.

        What is in the log already, it gets at once (by `Subscription.wake`, which is the caller's to call).
        """
        with self._lock:
            known = None if subscription.target is None else self.find(subscription.target)
            if known is not None:
                return known
            self._replace(lambda before: (*before, subscription))
            self.had_subscriber = True
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Let it go; harmless if it has gone."""
        with self._lock:
            gone = self._replace(lambda before: tuple(other for other in before if other is not subscription))
        if gone:
            self.caught_up()
            if self.is_orphaned:
                self.on_empty()

    def _replace(self, change: Callable[[tuple[Subscription, ...]], tuple[Subscription, ...]]) -> bool:
        """Change who is there, though the collector may do the same meanwhile; returns whether somebody is gone."""
        while True:
            before = self.subscriptions
            after = change(before)
            if self.subscriptions is before:
                self.subscriptions = after
                return len(after) < len(before)

    @property
    def is_orphaned(self) -> bool:
        """Whether somebody was there and nobody is."""
        return self.had_subscriber and not self.subscribers

    @property
    def subscribers(self) -> int:
        """How many there are. An iterator that was dropped counts no more, even if nobody has removed it yet."""
        return sum(subscription.is_active for subscription in self.subscriptions)

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
        return next((one for one in self.subscriptions if _is_same(one.target, target)), None)


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
        return self._cursor.slow == "block" and self.is_active and self._cursor.is_slow

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

    __slots__ = ("_acknowledged", "_is_complete", "_owned", "_pumping", "_receipt_every", "_told", "on_dead", "ref")

    def __init__(self, hub: Hub, cursor: Cursor, target: Any, ref: pykka.ActorRef[Any], *, owned: bool = False) -> None:
        super().__init__(hub, cursor, target)
        self.ref = ref
        self.on_dead: Callable[[], None] = nothing
        self._owned = owned  # the actor was made for this subscription and ends with it
        self._is_complete = False  # it has been told the last it is to hear
        self._told = 0
        self._acknowledged = 0
        self._receipt_every = max(1, cursor.window // 2)
        self._pumping = threading.Lock()

    @property
    def pending(self) -> int:
        """How many events wait for it, those in its mailbox included (as far as is known)."""
        return self._cursor.pending + self._told - self._acknowledged

    def wake(self) -> None:
        """Tell it what it may be told now. Whoever finds somebody else at it leaves the work to that one."""
        while self._pumping.acquire(False):
            try:
                self._pump()
            finally:
                self._pumping.release()
            if not self._has_work():
                break
        if self.is_active and self._cursor.is_at_end:  # it was made behind the end: it will never hear of anything
            self._complete()

    def _has_work(self) -> bool:
        cursor = self._cursor
        if not self.is_active:
            return False
        if self._told - self._acknowledged < cursor.window:
            return cursor.pending > 0
        return cursor.slow == "disconnect" and cursor.is_slow

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
        """Get nothing any more. A function is not called again, an actor may still find events in its mailbox."""
        was_active = self.is_active
        super().unsubscribe()
        if self._owned and was_active:
            if self._is_complete:
                self.ref.stop(block=False)  # when it has handled all it was told
            else:
                assert isinstance(self.ref, ProcessRef)
                self.ref.exit(SHUTDOWN)

    def _pump(self) -> None:
        cursor = self._cursor
        while self._has_work():
            try:
                event = cursor.take()
            except SubscriberTooSlow as error:
                if self._tell(Disconnected(cursor.log.stream_id, cursor.seq, error)):
                    self._complete()
                return
            if event is None or not self._tell(event):
                return
            self._told += 1
            if isinstance(event, _TERMINAL):
                self._complete()
            elif self._told % self._receipt_every == 0:
                self._ask_for_receipt()

    def _complete(self) -> None:
        self._is_complete = True
        self.unsubscribe()

    def _tell(self, message: Any) -> bool:
        try:
            self.ref.tell(message)
        except pykka.ActorDeadError:
            self.died()
        except Exception as error:  # a mailbox of its own that does not take it: its problem, nobody else's
            self._refused(error)
        else:
            return True
        return False

    def _ask_for_receipt(self) -> None:
        try:
            self.ref.actor_inbox.put(Envelope(_RECEIPT, reply_to=_Receipt(self, self._told)))
        except Exception as error:
            self._refused(error)

    def _refused(self, error: Exception) -> None:
        get_logger(stream_id=self._cursor.log.stream_id).warning(
            "subscriber_cannot_be_told", actor=str(self.ref), error=type(error).__name__
        )
        self.died()


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


def _is_same(one: Any, other: Any) -> bool:
    """Whether two targets are the same. A foreign ``__eq__`` is not asked: it may raise, or say anything."""
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is not None and one is other


def nothing() -> None:
    """Nobody wants to know."""
