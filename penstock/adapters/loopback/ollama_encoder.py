"""Answers in the format of Ollama's own API, as JSON lines or one JSON document, and its error bodies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.adapters.loopback.encoder import AnswerContext, Segment, repeat_tokens, to_object, to_usage

__all__ = ["OllamaEncoder", "encode_json_line", "encode_ollama_error"]

_encode_json = msgspec.json.Encoder().encode

_NS_PER_TOKEN = 1_000_000
"""Durations are made up, so that an answer that is encoded twice has the same length."""


_ESCAPED = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "<>&\u2028\u2029"}


def encode_json_line(value: Any) -> bytes:
    """Encode JSON as Go does. Its escapes matter: Ollama's official client ends a line at a bare U+2028."""
    encoded = _encode_json(value)
    for char, escape in _ESCAPED.items():
        encoded = encoded.replace(char, escape)
    return encoded


class OllamaEncoder:
    """Encodes one chat answer. Implements `AnswerEncoder`.

    A refusal is sent as text. Calls are sent whole, with ``done_reason`` ``stop``.
    """

    content_type = "application/x-ndjson"
    event_end = b"\n"

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        self._answer = answer
        self._context = context
        created = datetime.fromtimestamp(context.created, UTC)
        self._head = {"model": context.model, "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.000001Z")}
        prefix, self._suffix = self._line({"role": "assistant", "content": "@"}).split(b'"@"')
        self._prefix = prefix

    def opening(self) -> Iterator[bytes]:
        """Yield nothing: the first line is the first token."""
        yield from ()

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield thinking, text and calls."""
        answer = self._answer
        for piece in answer.reasoning_pieces:
            yield True, self._line({"role": "assistant", "content": "", "thinking": piece})
        for piece in answer.refusal_pieces:
            yield True, self.text(piece)
        yield from repeat_tokens((self.text(piece) for piece in answer.pieces), answer)
        for index, call in enumerate(answer.tool_calls):
            calls = [self._call(index, call)]
            yield True, self._line({"role": "assistant", "content": "", "tool_calls": calls})

    def segments(self) -> Iterator[Segment]:
        """Yield the body in one piece."""
        yield Segment(self.body())

    def closing(self) -> Iterator[bytes]:
        """Yield the line with ``done``, counts and durations."""
        yield encode_json_line(self._head | {"message": {"role": "assistant", "content": ""}} | self._done()) + b"\n"

    def text(self, text: str) -> bytes:
        """Encode a line of text that is not part of the answer."""
        return self._prefix + encode_json_line(text) + self._suffix

    def keep_alive(self) -> bytes:
        """Return nothing: Ollama has no signs of life."""
        return b""

    def stamped(self, event: bytes) -> bytes:
        """Return the line with the time as the first member of its JSON."""
        return b'{"penstock_sent":%.6f,' % time.time() + event[1:]

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield a line that is an error; nothing follows it."""
        yield encode_json_line({"error": message}) + b"\n"

    def whole(self) -> bytes:
        """Return the whole answer as one document."""
        answer = self._answer
        message: dict[str, Any] = {"role": "assistant", "content": answer.refusal + answer.full_text}
        if answer.reasoning:
            message["thinking"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [self._call(index, call) for index, call in enumerate(answer.tool_calls)]
        return encode_json_line(self._head | {"message": message} | self._done())

    def _line(self, message: dict[str, Any]) -> bytes:
        return encode_json_line(self._head | {"message": message, "done": False}) + b"\n"

    def _call(self, index: int, call: ScriptedCall) -> dict[str, Any]:
        function = {"index": index, "name": call.name, "arguments": to_object(call)}
        return {"id": call.id or f"call_loopback_{self._context.number}_{index}", "function": function}

    def _done(self) -> dict[str, Any]:
        done: dict[str, Any] = {"done": True, "done_reason": "length" if self._answer.finish == "length" else "stop"}
        if self._answer.send_usage == "never":
            return done
        usage = to_usage(self._answer, self._context)
        evaluated, prompt = usage.output_tokens, usage.input_tokens
        counts: dict[str, int | None] = {
            "total_duration": ((evaluated or 0) + (prompt or 0) + 10) * _NS_PER_TOKEN,
            "load_duration": 10 * _NS_PER_TOKEN,
            "prompt_eval_count": prompt,
            "prompt_eval_duration": (prompt or 0) * _NS_PER_TOKEN,
            "eval_count": evaluated,
            "eval_duration": (evaluated or 0) * _NS_PER_TOKEN,
        }
        return done | {name: count for name, count in counts.items() if count is not None}


_MESSAGES: dict[int | str | None, str] = {
    401: "unauthorized",
    429: "too many concurrent requests",
    500: "llama runner process has terminated: exit status 2",
    503: "server busy, please try again. maximum pending requests exceeded",
    "context_length_exceeded": "the input length exceeds the context length",
    "model_not_found": "model not found, try pulling it first",
}


def encode_ollama_error(
    status: int,
    message: str | None = None,
    code: str | int | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> bytes:
    """Encode an error body of Ollama, which consists of a message only. Implements `ErrorEncoder`."""
    usual = _MESSAGES.get(code) or _MESSAGES.get(status, f"The request failed ({status}).")
    return encode_json_line({"error": message if message is not None else usual})
