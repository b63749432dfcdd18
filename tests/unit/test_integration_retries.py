"""An integration's retries, one decision at a time: whether, after what time, and how the answer goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.call.integration import Integration, _ResetAnswered
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.transitions import (
    Cast,
    Keep,
    NamedTimeout,
    Next,
    StateTimeout,
    Stop,
    cancel_timeout,
    state_timeout,
    timeout,
)
from penstock.actors.stream.messages import Reset
from penstock.config.limits import RetryBudgetOptions
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, CircuitOpen, ConnectError, IncompleteStream, ProcessDead, ProviderBusy

OPTIONS: dict[str, Any] = {
    "max_retries": 3,
    "retry_base_delay": 1.0,
    "retry_max_delay": 8.0,
    "retry_after_limit": 20.0,
}
BROKEN = ConnectError("host", "refused")


class Desk:
    """An integration between two attempts."""

    def __init__(self, **options: Any) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.box: list[Any] = []
        self.jitters: list[tuple[float, float]] = []
        integration: Any = object.__new__(Integration)
        integration._actor_ref = object()
        integration._state = "retry_wait"
        integration._options = RequestOptions(**OPTIONS | options)
        integration._random = SimpleNamespace(uniform=self._uniform)
        integration._stream = self.stream = SimpleNamespace(stream_id="s", ref=None)
        integration._interrupted = integration._reset_for = integration._attempt = None
        integration._wait_is_over = False
        integration.actor_inbox = SimpleNamespace(put=self.box.append)
        integration.runtime = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 100.0), dispatcher=None)
        integration._to = lambda state, *actions: Next(state, *actions)
        self.call = integration._call = SimpleNamespace(
            tries=1,
            attempts=4,
            started=False,
            overlap=None,
            retry_budget=None,
            candidate=SimpleNamespace(gate=None),
            ref=integration._actor_ref,
            attempt=None,
            forget_answer=lambda: self.done.append(("forget_answer",)),
            leave=lambda failure: self.done.append(("leave", failure)),
        )
        self.integration = integration

    def _uniform(self, low: float, high: float) -> float:
        self.jitters.append((low, high))
        return high

    def notes(self, *names: str) -> None:
        """Note the calls of these methods in place of making them."""
        for name in names:
            setattr(self.integration, name, self._noting(name))

    def _noting(self, name: str) -> Any:
        def note(*arguments: Any) -> str:
            self.done.append((name, *arguments))
            return name

        return note


def shown(transition: Any) -> Any:
    """The state and the actions of a transition."""
    if isinstance(transition, Next):
        return (transition.state, *transition.actions)
    return transition.actions if isinstance(transition, Keep) else transition


# --- whether, and after what time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tries", "longest"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)])
def test_the_wait_doubles_with_each_try_up_to_its_bound_and_half_of_it_is_random(tries: int, longest: float) -> None:
    desk = Desk()
    desk.call.tries = tries
    assert desk.integration._delay(BROKEN) == longest
    assert desk.jitters == [(0.5, 1.0)]


@pytest.mark.parametrize(
    ("requested", "wanted"), [(None, 4.0), (0.0, 4.0), (2.0, 4.0), (10.0, 10.4), (20.0, 20.4), (20.5, None)]
)
def test_a_provider_is_not_asked_before_the_time_that_it_asks_for(
    requested: float | None, wanted: float | None
) -> None:
    desk = Desk()
    desk.call.tries = 3
    assert desk.integration._delay(ApiError(429, "slow", retryable=True, retry_after=requested)) == wanted
    if wanted is not None and requested is not None:
        assert desk.jitters == [(0.5, 1.0), (0.0, 0.1)]


def test_a_wait_that_is_too_long_takes_nothing_from_the_budget() -> None:
    desk = Desk()
    desk.call.retry_budget = SimpleNamespace()  # has no method to ask
    assert desk.integration._retry_after(ApiError(429, "slow", retryable=True, retry_after=60.0), None) is None


def test_requests_that_are_refused_together_for_a_short_time_do_not_return_together() -> None:
    desk = Desk(retry_base_delay=8.0)
    desk.integration._random = SimpleNamespace(uniform=lambda low, high: {0.5: 0.1, 0.0: 0.1}[low])
    error = ApiError(429, "slow", retryable=True, retry_after=4.0)
    assert desk.integration._delay(error) == 4.4  # the random part is of the shorter of the two times


@pytest.mark.parametrize(
    ("error", "tries", "is_retried"),
    [
        (BROKEN, 1, True),
        (BROKEN, 3, True),
        (BROKEN, 4, False),
        (IncompleteStream("x"), 1, True),
        (ApiError(400, "bad"), 1, False),
        (ApiError(503, "busy", retryable=True), 1, True),
        (ApiError(503, "busy", retryable=True, retry_after=60.0), 1, False),
        (ProviderBusy("mine", "full"), 1, False),
        (ProcessDead("it"), 1, False),
    ],
)
def test_a_failure_that_may_pass_is_retried_as_often_as_it_is_allowed(error: Any, tries: int, is_retried: bool) -> None:
    desk = Desk()
    desk.call.tries = tries
    assert (desk.integration._retry_after(error, None) is not None) is is_retried


def test_an_open_circuit_is_not_retried_although_it_may_close() -> None:
    error: Any = CircuitOpen("mine", 5.0)
    error.retryable = True
    assert Desk().integration._retry_after(error, None) is None


@pytest.mark.parametrize("may_resume", [False, True])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("on_interrupt", ["fail", "restart", "resume"])
def test_an_answer_that_has_begun_is_retried_only_as_the_option_says(
    on_interrupt: Any, started: bool, may_resume: bool
) -> None:
    desk = Desk(on_interrupt=on_interrupt)
    desk.call.started = started
    desk.integration._may_resume = lambda attempt: may_resume and attempt == "attempt"
    is_retried = not started or on_interrupt == "restart" or (on_interrupt == "resume" and may_resume)
    assert (desk.integration._retry_after(BROKEN, "attempt") is not None) is is_retried


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_budget_may_refuse_a_retry_which_the_error_and_the_gate_note(is_allowed: bool, has_gate: bool) -> None:
    desk, refused = Desk(), [0]
    desk.call.retry_budget = SimpleNamespace(may_retry=lambda: is_allowed, options=RetryBudgetOptions())

    def note() -> None:
        refused[0] += 1

    if has_gate:
        desk.call.candidate.gate = SimpleNamespace(note_refused_retry=note)
    error = ConnectError("host", "refused")
    assert desk.integration._retry_after(error, None) == (1.0 if is_allowed else None)
    assert ("retry budget" in str(error)) is not is_allowed
    assert refused[0] == (has_gate and not is_allowed)


# --- how -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_interrupt", ["fail", "restart", "resume"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("attempt", [None, SimpleNamespace(has_ended=True), SimpleNamespace(has_ended=False)])
def test_an_answer_starts_over_or_waits_and_a_reader_that_still_reads_is_waited_for(
    on_interrupt: Any, started: bool, attempt: Any
) -> None:
    desk = Desk(on_interrupt=on_interrupt)
    desk.call.started = started
    desk.notes("_start_over")
    result = shown(desk.integration._retry(BROKEN, attempt, 2.0))
    if started and on_interrupt == "restart":
        assert (result, desk.done) == ("_start_over", [("_start_over", BROKEN, 2.0)])
        return
    assert result == ("retry_wait", state_timeout(2.0), cancel_timeout("grace"), cancel_timeout("queue"))
    reads = started and attempt is not None and not attempt.has_ended
    assert desk.call.attempt is (attempt if reads else None)
    assert desk.integration._interrupted == ((attempt, BROKEN, 103.0) if reads else None)


@pytest.mark.parametrize(
    ("has_ended", "until", "may_resume", "wanted"),
    [
        (False, 100.5, True, "again"),
        (False, 100.0, True, "_give_up"),
        (True, 100.5, True, "_begin_attempt"),
        (True, 99.0, True, "_begin_attempt"),
        (True, 100.5, False, "_give_up"),
    ],
)
def test_an_answer_is_resumed_when_its_reader_has_ended(
    has_ended: bool, until: float, may_resume: bool, wanted: str
) -> None:
    desk, attempt = Desk(), SimpleNamespace(has_ended=has_ended)
    desk.notes("_begin_attempt", "_give_up")
    desk.integration._may_resume = lambda of: may_resume and of is attempt
    desk.integration._interrupted = (attempt, BROKEN, until)
    desk.call.attempt = attempt
    result = desk.integration.retry_wait(StateTimeout(None))
    if wanted == "again":
        assert shown(result) == (state_timeout(0.02),)
        assert desk.call.attempt is attempt
    else:
        assert result == wanted
        assert desk.done == [("_give_up", BROKEN) if wanted == "_give_up" else ("_begin_attempt",)]
        assert desk.call.attempt is desk.integration._interrupted is None


def test_to_start_over_the_stream_is_requested_for_a_reset_and_the_time_is_waited() -> None:
    desk = Desk()
    desk.integration._wait_is_over = True
    desk.notes("_ask_for_reset")
    result = shown(desk.integration._start_over(BROKEN, 2.0))
    assert result == ("retry_wait", state_timeout(2.0), cancel_timeout("grace"), cancel_timeout("queue"))
    assert (desk.integration._reset_for, desk.integration._wait_is_over) == ("ConnectError", False)
    assert desk.done == [("_ask_for_reset",)]


@pytest.mark.parametrize("first", ["time", "reset"])
def test_the_next_attempt_begins_when_the_stream_is_reset_and_the_time_is_over(first: str) -> None:
    desk, reply = Desk(), Reply()
    reply.set(None)
    desk.notes("_begin_attempt")
    desk.integration._reset_for = "ConnectError"
    desk.call.started = True
    time, reset = StateTimeout(None), Cast(_ResetAnswered(reply))
    one, other = (time, reset) if first == "time" else (reset, time)
    assert desk.integration.retry_wait(one) is None
    assert ("_begin_attempt",) not in desk.done
    assert desk.integration.retry_wait(other) == "_begin_attempt"
    assert desk.done == [("forget_answer",), ("_begin_attempt",)]
    assert (desk.call.started, desk.integration._reset_for) == (False, None)


def test_a_stream_that_crashed_is_requested_for_its_reset_again() -> None:
    desk, reply = Desk(), Reply()
    reply.fail(ProcessDead("the stream"))
    desk.notes("_ask_for_reset")
    desk.integration._reset_for = "ConnectError"
    assert shown(desk.integration.retry_wait(Cast(_ResetAnswered(reply)))) == (timeout("reset", 0.02),)
    assert (desk.integration._reset_for, desk.done) == ("ConnectError", [])
    assert desk.integration.retry_wait(NamedTimeout("reset", None)) is None
    assert desk.done == [("_ask_for_reset",)]


@pytest.mark.parametrize("has_actor", [False, True])
def test_the_answer_to_the_request_for_a_reset_comes_as_a_message(has_actor: bool) -> None:
    desk, reply = Desk(), Reply()
    asked: list[Any] = []

    def ask(message: Any, *, block: bool) -> Reply:
        asked.append((message, block))
        return reply

    if has_actor:
        desk.stream.ref = SimpleNamespace(ask=ask)
    desk.integration._reset_for = "ConnectError"
    desk.integration._ask_for_reset()
    if has_actor:
        assert (asked, desk.box) == ([(Reset("ConnectError"), False)], [])
        reply.set(None)
    (message,) = desk.box
    assert isinstance(message.message, _ResetAnswered)
    if not has_actor:
        with pytest.raises(ProcessDead):
            message.message.reply.get(timeout=0)


# --- an answer that another process has begun -------------------------------------------------------------------------

EMPTY, SOME = SimpleNamespace(is_empty=True), SimpleNamespace(is_empty=False)
CAME: Any = SimpleNamespace(is_other=False)
OTHER: Any = SimpleNamespace(is_other=True)


@pytest.mark.parametrize(
    ("error", "attempt", "tries", "overlap", "started", "wanted"),
    [
        (BROKEN, CAME, 1, SOME, True, "wait"),
        (BROKEN, CAME, 4, SOME, True, "_start_over"),
        (BROKEN, CAME, 4, EMPTY, False, "_begin_attempt"),
        (BROKEN, CAME, 4, EMPTY, True, "_start_over"),
        (BROKEN, OTHER, 1, SOME, True, "_start_over"),
        (ApiError(404, "gone"), CAME, 1, SOME, False, "_start_over"),
        (ApiError(404, "gone"), CAME, 1, EMPTY, False, "_begin_attempt"),
        (ProviderBusy("mine", "full"), None, 0, SOME, False, "_give_up"),
        (ProviderBusy("mine", "full"), CAME, 1, SOME, False, "_give_up"),
        (CircuitOpen("mine", 5.0), None, 0, SOME, False, "_give_up"),
        (CircuitOpen("mine", 5.0), None, 0, EMPTY, False, "_begin_attempt"),
        (IncompleteStream("crashed"), None, 1, SOME, True, "wait"),
    ],
)
def test_what_the_log_has_is_asked_for_again_or_voided_or_kept_by_a_stream_that_fails(
    error: Any, attempt: Any, tries: int, overlap: Any, started: bool, wanted: str
) -> None:
    desk = Desk(on_interrupt="resume")
    vars(desk.call).update(overlap=overlap, started=started, tries=tries, has_fallback=False)
    desk.call.begin_anew = lambda: desk.done.append(("begin_anew",))
    desk.notes("_start_over", "_begin_attempt", "_give_up")
    result = shown(desk.integration._not_taken_up(error, attempt, overlap))
    if wanted == "wait":
        assert result[0] == "retry_wait"
        assert desk.done == []
    else:
        assert result == wanted
        assert [name for name, *_ in desk.done] == (["_give_up"] if wanted == "_give_up" else ["begin_anew", wanted])


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_complete_answer_gives_its_place_back_and_ends_the_call_unless_another_has_taken_over(
    is_replaced: bool,
) -> None:
    desk = Desk()

    def push() -> bool:
        desk.done.append(("push",))
        return True

    attempt: Any = SimpleNamespace(abandon=lambda: desk.done.append(("abandon",)), push_completed_calls=push)
    desk.notes("_conclude")
    if is_replaced:
        desk.call.ref = object()
    result = desk.integration._complete(attempt)
    if is_replaced:
        assert isinstance(result, Stop)
        assert desk.done == [("abandon",)]
    else:
        assert result == "_conclude"
        assert desk.done == [("abandon",), ("push",), ("leave", None), ("_conclude", None)]


@pytest.mark.parametrize("has_attempt", [False, True])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_at_its_end_an_integration_lets_go_of_what_is_its_own(has_attempt: bool, is_replaced: bool) -> None:
    desk = Desk()
    desk.notes("_note_state")
    desk.call.abandon = lambda: desk.done.append(("abandon call",))
    desk.call.is_settled = lambda record: record is desk.stream
    if has_attempt:
        desk.integration._attempt = SimpleNamespace(abandon=lambda: desk.done.append(("abandon",)))
    if is_replaced:
        desk.call.ref = object()
    desk.integration.terminate("shutdown")
    mine = [] if is_replaced else [("abandon call",), ("_note_state", "done")]
    assert desk.done == ([("abandon",)] if has_attempt else []) + mine
    assert desk.integration.ends_quietly is not is_replaced


def test_a_call_that_is_given_up_ends_with_the_chained_error_and_has_no_attempt_any_more() -> None:
    desk = Desk()
    desk.notes("_note_state")
    chained = LookupError("chained")
    desk.call.final_error = lambda error: chained if error is BROKEN else None
    desk.call.end = lambda stream, error, *, by: desk.done.append(("end", stream, error, by))
    desk.call.attempt = desk.integration._attempt = object()
    result = desk.integration._give_up(BROKEN)
    assert isinstance(result, Stop)
    assert result.reason == "normal"
    assert desk.done == [("_note_state", "done"), ("end", desk.stream, chained, desk.integration._actor_ref)]
    assert desk.call.attempt is desk.integration._attempt is None


@pytest.mark.parametrize("debug", [False, True])
def test_the_state_is_noted_and_logged_if_that_is_asked_for(debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.stream.options = SimpleNamespace(debug=debug)
    desk.integration.name = "source/s"
    with caplog.at_level("DEBUG", "penstock"):
        desk.integration._note_state("queued")
    assert desk.call.state == "queued"
    assert len(caplog.records) == debug
