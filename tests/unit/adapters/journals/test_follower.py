"""A watch of a log in Valkey: messages and entries that are not what was written."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.adapters.journals.valkey_entries import news_of
from penstock.adapters.journals.valkey_follower import Follower
from penstock.errors import StoreDamaged, StoreError, StoreUnavailable
from penstock.ports import EMPTY, Entry, EntryId, LogFrame, OwnerMark

MARK = OwnerMark(EntryId(7, 0), "n")
FRAME = LogFrame(EntryId(7, 1), 1, b"data")


class Log:
    """A log, what reads it, and a watcher."""

    def __init__(self) -> None:
        self.log: list[Entry] = [MARK]
        self.error: StoreError | None = None
        self.given: list[Entry] = []
        self.errors: list[StoreError] = []
        self.stopped: list[Follower] = []
        self.follower = Follower(self, EMPTY, self.read, self.before, self.stopped.append)

    def read(self, start: EntryId, count: int) -> Sequence[Entry]:
        if self.error is not None:
            raise self.error
        return [entry for entry in self.log if entry.id >= start][:count]

    def before(self, id: EntryId) -> EntryId:
        return max((entry.id for entry in self.log if entry.id < id), default=EMPTY)

    def entries(self, entries: Sequence[Entry]) -> None:
        self.given += entries

    def rewound(self, tail: EntryId) -> None:
        raise AssertionError(tail)

    def failed(self, error: StoreError) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("garbage", [b"", b"no", b"7-0 7-1 f", b"7-0 7-1 ?x", b"7-0 8-0 o\xff", b"7-0 \xff\xff f1 x"])
def test_a_message_that_cannot_be_read_is_had_from_the_log(garbage: bytes) -> None:
    found = Log()
    assert found.follower.ready()
    found.log.append(FRAME)
    assert found.follower.message(garbage)
    assert found.given == [MARK, FRAME]
    assert found.follower.message(news_of(MARK.id, FRAME))  # the same again
    assert found.given == [MARK, FRAME]


def test_a_damaged_log_ends_the_watch_with_the_error_once() -> None:
    found = Log()
    found.error = StoreDamaged("valkey", "entry 7-0 is not what was written")
    assert found.follower.ready()  # it need not be asked again
    assert found.errors == [found.error]
    assert found.stopped == [found.follower]
    assert found.follower.message(news_of(MARK.id, FRAME))
    assert found.follower.ready()
    assert found.errors == [found.error]
    assert not found.given


def test_a_store_that_is_away_is_asked_again() -> None:
    found = Log()
    found.error = StoreUnavailable("valkey", "away")
    assert not found.follower.ready()
    assert not found.stopped
    found.error = None
    assert found.follower.ready()
    assert found.given == [MARK]
