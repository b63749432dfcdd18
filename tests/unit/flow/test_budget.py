"""The budget of retries: its bound before every retry, and its memory."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.call.budget import RetryBudget
from penstock.config.limits import RetryBudgetOptions

STEPS = st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=120)


@given(STEPS, st.floats(0, 3), st.integers(0, 5), st.floats(0.5, 20), st.floats(0, 1e6))
def test_the_retries_of_any_window_are_within_the_budget_when_each_is_granted(
    steps: list[tuple[float, bool]], ratio: float, floor: int, window: float, start: float
) -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=ratio, floor=floor, window=window))
    now, requests, retries = start, list[float](), list[float]()
    for pause, is_request in steps:
        now += pause
        if is_request:
            budget.note_request(now)
            requests.append(now)
        elif budget.may_retry(now):
            retries.append(now)
            since = now - window * (1 - 1e-9)
            asked = sum(1 for when in requests if when > since - window * 2e-9)
            assert sum(1 for when in retries if when > since) <= floor + ratio * asked + 1e-9


@pytest.mark.parametrize("ratio", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("floor", [0, 1, 5])
@pytest.mark.parametrize("pause", [0.25, 0.5, 0.75, 1.0, 10.0])
def test_no_window_of_a_steady_load_has_a_retry_more_than_the_budget_or_one_less_than_a_slice_costs(
    ratio: float, floor: int, pause: float
) -> None:
    """A request and as many retries as are granted, again and again; in slices of half a second of ten."""
    budget = RetryBudget(RetryBudgetOptions(ratio=ratio, floor=floor, window=10.0))
    requests, retries = list[float](), list[float]()
    for number in range(200):
        now = 1000.0 + number * pause
        budget.note_request(now)
        requests.append(now)
        while budget.may_retry(now):
            retries.append(now)
            assert len(retries) < 10_000
        asked = sum(when > now - 10.0 for when in requests)
        spent = sum(when > now - 10.0 for when in retries)
        assert spent <= floor + ratio * asked
        # Strict by one slice: retries are counted for a slice longer, and requests for one shorter.
        sure = floor + ratio * sum(when > now - 9.5 for when in requests)
        assert sum(when > now - 10.5 for when in retries) + 1 > sure


def test_it_counts_in_slices_of_a_twentieth_of_the_window() -> None:
    """A slice counts for retries until none of it is in the window, and for requests as long as all of it is.

    The window has 1000 s, a slice 50 s.
    """
    chance = random.Random(20)
    for _ in range(40):
        budget = RetryBudget(RetryBudgetOptions(ratio=0.5, floor=2, window=1000))
        requests, retries = list[int](), list[int]()
        now = chance.randrange(2000)
        for _ in range(300):
            now += chance.choice((0, 1, 7, 50, 50, chance.randrange(100), chance.randrange(900, 1100)))
            now += chance.choice((0, 0, 0, 0, 0, 0, 0, chance.randrange(3000)))
            present = now // 50
            if chance.random() < 0.6:
                budget.note_request(now)
                requests.append(present)
            else:
                asked = sum(present - slice_ < 20 for slice_ in requests)
                spent = sum(present - slice_ <= 20 for slice_ in retries)
                allowed = spent + 1 <= 2 + 0.5 * asked
                assert budget.may_retry(now) == allowed, (now, asked, spent)
                retries += [present] * allowed


def test_the_floor_is_there_without_any_request_and_again_after_a_window() -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=0.2, floor=3, window=10))
    assert [budget.may_retry(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert not budget.may_retry(9.9)
    assert [budget.may_retry(10.5) for _ in range(4)] == [True, True, True, False]


def test_requests_give_retries_by_the_ratio_for_nearly_a_window() -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=0.2, floor=0, window=10))
    for _ in range(10):
        budget.note_request(0.0)
    assert [budget.may_retry(9.4) for _ in range(3)] == [True, True, False]
    assert not RetryBudget(RetryBudgetOptions(ratio=0.2, floor=0)).may_retry(0.0)


def test_requests_older_than_the_window_give_nothing() -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=1, floor=0, window=10))
    for _ in range(100):
        budget.note_request(0.0)
    assert not budget.may_retry(10.2)  # their slice lies partly in the window
    assert not budget.may_retry(10.5)
    budget.note_request(10_000.0)
    assert [budget.may_retry(10_000.0) for _ in range(2)] == [True, False]


def test_without_a_ratio_there_is_no_budget() -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=None, floor=0))
    assert all(budget.may_retry(0.0) for _ in range(1000))


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    budget = RetryBudget(RetryBudgetOptions(ratio=0, floor=1, window=10))
    assert budget.may_retry(100.0)
    assert not budget.may_retry(0.0)
    assert not budget.may_retry(109.0)


def test_its_memory_does_not_grow_with_the_load() -> None:
    budget = RetryBudget(RetryBudgetOptions())

    def size() -> int:
        return sum(sys.getsizeof(getattr(budget, name)) for name in RetryBudget.__slots__)

    before = size()
    for number in range(10_000):
        budget.note_request(number / 100)
        budget.may_retry(number / 100)
    assert size() <= before + 64  # the numbers themselves
