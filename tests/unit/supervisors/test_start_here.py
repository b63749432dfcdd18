"""Children that are started in another thread than their supervisor's, in virtual time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reasons import KILL
from penstock.errors import ProcessDead, StartError, SupervisorError
from penstock.supervisors.calls import StartChild, get_childspec, start_child, terminate_child, which_children
from penstock.supervisors.children import Child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import ChildExited, ChildSpec, Restart
from penstock.testing import Simulation

SEEN: list[Any] = []


class Worker(Process):
    in_pykka_registry = False

    def __init__(self, start: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._start = start

    def on_start(self) -> None:
        if self._start is not None:
            self._start()

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class Observer(Worker):
    def on_receive(self, message: Any) -> Any:
        SEEN.append(message)


class Interrupted(DynamicSupervisor):
    """Does something between the start of a child's process and its entry, as another thread may."""

    between: Callable[[ProcessRef], None] | None = None

    def _spawn_once(self, child: Child) -> ProcessRef:
        ref = super()._spawn_once(child)
        if self.between is not None:
            between, self.between = self.between, None
            between(ref)
        return ref


class House:
    def __init__(self, simulation: Simulation) -> None:
        SEEN.clear()
        self.simulation = simulation
        self.runtime = simulation.runtime
        self.runtime.spawn(Observer, name="observer")
        self.ref = self.runtime.spawn(Interrupted, observer="observer", name="it")
        process: Any = self.ref._actor_weakref()
        self.supervisor: Interrupted = process

    def start(self, restart: Restart = "temporary", start: Callable[[], None] | None = None) -> ProcessRef:
        return self.supervisor.start_here(child_of(restart, start))

    def told(self) -> list[Any]:
        self.simulation.settle()
        return [(one.spec.id, one.spec.args, one.spec.name, one.reason) for one in SEEN if isinstance(one, ChildExited)]


def child_of(restart: Restart = "temporary", start: Callable[[], None] | None = None) -> Child:
    return Child(ChildSpec(id="worker", cls=Worker, restart=restart), "a", (start,), "worker/a")


@pytest.fixture
def house() -> Iterator[House]:
    with Simulation() as simulation:
        yield House(simulation)


def test_it_is_a_child_like_any_other(house: House) -> None:
    ref = house.start()
    (info,) = which_children(house.ref)
    assert (info.id, info.ref, info.cls, info.state) == ("a", ref, Worker, "running")
    assert get_childspec(house.ref, "a") == ChildSpec(
        id="a", cls=Worker, restart="temporary", args=(None,), name="worker/a"
    )
    assert house.runtime.whereis("worker/a") is ref
    assert house.told() == []
    terminate_child(house.ref, "a")
    assert (ref.is_alive(), which_children(house.ref)) == (False, [])


def quiet(process: Any) -> None:
    process.ends_quietly = True
    process.exit()


def test_one_that_ends_quietly_is_forgotten_at_once_and_nothing_is_reported(house: House) -> None:
    ref = house.start("transient")
    process: Any = ref._actor_weakref()
    assert ref.actor_inbox.borrow()
    process.run_step(quiet, process)  # nothing else runs meanwhile, neither the supervisor
    assert (ref.is_alive(), house.supervisor._children, house.supervisor._by_ref) == (False, {}, {})
    assert house.supervisor.actor_inbox.empty()
    assert house.told() == []
    assert house.start().is_alive()


def test_what_only_one_that_ends_quietly_had_is_freed_without_a_lock_of_the_runtime(house: House) -> None:
    class Forgetful(Worker):
        def on_start(self) -> None:
            self._start = None

    class Thing:
        def __call__(self) -> None: ...

    def freed() -> None:
        locked.append(lock._is_owned())

    lock: Any = house.runtime._lock
    locked: list[bool] = []
    thing = Thing()
    weakref.finalize(thing, freed)
    ref = house.supervisor.start_here(Child(ChildSpec(id="worker", cls=Forgetful, restart="temporary"), "a", (thing,)))
    del thing
    assert locked == []
    end_quietly(house, ref)
    assert locked == [False]


def anonymous(start: Callable[[], None] | None = None) -> Child:
    return Child(ChildSpec(id="worker", cls=Worker, restart="temporary"), "a", (start,))


