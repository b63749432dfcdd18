"""Where a stream's tokens come from: what its integration needs, and what has become of it so far.

Like the stream's record, it outlives the integration, which may crash and be restarted around it. So does whatever is
to be given back: the place at a provider's gate hangs here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.gate import Gate, SharedRetryBudget, Ticket
from penstock.actors.call.usage import count_characters, estimate_usage
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.log import Outcome
from penstock.actors.stream.messages import Complete, Fail, RoundEnded
from penstock.actors.stream.outcome import all_rounds
from penstock.config.options import RequestOptions
from penstock.config.prices import Price
from penstock.errors import CircuitOpen, PenstockError, ProviderError
from penstock.events import Cost, Usage
from penstock.ports import CanResume, ChatCall, Decoder, Provider, ProviderRequest, Reader, TellsQuota

if TYPE_CHECKING:  # the record knows its source
    from penstock.actors.stream.record import StreamRecord

__all__ = ["Candidate", "Resumed", "Source"]

_USUAL_ANSWER: Final = 1_000
"""Characters that an answer is expected to have, for the token limit; corrected as soon as its usage is told."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One whom a source may ask, and what it would be sent.

    ``account`` is what the provider is called where several speak one dialect; empty: by its dialect. ``gate`` None:
    there are no limits.
    """

    provider: Provider
    call: ChatCall
    request: ProviderRequest
    account: str = ""
    gate: Gate | None = None
    price: Price | None = None

    def answered(self, headers: Mapping[str, str]) -> None:
        """It begins to answer. The reader's thread."""
        if self.gate is not None and isinstance(self.provider, TellsQuota):
            self.gate.told(self.provider.quota(headers))

    def __repr__(self) -> str:
        return f"Candidate({self.provider.name!r}, {self.call.model!r})"


class Resumed:
    """A provider whose next answer goes on where a broken one stopped. Implements `Provider`."""

    def __init__(self, provider: Provider, decoder: Decoder) -> None:
        self.name = provider.name
        self.provider = provider
        self._decoder = decoder

    def request(self, call: ChatCall) -> ProviderRequest:
        """As for the provider."""
        return self.provider.request(call)

    def decoder(self, options: RequestOptions) -> Decoder:
        """The one that goes on."""
        return self._decoder

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """As for the provider."""
        return self.provider.error(status, headers, body)


