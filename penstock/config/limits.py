"""Options of what stands before a provider: limits, the queue, the circuit breaker, the budget of retries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.config.options import _Options, check_choice, check_number

__all__ = ["BreakerOptions", "LimitOptions", "RetryBudgetOptions", "check_limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions(_Options):
    """How much of one provider's endpoint may be used. None is without limit.

    Attributes:
        requests_per_minute: requests begun in a minute, and a sixth of that (at least 1) more in a burst,
            1 … 1,000,000,000.
        tokens_per_minute: the same for tokens, asked and answered together, 1 … 1,000,000,000,000.
        concurrent_streams: requests under way at once, 1 … 1,000,000.
        max_queue: requests that may wait for their turn, 0 … 10,000,000.
        queue_timeout: seconds that one waits at most, 0 … 86400.

    >>> LimitOptions(concurrent_streams=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: concurrent_streams: got 0, allowed: a whole number from 1 to 1000000 or None
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_streams: int | None = None
    max_queue: int = 1000
    queue_timeout: float = 30.0

    def __post_init__(self) -> None:
        check_limits(self)
        check_number("max_queue", self.max_queue, 0, 10_000_000, whole=True)
        check_number("queue_timeout", self.queue_timeout, 0, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions(_Options):
    """When nothing more is sent to an endpoint that fails, and for how long.

    Attributes:
        failures: failures in a row that open the circuit, 1 … 1,000,000.
        cooldown: seconds until one request may try again, 0.001 … 86400.
        enabled: False sends whatever has happened before.
    """

    failures: int = 5
    cooldown: float = 30.0
    enabled: bool = True

    def __post_init__(self) -> None:
        check_number("failures", self.failures, 1, 1_000_000, whole=True)
        check_number("cooldown", self.cooldown, 0.001, 86_400)
        check_choice("enabled", self.enabled, (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetOptions(_Options):
    """How many retries all requests of a system may make together: ``floor + ratio × requests`` in any ``window``.

    Attributes:
        ratio: retries for each request, 0 … 100; None is no budget.
        floor: retries that are always allowed, 0 … 1,000,000.
        window: seconds, 0.1 … 86400.
    """

    ratio: float | None = 0.2
    floor: int = 10
    window: float = 10.0

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, 0, 100, optional=True)
        check_number("floor", self.floor, 0, 1_000_000, whole=True)
        check_number("window", self.window, 0.1, 86_400)


def check_limits(limits: object) -> None:
    """Raise `OptionError` unless each limit that ``limits`` has is None or in its range."""
    for name, low, high in _RANGES:
        check_number(name, getattr(limits, name), low, high, whole=name != "queue_timeout", optional=True)


_RANGES: Final = (
    ("requests_per_minute", 1, 10**9),
    ("tokens_per_minute", 1, 10**12),
    ("concurrent_streams", 1, 10**6),
    ("max_queue", 0, 10**7),
    ("queue_timeout", 0, 86_400),
)
