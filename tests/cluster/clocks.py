"""Wall clocks of nodes that jump: a file has by how many seconds the clock of a process is wrong."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

__all__ = ["WallClock"]

_CODE = '''"""Puts this process's wall clock wrong by what a file says. Python imports it before everything else."""

import mmap
import os
import struct
import time

with open(os.environ["TESTS_WALL_CLOCK"], "rb") as file:
    seconds = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
right = time.time
time.time = lambda: right() + struct.unpack_from("d", seconds)[0]
'''


class WallClock:
    """The wall clock of one process, and of those that it starts. Its monotonic clock is right.

    Args:
        folder: for its files; made if there is none.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_CODE)
        self._folder = folder
        self._path = folder / "seconds"
        self._path.write_bytes(struct.pack("d", 0.0))
        with self._path.open("r+b") as file:
            self._seconds = mmap.mmap(file.fileno(), 8)

    def variables(self, path: str) -> dict[str, str]:
        """The environment of the process; ``path`` is its ``PYTHONPATH``."""
        return {"TESTS_WALL_CLOCK": str(self._path), "PYTHONPATH": os.pathsep.join([str(self._folder), path])}

    def jump(self, seconds: float) -> None:
        """Let it be wrong by so many seconds, from now on."""
        self._seconds[:] = struct.pack("d", seconds)

    def close(self) -> None:
        self._seconds.close()
