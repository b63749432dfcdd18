"""Recorded bytes as an answer: a body that is served byte for byte, at its own pace."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias, get_args

from penstock.adapters.loopback.answer import Framing
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    HoldOpen,
    ResetAfter,
    StallAfter,
    TruncateAfter,
    check_headers,
)
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError

__all__ = ["Replay", "ReplayFault", "recorded_models"]

ReplayFault: TypeAlias = DelayFirstByte | StallAfter | ResetAfter | TruncateAfter | HoldOpen
"""Faults of a recording; they count bytes where the faults of an answer count tokens."""

_FAULT_NAMES = " | ".join(fault.__name__ for fault in get_args(ReplayFault))
_CONTENT_TYPES = {".ndjson": "application/x-ndjson", ".json": "application/json"}
_EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded body. It is sent whatever the request asks for, streamed or not, in any dialect.

    Attributes:
        body: the bytes, or the path of a file that contains them; the file is read when the value is made.
        content_type: None is decided by the file name (``.ndjson``, ``.json``), otherwise an event stream.
        status, headers: of the response; ``content-type`` and the headers of the framing are added.
        chunk: bytes in one write, or several such sizes used in rotation; None sends all in one write.
        pace: seconds between two writes; the first write does not wait.
        framing: as in `Answer`; each write is an HTTP chunk of its own.
        faults: what goes wrong while it is sent, counted in bytes.
    """

    body: bytes | str | Path
    _: KW_ONLY
    content_type: str | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    chunk: int | tuple[int, ...] | None = None
    pace: float = 0.0
    framing: Framing = "chunked"
    faults: tuple[ReplayFault, ...] = ()

    def __post_init__(self) -> None:
        suffix = ""
        if isinstance(self.body, (str, Path)):
            suffix = Path(self.body).suffix
            object.__setattr__(self, "body", _read(Path(self.body)))
        elif not isinstance(self.body, bytes):
            raise OptionError("body", self.body, "bytes or the path of a file")
        if self.content_type is None:
            object.__setattr__(self, "content_type", _CONTENT_TYPES.get(suffix, _EVENT_STREAM))
        object.__setattr__(self, "headers", check_headers((*self.headers, ("content-type", self.media_type)))[:-1])
        check_number("status", self.status, 200, 599, whole=True)
        if self.status in (204, 205, 304):
            raise OptionError("status", self.status, "a status whose responses have a body")
        self._check_chunk()
        check_number("pace", self.pace, 0, 3600)
        check_choice("framing", self.framing, get_args(Framing))
        if not isinstance(self.faults, (list, tuple)) or not all(isinstance(f, ReplayFault) for f in self.faults):
            raise OptionError("faults", self.faults, f"a list of {_FAULT_NAMES}")
        object.__setattr__(self, "faults", tuple(self.faults))

    def _check_chunk(self) -> None:
        if self.chunk is None:
            return
        sizes = self.chunk if isinstance(self.chunk, (list, tuple)) else (self.chunk,)
        if not sizes:
            raise OptionError("chunk", self.chunk, "None, a size or a list of sizes that is not empty")
        for size in sizes:
            check_number("chunk", size, 1, 2**30, whole=True)
        object.__setattr__(self, "chunk", tuple(sizes))

    @property
    def media_type(self) -> str:
        """The content type, given or derived."""
        assert self.content_type is not None
        return self.content_type

    @property
    def recorded(self) -> bytes:
        """The bytes of the body, given or read from the file."""
        assert isinstance(self.body, bytes)
        return self.body

    def writes(self) -> Iterator[bytes]:
        """Yield the body in the pieces that ``chunk`` asks for."""
        body = self.recorded
        sizes = cycle(self.chunk) if isinstance(self.chunk, tuple) else cycle((max(len(body), 1),))
        start = 0
        while start < len(body):
            size = next(sizes)
            yield body[start : start + size]
            start += size

    def replace(self, **changes: Any) -> Replay:
        """Return a copy with some fields changed, validated as a whole."""
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        return f"Replay({len(self.recorded)} bytes of {self.media_type})"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError("body", str(path), f"a readable file ({error.strerror})") from error


def recorded_models(folder: str | Path) -> dict[str, Replay]:
    """Return a model for each recording (``*.sse``, ``*.ndjson``) in ``folder``, named as the file without its suffix.

    Raises:
        OptionError: the folder does not exist or contains no recording.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OptionError("replay", str(folder), "a folder that exists")
    found = {path.stem: Replay(path) for path in sorted(folder.iterdir()) if path.suffix in (".sse", ".ndjson")}
    if not found:
        raise OptionError("replay", str(folder), "a folder with recordings (*.sse, *.ndjson)")
    return found
