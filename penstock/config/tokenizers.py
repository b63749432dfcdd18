"""Tokenizers: functions that split text into tokens. No character is lost: ``"".join(tokens) == text``, always.

They have no state and take linear time. Each call sees one pushed piece, so a word that is pushed in two pieces becomes
two tokens. No token is empty; an empty text has no tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial

from penstock.config.checks import check_number
from penstock.config.options import Tokenizer
from penstock.errors import OptionError

__all__ = ["TOKENIZERS", "characters", "find_tokenizer", "fixed", "lines", "sentences", "words"]

# No-break spaces do not separate words. Possessive quantifiers keep the match linear.
_WORD = re.compile(r"[\S\u00a0\u202f]++[^\S\u00a0\u202f]*+|[^\S\u00a0\u202f]++")
_LINE = re.compile(r"[^\r\n]*+(?:\r\n|\r|\n)|[^\r\n]++")


def words(text: str) -> list[str]:
    """Split into words, each with the white space after it; leading white space is a token of its own.

    Only white space separates words, so ``3.14``, URLs and ``e.g.`` stay whole. For scripts without spaces between
    words use `characters`.

    >>> words("Pi is  3.14, e.g.")
    ['Pi ', 'is  ', '3.14, ', 'e.g.']
    """
    return _WORD.findall(text)


def lines(text: str) -> list[str]:
    r"""Split into lines, each with its line end: LF, CRLF or CR. Nothing else ends a line, not even U+2028.

    >>> lines("one\r\n\ntwo")
    ['one\r\n', '\n', 'two']
    """
    return _LINE.findall(text)


def fixed(size: int) -> Callable[[str], list[str]]:
    """Make a tokenizer that splits after every ``size`` code points, 1 … 1,000,000; the last token may be shorter.

    Raises:
        OptionError: ``size`` is out of range.

    >>> fixed(4)("abcdefghi")
    ['abcd', 'efgh', 'i']
    """
    check_number("size", size, 1, 1_000_000, whole=True)
    return partial(_cut, size=size)


def _cut(text: str, *, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- characters ----------------------------------------------------------------------------------------------------

_JOINER = "\u200d"
_NON_JOINER = "\u200c"
_MARKS = frozenset({"Mn", "Mc", "Me"})


def characters(text: str) -> list[str]:
    r"""Split into what a reader sees as characters: a base with combining marks, an emoji sequence, a flag, CRLF.

    Close to the grapheme clusters of Unicode's UAX 29, without its tables. Surrogate pairs stay together.

    >>> [len(token) for token in characters("e\u0301a")]
    [2, 1]
    """
    if text.isascii() and "\r\n" not in text:
        return list(text)
    tokens: list[str] = []
    start = flags = 0
    for at in range(1, len(text)):
        flags = flags + 1 if _is_flag_letter(text[at - 1]) else 0
        if _continues(text[at - 1], text[at], flags):
            continue
        tokens.append(text[start:at])
        start = at
    return [*tokens, text[start:]] if text else tokens


def _continues(before: str, char: str, flags: int) -> bool:
    """Whether ``char`` continues the character that ends with ``before``, after ``flags`` consecutive flag letters."""
    if char < "\u0300":
        return before == "\r" and char == "\n"
    if char in (_JOINER, _NON_JOINER) or unicodedata.category(char) in _MARKS:
        return True
    if before == _JOINER:
        return unicodedata.category(char) == "So"  # 👩‍💻, but not ZWJ before a letter
    if _is_flag_letter(char):
        return flags % 2 == 1
    return (
        "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags: the flags of Scotland, Wales …
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= char <= "\udfff")
        or ("\u1160" <= char <= "\u11ff" and "\u1100" <= before <= "\u11ff")  # Hangul written in jamo
    )


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


# --- sentences -----------------------------------------------------------------------------------------------------

# Matches all stop marks, so that no character is examined twice; `_ends_sentence` decides whether one ends a sentence.
_STOP = re.compile(r"(?P<marks>[.!?…。！？؟۔।॥]++)[\"'”’»)\]」』]*+(?P<blanks>\s*+)|\n\s*\n\s*+")
_ABBREVIATIONS = frozenset(
    {
        "approx",
        "bzw",
        "ca",
        "cf",
        "cp",
        "dr",
        "eg",
        "etc",
        "fig",
        "ie",
        "inc",
        "jr",
        "mr",
        "mrs",
        "ms",
        "nr",
        "ph.d",
        "prof",
        "sen",
        "sr",
        "st",
        "usw",
        "vgl",
        "vol",
        "vs",
    }
)
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, e.g, z.B
_LAST_WORD = re.compile(r"[^\s(\[\"'“„«]*\Z")
_LONGEST_ABBREVIATION = 8


def sentences(text: str) -> list[str]:
    """Split into sentences, each with the white space after it; an empty line also ends a sentence.

    A rule of thumb: a full stop ends a sentence if white space follows, the next letter is not lower-case, and the word
    before it is neither an initial (``J.``) nor a common abbreviation (``e.g.``, ``Dr.``).

    >>> sentences("Pi is 3.14, e.g. here. Dr. No agrees!  Really?")
    ['Pi is 3.14, e.g. here. ', 'Dr. No agrees!  ', 'Really?']
    """
    tokens: list[str] = []
    start = 0
    for stop in _STOP.finditer(text):
        if stop.end() < len(text) and _ends_sentence(text, start, stop):
            tokens.append(text[start : stop.end()])
            start = stop.end()
    if start < len(text):
        tokens.append(text[start:])
    return tokens


def _ends_sentence(text: str, start: int, stop: re.Match[str]) -> bool:
    marks, blanks = stop["marks"], stop["blanks"]
    if marks is None or blanks.count("\n") > 1 or marks[-1] in "。！？؟۔।॥":
        return True
    if not blanks:
        return False
    following = text[stop.end()]
    if marks != ".":
        return not following.islower()
    before = _LAST_WORD.search(text, max(start, stop.start() - _LONGEST_ABBREVIATION), stop.start())
    word = before[0] if before else ""
    abbreviated = word.lower() in _ABBREVIATIONS or _INITIALS.fullmatch(word)
    return not (following.islower() or (abbreviated and "\n" not in blanks))


# --- by name -------------------------------------------------------------------------------------------------------

TOKENIZERS: dict[str, Tokenizer] = {
    "words": words,
    "characters": characters,
    "sentences": sentences,
    "lines": lines,
}
"""The tokenizers by name, for settings and the command line; see also `find_tokenizer`."""

_FIXED = re.compile(r"fixed\(([0-9]{1,7})\)")


def find_tokenizer(name: str) -> Tokenizer | None:
    """Return the tokenizer of a name: one of `TOKENIZERS`, ``"fixed(8)"``, or ``"none"`` for None.

    Raises:
        OptionError: no tokenizer has that name.

    >>> find_tokenizer("fixed(2)")("abc")
    ['ab', 'c']
    """
    if name == "none":
        return None
    if sized := _FIXED.fullmatch(name):
        return fixed(int(sized[1]))
    if name not in TOKENIZERS:
        raise OptionError("tokenizer", name, " | ".join([*TOKENIZERS, "fixed(n)", "none"]))
    return TOKENIZERS[name]
