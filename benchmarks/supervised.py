"""Children of a dynamic supervisor: very many are started and stopped, and many crash at the same time."""

from __future__ import annotations

import logging
from typing import Any

from benchmarks.probe import Meter, Result, measure
from benchmarks.tables import Row, Samples, Table
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.supervisors.calls import count_children, start_child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import ChildSpec
from penstock.testing import eventually

__all__ = ["crash", "load", "run"]

_LONG = 120.0  # seconds that a request may take


class Child(Process):
    """Does nothing; crashes at every message."""

    in_pykka_registry = False

    def on_receive(self, message: Any) -> None:
        raise ValueError(message)


class _Running:
    """A runtime with one dynamic supervisor."""

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)  # thousands of crashes are intended
        self._dispatcher, self._timers = ThreadedDispatcher(), TimerThread()
        self._runtime = Runtime(self._dispatcher, self._timers, SystemClock())
        self.supervisor = self._runtime.spawn(DynamicSupervisor, intensity=10, period=60.0)

    def start(self, children: int) -> list[ProcessRef]:
        specs = [ChildSpec(id=str(number), cls=Child, restart="permanent") for number in range(children)]
        refs = [start_child(self.supervisor, spec, timeout=_LONG) for spec in specs]
        return [ref for ref in refs if ref is not None]

    def close(self) -> None:
        self._runtime.close()
        self._dispatcher.close(10.0)
        self._timers.close(10.0)
        logging.disable(logging.NOTSET)


def load(children: int) -> Result:
    """Start ``children`` children, one request each, and stop them with their supervisor."""
    running = _Running()
    try:
        with Meter() as starting:
            running.start(children)
        with Meter() as stopping:
            running.supervisor.terminate(timeout=_LONG)
    finally:
        running.close()
    return {"start_us": starting.wall / children * 1e6, "stop_us": stopping.wall / children * 1e6}


def crash(children: int) -> Result:
    """Let ``children`` children crash at the same time; wait until all of them have been restarted."""
    running = _Running()
    try:
        refs = running.start(children)
        with Meter() as restarting:
            for ref in refs:
                ref.tell("crash")
            eventually(lambda: not any(ref.is_alive() for ref in refs), _LONG)
            eventually(lambda: count_children(running.supervisor, timeout=_LONG).active == children, _LONG)
    finally:
        running.close()
    return {"restart_us": restarting.wall / children * 1e6, "all_ms": restarting.wall * 1e3}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    few, many, crashing = (200, 2000, 200) if quick else (10_000, 100_000, 5000)
    rows: dict[int, list[Result]] = {
        children: [measure(load, children=children) for _ in range(rounds)] for children in (few, many)
    }
    crashes = [measure(crash, children=crashing) for _ in range(rounds)]
    table = Table(
        "Children of a dynamic supervisor",
        "Each child is started by a request that is answered before the next one; all are ended with their supervisor."
        f" Linear means that a child costs the same among {many:,} as among {few:,}.",
    )
    for children, results in rows.items():
        table.rows.append(Row(f"{children:,} children: start one", "µs", Samples.of(results, "start_us")))
        table.rows.append(Row(f"{children:,} children: end one", "µs", Samples.of(results, "stop_us")))
    table.rows.append(Row(f"{crashing:,} crash at once: restart one", "µs", Samples.of(crashes, "restart_us")))
    table.rows.append(Row("the same: until all are back", "ms", Samples.of(crashes, "all_ms")))
    return [table]
