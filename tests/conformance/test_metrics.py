"""What the end of a stream says of it, however it ends: numbers, usage, calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import penstock
from penstock.actors.stream.messages import Fail
from penstock.actors.stream.table import StreamTable
from penstock.errors import ApiError, IncompleteStream
from penstock.events import (
    StreamMetrics,
    TerminalEvent,
    ToolCall,
    ToolCallCompleted,
    ToolResult,
    ToolResultStatus,
    Usage,
)
from penstock.ports import Delta, TextDelta, ToolCallFragment, UsageDelta
from penstock.supervisors.system.sentinel import fail_all
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_nothing_is_left
from tests.conformance.streams import Bench, BrokenJournal

WALL = 1_700_000_000.0
USAGE = Usage(input_tokens=7, output_tokens=2)
BUSY = ApiError(503, "busy", retryable=True)


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(3) as system:
        yield system
        assert_nothing_is_left(system)


def result(seconds: float, status: ToolResultStatus = "ok") -> ToolResult:
    return ToolResult(call_id="c", name="f", duration_s=seconds, status=status)


def completed() -> ToolCallCompleted:
    return ToolCallCompleted(index=0, call=ToolCall(id="c", name="f", arguments={}))


def metrics_of(terminal: TerminalEvent | None) -> StreamMetrics:
    assert terminal is not None
    assert terminal.metrics is not None
    return terminal.metrics


def agree(statistics: penstock.StreamStatistics, metrics: StreamMetrics) -> None:
    """Assert that both say the same in every field that both have."""
    for field in StreamMetrics.__struct_fields__:
        name = {"tokens": "tokens_delivered"}.get(field, field)
        assert getattr(statistics, name) == getattr(metrics, field), field


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_the_terminal_event_tells_times_sizes_and_rates() -> None:
    bench = Bench(batch_size=1, rate_limit=None)
    start = bench.simulation.clock.time()
    bench.advance(1)
    bench.push_all("ä")
    bench.advance(2)
    bench.push_all("bc", "d")
    bench.advance(1)
    bench.stop()
    metrics = metrics_of(bench.log.terminal)
    facts = msgspec.structs.asdict(metrics)
    assert {name: round(value, 6) for name, value in facts.items() if value} == {
        "start_time": start,
        "first_token_time": start + 1,
        "end_time": start + 4,
        "tokens": 3,
        "bytes": 5,
        "total_time_s": 4,
        "time_to_first_token_s": 1,
        "tokens_per_second": 1,
        "bytes_per_second": 1.5,
    }


def test_a_stream_without_a_token_has_no_first_one_and_no_rate() -> None:
    bench = Bench()
    bench.advance(3)
    assert bench.statistics.end_time is None
    assert bench.statistics.total_time_s == pytest.approx(3)
    bench.stop()
    metrics = metrics_of(bench.log.terminal)
    assert (metrics.first_token_time, metrics.time_to_first_token_s, metrics.tokens_per_second) == (None, None, 0.0)
    assert metrics.total_time_s == pytest.approx(3)


@pytest.mark.parametrize("end", ["stop", "cancel", "journal", "killed", "no tree"])
def test_however_a_stream_ends_its_terminal_event_says_what_its_statistics_say(end: str) -> None:
    journal = BrokenJournal()
    bench = Bench(journal=journal, batch_size=2, rate_limit=None, max_errors=1)
    bench.push_all("a", "b")
    bench.advance(1)
    bench.push_all("c", "d")
    bench.intake.push_event(completed())
    bench.intake.push_event(result(0.5, "error"))
    bench.settle()
    before = bench.record.statistics()
    agree(before, bench.record.metrics())
    assert (before.function_calls, before.tool_time_s, before.errors) == (1, 0.5, 1)
    match end:
        case "stop" | "cancel":
            getattr(bench, end)()
        case "journal":
            journal.failures = 1
            bench.push_all("e", "f")
        case "killed":
            kill_and_bury(bench)
        case "no tree":
            table = StreamTable()
            table.add(bench.record)
            fail_all(table, "killed")
    metrics = metrics_of(bench.log.terminal)
    bench.advance(10)
    statistics = bench.record.statistics()
    agree(statistics, metrics)
    assert (metrics.tokens, metrics.function_calls, metrics.errors) == (4, 1, 1 + (end == "journal"))
    assert metrics.end_time == pytest.approx(metrics.start_time + metrics.total_time_s)


def kill_and_bury(bench: Bench) -> None:
    """What the handler does when a stream's actor is gone for good."""
    bench.runtime.exit(bench.ref, "killed")
    bench.settle()
    bench.record.finish(Fail(IncompleteStream("x"), bench.record.outcome()))


@pytest.mark.parametrize(
    ("results", "seconds"),
    [
        ([(1.0, 1.0), (2.0, 1.0)], 2.0),  # one behind the other
        ([(2.0, 2.0), (2.0, 1.0)], 2.0),  # the second ran during the first, whose result comes first
        ([(1.0, 1.0), (3.0, 3.0)], 3.0),  # the second ran on
        ([(1.0, 1.0), (5.0, 1.0)], 2.0),  # the model was asked in between
        ([(1.0, 0.0)], 0.0),
    ],
)
def test_tools_that_run_at_the_same_time_take_that_time_once(
    results: list[tuple[float, float]], seconds: float
) -> None:
    bench = Bench()
    now = 0.0
    for when, duration in results:
        bench.advance(when - now)
        now = when
        bench.intake.push_event(result(duration))
        bench.settle()
    assert bench.record.statistics().tool_time_s == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        *dict.fromkeys(("ok", "denied", "cancelled"), 0).items(),
        *dict.fromkeys(("error", "timeout", "invalid_arguments", "unknown_tool"), 1).items(),
    ],
)
def test_a_tool_that_fails_is_an_error_and_one_that_was_not_to_run_is_none(
    status: ToolResultStatus, errors: int
) -> None:
    bench = Bench()
    bench.intake.push_event(result(0, status))
    bench.settle()
    assert bench.record.statistics().errors == errors


