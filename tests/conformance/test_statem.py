"""OTP's ``gen_statem`` as numbered scenarios: A1 … A50.

Every test runs on the simulation, under several seeds and in both modes: a method per state, and one handler for any
state (scenario 15). Those in which threads matter run on the real dispatcher and timers as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, _ActorStop

from penstock.actors.runtime import inspect as sys
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.ref import Terminate
from penstock.actors.runtime.reply import Reply, as_completed
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Down, ExitNotice, Shutdown
from penstock.actors.runtime.statem import StateMachine, StateMachineError, UnknownCall
from penstock.actors.runtime.transitions import (
    EVENT_TIMEOUT,
    IGNORE,
    POSTPONE,
    Call,
    Cast,
    Enter,
    EventTimeout,
    Info,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    Repeat,
    StateTimeout,
    Stop,
    answer,
    answer_error,
    cancel_timeout,
    event_timeout,
    next_event,
    state_timeout,
    timeout,
    update_timeout,
)
from penstock.errors import CallTimeout, OptionError, ProcessDead, StartError
from penstock.testing import Simulation

DIFFERENT: Final = {
    16: "a transition is returned, never thrown: in Python an exception that leaves a state function is a crash",
}

pytestmark = pytest.mark.seeds(3)

GENEROUS: Final = 20.0  # seconds to wait for what comes at once

Rule = Callable[[Any, Any], Any]


class Scripted(StateMachine):
    """Does what the rule of its state says, and notes in ``seen`` what happens to it."""

    rules: dict[Any, Rule]
    seen: list[Any]

    def init(self, first: Any, rules: dict[Any, Rule], seen: list[Any], trap: bool = False) -> Any:
        self.rules, self.seen, self.trap_exit = rules, seen, trap
        return first(self) if callable(first) else first

    def terminate(self, reason: object) -> None:
        self.seen.append(("terminate", reason, self.state))
        if "terminate" in self.rules:
            self.rules["terminate"](self, reason)

    def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
        return self.rules["format"](self, status) if "format" in self.rules else status


class ByMethods(Scripted):
    def a(self, event: Any) -> Any:
        return self.rules["a"](self, event)

    def b(self, event: Any) -> Any:
        return self.rules["b"](self, event)

    def c(self, event: Any) -> Any:
        return self.rules["c"](self, event)


class ByMethodsWithEnter(ByMethods):
    state_enter = True


class ByHandler(Scripted):
    def handle_event(self, event: Any, state: Any) -> Any:
        return self.rules[state](self, event)


class ByHandlerWithEnter(ByHandler):
    state_enter = True


class Watcher(Process):
    """Keeps what it gets; traps exits."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    def on_start(self) -> None:
        self.trap_exit = True

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.got.append(message)
        return None


class Kit:
    """Machines on a simulation, in one of the two modes."""

    def __init__(self, simulation: Simulation, mode: str) -> None:
        self.simulation = simulation
        self.runtime = simulation.runtime
        self.mode = mode
        self.seen: list[Any] = []
        self.settle = simulation.settle
        self.advance = simulation.advance

    def start(
        self,
        first: Any = "a",
        rules: dict[Any, Rule] | None = None,
        *,
        enter: bool = False,
        trap: bool = False,
        name: str | None = None,
        link: ProcessRef | None = None,
    ) -> ProcessRef:
        classes: dict[tuple[str, bool], type[Scripted]] = {
            ("methods", False): ByMethods,
            ("methods", True): ByMethodsWithEnter,
            ("handler", False): ByHandler,
            ("handler", True): ByHandlerWithEnter,
        }
        cls = classes[self.mode, enter]
        return self.runtime.spawn(cls, first, rules or {}, self.seen, trap, name=name, link=link)

    def watch(self, ref: ProcessRef) -> list[Any]:
        """What a monitor of ``ref`` gets."""
        watcher = self.runtime.spawn(Watcher)
        self.runtime.monitor(watcher, ref)
        got: list[Any] = watcher.ask(lambda process: process.got, timeout=1)
        return got

    def tell(self, ref: ProcessRef, *messages: Any) -> list[Any]:
        """Tell, let everything happen, and say what has been seen since the start."""
        for message in messages:
            ref.tell(message)
        self.settle()
        return self.seen


@pytest.fixture(params=["methods", "handler"])
def kit(request: pytest.FixtureRequest, seed: int) -> Iterator[Kit]:
    with Simulation(seed) as simulation:
        yield Kit(simulation, request.param)


@pytest.fixture
def real() -> Iterator[Runtime]:
    dispatcher = ThreadedDispatcher(workers=2)
    timers = TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    yield runtime
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def note(machine: Any, event: Any) -> None:
    """A rule: write down what came."""
    machine.seen.append(words(event))


def words(event: Any) -> Any:
    match event:
        case Enter(old=old):
            return ("enter", old)
        case StateTimeout(content=content):
            return ("state_timeout", content)
        case EventTimeout(content=content):
            return ("event_timeout", content)
        case NamedTimeout(name=name, content=content):
            return (name, content)
        case Internal(message=message):
            return ("internal", message)
    return event.message


def on(**reactions: Any) -> Rule:
    """A rule: a transition for each message (a callable makes it); everything else is noted."""

    def rule(machine: Any, event: Any) -> Any:
        message = getattr(event, "message", None)
        if isinstance(message, str) and message in reactions:
            reaction = reactions[message]
            return reaction(machine, event) if callable(reaction) else reaction
        return note(machine, event)

    return rule


def reply(value: Any = None) -> Rule:
    return lambda machine, event: Keep(answer(event.reply_to, value))


# --- start and stop --------------------------------------------------------------------------------------------------


def test_A1_start_returns_only_after_init(kit: Kit) -> None:
    def first(machine: Any) -> str:
        machine.seen.append("init")
        return "a"

    ref = kit.start(first, {"a": note})
    assert kit.seen == ["init"]
    assert ref.is_alive()


def test_A1_start_with_a_timeout_returns_only_after_init_too(real: Runtime) -> None:
    ran_in: list[str] = []

    def first(machine: Any) -> str:
        ran_in.append(threading.current_thread().name)
        return "a"

    ref = real.spawn(ByMethods, first, {"a": reply("yes")}, [], start_timeout=GENEROUS)
    assert ran_in
    assert ran_in[0].startswith("penstock-worker")
    assert ref.ask("ready?", timeout=GENEROUS) == "yes"


def test_A2_init_that_ignores_starts_no_actor(kit: Kit) -> None:
    with pytest.raises(StartError) as caught:
        kit.start(IGNORE, name="it")
    assert caught.value.code == "ignore"
    assert kit.runtime.processes() == []
    assert kit.runtime.whereis("it") is None


def test_A3_init_that_stops_or_raises_is_an_error_of_start_without_a_stray_exit_notice(kit: Kit) -> None:
    def fail(_machine: Any) -> Any:
        raise LookupError("init")

    def leave(machine: Any) -> Any:
        machine.exit("left")

    parent = kit.runtime.spawn(Watcher)
    for _ in range(2):  # immediately repeatable
        with pytest.raises(StartError) as stopped:
            kit.start(Stop("reason"), name="it", link=parent)
        assert stopped.value.code == "reason"
        with pytest.raises(LookupError, match="init"):
            kit.start(fail, name="it", link=parent)
        with pytest.raises(StartError) as left:
            kit.start(leave, name="it", link=parent)
        assert left.value.code == "left"
    kit.settle()
    assert kit.runtime.processes() == [parent]
    assert parent.ask(lambda process: process.got, timeout=1) == []
    assert kit.runtime.links_of(parent) == ()


