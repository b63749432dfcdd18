"""Streams on real threads: producers, slow and broken subscribers, iterators, all at once."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pykka
import pytest

import penstock
from penstock.actors.runtime.process import Process
from penstock.actors.stream.messages import Complete
from penstock.actors.stream.outcome import Outcome
from penstock.config.options import Slow, StreamOptions
from penstock.errors import BufferFull, StreamClosed
from penstock.events import Disconnected, StreamCompleted, TokenEvent
from penstock.testing import check_log, eventually
from tests.unit.flow.common import Reader

GENEROUS = 30.0
FAST = StreamOptions(rate_limit=None, flush_interval=0.01)


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System() as system:
        yield system


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that give way after every few instructions, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Crew:
    """Threads whose exceptions are the test's."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.failed: list[BaseException] = []

    def start(self, work: Callable[..., object], *args: Any) -> None:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:
                self.failed.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(GENEROUS)
            assert not thread.is_alive()
        assert self.failed == []


def push_one_by_one(stream: penstock.Stream, count: int) -> None:
    for _ in range(count):
        stream.process_token("x", GENEROUS)


def ended(events: list[Any]) -> bool:
    return bool(events) and isinstance(events[-1], StreamCompleted)


def read_all(events: penstock.Events, reader: Reader) -> None:
    while True:
        try:
            reader.read(events.next(timeout=GENEROUS))
        except StopIteration:
            return


class Sink(Process):
    in_pykka_registry = False

    def __init__(self, got: list[Any]) -> None:
        super().__init__()
        self._got = got

    def on_receive(self, message: Any) -> None:
        self._got.append(message)


class ForeignSink(pykka.ThreadingActor):
    def __init__(self, got: list[Any], gate: threading.Event | None = None, stop_at: int = 0) -> None:
        super().__init__()
        self._got = got
        self._gate = gate
        self._stop_at = stop_at

    def on_receive(self, message: Any) -> None:
        if self._gate is not None:
            self._gate.wait(GENEROUS)
        self._got.append(message)
        if self._stop_at and message.seq >= self._stop_at:
            self.stop()


class GatedSink(Process):
    in_pykka_registry = False

    def __init__(self, got: list[Any], gate: threading.Event) -> None:
        super().__init__()
        self._got = got
        self._gate = gate

    def on_receive(self, message: Any) -> None:
        self._gate.wait(GENEROUS)
        self._got.append(message)


# --- producers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [10, 100])
def test_of_many_producers_nothing_is_lost_each_is_in_order_and_the_bound_holds(
    system: penstock.System, restless: None, bound: int
) -> None:
    stream = system.open_stream(options=FAST.replace(max_buffer_size=bound, retain_bytes=1 << 30))
    producers, each = 6, 400
    crew = Crew()
    sizes: list[int] = []

    def produce(number: int) -> None:
        place = 0
        while place < each:
            if place % 3:
                stream.process_token(f"{number}:{place} ", GENEROUS)
                place += 1
            else:
                count = min(7, each - place)
                stream.process_tokens([f"{number}:{place + more} " for more in range(count)], GENEROUS)
                place += count
            sizes.append(stream.statistics().buffer_size)

    for number in range(producers):
        crew.start(produce, number)
    crew.join()
    stream.stop(GENEROUS)
    check_log(stream)
    seen: dict[str, list[int]] = {}
    for token in stream.text.split():
        producer, _, place = token.partition(":")
        seen.setdefault(producer, []).append(int(place))
    assert seen == {str(number): list(range(each)) for number in range(producers)}
    statistics = stream.statistics()
    assert max(sizes) <= bound
    assert statistics.buffer_high_water_mark <= bound
    assert statistics.tokens_processed == statistics.tokens_delivered == producers * each


def test_over_real_time_no_more_goes_out_than_the_rate_allows_whoever_pushes(system: penstock.System) -> None:
    options = StreamOptions(rate_limit=2000.0, batch_size=20, flush_interval=0.001, retain_bytes=1 << 30)
    stream = system.open_stream(options=options)
    crew = Crew()
    for _ in range(3):
        crew.start(push_one_by_one, stream, 200)
    crew.join()
    stream._record.ref.tell(Complete(Outcome()))  # type: ignore[union-attr]
    stream.result(GENEROUS)
    events = [event for event in stream._record.log if isinstance(event, TokenEvent)]
    assert max(len(event.tokens) for event in events) <= 20
    for first in range(0, len(events), 7):
        total = 0
        for event in events[first:]:
            total += len(event.tokens)
            window = event.timestamp - events[first].timestamp
            assert total <= 2000 * (window + 0.002) + 20  # the wall clock that stamps is not the one that paces


