"""Log stores: how long a frame of many streams takes to be stored, and what an append costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.probe import Meter, Result, measure
from benchmarks.tables import Row, Samples, Table
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.events import FrozenDict, TokenEvent
from penstock.events.codec import encode_events
from penstock.ports import EMPTY, Append, EntryId, LogFrame, LogStore, OwnerMark

__all__ = ["load", "run"]

STORES: dict[str, Callable[[Path], LogStore]] = {
    "memory": lambda path: MemoryLogStore(),
    "SQLite NORMAL": lambda path: SqliteJournal(path, synchronous="NORMAL"),
    "SQLite FULL": lambda path: SqliteJournal(path, synchronous="FULL"),
}
_METADATA = FrozenDict()


def load(store: str, streams: int, frames: int) -> Result:
    """Append ``frames`` frames of one event of two tokens to each of ``streams`` logs, a transaction a frame.

    ``p50_ms`` and ``p99_ms``: from the call to the confirmation of a transaction. ``cpu_us``: of the process, for one
    entry of one log, its encoding included.
    """
    with tempfile.TemporaryDirectory() as directory:
        opened = STORES[store](Path(directory) / "a.db")
        tails: dict[str, EntryId] = {}
        for number in range(streams):
            name = f"s{number}"
            tails[name] = opened.append(name, EMPTY, OwnerMark(EntryId(1, 0), "n"))
        times = []
        with Meter() as meter:
            for seq in range(1, frames + 1):
                began = time.perf_counter()
                appends = []
                for name, tail in tails.items():
                    event = TokenEvent(name, seq, (" some", " text"), " some text", "text", 1e9, _METADATA)
                    frame = LogFrame(EntryId(1, seq), seq, encode_events([event], _METADATA))
                    appends.append(Append(name, tail, frame))
                answers = opened.append_all(appends)
                for append, answer in zip(appends, answers, strict=True):
                    assert answer == append.entry.id
                    tails[append.log] = append.entry.id
                times.append(time.perf_counter() - began)
        counts = opened.statistics()
        opened.close()
    assert counts.appends == streams * (frames + 1)
    times.sort()
    entries = streams * frames
    return {
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3,
        "cpu_us": meter.cpu / entries * 1e6,
        "wall_us": meter.wall / entries * 1e6,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    streams, frames = 50, 40 if quick else 400
    table = Table(
        "Log stores",
        f"A transaction has a frame of one event for each of {streams} streams; there are {frames}, one after the"
        " other. An append is one entry of one stream. The peer is the store in memory, which keeps nothing.",
    )
    results = {
        name: [measure(load, store=name, streams=streams, frames=frames) for _ in range(rounds)] for name in STORES
    }
    memory = results.pop("memory")
    figures = (("p50_ms", "p50", "ms"), ("p99_ms", "p99", "ms"), ("cpu_us", "CPU an append", "µs"))
    for name, result in results.items():
        for key, what, unit in figures:
            ours, theirs = Samples.of(result, key), Samples.of(memory, key)
            table.rows.append(Row(f"{name}: {what}", unit, ours, None, "in memory", theirs))
    return [table]
