"""Structured log events of each stream's life. They have counts and names, never token text or keys.

By default they go to Penstock's log: the standard library's logger ``"penstock"``, with the fields in each record's
``penstock`` attribute; see `penstock.configure_logging`. A logger of structlog gets them as its own events::

    import structlog
    from penstock.telemetry.lifecycle import log_streams

    log_streams(system, structlog.get_logger("llm"))

`EVENTS` lists the events and their fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from penstock.actors.stream.feed import Feed
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger, redact
from penstock.errors import PenstockError
from penstock.events import (
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.system import System

__all__ = ["EVENTS", "EventLogger", "log_streams"]

EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "stream_opened": ("stream_id", "provider", "model"),
    "provider_call_ended": ("stream_id", "provider", "model", "round", "attempts", "error"),
    "tools_started": ("stream_id", "round", "count"),
    "tool_ended": ("stream_id", "tool", "status", "duration_s"),
    "stream_reset": ("stream_id",),
    "stream_ended": (
        "stream_id",
        "outcome",
        "provider",
        "model",
        "token_count",
        "input_token_count",
        "output_token_count",
        "cost_usd",
        "time_to_first_token_s",
        "duration_s",
        "attempts",
        "error_count",
        "tool_count",
        "finish_reason",
        "error",
    ),
}
"""The events, and the fields of each. A field that is not known is left out."""


class EventLogger(Protocol):
    """A logger of events with fields, such as structlog's."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log what happens in normal operation."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what should be looked into."""


def log_streams(system: System, logger: EventLogger | None = None) -> None:
    """Log the life of every stream that a system opens from now on. Called again, it changes nothing.

    Ends in an error, and calls that failed, are warnings; all else is information.

    Args:
        system: it need not have been started.
        logger: None takes Penstock's log. Any other gets the fields with what may be a key or text replaced by stars.
    """
    if not any(isinstance(observer, _LifecycleLog) for observer in system._table.observers):
        system._table.observe(_LifecycleLog(get_logger() if logger is None else logger))


class _LifecycleLog:
    """Implements `penstock.actors.stream.observing.StreamObserver`."""

    def __init__(self, logger: EventLogger) -> None:
        self._logger = logger

    def opened(self, record: StreamRecord) -> None:
        """See `StreamObserver.opened`."""
        self._say("stream_opened", record, **_source(record))

    def called(self, record: StreamRecord, feed: Feed, error: PenstockError | None) -> None:
        """See `StreamObserver.called`."""
        provider, model = feed.asked
        about = {"provider": provider, "model": model, "round": feed.round, "attempts": feed.attempts}
        self._say("provider_call_ended", record, is_bad=error is not None, **about, error=_name(error))

    def happened(self, record: StreamRecord, event: SideEvent | StreamReset) -> None:
        """See `StreamObserver.happened`."""
        match event:
            case ToolExecutionStarted(round=number, calls=calls):
                self._say("tools_started", record, round=number, count=len(calls))
            case ToolResult(name=tool, status=status, duration_s=seconds):
                bad = status != "ok"
                self._say("tool_ended", record, is_bad=bad, tool=tool, status=status, duration_s=round(seconds, 6))
            case StreamReset():
                self._say("stream_reset", record)

    def ended(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """See `StreamObserver.ended`."""
        metrics, usage, cost = record.metrics(), terminal.usage, terminal.cost
        error = terminal.error if isinstance(terminal, StreamFailed) else None
        first = metrics.time_to_first_token_s
        self._say(
            "stream_ended",
            record,
            is_bad=error is not None,
            outcome=_OUTCOMES[type(terminal)],
            **_source(record),
            token_count=metrics.tokens,
            input_token_count=None if usage is None else usage.input_tokens,
            output_token_count=None if usage is None else usage.output_tokens,
            cost_usd=cost.amount if cost is not None and cost.currency == "USD" else None,
            time_to_first_token_s=None if first is None else round(first, 6),
            duration_s=round(metrics.total_time_s, 6),
            attempts=None if record.feed is None else record.feed.attempts,
            error_count=metrics.errors,
            tool_count=metrics.function_calls,
            finish_reason=terminal.finish_reason if isinstance(terminal, StreamCompleted) else None,
            error=_name(error),
        )

    def _say(self, event: str, record: StreamRecord, *, is_bad: bool = False, **fields: Any) -> None:
        known = {name: value for name, value in fields.items() if value is not None}
        shown = redact(None, "", {"stream_id": record.stream_id, **known})
        (self._logger.warning if is_bad else self._logger.info)(event, **shown)


_OUTCOMES: Final = {StreamCompleted: "completed", StreamFailed: "failed", StreamCancelled: "cancelled"}


def _source(record: StreamRecord) -> dict[str, Any]:
    provider, model = record.asked()
    return {"provider": provider or None, "model": model or None}


def _name(error: PenstockError | None) -> str | None:
    return None if error is None else type(error).__name__