def test_A3_who_init_linked_itself_to_does_hear_of_it(kit: Kit) -> None:
    peer = kit.runtime.spawn(Watcher)

    def link_and_stop(machine: Any) -> Any:
        machine.runtime.link(machine.ref, peer)
        return Stop("reason")

    with pytest.raises(StartError):
        kit.start(link_and_stop)
    kit.settle()
    got = peer.ask(lambda process: process.got, timeout=1)
    assert [notice.reason for notice in got] == ["reason"]


def test_A4_init_that_returns_junk_is_bad_return_from_init(kit: Kit) -> None:
    junk: list[Any] = [None, Keep(), Repeat()]
    if kit.mode == "methods":
        junk += [42, "no_such_state", ("a",)]
    for result in junk:
        with pytest.raises(StartError) as caught:
            kit.start(lambda _machine, result=result: result)
        assert caught.value.code == "bad_return_from_init"
    assert kit.runtime.processes() == []


def test_A5_init_that_exceeds_the_start_timeout_is_given_up_and_has_no_effect(real: Runtime) -> None:
    inside, release, over = threading.Event(), threading.Event(), threading.Event()
    seen: list[Any] = []

    def first(machine: Any) -> Any:
        inside.set()
        release.wait(GENEROUS)
        over.set()
        return Next("a", timeout("late", 0), next_event(Internal("late")))

    with pytest.raises(StartError) as caught:
        real.spawn(ByMethods, first, {"a": note}, seen, name="it", start_timeout=0.5)
    assert caught.value.code == "timeout"
    assert inside.wait(GENEROUS)
    assert real.whereis("it") is None
    assert real.processes() == []
    assert real.dispatcher.statistics().leaked == 1
    release.set()
    assert over.wait(GENEROUS)
    again = real.spawn(ByMethods, "a", {"a": reply("here")}, seen, name="it", start_timeout=GENEROUS)
    assert again.ask("who?", timeout=GENEROUS) == "here"
    assert seen == []


def test_A6_a_taken_name_is_already_started_and_init_does_not_run(kit: Kit) -> None:
    first = kit.start(name="it")
    with pytest.raises(StartError) as caught:
        kit.start(lambda machine: machine.seen.append("init"), name="it")
    assert (caught.value.code, caught.value.ref) == ("already_started", first)
    assert kit.seen == []
    assert kit.runtime.whereis("it") is first


def test_A7_stop_terminates_with_normal_and_returns_when_it_is_dead(kit: Kit) -> None:
    ref = kit.start(rules={"a": note}, name="it")
    downs = kit.watch(ref)
    ref.terminate(timeout=5)
    assert kit.seen == [("terminate", "normal", "a")]
    assert not ref.is_alive()
    assert kit.runtime.whereis("it") is None
    kit.settle()
    assert [down.reason for down in downs] == ["normal"]
    with pytest.raises(ProcessDead) as caught:
        ref.terminate(timeout=5)
    assert caught.value.reason == "noproc"


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon", True, float("inf")])
def test_A7_a_bad_stop_timeout_is_the_callers_error_and_the_actor_lives(kit: Kit, bad: Any) -> None:
    ref = kit.start(rules={"a": reply("alive")})
    with pytest.raises(OptionError, match="timeout"):
        ref.terminate("normal", bad)
    assert ref.ask("?", timeout=1) == "alive"


def test_A7_stop_times_out_and_it_ends_all_the_same(real: Runtime) -> None:
    inside, release = threading.Event(), threading.Event()

    def hold(_machine: Any, _event: Any) -> None:
        inside.set()
        release.wait(GENEROUS)

    ref = real.spawn(ByMethods, "a", {"a": hold}, [])
    ref.tell("hold")
    assert inside.wait(GENEROUS)
    with pytest.raises(CallTimeout):
        ref.terminate("normal", 0.02)
    assert ref.is_alive()
    release.set()
    assert real.join(ref, GENEROUS)
    assert real.exit_reason(ref) == "normal"


def test_A7_pykkas_own_stop_works_and_says_whether_there_was_something_to_stop(kit: Kit) -> None:
    ref = kit.start(rules={"a": note})
    assert ref.stop(timeout=5) is True
    assert ref.stop(timeout=5) is False
    assert kit.seen == [("terminate", "normal", "a")]


def test_A8_stop_with_a_reason_is_ok_if_it_exits_with_it_and_raises_what_terminate_raises(kit: Kit) -> None:
    ref = kit.start(rules={"a": note})
    ref.terminate("reason", 5)
    assert kit.runtime.exit_reason(ref) == "reason"

    def fail(_machine: Any, _reason: object) -> None:
        raise LookupError("terminate")

    broken = kit.start(rules={"a": note, "terminate": fail})
    downs = kit.watch(broken)
    with pytest.raises(LookupError, match="terminate"):
        broken.terminate("normal", 5)
    kit.settle()
    assert [type(down.reason) for down in downs] == [LookupError]

    def leave(machine: Any, _reason: object) -> None:
        machine.exit("other")

    leaving = kit.start(rules={"a": note, "terminate": leave})
    with pytest.raises(ProcessDead) as caught:
        leaving.terminate("normal", 5)
    assert caught.value.reason == "other"


# --- events ----------------------------------------------------------------------------------------------------------


def test_A9_a_call_can_be_answered_from_a_later_event_in_a_later_state(kit: Kit) -> None:
    waiting: list[Any] = []

    def keep(_machine: Any, event: Any) -> Any:
        waiting.append(event.reply_to)
        return Next("b")

    ref = kit.start(rules={"a": on(question=keep), "b": on(now=lambda m, e: Keep(answer(waiting[0], "late")))})
    asked = ref.ask("question", block=False)
    kit.settle()
    with pytest.raises(CallTimeout):
        asked.get(timeout=0)
    kit.tell(ref, "now")
    assert asked.get(timeout=0) == "late"


def test_A10_a_call_to_the_dead_is_noproc_and_a_death_during_the_call_gives_the_exit_reason(kit: Kit) -> None:
    def fail(_machine: Any, _event: Any) -> Any:
        raise LookupError("state")

    crashing = kit.start(rules={"a": fail})
    with pytest.raises(LookupError, match="state"):
        crashing.ask("die", timeout=1)
    with pytest.raises(ProcessDead) as dead:
        crashing.ask("again", timeout=1)
    assert dead.value.reason == "noproc"

    stopping = kit.start(rules={"a": lambda m, e: Stop("reason")})
    with pytest.raises(ProcessDead) as stopped:
        stopping.ask("die", timeout=1)
    assert stopped.value.reason == "reason"


def test_A10_every_call_that_is_not_answered_hears_of_the_end_wherever_it_waits(kit: Kit) -> None:
    kept: list[Any] = []

    def keep(_machine: Any, event: Any) -> None:
        kept.append(event.reply_to)

    rules = {"a": on(kept=keep, postponed=Keep(POSTPONE), die=Stop("reason"))}
    ref = kit.start(rules=rules)
    asked = [ref.ask("kept", block=False), ref.ask("postponed", block=False)]
    kit.settle()
    asked += [ref.ask("die", block=False), ref.ask("in the mailbox", block=False)]
    kit.settle()
    for call in asked:
        with pytest.raises(ProcessDead) as caught:
            call.get(timeout=0)
        assert caught.value.reason == "reason"


