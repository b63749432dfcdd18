"""The command ``penstock`` for tests: a process of its own with real pipes, signals and terminals."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

import fcntl
import pty
import termios

import penstock
from penstock.adapters.loopback.server import LoopbackProvider
from tests.integration.forked import command

KEY = "sk-test-4f9c2d7e1b"
PROGRAM = [sys.executable, "-m", "penstock"]
LIMIT = 30.0


@contextlib.contextmanager
def interrupts_not_ignored() -> Iterator[None]:
    """Heed SIGINT, which a child inherits as ignored if the tests run in the background of a shell."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing of the user's is left."""
    kept = {name: value for name, value in os.environ.items() if not _is_users(name)}
    root = str(Path(penstock.__file__).parents[1])
    return {**kept, "PYTHONPATH": root, "HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", **more}


def _is_users(name: str) -> bool:
    upper = name.upper()
    return (
        upper.startswith(("PENSTOCK_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "OLLAMA_"))
        or upper.endswith("_PROXY")
        or upper in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "PYTHONIOENCODING")
    )


class Done:
    """What a run of the program has left."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw = code, out
        self.out, self.err = out.decode(), err.decode()
        assert "Traceback" not in self.out + self.err
        assert KEY not in self.out + self.err

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("penstock: ")
        return lines[0].removeprefix("penstock: ")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of ``--json``."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(tmp_path: Path, *arguments: str, stdin: str = "", **variables: str) -> Done:
    """What the program leaves; see `tests.integration.forked`."""
    text = stdin.encode("utf-8", "surrogateescape")
    return Done(*command(tmp_path, arguments, text, environment(tmp_path, **variables), LIMIT))


def run_anew(tmp_path: Path, *arguments: str, stdin: str = "", **variables: str) -> Done:
    """The same from a start of Python to its end."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin.encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=LIMIT,
        env=environment(tmp_path, **variables),
        cwd=tmp_path,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def chat(tmp_path: Path, provider: LoopbackProvider, model: str, *arguments: str, **variables: str) -> Done:
    variables = {"OPENAI_API_KEY": KEY, **variables}
    return run(tmp_path, *words(provider, model), *arguments, **variables)


def words(provider: LoopbackProvider, model: str) -> list[str]:
    return ["chat", "Hello", "--base-url", provider.base_url, "--model", model]


@contextlib.contextmanager
def started(
    tmp_path: Path,
    *arguments: str,
    stdout: int | Any = subprocess.PIPE,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """The program while it runs; it is ended whatever happens. ``prefix``: a command that replaces itself by it."""
    process = subprocess.Popen(
        [*prefix, *PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(tmp_path, OPENAI_API_KEY=KEY, **(variables or {})),
        cwd=tmp_path,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[bytes], before: bytes = b"") -> Done:
    out, err = process.communicate(timeout=LIMIT)
    return Done(process.returncode, before + (out or b""), err)


def read_piece(descriptor: int) -> bytes:
    readable, _, _ = select.select([descriptor], [], [], LIMIT)
    assert readable, "nothing came"
    return os.read(descriptor, 65_536)


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    assert process.stdout is not None
    data = b""
    while wanted not in data:
        piece = read_piece(process.stdout.fileno())
        assert piece, f"ended before {wanted!r}: {data!r}"
        data += piece
    return data


def in_terminal(tmp_path: Path, *arguments: str, columns: int = 100, **variables: str) -> tuple[int, str]:
    """Run the program in a pseudo-terminal; its exit code and everything it drew."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    drawn = b""
    env = environment(tmp_path, TERM="xterm-256color", **variables)
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=tmp_path
    ) as process:
        os.close(slave)
        try:
            while piece := _read_terminal(master):
                drawn += piece
            code = process.wait(LIMIT)
        finally:
            process.kill()
            os.close(master)
    text = drawn.decode()
    assert "Traceback" not in text
    return code, text


def _read_terminal(master: int) -> bytes:
    try:
        return read_piece(master)
    except OSError as error:  # how Linux says that no process has it open any more
        if error.errno != errno.EIO:
            raise
        return b""
