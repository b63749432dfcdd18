"""How much of the waiting text a stream shows at each tick, if its pacing is adaptive. Pure: the time is passed in.

Providers send text in bursts. The text of a burst is spread over the time until the next one is expected: over a
*horizon*, which is a little longer than the longest recent pause. The horizon is bounded, and each character has a
deadline, so no text is held longer than ``max_lag`` and a tick.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

__all__ = ["TICK", "Pacer"]

TICK: Final = 1 / 30
"""Seconds from one piece to the next."""

_MEMORY: Final = 4.0  # seconds in which a pause is forgotten
_MARGIN: Final = 1.25  # of the horizon over the pause
_SHORTEST: Final = 0.1  # seconds; the shortest horizon
_AVERAGE: Final = 1.0  # seconds over which the rate is averaged
_LEAST: Final = 4  # characters; a shorter piece waits
_DEBT: Final = 12.0  # characters that a piece may be ahead, as a token is not divided


class Pacer:
    """The pace of one stream: ``look`` at what waits, ask for the ``piece``, say what was ``gave``-n.

    Args:
        max_lag: seconds that a character may wait, at least 0.1.

    >>> pacer = Pacer(max_lag=1.0)
    >>> pacer.look(300, now=0.0)
    >>> piece = pacer.piece(now=0.0)
    >>> pacer.gave(piece)
    >>> piece, pacer.piece(now=0.01)  # the next tick has not come
    (252, 0)
    """

    __slots__ = (
        "_carry",
        "_first",
        "_last",
        "_looked",
        "_pause",
        "_segments",
        "_sum",
        "_summed",
        "max_lag",
        "ready_at",
        "waiting",
    )

    def __init__(self, max_lag: float) -> None:
        self.max_lag = max_lag
        self.ready_at = -math.inf
        """When the next piece may be given: a tick after the last one."""
        self.waiting = 0
        """How many characters waited at the last look, without what was given since."""
        self._segments: deque[list[Any]] = deque()  # what waits: when it came, and its characters
        self._looked = 0.0
        self._first: float | None = None  # the first arrival
        self._last = 0.0  # the last one
        self._pause = 0.0
        self._sum = 0.0  # characters that came, each forgotten within `_AVERAGE`; as of `_summed`
        self._summed = 0.0
        self._carry = 0.0  # of earlier pieces, that were not whole characters or too short

    @property
    def horizon(self) -> float:
        """Over how many seconds the text that waits is spread now: 0.1 … ``max_lag``."""
        return min(max(_MARGIN * self._pause, _SHORTEST), self.max_lag)

    def rate(self, now: float) -> float:
        """The characters a second that came, averaged over the last second or the shorter time since the first one."""
        if self._first is None:
            return 0.0
        weight = 1.0 - math.exp(-(now - self._first + TICK) / _AVERAGE)
        return self._sum * math.exp(-(now - self._summed) / _AVERAGE) / weight

    def look(self, waiting: int, now: float) -> None:
        """Note that so many characters wait now. Fewer than were known: the oldest of them are gone."""
        known = self.waiting
        if waiting > known:
            # What came since the last look counts as of then, so that nothing is late; where nothing waited, as of now.
            self._segments.append([self._looked if known else now, waiting - known])
            self._note_arrival(waiting - known, now)
            if not known:
                self.ready_at = max(self.ready_at, now)
            self.waiting = waiting
        elif waiting < known:
            self._forget(known - waiting)
        self._looked = now

    def _note_arrival(self, characters: int, now: float) -> None:
        if self._first is None:
            self._first = now
        else:
            gap = now - self._last
            self._pause = max(gap, self._pause * math.exp(-gap / _MEMORY))
        self._last = now
        self._sum = self._sum * math.exp(-(now - self._summed) / _AVERAGE) + characters
        self._summed = now

    def piece(self, now: float) -> int:
        """How many characters to give now; 0 if it is not time yet, or the piece would be too short."""
        if now < self.ready_at or not self._segments:
            return 0
        horizon, waiting = self.horizon, self.waiting
        since = min(max(TICK, now - self.ready_at + TICK), horizon)  # longer than a tick if the last one was late
        rate = self.rate(now)
        self._carry += rate * since + (waiting - rate * horizon / 2) * since / horizon
        self.ready_at = now + TICK
        needed, due, total = 0.0, 0, 0
        for arrival, characters in self._segments:
            total += characters
            ticks = (arrival + horizon - now) / TICK
            if ticks < 1:
                due = total
            needed = max(needed, total / max(1.0, ticks))
        wanted = min(int(max(self._carry, needed)), waiting)
        return 0 if wanted < _LEAST and not due else max(wanted, due)

    def gave(self, characters: int) -> None:
        """Note that so many of the characters that waited have been given."""
        self._carry = max(self._carry - characters, -_DEBT)
        self._forget(characters)

    def _forget(self, characters: int) -> None:
        segments = self._segments
        left = characters
        while left > 0 and segments:
            first = segments[0]
            gone = min(left, first[1])
            first[1] -= gone
            left -= gone
            if not first[1]:
                segments.popleft()
        self.waiting = max(0, self.waiting - characters)
        if not segments:
            self._carry = 0.0

    def counters(self, now: float) -> dict[str, float]:
        """The fields of `StreamStatistics` that are of the pacing."""
        return {"pacing_horizon_s": self.horizon, "pacing_rate": self.rate(now)}
