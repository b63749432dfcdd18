"""The handler's tables of subscribers and of lingering streams, step by step, without a handler."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.actors.runtime.ref import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.stream.messages import Cancel
from penstock.errors import ProcessDead
from penstock.supervisors.calls import Successor
from penstock.supervisors.system.watching import SuccessorAnswered, Watching


class Actor(ProcessRef):
    """A process that is alive or dead; as a supervisor it keeps what it is asked."""

    def __init__(self) -> None:
        self.alive = True
        self.is_settled: bool | None = True  # None: nothing is known of its messages
        self.asked: list[tuple[Any, Reply]] = []

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def is_alive(self) -> bool:
        return self.alive

    @property
    def actor_inbox(self) -> Any:  # type: ignore[override]
        return self

    @property
    def dead_owner(self) -> Any:
        return None if self.is_settled is None else self

    @property
    def is_closed(self) -> bool:
        return bool(self.is_settled)

    def ask(self, message: Any, *, block: bool = True) -> Any:  # type: ignore[override]
        assert not block
        reply = Reply()
        self.asked.append((message, reply))
        return reply


class Plain:
    """A plain Pykka actor."""

    def __init__(self) -> None:
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive


class Seat:
    """A subscription."""

    def __init__(self, ref: Any, supervisor: Actor | None = None, name: str | None = None) -> None:
        self.ref = ref
        self.supervisor = supervisor
        self.name = name
        self.is_active = True
        self.went_on_with: list[Any] = []

    def lose(self) -> bool:
        return self.supervisor is not None

    def died(self) -> None:
        self.is_active = False

    def go_on_with(self, successor: Any) -> None:
        self.went_on_with.append(successor)
        self.ref = successor


class Hub:
    def __init__(self) -> None:
        self.is_orphaned = True


class Record:
    """A stream's record."""

    def __init__(self, serial: int, on_orphan: Any) -> None:
        self.serial = serial
        self.on_orphan = on_orphan
        self.is_over = False
        self.hub = Hub()
        self.proposed: list[Any] = []

    def propose(self, ending: Any) -> None:
        self.proposed.append(ending)


class House:
    """A runtime and a handler, as far as they are used."""

    def __init__(self) -> None:
        self.now = 100.0
        self.names: dict[str, Actor] = {}
        self.monitored: list[Any] = []
        self.told: list[Any] = []
        self.clock = self
        self.watching = Watching(self, self)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def monitor(self, watcher: Any, target: Any) -> None:
        assert watcher is self
        self.monitored.append(target)

    def is_alive(self, ref: Actor) -> bool:
        return ref.alive

    def whereis(self, name: str) -> Actor | None:
        assert name
        return self.names.get(name)

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def seats(self, *seats: Seat) -> None:
        for seat in seats:
            self.watching.watch(seat)  # type: ignore[arg-type]

    def dies(self, actor: Actor) -> Any:
        actor.alive = False
        return timer_of(self.watching.actor_died(actor))

    def answers(self, actor: Actor, supervisor: Actor, value: Any) -> Any:
        """The supervisor answers its last question."""
        message, reply = supervisor.asked[-1]
        assert isinstance(message, Successor)
        before = len(self.told)
        if isinstance(value, Exception):
            reply.set_exception((type(value), value, None))
        else:
            reply.set(value)
        (answered,) = self.told[before:]
        assert isinstance(answered, SuccessorAnswered)
        assert answered.process is actor
        return timer_of(self.watching.successor_answered(answered))

    def looks(self, actor: Actor) -> Any:
        return timer_of(self.watching.look_for_successor(actor))


def timer_of(transition: Any) -> Any:
    """Name, time and kind of the timer that a transition sets; None if it sets none."""
    if transition is None:
        return None
    (action,) = transition.actions
    return action.name, action.seconds, action.absolute


@pytest.fixture
def house() -> House:
    return House()


# --- subscribers -----------------------------------------------------------------------------------------------------


def test_an_actor_is_monitored_once_and_all_its_subscriptions_end_with_it(house: House) -> None:
    actor, other = Actor(), Actor()
    seats = [Seat(actor), Seat(other), Seat(actor)]
    house.seats(*seats)
    assert house.monitored == [actor, other]
    assert house.dies(actor) is None
    assert [seat.is_active for seat in seats] == [False, True, False]
    assert house.dies(actor) is None  # nothing is left of it


@pytest.mark.parametrize("make", [Actor, Plain])
def test_ended_subscriptions_of_an_actor_do_not_pile_up(house: House, make: Any) -> None:
    actor = make()
    tables: Any = house.watching._watched if make is Actor else house.watching._foreign
    for number in range(1000):
        seat = Seat(actor)
        house.seats(seat)
        seat.is_active = number % 100 == 0
        assert len(tables[actor]) <= 32
    kept = list(tables[actor])
    assert sum(seat.is_active for seat in kept) == 10
    assert house.monitored == ([actor] if make is Actor else [])


