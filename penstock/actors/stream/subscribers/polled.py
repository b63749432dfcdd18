"""The reading end of a stream for code that must not block: it takes the events that are there, and is told of news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub, Subscription
from penstock.config.own_code import is_own
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed

__all__ = ["StreamReader"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


class StreamReader(Subscription):
    """Made by `Stream.reader`. One thread at a time may use it; combinators stand on it.

    It has no mailbox: an event that is not taken stays in the stream, which waits (``slow="block"``) once more than
    ``window`` of them do.
    """

    __slots__ = ("_is_listening", "_on_news", "counts", "is_prompt")

    def __init__(self, hub: Hub, cursor: Cursor, on_news: Callable[[], None], *, counts: bool = True) -> None:
        super().__init__(hub, cursor, None)
        self.counts = counts
        self.is_prompt = is_own(on_news)
        self._on_news = on_news
        self._is_listening = False

    def take(self) -> Event | None:
        """Return the next event, or None if there is none yet; after the terminal event, always None.

        After None, ``on_news`` is called once, when it is worth trying again.

        Raises:
            SubscriberTooSlow: with ``slow="disconnect"``.
        """
        if not self.is_active:
            return None
        cursor = self._cursor
        event = cursor.take()
        if event is None:
            self._is_listening = True  # first: no event may come unnoticed between the two looks
            event = cursor.take()
            if event is None:
                if self._hub.held:  # it may have skipped events that were folded to nothing
                    self._hub.caught_up()
                return None
            self._is_listening = False
        if isinstance(event, _TERMINAL):
            self.unsubscribe()
        elif self._hub.held:
            self._hub.caught_up()
        return event

    def wake(self) -> None:
        """Tell the owner that there are events, if it waits for them."""
        if self._is_listening:
            self._is_listening = False
            self._on_news()

    def close(self) -> None:
        """Read no more. If it was the last subscriber, the stream's ``on_orphan`` decides."""
        self.unsubscribe()
