"""Many calls at once, read by a thread each or by one loop: CPU time a token, in step with the provider and paced.

In step, the provider sends one event on each of so many connections and waits until all have arrived: neither reader
can gain by being late. Paced, each connection has 20 events a second, whatever the client does.
"""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psutil

from benchmarks.probe import Meter, ProbeError, Result, measure, memory_kb
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import StreamOptions, System
from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.config.settings import ReaderKind, RuntimeOptions, Settings
from penstock.errors import PenstockError
from penstock.events import Event, TokenEvent
from penstock.ports import ChatCall, Decoder, Delta, Secret, TextDelta

__all__ = ["Control", "delivered", "run", "stream_reading"]

_RATE: Final = 20
_MESSAGES: Final = [{"role": "user", "content": "Hello"}]
_OPENING_S: Final = 120.0
_STEP: Final = 20
"""Connections that have an event at the same time, in step: about what 500 paced streams have in a millisecond."""
_FIELDS: Final = (
    ("delivered", "tokens/s", "rate"),
    ("CPU a token", "µs", "cpu_us"),
    ("lateness p50", "ms", "p50_ms"),
    ("lateness p99", "ms", "p99_ms"),
    ("threads", "count", "threads"),
    ("memory a call", "KB", "stream_kb"),
)
_AIMS: Final[dict[tuple[int, int], dict[str, Aim]]] = {
    (500, 20): {"p99_ms": Aim("at most", 5)},
    (1000, 20): {"rate": Aim("at least", 19_900), "p99_ms": Aim("at most", 20), "cpu_us": Aim("at most", 25)},
    (3000, 10): {"rate": Aim("at least", 29_850)},
    (10_000, 2): {
        "rate": Aim("at least", 19_900),
        "threads": Aim("at most", 30),
        "stream_kb": Aim("at most", 45),
    },
    (3000, 30): {"rate": Aim("at least", 40_000)},
}
"""What is aimed at, by the number of calls and the events a second on each."""
_FIRST_S: Final = 10.0  # for a first token, if none comes in the time of the measurement


def _threads_for(streams: int) -> int:
    """Reader threads with which so many calls to one endpoint run at once: it may not have the last ones."""
    return streams + streams // 8 + 20


class Tally:
    """The tokens of all calls together, and how late they came."""

    def __init__(self) -> None:
        self.tokens = 0
        self.late: list[float] | None = None
        self.wanted = 0
        self.reached = threading.Event()
        self._lock = threading.Lock()

    def add(self, texts: Sequence[str]) -> None:
        """Count tokens. Any thread."""
        late, now = self.late, time.time()
        with self._lock:
            self.tokens += len(texts)
            if self.tokens >= self.wanted:
                self.reached.set()
        if late is not None:
            late.extend(now - float(text) for text in texts)


class CountingSink:
    """Counts what a reader reads: the cost of reading and decoding, without a stream. Implements `OfferSink`."""

    may_block = False

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def connecting(self) -> None:
        return

    def waiting(self) -> None:
        return

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        texts = [delta.text for delta in deltas if type(delta) is TextDelta]
        if texts:
            self._tally.add(texts)
        return True

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        return self.deltas(deltas)

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        return


