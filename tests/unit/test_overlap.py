"""What a stored log has of an answer, and what is left of the answer when it comes again: cut anywhere, read anyhow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from penstock.actors.call.overlap import Overlap
from penstock.actors.stream.buffer import PartStart
from penstock.events import (
    Citation,
    Event,
    LoopDetected,
    Progress,
    StreamReset,
    TokenEvent,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolProgress,
    freeze,
)

CALL = ToolCall(id="c1", name="f", arguments=freeze({"x": [1, 2]}), arguments_raw='{"x": [1, 2]}')
CITED = Citation(kind="url", url="https://a.example/", start=0, end=3, part=1)
ITEMS: list[Any] = [
    ("Hm. ", "reasoning"),
    ("So.", "reasoning"),
    ("One ", "text"),
    ("and two", "text"),
    PartStart(1, "final_answer"),
    ("three 😀", "text"),
    CITED,
    (" four", "text"),
    ("No.", "refusal"),
    ToolCallStarted(id="c1", name="f", index=0),
    ToolCallDelta(index=0, text='{"x": '),
    ToolCallDelta(index=0, text="[1, 2]}"),
    ToolCallStarted(id="c2", name="f", index=1),
    ToolCallDelta(index=1, text="{}"),
    ToolCallCompleted(index=0, call=CALL),
]


def token(text: str, kind: Any = "text", **more: Any) -> TokenEvent:
    return TokenEvent("s", 1, (text,), text, kind, 1.0, {}, **more)


def logged(items: Sequence[Any]) -> list[Event]:
    """The events that a stream makes of the items."""
    events: list[Event] = []
    part: PartStart = PartStart(0)
    for item in items:
        if isinstance(item, PartStart):
            part = item
        elif isinstance(item, tuple):
            events.append(token(*item, part=part.part, phase=part.phase))
        else:
            events.append(msgspec.structs.replace(item, stream_id="s", seq=7, timestamp=2.0, metadata={"who": "me"}))
    return events


def joined(events: Sequence[Event]) -> list[Any]:
    """What events say, wherever texts are divided."""
    said: list[Any] = []
    for event in events:
        if isinstance(event, TokenEvent):
            place: Any = (event.kind, event.part, event.phase)
        elif isinstance(event, ToolCallDelta):
            place = event.index
        else:
            said.append(event)
            continue
        if said and isinstance(said[-1], list) and said[-1][0] == place:
            said[-1][1] += event.text
        else:
            said.append([place, event.text])
    return said


def divided(items: Sequence[Any], chance: random.Random, odds: float) -> list[Any]:
    """The same items, with texts divided here and there."""
    pieces: list[Any] = []
    for item in items:
        text = item[0] if item.__class__ is tuple else item.text if isinstance(item, ToolCallDelta) else ""
        if len(text) > 1 and chance.random() < odds:
            at = chance.randrange(1, len(text))
            for piece in (text[:at], text[at:]):
                is_token = item.__class__ is tuple
                pieces.append((piece, item[1]) if is_token else msgspec.structs.replace(item, text=piece))
        else:
            pieces.append(item)
    return pieces


@pytest.mark.parametrize("odds", [0.0, 0.5, 1.0])
def test_log_and_rest_are_the_answer_wherever_the_log_ends_and_however_it_is_read(odds: float) -> None:
    chance = random.Random(int(odds * 10))
    whole = joined(logged(ITEMS))
    for _ in range(300):
        stored = divided(ITEMS, chance, odds)
        stored = stored[: chance.randrange(len(stored) + 1)]
        overlap = Overlap.of(logged(stored))
        assert overlap is not None
        rest: list[Any] = []
        coming = divided(ITEMS, chance, odds)
        while coming:
            count = chance.randrange(1, 5)
            some, coming = coming[:count], coming[count:]
            left = overlap.skip(some)
            assert left is not None
            rest += left
        assert overlap.is_passed
        # What takes the answer up begins in part 0, unless it is told another.
        follows = [*stored, *rest] if rest and isinstance(rest[0], PartStart) else [*stored, PartStart(0), *rest]
        assert joined(logged(follows)) == whole


def test_the_length_is_that_of_the_text_and_a_copy_begins_anew() -> None:
    overlap = Overlap.of(logged(ITEMS))
    assert overlap is not None
    assert overlap.text_length == len("One and twothree 😀 four")
    assert not overlap.is_empty
    assert overlap.skip(ITEMS) == [PartStart(1, "final_answer")]
    assert overlap.is_passed
    again = overlap.copy()
    assert not again.is_passed
    assert again.skip(ITEMS) == [PartStart(1, "final_answer")]


@pytest.mark.parametrize(
    "coming",
    [
        [("One!", "text")],
        [("One", "reasoning")],
        [PartStart(1), ("One", "text")],
        [CITED],
        [("One tw", "text"), ToolCallDelta(index=0, text="x")],
        [("One two", "text"), msgspec.structs.replace(CITED, end=4)],
        [("One twoo", "text")],
        [("One two", "text"), CITED, ("three", "text")],
        [("One two", "text"), CITED, ToolCallDelta(index=1, text="a")],
        [("One two", "text"), CITED, ToolCallDelta(index=0, text="b")],
    ],
)
def test_what_differs_in_anything_is_another_answer(coming: list[Any]) -> None:
    overlap = Overlap.of(logged([("One two", "text"), CITED, ToolCallDelta(index=0, text="a")]))
    assert overlap is not None
    assert overlap.skip(coming) is None


def test_nothing_in_the_log_leaves_everything() -> None:
    overlap = Overlap.of([])
    assert overlap is not None
    assert (overlap.is_empty, overlap.is_passed, overlap.skip(ITEMS)) == (True, True, ITEMS)


def test_only_what_came_since_the_last_reset_counts_and_notices_do_not() -> None:
    reset = StreamReset("s", 2, "why", 1.0, {})
    notices: list[Event] = [Progress(message="on it"), LoopDetected(kind="text", period=1, repeats=9, start=0)]
    overlap = Overlap.of([token("void", dropped=3), reset, notices[0], token("One"), notices[1], token(" two")])
    assert overlap is not None
    assert overlap.skip([("One two three", "text")]) == [(" three", "text")]


@pytest.mark.parametrize(
    "event",
    [
        token("x", dropped=1),
        token("x", origin="a"),
        StreamReset("s", 2, "why", 1.0, {}, "a"),
        ToolProgress(call_id="c", name="f", progress=1),
        ToolCallDelta(index=0, text="x", origin="a"),
        msgspec.structs.replace(CITED, origin="a"),
    ],
)
def test_a_log_of_anything_else_than_one_whole_answer_cannot_be_compared(event: Event) -> None:
    assert Overlap.of([token("One"), event]) is None
