"""The ``response`` object of the Responses API: what was asked for, how it ended, its output and usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from penstock.config.counting import dialect_of, inclusive_counts
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TerminalEvent
from penstock.gateway.answers.chat_parts import untold_reason
from penstock.gateway.problems import Problem, problem_of
from penstock.gateway.projections.frames import Opening

__all__ = ["STEERED", "ResponseStatus", "end_of", "error_body", "response_object", "usage_body"]

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

STEERED: Final = "steered"
"""The reason with which a stream is cancelled if its response goes on with further input of the user."""

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_INCOMPLETE_WORDS: Final = frozenset({"max_messages", STEERED})
"""Reasons that the API itself has, and `FinishReason` has not."""

_DEFAULTS: Final[dict[str, Any]] = {
    "background": False,
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
    "metadata": {},
}
"""The fields in the order of the API, with the values that its documentation gives for those that are not asked for."""
_ECHOED: Final = frozenset(_DEFAULTS) - {"completed_at", "error", "incomplete_details", "model", "output", "usage"}
_ALSO_ECHOED: Final = ("prompt", "prompt_cache_options", "prompt_cache_retention", "image", "access_programs")
_SECRET: Final = frozenset({"authorization", "headers"})
"""Fields of tools that are not repeated: keys for servers of MCP."""


def response_object(
    opening: Opening,
    status: ResponseStatus,
    *,
    model: str | None = None,
    output: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The object. ``changes``: other values than those of the request. The id is the stream's."""
    request = opening.request
    fields: dict[str, Any] = {
        "id": opening.stream_id,
        "object": "response",
        "created_at": opening.created,
        "status": status,
        **_DEFAULTS,
    }
    for name in _ECHOED:
        if (value := request.get(name)) is not None:
            fields[name] = value
    for name in _ALSO_ECHOED:
        if (value := request.get(name)) is not None:
            fields[name] = value
    if (conversation := request.get("conversation")) is not None:
        fields["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    if isinstance(asked := request.get("reasoning"), Mapping):
        fields["reasoning"] = _DEFAULTS["reasoning"] | dict(asked)
    if isinstance(text := request.get("text"), Mapping):
        fields["text"] = _DEFAULTS["text"] | dict(text)
    if isinstance(tools := request.get("tools"), list):
        fields["tools"] = [_without_secrets(tool) for tool in tools]
    fields["model"] = model or opening.model or request.get("model") or ""
    fields["output"] = output or []
    return fields | changes


def _without_secrets(tool: Any) -> Any:
    if not isinstance(tool, Mapping) or _SECRET.isdisjoint(tool):
        return tool
    return {name: value for name, value in tool.items() if name not in _SECRET}


def end_of(event: TerminalEvent) -> tuple[str, ResponseStatus, dict[str, Any]]:
    """How a response ends: the type of its last event, its status, and other fields that follow from the end."""
    fields: dict[str, Any] = {"usage": usage_body(event)}
    about = event.provider_metadata
    tier = event.usage.service_tier if event.usage is not None else None
    if tier := tier or about.get("service_tier"):
        fields["service_tier"] = tier
    for name in ("moderation", "system_fingerprint"):
        if name in about:
            fields[name] = about[name]
    if isinstance(event, StreamFailed):
        return "response.failed", "failed", fields | {"error": _error(problem_of(event.error))}
    if isinstance(event, StreamCancelled):
        if event.reason == STEERED:
            return "response.incomplete", "incomplete", fields | {"incomplete_details": {"reason": STEERED}}
        return "response.incomplete", "cancelled", fields
    reason = _reason(event)
    if reason is not None:
        return "response.incomplete", "incomplete", fields | {"incomplete_details": {"reason": reason}}
    fields |= untold_reason(event.finish_reason, event.raw_finish_reason)
    return "response.completed", "completed", fields | {"completed_at": int(event.timestamp) or None}


def _reason(event: StreamCompleted) -> str | None:
    """Why a response is incomplete; None if it is complete, or ended for a reason that the API has no word for."""
    raw = event.raw_finish_reason
    if event.finish_reason == "other":
        return raw if raw in _INCOMPLETE_WORDS else None
    return _INCOMPLETE.get(event.finish_reason)


def _error(problem: Problem) -> dict[str, Any]:
    error = {"code": problem.code, "message": problem.message, "type": problem.type}
    return error if problem.param is None else error | {"param": problem.param}


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of an answer with an error's status.

    >>> error_body(Problem(status=404, type="not_found_error", code="model_not_found", message="No model m."))["error"]
    {'message': 'No model m.', 'type': 'not_found_error', 'param': None, 'code': 'model_not_found'}
    """
    return {"error": {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}}


def usage_body(event: TerminalEvent) -> dict[str, Any] | None:
    """Counts in the form of the API, inclusive, see `inclusive_counts`; what was not reported is left out.

    Counts that the API has no place for stand where other servers of this API have them.
    """
    usage = event.usage
    if usage is None:
        return None
    asked, answered = inclusive_counts(usage, dialect_of(event))
    total = usage.total_tokens
    if total is None and asked is not None and answered is not None:
        total = asked + answered
    tools = usage.server_tool_requests
    return _told(
        {
            "input_tokens": asked,
            "input_tokens_details": _told(
                {
                    "cached_tokens": usage.cached_tokens,
                    "cache_write_tokens": usage.cache_write_tokens,
                    "audio_tokens": usage.audio_input_tokens,
                    "image_tokens": usage.image_input_tokens,
                    "tool_tokens": usage.tool_input_tokens,
                }
            ),
            "output_tokens": answered,
            "output_tokens_details": _told(
                {
                    "reasoning_tokens": usage.reasoning_tokens,
                    "audio_tokens": usage.audio_output_tokens,
                    "image_tokens": usage.image_output_tokens,
                }
            ),
            "total_tokens": total,
            "cache_creation": _told({"ephemeral_1h_input_tokens": usage.cache_write_1h_tokens}) or None,
            "server_tool_use": {f"{name}_requests": count for name, count in tools.items()} if tools else None,
            "cost": usage.reported_cost,
        }
    )


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
