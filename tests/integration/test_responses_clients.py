"""The official client of OpenAI reads the Responses projection from a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import openai
import pytest

from penstock.errors import IncompleteStream
from penstock.events import (
    AnswerPart,
    Event,
    MediaPart,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    TerminalEvent,
    ToolCall,
)
from penstock.gateway.answers.responses import answer, queued
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening, joined
from penstock.gateway.projections.responses import ResponsesProjection, error_body
from penstock.gateway.projections.responses_socket import Action, LaneBook, Send, StartResponse, StopResponse
from penstock.gateway.requests.responses import continued, parse
from tests.integration.raw_server import CHUNKED_ONCE, Peer, RawServer, chunk
from tests.unit.gateway.responses_kit import (
    SID,
    call_of,
    cited,
    completed,
    done,
    numbered,
    opening,
    piece,
    restarted,
    started,
    text,
)

Serve = Callable[[str, dict[str, Any]], Iterable[bytes]]
"""Makes the writes of an answer of the request's target and body; the first one may be a whole HTTP response."""


class _Log:
    """The frames of a stream, as the gateway keeps them for all readers."""

    def __init__(self, events: Sequence[Any], at: Opening | None = None) -> None:
        self.opening = at or opening()
        self.projection = ResponsesProjection(self.opening)
        self.events: list[Event] = numbered(events)
        self.frames: list[Frame] = [frame for event in self.events for frame in self.projection.feed(event)]

    def after(self, number: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.number > number]

    @property
    def end(self) -> TerminalEvent:
        found: Any = self.events[-1]
        return found  # type: ignore[no-any-return]


@contextmanager
def serving(serve: Serve) -> Iterator[openai.OpenAI]:
    """A client of a server that answers each request with the writes of ``serve``."""

    def handle(peer: Peer) -> None:
        head, _, body = peer.read_request().partition(b"\r\n\r\n")
        if not head:
            return
        target = head.split(b" ", 2)[1].decode()
        for number, data in enumerate(serve(target, json.loads(body or b"{}"))):
            if data.startswith(b"HTTP/1.1 "):
                peer.send(data)
                return
            if number == 0:
                peer.send(CHUNKED_ONCE)
            peer.send(chunk(data))
        peer.send(b"0\r\n\r\n")

    with RawServer(handle) as server:
        url = f"http://localhost:{server.port}/v1"
        with openai.OpenAI(api_key="sk-test", base_url=url, max_retries=0, timeout=10) as client:
            yield client


def whole(body: Any, status: str = "200 OK") -> bytes:
    """An answer that is not streamed."""
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + data


def plain(log: _Log) -> Serve:
    """The whole stream in one write, its pieces merged."""
    return lambda target, body: [joined(log.frames, log.projection)]


def beating(log: _Log) -> Serve:
    """Each frame by itself, with a heartbeat before and after it."""
    return lambda target, body: [
        part for frame in log.frames for part in (log.projection.heartbeat, frame.data, log.projection.heartbeat)
    ]


HELLO = [text("Hel"), text("lo"), done("Hello")]


@pytest.mark.parametrize("serve", [plain, beating])
def test_the_events_of_a_stream_are_typed_and_the_text_is_whole(serve: Callable[[_Log], Serve]) -> None:
    with serving(serve(_Log(HELLO))) as client, client.responses.create(model="m", input="Hi", stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events))) or serve is plain
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello"
    last = events[-1]
    assert last.type == "response.completed"
    assert (last.response.output_text, last.response.id, last.response.status) == ("Hello", SID, "completed")
    assert last.response.usage is not None
    assert (last.response.usage.input_tokens, last.response.usage.total_tokens) == (3, 5)
    assert {type(event).__name__ for event in events} >= {"ResponseCreatedEvent", "ResponseCompletedEvent"}


