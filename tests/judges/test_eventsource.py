"""npm's `eventsource` against the real gateway's native protocol."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gateway.serving import Served
from tests.judges.conftest import Node
from tests.judges.marks import thorough
from tests.judges.proxy import CuttingProxy
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, FLOOD, FLOOD_TEXT, RESTART, WORDS, nothing_runs


def read(node: Node, base: str, stream_id: str, query: str = "", **job: Any) -> dict[str, Any]:
    """Read a stream until the client is closed."""
    path = f"/v1/streams/{stream_id}/events{query}"
    return node.run("eventsource.mjs", job={"base": base, "path": path, **job})


def text_of(seen: dict[str, Any]) -> str:
    """The text as a page would show it: a snapshot replaces what came before."""
    text = ""
    for event in seen["events"]:
        if event["name"] in ("token", "snapshot"):
            text = event["text"] if event["name"] == "snapshot" else text + event["text"]
    return text


def seqs_of(seen: dict[str, Any]) -> list[int]:
    return [int(event["id"].rpartition("-")[2]) for event in seen["events"]]


def test_a_stream_is_read_and_204_stops_the_client(node: Node, served: Served) -> None:
    seen = read(node, served.url, served.open(model="thinks"), stays=True)
    assert text_of(seen) == "2 + 2 isFour."
    end = seen["events"][-1]
    assert (end["name"], end["type"]) == ("end", "StreamCompleted")
    assert seen["opened"] == 1
    assert seen["errors"] == [None, 204], "the end of the response, then no content for the client that comes again"


@thorough  # the client waits three seconds before it comes again
def test_a_stream_is_resumed_wherever_it_is_cut(node: Node, served: Served) -> None:
    stream_id = served.open(model="counts", options=EVERY_TOKEN, on_orphan=30)  # the client comes again after 3 s
    with CuttingProxy(served.port, [b"n20 ", b"n21 ", b'"StreamCompleted"']) as proxy:
        seen = read(node, proxy.url, stream_id)
        assert proxy.cuts == 3
    assert text_of(seen) == COUNT, "every token once, in order"
    assert seqs_of(seen) == sorted(set(seqs_of(seen)))
    assert seen["opened"] == 4
    assert [event["name"] for event in seen["events"]].count("end") == 1
    assert not [event for event in seen["events"] if event["name"] in ("gap", "reset")]


def test_a_stream_with_tools_shows_its_rounds(node: Node, served: Served) -> None:
    agent = served.post("/v1/agents", {"agent": "helper"}).json()["agent_id"]
    made = served.post(f"/v1/agents/{agent}/messages", {"message": "Hi"}).json()
    seen = read(node, served.url, made["stream_id"])
    assert text_of(seen) == "Looking.Cold and warm."


@pytest.mark.parametrize("model", ["cut", "breaks"])
def test_a_stream_that_fails_says_so_and_ends(node: Node, served: Served, model: str) -> None:
    seen = read(node, served.url, served.open(model=model))
    assert WORDS.startswith(text_of(seen))
    assert seen["events"][-1]["type"] == "StreamFailed"


def test_an_error_before_the_first_token_stops_the_client(node: Node, served: Served) -> None:
    seen = read(node, served.url, served.open(model="busy"))
    (event,) = seen["events"]
    assert (event["type"], event["code"]) == ("StreamFailed", "rate_limit_exceeded")


def test_a_reset_takes_the_void_text_back(node: Node, served: Served) -> None:
    stream_id = served.open(model="resets", options=EVERY_TOKEN, request_options=RESTART)
    seen = read(node, served.url, stream_id)
    names = [event["name"] for event in seen["events"]]
    after = seen["events"][names.index("reset") :]
    assert after[0]["reason"]
    assert "".join(event["text"] for event in after if event["name"] == "token") == "Good text."


def test_a_client_that_leaves_lets_the_stream_end_after_a_while(node: Node, served: Served) -> None:
    seen = read(node, served.url, served.open(model="endless"), closeAfter=3)
    assert text_of(seen).startswith("word ")
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


def test_a_stream_that_is_cancelled_ends(node: Node, served: Served) -> None:
    stream_id = served.open(model="endless")
    seen = read(node, served.url, stream_id, closeAfter=2)
    served.post(f"/v1/streams/{stream_id}/cancel")
    served.finish(stream_id)
    rest = read(node, served.url, stream_id, f"?after={seen['events'][-1]['id']}")
    assert rest["events"][-1]["type"] == "StreamCancelled"


@thorough
def test_a_client_that_stops_reading_gets_the_rest_joined(node: Node, served: Served) -> None:
    seen = read(node, served.url, served.open(model="floods", options=EVERY_TOKEN), slow=50_000)
    assert text_of(seen) == FLOOD_TEXT
    assert len(seen["events"]) < len(FLOOD)
