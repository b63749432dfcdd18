"""A log store in memory: for tests, for systems that share one process, and the template for other stores."""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.adapters.journals.local import LogWatches, WithinProcess, answer_of, check_append
from penstock.config.checks import check_choice, check_number
from penstock.errors import StoreClosed, StoreError, StoreFull
from penstock.ports import (
    EMPTY,
    NODE_NUMBERS,
    Append,
    Claim,
    Clock,
    Durability,
    Entry,
    EntryId,
    LogFrame,
    Request,
    StoreStatistics,
    StoreView,
)

__all__ = ["MemoryLogStore"]

_ENTRY_BYTES: Final = 200  # of an entry besides its data, about


class _MonotonicClock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class _Log:
    __slots__ = ("bytes", "entries", "is_ended")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.bytes = 0
        self.is_ended = False

    @property
    def tail(self) -> EntryId:
        return self.entries[-1].id if self.entries else EMPTY


class _Held(msgspec.Struct):
    request: Request
    node: str | None
    kept_at: float
    deliveries: int


class MemoryLogStore(WithinProcess):
    """Keeps logs and requests in memory. Implements `penstock.ports.LogStore`; nothing survives the process.

    Args:
        max_bytes: how much it holds, about; the logs that ended first make room, and when none has, appends fail with
            `StoreFull`. 1,000 … 10**12.
        durability: ``"async"`` or ``"sync"``; here only the order of writing and reading differs.
        clock: for leases and limits; None takes the system's.
    """

    def __init__(
        self, max_bytes: int = 256 * 1_048_576, *, durability: Durability = "async", clock: Clock | None = None
    ) -> None:
        check_number("max_bytes", max_bytes, 1_000, 10**12, whole=True)
        check_choice("durability", durability, ("async", "sync"))
        self._max_bytes = max_bytes
        self._durability: Durability = durability
        self._clock: Clock = clock if clock is not None else _MonotonicClock()
        super().__init__(self._clock, LogWatches(self.read, self.tail))
        self._lock = threading.Lock()
        self._logs: dict[str, _Log] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._bytes = 0
        self._requests: dict[str, _Held] = {}  # in the order of entering
        self._numbers = itertools.count()
        self._counts = StoreStatistics()
        self._is_closed = False

    @property
    def name(self) -> str:
        """``memory``."""
        return "memory"

    @property
    def durability(self) -> Durability:
        """As given."""
        return self._durability

    @property
    def is_shared(self) -> bool:
        """Yes: several systems of one process may write it."""
        return True

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed(self.name)

    # --- logs ----------------------------------------------------------------------------------------------------

    def append(self, log: str, expected: EntryId, entry: Entry) -> EntryId:
        """Append one entry; see `penstock.ports.LogStore.append`."""
        return answer_of(self.append_all([Append(log, expected, entry)]))

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        """Append entries; see `penstock.ports.LogStore.append_all`."""
        for append in appends:
            check_append(append)
        with self._lock:
            self._check_open()
            self._remove_lapsed()
            answers = [self._append(append) for append in appends]
            counts = self._counts
            stored = sum(answer == append.entry.id for answer, append in zip(answers, appends, strict=True))
            failed = sum(isinstance(answer, StoreError) for answer in answers)
            self._counts = msgspec.structs.replace(
                counts,
                appends=counts.appends + stored,
                refused=counts.refused + len(appends) - stored - failed,
                transactions=counts.transactions + 1,
                failures=counts.failures + failed,
            )
        for log in dict.fromkeys(append.log for append in appends):
            self._watches.changed(log)
        return answers

    def _append(self, append: Append) -> EntryId | StoreError:
        log, entry = self._logs.get(append.log), append.entry
        tail = EMPTY if log is None else log.tail
        if tail == entry.id:
            self._open_and_close(append)
        if tail != append.expected:
            return tail
        size = len(entry.data) + _ENTRY_BYTES
        while self._bytes + size > self._max_bytes and self._ended:
            self._forget(next(iter(self._ended)))
        if self._bytes + size > self._max_bytes:
            return StoreFull(self.name)
        if log is None:
            log = self._logs[append.log] = _Log()
        log.entries.append(entry)
        log.bytes += size
        self._bytes += size
        self._lapses.note(append)
        if isinstance(entry, LogFrame) and entry.is_last:
            log.is_ended = True
            self._ended[append.log] = None
        self._open_and_close(append)
        return entry.id

    def _open_and_close(self, append: Append) -> None:
        if append.opens is not None:
            self._enqueue(append.opens, append.node)
        if append.closes:
            self._requests.pop(append.closes, None)

    def read(self, log: str, after: EntryId = EMPTY, limit: int | None = None) -> Sequence[Entry]:
        """Read a log; see `penstock.ports.LogStore.read`."""
        with self._lock:
            self._check_open()
            self._remove_lapsed()
            found = self._logs.get(log)
            if found is None:
                return []
            first = bisect_right(found.entries, after, key=_id_of)
            return found.entries[first : None if limit is None else first + limit]

    def tail(self, log: str) -> EntryId:
        """The tail of a log; see `penstock.ports.LogStore.tail`."""
        with self._lock:
            self._check_open()
            self._remove_lapsed()
            found = self._logs.get(log)
            return EMPTY if found is None else found.tail

    def trim(self, log: str, before: EntryId) -> int:
        """Remove old entries; see `penstock.ports.LogStore.trim`."""
        with self._lock:
            self._check_open()
            found = self._logs.get(log)
            if found is None:
                return 0
            count = bisect_left(found.entries, min(before, found.tail), key=_id_of)
            size = sum(len(entry.data) + _ENTRY_BYTES for entry in found.entries[:count])
            del found.entries[:count]
            found.bytes -= size
            self._bytes -= size
            return count

    def forget(self, log: str) -> bool:
        """Remove a log; see `penstock.ports.LogStore.forget`."""
        with self._lock:
            self._check_open()
            self._remove_lapsed()
            is_known = self._forget(log)
        self._watches.changed(log)
        return is_known

    def _forget(self, log: str) -> bool:
        found = self._logs.pop(log, None)
        self._ended.pop(log, None)
        self._lapses.forget(log)
        self._bytes -= 0 if found is None else found.bytes
        return found is not None

    def _remove_lapsed(self) -> None:
        for log in self._lapses.take_due():
            self._forget(log)

    def rewind(self, log: str, tail: EntryId) -> None:
        """Lose the entries after ``tail``, as an engine may that comes back without its last second. For tests."""
        with self._lock:
            found = self._logs[log]
            del found.entries[bisect_right(found.entries, tail, key=_id_of) :]
        self._watches.changed(log)

    # --- requests ------------------------------------------------------------------------------------------------

    def enqueue(self, request: Request, node: str | None = None) -> bool:
        """Enter a request; see `penstock.ports.LogStore.enqueue`."""
        with self._lock:
            self._check_open()
            return self._enqueue(request, node)

    def _enqueue(self, request: Request, node: str | None) -> bool:
        if request.id in self._requests:
            return False
        self._requests[request.id] = _Held(request, node, self._clock.monotonic(), 0 if node is None else 1)
        return True

    def claim(self, node: str, limit: int, lease: float) -> Sequence[Claim]:
        """Claim requests; see `penstock.ports.LogStore.claim`."""
        with self._lock:
            self._check_open()
            now = self._clock.monotonic()
            due = [held for held in self._requests.values() if held.node is None or now - held.kept_at >= lease]
            for held in due[:limit]:
                held.node, held.kept_at, held.deliveries = node, now, held.deliveries + 1
            return [self._claim(held) for held in due[:limit]]

    def _claim(self, held: _Held) -> Claim:
        return Claim(held.request, held.deliveries, self._cancels.has(held.request.log))

    def keep(self, node: str, requests: Sequence[str]) -> Sequence[str]:
        """Renew claims; see `penstock.ports.LogStore.keep`."""
        with self._lock:
            self._check_open()
            now, kept = self._clock.monotonic(), []
            for request in requests:
                held = self._requests.get(request)
                if held is not None and held.node == node:
                    held.kept_at = now
                    kept.append(request)
            return kept

    def release(self, node: str, request: str) -> bool:
        """End a request; see `penstock.ports.LogStore.release`."""
        with self._lock:
            self._check_open()
            held = self._requests.get(request)
            if held is None or held.node != node:
                return False
            del self._requests[request]
            return True

    def hand_over(self, node: str, request: str, to: str) -> bool:
        """Give a claim away; see `penstock.ports.LogStore.hand_over`."""
        with self._lock:
            self._check_open()
            held = self._requests.get(request)
            if held is None or held.node != node:
                return False
            held.node, held.kept_at = to, self._clock.monotonic()
            return True

    def held(self, node: str) -> Sequence[Claim]:
        """The claims of a node; see `penstock.ports.LogStore.held`."""
        with self._lock:
            self._check_open()
            return [self._claim(held) for held in self._requests.values() if held.node == node]

    # --- shared by all nodes -------------------------------------------------------------------------------------

    def new_number(self) -> int:
        """The number of a node; see `penstock.ports.LogStore.new_number`."""
        self._check_open()
        return next(self._numbers) % NODE_NUMBERS

    def view(self) -> StoreView:
        """The nodes; see `penstock.ports.LogStore.view`."""
        with self._lock:
            self._check_open()
            owners = [held.node for held in self._requests.values()]
        held = {node: owners.count(node) for node in owners if node is not None}
        return StoreView(self._nodes.living(), held, owners.count(None), "memory")

    def statistics(self) -> StoreStatistics:
        """The counters."""
        refused = self._commands.threads.refused
        return msgspec.structs.replace(self._counts, bytes=self._bytes, logs=len(self._logs), commands_refused=refused)

    def close(self) -> None:
        """Close it, and forget everything."""
        with self._lock:
            self._is_closed = True
            self._logs.clear()
            self._requests.clear()


def _id_of(entry: Entry) -> EntryId:
    return entry.id
