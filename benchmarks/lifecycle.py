"""Streams that are opened and stopped, with nothing in between."""

from __future__ import annotations

import threading
import time

from benchmarks.probe import Meter, Result, measure, memory_kb
from benchmarks.tables import Row, Samples, Table
from penstock import StreamOptions, System
from penstock.config.settings import Settings

__all__ = ["load", "run"]


def load(streams: int) -> Result:
    """Open and stop ``streams`` streams: all together, one by one, all together again; then measure what is left."""
    with System(Settings()) as system:
        options = StreamOptions(rate_limit=None, keep_finished=0.0)
        _one_by_one(system, options, 200)
        threads = threading.active_count()
        opening, stopping = _together(system, options, streams)
        with Meter() as both:
            _one_by_one(system, options, streams)
        _settle(system)
        before = memory_kb()
        _together(system, options, streams)
        _settle(system)
        left, threads = memory_kb() - before, threading.active_count() - threads
    return {
        "start_us": opening.wall / streams * 1e6,
        "start_cpu_us": opening.cpu / streams * 1e6,
        "stop_us": stopping.wall / streams * 1e6,
        "stop_cpu_us": stopping.cpu / streams * 1e6,
        "both_us": both.wall / streams * 1e6,
        "left_kb": left / streams,
        "threads_left": threads,
    }


def _together(system: System, options: StreamOptions, streams: int) -> tuple[Meter, Meter]:
    with Meter() as opening:
        opened = [system.open_stream(options=options) for _ in range(streams)]
    with Meter() as stopping:
        for stream in opened:
            stream.stop()
    return opening, stopping


def _one_by_one(system: System, options: StreamOptions, streams: int) -> None:
    for _ in range(streams):
        system.open_stream(options=options).stop()


def _settle(system: System) -> None:
    """Wait until the reaper has removed all ended streams."""
    for _ in range(100):
        if not system._table.all():
            return
        time.sleep(0.1)


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    streams = 1000 if quick else 10_000
    results = [measure(load, streams=streams) for _ in range(rounds)]
    table = Table(
        "Streams opened and stopped",
        f"{streams:,} streams are opened and then stopped, each call answered before the next one; then as many one"
        " after the other. What they leave is looked at when the reaper has forgotten them, behind a second time.",
    )
    for what, unit, field in (
        ("open, all at the same time: wall", "µs", "start_us"),
        ("the same: CPU", "µs", "start_cpu_us"),
        ("stop: wall", "µs", "stop_us"),
        ("the same: CPU", "µs", "stop_cpu_us"),
        ("open and stop, one after the other: wall", "µs", "both_us"),
        ("memory left a stream by another time of the same", "KB", "left_kb"),
        ("threads left of all of them", "count", "threads_left"),
    ):
        table.rows.append(Row(what, unit, Samples.of(results, field)))
    return [table]
