"""Counting and measuring the text of a stream. Pure: the time is passed in. Linear in the text."""

from __future__ import annotations

import re
from array import array
from collections import deque
from typing import Final

from penstock.config.units import cut

__all__ = ["Pace", "TextCounts"]

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_LINE_KEPT: Final = 256  # characters of a line in which a fence is looked for
_GAPS: Final = 512  # times between tokens that are kept
_SPAN: Final = 10.0  # seconds of which the rates are
_BUCKET: Final = 0.5  # seconds that are counted together


class TextCounts:
    """The characters, words, sentences, lines and code blocks of a text that comes in pieces.

    Words are divided by white space. A code block begins at a line of three backticks or tildes, or more.

    >>> counts = TextCounts()
    >>> for piece in ("Dr. No agr", "ees. Yes!"):
    ...     counts.feed(piece)
    >>> counts.characters, counts.words, counts.sentences, counts.lines, counts.code_blocks
    (19, 4, 2, 1, 0)
    """

    __slots__ = ("_cut_at", "_ends_in_word", "_fence", "_line", "_pending", "_sentences", "_size", "characters",
                 "code_blocks", "newlines", "words")  # fmt: skip

    def __init__(self) -> None:
        self.characters = 0
        self.words = 0
        self.newlines = 0
        self.code_blocks = 0
        self._ends_in_word = False
        self._line = ""  # the beginning of the last line
        self._fence = ""  # of the code block that is open
        self._sentences = 0
        self._pending: list[str] = []  # text that is not yet cut into sentences
        self._size = 0  # its characters
        self._cut_at = 256  # the size at which it is cut: so large that each character is cut about twice

    @property
    def in_code(self) -> bool:
        """Whether a code block is open."""
        return bool(self._fence)

    @property
    def lines(self) -> int:
        """The lines, with the last one if it is not empty."""
        return self.newlines + bool(self._line)

    @property
    def sentences(self) -> int:
        """The sentences, with the last, open one."""
        return self._sentences + sum(1 for one in cut("".join(self._pending), "sentence") if not one.isspace())

    def feed(self, piece: str) -> None:
        """Take the next piece of the text."""
        if not piece:
            return
        self.characters += len(piece)
        self.words += len(piece.split()) - (self._ends_in_word and not piece[0].isspace())
        self._ends_in_word = not piece[-1].isspace()
        self._pending.append(piece)
        self._size += len(piece)
        if self._size >= self._cut_at:
            self._cut()
        if "\n" not in piece:
            if len(self._line) < _LINE_KEPT:
                self._line += piece[:_LINE_KEPT]
            return
        first, *others, last = piece.split("\n")
        self._end_line(self._line + first)
        for line in others:
            self._end_line(line)
        self.newlines += len(others) + 1
        self._line = last[:_LINE_KEPT]

    def _end_line(self, line: str) -> None:
        if "```" not in line and "~~~" not in line:
            return
        match = _FENCE.match(line[:_LINE_KEPT])
        if match is None:
            return
        fence, info = match.groups()
        if not self._fence:
            if fence[0] == "~" or "`" not in info:
                self._fence = fence
                self.code_blocks += 1
        elif fence.startswith(self._fence) and not info.strip():
            self._fence = ""

    def _cut(self) -> None:
        text = "".join(self._pending)
        *whole, last = cut(text, "sentence")
        self._sentences += sum(1 for one in whole if not one.isspace())
        if len(last) > 4096:  # longer than any real sentence
            self._sentences, last = self._sentences + 1, ""
        self._pending, self._size = [last], len(last)
        self._cut_at = 256 + 2 * len(last)


class Pace:
    """The times between tokens, and how much came in the last ten seconds.

    >>> pace = Pace()
    >>> for number in range(11):
    ...     pace.came(2, 8, now=number / 10)
    >>> round(pace.quantile(0.95), 3), pace.rates(now=1.0)
    (0.05, (22.0, 88.0))
    """

    __slots__ = ("_buckets", "_gaps", "_is_interrupted", "_next", "first", "last")

    def __init__(self) -> None:
        self.first: float | None = None
        """When the first token came."""
        self.last: float | None = None
        """When the last one came."""
        self._is_interrupted = False
        self._gaps: array[float] = array("d")  # a ring
        self._next = 0
        self._buckets: deque[list[float]] = deque()  # since when, tokens, characters

    def came(self, tokens: int, characters: int, now: float) -> None:
        """Note that so many tokens have come together."""
        if not tokens:
            return
        if self.first is None:
            self.first = now
        elif not self._is_interrupted:
            assert self.last is not None
            gap = max(0.0, now - self.last) / tokens
            if len(self._gaps) < _GAPS:
                self._gaps.append(gap)
            else:
                self._gaps[self._next] = gap
                self._next = (self._next + 1) % _GAPS
        self.last, self._is_interrupted = now, False
        buckets = self._buckets
        if not buckets or now - buckets[-1][0] >= _BUCKET:
            buckets.append([now, 0, 0])
            while buckets[0][0] < now - _SPAN:
                buckets.popleft()
        buckets[-1][1] += tokens
        buckets[-1][2] += characters

    def interrupt(self) -> None:
        """Do not count the time until the next token: it is waited for something else."""
        self._is_interrupted = True

    def quantile(self, share: float) -> float | None:
        """The ``share`` quantile (0 … 1) of the last 512 times between tokens; None if there are none."""
        gaps = sorted(self._gaps)
        return gaps[min(len(gaps) - 1, int(share * len(gaps)))] if gaps else None

    def rates(self, now: float) -> tuple[float, float]:
        """Tokens and characters a second over the last ten seconds, or since the first token if that is less."""
        if self.first is None:
            return 0.0, 0.0
        recent = [bucket for bucket in self._buckets if bucket[0] >= now - _SPAN]
        seconds = min(_SPAN, max(now - self.first, _BUCKET))
        return sum(tokens for _, tokens, _ in recent) / seconds, sum(count for *_, count in recent) / seconds
