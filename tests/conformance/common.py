"""What the tests of the house have in common."""

from __future__ import annotations

from typing import Any

import penstock
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.config.options import StreamOptions
from penstock.testing import Collector, SimulatedSystem, check_log

FAST = StreamOptions(batch_size=2, flush_interval=0.05, rate_limit=None)
TERMINAL = (penstock.StreamCompleted, penstock.StreamFailed, penstock.StreamCancelled)


class Sink(Process):
    """An actor that keeps what it is told; told to, it crashes."""

    in_pykka_registry = False

    def __init__(self, events: list[Any], crash_at: int | None = None) -> None:
        super().__init__()
        self._events = events
        self._crash_at = crash_at

    def on_receive(self, message: Any) -> None:
        if self._crash_at is not None and getattr(message, "seq", 0) >= self._crash_at:
            raise RuntimeError("this subscriber is broken")
        self._events.append(message)


def sink(system: penstock.System, crash_at: int | None = None) -> tuple[ProcessRef, list[Any]]:
    events: list[Any] = []
    return system.runtime.spawn(Sink, events, crash_at), events


def text_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, penstock.TokenEvent))


def assert_all_is_well(
    system: SimulatedSystem, streams: list[penstock.Stream], collectors: list[Collector] | None = None
) -> None:
    """The promises that hold whatever happened, once all streams are over; stops the system."""
    system.settle()
    for stream in streams:
        assert stream.is_over, stream
        check_log(stream)
    for collector in collectors or ():
        collector.wait_for_terminal()
        collector.check()
    assert_nothing_is_left(system)


def assert_nothing_is_left(system: SimulatedSystem) -> None:
    system.stop()
    runtime = system.simulation.runtime
    assert runtime.processes() == [], runtime.processes()
    assert runtime.names() == {}
    assert len(runtime.timers) == 0
    assert system.scripted.open == 0
