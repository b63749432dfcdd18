"""Random processes of a running system are killed under load, on real threads and sockets: the promises hold.

``make soak`` does it for a minute; without ``--soak`` it ends after a number of kills.
"""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time
import traceback
from typing import Any, Final

import psutil
import pytest

import penstock
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.adapters.loopback.faults import ResetAfter
from penstock.adapters.loopback.script import Answer, Cycle, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import Collector, check_log, eventually, kill

WORDS: Final = tuple(f"{number} " for number in range(20))
TEXT: Final = "".join(WORDS)
FAST: Final = penstock.StreamOptions(batch_size=3, flush_interval=0.01, rate_limit=None, keep_finished=0.0)
HOUSE: Final = ("handler", "registry", "reaper", "streams", "sources")
KILLS: Final = 150
PATIENCE_S: Final = 30.0
USERS: Final = 4


def is_the_houses_turn(chance: random.Random) -> bool:
    """Whether to hit the house itself this time: seldom enough for the root not to give up (50 in 5 s)."""
    return chance.random() < 0.03


class Load:
    """Threads that open streams, read them to the end and look closely at what they got."""

    def __init__(self, system: penstock.System, base_url: str) -> None:
        self.system = system
        self.base_url = base_url
        self.lock = threading.Lock()
        self.open: dict[str, list[Collector]] = {}
        self.wrong: list[str] = []
        self.finished = threading.Semaphore(0)
        self.ends: dict[str, int] = {}
        self.enough = threading.Event()
        self.threads = [threading.Thread(target=self.use, args=(number,)) for number in range(USERS)]

    def use(self, number: int) -> None:
        chance = random.Random(number)
        count = 0
        while not self.enough.is_set():
            count += 1
            try:
                self.use_one(f"user-{number}-{count}", chance)
            except Exception:
                self.wrong.append(f"user-{number}-{count}: {traceback.format_exc()}")
            self.finished.release()

    def use_one(self, stream_id: str, chance: random.Random) -> None:
        stream = self.begin(stream_id, chance)
        collectors = [Collector(stream), Collector(stream, slow="coalesce", window=2)]
        with self.lock:
            self.open[stream_id] = collectors
        with contextlib.suppress(penstock.StreamClosed):
            self.push(stream)
        events = [event for event in stream if not isinstance(event, penstock.StreamReset)]
        with contextlib.suppress(penstock.PenstockError):
            stream.result(PATIENCE_S)
        with self.lock:
            del self.open[stream_id]
        self.check(stream, events, collectors)

    def begin(self, stream_id: str, chance: random.Random) -> penstock.Stream:
        restart: Any = chance.choice(("temporary", "transient"))
        if chance.random() < 0.3:
            return self.system.open_stream(stream_id, FAST, restart=restart)
        return self.system.chat(
            "m", "Hello", provider="loopback", base_url=self.base_url, stream_id=stream_id, options=FAST,
            restart=restart, on_orphan="continue",
            request_options=penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.005),
        )  # fmt: skip

    def push(self, stream: penstock.Stream) -> None:
        if stream._record.feed is None:
            for word in WORDS:
                stream.process_token(word, timeout=PATIENCE_S)
            stream.pause()
            stream.resume()
            stream.stop()

    def check(self, stream: penstock.Stream, events: list[Any], collectors: list[Collector]) -> None:
        assert stream.is_over
        check_log(stream)
        terminal = stream._record.log.terminal
        assert events[-1] == terminal
        self.ends[type(terminal).__name__] = self.ends.get(type(terminal).__name__, 0) + 1
        if isinstance(terminal, penstock.StreamCompleted):
            assert stream.text == TEXT, (stream._record.feed, events)
        else:
            assert TEXT.startswith(stream.text)
        for collector in collectors:
            wait_until_told_or_dead(collector)
            collector.check()
            if collector.terminal is not None:
                assert collector.text == stream.text

    def hit_somebody(self, chance: random.Random) -> None:
        with self.lock:
            streams = list(self.open.items())
        targets: list[Any] = [chance.choice(HOUSE)] if is_the_houses_turn(chance) else []
        if not targets and streams:
            stream_id, collectors = chance.choice(streams)
            subscriber = ref_of(chance.choice(collectors))
            targets = [chance.choice((f"stream/{stream_id}", f"source/{stream_id}", subscriber))]
        for target in targets:
            with contextlib.suppress(LookupError):  # it has ended meanwhile
                kill(self.system, target)


