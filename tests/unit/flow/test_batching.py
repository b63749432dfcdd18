"""How long an adaptive stream collects tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.batching import BatchSizer

SPANS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=30)


@given(SPANS, st.floats(0.001, 10))
def test_the_share_of_work_and_the_wait_keep_their_bounds(spans: list[tuple[float, float]], target: float) -> None:
    now, sizer = 0.0, BatchSizer(target, 0.0)
    for idle, work in spans:
        began = now + idle
        now = began + work
        sizer.worked(began, now, 10, 1)
        assert 0.0 <= sizer.busy(now) <= 1.0
        assert 0.0 <= sizer.wait(now) <= target / 2


@pytest.mark.parametrize(("share", "wait"), [(0.1, 0.0), (0.2, 0.0), (0.375, 0.5), (0.5, 1.0), (0.9, 1.0)])
def test_the_wait_grows_between_a_quarter_and_half_of_the_time(share: float, wait: float) -> None:
    sizer = BatchSizer(0.05, 0.0)
    for step in range(10_000):  # works for that share of each millisecond
        began = step * 0.001
        sizer.worked(began, began + share * 0.001, 1, 1)
    assert sizer.busy(10.0) == pytest.approx(share, abs=0.002)
    assert sizer.wait(10.0) == pytest.approx(wait * 0.025, abs=0.0003)


def test_an_idle_stream_forgets_its_work_and_remembers_its_batches() -> None:
    sizer = BatchSizer(0.05, 0.0)
    sizer.worked(0.0, 5.0, 700, 10)
    assert sizer.counters(5.0) == {"batch_wait_s": 0.025, "busy": pytest.approx(1.0, abs=1e-4), "mean_batch": 70.0}
    assert sizer.busy(5.5) == pytest.approx(0.3679, abs=1e-3)
    sizer.worked(60.0, 60.0, 0, 0)
    assert sizer.counters(60.0)["mean_batch"] == 70.0
    sizer.worked(61.0, 61.0, 3, 1)
    assert sizer.counters(61.0)["mean_batch"] == pytest.approx(3.0, abs=0.01)
