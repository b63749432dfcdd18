"""Whole answers as messages of Anthropic's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from penstock.adapters.providers.shared.blocks import Text, interleaved
from penstock.config.counting import dialect_of
from penstock.events import Citation, ProviderBlock, StreamCompleted, ToolCall
from penstock.gateway.answers.anthropic_parts import (
    citation_body,
    message_body,
    message_metadata,
    sealed_block,
    stop_reason,
    usage_body,
)
from penstock.gateway.answers.chat import client_calls
from penstock.gateway.projections.frames import Opening

__all__ = ["answer"]


def answer(terminal: StreamCompleted, opening: Opening) -> dict[str, Any]:
    """The body of the response: an object of type ``message``, its content blocks in the order of the answer."""
    calls = client_calls(terminal, is_turn=opening.is_turn)
    body = message_body(opening.stream_id, terminal.model or opening.model)
    body["content"] = _content(terminal, calls, is_turn=opening.is_turn)
    raw = terminal.raw_finish_reason
    body["stop_reason"] = stop_reason(terminal, terminal.finish_reason, raw, has_calls=bool(calls))
    body["usage"] = {"input_tokens": 0, **usage_body(terminal)}
    if (managed := terminal.provider_metadata.get("context_management")) is not None:
        body["context_management"] = managed
    return body | message_metadata(terminal)


def _content(terminal: StreamCompleted, calls: tuple[ToolCall, ...], *, is_turn: bool) -> list[dict[str, Any]]:
    blocks = _placed_blocks(terminal, is_turn=is_turn)
    content: list[dict[str, Any]] = []
    if not blocks:
        content += map(sealed_block, terminal.reasoning_blocks)
    if unsigned := _unsigned(terminal.reasoning, [*content, *(block.data for block in blocks)]):
        content.insert(0, {"type": "thinking", "thinking": unsigned, "signature": ""})
    at = 0
    for item in interleaved(terminal.text, calls, blocks):
        if isinstance(item, Text):
            content += _texts(item.text, at, terminal.citations)
            at += len(item.text)
        elif isinstance(item, ToolCall):
            content.append(_call(item, blocks))
        elif item.get("type") not in ("tool_use", "container"):
            content.append(dict(item))
    if terminal.refusal:
        content.append({"type": "text", "text": terminal.refusal})
    return content


def _unsigned(reasoning: str, blocks: Iterable[Mapping[str, Any]]) -> str:
    """The reasoning that no block has."""
    for block in blocks:
        text = block.get("thinking") if block.get("type") == "thinking" else None
        if isinstance(text, str) and text:
            # Blocks may have it in other words than the answer, which then has all of it.
            reasoning = reasoning.replace(text, "", 1) if text in reasoning else ""
    return reasoning if reasoning.strip() else ""


def _placed_blocks(terminal: StreamCompleted, *, is_turn: bool) -> Sequence[ProviderBlock]:
    """The provider's own blocks, if they are Anthropic's. Those of a turn of several rounds are placed in its last."""
    has_rounds = is_turn and any(not call.is_server for call in terminal.tool_calls)
    return () if has_rounds or dialect_of(terminal) != "anthropic" else terminal.provider_blocks


def _texts(text: str, at: int, citations: Iterable[Citation]) -> list[dict[str, Any]]:
    """A text, which begins at ``at``, in blocks: each stretch with the same sources is one."""
    inside = [
        (max(citation.start, at), min(citation.end, at + len(text)), citation)
        for citation in citations
        if citation.start is not None and citation.end is not None
        if citation.start < at + len(text) and citation.end > at
    ]
    borders = sorted({at, at + len(text), *(place for start, end, _ in inside for place in (start, end))})
    blocks = []
    for start, end in pairwise(borders):
        sources = [citation_body(citation) for first, last, citation in inside if first <= start and last >= end]
        block: dict[str, Any] = {"type": "text", "text": text[start - at : end - at]}
        blocks.append(block | ({"citations": sources} if sources else {}))
    placeless = [citation_body(citation) for citation in citations if citation.start is None and at == 0]
    if placeless and blocks:
        blocks[-1]["citations"] = [*blocks[-1].get("citations", ()), *placeless]
    return blocks


def _call(call: ToolCall, blocks: Iterable[ProviderBlock]) -> dict[str, Any]:
    given = call.arguments if isinstance(call.arguments, Mapping) else {}
    if call.type == "custom":
        given = {"input": call.arguments_raw}
    block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": given}
    caller = next((one.data.get("caller") for one in blocks if one.data.get("id") == call.id), None)
    return block if caller is None else block | {"caller": caller}
