"""AG-UI 1.0: what each event becomes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events import (
    AnswerPart,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    StreamCompleted,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolExecutionStarted,
    ToolResult,
    Usage,
)
from penstock.events.envelope import Envelope
from penstock.gateway.problems import Problem
from penstock.gateway.projections.agui import AguiProjection, error_body
from penstock.gateway.projections.counts import token_counts
from penstock.gateway.projections.frames import Frame, joined
from tests.judges import cases
from tests.judges.cases import CASES, STREAM_ID, numbered, token
from tests.unit.gateway.reading import AguiReader, data_of, fed, opening, shapes
from tests.unit.gateway.strategies import streams

REQUEST = {"threadId": "t-1", "runId": "r-1", "messages": [{"id": "u1", "role": "user", "content": "Hi"}]}
STARTED = {"type": "RUN_STARTED", "threadId": "t-1", "runId": "r-1", "protocolVersion": "1.0"}
USAGE = [
    {
        "provider": "openai",
        "model": "m-1",
        "inputTokens": 11,
        "outputTokens": 7,
        "totalTokens": 18,
        "reasoningTokens": 2,
        "cachedInputTokens": 0,
    }
]


def shown(case: str, request: dict[str, Any] | None = None, **variant: str) -> list[Any]:
    return shapes(fed(AguiProjection(opening(request or REQUEST, **variant)), numbered(CASES[case]())))


def finished(**outcome: Any) -> dict[str, Any]:
    given = {"threadId": "t-1", "runId": "r-1", "outcome": {"type": "success"} | outcome, "usage": USAGE}
    return {"type": "RUN_FINISHED", **given}


def message_id(number: int) -> str:
    return f"msg_{STREAM_ID}_{number}"


def test_text_is_a_message() -> None:
    name = message_id(1)
    assert shown("text") == [
        STARTED,
        {"type": "TEXT_MESSAGE_START", "messageId": name, "role": "assistant"},
        *(
            {"type": "TEXT_MESSAGE_CONTENT", "messageId": name, "delta": text}
            for text in ("Hel", "lo ", "wörld", "\u2028!")
        ),
        {"type": "TEXT_MESSAGE_END", "messageId": name},
        finished(),
    ]


def test_times_are_those_of_the_events_in_milliseconds() -> None:
    projection = AguiProjection(opening(REQUEST))
    frames = fed(projection, numbered(CASES["text"]()))
    assert [event["timestamp"] % 100_000 for event in data_of(b"".join(frame.data for frame in frames))] == [
        *(260, 260, 260, 270, 280, 290, 300, 300),
    ]
    assert data_of(joined(frames[2:6], projection))[0]["timestamp"] % 100_000 == 290, "of the last piece"


def test_a_stream_that_was_opened_otherwise_has_ids_of_its_own() -> None:
    first = shapes(AguiProjection(opening()).feed(token("Hi")))[0]
    assert (first["threadId"], first["runId"]) == (STREAM_ID, STREAM_ID)
    child = shapes(AguiProjection(opening(REQUEST | {"parentRunId": "r-0"}, run="r-9")).feed(token("Hi")))[0]
    assert (child["runId"], child["parentRunId"]) == ("r-9", "r-0")


def test_reasoning_is_a_span_with_a_message_and_its_signature() -> None:
    name = message_id(1)
    metadata = {"penstock": {"kind": "thinking", "provider": "anthropic"}}
    assert shown("reasoning")[1:8] == [
        {"type": "REASONING_START", "messageId": name},
        {"type": "REASONING_MESSAGE_START", "messageId": name, "role": "reasoning"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": name, "delta": "Let me "},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": name, "delta": "think."},
        {"type": "REASONING_MESSAGE_END", "messageId": name, "metadata": metadata},
        {"type": "REASONING_END", "messageId": name},
        {"type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": name, "encryptedValue": "c2ln"},
    ]


def test_what_the_provider_needs_back_is_metadata_of_the_last_message() -> None:
    end = next(event for event in shown("reasoning") if event["type"] == "TEXT_MESSAGE_END")
    (block,) = end["metadata"]["penstock"]["providerBlocks"]
    assert block["data"] == {"type": "thinking", "thinking": "Let me think."}
    events = [*cases.pending()[:-1], cases.completed("Which?", provider_blocks=(cases.SEARCH_BLOCK,))]
    found = shapes(fed(AguiProjection(opening(REQUEST)), numbered(events)))
    assert [event["type"] for event in found[-3:]] == ["TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert found[-2]["messageId"] == message_id(1), "the message with the call, which is marked again"


def test_a_call_belongs_to_the_message_before_it() -> None:
    found = shown("rounds")
    assert found[5:9] == [
        {
            "type": "TOOL_CALL_START",
            "toolCallId": "call_0",
            "toolCallName": "weather",
            "parentMessageId": message_id(1),
        },
        {"type": "TOOL_CALL_ARGS", "toolCallId": "call_0", "delta": '{"city":'},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "call_0", "delta": '"Oslo"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "call_0"},
    ]


def test_progress_results_and_rounds() -> None:
    assert shown("rounds")[12:19] == [
        {
            "type": "ACTIVITY_SNAPSHOT",
            "messageId": f"progress_{STREAM_ID}_call_0",
            "activityType": "tool",
            "content": {"toolCallId": "call_0", "toolName": "weather", "progress": {"percent": 50}},
            "replace": True,
        },
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": message_id(2),
            "toolCallId": "call_0",
            "content": '{"degrees":3}',
            "role": "tool",
        },
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": message_id(3),
            "toolCallId": "call_1",
            "content": "TypeError: a is missing",
            "role": "tool",
            "metadata": {"status": "error"},
        },
        {"type": "STEP_FINISHED", "stepName": "round-1"},
        {"type": "STEP_STARTED", "stepName": "round-2"},
        {
            "type": "TOOL_CALL_START",
            "toolCallId": "call_0_2",
            "toolCallName": "weather",
            "parentMessageId": message_id(4),
        },
        {"type": "TOOL_CALL_ARGS", "toolCallId": "call_0_2", "delta": '{"city":"Rome"}'},
    ]


def test_a_signature_goes_back_with_its_call() -> None:
    signed = next(event for event in shown("rounds") if event["type"] == "REASONING_ENCRYPTED_VALUE")
    assert (signed["subtype"], signed["entityId"], signed["encryptedValue"]) == ("tool-call", "call_0_2", "sig")


def test_calls_for_the_application_are_pending() -> None:
    assert shown("pending")[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["call_9"]}
    assert shown("pending")[-1]["metadata"] == {"finishReason": "tool_calls"}


def test_arguments_that_are_no_json_have_a_result_that_says_so() -> None:
    found = shown("broken_arguments")
    assert found[-2]["type"] == "TOOL_CALL_RESULT"
    assert found[-2]["content"].startswith("The arguments are not complete JSON")
    assert found[-2]["metadata"] == {"status": "invalid_arguments"}
    assert "pendingToolCallIds" not in found[-1]["outcome"]


def test_arguments_that_break_off_with_the_answer_are_closed() -> None:
    events = numbered([*cases.pending()[:3], cases.completed(finish_reason="length")])
    found = shapes(fed(AguiProjection(opening(REQUEST)), events))
    assert [event["type"] for event in found[-3:]] == ["TOOL_CALL_END", "TOOL_CALL_RESULT", "RUN_FINISHED"]


def test_arguments_whose_pieces_were_folded_come_with_the_end() -> None:
    written = cases.call("c", "f", 0, ('{"a":', "1}"))
    projection = AguiProjection(opening(REQUEST))
    found = shapes(fed(projection, numbered([written[0], written[1], written[3]])))
    assert "".join(event["delta"] for event in found if event["type"] == "TOOL_CALL_ARGS") == '{"a":1}'


def test_an_approval_ends_the_run_with_an_interrupt() -> None:
    found = shown("approval")
    assert [event["type"] for event in found[-3:]] == ["TOOL_CALL_END", "STEP_FINISHED", "RUN_FINISHED"]
    (interrupt,) = found[-1]["outcome"]["interrupts"]
    assert interrupt == {
        "id": "call_5",
        "reason": "tool_call",
        "message": "Run delete_file?",
        "toolCallId": "call_5",
        "responseSchema": {
            "type": "object",
            "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
            "required": ["approved"],
        },
    }


def test_the_next_run_has_the_rest() -> None:
    events = numbered(cases.approval())
    first = fed(AguiProjection(opening(REQUEST)), events)
    second = AguiProjection(opening(REQUEST, run="r-2", **{"from": str(first[-1].seq)}))
    found = shapes(fed(second, events))
    assert found[:3] == [
        STARTED | {"runId": "r-2"},
        {"type": "STEP_STARTED", "stepName": "round-1"},
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": message_id(2),
            "toolCallId": "call_5",
            "content": "deleted",
            "role": "tool",
        },
    ]
    assert found[-1]["runId"] == "r-2"


def test_all_approvals_of_a_round_are_asked_for_at_once() -> None:
    calls = [ToolCall(id=name, name="f", arguments={}, arguments_raw="{}") for name in "ab"]
    events: list[Event] = [ToolCallCompleted(index=at, call=call) for at, call in enumerate(calls)]
    events += [ToolExecutionStarted(round=1, calls=tuple(calls))]
    events += [ToolApprovalRequested(call=call) for call in calls]
    projection = AguiProjection(opening(REQUEST))
    for event in numbered(events):
        projection.feed(event)
    (end,) = shapes(projection.caught_up())
    assert [one["id"] for one in end["outcome"]["interrupts"]] == ["a", "b"]
    assert projection.feed(ToolResult(call_id="a", name="f", seq=9)) == [], "nothing follows the end of a run"


def test_a_reset_before_any_text_is_silent() -> None:
    assert [event["type"] for event in shown("early_reset")] == [
        *("RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"),
    ]


def test_a_reset_closes_all_and_shows_the_messages_of_the_request() -> None:
    found = shown("reset")
    at = next(at for at, event in enumerate(found) if event["type"] == "MESSAGES_SNAPSHOT")
    assert [event["type"] for event in found[at - 2 : at]] == ["TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert found[at]["messages"] == REQUEST["messages"]
    assert found[at + 1] == {
        "type": "CUSTOM",
        "name": "penstock.reset",
        "value": {"reason": "the provider broke off"},
    }


def test_a_failure_is_an_error_of_the_run() -> None:
    assert shown("failed")[-2:] == [
        {"type": "TEXT_MESSAGE_END", "messageId": message_id(1)},
        {
            "type": "RUN_ERROR",
            "message": "The provider's stream stopped before its end.",
            "code": "stream_interrupted",
        },
    ]


def test_a_cancelled_run_is_cancelled() -> None:
    end = shown("cancelled")[-1]
    assert end == {
        "type": "RUN_FINISHED",
        "threadId": "t-1",
        "runId": "r-1",
        "outcome": {"type": "cancelled"},
        "metadata": {"reason": "user"},
    }


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "refusal", "other", "taken"])
def test_every_good_end_is_a_success(reason: Any) -> None:
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="", finish_reason=reason)
    found = shapes(fed(AguiProjection(opening(REQUEST)), numbered([end])))[-1]
    assert found["outcome"] == {"type": "success"}
    assert "usage" not in found, "what is not reported is absent"
    assert found.get("metadata") == (None if reason == "stop" else {"finishReason": reason})
    native = shapes(
        fed(AguiProjection(opening(REQUEST)), numbered([msgspec.structs.replace(end, raw_finish_reason="X")]))
    )
    told = {} if reason != "other" else {"finishReason": "other", "nativeFinishReason": "X"}
    assert native[-1].get("metadata") == (told or found.get("metadata"))


def test_sources_pictures_refusals_and_tools_of_the_provider() -> None:
    found = shown("extras")
    assert found[1:5] == [
        {"type": "TOOL_CALL_START", "toolCallId": "s1", "toolCallName": "web_search", "parentMessageId": message_id(1)},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "s1", "delta": '{"query":"x"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "s1", "metadata": {"server": True}},
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": message_id(2),
            "toolCallId": "s1",
            "content": '[{"url":"https://a.example"}]',
            "role": "tool",
            "metadata": {"server": True},
        },
    ]
    customs = [(event["name"], event["value"]) for event in found if event["type"] == "CUSTOM"]
    assert customs == [
        (
            "penstock.citation",
            {
                "kind": "url",
                "url": "https://a.example",
                "title": "A",
                "start": 0,
                "end": 4,
                "messageId": message_id(3),
            },
        ),
        (
            "penstock.citation",
            {
                "kind": "document",
                "title": "Report",
                "citedText": "one",
                "location": {"document_index": 0},
                "messageId": message_id(3),
            },
        ),
        ("penstock.media", {"kind": "image", "mimeType": "image/png", "data": "QUJD"}),
    ]
    refusal = next(event for event in found if event.get("metadata") == {"kind": "refusal"})
    assert refusal["type"] == "TEXT_MESSAGE_START"


def test_a_call_of_the_provider_without_a_result_is_not_the_applications() -> None:
    call = ToolCall(id="s", name="search", arguments={}, arguments_raw="{}", is_server=True)
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="")
    found = shapes(fed(AguiProjection(opening(REQUEST)), numbered([ToolCallCompleted(index=0, call=call), end])))
    assert [event["type"] for event in found[-2:]] == ["TOOL_CALL_RESULT", "RUN_FINISHED"]


def test_a_picture_is_shown_once_and_its_pieces_as_such() -> None:
    piece = MediaPart(kind="image", data="QQ==", is_partial=True)
    whole = MediaPart(kind="image", data="QUI=")
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="", media=(whole,))
    found = shapes(fed(AguiProjection(opening(REQUEST)), numbered([piece, whole, end])))
    values = [event["value"] for event in found if event["type"] == "CUSTOM"]
    assert values == [{"kind": "image", "data": "QQ==", "isPartial": True}, {"kind": "image", "data": "QUI="}]


def test_what_the_provider_sent_is_raw() -> None:
    raw = ProviderEvent(type="ping", payload={"type": "ping", "x": None})
    assert shapes(AguiProjection(opening(REQUEST)).feed(raw))[1:] == [
        {"type": "RAW", "event": {"type": "ping", "x": None}, "source": "provider"}
    ]
    assert shapes(AguiProjection(opening(REQUEST)).feed(Logprobs(tokens=())))[1:] == []


def test_events_that_are_added_later_are_custom() -> None:
    class StallHeard(Envelope, frozen=True, kw_only=True):
        seconds: float
        note: str | None = None

    event: Any = StallHeard(seq=1, seconds=2.5)
    assert shapes(AguiProjection(opening(REQUEST)).feed(event))[1:] == [
        {"type": "CUSTOM", "name": "penstock.stall_heard", "value": {"seconds": 2.5}}
    ]


def snapshot(seq: int, text: str, **fields: Any) -> StreamSnapshot:
    return StreamSnapshot(STREAM_ID, seq, (text,), text, "text", 0.0, {}, **fields)


def test_a_snapshot_is_one_piece_for_each_part() -> None:
    parts = (
        AnswerPart(index=0, kind="reasoning", start=0, end=4),
        AnswerPart(index=1, kind="text", start=0, end=3),
        AnswerPart(index=2, kind="text", start=3, end=7),
    )
    found = shapes(AguiProjection(opening(REQUEST)).feed(snapshot(9, "OneMore", reasoning="Hmm.", parts=parts)))
    assert [event["delta"] for event in found if "delta" in event] == ["Hmm.", "One", "More"]


def test_a_later_snapshot_adds_what_is_missing_or_resets() -> None:
    projection = AguiProjection(opening(REQUEST))
    fed(projection, numbered([token("Hel")]))
    parts = (AnswerPart(index=0, kind="text", start=0, end=5),)
    assert [event["delta"] for event in shapes(projection.feed(snapshot(7, "Hello", parts=parts)))] == ["lo"]
    found = shapes(projection.feed(snapshot(9, "Good", parts=parts)))
    assert [event["type"] for event in found] == [
        *("TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT", "CUSTOM", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"),
    ]


def test_a_reader_that_joins_gets_all_messages_and_what_is_open() -> None:
    projection = AguiProjection(opening(REQUEST))
    events = numbered([StreamStarted(model="m"), token("Hm", "reasoning"), *map(token, ("Hel", "lo "))])
    fed(projection, events)
    assert shapes(projection.prelude()) == [
        STARTED,
        {"type": "STEP_STARTED", "stepName": "round-1"},
        {
            "type": "MESSAGES_SNAPSHOT",
            "messages": [
                *REQUEST["messages"],
                {"id": message_id(1), "role": "reasoning", "content": "Hm"},
                {"id": message_id(2), "role": "assistant", "content": "Hello "},
            ],
        },
        {"type": "TEXT_MESSAGE_START", "messageId": message_id(2), "role": "assistant"},
    ]


def test_a_reader_that_joins_after_the_end_gets_the_end() -> None:
    projection = AguiProjection(opening(REQUEST))
    fed(projection, numbered(CASES["rounds"]()))
    assert [event["type"] for event in shapes(projection.prelude())] == [
        *("RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"),
    ]


def test_a_reader_that_joins_before_the_first_event_gets_nothing_yet() -> None:
    assert AguiProjection(opening(REQUEST)).prelude() == []


def test_cut_and_refused_requests_are_errors() -> None:
    problem = Problem(status=400, type="invalid_request_error", code="too_slow", message="Too slow.", param="x")
    assert data_of(AguiProjection(opening(REQUEST)).cut(problem)) == [
        {"type": "RUN_ERROR", "message": "Too slow.", "code": "too_slow"}
    ]
    assert error_body(problem) == {
        "message": "Too slow.",
        "code": "too_slow",
        "type": "invalid_request_error",
        "param": "x",
    }


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("openai", {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}),
        ("anthropic", {"inputTokens": 15, "outputTokens": 5, "totalTokens": 20}),
        ("gemini", {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}),
        (None, {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}),
    ],
)
def test_counts_are_inclusive_for_every_provider(provider: str | None, expected: dict[str, int]) -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        reasoning_tokens=2,
        cached_tokens=3,
        cache_write_tokens=2,
        tool_input_tokens=1,
        total_tokens=99,
    )
    end = StreamCompleted(stream_id="s", seq=1, text="", provider=provider)
    counts = token_counts(msgspec.structs.replace(end, usage=usage))
    assert {name: counts[name] for name in expected} == expected
    assert token_counts(msgspec.structs.replace(end, usage=Usage(total_tokens=4))) == {"totalTokens": 4}


# --- whatever comes --------------------------------------------------------------------------------------------------


def messages_of(frames: list[Frame], projection: AguiProjection, cuts: list[int]) -> tuple[Any, ...]:
    """What an application has of frames that are sent in pieces, each joined."""
    reader = AguiReader(REQUEST["messages"])  # type: ignore[arg-type]
    edges = sorted({0, *(cut % (len(frames) + 1) for cut in cuts), len(frames)})
    for start, end in pairwise(edges):
        reader.read(joined(frames[start:end], projection))
    return reader.messages, reader.customs, reader.state, reader.end


@given(streams(), st.lists(st.integers(0, 200), max_size=6))
def test_any_stream_makes_events_that_a_client_takes_however_they_are_joined(
    events: list[Event], cuts: list[int]
) -> None:
    projection = AguiProjection(opening(REQUEST))
    frames = fed(projection, events)
    assert [frame.seq for frame in frames] == sorted(frame.seq for frame in frames)
    again = AguiProjection(opening(REQUEST))
    assert fed(again, events) == frames, "the same events make the same frames"
    whole = messages_of(frames, projection, list(range(len(frames))))
    assert whole[2] == "over", "every run comes to its end"
    assert messages_of(frames, again, cuts) == whole
    for frame in frames:
        if frame.key is not None:
            assert frame.data == again.delta(frame.key, frame.text, frame.seq, frame.number)


@given(streams(), st.integers(1, 16))
def test_a_reader_that_joins_at_any_event_has_the_same_messages(events: list[Event], joins_after: int) -> None:
    projection = AguiProjection(opening(REQUEST))
    before = fed(projection, events[:joins_after])
    prelude = projection.prelude()
    tail = fed(projection, events[joins_after:])
    whole, late = AguiReader(REQUEST["messages"]), AguiReader()  # type: ignore[arg-type]
    for reader, frames in ((whole, [*before, *tail]), (late, [*prelude, *tail])):
        for frame in frames:
            reader.read(frame.data)
    assert _without_empty(late.messages) == _without_empty(whole.messages)
    assert (late.state, late.end) == (whole.state, whole.end)


def _without_empty(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message without text has an empty one, or none, as it was begun."""
    return [{name: value for name, value in message.items() if value != ""} for message in messages]


@given(streams(), st.integers(0, 15))
def test_the_rest_after_any_event_is_a_run_of_its_own(events: list[Event], after: int) -> None:
    whole = AguiProjection(opening(REQUEST))
    reader = AguiReader(REQUEST["messages"])  # type: ignore[arg-type]
    for event in events[:after]:
        for frame in whole.feed(event):
            reader.read(frame.data)
    if any(reader.open[kind] for kind in ("text", "call", "thought")) or reader.state == "over":
        return  # no run ends in the middle of a message, or after its end
    second = AguiProjection(opening(REQUEST, run="r-2", **{"from": str(after)}))
    later = AguiReader(reader.messages)
    for frame in fed(second, events):
        later.read(frame.data)
    assert later.state == "over"


def test_stream_reset_twice_shows_one_snapshot() -> None:
    again = StreamReset(STREAM_ID, 0, "x", 0.0, {})
    found = shapes(fed(AguiProjection(opening(REQUEST)), numbered([token("a"), again, again])))
    assert [event["type"] for event in found].count("MESSAGES_SNAPSHOT") == 1
