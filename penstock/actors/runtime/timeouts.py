"""The time-outs of one state machine.

There are three kinds: the state time-out, the event time-out and named time-outs. This module holds what they have in
common; `penstock.actors.runtime.statem` decides when each kind is cancelled. A time-out of zero seconds has no timer:
it is queued after the events that wait already and before the mailbox.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.actors.runtime.clock import Fired, Timer, Timers
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.transitions import SetTimeout, UpdateTimeout, timeout_event
from penstock.ports import Clock

__all__ = ["Timeouts"]

_INFINITY: Final = float("inf")


class _Timeout(Timer):
    """One time-out; once made, it is kept and used again."""

    __slots__ = ("_is_periodic", "content", "inbox", "name", "running", "zero")

    def __init__(self, name: Any, inbox: Mailbox, *, is_periodic: bool) -> None:
        super().__init__()
        self._is_periodic = is_periodic
        self.name = name
        self.inbox = inbox
        self.content: Any = None
        self.running = False  # set, or expired but not delivered yet
        self.zero = False  # pending without a timer

    @property
    def is_periodic(self) -> bool:
        return self._is_periodic

    def fire(self, generation: int) -> None:
        self.inbox.put(Fired(self.name, generation))


class Timeouts:
    """All time-outs of one machine. Used by the machine's thread only, except `cancel_all` and `running`."""

    __slots__ = ("_are_periodic", "_clock", "_entries", "_inbox", "_timers", "zeros")

    def __init__(self, timers: Timers, clock: Clock, inbox: Mailbox, *, are_periodic: bool = False) -> None:
        self._are_periodic = are_periodic
        self._timers = timers
        self._clock = clock
        self._inbox = inbox
        self._entries: dict[Any, _Timeout] = {}
        self.zeros: list[_Timeout] = []  # pending time-outs of zero seconds, in the order they were set

    def set(self, action: SetTimeout) -> str | None:
        """Set or cancel a time-out; returns the trace's word for it: start_timer, insert_timeout, or None (cancelled).

        Raises:
            ValueError: its time is not a number, or negative without being absolute.
        """
        seconds, name = action.seconds, action.name
        if seconds is None or seconds == _INFINITY:
            self.cancel(name)
            return None
        lowest = -_INFINITY if action.absolute else 0.0
        if seconds.__class__ not in (int, float) or not (seconds >= 0 or seconds > lowest):  # NaN is neither
            raise ValueError(seconds)
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Timeout(name, self._inbox, is_periodic=self._are_periodic)
        elif entry.zero:
            self._dequeue(entry)
        entry.content = action.content
        entry.running = True
        if seconds == 0 and not action.absolute:
            self._timers.cancel(entry)  # even if it has expired and is in the mailbox
            entry.zero = True
            self.zeros.append(entry)
            return "insert_timeout"
        self._timers.set(entry, seconds if action.absolute else self._clock.monotonic() + seconds)
        return "start_timer"

    def update(self, action: UpdateTimeout) -> str | None:
        """Change the content of a running time-out; one that is not running is set to zero seconds."""
        entry = self._entries.get(action.name)
        if entry is None or not entry.running:
            return self.set(SetTimeout(action.name, 0, action.content, False))
        entry.content = action.content
        return None

    def cancel(self, name: Any) -> None:
        """Cancel a time-out. It is not delivered, even if it has expired and is in the mailbox."""
        entry = self._entries.get(name)
        if entry is not None and entry.running:
            entry.running = False
            if entry.zero:
                self._dequeue(entry)
            self._timers.cancel(entry)

    def cancel_all(self) -> None:
        """Cancel every timer. Any thread, even while the machine's own thread sets more."""
        for entry in tuple(self._entries.values()):
            self._timers.cancel(entry)

    def expired(self, fired: Fired) -> Any:
        """Return the event for a timer's message, or None if the time-out has since been set again or cancelled."""
        entry = self._entries.get(fired.name)
        if entry is None or entry.generation != fired.generation:
            return None
        entry.running = False
        return timeout_event(fired.name, entry.content)

    def next_zero(self) -> Any:
        """Return the event of the first pending time-out of zero seconds."""
        entry = self.zeros.pop(0)
        entry.zero = entry.running = False
        return timeout_event(entry.name, entry.content)

    def running(self) -> list[str]:
        """Return the names of the time-outs that are set, or expired but not delivered yet. Any thread."""
        return [str(entry.name) for entry in tuple(self._entries.values()) if entry.running]

    def _dequeue(self, entry: _Timeout) -> None:
        entry.zero = False
        self.zeros.remove(entry)
