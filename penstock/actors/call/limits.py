"""The limits of an endpoint: requests and tokens a minute, requests at once, and the queue. Pure.

The time is passed in. Nothing is woken here: `Limits` returns the first waiter in the queue, and its owner wakes it.
Providers count requests and tokens for each API key, so every key has a `Lane` of its own.
"""

from __future__ import annotations

import math
from typing import Final, Generic, TypeVar

from penstock.config.limits import LimitOptions

__all__ = ["FULL", "Lane", "Limits", "MinuteBucket"]

_GRAIN: Final = 1e-9  # of the burst; a smaller shortage counts as none
_BURST: Final = 6  # the burst is a sixth of a minute's amount: that of ten seconds
FULL: Final = -1.0
"""Returned by `Limits.ask` if the queue is full."""
_LONGEST_HOLD: Final = 3600.0  # seconds; a provider that asks for more has miscounted, or means a date
_LONGEST_SPREAD: Final = 5.0  # seconds after a hold over which the waiting requests are spread
_LONGEST_GAP: Final = 0.1  # seconds between two of them

T = TypeVar("T")


class MinuteBucket:
    """Admits ``per_minute`` in a minute, evenly, and a burst at once: by default a sixth of that (at least 1).

    Over any window it admits at most ``per_minute * window / 60 + max(burst, the largest single amount)``. Unlike a
    stream's bucket it can be in debt: usage is known only afterwards, and an overrun delays later requests.

    >>> bucket = MinuteBucket(60, now=0.0)
    >>> bucket.delay(10, now=0.0)
    0.0
    >>> bucket.take(30, now=0.0)
    >>> bucket.delay(1, now=0.0)
    21.0
    """

    __slots__ = ("_grain", "_level", "_rate", "_updated", "burst")

    def __init__(self, per_minute: float, now: float, burst: float | None = None) -> None:
        self.burst = max(1.0, per_minute / _BURST if burst is None else burst)
        self._rate = per_minute / 60
        self._grain = _GRAIN * self.burst
        self._level = self.burst
        self._updated = now

    def delay(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` is available, or until the bucket is full if that is less; 0.0 if it is now."""
        self._refill(now)
        missing = min(amount, self.burst) - self._level
        if missing <= self._grain:
            return 0.0
        seconds = missing / self._rate
        return seconds if now + seconds > now else 0.0  # the clock cannot measure less

    def take(self, amount: float, now: float) -> None:
        """Use ``amount``, even if it is not available; a negative amount is given back."""
        self._refill(now)
        self._level = min(self.burst, self._level - amount)

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(self.burst, self._level + (now - self._updated) * self._rate)
            self._updated = now


class Limits(Generic[T]):
    """The limits of one endpoint, and its queue: first come, first served.

    While there is a queue, a new waiter is queued even if there is room, since the first one has been woken and is
    about to ask.
    """

    __slots__ = ("_requests", "_tokens", "active", "options", "queue", "queue_high_water_mark")

    def __init__(self, options: LimitOptions, now: float) -> None:
        self.options = options
        per_minute, tokens = options.requests_per_minute, options.tokens_per_minute
        self._requests = None if per_minute is None else MinuteBucket(per_minute, now)
        self._tokens = None if tokens is None else MinuteBucket(tokens, now)
        self.active = 0
        self.queue: dict[T, None] = {}  # in the order of arrival; removing from the middle is O(1)
        self.queue_high_water_mark = 0

    @property
    def first(self) -> T | None:
        """The first waiter in the queue; None if it is empty."""
        return next(iter(self.queue), None)

    def ask(self, waiter: T, tokens: int, now: float, held_until: float = 0.0, *, has_place: bool = True) -> float:
        """Admit the waiter and return 0.0, or queue it and return the seconds after which to ask again.

        Returns ``math.inf`` if it has to wait until it is woken, and `FULL` if there is no room in the queue.

        Args:
            waiter: the waiter; asks again when it is woken or its time has come.
            tokens: the estimated number of tokens.
            now: the time in seconds.
            held_until: admit no waiter before this time.
            has_place: False admits no waiter, since a limit that is kept elsewhere does not allow it.
        """
        queue = self.queue
        if queue and next(iter(queue)) != waiter:
            return math.inf if waiter in queue else self._wait(waiter, math.inf)
        delay = max(self.delay(tokens, now), held_until - now)
        if delay <= 0 and not has_place:
            delay = math.inf
        if delay > 0:
            return delay if waiter in queue else self._wait(waiter, delay)
        queue.pop(waiter, None)
        self.active += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return 0.0

    def remove(self, waiter: T) -> None:
        """Remove a waiter from the queue, if it is in there."""
        self.queue.pop(waiter, None)

    def correct(self, estimated: int, used: int, now: float) -> None:
        """Replace ``estimated`` tokens, which were taken, by the ``used`` ones."""
        if self._tokens is not None:
            self._tokens.take(used - estimated, now)

    def is_unused(self, now: float) -> bool:
        """Whether no request is active or queued, and the full burst is available."""
        full = (bucket is None or bucket.delay(bucket.burst, now) == 0.0 for bucket in (self._requests, self._tokens))
        return not self.active and not self.queue and all(full)

    def delay(self, tokens: int, now: float) -> float:
        """Seconds until a request of ``tokens`` is within the limits; ``math.inf`` if another one must end first."""
        limit = self.options.concurrent_streams
        if limit is not None and self.active >= limit:
            return math.inf
        delay = 0.0
        if self._requests is not None:
            delay = self._requests.delay(1, now)
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(tokens, now))
        return delay

    def _wait(self, waiter: T, delay: float) -> float:
        if len(self.queue) >= self.options.max_queue:
            return FULL
        self.queue[waiter] = None
        self.queue_high_water_mark = max(self.queue_high_water_mark, len(self.queue))
        return delay


class Lane(Generic[T]):
    """The requests of one API key at one endpoint: its limits a minute, its queue, and the holds of the provider.

    After a hold the waiting requests are spread over as many seconds as the hold took, at most 5, so that they do not
    arrive in the same instant.

    >>> lane: Lane[str] = Lane(LimitOptions(), now=0.0)
    >>> lane.hold(10, now=0.0)
    >>> [round(lane.ask(name, 0, now=10.0, jitter=0.5), 3) for name in "abc"]
    [0.0, 0.1, inf]
    """

    __slots__ = ("_next_at", "calm_at", "held_until", "limits", "wants_place")

    def __init__(self, options: LimitOptions, now: float) -> None:
        self.limits: Limits[T] = Limits(options, now)
        self.held_until = 0.0
        self.calm_at = 0.0  # the end of the time over which requests are spread after a hold
        self.wants_place = False  # the first waiter waits only for a place that another key's request has
        self._next_at = 0.0

    def hold(self, seconds: float, now: float) -> None:
        """Admit no request for ``seconds``, an hour at most. Never shortens a hold."""
        if seconds > 0:
            until = now + min(seconds, _LONGEST_HOLD)
            if until > self.held_until:
                self.held_until = until
                self.calm_at = until + min(seconds, _LONGEST_SPREAD)

    def ask(self, waiter: T, tokens: int, now: float, *, jitter: float = 0.5, has_place: bool = True) -> float:
        """As `Limits.ask`. ``jitter`` is a random number from 0 to 1."""
        limits = self.limits
        delay = limits.ask(waiter, tokens, now, max(self.held_until, self._next_at), has_place=has_place)
        if limits.first == waiter:
            self.wants_place = delay == math.inf
        if delay == 0.0 and now < self.calm_at:
            gap = min((self.calm_at - now) / (len(limits.queue) + 1), _LONGEST_GAP)
            self._next_at = now + gap * (0.5 + jitter)
        return delay

    def is_blocked(self, tokens: int, now: float) -> bool:
        """Whether a request has to wait even if there is a place for it."""
        return max(self.held_until, self._next_at) > now or self.limits.delay(tokens, now) > 0

    def is_unused(self, now: float) -> bool:
        """Whether a new lane would behave the same."""
        return self.calm_at <= now and self._next_at <= now and self.limits.is_unused(now)
