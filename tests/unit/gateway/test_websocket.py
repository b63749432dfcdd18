"""How a WebSocket of the gateway closes: for the first reason, in bounded time, and without beginning anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.config.gateway import GatewayOptions
from penstock.gateway import responses_connection
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
        self.is_valid = True
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        guard = SimpleNamespace(is_valid=lambda key: self.is_valid, check_scope=lambda key, scope: None)
        self.gateway = SimpleNamespace(
            guard=guard,
            limits=SimpleNamespace(admit=lambda key, now: None),
            readers=set(),
            is_ending=False,
            ticker=None,
            options=GatewayOptions(),
        )
        exchange = SimpleNamespace(max_body=10_000, scope={})
        call: Any = SimpleNamespace(gateway=self.gateway, key=None, exchange=exchange, request_id="r")
        self.one = kind(call, self.incoming.get, self.send)

    async def send(self, message: dict[str, Any]) -> None:
        assert len(self.sent) < MOST, "it does not close"
        self.sent.append(message)
        await asyncio.sleep(0)

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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests for which a response was begun."""
    made: list[Any] = []

    async def begin(call: Any, body: Any, *rest: Any, **more: Any) -> Any:
        made.append(body)
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
        for _ in range(10):
            await asyncio.sleep(0)
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


def test_a_request_that_waits_is_begun_if_it_does_not_close(opened: list[Any]) -> None:
    async def work() -> None:
        far = Far(ResponsesConnection)
        read(far, Short(), terminal=SimpleNamespace(stream_id="resp_1"))
        writer = asyncio.ensure_future(far.one._write())
        while not opened:
            await asyncio.sleep(0)
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
        for _ in range(10):
            await asyncio.sleep(0)
        assert opened == []
        assert not far.one.is_reading
        listener.cancel()

    run(work())


@pytest.mark.parametrize(("kind", "message"), [(StreamSocket, '{"op":"ping"}'), (ResponsesConnection, CREATE)])
def test_no_message_is_handled_while_it_closes(kind: Any, message: str, opened: list[Any]) -> None:
    async def work() -> None:
        far = Far(kind)
        far.drain()
        far.say(message)
        listener = asyncio.ensure_future(far.one._listen())
        for _ in range(10):
            await asyncio.sleep(0)
        listener.cancel()
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
