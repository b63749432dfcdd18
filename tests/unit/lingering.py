"""A load that starts a process and never ends, for `tests.unit.test_benchmarks_run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["load"]


def load(path: str) -> dict[str, float]:
    """Start a process that lasts for a minute, write its number into a new file, and wait for it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    unfinished = Path(f"{path}.part")
    unfinished.write_text(str(process.pid))
    unfinished.rename(path)
    return {"code": float(process.wait())}
