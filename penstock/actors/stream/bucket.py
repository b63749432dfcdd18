"""The token bucket that keeps a stream's output under its rate. Pure: the time is passed in."""

from __future__ import annotations

from typing import Final

__all__ = ["TokenBucket"]

_GRAIN: Final = 1e-9  # tokens; a smaller shortage counts as none
_DEBT: Final = 1e-3  # tokens


class TokenBucket:
    """Admits ``rate`` tokens a second, and at most ``capacity`` at once.

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
        """Seconds until there is room for ``tokens`` (at most ``capacity``); 0.0 if there is room now."""
        self._refill(now)
        missing = min(tokens, self.capacity) - self._level
        if missing <= _GRAIN:
            return 0.0
        seconds = missing / self.rate
        return seconds if now + seconds > now else 0.0  # the clock cannot measure less

    def room(self, now: float) -> int:
        """How many tokens there is room for now.

        >>> TokenBucket(rate=10.0, capacity=5, now=0.0).room(now=0.0)
        5
        """
        self._refill(now)
        return int(self._level + _GRAIN)  # the most that it may be in debt is less than a token

    def take(self, tokens: int, now: float) -> None:
        """Take ``tokens`` out of the bucket. If it has fewer, it is empty afterwards and not in debt.

        Only a shortage that `delay` ignored as too small is paid back, so that many of them do not add up.
        """
        self._refill(now)
        self._level = max(-_DEBT, self._level - tokens)

    def change(self, rate: float, capacity: int, now: float) -> None:
        """Change the rate and the capacity. What has been used stays used."""
        self._refill(now)
        self._level = min(float(capacity), self._level)
        self.rate = rate
        self.capacity = capacity

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(float(self.capacity), self._level + (now - self._updated) * self.rate)
            self._updated = now
