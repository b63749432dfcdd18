"""The pieces of a message of Anthropic's, streamed or whole: usage, stop reason, citations, signatures, own tools."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.config.counting import dialect_of, exclusive_counts
from penstock.events import Citation, FinishReason, ReasoningBlock, ServerToolResult, StreamCompleted, TerminalEvent
from penstock.gateway.answers.chat_parts import untold_reason

__all__ = [
    "ANTHROPIC_KINDS",
    "citation_body",
    "message_body",
    "message_id",
    "message_metadata",
    "result_block",
    "seal",
    "sealed_block",
    "stop_reason",
    "unseal",
    "usage_body",
]

ANTHROPIC_KINDS: Final = frozenset({"thinking", "redacted_thinking"})
"""The kinds of reasoning blocks that Anthropic signs."""

_STOP: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "other": "end_turn",  # with `untold_reason` beside it
}
_OWN_WORDS: Final = frozenset({"pause_turn", "compaction", "model_context_window_exceeded", "stop_sequence"})
"""Anthropic's words that say more than the finish reason."""


# --- the message ------------------------------------------------------------------------------------------------------


def message_id(stream_id: str) -> str:
    """The message's id."""
    return f"msg_{stream_id}"


def message_body(stream_id: str, model: str) -> dict[str, Any]:
    """A message that has just begun. It has counts, which clients require; they are 0 until the end."""
    return {
        "id": message_id(stream_id),
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def stop_reason(terminal: TerminalEvent, reason: FinishReason, raw: str | None, *, has_calls: bool) -> str:
    """The stop reason in Anthropic's words. They have none for an unknown reason, see `untold_reason`.

    Without calls for the client it is never ``tool_use``; with some it is, if the provider gave no reason (``raw``).
    """
    if raw in _OWN_WORDS:
        return str(raw)
    word = _STOP.get(reason, "end_turn")
    if word == "tool_use" and not has_calls:
        word = "end_turn"
    if raw is None and has_calls and reason == "stop":
        return "tool_use"
    stop = terminal.provider_metadata.get("stop_sequence")
    return "stop_sequence" if word == "end_turn" and isinstance(stop, str) else word


def message_metadata(terminal: TerminalEvent) -> dict[str, Any]:
    """What the end of a message says besides the stop reason; ``stop_sequence`` may be None."""
    told = terminal.provider_metadata
    stop = told.get("stop_sequence")
    fields: dict[str, Any] = {"stop_sequence": stop if isinstance(stop, str) else None}
    if isinstance(terminal, StreamCompleted) and terminal.raw_finish_reason not in _OWN_WORDS:
        fields |= untold_reason(terminal.finish_reason, terminal.raw_finish_reason)
    details = told.get("refusal_details", told.get("stop_details"))
    if isinstance(details, Mapping):
        fields["stop_details"] = details
    if isinstance(container := told.get("container"), Mapping):
        fields["container"] = container
    return fields


def usage_body(terminal: TerminalEvent) -> dict[str, Any]:
    """The counts under Anthropic's names. ``output_tokens`` is always there, since clients require it.

    Input is without what the cache was read or written for, see `exclusive_counts`.
    """
    usage = terminal.usage
    if usage is None:
        return {"output_tokens": 0}
    dialect = dialect_of(terminal)
    asked, answered = exclusive_counts(usage, dialect)
    body: dict[str, Any] = {
        "input_tokens": asked,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
    }
    if (hour := usage.cache_write_1h_tokens) is not None:
        rest = max(0, (usage.cache_write_tokens or 0) - hour)
        body["cache_creation"] = {"ephemeral_5m_input_tokens": rest, "ephemeral_1h_input_tokens": hour}
    body["output_tokens"] = answered or 0
    if usage.reasoning_tokens is not None:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.server_tool_requests:
        body["server_tool_use"] = {f"{name}_requests": count for name, count in usage.server_tool_requests.items()}
    body["service_tier"] = usage.service_tier
    details = terminal.provider_metadata.get("usage_details")
    if dialect == "anthropic" and isinstance(details, Mapping):
        body = {**details, **body}
    return {name: value for name, value in body.items() if value is not None}


# --- citations --------------------------------------------------------------------------------------------------------


def citation_body(citation: Citation) -> dict[str, Any]:
    """A citation in Anthropic's form, by what its location says; one without such a location is that of a web search.

    The sealed ``encrypted_index`` of a web search is in no event; it is empty, and is not sent back.
    """
    location = citation.location
    told = {"cited_text": citation.cited_text or "", **location}
    document = {"document_title": citation.title, **({"file_id": citation.id} if citation.id else {})}
    if citation.kind == "document" and "start_char_index" in location:
        return {"type": "char_location", **told, **document}
    if citation.kind == "document" and "start_page_number" in location:
        return {"type": "page_location", **told, **document}
    if citation.kind == "document" and "start_block_index" in location:
        return {"type": "content_block_location", **told, **document}
    if citation.kind == "search_result" and "search_result_index" in location:
        source = location.get("source") or citation.url or ""
        return {"type": "search_result_location", **told, "source": source, "title": citation.title}
    web = {"encrypted_index": "", "title": citation.title, "url": citation.url or ""}
    return {"type": "web_search_result_location", **told, **web}


# --- sealed reasoning -------------------------------------------------------------------------------------------------

_SEAL: Final = "penstock."


class _Sealed(msgspec.Struct, omit_defaults=True):
    kind: str
    signature: str = ""
    id: str | None = None
    provider: str | None = None


def seal(block: ReasoningBlock) -> str:
    """The signature of a thinking block: Anthropic's own, or one that wraps that of another provider.

    The client returns it with the next request, where `unseal` finds which provider made it.
    """
    if block.kind in ANTHROPIC_KINDS:
        return block.signature
    told = _Sealed(block.kind, block.signature, block.id, block.provider)
    return _SEAL + base64.urlsafe_b64encode(msgspec.json.encode(told)).decode()


def unseal(signature: str, text: str) -> ReasoningBlock | None:
    """The block that another provider signed; None: the signature is Anthropic's own, or it is none of ours.

    >>> block = ReasoningBlock(kind="reasoning", signature="c2VhbGVk", id="rs_1", provider="openai-responses")
    >>> unseal(seal(block), "") == block
    True
    """
    if not signature.startswith(_SEAL):
        return None
    try:
        told = msgspec.json.decode(base64.urlsafe_b64decode(signature[len(_SEAL) :]), type=_Sealed)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None
    return ReasoningBlock(kind=told.kind, text=text, signature=told.signature, id=told.id, provider=told.provider)


def sealed_block(block: ReasoningBlock) -> dict[str, Any]:
    """A block of reasoning as a content block."""
    if block.kind == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.signature}
    return {"type": "thinking", "thinking": block.text, "signature": seal(block)}


# --- server tools -----------------------------------------------------------------------------------------------------

_ERROR: Final = "_tool_result_error"
_RESULT: Final = "_tool_result"


def result_block(result: ServerToolResult) -> dict[str, Any]:
    """The result of one of Anthropic's own tools as its content block; its type follows from the tool's name."""
    output = result.output
    kind = output.get("type") if isinstance(output, Mapping) else None
    block: dict[str, Any]
    if result.id.startswith("mcptoolu_"):
        return {"type": "mcp_tool_result", "tool_use_id": result.id, "is_error": result.is_error, "content": output}
    if isinstance(kind, str) and kind.endswith(_ERROR):
        block = {"type": kind.removesuffix("_error")}
    elif result.name.startswith("tool_search_tool"):
        block = {"type": "tool_search_tool_result"}
    else:
        block = {"type": result.name + _RESULT}
    return {**block, "tool_use_id": result.id, "content": output}