def test_without_room_in_time_a_producer_is_told_so(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(max_buffer_size=10))
    stream.pause()
    with pytest.raises(BufferFull) as caught:
        stream.process_tokens("x" * 12, timeout=0.01)
    assert caught.value.accepted == 10
    stream.resume()
    stream.process_token("x", GENEROUS)
    stream.stop()
    assert stream.text == "x" * 11


@pytest.mark.parametrize("how", ["stop", "cancel", "crash"])
def test_a_producer_that_waits_hears_of_the_end(system: penstock.System, how: str) -> None:
    stream = system.open_stream(options=FAST.replace(max_buffer_size=10))
    stream.pause()
    stream.process_tokens("x" * 10)
    told: list[BaseException] = []

    def produce() -> None:
        try:
            stream.process_token("y", GENEROUS)
        except StreamClosed as error:
            told.append(error)

    crew = Crew()
    for _ in range(3):
        crew.start(produce)
    eventually(lambda: stream.statistics().backpressure_events >= 3)
    if how == "crash":
        system.runtime.exit(stream._record.ref, "kill")  # type: ignore[arg-type]
    else:
        getattr(stream, how)()
    crew.join()
    assert len(told) == 3


# --- subscribers that hold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "foreign", "iterator", "callback"])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_slow_block_subscriber_holds_and_lets_go_thousands_of_times_without_a_lost_wake_up(
    system: penstock.System, restless: None, kind: str, window: int
) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1, max_buffer_size=4, retain_bytes=1 << 30))
    got: list[Any] = []
    crew = Crew()
    foreign: Any = None
    if kind == "process":
        stream.subscribe(system.runtime.spawn(Sink, got), "block", window=window)
    elif kind == "callback":
        stream.subscribe(got.append, "block", window=window)
    elif kind == "foreign":
        foreign = ForeignSink.start(got)
        stream.subscribe(foreign, "block", window=window)
    else:
        reader = Reader()
        crew.start(read_all, stream.events(slow="block", window=window), reader)
        got = reader.events
    count = 1500
    for number in range(count):
        stream.process_token(f"{number} ", GENEROUS)
    stream.stop(GENEROUS)
    eventually(lambda: bool(got) and isinstance(got[-1], StreamCompleted), GENEROUS)
    crew.join()
    assert [event.seq for event in got] == list(range(1, count + 2))
    assert "".join(event.text for event in got[:-1]) == stream.text
    if foreign is not None:
        foreign.stop()


def test_several_block_subscribers_of_all_kinds_at_once_get_everything(system: penstock.System, restless: None) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=2, max_buffer_size=8, retain_bytes=2000))
    crew, readers, told = Crew(), [Reader() for _ in range(3)], [list[Any]() for _ in range(4)]
    foreign = ForeignSink.start(told[0])
    stream.subscribe(foreign, "block", window=1)
    stream.subscribe(system.runtime.spawn(Sink, told[1]), "block", window=2)
    stream.subscribe(told[2].append, "block", window=3)
    stream.subscribe(told[3].append, "coalesce", window=1)
    for reader, slow in zip(readers, ("block", "coalesce", "block"), strict=True):
        crew.start(read_all, stream.events(slow=slow, window=2), reader)  # type: ignore[arg-type]
    for number in range(1000):
        stream.process_token(f"{number} ", GENEROUS)
    stream.stop(GENEROUS)
    crew.join()
    whole = stream.result(GENEROUS).text
    for events in told:
        eventually(partial(ended, events), GENEROUS)
        reader = Reader()
        for event in events:
            reader.read(event)
        readers.append(reader)
    assert [reader.texts["text"] for reader in readers] == [whole] * 7
    foreign.stop()


@pytest.mark.parametrize("kind", ["process", "foreign"])
@pytest.mark.parametrize("slow", ["block", "coalesce", "drop", "disconnect"])
def test_an_actor_that_stands_still_gets_what_its_policy_says_and_stops_only_who_asked_for_it(
    system: penstock.System, kind: str, slow: Slow
) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1, retain_bytes=1 << 30))
    got, other, gate = list[Any](), list[Any](), threading.Event()
    actor: Any = ForeignSink.start(got, gate) if kind == "foreign" else system.runtime.spawn(GatedSink, got, gate)
    subscription = stream.subscribe(actor, slow, window=2)
    stream.subscribe(other.append)
    stream.process_tokens("x" * 50)
    if slow == "block":
        eventually(lambda: stream._record.hub.held)
        assert len(stream.text) < 50
        gate.set()
    eventually(lambda: stream.text == "x" * 50, GENEROUS)
    if slow == "disconnect":
        assert not subscription.is_active
    stream.stop(GENEROUS)
    gate.set()
    eventually(lambda: isinstance(other[-1], StreamCompleted), GENEROUS)
    eventually(lambda: bool(got) and isinstance(got[-1], (StreamCompleted, Disconnected)), GENEROUS)
    tokens = sum(len(event.tokens) for event in got if isinstance(event, TokenEvent))
    if slow == "drop":
        assert tokens + sum(getattr(event, "dropped", 0) for event in got) == 50
        assert tokens + subscription.dropped == 50
    elif slow == "disconnect":
        assert isinstance(got[-1], Disconnected)
    else:
        assert tokens == 50
    if kind == "foreign":
        actor.stop()


