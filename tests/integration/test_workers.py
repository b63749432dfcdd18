"""The first process of several that serve: what it does with workers that do not start, or do not end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.cli import workers
from penstock.cli.failures import CommandLineError
from penstock.cli.workers import ServingWorker, Workers
from penstock.config.cluster import ClusterOptions
from penstock.testing import eventually

STUBBORN = """
import json, os, pathlib, signal, sys, time
node, begun = json.loads(os.environ["WORKER_OF_PENSTOCK"])["node"], pathlib.Path(sys.argv[1])
if node == "w-2":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun.touch()
    time.sleep(20)
while not begun.exists():
    time.sleep(0.01)
sys.exit(3)
"""


DEAF = """
import json, os, signal, socket, sys
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
socket.socket(fileno=json.loads(os.environ["WORKER_OF_PENSTOCK"])["channel"]).sendall(b"r")
while True:
    signal.pause()
"""


def stubborn(tmp_path: Path) -> Workers:
    """Two workers: the first one ends with code 3 once the second one has begun, which does not end by SIGTERM."""
    command = [sys.executable, "-c", STUBBORN, str(tmp_path / "begun")]
    return Workers(2, "w", [], lambda: None, command, drain_timeout=30.0)


def test_a_worker_that_does_not_end_when_another_could_not_start_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LAST", 0.1, raising=False)
    found = stubborn(tmp_path)
    with pytest.raises(CommandLineError, match="w-1 ended with code 3 before it served"):
        found.run()
    assert [one.process.returncode for one in found._processes.values()] == [-signal.SIGKILL]


def test_a_signal_ends_that_wait(tmp_path: Path) -> None:
    found = stubborn(tmp_path)

    def interrupt() -> None:
        eventually(lambda: found._has_failed, 10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(CommandLineError):
        found.run()
    thread.join()
    assert [one.process.returncode for one in found._processes.values()] == [-signal.SIGKILL]


class Clock:
    """Goes on by 5 seconds whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 5.0
        return self.now


@pytest.mark.parametrize(("signals", "limit"), [(1, 100.0), (2, 30.0)])
def test_a_worker_that_ignores_the_signal_is_killed_30_seconds_after_the_limit_of_its_drain(
    signals: int, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, killed = Clock(), []
    kill = subprocess.Popen.kill

    def noting(process: subprocess.Popen[bytes]) -> None:
        killed.append(clock.now)
        kill(process)

    monkeypatch.setattr(subprocess.Popen, "kill", noting)

    def ready() -> None:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            clock.now = 0.0

    command = [sys.executable, "-c", DEAF, "deaf"]
    found = Workers(2, "w", [], ready, command, drain_timeout=70.0, clock=clock)
    assert found.run() == (1 if signals == 1 else 128 + signal.SIGTERM)
    assert len(killed) >= 2
    assert limit < killed[0] <= limit + 30


def test_a_worker_that_ends_by_the_signal_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess.Popen, "kill")
    command = [sys.executable, "-c", DEAF, "hears"]
    found = Workers(2, "w", [], lambda: os.kill(os.getpid(), signal.SIGTERM), command, drain_timeout=70.0)
    assert found.run() == 0


def test_what_a_worker_starts_is_no_worker() -> None:
    ours, theirs = socket.socketpair()
    told = json.dumps({"node": "w-1", "listeners": [], "channel": theirs.detach()})
    environment = {"WORKER_OF_PENSTOCK": told}
    worker = ServingWorker.of(environment)
    assert worker is not None
    assert worker.node == "w-1"
    assert not environment
    assert ServingWorker.of(environment) is None
    worker._channel.close()
    ours.close()


def test_the_names_of_workers_are_names_of_nodes() -> None:
    found = Workers(256, "n" * 64, [], lambda: None, drain_timeout=30.0)
    found._close()
    for name in found._names:
        assert ClusterOptions(node=name).node == name