RUN = ToolCall(id="c2", name="run", arguments="ls", arguments_raw="ls", type="custom")
EVERYTHING: list[Any] = [
    text("Hm", "reasoning"),
    text("So", "reasoning", 1),
    ReasoningBlockClosed(index=0, kind="reasoning", signature="seal", id="rs_1", provider="openai"),
    text("Let me see.", part=1, phase="commentary"),
    ServerToolCall(id="ws_1", name="web_search", input={"query": "cats"}),
    ServerToolResult(id="ws_1", name="web_search", output={"sources": [{"type": "url", "url": "https://x.test"}]}),
    ServerToolCall(id="ci_1", name="code_interpreter", input={"code": "print(1)", "container_id": "k"}),
    ServerToolResult(id="ci_1", name="code_interpreter", output=[{"type": "logs", "logs": "1"}]),
    ServerToolCall(id="mcp_1", name="mcp", input={"server_label": "s", "name": "echo", "arguments": {}}),
    ServerToolResult(id="mcp_1", name="mcp", output="hi"),
    MediaPart(kind="image", mime="image/png", data="AA==", id="ig_1", is_partial=True),
    MediaPart(kind="image", mime="image/png", data="BB==", id="ig_1"),
    text("Cats.", part=2, phase="final_answer"),
    cited(11, 16),
    text("No.", "refusal", 2, phase="final_answer"),
    started(0),
    piece('{"x":1}'),
    started(1, "c2", "run"),
    piece("ls", 1),
    completed(call_of(), 0),
    completed(RUN, 1),
    done("Let me see.Cats.", tool_calls=(call_of(), RUN), finish_reason="tool_calls"),
]


@pytest.mark.parametrize("serve", [plain, beating])
def test_every_kind_of_item_is_accumulated_by_the_stream_helper(serve: Callable[[_Log], Serve]) -> None:
    log = _Log(EVERYTHING, opening({"tools": [{"type": "custom", "name": "run"}]}))
    with serving(serve(log)) as client, client.responses.stream(model="m", input="Hi") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots == ["Let me see.", "Cats."]
    assert [item.type for item in final.output] == [
        *["reasoning", "message", "web_search_call", "code_interpreter_call", "mcp_call"],
        *["image_generation_call", "message", "function_call", "custom_tool_call"],
    ]
    assert final.output_text == "Let me see.Cats."
    items: list[Any] = list(final.output)
    assert (items[0].encrypted_content, [part.text for part in items[0].summary]) == ("seal", ["Hm", "So"])
    assert items[2].action.sources[0].url == "https://x.test"
    assert items[3].outputs[0].logs == "1"
    assert (items[4].output, items[5].result) == ("hi", "BB==")
    assert items[6].content[0].annotations[0].url == "https://x.test"
    assert items[6].content[1].refusal == "No."
    assert (items[7].arguments, items[8].input) == ('{"x":1}', "ls")


def test_a_stream_that_is_cut_is_resumed_where_it_was_cut() -> None:
    log = _Log(EVERYTHING, opening({"tools": [{"type": "custom", "name": "run"}]}))

    def serve(target: str, body: dict[str, Any]) -> Iterable[bytes]:
        query = parse_qs(urlsplit(target).query)
        if body:
            return [frame.data for frame in log.frames[:17]]  # as if the connection had broken
        assert urlsplit(target).path == f"/v1/responses/{SID}"
        assert query["stream"] == ["true"]
        return [joined(log.after(int(query["starting_after"][0])), log.projection)]

    with serving(serve) as client:
        with client.responses.create(model="m", input="Hi", stream=True) as stream:
            first: list[Any] = list(stream)
        resumed: list[Any] = []
        with client.responses.retrieve(SID, stream=True, starting_after=first[-1].sequence_number) as rest:
            resumed += rest
    assert resumed[0].sequence_number == 17
    deltas: dict[str, str] = {}
    for event in (*first, *resumed):
        if isinstance(getattr(event, "delta", None), str):
            deltas[event.type] = deltas.get(event.type, "") + event.delta
    assert deltas["response.output_text.delta"] == "Let me see.Cats."
    assert deltas["response.reasoning_summary_text.delta"] == "HmSo"
    assert resumed[-1].type == "response.completed"


def test_a_reset_does_not_disturb_the_stream_helper() -> None:
    events = [text("Hel"), started(), piece("{"), restarted(), text("Hi"), done("Hi")]
    with serving(plain(_Log(events))) as client, client.responses.stream(model="m", input="Hi") as stream:
        assert stream.get_final_response().output_text == "Hi"


