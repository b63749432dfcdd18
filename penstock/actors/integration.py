"""The integration: one provider request for one stream, from the queue to the end, retries included.

States: ``queued`` (no reader thread yet) → ``connecting`` → ``waiting`` (for the first delta) → ``streaming`` →
done; ``retry_wait`` between attempts. Tokens do not pass here: the reader's thread pushes them into the stream's intake
(`Attempt`), and this machine hears of what happens around them.

Accepts: `Cancel` from its stream; what `Attempt` tells.
Sends: `Reset`, `Complete` or `Fail` to the stream, the last two to its conductor instead if it has one (`RoundEnded`);
it waits for nobody.
Fails: it is restarted by its supervisor, and goes on by the same rules as if the connection had broken.
"""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from penstock.actors.attempt import Attempt, Connecting, Ended, Finished, FirstDelta, Waiting
from penstock.actors.messages import Cancel, Complete, Fail, Reset, RoundEnded
from penstock.actors.record import StreamRecord
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import NORMAL, ExitNotice
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
from penstock.actors.source import Source
from penstock.config.logs import get_logger
from penstock.errors import (
    ApiError,
    IncompleteStream,
    PenstockError,
    ProcessDead,
    ProviderError,
    ProviderTimeout,
)

__all__ = ["Integration", "tell_ending"]

_TOTAL: Final = "total"
_GRACE: Final = "grace"
_RESET: Final = "reset"
_RESET_AGAIN: Final = 0.02  # seconds until a stream that has just crashed is asked again


class _ResetAnswered(msgspec.Struct, frozen=True):
    """The stream has forgotten what came so far, or has crashed instead."""

    reply: Reply


def tell_ending(record: StreamRecord, source: Source, ending: Complete | Fail) -> None:
    """Let whoever is to know how a source has ended know it: the stream's conductor, or else the stream."""
    conductor = source.conductor
    if conductor is not None and record.runtime.is_alive(conductor):
        source.is_handed_over = True  # first: whoever is restarted, or sees us end, must not tell it again
        conductor.tell(RoundEnded(record, ending))
        return
    record.ending = ending  # first written, then told: a stream that is just starting looks at it
    if record.ref is not None:
        record.ref.tell(ending)


