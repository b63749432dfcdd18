"""A snapshot, or the end of a stream, as events in an order in which they may have come. Pure.

A snapshot has the text by kind and in parts, and everything else in lists of its own. The order between the lists is
not known; it is chosen so that the same lists always give the same events.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.events import (
    AnswerEvent,
    AnswerPart,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenLogprob,
)

__all__ = ["retold", "snapshot_of", "with_logprobs"]


def retold(snapshot: StreamSnapshot, lengths: Mapping[str, int], told: int) -> Iterator[Event]:
    """The events of a snapshot that are new: text and what belongs to it, but no calls and results.

    Reasoning comes in its place, each block of it ended by its event; the provider's own tools come before the first
    text that is new; citations and pictures come last.

    Args:
        snapshot: what has come.
        lengths: how many characters of each kind are known.
        told: how many of ``answer_events`` are known.
    """
    news = snapshot.answer_events[told:]
    blocks = [event for event in news if isinstance(event, ReasoningBlockClosed)]
    tools = [event for event in news if isinstance(event, (ServerToolCall, ServerToolResult))]
    pictures = {event.id: event for event in news if isinstance(event, MediaPart) and event.id}
    spans = [(span, text) for span in _parts(snapshot) if (text := _rest(snapshot, span, lengths))]
    thoughts = sum(span.kind == "reasoning" for span, _ in spans)
    shown: set[int] = set()
    for number, (span, text) in enumerate(spans):
        if span.kind != "reasoning":
            yield from _tools(tools, pictures, shown)
            tools = []
        yield _token(snapshot, span, text)
        is_last = number + 1 == len(spans) or spans[number + 1][0].kind != "reasoning"
        if span.kind == "reasoning" and blocks and (is_last or len(blocks) == thoughts):
            yield blocks.pop(0)
    yield from blocks
    yield from _tools(tools, pictures, shown)
    rest = (Citation, MediaPart)
    yield from (event for event in news if isinstance(event, rest) and id(event) not in shown)


def _tools(
    tools: Sequence[ServerToolCall | ServerToolResult], pictures: Mapping[str, MediaPart], shown: set[int]
) -> Iterator[AnswerEvent]:
    """Calls of the provider's tools and their results; a picture follows the call that made it."""
    for tool in tools:
        yield tool
        picture = pictures.get(tool.id) if isinstance(tool, ServerToolCall) else None
        if picture is not None:
            shown.add(id(picture))
            yield picture


def _parts(snapshot: StreamSnapshot) -> Sequence[AnswerPart]:
    """The parts; without any, one for each kind of text."""
    if snapshot.parts:
        return snapshot.parts
    texts = (("reasoning", snapshot.reasoning), ("text", snapshot.text), ("refusal", snapshot.refusal))
    return [AnswerPart(index=0, kind=kind, start=0, end=len(text)) for kind, text in texts if text]  # type: ignore[arg-type]


def _rest(snapshot: StreamSnapshot, span: AnswerPart, lengths: Mapping[str, int]) -> str:
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
