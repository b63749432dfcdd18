"""Tickets that are looked for in vain: what is remembered of them, and how many may be."""

from __future__ import annotations

import pytest

from penstock.errors import StoreDamaged
from penstock.gateway.shared_tickets import Misses, SharedTickets
from tests.unit.cluster.nodes import SharedStore


def test_the_oldest_misses_are_forgotten() -> None:
    misses = Misses(most=3)
    for number in range(5):
        misses.add(f"t{number}", "s")
    assert [misses.has(f"t{number}", "s") for number in range(5)] == [False, False, True, True, True]
    assert not misses.has("t4", "another stream")


def test_only_look_ups_in_vain_count_and_only_within_a_second() -> None:
    misses = Misses(per_second=2)
    for _ in range(9):
        assert misses.admits(7.0)
        misses.found()
    assert [misses.admits(7.0), misses.admits(7.5), misses.admits(7.9)] == [True, True, False]
    assert misses.refused == 1
    assert misses.admits(8.0)


def test_a_damaged_ticket_is_an_error_of_the_store() -> None:
    store = SharedStore()
    tickets = SharedTickets(store, "n", 1)
    tickets.add("t", "s", "key")
    ((log, found),) = store._logs.items()
    assert tickets.find("t", "s") == "key"
    assert tickets.find("t", "s") == "key"
    assert tickets.find("t", "other") is None
    del found.entries[0]  # the first use is there, and not what it was made for
    assert log.startswith("ticket")
    with pytest.raises(StoreDamaged):
        tickets.find("t", "s")
