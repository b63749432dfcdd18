"""The stream's actor: a state machine that batches, paces and numbers pushed tokens, and appends them to the log.

| state | meaning |
|---|---|
| ``idle`` | the buffer is empty, no timer runs |
| ``buffering`` | less than a batch is buffered, for less than ``flush_interval`` so far |
| ``streaming`` | batches are emitted; the flush timer runs whenever the buffer is not empty |
| ``rate_limited`` | the token bucket has no room for the next batch; left as soon as it has |
| ``paused`` | a user has paused the stream |
| ``error`` | a batch could not be delivered (the journal failed); retried after ``error_recovery_delay`` |

With ``pacing="adaptive"``, `Pacer` decides how much is emitted at each tick; with ``batch_size="adaptive"``,
`BatchSizer` for how long less than a batch waits.

A tool event does not wait for a batch to fill. The tokens before it are emitted at once, as if the flush timer had
expired, and then the event itself, as one event in the log. The tokens after it wait as usual. A pause, an error, a
slow ``block`` subscriber and the strategy ``time`` delay a tool event like everything else, and so does the rate limit
that applies to the tokens before it.

Accepts: `Flush`, `Pause`, `Resume`, `StopStream`, `Cancel`, `SetOptions`, `GetState`, `GetStatistics`, `Reset` as
calls, in every state; `Complete`, `Fail` from its feed.
Sends: events to the log, and a notice of them to the hub's subscribers.
Fails: with any exception; the log, the buffer and the subscribers are in its `StreamRecord` and outlive it.
"""

from __future__ import annotations

from typing import Any

