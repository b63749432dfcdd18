"""Finding text that repeats itself: where it begins, its period, in linear work; and the counts of a text."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.toolbox.insights import Book, LoopLimits
from penstock.toolbox.loops import LONGEST_PERIOD, LoopFinder, Repetition
from penstock.toolbox.measures import Pace, TextCounts


def fed(text: str, cuts: list[int]) -> LoopFinder:
    finder, place, turn = LoopFinder(), 0, 0
    while place < len(text):
        step = cuts[turn % len(cuts)] if cuts else len(text)
        finder.feed(text[place : place + step])
        place, turn = place + step, turn + 1
    return finder


def run_at_end(text: str, period: int) -> int:
    """Where the run with that period begins, by looking at each character."""
    place = len(text) - 1
    while place >= period and text[place] == text[place - period]:
        place -= 1
    return place - period + 1


def unit_of(seed: int, length: int, letters: str = "abcdefghijklmnop qrst") -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(letters) for _ in range(length))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, LONGEST_PERIOD), st.integers(0, 3000), st.integers(0, 999), st.lists(st.integers(1, 40), max_size=5)
)
def test_a_run_is_found_with_its_beginning_and_its_period(period: int, before: int, seed: int, cuts: list[int]) -> None:
    unit = unit_of(seed, period)
    text = unit_of(seed + 1, before) + unit * (4 + 400 // period)
    run = fed(text, cuts).run
    assert run is not None
    least = next(size for size in range(1, period + 1) if unit == unit[:size] * (period // size) and not period % size)
    assert run.period == least
    assert run.start == run_at_end(text, least)
    assert run.start + run.length == len(text)


@given(st.text(alphabet="ab", max_size=1500), st.lists(st.integers(1, 9), max_size=4))
def test_whatever_is_said_to_repeat_does(text: str, cuts: list[int]) -> None:
    run = fed(text, cuts).run
    if run is not None:
        assert text[run.start : -run.period] == text[run.start + run.period :]


@pytest.mark.parametrize("inner", ["ab", "no, ", "row 1;\n"])
@pytest.mark.parametrize("size", [30, 98, 100, 112, 140, 391])
def test_repetitions_within_what_repeats_do_not_hide_it(inner: str, size: int) -> None:
    unit = (inner * 200)[: size - 5] + "#end\n"
    run = fed("Before. " + unit * 20, [3]).run
    assert run is not None
    assert run.period == size


def test_a_numbered_list_is_no_run() -> None:
    text = "".join(f"{number}. The gate number {number} is open.\n" for number in range(500))
    assert LoopFinder().feed(text) in (True, False)
    run = fed(text, [5]).run
    assert run is None or run.repeats < 4


ADVERSARIES = {
    "random of two letters": unit_of(1, 40_000, "ab"),
    "runs that break": "".join("a" * (60 + number % 7) + "b" for number in range(600)),
    "a sample before each change": "".join("abcdefgh" + chr(0x4E00 + number % 97) for number in range(4500)),
    "zeros": "0" * 40_000,
    "Fibonacci's word": "".join("ab"[(number + 1) * 610 // 987 - number * 610 // 987] for number in range(40_000)),
    "prose": unit_of(2, 40_000),
}


@pytest.mark.parametrize("text", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("size", [1, 40])
def test_the_work_is_linear_whatever_the_text(text: str, size: int) -> None:
    """Counted in lines of Python that run, which call only functions of the last 3,000 characters."""

    def lines(text: str) -> int:
        count = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal count
            count += 1
            return trace

        finder = LoopFinder()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for place in range(0, len(text), size):
                finder.feed(text[place : place + size])
        finally:
            sys.settrace(before)
        assert len(finder._text) < 5000
        return count

    half = lines(text[:4000])
    assert lines(text[:8000]) < 2.4 * half + 500
    assert half < 25 * 4000


# --- what is told, and what ends a stream ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "in_code", "ends"),
    [
        (Repetition(0, 10, 999), False, False),
        (Repetition(0, 10, 1000), False, True),
        (Repetition(0, 200, 1500), False, False),  # 7 times
        (Repetition(0, 200, 1600), False, True),
        (Repetition(0, 10, 2999), True, False),
        (Repetition(0, 10, 3000), True, True),
    ],
)
def test_the_limits_of_a_loop_that_ends_the_stream(run: Repetition, in_code: bool, ends: bool) -> None:
    assert LoopLimits(True).exceeded_by(run, in_code=in_code) is ends
    assert not LoopLimits(False).exceeded_by(run, in_code=in_code)


def test_limits_that_are_given_hold_in_code_too() -> None:
    limits = LoopLimits(True, repeats=5, characters=300)
    assert limits.exceeded_by(Repetition(0, 60, 300), in_code=True)
    assert not limits.exceeded_by(Repetition(0, 61, 304), in_code=True)


def test_a_stall_is_two_seconds_or_eight_times_the_usual() -> None:
    book = Book(LoopLimits(False), False, 0.0)
    assert book.stall_limit() == 2.0
    for number in range(40):
        book._pace.came(1, 4, number * 0.5)
    assert book.stall_limit() == 4.0


# --- counts ----------------------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab.! \n\t`~。", max_size=400), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_the_counts_do_not_depend_on_where_the_text_is_cut(text: str, cuts: list[int]) -> None:
    whole, pieces = TextCounts(), TextCounts()
    whole.feed(text)
    place = turn = 0
    while place < len(text):
        step = cuts[turn % len(cuts)]
        pieces.feed(text[place : place + step])
        place, turn = place + step, turn + 1
    assert pieces.characters == whole.characters == len(text)
    assert pieces.words == whole.words == len(text.split())
    assert pieces.lines == whole.lines == len(text.split("\n")) - (text[-1:] in ("", "\n"))
    assert pieces.code_blocks == whole.code_blocks
    assert pieces.sentences == whole.sentences


@pytest.mark.parametrize(
    ("text", "blocks", "is_open"),
    [
        ("```py\nx\n```\n", 1, False),
        ("```py\nx\n", 1, True),
        ("````\n```\n````\n~~~\n", 2, True),
        ("``` `no` \n", 0, False),
        ("a ```\n", 0, False),
        ("```\n```py\n", 1, True),
    ],
)
def test_code_blocks_are_fenced(text: str, blocks: int, is_open: bool) -> None:
    counts = TextCounts()
    for letter in text:
        counts.feed(letter)
    assert (counts.code_blocks, counts.in_code) == (blocks, is_open)


def test_a_text_without_the_end_of_a_sentence_is_not_kept() -> None:
    counts = TextCounts()
    for _ in range(5000):
        counts.feed("word ")
    assert sum(map(len, counts._pending)) < 20_000
    assert counts.sentences == 4


def test_rates_are_of_the_last_ten_seconds() -> None:
    pace = Pace()
    for number in range(300):
        pace.came(1, 5, number * 0.1)
    tokens, characters = pace.rates(29.9)
    assert tokens == pytest.approx(10, rel=0.06)
    assert characters == pytest.approx(50, rel=0.06)
    assert pace.rates(50.0) == (0.0, 0.0)
    assert Pace().rates(1.0) == (0.0, 0.0)
