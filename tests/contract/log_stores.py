"""The log stores that the contract suite runs over: each a function of a directory and a clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.ports import LogStore

__all__ = ["STORES", "SettableClock"]


class SettableClock:
    """A clock that stands until it is advanced. A store with a server's clock has its own way to do that."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


STORES: dict[str, Callable[[Path, SettableClock], LogStore]] = {
    "memory": lambda directory, clock: MemoryLogStore(clock=clock),
    "memory-sync": lambda directory, clock: MemoryLogStore(clock=clock, durability="sync"),
    "sqlite": lambda directory, clock: SqliteJournal(directory / "a.db", clock=clock),
    "sqlite-full": lambda directory, clock: SqliteJournal(
        directory / "a.db", clock=clock, durability="sync", synchronous="FULL"
    ),
}
