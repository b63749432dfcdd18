"""The command ``penstock`` in a fork of a process that has imported what it needs.

Each run is a process of its own with its own standard streams, environment and exit code, as if it had been started
by a shell, but does not import for a second. What Python does when it starts and ends is not part of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.cli import main

__all__ = ["command"]

_FORKS: Any = multiprocessing.get_context("forkserver")
# What the commands import when they run. None of it starts a thread, which would not survive a fork.
_FORKS.set_forkserver_preload(
    [
        __name__,
        "requests",
        "pydantic_settings",
        "penstock.cli.chat",
        "penstock.cli.commands",
        "penstock.cli.loopback",
        "penstock.adapters.http.session",
        "penstock.adapters.loopback.server",
        "penstock.adapters.providers.anthropic.provider",
        "penstock.adapters.providers.gemini.provider",
        "penstock.adapters.providers.ollama.provider",
        "penstock.adapters.providers.openai.chat_provider",
        "penstock.adapters.providers.openai.responses_provider",
    ]
)


def command(
    folder: Path, arguments: tuple[str, ...], stdin: bytes, environment: Mapping[str, str], limit: float
) -> tuple[int, bytes, bytes]:
    """Run the command in ``folder``; returns its exit code, standard output and standard error.

    Raises:
        AssertionError: it has not ended after ``limit`` seconds.
    """
    streams = [folder / f".std{name}" for name in ("in", "out", "err")]
    streams[0].write_bytes(stdin)
    process = _FORKS.Process(target=_run, args=(folder, arguments, dict(environment), streams))
    process.start()
    try:
        process.join(limit)
        assert process.exitcode is not None, "it does not end"
        return process.exitcode, streams[1].read_bytes(), streams[2].read_bytes()
    finally:
        process.kill()
        process.join()
        process.close()
        for stream in streams:
            stream.unlink(missing_ok=True)


def _run(folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str], streams: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(streams):
        file = os.open(path, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", errors="strict", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    main(list(arguments))