from penstock.actors.runtime.signals import NORMAL, is_clean
from penstock.actors.runtime.transitions import (
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
)
from penstock.actors.stream.delivery import Delivery
from penstock.actors.stream.direct import DirectEmitter
from penstock.actors.stream.emitting import FLUSH
from penstock.actors.stream.heads import kept_options
from penstock.actors.stream.messages import (
    JOINED,
    OVERDUE,
    PUSHED,
    RELEASED,
    Cancel,
    Complete,
    Ending,
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
from penstock.actors.stream.record import StreamRecord
from penstock.errors import OptionError, StreamCrashed

__all__ = ["TokenStream"]


class TokenStream(DirectEmitter):
    """See the module's docstring. The handler starts one for each stream, with the stream's record."""

    def init(self, record: StreamRecord) -> Next | Stop:
        if record.is_over:
            return Stop(NORMAL)  # the previous actor crashed after it had ended the stream
        self._stream = record
        self._log = record.log
        self._intake = record.intake
        self._hub = record.hub
        self._options = record.options
        self._pacer = self._sizer = self._bucket = None
        self._set_rhythm(record.options)
        self._tail_since: float | None = None  # when the first token of an incomplete batch was seen
        self._before_pause = "idle"
        self.trap_exit = True
        restarted = record.ref is not None
        record.ref = self.ref
        self._ending = record.ending  # proposals are written before they are sent, so none is missed
        self._epoch = epoch = record.new_epoch()
        self._delivery = Delivery(record, epoch)
        self._hub.held = False
        self._intake.attach(self.actor_inbox, self._log.written, epoch)
        if isinstance(self._ending, Cancel):  # cancelled while there was no actor
            self.actor_inbox.put(Cast(self._ending))  # not ended here: the journal may hang, and this is the supervisor
        if restarted:
            return self._take_over()
        if record.restart_in == "paused":  # it was where it ran before
            return self._stay_paused()
        if not self._intake.wait_for(1, epoch) or self._ending is not None:
            self.actor_inbox.put(PUSHED)
        return Next("idle")

    def _take_over(self) -> Next:
        """Continue where the previous actor crashed."""
        record = self._stream
        self._hub.announce()  # the previous actor may have crashed just before this
        record.counters.restarts += 1
        before, record.restart_in = record.restart_in, "idle"
        if self._bucket is not None:  # how much the previous actor emitted is not known: assume the most
            self._bucket.take(self._bucket.capacity, self.runtime.clock.monotonic())
        if before == "paused":
            return self._stay_paused()
        if before == "error":  # the error was the crash (`auto_restart`), so it recovers in any case
            record.enter("error", "restart", self.runtime.clock.monotonic())
            return Next("error", state_timeout(self._options.error_recovery_delay))
        record.enter("idle", "restart", self.runtime.clock.monotonic())
        self.actor_inbox.put(OVERDUE)  # to be handled when this process runs, not within its supervisor's start
        return Next("idle")

    def _stay_paused(self) -> Next:
        self._stream.restart_in = "paused"
        self._stream.enter("paused", "restart", self.runtime.clock.monotonic())
        return Next("paused")

    @property
    def made_by(self) -> str:
        """For people: what the stream is made by and from, if neither by a call nor by hand."""
        record = self._stream
        if record.kind is None:
            return ""
        return f"{record.kind} of {', '.join(record.parents)}" if record.parents else record.kind

    # --- states ------------------------------------------------------------------------------------------------------

    def idle(self, event: Event) -> Transition:
        """Nothing is buffered."""
        if event is PUSHED:
            return self._advance(tail=False)
        if event is OVERDUE:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def buffering(self, event: Event) -> Transition:
        """Less than a batch is buffered."""
        if event is PUSHED:
            return self._advance(tail=False)
        if event.__class__ is NamedTimeout or event is OVERDUE:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def streaming(self, event: Event) -> Transition:
        """Batches are emitted."""
        if event is PUSHED:
            return self._advance(tail=False)
        if event is OVERDUE or event is RELEASED:
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
        """Nothing is emitted."""
        if isinstance(event, Call) and isinstance(event.message, Resume):
            return self._resume(event)
        return self._in_any_state(event)

    def error(self, event: Event) -> Transition:
        """The last batch could not be delivered and is back in the buffer."""
        if event.__class__ is StateTimeout:
            return self._advance(tail=True)
        return self._in_any_state(event)

    def _in_any_state(self, event: Event) -> Transition:
        if event is JOINED:
            self._hub.announce()
            return None
        match event:
            case Call(message=StopStream(ending=wanted)):  # first, as it is in haste
                return self._stop_stream(event, wanted)
            case NamedTimeout() | StateTimeout() | Internal():
                return None  # meant for a state that has been left since
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
            case Call(message=Cancel() as ending):
                return self._conclude(ending, answer(event.reply_to))
            case Cast(message=Cancel() as ending):
                return self._conclude(ending)
            case Cast(message=Complete() | Fail() as ending):
                self._ending = self._ending or ending
                return self._advance(tail=True) if self._state in ("idle", "buffering", "streaming") else None
            case Call(message=Reset() as reset):
                return self._reset(event, reset)
        return self.unhandled(event)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _flush(self, event: Call, *, force: bool) -> Transition:
        """Emit what is buffered now. Tokens that are pushed meanwhile do not count, so that this has an end."""
        log, bucket, batch_size = self._log, self._bucket, self._largest
        paused = self._state == "paused"
        before, emitted = log.tokens, 0
        goal = self._intake.size  # tokens and tool events
        while emitted < goal and self._intake.size and (force or not (paused or self._hub.held)):
            limit = min(goal - emitted, batch_size)
            if not force and bucket is not None and (limit := self._due(limit)):
                delay = bucket.delay(limit, self.runtime.clock.monotonic())
                if delay:
                    return self._limit_rate(delay, answer(event.reply_to, log.tokens - before))
            tokens = log.tokens
            if not self._delivery.emit(limit, bucket):
                return self._undelivered(answer(event.reply_to, log.tokens - before))
            emitted += log.tokens - tokens or 1
        reply = answer(event.reply_to, log.tokens - before)
        if self._intake.size and (not emitted or self._state in ("rate_limited", "error", "paused")):
            return Keep(reply)
        if paused:
            self._tail_since = None
            return Keep(reply)
        return self._wait_for_more(emitted, reply)

    def _pause(self, event: Call) -> Transition:
        if self._state != "paused":
            self._before_pause = self._state
            self._stream.keep(paused=True)
        self._stream.restart_in = "paused"
        self._intake.do_not_wake(self._epoch)
        return self._to("paused", cancel_timeout(FLUSH), answer(event.reply_to))

    def _resume(self, event: Call) -> Transition:
        self._stream.restart_in = "idle"
        self._stream.keep(paused=False)
        self._stream.note_release()
        before = self._before_pause
        if before == "error":
            return self._to("error", *self._recovery(), answer(event.reply_to))
        if before == "rate_limited":
            return self._to("streaming", answer(event.reply_to), next_event(OVERDUE))
        return self._to(before, answer(event.reply_to), next_event(self._look_again()))

    def _set_options(self, event: Call, changes: dict[str, Any]) -> Transition:
        try:
            options = self._options.replace(**changes)
        except (OptionError, TypeError) as error:
            return Keep(answer_error(event.reply_to, error))
        self._set_rhythm(options)
        self._options = self._stream.options = options
        self._stream.keep(options=kept_options(options))
        self._intake.change(options)
        self._log.retain_bytes = options.retain_bytes
        if self._state == "paused":
            if self._before_pause == "error":
                self._before_pause = "rate_limited"  # what is buffered is emitted as soon as it may be
            return Keep(answer(event.reply_to))
        if self._state in ("error", "rate_limited"):
            return self._to("streaming", answer(event.reply_to), next_event(OVERDUE))
        return self._to(self._state, answer(event.reply_to), next_event(self._look_again()))

    def _stop_stream(self, event: Call, wanted: Ending | None) -> Transition:
        ending = self._ending or self._stream.ending or wanted or Complete()
        return self._conclude(self._empty_buffer(ending) or ending, answer(event.reply_to))

    def _empty_buffer(self, ending: Ending) -> Fail | None:
        """Close the intake and emit everything; returns how the stream ends if that fails, else None."""
        self._stream.propose(ending, by=self.ref)  # if this actor crashes, the next one ends the stream with it
        self._intake.close(self._epoch)
        delivery = self._delivery
        while self._intake.size:
            if not delivery.emit(self._largest, self._bucket):
                if delivery.problem is None:
                    break
                failure = delivery.count_failure()
                if failure is not None:
                    return Fail(failure)
        return None

    def _reset(self, event: Call, reset: Reset) -> Transition:
        log = self._log
        if reset.origin is None:
            self._intake.restart(log.text_length(), log.written)
            self._stream.void_answer()
        else:
            self._intake.discard_origin(reset.origin)
        self._tail_since = None
        self._delivery.reset(reset.reason, reset.origin)
        if self._state == "paused":
            return Keep(answer(event.reply_to))
        return self._wait_for_more(0, answer(event.reply_to))

    # --- the end -----------------------------------------------------------------------------------------------------

    def terminate(self, reason: object) -> None:
        """Emit what is buffered if the supervisor ends the actor. After a crash, the next actor continues."""
        if is_clean(reason) and self.is_alive and not self._stream.is_over:
            ending, crash = self._ending, StreamCrashed(self._stream.stream_id, ("supervisor", reason))
            self._conclude(self._empty_buffer(ending or Complete()) or ending or Fail(crash))
        self.ends_quietly = self._stream.is_settled

    def dispose(self, reason: object) -> None:
        """Called once by the runtime when this actor is dead, in any thread. What is over has no actor any more."""
        record: StreamRecord | None = getattr(self, "_stream", None)  # None: it did not start
        if record is not None and record.is_over and record.ref is self._actor_ref:
            record.ref = None
        super().dispose(reason)

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
