"""The Responses API's events as they are on the wire, and which of them say nothing that a delta could carry."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.adapters.providers.shared.json_values import whole_number

__all__ = ["CALL_ITEMS", "HOSTED", "TOLD_OTHERWISE", "XAI_SEARCHES", "Wire", "parts_in", "to_wire"]


class Wire(msgspec.Struct, gc=False):
    """Every event in one: what any of the types we read says."""

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

HOSTED = frozenset(
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
"""Tools that the provider runs: their items' types, and the middle of their events' types. Signs of life, no more."""

XAI_SEARCHES = frozenset({"x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"})
"""xAI's hosted search calls these as custom tools, with ids in ``xs_``; nobody but xAI has them."""

TOLD_OTHERWISE = frozenset(
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
"""Understood, but they say nothing that a delta could carry or that another event does not say."""


def to_wire(payload: dict[str, Any]) -> Wire:
    """Read an event that the typed way refuses: halves of characters, indices that are no whole numbers."""
    known: dict[str, Any] = {name: payload.get(name) for name in Wire.__struct_fields__}
    for name in ("sequence_number", "output_index", "content_index", "summary_index"):
        known[name] = whole_number(known[name])
    return Wire(**known)


def parts_in(value: object) -> list[dict[str, Any]]:
    """The objects in a list; nothing where it is none."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
