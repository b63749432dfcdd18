"""The log of one stream: every event once, numbered 1, 2, 3 … without gaps, ended by exactly one terminal event.

Who reads it holds a number and asks for what comes after (see `penstock.actors.flow.fanout`). One writer appends;
any thread may read without a lock, because what a reader looks at is replaced, never changed, when old events are
folded away.

A log outlives the stream actors that write it. Each of them gets an *epoch*; an append with an old epoch is refused,
so that an actor that was given up cannot write behind the back of the one that took its place.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from penstock.errors import PenstockError
from penstock.events import (
    Event,
    FinishReason,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCall,
    Usage,
)

__all__ = ["Outcome", "StreamLog", "TextPile"]

_EVENT_COST: Final = 160  # bytes of a TokenEvent and its place in the list
_TOKEN_COST: Final = 60  # bytes of a short str and its place in the tuple
_JOIN_AT: Final = 256  # parts that a pile joins into one


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said beside the text, for the terminal event."""

    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    model: str | None = None


class TextPile:
    """Text that only grows; adding is O(1), reading from an offset costs what it returns."""

    __slots__ = ("_ends", "_parts", "length")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._ends: list[int] = []
        self.length = 0

    def add(self, text: str) -> None:
        """Put ``text`` on the pile."""
        if not text:
            return
        self.length += len(text)
        self._parts.append(text)
        self._ends.append(self.length)
        if len(self._parts) >= _JOIN_AT and len(self._parts[-_JOIN_AT]) < 4096:
            self._parts[-_JOIN_AT:] = ["".join(self._parts[-_JOIN_AT:])]
            self._ends[-_JOIN_AT:] = [self.length]

    def read(self, offset: int = 0) -> str:
        """The text from ``offset`` on."""
        first = bisect_right(self._ends, offset)
        rest = self._parts[first:]
        if rest:
            rest[0] = rest[0][offset - (self._ends[first - 1] if first else 0) :]
        return "".join(rest)


class _Window:
    """The events that are kept one by one: number ``base + 1`` is ``events[0]``, and so on.

    ``folded`` holds the text of everything up to ``base``, by kind.
    """

    __slots__ = ("base", "events", "folded")

    def __init__(self, base: int, events: list[Event], folded: dict[str, TextPile]) -> None:
        self.base = base
        self.events = events
        self.folded = folded


