"""Prometheus's own checker of metrics, from Debian's package.

``make promtool`` (``python -m tests.integration.promtool``) unpacks it into ``.judges/prometheus``; nothing is
installed. Tests that need it are skipped where it is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

__all__ = ["check_metrics", "check_rules", "fetch"]

_CACHE = Path(os.environ.get("PENSTOCK_JUDGES") or Path(penstock.__file__).parents[1] / ".judges") / "prometheus"
_UNPACKED = _CACHE / "usr" / "bin" / "promtool"


def check_metrics(exposition: bytes) -> str:
    """What ``promtool check metrics`` says of metrics in the text format; "" if nothing. Skips the test without it."""
    done = subprocess.run(
        [_program(), "check", "metrics"], input=exposition, capture_output=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0 or said, done.returncode
    return said


def check_rules(file: Path) -> str:
    """What ``promtool check rules`` says of a file of rules; fails if one cannot be read. Skips the test without it."""
    done = subprocess.run([_program(), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _program() -> str:
    program = str(_UNPACKED) if _UNPACKED.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on this machine; `make promtool` unpacks it from Debian's package")
    return program


def fetch() -> None:
    """Download Debian's package and unpack promtool, unless it is there.

    Raises:
        SystemExit: apt-get or dpkg is missing, or the package cannot be had.
    """
    if _UNPACKED.exists():
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: promtool can only be unpacked on Debian and its relatives")
    _CACHE.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["apt-get", "download", "--quiet", "--quiet", "prometheus"], cwd=_CACHE, check=False).returncode:
        sys.exit("the package prometheus cannot be downloaded")
    for file in _CACHE.glob("*.deb"):
        subprocess.run(["dpkg", "-x", file, _CACHE], check=True)
        file.unlink()
    (_UNPACKED.parent / "prometheus").unlink(missing_ok=True)  # the server itself is not needed
    if not _UNPACKED.exists():
        sys.exit("the package prometheus has no promtool")


if __name__ == "__main__":
    fetch()
