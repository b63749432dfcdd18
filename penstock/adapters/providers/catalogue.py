"""Which providers there are, by name, and which one a model's name means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from penstock.adapters.providers.shared.messages import messages_of
from penstock.config.settings import Settings
from penstock.errors import CallTimeout, OptionError, SystemStopped
from penstock.ports import ChatCall, Provider, Secret

if TYPE_CHECKING:
    from penstock.adapters.loopback.server import LoopbackProvider

__all__ = ["Catalogue", "Found", "as_chat", "conversation"]

_CHAT: Final = "openai"
_RESPONSES: Final = "openai-responses"
_OLLAMA: Final = "ollama"
_LOOPBACK: Final = "loopback"
_KNOWN: Final = (_CHAT, _RESPONSES, "anthropic", _OLLAMA, "gemini")
_CHAT_ONLY: Final = frozenset({"OpenAiChat", "AnthropicMessages", "OllamaChat", "Gemini"})


class Found(NamedTuple):
    """Whom to ask, and for what."""

    provider: Provider
    model: str
    account: str
    """The name that its key, URL and limits have in the settings; dialects of one provider share it."""
    has_responses: bool
    """False: it knows nothing like OpenAI's Responses API; see `as_chat`."""

    @property
    def name(self) -> str:
        """By which name it was asked for: that of its account, or, where a provider has two dialects, the dialect's."""
        dialect = self.provider.name
        return dialect if _account(dialect) == self.account else self.account


class Catalogue:
    """Finds providers by name, with their keys and URLs; runs the embedded one for whoever asks for it.

    Args:
        settings: where keys, URLs and the default provider's name are.
        more: more providers by name, each a function of an api_key and a base_url, or a ready `Provider`.
    """

    def __init__(self, settings: Settings, more: Mapping[str, Callable[..., Provider] | Provider]) -> None:
        for name, one in more.items():
            if not callable(one) and not _is_provider(one):
                raise OptionError(f"providers[{name!r}]", type(one), "a function that makes a Provider, or a Provider")
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
    ) -> Found:
        """The provider of that name (None: the model's prefix, else the settings'), or the given one itself.

        A prefix (``"anthropic/claude-…"``) chooses where nobody has: no ``provider``, no ``base_url``, and the
        settings' provider is the built-in default without a URL of its own. It is taken off then, and where it is
        the provider's own. At a URL of one's own names stay as they are: gateways have names with such prefixes.

        Args:
            provider: a name, or a `Provider`.
            model: the model, maybe with a prefix.
            base_url: instead of the one in the settings.
            api_key: instead of the one in the settings.
            responses: where it has two dialects, that of OpenAI's Responses API.

        Raises:
            OptionError: there is no such provider.
            SystemStopped: it is the embedded one, and has been closed.
        """
        if provider is not None and not isinstance(provider, str):
            if not _is_provider(provider):
                raise OptionError("provider", type(provider), "a provider's name, or a Provider")
            if base_url is not None or api_key is not None:
                raise OptionError("provider", type(provider).__name__, "a name, when base_url or api_key are given")
            return Found(provider, model, provider.name, not _is_chat_only(provider))
        if api_key is not None and not isinstance(api_key, str):
            raise OptionError("api_key", type(api_key), "text, or None")
        name = provider or self._settings.provider.name
        account = _account(name)
        has_own_url = base_url is not None or self._url(name) is not None
        prefix, _, rest = model.partition("/")
        if rest and provider is None and name == _CHAT and not has_own_url and self._is_known(prefix):
            name, account, model = prefix, _account(prefix), rest
        elif rest and prefix in (name, account) and (not has_own_url or name == _OLLAMA):
            model = rest
        chosen = self._make(name, base_url, api_key, responses)
        return Found(chosen, model, account, not _is_chat_only(chosen))

    def fallback(self, first: Found, name: str, *, responses: bool = False) -> Found:
        """Whom to ask in the place of ``first``: ``"provider/model"``, or a model of the same provider.

        Raises:
            OptionError: there is no model in ``name``, or its provider cannot be made.
            SystemStopped: as for `find`.
        """
        prefix, slash, rest = name.partition("/")
        if not slash or not (prefix == first.account or self._is_known(prefix)):
            return first._replace(model=name)  # whatever has a slash in it otherwise is a gateway's name
        if not rest:
            raise OptionError("fallback", name, "provider/model, or a model of the same provider")
        if prefix == first.account:
            return first._replace(model=rest)
        return self.find(prefix, rest, responses=responses)

    def _is_known(self, name: str) -> bool:
        return name in self.names() or self._settings.base_url(name) is not None

    def names(self) -> tuple[str, ...]:
        """All names of providers, apart from those that only the settings have."""
        return tuple(sorted({*_KNOWN, *self._more, _LOOPBACK}))

    def _url(self, name: str) -> str | None:
        return self._settings.base_url(name) or self._settings.base_url(_account(name))

    def _make(self, name: str, base_url: str | None, api_key: str | None, responses: bool) -> Provider:
        dialect = _RESPONSES if responses else _CHAT
        if name == _LOOPBACK:
            return _adapter(dialect)(Secret(api_key) if api_key else None, base_url or self._loopback_url())
        if responses and name == _CHAT:
            name = _RESPONSES
        url = base_url or self._url(name)
        factory: Callable[..., Provider] | Provider
        if name in self._more:
            factory = self._more[name]
        elif url and (name not in _KNOWN or (name == _OLLAMA and _speaks_openai(url))):
            factory = _adapter(dialect)  # a server of the user's own
        elif name in _KNOWN:
            factory = _adapter(name)
        else:
            known = " | ".join(self.names())
            raise OptionError("provider", name, f"{known} | one with a base_url in the settings")
        if not callable(factory):
            return factory
        key = api_key or self._settings.api_key(name) or self._settings.api_key(_account(name))
        return factory(Secret(key) if key else None, **({"base_url": url} if url else {}))

    def _loopback_url(self) -> str:
        """Where the embedded provider is; it is started when it is first asked for."""
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


