"""The gates: one for each endpoint of a provider, with its limits, its queue and its circuit breaker.

A gate is a table under a short lock, not a process; the reasons are in docs/decisions/0005-limits-and-breakers.md. It
has no thread and no timer. The caller makes a `Ticket` for each attempt at a request, and then::

    gate.enter(ticket) ─► Admitted          send; then `answered` (the first delta), `spent` (usage), `leave`
                       ─► Wait(seconds)     call `enter` again after `seconds`, and when `ticket.wake()` is called
                       ─► Refused(error)    ask another provider, or fail with `error`; the ticket is used up
    gate.timed_out(ticket)                  after `gate.limits.queue_timeout`: leaves the queue, and returns the error
    gate.leave(ticket, …)                   in any case, from every state, however the attempt ends

What a provider counts for each API key (holds, requests and tokens a minute) and the queue belong to the key of the
ticket; the circuit breaker and ``concurrent_streams`` belong to the endpoint. A gate knows fingerprints of keys only.

All methods may be called from any thread. None blocks for longer than the lock is held, which is microseconds.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.actors.call.breaker import Breaker, Circuit, counts_as_failure
from penstock.actors.call.hedging import Hedging
from penstock.actors.call.limits import FULL, Lane
from penstock.actors.call.shares import FULL as SHARED_FULL
from penstock.actors.call.shares import MinuteShares
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

_MANY_KEYS: Final = 1024  # above this number, lanes of keys that are not in use are dropped


class Admitted(msgspec.Struct, frozen=True):
    """The request may be sent. The ticket holds a place until `Gate.leave`."""


class Wait(msgspec.Struct, frozen=True):
    """The ticket is queued. Ask again after ``seconds`` (None: the time is not known), and when the ticket is woken."""

    seconds: float | None


class Refused(msgspec.Struct, frozen=True):
    """The ticket was not queued: `ProviderBusy` (the queue is full) or `CircuitOpen`."""

    error: ProviderError


Admission: TypeAlias = Admitted | Wait | Refused
State: TypeAlias = Literal["new", "queued", "inside", "gone"]


class Ticket:
    """One attempt's claim to a place. Used once, with one gate.

    Args:
        wake: called in any thread when the ticket may be admitted. It must only send a message, and may be called late
            or in vain.
        tokens: the estimated number of tokens of request and answer together; see `Gate.spent`.
        key: the fingerprint of the API key that the request is sent with; see `GateTable.fingerprint`.
        is_retry: for the statistics only.
        jitter: a random number from 0 to 1, which spreads the requests that waited for the end of a hold.
    """

    __slots__ = (
        "answered",
        "asked_at",
        "charged",
        "epoch",
        "is_retry",
        "jitter",
        "key",
        "lane",
        "lost",
        "reported",
        "state",
        "tokens",
        "wake",
    )

    def __init__(
        self,
        wake: Callable[[], object],
        tokens: int = 0,
        *,
        key: bytes = b"",
        is_retry: bool = False,
        jitter: float = 0.5,
    ) -> None:
        self.wake = wake
        self.tokens = tokens
        self.key = key
        self.is_retry = is_retry
        self.jitter = jitter
        # The fields below belong to the gate, which writes them under its lock.
        self.state: State = "new"
        self.lane: Lane[Ticket] | None = None
        self.asked_at = 0.0  # time of the last `enter`
        self.epoch = 0
        self.answered = False
        self.charged: int | None = None  # tokens charged so far; None if it was never admitted
        self.reported = 0  # … of these, reported by the provider
        self.lost: deque[tuple[int, Lane[Ticket]]] | None = None  # gets an item if it is lost while it holds a place

    def __del__(self) -> None:
        # Only a note: the garbage collector may run this anywhere, even in a method of the gate.
        if self.state == "inside":
            assert self.lost is not None
            assert self.lane is not None
            self.lost.append((self.epoch, self.lane))


_ADMITTED: Final = Admitted()


class EndpointStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one gate."""

    name: str
    """The provider's."""
    base_url: str
    circuit: Circuit
    active: int
    """Requests that hold a place."""
    queued: int
    queue_high_water_mark: int
    requests: int
    """Requests admitted so far, including retries."""
    retries: int
    """The retries among them."""
    refused: int
    """Requests refused because the circuit was open, the queue full, or the wait too long."""
    retries_refused: int
    """Retries that the retry budget did not allow."""
    waits: int
    """Requests that had to queue."""
    failures: int
    """Failures that count for the circuit; see `penstock.actors.call.breaker.counts_as_failure`."""
    tokens: int
    """Tokens used, by the reported usage."""
    held_until_s: float
    """Seconds from now until all requests are admitted again, if the provider has asked for a pause; else 0.0."""
    keys: int
    """API keys in use."""
    key_holds_s: tuple[float, ...]
    """For each key that the provider has asked to pause, the seconds until it is admitted again; the longest first."""
    requests_left: int | None = None
    """What is left of the provider's rate limit, by the headers of its last answer; None: it does not say."""
    tokens_left: int | None = None
    """The same for tokens."""


