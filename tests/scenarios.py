"""Count the numbered scenarios of OTP that are tested, and print the count at the end of a run.

A test covers the scenarios that its name begins with: ``test_A19_…``, ``test_B3_B4_…``. A module's ``DIFFERENT`` names
the scenarios that cannot hold in Python. The count is made from the tests' reports, which pytest-xdist sends from each
worker to the process that prints it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

import pytest

SUITES: Final = {
    "A": ("gen_statem", 50),
    "B": ("supervisor", 60),
    "C": ("links and monitors", 20),
}
_NAMED: Final = re.compile(r"test_((?:[ABC]\d+_)+)")
_DIFFERENT: Final = "different scenarios"


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
    """The scenarios of the tests that have run."""

    def __init__(self) -> None:
        self.covered: dict[str, set[int]] = {letter: set() for letter in SUITES}
        self.different: dict[str, set[int]] = {letter: set() for letter in SUITES}

    def ran(self, name: str, different: Collection[int]) -> None:
        """Count a test that has run; ``different`` are the numbers in its module's ``DIFFERENT``."""
        for letter, number in scenarios_of(name):
            self.covered[letter].add(number)
            self.different[letter].update(different)

    def failed(self, name: str) -> None:
        """Take back the scenarios of a test that has failed, whatever else covers them."""
        for letter, number in scenarios_of(name):
            self.covered[letter].discard(number)

    def lines(self) -> list[Line]:
        """Return a line for each suite, or none if no scenario is covered at all."""
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


def mark_items(items: Iterable[pytest.Item]) -> None:
    """Note in the reports of each test what its module's ``DIFFERENT`` says."""
    for item in items:
        if scenarios_of(item.name):
            item.user_properties.append((_DIFFERENT, sorted(getattr(item.module, "DIFFERENT", ()))))  # type: ignore[attr-defined]


def write_count(terminal: Any) -> None:
    """Write a line for each suite under the results."""
    count = Count()
    passed, failed, errors = (terminal.stats.get(outcome, ()) for outcome in ("passed", "failed", "error"))
    for report in (*passed, *failed, *errors):
        count.ran(_name_of(report), dict(getattr(report, "user_properties", ())).get(_DIFFERENT, ()))
    for report in (*failed, *errors):
        count.failed(_name_of(report))
    lines = count.lines()
    if lines:
        terminal.section("scenarios of OTP", sep="-")
    for line in lines:
        terminal.write_line(str(line))


def _name_of(report: Any) -> str:
    name: str = report.nodeid.partition("[")[0]
    return name.rpartition("::")[2]
