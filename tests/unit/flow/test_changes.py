"""The last changes of a stream's state."""

from __future__ import annotations

import pytest

from penstock.actors.runtime.statetable import END, START
from penstock.actors.stream.changes import CAUSES, KEPT, STATES, StateChange, StateChanges
from penstock.actors.stream.states import TOKEN_STREAM


def test_they_are_kept_in_order() -> None:
    changes = StateChanges()
    changes.add(1.0, "start", "idle", "start")
    changes.add(2.5, "idle", "buffering", "pushed")
    assert changes.read(100.0) == (
        StateChange(101.0, "start", "idle", "start"),
        StateChange(102.5, "idle", "buffering", "pushed"),
    )


@pytest.mark.parametrize("count", [0, 1, KEPT - 1, KEPT, KEPT + 1, 2 * KEPT, 3 * KEPT + 5])
def test_the_last_64_are_kept(count: int) -> None:
    changes = StateChanges()
    for number in range(count):
        changes.add(float(number), "idle", "streaming", "pushed")
    assert [change.time for change in changes.read(0.0)] == [float(each) for each in range(max(0, count - 64), count)]
    assert changes.count == count


def test_a_cause_that_is_not_known_is_another_one() -> None:
    changes = StateChanges()
    changes.add(1.0, "idle", "streaming", "surprise")
    assert changes.read(0.0)[0].cause == "other"


def test_every_state_and_event_of_the_table_has_its_number() -> None:
    names = {state.name for state in TOKEN_STREAM.states}
    assert set(STATES) == names | {START, TOKEN_STREAM.end}
    assert TOKEN_STREAM.end != END
    assert len(STATES) <= 8  # two of them share a byte
    events = {event for move in TOKEN_STREAM.moves for event in move.on}
    assert set(CAUSES) == events | {"restart", "other"}
    assert len(CAUSES) <= 256
