"""Adaptive pacing and adaptive batches beside fixed ones, and what `Stream.insights` costs.

The pacing is simulated in virtual time, so its figures are exact. Batches and loops are measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks.probe import Countdown, Meter, Result, measure
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import SAFE, StreamOptions, System, TokenEvent
from penstock.config.settings import Settings
from penstock.testing import SimulatedSystem
from penstock.toolbox.loops import LoopFinder
from penstock.toolbox.measures import TextCounts

__all__ = ["SOURCES", "TEXTS", "batch_load", "insight_load", "loop_load", "paced_load", "run"]

_MOST_LAG: Final = 1.0


def _steady(rng: random.Random) -> Iterator[tuple[float, int]]:
    while True:
        yield 1 / 40, rng.randint(2, 7)


def _bursts(rng: random.Random) -> Iterator[tuple[float, int]]:
    while True:
        yield 0.5, 160


def _uneven(rng: random.Random) -> Iterator[tuple[float, int]]:
    while True:
        yield rng.expovariate(4), rng.randint(5, 200)


def _paused(rng: random.Random) -> Iterator[tuple[float, int]]:
    while True:
        for _ in range(60):
            yield 1 / 30, 4
        yield 4.0, 4


SOURCES: Final[dict[str, Callable[[random.Random], Iterator[tuple[float, int]]]]] = {
    "40 tokens a second": _steady,
    "160 characters each half second": _bursts,
    "uneven, 4 pieces a second": _uneven,
    "2 s of tokens, 4 s of silence": _paused,
}
_FIXED: Final = StreamOptions(rate_limit=None, batch_size=5, flush_interval=0.05)  # that of `System.chat`
_PACED: Final = SAFE.replace(pacing="adaptive", max_lag=_MOST_LAG)


def paced_load(source: str, kind: str, seconds: float) -> Result:
    """Show ``seconds`` of a source, in virtual time, by ``kind``: ``"adaptive"``, or ``"fixed"``: without pacing."""
    shown: list[tuple[float, int]] = []
    came: list[tuple[float, int]] = []
    with SimulatedSystem(1) as system:
        clock = system.simulation.clock
        stream = system.open_stream(None, _PACED if kind == "adaptive" else _FIXED)

        def show(event: Any) -> None:
            if isinstance(event, TokenEvent):
                shown.append((clock.monotonic(), len(event.text)))

        stream.subscribe(show)
        start = clock.monotonic()
        for pause, characters in SOURCES[source](random.Random(1)):
            if clock.monotonic() - start > seconds:
                break
            system.advance(pause)
            came.append((clock.monotonic(), characters))
            stream.process_token("x" * characters)
        system.advance(2 * _MOST_LAG)
        stream.stop()
        system.settle()
    return _measured(came, shown)


def _measured(came: list[tuple[float, int]], shown: list[tuple[float, int]]) -> Result:
    lags: list[float] = []
    arrivals = [at for at, characters in came for _ in range(characters)]
    place = 0
    for at, characters in shown:
        lags += [at - arrived for arrived in arrivals[place : place + characters]]
        place += characters
    largest = sorted(characters for _, characters in shown)
    return {
        "worst": max(lags),
        "mean": sum(lags) / len(lags),
        "piece": largest[int(len(largest) * 0.95)],
        "jerk": sum(characters**2 for _, characters in shown) / place,
        "events": float(len(shown)),
    }


def batch_load(batch: int | str, rate: float, seconds: float) -> Result:
    """Push ``rate`` tokens a second (0: as fast as they are taken) into a stream with one subscribed function."""
    latencies: list[float] = []
    over = Countdown(1)
    options = StreamOptions(batch_size=batch, rate_limit=None, flush_interval=0.1, max_buffer_size=1000)  # type: ignore[arg-type]

    def take(event: Any) -> None:
        if isinstance(event, TokenEvent):
            now = time.perf_counter()
            latencies.extend(now - float(token) for token in event.tokens)
        else:
            over.report()

    with System(Settings()) as system:
        stream = system.open_stream(None, options)
        stream.subscribe(take)
        count, start = 0, time.perf_counter()
        with Meter() as meter:
            while (now := time.perf_counter()) < start + seconds:
                if rate and count >= (now - start) * rate:
                    time.sleep(min(0.002, 1 / rate))
                    continue
                stream.process_token(repr(now))
                count += 1
            stream.stop(60)
            over.wait()
        events = stream.statistics().batches_flushed
    latencies.sort()
    return {
        "cpu": meter.cpu / count * 1e6,
        "p50": latencies[len(latencies) // 2] * 1e3,
        "p99": latencies[int(len(latencies) * 0.99)] * 1e3,
        "per_second": count / meter.wall,
        "batch": count / events,
    }


def _letters(seed: int, count: int, letters: str) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(letters) for _ in range(count))


TEXTS: Final[dict[str, Callable[[int], str]]] = {
    "prose": lambda count: _letters(1, count, "etaoin shrdlu cmfwyp vbgkq jxz etaoin e t a"),
    "zeros": lambda count: "0" * count,
    "random of two letters": lambda count: _letters(2, count, "ab"),
    "runs that break": lambda count: "".join("a" * (60 + n % 7) + "b" for n in range(count // 63))[:count],
    "a sample before each change": lambda count: "".join("abcdefgh" + chr(0x4E00 + n % 97) for n in range(count // 9)),
}


def loop_load(text: str, characters: int, size: int) -> Result:
    """Search ``characters`` of a text, fed ``size`` at a time, for loops, and count its words."""
    whole = TEXTS[text](characters)
    finder, counts = LoopFinder(), TextCounts()
    with Meter() as finding:
        for place in range(0, len(whole), size):
            finder.feed(whole[place : place + size])
    with Meter() as counting:
        for place in range(0, len(whole), size):
            counts.feed(whole[place : place + size])
    return {"loop": finding.cpu / len(whole) * 1e6, "count": counting.cpu / len(whole) * 1e6}


def insight_load(watched: bool, tokens: int) -> Result:
    """Push ``tokens`` tokens of prose into a stream, watched or not."""
    words = [word + " " for word in TEXTS["prose"](tokens * 8).split()][:tokens]
    with System(Settings()) as system:
        stream = system.open_stream(None, SAFE.replace(max_buffer_size=1000))
        insights = stream.insights() if watched else None
        with Meter() as meter:
            for word in words:
                stream.process_token(word, 60)
            stream.stop(60)
            if insights is not None:
                insights.report()
        return {"cpu": meter.cpu / sum(map(len, words)) * 1e6}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    return [_pacing(quick), _batching(rounds, quick), _watching(rounds, quick)]


def _pacing(quick: bool) -> Table:
    table = Table(
        "Adaptive pacing, simulated",
        "Virtual time. *Fixed* is what `System.chat` does without pacing: 5 tokens, or 50 ms. *A character's piece* is"
        " how many characters come together with a character, on average: small is smooth.",
    )
    for source in SOURCES:
        ours = measure(paced_load, source=source, kind="adaptive", seconds=10 if quick else 60)
        theirs = measure(paced_load, source=source, kind="fixed", seconds=10 if quick else 60)
        for what, field, unit, aim in (
            ("worst lag", "worst", "s", Aim("at most", _MOST_LAG + 1 / 30)),
            ("mean lag", "mean", "s", None),
            ("a character's piece", "jerk", "characters", None),
        ):
            peer = Samples.of([theirs], field)
            table.rows.append(Row(f"{source}: {what}", unit, Samples.of([ours], field), aim, "fixed", peer))
    return table


def _batching(rounds: int, quick: bool) -> Table:
    table = Table(
        "Adaptive batch size",
        "One stream, one subscribed function. Latency is from the push to the function; *fixed* waits for 10 tokens or"
        " 100 ms.",
    )
    for rate in (50.0, 2000.0, 0.0):
        found: dict[Any, list[Result]] = {"adaptive": [], 10: []}
        for _ in range(rounds):
            for batch, results in found.items():
                results.append(measure(batch_load, batch=batch, rate=rate, seconds=1 if quick else 4))
        name = f"{rate:g} tokens/s" if rate else "as fast as it goes"
        for what, field, unit in (
            ("median latency", "p50", "ms"),
            ("p99 latency", "p99", "ms"),
            ("CPU a token", "cpu", "µs"),
            ("tokens an event", "batch", "tokens"),
        ):
            theirs = Samples.of(found[10], field)
            row = Row(f"{name}: {what}", unit, Samples.of(found["adaptive"], field), None, "fixed, 10", theirs)
            table.rows.append(row)
    return table


def _watching(rounds: int, quick: bool) -> Table:
    characters = 40_000 if quick else 400_000
    table = Table("Insights", "CPU time a character. Loop detection is fed 4 characters, or 1, at a time.")
    for text in TEXTS:
        for size in (4, 1):
            results = [measure(loop_load, text=text, characters=characters, size=size) for _ in range(rounds)]
            row = Row(f"loops in {text}, {size} at a time", "µs", Samples.of(results, "loop"), Aim("at most", 1.0))
            table.rows.append(row)
    results = [measure(loop_load, text="prose", characters=characters, size=4) for _ in range(rounds)]
    table.rows.append(Row("counts of prose, 4 at a time", "µs", Samples.of(results, "count")))
    watched = [measure(insight_load, watched=True, tokens=characters // 8) for _ in range(rounds)]
    alone = [measure(insight_load, watched=False, tokens=characters // 8) for _ in range(rounds)]
    added = [{"cpu": max(0.0, one["cpu"] - other["cpu"])} for one, other in zip(watched, alone, strict=True)]
    table.rows.append(
        Row("a watched stream, more than one that is not", "µs", Samples.of(added, "cpu"), Aim("at most", 1))
    )
    return table
