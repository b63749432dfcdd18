"""The dispatcher on real threads: it neither starves nor deadlocks, and never runs an actor twice at once."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.runtime import dispatcher as module
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher, blocking, check_process, is_forked, on_worker
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.errors import OptionError, SystemForked
from penstock.testing import eventually

GENEROUS = 20.0

Make = Callable[..., Runtime]


class Runner(Process):
    """Calls every message that it gets."""

    in_pykka_registry = False

    def on_receive(self, message: Any) -> Any:
        return message(self)


def threads_of(runtime: Runtime) -> ThreadedDispatcher:
    assert isinstance(runtime.dispatcher, ThreadedDispatcher)
    return runtime.dispatcher


# --- blocking --------------------------------------------------------------------------------------------------------


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the monitor look every 0.2 ms, and sleep after 40 ms without work."""
    for name, seconds in (("_TICK", 0.0002), ("_CALM", 0.0002), ("_QUIET", 0.04)):
        monkeypatch.setattr(module, name, seconds)


def test_three_hundred_actors_that_each_wait_for_the_next_do_not_deadlock_one_worker(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, max_spares=400)

    class Link(Process):
        in_pykka_registry = False

        def __init__(self, rest: ProcessRef | None) -> None:
            super().__init__()
            self.rest = rest

        def on_receive(self, message: Any) -> Any:
            return 1 if self.rest is None else 1 + self.rest.ask(message, timeout=GENEROUS)

    chain: ProcessRef | None = None
    for _ in range(300):
        chain = runtime.spawn(Link, chain)
    assert chain is not None
    assert chain.ask("how long?", timeout=GENEROUS) == 300
    statistics = threads_of(runtime).statistics()
    assert statistics.spares_started <= 300
    assert statistics.spares_exhausted == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_actors_that_block_unannounced_are_detected_and_others_run(make_runtime: Make, workers: int) -> None:
    runtime = make_runtime(workers=workers)
    freed = threading.Event()
    stuck = [runtime.spawn(Runner) for _ in range(2 * workers)]
    waiting = [ref.ask(lambda _: freed.wait(GENEROUS), block=False) for ref in stuck]
    runtime.spawn(Runner).tell(lambda _: freed.set())
    assert all(reply.get(timeout=GENEROUS) for reply in waiting)
    assert threads_of(runtime).statistics().spares_started >= 1


def test_the_monitor_that_fell_asleep_is_woken_by_work(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)
    runtime = make_runtime(workers=1)
    asleep = threading.Event()
    wake = threads_of(runtime)._wake_monitor
    wait = wake.wait

    def sleep(timeout: float | None = None) -> bool:
        asleep.set()
        return wait(timeout)

    monkeypatch.setattr(wake, "wait", sleep)
    for _ in range(3):
        assert asleep.wait(GENEROUS)
        asleep.clear()
        freed = threading.Event()
        stuck = runtime.spawn(Runner).ask(lambda _, freed=freed: freed.wait(GENEROUS), block=False)
        runtime.spawn(Runner).tell(lambda _, freed=freed: freed.set())
        assert stuck.get(timeout=GENEROUS)


def test_the_monitor_looks_a_few_times_after_a_short_piece_of_work_and_sleeps_again(make_runtime: Make) -> None:
    """The system works for a moment each second, also with nothing to do, so that this is what rest costs."""
    runtime = make_runtime(workers=1)
    dispatcher = threads_of(runtime)
    looks: list[bool] = []
    measure = dispatcher._measure

    def counted(now: float) -> None:
        looks.append(dispatcher._monitor_sleeps)
        measure(now)

    runner = runtime.spawn(Runner)
    eventually(lambda: dispatcher._monitor_sleeps, GENEROUS, "the monitor asleep")
    dispatcher._measure = counted  # type: ignore[method-assign]
    for _ in range(3):
        looks.clear()
        runner.ask(lambda _: None, timeout=GENEROUS)
        eventually(lambda: looks and dispatcher._monitor_sleeps, GENEROUS, "the monitor asleep again")
        assert len(looks) <= 30
        assert not any(looks), "a worker need not wake it while it looks"


def test_the_monitor_sleeps_after_so_many_looks_without_work_and_not_while_an_actor_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    wanted, done = 36, threading.Event()

    def note(step: str) -> None:
        steps.append(step)
        if len(steps) >= wanted:
            done.set()

    for name, parts in (("_TICK", 1), ("_CALM", 1), ("_QUIET", 10)):
        monkeypatch.setattr(module, name, parts / 1024)
    monkeypatch.setattr(ThreadedDispatcher, "_measure", lambda _self, _now: note("look"))
    monkeypatch.setattr(ThreadedDispatcher, "_sleep_until_work", lambda _self: note("sleep"))
    dispatcher = ThreadedDispatcher(workers=1, hold_warning=3600)
    (worker,) = dispatcher._all
    assert done.wait(GENEROUS)
    assert steps[:36] == 3 * [*(["look"] * 11), "sleep"]
    for looks in (3, 50):  # the look at which the actor began, and those after it
        wanted = looks
        worker.owner = object()  # type: ignore[assignment]
        steps.clear()
        done.clear()
        assert done.wait(GENEROUS)
    assert "sleep" not in steps
    worker.owner = None
    assert dispatcher.close(GENEROUS) == 0


