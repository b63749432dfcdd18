"""Hub and subscriptions, one interleaving at a time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pykka
import pytest

from penstock.actors.runtime import inspect
from penstock.actors.runtime.process import Process
from penstock.actors.stream import hub as hub_module
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Hub, HubOwner, Subscription
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.subscribers.callback import CallbackSubscription
from penstock.actors.stream.subscribers.pull import NOTHING, Events, Findings, PullSubscription
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.options import Slow
from penstock.errors import CallTimeout, SubscriberTooSlow, SystemForked
from penstock.events import Disconnected, StreamCompleted, TokenEvent
from penstock.testing import Simulation
from tests.unit.flow.common import KEEP_ALL, Reader, Writer

OUTCOME = Outcome()


@pytest.fixture(autouse=True, params=["few", "many"])
def _as_with_few_or_many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the tuple of few subscribers, and with what many are kept in."""
    if request.param == "many":
        monkeypatch.setattr(hub_module, "LARGEST_TUPLE", 0)


class Sink(Process):
    in_pykka_registry = False

    def __init__(self, events: list[Any], fail_at: int = 0) -> None:
        super().__init__()
        self._events = events
        self._fail_at = fail_at

    def on_receive(self, message: Any) -> None:
        if self._fail_at and message.seq >= self._fail_at:
            raise ValueError("broken")
        self._events.append(message)


class Place(HubOwner):
    """A log and a hub, without a stream."""

    def __init__(self, seed: int = 0, retain: int = KEEP_ALL) -> None:
        self.simulation = Simulation(seed)
        self.runtime = self.simulation.runtime
        self.writer = Writer(retain)
        self.log = self.writer.log
        self.hub = Hub()
        self.releases = 0
        self.empties = 0
        self.abandoned_ones: list[Subscription] | None = None  # None: they are removed at once
        self.hub.owner = self

    def released(self) -> None:
        self.releases += 1

    def emptied(self) -> None:
        self.empties += 1

    def abandoned(self, subscription: Subscription) -> bool:
        if self.abandoned_ones is not None:
            self.abandoned_ones.append(subscription)
        return self.abandoned_ones is not None

    def add(self, count: int = 1) -> bool:
        held = False
        for _ in range(count):
            assert self.writer.add("x")
            held = self.hub.announce()
        return held

    def complete(self) -> None:
        self.writer.complete()
        self.hub.announce()
        self.settle()

    def push(self, slow: Slow = "block", window: int = 4, fail_at: int = 0) -> tuple[PushSubscription, list[Any]]:
        events: list[Any] = []
        sink = self.runtime.spawn(Sink, events, fail_at)
        subscription = PushSubscription(self.hub, Cursor(self.log, 0, slow, window), sink, sink)
        self.hub.add(subscription)
        subscription.wake()
        return subscription, events

    def call(self, callback: Callable[[Any], object], slow: Slow = "block", window: int = 4) -> PushSubscription:
        subscription = CallbackSubscription(self.hub, Cursor(self.log, 0, slow, window), callback, self.runtime)
        self.hub.add(subscription)
        subscription.wake()
        return subscription

    def pull(self, slow: Slow = "coalesce", window: int = 4, after: int = 0) -> Events:
        seat = PullSubscription(self.hub, Cursor(self.log, after, slow, window), self.runtime.dispatcher)
        self.hub.add(seat)
        return Events(seat)

    def settle(self) -> None:
        self.simulation.settle()


@pytest.fixture(params=[0, 1, 2])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(request.param)
    yield place
    place.simulation.close()


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_a_hub_that_nobody_came_to_is_not_orphaned(place: Place) -> None:
    assert not place.hub.is_orphaned
    reader = place.pull()
    assert not place.hub.is_orphaned
    reader.close()
    assert place.hub.is_orphaned
    assert place.empties == 1


def test_it_is_told_once_when_the_last_one_leaves(place: Place) -> None:
    first, second = place.pull(), place.pull()
    first.close()
    first.close()
    assert place.empties == 0
    second.close()
    assert place.empties == 1


