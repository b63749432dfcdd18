"""OTP's links and monitors as numbered scenarios: C1 … C20, on the simulation with several seeds and on threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.errors import ProcessDead
from penstock.testing import Simulation

DIFFERENT: Final[dict[int, str]] = {}

pytestmark = pytest.mark.seeds(4, threads=True)

GENEROUS: Final = 20.0


class Actor(Process):
    """Keeps what it gets; runs what it is told to run."""

    def __init__(self, *, trap: bool = False) -> None:
        super().__init__()
        self.got: list[Any] = []
        self.trap_exit = trap
        self.terminated: list[object] = []

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.got.append(message)
        return None

    def terminate(self, reason: object) -> None:
        self.terminated.append(reason)


class World:
    """A runtime, and a way to let everything happen that is under way."""

    def __init__(self, runtime: Runtime, settle: Callable[[], None]) -> None:
        self.runtime = runtime
        self._settle = settle

    def actor(self, *, trap: bool = False, **kwargs: Any) -> ProcessRef:
        return self.runtime.spawn(Actor, trap=trap, **kwargs)

    def got(self, ref: ProcessRef) -> list[Any]:
        self._settle()
        return list(ref.ask(lambda actor: actor.got, timeout=GENEROUS))

    def dead(self, ref: ProcessRef) -> object:
        """Its exit reason, when it is dead."""
        assert self.runtime.join(ref, GENEROUS)
        return self.runtime.exit_reason(ref)

    def do(self, ref: ProcessRef, action: Callable[[Any], Any]) -> Any:
        return ref.ask(action, timeout=GENEROUS)


@pytest.fixture
def world(seed: int | str) -> Iterator[World]:
    if isinstance(seed, int):
        with Simulation(seed) as simulation:
            yield World(simulation.runtime, simulation.settle)
        return
    dispatcher = ThreadedDispatcher(workers=2)
    timers = TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    yield World(runtime, lambda: None)  # a call is handled after what its sender has caused before, and so waits for it
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def test_C1_an_abnormal_exit_takes_linked_processes_along_with_the_same_reason(world: World) -> None:
    chain = [world.actor() for _ in range(4)]
    for one, other in itertools.pairwise(chain):
        world.runtime.link(one, other)
    bystander = world.actor()
    error = LookupError("crash")

    def crash(_actor: Any) -> None:
        raise error

    chain[1].tell(crash)
    assert [world.dead(ref) for ref in chain] == [error] * 4
    assert bystander.is_alive()


def test_C2_a_normal_exit_has_no_effect_unless_trapped(world: World) -> None:
    one, plain, trapping = world.actor(), world.actor(), world.actor(trap=True)
    world.runtime.link(one, plain)
    world.runtime.link(one, trapping)
    one.terminate(timeout=GENEROUS)
    assert world.got(plain) == []
    assert world.got(trapping) == [ExitNotice(one, "normal")]
    assert world.runtime.links_of(plain) == ()


def test_C3_shutdown_propagates_like_any_other_reason(world: World) -> None:
    one, other = world.actor(), world.actor()
    world.runtime.link(one, other)
    one.terminate("shutdown", GENEROUS)
    assert world.dead(other) == "shutdown"


def test_C4_a_trapping_process_gets_a_message_normal_included(world: World) -> None:
    trapping = world.actor(trap=True)
    for reason in ("normal", "shutdown", "other", ("any", 1)):
        peer = world.actor(link=trapping)
        peer.terminate(reason, GENEROUS)
        assert world.got(trapping)[-1] == ExitNotice(peer, reason)


def test_C5_a_kill_cannot_be_trapped_and_its_peers_see_killed_and_may_trap(world: World) -> None:
    victim, plain, trapping = world.actor(trap=True), world.actor(), world.actor(trap=True)
    world.runtime.link(victim, plain)
    world.runtime.link(victim, trapping)
    world.runtime.exit(victim, "kill")
    assert not victim.is_alive()  # at once
    assert world.dead(victim) == "killed"
    assert world.dead(plain) == "killed"
    assert world.got(trapping) == [ExitNotice(victim, "killed")]


def test_C6_the_reason_kill_that_comes_over_a_link_is_trappable_and_not_converted(world: World) -> None:
    one, plain, trapping = world.actor(), world.actor(), world.actor(trap=True)
    world.runtime.link(one, plain)
    world.runtime.link(one, trapping)
    one.tell(lambda actor: actor.exit("kill"))
    assert world.dead(one) == "kill"
    assert world.dead(plain) == "kill"
    assert world.got(trapping) == [ExitNotice(one, "kill")]


def test_C7_exit_normal_to_another_is_ignored_and_a_message_to_one_that_traps(world: World) -> None:
    sender, plain, trapping = world.actor(), world.actor(), world.actor(trap=True)
    world.runtime.exit(plain, "normal", sender)
    world.runtime.exit(trapping, "normal", sender)
    assert world.got(plain) == []
    assert world.got(trapping) == [ExitNotice(sender, "normal")]


def test_C7_exit_normal_to_oneself_is_obeyed(world: World) -> None:
    ref = world.actor()
    ref.tell(lambda actor: actor.runtime.exit(actor.ref, "normal", actor.ref))
    assert world.dead(ref) == "normal"
    trapping = world.actor(trap=True)
    trapping.tell(lambda actor: actor.runtime.exit(actor.ref, "normal", actor.ref))
    assert world.got(trapping) == [ExitNotice(trapping, "normal")]


@pytest.mark.parametrize("second", ["second", "kill"])
def test_C8_of_two_exits_the_first_wins(world: World, second: str) -> None:
    victim = world.actor()

    def twice(_actor: Any) -> None:  # while it is busy, so that both are waiting
        world.runtime.exit(victim, "first")
        world.runtime.exit(victim, second)

    victim.tell(twice)
    assert world.dead(victim) == "first"


def test_C9_a_handler_cannot_catch_an_exit_signal(world: World) -> None:
    def stubborn(actor: Any) -> str:
        try:
            actor.runtime.exit(actor.ref, "signal", actor.ref)
        except BaseException:
            return "caught"
        return "not even raised"

    ref = world.actor()
    ref.tell(stubborn)
    assert world.dead(ref) == "signal"

    def signal_to_itself_from_outside(actor: Any) -> str:
        try:
            actor.runtime.exit(actor.ref, "signal")
        except BaseException:
            return "caught"
        return "went on"

    other = world.actor()
    assert other.ask(signal_to_itself_from_outside, timeout=GENEROUS) == "went on"
    assert world.dead(other) == "signal"


def test_C9_an_exit_signal_to_oneself_ends_the_handler_where_it_stands(world: World) -> None:
    reached: list[str] = []

    def leave(actor: Any) -> None:
        reached.append("before")
        actor.runtime.exit(actor.ref, "signal", actor.ref)
        reached.append("after")

    told, asked = world.actor(), world.actor()
    told.tell(leave)
    assert world.dead(told) == "signal"
    with pytest.raises(ProcessDead):
        asked.ask(leave, timeout=GENEROUS)
    assert world.dead(asked) == "signal"
    assert reached == ["before"] * 2

    trapping = world.actor(trap=True)  # gets a message instead, and goes on
    trapping.ask(leave, timeout=GENEROUS)
    assert world.got(trapping) == [ExitNotice(trapping, "signal")]
    assert reached == [*["before"] * 3, "after"]


def test_C10_a_link_to_the_dead_is_a_notice_to_one_that_traps_and_an_error_to_another(world: World) -> None:
    dead, plain, trapping = world.actor(), world.actor(), world.actor(trap=True)
    world.runtime.exit(dead, "kill")
    with pytest.raises(ProcessDead) as caught:
        world.runtime.link(plain, dead)
    assert caught.value.reason == "noproc"
    world.runtime.link(trapping, dead)
    assert world.got(trapping) == [ExitNotice(dead, "noproc")]
    assert world.got(plain) == []


def test_C11_a_double_link_is_one_signal_and_a_link_to_oneself_nothing(world: World) -> None:
    one, trapping = world.actor(), world.actor(trap=True)
    world.runtime.link(one, trapping)
    world.runtime.link(trapping, one)
    world.runtime.link(one, one)
    one.terminate("other", GENEROUS)
    assert world.got(trapping) == [ExitNotice(one, "other")]


def test_C12_after_unlink_no_signal_comes(world: World) -> None:
    one, plain, trapping = world.actor(), world.actor(), world.actor(trap=True)
    for peer in (plain, trapping):
        world.runtime.link(one, peer)
        world.runtime.unlink(peer, one)
    one.terminate("other", GENEROUS)
    assert world.got(plain) == []
    assert world.got(trapping) == []


def test_C13_a_monitor_gives_one_down_normal_included(world: World) -> None:
    watcher = world.actor()
    for reason in ("normal", "shutdown", "other"):
        target = world.actor()
        monitor = world.runtime.monitor(watcher, target)
        target.terminate(reason, GENEROUS)
        assert world.got(watcher)[-1] == Down(monitor, target, reason)
    assert len(world.got(watcher)) == 3


def test_C14_a_monitor_of_the_dead_or_of_no_name_gives_noproc_at_once(world: World) -> None:
    watcher, dead = world.actor(), world.actor()
    world.runtime.exit(dead, "kill")
    one = world.runtime.monitor(watcher, dead)
    two = world.runtime.monitor(watcher, "nobody")
    assert world.got(watcher) == [Down(one, dead, "noproc"), Down(two, "nobody", "noproc")]


def test_C15_several_monitors_are_independent(world: World) -> None:
    watcher, target = world.actor(), world.actor()
    one, two, three = (world.runtime.monitor(watcher, target) for _ in range(3))
    assert len({one, two, three}) == 3
    assert world.runtime.demonitor(watcher, two)
    target.terminate(timeout=GENEROUS)
    assert sorted(down.monitor for down in world.got(watcher)) == [one, three]


def test_C16_after_demonitor_nothing_comes_and_it_may_be_repeated(world: World) -> None:
    watcher, target = world.actor(), world.actor()
    monitor = world.runtime.monitor(watcher, target)
    assert world.runtime.demonitor(watcher, monitor) is True
    assert world.runtime.demonitor(watcher, monitor) is False
    assert world.runtime.demonitor(watcher, 123456789) is False
    target.terminate(timeout=GENEROUS)
    assert world.got(watcher) == []


def test_C16_flush_takes_a_queued_down_out_and_says_that_it_was_too_late(world: World) -> None:
    watcher, target = world.actor(), world.actor()
    monitor = world.runtime.monitor(watcher, target)
    other = world.runtime.monitor(watcher, target)

    def in_the_watcher(actor: Any) -> list[bool]:
        actor.ref.tell("before")
        actor.runtime.exit(target, "kill")  # both downs are in the mailbox now
        actor.ref.tell("after")
        return [actor.runtime.demonitor(actor.ref, monitor, flush=True) for _ in range(2)]

    assert world.do(watcher, in_the_watcher) == [False, False]
    assert world.got(watcher) == ["before", Down(other, target, "killed"), "after"]


def test_C17_a_monitor_by_name_says_the_name_which_is_free_when_the_down_arrives(world: World) -> None:
    free: list[bool] = []

    class Watcher(Actor):
        def on_receive(self, message: Any) -> Any:
            if isinstance(message, Down):
                free.append(self.runtime.whereis("it") is None)
            return super().on_receive(message)

    watcher = world.runtime.spawn(Watcher)
    target = world.actor(name="it")
    monitor = world.runtime.monitor(watcher, "it")
    target.terminate("other", GENEROUS)
    assert world.got(watcher) == [Down(monitor, "it", "other")]
    assert free == [True]


def test_C18_a_monitor_goes_one_way_and_dies_with_its_watcher(world: World) -> None:
    watcher, target = world.actor(), world.actor(trap=True)
    world.runtime.monitor(watcher, target)
    watcher.terminate("other", GENEROUS)
    assert world.got(target) == []
    target.terminate(timeout=GENEROUS)
    assert world.runtime._relations == {}
    assert world.runtime.dead_letters.count == 0


@pytest.mark.parametrize("reason", ["kill", "other", "normal"])
def test_C18_a_target_that_lives_on_keeps_nothing_of_its_dead_watchers(world: World, reason: str) -> None:
    target, other = world.actor(), world.actor()
    kept = world.runtime.monitor(other, target)
    for _ in range(20):
        watcher = world.actor()
        world.runtime.monitor(watcher, target)
        world.runtime.monitor(watcher, target)
        if reason == "kill":
            world.runtime.exit(watcher, "kill")
        else:
            watcher.terminate(reason, GENEROUS)
        world.dead(watcher)
    assert world.runtime._relations[target].watched_by == {kept: (other, target)}
    assert world.runtime._relations.keys() == {target, other}


def test_C18_a_watcher_that_lives_on_keeps_nothing_of_its_dead_targets(world: World) -> None:
    watcher = world.actor()
    for _ in range(20):
        target = world.actor()
        world.runtime.monitor(watcher, target)
        target.terminate("other", GENEROUS)
    assert len(world.got(watcher)) == 20
    assert world.runtime.monitors_of(watcher) == ()
    assert not world.runtime._relations[watcher].watches


def test_C19_an_error_carries_its_stack_and_an_exit_is_the_bare_reason(world: World) -> None:
    watcher = world.actor()

    def fail(_actor: Any) -> None:
        raise LookupError("error")

    failing, leaving = world.actor(), world.actor()
    for ref in (failing, leaving):
        world.runtime.monitor(watcher, ref)
    failing.tell(fail)
    world.dead(failing)
    leaving.tell(lambda actor: actor.exit(("bare", "reason")))
    world.dead(leaving)
    error, bare = (down.reason for down in world.got(watcher))
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace.tb_frame.f_code.co_name == "fail"
    assert bare == ("bare", "reason")


def test_C20_the_order_of_one_sender_holds_across_messages_and_signals(world: World) -> None:
    sender, trapping = world.actor(), world.actor(trap=True)
    world.runtime.link(sender, trapping)

    def send(actor: Any) -> None:
        trapping.tell(1)
        actor.runtime.exit(trapping, "signal", actor.ref)
        trapping.tell(2)
        actor.exit("end")

    sender.tell(send)
    world.dead(sender)
    assert world.got(trapping) == [1, ExitNotice(sender, "signal"), 2, ExitNotice(sender, "end")]


def test_C20_what_is_sent_after_a_deadly_signal_is_never_handled(world: World) -> None:
    for _ in range(50):
        victim = world.actor()
        handled: list[Any] = []
        victim.tell(lambda _actor: None)
        world.runtime.exit(victim, "signal")
        victim.tell(lambda _actor, handled=handled: handled.append("too late"))
        assert world.dead(victim) == "signal"
        assert handled == []


def test_C20_a_signal_that_comes_at_the_very_end_of_a_turn_is_not_lost() -> None:
    """A turn ends; a signal comes before the mailbox is left, and no message comes ever after."""
    with Simulation() as simulation:
        victim = simulation.spawn(Actor)
        process: Any = victim._actor_weakref()
        leave = process.actor_inbox.leave

        class Interrupted:
            def __getattr__(self, name: str) -> Any:
                return getattr(mailbox, name)

            def leave(self) -> None:
                simulation.runtime.exit(victim, "signal")
                leave()

        mailbox, process.actor_inbox = process.actor_inbox, Interrupted()
        victim.tell("message")
        simulation.settle()
        assert simulation.runtime.exit_reason(victim) == "signal"


def test_signals_between_real_threads_are_never_lost() -> None:
    """Many processes are told and sent a signal from several threads at once; every one of them dies of the signal."""
    dispatcher = ThreadedDispatcher(workers=2)
    timers = TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    victims = [runtime.spawn(Actor) for _ in range(300)]
    start = threading.Barrier(3)

    def tell() -> None:
        start.wait(GENEROUS)
        for victim in victims:
            victim.tell("message")

    def signal() -> None:
        start.wait(GENEROUS)
        for victim in victims:
            runtime.exit(victim, "signal")

    threads = [threading.Thread(target=target) for target in (tell, tell, signal)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert all(runtime.join(victim, GENEROUS) for victim in victims)
    assert {runtime.exit_reason(victim) for victim in victims} == {"signal"}
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def test_every_scenario_is_tested_or_said_to_be_different() -> None:
    tested = {int(name.removeprefix("test_C").split("_")[0]) for name in globals() if name.startswith("test_C")}
    assert tested | DIFFERENT.keys() == set(range(1, 21))
