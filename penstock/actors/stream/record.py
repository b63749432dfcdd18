"""What is known of one stream beyond any actor's life: its log, its buffer, its subscribers.

A record is made when the stream is, and kept in a `StreamTable` until the stream is forgotten. The stream's actor, its
integration and the handler work on it and may crash and be restarted around it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.actors.call.record import Source
from penstock.actors.call.usage import count_characters, estimate_usage
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.log import Outcome, StreamLog
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import all_rounds
from penstock.actors.stream.subscriptions import Hub, nothing
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan, Restart, StreamOptions
from penstock.errors import StreamExists, StreamNotFound
from penstock.events import (
    Cost,
    StreamCompleted,
    StreamMetrics,
    ToolCallCompleted,
    ToolEvent,
    ToolResult,
    ToolResultStatus,
    Usage,
)
from penstock.ports import Journal

__all__ = ["Counters", "StreamRecord", "StreamStatistics", "StreamTable"]

_GAPS: Final = 512  # times between deliveries that are kept
_FAILED: Final[frozenset[ToolResultStatus]] = frozenset({"error", "timeout", "invalid_arguments", "unknown_tool"})


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has done. Times with ``_s`` are seconds; ``start_time`` and ``last_activity`` are wall clock."""

    stream_id: str
    state: str
    tokens_processed: int
    """Tokens accepted into the buffer."""
    tokens_delivered: int
    """Tokens that are in the log."""
    tokens_dropped: int
    """Tokens lost to ``overflow``."""
    batches_flushed: int
    """Events that carried tokens."""
    state_changes: int
    errors: int
    """Deliveries, attempts at the provider and tools that failed."""
    start_time: float
    first_token_time: float | None
    end_time: float | None
    """None while it runs."""
    last_activity: float
    """The last token, or anything else that happened; exact to within ``flush_interval`` while nothing holds it."""
    buffer_size: int
    """Tokens, and tool events, that wait."""
    buffer_high_water_mark: int
    """The most of them there have been. Tool events do not wait for room, so it may be above ``max_buffer_size``."""
    backpressure_events: int
    """How often somebody had to wait: a producer for room, or the stream for a slow subscriber."""
    subscribers: int
    restarts: int
    """How often its actor was restarted after a crash."""
    time_to_first_token_s: float | None
    """From opening to the first delivery; None before."""
    total_time_s: float
    """From opening to the end, or until now."""
    bytes: int
    """Text delivered, in UTF-8 bytes."""
    tokens_per_second: float
    """Tokens delivered a second, behind the first delivery up to the last one; 0.0 before there are two."""
    bytes_per_second: float
    """The same in UTF-8 bytes of text."""
    inter_token_p50_s: float | None
    """Median time between deliveries, divided by their tokens; over the last 512 deliveries."""
    inter_token_p99_s: float | None
    function_calls: int
    tool_time_s: float
    """Seconds in which at least one tool ran."""
    usage: Usage | None
    """What the provider says of its tokens; while it has not, and if it broke off before, an estimate."""
    usage_is_estimate: bool
    """Also true of what the provider told before the end: it counts what had been said then."""
    cost: Cost | None
    """By the price table; None if that does not know the model."""


class Counters:
    """What a stream counts. Written by its actor only, but for what its integration counts; they survive both."""

    __slots__ = (
        "_gaps",
        "batches",
        "bytes",
        "errors",
        "failed_attempts",
        "first_bytes",
        "first_delivery",
        "first_tokens",
        "function_calls",
        "held",
        "last_activity",
        "last_delivery",
        "restarts",
        "state_changes",
        "tool_errors",
        "tool_time",
        "tools_until",
    )

    def __init__(self, now: float) -> None:
        self.batches = 0
        self.bytes = 0
        self.errors = 0
        self.failed_attempts = 0  # at the provider; written by the integration
        self.function_calls = 0
        self.tool_errors = 0
        self.tool_time = 0.0
        self.tools_until = now  # up to then, `tool_time` has what there was
        self.held = 0
        self.restarts = 0
        self.state_changes = 0
        self.last_activity = now
        self.first_delivery: float | None = None
        self.first_tokens = 0
        self.first_bytes = 0
        self.last_delivery = 0.0
        self._gaps: array[float] | None = None  # a ring

    def delivered(self, tokens: int, size: int, now: float) -> None:
        """Count a batch."""
        gaps = self._gaps
        if gaps is None:
            if self.first_delivery is None:
                self.first_delivery = now
                self.first_tokens = tokens
                self.first_bytes = size
            else:
                self._gaps = array("d", ((now - self.last_delivery) / tokens,))
        elif len(gaps) < _GAPS:
            gaps.append((now - self.last_delivery) / tokens)
        else:
            gaps[(self.batches - 1) % _GAPS] = (now - self.last_delivery) / tokens
        self.last_delivery = self.last_activity = now
        self.batches += 1
        self.bytes += size

    def told(self, event: ToolEvent, now: float) -> None:
        """Count a tool event."""
        self.last_activity = now
        if isinstance(event, ToolCallCompleted):
            self.function_calls += 1
        elif isinstance(event, ToolResult):
            self.tool_errors += event.status in _FAILED
            # Of tools that ran at the same time, the later results add what they took beyond the earlier ones.
            self.tool_time += max(0.0, now - max(now - event.duration_s, self.tools_until))
            self.tools_until = now

    def quantile(self, share: float) -> float | None:
        """The given quantile of the times between tokens."""
        gaps = sorted(self._gaps or ())
        return gaps[min(len(gaps) - 1, int(share * len(gaps)))] if gaps else None


