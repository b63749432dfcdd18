"""Streams that are made of another one by a combinator, compared with that one alone.

Tokens are pushed one by one into a stream that makes events of ten; the last stream of the row has one subscriber, an
actor that only counts. A load ends when it has all tokens.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from benchmarks.probe import Countdown, Meter, Result, measure
from benchmarks.pushed import Sink
from benchmarks.tables import Row, Samples, Table
from penstock import StreamOptions, System
from penstock.config.settings import Settings
from penstock.stream import Stream

__all__ = ["ROWS", "load", "run"]

_OPTIONS: Final = StreamOptions(rate_limit=None, batch_size=10, max_buffer_size=1000)


def _same(text: str) -> str:
    return text


ROWS: Final[dict[str, Callable[[Stream], Stream]]] = {
    "no combinator": lambda stream: stream,
    "map": lambda stream: stream.map(_same),
    'map, unit="word"': lambda stream: stream.map(_same, unit="word"),
    "filter": lambda stream: stream.filter(_same),
    "take": lambda stream: stream.take(tokens=1 << 40),
    "with_timeout": lambda stream: stream.with_timeout(total=3600, idle=3600),
    "tee into memory": lambda stream: stream.tee(io.BytesIO()),
    "tee into memory, flush_every=100": lambda stream: stream.tee(io.BytesIO(), flush_every=100),
    "five maps in a row": lambda stream: stream.map(_same).map(_same).map(_same).map(_same).map(_same),
}


def load(row: str, tokens: int) -> Result:
    """Push ``tokens`` tokens, a multiple of ten, through one row of combinators."""
    with System(Settings()) as system:
        _push(system, row, 2000)
        with Meter() as pushing:
            _push(system, row, tokens)
    return {"wall_us": pushing.wall / tokens * 1e6, "cpu_us": pushing.cpu / tokens * 1e6}


def _push(system: System, row: str, tokens: int) -> None:
    countdown = Countdown(1)
    first = system.open_stream(options=_OPTIONS)
    last = ROWS[row](first)
    last.subscribe(system.runtime.spawn(Sink, tokens, countdown))
    push: Any = first.process_token
    for _ in range(tokens):
        push("token ", 60)
    first.stop()
    countdown.wait()


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    tokens = 10_000 if quick else 100_000
    found: dict[str, list[Result]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        for row, results in found.items():
            results.append(measure(load, row=row, tokens=tokens))
    table = Table(
        "Combinators of one stream",
        f"{tokens:,} tokens pushed one by one, events of ten, one subscribed actor at the end of the row. The last"
        " column compares with the stream alone.",
    )
    alone = found["no combinator"]
    for row, results in found.items():
        for what, field in (("wall", "wall_us"), ("CPU", "cpu_us")):
            peer = None if row == "no combinator" else Samples.of(alone, field)
            name = "" if peer is None else "no combinator"
            table.rows.append(Row(f"{row}: {what} a token", "µs", Samples.of(results, field), None, name, peer))
    return [table]