# --- subscribers that break ------------------------------------------------------------------------------------------


def test_who_raises_dies_or_never_reads_disturbs_nobody(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1, retain_bytes=1 << 30))
    good: list[Any] = []

    def raises(event: Any) -> None:
        raise RuntimeError("a broken subscriber")

    dies = system.runtime.spawn(Sink, [])
    stream.subscribe(raises)
    stream.subscribe(dies)
    idle = stream.events(slow="coalesce", window=1)
    stream.subscribe(good.append)
    for number in range(300):
        stream.process_token("x", GENEROUS)
        if number == 100:
            system.runtime.exit(dies, "kill")
    stream.stop(GENEROUS)
    eventually(lambda: bool(good) and isinstance(good[-1], StreamCompleted), GENEROUS)
    assert [event.seq for event in good] == list(range(1, 302))
    assert "".join(event.text for event in idle if isinstance(event, TokenEvent)) == "x" * 300
    eventually(lambda: not stream._record.hub.subscriptions)


def test_a_foreign_actor_that_stops_midway_lets_go(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1))
    got: list[Any] = []
    actor = ForeignSink.start(got, None, 5)
    subscription = stream.subscribe(actor, "block", window=4)
    for _ in range(200):
        stream.process_token("x", GENEROUS)
    stream.stop(GENEROUS)
    eventually(lambda: not subscription.is_active, GENEROUS)
    assert stream.text == "x" * 200


def test_a_function_may_unsubscribe_itself_while_tokens_pour_in(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1))
    got: list[Any] = []
    done = threading.Event()

    def callback(event: Any) -> None:
        got.append(event.seq)
        if event.seq >= 3:
            stream.unsubscribe(callback)
            done.set()

    stream.subscribe(callback, window=4)
    for _ in range(200):
        stream.process_token("x", GENEROUS)
    assert done.wait(GENEROUS)
    stream.stop(GENEROUS)
    assert got == [1, 2, 3]


def test_subscribers_come_and_go_while_it_runs(system: penstock.System, restless: None) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=2, max_buffer_size=8, retain_bytes=3000))
    crew = Crew()
    over = threading.Event()
    tokens = [f"{number} " for number in range(6000)]
    whole = "".join(tokens)

    def come_and_go(number: int) -> None:
        slow: Slow = ("block", "coalesce")[number % 2]
        while not over.is_set():
            reader = Reader()
            for _ in range(3):
                with stream.events(after=reader.seq, slow=slow, window=1) as events:
                    for _ in range(4):
                        try:
                            reader.read(events.next(timeout=0.01))
                        except penstock.CallTimeout:
                            continue
                        except StopIteration:
                            return
            assert whole.startswith(reader.texts["text"])

    def in_and_out() -> None:
        def ignore(event: Any) -> None: ...

        while not over.is_set():
            stream.subscribe(ignore, "block", window=1)
            stream.unsubscribe(ignore)

    for number in range(3):
        crew.start(come_and_go, number)
    crew.start(in_and_out)
    for token in tokens:
        stream.process_token(token, GENEROUS)
    over.set()
    crew.join()
    stream.stop(GENEROUS)
    assert stream.text == whole
    eventually(lambda: not stream._record.hub.subscribers)


# --- iterators -------------------------------------------------------------------------------------------------------


def test_two_iterators_and_a_late_one_have_the_same_text(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=3, retain_bytes=1000))
    crew, readers = Crew(), [Reader() for _ in range(3)]
    crew.start(read_all, stream.events(), readers[0])
    crew.start(read_all, stream.events(slow="block", window=1), readers[1])
    for number in range(500):
        stream.process_token(f"{number} ", GENEROUS)
    crew.start(read_all, stream.events(), readers[2])
    stream.stop(GENEROUS)
    crew.join()
    after = Reader()
    read_all(stream.events(), after)
    assert {reader.texts["text"] for reader in (*readers, after)} == {stream.text}


@pytest.mark.parametrize("how", ["never started", "broken off", "in a cycle", "in a thread"])
def test_an_iterator_that_is_dropped_lets_the_stream_go_on(system: penstock.System, how: str) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1))
    readers = [stream.events(slow="block", window=1)]
    stream.process_tokens("x" * 50)
    eventually(lambda: stream._record.hub.held)
    if how == "broken off":
        for _ in readers[0]:
            break
    if how == "in a cycle":
        knot: list[Any] = [readers.pop()]
        knot.append(knot)
        del knot
    if how == "in a thread":
        crew = Crew()
        crew.start(readers.clear)
        crew.join()
    readers.clear()
    if how == "in a cycle":
        gc.collect()
    eventually(lambda: stream.text == "x" * 50, GENEROUS)
    assert stream._record.hub.subscribers == 0


