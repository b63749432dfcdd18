"""What the owner of a log does when its store has lost entries that it had confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from penstock.actors.stream.storing import StoredLog, StoreWriter
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.errors import Fenced, StoreBusy, StoreError, StoreUnavailable
from penstock.ports import EMPTY, Append, EntryId, LogFrame, OwnerMark, Request
from penstock.testing import eventually


class Said(msgspec.Struct):
    seq: int


class Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def encode(events: Sequence[Any]) -> bytes:
    return ",".join(str(event.seq) for event in events).encode()


class Owner:
    """An owner of the log ``s`` that says one event after another."""

    def __init__(self, store: MemoryLogStore, before: int = 0) -> None:
        self.store = store
        self.writer = StoreWriter(store, Clock(), node="a", number=1, frame=0.0)
        self.events = [Said(seq) for seq in range(1, before + 1)]
        request = Request("s", "s")
        self.log: StoredLog = self.writer.open("s", {}, b"head", tail=store.tail("s"), request=request, encode=encode)
        self.log.kept = lambda seq: self.events[seq:]  # type: ignore[assignment, return-value]
        self.flush()

    def flush(self) -> None:
        assert self.writer.flush(10)

    def say(self) -> EntryId:
        """Say the next event; returns the tail once it is stored."""
        event = Said(len(self.events) + 1)
        self.log.append(event)
        self.events.append(event)
        self.flush()
        return self.store.tail("s")


def stored(store: MemoryLogStore) -> list[int]:
    """The numbers of all events in the log."""
    data = [entry.data.decode() for entry in store.read("s") if isinstance(entry, LogFrame)]
    return [int(number) for frame in data for number in frame.split(",")]


def marks(store: MemoryLogStore) -> list[tuple[str, str]]:
    return [(entry.node, entry.reason) for entry in store.read("s") if isinstance(entry, OwnerMark)]


@pytest.fixture
def store() -> MemoryLogStore:
    return MemoryLogStore()


@pytest.fixture
def owner(store: MemoryLogStore) -> Iterator[Owner]:
    made = Owner(store)
    yield made
    made.writer.close(5)


def test_lost_frames_are_written_again_from_memory(store: MemoryLogStore, owner: Owner) -> None:
    tails = [owner.say() for _ in range(5)]
    store.rewind("s", tails[1])
    owner.say()
    owner.flush()
    assert stored(store) == [1, 2, 3, 4, 5, 6]
    assert not owner.log.is_fenced


def test_frames_after_the_mark_are_written_again_without_those_of_the_owner_before(store: MemoryLogStore) -> None:
    store.append("s", EMPTY, OwnerMark(EntryId(5, 0), "z"))
    store.append("s", EntryId(5, 0), LogFrame(EntryId(5, 2), 1, b"1,2"))
    owner = Owner(store, before=2)
    mark = store.tail("s")
    owner.say()
    owner.say()
    store.rewind("s", mark)
    owner.say()
    owner.flush()
    assert stored(store) == [1, 2, 3, 4, 5]
    owner.writer.close(5)


def test_a_lost_mark_is_written_again_behind_the_tail_that_was_taken_over(store: MemoryLogStore) -> None:
    store.append("s", EMPTY, OwnerMark(EntryId(5, 0), "z"))
    base = store.append("s", EntryId(5, 0), LogFrame(EntryId(5, 2), 1, b"1,2"))
    owner = Owner(store, before=2)
    owner.say()
    owner.say()
    store.rewind("s", base)
    owner.say()
    owner.flush()
    assert stored(store) == [1, 2, 3, 4, 5]
    assert marks(store) == [("z", "open"), ("a", "open")]
    assert not owner.log.is_fenced
    owner.writer.close(5)


def test_a_log_that_is_gone_is_written_again_with_its_request_and_notes(store: MemoryLogStore, owner: Owner) -> None:
    owner.say()
    owner.log.note(model="m")
    owner.say()
    store.forget("s")
    store.release("a", "s")
    owner.say()
    owner.flush()
    assert stored(store) == [1, 2, 3]
    assert [reason for _, reason in marks(store)] == ["open", "note"]
    assert [claim.request.id for claim in store.held("a")] == ["s"]


def test_a_lost_note_is_written_again(store: MemoryLogStore, owner: Owner) -> None:
    before = owner.say()
    owner.log.note(model="m")
    owner.flush()
    owner.say()
    store.rewind("s", before)
    owner.say()
    owner.flush()
    assert stored(store) == [1, 2, 3]
    assert [reason for _, reason in marks(store)] == ["open", "note"]


def test_the_owner_is_fenced_by_another_mark_also_by_one_with_a_smaller_epoch(store: MemoryLogStore) -> None:
    store.append("s", EMPTY, OwnerMark(EntryId(5, 0), "z"))
    base = store.append("s", EntryId(5, 0), LogFrame(EntryId(5, 2), 1, b"1,2"))
    owner = Owner(store, before=2)
    owner.say()
    store.rewind("s", base)
    store.append("s", base, OwnerMark(EntryId(6, 0), "late clock"))
    owner.say()
    owner.flush()
    assert owner.log.is_fenced
    with pytest.raises(Fenced):
        owner.log.append(Said(9))
    assert stored(store) == [1, 2]
    assert marks(store)[-1] == ("late clock", "open")
    owner.writer.close(5)


# --- how many wait ---------------------------------------------------------------------------------------------------


class Watched(MemoryLogStore):
    """Calls ``before`` before each transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], object] = lambda: None

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        self.before()
        return super().append_all(appends)


