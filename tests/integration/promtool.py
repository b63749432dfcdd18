"""Prometheus's own checker of metrics, from Debian's package.

``make promtool`` (``python -m tests.integration.promtool``) unpacks it into ``.judges/prometheus``; nothing is
installed. Tests that need it are skipped where it is missing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.integration.debian import Program

__all__ = ["check_metrics", "check_rules"]

_PROGRAM: Final = Program(
    "prometheus", "usr/bin/promtool", ["prometheus"], target="promtool", unneeded=["usr/bin/prometheus"]
)


def check_metrics(exposition: bytes) -> str:
    """What ``promtool check metrics`` says of metrics in the text format; "" if nothing. Skips the test without it."""
    done = subprocess.run(
        [_PROGRAM.command(), "check", "metrics"], input=exposition, capture_output=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0 or said, done.returncode
    return said


def check_rules(file: Path) -> str:
    """What ``promtool check rules`` says of a file of rules; fails if one cannot be read. Skips the test without it."""
    done = subprocess.run(
        [_PROGRAM.command(), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


if __name__ == "__main__":
    _PROGRAM.fetch()
