"""Where a token's time goes: the cost of each stage from the socket to the bytes of a server-sent event.

``python -m benchmarks.stages`` prints the table of ``docs/token-time.md``. One token is one event of chat completions
in one HTTP chunk. Everything runs in one thread, with the real parts of Penstock and a socket over loopback, and each
stage is timed for each token by itself. The figure is the median over all tokens, so that neither other work on the
machine nor the garbage collector is in it; nor is what threads cost each other, see the page.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, Final

import penstock
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.many_provider import token_chunk
from benchmarks.probe import Result, measure
from benchmarks.tables import Row, Samples, Table, number
from penstock.actors.stream.hub import Hub
from penstock.actors.stream.log import StreamLog
from penstock.adapters.formats.sse import SseDecoder
from penstock.adapters.http.framing import ChunkedBody
from penstock.adapters.providers.openai import chat_decoder
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.events import Event
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.native import NativeProjection
from penstock.ports import Delta, Provider, ProviderRequest, ReaderJob, ReaderSink
from penstock.testing import SimulatedSystem

__all__ = ["FLOOR", "STAGES", "load", "main", "run", "to_markdown"]

STAGES: Final = {
    "recv": "`recv` of the chunk from the socket, one system call",
    "framing": "HTTP's chunks, and the blank line that ends an event",
    "JSON": "JSON to a typed object, by `msgspec`",
    "decode": "its fields to deltas: what the provider means",
    "turn": "a turn of the stream's actor in the reader's thread, without the next two: mailbox, limits, the batch",
    "log": "the event, its number, the log, the counters",
    "announce": "into the mailbox of one subscriber, and its wake-up",
    "subscriber": "the turn of the subscribed function's process, and the call",
    "SSE": "one frame of the gateway's native protocol; once for each reader",
}
"""What is timed, in the order in which a token passes."""
FLOOR: Final = ("recv", "framing", "JSON")
_BURST: Final = 50  # chunks that wait in the socket, so that no `recv` waits
_WARM_UP: Final = 200


class _Job:
    """A request that is never sent. Implements `ReaderJob`."""

    def cancel(self) -> None:
        return


class _Reader:
    """Keeps the sink, which is the way into a stream. Implements `Reader`."""

    def __init__(self) -> None:
        self.sink: Any = None

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        self.sink = sink
        return _Job()

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self, timeout: float) -> int:
        return 0


class _Clockwork:
    """Times calls in nanoseconds, by name. What a call costs that does nothing is subtracted."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = defaultdict(list)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter_ns()
        result = function(*arguments)
        self.times[name].append(time.perf_counter_ns() - began)
        return result

    def median_us(self, name: str) -> float:
        values = self.times[name][_WARM_UP:] or self.times[name]
        return median(values) / 1000

    def empty_us(self) -> float:
        for _ in range(2000):
            self.call("", _nothing)
        return self.median_us("")


def _nothing(*arguments: Any) -> None:
    return


