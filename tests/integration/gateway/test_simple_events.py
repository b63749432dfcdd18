"""The short form of the native protocol: few names of events, on the route and on the WebSocket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.sync.client import connect

import penstock
from penstock.adapters.loopback.faults import StallAfter, TruncateAfter
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.config.options import RequestOptions
from penstock.config.settings import Settings
from penstock.gateway.projections.native import NativeProjection
from tests.integration.gateway.serving import PATIENCE, Served, events_of, gateway

WORDS = "one two three four"


@penstock.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def names(served: Served, stream_id: str) -> list[str]:
    body = served.get(f"/v1/streams/{stream_id}/events?events=simple").text
    return list(dict.fromkeys(name for _, name, _ in events_of(body)))


def test_each_end_has_its_name() -> None:
    models: Any = {
        "cut": Answer(WORDS, faults=(TruncateAfter(2),)),
        "stalls": Answer(WORDS, faults=(StallAfter(2),)),
        "calls": Answer(WORDS, tool_calls=(ScriptedCall("add", "{}"),)),
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
    }
    settings = Settings(request=RequestOptions(max_retries=0))
    with gateway(Script(Answer(WORDS), models=models), settings) as served:
        assert names(served, served.open()) == ["token", "complete"]
        assert names(served, served.open(model="cut")) == ["token", "error"]
        assert names(served, served.open(model="stalls", request_options={"idle_timeout": 0.2})) == ["token", "timeout"]
        assert names(served, served.open(model="calls")) == ["token", "function_start", "complete"]
        stream_id = served.open(model="endless", on_orphan="continue")
        served.post(f"/v1/streams/{stream_id}/cancel")
        served.finish(stream_id)
        name, data = events_of(served.get(f"/v1/streams/{stream_id}/events?events=simple").text)[-1][1:]
        assert (name, data["error"]["code"]) == ("error", "stream_cancelled")
        assert served.get(f"/v1/streams/{stream_id}/events?events=few").status_code == 400


def test_a_chat_with_an_agent_on_a_socket() -> None:
    calls = Answer("", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}'),))
    with gateway(Script([calls, Answer("3")])) as served:
        served.gateway.tools["add"] = add
        agent = served.post("/v1/agents", {"model": "m", "provider": "openai", "tools": ["add"]}).json()
        found: list[str] = []
        with connect(served.ws + "/v1/ws") as client:
            asked = {"op": "stream_chat", "agent": agent["agent_id"], "message": "1 + 2?", "events": "simple"}
            client.send(json.dumps(asked))
            assert json.loads(client.recv(PATIENCE))["ok"]
            while "complete" not in found:
                found += [event["type"] for event in json.loads(client.recv(PATIENCE))]
            assert found == ["function_start", "token", "complete"]
            client.send(json.dumps({**asked, "events": "few", "ref": 1}))
            assert json.loads(client.recv(PATIENCE))["error"]["param"] == "events"


def test_a_reader_that_is_cut_off_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = NativeProjection.feed

    def faulty(self: Any, event: Any) -> Any:
        if isinstance(event, penstock.StreamCompleted):
            raise ValueError
        return feed(self, event)

    monkeypatch.setattr(NativeProjection, "feed", faulty)
    with gateway(Answer(WORDS)) as served:
        assert names(served, served.open(on_orphan="continue")) == ["token", "error"]
