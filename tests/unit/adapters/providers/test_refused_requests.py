"""Requests that cannot be built: the error names the place and what to do, and shows nothing that the user wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.adapters.providers.shared.body import encode_body
from penstock.errors import OptionError
from penstock.ports import ChatCall, Provider, Secret

SECRET = "the user's own words"
KEY = Secret("sk-1")


def nested(depth: int) -> list[Any]:
    value: list[Any] = [SECRET]
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {
                "model": "m",
                "messages": [{"content": SECRET}, {"role": "user", "content": f"{SECRET[:2]}\udce9{SECRET}"}],
            },
            "messages[1].content: a lone surrogate (U+DCE9) at character 3 cannot be encoded as UTF-8",
        ),
        ({"seed": object()}, "seed: a value of type object cannot be encoded as JSON"),
        ({"a": {SECRET: ["x", object()]}}, "a[…][1]: a value of type object cannot be encoded as JSON"),
        ({"a": {(1, 2): SECRET}}, "a: a key of type tuple cannot be encoded as JSON"),
        ({"a": ({"b": {SECRET, "\ud800"}},)}, "a[0].b: a value of type set cannot be encoded as JSON"),
        ({"a": SECRET, "b": nested(100_000)}, "b: it is nested too deeply for JSON"),
    ],
    ids=["surrogate", "object", "odd key's value", "key", "set", "depth"],
)
def test_a_value_that_is_no_json_is_named_by_its_place_and_not_shown(body: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as refused:
        encode_body(body)
    assert str(refused.value) == message
    assert refused.value.field == message.partition(":")[0]
    assert refused.value.__context__ is None  # the encoder's own error contains the text
    assert SECRET not in f"{refused.value!r} {vars(refused.value)}"


def test_what_is_json_is_encoded() -> None:
    assert encode_body({"a": [1, "ü", None], "b": {"c": True}}) == '{"a":[1,"ü",null],"b":{"c":true}}'.encode()


PROVIDERS: list[tuple[Callable[[Secret], Provider], tuple[str, ...]]] = [
    (OpenAiChat, ("model", "messages")),
    (OpenAiResponses, ("model", "input")),
    (AnthropicMessages, ("model", "messages")),
    (OllamaChat, ("model", "messages")),
    (Gemini, ("model", "messages", "contents")),
]


@pytest.mark.parametrize(("make", "names"), PROVIDERS, ids=[str(make.__name__) for make, _ in PROVIDERS])
def test_what_the_call_itself_sets_is_no_parameter(make: Callable[[Secret], Provider], names: tuple[str, ...]) -> None:
    for name in names:
        with pytest.raises(OptionError) as refused:
            make(KEY).request(ChatCall(model="m", input="Hi", parameters={name: SECRET}))
        assert str(refused.value) == f"{name} cannot be a request parameter: the call itself already sets it."
    with pytest.raises(OptionError, match=r"^stream: got False, allowed: True$"):
        make(KEY).request(ChatCall(model="m", input="Hi", parameters={"stream": False}))
    make(KEY).request(ChatCall(model="m", input="Hi", parameters={"stream": True}))
