"""Processes: Pykka's idiom, start, kill and crash; and that every call gets an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pykka
import pytest
from pykka import ActorRegistry
from pykka._envelope import Envelope
from pykka.messages import ProxyGetAttr, ProxySetAttr

from penstock.actors.runtime import dead_process, inspect
from penstock.actors.runtime import process as module
from penstock.actors.runtime.bounded import BoundedMailbox, MailboxOptions
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, ProcessRef, Refusal
from penstock.actors.runtime.reasons import ProcessExit
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import POSTPONE, Keep, Next, Stop, answer, state_timeout
from penstock.errors import CallTimeout, OptionError, ProcessDead, StartError, SystemStopped
from penstock.testing import Simulation, eventually

GENEROUS = 20.0

Make = Callable[..., Runtime]


class Runner(Process):
    """Calls the messages that can be called."""

    in_pykka_registry = False

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class Counter(Process):
    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.count = start

    def add(self, number: int) -> int:
        self.count += number
        return self.count

    def fail(self) -> None:
        raise LookupError("fail")

    def on_receive(self, message: Any) -> Any:
        return ("received", message)


# --- Pykka's idiom ---------------------------------------------------------------------------------------------------


def test_proxies_call_get_set_and_tell(runtime: Runtime) -> None:
    ref = runtime.spawn(Counter, 5)
    proxy: Any = ref.proxy()
    assert proxy.add(2).get(timeout=GENEROUS) == 7
    proxy.add.defer(3)
    assert proxy.count.get(timeout=GENEROUS) == 10
    proxy.count = 20
    assert proxy.count.get(timeout=GENEROUS) == 20
    assert proxy.add(1).map(lambda value: value * 2).get(timeout=GENEROUS) == 42
    assert pykka.get_all([proxy.add(1), proxy.add(1)], timeout=GENEROUS) == [22, 23]
    assert proxy.add(1).join(proxy.add(1)).get(timeout=GENEROUS) == [24, 25]
    proxy.stop()
    assert runtime.join(ref, GENEROUS)
    with pytest.raises(pykka.ActorDeadError):
        proxy.count.get(timeout=GENEROUS)
    with pytest.raises(pykka.ActorDeadError):
        ref.proxy()


def test_an_exception_in_a_proxy_call_is_the_callers_and_crashes_the_process(runtime: Runtime) -> None:
    ref = runtime.spawn(Counter)
    with pytest.raises(LookupError, match="fail"):
        ref.proxy().fail().get(timeout=GENEROUS)
    assert isinstance(runtime.exit_reason(ref), LookupError)


def test_a_refusal_is_the_callers_and_crashes_nothing(runtime: Runtime) -> None:
    def refuse(_process: Any) -> None:
        raise Refusal(LookupError("no"))

    ref = runtime.spawn(Runner)
    with pytest.raises(LookupError, match="no"):
        ref.ask(refuse, timeout=GENEROUS)
    ref.tell(refuse)
    assert ref.ask("alive", timeout=GENEROUS) == "alive"


def test_a_process_is_in_pykkas_registry_as_long_as_it_lives(runtime: Runtime) -> None:
    refs = [runtime.spawn(Counter) for _ in range(3)]
    assert set(refs) <= set(ActorRegistry.get_by_class(Counter))
    assert ActorRegistry.get_by_urn(refs[0].actor_urn) is refs[0]
    ActorRegistry.broadcast("hello", target_class=Counter)
    runtime.exit(refs[0], "kill")
    refs[1].stop(timeout=GENEROUS)
    runtime.exit(refs[2], "reason")
    assert runtime.join(refs[2], GENEROUS)
    assert ActorRegistry.get_by_class(Counter) == []


def test_a_process_that_does_not_start_is_not_in_the_registry(runtime: Runtime) -> None:
    class Failing(Counter):
        def on_start(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        runtime.spawn(Failing)
    assert ActorRegistry.get_by_class(Failing) == []


def test_pykkas_threading_actors_and_processes_ask_each_other(runtime: Runtime) -> None:
    class Threaded(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message: Any) -> Any:
            return message() if callable(message) else message

    threaded = Threaded.start()
    ref = runtime.spawn(Runner)
    try:
        assert threaded.ask(lambda: ref.ask("from the thread", timeout=GENEROUS), timeout=GENEROUS) == "from the thread"
        there = ref.ask(lambda _: threaded.ask("from the process", timeout=GENEROUS), timeout=GENEROUS)
        assert there == "from the process"
        runtime.exit(ref, "kill")
        with pytest.raises(pykka.ActorDeadError):
            threaded.ask(lambda: ref.ask("too late", timeout=GENEROUS), timeout=GENEROUS)
    finally:
        threaded.stop()


def test_a_call_can_be_awaited(runtime: Runtime) -> None:
    release = threading.Event()
    slow, quick = runtime.spawn(Runner), runtime.spawn(Runner)

    async def main() -> list[Any]:
        async def ask(ref: ProcessRef, message: Any) -> Any:
            return await ref.ask(message, block=False)

        async def free() -> None:
            release.set()

        # released only if the loop runs while the first call is awaited
        one, two, _ = await asyncio.gather(ask(slow, lambda _: release.wait(GENEROUS)), ask(quick, "two"), free())
        return [one, two, await quick.proxy().label]

    assert asyncio.run(main()) == [True, "two", quick.label]


def test_a_stop_waits_its_turn_and_two_stops_both_return_true(runtime: Runtime) -> None:
    ref = runtime.spawn(Runner)
    inside, release = threading.Event(), threading.Event()

    def hold(_process: Any) -> bool:
        inside.set()
        return release.wait(GENEROUS)

    held = ref.ask(hold, block=False)
    assert inside.wait(GENEROUS)
    stops = [ref.stop(block=False) for _ in range(2)]
    release.set()
    assert held.get(timeout=GENEROUS)
    assert [stop.get(timeout=GENEROUS) for stop in stops] == [True, True]
    assert ref.stop(timeout=GENEROUS) is False


def test_hooks_are_pykkas() -> None:
    class Hooked(Process):
        called: list[Any]

        def on_start(self) -> None:
            type(self).called = ["start"]

        def on_stop(self) -> None:
            self.called.append("stop")

        def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
            self.called.append(exception_type)

        def on_receive(self, message: Any) -> Any:
            raise LookupError

    with Simulation() as simulation:
        simulation.spawn(Hooked).stop(timeout=1)
        assert Hooked.called == ["start", "stop"]
        simulation.spawn(Hooked).tell("fail")
        simulation.settle()
        assert Hooked.called == ["start", LookupError]
        assert isinstance(Hooked.start(runtime=simulation.runtime), ProcessRef)
        with pytest.raises(TypeError, match="runtime="):
            Hooked.start()


# --- the start -------------------------------------------------------------------------------------------------------


class Stuck(Process):
    """Its start hangs until it is released."""

    def __init__(self, inside: threading.Event, release: threading.Event, done: list[Any]) -> None:
        super().__init__()
        self.inside, self.release, self.done = inside, release, done

    def on_start(self) -> None:
        self.inside.set()
        self.release.wait(GENEROUS)
        self.runtime.monitor(self.ref, "nobody")
        self.done.append("started")

    def on_receive(self, message: Any) -> Any:
        self.done.append(message)


def test_after_a_start_that_timed_out_the_name_is_free_and_the_process_has_no_effect(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    inside, release, done = threading.Event(), threading.Event(), list[Any]()
    parent = runtime.spawn(Runner)
    before = ActorRegistry.get_all()
    with pytest.raises(StartError) as caught:
        runtime.spawn(Stuck, inside, release, done, name="it", link=parent, start_timeout=0.5)
    assert caught.value.code == "timeout"
    assert inside.wait(GENEROUS)
    assert runtime.whereis("it") is None
    assert (runtime.processes(), ActorRegistry.get_all()) == ([parent], before)
    assert runtime.dispatcher.statistics().leaked == 1
    again = runtime.spawn(Runner, name="it", start_timeout=GENEROUS)
    assert again.ask("here", timeout=GENEROUS) == "here"
    release.set()
    runtime.dispatcher.close(GENEROUS)  # ends every thread, each after its current turn
    assert done == ["started"]
    assert runtime.whereis("it") is again
    assert parent.is_alive()


def test_calls_to_a_process_whose_start_timed_out_are_answered(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    inside, release, done = threading.Event(), threading.Event(), list[Any]()
    refs: list[ProcessRef] = []

    class Known(Stuck):
        def on_start(self) -> None:
            refs.append(self.ref)
            refs[0].tell("during the start")
            super().on_start()

    with pytest.raises(StartError):
        runtime.spawn(Known, inside, release, done, start_timeout=0.5)
    assert inside.wait(GENEROUS)
    with pytest.raises(ProcessDead):
        refs[0].ask("while it is stuck", timeout=GENEROUS)
    release.set()
    runtime.spawn(Runner).ask("others", timeout=GENEROUS)
    with pytest.raises(ProcessDead):
        refs[0].ask("afterwards", timeout=GENEROUS)
    runtime.dispatcher.close(GENEROUS)
    assert done == ["started"]


def test_a_start_with_a_timeout_raises_what_init_raised_a_timeout_of_its_own_included(runtime: Runtime) -> None:
    class Failing(Process):
        def __init__(self, error: BaseException) -> None:
            super().__init__()
            self.error = error

        def on_start(self) -> None:
            raise self.error

    for error in (LookupError("init"), TimeoutError("its own"), CallTimeout("a call", 1)):
        with pytest.raises(type(error)) as caught:
            runtime.spawn(Failing, error, name="it", start_timeout=GENEROUS)
        assert caught.value is error
        assert runtime.whereis("it") is None


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon"])
def test_a_bad_start_timeout_is_refused_before_anything_starts(runtime: Runtime, bad: Any) -> None:
    with pytest.raises(OptionError, match="start_timeout"):
        runtime.spawn(Runner, start_timeout=bad)
    assert runtime.processes() == []


@pytest.mark.parametrize("how", ["kill", "close"])
def test_killing_a_process_whose_start_hangs_ends_the_wait_for_it(make_runtime: Make, how: str) -> None:
    runtime = make_runtime(workers=1)
    inside, release, done = threading.Event(), threading.Event(), list[Any]()
    raised: list[BaseException] = []

    def start() -> None:
        try:
            runtime.spawn(Stuck, inside, release, done, name="it", start_timeout=GENEROUS)
        except BaseException as error:
            raised.append(error)

    starter = threading.Thread(target=start)
    starter.start()
    assert inside.wait(GENEROUS)
    if how == "kill":
        ref = runtime.whereis("it")
        assert ref is not None
        runtime.exit(ref, "kill")
    else:
        runtime.close()
    starter.join(GENEROUS)  # `on_start` is still stuck
    assert [(type(error), getattr(error, "code", None)) for error in raised] == [(StartError, "killed")]
    assert runtime.whereis("it") is None
    assert runtime._waiting == {}
    release.set()
    runtime.dispatcher.close(GENEROUS)
    assert done == ["started"]


def test_killed_after_its_initialisation_a_process_has_started(make_runtime: Make) -> None:
    """As without a time-out: what happens between `init` and the first message concerns a started process."""
    runtime = make_runtime(workers=1)
    inside, release = threading.Event(), threading.Event()
    started: list[ProcessRef] = []

    class StuckMachine(StateMachine):
        state_enter = True

        def init(self) -> str:
            return "only"

        def only(self, event: Any) -> None:
            inside.set()
            release.wait(GENEROUS)

    starter = threading.Thread(
        target=lambda: started.append(runtime.spawn(StuckMachine, name="it", start_timeout=GENEROUS))
    )
    starter.start()
    assert inside.wait(GENEROUS)
    ref = runtime.whereis("it")
    assert ref is not None
    runtime.exit(ref, "kill")
    starter.join(GENEROUS)
    assert started == [ref]
    assert runtime.exit_reason(ref) == "killed"
    release.set()


def test_only_processes_can_be_spawned(runtime: Runtime) -> None:
    with pytest.raises(TypeError, match="cannot spawn ThreadingActor: it is not a subclass of Process"):
        runtime.spawn(pykka.ThreadingActor)  # type: ignore[arg-type]
    assert runtime.processes() == []


def test_a_process_killed_or_sent_an_exit_signal_while_it_starts_does_not_start() -> None:
    class Doomed(Runner):
        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

        def on_start(self) -> None:
            self.runtime.exit(self.ref, self.reason)

    with Simulation() as simulation:
        for reason, code in (("kill", "killed"), ("reason", "reason")):
            with pytest.raises(StartError) as caught:
                simulation.spawn(Doomed, reason)
            assert caught.value.code == code
        assert simulation.runtime.processes() == []


def test_a_parent_that_is_dead_starts_nothing(runtime: Runtime) -> None:
    parent = runtime.spawn(Runner)
    runtime.exit(parent, "kill")
    with pytest.raises(StartError):
        runtime.spawn(Runner, name="it", link=parent)
    assert (runtime.whereis("it"), runtime.processes()) == (None, [])


def test_a_closed_runtime_starts_nothing_and_has_no_processes(runtime: Runtime) -> None:
    ref = runtime.spawn(Counter)
    runtime.close()
    assert (ref.is_alive(), runtime.exit_reason(ref), runtime.processes()) == (False, "killed", [])
    with pytest.raises(SystemStopped):
        runtime.spawn(Counter)
    assert ActorRegistry.get_by_class(Counter) == []
    assert runtime.join(ref, 0)


# --- the kill --------------------------------------------------------------------------------------------------------


class Watcher(Process):
    in_pykka_registry = False

    def __init__(self, heard: list[Any], event: threading.Event) -> None:
        super().__init__()
        self.heard, self.event = heard, event

    def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        self.event.set()


class Holding(StateMachine):
    """A state machine that holds its thread; what it returns afterwards must have no effect."""

    def init(self, inside: threading.Event, release: threading.Event, seen: list[Any]) -> str:
        self.inside, self.release, self.seen = inside, release, seen
        return "one"

    def one(self, event: Any) -> Any:
        if event.message == "later":
            return Keep(POSTPONE)
        self.inside.set()
        self.release.wait(GENEROUS)
        return Next("two", answer(event.reply_to, "from the dead"), state_timeout(0, "from the dead"))

    def two(self, event: Any) -> Any:
        self.seen.append(event)


def test_who_has_only_the_mailbox_of_a_dead_process_is_answered_too(runtime: Runtime) -> None:
    ref = runtime.spawn(Runner)
    mailbox = ref.actor_inbox
    ref.terminate(timeout=GENEROUS)
    del ref
    reply = Reply(runtime.dispatcher)
    mailbox.put(Envelope("late", reply_to=reply))
    with pytest.raises(ProcessDead) as caught:
        reply.get(timeout=GENEROUS)
    assert caught.value.reason == "noproc"
    mailbox.put("a message")
    assert runtime.dead_letters.count == 1


@pytest.mark.parametrize("kind", ["process", "machine"])
def test_killed_in_a_handler_a_process_is_dead_for_all_others_at_once(make_runtime: Make, kind: str) -> None:
    runtime = make_runtime(workers=1)
    inside, release = threading.Event(), threading.Event()
    heard, hears, seen = list[Any](), threading.Event(), list[Any]()

    def hold(_process: Any) -> str:
        inside.set()
        release.wait(GENEROUS)
        return "from the dead"

    if kind == "process":
        ref = runtime.spawn(Runner, name="it")
    else:
        ref = runtime.spawn(Holding, inside, release, seen, name="it")
    watcher = runtime.spawn(Watcher, heard, hears)
    monitor = runtime.monitor(watcher, ref)
    early = [ref.ask("later", block=False)] if kind == "machine" else []
    current = ref.ask(hold, block=False)
    assert inside.wait(GENEROUS)
    waiting = [*early, current, *(ref.ask("in the mailbox", block=False) for _ in range(3))]
    runtime.exit(ref, "kill")
    # its thread is still in the handler
    assert (ref.is_alive(), runtime.whereis("it"), runtime.exit_reason(ref)) == (False, None, "killed")
    for call in waiting:
        with pytest.raises(ProcessDead) as caught:
            call.get(timeout=0)
        assert caught.value.reason == "killed"
    with pytest.raises(ProcessDead) as late:
        ref.ask("now", timeout=GENEROUS)
    assert late.value.reason == "noproc"
    assert hears.wait(GENEROUS)
    assert heard == [Down(monitor, ref, "killed")]
    assert runtime.dispatcher.statistics().leaked == 1
    again = runtime.spawn(Runner, name="it")
    assert again.ask("here", timeout=GENEROUS) == "here"
    release.set()
    runtime.dispatcher.close(GENEROUS)
    assert runtime.dispatcher.statistics().leaked == 0
    assert (seen, heard, runtime.dead_letters.count) == ([], [Down(monitor, ref, "killed")], 0)
    with pytest.raises(ProcessDead):  # not the answer of the killed process
        current.get(timeout=0)


def test_the_worker_goes_on_when_the_handler_of_a_killed_process_returns(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1, max_spares=0)
    inside, release = threading.Event(), threading.Event()

    def hold(_process: Any) -> None:
        inside.set()
        release.wait(GENEROUS)

    ref, other = runtime.spawn(Runner), runtime.spawn(Runner)
    ref.tell(hold)
    assert inside.wait(GENEROUS)
    ref.tell(lambda _: pytest.fail("handled after the kill"))
    runtime.exit(ref, "kill")
    answered = other.ask("goes on", block=False)
    release.set()
    assert answered.get(timeout=GENEROUS) == "goes on"
    assert runtime.dispatcher.statistics().leaked == 0
    assert runtime.dead_letters.count == 1


def test_the_caller_of_a_stop_is_answered_if_the_process_is_killed_while_it_terminates(make_runtime: Make) -> None:
    runtime = make_runtime(workers=1)
    inside, release = threading.Event(), threading.Event()

    class Lingering(Runner):
        def terminate(self, reason: object) -> None:
            inside.set()
            release.wait(GENEROUS)

    ref = runtime.spawn(Lingering)
    stopping = ref.stop(block=False)
    assert inside.wait(GENEROUS)
    runtime.exit(ref, "kill")
    assert stopping.get(timeout=0) is True  # the process is dead, as the caller wanted
    release.set()
    assert runtime.exit_reason(ref) == "killed"


def test_a_message_sent_after_the_kill_is_never_handled(runtime: Runtime) -> None:
    for _ in range(200):
        ref, handled = runtime.spawn(Runner), list[int]()
        ref.tell("before")
        runtime.exit(ref, "kill")
        ref.tell(lambda _, handled=handled: handled.append(1))
        assert handled == []


def test_a_signal_and_a_message_that_come_between_two_looks_are_taken_in_their_order() -> None:
    """The process has just seen that nothing is unusual when an exit signal and then a message arrive."""
    handled: list[int] = []

    class Interrupted:
        def __init__(self, mailbox: Any) -> None:
            self.mailbox = mailbox

        def __getattr__(self, name: str) -> Any:
            return getattr(self.mailbox, name)

        def empty(self) -> bool:
            if self.mailbox.empty() and process.actor_inbox is self:
                process.actor_inbox = self.mailbox
                simulation.runtime.exit(ref, "signal")
                ref.tell(lambda _: handled.append(1))
            return bool(self.mailbox.empty())

    with Simulation() as simulation:
        ref = simulation.spawn(Runner)
        process: Any = ref._actor_weakref()
        ref.tell("before")
        process.actor_inbox = Interrupted(process.actor_inbox)
        ready = simulation.dispatcher._ready.pop()
        assert isinstance(ready, Mailbox)
        ready.enter().run(2)  # a turn of two messages
        simulation.settle()
        assert simulation.runtime.exit_reason(ref) == "signal"
        assert handled == []


def test_a_signal_that_comes_while_it_looks_for_signals_is_not_lost() -> None:
    class Interrupted(Runner):
        interrupt: Callable[[], None] | None = None
        stored = False

        @property
        def _attention(self) -> bool:
            return self.stored

        @_attention.setter
        def _attention(self, value: bool) -> None:
            if not value and self.interrupt is not None:
                interrupt, self.interrupt = self.interrupt, None
                interrupt()
            self.stored = value

    with Simulation() as simulation:
        ref = simulation.spawn(Interrupted)
        process: Any = ref._actor_weakref()
        process._attention = True  # a false alarm
        process.interrupt = lambda: simulation.runtime.exit(ref, "signal")
        ref.tell("message")
        simulation.settle()
        assert simulation.runtime.exit_reason(ref) == "signal"


def test_a_killed_process_answers_a_call_that_only_its_own_thread_can_see() -> None:
    """The call has been taken out of the mailbox, but is not yet recorded as being handled."""

    class Interrupted(Runner):
        def _handle(self, item: Any) -> None:
            self.runtime.exit(self.ref, "kill")
            super()._handle(item)

    class InterruptedMachine(Keeper):
        def _handle(self, item: Any) -> None:
            self.runtime.exit(self.ref, "kill")
            super()._handle(item)

    with Simulation() as simulation:
        for ref in (simulation.spawn(Interrupted), simulation.spawn(InterruptedMachine, 1)):
            call = ref.ask(lambda _: pytest.fail("handled by a dead process"), block=False)
            simulation.settle()
            with pytest.raises(ProcessDead) as caught:
                call.get(timeout=0)
            assert caught.value.reason == "killed"


# --- the crash -------------------------------------------------------------------------------------------------------


def test_a_process_that_cannot_log_its_crash_ends_all_the_same() -> None:
    class Unspeakable(Runner):
        def _circumstances(self, reason: str) -> dict[str, Any]:
            raise LookupError("cannot say")

    with Simulation() as simulation:
        ref = simulation.spawn(Unspeakable)
        with pytest.raises(ZeroDivisionError):
            ref.ask(lambda _: 1 // 0, timeout=1)
        assert not ref.is_alive()


def test_what_terminate_raises_is_the_exit_reason() -> None:
    class Failing(Runner):
        def terminate(self, reason: object) -> None:
            raise LookupError("terminate")

    with Simulation() as simulation:
        ref = simulation.spawn(Failing)
        with pytest.raises(LookupError):
            ref.ask(lambda process: process.exit("normal"), timeout=1)
        assert isinstance(simulation.runtime.exit_reason(ref), LookupError)


def test_calls_that_wait_during_a_crash_get_the_exit_reason() -> None:
    with Simulation() as simulation:
        ref = simulation.spawn(Runner)
        crashing = ref.ask(lambda _: 1 // 0, block=False)
        behind = [ref.ask("behind", block=False) for _ in range(3)]
        simulation.settle()
        with pytest.raises(ZeroDivisionError) as error:
            crashing.get(timeout=0)
        for call in behind:
            with pytest.raises(ProcessDead) as caught:
                call.get(timeout=0)
            assert caught.value.reason is error.value


def test_a_dispose_that_fails_still_notifies_monitors_and_callers() -> None:
    class Failing(Runner):
        def dispose(self, reason: object) -> None:
            raise LookupError("dispose")

    with Simulation() as simulation:
        heard, event = list[Any](), threading.Event()
        ref = simulation.spawn(Failing)
        waiting = ref.ask("waiting", block=False)
        simulation.runtime.monitor(simulation.spawn(Watcher, heard, event), ref)
        with pytest.raises(LookupError):
            simulation.runtime.exit(ref, "kill")
        simulation.settle()
        assert [type(message) for message in heard] == [Down]
        with pytest.raises(ProcessDead):
            waiting.get(timeout=0)


# --- every call is answered ------------------------------------------------------------------------------------------


class Keeper(StateMachine):
    """Answers some calls at once, some later, some never; postpones, inserts and crashes."""

    def init(self, seed: int) -> str:
        self.random = random.Random(seed)
        self.kept: list[Any] = []
        return "odd"

    def odd(self, event: Any) -> Any:
        return self.react(event, "even")

    def even(self, event: Any) -> Any:
        return self.react(event, "odd")

    def react(self, event: Any, other: str) -> Any:
        reply_to = getattr(event, "reply_to", None)
        if reply_to is None:
            return Next(other)
        match self.random.randrange(6):
            case 0:
                return Keep(POSTPONE)
            case 1:
                self.kept.append(reply_to)
                return Next(other, state_timeout(0))
            case 2 if self.kept:
                return Next(other, answer(self.kept.pop()), answer(reply_to))
            case 3:
                return Next(other, POSTPONE)
        return Keep(answer(reply_to, event.message))


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("kind", ["process", "machine"])
def test_every_call_returns_or_raises_while_processes_are_killed_crash_and_stop(make_runtime: Make, kind: str) -> None:
    runtime = make_runtime(workers=3, throughput=4)
    lost: list[Any] = []
    callers, rounds = 4, 40
    barrier = threading.Barrier(callers + 1)
    target: list[ProcessRef] = []

    def call(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            barrier.wait(GENEROUS)
            ref = target[-1]
            for _ in range(chance.randrange(5, 30)):
                try:
                    ref.ask("question", timeout=GENEROUS)
                except ProcessDead:
                    break
                except CallTimeout:
                    lost.append(ref)
                    return
                except ZeroDivisionError:
                    break
            barrier.wait(GENEROUS)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(callers)]
    chance = random.Random(0)
    for thread in threads:
        thread.start()
    for number in range(rounds):
        ref = runtime.spawn(Runner) if kind == "process" else runtime.spawn(Keeper, number)
        target.append(ref)
        barrier.wait(GENEROUS)
        for _ in range(chance.randrange(200)):
            ref.is_alive()
        match number % 4:
            case 0:
                runtime.exit(ref, "kill")
            case 1:
                runtime.exit(ref, "signal")
            case 2:
                ref.stop(block=False)
            case 3:
                ref.tell((lambda _: 1 // 0) if kind == "process" else "change")
                runtime.exit(ref, "kill")
        barrier.wait(GENEROUS)
    for thread in threads:
        thread.join(GENEROUS)
    assert lost == []


@pytest.mark.usefixtures("restless")
def test_simultaneous_links_monitors_and_deaths_leave_nothing_behind(make_runtime: Make) -> None:
    runtime = make_runtime(workers=2)
    problems: list[BaseException] = []

    def play(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(150):
                mine = [runtime.spawn(Runner) for _ in range(3)]
                shared.extend(mine)
                one, other = chance.choice(shared[-12:]), chance.choice(shared[-12:])
                with contextlib.suppress(ProcessDead):
                    runtime.link(one, other)
                monitor = runtime.monitor(one, other)
                if chance.random() < 0.5:
                    runtime.demonitor(one, monitor)
                runtime.exit(chance.choice(shared[-12:]), chance.choice(["kill", "reason"]))
        except BaseException as error:
            problems.append(error)

    shared: list[ProcessRef] = [runtime.spawn(Runner)]
    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert problems == []
    runtime.close()
    runtime.dispatcher.close(GENEROUS)  # processes that are ending in a worker have ended then
    assert (runtime._relations, runtime._alive, runtime._names, runtime._waiting) == ({}, {}, {}, {})
    assert runtime.started == runtime.ended


def test_no_notice_of_an_end_comes_after_unlink_or_demonitor_has_returned(make_runtime: Make) -> None:
    """Even if the other process is dying in another thread at that moment."""
    runtime = make_runtime(workers=2)
    dying, go_on = threading.Event(), threading.Event()

    class Slow(Runner):
        def dispose(self, reason: object) -> None:
            dying.set()
            go_on.wait(GENEROUS)
            super().dispose(reason)

    heard, event = list[Any](), threading.Event()

    class Trapping(Watcher):
        trap_exit = True

    watcher, target = runtime.spawn(Trapping, heard, event), runtime.spawn(Slow)
    runtime.link(watcher, target)
    monitor = runtime.monitor(watcher, target)
    killer = threading.Thread(target=runtime.exit, args=(target, "kill"))
    killer.start()
    assert dying.wait(GENEROUS)
    runtime.unlink(watcher, target)
    assert runtime.demonitor(watcher, monitor) is True
    go_on.set()
    killer.join(GENEROUS)
    watcher.tell("the end")
    assert event.wait(GENEROUS)
    assert heard == ["the end"]


def test_a_notice_names_its_sender(runtime: Runtime) -> None:
    heard, event = list[Any](), threading.Event()

    class Trapping(Watcher):
        trap_exit = True

    ref, sender = runtime.spawn(Trapping, heard, event), runtime.spawn(Runner)
    runtime.exit(ref, "reason", sender)
    assert event.wait(GENEROUS)
    assert heard == [ExitNotice(sender, "reason")]


def test_join_returns_whether_the_process_is_dead(runtime: Runtime) -> None:
    ref = runtime.spawn(Runner)
    assert runtime.join(ref, 0.01) is False
    runtime.exit(ref, "kill")
    assert runtime.join(ref, 0) is True
    assert runtime.processes() == []


def test_a_join_relies_on_no_process_that_could_be_killed() -> None:
    class Leaving(StateMachine):
        def init(self) -> Next:
            return Next("only", state_timeout(1.0))

        def only(self, event: Any) -> Stop:
            return Stop()

    with Simulation() as simulation:
        runtime, clock = simulation.runtime, simulation.clock
        ref = simulation.spawn(Leaving)

        def kill_all_others() -> None:
            for other in runtime.processes():
                if other is not ref:
                    runtime.exit(other, "kill")

        simulation.dispatcher.before_step = kill_all_others
        before = clock.monotonic()
        assert runtime.join(ref, 50.0) is True
        assert clock.monotonic() == before + 1.0


def test_a_join_that_times_out_leaves_nothing_behind_and_several_may_wait(runtime: Runtime) -> None:
    ref = runtime.spawn(Runner)
    threads = [threading.Thread(target=runtime.join, args=(ref, GENEROUS)) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(runtime._waiting.get(ref, ())) == 3)
    assert runtime.join(ref, 0.01) is False
    assert len(runtime._waiting[ref]) == 3
    runtime.exit(ref, "kill")
    for thread in threads:
        thread.join(GENEROUS)
        assert not thread.is_alive()
    assert runtime._waiting == {}


def test_runtimes_share_no_names_and_no_processes() -> None:
    dispatcher, timers = ThreadedDispatcher(workers=1), TimerThread()
    one, two = Runtime(dispatcher, timers, SystemClock()), Runtime(dispatcher, timers, SystemClock())
    here, there = one.spawn(Runner, name="it"), two.spawn(Runner, name="it")
    assert (one.whereis("it"), two.whereis("it")) == (here, there)
    one.close()
    assert there.ask("alive", timeout=GENEROUS) == "alive"
    two.close()
    assert dispatcher.close(GENEROUS) == 0
    assert timers.close(GENEROUS)


def _crashes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.penstock["reason"] for record in caplog.records if "process_crashed" in record.getMessage()]  # type: ignore[attr-defined]


def test_a_crash_is_logged_and_so_is_one_while_cleaning_up(caplog: pytest.LogCaptureFixture) -> None:
    class Messy(Runner):
        def terminate(self, reason: object) -> None:
            raise ZeroDivisionError

    def fail(_process: Any) -> None:
        raise LookupError

    with Simulation() as simulation, caplog.at_level("ERROR", "penstock"):
        one, two, three = (simulation.runtime.spawn(cls) for cls in (Messy, Runner, Messy))
        one.tell(lambda process: process.exit("shutdown"))
        simulation.settle()
        assert isinstance(simulation.runtime.exit_reason(one), ZeroDivisionError)
        assert ["ZeroDivisionError" in crash for crash in _crashes(caplog)] == [True]
        two.tell(fail)
        simulation.settle()
        assert ["LookupError" in crash for crash in _crashes(caplog)] == [False, True]
        three.tell(fail)
        simulation.settle()
        assert ["LookupError" in crash for crash in _crashes(caplog)[2:]] == [True, False]
        assert ["ZeroDivisionError" in crash for crash in _crashes(caplog)[2:]] == [False, True]


def test_a_down_among_the_messages_that_were_held_back_is_taken_out_by_a_flush() -> None:
    with Simulation() as simulation:
        heard: list[Any] = []
        runtime = simulation.runtime
        watcher, target = runtime.spawn(Watcher, heard, threading.Event()), runtime.spawn(Runner)
        monitor, other = runtime.monitor(watcher, target), runtime.monitor(watcher, target)
        inspect.suspend(watcher)
        watcher.tell("before")
        runtime.exit(target, "kill")
        watcher.tell("after")
        simulation.settle()  # all of it is held back
        assert heard == []
        runtime.demonitor(watcher, monitor, flush=True)
        inspect.resume(watcher)
        simulation.settle()
        assert heard == ["before", Down(other, target, "killed"), "after"]


def test_a_signal_is_obeyed_before_a_message_that_was_sent_after_it() -> None:
    with Simulation() as simulation:
        seen: list[str] = []
        ref = simulation.runtime.spawn(Runner)

        def send_both(process: Any) -> None:
            simulation.runtime.exit(ref, "crash")
            ref.tell(lambda _: seen.append("handled"))

        ref.tell(send_both)
        simulation.settle()
        assert (seen, simulation.runtime.exit_reason(ref)) == ([], "crash")


def test_a_turn_handles_no_more_messages_than_its_limit() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        for number in range(5):
            ref.tell(number)
        process = ref._actor_weakref()
        assert isinstance(process, Process)
        assert [process.run(2), process.run(2), process.run(2)] == [2, 2, 1]


def test_a_turn_counts_the_messages_that_were_held_back_as_well() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        inspect.suspend(ref)
        for number in range(5):
            ref.tell(number)
        simulation.settle()  # all of them are held back
        process = ref._actor_weakref()
        assert isinstance(process, Process)
        process.resume()
        ref.tell(5)
        assert [process.run(2), process.run(2), process.run(2), process.run(2)] == [2, 2, 2, 0]


def test_messages_that_are_held_back_within_a_turn_count_for_its_limit() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        process = ref._actor_weakref()
        assert isinstance(process, Process)

        def hold_back(process: Any) -> None:
            process.discard_down(0)  # takes all that waits out of the mailbox
            ref.tell("after")

        for message in (hold_back, 1, 2, 3, 4):
            ref.tell(message)
        assert [process.run(3), process.run(3), process.run(3)] == [3, 3, 0]


def test_a_turn_looks_whether_the_process_is_dead_ends_or_has_messages_held_back() -> None:
    with Simulation() as simulation:
        runtime = simulation.runtime
        processes: list[Any] = []
        for _ in range(5):
            processes.append(runtime.spawn(Runner)._actor_weakref())
            processes[-1]._attention = True
        _, suspended, behind, killed, ended = processes
        suspended.suspend()
        behind._hold("message")
        runtime.exit(killed.ref, "kill")
        runtime.exit(ended.ref, "reason")
        looks = [(process._attend(), process._attention, process.is_alive) for process in processes]
        assert looks == [(True, False, True), (True, True, True), (True, True, True), *2 * [(False, True, False)]]
        assert runtime.exit_reason(ended.ref) == "reason"
        behind._backlog.clear()


@pytest.mark.parametrize("how", ["exits", "is told to exit", "is killed"])
def test_a_process_that_ends_in_its_start_has_not_started_and_its_reason_is_told(how: str) -> None:
    class Ends(Runner):
        def on_start(self) -> None:
            if how == "exits":
                self.exit("reason")
            self.runtime.exit(self.ref, "kill" if how == "is killed" else "reason")

    with Simulation() as simulation:
        with pytest.raises(StartError) as caught:
            simulation.runtime.spawn(Ends, name="it")
        assert (caught.value.process, caught.value.code) == ("it", "killed" if how == "is killed" else "reason")
        assert simulation.runtime.whereis("it") is None


@pytest.mark.parametrize("error", [ProcessExit("reason"), LookupError("error")])
def test_what_ends_a_process_between_its_start_and_its_first_message_is_its_exit_reason(error: Exception) -> None:
    class Ends(Runner):
        def _proceed(self) -> None:
            raise error

    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Ends)
        assert simulation.runtime.exit_reason(ref) is (error.reason if isinstance(error, ProcessExit) else error)


@pytest.mark.parametrize("error", [ProcessExit("reason"), LookupError("error"), None])
def test_a_step_that_another_thread_takes_in_a_processs_place_ends_it_like_a_message(error: Exception | None) -> None:
    def step(*arguments: str) -> None:
        seen.extend(arguments)
        waiting.append(ref.ask("call", block=False))
        if error is not None:
            raise error
        process.discard_down(1)  # which holds back what waits

    seen: list[Any] = []
    waiting: list[Any] = []
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        process: Any = ref._actor_weakref()
        assert ref.actor_inbox.borrow()
        process.run_step(step, "a", "b")
        assert seen == ["a", "b"]
        assert ref.is_alive() is (error is None)
        if error is None:
            simulation.settle()
            assert waiting[0].get(timeout=0) == "call"
        else:
            reason = error.reason if isinstance(error, ProcessExit) else error
            assert simulation.runtime.exit_reason(ref) is reason
            with pytest.raises(ProcessDead):
                waiting[0].get(timeout=0)


@pytest.mark.parametrize("ends_badly", [False, True])
def test_an_exception_of_such_a_step_keeps_no_frame_of_the_thread(ends_badly: bool) -> None:
    class Ends(Runner):
        def terminate(self, reason: object) -> None:
            assert isinstance(reason, BaseException)
            traced.append(reason.__traceback__ is not None)
            if ends_badly:
                raise OSError from None

    def step() -> None:
        raise LookupError

    traced: list[bool] = []
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Ends)
        process: Any = ref._actor_weakref()
        assert ref.actor_inbox.borrow()
        process.run_step(step)
        error = simulation.runtime.exit_reason(ref)
        assert type(error) is (OSError if ends_badly else LookupError)
        while error is not None:
            assert error.__traceback__ is None
            error = error.__context__
        assert traced == [True]


def test_a_process_has_the_mailbox_that_its_options_ask_for() -> None:
    with Simulation() as simulation:
        plain = simulation.runtime.spawn(Runner)
        bounded = simulation.runtime.spawn(Runner, mailbox=MailboxOptions(max_size=3, when_full="reject"))
        assert [type(ref.actor_inbox) for ref in (plain, bounded)] == [Mailbox, BoundedMailbox]


def test_a_fork_gives_its_actors_other_urns(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulation() as simulation:
        before = simulation.runtime.spawn(Runner).actor_urn
        monkeypatch.setattr(module, "_rest_of_urn", module._rest_of_urn)  # restored at the end
        module._renew_urn()
        after = simulation.runtime.spawn(Runner).actor_urn
    assert [uuid.UUID(urn).urn for urn in (before, after)] == [before, after]
    assert after[17:] != before[17:], "what follows the number of the actor"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_urns_are_other_ones_in_the_child_of_a_fork() -> None:
    script = """
