"""Which providers there are, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.openai_chat import OpenAiChat
from penstock.adapters.providers.openai_responses import OpenAiResponses
from penstock.config.settings import Settings
from penstock.errors import CallTimeout, OptionError, SystemStopped
from penstock.ports import Provider, Secret

__all__ = ["Catalogue"]

_CHAT: Final = "openai"
_RESPONSES: Final = "openai-responses"
_LOOPBACK: Final = "loopback"
_PROVIDERS: Final[Mapping[str, Callable[..., Provider]]] = {_CHAT: OpenAiChat, _RESPONSES: OpenAiResponses}


class Catalogue:
    """Finds providers by name, with their keys and URLs; runs the embedded one for whoever asks for it.

    Args:
        settings: where keys, URLs and the default provider's name are.
        more: more providers by name, each a function of an api_key and a base_url, or a ready `Provider`.
    """

    def __init__(self, settings: Settings, more: Mapping[str, Callable[..., Provider] | Provider]) -> None:
        self._settings = settings
        self._providers = {**_PROVIDERS, **more}
        self._lock = threading.Lock()
        self._loopback: LoopbackProvider | None = None
        self._closed = False

    def find(
        self, provider: str | Provider | None, base_url: str | None, api_key: str | None, *, responses: bool = False
    ) -> Provider:
        """The provider of that name (None: the settings'), or the given one itself.

        Args:
            provider: a name, or a `Provider`.
            base_url: instead of the one in the settings.
            api_key: instead of the one in the settings.
            responses: where it has two dialects, that of OpenAI's Responses API.

        Raises:
            OptionError: there is no such provider.
            SystemStopped: it is the embedded one, and has been closed.
        """
        settings = self._settings
        if provider is not None and not isinstance(provider, str):
            if base_url is not None or api_key is not None:
                raise OptionError("provider", type(provider).__name__, "a name, when base_url or api_key are given")
            return provider
        name = provider or settings.provider.name
        if name == _LOOPBACK:
            dialect = OpenAiResponses if responses else OpenAiChat
            return dialect(Secret(api_key) if api_key else None, base_url or self._loopback_url())
        if responses and name == _CHAT:
            name = _RESPONSES
        factory = self._providers.get(name)
        if factory is None and settings.base_url(name):  # a server of the user's own
            factory = OpenAiResponses if responses else OpenAiChat
        if factory is None:
            known = " | ".join(sorted([*self._providers, _LOOPBACK]))
            raise OptionError("provider", name, f"{known} | one with a base_url in the settings")
        if not callable(factory):
            return factory
        account = _CHAT if name == _RESPONSES else name  # one provider under two names, with settings for either
        key = api_key or settings.api_key(name) or settings.api_key(account)
        url = base_url or settings.base_url(name) or settings.base_url(account)
        return factory(Secret(key) if key else None, **({"base_url": url} if url else {}))

    def _loopback_url(self) -> str:
        """Where the embedded provider is; it is started when it is first asked for."""
        with self._lock:
            if self._closed:
                raise SystemStopped()
            if self._loopback is None:
                self._loopback = LoopbackProvider(default_script())
                self._loopback.start()
            return self._loopback.base_url

    def close(self) -> bool:
        """Stop the embedded provider, if it runs; returns whether its thread ended."""
        with self._lock:
            self._closed = True
            loopback, self._loopback = self._loopback, None
        try:
            if loopback is not None:
                loopback.stop()
        except CallTimeout:
            return False
        return True
