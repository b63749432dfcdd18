"""What a delivery reports when nothing is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from penstock.actors.stream.bucket import TokenBucket
from penstock.actors.stream.delivery import Delivery
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.config.options import StreamOptions
from penstock.errors import DeliveryError
from penstock.events import Event, TokenEvent, ToolCall, ToolCallCompleted
from penstock.testing import Simulation


class Journal:
    """Keeps what it is given, unless it fails."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: Exception | None = None

    def append(self, event: Event) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(event)


class Desk:
    """A stream's record without an actor, and the delivery of its first one."""

    def __init__(self, simulation: Simulation, journal: Journal | None = None) -> None:
        self.record = StreamRecord(
            simulation.runtime,
            "s",
            StreamOptions(),
            metadata={},
            on_orphan="continue",
            restart="temporary",
            journal=journal,
        )
        self.epoch = self.take_over()
        self.delivery = Delivery(self.record, self.epoch)
        self.intake = self.record.intake

    def take_over(self) -> int:
        """Attach another actor."""
        epoch = self.record.log.new_epoch()
        self.record.intake.attach(SimpleQueue(), self.record.log.last_seq, epoch)
        return epoch

    @property
    def tokens(self) -> list[tuple[str, ...]]:
        return [event.tokens for event in self.record.log if isinstance(event, TokenEvent)]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        yield simulation


def test_with_nothing_to_deliver_a_delivery_works(simulation: Simulation) -> None:
    desk = Desk(simulation)
    assert desk.delivery.emit(5, None) is True
    desk.intake.push("a")
    assert desk.delivery.emit(5, None) is True
    assert desk.delivery.emit(5, None) is True
    assert desk.tokens == [("a",)]


def test_an_actor_that_was_replaced_does_not_deliver_what_waits(simulation: Simulation) -> None:
    desk = Desk(simulation)
    desk.intake.push("a")
    epoch = desk.take_over()
    assert desk.delivery.emit(5, None) is False
    assert (desk.tokens, desk.intake.size) == ([], 1)
    assert Delivery(desk.record, epoch).emit(5, None) is True
    assert desk.tokens == [("a",)]


def test_a_failed_journal_is_the_problem_and_the_tokens_wait_for_the_next_delivery(simulation: Simulation) -> None:
    journal = Journal()
    desk = Desk(simulation, journal)
    desk.intake.push("a")
    journal.failure = OSError("the disk is full")
    assert desk.delivery.emit(5, None) is False
    assert desk.delivery.problem is journal.failure
    assert (desk.tokens, desk.intake.size) == ([], 1)
    journal.failure = None
    assert desk.delivery.emit(5, None) is True
    assert desk.delivery.problem is None
    assert desk.tokens == [("a",)]
    assert list(desk.record.log) == journal.events


def test_the_problem_of_an_earlier_delivery_is_not_that_of_one_refused_by_the_streams_end(
    simulation: Simulation,
) -> None:
    journal = Journal()
    desk = Desk(simulation, journal)
    desk.intake.push("a")
    journal.failure = OSError("the disk is full")
    assert desk.delivery.emit(5, None) is False
    desk.record.log.complete(Outcome(), 0, 1.0)
    assert desk.delivery.emit(5, None) is False
    assert desk.delivery.problem is None


def test_an_event_besides_tokens_gets_the_streams_number_time_and_metadata_and_is_counted(
    simulation: Simulation,
) -> None:
    desk = Desk(simulation)
    desk.intake.push("a")
    assert desk.delivery.emit(5, None) is True
    simulation.advance(3)
    call = ToolCall(id="c", name="f", arguments={}, arguments_raw="{}")
    desk.intake.push_event(ToolCallCompleted(index=0, call=call))
    assert desk.delivery.emit(5, None) is True
    (_, event) = desk.record.log
    assert event == ToolCallCompleted(
        index=0, call=call, stream_id="s", seq=2, timestamp=simulation.clock.time(), metadata=desk.record.log.metadata
    )
    counters = desk.record.counters
    assert (counters.function_calls, counters.batches) == (1, 1)
    assert counters.last_activity == simulation.clock.monotonic()
    assert desk.intake.size == 0


def test_observers_hear_of_events_besides_tokens_once_they_are_in_the_log(simulation: Simulation) -> None:
    heard: list[tuple[object, Event, int]] = []

    class Watcher:
        def happened(self, record: StreamRecord, event: Event) -> None:
            heard.append((record, event, record.log.last_seq))

    desk = Desk(simulation)
    desk.record.observers = (Watcher(), Watcher())  # type: ignore[assignment]
    desk.intake.push("a")
    call = ToolCall(id="c", name="f", arguments={}, arguments_raw="{}")
    desk.intake.push_event(ToolCallCompleted(index=0, call=call))
    for _ in range(2):
        assert desk.delivery.emit(5, None) is True
    assert heard == [(desk.record, desk.record.log.get(2), 2)] * 2


def test_what_was_delivered_is_taken_out_of_the_bucket(simulation: Simulation) -> None:
    desk = Desk(simulation)
    bucket = TokenBucket(10.0, 3, simulation.clock.monotonic())
    for token in "abc":
        desk.intake.push(token)
    assert desk.delivery.emit(2, bucket) is True
    assert bucket.delay(2, simulation.clock.monotonic()) == pytest.approx(0.1)


def test_the_last_failure_that_is_allowed_ends_the_stream_with_its_cause(simulation: Simulation) -> None:
    journal = Journal()
    desk = Desk(simulation, journal)
    desk.intake.push("a")
    journal.failure = OSError("the disk is full")
    most = desk.record.options.max_errors
    errors = []
    for _ in range(most):
        assert desk.delivery.emit(5, None) is False
        errors.append(desk.delivery.count_failure())
    assert errors[:-1] == [None] * (most - 1)
    assert isinstance(errors[-1], DeliveryError)
    assert errors[-1].__cause__ is journal.failure
    assert desk.record.counters.errors == most


def test_a_delivery_that_works_begins_the_count_of_failures_again(simulation: Simulation) -> None:
    journal = Journal()
    desk = Desk(simulation, journal)
    for _ in range(2 * desk.record.options.max_errors):
        desk.intake.push("a")
        journal.failure = OSError("the disk is full")
        assert desk.delivery.emit(5, None) is False
        assert desk.delivery.count_failure() is None
        journal.failure = None
        assert desk.delivery.emit(5, None) is True
