"""Places of what an answer has besides text: each citation is in the part that its span is in."""

from __future__ import annotations

import pytest

from penstock.actors.call.extras import Extras
from penstock.events import Citation
from penstock.ports import BlockStart, CitationDelta


def placed(extras: Extras, start: int | None, end: int | None, written: int) -> tuple[int | None, int | None, int]:
    (event,) = extras.note(CitationDelta(Citation(kind="url", url="u", start=start, end=end)), written, 0, "p")
    assert isinstance(event, Citation)
    return event.start, event.end, event.part


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 2, (16, 18, 4)),
        (-2, 0, (14, 16, 3)),
        (-4, -1, (12, 15, 3)),
        (-6, -4, (10, 12, 2)),
        (-6, 2, (10, 18, 2)),  # it begins in that part
        (None, None, (None, None, 4)),
    ],
)
def test_a_citation_of_an_earlier_block_is_in_the_part_of_that_block(
    start: int | None, end: int | None, expected: tuple[int | None, int | None, int]
) -> None:
    extras = Extras()
    extras.text_before, extras.part = 10, 2  # of earlier rounds
    assert extras.start_block(BlockStart("text"), 2, has_said=True)
    assert extras.start_block(BlockStart("text"), 6, has_said=True)
    assert placed(extras, start, end, 8) == expected


def test_a_block_without_a_joint_is_in_the_same_part() -> None:
    extras = Extras()
    assert not extras.start_block(BlockStart("text", is_joint=False), 3, has_said=True)
    assert placed(extras, 0, 1, 4) == (3, 4, 0)
    assert placed(extras, -3, 0, 4) == (0, 3, 0)


def test_reasoning_between_two_texts_is_a_part_that_no_citation_is_in() -> None:
    extras = Extras()
    extras.start_block(BlockStart("reasoning"), 4, has_said=True)
    extras.start_block(BlockStart("text"), 4, has_said=True)
    assert placed(extras, 0, 2, 6) == (4, 6, 2)
    assert placed(extras, -4, -1, 6) == (0, 3, 0)
