"""The simulation: the same seed gives the same run, other seeds other runs, and time passes only on request."""

from __future__ import annotations

import functools
import itertools
import threading
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


# --- simulated threads ---------------------------------------------------------------------------------------------


def locked() -> threading.Lock:
    latch = threading.Lock()
    latch.acquire()
    return latch


def test_threads_that_wait_end_in_whatever_order_their_latches_are_released() -> None:
    for order in itertools.permutations(range(3)):
        with Simulation() as simulation:
            latches = [locked() for _ in range(3)]
            threads = [
                simulation.start_thread(functools.partial(simulation.dispatcher.wait, latch, None)) for latch in latches
            ]
            simulation.settle()
            ended: list[int] = []
            for number in order:
                latches[number].release()
                simulation.settle()
                ended += [other for other in range(3) if threads[other].has_ended and other not in ended]
            assert tuple(ended) == order


def test_a_threads_wait_takes_exactly_its_time_and_actors_run_meanwhile() -> None:
    with Simulation() as simulation:
        start = simulation.clock.monotonic()
        waited: list[float] = []

        def run() -> None:
            waited.append(simulation.dispatcher.wait(locked(), 3))
            waited.append(simulation.clock.monotonic() - start)
            simulation.dispatcher.pause(0.5)
            waited.append(simulation.clock.monotonic() - start)
            waited.append(simulation.spawn(Slow).ask(2, timeout=10) - start)

        call = simulation.spawn(Slow).ask(2, block=False)
        simulation.start_thread(run)
        simulation.advance(2.5)
        assert (call.is_done, waited) == (True, [])
        simulation.advance(10)
        assert waited == [False, 3, 3.5, 5.5]
        assert len(simulation.timers) == 0


def test_a_wait_that_was_granted_leaves_no_timer() -> None:
    with Simulation() as simulation:
        latch, granted = locked(), []
        simulation.start_thread(lambda: granted.append(simulation.dispatcher.wait(latch, 5)))
        simulation.advance(1)
        latch.release()
        simulation.settle()
        assert granted == [True]
        assert len(simulation.timers) == 0


def test_the_seed_decides_when_a_thread_runs() -> None:
    def order(seed: int) -> str:
        notes: list[Any] = []
        with Simulation(seed) as simulation:

            def run() -> None:
                for _ in range(4):
                    notes.append(("thread", None))
                    simulation.dispatcher.pause(0)

            simulation.start_thread(run)
            actor = simulation.spawn(Noting, "actor", notes)
            for message in range(4):
                actor.tell(message)
            simulation.advance(1)
        return "".join(name[0] for name, _ in notes)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(20)}) > 3


def test_what_a_thread_raises_is_raised_by_the_step_that_runs_it() -> None:
    def fail() -> None:
        simulation.dispatcher.pause(1)
        raise ValueError("broken")

    with Simulation() as simulation:
        simulation.start_thread(fail)
        simulation.settle()
        with pytest.raises(ValueError, match="broken"):
            simulation.advance(2)
        simulation.settle()


def test_a_thread_that_can_never_go_on_does_not_hide_a_deadlock() -> None:
    with Simulation() as simulation:
        simulation.start_thread(lambda: simulation.dispatcher.wait(locked(), None))
        with pytest.raises(Deadlock):
            Reply(simulation.dispatcher).get()


def test_closing_ends_the_threads_wherever_they_wait() -> None:
    ended: list[str] = []

    def run() -> None:
        try:
            simulation.dispatcher.wait(locked(), 100)
        finally:
            ended.append("waiting")
            simulation.dispatcher.pause(1)
            ended.append("never")

    simulation = Simulation()
    with simulation:
        waiting = simulation.start_thread(run)
        simulation.settle()
        fresh = simulation.start_thread(lambda: ended.append("never"))
    simulation.settle()
    assert ended == ["waiting"]
    assert (waiting.has_ended, fresh.has_ended) == (True, False)
    assert len(simulation.timers) == 0
