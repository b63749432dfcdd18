"""The simulation: the same seed gives the same run, other seeds other runs, and time passes only on request."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Call, Keep, NamedTimeout, Next, answer, timeout
from penstock.errors import CallTimeout, ProcessDead
from penstock.testing import Deadlock, Simulation


class Noting(Process):
    in_pykka_registry = False

    def __init__(self, name: str, notes: list[Any], to: ProcessRef | None = None) -> None:
        super().__init__()
        self.who, self.notes, self.to = name, notes, to

    def on_receive(self, message: Any) -> Any:
        self.notes.append((self.who, message))
        if self.to is not None:
            self.to.tell((self.who, message))
        return message


class Slow(StateMachine):
    """Answers a call after the number of seconds in its message."""

    def init(self) -> str:
        return "only"

    def only(self, event: Any) -> Any:
        match event:
            case Call(message=seconds, reply_to=caller):
                return Keep(timeout(caller, seconds, caller))
            case NamedTimeout(content=caller):
                return Keep(answer(caller, self.runtime.clock.monotonic()))
        return None


def run(seed: int) -> list[Any]:
    notes: list[Any] = []
    with Simulation(seed) as simulation:
        last = simulation.spawn(Noting, "last", notes)
        actors = [simulation.spawn(Noting, f"actor {number}", notes, last) for number in range(5)]
        for message in range(4):
            for actor in actors:
                actor.tell(message)
        simulation.settle()
    return notes


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    assert run(1) == run(1)
    assert len({repr(run(seed)) for seed in range(10)}) > 5


def test_each_senders_order_holds_under_every_seed() -> None:
    for seed in range(20):
        notes = run(seed)
        for number in range(5):
            who = f"actor {number}"
            assert [message for name, message in notes if name == who] == [0, 1, 2, 3]
            assert [note[1] for name, note in notes if name == "last" and note[0] == who] == [0, 1, 2, 3]


def test_time_stands_still_until_a_wait_or_advance_moves_it() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Slow)
        start = simulation.clock.monotonic()
        call = ref.ask(5, block=False)
        simulation.settle()
        assert (simulation.clock.monotonic(), call.is_done) == (start, False)
        simulation.advance(4.5)
        assert not call.is_done
        assert call.get(timeout=1) == start + 5
        assert simulation.clock.monotonic() == start + 5
        simulation.advance(100)
        assert simulation.clock.monotonic() == start + 105


def test_a_wait_that_times_out_takes_exactly_its_time() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Slow)
        start = simulation.clock.monotonic()
        with pytest.raises(CallTimeout):
            ref.ask(10, timeout=3)
        assert simulation.clock.monotonic() == start + 3


def test_a_pause_takes_exactly_its_time_and_other_processes_run_meanwhile() -> None:
    with Simulation() as simulation:
        start = simulation.clock.monotonic()
        call = simulation.spawn(Slow).ask(2, block=False)
        simulation.dispatcher.pause(3)
        assert simulation.clock.monotonic() == start + 3
        assert call.is_done
        simulation.dispatcher.pause(-1)
        assert simulation.clock.monotonic() == start + 3


def test_timers_fire_one_by_one_and_all_their_effects_come_before_the_next() -> None:
    class Ticking(StateMachine):
        def init(self) -> Next:
            self.ticks: list[float] = []
            return Next("only", timeout("tick", 1))

        def only(self, event: Any) -> Any:
            self.ticks.append(self.runtime.clock.monotonic() - 1000)
            return Keep(timeout("tick", 1))

    with Simulation() as simulation:
        ref = simulation.spawn(Ticking)
        machine: Any = ref._actor_weakref()
        simulation.advance(5)
        assert machine.ticks == [1, 2, 3, 4, 5]


def test_waiting_for_what_can_never_come_raises_deadlock() -> None:
    with Simulation() as simulation, pytest.raises(Deadlock):
        Reply(simulation.dispatcher).get()


def test_an_actor_may_wait_for_another_which_runs_meanwhile() -> None:
    class Asking(Process):
        def __init__(self, other: ProcessRef) -> None:
            super().__init__()
            self.other = other

        def on_receive(self, message: Any) -> Any:
            return self.other.ask(message, timeout=10) - self.runtime.clock.monotonic()

    for seed in range(5):
        with Simulation(seed) as simulation:
            asking = simulation.spawn(Asking, simulation.spawn(Slow))
            assert asking.ask(3, timeout=20) == 0


def test_at_the_end_no_process_is_left() -> None:
    simulation = Simulation()
    with simulation:
        ref = simulation.spawn(Slow)
        call = ref.ask(5, block=False)
    assert simulation.runtime.processes() == []
    with pytest.raises(ProcessDead):
        call.get(timeout=0)
    with pytest.raises(ProcessDead):
        ref.ask(5)
    assert simulation.dispatcher.statistics().queued == 0
