"""The way into a stream, interleaving by interleaving: waking, room, and actors that were given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.actors.stream.buffer import Batch
from penstock.actors.stream.intake import Intake
from penstock.actors.stream.messages import PUSHED
from penstock.config.options import StreamOptions
from penstock.errors import BufferFull, StreamClosed
from penstock.events import ToolProgress
from penstock.testing import Simulation


class Door:
    """An intake and the actor that it wakes."""

    def __init__(self, simulation: Simulation, **options: object) -> None:
        self.simulation = simulation
        self.options = StreamOptions(batch_size=1, **options)  # type: ignore[arg-type]
        self.intake = Intake("s", self.options, simulation.dispatcher, simulation.clock)
        self.woken = 0
        self.attach(1)

    def attach(self, epoch: int, last_event: int = 0) -> None:
        self.intake.attach(self, last_event, epoch)

    def put(self, message: object) -> None:
        assert message is PUSHED
        self.woken += 1


@pytest.fixture
def door() -> Iterator[Door]:
    with Simulation() as simulation:
        yield Door(simulation, max_buffer_size=4)


def test_it_wakes_once_when_the_level_is_reached(door: Door) -> None:
    intake = door.intake
    assert intake.wait_for(2, 1)
    intake.push("a")
    assert door.woken == 0
    intake.push("b")
    intake.push("c")
    assert door.woken == 1


def test_a_level_that_is_reached_already_is_said_so_and_wakes_nobody(door: Door) -> None:
    door.intake.push_all("ab")
    assert not door.intake.wait_for(2, 1)
    door.intake.push("c")
    assert door.woken == 0


def test_an_event_wakes_below_the_level_and_is_said_if_it_is_there_already(door: Door) -> None:
    event = ToolProgress(call_id="c", name="f", progress=None)
    assert door.intake.wait_for(4, 1)
    assert door.intake.push_event(event)
    assert door.intake.push_event(event)
    assert door.woken == 1
    assert not door.intake.wait_for(4, 1)
    door.intake.do_not_wake(1)
    door.intake.push_event(event)
    assert door.woken == 1


def test_who_need_not_be_woken_is_not(door: Door) -> None:
    door.intake.wait_for(1, 1)
    door.intake.do_not_wake(1)
    door.intake.push("a")
    assert door.woken == 0


def test_tokens_that_are_pushed_while_nobody_is_there_wait(door: Door) -> None:
    door.intake.push_all("ab")
    door.attach(2)
    assert door.intake.take(9, 1, 2) == (Batch("text", ("a", "b")), 0)


def test_one_that_was_given_up_takes_nothing(door: Door) -> None:
    door.intake.push("a")
    door.attach(2)
    assert door.intake.take(1, 1, 1) == (None, 0)
    assert door.intake.take(1, 1, 2) == (Batch("text", ("a",)), 0)


def test_one_that_was_given_up_cannot_change_what_its_successor_waits_for(door: Door) -> None:
    door.attach(2)
    assert door.intake.wait_for(2, 2)
    door.intake.do_not_wake(1)
    assert door.intake.wait_for(100, 1)
    door.intake.push_all("ab")
    assert door.woken == 1


def test_one_that_was_given_up_cannot_shut_the_door_or_take_the_count_of_drops(door: Door) -> None:
    door.attach(2)
    door.intake.buffer.dropped = 3
    assert door.intake.take_dropped(1) == 0
    door.intake.close(1)
    door.intake.push("a")
    assert door.intake.take_dropped(2) == 3
    door.intake.close(2)
    with pytest.raises(StreamClosed):
        door.intake.push("b")


def test_one_that_was_given_up_can_neither_commit_nor_restore_its_successors_batch(door: Door) -> None:
    intake = door.intake
    intake.push_all("ab")
    old, _ = intake.take(1, 1, 1)
    door.attach(2, last_event=0)
    new, _ = intake.take(1, 1, 2)
    intake.commit(old)
    intake.restore(old)
    assert intake.size == 2
    intake.commit(new)
    assert intake.size == 1
    assert intake.take(1, 2, 2) == (Batch("text", ("b",)), 0)


def test_a_batch_that_its_predecessor_delivered_is_not_delivered_again(door: Door) -> None:
    intake = door.intake
    intake.push_all("ab")
    old, _ = intake.take(1, 1, 1)
    door.attach(2, last_event=1)
    new, _ = intake.take(1, 2, 2)
    intake.commit(old)
    assert (new, intake.size) == (Batch("text", ("b",)), 1)


def test_a_stream_that_rests_offers_what_room_there_is(door: Door) -> None:
    intake = door.intake
    intake.push_all("abcd")
    called: list[str] = []
    assert intake.push_now([("e", "text")], lambda: called.append("room")) == 0
    batch, _ = intake.take(1, 1, 1)
    intake.commit(batch)
    assert called == []  # not for one token, as long as more are on their way out
    intake.do_not_wake(1)
    assert called == ["room"]
    assert intake.push_now([("e", "text")], lambda: None) == 1


def test_half_free_it_offers_room_at_once(door: Door) -> None:
    intake = door.intake
    intake.push_all("abcd")
    called: list[str] = []
    intake.push_now([("e", "text")], lambda: called.append("room"))
    batch, _ = intake.take(2, 1, 1)
    intake.commit(batch)
    assert called == ["room"]


def test_who_gives_up_waiting_leaves_no_trace(door: Door) -> None:
    door.intake.push_all("abcd")
    for _ in range(3):
        with pytest.raises(BufferFull):
            door.intake.push("e", timeout=1)
    assert not door.intake._waiters


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_no_time_to_wait_is_no_wait(door: Door, timeout: float) -> None:
    door.intake.push_all("abcd")
    with pytest.raises(BufferFull):
        door.intake.push("e", timeout)
    assert door.intake.backpressure_events == 0


def test_a_closed_door_tells_who_waits_at_it() -> None:
    with Simulation() as simulation:
        door = Door(simulation, max_buffer_size=1)
        door.intake.push("a")
        heard: list[str] = []
        door.intake.push_now([("b", "text")], lambda: heard.append("closed"))
        door.intake.close()
        assert heard == ["closed"]
        with pytest.raises(StreamClosed):
            door.intake.push_now([("b", "text")], lambda: None)


def test_a_provider_whose_attempt_is_void_is_let_go(door: Door) -> None:
    door.intake.push_all("abcd")
    assert not door.intake.push_blocking([("e", "text")], is_void=lambda: True)
    assert door.intake.size == 4


def test_an_error_policy_makes_a_provider_wait_and_a_producer_fail() -> None:
    with Simulation() as simulation:
        door = Door(simulation, max_buffer_size=1, overflow="error")
        assert door.intake.push_now([("a", "text"), ("b", "text")], lambda: None) == 1
        with pytest.raises(BufferFull):
            door.intake.push("c")
