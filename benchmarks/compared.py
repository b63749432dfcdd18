"""Compares what was measured now with a page of earlier results: what got slower by more than noise. Pure.

The page itself is read, so that no second file with the same figures can differ from it. A figure has its median and
its range over the rounds. From these:

- The standard deviation of one measurement, of the logarithm of the figure, is the range divided by the mean range of
  as many normal values. Three rounds that happen to agree say little, so that the value of a row is at least the median
  of all rows of its page; a row that was measured once has the upper quartile.
- The median of n rounds has that deviation × 1.25 / √n.
- A figure has got slower if the change is more than three times the deviation of the change, and more than `LEAST`.

Times depend on the machine too. The peers do not change with Penstock, so that the median change of a table's peers, or
of all peers if the table has none, is taken for the machine's, with the deviation that it has itself. If the peers'
changes differ from each other by more than their own noise, the machine affects figures differently, and that is noise
as well. Bytes and counts are compared as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.tables import HEADINGS, Table, number, to_markdown

__all__ = ["LEAST", "Change", "Comparison", "Figure", "compare", "read_page", "report"]

LEAST = 0.05
"""A change of less than this share is not told, however certain it is."""
_CERTAIN = 3.0
_MEAN_RANGES = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847, 9: 2.970, 10: 3.078}
_TIMES = ("ns", "µs", "ms", "s")
_VALUE = r"-?[\d,]+(?:\.\d+)?"
_CELL = re.compile(rf"({_VALUE})(?: \(({_VALUE}) – ({_VALUE})\))?$")
_SAME = "the same"
_COLUMNS = len(HEADINGS)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a page: its median, and its smallest and largest value if it was measured more than once."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the logarithm of one measurement; None if it was measured once, or is 0."""
        if self.rounds < 2 or self.low <= 0:
            return None
        return math.log(self.high / self.low) / _MEAN_RANGES[min(self.rounds, 10)]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a page: Penstock's figure, and that of the peer."""

    ours: Figure
    theirs: Figure | None
    unit: str

    @property
    def is_time(self) -> bool:
        return self.unit in _TIMES

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return "/s" in self.unit


Page = dict[tuple[str, str, str], Line]
"""The rows by the table's title, what was measured with its unit, and the peer."""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure that differs: ``factor`` is how many times slower it is, the machine's change taken away."""

    table: str
    what: str
    before: float
    now: float
    factor: float
    noise: float

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.what}: {number(self.before)} → {number(self.now)},"
            f" {self.factor:.2f} × (noise up to {self.noise:.2f} ×)"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found: ``machine`` is how many times slower the peers' times are, 1 without any."""

    slower: list[Change]
    faster: list[Change]
    compared: int
    gone: list[str]
    machine: float


def read_page(text: str) -> Page:
    """Read the tables of a page of results.

    A row that is called "the same: …" is named after the last one that is not.

    >>> row = "| a token, µs | ≤ 4 | 3 (2 – 4) | pykka | 9 (8 – 9) | 3 (2 – 4) | met |"
    >>> read_page("median of 3 rounds\\n## Pushed\\n" + row)["Pushed", "a token, µs", "pykka"].theirs
    Figure(median=9.0, low=8.0, high=9.0, rounds=3)
    """
    found = re.search(r"median of (\d+) rounds", text)
    rounds = int(found[1]) if found else 1
    page: Page = {}
    title = name = ""
    for line in text.splitlines():
        if line.startswith("## "):
            title = line[3:]
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if not line.startswith("|") or len(cells) != _COLUMNS:
            continue
        ours, theirs = _figure(cells[2], rounds), _figure(cells[4], rounds)
        what = cells[0]
        if what.startswith(_SAME):
            what = f"{name}: {what}"
        else:
            name = what
        if ours is not None:
            page.setdefault((title, what, cells[3]), Line(ours, theirs, cells[0].rpartition(", ")[2]))
    return page


def _figure(cell: str, rounds: int) -> Figure | None:
    found = _CELL.match(cell)
    if not found:
        return None
    middle, low, high = (float(part.replace(",", "")) if part else None for part in found.groups())
    assert middle is not None
    if low is None or high is None:
        return Figure(middle, middle, middle, 1)
    return Figure(middle, low, high, rounds)


