"""Penstock's own decoders read out of the frames what the events said: chat completions and Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.config.counting import dialect_of
from penstock.config.providers import known_provider
from penstock.events import Event, StreamCompleted, StreamFailed, StreamStarted, TokenEvent, Usage
from penstock.gateway.projections.anthropic import AnthropicProjection
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.projections.frames import Frame, Projection, joined
from penstock.ports import Decoder
from tests.unit.gateway.chat_made import (
    ANY_EVENTS,
    CORPUS,
    CUTS,
    answers,
    datas,
    events_of,
    is_valid_stream,
    opened,
    pieces_of,
    sent,
    source_of,
)

LIMIT = 4 * 1_048_576
PROJECTIONS: list[type[Projection]] = [ChatProjection, AnthropicProjection]
VARIANTS: list[dict[str, str]] = [
    {},
    {"events": "numbered"},
    {"extras": "penstock"},
    {"reasoning_field": "reasoning"},
]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"logprobs": True, "tools": [{"type": "custom", "custom": {"name": "f"}}]},
]


def frames_of(
    kind: type[Projection], made: Iterable[Event], request: int = 1, variant: dict[str, str] | None = None
) -> list[Frame]:
    projection = kind(opened(REQUESTS[request], **(variant or {})))
    return [frame for event in made for frame in projection.feed(event)]


def decoded(kind: type[Projection], body: bytes) -> list[Event]:
    decoder: Decoder = ChatDecoder(LIMIT) if kind is ChatProjection else MessagesDecoder(LIMIT)
    return events_of(decoder.feed(body) + decoder.close(), decoder, "x")


def text_of(events: Iterable[Event], kind: type[Projection]) -> dict[str, str]:
    """The text by kind; in Anthropic's form, a refusal is text."""
    found: dict[str, str] = {}
    for event in events:
        if isinstance(event, TokenEvent) and event.text:
            name = "text" if kind is AnthropicProjection and event.kind == "refusal" else event.kind
            found[name] = found.get(name, "") + event.text
    return found


def calls_of(event: Any) -> list[tuple[str, str, Any]]:
    return [(call.id, call.name, call.arguments) for call in event.tool_calls if not call.is_server]


# --- any events -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROJECTIONS)
@given(events=ANY_EVENTS, cuts=CUTS, variant=st.sampled_from(VARIANTS), request=st.integers(0, len(REQUESTS) - 1))
def test_any_events_make_valid_frames_that_do_not_depend_on_cuts(
    kind: type[Projection], events: list[Event], cuts: list[int], variant: dict[str, str], request: int
) -> None:
    frames = frames_of(kind, events, request, variant)
    assert frames == frames_of(kind, events, request, variant)
    projection = kind(opened(REQUESTS[request], **variant))
    for event in events:
        projection.feed(event)
    assert is_valid_stream(sent(frames))
    merged = b"".join(joined(piece, projection) for piece in pieces_of(frames, cuts))
    assert is_valid_stream(merged)
    if not any(isinstance(event, StreamStarted) for event in events):  # it may name the model
        assert text_of(decoded(kind, merged), kind) == text_of(decoded(kind, sent(frames)), kind)
    for frame in frames:
        if frame.key is not None:
            assert frame.data == projection.delta(frame.key, frame.text, frame.seq, frame.number)


@pytest.mark.parametrize("kind", PROJECTIONS)
@given(events=ANY_EVENTS)
def test_nothing_follows_the_end_and_only_a_completed_answer_ends_well(
    kind: type[Projection], events: list[Event]
) -> None:
    body = sent(frames_of(kind, events))
    end = b"data: [DONE]" if kind is ChatProjection else b"event: message_stop"
    is_completed = any(isinstance(event, StreamCompleted) for event in events)
    assert body.count(end) <= is_completed
    errors = body.count(b'data: {"error":') + body.count(b"event: error\n")
    assert errors + body.count(end) <= 1
    if end in body:
        assert body.rstrip().split(b"\n\n")[-1].startswith(end)


