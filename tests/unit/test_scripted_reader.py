"""The simulated reader: what a user sees is the same whether it blocks or offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.runtime import Runtime
from penstock.ports import TextDelta
from penstock.testing import HANG, Collector, ResumableProvider, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.testing.scripted_reader import ReaderMode, ScriptedReader
from tests.conformance.common import assert_nothing_is_left

MODES: list[ReaderMode] = ["blocking", "offer"]
ONE_READ: list[Any] = [[TextDelta(f"{number} ") for number in range(20)]]
TEXT = "".join(f"{number} " for number in range(20))
TIGHT = penstock.StreamOptions(max_buffer_size=2, batch_size=1, rate_limit=None)
ONCE = penstock.RequestOptions(max_retries=0)


@pytest.fixture(params=MODES)
def system(request: pytest.FixtureRequest) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(3, reader_mode=request.param) as system:
        yield system
        assert_nothing_is_left(system)


def chat(system: SimulatedSystem, *attempts: Any, **more: Any) -> penstock.Stream:
    return system.chat("m", "Hello", provider=ScriptedProvider(*attempts), options=TIGHT, request_options=ONCE, **more)


def test_a_mode_can_be_forced_whatever_the_seed() -> None:
    for seed in range(2):
        for mode in MODES:
            with SimulatedSystem(seed, reader_mode=mode) as system:
                assert system.scripted.mode == mode
                assert system.scripted.statistics()["threads"] == 0


def test_a_mode_that_is_not_allowed_is_refused() -> None:
    reader = ScriptedReader(SimulatedSystem().simulation.runtime)
    with pytest.raises(penstock.OptionError, match=r"reader_mode.*a reader is given"):
        SimulatedSystem(reader=reader, reader_mode="offer")
    with pytest.raises(penstock.OptionError, match=r"mode.*'blocking' \| 'offer'"):
        ScriptedReader(SimulatedSystem().simulation.runtime, "either")  # type: ignore[arg-type]


def test_only_a_simulated_runtime_can_block() -> None:
    timers, dispatcher = TimerThread(), ThreadedDispatcher(workers=1)
    runtime = Runtime(dispatcher, timers, SystemClock())
    try:
        with pytest.raises(penstock.OptionError, match="not simulated"):
            ScriptedReader(runtime, "blocking")
        assert ScriptedReader(runtime).mode == "offer"
    finally:
        runtime.close()
        assert dispatcher.close(5) == 0
        assert timers.close(5)


def test_a_read_that_is_larger_than_the_buffer_waits_for_the_subscriber(system: SimulatedSystem) -> None:
    stream = chat(system, ONE_READ)
    events = stream.events(slow="block", window=1)
    system.advance(10)
    info = stream.statistics()
    assert info.backpressure_events == 2
    assert info.buffer_size == 2
    assert system.scripted.open == 1
    assert system.scripted.statistics()["threads"] == (1 if system.scripted.mode == "blocking" else 0)
    assert "".join(event.text for event in events if isinstance(event, penstock.TokenEvent)) == TEXT


def test_two_requests_that_wait_for_room_go_on_in_any_order(system: SimulatedSystem) -> None:
    """In nested calls the second one's wait would keep the first one from going on."""
    first, second = chat(system, ONE_READ), chat(system, ONE_READ)
    readers = [stream.events(slow="block", window=1) for stream in (first, second)]
    system.advance(1)
    assert system.scripted.open == 2
    for events in readers:
        assert "".join(event.text for event in events if isinstance(event, penstock.TokenEvent)) == TEXT


def test_a_request_that_waits_for_room_ends_when_its_stream_is_cancelled(system: SimulatedSystem) -> None:
    stream = chat(system, ONE_READ)
    events = stream.events(slow="block", window=1)
    system.advance(1)
    stream.cancel("enough")
    system.settle()
    assert system.scripted.open == 0
    assert isinstance(list(events)[-1], penstock.StreamCancelled)


@pytest.mark.parametrize("phase", ["queue", "connect", "headers", "steps"])
def test_one_that_hangs_is_cancelled_in_whatever_phase_it_is(system: SimulatedSystem, phase: str) -> None:
    attempt = ScriptedAttempt((HANG,)) if phase == "steps" else ScriptedAttempt(("a",), **{phase: HANG})  # type: ignore[arg-type]
    stream = chat(system, attempt)
    system.advance(1)
    assert system.scripted.open == 1
    stream.cancel()
    system.settle()
    assert (system.scripted.open, system.scripted.cancelled, system.scripted.started) == (0, 1, 1)


def test_closing_the_reader_cancels_what_is_open(system: SimulatedSystem) -> None:
    streams = [chat(system, [HANG]) for _ in range(3)]
    system.advance(1)
    assert system.scripted.close(1) == 0
    system.settle()
    assert (system.scripted.open, system.scripted.cancelled) == (0, 3)
    assert all(stream.is_over for stream in streams)


def test_both_modes_deliver_the_same_events_at_the_same_time() -> None:
    def run(mode: ReaderMode) -> list[Any]:
        with SimulatedSystem(1, reader_mode=mode) as system:
            attempt = ScriptedAttempt(("Hel", 0.5, "lo ", 1.0, *ONE_READ), queue=0.1, connect=0.2, headers=0.3)
            collector = Collector(chat(system, attempt))
            collector.wait_for_terminal(60)
            return [(type(event).__name__, round(event.timestamp, 6)) for event in collector.events]

    assert len(run("blocking")) > 10
    assert run("blocking") == run("offer")


def test_an_answer_that_broke_off_is_continued_without_a_gap(system: SimulatedSystem) -> None:
    provider = ResumableProvider(["Hel", 0.5, "lo ", penstock.IncompleteStream("cut")], ["Hel", "lo ", "wor", "ld"])
    options = penstock.RequestOptions(on_interrupt="resume", retry_base_delay=0.1)
    stream = system.chat("m", "Hello", provider=provider, options=TIGHT, request_options=options)
    assert stream.result(60).text == "Hello world"
    assert provider.resumed == 1
