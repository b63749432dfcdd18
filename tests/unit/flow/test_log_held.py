"""A log whose events are held back until a store has them, one that is filled from a store, and how much is waiting."""

from __future__ import annotations

import pytest

from penstock.actors.stream.log import StreamLog
from penstock.actors.stream.weights import cost_of
from penstock.errors import Fenced, RunawayAnswer
from penstock.events import Citation, Event, StreamFailed, TokenEvent
from tests.unit.flow.common import KEEP_ALL, OUTCOME, Writer


def token(seq: int, *tokens: str) -> TokenEvent:
    return TokenEvent("s", seq, tokens, "".join(tokens), "text", float(seq), {})


def held(*shown: int, retain: int = KEEP_ALL) -> tuple[StreamLog, int]:
    """A log with three events, of which readers may have those up to the last of ``shown``; and the writer's epoch."""
    log = StreamLog("s", {"user": 1}, retain)
    log.is_held_back = True
    epoch = log.new_epoch()
    citation = Citation(kind="url", url="u", stream_id="s", seq=2)
    for event in (token(1, "a", "b"), citation, token(3, "c")):
        assert log.append(epoch, event)
    for seq in shown:
        log.show(seq)
    return log, epoch


def test_readers_get_what_is_held_back_when_it_is_shown_and_never_lose_it_again() -> None:
    log, _ = held()
    assert (log.last_seq, log.written) == (0, 3)
    seen = []
    for seq in (2, 1, 9, 0):
        log.show(seq)
        seen.append(log.last_seq)
    assert seen == [2, 2, 3, 3]


def test_what_is_held_back_is_not_folded() -> None:
    log, _ = held(retain=0)
    assert log.first_seq == 1
    log, epoch = held(2, retain=0)
    assert log.append(epoch, token(4, "d" * 1000))
    assert log.first_seq == 3


def test_what_no_reader_has_had_can_be_discarded_and_then_it_has_never_been() -> None:
    log, epoch = held(1)
    log.discard_held()
    assert (log.last_seq, log.written, log.tokens, log.text()) == (1, 1, 2, "ab")
    assert log.kept_bytes == cost_of(token(1, "a", "b"))
    assert log.append(epoch, token(2, "d"))
    assert [event.seq for event in log] == [1, 2]
    assert log.tokens == 3
    log.show(2)
    log.discard_held()
    assert (log.last_seq, log.written, log.text()) == (2, 2, "abd")


def test_the_end_is_not_discarded_nor_what_stands_before_it() -> None:
    log, _ = held(1)
    log.complete(OUTCOME, 0, 9.0)
    log.discard_held()
    assert (log.written, log.text(), log.get(4)) == (4, "abc", log.terminal)


def test_an_end_that_no_reader_has_had_is_replaced_by_a_failure_after_what_they_have() -> None:
    log, _ = held(1)
    log.complete(OUTCOME, 0, 9.0)
    error = Fenced("s")
    assert log.replace_held_end(error, 10.0) is True
    failed = StreamFailed(stream_id="s", seq=2, error=error, partial="", timestamp=10.0, metadata={"user": 1})
    assert log.terminal == failed
    assert list(log) == [token(1, "a", "b"), failed]
    assert (log.last_seq, log.written, log.tokens) == (2, 2, 2)
    assert log.kept_bytes == sum(map(cost_of, log))
    assert log.is_open() is False


def test_an_end_is_not_replaced_before_there_is_one_nor_once_readers_may_have_it() -> None:
    log, _ = held(1)
    assert log.replace_held_end(Fenced("s"), 10.0) is False
    assert (log.terminal, log.written, log.last_seq) == (None, 3, 1)
    log.complete(OUTCOME, 0, 9.0)
    log.show(4)
    terminal = log.terminal
    assert log.replace_held_end(Fenced("s"), 10.0) is False
    assert (log.terminal, log.get(4), log.written, log.last_seq) == (terminal, terminal, 4, 4)


# --- from a store ----------------------------------------------------------------------------------------------------


def stored() -> list[Event]:
    """The events of a log that has ended."""
    writer = Writer()
    writer.add("a", "b")
    writer.tell("result")
    writer.reset()
    writer.add("c")
    writer.complete()
    return list(writer.log)


@pytest.mark.parametrize("is_held_back", [False, True])
@pytest.mark.parametrize("at", [0, 2, 4, 5])
def test_a_log_takes_over_stored_events_in_one_piece_or_in_two(is_held_back: bool, at: int) -> None:
    events = stored()
    log = StreamLog("s", {}, KEEP_ALL)
    log.is_held_back = is_held_back
    log.replay(events[:at])
    assert (log.last_seq, log.written, log.terminal) == (at, at, events[4] if at == 5 else None)
    log.replay(events[at:])
    assert list(log) == events
    assert (log.last_seq, log.written, log.terminal) == (5, 5, events[4])
    assert (log.tokens, log.text()) == (3, "c")
    assert log.kept_bytes == sum(map(cost_of, events))
    assert log.is_held_back is is_held_back, "what is written here is held back as before"


def test_stored_events_are_folded_as_new_ones_are() -> None:
    log = StreamLog("s", {}, 0)
    log.replay([token(1, "a"), token(2, "b")])
    assert (log.first_seq, log.text()) == (3, "ab")


def test_a_stored_event_that_is_missing_is_a_mistake() -> None:
    log = StreamLog("s", {}, 0)
    with pytest.raises(AssertionError):
        log.replay([token(2, "a")])


# --- what is waiting -------------------------------------------------------------------------------------------------


def test_the_events_after_a_number_are_there_with_those_held_back_unless_one_of_them_is_folded() -> None:
    log, _ = held(1)
    for seq in range(4):
        assert log.kept_after(seq) == list(log)[seq:]
    writer = Writer(0)
    for text in "ab":
        writer.add(text)
    writer.log.retain_bytes = KEEP_ALL
    writer.add("c")
    assert writer.log.first_seq == 3
    assert writer.log.kept_after(1) is None
    assert [event.seq for event in writer.log.kept_after(2) or ()] == [3]
    assert writer.log.kept_after(3) == []


def test_what_waits_takes_the_bytes_of_its_events_and_of_all_folded_text() -> None:
    writer = Writer(0)
    writer.add("abc")
    writer.add("hm", kind="reasoning")
    writer.log.retain_bytes = KEEP_ALL
    writer.add("d")
    writer.tell("result")
    kept = [cost_of(event) for event in writer.log]
    assert len(kept) == 2
    assert [writer.log.bytes_after(seq) for seq in range(5)] == [5 + sum(kept), 5 + sum(kept), sum(kept), kept[1], 0]


# --- the text of a failure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream_id", "kind", "partial"),
    [("s", "text", "Say so and "), ("s", "reasoning", "Say so and so and so "), ("t", "text", "Say so and so and so ")],
)
def test_of_a_text_without_end_what_repeats_is_left_once(stream_id: str, kind: str, partial: str) -> None:
    writer = Writer()
    writer.add("Say so and so and so ")
    error = RunawayAnswer(stream_id, kind, period=7, repeats=3, start=4)
    assert writer.log.fail(error, OUTCOME, 0, 0.0)
    assert isinstance(writer.log.terminal, StreamFailed)
    assert (writer.log.terminal.partial, error.partial) == (partial, partial)
