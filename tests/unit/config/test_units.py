"""Units: whole texts, and texts in pieces. The units always join to the text, and do not depend on the pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.config.units import Recutter, Unit, check_unit, clusters, cut, whole_prefix
from penstock.errors import OptionError

BY: list[Unit] = ["word", "sentence", "line", "character", 1, 3, 7]
HINDI = "क्षत्रिय नमस्ते। ठीक है॥"
THAI = "น้ำตาลทำไม"
FAMILY = "👨‍👩‍👧‍👦🇫🇷🇩🇪🏴󠁧󠁢󠁳󠁣󠁴󠁿"
ODD = [
    "a",
    "B",
    " ",
    "  ",
    ".",
    "!",
    "?",
    "\n",
    "\r",
    "\r\n",
    "e\u0301",
    "\u0301",
    "\u200d",
    "是",
    "ですか",
    "。",
    "”",
    "Dr",
    "1",
]
ODD += ["👩", "🏽", "🇫", "🇷", "क्", "ष", "ำ", "น", "\u00a0", "؟", "۔", "।", "\u2028", "ÿ", "-", '"', "("]
texts = st.lists(st.sampled_from(ODD), max_size=24).map("".join) | st.text(max_size=40)


def pieces_of(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(borders)]


@pytest.mark.parametrize("by", BY)
@given(text=texts)
@example(text=HINDI)
@example(text=THAI)
@example(text=FAMILY)
def test_the_units_of_a_text_join_to_the_text_and_none_is_empty(by: Unit, text: str) -> None:
    units = cut(text, by)
    assert "".join(units) == text
    assert all(units)


@pytest.mark.parametrize("by", BY)
@given(text=texts, places=st.lists(st.integers(0, 1000), max_size=12))
@example(text="Dr. No. Yes", places=[2, 3, 4, 7])
@example(text="ab\u0301c", places=[2])
@example(text="one\r\ntwo\n", places=[4, 5])
@example(text=HINDI, places=list(range(30)))
@example(text=FAMILY, places=list(range(30)))
@example(text="\x1f0\x80", places=[2])  # a separator is a blank, whether the text beside it is ASCII or not
@example(text="a\x1cb\x1d\x1ec\u4e2d", places=[2, 4])
def test_the_units_do_not_depend_on_the_pieces_that_a_text_comes_in(by: Unit, text: str, places: list[int]) -> None:
    recutter = Recutter(by)
    units = [unit for piece in pieces_of(text, places) for unit in recutter.feed(piece)] + recutter.flush()
    assert "".join(units) == text
    if all(len(unit) <= 64 for unit in cut(text, by)):
        assert units == cut(text, by)
    assert recutter.open == ""


@given(text=texts, limit=st.integers(0, 30))
@example(text="e\u0301x", limit=1)
@example(text="a\r\nb", limit=2)
def test_a_whole_prefix_never_ends_inside_a_character_and_is_the_longest(text: str, limit: int) -> None:
    prefix = whole_prefix(text, limit)
    whole = clusters(text)
    count = next((count for count in range(len(whole) + 1) if "".join(whole[:count]) == prefix), None)
    assert count is not None
    assert len(prefix) <= limit
    assert count == len(whole) or len(prefix) + len(whole[count]) > limit


@pytest.mark.parametrize(
    ("text", "by", "units"),
    [
        ("  Pi is\t3.14, e.g.", "word", ["  ", "Pi ", "is\t", "3.14, ", "e.g."]),
        ("是什么 GPT？", "word", ["是", "什", "么 ", "GPT？"]),
        ("a\u00a0b c", "word", ["a\u00a0b ", "c"]),
        ("ทำไม", "word", ["ทำ", "ไ", "ม"]),
        ("Is it? Yes.", "sentence", ["Is it? ", "Yes."]),
        ("これ。それ！", "sentence", ["これ。", "それ！"]),
        ("كيف؟ نعم۔ لا", "sentence", ["كيف؟ ", "نعم۔ ", "لا"]),
        ("नमस्ते। ठीक॥ हाँ", "sentence", ["नमस्ते। ", "ठीक॥ ", "हाँ"]),
        ("3.14 is Pi. Dr. No", "sentence", ["3.14 is Pi. ", "Dr. No"]),
        ("a\r\nb\rc\u2028d", "line", ["a\r\n", "b\r", "c\u2028d"]),
        ("क्षि", "character", ["क्षि"]),
        ("น้ำ", "character", ["น้ำ"]),
        ("🇫🇷🇩🇪", "character", ["🇫🇷", "🇩🇪"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("ab\u0301cd", 2, ["a", "b\u0301", "cd"]),
        ("a\u0301\u0302\u0303b", 2, ["a\u0301\u0302\u0303", "b"]),
        ("", "word", []),
    ],
)
def test_what_the_units_are(text: str, by: Unit, units: list[str]) -> None:
    assert cut(text, by) == units


@pytest.mark.parametrize(("by", "limit"), [("word", 64), ("character", 64), (5, 64), (100, 100), ("sentence", 4096)])
def test_no_more_than_the_limit_is_held(by: Unit, limit: int) -> None:
    recutter = Recutter(by)
    given = ""
    for _ in range(3 * limit):
        given += "".join(recutter.feed("a\u0301"))
        assert len(recutter.open) <= limit
    assert given + "".join(recutter.flush()) == "a\u0301" * (3 * limit)


def test_a_line_that_has_ended_is_not_held_and_a_carriage_return_is() -> None:
    recutter = Recutter("line")
    assert recutter.feed("a\n") == ["a\n"]
    assert recutter.feed("b\r") == []
    assert recutter.feed("\n") == ["b\r\n"]


def test_a_reset_forgets_what_is_held() -> None:
    recutter = Recutter("word")
    recutter.feed("wro")
    recutter.reset()
    assert recutter.feed("ng ") + recutter.flush() == ["ng "]


@pytest.mark.parametrize("by", ["words", 0, -1, 1.5, True, None])
def test_another_unit_is_refused(by: object) -> None:
    with pytest.raises(OptionError, match=r"^by: got "):
        check_unit("by", by)
