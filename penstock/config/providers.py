"""The providers that Penstock knows by name: one row each.

The provider catalogue, the environment variables that the settings read, the command line's help and the table in
``docs/providers.md`` are all made from `KNOWN_PROVIDERS`. To add a provider that is compatible with OpenAI's chat
completions, add a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = [
    "KNOWN_PROVIDERS",
    "Dialect",
    "KnownProvider",
    "account_of",
    "find_known_provider",
    "key_variables",
    "known_provider",
    "known_provider_names",
    "known_responses_name",
    "main_key_variables",
    "remote_provider_names",
]

Dialect: TypeAlias = Literal["openai-chat", "openai-responses", "anthropic", "ollama", "gemini"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """One row of the table.

    Attributes:
        name: the name in ``provider=``, before the slash of a model's name, and in the settings below ``providers``.
        summary: what it speaks, for the documents.
        dialect: the wire format, which chooses the adapter.
        home_url: the provider's own base URL; ``""``: it is embedded, and started when it is first needed.
        needs_key: whether ``home_url`` answers no request without a key.
        key_variables: environment variables with its key; the first that is set counts.
        url_variables: the same for its base URL.
        has_responses: whether it also offers OpenAI's Responses API.
        account: the row that this one shares its settings, key and rate limits with; ``""``: it has its own.
    """

    name: str
    summary: str = "OpenAI's chat completions"
    dialect: Dialect = "openai-chat"
    home_url: str
    needs_key: bool = True
    key_variables: tuple[str, ...] = ()
    url_variables: tuple[str, ...] = ()
    has_responses: bool = False
    account: str = ""


KNOWN_PROVIDERS: Final[tuple[KnownProvider, ...]] = (
    KnownProvider(
        name="openai",
        summary="OpenAI's chat completions, and every compatible server",
        home_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        url_variables=("OPENAI_BASE_URL",),
        has_responses=True,
    ),
    KnownProvider(
        name="openai-responses",
        summary="OpenAI's Responses API, which `system.respond` uses for `openai`",
        dialect="openai-responses",
        home_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        url_variables=("OPENAI_BASE_URL",),
        has_responses=True,
        account="openai",
    ),
    KnownProvider(
        name="anthropic",
        summary="Anthropic's Messages API",
        dialect="anthropic",
        home_url="https://api.anthropic.com",
        key_variables=("ANTHROPIC_API_KEY",),
        url_variables=("ANTHROPIC_BASE_URL",),
    ),
    KnownProvider(
        name="ollama",
        summary="Ollama's own API",
        dialect="ollama",
        home_url="http://localhost:11434",
        needs_key=False,
        key_variables=("OLLAMA_API_KEY",),
        url_variables=("OLLAMA_HOST",),
    ),
    KnownProvider(
        name="gemini",
        summary="Google's Gemini API, and Vertex AI",
        dialect="gemini",
        home_url="https://generativelanguage.googleapis.com",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        url_variables=("GOOGLE_GEMINI_BASE_URL",),
    ),
    KnownProvider(
        name="loopback",
        summary="the embedded provider, in OpenAI's dialects",
        home_url="",
        needs_key=False,
        has_responses=True,
    ),
)


def find_known_provider(name: str) -> KnownProvider | None:
    """Return the row of that name, or None."""
    return next((row for row in KNOWN_PROVIDERS if row.name == name), None)


def known_provider(name: str) -> KnownProvider:
    """Return the row of that name.

    Raises:
        KeyError: there is none.
    """
    if (row := find_known_provider(name)) is None:
        raise KeyError(name)
    return row


def known_provider_names() -> tuple[str, ...]:
    """List all names, in the table's order."""
    return tuple(row.name for row in KNOWN_PROVIDERS)


def remote_provider_names() -> tuple[str, ...]:
    """List the names of all providers but the embedded one, in the table's order."""
    return tuple(row.name for row in KNOWN_PROVIDERS if row.home_url)


def main_key_variables() -> tuple[str, ...]:
    """List each provider's first key variable, without repetitions, in the table's order."""
    return tuple(dict.fromkeys(row.key_variables[0] for row in KNOWN_PROVIDERS if row.key_variables))


def account_of(name: str) -> str:
    """Return the name of the settings and limits for ``name``: its own, except for a second dialect.

    >>> [account_of(name) for name in ("openai-responses", "anthropic", "my-server")]
    ['openai', 'anthropic', 'my-server']
    """
    row = find_known_provider(name)
    return (row.account if row is not None else "") or name


def known_responses_name(name: str) -> str:
    """Return the name of the row for the Responses API of ``name``; ``name`` itself where there is no such row.

    >>> [known_responses_name(name) for name in ("openai", "anthropic", "my-server")]
    ['openai-responses', 'anthropic', 'my-server']
    """
    rows = (row for row in KNOWN_PROVIDERS if row.dialect == "openai-responses" and row.account == name)
    return next((row.name for row in rows), name)


def key_variables(name: str) -> tuple[str, ...]:
    """List the environment variables in which the users of a provider usually keep its key."""
    row = find_known_provider(name)
    return row.key_variables if row is not None else ()
