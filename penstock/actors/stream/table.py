"""The table of all streams. It belongs to no process, as an ETS table outlives the process that uses it."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from penstock.actors.stream.models import ModelStatistics, ModelTotals
from penstock.actors.stream.observing import StreamObserver, notify
from penstock.actors.stream.record import StreamRecord
from penstock.errors import StreamExists, StreamNotFound
from penstock.events import StreamCompleted, StreamFailed, TerminalEvent

__all__ = ["StreamTable", "Totals"]


class Totals(NamedTuple):
    """The totals over all streams of a system, at one moment: ``created`` is the sum of the next four."""

    created: int
    active: int
    completed: int
    failed: int
    cancelled: int
    tokens: int


class StreamTable:
    """All stream records by id, and the totals over them. The handler writes it; any thread may read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, StreamRecord] = {}
        self._running: dict[int, StreamRecord] = {}  # by serial; their ends have not been counted
        # A heap: when an ended stream is to be forgotten, its id, and when it ended, as another may have that id since.
        self._ends: list[tuple[float, str, float]] = []
        self.created = 0
        self.completed = 0
        self.failed = 0
        self.cancelled = 0
        self._tokens = 0  # of ended streams
        self._models = ModelTotals()  # of ended streams
        self.observers: tuple[StreamObserver, ...] = ()  # of streams that are opened from now on
        self.load: Callable[[str], StreamRecord | None] = _load_nothing  # finds the stored log of an ended stream

    def add(self, record: StreamRecord) -> None:
        """Enter a record, once. The id of an ended stream can be used again.

        Raises:
            StreamExists: a running stream has that id.
        """
        with self._lock:
            if record.serial:  # entered by a handler that crashed before it answered
                return
            other = self._records.get(record.stream_id)
            if other is not None and not other.is_over and not _is_elsewhere(other):
                raise StreamExists(record.stream_id)
            self._records.pop(record.stream_id, None)  # so that the dict is in the order of opening
            self._records[record.stream_id] = record
            self.created += 1
            record.serial = self.created
            self._running[record.serial] = record
            record.table = self
            record.observers = self.observers
        record.changes.add(record.created_monotonic, "start", record.state, "start")
        for observer in record.observers:
            notify(observer.opened, record)

    def count_end(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """Count an ended stream; see `StreamRecord.finish`."""
        with self._lock:
            del self._running[record.serial]
            self._tokens += record.log.tokens
            self._models.add_ended(record, terminal)
            self._note_end(record)
            kind = terminal.__class__
            if kind is StreamCompleted:
                self.completed += 1
            elif kind is StreamFailed:
                self.failed += 1
            else:
                self.cancelled += 1

    def totals(self) -> Totals:
        """The totals. A stream that has its terminal event is counted as ended, once."""
        with self._lock:
            running = self._running
            tokens = self._tokens + sum([record.log.tokens for record in running.values()])
            return Totals(self.created, len(running), self.completed, self.failed, self.cancelled, tokens)

    def by_model(self) -> tuple[ModelStatistics, ...]:
        """The totals for each provider and model. Each stream is counted once, as running or as ended."""
        with self._lock:
            running = list(self._running.values())
            models = self._models.copy()
        for record in running:
            models.add_running(record)
        return models.snapshot()

    def running(self) -> list[StreamRecord]:
        """The records of all streams whose ends have not been counted, oldest first."""
        with self._lock:
            return list(self._running.values())

    def observe(self, observer: StreamObserver) -> None:
        """Have an observer called about every stream that is opened from now on."""
        with self._lock:
            self.observers = (*self.observers, observer)

    @property
    def has_store(self) -> bool:
        """Whether `find` and `get` may read a store, and so wait."""
        return self.load is not _load_nothing

    def get(self, stream_id: str) -> StreamRecord:
        """The record with that id, of a stream that runs, has ended not long ago, or is stored; see `find`.

        Raises:
            StreamNotFound: there is none.
        """
        record = self.find(stream_id)
        if record is None:
            raise StreamNotFound(stream_id)
        return record

    def find(self, stream_id: str) -> StreamRecord | None:
        """The record with that id, or None. One that is stored, and no longer in memory, is read from the store.

        That may wait for a disk or a network, so an event loop calls `peek`.
        """
        record = self.peek(stream_id)
        if record is None and (found := self.load(stream_id)) is not None:
            with self._lock:
                record = self.peek(stream_id)
                if record is None:
                    self._records.pop(stream_id, None)
                    record = self._records[stream_id] = found
                    self._note_end(found)
            if record is not found:
                found.let_go()
        return record

    def peek(self, stream_id: str) -> StreamRecord | None:
        """The record with that id, or None, without a look into a store.

        One whose log has another owner by now is no answer: the store has what comes.
        """
        record = self._records.get(stream_id)
        return None if record is not None and record.is_displaced else record

    def forget(self, record: StreamRecord) -> None:
        """Remove a record, unless its id has been given to another stream since."""
        with self._lock:
            if self._records.get(record.stream_id) is record:
                del self._records[record.stream_id]

    def forget_ended(self, now: float) -> None:
        """Remove the records of streams that ended ``keep_finished`` seconds ago. Takes no time for those that did not.

        Args:
            now: monotonic.
        """
        ends = self._ends
        with self._lock:
            while ends and ends[0][0] <= now:
                _, stream_id, ended_at = heapq.heappop(ends)
                record = self._records.get(stream_id)
                if record is None or record.ended_at != ended_at:  # if another stream has that id, it has its own entry
                    continue
                if _forgotten_at(record) <= now:
                    del self._records[stream_id]
                else:
                    self._note_end(record)

    def note_end(self, record: StreamRecord) -> None:
        """Forget an ended stream that was not counted ``keep_finished`` seconds after its end: one of another node."""
        with self._lock:
            self._note_end(record)

    def _note_end(self, record: StreamRecord) -> None:
        ends = self._ends
        if record.ended_at is not None:
            heapq.heappush(ends, (_forgotten_at(record), record.stream_id, record.ended_at))
        if len(ends) > 2 * len(self._records) + 64:  # most of them were forgotten before their time
            known = self._records
            ends[:] = [
                entry for entry in ends if (found := known.get(entry[1])) is not None and found.ended_at == entry[2]
            ]
            heapq.heapify(ends)

    def after_fork(self) -> None:
        """Have all records refuse further calls, in the child of a fork."""
        self._lock = threading.Lock()  # another thread may have held it at that moment
        for record in self._records.values():
            record.after_fork()

    def newest(self, count: int) -> list[StreamRecord]:
        """The ``count`` records that were opened last, the newest first. Takes no longer with many records."""
        with self._lock:
            return list(islice(reversed(self._records.values()), count))

    def all(self) -> list[StreamRecord]:
        """All records, oldest first."""
        with self._lock:
            return list(self._records.values())


def _forgotten_at(record: StreamRecord) -> float:
    assert record.ended_at is not None
    return record.ended_at + record.options.keep_finished


def _is_elsewhere(record: StreamRecord) -> bool:
    """Whether a record stands for a stream that runs on another node, so that a new owner's takes its place."""
    return record.remote is not None or record.is_displaced


def _load_nothing(stream_id: str) -> StreamRecord | None:
    return None
