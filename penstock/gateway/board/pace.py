"""What has happened lately: differences of counters that only grow. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import exp
from typing import Final, TypeAlias

import msgspec

from penstock.actors.stream.histograms import HistogramSnapshot

__all__ = ["LastMinute", "ModelCounts", "ModelPace", "Speed", "settling", "short"]

_WINDOW: Final = 60.0  # seconds
_SLACK: Final = 1.0  # seconds by which a window may be too short
_SETTLING: Final = 2.0  # seconds

Key: TypeAlias = tuple[str, str]
"""A provider's name and a model's."""


class ModelCounts(msgspec.Struct, frozen=True, gc=False):
    """What has been counted of one provider and model until a moment; it never decreases."""

    tokens: int
    completed: int
    failed: int
    cost: float
    ttft: tuple[int, ...]
    gaps: tuple[int, ...]


class ModelPace(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened in a window of time. Quantiles are None where nothing has.

    Attributes:
        seconds: how long the window is.
        tokens_per_s: tokens delivered, for each second.
        completed, failed: streams that ended so.
        cost_per_h: US dollars an hour, at the rate of the window.
        ttft_p50, ttft_p95, gap_p95: seconds.
    """

    seconds: float
    tokens_per_s: float
    completed: int
    failed: int
    cost_per_h: float
    ttft_p50: float | None
    ttft_p95: float | None
    gap_p95: float | None


class LastMinute:
    """Keeps the totals of the last minute, and says what has happened since.

    Args:
        ttft_bounds, gap_bounds: of the histograms.
    """

    def __init__(self, ttft_bounds: tuple[float, ...], gap_bounds: tuple[float, ...]) -> None:
        self._ttft_bounds = ttft_bounds
        self._gap_bounds = gap_bounds
        self._samples: deque[tuple[float, Mapping[Key, ModelCounts]]] = deque()

    def add(self, now: float, totals: Mapping[Key, ModelCounts]) -> None:
        """Take the totals of a moment, on a clock that does not go back."""
        self._samples.append((now, totals))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:
            self._samples.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._samples.clear()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The providers and models of the newest sample."""
        return tuple(self._samples[-1][1]) if self._samples else ()

    def recent(self, keys: Iterable[Key] | None = None, within: float = _WINDOW, *, fill: bool = False) -> ModelPace:
        """What has happened with some providers and models together (None: all) in the last ``within`` seconds.

        The window is shorter if there are no samples of so long ago; with ``fill``, quantiles are then those of all
        times, so that there are some at once.
        """
        if not self._samples:
            return _NOTHING
        now, last = self._samples[-1]
        then, first = self._samples[0]
        for moment, totals in reversed(self._samples):
            if moment <= now - within:
                then, first = moment, totals
                break
        wanted = last.keys() if keys is None else [key for key in keys if key in last]
        tokens = completed = failed = 0
        cost = 0.0
        ttft = [0] * (len(self._ttft_bounds) + 1)
        gaps = [0] * (len(self._gap_bounds) + 1)
        for key in wanted:
            one, old = last[key], first.get(key)
            if old is None:
                old = _none_of(one)
            tokens += one.tokens - old.tokens
            completed += one.completed - old.completed
            failed += one.failed - old.failed
            cost += one.cost - old.cost
            if fill and now - then < within - _SLACK:
                old = _none_of(one)
            _add_up(ttft, one.ttft, old.ttft)
            _add_up(gaps, one.gaps, old.gaps)
        seconds = now - then
        first_tokens = HistogramSnapshot(self._ttft_bounds, tuple(ttft), 0.0)
        return ModelPace(
            seconds=seconds,
            tokens_per_s=max(0, tokens) / seconds if seconds > 0 else 0.0,
            completed=completed,
            failed=failed,
            cost_per_h=max(0.0, cost) / seconds * 3600 if seconds > 0 else 0.0,
            ttft_p50=first_tokens.quantile(0.5),
            ttft_p95=first_tokens.quantile(0.95),
            gap_p95=HistogramSnapshot(self._gap_bounds, tuple(gaps), 0.0).quantile(0.95),
        )


_NOTHING: Final = ModelPace(
    seconds=0.0,
    tokens_per_s=0.0,
    completed=0,
    failed=0,
    cost_per_h=0.0,
    ttft_p50=None,
    ttft_p95=None,
    gap_p95=None,
)


def _none_of(totals: ModelCounts) -> ModelCounts:
    return ModelCounts(0, 0, 0, 0.0, (0,) * len(totals.ttft), (0,) * len(totals.gaps))


def _add_up(into: list[int], now: Sequence[int], before: Sequence[int]) -> None:
    for place, (one, old) in enumerate(zip(now, before, strict=True)):
        if one > old:
            into[place] += one - old


class Speed:
    """The present speed of something that is counted, averaged over about two seconds.

    Attributes:
        shown: the speed that was shown last; it follows only differences of a twentieth, so that it changes less often.

    >>> speed = Speed(100)
    >>> [round(speed.after(0.5, 100 + 10 * time, settling(0.5)), 1) for time in (1, 2, 3)]
    [20.0, 20.0, 20.0]
    >>> round(speed.after(2.0, 130, settling(2.0)), 1)
    7.4
    """

    __slots__ = ("_count", "_speed", "shown")

    def __init__(self, count: int) -> None:
        self._count = count
        self._speed: float | None = None
        self.shown = 0.0

    def after(self, seconds: float, count: int, weight: float) -> float:
        """Take the count of a moment, so many seconds after the last one; returns the speed that is shown.

        Args:
            seconds: more than 0.
            count: never less than before.
            weight: `settling` of the seconds.
        """
        latest = (count - self._count) / seconds
        before = self._speed
        self._count = count
        self._speed = now = latest if before is None else before + (latest - before) * weight
        shown = self.shown
        if not -shown < 20 * (now - shown) < shown:
            self.shown = now
        return self.shown


def settling(seconds: float) -> float:
    """How much the speed in the last ``seconds`` weighs, 0 … 1."""
    return 1.0 - exp(-seconds / _SETTLING)


def short(value: float | None, digits: int = 3) -> float | int | None:
    """A number with as few digits as a table shows, which then changes less often; None stays None.

    >>> [short(value) for value in (0.0, 0.04321, 3.14159, 27.6, 1234.5, None)]
    [0, 0.0432, 3.14, 27.6, 1234, None]
    """
    if value is None:
        return None
    if value >= 10 ** (digits - 1):
        return round(value)
    found = float(f"{value:.{digits}g}")
    return int(found) if found == int(found) else found
