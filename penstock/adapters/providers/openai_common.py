"""What OpenAI's two streaming APIs, and the many servers that speak one of them, have in common."""

from __future__ import annotations

import http
import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from penstock.config.options import _Options
from penstock.config.settings import ProviderOptions, Settings
from penstock.config.sources import STARS
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    OptionError,
    RateLimited,
)
from penstock.events import Usage
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    ProviderRequest,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TextDelta,
    ToolCallDelta,
)

__all__ = [
    "OPENAI_URL",
    "Endpoint",
    "Surrogates",
    "decode_json",
    "error_answer",
    "error_frame",
    "text_of",
    "to_usage",
    "whole_number",
    "without_halves",
]

OPENAI_URL = "https://api.openai.com/v1"
_LONGEST_MESSAGE = 1_000
_LONGEST_CODE = 100


class Endpoint:
    """Where to send requests, and with which key. The key's text is in none of its attributes' reprs."""

    def __init__(
        self,
        api_key: Secret | None,
        base_url: str,
        *,
        organization: str | None,
        project: str | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._key = _checked_key(api_key)
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if organization:
            self._headers["OpenAI-Organization"] = organization
        if project:
            self._headers["OpenAI-Project"] = project
        self._headers.update(headers or {})
        for name, value in self._headers.items():
            if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
                raise OptionError("headers", name, "names and values of printable ASCII")

    def request(self, path: str, body: Mapping[str, Any]) -> ProviderRequest:
        """Build the POST of ``body`` as JSON.

        Raises:
            OptionError: the key is missing where it cannot be, or a value of ``body`` cannot be JSON.
        """
        for name, value in body.items():  # msgspec would write them as JSON
            if isinstance(value, (_Options, ProviderOptions, Settings)):
                raise OptionError(name, type(value), "a parameter of the request; ours go in options, request_options")
        secrets = {}
        if self._key is not None:
            secrets["Authorization"] = Secret(f"Bearer {self._key.reveal()}")
        elif urlsplit(self.base_url).hostname == urlsplit(OPENAI_URL).hostname:
            raise OptionError("api_key", None, f"a key of {OPENAI_URL}; set OPENAI_API_KEY or give api_key")
        return ProviderRequest(
            url=f"{self.base_url}/{path}", body=_encoded(body), headers=self._headers, secret_headers=secrets
        )


def _checked_url(base_url: str) -> str:
    allowed = "an http:// or https:// URL without user, query or fragment"
    if any(mark in base_url for mark in "@?#"):
        raise OptionError("base_url", STARS, allowed)  # there may be a password or a key in it
    if any(char <= " " or char == "\x7f" for char in base_url):
        raise OptionError("base_url", base_url, allowed)
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise OptionError("base_url", base_url, allowed) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise OptionError("base_url", base_url, allowed)
    return base_url.rstrip("/")


def _checked_key(key: Secret | None) -> Secret | None:
    if key is None or not key:
        return None
    text = key.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise OptionError("api_key", key, "printable ASCII without blanks or line ends (pasted with its newline?)")
    return key


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError):
        pass
    for name, value in body.items():  # say which; never show it, it may be what the user wrote to the model
        try:
            msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError):
            raise OptionError(name, type(value), "what can be written as JSON") from None
    raise OptionError("parameters", type(body), "what can be written as JSON")


# --- pieces of answers ---------------------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """``value`` where it is text, else ``""``. It may hold halves of surrogate pairs."""
    return value if isinstance(value, str) else ""


def whole_number(value: object) -> int | None:
    """``value`` where it is a whole number (also as 12.0), else None; True is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def to_usage(usage: Mapping[str, Any], way_in: str, way_out: str) -> Usage | None:
    """Read a usage object whose counts are called ``{way_in}_tokens`` and ``{way_out}_tokens``; None: none are told."""
    details_in = usage.get(f"{way_in}_tokens_details")
    details_out = usage.get(f"{way_out}_tokens_details")
    counts = Usage(
        input_tokens=whole_number(usage.get(f"{way_in}_tokens")),
        output_tokens=whole_number(usage.get(f"{way_out}_tokens")),
        total_tokens=whole_number(usage.get("total_tokens")),
        cached_tokens=whole_number(details_in.get("cached_tokens")) if isinstance(details_in, dict) else None,
        reasoning_tokens=whole_number(details_out.get("reasoning_tokens")) if isinstance(details_out, dict) else None,
    )
    return None if counts == Usage() else counts


# --- halves of characters: servers that cut "\\ud83d\\ude00" between two events ------------------------------------

_decode = msgspec.json.Decoder().decode


def decode_json(data: str) -> object:
    """``data`` parsed, with halves of surrogate pairs in it left as they are, which msgspec refuses.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError:
        if "\\ud" not in data and "\\uD" not in data:
            raise
        return json.loads(data)


class Surrogates:
    """Puts the halves of surrogate pairs in an answer's deltas together; one without its other half is U+FFFD."""

    def __init__(self) -> None:
        self._kept: Delta | None = None  # its text is the first half

    def mend(self, deltas: list[Delta], *, is_end: bool) -> list[Delta]:
        """``deltas`` without halves; the last one's first half is kept for the next call unless this is the end."""
        out: list[Delta] = []
        for delta in deltas:
            name = _TEXT_FIELDS.get(type(delta))
            if name is None:
                if isinstance(delta, (FinishDelta, ErrorDelta)):
                    self._give_up(out)
                out.append(delta)
                continue
            text = getattr(delta, name)
            kept = self._kept
            if text and kept is not None:
                if _bare(kept) == _bare(delta):
                    text, self._kept = getattr(kept, name) + text, None
                else:
                    self._give_up(out)
            if text and "\ud800" <= text[-1] <= "\udbff":
                self._kept = msgspec.structs.replace(_bare(delta), **{name: text[-1]})
                text = text[:-1]
            whole = msgspec.structs.replace(delta, **{name: without_halves(text)})
            if whole != _bare(delta) or isinstance(delta, ToolCallDelta):
                out.append(whole)
        if is_end:
            self._give_up(out)
        return out

    def _give_up(self, out: list[Delta]) -> None:
        if self._kept is not None:
            out.append(msgspec.structs.replace(self._kept, **{_TEXT_FIELDS[type(self._kept)]: "\ufffd"}))
            self._kept = None


_TEXT_FIELDS: dict[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "text",
    RefusalDelta: "text",
    ToolCallDelta: "arguments",
}


def _bare(delta: Any) -> Any:
    """``delta`` without its text, and without what only a call's first fragment says."""
    if isinstance(delta, ToolCallDelta):
        return ToolCallDelta(index=delta.index)
    return type(delta)("")


def without_halves(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- errors --------------------------------------------------------------------------------------------------------


def error_answer(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Map an HTTP error answer, whose body may be cut or no JSON at all."""
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        payload = None
    error = _classified(status, payload, _retry_after(headers))
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
)
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "moderation_blocked",
}
_AUTH_CODES = {"invalid_api_key", "authentication_error", "permission_error", "permission_denied", "unauthorized"}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests"}
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
    "api_error",
}
_RETRYABLE_STATUS = {408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529}


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


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds to wait: ``retry-after-ms``, or ``retry-after`` as seconds or as a date (RFC 9110 §10.2.3)."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds
    when = _timestamp(value)
    if when is None:
        return None
    now = _timestamp(headers.get("date"))  # the server's own clock, where it tells it
    return max(when - (time.time() if now is None else now), 0.0)


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _timestamp(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
