"""Anthropic's Messages API, and the servers that speak it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.anthropic.request import to_body
from penstock.adapters.providers.shared.endpoint import Endpoint
from penstock.adapters.providers.shared.errors import error_answer
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import messages_of
from penstock.adapters.providers.shared.rate_limits import timestamp_of
from penstock.config.options import RequestOptions
from penstock.errors import OptionError, ProtocolError, ProviderError, RateLimited
from penstock.ports import ChatCall, ProviderRequest, Quota, Secret

__all__ = ["ANTHROPIC_URL", "AnthropicMessages", "MessagesDecoder"]

ANTHROPIC_URL = "https://api.anthropic.com"

_VERSION = "2023-06-01"
_MODELS_AT_ONCE = 1000  # the most that one page may have


class AnthropicMessages:
    """Implements `Provider`, `CanListModels` and `TellsQuota` for ``POST {base_url}/v1/messages``.

    ``base_url`` may end in ``/v1`` already. Without a key none is sent, which Anthropic's own URL refuses in `request`.
    """

    name = "anthropic"

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str = ANTHROPIC_URL,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._endpoint = Endpoint(
            api_key,
            base_url,
            home=ANTHROPIC_URL,
            key_header=("x-api-key", ""),
            key_variable="ANTHROPIC_API_KEY",
            headers={"anthropic-version": _VERSION, **(headers or {})},
        )

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._endpoint.base_url

    def __repr__(self) -> str:
        return f"AnthropicMessages({self.base_url})"

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the request. The parameter ``anthropic_beta``, a name or several, becomes the header of that name.

        Raises:
            OptionError: there is no key for Anthropic's own URL, the messages are none, or a parameter is not
                allowed or cannot be JSON.
        """
        parameters = dict(call.parameters)
        for name in ("model", "messages"):
            if name in parameters:
                raise OptionError(name, type(parameters[name]), "given once, not as a parameter too")
        if parameters.pop("stream", True) is not True:
            raise OptionError("stream", call.parameters["stream"], "True")
        betas = _betas(parameters.pop("anthropic_beta", None))
        body = {"model": call.model, **to_body(messages_of(call.input), parameters), "stream": True}
        return self._endpoint.request(self._path("messages"), body, betas)

    def decoder(self, options: RequestOptions) -> MessagesDecoder:
        """A fresh decoder for one response."""
        return MessagesDecoder(options.max_event_bytes)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer to a typed error; one that says no time to wait waits for the spent limit."""
        error = error_answer(status, headers, body)
        if isinstance(error, RateLimited) and error.retryable and error.retry_after is None:
            error.retry_after = _spent_wait(headers)
        return error

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """The GET request for the list of models; ``page`` is the last model of the page before."""
        after = f"&after_id={quote(page, safe='')}" if page else ""
        return self._endpoint.get(self._path(f"models?limit={_MODELS_AT_ONCE}{after}"))

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the answer: the models' names, and the next page's mark if there is one.

        Raises:
            ProtocolError: it is no list of models.
        """
        try:
            payload = msgspec.json.decode(body)
            names = [text_of(model.get("id")) for model in payload["data"]]
            more = payload.get("has_more") is True
        except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError, KeyError, TypeError):
            raise ProtocolError("the answer is no list of models") from None
        last = text_of(payload.get("last_id"))
        return [name for name in names if name], (last or None) if more else None

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read ``anthropic-ratelimit-…``; of tokens in and out, where they are told apart, the scarcer counts."""
        requests = _limit(headers, "requests")
        tokens = _limit(headers, "tokens")
        if tokens == (None, None):
            told = [
                limit for kind in ("input-tokens", "output-tokens") if (limit := _limit(headers, kind))[0] is not None
            ]
            tokens = min(told, key=lambda limit: limit[0] or 0, default=tokens)
        quota = Quota(
            requests_left=requests[0],
            requests_reset_s=requests[1],
            tokens_left=tokens[0],
            tokens_reset_s=tokens[1],
        )
        return None if quota == Quota() else quota

    def _path(self, path: str) -> str:
        return path if self.base_url.endswith("/v1") else f"v1/{path}"


def _betas(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise OptionError("anthropic_beta", type(value), "a name, or a list of names")
    return {"anthropic-beta": ",".join(names)} if names else {}


# --- rate limits ---------------------------------------------------------------------------------------------------

_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")


def _limit(headers: Mapping[str, str], kind: str) -> tuple[int | None, float | None]:
    """What is left of one limit, and in how many seconds it is full again."""
    left = headers.get(f"anthropic-ratelimit-{kind}-remaining", "").strip()
    reset = headers.get(f"anthropic-ratelimit-{kind}-reset", "")
    return int(left) if left.isdecimal() and len(left) < 16 else None, _until(reset, headers)


def _until(when: str, headers: Mapping[str, str]) -> float | None:
    """Seconds until an RFC 3339 time, by the server's own clock where it tells it."""
    try:
        at = datetime.fromisoformat(when.strip()).timestamp()
    except (ValueError, OverflowError):
        return None
    now = timestamp_of(headers.get("date"))
    return max(at - (time.time() if now is None else now), 0.0)


def _spent_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until all limits of which nothing is left are there again; None: no such limit is told."""
    limits = [_limit(headers, kind) for kind in _LIMITS]
    return max((reset for left, reset in limits if left == 0 and reset is not None), default=None)
