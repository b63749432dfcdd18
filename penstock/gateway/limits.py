"""How much each key may use. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Callable

from penstock.actors.call.limits import MinuteBucket
from penstock.gateway.keys import Key
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["KeyLimits"]


class KeyLimits:
    """The use of every key: requests and tokens a minute, and streams at once.

    A minute's requests may come at once. What is used comes back evenly, so that it is less than the double in any
    minute. A limit that is changed counts from the next request on, also on a connection that has lasted longer.

    Args:
        present: a key as it is now; it may be called with one as it was.
    """

    def __init__(self, present: Callable[[Key], Key] = lambda key: key) -> None:
        self._present = present
        self._requests: dict[str, tuple[int, MinuteBucket]] = {}  # with the limit that it has been made for
        self._tokens: dict[str, tuple[int, MinuteBucket]] = {}

    def admit(self, key: Key, now: float) -> None:
        """Count a request.

        Raises:
            RequestRefused: there were too many in the last minute, or the key's streams used too many tokens (429).
        """
        key = self._present(key)
        if key.requests_per_minute is not None:
            bucket = self._bucket(self._requests, key.id, key.requests_per_minute, now)
            if delay := bucket.delay(1, now):
                raise _too_many(f"{key.requests_per_minute} requests a minute", delay)
            bucket.take(1, now)
        if key.tokens_per_minute is not None:
            bucket = self._bucket(self._tokens, key.id, key.tokens_per_minute, now)
            if delay := bucket.delay(1, now):
                raise _too_many(f"{key.tokens_per_minute} tokens a minute", delay)

    def admit_stream(self, key: Key, running: Callable[[], int]) -> None:
        """Raise `RequestRefused` if the key has as many running streams as it may have (429).

        Args:
            key: the key.
            running: how many it has; called only if that is limited.
        """
        key = self._present(key)
        if key.streams is not None and running() >= key.streams:
            raise _too_many(f"{key.streams} streams at once", 1.0)

    def used(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of a stream that has ended. An overrun delays later requests."""
        key = self._present(key)
        if key.tokens_per_minute is not None and tokens:
            self._bucket(self._tokens, key.id, key.tokens_per_minute, now).take(tokens, now)

    def _bucket(self, buckets: dict[str, tuple[int, MinuteBucket]], key_id: str, rate: int, now: float) -> MinuteBucket:
        known = buckets.get(key_id)
        if known is not None and known[0] == rate:
            return known[1]
        bucket = MinuteBucket(rate, now, burst=rate)
        if known is not None:  # the limit has been changed: what was used still counts, and comes back no later
            before, old = known
            bucket.take(old.delay(before, now) / 60 * min(before, rate), now)
        buckets[key_id] = rate, bucket
        return bucket


def _too_many(what: str, delay: float) -> RequestRefused:
    return RequestRefused(
        Problem(
            status=429,
            type="rate_limit_error",
            code="rate_limit_exceeded",
            message=f"This key may use {what}.",
            retry_after=delay,
        )
    )
