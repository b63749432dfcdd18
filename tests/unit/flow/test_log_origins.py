"""A log of several origins: what it has of each, folded or not, and what a reset of one of them voids."""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.log import StreamLog
from penstock.config.options import Slow
from penstock.events import (
    AnswerPart,
    Citation,
    Event,
    LoopDetected,
    MediaPart,
    ServerToolCall,
    ServerToolResult,
    SideEvent,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolResult,
)
from tests.unit.flow.common import KEEP_ALL, KINDS, Writer

RETAIN: Final = (0, 700, 1500, KEEP_ALL)
SLOW: Final[tuple[Slow, ...]] = ("block", "coalesce")
ORIGINS = st.sampled_from((None, "a", "b"))
EVENTS: tuple[SideEvent, ...] = (
    Citation(kind="url", url="u"),
    MediaPart(kind="image", data="x"),
    MediaPart(kind="image", data="x", is_partial=True),
    ServerToolCall(id="s", name="n"),
    ServerToolResult(id="s", name="n", output="o"),
    ToolResult(call_id="c", name="f", content="42"),
    LoopDetected(kind="text", period=3, repeats=9, start=0),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), ORIGINS, st.sampled_from(KINDS), st.integers(0, 1)),
        st.tuples(st.just("say"), ORIGINS, st.just("text"), st.just(0)),
        st.tuples(st.just("put"), ORIGINS, st.integers(0, len(EVENTS) - 1)),
        st.tuples(st.just("reset"), ORIGINS),
        st.tuples(st.just("read"), st.integers(1, 4)),
        st.tuples(st.just("retain"), st.sampled_from((0, 700, KEEP_ALL))),
    ),
    max_size=25,
)


class Said(NamedTuple):
    origin: str | None
    kind: TokenKind
    part: int
    text: str


class Book:
    """What has been said and put, and is not void."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.put: list[Any] = []

    def reset(self, origin: str | None) -> None:
        self.said = [] if origin is None else [one for one in self.said if one.origin != origin]
        self.put = [] if origin is None else [one for one in self.put if one.origin != origin]

    def text(self, kind: TokenKind) -> str:
        return "".join(one.text for one in self.said if one.kind == kind)

    def texts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for origin, kind, _, text in self.said:
            if kind == "text" and origin is not None:
                found[origin] = found.get(origin, "") + text
        return found

    def parts(self) -> list[AnswerPart]:
        found: list[AnswerPart] = []
        for kind in KINDS:
            at, last = 0, None
            for one in self.said:
                if one.kind == kind:
                    if last is not None and (one.origin, one.part) == (last.origin, last.index):
                        found.pop()
                    start = at if last is None or (one.origin, one.part) != (last.origin, last.index) else last.start
                    at += len(one.text)
                    last = AnswerPart(index=one.part, kind=kind, start=start, end=at, origin=one.origin)
                    found.append(last)
        return found

    def of(self, *kinds: type) -> list[tuple[str, str | None]]:
        return named(one for one in self.put if isinstance(one, kinds))


class Page:
    """What a reader has, if it does with each event what the event says."""

    def __init__(self) -> None:
        self.said: list[tuple[str | None, str, str]] = []
        self.seq = 0

    def read(self, event: Event) -> None:
        assert event.seq > self.seq
        self.seq = event.seq
        if isinstance(event, StreamReset):
            self.said = [] if event.origin is None else [one for one in self.said if one[0] != event.origin]
        elif isinstance(event, StreamSnapshot):
            texts = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
            self.said = [(part.origin, part.kind, texts[part.kind][part.start : part.end]) for part in event.parts]
        elif isinstance(event, TokenEvent):
            self.said.append((event.origin, event.kind, event.text))

    def text(self, kind: TokenKind) -> str:
        return "".join(text for _, its_kind, text in self.said if its_kind == kind)

    def texts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for origin, kind, text in self.said:
            if kind == "text" and origin is not None:
                found[origin] = found.get(origin, "") + text
        return found


def play(steps: list[Any], writer: Writer, cursor: Cursor, page: Page) -> Book:
    """Write it and read it, and look at the text after each step."""
    book = Book()
    for number, (name, wish, *more) in enumerate(steps):
        match name:
            case "say":
                text = f"{number},"
                writer.say(text, more[1], more[0], origin=wish)
                book.said.append(Said(wish, more[0], more[1], text))
            case "put":
                side = msgspec.structs.replace(EVENTS[more[0]], origin=wish)
                writer.put(side)
                if not getattr(side, "is_partial", False):
                    book.put.append(side)
            case "reset":
                writer.reset_origin(wish)
                book.reset(wish)
            case "retain":
                writer.log.retain_bytes = wish
            case "read":
                for _ in range(wish):
                    if (event := cursor.take()) is not None:
                        page.read(event)
        assert [writer.log.text(kind) for kind in KINDS] == [book.text(kind) for kind in KINDS]
    return book


def named(events: Any) -> list[tuple[str, str | None]]:
    return [(type(event).__name__, event.origin) for event in events]


def by_kind(parts: Any) -> list[AnswerPart]:
    """Those of one kind after the other; each kind's are in order."""
    return sorted(parts, key=lambda part: KINDS.index(part.kind))


def read(cursor: Cursor) -> list[Event]:
    events = []
    while (event := cursor.take()) is not None:
        events.append(event)
    return events


