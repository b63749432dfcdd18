"""Histograms with fixed bounds: counts that can be added up over streams and models. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["DURATION_BOUNDS", "GAP_BOUNDS", "TTFT_BOUNDS", "Histogram", "HistogramSnapshot"]

TTFT_BOUNDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
"""Seconds to the first token; up to 10 s those of OpenTelemetry's ``gen_ai.server.time_to_first_token``."""
GAP_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Seconds between tokens; 0.01 to 2.5 s are those of OpenTelemetry's ``gen_ai.server.time_per_output_token``."""
DURATION_BOUNDS: Final = (*(round(0.01 * 2**power, 2) for power in range(14)), 163.84, 327.68, 655.36)
"""Seconds that a stream takes; up to 81.92 s those of OpenTelemetry's durations."""


class HistogramSnapshot(msgspec.Struct, frozen=True):
    """The counts of a histogram at one moment.

    Attributes:
        bounds: the upper bound of each bucket but the last, which has none; a value equal to a bound is in its bucket.
        counts: of the values in each bucket; one more than there are bounds. They are not cumulative.
        sum: of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """About the ``share`` quantile (0 … 1), by interpolation within its bucket; None if there are no values.

        A quantile in the last bucket is reported as the largest bound. This is how Prometheus computes it.

        >>> HistogramSnapshot((1.0, 2.0), (0, 4, 0), 6.0).quantile(0.5)
        1.5
        """
        count = self.count
        if not count:
            return None
        rank, below = share * count, 0
        for place, bound in enumerate(self.bounds):
            here = self.counts[place]
            if here and below + here >= rank:
                low = self.bounds[place - 1] if place else 0.0
                return low + (bound - low) * max(0.0, rank - below) / here
            below += here
        return self.bounds[-1]

    def plus(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """The values of both. They must have the same bounds."""
        assert self.bounds == other.bounds
        counts = tuple(one + more for one, more in zip(self.counts, other.counts, strict=True))
        return HistogramSnapshot(self.bounds, counts, self.sum + other.sum)


class Histogram:
    """Counts values in buckets. One thread writes at a time."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...], counts: Sequence[int] = (), total: float = 0.0) -> None:
        self.bounds = bounds
        self.counts = list(counts) or [0] * (len(bounds) + 1)
        self.sum = total

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Add the counts of another histogram with the same bounds, and the sum of its values."""
        self.counts = [one + more for one, more in zip(self.counts, counts, strict=True)]
        self.sum += total

    def copy(self) -> Histogram:
        """A histogram with the same counts."""
        return Histogram(self.bounds, self.counts, self.sum)

    def snapshot(self) -> HistogramSnapshot:
        """The counts at this moment."""
        return HistogramSnapshot(self.bounds, tuple(self.counts), self.sum)
