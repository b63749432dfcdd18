"""An answer as OpenAI chat completions write it, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.wire import Exchange, encode_event, to_usage
from penstock.events import Usage

__all__ = ["ChatWire"]

_encode = msgspec.json.Encoder().encode


class ChatWire:
    """One chat completion. Implements `Wire`."""

    def __init__(self, answer: Answer, exchange: Exchange) -> None:
        self._answer = answer
        self._exchange = exchange
        self._line_ending = (answer.line_ending or "\n").encode()
        self._tell_usage = answer.send_usage == "always" or (answer.send_usage == "asked" and exchange.include_usage)
        # A chunk is prefix + the value of the delta's one field + suffix: only that value is encoded for each token.
        head = self._chunk({"content": "@"})
        prefix, self._suffix = head.split(b'{"content":"@"}')
        self._prefix = prefix + b'{"'

    def opening(self) -> Iterator[bytes]:
        """The chunk that tells the role."""
        yield self._event(self._chunk({"role": "assistant", "content": "", "refusal": None}))

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Reasoning, refusal, text, calls."""
        answer = self._answer
        for piece in answer.reasoning_pieces:
            yield True, self._delta(answer.reasoning_field, piece)
        for piece in answer.refusal_pieces:
            yield True, self._delta("refusal", piece)
        # `cycle` keeps what it was given, so that a token said a million times is encoded once.
        once = ((True, self._delta("content", piece)) for piece in answer.pieces)
        yield from islice(cycle(once), answer.token_count) if answer.repeat else once
        for index, call in enumerate(answer.tool_calls):
            function: dict[str, Any] = {"name": call.name, "arguments": ""}
            opened = {"index": index, "id": call.id or self._call_id(index), "type": "function", "function": function}
            yield False, self._event(self._chunk({"tool_calls": [opened]}))
            for piece in call.fragments:
                fragment = {"index": index, "function": {"arguments": piece}}
                yield True, self._event(self._chunk({"tool_calls": [fragment]}))

    def closing(self) -> Iterator[bytes]:
        """The finish reason, usage where it was asked for, ``[DONE]``."""
        yield self._event(self._chunk({}, self._answer.finish))
        if self._tell_usage:
            usage = _usage_body(to_usage(self._answer, self._exchange))
            yield self._event(_encode(self._envelope("chat.completion.chunk") | {"choices": [], "usage": usage}))
        if self._answer.done_marker:
            yield self._event(b"[DONE]")

    def text(self, text: str) -> bytes:
        """A content delta that is not part of the answer."""
        return self._delta("content", text)

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """An error frame, as OpenAI and vLLM send it."""
        error = {"message": message, "type": "server_error", "param": None, "code": code}
        yield self._event(_encode({"error": error}))
        if then_done:
            yield self._event(b"[DONE]")

    def whole(self) -> bytes:
        """The completion object."""
        answer = self._answer
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.full_text or None,
            "refusal": answer.refusal or None,
            "annotations": [],
        }
        if answer.reasoning:
            message[answer.reasoning_field] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id or self._call_id(index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for index, call in enumerate(answer.tool_calls)
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        usage = None if answer.send_usage == "never" else _usage_body(to_usage(answer, self._exchange))
        return _encode(self._envelope("chat.completion") | {"choices": [choice], "usage": usage})

    def _call_id(self, index: int) -> str:
        return f"call_loopback_{self._exchange.number}_{index}"

    def _envelope(self, kind: str) -> dict[str, Any]:
        exchange = self._exchange
        return {
            "id": f"chatcmpl-loopback-{exchange.number}",
            "object": kind,
            "created": exchange.created,
            "model": exchange.model,
            "service_tier": "default",
            "system_fingerprint": "fp_loopback",
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        if self._tell_usage:
            chunk["usage"] = None
        return _encode(chunk)

    def _delta(self, field: str, text: str) -> bytes:
        return self._event(b'%b%b":%b}%b' % (self._prefix, field.encode(), _encode(text), self._suffix))

    def _event(self, payload: bytes) -> bytes:
        return encode_event(payload, self._line_ending)


def _usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }
