"""The counters of a stream, and the snapshot of them that users read."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.actors.stream.histograms import GAP_BOUNDS
from penstock.events import Cost, SideEvent, ToolCallCompleted, ToolResult, ToolResultStatus, Usage

__all__ = ["Counters", "StreamStatistics"]

_GAPS: Final = 512  # times between deliveries that are kept
_NO_GAPS: Final[list[int]] = []  # the same for all streams before their second delivery; nothing is added to it
_FAILED: Final[frozenset[ToolResultStatus]] = frozenset({"error", "timeout", "invalid_arguments", "unknown_tool"})


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one stream. Fields that end in ``_s`` are seconds; the other times are Unix times in seconds."""

    stream_id: str
    state: str
    tokens_processed: int
    """Tokens accepted into the buffer."""
    tokens_delivered: int
    """Tokens in the log."""
    tokens_dropped: int
    """Tokens lost to ``overflow``."""
    batches_flushed: int
    """Events that carried tokens."""
    state_changes: int
    errors: int
    """Failed deliveries, provider attempts and tool calls."""
    start_time: float
    first_token_time: float | None
    end_time: float | None
    """None while the stream runs."""
    last_activity: float
    """The last token or other event; exact to within ``flush_interval`` unless the stream is held back."""
    last_token_time: float | None
    """The last delivery of tokens; None before the first."""
    buffer_size: int
    """Buffered tokens and tool events."""
    buffer_high_water_mark: int
    """The largest ``buffer_size`` so far. Tool events do not wait for room, so it may exceed ``max_buffer_size``."""
    backpressure_events: int
    """How often a producer waited for room, or the stream for a slow subscriber."""
    subscribers: int
    restarts: int
    """How often the actor was restarted after a crash."""
    time_to_first_token_s: float | None
    """From opening to the first delivery; None before that."""
    total_time_s: float
    """From opening to the end, or until now."""
    bytes: int
    """Text delivered, in UTF-8 bytes."""
    tokens_per_second: float
    """Tokens delivered after the first delivery, per second up to the last one; 0.0 before the second delivery."""
    bytes_per_second: float
    """The same for UTF-8 bytes of text."""
    inter_token_p50_s: float | None
    """Median time between deliveries, divided by their number of tokens; over the last 512 deliveries."""
    inter_token_p99_s: float | None
    function_calls: int
    tool_time_s: float
    """Seconds during which at least one tool ran."""
    usage: Usage | None
    """The usage that the provider reported; an estimate until then, or if the answer broke off before."""
    usage_is_estimate: bool
    """Also true for usage that was reported before the answer was complete."""
    cost: Cost | None
    """By the price table; None if the model is not in it."""
    position: int | None = None
    """How much of its source has been read, in the source's unit; None if that is not counted. So for the next two."""
    total: int | None = None
    progress: float | None = None
    """``position / total``, 0.0 … 1.0."""
    source_bytes: int = 0
    """Bytes read from the source; after any content coding."""
    source_chunks: int = 0
    """Pieces in which they came."""
    replaced: int = 0
    """Broken UTF-8 sequences of the source, each replaced by U+FFFD."""
    skipped: int = 0
    """Bad lines or events of the source that were skipped."""
    tee_errors: int = 0
    """Copies that were given up (`Stream.tee` with ``on_error="detach"``)."""
    attempts: int = 0
    """Requests to the provider so far; of `race`, `hedge` and `with_retry`, the streams that were tried."""
    hedges_refused: int = 0
    """Further attempts that the budget of `System.hedge` refused."""
    pacing_horizon_s: float | None = None
    """Over how long the text that waits is spread now; None unless ``pacing="adaptive"``. So for the next one."""
    pacing_rate: float | None = None
    """Characters a second that came, over the last second."""
    batch_wait_s: float | None = None
    """How long a token waits for others now; None unless ``batch_size="adaptive"``. So for the next two."""
    busy: float | None = None
    """The share of the time that the stream works, 0.0 … 1.0, over the last half second."""
    mean_batch: float | None = None
    """The mean number of tokens in an event, over the last half second in which there were events."""
    spent: Usage | None = None
    """Of all attempts of `race`, `hedge` and `with_retry` together, also those that lost or failed. Where a provider
    has reported none, it is an estimate. None for other streams."""
    capacity: int | None = None
    """Tokens that may wait in the buffer; None: there is no bound."""
    production_active: bool = False
    """Whether the producer may still push: it has not said its end, and the stream has not ended."""

    @property
    def produced(self) -> int:
        """Tokens that the producer has pushed: those accepted, also if they were dropped later."""
        return self.tokens_processed

    @property
    def consumed(self) -> int:
        """Tokens that have left the buffer and been delivered."""
        return self.tokens_delivered

    @property
    def high_water_mark(self) -> int:
        """The same as ``buffer_high_water_mark``."""
        return self.buffer_high_water_mark

    @property
    def utilisation(self) -> float | None:
        """The share of the buffer that is in use, 0.0 … 1.0; None if the buffer has no bound."""
        return None if self.capacity is None else min(1.0, self.buffer_size / self.capacity)

    @property
    def running_time_s(self) -> float:
        """The same as ``total_time_s``."""
        return self.total_time_s


