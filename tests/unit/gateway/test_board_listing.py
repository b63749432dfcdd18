"""Which streams the dashboard lists, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock.actors.stream.messages import Fail
from penstock.gateway.board.listing import COLUMNS, MOST_ROWS, Listing
from penstock.gateway.board.processes import change_of, flattened
from penstock.gateway.board.sheets import Sheet, SheetCopy
from penstock.inspection import Tree


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System() as running:
        yield running


def listing_of(system: penstock.System) -> Listing:
    return Listing(system._services.streams, lambda: lambda record: 0)


def look(system: penstock.System, listing: Listing, after: float = 0.0) -> dict[str, dict[str, object]]:
    """The rows by id, seen so many seconds later than now."""
    clock = system.runtime.clock
    rows = listing.rows(clock.time() + after, clock.monotonic() + after)
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows.values()}


def test_the_speed_is_that_of_the_last_seconds(system: penstock.System) -> None:
    stream, listing = system.open_stream(stream_id="s"), listing_of(system)
    look(system, listing)
    stream.process_tokens(["x"] * 100)
    stream.flush_buffer()
    row = look(system, listing, after=10)["s"]
    assert row["tokens"] == 100
    assert row["speed"] == pytest.approx(10, abs=1)
    assert look(system, listing, after=30)["s"]["speed"] == pytest.approx(0, abs=0.1)


def test_the_last_token_has_a_time_once_it_is_a_second_ago(system: penstock.System) -> None:
    stream, listing = system.open_stream(stream_id="s"), listing_of(system)
    assert look(system, listing)["s"]["last"] is None
    stream.process_tokens(["x"] * 100)
    stream.flush_buffer()
    assert look(system, listing)["s"]["last"] == 0
    last = look(system, listing, after=7)["s"]["last"]
    assert isinstance(last, float)
    assert last == pytest.approx(stream.statistics().last_token_time, abs=0.2)


def test_an_ended_stream_goes_after_a_while_and_a_failed_one_later(system: penstock.System) -> None:
    listing = listing_of(system)
    for name in ("done", "gone", "bad"):
        system.open_stream(stream_id=name)
    system.stream("done").stop()
    system.stream("gone").cancel()
    bad = system.stream("bad")._record
    look(system, listing)
    assert {name: row["state"] for name, row in look(system, listing).items()} == {
        "done": "completed",
        "gone": "cancelled",
        "bad": "idle",
    }
    bad.finish(Fail(penstock.StreamError("bad", "broke")))
    assert look(system, listing, after=20).keys() == {"bad"}
    assert look(system, listing, after=70) == {}


def test_the_rows_stay_the_same_while_more_streams_are_opened(system: penstock.System) -> None:
    listing = listing_of(system)
    for _ in range(MOST_ROWS):
        system.open_stream()
    before = look(system, listing).keys()
    for number in range(20):
        system.open_stream(stream_id=f"new-{number}")
    assert look(system, listing).keys() == before
    assert look(system, listing, after=2).keys() == before
    assert listing.more == 20
    system.stream("new-7").pause()
    assert "new-7" in look(system, listing, after=4)


def tree(name: str, *children: Tree, mailbox: int = 0) -> Tree:
    return Tree(name, "Process", "running", mailbox, 0, children)


def test_a_tree_becomes_rows_with_their_parents_numbers() -> None:
    sheet, copy = Sheet(("parent", "name", "kind", "state", "mailbox", "restarts", "children")), SheetCopy()
    change_of(sheet, flattened(tree("a", tree("b", tree("c")), tree("b"))))
    copy.take(sheet.snapshot())
    assert {number: row[:2] for number, row in copy.rows.items()} == {
        1: [0, "a"],
        2: [1, "b"],
        3: [1, "b"],
        4: [2, "c"],
    }
    copy.apply(change_of(sheet, flattened(tree("a", tree("b", tree("c"), tree("d")), tree("b")))))
    assert copy.rows[5][:2] == [2, "d"]
    copy.apply(change_of(sheet, flattened(tree("a", tree("b")))))
    assert list(copy.rows) == [1, 2]


def test_of_many_children_those_that_wait_come_first() -> None:
    children = [tree(f"c{number}", mailbox=int(number == 499)) for number in range(500)]
    found = flattened(tree("a", *children))
    assert len(found) == 201
    assert ("a", "c499") in found
    assert found["a",][1].children == tuple(children)
