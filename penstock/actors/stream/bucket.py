"""The token bucket that keeps a stream's output under its rate. Pure: the time is passed in."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

_GRAIN: Final = 1e-9  # tokens that are as good as there
_DEBT: Final = 1e-3


class TokenBucket:
    """Lets ``rate`` tokens a second through, and at most ``capacity`` at once.

    It starts full, so over any window the output is at most ``rate * window + capacity``.

    >>> bucket = TokenBucket(rate=10.0, capacity=5, now=0.0)
    >>> bucket.delay(5, now=0.0)
    0.0
    >>> bucket.take(5, now=0.0)
    >>> bucket.delay(5, now=0.0)
    0.5
    """

    __slots__ = ("_level", "_updated", "capacity", "rate")

    def __init__(self, rate: float, capacity: int, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = float(capacity)
        self._updated = now

    def delay(self, tokens: int, now: float) -> float:
        """Seconds until there is room for ``tokens`` (at most ``capacity``); 0.0 if there is now."""
        self._refill(now)
        missing = min(tokens, self.capacity) - self._level
        if missing <= _GRAIN:
            return 0.0
        seconds = missing / self.rate
        return seconds if now + seconds > now else 0.0  # a clock cannot see less

    def take(self, tokens: int, now: float) -> None:
        """Use room for ``tokens``, whether it is there or not; what is forced leaves the bucket empty, not in debt.

        Only what `delay` overlooked is paid back, so that many small mistakes do not add up.
        """
        self._refill(now)
        self._level = max(-_DEBT, self._level - tokens)

    def change(self, rate: float, capacity: int, now: float) -> None:
        """Go on with another rate and capacity; what had been used stays used."""
        self._refill(now)
        self._level = min(float(capacity), self._level)
        self.rate = rate
        self.capacity = capacity

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(float(self.capacity), self._level + (now - self._updated) * self.rate)
            self._updated = now
