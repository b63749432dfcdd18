"""A simulation of `hedge`: what a second call brings where some answers begin late, and what it costs.

It uses the rules of the package (`penstock.actors.call.hedging`), and takes no time of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks.probe import Result, measure
from benchmarks.tables import Aim, Row, Samples, Table
from penstock.actors.call.hedging import FirstTokens, HedgeBudget

__all__ = ["load", "run"]

_MEDIAN = 0.5  # seconds until the first token
_SPREAD = 0.5  # of its logarithm
_LATE = 0.03  # the share of calls that begin 3 … 30 s late


def _times(seed: int, calls: int, slow_from: float) -> Iterator[tuple[float, float]]:
    """The first-token times of a call and of a second one; from a share of the calls on, the provider is overloaded."""
    chance = random.Random(seed)
    for number in range(calls):
        slower = 80.0 if number >= slow_from * calls else 1.0
        yield _time(chance) * slower, _time(chance) * slower


def _time(chance: random.Random) -> float:
    return chance.lognormvariate(0.0, _SPREAD) * _MEDIAN + (chance.uniform(3, 30) if chance.random() < _LATE else 0.0)


def load(seed: int, calls: int, budget: float, slow_from: float = 1.0, notes_lost: bool = True) -> Result:
    """Make ``calls`` calls.

    Args:
        seed: of the times.
        calls: how many.
        budget: further calls for each call; 0 makes none.
        slow_from: the share of the calls after which all are 80 times as slow.
        notes_lost: whether the time that a slow call has waited in vain is noted, too.
    """
    known, bucket = FirstTokens(), HedgeBudget()
    taken: list[float] = []
    further = over = 0
    for first, second in _times(seed, calls, slow_from):
        after = known.p95()
        bucket.add(budget)
        over += first > after
        if first <= after or not budget or not bucket.take():
            taken.append(first)
            known.note(first)
            continue
        further += 1
        if first <= after + second:
            taken.append(first)
            known.note(first)
            continue
        taken.append(after + second)
        known.note(second)
        if notes_lost:
            known.note(after + second)
    late = sorted(taken[len(taken) // 2 :]) if slow_from < 1 else sorted(taken)
    return {
        "p50_s": late[len(late) // 2],
        "p95_s": late[int(len(late) * 0.95)],
        "p99_s": late[int(len(late) * 0.99)],
        "further": 100 * further / calls,
        "over": 100 * over / calls,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the simulation."""
    calls = 2_000 if quick else 50_000
    seeds = range(rounds)
    alone = [measure(load, seed=seed, calls=calls, budget=0.0) for seed in seeds]
    ours = [measure(load, seed=seed, calls=calls, budget=0.1) for seed in seeds]
    unseen = [measure(load, seed=seed, calls=calls, budget=1.0, notes_lost=False) for seed in seeds]
    unbounded = [measure(load, seed=seed, calls=calls, budget=1.0) for seed in seeds]
    slow = [measure(load, seed=seed, calls=calls, budget=0.1, slow_from=0.5) for seed in seeds]
    table = Table(
        "Hedging, simulated",
        f"{calls:,} calls one after the other, median {_MEDIAN} s to the first token, {100 * _LATE:g} % of them 3 … 30"
        " s late, independent of each other. The second call is made at the 95th percentile of the last 200 times; the "
        "peer makes none. Times are virtual.",
    )
    for key, what in (("p50_s", "median"), ("p95_s", "p95"), ("p99_s", "p99")):
        aim = Aim("times less", 5) if key == "p99_s" else None
        table.rows.append(
            Row(f"first token, {what}", "s", Samples.of(ours, key), aim, "one call", Samples.of(alone, key))
        )
    few, most = Aim("at most", 7), Aim("at most", 10.1)
    table.rows.extend(
        (
            Row("calls slower than the percentile", "%", Samples.of(ours, "over"), few),
            Row("further calls", "%", Samples.of(ours, "further"), most),
            Row("further calls, if half of all calls are 80 times as slow", "%", Samples.of(slow, "further"), most),
            Row("further calls without a budget", "%", Samples.of(unbounded, "further")),
            Row("the same if lost calls are no known times", "%", Samples.of(unseen, "further")),
        )
    )
    return [table]