def test_one_that_ends_quietly_leaves_the_child_that_has_its_id_by_then(house: House) -> None:
    ref, later = house.supervisor.start_here(anonymous()), []
    process: Any = ref._actor_weakref()
    end_child = house.supervisor._end_child

    def meanwhile(child: Child) -> None:
        """Another thread starts the next child, and then the first one ends."""
        later.append(house.supervisor.start_here(anonymous()))
        assert ref.actor_inbox.borrow()
        process.run_step(quiet, process)
        end_child(child)

    house.supervisor._end_child = meanwhile  # type: ignore[method-assign]
    terminate_child(house.ref, "a")
    assert (ref.is_alive(), [info.ref for info in which_children(house.ref)]) == (False, later)


def test_a_start_that_fails_leaves_the_child_that_has_its_id_by_then(house: House) -> None:
    later: list[ProcessRef] = []

    def fail() -> None:
        terminate_child(house.ref, "a")
        later.append(house.supervisor.start_here(anonymous()))
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        house.supervisor.start_here(anonymous(fail))
    assert [info.ref for info in which_children(house.ref)] == later


def test_one_that_would_end_quietly_is_reported_if_it_ends_otherwise(house: House) -> None:
    ref = house.start()
    process: Any = ref._actor_weakref()
    process.ends_quietly = True
    house.runtime.exit(ref, KILL)
    assert house.told() == [("a", (None,), "worker/a", "killed")]
    assert which_children(house.ref) == []


def test_one_that_ends_quietly_before_it_is_entered_is_reported(house: House) -> None:
    house.supervisor.between = lambda ref: end_quietly(house, ref)
    house.start()
    assert [reason for _, _, _, reason in house.told()] == ["normal"]
    assert which_children(house.ref) == []


def end_quietly(house: House, ref: ProcessRef) -> None:
    ref.tell(quiet)
    house.simulation.settle()


def test_a_permanent_one_that_ends_quietly_is_started_again(house: House) -> None:
    ref = house.start("permanent")
    end_quietly(house, ref)
    (info,) = which_children(house.ref)
    assert (info.ref is ref, info.restarts) == (False, 1)


def test_its_crash_is_reported_with_its_own_specification(house: House) -> None:
    crash = ValueError("x")
    ref = house.start()
    house.runtime.exit(ref, crash)
    assert house.told() == [("a", (None,), "worker/a", crash)]
    assert which_children(house.ref) == []


def test_it_is_started_again_with_its_arguments_and_its_name(house: House) -> None:
    started: list[int] = []
    ref = house.start("transient", lambda: started.append(1))
    house.runtime.exit(ref, ValueError("x"))
    assert house.told() == []
    (info,) = which_children(house.ref)
    assert (info.ref is ref, info.restarts, len(started)) == (False, 1, 2)
    assert house.runtime.whereis("worker/a") is info.ref


def test_of_two_that_start_the_same_child_one_does(house: House) -> None:
    ref = house.start()
    ways: list[Callable[[], object]] = [house.start, lambda: start_child(house.ref, child_of().own_spec())]
    for again in ways:
        with pytest.raises(SupervisorError) as caught:
            again()
        assert (caught.value.code, caught.value.detail) == ("already_started", ref)
    assert [info.ref for info in which_children(house.ref)] == [ref]
    assert house.told() == []


def test_the_id_is_taken_before_the_child_runs(house: House) -> None:
    refused: list[str] = []

    def meanwhile(_: ProcessRef) -> None:
        with pytest.raises(SupervisorError) as caught:
            start_child(house.ref, child_of().own_spec())
        refused.append(caught.value.code)

    house.supervisor.between = meanwhile
    ref = house.start()
    assert (refused, ref.is_alive(), len(which_children(house.ref))) == (["already_started"], True, 1)


@pytest.mark.parametrize("restart", ["temporary", "transient"])
def test_an_exit_that_was_handled_before_the_child_was_entered_counts_once(house: House, restart: Restart) -> None:
    crash = ValueError("x")

    def meanwhile(ref: ProcessRef) -> None:
        house.runtime.exit(ref, crash)
        house.simulation.settle()  # the supervisor gets the notice of a child that it does not know

    house.supervisor.between = meanwhile
    ref = house.start(restart)
    told = house.told()
    assert not ref.is_alive()
    if restart == "temporary":
        assert [reason for *_, reason in told] == [crash]
        assert which_children(house.ref) == []
    else:
        (info,) = which_children(house.ref)
        assert (told, info.restarts, info.state) == ([], 1, "running")


