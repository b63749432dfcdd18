"""Google's Gemini API: ``streamGenerateContent``, of the Gemini API and of Vertex AI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.gemini.errors import gemini_error
from penstock.adapters.providers.gemini.request import request_body
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.json_values import text_of
from penstock.config.options import RequestOptions
from penstock.errors import OptionError, ProtocolError, ProviderError
from penstock.ports import ChatCall, ProviderRequest, Secret

__all__ = ["GEMINI_URL", "Gemini", "GeminiDecoder"]

GEMINI_URL = "https://generativelanguage.googleapis.com"

_HAS_VERSION = re.compile(r"/v\d+(?:alpha|beta)?\d*(?=/|$)")

_LEADS_AWAY = re.compile(r"^/|^$|//|(?:^|/)\.\.?(?:/|$)|[\ud800-\udfff]")
"""What is in no model's name, and would not be a part of the path: the name of another place, or half a character."""


class Gemini:
    """Implements `Provider` and `CanListModels`. The key goes into a header, never into the URL.

    A ``base_url`` without a version gets ``/v1beta``; one of Vertex AI ends in ``/publishers/google``.
    """

    name = "gemini"

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = GEMINI_URL,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            api_key,
            base_url,
            home=GEMINI_URL,
            key_header=("x-goog-api-key", ""),
            key_variable="GEMINI_API_KEY",
            headers=headers,
        )
        self._version = "" if _HAS_VERSION.search(self.base_url) else "v1beta/"

    def __repr__(self) -> str:
        return f"Gemini({self.base_url})"

    @property
    def base_url(self) -> str:
        """Where it is."""
        return self._endpoint.base_url

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request.

        Raises:
            OptionError: there is no key for Google's own URL, or something cannot be translated or be JSON.
        """
        name: object = call.model
        if not isinstance(name, str) or _LEADS_AWAY.search(name):
            raise OptionError("model", name if isinstance(name, str) else type(name), "a model's name")
        model = name if "/" in name else f"models/{name}"
        path = f"{self._version}{quote(model, safe='/-._~@')}:streamGenerateContent?alt=sse"
        return self._endpoint.request(path, request_body(call))

    def decoder(self, options: RequestOptions) -> GeminiDecoder:
        """A fresh decoder for one response."""
        return GeminiDecoder(options.max_event_bytes)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error."""
        return gemini_error(status, headers, body)

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """The GET for the list of models, or for a further page of it."""
        more = f"&pageToken={quote(page, safe='')}" if page else ""
        return self._endpoint.get(f"{self._version}models?pageSize=1000{more}")

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """The models' names without ``models/`` before them, and the next page's token."""
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            answer = None
        models = answer.get("models", []) if isinstance(answer, dict) else None
        if not isinstance(models, list):
            raise ProtocolError("this is no list of models")
        names = [text_of(each.get("name")) for each in models if isinstance(each, dict)]
        return [name.removeprefix("models/") for name in names if name], text_of(answer.get("nextPageToken")) or None
