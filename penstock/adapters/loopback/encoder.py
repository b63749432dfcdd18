"""What the dialects of the loopback provider share: an answer as events, the event stream's form, error bodies."""

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
    """What a dialect must know of a request to answer it."""

    number: int
    model: str
    created: int
    """Seconds since the epoch."""

    input_tokens: int
    include_usage: bool = False
    """The request asked for usage in the stream."""

    background: bool = False
    """The Responses API is to keep the answer."""


class AnswerEncoder(Protocol):
    """One answer in one dialect. Gives whole events as bytes, lazily; one object serves one response.

    Call `opening`, `body` and `closing` in this order, each once.
    """

    @property
    def content_type(self) -> str:
        """Of the stream."""

    @property
    def event_end(self) -> bytes:
        """What every event ends with."""

    def opening(self) -> Iterator[bytes]:
        """Events before the first token."""

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """The answer itself; the flag says whether the event is a token, which is paced and counted."""

    def closing(self) -> Iterator[bytes]:
        """Finish, usage, end marker."""

    def text(self, text: str) -> bytes:
        """A text delta that is not part of the answer."""

    def keep_alive(self) -> bytes:
        """A sign of life that says nothing; empty where the dialect has none."""

    def stamped(self, event: bytes) -> bytes:
        """The event with the time in it."""

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """An error frame, and what closes the stream after it."""

    def whole(self) -> bytes:
        """The body of the answer that is not streamed."""


class EventStream:
    """The part of a `AnswerEncoder` that is the same wherever the events are server-sent ones."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, answer: Answer, line_ending: str = "\n") -> None:
        self._line_ending = (answer.line_ending or line_ending).encode()

    @property
    def event_end(self) -> bytes:
        """A blank line."""
        return self._line_ending * 2

    def keep_alive(self) -> bytes:
        """A comment."""
        return b": keep-alive" + self.event_end

    def stamped(self, event: bytes) -> bytes:
        """The time as the first member of the event's JSON."""
        return event.replace(b"data: {", b'data: {"penstock_sent":%.6f,' % time.time(), 1)

    def _event(self, payload: bytes, event: bytes = b"") -> bytes:
        return encode_event(payload, self._line_ending, event)


def encode_event(payload: bytes, line_ending: bytes, event: bytes = b"") -> bytes:
    r"""Put one JSON document into the event stream's form.

    >>> encode_event(b"{}", b"\n", b"ping")
    b'event: ping\ndata: {}\n\n'
    """
    if event:
        return b"event: %b%b" % (event, line_ending) + b"data: %b%b%b" % (payload, line_ending, line_ending)
    return b"data: %b%b%b" % (payload, line_ending, line_ending)


def repeat_tokens(events: Iterable[bytes], answer: Answer) -> Iterator[tuple[bool, bytes]]:
    """The events of an answer's text, said as often as it wants, each made once. All of them are tokens."""
    once = ((True, event) for event in events)
    # `cycle` keeps what it was given, so that a token said a million times is encoded once.
    return islice(cycle(once), answer.token_count) if answer.repeat else once


def interleave(choices: list[Iterator[tuple[bool, bytes]]]) -> Iterator[tuple[bool, bytes]]:
    """One event of each choice after the other, as long as any has one."""
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
    """The arguments as the JSON value they are, on one line. Broken JSON stays broken, and breaks what it is put in."""
    try:
        value = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return msgspec.Raw(" ".join(call.arguments.split()).encode())
    return msgspec.Raw(msgspec.json.encode(value))


def to_usage(answer: Answer, context: AnswerContext) -> Usage:
    """The usage to tell: the answer's own, or the true counts. ``output_tokens`` includes reasoning and arguments."""
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
    """Makes a dialect's error body for an HTTP status, with the provider's usual words where none are given."""

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
    """OpenAI's error body. Implements `ErrorEncoder`."""
    usual = _MESSAGES.get(code) or _MESSAGES.get(status, f"The request failed ({status}).")
    error: dict[str, Any] = {
        "message": message if message is not None else usual,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": param,
        "code": code if code is not None else _CODES.get(status),
    }
    return msgspec.json.encode({"error": error})
