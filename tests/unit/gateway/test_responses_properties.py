"""What holds for the Responses projection of any sequence of events."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ApiError
from penstock.events import (
    AnswerPart,
    Citation,
    Logprobs,
    MediaPart,
    OriginEnded,
    Progress,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TokenEvent,
    TokenKind,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from penstock.gateway.answers.responses import answer, replayed
from penstock.gateway.projections.frames import joined
from penstock.gateway.projections.responses_retold import retold
from tests.unit.gateway.responses_kit import SID, Projected, done, numbered, opening, read

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
KINDS: Any = st.sampled_from(["text", "reasoning", "refusal"])
IDS = st.sampled_from(["a", "b", "srvtoolu_1", "mcpr_1", ""])
NAMES = st.sampled_from(["add", "run", "shell", "web_search", "web_fetch", "code_execution", "mcp", "image_generation"])
ORIGINS = st.sampled_from([None, None, "a", "b"])
PLACES = st.none() | st.integers(0, 12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
TYPES = st.sampled_from(
    ["function", "custom", "shell", "computer", "apply_patch", "mcp_approval", "tool_search", "odd"]
)

calls = st.builds(
    ToolCall,
    id=IDS,
    name=NAMES,
    arguments=JSON,
    arguments_raw=st.sampled_from(["", "{}", '{"a":1}', "null", "ls", '{"action":{}}']),
    is_server=st.booleans(),
    type=TYPES,
    signature=st.sampled_from(["", "s"]),
)
tokens: st.SearchStrategy[Any] = st.builds(
    lambda said, kind, *rest: TokenEvent(SID, 0, (said,), said, kind, 0.0, {}, 0, *rest),
    TEXTS,
    KINDS,
    st.integers(0, 2),
    st.sampled_from([None, "commentary", "final_answer"]),
    ORIGINS,
)
citations = st.builds(
    Citation,
    kind=st.sampled_from(["url", "file", "document", "search_result"]),
    url=st.none() | st.just("https://x.test"),
    id=st.none() | st.just("f"),
    title=st.none() | TEXTS,
    start=PLACES,
    end=PLACES,
    location=st.just({}) | st.just({"index": 1, "container_id": "k"}),
)
likely = st.builds(TokenLogprob, token=TEXTS, logprob=st.floats(-9, 0), top=st.just(()) | st.just((("a", -1.0),)))
media = st.builds(
    MediaPart,
    kind=st.sampled_from(["image", "audio", "video"]),
    mime=st.sampled_from([None, "image/png"]),
    data=st.sampled_from(["", "AA=="]),
    id=st.none() | IDS,
    is_partial=st.booleans(),
    transcript=st.sampled_from(["", "hi"]),
)
answer_events: st.SearchStrategy[Any] = st.one_of(
    citations,
    st.builds(ServerToolCall, id=IDS, name=NAMES, input=JSON, status=st.sampled_from([None, "completed", "failed"])),
    st.builds(ServerToolResult, id=IDS, name=NAMES, output=JSON, is_error=st.booleans()),
    media,
    st.builds(Logprobs, tokens=st.lists(likely, max_size=2).map(tuple)),
    st.builds(ReasoningBlockClosed, index=st.just(0), kind=st.just("thinking"), signature=TEXTS),
)
parts = st.builds(AnswerPart, index=st.integers(0, 3), kind=KINDS, start=st.integers(0, 3), end=st.integers(0, 9))
snapshots: st.SearchStrategy[Any] = st.builds(
    lambda said, thought, spans, made, told: StreamSnapshot(
        SID,
        0,
        (said,),
        said,
        "text",
        0.0,
        {},
        reasoning=thought,
        parts=tuple(spans),
        tool_calls=tuple(made),
        answer_events=tuple(told),
    ),
    TEXTS,
    TEXTS,
    st.lists(parts, max_size=2),
    st.lists(calls, max_size=2),
    st.lists(answer_events, max_size=2),
)
side_events: st.SearchStrategy[Any] = st.one_of(
    st.builds(StreamStarted, model=st.none() | st.just("m2")),
    st.builds(ToolCallStarted, id=IDS, name=NAMES, index=st.integers(0, 2), origin=ORIGINS),
    st.builds(ToolCallDelta, index=st.integers(0, 2), text=TEXTS, origin=ORIGINS),
    st.builds(ToolCallCompleted, index=st.integers(0, 2), call=calls, origin=ORIGINS),
    st.builds(ToolResult, call_id=IDS, name=NAMES, status=st.sampled_from(["ok", "error", "denied"]), content=TEXTS),
    st.builds(ToolExecutionStarted, round=st.just(1), calls=st.just(())),
    st.builds(ToolProgress, call_id=IDS, name=NAMES, progress=JSON),
    st.builds(ToolApprovalRequested, call=calls),
    st.builds(ProviderEvent, type=TEXTS, payload=JSON),
    st.builds(StreamReset, st.just(SID), st.just(0), st.just("broken"), st.just(0.0), st.just({}), ORIGINS),
    st.builds(Progress, message=TEXTS, origin=ORIGINS),
    st.builds(OriginEnded, origin=st.just("a"), outcome=st.just(done("x"))),
)
ends: st.SearchStrategy[Any] = st.sampled_from(
    [
        done("x"),
        done("x", finish_reason="length"),
        StreamFailed(stream_id=SID, seq=0, error=ApiError(500, "boom")),
        StreamCancelled(stream_id=SID, seq=0, reason="user"),
    ]
)
sequences = st.lists(st.one_of(tokens, tokens, side_events, answer_events, snapshots), max_size=14)
requests = st.sampled_from(
    [{}, {"background": True}, {"top_logprobs": 1}, {"tools": [{"type": "custom", "name": "run"}]}],
)


@settings(max_examples=300, deadline=None)
@given(sequences, st.none() | ends, requests, st.sampled_from(["summary", "text"]))
def test_any_events_make_frames_that_are_numbered_and_can_be_merged_anywhere(
    events: list[Any], end: Any, request: dict[str, Any], reasoning: str
) -> None:
    at = opening(request, variant={"reasoning": reasoning})
    seen = Projected([*events, *([] if end is None else [end])], at=at)
    said = seen.said
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert [frame.seq for frame in seen.frames] == sorted(frame.seq for frame in seen.frames)
    for frame in seen.frames:
        if frame.key is not None:
            assert frame.data == seen.projection.delta(frame.key, frame.text, frame.seq, frame.number)
    again = Projected(seen.events, at=at, are_numbered=True)
    assert again.frames == seen.frames
    whole = _texts(said)
    for cut in range(0, len(seen.frames) + 1, 3):
        pieces = [read(joined(part, seen.projection)) for part in (seen.frames[:cut], seen.frames[cut:])]
        assert _texts([event for piece in pieces for event in piece]) == whole
    if end is not None:
        _check_items(said)


def _texts(events: list[dict[str, Any]]) -> dict[Any, str]:
    """The deltas of each item's parts, joined."""
    found: dict[Any, str] = {}
    for event in events:
        if isinstance(event.get("delta"), str):
            key = event["type"], event.get("item_id"), event.get("content_index"), event.get("summary_index")
            found[key] = found.get(key, "") + event["delta"]
    return found


