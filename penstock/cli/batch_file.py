"""The output of ``penstock batch``: a result a line, which a kill leaves whole."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.cli.failures import CommandLineError
from penstock.config.logs import get_logger

if sys.platform != "win32":
    import fcntl

__all__ = ["Entry", "Format", "OutputError", "ResultFile"]

Format: TypeAlias = Literal["penstock", "openai"]

_SYNC_EVERY: Final = 1.0
_NO_HASH: Final = b""
_OPENAI_ID: Final = "batch_req_"


class OutputError(Exception):
    """The output cannot be written. What was written before is whole."""


class Entry(NamedTuple):
    """A result that the file has: where its line is, and of which line of the input it is."""

    id: str
    is_completed: bool
    sha256: bytes
    line: int
    start: int
    end: int


class ResultFile:
    """An append-only file of results, locked against other runs.

    Args:
        path: of the file.
        form: of its lines.

    Attributes:
        entries: the results that it had when it was opened, by id.
        was_torn: whether its last line was cut off, because a kill or a full disk had left a part of it.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.was_torn = False
        self._form = form
        self._descriptor: int | None = None
        self._is_regular = True
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._fault: OSError | None = None
        self._syncing: threading.Thread | None = None

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, *, resume: bool) -> None:
        """Open and lock the file, and read the results that it has.

        Raises:
            CommandLineError: it cannot be opened; another run has it; it has lines that are no results; or it is not
                empty, and ``resume`` is false.
        """
        try:
            self._descriptor = self._open_locked()
            self._is_regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if not self._is_regular:
                return
            size = os.fstat(self._descriptor).st_size
            if size and not resume:
                raise CommandLineError(f"{self.path} is not empty; --resume goes on with it")
            if size:
                self._read(size)
        except OSError as error:
            raise CommandLineError(f"{self.path}: {error.strerror or error}") from None

    def _open_locked(self) -> int:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            try:
                descriptor = os.open(self.path, flags, 0o644)
            except OSError:
                if not self.path.is_fifo() and not self.path.is_char_device():
                    raise
                return os.open(self.path, os.O_WRONLY)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            try:
                _lock(descriptor)
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise CommandLineError(f"{self.path}: another run of penstock batch writes to it") from None
            except FileNotFoundError:
                pass
            os.close(descriptor)  # another run has replaced the file meanwhile

    def _read(self, size: int) -> None:
        start, raw = 0, b""
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                end = start + len(raw)
                entry = self._parse(raw, start, end)
                if entry is None:
                    if end < size:
                        raise CommandLineError(f"{self.path}, line {number}: not a result of this command")
                    self._cut(start)
                    self.was_torn = True
                    return
                if entry.id in self.entries:
                    raise CommandLineError(f"{self.path}, line {number}: the id {entry.id[:80]!r} is there twice")
                self.entries[entry.id] = entry
                start = end
        if not raw.endswith(b"\n"):  # an editor may have removed it
            self._write(b"\n")

    def _parse(self, raw: bytes, start: int, end: int) -> Entry | None:
        try:
            found = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        if self._form == "openai":
            return _openai_entry(found, start, end)
        if "id" not in found or found.get("status") not in ("completed", "failed"):
            return None
        line = found.get("line")
        return Entry(
            str(found["id"]),
            found["status"] == "completed",
            _digest(found.get("input_sha256")),
            line if isinstance(line, int) else 0,
            start,
            end,
        )

    # --- writing -------------------------------------------------------------------------------------------------

    def append(self, value: object) -> None:
        """Write one result as one line, whole or not at all.

        Raises:
            OutputError: the disk is full, or the file cannot be written.
        """
        try:
            with self._lock:
                if self._fault is not None:
                    raise self._fault
                self._write(msgspec.json.encode(value, enc_hook=repr) + b"\n")
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error
        if self._is_regular:
            self._dirty.set()
            if self._syncing is None:
                self._syncing = threading.Thread(target=self._keep_synced, name="penstock-sync", daemon=True)
                self._syncing.start()

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        before = os.fstat(self._descriptor).st_size if self._is_regular else 0
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            if self._is_regular:
                with contextlib.suppress(OSError):
                    self._cut(before)
            raise

    def _cut(self, size: int) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)

    def _keep_synced(self) -> None:
        """Write the file through to the disk, once a second while it grows."""
        while not self._closing.wait(_SYNC_EVERY):
            self._dirty.wait()
            self.sync()

    def sync(self) -> None:
        """Write the file through to the disk. A fault is raised by the next `append`."""
        self._dirty.clear()
        with self._lock:
            if self._descriptor is None or not self._is_regular:
                return
            try:
                getattr(os, "fdatasync", os.fsync)(self._descriptor)
            except OSError as error:
                self._fault = error

    def rewrite(self, keep: Callable[[Entry], bool], *, ordered: bool = False) -> None:
        """Replace the file by one with the lines of the entries that are kept, in the order of the input if so asked.

        A kill leaves either the old file or the new one.

        Raises:
            OutputError: it cannot be written; the old one is left.
        """
        kept = [entry for entry in self.entries.values() if keep(entry)]
        if ordered:
            kept.sort(key=lambda entry: entry.line)
        if not self._is_regular or len(kept) == len(self.entries) == 0 or self._is_as_wanted(kept):
            return
        path = self.path.with_name(f".{self.path.name}.new")
        try:
            with self.path.open("rb") as old, path.open("wb") as new:
                for entry in kept:
                    old.seek(entry.start)
                    new.write(old.read(entry.end - entry.start).rstrip(b"\n") + b"\n")
                new.flush()
                os.fsync(new.fileno())
            with self._lock:
                self._replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            raise OutputError(f"{self.path}: {error.strerror or error}") from error
        self.entries = {entry.id: entry for entry in kept}

    def _is_as_wanted(self, kept: list[Entry]) -> bool:
        return len(kept) == len(self.entries) and kept == sorted(kept, key=lambda entry: entry.start)

    def _replace(self, path: Path) -> None:
        """Put the new file in the old one's place; another run that waits for the lock sees that it is another."""
        assert self._descriptor is not None
        os.chmod(path, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
        new = os.open(path, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        _lock(new)
        if sys.platform == "win32":
            os.close(self._descriptor)
            os.close(new)
            path.replace(self.path)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_BINARY)
            return
        path.replace(self.path)
        os.close(self._descriptor)
        self._descriptor = new
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def sort(self) -> None:
        """Put the lines in the order of the input.

        Raises:
            OutputError: as for `rewrite`.
        """
        if self._descriptor is None or not self._is_regular:
            return
        before, self.entries = self.entries, {}
        self._read(os.fstat(self._descriptor).st_size)
        self.rewrite(lambda entry: True, ordered=True)
        self.entries = before

    def close(self) -> None:
        """Write everything through to the disk, and close."""
        if self._descriptor is None:
            return
        self._closing.set()
        self._dirty.set()
        self.sync()
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = None
        if self._fault is not None:
            get_logger().warning("output_not_synced", error=self._fault.strerror)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())


def _openai_entry(found: dict[str, Any], start: int, end: int) -> Entry | None:
    if not isinstance(found.get("custom_id"), str) or "response" not in found:
        return None
    number, _, digest = str(found.get("id", "")).removeprefix(_OPENAI_ID).partition("_")
    return Entry(
        found["custom_id"],
        found.get("error") is None,
        _digest(digest),
        int(number) if number.isdecimal() else 0,
        start,
        end,
    )


def _digest(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _NO_HASH
    except ValueError:
        return _NO_HASH


def _lock(descriptor: int) -> None:
    """Lock the file for this run.

    Raises:
        BlockingIOError: another run has it.
    """
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
