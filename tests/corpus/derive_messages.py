"""What a recording of Anthropic's Messages API has besides text and calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.corpus.bodies import Json
from tests.corpus.found import Found

__all__ = ["derive"]

_CITED = {
    "web_search_result_location": "url",
    "search_result_location": "search_result",
    "char_location": "document",
    "page_location": "document",
    "content_block_location": "document",
}


class _Block:
    """A content block that is open."""

    def __init__(self, start: Json, at: int) -> None:
        self.fields = dict(start)
        self.kind: str = start["type"]
        self.at = at
        self.signature: str = start.get("signature") or ""
        self.citations: list[Json] = list(start.get("citations") or ())


def derive(events: Iterable[Json]) -> Found:
    """Read the events in order."""
    found = Found()
    usage: Json = {}
    names: dict[str, str] = {}  # of the server tools, by the call's id
    blocks: dict[int, _Block] = {}
    container: Json = {}
    before = ""  # the type of the block before
    for event in events:
        match event["type"]:
            case "message_start":
                message = event["message"]
                found.response_id(message.get("id"))
                found.says(container=message.get("container"), stop_sequence=message.get("stop_sequence"))
                usage |= message.get("usage") or {}
                container = message.get("container") or {}
                if container:
                    found.block("container", container["id"])
                for content in message.get("content") or ():
                    block = _Block(content, found.written)
                    _start(found, block, before)
                    _close(found, block, names)
                    before = block.kind
            case "content_block_start":
                block = _Block(event["content_block"], found.written)
                blocks[event["index"]] = block
                _start(found, block, before)
                before = block.kind
            case "content_block_delta":
                _read(found, blocks[event["index"]], event["delta"])
            case "content_block_stop":
                _close(found, blocks.pop(event["index"]), names)
            case "message_delta":
                delta = event["delta"]
                found.says(
                    container=delta.get("container"),
                    stop_sequence=delta.get("stop_sequence"),
                    refusal_details=delta.get("stop_details"),
                )
                if delta.get("container") and delta["container"] != container:
                    container = delta["container"]
                    found.block("container", container["id"])
                usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
    _count(found, usage)
    return found


def _start(found: Found, block: _Block, before: str) -> None:
    """A text directly after a text continues it: the border of a citation is no joint."""
    if block.kind == "text" and before != "text":
        found.joint("text")
    elif block.kind == "thinking":
        found.joint("reasoning")
    elif block.kind == "tool_use":
        found.calls += 1
    found.say("text", block.fields.get("text") or "" if block.kind == "text" else "")
    found.say("reasoning", block.fields.get("thinking") or "")


def _read(found: Found, block: _Block, delta: Json) -> None:
    match delta["type"]:
        case "text_delta":
            found.say("text", delta["text"])
        case "thinking_delta":
            found.say("reasoning", delta["thinking"])
        case "signature_delta":
            block.signature += delta["signature"]
        case "citations_delta":
            block.citations.append(delta["citation"])


def _close(found: Found, block: _Block, names: dict[str, str]) -> None:
    for citation in block.citations:
        found.cite(
            (block.at, found.written) if found.written > block.at else None,
            kind=_CITED[citation["type"]],
            url=citation.get("url"),
            title=citation.get("title") or citation.get("document_title"),
            cited_text=citation.get("cited_text"),
        )
    kind, fields = block.kind, block.fields
    if kind == "thinking" and block.signature:
        found.reasoning(kind, block.signature)
        found.block(kind)
    elif kind == "redacted_thinking":
        found.reasoning(kind, fields["data"])
        found.block(kind)
    elif kind in ("server_tool_use", "mcp_tool_use"):
        names[fields["id"]] = fields["name"]
        found.server_tool("call", fields["id"], fields["name"])
        found.block(kind, fields["id"])
    elif kind.endswith("_tool_result"):
        identifier = fields["tool_use_id"]
        found.server_tool("result", identifier, names[identifier], is_error=_is_error(fields) or None)
        found.block(kind, identifier)
    elif kind == "compaction":
        found.block(kind)
    elif kind == "tool_use" and (fields.get("caller") or {}).get("type", "direct") != "direct":
        found.block(kind, fields["id"])


def _is_error(result: Json) -> bool:
    content = result.get("content")
    kind: Any = content.get("type") if isinstance(content, dict) else ""
    return bool(result.get("is_error")) or str(kind).endswith("_error")


def _count(found: Found, usage: Json) -> None:
    lifetimes = usage.get("cache_creation") or {}
    found.counts(
        cache_write_1h_tokens=lifetimes.get("ephemeral_1h_input_tokens"),
        server_tool_requests={
            name.removesuffix("_requests"): count for name, count in (usage.get("server_tool_use") or {}).items()
        },
        service_tier=usage.get("service_tier"),
    )