def test_a_target_has_one_subscription(place: Place) -> None:
    subscription, _ = place.push()
    other = PushSubscription(place.hub, Cursor(place.log, 0, "block", 1), subscription.target, subscription.ref)
    assert place.hub.add(other) is subscription
    assert place.hub.find(subscription.target) is subscription
    assert place.hub.subscribers == 1


def test_it_holds_as_long_as_one_block_subscriber_is_slow(place: Place) -> None:
    one, other = place.pull("block", window=2), place.pull("block", window=2)
    assert not place.add(2)
    assert place.add()
    assert place.hub.held
    one.next(0)
    assert place.hub.held
    other.next(0)
    assert (place.hub.held, place.releases) == (False, 1)


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_who_leaves_lets_go(place: Place, leave: str) -> None:
    readers = [place.pull("block", window=1)]
    assert place.add(2)
    if leave == "close":
        readers[0].close()
    readers.clear()
    assert (place.hub.held, place.releases, place.hub.subscriptions) == (False, 1, ())


def test_a_dropped_iterator_lets_go_even_if_nobody_hears_of_it(place: Place) -> None:
    place.abandoned_ones = []  # the handler is just being restarted
    readers = [place.pull("block", window=1)]
    place.add(2)
    readers.clear()
    assert (place.hub.held, place.releases) == (False, 1)
    assert (place.hub.is_orphaned, place.hub.subscribers) == (True, 0)
    assert not place.add(5)


def test_one_that_leaves_in_the_moment_of_the_announcement_does_not_leave_it_held(place: Place) -> None:
    reader = place.pull("block", window=1)

    class Leaver(PullSubscription):
        __slots__ = ()

        def wake(self) -> None:
            reader.close()

    place.add(2)
    place.hub.add(Leaver(place.hub, Cursor(place.log, 0, "coalesce", 1), place.runtime.dispatcher))
    assert not place.add()
    assert not place.hub.held


def test_one_that_catches_up_in_the_moment_of_the_announcement_does_not_leave_it_held(place: Place) -> None:
    reader = place.pull("block", window=1)

    class Watcher(PullSubscription):
        __slots__ = ()

        def wake(self) -> None:
            if place.log.last_seq > 1:
                list(_ready(reader))

    place.add(1)
    place.hub.add(Watcher(place.hub, Cursor(place.log, 0, "coalesce", 1), place.runtime.dispatcher))
    assert not place.add()
    assert not place.hub.held


# --- push ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 64])
def test_an_actor_is_told_everything_in_order_and_never_more_than_a_window_ahead(place: Place, window: int) -> None:
    subscription, events = place.push(window=window)
    most = 0
    for number in range(200):
        place.add()
        most = max(most, subscription._count - len(events))
        if number % 3 == 0:
            place.simulation.dispatcher.step()
    place.settle()
    assert [event.seq for event in events] == list(range(1, 201))
    assert most <= window
    assert not place.hub.held


def test_an_actor_that_does_not_read_holds_the_stream_and_lets_it_go(place: Place) -> None:
    subscription, events = place.push(window=2)
    inspect.suspend(subscription.ref)  # type: ignore[arg-type]
    assert not place.add(4)
    assert place.add()
    assert subscription.pending == 5
    inspect.resume(subscription.ref)  # type: ignore[arg-type]
    place.settle()
    assert (place.hub.held, place.releases, len(events)) == (False, 1, 5)


def test_news_that_come_while_another_thread_is_about_to_finish_are_not_overlooked(place: Place) -> None:
    subscription, events = place.push()

    class LateLock:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.late = [1, 2]

        def acquire(self, blocking: bool) -> bool:
            return self.lock.acquire(blocking)

        def release(self) -> None:
            if self.late:
                self.late.pop()
                place.writer.add("x")
                subscription.wake()  # leaves it to the one at work
            self.lock.release()

    subscription._pumping = LateLock()  # type: ignore[assignment]
    place.add()
    place.settle()
    assert [event.seq for event in events] == [1, 2, 3]


