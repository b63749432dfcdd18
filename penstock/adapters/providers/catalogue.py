"""Finds a provider by its name, or by the prefix of a model's name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never
from urllib.parse import urlsplit

from penstock.adapters.providers.shared.endpoint import trim_base_url
from penstock.config.providers import (
    Dialect,
    KnownProvider,
    account_of,
    find_known_provider,
    known_provider_names,
    known_responses_name,
)
from penstock.config.settings import Settings
from penstock.errors import CallTimeout, OptionError, SystemStopped
from penstock.ports import Provider, Secret

if TYPE_CHECKING:
    from penstock.adapters.loopback.server import LoopbackProvider

__all__ = ["Catalogue", "ProviderChoice"]

_CHAT_ONLY: Final = frozenset({"OpenAiChat", "AnthropicMessages", "OllamaChat", "Gemini"})


class ProviderChoice(NamedTuple):
    """The provider and the model that a call goes to."""

    provider: Provider
    model: str
    account: str
    """The name of its key, URL and limits in the settings; both dialects of one provider share it."""
    has_responses: bool
    """False: it offers nothing like OpenAI's Responses API; see `to_chat_call`."""

    @property
    def name(self) -> str:
        """The name that users know it by: that of its account or, if a provider has two dialects, of the dialect."""
        dialect = self.provider.name
        return dialect if account_of(dialect) == self.account else self.account


class Catalogue:
    """Finds providers by name, with their keys and URLs; starts the embedded one when it is first needed.

    Args:
        settings: contains keys, URLs and the default provider's name.
        more: more providers by name, each a ready `Provider` or a function that makes one from ``api_key`` and
            ``base_url``.

    Raises:
        OptionError: one of ``more`` is neither.
    """

    def __init__(self, settings: Settings, more: Mapping[str, Callable[..., Provider] | Provider]) -> None:
        for name, given in more.items():
            if not callable(given) and not _is_provider(given):
                allowed = "a function that makes a Provider, or a Provider"
                raise OptionError(f"providers[{name!r}]", type(given), allowed)
        self._settings = settings
        self._more = dict(more)
        self._lock = threading.Lock()
        self._loopback: LoopbackProvider | None = None
        self._closed = False

    def find(
        self,
        provider: str | Provider | None,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        responses: bool = False,
    ) -> ProviderChoice:
        """Find the provider of that name; for None, that of the model's prefix, else the default in the settings.

        A prefix (``"anthropic/claude-…"``) chooses the provider only if nothing else does: no ``provider``, no
        ``base_url``, and the default in the settings is ``openai`` at its own URL. The prefix is removed then, and also
        if it is the chosen provider's own name. At other base URLs it stays, since gateways have models with such
        names.

        Args:
            provider: a name, or a `Provider`, which is used as it is.
            model: the model, with or without a prefix.
            base_url: replaces the one in the settings.
            api_key: replaces the one in the settings.
            responses: use OpenAI's Responses API if the provider offers it.

        Raises:
            OptionError: there is no such provider, or an argument is malformed.
            SystemStopped: it is the embedded provider, which has been closed.
        """
        if provider is not None and not isinstance(provider, str):
            if not _is_provider(provider):
                raise OptionError("provider", type(provider), "a provider's name, or a Provider")
            if base_url is not None or api_key is not None:
                message = "base_url and api_key apply to a provider's name, not to a ready Provider."
                raise OptionError("provider", type(provider).__name__, "a provider's name", message=message)
            return ProviderChoice(provider, model, provider.name, not _is_chat_only(provider))
        if api_key is not None and not isinstance(api_key, str):
            raise OptionError("api_key", type(api_key), "text, or None")
        name = provider or self._settings.provider.name
        account = account_of(name)
        has_own_url = base_url is not None or self._url(name) is not None
        prefix, _, rest = model.partition("/")
        if rest and provider is None and name == "openai" and not has_own_url and self._has(prefix):
            name, account, model = prefix, account_of(prefix), rest
        elif rest and prefix in (name, account) and (not has_own_url or name == "ollama"):
            model = rest
        made = self._make(name, base_url, api_key, responses)
        return ProviderChoice(made, model, account, not _is_chat_only(made))

    def fallback(self, first: ProviderChoice, name: str, *, responses: bool = False) -> ProviderChoice:
        """Find a fallback for ``first``: ``"provider/model"``, or a model of the same provider.

        Raises:
            OptionError: ``name`` contains no model, or its provider cannot be made.
            SystemStopped: as for `find`.
        """
        prefix, slash, rest = name.partition("/")
        if not slash or not (prefix == first.account or self._has(prefix)):
            return first._replace(model=name)  # any other name with a slash is a gateway's model
        if not rest:
            raise OptionError("fallback", name, "provider/model, or a model of the same provider")
        if prefix == first.account:
            return first._replace(model=rest)
        return self.find(prefix, rest, responses=responses)

    def _has(self, name: str) -> bool:
        return name in self._more or find_known_provider(name) is not None or self._settings.base_url(name) is not None

    def _url(self, name: str) -> str | None:
        return self._settings.base_url(name) or self._settings.base_url(account_of(name))

    def _make(self, name: str, base_url: str | None, api_key: str | None, responses: bool) -> Provider:
        known = find_known_provider(name)
        if known is not None and not known.home_url:
            url = base_url or self._url(name)
            text = api_key or (self._settings.api_key(name) if url else None)
            made = _adapter(known, responses)
            headers = self._settings.headers(name)
            return made(Secret(text) if text else None, url or self._loopback_url(), headers=headers)
        if responses:
            name = known_responses_name(name)
            known = find_known_provider(name)
        url = base_url or self._url(name)
        given = self._more.get(name)
        if given is not None and not callable(given):
            return given
        text = api_key or self._settings.api_key(name) or self._settings.api_key(account_of(name))
        key = Secret(text) if text else None
        headers = {**self._settings.headers(account_of(name)), **self._settings.headers(name)}
        if given is not None:
            return given(key, **({"base_url": url} if url else {}))
        if known is not None and not (url and known.dialect == "ollama" and _is_openai_path(url)):
            return _adapter(known, responses)(key, url or known.home_url, known=known, headers=headers)
        if url:  # a server of the user's own, or Ollama's OpenAI dialect
            return _import_adapter("openai-responses" if responses else "openai-chat")(key, url, headers=headers)
        names = " | ".join(sorted({*known_provider_names(), *self._more}))
        raise OptionError("provider", name, f"{names} | a name with a base_url in the settings")

    def _loopback_url(self) -> str:
        """Return the embedded provider's URL; start it if it does not run yet."""
        with self._lock:
            if self._closed:
                raise SystemStopped()
            if self._loopback is None:
                from penstock.adapters.loopback.models import default_script
                from penstock.adapters.loopback.server import LoopbackProvider

                self._loopback = LoopbackProvider(default_script())
                self._loopback.start()
            return self._loopback.base_url

    def close(self) -> bool:
        """Stop the embedded provider if it runs. Returns whether its thread has ended."""
        with self._lock:
            self._closed = True
            loopback, self._loopback = self._loopback, None
        try:
            if loopback is not None:
                loopback.stop()
        except CallTimeout:
            return False
        return True


