"""The table of all streams. It belongs to no process, as an ETS table outlives the process that uses it."""

from __future__ import annotations

import threading

from penstock.actors.stream.record import StreamRecord
from penstock.errors import StreamExists, StreamNotFound
from penstock.events import StreamCompleted, StreamFailed, TerminalEvent

__all__ = ["StreamTable"]


class StreamTable:
    """All stream records by id, and the totals over them. The handler writes it; any thread may read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, StreamRecord] = {}
        self.created = 0
        self.active = 0
        self.completed = 0
        self.failed = 0
        self.cancelled = 0
        self.tokens = 0  # of ended streams

    def add(self, record: StreamRecord) -> None:
        """Enter a record, once. The id of an ended stream can be used again.

        Raises:
            StreamExists: a running stream has that id.
        """
        with self._lock:
            if record.serial:  # entered by a handler that crashed before it answered
                return
            other = self._records.get(record.stream_id)
            if other is not None and not other.is_over:
                raise StreamExists(record.stream_id)
            self._records.pop(record.stream_id, None)  # so that the dict is in the order of opening
            self._records[record.stream_id] = record
            self.created += 1
            self.active += 1
            record.serial = self.created
            record.on_end = lambda terminal: self._count_end(record, terminal)

    def _count_end(self, record: StreamRecord, terminal: TerminalEvent) -> None:
        """Count an ended stream; see `StreamRecord.finish`."""
        with self._lock:
            self.active -= 1
            self.tokens += record.log.tokens
            match terminal:
                case StreamCompleted():
                    self.completed += 1
                case StreamFailed():
                    self.failed += 1
                case _:
                    self.cancelled += 1

    def get(self, stream_id: str) -> StreamRecord:
        """The record with that id, of a stream that runs or has ended not long ago.

        Raises:
            StreamNotFound: there is none.
        """
        record = self._records.get(stream_id)
        if record is None:
            raise StreamNotFound(stream_id)
        return record

    def find(self, stream_id: str) -> StreamRecord | None:
        """The record with that id, or None."""
        return self._records.get(stream_id)

    def forget(self, record: StreamRecord) -> None:
        """Remove a record, unless its id has been given to another stream since."""
        with self._lock:
            if self._records.get(record.stream_id) is record:
                del self._records[record.stream_id]

    def after_fork(self) -> None:
        """Have all records refuse further calls, in the child of a fork."""
        self._lock = threading.Lock()  # another thread may have held it at that moment
        for record in self._records.values():
            record.after_fork()

    def all(self) -> list[StreamRecord]:
        """All records, oldest first."""
        with self._lock:
            return list(self._records.values())
