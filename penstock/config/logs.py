"""The log: structured events on the standard library's logger ``"penstock"``; structlog renders them.

A library does not decide where an application's log goes, so importing this configures nothing, and structlog's own
global configuration is neither used nor changed. What Penstock logs arrives at ``logging.getLogger("penstock")`` as
one line of text; its fields are in the record's ``penstock`` attribute. Until somebody configures logging, the
standard library's manners hold: warnings and errors go to standard error, the rest nowhere.

The command line, and an application that wants our format, calls `configure_logging`.

No token text and no key is meant to be logged anywhere; `redact` is the net below that. Of exceptions the log says
the type and the place, never the message, unless it is one of ours: those hold no text.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, TypeAlias, get_args

from penstock.config.options import check_choice
from penstock.errors import describe_reason

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["LogFormat", "LogLevel", "Logger", "configure_logging", "get_logger", "redact", "stream_logger"]

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
LogFormat: TypeAlias = Literal["auto", "console", "json"]

_STARS = "***"
_FIRST = ("stream_id", "actor", "state")

# --- what may be shown -----------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(r"api[-_]?key|authorization|secret|passw|cookie|credential|(?:access|auth|bearer)[-_]?token")
_TEXT_NAME = re.compile(
    r"texts?|tokens?|contents?|messages?|prompts?|inputs?|arguments|deltas?|chunks?|body|partial|reasoning|refusal"
)
_SECRET_TEXT = re.compile(r"(?i)(\bbearer\s+|\bsk-|[?&](?:api[-_]?key|key|token)=)[^\s&\"']+")
_URL_USER = re.compile(r"://[^\s/@]{1,200}@")
_DEEPEST = 4


def redact(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: stars for what may be a key or token text.

    By name: ``api_key``, ``authorization`` … whatever their value; ``text``, ``tokens``, ``messages``, ``prompt`` …
    unless the value is a number, which can only be a count. By value: whatever has a ``reveal`` method, keys inside
    text, bytes (their length is said), exceptions other than ours (their type is said). Mappings and sequences
    are looked into.

    >>> redact(None, "info", {"event": "sent", "tokens": ["Hi"], "tokens_processed": 1})
    {'event': 'sent', 'tokens': '***', 'tokens_processed': 1}
    """
    return {name: _safe(name, value, _DEEPEST) for name, value in event_dict.items()}


def _safe(name: object, value: Any, depth: int) -> Any:
    lower = name.lower() if isinstance(name, str) else ""
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_NAME.search(lower):
        return _STARS
    if isinstance(value, (int, float)):
        return value
    return _STARS if _TEXT_NAME.fullmatch(lower) else _safe_value(value, depth)


def _safe_value(value: Any, depth: int) -> Any:
    if isinstance(value, _Trace):
        return value
    if isinstance(value, str):
        return _scrub(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, BaseException):
        return _scrub(describe_reason(value))
    # Of the type: asking an actor's proxy for an attribute asks the actor.
    if hasattr(type(value), "reveal") or hasattr(type(value), "get_secret_value"):
        return _STARS
    if isinstance(value, Mapping):
        return {_scrub(str(key)): _safe(key, each, depth - 1) for key, each in value.items()} if depth else "…"
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe("", each, depth - 1) for each in value] if depth else "…"
    try:
        return _scrub(repr(value))
    except Exception:  # whatever a foreign repr raises
        return f"a {type(value).__name__}"


def _scrub(text: str) -> str:
    """``text`` with what looks like a key replaced, and a control character (a faked line …) made visible."""
    text = _URL_USER.sub(f"://{_STARS}@", _SECRET_TEXT.sub(rf"\1{_STARS}", text))
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class _Trace(str):
    """A traceback made by `_trace`: safe, and allowed to have lines."""

    __slots__ = ()


def _trace(error: BaseException) -> _Trace:
    """A traceback that shows places and types only: the messages, and what they quote, stay out of it."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_list(traceback.extract_tb(current.__traceback__)))
        parts.append(f"{frames}{_scrub(describe_reason(current))}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return _Trace("\ncaused the following:\n".join(reversed(parts)))


def _explain(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put an ``exc_info``, in any of its forms, as safe text under ``exception``."""
    given = event_dict.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error is not None:
        event_dict["exception"] = _trace(error)
    return event_dict


# --- the logger ------------------------------------------------------------------------------------------------------


