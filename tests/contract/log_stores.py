"""The log stores that the contract suite runs over: each a function of a directory and a clock."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.ports import LogStore
from tests.integration.engines import Server, cluster

__all__ = ["STORES", "SettableClock"]


class SettableClock:
    """A clock that stands until it is advanced. A store with a server's clock has its own way to do that."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.on_advance: list[Callable[[float], None]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for advance in self.on_advance:
            advance(seconds)


Opened = AbstractContextManager[LogStore]


def _memory(directory: Path, clock: SettableClock) -> Opened:
    return contextlib.closing(MemoryLogStore(clock=clock))


def _memory_sync(directory: Path, clock: SettableClock) -> Opened:
    return contextlib.closing(MemoryLogStore(clock=clock, durability="sync"))


def _sqlite(directory: Path, clock: SettableClock) -> Opened:
    return SqliteJournal(directory / "a.db", clock=clock)


def _sqlite_full(directory: Path, clock: SettableClock) -> Opened:
    return SqliteJournal(directory / "a.db", clock=clock, durability="sync", synchronous="FULL")


# --- Valkey and Redis ------------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="penstock-engines-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _server(program: str, *settings: str) -> Server:
    """A server for all tests of this process; each test has a prefix of its own."""
    server = Server(_folder() / uuid.uuid4().hex, program, settings)
    atexit.register(server.close)
    return server


@functools.cache
def _cluster() -> tuple[Server, ...]:
    servers = cluster(_folder(), "valkey")
    for server in servers:
        atexit.register(server.close)
    return servers


@contextlib.contextmanager
def _shared(servers: tuple[Server, ...], clock: SettableClock, scheme: str, **how: Any) -> Iterator[LogStore]:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    clients = [server.client() for server in servers]
    clock.on_advance += [functools.partial(_shift, client, prefix) for client in clients]
    url = f"{scheme}://127.0.0.1:{servers[0].port}"
    with ValkeyJournal(url, prefix=prefix, owner_wait=0.0, keep=600.0, **how) as store:
        yield store
    for client in clients:
        client.close()


def _shift(client: Any, prefix: str, seconds: float) -> None:
    """Move all times of one store on one server into the past, as if its clock had been advanced."""
    for key in list(client.scan_iter(match=f"{prefix}:*", count=1000)):
        name = key.decode()
        if name.endswith((":kept", ":{nodes}")) and client.type(key) == b"zset":
            for member, score in client.zrange(key, 0, -1, withscores=True):
                client.zadd(key, {member: score - seconds * 1000})
        elif name.startswith(f"{prefix}:lim:"):
            client.set(key, f"{float(client.get(key)) - seconds * 1e6:.0f}", keepttl=True)
        elif name.startswith((f"{prefix}:cancel:", f"{prefix}:log:")) and (left := client.pttl(key)) >= 0:
            client.pexpire(key, max(left - round(seconds * 1000), 0))


def _valkey(directory: Path, clock: SettableClock) -> Opened:
    return _shared((_server("valkey"),), clock, "valkey")


def _valkey_on_disk(directory: Path, clock: SettableClock) -> Opened:
    server = _server("valkey", "--appendonly", "yes", "--appendfsync", "always")
    how = {"durability": "sync", "replicas": 0, "on_disk": True, "confirm_within": 10.0}
    return _shared((server,), clock, "redis", **how)


def _valkey_cluster(directory: Path, clock: SettableClock) -> Opened:
    return _shared(_cluster(), clock, "redis+cluster")


def _redis(directory: Path, clock: SettableClock) -> Opened:
    return _shared((_server("redis"),), clock, "redis")


STORES: dict[str, Callable[[Path, SettableClock], Opened]] = {
    "memory": _memory,
    "memory-sync": _memory_sync,
    "redis": _redis,
    "sqlite": _sqlite,
    "sqlite-full": _sqlite_full,
    "valkey": _valkey,
    "valkey-cluster": _valkey_cluster,
    "valkey-on-disk": _valkey_on_disk,
}