def test_a_restarted_stream_counts_an_event_once() -> None:
    bench = Bench(journal=BrokenJournal(failures=1), restart="transient", error_recovery_delay=1.0)
    bench.intake.push_event(completed())
    bench.settle()
    bench.restart()
    bench.advance(1)
    assert bench.record.statistics().function_calls == 1


def test_attempts_that_failed_are_errors(system: SimulatedSystem) -> None:
    stream = system.chat("m", "Hello", options=FAST, provider=ScriptedProvider([BUSY], ["a"]))
    end = stream.result(timeout=30)
    assert metrics_of(end).errors == stream.statistics().errors == 1


# --- what the provider has said --------------------------------------------------------------------------------------

SAID: list[Delta | float | str] = [
    TextDelta("Hi"),
    ToolCallFragment(0, "c0", "add", '{"x": 1}'),
    ToolCallFragment(1, "c1", "sub", '{"x": '),
    UsageDelta(USAGE),
    0.01,
    HANG,
]


@pytest.mark.parametrize(
    "end",
    [
        lambda system, stream: stream.cancel("enough"),
        lambda system, stream: stream.stop(),
        lambda system, stream: kill(system, stream),
        lambda system, stream: kill(system, "system"),
    ],
    ids=["cancel", "stop", "killed", "no tree"],
)
def test_however_a_stream_ends_before_its_source_what_the_source_has_said_is_not_lost(
    end: Callable[[SimulatedSystem, penstock.Stream], object],
) -> None:
    with SimulatedSystem(1) as system:
        stream = system.chat("m", "Hello", options=FAST, provider=ScriptedProvider(SAID))
        system.advance(1)
        end(system, stream)
        system.advance(1)
        terminal = stream._record.log.terminal
        assert terminal is not None
        assert (terminal.text, terminal.usage) == ("Hi", USAGE)
        assert [(call.id, call.arguments) for call in terminal.tool_calls] == [("c0", {"x": 1}), ("c1", None)]
        assert stream.statistics().usage == USAGE


def test_the_usage_is_an_estimate_while_the_provider_has_not_told_and_then_is_what_it_tells(
    system: SimulatedSystem,
) -> None:
    provider = ScriptedProvider(["12345678", 1.0, UsageDelta(USAGE), 1.0])
    stream = system.chat("m", [{"role": "user", "content": "x" * 36}], options=FAST, provider=provider)
    system.advance(0.5)
    statistics = stream.statistics()
    assert (statistics.usage, statistics.usage_is_estimate) == (
        Usage(input_tokens=10, output_tokens=2, total_tokens=12),
        True,
    )
    end = stream.result(timeout=30)
    statistics = stream.statistics()
    assert (statistics.usage, statistics.usage_is_estimate) == (end.usage, False) == (USAGE, False)


def test_what_is_told_on_the_way_is_an_estimate_until_the_end(system: SimulatedSystem) -> None:
    stream = system.chat("m", "Hello", options=FAST, provider=ScriptedProvider(["Hi", UsageDelta(USAGE), 1.0, "!"]))
    system.advance(0.5)
    statistics = stream.statistics()
    assert (statistics.usage, statistics.usage_is_estimate) == (USAGE, True)
    stream.result(timeout=30)
    assert not stream.statistics().usage_is_estimate


def test_of_a_stream_that_broke_off_the_estimate_stands(system: SimulatedSystem) -> None:
    def broken_off(*said: Any) -> tuple[Usage | None, bool]:
        provider = ScriptedProvider([*said, HANG])
        stream = system.chat("m", [{"role": "user", "content": "x" * 36}], options=FAST, provider=provider)
        system.advance(0.5)
        stream.cancel()
        statistics = stream.statistics()
        return statistics.usage, statistics.usage_is_estimate

    assert broken_off("12345678") == (Usage(input_tokens=10, output_tokens=2, total_tokens=12), True)
    assert broken_off("12345678", UsageDelta(USAGE)) == (USAGE, True)
    assert broken_off() == (None, False)  # nothing has come, so it is not known that anything was asked


def test_a_stream_without_a_source_has_no_usage() -> None:
    bench = Bench()
    statistics = bench.record.statistics()
    assert (statistics.usage, statistics.usage_is_estimate, statistics.cost) == (None, False, None)


def test_an_outcome_that_cannot_be_made_does_not_keep_a_stream_from_ending(
    system: SimulatedSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = system.chat("m", "Hello", options=FAST, provider=ScriptedProvider(["a", HANG]))
    system.advance(1)

    def broken() -> None:
        raise RuntimeError

    monkeypatch.setattr(stream._record.feed, "outcome", broken)
    stream.cancel("enough")
    terminal = stream._record.log.terminal
    assert isinstance(terminal, penstock.StreamCancelled)
    assert (terminal.partial, terminal.usage) == ("a", None)