def test_A10_calls_it_keeps_are_not_remembered_longer_than_somebody_waits(kit: Kit) -> None:
    ref = kit.start(rules={"a": lambda m, e: None})
    for number in range(200):
        with pytest.raises(CallTimeout):
            ref.ask(number, timeout=0.1)
    machine: Any = ref._actor_weakref()
    assert len(machine._owed) <= 32


def test_A11_a_late_reply_never_surfaces(kit: Kit) -> None:
    waiting: list[Any] = []
    rules = {
        "a": on(
            slow=lambda m, e: waiting.append(e.reply_to),
            go=lambda m, e: Keep(answer(waiting[0], "late"), answer(waiting[0], "later")),
            quick=reply("quick"),
        )
    }
    ref = kit.start(rules=rules)
    with pytest.raises(CallTimeout):
        ref.ask("slow", timeout=3)
    kit.tell(ref, "go")
    assert ref.is_alive()
    assert ref.ask("quick", timeout=1) == "quick"


def test_A12_a_cast_to_the_dead_or_to_an_unknown_name_is_silently_a_dead_letter(kit: Kit) -> None:
    ref = kit.start(rules={"a": note})
    ref.terminate(timeout=1)
    ref.tell("hello")
    kit.runtime.tell(ref, "hello")
    kit.runtime.tell("nobody", "hello")
    kit.settle()
    assert kit.runtime.dead_letters.count == 3
    assert kit.runtime.dead_letters.recent[-1].recipient == "nobody"


def test_A13_a_request_can_be_waited_for_later_and_collections_come_in_completion_order(kit: Kit) -> None:
    def later(_machine: Any, event: Any) -> Any:
        return Keep(timeout(event.reply_to, event.message, event.reply_to))

    def rule(machine: Any, event: Any) -> Any:
        if isinstance(event, NamedTimeout):
            return Keep(answer(event.content, "answered"))
        return later(machine, event)

    ref = kit.start(rules={"a": rule})
    request = ref.ask(5, block=False)
    with pytest.raises(CallTimeout):
        request.get(timeout=0)
    assert request.get(timeout=10) == "answered"

    three, one, two = (ref.ask(seconds, block=False) for seconds in (3, 1, 2))
    assert list(as_completed([three, one, two], timeout=10)) == [one, two, three]
    assert list(as_completed([three, one, two])) == [three, one, two]
    ref.terminate(timeout=1)
    with pytest.raises(ProcessDead) as caught:
        next(as_completed([ref.ask(1, block=False)])).get(timeout=0)
    assert caught.value.reason == "noproc"


def test_A13_a_collection_has_one_timeout_for_all(kit: Kit) -> None:
    def rule(_machine: Any, event: Any) -> Any:
        if isinstance(event, NamedTimeout):
            return Keep(answer(event.content, "answered"))
        return Keep(timeout(event.reply_to, event.message, event.reply_to))

    ref = kit.start(rules={"a": rule})
    requests = [ref.ask(seconds, block=False) for seconds in (2, 4, 6)]
    answers = as_completed(requests, timeout=5)
    assert [next(answers), next(answers)] == requests[:2]
    with pytest.raises(CallTimeout):
        next(answers)


def test_A13_a_collection_without_a_timeout_waits(real: Runtime) -> None:
    release = threading.Event()

    def hold(_machine: Any, event: Any) -> Any:
        release.wait(GENEROUS)
        return Keep(answer(event.reply_to, event.message))

    refs = [real.spawn(ByMethods, "a", {"a": hold}, []) for _ in range(3)]
    requests = [ref.ask(number, block=False) for number, ref in enumerate(refs)]
    threading.Timer(0.02, release.set).start()
    assert sorted(request.get(timeout=0) for request in as_completed(requests)) == [0, 1, 2]


def test_A14_what_is_told_as_info_is_info(kit: Kit) -> None:
    ref = kit.start(rules={"a": lambda m, e: m.seen.append(e)})
    assert kit.tell(ref, Info("told"), "cast") == [Info("told"), Cast("cast")]


def test_A14_downs_and_exit_notices_are_info(kit: Kit) -> None:
    infos: list[Any] = []
    other = kit.start(rules={"a": note})
    ref = kit.start(rules={"a": lambda m, e: infos.append(e)}, trap=True)
    kit.runtime.monitor(ref, other)
    kit.runtime.link(ref, other)
    kit.runtime.exit(other, "reason")
    kit.settle()
    assert [type(info) for info in infos] == [Info, Info]
    assert {type(info.message) for info in infos} == {Down, ExitNotice}


def test_A15_with_one_handler_a_state_may_be_any_value() -> None:
    with Simulation() as simulation:
        kit = Kit(simulation, "handler")
        states: list[Any] = [("pair", 1), ("pair", 2), 1, True, 1.0, None]
        rules: dict[Any, Rule] = {}

        class AnyState(Scripted):
            state_enter = True

            def handle_event(self, event: Any, state: Any) -> Any:
                if isinstance(event, Enter):
                    self.seen.append((state, type(state)))
                    return None
                return Next(event.message)

        ref = kit.runtime.spawn(AnyState, states[0], rules, kit.seen)
        for state in states[1:]:
            kit.tell(ref, state)
        assert [repr(state) for state, _ in kit.seen] == [repr(state) for state in states]


# --- transitions and the queue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [Next("a"), Keep(), None])
def test_A17_to_stay_is_no_change_of_state(kit: Kit, same: Any) -> None:
    rules = {"a": on(stay=same, later=Keep(POSTPONE), arm=Keep(state_timeout(5, "armed")))}
    ref = kit.start(rules=rules, enter=True)
    kit.tell(ref, "later", "arm")
    kit.advance(3)
    kit.tell(ref, "stay")
    kit.advance(1.9)
    assert kit.seen == [("enter", "a")]
    kit.advance(0.1)
    assert kit.seen == [("enter", "a"), ("state_timeout", "armed")]


def test_A18_actions_run_in_order_replies_at_once_and_of_one_kind_the_last_wins(kit: Kit) -> None:
    one, two = Reply(), Reply()
    order: list[str] = []
    one.when_done(lambda: order.append("one"))
    two.when_done(lambda: order.append("two"))
    act = Next(
        "b",
        answer(two, 2),
        state_timeout(1, "first"),
        answer(one, 1),
        state_timeout(2, "second"),
        timeout("t", 1),
        timeout("t", None),
    )
    ref = kit.start(rules={"a": on(act=act), "b": note}, enter=True)
    kit.tell(ref, "act")
    assert order == ["two", "one"]
    kit.advance(10)
    assert kit.seen == [("enter", "a"), ("enter", "a"), ("state_timeout", "second")]


def test_A19_inserted_events_come_before_postponed_ones_then_queued_ones_then_zero_timeouts(kit: Kit) -> None:
    def change(_machine: Any, _event: Any) -> Any:
        return Next(
            "b",
            timeout("z1", 0),
            next_event(Internal("i1")),
            state_timeout(0, "z2"),
            next_event(Cast("i2")),
        )

    def rule(machine: Any, event: Any) -> Any:
        if event == Internal("change"):
            return change(machine, event)
        return on(
            p1=Keep(POSTPONE),
            p2=Keep(POSTPONE),
            go=Keep(next_event(Internal("change")), next_event(Internal("queued"))),
        )(machine, event)

    ref = kit.start(rules={"a": rule, "b": note})
    kit.tell(ref, "p1", "p2", "go", "mailbox")
    assert kit.seen == [
        ("internal", "i1"),
        "i2",
        "p1",
        "p2",
        ("internal", "queued"),
        ("z1", None),
        ("state_timeout", "z2"),
        "mailbox",
    ]


