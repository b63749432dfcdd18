"""Which provider a name or a model's prefix stands for, and its URL and key."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.providers.catalogue import Catalogue, ProviderChoice
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.adapters.providers.gemini.provider import GEMINI_URL, Gemini
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.settings import DefaultProviderOptions, ProviderOptions, Settings
from penstock.errors import OptionError, SystemStopped
from penstock.ports import ChatCall, Secret

DOCUMENT = Path(__file__).parents[4] / "docs" / "configuration.md"
KEYS = {
    name: ProviderOptions(api_key=f"key-of-{name}")  # type: ignore[arg-type]
    for name in ("openai", "anthropic", "gemini", "ollama")
}


def catalogue(default: str = "openai", **providers: ProviderOptions) -> Catalogue:
    return Catalogue(Settings(provider=DefaultProviderOptions(name=default), providers={**KEYS, **providers}), {})


def asked(found: ProviderChoice) -> tuple[str, str]:
    """The URL of its request, and the key in it."""
    request = found.provider.request(ChatCall(model=found.model, input=[{"role": "user", "content": "Hi"}]))
    return request.url, "".join(secret.reveal() for secret in request.secret_headers.values())


# --- names ---------------------------------------------------------------------------------------------------------

WHERE = [
    ("openai", "https://api.openai.com/v1/chat/completions", "Bearer key-of-openai"),
    ("openai-responses", "https://api.openai.com/v1/responses", "Bearer key-of-openai"),
    ("anthropic", "https://api.anthropic.com/v1/messages", "key-of-anthropic"),
    ("gemini", f"{GEMINI_URL}/v1beta/models/m:streamGenerateContent?alt=sse", "key-of-gemini"),
    ("ollama", "http://localhost:11434/api/chat", "Bearer key-of-ollama"),
]


@pytest.mark.parametrize(("name", "url", "key"), WHERE)
def test_a_name_goes_to_its_own_url_with_its_own_key(name: str, url: str, key: str) -> None:
    found = catalogue().find(name, "m")
    assert asked(found) == (url, key)
    assert (found.model, found.account) == ("m", name.removesuffix("-responses"))


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic", "gemini", "ollama", "mine"])
def test_what_is_found_is_called_what_it_was_asked_for_by(name: str) -> None:
    house = catalogue(mine=ProviderOptions(base_url="http://mine/v1"))
    assert house.find(name, "m").name == name
    assert house.find("loopback", "m", "http://here/v1", responses=True).name == "loopback"
    assert house.find("openai", "m", responses=True).name == "openai-responses"
    assert house.find(Gemini(Secret("k")), "m").name == "gemini"


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "ollama"])
def test_a_given_url_and_key_go_before_the_settings(name: str) -> None:
    url, key = asked(catalogue().find(name, "m", "http://elsewhere", "given"))
    assert url.startswith("http://elsewhere/")
    assert key.endswith("given")


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic", "gemini", "ollama"])
def test_no_key_goes_to_another_provider_than_its_own(name: str) -> None:
    only_other_keys = {other: options for other, options in KEYS.items() if other != name.removesuffix("-responses")}
    house = Catalogue(Settings(providers=only_other_keys), {})
    request = house.find(name, "m", "http://here").provider.request(ChatCall(model="m", input="Hi"))
    assert not request.secret_headers


def test_the_documents_example_of_a_server_of_ones_own_works() -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    told = tomllib.loads(example[1])["providers"]["ollama"]
    house = Catalogue(Settings(providers={"ollama": ProviderOptions(**told)}), {})
    assert asked(house.find("ollama", "m"))[0] == "http://localhost:11434/api/chat"


def test_ollamas_compatible_endpoint_is_asked_in_openais_dialects() -> None:
    house = Catalogue(Settings(providers={"ollama": ProviderOptions(base_url="http://localhost:11434/v1")}), {})
    assert asked(house.find("ollama", "m"))[0] == "http://localhost:11434/v1/chat/completions"
    found = house.find("ollama", "m", responses=True)
    assert asked(found)[0] == "http://localhost:11434/v1/responses"
    assert found.has_responses


def test_any_name_with_a_url_in_the_settings_is_a_compatible_server() -> None:
    house = catalogue(vllm=ProviderOptions(base_url="http://gpu:8000/v1"))
    assert asked(house.find("vllm", "m")) == ("http://gpu:8000/v1/chat/completions", "")


def test_a_name_without_a_url_is_nobodys() -> None:
    house = Catalogue(Settings(providers={"vllm": ProviderOptions(model="m")}), {})
    for name in ("vllm", "nobody"):
        with pytest.raises(OptionError, match="base_url in the settings"):
            house.find(name, "m")


# --- prefixes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "account", "sent"),
    [
        ("anthropic/claude-x", "anthropic", "claude-x"),
        ("gemini/gemini-x", "gemini", "gemini-x"),
        ("ollama/llama", "ollama", "llama"),
        ("openai/gpt-x", "openai", "gpt-x"),
        ("openai-responses/gpt-x", "openai", "gpt-x"),
        ("vllm/org/model", "vllm", "org/model"),
        ("meta-llama/llama-x", "openai", "meta-llama/llama-x"),
        ("anthropic/", "openai", "anthropic/"),
        ("gpt-x", "openai", "gpt-x"),
    ],
)
def test_a_models_prefix_chooses_the_provider_where_nobody_has(model: str, account: str, sent: str) -> None:
    found = catalogue(vllm=ProviderOptions(base_url="http://gpu/v1")).find(None, model)
    assert (found.account, found.model) == (account, sent)


def test_a_prefix_takes_its_providers_key_not_the_defaults() -> None:
    default = DefaultProviderOptions(api_key="of-the-default")  # type: ignore[arg-type]
    house = Catalogue(Settings(provider=default, providers={"anthropic": KEYS["anthropic"]}), {})
    assert asked(house.find(None, "anthropic/m"))[1] == "key-of-anthropic"
    assert asked(house.find(None, "m"))[1] == "Bearer of-the-default"


def test_at_a_gateway_names_with_prefixes_pass_as_they_are() -> None:
    gateway = ProviderOptions(base_url="http://gateway/v1")
    for house, arguments in (
        (catalogue(openai=gateway), (None,)),
        (catalogue(), (None, "http://gateway/v1")),
        (catalogue("gateway", gateway=gateway), (None,)),
        (catalogue(), ("openai", "http://gateway/v1")),
        (catalogue(openai=gateway), ("openai",)),
        (catalogue(), ("anthropic", "http://gateway")),
    ):
        provider, *base_url = arguments
        for model in ("anthropic/claude-x", "openai/gpt-x"):
            found = house.find(provider, model, *base_url)
            assert found.model == model
            assert "http://gateway/" in asked(found)[0]


def test_a_chosen_provider_gets_the_model_as_it_is_but_for_its_own_prefix() -> None:
    house = catalogue()
    assert house.find("anthropic", "anthropic/x").model == "x"
    assert house.find("openai-responses", "openai/x").model == "x"
    assert house.find("anthropic", "openai/x").model == "openai/x"
    assert house.find("ollama", "ollama/x", "http://box:11434").model == "x"
    assert catalogue("gemini").find(None, "anthropic/x")[1:3] == ("anthropic/x", "gemini")


# --- others' providers -----------------------------------------------------------------------------------------------


class Mine(OpenAiChat):
    name = "my-own"


def test_providers_of_ones_own_are_found_by_name_prefix_or_as_they_are() -> None:
    ready = Mine(None, "http://ready")
    house = Catalogue(
        Settings(providers={"mine": ProviderOptions(base_url="http://m")}), {"mine": Mine, "ready": ready}
    )
    found = house.find("mine", "m")
    assert isinstance(found.provider, Mine)
    assert asked(found)[0] == "http://m/chat/completions"
    assert house.find(None, "mine/m")[1:3] == ("m", "mine")
    assert house.find("ready", "m").provider is ready
    assert house.find(ready, "any/m")[:3] == (ready, "any/m", "my-own")
    with pytest.raises(OptionError, match="apply to a provider's name, not to a ready Provider"):
        house.find(ready, "m", "http://elsewhere")


# --- the embedded one ------------------------------------------------------------------------------------------------


@pytest.fixture
def house() -> Iterator[Catalogue]:
    house = catalogue()
    yield house
    assert house.close()


def test_the_embedded_provider_speaks_openais_dialects_and_gets_no_ones_key(house: Catalogue) -> None:
    chat, responses = house.find("loopback", "echo"), house.find("loopback", "echo", responses=True)
    assert isinstance(chat.provider, OpenAiChat)
    assert isinstance(responses.provider, OpenAiResponses)
    assert asked(chat)[1] == asked(responses)[1] == ""
    assert chat.account == "loopback"
    assert house.find(None, "loopback/echo")[1:3] == ("echo", "loopback")


def test_the_embedded_provider_is_not_started_again_once_closed() -> None:
    house = catalogue()
    house.close()
    with pytest.raises(SystemStopped):
        house.find("loopback", "echo")


# --- what was meant for the Responses API ----------------------------------------------------------------------------


def test_who_has_a_responses_api_is_known() -> None:
    house = catalogue()
    told = {name: house.find(name, "m", responses=True).has_responses for name, _, _ in WHERE}
    assert told == {"openai": True, "openai-responses": True, "anthropic": False, "gemini": False, "ollama": False}
    assert not house.find(Gemini(Secret("k")), "m").has_responses


def test_what_was_meant_for_the_responses_api_becomes_a_chat() -> None:
    function = {"name": "add", "parameters": {"type": "object"}}
    parameters: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 5,
        "temperature": 0.5,
        "tools": [{"type": "function", **function}, {"googleSearch": {}}],
    }
    call = to_chat_call(ChatCall(model="m", input="Hi", parameters=parameters))
    assert call.input == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert call.parameters == {
        "max_tokens": 5,
        "temperature": 0.5,
        "tools": [{"type": "function", "function": function}, {"googleSearch": {}}],
    }
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]
    body = json.loads(Gemini(Secret("k")).request(to_chat_call(ChatCall(model="m", input=items))).body)
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_input_that_is_no_conversation_is_refused() -> None:
    with pytest.raises(OptionError, match=r"input\[0\].role"):
        to_chat_call(ChatCall(model="m", input=[{"content": "1"}]))