def _check_items(said: list[dict[str, Any]]) -> None:
    """Every item and part begins before its pieces and ends after them, and the deltas are the whole."""
    items: dict[int, str] = {}
    texts = _texts(said)
    for event in said:
        kind, index = event["type"], event.get("output_index", -1)
        if kind == "response.output_item.added":
            assert index == len(items)
            items[index] = event["item"]["id"]
        elif kind == "response.output_item.done":
            assert items[index] == event["item"]["id"]
        elif "item_id" in event:
            assert items[index] == event["item_id"]
        if kind == "response.output_text.done":
            key = "response.output_text.delta", event["item_id"], event["content_index"], None
            assert texts.get(key, "") == event["text"]
    ended = [event["item"]["id"] for event in said if event["type"] == "response.output_item.done"]
    assert sorted(ended) == sorted(items.values())
    identities = [
        (item["type"], item["id"], item.get("call_id"))
        for item in (event["item"] for event in said if event["type"] == "response.output_item.done")
    ]
    assert len(set(identities)) == len(identities)
    final = said[-1]["response"]["output"]
    assert {item["id"] for item in final} <= set(ended)


@settings(max_examples=200, deadline=None)
@given(sequences, ends)
def test_the_response_of_a_log_is_the_one_that_was_streamed(events: list[Any], end: Any) -> None:
    seen = Projected([*events, end])
    assert replayed(seen.events, opening()) == seen.projection.response
    made = answer(end, opening())
    assert made["status"] == seen.said[-1]["response"]["status"]


@settings(max_examples=200, deadline=None)
@given(snapshots, st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))
def test_what_is_retold_of_a_snapshot_is_its_rest(snapshot: Any, length: int, thought: int, told: int) -> None:
    spans = snapshot.parts
    lengths: dict[TokenKind, int] = {"text": length, "reasoning": thought}
    events = list(retold(snapshot, lengths, told))
    if not spans:
        said = "".join(event.text for event in events if isinstance(event, TokenEvent) and event.kind == "text")
        assert said == snapshot.text[length:]
    others = [event for event in events if not isinstance(event, TokenEvent)]
    kept = [event for event in snapshot.answer_events[told:] if not isinstance(event, Logprobs)]
    assert sorted(map(repr, others)) == sorted(map(repr, kept))


def test_numbers_are_those_of_the_log() -> None:
    assert [event.seq for event in numbered([done("a"), done("b")])] == [1, 2]
