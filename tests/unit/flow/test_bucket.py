"""The token bucket: what it lets through over any window, and exactly when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.bucket import TokenBucket

RATES = st.floats(0.01, 1e9)
STEPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), min_size=1, max_size=60)


@given(RATES, st.integers(1, 20), STEPS, st.floats(0, 1e7))
def test_over_any_window_no_more_gets_through_than_its_rate_and_one_capacity(
    rate: float, capacity: int, steps: list[tuple[float, int]], start: float
) -> None:
    now = start
    bucket = TokenBucket(rate, capacity, now)
    out: list[tuple[float, int]] = []
    for pause, wanted in steps:
        tokens = min(wanted, capacity)
        now += pause / rate
        while delay := bucket.delay(tokens, now):
            assert now + delay > now  # a wait of this length is enough
            now += delay
        bucket.take(tokens, now)
        out.append((now, tokens))
    grain = 1e-6 + 4e-16 * start * rate * 4  # what the clock cannot tell apart
    for first in range(len(out)):
        total = 0
        for when, tokens in out[first:]:
            total += tokens
            assert total <= (when - out[first][0]) * rate + capacity + grain * len(out)


@given(RATES, st.integers(1, 100), st.integers(1, 100))
def test_the_delay_is_exact_not_a_moment_too_long(rate: float, capacity: int, tokens: int) -> None:
    bucket = TokenBucket(rate, capacity, 0.0)
    bucket.take(capacity, 0.0)
    need = min(tokens, capacity)
    delay = bucket.delay(tokens, 0.0)
    assert delay == pytest.approx(need / rate)
    assert bucket.delay(tokens, delay) == pytest.approx(0.0, abs=1e-9)
    assert TokenBucket(rate, capacity, 0.0).delay(tokens, 0.0) == 0.0


def test_it_starts_full_and_never_holds_more_than_its_capacity() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert bucket.delay(5, 1000.0) == 0.0
    bucket.take(5, 1000.0)
    assert bucket.delay(5, 1000.0) == 0.5


def test_more_than_its_capacity_is_asked_for_as_if_it_were_its_capacity() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert bucket.delay(500, 0.0) == 0.0
    bucket.take(5, 0.0)
    assert bucket.delay(500, 0.0) == 0.5


def test_a_forced_take_leaves_it_empty_and_not_in_debt() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    bucket.take(1_000_000, 0.0)
    assert bucket.delay(5, 0.0) == pytest.approx(0.5, abs=1e-3)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(10, 5, 100.0)
    bucket.take(5, 100.0)
    assert bucket.delay(1, 50.0) == pytest.approx(0.1)
    assert bucket.delay(1, 100.05) == pytest.approx(0.05)


def test_after_a_change_what_had_been_used_stays_used() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    bucket.take(5, 0.0)
    bucket.change(100, 50, 0.0)
    assert (bucket.rate, bucket.capacity) == (100, 50)
    assert bucket.delay(50, 0.0) == pytest.approx(0.5)
    bucket.change(1, 2, 10.0)
    assert bucket.delay(2, 10.0) == 0.0
    bucket.take(2, 10.0)
    assert bucket.delay(2, 10.0) == pytest.approx(2.0)


def test_a_change_counts_the_time_before_it_at_the_old_rate() -> None:
    bucket = TokenBucket(10, 10, 0.0)
    bucket.take(10, 0.0)
    bucket.change(1000, 10, 0.5)
    assert bucket.delay(10, 0.5) == pytest.approx(0.005)


def test_a_wait_that_the_clock_cannot_see_is_none() -> None:
    now = 1e6
    bucket = TokenBucket(1e9, 10, now)
    bucket.take(10, now)
    bucket.take(0, now + 9.9999e-9)
    for _ in range(100):
        delay = bucket.delay(10, now)
        if not delay:
            break
        now += delay
    assert bucket.delay(10, now) == 0.0
    late = TokenBucket(1e9, 10, 1e9)
    late.take(10, 1e9)
    assert late.delay(10, 1e9) == 0.0  # not 10 ns, of which this clock knows nothing


def test_tokens_that_are_taken_later_are_taken_from_what_has_come_back_meanwhile() -> None:
    bucket = TokenBucket(rate=10.0, capacity=5, now=0.0)
    bucket.take(5, now=0.0)
    bucket.take(5, now=1.0)  # full again, then empty
    assert bucket.delay(5, now=1.0) == pytest.approx(0.5)


def test_there_is_room_for_the_whole_tokens_that_have_come_back() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert bucket.room(0.0) == 5
    bucket.take(5, 0.0)
    assert [bucket.room(now) for now in (0.0, 0.09, 0.3, 0.39, 0.5, 9.0)] == [0, 0, 3, 3, 5, 5]
    in_debt = TokenBucket(10, 5, 0.0)
    in_debt.take(1_000, 0.0)
    assert in_debt.room(0.0) == 0


def test_a_shortage_of_less_than_a_grain_counts_as_none() -> None:
    bucket = TokenBucket(1.0, 1, 0.0)
    bucket.take(1, 0.0)
    assert bucket.delay(1, 1 - 5e-9) == pytest.approx(5e-9)
    assert bucket.delay(1, 1 - 5e-10) == 0.0