def test_a_child_that_is_ended_by_its_id_while_it_starts_does_not_stay(house: House) -> None:
    house.supervisor.between = lambda ref: terminate_child(house.ref, "a")
    ref = house.start()
    house.simulation.settle()
    assert (ref.is_alive(), which_children(house.ref)) == (False, [])


def test_a_child_that_cannot_start_is_reported_and_leaves_nothing(house: House) -> None:
    def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        house.start(start=fail)
    ((id_, _, name, reason),) = house.told()
    assert (id_, name, type(reason)) == ("a", "worker/a", ValueError)
    assert (which_children(house.ref), house.runtime.whereis("worker/a")) == ([], None)
    assert house.start().is_alive()


def test_a_child_whose_name_is_taken_is_not_reported(house: House) -> None:
    house.runtime.spawn(Worker, name="worker/a")
    with pytest.raises(StartError) as caught:
        house.start()
    assert caught.value.code == "already_started"
    assert (house.told(), which_children(house.ref)) == ([], [])


def test_a_dead_supervisor_starts_nothing(house: House) -> None:
    house.runtime.exit(house.ref, KILL)
    with pytest.raises(StartError) as caught:
        house.start()
    assert isinstance(caught.value.code, ProcessDead)
    assert (house.told(), house.supervisor._children, house.runtime.whereis("worker/a")) == ([], {}, None)


def test_a_supervisor_that_dies_takes_a_child_with_it_that_is_just_being_entered(house: House) -> None:
    house.supervisor.between = lambda ref: house.runtime.exit(house.ref, KILL)
    ref = house.start()
    house.simulation.settle()
    assert not ref.is_alive()


@pytest.mark.parametrize("when", ["in its start", "after its start"])
def test_ctrl_c_leaves_no_child_behind(house: House, when: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if when == "after its start":
        house.supervisor.between = interrupt
    with pytest.raises(KeyboardInterrupt):
        house.start(start=interrupt if when == "in its start" else None)
    house.simulation.settle()
    assert (which_children(house.ref), house.runtime.whereis("worker/a")) == ([], None)
    assert house.start().is_alive()


def test_ctrl_c_in_the_start_of_a_child_without_a_name_kills_nothing(house: House) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    other = house.start()
    with pytest.raises(KeyboardInterrupt):
        house.supervisor.start_here(Child(ChildSpec(id="b", cls=Worker), None, (interrupt,)))
    house.simulation.settle()
    assert [info.ref for info in which_children(house.ref)] == [other]


@pytest.mark.parametrize("is_dead", [False, True])
def test_ctrl_c_after_the_start_of_a_child_without_a_name_kills_it(house: House, is_dead: bool) -> None:
    class Interrupts(dict[ProcessRef, Child]):
        def __setitem__(self, ref: ProcessRef, child: Child) -> None:
            if is_dead:
                house.runtime.exit(ref, KILL)
                house.simulation.settle()
                assert ref._actor_weakref() is None
            raise KeyboardInterrupt

    refs: list[ProcessRef] = []
    house.supervisor.between = refs.append
    house.supervisor._by_ref = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        house.supervisor.start_here(Child(ChildSpec(id="b", cls=Worker)))
    house.simulation.settle()
    assert ([ref.is_alive() for ref in refs], which_children(house.ref)) == ([False], [])


@pytest.mark.parametrize("parent", ["none", "another", "the same, of another child"])
def test_ctrl_c_kills_no_process_that_only_has_the_name_of_the_child(house: House, parent: str) -> None:
    if parent == "none":
        other: Any = house.runtime.spawn(Worker, name="worker/a")
    else:
        supervisor = house.ref if parent != "another" else house.runtime.spawn(DynamicSupervisor)
        other = start_child(supervisor, ChildSpec(id="b", cls=Worker, name="worker/a"))
    house.supervisor._kill_interrupted(child_of())  # as if it came before the name was looked up
    house.simulation.settle()
    assert other.is_alive()


def test_a_request_that_comes_while_the_child_starts_does_not_start_a_second_one(house: House) -> None:
    """As the one of a handler that was restarted, which waits for no answer."""
    house.supervisor.between = lambda ref: house.ref.tell(StartChild(child_of().own_spec()))
    ref = house.start()
    assert house.told() == []
    assert [info.ref for info in which_children(house.ref)] == [ref]
