"""Cursors: whatever the policy, and however a log is folded under them, what they give adds up."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.log import StreamLog
from penstock.config.options import Slow
from penstock.errors import SubscriberTooSlow
from penstock.events import Event, StreamCompleted, StreamReset, StreamSnapshot, TokenEvent, ToolCallDelta
from tests.unit.flow.common import CALL, KEEP_ALL, KINDS, TOOL_EVENTS, Reader, Writer, steps

POLICIES: tuple[Slow, ...] = ("block", "coalesce", "drop", "disconnect")
RETAIN = st.sampled_from((0, 1, 400, 900, 3000, KEEP_ALL))
WRITE: st.SearchStrategy[Any] = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from(("text", "text", "text", "reasoning", "refusal")),
        st.lists(st.text("abc", max_size=2), min_size=1, max_size=3),
        st.sampled_from((0, 0, 0, 2)),
    ),
    st.tuples(st.sampled_from(("add", "add", "add", "reset")), st.just("text"), st.just(["x"]), st.just(0)),
    st.tuples(st.just("tell"), st.sampled_from(tuple(TOOL_EVENTS)), st.just([]), st.just(0)),
)
STEPS = st.lists(st.one_of(WRITE, WRITE, st.tuples(st.just("take"), st.integers(1, 5))), max_size=80)


def written(count: int, retain: int = KEEP_ALL) -> Writer:
    writer = Writer(retain)
    for number in range(1, count + 1):
        writer.add(f"{number},")
    return writer


def take_all(cursor: Cursor) -> list[Event]:
    events = []
    while (event := cursor.take()) is not None:
        events.append(event)
    return events


def numbers(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


def perform(writer: Writer, step: Any) -> None:
    name, kind, tokens, dropped = step
    if name == "reset":
        writer.reset()
    elif name == "tell":
        writer.tell(kind)
    else:
        writer.add(*tokens, kind=kind, dropped=dropped)


# --- what adds up -----------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(RETAIN, st.sampled_from(("block", "coalesce")), st.integers(1, 4), STEPS)
def test_whatever_happens_in_between_nothing_is_lost_or_doubled(
    retain: int, slow: Slow, window: int, steps: list[Any]
) -> None:
    writer, reader = Writer(retain), Reader()
    cursor = Cursor(writer.log, 0, slow, window)
    for step in steps:
        if step[0] == "take":
            for _ in range(step[1]):
                event = cursor.take()
                if event is not None:
                    reader.read(event)
                    assert cursor.seq == event.seq
        else:
            perform(writer, step)
    writer.complete(dropped=1)
    for event in take_all(cursor):
        reader.read(event)
    assert reader.texts == writer.texts
    assert (reader.calls, reader.results) == (writer.calls, writer.results)
    assert not reader.knows_story or "".join(reader.story) == "".join(writer.story)
    assert reader.dropped == writer.dropped
    assert cursor.pending == cursor.dropped == 0
    assert isinstance(reader.events[-1], StreamCompleted)
    assert cursor.is_at_end
    assert Cursor(writer.log, reader.seq, slow, window).is_at_end
    assert not Cursor(writer.log, reader.seq - 1, slow, window).is_at_end


@settings(max_examples=300)
@given(RETAIN, st.sampled_from(POLICIES), st.integers(1, 4), STEPS, st.data())
def test_who_breaks_off_and_resumes_after_its_last_event_has_the_exact_text(
    retain: int, slow: Slow, window: int, steps: list[Any], data: st.DataObject
) -> None:
    writer, reader = Writer(retain), Reader()
    policy: Slow = "coalesce" if slow in ("drop", "disconnect") else slow
    cursor = Cursor(writer.log, 0, policy, window)
    for step in steps:
        if step[0] != "take":
            perform(writer, step)
            continue
        for _ in range(step[1]):
            event = cursor.take()
            if event is not None:
                reader.read(event)
        if data.draw(st.booleans()):
            cursor = Cursor(writer.log, reader.seq, policy, window)
    writer.complete()
    for event in take_all(cursor):
        reader.read(event)
    assert reader.texts == writer.texts
    assert (reader.calls, reader.results) == (writer.calls, writer.results)


@settings(max_examples=300)
@given(RETAIN, st.integers(1, 4), STEPS)
def test_one_that_drops_accounts_for_every_token(retain: int, window: int, steps: list[Any]) -> None:
    writer, reader = Writer(retain), Reader()
    cursor = Cursor(writer.log, 0, "drop", window)
    given_ = 0
    told = 0
    exact = True  # there was no snapshot, which replaces what came before

    def read(event: Event) -> None:
        nonlocal given_, told, exact
        reader.read(event)
        if isinstance(event, StreamSnapshot):
            exact = False
        elif isinstance(event, TokenEvent):
            given_ += len(event.text)  # a token is a character here, so that those in folded text can be counted
            told += event.dropped
        elif isinstance(event, StreamCompleted):
            told += event.dropped

    for step in steps:
        if step[0] == "take":
            for _ in range(step[1]):
                was_slow, before = cursor.is_slow, cursor.dropped
                event = cursor.take()
                if event is not None:
                    read(event)
                if retain == KEEP_ALL and was_slow and isinstance(event, TokenEvent):
                    assert cursor.pending == window - 1, "it drops as many as are too many, and no more"
                assert was_slow or cursor.dropped == before, "it drops only when it is slow"
        else:
            name, kind, tokens, dropped = step
            perform(writer, (name, kind, ["x"] * len(tokens), dropped))
    writer.complete()
    for event in take_all(cursor):
        read(event)
    if exact:
        assert given_ + cursor.dropped == writer.log.tokens
        assert told == cursor.dropped + writer.dropped
    if not cursor.dropped:  # then it has the exact text, however it came
        assert reader.texts == writer.texts
    assert retain != KEEP_ALL or exact
    resets = [event for event in writer.log if isinstance(event, StreamReset)]
    if retain == KEEP_ALL:
        assert [event for event in reader.events if isinstance(event, StreamReset)] == resets
        assert (reader.calls, reader.results) == (writer.calls, writer.results)
    assert reader.events[-1].seq == writer.log.last_seq


# --- policies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", POLICIES)
def test_history_is_given_event_by_event_whatever_the_policy(slow: Slow) -> None:
    writer = written(20)
    cursor = Cursor(writer.log, 0, slow, 2)
    assert not cursor.is_slow
    assert take_all(cursor) == list(writer.log)


@pytest.mark.parametrize("slow", ["coalesce", "drop", "block"])
def test_history_stays_exact_while_new_events_pile_up_behind_it(slow: Slow) -> None:
    writer = written(10)
    cursor = Cursor(writer.log, 0, slow, 2)
    cursor.take()
    for _ in range(10):
        writer.add("new")
    history = [cursor.take() for _ in range(9)]
    assert history == [writer.log.get(seq) for seq in range(2, 11)]
    assert cursor.dropped == cursor.coalesced == 0


def test_it_is_slow_when_more_new_events_wait_than_its_window() -> None:
    writer = written(10)
    cursor = Cursor(writer.log, 0, "block", 2)
    for _ in range(2):
        writer.add("new")
    assert not cursor.is_slow
    writer.add("new")
    assert cursor.is_slow
    for _ in range(11):
        cursor.take()
    assert not cursor.is_slow


def test_block_gives_every_event_by_itself_however_many_wait() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "block", 1)
    for _ in range(30):
        writer.add("x")
    assert take_all(cursor) == list(writer.log)


def test_coalesce_merges_what_waits_into_one_event_with_the_last_number() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 2)
    for number in range(5):
        writer.add(str(number), ".", dropped=number)
    event = cursor.take()
    assert isinstance(event, TokenEvent)
    assert (event.seq, event.text, event.tokens) == (5, "0.1.2.3.4.", tuple("0.1.2.3.4."))
    assert (event.dropped, event.timestamp, event.kind, event.metadata) == (10, 5.0, "text", {"user": 1})
    assert (cursor.coalesced, cursor.take()) == (4, None)


def test_coalesce_never_merges_over_a_change_of_kind_or_a_reset() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 1)
    for kind in ("reasoning", "reasoning", "text", "text"):
        writer.add("a", kind=kind)
    writer.reset()
    writer.add("b")
    writer.add("c")
    writer.complete()
    events = take_all(cursor)
    assert numbers(events) == [2, 4, 5, 7, 8]
    assert [event.text for event in events if isinstance(event, TokenEvent)] == ["aa", "aa", "bc"]


def test_within_its_window_coalesce_merges_nothing() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 3)
    for _ in range(3):
        writer.add("x")
    assert numbers(take_all(cursor)) == [1, 2, 3]


def test_drop_keeps_the_newest_and_tells_how_many_tokens_were_lost() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "drop", 2)
    for number in range(5):
        writer.add(str(number), ".", dropped=1)
    events = take_all(cursor)
    assert [(event.seq, event.text, event.dropped) for event in events if isinstance(event, TokenEvent)] == [
        (4, "3.", 6 + 3 + 1),
        (5, "4.", 1),
    ]
    assert cursor.dropped == 6


def test_what_drop_lost_before_the_end_is_told_by_the_terminal_event() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "drop", 1)
    for _ in range(3):
        writer.add("x")
    writer.complete(dropped=2)
    (end,) = take_all(cursor)
    assert isinstance(end, StreamCompleted)
    assert (end.dropped, end.text, cursor.dropped) == (5, "xxx", 3)


def test_drop_never_drops_a_reset() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "drop", 1)
    writer.add("a")
    writer.reset()
    for _ in range(3):
        writer.add("b")
    events = take_all(cursor)
    assert numbers(events) == [2, 5]
    last = events[-1]
    assert isinstance(last, TokenEvent)
    assert last.dropped == 3


def test_coalesce_joins_the_pieces_of_one_call_and_merges_nothing_over_a_tool_event() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 1)
    for name in ("started", "delta", "delta", "delta", "completed"):
        writer.add("a")
        writer.add("b")
        writer.tell(name)
    for index in (0, 0, 1, 1):
        event = ToolCallDelta(index=index, text=str(writer.log.last_seq + 1), seq=writer.log.last_seq + 1)
        writer.log.append(writer.epoch, event)
    for _ in range(3):
        writer.tell("result")
    events = take_all(cursor)
    assert numbers(events) == [2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 19, 20, 21, 22]
    pieces = [(event.index, event.text) for event in events if isinstance(event, ToolCallDelta)]
    assert pieces == [(0, "x"), (0, "x"), (0, "x"), (0, "1617"), (1, "1819")]
    assert cursor.coalesced == 7


def test_drop_drops_pieces_of_arguments_uncounted_and_no_other_tool_event() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "drop", 1)
    writer.add("a", "b")
    for name in ("started", "delta", "delta", "completed", "delta", "progress", "result", "result"):
        writer.tell(name)
    events = take_all(cursor)
    assert numbers(events) == [2, 5, 7, 8, 9]
    assert cursor.dropped == 2
    writer.add("c")
    (event,) = take_all(cursor)
    assert isinstance(event, TokenEvent)
    assert event.dropped == 2


def test_tool_events_that_were_folded_unread_come_in_their_place_in_the_text() -> None:
    writer = Writer(retain_bytes=0)
    cursor = Cursor(writer.log, 0, "block", 1)
    writer.add("a")
    cursor.take()
    for name in TOOL_EVENTS:
        writer.add("b", kind="reasoning")
        writer.add("c")
        writer.add("d")
        writer.tell(name)
    reader = Reader()
    for event in take_all(cursor):
        reader.read(event)
    # `delta` and `progress` have vanished, and what was around them is one.
    assert reader.story == ["cd", "[ToolCallStarted]", "cdcdcd", "[ToolCallCompleted]", "cd", "[ToolResult]"]
    assert numbers(reader.events) == [3, 4, 5, 15, 16, 17, 19, 20, 21]
    assert reader.texts == writer.texts | {"text": "cd" * 5}


def test_the_snapshot_has_the_calls_that_are_complete_and_the_results_since_the_last_reset() -> None:
    writer = Writer(retain_bytes=0)
    for name in ("started", "completed", "result"):
        writer.tell(name)
    writer.reset()
    for name in ("started", "delta", "completed", "completed", "result", "delta"):
        writer.tell(name)
    snapshot = writer.log.snapshot()
    assert snapshot is not None
    assert (snapshot.seq, snapshot.tool_calls, len(snapshot.tool_results)) == (10, (CALL, CALL), 1)
    assert take_all(Cursor(writer.log, 5, "block", 1)) == [snapshot]


def test_drop_counts_what_was_folded_away_under_it() -> None:
    writer = Writer(retain_bytes=1000)
    cursor = Cursor(writer.log, 0, "drop", 2)
    writer.add("first")
    cursor.take()
    for _ in range(40):
        writer.add("a", "b", dropped=1)
    events = [event for event in take_all(cursor) if isinstance(event, TokenEvent)]
    assert numbers(list(events)) == [40, 41]
    assert not any(isinstance(event, StreamSnapshot) for event in events)
    assert cursor.dropped == 2 * 38
    assert events[0].dropped == 2 * 38 + 38 + 1


def test_disconnect_raises_when_more_wait_than_the_window() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "disconnect", 2)
    for _ in range(3):
        writer.add("x")
    with pytest.raises(SubscriberTooSlow, match="more than 2 events"):
        cursor.take()
    assert cursor.seq == 0


# --- places ---------------------------------------------------------------------------------------------------------


def test_it_starts_behind_the_number_it_is_given() -> None:
    writer = written(5)
    assert numbers(take_all(Cursor(writer.log, 3, "block", 1))) == [4, 5]
    beyond = Cursor(writer.log, 99, "block", 1)
    assert (beyond.seq, beyond.take()) == (5, None)
    writer.add("x")
    assert numbers(take_all(beyond)) == [6]


def test_who_comes_when_the_start_is_folded_gets_a_snapshot_first() -> None:
    writer = written(60, retain=1000)
    reader = Reader()
    for event in take_all(Cursor(writer.log, 0, "block", 1)):
        reader.read(event)
    assert isinstance(reader.events[0], StreamSnapshot)
    assert reader.texts == writer.texts


def test_who_has_read_from_the_start_gets_just_the_rest_of_what_was_folded() -> None:
    writer = Writer(retain_bytes=1000)
    cursor = Cursor(writer.log, 0, "block", 1)
    writer.add("start ")
    cursor.take()
    for kind in KINDS * 30:
        writer.add(kind[0], kind=kind)
    events = take_all(cursor)
    assert not any(isinstance(event, StreamSnapshot) for event in events)
    assert [event.kind for event in events[:3] if isinstance(event, TokenEvent)] == ["reasoning", "text", "refusal"]
    assert numbers(events) == sorted(set(numbers(events)))


@pytest.mark.parametrize("slow", POLICIES)
@pytest.mark.parametrize("before", ["nothing", "reset", "text and reset"])
def test_who_was_there_at_the_start_and_has_read_nothing_gets_the_folded_events(slow: Slow, before: str) -> None:
    """Not a snapshot: it has nothing that a snapshot would replace."""
    writer, reader = Writer(), Reader()
    cursor = Cursor(writer.log, 0, slow, 100)
    if before != "nothing":
        if before == "text and reset":
            writer.add("void")
            reader.read(cursor.take())  # type: ignore[arg-type]
        writer.reset()
        reader.read(cursor.take())  # type: ignore[arg-type]
        assert isinstance(reader.events[-1], StreamReset)
    writer.log.retain_bytes = 1
    first = len(reader.events)
    writer.add("a", kind="reasoning")
    writer.add("b", "c")
    writer.tell("started")
    writer.tell("completed")
    writer.add("d")
    writer.tell("result")
    writer.add("e")
    assert writer.log.first_seq > writer.log.last_seq  # all are folded
    for event in take_all(cursor):
        reader.read(event)
    new = reader.events[first:]
    assert not any(isinstance(event, StreamSnapshot) for event in new)
    assert [getattr(event, "text", type(event).__name__) for event in new] == [
        "a", "bc", "ToolCallStarted", "ToolCallCompleted", "d", "ToolResult", "e",
    ]  # fmt: skip
    assert reader.texts == writer.texts
    assert reader.story == writer.story


def test_resumed_between_the_kinds_of_a_folded_rest_nothing_is_lost() -> None:
    writer = Writer(retain_bytes=0)
    cursor, reader = Cursor(writer.log, 0, "block", 1), Reader()
    writer.add("a")
    reader.read(cursor.take())  # type: ignore[arg-type]
    for kind in KINDS:
        writer.add("b", kind=kind)
    writer.add("b")
    reader.read(cursor.take())  # type: ignore[arg-type]
    for event in take_all(Cursor(writer.log, reader.seq, "block", 1)):
        reader.read(event)
    assert reader.texts == writer.texts


def test_a_reset_that_was_folded_away_unseen_brings_the_snapshot() -> None:
    writer = Writer(retain_bytes=0)
    cursor, reader = Cursor(writer.log, 0, "block", 1), Reader()
    writer.add("old")
    reader.read(cursor.take())  # type: ignore[arg-type]
    writer.reset()
    writer.add("new")
    reader.read(cursor.take())  # type: ignore[arg-type]
    assert isinstance(reader.events[-1], StreamSnapshot)
    assert reader.texts["text"] == "new"


def test_folded_tokens_without_text_are_no_event() -> None:
    writer = Writer(retain_bytes=0)
    cursor = Cursor(writer.log, 0, "block", 1)
    writer.add("a")
    cursor.take()
    writer.add("", "")
    assert (cursor.take(), cursor.pending) == (None, 0)


@pytest.mark.parametrize("slow", ["block", "coalesce", "drop"])
def test_reading_costs_the_same_for_every_event_also_always_behind_the_fold(slow: Slow) -> None:
    def work(count: int) -> None:
        writer = Writer(0)
        cursor = Cursor(writer.log, 0, slow, 1)
        for _ in range(count):
            for _ in range(3):
                writer.add("x")
            writer.tell("result")
            cursor.take()

    assert steps(lambda: work(1600)) < 5 * steps(lambda: work(400))


def test_a_reader_behind_the_fold_is_not_given_the_whole_text_again_and_again() -> None:
    writer = Writer(0)
    cursor = Cursor(writer.log, 0, "coalesce", 1)
    given_ = 0
    for _ in range(500):
        for kind in KINDS:
            writer.add("x", kind=kind)
        given_ += sum(len(event.text) for event in take_all(cursor) if isinstance(event, TokenEvent))
    assert given_ <= 1500 + 3


@pytest.mark.parametrize("slow", ["block", "coalesce"])
@pytest.mark.parametrize("retain", [0, 700, 5000])
def test_a_cursor_in_another_thread_misses_nothing(slow: Slow, retain: int, restless: None) -> None:
    writer, reader = Writer(retain), Reader()
    cursor = Cursor(writer.log, 0, slow, 3)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not isinstance(event := cursor.take(), StreamCompleted):
                if event is not None:
                    reader.read(event)
        except BaseException as error:
            failed.append(error)

    names = tuple(TOOL_EVENTS)
    thread = threading.Thread(target=read)
    thread.start()
    for number in range(3000):
        if number % 500 == 499:
            writer.reset()
        writer.add(f"{number},", kind=KINDS[number // 7 % 3])
        if number % 3 == 0:
            writer.tell(names[number % len(names)])
    writer.complete()
    thread.join()
    assert failed == []
    assert reader.texts == writer.texts
    assert (reader.calls, reader.results) == (writer.calls, writer.results)


def test_a_reader_that_drops_is_given_a_folded_reset_and_not_the_text_before_it() -> None:
    writer = Writer(0)
    cursor = Cursor(writer.log, 0, "drop", 1)
    reader = Reader()
    writer.add("void")
    while (event := cursor.take()) is not None:
        reader.read(event)
    writer.reset()
    for token in "abc":
        writer.add(token)
    for event in take_all(cursor):
        reader.read(event)
    assert reader.texts["text"] == "abc"
    assert cursor.dropped == 0


def test_a_reader_that_does_not_know_its_count_is_given_the_snapshot_and_drops_nothing() -> None:
    """The log is folded while the cursor is made."""

    class Busy(StreamLog):
        def counts_until(self, seq: int) -> tuple[int, int] | None:
            for token in "abcdef":
                writer.add(token)
            return super().counts_until(seq)

    writer = Writer(log=Busy("s", {}, 0))
    writer.add("before")
    cursor = Cursor(writer.log, 1, "drop", 2)
    assert writer.log.first_seq == 8
    (snapshot,) = take_all(cursor)
    assert isinstance(snapshot, StreamSnapshot)
    assert (snapshot.text, snapshot.dropped, cursor.dropped) == ("beforeabcdef", 0, 0)


def test_what_is_dropped_from_the_log_and_what_is_folded_are_counted_together() -> None:
    writer = Writer(6_000)
    cursor = Cursor(writer.log, 0, "drop", 1)
    reader = Reader()
    written = 0
    for count in (5, 200, 5, 200):
        for _ in range(count):
            writer.add("x", dropped=1)
        written += count
        events = take_all(cursor)
        assert not any(isinstance(event, StreamSnapshot) for event in events)
        for event in events:
            reader.read(event)
        got = len(reader.texts["text"])
        assert (cursor.dropped, got) == (written - got, got)
        assert reader.dropped == cursor.dropped + written
    assert got < 10
