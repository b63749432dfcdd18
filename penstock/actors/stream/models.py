"""What all streams of one provider and model have in common: counts, and histograms of their times."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.actors.stream.histograms import (
    DURATION_BOUNDS,
    GAP_BOUNDS,
    TTFT_BOUNDS,
    Histogram,
    HistogramSnapshot,
)
from penstock.actors.stream.record import StreamRecord
from penstock.events import StreamCompleted, StreamFailed, TerminalEvent

__all__ = ["ModelKey", "ModelStatistics", "ModelTotals"]

ModelKey = tuple[str, str]
"""A provider's name and a model's, as it was asked for."""

_MANY: Final = 256  # callers may name any model
_OTHER: Final[ModelKey] = ("other", "other")


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The totals over all streams of one provider and model, running and ended. The counts never decrease."""

    provider: str
    """The provider's name; ``""`` for streams that no provider feeds; ``"other"`` beyond 256 pairs."""
    model: str
    """The model that was asked for; ``""`` and ``"other"`` likewise."""
    running: int
    completed: int
    failed: int
    cancelled: int
    tokens: int
    """Tokens delivered, with those of running streams."""
    input_tokens: int
    """Tokens of the prompts, as the providers reported them; of ended streams."""
    cost_usd: float
    """What ended streams cost, in US dollars; see `Cost`."""
    time_to_first_token: HistogramSnapshot
    """Seconds from a stream's opening to its first delivery."""
    inter_token: HistogramSnapshot
    """Seconds between deliveries divided by their tokens, counted once for each token."""
    duration: HistogramSnapshot
    """Seconds from opening to end, of ended streams."""


class _ModelSum:
    """The sums of one key."""

    __slots__ = (
        "cancelled", "completed", "cost", "duration", "failed", "gaps", "input_tokens", "running", "tokens", "ttft",
    )  # fmt: skip

    def __init__(self) -> None:
        self.running = self.completed = self.failed = self.cancelled = self.tokens = self.input_tokens = 0
        self.cost = 0.0
        self.ttft = Histogram(TTFT_BOUNDS)
        self.gaps = Histogram(GAP_BOUNDS)
        self.duration = Histogram(DURATION_BOUNDS)

    def copy(self) -> _ModelSum:
        made = _ModelSum()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(made, name, value.copy() if isinstance(value, Histogram) else value)
        return made

    def add_times(self, record: StreamRecord) -> None:
        """Add the tokens of a stream and when they came. Those of a derived stream are its parents' tokens."""
        if record.parents:
            return
        self.tokens += record.log.tokens
        counters = record.counters
        if counters.first_delivery is not None:
            self.ttft.add(counters.first_delivery - record.created_monotonic)
            counts = counters.gap_counts()
            if counts:
                self.gaps.merge(counts, counters.last_delivery - counters.first_delivery)

    def add_end(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """Add how a stream ended, and what it used; what a derived stream has used, its parents have."""
        kind = terminal.__class__
        if kind is StreamCompleted:
            self.completed += 1
        elif kind is StreamFailed:
            self.failed += 1
        else:
            self.cancelled += 1
        if record.ended_at is not None:
            self.duration.add(record.ended_at - record.created_monotonic)
        if record.parents:
            return
        usage, cost = terminal.usage, terminal.cost
        self.input_tokens += 0 if usage is None else usage.input_tokens or 0
        if cost is not None and cost.currency == "USD":
            self.cost += cost.amount

    def snapshot(self, key: ModelKey) -> ModelStatistics:
        return ModelStatistics(
            provider=key[0],
            model=key[1],
            running=self.running,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            tokens=self.tokens,
            input_tokens=self.input_tokens,
            cost_usd=self.cost,
            time_to_first_token=self.ttft.snapshot(),
            inter_token=self.gaps.snapshot(),
            duration=self.duration.snapshot(),
        )


class ModelTotals:
    """The sums over ended streams. The table of streams guards them by its lock."""

    def __init__(self, sums: dict[ModelKey, _ModelSum] | None = None) -> None:
        self._sums = {} if sums is None else sums

    def _of(self, key: ModelKey) -> _ModelSum:
        found = self._sums.get(key)
        if found is None:
            if len(self._sums) >= _MANY:
                key = _OTHER
            found = self._sums.setdefault(key, _ModelSum())
        return found

    def add_ended(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """Add a stream that ends now: its end to the model asked last, its tokens to the one that began to answer."""
        self._of(record.source()).add_times(record)
        self._of(record.asked()).add_end(record, terminal)

    def add_running(self, record: StreamRecord) -> None:
        """Add a stream that runs."""
        found = self._of(record.source())
        found.running += 1
        found.add_times(record)

    def copy(self) -> ModelTotals:
        """Sums that can be changed without an effect on these."""
        return ModelTotals({key: one.copy() for key, one in self._sums.items()})

    def snapshot(self) -> tuple[ModelStatistics, ...]:
        """The statistics, in the order in which the pairs were first seen."""
        return tuple(one.snapshot(key) for key, one in self._sums.items())
