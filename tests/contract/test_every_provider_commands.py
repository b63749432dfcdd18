"""Every provider from the command line and through `System.provider`: by name, at the same server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("the command is run in a fork", allow_module_level=True)

import penstock
from penstock.adapters.loopback.faults import TruncateAfter
from penstock.adapters.loopback.script import Answer, Replies, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import ProviderOptions
from penstock.events import Usage
from tests.contract.providers import (
    ANSWER,
    EVERY,
    FIVE,
    GEMINI,
    HELLO,
    KEY,
    OLLAMA,
    OPENAI,
    PATIENCE,
    WIRES,
    House,
    Wire,
    house,
    serving,
)
from tests.integration import command

CALL = ScriptedCall("look_up", '{"city":"Zürich 🏔"}', id="call_a", signature="Y2FsbA==")
TOLD = Usage(input_tokens=11, output_tokens=7, total_tokens=18, reasoning_tokens=3, cached_tokens=5)
FULL = Answer("Grüße 水 🌊\u2028, <b>", reasoning="so it is", signature="c2ln", tool_calls=(CALL,), usage=TOLD)
MODELS: dict[str, Replies] = {
    "full": FULL,
    "broken": ANSWER.replace(faults=(TruncateAfter(5, clean=True),)),
}
ASKED = 'penstock: the model asks for look_up({"city":"Zürich 🏔"})\n'
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    "gemini": "GEMINI_API_KEY",
}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    with serving(MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def open_server() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(Script(models=MODELS)) as running:
        yield running


@pytest.fixture
def here(server: LoopbackProvider) -> Iterator[House]:
    with house(server) as made:
        yield made


# --- the command ---------------------------------------------------------------------------------------------------


Done = tuple[int, str, str]


def run(folder: Path, wire: Wire, url: str, model: str, key: str | None) -> Done:
    """Run ``penstock chat`` for one provider, in a fork and an environment without the user's variables."""
    variables = {} if key is None else {VARIABLES[wire.name]: key}
    asked = ("chat", "--provider", wire.name, "--base-url", url, "--model", model, "--json", "Hello there")
    done = command.run(folder, *asked, **variables)
    return done.code, done.out, done.err


def run_each(folder: Path, server: LoopbackProvider, model: str, key: str | None) -> Mapping[Wire, Done]:
    """Run it for every provider; exit codes and what is on standard output and standard error."""
    found: dict[Wire, Done] = {}
    for wire in WIRES:
        _, out, err = found[wire] = run(folder, wire, wire.url(server), model, key)
        assert KEY not in out + err
        assert "Traceback" not in out + err
    return found


def events_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.removesuffix("\n").split("\n")]


def check_events(wire: Wire, events: Sequence[Mapping[str, Any]]) -> None:
    """The JSON lines of `FULL`."""
    end = events[-1]
    assert end["type"] == "StreamCompleted"
    assert (end["text"], end["reasoning"], end["refusal"]) == (FULL.text, FULL.reasoning, "")
    [call] = end["tool_calls"]
    assert (call["id"], call["name"], call["arguments"]) == ("call_a", "look_up", {"city": "Zürich 🏔"})
    assert (end["finish_reason"], end["raw_finish_reason"]) == wire.finish["tool_calls"]
    told = wire.usage(TOLD)
    assert {name: end["usage"][name] for name in told.__struct_fields__} == {
        name: getattr(told, name) for name in told.__struct_fields__
    }
    assert (end["model"], end["provider"]) == ("full", wire.name)
    kinds = [event["type"] for event in events]
    assert kinds.count("ToolCallStarted") == kinds.count("ToolCallCompleted") == 1
    said = [event["text"] for event in events if event["type"] == "TokenEvent" and event["kind"] == "text"]
    assert "".join(said) == FULL.text
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)


def test_the_command_asks_each_provider_by_its_name(tmp_path: Path, server: LoopbackProvider) -> None:
    for wire, (code, out, err) in run_each(tmp_path, server, "full", KEY).items():
        assert (code, err) == (0, ASKED), wire.name
        check_events(wire, events_of(out))


