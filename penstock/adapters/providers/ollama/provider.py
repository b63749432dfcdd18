"""Ollama's own chat API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.ollama.request import ollama_body
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.errors import error_response
from penstock.adapters.providers.shared.json_values import text_of
from penstock.config.options import RequestOptions
from penstock.config.providers import KnownProvider, known_provider
from penstock.errors import ProtocolError, ProviderError
from penstock.ports import ChatCall, ProviderRequest, Secret

__all__ = ["OLLAMA_URL", "OllamaChat"]

_OLLAMA: Final = known_provider("ollama")
OLLAMA_URL: Final = _OLLAMA.home_url


class OllamaChat:
    """Implements `Provider` and `CanListModels` for ``POST {base_url}/api/chat``; ``base_url`` may end in ``/api``.

    Needs no key; if there is one (Ollama's cloud, a proxy), it is sent as a Bearer token.
    """

    name = "ollama"

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = OLLAMA_URL,
        *,
        known: KnownProvider = _OLLAMA,
        headers: Mapping[str, str | Secret] | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            api_key, base_url, known=known, dialect_headers={"Accept": "application/x-ndjson"}, headers=headers
        )

    @property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"OllamaChat({self.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request.

        Raises:
            OptionError: the input is not messages, an image is given by its URL, or a parameter is not allowed or
                cannot be encoded.
        """
        return self._endpoint.request(self._path("chat"), ollama_body(call))

    def decoder(self, options: RequestOptions) -> OllamaDecoder:
        """Make a decoder for one response."""
        return OllamaDecoder(options.max_event_bytes, options.raw)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error response to a typed error."""
        return error_response(status, headers, body)

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """Build the GET request for the list of installed models, which is a single page."""
        return self._endpoint.get(self._path("tags"))

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the list: the models' names.

        Raises:
            ProtocolError: it is not a list of models.
        """
        try:
            models = msgspec.json.decode(body)["models"]
            names = [text_of(model.get("model")) or text_of(model.get("name")) for model in models or ()]
        except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError, KeyError, TypeError):
            raise ProtocolError("the response is not a list of models") from None
        return [name for name in names if name], None

    def _path(self, path: str) -> str:
        return path if self.base_url.endswith("/api") else f"api/{path}"