def test_history_is_told_to_who_comes_late(place: Place) -> None:
    place.add(10)
    _, events = place.push(window=3)
    place.complete()
    assert [event.seq for event in events] == list(range(1, 12))


def test_after_the_terminal_event_it_is_over_and_a_function_has_been_called_with_it(place: Place) -> None:
    events: list[Any] = []
    subscription = place.call(events.append, window=2)
    place.add(9)
    place.complete()
    assert isinstance(events[-1], StreamCompleted)
    assert [event.seq for event in events] == list(range(1, 11))
    assert (subscription.is_active, place.hub.subscriptions) == (False, ())
    assert not place.runtime.is_alive(subscription.ref)  # type: ignore[arg-type]


def test_a_never_reading_actor_is_disconnected_when_too_much_waits(place: Place) -> None:
    subscription, events = place.push("disconnect", window=2)
    inspect.suspend(subscription.ref)  # type: ignore[arg-type]
    place.add(4)
    assert subscription.is_active
    place.add()
    assert not subscription.is_active
    inspect.resume(subscription.ref)
    place.add(3)
    place.settle()
    assert [event.seq for event in events[:2]] == [1, 2]
    (last,) = events[2:]
    assert isinstance(last, Disconnected)
    assert (last.seq, type(last.error)) == (2, SubscriberTooSlow)


def test_a_function_that_is_disconnected_is_told_so(place: Place) -> None:
    events: list[Any] = []
    subscription = place.call(events.append, "disconnect", window=1)
    place.add(5)
    place.settle()
    assert isinstance(events[-1], Disconnected)
    assert not place.runtime.is_alive(subscription.ref)  # type: ignore[arg-type]


def test_a_never_reading_actor_that_drops_or_coalesces_disturbs_nobody(place: Place) -> None:
    told = {slow: place.push(slow, window=2) for slow in ("drop", "coalesce")}
    for subscription, _ in told.values():
        inspect.suspend(subscription.ref)  # type: ignore[arg-type]
    assert not place.add(50)
    for subscription, _ in told.values():
        inspect.resume(subscription.ref)  # type: ignore[arg-type]
    place.complete()
    dropping, merged = told["drop"][1], told["coalesce"][1]
    assert sum(len(event.tokens) for event in merged if isinstance(event, TokenEvent)) == 50
    given_ = sum(len(event.tokens) for event in dropping if isinstance(event, TokenEvent))
    assert given_ + sum(event.dropped for event in dropping) == 50
    assert told["drop"][0].dropped == 50 - given_ > 0


def test_an_actor_that_raises_dies_alone(place: Place) -> None:
    broken, got = place.push(fail_at=2, window=2)
    _, events = place.push()
    place.add(3)
    place.settle()
    place.add(3)
    place.settle()
    place.complete()
    assert [event.seq for event in got] == [1]
    assert [event.seq for event in events] == list(range(1, 8))
    assert not broken.is_active


def test_a_mailbox_that_takes_nothing_costs_its_owner_the_subscription_and_nobody_anything(place: Place) -> None:
    class Full(pykka.ActorRef[Any]):
        def __init__(self) -> None:
            self.actor_inbox = queue.Queue(1)

        def tell(self, message: Any) -> None:
            raise queue.Full

        def __str__(self) -> str:
            return "full"

    ref = Full()
    subscription = PushSubscription(place.hub, Cursor(place.log, 0, "block", 1), ref, ref)
    place.hub.add(subscription)
    _, events = place.push()
    place.add()
    place.settle()
    assert (subscription.is_active, len(events)) == (False, 1)


def test_a_function_that_is_unsubscribed_is_not_called_again(place: Place) -> None:
    events: list[Any] = []
    subscription = place.call(events.append)
    place.add(3)
    subscription.unsubscribe()
    subscription.unsubscribe()
    place.settle()
    assert events == []
    assert not place.runtime.is_alive(subscription.ref)  # type: ignore[arg-type]


def test_a_function_may_unsubscribe_itself(place: Place) -> None:
    events: list[Any] = []

    def callback(event: Any) -> None:
        events.append(event)
        subscription.unsubscribe()

    subscription = place.call(callback)
    place.add(5)
    place.settle()
    place.add(5)
    place.complete()
    assert [event.seq for event in events] == [1]
    assert place.hub.subscriptions == ()


