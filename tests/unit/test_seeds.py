"""Seeds by option, the command that replays a seed, and the count of OTP's scenarios."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from email.utils import make_msgid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scenarios import Count, Line

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest
from penstock.actors.runtime.process import Process
from penstock.testing import Simulation

DIFFERENT = {2: "tested all the same", 3: "not in Python", 7: "not in Python"}

class First(Process):
    in_pykka_registry = False
    def __init__(self, seen, number):
        super().__init__()
        self.seen, self.number = seen, number
    def on_receive(self, message):
        self.seen.append(self.number)

@pytest.mark.seeds(6)
def test_A1_the_last_one_is_never_the_first_to_run(seed):
    with Simulation(seed) as simulation:
        seen = []
        for ref in [simulation.spawn(First, seen, number) for number in range(3)]:
            ref.tell("go")
        simulation.settle()
        assert seen[0] != 2

def test_C2_something_without_a_seed():
    pass
"""


def run(folder: Path, *arguments: str) -> tuple[list[str], int]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return done.stdout.splitlines(), done.returncode


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = seeds\n")
    return tmp_path


def test_a_failing_seed_prints_the_command_that_replays_exactly_it(suite: Path) -> None:
    output, status = run(suite, "test_it.py", "--seeds", "30", "--first-seed", "10")
    commands = output[next(n for n, line in enumerate(output) if "replay a seed" in line) + 1 :]
    commands = [line for line in commands if line.startswith("python -m pytest")]
    assert status == 1
    assert 0 < len(commands) < 30
    words = shlex.split(commands[-1])
    assert int(words[-3]) >= 10
    again, status = run(suite, *words[3:])
    assert status == 1
    assert any("1 failed in" in line for line in again), again
    assert commands[-1] in again


@pytest.mark.parametrize("processes", [[], ["--numprocesses", "2"]], ids=["one process", "two processes"])
def test_a_scenario_whose_test_fails_is_not_covered(suite: Path, processes: list[str]) -> None:
    output, _ = run(suite, "test_it.py", "--first-seed", "10", *processes)
    assert "A1-A50 gen_statem: 0 covered, 3 different, 47 missing" in output
    assert "B1-B60 supervisor: 0 covered, 0 different, 60 missing" in output
    assert "C1-C20 links and monitors: 1 covered, 2 different, 17 missing" in output
    assert any(line.startswith("python -m pytest 'test_it.py::test_A1") for line in output)


def test_a_scenario_whose_test_is_left_out_is_not_covered(suite: Path) -> None:
    output, _ = run(suite, "test_it.py", "-k", "A1", "--seeds", "1")
    assert "C1-C20 links and monitors: 0 covered, 0 different, 20 missing" in output


def test_covered_different_and_missing_are_counted_by_name() -> None:
    count = Count()
    count.ran("test_A1_A2_one_test_for_two[3]", {16})
    count.ran("test_A3_three", {16})
    count.ran("test_C20_a_suite_without_differences", ())
    count.ran("test_something_else", {7})
    count.failed("test_A3_three")
    a, b, c = count.lines()
    assert (a.covered, a.different, len(a.missing)) == (2, 1, 47)
    assert (b.covered, b.different, len(b.missing)) == (0, 0, 60)
    assert (c.covered, c.different, len(c.missing)) == (1, 0, 19)


def test_nothing_is_said_when_no_scenario_was_run() -> None:
    assert Count().lines() == []


def test_a_few_missing_ones_are_named() -> None:
    assert str(Line("C", 18, 0, (3, 7))) == "C1-C20 links and monitors: 18 covered, 0 different, 2 missing (C3, C7)"


@given(st.builds(make_msgid, domain=st.just("x.test")))
def test_a_draw_that_another_library_makes_meanwhile_fails_no_property(made: str) -> None:
    """`email.utils` draws from the random numbers of the process, as threads of other libraries do at any time."""
    assert made.endswith("@x.test>")