class Counters:
    """Counters of one stream. Written by its actor, except ``failed_attempts``; they outlive the actor."""

    __slots__ = (
        "_gap_counts",
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
        self.failed_attempts = 0  # provider attempts; written by the integration
        self.function_calls = 0
        self.tool_errors = 0
        self.tool_time = 0.0
        self.tools_until = now  # `tool_time` covers everything up to this time
        self.held = 0
        self.restarts = 0
        self.state_changes = 0
        self.last_activity = now
        self.first_delivery: float | None = None
        self.first_tokens = 0
        self.first_bytes = 0
        self.last_delivery = 0.0
        self._gaps: array[float] | None = None  # a ring
        self._gap_counts = _NO_GAPS  # a histogram, over tokens; made with the first gap

    def delivered(self, tokens: int, size: int, now: float) -> None:
        """Count a delivered batch."""
        gaps = self._gaps
        if gaps is None:
            if self.first_delivery is None:
                self.first_delivery = now
                self.first_tokens = tokens
                self.first_bytes = size
            else:
                gap = (now - self.last_delivery) / tokens
                self._gaps = array("d", (gap,))
                counts = [0] * (len(GAP_BOUNDS) + 1)
                counts[bisect_left(GAP_BOUNDS, gap)] = tokens
                self._gap_counts = counts
        else:
            gap = (now - self.last_delivery) / tokens
            self._gap_counts[bisect_left(GAP_BOUNDS, gap)] += tokens
            if len(gaps) < _GAPS:
                gaps.append(gap)
            else:
                gaps[(self.batches - 1) % _GAPS] = gap
        self.last_delivery = self.last_activity = now
        self.batches += 1
        self.bytes += size

    def counted(self, event: SideEvent, now: float) -> None:
        """Count a tool event."""
        self.last_activity = now
        if isinstance(event, ToolCallCompleted):
            self.function_calls += 1
        elif isinstance(event, ToolResult):
            self.tool_errors += event.status in _FAILED
            # Tools run in parallel: each result adds only the time that earlier results have not covered.
            self.tool_time += max(0.0, now - max(now - event.duration_s, self.tools_until))
            self.tools_until = now

    def quantile(self, share: float) -> float | None:
        """The ``share`` quantile (0 … 1) of the times between tokens; None if there are none."""
        gaps = sorted(self._gaps or ())
        return gaps[min(len(gaps) - 1, int(share * len(gaps)))] if gaps else None

    def gap_counts(self) -> Sequence[int]:
        """The times between tokens by bucket of `GAP_BOUNDS`, once for each token; empty before the second delivery.

        Their sum is the time from the first delivery to the last one.
        """
        return tuple(self._gap_counts)
