"""Ctrl-C and SIGTERM at any moment of a run of ``penstock``: no traceback, and the exit code says what happened."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

from tests.integration.command import KEY, LIMIT, PROGRAM, environment, interrupts_not_ignored, read_until

pytestmark = pytest.mark.timeout(300)

QUIET_START = """
import os, runpy, signal

install = signal.signal

def install_and_mark(number, handler):
    install(number, handler)
    os.write(2, b">")
    signal.signal = install

install(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
signal.signal = install_and_mark
runpy.run_module("penstock", run_name="__main__", alter_sys=True)
"""
"""Python's own handler prints a traceback while Python starts, before ours is there: here the default action is in
its place, and SIGINT waits until then. So whatever is printed is ours. A mark on standard error says that our handler
is there."""
MARK = ">"

DEMO = ["run"]
CHAT = ["chat", "Hello", "--provider", "loopback", "--model", "lorem"]
AT_ONCE = 4  # processes


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


def start(tmp_path: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process in which SIGINT is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(tmp_path, OPENAI_API_KEY=KEY),
            cwd=tmp_path,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt_all(
    tmp_path: Path, commands: list[list[str]], delays: list[float], times: int = 1
) -> list[tuple[int, str]]:
    """Run the commands at once, send each ``times`` SIGINTs after its delay; their exit codes and standard errors."""
    begun = time.monotonic()
    processes = [start(tmp_path, command) for command in commands]
    for delay, process in sorted(zip(delays, processes, strict=True), key=lambda each: each[0]):
        time.sleep(max(0.0, begun + delay - time.monotonic()))
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
    done = []
    for process in processes:
        try:
            _, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        done.append((process.returncode, err.decode()))
    return done


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("arguments", [DEMO, CHAT], ids=["run", "chat"])
def test_ctrl_c_at_any_moment_ends_the_command_without_a_traceback(
    tmp_path: Path, arguments: list[str], times: int
) -> None:
    delays = [0.005, *(random.Random(7 * times).uniform(0.005, 1.5) for _ in range(7))]
    command = [sys.executable, "-c", QUIET_START, *arguments]
    for first in range(0, len(delays), AT_ONCE):
        some = delays[first : first + AT_ONCE]
        for delay, (code, err) in zip(some, interrupt_all(tmp_path, [command] * len(some), some, times), strict=True):
            assert "Traceback" not in err, f"after {delay:.3f} s"
            assert code in (130, 0 if err.startswith(MARK) else -signal.SIGINT), f"{code} after {delay:.3f} s"


def test_of_a_plain_start_only_pythons_own_start_can_show_a_traceback(tmp_path: Path) -> None:
    begun = [subprocess.Popen([*PROGRAM, *DEMO], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path,
                              env=environment(tmp_path)) for _ in range(AT_ONCE)]  # fmt: skip
    for number, process in enumerate(begun):
        time.sleep(0.02 + 0.1 * number)
        process.send_signal(signal.SIGINT)
    for process in begun:
        _, err = process.communicate(timeout=LIMIT)
        assert f"penstock{'/'}cli" not in err.decode()
        assert process.returncode in (130, 1, -signal.SIGINT)
        assert process.returncode != 1 or b"<frozen " in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_threads_keep_the_process_from_ending_is_quiet(tmp_path: Path, number: int, code: int) -> None:
    program = """
import signal, threading, time
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
threading.Thread(target=time.sleep, args=(20,)).start()
from penstock.cli import main
main(["--version"])
"""
    process = start(tmp_path, [sys.executable, "-c", program])
    try:
        read_until(process, b"penstock ")
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, err) == (code, b"")


def test_an_interrupt_that_the_shell_ignores_stays_ignored(tmp_path: Path) -> None:
    program = f"trap '' INT; exec {sys.executable} -m penstock chat Hello --provider loopback --model loopback"
    process = subprocess.Popen(
        ["sh", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=tmp_path
    )
    try:
        read_until(process, b" ")
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, b"")