# --- whole answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROJECTIONS)
@given(events=answers(), cuts=CUTS, variant=st.sampled_from(VARIANTS[:2] + VARIANTS[3:]))
def test_an_answer_is_read_back_as_it_was(
    kind: type[Projection], events: list[Event], cuts: list[int], variant: dict[str, str]
) -> None:
    frames = frames_of(kind, events, 1, variant)
    body = b"".join(joined(piece, kind(opened(REQUESTS[1], **variant))) for piece in pieces_of(frames, cuts))
    read = decoded(kind, body)
    source, copy = events[-1], read[-1]
    assert isinstance(source, StreamCompleted)
    assert isinstance(copy, StreamCompleted)
    assert text_of(read, kind) == text_of(events, kind)
    assert calls_of(copy) == calls_of(source)
    if kind is ChatProjection:
        assert copy.finish_reason == source.finish_reason
    if source.usage is not None and source.usage.input_tokens is not None and source.usage.output_tokens is not None:
        cached = source.usage.cached_tokens or 0
        taken = cached if kind is AnthropicProjection else 0
        assert copy.usage is not None
        assert copy.usage.input_tokens == max(0, source.usage.input_tokens - taken)
        assert copy.usage.output_tokens == source.usage.output_tokens
        assert copy.usage.cached_tokens == source.usage.cached_tokens


# --- recorded answers -------------------------------------------------------------------------------------------------


def _recordings() -> list[Any]:
    sides = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(CORPUS.glob("*/*.json"))]
    return [pytest.param(side, id=f"{side['api']}:{side['file'][-70:]}") for side in sides]


@pytest.mark.parametrize("facts", _recordings())
def test_a_recorded_answer_is_read_back_from_chat_completions(facts: dict[str, Any]) -> None:
    events = source_of(facts)
    body = sent(frames_of(ChatProjection, events))
    read = decoded(ChatProjection, body)
    source, copy = events[-1], read[-1]
    assert isinstance(source, (StreamCompleted, StreamFailed))
    assert isinstance(copy, (StreamCompleted, StreamFailed))
    assert type(copy) is type(source)
    assert text_of(read, ChatProjection) == text_of(events, ChatProjection)
    if not any(call.type == "custom" for call in source.tool_calls):  # the request tells which tools are of this kind
        assert calls_of(copy) == calls_of(source)
    signed = [call.signature for call in source.tool_calls if not call.is_server]
    assert isinstance(source, StreamFailed) or [call.signature for call in copy.tool_calls] == signed
    assert [(one.url, one.title, one.cited_text) for one in copy.citations] == [
        (one.url, one.title or None, one.cited_text or None) for one in source.citations
    ]
    assert [one.data for one in copy.media] == [one.data for one in source.media] or isinstance(source, StreamFailed)
    assert copy.logprobs == source.logprobs
    sealed = [block.signature for block in source.reasoning_blocks if block.signature]
    assert [block.signature for block in copy.reasoning_blocks] == sealed
    for name in ("system_fingerprint", "service_tier", "upstream_provider", "timings"):
        if isinstance(source, StreamCompleted) and (told := source.provider_metadata.get(name)) is not None:
            assert copy.provider_metadata[name] == told
    if isinstance(source, StreamCompleted) and isinstance(copy, StreamCompleted):
        words = {"refusal": "stop", "other": "stop"}
        expected = words.get(source.finish_reason, source.finish_reason)
        is_untold = source.raw_finish_reason is None and bool(calls_of(source))
        assert copy.finish_reason == ("tool_calls" if is_untold else expected)
        assert _counts(copy.usage) == _counts(source.usage, source)


