"""The last minutes of some numbers, one point for each second. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isnan, nan
from typing import Any, Final

__all__ = ["LENGTH", "Series"]

LENGTH: Final = 900
"""Points, one for each second."""


class Series:
    """Several numbers a second, in rings of `LENGTH`.

    Args:
        names: of the numbers.

    >>> series = Series(("speed",))
    >>> series.add(100, [1.0])
    >>> series.add(103, [None])
    >>> series.add(104, [2.5])
    >>> series.snapshot()
    {'end': 104, 'values': {'speed': [1, None, None, None, 2.5]}}
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rings = [array("d", bytes(8 * LENGTH)) for _ in names]
        self._end: int | None = None
        self._count = 0

    @property
    def end(self) -> int | None:
        """The second of the newest point; None: there is none."""
        return self._end

    def add(self, second: int, values: Sequence[float | None]) -> None:
        """Add the point of a second, in whole Unix time. Seconds that were left out get no values.

        A second that is there already, as after the clock was set back by little, is replaced if it is the newest one,
        and else ignored. A clock that was set back by more than a minute begins anew.
        """
        end = self._end
        if end is not None and end - 60 > second:
            end, self._count = None, 0
        if end is not None and second < end:
            return
        steps = 1 if end is None else second - end
        for missed in range(max(1, steps - LENGTH), steps):
            self._put(second - steps + missed, [None] * len(values))
        self._put(second, values)
        self._end = second
        self._count = min(LENGTH, self._count + steps)

    def _put(self, second: int, values: Sequence[float | None]) -> None:
        for ring, value in zip(self._rings, values, strict=True):
            ring[second % LENGTH] = nan if value is None else value

    def clear(self) -> None:
        """Forget all points."""
        self._end, self._count = None, 0

    def last(self) -> list[float | int | None]:
        """The values of the newest point."""
        return [None if self._end is None else _short(ring[self._end % LENGTH]) for ring in self._rings]

    def snapshot(self) -> dict[str, Any]:
        """``end``: the second of the last point; ``values``: all points by name, oldest first. None: no value."""
        end = self._end
        if end is None:
            return {"end": None, "values": {name: [] for name in self.names}}
        seconds = range(end - self._count + 1, end + 1)
        return {
            "end": end,
            "values": {
                name: [_short(ring[second % LENGTH]) for second in seconds]
                for name, ring in zip(self.names, self._rings, strict=True)
            },
        }


def _short(value: float) -> float | int | None:
    """A number without a fraction of zero, which is shorter in JSON."""
    if isnan(value):
        return None
    return int(value) if value == int(value) else value
