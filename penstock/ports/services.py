"""What else the core needs of the world: a journal, a clock."""

from __future__ import annotations

from typing import Protocol

from penstock.events import Event

__all__ = [
    "Clock",
    "Journal",
]


class Journal(Protocol):
    """Where events are kept beyond this process's memory. Called once per event, before anybody hears of it."""

    def append(self, event: Event) -> None:
        """Store one event. If this raises, the stream keeps the batch, goes to ``error`` and tries again."""


class Clock(Protocol):
    """Time as the core sees it, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for arithmetic."""

    def time(self) -> float:
        """Seconds since the epoch, for display."""
