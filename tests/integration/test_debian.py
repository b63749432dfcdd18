"""Programs from Debian's packages are unpacked as a whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.debian import Program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tools of Debian are replaced by shell scripts")

TOOLS = {
    "apt-get": """
        case "$1" in
            install) echo "Inst libpart (1.0 Debian)"; echo "Inst other (1.0 Debian)";;
            *) for package; do :; done; test "$package" != "$LACKING" && touch "$package.deb";;
        esac
    """,
    "dpkg": """
        name=$(basename "$2" .deb)
        case "$name" in
            libpart) mkdir -p "$3/usr/lib" && touch "$3/usr/lib/libpart.so.1";;
            *) mkdir -p "$3/usr/bin" && touch "$3/usr/bin/$name" && chmod +x "$3/usr/bin/$name";;
        esac
        test "$name" != "$BROKEN"
    """,
    "ldd": """
        case "$LD_LIBRARY_PATH" in
            "") echo "libpart.so.1 => not found";;
            *) ls "$LD_LIBRARY_PATH/libpart.so.1";;
        esac
    """,
}


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs; Debian's tools are replaced."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JUDGES_FOLDER", str(tmp_path / "judges"))
    for name in ("LD_LIBRARY_PATH", "LACKING", "BROKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "judges"


def program() -> Program:
    packages = ["tried-program", "tried-program-data"]
    return Program("tried", "usr/bin/tried-program", packages, depending="tried-program", target="tried")


def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACKING", "tried-program-data")


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "tried-program-data")


def without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACKING", "libpart")


def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    run: Callable[..., Any] = subprocess.run

    def stopped(command: list[Any], **more: Any) -> Any:
        if command[-1] == "tried-program-data":
            raise KeyboardInterrupt
        return run(command, **more)

    monkeypatch.setattr(subprocess, "run", stopped)


@pytest.mark.parametrize("fault", [lacking, broken, without_a_library, interrupted])
def test_what_was_unpacked_in_part_is_not_taken_for_the_whole(
    fault: Callable[[pytest.MonkeyPatch], None], judges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault(patch)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            program().fetch()
        assert not list(judges.iterdir())
        with pytest.raises(pytest.skip.Exception, match="make tried"):
            program().command()
    program().fetch()
    assert program().command() == str(judges / "tried/usr/bin/tried-program")
    assert program().environment()["LD_LIBRARY_PATH"] == str(judges / "tried/usr/lib")
    assert (judges / "tried/usr/bin/tried-program-data").exists()
    assert [path.name for path in judges.iterdir()] == ["tried"]


def test_what_a_killed_process_left_is_not_used(judges: Path) -> None:
    left = judges / "tried.part/usr/bin/of-before"
    left.parent.mkdir(parents=True)
    left.touch()
    program().fetch()
    assert sorted(path.name for path in judges.rglob("*") if path.is_file()) == [
        "libpart.so.1",
        "tried-program",
        "tried-program-data",
    ]


def test_a_program_that_lacks_a_library_is_replaced_once_the_new_one_is_whole(
    judges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program().fetch()
    (judges / "tried/usr/lib/libpart.so.1").unlink()
    with monkeypatch.context() as patch:
        lacking(patch)
        with pytest.raises(SystemExit, match="tried-program-data cannot be downloaded: this machine is offline, or"):
            program().fetch()
    assert (judges / "tried/usr/bin/tried-program").exists()
    program().fetch()
    assert (judges / "tried/usr/lib/libpart.so.1").exists()
    monkeypatch.setenv("LACKING", "tried-program")
    program().fetch()  # nothing is downloaded again
