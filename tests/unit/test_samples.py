"""Which cases `make test` leaves out, and that `make whole` and a test's name leave out none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest
from tests.judges.marks import thorough

@pytest.mark.sample(5)
@pytest.mark.parametrize("number", range(23))
def test_many(number): pass

@pytest.mark.sample(5)
@pytest.mark.parametrize("number", range(3))
def test_few(number): pass

@pytest.mark.sample(5)
def test_single(): pass

@pytest.mark.parametrize("number", range(7))
def test_unmarked(number): pass

@pytest.mark.parametrize("number", range(30))
def test_read(each_reader, number): pass

def test_reader(each_reader): pass

@pytest.mark.sample(6)
class TestOfAClass:
    @pytest.mark.parametrize("number", range(30))
    def test_sampled_and_read(self, each_reader, number): pass

    @pytest.mark.sample(2)
    @pytest.mark.parametrize("number", range(4))
    def test_nearer(self, number): pass

@thorough
def test_slow(): pass
"""
ALL = {
    "test_many": 23, "test_few": 3, "test_single": 1, "test_unmarked": 7, "test_read": 60, "test_reader": 2,
    "test_sampled_and_read": 60, "test_nearer": 4, "test_slow": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_it.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = thorough\n  sample\n")
    return folder


@pytest.fixture(scope="module")
def sample(suite: Path) -> list[str]:
    return collected(suite)


@pytest.fixture(scope="module")
def whole(suite: Path) -> list[str]:
    return collected(suite, "--whole")


def collected(folder: Path, *arguments: str) -> list[str]:
    """The names of the cases that would run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def counted(names: list[str]) -> Mapping[str, int]:
    return Counter(name.rpartition("::")[2].partition("[")[0] for name in names)


def test_a_sample_has_so_many_cases_of_each_test_and_at_least_one(sample: list[str], whole: list[str]) -> None:
    assert counted(sample) == {
        "test_many": 5, "test_few": 1, "test_single": 1, "test_unmarked": 7, "test_read": 30, "test_reader": 1,
        "test_sampled_and_read": 5, "test_nearer": 2,
    }  # fmt: skip
    readers = Counter(name.partition("[")[2].partition("-")[0] for name in sample if name.startswith("test_read["))
    assert set(readers) == {"threads", "loop"}
    assert [name for name in whole if name in sample] == sample  # in the order of the file


def test_the_same_cases_run_whichever_other_tests_are_selected(suite: Path, sample: list[str]) -> None:
    assert collected(suite, "-k", "test_many") == [name for name in sample if "test_many" in name]


def test_whole_leaves_out_nothing(whole: list[str]) -> None:
    assert counted(whole) == ALL


def test_what_is_named_runs(suite: Path, whole: list[str]) -> None:
    named = ["test_many", "test_few[1]", "test_read[loop-7]", "test_read[threads-7]", "TestOfAClass"]
    found = collected(suite, *(f"test_it.py::{name}" for name in named))
    assert set(found) == {name for name in whole if name in named or name.startswith(("test_many[", "TestOfAClass::"))}
