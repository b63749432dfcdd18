"""State machines beyond OTP's scenarios: what they show of themselves, and messages that are no events."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest
from pykka.messages import ProxyCall

from penstock.actors.runtime import inspect
from penstock.actors.runtime.clock import Fired
from penstock.actors.runtime.inspect import _Do
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    POSTPONE,
    Call,
    Cast,
    Enter,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    Stop,
    answer,
    cancel_timeout,
    next_event,
    timeout,
)
from penstock.errors import ProcessDead
from penstock.testing import Deadlock, Simulation

Rule = Callable[[Any, Any], Any]


class Plain(StateMachine):
    """Has one state, which does what the rule says."""

    def init(self, rule: Rule) -> str:
        self.rule = rule
        self.noted: list[str] = []
        return "only"

    def only(self, event: Any) -> Any:
        return self.rule(self, event)

    def note(self, word: str) -> str:
        """Called through Pykka's proxy."""
        self.noted.append(word)
        return word


class Checking(Plain):
    timeouts_are_periodic = True


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(1) as simulation:
        yield simulation


def process_of(ref: ProcessRef) -> Any:
    return ref._actor_weakref()


def test_a_machine_is_not_in_pykkas_registry(simulation: Simulation) -> None:
    ref = simulation.spawn(Plain, lambda machine, event: None)
    assert ref not in pykka.ActorRegistry.get_all()


def test_a_machine_without_a_filter_shows_its_state_what_waits_and_its_log(simulation: Simulation) -> None:
    def rule(machine: Any, event: Any) -> Any:
        match event:
            case Cast(message="go"):
                return Keep(next_event(Internal(1)), next_event(Internal(2)), timeout("t", 5))
            case Internal(message=1):
                shown.append(machine.status())
                return None
            case Cast(message="later"):
                return Keep(POSTPONE)
        return None

    shown: list[dict[str, Any]] = []
    ref = simulation.spawn(Plain, rule)
    inspect.set_log(ref, 3)
    ref.tell("later")
    ref.tell("go")
    simulation.settle()
    assert shown == [
        {
            "state": "only",
            "postponed": 1,
            "queued": 1,
            "timeouts": ["t"],
            "suspended": False,
            "log": [("start_timer", "t"), ("consume", "Cast"), ("in", "Internal")],
        }
    ]


def test_a_simulation_waits_for_timeouts_but_not_for_ever_for_those_of_periodic_checks(simulation: Simulation) -> None:
    def rule(machine: Any, event: Any) -> Any:
        match event:
            case NamedTimeout(content=(reply_to, 30)):
                return Keep(answer(reply_to, "after a while"))
            case NamedTimeout(content=(reply_to, number)):
                return Keep(timeout("t", 1.0, (reply_to, number + 1)))
        return Keep(timeout("t", 1.0, (event.reply_to, 1)))

    assert simulation.spawn(Plain, rule).ask("?") == "after a while"
    with pytest.raises(Deadlock):
        simulation.spawn(Checking, rule).ask("?")


def test_pykkas_and_the_systems_messages_have_their_effect_and_are_no_events(simulation: Simulation) -> None:
    seen: list[Any] = []
    ref = simulation.spawn(Plain, lambda machine, event: seen.append(event.message))
    ref.tell(ProxyCall(("note",), ("a",), {}))
    ref.tell(_Do(lambda process: process_of(process.ref).note("b")))
    ref.tell("end")
    simulation.settle()
    assert seen == ["end"]
    assert process_of(ref).noted == ["a", "b"]
    assert ref.proxy().note("c").get(timeout=1) == "c"


def test_an_expiry_that_no_timeout_knows_is_ignored(simulation: Simulation) -> None:
    seen: list[Any] = []
    ref = simulation.spawn(Plain, lambda machine, event: seen.append(event.message))
    ref.tell(Fired("t", 1))
    ref.tell("end")
    simulation.settle()
    assert ref.is_alive()
    assert seen == ["end"]


