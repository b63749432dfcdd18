"""OTP's ``supervisor`` as numbered scenarios: B1 … B60, on the simulation with several seeds and on threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import ExitNotice
from penstock.actors.runtime.transitions import IGNORE
from penstock.errors import CallTimeout, OptionError, ProcessDead, StartError, SupervisorError
from penstock.supervisors.calls import (
    ChildId,
    ReportChild,
    StartChild,
    count_children,
    delete_child,
    get_childspec,
    restart_child,
    start_child,
    terminate_child,
    which_child,
    which_children,
)
from penstock.supervisors.children import Child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.spec import BRUTAL_KILL, Backoff, ChildCounts, ChildExited, ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor
from penstock.testing import Simulation, eventually
from tests.conformance.supervision import GENEROUS, Worker, World, starts, stops

DIFFERENT: Final = {
    10: "a start returns a ref and nothing else; what a child has to tell besides, it is asked for",
}

pytestmark = pytest.mark.seeds(4, threads=True)


def simulated(seed: int) -> Iterator[World]:
    with Simulation(seed) as simulation:

        def until(condition: Callable[[], Any]) -> Any:
            for _ in range(100_000):
                if found := condition():
                    return found
                if not simulation.dispatcher.step():
                    simulation.advance(0.01)
            raise AssertionError("it never came to that")

        world = World(simulation.runtime, until)
        yield world
    assert len(simulation.timers) == 0


def threaded() -> Iterator[World]:
    dispatcher = ThreadedDispatcher(workers=2)
    timers = TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    yield World(runtime, lambda condition: eventually(condition, GENEROUS))
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert len(timers) == 0
    assert timers.close(GENEROUS)


@pytest.fixture
def world(seed: int | str) -> Iterator[World]:
    yield from threaded() if seed == "threads" else simulated(int(seed))


@pytest.fixture
def virtual(seed: int) -> Iterator[World]:
    """For what takes time: never on threads."""
    yield from simulated(seed)


@pytest.fixture
def real() -> Iterator[World]:
    """For what a caller sees that has given up waiting: the one thread of a simulation cannot do that and wait too."""
    yield from threaded()


def advance(world: World, seconds: float) -> None:
    """Let virtual time pass."""
    clock = world.runtime.clock
    latch = threading.Lock()
    latch.acquire()
    before = clock.monotonic()
    world.runtime.dispatcher.wait(latch, seconds)
    assert clock.monotonic() == before + seconds


def code_of(call: Callable[..., Any], *args: Any) -> str:
    """The code of the `SupervisorError` that a call raises."""
    with pytest.raises(SupervisorError) as caught:
        call(*args, timeout=GENEROUS)
    return caught.value.code


def nested(
    id: str, specs: list[ChildSpec], flags: SupervisorFlags, restart: Any = "permanent", **more: Any
) -> ChildSpec:
    return ChildSpec(id=id, cls=Supervisor, args=(specs, flags), restart=restart, **more)


# --- specifications --------------------------------------------------------------------------------------------------


def test_B1_what_is_not_said_has_the_value_it_has_in_otp() -> None:
    flags = SupervisorFlags()
    assert (flags.strategy, flags.intensity, flags.period, flags.auto_shutdown) == ("one_for_one", 1, 5.0, "never")
    worker = ChildSpec(id="worker", cls=Worker)
    assert (worker.restart, worker.supervisor, worker.shutdown, worker.significant) == ("permanent", False, 5.0, False)
    supervisor = ChildSpec(id="supervisor", cls=Supervisor)
    assert (supervisor.supervisor, supervisor.shutdown) == (True, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""), ("id", 1), ("cls", "Worker"), ("cls", int), ("restart", "always"), ("shutdown", -1),
        ("shutdown", "soon"), ("significant", 1), ("backoff", 1), ("start_timeout", -1),
    ],
)  # fmt: skip
def test_B2_an_invalid_field_is_named(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"id": "it", "cls": Worker, field: value}
    with pytest.raises(OptionError) as caught:
        ChildSpec(**fields)
    assert caught.value.field == field


def test_B2_a_missing_field_is_named_and_so_is_one_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match="cls"):
        ChildSpec(id="it")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="restrat"):
        ChildSpec(id="it", cls=Worker, restrat="permanent")  # type: ignore[call-arg]


def test_B2_an_id_that_comes_twice_is_refused(world: World) -> None:
    with pytest.raises(SupervisorError) as caught:
        world.supervisor(world.specs("aba"))
    assert caught.value.code == "duplicate_child_name"
    assert world.take() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "all_for_one"), ("intensity", float("inf")), ("intensity", -1), ("period", 0),
        ("auto_shutdown", "always"),
    ],
)  # fmt: skip
def test_B3_bad_flags_are_refused(field: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        SupervisorFlags(**{field: value})
    assert caught.value.field == field


def test_B4_a_template_is_one_specification_and_starts_no_child(world: World) -> None:
    for wrong in ([], world.specs("ab"), "junk"):
        with pytest.raises(SupervisorError) as caught:
            world.runtime.spawn(DynamicSupervisor, wrong)
        assert caught.value.code == "bad_start_spec"
    supervisor = world.simple()
    assert which_children(supervisor, GENEROUS) == []
    assert world.take() == []


def test_B5_a_significant_child_must_be_able_to_end_for_good_and_its_supervisor_to_shut_down(world: World) -> None:
    permanent = world.spec("it", "permanent", significant=True)
    transient = world.spec("it", "transient", significant=True)
    for specs, auto_shutdown in (([permanent], "any_significant"), ([transient], "never")):
        with pytest.raises(SupervisorError) as caught:
            world.supervisor(specs, auto_shutdown=auto_shutdown)
        assert caught.value.code == "bad_combination"
    with pytest.raises(SupervisorError) as caught:
        world.runtime.spawn(DynamicSupervisor, transient)
    assert caught.value.code == "bad_combination"
    supervisor = world.supervisor([])
    assert code_of(start_child, supervisor, transient) == "bad_combination"


# --- start -----------------------------------------------------------------------------------------------------------


def test_B6_children_are_started_one_after_the_other_in_the_order_of_the_list(world: World) -> None:
    supervisor = world.supervisor(world.specs("abc"))
    assert world.take() == starts("abc")
    assert list(world.refs(supervisor)) == ["a", "b", "c"]


@pytest.mark.parametrize(("result", "code"), [(IGNORE, "ignore"), ("junk", "bad_return"), (([], "junk"), "bad_return")])
def test_B7_an_init_that_ignores_or_returns_junk_says_so(world: World, result: Any, code: str) -> None:
    class Own(Supervisor):
        def init(self) -> Any:
            return result

    with pytest.raises(StartError) as caught:
        world.runtime.spawn(Own)
    assert caught.value.code == code


def test_B7_an_init_that_raises_is_an_error_and_one_that_returns_children_starts_them(world: World) -> None:
    class Own(Supervisor):
        def init(self) -> Any:
            if world.stage.failing:
                raise LookupError("init")
            return world.specs("ab"), world.flags()

    world.stage.failing["own"] = True
    with pytest.raises(LookupError):
        world.runtime.spawn(Own)
    world.heal("own")
    assert list(world.refs(world.runtime.spawn(Own))) == ["a", "b"]


def test_B8_if_a_child_fails_to_start_those_before_it_are_stopped_in_reverse(world: World) -> None:
    world.fail("c")
    with pytest.raises(SupervisorError) as caught:
        world.supervisor(world.specs("abcd"))
    assert (caught.value.code, caught.value.child) == ("failed_to_start_child", "c")
    assert isinstance(caught.value.detail, StartError)
    assert world.take() == [*starts("ab"), ("fail", "c"), *stops("ba")]
    assert world.runtime.processes() == []


def test_B9_a_child_that_ignores_is_kept_without_a_process_unless_it_is_temporary(world: World) -> None:
    world.fail("a", "ignore")
    world.fail("b", "ignore")
    supervisor = world.supervisor([world.spec("a"), world.spec("b", "temporary"), world.spec("c")])
    assert world.states(supervisor) == {"a": "undefined", "c": "running"}
    assert start_child(supervisor, msgspec.structs.replace(world.spec("a"), id="d"), GENEROUS) is None
    assert world.states(supervisor) == {"a": "undefined", "c": "running", "d": "undefined"}


def test_B9_a_child_of_a_template_that_ignores_is_not_added(world: World) -> None:
    supervisor = world.simple()
    world.fail("a", "ignore")
    assert start_child(supervisor, ("a",), GENEROUS) is None
    assert which_children(supervisor, GENEROUS) == []


# --- requests --------------------------------------------------------------------------------------------------------


def test_B11_start_child_of_a_known_id_says_whether_it_runs(world: World) -> None:
    supervisor = world.supervisor([])
    ref = start_child(supervisor, world.spec("a"), GENEROUS)
    with pytest.raises(SupervisorError) as caught:
        start_child(supervisor, world.spec("a"), GENEROUS)
    assert (caught.value.code, caught.value.detail) == ("already_started", ref)
    terminate_child(supervisor, "a", GENEROUS)
    assert code_of(start_child, supervisor, world.spec("a")) == "already_present"


def test_B12_a_start_that_fails_raises_and_leaves_no_specification(world: World) -> None:
    for supervisor, what in ((world.supervisor([]), world.spec("a")), (world.simple(), ("a",))):
        world.stage.failing["a"] = LookupError("broken")
        with pytest.raises(LookupError):
            start_child(supervisor, what, GENEROUS)
        assert which_children(supervisor, GENEROUS) == []
        world.heal("a")
        assert start_child(supervisor, what, GENEROUS) is not None


def test_B13_a_name_that_somebody_else_has_is_already_started(world: World) -> None:
    other = world.runtime.spawn(Worker, world.stage, "other", name="taken")
    supervisor = world.supervisor([])
    with pytest.raises(StartError) as caught:
        start_child(supervisor, world.spec("a", name="taken"), GENEROUS)
    assert (caught.value.code, caught.value.ref) == ("already_started", other)
    assert which_children(supervisor, GENEROUS) == []


def test_B14_terminate_child_keeps_the_specification_and_may_be_repeated(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab"))
    ref = world.ref(supervisor, "a")
    for _ in range(2):
        terminate_child(supervisor, "a", GENEROUS)
    assert not ref.is_alive()
    assert world.states(supervisor) == {"a": "undefined", "b": "running"}
    assert code_of(terminate_child, supervisor, "x") == "not_found"
    supervisor.terminate(timeout=GENEROUS)
    with pytest.raises(ProcessDead) as caught:
        terminate_child(supervisor, "a", GENEROUS)
    assert caught.value.reason == "noproc"


def test_B15_restart_child_starts_what_was_stopped(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab"))
    assert code_of(restart_child, supervisor, "a") == "running"
    assert code_of(restart_child, supervisor, "x") == "not_found"
    old = world.ref(supervisor, "a")
    terminate_child(supervisor, "a", GENEROUS)
    world.fail("a")
    with pytest.raises(StartError):
        restart_child(supervisor, "a", GENEROUS)
    assert world.states(supervisor) == {"a": "undefined", "b": "running"}
    world.heal("a")
    new = restart_child(supervisor, "a", GENEROUS)
    assert new is world.ref(supervisor, "a") is not old


def test_B16_delete_child_is_for_one_that_does_not_run(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab"))
    assert code_of(delete_child, supervisor, "a") == "running"
    assert code_of(delete_child, supervisor, "x") == "not_found"
    terminate_child(supervisor, "a", GENEROUS)
    delete_child(supervisor, "a", GENEROUS)
    assert list(world.refs(supervisor)) == ["b"]


def test_B17_a_temporary_child_that_is_terminated_is_forgotten(world: World) -> None:
    supervisor = world.supervisor([world.spec("a", "temporary")])
    terminate_child(supervisor, "a", GENEROUS)
    assert which_children(supervisor, GENEROUS) == []
    assert world.take() == [*starts("a"), *stops("a")]


def test_B18_a_child_of_a_template_is_known_by_its_ref(world: World) -> None:
    supervisor = world.simple("temporary")
    one, two = world.add(supervisor, "a"), world.add(supervisor, "b")
    stranger = world.runtime.spawn(Worker, world.stage, "stranger")
    for _ in range(2):  # it may be dead already
        terminate_child(supervisor, one, GENEROUS)
    assert [info.ref for info in which_children(supervisor, GENEROUS)] == [two]
    assert code_of(terminate_child, supervisor, stranger) == "not_found"
    assert stranger.is_alive()
    for call in (terminate_child, restart_child, delete_child):
        assert code_of(call, supervisor, "simple") == "simple_one_for_one"
    for call in (restart_child, delete_child):
        assert code_of(call, supervisor, two) == "simple_one_for_one"


def test_B19_children_are_shown_newest_first_and_one_by_one(world: World) -> None:
    specs = [world.spec("a"), world.spec("b", "transient"), nested("c", [], world.flags())]
    supervisor = world.supervisor(specs)
    terminate_child(supervisor, "b", GENEROUS)
    shown = which_children(supervisor, GENEROUS)
    assert [(info.id, info.state, info.supervisor) for info in shown] == [
        ("c", "running", True), ("b", "undefined", False), ("a", "running", False),
    ]  # fmt: skip
    assert which_child(supervisor, "a", GENEROUS) == shown[-1]
    assert get_childspec(supervisor, "b", GENEROUS) == specs[1]
    for call in (which_child, get_childspec):
        assert code_of(call, supervisor, "x") == "not_found"


def test_B19_a_template_is_what_all_its_children_are_specified_by(world: World) -> None:
    supervisor = world.simple()
    one, two = world.add(supervisor, "a"), world.add(supervisor, "b")
    assert [info.ref for info in which_children(supervisor, GENEROUS)] == [two, one]
    assert which_child(supervisor, one, GENEROUS).ref is one
    assert get_childspec(supervisor, one, GENEROUS).id == "simple"


def test_B20_children_are_counted_and_one_that_is_being_restarted_is_not_active(world: World) -> None:
    supervisor = world.supervisor(
        [world.spec("a"), world.spec("b", backoff=Backoff(min=1000, max=1000)), nested("c", [], world.flags())]
    )
    terminate_child(supervisor, "a", GENEROUS)
    assert count_children(supervisor, GENEROUS) == ChildCounts(specs=3, active=2, supervisors=1, workers=2)
    world.exit(supervisor, "b")
    assert world.states(supervisor)["b"] == "restarting"
    assert count_children(supervisor, GENEROUS) == ChildCounts(specs=3, active=1, supervisors=1, workers=2)


def test_B20_a_template_counts_as_one_specification(world: World) -> None:
    supervisor = world.simple()
    for id in "abc":
        world.add(supervisor, id)
    assert count_children(supervisor, GENEROUS) == ChildCounts(specs=1, active=3, supervisors=0, workers=3)


def test_B21_a_restarted_child_keeps_its_place_and_a_new_one_is_the_last(world: World) -> None:
    supervisor = world.supervisor(world.specs("abc"))
    world.exit(supervisor, "a")
    start_child(supervisor, world.spec("d"), GENEROUS)
    assert list(world.refs(supervisor)) == ["a", "b", "c", "d"]


def test_B22_a_restarted_supervisor_has_its_first_children_and_no_others(world: World) -> None:
    top = world.supervisor([nested("inner", world.specs("ab"), world.flags())])
    inner = world.ref(top, "inner")
    start_child(inner, world.spec("c"), GENEROUS)
    terminate_child(inner, "a", GENEROUS)
    world.runtime.exit(inner, "kill")
    world.until(lambda: world.refs(top)["inner"] not in (inner, None))
    assert world.states(world.ref(top, "inner")) == {"a": "running", "b": "running"}


# --- restart types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["normal", "shutdown", "crash"])
def test_B23_a_permanent_child_is_always_restarted(world: World, reason: str) -> None:
    supervisor = world.supervisor(world.specs("a"))
    old = world.exit(supervisor, "a", reason)
    world.until(lambda: world.states(supervisor) == {"a": "running"})
    assert world.ref(supervisor, "a") is not old
    assert which_child(supervisor, "a", GENEROUS).restarts == 1


@pytest.mark.parametrize("reason", ["normal", "shutdown"])
def test_B24_a_transient_child_that_ends_well_stays_down_and_is_kept(world: World, reason: str) -> None:
    supervisor = world.supervisor(world.specs("ab", "transient"))
    world.exit(supervisor, "a", reason)
    assert world.states(supervisor) == {"a": "undefined", "b": "running"}


def test_B25_a_transient_child_that_crashes_is_restarted(world: World) -> None:
    supervisor = world.supervisor(world.specs("a", "transient"))
    world.exit(supervisor, "a")
    assert world.states(supervisor) == {"a": "running"}


@pytest.mark.parametrize("reason", ["normal", "shutdown", "crash"])
def test_B26_a_temporary_child_is_never_restarted_and_forgotten(world: World, reason: str) -> None:
    supervisor = world.supervisor(world.specs("ab", "temporary"))
    world.exit(supervisor, "a", reason)
    assert list(world.refs(supervisor)) == ["b"]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_B27_a_temporary_bystander_of_a_group_restart_is_forgotten(world: World, strategy: str) -> None:
    supervisor = world.supervisor([world.spec("a"), world.spec("b", "temporary"), world.spec("c")], strategy)
    world.take()
    world.exit(supervisor, "a")
    assert world.states(supervisor) == {"a": "running", "c": "running"}
    assert world.take() == [*stops("a", "crash"), *stops("cb"), *starts("ac")]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_B27_the_crash_of_a_temporary_child_restarts_nobody(world: World, strategy: str) -> None:
    supervisor = world.supervisor([world.spec("a", "temporary"), *world.specs("bc")], strategy)
    world.take()
    world.exit(supervisor, "a")
    assert world.states(supervisor) == {"b": "running", "c": "running"}
    assert world.take() == stops("a", "crash")


def test_B28_what_a_temporary_child_was_given_is_not_kept(world: World) -> None:
    supervisor = world.supervisor([world.spec("a", "temporary"), world.spec("b")])
    assert get_childspec(supervisor, "a", GENEROUS).args == ()
    assert get_childspec(supervisor, "b", GENEROUS).args == (world.stage, "b")
    simple = world.simple("temporary")
    one, two = world.add(simple, "one"), world.add(simple, "two")
    process: Any = simple._actor_weakref()
    assert [process._by_ref[ref].args for ref in (one, two)] == [(), ()]


# --- strategies ------------------------------------------------------------------------------------------------------


def test_B29_one_for_one_leaves_the_others_alone(world: World) -> None:
    supervisor = world.supervisor(world.specs("abc"))
    before = world.refs(supervisor)
    world.take()
    world.exit(supervisor, "b")
    after = world.refs(supervisor)
    assert [id for id in "abc" if after[id] is not before[id]] == ["b"]
    assert world.take() == [*stops("b", "crash"), *starts("b")]


def test_B30_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order(world: World) -> None:
    supervisor = world.supervisor(world.specs("abcd"), "one_for_all")
    world.take()
    world.exit(supervisor, "b")
    assert world.take() == [*stops("b", "crash"), *stops("dca"), *starts("abcd")]


def test_B31_rest_for_one_stops_and_starts_the_later_ones_only(world: World) -> None:
    supervisor = world.supervisor(world.specs("abcd"), "rest_for_one")
    world.take()
    world.exit(supervisor, "b")
    assert world.take() == [*stops("b", "crash"), *stops("dc"), *starts("bcd")]


def test_B32_one_for_all_starts_also_who_was_stopped_or_had_ended(world: World) -> None:
    supervisor = world.supervisor([world.spec("a"), world.spec("b", "transient"), world.spec("c")], "one_for_all")
    terminate_child(supervisor, "a", GENEROUS)
    world.exit(supervisor, "b", "normal")
    world.take()
    world.exit(supervisor, "c")
    assert world.take() == [*stops("c", "crash"), *starts("abc")]


def test_B33_one_for_all_if_one_fails_to_restart_all_are_stopped_and_tried_again(world: World) -> None:
    supervisor = world.supervisor(world.specs("abc"), "one_for_all")
    world.take()
    world.stage.on_stop["a"] = lambda: world.heal("b") if ("fail", "b") in world.stage.journal else None
    world.fail("b")
    world.exit(supervisor, "c")
    world.until(lambda: set(world.states(supervisor).values()) == {"running"})
    assert world.take() == [
        *stops("c", "crash"), *stops("ba"), *starts("a"), ("fail", "b"), *stops("a"), *starts("abc"),
    ]  # fmt: skip


def test_B34_rest_for_one_if_one_fails_to_restart_those_before_it_stay(world: World) -> None:
    supervisor = world.supervisor(world.specs("abcd"), "rest_for_one", intensity=1_000_000)
    world.take()
    world.fail("c")
    ref = world.ref(supervisor, "b")
    world.end(ref)
    world.until(lambda: world.take()[-1:] == [("fail", "c")])
    new = world.ref(supervisor, "b")
    assert new is not ref
    assert world.states(supervisor) == {"a": "running", "b": "running", "c": "restarting", "d": "undefined"}
    world.heal("c")
    world.until(lambda: set(world.states(supervisor).values()) == {"running"})
    assert world.ref(supervisor, "b") is new
    assert [entry for entry in world.take() if entry[0] != "fail"] == starts("cd")


def test_B35_a_sibling_that_dies_by_itself_meanwhile_makes_it_neither_hang_nor_restart_twice(world: World) -> None:
    supervisor = world.supervisor(world.specs("abc"), "one_for_all", intensity=1)
    refs = world.refs(supervisor)
    b = world.ref(supervisor, "b")
    world.stage.on_stop["c"] = lambda: world.runtime.exit(b, "kill")
    world.exit(supervisor, "a")
    assert all(world.refs(supervisor)[id] is not refs[id] for id in "abc")
    assert set(world.states(supervisor).values()) == {"running"}
    assert len([entry for entry in world.take() if entry[0] == "start"]) == 6


def test_B36_a_restart_that_ignores_leaves_a_child_without_a_process(world: World) -> None:
    supervisor, simple = world.supervisor(world.specs("a")), world.simple()
    ref = world.add(simple, "a")
    world.fail("a", "ignore")
    world.exit(supervisor, "a")
    assert world.states(supervisor) == {"a": "undefined"}
    world.end(ref)
    world.until(lambda: which_children(simple, GENEROUS) == [])


# --- intensity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("intensity", [0, 1, 3])
def test_B37_one_restart_too_many_ends_the_rest_in_reverse_and_the_supervisor(
    world: World, strategy: str, intensity: int
) -> None:
    supervisor = world.supervisor(world.specs("abc"), strategy, intensity=intensity, period=1000)
    for _ in range(intensity):
        world.exit(supervisor, "b")
        assert set(world.states(supervisor).values()) == {"running"}
    world.take()
    world.exit(supervisor, "b")
    assert world.dead(supervisor) == "shutdown"
    assert world.take() == [*stops("b", "crash"), *stops("ca")]


def test_B37_with_a_template_too(world: World) -> None:
    supervisor = world.simple(intensity=1)
    bystander = world.add(supervisor, "a")
    world.end(world.add(supervisor, "b"))
    world.until(lambda: which_children(supervisor, GENEROUS)[0].restarts == 1)
    newest = which_children(supervisor, GENEROUS)[0].ref
    assert newest is not None
    world.end(newest)
    assert world.dead(supervisor) == "shutdown"
    assert world.dead(bystander) == "shutdown"


def test_B38_the_restart_of_a_group_counts_as_one(world: World) -> None:
    supervisor = world.supervisor(world.specs("abcdef"), "one_for_all", intensity=2, period=1000)
    for _ in range(2):
        world.exit(supervisor, "a")
    assert set(world.states(supervisor).values()) == {"running"}


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_B39_each_restart_that_fails_counts_and_so_it_escalates(world: World, strategy: str) -> None:
    supervisor = world.supervisor(world.specs("ab"), strategy, intensity=4, period=1000)
    world.fail("a")
    world.exit(supervisor, "a")
    assert world.dead(supervisor) == "shutdown"
    assert world.take().count(("fail", "a")) == 4


def test_B39_with_a_template_too(world: World) -> None:
    supervisor = world.simple(intensity=4)
    ref = world.add(supervisor, "a")
    world.fail("a")
    world.end(ref)
    assert world.dead(supervisor) == "shutdown"
    assert world.take().count(("fail", "a")) == 4


def test_B40_who_is_not_restarted_does_not_count(world: World) -> None:
    supervisor = world.supervisor([world.spec("a", "transient"), *world.specs("bcd", "temporary")], intensity=0)
    world.exit(supervisor, "a", "normal")
    for id in "bcd":
        world.exit(supervisor, id)
    assert world.states(supervisor) == {"a": "undefined"}


def test_B41_restarts_that_are_long_ago_do_not_count(virtual: World) -> None:
    supervisor = virtual.supervisor(virtual.specs("a"), intensity=1, period=10.0)
    for _ in range(5):
        virtual.exit(supervisor, "a")
        advance(virtual, 12.0)
    assert virtual.states(supervisor) == {"a": "running"}
    virtual.exit(supervisor, "a")
    virtual.exit(supervisor, "a")
    assert virtual.dead(supervisor) == "shutdown"


def test_B42_a_permanent_supervisor_that_gave_up_is_started_afresh(world: World) -> None:
    top = world.supervisor([nested("inner", world.specs("ab"), world.flags(intensity=0))])
    inner = world.ref(top, "inner")
    world.exit(inner, "a")
    world.until(lambda: world.refs(top)["inner"] not in (inner, None))
    assert world.states(world.ref(top, "inner")) == {"a": "running", "b": "running"}


def test_B42_a_transient_supervisor_that_gave_up_stays_down_since_shutdown_is_a_clean_end(world: World) -> None:
    top = world.supervisor([nested("inner", world.specs("ab"), world.flags(intensity=0), "transient")])
    inner = world.ref(top, "inner")
    world.exit(inner, "a")
    world.until(lambda: world.states(top) == {"inner": "undefined"})
    assert top.is_alive()


# --- the restarting state --------------------------------------------------------------------------------------------


def loop(world: World, strategy: str = "one_for_one", ids: str = "ab") -> ProcessRef:
    """A supervisor whose first child fails to start again and again."""
    supervisor = world.supervisor(world.specs(ids), strategy, intensity=1_000_000)
    world.fail("a")
    world.exit(supervisor, "a")
    return supervisor


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_B43_between_two_attempts_a_supervisor_answers_calls(world: World, strategy: str) -> None:
    supervisor = loop(world, strategy)
    assert world.states(supervisor)["a"] == "restarting"
    assert which_child(supervisor, "a", GENEROUS).ref is None
    assert code_of(start_child, supervisor, world.spec("a")) == "already_present"
    assert code_of(restart_child, supervisor, "a") == "restarting"
    assert code_of(delete_child, supervisor, "a") == "restarting"
    world.heal("a")
    world.until(lambda: set(world.states(supervisor).values()) == {"running"})


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_B44_terminate_child_calls_the_attempts_off(world: World, strategy: str) -> None:
    supervisor = loop(world, strategy)
    terminate_child(supervisor, "a", GENEROUS)
    world.take()
    assert world.states(supervisor)["a"] == "undefined"
    assert world.states(supervisor)["a"] == "undefined"  # what was under way has come and gone
    assert world.take() == []
    world.heal("a")
    assert restart_child(supervisor, "a", GENEROUS) is not None


def test_B44_with_a_template_by_the_ref_it_had(world: World) -> None:
    supervisor = world.simple(intensity=1_000_000)
    ref = world.add(supervisor, "a")
    world.fail("a")
    world.end(ref)
    world.until(lambda: set(world.states(supervisor).values()) == {"restarting"})
    assert which_child(supervisor, ref, GENEROUS).state == "restarting"
    terminate_child(supervisor, ref, GENEROUS)
    assert which_children(supervisor, GENEROUS) == []
    world.take()
    assert which_children(supervisor, GENEROUS) == []
    assert world.take() == []


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_B45_a_supervisor_can_be_shut_down_amid_its_attempts(world: World, strategy: str) -> None:
    supervisor = loop(world, strategy)
    supervisor.terminate("shutdown", GENEROUS)
    assert world.dead(supervisor) == "shutdown"
    assert world.runtime.processes() == []


# --- shut-down -------------------------------------------------------------------------------------------------------


def test_B46_children_are_stopped_one_at_a_time_in_reverse_and_it_ends_with_the_reason_it_was_told(
    world: World,
) -> None:
    keeper = world.runtime.spawn(Worker, world.stage, "parent")
    world.take()
    supervisor = world.runtime.spawn(Supervisor, world.specs("abc"), world.flags(), link=keeper)
    world.runtime.exit(supervisor, "because", keeper)
    assert world.dead(supervisor) == "because"
    assert world.take() == [*starts("abc"), *stops("cba")]


def test_B47_who_does_not_end_in_its_time_is_killed(virtual: World) -> None:
    supervisor = virtual.supervisor([virtual.spec("a", stubborn=True, shutdown=7.0), virtual.spec("b")])
    child = virtual.ref(supervisor, "a")
    before = virtual.runtime.clock.monotonic()
    supervisor.terminate(timeout=GENEROUS)
    assert virtual.runtime.clock.monotonic() == before + 7.0
    assert virtual.dead(child) == "killed"
    assert virtual.take() == [*starts("ab"), *stops("b")]


def test_B47_without_a_time_out_it_is_waited_for(real: World) -> None:
    supervisor = real.supervisor([real.spec("a", stubborn=True, shutdown=None)])
    child = real.ref(supervisor, "a")
    with pytest.raises(CallTimeout):
        supervisor.terminate(timeout=0.05)
    assert child.is_alive()
    real.end(child, "at last")
    assert real.dead(supervisor) == "normal"
    assert real.dead(child) == "at last"


def test_B48_brutal_kill_kills_without_terminate(world: World) -> None:
    supervisor = world.supervisor([world.spec("a", shutdown=BRUTAL_KILL), world.spec("b")])
    child = world.ref(supervisor, "a")
    terminate_child(supervisor, "a", GENEROUS)
    assert world.dead(child) == "killed"
    assert world.take() == starts("ab")


def test_B49_the_children_of_a_template_are_stopped_at_once_with_one_deadline(virtual: World) -> None:
    supervisor = virtual.simple(stubborn=True, shutdown=7.0)
    children = [virtual.add(supervisor, f"child {number}") for number in range(20)]
    before = virtual.runtime.clock.monotonic()
    supervisor.terminate(timeout=GENEROUS)
    assert virtual.runtime.clock.monotonic() == before + 7.0
    assert {virtual.dead(child) for child in children} == {"killed"}


@pytest.mark.parametrize(("shutdown", "reason"), [(5.0, "shutdown"), (None, "shutdown"), (BRUTAL_KILL, "killed")])
def test_B49_the_children_of_a_template_end_as_it_says(world: World, shutdown: Any, reason: str) -> None:
    supervisor = world.simple(shutdown=shutdown)
    children = [world.add(supervisor, f"child {number}") for number in range(20)]
    supervisor.terminate(timeout=GENEROUS)
    assert {world.dead(child) for child in children} == {reason}


@pytest.mark.parametrize("reason", ["normal", "shutdown", "crash"])
def test_B50_who_ends_by_itself_during_a_shut_down_is_not_restarted(world: World, reason: str) -> None:
    supervisor = world.supervisor(world.specs("abc"))
    others = [world.ref(supervisor, id) for id in "ab"]

    def end_the_others() -> None:
        for ref in others:
            world.end(ref, reason)

    world.stage.on_stop["c"] = end_the_others
    supervisor.terminate("shutdown", GENEROUS)
    assert world.dead(supervisor) == "shutdown"
    assert len([entry for entry in world.take() if entry[0] == "start"]) == 3


@pytest.mark.parametrize("reason", ["normal", "shutdown", "crash"])
def test_B50_with_a_template_too(world: World, reason: str) -> None:
    supervisor = world.simple()
    children = [world.add(supervisor, f"child {number}") for number in range(10)]
    for child in children:
        world.end(child, reason)
    supervisor.terminate("shutdown", GENEROUS)
    assert world.dead(supervisor) == "shutdown"
    assert not any(child.is_alive() for child in children)


def test_B51_a_child_that_has_unlinked_itself_is_stopped_all_the_same(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab"))
    for id in "ab":
        world.ref(supervisor, id).ask(lambda actor: actor.runtime.unlink(actor.ref, supervisor), timeout=GENEROUS)
    a, b = world.ref(supervisor, "a"), world.ref(supervisor, "b")
    terminate_child(supervisor, "a", GENEROUS)
    assert world.dead(a) == "shutdown"
    world.runtime.exit(b, "kill")
    terminate_child(supervisor, "b", GENEROUS)


def test_B52_stopped_it_ends_normally_and_its_children_with_it(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab"))
    supervisor.terminate(timeout=GENEROUS)
    assert world.dead(supervisor) == "normal"
    assert world.take() == [*starts("ab"), *stops("ba")]


def test_B52_a_stop_that_takes_too_long_for_its_caller_goes_on(real: World) -> None:
    supervisor = real.supervisor([real.spec("a"), real.spec("b", stubborn=True, shutdown=None)])
    a, b = real.ref(supervisor, "a"), real.ref(supervisor, "b")
    with pytest.raises(CallTimeout):
        supervisor.terminate(timeout=0.05)
    assert supervisor.is_alive()
    assert a.is_alive()
    real.end(b, "at last")
    assert real.dead(supervisor) == "normal"
    assert real.dead(a) == "shutdown"


def test_B53_the_children_of_a_killed_supervisor_see_killed_and_its_parent_builds_it_again(world: World) -> None:
    top = world.supervisor([nested("inner", [world.spec("a", name="worker"), world.spec("b")], world.flags())])
    inner = world.ref(top, "inner")
    world.take()
    world.runtime.exit(inner, "kill")
    world.until(lambda: world.refs(top)["inner"] not in (inner, None))
    new = world.ref(top, "inner")
    assert world.states(new) == {"a": "running", "b": "running"}
    assert world.runtime.whereis("worker") is world.ref(new, "a")
    world.until(lambda: len(world.stage.journal) == 4)
    assert sorted(world.take()) == sorted([*starts("ab"), *stops("ab", "killed")])
    assert which_child(top, "inner", GENEROUS).restarts == 1


def test_B53_the_name_of_a_killed_supervisors_child_is_waited_for(virtual: World) -> None:
    specs = [virtual.spec("a", name="worker")]
    killed = virtual.supervisor(specs)
    virtual.runtime.exit(killed, "kill")
    old = virtual.runtime.whereis("worker")
    assert old is not None  # it has had no turn since
    assert old.is_alive()
    new = virtual.supervisor(specs)
    assert virtual.runtime.whereis("worker") is virtual.ref(new, "a") is not old
    assert virtual.take() == [*starts("a"), *stops("a", "killed"), *starts("a")]


def test_B53_a_child_that_is_slow_to_end_does_not_make_the_restart_fail(real: World) -> None:
    """A restart that fails is tried again, and counts: the second one would end ``top``."""
    top = real.supervisor([nested("inner", [real.spec("a", name="worker")], real.flags())], intensity=1)
    inner = real.ref(top, "inner")
    old = real.ref(inner, "a")
    may_go_on = threading.Event()
    old.tell(lambda _: may_go_on.wait(GENEROUS))
    real.runtime.exit(inner, "kill")
    real.until(lambda: old in real.runtime._waiting)
    assert top.is_alive()
    may_go_on.set()
    real.until(lambda: which_child(top, "inner", GENEROUS).restarts == 1)
    assert real.states(real.ref(top, "inner")) == {"a": "running"}
    assert real.runtime.whereis("worker") is not old
    assert real.take() == [*starts("a"), *stops("a", "killed"), *starts("a")]


def test_B54_it_survives_what_is_not_meant_for_it(world: World) -> None:
    supervisor, simple = world.supervisor(world.specs("a")), world.simple()
    stranger = world.runtime.spawn(Worker, world.stage, "stranger")
    for ref in (supervisor, simple):
        ref.tell("stray")
        for sender in (stranger, None):
            world.runtime.exit(ref, "stray", sender)
        assert code_of(lambda ref, timeout: ref.ask("stray", timeout=timeout), ref) == "unknown_call"
        assert ref.is_alive()
    assert world.states(supervisor) == {"a": "running"}
    assert world.runtime.dead_letters.unexpected_count == 4


# --- significant children --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "reason"),
    [("transient", "normal"), ("transient", "shutdown"), ("temporary", "normal"), ("temporary", "crash")],
)
def test_B55_any_significant_the_end_of_one_ends_the_rest(world: World, restart: str, reason: str) -> None:
    specs = [world.spec("a"), world.spec("b", restart, significant=True), world.spec("c", restart, significant=True)]
    supervisor = world.supervisor(specs, auto_shutdown="any_significant")
    world.take()
    world.exit(supervisor, "b", reason)
    assert world.dead(supervisor) == "shutdown"
    assert world.take() == [*stops("b", reason), *stops("ca")]


def test_B56_a_significant_transient_child_that_crashes_is_restarted(world: World) -> None:
    supervisor = world.supervisor(world.specs("ab", "transient", significant=True), auto_shutdown="any_significant")
    world.exit(supervisor, "a")
    assert world.states(supervisor) == {"a": "running", "b": "running"}


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_B57_all_significant_the_end_of_the_last_active_one_ends_the_rest(world: World, restart: str) -> None:
    specs = [*world.specs("abc", restart, significant=True), world.spec("d")]
    supervisor = world.supervisor(specs, auto_shutdown="all_significant")
    world.exit(supervisor, "a", "normal")
    terminate_child(supervisor, "b", GENEROUS)
    assert supervisor.is_alive()
    world.exit(supervisor, "c", "normal")
    assert world.dead(supervisor) == "shutdown"


@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_B58_only_a_significant_child_that_ends_by_itself_has_that_effect(world: World, auto_shutdown: str) -> None:
    specs = [
        world.spec("a", "transient", significant=True), world.spec("b", "temporary", significant=True),
        world.spec("c", "transient"), world.spec("d", "temporary"), world.spec("e"),
    ]  # fmt: skip
    supervisor = world.supervisor(specs, "one_for_all", auto_shutdown=auto_shutdown)
    world.exit(supervisor, "c", "normal")
    world.exit(supervisor, "d")
    terminate_child(supervisor, "a", GENEROUS)
    assert supervisor.is_alive()
    world.exit(supervisor, "e")  # takes b along, which is forgotten
    assert world.states(supervisor) == {"a": "running", "c": "running", "e": "running"}
    terminate_child(supervisor, "a", GENEROUS)
    assert supervisor.is_alive()


@pytest.mark.parametrize("significant", [True, False])
def test_B59_it_goes_on_upwards_only_if_the_inner_supervisor_is_significant_itself(
    world: World, significant: bool
) -> None:
    inner = nested(
        "inner", [world.spec("a", "transient", significant=True)], world.flags(auto_shutdown="any_significant"),
        "transient", significant=significant,
    )  # fmt: skip
    top = world.supervisor([inner, world.spec("b")], auto_shutdown="any_significant")
    ref = world.ref(top, "inner")
    world.exit(ref, "a", "normal")
    assert world.dead(ref) == "shutdown"
    if significant:
        assert world.dead(top) == "shutdown"
    else:
        world.until(lambda: world.states(top) == {"inner": "undefined", "b": "running"})


# --- many ------------------------------------------------------------------------------------------------------------


class Counted(Process):
    """A cheap child."""

    in_pykka_registry = False


class Looked(dict[Any, Any]):
    """A dict that counts the entries at which a loop over it looks."""

    def __init__(self, content: dict[Any, Any]) -> None:
        super().__init__(content)
        self.entries = 0

    def _count(self) -> None:
        self.entries += len(self)

    def __iter__(self) -> Iterator[Any]:
        self._count()
        return super().__iter__()

    def keys(self) -> Any:
        self._count()
        return super().keys()

    def values(self) -> Any:
        self._count()
        return super().values()

    def items(self) -> Any:
        self._count()
        return super().items()


def look_at(supervisor: ProcessRef) -> list[Looked]:
    """Count at how many entries of its tables a supervisor looks."""
    process: Any = supervisor._actor_weakref()
    process._children = Looked(process._children)
    process._by_ref = Looked(process._by_ref)
    return [process._children, process._by_ref]


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("kind", ["dynamic", "template", "static"])
def test_B60_the_end_of_a_child_looks_at_no_other_child(kind: str, restart: Any) -> None:
    with Simulation() as simulation:
        specs = [ChildSpec(id=f"{number}", cls=Counted, restart=restart) for number in range(200)]
        if kind == "static":
            supervisor = simulation.spawn(Supervisor, specs, SupervisorFlags(intensity=1_000))
        else:
            template = specs[0] if kind == "template" else None
            supervisor = simulation.spawn(DynamicSupervisor, template, intensity=1_000, escalate=True)
            for spec in specs:
                start_child(supervisor, () if kind == "template" else spec, GENEROUS)
        children = [info.ref for info in which_children(supervisor, GENEROUS)]
        tables = look_at(supervisor)
        for child in children[:100]:
            assert child is not None
            simulation.runtime.exit(child, "crash")
        simulation.settle()
        assert [table.entries for table in tables] == [0, 0]
        active = 100 if restart == "temporary" else 200
        assert count_children(supervisor, GENEROUS).active == active
        assert tables[0].entries == active  # they do count


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
def test_B60_many_children_are_started_crash_together_and_are_stopped(restart: Any) -> None:
    """The work grows with their number: counted in messages here, measured in the benchmarks."""
    with Simulation() as simulation:
        template = ChildSpec(id="many", cls=Counted, restart=restart)
        supervisor = simulation.spawn(DynamicSupervisor, template, intensity=10_000, escalate=True)
        children = [start_child(supervisor, (), GENEROUS) for _ in range(2_000)]
        for child in children[:1_000]:
            assert child is not None
            simulation.runtime.exit(child, "crash")
        simulation.settle()
        left = 2_000 if restart == "permanent" else 1_000
        assert count_children(supervisor, GENEROUS).active == left
        assert simulation.dispatcher.statistics().messages <= 8_000
        supervisor.terminate(timeout=GENEROUS)
        assert simulation.runtime.processes() == []


# --- chaos -----------------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(40)
def test_whatever_is_killed_and_whenever_the_tree_comes_back_whole_and_leaves_nothing(seed: int) -> None:
    chance = random.Random(seed)
    with Simulation(seed) as simulation:
        world = World(simulation.runtime, lambda condition: condition())
        backoff = Backoff(min=0.1, max=1.0)
        leaves = [world.spec("a", name="a"), world.spec("b", name="b", backoff=backoff)]
        # A time-out, since in a simulation one wait holds up the wait before it, in the same thread.
        waits: Any = {"shutdown": 50.0}
        strategies = [chance.choice(["one_for_one", "one_for_all", "rest_for_one"]) for _ in range(3)]
        inner = [
            nested("left", leaves, world.flags(strategies[0]), name="left", **waits),
            nested(
                "right", [world.spec("c", name="c")], world.flags(strategies[1]), name="right", backoff=backoff, **waits
            ),
        ]
        top = world.supervisor([*inner, world.spec("d", name="d")], strategies[2])
        expected = {"a", "b", "c", "d", "left", "right"}
        for _ in range(25):
            victim = simulation.runtime.whereis(chance.choice(sorted(expected)))
            if victim is not None:
                simulation.runtime.exit(victim, chance.choice(["kill", "crash", "normal"]))
            for _ in range(chance.randrange(20)):
                simulation.dispatcher.step()
            if chance.random() < 0.3:
                simulation.advance(chance.random())
        simulation.advance(100.0)
        assert simulation.runtime.names().keys() == expected
        assert set(world.states(top).values()) == {"running"}
        assert len(simulation.runtime.processes()) == len(expected) + 1
        assert len(simulation.timers) == 0
        top.terminate(timeout=GENEROUS)
        assert simulation.runtime.processes() == []
        assert simulation.runtime.names() == {}
        assert simulation.runtime._relations == {}
        journal = world.take()
        ends = [entry for entry in journal if entry[0] == "stop"]
        assert len(ends) <= len([entry for entry in journal if entry[0] == "start"])


# --- beyond OTP ------------------------------------------------------------------------------------------------------


def test_a_restart_waits_for_its_back_off_and_the_supervisor_answers_meanwhile(virtual: World) -> None:
    backoff = Backoff(min=1.0, max=4.0, jitter=0.0)
    supervisor = virtual.supervisor([virtual.spec("a", backoff=backoff), virtual.spec("b")])
    for wait in (1.0, 2.0, 4.0, 4.0):
        virtual.exit(supervisor, "a")
        advance(virtual, wait - 0.1)
        assert virtual.states(supervisor) == {"a": "restarting", "b": "running"}
        advance(virtual, 0.2)
        assert virtual.states(supervisor) == {"a": "running", "b": "running"}
    advance(virtual, 5.0)  # it has run for longer than the longest wait
    virtual.exit(supervisor, "a")
    advance(virtual, 1.1)
    assert virtual.states(supervisor) == {"a": "running", "b": "running"}


def test_a_group_is_stopped_at_once_and_started_after_the_back_off(virtual: World) -> None:
    specs = [virtual.spec("a", backoff=Backoff(min=1.0, max=4.0, jitter=0.0)), virtual.spec("b")]
    supervisor = virtual.supervisor(specs, "one_for_all", intensity=1)
    virtual.take()
    virtual.exit(supervisor, "a")
    assert virtual.states(supervisor) == {"a": "restarting", "b": "undefined"}
    restart_child(supervisor, "b", GENEROUS)
    advance(virtual, 1.1)
    assert virtual.states(supervisor) == {"a": "running", "b": "running"}
    assert virtual.take() == [*stops("a", "crash"), *stops("b"), *starts("ba")]


@pytest.mark.parametrize("how", ["terminate", "kill", "terminate_child"])
def test_a_back_off_that_is_not_needed_any_more_leaves_no_timer(virtual: World, how: str) -> None:
    supervisor = virtual.simple(backoff=Backoff(min=10.0, max=10.0))
    ref = virtual.add(supervisor, "a")
    virtual.end(ref)
    virtual.until(lambda: set(virtual.states(supervisor).values()) == {"restarting"})
    virtual.take()
    if how == "terminate":
        supervisor.terminate(timeout=GENEROUS)
    elif how == "kill":
        virtual.runtime.exit(supervisor, "kill")
    else:
        terminate_child(supervisor, ref, GENEROUS)
    assert len(virtual.runtime.timers) == 0
    advance(virtual, 20.0)
    assert virtual.take() == []


def test_children_that_do_not_escalate_are_given_up_one_by_one_and_an_observer_is_told(world: World) -> None:
    told: list[ChildExited] = []

    class Observer(Process):
        in_pykka_registry = False

        def on_receive(self, message: Any) -> None:
            told.append(message)

    world.runtime.spawn(Observer, name="observer")
    supervisor = world.runtime.spawn(DynamicSupervisor, intensity=1, observer="observer")
    a, b = world.spec("a"), world.spec("b", "temporary")
    for spec in (a, b):
        start_child(supervisor, spec, GENEROUS)
    assert code_of(start_child, supervisor, a) == "already_started"
    world.exit(supervisor, "a")
    last = world.exit(supervisor, "a")
    assert world.states(supervisor) == {"b": "running"}
    other = world.exit(supervisor, "b", "normal")
    world.until(lambda: len(told) == 2)
    assert told == [ChildExited(a, last, "crash"), ChildExited(b, other, "normal")]
    known: list[ChildId] = ["a", "b", last]
    assert [code_of(which_child, supervisor, id) for id in known] == ["not_found"] * 3


def test_a_child_whose_start_hangs_is_given_up_after_its_start_time_out() -> None:
    release = threading.Event()

    class Slow(Process):
        in_pykka_registry = False

        def on_start(self) -> None:
            release.wait(GENEROUS)

    for world in threaded():
        supervisor = world.supervisor([])
        with pytest.raises(StartError) as caught:
            start_child(supervisor, ChildSpec(id="slow", cls=Slow, start_timeout=0.01), GENEROUS)
        assert caught.value.code == "timeout"
        assert which_children(supervisor, GENEROUS) == []
        release.set()


def test_every_scenario_is_tested_or_said_to_be_different() -> None:
    tested = {int(name.removeprefix("test_B").split("_")[0]) for name in globals() if name.startswith("test_B")}
    assert tested | DIFFERENT.keys() == set(range(1, 61))
    assert not tested & DIFFERENT.keys()


def test_a_dynamic_child_with_a_back_off_runs_again_after_it_each_time(virtual: World) -> None:
    supervisor = virtual.simple(backoff=Backoff(min=1.0, max=4.0, jitter=0.0))
    virtual.add(supervisor, "a")
    virtual.take()
    for wait in (1.0, 2.0, 4.0, 4.0):
        (ref,) = [info.ref for info in which_children(supervisor, GENEROUS)]
        assert ref is not None
        virtual.end(ref)
        virtual.until(lambda: set(virtual.states(supervisor).values()) == {"restarting"})
        advance(virtual, wait - 0.1)
        assert set(virtual.states(supervisor).values()) == {"restarting"}
        assert virtual.take() == stops("a", "crash")
        advance(virtual, 0.2)
        assert set(virtual.states(supervisor).values()) == {"running"}
        assert virtual.take() == starts("a")


def test_a_second_notice_of_the_same_end_does_not_count_as_another_one(virtual: World) -> None:
    supervisor = virtual.simple(backoff=Backoff(min=1.0, max=8.0, jitter=0.0), intensity=1)
    ref = virtual.add(supervisor, "a")
    virtual.end(ref)
    virtual.until(lambda: set(virtual.states(supervisor).values()) == {"restarting"})
    for _ in range(3):
        supervisor.tell(ExitNotice(ref, "crash"))
    advance(virtual, 1.1)
    assert supervisor.is_alive()
    assert set(virtual.states(supervisor).values()) == {"running"}


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_children_that_crash_together_wait_for_different_times(virtual: World, kind: str) -> None:
    backoff = Backoff(min=10.0, max=10.0, jitter=1.0)
    if kind == "static":
        supervisor = virtual.supervisor([virtual.spec(id, backoff=backoff) for id in "abcd"])
    else:
        supervisor = virtual.simple(backoff=backoff)
        for id in "abcd":
            virtual.add(supervisor, id)
    for info in which_children(supervisor, GENEROUS):
        assert info.ref is not None
        virtual.end(info.ref)
    virtual.until(lambda: set(virtual.states(supervisor).values()) == {"restarting"})
    virtual.take()
    started: list[int] = []
    for _ in range(110):
        advance(virtual, 0.1)
        started.append(len(virtual.take()))
    assert sum(started) == 4
    assert max(started) < 4


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_supervisor_that_is_killed_amid_a_restart_that_fails_makes_no_dead_letter(virtual: World, kind: str) -> None:
    supervisors: list[ProcessRef] = []

    class Killing(Process):
        in_pykka_registry = False

        def on_start(self) -> None:
            if supervisors:
                self.runtime.exit(supervisors[0], "kill")
                raise StartError("it", "broken")

        def on_receive(self, message: Any) -> None:
            self.exit("crash")

    spec = ChildSpec(id="it", cls=Killing)
    if kind == "static":
        supervisor = virtual.supervisor([spec])
        (info,) = which_children(supervisor, GENEROUS)
        child = info.ref
    else:
        supervisor = virtual.runtime.spawn(DynamicSupervisor, spec)
        child = supervisor.ask(StartChild(()), timeout=GENEROUS)
    assert child is not None
    supervisors.append(supervisor)
    child.tell("end")
    virtual.until(lambda: not supervisor.is_alive())
    advance(virtual, 1.0)
    assert virtual.runtime.dead_letters.count == 0


def test_the_back_off_of_a_supervisor_is_the_same_in_every_simulation() -> None:
    def delays(name: str | None) -> list[float]:
        with Simulation() as simulation:
            supervisor = simulation.runtime.spawn(DynamicSupervisor, name=name)
            process = supervisor._actor_weakref()
            assert isinstance(process, DynamicSupervisor)
            spec = ChildSpec(id="it", cls=Worker, backoff=Backoff(min=1.0, max=1.0, jitter=1.0))
            return [process._next_delay(Child(spec)) for _ in range(3)]

    assert delays(None) == delays(None)
    assert delays("one") == delays("one") != delays("two")


def test_only_a_child_that_is_not_there_is_reported_as_ended(virtual: World) -> None:
    seen: list[Any] = []

    class Observer(Process):
        in_pykka_registry = False

        def on_receive(self, message: Any) -> None:
            seen.append(message)

    virtual.runtime.spawn(Observer, name="observer")
    supervisor = virtual.runtime.spawn(DynamicSupervisor, observer="observer", name="it")
    there, gone = virtual.specs("ab")
    start_child(supervisor, there, timeout=GENEROUS)
    for spec in (there, gone):
        supervisor.tell(ReportChild(spec))
    advance(virtual, 1.0)
    assert seen == [ChildExited(gone, None, "noproc", "it")]
