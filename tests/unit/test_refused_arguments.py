"""A wrong argument is refused by name, with what is allowed, in one line and without its text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import penstock
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.testing import ScriptedProvider, SimulatedSystem

SECRET = "sk-not-to-be-seen"


class Answer(BaseModel):
    text: str


class NoModel:
    pass


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with SimulatedSystem(seed=1) as system:
        yield system


def chat(system: penstock.System, messages: Any = "Hello", **more: Any) -> Any:
    return system.chat("any", messages, **{"provider": ScriptedProvider(["Hi"]), **more})


def agent(system: penstock.System, **more: Any) -> penstock.Agent:
    return system.agent(model="any", provider=ScriptedProvider(["Hi"]), **more)


def stream(system: penstock.System) -> penstock.Stream:
    return system.open_stream()


REFUSED: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "bytes for messages": (lambda s: chat(s, SECRET.encode()), "messages", "list of messages"),
    "nothing for messages": (lambda s: chat(s, None), "messages", "list of messages"),
    "one message without its list": (
        lambda s: chat(s, {"role": "user", "content": SECRET}),
        "messages",
        "list of messages",
    ),
    "texts for messages": (lambda s: chat(s, [SECRET]), "messages[0]", "a dict"),
    "bytes in a message": (
        lambda s: chat(s, [{"role": "user", "content": SECRET.encode()}]),
        "messages[0].content",
        "a text",
    ),
    "a number for a provider": (lambda s: chat(s, provider=7), "provider", "a provider's name"),
    "a provider's class": (lambda s: chat(s, provider=OpenAiChat), "provider", "a Provider"),
    "bytes for a key": (lambda s: chat(s, provider="openai", api_key=SECRET.encode()), "api_key", "text"),
    "metadata that are none": (lambda s: chat(s, metadata=[SECRET]), "metadata", "a dict"),
    "an agent's metadata that are none": (lambda s: agent(s, metadata=[SECRET]), "metadata", "a dict"),
    "a turn's metadata that are none": (
        lambda s: agent(s).stream_chat("Hello", metadata=[SECRET]),  # type: ignore[arg-type]
        "metadata",
        "a dict",
    ),
    "a tool without its list, for an agent": (lambda s: agent(s, tools=print), "tools", "a list"),
    "a tool without its list, for a client": (
        lambda s: s.provider(ScriptedProvider([])).chat_completion_with_tools("Hello", print, model="any"),
        "tools",
        "a list",
    ),
    "a path for settings": (lambda s: penstock.System("penstock.toml"), "settings", "Settings.load(path)"),  # type: ignore[arg-type]
    "a named provider that is none": (
        lambda s: penstock.System(penstock.Settings(), providers={"mine": 7}),  # type: ignore[dict-item]
        "providers['mine']",
        "a Provider",
    ),
    "a text for a structured stream": (lambda s: penstock.structured(SECRET, Answer), "stream", "a Stream"),  # type: ignore[arg-type]
    "a class pydantic does not know": (
        lambda s: penstock.structured(stream(s), NoModel),
        "output_type",
        "a type pydantic knows",
    ),
    "the name of a class": (lambda s: penstock.response_format("Recipe"), "output_type", "a type pydantic knows"),  # type: ignore[arg-type]
    "a type that is never JSON": (
        lambda s: penstock.response_format(Callable),  # type: ignore[arg-type]
        "output_type",
        "a type with a JSON schema",
    ),
    "a chain of no stream": (lambda s: penstock.chain(s, SECRET, str), "stream", "a Stream"),  # type: ignore[call-overload]
    "a chain of no stream, without a system": (lambda s: penstock.chain(SECRET, str), "stream", "a Stream"),  # type: ignore[call-overload]
    "a chain in no system": (lambda s: penstock.chain(SECRET, stream(s), str), "system", "a System"),  # type: ignore[call-overload]
    "a chain in a system by name that is none": (
        lambda s: penstock.chain(stream(s), lambda event: event.tokens, system=SECRET),  # type: ignore[call-overload]
        "system",
        "a System",
    ),
    "a transformation that is none": (lambda s: penstock.chain(s, stream(s), 7), "transform", "a function"),  # type: ignore[call-overload]
    "a handler that is none": (lambda s: penstock.wrap_existing_handler(7, stream(s)), "handler", "a function"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_name(what: str, system: penstock.System) -> None:
    do, field, allowed = REFUSED[what]
    with pytest.raises(penstock.OptionError) as caught:
        do(system)
    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_messages_may_come_from_any_iterable(system: penstock.System) -> None:
    messages = ({"role": "user", "content": text} for text in ("Hello",))
    assert chat(system, messages).result(timeout=5).text == "Hi"


def test_the_name_of_a_response_format_is_one_that_openai_takes() -> None:
    page = type("Page[Recipe, ü]" + "x" * 80, (Answer,), {})
    name = penstock.response_format(page)["json_schema"]["name"]
    assert name.startswith("Page_Recipe____xxx")
    assert len(name) == 64


def lookup(key: str) -> str:
    return key


@pytest.mark.parametrize(
    "tools",
    [
        [lookup, lookup],
        [lookup, functools.partial(lookup, "x")],
        [lookup, ({"name": "lookup", "parameters": {}}, print)],
        [{"type": "lookup_2026", "name": "lookup"}, lookup],
    ],
)
def test_two_tools_of_one_name_are_refused_with_the_name(system: penstock.System, tools: list[Any]) -> None:
    client = system.provider(ScriptedProvider(["Hi"]))
    calls: list[Callable[[], object]] = [lambda: agent(system, tools=tools)]
    if not any(isinstance(one, tuple) for one in tools):
        calls.append(lambda: client.chat_completion_with_tools("Hello", tools, model="any"))
    for do in calls:
        with pytest.raises(penstock.OptionError, match=r"^tools: two tools are named 'lookup'$"):
            do()
