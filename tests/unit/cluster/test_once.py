"""Requests that the nodes of a cluster carry out once: what is left of one that has failed, or whose node has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from penstock.errors import StoreDamaged, StoreUnavailable
from penstock.gateway.idempotency import SharedOnce
from penstock.gateway.problems import Problem, RequestRefused
from penstock.ports import EntryId, LogStore, NodeInfo, OwnerMark
from tests.contract.log_stores import SettableClock
from tests.unit.cluster.nodes import Link, SharedStore

KEY = ("ann", "k")


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


PROBLEM = Problem(status=400, type="invalid_request_error", code="no", message="No.")


class Streams:
    """The streams that have been opened; ``fails``: raised instead."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.fails: Exception | None = None

    async def run(self, stream_id: str) -> bytes:
        if self.fails is not None:
            raise self.fails
        assert stream_id not in self.opened
        self.opened.append(stream_id)
        return stream_id.encode()

    async def find(self, stream_id: str) -> bytes | None:
        return stream_id.encode() if stream_id in self.opened else None

    def once(self, shared: SharedOnce, stream_id: str) -> tuple[str, bytes, bool]:
        work: Coroutine[Any, Any, tuple[str, bytes, bool]] = shared.once(
            KEY, b"{}", stream_id, self.run, self.find, in_thread
        )
        return asyncio.run(asyncio.wait_for(work, 10))


def test_a_request_that_failed_while_the_store_was_away_is_made_again() -> None:
    link, streams = Link(SharedStore()), Streams()
    shared = SharedOnce(cast(LogStore, link), "n", 1)

    async def run(stream_id: str) -> bytes:
        link.is_cut = True
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(shared.once(KEY, b"{}", "a", run, streams.find, in_thread))
    link.is_cut = False
    assert streams.once(shared, "b") == ("a", b"a", True)  # the id that was written down first
    assert streams.once(shared, "c") == ("a", b"a", False)


def test_the_stream_of_a_node_that_died_is_found_also_under_an_id_that_the_client_chose() -> None:
    store, streams = SharedStore(), Streams()
    link = Link(store)
    dead, living = SharedOnce(cast(LogStore, link), "dead", 1), SharedOnce(store, "living", 2)

    async def run(stream_id: str) -> bytes:
        await streams.run(stream_id)
        link.is_cut = True  # the node dies
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(dead.once(KEY, b"{}", "mine", run, streams.find, in_thread))
    assert streams.once(living, "mine") == ("mine", b"mine", False)


def test_a_node_that_lives_and_never_answers_is_not_waited_for_without_end() -> None:
    store, streams = SharedStore(), Streams()
    store.announce(NodeInfo("stuck"), 60.0)
    stuck, other = SharedOnce(store, "stuck", 1), SharedOnce(store, "other", 2, patience=0.1)

    async def run(stream_id: str) -> bytes:
        with pytest.raises(RequestRefused) as refused:
            await asyncio.wait_for(other.once(KEY, b"{}", "b", streams.run, streams.find, in_thread), 10)
        assert refused.value.problem.code == "idempotency_key_in_use"
        return await streams.run(stream_id)

    asyncio.run(stuck.once(KEY, b"{}", "a", run, streams.find, in_thread))
    assert streams.opened == ["a"]


def test_a_request_that_no_node_has_answered_is_forgotten_after_a_day() -> None:
    clock, streams = SettableClock(), Streams()
    store = SharedStore(clock=clock)
    link = Link(store)
    dead, living = SharedOnce(cast(LogStore, link), "dead", 1), SharedOnce(store, "living", 2)

    async def run(stream_id: str) -> bytes:
        link.is_cut = True  # the node dies
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(dead.once(KEY, b"{}", "a", run, streams.find, in_thread))
    clock.advance(86_399)
    (log,) = store._logs
    assert [entry.id.seq for entry in store.read(log)] == [0]
    clock.advance(2)
    assert store.read(log) == []
    assert streams.once(living, "b") == ("b", b"b", True)


