"""Answers in the format of Anthropic's Messages API, streamed and whole, and its error bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.adapters.loopback.encoder import AnswerContext, EventStream, repeat_tokens, to_object, to_usage

__all__ = ["AnthropicEncoder", "encode_anthropic_error"]

_encode = msgspec.json.Encoder().encode

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "pause_turn": "pause_turn",
}


class AnthropicEncoder(EventStream):
    """Encodes one message: blocks of thinking, text (a refusal is text) and calls. Implements `AnswerEncoder`."""

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer)
        self._answer = answer
        self._context = context
        self._blocks = 0
        self._text_block: int | None = None
        """The index of the open text block."""

    def opening(self) -> Iterator[bytes]:
        """Yield ``message_start``."""
        message = self._message([], None) | {"usage": self._usage(1)}
        yield self._named_event("message_start", message=message)

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the blocks, each from start to stop, and the ping that the real server sends after the first start."""
        answer = self._answer
        if answer.reasoning or answer.signature:
            yield from self._thinking()
        if answer.refusal or answer.token_count:
            yield from self._text()
        for index, call in enumerate(answer.tool_calls):
            yield from self._call(index, call)

    def closing(self) -> Iterator[bytes]:
        """Yield ``message_delta`` with the stop reason and the usage, and ``message_stop``."""
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        usage = self._usage(None)
        yield self._named_event("message_delta", delta=delta, **({"usage": usage} if usage else {}))
        if self._answer.done_marker:
            yield self._named_event("message_stop")

    def text(self, text: str) -> bytes:
        """Encode a text delta that is not part of the answer, in a block of its own if no text block is open."""
        if self._text_block is not None:
            return self._text_delta(self._text_block, text)
        index, start = self._start({"type": "text", "text": ""})
        return start + self._text_delta(index, text) + self._stop(index)

    def keep_alive(self) -> bytes:
        """Encode a ping."""
        return self._named_event("ping")

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield an ``error`` event; nothing follows it."""
        error = {"type": _error_type(code if isinstance(code, int) else 500, code), "message": message}
        yield self._named_event("error", error=error)

    def whole(self) -> bytes:
        """Return the message object."""
        answer = self._answer
        blocks: list[dict[str, Any]] = []
        if answer.reasoning or answer.signature:
            blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": self._signature()})
        if answer.refusal or answer.token_count:
            blocks.append({"type": "text", "text": answer.refusal + answer.full_text})
        for index, call in enumerate(answer.tool_calls):
            blocks.append(self._call_block(index, call) | {"input": to_object(call)})
        usage = self._usage(None) or self._usage(0)
        return _encode(self._message(blocks, self._stop_reason()) | {"usage": usage})

    # --- blocks -----------------------------------------------------------------------------------------------

    def _thinking(self) -> Iterator[tuple[bool, bytes]]:
        index, start = self._start({"type": "thinking", "thinking": "", "signature": ""})
        yield False, start
        for piece in self._answer.reasoning_pieces:
            yield True, self._delta(index, {"type": "thinking_delta", "thinking": piece})
        if self._signature():
            yield False, self._delta(index, {"type": "signature_delta", "signature": self._signature()})
        yield False, self._stop(index)

    def _text(self) -> Iterator[tuple[bool, bytes]]:
        answer = self._answer
        index, start = self._start({"type": "text", "text": ""})
        self._text_block = index
        yield False, start
        for piece in answer.refusal_pieces:
            yield True, self._text_delta(index, piece)
        yield from repeat_tokens((self._text_delta(index, piece) for piece in answer.pieces), answer)
        self._text_block = None
        yield False, self._stop(index)

    def _call(self, number: int, call: ScriptedCall) -> Iterator[tuple[bool, bytes]]:
        index, start = self._start(self._call_block(number, call))
        yield False, start
        yield False, self._delta(index, {"type": "input_json_delta", "partial_json": ""})
        # For a call without arguments the real server sends nothing more.
        for piece in call.fragments if call.arguments != "{}" else ():
            yield True, self._delta(index, {"type": "input_json_delta", "partial_json": piece})
        yield False, self._stop(index)

    def _call_block(self, number: int, call: ScriptedCall) -> dict[str, Any]:
        call_id = call.id or f"toolu_loopback_{self._context.number}_{number}"
        return {"type": "tool_use", "id": call_id, "name": call.name, "input": {}}

    def _signature(self) -> str:
        return "bG9vcGJhY2s=" if self._answer.signature is None else self._answer.signature

    def _stop_reason(self) -> str:
        if self._answer.refusal and self._answer.finish_reason is None:
            return "refusal"
        return _STOP_REASONS[self._answer.finish]

    # --- events -----------------------------------------------------------------------------------------------

    def _start(self, block: dict[str, Any]) -> tuple[int, bytes]:
        index = self._blocks
        self._blocks += 1
        event = self._named_event("content_block_start", index=index, content_block=block)
        return index, event + self._named_event("ping") if index == 0 else event

    def _text_delta(self, index: int, text: str) -> bytes:
        return self._delta(index, {"type": "text_delta", "text": text})

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return self._named_event("content_block_delta", index=index, delta=delta)

    def _stop(self, index: int) -> bytes:
        return self._named_event("content_block_stop", index=index)

    def _named_event(self, kind: str, **fields: Any) -> bytes:
        return self._event(_encode({"type": kind, **fields}), kind.encode())

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "model": self._context.model,
            "id": f"msg_loopback_{self._context.number}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
        }

    def _usage(self, output: int | None) -> dict[str, Any] | None:
        """Return the usage with ``output`` tokens so far, or with all (None); None if the final usage is not sent."""
        usage = to_usage(self._answer, self._context)
        if output is None and self._answer.send_usage == "never":
            return None
        return {
            # The first event always has a usage; if none is to be sent, its counts are zero.
            "input_tokens": 0 if self._answer.send_usage == "never" else usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens or 0,
            "cache_read_input_tokens": usage.cached_tokens or 0,
            "output_tokens": usage.output_tokens if output is None else output,
        }


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_MESSAGES: dict[int | str | None, str] = {
    401: "invalid x-api-key",
    429: "This request would exceed your organization’s rate limit of 50 requests per minute.",
    500: "Internal server error",
    503: "Overloaded",
    529: "Overloaded",
    "model_not_found": "model: there is none of this name",
    "context_length_exceeded": "prompt is too long: 210000 tokens > 200000 maximum",
}


def encode_anthropic_error(
    status: int,
    message: str | None = None,
    code: str | int | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> bytes:
    """Encode an error body of Anthropic. Implements `ErrorEncoder`; ``code`` is used if it is one of its types."""
    usual = _MESSAGES.get(code) or _MESSAGES.get(status, f"The request failed ({status}).")
    error = {"type": _error_type(status, code), "message": message if message is not None else usual}
    return _encode({"type": "error", "error": error, "request_id": "req_loopback"})


def _error_type(status: int, code: str | int | None) -> str:
    if code in _TYPES.values():
        return str(code)
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
