"""What the gateway does in parts, so that it can do its other work meanwhile."""

from __future__ import annotations

import json
import socket

from websockets.sync.client import connect

from penstock.adapters.loopback.script import Answer
from penstock.gateway.protocols import PROTOCOLS
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, gateway


def test_a_drain_waits_for_no_body() -> None:
    with gateway(Answer("Hi.")) as served, socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        eventually(lambda: served.gateway.requests == 1)
        served.on_loop(served.gateway.drain(0))
        data = b""
        while b"draining" not in data:
            part = client.recv(65_536)
            assert part, data
            data += part
        assert data.startswith(b"HTTP/1.1 503 ")


def test_a_reader_that_joins_late_lets_the_loop_do_its_other_work() -> None:
    with gateway(Answer("Hi.")) as served:
        options = {"rate_limit": None, "batch_size": 1, "flush_interval": 0.001}
        stream_id = served.post("/v1/streams", {"on_orphan": "continue", "options": options}).json()["stream_id"]

        def push() -> int:
            return served.post(f"/v1/streams/{stream_id}/tokens", {"tokens": ["word "] * 1_000}).status_code

        for _ in range(5):
            eventually(lambda: push() == 200)  # 429 while the stream has no room
        served.post(f"/v1/streams/{stream_id}/tokens", {"end": True})
        served.finish(stream_id)
        last: int = served.get(f"/v1/streams/{stream_id}").json()["last_seq"]
        assert last > 2_000
        core = served.gateway
        channel = core.channels.get(stream_id)

        async def join() -> int:
            turns = 0
            is_over = False

            def turn() -> None:
                nonlocal turns
                turns += 1
                if not is_over:
                    core.ticker.loop.call_soon(turn)

            turn()
            projector = channel.projector(PROTOCOLS["openai"], {}, core.ticker, core.options)
            assert not projector.is_over
            await projector.catch_up()
            is_over = True
            assert projector.is_over
            return turns

        assert served.on_loop(join()) >= last // 1_000
        assert served.get(f"/v1/streams/{stream_id}/events").text.count("word ") == 5_000 * 2  # once more at the end
        rest = served.get(f"/v1/streams/{stream_id}/events?after={last - 1}").text
        assert f"-{last}\n" in rest
        assert f"-{last - 1}\n" not in rest
        with connect(served.ws + "/v1/ws") as client:
            client.send(json.dumps({"op": "subscribe", "sid": stream_id, "after": last - 1}))
            assert json.loads(client.recv(PATIENCE))["ok"]
            assert {one["seq"] for one in json.loads(client.recv(PATIENCE)) if "seq" in one} == {last}
