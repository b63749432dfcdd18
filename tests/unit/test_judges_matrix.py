"""docs/judges.md names every client that the gateway is tried with, at its version, and only tests that there are."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/judges.md").read_text("utf-8")
PACKAGES = json.loads((ROOT / "tests/judges/package.json").read_text("utf-8"))["dependencies"]


def rows(page: str) -> list[list[str]]:
    """The cells of the rows of a page's tables."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("alias", PACKAGES)
def test_each_package_has_a_row_with_its_version(alias: str) -> None:
    package, _, version = PACKAGES[alias].removeprefix("npm:").rpartition("@")
    name = f"`{package or alias}` (npm)"
    assert [row for row in rows(PAGE) if row[0].startswith(name) and row[1] == version], (name, version)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_each_client_in_python_has_a_row(name: str) -> None:
    importlib.metadata.version(name)  # a development dependency
    assert [row for row in rows(PAGE) if row[0].startswith(f"`{name}` (Python")]


def test_the_tests_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.(?:py|json))`", PAGE))
    assert len(named) > 5
    for path in sorted(named):
        assert (ROOT / path).is_file(), path


def test_every_file_of_judges_is_named() -> None:
    for path in (ROOT / "tests/judges").glob("test_*.py"):
        assert f"`tests/judges/{path.name}`" in PAGE, path.name


def test_all_rows_of_the_second_table_have_every_client() -> None:
    table = PAGE[PAGE.index("## What was tried") :]
    lengths = {len(row) for row in rows(table)}
    assert len(lengths) == 1
