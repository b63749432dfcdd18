"""The part of a log that is kept event by event, and what is left of everything before it.

Pure. Text is put on piles. Of the tool events, the pieces of arguments and the reports of progress vanish; the others
are kept, with their place in the text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from penstock.events import (
    Event,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolEvent,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)

__all__ = ["Folded", "TextPile", "Window", "cost_of"]

_EVENT_COST: Final = 160  # bytes of a TokenEvent and its place in the list
_TOKEN_COST: Final = 60  # bytes of a short str and its place in the tuple
_JOIN_AT: Final = 256  # parts that a pile joins into one
_KINDS: Final[tuple[TokenKind, ...]] = ("reasoning", "text", "refusal")  # models reason first


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

    def read(self, offset: int = 0, end: int | None = None) -> str:
        """The text from ``offset`` on, up to ``end``."""
        first = bisect_right(self._ends, offset)
        last = len(self._ends) if end is None else bisect_left(self._ends, end) + 1
        start = self._ends[first - 1] if first else 0
        text = "".join(self._parts[first:last])
        return text[offset - start : None if end is None else end - start]


class Folded(NamedTuple):
    """What somebody who has read up to some number finds folded away behind it: a rest, or everything."""

    seq: int
    """The number up to which that goes."""
    rest: list[TokenEvent | ToolEvent]
    """What it misses: the text in as few events as its order allows, and the tool events that are kept."""
    snapshot: StreamSnapshot | None
    """If the rest is not all that it needs: a reset lies between, or it has not read from the start."""
    tokens: int
    """How many tokens there were from the start to ``seq``."""
    dropped: int
    """How many dropped tokens were told of from the start to ``seq``."""


class _Kept(NamedTuple):
    """A tool event that was folded, and how much text there was before it."""

    event: ToolEvent
    lengths: dict[TokenKind, int]


class Window:
    """The events that are kept one by one: number ``base + 1`` is ``events[0]``, and so on.

    The rest is about everything up to ``base``: its text by kind and its tool events since the last reset, that one's
    number, the tokens in it, those that were dropped, the time of the last event.
    """

    __slots__ = ("_kept", "base", "dropped", "events", "folded", "reset", "timestamp", "tokens")

    def __init__(self) -> None:
        self.base = 0
        self.events: list[Event] = []
        self.folded: dict[TokenKind, TextPile] = {}
        self.reset = 0
        self.tokens = 0
        self.dropped = 0
        self.timestamp = 0.0
        self._kept: list[_Kept] = []

    @property
    def last_kept(self) -> int:
        """The number of the last tool event that was folded and kept; 0 if there is none."""
        return self._kept[-1].event.seq if self._kept else 0

    def fold(self, count: int) -> Window:
        """A window that goes on where this one stands, without its first ``count`` events.

        This one stays as it is: a reader may be using its events without a lock. The piles, and what is kept, go on;
        they are only read under the lock.
        """
        after = Window()
        after.base, after.events = self.base + count, self.events[count:]
        after.folded, after._kept, after.reset = dict(self.folded), self._kept, self.reset
        after.tokens, after.dropped, after.timestamp = self.tokens, self.dropped, self.timestamp
        for event in self.events[:count]:
            after._put_away(event)
        return after

    def _put_away(self, event: Event) -> None:
        self.timestamp = event.timestamp
        if isinstance(event, TokenEvent):
            self.tokens += len(event.tokens)
            self.dropped += event.dropped
            pile = self.folded.get(event.kind)
            if pile is None:
                pile = self.folded[event.kind] = TextPile()
            pile.add(event.text)
        elif isinstance(event, StreamReset):
            self.folded = {}
            self._kept = []
            self.reset = event.seq
        elif isinstance(event, ToolEvent) and not isinstance(event, (ToolCallDelta, ToolProgress)):
            self._kept.append(_Kept(event, {kind: pile.length for kind, pile in self.folded.items()}))

    def snapshot(self, stream_id: str, metadata: Mapping[str, Any]) -> StreamSnapshot:
        """Everything that has been folded since the last reset."""
        text, reasoning, refusal = (
            self.folded[kind].read() if kind in self.folded else "" for kind in ("text", "reasoning", "refusal")
        )
        events = [kept.event for kept in self._kept]
        return StreamSnapshot(
            stream_id,
            self.base,
            (text,),
            text,
            "text",
            self.timestamp,
            metadata,
            self.dropped,
            reasoning=reasoning,
            refusal=refusal,
            tool_calls=tuple(event.call for event in events if isinstance(event, ToolCallCompleted)),
            tool_results=tuple(event for event in events if isinstance(event, ToolResult)),
        )

    def rest(
        self, seq: int, offsets: Mapping[TokenKind, int], stream_id: str, metadata: Mapping[str, Any]
    ) -> list[TokenEvent | ToolEvent]:
        """What is folded behind number ``seq``, for who has ``offsets`` characters of each kind.

        Text between two tool events is one event for each kind. There were as many at least, so each gets a number of
        its own; who goes on from one of these numbers gets the snapshot.
        """
        events: list[TokenEvent | ToolEvent] = []
        at = dict(offsets)

        def add_text(lengths: Mapping[TokenKind, int], last: int, timestamp: float) -> None:
            parts = [(kind, lengths[kind]) for kind in _KINDS if at.get(kind, 0) < lengths.get(kind, 0)]
            for number, (kind, end) in enumerate(parts, last - len(parts) + 1):
                text = self.folded[kind].read(at.get(kind, 0), end)
                at[kind] = end
                events.append(TokenEvent(stream_id, number, (text,), text, kind, timestamp, metadata))

        for event, lengths in self._kept[bisect_right(self._kept, seq, key=lambda kept: kept.event.seq) :]:
            add_text(lengths, event.seq - 1, event.timestamp)
            events.append(event)
        add_text({kind: pile.length for kind, pile in self.folded.items()}, self.base, self.timestamp)
        return events


def cost_of(event: Event) -> int:
    """About how many bytes of memory an event takes."""
    match event:
        case TokenEvent(text=text, tokens=tokens):
            return _EVENT_COST + 2 * len(text) + _TOKEN_COST * len(tokens)
        case ToolCallDelta(text=text) | ToolResult(content=text):
            return _EVENT_COST + 2 * len(text)
        case ToolCallCompleted(call=call):
            return _EVENT_COST + _cost_of_call(call)
        case ToolExecutionStarted(calls=calls):
            return _EVENT_COST + sum(map(_cost_of_call, calls))
    return _EVENT_COST


def _cost_of_call(call: ToolCall) -> int:
    return _EVENT_COST + 4 * len(call.arguments_raw)  # as it came, and parsed
