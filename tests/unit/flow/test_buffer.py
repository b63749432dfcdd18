"""The buffer against a simple model, and rule by rule."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.stream.buffer import Batch, EventBatch, PartStart, TokenBuffer, Undelivered
from penstock.config.options import Overflow
from penstock.events import StreamStarted, TokenKind, ToolCallDelta, ToolEvent, ToolProgress, ToolResult
from tests.unit.flow.common import steps

KINDS = st.sampled_from(("text", "text", "text", "reasoning", "refusal"))
OVERFLOWS = st.sampled_from(("drop_oldest", "drop_newest"))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), KINDS),
        st.tuples(st.just("force"), KINDS, OVERFLOWS),
        st.tuples(st.just("event"), st.sampled_from((None, "a", "b", 0, 1, "result"))),
        st.tuples(st.just("part"), st.integers(1, 3)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.sampled_from(("commit", "restore", "clear"))),
        st.tuples(st.just("recover"), st.booleans()),
        st.tuples(st.just("discard"), st.sampled_from("xy")),
        st.tuples(st.just("bound"), st.integers(1, 8)),
    ),
    max_size=80,
)


def program(chance: random.Random) -> list[tuple[Any, ...]]:
    """As one of OPERATIONS, with more that fills the buffer than that empties it."""
    made: list[tuple[Any, ...]] = []
    for _ in range(60):
        match chance.choice("ooofffeeeeeepttttccrxvbd"):
            case "o":
                made.append(("offer", chance.choice(("text", "text", "reasoning"))))
            case "f":
                made.append(
                    ("force", chance.choice(("text", "refusal")), chance.choice(("drop_oldest", "drop_newest")))
                )
            case "e":
                made.append(("event", chance.choice((None, "a", "a", "b", 0, 0, 1, "result"))))
            case "p":
                made.append(("part", chance.randint(1, 3)))
            case "t":
                made.append(("take", chance.randint(1, 5)))
            case "v":
                made.append(("recover", chance.random() < 0.5))
            case "b":
                made.append(("bound", chance.randint(1, 6)))
            case "d":
                made.append(("discard", chance.choice("xy")))
            case sign:
                made.append(({"c": "commit", "r": "restore", "x": "clear"}[sign],))
    return made


def filled(count: int, max_size: int = 1000) -> TokenBuffer:
    buffer = TokenBuffer(max_size)
    for number in range(count):
        assert buffer.offer(str(number))
    return buffer


def said(buffer: TokenBuffer, last_event: int) -> list[tuple[str, str]]:
    """Kind and text of what is undelivered."""
    return [(token.kind, token.text) for token in buffer.undelivered(last_event)]


def drain(buffer: TokenBuffer, limit: int = 3) -> list[Batch | EventBatch]:
    batches: list[Batch | EventBatch] = []
    while (batch := buffer.take(limit, len(batches) + 1)) is not None:
        batches.append(batch)
        buffer.commit()
    return batches


def mark(name: str, step: int | None = None, origin: str | None = None) -> ToolProgress:
    return ToolProgress(call_id=name, name=name, progress=step, origin=origin)


def piece(text: str, index: int = 0, origin: str | None = None) -> ToolCallDelta:
    return ToolCallDelta(index=index, text=text, origin=origin)


class Model:
    """What a buffer is: a list, a reserved part before it, and a few counters.

    Events have the kind "event", and the starts of parts, which take no room, the kind "start".
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.waiting: list[tuple[Any, Any]] = []
        self.taken: list[tuple[Any, Any]] = []
        self.part = PartStart(0)
        self.dropped = self.ever = self.told = self.high = self.dropped_text = 0

    @property
    def size(self) -> int:
        return sum(kind != "start" for kind, _ in self.waiting + self.taken)

    def offer(self, kind: TokenKind, token: str) -> bool:
        if self.size >= self.bound:
            return False
        self.waiting.append((kind, token))
        self.high = max(self.high, self.size)
        return True

    @property
    def events(self) -> int:
        return sum(kind == "event" for kind, _ in self.waiting + self.taken)

    def put_event(self, event: ToolEvent) -> None:
        if self.size >= self.bound and self._join(event):
            return
        self.waiting.append(("event", event))
        self.high = max(self.high, self.size)

    def _join(self, event: ToolEvent) -> bool:
        if isinstance(event, ToolCallDelta):
            last = self.waiting[-1][1] if self.waiting else None
            if isinstance(last, ToolCallDelta) and (last.index, last.origin) == (event.index, event.origin):
                self.waiting[-1] = ("event", piece(last.text + event.text, event.index, event.origin))
                return True
            return False
        if not isinstance(event, ToolProgress):
            return False
        for place, (_, other) in reversed(list(enumerate(self.waiting))):
            if not isinstance(other, ToolProgress):
                return False
            if (other.call_id, other.origin) == (event.call_id, event.origin):
                self.waiting[place] = ("event", event)
                return True
        return False

    def force(self, kind: TokenKind, token: str, overflow: Overflow) -> bool:
        while not self.offer(kind, token):
            self.dropped += 1
            self.ever += 1
            tokens = [place for place, item in enumerate(self.waiting) if item[0] not in ("event", "start")]
            if overflow == "drop_newest" or not tokens:
                self.dropped_text += len(token) if kind == "text" else 0
                return False
            old_kind, old = self.waiting.pop(tokens[0])
            self.dropped_text += len(old) if old_kind == "text" else 0
        return True

    def _pass_starts(self) -> None:
        while self.waiting and self.waiting[0][0] == "start":
            self.part = self.waiting.pop(0)[1]

    def due(self, limit: int) -> int:
        self._pass_starts()
        places = [place for place, item in enumerate(self.waiting) if item[0] in ("event", "start")]
        return min(limit, places[0] if places else len(self.waiting))

    def take(self, limit: int) -> Batch | EventBatch | None:
        self._pass_starts()
        if not self.waiting:
            return None
        kind = self.waiting[0][0]
        if kind == "event":
            self.taken.append(self.waiting.pop(0))
            self.told = 0
            return EventBatch(self.taken[0][1])
        while self.waiting and self.waiting[0][0] == kind and len(self.taken) < limit:
            self.taken.append(self.waiting.pop(0))
        self.told = self.dropped
        return Batch(kind, tuple(token for _, token in self.taken), *self.part)

    def commit(self) -> None:
        if self.taken:
            self.dropped -= self.told
        self.taken = []

    def restore(self) -> None:
        self.waiting[:0] = self.taken
        self.taken = []

    def clear(self) -> None:
        self.waiting, self.taken, self.part = [], [], PartStart(0)
        self.dropped_text = 0

    def discard(self, origin: str) -> None:
        kept, part = [], self.part
        for kind, item in self.waiting:
            part = item if kind == "start" else part
            if kind == "start" or (item.origin if kind == "event" else part.origin) != origin:
                kept.append((kind, item))
        self.waiting = kept

    def undelivered(self, is_in_log: bool) -> list[Undelivered]:
        found = []
        part = self.part
        for kind, item in [*([] if is_in_log else self.taken), *self.waiting]:
            if kind == "start":
                part = item
            elif kind != "event":
                found.append(Undelivered(kind, item, *part))
        return found

    def undelivered_events(self, is_in_log: bool) -> list[ToolEvent]:
        waiting = [*([] if is_in_log else self.taken), *self.waiting]
        return [item for kind, item in waiting if kind == "event"]


