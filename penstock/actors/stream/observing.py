"""Observers: code that is called when something happens to any stream of a system. Telemetry is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from penstock.actors.stream.feed import Feed
from penstock.config.logs import get_logger
from penstock.errors import PenstockError
from penstock.events import SideEvent, StreamReset, TerminalEvent

__all__ = ["StreamObserver", "notify"]


class StreamObserver(Protocol):
    """Is called about every stream, in whatever thread works on it. It must not block, and not change the stream.

    ``record`` is the stream's `penstock.actors.stream.record.StreamRecord`. Tokens are not reported. What a method
    raises is logged by its type, and has no other effect.
    """

    def opened(self, record: Any) -> None:
        """A stream has been opened, and nothing has come yet. ``record.context`` is that of the code that opened it."""

    def happened(self, record: Any, event: SideEvent | StreamReset) -> None:
        """An event other than text is in the log."""

    def called(self, record: Any, feed: Feed, error: PenstockError | None) -> None:
        """A call to a provider is over, with all its attempts; ``error``: why it failed. An agent's turn has several.

        It is not called for a call that ends with the stream, by a cancellation or a crash: then `ended` alone is.
        """

    def ended(self, record: Any, terminal: TerminalEvent) -> None:
        """A stream has ended, and its subscribers have been notified."""


def notify(function: Callable[..., object], *arguments: Any) -> None:
    """Call a method of an observer. Logs what it raises."""
    try:
        function(*arguments)
    except Exception as error:
        get_logger().error("observer_failed", method=getattr(function, "__qualname__", "?"), error=type(error).__name__)
