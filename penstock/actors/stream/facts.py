"""What a stream says of itself: its statistics, its metrics, and the changes of its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.changes import StateChange, StateChanges
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.messages import Ending
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.statistics import Counters, StreamStatistics
from penstock.config.options import StreamOptions
from penstock.events import Cost, StreamCompleted, StreamMetrics, Usage

__all__ = ["StreamFacts"]


class StreamFacts:
    """The half of `penstock.actors.stream.record.StreamRecord` that only reads it. Any thread; never blocks."""

    __slots__ = ()

    runtime: Runtime
    stream_id: str
    options: StreamOptions
    state: str
    feed: Feed | None
    ending: Ending | None
    log: StreamLog
    intake: Intake
    hub: Hub
    counters: Counters
    changes: StateChanges
    created_at: float
    created_monotonic: float
    source_counters: Callable[[], Mapping[str, Any]] | None
    rhythm: Callable[[float], Mapping[str, Any]] | None

    @property
    def is_over(self) -> bool:
        """Whether the log has its terminal event."""
        return self.log.terminal is not None

    def outcome(self) -> Outcome:
        """Everything the feed has received so far except the text, in all rounds."""
        raise NotImplementedError

    def metrics(self) -> StreamMetrics:
        """The stream's metrics; once it has ended, those of its terminal event."""
        terminal = self.log.terminal
        if terminal is not None and terminal.metrics is not None:
            return terminal.metrics
        return self.measure()

    def measure(self, end_time: float | None = None) -> StreamMetrics:
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

    @property
    def last_token_time(self) -> float | None:
        """When tokens were delivered last, as a Unix time in seconds; None before the first delivery."""
        counters = self.counters
        return None if counters.first_delivery is None else self._wall_clock(counters.last_delivery)

    def state_changes(self) -> tuple[StateChange, ...]:
        """The last 64 changes of its state, oldest first. Any thread; never blocks."""
        return self.changes.read(self.created_at - self.created_monotonic)

    def statistics(self) -> StreamStatistics:
        """A snapshot of the counters. Any thread; never blocks."""
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
            last_token_time=self.last_token_time,
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
            capacity=self.options.max_buffer_size,
            production_active=not self.is_over and self.ending is None,
            **({} if self.rhythm is None else self.rhythm(self.runtime.clock.monotonic())),
            **self._counted_by_feed(),
        )

    def _counted_by_feed(self) -> Mapping[str, Any]:
        if self.source_counters is not None:
            return self.source_counters()
        return {} if self.feed is None else {"attempts": self.feed.attempts}

    def _bill(self) -> tuple[Usage | None, bool, Cost | None]:
        """The usage, whether it is an estimate, and the cost."""
        terminal, feed = self.log.terminal, self.feed
        if terminal is not None:
            if feed is None or isinstance(terminal, StreamCompleted):
                return terminal.usage, False, terminal.cost
            usage, is_estimate = feed.bill(terminal.usage, is_over=True)
            return usage, is_estimate, terminal.cost
        outcome = self.outcome()
        if feed is None or outcome is getattr(self.ending, "outcome", None):
            return outcome.usage, False, outcome.cost
        usage, is_estimate = feed.bill(outcome.usage, is_over=False)
        return usage, is_estimate, outcome.cost
