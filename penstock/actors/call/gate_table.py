"""The gates of all endpoints of a system, and the retry budget that they share."""

from __future__ import annotations

import secrets
import threading
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

from penstock.actors.call.budget import RetryBudget
from penstock.actors.call.gate import EndpointStatistics, Gate
from penstock.actors.call.hedging import Hedging
from penstock.actors.call.shares import MinuteShares, Take
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.ports import Clock, ProviderRequest

__all__ = ["GateTable", "SharedRetryBudget", "clean_url"]

_KEY_HEADERS: Final = frozenset(
    {"authorization", "api-key", "x-api-key", "x-goog-api-key", "openai-organization", "openai-project"}
)
"""Headers, in lower case, that say which account a request belongs to, even if they are not given as secrets."""
_SHARED_PEPPER: Final = b"penstock: limits of a cluster"
_MANY_GATES: Final = 1024  # callers may pass any URL: above this number, unused gates are dropped


class SharedRetryBudget:
    """The retry budget of a system; see `penstock.actors.call.budget`. Any thread may use it."""

    def __init__(self, clock: Clock, options: RetryBudgetOptions) -> None:
        self.options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._budget = RetryBudget(options)
        self.granted = 0
        self.refused = 0

    def note_request(self) -> None:
        """Note a request that is made for the first time."""
        with self._lock:
            self._budget.note_request(self._clock.monotonic())

    def may_retry(self) -> bool:
        """Whether one retry is allowed. If so, it is counted, so call this only for a retry that will be made."""
        with self._lock:
            allowed = self._budget.may_retry(self._clock.monotonic())
            self.granted += allowed
            self.refused += not allowed
            return allowed


class GateTable:
    """All gates of a system, by provider and URL. It belongs to no actor and outlives all of them."""

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
        self._pepper = secrets.token_bytes(32)
        self._many = _MANY_GATES
        self._take: Take | None = None
        self.hedging = Hedging()  # of streams that no provider feeds
        self.retry_budget = SharedRetryBudget(clock, retry_budget or RetryBudgetOptions())

    def gate(self, name: str, base_url: str, limits: LimitOptions | None = None) -> Gate:
        """The gate of an endpoint; the same one for the same provider and URL, apart from credentials in the URL.

        Args:
            name: the provider's name in the settings, so that the dialects of one account share its limits.
            base_url: the provider's.
            limits: of a new gate; None means no limits. An existing gate keeps its own.
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
                if self._take is not None and (gate.limits.requests_per_minute or gate.limits.tokens_per_minute):
                    gate.shared = MinuteShares(self._take, " ".join(key), gate.limits, self._clock)
            return gate

    def share(self, take: Take) -> None:
        """Share the limits a minute of all gates that are made from now on with other nodes; see `MinuteShares`.

        The fingerprints of keys are then the same on all nodes.
        """
        self._take, self._pepper = take, _SHARED_PEPPER

    def fingerprint(self, request: ProviderRequest) -> bytes:
        """Return bytes that are the same for all requests with the same API key or account, and reveal nothing of it.

        They are a hash, keyed with a number that is known to this table only, unless the limits are shared.
        """
        named = {name.lower(): text for name, text in request.headers.items() if name.lower() in _KEY_HEADERS}
        named.update((name.lower(), secret.reveal()) for name, secret in request.secret_headers.items())
        query = urlsplit(request.url).query
        if not named and not query:
            return b""
        content = "\n".join((query, *(f"{name}: {named[name]}" for name in sorted(named))))
        return blake2b(content.encode("utf-8", "replace"), key=self._pepper, digest_size=16).digest()

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """The statistics of every gate, oldest first."""
        with self._lock:
            gates = list(self._gates.values())
        return tuple(gate.statistics() for gate in gates)


def clean_url(url: str) -> str:
    """A URL that identifies an endpoint and may be shown: no user, password, query, fragment or trailing slash.

    >>> clean_url("https://key:secret@API.example.com/v1/?key=secret")
    'https://api.example.com/v1'
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/") if host else ""
