"""Work that must not grow with the square of its input. Steps are counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.actors.stream import buffer as buffers
from penstock.actors.stream.buffer import TokenBuffer
from penstock.actors.stream.parts import PartSpans
from penstock.events import Citation
from penstock.ports import TextDelta
from penstock.testing import Simulation
from tests.unit.test_attempt import Scene


class Counted(list[Any]):
    """A list that counts its items that are looked at one by one, and those that move when others are deleted."""

    looked = moved = 0

    def __getitem__(self, place: Any) -> Any:
        self.looked += 1
        return super().__getitem__(place)

    def __iter__(self) -> Any:
        self.looked += len(self)
        return super().__iter__()

    def __delitem__(self, place: Any) -> None:
        super().__delitem__(place)
        self.moved += len(self)


def test_a_piece_of_the_text_is_split_without_a_look_at_all_parts() -> None:
    spans = PartSpans()
    for part in range(4096):
        spans.add("text", 2, part, None)
        spans.add("reasoning", 3, part, None)
    counted = spans._by_kind["text"] = Counted(spans._by_kind["text"])
    spans._spans = Counted(spans._spans)
    found = spans.split("text", 5001, 5005)
    assert [(one.index, one.start, one.end) for one in found] == [
        (2500, 5001, 5002),
        (2501, 5002, 5004),
        (2502, 5004, 5005),
    ]
    assert 0 < counted.looked < 30
    assert spans._spans.looked == 0


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 0, []),
        (0, 1, [0]),
        (0, 2, [0]),
        (1, 3, [0, 1]),
        (2, 4, [1]),
        (3, 9, [1, 2]),
        (6, 9, []),
        (4, 2, []),
        (1, 1, []),
        (5, 3, []),
    ],
)
def test_the_pieces_of_a_split_are_those_that_overlap(start: int, end: int, expected: list[int]) -> None:
    spans = PartSpans()
    for part in range(3):
        spans.add("text", 2, part, None)
    assert [one.index for one in spans.split("text", start, end)] == expected
    assert spans.split("refusal", start, end) == []
    assert spans.copy().split("text", start, end) == spans.split("text", start, end)


def test_a_long_read_is_pushed_into_a_small_buffer_piece_by_piece() -> None:
    with Simulation() as simulation:
        scene = Scene(simulation, max_buffer_size=10, batch_size=10, tokenizer=list)
        offered: list[int] = []
        intake = scene.record.intake
        push_now = intake.push_now

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(intake, name)

            def push_now(self, tokens: Any, *more: Any) -> int:
                offered.append(len(tokens))
                return push_now(tokens, *more)

        scene.record.intake = Watched()  # type: ignore[assignment]
        rest = scene.attempt._rest = Counted()
        text = "".join(chr(97 + number % 26) for number in range(5000))
        answer = scene.offer(TextDelta(text))
        said = ""
        seq = 0
        while True:
            seq += 1
            batch, _ = intake.take(10, seq, 1)
            if batch is None:
                break
            said += "".join(batch.tokens)  # type: ignore[union-attr]
            intake.commit(batch)
            if answer is None:
                answer = scene.attempt.offer((), scene._room)
        assert said == text
        assert answer is True
        assert max(offered) <= 256
        assert rest.moved <= 2 * len(text)
        assert not rest


def test_the_oldest_token_behind_many_events_is_found_without_a_look_at_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    is_event = buffers._is_event

    def counted(item: Any) -> bool:
        nonlocal looks
        looks += 1
        return is_event(item)

    monkeypatch.setattr(buffers, "_is_event", counted)
    buffer = TokenBuffer(600)
    for _ in range(500):
        buffer.put_event(Citation(kind="url"))
    for number in range(1000):
        assert buffer.force(str(number), "text" if number % 3 else "reasoning", "drop_oldest")
    assert looks < 5000
    assert [one.text for one in buffer.undelivered(0)] == [str(number) for number in range(900, 1000)]
    assert (buffer.size, buffer.dropped_ever, len(buffer.undelivered_events(0))) == (600, 900, 500)


def test_tokens_that_come_back_before_the_events_are_the_oldest() -> None:
    buffer = TokenBuffer(4)
    buffer.offer("a")
    taken = buffer.take(1, 1)
    for _ in range(2):
        buffer.put_event(Citation(kind="url"))
    buffer.offer("b")
    assert buffer.force("c", "text", "drop_oldest")
    buffer.restore(taken)
    assert [one.text for one in buffer.undelivered(0)] == ["a", "c"]
    assert buffer.force("d", "text", "drop_oldest")
    assert [one.text for one in buffer.undelivered(0)] == ["c", "d"]