def test_A20_a_postponed_event_stays_untouched_until_the_state_changes(kit: Kit) -> None:
    ref = kit.start(rules={"a": on(later=Keep(POSTPONE), same=Keep(), repeat=Repeat(), go=Next("b")), "b": note})
    assert kit.tell(ref, "later", "same", "other", "repeat") == ["other"]
    assert kit.tell(ref, "go") == ["other", "later"]


def test_A21_postponed_together_with_a_change_it_is_retried_in_the_new_state(kit: Kit) -> None:
    ref = kit.start(rules={"a": on(later=Keep(POSTPONE), both=Next("b", POSTPONE)), "b": note})
    assert kit.tell(ref, "later", "both", "next") == ["later", "both", "next"]


def test_A22_postponed_again_it_waits_for_the_next_change_in_the_same_order(kit: Kit) -> None:
    rules = {
        "a": on(p1=Keep(POSTPONE), p2=Keep(POSTPONE), go=Next("b")),
        "b": on(p1=Keep(POSTPONE), p2=Keep(POSTPONE), p3=Keep(POSTPONE), go=Next("c")),
        "c": note,
    }
    ref = kit.start(rules=rules)
    assert kit.tell(ref, "p1", "p2", "go", "p3", "other") == ["other"]
    assert kit.tell(ref, "go") == ["other", "p1", "p2", "p3"]


def test_A23_a_postponed_call_keeps_its_reply_address(kit: Kit) -> None:
    ref = kit.start(rules={"a": on(call=Keep(POSTPONE), go=Next("b")), "b": reply("from b")})
    asked = ref.ask("call", block=False)
    kit.tell(ref, "go")
    assert asked.get(timeout=0) == "from b"


def test_A24_postpone_from_init_is_ignored(kit: Kit) -> None:
    ref = kit.start(Next("a", POSTPONE, next_event(Internal("first"))), {"a": on(go=Next("b")), "b": note})
    assert kit.tell(ref, "go", "x") == [("internal", "first"), "x"]


def test_A25_next_event_carries_any_type_and_internal_never_comes_from_outside(kit: Kit) -> None:
    asked = Reply()
    events: list[Any] = [
        Call("call", asked), Cast("cast"), Info("info"), Internal("internal"),
        StateTimeout("s"), EventTimeout("e"), NamedTimeout("n", "n"),
    ]  # fmt: skip

    def rule(machine: Any, event: Any) -> Any:
        machine.seen.append(event)
        if event == Cast("go"):
            return Keep(*(next_event(inserted) for inserted in events))
        return None

    ref = kit.start(rules={"a": rule})
    kit.tell(ref, "go")
    assert kit.seen == [Cast("go"), *events]
    kit.seen.clear()
    pretended = [Internal("x"), StateTimeout(), EventTimeout(), NamedTimeout("n")]
    kit.tell(ref, *pretended)
    assert kit.seen == [Cast(event) for event in pretended]


@pytest.mark.parametrize("junk", ["a word", Enter("a"), None, POSTPONE])
def test_A25_next_event_of_anything_else_is_a_bad_action(kit: Kit, junk: Any) -> None:
    ref = kit.start(rules={"a": lambda m, e: Keep(next_event(junk))})
    with pytest.raises(StateMachineError) as caught:
        ref.ask("go", timeout=1)
    assert caught.value.code == "bad_action_from_state_function"


# --- time-outs -------------------------------------------------------------------------------------------------------


def test_A26_a_state_timeout_fires_if_the_state_holds_whatever_else_comes(kit: Kit) -> None:
    ref = kit.start(Next("a", state_timeout(5, "held")), {"a": note})
    kit.advance(4)
    kit.tell(ref, "other")
    kit.advance(1)
    assert kit.seen == ["other", ("state_timeout", "held")]
    kit.advance(100)
    assert len(kit.seen) == 2


def test_A27_a_change_of_state_cancels_it_and_one_set_in_the_change_is_the_new_states(kit: Kit) -> None:
    rules = {
        "a": on(go=Next("b"), set=Next("b", state_timeout(3, "new"))),
        "b": on(back=Next("a", state_timeout(2, "a"))),
    }
    ref = kit.start(Next("a", state_timeout(5, "old")), rules)
    kit.tell(ref, "go")
    kit.advance(10)
    assert kit.seen == []
    kit.tell(ref, "back", "set")
    kit.advance(10)
    assert kit.seen == [("state_timeout", "new")]


def test_A27_one_that_has_expired_but_waits_behind_the_change_is_not_delivered(kit: Kit) -> None:
    ref = kit.start(Next("a", state_timeout(5)), {"a": on(go=Next("b")), "b": note})
    ref.tell("go")
    kit.simulation.clock.move_to(kit.simulation.clock.monotonic() + 5)
    kit.simulation.timers.fire_due(kit.simulation.clock.monotonic())
    kit.settle()
    assert kit.seen == []


@pytest.mark.parametrize("disturb", ["external", "inserted", "retried", "timeout", "call"])
def test_A28_an_event_timeout_is_cancelled_by_any_event(kit: Kit, disturb: str) -> None:
    arm = event_timeout(5, "quiet")
    transitions = {
        "external": Keep(arm),
        "inserted": Keep(arm, next_event(Internal("x"))),
        "retried": Next("b", arm),
        "timeout": Keep(arm, timeout("t", 1)),
        "call": Keep(arm),
    }
    rules = {"a": on(later=Keep(POSTPONE), arm=transitions[disturb], call=reply()), "b": note}
    ref = kit.start(rules=rules)
    if disturb == "retried":
        ref.tell("later")
    kit.tell(ref, "arm")
    if disturb == "external":
        kit.tell(ref, "x")
    if disturb == "call":
        ref.ask("call", timeout=1)
    kit.advance(100)
    assert ("event_timeout", "quiet") not in kit.seen


@pytest.mark.parametrize("enter", [False, True])
@pytest.mark.parametrize("how", ["next", "repeat", "init", "retried"])
def test_A28_one_that_is_set_with_a_change_of_state_expires_in_the_new_state(kit: Kit, how: str, enter: bool) -> None:
    arm = event_timeout(5, "quiet")
    rules = {
        "a": on(go=Repeat(arm) if how == "repeat" else Next("b", arm), later=Keep(POSTPONE), change=Next("c")),
        "b": note,
        "c": on(later=Next("b", arm)),
    }
    ref = kit.start(Next("b", arm) if how == "init" else "a", rules, enter=enter)
    if how == "retried":
        kit.tell(ref, "later", "change")
    elif how != "init":
        kit.tell(ref, "go")
    before = [] if not enter else list(kit.seen)
    assert not any(entry[0] == "event_timeout" for entry in before)
    kit.advance(4.5)
    assert kit.seen == before
    kit.advance(1)
    assert kit.seen == [*before, ("event_timeout", "quiet")]


