"""The file of `SqliteJournal`: its lock, its tables, its connections, and what SQLite's errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.config.store import Synchronous
from penstock.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIncompatible,
    StoreInUse,
    StoreReadOnly,
    StoreUnavailable,
)

__all__ = ["APPLICATION_ID", "FORMAT", "FileLock", "open_file", "store_error", "translated"]

APPLICATION_ID: Final = 0x50454E53
"""In the header of every file (``PRAGMA application_id``)."""
FORMAT: Final = 1
"""The version of the tables (``PRAGMA user_version``)."""

_PAGE_CACHE: Final = 8 * 1024  # KiB
_CHECKED: Final = 64 * 1_048_576  # bytes; larger files are not checked as a whole when they are opened
_JOURNAL_LIMIT: Final = 16 * 1_048_576  # bytes of the write-ahead log that stay after a checkpoint
_MARGIN: Final = 128 * 1024  # bytes that one write may add to a file

_TABLES: Final = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE log (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  bytes INTEGER NOT NULL DEFAULT 0,
  ended_at REAL
);
CREATE INDEX log_ended ON log (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE entry (
  log INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  first INTEGER,
  is_last INTEGER NOT NULL,
  node TEXT,
  reason TEXT,
  data BLOB NOT NULL,
  crc INTEGER NOT NULL,
  PRIMARY KEY (log, epoch, seq)
) WITHOUT ROWID;
CREATE TABLE request (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  log TEXT NOT NULL,
  data BLOB NOT NULL,
  node TEXT,
  kept_at REAL NOT NULL,
  deliveries INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""


# --- errors ----------------------------------------------------------------------------------------------------------


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """What an error of SQLite's means for the store at ``path``."""
    name = getattr(error, "sqlite_errorname", None) or ""
    store = str(path)
    if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_at_limit(path)):
        return StoreFull(store)
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreReadOnly(store)
    if name.startswith("SQLITE_CORRUPT"):
        return StoreDamaged(store, "SQLite finds its structure broken")
    if name.startswith("SQLITE_NOTADB"):
        return StoreDamaged(store, "it is not a SQLite database")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreUnavailable(store, "another program has locked the file")
    if name == "SQLITE_ERROR" and ("no such table" in str(error) or "no such column" in str(error)):
        return StoreDamaged(store, "a table is missing")
    return StoreUnavailable(store, name or type(error).__name__)


def _is_at_limit(path: Path) -> bool:
    """Whether the process's own limit of a file's size stops the writing, which SQLite reports as an I/O error."""
    if sys.platform == "win32":
        return False
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    sizes = [0]
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            sizes.append(os.stat(f"{path}{suffix}").st_size)
    return max(sizes) + _MARGIN > limit


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise a `StoreError` in place of SQLite's errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(path, error) from error


# --- one writer ------------------------------------------------------------------------------------------------------

_held: Final[set[Path]] = set()
_held_lock: Final = threading.Lock()


class FileLock:
    """Lets one process, and one store in it, write a file. Ends with the process, however that ends.

    It locks a file of its own, ``<path>-lock``: any other use of the database's file would release SQLite's locks.

    Raises:
        StoreInUse: another store has it.
        StoreReadOnly: the directory cannot be written.
        StoreUnavailable: the directory is not there, the path is that of something else than a file, or the file
            cannot be locked.
    """

    def __init__(self, path: Path) -> None:
        _check_place(path)
        self._path = path.resolve()
        with _held_lock:
            if self._path in _held:
                raise StoreInUse(str(path))
            _held.add(self._path)
        try:
            self._descriptor = self._lock(path)
        except BaseException:
            self._forget()
            raise

    def _lock(self, path: Path) -> int:
        try:
            descriptor = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _open_error(path, error) from error
        try:
            _lock_descriptor(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise StoreInUse(str(path)) from error
        return descriptor

    def release(self) -> None:
        """Let others write. Harmless if that has been done."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._forget()

    def _forget(self) -> None:
        with _held_lock:
            _held.discard(self._path)


def _lock_descriptor(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not kept by the child of a fork


def _check_place(path: Path) -> None:
    """Refuse what SQLite would fail at later, with a lock or a journal left beside it."""
    if os.path.isdir(path):  # unlike the method, False where it may not look
        raise StoreUnavailable(str(path), "it is a directory; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreUnavailable(str(path), "it is not a file")


def _open_error(path: Path, error: OSError) -> StoreError:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == 30:  # EROFS
        return StoreReadOnly(str(path))
    if isinstance(error, FileNotFoundError):
        return StoreUnavailable(str(path), "there is no such directory")
    return StoreUnavailable(str(path), error)


# --- opening ---------------------------------------------------------------------------------------------------------


def open_file(path: Path, *, read_only: bool, synchronous: Synchronous, timeout: float) -> sqlite3.Connection:
    """Open a connection to the file; makes the file if there is none, unless ``read_only``.

    Raises:
        StoreError: it cannot be opened.
    """
    _check_place(path)
    if read_only and not path.exists():
        raise StoreUnavailable(str(path), "there is no such file")
    if not read_only and path.exists() and not os.access(path, os.W_OK):
        raise StoreReadOnly(str(path))
    if not read_only and not path.exists():
        _make_file(path)
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    if read_only and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        uri += "&immutable=1"  # nothing can write it, and SQLite could not make the file it shares with writers
    with translated(path):
        connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        with translated(path):
            _prepare(connection, path, read_only=read_only, synchronous=synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(path: Path) -> None:
    """Make an empty file that only its owner may read, as it will hold conversations; so are SQLite's other files."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _open_error(path, error) from error


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool, synchronous: Synchronous) -> None:
    connection.execute(f"PRAGMA cache_size = -{_PAGE_CACHE}")
    if not read_only and connection.execute("PRAGMA schema_version").fetchone()[0] == 0:
        connection.executescript(_TABLES)
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _STAMPS)
    if application != APPLICATION_ID:
        raise StoreIncompatible(str(path), "the database is another program's")
    if version != FORMAT:
        raise StoreIncompatible(str(path), f"its format is {version}, this version of Penstock has {FORMAT}")
    if read_only:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
    if path.stat().st_size <= _CHECKED:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreDamaged(str(path), "SQLite finds its structure broken")


_STAMPS: Final = ("application_id", "user_version")