def program(chance: random.Random) -> list[tuple[Any, ...]]:
    """As one of STEPS, with more that is said."""
    made: list[tuple[Any, ...]] = []
    for _ in range(chance.randint(5, 30)):
        origin = chance.choice((None, "a", "a", "b", "b"))
        match chance.choice("sssspppra"):
            case "s":
                made.append(("say", origin, chance.choice(("text", "text", *KINDS)), chance.randint(0, 2)))
            case "p":
                made.append(("put", origin, chance.randrange(len(EVENTS))))
            case "r" if chance.random() < 0.5:
                made.append(("reset", origin))
            case "r":
                made.append(("retain", chance.choice((0, 700, KEEP_ALL))))
            case "a":
                made.append(("read", chance.randint(1, 4)))
    return made


@given(STEPS, st.sampled_from(RETAIN), st.sampled_from(SLOW), st.integers(1, 3))
def test_the_end_the_snapshot_and_the_readers_have_what_is_not_void(
    steps: list[Any], retain: int, slow: Slow, window: int
) -> None:
    compare(steps, retain, slow, window)


def test_the_end_the_snapshot_and_the_readers_have_what_is_not_void_in_many_programs() -> None:
    chance = random.Random(7)
    for _ in range(200):
        compare(program(chance), chance.choice(RETAIN), chance.choice(SLOW), chance.randint(1, 3))


def compare(steps: list[Any], retain: int, slow: Slow, window: int) -> None:
    """Play it, and compare everything with what has been said and put, and is not void."""
    writer = Writer(retain)
    log = writer.log
    cursor, page = Cursor(log, 0, slow, window), Page()
    book = play(steps, writer, cursor, page)
    whole = [book.text(kind) for kind in KINDS]
    snapshot = log.snapshot()
    if snapshot is not None and log.first_seq > log.last_seq:
        assert {"text": snapshot.text, "reasoning": snapshot.reasoning, "refusal": snapshot.refusal} == dict(
            zip(KINDS, whole, strict=True)
        )
        assert by_kind(snapshot.parts) == book.parts()
        assert named(snapshot.answer_events) == book.of(Citation, MediaPart, ServerToolCall, ServerToolResult)
        assert named(snapshot.tool_results) == book.of(ToolResult)
        assert named(snapshot.notices) == book.of(LoopDetected)
        assert read(Cursor(log, 0, "block", 10)) == [snapshot]
    writer.complete()
    terminal = log.terminal
    assert terminal is not None
    assert {"text": terminal.text, "reasoning": terminal.reasoning, "refusal": terminal.refusal} == dict(
        zip(KINDS, whole, strict=True)
    )
    assert dict(terminal.texts) == book.texts()
    assert list(terminal.texts) == list(book.texts())
    assert by_kind(terminal.parts) == book.parts()
    assert named(terminal.citations) == book.of(Citation)
    assert named(terminal.media) == book.of(MediaPart)
    assert named(terminal.server_tools) == book.of(ServerToolCall, ServerToolResult)
    for event in read(cursor):
        page.read(event)
    assert [page.text(kind) for kind in KINDS] == whole
    assert page.texts() == book.texts()


def folded_then_reset() -> tuple[StreamLog, Cursor, Cursor]:
    """A log with everything folded, also the reset of one origin; and readers from before and after the text."""
    writer = Writer(0)
    first = Cursor(writer.log, 0, "block", 10)
    writer.say("void ", 0, origin="a")
    writer.say("valid", 0, origin="b")
    writer.put(Citation(kind="url", url="u", origin="b"))
    second = Cursor(writer.log, 3, "block", 10)
    writer.reset_origin("a")
    writer.say("new", 0, origin="a")
    return writer.log, first, second


@pytest.mark.parametrize("which", [0, 1])
def test_a_reader_that_has_missed_the_reset_of_one_origin_gets_the_snapshot(which: int) -> None:
    log, *cursors = folded_then_reset()
    (event,) = read(cursors[which])
    assert isinstance(event, StreamSnapshot)
    assert event == log.snapshot()
    assert (event.seq, event.text) == (5, "validnew")
    assert [log.folded_counts(seq) for seq in (3, 4)] == [None, (5, 3, 0)]


def test_a_reader_that_has_had_the_reset_of_one_origin_is_not_given_the_others_text_again() -> None:
    writer = Writer()
    log = writer.log
    cursor = Cursor(log, 0, "block", 10)
    writer.say("void ", 0, origin="a")
    writer.say("valid ", 0, origin="b")
    writer.reset_origin("a")
    assert read(cursor) == list(log)
    log.retain_bytes = 0
    writer.say("new ", 1, origin="a")
    (snapshot,) = read(cursor)
    assert isinstance(snapshot, StreamSnapshot)
    assert (snapshot.text, snapshot.seq) == ("valid new ", 4)
    writer.say("more ", 1, origin="b")
    writer.say("and more", 2, origin="a")
    assert [(event.text, event.origin) for event in read(cursor) if isinstance(event, TokenEvent)] == [
        ("more ", "b"),
        ("and more", "a"),
    ]


def test_the_length_of_what_was_said_counts_what_the_reset_of_one_origin_has_voided() -> None:
    writer = Writer()
    writer.say("void", 0, origin="a")
    writer.reset_origin("a")
    writer.say("b", 0, origin="b")
    assert (writer.log.text(), writer.log.text_length()) == ("b", 5)
    writer.reset_origin(None)
    assert writer.log.text_length() == 0
