"""Calls are started at a steady rate, and cancelled, reset, cut off and stalled: nothing grows, nothing is left.

``make soak`` does it for a minute at 200 starts a second, in three parts; without ``--soak`` it ends after a number of
starts, which is too short to say anything about memory.

How many calls run at one moment, and how much they have open, varies by chance and with the machine. So what a process
has is looked at when none runs: after each part, no call is started until the last one has ended. What then grows from
one part to the next is a leak. The collector runs as it does in any program: nothing calls it here.
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
import time
from collections import Counter
from typing import Final, NamedTuple

import psutil
import pytest

import penstock
from benchmarks.provider import serving
from penstock.testing import eventually
from tests.integration.soak_provider import TEXT

RATE: Final = 200.0
STARTS: Final = 300
MOST: Final = 2_000
PATIENCE_S: Final = 60.0
PARTS: Final = 3
INFINITY: Final = float("inf")
MODELS: Final = ("whole",) * 12 + ("slow", "reset", "reset", "cut", "stalled", "silent", "gone", "refused")
CANCELLED: Final = 0.25  # of all, at any moment of their first 0.4 s
OPTIONS: Final = penstock.StreamOptions(batch_size=3, flush_interval=0.01, rate_limit=None, keep_finished=0.0)
REQUEST: Final = penstock.RequestOptions(
    max_retries=1, retry_base_delay=0.02, retry_max_delay=0.05, idle_timeout=2.0, first_token_timeout=2.0
)


class Sample(NamedTuple):
    """What a process has at one moment."""

    memory: int
    descriptors: int
    threads: int
    timers: int
    processes: int


def sample(system: penstock.System) -> Sample:
    process, counts = psutil.Process(), system.statistics()
    if sys.platform == "win32":
        descriptors = process.num_handles()
    else:
        descriptors = process.num_fds()
    return Sample(process.memory_info().rss, descriptors, threading.active_count(), counts.timers, counts.processes)


class Reader:
    """Reads one stream: a function that is called with each event."""

    def __init__(self, load: Load, model: str) -> None:
        self.load = load
        self.model = model
        self.text = ""

    def __call__(self, event: penstock.Event) -> None:
        if isinstance(event, penstock.TokenEvent):
            self.text += event.text
        elif isinstance(event, penstock.StreamReset):
            self.text = ""
        elif isinstance(event, penstock.StreamCompleted | penstock.StreamFailed | penstock.StreamCancelled):
            self.load.ended(self, event)


class Load:
    """Starts calls at a steady rate, cancels some, and counts their ends. One thread starts; readers are anywhere."""

    def __init__(self, system: penstock.System, base_url: str, seed: int) -> None:
        self.system = system
        self.base_url = base_url
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.started = 0
        self.seconds = 0.0  # without those between the parts
        self.busiest = Sample(0, 0, 0, 0, 0)
        self.rests: list[Sample] = []
        self.to_cancel: list[tuple[float, int, penstock.Stream]] = []

    def ended(self, reader: Reader, end: penstock.Event) -> None:
        kind = type(end).__name__
        is_right = TEXT.startswith(reader.text)
        if isinstance(end, penstock.StreamCompleted):
            is_right = reader.text == TEXT and reader.model in ("whole", "slow")
        elif isinstance(end, penstock.StreamFailed):
            # A busy machine can be silent too.
            late = isinstance(end.error, penstock.ProviderTimeout)
            is_right = is_right and (late or reader.model not in ("whole", "slow"))
        with self.lock:
            self.ends[kind] += 1
            if not is_right:
                self.wrong.append(f"{reader.model}: {reader.text!r}, {end!r}")

    @property
    def running(self) -> int:
        return self.started - self.ends.total()

    def start_one(self) -> None:
        model = self.chance.choice(MODELS)
        stream = self.system.chat(
            model, "Hello", provider="loopback", base_url=self.base_url, options=OPTIONS, request_options=REQUEST
        )
        stream.subscribe(Reader(self, model))
        self.started += 1
        if self.chance.random() < CANCELLED:
            due = time.monotonic() + self.chance.uniform(0, 0.4)
            heapq.heappush(self.to_cancel, (due, self.started, stream))

    def cancel_due(self, now: float) -> None:
        while self.to_cancel and self.to_cancel[0][0] <= now:
            stream = heapq.heappop(self.to_cancel)[2]
            stream.cancel("soak")

    def run(self, seconds: float, most: float) -> None:
        """Start calls for so long, and so many at most; not more than `MOST` at once."""
        begun, before = time.monotonic(), self.started
        next_sample = begun + 1
        while (now := time.monotonic()) < begun + seconds and self.started - before < most:
            self.cancel_due(now)
            if now >= next_sample:
                self.busiest = Sample(*map(max, zip(self.busiest, sample(self.system), strict=True)))
                next_sample = now + 1
            # A machine that does not keep the rate does not make up for it either.
            due = begun + (self.started - before) / RATE
            if now < due:
                time.sleep(min(0.005, due - now))
            elif self.running < MOST:
                self.start_one()
            else:
                time.sleep(0.005)
        self.seconds += time.monotonic() - begun
        self.cancel_due(INFINITY)

    def rest(self, at_rest: penstock.SystemStatistics) -> None:
        """Wait until nothing runs, and look at what is there."""
        system = self.system
        eventually(lambda: self.running == 0, PATIENCE_S, "every stream ended")
        eventually(lambda: system.statistics().processes <= at_rest.processes, PATIENCE_S, "no process left")
        eventually(lambda: not system._table.all(), PATIENCE_S, "every record forgotten")
        eventually(lambda: system.statistics().timers <= at_rest.timers + 5, PATIENCE_S, "no timer left")
        self.rests.append(sample(system))


def soak(seconds: float, seed: int) -> Load:
    with serving({}, "tests.integration.soak_provider") as base_url:
        settings = penstock.Settings(runtime=penstock.RuntimeOptions(reader="loop", call_timeout=60))
        before_all = threading.active_count()
        with penstock.System(settings) as system:
            at_rest = system.statistics()
            load = Load(system, base_url, seed)
            for _ in range(PARTS if seconds else 1):
                load.run(seconds / PARTS or INFINITY, INFINITY if seconds else STARTS)
                load.rest(at_rest)
                assert not load.wrong, load.wrong[:3]
            assert system.statistics().leaked_sources == 0
            assert system.stop() == 0
        eventually(lambda: threading.active_count() <= before_all, PATIENCE_S, "no thread left")
        return load


def assert_flat(load: Load) -> None:
    """Compare what is there after the second part of the run with what is there after the third; the first warms up.

    Of each kind a few are allowed, as connections are kept for a while and idle threads end after one: fewer than one
    for a hundred calls of the last part. Memory: 256 bytes for each of these calls, which is less than a record with
    its log (several KB), and 4 MiB for heaps in pieces.
    """
    _, before, after = load.rests
    last = load.started // PARTS
    print(f"\n{load.started} starts, {load.started / load.seconds:.0f}/s; {dict(load.ends)}")
    for name, rest in (("busiest", load.busiest), ("rests", before), ("", after)):
        print(f"{name:8} {rest}")
    for name in ("descriptors", "threads", "timers", "processes"):
        assert getattr(after, name) <= getattr(before, name) + 5 + last // 200, (name, before, after)
    assert after.memory - before.memory <= 256 * last + (4 << 20), (before, after)


@pytest.mark.parametrize("name", ["descriptors", "threads", "timers", "processes", "memory", ""])
def test_what_grows_with_each_call_is_found(name: str) -> None:
    load = object.__new__(Load)
    load.started, load.seconds, load.ends = 12_000, 60.0, Counter()
    load.busiest = Sample(110 << 20, 330, 60, 300, 500)
    flat = Sample(100 << 20, 130, 40, 15, 20)
    a_part = 4_000 * 2_048 if name == "memory" else 40  # of each call 2 KB, or one of each hundred
    load.rests = [flat._replace(**{name: getattr(flat, name) + part * a_part}) if name else flat for part in range(3)]
    if name:
        with pytest.raises(AssertionError):
            assert_flat(load)
    else:
        assert_flat(load)


@pytest.mark.timeout(900)
def test_of_many_calls_that_end_in_every_way_nothing_grows_and_nothing_is_left(request: pytest.FixtureRequest) -> None:
    seconds: float = request.config.getoption("--soak")
    load = soak(seconds, seed=1)
    assert set(load.ends) == {"StreamCompleted", "StreamFailed", "StreamCancelled"}
    if seconds >= 30:
        assert_flat(load)