def _adapter(name: str) -> Callable[..., Provider]:
    """Import the class of a known provider: a program loads only those that it asks."""
    match name:
        case "openai":
            from penstock.adapters.providers.openai.chat import OpenAiChat

            return OpenAiChat
        case "openai-responses":
            from penstock.adapters.providers.openai.responses import OpenAiResponses

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
    raise AssertionError(name)


def _is_chat_only(provider: Provider) -> bool:
    """Whether it is one of ours without the Responses API; told by the name, which imports none of them."""
    here = __name__.rpartition(".")[0]
    return any(one.__name__ in _CHAT_ONLY and one.__module__.startswith(here) for one in type(provider).__mro__)


def _is_provider(thing: object) -> bool:
    """Whether it looks like a `Provider`; a class of them is none."""
    needed = ("name", "request", "decoder", "error")
    return not isinstance(thing, type) and all(hasattr(thing, name) for name in needed)


def _account(name: str) -> str:
    """One provider under two names, with settings for either."""
    return _CHAT if name == _RESPONSES else name


def _speaks_openai(ollama_url: str) -> bool:
    """Whether this is where Ollama speaks OpenAI's dialects instead of its own."""
    return urlsplit(ollama_url).path.rstrip("/").endswith("/v1")


def conversation(said: object) -> str | list[Mapping[str, Any]]:
    """What is said to a model, whatever the provider makes of it: text, or messages of any form.

    Raises:
        OptionError: it is neither, or there are bytes in it, which JSON would carry as base64.
    """
    if isinstance(said, str):
        return said
    if not isinstance(said, Iterable) or isinstance(said, (bytes, bytearray, Mapping)):
        raise OptionError("messages", type(said), 'a text, or a list of messages: [{"role": "user", "content": "…"}]')
    messages = list(said)
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise OptionError(f"messages[{number}]", type(message), "a dict with a role and content")
        if isinstance(content := message.get("content"), (bytes, bytearray)):
            raise OptionError(f"messages[{number}].content", type(content), "a text, or a list of content parts")
    return messages


def as_chat(call: ChatCall) -> ChatCall:
    """What was meant for the Responses API, for a provider that has only chat.

    ``instructions`` become a system message, ``max_output_tokens`` is ``max_tokens``, and functions get chat's form.

    Raises:
        OptionError: ``input`` has items that are no messages.
    """
    messages = messages_of(call.input, "input")
    parameters = dict(call.parameters)
    instructions = parameters.pop("instructions", None)
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    if "max_output_tokens" in parameters:
        parameters["max_tokens"] = parameters.pop("max_output_tokens")
    if isinstance(tools := parameters.get("tools"), (list, tuple)):
        parameters["tools"] = [_chat_tool(tool) for tool in tools]
    return ChatCall(model=call.model, input=messages, parameters=parameters)


def _chat_tool(tool: Any) -> Any:
    if not isinstance(tool, Mapping) or tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
