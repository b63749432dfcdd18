"""Answers in the format of OpenAI chat completions, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import AnswerContext, EventStream, interleave, repeat_tokens, to_usage
from penstock.events import Usage

__all__ = ["ChatEncoder", "chat_usage", "finish_reason"]

_encode = msgspec.json.Encoder().encode


class ChatEncoder(EventStream):
    """Encodes one chat completion. Implements `AnswerEncoder`."""

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer)
        self._answer = answer
        self._context = context
        self._sends_usage = answer.send_usage == "always" or (answer.send_usage == "asked" and context.include_usage)
        self._choices = [_ChoiceEncoder(self, index, choice) for index, choice in enumerate((answer, *answer.choices))]

    def opening(self) -> Iterator[bytes]:
        """Yield a chunk with the role, for each choice."""
        for choice in self._choices:
            yield self._event(self.chunk(choice.index, {"role": "assistant", "content": "", "refusal": None}))

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the content of all choices, interleaved."""
        return interleave([choice.body() for choice in self._choices])

    def closing(self) -> Iterator[bytes]:
        """Yield the finish reasons, usage if it was requested, ``[DONE]``."""
        for choice in self._choices:
            yield self._event(self.chunk(choice.index, {}, finish_reason(choice.answer.finish)))
        if self._sends_usage:
            usage = chat_usage(to_usage(self._answer, self._context))
            yield self._event(_encode(self._envelope("chat.completion.chunk") | {"choices": [], "usage": usage}))
        if self._answer.done_marker:
            yield self._event(b"[DONE]")

    def text(self, text: str) -> bytes:
        """Encode a content delta that is not part of the answer."""
        return self._choices[0].delta("content", text)

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield an error event as OpenAI and vLLM send it."""
        error = {"message": message, "type": "server_error", "param": None, "code": code}
        yield self._event(_encode({"error": error}))
        if then_done:
            yield self._event(b"[DONE]")

    def whole(self) -> bytes:
        """Return the completion object."""
        usage = None
        if self._answer.send_usage != "never":
            usage = chat_usage(to_usage(self._answer, self._context))
        choices = [choice.whole() for choice in self._choices]
        return _encode(self._envelope("chat.completion") | {"choices": choices, "usage": usage})

    def call_id(self, choice: int, index: int) -> str:
        """Return an id for a call that has none."""
        return f"call_loopback_{self._context.number}_{f'{choice}_' if choice else ''}{index}"

    def chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        """Encode the JSON of a chunk."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        if self._sends_usage:
            chunk["usage"] = None
        return _encode(chunk)

    def chunk_event(self, payload: bytes) -> bytes:
        """Encode the event of a chunk from its JSON."""
        return self._event(payload)

    def _envelope(self, kind: str) -> dict[str, Any]:
        context = self._context
        return {
            "id": f"chatcmpl-loopback-{context.number}",
            "object": kind,
            "created": context.created,
            "model": context.model,
            "service_tier": "default",
            "system_fingerprint": "fp_loopback",
        }


class _ChoiceEncoder:
    """Encodes one choice."""

    def __init__(self, encoder: ChatEncoder, index: int, answer: Answer) -> None:
        self.index = index
        self.answer = answer
        self._encoder = encoder
        # A chunk is prefix + the value of the delta's only field + suffix: only that value is encoded for each token.
        prefix, self._suffix = encoder.chunk(index, {"content": "@"}).split(b'{"content":"@"}')
        self._prefix = prefix + b'{"'

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield reasoning, refusal, text and calls."""
        answer = self.answer
        for piece in answer.reasoning_pieces:
            yield True, self.delta(answer.reasoning_field, piece)
        for piece in answer.refusal_pieces:
            yield True, self.delta("refusal", piece)
        yield from repeat_tokens((self.delta("content", piece) for piece in answer.pieces), answer)
        for index, call in enumerate(answer.tool_calls):
            function: dict[str, Any] = {"name": call.name, "arguments": ""}
            call_id = call.id or self._encoder.call_id(self.index, index)
            yield False, self._call({"index": index, "id": call_id, "type": "function", "function": function})
            for piece in call.fragments:
                yield True, self._call({"index": index, "function": {"arguments": piece}})

    def delta(self, field: str, text: str) -> bytes:
        """Encode a delta of one field."""
        payload = b'%b%b":%b}%b' % (self._prefix, field.encode(), _encode(text), self._suffix)
        return self._encoder.chunk_event(payload)

    def whole(self) -> dict[str, Any]:
        """Return the choice of a completion object."""
        answer = self.answer
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
                    "id": call.id or self._encoder.call_id(self.index, index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for index, call in enumerate(answer.tool_calls)
            ]
        return {
            "index": self.index,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason(answer.finish),
        }

    def _call(self, fragment: dict[str, Any]) -> bytes:
        return self._encoder.chunk_event(self._encoder.chunk(self.index, {"tool_calls": [fragment]}))


def finish_reason(reason: str) -> str:
    """Return the finish reason as chat completions say it."""
    return "stop" if reason == "pause_turn" else reason


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Return the counts as chat completions send them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }
