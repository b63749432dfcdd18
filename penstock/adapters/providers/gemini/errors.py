"""Google's errors (``google.rpc.Status``) as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.errors import LONGEST_MESSAGE, error_frame, error_response
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.errors import ApiError, ContentFilterError

__all__ = ["blocked_prompt", "gemini_error"]


def gemini_error(status: int, headers: Mapping[str, str], payload: object) -> ApiError:
    """Map the body of an HTTP error response, or the parsed JSON of an error inside a stream (``status`` 200).

    The code is Google's own: the reason in its ``ErrorInfo`` (``API_KEY_INVALID``), else its status
    (``INVALID_ARGUMENT``). ``retry_after`` is the ``Retry-After`` header, else its ``RetryInfo``.
    """
    if isinstance(payload, bytes):
        body = payload
        try:
            payload = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return error_response(status, headers, body)
    if isinstance(payload, list) and payload:  # the form of a response that was requested as an array
        payload = payload[0]
    fields = payload.get("error") if isinstance(payload, dict) else None
    details: list[dict[str, Any]] = []
    if isinstance(fields, dict):
        given = fields.get("details")
        details = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        code = _reason(details) or text_of(fields.get("status"))
        if code:
            payload = {"error": {"code": code, "message": fields.get("message"), "status_code": fields.get("code")}}
    error = error_frame(payload) if status == 200 else error_response(status, headers, msgspec.json.encode(payload))
    if error.retry_after is None:
        error.retry_after = _retry_delay(details)
    return error


def blocked_prompt(feedback: Mapping[str, Any]) -> ContentFilterError:
    """Make the error for a ``promptFeedback`` with a ``blockReason``, which comes under HTTP 200 without an answer."""
    reason = replace_surrogates(text_of(feedback.get("blockReason"))[:100])
    message = replace_surrogates(text_of(feedback.get("blockReasonMessage"))[:LONGEST_MESSAGE])
    return ContentFilterError(200, message or "the prompt was blocked", code=reason)


def _reason(details: list[dict[str, Any]]) -> str:
    reasons = (text_of(detail.get("reason")) for detail in details if _is_of_type(detail, "ErrorInfo"))
    return next(filter(None, reasons), "")


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """Read ``"34.5s"``, the JSON form of a protobuf Duration."""
    for detail in details:
        delay = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", text_of(detail.get("retryDelay")))
        if delay and _is_of_type(detail, "RetryInfo"):
            return float(delay[1])
    return None


def _is_of_type(detail: Mapping[str, Any], name: str) -> bool:
    return text_of(detail.get("@type")).endswith(f"google.rpc.{name}")
