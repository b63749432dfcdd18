"""What is held until an answer begins: in order, once, and raw events within a bound."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.actors.call.held import Held
from penstock.actors.stream.buffer import PartStart
from penstock.actors.stream.weights import cost_of
from penstock.events import Citation, Logprobs, ProviderEvent

CITED = Citation(kind="url", url="u")
LOGPROBS = Logprobs(tokens=())


def raw(name: str, size: int = 0) -> ProviderEvent:
    return ProviderEvent(type=name, payload="x" * size)


def holding(*items: Any) -> Held:
    held = Held()
    for item in items:
        held.add(item)
    return held


def test_everything_is_given_up_in_order_and_once() -> None:
    items = [raw("a"), PartStart(1), CITED, PartStart(2), LOGPROBS]
    held = holding(*items)
    assert held.take() == items
    assert held.take() == held.take_events() == []
    held.add(CITED)
    assert held.take() == [CITED]


def test_of_starts_of_parts_in_a_row_the_last_one_is_held() -> None:
    assert holding(PartStart(1), PartStart(2), CITED, PartStart(3), PartStart(4)).take() == [
        PartStart(2), CITED, PartStart(4),
    ]  # fmt: skip


def test_an_answer_that_does_not_begin_has_events_and_no_parts() -> None:
    assert holding(PartStart(1), CITED, PartStart(2), raw("a")).take_events() == [CITED, raw("a")]


@pytest.mark.parametrize(("more", "dropped"), [(0, 0), (1, 1)])
def test_raw_events_are_held_up_to_four_mebibytes(more: int, dropped: int) -> None:
    small = raw("a")
    size = 4 * 1_048_576 - cost_of(small) - cost_of(raw("b"))
    held = holding(small, raw("b", size + more), CITED)
    assert held.dropped == dropped
    assert [event.__class__ for event in held.take()] == [ProviderEvent] * (2 - dropped) + [Citation]


def test_a_raw_event_that_there_is_no_room_for_leaves_room_for_smaller_ones() -> None:
    held = holding(raw("a"), raw("b", 5_000_000), raw("c", 5_000_000), raw("d"))
    assert [event.type for event in held.take_events() if isinstance(event, ProviderEvent)] == ["a", "d"]
    assert held.dropped == 2


def test_the_first_raw_event_is_held_however_large_it_is_and_no_other_one_beside_it() -> None:
    held = holding(CITED, raw("a", 5_000_000), raw("b"), CITED)
    items = held.take()
    assert [event.__class__ for event in items] == [Citation, ProviderEvent, Citation]
    assert (items[1].type, held.dropped) == ("a", 1)


def test_only_raw_events_are_bounded() -> None:
    cited = Citation(kind="url", cited_text="x" * 3_000_000)
    held = holding(*[cited] * 5, raw("a", 4_000_000))
    assert (len(held.take()), held.dropped) == (6, 0)
