"""Helpers for tests of streams: a subscriber that keeps its events, checks, killing, waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import KILL
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.record import StreamRecord
from penstock.config.options import Slow
from penstock.errors import CallTimeout
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
from penstock.stream import Stream
from penstock.system import System

__all__ = ["Collector", "check_log", "eventually", "kill"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


class Collector:
    """A subscriber that keeps every event it gets. It subscribes when it is made.

    Args:
        stream: the stream to subscribe to.
        slow, window, after: as for `Stream.subscribe`.

    >>> from penstock.testing import SimulatedSystem
    >>> with SimulatedSystem() as system:
    ...     stream = system.open_stream()
    ...     collector = Collector(stream)
    ...     stream.process_tokens(["a", "b"])
    ...     stream.stop()
    ...     _ = collector.wait_for_terminal()
    ...     collector.text, [event.seq for event in collector.events]
    ('ab', [1, 2])
    """

    def __init__(self, stream: Stream, *, slow: Slow = "block", window: int = 64, after: int = 0) -> None:
        self.events: list[Event] = []
        self._terminal = Reply(stream._record.runtime.dispatcher, f"the terminal event of {stream.stream_id!r}")
        self.subscription: Subscription = stream.subscribe(self._keep, slow, window=window, after=after)

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, _TERMINAL):
            self._terminal.set(event)

    @property
    def text(self) -> str:
        """The text of all token events since the last reset."""
        parts: list[str] = []
        for event in self.events:
            if isinstance(event, (StreamReset, StreamSnapshot)):  # what follows replaces everything before it
                parts.clear()
            if isinstance(event, TokenEvent) and event.kind == "text":
                parts.append(event.text)
        return "".join(parts)

    @property
    def terminal(self) -> TerminalEvent | None:
        """The terminal event, or None if it has not arrived."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, _TERMINAL) else None

    def wait_for_terminal(self, timeout: float | None = 10.0) -> TerminalEvent:
        """Wait for the terminal event and return it.

        Raises:
            CallTimeout: it did not arrive within ``timeout`` seconds.
        """
        event: TerminalEvent = self._terminal.get(timeout=timeout)
        return event

    def check(self) -> None:
        """Raise `AssertionError` unless the events are in order and at most one, the last, is terminal."""
        _check_events(self.events)


def check_log(stream: Stream) -> None:
    """Raise `AssertionError` unless the log has no gaps and, if the stream is over, ends in its only terminal event."""
    log = stream._record.log
    events = list(log)
    assert [event.seq for event in events] == list(range(log.first_seq, log.last_seq + 1)), events
    _check_events(events)
    assert log.terminal is (events[-1] if stream.is_over else None)


def _check_events(events: list[Event]) -> None:
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers)), f"out of order: {numbers}"
    ends = [event for event in events if isinstance(event, _TERMINAL)]
    assert len(ends) <= 1, f"{len(ends)} terminal events"
    assert not ends or events[-1] is ends[0], "an event follows the terminal event"


def kill(system: System, target: str | ProcessRef | Stream, reason: object = KILL) -> ProcessRef:
    """Kill a process of a system and return its ref. When this returns, the process is dead; supervisors react later.

    Args:
        system: the system that the process belongs to.
        target: a name that ``print(system.tree())`` shows (``"handler"``, ``"streams"``, ``"system"``,
            ``"source/ID"`` …), the id of a stream, a `Stream`, or a ref.
        reason: the exit signal. Any other than ``"kill"`` is handled by the process when its turn comes.

    Raises:
        LookupError: there is no such process.

    >>> from penstock.testing import SimulatedSystem
    >>> with SimulatedSystem() as system:
    ...     stream = system.open_stream("s")
    ...     events = stream.events()
    ...     _ = kill(system, "handler")
    ...     _ = kill(system, "s")
    ...     events.next(timeout=1)
    StreamFailed(stream_id='s', seq=1, error=StreamCrashed, chars=0)
    """
    ref = target if isinstance(target, ProcessRef) else _find(system, target)
    if ref is None:
        raise LookupError(f"the system has no process or stream {target!r}; print(system.tree()) shows their names")
    system.runtime.exit(ref, reason)
    return ref


def _find(system: System, target: str | Stream) -> ProcessRef | None:
    if isinstance(target, Stream):
        return target._record.ref
    found = system.runtime.whereis(target)
    if found is not None:
        return found
    kind, _, stream_id = target.rpartition("/") if target.startswith(("source/", "stream/")) else ("", "", target)
    record: StreamRecord | None = system._table.find(stream_id)
    if record is None:  # a process that is not registered, such as a tool's, has only a label
        return next((ref for ref in system.runtime.processes() if ref.label == target), None)
    if kind == "source":
        return None if record.feed is None else record.feed.ref
    return record.ref


def eventually(predicate: Callable[[], Any], timeout: float = 5.0, what: str = "a condition") -> Any:
    """Call ``predicate`` until it returns a true value, and return that value. For real time only.

    ``what`` names the condition in the message of the error.

    Raises:
        CallTimeout: no call returned a true value within ``timeout`` seconds.

    >>> eventually(lambda: 7)
    7
    """
    never = threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise CallTimeout(f"waiting for {what}", timeout)
        never.wait(0.002)
