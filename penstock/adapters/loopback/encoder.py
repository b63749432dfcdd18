"""What the encoders of all wire formats share: their interface, server-sent events, usage, OpenAI's error bodies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any, Protocol

import msgspec

from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.events import Usage

__all__ = [
    "AnswerContext",
    "AnswerEncoder",
    "ErrorEncoder",
    "EventStream",
    "encode_event",
    "encode_openai_error",
    "interleave",
    "repeat_tokens",
    "to_object",
    "to_usage",
]


class AnswerContext(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder must know about the request that it answers."""

    number: int
    model: str
    created: int
    """Seconds since the epoch."""

    input_tokens: int
    include_usage: bool = False
    """Whether the request asks for usage in the stream."""

    background: bool = False
    """Whether the Responses API is to keep the answer."""


class AnswerEncoder(Protocol):
    """Encodes one answer in one wire format, lazily, as whole events in bytes; one object serves one response.

    Call `opening`, `body` and `closing` in this order, each once.
    """

    @property
    def content_type(self) -> str:
        """The content type of the stream."""

    @property
    def event_end(self) -> bytes:
        """The bytes that every event ends with."""

    def opening(self) -> Iterator[bytes]:
        """Yield the events before the first token."""

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the events of the answer; the flag says whether an event is a token, which is paced and counted."""

    def closing(self) -> Iterator[bytes]:
        """Yield the events after the last token: finish reason, usage, end marker."""

    def text(self, text: str) -> bytes:
        """Encode a text delta that is not part of the answer."""

    def keep_alive(self) -> bytes:
        """Encode a sign of life without content; empty if the format has none."""

    def stamped(self, event: bytes) -> bytes:
        """Return the event with the current time added."""

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """Yield an error event, and the events that close the stream after it."""

    def whole(self) -> bytes:
        """Return the body of the answer when it is not streamed."""


class EventStream:
    """The part of an `AnswerEncoder` that all formats with server-sent events share."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, answer: Answer, line_ending: str = "\n") -> None:
        self._line_ending = (answer.line_ending or line_ending).encode()

    @property
    def event_end(self) -> bytes:
        """A blank line in the stream's line ending."""
        return self._line_ending * 2

    def keep_alive(self) -> bytes:
        """Encode a comment."""
        return b": keep-alive" + self.event_end

    def stamped(self, event: bytes) -> bytes:
        """Return the event with the time as the first member of its JSON."""
        return event.replace(b"data: {", b'data: {"penstock_sent":%.6f,' % time.time(), 1)

    def _event(self, payload: bytes, event: bytes = b"") -> bytes:
        return encode_event(payload, self._line_ending, event)


def encode_event(payload: bytes, line_ending: bytes, event: bytes = b"") -> bytes:
    r"""Encode one JSON document as a server-sent event.

    >>> encode_event(b"{}", b"\n", b"ping")
    b'event: ping\ndata: {}\n\n'
    """
    if event:
        return b"event: %b%b" % (event, line_ending) + b"data: %b%b%b" % (payload, line_ending, line_ending)
    return b"data: %b%b%b" % (payload, line_ending, line_ending)


def repeat_tokens(events: Iterable[bytes], answer: Answer) -> Iterator[tuple[bool, bytes]]:
    """Repeat the events of an answer's text as the answer asks; each is encoded once, and each is a token."""
    once = ((True, event) for event in events)
    # `cycle` stores the events, so a token that is sent a million times is encoded once.
    return islice(cycle(once), answer.token_count) if answer.repeat else once


def interleave(choices: list[Iterator[tuple[bool, bytes]]]) -> Iterator[tuple[bool, bytes]]:
    """Yield one event of each choice in turn until all choices have ended."""
    if len(choices) == 1:
        yield from choices[0]
        return
    while choices:
        for choice in tuple(choices):
            event = next(choice, None)
            if event is None:
                choices.remove(choice)
            else:
                yield event


def to_object(call: ScriptedCall) -> msgspec.Raw:
    """Return the arguments as one JSON value on one line. Broken JSON stays broken, and breaks the event around it."""
    try:
        value = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return msgspec.Raw(" ".join(call.arguments.split()).encode())
    return msgspec.Raw(msgspec.json.encode(value))


def to_usage(answer: Answer, context: AnswerContext) -> Usage:
    """Return the usage to send: the answer's own, or the true counts, where arguments and reasoning count as output."""
    if answer.usage is not None:
        return answer.usage
    output = answer.paced_count
    return Usage(
        input_tokens=context.input_tokens,
        output_tokens=output,
        total_tokens=context.input_tokens + output,
        reasoning_tokens=sum(len(choice.reasoning_pieces) for choice in (answer, *answer.choices)),
        cached_tokens=0,
    )


class ErrorEncoder(Protocol):
    """Encodes the error body of an API for an HTTP status; ``message`` None is the provider's usual message."""

    def __call__(
        self,
        status: int,
        message: str | None = None,
        code: str | int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> bytes: ...


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 413: "request_too_large", 500: "server_error"}
_MESSAGES: dict[int | str | None, str] = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request.",
    503: "The engine is currently overloaded, please try again later.",
    "context_length_exceeded": "This model's maximum context length is 8192 tokens; your messages are longer.",
    "model_not_found": "The model does not exist or you do not have access to it.",
}


def encode_openai_error(
    status: int,
    message: str | None = None,
    code: str | int | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> bytes:
    """Encode an error body of OpenAI. Implements `ErrorEncoder`."""
    usual = _MESSAGES.get(code) or _MESSAGES.get(status, f"The request failed ({status}).")
    error: dict[str, Any] = {
        "message": message if message is not None else usual,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": param,
        "code": code if code is not None else _CODES.get(status),
    }
    return msgspec.json.encode({"error": error})
