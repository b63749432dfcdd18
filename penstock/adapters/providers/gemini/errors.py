"""Google's errors (``google.rpc.Status``) as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.adapters.providers.shared.errors import error_answer, error_frame
from penstock.adapters.providers.shared.json_values import text_of, without_halves
from penstock.errors import ApiError, ContentFilterError

__all__ = ["blocked_prompt", "gemini_error"]

_LONGEST_MESSAGE = 1_000


def gemini_error(status: int, headers: Mapping[str, str], payload: object) -> ApiError:
    """Map an HTTP error answer's body, or the parsed JSON of an error inside a stream (``status`` 200).

    The code is Google's own word: the reason of its ``ErrorInfo`` (``API_KEY_INVALID``), else its status
    (``INVALID_ARGUMENT``). ``retry_after`` is the ``Retry-After`` header, else its ``RetryInfo``.
    """
    if isinstance(payload, bytes):
        body = payload
        try:
            payload = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return error_answer(status, headers, body)
    if isinstance(payload, list) and payload:  # an answer that was asked for as an array
        payload = payload[0]
    told = payload.get("error") if isinstance(payload, dict) else None
    details: list[dict[str, Any]] = []
    if isinstance(told, dict):
        found = told.get("details")
        details = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        word = _reason(details) or text_of(told.get("status"))
        if word:
            payload = {"error": {"code": word, "message": told.get("message"), "status_code": told.get("code")}}
    error = error_frame(payload) if status == 200 else error_answer(status, headers, _encoded(payload))
    if error.retry_after is None:
        error.retry_after = _retry_delay(details)
    return error


def blocked_prompt(feedback: Mapping[str, Any]) -> ContentFilterError:
    """The error for ``promptFeedback`` with a ``blockReason``: nothing is answered, under HTTP 200."""
    reason = without_halves(text_of(feedback.get("blockReason"))[:100])
    message = without_halves(text_of(feedback.get("blockReasonMessage"))[:_LONGEST_MESSAGE])
    return ContentFilterError(200, message or "the prompt was blocked", code=reason)


def _reason(details: list[dict[str, Any]]) -> str:
    reasons = (text_of(each.get("reason")) for each in details if _is(each, "ErrorInfo"))
    return next(filter(None, reasons), "")


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """``"34.5s"``, the JSON form of a protobuf Duration."""
    for each in details:
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", text_of(each.get("retryDelay")))
        if found and _is(each, "RetryInfo"):
            return float(found[1])
    return None


def _is(detail: Mapping[str, Any], kind: str) -> bool:
    return text_of(detail.get("@type")).endswith(f"google.rpc.{kind}")


def _encoded(payload: object) -> bytes:
    return msgspec.json.encode(payload)
