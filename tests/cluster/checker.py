"""A checker in the manner of Jepsen: compares what readers had, and what was acknowledged, with the final log."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from penstock.errors import StoreError
from penstock.ports import Entry, EntryId, LogFrame, OwnerMark

__all__ = ["History", "Line", "faults", "lines_of", "packed"]


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One event: its number, and words that no other event has, so that a splice of two answers is seen."""

    seq: int
    words: str


def packed(lines: Sequence[Line]) -> bytes:
    return msgspec.msgpack.encode(lines)


def lines_of(entries: Sequence[Entry]) -> list[Line]:
    """All events in some entries."""
    return [
        line
        for entry in entries
        if isinstance(entry, LogFrame)
        for line in msgspec.msgpack.decode(entry.data, type=list[Line])
    ]


class History:
    """What one reader of a log had. Implements `penstock.ports.LogWatcher`."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.entries_had: list[Entry] = []
        self.rewinds: list[EntryId] = []
        self.errors: list[StoreError] = []

    def entries(self, entries: Sequence[Entry]) -> None:
        with self.condition:
            self.entries_had += entries
            self.condition.notify_all()

    def rewound(self, tail: EntryId) -> None:
        with self.condition:
            self.rewinds.append(tail)
            self.entries_had = [entry for entry in self.entries_had if entry.id <= tail]
            self.condition.notify_all()

    def failed(self, error: StoreError) -> None:
        with self.condition:
            self.errors.append(error)
            self.condition.notify_all()

    def wait_for_event(self, seq: int, timeout: float = 20.0) -> None:
        """Wait until the reader has an event."""
        with self.condition:
            had = self.condition.wait_for(lambda: any(line.seq >= seq for line in lines_of(self.entries_had)), timeout)
            assert had, [str(entry.id) for entry in self.entries_had]

    def wait_for_error(self) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: bool(self.errors), 20)


def faults(log: Sequence[Entry], acknowledged: Sequence[Line] = (), readers: Sequence[History] = ()) -> list[str]:
    """What is wrong; empty if nothing is.

    Args:
        log: all entries at the end.
        acknowledged: the events that the store has confirmed to an owner.
        readers: those that have read until the end.
    """
    lines = lines_of(log)
    found = _faults_of_log(log)
    numbers = [line.seq for line in lines]
    if numbers != list(range(1, len(numbers) + 1)):
        hole = next(index for index, seq in enumerate(numbers, 1) if index != seq)
        found.append(f"event {numbers[hole - 1]} stands where {hole} belongs")
    words = {line.seq: line.words for line in lines}
    for line in acknowledged:
        if words.get(line.seq) != line.words:
            found.append(f"event {line.seq} was acknowledged as {line.words!r}, and is {words.get(line.seq)!r}")
    for index, reader in enumerate(readers):
        had = lines_of(reader.entries_had)
        if had != lines[: len(had)]:
            found.append(f"reader {index} had something else than the log has")
        elif len(had) < len(lines):
            found.append(f"reader {index} had {len(had)} of {len(lines)} events")
    return found


def _faults_of_log(log: Sequence[Entry]) -> list[str]:
    found: list[str] = []
    owner, is_ended = -1, False
    for before, entry in zip([None, *log], log, strict=False):
        if before is not None and entry.id <= before.id:
            found.append(f"entry {entry.id} stands behind {before.id}")
        if isinstance(entry, OwnerMark):
            owner = entry.id.epoch
            continue
        if entry.id.epoch != owner:
            found.append(f"entry {entry.id} stands behind the mark of epoch {owner}")
        if is_ended:
            found.append(f"entry {entry.id} stands behind the end")
        is_ended = is_ended or entry.is_last
    return found
