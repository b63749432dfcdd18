"""Limits: what gets through over any window, in which order, and what is given back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.call.limits import FULL, Limits, MinuteBucket
from penstock.config.limits import LimitOptions

PER_MINUTE = st.floats(1, 1e7)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 3)), min_size=1, max_size=50)


@given(PER_MINUTE, STEPS)
def test_over_any_window_no_more_gets_through_than_its_rate_and_one_burst(
    per_minute: float, steps: list[tuple[float, float]]
) -> None:
    bucket = MinuteBucket(per_minute, 0.0)
    now, out = 0.0, []
    for pause, share in steps:
        amount = share * bucket.burst
        now += pause
        while delay := bucket.delay(amount, now):
            assert now + delay > now  # a wait of this length is enough
            now += delay
        bucket.take(amount, now)
        out.append((now, amount))
    largest = max(bucket.burst, *(amount for _, amount in out))
    for first in range(len(out)):
        total = 0.0
        for when, amount in out[first:]:
            total += amount
            allowed = (when - out[first][0]) * per_minute / 60 + largest
            assert total <= allowed * (1 + 1e-6) + 1e-6


def test_a_burst_is_a_sixth_of_a_minutes_worth_and_at_least_one() -> None:
    assert MinuteBucket(60, 0.0).burst == 10
    bucket = MinuteBucket(1, 0.0)
    assert bucket.delay(1, 0.0) == 0.0
    bucket.take(1, 0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(60.0)


def test_more_than_a_burst_is_let_through_when_the_bucket_is_full_and_then_waited_for() -> None:
    bucket = MinuteBucket(60, 0.0)
    bucket.take(1, 0.0)
    assert bucket.delay(100, 0.0) == pytest.approx(1.0)
    assert bucket.delay(100, 1.0) == 0.0
    bucket.take(100, 1.0)
    assert bucket.delay(0, 1.0) == pytest.approx(90.0)
    assert bucket.delay(1, 1.0) == pytest.approx(91.0)


def test_what_is_given_back_never_makes_more_than_a_burst() -> None:
    bucket = MinuteBucket(60, 0.0)
    bucket.take(-1000, 0.0)
    bucket.take(10, 0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(1.0)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = MinuteBucket(60, 100.0)
    bucket.take(10, 100.0)
    assert bucket.delay(1, 50.0) == pytest.approx(1.0)
    assert bucket.delay(1, 100.5) == pytest.approx(0.5)


def limits(**options: int) -> Limits[object]:
    return Limits(LimitOptions(**options), 0.0)


def test_without_limits_everybody_is_let_in() -> None:
    line = limits()
    assert [line.ask(object(), 10**9, 0.0) for _ in range(100)] == [0.0] * 100
    assert (line.active, len(line.queue)) == (100, 0)


def test_no_more_are_in_at_once_than_may_be() -> None:
    line = limits(concurrent_streams=2)
    assert [line.ask(who, 0, 0.0) for who in "abc"] == [0.0, 0.0, math.inf]
    line.active -= 1
    assert line.ask("c", 0, 0.0) == 0.0
    assert line.active == 2


def test_nobody_overtakes_not_even_where_there_is_room() -> None:
    line = limits(concurrent_streams=1)
    assert [line.ask(who, 0, 0.0) for who in "abcd"] == [0.0, math.inf, math.inf, math.inf]
    line.active -= 1
    assert line.ask("d", 0, 0.0) == math.inf
    assert line.ask("new", 0, 0.0) == math.inf
    assert line.first == "b"
    assert line.ask("b", 0, 0.0) == 0.0
    line.remove("c")
    assert list(line.queue) == ["d", "new"]


def test_a_full_queue_takes_nobody_and_keeps_who_is_in_it() -> None:
    line = limits(concurrent_streams=1, max_queue=2)
    assert [line.ask(who, 0, 0.0) for who in "abcd"] == [0.0, math.inf, math.inf, FULL]
    assert line.ask("c", 0, 0.0) == math.inf
    assert (list(line.queue), line.queue_high_water_mark) == (["b", "c"], 2)
    assert limits(concurrent_streams=1, max_queue=0).ask("a", 0, 0.0) == 0.0


def test_the_longest_of_all_waits_is_the_one_to_wait() -> None:
    line = limits(requests_per_minute=6, tokens_per_minute=60)
    assert line.ask("a", 10, 0.0) == 0.0
    assert line.ask("b", 3, 0.0) == pytest.approx(10.0)
    assert line.ask("b", 3, 0.0, held_until=25.0) == pytest.approx(25.0)
    assert line.ask("b", 3, 26.0, held_until=25.0) == 0.0
    assert line.ask("c", 60, 26.0) == pytest.approx(10.0)


def test_real_usage_takes_the_place_of_the_estimate() -> None:
    line = limits(tokens_per_minute=60)
    assert line.ask("a", 10, 0.0) == 0.0
    line.correct(10, 4, 0.0)
    assert line.ask("b", 6, 0.0) == 0.0
    line.correct(6, 36, 0.0)
    assert line.ask("c", 1, 0.0) == pytest.approx(31.0)


def test_it_is_unused_when_nobody_is_in_and_all_is_there() -> None:
    line = limits(requests_per_minute=60)
    assert line.is_unused(0.0)
    line.ask("a", 0, 0.0)
    assert not line.is_unused(100.0)
    line.active -= 1
    assert not line.is_unused(0.5)
    assert line.is_unused(1.0)
