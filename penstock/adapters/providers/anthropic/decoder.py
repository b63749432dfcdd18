"""The events of Anthropic's Messages API as deltas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import (
    count_of,
    decode_json,
    json_text,
    short_text,
    text_of,
    tool_requests,
    whole_number,
)
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.events import FinishReason, ReasoningBlock, Usage
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["MessagesDecoder"]


# --- the fast path: an ordinary event, typed -------------------------------------------------------------------------
# Text, reasoning or arguments of one content block. Any other event is decoded again by the lenient path below.


class _WireText(msgspec.Struct, gc=False, tag_field="type", tag="text_delta"):
    text: str


class _WireThinking(msgspec.Struct, gc=False, tag_field="type", tag="thinking_delta"):
    thinking: str


class _WireArguments(msgspec.Struct, gc=False, tag_field="type", tag="input_json_delta"):
    partial_json: str


class _WireEvent(msgspec.Struct, gc=False):
    type: Literal["content_block_delta"]
    delta: _WireText | _WireThinking | _WireArguments
    index: int = 0


_decode_typed = msgspec.json.Decoder(_WireEvent).decode

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "other",  # the provider's own tools took long: sending the turn back continues it
}
_CALL_BLOCKS = {"tool_use": False, "server_tool_use": True, "mcp_tool_use": True}
"""Types of blocks that are calls, and whether the provider runs them itself."""


class _ThinkingBlock:
    """A thinking block that has begun. Becomes a `ReasoningBlock` at its end, if it has a signature."""

    __slots__ = ("signature", "texts")

    def __init__(self, text: str, signature: str) -> None:
        self.texts = [text]
        self.signature = signature


class MessagesDecoder(EventDecoder):
    """Implements `Decoder` for the Messages API.

    Citations, results of the provider's own tools, and unknown blocks and events are counted as skipped.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._streamed_calls: set[int] = set()  # indices of calls with arguments in fragments
        self._thinking_blocks: dict[int, _ThinkingBlock] = {}
        self._usage: dict[str, Any] = {}
        self._stop_reason = ""

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        for event in events:
            try:
                wire = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self._decode_leniently(event, out)
                if self.done:
                    break
                continue
            delta = wire.delta
            if type(delta) is _WireText:
                if delta.text:
                    out.append(TextDelta(delta.text))
            elif type(delta) is _WireThinking:
                self._thinking(wire.index, delta.thinking, out)
            elif type(delta) is _WireArguments:
                self._arguments(wire.index, delta.partial_json, out)
        if self._has_surrogates:
            out = self._surrogates.join(out, is_end=self.done or is_end)
        return out

    def _thinking(self, index: int, text: str, out: list[Delta]) -> None:
        if text:
            if block := self._thinking_blocks.get(index):
                block.texts.append(text)
            out.append(ReasoningDelta(text))

    def _arguments(self, index: int, text: str, out: list[Delta]) -> None:
        if index not in self._streamed_calls:  # not a call, or one that came whole
            self.skipped += 1
        elif text:
            out.append(ToolCallFragment(index=index, arguments=text))

    # --- the lenient path ------------------------------------------------------------------------------------------

    def _decode_leniently(self, event: SseEvent, out: list[Delta]) -> None:
        data = event.data
        try:
            payload = decode_json(data)
            self._has_surrogates = self._has_surrogates or has_escaped_surrogates(data)
        except (ValueError, RecursionError):
            payload = data
        fields = payload if isinstance(payload, dict) else {}
        kind = text_of(fields.get("type")) or ("" if event.event == "message" else event.event)
        if kind == "error" or (kind not in _HANDLERS and fields.get("error")):
            out.append(ErrorDelta(error_frame(payload)))
        elif kind == "ping":
            out.append(KeepAlive())
        elif kind in _HANDLERS:
            try:
                _HANDLERS[kind](self, fields, out)
            except RecursionError:  # nested just deeply enough to be parsed but not encoded again
                self.skipped += 1
        elif data.strip() == "[DONE]":  # from servers that also speak OpenAI's dialect
            self.done = True
        else:
            self.skipped += 1

    def _message_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        message = event.get("message")
        if isinstance(message, dict):
            self._read_message(message, out)
        else:
            self.skipped += 1

    def _whole_message(self, message: dict[str, Any], out: list[Delta]) -> None:
        """Read a whole answer, from a server that does not stream."""
        self._read_message(message, out)
        self.done = True

    def _read_message(self, message: dict[str, Any], out: list[Delta]) -> None:
        """Read a message's metadata and content so far; after one of the provider's own tools it may be complete."""
        if self.model is None:
            self.model = replace_surrogates(text_of(message.get("model"))) or None
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            self._block_start({"index": index, "content_block": block}, out)
            self._block_stop({"index": index}, out)
        self._read_finish(message.get("stop_reason"), out)
        self._read_usage(message.get("usage"), out)

    def _block_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = whole_number(event.get("index")) or 0
        block = event.get("content_block")
        fields = block if isinstance(block, dict) else {}
        kind = text_of(fields.get("type"))
        if kind == "text":
            if text := text_of(fields.get("text")):
                out.append(TextDelta(text))
        elif kind == "thinking":
            out.append(Thinking())
            self._thinking_blocks[index] = _ThinkingBlock("", text_of(fields.get("signature")))
            self._thinking(index, text_of(fields.get("thinking")), out)
        elif kind == "redacted_thinking":
            out.append(Thinking())
            data = replace_surrogates(text_of(fields.get("data")))
            out.append(ReasoningBlockDelta(ReasoningBlock(kind="redacted_thinking", signature=data)))
        elif kind in _CALL_BLOCKS:
            self._call_start(index, fields, out, is_server=_CALL_BLOCKS[kind])
        else:
            self.skipped += 1

    def _call_start(self, index: int, block: dict[str, Any], out: list[Delta], *, is_server: bool) -> None:
        given = block.get("input")
        arguments = json_text(given) if given else ""
        if not arguments:
            self._streamed_calls.add(index)
        out.append(
            ToolCallFragment(
                index=index,
                id=replace_surrogates(text_of(block.get("id"))) or None,
                name=replace_surrogates(text_of(block.get("name"))) or None,
                arguments=arguments,
                is_server=is_server,
            )
        )

    def _block_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        index = whole_number(event.get("index")) or 0
        delta = event.get("delta")
        fields = delta if isinstance(delta, dict) else {}
        kind = text_of(fields.get("type"))
        if kind == "signature_delta" and index in self._thinking_blocks:
            self._thinking_blocks[index].signature = text_of(fields.get("signature"))
        elif kind == "text_delta":
            if text := text_of(fields.get("text")):
                out.append(TextDelta(text))
        elif kind == "thinking_delta":
            self._thinking(index, text_of(fields.get("thinking")), out)
        elif kind == "input_json_delta":
            self._arguments(index, text_of(fields.get("partial_json")), out)
        else:
            self.skipped += 1

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        block = self._thinking_blocks.pop(whole_number(event.get("index")) or 0, None)
        if block is not None and block.signature:
            text, signature = replace_surrogates("".join(block.texts)), replace_surrogates(block.signature)
            out.append(ReasoningBlockDelta(ReasoningBlock(kind="thinking", text=text, signature=signature)))

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        delta = event.get("delta")
        if isinstance(delta, dict):
            self._read_finish(delta.get("stop_reason"), out)
        self._read_usage(event.get("usage"), out)

    def _message_stop(self, _event: dict[str, Any], _out: list[Delta]) -> None:
        self.done = True

    def _read_finish(self, stop_reason: object, out: list[Delta]) -> None:
        raw = replace_surrogates(text_of(stop_reason))
        if raw and raw != self._stop_reason:
            self._stop_reason = raw
            self.finished = True
            error = abort_error(raw)  # from other servers that speak this dialect
            out.append(FinishDelta(_FINISH.get(raw, "other"), raw) if error is None else ErrorDelta(error))

    def _read_usage(self, usage: object, out: list[Delta]) -> None:
        """Emit the counts so far. They are cumulative: each count replaces its earlier value."""
        if not isinstance(usage, dict):
            return
        self._usage.update((name, value) for name, value in usage.items() if value is not None)
        details = self._usage.get("output_tokens_details")
        lifetimes = self._usage.get("cache_creation")
        counts = Usage(
            input_tokens=count_of(self._usage.get("input_tokens")),
            output_tokens=count_of(self._usage.get("output_tokens")),
            cached_tokens=count_of(self._usage.get("cache_read_input_tokens")),
            cache_write_tokens=count_of(self._usage.get("cache_creation_input_tokens")),
            reasoning_tokens=count_of(details.get("thinking_tokens")) if isinstance(details, dict) else None,
            cache_write_1h_tokens=(
                count_of(lifetimes.get("ephemeral_1h_input_tokens")) if isinstance(lifetimes, dict) else None
            ),
            server_tool_requests=tool_requests(self._usage),
        )
        if counts != Usage():
            tier = short_text(self._usage.get("service_tier"))
            out.append(UsageDelta(msgspec.structs.replace(counts, service_tier=tier)))


_HANDLERS: Final[dict[str, Callable[[MessagesDecoder, dict[str, Any], list[Delta]], None]]] = {
    "message_start": MessagesDecoder._message_start,
    "content_block_start": MessagesDecoder._block_start,
    "content_block_delta": MessagesDecoder._block_delta,
    "content_block_stop": MessagesDecoder._block_stop,
    "message_delta": MessagesDecoder._message_delta,
    "message_stop": MessagesDecoder._message_stop,
    "message": MessagesDecoder._whole_message,
}
