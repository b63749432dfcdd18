"""The last changes of a stream's state: when, from where to where, and why. Pure."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec

__all__ = ["CAUSES", "KEPT", "STATES", "StateChange", "StateChanges"]

KEPT: Final = 64
STATES: Final = ("start", "idle", "buffering", "streaming", "rate_limited", "error", "paused", "ended")
"""The states of `penstock.actors.stream.states.TOKEN_STREAM`, its start and its end."""
CAUSES: Final = (
    "start", "restart", "pushed", "overdue", "released", "flush timeout", "state timeout", "Flush", "Pause", "Resume",
    "SetOptions", "Reset", "StopStream", "Complete", "Fail", "Cancel", "other",
)  # fmt: skip
"""The events of that table, ``restart`` (of the actor, after a crash), and ``other``."""

_STATE: Final = {name: number for number, name in enumerate(STATES)}
_CAUSE: Final = {name: number for number, name in enumerate(CAUSES)}
_OTHER: Final = len(CAUSES) - 1


class StateChange(msgspec.Struct, frozen=True):
    """One change of a stream's state.

    Attributes:
        time: Unix time in seconds.
        before: the state that was left; ``"start"`` for the first change.
        after: the state that was entered; ``"ended"`` for the last one.
        cause: the event that caused it, as in the state diagrams: ``"pushed"``, ``"flush timeout"``, ``"Pause"`` …
    """

    time: float
    before: str
    after: str
    cause: str


class StateChanges(msgspec.Struct, eq=False, gc=False):
    """The last 64 changes, in 10 bytes each. Written by one thread at a time; any thread may read."""

    count: int = 0
    """How many there were ever."""
    _times: array[float] = msgspec.field(default_factory=lambda: array("d"))  # a ring once it is full, like the next
    _pairs: bytearray = msgspec.field(default_factory=bytearray)  # the states, eight times the one before plus the next
    _causes: bytearray = msgspec.field(default_factory=bytearray)

    def add(self, now: float, before: str, after: str, cause: str) -> None:
        """Note a change at a monotonic time."""
        count = self.count
        pair, number = _STATE[before] * 8 + _STATE[after], _CAUSE.get(cause, _OTHER)
        if count < KEPT:
            self._times.append(now)
            self._pairs.append(pair)
            self._causes.append(number)
        else:
            place = count & (KEPT - 1)
            self._times[place], self._pairs[place], self._causes[place] = now, pair, number
        self.count = count + 1  # last: a reader that sees the number finds the change

    def read(self, offset: float) -> tuple[StateChange, ...]:
        """The changes that are kept, oldest first. ``offset`` is added to their times."""
        count = self.count
        times, pairs, causes = self._times[:], bytes(self._pairs), bytes(self._causes)
        order = [number & (KEPT - 1) for number in range(max(0, count - KEPT), count)]
        return tuple(
            StateChange(times[at] + offset, STATES[pairs[at] // 8], STATES[pairs[at] % 8], CAUSES[causes[at]])
            for at in order
        )
