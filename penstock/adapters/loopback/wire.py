"""What both dialects of the loopback provider share: the event stream's form, error bodies, facts of one exchange."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.events import Usage

__all__ = ["Exchange", "Wire", "encode_error", "encode_event", "to_usage"]


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What a dialect must know of a request to answer it."""

    number: int
    model: str
    created: int
    """Seconds since the epoch."""

    input_tokens: int
    include_usage: bool = False
    """The request asked for usage in the stream."""


class Wire(Protocol):
    """One answer in one dialect. Gives whole events as bytes, lazily; one object serves one response.

    Call `opening`, `body` and `closing` in this order, each once.
    """

    def opening(self) -> Iterator[bytes]:
        """Events before the first token."""

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """The answer itself; the flag says whether the event is a token, which is paced and counted."""

    def closing(self) -> Iterator[bytes]:
        """Finish, usage, end marker."""

    def text(self, text: str) -> bytes:
        """A text delta that is not part of the answer."""

    def error(self, code: str | int | None, message: str, then_done: bool) -> Iterator[bytes]:
        """An error frame, and what closes the stream after it."""

    def whole(self) -> bytes:
        """The body of the answer that is not streamed."""


def encode_event(payload: bytes, line_ending: bytes, event: bytes = b"") -> bytes:
    r"""Put one JSON document into the event stream's form.

    >>> encode_event(b"{}", b"\n", b"ping")
    b'event: ping\ndata: {}\n\n'
    """
    if event:
        return b"event: %b%b" % (event, line_ending) + b"data: %b%b%b" % (payload, line_ending, line_ending)
    return b"data: %b%b%b" % (payload, line_ending, line_ending)


def to_usage(answer: Answer, exchange: Exchange) -> Usage:
    """The usage to tell: the answer's own, or the true counts. ``output_tokens`` includes reasoning and arguments."""
    if answer.usage is not None:
        return answer.usage
    output = answer.paced_count
    return Usage(
        input_tokens=exchange.input_tokens,
        output_tokens=output,
        total_tokens=exchange.input_tokens + output,
        reasoning_tokens=len(answer.reasoning_pieces),
        cached_tokens=0,
    )


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 413: "request_too_large", 500: "server_error"}
_MESSAGES = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request.",
    503: "The engine is currently overloaded, please try again later.",
}


def encode_error(
    status: int, message: str | None = None, code: str | int | None = None, param: str | None = None
) -> bytes:
    """OpenAI's error body for an HTTP status, with its usual words where none are given."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {
        "message": message if message is not None else _MESSAGES.get(status, f"The request failed ({status})."),
        "type": kind,
        "param": param,
        "code": code if code is not None else _CODES.get(status),
    }
    return msgspec.json.encode({"error": error})