class StreamRecord:
    """Everything of one stream that does not die with an actor."""

    __slots__ = (
        "counters",
        "created_at",
        "created_monotonic",
        "ended_at",
        "ending",
        "feeder",
        "hub",
        "intake",
        "journal",
        "log",
        "on_orphan",
        "options",
        "over",
        "ref",
        "restart",
        "restart_in",
        "rounds",
        "runtime",
        "serial",
        "source",
        "state",
        "stream_id",
    )

    def __init__(
        self,
        runtime: Runtime,
        stream_id: str,
        options: StreamOptions,
        *,
        metadata: Mapping[str, Any],
        on_orphan: OnOrphan,
        restart: Restart,
        journal: Journal | None = None,
        source: Source | None = None,
    ) -> None:
        self.runtime = runtime
        self.stream_id = stream_id
        self.options = options
        self.on_orphan: OnOrphan = on_orphan
        self.restart: Restart = restart
        self.journal = journal
        self.source = source  # where its tokens come from, if not from `process_token`
        self.rounds: list[Outcome] = []  # of a conducted source: what came of each of them, as they ended
        self.serial = 0  # given by the table: tells it from others that have had its id
        self.feeder: ProcessRef | None = None  # what joins another stream to it, and says how it ends
        self.ending: Complete | Fail | None = None  # what its source said last; its actor may have crashed since
        self.ref: ProcessRef | None = None  # the actor that is the stream right now
        self.state = "idle"
        self.restart_in = "idle"  # the state a restarted actor begins in: paused it stays paused
        self.created_at = runtime.clock.time()
        self.created_monotonic = runtime.clock.monotonic()
        self.ended_at: float | None = None  # monotonic
        self.log = StreamLog(stream_id, metadata, options.retain_bytes)
        self.log.measure = self._measure
        self.intake = Intake(stream_id, options, runtime.dispatcher, runtime.clock)
        self.hub = Hub()
        self.counters = Counters(self.created_monotonic)
        self.over = Reply(runtime.dispatcher, f"the end of stream {stream_id!r}")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What comes back in every event."""
        return self.log.metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, Any]) -> None:
        self.log.metadata = metadata

    def conclude(self) -> None:
        """Its terminal event is in the log: tell everybody. Whoever wrote it calls this."""
        self.state = "ended"
        self.log.measure = None
        self.hub.on_release = nothing
        self.hub.announce()
        with contextlib.suppress(queue.Full):
            self.over.set(self.log.terminal)

    @property
    def is_over(self) -> bool:
        """Whether its log has its terminal event."""
        return self.log.terminal is not None

    def outcome(self) -> Outcome:
        """What its source has said so far beside the text, in all its rounds. From any thread; never raises."""
        if self.ending is not None:
            return self.ending.outcome
        source = self.source
        if source is None:
            return Outcome()
        try:
            return all_rounds([*self.rounds[: source.round - 1], source.outcome()])
        except Exception as error:  # whoever asks is writing the terminal event, which must be written
            get_logger(stream_id=self.stream_id).error("outcome_unknown", error=type(error).__name__)
            return Outcome()

    def metrics(self) -> StreamMetrics:
        """What it has done so far, in numbers; once it is over, just what its terminal event says."""
        terminal = self.log.terminal
        if terminal is not None and terminal.metrics is not None:
            return terminal.metrics
        return self._measure()

    def _measure(self, end_time: float | None = None) -> StreamMetrics:
        counters, log = self.counters, self.log
        first = counters.first_delivery
        seconds = counters.last_delivery - first if first is not None else 0.0
        return StreamMetrics(
            start_time=self.created_at,
            first_token_time=None if first is None else self._wall_clock(first),
            end_time=end_time,
            tokens=log.tokens,
            bytes=counters.bytes,
            function_calls=counters.function_calls,
            tool_time_s=counters.tool_time,
            errors=counters.errors + counters.failed_attempts + counters.tool_errors,
            total_time_s=self.runtime.clock.monotonic() - self.created_monotonic,
            time_to_first_token_s=None if first is None else first - self.created_monotonic,
            tokens_per_second=(log.tokens - counters.first_tokens) / seconds if seconds > 0 else 0.0,
            bytes_per_second=(counters.bytes - counters.first_bytes) / seconds if seconds > 0 else 0.0,
        )

    def _wall_clock(self, monotonic: float) -> float:
        return monotonic - self.created_monotonic + self.created_at

    def statistics(self) -> StreamStatistics:
        """A snapshot; from any thread, without asking anybody."""
        counters, intake, metrics = self.counters, self.intake, self.metrics()
        usage, is_estimate, cost = self._bill()
        return StreamStatistics(
            stream_id=self.stream_id,
            state=self.state,
            tokens_processed=intake.accepted,
            tokens_delivered=metrics.tokens,
            tokens_dropped=intake.buffer.dropped_ever,
            batches_flushed=counters.batches,
            state_changes=counters.state_changes,
            errors=metrics.errors,
            start_time=metrics.start_time,
            first_token_time=metrics.first_token_time,
            end_time=metrics.end_time,
            last_activity=self._wall_clock(counters.last_activity),
            buffer_size=intake.size,
            buffer_high_water_mark=intake.buffer.high_water_mark,
            backpressure_events=intake.backpressure_events + counters.held,
            subscribers=self.hub.subscribers,
            restarts=counters.restarts,
            time_to_first_token_s=metrics.time_to_first_token_s,
            total_time_s=metrics.total_time_s,
            bytes=metrics.bytes,
            tokens_per_second=metrics.tokens_per_second,
            bytes_per_second=metrics.bytes_per_second,
            inter_token_p50_s=counters.quantile(0.5),
            inter_token_p99_s=counters.quantile(0.99),
            function_calls=metrics.function_calls,
            tool_time_s=metrics.tool_time_s,
            usage=usage,
            usage_is_estimate=is_estimate,
            cost=cost,
        )

    def _bill(self) -> tuple[Usage | None, bool, Cost | None]:
        """The tokens that the provider counts, whether that is our estimate, and what they cost."""
        terminal, source = self.log.terminal, self.source
        if terminal is not None:
            if source is None or isinstance(terminal, StreamCompleted) or source.builder.is_finished:
                return terminal.usage, False, terminal.cost
            # Broken off: what has been used is billed all the same, though nobody told how much that is.
            usage = terminal.usage
            if usage is None and source.builder.size:
                usage = estimate_usage(count_characters(source.call.input), source.builder.size)
            return usage, usage is not None, terminal.cost
        outcome = self.outcome()
        if source is None or self.ending is not None:
            return outcome.usage, False, outcome.cost
        if outcome.usage is not None:
            return outcome.usage, not source.builder.is_finished, outcome.cost
        asked = count_characters(source.call.input)
        return estimate_usage(asked, source.builder.size), True, outcome.cost


class StreamTable:
    """All records by id. The handler is the one who decides; this survives it, as an ETS table survives its user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, StreamRecord] = {}
        self._replaced: list[StreamRecord] = []  # ended, not settled yet, and another has their id
        self.created = 0
        self.active = 0
        self.completed = 0
        self.failed = 0
        self.cancelled = 0
        self.tokens = 0  # of ended streams

    def add(self, record: StreamRecord) -> None:
        """Enter a record; an ended stream's id can be used again.

        Raises:
            StreamExists: a running stream has that id.
        """
        with self._lock:
            other = self._records.get(record.stream_id)
            if other is not None and other.ended_at is None:
                if not other.is_over:
                    raise StreamExists(record.stream_id)
                self._replaced.append(other)
            self._records.pop(record.stream_id, None)  # so that the dict's order is that of opening
            self._records[record.stream_id] = record
            self.created += 1
            self.active += 1
            record.serial = self.created

    def get(self, stream_id: str) -> StreamRecord:
        """The record with that id, running or ended not long ago.

        Raises:
            StreamNotFound: there is none.
        """
        record = self._records.get(stream_id)
        if record is None:
            raise StreamNotFound(stream_id)
        return record

    def find(self, stream_id: str) -> StreamRecord | None:
        """The same without raising."""
        return self._records.get(stream_id)

    def forget(self, record: StreamRecord) -> None:
        """Drop it, unless its id has been given to another stream since."""
        with self._lock:
            if self._records.get(record.stream_id) is record:
                del self._records[record.stream_id]
            if record in self._replaced:
                self._replaced.remove(record)

    def all(self) -> list[StreamRecord]:
        """All records, oldest first."""
        with self._lock:
            return [*self._replaced, *self._records.values()]
