"""Where the parts of an answer are in its text. Pure."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

from penstock.events import AnswerPart, Phase, TokenKind

__all__ = ["PartSpans"]


class _Span:
    __slots__ = ("end", "index", "kind", "origin", "phase", "start")

    def __init__(self, index: int, kind: TokenKind, phase: Phase | None, origin: str | None, start: int) -> None:
        self.index = index
        self.kind = kind
        self.phase = phase
        self.origin = origin
        self.start = self.end = start


class PartSpans:
    """The spans of the parts, from the lengths of their tokens in order.

    >>> spans = PartSpans()
    >>> spans.add("text", 8, 0, None)
    >>> spans.add("text", 5, 1, None)
    >>> [(part.index, part.start, part.end) for part in spans.read()]
    [(0, 0, 8), (1, 8, 13)]
    """

    __slots__ = ("_by_kind", "_spans")

    def __init__(self) -> None:
        self._spans: list[_Span] = []
        self._by_kind: dict[TokenKind, list[_Span]] = {}

    def copy(self) -> PartSpans:
        """A copy that can be added to."""
        other = PartSpans()
        for span in self._spans:
            other.add(span.kind, span.end - span.start, span.index, span.phase, span.origin)
        return other

    def without(self, origin: str) -> PartSpans:
        """A copy without the parts of one origin."""
        other = PartSpans()
        for span in self._spans:
            if span.origin != origin:
                other.add(span.kind, span.end - span.start, span.index, span.phase, span.origin)
        return other

    def add(self, kind: TokenKind, length: int, part: int, phase: Phase | None, origin: str | None = None) -> None:
        """Note ``length`` further characters of a kind, in that part and of that origin."""
        if not length:
            return
        spans = self._by_kind.get(kind)
        if spans is None:
            spans = self._by_kind[kind] = []
        last = spans[-1] if spans else None
        if last is None or last.index != part or last.phase != phase or last.origin != origin:
            last = _Span(part, kind, phase, origin, 0 if last is None else last.end)
            spans.append(last)
            self._spans.append(last)
        last.end += length

    def split(self, kind: TokenKind, start: int, end: int, without: str | None = None) -> list[AnswerPart]:
        """The pieces of the text of ``kind`` from ``start`` to ``end``, each of one part, in order.

        Those of the origin ``without`` are left out.

        The cost is that of what it returns, and logarithmic in the number of parts.
        """
        found: list[AnswerPart] = []
        if start >= end:
            return found
        spans = self._by_kind.get(kind, ())
        for place in range(bisect_right(spans, start, key=_end_of), len(spans)):
            span = spans[place]
            if span.start >= end:
                break
            if without is not None and span.origin == without:
                continue
            found.append(
                AnswerPart(
                    index=span.index,
                    kind=kind,
                    start=max(start, span.start),
                    end=min(end, span.end),
                    phase=span.phase,
                    origin=span.origin,
                )
            )
        return found

    def read(self) -> tuple[AnswerPart, ...]:
        """All parts, in order."""
        return tuple(
            AnswerPart(
                index=span.index,
                kind=span.kind,
                start=span.start,
                end=span.end,
                phase=span.phase,
                origin=span.origin,
            )
            for span in self._spans
        )


_end_of: Final = attrgetter("end")
