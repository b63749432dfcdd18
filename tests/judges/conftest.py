"""The judges: clients of others, which read what the gateway sends. Without a client its tests are skipped."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests.integration.gateway.serving import Served
from tests.judges.chromium import Chromium, running_chromium
from tests.judges.install import find_node, find_packages
from tests.judges.real_gateway import real_gateway
from tests.judges.scripted_gateway import ScriptedGateway

HERE = Path(__file__).parent
CLIENT = Path(penstock.__file__).parent / "gateway" / "browser" / "penstock.mjs"
PATIENCE_S = 60.0


class Node:
    """Runs the scripts of this folder, which find the pinned packages. Each stays running for further jobs."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._running: dict[tuple[str, ...], subprocess.Popen[str]] = {}

    def run(self, script: str, *arguments: str, job: dict[str, Any]) -> dict[str, Any]:
        """Hand a job to a script; returns the JSON that it prints."""
        name = (script, *arguments)
        process = self._running.get(name)
        log = self._folder / f"{'-'.join(name)}.log"
        if process is None:
            with log.open("w") as errors:
                process = self._running[name] = subprocess.Popen(
                    [self._program, self._folder / script, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"{name} has ended: {log.read_text('utf-8')[-4000:]}"
        seen: dict[str, Any] = json.loads(line)
        assert "crashed" not in seen, seen["crashed"]
        return seen

    def close(self) -> None:
        """End all scripts."""
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE_S)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    program, packages = find_node(), find_packages()
    for reason in (program, packages):
        if isinstance(reason, str):
            pytest.skip(reason)
    assert isinstance(program, Path)
    assert isinstance(packages, Path)
    folder = tmp_path_factory.mktemp("judges")  # a script's imports are looked for beside it
    try:
        (folder / "node_modules").symlink_to(packages.resolve(), target_is_directory=True)
    except OSError as error:
        pytest.skip(f"no symbolic link can be made here: {error}")
    for script in (*HERE.glob("*.mjs"), CLIENT):
        shutil.copy(script, folder)
    with contextlib.closing(Node(program, folder)) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    with ScriptedGateway() as served:
        yield served


@pytest.fixture
def base_url(gateway: ScriptedGateway) -> str:
    """Where the gateway answers."""
    return gateway.url


@pytest.fixture
def served() -> Iterator[Served]:
    """The real gateway."""
    with real_gateway() as running:
        yield running
