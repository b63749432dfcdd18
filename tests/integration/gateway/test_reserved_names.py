"""No field of a client's body ever means an argument of Penstock's own functions, whatever its name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.call_options import CALL_OPTIONS
from penstock.gateway import responses_connection
from penstock.gateway.responses import begin_response
from tests.integration.gateway.serving import PATIENCE, Served, gateway

MESSAGES = [{"role": "user", "content": "Hi"}]
NAMED = frozenset(
    name
    for function in (penstock.System.chat, penstock.System.respond, penstock.System.agent)
    for name, one in inspect.signature(function).parameters.items()
    if one.kind is not one.VAR_KEYWORD
)
NAMES = sorted(NAMED | CALL_OPTIONS | {"subscriber", "request_parameters", "parameters"})
UI = {"id": "c", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
RUN = {"threadId": "t", "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
PROTOCOLS: dict[str, tuple[str, dict[str, Any], str | None, frozenset[str]]] = {
    # path, body, the field that holds the model's parameters, names that have a meaning in this body
    "openai": ("/v1/chat/completions", {"model": "m", "messages": MESSAGES}, None, frozenset({"tools"})),
    "responses": ("/v1/responses", {"model": "m", "input": "Hi"}, None, frozenset({"tools", "metadata"})),
    "anthropic": (
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": MESSAGES},
        None,
        frozenset({"tools", "metadata"}),
    ),
    "native": ("/v1/streams", {"model": "m", "messages": MESSAGES}, "parameters", frozenset()),
    "native-input": ("/v1/streams", {"model": "m", "input": "Hi"}, "parameters", frozenset()),
    "ui": ("/v1/ui/chat", {"model": "m", **UI}, None, frozenset({"tools", "provider"})),
    "agui": ("/v1/agui", RUN, "forwardedProps", frozenset({"tools", "provider"})),
}


@pytest.fixture
def elsewhere() -> Iterator[LoopbackProvider]:
    """A foreign host."""
    with LoopbackProvider(Script(Answer("Ha."))) as provider:
        yield provider


@pytest.fixture
def server() -> Iterator[Served]:
    with gateway(Script(Answer("Hi."))) as client:
        yield client


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_parameter_goes_to_the_model_whatever_its_name(
    server: Served, elsewhere: LoopbackProvider, protocol: str
) -> None:
    path, body, within, meant = PROTOCOLS[protocol]
    value: Any = elsewhere.base_url
    for name in NAMES:
        if name in body and within is None:
            continue  # it has a meaning here
        given = {name: value} if within is None else {within: {name: value}}
        if protocol == "agui":
            given = {"forwardedProps": {"model": "m", name: value}}
        answer = server.post(path, {**body, **given})
        if (stream_id := answer.headers.get("x-penstock-stream-id")) is not None:
            server.finish(stream_id)
        if name in meant or name in ("model", "messages", "input"):
            assert answer.status_code in (200, 201, 400, 502), (name, answer.text)
        else:
            assert answer.status_code in (200, 201), (name, answer.text)
            sent = server.provider.requests[-1].body
            assert isinstance(sent, dict)
            is_parameter = protocol != "agui" or name == "metadata"  # other names are the application's there
            assert sent.get(name) == (value if is_parameter else None)
    assert elsewhere.requests == ()


def test_official_fields_of_those_names_go_on(server: Served) -> None:
    for path, body in (
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES}),
        ("/v1/responses", {"model": "m", "input": "Hi", "penstock": {"provider": "openai-responses"}}),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": MESSAGES, "penstock": {"provider": "anthropic"}}),
    ):
        answer = server.post(path, {**body, "metadata": {"user_id": "u"}})
        assert answer.status_code == 200, answer.text
        sent = server.provider.requests[-1].body
        assert isinstance(sent, dict)
        assert sent["metadata"] == {"user_id": "u"}


def test_a_parameter_of_an_agent_goes_to_the_model(server: Served, elsewhere: LoopbackProvider) -> None:
    for name in sorted(set(NAMES) - {"tools", "model", "messages", "input"}):
        made = server.post("/v1/agents", {"model": "m", "provider": "openai", "parameters": {name: elsewhere.base_url}})
        assert made.status_code == 201, made.text
        answer = server.post(f"/v1/agents/{made.json()['agent_id']}/messages", {"message": "Hi"})
        server.finish(answer.json()["stream_id"])
        sent = server.provider.requests[-1].body
        assert isinstance(sent, dict)
        assert sent[name] == elsewhere.base_url
    assert elsewhere.requests == ()


def test_a_templates_own_parameters_stay_beside_the_clients(server: Served) -> None:
    server.gateway.templates["helper"] = {"model": "m", "provider": "openai", "seed": 7, "extra_headers": {"x-a": "b"}}
    given = {"agent": "helper", "parameters": {"top_p": 0.5, "extra_headers": {"x-a": "evil"}}}
    made = server.post("/v1/agents", given)
    answer = server.post(f"/v1/agents/{made.json()['agent_id']}/messages", {"message": "Hi"})
    server.finish(answer.json()["stream_id"])
    sent = server.provider.requests[-1]
    assert isinstance(sent.body, dict)
    assert (sent.body["seed"], sent.body["top_p"], sent.headers["x-a"]) == (7, 0.5, "b")


def test_a_lane_goes_on_after_a_fault_in_opening_a_response(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [ValueError("boom")]

    async def begin_or_fail(*arguments: Any, **more: Any) -> Any:
        if faults:
            raise faults.pop()
        return await begin_response(*arguments, **more)

    monkeypatch.setattr(responses_connection, "begin_response", begin_or_fail)
    with connect(f"{server.ws}/v1/responses") as socket:
        for _ in range(2):
            socket.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi"}))
        first = json.loads(socket.recv(PATIENCE))
        assert (first["type"], first["status"], first["error"]["code"]) == ("error", 500, "internal_error")
        assert json.loads(socket.recv(PATIENCE))["type"] == "response.created"
