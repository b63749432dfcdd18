"""The limits of an API key that all nodes of a cluster share: requests and tokens a minute.

A store keeps them (`penstock.ports.LogStore.take`). A ticket takes from them once, before it asks its node's own gate.
While one of a key waits, the later ones of that key wait behind it, so that one of each node asks the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from penstock.actors.runtime.dispatcher import blocking
from penstock.config.limits import LimitOptions
from penstock.errors import StoreError
from penstock.ports import Clock, Limit

__all__ = ["MinuteShares", "Take"]

_BURST: Final = 6  # the burst is a sixth of a minute's amount, as that of one node
_RETRY: Final = 0.01  # seconds; the shortest wait
_ABSENT: Final = object()
FULL: Final = -1.0
"""Returned if too many wait."""

Take = Callable[[Limit, float], float]
"""Takes from a limit: `penstock.ports.LogStore.take`."""


class _Asker:
    """What the limits need to know of a ticket."""

    __slots__ = ("asked_at", "has_requests", "has_tokens", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.has_requests = self.has_tokens = False  # it has taken its share
        self.asked_at = 0.0


class MinuteShares:
    """The shared limits of one endpoint. Any thread; `ask` waits for the store.

    Args:
        take: of the store.
        endpoint: the name of the provider's account and its URL, which are part of the limits' keys.
        options: of one node; all nodes together get as much.
        clock: for those that wait.
    """

    def __init__(self, take: Take, endpoint: str, options: LimitOptions, clock: Clock) -> None:
        self._take = take
        self._endpoint = endpoint
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[object, _Asker] = {}
        self._queues: dict[bytes, dict[object, None]] = {}

    def ask(self, ticket: object, key: bytes, tokens: int, wake: Callable[[], object]) -> float | None:
        """Take a ticket's share.

        Returns 0.0 if it has it, the seconds after which to ask again, `FULL`, or None: ask again when it is woken.
        While the store does not answer, the limits of the node alone apply.
        """
        now = self._clock.monotonic()
        with self._lock:
            known = self._tickets.get(ticket)
            queue = self._queues.get(key, {})
            if known is None:
                if len(queue) > self._options.max_queue:
                    return FULL
                known = self._tickets[ticket] = _Asker(wake)
            known.asked_at = now
            if known.has_requests and known.has_tokens:
                return 0.0
            queue = self._queues.setdefault(key, queue)
            queue[ticket] = None
            self._forget_dead(queue, now)
            if next(iter(queue)) is not ticket:
                return None
        with blocking():
            delay = self._take_share(known, key, tokens)
        if delay <= 0:
            self._leave_queue(ticket, key)
            return 0.0
        return max(delay, _RETRY)

    def _take_share(self, known: _Asker, key: bytes, tokens: int) -> float:
        name = f"{self._endpoint} {key.hex()}"
        options = self._options
        try:
            if not known.has_requests:
                delay = self._take_one(f"{name} requests", options.requests_per_minute, 1.0)
                if delay > 0:
                    return delay
                known.has_requests = True
            delay = self._take_one(f"{name} tokens", options.tokens_per_minute, float(tokens))
        except StoreError:
            known.has_requests = known.has_tokens = True
            return 0.0
        known.has_tokens = delay <= 0
        return delay

    def _take_one(self, key: str, per_minute: int | None, cost: float) -> float:
        if per_minute is None or cost <= 0:
            return 0.0
        burst = max(1.0, per_minute / _BURST)
        return self._take(Limit(key[-256:], per_minute / 60, burst), min(cost, burst))

    def _forget_dead(self, queue: dict[object, None], now: float) -> None:
        """Remove tickets whose owners must be dead, as they have not asked."""
        while queue:
            first = next(iter(queue))
            if now - self._tickets[first].asked_at <= 2 * self._options.queue_timeout + 1:
                return
            del queue[first], self._tickets[first]

    def _leave_queue(self, ticket: object, key: bytes) -> None:
        with self._lock:
            wake = self._next_after(ticket, key)
        if wake is not None:
            wake()

    def _next_after(self, ticket: object, key: bytes) -> Callable[[], object] | None:
        """Take a ticket out of its queue, if it is there; returns what wakes the first one then. Needs the lock."""
        queue = self._queues.get(key, {})
        is_queued = queue.pop(ticket, _ABSENT) is None
        if not queue:
            self._queues.pop(key, None)
            return None
        return self._tickets[next(iter(queue))].wake if is_queued else None

    def remove(self, ticket: object, key: bytes) -> None:
        """Forget a ticket that has left. Harmless if it is not known."""
        with self._lock:  # once for both: a ticket in a queue is always known
            self._tickets.pop(ticket, None)
            wake = self._next_after(ticket, key)
        if wake is not None:
            wake()
