"""Mailboxes with a bound and with priorities."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from penstock.actors.runtime import inspect
from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Next, StateTimeout, state_timeout
from penstock.errors import MailboxFull, OptionError, ProcessDead
from penstock.testing import Simulation, eventually

GENEROUS = 20.0
pytestmark = pytest.mark.seeds(5)


class Keeper(Process):
    in_pykka_registry = False

    def __init__(self, *, trap: bool = False) -> None:
        super().__init__()
        self.trap_exit = trap
        self.got: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.got.append(message)
        return f"got {message}"


def got(ref: ProcessRef) -> list[Any]:
    found: list[Any] = inspect.get_state(ref).got
    return found


def counters(ref: ProcessRef) -> dict[str, Any]:
    found: dict[str, Any] = inspect.get_status(ref)["mailbox_counters"]
    return found


def options(when_full: Any, size: int = 3, **more: Any) -> MailboxOptions:
    return MailboxOptions(max_size=size, when_full=when_full, **more)


def test_reject_raises_in_the_sender_and_in_the_caller_and_leaves_what_waits_alone(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("reject"))
        for number in range(3):
            ref.tell(number)
        with pytest.raises(MailboxFull, match="full \\(3 messages\\)"):
            ref.tell(3)
        with pytest.raises(MailboxFull):
            ref.ask(4, timeout=1)
        simulation.settle()
        assert got(ref) == [0, 1, 2]
        assert ref.ask(5, timeout=1) == "got 5"
        assert counters(ref) == {
            "size": 0, "max_size": 3, "high_water_mark": 3, "dropped": 0, "rejected": 2, "blocked": 0,
        }  # fmt: skip


@pytest.mark.parametrize(("when_full", "kept"), [("drop_oldest", [2, 3, 4]), ("drop_newest", [0, 1, 2])])
def test_what_is_dropped_is_a_dead_letter(seed: int, when_full: Any, kept: list[int]) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options(when_full))
        for number in range(5):
            ref.tell(number)
        simulation.settle()
        assert got(ref) == kept
        assert counters(ref)["dropped"] == simulation.runtime.dead_letters.count == 2


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
def test_the_caller_of_a_dropped_call_gets_an_answer(seed: int, when_full: Any) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options(when_full, size=1))
        replies = [ref.ask(number, block=False) for number in range(3)]
        answered = []
        for reply in replies:
            try:
                answered.append(reply.get(timeout=1))
            except MailboxFull:
                answered.append("full")
        assert sorted(answered) == sorted(["full", "full", "got 0" if when_full == "drop_newest" else "got 2"])
        assert simulation.runtime.dead_letters.count == 0


def test_block_makes_the_sender_wait_until_there_is_room(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("block"))
        for number in range(20):
            ref.tell(number)  # while it waits, other processes run
        simulation.settle()
        assert got(ref) == list(range(20))
        assert counters(ref)["high_water_mark"] == 3
        assert counters(ref)["blocked"] == 20 - 3


def test_block_rejects_after_its_timeout(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("block", size=1, block_timeout=2.0))
        inspect.suspend(ref)
        ref.tell("first")
        before = simulation.clock.monotonic()
        with pytest.raises(MailboxFull):
            ref.tell("second")
        with pytest.raises(MailboxFull):
            ref.ask("third", timeout=60)
        assert simulation.clock.monotonic() == pytest.approx(before + 4.0)
        inspect.resume(ref)
        simulation.settle()
        assert got(ref) == ["first"]
        assert counters(ref)["rejected"] == 2


def test_what_a_suspended_process_has_put_aside_counts(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("reject", size=2))
        inspect.suspend(ref)
        for number in range(2):
            ref.tell(number)
            simulation.settle()
        with pytest.raises(MailboxFull):
            ref.tell(2)
        assert counters(ref)["size"] == 2
        inspect.resume(ref)
        simulation.settle()
        assert got(ref) == [0, 1]


def test_a_process_never_waits_for_itself(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("block", size=1, block_timeout=None))

        def tell_itself(process: Keeper) -> None:
            for number in range(10):
                process.ref.tell(number)

        ref.tell(tell_itself)
        simulation.settle()
        assert got(ref) == list(range(10))


def test_a_process_that_tells_itself_while_it_starts_does_not_wait_either(seed: int) -> None:
    class Eager(Keeper):
        def on_start(self) -> None:
            for number in range(5):
                self.ref.tell(number)

    with Simulation(seed) as simulation:
        ref = simulation.spawn(Eager, mailbox=options("block", size=1, block_timeout=None))
        simulation.settle()
        assert got(ref) == list(range(5))


def test_system_messages_overtake_and_are_never_refused(seed: int) -> None:
    with Simulation(seed) as simulation:
        runtime = simulation.runtime
        ref = simulation.spawn(Keeper, trap=True, mailbox=options("reject", size=2))
        watched, linked = simulation.spawn(Keeper), simulation.spawn(Keeper)
        number = runtime.monitor(ref, watched)
        runtime.link(ref, linked)
        ref.tell(1)
        ref.tell(2)
        runtime.exit(watched, "kill")
        runtime.exit(linked, "kill")
        assert counters(ref)["size"] <= 2
        simulation.settle()
        assert got(ref) == [Down(number, watched, "killed"), ExitNotice(linked, "killed"), 1, 2]


def test_a_timer_fires_through_a_full_mailbox(seed: int) -> None:
    seen: list[str] = []

    class Patient(StateMachine):
        def init(self) -> Any:
            return self.wait_for(1.0)

        def wait_for(self, seconds: float) -> Any:
            return Next("waiting", state_timeout(seconds))

        def waiting(self, event: Any) -> None:
            seen.append("timeout" if event.__class__ is StateTimeout else event.message)

    with Simulation(seed) as simulation:
        ref = simulation.spawn(Patient, mailbox=options("reject", size=1))
        simulation.settle()
        ref.tell("first")
        simulation.clock.move_to(simulation.clock.monotonic() + 2)
        simulation.timers.fire_due(simulation.clock.monotonic())
        simulation.settle()
        assert seen == ["timeout", "first"]


def test_a_polite_stop_finds_room_and_comes_last(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("reject", size=2, priority=lambda message: message))
        events = simulation.runtime._alive[ref].got  # type: ignore[attr-defined]
        ref.tell(2)
        ref.tell(1)
        ref.stop(timeout=1)
        assert events == [1, 2]
        assert not ref.is_alive()


def test_a_lower_number_is_handled_first_and_equal_ones_in_order(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=MailboxOptions(priority=lambda message: message[0]))
        for message in ((5, "a"), (1, "b"), (5, "c"), (-3, "d"), (1, "e")):
            ref.tell(message)
        simulation.settle()
        assert "".join(text for _, text in got(ref)) == "dbeac"


@pytest.mark.parametrize(
    ("when_full", "kept"),
    [("drop_oldest", [(0, "c"), (1, "e"), (9, "d")]), ("drop_newest", [(0, "c"), (1, "e"), (9, "a")])],
)
def test_of_several_priorities_one_of_the_least_important_is_dropped(
    seed: int, when_full: Any, kept: list[Any]
) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options(when_full, priority=lambda message: message[0]))
        for message in ((9, "a"), (9, "b"), (0, "c"), (9, "d"), (1, "e"), (10, "f")):
            ref.tell(message)
        simulation.settle()
        assert got(ref) == kept


def test_a_message_whose_priority_raises_is_handled_all_the_same(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=MailboxOptions(priority=lambda message: message["rank"]))
        ref.tell("no rank")
        simulation.settle()
        assert got(ref) == ["no rank"]


def test_a_sender_that_waits_for_room_goes_on_when_the_process_dies(seed: int) -> None:
    with Simulation(seed) as simulation:
        ref = simulation.spawn(Keeper, mailbox=options("block", size=1, block_timeout=None))
        inspect.suspend(ref)
        ref.tell("first")

        def tell(process: Keeper) -> str:
            ref.tell("second")
            return "went on"

        sender = simulation.spawn(Keeper)
        reply = sender.ask(tell, block=False)
        axe = simulation.spawn(Keeper)
        axe.tell(lambda process: process.runtime.exit(ref, "kill"))
        assert reply.get(timeout=1) == "went on"
        assert simulation.runtime.dead_letters.count == 2
        with pytest.raises(ProcessDead):
            ref.ask("third", timeout=1)


def test_a_class_can_set_the_mailbox_options_of_its_instances(seed: int) -> None:
    class Bounded(Keeper):
        mailbox_options = options("reject", size=1)

    with Simulation(seed) as simulation:
        assert counters(simulation.spawn(Bounded))["max_size"] == 1
        assert counters(simulation.spawn(Bounded, mailbox=options("reject", size=7)))["max_size"] == 7
        assert "mailbox_counters" not in inspect.get_status(simulation.spawn(Keeper))


@pytest.mark.parametrize(
    "wrong", [{"max_size": 0}, {"max_size": True}, {"when_full": "explode"}, {"block_timeout": -1}, {"priority": 3}]
)
def test_options_that_are_not_allowed_are_refused(wrong: Any) -> None:
    with pytest.raises(OptionError):
        MailboxOptions(**wrong)


# --- on threads ------------------------------------------------------------------------------------------------------


def from_threads(senders: int, send: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=send, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
        assert not thread.is_alive()


@pytest.mark.usefixtures("restless")
def test_many_senders_that_wait_lose_nothing_and_keep_their_order(runtime: Runtime) -> None:
    ref = runtime.spawn(Keeper, mailbox=options("block", size=4, block_timeout=GENEROUS))

    def send(number: int) -> None:
        for n in range(200):
            ref.tell((number, n))

    from_threads(4, send)
    eventually(lambda: len(got(ref)) == 800)
    for number in range(4):
        assert [n for who, n in got(ref) if who == number] == list(range(200))
    assert counters(ref)["high_water_mark"] <= 4


@pytest.mark.usefixtures("restless")
def test_under_contention_every_message_is_handled_dropped_or_rejected_once(runtime: Runtime) -> None:
    for when_full in ("drop_oldest", "drop_newest", "reject"):
        ref = runtime.spawn(Keeper, mailbox=options(when_full, size=2))
        refused: list[int] = []

        def send(number: int, ref: ProcessRef = ref, refused: list[int] = refused) -> None:
            for n in range(200):
                try:
                    ref.tell(n)
                except MailboxFull:
                    refused.append(number)

        from_threads(3, send)
        eventually(lambda ref=ref: counters(ref)["size"] == 0)  # type: ignore[misc]
        found = counters(ref)
        assert len(got(ref)) + found["dropped"] + found["rejected"] == 600
        assert found["rejected"] == len(refused)


def test_an_actor_that_waits_for_room_lends_its_worker(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime(workers=1)
    full = runtime.spawn(Keeper, mailbox=options("block", size=1, block_timeout=GENEROUS))
    sender = runtime.spawn(Keeper)

    def tell_all(_process: Keeper) -> str:
        for n in range(50):
            full.tell(n)
        return "done"

    assert sender.ask(tell_all, timeout=GENEROUS) == "done"
    eventually(lambda: got(full) == list(range(50)))


def test_a_call_that_waits_for_room_longer_than_it_may_is_refused(runtime: Runtime) -> None:
    ref = runtime.spawn(Keeper, mailbox=options("block", size=1, block_timeout=0))
    inspect.suspend(ref)
    ref.tell(1)
    with pytest.raises(MailboxFull):
        ref.ask(2, timeout=GENEROUS)
    inspect.resume(ref)
