"""The direct turn: a stream's tokens go into its log in the thread that brings them, without a message to its actor.

It is a turn of the actor all the same. The thread holds the actor's mailbox, so the actor runs nowhere else, and it
takes the turn only if the mailbox is empty: pause, flush, cancel and every other message have their place before it or
after it. What it raises is a crash of the actor.

It is for the ordinary case: there is no rate limit, no adaptive rhythm and no journal, there are not many subscribers,
none of them is slow, and none runs code of the application when it is woken. Where no token waits for a batch and
nothing is buffered, the tokens go into the log without a way through the intake (`deliver`); else into the intake, and
the thread emits the batches that are full (`push`). In any other case the actor is woken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.stream.emitting import Emitter
from penstock.actors.stream.hub import Subscription, are_prompt
from penstock.actors.stream.intake import Inbox
from penstock.actors.stream.messages import JOINED, PUSHED
from penstock.actors.stream.record import StreamRecord
from penstock.errors import StreamClosed
from penstock.events import TokenEvent, TokenKind

__all__ = ["DirectEmitter", "Source", "deliver", "emit_due", "push"]

_EVENTS_A_TURN: Final = 64  # as many as the actor emits in a turn
_MOST_SUBSCRIBERS: Final = 64  # to wake more of them for each event of a read would hold up the loop's other streams
_PLAIN: Final = ("idle", "buffering", "streaming")  # states in which the stream does not wait for something else


class Source(Protocol):
    """What brings the tokens. Each event goes into the log with its lock held, so that it knows what the log has."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held for moments only."""

    @property
    def is_void(self) -> bool:
        """Whether nothing may be taken from it any more. Read with the lock held."""

    @property
    def keeps_text(self) -> bool:
        """Whether it wants to know what was taken."""

    def took(self, tokens: Sequence[tuple[str, TokenKind]]) -> None:
        """Learn that the log has these tokens. Called with the lock held."""


def deliver(record: StreamRecord, tokens: Sequence[tuple[str, TokenKind]], source: Source) -> int:
    """Deliver tokens at once if the stream takes a direct turn; returns how many of them are in the log.

    Does not block.
    """
    inbox = record.intake.inbox
    if inbox.__class__ is not Mailbox or not getattr(inbox.owner, "_passes", False) or not inbox.borrow():
        return 0
    stream = inbox.owner
    if not isinstance(stream, DirectEmitter):  # it is dead, or just being started
        inbox.leave()
        return 0
    given = [0]  # not the stream's: once the mailbox is left, another thread may take a direct turn
    stream.run_step(stream.give, tokens, source, given)
    return given[0]


def push(
    record: StreamRecord,
    tokens: Sequence[tuple[str, TokenKind]],
    source: Source,
    on_room: Callable[[], None] | None = None,
) -> int:
    """Push tokens into the stream's intake, and take the turns that they bring; returns how many there was room for.

    Does not block. If some are left, ``on_room`` is called as by `Intake.push_now`.

    Raises:
        StreamClosed: with ``on_room``, if some are left since the stream has ended, or the source is void.
    """
    intake, done = record.intake, 0
    while done < len(tokens):
        with source.lock:
            if source.is_void:
                break
            first, done = done, intake.push_some(tokens, done)
            if source.keeps_text:
                source.took(tokens[first:done])
        if not emit_due(record):
            break
    if done < len(tokens) and on_room is not None:
        with source.lock:
            if source.is_void:
                raise StreamClosed(record.stream_id)
            taken = intake.push_now(tokens[done:], on_room)
            if source.keeps_text:
                source.took(tokens[done : done + taken])
        done += taken
    return done


def emit_due(record: StreamRecord) -> bool:
    """If the stream has something to emit that was pushed without waking it, emit it, or wake the stream's actor.

    Returns whether the stream had a turn in this thread. Does not block.
    """
    intake, had_turn = record.intake, False
    if intake.is_due():
        try:
            had_turn = _take_turn(intake.inbox)
        finally:
            if not had_turn:
                intake.wake()
    return had_turn


