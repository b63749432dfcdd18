"""Tool events on their way through a stream: in order, at once, never lost, and no tokens."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.actors.stream.record import StreamRecord
from penstock.errors import CallTimeout
from penstock.events import Event, StreamStarted, TokenEvent, ToolCallDelta, ToolCallStarted, ToolProgress
from tests.conformance.streams import Bench, BrokenJournal, Crash


def shown(events: Any) -> list[str]:
    """Texts as they are, other events by what tells them apart."""
    return [_shown(event) for event in events]


def _shown(event: Event) -> str:
    match event:
        case TokenEvent(text=text):
            return text
        case ToolProgress(name=name):
            return name
        case ToolCallDelta(index=index, text=text):
            return f"{index}:{text}"
    return type(event).__name__


def mark(name: str = "!") -> ToolProgress:
    return ToolProgress(call_id=name, name=name, progress=None)


def piece(text: str, index: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index=index, text=text)


def test_an_event_goes_out_at_once_with_what_stands_before_it_and_what_is_behind_waits() -> None:
    bench = Bench(batch_size=10, rate_limit=None)
    bench.push("a")
    bench.push("b")
    assert bench.intake.push_event(mark())
    bench.push("c")
    bench.settle()
    assert shown(bench.log) == ["ab", "!"]
    bench.advance(0.1)
    assert shown(bench.log) == ["ab", "!", "c"]
    assert [event.seq for event in bench.log] == [1, 2, 3]


@pytest.mark.parametrize("strategy", ["hybrid", "batch", "time"])
def test_an_event_that_comes_when_the_stream_has_long_been_waiting_wakes_it(strategy: str) -> None:
    bench = Bench(batch_size=10, rate_limit=None, strategy=strategy)
    bench.push_all("a")
    bench.advance(0.05)
    bench.intake.push_event(mark())
    bench.settle()
    assert shown(bench.log) == ([] if strategy == "time" else ["a", "!"])
    bench.advance(0.05)
    assert shown(bench.log) == ["a", "!"]


def test_it_says_whose_it_is_its_number_and_when_and_carries_the_metadata() -> None:
    bench = Bench(metadata={"user": 7})
    started = ToolCallStarted(id="c", name="add", index=0)
    bench.intake.push_event(started)
    bench.settle()
    (event,) = bench.log
    now = bench.simulation.clock.time()
    assert event == ToolCallStarted(
        stream_id="s", seq=1, id="c", name="add", index=0, timestamp=now, metadata={"user": 7}
    )
    assert (started.seq, started.stream_id) == (0, "")


def test_events_are_no_tokens_to_any_counter_nor_to_the_rate_limit() -> None:
    bench = Bench(batch_size=1, rate_limit=1.0)
    for _ in range(20):
        bench.intake.push_event(mark())
    bench.settle()
    assert bench.log.last_seq == 20
    statistics = bench.statistics
    assert (statistics.tokens_processed, statistics.tokens_delivered, statistics.batches_flushed) == (0, 0, 0)
    bench.push_all("a")
    assert bench.sizes == [1]  # there was room for it


def test_the_rate_limit_holds_an_event_only_behind_tokens_that_it_holds() -> None:
    bench = Bench(batch_size=2, rate_limit=2.0)
    bench.push_all("a", "b", "c")
    bench.intake.push_event(mark())
    bench.push_all("d")
    assert shown(bench.log) == ["ab"]
    assert bench.state == "rate_limited"
    bench.advance(0.5)  # room for one token: that is all that stands before the event
    assert shown(bench.log) == ["ab", "c", "!"]


def test_a_pause_holds_events_too() -> None:
    bench = Bench()
    bench.pause()
    bench.intake.push_event(mark())
    bench.advance(5)
    assert shown(bench.log) == []
    bench.resume()
    assert shown(bench.log) == ["!"]


def test_a_flush_lets_out_events_and_counts_tokens_only() -> None:
    bench = Bench(batch_size=10)
    bench.pause()
    for token in "ab":
        bench.push(token)
        bench.intake.push_event(mark(token.upper()))
    assert bench.flush(force=False) == 0
    assert bench.flush() == 2
    assert shown(bench.log) == ["a", "A", "b", "B"]
    bench.intake.push_event(mark())
    assert bench.flush() == 0
    assert bench.log.last_seq == 5


def test_a_flush_that_respects_the_rate_limit_stops_before_the_tokens_behind_an_event() -> None:
    bench = Bench(batch_size=2, rate_limit=2.0)
    bench.pause()
    bench.intake.push_all("ab")
    bench.intake.push_event(mark())
    bench.intake.push_all("cd")
    bench.resume()
    assert shown(bench.log) == ["ab", "!"]
    assert bench.flush(force=False) == 0
    assert bench.flush() == 2


def test_a_flush_has_an_end_though_events_come_while_it_runs() -> None:
    journal = BrokenJournal()
    bench = Bench(journal=journal, batch_size=1, rate_limit=None)

    def push_more() -> None:
        bench.intake.push_event(mark())

    journal.before = push_more
    bench.pause()
    bench.intake.push_all("ab")
    assert bench.flush() == 2
    journal.before = None
    bench.resume()
    assert shown(bench.log) == ["a", "b", "!", "!"]


def test_a_flush_of_events_has_an_end_too() -> None:
    journal = BrokenJournal()
    bench = Bench(journal=journal)

    def push_more() -> None:
        if len(journal.events) < 20:
            bench.intake.push_event(mark())

    journal.before = push_more
    bench.pause()
    bench.intake.push_event(mark())
    bench.intake.push_event(mark())
    assert bench.flush() == 0
    assert bench.log.last_seq == 2


def test_by_time_only_an_event_waits_for_its_time() -> None:
    bench = Bench(strategy="time", rate_limit=None)
    bench.intake.push_event(mark())
    bench.advance(0.09)
    assert shown(bench.log) == []
    bench.advance(0.01)
    assert shown(bench.log) == ["!"]


def test_an_event_that_the_journal_refuses_is_tried_again_and_nothing_overtakes_it() -> None:
    journal = BrokenJournal(failures=2)
    bench = Bench(journal=journal, error_recovery_delay=1.0)
    bench.intake.push_event(mark())
    bench.push_all("a")
    assert (bench.state, shown(bench.log)) == ("error", [])
    bench.intake.push_event(mark("?"))
    bench.advance(3)
    assert shown(bench.log) == ["!", "a", "?"]
    assert journal.events == list(bench.log)


@pytest.mark.parametrize("is_in_log", [False, True])
def test_a_crash_in_the_middle_of_an_event_neither_loses_nor_doubles_it(is_in_log: bool) -> None:
    journal = BrokenJournal()
    bench = Bench(journal=journal, restart="transient")
    bench.intake.push_all("a")
    bench.intake.push_event(mark())
    bench.intake.push_event(mark("?"))

    def crash() -> None:
        if bench.log.last_seq == 1:
            journal.before = None
            if is_in_log:  # as if it were killed just behind the append
                event = ToolProgress(stream_id="s", seq=2, call_id="c", name="!", progress=None)
                assert bench.log.append(1, event)
            raise Crash

    journal.before = crash
    bench.settle()
    assert not bench.runtime.is_alive(bench.ref)
    bench.start()
    bench.settle()
    assert shown(bench.log) == ["a", "!", "?"]
    assert (bench.intake.size, bench.intake.events) == (0, 0)


def test_a_closed_stream_takes_no_event_and_neither_does_a_void_attempt() -> None:
    bench = Bench()
    assert not bench.intake.push_event(mark(), is_void=lambda: True)
    bench.stop()
    assert not bench.intake.push_event(mark())
    assert bench.intake.size == 0


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "error"])
def test_no_policy_drops_an_event_or_makes_it_wait(overflow: str) -> None:
    bench = Bench(max_buffer_size=3, batch_size=1, overflow=overflow, rate_limit=None)
    bench.pause()
    bench.intake.push_all("abc")
    for name in "xyz":
        bench.intake.push_event(mark(name))
    bench.resume()
    assert shown(bench.log) == list("abcxyz")


def test_events_that_wait_take_room_from_the_tokens() -> None:
    bench = Bench(max_buffer_size=3, batch_size=1, rate_limit=None)
    bench.pause()
    for name in "xyz":
        bench.intake.push_event(mark(name))
    assert bench.intake.push_now([("a", "text")], lambda: None) == 0
    bench.resume()
    assert bench.intake.push_now([("a", "text")], lambda: None) == 1


def test_the_oldest_token_is_dropped_from_behind_the_events_before_it() -> None:
    bench = Bench(max_buffer_size=4, batch_size=4, overflow="drop_oldest", rate_limit=None)
    bench.pause()
    bench.intake.push_event(mark("x"))
    bench.intake.push_event(mark("y"))
    bench.intake.push_all("abcd")
    bench.resume()
    bench.advance(1)
    assert shown(bench.log) == ["x", "y", "cd"]
    assert [event.dropped for event in bench.log if isinstance(event, TokenEvent)] == [2]


def test_beyond_the_bound_pieces_of_one_call_wait_as_one() -> None:
    bench = Bench(max_buffer_size=2, batch_size=1, rate_limit=None)
    bench.pause()
    for number in range(100):
        bench.intake.push_event(piece(f"{number},"))
    assert bench.intake.size == 2
    bench.intake.push_event(piece("other", index=1))
    bench.resume()
    rest = "".join(f"{number}," for number in range(1, 100))
    assert shown(bench.log) == ["0:0,", f"0:{rest}", "1:other"]


@pytest.mark.parametrize("what", ["pieces", "empty tokens"])
def test_a_stream_that_waits_for_an_iterator_goes_on_when_what_that_missed_was_folded_to_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(batch_size=1, rate_limit=None, retain_bytes=0)
    monkeypatch.setattr(StreamRecord, "read_by_all", lambda record, last_seq: last_seq)  # pieces do not stay for it
    events = bench.events("block", window=1)
    bench.push_all("a")
    events.next(timeout=0)
    for _ in range(4):
        if what == "pieces":
            bench.intake.push_event(piece("x"))
        else:
            bench.push("")
    bench.settle()
    assert bench.record.hub.held
    with pytest.raises(CallTimeout):
        events.next(timeout=0)
    bench.settle()
    assert bench.log.last_seq > 3
    with pytest.raises(CallTimeout):
        events.next(timeout=0)
    bench.settle()
    assert bench.intake.size == 0


def test_a_reset_throws_away_the_events_that_wait_but_not_the_start() -> None:
    bench = Bench()
    bench.pause()
    bench.intake.push_event(StreamStarted(model="m"))
    bench.push("a")
    bench.intake.push_event(mark())
    bench.reset()
    bench.resume()
    assert shown(bench.log) == ["StreamReset", "StreamStarted"]
    assert bench.intake.size == 0


def test_an_agents_start_is_the_first_event() -> None:
    bench = Bench()
    bench.intake.push_event(StreamStarted(model="m"))
    bench.push_all("a")
    bench.stop()
    assert shown(bench.log) == ["StreamStarted", "a", "StreamCompleted"]
    first = next(iter(bench.log))
    assert (first.seq, first.stream_id) == (1, "s")
