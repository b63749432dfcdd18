"""What the gateway does in parts, so that it can do its other work meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from websockets.sync.client import connect

from penstock.adapters.loopback.script import Answer
from penstock.gateway.django import AsyncEventBody
from penstock.gateway.embedding import Embedded
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.resume import ResumePoint
from penstock.gateway.stored import StoredResponse
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway


@pytest.mark.parametrize("is_late", [False, True])
def test_a_drain_waits_for_no_body(is_late: bool) -> None:
    with gateway(Answer("Hi.")) as served, socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(PATIENCE)
        served.get("/ready")
        if is_late:
            served.on_loop(served.gateway.drain(0))
        client.sendall(b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        eventually(lambda: served.gateway.requests == 2)
        if not is_late:
            served.on_loop(served.gateway.drain(0))
        data = b""
        while b"draining" not in data:
            part = client.recv(65_536)
            assert part, data
            data += part
        assert data.startswith(b"HTTP/1.1 503 ")


class Turns:
    """Counts the turns of the running event loop until it is ended."""

    def __init__(self) -> None:
        self.count = 0
        self._is_over = False
        self._turn()

    def _turn(self) -> None:
        self.count += 1
        if not self._is_over:
            asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> int:
        self._is_over = True
        return self.count


def long_stream(served: Served) -> str:
    """Open a stream, push 5,000 words into it, and end it; returns its id."""
    options = {"rate_limit": None, "batch_size": 1, "flush_interval": 0.001}
    stream_id: str = served.post("/v1/streams", {"on_orphan": "continue", "options": options}).json()["stream_id"]
    for _ in range(50):
        served.system.stream(stream_id).process_tokens(["word "] * 100, PATIENCE)
    served.post(f"/v1/streams/{stream_id}/tokens", {"end": True})
    served.finish(stream_id)
    return stream_id


def test_a_reader_that_joins_late_lets_the_loop_do_its_other_work() -> None:
    with gateway(Answer("Hi.")) as served:
        stream_id = long_stream(served)
        last: int = served.get(f"/v1/streams/{stream_id}").json()["last_seq"]
        assert last > 2_000
        core = served.gateway
        channel = core.channels.get(stream_id)

        async def join() -> int:
            turns = Turns()
            projector = channel.projector(PROTOCOLS["openai"], {}, core.ticker, core.options)
            assert not projector.is_over
            await projector.catch_up()
            assert projector.is_over
            return turns.end()

        assert served.on_loop(join()) >= last // 1_000
        assert served.get(f"/v1/streams/{stream_id}/events").text.count("word ") == 5_000 * 2  # once more at the end
        rest = served.get(f"/v1/streams/{stream_id}/events?after={last - 1}").text
        assert f"-{last}\n" in rest
        assert f"-{last - 1}\n" not in rest
        with connect(served.ws + "/v1/ws") as client:
            client.send(json.dumps({"op": "subscribe", "sid": stream_id, "after": last - 1}))
            assert json.loads(client.recv(PATIENCE))["ok"]
            assert {one["seq"] for one in json.loads(client.recv(PATIENCE)) if "seq" in one} == {last}


def test_a_long_response_lets_the_loop_do_its_other_work() -> None:
    with gateway(Answer("Hi.")) as served:
        stream_id = long_stream(served)
        channel = served.gateway.channels.get(stream_id)

        async def settle() -> tuple[int, StoredResponse]:
            stored = StoredResponse(channel, "Hi", is_stored=True)
            turns = Turns()
            await stored.settle()
            return turns.end(), stored

        turns, stored = served.on_loop(settle())
        assert turns >= channel.record.log.last_seq // 1_000
        assert stored.terminal is not None
        assert stored.response["output"][0]["content"][0]["text"].count("word ") == 5_000


def test_a_view_of_django_lets_the_loop_do_its_other_work() -> None:
    with gateway(Answer("Hi.")) as served:
        stream_id = long_stream(served)
        stream = served.system.stream(stream_id)

        async def read() -> tuple[list[int], bytes]:
            turns = Turns()
            body = AsyncEventBody(Embedded(stream, "native", None, None, None, {}), ResumePoint())
            counts, parts = [turns.count], []
            async for part in body:
                counts.append(turns.count)
                parts.append(part)
            turns.end()
            return counts, b"".join(parts)

        counts, data = served.on_loop(read())
        assert counts[0] == 1
        assert counts[1] >= stream._record.log.last_seq // 1_000
        assert data.count(b"word ") == 5_000 * 2  # once more at the end
        assert data.rpartition(b"\nevent: ")[2].startswith(b"end\n")
