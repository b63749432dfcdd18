"""What one WebSocket may take of the server: memory, sizes of messages; and a fault of ours is told on it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from penstock.adapters.loopback.script import Answer, Script
from penstock.config.gateway import GatewayOptions
from penstock.gateway.bodies import decode_object
from penstock.gateway.keys import KeyFile, new_key
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.gateway.projections.socket import SocketProjection
from penstock.gateway.responses_connection import ResponsesConnection
from penstock.gateway.socket import StreamSocket
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, gateway

STEER = json.dumps({"type": "response.steer", "previous_response_id": "x", "input": "y" * 5_000})
PING = json.dumps({"op": "ping", "ref": "x" * 250})


@pytest.mark.parametrize(("kind", "message"), [(StreamSocket, PING), (ResponsesConnection, STEER)])
def test_no_more_messages_are_taken_from_a_client_that_does_not_read(kind: Any, message: str) -> None:
    async def run() -> None:
        taken = 0

        async def receive() -> dict[str, Any]:
            nonlocal taken
            taken += 1
            assert taken < 10_000, "it takes messages without a bound"
            await asyncio.sleep(0)
            return {"type": "websocket.receive", "text": message}

        async def send(given: Any) -> None:
            await asyncio.get_running_loop().create_future()

        exchange = SimpleNamespace(max_body=1_000_000)
        call: Any = SimpleNamespace(gateway=SimpleNamespace(options=GatewayOptions()), exchange=exchange)
        one = kind(call, receive, send)
        tasks = [asyncio.ensure_future(one._listen()), asyncio.ensure_future(one._write())]
        before = -1
        while taken != before:
            before = taken
            for _ in range(100):
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results

    asyncio.run(run())


def test_a_ref_is_short() -> None:
    with gateway() as server, connect(f"{server.ws}/v1/ws") as socket:
        socket.send(json.dumps({"op": "ping", "ref": "x" * 257}))
        assert json.loads(socket.recv(PATIENCE)) == {"ok": True}


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/responses"])
def test_a_message_that_is_too_long_closes_the_socket(path: str) -> None:
    with gateway(max_body=2_000) as server, connect(f"{server.ws}{path}") as socket:
        socket.send(json.dumps({"op": "ping", "type": "response.create", "input": "y" * 3_000}))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/responses"])
def test_a_socket_is_one_of_the_readers_that_there_may_be(path: str) -> None:
    with gateway(max_readers=1) as server:
        with connect(f"{server.ws}{path}"):
            with pytest.raises(InvalidStatus) as refused, connect(f"{server.ws}{path}"):
                pass
            assert refused.value.response.status_code == 403
            stream_id = server.post("/v1/streams", {}).json()["stream_id"]
            answer = server.get(f"/v1/streams/{stream_id}/events")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_readers")
        eventually(lambda: not server.gateway._places)  # freed after its reader is gone
        with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
            assert answer.status_code == 200
            with pytest.raises(InvalidStatus), connect(f"{server.ws}{path}"):
                pass
        server.system.stream(stream_id).cancel()


def test_a_socket_that_has_not_shown_its_key_yet_has_a_place_too(tmp_path: Path) -> None:
    secret, key = new_key("one")
    KeyFile(tmp_path / "keys").write([key])
    with (
        gateway(max_readers=1, keys=str(tmp_path / "keys")) as server,
        connect(f"{server.ws}/v1/ws") as first,
    ):
        for _ in range(2):
            with pytest.raises(InvalidStatus), connect(f"{server.ws}/v1/ws"):
                pass
            first.send(json.dumps({"op": "auth", "key": secret}))
            first.recv(PATIENCE)


def test_limits_of_a_body_hold_for_messages_of_the_responses_api() -> None:
    with gateway(max_depth=10, max_messages=5) as server, connect(f"{server.ws}/v1/responses") as socket:
        deep: Any = []
        for _ in range(20):
            deep = [deep]
        for body, code in (({"x": deep}, "nested_too_deeply"), ({"input": ["x"] * 50}, "too_many_messages")):
            socket.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi", **body}))
            assert json.loads(socket.recv(PATIENCE))["error"]["code"] == code


@pytest.mark.parametrize("body", ["[" + "[]," * 300_000 + "[]]", "[" + "1," * 2_100_000 + "1]"])
def test_a_body_of_very_many_values_is_refused_before_it_is_decoded(body: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        decode_object(f'{{"a":{body}}}', GatewayOptions())
    assert refused.value.problem.code == "too_many_values"


def test_a_fault_in_showing_a_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, event: Any) -> Any:
        raise ValueError("boom")

    monkeypatch.setattr(SocketProjection, "feed", fail)
    monkeypatch.setattr(ResponsesProjection, "feed", fail)
    with gateway(Script(Answer("Hi."))) as server:
        with connect(f"{server.ws}/v1/ws") as socket:
            socket.send(json.dumps({"op": "start", "ref": 1}))
            socket.recv(PATIENCE)
            sid = server.get("/v1/streams").json()["streams"][0]["stream_id"]
            server.post(f"/v1/streams/{sid}/tokens", {"text": "x", "end": True})
            (event,) = json.loads(socket.recv(PATIENCE))
            assert (event["sid"], event["type"], event["code"]) == (sid, "cut", "internal_error")
        with connect(f"{server.ws}/v1/responses") as socket:
            socket.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi"}))
            told = json.loads(socket.recv(PATIENCE))
            assert (told["type"], told["error"]["code"]) == ("error", "internal_error")