def test_the_command_needs_no_key_where_the_server_wants_none(tmp_path: Path, open_server: LoopbackProvider) -> None:
    for wire, (code, out, err) in run_each(tmp_path, open_server, "full", None).items():
        assert (code, err) == (0, ASKED), wire.name
        check_events(wire, events_of(out))


def test_a_key_that_is_wrong_is_one_line_and_an_exit_code(tmp_path: Path, server: LoopbackProvider) -> None:
    for wire, (code, out, err) in run_each(tmp_path, server, "full", "sk-wrong-0123456789").items():
        assert code == 3, wire.name
        [line] = err.splitlines()
        assert line.startswith("penstock: "), line
        assert VARIABLES[wire.name] in line, line
        assert "sk-wrong" not in out + err
        [end] = events_of(out)
        assert end["type"] == "StreamFailed"
        assert end["error"]["type"] == "AuthenticationError"
        assert end["provider"] == wire.name


def test_an_answer_that_breaks_off_has_an_exit_code_of_its_own(tmp_path: Path, server: LoopbackProvider) -> None:
    for wire, (code, out, err) in run_each(tmp_path, server, "broken", KEY).items():
        assert code == 4, wire.name
        assert len(err.splitlines()) == 1, err
        end = events_of(out)[-1]
        assert (end["type"], end["partial"], end["error"]["type"]) == ("StreamFailed", FIVE, "IncompleteStream")


# --- the client of one provider --------------------------------------------------------------------------------------


@EVERY
def test_a_whole_answer_can_be_waited_for(here: House, wire: Wire) -> None:
    client = here.system.provider(wire.name)
    end = client.chat_completion(HELLO, model="full", timeout=PATIENCE)
    assert (end.text, end.provider, end.model) == (FULL.text, wire.name, "full")
    assert (end.finish_reason, end.raw_finish_reason) == wire.finish["tool_calls"]
    assert client.stream_chat_completion(HELLO, model="full").result(PATIENCE).text == FULL.text
    with pytest.raises(penstock.IncompleteStream) as caught:
        client.chat_completion(HELLO, model="broken", timeout=PATIENCE)
    assert caught.value.partial == FIVE


@EVERY
def test_tools_that_are_functions_are_offered_in_the_providers_form_and_not_run(here: House, wire: Wire) -> None:
    def look_up(city: str) -> str:
        """Looks a city up."""
        raise AssertionError("nobody may call it")

    client = here.system.provider(wire.name)
    end = client.chat_completion_with_tools(HELLO, [look_up], model="full", timeout=PATIENCE)
    [call] = end.tool_calls
    assert (call.name, call.arguments) == ("look_up", {"city": "Zürich 🏔"})
    request = here.server.requests[-1]
    assert request.tool_names == ["look_up"]
    assert "Looks a city up." in json.dumps(request.body)


@EVERY
def test_each_provider_lists_its_models_and_tells_its_health(here: House, wire: Wire) -> None:
    client = here.system.provider(wire.name)
    models = {model.removesuffix(":latest") if wire is OLLAMA else model for model in client.list_models()}
    assert set(MODELS) <= models
    assert client.health_check().ok
    wrong = here.system.provider(wire.name, base_url=wire.url(here.server), api_key="sk-wrong-0123456789")
    health = wrong.health_check()
    assert (health.ok, health.status) == (False, 400 if wire is GEMINI else 401)
    with pytest.raises(penstock.AuthenticationError):
        wrong.list_models()


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire is not OPENAI], ids=lambda wire: wire.name)
def test_a_models_prefix_names_its_provider_where_the_default_one_has_no_url(
    server: LoopbackProvider, wire: Wire
) -> None:
    key: Any = KEY  # a SecretStr is made of it
    options: dict[Any, ProviderOptions] = {wire.name: ProviderOptions(base_url=wire.url(server), api_key=key)}
    with penstock.System(penstock.Settings(providers=options)) as system:
        end = system.chat(f"{wire.name}/full", HELLO).result(PATIENCE)
        assert (end.text, end.provider, end.model) == (FULL.text, wire.name, "full")
