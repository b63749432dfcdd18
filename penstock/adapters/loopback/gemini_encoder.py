"""Answers in the format of Gemini's API, as an event stream, a JSON array or one document, and its error bodies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.encoder import (
    AnswerContext,
    EventStream,
    interleave,
    repeat_tokens,
    to_object,
    to_usage,
)

__all__ = ["GeminiArrayEncoder", "GeminiEncoder", "encode_gemini_error", "gemini_finish"]

_encode = msgspec.json.Encoder().encode

_FINISH_REASONS = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
"""Every other reason is ``STOP``, calls included."""


class GeminiEncoder(EventStream):
    """Encodes one answer for ``alt=sse``. Implements `AnswerEncoder`. A refusal is text; calls are sent whole.

    Each event has the usage so far, which here is that of the prompt. The last event has the complete usage, and an
    empty text part with the signature if no call carries it.
    """

    def __init__(self, answer: Answer, context: AnswerContext, line_ending: str = "\r\n") -> None:
        super().__init__(answer, line_ending)
        self._answer = answer
        self._context = context
        self._choices = list(enumerate((answer, *answer.choices)))

    def opening(self) -> Iterator[bytes]:
        """Yield nothing: the first event is the first token."""
        yield from ()

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield thoughts, text and calls of all candidates, interleaved."""
        return interleave([self._body(index, answer) for index, answer in self._choices])

    def closing(self) -> Iterator[bytes]:
        """Yield the finish reasons and the usage."""
        for index, answer in self._choices:
            part: dict[str, Any] = {"text": ""}
            if answer.signature and not answer.tool_calls:
                part["thoughtSignature"] = answer.signature
            candidate = _candidate(index, [part]) | {"finishReason": gemini_finish(answer)}
            last = index == len(self._choices) - 1
            yield self._event(_encode(self._document([candidate], self._usage() if last else self._prompt_usage())))

    def text(self, text: str) -> bytes:
        """Encode a text part that is not part of the answer."""
        return self._part(0, {"text": text})

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield the error as the real server sends it inside a stream: JSON on several lines, which is not an event."""
        body = json.loads(encode_gemini_error(code if isinstance(code, int) else 500, message, code))
        lines = json.dumps(body, indent=2, ensure_ascii=False).encode()
        yield lines.replace(b"\n", self._line_ending) + self._line_ending

    def whole(self) -> bytes:
        """Return the document of ``:generateContent``."""
        candidates = []
        for index, answer in self._choices:
            parts: list[dict[str, Any]] = []
            if answer.reasoning:
                parts.append({"text": answer.reasoning, "thought": True})
            text = answer.refusal + answer.full_text
            if text or not answer.tool_calls:
                parts.append({"text": text})
            if answer.signature and not answer.tool_calls:
                parts[-1]["thoughtSignature"] = answer.signature
            candidates.append(_candidate(index, parts + _calls(answer)) | {"finishReason": gemini_finish(answer)})
        return _encode(self._document(candidates, self._usage()))

    def _body(self, index: int, answer: Answer) -> Iterator[tuple[bool, bytes]]:
        for piece in answer.reasoning_pieces:
            yield True, self._part(index, {"text": piece, "thought": True})
        for piece in answer.refusal_pieces:
            yield True, self._part(index, {"text": piece})
        for token, payload in repeat_tokens(self._text_payloads(index, answer), answer):
            yield token, self._event(payload)
        for part in _calls(answer):
            yield True, self._part(index, part)

    def _text_payloads(self, index: int, answer: Answer) -> Iterator[bytes]:
        """Yield the documents of the tokens; the constant parts are encoded once."""
        template = _encode(self._document([_candidate(index, [{"text": "@"}])], self._prompt_usage()))
        start, end = template.split(b'"@"')
        for piece in answer.pieces:
            yield start + _encode(piece) + end

    def _part(self, index: int, part: dict[str, Any]) -> bytes:
        return self._event(_encode(self._document([_candidate(index, [part])], self._prompt_usage())))

    def _document(self, candidates: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
        document: dict[str, Any] = {"candidates": candidates}
        if usage is not None:
            document["usageMetadata"] = usage
        named = {"modelVersion": self._context.model, "responseId": f"loopback-{self._context.number}"}
        return document | named

    def _prompt_usage(self) -> dict[str, int] | None:
        if self._answer.send_usage == "never":
            return None
        prompt = to_usage(self._answer, self._context).input_tokens
        return {} if prompt is None else {"promptTokenCount": prompt, "totalTokenCount": prompt}

    def _usage(self) -> dict[str, int] | None:
        if self._answer.send_usage == "never":
            return None
        usage = to_usage(self._answer, self._context)
        candidates = usage.output_tokens
        if self._answer.usage is None and candidates is not None:
            candidates -= usage.reasoning_tokens or 0  # Gemini's candidate count excludes thoughts
        counts = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": candidates,
            "thoughtsTokenCount": usage.reasoning_tokens or None,
            "cachedContentTokenCount": usage.cached_tokens or None,
            "totalTokenCount": usage.total_tokens,
        }
        return {name: count for name, count in counts.items() if count is not None}


class GeminiArrayEncoder(GeminiEncoder):
    """Encodes one answer without ``alt=sse``: the same documents as the elements of one array."""

    content_type = "application/json; charset=UTF-8"
    event_end = b""

    def __init__(self, answer: Answer, context: AnswerContext) -> None:
        super().__init__(answer, context)
        self._begun = False

    def closing(self) -> Iterator[bytes]:
        """Yield the last elements, and the end of the array."""
        *events, last = super().closing()
        yield from events
        yield last + (b"\n]\n" if self._answer.done_marker else b"")

    def keep_alive(self) -> bytes:
        """Encode white space."""
        return b"\n"

    def stamped(self, event: bytes) -> bytes:
        """Return the element with the time as its first member."""
        return event.replace(b"{", b'{"penstock_sent":%.6f,' % time.time(), 1)

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield the error as one more element."""
        body = encode_gemini_error(code if isinstance(code, int) else 500, message, code)
        yield self._event(body) + (b"\n]\n" if then_done else b"")

    def _event(self, payload: bytes, event: bytes = b"") -> bytes:
        begun, self._begun = self._begun, True
        return (b"\n,\r\n" if begun else b"[") + payload


