"""One watch of one log in `ValkeyJournal`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from penstock.adapters.journals.valkey_entries import read_news
from penstock.errors import StoreDamaged, StoreError
from penstock.ports import EMPTY, Entry, EntryId, LogWatcher

__all__ = ["Follower"]

_PAGE = 500  # entries at once


class Follower:
    """Gives a watcher what is published about a log, and reads the log where something was missed.

    Args:
        watcher: what it is given to.
        after: where it begins.
        read: the entries from an id on (that one included), at most so many; with the level ``sync``, confirmed ones.
        before: the id of the last entry before an id.
        stop: called by `close`.
    """

    def __init__(
        self,
        watcher: LogWatcher,
        after: EntryId,
        read: Callable[[EntryId, int], Sequence[Entry]],
        before: Callable[[EntryId], EntryId],
        stop: Callable[[Follower], None],
    ) -> None:
        self._watcher = watcher
        self._after = after
        self._was_given = False  # whether `_after` is the id of an entry that was given
        self._read = read
        self._before = before
        self._stop = stop
        self._lock = threading.Lock()
        self._is_closed = False

    def ready(self) -> bool:
        """Give everything that is there."""
        with self._lock:
            try:
                while not self._is_closed and self._give_page():
                    pass
            except StoreDamaged as error:
                self._end(error)
            except StoreError as error:
                self._watcher.failed(error)
                return False
            return True

    def _end(self, error: StoreDamaged) -> None:
        """End the watch: the log cannot be read on, however often it is tried."""
        self.close()
        self._watcher.failed(error)

    def _give_page(self) -> bool:
        """Give some entries; returns whether there may be more."""
        entries = self._read(self._after, _PAGE)
        if entries and entries[0].id == self._after:
            rest = entries[1:]
        elif self._was_given or not entries:
            if self._after == EMPTY:
                return False
            self._rewind(self._before(self._after))
            return True
        else:
            rest = entries
        if rest:
            self._give(rest)
        return len(entries) == _PAGE

    def _give(self, entries: Sequence[Entry]) -> None:
        self._after, self._was_given = entries[-1].id, True
        self._watcher.entries(entries)

    def _rewind(self, tail: EntryId) -> None:
        self._after, self._was_given = tail, tail != EMPTY
        self._watcher.rewound(tail)

    def message(self, data: bytes) -> bool:
        """Give the entry that is published, and what is missing before it."""
        if self._is_closed:
            return True
        try:
            news = read_news(data)
        except (ValueError, msgspec.MsgspecError):
            return self.ready()  # the log says whether it is as bad as the message
        entry = news.entry
        with self._lock:
            if entry is None:
                if news.tail < self._after:
                    self._rewind(news.tail)
            elif entry.id <= self._after:
                return True  # read before the message came
            elif news.tail <= self._after:
                if news.tail < self._after and self._was_given:
                    self._rewind(news.tail)
                self._give([entry])
                return True
        return self.ready() if entry is not None or news.tail > self._after else True

    def lost(self, error: StoreError) -> None:
        """Tell the watcher."""
        if not self._is_closed:
            self._watcher.failed(error)

    def close(self) -> None:
        """End the watch."""
        if not self._is_closed:
            self._is_closed = True
            self._stop(self)
