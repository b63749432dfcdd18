"""The circuit breaker: an endpoint that fails several times in a row gets no requests for a while. Pure.

``closed`` → ``open`` after `BreakerOptions.failures` consecutive failures in at least ``span`` seconds → ``half_open``
after ``cooldown`` seconds: one request at a time is let in as a trial → ``closed`` if it succeeds, ``open`` again if it
fails. The time is passed in.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from penstock.config.limits import BreakerOptions
from penstock.errors import ApiError, ConnectError, IncompleteStream, PenstockError, ProviderTimeout, RateLimited

__all__ = ["Breaker", "Circuit", "counts_as_failure"]

Circuit: TypeAlias = Literal["closed", "open", "half_open"]


class Breaker:
    """One endpoint's circuit.

    Every request that is let in carries the `epoch` of that moment. Its result counts only if the circuit has not
    changed its state since, so requests that were under way when it opened neither keep it open nor close it.

    >>> breaker = Breaker(BreakerOptions(failures=2, span=1, cooldown=30))
    >>> breaker.failed(breaker.epoch, now=0.0), breaker.failed(breaker.epoch, now=1.0)
    (False, True)
    >>> breaker.closed_for(now=11.0), breaker.circuit(now=11.0), breaker.circuit(now=31.0)
    (20.0, 'open', 'half_open')
    """

    __slots__ = ("_first_failure", "_opened_at", "_options", "_trial", "epoch", "failures")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._opened_at: float | None = None
        self._first_failure = 0.0  # of the consecutive ones
        self._trial = False
        self.failures = 0  # consecutive
        self.epoch = 0

    @property
    def is_closed(self) -> bool:
        """Whether the circuit is closed: every request is let in."""
        return self._opened_at is None

    def circuit(self, now: float) -> Circuit:
        """The circuit's state."""
        if self._opened_at is None:
            return "closed"
        return "open" if now < self._opened_at + self._options.cooldown else "half_open"

    def closed_for(self, now: float) -> float:
        """Seconds until a request may be let in; 0.0 if one may now. The full cooldown while a trial is under way."""
        if self._opened_at is None:
            return 0.0
        if self._trial:
            return self._options.cooldown
        return max(0.0, self._opened_at + self._options.cooldown - now)

    def let_in(self) -> int:
        """Let one request in, which `closed_for` must allow; returns the epoch to report its result with."""
        if self._opened_at is not None:
            self.epoch += 1
            self._trial = True
        return self.epoch

    def succeeded(self, epoch: int) -> bool:
        """Note that a request was answered; returns whether that closed the circuit."""
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
        """Note a failure of the endpoint; returns whether that opened the circuit."""
        if epoch != self.epoch or not self._options.enabled:
            return False
        if not self.failures:
            self._first_failure = now
        self.failures += 1
        if not self._is_too_much(now):  # it is, and stays so, while the circuit is not closed
            return False
        self._opened_at = now
        self._trial = False
        self.epoch += 1
        return True

    def _is_too_much(self, now: float) -> bool:
        options = self._options
        return self.failures >= options.failures and now - self._first_failure >= options.span

    def abstained(self, epoch: int) -> bool:
        """Note a request that says nothing about the endpoint; returns whether another trial may start now."""
        was_trial = self._trial and epoch == self.epoch
        if was_trial:
            self._trial = False
        return was_trial


def counts_as_failure(error: PenstockError | Literal["neutral"], *, answered: bool) -> bool:
    """Whether ``error`` is a failure of the endpoint.

    These are: no connection; a time-out before or within the answer; status 500 or above, or another error that the
    provider marks as temporary; a connection closed before the first delta (not ``answered``). These are not: errors in
    the request (other 4xx), too many requests (status 429 shows that the endpoint works), ``total_timeout``, an answer
    that breaks off, one that violates the protocol, and faults of this machine (`LocalError`).
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