def test_what_a_crash_left_waiting_is_counted_in_the_log(
    simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(machine: Any, event: Any) -> Any:
        if isinstance(event, Internal):
            raise LookupError
        return Keep(next_event(Internal(1)), next_event(Internal(2)))

    caplog.set_level(logging.DEBUG, "penstock")
    simulation.spawn(Plain, rule).tell("go")
    simulation.settle()
    (crash,) = (record for record in caplog.records if "process_crashed" in record.getMessage())
    fields: Any = crash.penstock  # type: ignore[attr-defined]
    assert (fields["queued"], fields["last_event"], fields["state"]) == (1, "Internal", "only")


class Eager(Plain):
    state_enter = True


@pytest.mark.parametrize("cls", [Plain, Eager])
def test_what_a_machine_returns_after_it_was_killed_has_no_effect(simulation: Simulation, cls: type[Plain]) -> None:
    other = Reply()

    def rule(machine: Any, event: Any) -> Any:
        if isinstance(event, Enter) and event.old is None:
            return None
        simulation.runtime.exit(machine.ref, "kill")
        return Keep(answer(other, "too late"))

    ref = simulation.spawn(cls, rule)
    ref.tell("go")
    simulation.settle()
    assert simulation.runtime.exit_reason(ref) == "killed"
    assert not other.is_done


def test_every_call_that_a_machine_keeps_hears_of_its_end(simulation: Simulation) -> None:
    ref = simulation.spawn(Plain, lambda machine, event: None if isinstance(event, Call) else Stop("over"))
    calls = [ref.ask(number, block=False) for number in range(50)]
    simulation.settle()
    ref.tell("end")
    simulation.settle()
    for call in calls:
        with pytest.raises(ProcessDead) as caught:
            call.get(timeout=0)
        assert caught.value.reason == "over"


def test_every_call_that_a_machine_keeps_is_answered_when_another_process_kills_it(simulation: Simulation) -> None:
    ref = simulation.spawn(Plain, lambda machine, event: Keep(POSTPONE) if event.message == "later" else None)
    calls = [ref.ask(word, block=False) for word in ("later", "kept")]
    simulation.settle()
    simulation.runtime.exit(ref, "kill")
    assert all(call.is_done for call in calls)
    for call in calls:
        with pytest.raises(ProcessDead):
            call.get(timeout=0)


def test_a_call_that_is_postponed_again_and_again_is_not_remembered_each_time(simulation: Simulation) -> None:
    class Turning(StateMachine):
        def init(self) -> int:
            return 0

        def handle_event(self, event: Any, state: int) -> Any:
            return Keep(POSTPONE) if isinstance(event, Call) else Next(state + 1)

    ref = simulation.spawn(Turning)
    asked = ref.ask("?", block=False)
    for _ in range(100):
        ref.tell("turn")
    simulation.settle()
    assert process_of(ref).state == 100
    assert len(process_of(ref)._owed or ()) <= 1
    assert not asked.is_done


def test_a_machine_does_not_keep_a_message_that_it_has_handled(simulation: Simulation) -> None:
    class Message:
        pass

    ref = simulation.spawn(Plain, lambda machine, event: None)
    message = Message()
    found = weakref.ref(message)
    ref.tell(message)
    del message
    simulation.settle()
    assert found() is None


def test_calls_that_were_answered_later_are_not_remembered(simulation: Simulation) -> None:
    waiting: list[Any] = []

    def rule(machine: Any, event: Any) -> Any:
        if isinstance(event, Call):
            waiting.append(event.reply_to)
            return None
        return Keep(*(answer(reply_to, "late") for reply_to in waiting))

    ref = simulation.spawn(Plain, rule)
    asked = []
    for _ in range(200):
        asked.append(ref.ask("?", block=False))
        ref.tell("now")
        simulation.settle()
    assert [one.get(timeout=0) for one in asked] == ["late"] * 200
    assert len(process_of(ref)._owed) <= 32


def test_an_event_is_postponed_wherever_that_stands_among_the_actions(simulation: Simulation) -> None:
    for actions in ((POSTPONE, timeout("t", 1)), (timeout("t", 1), POSTPONE), (POSTPONE, POSTPONE)):
        ref = simulation.spawn(Plain, lambda machine, event, actions=actions: Keep(*actions))
        ref.tell("later")
        simulation.settle()
        assert process_of(ref).status()["postponed"] == 1


def test_what_an_enter_call_may_return(simulation: Simulation) -> None:
    seen: list[Any] = []

    def rule(machine: Any, event: Any) -> Any:
        seen.append(type(event).__name__)
        return result if isinstance(event, Enter) else None

    result: Any = Next("only", timeout("t", 1))
    ref = simulation.spawn(Eager, rule)
    simulation.advance(2)
    assert ref.is_alive()
    assert seen == ["Enter", "NamedTimeout"]

    reply = Reply()
    result = Stop("over", answer(reply, "bye"))
    ref = simulation.spawn(Eager, rule)
    simulation.settle()
    assert simulation.runtime.exit_reason(ref) == "over"
    assert reply.get(timeout=0) == "bye"


def test_a_listener_and_a_log_work_by_themselves_and_nothing_is_traced_without_them(simulation: Simulation) -> None:
    def rule(machine: Any, event: Any) -> Any:
        return Keep(timeout("t", None), cancel_timeout("t"))

    ref = simulation.spawn(Plain, rule)
    steps = [("in", "Cast"), ("consume", "Cast")]
    heard: list[tuple[str, str]] = []

    def happens() -> None:
        heard.clear()
        ref.tell("go")
        simulation.settle()

    inspect.set_trace(ref, lambda what, kind: heard.append((what, kind)))
    happens()
    assert (heard, inspect.get_log(ref)) == (steps, [])
    inspect.set_trace(ref, None)
    inspect.set_log(ref)
    happens()
    assert (heard, inspect.get_log(ref)) == ([], steps)
    inspect.set_log(ref, 0)
    assert process_of(ref)._trace is None
    happens()
    assert (heard, inspect.get_log(ref)) == ([], [])


def test_a_killed_machine_does_not_terminate(simulation: Simulation) -> None:
    heard: list[str] = []

    def rule(machine: Any, event: Any) -> None:
        simulation.runtime.exit(machine.ref, "kill")

    ref = simulation.spawn(Plain, rule)
    inspect.set_trace(ref, lambda what, kind: heard.append(what))
    ref.tell("go")
    simulation.settle()
    assert heard == ["in"]


def test_an_exit_signal_from_nobody_is_a_message_to_a_machine_without_a_parent(simulation: Simulation) -> None:
    class Trapping(Plain):
        trap_exit = True

    seen: list[Any] = []
    ref = simulation.spawn(Trapping, lambda machine, event: seen.append(event.message))
    simulation.runtime.exit(ref, "reason")
    simulation.settle()
    assert ref.is_alive()
    assert seen == [ExitNotice(None, "reason")]


@pytest.mark.parametrize("logs", [False, True])
def test_a_listener_that_raises_is_called_once_and_the_log_goes_on(simulation: Simulation, logs: bool) -> None:
    heard: list[str] = []

    def broken(what: str, kind: str) -> None:
        heard.append(what)
        raise LookupError

    ref = simulation.spawn(Plain, lambda machine, event: None)
    inspect.set_trace(ref, broken)
    inspect.set_log(ref, 10 if logs else 0)
    ref.tell("go")
    ref.tell("go")
    simulation.settle()
    assert heard == ["in"]
    assert inspect.get_log(ref) == ([("in", "Cast"), ("consume", "Cast")] * 2 if logs else [])
    assert (process_of(ref)._trace is None) is not logs


@pytest.mark.parametrize("reason", ["normal", "kill"])
def test_no_timer_of_a_machine_is_left_when_it_has_ended(simulation: Simulation, reason: str) -> None:
    ref = simulation.spawn(Plain, lambda machine, event: Keep(timeout("t", 1000), timeout("u", 2000)))
    ref.tell("go")
    simulation.settle()
    assert len(simulation.timers) == 2
    simulation.runtime.exit(ref, reason)
    ref.tell("go")
    if reason == "normal":
        ref.terminate(timeout=1)
    simulation.settle()
    assert not ref.is_alive()
    assert len(simulation.timers) == 0


class Valued(StateMachine):
    """A cast is the next state; a call waits for a change."""

    def init(self, first: Any) -> Any:
        return Next(first)

    def handle_event(self, event: Any, state: Any) -> Any:
        if isinstance(event, Call):
            return Stop("over") if state == "last" else Keep(POSTPONE)
        return Next(event.message)


NO_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("first", "then", "is_same"),
    [
        (("pair", [1]), ("pair", [1]), True),
        (("pair", [1]), ("pair", [2]), False),
        (1, True, False),
        (NO_NUMBER, NO_NUMBER, True),
    ],
)
def test_two_states_are_the_same_if_type_and_value_are(
    simulation: Simulation, first: Any, then: Any, is_same: bool
) -> None:
    ref = simulation.spawn(Valued, first)
    inspect.set_log(ref, 100)
    ref.ask("waits", block=False)
    ref.tell(then)
    simulation.settle()
    retried = inspect.get_log(ref).count(("postpone", "Call")) - 1
    assert retried == (0 if is_same else 1)


