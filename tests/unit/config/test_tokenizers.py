from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.options import StreamOptions, Tokenizer
from penstock.config.tokenizers import TOKENIZERS, characters, find_tokenizer, fixed, lines, sentences, words
from penstock.errors import OptionError

ALL: dict[str, Tokenizer] = {**TOKENIZERS, "fixed(1)": fixed(1), "fixed(7)": fixed(7)}

# Text that is likely to hit what the tokenisers look at, lone surrogates included.
TEXT = st.one_of(
    st.text(),
    st.text(st.characters(categories=None, exclude_categories=())),
    st.text(" \t\n\r.!?…。\"')\u00a0\u0301\u200d\u200c\ufe0f👩💻🇩🇪🏽\ud83d\ude00eE3J"),
)


@pytest.mark.parametrize("name", ALL)
@given(text=TEXT)
def test_no_tokeniser_ever_loses_a_character(name: str, text: str) -> None:
    tokens = list(ALL[name](text))
    assert "".join(tokens) == text
    assert all(tokens), "no token is empty"


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "unit", ["a", " ", ".", "\n", "\r", "\r\n", ". ", "?)", "\n ", "e\u0301", "\u0301", "\u200d", "🇩", "A.b ", "\u00a0"]
)
def test_time_grows_linearly_with_the_text(name: str, unit: str) -> None:
    text = unit * (300_000 // len(unit))  # a quadratic one takes minutes, and runs into the test's time-out
    assert "".join(ALL[name](text)) == text


def test_words_keep_the_blanks_that_follow_them() -> None:
    assert words("Hello  big\nworld ") == ["Hello  ", "big\n", "world "]
    assert words("  Hello") == ["  ", "Hello"]
    assert words(" \n") == [" \n"]


@pytest.mark.parametrize(
    "whole", ["3.14", "https://a.example/x?y=1,2&z=%20#f", "e.g.", "don't", "10\u00a0km", "a\u202f%"]
)
def test_words_never_split_what_holds_no_blank(whole: str) -> None:
    assert words(f"is {whole} it") == ["is ", f"{whole} ", "it"]


@pytest.mark.parametrize(
    "one",
    [
        "e\u0301",
        "👩\u200d💻",
        "👍🏽",
        "🇩🇪",
        "❤\ufe0f",
        "\r\n",
        "\ud83d\ude00",
        "क्",
        "가",
        "\u1112\u1161\u11ab",
        "🏴\U000e0067\U000e007f",
    ],
)
def test_characters_keep_together_what_is_read_as_one(one: str) -> None:
    assert characters(f"a{one}b") == ["a", one, "b"]
    assert characters(one + one) == [one, one]


def test_characters_are_single_otherwise() -> None:
    assert characters("añ日\n ") == ["a", "ñ", "日", "\n", " "]
    assert characters("abc") == ["a", "b", "c"]
    assert characters("🇩🇪🇫") == ["🇩🇪", "🇫"]
    assert characters("") == []


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("One. Two!  Three?", ["One. ", "Two!  ", "Three?"]),
        ('He said "No." Then left.', ['He said "No." ', "Then left."]),
        ("Pi is 3.14. Next", ["Pi is 3.14. ", "Next"]),
        ("See e.g. Rome or z.B. Bonn. Yes", ["See e.g. Rome or z.B. Bonn. ", "Yes"]),
        ("Dr. Who met J. Smith. End", ["Dr. Who met J. Smith. ", "End"]),
        ("Visit example.com. Then https://a.b/c.d?e go", ["Visit example.com. ", "Then https://a.b/c.d?e go"]),
        ("well... and so", ["well... and so"]),
        ("A title\n\nA text", ["A title\n\n", "A text"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_say_so(text: str, tokens: list[str]) -> None:
    assert sentences(text) == tokens


def test_lines_end_at_lf_crlf_and_cr_only() -> None:
    assert lines("a\nb\r\nc\rd\u2028e\x0bf") == ["a\n", "b\r\n", "c\r", "d\u2028e\x0bf"]
    assert lines("\n\n") == ["\n", "\n"]


def test_fixed_cuts_pieces_of_one_size_and_a_rest() -> None:
    assert fixed(3)("abcdefg") == ["abc", "def", "g"]


@pytest.mark.parametrize("size", [0, -1, 1_000_001, 1.5, True])
def test_fixed_refuses_a_size_out_of_range(size: int) -> None:
    with pytest.raises(OptionError, match=r"size: got .* from 1 to 1000000"):
        fixed(size)


def test_a_tokeniser_is_found_by_name() -> None:
    assert find_tokenizer("words") is words
    assert find_tokenizer("none") is None
    sized = find_tokenizer("fixed(2)")
    assert sized is not None
    assert list(sized("abc")) == ["ab", "c"]


@pytest.mark.parametrize("name", ["", "Words", "fixed", "fixed()", "fixed(0)", "fixed(9999999)", "fixed(-1)"])
def test_an_unknown_tokeniser_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_tokenizer(name)
    assert caught.value.field in ("tokenizer", "size")


def test_every_tokeniser_is_a_stream_option() -> None:
    for tokenizer in ALL.values():
        assert StreamOptions(tokenizer=tokenizer).tokenizer is tokenizer
