"""Answers with parts in the format of Anthropic's Messages API.

A text is cut into blocks where the spans of its citations begin and end. Pictures, sound, calls that are no functions
and probabilities have no form here and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.anthropic_encoder import AnthropicEncoder
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    PartEvents,
    Segment,
    encode_event,
    needs_parts,
    part_segments,
    to_object,
)
from penstock.adapters.loopback.parts import (
    Block,
    Declined,
    Part,
    Picture,
    Ran,
    RawEvent,
    Said,
    Search,
    ServerTool,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.pieces import ScriptedCall, fragments_of

__all__ = ["AnthropicPartsEncoder", "make_anthropic_encoder"]

_encode = msgspec.json.Encoder().encode

_Events = Iterator[tuple[bool, bytes]]
_SEALED = "bG9vcGJhY2s="


class AnthropicPartsEncoder(AnthropicEncoder):
    """Encodes one message that has parts or metadata. Implements `AnswerEncoder`.

    What is sent is collected as the content of the whole message.
    """

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer, context)
        self._content: list[dict[str, Any]] = []
        self._open: tuple[int, dict[str, Any]] | None = None  # a block of text without sources, which may go on
        self._counts = {"tools": 0, "calls": 0, "web_search": 0, "web_fetch": 0}

    def body(self) -> _Events:
        """Yield the events of all parts, without pauses."""
        for segment in self.segments():
            yield from segment.events

    def segments(self) -> Iterator[Segment]:
        """Yield the events between the pauses."""
        return part_segments(self._answer, self._part, self._end_text)

    def closing(self) -> Iterator[bytes]:
        """Yield ``message_delta`` with the stop reason and the usage, and ``message_stop``."""
        metadata = self._answer.metadata
        delta: dict[str, Any] = {"stop_reason": self._stop_reason(), **self._stopped()}
        if "container" in metadata:
            delta["container"] = metadata["container"]
        usage = self._usage(None)
        yield self._named_event("message_delta", delta=delta, **({"usage": usage} if usage else {}))
        if self._answer.done_marker:
            yield self._named_event("message_stop")

    def whole(self) -> bytes:
        """Return the message object."""
        for _ in self.body():  # fills the content
            pass
        usage = self._usage(None) or self._usage(0)
        return _encode(self._message(self._content, self._stop_reason()) | self._stopped() | {"usage": usage})

    # --- parts -------------------------------------------------------------------------------------------------------

    def _part(self, part: Part) -> PartEvents:
        if _is_left_out(part):
            return
        if not isinstance(part, (Said, Declined, RawEvent)):
            for event in self._end_text():
                yield False, event
        match part:
            case Said():
                yield from self._say(part)
            case Declined():
                yield from self._write(part.pieces, ())
            case Thought(redacted=None):
                yield from self._think(part)
            case Thought(redacted=data):
                yield from self._block({"type": "redacted_thinking", "data": data})
            case Search() | Ran() | ServerTool():
                yield from self._tool(part)
            case ScriptedCall():
                number = self._counts["calls"]
                self._counts["calls"] += 1
                self._content.append(self._call_block(number, part) | {"input": to_object(part)})
                yield from self._call(number, part)
            case RawEvent():
                yield True, encode_event(part.encoded, self._line_ending, part.name.encode())
            case Block():
                yield from self._block(part.data)

    def _say(self, said: Said) -> _Events:
        """A text in blocks: one for each piece that has the same sources all through."""
        length = len(said.text)
        spans = [(source, source.start or 0, length if source.end is None else source.end) for source in said.citations]
        borders = sorted({0, length, *(low for _, low, _ in spans), *(high for _, _, high in spans)})
        tokens = said.pieces
        for low, high in pairwise(borders):
            inside = [source for source, first, last in spans if first <= low and high <= last]
            yield from self._write(_cut(tokens, low, high), inside)

    def _write(self, tokens: list[str], sources: list[Source] | tuple[()]) -> _Events:
        if sources or self._open is None:
            for event in self._end_text():
                yield False, event
            block: dict[str, Any] = {"citations": []} if sources else {}
            index, start = self._start(block | {"type": "text", "text": ""})
            self._text_block = index
            self._open = index, block | {"type": "text", "text": ""}
            yield False, start
            for number, source in enumerate(sources):
                citation = _citation(source, number)
                block["citations"].append(citation)
                yield False, self._delta(index, {"type": "citations_delta", "citation": citation})
        index, told = self._open
        told["text"] += "".join(tokens)
        for token in tokens:
            yield True, self._text_delta(index, token)
        if sources:
            for event in self._end_text():
                yield False, event

    def _end_text(self) -> Iterator[bytes]:
        """End the open block of text, if there is one."""
        if self._open is not None:
            index, block = self._open
            self._content.append(block)
            self._open = self._text_block = None
            yield self._stop(index)

    def _think(self, thought: Thought) -> _Events:
        signature = _SEALED if thought.signature is None else thought.signature
        index, start = self._start({"type": "thinking", "thinking": "", "signature": ""})
        self._content.append({"type": "thinking", "thinking": thought.text, "signature": signature})
        yield False, start
        for piece in thought.pieces:
            yield True, self._delta(index, {"type": "thinking_delta", "thinking": piece})
        if signature:
            yield False, self._delta(index, {"type": "signature_delta", "signature": signature})
        yield False, self._stop(index)

    def _tool(self, tool: Search | Ran | ServerTool) -> PartEvents:
        number = self._counts["tools"]
        self._counts["tools"] += 1
        is_mcp = isinstance(tool, ServerTool) and tool.server is not None
        prefix = "mcptoolu" if is_mcp else "srvtoolu"
        name = _tool_name(tool)
        if name in self._counts:
            self._counts[name] += 1
        call: dict[str, Any] = {
            "type": "mcp_tool_use" if is_mcp else "server_tool_use",
            "id": tool.id or f"{prefix}_loopback_{self._context.number}_{number}",
            "name": name,
        }
        if isinstance(tool, ServerTool) and is_mcp:
            call["server_name"] = tool.server
        index, start = self._start(call | {"input": {}})
        self._content.append(call | {"input": msgspec.json.decode(tool.input_text)})
        yield False, start
        yield False, self._delta(index, {"type": "input_json_delta", "partial_json": ""})
        for piece in fragments_of(tool.input_text):
            yield True, self._delta(index, {"type": "input_json_delta", "partial_json": piece})
        yield False, self._stop(index)
        yield None
        if tool.has_result:
            yield from self._block(_result(tool, call))

    def _block(self, block: dict[str, Any]) -> _Events:
        """A block that comes whole."""
        index, start = self._start(block)
        self._content.append(block)
        yield True, start
        yield False, self._stop(index)

    # --- the message -------------------------------------------------------------------------------------------------

    def _stop_reason(self) -> str:
        answer = self._answer
        if answer.finish_reason is None and any(isinstance(part, Declined) for part in answer.content):
            return "refusal"
        if answer.finish_reason is None and self._counts["calls"]:
            return "tool_use"
        if answer.finish_reason in (None, "stop") and answer.metadata.get("stop_sequence"):
            return "stop_sequence"
        return super()._stop_reason()

    def _stopped(self) -> dict[str, Any]:
        """What stands beside the stop reason."""
        metadata = self._answer.metadata
        stopped: dict[str, Any] = {"stop_sequence": metadata.get("stop_sequence")}
        if "refusal_details" in metadata:
            stopped["stop_details"] = metadata["refusal_details"]
        return stopped

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        message = super()._message(content, stop_reason)
        metadata = self._answer.metadata
        if "response_id" in metadata:
            message["id"] = metadata["response_id"]
        if "container" in metadata:
            message["container"] = metadata["container"]
        return message

    def _usage(self, output: int | None) -> dict[str, Any] | None:
        usage = super()._usage(output)
        if usage is None:
            return None
        searches, fetches = self._counts["web_search"], self._counts["web_fetch"]
        if output is None and (searches or fetches):
            usage["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": fetches}
        metadata = self._answer.metadata
        if "service_tier" in metadata:
            usage["service_tier"] = metadata["service_tier"]
        details = metadata.get("usage_details")
        return usage | details if isinstance(details, dict) else usage


def _is_left_out(part: Part) -> bool:
    """Whether the API has no form for the part."""
    match part:
        case ScriptedCall():
            return part.type != "function"
        case Block():
            return part.dialect != "anthropic"
    return isinstance(part, (Picture, Sound))


def _cut(tokens: list[str], low: int, high: int) -> list[str]:
    """The pieces of the tokens between two places in their text."""
    cut: list[str] = []
    at = 0
    for token in tokens:
        piece = token[max(low - at, 0) : max(high - at, 0)]
        at += len(token)
        if piece:
            cut.append(piece)
    return cut


def _citation(source: Source, number: int) -> dict[str, Any]:
    quoted: dict[str, Any] = {"cited_text": source.cited_text or ""}
    match source.kind:
        case "url":
            sealed = {"encrypted_index": _SEALED, "title": source.title, "url": source.url or ""}
            return {"type": "web_search_result_location", **quoted, **sealed}
        case "search_result":
            place = {"search_result_index": number, "start_block_index": 0, "end_block_index": 1}
            return {
                "type": "search_result_location",
                **quoted,
                "source": source.url or source.id or "",
                "title": source.title,
                **place,
            }
        case _:
            length = len(source.cited_text or "")
            place = {"document_index": number, "start_char_index": 0, "end_char_index": length}
            return {
                "type": "char_location",
                **quoted,
                "document_title": source.title,
                **place,
                "file_id": source.id,
            }


def _tool_name(tool: Search | Ran | ServerTool) -> str:
    match tool:
        case Search():
            return "web_search"
        case Ran():
            return "code_execution"
        case _:
            return tool.name


def _result(tool: Search | Ran | ServerTool, call: dict[str, Any]) -> dict[str, Any]:
    """The block with the result of a call."""
    of = {"tool_use_id": call["id"]}
    kind = "tool_search_tool" if call["name"].startswith("tool_search_tool") else call["name"]
    content: Any
    match tool:
        case Search(error=str(code)):
            content = {"type": "web_search_tool_result_error", "error_code": code}
        case Search(results=results):
            content = [
                {
                    "type": "web_search_result",
                    "title": found.title,
                    "url": found.url,
                    "encrypted_content": _SEALED,
                    "page_age": None,
                }
                for found in results or ()
            ]
        case Ran(output=output, failed=failed):
            printed = {"stdout": "" if failed else output, "stderr": output if failed else ""}
            content = {"type": "code_execution_result", **printed, "return_code": int(failed), "content": []}
        case ServerTool(server=str()):
            text = [{"type": "text", "text": tool.output_text}]
            return {"type": "mcp_tool_result", **of, "is_error": tool.failed, "content": text}
        case ServerTool(failed=True):
            code = tool.output if isinstance(tool.output, str) else "unavailable"
            content = {"type": f"{kind}_tool_result_error", "error_code": code}
        case _:
            content = tool.output
    return {"type": f"{kind}_tool_result", **of, "content": content}


def make_anthropic_encoder(answer: Answer, context: AnswerContext) -> AnthropicEncoder:
    """Make the encoder for an answer."""
    return (AnthropicPartsEncoder if needs_parts(answer, context) else AnthropicEncoder)(answer, context)
