"""The end of a log: what the terminal event has, and what stands before it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from penstock.actors.stream.buffer import Undelivered
from penstock.actors.stream.log import LogOwner
from penstock.actors.stream.weights import cost_of
from penstock.errors import IncompleteStream, PenstockError, ToolError
from penstock.events import (
    AnswerPart,
    Citation,
    ServerToolCall,
    SideEvent,
    StreamMetrics,
    TerminalEvent,
    TokenEvent,
    ToolCallDelta,
)
from tests.unit.flow.common import KEEP_ALL, OUTCOME, Writer


class Owner(LogOwner):
    """The stream of a log."""

    def __init__(self, *, read: int | None = None) -> None:
        self.read = read
        self.tokens: list[Undelivered] = []
        self.events: list[SideEvent] = []
        self.looked: list[int] = []
        self.told: list[TerminalEvent] = []
        self.note: Callable[[TerminalEvent], None] = self.told.append

    def measure(self, end_time: float) -> StreamMetrics:
        return StreamMetrics(start_time=1.0, end_time=end_time)

    def note_end(self, terminal: TerminalEvent) -> None:
        self.note(terminal)

    def undelivered(self, last_event: int) -> list[Undelivered]:
        self.looked.append(last_event)
        return self.tokens

    def undelivered_events(self, last_event: int) -> list[SideEvent]:
        self.looked.append(last_event)
        return self.events

    def read_by_all(self, last_seq: int) -> int:
        return last_seq if self.read is None else self.read


def buffered(writer: Writer, tokens: list[Undelivered], events: list[SideEvent]) -> list[int]:
    """Let the log find these in the buffer; returns the numbers after which it looks."""
    owner = Owner()
    owner.tokens, owner.events = tokens, events
    writer.log.owner = owner
    return owner.looked


@pytest.mark.parametrize("retain", [0, KEEP_ALL])
def test_the_last_events_are_numbered_and_stand_before_the_terminal_event(retain: int) -> None:
    writer = Writer(retain)
    log = writer.log
    writer.add("a")
    looked = buffered(writer, [], [])
    log.last_events = [Citation(kind="url", url="one"), Citation(kind="url", url="two")]
    writer.complete()
    terminal = log.terminal
    assert terminal is not None
    assert [(event.seq, event.url) for event in log if isinstance(event, Citation)] == [(2, "one"), (3, "two")]
    assert [event.seq for event in log.last_events] == [2, 3]
    assert (terminal.seq, log.last_seq, log.get(4)) == (4, 4, terminal)
    assert [event.url for event in terminal.citations] == ["one", "two"]
    assert looked == [1, 1], "what is buffered follows the last event that was delivered"


def test_what_no_event_has_is_in_the_terminal_event() -> None:
    writer = Writer()
    writer.add("a")
    tokens = [Undelivered("text", "b", 0), Undelivered("text", "c", 1), Undelivered("refusal", "d", 1)]
    buffered(writer, tokens, [Citation(kind="url", url="u"), ServerToolCall(id="s", name="n")])
    assert writer.log.text_length() == 1
    assert writer.log.text_length(with_buffered=True) == 3
    writer.complete()
    terminal = writer.log.terminal
    assert terminal is not None
    assert (terminal.text, terminal.refusal, terminal.undelivered) == ("abc", "d", 3)
    assert terminal.parts == (
        AnswerPart(index=0, kind="text", start=0, end=2),
        AnswerPart(index=1, kind="text", start=2, end=3),
        AnswerPart(index=1, kind="refusal", start=0, end=1),
    )
    assert (len(terminal.citations), len(terminal.server_tools)) == (1, 1)


def test_the_metrics_are_those_of_the_end_and_the_end_is_told_before_it_is_seen() -> None:
    writer = Writer()
    log = writer.log
    told: list[tuple[TerminalEvent, TerminalEvent | None, int]] = []
    log.owner = owner = Owner()
    owner.note = lambda terminal: told.append((terminal, log.terminal, log.last_seq))
    assert log.complete(OUTCOME, 0, 7.0, writer.epoch) is True
    assert log.terminal is not None
    assert log.terminal.metrics == StreamMetrics(start_time=1.0, end_time=7.0)
    assert told == [(log.terminal, None, 0)]


def test_what_comes_too_late_changes_nothing_and_is_told_so() -> None:
    writer = Writer()
    log = writer.log
    writer.complete()
    assert writer.add("late") is False
    assert log.complete(OUTCOME, 0, 0.0) is False
    assert log.last_seq == 1


def test_only_errors_that_have_a_place_for_it_are_given_the_text() -> None:
    cases: list[tuple[PenstockError, bool]] = [(IncompleteStream("x"), True), (ToolError("x"), False)]
    for error, has_place in cases:
        writer = Writer()
        writer.add("so far")
        assert writer.log.fail(error, OUTCOME, 0, 0.0)
        assert getattr(error, "partial", None) == ("so far" if has_place else None)


@pytest.mark.parametrize("retain", [0, 700, KEEP_ALL])
def test_the_length_of_the_text_is_that_since_the_last_reset(retain: int) -> None:
    writer = Writer(retain)
    log = writer.log
    for _ in range(3):
        assert log.text_length() == 0
        for number in range(20):
            writer.add("ab", "c", kind="text" if number % 2 else "reasoning")
        assert log.text_length() == 30
        writer.tell("result")
        writer.reset()


def test_exactly_as_many_bytes_as_are_retained_are_kept() -> None:
    writer = Writer()
    for _ in range(4):
        writer.add("x")
    exact = Writer(writer.log.kept_bytes)
    for _ in range(4):
        exact.add("x")
    assert exact.log.first_seq == 1
    exact.add("x")
    assert exact.log.first_seq == 3, "a quarter is free, and no more"


def test_exactly_as_many_bytes_as_may_be_unread_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = ToolCallDelta(index=0, text="x" * 100)
    monkeypatch.setattr("penstock.actors.stream.log._UNREAD", 3 * cost_of(piece))
    writer = Writer(0)
    writer.log.owner = Owner(read=0)
    for _ in range(3):
        writer.put(piece)
    assert writer.log.first_seq == 1
    for _ in range(3):
        writer.put(piece)
    assert writer.log.first_seq > 1


@pytest.mark.parametrize("retain", [0, 1_000, 100_000])
def test_never_more_than_may_be_unread_is_kept(monkeypatch: pytest.MonkeyPatch, retain: int) -> None:
    monkeypatch.setattr("penstock.actors.stream.log._UNREAD", 20_000)
    writer = Writer(retain)
    log = writer.log
    log.owner = Owner(read=0)
    kept = []
    for _ in range(600):
        writer.put(ToolCallDelta(index=0, text="x" * 100))
        kept.append(log.kept_bytes)
    assert max(kept) <= retain + 20_000
    assert min(after for before, after in pairwise(kept) if after < before) > (retain + 20_000) * 3 // 4 - 1_000


@pytest.mark.parametrize("retain", [0, 3_000, 300_000])
def test_folding_what_is_unread_takes_linear_time(monkeypatch: pytest.MonkeyPatch, retain: int) -> None:
    monkeypatch.setattr("penstock.actors.stream.log._UNREAD", 300_000)

    def work(count: int) -> int:
        """Append; returns how many windows were copied."""
        writer = Writer(retain)
        writer.log.owner = Owner(read=0)
        windows = set()
        for _ in range(count):
            writer.put(ToolCallDelta(index=0, text="x"))
            windows.add(writer.log.first_seq)
        return len(windows)

    assert 2 < work(20_000) < 60


def test_all_that_may_be_folded_is_folded_at_once_if_a_single_event_is_larger() -> None:
    writer = Writer(10_000)
    for _ in range(10):
        writer.add("x")
    writer.add("x" * 20_000)
    assert (list(writer.log), writer.log.kept_bytes) == ([], 0)


def test_a_fold_that_an_unread_piece_stops_is_tried_again_when_a_quarter_more_has_come() -> None:
    writer = Writer(4_000)
    log = writer.log
    log.owner = owner = Owner(read=0)
    writer.put(ToolCallDelta(index=0, text="x"))
    folds = []
    for _ in range(60):
        writer.add("x" * 500)
        folds.append(log.first_seq)
    assert set(folds) == {1}, "text waits behind it too"
    owner.read = None
    while log.first_seq == 1:
        writer.add("x" * 500)
    assert log.kept_bytes <= 4_000
    assert all(isinstance(event, TokenEvent) for event in log)


@pytest.mark.parametrize("retain", [0, KEEP_ALL])
def test_the_whole_text_is_that_since_the_last_reset_whatever_stands_in_between(retain: int) -> None:
    writer = Writer(retain)
    writer.say("void", 0)
    writer.reset()
    writer.say("one ", 0)
    writer.tell("result")
    writer.say("two", 1)
    writer.say("hm", 1, "reasoning")
    writer.put(Citation(kind="url", url="u"))
    assert (writer.log.text(), writer.log.text("reasoning"), writer.log.text_length()) == ("one two", "hm", 7)
    writer.complete()
    terminal = writer.log.terminal
    assert terminal is not None
    assert (terminal.text, terminal.reasoning) == ("one two", "hm")
    assert [(part.kind, part.index, part.start, part.end) for part in terminal.parts] == [
        ("text", 0, 0, 4),
        ("text", 1, 4, 7),
        ("reasoning", 1, 0, 2),
    ]
