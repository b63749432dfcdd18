"""The parents of a derived stream, of which one event after the other is taken, in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.polled import StreamReader
from penstock.errors import OptionError
from penstock.events import Event
from penstock.stream import Stream

__all__ = ["Inputs"]


class Inputs:
    """The readers of the parents. One process takes events; any thread may add, release and close.

    It is fair: among the parents that have events, each has its turn, one event at a time. The cost of a turn does not
    depend on the number of parents.

    Args:
        record: of the stream that they are for. It is an agent's turn if one of them is.
        window: how many events of each parent may wait before the parent does.
    """

    def __init__(self, record: StreamRecord, window: int = 4) -> None:
        self.on_news: Callable[[], None] = _nothing
        self._record = record
        self._window = window
        self._lock = threading.Lock()  # guards the list of readers against `close`
        self._readers: list[StreamReader | None] = []
        self._ready: deque[int] = deque()  # the places to look at, in turn
        self._held: set[int] = set()  # the places to leave out
        self._is_told = False  # the owner has been sent a message that it has not handled
        self._is_closed = False

    def add(self, parent: Stream) -> int:
        """Read a further parent, from its beginning; returns its place. After `close` it is let go of at once."""
        if not isinstance(parent, Stream):
            raise OptionError("stream", type(parent), "a Stream")
        with self._lock:
            place = len(self._readers)
            self._readers.append(None)
        if parent._record.is_turn:
            self._record.is_turn = True
        reader = parent.reader(partial(self._news, place), window=self._window)
        with self._lock:
            self._readers[place] = reader
            is_closed = self._is_closed
        if is_closed:
            reader.close()
        self._news(place)
        return place

    def _news(self, place: int) -> None:
        self._ready.append(place)
        if not self._is_told:
            self._is_told = True
            self.on_news()

    def heard(self) -> None:
        """Note that the owner has got the message: of what comes from now on, it is told again."""
        self._is_told = False

    def take(self) -> tuple[int, Event] | None:
        """The next event and the place of its parent; None if there is none, and then `on_news` is called later."""
        ready, readers = self._ready, self._readers
        while ready:
            place = ready.popleft()
            reader = readers[place]
            event = None if reader is None or place in self._held else reader.take()
            if event is not None:
                ready.append(place)
                return place, event
        return None

    def hold(self, place: int) -> None:
        """Take nothing of one parent until `resume`. Only the process that takes events may call this."""
        self._held.add(place)

    def resume(self, place: int) -> None:
        """Take events of a parent again. Harmless if it is not held."""
        if place in self._held:
            self._held.remove(place)
            if place not in self._ready:
                self._ready.append(place)

    def release(self, place: int) -> None:
        """Let go of one parent. Harmless if that has been done, or the parent has ended."""
        with self._lock:
            reader = self._readers[place]
            self._readers[place] = None
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Let go of all parents, now and later. Harmless if that has been done."""
        with self._lock:
            self._is_closed = True
            readers = [reader for reader in self._readers if reader is not None]
            self._readers = [None] * len(self._readers)
        for reader in readers:
            reader.close()


def _nothing() -> None:
    """Placeholder while there is no owner."""