@pytest.fixture
def watched() -> Iterator[Owner]:
    made = Owner(Watched())
    yield made
    made.writer.close(5)


def test_an_event_that_is_written_again_waits_once_also_if_another_came_meanwhile(watched: Owner) -> None:
    store = watched.store
    assert isinstance(store, Watched)
    tails = [watched.say() for _ in range(4)]
    assert watched.writer.waiting == 0
    store.rewind("s", tails[1])
    seen: list[int] = []

    def say_another() -> None:  # while the store is asked for the first time, which will refuse
        store.before = lambda: seen.append(watched.writer.waiting)
        event = Said(6)
        watched.log.append(event)
        watched.events.append(event)
        seen.append(watched.writer.waiting)

    store.before = say_another
    watched.say()
    watched.flush()
    assert stored(store) == [1, 2, 3, 4, 5, 6]
    assert seen == [2, 4]  # 5 and 6; then 3 and 4 too
    assert watched.writer.waiting == 0


def test_events_wait_until_a_store_that_fails_has_them_and_count_for_the_limit(watched: Owner) -> None:
    store, writer = watched.store, watched.writer
    assert isinstance(store, Watched)
    writer._limit = 4
    watched.say()

    def fail() -> None:
        raise StoreUnavailable("memory", "broken")

    store.before = fail
    for number in (2, 3):
        watched.log.append(Said(number))
    eventually(lambda: writer.last_error is not None)
    assert writer.waiting == 2
    for number in (4, 5):
        watched.log.append(Said(number))
    assert writer.waiting == 4
    with pytest.raises(StoreBusy):
        watched.log.append(Said(6))
    store.before = lambda: None
    watched.flush()
    assert stored(store) == [1, 2, 3, 4, 5]
    assert writer.waiting == 0


def test_of_a_log_that_is_another_owners_nothing_waits(watched: Owner) -> None:
    store = watched.store
    tail = watched.say()
    store.append("s", tail, OwnerMark(EntryId(tail.epoch + 1_000, 0), "z"))
    for number in (2, 3):
        watched.log.append(Said(number))
    watched.flush()
    assert watched.log.is_fenced
    assert watched.writer.waiting == 0


def test_events_that_cannot_be_encoded_wait_no_more(watched: Owner) -> None:
    def fail(_events: Sequence[Any]) -> bytes:
        raise ValueError

    watched.log._encode = fail
    watched.log.append(Said(1))
    watched.flush()
    assert watched.log.is_fenced
    assert watched.writer.waiting == 0


def test_events_are_stored_and_wait_no_more_although_the_function_that_is_told_fails(watched: Owner) -> None:
    def fail(_seq: int) -> None:
        raise ValueError

    watched.log.on_stored = fail
    assert watched.say() > EMPTY
    assert stored(watched.store) == [1]
    assert watched.writer.waiting == 0
