"""Google's Gemini API and Vertex AI: ``streamGenerateContent``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.gemini.errors import gemini_error
from penstock.adapters.providers.gemini.request import gemini_body
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.json_values import text_of
from penstock.config.options import RequestOptions
from penstock.config.providers import KnownProvider, known_provider
from penstock.errors import OptionError, ProtocolError, ProviderError
from penstock.ports import ChatCall, ProviderRequest, Secret

__all__ = ["GEMINI_URL", "Gemini"]

_GEMINI: Final = known_provider("gemini")
GEMINI_URL: Final = _GEMINI.home_url

_API_VERSION = re.compile(r"/v\d+(?:alpha|beta)?\d*(?=/|$)")

_UNSAFE_NAME = re.compile(r"^/|^$|//|(?:^|/)\.\.?(?:/|$)|[\ud800-\udfff]")
"""What no model's name contains and what would lead the URL to another path, and lone surrogates."""


class Gemini:
    """Implements `Provider` and `CanListModels`. The key is sent in a header, never in the URL.

    ``/v1beta`` is appended to a ``base_url`` without a version; one of Vertex AI ends in ``/publishers/google``.
    """

    name = "gemini"

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = GEMINI_URL,
        *,
        known: KnownProvider = _GEMINI,
        headers: Mapping[str, str | Secret] | None = None,
    ) -> None:
        self._endpoint = Endpoint(api_key, base_url, known=known, key_header=("x-goog-api-key", ""), headers=headers)
        self._version = "" if _API_VERSION.search(self.base_url) else "v1beta/"

    def __repr__(self) -> str:
        return f"Gemini({self.base_url})"

    @property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._endpoint.base_url

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request.

        Raises:
            OptionError: there is no key for Google's own URL, the model's name is malformed, or something in the call
                cannot be translated or encoded.
        """
        name: object = call.model
        if not isinstance(name, str) or _UNSAFE_NAME.search(name):
            raise OptionError("model", name if isinstance(name, str) else type(name), "a model's name")
        model = name if "/" in name else f"models/{name}"
        path = f"{self._version}{quote(model, safe='/-._~@')}:streamGenerateContent?alt=sse"
        return self._endpoint.request(path, gemini_body(call))

    def decoder(self, options: RequestOptions) -> GeminiDecoder:
        """Make a decoder for one response."""
        return GeminiDecoder(options.max_event_bytes, options.raw)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error response to a typed error."""
        return gemini_error(status, headers, body)

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """Build the GET request for the list of models, or for a further page of it."""
        next_page = f"&pageToken={quote(page, safe='')}" if page else ""
        return self._endpoint.get(f"{self._version}models?pageSize=1000{next_page}")

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the list: the models' names without their prefix ``models/``, and the next page's token.

        Raises:
            ProtocolError: it is not a list of models.
        """
        try:
            payload = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            payload = None
        models = payload.get("models", []) if isinstance(payload, dict) else None
        if not isinstance(models, list):
            raise ProtocolError("the response is not a list of models")
        names = [text_of(model.get("name")) for model in models if isinstance(model, dict)]
        return [name.removeprefix("models/") for name in names if name], text_of(payload.get("nextPageToken")) or None