@pytest.mark.parametrize("what", ["nothing", "something queued", "an actor running", "the end"])
def test_the_monitor_sleeps_only_while_nothing_is_to_be_done(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)
    dispatcher = ThreadedDispatcher(workers=2)
    sleeps: list[bool] = []
    monkeypatch.setattr(dispatcher._wake_monitor, "wait", lambda: sleeps.append(dispatcher._monitor_sleeps))
    if what == "something queued":
        dispatcher.enqueue(Mailbox(SimpleNamespace(), lambda _mailbox: None))
    elif what == "an actor running":
        next(iter(dispatcher._all)).owner = object()  # type: ignore[assignment]
    dispatcher._closed = what == "the end"
    dispatcher._sleep_until_work()
    assert sleeps == ([True] if what == "nothing" else [])
    assert not dispatcher._monitor_sleeps


def test_a_worker_sets_its_owner_before_it_checks_whether_the_monitor_sleeps() -> None:
    """Otherwise the monitor could fall asleep while a worker is about to get stuck, and would never be woken."""
    looks: list[bool] = []

    class Watched(ThreadedDispatcher):
        _sleeps = False

        @property
        def _monitor_sleeps(self) -> bool:
            worker = getattr(module._here, "worker", None)
            if worker is not None:
                looks.append(worker.owner is not None)
            return self._sleeps

        @_monitor_sleeps.setter
        def _monitor_sleeps(self, value: bool) -> None:
            self._sleeps = value

    dispatcher, timers = Watched(workers=1), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    runtime.spawn(Runner).ask(lambda _: None, timeout=GENEROUS)
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)
    assert looks
    assert all(looks)


def test_the_bound_on_spares_holds_and_refused_spares_are_counted(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, max_spares=2)
    freed = threading.Event()
    inside = threading.Semaphore(0)

    def block(_process: Any) -> bool:
        with blocking():
            inside.release()
            return freed.wait(GENEROUS)

    blocked = [runtime.spawn(Runner).ask(block, block=False) for _ in range(3)]
    for _ in blocked:
        assert inside.acquire(timeout=GENEROUS)
    later = runtime.spawn(Runner).ask(lambda _: "ran", block=False)
    statistics = threads_of(runtime).statistics()
    assert (statistics.workers, statistics.blocked, statistics.busy) == (3, 3, 3)
    assert (statistics.spares_started, statistics.spares_exhausted) == (2, 1)
    assert not later.is_done
    freed.set()
    assert all(reply.get(timeout=GENEROUS) for reply in blocked)
    assert later.get(timeout=GENEROUS) == "ran"


