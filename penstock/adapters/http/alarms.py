"""The timers of one loop: a heap without a clock; the caller passes the time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

__all__ = ["Alarm", "Alarms"]

_FEW: Final = 64
"""So many cancelled timers may stay in the heap in any case."""


class Alarm:
    """One timer, made by `Alarms.add`."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Alarm) -> bool:
        return self.due < other.due


class Alarms:
    """The timers of one thread. A cancelled timer keeps nothing alive, and half of the heap is the most they take."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, due: float, call: Callable[[], None]) -> Alarm:
        """Have ``call`` returned by `take_due` once the time is ``due``."""
        timer = Alarm(due, call)
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Alarm) -> None:
        """Forget a timer. Harmless if it has fired or was cancelled."""
        if timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [each for each in self._heap if each.call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_due(self) -> float | None:
        """When the next timer is due; None if there is none."""
        self._drop_cancelled()
        return self._heap[0].due if self._heap else None

    def take_due(self, now: float) -> Callable[[], None] | None:
        """Remove a timer that is due; returns its call, or None if no timer is due."""
        self._drop_cancelled()
        if not self._heap or self._heap[0].due > now:
            return None
        timer = heapq.heappop(self._heap)
        call, timer.call = timer.call, None
        return call

    def _drop_cancelled(self) -> None:
        heap = self._heap
        while heap and heap[0].call is None:
            heapq.heappop(heap)
            self._cancelled -= 1
