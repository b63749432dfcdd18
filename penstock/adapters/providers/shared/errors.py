"""Providers' error responses and error frames as typed errors, with the time to wait that they ask for."""

from __future__ import annotations

import http
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import text_of, whole_number
from penstock.adapters.providers.shared.rate_limits import parse_date, parse_seconds, wait_for_exhausted
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    RateLimited,
)

__all__ = ["LONGEST_MESSAGE", "error_frame", "error_response"]

LONGEST_MESSAGE = 1_000
"""Characters of a provider's message that an error keeps."""
_LONGEST_CODE = 100


def error_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Map an HTTP error response to a typed error. The body may be cut off, or not be JSON."""
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        payload = None
    error = _classify(status, payload, _retry_after(status, headers))
    should_retry = headers.get("x-should-retry")  # OpenAI's header; it overrides the status
    if should_retry in ("true", "false"):
        error.retryable = should_retry == "true"
    return error


def error_frame(payload: object) -> ApiError:
    """Map an error that came inside a stream under HTTP 200, in any of the forms that providers send."""
    return _classify(200, payload, None)


_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_CONTEXT_PHRASES = (
    "maximum context length",
    "context size has been exceeded",
    "exceeds the available context size",
    "exceeds the context window",
    "exceed the context window",
    "context length exceeded",
    "prompt is too long",
    "input is too long",
    "exceeds the maximum number of tokens",  # Gemini
    "exceeds the context length",  # Ollama
)
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "moderation_blocked",
}
_AUTH_CODES = {
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "unauthenticated",
    "permission_error",
    "permission_denied",
    "unauthorized",
}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests", "resource_exhausted"}
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded", "insufficient_balance"}
_REQUEST_CODES = {"invalid_request_error", "invalid_parameter_error", "not_found_error", "model_not_found"}
_SERVER_CODES = {
    "server_error",
    "internal_error",
    "internal_server_error",
    "overloaded",
    "overloaded_error",
    "service_unavailable",
    "server_is_overloaded",
    "timeout",
    "timeout_error",
    "api_error",
}
_RETRYABLE_STATUS = {408, 409, 425, 499, 500, 502, 503, 504, 520, 522, 524, 529}


def _classify(status: int, payload: object, retry_after: float | None) -> ApiError:
    error = _error_object(payload)
    raw_code = error.get("code")
    code = str(raw_code) if isinstance(raw_code, (str, int)) and raw_code != "" else text_of(error.get("type")) or None
    code = code and replace_surrogates(code[:_LONGEST_CODE])
    message = _message(error) or _default_message(status)
    codes = {text_of(error.get("code")).lower(), text_of(error.get("type")).lower(), *_inner_codes(error)}
    # Under HTTP 200 the frame's own code is the nearest thing to a status.
    frame_status = whole_number(raw_code) or whole_number(error.get("status_code")) or 0
    effective = frame_status if status == 200 and 400 <= frame_status < 600 else status

    if codes & _QUOTA_CODES:
        return RateLimited(status, message, code=code, retryable=False, retry_after=retry_after)
    if effective == 429 or codes & _RATE_CODES:
        return RateLimited(status, message, code=code, retryable=True, retry_after=retry_after)
    if codes & _CONTEXT_CODES or any(phrase in message.lower() for phrase in _CONTEXT_PHRASES):
        return ContextLengthExceeded(status, message, code=code)
    if codes & _FILTER_CODES:
        return ContentFilterError(status, message, code=code)
    if effective in (401, 403) or codes & _AUTH_CODES:
        return AuthenticationError(status, message, code=code)
    if effective in _RETRYABLE_STATUS or (effective == 200 and codes & _SERVER_CODES):
        return ApiError(status, message, code=code, retryable=True, retry_after=retry_after)
    if (400 <= effective < 500 and effective != 402) or codes & _REQUEST_CODES:
        return BadRequestError(status, message, code=code)
    return ApiError(status, message, code=code, retry_after=retry_after)


def _error_object(payload: object) -> dict[str, Any]:
    """Find the object that describes the error.

    Known forms: ``{error: {…}}``, ``{error: "…"}``, ``[{error: …}]``, ``{errors: […]}``, ``{code, message}``,
    ``{detail: …}``, plain text.
    """
    if isinstance(payload, list):
        payload = payload[0] if payload else None
    if isinstance(payload, dict):
        inner = payload.get("error") or payload.get("errors")
        if isinstance(inner, list):
            inner = inner[0] if inner else None
        if isinstance(inner, dict):
            return inner
        if isinstance(inner, str):
            return {**payload, "message": payload.get("message") or inner}
        return payload
    return {"message": payload} if isinstance(payload, str) else {}


def _inner_codes(error: Mapping[str, Any]) -> set[str]:
    """Read the codes in Azure's ``innererror`` (why it filtered) and OpenRouter's ``metadata`` (what was wrong)."""
    codes = set()
    for name, key in (("innererror", "code"), ("metadata", "error_type")):
        inner = error.get(name)
        if isinstance(inner, dict):
            codes.add(text_of(inner.get(key)).lower())
    return codes


def _message(error: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "title", "msg"):
        value = error.get(name)
        if isinstance(value, list) and value:  # FastAPI: [{loc, msg, type}]
            value = value[0]
        if isinstance(value, dict):
            value = value.get("msg") or value.get("message")
        if isinstance(value, str) and value.strip():
            return replace_surrogates(value.strip()[:LONGEST_MESSAGE])
    return ""


def _default_message(status: int) -> str:
    if status == 200:
        return "the provider reported an error without a message"
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return how many seconds to wait; for a 429 without that, until the exhausted limit resets."""
    requested = _requested_wait(headers)
    return wait_for_exhausted(headers) if requested is None and status == 429 else requested


def _requested_wait(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms``, or ``retry-after`` as seconds or as a date (RFC 9110 §10.2.3)."""
    milliseconds = parse_seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = parse_seconds(value)
    if seconds is not None:
        return seconds
    when = parse_date(value)
    if when is None:
        return None
    now = parse_date(headers.get("date"))  # the server's own clock, if it sends it
    return max(when - (time.time() if now is None else now), 0.0)
