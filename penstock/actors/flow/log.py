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
from typing import Any, Final, NamedTuple

import msgspec

from penstock.errors import PenstockError, ProviderError, StreamError
from penstock.events import (
    Choice,
    Cost,
    Event,
    FinishReason,
    ReasoningBlock,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolEvent,
    Usage,
)

__all__ = ["Folded", "Outcome", "StreamLog", "TextPile"]

_EVENT_COST: Final = 160  # bytes of a TokenEvent and its place in the list
_TOKEN_COST: Final = 60  # bytes of a short str and its place in the tuple
_JOIN_AT: Final = 256  # parts that a pile joins into one


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said beside the text, for the terminal event.

    ``text`` and ``reasoning`` are there only where somebody conducts several rounds of an answer: those of this round.
    """

    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    choices: tuple[Choice, ...] = ()
    cost: Cost | None = None
    text: str = ""
    reasoning: str = ""

    def __repr__(self) -> str:
        return f"Outcome(finish_reason={self.finish_reason!r}, tool_calls={len(self.tool_calls)})"


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


class Folded(NamedTuple):
    """What somebody who has read up to some number finds folded away behind it: a rest, or everything."""

    seq: int
    """The number up to which that goes."""
    rest: dict[TokenKind, str]
    """The text it misses, by kind."""
    snapshot: StreamSnapshot | None
    """If the rest is not all that it needs: a reset lies between, or it has not read from the start."""
    tokens: int
    """How many tokens there were from the start to ``seq``."""
    dropped: int
    """How many dropped tokens were told of from the start to ``seq``."""
    timestamp: float
    """Of the last event."""


class _Window:
    """The events that are kept one by one: number ``base + 1`` is ``events[0]``, and so on.

    The rest is about everything up to ``base``: its text by kind since the last reset, that one's number, the tokens
    in it, those that were dropped, the time of the last event.
    """

    __slots__ = ("base", "dropped", "events", "folded", "reset", "timestamp", "tokens")

    def __init__(
        self,
        base: int = 0,
        events: list[Event] | None = None,
        folded: dict[TokenKind, TextPile] | None = None,
        reset: int = 0,
        tokens: int = 0,
        dropped: int = 0,
        timestamp: float = 0.0,
    ) -> None:
        self.base = base
        self.events: list[Event] = [] if events is None else events
        self.folded: dict[TokenKind, TextPile] = {} if folded is None else folded
        self.reset = reset
        self.tokens = tokens
        self.dropped = dropped
        self.timestamp = timestamp

    def fold(self, count: int) -> _Window:
        """A window that goes on where this one stands, without its first ``count`` events.

        This one stays as it is: a reader may be using its events without a lock. The piles go on; they are only read
        under the lock.
        """
        folded, reset, tokens, dropped = dict(self.folded), self.reset, self.tokens, self.dropped
        timestamp = self.timestamp
        for event in self.events[:count]:
            timestamp = event.timestamp
            if isinstance(event, TokenEvent):
                tokens += len(event.tokens)
                dropped += event.dropped
                pile = folded.get(event.kind)
                if pile is None:
                    pile = folded[event.kind] = TextPile()
                pile.add(event.text)
            elif isinstance(event, StreamReset):
                folded = {}
                reset = event.seq
        return _Window(self.base + count, self.events[count:], folded, reset, tokens, dropped, timestamp)


class StreamLog:
    """See the module's docstring."""

    __slots__ = (
        "_bytes",
        "_epoch",
        "_lock",
        "_window",
        "dropped",
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
        self.tokens = 0
        self.dropped = 0  # as told in token events
        self.terminal: TerminalEvent | None = None
        self.retain_bytes = retain_bytes
        self._bytes = 0
        self._epoch = 0
        self._lock = threading.Lock()
        self._window = _Window()

    # --- writing -------------------------------------------------------------------------------------------------

    def new_epoch(self) -> int:
        """Let somebody new write; whoever wrote before is refused from now on."""
        with self._lock:
            self._epoch += 1
            return self._epoch

    def append(self, epoch: int, event: TokenEvent | ToolEvent | StreamReset) -> bool:
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
            partial = self._text("text")
            if isinstance(error, (ProviderError, StreamError)):
                error.partial = partial
            return StreamFailed(**self._final(seq, outcome, dropped, now), error=error, partial=partial)

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
            "provider": outcome.provider,
            "reasoning_blocks": outcome.reasoning_blocks,
            "choices": outcome.choices,
            "cost": outcome.cost,
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
        if count:
            self._window = window.fold(count)

    def _text(self, kind: TokenKind) -> str:
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
            return self._snapshot() if self._window.base else None

    def _snapshot(self) -> StreamSnapshot:
        window = self._window
        piles = window.folded
        text, reasoning, refusal = (
            piles[kind].read() if kind in piles else "" for kind in ("text", "reasoning", "refusal")
        )
        return StreamSnapshot(
            self.stream_id,
            window.base,
            (text,),
            text,
            "text",
            window.timestamp,
            self.metadata,
            window.dropped,
            reasoning=reasoning,
            refusal=refusal,
        )

    def folded_after(self, seq: int, offsets: Mapping[TokenKind, int] | None) -> Folded:
        """What has been folded behind number ``seq``, for a reader who has ``offsets`` characters of each kind.

        Without offsets, or if there is a reset in it, that is the snapshot.
        """
        with self._lock:
            window = self._window
            rest: dict[TokenKind, str] = {}
            snapshot = None
            if not offsets or window.reset > seq:
                snapshot = self._snapshot()
            else:
                for kind, pile in window.folded.items():
                    offset = offsets.get(kind, 0)
                    if offset < pile.length:
                        rest[kind] = pile.read(offset)
            return Folded(window.base, rest, snapshot, window.tokens, window.dropped, window.timestamp)

    def folded_counts(self, seq: int) -> tuple[int, int, int] | None:
        """Up to which number events are folded, the tokens and the dropped ones up to there.

        None if there is a reset behind number ``seq`` among them.
        """
        window = self._window
        return None if window.reset > seq else (window.base, window.tokens, window.dropped)

    def counts_until(self, seq: int) -> tuple[int, int] | None:
        """How many tokens, and how many dropped ones, there are up to number ``seq``; None if that is folded away."""
        window = self._window
        if seq < window.base:
            return None
        events = [event for event in window.events[: seq - window.base] if isinstance(event, TokenEvent)]
        return (
            window.tokens + sum(len(event.tokens) for event in events),
            window.dropped + sum(event.dropped for event in events),
        )

    def __iter__(self) -> Iterator[Event]:
        """The events that are kept one by one, as they are now."""
        return iter(self._window.events[:])


def _cost(event: Event) -> int:
    if isinstance(event, TokenEvent):
        return _EVENT_COST + 2 * len(event.text) + _TOKEN_COST * len(event.tokens)
    return _EVENT_COST
