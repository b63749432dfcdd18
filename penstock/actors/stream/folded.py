"""The events of a log that are kept one by one, and the summary of the folded ones before them. Pure.

Folded text is collected by kind. Other folded events are kept with their position in the text, except for those that
are pieces of something, or only of interest at the time; see `is_passing`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from operator import attrgetter
from typing import Any, Final, NamedTuple

from penstock.actors.stream.parts import PartSpans
from penstock.events import (
    AnswerEvent,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    NoticeEvent,
    Progress,
    ProviderEvent,
    ServerToolCall,
    ServerToolResult,
    SideEvent,
    StallDetected,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    TokenLogprob,
    ToolCallCompleted,
    ToolCallDelta,
    ToolProgress,
    ToolResult,
)

__all__ = ["Folded", "TextPile", "Told", "Window", "is_passing"]

_JOIN_AT: Final = 256  # number of parts that are joined into one
_PASSING: Final = (ToolCallDelta, ToolProgress, Logprobs, ProviderEvent, Progress, StallDetected)
_KINDS: Final[tuple[TokenKind, ...]] = ("reasoning", "text", "refusal")  # models reason first


class TextPile:
    """Append-only text. Adding is O(1); reading costs time in proportion to what it returns."""

    __slots__ = ("_ends", "_parts", "length")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._ends: list[int] = []
        self.length = 0

    def add(self, text: str) -> None:
        """Append ``text``."""
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
    """The folded events that a reader has missed: either the rest, or a snapshot of everything."""

    seq: int
    """The number of the last folded event."""
    rest: list[TokenEvent | SideEvent]
    """The missed text, in as few events as its order allows, and the other kept events."""
    snapshot: StreamSnapshot | None
    """Set if the reader needs everything: there was a reset, or it has not read from the start."""
    tokens: int
    """The number of tokens from the start to ``seq``."""
    dropped: int
    """The number of dropped tokens reported from the start to ``seq``."""


class Told:
    """The events of an answer that its terminal event repeats, in order, since the last reset."""

    __slots__ = ("_citations", "_logprobs", "_media", "_server_tools")

    def __init__(self, logprobs: list[TokenLogprob]) -> None:
        self._citations: list[Citation] = []
        self._media: list[MediaPart] = []
        self._server_tools: list[ServerToolCall | ServerToolResult] = []
        self._logprobs = logprobs

    def add(self, event: Event) -> None:
        """Add an event, if it is one of them."""
        match event:
            case Citation():
                self._citations.append(event)
            case MediaPart(is_partial=False):
                self._media.append(event)
            case ServerToolCall() | ServerToolResult():
                self._server_tools.append(event)
            case Logprobs(tokens=tokens):
                self._logprobs += tokens

    def forget(self, origin: str) -> None:
        """Remove the events of one origin."""
        self._citations = [one for one in self._citations if one.origin != origin]
        self._media = [one for one in self._media if one.origin != origin]
        self._server_tools = [one for one in self._server_tools if one.origin != origin]

    def fields(self) -> dict[str, Any]:
        """The fields of the terminal event."""
        return {
            "citations": tuple(self._citations),
            "media": tuple(self._media),
            "server_tools": tuple(self._server_tools),
            "logprobs": tuple(self._logprobs),
        }


class _Kept(NamedTuple):
    """A folded event that is not text, and the length of the text before it, by kind."""

    event: SideEvent
    lengths: dict[TokenKind, int]


class Window:
    """The events that are kept one by one: number ``base + 1`` is ``events[0]``, and so on.

    The other fields are about the events up to ``base``: text by kind, its parts and other events since the last reset,
    the number of that reset, the counts of tokens and dropped tokens, and the time of the last event.
    """

    __slots__ = ("_kept", "_logprobs", "base", "dropped", "events", "folded", "parts", "reset", "timestamp", "tokens")

    def __init__(self) -> None:
        self.base = 0
        self.events: list[Event] = []
        self.folded: dict[TokenKind, TextPile] = {}
        self.reset = 0
        self.tokens = 0
        self.dropped = 0
        self.timestamp = 0.0
        self._kept: Sequence[_Kept] = ()
        self._logprobs: list[TokenLogprob] | None = None  # of all folded events; made with the first one
        self.parts = _NO_PARTS

    @property
    def last_kept(self) -> int:
        """The number of the last folded event that is kept; 0 if there is none."""
        return self._kept[-1].event.seq if self._kept else 0

    def fold(self, count: int) -> Window:
        """A new window with the first ``count`` events folded.

        This window's events do not change, since a reader may use them without a lock. The folded text and the kept
        events are shared by both windows; they are only read under the lock.
        """
        after = Window()
        after.base, after.events = self.base + count, self.events[count:]
        after.folded, after._kept, after.reset = dict(self.folded), self._kept, self.reset
        after.parts = self.parts if self.parts is not _NO_PARTS else PartSpans()
        after.tokens, after.dropped, after.timestamp = self.tokens, self.dropped, self.timestamp
        after._logprobs = self._logprobs
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
            self.parts.add(event.kind, len(event.text), event.part, event.phase, event.origin)
        elif isinstance(event, StreamReset) and event.origin is not None:
            self._forget(event.origin)
            self.reset = event.seq
        elif isinstance(event, StreamReset):
            self.folded = {}
            self._kept = ()
            self._logprobs = None
            self.parts = PartSpans()
            self.reset = event.seq
        elif isinstance(event, SideEvent) and not is_passing(event):
            kept = _Kept(event, {kind: pile.length for kind, pile in self.folded.items()})
            if isinstance(self._kept, list):
                self._kept.append(kept)
            else:
                self._kept = [kept]
        elif isinstance(event, Logprobs):
            self._logprobs = self._logprobs or []
            self._logprobs += event.tokens

    def _forget(self, origin: str) -> None:
        """Remove the text and the events of one origin, which has been reset."""
        self.folded = {
            kind: _pile(pile.read(part.start, part.end) for part in self.parts.split(kind, 0, pile.length, origin))
            for kind, pile in self.folded.items()
        }
        self.parts = self.parts.without(origin)
        nowhere: dict[TokenKind, int] = {}  # a reader that is behind the reset gets a snapshot, which has no places
        self._kept = [_Kept(kept.event, nowhere) for kept in self._kept if kept.event.origin != origin]

    def told(self) -> Told:
        """What the terminal event repeats of the events so far."""
        told = Told(list(self._logprobs or ()))
        for kept in self._kept:
            told.add(kept.event)
        for event in self.events:
            if event.__class__ is TokenEvent:
                continue
            if not isinstance(event, StreamReset):
                told.add(event)
            elif event.origin is None:
                told = Told([])
            else:
                told.forget(event.origin)
        return told

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
            parts=self.parts.read(),
            answer_events=tuple(event for event in events if isinstance(event, AnswerEvent)),
            notices=tuple(event for event in events if isinstance(event, NoticeEvent)),
        )

    def rest(
        self, seq: int, offsets: Mapping[TokenKind, int], stream_id: str, metadata: Mapping[str, Any]
    ) -> list[TokenEvent | SideEvent]:
        """The folded events after number ``seq``, for a reader that has ``offsets`` characters of each kind.

        Text between two other events becomes one event for each kind and part. At least as many events were folded, so
        each gets a number of its own. A reader that resumes from one of these numbers gets the snapshot.
        """
        events: list[TokenEvent | SideEvent] = []
        at = dict(offsets)

        def add_text(lengths: Mapping[TokenKind, int], last: int, timestamp: float) -> None:
            by_kind = (self.parts.split(kind, at.get(kind, 0), lengths.get(kind, 0)) for kind in _KINDS)
            parts = list(merge(*by_kind, key=_index_of))  # not sorted: of several origins, a lower part may follow
            for number, part in enumerate(parts, last - len(parts) + 1):
                kind, at[part.kind] = part.kind, part.end
                text = self.folded[kind].read(part.start, part.end)
                event = TokenEvent(
                    stream_id, number, (text,), text, kind, timestamp, metadata, 0, part.index, part.phase, part.origin
                )
                events.append(event)

        for event, lengths in self._kept[bisect_right(self._kept, seq, key=lambda kept: kept.event.seq) :]:
            add_text(lengths, event.seq - 1, event.timestamp)
            events.append(event)
        add_text({kind: pile.length for kind, pile in self.folded.items()}, self.base, self.timestamp)
        return events


def _pile(texts: Iterable[str]) -> TextPile:
    pile = TextPile()
    for text in texts:
        pile.add(text)
    return pile


_NO_PARTS: Final = PartSpans()
_index_of: Final = attrgetter("index")


def is_passing(event: Event) -> bool:
    """Whether nothing is left of an event once it is folded."""
    return isinstance(event, _PASSING) or (isinstance(event, MediaPart) and event.is_partial)