def test_beyond_the_bound_a_report_takes_the_place_of_what_its_tool_reported_before() -> None:
    def report(call_id: str, step: int) -> ToolProgress:
        return ToolProgress(call_id=call_id, name="f", progress=step)

    buffer = TokenBuffer(2)
    for step in range(10):
        buffer.put_event(report("a", step))
        buffer.put_event(report("b", step))
    buffer.put_event(piece("{", 0))
    buffer.put_event(report("a", 10))
    buffer.put_event(report("a", 11))
    waiting = [batch.event for batch in drain(buffer) if isinstance(batch, EventBatch)]
    assert waiting == [report("a", 9), report("b", 9), piece("{", 0), report("a", 11)]
    assert (buffer.size, buffer.events, buffer.high_water_mark) == (0, 0, 4)


@given(st.integers(1, 6), OPERATIONS)
def test_it_does_what_a_list_would_do(bound: int, operations: list[Any]) -> None:
    compare(bound, operations)


def test_it_does_what_a_list_would_do_in_many_programs() -> None:
    chance = random.Random(7)
    for number in range(250):
        compare(number % 6 + 1, program(chance))


def made(wish: Any, number: int) -> ToolEvent:
    origin = "x" if number % 4 == 0 else None
    if isinstance(wish, int):
        return piece(str(number), wish, origin)
    if wish == "result":
        return ToolResult(call_id="a", name="a", content=str(number), origin=origin)
    return mark(wish or str(number), number, origin)


