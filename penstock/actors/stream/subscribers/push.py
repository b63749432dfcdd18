"""Subscribed actors. Any Pykka actor can subscribe.

An actor is sent events while fewer than ``window`` of them are unhandled. How many it has handled is found out without
its cooperation: from time to time a request for its ``actor_urn`` is sent along. Any Pykka actor answers it in its
turn, and the answer is the receipt for everything before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyGetAttr

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub, Subscription, nothing
from penstock.config.logs import get_logger
from penstock.errors import SubscriberTooSlow
from penstock.events import Disconnected, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["PushSubscription"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_RECEIPT: Final = ProxyGetAttr(("actor_urn",))


class PushSubscription(Subscription):
    """A subscribed actor: events are sent to it as messages."""

    __slots__ = ("_acknowledged", "_is_complete", "_pumping", "_receipt_every", "_told", "on_dead", "ref")

    def __init__(self, hub: Hub, cursor: Cursor, target: Any, ref: pykka.ActorRef[Any]) -> None:
        super().__init__(hub, cursor, target)
        self.ref = ref
        self.on_dead: Callable[[], None] = nothing
        self._is_complete = False  # it has been sent its last event
        self._told = 0
        self._acknowledged = 0
        self._receipt_every = max(1, cursor.window // 2)
        self._pumping = threading.Lock()

    @property
    def pending(self) -> int:
        """How many events wait for it, including those in its mailbox that it has not acknowledged."""
        return self._cursor.pending + self._told - self._acknowledged

    def wake(self) -> None:
        """Deliver pending events. Returns at once if another thread is already delivering."""
        while self._pumping.acquire(False):
            try:
                self._pump()
            finally:
                self._pumping.release()
            if not self._has_work():
                break
        if self.is_active and self._cursor.is_at_end:  # it began after the end: no event will ever come
            self._complete()

    def _has_work(self) -> bool:
        cursor = self._cursor
        if not self.is_active:
            return False
        if self._told - self._acknowledged < cursor.window:
            return cursor.pending > 0
        return cursor.slow == "disconnect" and cursor.is_slow

    def acknowledge(self, told: int) -> None:
        """Note that it has handled the first ``told`` events. Called in the actor's thread."""
        self._acknowledged = max(self._acknowledged, told)
        self.wake()
        self._hub.caught_up()

    def died(self) -> None:
        """End the subscription, as the actor is dead."""
        if self.is_active:
            self.on_dead()
            self.unsubscribe()

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
        except Exception as error:  # its own mailbox refuses messages: only this subscriber is affected
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
    """Set by the actor when it has handled all messages before this one; fails if the actor is dead."""

    def __init__(self, subscription: PushSubscription, told: int) -> None:
        super().__init__()
        self._subscription = subscription
        self._told = told

    def set(self, value: Any = None) -> None:
        self._subscription.acknowledge(self._told)

    def set_exception(self, exc_info: Any = None) -> None:
        self._subscription.died()