def ref_of(collector: Collector) -> ProcessRef:
    subscription = collector.subscription
    assert isinstance(subscription, PushSubscription)
    assert isinstance(subscription.ref, ProcessRef)
    return subscription.ref


def wait_until_told_or_dead(collector: Collector) -> None:
    ref = ref_of(collector)
    eventually(lambda: collector.terminal or not ref.is_alive(), PATIENCE_S, "its subscriber told")


def alive() -> list[threading.Thread | Process | StreamRecord]:
    """The threads that run, and the processes and records that something still refers to."""
    gc.collect()  # every process has ended before: what is left in circles is memory, which only the collector frees
    # By type: a lazy object of another library may not say its class.
    kept = [thing for thing in gc.get_objects() if issubclass(type(thing), Process | StreamRecord)]
    return [*threading.enumerate(), *kept]


def added_since(before: list[Any]) -> list[str]:
    known = set(map(id, before))
    return [str(thing) for thing in alive() if id(thing) not in known]


def wait_until_nothing_is_added(before: list[Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while added := added_since(before):
        assert time.monotonic() < deadline, added
        time.sleep(0.1)


def resident_bytes() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


def kill_for(soak: float, system: penstock.System, load: Load, seed: int) -> None:
    chance = random.Random(seed)
    deadline = time.monotonic() + soak
    kills = 0
    while time.monotonic() < deadline if soak else kills < KILLS:
        assert load.finished.acquire(timeout=PATIENCE_S), "nobody gets anything any more"
        load.hit_somebody(chance)
        kills += 1


def run_under_kills(soak: float, seed: int) -> dict[str, int]:
    answer = Answer(tokens=WORDS, pace=0.001)
    replies = Cycle((answer, answer, answer, answer.replace(faults=(ResetAfter(7),))))
    with LoopbackProvider(Script(replies)) as provider, penstock.System(penstock.Settings()) as system:
        at_first = sorted(system.runtime.names())
        load = Load(system, provider.base_url)
        for thread in load.threads:
            thread.start()
        try:
            kill_for(soak, system, load, seed)
        finally:
            load.enough.set()
            for thread in load.threads:
                thread.join(PATIENCE_S)
        assert not load.wrong, "\n".join(load.wrong[:3])
        stuck = sorted(load.open)
        assert not any(thread.is_alive() for thread in load.threads), stuck
        provider.wait_for(lambda counts: counts.active_responses == 0)
        eventually(lambda: sorted(system.runtime.names()) == at_first, PATIENCE_S, "every name free")
        # The processes of the system itself, and its sentinel.
        eventually(lambda: len(system.runtime.processes()) == len(at_first) + 1, PATIENCE_S, "nobody left")
        eventually(lambda: len(system._table.all()) == 0, PATIENCE_S, "every record forgotten")
        assert system.statistics().dispatcher.leaked == 0
        assert system.stop() == 0
        return load.ends


def test_whoever_is_killed_under_load_the_promises_hold_and_nothing_is_left(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")  # kept log records would keep what they speak of
    soak: float = request.config.getoption("--soak")
    before = alive()  # left by other tests; kept, so that no new thing gets the id of one of them
    if soak:
        run_under_kills(soak / 6, seed=0)  # what is imported, cached and pooled once
        resident = resident_bytes()
    ends = run_under_kills(soak, seed=1)
    assert ends["StreamCompleted"]
    wait_until_nothing_is_added(before)
    if soak:
        assert resident_bytes() - resident < 32 << 20
