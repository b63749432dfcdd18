"""Measures one load in a process of its own: ``python -m benchmarks.probe MODULE:FUNCTION '{"keyword": 1}'``.

Every figure has a fresh process. Otherwise the measurement would include memory left by another load, a grown thread
pool or a full garbage collector.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

__all__ = ["Countdown", "Meter", "ProbeError", "measure", "memory_kb"]

Result = dict[str, float]
_ROOT = Path(__file__).parents[1]


class ProbeError(Exception):
    """A load could not be measured."""


def measure(load: Callable[..., Result], *, timeout: float = 120.0, **arguments: Any) -> Result:
    """Run ``load(**arguments)`` in a fresh process and return its result.

    Raises:
        ProbeError: the load failed or took more than ``timeout`` seconds; the process has ended in both cases, and
            after a time-out the servers that it has started too.
    """
    name = f"{load.__module__}:{load.__name__}"
    command = [sys.executable, "-m", "benchmarks.probe", name, json.dumps(arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT, start_new_session=True
    )
    with process:
        try:
            said, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ProbeError(f"{name} did not finish within {timeout} s") from error
        finally:
            _end_all(process)
    if process.returncode:
        raise ProbeError(f"{name} failed:\n{complaint[-4000:]}")
    result: Result = json.loads(said.splitlines()[-1])
    return result


def _end_all(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, and those that it has started, unless it was waited for."""
    if process.returncode is not None:  # its number may be another process's by now
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


class Meter:
    """Wall and CPU time (all threads, user and system) of a ``with`` block, in seconds."""

    wall = 0.0
    cpu = 0.0

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


class Countdown:
    """Lets one thread wait until ``count`` others have reported."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._over = threading.Event()

    def report(self) -> None:
        """Count one report."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._over.set()

    def wait(self, timeout: float = 60.0) -> None:
        """Wait until all have reported.

        Raises:
            ProbeError: some have not reported within ``timeout`` seconds.
        """
        if not self._over.wait(timeout):
            raise ProbeError(f"{self._left} have not reported within {timeout} s")


def memory_kb() -> float:
    """Collect garbage, then return the resident memory of the process in KB of 1,024 bytes."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1024


def _main(name: str, arguments: str) -> None:
    module, _, function = name.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