import os, sys
from penstock.actors.runtime import process
before = process._rest_of_urn
if (pid := os.fork()) == 0:
    os._exit(7 if process._rest_of_urn != before else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7


def test_a_process_is_called_by_its_name_or_by_its_class() -> None:
    with Simulation() as simulation:
        named, nameless = simulation.runtime.spawn(Runner, name="it"), simulation.runtime.spawn(Runner)
        assert str(named._actor_weakref()) == "it"
        assert str(nameless._actor_weakref()) == f"Runner-{nameless.actor_urn[9:17]}"


class Trapper(Runner):
    trap_exit = True

    def __init__(self, heard: list[Any]) -> None:
        super().__init__()
        self._heard = heard

    def on_receive(self, message: Any) -> Any:
        self._heard.append(message)
        return super().on_receive(message)

    def terminate(self, reason: object) -> None:
        self._heard.append(("terminate", reason))


@pytest.mark.parametrize("is_suspended", [False, True])
def test_a_process_that_traps_exits_ends_with_its_parent_and_hears_of_others_when_it_can(is_suspended: bool) -> None:
    with Simulation() as simulation:
        heard: list[Any] = []
        runtime = simulation.runtime
        parent, other = runtime.spawn(Runner), runtime.spawn(Runner)
        child = runtime.spawn(Trapper, heard, link=parent)
        if is_suspended:
            inspect.suspend(child)
        runtime.exit(child, "reason", sender=other)
        simulation.settle()
        assert heard == ([] if is_suspended else [ExitNotice(other, "reason")])
        runtime.exit(parent, "kill")
        simulation.settle()
        assert heard[-1] == ("terminate", "killed")
        assert len(heard) == 2 - is_suspended
        assert runtime.exit_reason(child) == "killed"


def test_an_envelope_without_a_caller_is_a_message_like_any_other() -> None:
    with Simulation() as simulation:
        heard: list[Any] = []
        ref = simulation.runtime.spawn(Trapper, heard)
        ref.actor_inbox.put(Envelope("message"))
        simulation.settle()
        assert heard == ["message"]
        assert ref.is_alive()


def test_a_process_without_a_parent_hears_of_an_exit_signal_without_a_sender_when_it_can_and_lives() -> None:
    with Simulation() as simulation:
        heard: list[Any] = []
        ref = simulation.runtime.spawn(Trapper, heard)
        inspect.suspend(ref)
        simulation.runtime.exit(ref, "reason")
        simulation.settle()
        assert heard == []
        inspect.resume(ref)
        simulation.settle()
        assert heard == [ExitNotice(None, "reason")]
        assert ref.is_alive()


@pytest.mark.parametrize("error", [LookupError("of another process"), "kill"])
def test_a_signal_that_came_before_a_crash_ends_the_process_without_terminate_and_says_why(error: Any) -> None:
    with Simulation() as simulation:
        ended: list[object] = []

        class Ends(Runner):
            def terminate(self, reason: object) -> None:
                ended.append(reason)

        ref = simulation.runtime.spawn(Ends)

        def crash(_process: Any) -> None:
            simulation.runtime.exit(ref, error)
            raise ZeroDivisionError

        call = ref.ask(crash, block=False)
        simulation.settle()
        assert simulation.runtime.exit_reason(ref) == ("killed" if error == "kill" else error)
        assert ended == []
        with pytest.raises(ProcessDead):  # the caller has not caused that error
            call.get(timeout=0)


def test_a_system_message_that_fails_is_its_callers_error_and_crashes_nothing() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        with pytest.raises(TypeError, match="not a state machine"):
            inspect.replace_state(ref, lambda state, data: (state, data))
        simulation.settle()
        assert ref.ask("alive") == "alive"


@pytest.mark.parametrize(
    ("circumstances", "reason", "has_traceback"),
    [("as they are", LookupError("x"), True), ("filtered", LookupError("x"), False), ("as they are", "crash", False)],
)
def test_the_log_of_a_crash_has_a_traceback_unless_the_reason_is_filtered_out(
    caplog: pytest.LogCaptureFixture, circumstances: str, reason: object, has_traceback: bool
) -> None:
    class Shy(Runner):
        def _circumstances(self, reason: str) -> dict[str, Any]:
            return {"reason": "hidden"} if circumstances == "filtered" else super()._circumstances(reason)

    def end(process: Any) -> None:
        if isinstance(reason, Exception):
            raise reason
        process.exit(reason)

    with Simulation() as simulation, caplog.at_level("ERROR", "penstock"):
        simulation.runtime.spawn(Shy).tell(end)
        simulation.settle()
    (record,) = caplog.records
    assert ("in end" in f"{record.getMessage()} {record.exc_text}") is has_traceback


def test_a_call_is_remembered_until_it_is_answered_so_that_a_death_answers_it() -> None:
    def refuse(_process: Any) -> None:
        raise Refusal(LookupError("no"))

    def fail(_process: Any) -> None:
        raise LookupError

    with Simulation() as simulation:
        process: Any = simulation.runtime.spawn(Runner)._actor_weakref()
        for message in ("value", refuse, inspect._Do(fail)):
            process._answer(Envelope(message, reply_to=Reply()))
            assert process._answering is None
        handled: list[Any] = []
        simulation.runtime.exit(process.ref, "kill")
        late: Envelope[Any] = Envelope(handled.append, reply_to=Reply())
        process._answer(late)  # taken out of the mailbox before the death
        assert (handled, process._answering) == ([], late)


def test_a_caller_whose_call_ends_the_process_without_a_reason_hears_that_it_is_dead() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Runner)
        call = ref.ask(lambda process: process.exit(None), block=False)
        simulation.settle()
        with pytest.raises(ProcessDead):
            call.get(timeout=0)


