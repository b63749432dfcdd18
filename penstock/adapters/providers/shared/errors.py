"""Providers' error answers and error frames as typed errors; how long they ask us to wait."""

from __future__ import annotations

import http
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import text_of, whole_number, without_halves
from penstock.adapters.providers.shared.rate_limits import exhausted_wait, seconds_of, timestamp_of
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    RateLimited,
)

__all__ = ["error_answer", "error_frame"]

_LONGEST_MESSAGE = 1_000
_LONGEST_CODE = 100


def error_answer(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Map an HTTP error answer, whose body may be cut or no JSON at all."""
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        payload = None
    error = _classified(status, payload, _retry_after(status, headers))
    wish = headers.get("x-should-retry")  # OpenAI's own word on it
    if wish in ("true", "false"):
        error.retryable = wish == "true"
    return error


def error_frame(payload: object) -> ApiError:
    """Map an error that came inside a stream under HTTP 200, in any of the shapes that providers send."""
    return _classified(200, payload, None)


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


def _classified(status: int, payload: object, retry_after: float | None) -> ApiError:
    error = _error_object(payload)
    raw_code = error.get("code")
    code = str(raw_code) if isinstance(raw_code, (str, int)) and raw_code != "" else text_of(error.get("type")) or None
    code = code and without_halves(code[:_LONGEST_CODE])
    message = _message(error) or _phrase(status)
    words = {text_of(error.get("code")).lower(), text_of(error.get("type")).lower(), *_inner_codes(error)}
    # Under HTTP 200 the frame's own code is the nearest thing to a status.
    real = whole_number(raw_code) or whole_number(error.get("status_code")) or 0
    real = real if status == 200 and 400 <= real < 600 else status

    if words & _QUOTA_CODES:
        return RateLimited(status, message, code=code, retryable=False, retry_after=retry_after)
    if real == 429 or words & _RATE_CODES:
        return RateLimited(status, message, code=code, retryable=True, retry_after=retry_after)
    if words & _CONTEXT_CODES or any(phrase in message.lower() for phrase in _CONTEXT_PHRASES):
        return ContextLengthExceeded(status, message, code=code)
    if words & _FILTER_CODES:
        return ContentFilterError(status, message, code=code)
    if real in (401, 403) or words & _AUTH_CODES:
        return AuthenticationError(status, message, code=code)
    if real in _RETRYABLE_STATUS or (real == 200 and words & _SERVER_CODES):
        return ApiError(status, message, code=code, retryable=True, retry_after=retry_after)
    if (400 <= real < 500 and real != 402) or words & _REQUEST_CODES:
        return BadRequestError(status, message, code=code)
    return ApiError(status, message, code=code, retry_after=retry_after)


def _error_object(payload: object) -> dict[str, Any]:
    """Find the object that says what is wrong: ``{error: {…}}``, ``{error: "…"}``, ``[{error: …}]``, ``{errors: […]}``,
    ``{code, message}``, ``{detail: …}``, or plain text.
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
    """Azure says why it filtered in ``innererror``, OpenRouter what was wrong in ``metadata``."""
    found = set()
    for name, key in (("innererror", "code"), ("metadata", "error_type")):
        inner = error.get(name)
        if isinstance(inner, dict):
            found.add(text_of(inner.get(key)).lower())
    return found


def _message(error: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "title", "msg"):
        value = error.get(name)
        if isinstance(value, list) and value:  # FastAPI: [{loc, msg, type}]
            value = value[0]
        if isinstance(value, dict):
            value = value.get("msg") or value.get("message")
        if isinstance(value, str) and value.strip():
            return without_halves(value.strip()[:_LONGEST_MESSAGE])
    return ""


def _phrase(status: int) -> str:
    if status == 200:
        return "the provider reported an error without a message"
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """How many seconds to wait; where a 429 does not say it, until the exhausted limit is there again."""
    told = _told_wait(headers)
    return exhausted_wait(headers) if told is None and status == 429 else told


def _told_wait(headers: Mapping[str, str]) -> float | None:
    """What ``retry-after-ms`` says, or ``retry-after`` as seconds or as a date (RFC 9110 §10.2.3)."""
    milliseconds = seconds_of(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = seconds_of(value)
    if seconds is not None:
        return seconds
    when = timestamp_of(value)
    if when is None:
        return None
    now = timestamp_of(headers.get("date"))  # the server's own clock, where it tells it
    return max(when - (time.time() if now is None else now), 0.0)
