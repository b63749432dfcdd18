"""A stream's counters."""

from __future__ import annotations

import pytest

from penstock.actors.stream.statistics import Counters


def test_the_quantiles_are_of_all_gaps_between_deliveries() -> None:
    counters = Counters(0.0)
    now = 0.0
    for gap in (9.0, 1.0, 2.0, 3.0, 4.0, 10.0):  # the first delivery follows no other
        now += gap
        counters.delivered(2, 2, now)
    assert counters.quantile(0.0) == pytest.approx(0.5)
    assert counters.quantile(0.5) == pytest.approx(1.5)
    assert counters.quantile(0.99) == pytest.approx(5.0)
    assert (counters.first_delivery, counters.last_delivery, counters.batches) == (9.0, 29.0, 6)


@pytest.mark.parametrize(
    ("count", "share", "place"),
    [(1, 0.0, 1), (1, 0.99, 1), (2, 0.49, 1), (2, 0.5, 2), (4, 0.25, 2), (4, 0.5, 3), (4, 0.74, 3), (4, 0.75, 4),
     (100, 0.5, 51), (100, 0.98, 99), (100, 0.99, 100), (200, 0.99, 199), (200, 1.0, 200)],
)  # fmt: skip
def test_below_a_quantile_there_is_its_share_of_the_gaps(count: int, share: float, place: int) -> None:
    counters = Counters(0.0)
    now = 0.0
    counters.delivered(1, 1, now)
    for gap in range(count, 0, -1):
        now += gap
        counters.delivered(1, 1, now)
    assert counters.quantile(share) == place


def test_there_are_no_quantiles_before_the_second_delivery() -> None:
    counters = Counters(0.0)
    assert counters.quantile(0.5) is None
    counters.delivered(1, 1, 1.0)
    assert counters.quantile(0.5) is None


def test_the_quantiles_are_of_the_last_512_gaps() -> None:
    counters = Counters(0.0)
    now = 0.0
    for gap in (*[100.0] * 513, *[1.0] * 512):
        now += gap
        counters.delivered(1, 1, now)
    assert counters.quantile(1.0) == pytest.approx(1.0)
    now += 7.0
    counters.delivered(1, 1, now)
    assert counters.quantile(1.0) == pytest.approx(7.0)
    assert counters.quantile(0.99) == pytest.approx(1.0)
