"""The table of streams forgets what has ended when its time has come, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.actors.stream.table import StreamTable


def ended(stream_id: str, at: float, keep: float) -> Any:
    return SimpleNamespace(
        stream_id=stream_id, ended_at=at, is_displaced=False, options=SimpleNamespace(keep_finished=keep)
    )


def loaded(table: StreamTable, *records: Any) -> None:
    """Have the table find the records in a store, which is how ended ones enter it."""
    for record in records:
        table.load = lambda _id, record=record: record  # type: ignore[misc]
        assert table.find(record.stream_id) is record


def test_streams_are_forgotten_in_the_order_of_their_times() -> None:
    table = StreamTable()
    late, soon, later = ended("late", 10, 60), ended("soon", 20, 5), ended("later", 0, 100)
    loaded(table, late, soon, later)
    table.forget_ended(24.9)
    assert table.all() == [late, soon, later]
    table.forget_ended(25)
    assert table.all() == [late, later]
    table.forget_ended(100)
    assert table.all() == []


def test_what_was_forgotten_before_its_time_does_not_stay_in_the_heap() -> None:
    table = StreamTable()
    kept = ended("kept", 0, 1000)
    loaded(table, kept)
    for number in range(1000):
        record = ended(f"s{number}", 0, 1000)
        loaded(table, record)
        table.forget(record)
    assert len(table._ends) < 100
    table.forget_ended(999)
    assert table.all() == [kept]
    table.forget_ended(1000)
    assert table.all() == []


@pytest.mark.parametrize("every", [1000, 7])
def test_an_id_that_is_used_again_and_again_takes_no_more_room(every: int) -> None:
    table = StreamTable()
    for number in range(1000):
        record = ended("chat", number, 50)
        table.forget(table.peek("chat") or record)
        loaded(table, record)
        if number % every == 0:
            table.forget_ended(number)
    assert len(table._ends) < 100
    table.forget_ended(1048)
    assert table.all() == [record]
    table.forget_ended(1049)
    assert (table.all(), table._ends) == ([], [])
