"""`ProviderClient`: one provider, for whole answers, its list of models and its health.

Its chats are supervised streams like all others. Other requests (the list of models, the health check) use the same
reader: they can be cancelled, raise the same typed errors, and never show keys.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from penstock.actors.call.fetch import Fetch
from penstock.adapters.tools import check_names, check_tools, name_of, to_tool
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.errors import (
    ApiError,
    OptionError,
    PenstockError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
)
from penstock.events import StreamCompleted
from penstock.ports import CanListModels, Provider, ProviderRequest, Secret
from penstock.services import HasServices, Services
from penstock.stream import Stream, await_or_cancel, wait_or_cancel

__all__ = ["ProviderClient", "ProviderHealth", "create_client"]

_MOST_PAGES: Final = 100

T = TypeVar("T")
_Steps: TypeAlias = Generator[tuple[ProviderRequest, float], bytes, T]
"""Yields requests with their time-outs in seconds, and gets the bodies of the answers."""


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a provider answers and accepts the key.

    ``latency_s``: seconds until the whole answer; None if there was none. ``status``: the HTTP status, if there was
    one; 401 for a wrong key, except 400 from Gemini. ``detail`` says what is wrong.
    """

    ok: bool
    latency_s: float | None = None
    status: int | None = None
    detail: str = ""