def _read(clockwork: _Clockwork, tokens: int) -> list[list[Delta]]:
    """Time what comes before a stream; returns the deltas of each token."""
    chunk = token_chunk(" token")
    options, provider = RequestOptions(), OpenAiChat(None, "http://127.0.0.1")
    body, events, decoder = ChunkedBody(), SseDecoder(options.max_event_bytes), provider.decoder(options)
    found: list[list[Delta]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        for count in range(tokens):
            if count % _BURST == 0:
                far.sendall(chunk * _BURST)
            raw = clockwork.call("recv", near.recv, len(chunk))
            while len(raw) < len(chunk):  # a slow machine
                raw += near.recv(len(chunk) - len(raw))
            data = clockwork.call("chunks", body.feed, raw)
            (event,) = clockwork.call("events", events.feed, data)
            clockwork.call("JSON", chat_decoder._decode_typed, event.data)
            found.append(clockwork.call("feed", decoder.feed, data))
    return found


def _stream(clockwork: _Clockwork, deltas: list[list[Delta]], inner: tuple[type, str] | None) -> list[Event]:
    """Time what happens in a stream. ``inner``: a method that is timed too, which makes the rest look longer."""
    reader = _Reader()
    events: list[Event] = []
    with SimulatedSystem(reader=reader) as system:
        dispatcher = system.simulation.dispatcher
        stream = system.chat(
            "m", "Hello", provider="openai", base_url="http://127.0.0.1", api_key="none",
            options=penstock.StreamOptions(batch_size=1, rate_limit=None),
        )  # fmt: skip
        stream.subscribe(events.append)
        system.settle()
        sink, ready = reader.sink, dispatcher._ready
        sink.connecting()
        sink.waiting()
        system.settle()
        undo = _timed(clockwork, *inner) if inner else _nothing
        try:
            for each in deltas:
                before = len(events)
                clockwork.call("offer", sink.offer, each, _nothing)
                while ready:
                    mailbox: Any = ready.pop(0)
                    owner = mailbox.enter()
                    clockwork.call(f"turn of {type(owner).__name__}", owner.run, 64)
                assert len(events) == before + 1
        finally:
            undo()
        system.cancel(stream.stream_id)
    return events[: len(deltas)]


def _timed(clockwork: _Clockwork, owner: type, name: str) -> Callable[[], None]:
    """Time a method from now on; returns what undoes that."""
    method = getattr(owner, name)

    def timed(*arguments: Any, **more: Any) -> Any:
        return clockwork.call(name, partial(method, **more) if more else method, *arguments)

    setattr(owner, name, timed)
    return lambda: setattr(owner, name, method)


def load(tokens: int) -> Result:
    """Take ``tokens`` tokens through all stages; returns the microseconds of each."""
    clockwork = _Clockwork()
    deltas = _read(clockwork, tokens)
    events = _stream(clockwork, deltas, None)
    for owner, name in ((StreamLog, "append"), (Hub, "announce")):
        _stream(_Only(clockwork, name), deltas, (owner, name))
    projection = NativeProjection(Opening(stream_id="s", epoch="0a1b2c3d", created=1_763_600_000))
    for event in events:
        clockwork.call("SSE", projection.feed, event)
    empty = clockwork.empty_us()
    us = {name: max(0.0, clockwork.median_us(name) - empty) for name in clockwork.times if name}
    return {
        "recv": us["recv"],
        "framing": us["chunks"] + us["events"],
        "JSON": us["JSON"],
        "decode": max(0.0, us["feed"] - us["events"] - us["JSON"]),
        "turn": max(0.0, us["offer"] - us["append"] - us["announce"]),
        "log": us["append"],
        "announce": us["announce"],
        "subscriber": us["turn of CallbackProcess"],
        "SSE": us["SSE"],
    }


class _Only(_Clockwork):
    """Keeps the times of one name only."""

    def __init__(self, clockwork: _Clockwork, name: str) -> None:
        self.times = clockwork.times
        self._name = name

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return super().call(name, function, *arguments) if name == self._name else function(*arguments)


def to_markdown(results: list[Result]) -> str:
    """Return the table of the page."""
    medians = {stage: median(result[stage] for result in results) for stage in STAGES}
    whole, floor = sum(medians.values()), sum(medians[stage] for stage in FLOOR)
    lines = ["| stage | µs | share | what |", "|---|---|---|---|"]
    for stage, what in STAGES.items():
        lines.append(f"| {stage} | {number(medians[stage])} | {medians[stage] / whole:.0%} | {what} |")
    lines.append(
        f"| **all of it** | {number(whole)} | 100% | to one subscribed function, and one reader of the gateway |"
    )
    lines.append(f"| **the floor** | {number(floor)} | {floor / whole:.0%} | recv, framing and JSON |")
    return "\n".join(lines)


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    results = _measured(rounds, quick)
    rows = [Row(stage, "µs", Samples.of(results, stage)) for stage in STAGES]
    return [Table("Where a token’s time goes", "Medians of one token in one thread; see docs/token-time.md.", rows)]


def _measured(rounds: int, quick: bool) -> list[Result]:
    return [measure(load, tokens=300 if quick else 5000) for _ in range(rounds)]


def main(arguments: list[str] | None = None) -> int:
    """Print the table of the page, and what it was measured on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description="Where a token's time goes.")
    parser.add_argument("--quick", action="store_true", help="300 tokens instead of 5,000: to try it out")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many processes (default: 5)")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    print(to_markdown(_measured(options.rounds, options.quick)))
    print(f"\n{machine}\n{describe_versions()}")
    return 0


if __name__ == "__main__":
    from benchmarks import stages  # by the name by which `measure` finds it in another process

    sys.exit(stages.main())