def test_a_response_that_failed_is_told_and_is_no_final_one() -> None:
    failed = StreamFailed(stream_id=SID, seq=0, partial="Hel", error=IncompleteStream("the connection was closed"))
    log = _Log([text("Hel"), failed])
    with serving(plain(log)) as client:
        with client.responses.create(model="m", input="Hi", stream=True) as stream:
            last: Any = list(stream)[-1]
        assert (last.type, last.response.status, last.response.error.code) == (
            "response.failed",
            "failed",
            "stream_interrupted",
        )
        with client.responses.stream(model="m", input="Hi") as helper, pytest.raises(RuntimeError, match="completed"):
            helper.get_final_response()


def test_a_reader_that_is_cut_off_gets_an_error() -> None:
    log = _Log([text("Hel")])
    slow = log.projection.cut(Problem(status=200, type="server_error", code="too_slow", message="Too slow."))
    seen: list[str] = []

    def read(client: openai.OpenAI) -> None:
        with client.responses.create(model="m", input="Hi", stream=True) as stream:
            seen.extend(event.type for event in stream)

    sent = [joined(log.frames, log.projection), slow]
    with serving(lambda target, body: sent) as client, pytest.raises(openai.APIError, match=r"Too slow\.") as caught:
        read(client)
    assert seen[-1] == "response.output_text.delta"
    assert (caught.value.code, caught.value.type) == ("too_slow", "server_error")


def test_an_error_before_the_first_event_has_its_status() -> None:
    busy = Problem(status=429, type="rate_limit_error", code="provider_busy", message="Busy.", param=None)
    refused = whole(error_body(busy), "429 Too Many Requests")
    with serving(lambda target, body: [refused]) as client, pytest.raises(openai.RateLimitError) as caught:
        client.responses.create(model="m", input="Hi", stream=True)
    assert (caught.value.code, caught.value.type) == ("provider_busy", "rate_limit_error")


def test_answers_that_are_not_streamed_are_typed_too() -> None:
    parts = (AnswerPart(index=0, kind="text", start=0, end=5),)
    end = done("Hello", parts=parts, tool_calls=(call_of(),), finish_reason="tool_calls")

    def serve(target: str, body: dict[str, Any]) -> Iterable[bytes]:
        at = opening(body)
        return [whole(queued(at) if body.get("background") else answer(end, at))]

    with serving(serve) as client:
        response = client.responses.create(model="m", input="Hi", instructions="Be brief.", temperature=0.5)
        waiting = client.responses.create(model="m", input="Hi", background=True)
    assert (response.output_text, response.instructions, response.temperature) == ("Hello", "Be brief.", 0.5)
    call: Any = response.output[1]
    assert (call.type, call.call_id, call.arguments) == ("function_call", "c1", '{"x":1}')
    assert (waiting.status, waiting.id, waiting.output) == ("queued", SID, [])


def test_what_the_client_sends_back_is_the_conversation() -> None:
    log = _Log([*EVERYTHING[:4], started(), completed(call_of()), done("Let me see.", finish_reason="tool_calls")])
    bodies: list[dict[str, Any]] = []

    def serve(target: str, body: dict[str, Any]) -> Iterable[bytes]:
        bodies.append(body)
        return plain(log)(target, body)

    with serving(serve) as client:
        with client.responses.stream(model="m", input="Hi") as stream:
            final = stream.get_final_response()
        sent: Any = [{"role": "user", "content": "Hi"}, *final.output]
        sent.append({"type": "function_call_output", "call_id": "c1", "output": "2"})
        with client.responses.stream(model="m", input=sent) as stream:
            stream.until_done()
    asked = parse(bodies[1])
    assert [item.get("type", item.get("role")) for item in asked.input] == [
        *["user", "reasoning", "message", "function_call", "function_call_output"],
    ]
    assert (asked.input[1]["id"], asked.input[1]["encrypted_content"]) == ("rs_1", "seal")
    assert asked.input[2]["phase"] == "commentary"


# --- the WebSocket mode -----------------------------------------------------------------------------------------------


