"""What fresh eyes found and is mended: each of these failed before."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.testing import eventually

UNLIMITED = penstock.StreamOptions(rate_limit=None)


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System(penstock.Settings()) as system:
        yield system


def ended(system: penstock.System) -> penstock.Stream:
    stream = system.open_stream(options=UNLIMITED)
    stream.process_token("Hello")
    stream.stop()
    return stream


def test_resuming_behind_the_terminal_event_ends_at_once(system: penstock.System) -> None:
    stream = ended(system)
    last = list(stream.events())[-1].seq
    assert list(stream.events(after=last)) == []

    async def read() -> list[penstock.Event]:
        return [event async for event in stream.aevents(after=last)]

    assert asyncio.run(asyncio.wait_for(read(), 5)) == []


def test_subscribing_behind_the_terminal_event_leaves_no_process_behind(system: penstock.System) -> None:
    stream = ended(system)
    last = list(stream.events())[-1].seq
    before = system.statistics().processes
    for _ in range(20):
        stream.subscribe(lambda event: None, after=last)
    eventually(lambda: system.statistics().processes == before)
    assert system.get_stream_info(stream.stream_id).subscriber_count == 0


def test_a_chain_is_emptied_when_the_system_stops() -> None:
    going_on = threading.Event()

    def transform(event: penstock.TokenEvent) -> list[str]:
        going_on.wait(5)
        return list(event.tokens)

    system = penstock.System(penstock.Settings())
    first = system.open_stream(options=UNLIMITED)
    second = penstock.chain(system, first, transform, options=UNLIMITED)
    first.process_tokens(["x"] * 500)
    stopping = threading.Thread(target=system.stop)
    stopping.start()
    eventually(lambda: first.is_over)
    going_on.set()
    stopping.join(15)
    assert isinstance(list(second.events())[-1], penstock.StreamCompleted)
    assert len(second.text) == 500


def test_a_journal_that_hangs_in_the_terminal_event_keeps_no_reader_waiting_when_the_system_stops() -> None:
    hanging, let_go = threading.Event(), threading.Event()

    class Hanging:
        def append(self, event: Any) -> None:
            if isinstance(event, penstock.StreamCompleted):
                hanging.set()
                let_go.wait(20)

    system = penstock.System(penstock.Settings(), journal=Hanging())
    stream = system.open_stream(options=UNLIMITED)
    stopper = threading.Thread(target=stream.stop)
    stopper.start()
    try:
        assert hanging.wait(5)
        assert system.stop(timeout=0.5) >= 1  # the thread is stuck, and that is told
        assert stream.result(timeout=20).finish_reason == "stop"
    finally:
        let_go.set()
        stopper.join(5)


def test_stopping_survives_a_stream_that_crashes_of_something_that_is_no_exception() -> None:
    class Leaving:
        def append(self, event: Any) -> None:
            if isinstance(event, penstock.StreamCompleted):
                raise SystemExit

    system = penstock.System(penstock.Settings())
    bad = system.open_stream(journal=Leaving(), options=UNLIMITED)
    good = system.open_stream(options=UNLIMITED)
    assert system.stop() == 0
    assert bad.is_over
    assert isinstance(list(good.events())[-1], penstock.StreamCompleted)


class Interrupted(Exception):
    """What our stand-in for Ctrl-C raises."""


def test_an_interrupt_in_the_middle_of_a_push_never_leaves_a_stream_asleep(system: penstock.System) -> None:
    if sys.platform == "win32":
        pytest.skip("needs interval timers")

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    stream = system.open_stream(options=UNLIMITED.replace(batch_size=1, push_timeout=5, max_buffer_size=100_000))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(1500):
            with contextlib.suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + number % 97 * 1e-6)  # once, at another place each time
                while True:
                    stream.process_token("x")
    finally:
        signal.signal(signal.SIGALRM, before)
    stream.process_token("end")
    stream.stop(timeout=10)
    assert stream.text.endswith("end")


def test_the_collector_may_close_an_iterator_while_somebody_subscribes(system: penstock.System) -> None:
    stream = system.open_stream(options=UNLIMITED)

    def leave_garbage() -> None:
        def reading() -> Iterator[penstock.Event]:
            with stream.events() as events:
                cycle.append(generator)
                yield from events

        cycle: list[Any] = []
        generator = reading()
        stream.process_token("x")
        next(generator)

    threshold = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        done = threading.Event()

        def churn() -> None:
            for _ in range(2000):
                leave_garbage()
                stream.events().close()
            done.set()

        thread = threading.Thread(target=churn, daemon=True)
        thread.start()
        assert done.wait(50)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    eventually(lambda: system.get_stream_info(stream.stream_id).subscriber_count == 0)


def test_who_opens_a_stream_and_gives_up_leaves_none_running(system: penstock.System) -> None:
    system.start()
    for _ in range(50):
        try:
            system.open_stream(timeout=0.00003).cancel()
        except penstock.CallTimeout:
            continue
    eventually(lambda: not system.get_active_streams())


def test_polling_for_a_result_piles_nothing_up(system: penstock.System) -> None:
    stream = system.open_stream()

    async def poll() -> None:
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.aresult(), 0)

    asyncio.run(poll())
    assert len(stream._record.over._callbacks or ()) <= 1


def test_a_target_that_cannot_be_compared_disturbs_nobody(system: penstock.System) -> None:
    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("compared")

        def __call__(self, event: Any) -> None:
            return

    stream = system.open_stream(options=UNLIMITED)
    odd = Odd()
    assert stream.subscribe(odd) is stream.subscribe(odd)
    got: list[Any] = []
    stream.subscribe(got.append)
    stream.process_token("x")
    stream.stop()
    eventually(lambda: len(got) == 2)


def test_a_method_subscribed_twice_is_one_subscriber(system: penstock.System) -> None:
    class Listener:
        def hear(self, event: Any) -> None:
            return

    stream, listener = system.open_stream(), Listener()
    assert stream.subscribe(listener.hear) is stream.subscribe(listener.hear)


def test_a_partial_shows_neither_its_arguments_nor_its_troubles(system: penstock.System) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("printed")

    def listen(*_: Any) -> None:
        return

    stream = system.open_stream()
    stream.subscribe(functools.partial(listen, "sk-secret"))
    stream.subscribe(functools.partial(listen, Unprintable()))
    names = [one.target for one in system.get_stream_info(stream.stream_id).subscribers]
    assert names == ["partial", "partial"]
    assert "sk-secret" not in repr(system.get_active_streams())


def test_asking_a_failed_stream_again_and_again_does_not_grow_its_error(system: penstock.System) -> None:
    stream = system.chat(
        "fault-reset", [{"role": "user", "content": "x"}], provider="loopback",
        request_options=penstock.RequestOptions(max_retries=0),
    )  # fmt: skip
    depths = []
    for _ in range(5):
        with pytest.raises(penstock.ProviderError) as caught:
            stream.result(timeout=10)
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_what_is_no_text_is_refused_without_being_shown(system: penstock.System) -> None:
    stream = system.open_stream()
    with pytest.raises(penstock.OptionError, match="text: got 'bytes'") as caught:
        stream.process_token(b"the secret")  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout", [float("nan"), -5])
def test_an_absurd_time_out_is_refused_and_nothing_is_done(system: penstock.System, timeout: float) -> None:
    stream = system.open_stream()
    with pytest.raises(penstock.OptionError, match="timeout"):
        stream.cancel(timeout=timeout)
    assert not stream.is_over


def test_a_tokenizer_that_exits_takes_no_reader_thread_with_it() -> None:
    def leave(text: str) -> list[str]:
        raise SystemExit

    runtime = {"runtime": penstock.Settings().runtime.replace(reader="threads", reader_threads=1)}
    with penstock.System(penstock.Settings(**runtime)) as system:  # type: ignore[arg-type]
        messages = [{"role": "user", "content": "Hello there"}]
        bad = system.chat("echo", messages, provider="loopback", options=UNLIMITED.replace(tokenizer=leave))
        with pytest.raises(penstock.ProviderError):
            bad.result(timeout=10)
        assert system.chat("echo", messages, provider="loopback").result(timeout=10).text


def test_an_actor_that_lives_long_does_not_keep_the_streams_it_has_read(system: penstock.System) -> None:
    from penstock.actors.runtime.process import Process

    class Sink(Process):
        in_pykka_registry = False

        def on_receive(self, message: Any) -> None:
            return

    sink = system.runtime.spawn(Sink)
    for _ in range(10):
        stream = system.open_stream(options=UNLIMITED)
        stream.subscribe(sink)
        stream.stop()
    del stream

    def kept() -> int:
        return sum(issubclass(type(thing), PushSubscription) and thing.ref is sink for thing in gc.get_objects())

    eventually(lambda: kept() == 0)