_COUNTS = ("reasoning_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "service_tier")


def _counts(usage: Usage | None, source: StreamCompleted | None = None) -> dict[str, Any]:
    """The counts; those of a source as OpenAI counts, which includes what others count apart."""
    if usage is None:
        return {}
    counts = {name: getattr(usage, name) for name in Usage.__struct_fields__}
    if source is not None:
        dialect = known_provider(source.provider or "").dialect
        if dialect == "anthropic":
            counts["input_tokens"] += (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
        elif dialect == "gemini":
            counts["input_tokens"] += usage.tool_input_tokens or 0
            if usage.output_tokens is not None:
                counts["output_tokens"] += usage.reasoning_tokens or 0
        counts["service_tier"] = source.provider_metadata.get("service_tier") or usage.service_tier
        if counts["total_tokens"] is None and counts["output_tokens"] is not None:
            counts["total_tokens"] = counts["input_tokens"] + counts["output_tokens"]
    del counts["tool_input_tokens"]
    return {name: value for name, value in counts.items() if value is not None}


@pytest.mark.parametrize("facts", _recordings())
def test_a_recorded_answer_is_read_back_from_anthropics_messages(facts: dict[str, Any]) -> None:
    events = source_of(facts)
    body = sent(frames_of(AnthropicProjection, events))
    read = decoded(AnthropicProjection, body)
    source, copy = events[-1], read[-1]
    assert isinstance(source, (StreamCompleted, StreamFailed))
    assert isinstance(copy, (StreamCompleted, StreamFailed))
    assert type(copy) is type(source)
    assert text_of(read, AnthropicProjection) == text_of(events, AnthropicProjection)
    if not any(call.type == "custom" for call in source.tool_calls):
        assert calls_of(copy) == calls_of(source)
    assert [one.cited_text for one in copy.citations] == [one.cited_text or None for one in source.citations]
    sealed = [block for block in source.reasoning_blocks if block.signature or block.id]
    assert len(copy.reasoning_blocks) == len(sealed)
    if facts["api"] != "messages":
        return
    assert [(one.kind, one.text, one.signature) for one in copy.reasoning_blocks] == [
        (one.kind, one.text, one.signature) for one in sealed
    ]
    assert [(one.kind, one.url, one.title, one.location) for one in copy.citations] == [
        (one.kind, one.url, one.title, one.location) for one in source.citations
    ]
    shown = [(type(one), one.id, one.name) for one in source.server_tools]
    assert [(type(one), one.id, one.name) for one in copy.server_tools] == shown
    if isinstance(source, StreamCompleted) and isinstance(copy, StreamCompleted):
        assert (copy.finish_reason, copy.raw_finish_reason) == (source.finish_reason, source.raw_finish_reason)
        assert copy.usage == source.usage
        for name in ("container", "stop_sequence", "refusal_details", "context_management", "usage_details"):
            assert copy.provider_metadata.get(name) == source.provider_metadata.get(name)
        assert _told(copy) == _told(source)


def _told(event: StreamCompleted) -> list[Any]:
    """The blocks that go back, without the mark of a direct call, of which no event tells."""
    return [
        ({name: value for name, value in one.data.items() if name != "caller"}, one.at, one.calls)
        for one in event.provider_blocks
        if _is_told(one.data)
    ]


def _is_told(data: Any) -> bool:
    """Whether events say what a block holds; they do not for compacted history and programs' calls."""
    untold = ("compaction", "container", "container_upload", "fallback", "tool_use", "mcp_tool_use")
    return data["type"] not in untold


def test_every_chunk_of_an_answer_has_one_id_one_time_and_one_model() -> None:
    events = source_of(json.loads(next(CORPUS.glob("openai/*.json")).read_text(encoding="utf-8")))
    chunks = [chunk for chunk in datas(sent(frames_of(ChatProjection, events))) if chunk != "[DONE]"]
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-s1", 1_700_000_000, "m")
    }


def test_the_dialect_is_known_by_the_provider_or_by_the_messages_id() -> None:
    assert dialect_of(StreamCompleted(stream_id="s", seq=1, text="", provider="gemini")) == "gemini"
    told = StreamCompleted(stream_id="s", seq=1, text="", provider="mine", provider_metadata={"response_id": "msg_1"})
    assert dialect_of(told) == "anthropic"
