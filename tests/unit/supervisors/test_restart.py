"""The arithmetic of restarts: which children are stopped and started, how often, how soon."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.runtime.signals import Shutdown
from penstock.supervisors.restart import (
    RestartWindow,
    backoff_delay,
    plan_restart,
    should_restart,
    should_shut_down,
)
from penstock.supervisors.spec import Backoff, Restart, Strategy

CHILDREN: Any = {"a": "permanent", "b": "transient", "c": "temporary", "d": "permanent"}
FAMILIES: Any = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.sampled_from(get_args(Restart)), min_size=1
)


@pytest.mark.parametrize(
    ("strategy", "ended", "stop", "start"),
    [
        ("one_for_one", "b", "", "b"),
        ("one_for_all", "b", "dca", "abd"),
        ("rest_for_one", "a", "dcb", "abd"),
        ("rest_for_one", "b", "dc", "bd"),
        ("rest_for_one", "d", "", "d"),
    ],
)
def test_the_plan_of_each_strategy(strategy: Any, ended: str, stop: str, start: str) -> None:
    assert plan_restart(strategy, CHILDREN, ended) == (list(stop), list(start))


@given(children=FAMILIES, strategy=st.sampled_from(get_args(Strategy)), data=st.data())
def test_a_plan_stops_in_reverse_starts_in_order_and_forgets_the_temporary(
    children: Any, strategy: Any, data: Any
) -> None:
    order = list(children)
    ended = data.draw(st.sampled_from(order))
    plan = plan_restart(strategy, children, ended)
    assert plan.stop == sorted(plan.stop, key=order.index, reverse=True)
    assert plan.start == sorted(plan.start, key=order.index)
    assert ended in plan.start
    assert ended not in plan.stop
    assert set(plan.start) - {ended} == {child for child in plan.stop if children[child] != "temporary"}
    if strategy == "rest_for_one":
        assert all(order.index(child) > order.index(ended) for child in plan.stop)


@given(st.integers(0, 5), st.floats(0.1, 100), st.lists(st.floats(0, 50), max_size=30))
def test_a_window_is_exceeded_when_more_than_its_intensity_are_within_its_period(
    intensity: int, period: float, gaps: list[float]
) -> None:
    window = RestartWindow(intensity, period)
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
        assert window.exceeded(now) == (sum(now - time <= period for time in times) > intensity)


@pytest.mark.parametrize(
    ("reason", "restarted"),
    [
        ("normal", {"permanent"}),
        ("shutdown", {"permanent"}),
        (Shutdown("detail"), {"permanent"}),
        ("crash", {"permanent", "transient"}),
        ("killed", {"permanent", "transient"}),
        (ValueError("crash"), {"permanent", "transient"}),
    ],
)
def test_which_children_are_restarted_after_which_end(reason: object, restarted: set[str]) -> None:
    assert {restart for restart in get_args(Restart) if should_restart(restart, reason)} == restarted


@pytest.mark.parametrize(
    ("policy", "significant", "others_active", "ends"),
    [
        ("never", True, False, False),
        ("any_significant", True, True, True),
        ("any_significant", False, False, False),
        ("all_significant", True, True, False),
        ("all_significant", True, False, True),
        ("all_significant", False, False, False),
    ],
)
def test_when_the_end_of_a_child_ends_its_supervisor(
    policy: Any, significant: bool, others_active: bool, ends: bool
) -> None:
    assert should_shut_down(policy, significant, others_active) is ends


@given(
    st.floats(0.001, 100), st.floats(1, 100), st.floats(0, 1), st.integers(0, 10_000), st.floats(0, 1)
)  # fmt: skip
def test_a_back_off_stays_between_its_bounds(
    least: float, factor: float, jitter: float, failures: int, chance: float
) -> None:
    backoff = Backoff(min=least, max=least * factor, jitter=jitter)
    delay = backoff_delay(backoff, failures, chance)
    assert 0 <= delay <= backoff.max
    assert delay >= least * (1 - jitter) * 0.999


def test_without_a_back_off_there_is_no_delay() -> None:
    assert backoff_delay(None, 100, 0.5) == 0.0
