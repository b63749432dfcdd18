"""A primary with a replica that lags, and three Sentinels: a failover loses what the replica has not had."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any, Self

from penstock.testing import eventually
from tests.cluster.proxy import Proxy
from tests.integration.engines import Server

__all__ = ["Pair"]

_ON_DISK = ("--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0")
_NAME = "main"
_pause = threading.Event().wait  # seconds


class Pair:
    """Two servers, one of which is the primary, each known to all others by the port of a proxy.

    Args:
        folder: for their files.
        program: of `tests.integration.engines.PROGRAMS`.
    """

    def __init__(self, folder: Path, program: str = "valkey") -> None:
        self._stack = contextlib.ExitStack()
        try:
            self._make(folder, program)
        except BaseException:
            self.close()
            raise

    def _make(self, folder: Path, program: str) -> None:
        self._servers: list[tuple[Server, Proxy]] = []  # the primary is the first
        for name in ("a", "b"):
            server = self._stack.enter_context(Server(folder / name, program, _ON_DISK))
            proxy = self._stack.enter_context(Proxy(server.port))
            known_as = ("--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(proxy.port))
            server.kill()
            server.settings += known_as
            server.start()
            self._servers.append((server, proxy))
        (_, first), (replica, _) = self._servers
        replica.ask("REPLICAOF", "127.0.0.1", first.port)
        eventually(self._has_replica, 60)
        how = {"quorum": 2, "down_after": 2_000}  # so long that a busy machine is not taken for a death
        self._sentinels = [
            self._stack.enter_context(Server.sentinel(folder / name, program, _NAME, first.port, **how))
            for name in ("s1", "s2", "s3")
        ]
        eventually(lambda: all(self._knows_all(sentinel) for sentinel in self._sentinels), 30)

    @property
    def url(self) -> str:
        """For nodes: they ask the Sentinels for the primary."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self._sentinels)}/{_NAME}"

    @property
    def primary(self) -> Server:
        return self._servers[0][0]

    def fail_over(self, lag: float) -> None:
        """Let the replica get nothing for some seconds, then let the primary die; returns when the other one is it.

        The old one comes back as a replica, and loses what it alone had.
        """
        (primary, before), (_, after) = self._servers
        before.hold_replicas()
        _pause(lag)
        primary.kill()
        before.drop_replicas()
        eventually(lambda: all(self._primary_of(sentinel) == after.port for sentinel in self._sentinels), 60)
        primary.start()
        eventually(self._is_settled, 60)

    def _is_settled(self) -> bool:
        """Whether one is the primary for all, and the other one its replica. They may have changed once more."""
        ports = {self._primary_of(sentinel) for sentinel in self._sentinels}
        self._servers.sort(key=lambda one: one[1].port not in ports)
        return len(ports) == 1 and self._has_replica()

    def _has_replica(self) -> bool:
        return b"state=online" in self.primary.ask("INFO", "replication")

    def _primary_of(self, sentinel: Server) -> int:
        found: list[bytes] = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)
        return int(found[1])

    def _knows_all(self, sentinel: Server) -> bool:
        """Whether it knows the replica and the other two."""
        facts: Any = sentinel.ask("SENTINEL", "MASTER", _NAME)
        known = dict(zip(facts[::2], facts[1::2], strict=True))
        return (known[b"num-slaves"], known[b"num-other-sentinels"]) == (b"1", b"2")

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
