"""Processes of the user's own under the system's tree, and supervised subscribers that are restarted."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pykka
import pytest

import penstock
from penstock import otp
from penstock.events import Event
from penstock.testing import SimulatedSystem, eventually, kill
from tests.conformance.common import FAST

STEADY = penstock.StreamOptions(batch_size=1, rate_limit=None)


class Reader(otp.Process):
    """Keeps what it gets, in a list that outlives it; crashes at the given numbers, once each."""

    in_pykka_registry = False

    def __init__(self, got: list[int], crash_at: list[int]) -> None:
        super().__init__()
        self._got = got
        self._crash_at = crash_at

    def on_receive(self, message: Any) -> None:
        self._got.append(message.seq)
        if message.seq in self._crash_at:
            self._crash_at.remove(message.seq)
            raise RuntimeError("this one")


def reader(got: list[int], *crash_at: int, id: str = "reader", **more: Any) -> otp.ChildSpec:
    return otp.ChildSpec(id=id, cls=Reader, args=(got, list(crash_at)), **more)


def test_a_child_of_ones_own_is_drawn_restarted_and_ended() -> None:
    with SimulatedSystem() as system:
        first = system.start_child(reader([]))
        assert first is not None
        assert "user  (UserSupervisor" in str(system.tree())
        assert "Reader" in str(system.tree())
        kill(system, first)
        system.advance(1)
        (child,) = next(one for one in system.tree().children if one.name == "user").children
        assert (child.kind, child.restarts, child.state) == ("Reader", 1, "running")
        system.terminate_child("reader")
        assert not next(one for one in system.tree().children if one.name == "user").children
        with pytest.raises(penstock.SupervisorError, match="not_found"):
            system.terminate_child("reader")
        third = system.start_child(reader([]))
        assert third is not None
    assert not third.is_alive()


def test_a_supervisor_of_ones_own_is_drawn_with_its_children() -> None:
    with SimulatedSystem() as system:
        specs = [reader([], id="a"), reader([], id="b")]
        system.start_child(otp.ChildSpec(id="mine", cls=otp.Supervisor, args=(specs, otp.SupervisorFlags())))
        user = next(one for one in system.tree().children if one.name == "user")
        assert [(one.kind, len(one.children)) for one in user.children] == [("Supervisor", 2)]


def test_a_plain_pykka_actor_of_ones_own_is_started_and_ended() -> None:
    stopped: list[int] = []

    class Plain(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message * 2

        def on_stop(self) -> None:
            stopped.append(1)

    with penstock.System() as system:
        ref = system.start_child(otp.ChildSpec(id="plain", cls=otp.PlainActor, args=(Plain,)))
        assert ref is not None
        assert ref.ask(21, timeout=5) == 42
    assert stopped == [1]


def test_what_does_not_start_is_told_and_leaves_nothing() -> None:
    class Broken(otp.Process):
        def on_start(self) -> None:
            raise ValueError("no")

    with SimulatedSystem() as system:
        with pytest.raises(ValueError, match="no"):
            system.start_child(otp.ChildSpec(id="x", cls=Broken))
        system.start_child(reader([], id="x"))
        with pytest.raises(penstock.SupervisorError, match="already_started"):
            system.start_child(reader([], id="x"))
    with pytest.raises(penstock.SystemStopped):
        system.start_child(reader([]))


def test_one_that_keeps_crashing_is_removed_and_disturbs_nothing_else() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        other = system.start_child(reader([], id="other"))
        assert other is not None
        system.start_child(reader([], id="bad"))
        for _ in range(4):
            user = next(one for one in system.tree().children if one.name == "user")
            assert len(user.children) == 2
            supervisor = system.runtime.whereis("user")
            assert supervisor is not None
            ref = otp.which_child(supervisor, "bad", 5).ref
            assert ref is not None
            kill(system, ref)
            system.advance(0.01)
        assert not stream.is_over
        assert other.is_alive()
        user = next(one for one in system.tree().children if one.name == "user")
        assert len(user.children) == 1


@pytest.mark.parametrize("victim", ["user", "handler", "streams", "registry"])
@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_ones_own_processes_are_there_again_whatever_supervisor_dies(seed: int, victim: str) -> None:
    with SimulatedSystem(seed) as system:
        system.start_child(reader([], id="kept"))
        system.start_child(reader([], id="gone", restart="temporary"))
        kill(system, victim)
        system.advance(1)
        user = next(one for one in system.tree().children if one.name == "user")
        assert [child.kind for child in user.children] == ["Reader"]
        supervisor = system.runtime.whereis("user")
        assert supervisor is not None
        assert otp.which_child(supervisor, "kept", 5).state == "running"
        system.start_child(reader([], id="new"))


# --- subscribers that are restarted ----------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
def test_a_supervised_subscriber_that_crashes_goes_on_after_the_event_it_crashed_of(seed: int) -> None:
    got: list[int] = []
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader(got, 3, 7))
        assert ref is not None
        stream.subscribe(ref, window=4)
        stream.process_tokens("abcdefghij")
        system.advance(5)
        assert not stream.is_over  # its restart was not the last reader's leaving
        stream.stop()
        system.advance(5)
    assert got == list(range(1, 12))


@pytest.mark.sample(5)
@pytest.mark.seeds(40)
def test_a_supervised_subscriber_that_is_killed_at_any_moment_misses_nothing_and_gets_nothing_twice(seed: int) -> None:
    got: list[int] = []
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader(got, name="reader"))
        assert ref is not None
        stream.subscribe(ref, window=1 + seed % 5)
        for round_ in range(3):
            stream.process_tokens("abcd")
            for _ in range(seed % 7 + round_):
                system.simulation.dispatcher.step()
            now = system.runtime.whereis("reader")
            if now is not None:
                kill(system, now)
            system.advance(2)
        stream.stop()
        system.advance(5)
        assert not [one for one in stream._record.hub.subscriptions if one.is_active]
    assert got == list(range(1, 14))


def test_the_end_reaches_a_subscriber_that_crashes_just_before_it() -> None:
    got: list[int] = []
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        ref = system.start_child(reader(got, 1))
        assert ref is not None
        stream.subscribe(ref)
        stream.process_token("a")
        stream.stop()
        system.advance(5)
    assert got == [1, 2]


def test_a_subscriber_whose_supervisor_does_not_restart_it_has_left() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader([], restart="temporary"))
        assert ref is not None
        stream.subscribe(ref)
        kill(system, ref)
        system.advance(10)
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)


def test_a_subscriber_that_is_ended_on_purpose_has_left() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader([]))
        assert ref is not None
        stream.subscribe(ref)
        system.terminate_child("reader")
        system.advance(10)
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)


@pytest.mark.parametrize(("name", "seconds"), [("reader", 5.0), (None, 0.0)])
def test_a_subscriber_whose_supervisor_is_dead_is_waited_for_if_it_has_a_name(name: str | None, seconds: float) -> None:
    got: list[int] = []
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        supervisor = system.runtime.spawn(otp.Supervisor, [reader(got, name=name)])
        (child,) = otp.which_children(supervisor, 5)
        assert child.ref is not None
        stream.subscribe(child.ref)
        kill(system, supervisor)
        if seconds:
            system.advance(seconds - 0.1)
            assert system.get_stream_info("s").subscriber_count == 1
        system.advance(0.6)  # two looks are half a second apart at most
        assert system.get_stream_info("s").subscriber_count == 0


def test_a_subscriber_that_is_being_restarted_is_waited_for_however_long_that_takes() -> None:
    got: list[int] = []
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader(got, 2, backoff=otp.Backoff(min=60.0, max=60.0, jitter=0)))
        assert ref is not None
        stream.subscribe(ref)
        stream.process_tokens("abc")
        system.advance(59.9)
        assert (got, stream.is_over, system.get_stream_info("s").subscriber_count) == ([1, 2], False, 1)
        system.advance(0.7)
        assert got == [1, 2, 3]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_subscriber_under_a_supervisor_of_ones_own_goes_on_too(seed: int, strategy: Any) -> None:
    first: list[int] = []
    second: list[int] = []
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        specs = [reader(first, 2, id="a"), reader(second, id="b")]
        flags = otp.SupervisorFlags(strategy=strategy, intensity=5)
        top = system.start_child(otp.ChildSpec(id="mine", cls=otp.Supervisor, args=(specs, flags)))
        assert top is not None
        for child in otp.which_children(top, 5):
            assert child.ref is not None
            stream.subscribe(child.ref)
        stream.process_tokens("abcde")
        system.advance(5)
        stream.stop()
        system.advance(5)
    assert (first, second) == ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])


def test_a_restarted_subscriber_is_found_and_unsubscribed_by_either_ref() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        old = system.start_child(reader([], name="reader"))
        assert old is not None
        subscription = stream.subscribe(old)
        kill(system, old)
        system.advance(1)
        new = system.runtime.whereis("reader")
        assert new is not None
        assert stream.subscribe(new) is subscription
        stream.unsubscribe(old)
        assert not subscription.is_active


@pytest.mark.parametrize("victim", ["handler", "user"])
@pytest.mark.sample(3)
@pytest.mark.seeds(15)
def test_a_subscriber_that_is_restarted_with_the_handler_or_its_supervisor_goes_on(seed: int, victim: str) -> None:
    got: list[int] = []
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        ref = system.start_child(reader(got, name="reader"))
        assert ref is not None
        stream.subscribe(ref)
        stream.process_tokens("ab")
        system.advance(1)
        kill(system, victim)
        stream.process_tokens("cd")
        system.advance(5)
        stream.stop()
        system.advance(5)
    assert got == [1, 2, 3, 4, 5]


def test_a_supervised_subscriber_goes_on_in_real_time() -> None:
    got: list[int] = []
    with penstock.System() as system:
        stream = system.open_stream("s", FAST.replace(batch_size=1, rate_limit=None))
        ref = system.start_child(reader(got, 10, 60, 61))
        assert ref is not None
        stream.subscribe(ref)
        for _ in range(100):
            stream.process_token("x")
        eventually(lambda: got and got[-1] == stream._record.log.last_seq)
        stream.stop()
        eventually(lambda: got[-1] == stream._record.log.last_seq)
        events: list[Event] = list(stream._record.log)
        assert got == [event.seq for event in events]


def test_a_subscription_made_just_before_the_actor_dies_does_not_displace_its_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[int] = []
    with SimulatedSystem() as system:
        first, second = system.open_stream("a", STEADY), system.open_stream("b", STEADY)
        ref = system.start_child(reader(got, 2, backoff=otp.Backoff(min=1.0, max=2.0, jitter=0)))
        assert ref is not None
        actor = ref._actor_weakref()  # a thread that is subscribing it keeps it
        first.subscribe(ref, slow="block", window=1)
        first.process_tokens(["1", "2", "3"])
        system.advance(0.01)
        assert not ref.is_alive()
        with monkeypatch.context() as patch:
            patch.setattr(type(ref), "is_alive", lambda self: True)  # it died just afterwards
            second.subscribe(ref)
        system.advance(10)
        assert actor is not None
        assert got == [1, 2, 3]
        second.process_token("1")
        system.advance(1)
        assert got == [1, 2, 3, 1]


def test_an_actor_that_many_threads_subscribe_at_once_gives_back_events_to_all() -> None:
    interval = sys.getswitchinterval()
    with penstock.System() as system:
        streams = [system.open_stream(options=STEADY) for _ in range(200)]
        ref = system.start_child(reader([]))
        assert ref is not None
        parts = [streams[start::4] for start in range(4)]

        def subscribe(part: list[penstock.Stream]) -> None:
            for stream in part:
                for _ in range(3):
                    stream.subscribe(ref).unsubscribe()
                stream.subscribe(ref)

        threads = [threading.Thread(target=subscribe, args=(part,)) for part in parts]
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        finally:
            sys.setswitchinterval(interval)
        assert len(ref.on_returned) == 200