def test_a_node_takes_back_only_its_own_mark() -> None:
    store, streams = SharedStore(), Streams()
    link = Link(store)
    slow, other = SharedOnce(cast(LogStore, link), "slow", 1), SharedOnce(store, "other", 2)

    async def run(stream_id: str) -> bytes:  # it has been away for so long that another node follows it
        assert await other.once(KEY, b"{}", "b", streams.run, streams.find, in_thread) == ("a", b"a", True)
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(slow.once(KEY, b"{}", "a", run, streams.find, in_thread))
    assert streams.once(slow, "c") == ("a", b"a", False)
    assert streams.opened == ["a"]


def test_a_request_that_fails_often_leaves_one_mark_for_a_minute() -> None:
    clock, streams = SettableClock(), Streams()
    store = SharedStore(clock=clock)
    shared = SharedOnce(store, "n", 1)
    streams.fails = RuntimeError("no")
    for number in range(5):
        with pytest.raises(RuntimeError):
            streams.once(shared, f"s{number}")
    (log,) = store._logs
    assert len(store.read(log)) == 2
    clock.advance(61)
    assert store.read(log) == []
    streams.fails = None
    assert streams.once(shared, "t") == ("t", b"t", True)


def test_what_was_not_taken_back_while_the_store_was_away_is_when_it_is_back() -> None:
    store, streams = SharedStore(), Streams()
    for name in ("away", "other"):
        store.announce(NodeInfo(name), 60.0)
    link = Link(store)
    away, other = SharedOnce(cast(LogStore, link), "away", 1), SharedOnce(store, "other", 2, patience=0.1)

    async def run(stream_id: str) -> bytes:
        link.is_cut = True
        raise RequestRefused(PROBLEM)

    with pytest.raises(RequestRefused) as refused:  # not by the store's error
        asyncio.run(away.once(KEY, b"{}", "a", run, streams.find, in_thread))
    assert refused.value.problem is PROBLEM
    assert away.is_owing
    away.settle()
    assert away.is_owing
    with pytest.raises(RequestRefused) as refused:
        streams.once(other, "b")
    assert refused.value.problem.code == "idempotency_key_in_use"
    link.is_cut = False
    away.settle()
    assert not away.is_owing
    assert streams.once(other, "b") == ("b", b"b", True)


@pytest.mark.parametrize("fault", [StoreDamaged("memory", "damaged"), RuntimeError("there is no thread any more")])
def test_a_request_fails_by_its_own_error_whatever_comes_of_taking_it_back(fault: Exception) -> None:
    link, streams = Link(SharedStore()), Streams()
    shared = SharedOnce(cast(LogStore, link), "n", 1)
    append_all, is_failing = link.append_all, False

    def appending(appends: Any) -> Any:
        if is_failing and isinstance(fault, StoreDamaged):
            raise fault
        return append_all(appends)

    async def threads(function: Callable[..., Any], *arguments: Any) -> Any:
        if is_failing and not isinstance(fault, StoreDamaged):
            raise fault
        return await in_thread(function, *arguments)

    async def run(stream_id: str) -> bytes:
        nonlocal is_failing
        is_failing = True
        raise RequestRefused(PROBLEM)

    link.append_all = appending  # type: ignore[attr-defined]
    with pytest.raises(RequestRefused) as refused:
        asyncio.run(shared.once(KEY, b"{}", "a", run, streams.find, threads))
    assert refused.value.problem is PROBLEM
    assert shared.is_owing
    is_failing = False
    shared.settle()
    assert not shared.is_owing
    assert streams.once(shared, "b") == ("b", b"b", True)


def test_a_request_that_is_cancelled_ends_as_such_while_the_store_is_away() -> None:
    link, streams = Link(SharedStore()), Streams()
    shared = SharedOnce(cast(LogStore, link), "n", 1)

    async def work() -> None:
        is_running = asyncio.Event()

        async def run(stream_id: str) -> bytes:
            link.is_cut = True
            is_running.set()
            await asyncio.Event().wait()
            return b""

        task = asyncio.ensure_future(shared.once(KEY, b"{}", "a", run, streams.find, in_thread))
        await is_running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    link.is_cut = False
    shared.settle()
    assert streams.once(shared, "b") == ("b", b"b", True)


