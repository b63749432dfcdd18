"""Histograms with fixed bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.histograms import (
    DURATION_BOUNDS,
    GAP_BOUNDS,
    TTFT_BOUNDS,
    Histogram,
    HistogramSnapshot,
)
from penstock.actors.stream.statistics import Counters

VALUES = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 5)), max_size=50)


@pytest.mark.parametrize("bounds", [TTFT_BOUNDS, GAP_BOUNDS, DURATION_BOUNDS])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_durations_have_the_bounds_of_opentelemetry_and_three_more() -> None:
    assert DURATION_BOUNDS[:14] == (
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    )
    assert DURATION_BOUNDS[14:] == (163.84, 327.68, 655.36)


def test_a_value_equal_to_a_bound_is_in_its_bucket_and_one_above_all_in_the_last() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.add(value)
    assert histogram.snapshot() == HistogramSnapshot((1.0, 2.0), (2, 2, 1), 7.5)


@given(VALUES, VALUES)
def test_merged_histograms_have_the_values_of_both(
    some: list[tuple[float, int]], others: list[tuple[float, int]]
) -> None:
    one, other, both = Histogram(GAP_BOUNDS), Histogram(GAP_BOUNDS), Histogram(GAP_BOUNDS)
    for histogram, values in ((one, some), (other, others), (both, [*some, *others])):
        for value, times in values:
            histogram.add(value, times)
    merged = one.copy()
    merged.merge(other.counts, other.sum)
    assert merged.snapshot().counts == both.snapshot().counts == one.snapshot().plus(other.snapshot()).counts
    assert merged.snapshot().sum == pytest.approx(both.snapshot().sum)
    assert one.snapshot().count == sum(times for _, times in some)  # the copy was changed


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [((0, 0, 0), 0.5, None), ((4, 0, 0), 0.5, 0.5), ((0, 4, 0), 0.25, 1.25), ((2, 2, 0), 0.5, 1.0),
     ((2, 2, 0), 1.0, 2.0), ((0, 0, 3), 0.1, 2.0), ((0, 3, 1), 0.0, 1.0)],
)  # fmt: skip
def test_a_quantile_is_interpolated_in_its_bucket(counts: tuple[int, ...], share: float, value: float | None) -> None:
    assert HistogramSnapshot((1.0, 2.0), counts, 0.0).quantile(share) == value


@given(VALUES, st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[tuple[float, int]], share: float) -> None:
    histogram = Histogram(GAP_BOUNDS)
    for value, times in values:
        histogram.add(value, times)
    found = histogram.snapshot().quantile(share)
    flat = sorted(value for value, times in values for _ in range(times))
    if found is None:
        assert not flat
        return
    place = min(len(flat) - 1, max(0, -int(-share * len(flat) // 1) - 1))
    bounds = (0.0, *GAP_BOUNDS, 20.0)
    low, high = next((low, high) for low, high in pairwise(bounds) if flat[place] <= high)
    assert low - 1e-9 <= found <= high + 1e-9


def test_the_time_between_tokens_counts_once_for_each_token() -> None:
    counters = Counters(0.0)
    assert list(counters.gap_counts()) == []
    now = 0.0
    for tokens, gap in ((3, 8.0), (2, 0.0625), (4, 0.5), (1, 100.0)):  # the first delivery follows no other
        now += gap
        counters.delivered(tokens, tokens, now)
    counts = dict(zip((*GAP_BOUNDS, None), counters.gap_counts(), strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {0.05: 2, 0.15: 4, None: 1}


def test_no_time_between_tokens_is_lost_when_old_ones_leave_the_quantiles() -> None:
    counters = Counters(0.0)
    for number in range(2000):
        counters.delivered(1, 1, number * 0.02)
    assert sum(counters.gap_counts()) == 1999