class Control:
    """Commands to `benchmarks.many_provider`."""

    def __init__(self, url: str) -> None:
        port = int(url.partition(":")[2].partition(":")[2].partition("/")[0])
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, command: str) -> None:
        """Give a command."""
        self._sock.sendall(f"{command}\n".encode())

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have come.

        Raises:
            ProbeError: they have not within two minutes.
        """
        deadline = time.monotonic() + _OPENING_S
        while True:
            self.say("COUNT")
            there = int(self._sock.recv(64))
            if there >= count:
                return
            if time.monotonic() > deadline:
                raise ProbeError(f"{there} of {count} requests had come after {_OPENING_S} s")
            time.sleep(0.05)

    def close(self) -> None:
        """End all answers."""
        self.say("END")
        self._sock.close()


def _measured(control: Control, tally: Tally, streams: int, seconds: float, pace: str, rate: int = _RATE) -> Result:
    gc.collect()
    if pace == "paced":
        return _paced(control, tally, seconds, rate, settle=seconds / 4 + streams / 1000)
    step = min(_STEP, streams)
    deadline = time.monotonic() + seconds / 4
    _in_step(control, tally, step, deadline)
    before = tally.tokens
    with Meter() as meter:
        _in_step(control, tally, step, time.monotonic() + seconds)
    tokens = tally.tokens - before
    return {"rate": tokens / meter.wall, "cpu_us": meter.cpu / tokens * 1e6}


def _in_step(control: Control, tally: Tally, step: int, deadline: float) -> None:
    is_first = True
    while is_first or time.monotonic() < deadline:
        is_first = False
        tally.reached.clear()
        tally.wanted = tally.tokens + step
        control.say(f"STEP {step}")
        if not tally.reached.wait(_OPENING_S):
            raise ProbeError("a step of the provider did not arrive")


def _paced(control: Control, tally: Tally, seconds: float, rate: int, settle: float) -> Result:
    control.say(f"PACE {rate}")
    time.sleep(settle)  # the opening of thousands of calls leaves the loop behind for seconds
    tally.late, before = [], tally.tokens
    with Meter() as meter:
        time.sleep(seconds)
        deadline = time.monotonic() + _FIRST_S
        while not tally.late and time.monotonic() < deadline:
            time.sleep(0.005)
    tokens, late = tally.tokens - before, sorted(tally.late)
    tally.late = None
    control.say("PACE 0")
    if not late:
        raise ProbeError("no token came")
    return {
        "rate": tokens / meter.wall,
        "cpu_us": meter.cpu / max(tokens, 1) * 1e6,
        "p50_ms": late[len(late) // 2] * 1e3,
        "p99_ms": late[int(len(late) * 0.99)] * 1e3,
    }


@contextmanager
def _controlled(url: str) -> Iterator[Control]:
    control = Control(url)
    try:
        yield control
    finally:
        control.close()


def stream_reading(url: str, streams: int, seconds: float, pace: str, reader: str) -> Result:
    """Measure a reader and the decoder alone, with a sink that counts."""
    tally, provider = Tally(), OpenAiChat(Secret("benchmark"), url)
    request = provider.request(ChatCall(model="many", input=_MESSAGES))
    before = memory_kb()
    made = HttpReader(_threads_for(streams)) if reader == "threads" else LoopReader()
    try:
        with _controlled(url) as control:
            for _ in range(streams):
                made.start(provider, request, RequestOptions(), CountingSink(tally))
            control.wait_for(streams)
            result = _measured(control, tally, streams, seconds, pace)
            result["threads"] = threading.active_count()
            result["stream_kb"] = (psutil.Process().memory_info().rss / 1024 - before) / streams
    finally:
        made.close(10)
    return result


def delivered(url: str, streams: int, seconds: float, pace: str, reader: ReaderKind, rate: int = _RATE) -> Result:
    """Measure ``system.chat`` with batches of one token, up to a subscribed function.

    ``rate``: events a second on each connection, where it is paced.
    """
    tally = Tally()
    runtime = RuntimeOptions(reader=reader, reader_threads=_threads_for(streams), call_timeout=60)
    options = StreamOptions(rate_limit=None, batch_size=1)

    def count(event: Event) -> None:
        if event.__class__ is TokenEvent:
            tally.add(event.tokens)

    with System(Settings(runtime=runtime)) as system, _controlled(url) as control:
        before = memory_kb()
        for _ in range(streams):
            system.chat(
                "many", _MESSAGES, provider="openai", base_url=url, api_key="benchmark", options=options
            ).subscribe(count)
        control.wait_for(streams)
        result = _measured(control, tally, streams, seconds, pace, rate)
        result["threads"] = threading.active_count()
        result["stream_kb"] = (psutil.Process().memory_info().rss / 1024 - before) / streams
    return result


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark; every figure of the loop stands beside that of the threads, measured just before."""
    rounds, seconds, sizes = (1, 1.0, (20,)) if quick else (rounds, 5.0, (300, 1000))
    tables = []
    for load, what in ((stream_reading, "reading and decoding alone"), (delivered, "delivered to a function")):
        table = Table(
            f"Many calls at once: {what}",
            "Chat completions over loopback HTTP, one event a chunk; the provider is a process of one thread. In step:"
            f" {_STEP} connections have an event at the same time, and the next ones when all have arrived. Paced:"
            f" {_RATE} events a second on each connection. The peer is a thread for each call.",
        )
        for streams in sizes:
            for pace in ("in step", "paced"):
                _add_rows(table, load, streams, pace, rounds, seconds)
        tables.append(table)
    return [*tables, _thousands(1 if quick else min(rounds, 2), seconds, ((20, 20),) if quick else tuple(_AIMS))]


def _thousands(rounds: int, seconds: float, loads: Sequence[tuple[int, int]]) -> Table:
    """What one process carries, by the loop alone."""
    table = Table(
        "Thousands of calls in one process",
        "Chat completions over loopback HTTP, one event a chunk, each connection at the pace that is named; the"
        " provider is a process of one thread on the same machine, and takes the other core. Delivered to a function"
        " with batches of one token, read by the loop. The last load is more than a core can deliver one by one.",
    )
    for streams, rate in loads:
        with serving({}, "benchmarks.many_provider") as url:
            arguments = {"streams": streams, "seconds": seconds, "pace": "paced", "reader": "loop", "rate": rate}
            found = [measure(delivered, timeout=300.0, url=url, **arguments) for _ in range(rounds)]
        for what, unit, field in _FIELDS:
            aim = _AIMS.get((streams, rate), {}).get(field)
            name = f"{streams:,} calls, {rate} events/s each: {what}"
            table.rows.append(Row(name, unit, Samples.of(found, field), aim))
    return table


def _add_rows(table: Table, load: Callable[..., Result], streams: int, pace: str, rounds: int, seconds: float) -> None:
    found: dict[str, list[Result]] = {"threads": [], "loop": []}
    with serving({}, "benchmarks.many_provider") as url:
        for _ in range(rounds):
            for reader, results in found.items():
                try:
                    results.append(measure(load, url=url, streams=streams, seconds=seconds, pace=pace, reader=reader))
                except ProbeError as error:  # too slow: that is a result too, and the others must not be lost
                    said = str(error).splitlines()[-1]
                    table.remarks.append(f"**{streams:,} calls {pace} with {reader} failed**: {said}")
    fields = [("CPU a token", "µs", "cpu_us"), ("delivered", "tokens/s", "rate")]
    if pace == "paced":
        fields += [("lateness p50", "ms", "p50_ms"), ("lateness p99", "ms", "p99_ms")]
    fields += [("threads", "count", "threads"), ("memory a call", "KB", "stream_kb")]
    for what, unit, field in fields:
        if found["loop"]:
            theirs = Samples.of(found["threads"], field) if found["threads"] else None
            peer = "a thread for each call" if theirs else ""
            row = Row(f"{streams:,} calls {pace}: {what}", unit, Samples.of(found["loop"], field), None, peer, theirs)
            table.rows.append(row)
