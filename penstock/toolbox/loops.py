"""Finding text that repeats itself, character by character. Pure; linear in the text, whatever it is.

One period is followed at a time: new text is compared with the text that many characters before. Where it differs, the
last 8 characters are looked for in the 400 before them, and the distance is the next period to follow. Once a period
has held for a while, it is traced backwards to where it begins.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["LONGEST_PERIOD", "LoopFinder", "Repetition"]

LONGEST_PERIOD: Final = 400
"""Characters; what repeats after more of them is not found."""

_SAMPLE: Final = 8  # characters that must have come before, for a period to be followed
_STRIDE: Final = 7  # characters until it is looked again
_HELD: Final = 16  # characters that a period has held for; where it breaks, it is looked again at once
_TOGETHER: Final = 32  # characters that are looked at together at least
_TRACED_AT: Final = 64  # characters that a period has held for when it is traced backwards
_KEPT: Final = 2 * LONGEST_PERIOD + _TRACED_AT + _SAMPLE  # characters that stay
_SLICE: Final = 2048  # characters that are looked at together


class Repetition(NamedTuple):
    """Text that repeats itself.

    Attributes:
        start: where it begins, in characters.
        period: the characters after which it repeats.
        length: its characters so far.
    """

    start: int
    period: int
    length: int

    @property
    def repeats(self) -> int:
        """How often the period is in it, as a whole."""
        return self.length // self.period


class LoopFinder:
    """Finds the run at the end of a text that comes in pieces.

    >>> finder = LoopFinder()
    >>> finder.feed("It is:" + " over and over." * 20)
    True
    >>> finder.run
    Repetition(start=6, period=15, length=300)
    """

    __slots__ = ("_base", "_from", "_is_traced", "_look_at", "_new", "_period", "_start", "_text")

    def __init__(self) -> None:
        self._text = ""  # the last characters
        self._new = ""  # what came after them and has not been looked at
        self._from = 0  # where it was found that the period holds
        self._base = 0  # how many came before them
        self._period = 0  # that is followed; 0: none
        self._start = 0  # of the run, as far as it has been traced
        self._is_traced = False
        self._look_at = _SAMPLE  # the length of the whole text at which a period is looked for

    @property
    def length(self) -> int:
        """The characters of the whole text."""
        return self._base + len(self._text) + len(self._new)

    @property
    def run(self) -> Repetition | None:
        """The text that repeats, at the end of what has come; None if there is none, or it is too short to tell."""
        if self._new:
            new, self._new = self._new, ""
            self._look_at_all(new)
        if not self._period or not self._is_traced:
            return None
        return Repetition(self._start, self._period, self.length - self._start)

    def feed(self, piece: str) -> bool:
        """Take the next piece of the text; returns whether it is worth asking for the `run`."""
        new = self._new + piece
        if len(new) < _TOGETHER:
            self._new = new
            return False
        self._new = ""
        self._look_at_all(new)
        return self._is_traced and self._period > 0

    def _look_at_all(self, piece: str) -> None:
        for begin in range(0, len(piece), _SLICE):
            self._feed(piece[begin : begin + _SLICE])

    def _feed(self, piece: str) -> None:
        done = len(self._text)
        if done > 2 * _KEPT:
            self._base += done - _KEPT
            self._text = self._text[-_KEPT:]
            done = _KEPT
        text = self._text = self._text + piece
        end = len(text)
        while done < end:
            if self._period:
                done = self._follow(done)
            else:
                # Where the next sample ends: at a stride from the last one, or at the character that broke a run.
                done = max(done + 1, min(end, self._look_at - self._base))
                if done >= self._look_at - self._base:
                    self._look(done)

    def _follow(self, done: int) -> int:
        """Compare what comes from ``done`` on with the period; returns how far it has been looked at."""
        text, period = self._text, self._period
        end = len(text)
        if text[done:] == text[done - period : end - period]:
            place = end
        else:
            place, high = done, end  # up to `place` it is the same, up to `high` it is not
            while high - place > 1:
                middle = (place + high) // 2
                if text[place:middle] == text[place - period : middle - period]:
                    place = middle
                else:
                    high = middle
        if not self._is_traced and place + self._base - self._from >= _TRACED_AT:
            self._trace()
        if place < end:
            held = place + self._base - self._from
            self._period, self._look_at = 0, self._base + place + (1 if held >= _HELD else _STRIDE)
        return place

    def _look(self, end: int) -> None:
        """Look for the last characters before ``end`` in the text before them."""
        first = end - _SAMPLE
        text = self._text
        before = text.rfind(text[first:end], max(0, first - LONGEST_PERIOD), end - 1)
        if before < 0:
            self._look_at = self._base + end + _STRIDE
            return
        self._period, self._is_traced = first - before, False
        self._start, self._from = self._base + before, self._base + end

    def _trace(self) -> None:
        """Find the beginning of the run, as far back as the text is kept."""
        text, period = self._text, self._period
        low, high = 0, self._start - self._base  # the run begins at `high` or before, and not before `low`
        while low < high:
            middle = (low + high) // 2
            if text[middle:high] == text[middle + period : high + period]:
                high = middle
            else:
                low = middle + 1
        self._start, self._is_traced = self._base + high, True
