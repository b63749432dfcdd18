"""``penstock top`` as its users run it: lines without a terminal, a screen and keys in one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

import fcntl
import pty
import struct
import subprocess
import termios

from penstock.adapters.loopback.script import Answer
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.command import (
    PROGRAM,
    environment,
    finish,
    interrupts_not_ignored,
    read_piece,
    read_until,
    run,
    started,
)
from tests.integration.gateway.serving import gateway

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01)


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


def test_without_a_terminal_a_line_is_printed_each_second(tmp_path: Path) -> None:
    with gateway(ENDLESS, on_orphan="continue") as server:
        server.open()
        with started(tmp_path, "top", "--url", server.url) as process:
            lines = read_until(process, b"$")
            lines += read_until(process, b"$")
            process.send_signal(signal.SIGINT)
            done = finish(process, lines)
    assert done.code == 130
    assert re.match(r"\d\d:\d\d:\d\d  1 streams  [\d,.]+ tokens/s  TTFT p95 \S+", done.out)


class Screen:
    """The program in a pseudo-terminal."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.drawn = ""

    def wait(self, wanted: str) -> None:
        """Read until a text has been drawn, after what was waited for before."""
        while wanted not in self.drawn:
            piece = read_piece(self.master).decode("utf-8", "replace")
            self.drawn += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", piece)
        self.drawn = self.drawn.partition(wanted)[2]

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)


@contextmanager
def screen(tmp_path: Path, *arguments: str) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    env = environment(tmp_path, TERM="xterm-256color")
    command = [*PROGRAM, "top", *arguments]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=tmp_path) as process:
        os.close(slave)
        try:
            yield Screen(master), process
        finally:
            process.kill()
            os.close(master)


def test_keys_sort_choose_pause_resume_cancel_and_quit(tmp_path: Path) -> None:
    with gateway(ENDLESS, on_orphan="continue") as server:
        stream = server.system.stream(server.open())
        with screen(tmp_path, "--url", server.url) as (shown, process):
            shown.wait(stream.stream_id)
            shown.press(b"p")
            shown.wait("choose a running stream")
            shown.press(b"m")
            shown.press(b"\x1b[B")
            shown.press(b"p")
            eventually(lambda: stream.state == "paused", 20)
            shown.wait("paused")
            shown.press(b"p")
            eventually(lambda: stream.state != "paused", 20)
            shown.wait("streaming")
            shown.press(b"c")
            eventually(lambda: stream.is_over, 20)
            shown.wait("cancelled")
            shown.press(b"q")
            assert process.wait(20) == 0


def test_the_key_comes_from_a_variable_and_needs_the_scope_admin(tmp_path: Path) -> None:
    made = {scope: new_key(scope, (scope,)) for scope in ("read", "admin")}
    KeyFile(tmp_path / "keys").write([key for _, key in made.values()])
    with gateway(keys=str(tmp_path / "keys")) as server:
        done = run(tmp_path, "top", "--url", server.url)
        assert (done.code, done.complaint) == (2, done.complaint)
        assert "--key-env NAME" in done.complaint
        done = run(tmp_path, "top", "--url", server.url, "--key-env", "MINE", MINE=made["read"][0])
        assert "does not have the scope admin" in done.complaint
        with started(
            tmp_path, "top", "--url", server.url, "--key-env", "MINE", variables={"MINE": made["admin"][0]}
        ) as process:
            read_until(process, b"0 streams")


def test_without_a_terminal_a_lost_connection_is_said(tmp_path: Path) -> None:
    with contextlib.ExitStack() as running:
        with gateway() as server:
            process = running.enter_context(started(tmp_path, "top", "--url", server.url))
            read_until(process, b"$")
        assert process.stderr is not None
        assert process.stderr.readline() == b"penstock: connection lost, trying again\n"


def test_a_gateway_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "top", "--url", "http://127.0.0.1:9")
    assert done.code == 2
    assert done.complaint.startswith("the gateway cannot be reached: ")
    assert "http://127.0.0.1:9: Connection refused; penstock serve starts one" in done.complaint
    done = run(tmp_path, "top", "--url", "ftp://host")
    assert "URL must be like" in done.complaint
    assert done.complaint.startswith("--url: ")
    with gateway() as server:
        done = run(tmp_path, "top", "--url", f"{server.url}/elsewhere")
    assert done.code == 2
    assert "or correct the path of --url" in done.complaint