class ProviderClient:
    """One provider of a `System`; made by `System.provider`. Any thread may use it."""

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

    # --- chats -------------------------------------------------------------------------------------------------------

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
            timeout: seconds after which the call is cancelled; None leaves that to the time-outs in the options.
            request_options: as for `System.chat`.
            **params: request parameters (``temperature=0.2``) and other arguments of `System.chat`.

        Raises:
            PenstockError: as for `Stream.result`.
            CallTimeout: the answer was not complete within ``timeout`` seconds.
        """
        check_number("timeout", timeout, 0.001, 86_400, optional=True)
        stream = self.stream_chat_completion(messages, model=model, request_options=request_options, **params)
        return wait_or_cancel(stream, timeout)

    async def achat_completion(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        timeout: float | None = None,
        request_options: RequestOptions | None = None,
        **params: Any,
    ) -> StreamCompleted:
        """The same as `chat_completion`, without blocking the event loop. Cancelling the task cancels the call."""
        check_number("timeout", timeout, 0.001, 86_400, optional=True)
        stream = self.stream_chat_completion(messages, model=model, request_options=request_options, **params)
        return await await_or_cancel(stream, timeout)

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
        """The same as `chat_completion` with tools. The model's calls are in ``tool_calls``; they are not run.

        ``tools`` are functions, `Tool` objects, or tools in OpenAI's or the provider's own form. For the other
        arguments and errors see `chat_completion`.
        """
        return self.chat_completion(
            messages, model=model, timeout=timeout, request_options=request_options, tools=_forms(tools), **params
        )

    async def achat_completion_with_tools(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        tools: Iterable[Any],
        *,
        model: str | None = None,
        timeout: float | None = None,
        request_options: RequestOptions | None = None,
        **params: Any,
    ) -> StreamCompleted:
        """The same as `chat_completion_with_tools`, without blocking the event loop."""
        return await self.achat_completion(
            messages, model=model, timeout=timeout, request_options=request_options, tools=_forms(tools), **params
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
            raise OptionError("model", None, f"a model's name, as the settings have none for {self._account}")
        return model

    # --- models and health -------------------------------------------------------------------------------------------

    def list_models(self, timeout: float = 10.0) -> list[str]:
        """The names of all models that the provider lists, in its order.

        Raises:
            OptionError: the provider has no such list, or there is no key.
            ProviderError: the provider cannot be reached, refuses, or answers with something else.
            ProviderTimeout: the list was not complete within ``timeout`` seconds.
        """
        return self._run(self._list_models(timeout))

    async def alist_models(self, timeout: float = 10.0) -> list[str]:
        """The same as `list_models`, without blocking the event loop. Cancelling the task closes the connection."""
        return await self._arun(self._list_models(timeout))

    def _list_models(self, timeout: float) -> _Steps[list[str]]:
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
            found, page = lister.models((yield lister.models_request(page), left))
            names += found
            if page is None:
                return names
        raise ProtocolError(f"the list of models has more than {_MOST_PAGES} pages")

    def health_check(self, timeout: float = 5.0) -> ProviderHealth:
        """Request the list of models and report the result. Costs nothing; says nothing about a single model.

        Raises:
            OptionError: the provider has no list of models.
        """
        return self._run(self._check_health(timeout))

    async def ahealth_check(self, timeout: float = 5.0) -> ProviderHealth:
        """The same as `health_check`, without blocking the event loop. Cancelling the task closes the connection."""
        return await self._arun(self._check_health(timeout))

    def _check_health(self, timeout: float) -> _Steps[ProviderHealth]:
        check_number("timeout", timeout, 0.001, 86_400)
        lister = self._lister()
        clock = self._services.runtime.clock
        started = clock.monotonic()
        try:
            lister.models((yield lister.models_request(), timeout))
        except ApiError as error:
            return ProviderHealth(
                ok=False, latency_s=clock.monotonic() - started, status=error.status, detail=error.message
            )
        except (ProviderError, OptionError) as error:
            return ProviderHealth(ok=False, detail=str(error))
        return ProviderHealth(ok=True, latency_s=clock.monotonic() - started, status=200)

    def _lister(self) -> CanListModels:
        if not isinstance(self._provider, CanListModels):
            raise OptionError("provider", self._account, "a provider that lists its models")
        return self._provider

    # --- requests that are not answered by a stream ------------------------------------------------------------------

    def _run(self, steps: _Steps[T]) -> T:
        """Send the requests that ``steps`` yields, and send it the bodies; returns what it returns."""
        try:
            request, timeout = next(steps)
            while True:
                try:
                    body = self._fetch(request, timeout).get()
                except PenstockError as error:
                    request, timeout = steps.throw(error)
                else:
                    request, timeout = steps.send(body)
        except StopIteration as done:
            value: T = done.value
            return value

    async def _arun(self, steps: _Steps[T]) -> T:
        try:
            request, timeout = next(steps)
            while True:
                try:
                    body = await self._fetch(request, timeout).aget()
                except PenstockError as error:
                    request, timeout = steps.throw(error)
                else:
                    request, timeout = steps.send(body)
        except StopIteration as done:
            value: T = done.value
            return value

    def _fetch(self, request: ProviderRequest, timeout: float) -> Fetch:
        services = self._services
        services.check_running()
        return Fetch(
            services.reader, services.runtime.dispatcher, self._provider, request, services.settings.request, timeout
        )


class _ChatSystem(HasServices, Protocol):
    """The parts of a system that a client needs."""

    @property
    def create_chat_token_stream(self) -> Callable[..., Stream]: ...


def create_client(
    self: _ChatSystem, name: str | Provider | None = None, *, base_url: str | None = None, api_key: str | None = None
) -> ProviderClient:
    """Make a client of one provider: whole answers, the list of models, health. A method of `System`.

    Args:
        self: the system.
        name: a name, or a `Provider`; None takes the setting.
        base_url: the provider's URL; None takes the setting, then the provider's own.
        api_key: None takes the setting, then the provider's environment variable.

    Raises:
        OptionError: there is no such provider, or an argument is not allowed.
    """
    return ProviderClient(self._services, self.create_chat_token_stream, name, base_url, api_key)


def _forms(tools: Iterable[Any]) -> list[Any]:
    forms = [_tool_form(tool) for tool in check_tools(tools)]
    check_names(name_of(form) for form in forms)
    return forms


def _tool_form(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return tool
    known = to_tool(tool)
    function = {"name": known.name, "description": known.description, "parameters": known.parameters}
    return {"type": "function", "function": function}
