"""The pure parts of the dashboard: tables as changes, series, what has happened lately."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.board.pace import LastMinute, ModelCounts
from penstock.gateway.board.series import LENGTH, Series
from penstock.gateway.board.sheets import Sheet, SheetCopy

ROWS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 3), st.sampled_from(["x", "y", None])))


@given(st.lists(ROWS, min_size=1, max_size=8), st.integers(0, 7))
def test_a_copy_that_gets_the_changes_is_the_sheet(states: list[Mapping[str, Any]], joins: int) -> None:
    sheet, copy = Sheet(("n", "text")), SheetCopy()
    for number, rows in enumerate(states):
        change = json.loads(json.dumps(sheet.change(rows)))
        if number == min(joins, len(states) - 1):
            copy.take(json.loads(json.dumps(sheet.snapshot())))
        elif copy.columns:
            copy.apply(change)
    assert sorted(map(tuple, copy.rows.values()), key=repr) == sorted(states[-1].values(), key=repr)
    assert {number: list(row) for number, *row in sheet.snapshot()["rows"]} == copy.rows


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_what_has_not_changed_is_not_sent(states: list[Mapping[str, Any]]) -> None:
    sheet = Sheet(("n", "text"))
    for rows in states:
        sheet.change(rows)
        assert sheet.change(rows) == {}


def test_a_row_that_comes_again_is_a_new_one() -> None:
    sheet = Sheet(("n",))
    sheet.change({"a": (1,)})
    assert sheet.change({}) == {"gone": [1]}
    assert sheet.change({"a": (1,)}) == {"added": [[2, 1]]}
    assert sheet.number("a") == 2
    assert sheet.following == 3


def test_a_change_of_an_unknown_row_is_ignored() -> None:
    copy = SheetCopy()
    copy.take({"columns": ["n"], "rows": []})
    copy.apply({"rows": [[7, 0, 1]], "gone": [8]})
    assert copy.rows == {}


def test_a_named_row_has_the_columns_names() -> None:
    copy = SheetCopy()
    copy.take({"columns": ["n", "m"], "rows": [[1, "a", "b"]]})
    assert copy.named() == [{"n": "a", "m": "b"}]


def values(series: Series) -> list[Any]:
    found: list[Any] = series.snapshot()["values"]["a"]
    return found


def test_a_series_keeps_fifteen_minutes() -> None:
    series = Series(("a",))
    for second in range(1_000, 1_000 + LENGTH + 7):
        series.add(second, [float(second)])
    assert values(series) == list(range(1_007, 1_000 + LENGTH + 7))


def test_seconds_that_were_missed_have_no_value() -> None:
    series = Series(("a",))
    series.add(100, [1.0])
    series.add(100 + 2 * LENGTH, [2.0])
    assert values(series) == [None] * (LENGTH - 1) + [2]
    assert series.last() == [2]


def test_the_same_second_again_replaces_the_point_and_an_earlier_one_is_ignored() -> None:
    series = Series(("a",))
    series.add(100, [1.0])
    series.add(100, [5.0])
    series.add(99, [7.0])
    assert values(series) == [5]
    series.add(20, [3.0])  # the clock was set back
    assert values(series) == [3]
    series.clear()
    assert series.snapshot() == {"end": None, "values": {"a": []}}
    assert series.last() == [None]


def totals(tokens: int, failed: int = 0, ttft: tuple[int, ...] = (0, 0)) -> ModelCounts:
    return ModelCounts(tokens, 0, failed, tokens / 1000, ttft, (0, 0))


A, B = ("p", "a"), ("p", "b")


def test_the_pace_is_that_of_the_window() -> None:
    pace = LastMinute((1.0,), (1.0,))
    for second in range(120):
        pace.add(float(second), {A: totals(10 * second), B: totals(5 * second, failed=second)})
    assert pace.recent().seconds == pytest.approx(60)
    assert pace.recent().tokens_per_s == pytest.approx(15)
    assert pace.recent([A]).tokens_per_s == pytest.approx(10)
    assert pace.recent(within=2.0).failed == 2
    assert pace.recent([A], within=1.0).cost_per_h == pytest.approx(36)
    assert pace.keys == (A, B)


def test_quantiles_are_those_of_the_window_or_of_all_times_while_it_is_too_short() -> None:
    pace = LastMinute((1.0, 2.0), (1.0,))
    one = ModelCounts(0, 0, 0, 0.0, (100, 0, 0), (0, 0))
    two = ModelCounts(0, 0, 0, 0.0, (100, 100, 0), (0, 0))
    pace.add(0.0, {A: one})
    assert pace.recent().ttft_p50 is None
    assert pace.recent(fill=True).ttft_p50 == pytest.approx(0.5)
    pace.add(59.5, {A: two})
    assert pace.recent(fill=True).ttft_p50 == pytest.approx(1.5)
    assert pace.recent().gap_p95 is None


def test_a_pace_without_samples_is_nothing() -> None:
    pace = LastMinute((1.0,), (1.0,))
    assert pace.recent().tokens_per_s == 0
    pace.add(1.0, {A: totals(5)})
    pace.clear()
    assert (pace.keys, pace.recent().seconds) == ((), 0.0)


def test_a_model_that_is_new_counts_from_nothing() -> None:
    pace = LastMinute((1.0,), (1.0,))
    pace.add(0.0, {})
    pace.add(2.0, {A: totals(8)})
    assert pace.recent().tokens_per_s == pytest.approx(4)