def compare(bound: int, operations: list[Any]) -> None:
    buffer, model, taken_for, batch = TokenBuffer(bound), Model(bound), 0, None
    for number, (name, *arguments) in enumerate(operations, 1):
        token = str(number)
        match name:
            case "offer":
                assert buffer.offer_kind(token, arguments[0]) is model.offer(arguments[0], token)
            case "force":
                assert buffer.force(token, *arguments) is model.force(arguments[0], token, arguments[1])
            case "event":
                event = made(arguments[0], number)
                buffer.put_event(event)
                model.put_event(event)
            case "part":
                start = PartStart(arguments[0], "commentary" if number % 2 else None, (None, "x", "y")[number % 3])
                buffer.start_part(start)
                model.waiting.append(("start", start))
            case "take":
                if not model.taken:
                    batch = buffer.take(arguments[0], number)
                    assert batch == model.take(arguments[0])
                    taken_for = number
            case "commit":
                buffer.commit(batch if number % 2 else None)
                model.commit()
            case "restore":
                buffer.restore(batch if number % 2 else None)
                model.restore()
            case "recover":
                if model.taken:
                    buffer.recover(taken_for if arguments[0] else taken_for - 1)
                    (model.commit if arguments[0] else model.restore)()
            case "clear":
                assert buffer.clear() == model.size - model.events
                model.clear()
            case "discard":
                if not model.taken:
                    buffer.discard_origin(*arguments)
                    model.discard(*arguments)
            case "bound":
                buffer.max_size = model.bound = arguments[0]
        assert (buffer.size, buffer.dropped, buffer.dropped_ever) == (model.size, model.dropped, model.ever)
        assert buffer.dropped_text == model.dropped_text
        assert (buffer.high_water_mark, buffer.events) == (model.high, model.events)
        assert buffer.undelivered(taken_for - 1) == model.undelivered(is_in_log=False)
        assert buffer.undelivered(taken_for) == model.undelivered(is_in_log=True)
        assert buffer.undelivered_events(taken_for - 1) == model.undelivered_events(is_in_log=False)
        assert buffer.undelivered_events(taken_for) == model.undelivered_events(is_in_log=True)
        if not model.taken:
            assert buffer.due(2) == model.due(2)
    buffer.restore()
    model.restore()
    while (batch := model.take(3)) is not None:
        assert buffer.take(3, 1000) == batch
        buffer.commit()
        model.commit()
    assert buffer.take(3, 1000) is None


def test_a_taken_batch_keeps_its_room_until_it_is_committed() -> None:
    buffer = filled(4, max_size=4)
    assert buffer.take(3, 1) == Batch("text", ("0", "1", "2"))
    assert (buffer.size, buffer.offer("x")) == (4, False)
    buffer.commit()
    assert (buffer.size, buffer.offer("x")) == (1, True)


def test_a_batch_holds_one_kind_only() -> None:
    buffer = TokenBuffer(10)
    for token, kind in (("a", "reasoning"), ("b", "reasoning"), ("c", "text"), ("d", "refusal"), ("e", "text")):
        buffer.offer_kind(token, kind)  # type: ignore[arg-type]
    assert drain(buffer, 10) == [
        Batch("reasoning", ("a", "b")),
        Batch("text", ("c",)),
        Batch("refusal", ("d",)),
        Batch("text", ("e",)),
    ]


