"""Several processes of ``penstock serve`` behind one port, each a node of a cluster.

The first process listens, and starts the others with its listening sockets and a channel: a worker says that clients
can connect, and ends when the channel is closed, so that no worker outlives the first process. A worker that dies is
started again, up to a limit. One that has been told to end and does not is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from types import FrameType
from typing import Final

from penstock.cli.failures import CommandLineError
from penstock.config.logs import get_logger
from penstock.supervisors.restart import RestartWindow

__all__ = ["ServingWorker", "Workers"]

_VARIABLE: Final = "WORKER_OF_PENSTOCK"  # names with the prefix of the settings are settings
_READY: Final = b"r"
_RESTARTS: Final = 5  # of all workers together
_PERIOD: Final = 60.0  # seconds
_LOOK: Final = 0.2  # seconds between two looks whether a worker has died
_LAST: Final = 30.0  # seconds to end, after the time-out of the drain; without it if a worker could not start
_LONGEST: Final = 60  # characters of a node's name, so that the number has room
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class ServingWorker:
    """What a worker knows of the process that has started it.

    Args:
        node: the name of its node.
        listeners: to accept connections from; shared by all workers.
        channel: to the first process.
    """

    def __init__(self, node: str, listeners: Sequence[socket.socket], channel: socket.socket) -> None:
        self.node = node
        self.listeners = listeners
        self._channel = channel

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> ServingWorker | None:
        """What this process is told by the one that has started it; None: it is no worker.

        It is taken out of the environment, as it does not hold for the programs that this process starts.
        """
        told = environment.pop(_VARIABLE, None)
        if told is None:
            return None
        found = json.loads(told)
        listeners = [socket.socket(fileno=number) for number in found["listeners"]]
        return cls(found["node"], listeners, socket.socket(fileno=found["channel"]))

    def ready(self, stop: Callable[[], object]) -> None:
        """Say that clients can connect; ``stop`` is called when the first process has gone."""
        self._channel.sendall(_READY)

        def watch() -> None:
            try:
                while self._channel.recv(16):
                    pass
            except OSError:
                pass
            stop()

        threading.Thread(target=watch, name="penstock-parent", daemon=True).start()


class _Process:
    """A worker as the first process has it."""

    def __init__(self, node: str, command: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        self.node = node
        self.is_ready = False
        self.channel, theirs = socket.socketpair()
        numbers = [each.fileno() for each in listeners]
        told = {"node": node, "listeners": numbers, "channel": theirs.fileno()}
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - the program itself
                command,
                env={**os.environ, _VARIABLE: json.dumps(told)},
                pass_fds=(*numbers, theirs.fileno()),
                start_new_session=True,  # Ctrl-C comes to the first process, which tells it once
                stdout=subprocess.DEVNULL,
            )

    def close(self) -> None:
        self.channel.close()


class Workers:
    """Runs workers until a signal.

    Args:
        count: how many.
        node: their nodes are called ``NODE-1`` …
        listeners: that they share; closed at the end.
        ready: called once, when clients can connect to all of them.
        command: of a worker; None is this program's own, with its arguments.
        drain_timeout: seconds that a worker may take for its drain. One that has not ended 30 seconds after that is
            killed, and the exit code is 1.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        count: int,
        node: str,
        listeners: Sequence[socket.socket],
        ready: Callable[[], object],
        command: Sequence[str] | None = None,
        *,
        drain_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = [f"{node[:_LONGEST]}-{number}" for number in range(1, count + 1)]
        self._listeners = listeners
        self._ready = ready
        self._command = command or [sys.executable, "-m", "penstock", *sys.argv[1:]]
        self._drain_timeout = drain_timeout
        self._clock = clock
        self._window = RestartWindow(_RESTARTS, _PERIOD)
        self._until: float | None = None  # then those that have been told to end are killed
        self._processes: dict[str, _Process] = {}
        self._signals = 0
        self._has_failed = False
        self._wake, self._woken = socket.socketpair()
        self._code = 0

    def run(self) -> int:
        """Run them; returns the exit code: 0, 128 plus the number of a second signal, or 1.

        It is 1 after too many restarts, and if a worker had to be killed.

        Raises:
            CommandLineError: a worker has ended before clients could connect to all of them.
        """
        for listener in self._listeners:
            listener.set_inheritable(True)
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            for name in self._names:
                self._start(name)
            self._watch()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._close()
        if self._has_failed and not self._signals:
            return 1
        return self._code

    # --- signals, in the main thread between any two instructions ------------------------------------------------

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._code = 128 + number
        self._wake.send(b"s")

    # --- the loop ------------------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        self._processes[name] = _Process(name, self._command, self._listeners)

    def _watch(self) -> None:
        told = 0
        is_announced = False
        while self._processes:
            self._wait()
            while told < self._signals:
                told += 1
                self._tell(signal.SIGTERM)
                self._note_end(0.0 if told > 1 else self._drain_timeout)
            self._kill_late()
            for one in list(self._processes.values()):
                code = one.process.poll()
                if code is not None:
                    self._ended(one, code, is_announced=is_announced)
            is_whole = len(self._processes) == len(self._names)
            if not is_announced and is_whole and all(one.is_ready for one in self._processes.values()):
                is_announced = True
                self._ready()

    def _wait(self) -> None:
        """Wait for a signal, news of a worker, or a moment."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ, None)
            for one in self._processes.values():
                if not one.is_ready:
                    selector.register(one.channel, selectors.EVENT_READ, one)
            for key, _ in selector.select(_LOOK):
                worker: _Process | None = key.data
                if worker is None:
                    self._woken.recv(64)
                elif worker.channel.recv(16) == _READY:
                    worker.is_ready = True
                else:
                    time.sleep(_LOOK / 10)  # it has closed the channel, and ends

    def _ended(self, one: _Process, code: int, *, is_announced: bool) -> None:
        one.close()
        del self._processes[one.node]
        if self._signals or self._has_failed:
            if one.is_ready and code > 0:  # one that was still starting is ended by its first signal
                self._code = self._code or code
            return
        if not is_announced:
            self._has_failed = True
            self._tell(signal.SIGTERM)
            self._drain()
            raise CommandLineError(f"the worker {one.node} ended with code {code} before it served; see its messages")
        if self._window.exceeded(self._clock()):
            get_logger().error("workers_given_up", node=one.node, code=code, restarts=_RESTARTS, seconds=_PERIOD)
            self._has_failed = True
            self._tell(signal.SIGTERM)
            self._note_end(self._drain_timeout)
            return
        get_logger().error("worker_ended", node=one.node, code=code)
        self._start(one.node)

    def _tell(self, number: int) -> None:
        for one in self._processes.values():
            if one.process.poll() is None:
                one.process.send_signal(number)

    def _note_end(self, drain: float) -> None:
        """Note when all must have ended that have been told to end now. A second signal ends the drains."""
        until = self._clock() + drain + _LAST
        self._until = until if self._until is None else min(self._until, until)

    def _kill_late(self) -> None:
        """Kill those that were told to end and have not in time: they hang, or ignore the signal."""
        if self._until is None or self._clock() <= self._until:
            return
        self._until = None
        for one in self._processes.values():
            if one.process.poll() is None:
                get_logger().error("worker_killed", node=one.node, drain_timeout=self._drain_timeout)
                one.process.kill()
                self._code = self._code or 1

    def _drain(self) -> None:
        """Wait until all have ended; those that have not in time, or when a signal comes, are killed."""
        until = self._clock() + _LAST
        for one in self._processes.values():
            while one.process.poll() is None:
                if self._signals or self._clock() > until:
                    one.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(_LOOK)

    def _close(self) -> None:
        for one in self._processes.values():  # after an error or a second Ctrl-C
            one.close()
        for each in (*self._listeners, self._wake, self._woken):
            each.close()