def test_many_active_subscriptions_of_an_actor_are_all_kept(house: House) -> None:
    actor = Actor()
    seats = [Seat(actor) for _ in range(100)]
    house.seats(*seats)
    house.dies(actor)
    assert not any(seat.is_active for seat in seats)


def test_a_sweep_ends_the_subscriptions_of_plain_actors_that_have_died_and_forgets_ended_ones(house: House) -> None:
    dead, idle, alive, ours = Plain(), Plain(), Plain(), Actor()
    seats = {name: Seat(actor) for name, actor in (("dead", dead), ("idle", idle), ("alive", alive), ("ours", ours))}
    more = [Seat(alive), Seat(ours)]
    house.seats(*seats.values(), *more)
    dead.alive = False
    seats["idle"].is_active = more[0].is_active = more[1].is_active = False
    house.watching.sweep()
    assert {name: seat.is_active for name, seat in seats.items()} == {
        "dead": False, "idle": False, "alive": True, "ours": True,
    }  # fmt: skip
    tables: Any = house.watching
    assert list(tables._foreign) == [alive]
    assert list(tables._watched[ours]) == [seats["ours"]]
    house.watching.sweep()
    alive.alive = False
    house.watching.sweep()
    assert not seats["alive"].is_active
    assert house.watching._foreign == {}


# --- supervised actors that are restarted ----------------------------------------------------------------------------


def test_the_successor_that_the_supervisor_names_gets_the_active_subscriptions(house: House) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    seats = [Seat(actor, supervisor), Seat(actor), Seat(actor, supervisor)]
    house.seats(*seats)
    assert house.dies(actor) is None
    assert (seats[0].is_active, seats[1].is_active) == (True, False)
    assert [message for message, _ in supervisor.asked] == [Successor(actor)]
    seats[2].is_active = False
    assert house.answers(actor, supervisor, successor) is None
    assert [seat.went_on_with for seat in seats] == [[successor], [], []]
    assert house.monitored == [actor, successor]
    house.dies(successor)
    assert [message for message, _ in supervisor.asked] == [Successor(actor), Successor(successor)]


@pytest.mark.parametrize("is_settled", [True, None])
def test_the_supervisors_word_counts_more_than_a_name(house: House, is_settled: bool | None) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    seat = Seat(actor, supervisor, name="it")
    house.names["it"] = Actor()
    house.seats(seat)
    actor.is_settled = is_settled
    house.dies(actor)
    house.answers(actor, supervisor, successor)
    assert seat.went_on_with == [successor]


def test_the_five_seconds_begin_when_the_supervisor_last_said_that_it_restarts_the_actor(house: House) -> None:
    actor, supervisor = Actor(), Actor()
    seat = Seat(actor, supervisor, name="it")
    house.seats(seat)
    house.dies(actor)
    house.now += 100.0
    house.answers(actor, supervisor, "restarting")
    supervisor.alive = False
    house.now += 4.99
    assert house.looks(actor) == (actor, 0.02, False)
    house.now += 0.01
    assert house.looks(actor) is None
    assert not seat.is_active


def test_one_that_subscribed_just_before_the_death_goes_on_with_the_others(house: House) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    first, late = Seat(actor, supervisor), Seat(actor, supervisor)
    house.seats(first)
    house.dies(actor)
    house.seats(late)
    assert house.dies(actor) is None
    assert len(supervisor.asked) == 1
    house.answers(actor, supervisor, successor)
    assert (first.went_on_with, late.went_on_with) == ([successor], [successor])


def test_while_the_supervisor_restarts_the_actor_it_is_asked_again_ever_more_rarely(house: House) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    seat = Seat(actor, supervisor)
    house.seats(seat)
    house.dies(actor)
    delays = []
    for _ in range(9):
        name, delay, absolute = house.answers(actor, supervisor, "restarting")
        assert (name, absolute) == (actor, False)
        delays.append(delay)
        house.now += 4.0  # longer than its patience, all in all
        assert house.looks(actor) is None
    assert delays == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]
    house.answers(actor, supervisor, successor)
    assert seat.went_on_with == [successor]
    assert house.looks(actor) is None
    assert len(supervisor.asked) == 10


@pytest.mark.parametrize("answer", [None, ProcessDead("it"), "itself"])
def test_without_a_successor_the_subscriptions_end(house: House, answer: Any) -> None:
    actor, supervisor = Actor(), Actor()
    seat = Seat(actor, supervisor)
    house.seats(seat)
    house.dies(actor)
    assert house.answers(actor, supervisor, actor if answer == "itself" else answer) is None
    assert not seat.is_active
    assert house.looks(actor) is None


def test_an_answer_that_comes_after_the_end_changes_nothing(house: House) -> None:
    actor, supervisor = Actor(), Actor()
    house.seats(Seat(actor, supervisor))
    house.dies(actor)
    answered = SuccessorAnswered(actor, Reply())
    house.answers(actor, supervisor, None)
    for value in ("restarting", Actor()):
        answered = SuccessorAnswered(actor, Reply())
        answered.reply.set(value)
        assert house.watching.successor_answered(answered) is None


