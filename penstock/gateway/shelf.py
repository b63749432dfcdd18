"""The frames of one stream in one protocol, kept for all readers. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import msgspec

from penstock.gateway.projections.frames import Frame, Projection, joined

__all__ = ["Shelf"]

_SHARED: Final = 16_384
"""Bytes of joined frames that are kept for the next reader at the same place."""


class _TextRun(msgspec.Struct):
    """Frames of one key that are kept as their text alone. ``ends``: of each frame's piece, in characters."""

    key: Hashable
    pieces: list[str]
    ends: array[int]
    seqs: array[int]
    numbers: array[int]

    def __len__(self) -> int:
        return len(self.ends)

    def tail(self, count: int, projection: Projection) -> Frame:
        """All but the first ``count`` frames, as one."""
        return self.part(count, len(self.ends), projection)

    def until(self, count: int, limit: int) -> int:
        """How many frames, the first ``count`` included, have ``limit`` characters after those; at least one more."""
        begin = self.ends[count - 1] if count else 0
        return max(count + 1, bisect_right(self.ends, begin + limit))

    def part(self, count: int, until: int, projection: Projection) -> Frame:
        """The frames from one place in the run to another one, as one."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        text = self.pieces[0][self.ends[count - 1] if count else 0 : self.ends[until - 1]]
        seq, number = self.seqs[until - 1], self.numbers[until - 1]
        return Frame(seq, projection.delta(self.key, text, seq, number), self.key, text, number)


class Shelf:
    """All frames so far, by place from 0.

    The newest are kept one by one. When they take more than ``retain_bytes``, the oldest pieces of text are joined; a
    reader can still begin at any place.
    """

    def __init__(self, projection: Projection, retain_bytes: int) -> None:
        self.projection = projection
        self.retain_bytes = retain_bytes
        self.end = 0  # the place after the last frame
        self.size = 0  # bytes of all frames ever added
        self._frames: list[Frame] = []  # the newest
        self._base = 0  # the place of the first of them
        self._kept = 0  # bytes of them
        self._old: list[Frame | _TextRun] = []
        self._places: list[int] = []  # of the old ones
        self._read: tuple[int, int, int, tuple[bytes, int, Frame | None]] | None = None  # see `read_some`

    def add(self, frames: Sequence[Frame]) -> None:
        """Put frames at the end."""
        if not frames:
            return
        self._frames += frames
        self.end += len(frames)
        size = len(frames[0].data) if len(frames) == 1 else sum([len(frame.data) for frame in frames])
        self.size += size
        self._kept += size
        if self._kept > self.retain_bytes:
            self._fold()

    def read(self, place: int) -> bytes:
        """The frames from a place on, as few as possible."""
        frames = self._frames[max(0, place - self._base) :]
        if place < self._base:
            frames = [*self._old_from(place), *frames]
        return frames[0].data if len(frames) == 1 else joined(frames, self.projection)

    def read_some(self, place: int, limit: int) -> tuple[bytes, int, Frame | None]:
        """Frames from a place on, of about ``limit`` bytes when joined, the place after them, the last one.

        Readers at the same place get the same bytes, which are made once.
        """
        if place + 1 == self.end and place >= self._base:
            frame = self._frames[-1]
            return frame.data, self.end, frame
        known = self._read
        if known is not None and known[0] == place and known[1] == self.end and known[2] == limit:
            return known[3]
        found = self._read_old(place, limit) if place < self._base else self._read_new(place, limit)
        self._read = (place, self.end, limit, found) if len(found[0]) <= _SHARED else None
        return found

    def _read_new(self, place: int, limit: int) -> tuple[bytes, int, Frame | None]:
        first = count = place - self._base
        size = 0
        key: Hashable = None
        while count < len(self._frames) and size < limit:
            frame = self._frames[count]
            size += len(frame.text) if frame.key is not None and frame.key == key else len(frame.data)
            key = frame.key
            count += 1
        frames = self._frames[first:count]
        return joined(frames, self.projection), self._base + count, frames[-1] if frames else None

    def _read_old(self, place: int, limit: int) -> tuple[bytes, int, Frame | None]:
        frames: list[Frame] = []
        size = 0
        index = bisect_right(self._places, place) - 1
        while index < len(self._old) and size < limit:
            entry, start = self._old[index], self._places[index]
            if isinstance(entry, Frame):
                frame, place = entry, start + 1
            else:
                skipped = place - start
                until = entry.until(skipped, limit - size)
                frame, place = entry.part(skipped, until, self.projection), start + until
            frames.append(frame)
            size += len(frame.data)
            if place < start + _length(entry):
                break
            index += 1
        return joined(frames, self.projection), place, frames[-1] if frames else None

    def bytes_after(self, place: int) -> int:
        """How many bytes the frames from a place on have; text of joined ones counts alone. For statistics."""
        size = sum([len(frame.data) for frame in self._frames[max(0, place - self._base) :]])
        if place < self._base:
            size += sum(len(frame.data) for frame in self._old_from(place))
        return size

    def seq_at(self, place: int) -> int:
        """The number of the last event whose frames come before a place; 0 if there is none."""
        if place > self._base:
            return self._frames[place - self._base - 1].seq
        if not place or not self._old:
            return 0
        index = bisect_right(self._places, place - 1) - 1
        entry = self._old[index]
        return entry.seq if isinstance(entry, Frame) else entry.seqs[place - 1 - self._places[index]]

    def after_seq(self, seq: int) -> int:
        """The place after all frames of events up to number ``seq``."""
        return self._find(seq, by_number=False)

    def after_number(self, number: int) -> int:
        """The place after all frames up to the protocol's own ``number``."""
        return self._find(number, by_number=True)

    def _find(self, value: int, *, by_number: bool) -> int:
        found = bisect_right(self._frames, value, key=lambda frame: frame.number if by_number else frame.seq)
        if found or not self._old:
            return self._base + found
        place = 0
        for entry, start in zip(self._old, self._places, strict=True):
            if isinstance(entry, Frame):
                place = start + 1 if (entry.number if by_number else entry.seq) <= value else place
            else:
                count = bisect_right(entry.numbers if by_number else entry.seqs, value)
                place = start + count if count else place
        return place

    def _old_from(self, place: int) -> Iterator[Frame]:
        first = bisect_right(self._places, place) - 1
        for entry, start in zip(self._old[first:], self._places[first:], strict=True):
            if isinstance(entry, Frame):
                if start >= place:
                    yield entry
            elif (skipped := max(0, place - start)) < len(entry):
                yield entry.tail(skipped, self.projection)

    def _fold(self) -> None:
        """Join the oldest frames until a quarter of the bound is free, so that the total cost is linear."""
        goal = self.retain_bytes * 3 // 4
        count = 0
        for frame in self._frames:
            if self._kept <= goal:
                break
            self._kept -= len(frame.data)
            count += 1
        at = 0
        while at < count:
            until = at + 1
            key = self._frames[at].key
            while key is not None and until < count and self._frames[until].key == key:
                until += 1
            self._append(self._frames[at:until])
            at = until
        del self._frames[:count]
        self._base += count

    def _append(self, frames: list[Frame]) -> None:
        """Put frames of one key, or a single one, at the end of the old ones."""
        first, place = frames[0], self._places[-1] + _length(self._old[-1]) if self._old else 0
        last = self._old[-1] if self._old else None
        if first.key is None:
            self._old.append(first)
            self._places.append(place)
            return
        if not isinstance(last, _TextRun) or last.key != first.key:
            last = _TextRun(first.key, [], array("q"), array("q"), array("q"))
            self._old.append(last)
            self._places.append(place)
        length = last.ends[-1] if last.ends else 0
        for frame in frames:
            length += len(frame.text)
            last.ends.append(length)
            last.seqs.append(frame.seq)
            last.numbers.append(frame.number)
        last.pieces.append("".join([frame.text for frame in frames]))


def _length(entry: Frame | _TextRun) -> int:
    return 1 if isinstance(entry, Frame) else len(entry)