def test_closed_by_another_thread_a_waiting_iterator_ends(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST)
    events = stream.events()
    crew, reader = Crew(), Reader()
    crew.start(read_all, events, reader)
    events.close()
    crew.join()
    assert reader.events == []


def test_async_readers_get_everything_and_the_loop_stays_free(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=2, retain_bytes=1 << 30))

    async def read(slow: Slow) -> str:
        parts = [event.text async for event in stream.aevents(slow=slow, window=2) if isinstance(event, TokenEvent)]
        return "".join(parts)

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(read(slow)) for slow in ("coalesce", "block", "coalesce")]
        await asyncio.sleep(0)
        beats = 0
        pushing = loop.run_in_executor(None, stream.process_tokens, [f"{number} " for number in range(2000)], GENEROUS)
        while not pushing.done():
            await asyncio.sleep(0)
            beats += 1
        assert beats
        await loop.run_in_executor(None, stream.stop, GENEROUS)
        return await asyncio.gather(*tasks)

    whole = "".join(f"{number} " for number in range(2000))
    assert asyncio.run(main()) == [whole] * 3


def test_a_cancelled_async_reader_loses_nothing_and_may_go_on(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1, retain_bytes=1 << 30))
    reader = Reader()

    def push_and_stop() -> None:
        push_one_by_one(stream, 500)
        stream.stop(GENEROUS)

    async def main() -> None:
        events = stream.aevents()
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, push_and_stop)
        cancelled = 0
        while True:
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            if cancelled < 100 and task.cancel():
                cancelled += 1
            try:
                reader.read(await task)
            except asyncio.CancelledError:
                continue
            except StopAsyncIteration:
                return

    asyncio.run(main())
    assert reader.texts["text"] == "x" * 500


def test_a_loop_that_ends_with_a_reader_in_it_disturbs_nobody(system: penstock.System) -> None:
    stream = system.open_stream(options=FAST.replace(batch_size=1))

    async def leave() -> None:
        async def read() -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(leave())
    stream.process_tokens("x" * 20)
    stream.stop(GENEROUS)
    assert stream.text == "x" * 20
    eventually(lambda: not stream._record.hub.subscribers)


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_killed_again_and_again_a_transient_stream_loses_and_doubles_nothing(
    system: penstock.System, restless: None
) -> None:
    options = FAST.replace(batch_size=3, max_buffer_size=20, retain_bytes=1 << 30)
    stream = system.open_stream(options=options, restart="transient")
    crew, reader, told = Crew(), Reader(), list[Any]()
    crew.start(read_all, stream.events(slow="block", window=2), reader)
    stream.subscribe(told.append, window=2)
    for number in range(600):
        stream.process_token(f"{number} ", GENEROUS)
        if number % 200 == 100:
            ref = stream._record.ref
            assert ref is not None
            system.runtime.exit(ref, "kill")
    eventually(lambda: stream._record.ref is not None and system.runtime.is_alive(stream._record.ref))
    stream.stop(GENEROUS)
    crew.join()
    assert stream.text.split() == [str(number) for number in range(600)]
    assert reader.texts["text"] == stream.text
    assert stream.statistics().restarts == 3
    check_log(stream)
    eventually(lambda: bool(told) and isinstance(told[-1], StreamCompleted), GENEROUS)
    assert [event.seq for event in told] == list(range(1, stream._record.log.last_seq + 1))


def test_one_whose_journal_hangs_can_be_killed_and_what_it_does_later_has_no_effect(system: penstock.System) -> None:
    entered, gate = threading.Event(), threading.Event()
    hung = threading.Lock()

    class HangingJournal:
        def append(self, event: Any) -> None:
            if hung.acquire(blocking=False):
                entered.set()
                gate.wait(GENEROUS)

    options = FAST.replace(batch_size=2, retain_bytes=1 << 30)
    stream = system.open_stream(options=options, restart="transient", journal=HangingJournal())
    stream.process_tokens("abcd")
    assert entered.wait(GENEROUS)
    old = stream._record.ref
    system.runtime.exit(old, "kill")  # type: ignore[arg-type]
    eventually(lambda: stream.text == "abcd", GENEROUS)
    assert stream._record.ref is not old
    stream.process_tokens("ef")
    gate.set()
    eventually(lambda: stream.text == "abcdef", GENEROUS)
    stream.process_tokens("gh")
    stream.stop(GENEROUS)
    assert stream.text == "abcdefgh"
    check_log(stream)
    assert stream.statistics().buffer_size == 0
