"""Owners of a log for the tests: each says one event after another by the writer of the package itself."""

from __future__ import annotations

import itertools
import time
import uuid

from penstock.actors.stream.storing import StoredLog, StoreWriter
from penstock.ports import EMPTY, EntryId, LogFrame, LogStore, OwnerMark, Request, next_epoch
from penstock.testing import eventually
from tests.cluster.checker import Line, lines_of, packed

__all__ = ["IgnorantOwner", "Owner"]


class _Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Owner:
    """Takes a log over, and goes on with it. Its words are its own, as those of a model are.

    Args:
        store: where to.
        log: its name.
        number: of its node.
    """

    def __init__(self, store: LogStore, log: str = "s", number: int = 1) -> None:
        self.store = store
        entries = store.read(log)
        self.lines = lines_of(entries)
        self.acknowledged: list[Line] = []
        self._fresh = len(self.lines)
        self._name = uuid.uuid4().hex[:6]
        self.writer = StoreWriter(store, _Clock(), node=f"n{number}", number=number, frame=0.002, patience=60.0)
        request = Request(log, log)
        tail = entries[-1].id if entries else EMPTY  # what has come since the reading must fence this owner
        self.log: StoredLog = self.writer.open(log, {}, b"", tail=tail, request=request, encode=packed)
        self.log.kept = lambda seq: self.lines[seq:]  # type: ignore[assignment, return-value]
        self.log.on_stored = self._stored

    def _stored(self, seq: int) -> None:
        self.acknowledged += self.lines[self._fresh : seq]
        self._fresh = max(self._fresh, seq)

    def say(self, count: int = 1) -> None:
        """Say some events, without waiting for the store."""
        for _ in range(count):
            seq = len(self.lines) + 1
            line = Line(seq, f"{self._name} {seq}")
            self.log.append(line)
            self.lines.append(line)

    def wait_for_store(self, timeout: float = 30.0) -> None:
        """Wait until the store has everything, or another owner has the log."""
        eventually(lambda: self._fresh == len(self.lines) or self.log.is_fenced, timeout)

    def close(self) -> None:
        self.writer.close(5)


class IgnorantOwner:
    """A planted bug: a node that ignores that it is fenced. It appends behind whatever tail it finds."""

    def __init__(self, store: LogStore, log: str = "s") -> None:
        self._store, self._log = store, log
        tail = store.tail(log)
        self._epoch = next_epoch(tail, time.time(), 9)
        self._tail = store.append(log, tail, OwnerMark(EntryId(self._epoch, 0), "n9"))
        self._seq = itertools.count(len(lines_of(store.read(log))) + 1)

    def say(self) -> None:
        line = Line(next(self._seq), f"ignorant {uuid.uuid4().hex}")
        id = EntryId(self._epoch, line.seq)
        answer = self._store.append(self._log, self._tail, LogFrame(id, line.seq, packed([line])))
        if answer != id:  # taken for the tail of another append: it goes on behind it
            id = EntryId(answer.epoch, answer.seq + 1)
            answer = self._store.append(self._log, answer, LogFrame(id, line.seq, packed([line])))
        self._tail = answer
