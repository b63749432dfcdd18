"""What the encoders of all wire formats share: their interface, server-sent events, usage, OpenAI's error bodies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from typing import Any, Protocol, TypeAlias

import msgspec

from penstock.adapters.loopback.answer import Answer, ScriptedCall
from penstock.adapters.loopback.parts import Part, Said, Silence, delay_in
from penstock.events import TokenLogprob, Usage

__all__ = [
    "AnswerContext",
    "AnswerEncoder",
    "ErrorEncoder",
    "EventStream",
    "PartEvents",
    "Segment",
    "encode_event",
    "encode_openai_error",
    "interleave",
    "needs_parts",
    "openai_logprobs",
    "part_segments",
    "repeat_tokens",
    "to_object",
    "to_usage",
    "with_logprobs",
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

    top_logprobs: int | None = None
    """How many likely tokens are asked for at each place, besides the probabilities themselves; None: neither."""


class Segment(msgspec.Struct, frozen=True):
    """A piece of an answer's body, without pauses.

    Attributes:
        events: the events; the flag says whether an event is a token, which is paced and counted.
        has_parts: the number of tokens is not known in advance: only tokens wait for their time.
        pause: the seconds of silence before it.
    """

    events: Iterator[tuple[bool, bytes]]
    has_parts: bool = False
    pause: float = 0.0


class AnswerEncoder(Protocol):
    """Encodes one answer in one wire format, lazily, as whole events in bytes; one object serves one response.

    Call `opening`, `segments` (or `body`) and `closing` in this order, each once.
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

    def segments(self) -> Iterator[Segment]:
        """Yield the body in pieces. Each must be read to its end before the next one is taken."""

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

    def body(self) -> Iterator[tuple[bool, bytes]]:
        """Yield the events of the answer."""
        raise NotImplementedError

    def segments(self) -> Iterator[Segment]:
        """Yield the body in one piece."""
        yield Segment(self.body())

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


# --- parts -----------------------------------------------------------------------------------------------------------


def needs_parts(answer: Answer, context: AnswerContext) -> bool:
    """Tell whether an answer has more than text, reasoning, refusal, functions, choices and usage."""
    if answer.parts or answer.metadata:
        return True
    if answer.repeat or answer.choices:
        return False
    asked = answer.logprobs == "always" or (answer.logprobs == "asked" and context.top_logprobs is not None)
    return asked or any(call.type != "function" for call in answer.tool_calls)


PartEvents: TypeAlias = Iterator[tuple[bool, bytes] | None]
"""The events of a part; None stands between the call and the result of a tool."""


def part_segments(
    answer: Answer, encode: Callable[[Part], PartEvents], end: Callable[[], Iterator[bytes]]
) -> Iterator[Segment]:
    """Yield the parts of an answer, encoded, in the pieces between its pauses.

    ``end`` yields what follows the last part, such as the end of the text that it was.
    """
    steps = _steps(answer.content, encode, end)
    ends: list[float] = []

    def until_pause() -> Iterator[tuple[bool, bytes]]:
        for step in steps:
            if isinstance(step, float):
                ends.append(step)
                return
            yield step

    yield Segment(until_pause(), has_parts=True)
    while ends:
        yield Segment(until_pause(), has_parts=True, pause=ends.pop())


def _steps(
    parts: Iterable[Part], encode: Callable[[Part], PartEvents], end: Callable[[], Iterator[bytes]]
) -> Iterator[tuple[bool, bytes] | float]:
    """Yield the events of all parts, and the seconds of each pause where it stands.

    A tool takes its time in the APIs that leave it out, too.
    """
    for part in parts:
        if isinstance(part, Silence):
            yield float(part.seconds)
            continue
        delay = float(delay_in(part))
        for event in encode(part):
            if event is not None:
                yield event
            elif delay:
                yield delay
                delay = 0.0
        if delay:
            yield delay
    for last in end():
        yield False, last


def with_logprobs(said: Said, answer: Answer, context: AnswerContext) -> Iterator[tuple[str, TokenLogprob | None]]:
    """Yield the tokens of a text, each with its probability if probabilities are to be sent."""
    given = said.logprobs
    is_asked = answer.logprobs == "always" or context.top_logprobs is not None
    for number, token in enumerate(said.pieces):
        if answer.logprobs == "never" or not (given is not None or is_asked):
            yield token, None
        elif given is not None:
            yield token, given[number]
        else:
            yield token, _made_up(token, number, context.top_logprobs or 0)


def _made_up(token: str, number: int, count: int) -> TokenLogprob:
    logprob = -(number % 8 + 1) / 16
    others = [(f"{token}{place}", logprob - place) for place in range(1, count)]
    return TokenLogprob(token=token, logprob=logprob, top=tuple([(token, logprob), *others][:count]))


def openai_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return probabilities in the form of OpenAI's APIs and Ollama's."""
    return [
        _openai_logprob(one.token, one.logprob) | {"top_logprobs": [_openai_logprob(*other) for other in one.top]}
        for one in tokens
    ]


def _openai_logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


# --- values ----------------------------------------------------------------------------------------------------------


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