def test_what_was_restored_is_first_again_and_keeps_its_kind() -> None:
    buffer = TokenBuffer(10)
    for token in "ab":
        buffer.offer_kind(token, "reasoning")
    buffer.offer("c")
    assert buffer.take(1, 1) == Batch("reasoning", ("a",))
    buffer.restore()
    assert drain(buffer) == [Batch("reasoning", ("a", "b")), Batch("text", ("c",))]


def test_after_a_crash_a_batch_goes_back_unless_the_log_has_it() -> None:
    buffer = filled(4)
    buffer.take(2, 7)
    buffer.recover(last_event=6)
    assert (buffer.size, buffer.take(2, 7)) == (4, Batch("text", ("0", "1")))
    buffer.recover(last_event=7)
    assert (buffer.size, buffer.take(2, 8)) == (2, Batch("text", ("2", "3")))


def test_who_was_given_up_can_neither_commit_nor_restore_the_batch_of_another() -> None:
    buffer = filled(4)
    old = buffer.take(2, 1)
    buffer.recover(last_event=0)
    new = buffer.take(2, 1)
    assert old == new
    buffer.restore(old)
    buffer.commit(old)
    assert buffer.size == 4
    buffer.commit(new)
    assert (buffer.size, drain(buffer)) == (2, [Batch("text", ("2", "3"))])


def test_two_batches_cannot_be_taken_at_once() -> None:
    buffer = filled(4)
    buffer.take(1, 1)
    with pytest.raises(AssertionError):
        buffer.take(1, 2)


def test_the_newest_is_dropped_where_the_rule_says_so() -> None:
    buffer = filled(2, max_size=2)
    assert not buffer.force("x", "text", "drop_newest")
    assert (buffer.dropped, drain(buffer)) == (1, [Batch("text", ("0", "1"))])


def test_the_oldest_is_dropped_but_never_one_that_is_being_delivered() -> None:
    buffer = filled(2, max_size=2)
    buffer.take(1, 1)
    assert buffer.force("x", "text", "drop_oldest")
    buffer.restore()
    assert drain(buffer) == [Batch("text", ("0", "x"))]


def test_with_nothing_but_a_taken_batch_in_it_the_new_token_is_the_one_to_go() -> None:
    buffer = filled(2, max_size=2)
    buffer.take(2, 1)
    assert not buffer.force("x", "text", "drop_oldest")
    assert (buffer.size, buffer.dropped) == (2, 1)


def test_a_lowered_bound_loses_nothing_by_itself_and_holds_again_after_the_first_drop() -> None:
    buffer = filled(6)
    buffer.max_size = 3
    assert (buffer.size, buffer.offer("x")) == (6, False)
    assert buffer.force("x", "text", "drop_oldest")
    assert (buffer.size, buffer.dropped, drain(buffer)) == (3, 4, [Batch("text", ("4", "5", "x"))])


def test_what_is_dropped_while_a_batch_is_out_is_told_with_the_next_one() -> None:
    buffer = filled(1, max_size=1)
    buffer.force("x", "text", "drop_newest")
    buffer.take(1, 1)
    buffer.force("y", "text", "drop_newest")
    assert buffer.dropped == 2
    buffer.commit()
    assert (buffer.dropped, buffer.dropped_ever) == (1, 2)


def test_a_batch_that_was_not_delivered_does_not_lose_the_count_of_what_was_dropped_before_it() -> None:
    buffer = filled(1, max_size=1)
    buffer.force("x", "text", "drop_newest")
    buffer.take(1, 1)
    buffer.restore()
    assert buffer.dropped == 1


def test_an_event_is_a_batch_of_its_own_and_parts_the_tokens_around_it() -> None:
    buffer = filled(2)
    buffer.put_event(mark("x"))
    buffer.offer("2")
    assert (buffer.size, buffer.events, buffer.due(9)) == (4, 1, 2)
    assert drain(buffer, 9) == [Batch("text", ("0", "1")), (mark("x"),), Batch("text", ("2",))]
    assert (buffer.size, buffer.events) == (0, 0)


def test_an_event_does_not_tell_of_what_was_dropped_so_the_next_tokens_do() -> None:
    buffer = filled(1, max_size=1)
    buffer.force("x", "text", "drop_newest")
    buffer.take(1, 1)
    buffer.restore()
    buffer.clear()
    buffer.put_event(mark("x"))
    buffer.take(1, 1)
    buffer.commit()
    assert buffer.dropped == 1


