"""Providers chosen by name or by a model's prefix, called through a system over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.script import Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import OptionError

HELLO = [{"role": "user", "content": "Hello"}]
PATHS = {
    "openai": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:streamGenerateContent",
    "ollama": "/api/chat",
}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(Script(models={"m": Answer("Good day"), "org/m": Answer("Good day")})) as running:
        yield running


def url(server: LoopbackProvider, name: str) -> str:
    return server.base_url if name.startswith("openai") else server.base_url.removesuffix("/v1")


@pytest.fixture
def system(server: LoopbackProvider) -> Iterator[penstock.System]:
    others = {name: ProviderOptions(base_url=url(server, name)) for name in ("anthropic", "gemini", "ollama")}
    with penstock.System(Settings(providers=others)) as system:
        yield system


@pytest.mark.parametrize("name", PATHS)
def test_a_server_of_ones_own_is_asked_in_the_named_dialect_without_a_key(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    done = system.chat("m", HELLO, provider=name, base_url=url(server, name)).result(10)
    assert done.text == "Good day"
    assert server.requests[-1].path == PATHS[name]


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic", "gemini", "ollama"])
def test_a_base_url_that_ends_in_a_version_works_for_everyone(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    assert system.chat("m", HELLO, provider=name, base_url=server.base_url).result(10).text == "Good day"


@pytest.mark.parametrize("name", ["anthropic", "gemini", "ollama"])
def test_a_models_prefix_finds_the_provider_where_the_settings_have_it(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    assert system.chat(f"{name}/m", HELLO).result(10).text == "Good day"
    assert server.requests[-1].path == PATHS[name]


def test_a_gateways_names_go_to_the_gateway(system: penstock.System, server: LoopbackProvider) -> None:
    assert system.chat("org/m", HELLO, base_url=server.base_url).result(10).text == "Good day"
    assert server.requests[-1].model == "org/m"
    assert system.respond("Hello", "org/m", base_url=server.base_url).result(10).text == "Good day"


@pytest.mark.parametrize("name", ["anthropic", "gemini", "ollama"])
def test_what_was_meant_for_the_responses_api_reaches_those_who_have_only_chat(
    system: penstock.System, server: LoopbackProvider, name: str
) -> None:
    done = system.respond("Hello", "m", provider=name, instructions="Be brief.", max_output_tokens=50).result(10)
    assert done.text == "Good day"
    request = server.requests[-1]
    assert request.path == PATHS[name]
    assert "Be brief." in str(request.body)
    assert "max_output_tokens" not in str(request.body)


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"type": "item_reference", "id": "msg_1"}, r"input\[0\]: an item_reference"),
        ({"type": "weather_report", "id": "x"}, r"input\[0\].type: weather_report"),
        ({"type": "message", "content": "Hi"}, r"input\[0\].role"),
        ({"type": "function_call_output", "output": "1"}, r"input\[0\].call_id"),
        (
            {"type": "function_call_output", "call_id": "x", "output": "1"},
            "tool_call_id 'x' belongs to no earlier call",
        ),
    ],
)
def test_items_of_the_responses_api_without_a_counterpart_are_refused_there(
    system: penstock.System, item: dict[str, object], named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        system.respond([item], "m", provider="gemini")


def test_a_provider_of_ones_own_is_still_found_by_its_name(server: LoopbackProvider) -> None:
    def mine(api_key: object, base_url: str = server.base_url) -> OpenAiChat:
        return OpenAiChat(None, base_url)

    with penstock.System(Settings(), providers={"mine": mine}) as system:
        assert system.chat("m", HELLO, provider="mine").result(10).text == "Good day"
        assert system.chat("mine/m", HELLO).result(10).text == "Good day"
