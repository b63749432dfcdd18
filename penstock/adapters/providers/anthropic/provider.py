"""Anthropic's Messages API, and the servers that speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.anthropic.rate_limits import parse_quota, wait_for_exhausted
from penstock.adapters.providers.anthropic.request import beta_headers, messages_body
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.errors import error_response
from penstock.adapters.providers.shared.json_values import text_of
from penstock.config.options import RequestOptions
from penstock.config.providers import KnownProvider, known_provider
from penstock.errors import ProtocolError, ProviderError, RateLimited
from penstock.ports import ChatCall, ProviderRequest, Quota, Secret

__all__ = ["ANTHROPIC_URL", "AnthropicMessages"]

_ANTHROPIC: Final = known_provider("anthropic")
ANTHROPIC_URL: Final = _ANTHROPIC.home_url

_API_VERSION = "2023-06-01"
_LARGEST_PAGE = 1000  # models


class AnthropicMessages:
    """Implements `Provider`, `CanListModels` and `TellsQuota` for ``POST {base_url}/v1/messages``.

    ``base_url`` may already end in ``/v1``. Without a key none is sent, which Anthropic's own URL refuses in `request`.
    """

    name = "anthropic"

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = ANTHROPIC_URL,
        *,
        known: KnownProvider = _ANTHROPIC,
        headers: Mapping[str, str | Secret] | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            api_key,
            base_url,
            known=known,
            key_header=("x-api-key", ""),
            dialect_headers={"anthropic-version": _API_VERSION},
            headers=headers,
        )

    @property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"AnthropicMessages({self.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. The parameter ``anthropic_beta``, a name or several, becomes the header of that name.

        Raises:
            OptionError: there is no key for Anthropic's own URL, the input is not messages, or a parameter is not
                allowed or cannot be encoded.
        """
        return self._endpoint.request(self._path("messages"), messages_body(call), beta_headers(call))

    def decoder(self, options: RequestOptions) -> MessagesDecoder:
        """Make a decoder for one response."""
        return MessagesDecoder(options.max_event_bytes, options.raw)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error response to a typed error.

        If a 429 names no time to wait, ``retry_after`` is the time until the exhausted limits reset.
        """
        error = error_response(status, headers, body)
        if isinstance(error, RateLimited) and error.retryable and error.retry_after is None:
            error.retry_after = wait_for_exhausted(headers)
        return error

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """Build the GET request for the list of models; ``page`` is the last model of the previous page."""
        after = f"&after_id={quote(page, safe='')}" if page else ""
        return self._endpoint.get(self._path(f"models?limit={_LARGEST_PAGE}{after}"))

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the list: the models' names, and the next page's mark if there is one.

        Raises:
            ProtocolError: it is not a list of models.
        """
        try:
            payload = msgspec.json.decode(body)
            names = [text_of(model.get("id")) for model in payload["data"]]
            has_more = payload.get("has_more") is True
        except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError, KeyError, TypeError):
            raise ProtocolError("the response is not a list of models") from None
        last = text_of(payload.get("last_id"))
        return [name for name in names if name], (last or None) if has_more else None

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read the ``anthropic-ratelimit-…`` headers; None: there are none."""
        return parse_quota(headers)

    def _path(self, path: str) -> str:
        return path if self.base_url.endswith("/v1") else f"v1/{path}"
