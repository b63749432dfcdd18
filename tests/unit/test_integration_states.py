"""The states of an integration, event by event: which time-outs are left, and what comes from an attempt before."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.call.gate import Admitted, Refused, Wait
from penstock.actors.call.integration import Integration, _Turn
from penstock.actors.call.messages import Connecting, Ended, Finished, FirstDelta, Waiting
from penstock.actors.runtime.transitions import (
    Cast,
    Keep,
    NamedTimeout,
    Next,
    SetTimeout,
    StateTimeout,
    Stop,
    cancel_timeout,
    state_timeout,
    timeout,
)
from penstock.actors.stream.messages import Cancel
from penstock.config.options import RequestOptions
from penstock.errors import IncompleteStream, ProviderBusy, ProviderTimeout

OPTIONS = RequestOptions(
    connect_timeout=3.0, first_token_timeout=20.0, idle_timeout=10.0, reasoning_timeout=60.0, finish_grace=2.0
)


class Desk:
    """An integration that has not been started, with its second attempt under way."""

    def __init__(self, state: str) -> None:
        self.now = 100.0
        self.done: list[tuple[Any, ...]] = []
        integration: Any = object.__new__(Integration)
        integration.runtime = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: self.now))
        integration._options = OPTIONS
        integration._state = state
        integration._stream = SimpleNamespace(is_held=False, released_at=0.0)
        self.attempt = integration._attempt = SimpleNamespace(
            number=2, last_progress=100.0, is_pushing=False, is_reasoning=False, has_progressed=False, error=None
        )
        candidate = SimpleNamespace(gate=None, account="mine", provider=SimpleNamespace(name="scripted"))
        self.candidate = candidate
        integration._call = SimpleNamespace(candidate=candidate, provider=candidate.provider, state=state, ticket=None)
        for name in ("_ended", "_timed_out", "_failed", "_enter"):
            setattr(integration, name, self._noting(name))
        integration._to = lambda state, *actions: Next(state, *actions)
        self.integration = integration

    def _noting(self, name: str) -> Any:
        def note(*arguments: Any) -> str:
            self.done.append((name, *arguments))
            return name

        return note

    def gets(self, event: Any) -> Any:
        """The state and the actions of a transition, or what was called in its place."""
        integration = self.integration
        transition = getattr(integration, integration._state)(event)
        if isinstance(transition, Next):
            return (transition.state, *transition.actions)
        return transition.actions if isinstance(transition, Keep) else transition


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("state", "news", "then"),
    [
        ("queued", Connecting, ("connecting", state_timeout(3.0))),
        ("queued", Waiting, ("waiting", state_timeout(20.0))),
        ("queued", FirstDelta, ("streaming", state_timeout(10.0))),
        ("connecting", Waiting, ("waiting", state_timeout(20.0))),
        ("waiting", FirstDelta, ("streaming", state_timeout(10.0))),
        ("streaming", Finished, (timeout("grace", 2.0),)),
        ("retry_wait", Waiting, None),
        ("streaming", Waiting, None),
    ],
)
def test_news_of_the_present_attempt_move_it_on_and_those_of_an_earlier_one_do_not(
    number: int, state: str, news: Any, then: Any
) -> None:
    assert Desk(state).gets(Cast(news(number))) == (then if number == 2 else None)


@pytest.mark.parametrize("number", [1, 2])
def test_only_the_end_of_the_present_attempt_is_its_end(number: int) -> None:
    desk, ended = Desk("streaming"), Ended(number, True, None)
    assert desk.gets(Cast(ended)) == ("_ended" if number == 2 else None)
    assert desk.done == ([("_ended", ended)] if number == 2 else [])


def test_without_an_attempt_no_news_are_those_of_the_present_one() -> None:
    desk = Desk("retry_wait")
    desk.integration._attempt = None
    for news in (Ended(2, True, None), Finished(2), FirstDelta(2)):
        assert desk.gets(Cast(news)) is None


@pytest.mark.parametrize("is_reasoning", [False, True])
def test_a_model_that_has_not_begun_is_waited_for_until_its_time_is_over(is_reasoning: bool) -> None:
    desk = Desk("waiting")
    desk.integration._waiting_since = 90.0
    desk.attempt.is_reasoning = is_reasoning
    limit = 60.0 if is_reasoning else 20.0
    assert desk.gets(StateTimeout(None)) == ("waiting", state_timeout(limit - 10.0))
    desk.now = 90.0 + limit
    assert desk.gets(StateTimeout(None)) == "_timed_out"
    assert desk.done == [("_timed_out", "first_token", limit)]
    desk.attempt.has_progressed = True
    assert desk.gets(StateTimeout(None)) == ("streaming", state_timeout(10.0))


@pytest.mark.parametrize(
    ("progress", "released", "more", "left"),
    [
        (96.0, 0.0, {}, 6.0),
        (80.0, 97.0, {}, 7.0),  # the stream was held until then
        (90.0, 0.0, {}, None),
        (50.0, 0.0, {"is_pushing": True}, 10.0),
        (50.0, 0.0, {"is_held": True}, 10.0),
        (96.0, 0.0, {"is_reasoning": True}, 10.0),  # 56 s, in pieces
        (42.5, 0.0, {"is_reasoning": True}, 2.5),
        (40.0, 0.0, {"is_reasoning": True}, None),
    ],
)
def test_a_silent_provider_is_given_up_when_its_time_is_over_in_which_the_stream_was_ready(
    progress: float, released: float, more: dict[str, bool], left: float | None
) -> None:
    desk = Desk("streaming")
    desk.attempt.last_progress = progress
    desk.integration._stream.released_at = released
    for name, value in more.items():
        setattr(desk.integration._stream if name == "is_held" else desk.attempt, name, value)
    if left is not None:
        assert desk.gets(StateTimeout(None)) == ("streaming", state_timeout(left))
    else:
        assert desk.gets(StateTimeout(None)) == "_timed_out"
        assert desk.done == [("_timed_out", "idle", 60.0 if more else 10.0)]


@pytest.mark.parametrize(
    ("progress", "more", "left"),
    [
        (99.5, {}, 1.5),
        (98.0, {}, None),
        (50.0, {"is_pushing": True}, 2.0),
        (99.5, {"is_pushing": True}, 2.0),
        (99.5, {"error": LookupError()}, None),
        (99.5, {"error": LookupError(), "is_pushing": True}, 2.0),
    ],
)
def test_a_finished_answer_is_waited_for_as_long_as_pieces_come(
    progress: float, more: dict[str, Any], left: float | None
) -> None:
    desk = Desk("streaming")
    vars(desk.attempt).update(more, last_progress=progress)
    result = desk.gets(NamedTimeout("grace", None))
    assert result == ("_ended" if left is None else (SetTimeout("grace", left, None, False),))
    assert desk.done == ([] if left is not None else [("_ended", Ended(2, not more, None))])
    desk.integration._attempt = None
    assert desk.gets(NamedTimeout("grace", None)) is None


@pytest.mark.parametrize(("has_gate", "seconds"), [(True, 7.0), (False, None)])
def test_a_reader_is_waited_for_as_long_as_a_place_at_the_gate(has_gate: bool, seconds: float | None) -> None:
    desk = Desk("queued")
    if has_gate:
        desk.candidate.gate = SimpleNamespace(limits=SimpleNamespace(queue_timeout=7.0))
    assert desk.integration._reader_patience == seconds or seconds is None
    assert desk.integration._reader_patience > 0
    assert desk.gets(StateTimeout(None)) == "_failed"
    ((_, error, attempt),) = desk.done
    assert isinstance(error, ProviderBusy)
    assert (error.endpoint, attempt) == ("mine", desk.attempt)


def test_a_turn_at_the_gate_is_taken_for_the_present_ticket_only() -> None:
    desk = Desk("limited")
    assert desk.gets(StateTimeout(None)) == "_enter"
    desk.integration._call.ticket = None
    assert desk.gets(NamedTimeout("queue", None)) is None
    refused: list[Any] = []

    def timed_out(ticket: object) -> str:
        refused.append(ticket)
        return "busy"

    desk.candidate.gate = SimpleNamespace(timed_out=timed_out)
    desk.integration._call.ticket = "ticket"
    assert desk.gets(NamedTimeout("queue", None)) == "_failed"
    assert (refused, desk.done[-1]) == (["ticket"], ("_failed", "busy", None))


@pytest.mark.parametrize("why", ["cancelled", "handed over", "replaced", "over", "ending"])
def test_an_integration_has_nothing_to_do_for_a_call_or_a_stream_that_is_over(why: str) -> None:
    integration: Any = object.__new__(Integration)
    integration._actor_ref = object()
    taken: list[Any] = []
    call: Any = SimpleNamespace(
        options=OPTIONS, take_over=taken.append, is_cancelled=why == "cancelled", is_handed_over=why == "handed over"
    )
    record: Any = SimpleNamespace(
        stream_id="s",
        feed=None if why == "replaced" else call,
        is_over=why == "over",
        ending="it ends" if why == "ending" else None,
    )
    result = integration.init(record, call)
    assert isinstance(result, Stop)
    assert result.reason == "normal"
    assert taken == [integration._actor_ref]


class Start:
    """An integration that is about to be started."""

    def __init__(self, before: Any = None, *, started: bool = False, **more: Any) -> None:
        integration: Any = object.__new__(Integration)
        integration._actor_ref = object()
        integration.runtime = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 100.0, time=lambda: 7.0))
        self.done: list[tuple[Any, ...]] = []
        self.transition: Any = Next("queued", state_timeout(1.0))
        integration._begin_attempt = lambda: self._begin()
        integration._failed = lambda *arguments: self._begin(*arguments)
        self.call: Any = SimpleNamespace(
            options=RequestOptions(total_timeout=30.0),
            take_over=lambda ref: before,
            is_cancelled=False,
            is_handed_over=False,
            started=started,
            deadline=None,
            began_at=None,
        )
        vars(self.call).update(more)
        self.integration = integration

    def _begin(self, *arguments: Any) -> Any:
        self.done.append(arguments)
        return self.transition

    def init(self) -> Any:
        record: Any = SimpleNamespace(stream_id="s", feed=self.call, is_over=False, ending=None)
        return self.integration.init(record, self.call)


@pytest.mark.parametrize(
    ("total", "deadline", "wanted"), [(30.0, None, 130.0), (30.0, 105.0, 105.0), (None, None, None), (None, 1.0, 1.0)]
)
def test_all_attempts_together_have_one_deadline_which_a_new_integration_keeps(
    total: float | None, deadline: float | None, wanted: float | None
) -> None:
    start = Start(options=RequestOptions(total_timeout=total), deadline=deadline)
    result = start.init()
    assert start.call.deadline == wanted
    assert isinstance(result, Next)
    assert (result.state, result.actions) == (
        "queued", (state_timeout(1.0), timeout("total", wanted, absolute=True))
    )  # fmt: skip


@pytest.mark.parametrize(("before", "wanted"), [(None, 7.0), (3.0, 3.0)])
def test_a_call_begins_when_its_first_integration_takes_it_up(before: float | None, wanted: float) -> None:
    start = Start(began_at=before)
    start.init()
    assert start.call.began_at == wanted


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("before", [None, "attempt"])
def test_a_new_integration_begins_or_goes_on_as_if_the_connection_had_broken(before: Any, started: bool) -> None:
    start = Start(before, started=started)
    start.init()
    (arguments,) = start.done
    if before is None and not started:
        assert arguments == ()
    else:
        error, attempt = arguments
        assert isinstance(error, IncompleteStream)
        assert attempt is before


def test_an_integration_that_cannot_begin_stops_and_one_that_begins_cleans_up_at_an_exit() -> None:
    start = Start()
    start.transition = Stop("normal")
    assert start.init() is start.transition
    assert start.integration.trap_exit
    assert not start.integration._wait_is_over


def test_half_a_second_that_is_left_is_waited_for() -> None:
    desk = Desk("waiting")
    desk.integration._waiting_since = 80.5
    assert desk.gets(StateTimeout(None)) == ("waiting", state_timeout(0.5))
    desk = Desk("streaming")
    desk.attempt.last_progress = 90.5
    assert desk.gets(StateTimeout(None)) == ("streaming", state_timeout(0.5))
    desk.attempt.last_progress = 98.5
    assert desk.gets(NamedTimeout("grace", None)) == (timeout("grace", 0.5),)


def test_a_turn_of_another_ticket_is_none_and_without_a_gate_or_a_ticket_nothing_is_timed_out() -> None:
    desk = Desk("limited")
    own, other = object(), object()
    desk.integration._call.ticket = SimpleNamespace(wake=own)
    assert desk.gets(Cast(_Turn(other))) is None  # type: ignore[arg-type]
    assert desk.gets(NamedTimeout("queue", None)) is None
    assert desk.done == []
    assert desk.gets(Cast(_Turn(own))) == "_enter"  # type: ignore[arg-type]
    desk.candidate.gate = SimpleNamespace(timed_out=lambda ticket: ticket)
    desk.integration._call.ticket = None
    assert desk.gets(Cast(_Turn(own))) is None  # type: ignore[arg-type]
    assert desk.gets(NamedTimeout("queue", None)) is None
    assert desk.done == [("_enter",)]


def test_without_an_account_a_provider_is_called_by_its_own_name() -> None:
    desk = Desk("queued")
    desk.candidate.account = ""
    desk.gets(StateTimeout(None))
    assert desk.done[0][1].endpoint == "scripted"


@pytest.mark.parametrize("attempt", ["none", "reads", "took all", "took all, cannot resume", "did not take all"])
def test_an_answer_is_resumed_by_the_decoder_that_has_decoded_what_the_stream_has_taken(attempt: str) -> None:
    desk = Desk("streaming")
    call = desk.integration._call
    call.decoder = "of before"
    call.prepare_to_resume = lambda: call.decoder is not None
    desk.attempt.has_ended = attempt != "reads"
    desk.attempt.took_all = attempt.startswith("took all")
    desk.attempt.decoder = "new" if attempt == "took all" else None
    may_resume = desk.integration._may_resume(None if attempt == "none" else desk.attempt)
    # The provider of these tests cannot resume; while the attempt is read, that alone counts.
    assert may_resume is (attempt not in ("reads", "did not take all"))
    assert call.decoder == {"took all": "new", "did not take all": None}.get(attempt, "of before")


class Sender:
    """An integration that is about to make an attempt."""

    def __init__(self, gate: Any = None, *, ticket: Any = None) -> None:
        integration: Any = object.__new__(Integration)
        integration._actor_ref = object()
        self.box: list[Any] = []
        integration.actor_inbox = SimpleNamespace(put=self.box.append)
        integration.runtime = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 100.0))
        integration._options, integration._attempt = OPTIONS, None
        integration._stream = SimpleNamespace(intake=None, options=SimpleNamespace(tokenizer=None))
        integration._interrupted = "of before"
        integration._random = SimpleNamespace(random=lambda: 0.25)
        integration._to = lambda state, *actions: Next(state, *actions)
        integration._failed = lambda error, attempt: ("_failed", error, attempt)
        self.error: Exception | None = None
        self.call = integration._call = SimpleNamespace(
            candidate=SimpleNamespace(gate=gate, provider=None),
            ticket=ticket,
            lock=threading.Lock(),
            ref=integration._actor_ref,
            is_cancelled=False,
            attempts=3,
            attempt=None,
            builder=SimpleNamespace(size=0, keeps_text=False, took=None, provider="scripted"),
            options=RequestOptions(),
            overlap=None,
            begin_attempt=lambda: ("provider", "request"),
            take_ticket=self._take,
            reader=SimpleNamespace(start=self._start),
        )
        self.integration = integration
        self.started: list[tuple[Any, ...]] = []

    def _take(self, gate: Any, wake: Any, jitter: float) -> Any:
        assert self.call.lock.locked()
        self.wake, self.jitter = wake, jitter
        self.call.ticket = object()
        return self.call.ticket

    def _start(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.started.append(arguments)
        return SimpleNamespace(cancel=lambda: None)


class Gate:
    """A gate that answers what it is told to."""

    limits = SimpleNamespace(queue_timeout=7.0)

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def enter(self, ticket: Any) -> Any:
        self.asked.append(ticket)
        return self.answer


def shown(transition: Any) -> Any:
    return (transition.state, *transition.actions) if isinstance(transition, Next) else transition


SENT = ("queued", cancel_timeout("queue"), cancel_timeout("grace"))


def test_without_a_gate_a_request_is_sent_at_once() -> None:
    sender = Sender()
    assert shown(sender.integration._begin_attempt())[:3] == SENT
    assert sender.integration._interrupted is None
    ((provider, request, options, attempt),) = sender.started
    assert (provider, request, options) == ("provider", "request", OPTIONS)
    assert attempt is sender.integration._attempt is sender.call.attempt
    assert attempt.number == 3
    assert sender.box == []


def test_a_gate_admits_a_ticket_has_it_wait_or_refuses_it_and_wakes_it() -> None:
    sender = Sender(gate := Gate(Wait(2.0)))
    assert shown(sender.integration._begin_attempt()) == ("limited", timeout("queue", 7.0), state_timeout(2.0))
    assert (gate.asked, sender.jitter, sender.started) == ([sender.call.ticket], 0.25, [])
    sender.wake()
    assert sender.box == [Cast(_Turn(sender.wake))]
    gate.answer = Refused(error := ProviderBusy("mine", "full"))
    assert sender.integration._enter() == ("_failed", error, None)
    gate.answer = Admitted()
    assert shown(sender.integration._enter())[:3] == SENT
    assert len(sender.started) == 1


@pytest.mark.parametrize("missing", ["gate", "ticket"])
def test_without_a_gate_or_a_ticket_that_were_there_nothing_more_is_sent(missing: str) -> None:
    gate = None if missing == "gate" else Gate(Admitted())
    sender = Sender(gate, ticket=None if missing == "ticket" else object())
    assert shown(sender.integration._enter()) == ("limited",)
    assert sender.started == []


@pytest.mark.parametrize("why", ["cancelled", "replaced"])
@pytest.mark.parametrize("has_gate", [False, True])
def test_an_integration_that_is_cancelled_or_replaced_neither_asks_the_gate_nor_sends(why: str, has_gate: bool) -> None:
    sender = Sender(gate := Gate(Admitted()) if has_gate else None)
    if why == "cancelled":
        sender.call.is_cancelled = True
    else:
        sender.call.ref = object()
    result = sender.integration._begin_attempt()
    assert isinstance(result, Stop)
    assert result.reason == "normal"
    assert (sender.started, sender.call.ticket, sender.call.attempt) == ([], None, None)
    assert gate is None or gate.asked == []


def test_a_reader_that_refuses_the_request_ends_the_attempt() -> None:
    sender = Sender()
    sender.error = ProviderBusy("mine", "no reader")
    assert shown(sender.integration._begin_attempt())[:3] == SENT
    assert sender.box == [Cast(Ended(3, False, sender.error))]


@pytest.mark.parametrize("which", ["idle", "total", "connect"])
@pytest.mark.parametrize("has", ["no attempt", "the answer", "a held finish", "an attempt"])
def test_when_a_time_is_over_the_answer_is_complete_or_the_attempt_has_failed(which: str, has: str) -> None:
    desk = Desk("streaming")
    desk.attempt.is_finished = has == "the answer"
    desk.attempt.has_held_finish = has == "a held finish"

    def failed(error: Any, attempt: Any, *, final: bool = False) -> str:
        desk.done.append(("_failed", error, attempt, final))
        return "_failed"

    desk.integration._failed = failed
    if has == "no attempt":
        desk.integration._attempt = None
    result: Any = Integration._timed_out(desk.integration, which, 5.0)
    if has == "the answer":
        assert (result, desk.done) == ("_ended", [("_ended", Ended(2, True, None))])
        return
    ((_, error, attempt, final),) = desk.done
    assert result == "_failed"
    assert isinstance(error, IncompleteStream if has == "a held finish" and which == "idle" else ProviderTimeout)
    assert attempt is desk.integration._attempt
    assert final is (which == "total" or has == "no attempt")


class Failing(Sender):
    """An integration with an attempt that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, ...]] = []
        self.notes: list[Any] = []
        self.abandoned = 0
        del self.integration._failed
        for name in ("_give_up", "_retry", "_start_over", "_begin_attempt"):
            setattr(self.integration, name, self._noting(name))
        self.delay: float | None = None
        self.integration._retry_after = lambda error, attempt: self.delay
        self.integration._stream = self.stream = SimpleNamespace(
            stream_id="s", counters=SimpleNamespace(failed_attempts=1)
        )
        self.attempt = self.integration._attempt = self.call.attempt = SimpleNamespace(abandon=self._abandon)
        self.call.candidate.account = "next"
        vars(self.call).update(
            has_fallback=False, started=False, overlap=None, note_failure=self.notes.append, fall_back=self._fall_back
        )

    def _noting(self, name: str) -> Any:
        def note(*arguments: Any) -> str:
            self.done.append((name, *arguments))
            return name

        return note

    def _abandon(self) -> None:
        self.abandoned += 1

    def _fall_back(self, error: Exception) -> None:
        self.done.append(("fall_back", error))