def test_the_same_event_put_twice_is_two_to_whoever_was_given_up() -> None:
    buffer, event = TokenBuffer(9), mark("x")
    buffer.put_event(event)
    old = buffer.take(1, 1)
    buffer.recover(last_event=0)
    new = buffer.take(1, 1)
    buffer.commit(old)
    buffer.restore(old)
    assert (buffer.size, buffer.events) == (1, 1)
    buffer.commit(new)
    assert (buffer.size, buffer.events) == (0, 0)


def test_thrown_away_the_start_is_spared_if_asked_for() -> None:
    buffer = TokenBuffer(9)
    buffer.put_event(StreamStarted(model="m"))
    buffer.put_event(mark("x"))
    buffer.offer("a")
    assert buffer.clear(but_start=True) == 1
    assert (buffer.size, buffer.events) == (1, 1)
    assert drain(buffer) == [(StreamStarted(model="m"),)]
    buffer.put_event(StreamStarted(model="m"))
    buffer.clear()
    assert drain(buffer) == []


def test_tokens_that_pass_by_belong_to_the_present_part_and_count_for_the_high_water_mark() -> None:
    buffer = TokenBuffer(9)
    assert buffer.pass_by(3) == PartStart(0)
    assert (buffer.size, buffer.high_water_mark, buffer.take(9, 1)) == (0, 3, None)
    buffer.start_part(PartStart(7))
    assert buffer.take(9, 1) is None  # the start is in force now
    assert buffer.pass_by(2) == PartStart(7)
    assert buffer.high_water_mark == 3


@pytest.mark.parametrize("what", ["token", "event", "start", "taken", "dropped"])
def test_nothing_passes_by_what_waits(what: str) -> None:
    buffer = TokenBuffer(1)
    match what:
        case "token":
            buffer.offer("a")
        case "event":
            buffer.put_event(mark("a"))
        case "start":
            buffer.start_part(PartStart(7))
        case "taken":
            buffer.offer("a")
            buffer.take(1, 1)
        case "dropped":
            buffer.offer("a")
            buffer.force("b", "text", "drop_newest")
            buffer.take(1, 1)
            buffer.force("c", "text", "drop_newest")
            buffer.commit()  # what was dropped while the batch was out, no event has told yet
            assert (buffer.size, buffer.dropped) == (0, 1)
    before = buffer.high_water_mark
    assert buffer.pass_by(5) is None
    assert buffer.high_water_mark == before


def test_to_commit_or_restore_without_a_taken_batch_changes_nothing() -> None:
    buffer = TokenBuffer(9)
    for token in "abc":
        buffer.offer(token)
    batch = buffer.take(1, 1)
    buffer.commit()
    for _ in range(2):
        buffer.commit()
        buffer.commit(batch)
        buffer.restore()
        buffer.restore(batch)
    assert (buffer.size, said(buffer, 1)) == (2, [("text", "b"), ("text", "c")])


def test_what_no_event_has_is_undelivered_with_what_was_taken_for_an_event_that_is_not_in_the_log() -> None:
    buffer = TokenBuffer(9)
    items: list[tuple[TokenKind, str]] = [("text", "a"), ("reasoning", "b"), ("text", "c")]
    for kind, token in items:
        buffer.offer_kind(token, kind)
        buffer.put_event(mark(token))
    assert said(buffer, 0) == items
    buffer.take(5, 7)
    assert said(buffer, 6) == items
    assert said(buffer, 7) == items[1:]
    buffer.commit()
    buffer.take(5, 8)  # an event
    assert said(buffer, 7) == items[1:]
    buffer.clear()
    assert buffer.undelivered(7) == []


def test_joining_pieces_beyond_the_bound_takes_time_in_proportion() -> None:
    def work(size: int) -> None:
        buffer = TokenBuffer(1)
        for _ in range(size):
            buffer.put_event(piece("x" * 100))
        drain(buffer)

    assert steps(lambda: work(8000)) < 9 * steps(lambda: work(1000))