class StreamLog:
    """See the module's docstring."""

    __slots__ = (
        "_bytes",
        "_epoch",
        "_lock",
        "_window",
        "dropped",
        "folded_reset",
        "last_seq",
        "metadata",
        "retain_bytes",
        "stream_id",
        "terminal",
        "tokens",
    )

    def __init__(self, stream_id: str, metadata: Mapping[str, Any], retain_bytes: int) -> None:
        self.stream_id = stream_id
        self.metadata = metadata
        self.last_seq = 0
        self.folded_reset = 0  # the number of the last reset that was folded away
        self.tokens = 0
        self.dropped = 0
        self.terminal: TerminalEvent | None = None
        self.retain_bytes = retain_bytes
        self._bytes = 0
        self._epoch = 0
        self._lock = threading.Lock()
        self._window = _Window(0, [], {})

    # --- writing -------------------------------------------------------------------------------------------------

    def new_epoch(self) -> int:
        """Let somebody new write; whoever wrote before is refused from now on."""
        with self._lock:
            self._epoch += 1
            return self._epoch

    def append(self, epoch: int, event: TokenEvent | StreamReset) -> bool:
        """Append an event that is numbered ``last_seq + 1``.

        Returns whether that was allowed: the epoch is current, and there is no terminal event.
        """
        with self._lock:
            if epoch != self._epoch or self.terminal is not None:
                return False
            assert event.seq == self.last_seq + 1
            self._add(event)
            if event.__class__ is TokenEvent:
                self.tokens += len(event.tokens)
                self.dropped += event.dropped
            self._bytes += _cost(event)
            if self._bytes > self.retain_bytes:
                self._fold()
            return True

    def complete(self, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamCompleted`. Without an epoch, whoever asks first ends it."""

        def make(seq: int) -> TerminalEvent:
            return StreamCompleted(
                **self._final(seq, outcome, dropped, now),
                text=self._text("text"),
                finish_reason=outcome.finish_reason,
                raw_finish_reason=outcome.raw_finish_reason,
            )

        return self._end(make, epoch)

    def fail(self, error: PenstockError, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamFailed`."""

        def make(seq: int) -> TerminalEvent:
            return StreamFailed(**self._final(seq, outcome, dropped, now), error=error, partial=self._text("text"))

        return self._end(make, epoch)

    def cancel(self, reason: str | None, outcome: Outcome, dropped: int, now: float, epoch: int | None = None) -> bool:
        """End the log with `StreamCancelled`."""

        def make(seq: int) -> TerminalEvent:
            return StreamCancelled(**self._final(seq, outcome, dropped, now), reason=reason, partial=self._text("text"))

        return self._end(make, epoch)

    def _final(self, seq: int, outcome: Outcome, dropped: int, now: float) -> dict[str, Any]:
        return {
            "stream_id": self.stream_id,
            "seq": seq,
            "reasoning": self._text("reasoning"),
            "refusal": self._text("refusal"),
            "tool_calls": outcome.tool_calls,
            "usage": outcome.usage,
            "model": outcome.model,
            "timestamp": now,
            "metadata": self.metadata,
            "dropped": dropped,
        }

    def _end(self, make: Callable[[int], TerminalEvent], epoch: int | None) -> bool:
        with self._lock:
            if self.terminal is not None or (epoch is not None and epoch != self._epoch):
                return False
            terminal = make(self.last_seq + 1)
            self.terminal = terminal
            self._add(terminal)
            return True

    def _add(self, event: Event) -> None:
        self._window.events.append(event)
        self.last_seq += 1  # last: whoever sees the number finds the event

    def _fold(self) -> None:
        """Fold the oldest events until a quarter of the bound is free again, so that this is linear over all."""
        window = self._window
        goal = self.retain_bytes * 3 // 4
        count = 0
        for event in window.events:
            if self._bytes <= goal:
                break
            count += 1
            self._bytes -= _cost(event)
        # A reader may be using the old window's events without a lock: make a new one. The piles go on; they are
        # only read under the lock.
        folded = dict(window.folded)
        for event in window.events[:count]:
            if isinstance(event, StreamReset):
                folded = {}
                self.folded_reset = event.seq
            elif isinstance(event, TokenEvent):
                pile = folded.get(event.kind)
                if pile is None:
                    pile = folded[event.kind] = TextPile()
                pile.add(event.text)
        self._window = _Window(window.base + count, window.events[count:], folded)

    def _text(self, kind: str) -> str:
        window = self._window
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
        """The number of the oldest event that is kept by itself."""
        return self._window.base + 1

    @property
    def kept_bytes(self) -> int:
        """About how much memory the events that are kept one by one take."""
        return self._bytes

    def text(self, kind: TokenKind = "text") -> str:
        """All text of that kind so far."""
        with self._lock:
            return self._text(kind)

    def get(self, seq: int) -> Event | None:
        """The event with that number; None if it is not there yet, or not any more."""
        window = self._window
        index = seq - window.base - 1
        return window.events[index] if 0 <= index < len(window.events) else None

    def snapshot(self) -> StreamSnapshot | None:
        """Everything that has been folded, as one event; None if nothing has."""
        with self._lock:
            window = self._window
            if not window.base:
                return None
            text, reasoning, refusal = (
                pile.read() if (pile := window.folded.get(kind)) else "" for kind in ("text", "reasoning", "refusal")
            )
            first = window.events[0].timestamp if window.events else 0.0
            return StreamSnapshot(
                self.stream_id,
                window.base,
                (text,),
                text,
                "text",
                first,
                self.metadata,
                reasoning=reasoning,
                refusal=refusal,
            )

    def folded_since(self, offsets: Mapping[TokenKind, int]) -> tuple[int, dict[TokenKind, str]]:
        """What has been folded behind the given offsets, by kind, and the number up to which that goes."""
        with self._lock:
            window = self._window
            kinds: tuple[TokenKind, ...] = ("reasoning", "text", "refusal")
            rest = {kind: window.folded[kind].read(offsets.get(kind, 0)) for kind in kinds if kind in window.folded}
            return window.base, {kind: text for kind, text in rest.items() if text}

    def __iter__(self) -> Iterator[Event]:
        """The events that are kept one by one, as they are now."""
        return iter(self._window.events[:])


def _cost(event: Event) -> int:
    if isinstance(event, TokenEvent):
        return _EVENT_COST + 2 * len(event.text) + _TOKEN_COST * len(event.tokens)
    return _EVENT_COST
