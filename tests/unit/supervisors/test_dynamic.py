"""A dynamic supervisor's answers and what its observer hears, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import IGNORE
from penstock.errors import OptionError, StartError, SupervisorError
from penstock.supervisors.calls import (
    GetChildSpec,
    StartChild,
    Successor,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_child,
    which_children,
)
from penstock.supervisors.children import Child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import Backoff, ChildCounts, ChildExited, ChildSpec
from penstock.supervisors.supervisor import Supervisor
from penstock.testing import Simulation


class Worker(Process):
    in_pykka_registry = False

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class Idle(StateMachine):
    def init(self) -> Any:
        return IGNORE


class Observer(Worker):
    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self._seen = seen

    def on_receive(self, message: Any) -> Any:
        self._seen.append(message)


class House:
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.runtime = simulation.runtime
        self.seen: list[Any] = []
        self.runtime.spawn(Observer, self.seen, name="observer")

    def supervisor(self, *args: Any, **options: Any) -> ProcessRef:
        return self.runtime.spawn(DynamicSupervisor, *args, observer="observer", name="it", **options)


@pytest.fixture
def house() -> Iterator[House]:
    with Simulation() as simulation:
        yield House(simulation)


SPEC = ChildSpec(id="a", cls=Worker)


@pytest.mark.parametrize("ask", [restart_child, delete_child])
def test_a_child_that_runs_is_neither_started_again_nor_deleted(house: House, ask: Any) -> None:
    supervisor = house.supervisor()
    ref = start_child(supervisor, SPEC)
    for id, code in (("a", "running"), ("b", "not_found")):
        with pytest.raises(SupervisorError) as caught:
            ask(supervisor, id)
        assert caught.value.code == code
    assert which_child(supervisor, "a").ref is ref


@pytest.mark.parametrize("ask", [restart_child, delete_child])
def test_the_children_of_a_template_have_no_ids_to_ask_for(house: House, ask: Any) -> None:
    supervisor = house.supervisor(SPEC)
    with pytest.raises(SupervisorError) as caught:
        ask(supervisor, "a")
    assert caught.value.code == "simple_one_for_one"


def test_a_template_is_started_with_arguments_and_no_specification(house: House) -> None:
    supervisor = house.supervisor(SPEC)
    with pytest.raises(SupervisorError) as caught:
        supervisor.ask(StartChild(SPEC))
    assert caught.value.code == "simple_one_for_one"
    refs: list[Any] = [start_child(supervisor, ()) for _ in range(2)]
    assert [child.id for child in which_children(supervisor)] == ["a#2", "a#1"]
    assert supervisor.ask(GetChildSpec(refs[0])) == SPEC


def test_the_observer_hears_of_a_child_that_had_nothing_to_do(house: House) -> None:
    supervisor = house.supervisor()
    spec = ChildSpec(id="idle", cls=Idle)
    assert start_child(supervisor, spec) is None
    house.simulation.settle()
    assert house.seen == [ChildExited(spec, None, "normal", "it")]
    assert which_children(supervisor) == []


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
def test_a_dead_child_has_a_successor_if_it_is_restarted(house: House, restart: Any) -> None:
    supervisor = house.supervisor()
    other = start_child(supervisor, ChildSpec(id="b", cls=Worker))
    ref = start_child(supervisor, ChildSpec(id="a", cls=Worker, restart=restart))
    assert ref is not None
    assert supervisor.ask(Successor(ref)) == "restarting"  # it has not heard of the death that the asker knows of
    house.runtime.exit(ref, "kill")
    house.simulation.settle()
    successor = supervisor.ask(Successor(ref))
    if restart == "temporary":
        assert successor is None
        assert [exited.ref for exited in house.seen] == [ref]
    else:
        assert successor is which_child(supervisor, "a").ref
        assert successor not in (ref, other)
        assert house.seen == []


def test_a_child_that_is_terminated_is_found_by_its_ref_no_more(house: House) -> None:
    supervisor = house.supervisor()
    ref = start_child(supervisor, SPEC)
    assert ref is not None
    terminate_child(supervisor, ref)
    assert not ref.is_alive()
    terminate_child(supervisor, ref)  # it is dead, which is what was asked for
    with pytest.raises(SupervisorError):
        which_child(supervisor, ref)
    again: Any = start_child(supervisor, SPEC)
    assert which_child(supervisor, again).id == "a"


def test_a_child_that_was_restarted_is_found_by_its_new_ref_only(house: House) -> None:
    supervisor = house.supervisor()
    ref = start_child(supervisor, SPEC)
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    info: Any = which_child(supervisor, "a")
    assert (info.restarts, info.ref is ref) == (1, False)
    assert which_child(supervisor, info.ref).id == "a"
    with pytest.raises(SupervisorError):
        which_child(supervisor, ref)


def process_of(supervisor: ProcessRef) -> Any:
    return supervisor._actor_weakref()


@pytest.mark.parametrize("parent", ["none", "a supervisor that lives"])
def test_a_name_that_is_taken_by_a_process_that_will_stay_is_not_waited_for(house: House, parent: str) -> None:
    supervisor = house.supervisor()
    if parent == "none":
        house.runtime.spawn(Worker, name="taken")
    else:
        other = house.runtime.spawn(DynamicSupervisor)
        start_child(other, ChildSpec(id="b", cls=Worker, name="taken"))
    before = house.runtime.clock.monotonic()
    with pytest.raises(StartError) as caught:
        start_child(supervisor, ChildSpec(id="a", cls=Worker, name="taken"))
    assert caught.value.code == "already_started"
    assert house.runtime.clock.monotonic() == before


def test_a_child_that_waits_for_its_restart_has_a_successor_to_come_and_leaves_no_timer(house: House) -> None:
    supervisor = house.supervisor()
    backoff = Backoff(min=1.0, max=8.0, jitter=0.0)
    ref = start_child(supervisor, ChildSpec(id="a", cls=Worker, backoff=backoff))
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    assert supervisor.ask(Successor(ref)) == "restarting"
    assert (which_child(supervisor, "a").state, which_child(supervisor, ref).id) == ("restarting", "a")
    assert len(process_of(supervisor)._retry_timers) == 1
    house.simulation.advance(1.0)
    successor = which_child(supervisor, "a").ref
    assert successor is not None
    assert successor.is_alive()
    assert supervisor.ask(Successor(ref)) is successor
    assert process_of(supervisor)._retry_timers == set()


def test_a_child_that_has_nothing_left_to_do_when_it_is_restarted_is_removed(house: House) -> None:
    starts: list[int] = []

    class Once(Worker):
        def on_start(self) -> None:
            starts.append(1)
            if len(starts) > 1:
                self.exit("normal")

    supervisor = house.supervisor()
    spec = ChildSpec(id="a", cls=Once)
    ref = start_child(supervisor, spec)
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    assert (which_children(supervisor), len(starts)) == ([], 2)
    assert house.seen == [ChildExited(spec, ref, "normal", "it")]


def test_a_child_whose_restart_has_nothing_to_do_is_reported_with_the_ref_that_it_had(house: House) -> None:
    starts = iter(("starts", "ignores"))

    class Ignores(Worker):
        def on_start(self) -> None:
            if next(starts) == "ignores":
                raise StartError("a", "ignore")

    spec = ChildSpec(id="a", cls=Ignores)
    supervisor = house.supervisor()
    ref = start_child(supervisor, spec)
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    assert house.seen == [ChildExited(spec, ref, "normal", "it")]
    assert which_children(supervisor) == []


def test_the_observer_hears_of_a_child_that_did_not_start(house: House) -> None:
    class Fails(Worker):
        def on_start(self) -> None:
            raise ValueError("x")

    spec = ChildSpec(id="a", cls=Fails)
    supervisor = house.supervisor()
    with pytest.raises(ValueError, match="x") as caught:
        start_child(supervisor, spec)
    house.simulation.settle()
    assert house.seen == [ChildExited(spec, None, caught.value, "it")]
    assert which_children(supervisor) == []


def test_restarts_and_those_that_fail_are_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    starts = iter(("starts", "fails", "starts", "starts"))

    class Fails(Worker):
        def on_start(self) -> None:
            if next(starts) == "fails":
                raise ValueError("x")

    supervisor = house.supervisor()
    ref = start_child(supervisor, ChildSpec(id="a", cls=Fails))
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    assert (caplog.text.count("restart_failed"), caplog.text.count("child_restarted")) == (1, 1)
    ref = which_child(supervisor, "a").ref
    assert ref is not None
    ref.tell(lambda process: process.exit("weary"))
    house.simulation.settle()
    assert "child_restarted actor=it child=a reason=weary restarts=3" in caplog.text


def test_the_refs_of_the_last_eight_incarnations_have_a_successor(house: House) -> None:
    supervisor = house.supervisor(intensity=100)
    ref = start_child(supervisor, SPEC)
    refs = [ref]
    for _ in range(9):
        assert ref is not None
        ref.tell(lambda process: process.exit("crash"))
        house.simulation.settle()
        ref = which_child(supervisor, "a").ref
        refs.append(ref)
    assert [supervisor.ask(Successor(one)) for one in refs[:-1]] == [None, *[ref] * 8]  # type: ignore[arg-type]


def test_a_child_that_crashes_more_than_three_times_in_five_seconds_is_removed_alone(house: House) -> None:
    supervisor = house.supervisor()
    other: Any = start_child(supervisor, ChildSpec(id="b", cls=Worker))
    start_child(supervisor, SPEC)

    def crash(times: int) -> list[str]:
        """Returns the children that are left."""
        for _ in range(times):
            ref: Any = which_child(supervisor, "a").ref
            ref.tell(lambda process: process.exit("crash"))
            house.simulation.settle()
        return sorted(child.id for child in which_children(supervisor))

    assert crash(3) == ["a", "b"]
    house.simulation.advance(5.5)
    assert crash(3) == ["a", "b"]
    assert crash(1) == ["b"]
    assert other.is_alive()


def test_a_caller_of_a_supervisor_that_is_killed_amid_the_call_hears_of_it_at_once(house: House) -> None:
    answered: list[bool] = []

    class Kills(Worker):
        def on_start(self) -> None:
            house.runtime.exit(supervisor, "kill")
            answered.append(reply.is_done)

    supervisor = house.supervisor()
    assert supervisor not in pykka.ActorRegistry.get_all()
    reply: Any = supervisor.ask(StartChild(ChildSpec(id="a", cls=Kills)), block=False)
    house.simulation.settle()
    assert answered == [True]


def test_what_is_no_specification_is_refused(house: House) -> None:
    supervisor = house.supervisor()
    for spec in ("a", (), None):
        with pytest.raises(SupervisorError) as caught:
            start_child(supervisor, spec)  # type: ignore[arg-type]
        assert caught.value.code == "invalid_child_spec"
    assert (which_children(supervisor), house.seen) == ([], [])


def test_a_supervisor_that_is_killed_amid_a_restart_leaves_no_timer(house: House) -> None:
    supervisor = house.supervisor()
    start_child(supervisor, ChildSpec(id="a", cls=Worker, backoff=Backoff(min=1.0, max=8.0)))
    process = process_of(supervisor)
    house.runtime.exit(supervisor, "kill")
    for delay in (0.0, 1.0):  # it does not know yet
        process._start_later(process._children["a"], delay)
        assert len(house.simulation.timers) == 0


@pytest.mark.parametrize("name", ["it", None])
def test_restarts_are_counted_by_the_supervisors_name_or_else_by_its_class(house: House, name: str | None) -> None:
    supervisor = house.runtime.spawn(DynamicSupervisor, name=name)
    ref = start_child(supervisor, SPEC)
    assert ref is not None
    ref.tell(lambda process: process.exit("crash"))
    house.simulation.settle()
    assert house.runtime.restarts() == {name or "DynamicSupervisor": 1}


def test_a_restart_without_a_wait_is_the_next_message_and_needs_no_timer(house: House) -> None:
    process = process_of(house.supervisor())
    start_child(process.ref, SPEC)
    process._start_later(process._children["a"])
    assert process._children["a"].state == "restarting"
    process._start_later(Child(SPEC))  # it never ran
    assert None not in process._by_ref
    assert (len(house.simulation.timers), process._retry_timers) == (0, set())


def test_the_wait_for_a_restart_grows_until_the_child_has_run_for_the_longest_wait(house: House) -> None:
    supervisor = process_of(house.supervisor())
    child: Any = Child(ChildSpec(id="a", cls=Worker, backoff=Backoff(min=1.0, max=8.0, jitter=0.0)))
    waits = []
    for state, ago in (("running", 7.9), ("restarting", 100.0), ("running", 0.0), ("running", 8.0), ("running", 1.0)):
        child.state = state
        child.started_at = house.runtime.clock.monotonic() - ago
        waits.append(supervisor._next_delay(child))
    assert waits == [1.0, 2.0, 4.0, 1.0, 2.0]


def test_a_start_that_says_of_itself_that_its_name_is_taken_is_not_tried_again(house: House) -> None:
    starts: list[int] = []

    class Fails(Worker):
        def on_start(self) -> None:
            starts.append(1)
            raise StartError("a", "already_started")

    with pytest.raises(StartError) as caught:
        start_child(house.supervisor(), ChildSpec(id="a", cls=Fails))
    assert (caught.value.code, len(starts)) == ("already_started", 1)


def test_the_arguments_of_a_templates_temporary_children_are_not_kept(house: House) -> None:
    class Takes(Worker):
        def __init__(self, what: str) -> None:
            super().__init__()

    supervisor = house.supervisor(ChildSpec(id="a", cls=Takes, restart="temporary"))
    start_child(supervisor, ("large",))
    assert [child.args for child in process_of(supervisor)._children.values()] == [()]


@pytest.mark.parametrize("when", ["start", "restart"])
def test_a_start_that_ends_with_what_is_equal_to_everything_has_failed(house: House, when: str) -> None:
    class Same:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    starts = iter([*["starts"] * (when == "restart"), "fails"])

    class Fails(Worker):
        def on_start(self) -> None:
            if next(starts, "starts") == "fails":
                self.exit(Same())

    supervisor = house.supervisor()
    spec = ChildSpec(id="a", cls=Fails)
    if when == "start":
        with pytest.raises(StartError):
            start_child(supervisor, spec)
    else:
        ref = start_child(supervisor, spec)
        assert ref is not None
        ref.tell(lambda process: process.exit("crash"))
        house.simulation.settle()
        assert which_child(supervisor, "a").state == "running"


@pytest.mark.parametrize("code", ["already_started", "broken"])
def test_only_a_name_that_is_taken_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    starts: list[int] = []

    class Fails(Worker):
        def on_start(self) -> None:
            starts.append(1)
            raise StartError("a", code, other)

    other = house.runtime.spawn(Worker)
    supervisor = house.supervisor()
    monkeypatch.setattr(process_of(supervisor), "_is_orphan", lambda ref: ref is other)
    before = house.runtime.clock.monotonic()
    with pytest.raises(StartError):
        start_child(supervisor, ChildSpec(id="a", cls=Fails), 60)
    is_waited_for = code == "already_started"
    assert len(starts) == (2 if is_waited_for else 1)
    assert house.runtime.clock.monotonic() - before == (5.0 if is_waited_for else 0.0)


@pytest.mark.parametrize("kind", [Worker, DynamicSupervisor])
def test_an_orphan_is_the_child_of_a_supervisor_that_is_dead(house: House, kind: type[Process]) -> None:
    process = process_of(house.supervisor())
    parent = house.runtime.spawn(kind)
    child = house.runtime.spawn(Worker, link=parent)
    assert process._is_orphan(child) is False
    house.runtime.exit(parent, "kill")  # of which the child has not heard yet
    assert child.is_alive()
    assert process._is_orphan(child) is (kind is DynamicSupervisor)


def test_children_are_waited_for_as_long_as_each_one_says(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = house.supervisor()
    refs = [start_child(supervisor, ChildSpec(id=str(time), cls=Worker, shutdown=time)) for time in (None, 7.0, 3.0)]
    waits: list[tuple[ProcessRef, float | None]] = []
    join = Runtime.join

    def spy(runtime: Runtime, ref: ProcessRef, timeout: float | None = None) -> bool:
        waits.append((ref, timeout))
        return join(runtime, ref, timeout)

    monkeypatch.setattr(Runtime, "join", spy)
    supervisor.terminate(timeout=20)
    assert waits[-3:] == [(refs[2], 3.0), (refs[1], 7.0), (refs[0], None)]


def test_the_flags_are_checked_and_the_children_counted(house: House) -> None:
    for flags in ({"intensity": -1}, {"period": 0.0}):
        with pytest.raises(OptionError):
            house.runtime.spawn(DynamicSupervisor, **flags)
    supervisor = house.supervisor()
    for id in "ab":
        start_child(supervisor, ChildSpec(id=id, cls=Worker))
    assert count_children(supervisor) == ChildCounts(specs=2, active=2, supervisors=0, workers=2)


def test_a_name_whose_process_is_gone_belongs_to_no_orphan(house: House) -> None:
    ref = house.runtime.spawn(Worker)
    house.runtime.exit(ref, "kill")
    house.simulation.settle()
    assert ref._actor_weakref() is None
    assert process_of(house.supervisor())._is_orphan(ref) is False


def test_a_temporary_childs_arguments_are_not_kept_unless_the_observer_is_to_get_them(house: House) -> None:
    class Takes(Worker):
        def __init__(self, what: str) -> None:
            super().__init__()

    spec = ChildSpec(id="a", cls=Takes, args=("large",), restart="temporary")
    kept, forgotten = house.supervisor(), house.runtime.spawn(DynamicSupervisor)
    for supervisor, args in ((kept, ("large",)), (forgotten, ())):
        start_child(supervisor, spec)
        assert supervisor.ask(GetChildSpec("a")).args == args
        assert process_of(supervisor)._children["a"].args == args


def test_a_child_that_is_stopped_has_no_successor_to_come_unless_a_sibling_is_restarted() -> None:
    with Simulation() as simulation:
        specs = [ChildSpec(id=id, cls=Worker) for id in "ab"]
        supervisor = simulation.runtime.spawn(Supervisor, specs)
        refs: dict[str, Any] = {child.id: child.ref for child in which_children(supervisor)}
        terminate_child(supervisor, "a")
        assert supervisor.ask(Successor(refs["a"])) is None
        process_of(supervisor)._children["b"].state = "restarting"
        assert supervisor.ask(Successor(refs["a"])) == "restarting"
        process_of(supervisor)._children["b"].state = "running"
        assert supervisor.ask(Successor(refs["b"])) == "restarting"