def test_a_mark_whose_answer_was_lost_is_taken_back() -> None:
    store, streams = SharedStore(), Streams()
    for name in ("away", "other"):
        store.announce(NodeInfo(name), 60.0)
    link = Link(store)
    away, other = SharedOnce(cast(LogStore, link), "away", 1), SharedOnce(store, "other", 2, patience=0.1)
    append_all = link.append_all

    def losing(appends: Any) -> Any:
        append_all(appends)
        raise StoreUnavailable("memory", "the answer is lost")

    link.append_all = losing  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        streams.once(away, "a")
    link.append_all = append_all  # type: ignore[attr-defined]
    away.settle()
    assert streams.once(other, "b") == ("b", b"b", True)


def test_a_late_taking_back_does_nothing_to_a_request_that_was_made_meanwhile() -> None:
    store, streams = SharedStore(), Streams()
    store.announce(NodeInfo("n"), 60.0)
    link = Link(store)
    shared = SharedOnce(cast(LogStore, link), "n", 1)

    async def run(stream_id: str) -> bytes:
        link.is_cut = True
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(shared.once(KEY, b"{}", "a", run, streams.find, in_thread))
    link.is_cut = False
    assert streams.once(shared, "b") == ("a", b"a", True)
    shared.settle()
    assert not shared.is_owing
    assert streams.once(shared, "c") == ("a", b"a", False)


def test_a_node_that_cannot_look_for_the_stream_of_a_dead_one_leaves_it_to_be_found() -> None:
    store, streams = SharedStore(), Streams()
    for name in ("living", "other"):
        store.announce(NodeInfo(name), 60.0)
    link = Link(store)
    dead = SharedOnce(cast(LogStore, link), "dead", 1)
    living, other = SharedOnce(store, "living", 2), SharedOnce(store, "other", 3, patience=0.1)

    async def run(stream_id: str) -> bytes:
        await streams.run(stream_id)
        link.is_cut = True  # the node dies, after it has opened the stream
        raise StoreUnavailable("memory", "away")

    async def find(stream_id: str) -> bytes | None:
        raise StoreUnavailable("memory", "away")

    with pytest.raises(StoreUnavailable):
        asyncio.run(dead.once(KEY, b"{}", "a", run, streams.find, in_thread))
    with pytest.raises(StoreUnavailable):
        asyncio.run(living.once(KEY, b"{}", "b", streams.run, find, in_thread))
    assert streams.once(other, "c") == ("a", b"a", False)


def test_marks_that_are_owed_are_bounded_and_counted() -> None:
    link, streams = Link(SharedStore()), Streams()
    shared = SharedOnce(cast(LogStore, link), "n", 1)

    async def run(stream_id: str) -> bytes:
        link.is_cut = True
        raise StoreUnavailable("memory", "away")

    async def work() -> None:
        for number in range(1_002):
            link.is_cut = False
            with pytest.raises(StoreUnavailable):
                await shared.once(("ann", str(number)), b"{}", "s", run, streams.find, at_once)

    asyncio.run(work())
    assert shared.given_up == 2
    link.is_cut = False
    shared.settle()
    assert not shared.is_owing
    assert shared.given_up == 2


def test_a_log_that_cannot_be_trimmed_is_that_of_a_request_all_the_same() -> None:
    link, streams = Link(SharedStore()), Streams()
    shared = SharedOnce(cast(LogStore, link), "n", 1)
    streams.fails = RuntimeError("no")
    with pytest.raises(RuntimeError):
        streams.once(shared, "a")
    streams.fails = None

    def trim(*_: object) -> None:
        raise StoreUnavailable("memory", "away")

    link.trim = trim  # type: ignore[attr-defined]
    assert streams.once(shared, "b") == ("b", b"b", True)
    assert streams.once(shared, "c") == ("b", b"b", False)
    assert not shared._running


def test_a_log_that_is_not_that_of_a_request_is_damaged() -> None:
    store, streams = SharedStore(), Streams()
    shared = SharedOnce(store, "n", 1)
    assert streams.once(shared, "a") == ("a", b"a", True)
    (log,) = store._logs
    store._logs[log].entries[0] = OwnerMark(EntryId(1 << 10, 0), "n", "open", b"\xff")
    with pytest.raises(StoreDamaged):
        streams.once(shared, "b")
