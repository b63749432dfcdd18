"""Whose turn it is at a provider: requests and tokens a minute, requests at once, and the queue. Pure.

The time is passed in. Nobody is woken here: `Limits` says who is first, and whoever owns it tells him.
"""

from __future__ import annotations

import math
from typing import Final, Generic, TypeVar

from penstock.config.limits import LimitOptions

__all__ = ["FULL", "Limits", "MinuteBucket"]

_GRAIN: Final = 1e-9  # of the limit: what is as good as there
_BURST: Final = 6  # the burst is this part of a minute's worth: ten seconds'
FULL: Final = -1.0
"""What `Limits.ask` answers if the queue has no room."""

T = TypeVar("T")


class MinuteBucket:
    """Lets ``per_minute`` through in a minute, evenly, and a burst of a sixth of that (at least 1) before.

    Over any window what it admits is at most ``per_minute * window / 60 + max(burst, the largest single amount)``.
    Unlike a stream's bucket it can be in debt: what is used is known only afterwards, and what was used too much is
    waited for.

    >>> bucket = MinuteBucket(60, now=0.0)
    >>> bucket.delay(10, now=0.0)
    0.0
    >>> bucket.take(30, now=0.0)
    >>> bucket.delay(1, now=0.0)
    21.0
    """

    __slots__ = ("_grain", "_level", "_rate", "_updated", "burst")

    def __init__(self, per_minute: float, now: float) -> None:
        self.burst = max(1.0, per_minute / _BURST)
        self._rate = per_minute / 60
        self._grain = _GRAIN * self.burst
        self._level = self.burst
        self._updated = now

    def delay(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` may pass, or until the bucket is full if it is more than that; 0.0 if now."""
        self._refill(now)
        missing = min(amount, self.burst) - self._level
        if missing <= self._grain:
            return 0.0
        seconds = missing / self._rate
        return seconds if now + seconds > now else 0.0  # a clock cannot see less

    def take(self, amount: float, now: float) -> None:
        """Use ``amount``, there or not; a negative one gives back."""
        self._refill(now)
        self._level = min(self.burst, self._level - amount)

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(self.burst, self._level + (now - self._updated) * self._rate)
            self._updated = now


class Limits(Generic[T]):
    """The limits of one endpoint, and those who wait, first come, first served.

    Nobody overtakes: while anybody waits, a new one queues even where
    there would be room, since the first has been told and is about to ask.
    """

    __slots__ = ("_requests", "_tokens", "active", "options", "queue", "queue_high_water_mark")

    def __init__(self, options: LimitOptions, now: float) -> None:
        self.options = options
        per_minute, tokens = options.requests_per_minute, options.tokens_per_minute
        self._requests = None if per_minute is None else MinuteBucket(per_minute, now)
        self._tokens = None if tokens is None else MinuteBucket(tokens, now)
        self.active = 0
        self.queue: dict[T, None] = {}  # in the order of coming; leaving from the middle is O(1)
        self.queue_high_water_mark = 0

    @property
    def first(self) -> T | None:
        """Who is to ask next."""
        return next(iter(self.queue), None)

    def ask(self, who: T, tokens: int, now: float, held_until: float = 0.0) -> float:
        """Let it in if it is its turn: 0.0. Otherwise it is in the queue, and the answer is when to ask again.

        ``math.inf``: when told. `FULL`: there is no room in the queue.

        Args:
            who: asks once, and again whenever it is told or its time has come.
            tokens: how many it will probably use.
            now: seconds.
            held_until: nobody is let in before.
        """
        queue = self.queue
        if queue and next(iter(queue)) != who:
            return math.inf if who in queue else self._wait(who, math.inf)
        delay = max(self._delay(tokens, now), held_until - now)
        if delay > 0:
            return delay if who in queue else self._wait(who, delay)
        queue.pop(who, None)
        self.active += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return 0.0

    def give_up(self, who: T) -> None:
        """Leave the queue, if it is there."""
        self.queue.pop(who, None)

    def correct(self, estimated: int, used: int, now: float) -> None:
        """It used ``used`` tokens where ``estimated`` were taken."""
        if self._tokens is not None:
            self._tokens.take(used - estimated, now)

    def is_unused(self, now: float) -> bool:
        """Whether nobody is in or waits, and all that may be used at once is there."""
        full = (bucket is None or bucket.delay(bucket.burst, now) == 0.0 for bucket in (self._requests, self._tokens))
        return not self.active and not self.queue and all(full)

    def _delay(self, tokens: int, now: float) -> float:
        limit = self.options.concurrent_streams
        if limit is not None and self.active >= limit:
            return math.inf
        delay = 0.0
        if self._requests is not None:
            delay = self._requests.delay(1, now)
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(tokens, now))
        return delay

    def _wait(self, who: T, delay: float) -> float:
        if len(self.queue) >= self.options.max_queue:
            return FULL
        self.queue[who] = None
        self.queue_high_water_mark = max(self.queue_high_water_mark, len(self.queue))
        return delay
