"""A journal in memory: for tests, and the template for other journals."""

from __future__ import annotations

import threading

from penstock.config.checks import check_number
from penstock.errors import OptionError
from penstock.events import Event

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """Keeps the events of up to ``max_events`` in memory, and refuses more. Implements `penstock.ports.Journal`.

    Args:
        max_events: how many events it holds, 1 … 10,000,000.

    >>> import penstock
    >>> journal = MemoryJournal()
    >>> with penstock.System(journal=journal) as system:
    ...     stream = system.open_stream("s")
    ...     stream.process_token("Hello")
    ...     stream.stop()
    >>> [type(event).__name__ for event in journal.events("s")]
    ['TokenEvent', 'StreamCompleted']
    """

    def __init__(self, max_events: int = 100_000) -> None:
        check_number("max_events", max_events, 1, 10_000_000, whole=True)
        self._max_events = max_events
        self._lock = threading.Lock()
        self._events: dict[str, list[Event]] = {}
        self._count = 0

    def append(self, event: Event) -> None:
        """Store one event. Any thread.

        Raises:
            OptionError: it is full; the stream then tries again, and fails after ``max_errors`` attempts.
        """
        with self._lock:
            if self._count >= self._max_events:
                raise OptionError("max_events", self._count, "fewer events, or a larger journal")
            self._events.setdefault(event.stream_id, []).append(event)
            self._count += 1

    def events(self, stream_id: str) -> list[Event]:
        """The events of one stream, oldest first, as a copy; ``[]`` if there are none."""
        with self._lock:
            return list(self._events.get(stream_id, ()))

    def forget(self, stream_id: str) -> int:
        """Remove the events of one stream; returns their number."""
        with self._lock:
            gone = self._events.pop(stream_id, [])
            self._count -= len(gone)
            return len(gone)
