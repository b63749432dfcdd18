"""The integration: runs one provider request for one stream, from the gate to the end, with retries and fallbacks.

States: ``limited`` (waits at the gate, for our own limits) → ``queued`` (waits for a reader) → ``connecting`` →
``waiting`` (for the first delta) → ``streaming`` → done; ``retry_wait`` between attempts. Tokens do not pass through
this process: the reader's thread pushes them into the stream's intake (`Attempt`), and sends a message for every other
step.

Accepts: `Cancel` from its stream; the messages of its `Attempt`.
Sends: `Reset`, `Complete` or `Fail` to the stream; `RoundEnded` to the conductor in place of the last two if there is
one. It never blocks.
Fails: restarted by its supervisor; it then continues as if the connection had broken.
"""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from penstock.actors.call.attempt import Attempt
from penstock.actors.call.gate import Admitted, Refused, Wait
from penstock.actors.call.messages import Connecting, Ended, Finished, FirstDelta, Waiting
from penstock.actors.call.overlap import Overlap
from penstock.actors.call.record import CallRecord
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import NORMAL, Ephemeral, ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Cast,
    Event,
    Info,
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
from penstock.actors.stream.messages import Cancel, Reset
from penstock.actors.stream.record import StreamRecord
from penstock.config.limits import LimitOptions
from penstock.config.logs import get_logger
from penstock.errors import (
    ApiError,
    CircuitOpen,
    IncompleteStream,
    PenstockError,
    ProcessDead,
    ProviderBusy,
    ProviderError,
    ProviderTimeout,
)
from penstock.ports import CanResume

__all__ = ["Integration"]

_TOTAL: Final = "total"
_QUEUE: Final = "queue"
_QUEUE_TIMEOUT: Final = LimitOptions().queue_timeout
_GRACE: Final = "grace"
_RESET: Final = "reset"
_RESET_AGAIN: Final = 0.02  # seconds until a stream that crashed is requested for a reset again
_READER_AGAIN: Final = 0.02  # seconds between two checks whether a reader has ended, so that its decoder can be used
_READER_PATIENCE: Final = 1.0  # seconds to wait for that


class _ResetAnswered(Ephemeral, msgspec.Struct, frozen=True):
    """The stream has been reset, or has crashed instead."""

    reply: Reply


class _Turn(Ephemeral, msgspec.Struct, frozen=True):
    """The gate may admit the ticket now that has this ``wake``."""

    wake: _Wake