class Integration(StateMachine):
    """See the module's docstring. Started by its stream, under the source supervisor."""

    def init(self, record: StreamRecord, source: Source) -> Next | Stop:
        self._stream = record
        self._source = source
        self._options = source.options
        self.trap_exit = True  # so that `terminate` closes the socket when its supervisor ends
        self._random = random.Random(record.stream_id)  # noqa: S311 - jitter, and the same in every simulation
        self._reset_for: str | None = None  # the stream is to forget what came so far, because of that
        self._wait_is_over = False
        self._attempt: Attempt | None = None
        source.ref = self.ref  # first: whoever ends the stream from now on tells us
        before: Attempt | None = source.attempt
        source.attempt = None
        if before is not None:
            before.abandon()
        if record.is_over or record.ending is not None or source.is_handed_over or record.source is not source:
            return Stop(NORMAL)
        if source.deadline is None and self._options.total_timeout is not None:
            source.deadline = self.runtime.clock.monotonic() + self._options.total_timeout
        total = timeout(_TOTAL, source.deadline, absolute=True)
        if before is None and not source.started:
            return Next(self._start(), total)
        # If there is no attempt but text, it was killed while the stream was to forget that.
        transition = self._failed(IncompleteStream("its integration crashed"), before)
        if isinstance(transition, Next):
            return Next(transition.state, *transition.actions, total)
        assert isinstance(transition, Stop)
        return transition

    @property
    def label(self) -> str:
        """Says whose it is."""
        return self.name or super().label

    # --- states --------------------------------------------------------------------------------------------------

    def queued(self, event: Event) -> Transition:
        """No reader has taken it yet."""
        match event:
            case Cast(message=Connecting(attempt=number)) if self._is_current(number):
                return self._to("connecting", state_timeout(self._options.connect_timeout))
        return self._in_any_state(event)

    def connecting(self, event: Event) -> Transition:
        """Until the request is sent."""
        match event:
            case Cast(message=Waiting(attempt=number)) if self._is_current(number):
                return self._to("waiting", state_timeout(self._options.first_token_timeout))
            case StateTimeout():
                return self._timed_out("connect", self._options.connect_timeout)
        return self._in_any_state(event)

    def waiting(self, event: Event) -> Transition:
        """Until the first delta."""
        match event:
            case StateTimeout():
                if self._attempt is not None and self._attempt.has_progressed:  # the news of it is under way
                    return self._to("streaming", state_timeout(self._options.idle_timeout))
                return self._timed_out("first_token", self._options.first_token_timeout)
        return self._in_any_state(event)

    def streaming(self, event: Event) -> Transition:
        """Deltas come."""
        if event.__class__ is StateTimeout:
            attempt = self._attempt
            assert attempt is not None
            idle = 0.0 if attempt.is_pushing else self.runtime.clock.monotonic() - attempt.last_progress
            left = self._options.idle_timeout - idle
            if left > 1e-6:
                return Next("streaming", state_timeout(left))
            return self._timed_out("idle", self._options.idle_timeout)
        return self._in_any_state(event)

    def retry_wait(self, event: Event) -> Transition:
        """Until the next attempt. No thread and no socket is held."""
        match event:
            case StateTimeout() if self._reset_for is None:
                return self._to(self._start())
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
                return self._to("waiting", state_timeout(self._options.first_token_timeout))
            case Cast(message=FirstDelta(attempt=number)) if self._is_current(number):
                return self._to("streaming", state_timeout(self._options.idle_timeout))
            case Cast(message=Connecting() | Waiting() | FirstDelta() | _ResetAnswered()):
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
                if attempt.is_pushing:  # there came more after all, and the stream has no room for it yet
                    return Keep(timeout(_GRACE, self._options.finish_grace))
                return self._ended(Ended(attempt.number, attempt.error is None, None))
            case Info(message=ExitNotice()):
                return None  # of somebody it is not a child of
        return self.unhandled(event)

    # --- attempts ------------------------------------------------------------------------------------------------

    def _start(self) -> str:
        """Hand a new attempt to the reader; returns the state to be in."""
        source = self._source
        source.attempts += 1
        source.forget_answer()
        attempt = Attempt(self._stream, source, source.attempts, self.actor_inbox, self.runtime.clock)
        self._attempt = source.attempt = attempt
        try:
            attempt.take_job(source.reader.start(source.provider, source.request, self._options, attempt))
        except PenstockError as error:
            self.actor_inbox.put(Cast(Ended(attempt.number, False, error)))
        self._note_state("queued")
        return "queued"

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
            return self._conclude(Fail(ProviderTimeout(which, seconds), self._source.outcome()), None)
        if attempt.is_finished:  # all is said; only the end marker has not come
            return self._ended(Ended(attempt.number, True, None))
        return self._failed(ProviderTimeout(which, seconds), attempt, final=which == "total")

    def _failed(self, error: PenstockError, attempt: Attempt | None, *, final: bool = False) -> Transition:
        """An attempt is over: try again, or give up."""
        source, options = self._source, self._options
        if attempt is not None:
            attempt.abandon()
        if source.ref is not self.ref:
            return Stop(NORMAL)  # another one has taken over
        self._attempt = source.attempt = None
        self._stream.counters.failed_attempts += 1
        retryable = isinstance(error, ProviderError) and error.retryable
        again = retryable and not final and source.attempts <= options.max_retries
        if source.started:
            again = again and options.on_interrupt == "restart"
        delay = self._delay(error) if again else None
        if delay is None:
            return self._conclude(Fail(error, source.outcome()), attempt)
        get_logger(stream_id=self._stream.stream_id).info(
            "retry", error=type(error).__name__, attempt=source.attempts, delay_s=round(delay, 3)
        )
        if source.started:
            self._reset_for = type(error).__name__
            self._wait_is_over = False
            self._ask_for_reset()
        return self._to("retry_wait", state_timeout(delay), cancel_timeout(_GRACE))

    def _delay(self, error: PenstockError) -> float | None:
        """Seconds until the next attempt; None if the provider asks for more than we are ready to wait."""
        options = self._options
        longest = min(options.retry_max_delay, options.retry_base_delay * 2 ** (self._source.attempts - 1))
        delay: float = longest * self._random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, ApiError) else None
        if asked is None:
            return delay
        return max(delay, asked) if asked <= options.retry_after_limit else None

    def _ask_for_reset(self) -> None:
        """Let the stream forget what came so far. Its answer comes as a message: it may be slow, or just dead."""
        assert self._reset_for is not None
        inbox, ref = self.actor_inbox, self._stream.ref
        if ref is None:  # it has not even started
            reply = Reply(self.runtime.dispatcher)
            reply.fail(ProcessDead("the stream"))
        else:
            reply = ref.ask(Reset(self._reset_for), block=False)
        reply.when_done(lambda: inbox.put(Cast(_ResetAnswered(reply))))

    def _reset_answered(self, reply: Reply) -> Transition:
        try:
            reply.get(timeout=0)
        except PenstockError:  # it has crashed: if it is restarted it is asked again, if not we are told
            return Keep(timeout(_RESET, _RESET_AGAIN))
        self._reset_for = None
        self._source.started = False
        self._source.forget_answer()
        return self._to(self._start()) if self._wait_is_over else None

    def _complete(self, attempt: Attempt) -> Transition:
        attempt.abandon()
        if self._source.ref is self.ref:
            attempt.tell_of_calls()
        return self._conclude(Complete(self._source.outcome()), attempt)

    def _conclude(self, ending: Complete | Fail, attempt: Attempt | None) -> Transition:
        if attempt is not None:
            attempt.abandon()
        if self._source.ref is not self.ref:
            return Stop(NORMAL)  # another one has taken over
        self._attempt = self._source.attempt = None
        self._note_state("done")
        tell_ending(self._stream, self._source, ending)
        return Stop(NORMAL)

    def terminate(self, reason: object) -> None:
        """Close the socket, in whatever phase it is. After a crash the next incarnation does it."""
        if self._attempt is not None:
            self._attempt.abandon()
        if self._source.ref is self.ref:
            self._note_state("done")

    def _to(self, state: str, *actions: Any) -> Next:
        self._note_state(state)
        return Next(state, *actions)

    def _note_state(self, state: str) -> None:
        self._source.state = state
        if self._stream.options.debug:
            get_logger(stream_id=self._stream.stream_id, actor=self.label).debug("integration", state=state)
