"""One provider of a system as a client: whole answers, models, health, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.adapters.loopback.faults import StallAfter, Status
from penstock.adapters.loopback.script import Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import (
    ApiError,
    AuthenticationError,
    CallTimeout,
    ConnectError,
    OptionError,
    ProtocolError,
    ProviderTimeout,
)
from penstock.ports import ChatCall, Decoder, ProviderRequest, Secret
from penstock.testing import eventually
from tests.integration.raw_server import Peer, RawServer

KEY = "sk-client-0123456789"
HELLO = [{"role": "user", "content": "Hello"}]
NAMES = ["openai", "anthropic", "gemini", "ollama"]


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    models: dict[str, Any] = {
        "plain": Answer("Good day"),
        "busy": Status(503),
        "stuck": Answer("Never said", faults=(StallAfter(0),)),
        "asks": Answer("", tool_calls=(ScriptedCall("add", '{"x": 1}'),)),
    }
    with LoopbackProvider(Script(models=models), api_key=KEY) as running:
        yield running


@pytest.fixture
def system(server: LoopbackProvider) -> Iterator[penstock.System]:
    root = server.base_url.removesuffix("/v1")
    options = {name: ProviderOptions(base_url=root, api_key=KEY, model="plain") for name in NAMES}  # type: ignore[arg-type]
    options["openai"] = ProviderOptions(base_url=server.base_url, api_key=KEY, model="plain")  # type: ignore[arg-type]
    settings = Settings(providers=options, request=RequestOptions(max_retries=0, retry_base_delay=0.001))
    with penstock.System(settings) as system:
        yield system


# --- chats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_can_be_waited_for(system: penstock.System, name: str) -> None:
    client = system.provider(name)
    done = client.chat_completion(HELLO, model="plain", timeout=10, max_tokens=100)
    assert (done.text, done.finish_reason) == ("Good day", "stop")
    assert client.chat_completion(HELLO).text == "Good day"  # the setting's model
    assert client.stream_chat_completion(HELLO).result(10).text == "Good day"
    assert KEY not in repr(client) + repr(vars(client))


def test_the_settings_provider_is_the_one_that_nobody_names(system: penstock.System) -> None:
    assert system.provider().chat_completion(HELLO).text == "Good day"
    assert "openai" in repr(system.provider())


@pytest.mark.parametrize("name", NAMES)
def test_calls_that_the_model_asks_for_are_told_and_not_run(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    def add(x: int) -> int:
        """Add one."""
        raise AssertionError("nobody may call it")

    own = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    done = system.provider(name).chat_completion_with_tools(HELLO, [add, own], model="asks")
    assert [(call.name, call.arguments) for call in done.tool_calls] == [("add", {"x": 1})]
    assert done.finish_reason == "tool_calls"
    sent = json.dumps(server.requests[-1].body)
    assert "Add one." in sent
    assert '"now"' in sent


def test_a_failure_is_raised_as_it_is(system: penstock.System) -> None:
    with pytest.raises(ApiError) as caught:
        system.provider("openai").chat_completion(HELLO, model="busy")
    assert caught.value.status == 503


def test_an_answer_that_nobody_waits_for_any_more_is_cancelled(system: penstock.System) -> None:
    with pytest.raises(CallTimeout):
        system.provider("openai").chat_completion(HELLO, model="stuck", timeout=0.05, stream_id="late")
    eventually(lambda: system.stream("late").is_over)
    with pytest.raises(penstock.StreamCancelledError):
        system.stream("late").result(0)


def test_without_a_model_anywhere_it_is_asked_for() -> None:
    with penstock.System(Settings()) as system, pytest.raises(OptionError, match="model"):
        system.provider("loopback").chat_completion(HELLO)


# --- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_models_are_listed(system: penstock.System, name: str) -> None:
    models = [model.removesuffix(":latest") for model in system.provider(name).list_models()]
    assert {"plain", "busy", "asks"} <= set(models)


def tell(peer: Peer, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    peer.send(head % len(body) + body)


def at(server: RawServer) -> str:
    return f"http://localhost:{server.port}"


def test_models_of_several_pages_are_all_listed() -> None:
    def serve(peer: Peer) -> None:
        asked = peer.read_request().partition(b"\r\n")[0]
        second = b"pageToken=b" in asked
        page = b'{"models": [{"name": "models/2"}]}'
        tell(peer, page if second else b'{"models": [{"name": "models/1"}], "nextPageToken": "b"}')

    with RawServer(serve) as raw, penstock.System(Settings()) as system:
        assert system.provider("gemini", base_url=at(raw)).list_models() == ["1", "2"]


@pytest.mark.parametrize("body", [b'{"models": [], "nextPageToken": "again"}', b"[1, 2]", b"<html>", b""])
def test_a_list_without_end_and_one_that_is_none_are_refused(body: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        tell(peer, body)

    with RawServer(serve) as raw, penstock.System(Settings()) as system, pytest.raises(ProtocolError):
        system.provider("gemini", base_url=at(raw)).list_models()


def test_a_list_that_does_not_come_in_time_is_a_time_out_and_its_socket_is_closed() -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.wait_closed()

    with RawServer(serve) as raw, penstock.System(Settings()) as system:
        client = system.provider("gemini", base_url=at(raw))
        with pytest.raises(ProviderTimeout):
            client.list_models(timeout=0.1)
        health = client.health_check(timeout=0.1)
        assert (health.ok, health.latency_s) == (False, None)
        raw.join()
    assert raw.errors == []


class Silent:
    """A provider that cannot list its models."""

    name = "silent"

    def request(self, call: ChatCall) -> ProviderRequest:
        raise NotImplementedError

    def decoder(self, options: RequestOptions) -> Decoder:
        raise NotImplementedError

    def error(self, status: int, headers: Any, body: bytes) -> ApiError:
        raise NotImplementedError


def test_a_provider_without_a_list_of_models_says_so(system: penstock.System) -> None:
    client = system.provider(Silent())
    for ask in (client.list_models, client.health_check):
        with pytest.raises(OptionError, match="silent"):
            ask()


# --- health --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_that_answers_is_well_and_one_that_refuses_the_key_is_not(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    health = system.provider(name).health_check()
    assert (health.ok, health.status, health.detail) == (True, 200, "")
    assert health.latency_s is not None
    assert 0 < health.latency_s < 5
    url = system.settings.base_url(name)
    refused = system.provider(name, base_url=url, api_key="sk-wrong-0123456789").health_check()
    assert (refused.ok, refused.status) == (False, 400 if name == "gemini" else 401)
    assert "sk-wrong" not in repr(refused)
    with pytest.raises(AuthenticationError):
        system.provider(name, base_url=url, api_key="sk-wrong-0123456789").list_models()


def test_an_unreachable_provider_is_not_well_and_nothing_is_raised(system: penstock.System) -> None:
    client = system.provider("openai", base_url="http://127.0.0.1:9/v1")
    health = client.health_check()
    assert (health.ok, health.status, health.latency_s) == (False, None, None)
    assert "127.0.0.1:9" in health.detail
    with pytest.raises(ConnectError):
        client.list_models()


def test_a_missing_key_is_not_well() -> None:
    with penstock.System(Settings()) as system:
        health = system.provider("gemini").health_check()
        assert not health.ok
        assert "GEMINI_API_KEY" in health.detail


def test_a_ready_provider_can_be_asked_too(server: LoopbackProvider) -> None:
    with penstock.System(Settings()) as system:
        client = system.provider(Gemini(Secret(KEY), server.base_url.removesuffix("/v1")))
        assert client.health_check().ok
        assert client.chat_completion(HELLO, model="plain").text == "Good day"
