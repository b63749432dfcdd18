"""The circuit breaker: an endpoint that fails in a row is left alone for a while. Pure: the time is passed in.

``closed`` → ``open`` after `BreakerOptions.failures` failures in a row → ``half_open`` after ``cooldown`` seconds: one
request at a time may try → ``closed`` if it succeeds, ``open`` again if it fails.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from penstock.config.limits import BreakerOptions
from penstock.errors import ApiError, ConnectError, IncompleteStream, ProviderError, ProviderTimeout, RateLimited

__all__ = ["Breaker", "Circuit", "counts_as_failure"]

Circuit: TypeAlias = Literal["closed", "open", "half_open"]


class Breaker:
    """One endpoint's circuit.

    Every request that is let in carries the `epoch` in which it was; what it reports counts only as long as the
    circuit has not changed its state since. So the many requests that were under way when it opened neither keep it
    open nor close it.

    >>> breaker = Breaker(BreakerOptions(failures=2, cooldown=30))
    >>> breaker.failed(breaker.epoch, now=0.0), breaker.failed(breaker.epoch, now=1.0)
    (False, True)
    >>> breaker.closed_for(now=11.0), breaker.circuit(now=11.0), breaker.circuit(now=31.0)
    (20.0, 'open', 'half_open')
    """

    __slots__ = ("_opened_at", "_options", "_trial", "epoch", "failures")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._opened_at: float | None = None
        self._trial = False
        self.failures = 0  # in a row
        self.epoch = 0

    @property
    def is_closed(self) -> bool:
        """Whether it lets everybody in."""
        return self._opened_at is None

    def circuit(self, now: float) -> Circuit:
        """Its state."""
        if self._opened_at is None:
            return "closed"
        return "open" if now < self._opened_at + self._options.cooldown else "half_open"

    def closed_for(self, now: float) -> float:
        """Seconds for which nobody is let in; 0.0: now. While a trial is under way, as long as after its failure."""
        if self._opened_at is None:
            return 0.0
        if self._trial:
            return self._options.cooldown
        return max(0.0, self._opened_at + self._options.cooldown - now)

    def let_in(self) -> int:
        """One is let in, which `closed_for` allows; returns the epoch that it is to report with."""
        if self._opened_at is not None:
            self.epoch += 1
            self._trial = True
        return self.epoch

    def succeeded(self, epoch: int) -> bool:
        """An answer came; returns whether that has closed the circuit."""
        if epoch != self.epoch:
            return False
        self.failures = 0
        if self._opened_at is None:
            return False
        self._opened_at = None
        self._trial = False
        self.epoch += 1
        return True

    def failed(self, epoch: int, now: float) -> bool:
        """It failed by the endpoint's fault; returns whether that has opened the circuit."""
        if epoch != self.epoch or not self._options.enabled:
            return False
        self.failures += 1
        if self._opened_at is None and self.failures < self._options.failures:
            return False
        self._opened_at = now
        self._trial = False
        self.epoch += 1
        return True

    def abstained(self, epoch: int) -> bool:
        """It ended without saying anything of the endpoint; returns whether another may try now."""
        was_trial = self._trial and epoch == self.epoch
        if was_trial:
            self._trial = False
        return was_trial


def counts_as_failure(error: ProviderError, *, answered: bool) -> bool:
    """Whether ``error`` says that the endpoint is in trouble.

    It does: no connection; no answer, or no more of it, in time; an answer of status 500 or above, or another one that
    calls itself temporary; a connection closed before the first delta (not ``answered``). It does not: what is wrong
    with the request (the rest of 4xx), too many requests (429 says that the endpoint is well), the time-out for
    everything together, an answer that breaks off, or that is against the protocol.
    """
    match error:
        case ConnectError():
            return True
        case ProviderTimeout(which=which):
            return which != "total"
        case RateLimited():
            return False
        case ApiError(status=status, retryable=retryable):
            return status != 429 and (status >= 500 or retryable)
        case IncompleteStream():
            return not answered
    return False
