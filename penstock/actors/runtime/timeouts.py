"""The time-outs of one state machine.

There are three kinds, the state's, the event's and named ones; what they have in common is here, when which of them is
cancelled is in `penstock.actors.runtime.statem`. A time-out of zero seconds has no timer: it waits in line, behind the
events that are queued already and before the mailbox.
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
    """One time-out; kept for its next use once it has been set."""

    __slots__ = ("content", "inbox", "name", "running", "zero")

    def __init__(self, name: Any, inbox: Mailbox) -> None:
        super().__init__()
        self.name = name
        self.inbox = inbox
        self.content: Any = None
        self.running = False  # set, or expired and not delivered yet
        self.zero = False  # pending without a timer

    def fire(self, generation: int) -> None:
        self.inbox.put(Fired(self.name, generation))


class Timeouts:
    """All time-outs of one machine. Used by its own thread only, except `cancel_all`."""

    __slots__ = ("_clock", "_entries", "_inbox", "_timers", "zeros")

    def __init__(self, timers: Timers, clock: Clock, inbox: Mailbox) -> None:
        self._timers = timers
        self._clock = clock
        self._inbox = inbox
        self._entries: dict[Any, _Timeout] = {}
        self.zeros: list[_Timeout] = []  # pending ones of zero seconds, in the order they were set

    def set(self, action: SetTimeout) -> str | None:
        """Set or cancel one. Returns the word a trace has for it: start_timer, insert_timeout, or None (cancelled).

        Raises:
            ValueError: its time is none.
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
            entry = self._entries[name] = _Timeout(name, self._inbox)
        elif entry.zero:
            self._leave_line(entry)
        entry.content = action.content
        entry.running = True
        if seconds == 0 and not action.absolute:
            self._timers.cancel(entry)  # also what has expired and is in the mailbox
            entry.zero = True
            self.zeros.append(entry)
            return "insert_timeout"
        self._timers.set(entry, seconds if action.absolute else self._clock.monotonic() + seconds)
        return "start_timer"

    def update(self, action: UpdateTimeout) -> str | None:
        """Change what a running one will carry; one that does not run is set to zero seconds."""
        entry = self._entries.get(action.name)
        if entry is None or not entry.running:
            return self.set(SetTimeout(action.name, 0, action.content, False))
        entry.content = action.content
        return None

    def cancel(self, name: Any) -> None:
        """Let it not be delivered, even if it has expired and is in the mailbox."""
        entry = self._entries.get(name)
        if entry is not None and entry.running:
            entry.running = False
            if entry.zero:
                self._leave_line(entry)
            self._timers.cancel(entry)

    def cancel_all(self) -> None:
        """Cancel every timer. Any thread, also while the machine's own is still adding to them."""
        for entry in tuple(self._entries.values()):
            self._timers.cancel(entry)

    def expired(self, fired: Fired) -> Any:
        """The event for a timer's message, or None if it has been set again or cancelled since."""
        entry = self._entries.get(fired.name)
        if entry is None or entry.generation != fired.generation:
            return None
        entry.running = False
        return timeout_event(fired.name, entry.content)

    def next_zero(self) -> Any:
        """The event of the first of those of zero seconds."""
        entry = self.zeros.pop(0)
        entry.zero = entry.running = False
        return timeout_event(entry.name, entry.content)

    def running(self) -> list[str]:
        """The names of those that are set, or expired and not delivered yet. Any thread."""
        return [str(entry.name) for entry in tuple(self._entries.values()) if entry.running]

    def _leave_line(self, entry: _Timeout) -> None:
        entry.zero = False
        self.zeros.remove(entry)
