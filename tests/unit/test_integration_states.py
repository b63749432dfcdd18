"""The states of an integration, event by event: which time-outs are left, and what comes from an attempt before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.call.integration import Integration
from penstock.actors.call.messages import Connecting, Ended, Finished, FirstDelta, Waiting
from penstock.actors.runtime.transitions import (
    Cast,
    Keep,
    NamedTimeout,
    Next,
    SetTimeout,
    StateTimeout,
    Stop,
    state_timeout,
    timeout,
)
from penstock.config.options import RequestOptions
from penstock.errors import ProviderBusy

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
