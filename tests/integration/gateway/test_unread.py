"""Streams that get no reader do not run to their end; and what each key may open."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from websockets.sync.client import connect

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.errors import CallTimeout
from penstock.gateway.channels import Channel
from penstock.gateway.keys import ANONYMOUS, KeyFile, new_key
from penstock.gateway.starlette import sse_response
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway, served

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)
MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "m", "messages": MESSAGES}


def running(server: Served) -> int:
    return len(server.system.get_active_streams())


def test_a_request_that_may_not_read_opens_nothing() -> None:
    ui = {"model": "m", "id": "c", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
    run = {
        "threadId": "t",
        "runId": "r",
        "messages": [{"id": "1", "role": "user", "content": "Hi"}],
        "forwardedProps": {"model": "m"},
    }
    with gateway(Script(ENDLESS), max_readers=1) as server:
        stream_id = server.post("/v1/streams", {"on_orphan": "continue"}).json()["stream_id"]
        with server.get(f"/v1/streams/{stream_id}/events", stream=True):
            for path, body in (
                ("/v1/chat/completions", CHAT),
                ("/v1/responses", {"model": "m", "input": "Hi"}),
                ("/v1/messages", {**CHAT, "max_tokens": 9}),
                ("/v1/ui/chat", ui),
                ("/v1/agui", run),
            ):
                for stream in (True, False):
                    assert server.post(path, {**body, "stream": stream}).status_code in (503, 529)
                    assert running(server) == 1
        server.post(f"/v1/streams/{stream_id}/cancel")


def test_a_warm_up_that_cannot_be_ended_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stream: penstock.Stream) -> None:
        raise CallTimeout("the end of a stream", 1.0)

    monkeypatch.setattr(penstock.Stream, "stop", fail)
    with gateway(on_orphan="cancel") as server, connect(f"{server.ws}/v1/responses") as socket:
        socket.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi", "generate": False}))
        assert json.loads(socket.recv(PATIENCE))["error"]["code"] == "busy"
        eventually(lambda: not running(server))


def test_a_stream_whose_opener_has_gone_meanwhile_is_entered_and_left_alone() -> None:
    with gateway(Script(ENDLESS)) as server:
        opens, may_open = threading.Event(), threading.Event()

        def open_slowly() -> penstock.Stream:
            opens.set()
            assert may_open.wait(PATIENCE)
            return server.system.chat("m", "Hi", provider="openai", stream_id="late", on_orphan="cancel")

        entering = server.gateway.enter(ANONYMOUS, open_slowly, lambda stream: Channel(stream, owner="anonymous"))
        waiting = asyncio.run_coroutine_threadsafe(entering, server.gateway.ticker.loop)
        assert opens.wait(PATIENCE)
        waiting.cancel()
        may_open.set()
        eventually(lambda: server.get("/v1/streams/late").status_code == 200)
        server.finish("late")


def test_a_socket_whose_message_is_wrong_opens_nothing() -> None:
    with gateway(Script(ENDLESS)) as server, connect(f"{server.ws}/v1/ws") as socket:
        socket.send(json.dumps({"op": "start", "on_orphan": "cancel", "window": 5, "provider": "openai", **CHAT}))
        assert json.loads(socket.recv(PATIENCE))["error"]["param"] == "window"
        assert running(server) == 0


def test_a_hosts_stream_ends_if_the_cursor_is_none() -> None:
    streams: list[penstock.Stream] = []
    with penstock.System() as system:

        async def endpoint(request: Any) -> Any:
            streams.append(system.open_stream(on_orphan="cancel"))
            return sse_response(streams[-1], "native", request)

        with served(system, Starlette(routes=[Route("/", endpoint)])) as server:
            assert server.get("/?after=nonsense").status_code == 400
            assert server.request("HEAD", "/").status_code == 200
            eventually(lambda: [stream.is_over for stream in streams] == [True, True])


@pytest.fixture
def two_keys(tmp_path: Path) -> tuple[str, dict[str, str], dict[str, str]]:
    made = [new_key("ann", streams=1), new_key("bob")]
    KeyFile(tmp_path / "keys").write([key for _, key in made])
    ann, bob = ({"authorization": f"Bearer {secret}"} for secret, _ in made)
    return str(tmp_path / "keys"), ann, bob


def test_a_keys_streams_are_counted_while_they_are_opened(two_keys: tuple[str, dict[str, str], dict[str, str]]) -> None:
    path, ann, _ = two_keys
    with gateway(keys=path) as server, ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(lambda _: server.post("/v1/streams", {}, headers=ann).status_code, range(12)))
        assert sorted(codes) == [201, *[429] * 11]
        assert not server.gateway._opening


def test_an_id_of_another_keys_stream_is_not_taken(two_keys: tuple[str, dict[str, str], dict[str, str]]) -> None:
    path, ann, bob = two_keys
    with gateway(Script(Answer("Hi.")), keys=path) as server:
        body = {"model": "m", "input": "secret", "penstock": {"stream_id": "resp_x"}}
        assert server.post("/v1/responses", body, headers=ann).status_code == 200
        refused = server.post("/v1/responses", body, headers=bob)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "stream_exists")
        assert server.post("/v1/streams", {"stream_id": "resp_x"}, headers=bob).status_code == 409
        assert server.get("/v1/responses/resp_x", headers=ann).status_code == 200
        assert server.post("/v1/responses", body, headers=ann).status_code == 200, "its own one has ended"


@pytest.mark.parametrize("stream_id", ["é", "日本", "\U0001f600", "a b", "a%20b"])
def test_an_id_of_any_letters_is_in_the_headers(stream_id: str) -> None:
    with gateway(Script(Answer("Hi."))) as server:
        made = server.post("/v1/streams", {"stream_id": stream_id})
        assert made.status_code == 201, made.text
        assert server.get(made.headers["location"]).json()["stream_id"] == stream_id
        body = {**CHAT, "stream": True, "penstock": {"stream_id": f"{stream_id}2"}}
        assert server.post("/v1/chat/completions", body).status_code == 200
        server.post(f"{made.json()['links']['cancel']}")