def test_A28_system_messages_do_not_cancel_an_event_timeout(kit: Kit) -> None:
    ref = kit.start(rules={"a": on(arm=Keep(event_timeout(5, "quiet")))})
    kit.tell(ref, "arm")
    kit.advance(3)
    assert sys.get_state(ref) == ("a", None)
    sys.suspend(ref)
    sys.resume(ref)
    kit.advance(2)
    assert kit.seen == [("event_timeout", "quiet")]


def test_A29_named_timeouts_are_many_survive_changes_and_are_replaced_or_cancelled_by_name(kit: Kit) -> None:
    now = kit.simulation.clock.monotonic()
    first = Next(
        "a",
        timeout("one", 1),
        timeout("two", 2, "old"),
        timeout(("three", 3), 3),
        timeout("four", 4),
        timeout("abs", now + 5, absolute=True),
        timeout("past", now - 1, absolute=True),
    )
    change = Next("b", timeout("two", 10, "new"), timeout("four", float("inf")), cancel_timeout("nobody"))
    ref = kit.start(first, {"a": on(go=change), "b": note})
    kit.settle()
    kit.tell(ref, "go")
    kit.advance(20)
    assert kit.seen == [("past", None), ("one", None), (("three", 3), None), ("abs", None), ("two", "new")]


def test_A30_a_zero_timeout_comes_after_queued_events_and_before_the_mailbox(kit: Kit) -> None:
    go = Keep(state_timeout(0, "zero"), next_event(Internal("inserted")))
    ref = kit.start(rules={"a": on(go=go)})
    kit.tell(ref, "go", "mailbox")
    assert kit.seen == [("internal", "inserted"), ("state_timeout", "zero"), "mailbox"]
    assert len(kit.simulation.timers) == 0


def test_A31_zeros_come_in_the_order_they_were_set_and_one_set_again_moves_last(kit: Kit) -> None:
    go = Keep(timeout("x", 0, 1), timeout("y", 0, 1), state_timeout(0, 1), timeout("x", 0, 2))
    ref = kit.start(rules={"a": on(go=go)})
    assert kit.tell(ref, "go") == [("y", 1), ("state_timeout", 1), ("x", 2)]


def test_A32_what_is_cancelled_is_never_delivered_even_if_it_has_expired(kit: Kit) -> None:
    cancel = Keep(cancel_timeout("t"), cancel_timeout(), cancel_timeout("zero"))
    rules = {"a": on(cancel=cancel, zero=Keep(timeout("zero", 0), next_event(Cast("cancel"))))}
    ref = kit.start(Next("a", timeout("t", 5), state_timeout(5)), rules)
    ref.tell("cancel")
    kit.simulation.clock.move_to(kit.simulation.clock.monotonic() + 5)
    kit.simulation.timers.fire_due(kit.simulation.clock.monotonic())  # both are in the mailbox, behind the message
    assert kit.tell(ref, "zero", "end") == ["end"]


def test_A33_an_update_of_a_running_timeout_changes_its_content_and_not_its_moment(kit: Kit) -> None:
    rules = {"a": on(update=Keep(update_timeout("new", "t"), update_timeout("new")))}
    ref = kit.start(Next("a", timeout("t", 5, "old"), state_timeout(6, "old")), rules)
    kit.advance(4)
    kit.tell(ref, "update")
    kit.advance(1)
    assert kit.seen == [("t", "new")]
    ref.tell("update")  # of an expired one …
    kit.simulation.clock.move_to(kit.simulation.clock.monotonic() + 1)
    kit.simulation.timers.fire_due(kit.simulation.clock.monotonic())
    kit.settle()
    assert kit.seen == [("t", "new"), ("t", "new"), ("state_timeout", "new")]


def test_A34_an_update_of_none_is_a_zero_timeout_and_of_a_pending_zero_replaces_the_content(kit: Kit) -> None:
    go = Keep(timeout("x", 0, "old"), timeout("y", 0), update_timeout("new", "x"), update_timeout("from none", "z"))
    ref = kit.start(rules={"a": on(go=go)})
    assert kit.tell(ref, "go", "end") == [("x", "new"), ("y", None), ("z", "from none"), "end"]


BAD_TIMES: Final[list[Any]] = [-1, float("nan"), "soon", True, [1]]


@pytest.mark.parametrize("bad", BAD_TIMES)
def test_A35_an_invalid_timeout_is_a_bad_action(kit: Kit, bad: Any) -> None:
    for action in (timeout("t", bad), state_timeout(bad), event_timeout(bad)):
        ref = kit.start(rules={"a": lambda m, e, action=action: Keep(action)})  # type: ignore[misc]
        with pytest.raises(StateMachineError) as caught:
            ref.ask("go", timeout=1)
        assert caught.value.code == "bad_action_from_state_function"


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), "soon"])
def test_A35_so_is_an_invalid_absolute_one(kit: Kit, bad: Any) -> None:
    ref = kit.start(rules={"a": lambda m, e: Keep(timeout("t", bad, absolute=True))})
    with pytest.raises(StateMachineError):
        ref.ask("go", timeout=1)


def test_A36_the_status_lists_the_active_timers(kit: Kit) -> None:
    rules = {"a": on(cancel=Keep(cancel_timeout("t1"), event_timeout(9)))}
    ref = kit.start(Next("a", timeout("t1", 5), timeout("t2", 5), state_timeout(7)), rules)
    assert set(sys.get_status(ref)["timeouts"]) == {"t1", "t2", "state_timeout"}
    kit.tell(ref, "cancel")
    assert set(sys.get_status(ref)["timeouts"]) == {"t2", "state_timeout", str(EVENT_TIMEOUT)}
    kit.advance(5)
    assert set(sys.get_status(ref)["timeouts"]) == {"state_timeout"}


def test_A26_to_A30_hold_on_real_timers_too(real: Runtime) -> None:
    over = threading.Event()
    seen: list[Any] = []

    def rule(machine: Any, event: Any) -> Any:
        note(machine, event)
        if isinstance(event, StateTimeout):
            over.set()
        return None

    timers = (timeout("t", 0.01), state_timeout(0.03, "s"), timeout("zero", 0), timeout("never", 0.02))
    first = Next("a", *timers, next_event(Cast("cancel")))  # it comes before the first of them is due
    rules: dict[Any, Rule] = {"a": on(cancel=Next("b", cancel_timeout("never"), state_timeout(0.04, "s"))), "b": rule}
    real.spawn(ByMethods, first, rules, seen)
    assert over.wait(GENEROUS)
    assert [name for name in seen if name != ("t", None)] == [("zero", None), ("state_timeout", "s")]


# --- state enter -----------------------------------------------------------------------------------------------------


def test_A37_the_first_state_is_entered_from_itself_before_what_init_inserted(kit: Kit) -> None:
    kit.start(Next("a", timeout("zero", 0), next_event(Internal("inserted"))), {"a": note}, enter=True)
    kit.settle()
    assert kit.seen == [("enter", "a"), ("internal", "inserted"), ("zero", None)]


def test_A37_a_crash_of_the_first_enter_is_a_crash_of_a_started_machine(kit: Kit) -> None:
    def fail(_machine: Any, _event: Any) -> Any:
        raise LookupError("enter")

    parent = kit.runtime.spawn(Watcher)
    ref = kit.start("a", {"a": fail}, enter=True, link=parent)
    kit.settle()
    assert not ref.is_alive()
    got = parent.ask(lambda process: process.got, timeout=1)
    assert [(type(notice), type(notice.reason)) for notice in got] == [(ExitNotice, LookupError)]