@pytest.mark.parametrize("comes", [True, False])
def test_a_named_actor_whose_supervisor_is_dead_is_looked_for_by_its_name_for_five_seconds(
    house: House, comes: bool
) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    seat = Seat(actor, supervisor, name="it")
    house.seats(seat)
    supervisor.alive = False
    assert house.dies(actor) == (actor, 0.01, False)
    assert supervisor.asked == []
    house.now += 4.99
    assert house.looks(actor) == (actor, 0.02, False)
    house.now += 0.01
    if comes:
        house.names["it"] = successor
    assert house.looks(actor) is None
    assert seat.is_active is comes
    assert seat.went_on_with == ([successor] if comes else [])


@pytest.mark.parametrize(("name", "is_supervised"), [(None, False), ("it", True)])
def test_an_actor_is_not_waited_for_without_a_name_or_if_its_supervisor_lives_and_knows_none(
    house: House, name: str | None, is_supervised: bool
) -> None:
    actor, supervisor = Actor(), Actor()
    seat = Seat(actor, supervisor, name)
    house.seats(seat)
    supervisor.alive = is_supervised
    assert house.dies(actor) is None
    if is_supervised:
        assert house.answers(actor, supervisor, None) is None
    assert not seat.is_active


def test_a_successor_waits_until_the_dead_actor_has_let_go_of_its_messages(house: House) -> None:
    actor, supervisor, successor = Actor(), Actor(), Actor()
    seat = Seat(actor, supervisor)
    house.seats(seat)
    actor.is_settled = False
    house.dies(actor)
    assert house.answers(actor, supervisor, successor) == (actor, 0.01, False)
    assert seat.went_on_with == []
    house.looks(actor)
    actor.is_settled = True
    assert house.answers(actor, supervisor, successor) is None
    assert seat.went_on_with == [successor]


# --- streams without subscribers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_orphan", "is_over", "is_orphaned", "cancelled"),
    [("cancel", False, True, True), ("cancel", True, True, False), ("cancel", False, False, False),
     ("continue", False, True, False)],
)  # fmt: skip
def test_an_orphaned_stream_is_cancelled_if_it_is_to_be(
    house: House, on_orphan: str, is_over: bool, is_orphaned: bool, cancelled: bool
) -> None:
    record: Any = Record(1, on_orphan)
    record.is_over, record.hub.is_orphaned = is_over, is_orphaned
    assert house.watching.orphaned(record) is None
    assert record.proposed == ([Cancel("no subscriber is left")] if cancelled else [])


def test_streams_linger_each_for_its_time_from_the_last_time_it_was_left(house: House) -> None:
    short, long, again, came, gone = (Record(number, time) for number, time in enumerate((2.0, 5.0, 2.0, 2.0, 2.0)))
    records: list[Any] = [short, long, again, came, gone]
    for record in records:
        assert timer_of(house.watching.orphaned(record)) == ("linger", 102.0, True)
    house.now = 101.0
    house.watching.orphaned(records[2])  # somebody came and left
    came.hub.is_orphaned = False
    house.watching.ended(records[4])
    house.now = 102.0
    assert timer_of(house.watching.lingered()) == ("linger", 103.0, True)
    assert [len(record.proposed) for record in records] == [1, 0, 0, 0, 0]
    house.now = 103.0
    assert timer_of(house.watching.lingered()) == ("linger", 105.0, True)
    assert [len(record.proposed) for record in records] == [1, 0, 1, 0, 0]
    house.now = 106.0
    assert timer_of(house.watching.lingered()) == ("linger", None, True)
    assert [len(record.proposed) for record in records] == [1, 1, 1, 0, 0]
    assert short.proposed == [Cancel("no subscriber is left")]


def test_times_that_no_longer_count_do_not_pile_up(house: House) -> None:
    kept: list[Any] = [Record(1000 + number, 1000.0 - 100 * number) for number in range(5)]
    for lasting in kept:
        house.watching.orphaned(lasting)
    for number in range(500):
        house.now += 0.001
        record: Any = Record(number, 50.0)
        house.watching.orphaned(record)
        house.watching.ended(record)
        assert len(house.watching._linger_ends) <= 76
    house.now = 900.0
    assert timer_of(house.watching.lingered()) == ("linger", 1000.0, True)
    assert [len(record.proposed) for record in kept] == [0, 0, 1, 1, 1]
    house.now = 1100.0
    assert timer_of(house.watching.lingered()) == ("linger", None, True)
    assert [len(record.proposed) for record in kept] == [1] * 5
    assert house.watching._lingering == {}


def test_the_next_stream_whose_time_is_over_is_waited_for_though_the_times_were_tidied_up(house: House) -> None:
    for number, seconds in enumerate((50.0, 40.0, 30.0)):
        lasting: Any = Record(number, seconds)
        house.watching.orphaned(lasting)
    for number in range(500):
        record: Any = Record(10 + number, 5000.0)
        assert timer_of(house.watching.orphaned(record)) == ("linger", 130.0, True)
        house.watching.ended(record)
    assert len(house.watching._linger_ends) <= 76
