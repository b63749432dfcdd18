"""The log: numbers, the one end, epochs, folding, and readers in other threads."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.folded import TextPile
from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.weights import cost_of
from penstock.errors import IncompleteStream, StreamCrashed
from penstock.events import (
    AnswerPart,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TokenEvent,
    ToolCall,
    ToolCallCompleted,
    ToolResult,
    Usage,
)
from tests.unit.flow.common import KEEP_ALL, KINDS, OUTCOME, TOOL_EVENTS, Writer, steps

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(KINDS), st.lists(st.text(max_size=3), min_size=1, max_size=4), st.integers(0, 2)),
        st.just("reset"),
        st.sampled_from(tuple(TOOL_EVENTS)),
    ),
    max_size=60,
)


# --- writing ---------------------------------------------------------------------------------------------------------


@given(EVENTS, st.sampled_from((0, 1, 500, 3000, KEEP_ALL)))
def test_every_event_has_the_next_number_and_the_whole_text_is_kept(events: list[Any], retain: int) -> None:
    writer = Writer(retain)
    log = writer.log
    for event in events:
        if isinstance(event, str):
            assert writer.reset() if event == "reset" else writer.tell(event)
        else:
            assert writer.add(*event[1], kind=event[0], dropped=event[2])
        assert [kept.seq for kept in log] == list(range(log.first_seq, log.last_seq + 1))
        assert log.kept_bytes <= retain
        for kind in KINDS:
            assert log.text(kind) == writer.texts[kind]
    assert log.last_seq == len(events)
    assert log.tokens == sum(len(event[1]) for event in events if not isinstance(event, str))
    assert log.complete(OUTCOME, 0, 5.0)
    terminal = log.terminal
    assert isinstance(terminal, StreamCompleted)
    assert (terminal.seq, log.get(terminal.seq)) == (len(events) + 1, terminal)
    assert {"text": terminal.text, "reasoning": terminal.reasoning, "refusal": terminal.refusal} == writer.texts


def test_an_event_with_any_other_number_is_a_mistake() -> None:
    writer = Writer()
    with pytest.raises(AssertionError):
        writer.log.append(writer.epoch, TokenEvent("s", 2, ("a",), "a", "text", 0.0, {}))


def test_nothing_follows_the_terminal_event() -> None:
    writer = Writer()
    writer.add("a")
    assert writer.complete()
    assert not writer.add("b")
    assert not writer.reset()
    assert not writer.complete()
    assert not writer.log.cancel("late", OUTCOME, 0, 0.0)
    assert [event.seq for event in writer.log] == [1, 2]


@pytest.mark.parametrize("round_", range(20))
def test_of_many_that_end_it_at_once_exactly_one_succeeds(round_: int) -> None:
    writer = Writer()
    log = writer.log
    barrier = threading.Barrier(6)
    won: list[int] = []

    def end(number: int) -> None:
        barrier.wait()
        ways = (
            lambda: log.complete(OUTCOME, 0, 0.0),
            lambda: log.fail(StreamCrashed("s", "x"), OUTCOME, 0, 0.0),
            lambda: log.cancel(None, OUTCOME, 0, 0.0, writer.epoch),
        )
        if ways[number % 3]():
            won.append(number)

    def write() -> None:
        barrier.wait()
        while writer.add("a"):
            pass

    threads = [threading.Thread(target=end, args=(number,)) for number in range(5)]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    events = list(log)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event for event in events if not isinstance(event, TokenEvent)] == [log.terminal]
    assert events[-1] is log.terminal


def test_a_new_epoch_shuts_out_whoever_wrote_before() -> None:
    writer = Writer()
    assert writer.add("a")
    old, writer.epoch = writer.epoch, writer.log.new_epoch()
    event = TokenEvent("s", 2, ("b",), "b", "text", 0.0, {})
    assert not writer.log.append(old, event)
    assert not writer.log.complete(OUTCOME, 0, 0.0, old)
    assert not writer.log.fail(StreamCrashed("s", "x"), OUTCOME, 0, 0.0, old)
    assert not writer.log.cancel(None, OUTCOME, 0, 0.0, old)
    assert writer.log.append(writer.epoch, event)
    assert writer.log.complete(OUTCOME, 0, 0.0)  # without an epoch: the first call


def test_the_terminal_event_tells_what_the_provider_said_and_how_many_were_dropped() -> None:
    writer = Writer()
    writer.add("a", kind="reasoning")
    outcome = OUTCOME.__class__(finish_reason="length", raw_finish_reason="max", usage=Usage(input_tokens=0), model="m")
    assert writer.log.complete(outcome, 3, 7.0)
    assert writer.log.terminal == StreamCompleted(
        stream_id="s", seq=2, text="", reasoning="a",
        parts=(AnswerPart(index=0, kind="reasoning", start=0, end=1),), finish_reason="length", raw_finish_reason="max",
        usage=Usage(input_tokens=0), model="m", timestamp=7.0, metadata={"user": 1}, dropped=3,
    )  # fmt: skip


def test_a_failure_and_a_cancellation_keep_the_text_so_far() -> None:
    for end, kind in (("fail", StreamFailed), ("cancel", StreamCancelled)):
        writer = Writer()
        writer.add("so ", "far")
        if end == "fail":
            writer.log.fail(StreamCrashed("s", "x"), OUTCOME, 0, 0.0)
        else:
            writer.log.cancel("enough", OUTCOME, 0, 0.0)
        terminal = writer.log.terminal
        assert isinstance(terminal, kind)
        assert (terminal.partial, terminal.text) == ("so far", "so far")


def test_a_providers_error_carries_the_text_that_came_before() -> None:
    writer = Writer()
    writer.add("so far")
    error = IncompleteStream("cut")
    writer.log.fail(error, OUTCOME, 0, 0.0)
    assert error.partial == "so far"
    assert "so far" not in str(error)


# --- folding ---------------------------------------------------------------------------------------------------------


def test_what_is_folded_is_found_in_the_snapshot() -> None:
    writer = Writer(retain_bytes=1000)
    assert writer.log.snapshot() is None
    for number in range(50):
        writer.add(str(number), kind=KINDS[number % 3], dropped=1)
    log = writer.log
    snapshot = log.snapshot()
    assert snapshot is not None
    assert snapshot.seq == log.first_seq - 1 > 0
    rest = list(log)
    for kind, text in (("text", snapshot.text), ("reasoning", snapshot.reasoning), ("refusal", snapshot.refusal)):
        kept = "".join(event.text for event in rest if isinstance(event, TokenEvent) and event.kind == kind)
        assert text + kept == writer.texts[kind]
    assert (snapshot.tokens, snapshot.metadata) == ((snapshot.text,), {"user": 1})
    assert (snapshot.timestamp, snapshot.dropped) == (float(snapshot.seq), snapshot.seq)


def test_with_nothing_kept_a_snapshot_still_says_when() -> None:
    writer = Writer(retain_bytes=0)
    writer.add("a")
    snapshot = writer.log.snapshot()
    assert snapshot is not None
    assert (snapshot.seq, snapshot.text, snapshot.timestamp, list(writer.log)) == (1, "a", 1.0, [])


def test_folding_a_reset_voids_what_was_before_it() -> None:
    writer = Writer(retain_bytes=0)
    writer.add("old")
    writer.reset()
    writer.add("new")
    snapshot = writer.log.snapshot()
    assert snapshot is not None
    assert (snapshot.seq, snapshot.text, writer.log.text()) == (3, "new", "new")
    writer.reset()
    assert writer.log.text() == ""


def test_less_is_kept_as_soon_as_less_may_be() -> None:
    writer = Writer()
    for _ in range(50):
        writer.add("x")
    writer.log.retain_bytes = 500
    assert writer.log.retain_bytes == 500
    writer.add("x")
    assert writer.log.kept_bytes <= 500
    assert writer.log.text() == 51 * "x"


def test_folding_frees_a_quarter_of_the_bound_and_no_more() -> None:
    writer = Writer(retain_bytes=10_000)
    log, before, folds = writer.log, 0, 0
    event = cost_of(TokenEvent("s", 1, ("x",), "x", "text", 0.0, {}, 0))
    for _ in range(300):
        writer.add("x")
        if log.kept_bytes < before:
            assert 7_500 - event < log.kept_bytes <= 7_500
            assert before > 10_000 - event
            folds += 1
        before = log.kept_bytes
    assert folds > 10


def test_what_is_asked_for_in_vain_is_none() -> None:
    writer = Writer(retain_bytes=500)
    for _ in range(10):
        writer.add("x")
    log = writer.log
    assert log.get(0) is log.get(-1) is log.get(1) is log.get(11) is None
    first = log.get(log.first_seq)
    assert first is not None
    assert first.seq == log.first_seq


def test_counts_are_known_up_to_any_number_that_is_kept() -> None:
    writer = Writer(retain_bytes=1000)
    for _ in range(20):
        writer.add("a", "b", dropped=1)
    log = writer.log
    for seq in range(log.first_seq - 1, log.last_seq + 1):
        assert log.counts_until(seq) == (2 * seq, seq)
    assert log.counts_until(log.first_seq - 2) is None
    assert log.folded_counts(log.last_seq) == (log.first_seq - 1, 2 * (log.first_seq - 1), log.first_seq - 1)


@given(st.lists(st.text(max_size=4)), st.integers(0, 50))
def test_a_pile_gives_its_text_from_any_place(parts: list[str], offset: int) -> None:
    pile = TextPile()
    for part in parts:
        pile.add(part)
    whole = "".join(parts)
    assert (pile.length, pile.read(), pile.read(offset)) == (len(whole), whole, whole[offset:])


def test_a_pile_joins_small_parts_so_that_they_do_not_pile_up() -> None:
    pile = TextPile()
    whole = "".join(f"{number}," for number in range(20_000))
    for number in range(20_000):
        pile.add(f"{number},")
    assert len(pile._parts) < 1000
    for offset in (0, 1, 255, 256, 4095, 4096, 4097, 77_777, len(whole) - 1, len(whole)):
        assert pile.read(offset) == whole[offset:]


@pytest.mark.parametrize("retain", [0, 2000, 20_000, KEEP_ALL])
def test_writing_costs_the_same_for_every_event_however_long_the_stream(retain: int) -> None:
    def work(count: int) -> None:
        writer = Writer(retain)
        writer.texts = {"text": ""}
        for _ in range(count):
            writer.add("x")

    assert steps(lambda: work(4000)) < 5 * steps(lambda: work(1000))


# --- readers in other threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [0, 3000, 30_000])
def test_it_can_be_read_while_another_thread_writes_and_folds(retain: int, restless: None) -> None:
    writer = Writer(retain)
    log = writer.log
    mistakes: list[object] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            last = log.last_seq
            event = log.get(last)
            if event is not None and event.seq != last:
                mistakes.append(event)
            if event is None and last and log.first_seq <= last:
                mistakes.append(last)
            numbers = [event.seq for event in log]
            if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                mistakes.append(numbers)
            snapshot = log.snapshot()
            if snapshot is not None and snapshot.text != "".join(chr(48 + n % 70) for n in range(snapshot.seq)):
                mistakes.append(snapshot)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1500):
            assert writer.add(chr(48 + number % 70))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert mistakes == []


def test_a_log_is_made_without_an_end() -> None:
    log = StreamLog("s", {}, 10)
    assert (log.last_seq, log.first_seq, log.terminal, list(log), log.text()) == (0, 1, None, [], "")
    assert not isinstance(log.terminal, StreamReset)


@pytest.mark.parametrize("what", ["reset", "completed", "result"])
def test_the_counts_of_folded_events_are_not_given_past_a_reset_or_a_kept_tool_event(what: str) -> None:
    writer = Writer(0)
    writer.add("a")
    if what == "reset":
        writer.reset()
    else:
        writer.tell(what)
    writer.add("b", "c", dropped=1)
    writer.add("d")
    log = writer.log
    assert log.first_seq == 5
    assert [log.folded_counts(seq) for seq in (0, 1)] == [None, None]
    assert log.folded_counts(2) == (4, 4, 1)


@pytest.mark.parametrize(
    "event",
    [
        ToolResult(call_id="c", name="f", content="x" * 1000),
        ToolCallCompleted(index=0, call=ToolCall(id="c", name="f", arguments={}, arguments_raw="x" * 1000)),
    ],
)
def test_long_tool_events_are_folded_at_the_bound(event: ToolResult | ToolCallCompleted) -> None:
    log = StreamLog("s", {}, 10_000)
    epoch = log.new_epoch()
    for seq in range(1, 51):
        assert log.append(epoch, msgspec.structs.replace(event, seq=seq))
        assert 0 < log.kept_bytes <= 10_000
    assert log.first_seq > 40


def test_a_log_is_open_for_the_present_writer_until_it_has_ended() -> None:
    writer = Writer()
    old = writer.epoch
    new = writer.log.new_epoch()
    assert [writer.log.is_open(epoch) for epoch in (None, old, new)] == [True, False, True]
    writer.complete()
    assert [writer.log.is_open(epoch) for epoch in (None, old, new)] == [False, False, False]
