"""The files of the dashboard: what is vendored is what was published, and all that a page asks for is served."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.gateway.routes.pages import FILES
from tests.judges.install import find_packages

STATIC = Path(penstock.__file__).parent / "gateway" / "static"
VENDOR = STATIC / "vendor"
TABLE: list[dict[str, Any]] = json.loads((VENDOR / "vendored.json").read_text("utf-8"))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row["file"]))
def test_a_vendored_file_has_the_sum_of_the_table(row: dict[str, Any]) -> None:
    assert hashlib.sha256((VENDOR / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert (VENDOR / row["licence_file"]).read_text("utf-8").strip()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row["file"]))
def test_a_vendored_file_is_that_of_the_npm_package(row: dict[str, Any]) -> None:
    packages = find_packages()
    if isinstance(packages, str):
        pytest.skip(packages)
    package = packages / row["package"]
    assert json.loads((package / "package.json").read_text("utf-8"))["version"] == row["version"]
    assert hashlib.sha256((package / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    assert (package / "LICENSE").read_bytes() == (VENDOR / row["licence_file"]).read_bytes()


def test_every_vendored_file_stands_in_the_table_and_all_are_small() -> None:
    files = {path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".css")}
    assert files == {row["file"] for row in TABLE}
    contents = [(VENDOR / name).read_bytes() for name in files]
    assert sum(map(len, contents)) < 90_000
    assert sum(len(gzip.compress(content, 9)) for content in contents) < 35_000


def test_every_file_is_served_and_every_file_that_is_asked_for_exists() -> None:
    served = {
        path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".svg")
    }
    assert served == set(FILES)
    page = (STATIC / "index.html").read_text("utf-8")
    asked = {name.removeprefix("board/") for name in re.findall(r'(?:href|src)="([^"]+)"', page)}
    for name in FILES:
        if name.endswith(".js") and not name.startswith("vendor/"):
            asked |= set(re.findall(r"from '\./([^']+)'", (STATIC / name).read_text("utf-8")))
    assert asked == set(FILES)


def test_no_file_of_ours_speaks_to_another_host() -> None:
    for path in STATIC.glob("*"):
        if path.is_file():
            text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://", text), path.name
