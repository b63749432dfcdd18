"""How a WebSocket of the gateway closes: for the first reason, in bounded time, and without beginning anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.config.gateway import GatewayOptions
from penstock.errors import CallTimeout
from penstock.gateway import responses_connection
from penstock.gateway import socket as native
from penstock.gateway.problems import Problem
from penstock.gateway.responses_connection import ResponsesConnection
from penstock.gateway.socket import StreamSocket

KINDS = [StreamSocket, ResponsesConnection]
PATIENCE = 20.0
MOST = 50  # messages after which a connection counts as one that does not close
GOING = Problem(status=503, type="server_error", code="draining", message="It shuts down.")
CREATE = json.dumps({"type": "response.create", "model": "m", "input": "Hi"})


class Far:
    """A connection of one kind with a gateway that is none: what it sends is kept."""

    def __init__(self, kind: Any) -> None:
        self.before = asyncio.all_tasks()
        self.is_valid = True
        self.sent: list[dict[str, Any]] = []
        self.news = asyncio.Event()  # something was sent
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        guard = SimpleNamespace(is_valid=lambda key: self.is_valid, check_scope=lambda key, scope: None)
        self.gateway = SimpleNamespace(
            guard=guard,
            limits=SimpleNamespace(admit=lambda key, now: None),
            readers=set(),
            is_ending=False,
            ticker=None,
            tally=SimpleNamespace(reader_gone=lambda protocol, outcome: None),
            options=GatewayOptions(),
        )
        exchange = SimpleNamespace(max_body=10_000, scope={})
        call: Any = SimpleNamespace(gateway=self.gateway, key=None, exchange=exchange, request_id="r")
        self.one = kind(call, self.incoming.get, self.send)

    async def send(self, message: dict[str, Any]) -> None:
        assert len(self.sent) < MOST, "it does not close"
        self.sent.append(message)
        self.news.set()
        await asyncio.sleep(0)

    async def has_sent(self, count: int) -> None:
        """Wait until it has sent as many messages."""
        while len(self.sent) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE)

    async def settle(self) -> None:
        """Wait for the tasks that were begun since the connection was made."""
        while others := asyncio.all_tasks() - self.before - {asyncio.current_task()}:
            _, left = await asyncio.wait(others, timeout=PATIENCE)
            assert not left, left

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def revoke(self) -> None:
        self.is_valid = False
        self.one.look(self.one._loop.time())

    def drain(self) -> None:
        self.one.cut(GOING)

    def expire(self) -> None:
        self.one.look(self.one._loop.time() + 4_000.0)

    def serve(self) -> Any:
        return self.one.run(is_authenticated=True) if isinstance(self.one, StreamSocket) else self.one.run()

    async def code(self) -> int:
        """Let it close; the code of the closing."""
        await asyncio.wait_for(self.one._write(), PATIENCE)
        assert self.sent[-1]["type"] == "websocket.close"
        code: int = self.sent[-1]["code"]
        return code


class Endless:
    """A shelf that always has one more frame."""

    end = 1 << 40

    def read_some(self, place: int, limit: int) -> tuple[bytes, int, Any]:
        return b'data: {"a":1}\n\n', place + 1, SimpleNamespace(number=place, seq=place)


class Short(Endless):
    end = 1


def read(far: Far, shelf: Any, terminal: Any = None) -> None:
    """Have the connection read a stream; one of the Responses API has a request under way and one that waits."""
    projector: Any = SimpleNamespace(
        shelf=shelf, error=None, terminal=terminal, is_over=terminal is not None, detach=lambda reader: None
    )
    if isinstance(far.one, StreamSocket):
        far.one._readings["s"] = reading = SimpleNamespace(projector=projector, place=0, credit=1 << 40, flight=[])  # type: ignore[assignment]
        assert reading.place == 0
        return
    for _ in range(2):
        far.one._book.receive(CREATE)
    far.one._book.began(None, "resp_1")
    far.one._lanes[None] = responses_connection._LaneReading(None, projector)  # type: ignore[arg-type]


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


class Made(list[Any]):
    """The requests for which a response was begun."""

    def __init__(self) -> None:
        self.has_any = asyncio.Event()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()

    async def begin(call: Any, body: Any, *rest: Any, **more: Any) -> Any:
        made.append(body)
        made.has_any.set()
        raise RuntimeError("enough")

    monkeypatch.setattr(responses_connection, "begin_response", begin)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reasons", "code"), [((Far.revoke, Far.drain), 4001), ((Far.drain, Far.revoke), 1001)])
def test_the_first_reason_to_close_counts(kind: Any, reasons: tuple[Callable[[Far], None], ...], code: int) -> None:
    async def work() -> None:
        far = Far(kind)
        for reason in reasons:
            reason(far)
        assert await far.code() == code

    run(work())


def test_a_connection_that_is_too_old_says_so_once_whatever_comes_then() -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        for reason in (far.expire, far.drain, far.revoke, far.expire):
            reason()
        assert await far.code() == 1000
        (told,) = (json.loads(message["text"]) for message in far.sent[:-1])
        assert told["error"]["code"] == "websocket_connection_limit_reached"

    run(work())


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_too_long_does_not_change_the_code(kind: Any) -> None:
    async def work() -> None:
        far = Far(kind)
        far.drain()
        far.say("x" * 20_000)
        await asyncio.wait_for(far.one._listen(), PATIENCE)
        assert await far.code() == 1001

    run(work())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reason", "code"), [(Far.revoke, 4001), (Far.drain, 1001)])
def test_streams_that_always_have_frames_do_not_keep_it_open(kind: Any, reason: Any, code: int) -> None:
    async def work() -> None:
        far = Far(kind)
        read(far, Endless())
        reason(far)
        assert await far.code() == code
        assert [message["type"] for message in far.sent] == ["websocket.send", "websocket.close"]

    run(work())


@pytest.mark.parametrize("reason", [Far.revoke, Far.drain, Far.expire])
def test_a_request_that_waits_is_not_begun_while_it_closes(reason: Any, opened: list[Any]) -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        read(far, Short(), terminal=SimpleNamespace(stream_id="resp_1"))
        reason(far)
        await far.code()
        await far.settle()
        assert far.sent[-2]["text"] == '{"a":1}' or reason is Far.expire

    run(work())
    assert opened == []


def test_a_request_that_waits_is_not_begun_with_a_key_that_was_revoked_since_the_last_look(opened: list[Any]) -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        read(far, Short(), terminal=SimpleNamespace(stream_id="resp_1"))
        far.is_valid = False
        assert await far.code() == 4001

    run(work())
    assert opened == []


def test_a_request_that_waits_is_begun_if_it_does_not_close(opened: Made) -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        read(far, Short(), terminal=SimpleNamespace(stream_id="resp_1"))
        writer = asyncio.ensure_future(far.one._write())
        await asyncio.wait_for(opened.has_any.wait(), PATIENCE)
        far.drain()
        await asyncio.wait_for(writer, PATIENCE)

    run(work())
    assert len(opened) == 1


def test_a_request_that_is_being_begun_is_given_up_when_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        began, may_go_on, opened = asyncio.Event(), asyncio.Event(), []

        async def begin(call: Any, body: Any, *rest: Any, **more: Any) -> Any:
            began.set()
            await may_go_on.wait()  # as for the response that it continues
            opened.append(body)
            raise RuntimeError("enough")

        monkeypatch.setattr(responses_connection, "begin_response", begin)
        far = Far(ResponsesConnection)
        listener = asyncio.ensure_future(far.one._listen())
        far.say(CREATE)
        await asyncio.wait_for(began.wait(), PATIENCE)
        far.drain()
        may_go_on.set()
        assert await far.code() == 1001
        listener.cancel()
        await far.settle()
        assert opened == []
        assert not far.one.is_reading

    run(work())


def test_the_answer_to_a_subscription_comes_before_its_events() -> None:
    async def work() -> None:
        far = Far(StreamSocket)
        sent = far.one._send_message

        async def subscribed_meanwhile(message: dict[str, Any]) -> None:
            far.one._send_message = sent
            await sent(message)
            read(far, Short(), terminal=object())
            far.one._answer(2, {"sid": "s"})

        far.one._send_message = subscribed_meanwhile
        far.one._answer(1, {"ok": True})
        writer = asyncio.create_task(far.one._write())
        await far.has_sent(3)
        writer.cancel()
        answers = [json.loads(message["text"]) for message in far.sent[:2]]
        assert answers == [{"ref": 1, "ok": True}, {"ref": 2, "sid": "s"}]

    run(work())


@pytest.mark.parametrize(("kind", "message"), [(StreamSocket, '{"op":"ping"}'), (ResponsesConnection, CREATE)])
def test_no_message_is_handled_while_it_closes(kind: Any, message: str, opened: list[Any]) -> None:
    async def work() -> None:
        far = Far(kind)
        far.drain()
        far.say(message)
        await asyncio.wait_for(far.one._listen(), PATIENCE)
        await far.settle()
        assert await far.code() == 1001
        assert len(far.sent) == 1

    run(work())
    assert opened == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_takes_nothing_does_not_keep_it_open(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.websocket._LAST_MOMENT", 0.0)

    async def work() -> None:
        is_stuck = asyncio.Event()

        class Stuck(Far):
            async def send(self, message: dict[str, Any]) -> None:
                if message["type"] != "websocket.accept":
                    is_stuck.set()
                    await asyncio.get_running_loop().create_future()

        far = Stuck(kind)
        read(far, Endless())
        serving = asyncio.ensure_future(far.serve())
        await asyncio.wait_for(is_stuck.wait(), PATIENCE)
        far.revoke()
        await asyncio.wait_for(serving, PATIENCE)
        assert not far.gateway.readers

    run(work())


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_accepted_after_the_others_were_cut_is_closed_too(kind: Any) -> None:
    async def work() -> None:
        far = Far(kind)
        far.gateway.is_ending = True
        await asyncio.wait_for(far.serve(), PATIENCE)
        assert (far.sent[-1]["type"], far.sent[-1]["code"]) == ("websocket.close", 1001)

    run(work())


# --- what it bounds, and what it logs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_a_message_is_that_of_its_utf8(kind: Any) -> None:
    async def work() -> None:
        far = Far(kind)
        far.say("é" * 6_000)  # of 10,000 bytes that it may have
        await asyncio.wait_for(far.one._listen(), PATIENCE)
        assert await far.code() == 1009

    run(work())


def faults(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of what was logged as a fault of a socket."""
    fields = [record.penstock for record in caplog.records if hasattr(record, "penstock")]
    return [one for one in fields if one.get("event") == "socket_failed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("part", "method"), [("writer", "_send_share"), ("listener", "_handle")])
def test_a_fault_of_its_own_is_logged_and_closes_it(
    kind: Any, part: str, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = "secret"

    async def fail(self: Any, *given: Any) -> Any:
        raise ValueError(text)

    async def work() -> Far:
        far = Far(kind)
        far.say('{"op":"ping"}')
        with monkeypatch.context() as patched:
            patched.setattr(kind, method, fail)
            await asyncio.wait_for(far.serve(), PATIENCE)
        return far

    far = asyncio.run(work())
    assert (far.sent[-1]["type"], far.sent[-1]["code"]) == ("websocket.close", 1011)
    (told,) = faults(caplog)
    assert (told["part"], told["reason"], told["request_id"]) == (part, "ValueError", "r")
    assert text not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_work_under_way_is_logged(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("secret")

    async def work() -> None:
        far = Far(kind)
        far.one._begin(fail())
        assert await far.code() == 1011

    run(work())
    assert [one["part"] for one in faults(caplog)] == ["work"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_client_that_has_left_is_no_fault(kind: Any, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Gone(Far):
        async def send(self, message: dict[str, Any]) -> None:
            if message["type"] != "websocket.accept":
                raise error("gone")

    async def work() -> None:
        far = Gone(kind)
        read(far, Endless())
        await asyncio.wait_for(far.serve(), PATIENCE)
        assert not far.gateway.readers

    run(work())
    assert faults(caplog) == []


def test_operations_that_run_at_once_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_MOST_BYTES", 1_000)

    async def work() -> None:
        may_go_on = asyncio.Event()

        async def wait(call: Any, message: Any) -> dict[str, Any]:
            await may_go_on.wait()
            return {}

        monkeypatch.setattr(native, "OPERATIONS", {"wait": ("write", wait)})
        far = Far(StreamSocket)
        one: Any = far.one

        async def ask(ref: int, size: int) -> None:
            await one._handle(json.dumps({"op": "wait", "ref": ref, "x": "x" * size}).encode())

        await ask(1, 5_000)  # alone, it may be larger
        await ask(2, 10)
        (refused,) = (json.loads(data) for data in one._outgoing)
        assert (refused["ref"], refused["error"]["code"]) == (2, "too_many_operations")
        may_go_on.set()
        await asyncio.gather(*one._tasks)
        await ask(3, 10)
        await ask(4, 10)
        await asyncio.gather(*one._tasks)
        answers = [json.loads(data) for data in list(one._outgoing)[1:]]
        assert [(answer["ref"], answer["ok"]) for answer in answers] == [(1, True), (3, True), (4, True)]

    run(work())


def test_responses_that_are_kept_to_be_continued_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_connection, "_LARGEST_KEPT", 1_000, raising=False)

    async def work() -> None:
        one: Any = Far(ResponsesConnection).one
        for number, size in enumerate((400, 400, 400, 5_000, 300, 300)):
            one._keep(f"resp_{number}", SimpleNamespace(size=size))
            kept = {2: [1, 2], 3: [3], 5: [4, 5]}.get(number)
            assert kept is None or list(one._own) == [f"resp_{each}" for each in kept]
        for number in range(100):
            one._keep(f"more_{number}", SimpleNamespace(size=1))
        assert len(one._own) == responses_connection._MOST_KEPT

    run(work())


def test_a_response_that_cannot_be_stopped_in_time_gives_the_input_back(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        one: Any = far.one
        asked: list[str] = []

        async def where_it_runs(channel: Any, function: Any, reason: str) -> None:
            asked.append(reason)
            raise CallTimeout("the end of a stream", 1.0)

        far.gateway.where_it_runs = where_it_runs
        far.gateway.admit_stream = lambda key, instead_of: None
        read(far, Short())
        one._lanes[None].channel = SimpleNamespace(stream_id="resp_1", agent_id="", stream=SimpleNamespace(cancel=None))
        steer = json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "x"}).encode()
        for _ in range(2):
            await one._handle(steer)
            await asyncio.gather(*one._tasks)
        told = [json.loads(data) for data in one._outgoing]
        kinds = ["response.steer.accepted", "response.steer.failed"]
        assert [one["type"] for one in told] == kinds * 2
        assert (told[1]["error"]["code"], told[1]["steer"]["input"]) == ("busy", "x")
        assert asked == ["steered"] * 2

    run(work())
    logged = [record.penstock for record in caplog.records if hasattr(record, "penstock")]
    assert [(one["event"], one["stream_id"]) for one in logged] == [("steer_failed", "resp_1")] * 2
