"""The units in which text is cut: words, sentences, lines, characters. For whole texts, and for texts in pieces.

No character is lost: the units always join to exactly the text. A *character* is what a reader takes for one, a
grapheme cluster (UAX 29), which may be several code points: an ``e`` with its accent, a flag, a Hindi conjunct.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, Literal, TypeAlias

from penstock.config.checks import check_choice, check_number
from penstock.config.tokenizers import lines, sentences, words

__all__ = ["Recutter", "Unit", "check_unit", "clusters", "cut", "whole_prefix"]

Unit: TypeAlias = Literal["word", "sentence", "line", "character"] | int
"""What to cut into; a number: that many code points, or fewer where a character would be cut."""

_NAMES: Final = ("word", "sentence", "line", "character")
_LONGEST_WORD: Final = 64  # code points of a word or character that are held back for the next piece
_LONGEST_SENTENCE: Final = 4096  # the same for a sentence or line

# Scripts that are written without blanks between words; there a word is one character.
_DENSE: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# No-break spaces do not separate words; ASCII's separators do, as for `re` and `str`, though not for Unicode.
_BLANK: Final = r"[[^\S\u00a0\u202f]\x1c-\x1f]"
_WORDS: Final = rf"(?:(?={_DENSE})\X|(?:(?!{_DENSE}|{_BLANK})\X)++)(?:(?={_BLANK})\X)*+|(?:(?={_BLANK})\X)++"


def check_unit(field: str, by: object) -> None:
    """Raise `OptionError` unless ``by`` is a `Unit`.

    >>> check_unit("by", 0)
    Traceback (most recent call last):
    penstock.errors.OptionError: by: got 0, allowed: a whole number from 1 to 1000000
    """
    if isinstance(by, int) and not isinstance(by, bool):
        check_number(field, by, 1, 1_000_000, whole=True)
    else:
        check_choice(field, by, _NAMES)


def cut(text: str, by: Unit) -> list[str]:
    r"""Cut a whole text. No unit is empty; an empty text has none. Linear time.

    Words and sentences have the white space after them; white space at the start is a unit of its own. In scripts
    without blanks (Chinese, Japanese, Thai …) each character is a word.

    >>> cut("Dr. No agrees.  Really?", "sentence")
    ['Dr. No agrees.  ', 'Really?']
    >>> cut("GPT 是什么？", "word")
    ['GPT ', '是', '什', '么', '？']
    >>> [len(piece) for piece in cut("e\u0301a", 2)]
    [2, 1]
    """
    return _cutter(by)(text)


def clusters(text: str) -> list[str]:
    """Cut into characters as a reader sees them (UAX 29).

    >>> [len(one) for one in clusters("e\u0301a")]
    [2, 1]
    """
    if text.isascii() and "\r" not in text:
        return list(text)
    found: list[str] = _pattern(r"\X").findall(text)
    return found


def whole_prefix(text: str, limit: int) -> str:
    """The longest start of the text with at most ``limit`` code points that ends between two characters.

    >>> whole_prefix("e\u0301x", 1), len(whole_prefix("e\u0301x", 2))
    ('', 2)
    """
    if limit <= 0 or len(text) <= limit:
        return text[: max(0, limit)]
    if text[: limit + 1].isascii() and text[limit - 1 : limit + 1] != "\r\n":
        return text[:limit]
    end = 0
    for match in _pattern(r"\X").finditer(text):
        if match.end() > limit:
            break
        end = match.end()
    return text[:end]


class Recutter:
    """Cuts a text that comes in pieces; the units are those of `cut` for the whole text, however it is cut before.

    The last unit is held until it is certain where it ends: until the next piece, or `flush`. At most 64 code points
    of a word or character are held, and 4,096 of a sentence or line; what is longer is given in several units.

    >>> recutter = Recutter("word")
    >>> recutter.feed("pass"), recutter.feed("word is"), recutter.flush()
    ([], ['password '], ['is'])
    """

    __slots__ = ("_cut", "_is_line", "_limit", "open")

    def __init__(self, by: Unit) -> None:
        self._cut = _cutter(by)
        self._is_line = by == "line"
        self._limit = _LONGEST_SENTENCE if by in ("sentence", "line") else _LONGEST_WORD
        if isinstance(by, int):
            self._limit = max(self._limit, by)
        self.open = ""
        """What is held."""

    def feed(self, piece: str) -> list[str]:
        """Take the next piece; returns the units that are complete."""
        if not piece:
            return []
        text = self.open + piece
        units = self._cut(text)
        if self._is_line and text[-1] == "\n":
            self.open = ""
            return units
        last = units.pop()
        if len(last) > self._limit:
            *more, last = _by_length(last, self._limit)
            units += more
        self.open = last
        return units

    def flush(self) -> list[str]:
        """Return what is held as a unit, if there is something. Call it at the end, or when it has waited too long."""
        held, self.open = self.open, ""
        return [held] if held else []

    def reset(self) -> None:
        """Forget what is held."""
        self.open = ""


def _cutter(by: Unit) -> Callable[[str], list[str]]:
    if isinstance(by, int):
        return partial(_by_length, limit=by)
    return {"word": _words, "sentence": sentences, "line": lines, "character": clusters}[by]


def _words(text: str) -> list[str]:
    if text.isascii():
        return words(text)
    found: list[str] = _pattern(_WORDS).findall(text)
    return found


def _by_length(text: str, limit: int) -> list[str]:
    """Cut into pieces of at most ``limit`` code points that end between two characters, or of one long character."""
    if text.isascii() and "\r" not in text:
        return [text[start : start + limit] for start in range(0, len(text), limit)]
    pieces: list[str] = []
    start = end = 0
    for match in _pattern(r"\X").finditer(text):
        if match.end() - start > limit and end > start:
            pieces.append(text[start:end])
            start = end
        end = match.end()
    if end > start:
        pieces.append(text[start:end])
    return pieces


@cache
def _pattern(pattern: str) -> Any:
    """Compile a pattern of `regex`, which is imported here since ASCII text does not need it."""
    return importlib.import_module("regex").compile(pattern, importlib.import_module("regex").V1)