def test_A38_after_a_change_replies_are_out_then_it_is_entered_then_come_events(kit: Kit) -> None:
    asked: list[Any] = []

    def entered(machine: Any, event: Any) -> Any:
        if isinstance(event, Enter):
            machine.seen.append(("answered", asked[0].is_done))
        return note(machine, event)

    def go(_machine: Any, event: Any) -> Any:
        return Next("b", next_event(Internal("i")), answer(event.reply_to))

    ref = kit.start(rules={"a": on(later=Keep(POSTPONE), go=go), "b": entered}, enter=True)
    ref.tell("later")
    asked.append(ref.ask("go", block=False))
    kit.settle()
    assert kit.seen == [("enter", "a"), ("answered", True), ("enter", "a"), ("internal", "i"), "later"]


def test_A39_repeat_state_enters_again_from_itself_and_from_enter_with_the_old_one_unchanged(kit: Kit) -> None:
    def repeating(machine: Any, event: Any) -> Any:
        note(machine, event)
        if isinstance(event, Enter):
            return Repeat() if len(machine.seen) < 4 else Keep()
        return Repeat() if event.message == "again" else None

    ref = kit.start(rules={"a": on(go=Next("b")), "b": repeating}, enter=True)
    kit.tell(ref, "go")
    assert kit.seen == [("enter", "a"), ("enter", "a"), ("enter", "a"), ("enter", "a")]
    kit.seen.clear()
    kit.seen.extend("xyz")
    assert kit.tell(ref, "again")[3:] == ["again", ("enter", "b")]


def test_A39_repeat_state_retries_nothing_and_keeps_the_state_timeout(kit: Kit) -> None:
    ref = kit.start(Next("a", state_timeout(5)), {"a": on(later=Keep(POSTPONE), again=Repeat())})
    kit.tell(ref, "later", "again")
    kit.advance(5)
    assert kit.seen == [("state_timeout", None)]


def test_A40_enter_may_set_timeouts_over_the_events_and_reply(kit: Kit) -> None:
    asked: list[Any] = []

    def entering(machine: Any, event: Any) -> Any:
        if isinstance(event, Enter):
            return Keep(state_timeout(1, "enter's"), answer(asked[0], "from enter"))
        return note(machine, event)

    rules = {"a": on(go=Next("b", state_timeout(9, "event's"))), "b": entering}
    ref = kit.start(rules=rules, enter=True)
    asked.append(ref.ask("go", block=False))
    kit.advance(20)
    assert asked[0].get(timeout=0) == "from enter"
    assert kit.seen == [("enter", "a"), ("state_timeout", "enter's")]


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Keep(POSTPONE), "bad_state_enter_action_from_state_function"),
        (Keep(next_event(Internal("x"))), "bad_state_enter_action_from_state_function"),
        (Next("a"), "bad_state_enter_return_from_state_function"),
        ("junk", "bad_return_from_state_function"),
        (Keep("junk"), "bad_action_from_state_function"),  # type: ignore[arg-type]
    ],
)
def test_A40_enter_may_neither_postpone_nor_insert_nor_change_the_state(kit: Kit, result: Any, code: str) -> None:
    rules = {"a": on(go=Next("b")), "b": lambda m, e: result}
    ref = kit.start(rules=rules, enter=True)
    with pytest.raises(StateMachineError) as caught:
        ref.ask("go", timeout=1)
    assert caught.value.code == code


# --- termination -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ("junk", "bad_return_from_state_function"),
        (Keep, "bad_return_from_state_function"),
        (Keep("junk"), "bad_action_from_state_function"),  # type: ignore[arg-type]
        (Keep(None), "bad_action_from_state_function"),  # type: ignore[arg-type]
        (Stop("normal", POSTPONE), "bad_action_from_state_function"),
    ],
)
def test_A41_a_bad_return_or_action_is_a_crash_that_the_caller_sees(kit: Kit, result: Any, code: str) -> None:
    ref = kit.start(rules={"a": lambda m, e: result})
    downs = kit.watch(ref)
    with pytest.raises(StateMachineError) as caught:
        ref.ask("go", timeout=1)
    kit.settle()
    assert caught.value.code == code
    assert downs[0].reason is caught.value
    assert kit.seen[-1][0] == "terminate"


def test_A41_an_unknown_state_is_a_bad_return(kit: Kit) -> None:
    if kit.mode == "methods":
        ref = kit.start(rules={"a": lambda m, e: Next("nowhere")})
        with pytest.raises(StateMachineError) as caught:
            ref.ask("go", timeout=1)
        assert caught.value.code == "bad_return_from_state_function"


def test_A42_an_exception_goes_to_terminate_with_state_and_data_and_is_the_exit_reason_with_its_stack(
    kit: Kit,
) -> None:
    datas: list[Any] = []

    def fail(machine: Any, _event: Any) -> Any:
        machine.data = "the data"
        raise LookupError("crash")

    ref = kit.start(rules={"a": fail, "terminate": lambda m, r: datas.append(m.data)})
    downs = kit.watch(ref)
    kit.tell(ref, "go")
    ((_, reason, state),) = kit.seen
    assert (type(reason), state, datas) == (LookupError, "a", ["the data"])
    assert downs[0].reason is reason
    functions = []
    trace = reason.__traceback__
    while trace is not None:
        functions.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert functions[-1] == "fail"


def test_A43_stop_shows_terminate_the_new_data_and_its_replies_precede_the_exit_notice(kit: Kit) -> None:
    order: list[str] = []
    datas: list[Any] = []

    def stop(machine: Any, event: Any) -> Any:
        machine.data = "new"
        event.reply_to.when_done(lambda: order.append("reply"))
        return Stop("reason", answer(event.reply_to, "bye"))

    class Listener(Process):
        def on_receive(self, message: Any) -> None:
            order.append(type(message).__name__)

    ref = kit.start(rules={"a": stop, "terminate": lambda m, r: datas.append(m.data)})
    kit.runtime.monitor(kit.runtime.spawn(Listener), ref)
    assert ref.ask("stop", timeout=1) == "bye"
    kit.settle()
    assert order == ["reply", "Down"]
    assert datas == ["new"]


@pytest.mark.parametrize(
    ("reason", "logged"),
    [("normal", False), ("shutdown", False), (Shutdown("detail"), False), ("other", True), ("killed", True)],
)
def test_A44_a_planned_end_is_not_logged_and_a_crash_is_with_its_circumstances(
    kit: Kit, caplog: pytest.LogCaptureFixture, reason: Any, logged: bool
) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    rules = {"a": on(later=Keep(POSTPONE), die=Stop(reason))}
    ref = kit.start(Next("a", timeout("t", 9)), rules)
    kit.tell(ref, "later", "later", "die")
    crashes = [record for record in caplog.records if "process_crashed" in record.getMessage()]
    assert bool(crashes) is logged
    if logged:
        fields: Any = crashes[0].penstock  # type: ignore[attr-defined]
        assert fields["reason"] == reason
        assert (fields["state"], fields["postponed"], fields["timeouts"]) == ("a", 2, ["t"])
        assert (fields["last_event"], fields["queued"], fields["mailbox"]) == ("Cast", 0, 0)


def test_A45_without_terminate_it_ends_cleanly_with_the_given_reason(kit: Kit) -> None:
    class Bare(StateMachine):
        def init(self) -> str:
            return "only"

        def only(self, _event: Any) -> Any:
            return Stop("reason")

    ref = kit.runtime.spawn(Bare)
    ref.tell("stop")
    kit.settle()
    assert kit.runtime.exit_reason(ref) == "reason"


