"""The events of Anthropic's Messages API as deltas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.anthropic.blocks import ContentBlocks
from penstock.adapters.providers.anthropic.metadata import Metadata
from penstock.adapters.providers.shared.aborts import abort_error
from penstock.adapters.providers.shared.decoder import EventDecoder
from penstock.adapters.providers.shared.errors import error_frame
from penstock.adapters.providers.shared.json_values import (
    count_of,
    decode_json,
    short_text,
    text_of,
    tool_requests,
    whole_number,
)
from penstock.adapters.providers.shared.surrogates import has_escaped_surrogates, replace_surrogates
from penstock.config.options import Raw
from penstock.errors import ProtocolError
from penstock.events import FinishReason, Usage
from penstock.ports import Delta, ErrorDelta, FinishDelta, KeepAlive, TextDelta, UsageDelta

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
    "compaction": "other",  # the provider has summed the conversation up: sending the turn back continues it
}


class MessagesDecoder(EventDecoder):
    """Implements `Decoder` for the Messages API.

    Unknown blocks, pieces and events are counted as skipped. A message that begins inside of another one ends the
    stream with a `ProtocolError`.
    """

    def __init__(self, max_event_bytes: int, raw: Raw = "none") -> None:
        super().__init__(max_event_bytes, raw)
        self._content = ContentBlocks(self._skip)
        self._metadata = Metadata(self._skip)
        self._usage: dict[str, Any] = {}
        self._stop_reason = ""
        self._is_open = False  # a message has begun

    def _deltas(self, events: list[SseEvent], *, is_end: bool = False) -> list[Delta]:
        out = self._keep_alives()
        content = self._content
        speaks = reasons = False  # since the last event that was not decoded here
        for event in events:
            try:
                wire = _decode_typed(event.data)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                content.has_text = content.has_text or speaks
                content.has_reasoning = content.has_reasoning or reasons
                speaks = reasons = False
                self._decode_leniently(event, out)
                if self.done:
                    break
                continue
            delta = wire.delta
            if type(delta) is _WireText:
                if delta.text:
                    out.append(TextDelta(delta.text))
                    speaks = True
            elif type(delta) is _WireThinking:
                if delta.thinking:
                    content.add_thinking(wire.index, delta.thinking, out)
                    reasons = True
            elif type(delta) is _WireArguments:
                content.add_arguments(wire.index, delta.partial_json, out)
        if speaks:
            content.has_text = True
        if reasons:
            content.has_reasoning = True
        if is_end:
            content.end(out)
        if self._has_surrogates:
            out = self._surrogates.join(out, is_end=self.done or is_end)
        return out

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
                self._skip(kind, payload, out)
        elif data.strip() == "[DONE]":  # from servers that also speak OpenAI's dialect
            self._message_stop(fields, out)
        else:
            self._skip(kind, payload, out)

    def _message_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        message = event.get("message")
        if isinstance(message, dict):
            self._read_message(message, out)
        else:
            self._skip("message_start", event, out)

    def _whole_message(self, message: dict[str, Any], out: list[Delta]) -> None:
        """Read a whole answer, from a server that does not stream."""
        self._read_message(message, out)
        self._message_stop(message, out)

    def _read_message(self, message: dict[str, Any], out: list[Delta]) -> None:
        """Read a message's metadata and content so far; after one of the provider's own tools it may be complete."""
        if self._is_open:  # its text would follow that of the first one
            out.append(ErrorDelta(ProtocolError("a message began before the end of the one before it")))
            self.done = True
            return
        self._is_open = True
        if self.model is None:
            self.model = replace_surrogates(text_of(message.get("model"))) or None
        self._metadata.read(message, out)
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            self._block_start({"index": index, "content_block": block}, out)
            self._block_stop({"index": index}, out)
        self._read_finish(message.get("stop_reason"), out)
        self._read_usage(message.get("usage"), out)

    def _block_start(self, event: dict[str, Any], out: list[Delta]) -> None:
        block = event.get("content_block")
        self._content.start(_index(event), block if isinstance(block, dict) else {}, event, out)
        self.model = self._content.model or self.model

    def _block_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        delta = event.get("delta")
        self._content.add(_index(event), delta if isinstance(delta, dict) else {}, event, out)

    def _block_stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        self._content.stop(_index(event), out)

    def _message_delta(self, event: dict[str, Any], out: list[Delta]) -> None:
        delta = event.get("delta")
        fields = delta if isinstance(delta, dict) else {}
        reason = text_of(fields.get("stop_reason"))
        self._content.end(out, is_whole=_FINISH.get(reason, "length") != "length")
        self._metadata.read({"context_management": event.get("context_management"), **fields, "id": None}, out)
        self._read_finish(fields.get("stop_reason"), out)
        self._read_usage(event.get("usage"), out)

    def _message_stop(self, _event: dict[str, Any], out: list[Delta]) -> None:
        self._content.end(out, is_whole=_FINISH.get(self._stop_reason, "length") != "length")
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
        self._metadata.read_usage(self._usage, out)
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


def _index(event: dict[str, Any]) -> int:
    return whole_number(event.get("index")) or 0


_HANDLERS: Final[dict[str, Callable[[MessagesDecoder, dict[str, Any], list[Delta]], None]]] = {
    "message_start": MessagesDecoder._message_start,
    "content_block_start": MessagesDecoder._block_start,
    "content_block_delta": MessagesDecoder._block_delta,
    "content_block_stop": MessagesDecoder._block_stop,
    "message_delta": MessagesDecoder._message_delta,
    "message_stop": MessagesDecoder._message_stop,
    "message": MessagesDecoder._whole_message,
}
