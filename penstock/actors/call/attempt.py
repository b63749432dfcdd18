"""One attempt of an integration: it receives what the reader reads.

Text goes directly into the stream's intake. The integration gets a message for every other step of the request.

An answer *begins* with the first delta that says something of its own: text, reasoning, a refusal, a call, media, a
call of the provider's own tools or its result, a closed piece of reasoning, another choice, or the finish. From then on
the attempt is no longer simply retried (``on_interrupt``). What is said *about* the answer does not begin it: raw
events, the starts of blocks, citations, probabilities, blocks for the next request, metadata, usage. Such events are
held until the answer begins (`Held`); an attempt that fails before takes them with it, unless it was the last one.

An answer that another process has begun comes again from its beginning, and the stream gets what its log does not have
(`Overlap`). Everything else about it, from its length to its calls, is noted as if it came for the first time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from penstock.actors.call.cutting import Cutting, cut_with
from penstock.actors.call.messages import Connecting, Ended, Finished, FirstDelta, Waiting
from penstock.actors.call.record import CallRecord
from penstock.actors.call.taking_up import TakesUp
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.transitions import Cast
from penstock.actors.stream.buffer import PartStart
from penstock.actors.stream.direct import deliver, emit_due, push
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.config.own_code import is_own
from penstock.errors import PenstockError, ProtocolError, StreamClosed
from penstock.events import AnswerEvent, Logprobs, ProviderEvent
from penstock.ports import (
    BlockDelta,
    BlockStart,
    CitationDelta,
    Clock,
    Decoder,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    KeepAlive,
    MetadataDelta,
    ReaderJob,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["Attempt"]

_Item: TypeAlias = Any
"""A token with its kind, as a tuple, another event, or a `PartStart`. Only tokens are bare tuples: quick to check."""

_NO_PROGRESS: Final = (UsageDelta, MetadataDelta)
_NOT_HELD: Final = -1
_AT_ONCE: Final = 256
"""How many of the tokens that wait for room are offered at once, so that a long read is not copied each time."""
_PLACED: Final = (CitationDelta, BlockDelta)
"""Deltas for which it matters how much text came before them. They do not begin an answer."""


class Attempt(TakesUp):
    """One attempt at a request. Implements `OfferSink` and `Source`, whose methods run in the reader's thread.

    Taking deltas and abandoning the attempt exclude each other: if the call has not ``started`` after `abandon`, the
    stream gets nothing of this attempt.
    """

    def __init__(self, record: StreamRecord, call: CallRecord, number: int, inbox: Mailbox, clock: Clock) -> None:
        super().__init__(record, call)
        self.number = number
        self.job: ReaderJob | None = None
        self.last_progress = self._began = clock.monotonic()
        self.is_pushing = False  # it waits for the stream, not for the provider
        self._pushing_since = 0.0
        self.is_reasoning = False  # the model reasons, and may be silent for long
        self.has_held_finish = False  # the last thing that came has a finish reason that does not count
        self._held_at = _NOT_HELD  # how many items of this read that are progress came before it
        self.decoder: Decoder | None = None  # set when it has ended
        self.has_ended = False
        self.may_block = not (is_own(call.candidate.provider) and is_own(record.options.tokenizer))
        self._builder = call.builder
        self._inbox = inbox
        self._clock = clock
        self._silent = 0  # how many items of this read are no progress
        self._rest: list[_Item] = []  # items that wait for room
        self._pushed = 0  # how many of them have been pushed; they are removed when that is half of them
        self._has_events = False  # there are events among the items to push
        self.keeps_text, self.took = call.builder.keeps_text, call.builder.took
        self._is_in_order = self.keeps_text  # push item by item: there are events, or the text is kept
        self._has_lost = False  # something received was not pushed
        self._cutting: Cutting | None = None  # what a worker cuts, while the reader waits
        self._unwritten = 0  # characters of this read that are not text of the answer
        self._seen = 0  # how many items of this read `_look_at` has seen
        self._written = 0  # characters of text among them
        self._reasoned = 0  # the number of items of this read up to the last sign of reasoning
        self._pending_finish: Finished | None = None
        self._begin_answer()

    def _begin_answer(self) -> None:
        """Prepare a new answer; in a later round of a turn, it is a new part of the stream's text."""
        builder, record, intake = self._builder, self._record, self._record.intake
        if builder.provider is not None:
            return
        builder.provider = self._candidate.account or self._candidate.provider.name
        extras, part = builder.extras, intake.next_part
        extras.text_before, extras.part = record.said_text() - self._begin_name(), part
        extras.round, extras.tool_ids = self._call.round, record.server_tool_ids
        builder.blocks_before = sum(len(outcome.valid_reasoning_blocks()) for outcome in record.rounds)
        if part != intake.part or intake.phase is not None:
            self._rest.append(PartStart(part))
            self._is_in_order = True

    def take_job(self, job: ReaderJob) -> None:
        """Note the reader's job, until it has ended: the job knows this sink, and the two would be a circle."""
        self.job = job
        if self.has_ended:  # looked at afterwards, as `ended` sets it before it forgets the job
            self.job = None
        elif self.is_void:  # meanwhile, by the successor of a killed integration
            job.cancel()

    def abandon(self) -> None:
        """Close the connection, and ignore what comes later. Any thread; only the first call has an effect."""
        with self.lock:
            before, self.is_void = self.is_void, True
        if before:
            return
        if (job := self.job) is not None:
            job.cancel()
        if self.is_pushing:
            self._record.intake.wake_waiters()

    @property
    def is_finished(self) -> bool:
        """Whether the model has finished, and everything it sent is in the stream's buffer."""
        return self._builder.is_finished and self._pending_finish is None

    @property
    def took_all(self) -> bool:
        """Whether the reader has ended, and everything it decoded is in the stream's buffer."""
        return self.has_ended and not (self._has_lost or self._rest or self._cutting)

    def push_completed_calls(self) -> bool:
        """Push the events that complete the answer's function calls. Call it after `abandon`.

        Returns False, and pushes nothing, if the answer is not the one that the log has the beginning of.
        """
        held = self._builder.held.take_events()  # of an answer without a delta
        events = self._left_of([*held, *self._builder.complete()], is_end=True)
        for event in events or ():
            if event.__class__ is not PartStart:  # no token follows
                self._record.intake.push_event(event)
        return events is not None

    # --- the reader's thread -------------------------------------------------------------------------------------

    def connecting(self) -> None:
        self._send(Connecting(self.number))

    def waiting(self) -> None:
        self._send(Waiting(self.number))

    def answered(self, headers: Mapping[str, str]) -> None:
        self._candidate.answered(headers)

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        items = self._read(deltas)
        if items is None or (items and not self._push(items)):
            self._has_lost = True
            return False
        return self._send_finish()

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        items = self._read(deltas)
        if items is None:
            self._has_lost = True
            return False
        tokenizer = self._record.options.tokenizer
        if self._cutting is not None:
            items, self._cutting = self._cutting.take(), None
        elif tokenizer is not None:
            if items and not self.may_block and not is_own(tokenizer):  # set since the reader was chosen
                self._cutting = Cutting(items, self._cut)
                self._begin_pushing()
                return None if self._cutting.begin(self._record.runtime, on_room) else False
            items = self._cut(items)
        if items and not self._has_events and not self._rest:
            items = items[deliver(self._record, items, self) :]
        self._rest += items
        if self._rest:
            try:
                self._push_rest(on_room)
            except StreamClosed:
                return False
            if self._rest:
                self._begin_pushing()
                return None
        if self.is_pushing:
            self._end_pushing()
        return self._send_finish() if self._pending_finish is not None else not self.is_void

    def _read_text(self, deltas: Sequence[Delta]) -> list[_Item] | None:
        """The same as `_read` where that is quick: all is text, and nothing before it matters. None: it is not."""
        if not self.has_progressed or self.is_reasoning or self.has_held_finish or self._overlap is not None:
            return None
        items, size = [], 0
        for delta in deltas:
            if delta.__class__ is not TextDelta:
                return None
            text = delta.text
            items.append((text, "text"))
            size += len(text)
        builder = self._builder
        if not items or builder.size + size + builder.tally.total > self._call.options.max_answer_bytes:
            return None
        builder.size, builder.has_said = builder.size + size, True
        self.last_progress = self._clock.monotonic()
        return items

    def _read(self, deltas: Sequence[Delta]) -> list[_Item] | None:
        """Note the deltas, and return the items to push; None if the attempt is abandoned, or the answer too long."""
        if (plain := self._read_text(deltas)) is not None:
            return None if self.is_void else plain
        items: list[_Item] = []
        progress = False
        self._reasoned = self._seen = self._written = 0
        for delta in deltas:
            kind = delta.__class__
            if kind is TextDelta:
                items.append((delta.text, "text"))  # type: ignore[union-attr]
            elif kind is not KeepAlive and self._note(delta, items):
                progress, self._held_at = True, _NOT_HELD
        if len(items) > self._reasoned:
            self.is_reasoning = False
        said = len(items) - self._silent
        progress = progress or said > 0
        self._silent = 0
        if self.has_held_finish:
            self.has_held_finish = not progress if self._held_at == _NOT_HELD else said == self._held_at
            self._held_at = _NOT_HELD
        if progress:
            self.last_progress = self._clock.monotonic()
            if not self.has_progressed:
                with self.lock:
                    if self.is_void:
                        return None
                    self.has_progressed = True
                    self._call.has_started(self._clock.time(), self.last_progress - self._began)
                self._send(FirstDelta(self.number))
                held = self._builder.held.take()
                if held:
                    self._seen += len(held)  # there is no text among them
                    items = held + items
                    self._has_events = self._is_in_order = True
        builder = self._builder
        if self._has_events:
            self._count(items)
        elif items:
            size = sum(len(text) for text, _ in items)
            builder.size += size
            builder.unwritten += self._unwritten
            builder.has_said = True
        self._unwritten = 0
        if builder.size + builder.tally.total > self._call.options.max_answer_bytes:
            self.error = ProtocolError(f"the answer is longer than {self._call.options.max_answer_bytes} bytes")
            return None
        if self._overlap is not None:
            if left := self._left_of(items):
                self._has_events = self._is_in_order = True  # the start of a part may be among them
            return left
        return None if self.is_void else items

    def _count(self, items: list[_Item]) -> None:
        """Count the tokens among the items of one read."""
        builder = self._builder
        self._look_at(items)
        builder.size += sum(len(item[0]) for item in items if item.__class__ is tuple)
        builder.unwritten += self._unwritten

    def _send_finish(self) -> bool:
        """Report that the model has finished, as everything it sent is in the buffer; returns whether to read on."""
        if self._pending_finish is not None:
            self._send(self._pending_finish)
            self._pending_finish = None
        return not self.is_void

    def _note(self, delta: Delta, items: list[_Item]) -> bool:
        """Note a delta that is not text; returns whether it counts as progress."""
        match delta:
            case ReasoningDelta(text=text):
                items.append((text, "reasoning"))
                self._unwritten += len(text)
                self._builder.tally.reasoned += len(text)
                self.is_reasoning = True
                self._reasoned = len(items)
            case RefusalDelta(text=text):
                items.append((text, "refusal"))
                self._unwritten += len(text)
            case Thinking():
                if not self.is_reasoning:
                    self.last_progress = self._clock.monotonic()
                self.is_reasoning = True
                self._reasoned = len(items)
                return False
            case ErrorDelta(error=error):
                self.error = self.error or error
                self._pending_finish = Finished(self.number)
                return False
            case FinishHeld():
                self.has_held_finish, self._held_at = True, len(items) - self._silent
                return False
            case BlockStart():
                self._start_block(delta, items)
                return False
            case EventDelta(event=ProviderEvent() as event):
                self._add_silent(event, items)
                return False
            case CitationDelta() | BlockDelta() | EventDelta(event=Logprobs()):
                return self._note_about(delta, items)
            case _:
                if delta.__class__ is FinishDelta and not self._builder.is_finished:
                    self._pending_finish = Finished(self.number)  # first; see `is_finished`
                elif delta.__class__ is ToolCallFragment:
                    self.is_reasoning = False
                elif delta.__class__ is MetadataDelta and self._keeps_name:
                    self._note_name(delta.values)
                events = self._builder.note(delta)
                if events:
                    items += events
                    self._has_events = self._is_in_order = True
                return delta.__class__ not in _NO_PROGRESS
        return True

    def _note_about(self, delta: Delta, items: list[_Item]) -> bool:
        """Note a delta that is about the answer; returns whether it counts as progress: once the answer has begun."""
        written = self._look_at(items) if delta.__class__ in _PLACED else 0
        events = self._builder.note(delta, written)
        if not self._call.started and not items:
            for event in events:
                self._builder.held.add(event)
            return False
        if events:
            items += events
            self._has_events = self._is_in_order = True
        return True

    def _look_at(self, items: list[_Item]) -> int:
        """Count the items of this read that have not been seen; returns how much text has come so far, in characters.

        Each item is seen once, so that the cost is linear.
        """
        for item in items[self._seen :]:
            if item.__class__ is tuple:
                self._builder.has_said = True
                if item[1] == "text":
                    self._written += len(item[0])
        self._seen = len(items)
        return self._builder.written + self._written

    def _start_block(self, delta: BlockStart, items: list[_Item]) -> None:
        builder, written = self._builder, self._look_at(items)
        extras = builder.extras
        if extras.start_block(delta, written, has_said=builder.has_said):
            builder.has_said = False
            self._add_silent(PartStart(extras.part, extras.phase), items)

    def _add_silent(self, item: _Item, items: list[_Item]) -> None:
        """Add something that is no progress: before the first delta it is held, since the attempt may be retried."""
        if not self._call.started and not items:
            self._builder.held.add(item)
            return
        self._reasoned += 1  # nor does it end the reasoning
        items.append(item)
        self._silent += 1
        self._has_events = self._is_in_order = True

    def _cut(self, items: list[_Item]) -> list[_Item]:
        tokenizer = self._record.options.tokenizer
        if tokenizer is None:
            return items
        return self._record.context.copy().run(cut_with, tokenizer, items)

    def _is_abandoned(self) -> bool:
        return self.is_void

    def _push(self, items: list[_Item]) -> bool:
        items = self._cut(items)
        self._begin_pushing()
        try:
            if self._is_in_order:
                return self._push_in_order(items)
            done = deliver(self._record, items, self)
            done += push(self._record, items[done:], self)
            return done == len(items) or self._record.intake.push_blocking(items[done:], self._is_abandoned)
        finally:
            self._end_pushing()

    def _begin_pushing(self) -> None:
        if not self.is_pushing:
            self._pushing_since = self._clock.monotonic()
            self.is_pushing = True

    def _end_pushing(self) -> None:
        """Leave the time for which the stream was waited for out of the provider's silence."""
        self.last_progress += self._clock.monotonic() - self._pushing_since
        self.is_pushing = False  # last: the integration reads both

    def _push_in_order(self, items: list[_Item]) -> bool:
        """Push tokens and events, and wait for room; returns whether all were taken."""
        self._rest += items
        while True:
            latch = threading.Lock()
            latch.acquire()
            try:
                self._push_rest(latch.release)
            except StreamClosed:
                return False
            if not self._rest:
                return True
            self._record.runtime.dispatcher.wait(latch, None)

    def _push_rest(self, on_room: Callable[[], None]) -> None:
        """Push as many of the waiting items as there is room for; see `Intake.push_now`.

        Raises:
            StreamClosed: the stream has ended, or this attempt is abandoned.
        """
        rest, done = self._rest, self._pushed
        try:
            while done < len(rest):
                end, last = done, min(done + _AT_ONCE, len(rest))
                while end < last and rest[end].__class__ is tuple:
                    end += 1
                if end > done:
                    done += push(self._record, rest[done:end], self, on_room)
                    if done < end:
                        return
                else:
                    with self.lock:  # so that after `abandon` it is certain what the stream has got
                        if not self._push_event(rest[done], on_room):
                            return
                    done += 1
            self._has_events = False
            self._is_in_order = self.keeps_text
        finally:
            emit_due(self._record)
            self._pushed = done
            if done * 2 >= len(rest):
                del rest[:done]
                self._pushed = 0

    def _push_event(self, event: _Item, on_room: Callable[[], None]) -> bool:
        """Push something else than a token; returns whether there was room for it.

        Raises:
            StreamClosed: as for `_push_rest`.
        """
        intake = self._record.intake
        if event.__class__ is PartStart:
            is_taken = intake.start_part(event.part, event.phase, is_void=self._is_abandoned, is_of_all=True)
        elif isinstance(event, AnswerEvent):
            return intake.offer_event(event, on_room, self._is_abandoned, is_of_all=True, wakes=False)
        else:
            is_taken = intake.push_event(event, is_void=self._is_abandoned, wakes=False)
        if not is_taken:
            raise StreamClosed(self._record.stream_id)
        return True

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        complete = decoder is not None and (decoder.finished or decoder.done)
        if decoder is not None:
            self._builder.model = decoder.model or self._builder.model
            if decoder.skipped:
                get_logger(stream_id=self._record.stream_id).debug("not_understood", count=decoder.skipped)
        self.decoder, self.has_ended, self.job = decoder, True, None
        self._send(Ended(self.number, complete, error))

    def _send(self, news: Any) -> None:
        if not self.is_void:
            self._inbox.put(Cast(news))
