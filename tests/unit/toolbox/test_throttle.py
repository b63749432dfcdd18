"""`Stream.throttle`: rules 15 to 18 of the combinators."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.errors import OptionError
from penstock.testing import ScriptedProvider, SimulatedSystem
from tests.unit.toolbox.single import system, tokens_of

__all__ = ["system"]


def timed(system: SimulatedSystem, stream: penstock.Stream) -> list[tuple[float, int]]:
    """When how many tokens had come, in seconds from now."""
    start = system.simulation.clock.monotonic()
    found: list[tuple[float, int]] = []
    count = 0
    for event in stream.events():
        if isinstance(event, penstock.TokenEvent):
            count += len(event.tokens)
            found.append((round(system.simulation.clock.monotonic() - start, 6), count))
    return found


def test_rule_15_it_waits_and_drops_nothing(system: SimulatedSystem) -> None:
    parent = system.chat("m", "Hello", provider=ScriptedProvider([f"{number} " for number in range(200)]))
    slow = parent.throttle(100)
    times = timed(system, slow)
    assert slow.text == "".join(f"{number} " for number in range(200))
    seconds, count = times[-1]
    assert count == 200
    assert 1.9 <= seconds < 1.95


@pytest.mark.parametrize(("rate", "first"), [(100, 10), (5, 1), (0.5, 1), (1000, 100)])
def test_rule_16_the_bucket_holds_a_tenth_of_the_rate(system: SimulatedSystem, rate: float, first: int) -> None:
    parent = system.open_stream("p", penstock.QUICK)
    parent.process_tokens(["x"] * (first + 3))
    parent.stop()
    slow = parent.throttle(rate)
    system.settle()
    assert slow.text == "x" * first
    system.advance(3.5 / rate)
    assert slow.text == "x" * (first + 3)


def test_rule_16_after_the_burst_the_tokens_come_one_by_one(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    parent.process_tokens(["x"] * 13)
    parent.stop()
    times = timed(system, parent.throttle(100))
    assert times == [(0.0, 10), (0.01, 11), (0.02, 12), (0.03, 13)]
    assert [tokens for _, tokens in timed(system, parent.throttle(100, burst=2))][:3] == [2, 3, 4]


def test_rule_17_what_feeds_the_stream_is_slowed_and_not_buffered(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE.replace(push_timeout=1))
    slow = parent.throttle(1)
    with pytest.raises(penstock.BufferFull) as caught:
        parent.process_tokens(["x"] * 100_000)
    assert caught.value.accepted <= 700  # two buffers, the window of four events, and the one at work
    assert slow.statistics().buffer_high_water_mark <= 100
    slow.cancel()
    parent.cancel()


def test_rule_18_other_events_and_the_end_are_not_counted_and_stay_in_order(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    parent.process_tokens(["a", "b"])
    for number in range(5):
        parent.sink().push_event(penstock.ToolCallStarted(id=str(number), name="f", index=number))
    parent.process_tokens(["c"])
    parent.stop()
    start = system.simulation.clock.monotonic()
    slow = parent.throttle(1)
    slow.result(10)
    assert system.simulation.clock.monotonic() - start == pytest.approx(2)
    assert tokens_of(slow) == [["a"], ["b"], *["ToolCallStarted"] * 5, ["c"], "stop"]


def test_characters_are_counted_as_code_points_and_never_divided(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # five code points
    parent.process_tokens(["abc", "e\u0301" + family + "d"])
    parent.stop()
    start = system.simulation.clock.monotonic()
    slow = parent.throttle(2, per="character")
    slow.result(20)
    assert system.simulation.clock.monotonic() - start == pytest.approx((11 - 1) / 2, abs=0.01)
    assert tokens_of(slow) == [["a"], ["b"], ["c"], ["e\u0301"], [family], ["d"], "stop"]


def test_a_high_rate_needs_few_timers(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.QUICK)
    slow = parent.throttle(10_000)
    start = system.simulation.clock.monotonic()
    parent.process_tokens(["x"] * 20_000)
    parent.sink().end()
    slow.result(20)
    assert system.simulation.clock.monotonic() - start == pytest.approx(1.9, abs=0.02)
    assert slow.statistics().batches_flushed < 500


@pytest.mark.parametrize("arguments", [{"rate": 0}, {"rate": 1, "per": "line"}, {"rate": 1, "burst": 0}], ids=str)
def test_arguments_that_are_not_allowed_are_refused(system: SimulatedSystem, arguments: Any) -> None:
    with pytest.raises(OptionError, match=list(arguments)[-1]):
        system.open_stream("p").throttle(**arguments)
