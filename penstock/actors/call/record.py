"""The record of one provider call: the data that its integration needs, and the answer so far.

Like the stream's record, it outlives the integration, which may crash and be restarted. It also owns everything that
must be released in any case: the place at the provider's gate and the attempt under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.gate import Gate, Ticket
from penstock.actors.call.gate_table import SharedRetryBudget
from penstock.actors.call.messages import RoundEnded
from penstock.actors.call.overlap import Overlap
from penstock.actors.call.usage import count_characters, estimate_usage
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.messages import Cancel, Complete, Fail
from penstock.actors.stream.observing import notify
from penstock.actors.stream.outcome import Outcome, all_rounds
from penstock.actors.stream.record import StreamRecord
from penstock.config.options import RequestOptions
from penstock.config.prices import Price
from penstock.errors import AgentCrashed, CircuitOpen, PenstockError, ProviderError
from penstock.events import Cost, FrozenDict, SideEvent, Usage
from penstock.ports import CanReplay, CanResume, ChatCall, Decoder, Provider, ProviderRequest, Reader, TellsQuota

__all__ = ["CallRecord", "Candidate", "Conductor", "Resumed"]

_USUAL_ANSWER: Final = 1_000
"""Expected length of an answer in characters, for the token limit; corrected once the usage is reported."""


class Conductor(msgspec.Struct, frozen=True):
    """The agent process that conducts a stream: it decides what follows each round, and it alone completes the stream.

    ``name`` is the agent's.
    """

    name: str
    ref: ProcessRef


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that a call may be sent to, and its request.

    ``account`` is the provider's name where several share one dialect; empty means the dialect's name. ``gate`` None
    means no limits. ``key`` is the API key's fingerprint; see `GateTable.fingerprint`. ``foreign_blocks``: how many
    blocks of the conversation are not sent, since only another provider can read them; ``count_foreign_blocks`` counts
    them in a conversation.
    """

    provider: Provider
    call: ChatCall
    request: ProviderRequest
    account: str = ""
    gate: Gate | None = None
    key: bytes = b""
    price: Price | None = None
    foreign_blocks: int = 0
    count_foreign_blocks: Callable[[Any], int] | None = None

    def answered(self, headers: Mapping[str, str]) -> None:
        """Note the headers of its answer. Called in the reader's thread."""
        if self.gate is not None and isinstance(self.provider, TellsQuota):
            self.gate.note_quota(self.provider.quota(headers), self.key)

    def __repr__(self) -> str:
        return f"Candidate({self.provider.name!r}, {self.call.model!r})"


class Resumed:
    """A provider whose next answer continues where a broken one stopped. Implements `Provider`."""

    def __init__(self, provider: Provider, decoder: Decoder) -> None:
        self.name = provider.name
        self.provider = provider
        self._decoder = decoder

    def request(self, call: ChatCall) -> ProviderRequest:
        """As for the provider."""
        return self.provider.request(call)

    def decoder(self, options: RequestOptions) -> Decoder:
        """The decoder of the broken answer."""
        return self._decoder

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """As for the provider."""
        return self.provider.error(status, headers, body)


