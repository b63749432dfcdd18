"""What it costs to keep the facts that telemetry reads: histograms, and changes of state.

Each is timed beside the same code without it, in turns; the figure is the difference.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable

from benchmarks.probe import Result, measure
from benchmarks.tables import Aim, Row, Samples, Table
from penstock.actors.stream.changes import StateChanges
from penstock.actors.stream.statistics import Counters
from penstock.config.options import StreamOptions

__all__ = ["load", "run"]

_ABOUT = (
    "The facts that metrics and the dashboard read are kept while a stream runs. `Counters.delivered` is called once"
    " for each event: timed with the histogram of the times between tokens, and as it was without. A change of state"
    " is noted with its time and its cause. CPU time, the least of 60 turns in each round."
)
_TURNS = 60
_GAPS = 512


class Bare(Counters):
    """Counters without a histogram."""

    __slots__ = ()

    def delivered(self, tokens: int, size: int, now: float) -> None:
        """Count a delivered batch."""
        gaps = self._gaps
        if gaps is None:
            if self.first_delivery is None:
                self.first_delivery = now
                self.first_tokens = tokens
                self.first_bytes = size
            else:
                self._gaps = array("d", ((now - self.last_delivery) / tokens,))
        elif len(gaps) < _GAPS:
            gaps.append((now - self.last_delivery) / tokens)
        else:
            gaps[(self.batches - 1) % _GAPS] = (now - self.last_delivery) / tokens
        self.last_delivery = self.last_activity = now
        self.batches += 1
        self.bytes += size


def _deliver(kind: type[Counters], tokens: int, count: int) -> float:
    """Nanoseconds an event."""
    times = [number * 0.0173 for number in range(count)]
    delivered = kind(0.0).delivered
    began = time.thread_time_ns()
    for now in times:
        delivered(tokens, 50, now)
    return (time.thread_time_ns() - began) / count


def _change(changes: StateChanges | None, count: int) -> float:
    """Nanoseconds a change; None: those of the loop alone."""
    names = ("streaming", "idle")
    began = time.thread_time_ns()
    if changes is None:
        for number in range(count):
            names[number & 1]
    else:
        add = changes.add
        for number in range(count):
            add(1.0, names[number & 1], "streaming", "flush timeout")
    return (time.thread_time_ns() - began) / count


def _least(measure: Callable[[], float], without: Callable[[], float]) -> float:
    """How much longer the first takes than the second, which take turns."""
    pairs = [(measure(), without()) for _ in range(_TURNS)]
    return max(0.0, min(one for one, _ in pairs) - min(other for _, other in pairs))


def load(count: int) -> Result:
    """Time ``count`` calls of each kind."""
    batch = StreamOptions().largest_batch
    gc.collect()
    gc.disable()
    try:
        event = _least(lambda: _deliver(Counters, 1, count), lambda: _deliver(Bare, 1, count))
        larger = _least(lambda: _deliver(Counters, batch, count), lambda: _deliver(Bare, batch, count))
        change = _least(lambda: _change(StateChanges(), count), lambda: _change(None, count))
    finally:
        gc.enable()
    return {"event": event, "token": larger / batch, "change": change}


def run(rounds: int, quick: bool) -> list[Table]:
    """Measure the facts."""
    results = [measure(load, count=500 if quick else 4_000) for _ in range(rounds)]
    batch = StreamOptions().largest_batch
    rows = [
        Row("an event at batch 1, added", "ns", Samples.of(results, "event"), Aim("at most", 200)),
        Row(f"a token at the default batch ({batch}), added", "ns", Samples.of(results, "token"), Aim("at most", 50)),
        Row("a change of state", "ns", Samples.of(results, "change")),
    ]
    return [Table("Facts for telemetry", _ABOUT, rows)]
