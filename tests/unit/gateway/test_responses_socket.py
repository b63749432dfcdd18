"""The lanes of the Responses API's WebSocket mode."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ApiError
from penstock.events import StreamCancelled, StreamFailed
from penstock.gateway.problems import Problem
from penstock.gateway.projections.responses_socket import (
    MOST_LANES,
    MOST_WAITING,
    LaneBook,
    Send,
    StartResponse,
    StopResponse,
    socket_messages,
)
from penstock.gateway.projections.steering import MOST_STEERS, required_input
from penstock.gateway.requests.responses import previous_not_found
from tests.unit.gateway.responses_kit import SID, Projected, call_of, done, text

BUSY = Problem(status=429, type="rate_limit_error", code="provider_busy", message="Busy.", retry_after=2.5)


def create(lane: str | None = None, said: str = "Hi", **fields: Any) -> str:
    body = {"type": "response.create", "model": "m", "input": said, **fields}
    return json.dumps(body if lane is None else {**body, "stream_id": lane})


def steer(said: Any = "Stop", target: str = "resp_1", **fields: Any) -> str:
    return json.dumps({"type": "response.steer", "previous_response_id": target, "input": said, **fields})


def told(actions: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(action.data) for action in actions if isinstance(action, Send)]


def begun(book: LaneBook, lane: str | None = None, response: str = "resp_1", **fields: Any) -> StartResponse:
    (start,) = book.receive(create(lane, **fields))
    assert isinstance(start, StartResponse)
    book.began(lane, response)
    return start


# --- lanes ------------------------------------------------------------------------------------------------------------


def test_a_request_begins_at_once_with_the_fields_of_the_api() -> None:
    (start,) = LaneBook().receive(create("a", temperature=0.5))
    assert isinstance(start, StartResponse)
    assert (start.lane, start.generates) == ("a", True)
    assert (start.asked.model, start.asked.is_streamed, start.asked.parameters) == ("m", True, {"temperature": 0.5})
    assert start.body == {"model": "m", "input": "Hi", "temperature": 0.5}


def test_a_lane_answers_in_order_and_lanes_do_not_wait_for_each_other() -> None:
    book = LaneBook()
    begun(book, "a")
    assert book.receive(create("a", "second")) == []
    assert book.receive(create("a", "third")) == []
    other = begun(book, "b", "resp_2")
    assert other.lane == "b"
    (second,) = book.ended("a", done("Hi"))
    assert isinstance(second, StartResponse)
    assert second.asked.input == "second"
    book.began("a", "resp_3")
    (third,) = book.ended("a", done("Hi"))
    assert isinstance(third, StartResponse)
    assert third.asked.input == "third"
    book.began("a", "resp_4")
    assert book.ended("a", done("Hi")) == []
    assert book.ended("b", done("Hi")) == []


def test_requests_without_a_name_share_a_lane() -> None:
    book = LaneBook()
    begun(book)
    assert book.receive(create()) == []
    (start,) = book.ended(None, done("Hi"))
    assert isinstance(start, StartResponse)
    assert start.lane is None


def test_every_event_repeats_the_name_of_its_lane() -> None:
    book = LaneBook()
    begun(book, "a")
    seen = Projected([text("Hi"), done("Hi")])
    data = b"".join(frame.data for frame in seen.frames)
    messages = told(book.frames("a", data, 9))
    assert [message.pop("stream_id") for message in messages] == ["a"] * len(seen.said)
    assert messages == seen.said
    assert [json.loads(message) for message in socket_messages(data, None)] == seen.said


def test_a_lane_named_with_any_text_is_repeated_exactly() -> None:
    (message,) = socket_messages(b'event: a\ndata: {"type":"a"}\n\n', 'x"}\n')
    assert json.loads(message) == {"type": "a", "stream_id": 'x"}\n'}


def test_a_request_that_cannot_begin_is_an_error_of_its_lane_and_the_next_one_follows() -> None:
    book = LaneBook()
    book.receive(create("a"))
    book.receive(create("a", "second"))
    refused = book.refused("a", BUSY)
    assert told(refused) == [
        {
            "type": "error",
            "status": 429,
            "error": {
                "message": "Busy.",
                "type": "rate_limit_error",
                "param": None,
                "code": "provider_busy",
                "headers": {"retry-after": "2.5"},
            },
            "stream_id": "a",
        }
    ]
    assert isinstance(refused[1], StartResponse)
    assert refused[1].asked.input == "second"


def test_a_previous_response_that_is_not_known_has_its_code() -> None:
    book = LaneBook()
    book.receive(create(previous_response_id="resp_9"))
    (error,) = told(book.refused(None, previous_not_found().problem))
    assert (error["status"], error["error"]["code"]) == (400, "previous_response_not_found")
    assert "stream_id" not in error
    assert isinstance(book.receive(create())[0], StartResponse)


def test_a_warm_up_generates_nothing() -> None:
    (start,) = LaneBook().receive(create(generate=False))
    assert isinstance(start, StartResponse)
    assert start.generates is False
    assert "generate" not in start.body
    assert "generate" not in start.asked.parameters


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", None),
        ("[]", None),
        (json.dumps({"type": "response.cancel"}), "type"),
        (json.dumps({"model": "m"}), "type"),
        (create(background=True), "background"),
        (create(stream=False), "stream"),
        (create(generate="no"), "generate"),
        (json.dumps({"type": "response.create", "input": "Hi"}), "model"),
        (create(""), "stream_id"),
        (create("x" * 257), "stream_id"),
        (json.dumps({"type": "response.create", "stream_id": 5}), "stream_id"),
    ],
)
def test_a_message_that_is_wrong_is_answered_and_changes_nothing(message: str, param: str | None) -> None:
    book = LaneBook()
    (error,) = told(book.receive(message))
    assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)
    assert error["error"]["type"] == "invalid_request_error"
    assert isinstance(book.receive(create())[0], StartResponse)


def test_an_error_of_a_request_names_its_lane() -> None:
    (error,) = told(LaneBook().receive(json.dumps({"type": "response.create", "input": "Hi", "stream_id": "a"})))
    assert error["stream_id"] == "a"


def test_lanes_and_what_waits_in_them_are_bounded() -> None:
    book = LaneBook()
    for number in range(MOST_LANES):
        begun(book, f"lane {number}", f"resp_{number}")
    (error,) = told(book.receive(create("one more")))
    assert (error["status"], error["error"]["code"]) == (429, "too_many_pending_requests")
    for _ in range(MOST_WAITING):
        assert book.receive(create("lane 0")) == []
    (error,) = told(book.receive(create("lane 0")))
    assert error["status"] == 429
    assert book.ended("lane 1", done("Hi")) == []
    assert isinstance(book.receive(create("one more"))[0], StartResponse)  # an empty lane is given back


def test_requests_that_wait_are_bounded_in_bytes_of_utf8() -> None:
    book = LaneBook(most_bytes=1_000)
    begun(book, "a", said="x" * 5_000)  # it does not wait
    assert book.receive(create("a", "x" * 5_000)) == []  # alone, it may be larger
    (error,) = told(book.receive(create("a")))
    assert (error["status"], error["error"]["code"]) == (429, "too_many_pending_bytes")
    assert (error["stream_id"], error["error"]["param"]) == ("a", None)
    begun(book, "b", "resp_2")
    assert len(told(book.receive(create("b")))) == 1  # those of all lanes count together
    book.ended("a", done("Hi"))
    body = {"type": "response.create", "model": "m", "stream_id": "b", "input": "é" * 300}
    message = json.dumps(body, ensure_ascii=False)
    assert (len(message) < 400, len(message.encode()) > 600) == (True, True)
    assert book.receive(message) == []
    assert [error["error"]["code"] for error in told(book.receive(message))] == ["too_many_pending_bytes"]
    assert [error["error"]["code"] for error in told(book.receive(message.encode()))] == ["too_many_pending_bytes"]
    assert book.receive(create("b")) == []


def test_a_connection_that_is_too_old_says_so() -> None:
    (error,) = told(LaneBook().expired())
    assert error["error"]["code"] == "websocket_connection_limit_reached"


# --- steering ---------------------------------------------------------------------------------------------------------


def test_steering_stops_the_response_and_another_follows_with_the_same_settings() -> None:
    book = LaneBook()
    begun(book, "a", instructions="Be brief.", temperature=0.5)
    book.receive(create("a", "second"))
    book.frames("a", b"", 7)
    accepted, stop = book.receive(steer("Stop"))
    assert told([accepted]) == [
        {
            "type": "response.steer.accepted",
            "sequence_number": 7,
            "steer": {"id": "steer_resp_1_0", "previous_response_id": "resp_1"},
            "stream_id": "a",
        }
    ]
    assert stop == StopResponse("resp_1")
    (again,) = book.receive(steer([{"role": "user", "content": "Now"}]))  # it is being stopped already
    assert told([again])[0]["steer"]["id"] == "steer_resp_1_1"
    (start,) = book.ended("a", StreamCancelled(stream_id="resp_1", seq=1, reason="steered"))
    assert isinstance(start, StartResponse)
    assert start.body == {
        "model": "m",
        "instructions": "Be brief.",
        "temperature": 0.5,
        "previous_response_id": "resp_1",
        "input": [
            {"type": "message", "role": "user", "content": "Stop"},
            {"role": "user", "content": "Now"},
        ],
    }
    assert start.asked.parameters == {"instructions": "Be brief.", "temperature": 0.5}
    book.began("a", "resp_2")
    (second,) = book.ended("a", done("Hi"))
    assert isinstance(second, StartResponse)
    assert second.asked.input == "second"


def test_a_response_that_ends_by_itself_is_followed_too() -> None:
    book = LaneBook()
    begun(book)
    book.receive(steer())
    (start,) = book.ended(None, done("Hi"))
    assert isinstance(start, StartResponse)
    assert start.body["previous_response_id"] == "resp_1"


def test_input_waits_while_the_client_owes_results_and_comes_before_them() -> None:
    book = LaneBook()
    begun(book, "a")
    book.receive(steer("Stop"))
    end = done("", tool_calls=(call_of(),), finish_reason="tool_calls")
    (pending,) = told(book.ended("a", end))
    assert pending == {
        "type": "response.steer.pending",
        "sequence_number": 0,
        "reason": "waiting_for_required_input",
        "required_input": [{"type": "function_call_output", "call_id": "c1", "name": "add"}],
        "steer": {"id": "steer_resp_1_0", "previous_response_id": "resp_1"},
        "stream_id": "a",
    }
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    message = {"type": "response.create", "model": "m", "previous_response_id": "resp_1", "input": [output]}
    (elsewhere,) = book.receive(json.dumps(message | {"stream_id": "b"}))
    assert isinstance(elsewhere, StartResponse)
    assert elsewhere.body["input"] == [output]
    (start,) = book.receive(json.dumps(message | {"stream_id": "a"}))
    assert isinstance(start, StartResponse)
    assert start.body["input"] == [{"type": "message", "role": "user", "content": "Stop"}, output]
    assert start.asked.input == start.body["input"]
    book.began("a", "resp_3")
    assert book.ended("a", done("Hi")) == []


def test_what_waits_for_results_is_bounded_and_the_oldest_is_given_back() -> None:
    book = LaneBook()
    end = done("", tool_calls=(call_of(),), finish_reason="tool_calls")
    for number in range(MOST_WAITING + 1):
        begun(book, "a", f"resp_{number}")
        book.receive(steer(f"input {number}", f"resp_{number}"))
        messages = told(book.ended("a", end))
    pending, failed = messages
    assert pending["type"] == "response.steer.pending"
    assert (failed["type"], failed["steer"]["input"]) == ("response.steer.failed", "input 0")
    assert failed["stream_id"] == "a"


def test_the_responses_under_way_are_known_for_when_the_connection_is_lost() -> None:
    book = LaneBook()
    begun(book, "a", "resp_1")
    begun(book, None, "resp_2")
    book.receive(create("b"))  # not begun yet
    assert book.under_way == ["resp_1", "resp_2"]
    book.ended("a", done("Hi"))
    assert book.under_way == ["resp_2"]


@pytest.mark.parametrize(
    "end",
    [
        StreamFailed(stream_id=SID, seq=1, error=ApiError(500, "boom")),
        StreamCancelled(stream_id=SID, seq=1, reason="user"),
    ],
)
def test_input_that_nothing_can_follow_is_given_back(end: Any) -> None:
    book = LaneBook()
    begun(book)
    book.receive(steer("Stop"))
    (failed,) = told(book.ended(None, end))
    assert failed["type"] == "response.steer.failed"
    assert failed["error"]["code"] == "successor_creation_failed"
    assert failed["steer"] == {"id": "steer_resp_1_0", "input": "Stop", "previous_response_id": "resp_1"}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (steer(target="resp_9"), "response_not_found"),
        (steer(""), "invalid_input"),
        (steer([]), "invalid_input"),
        (steer(5), "invalid_input"),
        (steer([{"role": "assistant", "content": "x"}]), "invalid_input"),
        (steer([{"role": "user", "content": []}]), "invalid_input"),
        (steer([{"role": "user", "content": "x", "id": "msg_1"}]), "invalid_input"),
        (steer([{"role": "user", "content": [{"type": "input_audio"}]}]), "invalid_input"),
        (steer([{"type": "function_call_output", "call_id": "c", "output": "1"}]), "invalid_input"),
        (steer(stream_id="a"), "invalid_input"),
    ],
)
def test_steering_that_is_not_possible_gives_the_input_back(message: str, code: str) -> None:
    book = LaneBook()
    begun(book)
    (failed,) = told(book.receive(message))
    assert (failed["type"], failed["error"]["code"]) == ("response.steer.failed", code)
    assert failed["steer"]["input"] == json.loads(message)["input"]
    assert "id" not in failed["steer"]
    assert book.ended(None, done("Hi")) == []


def test_a_response_that_none_can_follow_is_not_stopped() -> None:
    asked: list[str] = []
    answers: list[Problem | None] = [BUSY, None]

    def why_none_follows(response_id: str) -> Problem | None:
        asked.append(response_id)
        return answers.pop(0)

    book = LaneBook(why_none_follows)
    begun(book, "a")
    assert told(book.receive(steer("Stop"))) == [
        {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "error": {"type": "rate_limit_error", "code": "provider_busy", "message": "Busy."},
            "steer": {"input": "Stop", "previous_response_id": "resp_1"},
            "stream_id": "a",
        }
    ]
    assert book.receive(steer("Stop"))[-1] == StopResponse("resp_1")
    book.receive(steer("Now"))  # it is being stopped already
    assert asked == ["resp_1", "resp_1"]
    (start,) = book.ended("a", StreamCancelled(stream_id="resp_1", seq=1, reason="steered"))
    assert isinstance(start, StartResponse)
    assert start.is_successor
    assert [item["content"] for item in start.body["input"]] == ["Stop", "Now"]


def test_a_response_that_has_ended_cannot_be_steered() -> None:
    book = LaneBook()
    begun(book)
    book.ended(None, done("Hi"))
    (failed,) = told(book.receive(steer()))
    assert failed["error"]["code"] == "response_already_completed"


def test_steers_of_one_response_are_bounded() -> None:
    book = LaneBook()
    begun(book)
    for _ in range(MOST_STEERS):
        book.receive(steer())
    (failed,) = told(book.receive(steer()))
    assert failed["error"]["code"] == "too_many_pending_steers"


@pytest.mark.parametrize("is_owed", [False, True])
def test_steers_that_wait_are_bounded_in_bytes_too(is_owed: bool) -> None:
    book = LaneBook(most_bytes=1_000)
    begun(book)
    assert len(book.receive(steer("x" * 5_000))) == 2
    if is_owed:
        book.ended(None, done("", tool_calls=(call_of(),), finish_reason="tool_calls"))
        begun(book, response="resp_2")
    target = "resp_2" if is_owed else "resp_1"
    (failed,) = told(book.receive(steer("Now", target)))
    assert failed["error"]["code"] == "too_many_pending_bytes"
    assert failed["steer"]["input"] == "Now"
    assert len(told(book.receive(create()))) == 1


def test_a_response_that_cannot_be_stopped_gives_the_input_back_and_can_be_steered_again() -> None:
    book = LaneBook()
    begun(book, "a")
    book.receive(steer("Stop"))
    book.receive(steer("Now"))
    assert book.not_stopped("a", "resp_9", BUSY) == []
    assert book.not_stopped("b", "resp_1", BUSY) == []
    failed = told(book.not_stopped("a", "resp_1", BUSY))
    assert [(one["type"], one["error"]["code"]) for one in failed] == [("response.steer.failed", "provider_busy")] * 2
    assert [one["steer"]["input"] for one in failed] == ["Stop", "Now"]
    assert book.receive(steer("Again"))[-1] == StopResponse("resp_1")
    (start,) = book.ended("a", done("Hi"))
    assert isinstance(start, StartResponse)
    assert [item["content"] for item in start.body["input"]] == ["Again"]


def test_a_successor_that_cannot_begin_gives_the_input_back() -> None:
    book = LaneBook()
    begun(book)
    book.receive(steer("Stop"))
    book.ended(None, done("Hi"))
    error, failed = told(book.refused(None, BUSY))
    assert (error["type"], failed["type"]) == ("error", "response.steer.failed")
    assert failed["error"]["code"] == "successor_creation_failed"
    assert failed["steer"] == {"id": "steer_resp_1_0", "input": "Stop", "previous_response_id": "resp_1"}


def test_a_response_that_cannot_be_shown_to_its_end_gives_the_input_back() -> None:
    book = LaneBook()
    begun(book)
    book.receive(steer("Stop"))
    book.ended(None, done("Hi"))
    book.began(None, "resp_2")  # what was steered into the first one has been used
    book.receive(steer("Now", "resp_2"))
    assert [one["steer"]["input"] for one in told(book.refused(None, BUSY))[1:]] == ["Now"]


def test_each_kind_of_call_has_its_own_stub() -> None:
    kinds = ["function", "custom", "computer", "shell", "apply_patch", "tool_search", "mcp_approval"]
    calls = [call_of(identifier=f"c{n}", name=kind, type=kind) for n, kind in enumerate(kinds)]
    hosted = call_of(identifier="s", is_server=True)
    assert required_input(done("", tool_calls=(*calls, hosted), finish_reason="tool_calls")) == [
        {"type": "function_call_output", "call_id": "c0", "name": "function"},
        {"type": "custom_tool_call_output", "call_id": "c1"},
        {"type": "computer_call_output", "call_id": "c2"},
        {"type": "shell_call_output", "call_id": "c3"},
        {"type": "apply_patch_call_output", "call_id": "c4"},
        {"type": "tool_search_output", "call_id": "c5", "execution": "client"},
        {"type": "mcp_approval_response", "approval_request_id": "c6"},
    ]
    assert required_input(done("", tool_calls=tuple(calls))) == []


MESSAGES = st.one_of(
    st.builds(create, st.sampled_from([None, "a", "b"])),
    st.builds(steer, st.sampled_from(["x", [], 5]), st.sampled_from(["resp_0", "resp_1", "resp_9"])),
    st.binary(max_size=8),
    st.text(max_size=8),
)
ENDS = st.sampled_from(
    [done("x"), done("", tool_calls=(call_of(),), finish_reason="tool_calls"), StreamCancelled(stream_id=SID, seq=1)]
)


@given(st.lists(st.one_of(MESSAGES, st.tuples(st.sampled_from([None, "a", "b"]), st.none() | ENDS)), max_size=24))
def test_any_messages_leave_one_response_under_way_in_each_lane(steps: list[Any]) -> None:
    book = LaneBook()
    running: dict[str | None, int] = {}
    count = 0
    for step in steps:
        if isinstance(step, tuple):
            lane, end = step
            if lane not in running:
                continue
            del running[lane]
            actions = book.ended(lane, end) if end is not None else book.refused(lane, BUSY)
        else:
            actions = book.receive(step)
        for action in actions:
            if isinstance(action, StartResponse):
                assert action.lane not in running
                running[action.lane] = count
                book.began(action.lane, f"resp_{count}")
                count += 1
            elif isinstance(action, Send):
                assert json.loads(action.data)["type"]
