"""`ProviderClient`: one provider for those who want an answer rather than a stream, and to know how the provider is.

Its chats are supervised streams like all others. What is no stream (the list of models, the question whether the
provider is well) goes through the same reader: it is cancelled, mapped to typed errors and kept free of keys alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from penstock.actors.call.fetch import fetch
from penstock.adapters.tools import check_tools, to_tool
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.errors import (
    ApiError,
    OptionError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
)
from penstock.events import StreamCompleted
from penstock.ports import CanListModels, Provider, ProviderRequest, Secret
from penstock.services import HasServices, Services
from penstock.stream import Stream

__all__ = ["ProviderClient", "ProviderHealth", "create_client"]

_MOST_PAGES: Final = 100


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a provider answers, and accepts the key.

    ``latency_s``: seconds until its whole answer, None if there was none. ``status``: that of HTTP, where one came: 401
    for a wrong key, of which Gemini says 400. ``detail`` says what is wrong.
    """

    ok: bool
    latency_s: float | None = None
    status: int | None = None
    detail: str = ""


class ProviderClient:
    """One provider of a `System`; made by `System.provider`. Any thread may use it, as often as it likes."""

    def __init__(
        self,
        services: Services,
        chat: Callable[..., Stream],
        name: str | Provider | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._services = services
        self._chat = chat
        self._name = name if name is not None else services.settings.provider.name
        self._base_url = base_url
        self._api_key = Secret(api_key) if api_key else None
        found = services.catalogue.find(self._name, "", base_url, api_key)
        self._provider = found.provider
        self._account = found.account

    def __repr__(self) -> str:
        return f"ProviderClient({self._account!r}, {self._provider!r})"

    # --- chats ---------------------------------------------------------------------------------------------------

    def chat_completion(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        timeout: float | None = None,
        request_options: RequestOptions | None = None,
        **params: Any,
    ) -> StreamCompleted:
        """Ask a model and wait for its whole answer.

        Args:
            messages: as for `System.chat`.
            model: None takes the setting.
            timeout: seconds to wait; the call is cancelled then. None leaves that to the options' time-outs.
            request_options: as for `System.chat`.
            **params: go into the request (``temperature=0.2``), or are other arguments of `System.chat`.

        Raises:
            PenstockError: whatever `Stream.result` raises.
            CallTimeout: the answer was not whole within ``timeout`` seconds.
        """
        check_number("timeout", timeout, 0.001, 86_400, optional=True)
        stream = self.stream_chat_completion(messages, model=model, request_options=request_options, **params)
        try:
            return stream.result(timeout)
        except BaseException:  # the time-out, Ctrl-C: nobody will ask for it again
            if not stream.is_over:
                stream.cancel("nobody waits for the answer any more")
            raise

    def chat_completion_with_tools(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        tools: Iterable[Any],
        *,
        model: str | None = None,
        timeout: float | None = None,
        request_options: RequestOptions | None = None,
        **params: Any,
    ) -> StreamCompleted:
        """The same with tools that the model may ask for; what it asks for is in ``tool_calls``, and is not run.

        ``tools`` are functions, `Tool` objects, or tools in OpenAI's or the provider's own form. For the other
        arguments and errors see `chat_completion`.
        """
        forms = [_tool_form(tool) for tool in check_tools(tools)]
        return self.chat_completion(
            messages, model=model, timeout=timeout, request_options=request_options, tools=forms, **params
        )

    def stream_chat_completion(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        request_options: RequestOptions | None = None,
        **params: Any,
    ) -> Stream:
        """Ask a model, and stream its answer: `System.chat` with this provider."""
        return self._chat(
            model if model is not None else self._default_model(),
            messages,
            provider=self._name,
            base_url=self._base_url,
            api_key=self._api_key.reveal() if self._api_key is not None else None,
            request_options=request_options,
            **params,
        )

    def _default_model(self) -> str:
        settings = self._services.settings
        model = settings.model(self._name) if isinstance(self._name, str) else None
        model = model or settings.model(self._account)
        if model is None:
            raise OptionError("model", None, f"a model's name; there is none in the settings for {self._account}")
        return model

    # --- models and health ---------------------------------------------------------------------------------------

    def list_models(self, timeout: float = 10.0) -> list[str]:
        """The names of all models that the provider says it has, in its order.

        Raises:
            OptionError: the provider has no such list, or there is no key.
            ProviderError: it cannot be reached, refuses, or answers something else.
            ProviderTimeout: the list was not whole within ``timeout`` seconds.
        """
        check_number("timeout", timeout, 0.001, 86_400)
        lister = self._lister()
        clock = self._services.runtime.clock
        deadline = clock.monotonic() + timeout
        names: list[str] = []
        page: str | None = None
        for _ in range(_MOST_PAGES):
            left = deadline - clock.monotonic()
            if left <= 0:
                raise ProviderTimeout("total", timeout)
            found, page = lister.models(self._fetch(lister.models_request(page), left))
            names += found
            if page is None:
                return names
        raise ProtocolError(f"the list of models has more than {_MOST_PAGES} pages")

    def health_check(self, timeout: float = 5.0) -> ProviderHealth:
        """Ask for the list of models, and say what came of it. Costs nothing; says nothing of any model's state.

        Raises:
            OptionError: the provider has no such list to be asked for.
        """
        check_number("timeout", timeout, 0.001, 86_400)
        lister = self._lister()
        clock = self._services.runtime.clock
        begun = clock.monotonic()
        try:
            lister.models(self._fetch(lister.models_request(), timeout))
        except ApiError as error:
            return ProviderHealth(
                ok=False, latency_s=clock.monotonic() - begun, status=error.status, detail=error.message
            )
        except (ProviderError, OptionError) as error:
            return ProviderHealth(ok=False, detail=str(error))
        return ProviderHealth(ok=True, latency_s=clock.monotonic() - begun, status=200)

    def _lister(self) -> CanListModels:
        if not isinstance(self._provider, CanListModels):
            raise OptionError("provider", self._account, "one that says which models it has")
        return self._provider

    def _fetch(self, request: ProviderRequest, timeout: float) -> bytes:
        """Send a request whose answer is no stream; gives its body.

        Raises:
            ProviderError: as for streams.
        """
        services = self._services
        services.check_running()
        return fetch(
            services.reader, services.runtime.dispatcher, self._provider, request, services.settings.request, timeout
        )


class _ChatSystem(HasServices, Protocol):
    """What a client needs of its system."""

    @property
    def create_chat_token_stream(self) -> Callable[..., Stream]: ...


def create_client(
    self: _ChatSystem, name: str | Provider | None = None, *, base_url: str | None = None, api_key: str | None = None
) -> ProviderClient:
    """A client of one provider: whole answers, the list of its models, its health. A method of `System`.

    Args:
        self: the system.
        name: a name, or a `Provider`; None takes the setting.
        base_url: where it is; None takes the setting, then the provider's own.
        api_key: None takes the setting, then the provider's environment variable.

    Raises:
        OptionError: there is no such provider, or an argument is not allowed.
    """
    return ProviderClient(self._services, self.create_chat_token_stream, name, base_url, api_key)


def _tool_form(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return tool
    known = to_tool(tool)
    function = {"name": known.name, "description": known.description, "parameters": known.parameters}
    return {"type": "function", "function": function}
