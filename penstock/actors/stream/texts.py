"""What readers make of a stream's events: the text alone, or the result."""

from __future__ import annotations

from typing import Any

from penstock.actors.stream.subscribers.pull import NOTHING
from penstock.errors import StreamCancelledError
from penstock.errors.base import copy_of
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
)

__all__ = ["TextFinder", "completion"]


class TextFinder:
    """Finds the text of the kind ``text`` in a stream's events."""

    __slots__ = ("_length",)

    def __init__(self) -> None:
        self._length = 0  # of the text found so far, which a snapshot repeats

    def find(self, event: Event) -> Any:
        """The text of one event, or ``NOTHING``.

        Raises:
            PenstockError: the event says that the stream failed or was cancelled.
        """
        match event:
            case StreamSnapshot(text=text):
                text, self._length = text[self._length :], len(text)
                return text or NOTHING
            case TokenEvent(kind="text", text=text):
                self._length += len(text)
                return text or NOTHING
            case StreamReset():
                self._length = 0
            case StreamFailed() | StreamCancelled():
                completion(event)
        return NOTHING


def completion(terminal: TerminalEvent) -> StreamCompleted:
    """Return the event if the stream has completed.

    Raises:
        PenstockError: the stream failed.
        StreamCancelledError: the stream was cancelled.
    """
    if isinstance(terminal, StreamCompleted):
        return terminal
    if isinstance(terminal, StreamFailed):
        raise copy_of(terminal.error)
    raise StreamCancelledError(terminal.stream_id, terminal.reason, terminal.partial)
