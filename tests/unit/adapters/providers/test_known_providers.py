"""Known providers are one row each: the catalogue, the key variables, the command line's help and the docs follow."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.adapters.providers.catalogue import Catalogue, ProviderChoice
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.cli.commands import app
from penstock.config import loading, providers
from penstock.config.providers import (
    KNOWN_PROVIDERS,
    KnownProvider,
    account_of,
    find_known_provider,
    key_variables,
    known_provider,
    known_provider_names,
    main_key_variables,
    remote_provider_names,
)
from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import ChatCall, ProviderRequest

ROOT = Path(__file__).parents[4]
REMOTE = [row for row in KNOWN_PROVIDERS if row.home_url]
NAMES = [row.name for row in REMOTE]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in KNOWN_PROVIDERS:
        for variable in (*row.key_variables, *row.url_variables):
            monkeypatch.delenv(variable, raising=False)


def request_of(choice: ProviderChoice) -> ProviderRequest:
    return choice.provider.request(ChatCall(model=choice.model, input="Hi"))


def key_of(request: ProviderRequest) -> str:
    return "".join(secret.reveal() for secret in request.secret_headers.values()).removeprefix("Bearer ")


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_row_is_complete_and_its_name_is_its_own() -> None:
    names = known_provider_names()
    assert len(set(names)) == len(names)
    for row in KNOWN_PROVIDERS:
        assert row.key_variables or not row.needs_key
        assert not row.account or not known_provider(row.account).account
    with pytest.raises(KeyError):
        known_provider("nobody")


@pytest.mark.parametrize("row", REMOTE, ids=NAMES)
def test_every_row_works_in_the_catalogue(row: KnownProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Catalogue(Settings.load(), {}).find(row.name, "m")
    assert (choice.name, choice.account) == (row.name, row.account or row.name)
    assert choice.provider.name == {"openai-chat": "openai"}.get(row.dialect, row.dialect)
    if row.needs_key:
        with pytest.raises(OptionError) as refused:
            request_of(choice)
        account = account_of(row.name)
        assert str(refused.value) == f"No API key for {account}. Set {row.key_variables[0]} or pass api_key=."
    for variable in reversed(row.key_variables):  # so that the first is set last and takes precedence
        monkeypatch.setenv(variable, f"of-{variable}")
        request = request_of(Catalogue(Settings.load(), {}).find(row.name, "m"))
        assert request.url.startswith(f"{row.home_url}/")
        assert key_of(request) == f"of-{variable}"
    for variable in reversed(row.url_variables):
        monkeypatch.setenv(variable, f"http://{variable.lower().replace('_', '-')}:1/v1")
        request = request_of(Catalogue(Settings.load(), {}).find(row.name, "m"))
        assert request.url.startswith(f"http://{variable.lower().replace('_', '-')}:1/v1/")


@pytest.mark.parametrize("row", REMOTE, ids=NAMES)
def test_a_row_says_whether_there_is_a_responses_api(row: KnownProvider) -> None:
    choice = Catalogue(Settings(), {}).find(row.name, "m", responses=True)
    assert choice.has_responses == row.has_responses
    assert isinstance(choice.provider, OpenAiResponses) == row.has_responses


def test_the_embedded_providers_row_starts_it() -> None:
    house = Catalogue(Settings(), {})
    for row in KNOWN_PROVIDERS:
        if not row.home_url:
            assert request_of(house.find(row.name, "echo")).url.startswith("http://127.0.0.1:")
            assert house.find(row.name, "echo", responses=True).has_responses == row.has_responses
    assert house.close()


# --- a new row -------------------------------------------------------------------------------------------------------

NEW = KnownProvider(name="example", home_url="https://api.example.com/openai/v1", key_variables=("EXAMPLE_API_KEY",))


def add(row: KnownProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (providers, loading):
        monkeypatch.setattr(module, "KNOWN_PROVIDERS", (*KNOWN_PROVIDERS, row))


def test_a_compatible_provider_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    add(NEW, monkeypatch)
    with pytest.raises(OptionError, match=r"^No API key for example\. Set EXAMPLE_API_KEY or pass api_key=\.$"):
        request_of(Catalogue(Settings.load(), {}).find("example", "m"))
    monkeypatch.setenv("EXAMPLE_API_KEY", "sk-example")
    house = Catalogue(Settings.load(), {})
    for choice in (house.find("example", "m"), house.find(None, "example/m")):
        assert (choice.name, choice.account, choice.model) == ("example", "example", "m")
        assert isinstance(choice.provider, OpenAiChat)
        request = request_of(choice)
        assert request.url == "https://api.example.com/openai/v1/chat/completions"
        assert key_of(request) == "sk-example"
    first = house.find("openai", "m", api_key="sk")
    assert house.fallback(first, "example/x")[1:3] == ("x", "example")
    assert not house.find("example", "m", responses=True).has_responses
    assert key_variables("example") == ("EXAMPLE_API_KEY",)
    assert "example" in remote_provider_names()
    assert "EXAMPLE_API_KEY" in main_key_variables()
    assert docs_row(NEW).startswith("| [`example`](providers/openai-compatible.md) | OpenAI's chat completions |")
    with pytest.raises(OptionError, match="example"):
        house.find("nobody", "m")


def test_a_compatible_provider_with_a_responses_api_is_one_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    add(replace(NEW, has_responses=True, needs_key=False), monkeypatch)
    choice = Catalogue(Settings.load(), {}).find("example", "m", responses=True)
    assert (choice.name, choice.has_responses) == ("example", True)
    assert request_of(choice).url == "https://api.example.com/openai/v1/responses"


# --- what is made from the rows --------------------------------------------------------------------------------------


def docs_row(row: KnownProvider) -> str:
    """The row's line in the documents' table."""
    page = f"providers/{row.name}.md" if row.home_url else f"{row.name}.md"
    page = page if (ROOT / "docs" / page).exists() else "providers/openai-compatible.md"
    keys = ", else ".join(f"`{variable}`" for variable in row.key_variables)
    key = keys if row.needs_key else f"none, or {keys}" if keys else "none"
    url = ", ".join(f"`{text}`" for text in (row.home_url, *row.url_variables)) if row.home_url else "in this process"
    return f"| [`{row.name}`]({page}) | {row.summary} | {key} | {url} |"


def test_the_documents_table_equals_the_rows() -> None:
    text = (ROOT / "docs" / "providers.md").read_text("utf-8")
    table = re.search(r"^\| name \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    assert table[1].splitlines() == [docs_row(row) for row in KNOWN_PROVIDERS]


def test_the_command_lines_help_names_every_provider_and_every_key_variable() -> None:
    shown = " ".join(CliRunner().invoke(app, ["chat", "--help"]).output.split())
    assert f"{', '.join(remote_provider_names())}, or loopback" in shown
    assert f"({', '.join(main_key_variables())})" in shown


def test_a_name_that_is_not_known_has_no_row() -> None:
    assert find_known_provider("nobody") is None
    assert key_variables("nobody") == ()
    assert account_of("nobody") == "nobody"