class Logger:
    """Events with bound fields: ``log.info("retrying", attempt=2)``. A call whose level is off costs one look-up.

    Immutable; `bind` gives a logger with more fields. Any thread may use it, and no call ever raises because of where
    the log goes. It works as structlog's bound loggers do, without the 0.3 s that importing structlog takes.
    """

    __slots__ = ("_fields", "_logger")

    _forced = False

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._logger = logging.getLogger("penstock")
        self._fields = fields

    def bind(self, **fields: Any) -> Self:
        """Return a logger with these fields in addition to its own."""
        return type(self)({**self._fields, **fields})

    def enabled(self, level: LogLevel) -> bool:
        """Whether an event of ``level`` would be written: ask before computing an expensive field."""
        return self._is_on(logging.getLevelName(level.upper()))

    def debug(self, event: str, **fields: Any) -> None:
        """What only somebody who looks for a fault wants to know."""
        if self._is_on(logging.DEBUG):
            self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What happens in normal operation."""
        if self._is_on(logging.INFO):
            self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What was dealt with, but should be looked at."""
        if self._is_on(logging.WARNING):
            self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What failed; with ``exc_info=error`` it says the type and the place."""
        if self._is_on(logging.ERROR):
            self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """`error` with the exception being handled."""
        if self._is_on(logging.ERROR):
            self._write(logging.ERROR, event, {"exc_info": True, **fields})

    def critical(self, event: str, **fields: Any) -> None:
        """What the process may not survive."""
        if self._is_on(logging.CRITICAL):
            self._write(logging.CRITICAL, event, fields)

    def _is_on(self, level: int) -> bool:
        logger = self._logger
        return logger.isEnabledFor(level) or (self._forced and logger.manager.disable < level)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        logger = self._logger
        shown: MutableMapping[str, Any] = {**self._fields, **fields, "event": event}
        for process in _PROCESSORS:
            shown = process(logger, logging.getLevelName(level).lower(), shown)
        file, line, function, _ = logger.findCaller(stacklevel=3)
        record = logger.makeRecord(
            logger.name, level, file, line, _line(shown), (), None, function, extra={"penstock": shown}
        )
        logger.handle(record)  # past the logger's own level, which `_is_on` has judged


class _DebugLogger(Logger):
    """All its events are written, whatever the level."""

    __slots__ = ()

    _forced = True


def _line(fields: Mapping[str, Any]) -> str:
    """One line for handlers that know nothing of fields; a trace follows on lines of its own."""
    rest = dict(fields)
    event, trace = rest.pop("event", ""), rest.pop("exception", None)
    text = " ".join([str(event), *(f"{name}={value}" for name, value in rest.items())])
    return f"{text}\n{trace}" if trace else text


def get_logger(**bound: Any) -> Logger:
    """A logger with some fields bound, ``stream_id``, ``actor`` and ``state`` by custom.

    Made before or after logging is configured, it follows whatever configuration there is when it is called.
    """
    return Logger(bound)


def stream_logger(stream_id: str, debug: bool = False, **bound: Any) -> Logger:
    """The logger of one stream. With ``debug`` its debug events are written even if the level is higher.

    A handler with a level of its own (none that `configure_logging` makes) can still keep them out.
    """
    kind = _DebugLogger if debug else Logger
    return kind({"stream_id": stream_id, **bound})


def _in_order(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event_dict[name] for name in ("event", *_FIRST) if name in event_dict}
    return first | {name: value for name, value in event_dict.items() if name not in first}


_PROCESSORS = (_explain, redact, _in_order)


# --- configuration ---------------------------------------------------------------------------------------------------

# Pykka warns of unexpected messages with the message, and logs exceptions as they are; urllib3 logs URLs with their
# queries. Their debug lines say nothing about Penstock, so they start at warnings, whatever our level is.
_FOREIGN = ("pykka", "urllib3")


def configure_logging(level: LogLevel = "info", format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Write Penstock's log, and the warnings of the libraries below it, in our format. Again, to change it.

    Args:
        level: the lowest level that is written.
        format: ``"console"`` for people; ``"json"``, one object a line; ``"auto"``: console if ``stream`` is a
            terminal, else JSON. Times are UTC.
        stream: where to; None is standard error, whatever `sys.stderr` is at the time of writing. If it is closed
            or breaks, lines are lost; nobody is disturbed.

    Raises:
        OptionError: level or format is none of the above. Nothing is changed.
    """
    check_choice("level", level, get_args(LogLevel))
    check_choice("format", format, get_args(LogFormat))
    terminal = _is_terminal(stream or sys.stderr)
    handler = _Handler(stream)
    handler.setFormatter(_Formatter(console=terminal if format == "auto" else format == "console", colors=terminal))
    own_level = logging.getLevelName(level.upper())
    for name in ("penstock", *_FOREIGN):
        logger = logging.getLogger(name)
        for earlier in [each for each in logger.handlers if isinstance(each, _Handler)]:
            logger.removeHandler(earlier)
        logger.addHandler(handler)
        logger.setLevel(own_level if name == "penstock" else max(own_level, logging.WARNING))
        logger.propagate = False  # an application's root handler would write everything a second time


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (ValueError, OSError, AttributeError):  # closed, or not quite a file
        return False


class _Formatter(logging.Formatter):
    """Records, ours and foreign, as lines."""

    def __init__(self, *, console: bool, colors: bool) -> None:
        super().__init__()
        self._console = console
        self._colors = colors and "NO_COLOR" not in os.environ

    @cached_property
    def _render(self) -> Processor:
        import structlog  # at the first line that is written: it brings rich and Pygments with it

        if not self._console:
            return structlog.processors.JSONRenderer()
        return structlog.dev.ConsoleRenderer(
            colors=self._colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
        )

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = getattr(record, "penstock", None) or _foreign_fields(record)
        head = {"timestamp": time, "level": record.levelname.lower()}
        return str(self._render(None, "", {**head, **fields, **head}))


_UNEXPECTED = re.compile(r"(Unexpected message received)\b.*", re.DOTALL)


def _foreign_fields(record: logging.LogRecord) -> MutableMapping[str, Any]:
    event = _UNEXPECTED.sub(rf"\1: {_STARS}", record.getMessage())
    return redact(None, "", _explain(None, "", {"event": event, "logger": record.name, "exc_info": record.exc_info}))


class _Handler(logging.Handler):
    """Writes lines to a stream that may break at any time; a log is not worth a process."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        stream = self._stream or sys.stderr
        if stream is None:  # no standard error at all, as under pythonw
            return
        try:
            line = self.format(record) + "\n"
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except Exception:  # noqa: S110 – closed, broken pipe, full disk, a stream or value that is no good
            pass