class _Wake:
    """What a ticket calls when it may be admitted. It does not know the ticket, which has it."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Mailbox) -> None:
        self._inbox = inbox

    def __call__(self) -> None:
        self._inbox.put(Cast(_Turn(self)))


class Integration(StateMachine):
    """See the module's docstring. Started by the handler, under the supervisor of sources."""

    def init(self, record: StreamRecord, call: CallRecord) -> Next | Stop:
        self._stream = record
        self._call = call
        self._options = call.options
        self.trap_exit = True  # so that `terminate` closes the connection when the supervisor ends
        self._random = random.Random(record.stream_id)  # noqa: S311 - jitter, reproducible in simulations
        self._reset_for: str | None = None  # the reason of a reset that the stream has not confirmed
        self._wait_is_over = False
        # The attempt to resume, its error, and until when to wait for its reader.
        self._interrupted: tuple[Attempt, PenstockError, float] | None = None
        self._waiting_since = 0.0
        self._attempt: Attempt | None = None
        before: Attempt | None = call.take_over(self.ref)  # first: from now on `cancel` notifies this process
        is_over = call.is_cancelled or call.is_handed_over or record.feed is not call
        if is_over or record.is_over or record.ending is not None:
            return Stop(NORMAL)
        if call.began_at is None:
            call.began_at = self.runtime.clock.time()
        if call.deadline is None and self._options.total_timeout is not None:
            call.deadline = self.runtime.clock.monotonic() + self._options.total_timeout
        total = timeout(_TOTAL, call.deadline, absolute=True)
        if before is None and not call.started:
            transition = self._begin_attempt()
        else:  # text without an attempt: the last integration was killed during a reset
            transition = self._failed(IncompleteStream("the integration crashed"), before)
        if isinstance(transition, Next):
            return Next(transition.state, *transition.actions, total)
        assert isinstance(transition, Stop)
        return transition

    # --- states --------------------------------------------------------------------------------------------------

    def limited(self, event: Event) -> Transition:
        """The ticket waits at the gate."""
        match event:
            case StateTimeout():
                return self._enter()
            case Cast(message=_Turn(wake=wake)):
                ticket = self._call.ticket
                return self._enter() if ticket is not None and ticket.wake is wake else None
            case NamedTimeout(name="queue"):
                gate, own_ticket = self._call.candidate.gate, self._call.ticket
                if gate is None or own_ticket is None:  # the system is being stopped
                    return None
                return self._failed(gate.timed_out(own_ticket), None)
        return self._in_any_state(event)

    def queued(self, event: Event) -> Transition:
        """No reader has taken the request yet."""
        match event:
            case Cast(message=Connecting(attempt=number)) if self._is_current(number):
                return self._to("connecting", state_timeout(self._options.connect_timeout))
            case StateTimeout():
                call = self._call
                seconds = self._reader_patience
                detail = f"no reader thread was free within {seconds:g} s (queue_timeout); see runtime.reader_threads"
                return self._failed(ProviderBusy(call.candidate.account or call.provider.name, detail), self._attempt)
        return self._in_any_state(event)

    def connecting(self, event: Event) -> Transition:
        """A reader connects and sends the request."""
        match event:
            case Cast(message=Waiting(attempt=number)) if self._is_current(number):
                return self._wait_for_delta()
            case StateTimeout():
                return self._timed_out("connect", self._options.connect_timeout)
        return self._in_any_state(event)

    def _wait_for_delta(self) -> Transition:
        self._waiting_since = self.runtime.clock.monotonic()
        return self._to("waiting", state_timeout(self._options.first_token_timeout))

    def waiting(self, event: Event) -> Transition:
        """The request is sent, and no delta has come."""
        if event.__class__ is StateTimeout:
            attempt = self._attempt
            assert attempt is not None
            if attempt.has_progressed:  # its message is under way
                return self._to("streaming", state_timeout(self._options.idle_timeout))
            limit = self._limit(attempt, self._options.first_token_timeout)
            left = self._waiting_since + limit - self.runtime.clock.monotonic()
            if left > 1e-6:
                return Next("waiting", state_timeout(left))
            return self._timed_out("first_token", limit)
        return self._in_any_state(event)

    def streaming(self, event: Event) -> Transition:
        """Deltas arrive."""
        if event.__class__ is StateTimeout:
            attempt = self._attempt
            assert attempt is not None
            idle = 0.0 if attempt.is_pushing or self._stream.is_held else self._silence(attempt)
            limit = self._limit(attempt, self._options.idle_timeout)
            left = limit - idle
            if left > 1e-6:  # at most `idle_timeout`: there is no message when the reasoning ends
                return Next("streaming", state_timeout(min(left, self._options.idle_timeout)))
            return self._timed_out("idle", limit)
        return self._in_any_state(event)

    def _silence(self, attempt: Attempt) -> float:
        """For how many seconds the provider has sent nothing while the stream was ready for it."""
        return self.runtime.clock.monotonic() - max(attempt.last_progress, self._stream.released_at)

    def _limit(self, attempt: Attempt, usual: float) -> float:
        """The seconds for which the provider may be silent."""
        return max(usual, self._options.reasoning_timeout) if attempt.is_reasoning else usual

    def retry_wait(self, event: Event) -> Transition:
        """Wait for the next attempt, without holding a thread or a socket."""
        match event:
            case StateTimeout() if self._interrupted is not None:
                return self._resume(*self._interrupted)
            case StateTimeout() if self._reset_for is None:
                return self._begin_attempt()
            case StateTimeout():
                self._wait_is_over = True
                return None
            case Cast(message=_ResetAnswered(reply=reply)):
                return self._reset_answered(reply)
            case NamedTimeout(name="reset"):
                self._ask_for_reset()
                return None
        return self._in_any_state(event)

    def _in_any_state(self, event: Event) -> Transition:
        match event:
            case Cast(message=Ended(attempt=number) as ended):
                return self._ended(ended) if self._is_current(number) else None
            case Cast(message=Finished(attempt=number)):
                return Keep(timeout(_GRACE, self._options.finish_grace)) if self._is_current(number) else None
            case Cast(message=Waiting(attempt=number)) if self._is_current(number) and self._state == "queued":
                return self._wait_for_delta()
            case Cast(message=FirstDelta(attempt=number)) if self._is_current(number):
                return self._to("streaming", state_timeout(self._options.idle_timeout))
            case Cast(message=Connecting() | Waiting() | FirstDelta() | _ResetAnswered() | _Turn()):
                return None
            case Cast(message=Cancel()):
                return Stop(NORMAL)
            case NamedTimeout(name="total"):
                assert self._options.total_timeout is not None
                return self._timed_out("total", self._options.total_timeout)
            case NamedTimeout(name="grace"):
                attempt = self._attempt
                if attempt is None:
                    return None
                # Some providers send a finish reason with every piece: each further piece restarts the grace time.
                silent = 0.0 if attempt.is_pushing else self.runtime.clock.monotonic() - attempt.last_progress
                left = self._options.finish_grace - silent
                if left > 1e-6 and attempt.error is None:
                    return Keep(timeout(_GRACE, left))
                if attempt.is_pushing:  # the stream's buffer has no room yet
                    return Keep(timeout(_GRACE, self._options.finish_grace))
                return self._ended(Ended(attempt.number, attempt.error is None, None))
            case NamedTimeout(name="queue"):
                return None  # admitted just now
            case Info(message=ExitNotice()):
                return None  # from a process that is not its parent
        return self.unhandled(event)

    # --- attempts ------------------------------------------------------------------------------------------------

    def _begin_attempt(self) -> Transition:
        """Begin an attempt by asking the gate."""
        self._interrupted = None
        gate = self._call.candidate.gate
        if gate is None:
            return self._send()
        with self._call.lock:
            if self._call.ref is not self.ref or self._call.is_cancelled:
                return Stop(NORMAL)  # another one has taken over, or the stream has ended
            self._call.take_ticket(gate, _Wake(self.actor_inbox), self._random.random())
        return self._enter(timeout(_QUEUE, gate.limits.queue_timeout))

    def _enter(self, *actions: Any) -> Transition:
        """Ask the gate for a place."""
        gate, ticket = self._call.candidate.gate, self._call.ticket
        if gate is None or ticket is None:  # the system is being stopped: nothing more is sent
            return self._to("limited")
        match gate.enter(ticket):
            case Admitted():
                return self._send()
            case Wait(seconds=seconds):
                return self._to("limited", *actions, state_timeout(seconds))
            case Refused(error=error):
                return self._failed(error, None)

    def _send(self) -> Transition:
        """Hand a new attempt to the reader."""
        call = self._call
        with call.lock:
            if call.ref is not self.ref or call.is_cancelled:
                return Stop(NORMAL)  # another one has taken over, or the stream has ended
            provider, request = call.begin_attempt()
            attempt = Attempt(self._stream, call, call.attempts, self.actor_inbox, self.runtime.clock)
            self._attempt = call.attempt = attempt
        try:
            attempt.take_job(call.reader.start(provider, request, self._options, attempt))
        except PenstockError as error:
            self.actor_inbox.put(Cast(Ended(attempt.number, False, error)))
        # The two timers are those of the previous attempt.
        wait = state_timeout(self._reader_patience)
        return self._to("queued", cancel_timeout(_QUEUE), cancel_timeout(_GRACE), wait)

    @property
    def _reader_patience(self) -> float:
        """Seconds to wait for a reader thread."""
        gate = self._call.candidate.gate
        return gate.limits.queue_timeout if gate is not None else _QUEUE_TIMEOUT

    def _is_current(self, number: int) -> bool:
        return self._attempt is not None and self._attempt.number == number

    def _ended(self, ended: Ended) -> Transition:
        attempt = self._attempt
        assert attempt is not None
        if attempt.error is not None:
            return self._failed(attempt.error, attempt)
        if ended.is_complete:
            return self._complete(attempt)
        return self._failed(ended.error or IncompleteStream("the connection was closed"), attempt)

    def _timed_out(self, which: str, seconds: float) -> Transition:
        attempt = self._attempt
        if attempt is None:
            return self._failed(ProviderTimeout(which, seconds), None, final=True)
        if attempt.is_finished:  # only the end marker is missing
            return self._ended(Ended(attempt.number, True, None))
        error: PenstockError = ProviderTimeout(which, seconds)
        if which == "idle" and attempt.has_held_finish:
            error = IncompleteStream(
                f"a finish reason came, but for {seconds:g} s no result of the provider's own tool"
            )
        return self._failed(error, attempt, final=which == "total")

    def _failed(self, error: PenstockError, attempt: Attempt | None, *, final: bool = False) -> Transition:
        """After a failed attempt: retry, fall back to the next candidate, or end the call with ``error``."""
        call = self._call
        if attempt is not None:
            attempt.abandon()
        if call.ref is not self.ref:
            return Stop(NORMAL)  # another one has taken over
        self._attempt = call.attempt = None
        self._stream.counters.failed_attempts += 1
        call.note_failure(error)
        if final:
            return self._give_up(error)
        if call.overlap is not None:
            return self._not_taken_up(error, attempt, call.overlap)
        delay = self._retry_after(error, attempt)
        if delay is not None:
            return self._retry(error, attempt, delay)
        if call.has_fallback and not (call.started and self._options.on_interrupt != "restart"):
            call.fall_back(error)
            get_logger(stream_id=self._stream.stream_id).info(
                "fallback", error=type(error).__name__, provider=call.candidate.account
            )
            return self._start_over(error, 0.0) if call.started else self._begin_attempt()
        return self._give_up(error)

    def _retry_after(self, error: PenstockError, attempt: Attempt | None) -> float | None:
        """Seconds until the present candidate is retried; None if it is not."""
        call, options = self._call, self._options
        if not isinstance(error, ProviderError) or isinstance(error, (ProviderBusy, CircuitOpen)):
            return None
        if not error.retryable or call.tries > options.max_retries:
            return None
        if call.started and call.overlap is None:
            if options.on_interrupt == "fail":
                return None
            if options.on_interrupt == "resume" and not self._may_resume(attempt):
                return None
        delay = self._delay(error)
        if delay is None:
            return None
        if call.retry_budget is not None and not call.retry_budget.may_retry():
            limits = call.retry_budget.options
            error.annotate(
                f"retries: refused by the retry budget (retry_budget allows {limits.floor} + {limits.ratio:g} for each "
                f"request in {limits.window:g} s)"
            )
            if call.candidate.gate is not None:
                call.candidate.gate.note_refused_retry()
            get_logger(stream_id=self._stream.stream_id).warning("retry_refused", error=type(error).__name__)
            return None
        return delay

    def _not_taken_up(self, error: PenstockError, attempt: Attempt | None, overlap: Overlap) -> Transition:
        """What the log has of the answer has not come again: ask for it once more, or for a new one behind a reset."""
        call = self._call
        delay = None if attempt is not None and attempt.is_other else self._retry_after(error, attempt)
        if delay is not None:
            _log_retry(self._stream, self._call, error, delay)
            return self._wait_to_retry(delay)
        if (attempt is None or isinstance(error, (ProviderBusy, CircuitOpen))) and not overlap.is_empty:
            return self._give_up(error)  # a new request would be refused too, and what the log has would be void
        get_logger(stream_id=self._stream.stream_id).warning("answer_not_taken_up", error=type(error).__name__)
        call.begin_anew()
        if overlap.is_empty and not call.started:
            return self._begin_attempt()
        return self._start_over(error, 0.0)

    def _retry(self, error: PenstockError, attempt: Attempt | None, delay: float) -> Transition:
        _log_retry(self._stream, self._call, error, delay)
        if self._call.started and self._options.on_interrupt == "restart":
            return self._start_over(error, delay)
        if self._call.started and attempt is not None and not attempt.has_ended:
            self._call.attempt = attempt  # if this process crashes, the next one resumes it
            self._interrupted = (attempt, error, self.runtime.clock.monotonic() + delay + _READER_PATIENCE)
        return self._wait_to_retry(delay)

    def _wait_to_retry(self, delay: float) -> Transition:
        return self._to("retry_wait", state_timeout(delay), cancel_timeout(_GRACE), cancel_timeout(_QUEUE))

    def _may_resume(self, attempt: Attempt | None) -> bool:
        """Whether the broken answer can be resumed, or may turn out so when its reader has ended."""
        call = self._call
        if attempt is not None:
            if not attempt.has_ended:
                return isinstance(call.provider, CanResume)
            if not attempt.took_all:
                call.decoder = None
            elif attempt.decoder is not None:
                call.decoder = attempt.decoder
        return call.prepare_to_resume()

    def _resume(self, attempt: Attempt, error: PenstockError, wait_until: float) -> Transition:
        """Resume the answer as soon as the reader of the broken attempt has ended."""
        if not attempt.has_ended and self.runtime.clock.monotonic() < wait_until:
            return Keep(state_timeout(_READER_AGAIN))
        self._call.attempt = self._interrupted = None
        if attempt.has_ended and self._may_resume(attempt):
            return self._begin_attempt()
        return self._give_up(error)

    def _start_over(self, error: PenstockError, delay: float) -> Transition:
        """Start again from the beginning, after the stream has been reset."""
        self._reset_for = type(error).__name__
        self._wait_is_over = False
        self._ask_for_reset()
        return self._wait_to_retry(delay)

    def _delay(self, error: PenstockError) -> float | None:
        """Seconds until the next attempt; None if the provider asks for more than ``retry_after_limit``."""
        options = self._options
        longest = min(options.retry_max_delay, options.retry_base_delay * 2 ** (max(self._call.tries, 1) - 1))
        delay: float = longest * self._random.uniform(0.5, 1.0)
        requested = error.retry_after if isinstance(error, ApiError) else None
        if requested is None:
            return delay
        if requested > options.retry_after_limit:
            return None
        # All requests that were refused together have the same time to wait: they must not return together.
        jitter: float = min(longest, requested) * self._random.uniform(0.0, 0.1)
        return max(delay, requested + jitter)

    def _ask_for_reset(self) -> None:
        """Ask the stream for a reset. The answer comes as a message, since the stream may be slow, or dead."""
        assert self._reset_for is not None
        inbox, ref = self.actor_inbox, self._stream.ref
        if ref is None:  # the stream's actor has not started yet
            reply = Reply(self.runtime.dispatcher)
            reply.fail(ProcessDead("the stream"))
        else:
            reply = ref.ask(Reset(self._reset_for), block=False)
        reply.when_done(lambda: inbox.put(Cast(_ResetAnswered(reply))))

    def _reset_answered(self, reply: Reply) -> Transition:
        try:
            reply.get(timeout=0)
        except PenstockError:  # it crashed: ask again; if it is not restarted, the stream ends and cancels this call
            return Keep(timeout(_RESET, _RESET_AGAIN))
        self._reset_for = None
        self._call.started = False
        self._call.forget_answer()
        return self._begin_attempt() if self._wait_is_over else None

    def _complete(self, attempt: Attempt) -> Transition:
        attempt.abandon()
        if self._call.ref is not self.ref:
            return Stop(NORMAL)  # another one has taken over
        if not attempt.push_completed_calls():
            return self._failed(attempt.error or IncompleteStream("the answer is another one"), attempt)
        self._call.leave(None)
        return self._conclude(None)

    def _give_up(self, error: PenstockError) -> Transition:
        return self._conclude(self._call.final_error(error))

    def _conclude(self, error: PenstockError | None) -> Transition:
        self._attempt = self._call.attempt = None
        self._note_state("done")
        self._call.end(self._stream, error, by=self.ref)
        return Stop(NORMAL)

    def terminate(self, reason: object) -> None:
        """Close the connection and give the place back, in every state. After a kill the next incarnation does it."""
        if self._attempt is not None:
            self._attempt.abandon()
        if self._call.ref is self.ref:
            self._call.abandon()
            self._note_state("done")
            self.ends_quietly = self._call.is_settled(self._stream)

    def _to(self, state: str, *actions: Any) -> Next:
        self._note_state(state)
        return Next(state, *actions)

    def _note_state(self, state: str) -> None:
        self._call.state = state
        if self._stream.options.debug:
            get_logger(stream_id=self._stream.stream_id, actor=self.label).debug("integration", state=state)


def _log_retry(stream: StreamRecord, call: CallRecord, error: PenstockError, delay: float) -> None:
    get_logger(stream_id=stream.stream_id).info(
        "retry", error=type(error).__name__, attempt=call.attempts, delay_s=round(delay, 3)
    )
