"""Any events in any order, for tests of what holds for every stream."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from penstock.errors import IncompleteStream
from penstock.events import (
    AnswerPart,
    Citation,
    Event,
    Logprobs,
    LoopDetected,
    MediaPart,
    OriginEnded,
    Progress,
    ProviderBlock,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StallDetected,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TokenEvent,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from tests.judges.cases import STREAM_ID, numbered

__all__ = ["streams", "texts"]

# One half of a surrogate pair only: the other one in the next piece would make a character of two joined pieces.
texts = st.text(st.sampled_from('ab é\u2028\n\r"\\\U0001f600\ud83d\0'), max_size=6)
ids = st.sampled_from(["a", "b", 'c"\n'])
indexes = st.integers(0, 2)
kinds: Any = st.sampled_from(["text", "reasoning", "refusal"])
phases: Any = st.sampled_from([None, None, "commentary"])
statuses: Any = st.sampled_from(["ok", "ok", "error", "denied", "invalid_arguments"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def tokens(draw: st.DrawFn) -> TokenEvent:
    text = draw(texts)
    return TokenEvent(STREAM_ID, 0, (text,), text, draw(kinds), 0.0, {}, 0, draw(indexes), draw(phases))


@st.composite
def calls(draw: st.DrawFn) -> ToolCall:
    arguments = draw(st.none() | st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 9), max_size=2))
    raw = draw(texts) if arguments is None else msgspec.json.encode(arguments).decode()
    return ToolCall(
        id=draw(ids),
        name=draw(st.sampled_from(["add", "find"])),
        arguments=arguments,
        arguments_raw=raw,
        is_server=draw(st.booleans()),
        signature=draw(st.sampled_from(["", "", "sig"])),
        type=draw(st.sampled_from(["function", "function", "custom"])),
    )


made_calls = calls()
results = st.builds(ToolResult, call_id=ids, name=st.just("add"), status=statuses, content=texts, seq=st.just(1))
answer_events: st.SearchStrategy[Any] = st.one_of(
    st.builds(ServerToolCall, id=ids, name=st.just("web_search"), input=values),
    st.builds(ServerToolResult, id=ids, name=st.just("web_search"), output=values, is_error=st.booleans()),
    st.builds(
        Citation,
        kind=st.sampled_from(["url", "file", "document"]),
        url=st.none() | st.just("https://a.example"),
        title=st.none() | texts,
    ),
    st.builds(MediaPart, kind=st.sampled_from(["image", "audio"]), data=st.just("QUJD"), is_partial=st.booleans()),
    st.builds(ReasoningBlockClosed, index=indexes, kind=st.just("thinking"), signature=st.sampled_from(["", "s"])),
)


@st.composite
def snapshots(draw: st.DrawFn) -> StreamSnapshot:
    pieces = {kind: draw(texts) for kind in ("text", "reasoning", "refusal")}
    parts = [
        AnswerPart(index=draw(indexes), kind=kind, start=0, end=len(text))  # type: ignore[arg-type]
        for kind, text in pieces.items()
        if text and draw(st.booleans())
    ]
    return StreamSnapshot(
        STREAM_ID,
        0,
        (pieces["text"],),
        pieces["text"],
        "text",
        0.0,
        {},
        reasoning=pieces["reasoning"],
        refusal=pieces["refusal"],
        parts=tuple(parts),
        tool_calls=tuple(draw(st.lists(made_calls, max_size=2))),
        tool_results=tuple(draw(st.lists(results, max_size=2))),
        answer_events=tuple(draw(st.lists(answer_events, max_size=2))),
    )


any_token = tokens()
outcomes = st.sampled_from(
    [
        StreamCompleted(stream_id="in", seq=9, text="ab"),
        StreamFailed(stream_id="in", seq=9, error=IncompleteStream("it broke off")),
        StreamCancelled(stream_id="in", seq=9, reason="user"),
    ]
)
notices: st.SearchStrategy[Any] = st.one_of(
    st.builds(Progress, message=texts, position=st.none() | st.floats(0, 9), unit=st.none() | st.just("lines")),
    st.builds(StallDetected, seconds=st.just(2.5), limit=st.just(2.0)),
    st.builds(LoopDetected, kind=st.just("text"), period=st.just(3), repeats=st.just(8), start=st.integers(0, 9)),
    st.builds(OriginEnded, origin=st.just("a"), outcome=outcomes),
)
events: st.SearchStrategy[Any] = st.one_of(
    *(any_token, any_token, any_token),
    st.builds(ToolCallStarted, id=ids, name=st.just("add"), index=indexes),
    st.builds(ToolCallDelta, index=indexes, text=texts),
    st.builds(ToolCallCompleted, index=indexes, call=made_calls),
    st.builds(ToolApprovalRequested, call=made_calls),
    st.builds(ToolExecutionStarted, round=st.integers(1, 3), calls=st.lists(made_calls, max_size=2).map(tuple)),
    st.builds(ToolProgress, call_id=ids, name=st.just("add"), progress=values),
    results,
    answer_events,
    st.builds(ProviderEvent, type=st.just("x"), payload=values),
    st.builds(Logprobs, tokens=st.just(())),
    notices,
    st.builds(StreamReset, st.just(STREAM_ID), st.just(0), texts, st.just(0.0), st.just({})),
    snapshots(),
)


common: dict[str, Any] = {"stream_id": STREAM_ID, "seq": 0}
blocks = (ProviderBlock(provider="p", data={"type": "t", "x": None}),)
reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "refusal", "other", "taken"])
ends: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda reason, given: StreamCompleted(**common, text="", finish_reason=reason, provider_blocks=given),
        reasons,
        st.sampled_from([(), blocks]),
    ),
    st.just(StreamFailed(**common, error=IncompleteStream("it broke off"))),
    st.just(StreamCancelled(**common, reason="user")),
)


def _of(event: Any, origin: str | None) -> Any:
    is_whole = origin is None or isinstance(event, StreamSnapshot)
    return event if is_whole else msgspec.structs.replace(event, origin=origin)


event_lists = st.lists(st.builds(_of, events, st.sampled_from([None, None, None, "a", "b"])), max_size=14)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A stream from its first event to its end."""
    first: list[Event] = [StreamStarted(model="m")] if draw(st.booleans()) else []
    return numbered([*first, *draw(event_lists), draw(ends)])
