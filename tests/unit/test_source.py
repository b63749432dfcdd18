"""An integration that was abandoned while its thread runs on; and what is told how a round has ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

import penstock
from penstock.actors.call.gate import Admission, Ticket
from penstock.actors.call.messages import RoundEnded
from penstock.actors.call.record import CallRecord, Candidate
from penstock.actors.runtime import inspect
from penstock.config.options import RequestOptions
from penstock.config.prices import Price, Rates
from penstock.config.settings import Settings
from penstock.errors import ConnectError, ProviderTimeout
from penstock.events import Cost, Usage
from penstock.ports import (
    ChatCall,
    FinishDelta,
    OfferSink,
    Provider,
    ProviderRequest,
    Quota,
    ReaderSink,
    TextDelta,
    UsageDelta,
)
from penstock.testing import (
    HANG,
    ResumableProvider,
    ScriptedAttempt,
    ScriptedProvider,
    SimulatedSystem,
    eventually,
)
from penstock.testing.scripted import ScriptedDecoder
from tests.conformance.agents import Bench, agent_on, ask, say, until


class _Job:
    def __init__(self, sink: Any) -> None:
        self.sink: OfferSink = sink
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class _Decoder:
    model = None
    skipped = 0
    finished = done = True


class _Reader:
    """Starts nothing; the test says what comes."""

    def __init__(self) -> None:
        self.jobs: list[_Job] = []

    def start(self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink) -> _Job:
        self.jobs.append(_Job(sink))
        return self.jobs[-1]

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self, timeout: float) -> int:
        return 0


def test_an_integration_that_was_given_up_just_before_it_sends_sends_nothing_that_counts() -> None:
    reader = _Reader()
    with penstock.System(Settings(), reader=reader) as system:
        options = RequestOptions(retry_base_delay=0.01)
        stream = system.chat("m", "Hello", provider=ScriptedProvider(["never used"]), request_options=options)
        source = stream._record.feed
        assert isinstance(source, CallRecord)
        gate = source.candidate.gate
        assert gate is not None
        admitted, go_on, enter = threading.Event(), threading.Event(), gate.enter

        def hold_the_first(ticket: Ticket) -> Admission:
            admission, is_first = enter(ticket), not admitted.is_set()
            admitted.set()
            if is_first:
                go_on.wait(10)
            return admission

        eventually(lambda: reader.jobs)
        gate.enter = hold_the_first  # type: ignore[method-assign]
        reader.jobs[0].sink.ended(None, ConnectError("host", "refused"))
        assert admitted.wait(10)  # it is about to send again
        assert source.ref is not None
        system.runtime.exit(source.ref, "kill")
        eventually(lambda: len(reader.jobs) == 2)  # its successor has
        go_on.set()
        eventually(lambda: system.runtime.dispatcher.statistics().leaked == 0)
        for job in reader.jobs[1:]:
            job.sink.offer([TextDelta("Hello!"), FinishDelta("stop", "stop")], lambda: None)
        for job in reader.jobs[1:]:
            job.sink.ended(_Decoder(), None)  # type: ignore[arg-type]
        assert stream.result(10).text == "Hello!"
        assert len(reader.jobs) == 2
        eventually(lambda: system.statistics().providers[0].active == 0)


def test_who_is_told_of_a_rounds_end_is_told_once_and_not_by_one_that_was_given_up() -> None:
    with SimulatedSystem() as system:
        agent, _ = agent_on(system, say(100.0, "One."))
        stream = agent.stream_chat("Go.")
        system.advance(1)
        record, conductor = stream._record, agent._record.ref
        source = record.feed
        assert isinstance(source, CallRecord)
        assert source.ref is not None
        past = source.ref
        told: list[object] = []
        system.runtime.exit(past, "kill")
        system.settle()
        assert source.ref is not past
        assert conductor is not None
        conductor.tell = told.append  # type: ignore[method-assign, assignment]
        source.end(record, None, by=past)
        assert told == []
        source.end(record, None, by=source.ref)
        source.end(record, None, by=source.ref)
        assert [type(message) for message in told] == [RoundEnded]
        del conductor.tell


def test_a_stream_whose_conductor_is_dead_fails_with_what_all_rounds_have_used() -> None:
    usage = Usage(input_tokens=3, output_tokens=4)
    with SimulatedSystem() as system:
        bench = Bench(system)
        asked = ask(("a", "double", '{"x": 1}'))
        asked = ScriptedAttempt((*asked.steps, UsageDelta(usage)), finish="tool_calls")
        agent, _ = agent_on(system, asked, say("Well.", HANG), tools=bench.tools())
        stream = agent.stream_chat("Go.")
        until(system, lambda: stream.text)
        source, conductor = stream._record.feed, agent._record.ref
        assert isinstance(source, CallRecord)
        assert conductor is not None
        system.runtime.exit(conductor, "kill")  # and before that is known
        source.end(stream._record, None)
        with pytest.raises(penstock.AgentCrashed):
            stream.result(10)
        terminal = stream._record.log.terminal
        assert terminal is not None
        assert (terminal.usage, [call.name for call in terminal.tool_calls]) == (usage, ["double"])


@pytest.mark.parametrize("account", ["", "mine"])
def test_an_outcome_names_the_account_and_without_one_the_dialect(account: str) -> None:
    record = _record(account=account)
    assert record.outcome().provider == (account or record.provider.name)


def _record(**more: Any) -> CallRecord:
    provider = ScriptedProvider(["never used"])
    call = ChatCall(model="m", input="Hello", parameters={})
    candidate = Candidate(provider=provider, call=call, request=provider.request(call), **more)
    return CallRecord([candidate, candidate], RequestOptions(), _Reader())


PRICE = Price(Rates(input=1e6, cached_input=1e6, cache_write=1e6, output=100e6))  # 1 for a token in, 100 for one out


@pytest.mark.parametrize(
    ("usage", "answered", "is_whole", "amount", "is_estimate"),
    [
        (None, 0, False, 2, True),  # "Hello" is estimated to be two tokens
        (None, 40, True, 1002, True),
        (Usage(input_tokens=7), 40, True, 1002, True),
        (Usage(output_tokens=7), 40, True, 1002, True),
        (Usage(input_tokens=7, output_tokens=3), 40, True, 307, False),
        (Usage(input_tokens=7, output_tokens=3), 40, False, 1007, True),
        (Usage(input_tokens=7, output_tokens=30), 40, False, 3007, True),
    ],
)
def test_the_cost_is_of_the_usage_that_was_told_or_of_an_estimate(
    usage: Usage | None, answered: int, is_whole: bool, amount: float, is_estimate: bool
) -> None:
    record = _record(price=PRICE)
    record.begin_attempt()
    record.builder.size = answered
    if usage is not None:
        record.builder.note(UsageDelta(usage))
    if is_whole:
        record.builder.note(FinishDelta("stop", "stop"))
    assert record.outcome().cost == Cost(amount=amount, currency="USD", is_estimate=is_estimate)


TOLD = Usage(input_tokens=7, output_tokens=3)
ESTIMATE = Usage(input_tokens=2, output_tokens=10, total_tokens=12)  # of "Hello" and 40 characters


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("reported", [TOLD, None])
@pytest.mark.parametrize("answered", [40, 0])
def test_the_bill_is_what_was_reported_or_an_estimate(
    is_over: bool, is_finished: bool, reported: Usage | None, answered: int
) -> None:
    record = _record()
    record.begin_attempt()
    record.builder.size = answered
    if is_finished:
        record.builder.note(FinishDelta("stop", "stop"))
    estimate = ESTIMATE if answered else Usage(input_tokens=2, output_tokens=0, total_tokens=2)
    if reported is not None:
        wanted: tuple[Usage | None, bool] = (reported, not is_finished)
    elif is_over and (is_finished or not answered):
        wanted = (None, False)
    else:
        wanted = (estimate, True)
    assert record.bill(reported, is_over=is_over) == wanted


def test_without_a_price_or_an_attempt_there_is_no_cost() -> None:
    record = _record()
    record.begin_attempt()
    assert record.outcome().cost is None
    record = _record(price=PRICE)
    assert record.outcome().cost is None
    record.begin_attempt()
    record.fall_back(ConnectError("host", "refused"))
    assert record.outcome().cost is None, "the second candidate was not asked"


def test_an_answers_headers_tell_the_gate_the_quota_of_their_key() -> None:
    class Noting:
        def __init__(self) -> None:
            self.noted: list[tuple[Quota | None, bytes]] = []

        def note_quota(self, quota: Quota | None, key: bytes) -> None:
            self.noted.append((quota, key))

    class Silent:
        """Says nothing about limits."""

    gate: Any = Noting()
    telling, silent = ScriptedProvider(["never used"]), Silent()
    call = ChatCall(model="m", input="Hello", parameters={})
    request, headers = telling.request(call), {"quota": '{"requests_left": 7}'}
    Candidate(provider=telling, call=call, request=request, gate=gate, key=b"k").answered(headers)
    Candidate(provider=telling, call=call, request=request).answered(headers)
    Candidate(provider=silent, call=call, request=request, gate=gate).answered(headers)  # type: ignore[arg-type]
    assert gate.noted == [(Quota(requests_left=7), b"k")]


def test_abandoning_a_call_abandons_its_attempt_and_leaves_the_gate() -> None:
    class Attempt:
        abandoned = 0

        def abandon(self) -> None:
            self.abandoned += 1

    class Place:
        def __init__(self) -> None:
            self.left: list[tuple[Ticket, object]] = []

        def spent(self, ticket: Ticket, usage: Usage | None) -> None:
            return

        def leave(self, ticket: Ticket, failure: object) -> None:
            self.left.append((ticket, failure))

    gate: Any = Place()
    record, attempt = _record(gate=gate), Attempt()
    record.abandon()
    record.attempt = attempt
    ticket = record.take_ticket(gate, lambda: None, 0.5)
    record.abandon()
    record.abandon()
    assert gate.left == [(ticket, "neutral")]
    assert attempt.abandoned == 2


class _Looped(ConnectError):
    """The last of a chain of causes that leads back into itself, and must not be followed for ever."""

    asked = 0

    @property
    def __cause__(self) -> BaseException | None:
        type(self).asked += 1
        assert self.asked < 100, "the chain of causes is followed for ever"
        return self

    @__cause__.setter
    def __cause__(self, cause: BaseException | None) -> None:
        self.set_cause = cause


def test_a_chain_of_causes_that_leads_back_into_itself_is_followed_once() -> None:
    record = _record()
    earlier, later = ConnectError("one", "refused"), _Looped("two", "refused")
    record.fall_back(earlier)
    assert record.final_error(later) is later
    assert later.set_cause is earlier


def test_a_reader_that_has_a_connection_waits_for_the_first_delta_at_once() -> None:
    reader = _Reader()
    options = RequestOptions(max_retries=0, first_token_timeout=3.0, connect_timeout=50.0)
    with SimulatedSystem(reader=reader) as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(["never used"]), request_options=options)
        system.settle()
        assert system.get_stream_info(stream.stream_id).source == "queued"
        reader.jobs[0].sink.waiting()
        system.settle()
        assert system.get_stream_info(stream.stream_id).source == "waiting"
        system.advance(2.9)
        assert not stream.is_over
        system.advance(0.2)
        with pytest.raises(ProviderTimeout) as caught:
            stream.result(1)
        assert caught.value.which == "first_token"


@pytest.mark.parametrize(("late", "is_resumed"), [(0.9, True), (1.2, False)])
def test_an_answer_is_resumed_if_its_reader_ends_within_a_second_of_the_retrys_time(
    late: float, is_resumed: bool
) -> None:
    reader = _Reader()
    options = RequestOptions(
        on_interrupt="resume", idle_timeout=2.0, first_token_timeout=50.0, retry_base_delay=0.1, retry_max_delay=0.1
    )
    with SimulatedSystem(reader=reader) as system:
        provider = ResumableProvider(["never used"])
        stream = system.chat("m", "Hello", provider=provider, request_options=options)
        system.settle()
        sink = reader.jobs[0].sink
        sink.waiting()
        sink.offer([TextDelta("Hel")], lambda: None)
        system.settle()
        system.advance(2.11)
        assert system.get_stream_info(stream.stream_id).source == "retry_wait"
        system.advance(late - 0.11)
        sink.ended(ScriptedDecoder(1), None)
        system.advance(0.05)
        assert len(reader.jobs) == 1 + is_resumed
        assert stream.is_over is not is_resumed


def test_a_retry_waits_until_the_stream_has_answered_the_reset() -> None:
    reader = _Reader()
    options = RequestOptions(on_interrupt="restart", retry_base_delay=0.1, first_token_timeout=50.0)
    with SimulatedSystem(reader=reader) as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(["never used"]), request_options=options)
        system.settle()
        reader.jobs[0].sink.offer([TextDelta("void")], lambda: None)
        system.advance(1)
        ref = stream._record.ref
        assert ref is not None
        inspect.suspend(ref)
        reader.jobs[0].sink.ended(None, ConnectError("host", "broke off"))
        system.advance(5)  # the wait before the retry has been over for long
        assert len(reader.jobs) == 1
        inspect.resume(ref)
        system.settle()
        assert len(reader.jobs) == 2
        reader.jobs[1].sink.offer([TextDelta("right"), FinishDelta("stop", "stop")], lambda: None)
        reader.jobs[1].sink.ended(_Decoder(), None)  # type: ignore[arg-type]
        assert stream.result(10).text == "right"
