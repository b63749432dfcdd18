"""Dead letters: messages that no process handled."""

from __future__ import annotations

import threading
from typing import Any

from penstock.actors.runtime.dead_letters import DeadLetter, DeadLetters
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Next, state_timeout, timeout
from penstock.testing import Simulation


class Silent(Process):
    def on_receive(self, message: Any) -> Any:
        return None


def test_they_are_counted_by_type_and_the_last_hundred_are_kept_without_their_content() -> None:
    letters = DeadLetters()
    for number in range(150):
        letters.record("nobody", number)
    letters.record("nobody", "secret")
    assert (letters.count, letters.by_type) == (151, {"int": 150, "str": 1})
    assert len(letters.recent) == 100
    assert letters.recent[-1] == DeadLetter("nobody", "str")
    assert "secret" not in repr(letters.recent)


def test_listeners_get_each_one_until_they_are_removed() -> None:
    letters, heard = DeadLetters(), list[DeadLetter]()
    stop = letters.listen(heard.append)
    letters.record("one", 1)
    stop()
    stop()
    letters.record("two", 2)
    assert heard == [DeadLetter("one", "int")]


def test_a_listener_that_raises_affects_neither_other_listeners_nor_the_sender() -> None:
    letters, heard = DeadLetters(), list[DeadLetter]()

    def fail(_letter: DeadLetter) -> None:
        raise LookupError

    letters.listen(fail)
    letters.listen(heard.append)
    letters.record("one", 1)
    assert len(heard) == 1


def test_a_listener_that_raises_does_not_keep_a_process_from_ending() -> None:
    def fail(_letter: DeadLetter) -> None:
        raise LookupError

    with Simulation() as simulation:
        simulation.runtime.dead_letters.listen(fail)
        ref = simulation.spawn(Silent)
        ref.tell("waiting")
        call = ref.ask("call", block=False)
        simulation.runtime.exit(ref, "kill")
        assert call.is_done
        ref.tell("late")
        assert simulation.runtime.dead_letters.count == 2


def test_messages_to_the_dead_are_dead_letters_but_calls_signals_and_timers_are_not() -> None:
    class Timed(StateMachine):
        def init(self) -> Next:
            return Next("only", timeout("t", 1), state_timeout(2))

        def only(self, event: Any) -> None:
            pass

    with Simulation() as simulation:
        letters = simulation.runtime.dead_letters
        target, watcher = simulation.spawn(Silent), simulation.spawn(Timed)
        simulation.runtime.monitor(watcher, target)
        simulation.runtime.link(watcher, target)
        simulation.clock.move_to(simulation.clock.monotonic() + 5)
        simulation.timers.fire_due(simulation.clock.monotonic())  # two alarms are in its mailbox
        watcher.ask("call", block=False)
        simulation.runtime.exit(watcher, "kill")
        simulation.runtime.exit(target, "kill")
        simulation.settle()
        assert letters.count == 0
        watcher.tell("told")
        assert list(letters.by_type) == ["str"]


def test_a_message_that_a_living_process_does_not_know_is_counted_separately() -> None:
    class Plain(Process):
        pass

    with Simulation() as simulation:
        ref = simulation.spawn(Plain)
        assert ref.ask("what?", timeout=1) is None
        letters = simulation.runtime.dead_letters
        assert (letters.count, letters.unexpected_count, letters.by_type) == (0, 1, {"str": 1})


def test_counts_from_many_threads_add_up() -> None:
    letters = DeadLetters()

    def record() -> None:
        for number in range(500):
            letters.record("nobody", number)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert letters.count == letters.by_type["int"] == 2000
