"""A stream with many subscribers does what one with few does, and no call takes longer for there being many."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.stream import hub as module
from penstock.actors.stream.crowd import LARGEST_TUPLE
from penstock.actors.stream.hub import Hub, HubOwner, Subscription


class Steps:
    """Counts how often subscriptions are looked at."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, call: Callable[[], object]) -> int:
        self.count = 0
        call()
        return self.count


class Seat(Subscription):
    """A subscription that does nothing."""

    def __init__(self, hub: Hub, target: Any, steps: Steps | None = None) -> None:
        cursor: Any = SimpleNamespace(slow="block", is_slow=False, seq=0, window=1)
        self._steps = steps or Steps()
        super().__init__(hub, cursor, target)
        self.more: tuple[Any, ...] = ()

    @property
    def is_active(self) -> bool:
        self._steps.count += 1
        return self._is_active

    @is_active.setter
    def is_active(self, value: bool) -> None:
        self._is_active = value

    @property
    def targets(self) -> tuple[Any, ...]:
        self._steps.count += 1
        return (*super().targets, *self.more)

    def wake(self) -> None:
        return


class Owner(HubOwner):
    def __init__(self) -> None:
        self.emptied_times = self.released_times = 0

    def emptied(self) -> None:
        self.emptied_times += 1

    def released(self) -> None:
        self.released_times += 1


class Target:
    def method(self) -> None:
        return

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be asked")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("seed", range(20))
def test_many_subscribers_are_kept_and_found_as_few_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "LARGEST_TUPLE", 3)
    hub, owner = Hub(), Owner()
    hub.owner = owner
    things = [Target() for _ in range(12)]
    model: list[Seat] = []
    emptied = 0
    for _ in range(300):
        what = chance.choice(things)
        target = chance.choice((what, what.method, None))
        known = next((seat for seat in model if target is not None and seat.is_of(target)), None)
        if chance.random() < 0.6:
            seat = Seat(hub, target)
            assert hub.add(seat) is (known or seat)
            if known is None:
                model.append(seat)
        elif model:
            seat = chance.choice(model)
            seat.unsubscribe()
            seat.unsubscribe()
            model.remove(seat)
            emptied += not model
        assert list(hub.subscriptions) == model
        assert hub.find(target) is next((seat for seat in model if target is not None and seat.is_of(target)), None)
        assert hub.is_orphaned is (hub.had_subscriber and not model)
    for seat in model:
        seat.unsubscribe()
    assert hub.subscriptions == ()
    assert hub.is_orphaned
    assert owner.emptied_times == emptied + bool(model)


def test_a_subscription_is_found_by_the_actor_that_has_taken_the_place_of_its_target() -> None:
    hub = Hub()
    seats = [Seat(hub, Target()) for _ in range(50)]
    for seat in seats:
        hub.add(seat)
    seat, first, second = seats[20], Target(), Target()
    seat.more = (first,)
    hub.targets_changed(seat, seat.target)
    assert [hub.find(one) for one in (seat.target, first)] == [seat, seat]
    seat.more = (second,)
    hub.targets_changed(seat, first)
    assert [hub.find(one) for one in (seat.target, first, second)] == [seat, None, seat]
    seat.unsubscribe()
    hub.targets_changed(seat, second)
    assert [hub.find(one) for one in (seat.target, first, second)] == [None, None, None]


@pytest.mark.parametrize("order", ["first", "last", "chance"])
def test_to_come_and_to_leave_takes_no_longer_among_many(order: str) -> None:
    steps, hub = Steps(), Hub()
    hub.owner = Owner()
    seats = [Seat(hub, Target(), steps) for _ in range(2000)]
    # Until then they are in a tuple, and one look at each may be needed.
    few = LARGEST_TUPLE + 1
    assert max(steps.of(partial(hub.add, seat)) for seat in seats) <= 3 * few
    assert max(steps.of(partial(hub.find, seat.target)) for seat in seats) == 0
    if order == "last":
        seats.reverse()
    elif order == "chance":
        random.Random(1).shuffle(seats)
    assert max(steps.of(seat.unsubscribe) for seat in seats) <= 10
    assert hub.subscriptions == ()


@pytest.mark.parametrize("order", ["first", "last", "chance"])
def test_a_stream_that_many_hold_looks_at_each_of_them_a_few_times(order: str) -> None:
    steps, hub, owner = Steps(), Hub(), Owner()
    hub.owner = owner
    seats = [Seat(hub, Target(), steps) for _ in range(2000)]
    for seat in seats:
        hub.add(seat)
    for _ in range(3):
        for seat in seats:
            seat._cursor.is_slow = True  # type: ignore[misc]
        assert hub.announce()
        if order == "last":
            seats.reverse()
        elif order == "chance":
            random.Random(1).shuffle(seats)
        steps.count = 0
        for seat in seats:
            assert owner.released_times == 0
            seat._cursor.is_slow = False  # type: ignore[misc]
            hub.caught_up()
        assert not hub.held
        assert owner.released_times == 1
        owner.released_times = 0
        assert steps.count <= 4 * len(seats)


_crowd: Any = vars(Hub)["_crowd"]


class Turning(Hub):
    """A hub whose few subscribers become a crowd between two looks at it, as another thread may have it."""

    __slots__ = ("newcomers",)

    def __init__(self) -> None:
        self.newcomers: list[Seat] = []
        super().__init__()

    @property
    def _crowd(self) -> Any:
        found = _crowd.__get__(self)
        if self.newcomers:
            self.add(self.newcomers.pop())
        return found

    @_crowd.setter
    def _crowd(self, crowd: Any) -> None:
        _crowd.__set__(self, crowd)


@pytest.mark.parametrize("finds", [False, True])
def test_no_subscriber_is_overlooked_while_few_become_a_crowd(finds: bool) -> None:
    hub = Turning()
    targets = [object() for _ in range(LARGEST_TUPLE)]
    seats = [hub.add(Seat(hub, target)) for target in targets]
    hub.newcomers.append(Seat(hub, object()))
    if finds:
        assert hub.find(targets[0]) is seats[0]
    else:
        assert len(hub.subscriptions) == LARGEST_TUPLE
    assert len(hub.subscriptions) == LARGEST_TUPLE + 1


def test_a_subscriber_that_leaves_before_its_new_target_is_noted_is_not_found_by_the_old_one() -> None:
    hub, old = Hub(), object()
    for _ in range(LARGEST_TUPLE):
        hub.add(Seat(hub, object()))
    seat = Seat(hub, object())
    seat.more = (old,)
    hub.add(seat)
    assert hub.find(old) is seat
    seat.more = (object(),)
    hub.remove(seat)
    hub.targets_changed(seat, old)
    assert [hub.find(target) for target in (old, *seat.targets)] == [None, None, None]
    newcomer = Seat(hub, old)
    assert hub.add(newcomer) is newcomer
