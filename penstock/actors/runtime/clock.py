"""Time: the clock and the timers.

A `Timer` belongs to one owner and is used again and again. Setting it later than it is queued for, and cancelling it,
only writes a field; the queue finds out when the old moment comes. So a stream that arms and disarms its flush timer
for every batch touches the heap once per ``flush_interval``, not once per batch.
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
    """A timer's message to its process; ``generation`` is the timer's when it fired."""

    name: Any
    generation: int


class Timer:
    """One alarm: ``fire(generation)``, defined by the subclass, is called once per `Timers.set`.

    ``generation`` counts sets and cancels: who gets a fired alarm through a mailbox compares it with the timer's to
    see whether it is still meant.
    """

    __slots__ = ("_queued_for", "generation", "when")

    def __init__(self) -> None:
        self.when = _NEVER
        self.generation = 0
        self._queued_for = _NEVER

    def fire(self, generation: int) -> None:
        """Called by the timers' thread; must not block."""
        raise NotImplementedError

    @property
    def is_set(self) -> bool:
        """Whether it will fire."""
        return self.when != _NEVER


class Timers:
    """A heap of timers. Thread-safe. It does not run by itself: `TimerThread` or a virtual clock calls `fire_due`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._garbage = 0  # about how many entries in the heap mean nothing any more

    def set(self, timer: Timer, when: float) -> None:
        """Let ``timer`` fire at ``when`` (monotonic seconds), instead of whatever it was set to before."""
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
        """Let it not fire. Harmless if it is not set."""
        with self._lock:
            timer.generation += 1
            if timer.when != _NEVER:
                timer.when = _NEVER
                self._discard_one()

    def fire_due(self, now: float) -> None:
        """Fire what is due at ``now``, in order."""
        while True:
            with self._lock:
                timer, generation = self._pop_due(now)
            if timer is None:
                return
            timer.fire(generation)

    def next_due(self) -> float:
        """The exact moment of the next alarm, or inf."""
        with self._lock:
            self._pop_due(-_NEVER)  # moves what was set later, so that the first entry tells the truth
            return self._heap[0][0] if self._heap else _NEVER

    def __len__(self) -> int:
        """How many timers are set."""
        with self._lock:
            return len({id(timer) for _, _, timer in self._heap if timer.when != _NEVER})

    def _pop_due(self, now: float) -> tuple[Timer | None, int]:
        heap = self._heap
        while heap:
            queued_for, _, timer = heap[0]
            if timer._queued_for != queued_for:  # an earlier entry took its place
                heapq.heappop(heap)
                self._garbage -= self._garbage > 0
            elif timer.when > queued_for:  # set later or cancelled meanwhile
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
        """Called with the lock held when a new timer is the first of all."""


class TimerThread(Timers):
    """Timers on the real clock: one thread, which sleeps until the first is due. It has an end: `close`."""

    def __init__(self, name: str = "penstock-timers") -> None:
        super().__init__()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._sleeping_until = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """End the thread; timers still set never fire. Returns whether it ended within ``timeout`` seconds."""
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
            except Exception as error:  # one bad timer must not stop all the others
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