@pytest.mark.parametrize("kind", ["text", "reasoning"])
def test_its_work_grows_in_proportion_to_the_tokens(kind: TokenKind) -> None:
    def work(size: int) -> None:
        buffer = TokenBuffer(size)
        for _ in range(size):
            buffer.offer_kind("x", kind)
        for _ in range(size):
            buffer.force("y", kind, "drop_oldest")
        drain(buffer, 10)

    assert steps(lambda: work(8000)) < 9 * steps(lambda: work(1000))


def test_pieces_of_the_calls_of_two_inputs_are_not_joined() -> None:
    buffer = TokenBuffer(1)
    for text, origin in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("e", "x")):
        buffer.put_event(piece(text, 0, origin))
    assert buffer.undelivered_events(0) == [piece("ab", 0, "x"), piece("cd", 0, "y"), piece("e", 0, "x")]
    buffer.discard_origin("x")
    assert (buffer.size, buffer.events, drain(buffer)) == (1, 1, [EventBatch(piece("cd", 0, "y"))])


def test_the_oldest_token_after_many_events_is_dropped_in_time_in_proportion() -> None:
    def work(size: int) -> None:
        buffer = TokenBuffer(2 * size)
        for number in range(size):
            buffer.put_event(mark(str(number)))
        for _ in range(size):
            buffer.offer("x")
        for _ in range(size):
            buffer.force("y", "text", "drop_oldest")
        assert buffer.undelivered(0) == [Undelivered("text", "y")] * size

    assert steps(lambda: work(4000)) < 9 * steps(lambda: work(500))


def test_the_oldest_token_after_many_events_is_dropped_also_when_some_of_them_have_gone() -> None:
    buffer = filled(600, max_size=2000)
    for number in range(700):
        buffer.put_event(mark(str(number)))
    for token in "abc":
        buffer.offer(token)
    buffer.take(600, 1)
    buffer.commit()
    for token, gone in (("d", 0), ("e", 60), ("f", 300)):
        for _ in range(gone):
            buffer.take(1, 1)
            buffer.commit()
        buffer.max_size = buffer.size
        assert buffer.force(token, "text", "drop_oldest")
    assert [token.text for token in buffer.undelivered(1)] == ["d", "e", "f"]
    assert len(buffer.undelivered_events(1)) == 340


def test_what_has_gone_out_is_not_kept_for_ever() -> None:
    buffer = TokenBuffer(100)
    for number in range(5000):
        buffer.offer("x")
        if number % 50 == 49:
            for event in range(4):
                buffer.take(10, event)
                buffer.commit()
            buffer.force("y", "text", "drop_oldest")
    assert len(buffer._items) < 2000


def test_a_long_queue_comes_out_in_its_order() -> None:
    buffer, out = TokenBuffer(10_000), list[str]()
    for number in range(6000):
        assert buffer.offer(str(number))
        if number % 2:
            batch = buffer.take(1, number)
            assert isinstance(batch, Batch)
            out += batch.tokens
            buffer.commit()
    assert [token.text for token in buffer.undelivered(0)] == [str(number) for number in range(3000, 6000)]
    assert out == [str(number) for number in range(3000)]


@pytest.mark.parametrize("room", range(6))
@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("kinds", ["tttt", "trtt", "rrrr", ""])
def test_many_offered_at_once_are_as_many_offered_one_by_one(room: int, first: int, kinds: str) -> None:
    tokens: list[tuple[str, TokenKind]] = [
        (str(number), "text" if kind == "t" else "reasoning") for number, kind in enumerate(kinds)
    ]
    at_once, one_by_one = TokenBuffer(room + 2), TokenBuffer(room + 2)
    for buffer in (at_once, one_by_one):
        buffer.offer("a")
        buffer.offer_kind("b", "refusal")
    expected = first
    while expected < len(tokens) and one_by_one.offer_kind(*tokens[expected]):
        expected += 1
    assert at_once.offer_all(tokens, first) == expected
    for name in TokenBuffer.__slots__:
        assert getattr(at_once, name) == getattr(one_by_one, name), name
    assert (at_once.max_size, len(at_once.undelivered(0))) == (room + 2, 2 + expected - first)