def _take_turn(inbox: Inbox) -> bool:
    """Let the stream emit what is due, in this thread; returns whether it has had its turn. Does not block."""
    if inbox.__class__ is not Mailbox or not inbox.borrow():
        return False
    stream = inbox.owner
    if not isinstance(stream, DirectEmitter):  # it is dead, or just being started
        inbox.leave()
        return False
    had_turn: list[bool] = []
    stream.run_step(stream.emit_due, had_turn)
    return bool(had_turn)


class DirectEmitter(Emitter):
    """The part of `TokenStream` that is run by the thread that brings tokens."""

    def emit_due(self, had_turn: list[bool]) -> None:
        """Do what `PUSHED` would have the actor do, if this is an ordinary case; the caller holds the mailbox.

        ``had_turn`` gets an item if it is, also if this raises.
        """
        if self._attention or self._trace is not None or self._state not in _PLAIN or self._ending is not None:
            return
        if self._stream.journal is not None or self._bucket is not None or self._rhythm is not None:
            return
        if not self._hub.held and _may_be_told(self._hub.subscriptions):
            had_turn.append(True)
            self._delivery.begin_direct_turn()
            try:
                self._handle(PUSHED)
            finally:
                self._delivery.end_direct_turn()

    def give(self, tokens: Sequence[tuple[str, TokenKind]], source: Source, given: list[int]) -> None:
        """Take a direct turn, if this is the ordinary case; see `deliver`. The caller holds the mailbox.

        ``given[0]`` becomes the number of tokens that are in the log, also if this raises.
        """
        intake, log, epoch = self._intake, self._log, self._epoch
        subscriptions = self._hub.subscriptions
        if not self._is_ordinary(subscriptions):
            return
        clock, delivered, largest, left = (
            self.runtime.clock,
            self._stream.counters.delivered,
            self._largest,
            len(tokens),
        )
        for _ in range(_EVENTS_A_TURN):
            first = given[0]
            if largest == 1:
                text, kind = tokens[first]
                texts: tuple[str, ...] = (text,)
            else:
                texts, kind = _batch(tokens, first, largest)
                text = "".join(texts)
            count = len(texts)
            with source.lock:
                place = None if source.is_void else intake.admit(count, epoch)
                if place is None:
                    return
                seq, is_in_log = log.written + 1, False
                try:
                    event = TokenEvent(log.stream_id, seq, texts, text, kind, clock.time(), log.metadata, 0, *place)
                    is_in_log = log.append(epoch, event)
                finally:
                    if is_in_log or (log.is_open(epoch) and log.written == seq):  # the latter: it raised after that
                        given[0] = first + count  # first: it is in the log, whatever comes of the rest
                        left -= count
                        if source.keeps_text:
                            source.took(tokens[first : first + count])
                    else:
                        intake.refuse(count)
            if not is_in_log:
                return
            delivered(count, len(text) if text.isascii() else len(text.encode(errors="replace")), clock.monotonic())
            if not self._tell(subscriptions) or not left:
                return

    def _tell(self, subscriptions: tuple[Subscription, ...]) -> bool:
        """Announce an event; returns whether further ones may follow in this turn.

        ``subscriptions``: those that were there before the event. One that has come since may have looked at the log
        before the event was in it.
        """
        hub = self._hub
        present = hub.subscriptions
        all_prompt = present is subscriptions or are_prompt(present)
        if not all_prompt:
            self.actor_inbox.put(JOINED)
        if hub.announce(present, prompt_only=not all_prompt):
            self._stream.counters.held += 1
            return False
        return all_prompt

    def _is_ordinary(self, subscriptions: tuple[Subscription, ...]) -> bool:
        if not self._passes or self._attention or self._trace is not None or self._state != "idle":
            return False
        return self._ending is None and not self._hub.held and _may_be_told(subscriptions)


def _may_be_told(subscriptions: tuple[Subscription, ...]) -> bool:
    """Whether a thread that brings tokens may wake all of them."""
    return len(subscriptions) <= _MOST_SUBSCRIBERS and are_prompt(subscriptions)


def _batch(tokens: Sequence[tuple[str, TokenKind]], first: int, most: int) -> tuple[tuple[str, ...], TokenKind]:
    """The tokens of one event: at most so many, all of one kind."""
    kind = tokens[first][1]
    texts = []
    for text, its_kind in tokens[first : first + most]:
        if its_kind != kind:
            break
        texts.append(text)
    return tuple(texts), kind