@pytest.mark.parametrize("trap", [True, False])
def test_A46_when_the_parent_exits_a_trapping_machine_terminates_and_another_just_dies(kit: Kit, trap: bool) -> None:
    parent = kit.runtime.spawn(Watcher)
    ref = kit.start(rules={"a": note}, trap=trap, link=parent)
    kit.runtime.exit(parent, "kill")
    kit.settle()
    assert kit.runtime.exit_reason(ref) == "killed"
    assert kit.seen == ([("terminate", "killed", "a")] if trap else [])


def test_A46_a_peer_that_is_not_the_parent_is_only_a_message_to_a_trapping_machine(kit: Kit) -> None:
    peer = kit.runtime.spawn(Watcher)
    ref = kit.start(rules={"a": note}, trap=True)
    kit.runtime.link(ref, peer)
    kit.runtime.exit(peer, "kill")
    kit.settle()
    assert ref.is_alive()
    assert kit.seen == [ExitNotice(peer, "killed")]


def test_A30_A46_what_an_exit_notice_makes_a_machine_insert_comes_before_the_mailbox(kit: Kit) -> None:
    actions = (state_timeout(0, "zero"), next_event(Internal("inserted")))

    def rule(machine: Any, event: Any) -> Any:
        if isinstance(event, Info) and isinstance(event.message, ExitNotice):
            return Keep(*actions)
        return note(machine, event)

    ref = kit.start(rules={"a": rule}, trap=True)
    kit.runtime.exit(ref, "reason", sender=kit.runtime.spawn(Watcher))
    assert kit.tell(ref, "later") == [("internal", "inserted"), ("state_timeout", "zero"), "later"]


# --- sys -------------------------------------------------------------------------------------------------------------


def test_A47_suspended_it_serves_only_system_messages_and_goes_on_in_order(kit: Kit) -> None:
    ref = kit.start(Next("a", timeout("t", 5)), {"a": on(call=reply("answer"))})
    sys.suspend(ref)
    asked = ref.ask("call", block=False)
    kit.tell(ref, "one", "two")
    kit.advance(6)
    assert (kit.seen, asked.is_done, sys.get_status(ref)["suspended"]) == ([], False, True)
    sys.resume(ref)
    ref.tell("three")
    kit.settle()
    assert kit.seen == ["one", "two", ("t", None), "three"]
    assert asked.get(timeout=0) == "answer"


def test_A47_suspended_it_still_obeys_its_parents_shutdown_a_stop_and_a_kill(kit: Kit) -> None:
    for trap in (True, False):
        parent = kit.runtime.spawn(Watcher)
        ref = kit.start(rules={"a": note}, trap=trap, link=parent)
        sys.suspend(ref)
        asked = ref.ask("waits", block=False)
        kit.settle()
        kit.runtime.exit(ref, "shutdown", parent)
        kit.settle()
        assert kit.runtime.exit_reason(ref) == "shutdown"
        with pytest.raises(ProcessDead):
            asked.get(timeout=0)
    ends: list[Callable[[ProcessRef], Any]] = [
        lambda ref: ref.terminate("reason", 1),
        lambda ref: ref.stop(timeout=1),
        lambda ref: ref.exit("kill"),
    ]
    for end in ends:
        ref = kit.start(rules={"a": note})
        sys.suspend(ref)
        end(ref)
        assert not ref.is_alive()


def test_A47_a_backlog_that_crashes_it_answers_the_rest_of_the_backlog(kit: Kit) -> None:
    def fail(_machine: Any, _event: Any) -> Any:
        raise LookupError("from the backlog")

    ref = kit.start(rules={"a": on(fail=fail)})
    sys.suspend(ref)
    asked = [ref.ask(word, block=False) for word in ("fail", "one", "two")]
    kit.settle()
    sys.resume(ref)
    kit.settle()
    assert not ref.is_alive()
    with pytest.raises(LookupError):
        asked[0].get(timeout=0)
    for call in asked[1:]:
        with pytest.raises(ProcessDead):
            call.get(timeout=0)


def test_A48_get_state_works_while_suspended_and_replace_state_returns_the_new_pair(kit: Kit) -> None:
    ref = kit.start(Next("a"), {"a": on(later=Keep(POSTPONE)), "b": note}, enter=True)
    kit.tell(ref, "later")
    sys.suspend(ref)
    assert sys.get_state(ref) == ("a", None)
    assert sys.replace_state(ref, lambda state, data: ("b", f"{state} {data}")) == ("b", "a None")
    assert sys.get_state(ref) == ("b", "a None")
    sys.resume(ref)
    kit.tell(ref, "now")
    assert kit.seen == [("enter", "a"), "now"]  # neither an enter call nor a retry


