"""How a stream's actor emits what is buffered: in batches, under the rate, or by an adaptive rhythm.

With ``pacing="adaptive"``, `Pacer` decides how much is emitted at each tick; with ``batch_size="adaptive"``,
`BatchSizer` for how long less than a batch waits. `TokenStream` has the states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from penstock.actors.runtime.signals import NORMAL
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Action,
    Event,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    StateTimeout,
    Stop,
    Transition,
    cancel_timeout,
    state_timeout,
    timeout,
)
from penstock.actors.stream.batching import BatchSizer
from penstock.actors.stream.bucket import TokenBucket
from penstock.actors.stream.delivery import Delivery
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.messages import (
    OVERDUE,
    PUSHED,
    Cancel,
    Ending,
    Fail,
)
from penstock.actors.stream.pacing import Pacer
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import stream_logger
from penstock.config.options import StreamOptions

__all__ = ["FLUSH", "Emitter"]

FLUSH: Final = "flush"
"""The flush timer, and that of the ticks; in ``streaming`` with an empty buffer it leads to ``idle``."""

_NEVER: Final = 1 << 62
_BATCHES_A_TURN: Final = 64  # then other processes get the thread


class Emitter(StateMachine):
    """The emitting half of `TokenStream`."""

    _stream: StreamRecord
    _log: StreamLog
    _intake: Intake
    _hub: Hub
    _options: StreamOptions
    _delivery: Delivery
    _ending: Ending | None
    _tail_since: float | None  # when the first token of an incomplete batch was seen
    _before_pause: str
    _pacer: Pacer | None
    _sizer: BatchSizer | None
    _bucket: TokenBucket | None
    _largest: int  # tokens in one event
    _passes: bool  # no token waits for others, for the rate or for a journal
    _epoch: int

    def _advance(self, *, tail: bool, plain: bool = False) -> Transition:
        """Emit all that may be emitted now; returns the transition. Without ``tail``, less than a batch has to wait.

        ``plain``: without asking for the rhythm, which has been done.
        """
        if self._rhythm is not None and not plain:
            return self._rhythm(self, tail)
        intake, bucket, options = self._intake, self._bucket, self._options
        batch_size = self._largest
        if self._ending is not None:
            if isinstance(self._ending, Cancel):
                return self._conclude(self._ending)
            tail = True
        elif options.strategy == "batch":
            tail = False
        elif not self._flush_after():  # no token waits
            tail = True
        least = 1 if tail else batch_size if options.strategy != "time" else _NEVER
        for emitted in range(_BATCHES_A_TURN):
            size = intake.size
            if not size or (size < least and (least == _NEVER or not intake.buffer.events)):
                return self._wait_for_more(emitted)
            if self._hub.held:
                intake.do_not_wake(self._epoch)
                return self._to("streaming")
            limit = size if size < batch_size else batch_size  # the bucket has no room for more than one batch
            if bucket is not None and (limit := self._due(limit)):
                delay = bucket.delay(limit, self.runtime.clock.monotonic())
                if delay:
                    return self._limit_rate(delay)
            if not self._delivery.emit(limit, bucket):
                return self._undelivered()
        intake.do_not_wake(self._epoch)
        self.actor_inbox.put(OVERDUE if tail else PUSHED)  # continue after other processes have run
        return self._to("streaming")

    def _advance_measured(self, tail: bool) -> Transition:
        """The same where the batch size is adaptive: it depends on the share of time that this takes."""
        log, counters, clock, sizer = self._log, self._stream.counters, self.runtime.clock, self._sizer
        assert sizer is not None
        began, tokens, batches = clock.monotonic(), log.tokens, counters.batches
        transition = self._advance(tail=tail, plain=True)
        sizer.worked(began, clock.monotonic(), log.tokens - tokens, counters.batches - batches)
        return transition

    def _advance_paced(self, tail: bool) -> Transition:
        """The same where the pacing is adaptive: emit up to the last border, and a piece if a tick has come."""
        if self._ending is not None:
            return self._advance(tail=True, plain=True)
        intake, pacer, now = self._intake, self._pacer, self.runtime.clock.monotonic()
        assert pacer is not None
        if not self._hub.held:
            count, characters = intake.before_border()
            pacer.look(characters, now)
            if not characters:  # empty tokens
                count = intake.size
            if not self._emit_some(count):
                return self._undelivered()
            piece = pacer.piece(now)
            count, given = intake.portion(piece)
            if not self._emit_some(count):
                return self._undelivered()
            pacer.gave(given)
        if self._hub.held:
            intake.do_not_wake(self._epoch)
            return self._to("streaming", cancel_timeout(FLUSH))
        if not intake.size:
            return self._wait_for_more(1)
        if not intake.wait_for(intake.buffer.max_size, self._epoch):  # before the tick comes only an event, or no room
            self.actor_inbox.put(PUSHED)
        return self._to("streaming", timeout(FLUSH, pacer.ready_at, absolute=True))

    def _emit_some(self, count: int) -> bool:
        """Emit so many tokens and events, unless a subscriber is slow; returns whether that worked."""
        log = self._log
        while count > 0 and not self._hub.held:
            tokens = log.tokens
            if not self._delivery.emit(min(count, self._largest), None):
                return False
            count -= log.tokens - tokens or 1
        return True

    def _flush_after(self) -> float:
        """For how long a token waits for its batch to fill."""
        sizer = self._sizer
        return self._options.flush_interval if sizer is None else sizer.wait(self.runtime.clock.monotonic())

    def _due(self, limit: int) -> int:
        """How many tokens need room in the bucket now: none if a tool event comes first."""
        return self._intake.due(limit) if self._intake.buffer.events else limit

    def _wait_for_more(self, emitted: int, *replies: Action) -> Transition:
        """Wait for the next batch, but not longer than the buffered tokens may wait."""
        intake, options = self._intake, self._options
        size = intake.size
        if not size and self._ending is not None:
            intake.close(self._epoch)
            if not intake.size:
                return self._conclude(self._ending, *replies)
            self.actor_inbox.put(OVERDUE)  # pushed just before the intake was closed
            return self._to("streaming", *replies)
        if size and options.strategy == "time":
            intake.do_not_wake(self._epoch)
        elif not intake.wait_for(self._largest if size else 1, self._epoch):
            self.actor_inbox.put(PUSHED)  # pushed in the meantime
        if not size:
            self._tail_since = None
            # The stream becomes idle once the buffer has been empty for `flush_interval`, and needs no timer for that
            # where no token waits: there is never a tail.
            empty_for = 0.0 if options.passes else options.flush_interval
            if self._state == "idle" and not (emitted and empty_for):
                return Keep(*replies)
            return self._to("streaming", timeout(FLUSH, empty_for), *replies)
        state = "buffering" if not emitted and self._state in ("idle", "buffering") else "streaming"
        since = self._tail_since
        if since is None or emitted:
            since = self._tail_since = self.runtime.clock.monotonic()
        if options.strategy == "batch":
            return self._to(state, cancel_timeout(FLUSH), *replies)
        return self._to(state, timeout(FLUSH, since + self._flush_after(), absolute=True), *replies)

    def _look_again(self) -> Event:
        """The event to handle after a change: `OVERDUE` if the tail has waited for long enough, else `PUSHED`."""
        since = self._tail_since
        if since is None or self.runtime.clock.monotonic() < since + self._flush_after():
            return PUSHED
        return OVERDUE

    def _limit_rate(self, delay: float, *replies: Action) -> Transition:
        self._intake.do_not_wake(self._epoch)
        self._tail_since = None
        return self._to("rate_limited", state_timeout(delay), cancel_timeout(FLUSH), *replies)

    def _undelivered(self, *replies: Action) -> Transition:
        """Wait and try again, or end the stream. The batch that could not be delivered is back in the buffer."""
        delivery = self._delivery
        if delivery.problem is None:
            return Stop(NORMAL, *replies)
        self._intake.do_not_wake(self._epoch)
        self._tail_since = None
        failure = delivery.count_failure()
        if failure is not None:
            if not self._options.auto_restart:
                return self._conclude(Fail(failure), *replies)
            self._stream.restart_in = "error"
            raise failure
        if self._state == "paused":  # a forced flush failed
            self._before_pause = "error"
            return Keep(*replies)
        return self._to("error", *self._recovery(), cancel_timeout(FLUSH), *replies)

    def _recovery(self) -> tuple[Action, ...]:
        return (state_timeout(self._options.error_recovery_delay),) if self._options.error_recovery else ()

    def _conclude(self, ending: Ending, *replies: Action) -> Transition:
        """End the stream, and stop."""
        self._stream.finish(ending, self._epoch)
        return Stop(NORMAL, *replies)

    def _to(self, state: str, *actions: Action) -> Next:
        record = self._stream
        if state != record.state and record.ref is self._actor_ref:  # not if this actor has been abandoned
            record.counters.state_changes += 1
            record.counters.last_activity = now = self.runtime.clock.monotonic()
            if self._options.debug:
                stream_logger(record.stream_id, True).debug("state", state=state, was=record.state)
            record.enter(state, _cause_of(self._event), now)
        return Next(state, *actions)

    def _set_rhythm(self, options: StreamOptions) -> None:
        """Choose what decides when tokens are emitted. What has been measured, and used of the rate, stays."""
        record, now = self._stream, self.runtime.clock.monotonic()
        self._largest = options.largest_batch
        self._passes = options.passes and record.journal is None
        self._rhythm: Callable[[Emitter, bool], Transition] | None = None  # not bound: it would be a circle
        record.rhythm = None
        if options.pacing == "adaptive":
            self._pacer = pacer = self._pacer or Pacer(options.max_lag)
            pacer.max_lag = options.max_lag
            self._bucket, self._sizer = None, None
            self._rhythm, record.rhythm = Emitter._advance_paced, pacer.counters
            return
        self._pacer = self._sizer = None
        capacity, rate = self._largest, options.rate_limit
        if options.batch_size == "adaptive":
            self._sizer = sizer = BatchSizer(options.target_latency, now)
            self._rhythm, record.rhythm = Emitter._advance_measured, sizer.counters
            capacity = capacity if rate is None else max(1, min(capacity, int(rate / 10)))
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = TokenBucket(rate, capacity, now)
        else:
            self._bucket.change(rate, capacity, now)
        if options.batch_size == "adaptive" and self._bucket is not None:
            self._largest = capacity


def _cause_of(event: Any) -> str:
    """What an event is called in the table of moves."""
    kind = event.__class__
    if kind is Internal:
        cause: str = event.message
        return cause
    if kind is NamedTimeout:
        return "flush timeout"
    return "state timeout" if kind is StateTimeout else type(event.message).__name__
