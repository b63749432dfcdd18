"""Vercel's UI message stream: what each event becomes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.events import (
    AnswerPart,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    StreamCompleted,
    StreamReset,
    StreamSnapshot,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.events.envelope import Envelope
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import Frame, joined
from penstock.gateway.projections.ui import UiProjection, error_text, read_variant
from tests.judges import cases
from tests.judges.cases import CASES, STREAM_ID, numbered, token
from tests.unit.gateway.reading import UiReader, data_of, fed, opening, shapes
from tests.unit.gateway.strategies import streams

START = [{"type": "start", "messageId": f"msg_{STREAM_ID}"}, {"type": "start-step"}]
METADATA = {
    "model": "m-1",
    "provider": "openai",
    "usage": {
        "inputTokens": 11,
        "outputTokens": 7,
        "totalTokens": 18,
        "reasoningTokens": 2,
        "cachedInputTokens": 0,
    },
}


def shown(case: str, request: dict[str, Any] | None = None, **variant: str) -> list[Any]:
    return shapes(fed(UiProjection(opening(request, **variant)), numbered(CASES[case]())))


def finish(reason: str, **others: Any) -> list[Any]:
    given = {"finishReason": reason, "messageMetadata": METADATA | others}
    return [{"type": "finish-step"}, {"type": "finish", **given}, "[DONE]"]


def test_text_is_one_part_in_one_step() -> None:
    assert shown("text") == [
        *START,
        {"type": "text-start", "id": "text-1"},
        *({"type": "text-delta", "id": "text-1", "delta": text} for text in ("Hel", "lo ", "wörld", "\u2028!")),
        {"type": "text-end", "id": "text-1"},
        *finish("stop"),
    ]


def test_pieces_of_a_part_are_joined_and_nothing_else() -> None:
    projection = UiProjection(opening())
    frames = fed(projection, numbered([token("a", "reasoning"), token("b"), token("c"), token("d", part=1)]))
    assert [chunk.get("delta") for chunk in data_of(joined(frames, projection)) if "delta" in chunk] == ["a", "bc", "d"]


def test_reasoning_ends_with_its_signature() -> None:
    metadata = {"kind": "thinking", "signature": "c2ln", "provider": "anthropic"}
    assert shown("reasoning")[2:9] == [
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Let me "},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "think."},
        {"type": "reasoning-end", "id": "reasoning-1", "providerMetadata": {"penstock": metadata}},
        {"type": "reasoning-start", "id": "reasoning-2"},
        {
            "type": "reasoning-end",
            "id": "reasoning-2",
            "providerMetadata": {"penstock": metadata | {"kind": "redacted_thinking", "signature": "cmVk"}},
        },
        {"type": "text-start", "id": "text-3"},
    ]


def test_what_the_provider_needs_back_is_a_part_of_the_step() -> None:
    data = [{"provider": "anthropic", "data": {"type": "thinking", "thinking": "Let me think."}, "at": 0, "calls": 0}]
    assert shown("reasoning")[-4] == {"type": "data-penstock-blocks", "data": data}


def test_a_signature_of_the_text_leaves_the_text_open() -> None:
    block = ReasoningBlockClosed(index=0, kind="thought", signature="s")
    found = shapes(fed(UiProjection(opening()), numbered([token("Hi"), block, token("!")])))
    assert [chunk["type"] for chunk in found[2:]] == [
        *("text-start", "text-delta", "reasoning-start", "reasoning-end", "text-delta"),
    ]


def test_a_phase_is_told_with_its_part() -> None:
    event = numbered([token("Hi")])[0]
    commentary = type(token("Hi"))(STREAM_ID, 1, ("Hi",), "Hi", "text", 0.0, {}, 0, 0, "commentary")
    assert shapes(UiProjection(opening()).feed(event))[2] == {"type": "text-start", "id": "text-1"}
    assert shapes(UiProjection(opening()).feed(commentary))[2] == {
        "type": "text-start",
        "id": "text-1",
        "providerMetadata": {"penstock": {"phase": "commentary"}},
    }


def test_calls_and_results_of_each_round_are_a_step() -> None:
    assert shown("rounds")[5:17] == [
        {"type": "tool-input-start", "toolCallId": "call_0", "toolName": "weather"},
        {"type": "tool-input-delta", "toolCallId": "call_0", "inputTextDelta": '{"city":'},
        {"type": "tool-input-delta", "toolCallId": "call_0", "inputTextDelta": '"Oslo"}'},
        {"type": "tool-input-available", "toolCallId": "call_0", "toolName": "weather", "input": {"city": "Oslo"}},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "add"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": "{}"},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "add", "input": {}},
        {"type": "tool-output-available", "toolCallId": "call_0", "output": {"percent": 50}, "preliminary": True},
        {"type": "tool-output-available", "toolCallId": "call_0", "output": {"degrees": 3}},
        {"type": "tool-output-error", "toolCallId": "call_1", "errorText": "TypeError: a is missing"},
        {"type": "finish-step"},
        {"type": "start-step"},
    ]


def test_an_id_that_the_provider_repeats_gets_a_number() -> None:
    found = shown("rounds")
    assert {chunk["toolCallId"] for chunk in found if "toolCallId" in chunk} == {"call_0", "call_1", "call_0_2"}
    parts = [{"type": "tool-x", "toolCallId": "call_0"}]
    again = shown("rounds", {"messages": [{"role": "assistant", "parts": parts}, {"role": "user", "parts": []}]})
    assert {chunk["toolCallId"] for chunk in again if "toolCallId" in chunk} == {"call_0_2", "call_1", "call_0_3"}


def test_dynamic_marks_every_chunk_that_describes_a_call() -> None:
    calls = [chunk for chunk in shown("rounds", dynamic="1") if "toolCallId" in chunk]
    assert all(chunk.get("dynamic") is True for chunk in calls if chunk["type"] != "tool-input-delta")


def test_a_signature_goes_back_with_its_call() -> None:
    call = next(chunk for chunk in shown("rounds") if chunk.get("providerMetadata"))
    assert call["providerMetadata"] == {"penstock": {"signature": "sig"}}


def test_arguments_that_are_no_json_are_an_error() -> None:
    call = shown("broken_arguments")[4]
    assert (call["type"], call["input"]) == ("tool-input-error", '{"a": ')
    assert call["errorText"].startswith("The arguments are not complete JSON")


def test_arguments_that_break_off_with_the_answer_are_an_error() -> None:
    events = numbered([*cases.pending()[:3], cases.failed()[-1]])
    found = shapes(fed(UiProjection(opening()), events))
    assert [chunk["type"] for chunk in found[-4:-1]] == ["tool-input-error", "error", "finish"]


def test_results_that_are_no_json_stay_text() -> None:
    outputs = []
    for content in ('{"a":1}', "[1]", "12", "{broken", ""):
        result = ToolResult(call_id="x", name="f", content=content)
        outputs.append(shapes(fed(UiProjection(opening()), numbered([result])))[3]["output"])
    assert outputs == [{"a": 1}, [1], "12", "{broken", ""]


def test_an_approval_ends_the_answer_where_the_client_can_decide() -> None:
    for version in ("6", "7"):
        assert shown("approval", v=version)[-4:] == [
            {"type": "tool-approval-request", "approvalId": "call_5", "toolCallId": "call_5"},
            {"type": "finish-step"},
            {"type": "finish", "finishReason": "tool-calls"},
            "[DONE]",
        ]
    waiting = shown("approval", v="7", approval="wait")
    assert waiting[-1] == "[DONE]"
    assert {"type": "tool-output-available", "toolCallId": "call_5", "output": "deleted"} in waiting


def test_the_rest_comes_after_the_decision_in_the_same_message() -> None:
    first = UiProjection(opening())
    events = numbered(cases.approval())
    frames = fed(first, events)
    second = fed(UiProjection(opening(**{"from": str(frames[-1].seq)})), events)
    assert shapes(second)[:5] == [
        *START,
        {"type": "tool-output-available", "toolCallId": "call_5", "output": "deleted"},
        {"type": "finish-step"},
        {"type": "start-step"},
    ]


def test_all_approvals_of_a_round_are_asked_for_at_once() -> None:
    calls = [ToolCall(id=name, name="f", arguments={}, arguments_raw="{}") for name in "abc"]
    events: list[Event] = [ToolCallCompleted(index=at, call=call) for at, call in enumerate(calls)]
    events += [ToolExecutionStarted(round=1, calls=tuple(calls))]
    events += [ToolApprovalRequested(call=call) for call in calls[1:]]
    events += [ToolResult(call_id="a", name="f", content="1")]
    projection = UiProjection(opening())
    for event in numbered(events)[:-1]:
        projection.feed(event)
    assert projection.caught_up() == [], "the result of the first call needs no decision"
    assert not projection.is_over
    projection.feed(numbered(events)[-1])
    assert shapes(projection.caught_up())[-2]["finishReason"] == "tool-calls"


@pytest.mark.parametrize("version", ["5.0", "5"])
def test_versions_without_approvals_stay_open(version: str) -> None:
    found = shown("denied", v=version)
    assert found[-1] == "[DONE]"
    assert {"type": "tool-output-error", "toolCallId": "call_5"}.items() <= next(
        chunk.items() for chunk in found if chunk["type"] == "tool-output-error"
    )


def test_a_denied_call_is_denied() -> None:
    assert {"type": "tool-output-denied", "toolCallId": "call_5"} in shown("denied", approval="wait")


def test_a_reset_before_any_text_is_silent() -> None:
    assert shown("early_reset") == [
        *START,
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Good."},
        {"type": "text-end", "id": "text-1"},
        *finish("stop"),
    ]


def test_a_reset_drops_the_step_where_the_client_can() -> None:
    found = shown("reset", v="7")
    at = found.index({"type": "reset-step"})
    assert found[at + 1] == {"type": "text-start", "id": "text-3"}
    assert found[at - 1]["type"] == "tool-input-delta"


def test_a_reset_is_a_part_where_the_client_cannot_take_text_back() -> None:
    found = shown("reset", v="6")
    at = found.index({"type": "data-penstock-reset", "data": {"reason": "the provider broke off"}})
    assert found[at - 1]["type"] == "tool-input-error"
    assert found[at + 1]["type"] == "text-start"
    assert not any(chunk["type"] == "reset-step" for chunk in found[:-1])


def test_a_reset_can_be_an_error() -> None:
    found = shown("reset", v="5", reset="error")
    assert found[-3:] == [
        {"type": "error", "errorText": "The answer has begun again."},
        {"type": "finish", "finishReason": "error"},
        "[DONE]",
    ]


def test_a_failure_is_no_clean_end() -> None:
    message = "The provider's stream stopped before its end."
    assert shown("failed")[-4:] == [
        {"type": "text-end", "id": "text-1"},
        {"type": "error", "errorText": message},
        {"type": "finish", "finishReason": "error"},
        "[DONE]",
    ]
    assert shown("failed", v="5.0")[-2:] == [{"type": "error", "errorText": message}, "[DONE]"]


def test_a_failure_before_the_first_event_has_no_step() -> None:
    events = numbered(cases.failed()[-1:])
    assert [chunk["type"] for chunk in shapes(fed(UiProjection(opening()), events))[:2]] == ["start", "error"]


def test_a_cancelled_stream_is_aborted() -> None:
    assert shown("cancelled")[-2:] == [{"type": "abort", "reason": "user"}, "[DONE]"]
    assert shown("cancelled", v="5.0")[-2:] == [{"type": "abort"}, "[DONE]"]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        *(("stop", "stop"), ("length", "length"), ("tool_calls", "tool-calls"), ("content_filter", "content-filter")),
        *(("refusal", "content-filter"), ("other", "other"), ("taken", "stop")),
    ],
)
def test_finish_reasons(reason: Any, word: str) -> None:
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="", finish_reason=reason)
    assert shapes(fed(UiProjection(opening()), numbered([end])))[-2]["finishReason"] == word
    strict = shapes(fed(UiProjection(opening(v="5.0")), numbered([end])))
    metadata = {} if word in ("stop", "tool-calls") else {"messageMetadata": {"finishReason": word}}
    assert strict[-2] == {"type": "finish", **metadata}, "5.0.53 refuses the field"


def test_an_unknown_reason_is_told_in_the_providers_word() -> None:
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="", finish_reason="other", raw_finish_reason="OTHER")
    found = shapes(fed(UiProjection(opening()), numbered([end])))[-2]
    assert found == {"type": "finish", "finishReason": "other", "messageMetadata": {"nativeFinishReason": "OTHER"}}


def test_sources_pictures_refusals_and_tools_of_the_provider() -> None:
    found = shown("extras")
    assert found[2:4] == [
        {
            "type": "tool-input-available",
            "toolCallId": "s1",
            "toolName": "web_search",
            "input": {"query": "x"},
            "providerExecuted": True,
        },
        {
            "type": "tool-output-available",
            "toolCallId": "s1",
            "output": [{"url": "https://a.example"}],
            "providerExecuted": True,
        },
    ]
    assert found[6:9] == [
        {
            "type": "source-url",
            "sourceId": "source-2",
            "url": "https://a.example",
            "title": "A",
            "providerMetadata": {"penstock": {"start": 0, "end": 4}},
        },
        {
            "type": "source-document",
            "sourceId": "source-3",
            "mediaType": "text/plain",
            "title": "Report",
            "providerMetadata": {"penstock": {"citedText": "one", "location": {"document_index": 0}}},
        },
        {"type": "file", "url": "data:image/png;base64,QUJD", "mediaType": "image/png"},
    ]
    assert found[12] == {"type": "text-end", "id": "text-4", "providerMetadata": {"penstock": {"kind": "refusal"}}}
    assert found[13] == {"type": "data-refusal", "data": {"text": "No."}}


def test_a_whole_picture_is_shown_once_and_pieces_never() -> None:
    piece = MediaPart(kind="audio", data="QQ==", is_partial=True)
    whole = MediaPart(kind="audio", data="QUI=")
    end = StreamCompleted(stream_id=STREAM_ID, seq=0, text="", media=(whole,))
    orders: list[list[Event]] = [[piece, whole, end], [piece, end]]
    for events in orders:
        found = shapes(fed(UiProjection(opening()), numbered(events)))
        files = [chunk for chunk in found[:-1] if chunk["type"] == "file"]
        assert files == [{"type": "file", "url": "data:audio/wav;base64,QUI=", "mediaType": "audio/wav"}]


def test_what_the_provider_sent_is_shown_on_request() -> None:
    raw = ProviderEvent(type="ping", payload={"x": None})
    assert shapes(UiProjection(opening(raw="1")).feed(raw))[2:] == [
        {"type": "data-penstock-raw", "data": {"type": "ping", "payload": {"x": None}}, "transient": True}
    ]
    assert shapes(UiProjection(opening()).feed(raw))[2:] == []
    assert shapes(UiProjection(opening()).feed(Logprobs(tokens=())))[2:] == []


def test_events_that_are_added_later_are_transient_parts() -> None:
    class StallSeen(Envelope, frozen=True, kw_only=True):
        seconds: float

    event: Any = StallSeen(seq=1, seconds=2.5)
    assert shapes(UiProjection(opening()).feed(event))[2:] == [
        {"type": "data-penstock-stall-seen", "data": {"seconds": 2.5}, "transient": True}
    ]


def snapshot(seq: int, text: str, **fields: Any) -> StreamSnapshot:
    return StreamSnapshot(STREAM_ID, seq, (text,), text, "text", 0.0, {}, **fields)


def test_a_snapshot_is_one_delta_for_each_part() -> None:
    parts = (
        AnswerPart(index=0, kind="reasoning", start=0, end=4),
        AnswerPart(index=1, kind="text", start=0, end=3),
        AnswerPart(index=2, kind="text", start=3, end=7),
    )
    event = snapshot(9, "OneMore", reasoning="Hmm.", parts=parts)
    found = shapes(UiProjection(opening()).feed(event))
    assert [chunk.get("delta") for chunk in found if "delta" in chunk] == ["Hmm.", "One", "More"]
    assert [chunk["type"] for chunk in found[2:5]] == ["reasoning-start", "reasoning-delta", "reasoning-end"]


def test_a_snapshot_of_rounds_has_the_calls_before_the_last_part() -> None:
    call = ToolCall(id="a", name="f", arguments={}, arguments_raw="{}")
    result = ToolResult(call_id="a", name="f", content="1", seq=5)
    parts = (AnswerPart(index=0, kind="text", start=0, end=3), AnswerPart(index=1, kind="text", start=3, end=7))
    event = snapshot(9, "OneMore", parts=parts, tool_calls=(call,), tool_results=(result,))
    frames = UiProjection(opening()).feed(event)
    assert [chunk["type"] for chunk in shapes(frames)[2:]] == [
        *("text-start", "text-delta", "text-end", "tool-input-available", "tool-output-available"),
        *("finish-step", "start-step", "text-start", "text-delta"),
    ]
    assert {frame.seq for frame in frames} == {9}


def test_a_later_snapshot_adds_what_is_missing() -> None:
    projection = UiProjection(opening())
    fed(projection, numbered([token("Hel")]))
    parts = (AnswerPart(index=0, kind="text", start=0, end=5),)
    assert shapes(projection.feed(snapshot(7, "Hello", parts=parts))) == [
        {"type": "text-delta", "id": "text-1", "delta": "lo"}
    ]


def test_a_later_snapshot_of_another_answer_resets() -> None:
    projection = UiProjection(opening(v="7"))
    fed(projection, numbered([token("Hel")]))
    found = shapes(projection.feed(snapshot(7, "Good")))
    assert found[0] == {"type": "reset-step"}
    assert found[-1]["delta"] == "Good"


def test_a_result_continues_the_message_of_the_client() -> None:
    messages = [{"id": "m-7", "role": "assistant", "parts": [{"type": "text"}, {"type": "tool-x", "toolCallId": "c"}]}]
    found = shown("text", {"messages": messages})
    assert found[0] == {"type": "start", "messageId": "m-7"}
    assert found[2] == {"type": "text-start", "id": "text-3"}, "ids of parts are not used twice in a message"


def test_cut_is_an_error_without_an_end() -> None:
    problem = Problem(status=200, type="server_error", code="too_slow", message="Too slow.")
    assert data_of(UiProjection(opening()).cut(problem)) == [{"type": "error", "errorText": "Too slow."}]
    assert error_text(problem) == "Too slow."


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(RequestRefused) as raised:
        UiProjection(opening(v="4"))
    assert raised.value.problem.param == "v"


def test_the_variant_is_in_the_header_or_the_query() -> None:
    assert read_variant("", {}) == {}
    assert read_variant("7; dynamic=1; x=2", {"v": "5", "after": "0"}) == {"v": "5", "dynamic": "1"}


# --- whatever comes --------------------------------------------------------------------------------------------------


def parts_of(frames: list[Frame], projection: UiProjection, cuts: list[int]) -> tuple[Any, ...]:
    """What a client has of frames that are sent in pieces, each joined."""
    reader = UiReader()
    edges = sorted({0, *(cut % (len(frames) + 1) for cut in cuts), len(frames)})
    for start, end in pairwise(edges):
        reader.read(joined(frames[start:end], projection))
    return reader.parts, reader.calls, reader.transient, reader.error, reader.is_done


@given(streams(), st.sampled_from(["5.0", "5", "6", "7"]), st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_any_stream_makes_chunks_that_a_client_takes_however_they_are_joined(
    events: list[Event], version: str, cuts: list[int], waits: bool
) -> None:
    variant = {"v": version, "raw": "1", "reset": "error" if waits else "", "approval": "wait" if waits else ""}
    projection = UiProjection(opening(**variant))
    frames = fed(projection, events)
    assert [frame.seq for frame in frames] == sorted(frame.seq for frame in frames)
    again = UiProjection(opening(**variant))
    assert fed(again, events) == frames, "the same events make the same frames"
    whole = parts_of(frames, projection, list(range(len(frames))))
    assert whole[-1], "every stream comes to the protocol's end"
    assert parts_of(frames, again, cuts) == whole
    for frame in frames:
        if frame.key is not None:
            assert frame.data == again.delta(frame.key, frame.text, frame.seq, frame.number)


@given(streams(), st.integers(0, 15))
def test_the_rest_after_any_event_is_a_stream_of_its_own(events: list[Event], after: int) -> None:
    projection = UiProjection(opening(v="7", approval="wait", **{"from": str(after)}))
    reader = UiReader(*(f"{name}{number}" for name in ("a", "b", 'c"\n') for number in ("", "_2", "_3", "_4", "_5")))
    reader.calls = {name: {"written": ""} for name in reader.calls}
    frames = fed(projection, events)
    kept = [frame for frame in frames if not frame.data.startswith((b'data: {"type":"tool-input',))]
    text = [chunk for chunk in data_of(b"".join(frame.data for frame in kept)) if chunk != "[DONE]"]
    assert text[0]["type"] == "start"
    assert frames[-1].data == b"data: [DONE]\n\n"
    assert all(frame.seq > after or frame.seq == events[-1].seq for frame in frames)


def test_stream_reset_after_only_a_source_drops_it() -> None:
    events = numbered([*cases.extras()[:2], StreamReset(STREAM_ID, 0, "x", 0.0, {}), token("Good.")])
    found = shapes(fed(UiProjection(opening(v="7")), events))
    assert [chunk["type"] for chunk in found[4:]] == ["reset-step", "text-start", "text-delta"]


def test_a_lone_surrogate_does_not_end_the_stream() -> None:
    found = shapes(fed(UiProjection(opening()), numbered([token("a\ud83d"), *cases.call("c", "f\udc00", 0, ("{}",))])))
    assert found[3]["delta"] == "a\ufffd"
    assert found[5]["toolName"] == "f\ufffd"
