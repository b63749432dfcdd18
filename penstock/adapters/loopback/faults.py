"""What can go wrong with an answer, as values.

A fault that counts tokens happens when that many tokens of the answer have been sent (or all, if the answer has fewer),
before the events that close it. `Answer.faults` takes several stream faults; a stream fault given as a reply happens to
the script's own ``answer``. Everything before the fault is handed to the kernel first, so a client sees the same each
time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError

__all__ = [
    "DelayFirstByte",
    "ErrorFrame",
    "Fault",
    "HangUp",
    "HoldOpen",
    "HugeEvent",
    "InvalidUtf8",
    "MalformedJson",
    "NotAStream",
    "ResetAfter",
    "ResponseFault",
    "StallAfter",
    "Status",
    "StreamFault",
    "TruncateAfter",
    "check_headers",
]

_DAY_S = 86_400


def _check_count(field: str, value: object) -> None:
    check_number(field, value, 0, 1_000_000_000, whole=True)


def _check_text(field: str, value: object, *, optional: bool = False) -> None:
    if not isinstance(value, str) and not (optional and value is None):
        raise OptionError(field, value, "a string" + (" or None" if optional else ""))


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's token
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?|")


def check_headers(headers: object) -> tuple[tuple[str, str], ...]:
    """Return the pairs as a tuple, with the names in lower case.

    Raises:
        OptionError: they are not pairs of strings, or would make the head of a response invalid.
    """
    pairs = tuple(headers) if isinstance(headers, (list, tuple)) else (None,)
    taken: list[tuple[str, str]] = []
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise OptionError("headers", headers, "pairs of a name and a value, both strings")
        name, value = pair
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise OptionError("headers", pair, "a valid header name, and a value of printable ASCII")
        taken.append((name.lower(), value))
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error with the error JSON of the API.

    ``retry_after``: seconds, or the text of the header (a date). ``code``: OpenAI's ``code``; also Anthropic's ``type``
    or Gemini's ``status`` if it is one of their values. ``headers``: further headers, such as rate limits.
    """

    status: int
    retry_after: float | str | None = None
    message: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_number("status", self.status, 400, 599, whole=True)
        if isinstance(self.retry_after, str):
            if not self.retry_after.isascii() or not self.retry_after.isprintable():
                raise OptionError("retry_after", self.retry_after, "printable ASCII")
        else:
            check_number("retry_after", self.retry_after, 0, 365 * _DAY_S, optional=True)
        _check_text("message", self.message, optional=True)
        _check_text("code", self.code, optional=True)
        object.__setattr__(self, "headers", check_headers(self.headers))


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed before the first byte of the answer; ``reset``: by a TCP reset."""

    reset: bool = False

    def __post_init__(self) -> None:
        check_choice("reset", self.reset, (True, False))


@dataclass(frozen=True, slots=True)
class NotAStream:
    """200 and a web page, as from a captive portal or a wrong base URL."""

    body: str = "<!doctype html><title>Sign in</title><p>This is not the page you are looking for."

    def __post_init__(self) -> None:
        _check_text("body", self.body)


@dataclass(frozen=True, slots=True)
class DelayFirstByte:
    """The status line is sent ``seconds`` late; None: never, the server waits until the client disconnects."""

    seconds: float | None

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0, _DAY_S, optional=True)


@dataclass(frozen=True, slots=True)
class StallAfter:
    """Silence of ``seconds`` after so many tokens, then the rest; None: silence until the client disconnects."""

    tokens: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        _check_count("tokens", self.tokens)
        check_number("seconds", self.seconds, 0, _DAY_S, optional=True)


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """A TCP reset (RST) after so many tokens."""

    tokens: int

    def __post_init__(self) -> None:
        _check_count("tokens", self.tokens)


@dataclass(frozen=True, slots=True)
class TruncateAfter:
    """The answer stops after so many tokens, without finish reason and end marker.

    ``clean``: the HTTP body ends properly, so only the missing finish reason shows that the answer is incomplete.
    Otherwise the socket is closed in the middle of the body.
    """

    tokens: int
    clean: bool = False

    def __post_init__(self) -> None:
        _check_count("tokens", self.tokens)
        check_choice("clean", self.clean, (True, False))


@dataclass(frozen=True, slots=True)
class MalformedJson:
    """An event whose JSON breaks off, after so many tokens; the answer continues after it."""

    after: int = 0

    def __post_init__(self) -> None:
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """An error inside the stream, under status 200; the answer ends there.

    ``code``: OpenAI's ``code``; also Anthropic's ``type``, or Gemini's ``code`` (a number) or ``status``, if it is one
    of their values. ``then_done``: close the stream properly after the error, by chat's ``[DONE]`` or Responses'
    ``response.failed``; other APIs send nothing after an error.
    """

    after: int = 0
    code: str | int | None = "server_error"
    message: str = "The server had an error while processing your request."
    then_done: bool = True

    def __post_init__(self) -> None:
        _check_count("after", self.after)
        if not (self.code is None or isinstance(self.code, (str, int))) or isinstance(self.code, bool):
            raise OptionError("code", self.code, "a string, a whole number or None")
        _check_text("message", self.message)
        check_choice("then_done", self.then_done, (True, False))


@dataclass(frozen=True, slots=True)
class InvalidUtf8:
    """A text delta that contains bytes that are not UTF-8; the answer continues after it."""

    after: int = 0

    def __post_init__(self) -> None:
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class HugeEvent:
    """A text delta of ``size`` bytes in one event; it counts neither as text nor in the usage."""

    size: int
    after: int = 0

    def __post_init__(self) -> None:
        check_number("size", self.size, 1, 2**30, whole=True)
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class HoldOpen:
    """The complete answer is sent, but the body stays open for ``seconds``; None: until the client disconnects."""

    seconds: float | None = None

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0, _DAY_S, optional=True)


ResponseFault: TypeAlias = Status | HangUp | NotAStream
"""Faults that replace an answer."""

StreamFault: TypeAlias = (
    DelayFirstByte
    | StallAfter
    | ResetAfter
    | TruncateAfter
    | MalformedJson
    | ErrorFrame
    | InvalidUtf8
    | HugeEvent
    | HoldOpen
)
"""Faults that happen while an answer is sent."""

Fault: TypeAlias = ResponseFault | StreamFault
