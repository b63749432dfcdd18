"""What can be read of running streams without asking their processes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import penstock
from penstock.actors.stream.states import TOKEN_STREAM
from penstock.errors import ApiError
from penstock.events import Usage
from penstock.ports import TextDelta, UsageDelta
from penstock.supervisors.calls import WhichChildren
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_nothing_is_left
from tests.conformance.streams import Bench, BrokenJournal

BUSY = ApiError(503, "busy", retryable=False)


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(3) as system:
        yield system
        assert_nothing_is_left(system)


def story(bench: Bench) -> list[tuple[str, str, str]]:
    return [(change.before, change.after, change.cause) for change in bench.record.state_changes()]


# --- changes of state ----------------------------------------------------------------------------------------------


def test_each_change_of_state_is_kept_with_its_time_and_its_cause() -> None:
    bench = Bench(batch_size=2, flush_interval=0.1, rate_limit=None)
    bench.push_all("a")
    bench.advance(0.1)
    bench.pause()
    bench.resume()
    bench.advance(0.1)
    bench.cancel()
    assert story(bench) == [
        ("idle", "buffering", "pushed"),
        ("buffering", "streaming", "flush timeout"),
        ("streaming", "paused", "Pause"),
        ("paused", "streaming", "Resume"),
        ("streaming", "idle", "flush timeout"),
        ("idle", "ended", "Cancel"),
    ]
    times = [change.time - bench.record.created_at for change in bench.record.state_changes()]
    assert times == pytest.approx([0.0, 0.1, 0.1, 0.1, 0.2, 0.2], abs=1e-3)
    assert bench.record.counters.state_changes == len(times)
    bench.close()


def test_a_crash_shows_as_a_restart() -> None:
    bench = Bench(restart="transient", batch_size=10, rate_limit=None)
    bench.push_all("a")
    bench.restart()
    bench.pause()
    bench.restart()
    assert story(bench)[:2] == [("idle", "buffering", "pushed"), ("buffering", "idle", "restart")]
    assert story(bench)[-2:] == [("streaming", "paused", "Pause"), ("paused", "paused", "restart")]
    bench.close()


def test_a_failed_delivery_shows_with_what_led_to_it() -> None:
    bench = Bench(journal=BrokenJournal(1), batch_size=1, error_recovery_delay=1.0, rate_limit=None)
    bench.push_all("a")
    bench.advance(1.0)
    assert story(bench)[:2] == [("idle", "error", "pushed"), ("error", "streaming", "state timeout")]
    bench.close()


@pytest.mark.parametrize("seed", range(5))
def test_every_change_is_a_move_of_the_table(seed: int, system: SimulatedSystem) -> None:
    moves = {(*pair, event) for move in TOKEN_STREAM.moves for pair in move.pairs() for event in move.on}
    ends = {before for before, after, _ in moves if after == "end"}
    stream = system.open_stream("s", penstock.StreamOptions(batch_size=2, rate_limit=50.0, flush_interval=0.01))
    for number in range(20):
        stream.process_token(str(number))
        system.advance(0.003 * (seed + 1))
    stream.pause()
    stream.resume()
    stream.stop()
    changes = stream.state_changes()
    assert changes[0] == penstock.StateChange(changes[0].time, "start", "idle", "start")
    for one, next in pairwise(changes):
        assert one.after == next.before
        assert one.time <= next.time
    for change in changes[:-1]:
        assert (change.before, change.after, change.cause) in moves
    assert changes[-1].after == TOKEN_STREAM.end == "ended"
    assert changes[-1].before in ends
    assert changes[-1].cause == "Complete"


# --- times and lags ------------------------------------------------------------------------------------------------


def test_the_last_token_is_told_apart_from_other_activity(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.StreamOptions(batch_size=1, rate_limit=None))
    assert stream.statistics().last_token_time is None
    system.advance(1.0)
    stream.process_token("a")
    system.settle()
    at = stream.statistics().last_token_time
    assert at == pytest.approx(stream.statistics().start_time + 1.0)
    system.advance(5.0)
    stream.pause()
    assert stream.statistics().last_token_time == at
    assert stream.statistics().last_activity == pytest.approx(stream.statistics().start_time + 6.0)
    stream.cancel()


def test_a_readers_lag_is_what_waits_for_it(system: SimulatedSystem) -> None:
    options = penstock.StreamOptions(batch_size=1, rate_limit=None, max_buffer_size=1000)
    stream = system.open_stream("s", options)
    events = stream.events(window=1000)
    lags = []
    for _ in range(3):
        lags.append(system.get_stream_info("s").subscribers[0].lag_bytes)
        stream.process_token("x" * 100)
        system.settle()
    lags.append(system.get_stream_info("s").subscribers[0].lag_bytes)
    assert lags[0] == 0
    assert lags[1] > 100
    assert lags == [lags[1] * number for number in range(4)]
    next(events)
    assert system.get_stream_info("s").subscribers[0].lag_bytes == lags[2]
    stream.stop()
    events.close()


def test_a_lag_behind_what_is_folded_has_its_text() -> None:
    bench = Bench(batch_size=1, rate_limit=None, retain_bytes=2000)
    _, _ = bench.subscribe()
    events = bench.events()
    for _ in range(100):
        bench.push_all("x" * 50)
    assert bench.log.first_seq > 1
    kept = bench.log.bytes_after(bench.log.first_seq - 1)
    assert kept == bench.log.kept_bytes
    assert bench.log.bytes_after(0) == kept + 50 * (bench.log.first_seq - 1)
    events.close()
    bench.close()


# --- by model ------------------------------------------------------------------------------------------------------


def ask(system: SimulatedSystem, *script: Any, model: str = "m", **more: Any) -> penstock.Stream:
    return system.chat(model, "Hi", provider=ScriptedProvider([*script], name="p"), options=FAST, **more)


def test_streams_are_counted_by_provider_and_model(system: SimulatedSystem) -> None:
    done = ask(system, TextDelta("a"), TextDelta("b"), UsageDelta(Usage(input_tokens=7, output_tokens=2)))
    failed = ask(system, BUSY)
    cancelled = ask(system, TextDelta("a"), HANG, model="other")
    pushed = system.open_stream("pushed")
    system.advance(1.0)
    cancelled.cancel()
    assert done.is_over
    assert failed.is_over
    found = {(one.provider, one.model): one for one in system.get_model_statistics()}
    assert list(found) == [("p", "m"), ("p", "other"), ("", "")]
    mine = found["p", "m"]
    assert (mine.running, mine.completed, mine.failed, mine.cancelled) == (0, 1, 1, 0)
    assert (mine.tokens, mine.input_tokens) == (2, 7)
    assert (mine.time_to_first_token.count, mine.duration.count) == (1, 2)
    assert (found["p", "other"].cancelled, found["p", "other"].tokens) == (1, 1)
    assert found["", ""].running == 1
    pushed.stop()


def test_what_is_counted_of_a_model_never_gets_less(system: SimulatedSystem) -> None:
    stream = ask(system, *[step for number in range(6) for step in (TextDelta(str(number)), 0.05)])
    seen = []
    for _ in range(12):
        system.advance(0.05)
        one = system.get_model_statistics()[0]
        counts = (one.tokens, one.time_to_first_token.count, one.inter_token.count, one.running + one.completed)
        seen.append(counts)
    assert stream.is_over
    assert seen == sorted(seen)
    assert seen[0] != seen[-1] == (6, 1, 5, 1)
    assert one.inter_token.sum == pytest.approx(0.25)
    assert one.inter_token.quantile(0.5) == pytest.approx(0.0625)


def test_tokens_stay_with_the_model_that_began_to_answer(system: SimulatedSystem) -> None:
    """After a reset another model may go on, and what has been counted for the first must not vanish there."""
    first = ScriptedProvider([TextDelta("a"), 1.0, BUSY], [TextDelta("b")], name="p")
    stream = system.chat(
        "m",
        "Hi",
        provider=first,
        options=FAST,
        request_options=penstock.RequestOptions(max_retries=0, on_interrupt="restart", fallback=["n"]),
    )
    system.advance(0.5)
    assert [(one.model, one.tokens) for one in system.get_model_statistics()] == [("m", 1)]
    system.advance(5.0)
    assert stream.is_over, stream
    found = {one.model: one for one in system.get_model_statistics()}
    assert (found["m"].tokens, found["m"].completed) == (2, 0)
    assert (found["n"].tokens, found["n"].completed) == (0, 1)


def test_tokens_and_usage_of_derived_streams_are_counted_once(system: SimulatedSystem) -> None:
    made: list[Any] = [TextDelta("a"), TextDelta("b"), UsageDelta(Usage(input_tokens=5, output_tokens=2))]
    streams = {
        name: system.chat("m", "Hi", provider=ScriptedProvider(made), options=FAST).map(str.upper) for name in "xy"
    }
    assert system.merge(streams).result(5).usage == Usage(input_tokens=10, output_tokens=4)
    found = {(one.provider, one.model): one for one in system.get_model_statistics()}
    (model,) = (key for key in found if key[1] == "m")
    assert (found[model].completed, found[model].tokens, found[model].input_tokens) == (2, 4, 10)
    derived = found["", ""]
    assert (derived.completed, derived.tokens, derived.input_tokens) == (3, 0, 0)
    assert derived.time_to_first_token.counts == (0,) * len(derived.time_to_first_token.counts)


def test_there_are_at_most_257_models(system: SimulatedSystem) -> None:
    for number in range(260):
        ask(system, TextDelta("a"), model=f"m{number}")
    system.advance(1.0)
    found = system.get_model_statistics()
    assert len(found) == 257
    assert (found[-1].provider, found[-1].model, found[-1].completed) == ("other", "other", 4)


# --- the system ----------------------------------------------------------------------------------------------------


def test_a_summary_says_what_the_statistics_say(system: SimulatedSystem) -> None:
    stream = ask(system, TextDelta("a"), 0.1, TextDelta("b"), HANG)
    system.advance(1.0)
    [summary] = system.get_stream_summaries()
    statistics = stream.statistics()
    assert (summary.stream_id, summary.state, summary.provider, summary.model) == (stream.stream_id, "idle", "p", "m")
    assert (summary.tokens, summary.errors, summary.attempts) == (2, 0, 1)
    for name in ("tokens_per_second", "time_to_first_token_s", "last_token_time", "subscribers", "buffer_size"):
        assert getattr(summary, name) == getattr(statistics, name), name
    stream.cancel()
    assert system.get_stream_summaries() == []


def test_the_system_counts_states_restarts_and_what_waits(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", restart="transient")
    paused = system.open_stream("paused")
    paused.pause()
    assert system.statistics().states == {"idle": 1, "paused": 1}
    assert system.statistics().restarts == {}
    kill(system, stream)
    system.settle()
    assert system.statistics().restarts == {"streams": 1}
    streams = system.runtime.whereis("streams")
    assert streams is not None
    streams.tell(WhichChildren())
    assert system.statistics().largest_mailbox == 1
    system.settle()
    assert system.statistics().largest_mailbox == 0
    stream.stop()
    paused.stop()


def test_retries_are_counted_with_those_that_the_budget_refused(system: SimulatedSystem) -> None:
    busy = ApiError(503, "busy", retryable=True)
    system.chat("m", "Hi", provider=ScriptedProvider([busy], [TextDelta("a")], name="p"), options=FAST)
    system.advance(5.0)
    assert system.statistics().retry_budget == penstock.RetryBudgetStatistics(granted=1, refused=0)


def test_what_an_observer_raises_has_no_effect(system: SimulatedSystem, caplog: pytest.LogCaptureFixture) -> None:
    called = []

    class Broken:
        def opened(self, record: Any) -> None:
            called.append("opened")
            raise ValueError

        def happened(self, record: Any, event: Any) -> None:
            called.append(type(event).__name__)
            raise ValueError

        def called(self, record: Any, feed: Any, error: Any) -> None:
            called.append("called")
            raise ValueError

        def ended(self, record: Any, terminal: Any) -> None:
            called.append("ended")
            raise ValueError

    system._table.observe(Broken())
    stream = ask(system, TextDelta("a"), 1.0, TextDelta("b"))
    system.advance(0.5)
    stream.reset("again")
    system.advance(5.0)
    assert stream.result().text == "b"
    assert called == ["opened", "StreamReset", "called", "ended"]
    assert caplog.text.count("observer_failed") == 4