def test_what_pykka_would_call_to_start_an_actor_is_refused() -> None:
    with Simulation() as simulation:
        process: Any = simulation.runtime.spawn(Runner)._actor_weakref()
        for refused in (process._create_actor_inbox, process._start_actor_loop):
            with pytest.raises(NotImplementedError):
                refused()


def test_a_message_that_nothing_handles_counts_as_unexpected() -> None:
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Process)
        assert ref.ask("what") is None
        assert simulation.runtime.dead_letters.unexpected_count == 1


def test_a_plain_pykka_actor_gets_a_future_that_a_process_can_answer() -> None:
    assert isinstance(Process._create_future(), Reply)


def test_an_attribute_of_an_attribute_is_set_through_a_proxys_message() -> None:
    class Box(Runner):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SimpleNamespace(value=1)

    with Simulation() as simulation:
        ref = simulation.runtime.spawn(Box)
        ref.ask(ProxySetAttr(attr_path=("inner", "value"), value=2))
        assert ref.ask(ProxyGetAttr(attr_path=("inner", "value"))) == 2


def test_an_answered_call_that_ends_its_process_is_not_given_a_second_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def noted(process: str, reason: object) -> ProcessDead:
        made.append(reason)
        return ProcessDead(process, reason)

    monkeypatch.setattr(dead_process, "ProcessDead", noted)
    with Simulation() as simulation:
        ref = simulation.runtime.spawn(AnswersAndStops)
        assert ref.ask("end") == "done"
        assert not ref.is_alive()
    assert made == []


class AnswersAndStops(StateMachine):
    def init(self) -> str:
        return "only"

    def only(self, event: Any) -> Stop:
        return Stop("normal", answer(event.reply_to, "done"))


def test_links_stay_in_the_order_in_which_they_were_made_whichever_is_removed() -> None:
    with Simulation() as simulation:
        runtime = simulation.runtime
        one, *others = (runtime.spawn(Runner) for _ in range(5))
        first, second, third, fourth = others
        for other in (first, second, first, third):
            runtime.link(one, other)
        assert runtime.links_of(one) == (first, second, third)
        runtime.unlink(one, first)
        runtime.link(one, fourth)
        runtime.link(one, first)
        assert runtime.links_of(one) == (second, third, fourth, first)
        runtime.unlink(one, third)
        assert runtime.links_of(one) == (second, fourth, first)
        assert (runtime.links_of(third), runtime.links_of(first)) == ((), (one,))
