"""A result of ``penstock batch`` as a line: Penstock's own form, and that of OpenAI's Batch API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from penstock.cli.batch_file import Format
from penstock.config.counting import dialect_of, inclusive_counts
from penstock.errors import ApiError, PenstockError
from penstock.events import StreamCompleted, to_dict
from penstock.ports.batch import BatchResult

__all__ = ["result_line"]

_LIKE_OPENAI: Final = {"refusal": "stop", "other": "stop", "taken": "stop"}


def result_line(result: BatchResult, form: Format) -> dict[str, Any]:
    """Return a result as JSON types."""
    return _openai(result) if form == "openai" else _own(result)


def _own(result: BatchResult) -> dict[str, Any]:
    plain = {} if result.end is None else to_dict(result.end)
    return {
        "id": result.id,
        "line": result.number,
        "status": result.status,
        "text": result.text,
        "reasoning": result.reasoning,
        "tool_calls": plain.get("tool_calls", []),
        "finish_reason": result.finish_reason,
        "usage": _without_none(plain.get("usage")),
        "cost": _cost(result),
        "model": result.model,
        "provider": result.provider,
        "attempts": result.attempts,
        "first_token_s": _rounded(result.first_token_s),
        "seconds": _rounded(result.seconds),
        "error": None if result.error is None else _error(result.error, result.text),
        "metadata": dict(result.metadata),
        "input_sha256": result.sha256,
        "finished_at": _date(result.finished_at),
    }


def _error(error: PenstockError, partial: str) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status", None),
        "retryable": bool(getattr(error, "retryable", False)),
        "partial": partial,
    }


def _cost(result: BatchResult) -> dict[str, Any] | None:
    cost = result.cost
    if cost is None:
        return None
    return {"amount": cost.amount, "currency": cost.currency, "is_estimate": cost.is_estimate}


def _without_none(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else {name: item for name, item in value.items() if item is not None}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- OpenAI's form -------------------------------------------------------------------------------------------------


def _openai(result: BatchResult) -> dict[str, Any]:
    error, status = result.error, 200
    body: dict[str, Any] | None = None
    if error is None and isinstance(result.end, StreamCompleted):
        body = _completion(result, result.end)
    elif isinstance(error, ApiError):
        status = error.status
        body = {"error": {"message": error.message, "type": type(error).__name__, "code": error.code}}
    metadata = {} if result.end is None else result.end.provider_metadata
    return {
        "id": f"batch_req_{result.number}_{result.sha256}",
        "custom_id": str(result.id),
        "response": None if body is None else {
            "status_code": status,
            "request_id": str(metadata.get("response_id", "")),
            "body": body,
        },
        "error": None if error is None else {
            "code": getattr(error, "code", None) or type(error).__name__,
            "message": str(error),
        },
    }  # fmt: skip


def _completion(result: BatchResult, end: StreamCompleted) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_raw}}
        for call in end.tool_calls
    ]
    message = {"role": "assistant", "content": end.text, "refusal": end.refusal or None}
    if calls:
        message["tool_calls"] = calls  # type: ignore[assignment] # the only value that is no text
    if end.reasoning:
        message["reasoning_content"] = end.reasoning
    return {
        "id": str(end.provider_metadata.get("response_id", end.stream_id)),
        "object": "chat.completion",
        "created": int(result.finished_at),
        "model": result.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": _LIKE_OPENAI.get(end.finish_reason, end.finish_reason),
            }
        ],
        "usage": _openai_usage(end),
    }


def _openai_usage(end: StreamCompleted) -> dict[str, Any] | None:
    usage = end.usage
    if usage is None:
        return None
    counts = inclusive_counts(usage, dialect_of(end))
    asked, answered = counts.asked or 0, counts.answered or 0
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": usage.total_tokens or asked + answered,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
    }
