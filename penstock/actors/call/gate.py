"""The gates before the providers: one for each endpoint, with its limits, its queue and its circuit breaker.

A gate is a table under a short lock and no process; the reasons are in docs/decisions/0005-limits-and-breakers.md. It
has no thread and no timer. Whoever wants to send a request makes a `Ticket` for that one attempt, and then::

    gate.enter(ticket) ─► Admitted          send; then `answered` (the first delta), `spent` (usage), `leave`
                       ─► Wait(seconds)     ask again after `seconds`, or when `ticket.wake()` is called, or both
                       ─► Refused(error)    go elsewhere, or fail with `error`; the ticket is used up
    gate.timed_out(ticket)                  it has waited for `gate.limits.queue_timeout`: gives up, and says the error
    gate.leave(ticket, …)                   always, from whatever state, by whoever abandons the attempt

All methods can be called from any thread and never block for longer than the lock is held, which is microseconds.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.actors.call.breaker import Breaker, Circuit, counts_as_failure
from penstock.actors.call.limits import FULL, Limits
from penstock.config.limits import BreakerOptions, LimitOptions
from penstock.errors import CircuitOpen, PenstockError, ProviderBusy, ProviderError, RateLimited
from penstock.events import Usage
from penstock.ports import Clock, Quota

__all__ = [
    "Admission",
    "Admitted",
    "EndpointStatistics",
    "Gate",
    "Refused",
    "Ticket",
    "Wait",
]

_LONGEST_HOLD: Final = 3600.0  # seconds; a provider that says more has miscounted, or means a date


class Admitted(msgspec.Struct, frozen=True):
    """It is its turn; it has a place until it leaves."""


class Wait(msgspec.Struct, frozen=True):
    """It is in the queue. Ask again after ``seconds`` (None: no time is known), and whenever the ticket is woken."""

    seconds: float | None


class Refused(msgspec.Struct, frozen=True):
    """It is not let in: `ProviderBusy` (the queue is full) or `CircuitOpen`. It is in no queue."""

    error: ProviderError


Admission: TypeAlias = Admitted | Wait | Refused
State: TypeAlias = Literal["new", "queued", "inside", "gone"]


class Ticket:
    """One attempt's claim to a place. Used once; never shared between gates.

    Args:
        wake: called in any thread when it may be its turn; must only send a message, and may come too late or for
            nothing.
        tokens: how many the request will probably use, question and answer together; see `Gate.spent`.
        is_retry: only counted.
    """

    __slots__ = ("answered", "charged", "epoch", "heard", "is_retry", "lost", "reported", "state", "tokens", "wake")

    def __init__(self, wake: Callable[[], object], tokens: int = 0, *, is_retry: bool = False) -> None:
        self.wake = wake
        self.tokens = tokens
        self.is_retry = is_retry
        # The rest is the gate's, and written under its lock only.
        self.state: State = "new"
        self.heard = 0.0  # when it asked last
        self.epoch = 0
        self.answered = False
        self.charged: int | None = None  # tokens taken for it so far; None: it was never inside
        self.reported = 0  # of these, told by the provider
        self.lost: deque[int] | None = None  # where to leave the epoch of a place that was never given back

    def __del__(self) -> None:
        # Only a note: this may run anywhere, even inside the gate that would have to be told.
        if self.state == "inside" and self.lost is not None:
            self.lost.append(self.epoch)


_ADMITTED: Final = Admitted()


class EndpointStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What went through one gate."""

    name: str
    """The provider's."""
    base_url: str
    circuit: Circuit
    active: int
    """Requests under way."""
    queued: int
    queue_high_water_mark: int
    requests: int
    """Let in so far, retries included."""
    retries: int
    """… of these."""
    refused: int
    """Because the circuit was open, the queue full, or the wait too long."""
    waits: int
    """Requests that had to queue."""
    failures: int
    """Those that count for the circuit; see `penstock.actors.call.breaker.counts_as_failure`."""
    tokens: int
    """Used, by the usage that was told."""
    held_until_s: float
    """Seconds from now for which nobody is let in because the provider said so; 0.0 if it did not."""


