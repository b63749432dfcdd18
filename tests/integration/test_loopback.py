"""The loopback provider over real sockets."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests

from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    Fault,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.ledger import Ledger, Statistics
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.script import Answer, Reply, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider, serve
from penstock.errors import CallTimeout, OptionError, SystemStopped
from penstock.events import Usage
from penstock.ports import Secret

TEXT = "Grüße aus der Röhre: 水は低きに流れる 🌊, and\u2028a line separator."
CHAT, RESPONSES = "/chat/completions", "/responses"
BOTH = pytest.mark.parametrize("path", [CHAT, RESPONSES])


@pytest.fixture(autouse=True)
def nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()
    # Errors inside the event loop are only logged. (`caplog.records` would be those of the teardown.)
    logged = [record for record in caplog.get_records("call") if record.name == "asyncio"]
    assert [record.getMessage() for record in logged if record.levelno >= logging.WARNING] == []


def body_of(path: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    given = {"messages": [{"role": "user", "content": "one two"}]} if path == CHAT else {"input": "one two"}
    return {"model": "m", "stream": stream, **given, **more}


def post(provider: LoopbackProvider, path: str = CHAT, **more: Any) -> requests.Response:
    return requests.post(provider.base_url + path, json=body_of(path, **more), timeout=10)


def raw_request(path: str = CHAT, *, headers: str = "", **more: Any) -> bytes:
    body = json.dumps(body_of(path, **more)).encode()
    head = f"POST /v1{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(provider: LoopbackProvider) -> socket.socket:
    return socket.create_connection((provider.host, provider.port), timeout=10)


def read_until(client: socket.socket, wanted: bytes, times: int = 1) -> bytes:
    data = b""
    while data.count(wanted) < times:
        piece = client.recv(65_536)
        assert piece, f"closed before {wanted!r} came: {data[-200:]!r}"
        data += piece
    return data


def read_to_end(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65_536):
        data += piece
    return data


def events_of(body: bytes) -> list[Any]:
    blocks = re.split(r"\r\n\r\n|\n\n|\r\r", body.decode("utf-8-sig"))
    data = [re.split(r"\r\n|\n|\r", block)[-1] for block in blocks if block and not block.startswith(":")]
    return [json.loads(line[6:]) if line != "data: [DONE]" else "[DONE]" for line in data]


def text_of(events: list[Any]) -> str:
    text = ""
    for event in events:
        if event == "[DONE]":
            continue
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
        if event.get("type") == "response.output_text.delta":
            text += event["delta"]
    return text


def chunks_of(data: bytes) -> list[bytes]:
    rest = data.partition(b"\r\n\r\n")[2]
    chunks: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return chunks
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


def provide(*replies: Reply, **more: Any) -> LoopbackProvider:
    return LoopbackProvider(Script(replies), **more)


# --- answers ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("framing", ["chunked", "close", "length", "gzip"])
@pytest.mark.parametrize("split", [None, 7, "bytes", (1, 2, 300, 100_000)])
@pytest.mark.parametrize("pace", [0, 0.0001])
def test_a_stream_is_whole_in_every_framing_however_it_is_split(
    path: str, framing: Any, split: Any, pace: float
) -> None:
    with provide(Answer(TEXT, framing=framing, split=split, pace=pace)) as provider:
        response = post(provider, path)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert text_of(events_of(response.content)) == TEXT
        assert provider.wait_for(lambda s: s.streams_completed == 1).client_disconnects == 0


@BOTH
@pytest.mark.parametrize("line_ending", ["\n", "\r\n", "\r"])
def test_line_endings_comments_and_a_byte_order_mark_are_as_asked(path: str, line_ending: Any) -> None:
    with provide(Answer(TEXT, line_ending=line_ending, comments=2, bom=True)) as provider:
        body = post(provider, path).content
    assert body.startswith(b"\xef\xbb\xbf")
    assert body.count(b": keep-alive" + line_ending.encode() * 2) >= 3
    assert (b"\n" in body) == ("\n" in line_ending)
    assert (b"\r" in body) == ("\r" in line_ending)
    assert text_of(events_of(body.replace(b"\xef\xbb\xbf", b""))) == TEXT


def test_each_event_is_a_chunk_of_its_own() -> None:
    with provide(Answer("a b c")) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request(headers="Connection: close\r\n"))
        chunks = chunks_of(read_to_end(client))
    assert [len(events_of(chunk)) for chunk in chunks] == [1] * 6


def test_a_split_cuts_the_chunks_inside_characters_too() -> None:
    with provide(Answer("ßßßß", split=5)) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request(headers="Connection: close\r\n"))
        chunks = chunks_of(read_to_end(client))
    assert {len(chunk) for chunk in chunks[:-1]} == {5}
    assert text_of(events_of(b"".join(chunks))) == "ßßßß"


def test_a_chat_stream_ends_with_finish_reason_usage_when_asked_and_done() -> None:
    with provide(Answer("a b c", finish_reason="length")) as provider:
        *_, finish, usage, done = events_of(post(provider, stream_options={"include_usage": True}).content)
        assert done == "[DONE]"
        assert usage["choices"] == []
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (2, 3)
        assert finish["choices"][0]["finish_reason"] == "length"
        assert b'"usage"' not in post(provider).content


def test_usage_can_be_made_up_or_withheld() -> None:
    made_up = Usage(input_tokens=7, output_tokens=0, total_tokens=7)
    with provide(Answer(usage=made_up, send_usage="always"), Answer(send_usage="never")) as provider:
        assert events_of(post(provider).content)[-2]["usage"]["prompt_tokens"] == 7
        assert b'"usage"' not in post(provider, stream_options={"include_usage": True}).content


def test_a_response_stream_goes_from_created_to_completed() -> None:
    with provide(Answer("a b", reasoning="so", tool_calls=(ScriptedCall("f", '{"a":1}'),))) as provider:
        events = events_of(post(provider, RESPONSES).content)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert kinds.count("output_item.done") == 3
    assert kinds[-1] == "completed"
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message", "function_call"]
    assert final["usage"]["output_tokens"] == 2 + 1 + 1


def test_a_response_that_is_cut_by_its_length_ends_incomplete() -> None:
    with provide(Answer(finish_reason="length")) as provider:
        last = events_of(post(provider, RESPONSES).content)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_tool_calls_arguments_come_in_fragments_after_its_name() -> None:
    call = ScriptedCall("look_up", '{"city": "Zürich"}', id="call_7")
    with provide(Answer("", tool_calls=(call,))) as provider:
        *events, _done = events_of(post(provider).content)
    calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:-1]]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_7", "look_up")
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Zürich"}'
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_has_the_name_that_is_asked_for(field: Any) -> None:
    with provide(Answer("x", reasoning="so it is", reasoning_field=field)) as provider:
        *events, _done = events_of(post(provider).content)
        assert "".join(event["choices"][0]["delta"].get(field, "") for event in events) == "so it is"
        assert post(provider, stream=False).json()["choices"][0]["message"][field] == "so it is"


def test_a_whole_chat_completion() -> None:
    call = ScriptedCall("f", "{}")
    with provide(Answer(TEXT, tool_calls=(call,))) as provider:
        completion = post(provider, stream=False).json()
    [choice] = completion["choices"]
    assert choice["message"]["content"] == TEXT
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert choice["finish_reason"] == "tool_calls"
    assert completion["usage"]["prompt_tokens"] == 2


def test_a_whole_response() -> None:
    with provide(Answer(TEXT)) as provider:
        response = post(provider, RESPONSES, stream=False).json()
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == TEXT


def test_a_paced_token_is_never_early_and_says_when_it_went() -> None:
    with provide(Answer(tokens=("x",) * 20, pace=0.005, first_token_delay=0.02, timestamps=True)) as provider:
        began = time.time()
        body = post(provider).content
    stamps = [float(stamp) for stamp in re.findall(rb'"penstock_sent":([\d.]+)', body)][1:21]
    assert stamps == sorted(stamps)
    assert all(stamp - began > 0.02 + 0.005 * i - 0.002 for i, stamp in enumerate(stamps))


def test_many_tokens_are_read_to_the_last_by_a_slow_beginner() -> None:
    with provide(Answer(tokens=("x",), repeat=50_000)) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request(headers="Connection: close\r\n"))
        provider.wait_for(lambda s: s.bytes_sent > 1_000_000)  # more than the client reads: the rest has to wait
        assert read_to_end(client).count(b'{"content":"x"}') == 50_000
        assert provider.wait_for(lambda s: s.active_responses == 0).streams_completed == 1


def test_a_connection_whose_last_write_had_to_wait_is_closed_once() -> None:
    with provide(Answer(tokens=("x" * 30_000_000,))) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request(headers="Connection: close\r\n", stream=False))
        first_half = 0
        while first_half < 15_000_000:  # the other half is not written before the kernel has taken this one
            first_half += len(client.recv(65_536))
        assert provider.wait_for(lambda s: s.bytes_sent > 30_000_000).responses_completed == 0
        assert first_half + len(read_to_end(client)) > 30_000_000
        provider.wait_for(lambda s: s.responses_completed == 1 and s.active_connections == 0)


# --- faults -------------------------------------------------------------------------------------------------------


@BOTH
def test_a_status_comes_first_and_the_answer_second(path: str) -> None:
    with provide(Status(503, retry_after=0.5, code="overloaded"), Answer("ok")) as provider:
        refused = post(provider, path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "0.5")
        assert refused.json()["error"]["code"] == "overloaded"
        assert text_of(events_of(post(provider, path).content)) == "ok"
        assert provider.statistics().faults_injected == 1


@BOTH
@pytest.mark.parametrize("stream", [True, False])
def test_a_reset_arrives_as_one_after_exactly_the_tokens_before_it(path: str, stream: bool) -> None:
    with provide(Answer(tokens=("@",) * 9, faults=(ResetAfter(3),))) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request(path, stream=stream))
        received: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            received.extend(iter(lambda: client.recv(65_536), b""))
        data = b"".join(received)
        if stream:
            assert len(re.findall(rb'"(?:content|delta)":"@"', data)) == 3
        assert provider.statistics().client_disconnects == 0


@BOTH
@pytest.mark.parametrize("framing", ["chunked", "length", "gzip"])
def test_a_cut_body_is_no_valid_body(path: str, framing: Any) -> None:
    with (
        provide(Answer(framing=framing, faults=(TruncateAfter(2),))) as provider,
        pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)),
    ):
        post(provider, path)


@BOTH
@pytest.mark.parametrize("framing", ["chunked", "length", "gzip", "close"])
def test_a_cleanly_truncated_body_is_valid_but_has_no_end(path: str, framing: Any) -> None:
    with provide(Answer("a b c d", framing=framing, faults=(TruncateAfter(2, clean=True),))) as provider:
        body = post(provider, path).content
        assert text_of(events_of(body)) == "a b"
        assert not any(word in body for word in (b"[DONE]", b'"stop"', b"response.completed"))
        statistics = provider.wait_for(lambda s: s.responses_completed == 1)
        assert (statistics.streams_completed, statistics.faults_injected) == (0, 1)


@BOTH
@pytest.mark.parametrize("then_done", [True, False])
def test_an_error_frame_ends_the_answer(path: str, then_done: bool) -> None:
    with provide(Answer("a b c", faults=(ErrorFrame(2, "boom", "It broke.", then_done),))) as provider:
        events = events_of(post(provider, path).content)
    end = events.pop() if then_done else None
    if then_done and path == RESPONSES:
        end = end["type"] if isinstance(end, dict) else None
    assert end == ({CHAT: "[DONE]", RESPONSES: "response.failed"}[path] if then_done else None)
    error = events[-1].get("error", events[-1])
    assert (error["code"], error["message"]) == ("boom", "It broke.")
    assert text_of(events[:-1]) == "a b"


@BOTH
def test_malformed_json_comes_between_and_the_answer_goes_on(path: str) -> None:
    with provide(Answer("a b c", faults=(MalformedJson(1),))) as provider:
        blocks = [block for block in post(provider, path).content.split(b"\n\n") if block]
    broken = [block for block in blocks if b"this JSON" in block]
    assert len(broken) == 1
    with pytest.raises(json.JSONDecodeError):
        events_of(broken[0])
    blocks.remove(broken[0])
    assert text_of(events_of(b"\n\n".join(blocks))) == "a b c"


@BOTH
def test_invalid_utf8_is_really_invalid(path: str) -> None:
    with provide(Answer("a b c", faults=(InvalidUtf8(1),))) as provider:
        body = post(provider, path).content
    with pytest.raises(UnicodeDecodeError):
        body.decode()
    assert body.count(b"\xff\xc3") == 1


@BOTH
def test_a_huge_event_is_one_event(path: str) -> None:
    with provide(Answer("a", faults=(HugeEvent(1_000_000, after=1),))) as provider:
        assert max(map(len, post(provider, path).content.split(b"\n\n"))) > 1_000_000


@pytest.mark.parametrize("reset", [True, False])
def test_hanging_up_sends_not_a_byte(reset: bool) -> None:
    with provide(HangUp(reset)) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request())
        if reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""


def test_what_is_not_a_stream_says_so() -> None:
    with provide(NotAStream()) as provider:
        response = post(provider)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


@BOTH
@pytest.mark.parametrize("stream", [True, False])
def test_a_late_status_line_and_a_stall_that_ends_lose_nothing(path: str, stream: bool) -> None:
    with provide(Answer("a b c", faults=(DelayFirstByte(0.02), StallAfter(1, 0.02)))) as provider:
        began = time.monotonic()
        response = post(provider, path, stream=stream)
        assert time.monotonic() - began >= 0.04
        assert "c" in text_of(events_of(response.content)) if stream else response.json()
        assert provider.statistics().faults_injected == 2


def test_an_answer_held_open_has_its_end_marker_but_no_end() -> None:
    with provide(HoldOpen()) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request())
        data = read_until(client, b"data: [DONE]\n\n")
        assert b"\r\n0\r\n" not in data
        assert provider.wait_for(lambda s: s.faults_injected == 1).active_responses == 1


@pytest.mark.parametrize(
    "fault", [MalformedJson(), InvalidUtf8(), HugeEvent(9), ErrorFrame(), ResetAfter(1), TruncateAfter(1)]
)
def test_a_whole_answer_can_be_spoilt_too(fault: Fault) -> None:
    with provide(fault) as provider:
        try:
            response = post(provider, stream=False)
            assert response.status_code == 500 or response.content.startswith(b" ") or not _is_json(response.content)
        except requests.exceptions.RequestException:
            assert isinstance(fault, (ResetAfter, TruncateAfter))
        assert provider.statistics().faults_injected == 1


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body.decode())
    except ValueError:
        return False
    return True


def test_faults_can_be_reached_by_the_models_name() -> None:
    with LoopbackProvider(default_script(tokens_per_second=10_000)) as provider:
        statuses = [post(provider, model="fault-503-once").status_code for _ in range(4)]
        assert statuses == [503, 200, 503, 200]
        assert text_of(events_of(post(provider, model="echo").content)) == "one two"
        assert {entry["id"] for entry in requests.get(f"{provider.base_url}/models", timeout=5).json()["data"]} >= {
            "echo",
            "fault-stall",
        }


# --- clients that leave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_byte_is_noticed(stream: bool) -> None:
    with provide(DelayFirstByte(None)) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request(stream=stream))
            provider.wait_for(lambda s: s.faults_injected == 1)
        assert provider.wait_for(lambda s: s.client_disconnects == 1).streams_completed == 0


@BOTH
def test_a_client_that_leaves_during_a_stall_is_noticed(path: str) -> None:
    with provide(Answer(tokens=("@",) * 9, faults=(StallAfter(2),))) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request(path))
            read_until(client, b'":"@"', times=2)
        statistics = provider.wait_for(lambda s: s.client_disconnects == 1 and s.active_connections == 0)
        assert statistics.active_responses == 0


def test_a_client_that_leaves_between_two_tokens_is_noticed() -> None:
    with provide(Answer(tokens=("@",) * 9, pace=600)) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request())
            read_until(client, b'":"@"')
        provider.wait_for(lambda s: s.client_disconnects == 1)


def test_a_client_that_leaves_without_reading_is_noticed() -> None:
    with provide(Answer(repeat=10_000_000)) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request())
            provider.wait_for(lambda s: s.bytes_sent > 1_000_000)
        provider.wait_for(lambda s: s.client_disconnects == 1 and s.active_responses == 0)


@pytest.mark.parametrize("leaves", [True, False])
def test_an_end_and_the_response_that_it_ends_are_counted_at_one_moment(
    monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """A test that waits for one of the two must not see the other one of before."""
    seen: list[Statistics] = []
    count = Ledger.count

    def count_and_look(ledger: Ledger, **changes: int) -> None:
        count(ledger, **changes)
        seen.append(ledger.statistics())

    monkeypatch.setattr(Ledger, "count", count_and_look)
    with provide(Answer(tokens=("@",) * 9, faults=(StallAfter(2),) if leaves else ())) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request())
            read_until(client, b'":"@"' if leaves else b"\r\n0\r\n\r\n")
        provider.wait_for(lambda s: s.active_connections == 0 < s.connections)
    answered = [s for s in seen if s.requests]
    assert {s.active_responses + s.client_disconnects + s.responses_completed for s in answered} == {1}
    assert (answered[-1].client_disconnects, answered[-1].responses_completed) == ((1, 0) if leaves else (0, 1))


def test_a_client_that_leaves_in_the_middle_of_its_request_is_noticed() -> None:
    with provide(Answer()) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request()[:-10])
        assert provider.wait_for(lambda s: s.client_disconnects == 1).requests == 0


def test_a_client_that_leaves_after_its_answer_is_none_that_left() -> None:
    with provide(Answer()) as provider:
        with closing(connect(provider)) as client:
            client.sendall(raw_request())
            read_until(client, b"\r\n0\r\n\r\n")
        assert provider.wait_for(lambda s: s.active_connections == 0 < s.connections).client_disconnects == 0


# --- HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "length", "gzip"])
def test_a_connection_serves_one_request_after_the_other(framing: Any) -> None:
    with provide(Status(503), Answer(framing=framing)) as provider, requests.Session() as session:
        for number in range(4):
            response = session.post(provider.base_url + CHAT, json=body_of(CHAT, stream=number != 2), timeout=5)
            assert response.status_code == (200 if number else 503)
        assert provider.statistics().connections == 1


def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    replies = (Answer("first"), Answer("second"), Answer("third"))
    with provide(*replies) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request() * 3)
        data = read_until(client, b"\r\n0\r\n\r\n", times=3)
    assert re.findall(rb'"content":"(\w+)"', data) == [b"first", b"second", b"third"]


def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    with provide(Answer(TEXT)) as provider, closing(connect(provider)) as client:
        client.sendall(raw_request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = read_to_end(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert text_of(events_of(body)) == TEXT


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    with provide(Answer()) as provider, closing(connect(provider)) as client:
        head, _, body = raw_request(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        client.sendall(head + b"\r\n\r\n")
        read_until(client, b"HTTP/1.1 100 ")
        client.sendall(body)
        read_until(client, b"[DONE]")


def test_what_is_asked_for_in_the_wrong_way_is_refused_in_openais_words() -> None:
    with provide(Answer()) as provider:
        base = provider.base_url
        answers = [
            (requests.get(f"{base}/nothing", timeout=5), 404, "unknown_url"),
            (requests.get(base + CHAT, timeout=5), 405, "method_not_allowed"),
            (requests.post(f"{base}/models", timeout=5), 405, "method_not_allowed"),
            (requests.post(base + CHAT, data=b"{", timeout=5), 400, "invalid_json"),
            (requests.post(base + CHAT, json=[], timeout=5), 400, "invalid_json"),
            (requests.post(base + CHAT, json={"messages": []}, timeout=5), 400, "missing_required_parameter"),
            (requests.post(base + CHAT, json={"model": "m"}, timeout=5), 400, "missing_required_parameter"),
            (requests.post(base + RESPONSES, json={"model": "m"}, timeout=5), 400, "missing_required_parameter"),
        ]
    for response, status, code in answers:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert answers[1][0].headers["allow"] == "POST"


def test_a_head_request_gets_a_head() -> None:
    with provide(Answer()) as provider, requests.Session() as session:
        for _ in range(2):
            response = session.head(f"{provider.base_url}/models", timeout=5)
            assert (response.status_code, response.content) == (405, b"")
        assert provider.statistics().connections == 1


def test_health_is_told_to_everybody_and_not_recorded() -> None:
    with provide(Answer(), api_key="sk-1") as provider:
        health = requests.get(f"http://{provider.host}:{provider.port}/healthz", timeout=5)
        assert health.json() == {"status": "ok"}
        assert provider.statistics().requests == 0


@pytest.mark.parametrize("key", ["sk-1", Secret("sk-1")])
def test_a_key_must_match_where_there_is_one_and_is_never_kept(key: str | Secret) -> None:
    with provide(Answer(), api_key=key) as provider:
        statuses = [
            requests.post(
                provider.base_url + CHAT,
                json=body_of(CHAT),
                headers={"Authorization": authorization} if authorization else None,
                timeout=5,
            ).status_code
            for authorization in ("Bearer sk-1", "Bearer sk-2", "sk-1", "Bearer schlüssel".encode(), None)
        ]
        assert statuses == [200, 401, 401, 401, 401]
        assert provider.requests[0].headers["authorization"] == "***"
        assert "sk-1" not in repr(provider.requests)


def test_a_received_request_has_its_body_and_headers() -> None:
    with provide(Answer()) as provider:
        post(provider, model="gpt", temperature=0.5)
        [request] = provider.wait_for_requests(1)
    assert (request.method, request.path, request.model) == ("POST", "/v1/chat/completions", "gpt")
    assert request.body["temperature"] == 0.5
    assert request.headers["content-type"] == "application/json"
    assert request.last_user_text == "one two"


def test_waiting_for_requests_that_do_not_come_times_out() -> None:
    with provide(Answer()) as provider, pytest.raises(CallTimeout):
        provider.wait_for_requests(1, timeout=0.01)


def test_a_function_that_raises_costs_its_request_a_500_and_nothing_else() -> None:
    def broken(request: object) -> Answer:
        raise LookupError("nothing there")

    with provide(broken, Answer()) as provider:
        response = post(provider)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "script_error")
        assert "LookupError: nothing there" in response.text
        assert post(provider).status_code == 200
        assert provider.statistics().script_errors == 1


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_body_that_is_announced_too_large_is_refused() -> None:
    with provide(Answer(), max_body_bytes=1000) as provider:
        response = post(provider, padding="x" * 500_000)
        assert (response.status_code, response.headers["connection"]) == (413, "close")


def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    with provide(Answer(), max_body_bytes=1000) as provider, closing(connect(provider)) as client:
        client.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert read_to_end(client).startswith(b"HTTP/1.1 413 ")


def test_a_head_that_is_too_long_is_refused() -> None:
    with provide(Answer(), max_header_bytes=1000) as provider, closing(connect(provider)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2000)
        assert read_to_end(client).startswith(b"HTTP/1.1 431 ")


def test_what_is_not_http_is_refused() -> None:
    with provide(Answer()) as provider, closing(connect(provider)) as client:
        client.sendall(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
        assert read_to_end(client).startswith(b"HTTP/1.1 400 ")


def test_connections_over_the_limit_get_a_503_and_then_there_is_room_again() -> None:
    with provide(StallAfter(0), Answer(), max_connections=1) as provider:
        with closing(connect(provider)) as first:
            first.sendall(raw_request())
            provider.wait_for(lambda s: s.faults_injected == 1)
            refused = post(provider)
            assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        provider.wait_for(lambda s: s.active_connections == 0)
        assert post(provider).status_code == 200
        assert provider.statistics().refused_connections == 1


def test_two_hundred_streams_at_once_are_all_served() -> None:
    with provide(Answer(tokens=("x",) * 5, pace=0.01)) as provider:
        clients = [connect(provider) for _ in range(200)]
        for client in clients:
            client.sendall(raw_request(headers="Connection: close\r\n"))
        for client in clients:
            with closing(client):
                assert read_to_end(client).count(b'{"content":"x"}') == 5
        assert provider.wait_for(lambda s: s.active_connections == 0).streams_completed == 200


# --- life ---------------------------------------------------------------------------------------------------------


def test_after_a_stop_there_is_no_thread_and_no_listener() -> None:
    provider = provide(Answer()).start()
    address = (provider.host, provider.port)
    assert any(thread.name == f"loopback-{address[1]}" for thread in threading.enumerate())
    post(provider)
    provider.stop()
    provider.stop()
    assert not any(thread.name == f"loopback-{address[1]}" for thread in threading.enumerate())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5).close()
    with pytest.raises(SystemStopped):
        _ = provider.base_url
    assert repr(provider) == "LoopbackProvider(stopped)"
    assert provider.statistics().requests == 1


def test_a_stop_closes_streams_under_way_and_idle_connections() -> None:
    provider = provide(StallAfter(0)).start()
    with closing(connect(provider)) as busy, closing(connect(provider)) as idle:
        busy.sendall(raw_request())
        provider.wait_for(lambda s: s.faults_injected == 1 and s.connections == 2)
        provider.stop()
        read_to_end(busy)
        assert idle.recv(1) == b""
    statistics = provider.statistics()
    assert (statistics.active_connections, statistics.active_responses, statistics.client_disconnects) == (0, 0, 0)


def test_a_stop_with_grace_lets_an_answer_end() -> None:
    provider = provide(Answer(tokens=("@",) * 4, pace=0.02)).start()
    with closing(connect(provider)) as client:
        client.sendall(raw_request())
        data = read_until(client, b'":"@"')
        provider.stop(grace=5)
        data += read_to_end(client)
    assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_stop_while_clients_are_connecting_leaves_nothing() -> None:
    for _ in range(10):
        provider = provide(Answer()).start()
        clients = [connect(provider) for _ in range(10)]
        provider.stop()
        for client in clients:
            client.close()
        assert provider.statistics().active_connections == 0


def test_it_can_be_started_again() -> None:
    provider = provide(Status(503), Answer())
    with provider:
        assert post(provider).status_code == 503
    with provider:
        assert post(provider).status_code == 200


def test_a_port_that_is_taken_is_an_option_error() -> None:
    with provide(Answer()) as provider:
        with pytest.raises(OptionError, match="in use") as caught:
            LoopbackProvider(port=provider.port).start()
        assert (caught.value.field, caught.value.got) == ("port", provider.port)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"script": 3}, "script"),
        ({"host": ""}, "host"),
        ({"port": 70_000}, "port"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_header_bytes": 1}, "max_header_bytes"),
        ({"history": -1}, "history"),
    ],
)
def test_an_argument_that_is_not_allowed_is_refused_by_name(more: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        LoopbackProvider(**more)
    assert caught.value.field == field


def test_serving_tells_when_it_is_ready_and_ends_when_it_is_stopped() -> None:
    seen: list[int] = []

    def ready(provider: LoopbackProvider) -> None:
        connection = http.client.HTTPConnection(provider.host, provider.port, timeout=5)
        connection.request("GET", "/healthz")
        seen.append(connection.getresponse().status)
        connection.close()
        provider.stop()

    serve(port=0, ready=ready)
    assert seen == [200]


def test_an_interrupt_ends_serving_quietly() -> None:
    def ready(provider: LoopbackProvider) -> None:
        raise KeyboardInterrupt

    serve(port=0, ready=ready)
