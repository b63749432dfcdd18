"""Ollama's own chat API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.errors import error_answer
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import (
    answer_format,
    calls_of,
    image_of,
    messages_of,
    parts_of,
    said_parameters,
    text_in,
    tool_choice_of,
)
from penstock.config.options import RequestOptions
from penstock.errors import OptionError, ProtocolError, ProviderError
from penstock.ports import ChatCall, ProviderRequest, Secret

__all__ = ["OLLAMA_URL", "OllamaChat", "OllamaDecoder"]

OLLAMA_URL = "http://localhost:11434"


class OllamaChat:
    """Implements `Provider` and `CanListModels` for ``POST {base_url}/api/chat``; ``base_url`` may end in ``/api``.

    Needs no key; where there is one (Ollama's cloud, a proxy) it is sent as a Bearer token.
    """

    name = "ollama"

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = OLLAMA_URL,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        more = {"Accept": "application/x-ndjson", **(headers or {})}
        self._endpoint = Endpoint(api_key, base_url, home="", key_variable="OLLAMA_API_KEY", headers=more)

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"OllamaChat({self.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request.

        Raises:
            OptionError: the messages are none, an image is not in the message itself, or a parameter is not allowed
                or cannot be JSON.
        """
        for name in ("model", "messages"):
            if name in call.parameters:
                raise OptionError(name, type(call.parameters[name]), "given once, not as a parameter too")
        if call.parameters.get("stream", True) is not True:
            raise OptionError("stream", call.parameters["stream"], "True")
        body = {"model": call.model, "messages": _messages(messages_of(call.input)), **_parameters(call.parameters)}
        return self._endpoint.request(self._path("chat"), {**body, "stream": True})

    def decoder(self, options: RequestOptions) -> OllamaDecoder:
        """A fresh decoder for one response."""
        return OllamaDecoder(options.max_event_bytes)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error."""
        return error_answer(status, headers, body)

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """The GET request for the models that are there; the answer is one page."""
        return self._endpoint.get(self._path("tags"))

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the answer: the models' names.

        Raises:
            ProtocolError: it is no list of models.
        """
        try:
            models = msgspec.json.decode(body)["models"]
            names = [text_of(model.get("model")) or text_of(model.get("name")) for model in models or ()]
        except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError, KeyError, TypeError):
            raise ProtocolError("the answer is no list of models") from None
        return [name for name in names if name], None

    def _path(self, path: str) -> str:
        return path if self.base_url.endswith("/api") else f"api/{path}"


# --- requests ------------------------------------------------------------------------------------------------------

_OPTIONS = frozenset(
    {
        "frequency_penalty",
        "min_p",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_predict",
        "num_thread",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
"""Parameters that go into ``options`` (those of a Modelfile and of ``api.Options``)."""

_NOT_THEIRS = {"name", "tool_calls", "function_call", "reasoning_blocks", "refusal", "audio", "annotations", "is_error"}


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the model and the messages; what ``options`` says itself wins."""
    parameters = said_parameters(parameters)
    body = {name: value for name, value in parameters.items() if name not in _OPTIONS}
    options = {name: value for name, value in parameters.items() if name in _OPTIONS}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body:
            options["num_predict"] = body.pop(name)
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    given = body.pop("options", None) or {}
    if not isinstance(given, Mapping):
        raise OptionError("options", type(given), "a dict")
    options.update(given)
    if options:
        body["options"] = options
    choice = tool_choice_of(body.get("tool_choice"))
    if choice in ("auto", "none"):  # there is no such parameter: to let the model choose is all that Ollama can
        del body["tool_choice"]
        if choice == "none":
            body.pop("tools", None)
    wanted = answer_format(body.get("response_format"))
    if wanted is not None:
        del body["response_format"]
        if wanted.kind != "text":
            body["format"] = "json" if wanted.kind == "json" else wanted.schema
    return body


def _messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    return [_message(message, names) for message in messages]


def _message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """One message as Ollama wants it: content is text, images stand beside it, calls have objects as arguments.

    ``names`` are the functions of the calls so far by their ids, which may be used again; those of this message are
    put in.
    """
    content = message.get("content")
    found = {name: value for name, value in message.items() if name not in _NOT_THEIRS}
    if found["role"] == "developer":
        found["role"] = "system"
    found["content"] = text_in(content) or text_of(message.get("refusal"))
    images = [image for part in parts_of(content) if (image := image_of(part)) is not None]
    if images:
        if any(image.url for image in images):
            raise OptionError("image_url", "a URL", "a data: URL; Ollama fetches no images")
        beside = message.get("images")
        found["images"] = [
            *(beside if isinstance(beside, (list, tuple)) else ()),
            *(image.data for image in images),
        ]
    if calls := calls_of(message):
        found["tool_calls"] = [
            {**({"id": call.id} if call.id else {}), "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
        names.update((call.id, call.name) for call in calls)
    if message["role"] == "tool" and "tool_name" not in found:
        name = names.get(text_of(message.get("tool_call_id"))) or text_of(message.get("name"))
        if name:
            found["tool_name"] = name
    return found
