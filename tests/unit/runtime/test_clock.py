"""Timers: against a simple model, and on a real thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.runtime.clock import SystemClock, Timer, Timers, TimerThread

GENEROUS = 20.0


class Alarm(Timer):
    def __init__(self, name: Any, fired: list[Any], then: threading.Event | None = None) -> None:
        super().__init__()
        self.name = name
        self.fired = fired
        self.then = then

    def fire(self, generation: int) -> None:
        self.fired.append((self.name, generation))
        if self.then is not None:
            self.then.set()


def test_a_timer_fires_once_per_set_with_its_generation() -> None:
    timers, fired = Timers(), list[Any]()
    alarm = Alarm("a", fired)
    timers.set(alarm, 5)
    assert (alarm.is_set, timers.next_due(), len(timers)) == (True, 5, 1)
    timers.fire_due(4.9)
    assert fired == []
    timers.fire_due(5)
    timers.fire_due(100)
    assert (fired, alarm.is_set, len(timers)) == ([("a", alarm.generation)], False, 0)
    timers.set(alarm, 101)
    timers.fire_due(101)
    assert len(fired) == 2


def test_a_timer_that_is_set_again_fires_only_at_the_new_time_whether_later_or_earlier() -> None:
    timers, fired = Timers(), list[Any]()
    later, earlier = Alarm("later", fired), Alarm("earlier", fired)
    timers.set(later, 5)
    timers.set(later, 8)
    timers.set(earlier, 9)
    timers.set(earlier, 6)
    timers.fire_due(7)
    assert [name for name, _ in fired] == ["earlier"]
    timers.fire_due(20)
    assert [name for name, _ in fired] == ["earlier", "later"]


def test_a_cancelled_timer_does_not_fire_and_may_be_cancelled_again() -> None:
    timers, fired = Timers(), list[Any]()
    alarm = Alarm("a", fired)
    timers.cancel(alarm)
    timers.set(alarm, 5)
    before = alarm.generation
    timers.cancel(alarm)
    timers.cancel(alarm)
    assert alarm.generation > before  # so a `Fired` that is already in a mailbox is recognised as obsolete
    timers.fire_due(10)
    assert (fired, len(timers), timers.next_due()) == ([], 0, float("inf"))


def test_due_timers_fire_in_the_order_of_their_times() -> None:
    timers, fired = Timers(), list[Any]()
    for when in (3, 1, 2, 5, 4):
        timers.set(Alarm(when, fired), when)
    timers.fire_due(4)
    assert [name for name, _ in fired] == [1, 2, 3, 4]


def test_setting_a_timer_later_and_later_does_not_touch_the_heap() -> None:
    timers = Timers()
    alarm = Alarm("a", [])
    for when in range(10_000):
        timers.set(alarm, when)
        timers.cancel(alarm)
        timers.set(alarm, when + 1)
    assert len(timers._heap) == 1


def test_a_hundred_thousand_cancelled_timers_are_released() -> None:
    timers = Timers()
    kept = [Alarm(number, []) for number in range(100)]
    for alarm in kept:
        timers.set(alarm, 1000.0)
    for number in range(100_000):
        alarm = Alarm(number, [])
        timers.set(alarm, 500.0 + number)
        timers.cancel(alarm)
    assert len(timers) == 100
    assert len(timers._heap) < 1000


def test_setting_a_timer_earlier_and_later_by_turns_does_not_pile_up_entries() -> None:
    timers, fired = Timers(), list[Any]()
    alarm = Alarm("a", fired)
    for now in range(20_000):
        timers.set(alarm, now + 1e6)
        timers.set(alarm, now + 0.5)
        timers.set(alarm, now + 1e6)
        timers.fire_due(now + 0.6)  # moves the entry to the later moment
    assert fired == []
    assert len(timers._heap) < 1000


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 4), st.integers(0, 60)),
        st.tuples(st.just("cancel"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(0, 20)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_timers_behave_like_a_dictionary_of_times(steps: list[tuple[str, int, int]]) -> None:
    timers, fired, now = Timers(), list[Any](), 0
    alarms = [Alarm(number, fired) for number in range(5)]
    model: dict[int, int] = {}
    for what, which, amount in steps:
        if what == "set":
            timers.set(alarms[which], now + amount)
            model[which] = now + amount
        elif what == "cancel":
            timers.cancel(alarms[which])
            model.pop(which, None)
        elif what == "compact":
            timers._compact()
        else:
            now += amount
            due = sorted(which for which, when in model.items() if when <= now)
            moments = {which: model.pop(which) for which in due}
            fired.clear()
            timers.fire_due(now)
            assert sorted(name for name, _ in fired) == due
            assert [moments[name] for name, _ in fired] == sorted(moments.values())
            assert all(generation == alarms[name].generation for name, generation in fired)
        assert len(timers) == len(model)
        assert [alarm.is_set for alarm in alarms] == [number in model for number in range(5)]
        assert timers.next_due() == min(model.values(), default=float("inf"))


def test_the_thread_fires_and_an_earlier_timer_wakes_it() -> None:
    timers, clock = TimerThread(), SystemClock()
    fired, later, sooner = list[Any](), threading.Event(), threading.Event()
    timers.set(Alarm("much later", fired, later), clock.monotonic() + 3600)
    timers.set(Alarm("sooner", fired, sooner), clock.monotonic() + 0.01)
    assert sooner.wait(GENEROUS)
    assert not later.is_set()
    assert timers.close(GENEROUS)


def test_a_timer_that_raises_does_not_stop_the_others() -> None:
    class Broken(Timer):
        def fire(self, generation: int) -> None:
            raise LookupError

    timers, over = TimerThread(), threading.Event()
    now = SystemClock().monotonic()
    timers.set(Broken(), now)
    timers.set(Alarm("after", [], over), now + 0.001)
    assert over.wait(GENEROUS)
    assert timers.close(GENEROUS)


def test_a_timer_thread_closed_from_its_own_thread_does_not_wait_for_itself() -> None:
    class Closing(Timer):
        def fire(self, generation: int) -> None:
            timers.close(GENEROUS)
            over.set()

    timers, over = TimerThread(), threading.Event()
    timers.set(Closing(), 0)
    assert over.wait(GENEROUS)
    assert timers.close(GENEROUS)


@pytest.mark.usefixtures("restless")
def test_timers_set_and_cancelled_from_many_threads_fire_if_they_are_set_in_the_end() -> None:
    timers, clock = TimerThread(), SystemClock()
    left: list[threading.Event] = [threading.Event() for _ in range(40)]

    def play(number: int) -> None:
        alarm = Alarm(number, [], left[number])
        for turn in range(50):
            timers.set(alarm, clock.monotonic() + 3600 - turn)
            timers.cancel(alarm)
        timers.set(alarm, clock.monotonic() + 0.001)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert all(event.wait(GENEROUS) for event in left)
    assert timers.close(GENEROUS)