def test_a_retried_call_that_still_waits_when_the_machine_ends_is_answered(simulation: Simulation) -> None:
    ref = simulation.spawn(Valued, "first")
    calls = [ref.ask(number, block=False) for number in range(3)]
    ref.tell("last")
    simulation.settle()
    for call in calls:
        with pytest.raises(ProcessDead) as caught:
            call.get(timeout=0)
        assert caught.value.reason == "over"


class WithStatesOfOthers(StateMachine):
    """Its states are no methods of its own: one is a static method, one another object's, one is made at the start."""

    def init(self, other: Plain, made: Callable[[Any], Any]) -> str:
        self.others = other.only
        self.made = made
        return "static"

    @staticmethod
    def static(event: Any) -> Any:
        return Next(event.message)


def test_a_state_may_be_anything_that_can_be_called(simulation: Simulation) -> None:
    heard: list[str] = []

    def made(event: Any) -> Any:
        heard.append(f"made: {event.message}")
        return Next(event.message)

    other = process_of(simulation.spawn(Plain, lambda machine, event: heard.append(f"other: {event.message}")))
    ref = simulation.spawn(WithStatesOfOthers, other, made)
    for word in ("made", "others", "last"):
        ref.tell(word)
    simulation.settle()
    assert heard == ["made: others", "other: last"]


@pytest.mark.parametrize("cls", [Plain, Valued])
def test_a_machine_makes_no_circle_with_its_state(simulation: Simulation, cls: type[StateMachine]) -> None:
    machine = process_of(simulation.spawn(cls, lambda machine, event: None))
    assert machine not in gc.get_referents(machine._handler)
