"""`penstock.mjs` in Node: the same module, without a browser around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.keys import KeyFile, new_key
from tests.integration.gateway.serving import Served
from tests.judges.conftest import Node
from tests.judges.proxy import CuttingProxy, RefusingProxy
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, HI, WORDS, nothing_runs, real_gateway

TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "sse"])


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "model": model, "messages": HI, "options": EVERY_TOKEN, "on_orphan": 30, **more}


def read(node: Node, base: str, transport: str = "websocket", **job: Any) -> dict[str, Any]:
    """Have a client read a stream to its end."""
    options = {"transport": transport, **job.pop("options", {})}
    return node.run("client.mjs", job={"base": base, "options": options, **job})


def check(seen: dict[str, Any], text: str) -> None:
    assert seen["text"] == seen["own"] == text, "every token once, in order"
    assert seen["seqs"] == sorted(set(seen["seqs"]))
    assert (seen["ends"], seen["outcome"], seen["error"]) == (1, "completed", None)


@TRANSPORTS
def test_a_stream_is_opened_and_read(node: Node, served: Served, transport: str) -> None:
    seen = read(node, served.url, transport, body=ask())
    check(seen, WORDS)
    assert (seen["transport"], seen["cuts"]) == (transport, 0)
    nothing_runs(served)


@TRANSPORTS
def test_a_stream_that_is_cut_goes_on(node: Node, served: Served, transport: str) -> None:
    with CuttingProxy(served.port, [b"n20 ", b"n21 ", b"n40 "]) as proxy:
        seen = read(node, proxy.url, transport, body=ask("counts"), options={"fallback": 100})
        assert proxy.cuts == 3
    check(seen, COUNT)
    assert seen["cuts"] == 3


@TRANSPORTS
def test_a_loop_that_was_left_is_gone_on_with(node: Node, served: Served, transport: str) -> None:
    seen = read(node, served.url, transport, body=ask("counts"), leaveAfter=7)
    assert seen["text"] == seen["own"] == COUNT
    assert seen["seqs"] == sorted(set(seen["seqs"]))


@pytest.mark.parametrize("how", ["status", "close"])
def test_server_sent_events_take_the_place_of_a_websocket_that_is_refused(node: Node, served: Served, how: str) -> None:
    with RefusingProxy(served.port) as proxy:
        proxy.refuse(how)
        seen = read(node, proxy.url, body=ask("counts"))
        check(seen, COUNT)
        assert (seen["transport"], proxy.refused) == ("sse", 3)
        proxy.allow()
        seen = read(node, proxy.url, body=ask("counts"))
        check(seen, COUNT)
        assert (seen["transport"], proxy.passed) == ("websocket", 1)


def test_a_node_without_websockets_reads_server_sent_events(node: Node, served: Served) -> None:
    seen = read(node, served.url, body=ask("counts"), without=True)
    check(seen, COUNT)
    assert seen["transport"] == "sse"


@TRANSPORTS
def test_a_stream_is_cancelled_and_one_that_is_not_there_is_an_error(
    node: Node, served: Served, transport: str
) -> None:
    seen = read(node, served.url, transport, body=ask("endless"), then={"command": "cancel", "characters": 20})
    assert (seen["outcome"], seen["error"]) == ("cancelled", None)
    assert served.system.stream(seen["id"]).is_over
    seen = read(node, served.url, transport, id="none")
    assert seen["error"] == {"name": "PenstockError", "status": 404, "code": "stream_not_found"}


@TRANSPORTS
def test_the_key_is_sent_and_a_wrong_one_refused(node: Node, tmp_path: Path, transport: str) -> None:
    secret, key = new_key("node")
    KeyFile(tmp_path / "keys").write([key])
    with real_gateway(keys=str(tmp_path / "keys")) as served:
        seen = read(node, served.url, transport, body=ask(), options={"key": secret})
        check(seen, WORDS)
        seen = read(node, served.url, transport, id=seen["id"], options={"key": "pk-wrong"})
        assert seen["error"] == {"name": "PenstockError", "status": 401, "code": "invalid_api_key"}
