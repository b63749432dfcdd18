"""Cursors of logs that are folded while the cursors are made and read, and what exactly they merge and count."""

from __future__ import annotations

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.log import StreamLog
from penstock.events import Event, Phase, StreamSnapshot, TokenEvent, ToolCallDelta
from tests.unit.flow.common import KEEP_ALL, Writer


def take_all(cursor: Cursor) -> list[Event]:
    events = []
    while (event := cursor.take()) is not None:
        events.append(event)
    return events


def test_a_reader_that_comes_when_the_first_event_is_folded_gets_a_snapshot() -> None:
    writer = Writer(0)
    writer.add("first")
    (event,) = take_all(Cursor(writer.log, 0, "block", 10))
    assert isinstance(event, StreamSnapshot)
    assert event.text == "first"


def test_a_reader_that_is_made_while_the_first_events_are_folded_hears_what_was_dropped() -> None:
    class Busy(StreamLog):
        @property
        def first_seq(self) -> int:
            first = super().first_seq
            for token in "abc":
                writer.add(token, dropped=1)
            return first

    writer = Writer(log=Busy("s", {}, 0))
    events = take_all(Cursor(writer.log, 0, "block", 10))
    assert [(event.text, event.dropped) for event in events if isinstance(event, TokenEvent)] == [("abc", 3)]


def test_an_event_is_given_as_it_is_in_the_log_and_not_as_a_copy() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 10)
    for token in "abc":
        writer.add(token)
    writer.complete()
    assert all(event is writer.log.get(event.seq) for event in take_all(cursor))


def test_coalesce_does_not_merge_two_parts_and_keeps_part_and_phase() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 1)
    phases: tuple[Phase, Phase] = ("commentary", "final_answer")
    for part in (0, 0, 1, 1):
        writer.say("a", part, phase=phases[part])
    writer.say("b", 0, "reasoning")
    events = [event for event in take_all(cursor) if isinstance(event, TokenEvent)]
    assert [(event.text, event.part, event.phase) for event in events] == [
        ("aa", 0, "commentary"),
        ("aa", 1, "final_answer"),
        ("b", 0, None),
    ]


def test_coalesce_does_not_merge_the_calls_of_two_inputs() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "coalesce", 1)
    for text, origin in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("e", None)):
        writer.put(ToolCallDelta(index=0, text=text, origin=origin))
    given = [(event.text, event.origin, event.seq) for event in take_all(cursor) if isinstance(event, ToolCallDelta)]
    assert given == [("ab", "x", 2), ("cd", "y", 4), ("e", None, 5)]


def test_tokens_that_were_read_are_not_counted_as_dropped_when_those_behind_them_are_folded() -> None:
    writer = Writer(1000)
    cursor = Cursor(writer.log, 0, "drop", 2)
    for _ in range(2):
        writer.add("a", "b", "c", dropped=1)
    assert len(take_all(cursor)) == 2
    for times in (1, 2, 3):
        for _ in range(40):
            writer.add("a", "b", "c", dropped=1)
        first, last = (event for event in take_all(cursor) if isinstance(event, TokenEvent))
        assert cursor.dropped == times * 3 * 38
        assert (first.dropped, last.dropped) == (3 * 38 + 39, 1)


def test_what_was_dropped_before_a_snapshot_is_not_told_after_it() -> None:
    writer = Writer()
    cursor = Cursor(writer.log, 0, "drop", 1)
    writer.add("a")
    writer.add("b")
    writer.tell("started")
    writer.add("c")
    started = cursor.take()
    assert started is writer.log.get(3)
    writer.log.retain_bytes = 0
    writer.reset()
    writer.add("d")
    assert isinstance(cursor.take(), StreamSnapshot)
    writer.log.retain_bytes = KEEP_ALL
    writer.add("e")
    event = cursor.take()
    assert isinstance(event, TokenEvent)
    assert (event.text, event.dropped, cursor.dropped) == ("e", 0, 2)