class Source:
    """One round of asking: a request with all its attempts. A stream that is conducted has several, one at a time.

    Args:
        provider, call, request: whom to ask, what, and in the provider's words.
        options: how.
        reader: what runs the requests.
        account, gate, price: the first candidate's; see `Candidate`.
        fallbacks: whom to ask when that has failed for good, in turn.
        retry_budget: None lets everybody retry.
        conductor: who is told how this ends, in the place of the stream, by `RoundEnded`.
        round: counts the sources of one stream, from 1.
    """

    def __init__(
        self,
        provider: Provider,
        call: ChatCall,
        request: ProviderRequest,
        options: RequestOptions,
        reader: Reader,
        *,
        account: str = "",
        gate: Gate | None = None,
        price: Price | None = None,
        fallbacks: Sequence[Candidate] = (),
        retry_budget: SharedRetryBudget | None = None,
        conductor: ProcessRef | None = None,
        round: int = 1,
    ) -> None:
        first = Candidate(provider=provider, call=call, request=request, account=account, gate=gate, price=price)
        self.candidates = (first, *fallbacks)
        self.place = 0  # of the one that is being asked
        self.options = options
        self.reader = reader
        self.retry_budget = retry_budget
        self.conductor = conductor
        self.round = round
        self.attempts = 0
        self.tries = 0  # of these, at the one that is being asked
        self.started = False  # a delta has come
        self.state = "queued"
        self.is_handed_over = False  # its conductor has been told how it ended
        # Whoever takes over, and whoever is about to send or to end it, exclude each other.
        self.lock = threading.Lock()
        self.ref: ProcessRef | None = None  # the integration at work
        self.attempt: Any = None  # its attempt under way, or the one that is to be resumed
        self.deadline: float | None = None  # monotonic; for all attempts together
        self.builder = OutcomeBuilder(keeps_text=conductor is not None)  # of the last attempt
        self.decoder: Decoder | None = None  # has told just what the stream has got; None if that is not known
        self.resumption: tuple[ProviderRequest, Decoder] | None = None  # what the next attempt goes on with
        self.last_error: PenstockError | None = None  # what the one that is being asked failed with last
        self.failures: list[PenstockError] = []  # of those that were asked before
        self.ticket: Ticket | None = None  # its claim to a place at the gate
        self._asked: tuple[ChatCall, int] | None = None  # a call, and how long it is

    # --- who is asked --------------------------------------------------------------------------------------------

    @property
    def candidate(self) -> Candidate:
        """Whom it asks now."""
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
    def has_fallback(self) -> bool:
        """Whether there is somebody to be asked who has not been."""
        return self.place + 1 < len(self.candidates)

    def fall_back(self, error: PenstockError) -> None:
        """The one that was asked has failed for good."""
        self.failures.append(error)
        self.last_error = None
        self.decoder = self.resumption = None
        self.tries = 0
        self.place += 1

    def next_round(self, input: Any, without: Collection[str] = ()) -> Source:
        """A source that asks further: whoever has answered this one, and in its place those who come behind it.

        ``without``: parameters that were for this round only.

        Raises:
            OptionError: as for `Provider.request`.
        """
        candidates = []
        for candidate in self.candidates[self.place :]:
            parameters = {name: value for name, value in candidate.call.parameters.items() if name not in without}
            call = msgspec.structs.replace(candidate.call, input=input, parameters=parameters)
            request = candidate.provider.request(call)
            candidates.append(msgspec.structs.replace(candidate, call=call, request=request))
        first, *others = candidates
        return Source(
            first.provider,
            first.call,
            first.request,
            self.options,
            self.reader,
            account=first.account,
            gate=first.gate,
            price=first.price,
            fallbacks=others,
            retry_budget=self.retry_budget,
            conductor=self.conductor,
            round=self.round + 1,
        )

    # --- who asks ------------------------------------------------------------------------------------------------

    def take_over(self, by: ProcessRef) -> Any:
        """Be the integration at work from now on; returns the attempt of the one before, which is abandoned."""
        with self.lock:
            self.ref = by
            attempt = self.attempt
        self.abandon()
        return attempt

    def begin_attempt(self) -> tuple[Provider, ProviderRequest]:
        """Count an attempt; returns whom to send what. With the lock held."""
        self.attempts += 1
        self.tries += 1
        if self.tries == 1 and self.retry_budget is not None:
            self.retry_budget.note_request()
        if self.resumption is None:
            self.forget_answer()
            return self.provider, self.request
        request, decoder = self.resumption
        return Resumed(self.provider, decoder), request

    # --- the gate ------------------------------------------------------------------------------------------------

    def take_ticket(self, gate: Gate, wake: Callable[[], object]) -> Ticket:
        """Claim a place for the next attempt."""
        self.leave()
        tokens = estimate_usage(self._count_asked(), _USUAL_ANSWER).total_tokens or 0
        ticket = Ticket(wake, tokens, is_retry=self.tries > 0)
        self.ticket = ticket
        return ticket

    def has_started(self) -> None:
        """The first delta has come. The reader's thread."""
        self.started = True
        gate, ticket = self.candidate.gate, self.ticket
        if gate is not None and ticket is not None:
            gate.answered(ticket)

    def note_failure(self, error: PenstockError) -> None:
        """An attempt has failed, or was not let in."""
        self.leave(error)
        if isinstance(error, CircuitOpen):
            if self.last_error is not error:
                error.__cause__ = self.last_error
        else:
            self.last_error = error

    def final_error(self, error: PenstockError) -> PenstockError:
        """The last one's error, with those of who was asked before as its causes."""
        errors = [*self.failures, error]
        for earlier, later in pairwise(errors):
            chain = _causes(later)
            if not any(one is cause for one in _causes(earlier) for cause in chain):  # it may be the same twice
                chain[-1].__cause__ = earlier
        return error

    def leave(self, failure: PenstockError | Literal["neutral"] | None = "neutral") -> None:
        """Give the place back, and say how it went; harmless if there is none. Any thread."""
        gate, ticket = self.candidate.gate, self.ticket
        self.ticket = None
        if gate is None or ticket is None:
            return
        gate.spent(ticket, self.builder.usage)
        gate.leave(ticket, failure)

    # --- what has come -------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """What the provider has said so far beside the text, and what that costs. Any thread."""
        candidate = self.candidate
        outcome = self.builder.outcome()
        return msgspec.structs.replace(
            outcome,
            provider=candidate.account or candidate.provider.name,
            model=outcome.model or candidate.call.model,
            cost=self._cost(candidate, outcome.usage),
        )

    def _cost(self, candidate: Candidate, usage: Usage | None) -> Cost | None:
        if candidate.price is None or not self.tries:  # what others were asked has not its price
            return None
        builder = self.builder
        estimate = estimate_usage(self._count_asked(), builder.size)
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return candidate.price.cost(estimate, is_estimate=True)
        if builder.is_whole:
            return candidate.price.cost(usage, is_estimate=False)
        # What was told on the way counts what had been said by then.
        said = max(usage.output_tokens, estimate.output_tokens or 0)
        return candidate.price.cost(msgspec.structs.replace(usage, output_tokens=said), is_estimate=True)

    def _count_asked(self) -> int:
        call = self.call
        if self._asked is None or self._asked[0] is not call:
            self._asked = (call, count_characters(call.input))
        return self._asked[1]

    def forget_answer(self) -> None:
        """What has come so far is void, or nothing has come."""
        self.builder = OutcomeBuilder(keeps_text=self.conductor is not None)
        self.decoder = self.resumption = None

    def prepare_to_resume(self) -> bool:
        """Whether the answer can be taken up where it broke; the next attempt will."""
        provider, decoder = self.provider, self.decoder
        self.resumption = provider.resume(decoder) if decoder is not None and isinstance(provider, CanResume) else None
        return self.resumption is not None

    # --- the end -------------------------------------------------------------------------------------------------

    def end(self, record: StreamRecord, ending: Complete | Fail, *, by: ProcessRef | None = None) -> None:
        """Let whoever is to know how it has ended know it, once: the stream's conductor, or else the stream.

        ``by`` an integration it has no effect if that was given up, and another has taken over.
        """
        with self.lock:
            if self.is_handed_over or record.ending is not None or (by is not None and by is not self.ref):
                return
            conductor = self.conductor
            if conductor is not None and record.runtime.is_alive(conductor):
                self.is_handed_over = True  # first: whoever is restarted, or sees us end, must not tell it again
                conductor.tell(RoundEnded(record, ending))
                return
            total = all_rounds([*record.rounds[: self.round - 1], ending.outcome])
            ending = msgspec.structs.replace(ending, outcome=total)
            record.ending = ending  # first written, then told: a stream that is just starting looks at it
        if record.ref is not None:
            record.ref.tell(ending)

    def abandon(self) -> None:
        """Let go of whatever it holds. Any thread; harmless if it has been."""
        attempt = self.attempt
        if attempt is not None:
            attempt.abandon()
        self.leave()


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it came of."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and all(cause is not one for one in chain):
        chain.append(cause)
    return chain
