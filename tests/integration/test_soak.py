"""Calls are started at a steady rate, and cancelled, reset, cut off and stalled: nothing grows, nothing is left.

``make soak`` does it for a minute at 200 starts a second; without ``--soak`` it ends after a number of starts, which is
too short to say anything about memory.
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
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
MODELS: Final = ("whole",) * 12 + ("slow", "reset", "reset", "cut", "stalled", "silent", "gone", "refused")
CANCELLED: Final = 0.25  # of all, at any moment of their first 0.4 s
OPTIONS: Final = penstock.StreamOptions(batch_size=3, flush_interval=0.01, rate_limit=None, keep_finished=0.0)
REQUEST: Final = penstock.RequestOptions(
    max_retries=1, retry_base_delay=0.02, retry_max_delay=0.05, idle_timeout=2.0, first_token_timeout=2.0
)


class Sample(NamedTuple):
    """What a process has at one moment."""

    memory: float
    descriptors: float
    threads: float
    timers: float
    processes: float


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
        self.begun = self.seconds = 0.0
        self.samples: list[Sample] = []
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

    def run(self, is_over: Callable[[], bool]) -> None:
        """Start calls until ``is_over``, not more than `MOST` at once, and take a sample each second."""
        self.begun = begun = time.monotonic()
        next_sample = begun + 1
        while not is_over():
            now = time.monotonic()
            self.cancel_due(now)
            if now >= next_sample:
                self.samples.append(sample(self.system))
                next_sample = now + 1
            # A machine that does not keep the rate does not make up for it either.
            due = begun + self.started / RATE
            if now < due:
                time.sleep(min(0.005, due - now))
            elif self.running < MOST:
                self.start_one()
            else:
                time.sleep(0.005)
        self.seconds = time.monotonic() - begun
        self.cancel_due(float("inf"))


def soak(seconds: float, seed: int) -> Load:
    with serving({}, "tests.integration.soak_provider") as base_url:
        settings = penstock.Settings(runtime=penstock.RuntimeOptions(reader="loop", call_timeout=60))
        before_all = threading.active_count()
        with penstock.System(settings) as system:
            at_rest = system.statistics()
            load = Load(system, base_url, seed)
            if seconds:
                load.run(lambda: time.monotonic() - load.begun >= seconds)
            else:
                load.run(lambda: load.started >= STARTS)
            eventually(lambda: load.running == 0, PATIENCE_S, "every stream ended")
            assert not load.wrong, load.wrong[:3]
            eventually(lambda: system.statistics().processes <= at_rest.processes, PATIENCE_S, "no process left")
            eventually(lambda: not system._table.all(), PATIENCE_S, "every record forgotten")
            eventually(lambda: system.statistics().timers <= at_rest.timers + 5, PATIENCE_S, "no timer left")
            assert system.statistics().leaked_sources == 0
            assert system.stop() == 0
        eventually(lambda: threading.active_count() <= before_all, PATIENCE_S, "no thread left")
        return load


def assert_flat(load: Load) -> None:
    """Compare the second third of the run with the last one; the first third is the warm-up.

    How many calls run at once varies by chance and with the machine, and with it what they have open: a quarter and 50
    are allowed. Memory: 512 bytes for each call that was started from the middle of one third to that of the other,
    which is less than a record with its log (several KB), and 6 MiB for heaps in pieces.
    """
    third = len(load.samples) // 3
    earlier, later = load.samples[third : 2 * third], load.samples[-third:]
    before, after = (Sample(*map(median, zip(*part, strict=True))) for part in (earlier, later))
    rate = load.started / load.seconds
    print(f"\n{load.started} starts, {rate:.0f}/s; {dict(load.ends)}\n{before}\n{after}")
    for name in ("descriptors", "threads", "timers", "processes"):
        assert getattr(after, name) <= 1.25 * getattr(before, name) + 50, (name, before, after)
    assert after.memory - before.memory <= 512 * load.started / 3 + (6 << 20), (before, after)


@pytest.mark.parametrize("name", ["descriptors", "threads", "timers", "processes", "memory", ""])
def test_what_grows_with_each_call_is_found(name: str) -> None:
    load = object.__new__(Load)
    load.started, load.seconds, load.ends = 12_000, 60.0, Counter()
    flat = Sample(100 << 20, 130, 40, 200, 300)
    rising = [*range(0, 60 << 20, 1 << 20)] if name == "memory" else [*range(0, 600, 10)]
    load.samples = [flat._replace(**{name: getattr(flat, name) + more}) if name else flat for more in rising]
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
