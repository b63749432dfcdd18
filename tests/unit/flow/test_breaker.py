"""The circuit breaker: when it opens, which requests may try, when it closes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.call.breaker import Breaker, counts_as_failure
from penstock.config.limits import BreakerOptions
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConnectError,
    ContentFilterError,
    IncompleteStream,
    ProtocolError,
    ProviderBusy,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)


def opened(failures: int = 3, at: float = 0.0) -> Breaker:
    breaker = Breaker(BreakerOptions(span=0, failures=failures, cooldown=30))
    for _ in range(failures):
        breaker.failed(breaker.let_in(), at)
    return breaker


def test_failures_in_a_row_open_it_for_its_cooldown() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=3, cooldown=30))
    assert [breaker.failed(breaker.let_in(), 5.0) for _ in range(3)] == [False, False, True]
    assert (breaker.circuit(5.0), breaker.closed_for(5.0)) == ("open", 30.0)
    assert (breaker.circuit(34.9), breaker.closed_for(34.5)) == ("open", 0.5)
    assert (breaker.circuit(35.0), breaker.closed_for(35.0)) == ("half_open", 0.0)


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=2))
    for _ in range(10):
        assert breaker.failed(breaker.let_in(), 0.0) is False
        assert breaker.succeeded(breaker.let_in()) is False
    assert breaker.is_closed


def test_what_says_nothing_neither_opens_nor_starts_the_count_again() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=2))
    breaker.failed(breaker.let_in(), 0.0)
    for _ in range(10):
        assert not breaker.abstained(breaker.let_in())
    assert breaker.failed(breaker.let_in(), 0.0)


def test_after_the_cooldown_one_may_try_and_the_others_wait_for_what_comes_of_it() -> None:
    breaker = opened()
    trial = breaker.let_in()
    assert breaker.closed_for(100.0) == 30.0
    assert breaker.circuit(100.0) == "half_open"
    assert breaker.succeeded(trial)
    assert (breaker.is_closed, breaker.failures, breaker.closed_for(100.0)) == (True, 0, 0.0)


def test_a_trial_that_fails_opens_it_again_for_a_whole_cooldown() -> None:
    breaker = opened()
    assert breaker.failed(breaker.let_in(), 50.0)
    assert breaker.closed_for(60.0) == 20.0
    assert breaker.failed(breaker.let_in(), 80.0)
    assert breaker.closed_for(80.0) == 30.0


def test_a_trial_that_says_nothing_lets_another_one_try() -> None:
    breaker = opened()
    assert breaker.abstained(breaker.let_in())
    assert (breaker.circuit(30.0), breaker.closed_for(30.0)) == ("half_open", 0.0)
    assert breaker.succeeded(breaker.let_in())


def test_what_was_let_in_before_a_change_has_no_say_after_it() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=1))
    old = breaker.let_in()
    assert breaker.failed(breaker.let_in(), 0.0)
    assert breaker.succeeded(old) is False
    assert breaker.failed(old, 29.0) is False
    assert breaker.abstained(old) is False
    assert breaker.closed_for(29.0) == 1.0
    trial = breaker.let_in()
    assert not breaker.succeeded(old)
    assert breaker.succeeded(trial)
    assert not breaker.failed(trial, 40.0)  # it closed the circuit, and broke off later
    assert not breaker.failed(old, 40.0)
    assert breaker.is_closed


def test_what_says_nothing_after_the_trial_has_closed_it_is_no_trial() -> None:
    breaker = opened()
    assert breaker.succeeded(breaker.let_in())
    assert breaker.abstained(breaker.let_in()) is False


def test_switched_off_it_never_opens() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=1, enabled=False))
    assert not any(breaker.failed(breaker.let_in(), 0.0) for _ in range(100))
    assert breaker.closed_for(0.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["enter", "good", "bad", "nothing"])), max_size=80))
def test_whatever_happens_nobody_is_let_in_while_open_and_never_two_while_half_open(
    steps: list[tuple[float, str]],
) -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=3, cooldown=30))
    now, inside, trials, opened_at = 0.0, list[int](), list[int](), -1e9
    for pause, step in steps:
        now += pause
        if step == "enter":
            if breaker.closed_for(now) == 0.0:
                assert breaker.is_closed or (now >= opened_at + 30 and not trials)
                was_closed = breaker.is_closed
                inside.append(breaker.let_in())
                if not was_closed:
                    trials.append(inside[-1])
        elif inside:
            epoch = inside.pop(0)
            if step == "bad" and breaker.failed(epoch, now):
                opened_at = now
            elif step == "good":
                breaker.succeeded(epoch)
            elif step == "nothing":
                breaker.abstained(epoch)
            if epoch in trials:
                trials.remove(epoch)
    assert breaker.circuit(now + 30) in ("closed", "half_open")


class _Foreign(ProviderError):
    """A provider's own."""


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ConnectError("h", "refused"), True),
        (ProviderTimeout("connect", 1), True),
        (ProviderTimeout("first_token", 1), True),
        (ProviderTimeout("idle", 1), True),
        (ProviderTimeout("total", 1), False),
        (ApiError(500, "m"), True),
        (ApiError(529, "m", retryable=True), True),
        (ApiError(200, "overloaded", retryable=True), True),
        (ApiError(408, "m", retryable=True), True),
        (ApiError(200, "m"), False),
        (ApiError(429, "m", retryable=True), False),
        (RateLimited(429, "m", retryable=True), False),
        (RateLimited(200, "m", retryable=True), False),
        (AuthenticationError(401, "m"), False),
        (BadRequestError(400, "m"), False),
        (ContentFilterError(400, "m"), False),
        (ProtocolError("m"), False),
        (ProviderBusy("h", "m"), False),
        (_Foreign("m"), False),
    ],
)
def test_what_counts_against_an_endpoint(error: ProviderError, counts: bool) -> None:
    assert counts_as_failure(error, answered=False) is counts
    assert counts_as_failure(error, answered=True) is counts


