"""The Responses API's events as they are on the wire, and the tables of types that the decoder needs."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import whole_number

__all__ = [
    "CALL_ITEMS",
    "PROGRESS",
    "REDUNDANT_EVENTS",
    "ResponsesEvent",
    "dicts_in",
    "payload_of",
    "to_event",
]


class ResponsesEvent(msgspec.Struct, gc=False):
    """The fields of frequent event types that the decoder reads, in one type. Each field costs time in every event."""

    type: str
    sequence_number: int | None = None
    delta: Any = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    text: Any = None
    logprobs: tuple[Any, ...] | None = None  # the empty tuple takes no memory
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    item: Any = None
    response: Any = None


CALL_ITEMS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Types of items that are calls in pieces, each with the field that contains its arguments."""

PROGRESS = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_operation_diff",
        "code_interpreter_call",
        "code_interpreter_call_code",
        "compaction",
        "computer_call",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "mcp_call",
        "mcp_call_arguments",
        "mcp_list_tools",
        "shell_call",
        "shell_call_command",
        "shell_call_output",
        "shell_call_output_content",
        "tool_search_call",
        "web_search_call",
        "x_search_call",
    }
)
"""The middle of the types of events about tools and compaction. The item says all of it when it is done."""

REDUNDANT_EVENTS = frozenset(
    {
        "response.content_part.added",
        "response.reasoning_part.added",
        "response.reasoning_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.audio.done",
        "response.audio.transcript.done",
    }
)
"""Events that are understood and contain nothing that another event does not repeat."""


def to_event(payload: dict[str, Any]) -> ResponsesEvent:
    """Read an event that the typed decoder refuses: lone surrogates, indices that are not whole numbers."""
    known: dict[str, Any] = {name: payload.get(name) for name in ResponsesEvent.__struct_fields__}
    for name in ("sequence_number", "output_index", "content_index", "summary_index"):
        known[name] = whole_number(known[name])
    return ResponsesEvent(**known)


def payload_of(event: ResponsesEvent) -> dict[str, Any]:
    """The fields of the event that the decoder reads, without those that are missing."""
    values = ((name, getattr(event, name)) for name in ResponsesEvent.__struct_fields__)
    return {name: value for name, value in values if value is not None}


def dicts_in(value: object) -> list[dict[str, Any]]:
    """List the objects in a list; nothing if ``value`` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
