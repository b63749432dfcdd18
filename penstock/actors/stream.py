"""The stream: a state machine that batches, paces and numbers what is pushed, and appends it to the log.

| state | meaning |
|---|---|
| ``idle`` | the buffer is empty, no timer runs |
| ``buffering`` | less than a batch is there, and has been for less than ``flush_interval`` |
| ``streaming`` | batches go out; the flush timer runs whenever the buffer is not empty |
| ``rate_limited`` | the token bucket has no room for the next batch; goes on exactly when it has |
| ``paused`` | the user said so |
| ``error`` | a batch could not be delivered (its journal failed); tries again after ``error_recovery_delay`` |

Accepts: `Flush`, `Pause`, `Resume`, `StopStream`, `Cancel`, `SetOptions`, `GetState`, `GetStatistics`, `Reset` as
calls, in every state; `Complete`, `Fail` from its source.
Sends: its events to the log, and word of them to the hub's subscribers.
Fails: with whatever breaks; the log, the buffer and the subscribers are in its `StreamRecord` and outlive it.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.actors.flow.bucket import TokenBucket
from penstock.actors.flow.log import Outcome
from penstock.actors.messages import (
    Cancel,
    Complete,
    Fail,
    Flush,
    GetState,
    GetStatistics,
    Pause,
    Reset,
    Resume,
    SetOptions,
    StopStream,
)
from penstock.actors.record import StreamRecord
from penstock.actors.runtime.signals import NORMAL, is_clean
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Action,
    Call,
    Cast,
    Event,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    StateTimeout,
    Stop,
    Transition,
    answer,
    answer_error,
    cancel_timeout,
    next_event,
    state_timeout,
    timeout,
)
from penstock.config.logs import get_logger, stream_logger
from penstock.config.options import StreamOptions
from penstock.errors import DeliveryError, OptionError
from penstock.events import StreamReset, TokenEvent

__all__ = ["TokenStream"]

_FLUSH: Final = "flush"  # the flush timer; in `streaming` with an empty buffer it leads to `idle`
_BATCHES_A_TURN: Final = 64  # then others have their turn

_PUSHED: Final = Internal("pushed")  # the intake has as many tokens as we wanted to be told of
_RELEASED: Final = Internal("released")  # no subscriber holds us any more


class TokenStream(StateMachine):
    """See the module's docstring. Made by the handler, one for each stream, with the stream's record."""

    def init(self, record: StreamRecord) -> Next:
        self._stream = record
        self._log = record.log
        self._intake = record.intake
        self._hub = record.hub
        self._options = record.options
        self._bucket = self._make_bucket(record.options)
        self._tail_timed = False  # the flush timer runs for the tokens that are buffered
        self._failures = 0  # deliveries that failed in a row
        self._problem: Exception | None = None  # why the last one did
        self._before_pause = "idle"
        self._ending = record.ending
        self.trap_exit = True
        if record.ref is not None:
            record.counters.restarts += 1
        record.ref = self.ref
        record.state = "idle"
        self._epoch = self._log.new_epoch()
        wake = self.actor_inbox.put
        self._hub.held = False
        self._hub.on_release = lambda: wake(_RELEASED)
        self._intake.attach(lambda: wake(_PUSHED), self._log.last_seq)
        return Next("idle", next_event(_PUSHED))

    # --- states --------------------------------------------------------------------------------------------------

    def idle(self, event: Event) -> Transition:
        """Nothing is buffered."""
        if event is _PUSHED:
            return self._advance(tail=False)
        return self._in_any_state(event)

    def buffering(self, event: Event) -> Transition:
        """Less than a batch is buffered."""
        if event is _PUSHED:
            return self._advance(tail=False)
        if event.__class__ is NamedTimeout:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def streaming(self, event: Event) -> Transition:
        """Batches go out."""
        if event is _PUSHED:
            return self._advance(tail=False)
        if event is _RELEASED:
            return self._advance(tail=True)
        if event.__class__ is NamedTimeout:
            return self._advance(tail=True) if self._intake.size else self._to("idle")
        return self._in_any_state(event)

    def rate_limited(self, event: Event) -> Transition:
        """The bucket has no room for the next batch."""
        if event.__class__ is StateTimeout:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def paused(self, event: Event) -> Transition:
        """Nothing goes out."""
        if isinstance(event, Call) and isinstance(event.message, Resume):
            before = self._before_pause
            if before == "error":
                return self._to("error", *self._recovery(), answer(event.reply_to))
            if before == "rate_limited":
                before = "streaming"
            return self._to(before, answer(event.reply_to), next_event(_PUSHED))
        return self._in_any_state(event)

    def error(self, event: Event) -> Transition:
        """The last batch could not be delivered; it is in the buffer again."""
        if event.__class__ is StateTimeout:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def _in_any_state(self, event: Event) -> Transition:
        match event:
            case NamedTimeout() | StateTimeout() | Internal():
                return None  # meant for a state that has been left meanwhile
            case Call(message=GetState()):
                return Keep(answer(event.reply_to, self._state))
            case Call(message=GetStatistics()):
                return Keep(answer(event.reply_to, self._stream.statistics()))
            case Call(message=Flush(force=force)):
                return self._flush(event, force=force)
            case Call(message=Pause()):
                return self._pause(event)
            case Call(message=Resume()):
                return Keep(answer(event.reply_to))
            case Call(message=SetOptions(changes=changes)):
                return self._set_options(event, dict(changes))
            case Call(message=StopStream()):
                return self._stop_stream(event)
            case Call(message=Cancel(reason=reason)):
                return self._cancel_stream(reason, answer(event.reply_to))
            case Cast(message=Cancel(reason=reason)):
                return self._cancel_stream(reason)
            case Cast(message=Complete() | Fail() as ending):
                self._ending = self._ending or ending
                return self._advance(tail=True) if self._state in ("idle", "buffering", "streaming") else None
            case Call(message=Reset(reason=reason)):
                return self._reset(event, reason)
        return self.unhandled(event)

    # --- emitting ------------------------------------------------------------------------------------------------

    def _advance(self, *, tail: bool) -> Transition:
        """Emit what may go out now, and say where that leads. Without ``tail``, less than a batch has to wait."""
        intake, bucket = self._intake, self._bucket
        batch_size = self._options.batch_size
        strategy = self._options.strategy
        if self._ending is not None:
            tail = True
        elif strategy == "batch":
            tail = False
        emitted = 0
        while emitted < _BATCHES_A_TURN:
            size = intake.size
            if not size or (size < batch_size and not tail) or (strategy == "time" and not tail):
                return self._wait_for_more(emitted)
            if self._hub.held:
                intake.do_not_wake()
                return self._to("streaming")
            if bucket is not None:
                delay = bucket.delay(min(size, batch_size), self.runtime.clock.monotonic())
                if delay:
                    return self._limit_rate(delay)
            if not self._emit():
                return self._undelivered()
            emitted += 1
        intake.do_not_wake()
        self.actor_inbox.put(_RELEASED if tail else _PUSHED)  # go on after the others have had their turn
        return self._to("streaming")

    def _wait_for_more(self, emitted: int, *replies: Action) -> Transition:
        """All that may go out is out: wait for the next batch, and for no longer than the tail may wait."""
        intake, options = self._intake, self._options
        size = intake.size
        if not size and self._ending is not None:
            return self._conclude(self._ending, *replies)
        if not intake.wait_for(options.batch_size if size else 1) and options.strategy != "time":
            self.actor_inbox.put(_PUSHED)  # came just now
        if not size:
            self._tail_timed = False
            if not emitted and self._state == "idle":
                return Keep(*replies)
            # Empty for as long as a flush would have waited, it is idle.
            return self._to("streaming", timeout(_FLUSH, options.flush_interval), *replies)
        state = "buffering" if not emitted and self._state in ("idle", "buffering") else "streaming"
        if options.strategy == "batch":
            return self._to(state, cancel_timeout(_FLUSH), *replies)
        if self._tail_timed and not emitted:
            return self._to(state, *replies)
        self._tail_timed = True
        return self._to(state, timeout(_FLUSH, options.flush_interval), *replies)

    def _limit_rate(self, delay: float) -> Transition:
        self._intake.do_not_wake()
        self._tail_timed = False
        return self._to("rate_limited", state_timeout(delay), cancel_timeout(_FLUSH))

    def _emit(self) -> bool:
        """Deliver one batch; returns whether that worked. If not, ``_problem`` says why."""
        intake, log, record = self._intake, self._log, self._stream
        seq = log.last_seq + 1
        batch, dropped = intake.take(self._options.batch_size, seq)
        assert batch is not None
        clock = self.runtime.clock
        kind, tokens = batch
        text = "".join(tokens)
        event = TokenEvent(record.stream_id, seq, tokens, text, kind, clock.time(), record.metadata, dropped)
        if record.journal is not None:
            try:
                record.journal.append(event)
            except Exception as error:
                self._problem = error
                intake.restore(dropped)
                return False
        if not log.append(self._epoch, event):  # the stream has been ended, or another actor has taken over
            self._problem = None
            intake.restore(dropped)
            return False
        intake.commit()
        now = clock.monotonic()
        if self._bucket is not None:
            self._bucket.take(len(tokens), now)
        record.counters.delivered(len(tokens), len(text) if text.isascii() else len(text.encode()), now)
        self._failures = 0
        if self._hub.announce():
            record.counters.held += 1
        return True

    def _undelivered(self, *replies: Action) -> Transition:
        """The batch is in the buffer again: wait and try again, or give up."""
        record = self._stream
        if self._problem is None:
            return Stop(NORMAL, *replies)
        record.counters.errors += 1
        self._failures += 1
        self._intake.do_not_wake()
        self._tail_timed = False
        get_logger(stream_id=record.stream_id).warning(
            "delivery_failed", error=type(self._problem).__name__, failures=self._failures
        )
        if self._failures < self._options.max_errors:
            return self._to("error", *self._recovery(), cancel_timeout(_FLUSH), *replies)
        error = DeliveryError(record.stream_id, self._failures)
        error.__cause__ = self._problem
        if self._options.auto_restart:
            raise error
        return self._conclude(Fail(error, Outcome()), *replies)

    def _recovery(self) -> tuple[Action, ...]:
        return (state_timeout(self._options.error_recovery_delay),) if self._options.error_recovery else ()

    # --- calls ---------------------------------------------------------------------------------------------------

    def _flush(self, event: Call, *, force: bool) -> Transition:
        before = self._log.tokens
        bucket = self._bucket
        paused = self._state == "paused"
        while self._intake.size and (force or not (paused or self._hub.held)):
            size = min(self._intake.size, self._options.batch_size)
            if not force and bucket is not None and bucket.delay(size, self.runtime.clock.monotonic()):
                break
            if not self._emit():
                return self._undelivered(answer(event.reply_to, self._log.tokens - before))
        reply = answer(event.reply_to, self._log.tokens - before)
        if paused or self._intake.size:
            return Keep(reply)
        return self._wait_for_more(self._log.tokens - before, reply)

    def _pause(self, event: Call) -> Transition:
        if self._state != "paused":
            self._before_pause = self._state
        self._intake.do_not_wake()
        self._tail_timed = False
        return self._to("paused", cancel_timeout(_FLUSH), answer(event.reply_to))

    def _set_options(self, event: Call, changes: dict[str, Any]) -> Transition:
        try:
            options = self._options.replace(**changes)
        except OptionError as error:
            return Keep(answer_error(event.reply_to, error))
        now = self.runtime.clock.monotonic()
        if options.rate_limit is None or self._bucket is None:
            self._bucket = self._make_bucket(options)
        else:
            self._bucket.change(options.rate_limit, options.batch_size, now)
        self._options = self._stream.options = options
        self._intake.change(options)
        self._log.retain_bytes = options.retain_bytes
        self._tail_timed = False
        if self._state == "paused":
            if self._before_pause == "error":
                self._before_pause = "streaming"
            return Keep(answer(event.reply_to))
        state = "streaming" if self._state in ("error", "rate_limited") else self._state
        return self._to(state, answer(event.reply_to), next_event(_PUSHED))

    def _stop_stream(self, event: Call) -> Transition:
        self._intake.close()
        while self._intake.size:
            if not self._emit():
                error = DeliveryError(self._stream.stream_id, self._failures + 1)
                error.__cause__ = self._problem
                return self._conclude(Fail(error, Outcome()), answer(event.reply_to))
        return self._conclude(self._ending or Complete(Outcome()), answer(event.reply_to))

    def _cancel_stream(self, reason: str | None, *replies: Action) -> Transition:
        return self._conclude(Cancel(reason), *replies)

    def _reset(self, event: Call, reason: str) -> Transition:
        self._intake.clear()
        log = self._log
        reset = StreamReset(log.stream_id, log.last_seq + 1, reason, self.runtime.clock.time(), log.metadata)
        if log.append(self._epoch, reset):
            self._hub.announce()
        return Keep(answer(event.reply_to))

    # --- the end -------------------------------------------------------------------------------------------------

    def terminate(self, reason: object) -> None:
        """Told to end by its supervisor, it lets out what it has; a crash leaves everything for the next one."""
        if is_clean(reason) and self.is_alive and not self._stream.is_over:
            self._intake.close()
            while self._intake.size and self._emit():
                pass
            unfinished = self._stream.source is not None and self._ending is None
            self._conclude(Cancel("shutdown") if unfinished else self._ending or Complete(Outcome()))

    def _conclude(self, ending: Complete | Fail | Cancel, *replies: Action) -> Transition:
        """Write the terminal event, tell everybody, and stop."""
        intake, log, record = self._intake, self._log, self._stream
        intake.close()
        dropped = intake.take_dropped()
        now = self.runtime.clock.time()
        match ending:
            case Complete(outcome=outcome):
                ended = log.complete(outcome, dropped, now, self._epoch)
            case Fail(error=error, outcome=outcome):
                ended = log.fail(error, outcome, dropped, now, self._epoch)
            case Cancel(reason=reason):
                intake.clear()
                ended = log.cancel(reason, Outcome(), dropped, now, self._epoch)
        if ended:
            if record.journal is not None and log.terminal is not None:
                try:
                    record.journal.append(log.terminal)
                except Exception as problem:  # it has ended all the same: only the journal does not know
                    get_logger(stream_id=record.stream_id).error(
                        "terminal_event_not_in_journal", error=type(problem).__name__
                    )
            record.counters.state_changes += 1
            record.conclude()
        source = record.source
        if source is not None and source.ref is not None and ending is not self._ending:
            source.ref.tell(Cancel())
        return Stop(NORMAL, *replies)

    def _to(self, state: str, *actions: Action) -> Next:
        record = self._stream
        if state != record.state:
            record.counters.state_changes += 1
            record.counters.last_activity = self.runtime.clock.monotonic()
            if self._options.debug:
                stream_logger(record.stream_id, True).debug("state", state=state, was=record.state)
            record.state = state
        return Next(state, *actions)

    def _make_bucket(self, options: StreamOptions) -> TokenBucket | None:
        if options.rate_limit is None:
            return None
        return TokenBucket(options.rate_limit, options.batch_size, self.runtime.clock.monotonic())

    def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """State, sizes, options, timers; no text, no key, no metadata."""
        record = self._stream
        return status | {
            "stream_id": record.stream_id,
            "buffer_size": self._intake.size,
            "last_seq": self._log.last_seq,
            "subscribers": len(self._hub.subscriptions),
            "options": record.options,
        }
