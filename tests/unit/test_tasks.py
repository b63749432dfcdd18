"""Tasks and the places they take; and an agent's process that was given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.agent.task import Job, Task, TaskDone, ThreadQuota
from penstock.actors.agent.turn import Turn
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Down, ProcessExit
from penstock.testing import SimulatedSystem, Simulation
from tests.conformance.agents import agent_on, say


class Owner(Process):
    in_pykka_registry = False

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if message == "what?":
            return self.told
        self.told.append(message)
        return None


class Bench:
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.places = ThreadQuota(2)
        self.owner = simulation.spawn(Owner)
        self.cancelled = 0

    def job(self, work: Any) -> Job:
        assert self.places.acquire("me", lambda: None)
        return Job(self.owner, "tool/x", work, self._cancel, self.places)

    def _cancel(self) -> None:
        self.cancelled += 1

    def told(self) -> list[Any]:
        self.simulation.settle()
        told: list[Any] = self.owner.ask("what?")
        return told


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Simulation() as simulation:
        yield Bench(simulation)


def results_of(told: list[Any]) -> list[Any]:
    return [message.error or message.value for message in told if isinstance(message, TaskDone)]


# --- places --------------------------------------------------------------------------------------------------------


def test_who_finds_no_place_is_told_once_when_there_may_be_one() -> None:
    places, told = ThreadQuota(1), []
    assert places.acquire("a", lambda: told.append("a"))
    assert not places.acquire("b", lambda: told.append("b"))
    assert not places.acquire("b", lambda: told.append("b"))
    assert not places.acquire("c", lambda: told.append("c"))
    places.release()
    assert told == ["b", "c"]
    assert places.acquire("c", lambda: None)
    places.release()
    assert (told, places.taken) == (["b", "c"], 0)


# --- tasks ---------------------------------------------------------------------------------------------------------


def test_a_task_tells_its_result_then_ends_and_gives_its_place_back(bench: Bench) -> None:
    bench.simulation.spawn(Task, bench.job(lambda: "done"))
    told = bench.told()
    assert results_of(told) == ["done"]
    assert isinstance(told[-1], Down)
    assert bench.places.taken == 0


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_its_code_raises_is_its_result(bench: Bench, error: BaseException) -> None:
    def work() -> None:
        raise error

    bench.simulation.spawn(Task, bench.job(work))
    assert results_of(bench.told()) == [error]
    assert bench.places.taken == 0


def test_a_result_that_is_promised_is_waited_for_without_a_thread(bench: Bench) -> None:
    reply = Reply()
    task = bench.simulation.spawn(Task, bench.job(lambda: reply))
    assert results_of(bench.told()) == []
    assert task.is_alive()
    reply.set("later")
    assert results_of(bench.told()) == ["later"]
    assert bench.places.taken == 0


def test_a_task_that_is_killed_before_it_begins_does_nothing(bench: Bench) -> None:
    runs: list[int] = []
    task = bench.simulation.spawn(Task, bench.job(lambda: runs.append(1)))
    bench.simulation.runtime.exit(task, "kill")
    assert [type(message) for message in bench.told()] == [Down]
    assert (runs, bench.places.taken, bench.cancelled) == ([], 0, 1)


def test_a_task_that_is_killed_while_it_waits_gives_its_place_back(bench: Bench) -> None:
    task = bench.simulation.spawn(Task, bench.job(lambda: Reply()))
    bench.simulation.settle()
    bench.simulation.runtime.exit(task, "kill")
    assert results_of(bench.told()) == []
    assert (bench.places.taken, bench.cancelled) == (0, 1)


def test_a_task_that_is_killed_in_its_code_keeps_its_place_until_that_returns(bench: Bench) -> None:
    taken: list[int] = []
    refs: list[ProcessRef] = []

    def work() -> str:
        bench.simulation.runtime.exit(refs[0], "kill")
        taken.append(bench.places.taken)
        return "too late"

    refs.append(bench.simulation.spawn(Task, bench.job(work)))
    assert results_of(bench.told()) == []
    assert (taken, bench.places.taken) == ([1], 0)


def test_a_task_that_is_killed_in_code_that_promises_a_result_gives_its_place_back(bench: Bench) -> None:
    refs: list[ProcessRef] = []

    def work() -> Reply:
        bench.simulation.runtime.exit(refs[0], "kill")
        return Reply()

    refs.append(bench.simulation.spawn(Task, bench.job(work)))
    assert results_of(bench.told()) == []
    assert bench.places.taken == 0


@pytest.mark.parametrize("how", ["cancelled", "its owner is dead"])
def test_a_task_that_nobody_waits_for_does_not_start(bench: Bench, how: str) -> None:
    job = bench.job(lambda: "done")
    if how == "cancelled":
        job.cancel()
    else:
        bench.simulation.runtime.exit(bench.owner, "kill")
    with pytest.raises(penstock.StartError):
        bench.simulation.spawn(Task, job)
    assert bench.places.taken == 0


# --- an agent's process that was given up --------------------------------------------------------------------------


def test_a_process_that_another_has_taken_the_place_of_changes_nothing() -> None:
    with SimulatedSystem() as system:
        agent, _ = agent_on(system, say("One."))
        record = agent._record
        past = record.ref
        assert past is not None
        system.runtime.exit(past, "kill")
        system.settle()
        assert record.ref is not past
        turn = Turn(system.open_stream()._record, {"role": "user", "content": "x"})
        attempts: list[Callable[[], object]] = [
            lambda: record.take(past),
            lambda: record.begin(turn, past),
            lambda: record.clear(past),
            lambda: record.end_calls(turn, past),
        ]
        for attempt in attempts:
            with pytest.raises(ProcessExit):
                attempt()
        assert not turn.has_begun


def test_a_turn_that_was_taken_and_not_begun_is_begun_by_the_next_process() -> None:
    with SimulatedSystem() as system:
        agent, script = agent_on(system, say("One."))
        begun = threading.Event()
        record = agent._record
        begin = record.begin

        def die_once(turn: Turn, by: ProcessRef) -> None:
            if not begun.is_set():
                begun.set()
                system.runtime.exit(by, "kill")
                raise ProcessExit("killed")
            begin(turn, by)

        record.begin = die_once  # type: ignore[method-assign]
        stream = agent.stream_chat("First?")
        assert stream.result(60).text == "One."
        assert script.requests == 1
        assert [type(event).__name__ for event in stream.events()].count("StreamStarted") == 1