def _is_provider(thing: object) -> bool:
    """Tell whether an object looks like a `Provider`; a class does not."""
    needed = ("name", "request", "decoder", "error")
    return not isinstance(thing, type) and all(hasattr(thing, name) for name in needed)


def _adapter(known: KnownProvider, responses: bool) -> Callable[..., Provider]:
    if responses and known.dialect == "openai-chat" and known.has_responses:
        return _import_adapter("openai-responses")
    return _import_adapter(known.dialect)


def _import_adapter(dialect: Dialect) -> Callable[..., Provider]:
    """Return the class for a dialect. It is imported here, so that a program loads only the providers it uses."""
    match dialect:
        case "openai-chat":
            from penstock.adapters.providers.openai.chat_provider import OpenAiChat

            return OpenAiChat
        case "openai-responses":
            from penstock.adapters.providers.openai.responses_provider import OpenAiResponses

            return OpenAiResponses
        case "anthropic":
            from penstock.adapters.providers.anthropic.provider import AnthropicMessages

            return AnthropicMessages
        case "ollama":
            from penstock.adapters.providers.ollama.provider import OllamaChat

            return OllamaChat
        case "gemini":
            from penstock.adapters.providers.gemini.provider import Gemini

            return Gemini
    assert_never(dialect)


def _is_chat_only(provider: Provider) -> bool:
    """Tell by the classes' names, which imports none of them, whether it is one of ours without the Responses API."""
    here = __name__.rpartition(".")[0]
    return any(kind.__name__ in _CHAT_ONLY and kind.__module__.startswith(here) for kind in type(provider).__mro__)


def _is_openai_path(ollama_url: str) -> bool:
    """Tell whether Ollama speaks OpenAI's dialects at this URL instead of its own."""
    return urlsplit(trim_base_url(ollama_url)).path.endswith("/v1")
