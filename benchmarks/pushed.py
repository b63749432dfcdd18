"""Tokens pushed one at a time by `process_token`, compared with actors that have a thread each.

Every stream has one subscriber, an actor that only counts. A load ends when the last subscriber has received its last
token. Batches of 10, no rate limit.
"""

from __future__ import annotations

from typing import Any

import pykka

from benchmarks.probe import Countdown, Meter, Result, measure, memory_kb
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import StreamOptions, System
from penstock.actors.runtime.process import Process
from penstock.config.settings import Settings
from penstock.events import TokenEvent

__all__ = ["penstock_load", "pykka_load", "run"]

_BATCH = 10
_PYKKA_STREAMS = 1000  # two threads each


class Sink(Process):
    """Counts the tokens it receives."""

    in_pykka_registry = False

    def __init__(self, expected: int, countdown: Countdown) -> None:
        super().__init__()
        self._left = expected
        self._countdown = countdown

    def on_receive(self, message: Any) -> None:
        if message.__class__ is TokenEvent:
            self._left -= len(message.tokens)
            if not self._left:
                self._countdown.report()


def penstock_load(streams: int, tokens: int) -> Result:
    """Open ``streams`` streams with a subscriber each, and push ``tokens`` into each in rotation."""
    countdown = Countdown(streams)
    with System(Settings()) as system:
        options = StreamOptions(rate_limit=None, batch_size=_BATCH)
        _warm_up(system, options)
        before = memory_kb()
        with Meter() as opening:
            opened = [system.open_stream(options=options) for _ in range(streams)]
        bare = memory_kb()
        for stream in opened:
            stream.subscribe(system.runtime.spawn(Sink, tokens, countdown))
        subscribed = memory_kb()
        pushes = [stream.process_token for stream in opened]
        with Meter() as pushing:
            for _ in range(tokens):
                for push in pushes:
                    push("token ")
            countdown.wait()
        after = memory_kb()
    return {
        "wall_us": pushing.wall / (streams * tokens) * 1e6,
        "cpu_us": pushing.cpu / (streams * tokens) * 1e6,
        "start_us": opening.wall / streams * 1e6,
        "stream_kb": (bare - before) / streams,
        "pair_kb": (subscribed - before) / streams,
        "used_pair_kb": (after - before) / streams,
    }


def _warm_up(system: System, options: StreamOptions) -> None:
    countdown = Countdown(20)
    for _ in range(20):
        stream = system.open_stream(options=options)
        stream.subscribe(system.runtime.spawn(Sink, 50, countdown))
        for _ in range(50):
            stream.process_token("token ")
    countdown.wait()


def _warm_up_pykka() -> None:
    countdown = Countdown(20)
    try:
        opened = [ThreadStream.start(ThreadSink.start(50, countdown)) for _ in range(20)]
        for stream in opened:
            for _ in range(50):
                stream.tell("token ")
        countdown.wait()
    finally:
        pykka.ActorRegistry.stop_all()


class ThreadSink(pykka.ThreadingActor):
    """The same as `Sink`, with its own thread."""

    def __init__(self, expected: int, countdown: Countdown) -> None:
        super().__init__()
        self._left = expected
        self._countdown = countdown

    def on_receive(self, message: Any) -> None:
        self._left -= len(message)
        if not self._left:
            self._countdown.report()


class ThreadStream(pykka.ThreadingActor):
    """A minimal stream: it collects batches and sends them to one actor, without timer and log."""

    def __init__(self, sink: pykka.ActorRef[ThreadSink]) -> None:
        super().__init__()
        self._sink = sink
        self._buffer: list[str] = []

    def on_receive(self, message: Any) -> None:
        self._buffer.append(message)
        if len(self._buffer) == _BATCH:
            self._sink.tell(tuple(self._buffer))
            self._buffer.clear()


def pykka_load(streams: int, tokens: int) -> Result:
    """Put the same load on `pykka.ThreadingActor`."""
    _warm_up_pykka()
    countdown = Countdown(streams)
    before = memory_kb()
    try:
        sinks = [ThreadSink.start(tokens, countdown) for _ in range(streams)]
        with_sinks = memory_kb()
        with Meter() as opening:
            opened = [ThreadStream.start(sink) for sink in sinks]
        subscribed = memory_kb()
        pushes = [stream.tell for stream in opened]
        with Meter() as pushing:
            for _ in range(tokens):
                for push in pushes:
                    push("token ")
            countdown.wait()
    finally:
        pykka.ActorRegistry.stop_all()
    return {
        "wall_us": pushing.wall / (streams * tokens) * 1e6,
        "cpu_us": pushing.cpu / (streams * tokens) * 1e6,
        "start_us": opening.wall / streams * 1e6,
        "stream_kb": (subscribed - with_sinks) / streams,
        "pair_kb": (subscribed - before) / streams,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    tokens, many, some = (20_000, 1000, 100) if quick else (200_000, 10_000, _PYKKA_STREAMS)
    ours: dict[str, list[Result]] = {"one": [], "many": [], "some": []}
    theirs: dict[str, list[Result]] = {"one": [], "some": []}
    for _ in range(rounds):
        ours["one"].append(measure(penstock_load, streams=1, tokens=tokens))
        theirs["one"].append(measure(pykka_load, streams=1, tokens=tokens))
        ours["some"].append(measure(penstock_load, streams=some, tokens=50))
        theirs["some"].append(measure(pykka_load, streams=some, tokens=50))
        ours["many"].append(measure(penstock_load, streams=many, tokens=50))
    pykka_name = "pykka.ThreadingActor"
    table = Table(
        "Tokens pushed one by one",
        "`process_token`, batches of 10, no rate limit, one subscribed actor a stream, until the last one has got its"
        " last token. The peer is a thread actor that collects batches of 10 for another one; it has no timer, no"
        f" bound, no log. It needs two threads a stream, hence no more than {some:,} streams ({2 * some:,} actors).",
    )
    aims = {"one": (Aim("at most", 4), f"1 stream × {tokens:,}"), "some": (None, f"{some:,} streams × 50")}
    aims["many"] = (Aim("at most", 9), f"{many:,} streams × 50")
    for key, (aim, load) in aims.items():
        peers = theirs.get(key)
        for what, field in (("wall", "wall_us"), ("CPU", "cpu_us")):
            table.rows.append(
                Row(
                    f"{load}: {what} a token",
                    "µs",
                    Samples.of(ours[key], field),
                    aim if what == "wall" else None,
                    pykka_name if peers else "",
                    Samples.of(peers, field) if peers else None,
                )
            )
    for what, unit, field, limit in (
        ("start a stream", "µs", "start_us", 120),
        ("memory a stream", "KB", "stream_kb", 12),
    ):
        table.rows.append(
            Row(
                f"{what}, with {many:,} of them",
                unit,
                Samples.of(ours["many"], field),
                Aim("at most", limit),
                f"{pykka_name}, {some:,} of them",
                Samples.of(theirs["some"], field),
            )
        )
    table.rows.append(
        Row(
            "memory a stream with its subscribed actor",
            "KB",
            Samples.of(ours["many"], "pair_kb"),
            None,
            f"{pykka_name}, {some:,} pairs",
            Samples.of(theirs["some"], "pair_kb"),
        )
    )
    table.rows.append(
        Row("the same after 50 tokens, which the log keeps", "KB", Samples.of(ours["many"], "used_pair_kb"))
    )
    return [table]
