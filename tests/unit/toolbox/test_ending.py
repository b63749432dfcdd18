"""`System.cancel`, `cancel_all` and `drain`: many streams are ended, and each end is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock.events import StreamCancelled, StreamCompleted
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem
from tests.unit.toolbox.common import ask, now, pushed

pytestmark = pytest.mark.seeds(4)


def test_a_stream_is_cancelled_by_its_id(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = ask(system, "A", HANG, stream_id="mine")
        system.advance(0.1)
        system.cancel("mine", "enough")
        end = stream._record.log.terminal
        assert isinstance(end, StreamCancelled)
        assert (end.reason, end.partial) == ("enough", "A")
        system.cancel("mine")
        with pytest.raises(penstock.StreamNotFound):
            system.cancel("other")


def test_all_are_cancelled_or_those_that_are_meant(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [ask(system, HANG, stream_id=f"s{number}", metadata={"user": number % 2}) for number in range(6)]
        gone = system.cancel_all("user left", where=lambda stream: stream.metadata["user"] == 1)
        assert gone == ["s1", "s3", "s5"]
        assert [stream.is_over for stream in streams] == [False, True] * 3
        assert system.cancel_all("enough") == ["s0", "s2", "s4"]
        assert system.cancel_all() == []
        with pytest.raises(penstock.StreamCancelledError, match="user left"):
            streams[1].result()
        system.settle()
        assert system.scripted.open == 0


def test_if_the_condition_raises_none_is_cancelled(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [pushed(system, stream_id=f"s{number}") for number in range(3)]
        with pytest.raises(ZeroDivisionError):
            system.cancel_all(where=lambda stream: stream.stream_id == "s0" or 1 / 0)
        assert not any(stream.is_over for stream in streams)
        with pytest.raises(penstock.OptionError, match="where"):
            system.cancel_all(where="s0")  # type: ignore[arg-type]


def test_parents_and_what_is_made_of_them_end_with_the_same_reason(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        merged = system.merge({"a": ask(system, "A", HANG), "b": ask(system, "B", HANG)})
        system.settle()
        assert len(system.cancel_all("enough")) == 3
        with pytest.raises(penstock.StreamCancelledError, match="enough"):
            merged.result()


def test_drain_waits_and_cancels_and_says_what_became_of_each(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        ask(system, 0.5, "quick", stream_id="quick")
        ask(system, "slow", HANG, stream_id="slow")
        ask(system, 0.1, penstock.ApiError(400, "no"), stream_id="failing")
        ends = system.drain(2, "shutting down")
        assert list(ends) == ["quick", "slow", "failing"]
        assert [type(end).__name__ for end in ends.values()] == ["StreamCompleted", "StreamCancelled", "StreamFailed"]
        assert ends["slow"].reason == "shutting down"  # type: ignore[union-attr]
        assert now(system) - start == pytest.approx(2.0, abs=0.01)
        assert system.drain(2) == {}
        assert now(system) - start == pytest.approx(2.0, abs=0.01)


def test_drain_ends_as_soon_as_all_streams_have(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        ask(system, 0.5, "A")
        ask(system, 0.7, "B")
        assert all(isinstance(end, StreamCompleted) for end in system.drain(60).values())
        assert now(system) - start < 0.8


def test_drain_without_time_cancels_at_once(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        ask(system, HANG, stream_id="a")
        assert isinstance(system.drain(0)["a"], StreamCancelled)
        assert now(system) - start < 0.1


def test_a_draining_system_opens_no_streams_but_further_attempts_of_those_that_run(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        busy = penstock.ApiError(503, "busy", retryable=True, retry_after=1)
        provider = ScriptedProvider([0.5, busy], ["answer"])
        stream = system.with_retry(lambda: ask(system, provider), stream_id="retried")
        refused: list[Any] = []

        def later() -> None:
            system.simulation.dispatcher.pause(0.2)
            tries: list[Callable[[], object]] = [system.open_stream, lambda: ask(system, "x"), system.merge]
            for open_one in tries:
                try:
                    open_one()
                except penstock.SystemDraining as error:
                    refused.append(error)
            try:
                penstock.race(lambda: ask(system, "x"))
            except penstock.SystemStopped as error:
                refused.append(error)

        system.simulation.start_thread(later)
        ends = system.drain(10)
        assert len(refused) == 4
        assert ends["retried"].text == "answer"  # type: ignore[union-attr]
        assert all(isinstance(end, (StreamCompleted, penstock.StreamFailed)) for end in ends.values())
        assert stream.result().text == "answer"
        assert len(ends) == 3  # the stream and its two attempts


def test_wrong_times_are_refused() -> None:
    with SimulatedSystem() as system:
        for call in (lambda: system.drain(-1), lambda: system.cancel_all(timeout=-1)):
            with pytest.raises(penstock.OptionError, match="timeout"):
                call()
        assert not system._services.is_draining