def test_a_subscription_is_a_context_and_says_what_it_is(place: Place) -> None:
    with place.push("drop")[0] as subscription:
        place.add(2)
        assert repr(subscription) == "<PushSubscription of 's', active, seq=2>"
        assert (subscription.slow, subscription.seq) == ("drop", 2)
    assert repr(subscription) == "<PushSubscription of 's', over, seq=2>"


class Gone:
    """A foreign actor's mailbox that notes what it is asked and can die with it."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)


def test_a_foreign_actor_that_stops_midway_is_found_out_by_its_receipts(place: Place) -> None:
    class Foreign(pykka.ActorRef[Any]):
        def __init__(self) -> None:
            self.actor_inbox = Gone()  # type: ignore[assignment]

        def tell(self, message: Any) -> None:
            self.actor_inbox.put(message)

    ref = Foreign()
    subscription = PushSubscription(place.hub, Cursor(place.log, 0, "block", 4), ref, ref)
    place.hub.add(subscription)
    assert place.add(20)
    box: Any = ref.actor_inbox
    receipts = [item.reply_to for item in box.items if hasattr(item, "reply_to")]
    assert len(receipts) == 2
    receipts[0].set("urn")  # it has handled two
    receipts[1].set_exception((pykka.ActorDeadError, pykka.ActorDeadError("gone"), None))
    assert (subscription.is_active, place.hub.held, place.releases) == (False, False, 1)
    receipts[0].set("urn")  # late and twice: harmless
    receipts[1].set_exception()


# --- pull ------------------------------------------------------------------------------------------------------------


def _ready(events: Events) -> Iterator[Any]:
    while True:
        try:
            yield events.next(timeout=0)
        except (CallTimeout, StopIteration):
            return


def test_an_iterator_gives_every_event_and_ends_after_the_terminal_one(place: Place) -> None:
    reader = place.pull()
    place.add(3)
    place.complete()
    assert [event.seq for event in reader] == [1, 2, 3, 4]
    assert list(reader) == []
    with pytest.raises(StopIteration):
        reader.next()
    assert place.hub.subscriptions == ()


def test_waiting_for_the_next_event_has_a_time_out_and_may_be_tried_again(place: Place) -> None:
    reader = place.pull()
    before = place.simulation.clock.monotonic()
    with pytest.raises(CallTimeout, match="the next event"):
        reader.next(timeout=2)
    assert place.simulation.clock.monotonic() - before == 2
    place.add()
    assert reader.next(timeout=2).seq == 1
    assert reader.subscription.is_active


def test_iterators_and_findings_are_their_own_iterators_for_both_loops(place: Place) -> None:
    events = place.pull()
    findings = Findings(lambda: events._subscription, lambda event: event.seq)
    for one in (events, findings):
        assert iter(one) is one
        assert aiter(one) is one


def test_in_the_thread_of_a_task_it_looks_four_times_a_second_whether_that_is_cancelled(place: Place) -> None:
    events, now = place.pull(), place.simulation.clock.monotonic
    seat = events.subscription
    begun, looks = now(), list[float]()

    def look() -> None:
        looks.append(now() - begun)

    assert not seat._wait_for_task(0.875, look)
    assert looks == [0.25, 0.5, 0.75, 0.875]
    place.add()
    looks.clear()
    assert seat._wait_for_task(None, look)
    assert looks == [0.875]
    assert events.next().seq == 1
    looks.clear()
    assert not seat._wait_for_task(0.5, look)
    assert looks == [1.125, 1.375]

    def cancelled() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        seat._wait_for_task(1.0, cancelled)
    assert not seat.is_active


def test_an_iterator_that_begins_after_the_end_ends_at_once(place: Place) -> None:
    place.add()
    place.complete()
    events = place.pull(after=2)
    seat = events.subscription
    with pytest.raises(StopIteration):
        seat.take()
    assert (place.hub.subscriptions, seat.is_active) == ((), False)


def test_with_the_terminal_event_it_has_unsubscribed_though_it_is_not_asked_again(place: Place) -> None:
    place.complete()
    events = place.pull()
    assert isinstance(events.next(), StreamCompleted)
    assert place.hub.subscriptions == ()


def test_an_iterator_that_was_closed_and_then_dropped_is_not_reported_as_abandoned(place: Place) -> None:
    abandoned: list[Subscription] = []
    place.abandoned_ones = abandoned
    closed, dropped = place.pull(), place.pull()
    seat = dropped.subscription
    closed.close()
    del closed
    assert abandoned == []
    del dropped
    assert abandoned == [seat]


def test_an_iterator_that_has_ended_says_in_a_fork_that_it_is_one(place: Place) -> None:
    dispatcher: Any = SimpleNamespace(pid=-1)  # of another process
    seat = PullSubscription(place.hub, Cursor(place.log, 0, "block", 4), dispatcher)
    seat.unsubscribe()
    with pytest.raises(SystemForked):
        seat.take()


class Waits:
    """A dispatcher whose waits take a time of their own, and end with or without news."""

    def __init__(self, place: Place, pace: float, news_after: int | None = None, *, says: bool = True) -> None:
        self.place = place
        self.pace = pace
        self.news_after = news_after
        self.says = says
        self.now = 100.0
        self.waits: list[float | None] = []
        self.seat = PullSubscription(place.hub, Cursor(place.log, 0, "block", 4), self)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def wait(self, latch: Any, timeout: float | None) -> bool:
        self.waits.append(timeout)
        self.now += self.pace
        if len(self.waits) == self.news_after:
            self.place.writer.add("x")
        return self.says and timeout != 0.0


def test_wakings_without_news_do_not_make_a_wait_longer(place: Place) -> None:
    waits = Waits(place, pace=0.75)
    with pytest.raises(CallTimeout):
        waits.seat.next(2.0)
    assert waits.waits == [2.0, 1.25, 0.5, 0.0]


def test_wakings_without_news_do_not_end_a_wait_without_a_limit(place: Place) -> None:
    waits = Waits(place, pace=0.75, news_after=4)
    assert waits.seat.next().seq == 1
    assert waits.waits == [None] * 4


def test_news_that_come_at_the_moment_of_the_time_out_are_given(place: Place) -> None:
    waits = Waits(place, pace=2.0, news_after=1, says=False)
    assert waits.seat.next(2.0).seq == 1


def test_a_wait_leaves_no_callback_behind(place: Place) -> None:
    waits = Waits(place, pace=1.0, says=False)
    with pytest.raises(CallTimeout):
        waits.seat.next(1.0)
    assert waits.seat._waiting == []


class _Interrupted(BaseException):
    """As anyio raises it in the thread of a cancelled task."""


@pytest.mark.parametrize("cancelled", [None, RuntimeError(), _Interrupted()])
def test_in_a_thread_of_anyio_it_asks_whether_the_task_is_cancelled(
    place: Place, monkeypatch: pytest.MonkeyPatch, cancelled: BaseException | None
) -> None:
    def check() -> None:
        if cancelled is not None:
            raise cancelled

    monkeypatch.setitem(sys.modules, "anyio.to_thread", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "anyio.from_thread", SimpleNamespace(check_cancelled=check))
    events = place.pull()
    seat = events.subscription
    match cancelled:
        case None:
            assert seat._check_of_task() is check
        case RuntimeError():  # no thread of anyio
            assert seat._check_of_task() is None
        case _:
            with pytest.raises(_Interrupted):
                seat._check_of_task()
    assert place.hub.subscriptions == (() if isinstance(cancelled, _Interrupted) else (seat,))


def test_without_anyio_or_with_one_that_cannot_say_it_asks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = place.pull()

    def fail() -> None:
        raise AssertionError

    monkeypatch.delitem(sys.modules, "anyio.to_thread", raising=False)
    monkeypatch.setitem(sys.modules, "anyio.from_thread", SimpleNamespace(check_cancelled=fail))
    assert events.subscription._check_of_task() is None
    monkeypatch.setitem(sys.modules, "anyio.to_thread", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "anyio.from_thread", SimpleNamespace())
    assert events.subscription._check_of_task() is None


@pytest.mark.parametrize("is_async", [False, True])
def test_findings_are_what_the_function_finds_until_they_are_closed(place: Place, is_async: bool) -> None:
    events = place.pull()
    place.add(3)
    findings = Findings(lambda: events.subscription, lambda event: NOTHING if event.seq == 2 else event.seq)

    async def read(count: int) -> list[int]:
        found = [await anext(findings) for _ in range(count)]
        await findings.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(findings)
        return found

    if is_async:
        assert asyncio.run(read(2)) == [1, 3]
    else:
        assert [next(findings), next(findings)] == [1, 3]
        findings.close()
        assert list(findings) == []
    assert place.hub.subscriptions == ()


@pytest.mark.parametrize("ends", ["dropped", "left", "closed"])
def test_findings_subscribe_once_when_they_begin_and_unsubscribe_when_they_end(place: Place, ends: str) -> None:
    place.add(2)
    opened: list[PullSubscription] = []

    def subscribe() -> PullSubscription:
        opened.append(PullSubscription(place.hub, Cursor(place.log, 0, "block", 4), place.runtime.dispatcher))
        place.hub.add(opened[-1])
        return opened[-1]

    findings = Findings(subscribe, lambda event: event.seq)
    assert opened == []
    assert [next(findings), next(findings)] == [1, 2]
    assert len(opened) == 1
    assert list(place.hub.subscriptions) == opened
    match ends:
        case "dropped":
            del findings
        case "closed":
            findings.close()
        case _:
            with findings as entered:
                assert entered is findings
            del entered
    assert place.hub.subscriptions == ()


def test_findings_that_never_began_subscribe_neither_when_they_are_closed_nor_dropped_nor_asked_later() -> None:
    def subscribe() -> PullSubscription:
        raise AssertionError

    unused: Findings[int] = Findings(subscribe, lambda event: event.seq)
    del unused
    closed: Findings[int] = Findings(subscribe, lambda event: event.seq)
    closed.close()
    assert list(closed) == []

    async def read() -> list[int]:
        return [found async for found in closed]

    assert asyncio.run(read()) == []


def test_an_iterator_is_dropped_although_the_error_of_its_wait_is_kept(place: Place) -> None:
    events = place.pull()
    with pytest.raises(CallTimeout) as caught:
        events.next(timeout=0)
    del events
    assert caught.value
    assert place.hub.subscriptions == ()


def test_an_async_iterator_is_dropped_although_the_error_of_its_wait_is_kept(place: Place) -> None:
    async def first(iterator: Any) -> BaseException:
        task = asyncio.ensure_future(anext(iterator))
        await _tick()
        task.cancel()
        del iterator
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value

    kept = [asyncio.run(first(place.pull()))]
    seat = PullSubscription(place.hub, Cursor(place.log, 0, "block", 4), place.runtime.dispatcher)
    place.hub.add(seat)
    kept.append(asyncio.run(first(Findings(lambda: seat, lambda event: event.seq))))
    assert len(kept) == 2
    assert place.hub.subscriptions == ()


def test_a_reader_that_is_closed_just_before_it_waits_does_not_wait(place: Place) -> None:
    events = place.pull()
    seat = events.subscription
    seat.unsubscribe()
    before = place.simulation.clock.monotonic()
    assert seat.wait(5)
    assert place.simulation.clock.monotonic() == before


def test_news_that_come_just_before_it_waits_are_not_overlooked(place: Place) -> None:
    events = place.pull()
    seat = events.subscription
    assert isinstance(seat, PullSubscription)
    assert seat.take() is None
    before = place.simulation.clock.monotonic()
    place.writer.add("x")  # and the waiting readers were looked up before that
    assert seat.wait(5)
    assert place.simulation.clock.monotonic() == before


def test_an_iterator_that_is_closed_gives_nothing_more(place: Place) -> None:
    with place.pull() as reader:
        place.add(3)
        assert next(reader).seq == 1
    assert list(reader) == []
    with pytest.raises(StopIteration):
        reader.next(timeout=0)


def test_too_slow_an_iterator_is_told_and_then_over(place: Place) -> None:
    reader = place.pull("disconnect", window=2)
    place.add(3)
    with pytest.raises(SubscriberTooSlow):
        next(reader)
    assert list(reader) == []
    assert place.hub.subscriptions == ()


def test_to_wake_an_iterator_runs_no_code_of_the_application(place: Place) -> None:
    assert place.pull().subscription.is_prompt


def test_two_iterators_do_not_know_of_each_other(place: Place) -> None:
    one, other = place.pull(), place.pull()
    place.add(3)
    assert [event.seq for event in _ready(one)] == [1, 2, 3]
    late = place.pull(after=2)
    place.complete()
    assert [event.seq for event in other] == [1, 2, 3, 4]
    assert [event.seq for event in late] == [3, 4]


@pytest.mark.parametrize("how", ["never started", "broken off", "in a cycle"])
def test_an_iterator_that_is_dropped_unsubscribes(place: Place, how: str) -> None:
    place.add(3)
    reader = place.pull()
    if how == "broken off":
        for _ in reader:
            break
    if how == "in a cycle":
        knot: list[Any] = [reader]
        knot.append(knot)
        del knot
    del reader
    if how == "in a cycle":
        gc.collect()
    assert (place.hub.subscriptions, place.empties) == ((), 1)


def test_who_resumes_after_the_last_number_has_the_whole_text(place: Place) -> None:
    reader = Reader()
    for _ in range(5):
        with place.pull(after=reader.seq) as events:
            place.add(3)
            reader.read(events.next(0))
    place.complete()
    for event in place.pull(after=reader.seq):
        reader.read(event)
    assert reader.texts["text"] == "x" * 15


def test_it_is_woken_only_once_however_many_wake_it_at_once(place: Place, restless: None) -> None:
    events = place.pull()
    seat = events.subscription
    assert isinstance(seat, PullSubscription)
    failed: list[BaseException] = []
    calls: list[None] = []

    def wake() -> None:
        try:
            for _ in range(300):
                seat.wake()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=wake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        latch = threading.Lock()
        latch.acquire()
        with seat._listening(latch.release):
            seat.wake()
        calls.append(None)
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that give way after every few instructions, so that races show."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_function_runs_in_a_copy_of_the_context_that_subscribed_it(place: Place) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen: dict[str, list[str]] = {"alice": [], "bob": []}

    def subscribe(name: str) -> None:
        def note(event: Any) -> None:
            seen[name].append(tenant.get())
            tenant.set(tenant.get() + "!")

        tenant.set(name)
        place.call(note)

    for name in seen:
        contextvars.copy_context().run(subscribe, name)
    place.add(2)
    place.settle()
    assert seen == {"alice": ["alice", "alice!"], "bob": ["bob", "bob!"]}
    assert tenant.get() == "nobody"


# --- async -----------------------------------------------------------------------------------------------------------


def test_waiting_async_does_not_block_the_loop_and_every_event_comes(place: Place) -> None:
    reader = place.pull()
    got: list[int] = []
    turns = 0

    async def read() -> None:
        got.extend([event.seq async for event in reader])

    async def main() -> None:
        nonlocal turns
        task = asyncio.create_task(read())
        for _ in range(3):
            for _ in range(5):
                await asyncio.sleep(0)
                turns += 1
            place.add()
        place.complete()
        await task

    asyncio.run(main())
    assert (got, turns) == ([1, 2, 3, 4], 15)


def test_the_readers_of_a_loop_take_turns_though_none_of_them_has_to_wait(place: Place) -> None:
    for _ in range(200):
        place.add()
    place.complete()
    taken: list[int] = []

    async def read(number: int, reader: Events) -> None:
        while True:
            try:
                await anext(reader)
            except StopAsyncIteration:
                return
            taken.append(number)

    async def main() -> None:
        await asyncio.gather(*(read(number, place.pull(after=0)) for number in range(2)))

    asyncio.run(main())
    *runs, last = [len(list(run)) for _, run in itertools.groupby(taken)]
    assert sum(runs) + last == 2 * 201
    assert max(runs) <= 100, "more than that only one takes that is alone"


@pytest.mark.parametrize("has_loop", [True, False])
def test_an_event_that_is_there_is_given_at_once_with_an_event_loop_and_without(place: Place, has_loop: bool) -> None:
    reader = place.pull()
    place.add(3)
    seen: list[int] = []

    def take() -> None:
        for _ in range(3):
            with pytest.raises(StopIteration) as caught:
                reader.subscription.next_async().send(None)
            seen.append(caught.value.value.seq)

    async def main() -> None:
        take()

    asyncio.run(main()) if has_loop else take()
    assert seen == [1, 2, 3]


def test_news_that_come_just_before_a_task_waits_are_not_overlooked(place: Place) -> None:
    events = place.pull()
    seat = events.subscription
    assert seat.take() is None
    place.writer.add("x")  # and the waiting readers were looked up before that

    async def main() -> None:
        await asyncio.wait_for(seat.wait_async(), 5)

    asyncio.run(main())
    assert seat._waiting == []


def test_a_task_of_a_loop_that_the_dispatcher_refuses_does_not_wait(place: Place) -> None:
    class Refuses(Waits):
        def check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
            raise LookupError(loop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError) as caught:
            await asyncio.wait_for(Refuses(place, 1.0).seat.wait_async(), 5)
        assert caught.value.args == (loop,)

    asyncio.run(main())


def test_a_cancelled_task_loses_no_event(place: Place) -> None:
    reader = place.pull()

    async def main() -> int:
        task = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        place.add()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await anext(reader)).seq

    assert asyncio.run(main()) == 1
    seat = reader.subscription
    assert isinstance(seat, PullSubscription)
    assert seat._waiting == []


def test_an_async_iterator_that_is_closed_unsubscribes(place: Place) -> None:
    events = place.pull()
    asyncio.run(events.aclose())
    assert place.hub.subscriptions == ()


def test_news_for_a_task_that_has_been_cancelled_disturb_nobody(place: Place) -> None:
    events = place.pull()
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        task = asyncio.ensure_future(anext(events))
        await _tick()
        place.add()  # the loop is told, and hears of it after the task has been cancelled
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _tick()

    asyncio.run(main())
    assert told == []


def test_a_loop_that_is_closed_disturbs_nobody(place: Place) -> None:
    reader = place.pull()
    loop = asyncio.new_event_loop()
    step = reader.__anext__()
    task = loop.create_task(step)
    loop.run_until_complete(_tick())
    assert not task.done()
    loop.close()
    assert not place.add(3)
    assert [event.seq for event in _ready(reader)] == [1, 2, 3]
    task.get_coro().close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def _tick() -> None:
    await asyncio.sleep(0)


def test_an_async_iterator_ends_and_stays_ended(place: Place) -> None:
    place.add()
    place.complete()

    async def main() -> list[int]:
        reader = place.pull()
        got = [event.seq async for event in reader]
        got += [event.seq async for event in reader]
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        await reader.aclose()
        return got

    assert asyncio.run(main()) == [1, 2]


def test_closed_from_elsewhere_a_waiting_task_ends(place: Place) -> None:
    reader = place.pull()

    async def main() -> list[Any]:
        async def read() -> list[Any]:
            return [event async for event in reader]

        task = asyncio.create_task(read())
        await _tick()
        reader.close()
        return await task

    assert asyncio.run(main()) == []


def test_a_callback_that_another_thread_has_taken_meanwhile_is_not_called_again() -> None:
    place = Place()
    seat = PullSubscription(place.hub, Cursor(place.log, 0, "coalesce", 16), place.runtime.dispatcher)
    called: list[str] = []

    def first() -> None:
        called.append("first")
        seat._waiting.clear()  # the other thread has taken the second one

    seat._waiting += [first, lambda: called.append("second")]
    seat.wake()
    assert called == ["first"]
    place.simulation.close()
