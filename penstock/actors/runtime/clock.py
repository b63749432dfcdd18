"""Time: the clock and the timers.

A `Timer` belongs to one owner, which sets it again and again. Cancelling a timer, or setting it to a later time than it
is queued for, only writes a field; the heap is corrected when the old time comes. So a stream that sets and cancels
its flush timer for every batch touches the heap once per ``flush_interval``, not once per batch.
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import Any, Final

import msgspec

from penstock.config.logs import get_logger

__all__ = ["Fired", "SystemClock", "Timer", "TimerThread", "Timers"]

_NEVER: Final = float("inf")
_COMPACT_ABOVE: Final = 256


class SystemClock:
    """The real clock; implements `penstock.ports.Clock`."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Fired(msgspec.Struct, frozen=True):
    """Message of a timer to its process; ``generation`` is that of the timer when it fired."""

    name: Any
    generation: int


class Timer:
    """A timer whose `fire`, defined by the subclass, is called once per `Timers.set`.

    ``generation`` counts calls of `Timers.set` and `Timers.cancel`. A process that gets `Fired` through its mailbox
    compares the two generations: if they differ, the timer has been set again or cancelled since it fired.
    """

    __slots__ = ("_queued_for", "generation", "when")

    def __init__(self) -> None:
        self.when = _NEVER
        self.generation = 0
        self._queued_for = _NEVER

    def fire(self, generation: int) -> None:
        """Act on the time that has come. Called by the timers' thread; must not block."""
        raise NotImplementedError

    @property
    def is_periodic(self) -> bool:
        """Whether it is set again and again for as long as its owner lives, and may find nothing to do."""
        return False

    @property
    def is_set(self) -> bool:
        """Whether it will fire."""
        return self.when != _NEVER


class Timers:
    """A heap of timers; thread-safe. It has no thread: `TimerThread` or a virtual clock calls `fire_due`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._garbage = 0  # roughly how many entries in the heap are obsolete

    def set(self, timer: Timer, when: float) -> None:
        """Set ``timer`` to fire at ``when`` (monotonic seconds). An earlier setting is replaced."""
        with self._lock:
            timer.generation += 1
            timer.when = when
            if when < timer._queued_for:
                if timer._queued_for != _NEVER:
                    self._discard_one()
                timer._queued_for = when
                self._count += 1
                heapq.heappush(self._heap, (when, self._count, timer))
                if self._heap[0][2] is timer:
                    self._first_changed()

    def cancel(self, timer: Timer) -> None:
        """Cancel ``timer``; does nothing if it is not set."""
        with self._lock:
            timer.generation += 1
            if timer.when != _NEVER:
                timer.when = _NEVER
                self._discard_one()

    def fire_due(self, now: float) -> None:
        """Fire all timers that are due at ``now``, in order."""
        while True:
            with self._lock:
                timer, generation = self._pop_due(now)
            if timer is None:
                return
            timer.fire(generation)

    def next_due(self) -> float:
        """Return the exact time of the next timer, or ``inf``."""
        with self._lock:
            self._pop_due(-_NEVER)  # moves timers that were set to later, so that the first entry is correct
            return self._heap[0][0] if self._heap else _NEVER

    def has_only_periodic(self) -> bool:
        """Whether all timers that are set are periodic."""
        with self._lock:
            return all(timer.is_periodic for _, _, timer in self._heap if timer.when != _NEVER)

    def __len__(self) -> int:
        """Number of timers that are set."""
        with self._lock:
            return len({id(timer) for _, _, timer in self._heap if timer.when != _NEVER})

    def _pop_due(self, now: float) -> tuple[Timer | None, int]:
        heap = self._heap
        while heap:
            queued_for, _, timer = heap[0]
            if timer._queued_for != queued_for:  # replaced by an entry for an earlier time
                heapq.heappop(heap)
                self._garbage -= self._garbage > 0
            elif timer.when > queued_for:  # since set to later, or cancelled
                heapq.heappop(heap)
                timer._queued_for = timer.when
                if timer.when == _NEVER:
                    self._garbage -= self._garbage > 0
                else:
                    self._count += 1
                    heapq.heappush(heap, (timer.when, self._count, timer))
            elif queued_for > now:
                break
            else:
                heapq.heappop(heap)
                timer.when = timer._queued_for = _NEVER
                return timer, timer.generation
        return None, 0

    def _discard_one(self) -> None:
        self._garbage += 1
        if self._garbage > _COMPACT_ABOVE and self._garbage * 2 > len(self._heap):
            self._compact()

    def _compact(self) -> None:
        keep = []
        for entry in self._heap:
            queued_for, _, timer = entry
            if timer._queued_for != queued_for:
                continue
            if timer.when == _NEVER:
                timer._queued_for = _NEVER
            else:
                keep.append(entry)
        heapq.heapify(keep)
        self._heap = keep
        self._garbage = 0

    def _first_changed(self) -> None:
        """Hook for a subclass, called with the lock held: a new timer is the next one due."""


class TimerThread(Timers):
    """Timers on the real clock: one thread, which sleeps until the next timer is due. Ended by `close`."""

    def __init__(self, name: str = "penstock-timers") -> None:
        super().__init__()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._sleeping_until = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """End the thread and return whether it ended within ``timeout`` seconds. Timers still set never fire."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _first_changed(self) -> None:
        if self._heap[0][0] < self._sleeping_until:
            self._changed.notify()

    def _work(self) -> None:
        while True:
            try:
                self.fire_due(time.monotonic())
            except Exception as error:  # one broken timer must not stop the others
                get_logger().error("timer_failed", error=type(error).__name__)
            with self._changed:
                if self._closed:
                    return
                due = self._heap[0][0] if self._heap else _NEVER
                now = time.monotonic()
                if due > now:
                    self._sleeping_until = due
                    self._changed.wait(None if due == _NEVER else min(due - now, threading.TIMEOUT_MAX))
                    self._sleeping_until = 0.0