class Gate:
    """One endpoint's. Made by `GateTable`; see the module's docstring."""

    def __init__(self, clock: Clock, name: str, base_url: str, limits: LimitOptions, breaker: BreakerOptions) -> None:
        self.name = name
        self.base_url = base_url
        self.limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(breaker)
        self._line: Limits[Ticket] = Limits(limits, clock.monotonic())
        some = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_streams)
        self._is_limited = any(limit is not None for limit in some)
        self._is_free = not self._is_limited  # no limit, no hold, no queue, and the circuit is closed
        self._lost: deque[int] = deque()  # the epochs of tickets that are gone without having left
        self._held_until = 0.0
        self._requests = self._retries = self._refused = self._waits = self._failures = self._tokens = 0

    def __repr__(self) -> str:
        return f"<Gate {self._endpoint}>"

    def enter(self, ticket: Ticket) -> Admission:
        """Ask for a place, for the first time or again. Who has one already, has it."""
        with self._lock:
            if self._is_free and ticket.state == "new" and not self._lost:
                self._line.active += 1
                self._count_in(ticket)
                return _ADMITTED
            now = self._clock.monotonic()
            before = None if self._find_lost() else self._line.first
            self._first(now, ticket)
            admission = self._ask(ticket, now)
            first = self._line.first
        # Whoever leaves the queue makes another the first of it, who does not know yet when its turn is.
        if first is not before and first is not ticket:
            _wake(first)
        return admission

    def answered(self, ticket: Ticket) -> None:
        """Its first delta has come: the endpoint works. Once or often; worth calling early, since answers are long."""
        with self._lock:
            if ticket.state != "inside" or ticket.answered:
                return
            ticket.answered = True
            if not self._breaker.succeeded(ticket.epoch):
                return
            self._review()
            first = self._line.first
        _wake(first)

    def leave(self, ticket: Ticket, failure: PenstockError | Literal["neutral"] | None = "neutral") -> None:
        """Give the place back, or the place in the queue. Only the first call does anything.

        Args:
            ticket: must leave however its attempt ends, else the place is lost.
            failure: None for an answer that was complete, the error for one that failed, ``"neutral"`` for what says
                nothing of the endpoint (cancelled, crashed, never sent). A `RateLimited` with its ``retry_after``
                holds, before anybody else is told that there is a place.
        """
        with self._lock:
            state, ticket.state = ticket.state, "gone"
            # Where there may be room now, the first is told even if it has been the first before.
            before = None if self._find_lost() else self._line.first
            if state == "inside":
                self._line.active -= 1
                self._report(ticket, failure)
                before = None
            elif state == "queued":
                self._line.give_up(ticket)
            first = self._first(self._clock.monotonic()) if self._line.queue else None
        if first is not before:
            _wake(first)

    def timed_out(self, ticket: Ticket) -> ProviderBusy:
        """It has waited long enough: it leaves, and this is its error."""
        with self._lock:
            if ticket.state == "queued":
                self._refused += 1
        self.leave(ticket)
        return ProviderBusy(self._endpoint, f"no turn within {self.limits.queue_timeout:g} s")

    def spent(self, ticket: Ticket, usage: Usage | None) -> None:
        """Put what it really used in the place of its estimate. May come several times, and after `leave`.

        Usage that tells neither a total nor parts changes nothing.
        """
        used = _used(usage)
        if used is None:
            return
        with self._lock:
            if ticket.charged is None:
                return
            self._tokens += used - ticket.reported
            self._line.correct(ticket.charged, used, self._clock.monotonic())
            gave_back = used < ticket.charged
            ticket.charged = ticket.reported = used
            first = self._line.first if gave_back else None
        _wake(first)

    def hold(self, seconds: float) -> None:
        """Let nobody in for ``seconds``, an hour at most: the provider has asked for that. Never shortens a hold."""
        with self._lock:
            self._hold(seconds)

    def note_quota(self, quota: Quota | None) -> None:
        """What the provider says is left: where that is nothing, hold until it says there is something again."""
        if quota is None:
            return
        if quota.requests_left is not None and quota.requests_left <= 0:
            self.hold(quota.requests_reset_s or 0.0)
        if quota.tokens_left is not None and quota.tokens_left <= 0:
            self.hold(quota.tokens_reset_s or 0.0)

    def statistics(self) -> EndpointStatistics:
        """A snapshot."""
        with self._lock:
            first = self._line.first if self._find_lost() else None
            now = self._clock.monotonic()
            statistics = EndpointStatistics(
                name=self.name,
                base_url=self.base_url,
                circuit=self._breaker.circuit(now),
                active=self._line.active,
                queued=len(self._line.queue),
                queue_high_water_mark=self._line.queue_high_water_mark,
                requests=self._requests,
                retries=self._retries,
                refused=self._refused,
                waits=self._waits,
                failures=self._failures,
                tokens=self._tokens,
                held_until_s=max(0.0, self._held_until - now),
            )
        _wake(first)
        return statistics

    def is_unused(self) -> bool:
        """Whether it would be the same if it were made anew, but for its statistics."""
        with self._lock:
            first = self._line.first if self._find_lost() else None
            now = self._clock.monotonic()
            is_unused = self._line.is_unused(now) and self._held_until <= now and self._breaker.failures == 0
        _wake(first)
        return is_unused

    # --- with the lock held --------------------------------------------------------------------------------------

    def _ask(self, ticket: Ticket, now: float) -> Admission:
        if ticket.state == "inside":
            return _ADMITTED
        if ticket.state == "gone":
            return Refused(ProviderBusy(self._endpoint, "this request has given up its turn"))
        closed_for = self._breaker.closed_for(now)
        if closed_for > 0:
            self._line.give_up(ticket)
            return self._refuse(ticket, CircuitOpen(self._endpoint, closed_for))
        held_for = self._held_until - now
        if ticket.state == "new" and held_for > self.limits.queue_timeout:  # it would wait in vain
            detail = f"rate limited by the provider for {held_for:.0f} s more, longer than queue_timeout"
            return self._refuse(ticket, ProviderBusy(self._endpoint, detail))
        delay = self._line.ask(ticket, ticket.tokens, now, self._held_until)
        if delay == 0.0:
            self._count_in(ticket)
            self._review()
            return _ADMITTED
        if delay == FULL:
            detail = f"{len(self._line.queue)} requests wait for their turn, which is all that may (max_queue)"
            return self._refuse(ticket, ProviderBusy(self._endpoint, detail))
        if ticket.state == "new":
            ticket.state = "queued"
            self._waits += 1
        ticket.heard = now
        return Wait(delay if delay != math.inf else None)

    def _refuse(self, ticket: Ticket, error: ProviderError) -> Refused:
        ticket.state = "gone"
        self._refused += 1
        return Refused(error)

    def _first(self, now: float, alive: Ticket | None = None) -> Ticket | None:
        """Who is to ask next, without those whose owners must have died: they have not even given up."""
        first = self._line.first
        while first is not None and first is not alive and now - first.heard > 2 * self.limits.queue_timeout + 1:
            first.state = "gone"
            self._line.give_up(first)
            first = self._line.first
        return first

    def _find_lost(self) -> bool:
        """Take back the places of tickets that nobody has any more; returns whether there were such."""
        found = bool(self._lost)
        while self._lost:
            self._line.active -= 1
            self._breaker.abstained(self._lost.popleft())
        return found

    def _report(self, ticket: Ticket, failure: PenstockError | Literal["neutral"] | None) -> None:
        if failure is None:
            self._breaker.succeeded(ticket.epoch)
        elif isinstance(failure, ProviderError) and counts_as_failure(failure, answered=ticket.answered):
            self._failures += 1
            self._breaker.failed(ticket.epoch, self._clock.monotonic())
        else:
            self._breaker.abstained(ticket.epoch)
        self._review()
        if isinstance(failure, RateLimited):
            self._hold(failure.retry_after or 0.0)

    def _hold(self, seconds: float) -> None:
        if seconds > 0:
            self._held_until = max(self._held_until, self._clock.monotonic() + min(seconds, _LONGEST_HOLD))
            self._is_free = False

    def _count_in(self, ticket: Ticket) -> None:
        ticket.state = "inside"
        ticket.charged = ticket.tokens
        ticket.lost = self._lost
        ticket.epoch = self._breaker.let_in()
        self._requests += 1
        self._retries += ticket.is_retry

    def _review(self) -> None:
        """See whether the next one can be let in without a look at limits and clock."""
        self._is_free = (
            not self._is_limited
            and not self._line.queue
            and self._breaker.is_closed
            and (not self._held_until or self._clock.monotonic() >= self._held_until)
        )
        if self._is_free:
            self._held_until = 0.0

    @property
    def _endpoint(self) -> str:
        return f"{self.name} ({self.base_url})" if self.base_url else self.name


def _wake(ticket: Ticket | None) -> None:
    """Outside of the lock: what it does is the owner's."""
    if ticket is not None:
        ticket.wake()


def _used(usage: Usage | None) -> int | None:
    if usage is None:
        return None
    if usage.total_tokens is not None:
        return usage.total_tokens
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
