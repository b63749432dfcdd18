"""How many nodes, shards and bytes so many live streams need, and what that costs: the tables of ``docs/scale.md``.

``python -m benchmarks.scale`` prints them, calculated from the constants below, and simulates a part of the load,
stream by stream, to see whether the formulas give what comes out. Only the constants are measured; none of the larger
systems has been built.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmarks.many_provider import token_chunk
from penstock.events import FrozenDict, TokenEvent
from penstock.events.codec import encode_events
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.native import NativeProjection

__all__ = ["CONSTANTS", "LOADS", "SIZES", "Load", "Needs", "main", "needs", "simulate", "tables"]


class Constant(NamedTuple):
    """A figure, and where it comes from."""

    value: float
    unit: str
    what: str
    source: str


CONSTANTS: Final = {
    "rate": Constant(20, "tokens/s", "of one live stream", "assumed: a usual model"),
    "tokens": Constant(500, "tokens", "of one answer", "assumed"),
    "kept": Constant(600, "s", "for which an ended log is kept in the engine (`keep`)", "chosen; the default is a day"),
    "token_us": Constant(
        17, "µs", "of a node's CPU for a token: recv, framing, JSON, decode, offer",
        "measured: 41–50 with the next one, 500 calls by the loop reader, "
        "without [the direct turn](decisions/0015-direct-turn.md)",
    ),
    "event_us": Constant(
        28, "µs", "for an event: turn, log, announce, subscriber",
        "see the last one",
    ),
    "append_us": Constant(13.5, "µs", "for an append to the engine", "measured: 20 appends in a round trip"),
    "reader_us": Constant(47, "µs", "for an event to a reader over HTTP", "measured: 200 readers at 20 tokens/s"),
    "engine_appends": Constant(90_000, "appends/s", "of one engine core", "measured: 88,000–105,000, Valkey 9.1"),
    "stream_kb": Constant(71, "KB", "of a node's memory for a call and its stream, with TLS", "measured: loop reader"),
    "reader_kb": Constant(45, "KB", "for a reader", "measured: 54 MB with 200 readers of 40 streams"),
    "process_mb": Constant(60, "MB", "for a node's process", "measured, rounded up"),
    "log_kb": Constant(18, "KB", "of the engine's memory for an answer's log", "measured: 16–20 for 500 tokens"),
    "packet": Constant(80, "bytes", "around each message: IP, TCP, TLS", "estimated"),
    "command": Constant(180, "bytes", "around an event in an append, and in its publication", "estimated"),
    "use": Constant(0.6, "", "share of a node's cores that is used", "chosen: room for a dead node's streams"),
    "engine_use": Constant(0.5, "", "share of an engine's core that is used", "chosen"),
    "workers": Constant(4, "", "processes, and cores, of a node (`--workers 4`)", "chosen"),
}  # fmt: skip
PRICES: Final = {
    "core": Constant(0.04, "$/h", "a core", "an example"),
    "gb": Constant(0.005, "$/h", "a GB of memory", "an example"),
    "egress": Constant(0.05, "$/GB", "to the clients", "an example"),
}
SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
FRAME_S: Final = 0.04


class Load(NamedTuple):
    """How tokens are delivered: ``batch`` of them in an event."""

    name: str
    batch: int


LOADS: Final = (
    Load("Each token by itself (`batch_size=1`)", 1),
    Load("Five tokens an event (`batch_size=5, flush_interval=0.25`)", 5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a number of live streams needs, each read by one client. Bytes are those of one second."""

    answers: float
    appends: float
    cores: float
    nodes: int
    node_gb: float
    shards: int
    engine_gb: float
    from_providers: float
    engine: float
    to_clients: float
    dollars: float
    dollars_per_million: float


def _of(name: str) -> float:
    return CONSTANTS[name].value


def _sizes(batch: int) -> tuple[int, int, int]:
    """Bytes of a token from the provider, of an event in the engine, and of its frame to a client, by the real code."""
    tokens = (" token",) * batch
    event = TokenEvent("s-0123456789abcdef", 250, tokens, "".join(tokens), "text", 1.7636e9, FrozenDict())
    opening = Opening(stream_id=event.stream_id, epoch="0a1b2c3d", created=1_763_600_000)
    (frame,) = NativeProjection(opening).feed(event)
    return len(token_chunk(" token")), len(encode_events([event], FrozenDict())), len(frame.data)


def needs(streams: int, load: Load) -> Needs:
    """Calculate what ``streams`` live streams need."""
    tokens = streams * _of("rate")
    events = tokens / load.batch
    appends = min(events, streams / FRAME_S)
    answers = tokens / _of("tokens")
    micros = tokens * _of("token_us") + events * (_of("event_us") + _of("reader_us")) + appends * _of("append_us")
    cores = micros / 1e6 / _of("use")
    nodes = max(2, math.ceil(cores / _of("workers")))
    node_gb = (streams * (_of("stream_kb") + _of("reader_kb")) / 1e6) + nodes * _of("workers") * _of("process_mb") / 1e3
    shards = max(1, math.ceil(appends / (_of("engine_appends") * _of("engine_use"))))
    logs = streams / 2 + answers * _of("kept")  # a live log is half full on average
    engine_gb = logs * _of("log_kb") / 1e6
    provided, stored, framed = _sizes(load.batch)
    to_clients = events * (framed + _of("packet"))
    dollars = nodes * _of("workers") * PRICES["core"].value + (node_gb + engine_gb) * PRICES["gb"].value
    dollars += shards * PRICES["core"].value + to_clients * 3600 / 1e9 * PRICES["egress"].value
    return Needs(
        answers=answers,
        appends=appends,
        cores=cores,
        nodes=nodes,
        node_gb=node_gb,
        shards=shards,
        engine_gb=engine_gb,
        from_providers=tokens * (provided + _of("packet")),
        engine=2 * appends * (stored + _of("command")),
        to_clients=to_clients,
        dollars=dollars,
        dollars_per_million=dollars / (tokens * 3600) * 1e6,
    )


