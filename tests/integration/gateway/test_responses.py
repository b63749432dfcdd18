"""OpenAI's client and the gateway's Responses API: streamed, resumed, continued, in the background, steered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from penstock.adapters.loopback.faults import Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.gateway.asgi import Gateway
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, events_of, gateway

WORDS = "one two three four five six seven eight"
PROVIDERS = ("openai", "openai-responses", "anthropic", "gemini", "ollama")


@pytest.fixture
def server() -> Iterator[Served]:
    models: Any = {
        "calls": Answer("Looking.", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}', id="c1"),)),
        "thinks": Answer("Four.", reasoning="2 + 2 is", signature="c2ln"),
        "busy": Status(429, retry_after=7, message="slow down"),
        "cut": Answer(WORDS, faults=(TruncateAfter(3),)),
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
    }
    with gateway(Script(Answer(WORDS, pace=0.003), models=models), heartbeat=0.05) as client:
        yield client


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as made:
        yield made


def at(provider: str = "openai-responses") -> Any:
    return {"penstock": {"provider": provider}}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_response_is_streamed_from_every_provider(client: openai.OpenAI, provider: str) -> None:
    events = list(client.responses.create(model="m", input="Hi", stream=True, extra_body=at(provider)))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == WORDS
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 8
    whole = client.responses.create(model="calls", input="Hi", extra_body=at(provider))
    (call,) = [item for item in whole.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1, "b": 2})


def test_a_response_is_resumed_after_each_number(server: Served, client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="m", input="Hi", stream=True, extra_body=at()))
    response_id = events[-1].response.id  # type: ignore[union-attr]
    said = [event.delta if event.type == "response.output_text.delta" else "" for event in events]
    for after in range(len(events)):
        rest = list(client.responses.retrieve(response_id, stream=True, starting_after=after))
        assert all(event.sequence_number > after for event in rest)
        text = "".join(event.delta for event in rest if event.type == "response.output_text.delta")
        assert text == "".join(said[after + 1 :])
    assert client.responses.retrieve(response_id).output_text == WORDS


def test_a_response_continues_an_earlier_one(server: Served, client: openai.OpenAI) -> None:
    first = client.responses.create(model="calls", input="1 + 2?", extra_body=at())
    result: Any = [{"type": "function_call_output", "call_id": "c1", "output": "3"}]
    second = client.responses.create(model="m", input=result, previous_response_id=first.id, extra_body=at())
    sent = server.provider.requests[-1].body
    assert sent is not None
    kinds = [item.get("type") or item["role"] for item in sent["input"]]
    assert kinds[0] in ("user", "message")
    assert kinds[-2:] == ["function_call", "function_call_output"]
    third = client.responses.create(model="m", input="More", previous_response_id=second.id, extra_body=at())
    items = client.responses.input_items.list(third.id)
    assert len(items.data) == 5
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.create(model="m", input="x", previous_response_id="resp_none", extra_body=at())
    assert unknown.value.code == "previous_response_not_found"


def test_a_response_runs_in_the_background_and_is_cancelled(server: Served, client: openai.OpenAI) -> None:
    response = client.responses.create(model="endless", input="Hi", background=True, extra_body=at("openai"))
    assert response.status == "queued"
    eventually(lambda: client.responses.retrieve(response.id).output_text)
    assert client.responses.retrieve(response.id).status == "in_progress"
    assert client.responses.cancel(response.id).status == "cancelled"
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_errors_have_their_status_and_a_broken_answer_its_end(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="cut", input="Hi", stream=True, extra_body=at("openai")))
    assert events[-1].type == "response.failed"
    with pytest.raises(openai.RateLimitError):  # last: it holds back what follows at the same provider
        client.responses.create(model="busy", input="Hi", stream=True, extra_body=at("openai"))
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="m", input=5)  # type: ignore[call-overload]


def test_a_client_that_leaves_ends_the_call(server: Served) -> None:
    body = {"model": "endless", "input": "Hi", "stream": True, **at("openai")}
    with server.post("/v1/responses", body, stream=True) as answer:
        pieces = answer.iter_content(None)
        assert next(pieces)
        stream_id = answer.headers["x-penstock-stream-id"]
    server.finish(stream_id)


def test_a_response_that_is_not_stored_is_gone_with_its_stream(server: Served, client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="Hi", store=False, extra_body=at())
    server.system.stream(response.id)
    server.request("DELETE", f"/v1/streams/{response.id}")
    eventually(lambda: server.get(f"/v1/responses/{response.id}").status_code == 404)


def test_lanes_of_a_websocket_answer_at_once_and_are_steered(server: Served) -> None:
    with connect(f"{server.ws}/v1/responses", max_size=None) as connection:
        for lane in ("a", "b"):
            body = {"type": "response.create", "stream_id": lane, "model": "m", "input": "Hi", **at()}
            connection.send(json.dumps(body))
        ends: dict[str, Any] = {}
        while len(ends) < 2:
            event = json.loads(connection.recv(PATIENCE))
            if event["type"] == "response.completed":
                ends[event["stream_id"]] = event["response"]
        assert {text for end in ends.values() for text in [end["output"][0]["content"][0]["text"]]} == {WORDS}
        slow = {"type": "response.create", "model": "endless", "input": "Hi", **at("openai")}
        connection.send(json.dumps(slow))
        first = ""
        seen: list[str] = []
        while "response.incomplete" not in seen:
            event = json.loads(connection.recv(PATIENCE))
            seen.append(event["type"])
            if event["type"] == "response.created":
                first = event["response"]["id"]
            if event["type"] == "response.output_text.delta" and "response.steer.accepted" not in seen:
                steer = {"type": "response.steer", "previous_response_id": first, "input": "Shorter."}
                connection.send(json.dumps(steer))
        assert "response.steer.accepted" in seen
        while (event := json.loads(connection.recv(PATIENCE)))["type"] != "response.created":
            pass
        assert event["response"]["previous_response_id"] == first
        connection.send("not json")
        while (event := json.loads(connection.recv(PATIENCE)))["type"] != "error":
            pass
        assert event["error"]["type"] == "invalid_request_error"
    eventually(lambda: not server.gateway.readers)


def rest(connection: ClientConnection) -> Iterator[str | bytes]:
    """All messages until the server closes the connection."""
    while True:
        try:
            yield connection.recv(PATIENCE)
        except ConnectionClosed:
            return


def test_a_request_that_waits_is_not_begun_when_the_key_has_been_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "_look_after", lambda gateway, now: None)  # nothing but the next request notices it
    path = tmp_path / "keys"
    secret, key = new_key("test")
    KeyFile(path).write([key])
    endless = Answer(tokens=("word ",), repeat=100_000, pace=0.01)
    headers = {"authorization": f"Bearer {secret}"}
    with (
        gateway(Script([endless, Answer("Paid.")]), keys=str(path)) as server,
        connect(f"{server.ws}/v1/responses", max_size=None, additional_headers=headers) as connection,
    ):
        for _ in range(2):
            connection.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi", **at("openai")}))
        first = json.loads(connection.recv(PATIENCE))["response"]["id"]
        eventually(lambda: server.system.stream(first).text)
        KeyFile(path).write([msgspec.structs.replace(key, revoked=1)])
        server.system.stream(first).cancel()
        assert "response.created" not in [json.loads(message)["type"] for message in rest(connection)]
        assert connection.close_code == 4001
        assert len(server.provider.requests) == 1


def test_a_chat_is_read_as_a_response(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    found = events_of(server.get(f"/v1/streams/{stream_id}/events?as=responses").text)
    assert [name for _, name, _ in found][-2] == "response.completed"
