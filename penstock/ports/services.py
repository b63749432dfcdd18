"""What else the core needs from outside: a journal and a clock."""

from __future__ import annotations

from typing import Protocol

from penstock.events import Event

__all__ = [
    "Clock",
    "Journal",
]


class Journal(Protocol):
    """Stores events outside this process's memory. Called once per event, before any subscriber gets it."""

    def append(self, event: Event) -> None:
        """Store one event. If this raises, the stream keeps the batch, goes to ``error`` and tries again."""


class Clock(Protocol):
    """The source of time for the core, which tests can replace."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for arithmetic."""

    def time(self) -> float:
        """Return seconds since the epoch, for display."""
