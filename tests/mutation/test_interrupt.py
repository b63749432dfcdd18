"""The tool of mutation is interrupted: it says what it has found, and leaves neither a process nor a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.testing import eventually
from tests.integration.command import interrupts_not_ignored

ROOT = Path(__file__).parents[2]
MODULE = "adapters/http/answer.py"  # has no loop that a change could make endless


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_reports_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    arguments = ["--sample", "0", "--jobs", "1", "--modules", MODULE]
    with (
        interrupts_not_ignored(),
        subprocess.Popen(
            [sys.executable, "-m", "tests.mutation", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal goes to a whole process group
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert "noticed" in process.stdout.readline().lower()
            tool = psutil.Process(process.pid)
            eventually(lambda: tool.children(recursive=True), 30)
            children = tool.children(recursive=True)
            os.killpg(process.pid, number)
            rest, _ = process.communicate(timeout=30)
            assert process.returncode == 0
        finally:
            process.terminate()
    assert f"penstock/{MODULE}: " in rest
    assert rest.splitlines()[-1].startswith("all: ")
    assert not [child for child in children if child.is_running()]
    assert not list(tmp_path.iterdir())