def test_a_failure_is_counted_and_the_attempt_is_let_go_of() -> None:
    failing, error = Failing(), IncompleteStream("x")
    assert failing.integration._failed(error, failing.attempt) == "_give_up"
    assert (failing.abandoned, failing.stream.counters.failed_attempts, failing.notes) == (1, 2, [error])
    assert failing.integration._attempt is failing.call.attempt is None
    failing.call.ref = object()  # another one has taken over
    result = failing.integration._failed(error, failing.attempt)
    assert isinstance(result, Stop)
    assert (failing.abandoned, failing.stream.counters.failed_attempts, failing.notes) == (2, 2, [error])


@pytest.mark.parametrize("on_interrupt", ["restart", "resume", "fail"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("can", ["nothing", "fall back", "retry", "be final"])
def test_a_failed_attempt_is_retried_or_given_to_the_next_candidate_or_ends_the_call(
    can: str, started: bool, on_interrupt: Any
) -> None:
    failing, error = Failing(), IncompleteStream("x")
    failing.integration._options = RequestOptions(on_interrupt=on_interrupt)
    failing.call.started = started
    failing.call.has_fallback = can != "nothing"
    failing.delay = 2.0 if can in ("retry", "be final") else None
    failing.integration._failed(error, failing.attempt, final=can == "be final")
    if can == "retry":
        assert failing.done == [("_retry", error, failing.attempt, 2.0)]
    elif can == "fall back" and not started:
        assert failing.done == [("fall_back", error), ("_begin_attempt",)]
    elif can == "fall back" and on_interrupt == "restart":
        assert failing.done == [("fall_back", error), ("_start_over", error, 0.0)]
    else:
        assert failing.done == [("_give_up", error)]


def test_what_no_state_knows_is_counted_and_a_cancelled_call_ends() -> None:
    desk = Desk("streaming")
    desk.integration.unhandled = lambda event: ("unhandled", event)
    assert desk.gets(Cast("what")) == ("unhandled", Cast("what"))
    assert isinstance(desk.gets(Cast(Cancel())), Stop)
