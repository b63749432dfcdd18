"""The Responses API's events as they are on the wire, and the tables of types that the decoder needs."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import whole_number

__all__ = ["CALL_ITEMS", "HOSTED_TOOLS", "REDUNDANT_EVENTS", "XAI_SEARCHES", "ResponsesEvent", "dicts_in", "to_event"]


class ResponsesEvent(msgspec.Struct, gc=False):
    """The fields of all event types that the decoder reads, in one type."""

    type: str
    sequence_number: int | None = None
    delta: Any = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    item: Any = None
    response: Any = None


CALL_ITEMS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Types of items that are calls, each with the field that contains its arguments."""

HOSTED_TOOLS = frozenset(
    {
        "code_interpreter_call",
        "code_interpreter_call_code",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "mcp_call_arguments",
        "mcp_list_tools",
        "shell_call",
        "shell_call_command",
        "shell_call_output",
        "shell_call_output_content",
        "web_search_call",
    }
)
"""Tools that the provider runs: the types of their items, and the middle of their events' types. Only keep-alives."""

XAI_SEARCHES = frozenset({"x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"})
"""xAI's hosted search sends these as custom tool calls, with ids that begin with ``xs_``. Only xAI has them."""

REDUNDANT_EVENTS = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.content_part.added",
        "response.content_part.done",
        "response.reasoning_part.added",
        "response.reasoning_part.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.output_text.annotation.added",
    }
)
"""Events that are understood but contain nothing that a delta could carry or that another event does not repeat."""


def to_event(payload: dict[str, Any]) -> ResponsesEvent:
    """Read an event that the typed decoder refuses: lone surrogates, indices that are not whole numbers."""
    known: dict[str, Any] = {name: payload.get(name) for name in ResponsesEvent.__struct_fields__}
    for name in ("sequence_number", "output_index", "content_index", "summary_index"):
        known[name] = whole_number(known[name])
    return ResponsesEvent(**known)


def dicts_in(value: object) -> list[dict[str, Any]]:
    """List the objects in a list; nothing if ``value`` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
