"""A file that has another name until it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable
from typing import IO

from penstock.errors import OptionError

__all__ = ["PartialFile"]


class PartialFile:
    """Written as ``path.partial``; renamed to ``path`` by `complete`, else left as it is.

    While it is open it is locked against other writers of the same path, in this process and in others. What an
    earlier writer has left under the partial name is overwritten. A link is followed. One thread at a time may use it.

    Raises:
        OSError: it cannot be opened, or the path is that of a folder, a device or a pipe.
        OptionError: it is being written by another one.
    """

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        self.path = os.path.realpath(os.fsdecode(path))
        self.partial = self.path + ".partial"
        if os.path.isdir(self.path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if os.path.exists(self.path) and not os.path.isfile(self.path):  # a device or a pipe, which would be replaced
            raise OSError(errno.EINVAL, "Not a regular file", self.path)
        self._file = _open_alone(self.partial)
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append all of the data, or nothing if that fails."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(data)

    def clear(self) -> None:
        """Empty the file."""
        self._file.truncate(0)
        self._size = 0

    def cut_out(self, spans: Iterable[tuple[int, int]]) -> None:
        """Remove the bytes of some spans, each from a start to an end, in order."""
        self._file.seek(0)
        data = self._file.read()
        kept = []
        at = 0
        for start, end in spans:
            kept.append(data[at:start])
            at = end
        kept.append(data[at:])
        self.clear()
        self.write(b"".join(kept))

    def complete(self) -> None:
        """Make sure that the file is on the disk, and give it its name."""
        os.fsync(self._file.fileno())
        if sys.platform == "win32":  # where an open file cannot be renamed
            self._file.close()
        os.replace(self.partial, self.path)
        with contextlib.suppress(OSError):  # some file systems and systems cannot do it
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Close it as it is. Harmless if that has been done."""
        with contextlib.suppress(OSError):  # a network's file system may report now what it could not write
            self._file.close()

    def discard(self) -> None:
        """Close and delete it. Harmless if it has its name already."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.partial)


def _open_alone(path: str) -> IO[bytes]:
    """Open a file for appending, empty, once no one else has it open so."""
    while True:
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it stays open
        try:
            if not _lock(file.fileno()):
                raise OptionError("path", path.removesuffix(".partial"), "a path that no other tee is writing to")
            if _is_still(file.fileno(), path):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another writer has completed it between the two calls, and it has a new name


def _is_still(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; returns whether that was possible."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0x7FFF_FFFE, os.SEEK_SET)  # a byte that no text reaches
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