def _candidate(index: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"content": {"parts": parts, "role": "model"}, "index": index}


def gemini_finish(answer: Answer) -> str:
    """Return the finish reason as Gemini says it."""
    return _FINISH_REASONS.get(answer.finish, "STOP")


def _calls(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for call in answer.tool_calls:
        function = {"name": call.name, "args": to_object(call)}
        part: dict[str, Any] = {"functionCall": function if call.id is None else {"id": call.id, **function}}
        # Of several calls the real server signs the first, for the thoughts that led to all of them.
        signature = call.signature or (None if parts else answer.signature)
        parts.append(part | {"thoughtSignature": signature} if signature else part)
    return parts


_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_NAMES = frozenset({*_STATUSES.values(), "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "UNKNOWN"})
_MESSAGES: dict[int | str | None, str] = {
    401: "Request had invalid authentication credentials.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    500: "An internal error has occurred. Please retry.",
    503: "The model is overloaded. Please try again later.",
    "API_KEY_INVALID": "API key not valid. Please pass a valid API key.",
    "model_not_found": "The model is not found for API version v1beta, or is not supported for generateContent.",
    "context_length_exceeded": "The input token count (1200000) exceeds the maximum number of tokens allowed.",
}
_GOOGLE = "type.googleapis.com/google.rpc."


def encode_gemini_error(
    status: int,
    message: str | None = None,
    code: str | int | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> bytes:
    """Encode an error body of Google. Implements `ErrorEncoder`; ``code`` is used if it is one of its statuses."""
    usual = _MESSAGES.get(code) or _MESSAGES.get(status, f"The request failed ({status}).")
    name = str(code) if code in _NAMES else _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    details: list[dict[str, Any]] = []
    if code == "API_KEY_INVALID":
        service = {"service": "generativelanguage.googleapis.com"}
        info = {"reason": code, "domain": "googleapis.com", "metadata": service}
        details.append({"@type": f"{_GOOGLE}ErrorInfo", **info})
    if retry_after is not None:
        details.append({"@type": f"{_GOOGLE}RetryInfo", "retryDelay": f"{retry_after:g}s"})
    error = {"code": status, "message": message if message is not None else usual, "status": name}
    return _encode({"error": error | ({"details": details} if details else {})})