def page_of(tables: Iterable[Table], rounds: int) -> Page:
    """Return the rows of tables that were measured just now, with the figures that a page of them would have."""
    return read_page(f"median of {rounds} rounds\n" + "\n".join(map(to_markdown, tables)))


class _Noise:
    """How certain the figures of a page are."""

    def __init__(self, page: Page) -> None:
        figures = [figure for line in page.values() for figure in (line.ours, line.theirs) if figure is not None]
        known = [deviation for figure in figures if (deviation := figure.deviation) is not None]
        self._middle = median(known) if known else 0.0
        self._upper = quantiles(known, n=4)[2] if len(known) > 1 else self._middle

    def of(self, figure: Figure) -> float:
        """The variance of the logarithm of the median."""
        one = figure.deviation
        if one is None:
            return max(self._upper, self._middle) ** 2
        return (max(one, self._middle) * 1.2533) ** 2 / figure.rounds


def compare(before: Page, now: Page) -> Comparison:
    """Compare two pages; rows that only ``now`` has are left out."""
    noises = _Noise(before), _Noise(now)
    shared = [key for key in now if key in before]
    machines = {
        title: _machine([key for key in shared if key[0] == title], before, now, noises) for title, *_ in shared
    }
    everywhere = _machine(shared, before, now, noises) or (0.0, 0.0)
    slower: list[Change] = []
    faster: list[Change] = []
    told: set[tuple[str, str]] = set()
    for key in shared:
        title, what, _ = key
        was, new = before[key], now[key]
        if (title, what) in told or was.ours.median <= 0 or new.ours.median <= 0:
            continue
        told.add((title, what))
        change = math.log(new.ours.median / was.ours.median)
        variance = noises[0].of(was.ours) + noises[1].of(new.ours)
        if was.is_time:
            machine, uncertain = machines[title] or everywhere
            change -= machine
            variance += uncertain
        if was.is_rate:
            change = -change
        limit = max(_CERTAIN * math.sqrt(variance), math.log1p(LEAST))
        if abs(change) > limit:
            found = Change(title, what, was.ours.median, new.ours.median, math.exp(change), math.exp(limit))
            (slower if change > 0 else faster).append(found)
    slower.sort(key=lambda each: -each.factor)
    faster.sort(key=lambda each: each.factor)
    titles = {title for title, *_ in now}
    gone = [f"{title}: {what}" for title, what, _ in before if title in titles]
    present = {f"{title}: {what}" for title, what, _ in now}
    gone = [name for name in dict.fromkeys(gone) if name not in present]
    return Comparison(slower, faster, len(told), gone, math.exp(everywhere[0]))


def _machine(
    keys: Sequence[tuple[str, str, str]], before: Page, now: Page, noises: tuple[_Noise, _Noise]
) -> tuple[float, float] | None:
    """The logarithm of how many times slower the peers' times are, and its variance; None without peers."""
    changes: dict[tuple[float, float], tuple[float, float]] = {}
    for key in keys:
        was, new = before[key].theirs, now[key].theirs
        if before[key].is_time and was is not None and new is not None and was.median > 0 and new.median > 0:
            # A peer's figure stands in several rows: it counts once.
            changes[was.median, new.median] = (
                math.log(new.median / was.median),
                noises[0].of(was) + noises[1].of(new),
            )
    if not changes:
        return None
    middle = median(each for each, _ in changes.values())
    variance = median(each for _, each in changes.values())
    # 1.4826: from the median of the distances to the deviation, for normal values
    scatter = (1.4826 * median(abs(each - middle) for each, _ in changes.values())) ** 2
    return middle, variance / len(changes) + max(0.0, scatter - variance)


def report(found: Comparison, page: str) -> list[str]:
    """Say in lines what got slower, and what was measured earlier and not now."""
    lines = [
        f"Compared with {page}: {found.compared} figures; the peers' times are {found.machine:.2f} × what they were,"
        " which is taken for the machine's change."
    ]
    if not found.compared:
        return [f"{page} has none of these figures: nothing to compare with."]
    lines.append(f"Slower beyond noise: {len(found.slower)}" + (":" if found.slower else "."))
    lines += [f"  {change}" for change in found.slower]
    lines.append(f"Faster beyond noise: {len(found.faster)}.")
    if found.gone:
        lines.append("Measured there and not now: " + "; ".join(found.gone))
    return lines
