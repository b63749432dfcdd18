"""A snapshot, or the end of a stream, as events in an order in which they may have come. Pure.

A snapshot has the text by kind and in parts, and everything else in lists of its own. The order between the lists is
not known; it is chosen so that the same lists always give the same events.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.events import (
    AnswerEvent,
    AnswerPart,
    Citation,
    Event,
    FrozenDict,
    Logprobs,
    MediaPart,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    TokenLogprob,
)

__all__ = ["places_of", "retold", "snapshot_of", "with_logprobs"]


def retold(
    snapshot: StreamSnapshot, lengths: Mapping[TokenKind, int], told: int, places: Mapping[str, int] = FrozenDict()
) -> Iterator[Event]:
    """The events of a snapshot that are new: text and what belongs to it, but no calls and results.

    Reasoning comes in its place, each block of it ended by its event; citations and pictures come last.

    Args:
        snapshot: what has come.
        lengths: how many characters of each kind are known.
        told: how many of ``answer_events`` are known.
        places: how many characters of text come before each of the provider's own tools, by their ids. Those without a
            known place come before the first text that is new.
    """
    news = snapshot.answer_events[told:]
    blocks = [event for event in news if isinstance(event, ReasoningBlockClosed)]
    tools = _Tools(news, places)
    spans = [(span, text) for span in _parts(snapshot) if (text := _rest(snapshot, span, lengths))]
    thoughts = sum(span.kind == "reasoning" for span, _ in spans)
    for number, (span, text) in enumerate(spans):
        if span.kind == "text":
            yield from _with_tools(snapshot, span, text, max(span.start, lengths.get("text", 0)), tools)
            continue
        if span.kind == "refusal":
            yield from tools.before(0)
        yield _token(snapshot, span, text)
        is_last = number + 1 == len(spans) or spans[number + 1][0].kind != "reasoning"
        if span.kind == "reasoning" and blocks and (is_last or len(blocks) == thoughts):
            yield blocks.pop(0)
    yield from blocks
    yield from tools.before(None)
    rest = (Citation, MediaPart)
    yield from (event for event in news if isinstance(event, rest) and id(event) not in tools.shown)


class _Tools:
    """The calls of the provider's tools and their results that are to be sent; a picture follows its call.

    ``shown``: the pictures among them, by their identities.
    """

    def __init__(self, news: Sequence[AnswerEvent], places: Mapping[str, int]) -> None:
        self.shown: set[int] = set()
        self._pictures = {event.id: event for event in news if isinstance(event, MediaPart) and event.id}
        self._waiting = deque(
            (places.get(event.id, -1), event) for event in news if isinstance(event, (ServerToolCall, ServerToolResult))
        )

    def next_place(self) -> int | None:
        """Before which text the next one comes; None: there is none."""
        return self._waiting[0][0] if self._waiting else None

    def before(self, place: int | None) -> Iterator[AnswerEvent]:
        """Those that come before this place, or at it; None: all."""
        while self._waiting and (place is None or self._waiting[0][0] <= place):
            _, tool = self._waiting.popleft()
            yield tool
            picture = self._pictures.get(tool.id) if isinstance(tool, ServerToolCall) else None
            if picture is not None:
                self.shown.add(id(picture))
                yield picture


def _with_tools(snapshot: StreamSnapshot, span: AnswerPart, text: str, start: int, tools: _Tools) -> Iterator[Event]:
    """Text that begins at ``start``, cut where a tool of the provider was run."""
    end = start + len(text)
    yield from tools.before(start)
    while (place := tools.next_place()) is not None and start < place < end:
        yield _token(snapshot, span, text[: place - start])
        text, start = text[place - start :], place
        yield from tools.before(place)
    yield _token(snapshot, span, text)


def _parts(snapshot: StreamSnapshot) -> Sequence[AnswerPart]:
    """The parts; without any, one for each kind of text."""
    if snapshot.parts:
        return snapshot.parts
    texts = (("reasoning", snapshot.reasoning), ("text", snapshot.text), ("refusal", snapshot.refusal))
    return [AnswerPart(index=0, kind=kind, start=0, end=len(text)) for kind, text in texts if text]  # type: ignore[arg-type]


def _rest(snapshot: StreamSnapshot, span: AnswerPart, lengths: Mapping[TokenKind, int]) -> str:
    whole: str = getattr(snapshot, span.kind)
    return whole[max(span.start, lengths.get(span.kind, 0)) : span.end]


def _token(snapshot: StreamSnapshot, span: AnswerPart, text: str) -> TokenEvent:
    return TokenEvent(
        snapshot.stream_id,
        snapshot.seq,
        (text,),
        text,
        span.kind,
        snapshot.timestamp,
        snapshot.metadata,
        0,
        span.index,
        span.phase,
        span.origin,
    )


def snapshot_of(event: TerminalEvent) -> StreamSnapshot:
    """What a terminal event repeats of the stream, as a snapshot. The results of calls are not among it."""
    blocks = [
        ReasoningBlockClosed(
            index=index, kind=block.kind, signature=block.signature, id=block.id, provider=block.provider
        )
        for index, block in enumerate(event.reasoning_blocks)
    ]
    return StreamSnapshot(
        event.stream_id,
        event.seq,
        (event.text,),
        event.text,
        "text",
        event.timestamp,
        event.metadata,
        event.dropped,
        reasoning=event.reasoning,
        refusal=event.refusal,
        tool_calls=event.tool_calls,
        parts=event.parts,
        answer_events=(*blocks, *event.server_tools, *event.media, *event.citations),
    )


def places_of(event: TerminalEvent, *, is_turn: bool) -> dict[str, int]:
    """How many characters of text come before each of the provider's own tools, by their ids.

    Nothing is known of an agent's turn with several rounds: its blocks are those of the last one.
    """
    if is_turn and any(not call.is_server for call in event.tool_calls):
        return {}
    places: dict[str, int] = {}
    for block in event.provider_blocks:
        for name in ("tool_use_id", "call_id", "id"):
            if isinstance(identifier := block.data.get(name), str):
                places.setdefault(identifier, block.at)
    return places


def with_logprobs(events: Iterable[Event], tokens: Sequence[TokenLogprob]) -> Iterator[Event]:
    """The events with the probabilities of tokens after the text that they belong to, told by its length."""
    ends = list(itertools.accumulate(len(token.token) for token in tokens))
    at = written = 0
    for event in events:
        yield event
        if isinstance(event, TokenEvent) and event.kind == "text":
            written += len(event.text)
            end = bisect_right(ends, written)
            if end > at:
                yield Logprobs(tokens=tuple(tokens[at:end]))
                at = end
