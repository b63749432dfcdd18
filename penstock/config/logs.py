"""The log: structured events on the standard library's logger ``"penstock"``; structlog renders them.

The application decides where its log goes: importing this module configures nothing, and structlog's global
configuration is neither used nor changed. Each event arrives at ``logging.getLogger("penstock")`` as one line of text;
its fields are in the record's ``penstock`` attribute. Until the application configures logging, the standard library's
defaults apply: warnings and errors go to standard error, everything else is dropped.

The command line, and applications that want Penstock's format, call `configure_logging`.

Penstock never logs token text or keys on purpose; `redact` is a second line of defence. Exceptions are logged with
their types and locations. Their messages are logged only for Penstock's own errors, which hold neither.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, TypeAlias, get_args

from penstock.config.checks import check_choice
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
    """Replace values that may be a key or token text by stars. A structlog processor.

    By name: ``api_key``, ``authorization`` … always; ``text``, ``tokens``, ``messages``, ``prompt`` … unless the value
    is a number, which can only be a count. By value: objects with a ``reveal`` method, and keys inside text. Bytes are
    replaced by their length, exceptions other than Penstock's by their type. Mappings and sequences are searched.

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
    # Look at the type: reading an attribute of an actor's proxy would send the actor a message.
    if hasattr(type(value), "reveal") or hasattr(type(value), "get_secret_value"):
        return _STARS
    if isinstance(value, Mapping):
        return {_scrub(str(key)): _safe(key, each, depth - 1) for key, each in value.items()} if depth else "…"
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe("", each, depth - 1) for each in value] if depth else "…"
    try:
        return _scrub(repr(value))
    except Exception:  # a foreign repr may raise anything
        return f"a {type(value).__name__}"


def _scrub(text: str) -> str:
    """Replace what looks like a key in ``text``, and escape control characters, which could fake a line."""
    text = _URL_USER.sub(f"://{_STARS}@", _SECRET_TEXT.sub(rf"\1{_STARS}", text))
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class _Trace(str):
    """A traceback made by `_trace`: safe to show, and allowed to contain line ends."""

    __slots__ = ()


def _trace(error: BaseException) -> _Trace:
    """Format a traceback with locations and types only: messages may quote anything."""
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
    """Convert ``exc_info``, in any of its forms, to safe text under ``exception``."""
    given = event_dict.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error is not None:
        event_dict["exception"] = _trace(error)
    return event_dict


# --- the logger ------------------------------------------------------------------------------------------------------


class Logger:
    """A logger of events with fields: ``log.info("retrying", attempt=2)``.

    Immutable; `bind` returns a logger with more fields. Any thread may use it. A call below the level costs one
    look-up. No call raises because of the log's destination. It works like structlog's loggers, but a program that logs
    nothing does not pay the 0.3 s of importing structlog.
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
        """Whether an event of ``level`` would be written. Ask before computing an expensive field."""
        return self._is_on(logging.getLevelName(level.upper()))

    def debug(self, event: str, **fields: Any) -> None:
        """Log what is only needed to search for a fault."""
        if self._is_on(logging.DEBUG):
            self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happens in normal operation."""
        if self._is_on(logging.INFO):
            self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what was handled, but should be looked into."""
        if self._is_on(logging.WARNING):
            self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure. ``exc_info=error`` adds the exception's type and location."""
        if self._is_on(logging.ERROR):
            self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log a failure with the exception that is being handled."""
        if self._is_on(logging.ERROR):
            self._write(logging.ERROR, event, {"exc_info": True, **fields})

    def critical(self, event: str, **fields: Any) -> None:
        """Log what the process may not survive."""
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
        logger.handle(record)  # bypasses the logger's level, which `_is_on` has checked


class _DebugLogger(Logger):
    """A logger whose events are written at any level."""

    __slots__ = ()

    _forced = True


def _line(fields: Mapping[str, Any]) -> str:
    """Format one line for handlers that do not know the fields. A traceback follows on separate lines."""
    rest = dict(fields)
    event, trace = rest.pop("event", ""), rest.pop("exception", None)
    text = " ".join([str(event), *(f"{name}={value}" for name, value in rest.items())])
    return f"{text}\n{trace}" if trace else text


def get_logger(**bound: Any) -> Logger:
    """Make a logger with some fields bound, usually ``stream_id``, ``actor`` and ``state``.

    It follows the configuration at the time of each call, so it may be made before logging is configured.
    """
    return Logger(bound)


def stream_logger(stream_id: str, debug: bool = False, **bound: Any) -> Logger:
    """Make the logger of one stream. With ``debug`` its debug events are written even if the level is higher.

    A handler with a level of its own can still drop them; `configure_logging` sets none.
    """
    kind = _DebugLogger if debug else Logger
    return kind({"stream_id": stream_id, **bound})


def _in_order(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event_dict[name] for name in ("event", *_FIRST) if name in event_dict}
    return first | {name: value for name, value in event_dict.items() if name not in first}


_PROCESSORS = (_explain, redact, _in_order)


# --- configuration ---------------------------------------------------------------------------------------------------

# Pykka quotes unexpected messages and logs exceptions with their messages; urllib3 logs URLs with their queries. Their
# debug events are of no use here, so only their warnings and errors are written, whatever our level is.
_FOREIGN = ("pykka", "urllib3")


def configure_logging(
    level: LogLevel = "info",
    format: LogFormat = "auto",
    stream: TextIO | None = None,
    *,
    others: Sequence[str] = (),
) -> None:
    """Write Penstock's log, and the warnings of Pykka and urllib3, in Penstock's format.

    Call it again to change the configuration.

    Args:
        level: the lowest level that is written.
        format: ``"console"`` for people; ``"json"``: one object per line; ``"auto"``: console if ``stream`` is a
            terminal, else JSON. Times are UTC.
        stream: where to write; None is `sys.stderr` at the time of writing. If it is closed or broken, lines are lost
            and no error is raised.
        others: more loggers; their warnings are written in this format.

    Raises:
        OptionError: ``level`` or ``format`` is not allowed. Nothing is changed.
    """
    check_choice("level", level, get_args(LogLevel))
    check_choice("format", format, get_args(LogFormat))
    terminal = _is_terminal(stream or sys.stderr)
    handler = _Handler(stream)
    handler.setFormatter(_Formatter(console=terminal if format == "auto" else format == "console", colors=terminal))
    own_level = logging.getLevelName(level.upper())
    for name in ("penstock", *_FOREIGN, *others):
        logger = logging.getLogger(name)
        for earlier in [each for each in logger.handlers if isinstance(each, _Handler)]:
            logger.removeHandler(earlier)
        logger.addHandler(handler)
        logger.setLevel(own_level if name == "penstock" else max(own_level, logging.WARNING))
        logger.propagate = False  # or the root logger's handlers would write every line again


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (ValueError, OSError, AttributeError):  # closed, or not a real file
        return False


class _Formatter(logging.Formatter):
    """Formats log records, Penstock's and others, as lines."""

    def __init__(self, *, console: bool, colors: bool) -> None:
        super().__init__()
        self._console = console
        self._colors = colors and "NO_COLOR" not in os.environ

    @cached_property
    def _render(self) -> Processor:
        import structlog  # when the first line is written: it imports rich and Pygments

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
    """Writes lines to a stream. A stream that breaks must not break the process."""

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
        except Exception:  # noqa: S110 – closed, broken pipe, full disk, a bad stream or value
            pass
