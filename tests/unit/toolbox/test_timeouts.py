"""`Stream.with_timeout`: rules 55 to 57 of the combinators."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.errors import OptionError, StreamTimeout
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem
from tests.unit.toolbox.single import system

__all__ = ["system"]


def test_rule_55_a_silent_parent_is_given_up_with_the_partial_text(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", 0.9, "b ", 0.9, "c ", HANG])
    parent = system.chat("m", "Hello", provider=provider)
    stream = parent.with_timeout(idle=1)
    with pytest.raises(StreamTimeout, match=r"idle timeout: no further event within 1 s") as caught:
        stream.result(20)
    error = caught.value
    assert (error.which, error.timeout, error.partial, error.stream_id) == ("idle", 1, "a b c ", stream.stream_id)
    system.settle()
    assert parent.is_over
    assert system.scripted.open == 0


def test_rule_55_a_parent_that_says_nothing_at_all_is_given_up(system: SimulatedSystem) -> None:
    stream = system.open_stream("p").with_timeout(idle=1)
    start = system.simulation.clock.monotonic()
    with pytest.raises(StreamTimeout):
        stream.result(20)
    assert system.simulation.clock.monotonic() - start == pytest.approx(1)


def test_rule_56_the_time_does_not_run_while_the_streams_own_reader_holds_it(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    stream = parent.with_timeout(idle=1)
    events = stream.events(slow="block", window=1)
    with pytest.raises(penstock.BufferFull):  # the parent is held, so the stream is full
        parent.process_tokens(["x"] * 10_000, timeout=0.1)
    assert isinstance(events.next(timeout=0), penstock.TokenEvent)
    system.advance(5)
    assert not stream.is_over
    parent.sink().end()
    assert isinstance(list(events)[-1], penstock.StreamCompleted)


@pytest.mark.parametrize("paused", ["parent", "stream"])
def test_rule_57_the_total_time_counts_pauses_too(system: SimulatedSystem, paused: str) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    stream = parent.with_timeout(total=3)
    (parent if paused == "parent" else stream).pause()
    parent.process_token("a")
    start = system.simulation.clock.monotonic()
    with pytest.raises(StreamTimeout, match="total timeout: no complete answer within 3 s"):
        stream.result(20)
    assert system.simulation.clock.monotonic() - start == pytest.approx(3)


def test_rule_57_the_total_time_counts_a_slow_reader(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    stream = parent.with_timeout(total=3)
    events = stream.events(slow="block", window=1)
    with pytest.raises(penstock.BufferFull):
        parent.process_tokens(["x"] * 10_000, timeout=0.1)
    system.advance(2.8)
    assert not stream.is_over
    system.advance(0.2)
    assert stream.is_over
    assert isinstance(list(events)[-1], penstock.StreamFailed)


def test_a_stream_in_time_ends_as_its_parent(system: SimulatedSystem) -> None:
    parent = system.chat("m", "Hello", provider=ScriptedProvider(["a ", 0.5, "b"]))
    stream = parent.with_timeout(total=2, idle=1)
    end, original = stream.result(20), parent.result(20)
    assert (end.text, end.finish_reason, end.usage) == ("a b", "stop", original.usage)
    system.advance(10)
    assert stream.result(0) is end


@pytest.mark.parametrize("limits", [{}, {"total": 0}, {"idle": -1}, {"total": 1, "idle": "soon"}], ids=str)
def test_limits_that_are_not_allowed_are_refused(system: SimulatedSystem, limits: Any) -> None:
    with pytest.raises(OptionError, match=(list(limits) or ["total"])[-1]):
        system.open_stream("p").with_timeout(**limits)
