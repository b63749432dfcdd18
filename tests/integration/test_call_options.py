"""Arguments of a chat that are not the model's parameters, and headers in the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.call.record import CallRecord
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.call_options import KNOWN_PARAMETERS, take_call_options
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import OptionError
from penstock.ports import ChatCall, ProviderRequest, Secret

USUAL = RequestOptions()


def take(options: RequestOptions = USUAL, **parameters: Any) -> tuple[ChatCall, RequestOptions]:
    return take_call_options(ChatCall(model="m", input="x", parameters=parameters), options)


@pytest.fixture
def server() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(Script(answer=Answer(tokens=("fine",)))) as provider:
        yield provider


def ask(system: penstock.System, verb: str, url: str, **arguments: Any) -> None:
    arguments.update(base_url=url, api_key="k")
    if verb == "chat":
        system.chat("m", "x", **arguments).result(timeout=30)
    elif verb == "respond":
        system.respond("x", "m", **arguments).result(timeout=30)
    elif verb == "agent":
        system.agent(model="m", **arguments).stream_chat("x").result(timeout=30)
    else:
        client = system.provider("openai", base_url=arguments.pop("base_url"), api_key=arguments.pop("api_key"))
        client.stream_chat_completion("x", model="m", **arguments).result(timeout=30)


@pytest.mark.parametrize("verb", ["chat", "respond", "agent", "client"])
def test_they_go_where_users_of_openai_mean_them_to(server: LoopbackProvider, verb: str) -> None:
    with penstock.System(Settings()) as system:
        ask(
            system,
            verb,
            server.base_url,
            timeout=20,
            max_retries=1,
            extra_headers={"X-Trace": "t-1", "X-Tenant-Key": "hunter2"},
            extra_query={"api-version": "1", "flag": True},
            extra_body={"custom": [1]},
            temperature=0.5,
        )
    request = server.requests[-1]
    body = json.loads(request.body) if isinstance(request.body, bytes) else request.body
    assert (body["custom"], body["temperature"]) == ([1], 0.5)
    assert not {"timeout", "max_retries", "extra_headers", "extra_query", "extra_body"} & body.keys()
    assert request.headers["x-trace"] == "t-1"
    assert "x-tenant-key" in request.headers


def test_the_query_and_the_headers_are_added_to_the_request() -> None:
    call, _ = take(extra_query={"api-version": "1", "flag": True}, extra_headers={"authorization": "Bearer own"})
    plain = ProviderRequest(url="http://h/p?a=b", body=b"", secret_headers={"Authorization": Secret("Bearer k")})
    request = plain.extended(call)
    assert request.url == "http://h/p?a=b&api-version=1&flag=true"
    assert request.secret_headers == {"authorization": Secret("Bearer own")}
    assert plain.extended(take()[0]) is plain


def test_a_number_of_seconds_sets_every_clock_but_the_total() -> None:
    _, options = take(timeout=7)
    clocks = (options.connect_timeout, options.first_token_timeout, options.idle_timeout, options.reasoning_timeout)
    assert clocks == (7, 7, 7, 7)
    assert options.total_timeout == USUAL.total_timeout
    assert take(timeout=7200)[1].idle_timeout == 7200
    assert take(timeout=None, max_retries=None)[1] == USUAL


def test_a_mapping_sets_the_clocks_that_it_names() -> None:
    _, options = take(timeout={"first_token": 3, "total": None}, max_retries=0)
    assert (options.first_token_timeout, options.total_timeout, options.max_retries) == (3, None, 0)
    assert options.idle_timeout == USUAL.idle_timeout


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"timeout": -1}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": "5s"}, "timeout"),
        ({"timeout": {"read": 5}}, "timeout"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"extra_headers": ["a"]}, "extra_headers"),
        ({"extra_headers": {"X-A": "b\r\nX-C: hunter2"}}, "extra_headers"),
        ({"extra_query": {"a": ["hunter2"]}}, "extra_query"),
        ({"extra_body": "hunter2"}, "extra_body"),
    ],
)
def test_what_is_not_allowed_is_refused_without_showing_it(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        take(**arguments)
    assert caught.value.field.startswith(field)
    assert "hunter2" not in str(caught.value)


def test_an_agent_refuses_them_when_it_is_made() -> None:
    with penstock.System(Settings()) as system, pytest.raises(OptionError, match="timeout"):
        system.agent(model="m", api_key="k", timeout="soon")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("extra_header", "extra_headers")],
)
def test_a_near_miss_is_a_warning_or_with_strict_parameters_an_error(
    name: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    misspelt: dict[str, Any] = {name: 1}
    call, _ = take(**misspelt)
    assert call.parameters == {name: 1}
    assert any(meant in record.getMessage() for record in caplog.records)
    with pytest.raises(OptionError, match=f"did you mean {meant}"):
        take(USUAL.replace(strict_parameters=True), **misspelt)
    assert take(USUAL.replace(strict_parameters=True), extra_body={name: 1})[0].parameters == {name: 1}


def test_known_and_foreign_parameters_pass_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    strict = USUAL.replace(strict_parameters=True)
    given: dict[str, Any] = {**dict.fromkeys(KNOWN_PARAMETERS), "generationConfig": {}, "my_servers_own": 1}
    assert take(strict, **given)[0].parameters == given
    assert not caplog.records


def test_secret_headers_are_shown_nowhere() -> None:
    call, _ = take(extra_headers={"Authorization": "Bearer hunter2", "X-Trace": "t"})
    assert call.headers == {"Authorization": Secret("Bearer hunter2"), "X-Trace": "t"}
    assert "hunter2" not in repr(call) + repr(call.headers)


def test_headers_in_the_settings_are_sent_and_secret_ones_are_not_shown(server: LoopbackProvider) -> None:
    own = ProviderOptions(base_url=server.base_url, headers={"X-Team": "red", "X-Auth-Token": "hunter2"})
    settings = Settings(providers={"mine": own})
    assert "hunter2" not in repr(settings) + repr(settings.to_dict())
    with penstock.System(settings) as system:
        system.chat("m", "x", provider="mine").result(timeout=30)
    headers = server.requests[-1].headers
    assert headers["x-team"] == "red"
    assert "x-auth-token" in headers


def test_headers_come_from_a_file_and_from_the_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[providers.mine]\nbase_url = "http://h/v1"\nheaders = {X-Team = "red"}\n')
    assert Settings.load(file).headers("mine") == {"X-Team": "red"}
    monkeypatch.setenv("PENSTOCK_PROVIDERS__MINE__HEADERS", '{"X-Key": "hunter2"}')
    assert Settings.load(file).headers("mine") == {"X-Key": Secret("hunter2")}
    monkeypatch.setenv("PENSTOCK_PROVIDERS__MINE__HEADERS", "hunter2")
    with pytest.raises(OptionError, match="JSON object") as caught:
        Settings.load(file)
    assert "hunter2" not in str(caught.value)


def test_a_fallback_at_another_provider_does_not_get_the_credentials() -> None:
    with penstock.System(penstock.Settings()) as system:
        stream = system.chat(
            "openai/m", "hi", api_key="k", base_url="http://127.0.0.1:9/v1", max_retries=0,
            extra_headers={"Authorization": "Bearer SECRET", "X-Team": "search"}, extra_query={"key": "SECRETQ"},
            fallback=["ollama/llama3", "openai/other"],
        )  # fmt: skip
        call = stream._record.feed
        assert isinstance(call, CallRecord)
        first, foreign, same = (candidate.request for candidate in call.candidates)
        stream.cancel()
    for request in (first, same):
        assert request.secret_headers["Authorization"].reveal() == "Bearer SECRET"
        assert request.url.endswith("?key=SECRETQ")
    assert "SECRET" not in str([secret.reveal() for secret in foreign.secret_headers.values()])
    assert "SECRET" not in foreign.url
    assert foreign.headers["X-Team"] == "search"
    assert "SECRET" not in repr(first)