def test_A48_a_replacing_function_that_raises_changes_nothing_and_is_the_callers_error(kit: Kit) -> None:
    ref = kit.start(rules={"a": reply("still a")})
    with pytest.raises(ZeroDivisionError):
        sys.replace_state(ref, lambda state, data: (state, 1 // 0))
    assert sys.get_state(ref) == ("a", None)
    assert ref.ask("?", timeout=1) == "still a"
    if kit.mode == "methods":
        with pytest.raises(StateMachineError):
            sys.replace_state(ref, lambda state, data: ("nowhere", "new"))
        assert sys.get_state(ref) == ("a", None)


def test_A49_format_status_filters_the_status_and_the_crash_log(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    def filtered(_machine: Any, status: dict[str, Any]) -> dict[str, Any]:
        assert {"state", "queued", "postponed", "timeouts", "log"} <= status.keys()
        return {"state": "filtered", "reason": "filtered"}

    def fail(_machine: Any, _event: Any) -> Any:
        raise LookupError("secret")

    ref = kit.start(rules={"a": fail, "format": filtered})
    assert sys.get_status(ref)["state"] == "filtered"
    kit.tell(ref, "die")
    fields: Any = caplog.records[0].penstock  # type: ignore[attr-defined]
    assert (fields["state"], fields["reason"]) == ("filtered", "filtered")
    assert "secret" not in caplog.text


def test_A49_a_format_status_that_raises_hides_the_data(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_machine: Any, _status: dict[str, Any]) -> dict[str, Any]:
        raise LookupError("format")

    ref = kit.start(rules={"a": lambda m, e: Stop("reason"), "format": broken})
    status = sys.get_status(ref)
    assert (status["state"], "postponed" in status) == ("hidden", False)
    kit.tell(ref, "die")
    fields: Any = caplog.records[0].penstock  # type: ignore[attr-defined]
    assert (fields["state"], fields["reason"]) == ("hidden", "reason")
    assert not ref.is_alive()


def test_A50_trace_and_log_see_every_step(kit: Kit) -> None:
    rules = {
        "a": on(later=Keep(POSTPONE), go=Next("b", timeout("t", 9), state_timeout(0)), call=reply()),
        "b": on(die=Stop("reason"), call=reply()),
    }
    ref = kit.start(rules=rules, enter=True)
    trace: list[tuple[str, str]] = []
    sys.set_trace(ref, lambda what, kind: trace.append((what, kind)))
    sys.set_log(ref)
    ref.ask("call", timeout=1)
    kit.tell(ref, "later", "go")
    expected = [
        ("in", "Call"), ("out", "Answer"), ("consume", "Call"),
        ("in", "Cast"), ("postpone", "Cast"),
        ("in", "Cast"), ("start_timer", "t"), ("insert_timeout", "state_timeout"), ("consume", "Cast"),
        ("enter", "Enter"),
        ("in", "Cast"), ("consume", "Cast"),
        ("in", "StateTimeout"), ("consume", "StateTimeout"),
    ]  # fmt: skip
    assert trace == expected
    assert sys.get_log(ref) == expected[-10:]
    kit.tell(ref, "die")
    assert trace[-1] == ("terminate", "reason")


def test_A50_a_listener_that_raises_is_sent_away_and_the_machine_goes_on(kit: Kit) -> None:
    def broken(_what: str, _kind: str) -> None:
        raise LookupError("listener")

    ref = kit.start(rules={"a": reply("alive")})
    sys.set_trace(ref, broken)
    assert ref.ask("?", timeout=1) == "alive"
    assert ref.ask("?", timeout=1) == "alive"


# --- beyond the numbers ----------------------------------------------------------------------------------------------


def test_an_unhandled_call_gets_an_error_and_anything_else_is_counted() -> None:
    class Deaf(StateMachine):
        def init(self) -> str:
            return "only"

        def only(self, event: Any) -> Any:
            return self.unhandled(event)

    with Simulation() as simulation:
        ref = simulation.spawn(Deaf)
        with pytest.raises(UnknownCall):
            ref.ask("what?", timeout=1)
        ref.tell("what?")
        simulation.settle()
        assert simulation.runtime.dead_letters.unexpected_count == 1
        assert ref.is_alive()


def test_answer_error_is_raised_in_the_caller_and_the_machine_goes_on(kit: Kit) -> None:
    rules = {"a": on(bad=lambda m, e: Keep(answer_error(e.reply_to, LookupError("no"))), good=reply("yes"))}
    ref = kit.start(rules=rules)
    with pytest.raises(LookupError, match="no"):
        ref.ask("bad", timeout=1)
    assert ref.ask("good", timeout=1) == "yes"


def test_every_scenario_is_tested_or_said_to_be_different() -> None:
    tested = {
        int(number)
        for name in globals()
        if name.startswith("test_A")
        for number in [name.removeprefix("test_A").split("_")[0]]
    }
    assert tested | DIFFERENT.keys() == set(range(1, 51))
    assert not tested & DIFFERENT.keys()


def test_a_machine_that_is_suspended_while_it_enters_a_state_lives_and_continues_in_that_state() -> None:
    with Simulation() as simulation:
        seen: list[Any] = []

        def in_b(machine: Any, event: Any) -> Any:
            if isinstance(event, Enter):
                machine.suspend()
                return Keep(timeout("tick", 1.0))
            seen.append(event)
            return None

        rules: dict[Any, Rule] = {"a": lambda _, event: None if isinstance(event, Enter) else Next("b"), "b": in_b}
        ref = simulation.runtime.spawn(ByMethodsWithEnter, "a", rules, [])
        ref.tell("go")
        ref.tell("later")
        simulation.settle()
        assert ref.is_alive()
        assert seen == []
        sys.resume(ref)
        simulation.settle()
        assert seen == [Cast("later")]
        simulation.advance(1.1)
        assert [type(event) for event in seen] == [Cast, NamedTimeout]


def machine(simulation: Simulation, rule: Rule, seen: list[Any] | None = None) -> ProcessRef:
    """A machine with one state."""
    return simulation.runtime.spawn(ByMethods, "a", {"a": rule}, [] if seen is None else seen)


def test_a_machine_without_init_does_not_start() -> None:
    with Simulation() as simulation, pytest.raises(NotImplementedError, match="StateMachine does not define init"):
        simulation.runtime.spawn(StateMachine)


@pytest.mark.parametrize("state", ["rules", "nowhere", 7])
def test_a_state_is_the_name_of_a_method(state: Any) -> None:
    with Simulation() as simulation:
        with pytest.raises(StartError) as caught:
            simulation.runtime.spawn(ByMethods, state, {}, [])
        assert caught.value.code == "bad_return_from_init"
        ref = machine(simulation, lambda machine, event: Next(state))
        ref.tell("go")
        simulation.settle()
        reason = simulation.runtime.exit_reason(ref)
        assert isinstance(reason, StateMachineError)
        assert reason.code == "bad_return_from_state_function"


def test_an_envelope_without_a_caller_is_a_cast() -> None:
    with Simulation() as simulation:
        seen: list[Any] = []
        ref = machine(simulation, lambda machine, event: seen.append(event))
        ref.actor_inbox.put(Envelope("message"))
        simulation.settle()
        assert seen == [Cast("message")]


@pytest.mark.parametrize(
    ("message", "reason"), [(_ActorStop(), "normal"), (Terminate("bye"), "bye"), (ProxyCall(("x",), (), {}), None)]
)
def test_messages_of_pykka_and_of_the_system_are_no_events(message: Any, reason: str | None) -> None:
    with Simulation() as simulation:
        seen: list[Any] = []
        ref = machine(simulation, lambda machine, event: seen.append(event))
        ref.tell(message)
        simulation.settle()
        assert not ref.is_alive()
        assert seen == []
        if reason is not None:
            assert simulation.runtime.exit_reason(ref) == reason


@pytest.mark.parametrize("reason", ["kill", "crash"])
def test_a_machine_that_is_ended_while_it_handles_an_event_does_no_more(reason: str) -> None:
    with Simulation() as simulation:
        seen: list[Any] = []

        def rule(machine: Any, event: Any) -> Any:
            seen.append(event.message)
            if isinstance(event, Call):
                simulation.runtime.exit(machine.ref, reason)
                return Keep(answer(event.reply_to, "done"), next_event(Internal("more")))
            return None

        ref = machine(simulation, rule)
        call = ref.ask("first", block=False)
        ref.tell("second")
        simulation.settle()
        assert seen == ["first"]
        assert simulation.runtime.exit_reason(ref) == ("killed" if reason == "kill" else reason)
        if reason == "kill":
            with pytest.raises(ProcessDead):
                call.get(timeout=0)
        else:
            assert call.get(timeout=0) == "done"


def test_a_call_with_a_future_of_pykkas_own_is_answered() -> None:
    with Simulation() as simulation:
        waiting: list[Any] = []
        ref = machine(simulation, lambda machine, event: waiting.append(event))
        future: pykka.Future[Any] = pykka.ThreadingFuture()
        ref.actor_inbox.put(Envelope("message", reply_to=future))
        simulation.settle()
        assert ref.is_alive()
        assert waiting == [Call("message", future)]


def test_a_machine_shows_no_more_than_its_own_filter_lets_through() -> None:
    class Shy(ByMethods):
        def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
            return {"only": status["state"]}

    with Simulation() as simulation:
        plain, shy = (
            simulation.runtime.spawn(cls, "a", {"a": lambda *_: Keep(POSTPONE)}, []) for cls in (ByMethods, Shy)
        )
        for ref in (plain, shy):
            ref.tell("x")
        simulation.settle()
        processes: list[Any] = [ref._actor_weakref() for ref in (plain, shy)]
        shown, filtered = (process.status() for process in processes)
        assert shown == {
            "state": "a", "postponed": 1, "queued": 0, "timeouts": [], "suspended": False, "log": [],
        }  # fmt: skip
        assert filtered == {"only": "a"}
