"""Options that limit the requests to a provider: rate limits, queue, circuit breaker, retry budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from penstock.config.checks import Between, Options

__all__ = [
    "QUEUE",
    "QUEUE_TIMEOUT",
    "BreakerOptions",
    "ConcurrentStreams",
    "LimitOptions",
    "RequestsPerMinute",
    "RetryBudgetOptions",
    "TokensPerMinute",
]

RequestsPerMinute: TypeAlias = Annotated[int | None, Between(1, 10**9)]
TokensPerMinute: TypeAlias = Annotated[int | None, Between(1, 10**12)]
ConcurrentStreams: TypeAlias = Annotated[int | None, Between(1, 10**6)]
QUEUE: Final = Between(0, 10**7)
QUEUE_TIMEOUT: Final = Between(0, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions(Options):
    """How much one endpoint (a provider and its URL) may be used by one system.

    ``concurrent_streams`` counts the requests of all API keys together; the other limits apply to each API key.

    Attributes:
        requests_per_minute: requests started per minute, 1 … 1,000,000,000, plus a burst of a sixth of that (at
            least 1). None is unlimited.
        tokens_per_minute: the same for tokens, input and output together, 1 … 1,000,000,000,000.
        concurrent_streams: requests in progress at once, 1 … 1,000,000. None is unlimited.
        max_queue: requests that may wait for their turn, 0 … 10,000,000. Further ones fail with `ProviderBusy`.
        queue_timeout: the longest wait for a turn, and then for a reader thread, 0 … 86,400 s. Then the request fails
            with `ProviderBusy`.

    >>> LimitOptions(concurrent_streams=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: concurrent_streams: got 0, allowed: a whole number from 1 to 1000000 or None
    """

    requests_per_minute: RequestsPerMinute = None
    tokens_per_minute: TokensPerMinute = None
    concurrent_streams: ConcurrentStreams = None
    max_queue: Annotated[int, QUEUE] = 1000
    queue_timeout: Annotated[float, QUEUE_TIMEOUT] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions(Options):
    """When requests to a failing endpoint are suspended, and for how long.

    Attributes:
        failures: failures in a row that open the circuit, 1 … 1,000,000. Requests then fail with `CircuitOpen`.
        span: how long the failures in a row must have lasted, 0 … 3600 s; many requests that fail in the same moment
            are retried before that.
        cooldown: how long the circuit stays open before one request may try again, 0.001 … 86,400 s.
        enabled: False sends every request, whatever failed before.
    """

    failures: Annotated[int, Between(1, 1_000_000)] = 5
    span: Annotated[float, Between(0, 3600)] = 5.0
    cooldown: Annotated[float, Between(0.001, 86_400)] = 30.0
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetOptions(Options):
    """How many retries all requests of a system may make together: ``floor + ratio × requests`` in any ``window``.

    Attributes:
        ratio: retries per request, 0 … 100; None is no budget.
        floor: retries that are always allowed, 0 … 1,000,000.
        window: 0.1 … 86,400 s.
    """

    ratio: Annotated[float | None, Between(0, 100)] = 0.2
    floor: Annotated[int, Between(0, 1_000_000)] = 100
    window: Annotated[float, Between(0.1, 86_400)] = 10.0
