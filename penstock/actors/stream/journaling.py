"""Writes the events of one stream to its journal, in the order of its log."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from penstock.actors.runtime.dispatcher import blocking
from penstock.config.logs import get_logger
from penstock.events import SideEvent, StreamReset, TerminalEvent, TokenEvent
from penstock.ports import Journal

__all__ = ["NO_JOURNAL", "JournalWriter"]

_JOURNAL_TRIES: Final = 3  # for an event that cannot be taken back
_FREE: Final = contextlib.nullcontext(True)  # the turn of a stream without a journal, at a seventh of the price
_JOURNAL_PATIENCE: Final = 1.0  # seconds to wait for an append that an actor of an earlier epoch has under way


class JournalWriter:
    """Writes to a journal, or to none. Any thread may use it."""

    __slots__ = ("_journal", "_lock", "_stream_id")

    def __init__(self, journal: Journal | None, stream_id: str) -> None:
        self._journal = journal
        self._stream_id = stream_id
        self._lock = None if journal is None else threading.Lock()  # held from the journal's append to the log's

    def turn(self) -> contextlib.AbstractContextManager[bool]:
        """Keep the journal equal to the log. Waits for a journal that hangs for a second at most.

        Its value is whether no append is under way.
        """
        return _FREE if self._lock is None else _JournalTurn(self._lock, self._stream_id)

    def write(self, event: TokenEvent | SideEvent) -> None:
        """Write an event.

        Raises:
            Exception: what the journal raised.
        """
        if self._journal is not None:
            self._journal.append(event)

    def write_surely(self, event: StreamReset | SideEvent | TerminalEvent) -> None:
        """Write an event that goes into the log even if the journal fails, which is logged."""
        journal = self._journal
        if journal is None:
            return
        for left in reversed(range(_JOURNAL_TRIES)):
            try:
                journal.append(event)
            except Exception as problem:
                if not left:
                    get_logger(stream_id=self._stream_id).error(
                        "event_not_in_journal", event_type=type(event).__name__, error=type(problem).__name__
                    )
            else:
                return


class _JournalTurn:
    """See `JournalWriter.turn`. A class, as a generator takes three times as long, for each event."""

    __slots__ = ("_is_taken", "_lock", "_stream_id")

    def __init__(self, lock: threading.Lock, stream_id: str) -> None:
        self._lock = lock
        self._stream_id = stream_id

    def __enter__(self) -> bool:
        taken = self._lock.acquire(blocking=False)
        if not taken:
            with blocking():
                taken = self._lock.acquire(timeout=_JOURNAL_PATIENCE)
            if not taken:
                get_logger(stream_id=self._stream_id).error("journal_hangs")
        self._is_taken = taken
        return taken

    def __exit__(self, *exc_info: object) -> None:
        if self._is_taken:
            self._lock.release()


NO_JOURNAL: Final = JournalWriter(None, "")
"""The same for all streams without a journal."""
