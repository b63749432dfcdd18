"""A log store in one SQLite file: streams that survive their process, on one machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from penstock.adapters.journals.local import LogWatches, WithinProcess, answer_of, check_append
from penstock.adapters.journals.sqlite_file import FileLock, open_file, translated
from penstock.config.checks import check_choice, check_number
from penstock.config.store import Synchronous
from penstock.errors import OptionError, StoreClosed, StoreDamaged, StoreError, StoreInUse, StoreReadOnly
from penstock.ports import (
    EMPTY,
    Append,
    Claim,
    Clock,
    Durability,
    Entry,
    EntryId,
    LogFrame,
    OwnerMark,
    Request,
    StoreStatistics,
    StoreView,
)

__all__ = ["SqliteJournal"]

_SWEEP: Final = 60.0  # seconds between two looks for logs that are too old or too many
_FORGET_AT_ONCE: Final = 100  # logs in one transaction of a sweep
_ENTRY_BYTES: Final = 60  # of an entry besides its data, about
_MOST_IDS: Final = 20_000
_FREED_PAGES: Final = 1_000  # pages given back to the disk after a sweep

_BEGIN_LOG: Final = "INSERT INTO log (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
_FIRST_ENTRY: Final = (
    "INSERT INTO entry (log, epoch, seq, first, is_last, node, reason, data, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Compare-and-append: the statement adds the entry behind the tail that is expected, or does nothing.
_NEXT_ENTRY: Final = (
    "INSERT INTO entry (log, epoch, seq, first, is_last, node, reason, data, crc)"
    " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE (?, ?) ="
    " (SELECT epoch, seq FROM entry WHERE log = ? ORDER BY epoch DESC, seq DESC LIMIT 1)"
)
_TAIL: Final = (
    "SELECT epoch, seq FROM entry WHERE log = (SELECT id FROM log WHERE name = ?) ORDER BY epoch DESC, seq DESC LIMIT 1"
)
# In these, 60 is `_ENTRY_BYTES`.
_END_LOG: Final = (
    "UPDATE log SET ended_at = ?,"
    " bytes = (SELECT total(length(data)) + count(*) * 60 FROM entry WHERE entry.log = log.id) WHERE id = ?"
)
_SIZE_OF_ALL: Final = (
    "SELECT total(bytes), count(*),"
    " (SELECT total(length(data)) + count(*) * 60 FROM entry JOIN log ON entry.log = log.id WHERE ended_at IS NULL)"
    " FROM log"
)
_SIZE_OF_LOG: Final = "SELECT total(length(data)) + count(*) * 60 FROM entry WHERE log = ?"
_SIZE_BEFORE: Final = (
    "SELECT count(*), total(length(data)) + count(*) * 60 FROM entry"
    " WHERE log = (SELECT id FROM log WHERE name = ?) AND (epoch, seq) < (?, ?)"
)
_DELETE_BEFORE: Final = "DELETE FROM entry WHERE log = (SELECT id FROM log WHERE name = ?) AND (epoch, seq) < (?, ?)"
_OPEN_REQUEST: Final = (
    "INSERT INTO request (id, log, data, node, kept_at, deliveries) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO NOTHING"
)


class _WallClock:
    monotonic = staticmethod(time.time)  # claims are kept across restarts
    time = staticmethod(time.time)


class SqliteJournal(WithinProcess):
    """Keeps streams and agents in one SQLite file on this machine. Implements `penstock.ports.LogStore`.

    One process writes the file; a second one gets `StoreInUse`, or opens it with ``read_only``. The file is in WAL
    mode, so there are ``<path>-wal``, ``<path>-shm`` and ``<path>-lock`` beside it. It must be on a local disk.

    Args:
        path: the file; made if there is none, in a directory that exists.
        durability: when readers get an event. ``"async"``: at once; it is written within a frame (about 40 ms), so
            the last frame or two may be lost after they were read. ``"sync"``: once it is written, which delays it by a
            frame.
        synchronous: ``"NORMAL"``: what is written survives the process; the last commits may be lost with the machine's
            power. ``"FULL"``: what is written survives both; each frame waits for the disk.
        keep: seconds for which a log is kept after its end, 0 … 10 years.
        max_bytes: the logs that ended first are removed beyond this, counted as data without SQLite's own pages,
            100,000 … 10**13. Running streams and agents are never removed.
        read_only: only look: every write raises `StoreReadOnly`.
        timeout: seconds to wait for another program that has locked the file, 0 … 600.
        clock: of claims, ages and limits; None takes the system's.

    Raises:
        StoreInUse: another process, or another store of this one, has it open.
        StoreReadOnly, StoreFull: it cannot be written.
        StoreDamaged, StoreIncompatible: it is not a whole store of this version.
        StoreUnavailable: it cannot be opened for another reason.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "async",
        synchronous: Synchronous = "NORMAL",
        keep: float = 7 * 86_400.0,
        max_bytes: int = 1 << 30,
        read_only: bool = False,
        timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        check_choice("durability", durability, ("async", "sync"))
        check_choice("synchronous", synchronous, ("NORMAL", "FULL"))
        check_number("keep", keep, 0, 3_650 * 86_400)
        check_number("max_bytes", max_bytes, 100_000, 10**13, whole=True)
        check_number("timeout", timeout, 0, 600)
        self._path = Path(path)
        if not self._path.name or self._path.name == ":memory:":  # a file of that name would be made
            raise OptionError("path", str(path), "the path of a file")
        self._durability: Durability = durability
        self._keep = keep
        self._max_bytes = max_bytes
        self._read_only = read_only
        self._clock: Clock = clock if clock is not None else _WallClock()
        super().__init__(self._clock, LogWatches(self.read, self.tail))
        self._pid = os.getpid()
        self._lock = threading.RLock()  # of the writing connection
        self._read_lock = threading.Lock()
        self._is_closed = False
        self._swept_at = self._clock.time()
        self._counts = StoreStatistics()
        self._ids: dict[str, int] = {}  # of logs that have not ended, in the file
        self._file_lock = None if read_only else FileLock(self._path)
        try:
            how: dict[str, Any] = {"synchronous": synchronous, "timeout": timeout}
            self._connection = open_file(self._path, read_only=read_only, **how)
            self._reading = open_file(self._path, read_only=True, **how)
            with translated(self._path):
                ended, self._logs, running = self._reading.execute(_SIZE_OF_ALL).fetchone()
                self._bytes = int(ended + running)
        except BaseException:
            if self._file_lock is not None:
                self._file_lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._path.name!r}, {self._durability}>"

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def durability(self) -> Durability:
        """As given."""
        return self._durability

    @property
    def is_shared(self) -> bool:
        """No: one process writes the file."""
        return False

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed(self.name)
        if os.getpid() != self._pid:  # SQLite forbids the use of a connection in the child of a fork
            raise StoreInUse(self.name)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, whole or not at all."""
        with self._lock:
            self._check_open()
            if self._read_only:
                raise StoreReadOnly(self.name)
            connection = self._connection
            try:
                with translated(self._path):
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                if isinstance(error, StoreError):
                    self._counts = msgspec.structs.replace(self._counts, failures=self._counts.failures + 1)
                raise

    def _select(self, statement: str, values: Iterable[object] = ()) -> list[Any]:
        with self._read_lock:
            self._check_open()
            with translated(self._path):
                return self._reading.execute(statement, tuple(values)).fetchall()

    # --- logs ----------------------------------------------------------------------------------------------------

    def append(self, log: str, expected: EntryId, entry: Entry) -> EntryId:
        """Append one entry, in a transaction of its own; see `penstock.ports.LogStore.append`."""
        return answer_of(self.append_all([Append(log, expected, entry)]))

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        """Append entries in one transaction; see `penstock.ports.LogStore.append_all`."""
        for append in appends:
            check_append(append)
        self._remove_lapsed()
        bytes_before, logs_before = self._bytes, self._logs
        try:
            with self._writing() as connection:
                bytes_before, logs_before = self._bytes, self._logs
                answers = [self._append(connection, append) for append in appends]
        except BaseException:
            self._bytes, self._logs = bytes_before, logs_before
            self._ids.clear()  # a log that was begun may not be there
            raise
        kept = [append for append, answer in zip(appends, answers, strict=True) if answer == append.entry.id]
        for append in kept:
            self._lapses.note(append)
        stored = [append.log for append in kept]
        counts = self._counts
        self._counts = msgspec.structs.replace(
            counts,
            appends=counts.appends + len(stored),
            refused=counts.refused + len(appends) - len(stored),
            transactions=counts.transactions + 1,
        )
        for log in dict.fromkeys(stored):
            self._watches.changed(log)
        if self._clock.time() - self._swept_at >= _SWEEP or self._bytes > self._max_bytes * 1.02:
            with contextlib.suppress(StoreError):  # it is counted, and done again
                self.sweep()
        return answers

    def _append(self, connection: sqlite3.Connection, append: Append) -> EntryId:
        entry, log, data = append.entry, append.log, append.entry.data
        at, crc = entry.id, zlib.crc32(data)
        columns: tuple[object, ...]
        if isinstance(entry, LogFrame):
            is_last = entry.is_last
            columns = (at.epoch, at.seq, entry.first, is_last, None, None, data, crc)
        else:
            is_last = False
            columns = (at.epoch, at.seq, None, False, entry.node, entry.reason, data, crc)
        log_id, answer = self._add(connection, append, columns)
        if answer == at:
            if is_last or append.lapses:
                until = append.lapses - self._keep if append.lapses else 0.0  # also if another process opens the file
                connection.execute(_END_LOG, (self._clock.time() + until, log_id))
                self._ids.pop(log, None)
            if append.opens is not None:
                self._enqueue(connection, append.opens, append.node)
            if append.closes:
                connection.execute("DELETE FROM request WHERE id = ?", (append.closes,))
        return answer

    def _add(
        self, connection: sqlite3.Connection, append: Append, columns: tuple[object, ...]
    ) -> tuple[int | None, EntryId]:
        """Add the entry if the tail is the expected one; returns the log's id, and the tail afterwards."""
        log, expected = append.log, append.expected
        log_id: int | None
        if expected == EMPTY:
            begun = connection.execute(_BEGIN_LOG, (log,))
            log_id, is_added = begun.lastrowid, begun.rowcount == 1
            if is_added:
                connection.execute(_FIRST_ENTRY, (log_id, *columns))
                self._logs += 1
        else:
            log_id = self._id_of(connection, log)
            values = (log_id, *columns, expected.epoch, expected.seq, log_id)
            is_added = log_id is not None and connection.execute(_NEXT_ENTRY, values).rowcount == 1
        if is_added:
            self._bytes += len(append.entry.data) + _ENTRY_BYTES
            return log_id, append.entry.id
        found = connection.execute(_TAIL, (log,)).fetchone()
        return self._id_of(connection, log), EMPTY if found is None else EntryId(*found)

    def _id_of(self, connection: sqlite3.Connection, log: str) -> int | None:
        known = self._ids.get(log)
        if known is None:
            found = connection.execute("SELECT id FROM log WHERE name = ?", (log,)).fetchone()
            if found is None:
                return None
            known = self._ids[log] = found[0]
            if len(self._ids) > _MOST_IDS:
                del self._ids[next(iter(self._ids))]
        return known

    def read(self, log: str, after: EntryId = EMPTY, limit: int | None = None) -> Sequence[Entry]:
        """Read a log; see `penstock.ports.LogStore.read`."""
        self._remove_lapsed()
        rows = self._select(
            "SELECT entry.epoch, entry.seq, first, is_last, node, reason, data, crc FROM entry"
            " JOIN log ON entry.log = log.id WHERE name = ? AND (entry.epoch, entry.seq) > (?, ?)"
            " ORDER BY entry.epoch, entry.seq LIMIT ?",
            (log, after.epoch, after.seq, -1 if limit is None else limit),
        )
        return [self._entry(log, *row) for row in rows]

    def _entry(
        self,
        log: str,
        epoch: int,
        seq: int,
        first: int | None,
        is_last: int,
        node: str | None,
        reason: str | None,
        data: bytes,
        crc: int,
    ) -> Entry:
        if not isinstance(data, bytes) or zlib.crc32(data) != crc:
            raise StoreDamaged(self.name, f"entry {epoch}-{seq} of log {log!r} is not what was written")
        if first is not None:
            return LogFrame(EntryId(epoch, seq), first, data, bool(is_last))
        return OwnerMark(EntryId(epoch, seq), node or "", reason or "", data)

    def tail(self, log: str) -> EntryId:
        """The tail of a log; see `penstock.ports.LogStore.tail`."""
        self._remove_lapsed()
        rows = self._select(_TAIL, (log,))
        return EntryId(*rows[0]) if rows else EMPTY

    def trim(self, log: str, before: EntryId) -> int:
        """Remove old entries; see `penstock.ports.LogStore.trim`."""
        with self._writing() as connection:
            tail = connection.execute(_TAIL, (log,)).fetchone()
            end = before if tail is None else min(before, EntryId(*tail))
            values = (log, end.epoch, end.seq)
            count, gone = connection.execute(_SIZE_BEFORE, values).fetchone()
            connection.execute(_DELETE_BEFORE, values)
            connection.execute("UPDATE log SET bytes = max(0, bytes - ?) WHERE name = ?", (int(gone), log))
        self._bytes -= int(gone)
        return int(count)

    def forget(self, log: str) -> bool:
        """Remove a log; see `penstock.ports.LogStore.forget`."""
        with self._writing() as connection:
            ids = connection.execute("SELECT id FROM log WHERE name = ?", (log,)).fetchall()
            found = [(one, int(connection.execute(_SIZE_OF_LOG, (one,)).fetchone()[0])) for (one,) in ids]
            self._remove(connection, found)
            self._ids.pop(log, None)
        self._removed(found)
        self._watches.changed(log)
        return bool(found)

    def _remove_lapsed(self) -> None:
        for log in self._lapses.take_due():
            self.forget(log)

    def _remove(self, connection: sqlite3.Connection, logs: Sequence[tuple[int, int]]) -> None:
        for log, _ in logs:
            connection.execute("DELETE FROM entry WHERE log = ?", (log,))
            connection.execute("DELETE FROM log WHERE id = ?", (log,))

    def _removed(self, logs: Sequence[tuple[int, int]]) -> None:
        self._bytes -= sum(size for _, size in logs)
        self._logs -= len(logs)

    # --- retention -----------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove the ended logs that are too old, or too many; returns how many. Done about once a minute by itself."""
        self._swept_at = self._clock.time()
        count = 0
        while True:
            with self._writing() as connection:
                gone = self._too_old(connection) or self._too_many(connection)
                self._remove(connection, gone)
            self._removed(gone)
            count += len(gone)
            if not gone:
                break
        if count:
            with self._lock, translated(self._path):
                self._connection.execute(f"PRAGMA incremental_vacuum({_FREED_PAGES})").fetchall()
        return count

    def _too_old(self, connection: sqlite3.Connection) -> list[tuple[int, int]]:
        return connection.execute(
            "SELECT id, bytes FROM log WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?",
            (self._clock.time() - self._keep, _FORGET_AT_ONCE),
        ).fetchall()

    def _too_many(self, connection: sqlite3.Connection) -> list[tuple[int, int]]:
        over = self._bytes - self._max_bytes
        if over <= 0:
            return []
        found, rows = (
            [],
            connection.execute(
                "SELECT id, bytes FROM log WHERE ended_at IS NOT NULL ORDER BY ended_at LIMIT ?", (_FORGET_AT_ONCE,)
            ).fetchall(),
        )
        for row in rows:
            if over <= 0:
                break
            found.append(row)
            over -= row[1]
        return found

    def vacuum(self) -> None:
        """Give all free pages back to the disk. Rewrites the file: needs its size again, and blocks writing meanwhile.

        Raises:
            StoreFull: there is no room for the copy; the store is unchanged.
        """
        with self._lock:
            self._check_open()
            if self._read_only:
                raise StoreReadOnly(self.name)
            with translated(self._path):
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # --- requests ------------------------------------------------------------------------------------------------

    def _enqueue(self, connection: sqlite3.Connection, request: Request, node: str | None) -> bool:
        values = (request.id, request.log, request.data, node, self._clock.monotonic(), 0 if node is None else 1)
        return connection.execute(_OPEN_REQUEST, values).rowcount == 1

    def enqueue(self, request: Request, node: str | None = None) -> bool:
        """Enter a request; see `penstock.ports.LogStore.enqueue`."""
        with self._writing() as connection:
            return self._enqueue(connection, request, node)

    def claim(self, node: str, limit: int, lease: float) -> Sequence[Claim]:
        """Claim requests; see `penstock.ports.LogStore.claim`."""
        now = self._clock.monotonic()
        with self._writing() as connection:
            rows = connection.execute(
                "SELECT id, log, data, deliveries + 1 FROM request WHERE node IS NULL OR kept_at <= ?"
                " ORDER BY number LIMIT ?",
                (now - lease, limit),
            ).fetchall()
            connection.executemany(
                "UPDATE request SET node = ?, kept_at = ?, deliveries = ? WHERE id = ?",
                [(node, now, deliveries, id) for id, _, _, deliveries in rows],
            )
        return self._claims(rows)

    def _claims(self, rows: Iterable[tuple[str, str, bytes, int]]) -> list[Claim]:
        return [Claim(Request(id, log, data), deliveries, self._cancels.has(log)) for id, log, data, deliveries in rows]

    def keep(self, node: str, requests: Sequence[str]) -> Sequence[str]:
        """Renew claims; see `penstock.ports.LogStore.keep`."""
        now = self._clock.monotonic()
        with self._writing() as connection:
            return [
                request
                for request in requests
                if connection.execute(
                    "UPDATE request SET kept_at = ? WHERE id = ? AND node = ?", (now, request, node)
                ).rowcount
            ]

    def release(self, node: str, request: str) -> bool:
        """End a request; see `penstock.ports.LogStore.release`."""
        with self._writing() as connection:
            gone = connection.execute("DELETE FROM request WHERE id = ? AND node = ?", (request, node))
            return gone.rowcount == 1

    def hand_over(self, node: str, request: str, to: str) -> bool:
        """Give a claim away; see `penstock.ports.LogStore.hand_over`."""
        with self._writing() as connection:
            values = (to, self._clock.monotonic(), request, node)
            moved = connection.execute("UPDATE request SET node = ?, kept_at = ? WHERE id = ? AND node = ?", values)
            return moved.rowcount == 1

    def held(self, node: str) -> Sequence[Claim]:
        """The claims of a node; see `penstock.ports.LogStore.held`."""
        statement = "SELECT id, log, data, deliveries FROM request WHERE node = ? ORDER BY number"
        return self._claims(self._select(statement, (node,)))

    # --- shared by all nodes -------------------------------------------------------------------------------------

    def new_number(self) -> int:
        """0: no other process writes the file."""
        self._check_open()
        return 0

    def view(self) -> StoreView:
        """The nodes; see `penstock.ports.LogStore.view`."""
        held = dict(self._select("SELECT node, count(*) FROM request GROUP BY node"))
        waiting = held.pop(None, 0)
        return StoreView(self._nodes.living(), held, waiting, f"SQLite {sqlite3.sqlite_version}")

    def statistics(self) -> StoreStatistics:
        """The counters."""
        refused = self._commands.threads.refused
        return msgspec.structs.replace(self._counts, bytes=int(self._bytes), logs=self._logs, commands_refused=refused)

    def close(self) -> None:
        """Write everything into the file itself, close it, and let another process open it."""
        with self._lock, self._read_lock:
            if self._is_closed or os.getpid() != self._pid:
                return
            self._is_closed = True
            self._reading.close()
            with contextlib.suppress(sqlite3.Error):  # the next to open it does that
                self._connection.close()
            if self._file_lock is not None:
                self._file_lock.release()
