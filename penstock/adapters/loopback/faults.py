"""What can go wrong with an answer, as values.

Those that count tokens happen once that many tokens of the answer are out (all of them, where the answer has fewer),
before anything that closes it. `Answer.faults` takes several stream faults at once; a fault in the place of an
answer is that fault on the script's own ``answer``. Delivered to the kernel is everything that comes before the
fault, so what a client sees is the same each time.
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
        raise OptionError(field, value, "a text" + (" or None" if optional else ""))


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's token
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?|")


def check_headers(headers: object) -> tuple[tuple[str, str], ...]:
    """The pairs as a tuple, with the names in lower case.

    Raises:
        OptionError: they are no pairs of texts, or what would break the head of a response.
    """
    pairs = tuple(headers) if isinstance(headers, (list, tuple)) else (None,)
    taken: list[tuple[str, str]] = []
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise OptionError("headers", headers, "pairs of a name and a value")
        name, value = pair
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise OptionError("headers", pair, "a header's name, and printable ASCII")
        taken.append((name.lower(), value))
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error with the error JSON of the dialect.

    ``retry_after``: seconds, or the header's text as it is (a date). ``code`` is OpenAI's, and Anthropic's ``type`` or
    Gemini's ``status`` where it is one of theirs. ``headers``: such as rate limits.
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
    """The connection is closed before a byte of the answer; ``reset``: by a TCP reset."""

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
    """The status line comes ``seconds`` late; None: never, the server waits until the client leaves."""

    seconds: float | None

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0, _DAY_S, optional=True)


@dataclass(frozen=True, slots=True)
class StallAfter:
    """Silence of ``seconds`` after so many tokens, then it goes on; None: until the client leaves."""

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
    """The answer stops after so many tokens: no finish reason, no end marker.

    ``clean``: the body is ended as HTTP wants it, so that only the missing finish tells; otherwise the socket is
    closed in the middle of the body.
    """

    tokens: int
    clean: bool = False

    def __post_init__(self) -> None:
        _check_count("tokens", self.tokens)
        check_choice("clean", self.clean, (True, False))


@dataclass(frozen=True, slots=True)
class MalformedJson:
    """An event whose JSON breaks off, after so many tokens; the answer goes on behind it."""

    after: int = 0

    def __post_init__(self) -> None:
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """An error inside the stream, under status 200; the answer ends there.

    ``code`` is OpenAI's; Anthropic's ``type``, Gemini's ``code`` (a number) or ``status`` where it is one of theirs.
    ``then_done``: what properly closes a broken stream follows: chat's ``[DONE]``, Responses' ``response.failed``; in
    the other dialects nothing does.
    """

    after: int = 0
    code: str | int | None = "server_error"
    message: str = "The server had an error while processing your request."
    then_done: bool = True

    def __post_init__(self) -> None:
        _check_count("after", self.after)
        if not (self.code is None or isinstance(self.code, (str, int))) or isinstance(self.code, bool):
            raise OptionError("code", self.code, "a text, a whole number or None")
        _check_text("message", self.message)
        check_choice("then_done", self.then_done, (True, False))


@dataclass(frozen=True, slots=True)
class InvalidUtf8:
    """A text delta with bytes in it that are no UTF-8; the answer goes on behind it."""

    after: int = 0

    def __post_init__(self) -> None:
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class HugeEvent:
    """A text delta of ``size`` bytes in one event; not counted in the answer's text or usage."""

    size: int
    after: int = 0

    def __post_init__(self) -> None:
        check_number("size", self.size, 1, 2**30, whole=True)
        _check_count("after", self.after)


@dataclass(frozen=True, slots=True)
class HoldOpen:
    """Everything comes, the end marker too, but the body stays open for ``seconds``; None: until the client leaves."""

    seconds: float | None = None

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0, _DAY_S, optional=True)


ResponseFault: TypeAlias = Status | HangUp | NotAStream
"""In the place of an answer."""

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
"""On the way of an answer."""

Fault: TypeAlias = ResponseFault | StreamFault