class CallRecord:
    """One round of an answer: a request with all its attempts. A conducted stream has several, one at a time.

    Implements `penstock.actors.stream.feed.Feed`.

    Args:
        candidates: the provider to ask first, then the fallbacks in order.
        options: time-outs, retries, what to do when the answer breaks off.
        reader: runs the requests.
        retry_budget: None allows every retry.
        conductor: gets the ending of this round (`RoundEnded`), in place of the stream.
        round: counts the calls of one stream, from 1.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        options: RequestOptions,
        reader: Reader,
        *,
        retry_budget: SharedRetryBudget | None = None,
        conductor: Conductor | None = None,
        round: int = 1,
    ) -> None:
        self.candidates = tuple(candidates)
        self.place = 0  # index of the present candidate
        self.options = options
        self.reader = reader
        self.retry_budget = retry_budget
        self.conductor = conductor
        self.round = round
        self.attempts = 0
        self.tries = 0  # attempts at the present candidate
        self.started = False  # a delta has come
        self.began_at: float | None = None  # Unix time at which an integration took it up
        self.first_delta_at: float | None = None  # Unix time
        self.state = "queued"
        self.is_handed_over = False  # `RoundEnded` has been sent to the conductor
        self._is_observed = False  # the observers know of its end
        self.is_cancelled = False
        self.lock = threading.Lock()  # makes taking over, sending and ending exclusive
        self.ref: ProcessRef | None = None  # the integration at work
        self.attempt: Any = None  # the integration's attempt under way, or one to be resumed
        self.deadline: float | None = None  # monotonic; for all attempts together
        self.builder = OutcomeBuilder(keeps_text=conductor is not None)  # of the last attempt
        self.decoder: Decoder | None = None  # has decoded exactly what the stream has taken; None if unknown
        self.resumption: tuple[ProviderRequest, Decoder] | None = None  # how the next attempt resumes the answer
        self.kept_as: str | None = None  # the name under which the provider keeps the answer; the log has it
        self.overlap: Overlap | None = None  # see `take_up`; None from when all of it has come again
        self._replay: ProviderRequest | None = None  # asks for the answer from its beginning, while there is an overlap
        self.last_error: PenstockError | None = None  # of the present candidate
        self.failures: list[PenstockError] = []  # of the candidates before it
        self.ticket: Ticket | None = None  # the claim to a place at the gate
        self._counted: tuple[ChatCall, int] | None = None  # a call and its length in characters

    # --- candidates ----------------------------------------------------------------------------------------------

    @property
    def candidate(self) -> Candidate:
        """The present candidate."""
        return self.candidates[self.place]

    @property
    def provider(self) -> Provider:
        return self.candidate.provider

    @property
    def call(self) -> ChatCall:
        return self.candidate.call

    @property
    def request(self) -> ProviderRequest:
        return self.candidate.request

    @property
    def asked(self) -> tuple[str, str]:
        """See `Feed.asked`."""
        return _asked(self.candidate)

    @property
    def has_fallback(self) -> bool:
        """Whether a candidate is left."""
        return self.place + 1 < len(self.candidates)

    def fall_back(self, error: PenstockError) -> None:
        """Make the next candidate the present one, which has failed for good."""
        self.failures.append(error)
        self.last_error = None
        self.decoder = self.resumption = None
        self.tries = 0
        self.place += 1

    def next_round(self, input: Any, without: Collection[str] = ()) -> CallRecord:
        """The call of the next round, to the candidate that answered this one, then to those after it.

        ``without``: parameters that were for this round only.

        Raises:
            OptionError: as for `Provider.request`.
        """
        candidates = []
        for candidate in self.candidates[self.place :]:
            parameters = {name: value for name, value in candidate.call.parameters.items() if name not in without}
            call = msgspec.structs.replace(candidate.call, input=input, parameters=parameters)
            request = candidate.provider.request(call).extended(call)
            count = candidate.count_foreign_blocks
            foreign = candidate.foreign_blocks if count is None else count(input)
            candidates.append(msgspec.structs.replace(candidate, call=call, request=request, foreign_blocks=foreign))
        return CallRecord(
            candidates,
            self.options,
            self.reader,
            retry_budget=self.retry_budget,
            conductor=self.conductor,
            round=self.round + 1,
        )

    # --- the integration -----------------------------------------------------------------------------------------

    def take_over(self, by: ProcessRef) -> Any:
        """Make ``by`` the integration at work; returns the attempt of the one before, which is abandoned."""
        with self.lock:
            self.ref = by
            attempt = self.attempt
        self.abandon()
        return attempt

    def begin_attempt(self) -> tuple[Provider, ProviderRequest]:
        """Count an attempt; returns the provider to ask and the request. Call it with the lock held."""
        self.attempts += 1
        self.tries += 1
        if self.tries == 1 and self.retry_budget is not None:
            self.retry_budget.note_request()
        if self.resumption is None:
            self.forget_answer()
            return self.provider, self._replay if self.overlap is not None and self._replay else self.request
        request, decoder = self.resumption
        return Resumed(self.provider, decoder), request

    # --- the gate ------------------------------------------------------------------------------------------------

    def take_ticket(self, gate: Gate, wake: Callable[[], object], jitter: float) -> Ticket:
        """Make the ticket of the next attempt. ``jitter`` is a random number from 0 to 1."""
        self.leave()
        tokens = estimate_usage(self._count_input(), _USUAL_ANSWER).total_tokens
        assert tokens is not None
        ticket = Ticket(wake, tokens, key=self.candidate.key, is_retry=self.tries > 0, jitter=jitter)
        self.ticket = ticket
        return ticket

    def has_started(self, now: float, seconds: float) -> None:
        """Note that the first delta has come, at the Unix time ``now``, so many seconds after the request.

        Called in the reader's thread.
        """
        self.started = True
        if self.first_delta_at is None:
            self.first_delta_at = now
        gate, ticket = self.candidate.gate, self.ticket
        if gate is not None:
            gate.hedging.note_first_token(self.call.model, seconds)
        if gate is not None and ticket is not None:
            gate.answered(ticket)

    def note_failure(self, error: PenstockError) -> None:
        """Note that an attempt has failed, or was refused by the gate."""
        self.leave(error)
        if isinstance(error, CircuitOpen):
            if self.last_error is not error:
                error.__cause__ = self.last_error
        else:
            self.last_error = error

    def final_error(self, error: PenstockError) -> PenstockError:
        """Chain the errors of earlier candidates onto ``error`` via ``__cause__``."""
        errors = [*self.failures, error]
        for earlier, later in pairwise(errors):
            chain = _causes(later)
            if not any(one is cause for one in _causes(earlier) for cause in chain):  # two may have the same error
                chain[-1].__cause__ = earlier
        return error

    def leave(self, failure: PenstockError | Literal["neutral"] | None = "neutral") -> None:
        """Give the place at the gate back, with how the attempt went. Any thread; harmless without a place."""
        gate, ticket = self.candidate.gate, self.ticket
        self.ticket = None
        if gate is None or ticket is None:
            return
        gate.spent(ticket, self.builder.usage)
        gate.leave(ticket, failure)

    # --- the answer -------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Everything received so far except the text, and the cost. Any thread."""
        candidate = self.candidate
        outcome = self.builder.outcome()
        metadata = outcome.provider_metadata
        if candidate.foreign_blocks and self.tries:
            metadata = FrozenDict({**metadata, "dropped_blocks": candidate.foreign_blocks})
        return msgspec.structs.replace(
            outcome,
            provider_metadata=metadata,
            provider=candidate.account or candidate.provider.name,
            model=outcome.model or candidate.call.model,
            cost=self._cost(candidate, outcome.usage),
        )

    def _cost(self, candidate: Candidate, usage: Usage | None) -> Cost | None:
        if not self.tries:  # only earlier candidates were asked
            return None
        builder = self.builder
        reported = None if usage is None else usage.reported_cost
        if candidate.price is None:
            if reported is None:
                return None
            return Cost(amount=reported, is_estimate=not builder.is_whole, reported=reported, source="provider")
        estimate = estimate_usage(self._count_input(), builder.size)
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            estimate = msgspec.structs.replace(estimate, reported_cost=reported)
            return candidate.price.cost(estimate, is_estimate=True)
        if builder.is_whole:
            return candidate.price.cost(usage, is_estimate=False)
        # Usage that was reported before the end does not include what followed.
        assert estimate.output_tokens is not None
        output = max(usage.output_tokens, estimate.output_tokens)
        return candidate.price.cost(msgspec.structs.replace(usage, output_tokens=output), is_estimate=True)

    def _count_input(self) -> int:
        call = self.call
        if self._counted is None or self._counted[0] is not call:
            self._counted = (call, count_characters(call.input))
        return self._counted[1]

    def bill(self, reported: Usage | None, *, is_over: bool) -> tuple[Usage | None, bool]:
        """See `Feed.bill`."""
        builder = self.builder
        if is_over:
            if builder.is_finished:
                return reported, False
            if reported is not None or not (builder.size or builder.tally.total):
                return reported, reported is not None
        elif reported is not None:
            return reported, not builder.is_finished
        return estimate_usage(self._count_input(), builder.size), True

    def void_answer(self, said: int) -> None:
        """See `Feed.void_answer`."""
        self.builder.void(said)

    def leftovers(self) -> list[SideEvent]:
        """See `Feed.leftovers`."""
        return self.builder.held.take_events()

    def forget_answer(self) -> None:
        """Discard the answer so far."""
        self.builder = OutcomeBuilder(keeps_text=self.conductor is not None)
        self.decoder = self.resumption = None

    def prepare_to_resume(self) -> bool:
        """Let the next attempt resume the answer where it broke off; returns whether that is possible."""
        provider, decoder = self.provider, self.decoder
        self.resumption = provider.resume(decoder) if decoder is not None and isinstance(provider, CanResume) else None
        if self.resumption is not None:
            request, continued = self.resumption
            self.resumption = request.extended(self.call), continued
        return self.resumption is not None

    def take_up(self, asked: tuple[str, str], name: str, overlap: Overlap) -> bool:
        """Go on with an answer that another process has begun; returns whether that is possible. Call it first.

        Args:
            asked: the provider and the model, by name; see `Feed.asked`.
            name: under which the provider keeps the answer.
            overlap: what the log has of it.

        Raises:
            OptionError: as for `Provider.request`.
        """
        for place, candidate in enumerate(self.candidates):
            if _asked(candidate) == asked and isinstance(candidate.provider, CanReplay):
                self._replay = candidate.provider.replay(name).extended(candidate.call)
                self.place, self.kept_as, self.overlap = place, name, overlap
                return True
        return False

    def begin_anew(self) -> None:
        """Let the next attempt ask the first candidate for a new answer: the kept one cannot be had, or is another."""
        self.overlap = self._replay = self.last_error = None
        self.place = self.tries = 0

    # --- the end -------------------------------------------------------------------------------------------------

    def end(self, record: StreamRecord, error: PenstockError | None, *, by: ProcessRef | None = None) -> None:
        """Report how the call has ended, once: to the stream's conductor, or to the stream.

        A stream that has a conductor is completed by nothing else: if the conductor is dead, the stream fails.

        Args:
            record: of the stream.
            error: why it failed; None if the answer is complete.
            by: the integration that reports; one that has been replaced has no effect. None is for the handler.
        """
        with self.lock:
            is_first = self._may_end(record, by) and not self._is_observed
            self._is_observed = self._is_observed or is_first
        if is_first:  # before the stream, or the agent, goes on
            for observer in record.observers:
                notify(observer.called, record, self, error)
        with self.lock:
            if not self._may_end(record, by):
                return
            conductor = self.conductor
            if conductor is not None and record.runtime.is_alive(conductor.ref):
                self.is_handed_over = True  # first: a restarted integration must not report again
                conductor.ref.tell(RoundEnded(record, self.outcome(), error))
                return
            if conductor is not None:
                error = AgentCrashed(conductor.name, record.runtime.exit_reason(conductor.ref))
            total = all_rounds([*record.rounds[: self.round - 1], self.outcome()])
            record.propose(Complete(total) if error is None else Fail(error, total))

    def _may_end(self, record: StreamRecord, by: ProcessRef | None) -> bool:
        return not self.is_handed_over and record.ending is None and (by is None or by is self.ref)

    def is_settled(self, record: StreamRecord) -> bool:
        """Whether the stream does not wait for its end any more."""
        return self is not record.feed or self.is_handed_over or record.ending is not None or record.is_over

    def cancel(self) -> None:
        """Close the connection, leave the gate, and end the integration. Any thread; harmless if it has ended."""
        with self.lock:
            self.is_cancelled = True
            ref = self.ref
        self.abandon()
        self.attempt = None  # none follows: without it, the call and the stream are no circle
        if ref is not None and ref.is_alive():
            ref.tell(Cancel())

    def abandon(self) -> None:
        """Close the connection and leave the gate. Any thread; harmless if that has been done."""
        attempt = self.attempt
        if attempt is not None:
            attempt.abandon()
        self.leave()


def _asked(candidate: Candidate) -> tuple[str, str]:
    """The names of a candidate's provider and model."""
    return candidate.account or candidate.provider.name, candidate.call.model


def _causes(error: BaseException) -> list[BaseException]:
    """An error and its chain of causes."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and all(cause is not one for one in chain):
        chain.append(cause)
    return chain
