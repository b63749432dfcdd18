"""A stream's counters."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import msgspec
import pytest

from penstock.actors.stream.histograms import GAP_BOUNDS
from penstock.actors.stream.statistics import Counters, StreamStatistics
from penstock.events import ToolCall, ToolCallCompleted, ToolCallDelta, ToolResult


def test_nothing_has_been_counted_at_first() -> None:
    counters = Counters(7.0)
    times = {"last_activity", "tools_until", "first_delivery"}
    assert (counters.last_activity, counters.tools_until, counters.first_delivery) == (7.0, 7.0, None)
    counts = {name: getattr(counters, name) for name in Counters.__slots__ if name[0] != "_" and name not in times}
    assert counts == dict.fromkeys(counts, 0)


def test_what_only_some_streams_have_is_nothing_for_the_others() -> None:
    required: dict[str, Any] = {field.name: 1 for field in msgspec.structs.fields(StreamStatistics) if field.required}
    statistics = StreamStatistics(**required)
    counts = {"source_bytes", "source_chunks", "replaced", "skipped", "tee_errors", "attempts", "hedges_refused"}
    others = {name: getattr(statistics, name) for name in StreamStatistics.__struct_fields__ if name not in required}
    assert others == {name: 0 if name in counts else None for name in others} | {"production_active": False}
    assert counts < others.keys()


@pytest.mark.parametrize(("size", "capacity", "share"), [(0, 8, 0.0), (6, 8, 0.75), (9, 8, 1.0), (9, None, None)])
def test_the_buffer_is_in_use_up_to_all_of_it(size: int, capacity: int | None, share: float | None) -> None:
    required: dict[str, Any] = {field.name: 1 for field in msgspec.structs.fields(StreamStatistics) if field.required}
    assert StreamStatistics(**required | {"buffer_size": size}, capacity=capacity).utilisation == share


def test_an_event_besides_tokens_is_activity() -> None:
    counters = Counters(0.0)
    counters.counted(ToolCallDelta(index=0, text="x"), 3.0)
    assert (counters.last_activity, counters.last_delivery, counters.batches) == (3.0, 0.0, 0)


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


def test_each_gap_is_counted_once_for_each_of_its_tokens() -> None:
    counters = Counters(0.0)
    counters.delivered(3, 3, 1.0)
    assert counters.gap_counts() == ()
    for tokens, now in ((2, 2.0), (4, 4.0), (1, 9.0)):
        counters.delivered(tokens, tokens, now)
    counts = counters.gap_counts()
    assert {place: count for place, count in enumerate(counts) if count} == {
        bisect_left(GAP_BOUNDS, 0.5): 6,
        bisect_left(GAP_BOUNDS, 5.0): 1,
    }
    assert len(counts) == len(GAP_BOUNDS) + 1


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


def test_the_oldest_gap_is_the_one_that_goes() -> None:
    counters = Counters(0.0)
    now = 0.0
    for gap in (1.0, 50.0, 40.0, *[1.0] * 510):  # the first one is no gap
        now += gap
        counters.delivered(1, 1, now)
    longest = []
    for _ in range(3):
        longest.append(counters.quantile(1.0))
        now += 4.0
        counters.delivered(2, 2, now)
    assert longest == [50.0, 40.0, 2.0]


def test_calls_and_failed_tools_are_counted_and_the_time_in_which_any_tool_ran() -> None:
    def result(duration_s: float, status: Any = "ok") -> ToolResult:
        return ToolResult(call_id="c", name="f", content="", status=status, duration_s=duration_s)

    counters = Counters(100.0)
    call = ToolCall(id="c", name="f", arguments={}, arguments_raw="{}")
    for _ in range(2):
        counters.counted(ToolCallCompleted(index=0, call=call), 100.0)
    counters.counted(result(2.0), 103.0)  # from 101 to 103
    counters.counted(result(3.0, "error"), 104.0)  # from 101 to 104: 1 s more
    counters.counted(result(1.0), 110.0)
    counters.counted(result(50.0), 110.0)  # not before the last end
    assert (counters.function_calls, counters.tool_errors) == (2, 1)
    assert counters.tool_time == pytest.approx(2.0 + 1.0 + 1.0)
