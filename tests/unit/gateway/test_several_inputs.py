"""Streams that are made from several, and events about a stream itself, in every protocol."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import (
    IncompleteStream,
    MergeError,
    PenstockError,
    RaceError,
    RunawayAnswer,
    SourceError,
    StreamTimeout,
    TeeError,
    TransformError,
)
from penstock.events import (
    AnswerPart,
    Citation,
    Event,
    LoopDetected,
    MediaPart,
    OriginEnded,
    Progress,
    StallDetected,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolResult,
)
from penstock.gateway.answers import anthropic, chat
from penstock.gateway.problems import problem_of
from penstock.gateway.projections.agui import AguiProjection
from penstock.gateway.projections.anthropic import AnthropicProjection
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.projections.frames import Frame, Projection, joined
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.gateway.projections.socket import SocketProjection
from penstock.gateway.projections.ui import UiProjection
from tests.judges.cases import STREAM_ID, numbered
from tests.unit.gateway.reading import AguiReader, UiReader, fed, opening, shapes

FAILED = StreamFailed(stream_id="st-other", seq=4, partial="x", error=IncompleteStream("sk-secret: cut"))
NOTICES: list[Any] = [
    Progress(message="half", position=1.0, total=2.0, unit="lines"),
    StallDetected(seconds=2.5, limit=2.0),
    LoopDetected(kind="text", period=3, repeats=8, start=0),
    OriginEnded(origin="a", outcome=FAILED),
]
FOREIGN: list[type[Projection]] = [ChatProjection, AnthropicProjection, ResponsesProjection]


def say(text: str, origin: str | None = None, kind: TokenKind = "text") -> TokenEvent:
    return TokenEvent(STREAM_ID, 0, (text,), text, kind, 0.0, {}, origin=origin)


def void(origin: str | None = None) -> StreamReset:
    return StreamReset(STREAM_ID, 0, "it broke off", 0.0, {}, origin)


def done(text: str = "", **fields: Any) -> StreamCompleted:
    return StreamCompleted(stream_id=STREAM_ID, seq=0, text=text, **fields)


def folded(text: str, *parts: AnswerPart, **fields: Any) -> StreamSnapshot:
    return StreamSnapshot(STREAM_ID, 0, (text,), text, "text", 0.0, {}, parts=parts, **fields)


def part(start: int, end: int, origin: str) -> AnswerPart:
    return AnswerPart(index=0, kind="text", start=start, end=end, origin=origin)


def native(frames: list[Frame]) -> list[dict[str, Any]]:
    """The data of frames of the native protocol, with the names of the events."""
    found = []
    for frame in frames:
        fields = dict(line.split(": ", 1) for line in frame.data.decode().strip().split("\n"))
        found.append({"event": fields["event"], **json.loads(fields["data"])})
    return found


# --- events about the stream itself ----------------------------------------------------------------------------------


def test_native_has_them_whole_and_of_errors_only_what_clients_may_see() -> None:
    found = native(fed(NativeProjection(opening()), numbered(NOTICES)))
    assert [event["event"] for event in found] == ["progress", "stall_detected", "loop_detected", "origin_ended"]
    assert found[0] | {"timestamp": 0} == {
        "event": "progress",
        "type": "Progress",
        "seq": 1,
        "timestamp": 0,
        "message": "half",
        "position": 1.0,
        "total": 2.0,
        "unit": "lines",
    }
    assert (found[1]["seconds"], found[1]["limit"], found[2]["period"]) == (2.5, 2.0, 3)
    assert found[3]["origin"] == "a"
    outcome = found[3]["outcome"]
    assert (outcome["type"], outcome["partial"], outcome["error"]["code"]) == (
        "StreamFailed",
        "x",
        "stream_interrupted",
    )
    assert "sk-secret" not in str(found)
    assert "st-other" not in str(found)


def test_a_socket_has_the_same() -> None:
    frames = fed(SocketProjection(opening()), numbered(NOTICES))
    found = [json.loads(frame.data.removesuffix(b",")) for frame in frames]
    assert [event["type"] for event in found] == ["progress", "stall_detected", "loop_detected", "origin_ended"]
    assert found[3]["outcome"]["error"]["code"] == "stream_interrupted"
    assert "sk-secret" not in str(found)


@pytest.mark.parametrize("made", [NativeProjection, SocketProjection])
def test_a_snapshot_has_those_that_are_kept(made: type[Projection]) -> None:
    snapshot = folded("x", notices=(*NOTICES[2:],), answer_events=(Citation(kind="url", url="https://a.example"),))
    (frame,) = made(opening()).feed(snapshot)
    assert b"sk-secret" not in frame.data
    data = frame.data.decode()
    found = json.loads(data[data.index("data: ") + 6 :] if made is NativeProjection else data.removesuffix(","))
    assert [notice["type"] for notice in found["notices"]] == ["LoopDetected", "OriginEnded"]
    assert found["notices"][1]["outcome"]["error"]["code"] == "stream_interrupted"
    assert found["answer_events"][0]["type"] == "Citation"


@pytest.mark.parametrize("made", [NativeProjection, SocketProjection])
def test_the_short_form_leaves_them_out(made: type[Projection]) -> None:
    assert fed(made(opening(events="simple")), numbered(NOTICES)) == []


@pytest.mark.parametrize("made", FOREIGN)
def test_protocols_without_a_word_for_them_leave_them_out(made: type[Projection]) -> None:
    told = [say("Hi"), *NOTICES, done("Hi")]
    with_them, without = (fed(made(opening()), numbered(events)) for events in (told, [told[0], told[-1]]))
    assert [frame.data for frame in with_them] == [frame.data for frame in without]


def test_chat_completions_have_them_if_the_reader_wants_them() -> None:
    frames = fed(ChatProjection(opening(extras="penstock")), numbered(NOTICES))
    found = [chunk["choices"][0]["delta"]["penstock"] for chunk in shapes(frames)[1:]]
    assert found == [
        {"type": "progress", "message": "half", "position": 1.0, "total": 2.0, "unit": "lines"},
        {"type": "stall_detected", "seconds": 2.5, "limit": 2.0},
        {"type": "loop_detected", "kind": "text", "period": 3, "repeats": 8, "start": 0},
        {
            "type": "origin_ended",
            "origin": "a",
            "outcome": {"type": "StreamFailed", "error": found[3]["outcome"]["error"]},
        },
    ]
    assert found[3]["outcome"]["error"]["code"] == "stream_interrupted"


def test_ui_has_them_as_transient_parts() -> None:
    found = shapes(fed(UiProjection(opening()), numbered(NOTICES)))[2:]
    assert all(chunk["transient"] for chunk in found)
    assert [(chunk["type"], chunk["data"]) for chunk in found[:3]] == [
        ("data-penstock-progress", {"message": "half", "position": 1.0, "total": 2.0, "unit": "lines"}),
        ("data-penstock-stall-detected", {"seconds": 2.5, "limit": 2.0}),
        ("data-penstock-loop-detected", {"kind": "text", "period": 3, "repeats": 8, "start": 0}),
    ]
    ended = found[3]
    assert ended["type"] == "data-penstock-origin-ended"
    assert ended["data"]["outcome"].keys() == {"type", "error"}
    assert ended["data"]["outcome"]["error"]["code"] == "stream_interrupted"


def test_a_reset_after_nothing_else_is_silent_for_ui() -> None:
    found = shapes(fed(UiProjection(opening(v="7")), numbered([*NOTICES, void(), say("Hi")])))
    assert [chunk["type"] for chunk in found[6:]] == ["text-start", "text-delta"]


def test_agui_has_them_as_custom_events() -> None:
    found = shapes(fed(AguiProjection(opening()), numbered(NOTICES)))[1:]
    assert [event["name"] for event in found] == [
        *("penstock.progress", "penstock.stall_detected", "penstock.loop_detected", "penstock.origin_ended"),
    ]
    assert found[1]["value"] == {"seconds": 2.5, "limit": 2.0}
    assert found[3]["value"]["outcome"]["error"]["code"] == "stream_interrupted"


# --- the finish reason "taken" ---------------------------------------------------------------------------------------


def test_taken_is_a_good_end_in_every_protocol() -> None:
    events = numbered([say("Hi"), done("Hi", finish_reason="taken")])
    assert native(fed(NativeProjection(opening()), events))[-1]["finish_reason"] == "taken"
    assert shapes(fed(ChatProjection(opening()), events))[-2]["choices"][0]["finish_reason"] == "stop"
    assert b'"stop_reason":"end_turn"' in fed(AnthropicProjection(opening()), events)[-2].data
    assert b"event: response.completed" in fed(ResponsesProjection(opening()), events)[-2].data
    assert shapes(fed(UiProjection(opening()), events))[-2]["finishReason"] == "stop"
    finished = shapes(fed(AguiProjection(opening()), events))[-1]
    assert finished["outcome"] == {"type": "success"}
    assert finished["metadata"] == {"finishReason": "taken"}
    end: Any = events[-1]
    assert chat.answer(end, opening())["choices"][0]["finish_reason"] == "stop"
    assert anthropic.answer(end, opening())["stop_reason"] == "end_turn"


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_native_frames_name_their_origin_and_never_join_two() -> None:
    events = numbered([say("a", "A"), say("b", "A"), say("c", "B"), say("d"), void("A"), void()])
    projection = NativeProjection(opening())
    frames = fed(projection, events)
    assert [event.get("origin") for event in native(frames)] == ["A", "A", "B", None, "A", None]
    pieces = joined(frames[:4], projection).decode()
    assert pieces.count("event: token") == 3
    assert '"text":"ab","origin":"A"' in pieces


def test_a_socket_names_them_too() -> None:
    projection = SocketProjection(opening())
    frames = fed(projection, numbered([say("a", "A"), say("b", "A"), say("c", 'B"'), ToolCallDelta(index=0, text="{")]))
    found = json.loads(b"[" + joined(frames, projection).removesuffix(b",") + b"]")
    assert [(event["text"], event.get("origin")) for event in found] == [("ab", "A"), ("c", 'B"'), ("{", None)]


@pytest.mark.parametrize("made", [UiProjection, AguiProjection])
def test_a_snapshot_is_told_in_the_order_of_its_text_whatever_parts_its_inputs_have(made: type[Projection]) -> None:
    spans = [
        AnswerPart(index=index, kind="text", start=at, end=at + 1, origin=origin)
        for at, (index, origin) in enumerate([(1, "A"), (0, "B"), (2, "A"), (1, "B")])
    ]
    found = shapes(fed(made(opening()), numbered([folded("abcd", *spans), say("e", "A")])))
    assert "".join(chunk.get("delta", "") for chunk in found) == "abcde"


def test_ui_has_parts_for_each_input_at_the_same_time() -> None:
    events = numbered([say("a", "A"), say("b", "B"), say("c", "A"), say("h", "B", "reasoning"), done("abc")])
    found = shapes(fed(UiProjection(opening()), events))[2:-3]
    assert found == [
        {"type": "text-start", "id": "text-1", "providerMetadata": {"penstock": {"origin": "A"}}},
        {"type": "text-delta", "id": "text-1", "delta": "a"},
        {"type": "text-start", "id": "text-2", "providerMetadata": {"penstock": {"origin": "B"}}},
        {"type": "text-delta", "id": "text-2", "delta": "b"},
        {"type": "text-delta", "id": "text-1", "delta": "c"},
        {"type": "text-end", "id": "text-2"},
        {"type": "reasoning-start", "id": "reasoning-3", "providerMetadata": {"penstock": {"origin": "B"}}},
        {"type": "reasoning-delta", "id": "reasoning-3", "delta": "h"},
        {"type": "text-end", "id": "text-1"},
        {"type": "reasoning-end", "id": "reasoning-3"},
    ]


def test_a_call_ends_the_text_of_its_own_input_only_for_ui() -> None:
    call = ToolCallStarted(id="c", name="add", index=0, origin="A")
    found = shapes(fed(UiProjection(opening()), numbered([say("a", "A"), say("b", "B"), call, say("c", "B")])))
    assert [chunk["type"] for chunk in found[6:]] == ["text-end", "tool-input-start", "text-delta"]


def test_calls_of_two_inputs_with_one_index_are_two() -> None:
    def calling(origin: str, number: str) -> list[Event]:
        call = ToolCall(id=origin, name="add", arguments={"x": 1}, arguments_raw='{"x":1}')
        return [
            ToolCallStarted(id=origin, name="add", index=0, origin=origin),
            ToolCallDelta(index=0, text=number, origin=origin),
            ToolCallCompleted(index=0, call=call, origin=origin),
        ]

    mixed = [one for pair in zip(calling("A", '{"x'), calling("B", '{"x'), strict=True) for one in pair]
    found = shapes(fed(UiProjection(opening()), numbered(mixed)))
    assert [chunk["toolCallId"] for chunk in found[2:]] == ["A", "B", "A", "B", "A", "B"]
    chunks = shapes(fed(ChatProjection(opening()), numbered(mixed)))
    texts = {"A": "", "B": ""}
    names: dict[int, str] = {}
    for chunk in chunks[1:]:
        (call,) = chunk["choices"][0]["delta"]["tool_calls"]
        names[call["index"]] = call.get("id", names.get(call["index"]))
        texts[names[call["index"]]] += call["function"]["arguments"]
    assert texts == {"A": '{"x":1}', "B": '{"x":1}'}


# --- an input begins again -------------------------------------------------------------------------------------------

MIXED: list[Event] = [say("a1 ", "A"), say("b1 ", "B"), say("a2 ", "A"), void("A"), say("a3", "A"), say("b2", "B")]


@pytest.mark.parametrize("made", [*FOREIGN, UiProjection, AguiProjection])
def test_an_input_of_which_nothing_has_come_begins_again_in_silence(made: type[Projection]) -> None:
    first, second = made(opening()), made(opening())
    events = numbered([say("b", "B"), void("A"), say("c", "B"), done("bc")])
    with_it, without = fed(first, events), fed(second, [one for one in events if not isinstance(one, StreamReset)])
    assert [frame.data for frame in with_it] == [frame.data for frame in without]


@pytest.mark.parametrize("made", [ChatProjection, AnthropicProjection])
def test_text_that_cannot_be_taken_back_is_an_error(made: type[Projection]) -> None:
    frames = fed(made(opening()), numbered(MIXED))
    assert b"stream_restarted" in frames[-1].data
    assert sum(b"stream_restarted" in frame.data for frame in frames) == 1


def test_chat_tells_the_rest_again_to_a_reader_that_knows_of_resets() -> None:
    found = shapes(fed(ChatProjection(opening(extras="penstock")), numbered(MIXED)))
    assert [chunk["choices"][0]["delta"] for chunk in found[1:]] == [
        *({"content": text} for text in ("a1 ", "b1 ", "a2 ")),
        {"penstock": {"type": "reset", "reset": True, "reason": "it broke off", "origin": "A"}},
        *({"content": text} for text in ("b1 ", "a3", "b2")),
    ]


def test_responses_leave_the_items_incomplete_and_tell_the_rest_again() -> None:
    projection = ResponsesProjection(opening())
    fed(projection, numbered([*MIXED, done("b1 a3b2")]))
    (item,) = projection.response["output"]
    assert item["content"][0]["text"] == "b1 a3b2"
    assert item["id"].endswith("_1")


def test_ui_drops_the_step_and_tells_the_rest_again() -> None:
    frames = fed(UiProjection(opening(v="7")), numbered([*MIXED, done("b1 a3b2")]))
    reader = UiReader()
    for frame in frames:
        reader.read(frame.data)
    assert [(one["origin"], one["text"]) for one in reader.parts if "origin" in one] == [("B", "b1 b2"), ("A", "a3")]
    chunk = next(chunk for chunk in shapes(fed(UiProjection(opening()), numbered(MIXED))) if "reset" in chunk["type"])
    assert chunk == {"type": "data-penstock-reset", "data": {"reason": "it broke off", "origin": "A"}}


def test_ui_can_end_with_an_error() -> None:
    found = shapes(fed(UiProjection(opening(reset="error")), numbered(MIXED)))
    assert [chunk["type"] for chunk in found[-4:-1]] == ["text-end", "error", "finish"]


def test_agui_removes_the_messages_and_tells_the_rest_again() -> None:
    frames = fed(AguiProjection(opening()), numbered([*MIXED, done("b1 a3b2")]))
    reader = AguiReader()
    for frame in frames:
        reader.read(frame.data)
    shown = [(one["metadata"]["penstock"]["origin"], one["content"]) for one in reader.messages]
    assert shown == [("B", "b1 b2"), ("A", "a3")]
    assert reader.customs == [("penstock.reset", {"reason": "it broke off", "origin": "A"})]


def test_calls_results_and_pictures_of_the_others_stay() -> None:
    call = ToolCall(id="c", name="add", arguments={}, arguments_raw="{}")
    events = numbered(
        [
            say("a", "A"),
            ToolCallStarted(id="c", name="add", index=0, origin="B"),
            ToolCallCompleted(index=0, call=call, origin="B"),
            ToolResult(call_id="c", name="add", content="3", origin="B"),
            MediaPart(kind="image", data="QUJD", origin="B"),
            void("A"),
            done(),
        ]
    )
    reader = UiReader()
    for frame in fed(UiProjection(opening(v="7")), events):
        reader.read(frame.data)
    assert [call["state"] for call in reader.calls.values()] == ["tool-output-available"] * 2  # void, and again
    assert [one["type"] for one in reader.parts if one["type"] == "file"] == ["file"]
    projection = ResponsesProjection(opening())
    fed(projection, events)
    kinds = [item["type"] for item in projection.response["output"]]
    assert kinds == ["function_call", "function_call_output", "image_generation_call"]


@pytest.mark.parametrize("made", [UiProjection, AguiProjection])
def test_a_snapshot_says_which_text_is_of_which_input(made: type[Projection]) -> None:
    spans = (part(0, 1, "A"), part(1, 2, "B"), part(2, 3, "A"))
    variant = {"v": "7"} if made is UiProjection else {}
    events = numbered([folded("abc", *spans), say("d", "B"), void("A"), say("e", "A"), done("bde")])
    frames = fed(made(opening(**variant)), events)
    assert texts_by_origin(made, [frame.data for frame in frames]) == {"A": "e", "B": "bd"}
    whole = fed(made(opening(**variant)), numbered([say("a", "A"), folded("abc", *spans), done("abc")]))
    assert texts_by_origin(made, [frame.data for frame in whole]) == {"A": "ac", "B": "b"}


def texts_by_origin(made: type[Projection], pieces: list[bytes]) -> dict[str, str]:
    texts: dict[str, str] = {}
    if made is UiProjection:
        ui = UiReader()
        ui.read(b"".join(pieces))
        found = [(one["origin"], one["text"]) for one in ui.parts if "origin" in one]
    else:
        agui = AguiReader()
        agui.read(b"".join(pieces))
        found = [(one["metadata"]["penstock"]["origin"], one.get("content", "")) for one in agui.messages]
    for origin, text in found:
        texts[origin] = texts.get(origin, "") + text
    return texts


steps = st.lists(st.tuples(st.sampled_from("AAABBC"), st.sampled_from(["x", "yz", "é", None])), max_size=20)


@given(steps, st.lists(st.integers(0, 100), max_size=4))
def test_whatever_begins_again_the_text_of_each_input_is_right(
    pairs: list[tuple[str, str | None]], cuts: list[int]
) -> None:
    kept: list[tuple[str, str]] = []
    events: list[Any] = []
    for origin, text in pairs:
        if text is None:
            kept = [one for one in kept if one[0] != origin]
            events.append(void(origin))
        else:
            kept.append((origin, text))
            events.append(say(text, origin))
    answer = "".join(text for _, text in kept)
    told = numbered([*events, done(answer)])
    expected = {name: text for name in "ABC" if (text := "".join(one for who, one in kept if who == name))}
    for made, variant in ((UiProjection, {"v": "7"}), (AguiProjection, {})):
        projection = made(opening(**variant))
        frames = fed(projection, told)
        edges = sorted({0, len(frames), *(cut % (len(frames) + 1) for cut in cuts)})
        pieces = [joined(frames[start:end], projection) for start, end in pairwise(edges)]
        assert texts_by_origin(made, pieces) == expected
    responses = ResponsesProjection(opening())
    fed(responses, told)
    said = [one["text"] for item in responses.response["output"] for one in item["content"]]
    assert "".join(said) == answer


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StreamTimeout("st-9", "idle", 1.0), 504, "stream_timeout"),
        (MergeError("st-9", {"st-9": FAILED.error}, {"st-9": FAILED}), 502, "inputs_failed"),
        (RaceError("st-9", [FAILED.error]), 502, "attempts_failed"),
        (SourceError("st-9", OSError("st-9")), 502, "source_failed"),
        (TransformError("st-9", "map", ValueError("st-9")), 500, "transform_failed"),
        (TeeError("st-9", OSError("st-9")), 500, "copy_failed"),
        (RunawayAnswer("st-9", "text", 2, 9), 502, "runaway_answer"),
    ],
)
def test_errors_of_made_streams_have_codes_and_sentences_without_ids(
    error: PenstockError, status: int, code: str
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    assert "st-9" not in problem.message
    assert problem.message.endswith(".")


def test_a_time_limit_of_the_stream_is_a_timeout_in_the_short_form() -> None:
    end = StreamFailed(stream_id=STREAM_ID, seq=1, error=StreamTimeout("s", "total", 1.0))
    assert native(NativeProjection(opening(events="simple")).feed(end))[0]["event"] == "timeout"
    other = msgspec.structs.replace(end, error=TransformError("s", "map", ValueError()))
    assert native(NativeProjection(opening(events="simple")).feed(other))[0]["event"] == "error"
