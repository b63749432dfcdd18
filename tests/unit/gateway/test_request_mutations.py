"""Bodies of every protocol with one value replaced: each is a request that a provider can be sent, or is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.call_options import take_call_options
from penstock.adapters.providers.chat_calls import check_input, to_chat_call
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.adapters.providers.shared.blocks import count_foreign_blocks
from penstock.config.options import RequestOptions
from penstock.config.providers import Dialect
from penstock.errors import PenstockError
from penstock.gateway.problems import problem_of
from penstock.gateway.requests import agui, anthropic, chat, native, responses, ui
from penstock.gateway.requests.asked import Asked
from penstock.ports import ChatCall, Provider, Secret
from penstock.ports.messages import check_items, check_messages
from tests.unit.gateway.request_bodies import BODIES

KEY = Secret("sk-test-0123456789")
PROVIDERS: Final[dict[Dialect, Provider]] = {
    "openai-chat": OpenAiChat(KEY, "http://127.0.0.1/v1"),
    "openai-responses": OpenAiResponses(KEY, "http://127.0.0.1/v1"),
    "anthropic": AnthropicMessages(KEY, "http://127.0.0.1"),
    "gemini": Gemini(KEY, "http://127.0.0.1"),
    "ollama": OllamaChat(KEY, "http://127.0.0.1"),
}
Path = tuple[str | int, ...]
GONE: Final = object()
"""In the place of a value: its field or item is left out."""
VALUES: Final[tuple[Any, ...]] = (None, 5, "x", [], {}, True, GONE)


def _ui(body: Mapping[str, Any], dialect: Dialect) -> Asked:
    ui.approvals(body)
    return ui.parse(body, dialect)


def _agui(body: Mapping[str, Any], dialect: Dialect) -> Asked:
    agui.approvals(body)
    return agui.parse(body, dialect)


def _responses(body: Mapping[str, Any], dialect: Dialect) -> Asked:
    asked = responses.parse(body)
    responses.terms(body)
    return asked


PARSERS: Final[dict[str, Callable[[Mapping[str, Any], Dialect], Asked]]] = {
    "chat": chat.parse,
    "responses": _responses,
    "anthropic": anthropic.parse,
    "ui": _ui,
    "agui": _agui,
    "native": lambda body, dialect: native.parse(body),
}


def sent(protocol: str, body: Mapping[str, Any], dialect: Dialect) -> bytes:
    """The body that the provider is sent; ``b""``: the client is told that its request is wrong."""
    try:
        return _request(PARSERS[protocol](body, dialect), dialect)
    except PenstockError as error:
        problem = problem_of(error)
    assert 400 <= problem.status < 500
    return b""


def _request(asked: Asked, dialect: Dialect) -> bytes:
    """As the gateway asks a provider."""
    is_response = asked.api == "responses"
    given = asked.input if is_response else check_input(asked.input)
    call = ChatCall(model=asked.model, input=given, parameters=asked.parameters)
    call, _ = take_call_options(call, RequestOptions())
    if is_response:
        check_items(call.input)
    else:
        check_messages(call.input)
    call = ChatCall(model=call.model, input=call.input, parameters=call.parameters, provider=dialect)
    if is_response and dialect != "openai-responses":
        call = to_chat_call(call)
    count_foreign_blocks(call.input, dialect)
    return PROVIDERS[dialect].request(call).body


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of all values within a value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from paths(inner, (*path, name))


def replaced(value: Any, path: Path, new: object) -> Any:
    """A copy with another value at one place."""
    name, *rest = path
    made = copy.copy(value)
    if rest:
        made[name] = replaced(value[name], tuple(rest), new)
    elif new is GONE:
        del made[name]
    else:
        made[name] = new
    return made


NOT_SENT: Final = {
    *(("chat_files", dialect) for dialect in ("anthropic", "gemini", "ollama")),  # they do not have OpenAI's files
    *(("chat_chosen", "gemini"), ("responses_allowed", "gemini")),  # has no form for a choice of several tools
    ("responses_allowed", "ollama"),  # takes no files
}
CASES: Final = pytest.mark.parametrize("dialect", PROVIDERS)
NAMES: Final = pytest.mark.parametrize("name", BODIES)


@CASES
@NAMES
def test_a_whole_body_can_be_sent(name: str, dialect: Dialect) -> None:
    protocol, body = BODIES[name]
    before = json.dumps(body)
    assert bool(sent(protocol, body, dialect)) is ((name, dialect) not in NOT_SENT)
    assert json.dumps(body) == before


@pytest.mark.sample(5)
@CASES
@NAMES
def test_a_body_with_another_value_is_sent_or_refused(name: str, dialect: Dialect) -> None:
    protocol, body = BODIES[name]
    for path in paths(body):
        for value in VALUES:
            try:
                sent(protocol, replaced(body, path, value), dialect)
            except Exception as error:
                error.add_note(f"at {path}: {value!r}")
                raise


FREE: Final = {"input", "arguments", "action", "operation", "output", "parameters", "input_schema", "inputSchema"}
"""Fields with JSON of a tool's or a model's, in which null is a value like any other."""


def is_optional(path: Path) -> bool:
    """Whether the protocol says that the field may be absent, or null, with one meaning; or neither."""
    if isinstance(path[-1], int) or FREE.intersection(path[1:-1]):
        return False
    has_to_be_said = path[-1] == "content" and len(path) == 3  # a message's, which may be null
    return not has_to_be_said and path[-3:-2] != ("tool_calls",)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


@CASES
@NAMES
def test_null_is_as_if_the_field_were_absent(name: str, dialect: Dialect) -> None:
    """Providers of the protocol itself are sent the null as it came."""
    protocol, body = BODIES[name]
    for path in filter(is_optional, paths(body)):
        with_null, without = (sent(protocol, replaced(body, path, value), dialect) for value in (None, GONE))
        assert bool(with_null) == bool(without), path
        if with_null != without:
            assert without_nulls(json.loads(with_null)) == without_nulls(json.loads(without)), path
