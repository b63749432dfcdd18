"""What `Stream.statistics` says of a producer and its consumer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem

pytestmark = pytest.mark.seeds(4)
SMALL = penstock.SAFE.replace(max_buffer_size=8, batch_size=4)


@pytest.fixture
def system(seed: int) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed) as system:
        yield system


def test_what_waits_in_the_buffer_is_produced_and_not_consumed(system: SimulatedSystem, seed: int) -> None:
    stream = system.open_stream(options=SMALL)
    stream.pause()
    stream.process_tokens(["a", "b", "c", "d", "e", "f"])
    seen = stream.statistics()
    assert (seen.produced, seen.consumed, seen.capacity, seen.utilisation) == (6, 0, 8, 0.75)
    assert seen.high_water_mark == 6
    assert seen.production_active
    stream.resume()
    system.settle()
    seen = stream.statistics()
    assert (seen.produced, seen.consumed, seen.utilisation, seen.high_water_mark) == (6, 6, 0.0, 6)


def test_a_producer_that_waits_for_room_is_counted(system: SimulatedSystem, seed: int) -> None:
    stream = system.open_stream(options=SMALL)
    stream.pause()
    with pytest.raises(penstock.BufferFull):
        stream.process_tokens([str(number) for number in range(20)], timeout=1)
    seen = stream.statistics()
    assert (seen.produced, seen.utilisation, seen.high_water_mark) == (8, 1.0, 8)
    assert seen.backpressure_events == 1
    assert seen.running_time_s == pytest.approx(1.0)


def test_production_is_over_when_the_stream_is(system: SimulatedSystem, seed: int) -> None:
    stream = system.open_stream(options=SMALL)
    assert stream.statistics().production_active
    stream.cancel()
    assert not stream.statistics().production_active


def test_production_is_over_when_the_provider_has_finished_though_tokens_wait(
    system: SimulatedSystem, seed: int
) -> None:
    provider = ScriptedProvider(ScriptedAttempt(("a", "b", "c")))
    stream = system.chat("m", "x", provider=provider, options=SMALL)
    stream.pause()
    system.advance(1)
    seen = stream.statistics()
    assert (seen.produced, seen.consumed, seen.production_active) == (3, 0, False)
    waiting = system.chat("m", "x", provider=ScriptedProvider(["a", HANG]), options=SMALL)
    system.advance(1)
    assert waiting.statistics().production_active


def test_without_a_bound_there_is_no_utilisation(system: SimulatedSystem, seed: int) -> None:
    seen = system.open_stream(options=penstock.QUICK).statistics()
    assert (seen.capacity, seen.utilisation) == (None, None)
