"""The log of one stream: every event once, numbered 1, 2, 3 … without gaps, ended by exactly one terminal event.

A reader keeps the number of its last event and asks for those after it (see `penstock.actors.stream.cursor`). One
writer appends. Any thread may read without a lock: when old events are folded, the window that readers use is replaced,
never changed.

Text and events that a summary repeats may be folded at any time: a reader that has missed them gets them in another
form. Pieces and raw events are lost with folding (`penstock.actors.stream.folded.is_passing`), so they stay until each
present reader has had them. That has bounds: a reader's ``window`` of events, and `_UNREAD` bytes.

A log outlives the actors that write it. Each actor gets an *epoch*, and an append with an old epoch is refused, so that
an abandoned actor cannot write after its successor has started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.actors.stream.buffer import Undelivered
from penstock.actors.stream.folded import Folded, Window, is_passing
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.parts import PartSpans
from penstock.actors.stream.weights import cost_of
from penstock.errors import AgentError, PenstockError, ProviderError, RunawayAnswer, StreamError
from penstock.events import (
    AnswerPart,
    Event,
    FrozenDict,
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamMetrics,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
)

__all__ = ["ALONE", "LogOwner", "StreamLog"]

_UNREAD: Final = 16 * 1_048_576
"""Bytes of events, besides ``retain_bytes``, that may stay for present readers. The newest event stays in any case.

If there are more, the oldest are folded until a quarter is free, so that not every event after that is a fold.
"""


class LogOwner:
    """What a log asks of the stream that it belongs to. This is the answer of none: a log by itself."""

    __slots__ = ()

    def measure(self, end_time: float) -> StreamMetrics | None:
        """The metrics of the terminal event."""
        return None

    def note_end(self, terminal: TerminalEvent) -> None:
        """The log ends now. Called under its lock, before the terminal event is visible."""

    def undelivered(self, last_event: int) -> list[Undelivered]:
        """The buffered tokens that no event has, in order, where the log ends with number ``last_event``."""
        return []

    def undelivered_events(self, last_event: int) -> list[SideEvent]:
        """The same for the events."""
        return []

    def read_by_all(self, last_seq: int) -> int:
        """See `Hub.read_by_all`. Called under the log's lock."""
        return last_seq


ALONE: Final = LogOwner()
"""Of a log that belongs to no stream, or to one that is over."""


