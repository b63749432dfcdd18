"""Subscribed actors. Any Pykka actor can subscribe.

An actor is sent events while fewer than ``window`` of them are unhandled. How many it has handled is found out without
its cooperation: from time to time a request for its ``actor_urn`` is sent along. Any Pykka actor answers it in its
turn, and the answer is the receipt for everything before it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyGetAttr

from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub, Subscription, nothing
from penstock.config.logs import get_logger
from penstock.config.own_code import is_own
from penstock.errors import SubscriberTooSlow
from penstock.events import Disconnected, Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["PushSubscription"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_returning: Final = (
    threading.RLock()
)  # guards `on_returned` of all refs: an actor may subscribe to many streams at once
_RECEIPT: Final = ProxyGetAttr(("actor_urn",))


class PushSubscription(Subscription):
    """A subscribed actor: events are sent to it as messages."""

    __slots__ = (
        "_acknowledged",
        "_count",
        "_is_complete",
        "_pumping",
        "_receipt_every",
        "_returned",
        "_sent",
        "_start",
        "is_lost",
        "is_prompt",
        "name",
        "on_dead",
        "ref",
        "supervisor",
    )

    def __init__(self, hub: Hub, cursor: Cursor, target: Any, ref: pykka.ActorRef[Any]) -> None:
        super().__init__(hub, cursor, target)
        self.ref = ref
        self.on_dead: Callable[[], None] = nothing
        self._is_complete = False  # it has been sent its last event
        self._count = 0
        self._acknowledged = 0
        self._receipt_every = max(1, cursor.window // 2)
        self._pumping = threading.Lock()
        self.name: str | None = None
        self.supervisor: ProcessRef | None = None
        """The supervisor of the actor, which may restart it. The subscription then goes on with the new actor."""
        self.is_lost = False  # its actor is dead, and may be restarted
        self._sent: deque[int] | None = None  # numbers of the events sent to a supervised actor since the last receipt
        self._returned: int | None = None  # the first of these that it had not handled when it died
        self._start = cursor.seq
        self.is_prompt = _is_prompt(ref)
        if isinstance(ref, ProcessRef):
            self._note_supervisor(ref)

    def _note_supervisor(self, ref: ProcessRef) -> None:
        actor: Any = ref._actor_weakref()
        parent = None if actor is None else actor.parent
        if parent is not None and getattr(parent.actor_class, "is_supervisor", False):
            self.name, self.supervisor = actor.name, parent
            self._sent = deque()
            with _returning:
                ref.on_returned = (*ref.on_returned, self._take_back)

    @property
    def targets(self) -> tuple[Any, ...]:
        """The actor; also the one that runs in its place."""
        return (self.target,) if self.ref is self.target else (self.target, self.ref)

    @property
    def pending(self) -> int:
        """How many events wait for it, including those in its mailbox that it has not acknowledged."""
        return self._cursor.pending + self._count - self._acknowledged

    def wake(self) -> None:
        """Deliver pending events. Returns at once if another thread is already delivering."""
        while self._pumping.acquire(False):
            try:
                self._pump()
            finally:
                self._pumping.release()
            if not self._has_work():
                break
        if not self._count and self.is_active and self._cursor.is_at_end:  # it began after the end: no event will come
            self._complete()

    def _has_work(self) -> bool:
        cursor = self._cursor
        if cursor.seq >= cursor.log.last_seq or not self.is_active or self.is_lost:
            return False
        if self._count - self._acknowledged < cursor.window:
            return True
        return cursor.slow == "disconnect" and cursor.is_slow

    def acknowledge(self, count: int) -> None:
        """Note that it has handled the first ``count`` events. Called in the actor's thread."""
        self._acknowledged = max(self._acknowledged, count)
        if self._sent is not None:
            self._forget_handled(self._sent)
        self.wake()
        self._hub.caught_up()

    def _forget_handled(self, sent: deque[int]) -> None:
        while len(sent) > self._count - self._acknowledged + 1:  # the last one handled stays: it is where to resume
            sent.popleft()
        if self._is_complete and self._acknowledged >= self._count:
            self.unsubscribe()

    def died(self) -> None:
        """End the subscription, as the actor is dead."""
        if self.is_active:
            self.on_dead()
            self.unsubscribe()

    def receipt_refused(self) -> None:
        """The actor has died before it handled all events. Of a supervised one the handler hears in any case."""
        if self.supervisor is None:
            self.died()

    def unsubscribe(self) -> None:
        """Receive no more events. The actor may still find some in its mailbox. Harmless if it has ended."""
        super().unsubscribe()
        self._forget_actor()

    def _forget_actor(self) -> None:
        if self.supervisor is not None and isinstance(self.ref, ProcessRef):
            with _returning:
                self.ref.on_returned = tuple(one for one in self.ref.on_returned if one != self._take_back)

    # --- a supervised actor that is restarted ----------------------------------------------------------------------

    def lose(self) -> bool:
        """Note that the actor is dead; returns whether a restarted one may take its place."""
        self.is_lost = True
        return self.is_active and self.supervisor is not None

    def _take_back(self, message: Any) -> bool:
        """Note an event that the dead actor has not handled. Any thread."""
        if not isinstance(message, Event) or message.stream_id != self._cursor.log.stream_id:
            return False
        if self._sent is None or message.seq not in self._sent:
            return False
        self._returned = message.seq if self._returned is None else min(self._returned, message.seq)
        return True

    def go_on_with(self, ref: ProcessRef) -> None:
        """Send the events after the last one that the dead actor had to the actor in its place."""
        with self._pumping:
            had = [seq for seq in self._sent or () if self._returned is None or seq < self._returned]
            after = max(had) if had else self._start
            before = self._cursor
            self._forget_actor()
            self._cursor = Cursor(before.log, after, before.slow, before.window)
            self._cursor.dropped = before.dropped
            self._count = self._acknowledged = 0
            self._sent = None
            self._returned, self._start, self._is_complete = None, after, False
            replaced, self.ref = self.ref, ref
            self.is_prompt = _is_prompt(ref)
            self._note_supervisor(ref)
            self.is_lost = False
        self._hub.targets_changed(self, replaced)
        self.wake()

    def _pump(self) -> None:
        cursor, log = self._cursor, self._cursor.log
        while cursor.seq < log.last_seq and self._has_work():
            try:
                event = cursor.take()
            except SubscriberTooSlow as error:
                if self._tell(Disconnected(log.stream_id, cursor.seq, error)):
                    self._complete()
                return
            if event is None:
                return
            if self._sent is not None:
                self._sent.append(event.seq)  # first: a dead actor gives it back at once
            if not self._tell(event):
                return
            self._count += 1
            if isinstance(event, _TERMINAL):
                if self.supervisor is None:
                    self._complete()
                else:  # should the actor crash before it has handled this, the next one gets it
                    self._is_complete = True
                    self._ask_for_receipt()
            elif self._count % self._receipt_every == 0:
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
            self.ref.actor_inbox.put(Envelope(_RECEIPT, reply_to=_Receipt(self, self._count)))
        except Exception as error:
            self._refused(error)

    def _refused(self, error: Exception) -> None:
        get_logger(stream_id=self._cursor.log.stream_id).warning(
            "subscriber_cannot_be_told", actor=str(self.ref), error=type(error).__name__
        )
        self.died()


def _is_prompt(ref: pykka.ActorRef[Any]) -> bool:
    """Whether sending to the actor neither waits for room in its mailbox nor runs code of the application."""
    inbox: Any = ref.actor_inbox
    if inbox.__class__ is Mailbox:
        return is_own(ref)
    return ref.__class__ is pykka.ActorRef and inbox.__class__ is queue.Queue and not inbox.maxsize


class _Receipt(pykka.Future[Any]):
    """Set by the actor when it has handled all messages before this one; fails if the actor is dead."""

    def __init__(self, subscription: PushSubscription, count: int) -> None:
        super().__init__()
        self._subscription = subscription
        self._count = count

    def set(self, value: Any = None) -> None:
        self._subscription.acknowledge(self._count)

    def set_exception(self, exc_info: Any = None) -> None:
        self._subscription.receipt_refused()