class Gate:
    """The gate of one endpoint. Made by `GateTable`; see the module's docstring."""

    shared: MinuteShares | None = None
    """Limits a minute that this node shares with others."""

    def __init__(self, clock: Clock, name: str, base_url: str, limits: LimitOptions, breaker: BreakerOptions) -> None:
        self.name = name
        self.base_url = base_url
        self.limits = limits
        self.hedging = Hedging()
        self._clock = clock
        self._lock = threading.Lock()
        self._was_limited = False  # there has been no answer since the last status 429
        self._breaker = Breaker(breaker)
        self._places = limits.concurrent_streams
        self._lane_limits = limits.replace(concurrent_streams=None)
        self._lanes: dict[bytes, Lane[Ticket]] = {}
        self._many = _MANY_KEYS
        self._waiting: dict[Lane[Ticket], None] = {}  # lanes with a queue, in the order in which they have their turn
        some = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_streams)
        self._is_limited = any(limit is not None for limit in some)
        self._is_free = not self._is_limited  # no limit, no hold, no queue, and the circuit is closed
        self._lost: deque[tuple[int, Lane[Ticket]]] = deque()  # tickets that were lost without `leave`
        self._calm_at = 0.0  # the latest one of all lanes
        self._active = self._queued = self._queue_high_water_mark = 0
        self._retries_refused = 0
        self._quota = Quota()  # as the provider reported it last
        self._requests = self._retries = self._refused = self._waits = self._failures = self._tokens = 0

    def __repr__(self) -> str:
        return f"<Gate {self._endpoint}>"

    def enter(self, ticket: Ticket) -> Admission:
        """Ask for a place, for the first time or again. A ticket that has a place keeps it.

        With limits that other nodes share, this waits for their store.
        """
        if self.shared is not None and ticket.state == "new":
            delay = self.shared.ask(ticket, ticket.key, ticket.tokens, ticket.wake)
            if delay == SHARED_FULL:
                detail = f"the queue is full: {self.limits.max_queue} requests wait (max_queue)"
                return Refused(ProviderBusy(self._endpoint, detail))
            if delay != 0.0:
                return Wait(delay)
        with self._lock:
            lane = ticket.lane = self._lane(ticket.key)
            if self._is_free and ticket.state == "new" and not self._lost:
                lane.limits.active += 1
                self._count_in(ticket)
                return _ADMITTED
            now = self._clock.monotonic()
            before = None if self._reclaim_lost() else lane.limits.first
            self._first(lane, now, ticket)
            admission = self._ask(ticket, lane, now)
            # A ticket that leaves the queue makes another one the first, which has to ask when it is admitted.
            first = lane.limits.first
            others = self._next(now, lane)
        if first is not before and first is not ticket:
            _wake(first)
        for other in others:
            _wake(other)
        return admission

    def answered(self, ticket: Ticket) -> None:
        """Note the first delta, which shows that the endpoint works. May be called more than once."""
        with self._lock:
            if ticket.state != "inside" or ticket.answered:
                return
            ticket.answered = True
            self._was_limited = False
            if not self._breaker.succeeded(ticket.epoch):
                return
            self._review(self._clock.monotonic())
            heads = self._heads()
        for head in heads:
            _wake(head)

    def leave(self, ticket: Ticket, failure: PenstockError | Literal["neutral"] | None = "neutral") -> None:
        """Give back the place, or leave the queue. Only the first call has an effect.

        Args:
            ticket: must leave however its attempt ends, or its place stays taken.
            failure: None for a complete answer, the error of a failed one, ``"neutral"`` for a result that says nothing
                about the endpoint (cancelled, crashed, never sent). A `RateLimited` with ``retry_after`` holds the
                requests of this API key before another ticket is woken.
        """
        if self.shared is not None:
            self.shared.remove(ticket, ticket.key)
        with self._lock:
            state, ticket.state = ticket.state, "gone"
            lane = ticket.lane
            if lane is None:  # it never entered
                return
            # If there may be room now, wake the first ticket even if it was the first before.
            before = None if self._reclaim_lost() else lane.limits.first
            now = self._clock.monotonic()
            others: list[Ticket | None] = []
            if state == "inside":
                epoch = self._breaker.epoch
                self._active -= 1
                lane.limits.active -= 1
                self._report(ticket, lane, failure, now)
                before = None
                # If the circuit has opened or closed, all queues have to ask.
                others = self._next(now, lane) if self._breaker.epoch == epoch else self._heads(lane)
            elif state == "queued":
                self._dequeue(lane, ticket)
                others = self._next(now, lane)  # a ticket of another key may have waited for this one
            first = self._first(lane, now)
        if first is not before:
            _wake(first)
        for other in others:
            _wake(other)

    def timed_out(self, ticket: Ticket) -> ProviderBusy:
        """Take a ticket out of the queue after ``queue_timeout``; returns the error of its request."""
        with self._lock:
            if ticket.state == "queued":
                self._refused += 1
        self.leave(ticket)
        detail = f"the request waited longer than {self.limits.queue_timeout:g} s (queue_timeout)"
        return ProviderBusy(self._endpoint, detail)

    def spent(self, ticket: Ticket, usage: Usage | None) -> None:
        """Replace the estimated tokens by the reported usage. May be called several times, and after `leave`.

        Usage without any count changes nothing.
        """
        used = _used(usage)
        if used is None:
            return
        with self._lock:
            charged = ticket.charged
            if charged is None:
                return
            assert ticket.lane is not None
            limits = ticket.lane.limits
            self._tokens += used - ticket.reported
            limits.correct(charged, used, self._clock.monotonic())
            gave_back = used < charged
            ticket.charged = ticket.reported = used
            first = limits.first if gave_back else None
        _wake(first)

    def is_calm(self) -> bool:
        """Whether the endpoint may get more requests than needed.

        That is: none waits, none is held, the circuit is closed, and there has been an answer since the last 429.
        """
        with self._lock:
            now = self._clock.monotonic()
            is_held = any(lane.held_until > now for lane in self._lanes.values())
            return not (self._queued or self._was_limited or is_held) and self._breaker.is_closed

    def note_refused_retry(self) -> None:
        """Count a retry that the retry budget did not allow."""
        with self._lock:
            self._retries_refused += 1

    def hold(self, seconds: float, key: bytes = b"") -> None:
        """Admit no request with this API key for ``seconds``, an hour at most, as the provider asked.

        Never shortens a hold.
        """
        with self._lock:
            self._hold(self._lane(key), seconds, self._clock.monotonic())

    def note_quota(self, quota: Quota | None, key: bytes = b"") -> None:
        """Hold the requests with this API key until the provider's quota is renewed, if nothing of it is left."""
        if quota is None:
            return
        self._quota = quota
        if quota.requests_left is not None and quota.requests_left <= 0:
            self.hold(quota.requests_reset_s or 0.0, key)
        if quota.tokens_left is not None and quota.tokens_left <= 0:
            self.hold(quota.tokens_reset_s or 0.0, key)

    def statistics(self) -> EndpointStatistics:
        """A snapshot."""
        with self._lock:
            heads = self._heads() if self._reclaim_lost() else []
            now = self._clock.monotonic()
            holds = sorted((one.held_until - now for one in self._lanes.values() if one.held_until > now), reverse=True)
            statistics = EndpointStatistics(
                name=self.name,
                base_url=self.base_url,
                circuit=self._breaker.circuit(now),
                active=self._active,
                queued=self._queued,
                queue_high_water_mark=self._queue_high_water_mark,
                requests=self._requests,
                retries=self._retries,
                refused=self._refused,
                retries_refused=self._retries_refused,
                waits=self._waits,
                failures=self._failures,
                tokens=self._tokens,
                held_until_s=holds[0] if holds else 0.0,
                keys=len(self._lanes),
                key_holds_s=tuple(holds),
                requests_left=self._quota.requests_left,
                tokens_left=self._quota.tokens_left,
            )
        for head in heads:
            _wake(head)
        return statistics

    def is_unused(self) -> bool:
        """Whether a new gate would behave the same: only its statistics differ."""
        with self._lock:
            heads = self._heads() if self._reclaim_lost() else []
            now = self._clock.monotonic()
            is_unused = self._breaker.failures == 0 and all(lane.is_unused(now) for lane in self._lanes.values())
        for head in heads:
            _wake(head)
        return is_unused

    # --- with the lock held --------------------------------------------------------------------------------------

    def _lane(self, key: bytes) -> Lane[Ticket]:
        lane = self._lanes.get(key)
        if lane is None:
            now = self._clock.monotonic()
            if len(self._lanes) >= self._many:
                self._lanes = {place: one for place, one in self._lanes.items() if not one.is_unused(now)}
                self._many = max(_MANY_KEYS, 2 * len(self._lanes))
            lane = self._lanes[key] = Lane(self._lane_limits, now)
        return lane

    def _ask(self, ticket: Ticket, lane: Lane[Ticket], now: float) -> Admission:
        if ticket.state == "inside":
            return _ADMITTED
        if ticket.state == "gone":
            return Refused(ProviderBusy(self._endpoint, "this request has left the queue"))
        closed_for = self._breaker.closed_for(now)
        if closed_for > 0:
            self._dequeue(lane, ticket)
            return self._refuse(ticket, CircuitOpen(self._endpoint, closed_for))
        held_for = lane.held_until - now
        if ticket.state == "new" and held_for > self.limits.queue_timeout:  # it would time out
            detail = f"rate limited by the provider for another {held_for:.0f} s, longer than queue_timeout"
            return self._refuse(ticket, ProviderBusy(self._endpoint, detail))
        has_place = self._places is None or self._active < self._places
        # The place that the first ticket of another key waits for is not for a new one.
        has_place = has_place and not (ticket.state == "new" and any(one.wants_place for one in self._waiting))
        before = len(lane.limits.queue)
        delay = lane.ask(ticket, ticket.tokens, now, jitter=ticket.jitter, has_place=has_place)
        if delay == FULL:
            detail = f"the queue is full: {before} requests wait (max_queue)"
            return self._refuse(ticket, ProviderBusy(self._endpoint, detail))
        self._note_queue(lane, before)
        if delay == 0.0:
            if lane in self._waiting:  # the other keys have their turn
                del self._waiting[lane]
                self._waiting[lane] = None
            self._count_in(ticket)
            self._review(now)
            return _ADMITTED
        if ticket.state == "new":
            ticket.state = "queued"
            self._waits += 1
        self._is_free = False
        ticket.asked_at = now
        return Wait(delay if delay != math.inf else None)

    def _refuse(self, ticket: Ticket, error: ProviderError) -> Refused:
        ticket.state = "gone"
        self._refused += 1
        return Refused(error)

    def _note_queue(self, lane: Lane[Ticket], before: int) -> None:
        """Update the counts after the queue of ``lane`` had ``before`` tickets."""
        now = len(lane.limits.queue)
        self._queued += now - before
        self._queue_high_water_mark = max(self._queue_high_water_mark, self._queued)
        if now:
            self._waiting[lane] = None
        else:
            self._waiting.pop(lane, None)

    def _dequeue(self, lane: Lane[Ticket], ticket: Ticket) -> None:
        before = len(lane.limits.queue)
        lane.limits.remove(ticket)
        self._note_queue(lane, before)

    def _first(self, lane: Lane[Ticket], now: float, alive: Ticket | None = None) -> Ticket | None:
        """The first ticket in the queue, after removing those whose owner must be dead, as it has not asked."""
        first = lane.limits.first
        while first is not None and first is not alive and now - first.asked_at > 2 * self.limits.queue_timeout + 1:
            first.state = "gone"
            self._dequeue(lane, first)
            first = lane.limits.first
        return first

    def _heads(self, but: Lane[Ticket] | None = None) -> list[Ticket | None]:
        """The first ticket of every queue."""
        return [lane.limits.first for lane in self._waiting if lane is not but]

    def _next(self, now: float, but: Lane[Ticket]) -> list[Ticket | None]:
        """The tickets of other keys that may have the free place, up to the first one that is sure to take it."""
        found: list[Ticket | None] = []
        if self._places is None or self._active >= self._places:
            return found
        for lane in [lane for lane in self._waiting if lane.wants_place and lane is not but]:
            head = self._first(lane, now)
            if head is not None:
                found.append(head)
                if not lane.is_blocked(head.tokens, now):
                    break
        return found

    def _reclaim_lost(self) -> bool:
        """Free the places of tickets that were garbage-collected; returns whether there were any."""
        found = bool(self._lost)
        while self._lost:
            epoch, lane = self._lost.popleft()
            self._active -= 1
            lane.limits.active -= 1
            self._breaker.abstained(epoch)
        return found

    def _report(
        self, ticket: Ticket, lane: Lane[Ticket], failure: PenstockError | Literal["neutral"] | None, now: float
    ) -> None:
        if failure is None:
            self._breaker.succeeded(ticket.epoch)
        elif counts_as_failure(failure, answered=ticket.answered):
            self._failures += 1
            self._breaker.failed(ticket.epoch, now)
        else:
            self._breaker.abstained(ticket.epoch)
        self._review(now)
        if isinstance(failure, RateLimited):
            self._was_limited = True
            self._hold(lane, failure.retry_after or 0.0, now)

    def _hold(self, lane: Lane[Ticket], seconds: float, now: float) -> None:
        lane.hold(seconds, now)
        self._calm_at = max(self._calm_at, lane.calm_at)
        self._review(now)

    def _count_in(self, ticket: Ticket) -> None:
        ticket.state = "inside"
        ticket.charged = ticket.tokens
        ticket.lost = self._lost
        ticket.epoch = self._breaker.let_in()
        self._active += 1
        self._requests += 1
        self._retries += ticket.is_retry

    def _review(self, now: float) -> None:
        """Update ``_is_free``: whether the next ticket can be admitted without a look at the limits and the clock."""
        self._is_free = not self._is_limited and not self._queued and self._breaker.is_closed and now >= self._calm_at

    @property
    def _endpoint(self) -> str:
        return f"{self.name} ({self.base_url})" if self.base_url else self.name


def _wake(ticket: Ticket | None) -> None:
    """Wake a ticket. Call it without the lock, as the callback is foreign code."""
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
