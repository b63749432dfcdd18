"""The results of a benchmark: samples, rows, tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

__all__ = ["UNSTABLE", "Aim", "Row", "Samples", "Table", "cells", "number", "to_markdown"]

UNSTABLE = 1.5
"""A ratio whose largest value in a round is this many times its smallest is marked."""
HEADINGS = ("what", "aim", "ours", "peer", "peer’s", "peer ÷ ours", "")


@dataclass(frozen=True, slots=True)
class Samples:
    """One figure, measured several times."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, results: Sequence[dict[str, float]], key: str) -> Samples:
        """Return the value of ``key`` in each round."""
        return cls(tuple(result[key] for result in results))

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return number(self.values[0])
        return f"{number(self.median)} ({number(min(self.values))} – {number(max(self.values))})"


@dataclass(frozen=True, slots=True)
class Aim:
    """A target for Penstock's figure, or for the ratio of the peer's figure to it.

    >>> str(Aim("at most", 25)), str(Aim("times less", 8))
    ('≤ 25', '≥ 8 × less')
    """

    kind: Literal["at most", "at least", "times less"]
    limit: float

    def __str__(self) -> str:
        if self.kind == "times less":
            return f"≥ {number(self.limit)} × less"
        return f"{'≤' if self.kind == 'at most' else '≥'} {number(self.limit)}"

    def is_met(self, row: Row) -> bool:
        """Return whether the medians meet the target."""
        if self.kind == "times less":
            return row.ratio is not None and row.ratio >= self.limit
        return row.ours.median <= self.limit if self.kind == "at most" else row.ours.median >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure: Penstock's, its target, and the figure of a peer."""

    what: str
    unit: str
    ours: Samples
    aim: Aim | None = None
    peer: str = ""
    theirs: Samples | None = None

    @property
    def ratio(self) -> float | None:
        """The peer's median divided by Penstock's."""
        if self.theirs is None or not self.ours.median:
            return None
        return self.theirs.median / self.ours.median

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio in each round, if both were measured equally often."""
        if self.theirs is None or len(self.theirs.values) != len(self.ours.values) or not all(self.ours.values):
            return ()
        return tuple(theirs / ours for ours, theirs in zip(self.ours.values, self.theirs.values, strict=True))

    @property
    def shown_ratio(self) -> str:
        """The ratio and its range over the rounds; ``unstable`` if the range spans `UNSTABLE` or more.

        >>> Row("push", "µs", Samples((1.0, 2.0)), None, "peer", Samples((4.0, 4.0))).shown_ratio
        '2.67 (2 – 4), unstable'
        """
        if self.ratio is None:
            return ""
        ratios = self.ratios
        if len(ratios) < 2:
            return number(self.ratio)
        low, high = min(ratios), max(ratios)
        unstable = ", unstable" if not low or high / low >= UNSTABLE else ""
        return f"{number(self.ratio)} ({number(low)} – {number(high)}){unstable}"

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` with the factor, or an empty string if there is no target."""
        if self.aim is None:
            return ""
        if self.aim.is_met(self):
            return "met"
        value = self.ratio if self.aim.kind == "times less" else self.ours.median
        return f"**missed**: {number((value or 0.0) / self.aim.limit)} × the aim"


@dataclass(frozen=True, slots=True)
class Table:
    """The results of one benchmark."""

    title: str
    about: str
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def number(value: float) -> str:
    """Format a figure with three significant digits.

    >>> number(0.8712), number(14.25), number(20000.0)
    ('0.871', '14.2', '20,000')
    """
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row, in the order of `HEADINGS`."""
    return (
        f"{row.what}, {row.unit}",
        str(row.aim or ""),
        str(row.ours),
        row.peer,
        str(row.theirs or ""),
        row.shown_ratio,
        row.verdict,
    )


def to_markdown(table: Table) -> str:
    """Format a table with its heading as Markdown."""
    lines = [f"## {table.title}", "", table.about, ""]
    lines += ["| " + " | ".join(HEADINGS) + " |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in table.rows]
    if table.remarks:
        lines += ["", *(f"- {remark}" for remark in table.remarks)]
    return "\n".join(lines) + "\n"
