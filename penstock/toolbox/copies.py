"""What `Stream.tee` writes to: a path, an open file, a function. They may block, so no dispatcher thread calls them."""

from __future__ import annotations

import inspect
import io
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from penstock.adapters.partial_file import PartialFile
from penstock.config.surrogates import replace_surrogates
from penstock.errors import OptionError, StreamClosed
from penstock.stream import Writable

__all__ = ["Copy", "CopyGuard", "TeeTarget", "Writing", "open_copy"]

R = TypeVar("R")


TeeTarget: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes] | Writable | Callable[[str], object]
"""A path, an open file, or a function, async or not, that gets the text of one event."""

Piece: TypeAlias = tuple[str | None, str]
"""An origin, and a text of it."""


class Copy(Protocol):
    """Where a stream's text is written. One thread at a time may use it."""

    def write(self, pieces: Sequence[Piece]) -> Any:
        """Write the texts; returns None, or something to await."""

    def void(self, origin: str | None) -> None:
        """Take back everything, or the text of one origin."""

    def complete(self) -> None:
        """Nothing more comes, and the stream has completed."""

    def close(self) -> None:
        """Let go of it, complete or not."""

    def discard(self) -> None:
        """Let go of it, as nothing was ever written."""


def open_copy(target: TeeTarget) -> Copy:
    """Open a target.

    Raises:
        OSError: it cannot be opened.
        OptionError: it is none, or another tee is writing there.
    """
    if isinstance(target, (str, bytes, os.PathLike)):
        return PathCopy(target)
    if hasattr(target, "write") and not isinstance(target, type):
        return FileCopy(target)
    if callable(target) and not isinstance(target, type):
        return FunctionCopy(target)
    raise OptionError("target", type(target), "a path, an open file, or a function of one argument")


class PathCopy:
    """A file of its own, with another name until it is complete."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        self._file = PartialFile(path)
        self._spans: list[tuple[str | None, int]] = []  # whose text comes next, and how many bytes
        self.close = self._file.close
        self.discard = self._file.discard
        self.complete = self._file.complete

    def write(self, pieces: Sequence[Piece]) -> None:
        """See `Copy.write`."""
        encoded = [(origin, replace_surrogates(text).encode()) for origin, text in pieces]
        self._file.write(b"".join(data for _, data in encoded))
        for origin, data in encoded:
            if self._spans and self._spans[-1][0] == origin:
                self._spans[-1] = (origin, self._spans[-1][1] + len(data))
            else:
                self._spans.append((origin, len(data)))

    def void(self, origin: str | None) -> None:
        """See `Copy.void`."""
        if origin is None:
            self._spans.clear()
            self._file.clear()
            return
        at = 0
        found = []
        for other, length in self._spans:
            if other == origin:
                found.append((at, at + length))
            at += length
        self._file.cut_out(found)
        self._spans = [one for one in self._spans if one[0] != origin]


class FileCopy:
    """An open file of the user's. It is neither closed nor renamed."""

    def __init__(self, file: Any) -> None:
        self._file = file
        if isinstance(file, io.IOBase) and not file.writable():
            raise io.UnsupportedOperation("not writable")
        self._is_text = _takes_text(file)
        self._start = file.tell() if getattr(file, "seekable", bool)() else None

    def write(self, pieces: Sequence[Piece]) -> None:
        """See `Copy.write`."""
        text = replace_surrogates("".join(text for _, text in pieces))
        if self._is_text:
            self._file.write(text)
        else:
            rest = memoryview(text.encode())
            while rest:
                count = self._file.write(rest)
                rest = rest[len(rest) if count is None else count :]  # a raw file may take less
        self._flush()

    def _flush(self) -> None:
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def void(self, origin: str | None) -> None:
        """See `Copy.void`."""
        if self._start is None:
            raise io.UnsupportedOperation("the answer began anew, and what was written cannot be taken back")
        if origin is not None:
            raise io.UnsupportedOperation("the text of one origin cannot be taken back")
        self._file.seek(self._start)
        self._file.truncate()

    def complete(self) -> None:
        """See `Copy.complete`."""
        self._flush()

    def close(self) -> None:
        """See `Copy.close`."""

    discard = close


def _takes_text(file: Any) -> bool:
    if isinstance(file, (io.TextIOBase, io.RawIOBase, io.BufferedIOBase)):
        return isinstance(file, io.TextIOBase)
    try:
        file.write("")
    except TypeError:
        return False
    return True


class FunctionCopy:
    """A function that is called with each text. It is not told of a text that becomes void."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    def write(self, pieces: Sequence[Piece]) -> Any:
        """See `Copy.write`."""
        return self._function("".join(text for _, text in pieces))

    def void(self, origin: str | None) -> None:
        """See `Copy.void`."""

    def complete(self) -> None:
        """See `Copy.complete`."""

    close = discard = complete


class Writing:
    """Texts on their way to a copy.

    Args:
        copy: where to write.
        pieces: the texts.
        together: how many of them are written with one call.
    """

    def __init__(self, copy: Copy, pieces: Sequence[Piece], together: int) -> None:
        self._copy = copy
        self._pieces = pieces
        self._together = together
        self._next = 0
        self.done = 0
        """How many are written."""

    @property
    def is_done(self) -> bool:
        """Whether all are written."""
        return self.done >= len(self._pieces)

    def go_on(self) -> Any:
        """Write until there is something to await, which is returned, or all are written."""
        while self._next < len(self._pieces):
            pieces = self._pieces[self._next : self._next + self._together]
            result = self._copy.write(pieces)
            self._next += len(pieces)
            if inspect.isawaitable(result):
                return result
            self.done = self._next
        return None

    def note(self) -> None:
        """Note that what `go_on` has returned was awaited."""
        self.done = self._next


class CopyGuard:
    """Closes a copy in any thread without waiting: if it is in use, the thread that uses it closes it."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_closed = False

    def run(self, function: Callable[[], R]) -> R:
        """Call a function that uses the copy."""
        with self._lock:
            if self._is_closed:
                raise StreamClosed("")
            self._is_busy = True
        try:
            return function()
        finally:
            with self._lock:
                self._is_busy = False
                is_closed = self._is_closed
            if is_closed:
                self.copy.close()

    def close(self) -> None:
        """Let go of the copy. Harmless if that has been done."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            is_busy = self._is_busy
        if not is_busy:
            self.copy.close()
