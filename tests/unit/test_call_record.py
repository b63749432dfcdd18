"""The record of a call, without a stream: its candidates, its tickets, and to whom it reports its end."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.call.hedging import Hedging
from penstock.actors.call.messages import RoundEnded
from penstock.actors.call.overlap import Overlap
from penstock.actors.call.record import CallRecord, Candidate, Conductor, Resumed
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.outcome import Outcome
from penstock.config.options import RequestOptions
from penstock.config.prices import Price, Rates
from penstock.errors import AgentCrashed, ApiError, CircuitOpen, ProtocolError
from penstock.events import Usage
from penstock.ports import ChatCall, FinishDelta, MetadataDelta, ProviderRequest, Quota, UsageDelta
from penstock.testing import ScriptedProvider

LOST = ProtocolError("lost")


class Gate:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.hedging = Hedging()

    def answered(self, ticket: Any) -> None:
        self.told.append(("answered", ticket))

    def spent(self, ticket: Any, usage: Any) -> None:
        self.told.append(("spent", ticket, usage))

    def leave(self, ticket: Any, failure: Any) -> None:
        self.told.append(("leave", ticket, failure))

    def note_quota(self, quota: Any, key: bytes) -> None:
        self.told.append(("quota", quota, key))


class Attempt:
    def __init__(self) -> None:
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1


class Ref:
    """An integration's or a conductor's."""

    def __init__(self, *, alive: bool = True) -> None:
        self.alive = alive
        self.told: list[Any] = []

    def is_alive(self) -> bool:
        return self.alive

    def tell(self, message: Any) -> None:
        self.told.append(message)


class Stream:
    """The record of a stream, as far as a call uses it."""

    def __init__(self) -> None:
        self.ending: Any = None
        self.rounds: list[Outcome] = []
        self.observers: tuple[Any, ...] = ()
        self.runtime = self
        self.proposed: list[Any] = []

    def is_alive(self, ref: Any) -> bool:
        return bool(ref.alive)

    def exit_reason(self, ref: Any) -> str:
        return "killed"

    def propose(self, ending: Any) -> None:
        self.proposed.append(ending)


class Budget:
    def __init__(self) -> None:
        self.requests = 0

    def note_request(self) -> None:
        self.requests += 1


def candidate(model: str = "m", *, provider: Any = None, input: Any = "Hello", **more: Any) -> Candidate:
    provider = provider or ScriptedProvider(["unused"])
    call = ChatCall(model=model, input=input, parameters={"stop": "x", "top_p": 1})
    return Candidate(provider=provider, call=call, request=provider.request(call), **more)


def record(*candidates: Candidate, **more: Any) -> Any:
    reader: Any = SimpleNamespace()
    return CallRecord(candidates or (candidate(),), RequestOptions(), reader, **more)


# --- candidates ------------------------------------------------------------------------------------------------------


def test_a_candidate_tells_its_gate_what_is_left_of_its_quota() -> None:
    class Tells(ScriptedProvider):
        def quota(self, headers: Mapping[str, str]) -> Quota:
            return Quota(requests_left=int(headers["left"]))

    gate: Any = Gate()
    candidate(provider=Tells(["unused"]), gate=gate, key=b"k").answered({"left": "7"})
    candidate(provider=Tells(["unused"])).answered({"left": "7"})  # without limits
    silent = SimpleNamespace(name="silent", request=lambda call: None)
    candidate(provider=silent, gate=gate).answered({"left": "7"})
    assert gate.told == [("quota", Quota(requests_left=7), b"k")]
    assert repr(candidate("m", key=b"k")) == "Candidate('scripted', 'm')"


@pytest.mark.parametrize("account", ["", "mine"])
def test_the_account_is_asked_or_without_one_the_dialect_for_the_present_candidates_model(account: str) -> None:
    call = record(candidate("a"), candidate("b", account=account))
    assert call.asked == ("scripted", "a")
    call.fall_back(LOST)
    assert call.asked == (account or "scripted", "b")


def test_rounds_are_counted_from_1() -> None:
    call = record()
    assert (call.round, call.next_round("What now?").round) == (1, 2)


@pytest.mark.parametrize(("count", "foreign"), [(None, 2), (len, 9)])
def test_the_blocks_of_other_providers_are_counted_anew_for_each_round(count: Any, foreign: int) -> None:
    call = record(candidate(foreign_blocks=2, count_foreign_blocks=count))
    assert call.next_round("What now?").candidate.foreign_blocks == foreign


def test_the_next_candidate_begins_without_what_the_failed_one_had() -> None:
    call = record(candidate("a"), candidate("b"))
    call.begin_attempt()
    call.note_failure(LOST)
    call.decoder = call.resumption = object()
    assert (call.has_fallback, call.call.model) == (True, "a")
    call.fall_back(LOST)
    assert (call.has_fallback, call.call.model) == (False, "b")
    assert (call.last_error, call.decoder, call.resumption) == (None, None, None)
    assert (call.tries, call.attempts, call.failures) == (0, 1, [LOST])


def test_the_next_round_goes_to_the_candidate_that_answered_and_those_after_it() -> None:
    budget, conductor = Budget(), Conductor("it", Ref())  # type: ignore[arg-type]
    call = record(candidate("a"), candidate("b", account="mine"), candidate("c"), retry_budget=budget,
                  conductor=conductor, round=3)  # fmt: skip
    call.fall_back(LOST)
    following = call.next_round("What now?", without=["stop"])
    assert [one.call.model for one in following.candidates] == ["b", "c"]
    assert all(one.call.input == "What now?" for one in following.candidates)
    assert all(one.call.parameters == {"top_p": 1} for one in following.candidates)
    assert following.candidates[0].account == "mine"
    assert (following.round, following.place, following.attempts) == (4, 0, 0)
    assert (following.retry_budget, following.conductor) == (budget, conductor)
    assert (following.options, following.reader) == (call.options, call.reader)
    assert call.next_round("x").candidates[0].call.parameters == {"stop": "x", "top_p": 1}


def test_the_request_of_the_next_round_has_the_headers_of_its_call() -> None:
    provider = ScriptedProvider(["unused"])
    asked = ChatCall(model="m", input="Hello", parameters={}, headers={"X-Team": "red"})
    call = record(Candidate(provider=provider, call=asked, request=provider.request(asked)))
    assert call.next_round("x").request.headers["X-Team"] == "red"


# --- attempts --------------------------------------------------------------------------------------------------------


def test_the_budget_counts_a_request_once_for_each_candidate() -> None:
    budget = Budget()
    call = record(candidate("a"), candidate("b"), retry_budget=budget)
    for _ in range(3):
        call.begin_attempt()
    assert (budget.requests, call.attempts, call.tries) == (1, 3, 3)
    call.fall_back(LOST)
    call.begin_attempt()
    assert (budget.requests, call.attempts, call.tries) == (2, 4, 1)


def test_a_new_attempt_forgets_the_answer_so_far_and_a_resumed_one_goes_on_with_it() -> None:
    class Resumable(ScriptedProvider):
        def resume(self, decoder: Any) -> Any:
            return None if decoder == "lost" else (ProviderRequest(url="http://rest", body=b""), f"after {decoder}")

        def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
            return ApiError(status, "mapped")

    provider = Resumable(["unused"])
    call = record(candidate(provider=provider))
    assert call.begin_attempt() == (provider, call.request)
    builder = call.builder
    assert not call.prepare_to_resume()  # nothing has been decoded
    call.decoder = "lost"
    assert not call.prepare_to_resume()
    assert call.resumption is None
    call.decoder = "half"
    assert call.prepare_to_resume()
    resumed, request = call.begin_attempt()
    assert isinstance(resumed, Resumed)
    decoder: Any = resumed.decoder(call.options)
    assert (resumed.name, request.url, decoder) == ("scripted", "http://rest", "after half")
    assert resumed.request(call.call) == provider.request(call.call)
    assert str(resumed.error(500, {}, b"")) == str(ApiError(500, "mapped"))
    assert call.builder is builder
    call.forget_answer()
    assert (call.decoder, call.resumption, call.builder is builder) == (None, None, False)
    builder = call.builder
    assert call.begin_attempt()[0] is provider
    assert call.builder is not builder


def test_the_rest_of_an_answer_is_requested_with_the_headers_of_the_call() -> None:
    class Resumable(ScriptedProvider):
        def resume(self, decoder: Any) -> Any:
            return ProviderRequest(url="http://rest", body=b""), decoder

    provider = Resumable(["unused"])
    asked = ChatCall(model="m", input="Hello", parameters={}, headers={"X-Team": "red"})
    call = record(Candidate(provider=provider, call=asked, request=provider.request(asked)))
    call.decoder = "half"
    assert call.prepare_to_resume()
    assert call.begin_attempt()[1].headers["X-Team"] == "red"


def test_a_provider_that_cannot_resume_is_asked_anew() -> None:
    call = record()
    call.decoder = object()
    assert not call.prepare_to_resume()


def test_a_kept_answer_is_asked_for_until_all_that_the_log_has_has_come_or_it_is_given_up() -> None:
    class Keeping(ScriptedProvider):
        def kept_as(self, metadata: Mapping[str, Any]) -> str | None:
            return None

        def replay(self, name: str) -> ProviderRequest:
            return ProviderRequest(url=f"http://kept/{name}", body=b"", method="GET")

    first, second = candidate(), candidate(provider=Keeping(["unused"]), account="mine")
    asked, overlap = ("mine", second.call.model), Overlap([])
    assert not record(first).take_up(asked, "a", overlap), "no candidate has that name"
    assert not record(first, second).take_up((first.provider.name, first.call.model), "a", overlap), "it keeps none"
    call = record(first, second)
    assert call.take_up(asked, "a", overlap)
    assert (call.candidate, call.kept_as, call.overlap) == (second, "a", overlap)
    for _ in range(2):
        builder = call.builder
        assert call.begin_attempt()[1].url == "http://kept/a"
        assert call.builder is not builder
    call.begin_anew()
    assert (call.candidate, call.tries, call.overlap) == (first, 0, None)
    assert call.begin_attempt() == (first.provider, first.request)


@pytest.mark.parametrize("has_conductor", [True, False])
def test_only_a_conducted_answer_keeps_its_text(has_conductor: bool) -> None:
    call = record(conductor=Conductor("it", Ref()) if has_conductor else None)  # type: ignore[arg-type]
    assert call.builder.keeps_text is has_conductor
    call.forget_answer()
    assert call.builder.keeps_text is has_conductor


def test_an_integration_that_takes_over_abandons_the_attempt_of_the_one_before() -> None:
    call = record()
    attempt, new = Attempt(), Ref()
    assert call.take_over(Ref()) is None
    call.attempt = attempt
    assert call.take_over(new) is attempt
    assert (call.ref, attempt.abandoned) == (new, 1)


# --- the gate --------------------------------------------------------------------------------------------------------


def test_a_ticket_is_of_the_estimated_tokens_and_the_one_before_it_is_given_back() -> None:
    gate: Any = Gate()
    call = record(candidate("a", input="x" * 400, gate=gate, key=b"k"), candidate("b", input="x" * 800, key=b"other"))
    first = call.take_ticket(gate, lambda: None, 0.25)
    assert (first.tokens, first.key, first.is_retry, first.jitter) == (350, b"k", False, 0.25)
    call.begin_attempt()
    second = call.take_ticket(gate, lambda: None, 0.5)
    assert second.is_retry
    assert gate.told == [("spent", first, None), ("leave", first, "neutral")]
    call.has_started(0.0, 0.1)
    assert (call.started, gate.told[2:]) == (True, [("answered", second)])
    for _ in range(19):
        gate.hedging.note_first_token("a", 0.1)
    assert gate.hedging.p95("a") == 0.2  # twenty times of a tenth of a second are known
    call.leave(LOST)
    call.leave(LOST)
    call.abandon()
    assert gate.told[3:] == [("spent", second, None), ("leave", second, LOST)]
    call.has_started(0.0, 0.1)
    assert len(gate.told) == 5
    call.fall_back(LOST)
    third = call.take_ticket(gate, lambda: None, 0.5)
    assert (third.tokens, third.key, third.is_retry) == (450, b"other", False)
    call.has_started(0.0, 0.1)  # this candidate has no gate
    call.leave()
    assert len(gate.told) == 5


def test_a_failure_gives_the_place_back_and_says_why() -> None:
    gate: Any = Gate()
    call = record(candidate(gate=gate))
    assert call.state == "queued"
    ticket = call.take_ticket(gate, lambda: None, 0.0)
    call.note_failure(LOST)
    assert gate.told[-1] == ("leave", ticket, LOST)


def test_the_errors_of_all_candidates_are_chained_each_once() -> None:
    first, second, last, deepest = (ProtocolError(name) for name in ("first", "second", "last", "deepest"))
    last.__cause__ = deepest
    call = record(*[candidate()] * 4)
    for error in (first, second, second):
        call.fall_back(error)
    assert call.final_error(last) is last
    assert (last.__cause__, deepest.__cause__, second.__cause__, first.__cause__) == (deepest, second, first, None)


def test_an_open_circuit_does_not_hide_the_error_before_it() -> None:
    call, opened = record(), CircuitOpen("it", 3.0)
    call.note_failure(LOST)
    call.note_failure(opened)
    assert (call.last_error, opened.__cause__) == (LOST, LOST)
    other = ProtocolError("other")
    call.note_failure(other)
    assert call.last_error is other
    call.last_error = opened
    call.note_failure(opened)
    assert opened.__cause__ is LOST


def test_a_call_knows_when_its_first_delta_came_in_whichever_attempt() -> None:
    call = record()
    assert call.first_delta_at is None
    for now in (5.0, 6.0):
        call.begin_attempt()
        call.has_started(now, 0.1)
    assert call.first_delta_at == 5.0


# --- the answer ------------------------------------------------------------------------------------------------------


def test_an_outcome_says_how_many_blocks_were_not_sent_once_it_was_sent() -> None:
    call = record(candidate(foreign_blocks=2))
    assert "dropped_blocks" not in call.outcome().provider_metadata
    call.begin_attempt()
    assert call.outcome().provider_metadata["dropped_blocks"] == 2
    assert call.outcome().model == "m"
    call.builder.model = "m-2026"
    assert call.outcome().model == "m-2026"
    clean = record()
    clean.begin_attempt()
    assert clean.outcome().provider_metadata == {}


@pytest.mark.parametrize("is_whole", [True, False])
def test_without_a_price_the_cost_is_what_the_provider_says(is_whole: bool) -> None:
    call = record()
    call.begin_attempt()
    assert call.outcome().cost is None
    call.builder.note(UsageDelta(Usage(input_tokens=1, reported_cost=0.5)))
    if is_whole:
        call.builder.note(FinishDelta("stop", "stop"))
    cost = call.outcome().cost
    assert (cost.amount, cost.reported, cost.source, cost.is_estimate) == (0.5, 0.5, "provider", not is_whole)


def test_what_came_before_a_reset_is_void_in_the_outcome() -> None:
    call = record()
    call.void_answer(5)
    assert call.outcome().void_text == 5


def test_calls_without_text_are_billed_by_an_estimate() -> None:
    call = record()
    assert call.bill(None, is_over=True) == (None, False)
    call.builder.note(MetadataDelta({"container": "c"}))
    usage, is_estimate = call.bill(None, is_over=True)
    assert (usage.input_tokens, usage.output_tokens, is_estimate) == (2, 0, True)


def test_an_answer_that_broke_off_before_a_word_costs_the_output_that_was_reported() -> None:
    call = record(candidate(price=Price(Rates(input=1e6, cached_input=1e6, cache_write=1e6, output=1e6))))
    call.begin_attempt()
    call.builder.note(UsageDelta(Usage(input_tokens=3, output_tokens=0)))
    cost = call.outcome().cost
    assert (cost.amount, cost.is_estimate) == (3.0, True)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, LOST])
def test_the_end_is_proposed_with_all_rounds_before_this_one(error: Any) -> None:
    stream: Any = Stream()
    stream.rounds = [Outcome(usage=Usage(input_tokens=number)) for number in (1, 10, 100)]
    call = record(round=3)
    call.builder.note(UsageDelta(Usage(input_tokens=1000)))
    call.end(stream, error)
    ending: Any = stream.proposed[0]
    assert type(ending).__name__ == ("Complete" if error is None else "Fail")
    assert ending.outcome.usage.input_tokens == 1011
    assert error is None or ending.error is error


def test_an_end_is_reported_by_the_integration_at_work_or_by_the_handler_and_only_while_the_stream_runs() -> None:
    stream: Any = Stream()
    call = record()
    call.take_over(Ref())
    call.end(stream, None, by=Ref())
    stream.ending = "proposed"
    call.end(stream, None, by=call.ref)
    assert stream.proposed == []
    stream.ending = None
    call.end(stream, None, by=call.ref)
    call.end(stream, None)
    assert len(stream.proposed) == 2  # the stream takes the first


@pytest.mark.parametrize("error", [None, LOST])
def test_observers_are_notified_once_and_before_the_stream_of_an_end_that_counts(error: Any) -> None:
    stream: Any = Stream()
    call, notified = record(), []
    call.take_over(Ref())

    def called(*arguments: Any) -> None:
        notified.append((*arguments, len(stream.proposed)))

    stream.observers = (SimpleNamespace(called=called),) * 2
    call.end(stream, error, by=Ref())  # has been replaced
    assert notified == []
    for _ in range(3):
        call.end(stream, error, by=call.ref)
    assert notified == [(stream, call, error, 0)] * 2


def test_observers_are_not_notified_of_the_end_of_a_stream_that_ends_already() -> None:
    stream: Any = Stream()
    notified: list[Any] = []
    stream.observers = (SimpleNamespace(called=lambda *arguments: notified.append(arguments)),)
    stream.ending = "proposed"
    record().end(stream, None)
    assert notified == []


@pytest.mark.parametrize("alive", [True, False])
def test_the_end_of_a_round_is_for_its_conductor_and_without_it_the_stream_fails(alive: bool) -> None:
    stream: Any = Stream()
    ref = Ref(alive=alive)
    call = record(conductor=Conductor("it", ref))  # type: ignore[arg-type]
    for _ in range(2):
        call.end(stream, None)
    if alive:
        assert [type(message) for message in ref.told] == [RoundEnded]
        assert (stream.proposed, call.is_handed_over) == ([], True)
    else:
        assert ref.told == []
        assert isinstance(stream.proposed[0].error, AgentCrashed)
        assert not call.is_handed_over


@pytest.mark.parametrize("alive", [True, False, None])
def test_a_cancelled_call_lets_go_of_all_and_tells_its_integration(alive: bool | None) -> None:
    gate: Any = Gate()
    call = record(candidate(gate=gate))
    assert not call.is_cancelled
    ref = None if alive is None else Ref(alive=alive)
    call.ref, call.attempt = ref, (attempt := Attempt())
    ticket = call.take_ticket(gate, lambda: None, 0.0)
    call.cancel()
    assert (call.is_cancelled, attempt.abandoned, call.attempt) == (True, 1, None)
    assert gate.told == [("spent", ticket, None), ("leave", ticket, "neutral")]
    assert ref is None or [type(message) for message in ref.told] == ([Cancel] if alive else [])
