"""Inspection of processes that are not state machines; for state machines see the conformance tests A47 … A50."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.actors.runtime import inspect
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.runtime import Runtime
from penstock.errors import CallTimeout, ProcessDead
from penstock.testing import Simulation

GENEROUS = 20.0


class Actor(Process):
    in_pykka_registry = False

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.got.append(message)
        return message


class Trapping(Actor):
    trap_exit = True


@pytest.fixture(params=[0, 1, 2])
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    with Simulation(request.param) as simulation:
        yield simulation


def test_a_suspended_process_keeps_messages_and_handles_them_first_when_resumed(simulation: Simulation) -> None:
    ref = simulation.spawn(Actor)
    inspect.suspend(ref)
    inspect.suspend(ref)
    calls = [ref.ask(number, block=False) for number in range(200)]
    simulation.settle()
    process: Any = inspect.get_state(ref)
    assert process.got == []
    inspect.resume(ref)
    ref.tell("after")
    simulation.settle()
    assert process.got == [*range(200), "after"]
    assert [call.get(timeout=0) for call in calls] == list(range(200))


@pytest.mark.parametrize("urgent", ["resume", "status", "stop", "parent"])
def test_what_must_not_wait_is_handled_although_it_came_right_behind_the_suspension(
    runtime: Runtime, urgent: str
) -> None:
    parent = runtime.spawn(Actor)
    ref = runtime.spawn(Trapping, link=parent)
    process: Any = ref._actor_weakref()
    release = threading.Event()
    ref.tell(lambda _: release.wait(GENEROUS))
    suspended = ref.ask(inspect._Do(lambda process: process.suspend()), block=False)
    answer: Any = None
    match urgent:
        case "resume" | "status":
            action = Process.resume if urgent == "resume" else inspect._status_of
            answer = ref.ask(inspect._Do(action), block=False)
        case "stop":
            ref.stop(block=False)
        case "parent":
            runtime.exit(ref, "reason", sender=parent)
    ref.tell("waits")
    release.set()  # all of it is in the mailbox, and is taken out in the same turn
    suspended.get(timeout=GENEROUS)
    if answer is None:
        assert runtime.join(ref, GENEROUS)
        assert runtime.exit_reason(ref) == ("normal" if urgent == "stop" else "reason")
        assert process.got == []
    else:
        answer.get(timeout=GENEROUS)
        if urgent == "status":
            inspect.get_status(ref, timeout=GENEROUS)
            assert process.got == []
            inspect.resume(ref, timeout=GENEROUS)
        assert ref.ask("after", timeout=GENEROUS) == "after"
        assert process.got == ["waits", "after"]


def test_what_comes_right_behind_the_suspension_waits_unless_it_is_urgent() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Actor)
        process: Any = ref._actor_weakref()
        before: list[int] = []

        def resume(process: Any) -> None:
            before.extend(process.got)
            process.resume()

        for message in (inspect._Do(Process.suspend), 1, 2, 3, inspect._Do(resume)):
            ref.tell(message)
        process.run(64)  # in one turn
        assert (before, process.got) == ([], [1, 2, 3])


def test_a_suspended_process_whose_mailbox_is_empty_ends_its_turn() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Actor)
        process: Any = ref._actor_weakref()
        for message in (inspect._Do(Process.suspend), 1):
            ref.tell(message)
        assert process.run(64) == 2


def test_an_exit_signal_is_obeyed_before_a_system_message_that_came_after_it() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Actor)
        process: Any = ref._actor_weakref()

        def suspend(process: Any) -> None:
            process.suspend()
            simulation.runtime.exit(ref, "reason")

        ref.tell(inspect._Do(suspend))
        status = ref.ask(inspect._Do(inspect._status_of), block=False)
        process.run(64)
        with pytest.raises(ProcessDead):
            status.get(timeout=0)
        assert simulation.runtime.exit_reason(ref) == "reason"


def test_a_system_message_does_not_overtake_messages_that_are_held_back() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Actor)
        process: Any = ref._actor_weakref()

        def note(process: Any) -> None:
            process.got.append("system message")

        def hold_back(process: Any) -> None:
            process.discard_down(0)  # takes all that waits out of the mailbox
            ref.tell(inspect._Do(note))

        for message in (hold_back, 1, 2):
            ref.tell(message)
        assert process.run(64) == 4
        assert process.got == [1, 2, "system message"]


def test_a_message_from_the_backlog_may_suspend_it_again(simulation: Simulation) -> None:
    ref = simulation.spawn(Actor)
    inspect.suspend(ref)
    for message in (1, lambda process: process.suspend(), 2):
        ref.tell(message)
    simulation.settle()
    inspect.resume(ref)
    simulation.settle()
    process: Any = inspect.get_state(ref)
    assert process.got == [1]
    ref.tell(3)
    inspect.resume(ref)
    simulation.settle()
    assert process.got == [1, 2, 3]


def test_killed_while_suspended_a_process_answers_waiting_callers_and_counts_the_rest(simulation: Simulation) -> None:
    ref = simulation.spawn(Actor)
    inspect.suspend(ref)
    call = ref.ask("call", block=False)
    ref.tell("told")
    simulation.settle()
    simulation.runtime.exit(ref, "kill")
    with pytest.raises(ProcessDead) as caught:
        call.get(timeout=0)
    assert caught.value.reason == "killed"
    assert simulation.runtime.dead_letters.count == 1


def test_a_crash_in_the_backlog_is_a_crash_like_any_other(simulation: Simulation) -> None:
    ref = simulation.spawn(Actor)
    inspect.suspend(ref)
    ref.tell(lambda _: 1 // 0)
    behind = ref.ask("behind", block=False)
    simulation.settle()
    inspect.resume(ref)  # its caller did not cause the crash, and gets no error
    simulation.settle()
    assert isinstance(simulation.runtime.exit_reason(ref), ZeroDivisionError)
    with pytest.raises(ProcessDead):
        behind.get(timeout=0)


def test_the_status_shows_what_a_process_is_doing_but_no_content_of_messages(simulation: Simulation) -> None:
    ref, peer = simulation.spawn(Actor, name="it"), simulation.spawn(Actor, name="peer")
    simulation.runtime.link(ref, peer)
    simulation.runtime.monitor(ref, peer)
    inspect.suspend(ref)
    ref.tell("secret")
    simulation.settle()
    status = inspect.get_status(ref)
    assert (status["name"], status["class"], status["links"], status["monitors"]) == ("it", "Actor", ["peer"], ["peer"])
    assert "secret" not in repr(status)


def test_requests_for_state_machines_only_raise_in_the_caller(simulation: Simulation) -> None:
    ref = simulation.spawn(Actor)
    for ask in (
        lambda: inspect.replace_state(ref, lambda state, data: (state, data)),
        lambda: inspect.set_trace(ref, None),
        lambda: inspect.set_log(ref),
    ):
        with pytest.raises(TypeError, match="not a state machine"):
            ask()
    assert inspect.get_log(ref) == []
    assert ref.ask("alive", timeout=1) == "alive"


def test_a_dead_and_a_busy_process_raise_in_the_caller(runtime: Runtime) -> None:
    dead, busy = runtime.spawn(Actor), runtime.spawn(Actor)
    runtime.exit(dead, "kill")
    with pytest.raises(ProcessDead):
        inspect.get_status(dead)
    inside, release = threading.Event(), threading.Event()

    def hold(_process: Any) -> bool:
        inside.set()
        return release.wait(GENEROUS)

    held = busy.ask(hold, block=False)
    assert inside.wait(GENEROUS)
    with pytest.raises(CallTimeout):
        inspect.get_status(busy, timeout=0.001)
    release.set()
    assert held.get(timeout=GENEROUS)


def test_a_suspended_process_runs_no_more_often_than_there_are_messages(runtime: Runtime) -> None:
    ref = runtime.spawn(Actor)
    inspect.suspend(ref)
    for number in range(1000):
        ref.tell(number)
    before = runtime.dispatcher.statistics().messages
    process: Any = inspect.get_state(ref)
    inspect.resume(ref)
    assert ref.ask("after", timeout=GENEROUS) == "after"
    assert process.got == [*range(1000), "after"]
    assert runtime.dispatcher.statistics().messages - before <= 3 * 1000
