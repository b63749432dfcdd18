"""How many of OTP's numbered scenarios are tested, told at the end of a run.

A test covers the scenarios that its name begins with: ``test_A19_…``, ``test_B3_B4_…``. What cannot hold in Python is
in its module's ``DIFFERENT``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import pytest

SUITES: Final = {
    "A": ("gen_statem", 50),
    "B": ("supervisor", 60),
    "C": ("links and monitors", 20),
}
_NAMED: Final = re.compile(r"test_((?:[ABC]\d+_)+)")
_COUNT: Final = pytest.StashKey["Count"]()


class Line(NamedTuple):
    """One suite's count."""

    letter: str
    covered: int
    different: int
    missing: tuple[int, ...]

    def __str__(self) -> str:
        what, total = SUITES[self.letter]
        said = f"{self.letter}1-{self.letter}{total} {what}: {self.covered} covered, {self.different} different, "
        said += f"{len(self.missing)} missing"
        few = 0 < len(self.missing) <= 10
        return said + (f" ({', '.join(f'{self.letter}{n}' for n in self.missing)})" if few else "")


class Count:
    """What has been collected, and what of it failed."""

    def __init__(self) -> None:
        self.covered: dict[str, set[int]] = {letter: set() for letter in SUITES}
        self.different: dict[str, set[int]] = {letter: set() for letter in SUITES}

    def collected(self, name: str, different: Mapping[int, str]) -> None:
        """A test of that name is there, in a module that says ``different``."""
        for letter, number in scenarios_of(name):
            self.covered[letter].add(number)
            self.different[letter].update(different)

    def failed(self, name: str) -> None:
        """It does not show what it is there to show."""
        for letter, number in scenarios_of(name):
            self.covered[letter].discard(number)

    def lines(self) -> list[Line]:
        """A line for each suite; none if nothing of all three was collected."""
        if not any(self.covered.values()):
            return []
        return [self._line(letter, total) for letter, (_, total) in SUITES.items()]

    def _line(self, letter: str, total: int) -> Line:
        everything = range(1, total + 1)
        covered = self.covered[letter].intersection(everything)
        different = self.different[letter].intersection(everything) - covered
        return Line(letter, len(covered), len(different), tuple(n for n in everything if n not in covered | different))


def scenarios_of(name: str) -> list[tuple[str, int]]:
    """Which scenarios a test of that name is about.

    >>> scenarios_of("test_B3_B4_a_child_that_ends_normally")
    [('B', 3), ('B', 4)]
    """
    named = _NAMED.match(name)
    return [(one[0], int(one[1:])) for one in named[1].rstrip("_").split("_")] if named else []


def count_items(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Count what is about to be run."""
    count = config.stash.setdefault(_COUNT, Count())
    for item in items:
        module: Any = getattr(item, "module", None)
        count.collected(item.name, getattr(module, "DIFFERENT", {}))


def write_count(terminal: Any, config: pytest.Config) -> None:
    """Write a line for each suite under the results."""
    count = config.stash.get(_COUNT, None)
    if count is None:
        return
    for report in (*terminal.stats.get("failed", ()), *terminal.stats.get("error", ())):
        count.failed(report.nodeid.rpartition("::")[2])
    lines = count.lines()
    if lines:
        terminal.section("scenarios of OTP", sep="-")
    for line in lines:
        terminal.write_line(str(line))