def test_a_system_without_more_threads_is_like_a_bound_on_spares(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(workers=1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def block(_process: Any) -> str:
        with blocking():
            return "went on"

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert runtime.spawn(Runner).ask(block, timeout=GENEROUS) == "went on"
    monkeypatch.undo()
    statistics = threads_of(runtime).statistics()
    assert (statistics.workers, statistics.spares_exhausted, statistics.spares_started) == (1, 1, 0)
    assert runtime.spawn(Runner).ask(block, timeout=GENEROUS) == "went on"


def test_spares_end_when_they_are_not_needed_any_more(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PARKED_FOR", 0.001)
    runtime = make_runtime(workers=2)
    dispatcher = threads_of(runtime)
    few = threading.Event()
    forget = dispatcher._forget

    def forgotten(worker: Any) -> None:
        forget(worker)
        if len(dispatcher._all) == 2:
            few.set()

    monkeypatch.setattr(dispatcher, "_forget", forgotten)
    refs = [runtime.spawn(Runner) for _ in range(20)]

    def chain(number: int) -> Callable[[Any], int]:
        return lambda _: 1 + (refs[number].ask(chain(number + 1), timeout=GENEROUS) if number < 20 else 0)

    assert refs[0].ask(chain(1), timeout=GENEROUS) == 20
    assert dispatcher.statistics().spares_started >= 18  # 20 wait at once, and there are 2 workers
    assert few.wait(GENEROUS)
    assert refs[0].ask(lambda _: "still there", timeout=GENEROUS) == "still there"


def test_waiting_may_be_announced_twice_and_outside_of_actors(runtime: Runtime) -> None:
    with blocking(), blocking():
        pass
    other = runtime.spawn(Runner)

    def twice(_process: Any) -> Any:
        with blocking(), blocking():
            return other.ask(lambda _: "inside", timeout=GENEROUS)

    assert runtime.spawn(Runner).ask(twice, timeout=GENEROUS) == "inside"
    assert threads_of(runtime).statistics().blocked == 0


def test_an_actor_that_pauses_lends_its_worker(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    dispatcher = threads_of(runtime)
    done = threading.Event()

    def pause_until_done(_process: Any) -> bool:
        while not done.is_set():
            dispatcher.pause(0.001)
        return True

    waiting = runtime.spawn(Runner).ask(pause_until_done, block=False)
    runtime.spawn(Runner).ask(lambda _: done.set(), timeout=GENEROUS)
    assert waiting.get(timeout=GENEROUS)
    dispatcher.pause(0)
    assert dispatcher.statistics().blocked == 0


def test_the_time_of_a_wait_is_neither_negative_nor_longer_than_a_lock_can_wait(make_runtime: Make) -> None:
    class Latch:
        def __init__(self) -> None:
            self.waits: list[float] = []

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking:
                self.waits.append(timeout)
            return False

    latch, dispatcher = Latch(), threads_of(make_runtime(workers=1))
    for seconds in (-3.0, 0.0, 0.25, 1e12, None):
        assert not dispatcher.wait(latch, seconds)
    assert latch.waits == [0.0, 0.0, 0.25, threading.TIMEOUT_MAX, -1]


def test_the_rate_is_of_the_messages_since_the_last_look(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    dispatcher.close(GENEROUS)  # the monitor looks no more
    dispatcher._retired_messages = 150
    dispatcher._sample = (100.0, 100)
    dispatcher._measure(100.5)
    assert dispatcher._rate == 0.0
    dispatcher._measure(101.0)
    assert (dispatcher._rate, dispatcher._sample) == (50.0, (101.0, 150))
    dispatcher._retired_messages = 200
    dispatcher._measure(103.0)
    assert (dispatcher._rate, dispatcher._sample) == (25.0, (103.0, 200))
    dispatcher._measure(105.0)
    assert dispatcher._rate == 0.0


def test_in_a_fork_it_neither_waits_nor_pauses(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    latch = threading.Lock()
    latch.acquire()
    assert not dispatcher.wait(latch, 0)
    pid = os.getpid()
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: pid + 1)
        for call in (lambda: dispatcher.wait(latch, 0), lambda: dispatcher.pause(0)):
            with pytest.raises(SystemForked, match=f"pid {pid}"):
                call()
        assert is_forked(dispatcher)
    dispatcher.pause(0)
    assert not is_forked(dispatcher)


@pytest.mark.parametrize("dispatcher", [None, object()])
def test_a_dispatcher_without_threads_of_its_own_is_in_every_process(dispatcher: Any) -> None:
    assert not is_forked(dispatcher)
    check_process(dispatcher)


# --- workers that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_base_exception_in_an_actor_crashes_only_that_actor(runtime: Runtime, kind: type[BaseException]) -> None:
    def fail(_process: Any) -> None:
        raise kind

    ref = runtime.spawn(Runner)
    with pytest.raises(kind):
        ref.ask(fail, timeout=GENEROUS)
    assert runtime.join(ref, GENEROUS)
    assert isinstance(runtime.exit_reason(ref), kind)
    assert threads_of(runtime).statistics().replaced == 0
    assert runtime.spawn(Runner).ask(lambda _: "others run", timeout=GENEROUS) == "others run"


def test_a_worker_that_dies_in_its_own_loop_is_replaced(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)

    class Deadly:
        def run(self, limit: int) -> int:
            raise SystemExit

    for _ in range(3):
        threads_of(runtime).enqueue(Mailbox(Deadly(), lambda _mailbox: None))
    assert runtime.spawn(Runner).ask(lambda _: "runs", timeout=GENEROUS) == "runs"
    statistics = threads_of(runtime).statistics()
    assert (statistics.replaced, statistics.workers) == (3, 1)


# --- order and exclusion ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restless")
def test_an_actor_never_runs_on_two_workers_at_once_and_keeps_each_senders_order(make_runtime: Make) -> None:
    runtime = make_runtime(workers=4, throughput=3)
    overlaps: list[str] = []

    class Careful(Process):
        in_pykka_registry = False

        def __init__(self) -> None:
            super().__init__()
            self.inside = threading.Lock()
            self.got: list[tuple[int, int]] = []

        def on_receive(self, message: Any) -> Any:
            if not self.inside.acquire(blocking=False):
                overlaps.append(self.label)
            if message == "report":
                report = list(self.got)
                self.inside.release()
                return report
            if message[1] % 100 == 0:
                with blocking():
                    pass
            self.got.append(message)
            self.inside.release()
            return None

    actors = [runtime.spawn(Careful) for _ in range(3)]
    # a call is handled after the messages that its sender sent before
    senders = [threading.Thread(target=_send, args=(sender, actors)) for sender in range(4)]
    for thread in senders:
        thread.start()
    for thread in senders:
        thread.join(GENEROUS)
    assert overlaps == []
    for actor in actors:
        got = actor.ask("report", timeout=GENEROUS)
        for sender in range(4):
            assert [number for who, number in got if who == sender] == list(range(500))


def _send(sender: int, actors: list[ProcessRef]) -> None:
    for number in range(500):
        for actor in actors:
            actor.tell((sender, number))
    for actor in actors:
        actor.ask("report", timeout=GENEROUS)


def test_throughput_gives_other_actors_their_turn(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, throughput=5, max_spares=0)
    order: list[str] = []
    release = threading.Event()
    holder, busy, other = (runtime.spawn(Runner) for _ in range(3))
    held = holder.ask(lambda _: release.wait(GENEROUS), block=False)
    for _ in range(20):
        busy.tell(lambda _: order.append("busy"))
    over = other.ask(lambda _: order.append("other"), block=False)
    release.set()
    held.get(timeout=GENEROUS)
    over.get(timeout=GENEROUS)
    busy.ask(lambda _: None, timeout=GENEROUS)
    assert order == ["busy"] * 5 + ["other"] + ["busy"] * 15


# --- watching --------------------------------------------------------------------------------------------------------


def test_an_actor_that_holds_its_worker_is_named_in_the_log_once(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, hold_warning=0.01)
    warned = threading.Event()
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            warned.set()

    handler = Handler()
    logger = logging.getLogger("penstock")
    logger.addHandler(handler)
    try:
        ref = runtime.spawn(Runner, name="the slow one")
        assert ref.ask(lambda _: warned.wait(GENEROUS), timeout=GENEROUS)
        runtime.spawn(Runner).ask(lambda _: None, timeout=GENEROUS)
    finally:
        logger.removeHandler(handler)
    named = [record.penstock["actor"] for record in records]  # type: ignore[attr-defined]
    assert named.count("the slow one") == 1
    statistics = threads_of(runtime).statistics()
    assert statistics.held == len(named)
    assert statistics.spares_started == 0, "no other actor waited"


@pytest.mark.parametrize("is_over", [True, False])
def test_a_worker_that_has_announced_that_it_waits_or_has_ended_its_turn_holds_nothing(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, is_over: bool
) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    worker = module._Worker()
    worker.owner = None if is_over else object()  # type: ignore[assignment]
    worker.blocked = int(not is_over)
    dispatcher._warn(worker, 2.0)
    assert dispatcher.statistics().held == 0
    assert caplog.records == []


def test_an_actor_whose_str_raises_does_not_end_the_monitor(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, hold_warning=0.01)
    asked = threading.Event()

    class Nameless(Runner):
        def __str__(self) -> str:
            asked.set()
            raise LookupError

    assert runtime.spawn(Nameless).ask(lambda _: asked.wait(GENEROUS), timeout=GENEROUS)
    freed = threading.Event()
    stuck = runtime.spawn(Runner).ask(lambda _: freed.wait(GENEROUS), block=False)
    runtime.spawn(Runner).tell(lambda _: freed.set())
    assert stuck.get(timeout=GENEROUS)


def test_statistics_count_workers_and_messages(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, max_spares=0)
    inside, freed = threading.Event(), threading.Event()

    def hold(_process: Any) -> bool:
        inside.set()
        return freed.wait(GENEROUS)

    held = runtime.spawn(Runner).ask(hold, block=False)
    assert inside.wait(GENEROUS)
    others = [runtime.spawn(Runner).ask(lambda _: 1, block=False) for _ in range(5)]
    statistics = threads_of(runtime).statistics()
    assert (statistics.workers, statistics.busy, statistics.blocked, statistics.queued) == (1, 1, 0, 5)
    freed.set()
    assert held.get(timeout=GENEROUS)
    assert [reply.get(timeout=GENEROUS) for reply in others] == [1] * 5
    runtime.spawn(Runner).ask(lambda _: None, timeout=GENEROUS)  # a turn later, all messages are counted
    statistics = threads_of(runtime).statistics()
    assert (statistics.queued, statistics.leaked, statistics.replaced) == (0, 0, 0)
    assert statistics.messages >= 6


# --- the end ---------------------------------------------------------------------------------------------------------


def test_close_ends_every_thread_spares_included(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    dispatcher, timers = ThreadedDispatcher(workers=3), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    refs = [runtime.spawn(Runner) for _ in range(10)]

    def chain(number: int) -> Callable[[Any], Any]:
        return lambda _: refs[number].ask(chain(number + 1), timeout=GENEROUS) if number < 10 else "end"

    assert refs[0].ask(chain(1), timeout=GENEROUS) == "end"
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)
    assert set(threading.enumerate()) <= before
    assert caplog.records == [], "no worker has died"
    statistics = dispatcher.statistics()
    assert (statistics.leaked, statistics.workers) == (0, 0)
    assert statistics.messages >= 10, "those of threads that have ended count too"
    assert dispatcher.close(GENEROUS) == 0


def test_close_reports_a_thread_that_is_stuck_as_leaked() -> None:
    dispatcher, timers = ThreadedDispatcher(workers=2), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    inside, freed = threading.Event(), threading.Event()
    stuck_in: list[threading.Thread] = []

    def hold(_process: Any) -> None:
        stuck_in.append(threading.current_thread())
        inside.set()
        freed.wait(GENEROUS)

    runtime.spawn(Runner).tell(hold)
    assert inside.wait(GENEROUS)
    runtime.close()
    assert dispatcher.statistics().leaked == 1
    assert dispatcher.close(0.05) == 1
    assert dispatcher.statistics().leaked == 1
    freed.set()
    stuck_in[0].join(GENEROUS)
    assert not stuck_in[0].is_alive()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def test_close_waits_no_longer_than_its_timeout_for_all_threads_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self, seconds: float) -> None:
            self._seconds = seconds
            self.waits: list[float] = []

        def join(self, timeout: float) -> None:
            self.waits.append(timeout)
            clock.now += self._seconds

        def is_alive(self) -> bool:
            return True

    dispatcher = ThreadedDispatcher(workers=1)
    stuck = [Stuck(7.0), Stuck(7.0)]
    assert dispatcher.close(GENEROUS) == 0
    clock = SimpleNamespace(now=100.0)
    for thread in stuck:
        worker: Any = module._Worker()
        worker.thread = thread
        dispatcher._all.add(worker)
    with monkeypatch.context() as patched:
        patched.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
        assert dispatcher.close(5.0) == 2
    assert sorted(wait for thread in stuck for wait in thread.waits) == [0.0, 5.0]


def test_an_actor_may_close_the_dispatcher_it_runs_on() -> None:
    dispatcher, timers = ThreadedDispatcher(workers=2), TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    assert runtime.spawn(Runner).ask(lambda _: dispatcher.close(GENEROUS), timeout=GENEROUS) == 0
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def test_calls_after_everything_is_closed_are_answered_at_once(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    ref = runtime.spawn(Runner)
    runtime.close()
    threads_of(runtime).close(GENEROUS)
    with pytest.raises(Exception, match="is dead"):
        ref.ask(lambda _: None)
    assert runtime.join(ref)


def test_two_runtimes_in_one_process_are_independent(make_runtime: Make) -> None:
    one, two = make_runtime(workers=1, max_spares=1, name="one"), make_runtime(workers=1, max_spares=1, name="two")
    here, there = one.spawn(Runner, name="it"), two.spawn(Runner, name="it")
    assert (one.whereis("it"), two.whereis("it")) == (here, there)
    back = one.spawn(Runner)
    # while it waits for the other runtime's actor, a spare thread takes its worker's place and handles the call back
    there_and_back = here.ask(
        lambda _: there.ask(lambda _: back.ask(lambda _: "back", timeout=GENEROUS), timeout=GENEROUS), timeout=GENEROUS
    )
    assert there_and_back == "back"
    one.close()
    assert there.ask(lambda _: "alive", timeout=GENEROUS) == "alive"
    assert not one.is_alive(there)


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": 65}, {"throughput": 0}, {"max_spares": -1}, {"hold_warning": 0}]
)
def test_options_out_of_range_are_refused_and_start_no_thread(options: dict[str, Any]) -> None:
    before = threading.active_count()
    with pytest.raises(OptionError, match=next(iter(options))):
        ThreadedDispatcher(**options)
    assert threading.active_count() == before


def test_an_actor_that_works_for_less_than_the_limit_is_not_named_in_the_log(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor sees it in the same turn many times, and the worker is held only for that."""
    look_often(monkeypatch)
    runtime = make_runtime(workers=1, hold_warning=GENEROUS)
    dispatcher = threads_of(runtime)
    seen = threading.Event()
    looks = 0
    measure = dispatcher._measure

    def look(now: float) -> None:
        nonlocal looks
        measure(now)
        looks += 1
        if looks >= 50:
            seen.set()

    monkeypatch.setattr(dispatcher, "_measure", look)
    assert runtime.spawn(Runner).ask(lambda _: seen.wait(GENEROUS), timeout=GENEROUS)
    assert dispatcher.statistics().held == 0


def test_a_worker_that_dies_while_its_place_is_lent_does_not_count_twice(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(workers=1)
    dispatcher = threads_of(runtime)
    replaced = threading.Event()
    forget = dispatcher._forget

    def forgotten(worker: Any) -> None:
        forget(worker)
        replaced.set()

    monkeypatch.setattr(dispatcher, "_forget", forgotten)

    class Owner:
        """Ends the worker that runs it, after a spare has taken the worker's place."""

        def run(self, limit: int) -> int:
            dispatcher.lend(module._here.worker)
            raise SystemExit

    dispatcher.enqueue(Mailbox(Owner(), lambda _mailbox: None))
    assert replaced.wait(GENEROUS)
    assert runtime.spawn(Runner).ask(lambda _: "still there", timeout=GENEROUS) == "still there"
    with dispatcher._lock:
        counted = len([worker for worker in dispatcher._all if not worker.lent and worker not in dispatcher._parked])
        assert dispatcher._running == counted


def test_a_worker_that_waits_within_a_wait_has_its_place_again_after_the_outer_one(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=1, max_spares=1))
    worker = next(iter(dispatcher._all))
    dispatcher.lend(worker)
    dispatcher.lend(worker)
    assert (dispatcher.statistics().spares_started, dispatcher._running) == (1, 1)
    dispatcher.reclaim(worker)
    assert (worker.lent, worker.blocked) == (True, 1)
    dispatcher.reclaim(worker)
    assert (worker.lent, worker.blocked) == (False, 0)


def test_it_knows_the_loops_whose_threads_wait_for_it_and_takes_any_but_those_of_a_fork(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    blocked: list[bool] = []

    class Latch:
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking:
                blocked.append(dispatcher.blocks(asyncio.get_running_loop()))
            return blocking

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert not dispatcher.blocks(loop)
        assert dispatcher.wait(Latch(), 1.0)
        assert not dispatcher.blocks(loop)
        dispatcher.check_loop(loop)
        monkeypatch.setattr(dispatcher, "pid", -1)
        with pytest.raises(SystemForked):
            dispatcher.check_loop(loop)

    asyncio.run(main())
    assert blocked == [True]


def test_a_worker_whose_place_was_lent_takes_it_back_after_its_turn_and_stays_if_it_is_needed(
    make_runtime: Make,
) -> None:
    dispatcher = threads_of(make_runtime(workers=1, max_spares=0))
    (worker,) = dispatcher._all
    with dispatcher._lock:
        dispatcher._hand_over(worker)  # as the monitor does
    assert (worker.lent, dispatcher._running) == (True, 0)
    assert dispatcher._stay(worker) is True
    assert (worker.lent, dispatcher._running) == (False, 1)


def test_a_closed_dispatcher_neither_adds_a_thread_nor_replaces_one_that_dies() -> None:
    dispatcher = ThreadedDispatcher(workers=1)
    inside, freed = threading.Event(), threading.Event()

    class Stuck:
        """Is stuck, then blocks, then ends its worker; it is no actor that could be dead."""

        def run(self, limit: int) -> int:
            inside.set()
            freed.wait(GENEROUS)
            with blocking():
                pass
            raise SystemExit

    dispatcher.enqueue(Mailbox(Stuck(), lambda _mailbox: None))
    assert inside.wait(GENEROUS)
    (worker,) = dispatcher._all
    assert dispatcher.close(0.0) == 1
    assert dispatcher.statistics().leaked == 1
    freed.set()
    assert worker.thread is not None
    worker.thread.join(GENEROUS)
    statistics = dispatcher.statistics()
    assert (statistics.workers, statistics.spares_started, statistics.replaced) == (0, 0, 0)
    assert dispatcher.close(GENEROUS) == 0


class Park:
    """What a spare thread that is not needed waits at."""

    def __init__(self, wait: Callable[[], bool]) -> None:
        self._wait = wait
        self.waits: list[float] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.waits.append(timeout)
        return timeout == -1 or self._wait()


@pytest.mark.parametrize("how", ["not needed", "needed", "needed as it was about to end"])
def test_a_thread_too_many_waits_for_a_while_whether_it_is_needed_and_ends_if_not(make_runtime: Make, how: str) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    (own,) = dispatcher._all
    worker: Any = module._Worker()
    worker.messages = 7
    with dispatcher._lock:
        dispatcher._all.add(worker)
        dispatcher._running += 1

    def wait() -> bool:
        assert (dispatcher._parked, dispatcher._running) == ([worker], 1)
        if how != "not needed":  # as another thread does that blocks
            assert dispatcher._parked.pop() is worker
            dispatcher._running += 1
        return how == "needed"

    worker.park = Park(wait)
    assert dispatcher._stay(worker) is (how != "not needed")
    assert worker.park.waits == [module._PARKED_FOR, *([-1] if how == "needed as it was about to end" else [])]
    with dispatcher._lock:
        assert dispatcher._parked == []
        assert dispatcher._all == ({own} if how == "not needed" else {own, worker})
        assert dispatcher._running == len(dispatcher._all)
        assert dispatcher._messages() == 7
        if how != "not needed":
            dispatcher._forget(worker)


def test_a_place_is_handed_to_a_parked_thread_before_a_new_one_and_to_nobody_if_enough_run(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=1, max_spares=0))
    (own,) = dispatcher._all
    parked = module._Worker()
    with dispatcher._lock:
        dispatcher._all.add(parked)
        dispatcher._parked.append(parked)
        dispatcher._hand_over(own)
        assert (own.lent, dispatcher._parked, dispatcher._running) == (True, [], 1)
        assert parked.park.acquire(blocking=False)
        dispatcher._running += 1
        dispatcher._parked.append(parked)
        dispatcher._hand_over(parked)  # one is enough
        assert (parked.lent, dispatcher._parked, dispatcher._running) == (True, [parked], 1)
        assert not parked.park.acquire(blocking=False)
        dispatcher._parked.clear()
        dispatcher._all.discard(parked)
        assert (dispatcher._spares_started, dispatcher._spares_exhausted) == (0, 0)
        own.lent = False


def test_the_bound_on_spares_is_of_all_threads(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=1, max_spares=1))
    (own,) = dispatcher._all
    dispatcher.lend(own)
    assert (dispatcher._running, len(dispatcher._all)) == (1, 2)
    (spare,) = dispatcher._all - {own}
    dispatcher.lend(spare)
    statistics = dispatcher.statistics()
    assert (statistics.workers, statistics.blocked, statistics.busy) == (2, 2, 0)
    assert (statistics.spares_started, statistics.spares_exhausted, dispatcher._running) == (1, 1, 0)
    dispatcher.reclaim(spare)
    dispatcher.reclaim(own)
    assert (dispatcher._running, dispatcher.statistics().blocked) == (2, 0)


@pytest.mark.parametrize(
    ("name", "lowest", "highest", "is_whole"),
    [
        ("workers", 1, 64, True),
        ("throughput", 1, 1_000_000, True),
        ("max_spares", 0, 10_000, True),
        ("hold_warning", 0.01, 3600, False),
    ],
)
def test_the_bounds_of_an_option_are_allowed_and_nothing_beyond_or_between(
    monkeypatch: pytest.MonkeyPatch, name: str, lowest: Any, highest: Any, is_whole: bool
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)  # only the options are looked at
    for value in (lowest, highest, *([] if is_whole else [highest - 0.5])):
        ThreadedDispatcher(**{name: value})
    for value in (lowest - 0.001, lowest - 1, highest + 1, *([lowest + 0.5] if is_whole else [])):
        with pytest.raises(OptionError, match=name):
            ThreadedDispatcher(**{name: value})


def test_without_options_there_are_two_workers_and_no_thread_keeps_the_program_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)
    dispatcher = ThreadedDispatcher()
    options = (dispatcher._target, dispatcher._throughput, dispatcher._max_spares, dispatcher._hold_warning)
    assert options == (2, 64, 256, 1.0)
    assert dispatcher._sample[1] == 0, "the first rate is of all messages"
    threads = [dispatcher._monitor, *(worker.thread for worker in dispatcher._all)]
    assert {thread.name for thread in threads if thread is not None} == {
        "penstock-monitor", "penstock-worker-1", "penstock-worker-2"
    }  # fmt: skip
    assert all(thread is not None and thread.daemon for thread in threads)


def test_a_worker_that_has_its_place_again_before_its_wait_is_over_gets_no_second_one(make_runtime: Make) -> None:
    """A wait may outlast the turn that it began in, for instance in a generator."""
    dispatcher = threads_of(make_runtime(workers=1, max_spares=0))
    (worker,) = dispatcher._all
    dispatcher.lend(worker)
    assert dispatcher._stay(worker)
    dispatcher.reclaim(worker)
    assert (worker.lent, worker.blocked, dispatcher._running) == (False, 0, 1)


def test_a_dispatcher_that_gets_no_thread_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="could not start a thread"):
        ThreadedDispatcher()


def test_a_worker_counts_its_turns_and_takes_a_place_back_that_the_monitor_gave_away(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = threads_of(make_runtime(workers=1, max_spares=0))
    monkeypatch.setattr(dispatcher, "_compensate", lambda stuck: None)  # the test does what the monitor would do
    turns: list[tuple[int, bool, int]] = []
    over = threading.Event()

    class Owner:
        def run(self, limit: int) -> int:
            worker = module._here.worker
            with dispatcher._lock:
                turns.append((worker.slices, worker.lent, dispatcher._running))
                if len(turns) == 2:
                    dispatcher._hand_over(worker)
            if len(turns) == 3:
                over.set()
            return 1

    for _ in range(3):
        dispatcher.enqueue(Mailbox(Owner(), lambda _mailbox: None))
    assert over.wait(GENEROUS)
    assert turns == [(0, False, 1), (1, False, 1), (2, False, 1)]


def test_by_default_there_are_two_workers_that_take_64_messages_a_turn(make_runtime: Make) -> None:
    assert threads_of(make_runtime()).statistics().workers == 2

    runtime = make_runtime(workers=1, max_spares=0)
    order: list[str] = []
    release = threading.Event()
    holder, busy, other = (runtime.spawn(Runner) for _ in range(3))
    held = holder.ask(lambda _: release.wait(GENEROUS), block=False)
    for _ in range(100):
        busy.tell(lambda _: order.append("busy"))
    over = other.ask(lambda _: order.append("other"), block=False)
    release.set()
    held.get(timeout=GENEROUS)
    over.get(timeout=GENEROUS)
    busy.ask(lambda _: None, timeout=GENEROUS)
    assert order == ["busy"] * 64 + ["other"] + ["busy"] * 36


def test_a_worker_that_waits_for_work_keeps_nothing_of_the_process_that_it_ran_last(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    ref = runtime.spawn(Runner)
    ref.ask(lambda _: None, timeout=GENEROUS)
    left: list[Callable[[], object]] = [weakref.ref(ref), weakref.ref(ref.actor_inbox), ref._actor_weakref]
    ref.terminate(timeout=GENEROUS)
    del ref
    eventually(lambda: [one() for one in left] == [None, None, None], GENEROUS)


def test_no_more_than_256_spares_are_added_by_default(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    freed, inside = threading.Event(), threading.Semaphore(0)

    def block(_process: Any) -> bool:
        with blocking():
            inside.release()
            return freed.wait(GENEROUS)

    blocked = [runtime.spawn(Runner).ask(block, block=False) for _ in range(257)]
    for _ in blocked:
        assert inside.acquire(timeout=GENEROUS)
    statistics = threads_of(runtime).statistics()
    freed.set()
    assert all(reply.get(timeout=GENEROUS) for reply in blocked)
    assert (statistics.spares_started, statistics.spares_exhausted) == (256, 1)


def test_a_worker_that_runs_a_dead_actor_is_leaked_and_others_are_not(make_runtime: Make) -> None:
    runtime = make_runtime(workers=2)
    freed = threading.Event()
    inside = threading.Semaphore(0)

    def hold(_process: Any) -> bool:
        inside.release()
        return freed.wait(GENEROUS)

    dead, alive = runtime.spawn(Runner), runtime.spawn(Runner)
    dead.tell(hold)
    alive.tell(hold)
    for _ in range(2):
        assert inside.acquire(timeout=GENEROUS)
    runtime.exit(dead, "kill")
    leaked = threads_of(runtime).statistics().leaked
    freed.set()
    assert leaked == 1


def test_the_log_names_the_thread_that_an_actor_holds(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make_runtime(workers=1, hold_warning=0.01, name="mine")
    caplog.set_level(logging.WARNING, "penstock")
    dispatcher = threads_of(runtime)
    warned = threading.Event()
    warn = dispatcher._warn

    def found() -> list[str]:
        fields: list[Any] = [record.penstock for record in caplog.records]  # type: ignore[attr-defined]
        return [one["worker"] for one in fields if one["actor"] == "the slow one"]

    def warning(*args: Any) -> None:
        warn(*args)
        if found():
            warned.set()

    monkeypatch.setattr(dispatcher, "_warn", warning)
    slow = runtime.spawn(Runner, name="the slow one")
    thread = slow.ask(lambda _: (warned.wait(GENEROUS), threading.current_thread().name)[1], timeout=GENEROUS)
    assert found() == [thread]
    assert thread.startswith("mine-worker-")


def test_a_wait_for_what_is_there_already_takes_no_spare_and_leaves_nothing(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    dispatcher = threads_of(runtime)
    wait = dispatcher.wait
    assert runtime.spawn(Runner).ask(lambda _: wait(threading.Lock(), None), timeout=GENEROUS) is True
    assert dispatcher.statistics().spares_started == 0
    taken = threading.Lock()
    taken.acquire()
    assert wait(taken, 0) is False
    assert dispatcher._blocked_loops == []


def test_only_the_threads_that_run_actors_are_workers(make_runtime: Make) -> None:
    assert make_runtime(workers=1).spawn(Runner).ask(lambda _: on_worker(), timeout=GENEROUS) is True
    assert on_worker() is False


def test_the_thread_that_forked_is_no_worker_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._here, "worker", module._Worker(), raising=False)
    assert on_worker()
    module._forget_worker()
    assert not on_worker()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_has_no_worker() -> None:
    script = """
import os, sys
from penstock.actors.runtime import dispatcher
dispatcher._here.worker = object()
if (pid := os.fork()) == 0:
    os._exit(7 if not dispatcher.on_worker() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7


def test_the_time_of_a_pause_is_not_negative(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    slept: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(module, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic))
        for seconds in (-1.0, 0.0, 0.25):
            dispatcher.pause(seconds)
    assert slept == [0.0, 0.0, 0.25]


def test_after_the_end_no_worker_parks(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PARKED_FOR", 0.001)
    dispatcher = threads_of(make_runtime(workers=1))
    assert dispatcher.close(GENEROUS) == 0
    dispatcher._running = 2
    assert dispatcher._stay(module._Worker())
    assert dispatcher._parked == []


def test_actors_that_are_queued_at_the_end_do_not_run_any_more(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, max_spares=0)
    inside, freed = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold(_process: Any) -> None:
        inside.set()
        freed.wait(GENEROUS)

    runtime.spawn(Runner).tell(hold)
    assert inside.wait(GENEROUS)
    runtime.spawn(Runner).tell(lambda _: ran.append("queued"))
    assert threads_of(runtime).close(0) == 1
    freed.set()
    assert threads_of(runtime).close(GENEROUS) == 0
    assert ran == []


class Looks:
    """Counts the monitor's looks."""

    def __init__(self, dispatcher: ThreadedDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        measure = dispatcher._measure

        def look(now: float) -> None:
            measure(now)
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._done.set()

        monkeypatch.setattr(dispatcher, "_measure", look)

    def wait(self, count: int) -> bool:
        with self._lock:
            self._left = count
            self._done.clear()
        return self._done.wait(GENEROUS)


def test_an_actor_that_holds_its_worker_is_named_once_however_often_the_monitor_looks(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look_often(monkeypatch)
    runtime = make_runtime(workers=1, hold_warning=0.01)
    looks = Looks(threads_of(runtime), monkeypatch)
    warned = threading.Event()
    warn = threads_of(runtime)._warn

    def named() -> list[float]:
        fields: list[Any] = [record.penstock for record in caplog.records]  # type: ignore[attr-defined]
        return [one["seconds"] for one in fields if one["actor"] == "the slow one"]

    def warning(*args: Any) -> None:
        warn(*args)
        if named():
            warned.set()

    monkeypatch.setattr(threads_of(runtime), "_warn", warning)
    slow = runtime.spawn(Runner, name="the slow one")
    assert slow.ask(lambda _: warned.wait(GENEROUS) and looks.wait(50), timeout=3 * GENEROUS)
    (seconds,) = named()
    assert 0.01 <= seconds < GENEROUS


def test_the_monitor_goes_on_when_all_workers_wait_and_no_spare_is_left(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_often(monkeypatch)
    runtime = make_runtime(workers=1, max_spares=0)
    looks = Looks(threads_of(runtime), monkeypatch)
    inside, freed = threading.Event(), threading.Event()

    def block(_process: Any) -> bool:
        with blocking():
            inside.set()
            return freed.wait(GENEROUS)

    blocked = runtime.spawn(Runner).ask(block, block=False)
    assert inside.wait(GENEROUS)
    queued = runtime.spawn(Runner).ask(lambda _: "ran", block=False)
    assert looks.wait(50)
    freed.set()
    assert blocked.get(timeout=GENEROUS)
    assert queued.get(timeout=GENEROUS) == "ran"


@pytest.mark.parametrize(
    ("gets_on", "is_queued", "is_stuck"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_a_worker_that_stays_in_one_turn_is_stuck_if_another_actor_waits(
    monkeypatch: pytest.MonkeyPatch, gets_on: bool, is_queued: bool, is_stuck: bool
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)
    dispatcher = ThreadedDispatcher(workers=1)
    (worker,) = dispatcher._all
    worker.owner = object()  # type: ignore[assignment]
    if is_queued:
        dispatcher.enqueue(Mailbox(SimpleNamespace(), lambda _mailbox: None))
    looks = iter(range(5))

    def wait(seconds: float) -> bool:
        worker.slices += gets_on
        return next(looks, None) is None

    stuck: list[Any] = []
    monkeypatch.setattr(dispatcher._ending, "wait", wait)
    monkeypatch.setattr(dispatcher, "_compensate", stuck.append)
    dispatcher._watch()
    assert stuck == ([[worker]] * 4 if is_stuck else [])


def test_no_spare_is_added_for_a_worker_whose_turn_is_over_meanwhile(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=1))
    dispatcher._compensate(list(dispatcher._all))
    assert dispatcher.statistics().spares_started == 0


def test_the_rate_is_up_to_date_though_the_monitor_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: None)  # there is no monitor at all
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    dispatcher = ThreadedDispatcher(workers=1)
    (worker,) = dispatcher._all
    worker.messages, now = 100, 102.0
    assert dispatcher.statistics().messages_per_second == 50.0


def test_no_spare_is_added_while_another_worker_gets_on(make_runtime: Make) -> None:
    dispatcher = threads_of(make_runtime(workers=2))
    stuck = next(iter(dispatcher._all))
    stuck.owner = object()  # type: ignore[assignment]
    dispatcher._compensate([stuck])
    stuck.owner = None
    assert dispatcher.statistics().spares_started == 0


def test_the_monitor_looks_less_often_while_no_actor_waits_for_a_worker(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(workers=1, max_spares=0)
    dispatcher = threads_of(runtime)
    wait, waits = dispatcher._ending.wait, Rhythm()

    def noted(seconds: float) -> bool:
        waits.note(seconds)
        return wait(0.0002)

    inside, freed = threading.Event(), threading.Event()

    def block(_process: Any) -> bool:
        inside.set()
        return freed.wait(GENEROUS)

    blocker = runtime.spawn(Runner)
    blocker.tell(block)
    assert inside.wait(GENEROUS)
    monkeypatch.setattr(dispatcher._ending, "wait", noted)
    assert waits.settle_at(0.025)
    runtime.spawn(Runner).tell(lambda _: None)
    assert waits.settle_at(0.005)
    freed.set()
    assert waits.settle_at(0.025)


class Rhythm:
    """How long the monitor waits between two looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0.0
        self._seen = threading.Event()

    def note(self, seconds: float) -> None:
        with self._lock:
            if seconds == self._wanted:
                self._seen.set()

    def settle_at(self, seconds: float) -> bool:
        with self._lock:
            self._wanted = seconds
            self._seen.clear()
        return self._seen.wait(GENEROUS)
