"""What is left of the events of a log that were folded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.folded import TextPile
from penstock.actors.stream.log import StreamLog
from penstock.events import (
    AnswerPart,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    StreamSnapshot,
    TokenEvent,
    TokenLogprob,
)
from tests.unit.flow.common import KEEP_ALL, OUTCOME, Writer


def probable(token: str) -> Logprobs:
    return Logprobs(tokens=(TokenLogprob(token=token, logprob=-1.0),))


def ended(log: StreamLog) -> tuple[str, ...]:
    """The tokens with probabilities that the terminal event repeats."""
    assert log.complete(OUTCOME, 0, 9.0)
    assert log.terminal is not None
    return tuple(one.token for one in log.terminal.logprobs)


@given(st.lists(st.text(max_size=4)), st.integers(0, 50), st.integers(0, 50))
def test_a_pile_gives_its_text_between_any_two_places(parts: list[str], offset: int, length: int) -> None:
    pile = TextPile()
    for part in parts:
        pile.add(part)
    assert pile.read(offset, offset + length) == "".join(parts)[offset : offset + length]


def test_a_pile_gives_its_text_between_all_places() -> None:
    pile, whole = TextPile(), "abcdefghij"
    for start, end in ((0, 2), (2, 5), (5, 5), (5, 6), (6, 10)):
        pile.add(whole[start:end])
    places = range(len(whole) + 2)
    assert all(pile.read(start, end) == whole[start:end] for start in places for end in places)


def test_a_long_part_of_a_pile_is_not_copied_again_and_again() -> None:
    pile = TextPile()
    for _ in range(20_000):
        pile.add("12345")
    assert max(len(part) for part in pile._parts) < 4096 + 256 * 5


@pytest.mark.parametrize("retain", [0, 1500, KEEP_ALL])
def test_probabilities_are_repeated_at_the_end_whether_or_not_they_were_folded(retain: int) -> None:
    writer = Writer(retain)
    for number in range(20):
        writer.put(probable(str(number)))
    assert ended(writer.log) == tuple(str(number) for number in range(20))


@pytest.mark.parametrize("retain", [0, 1500, KEEP_ALL])
def test_a_reset_voids_the_probabilities_and_the_parts_before_it(retain: int) -> None:
    writer = Writer(retain)
    for part in range(3):
        writer.put(probable("void"))
        writer.say("void", part)
    writer.reset()
    writer.put(probable("new"))
    writer.say("new", 0)
    for _ in range(20):
        writer.put(MediaPart(kind="image", data="x" * 100, is_partial=True))
    assert ended(writer.log) == ("new",)
    assert writer.log.terminal is not None
    assert writer.log.terminal.parts == (AnswerPart(index=0, kind="text", start=0, end=3),)
    snapshot = writer.log.snapshot()
    assert snapshot is None or snapshot.parts == writer.log.terminal.parts


def test_a_snapshot_has_the_parts_with_their_phases_and_the_events_of_the_answer() -> None:
    writer = Writer(0)
    writer.say("hm", 0, "reasoning")
    writer.say("first ", 0, phase="commentary")
    writer.put(Citation(kind="url", url="u"))
    writer.put(MediaPart(kind="image", data="preview", is_partial=True))
    writer.put(MediaPart(kind="image", data="picture"))
    writer.say("last", 1, phase="final_answer")
    snapshot = writer.log.snapshot()
    assert snapshot is not None
    assert [(part.kind, part.index, part.start, part.end, part.phase) for part in snapshot.parts] == [
        ("reasoning", 0, 0, 2, None),
        ("text", 0, 0, 6, "commentary"),
        ("text", 1, 6, 10, "final_answer"),
    ]
    assert [type(event).__name__ for event in snapshot.answer_events] == ["Citation", "MediaPart"]
    assert snapshot.timestamp == 6.0


def test_a_reader_from_the_start_is_given_folded_text_with_parts_and_times() -> None:
    writer = Writer(0)
    cursor = Cursor(writer.log, 0, "block", 10)
    writer.say("first ", 0, phase="commentary")
    assert cursor.take() is not None
    writer.say("and ", 0, phase="commentary")
    writer.say("hm", 1, "reasoning")
    writer.say("second ", 1)
    writer.put(Citation(kind="url", url="u"))
    writer.say("last", 1)
    writer.say("refused", 1, "refusal")
    events: list[Event] = []
    while (event := cursor.take()) is not None:
        events.append(event)
    assert not any(isinstance(event, StreamSnapshot) for event in events)
    assert [
        (event.text, event.kind, event.part, event.phase, event.timestamp)
        for event in events
        if isinstance(event, TokenEvent)
    ] == [
        ("and ", "text", 0, "commentary", 5.0),
        ("hm", "reasoning", 1, None, 5.0),
        ("second ", "text", 1, None, 5.0),
        ("last", "text", 1, None, 7.0),
        ("refused", "refusal", 1, None, 7.0),
    ]
    assert [event.seq for event in events] == [2, 3, 4, 5, 6, 7]
    assert {(event.stream_id, event.metadata["user"]) for event in events} == {("s", 1)}


def test_a_passing_event_leaves_nothing_where_it_was_folded() -> None:
    writer = Writer(0)
    cursor = Cursor(writer.log, 0, "block", 10)
    for text in ("a", "b", "c"):
        writer.say(text, 0)
        writer.tell("delta")
        writer.put(MediaPart(kind="image", data="preview", is_partial=True))
    event = cursor.take()
    assert isinstance(event, TokenEvent)
    assert (event.text, event.seq) == ("abc", writer.log.last_seq)
    assert cursor.take() is None


def test_the_counts_of_folded_text_are_given_to_a_reader_at_the_very_start() -> None:
    writer = Writer(0)
    for _ in range(3):
        writer.add("a", "b", dropped=1)
    assert writer.log.folded_counts(0) == (3, 6, 3)