class StreamLog:
    """See the module's docstring."""

    __slots__ = (
        "_bytes",
        "_epoch",
        "_fold_at",
        "_lock",
        "_retain_bytes",
        "_window",
        "is_held_back",
        "last_events",
        "last_seq",
        "metadata",
        "owner",
        "stream_id",
        "terminal",
        "tokens",
        "written",
    )

    def __init__(self, stream_id: str, metadata: Mapping[str, Any], retain_bytes: int) -> None:
        self.stream_id = stream_id
        self.metadata = metadata
        self.last_seq = 0  # of the last event that readers may have
        self.written = 0  # the number of the last event; greater than `last_seq` only where events are held back
        self.is_held_back = False  # readers get an event when `show` is called
        self.tokens = 0
        self.terminal: TerminalEvent | None = None
        self.owner: LogOwner = ALONE  # until the end is announced
        self.last_events: Sequence[SideEvent] = ()  # written with the terminal event, before it; numbered then
        self.retain_bytes = retain_bytes
        self._bytes = 0
        self._epoch = 0
        self._lock = threading.Lock()
        self._window = Window()

    @property
    def retain_bytes(self) -> int:
        """How many bytes of events are kept one by one, whether or not there are readers."""
        return self._retain_bytes

    @retain_bytes.setter
    def retain_bytes(self, count: int) -> None:
        self._retain_bytes = self._fold_at = count

    # --- writing -------------------------------------------------------------------------------------------------

    def new_epoch(self) -> int:
        """Start the epoch of a new writer. Appends of earlier epochs are refused from now on."""
        with self._lock:
            self._epoch += 1
            return self._epoch

    def is_open(self, epoch: int | None = None) -> bool:
        """Whether there is no terminal event and ``epoch`` is the current one (None: any)."""
        return self.terminal is None and (epoch is None or epoch == self._epoch)

    def append(self, epoch: int, event: TokenEvent | SideEvent | StreamReset) -> bool:
        """Append an event with the number ``last_seq + 1``.

        Returns False, without a change, if the epoch is not current or there is a terminal event.
        """
        with self._lock:
            if epoch != self._epoch or self.terminal is not None:
                return False
            seq = event.seq
            assert seq == self.written + 1
            self._window.events.append(event)
            self.written = seq
            if not self.is_held_back:
                self.last_seq = seq  # last: a reader that sees the number finds the event
            self._bytes += cost_of(event)
            self._count(event)
            return True

    def _count(self, event: TokenEvent | SideEvent | StreamReset) -> None:
        if event.__class__ is TokenEvent:
            self.tokens += len(event.tokens)
        if self._bytes > self._fold_at:
            self._fold()

    def discard_held(self) -> None:
        """Remove the events that no reader may have had yet: they are not in the store, and will not be."""
        with self._lock:
            if self.terminal is None:
                self._remove_held()

    def _remove_held(self) -> None:
        events = self._window.events
        while self.written > self.last_seq:
            event = events.pop()
            self.written -= 1
            if event.__class__ is TokenEvent:
                self.tokens -= len(event.tokens)
            self._bytes -= cost_of(event)

    def replace_held_end(self, error: PenstockError, now: float) -> bool:
        """Put ``error`` in the place of an end that no reader may have had yet, and will not; returns whether so."""
        with self._lock:
            if self.terminal is None or self.last_seq >= self.written:
                return False
            self._remove_held()
            seq = self.written + 1
            failed = StreamFailed(
                stream_id=self.stream_id, seq=seq, error=error, partial="", timestamp=now, metadata=self.metadata
            )
            self.terminal = failed
            self._add(failed)
            self.last_seq = seq
            return True

    def replay(self, events: Sequence[Event]) -> None:
        """Take over events of a stored log, in order: the first ones, or those after the last that were taken over."""
        with self._lock:
            is_held_back, self.is_held_back = self.is_held_back, False
            for event in events:
                assert event.seq == self.written + 1
                if isinstance(event, (StreamCompleted, StreamFailed, StreamCancelled)):
                    self.terminal = event
                    self._add(event)
                else:
                    self._add(event)
                    self._count(event)
            self.is_held_back = is_held_back

    def show(self, seq: int) -> None:
        """Let readers have the events up to number ``seq``. Call `Hub.announce` afterwards."""
        with self._lock:
            self.last_seq = max(self.last_seq, min(seq, self.written))

    def complete(self, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamCompleted`; returns whether this call ended it. ``epoch`` None: any writer may."""

        def make(seq: int) -> TerminalEvent:
            text, fields = self._final(seq, outcome, dropped, now)
            return StreamCompleted(
                **fields,
                text=text,
                finish_reason=outcome.finish_reason,
                raw_finish_reason=outcome.raw_finish_reason,
            )

        return self._end(make, epoch)

    def fail(self, error: PenstockError, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamFailed`."""

        def make(seq: int) -> TerminalEvent:
            partial, fields = self._final(seq, outcome, dropped, now)
            if isinstance(error, RunawayAnswer) and error.kind == "text" and error.stream_id == self.stream_id:
                partial = partial[: error.start + error.period]
            if isinstance(error, (ProviderError, StreamError, AgentError)):
                error.partial = partial
            return StreamFailed(**fields, error=error, partial=partial)

        return self._end(make, epoch)

    def cancel(self, reason: str | None, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamCancelled`."""

        def make(seq: int) -> TerminalEvent:
            partial, fields = self._final(seq, outcome, dropped, now)
            return StreamCancelled(**fields, reason=reason, partial=partial)

        return self._end(make, epoch)

    def _final(self, seq: int, outcome: Outcome, dropped: int, now: float) -> tuple[str, dict[str, Any]]:
        """The whole text, and the other fields that all terminal events have."""
        last = seq - 1 - len(self.last_events)
        buffered = self.owner.undelivered(last)
        texts, parts = self._whole(buffered)
        told = self._window.told()
        for event in self.owner.undelivered_events(last):
            told.add(event)
        return texts.get("text", ""), {
            "stream_id": self.stream_id,
            "seq": seq,
            "undelivered": len(buffered),
            "reasoning": texts.get("reasoning", ""),
            "refusal": texts.get("refusal", ""),
            "parts": parts,
            **told.fields(),
            "provider_blocks": outcome.provider_blocks,
            "provider_metadata": outcome.provider_metadata,
            "tool_calls": outcome.tool_calls,
            "usage": outcome.usage,
            "model": outcome.model,
            "provider": outcome.provider,
            "reasoning_blocks": outcome.reasoning_blocks,
            "choices": outcome.choices,
            "cost": outcome.cost,
            "metrics": self.owner.measure(now),
            "timestamp": now,
            "metadata": self.metadata,
            "dropped": dropped,
            "texts": _by_origin(texts.get("text", ""), parts),
            "costs": outcome.costs,
            "origin": outcome.origin,
            "prediction": outcome.prediction,
        }

    def _end(self, make: Callable[[int], TerminalEvent], epoch: int | None) -> bool:
        with self._lock:
            if self.terminal is not None or (epoch is not None and epoch != self._epoch):
                return False
            self.last_events = tuple(
                msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(self.last_events, self.written + 1)
            )
            for event in self.last_events:
                self._add(event)
            terminal = make(self.written + 1)
            self.owner.note_end(terminal)
            self.terminal = terminal
            self._add(terminal)
            return True

    def _add(self, event: Event) -> None:
        self._window.events.append(event)
        self._bytes += cost_of(event)
        self.written += 1
        if not self.is_held_back:
            self.last_seq = self.written  # last: a reader that sees the number finds the event

    def _fold(self) -> None:
        """Fold the oldest events until a quarter of the bound is free, so that the total cost of folding is linear.

        Where an unread event stops it, the next time is when a quarter more has come, or more than may stay.
        """
        window, retain = self._window, self._retain_bytes
        most = retain + _UNREAD
        may_stay_bytes = most if self._bytes <= most else most - max(retain, _UNREAD) // 4
        goal = retain * 3 // 4
        read = self.owner.read_by_all(self.last_seq)
        count = 0
        for event in window.events:
            if self._bytes <= goal or event.seq > self.last_seq:
                break
            may_stay = self._bytes <= may_stay_bytes or event.seq == self.written
            if may_stay and event.seq > read and is_passing(event):
                break
            count += 1
            self._bytes -= cost_of(event)
        self._fold_at = min(most, max(retain, self._bytes + max(retain, self._bytes) // 4))
        if count:
            self._window = window.fold(count)

    def _whole(self, buffered: Sequence[Undelivered]) -> tuple[dict[TokenKind, str], tuple[AnswerPart, ...]]:
        """The whole text of each kind, with what is buffered, and its parts."""
        window = self._window
        if not (window.events or window.folded or buffered):
            return {}, ()
        pieces = {kind: [pile.read()] for kind, pile in window.folded.items()}
        parts = window.parts.copy()
        for event in window.events:
            if event.__class__ is TokenEvent:
                kind = event.kind
                if kind in pieces:
                    pieces[kind].append(event.text)
                else:
                    pieces[kind] = [event.text]
                parts.add(kind, len(event.text), event.part, event.phase, event.origin)
            elif event.__class__ is StreamReset:
                pieces, parts = _after_reset(event, pieces, parts)
        for kind, text, part, phase, origin in buffered:
            pieces.setdefault(kind, []).append(text)
            parts.add(kind, len(text), part, phase, origin)
        return {kind: "".join(texts) for kind, texts in pieces.items()}, parts.read()

    def text_length(self, *, with_buffered: bool = False) -> int:
        """How many characters of the kind ``"text"`` there are since the last reset."""
        with self._lock:
            window = self._window
            pile = window.folded.get("text")
            length = 0 if pile is None else pile.length
            for event in window.events:
                if event.__class__ is TokenEvent:
                    length += len(event.text) if event.kind == "text" else 0
                elif event.__class__ is StreamReset and event.origin is None:  # those of one origin are not counted
                    length = 0
            buffered = self.owner.undelivered(self.written) if with_buffered else ()
            return length + sum(len(token.text) for token in buffered if token.kind == "text")

    def _text(self, kind: TokenKind) -> str:
        window = self._window
        if any(event.__class__ is StreamReset and event.origin is not None for event in window.events):
            return self._whole(())[0].get(kind, "")
        pile = window.folded.get(kind)
        parts = [pile.read()] if pile is not None else []
        for event in window.events:
            if isinstance(event, StreamReset):
                parts.clear()
            elif isinstance(event, TokenEvent) and event.kind == kind:
                parts.append(event.text)
        return "".join(parts)

    # --- reading, any thread -------------------------------------------------------------------------------------

    @property
    def first_seq(self) -> int:
        """The number of the oldest event that is not folded."""
        return self._window.base + 1

    @property
    def kept_bytes(self) -> int:
        """An estimate of the memory, in bytes, that the events take which are not folded."""
        return self._bytes

    def bytes_after(self, seq: int) -> int:
        """About how many bytes of memory the events after number ``seq`` take; folded ones count as their text.

        Where part of the folded events is after ``seq``, all of them count. Takes time in proportion to the events.
        """
        window = self._window
        waiting = window.events[max(0, seq - window.base) :]
        folded = sum(pile.length for pile in window.folded.values()) if seq < window.base else 0
        return folded + sum(map(cost_of, waiting))

    def text(self, kind: TokenKind = "text") -> str:
        """All text of one kind so far."""
        with self._lock:
            return self._text(kind)

    def get(self, seq: int) -> Event | None:
        """The event with that number; None if it does not exist yet, or has been folded."""
        window = self._window
        index = seq - window.base - 1
        return window.events[index] if 0 <= index < len(window.events) else None

    def kept_after(self, seq: int) -> list[Event] | None:
        """The events after number ``seq``, also those that are held back; None if one of them has been folded."""
        window = self._window
        return window.events[seq - window.base :] if seq >= window.base else None

    def snapshot(self) -> StreamSnapshot | None:
        """Everything folded, as one event; None if nothing has been folded."""
        with self._lock:
            return self._snapshot() if self._window.base else None

    def _snapshot(self) -> StreamSnapshot:
        return self._window.snapshot(self.stream_id, self.metadata)

    def folded_after(self, seq: int, offsets: Mapping[TokenKind, int] | None) -> Folded:
        """The folded events after number ``seq``, for a reader that has ``offsets`` characters of each kind.

        Without offsets, or if there was a reset since ``seq``, the result is a snapshot.
        """
        with self._lock:
            window = self._window
            if offsets is None or window.reset > seq:
                rest, snapshot = [], self._snapshot()
            else:
                rest, snapshot = window.rest(seq, offsets, self.stream_id, self.metadata), None
            return Folded(window.base, rest, snapshot, window.tokens, window.dropped)

    def folded_counts(self, seq: int) -> tuple[int, int, int] | None:
        """The number of the last folded event, and the counts of tokens and dropped tokens up to it.

        None if a reset, or a tool event that is kept, was folded after number ``seq``.
        """
        window = self._window
        if max(window.reset, window.last_kept) > seq:
            return None
        return window.base, window.tokens, window.dropped

    def counts_until(self, seq: int) -> tuple[int, int] | None:
        """The counts of tokens and dropped tokens up to number ``seq``; None if that event has been folded."""
        window = self._window
        if seq < window.base:
            return None
        events = [event for event in window.events[: seq - window.base] if isinstance(event, TokenEvent)]
        return (
            window.tokens + sum(len(event.tokens) for event in events),
            window.dropped + sum(event.dropped for event in events),
        )

    def __iter__(self) -> Iterator[Event]:
        """Iterate over a copy of the events that are not folded."""
        return iter(self._window.events[:])


def _after_reset(
    reset: StreamReset, pieces: dict[TokenKind, list[str]], parts: PartSpans
) -> tuple[dict[TokenKind, list[str]], PartSpans]:
    """The pieces of text of each kind, and their parts, that are left by a reset."""
    if reset.origin is None:
        return {}, PartSpans()
    left: dict[TokenKind, list[str]] = {}
    for kind, texts in pieces.items():
        text = "".join(texts)
        left[kind] = [text[part.start : part.end] for part in parts.split(kind, 0, len(text), reset.origin)]
    return left, parts.without(reset.origin)


def _by_origin(text: str, parts: Sequence[AnswerPart]) -> Mapping[str, str]:
    """The text of each origin, in the order in which they began; empty if no part has an origin."""
    pieces: dict[str, list[str]] = {}
    for part in parts:
        if part.kind == "text" and part.origin is not None:
            pieces.setdefault(part.origin, []).append(text[part.start : part.end])
    return FrozenDict({origin: "".join(texts) for origin, texts in pieces.items()}) if pieces else _NO_TEXTS


_NO_TEXTS: Final = FrozenDict()
