"""Claims on a store that several systems share: whose streams are taken over, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

import penstock
from penstock.actors.agent.keeping import log_of
from penstock.actors.stream.heads import StreamHead
from penstock.actors.stream.leases import LEASE, Leases
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.config.settings import Settings
from penstock.errors import StoreError, StoreUnavailable
from penstock.events import FrozenDict, StreamCompleted, StreamFailed
from penstock.ports import EMPTY, NODE_NUMBERS, Append, EntryId, OwnerMark, Request
from penstock.recovery import recover
from tests.contract.log_stores import SettableClock


class SharedStore(MemoryLogStore):
    """A store that outlives the systems on it, as a server does."""

    def __init__(self, clock: SettableClock) -> None:
        super().__init__(clock=clock)
        self.is_away = False

    def keep(self, node: str, requests: Sequence[str]) -> Sequence[str]:
        if self.is_away:
            raise StoreUnavailable(self.name, "away")
        return super().keep(node, requests)

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def store(clock: SettableClock) -> SharedStore:
    return SharedStore(clock)


@pytest.fixture
def system(store: SharedStore) -> Iterator[penstock.System]:
    with penstock.System(Settings(), journal=store) as made:
        yield made


def begin_elsewhere(store: SharedStore, stream_id: str, facts: Mapping[str, Any] = FrozenDict()) -> None:
    """Begin a stream as a process does that ends then."""
    head = StreamHead(sse_epoch="00000000", created_at=time.time(), facts=facts)
    mark = OwnerMark(EntryId(1 << 10, 0), "gone", "open", head.encode())
    store.append_all([Append(stream_id, EMPTY, mark, opens=Request(stream_id, stream_id), node="gone")])


def leases_of(system: penstock.System) -> Leases:
    writer = system._services.writer
    assert writer is not None
    assert writer.leases is not None
    return writer.leases


def flush(system: penstock.System) -> None:
    writer = system._services.writer
    assert writer is not None
    assert writer.flush(10)


def test_a_second_system_leaves_the_streams_of_a_living_one_alone(store: SharedStore, system: penstock.System) -> None:
    stream = system.open_stream("s")
    stream.process_token("one ")
    flush(system)
    with penstock.System(Settings(), journal=store) as second:
        stream.process_token("two")
        stream.stop()
        end = stream.result(10)
        flush(system)
        assert isinstance(end, StreamCompleted)
        assert end.text == "one two"
        assert second.stream("s").result(10).text == "one two"


def test_a_stream_without_a_living_owner_is_taken_over_at_the_start(clock: SettableClock, store: SharedStore) -> None:
    begin_elsewhere(store, "s")
    clock.advance(LEASE)
    with penstock.System(Settings(), journal=store) as system:
        assert isinstance(list(system.stream("s").events(after=0))[-1], StreamFailed)
        assert store.view().held == {}


def test_a_stream_whose_lease_ends_later_is_taken_over_then(clock: SettableClock, store: SharedStore) -> None:
    begin_elsewhere(store, "s")
    with penstock.System(Settings(), journal=store) as system:
        with pytest.raises(penstock.StreamNotFound):
            system.stream("s")
        clock.advance(LEASE)
        for _ in range(4):
            leases_of(system).renew()
        assert isinstance(list(system.stream("s").events(after=0))[-1], StreamFailed)


def test_nothing_is_taken_over_until_a_store_that_was_away_has_worked_for_a_lease(
    clock: SettableClock, store: SharedStore, system: penstock.System
) -> None:
    other = Leases(store, "other")
    begin_elsewhere(store, "s")
    store.hand_over("gone", "s", "other")
    other.add("s", store)
    for _ in range(3):
        leases_of(system).renew()
    store.is_away = True
    clock.advance(LEASE)
    for _ in range(9):
        leases_of(system).renew()
    store.is_away = False
    for _ in range(3):
        leases_of(system).renew()
    other.renew()
    for _ in range(9):
        leases_of(system).renew()
    assert [claim.request.id for claim in store.held("other")] == ["s"]


def test_a_system_does_not_take_its_own_stream_from_itself(clock: SettableClock, store: SharedStore) -> None:
    with penstock.System(Settings(), journal=store) as system:
        stream = system.open_stream("s")
        stream.process_token("one ")
        flush(system)
        clock.advance(LEASE)
        assert recover(system._services).failed == 0
        stream.process_token("two")
        stream.stop()
        assert stream.result(10).text == "one two"
        flush(system)
        assert not leases_of(system).has("s")
        assert store.view().held == {}


def test_each_system_on_a_store_begins_epochs_of_its_own(
    clock: SettableClock, store: SharedStore, system: penstock.System
) -> None:
    facts = {"agent": {"name": "bob", "message": {"role": "user", "content": "Hello"}}}
    begin_elsewhere(store, "left", facts)
    clock.advance(LEASE)
    with penstock.System(Settings(), journal=store) as second:
        system.open_stream("s").stop()
        second.open_stream("t").stop()
        flush(system)
        flush(second)
        numbers = {log: store.tail(log).epoch % NODE_NUMBERS for log in ("s", "t", "left", log_of("bob"))}
    assert numbers["s"] != numbers["t"] == numbers["left"] == numbers[log_of("bob")]


def test_a_store_that_fails_at_the_start_leaves_nothing_to_end(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise StoreUnavailable(store.name, "away")

    monkeypatch.setattr(store, "new_number", fail)
    with pytest.raises(StoreUnavailable):
        penstock.System(Settings(), journal=store).start()


def test_a_stream_that_its_owner_goes_on_with_is_left_alone_by_the_one_that_took_it(
    clock: SettableClock, store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = store.append_all

    def late(appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        monkeypatch.setattr(store, "append_all", usual)
        usual([Append("s", EntryId(1 << 10, 0), OwnerMark(EntryId(2 << 10, 0), "gone", "note"))])
        return usual(appends)

    with penstock.System(Settings(), journal=store) as system:
        begin_elsewhere(store, "s")
        clock.advance(LEASE)
        monkeypatch.setattr(store, "append_all", late)
        assert recover(system._services).failed == 0
        assert store.tail("s") == EntryId(2 << 10, 0)
        with pytest.raises(penstock.StreamNotFound):
            system.stream("s")