class _Gateway:
    """What the gateway does with the actions of a connection: each response says what it was asked."""

    def __init__(self) -> None:
        self.book = LaneBook()
        self.count = 0
        self.ends: dict[str, tuple[Any, TerminalEvent]] = {}
        self.lanes: dict[str, str | None] = {}
        self.held: dict[str, tuple[StartResponse, ResponsesProjection]] = {}

    def run(self, actions: Iterable[Action]) -> Iterator[str]:
        for action in actions:
            if isinstance(action, Send):
                yield action.data.decode()
            elif isinstance(action, StartResponse):
                yield from self._start(action)
            else:
                yield from self._stop(action)

    def _start(self, start: StartResponse) -> Iterator[str]:
        identifier = f"resp_{self.count}"
        self.count += 1
        self.book.began(start.lane, identifier)
        projection = ResponsesProjection(opening(start.body, stream_id=identifier))
        previous = start.body.get("previous_response_id")
        given = start.asked.input
        if previous is not None:
            before, end = self.ends[previous]
            given = continued(end, before, start.body)
        said = json.dumps(given)
        self.ends[identifier] = given, done(said)
        (event,) = numbered([text(said)])
        yield from self._send(start.lane, projection.feed(event), projection)
        if "hold" in said and previous is None:
            self.held[identifier] = start, projection
            return
        yield from self._finish(start, projection, identifier, msgspec.structs.replace(done(said), seq=2))

    def _stop(self, stop: StopResponse) -> Iterator[str]:
        start, projection = self.held.pop(stop.response_id)
        given, before = self.ends[stop.response_id]
        end = StreamCancelled(stream_id=stop.response_id, seq=2, partial=before.text, reason=stop.reason)
        self.ends[stop.response_id] = given, end
        yield from self._finish(start, projection, stop.response_id, end)

    def _finish(
        self, start: StartResponse, projection: ResponsesProjection, identifier: str, end: TerminalEvent
    ) -> Iterator[str]:
        yield from self._send(start.lane, projection.feed(end), projection)
        if isinstance(end, StreamCompleted):
            self.ends[identifier] = self.ends[identifier][0], end
        yield from self.run(self.book.ended(start.lane, end))

    def _send(self, lane: str | None, frames: list[Frame], projection: ResponsesProjection) -> Iterator[str]:
        yield from self.run(self.book.frames(lane, joined(frames, projection), frames[-1].number))


def test_lanes_and_steering_with_the_official_client_over_a_websocket() -> None:
    websockets = pytest.importorskip("websockets.asyncio.server")

    async def handle(socket: Any) -> None:
        gateway = _Gateway()
        async for message in socket:
            for sent in gateway.run(gateway.book.receive(message)):
                await socket.send(sent)

    async def talk(client: openai.AsyncOpenAI) -> list[Any]:
        events: list[Any] = []
        async with client.responses.connect() as connection:
            await connection.response.create(model="m", input="one", stream_id="a")
            await connection.response.create(model="m", input="hold", stream_id="b", instructions="Be brief.")
            await connection.response.create(model="m", input="three", stream_id="a")
            await connection.response.steer(previous_response_id="resp_1", input="stop")
            await connection.response.create(model="m", input="x", background=True)
            async for event in connection:
                events.append(event)
                if event.type == "error":
                    return events
        raise AssertionError("the connection ended")

    async def main() -> list[Any]:
        async with websockets.serve(handle, "localhost", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with openai.AsyncOpenAI(api_key="k", base_url=f"http://localhost:{port}/v1") as client:
                return await asyncio.wait_for(talk(client), 20)

    events = asyncio.run(main())
    ends = [event for event in events if event.type in ("response.completed", "response.incomplete")]
    assert [(event.stream_id, event.type, event.response.id) for event in ends] == [
        ("a", "response.completed", "resp_0"),
        ("a", "response.completed", "resp_2"),
        ("b", "response.incomplete", "resp_1"),
        ("b", "response.completed", "resp_3"),
    ]
    assert ends[2].response.incomplete_details.reason == "steered"
    assert (ends[3].response.previous_response_id, ends[3].response.instructions) == ("resp_1", "Be brief.")
    assert [item["role"] for item in json.loads(ends[3].response.output_text)] == ["user", "assistant", "user"]
    accepted = next(event for event in events if event.type == "response.steer.accepted")
    assert (accepted.steer.previous_response_id, accepted.stream_id) == ("resp_1", "b")
    assert (events[-1].error.param, events[-1].status) == ("background", 400)