def test_a_connection_that_closes_counts_only_before_the_first_delta() -> None:
    assert counts_as_failure(IncompleteStream("closed"), answered=False)
    assert not counts_as_failure(IncompleteStream("closed"), answered=True)


def test_failures_within_the_span_do_not_open_it() -> None:
    breaker = Breaker(BreakerOptions(failures=3, span=5, cooldown=30))
    opened = [breaker.failed(breaker.epoch, now=100 + 0.1 * number) for number in range(50)]
    assert not any(opened)
    assert breaker.is_closed
    assert breaker.failed(breaker.epoch, now=105.0)


def test_few_failures_do_not_open_it_however_long_they_take() -> None:
    breaker = Breaker(BreakerOptions(failures=3, span=5, cooldown=30))
    assert [breaker.failed(breaker.epoch, now=now) for now in (0.0, 1000.0, 2000.0)] == [False, False, True]


def test_a_success_begins_the_span_again() -> None:
    breaker = Breaker(BreakerOptions(failures=2, span=5, cooldown=30))
    breaker.failed(breaker.epoch, now=0.0)
    breaker.succeeded(breaker.epoch)
    assert [breaker.failed(breaker.epoch, now=now) for now in (10.0, 14.0, 15.0)] == [False, False, True]


def test_a_trial_that_fails_opens_it_at_once() -> None:
    breaker = Breaker(BreakerOptions(failures=1, span=5, cooldown=30))
    breaker.failed(breaker.epoch, now=0.0)
    assert breaker.failed(breaker.epoch, now=5.0)
    assert breaker.failed(breaker.let_in(), now=40.0)


def test_a_late_report_of_the_trial_that_closed_the_circuit_does_not_close_it_again() -> None:
    breaker = opened(failures=3)
    trial = breaker.let_in()
    assert breaker.succeeded(trial)
    assert [breaker.failed(breaker.let_in(), 50.0) for _ in range(3)] == [False, False, True]
    assert not breaker.succeeded(trial)
    assert not breaker.failed(trial, 60.0)
    assert breaker.circuit(50.0) == "open"
    assert breaker.closed_for(60.0) == 20.0


def test_a_late_report_of_a_trial_that_was_replaced_counts_for_nothing() -> None:
    breaker = opened()
    first = breaker.let_in()
    assert breaker.abstained(first)
    second = breaker.let_in()
    assert second != first
    assert not breaker.succeeded(first)
    assert not breaker.failed(first, 40.0)
    assert breaker.circuit(40.0) == "half_open"
    assert breaker.succeeded(second)


def test_a_late_report_that_says_nothing_lets_no_second_trial_in() -> None:
    breaker = Breaker(BreakerOptions(span=0, failures=1, cooldown=30))
    late = breaker.let_in()
    breaker.failed(breaker.let_in(), 0.0)
    breaker.let_in()
    assert not breaker.abstained(late)
    assert breaker.closed_for(31.0) == 30.0
