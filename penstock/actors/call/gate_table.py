"""The gates of all endpoints of a system, and the retry budget that they share."""

from __future__ import annotations

import threading
from typing import Final
from urllib.parse import urlsplit

from penstock.actors.call.budget import RetryBudget
from penstock.actors.call.gate import EndpointStatistics, Gate
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.ports import Clock

__all__ = ["GateTable", "SharedRetryBudget", "clean_url"]

_MANY_GATES: Final = 1024  # URLs come from callers too: above this number, unused gates are dropped


class SharedRetryBudget:
    """The budget of retries of a whole system; see `penstock.actors.call.budget`."""

    def __init__(self, clock: Clock, options: RetryBudgetOptions) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._budget = RetryBudget(options)
        self.granted = 0
        self.refused = 0

    def note_request(self) -> None:
        """A request is made for the first time."""
        with self._lock:
            self._budget.note_request(self._clock.monotonic())

    def may_retry(self) -> bool:
        """Whether one retry is allowed. It is taken: ask only if it will be made."""
        with self._lock:
            allowed = self._budget.may_retry(self._clock.monotonic())
            self.granted += allowed
            self.refused += not allowed
            return allowed


class GateTable:
    """All gates of a system, by provider and URL. It belongs to no actor and survives every one."""

    def __init__(
        self,
        clock: Clock,
        breaker: BreakerOptions | None = None,
        retry_budget: RetryBudgetOptions | None = None,
    ) -> None:
        self._clock = clock
        self._breaker = breaker or BreakerOptions()
        self._lock = threading.Lock()
        self._gates: dict[tuple[str, str], Gate] = {}
        self._many = _MANY_GATES
        self.retry_budget = SharedRetryBudget(clock, retry_budget or RetryBudgetOptions())

    def gate(self, name: str, base_url: str, limits: LimitOptions | None = None) -> Gate:
        """The gate of that endpoint; the same one for the same provider and URL, credentials in it not counted.

        Args:
            name: the provider's, best as the settings call it: dialects of one account share its limits.
            base_url: the provider's.
            limits: those of a gate that is not there yet; None is none. One that is there keeps its own.
        """
        key = (name, clean_url(base_url))
        gate = self._gates.get(key)
        if gate is not None:
            return gate
        with self._lock:
            gate = self._gates.get(key)
            if gate is None:
                if len(self._gates) >= self._many:
                    self._gates = {place: one for place, one in self._gates.items() if not one.is_unused()}
                    self._many = max(_MANY_GATES, 2 * len(self._gates))
                gate = self._gates[key] = Gate(self._clock, *key, limits or LimitOptions(), self._breaker)
            return gate

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Of every gate, the oldest first."""
        with self._lock:
            gates = list(self._gates.values())
        return tuple(gate.statistics() for gate in gates)


def clean_url(url: str) -> str:
    """A URL to tell endpoints apart by, and to show: without user, password, query, fragment and a last slash.

    >>> clean_url("https://key:secret@API.example.com/v1/?key=secret")
    'https://api.example.com/v1'
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/") if host else ""
