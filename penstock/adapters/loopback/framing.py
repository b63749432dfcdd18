"""From events to socket writes: grouping, compression, splitting, HTTP chunks. Pure."""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right

from penstock.adapters.loopback.answer import Answer, Framing, Split

__all__ = ["BodyFraming", "Cutter"]


class Cutter:
    """Splits a stream of bytes at the offsets a `Split` names, counted from its beginning.

    >>> cutter = Cutter(4)
    >>> cutter.cut(b"abcdef", flush=False), cutter.cut(b"gh", flush=True)
    ([b'abcd'], [b'efgh'])
    """

    def __init__(self, split: Split) -> None:
        self._every = 1 if split == "bytes" else split if isinstance(split, int) else 0
        self._offsets = split if isinstance(split, tuple) else ()
        self._position = 0
        self._rest = b""

    def cut(self, data: bytes, *, flush: bool) -> list[bytes]:
        """Return the complete pieces; with ``flush``, also the incomplete last one."""
        data = self._rest + data
        start = self._position
        end = start + len(data)
        if self._every:
            cuts = list(range(start - start % self._every + self._every, end + 1, self._every))
        else:
            low, high = bisect_right(self._offsets, start), bisect_left(self._offsets, end + 1)
            cuts = list(self._offsets[low:high])
            flush = flush or high == len(self._offsets)  # after the last offset nothing has to wait
        if flush and end > start and (not cuts or cuts[-1] != end):
            cuts.append(end)
        edges = [start, *cuts]
        self._position = edges[-1]
        self._rest = data[self._position - start :]
        return [data[low - start : high - start] for low, high in zip(edges, cuts, strict=False)]


class BodyFraming:
    """Turns the events of one body into socket writes. Without an answer: unchanged, or ``batch`` events a write."""

    def __init__(self, framing: Framing = "length", answer: Answer | None = None, *, batch: int | None = None) -> None:
        self.framing: Framing = framing
        self.chunked = framing in ("chunked", "gzip")
        self._batch = answer.batch if answer else batch
        self._events_per_chunk = answer.events_per_chunk if answer else 1
        self._cutter = Cutter(answer.split) if answer and answer.split is not None else None
        self._gzip = zlib.compressobj(wbits=31) if framing == "gzip" else None
        self._held: list[bytes] = []
        # The case of the benchmarks: each event is a chunk, and one write has all events there are.
        self._plain = self._events_per_chunk == 1 and not (self._batch or self._cutter or self._gzip)

    def unchunk(self) -> None:
        """Do without chunks, for a client that does not know them (HTTP/1.0): the body ends with the connection."""
        self.chunked = False
        if self.framing == "chunked":
            self.framing = "close"

    def feed(self, events: list[bytes], *, flush: bool) -> list[bytes]:
        """Return the writes for these events, one item each; without ``flush``, incomplete groups wait for more."""
        if self._plain:
            return [b"".join(map(_chunk, events) if self.chunked else events)] if events else []
        events = self._held + events
        whole = len(events) if flush else len(events) - len(events) % (self._batch or self._events_per_chunk)
        self._held = events[whole:]
        size = self._batch or max(whole, 1)
        writes: list[bytes] = []
        for start in range(0, whole, size):
            writes += self._encode(events[start : min(start + size, whole)])
        if flush and self._cutter is not None:
            writes += self._enclose(self._cutter.cut(b"", flush=True))
        return writes

    def end(self) -> list[bytes]:
        """Return the remaining writes when the body is complete, without HTTP's last chunk."""
        writes = self.feed([], flush=True)
        if self._gzip is None:
            return writes
        rest = self._gzip.flush(zlib.Z_FINISH)
        return writes + self._enclose([rest] if self._cutter is None else self._cutter.cut(rest, flush=True))

    def _encode(self, events: list[bytes]) -> list[bytes]:
        per = self._events_per_chunk
        units = [b"".join(events[start : start + per]) for start in range(0, len(events), per)]
        if self._gzip is not None:
            units = [self._gzip.compress(unit) + self._gzip.flush(zlib.Z_SYNC_FLUSH) for unit in units]
        if self._cutter is not None:
            return self._enclose(self._cutter.cut(b"".join(units), flush=False))
        return [b"".join(self._enclose(units))]

    def _enclose(self, units: list[bytes]) -> list[bytes]:
        return list(map(_chunk, units)) if self.chunked else units


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