# --- the page --------------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Two digits that count.

    >>> _number(3456.7), _number(0.1234), _number(9.96)
    ('3,500', '0.12', '10')
    """
    if not value:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"


def _rows(load: Load) -> Iterator[tuple[str, list[str]]]:
    found = [needs(streams, load) for streams in SIZES]
    yield "tokens/s", [f"{streams * _of('rate'):,.0f}" for streams in SIZES]
    yield "answers/s", [_number(each.answers) for each in found]
    yield "cores of nodes", [_number(each.cores) for each in found]
    yield f"nodes of {_of('workers'):.0f} cores", [f"{each.nodes:,}" for each in found]
    yield "memory of all nodes, GB", [_number(each.node_gb) for each in found]
    yield "appends/s", [f"{each.appends:,.0f}" for each in found]
    yield "shards of the engine", [f"{each.shards:,}" for each in found]
    yield "memory of all shards, GB", [_number(each.engine_gb) for each in found]
    yield "from providers, MB/s", [_number(each.from_providers / 1e6) for each in found]
    yield "to and from the engine, MB/s", [_number(each.engine / 1e6) for each in found]
    yield "to clients, MB/s", [_number(each.to_clients / 1e6) for each in found]
    yield "$ an hour", [_number(each.dollars) for each in found]
    yield "$ a million tokens", [_number(each.dollars_per_million) for each in found]


def tables() -> list[str]:
    """Return the tables of the page: one for each load, then the constants, then the prices."""
    made = []
    for load in LOADS:
        lines = [f"| {load.name} | " + " | ".join(f"{size:,}" for size in SIZES) + " |", "|---|" + "---:|" * len(SIZES)]
        lines += [f"| {what} | " + " | ".join(values) + " |" for what, values in _rows(load)]
        made.append("\n".join(lines))
    for constants in (CONSTANTS, PRICES):
        lines = ["| constant | | from |", "|---|---|---|"]
        lines += [
            f"| {f'{each.value:,g} {each.unit}'.strip()} | {each.what} | {each.source} |" for each in constants.values()
        ]
        made.append("\n".join(lines))
    return made


# --- the simulation --------------------------------------------------------------------------------------------------


def simulate(streams: int, seconds: float, kept: float, load: Load, seed: int = 1) -> dict[str, float]:
    """Simulate calls that come at random, and tokens with random gaps; returns means of the steady state.

    Answers have a random number of tokens. An event is appended at once after a silence of a frame, 40 ms, else with
    those of the same frame.

    Args:
        streams: that are to be live on average.
        seconds: over which the means are taken.
        kept: for how long an ended log is kept.
        load: how tokens are delivered.
        seed: of all that is random.
    """
    chance = random.Random(seed)
    length = _of("tokens") / _of("rate")
    begin = -10 * length - kept
    counts = {"live": 0.0, "tokens": 0.0, "appends": 0.0, "logs": 0.0}
    now = begin
    while (now := now + chance.expovariate(streams / length)) < seconds:
        end = _answer(chance, now, seconds, load, counts)
        counts["live"] += max(0.0, min(end, seconds) - max(now, 0.0))
        counts["logs"] += max(0.0, min(end + kept, seconds) - max(end, 0.0))
    return {name: count / seconds for name, count in counts.items()}


def _answer(chance: random.Random, now: float, seconds: float, load: Load, counts: dict[str, float]) -> float:
    """Let one answer come, and count its tokens and appends from 0 to ``seconds``; returns when it ends."""
    tokens = max(1, round(chance.expovariate(1 / _of("tokens"))))
    if now + 3 * tokens / _of("rate") < 0:  # it has ended before
        return now + tokens / _of("rate")
    appended = -math.inf
    for number in range(1, tokens + 1):
        now += chance.expovariate(_of("rate"))
        counts["tokens"] += 0 <= now < seconds
        if now > appended and (number % load.batch == 0 or number == tokens):
            appended = max(now, appended + FRAME_S)
            counts["appends"] += 0 <= appended < seconds
    return now


def main() -> int:
    """Print the tables, and what the simulation says of the formulas."""
    print("\n\n".join(tables()))
    streams, kept = 300, 60.0
    for load in LOADS:
        found = simulate(streams, 60.0, kept, load)
        planned = needs(streams, load)
        print(
            f"\nsimulated, {load.name}: {found['live']:.0f} live of {streams}, {found['tokens']:,.0f} tokens/s of"
            f" {streams * _of('rate'):,.0f}, {found['appends']:,.0f} appends/s of {planned.appends:,.0f},"
            f" {found['logs']:,.0f} ended logs of {planned.answers * kept:,.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
