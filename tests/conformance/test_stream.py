"""The stream as a state machine: `token-streams` §1 line by line, and every promise about states, pace and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.runtime import inspect
from penstock.actors.runtime.signals import SHUTDOWN
from penstock.actors.stream import journaling
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.messages import (
    Cancel,
    Complete,
    Fail,
    Flush,
    GetState,
    GetStatistics,
    Pause,
    Reset,
    Resume,
    SetOptions,
    StopStream,
)
from penstock.actors.stream.outcome import Outcome
from penstock.config.options import StreamOptions
from penstock.errors import BufferFull, DeliveryError, OptionError, ProcessDead, StreamClosed, StreamCrashed
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, StreamReset, TokenEvent, TokenKind
from penstock.testing import SimulatedSystem, Simulation
from tests.conformance.streams import Bench, BrokenJournal, Crash

MakeBench = Callable[..., Bench]
STATES = ("idle", "buffering", "streaming", "rate_limited", "paused", "error")


@pytest.fixture(params=[0, 1, 2])
def make(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    """Make streams, on several schedules; at the end, nothing may be left of them."""
    made: list[Bench] = []

    def make_bench(**options: Any) -> Bench:
        made.append(Bench(request.param, **options))
        return made[-1]

    yield make_bench
    for bench in made:
        bench.close()
        assert bench.runtime.processes() == []
        assert len(bench.simulation.timers) == 0
        events = list(bench.log)
        assert [event.seq for event in events] == list(range(bench.log.first_seq, bench.log.last_seq + 1))


def in_state(make: MakeBench, state: str, **options: Any) -> Bench:
    """A stream with three tokens in its buffer (none in ``idle`` and ``streaming``), in the given state."""
    journal = BrokenJournal()
    bench = make(journal=journal, **{"rate_limit": 10.0, "batch_size": 5, "error_recovery_delay": 1.0, **options})
    match state:
        case "buffering":
            bench.count(3)
        case "streaming":
            bench.push_all(*"abcde")
        case "rate_limited":
            bench.push_all(*"abcde")
            bench.push_all(*"fgh")
            bench.advance(0.1)
        case "paused":
            bench.pause()
            bench.count(3)
        case "error":
            journal.failures = 1
            bench.count(3)
            bench.advance(0.1)
    assert bench.state == state
    return bench


# --- 1: a fresh stream --------------------------------------------------------------------------------------------


def test_S1_a_fresh_stream_is_idle_with_all_counters_0_and_the_documented_defaults(make: MakeBench) -> None:
    bench = make()
    assert bench.state == "idle"
    statistics = bench.statistics
    assert [
        statistics.tokens_processed, statistics.tokens_delivered, statistics.tokens_dropped, statistics.batches_flushed,
        statistics.state_changes, statistics.errors, statistics.buffer_size, statistics.buffer_high_water_mark,
        statistics.backpressure_events, statistics.subscribers, statistics.restarts,
    ] == [0] * 11  # fmt: skip
    assert statistics.time_to_first_token_s is statistics.inter_token_p50_s is statistics.inter_token_p99_s is None
    assert (statistics.tokens_per_second, statistics.bytes_per_second) == (0.0, 0.0)
    options = bench.record.options
    assert (options.max_buffer_size, options.batch_size, options.flush_interval) == (1000, 10, 0.1)
    assert (options.rate_limit, options.max_errors) == (100.0, 5)


def test_S1_an_idle_stream_owns_no_timer(make: MakeBench) -> None:
    bench = make()
    assert len(bench.simulation.timers) == 0
    bench.count(3)
    bench.advance(10)
    assert (bench.state, len(bench.simulation.timers)) == ("idle", 0)


# --- 2 and 3: filling a batch, and the tail ---------------------------------------------------------------------------


def test_S2_fewer_tokens_than_a_batch_are_buffered(make: MakeBench) -> None:
    bench = make()
    bench.count(9)
    assert (bench.state, bench.batches) == ("buffering", [])


def test_S2_a_full_batch_at_once_is_flushed_at_once(make: MakeBench) -> None:
    bench = make()
    bench.push_all(*"0123456789")
    assert (bench.state, bench.sizes, bench.times) == ("streaming", [10], [0.0])


def test_S3_reaching_a_batch_emits_immediately(make: MakeBench) -> None:
    bench = make()
    bench.count(9)
    bench.advance(0.05)
    assert bench.batches == []
    bench.count(1)
    assert (bench.state, bench.sizes, bench.times) == ("streaming", [10], [0.05])


def test_S3_a_tail_goes_out_a_flush_interval_after_its_first_token(make: MakeBench) -> None:
    bench = make()
    bench.count(1)
    bench.advance(0.06)
    bench.count(2)
    bench.advance(0.03)
    assert bench.batches == []
    bench.advance(0.01)
    assert (bench.state, bench.sizes, bench.times) == ("streaming", [3], [0.1])


def test_S3_so_does_a_tail_behind_full_batches(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.push_all(*"0123456789ab")
    bench.advance(0.1)
    assert (bench.sizes, bench.times) == ([10, 2], [0.0, 0.1])


def test_S3_a_new_token_while_it_streams_waits_no_longer_than_a_flush_interval(make: MakeBench) -> None:
    bench = make()
    bench.push_all(*"0123456789")
    bench.advance(0.09)
    bench.count(1)
    bench.advance(0.1)
    assert bench.times == [0.0, 0.19]


def test_empty_for_a_flush_interval_it_is_idle(make: MakeBench) -> None:
    bench = make()
    bench.push_all(*"0123456789")
    bench.advance(0.099)
    assert bench.state == "streaming"
    bench.advance(0.001)
    assert bench.state == "idle"


# --- 4: strategies ------------------------------------------------------------------------------------------------


def test_S4_by_batch_only_full_batches_go_out_and_the_rest_at_the_end(make: MakeBench) -> None:
    bench = make(strategy="batch", rate_limit=None)
    bench.count(13)
    bench.advance(100)
    assert bench.sizes == [10]
    bench.stop()
    assert bench.sizes == [10, 3]


def test_S4_by_batch_the_rest_also_goes_out_when_the_source_ends(make: MakeBench) -> None:
    bench = make(strategy="batch", rate_limit=None)
    bench.count(13)
    bench.ref.tell(Complete(Outcome()))
    bench.settle()
    assert (bench.sizes, bench.record.is_over) == ([10, 3], True)


def test_S4_by_time_everything_goes_out_at_the_interval_and_never_before(make: MakeBench) -> None:
    bench = make(strategy="time", rate_limit=None)
    bench.count(25)
    assert (bench.state, bench.batches) == ("buffering", [])
    bench.advance(0.1)
    assert (bench.sizes, set(bench.times)) == ([10, 10, 5], {0.1})
    bench.advance(0.02)
    bench.count(3)
    bench.advance(0.1)
    assert (bench.sizes[3:], bench.times[3:]) == ([3], [0.22])
    bench.advance(1)
    assert bench.state == "idle"
    bench.count(1)
    bench.advance(0.1)
    assert len(bench.sizes) == 5


def test_S4_by_time_a_full_buffer_waits_for_the_interval_and_lets_its_producer_in_then(make: MakeBench) -> None:
    bench = make(strategy="time", rate_limit=None, max_buffer_size=10)
    bench.push_all(*("x" * 35))
    assert bench.text == "x" * 30
    bench.advance(0.1)
    assert bench.text == "x" * 35
    assert bench.statistics.buffer_high_water_mark == 10


@pytest.mark.parametrize("strategy", ["hybrid", "batch", "time"])
def test_S4_the_strategy_can_be_changed_while_tokens_wait(make: MakeBench, strategy: str) -> None:
    bench = make(strategy="batch", rate_limit=None)
    bench.count(3)
    bench.advance(5)
    bench.set_options(strategy=strategy)
    bench.advance(0.1)
    assert bench.sizes == ([] if strategy == "batch" else [3])


# --- 5: order -------------------------------------------------------------------------------------------------------


def test_S5_order_is_kept_whatever_way_tokens_come_and_go(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.count(3)
    bench.push_all(*"abcdefghij")
    bench.push("k")
    assert bench.flush() == 4
    bench.push_all(*"lm")
    bench.intake.push_blocking([("thinking", "reasoning"), ("n", "text")])
    bench.stop()
    assert bench.text == "0,1,2,abcdefghijklmn"
    kinds = [event.kind for event in bench.log if isinstance(event, TokenEvent)]
    assert kinds == ["text", "text", "text", "reasoning", "text"]


def test_S5_an_empty_list_changes_nothing(make: MakeBench) -> None:
    bench = make()
    bench.push_all()
    assert (bench.state, bench.statistics.tokens_processed) == ("idle", 0)


def test_a_token_is_a_str_and_nothing_else_is_pushed_with_it(make: MakeBench) -> None:
    class Marked(str):
        __slots__ = ()

    bench = make()
    with pytest.raises(OptionError, match="text"):
        bench.push(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="texts"):
        bench.intake.push_all(["a", None])  # type: ignore[list-item]
    assert bench.intake.size == 0
    bench.push(Marked("a"))
    bench.intake.push_all([Marked("b")])
    bench.flush()
    assert [type(token) for token in bench.batches[0]] == [str, str]


# --- 6 to 8: sizes and rates ---------------------------------------------------------------------------------------


def test_S6_no_batch_is_larger_than_batch_size_not_even_after_a_pause_of_the_rate(make: MakeBench) -> None:
    bench = make(rate_limit=100.0)
    bench.push_all(*("x" * 560))
    bench.advance(10)
    assert (sum(bench.sizes), max(bench.sizes)) == (560, 10)


def test_S6_a_smaller_batch_size_counts_from_the_next_batch_on(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.pause()
    bench.push_all(*("x" * 20))
    bench.set_options(batch_size=3)
    bench.resume()
    assert max(bench.sizes) == 3


@pytest.mark.parametrize("state", STATES)
def test_S7_flush_empties_the_buffer_in_every_state_and_says_how_many_went_out(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    waiting = bench.intake.size
    assert bench.flush() == waiting
    assert bench.intake.size == 0
    assert bench.flush() == 0
    assert bench.state == {"paused": "paused", "idle": "idle"}.get(state, "streaming")


def test_S7_unforced_it_respects_a_pause(make: MakeBench) -> None:
    bench = in_state(make, "paused")
    assert (bench.flush(force=False), bench.intake.size) == (0, 3)


def test_S7_unforced_it_respects_the_rate(make: MakeBench) -> None:
    bench = make(rate_limit=10.0, batch_size=5)
    bench.pause()
    bench.push_all(*"abcdefgh")
    bench.resume()
    assert (bench.sizes, bench.state) == ([5], "streaming")
    assert bench.flush(force=False) == 0
    assert bench.state == "rate_limited"
    bench.advance(0.3)
    assert (bench.sizes, bench.times[-1]) == ([5, 3], 0.3)


def test_S7_unforced_it_goes_on_by_itself_with_what_the_rate_held_back(make: MakeBench) -> None:
    bench = make(rate_limit=10.0, batch_size=5)
    bench.count(4)
    assert bench.flush(force=False) == 4
    bench.count(3)
    assert (bench.flush(force=False), bench.state) == (0, "rate_limited")
    bench.advance(0.2)
    assert bench.sizes == [4, 3]


def test_S7_unforced_it_respects_a_slow_subscriber(make: MakeBench) -> None:
    bench = make(rate_limit=None, batch_size=1)
    reader = bench.events(slow="block", window=1)
    bench.push_all(*"abcd")
    assert bench.text == "ab"
    assert (bench.flush(force=False), bench.flush()) == (0, 2)
    reader.close()


def test_S7_a_flush_has_an_end_though_somebody_pushes_all_the_time(make: MakeBench) -> None:
    journal = BrokenJournal()
    bench = make(journal=journal, rate_limit=None, batch_size=1, strategy="batch")
    bench.pause()
    bench.push_all(*"abc")
    journal.before = lambda: bench.push("x")
    assert bench.flush() == 3


def test_S8_above_the_rate_it_waits_and_resumes_exactly_when_there_is_room(make: MakeBench) -> None:
    bench = make(rate_limit=100.0)
    bench.push_all(*("x" * 30))
    assert (bench.state, bench.sizes) == ("rate_limited", [10])
    bench.push_all(*("y" * 10))
    assert (bench.state, bench.sizes) == ("rate_limited", [10])
    bench.advance(0.3)
    assert bench.times == [0.0, 0.1, 0.2, 0.3]
    assert bench.text == "x" * 30 + "y" * 10
    bench.advance(0.1)
    assert bench.state == "idle"


def test_S8_over_any_window_no_more_goes_out_than_the_rate_and_one_batch(make: MakeBench) -> None:
    bench = make(rate_limit=50.0, batch_size=7)
    for number in range(60):
        bench.push_all(*("x" * (number % 9)))
        bench.advance(0.01 * (number % 5))
    bench.advance(20)
    assert bench.intake.size == 0
    times, sizes = bench.times, bench.sizes
    for first in range(len(times)):
        for last in range(first, len(times)):
            window = times[last] - times[first]
            assert sum(sizes[first : last + 1]) <= 50 * window + 7 + 1e-3


def test_S8_input_above_the_limit_for_ever_never_starves_the_output(make: MakeBench) -> None:
    bench = make(rate_limit=10.0, batch_size=10, overflow="drop_newest", max_buffer_size=20)
    for _ in range(200):
        bench.push_all("x", "y")
        bench.advance(0.1)
    assert sum(bench.sizes) >= 10 * 19


def test_S8_the_rate_can_be_lifted_and_set_while_it_limits(make: MakeBench) -> None:
    bench = in_state(make, "rate_limited")
    bench.set_options(rate_limit=None)
    assert (bench.intake.size, bench.state) == (0, "streaming")
    bench.set_options(rate_limit=1.0)
    bench.push_all(*"abcdefgh")
    assert (bench.state, bench.intake.size) == ("streaming", 3)


# --- 9: overflow --------------------------------------------------------------------------------------------------


def test_S9_a_blocked_producer_waits_until_there_is_room(make: MakeBench) -> None:
    bench = make(max_buffer_size=10, batch_size=5, rate_limit=10.0)
    bench.push_all(*("x" * 40))  # returns when all are in
    assert bench.statistics.backpressure_events == 6
    assert bench.statistics.buffer_high_water_mark == 10
    bench.advance(10)
    assert bench.text == "x" * 40


def test_S9_without_room_in_time_it_raises_and_says_how_many_were_taken(make: MakeBench) -> None:
    bench = make(max_buffer_size=10)
    bench.pause()
    before = bench.now
    with pytest.raises(BufferFull, match=r"within 0\.5 s") as caught:
        bench.intake.push_all("x" * 12, timeout=0.5)
    assert (caught.value.accepted, bench.now - before) == (10, 0.5)
    with pytest.raises(BufferFull) as caught:
        bench.push("x", timeout=0)
    assert caught.value.accepted == 0
    bench.resume()
    bench.advance(1)
    assert bench.text == "x" * 10


def test_S9_the_push_timeout_is_an_option(make: MakeBench) -> None:
    bench = make(max_buffer_size=10, push_timeout=2.0)
    bench.pause()
    before = bench.now
    with pytest.raises(BufferFull):
        bench.intake.push_all("x" * 11)
    assert bench.now - before == 2.0


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", "cdefg"), ("drop_newest", "abcde")])
def test_S9_drops_are_counted_and_told_by_the_next_event(make: MakeBench, overflow: str, kept: str) -> None:
    bench = make(max_buffer_size=5, batch_size=5, overflow=overflow, rate_limit=None)
    bench.pause()
    bench.push_all(*"abcdefg")
    assert bench.statistics.tokens_dropped == 2
    bench.resume()
    bench.advance(0.1)
    (event,) = bench.log
    assert isinstance(event, TokenEvent)
    assert (event.text, event.dropped) == (kept, 2)
    bench.stop()
    assert bench.record.statistics().tokens_dropped == 2
    assert isinstance(bench.log.terminal, StreamCompleted)
    assert bench.log.terminal.dropped == 0


def test_S9_what_was_dropped_last_of_all_is_told_by_the_terminal_event(make: MakeBench) -> None:
    bench = make(max_buffer_size=1, batch_size=1, overflow="drop_newest")
    bench.pause()
    bench.push_all("a", "b", "c")
    bench.cancel()
    assert isinstance(bench.log.terminal, StreamCancelled)
    assert (bench.log.terminal.dropped, bench.record.statistics().tokens_dropped) == (2, 2)


def test_S9_error_refuses_at_once_and_never_waits(make: MakeBench) -> None:
    bench = make(max_buffer_size=10, overflow="error")
    bench.pause()
    before = bench.now
    with pytest.raises(BufferFull) as caught:
        bench.intake.push_all("x" * 15)
    assert (caught.value.accepted, bench.now) == (10, before)
    with pytest.raises(BufferFull):
        bench.push("x", timeout=50)
    assert bench.now == before


def test_S9_a_smaller_bound_loses_nothing_and_lets_nobody_in_until_it_holds(make: MakeBench) -> None:
    bench = make(max_buffer_size=20, batch_size=2, rate_limit=None)
    bench.pause()
    bench.push_all(*("x" * 20))
    bench.set_options(max_buffer_size=5)
    with pytest.raises(BufferFull):
        bench.push("y", timeout=1)
    bench.resume()
    bench.push("y")
    bench.stop()
    assert bench.text == "x" * 20 + "y"


def test_S9_a_larger_bound_lets_in_who_waits(make: MakeBench) -> None:
    bench = make(max_buffer_size=10)
    bench.pause()
    bench.ref.tell("unknown")
    reply = bench.ref.ask(SetOptions({"max_buffer_size": 30}), block=False)
    bench.intake.push_all("x" * 30, timeout=5)
    reply.get(timeout=1)
    assert bench.intake.size == 30


def test_S9_a_producer_that_waits_obeys_the_overflow_rule_of_the_moment(make: MakeBench) -> None:
    bench = make(max_buffer_size=10)
    bench.pause()
    reply = bench.ref.ask(SetOptions({"overflow": "drop_newest"}), block=False)
    bench.intake.push_all("x" * 15, timeout=5)
    reply.get(timeout=1)
    assert bench.statistics.tokens_dropped == 5


def test_S9_room_is_offered_though_less_than_half_is_free_when_the_stream_rests(make: MakeBench) -> None:
    bench = make(max_buffer_size=10, batch_size=8, strategy="batch", rate_limit=None)
    tokens: list[tuple[str, TokenKind]] = [*[("t", "text")] * 3, *[("r", "reasoning")] * 7]  # type: ignore[list-item]
    bench.intake.push_blocking(tokens)
    bench.intake.push_all("x" * 5, timeout=5)
    bench.stop()
    assert bench.text == "tttxxxxx"


# --- 10: failed deliveries --------------------------------------------------------------------------------------------


def test_S10_a_batch_that_cannot_be_delivered_leads_to_error_and_is_tried_again(make: MakeBench) -> None:
    journal = BrokenJournal(failures=2)
    bench = make(journal=journal, error_recovery_delay=0.5, rate_limit=None)
    bench.push_all(*"0123456789")
    assert (bench.state, bench.statistics.errors, bench.batches) == ("error", 1, [])
    bench.push_all(*"ab")
    bench.advance(0.5)
    assert (bench.state, bench.statistics.errors) == ("error", 2)
    bench.advance(0.5)
    assert (bench.state, bench.text, bench.times) == ("streaming", "0123456789ab", [1.0, 1.0])
    assert [event.seq for event in journal.events] == [1, 2]


def test_S10_set_options_is_a_way_back(make: MakeBench) -> None:
    journal = BrokenJournal(failures=1)
    bench = make(journal=journal, error_recovery=False, rate_limit=None)
    bench.count(10)
    bench.advance(1000)
    assert bench.state == "error"
    bench.set_options(batch_size=20)
    assert bench.sizes == [10]


def test_S10_paused_meanwhile_set_options_is_a_way_back_too(make: MakeBench) -> None:
    bench = in_state(make, "error", error_recovery=False)
    bench.pause()
    bench.set_options(debug=False)
    assert bench.state == "paused"
    bench.resume()
    assert bench.sizes == [3]


def test_S10_at_max_errors_it_ends_with_a_failure(make: MakeBench) -> None:
    bench = make(journal=BrokenJournal(failures=1000), max_errors=3, error_recovery_delay=1.0)
    bench.count(10)
    bench.advance(1.9)
    assert not bench.record.is_over
    bench.advance(0.1)
    terminal = bench.log.terminal
    assert isinstance(terminal, StreamFailed)
    assert isinstance(terminal.error, DeliveryError)
    assert (terminal.error.errors, type(terminal.error.__cause__)) == (3, OSError)
    assert bench.record.statistics().errors == 3


def test_S10_a_success_in_between_starts_the_count_again(make: MakeBench) -> None:
    journal = BrokenJournal()
    bench = make(journal=journal, max_errors=2, rate_limit=None)
    for _ in range(5):
        journal.failures = 1
        bench.count(10)
        bench.advance(1)
    assert (bench.statistics.errors, bench.statistics.tokens_delivered) == (5, 50)


@pytest.mark.parametrize("state", ["paused", "error", "buffering"])
def test_S10_a_forced_flush_that_fails_loses_nothing_and_a_pause_stays_one(make: MakeBench, state: str) -> None:
    bench = in_state(make, state, rate_limit=None)
    assert isinstance(bench.record.journal, BrokenJournal)
    bench.record.journal.failures = 1
    assert bench.flush() == 0
    assert (bench.state, bench.intake.size) == ("paused" if state == "paused" else "error", 3)
    if state == "paused":
        bench.resume()
        assert bench.state == "error"
    bench.advance(1)
    assert bench.sizes == [3]


def test_S10_with_auto_restart_it_crashes_and_its_successor_waits_before_it_tries_again(make: MakeBench) -> None:
    bench = make(journal=BrokenJournal(failures=3), max_errors=2, auto_restart=True, rate_limit=None)
    bench.count(10)
    bench.advance(1)
    assert not bench.runtime.is_alive(bench.ref)
    assert isinstance(bench.runtime.exit_reason(bench.ref), DeliveryError)
    bench.start()
    assert bench.state == "error"
    bench.advance(1)
    assert (bench.state, bench.statistics.restarts) == ("error", 1)
    bench.advance(1)
    assert (bench.text, bench.statistics.errors) == ("0,1,2,3,4,5,6,7,8,9,", 3)


@pytest.mark.seeds(3)
def test_S10_a_journal_that_fails_on_and_on_costs_only_its_own_stream(seed: int) -> None:
    with SimulatedSystem(seed=seed) as system:
        options = StreamOptions(max_errors=1, auto_restart=True, rate_limit=None, error_recovery_delay=0.0)
        other = system.open_stream("other", options)
        bad = system.open_stream("bad", options, restart="transient", journal=BrokenJournal(failures=10**9))
        bad.process_token("x")
        other.process_token("y")
        system.advance(60)
        end = bad._record.log.terminal
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, StreamCrashed)
        assert (other.text, other.is_over) == ("y", False)


# --- 11 and 12: calls -------------------------------------------------------------------------------------------------

CALLS: dict[str, Any] = {
    "flush": Flush(),
    "unforced flush": Flush(force=False),
    "pause": Pause(),
    "resume": Resume(),
    "get_state": GetState(),
    "get_statistics": GetStatistics(),
    "set_options": SetOptions({"flush_interval": 0.2}),
    "reset": Reset("again"),
    "stop": StopStream(),
    "cancel": Cancel("enough"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", STATES)
def test_S11_every_call_is_answered_in_every_state(make: MakeBench, state: str, call: str) -> None:
    bench = in_state(make, state)
    reply = bench.ref.ask(CALLS[call], block=False)
    bench.settle()
    assert reply.is_done
    value = reply.get(timeout=0)
    if call == "get_state":
        assert value == state
    assert bench.record.is_over == (call in ("stop", "cancel"))
    if not bench.record.is_over:
        if bench.state == "paused":
            bench.resume()
        bench.advance(10)  # and it goes on
        bench.count(2)
        bench.advance(1)
        assert (bench.state, bench.intake.size) == ("idle", 0)
        assert bench.text.endswith("0,1,")


@pytest.mark.parametrize("state", STATES)
def test_S11_a_call_it_does_not_know_is_answered_with_an_error_in_every_state(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    with pytest.raises(penstock.PenstockError, match="does not know"):
        bench.ask("what?")
    bench.ref.tell("nonsense")
    bench.settle()
    assert bench.state == state


@pytest.mark.parametrize("call", CALLS)
def test_S11_after_its_end_every_call_is_answered_too(make: MakeBench, call: str) -> None:
    bench = make()
    bench.stop()
    with pytest.raises(ProcessDead):
        bench.ask(CALLS[call])
    with pytest.raises(StreamClosed):
        bench.push("x")
    with pytest.raises(StreamClosed):
        bench.intake.push_all(["x"])
    assert not bench.intake.push_blocking([("x", "text")])


def test_S11_a_call_has_a_time_out() -> None:
    with Simulation() as simulation:
        system = penstock.System(runtime=simulation.runtime)
        with system:
            stream = system.open_stream()
            inspect.suspend(stream._record.ref)  # type: ignore[arg-type]
            before = simulation.clock.monotonic()
            with pytest.raises(penstock.CallTimeout):
                stream.flush_buffer(timeout=2)
            assert simulation.clock.monotonic() - before == 2
            inspect.resume(stream._record.ref)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size: got 0, allowed: a whole number from 1"),
        ({"batch_size": 10**6}, "batch_size: got 1000000, allowed: a whole number from 1 to max_buffer_size"),
        ({"flush_interval": -1}, "flush_interval: got -1, allowed: a number from 0.001 to 3600"),
        ({"rate_limit": "fast"}, "rate_limit: got 'fast', allowed"),
        ({"colour": "red"}, "colour: no such option of StreamOptions; there are max_buffer_size, batch_size"),
        ({"self": 1}, "self"),
    ],
)
def test_S12_a_bad_option_is_refused_by_name_and_changes_nothing(
    make: MakeBench, state: str, changes: dict[str, Any], said: str
) -> None:
    bench = in_state(make, state)
    before = bench.record.options
    with pytest.raises((OptionError, TypeError), match=said):
        bench.ask(SetOptions(changes))
    assert (bench.record.options, bench.state) == (before, state)


def test_S12_a_change_of_the_interval_does_not_make_a_token_wait_again(make: MakeBench) -> None:
    bench = make(flush_interval=1.0)
    bench.count(1)
    for _ in range(20):
        bench.advance(0.06)
        bench.set_options(flush_interval=1.0)
    assert bench.times == [1.0]


def test_S12_a_shorter_interval_counts_from_the_token_not_from_the_change(make: MakeBench) -> None:
    bench = make(flush_interval=10.0)
    bench.count(1)
    bench.advance(0.6)
    bench.set_options(flush_interval=1.0)
    bench.advance(0.5)
    assert bench.times == [1.0]
    bench.count(1)
    bench.advance(0.6)
    bench.set_options(flush_interval=0.5)
    assert bench.times == [1.0, 1.7]


# --- 13: statistics ---------------------------------------------------------------------------------------------------


def test_S13_the_counters_count_what_they_say(make: MakeBench) -> None:
    bench = make(journal=BrokenJournal(failures=1), rate_limit=None, metadata={"user": 1})
    bench.advance(1.0)
    bench.push_all(*"0123456789abc")  # error
    bench.advance(1.0)  # 10 and 3
    bench.advance(0.1)  # idle
    bench.push("é")
    bench.flush()
    bench.advance(1)
    statistics = bench.statistics
    assert (statistics.tokens_processed, statistics.tokens_delivered, statistics.batches_flushed) == (14, 14, 3)
    assert (statistics.errors, statistics.buffer_size, statistics.buffer_high_water_mark) == (1, 0, 13)
    # idle → error → streaming → idle → streaming → idle; `flush` finds it in buffering or still in idle
    assert statistics.state_changes in (5, 6)
    assert statistics.time_to_first_token_s == pytest.approx(2.0)
    assert statistics.start_time == 1_700_000_000.0 + bench.started_at
    assert statistics.last_activity == pytest.approx(statistics.start_time + 2.2)
    assert statistics.tokens_per_second == pytest.approx(4 / 0.1)
    assert statistics.bytes_per_second == pytest.approx(5 / 0.1)
    assert statistics.inter_token_p50_s is not None


def test_S13_the_measured_rate_is_the_rate_limit_when_that_is_what_limits(make: MakeBench) -> None:
    bench = make(rate_limit=100.0)
    bench.push_all(*("x" * 200))
    bench.advance(10)
    statistics = bench.statistics
    assert statistics.tokens_per_second == pytest.approx(100.0)
    assert statistics.inter_token_p50_s == statistics.inter_token_p99_s == pytest.approx(0.01)


def test_S13_quantiles_are_of_the_last_512_deliveries(make: MakeBench) -> None:
    bench = make(rate_limit=None, batch_size=1)
    for gap in [5_000.0] * 100 + [float(gap) for gap in range(512, 0, -1)]:
        bench.count(1)
        bench.advance(gap)
    bench.count(1)
    assert bench.statistics.inter_token_p50_s == pytest.approx(257)  # the 257th of 512
    assert bench.statistics.inter_token_p99_s == pytest.approx(507)
    for gap in [1_000.0] * 256:  # replace the oldest half: 512 … 257
        bench.advance(gap)
        bench.count(1)
    assert bench.statistics.inter_token_p50_s == pytest.approx(1_000)
    for gap in [1_000.0] * 256:
        bench.advance(gap)
        bench.count(1)
    assert bench.statistics.inter_token_p50_s == bench.statistics.inter_token_p99_s == pytest.approx(1_000)


def test_S13_the_quantiles_are_those_of_the_gaps_and_not_their_ends(make: MakeBench) -> None:
    bench = make(rate_limit=None, batch_size=1)
    for gap in (9.0, 1.0, 4.0, 100.0, 2.0):
        bench.count(1)
        bench.advance(gap)
    bench.count(2)  # the last gap is shared by two tokens
    assert bench.statistics.inter_token_p50_s == pytest.approx(4.0)
    assert bench.statistics.inter_token_p99_s == pytest.approx(100.0)


def test_S13_staying_in_a_state_is_no_change(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.pause()
    before = bench.statistics.state_changes
    bench.pause()
    bench.set_options(debug=False)
    assert bench.statistics.state_changes == before == 1


# --- 15 to 18 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_S15_the_debug_view_shows_state_sizes_options_and_timers_but_no_text(make: MakeBench, state: str) -> None:
    bench = in_state(make, state, metadata={"api_key": "sk-very-secret"})
    if state != "idle":
        bench.push("a secret word")
    status = inspect.get_status(bench.ref)
    assert (status["state"], status["stream_id"], status["options"]) == (state, "s", bench.record.options)
    assert status["buffer_size"] == bench.intake.size
    assert isinstance(status["timeouts"], list)
    assert "secret" not in repr(status)


@pytest.mark.parametrize("state", STATES)
def test_S16_stop_flushes_and_then_ends_in_every_state(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    _, events = bench.subscribe()
    before = bench.text
    waiting = bench.intake.size
    bench.stop()
    terminal = bench.log.terminal
    assert isinstance(terminal, StreamCompleted)
    assert len(terminal.text) > len(before) or not waiting
    assert bench.log.tokens == bench.record.statistics().tokens_processed
    assert events[-1] is terminal
    assert bench.state == "ended"
    assert max(bench.sizes, default=0) <= 5


@pytest.mark.parametrize("state", STATES)
def test_S16_cancel_does_not_flush(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    _, events = bench.subscribe()
    before, delivered = bench.text, bench.log.tokens
    buffered = bench.statistics.tokens_processed - delivered
    bench.cancel("enough")
    terminal = bench.log.terminal
    assert isinstance(terminal, StreamCancelled)
    assert (terminal.reason, terminal.undelivered, events[-1]) == ("enough", buffered, terminal)
    assert (bench.text, bench.log.tokens) == (before, delivered)
    assert terminal.partial.startswith(before)
    assert (len(terminal.partial) > len(before)) == (buffered > 0)


def test_S16_stop_tries_a_failing_journal_as_often_as_max_errors_says(make: MakeBench) -> None:
    bench = make(journal=BrokenJournal(failures=4), max_errors=5)
    bench.count(3)
    bench.stop()
    assert isinstance(bench.log.terminal, StreamCompleted)
    assert (bench.text, bench.record.statistics().errors) == ("0,1,2,", 4)
    bench = make(journal=BrokenJournal(failures=5), max_errors=5)
    bench.count(3)
    bench.stop()
    assert isinstance(bench.log.terminal, StreamFailed)
    assert isinstance(bench.log.terminal.error, DeliveryError)


@pytest.mark.parametrize("state", STATES)
def test_S16_ended_by_its_supervisor_it_flushes_too_and_says_that_it_could_not_be_kept(
    make: MakeBench, state: str
) -> None:
    bench = in_state(make, state)
    processed = bench.statistics.tokens_processed
    bench.ref.terminate(SHUTDOWN, timeout=5)
    assert isinstance(bench.log.terminal, StreamFailed)
    assert isinstance(bench.log.terminal.error, StreamCrashed)
    assert bench.log.tokens == processed


def test_S16_the_end_is_announced_to_every_subscriber(make: MakeBench) -> None:
    bench = make(batch_size=1, rate_limit=None)
    others = [bench.subscribe(slow, window=2)[1] for slow in ("block", "coalesce", "drop")]
    reader = bench.events()
    bench.count(5)
    bench.stop()
    for events in others:
        assert events[-1] is bench.log.terminal
    assert list(reader)[-1] is bench.log.terminal
    assert bench.record.hub.subscriptions == ()


@pytest.mark.parametrize("end", ["stop", "cancel", "complete", "fail", "crash"])
def test_S17_metadata_comes_back_in_every_event(make: MakeBench, end: str) -> None:
    metadata = {"source": "chat", "user_id": 7}
    bench = make(metadata=metadata, retain_bytes=10**6)
    bench.count(3)
    bench.reset()
    bench.count(2)
    bench.flush()
    if end == "stop":
        bench.stop()
    elif end == "cancel":
        bench.cancel()
    else:
        bench.ref.tell(Complete(Outcome()) if end == "complete" else Fail(StreamCrashed("s", "x"), Outcome()))
        bench.settle()
    events = list(bench.log)
    assert [type(event) for event in events][:2] == [StreamReset, TokenEvent]
    assert all(event.metadata == metadata for event in events)


def test_S17_metadata_added_later_is_in_every_event_from_then_on() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(metadata={"a": 1})
        stream.update_metadata({"b": 2})
        stream.process_token("x")
        stream.stop()
        assert [event.metadata for event in stream.events()] == [{"a": 1, "b": 2}] * 2


def test_S18_a_tokenizer_of_ones_own_splits_what_comes_as_text() -> None:
    with SimulatedSystem() as system:
        options = StreamOptions(tokenizer=lambda text: text.split("|"), rate_limit=None)
        stream = system.open_stream(options=options)
        stream.process_text("a|b|c")
        assert stream.flush_buffer() == 3
        plain = system.open_stream()
        plain.process_text("3.14 and more")
        assert plain.flush_buffer() == 1


# --- states -----------------------------------------------------------------------------------------------------------


def test_paused_nothing_goes_out_and_what_comes_is_kept_in_order(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.count(3)
    bench.pause()
    bench.push_all(*("x" * 50))
    bench.advance(100)
    assert (bench.state, bench.batches) == ("paused", [])
    bench.resume()
    bench.advance(0.1)
    assert bench.text == "0,1,2," + "x" * 50


@pytest.mark.parametrize("state", ["idle", "buffering", "streaming", "rate_limited", "error"])
def test_resumed_it_is_where_it_was(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    bench.pause()
    assert bench.state == "paused"
    bench.pause()
    bench.resume()
    assert bench.state == state
    bench.advance(10)
    assert (bench.state, bench.intake.size) == ("idle", 0)


def test_a_tail_does_not_wait_again_after_a_pause_it_has_waited_through(make: MakeBench) -> None:
    bench = make()
    bench.count(1)
    bench.advance(0.06)
    bench.pause()
    bench.advance(1)
    bench.resume()
    assert bench.times == [1.06]
    bench.count(1)
    bench.advance(0.06)
    bench.pause()
    bench.resume()
    bench.advance(0.04)
    assert bench.times == [1.06, 1.16]


def test_what_came_to_an_idle_stream_during_a_pause_waits_for_a_flush_interval_at_most(make: MakeBench) -> None:
    bench = make()
    bench.pause()
    bench.count(3)
    bench.advance(1)
    bench.resume()
    bench.advance(0.1)
    assert bench.times == [1.1]


def test_resume_without_a_pause_is_harmless(make: MakeBench) -> None:
    bench = in_state(make, "buffering")
    bench.resume()
    assert bench.state == "buffering"


def test_a_restarted_stream_stays_paused(make: MakeBench) -> None:
    bench = make(rate_limit=None)
    bench.count(3)
    bench.pause()
    bench.restart()
    bench.advance(1)
    assert (bench.state, bench.batches) == ("paused", [])
    bench.resume()
    bench.advance(1)
    assert bench.text == "0,1,2,"


# --- the source ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_when_its_source_completes_the_rest_goes_out_at_its_pace_and_then_it_ends(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    bench.push_all(*"0123456")
    waiting = bench.intake.size
    bench.ref.tell(Complete(Outcome(finish_reason="length")))
    bench.settle()
    if state == "paused":
        assert not bench.record.is_over
        bench.resume()
    bench.advance(20)
    terminal = bench.log.terminal
    assert isinstance(terminal, StreamCompleted)
    assert (terminal.finish_reason, bench.log.tokens) == ("length", bench.record.statistics().tokens_processed)
    assert waiting
    times, sizes = bench.times, bench.sizes
    for first in range(len(times)):
        assert sum(sizes[first:]) <= 10 * (times[-1] - times[first]) + 5 + 1e-3


@pytest.mark.parametrize("state", STATES)
def test_when_its_source_fails_what_had_come_goes_out_first(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    error = penstock.errors.IncompleteStream("cut")
    bench.ref.tell(Fail(error, Outcome()))
    bench.settle()
    if state == "paused":
        bench.resume()
    bench.advance(20)
    terminal = bench.log.terminal
    assert isinstance(terminal, StreamFailed)
    assert (terminal.error, terminal.partial, error.partial) == (error, bench.text, bench.text)
    assert bench.log.tokens == bench.record.statistics().tokens_processed


def test_a_second_ending_has_no_effect(make: MakeBench) -> None:
    bench = make()
    bench.pause()
    bench.count(1)
    bench.ref.tell(Complete(Outcome()))
    bench.ref.tell(Fail(StreamCrashed("s", "x"), Outcome()))
    bench.settle()
    bench.resume()
    bench.advance(1)
    assert isinstance(bench.log.terminal, StreamCompleted)


def test_a_token_pushed_in_the_last_moment_is_delivered_or_refused_but_never_lost(make: MakeBench) -> None:
    journal = BrokenJournal()
    bench = make(journal=journal, rate_limit=None)
    bench.count(3)
    left = ["x", "y"]

    def push_another() -> None:
        if left:
            bench.push(left.pop())

    journal.before = push_another
    bench.ref.tell(Complete(Outcome()))
    bench.settle()
    assert (bench.text, bench.record.is_over) == ("0,1,2,yx", True)


def test_so_is_one_that_slips_in_while_the_door_is_being_shut(make: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(rate_limit=None)
    close, late = Intake.close, ["late"]

    def close_after_another_push(self: Intake, epoch: int | None = None) -> None:
        if late:
            self.push(late.pop())
        close(self, epoch)

    monkeypatch.setattr(Intake, "close", close_after_another_push)
    bench.count(2)
    bench.ref.tell(Complete(Outcome()))
    bench.settle()
    assert (bench.text, bench.record.is_over) == ("0,1,late", True)


# --- resets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_a_reset_voids_what_came_and_the_stream_goes_on(make: MakeBench, state: str) -> None:
    bench = in_state(make, state)
    _, events = bench.subscribe()
    bench.reset()
    assert (bench.text, bench.intake.size) == ("", 0)
    bench.settle()
    assert isinstance(events[-1], StreamReset)
    if state == "paused":
        assert bench.state == "paused"
        bench.resume()
    bench.count(3)
    bench.advance(1)
    bench.stop()
    assert isinstance(bench.record.journal, BrokenJournal)
    assert [event.seq for event in bench.record.journal.events] == [event.seq for event in bench.log]
    assert list(events)[-1:] == [bench.log.terminal]
    assert bench.text == "0,1,2,"


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_restarted_after_a_crash_there_is_no_gap_no_duplicate_and_the_buffer_is_kept(
    make: MakeBench, state: str
) -> None:
    bench = in_state(make, state)
    bench.push("last")
    processed = bench.intake.accepted
    bench.restart()
    if bench.state == "paused":
        bench.resume()
    bench.advance(10)
    assert bench.record.statistics().restarts == 1
    bench.stop()
    assert bench.log.tokens == processed
    assert bench.text.endswith("last")
    assert len(set(bench.text.replace("last", "").replace(",", ""))) == len(
        bench.text.replace("last", "").replace(",", "")
    )


def test_a_crash_in_the_middle_of_a_delivery_loses_and_doubles_nothing(make: MakeBench) -> None:
    journal = BrokenJournal()
    bench = make(journal=journal, rate_limit=None, batch_size=2)

    journal.before = crash_once(journal)
    bench.push_all(*"abcde")
    assert not bench.runtime.is_alive(bench.ref)
    bench.start()
    bench.stop()
    assert bench.text == "abcde"


def test_one_that_was_given_up_while_its_journal_hung_cannot_disturb_its_successor(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaling, "_JOURNAL_PATIENCE", 0.001)  # the thread that has the journal is this one
    journal = BrokenJournal()
    bench = make(journal=journal, rate_limit=None, batch_size=2, max_errors=1)

    def succeed_meanwhile() -> None:
        journal.before = None
        bench.runtime.exit(bench.ref, "kill")
        journal.before = fail
        bench.start()
        bench.simulation.settle()

    def fail() -> None:
        journal.before = None
        bench.simulation.settle()

    journal.before = succeed_meanwhile
    bench.push_all(*"abcde")
    journal.before = None
    bench.count(2)
    bench.advance(1)
    assert bench.text == "abcde0,1,"
    assert not bench.intake.closed
    assert bench.statistics.buffer_size == 0


def test_a_crash_does_not_give_the_rate_another_burst(make: MakeBench) -> None:
    bench = make(rate_limit=10.0, batch_size=10)
    bench.push_all(*("x" * 30))
    for _ in range(5):
        bench.restart()
    assert bench.sizes == [10]
    bench.advance(1)
    assert bench.sizes == [10, 10]


def test_crashed_while_it_stopped_its_successor_ends_it(make: MakeBench) -> None:
    journal = BrokenJournal()
    bench = make(journal=journal, rate_limit=None)
    bench.count(3)
    journal.before = crash_once(journal)
    with pytest.raises(Crash):
        bench.stop()
    bench.start()
    bench.settle()
    assert (bench.text, bench.record.is_over) == ("0,1,2,", True)


# --- subscribers that hold it -----------------------------------------------------------------------------------------


def test_a_slow_block_subscriber_holds_the_stream_and_lets_it_go(make: MakeBench) -> None:
    bench = make(batch_size=1, rate_limit=None)
    reader = bench.events(slow="block", window=2)
    bench.push_all(*"abcdefgh")
    assert bench.text == "abc"
    assert bench.statistics.backpressure_events == 1
    assert [next(reader).seq for _ in range(2)] == [1, 2]
    bench.settle()
    assert len(bench.text) > 3
    assert "".join(event.text for event in _take(reader, 6)) == "cdefgh"


def test_it_is_let_go_when_its_slow_subscriber_leaves_or_is_dropped(make: MakeBench) -> None:
    for leave in (lambda reader: reader.close(), lambda reader: None):
        bench = make(batch_size=1, rate_limit=None)
        readers = [bench.events(slow="block", window=1)]
        bench.push_all(*"abcdefgh")
        assert bench.text == "ab"
        leave(readers.pop())
        bench.settle()
        assert (bench.text, bench.record.hub.held, bench.record.hub.subscribers) == ("abcdefgh", False, 0)


def test_a_block_subscriber_that_is_slow_gets_the_terminal_event_all_the_same(make: MakeBench) -> None:
    bench = make(batch_size=1, rate_limit=None)
    reader = bench.events(slow="block", window=1)
    subscription, events = bench.subscribe("block", window=1)
    inspect.suspend(subscription.ref)  # type: ignore[arg-type]
    bench.push_all(*"abcdefgh")
    bench.stop()
    assert (bench.text, bench.record.is_over) == ("abcdefgh", True)
    inspect.resume(subscription.ref)  # type: ignore[arg-type]
    bench.settle()
    assert events == list(bench.log)
    assert list(reader) == list(bench.log)


def test_held_and_paused_and_released_in_any_order_it_goes_on(make: MakeBench) -> None:
    bench = make(batch_size=1, rate_limit=None)
    reader = bench.events(slow="block", window=1)
    bench.push_all(*"abcd")
    bench.pause()
    assert "".join(event.text for event in _take(reader, 2)) == "ab"
    bench.settle()
    assert bench.text == "ab"
    bench.resume()
    assert "".join(event.text for event in _take(reader, 2)) == "cd"


def test_a_tail_that_was_held_goes_out_when_it_is_let_go(make: MakeBench) -> None:
    bench = make(batch_size=2, rate_limit=None)
    reader = bench.events(slow="block", window=1)
    bench.push_all(*"abcde")
    bench.advance(5)
    assert bench.text == "abcd"
    _take(reader, 2)
    bench.settle()
    assert bench.text == "abcde"


def test_a_restarted_stream_goes_on_though_its_predecessor_was_held(make: MakeBench) -> None:
    bench = make(batch_size=1, rate_limit=None)
    reader = bench.events(slow="block", window=1)
    bench.push_all(*"abcdefgh")
    bench.restart()
    assert "".join(event.text for event in _take(reader, 8)) == "abcdefgh"


def crash_once(journal: BrokenJournal) -> Callable[[], None]:
    def crash() -> None:
        journal.before = None
        raise Crash

    return crash


def _take(reader: penstock.Events, count: int) -> list[Any]:
    return [reader.next(timeout=5) for _ in range(count)]
