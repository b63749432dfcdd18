"""What a node keeps of the streams of others, and tells their owners, when these are late, silent or gone."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

import penstock
from penstock.actors.agent.keeping import AgentKeeper, log_of
from penstock.actors.stream.messages import Cancel
from penstock.cluster.followed import FollowedRecord
from penstock.errors import CallTimeout, NoOwner, StoreDamaged, StoreError
from penstock.events import Event, StreamCompleted, StreamFailed
from penstock.events.codec import decode_value, encode_value
from penstock.gateway.channels import Channels
from penstock.ports import EMPTY, Append, Entry, EntryId, LogFrame, NodeInfo, OwnerMark, Request
from penstock.recovery import Recovered, recover
from penstock.testing import eventually
from tests.unit.cluster.nodes import EAGER, SharedStore, node_of, nodes

RARELY: dict[str, Any] = {"lease": 60, "heartbeat": 20, "reap": 20}  # the test does what the processes do
FORGETFUL = EAGER.replace(keep_finished=0)


def test_a_log_that_nobody_writes_again_ends_for_its_readers_and_leaves_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.cluster.node._MISSES", 0.2)
    store = SharedStore()
    with nodes(2, store) as (one, two):
        stream = one.open_stream("s", FORGETFUL)
        stream.process_token("a")
        eventually(lambda: stream._record.log.last_seq == 1)
        reader = two.stream("s").events(after=0)
        record = two._services.streams.peek("s")
        one._journal.is_cut = True  # type: ignore[union-attr]
        store._requests.clear()
        store.forget("s")
        end = list(reader)[-1]
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.Fenced)
        with pytest.raises(penstock.StreamNotFound):
            two.stream("s")
        eventually(lambda: record not in two._services.streams.all())
        assert not node_of(two)._followed
        one._journal.is_cut = False  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [CallTimeout("a command", 20), NoOwner("a")])
def test_an_owner_that_does_not_answer_is_asked_once_a_round(error: Exception) -> None:
    with nodes(2, **RARELY) as (one, two):
        for name in ("a", "b", "c"):
            one.open_stream(name, EAGER)
        readers = [two.stream(name).events(after=0) for name in ("a", "b", "c")]
        asked: list[float] = []

        def command(log: str, data: bytes, timeout: float) -> bytes:
            asked.append(timeout)
            raise error

        two._journal.command = command  # type: ignore[union-attr, method-assign]
        node_of(two).tend()
        assert asked == [20]
        for reader in readers:
            reader.close()


def test_a_stream_whose_owner_hangs_is_cancelled_by_one_thread_however_often_it_is_asked() -> None:
    with nodes(2, **RARELY) as (one, two):
        one.open_stream("s", EAGER)
        record, hangs, asked = two.stream("s")._record, threading.Event(), []

        def command(log: str, data: bytes, timeout: float) -> bytes:
            asked.append(log)
            assert hangs.wait(10)
            raise CallTimeout("a command", timeout)

        two._journal.command = command  # type: ignore[union-attr, method-assign]
        assert [record.propose(Cancel()) for _ in range(5)] == [True, False, False, False, False]
        eventually(lambda: asked == ["s"])
        hangs.set()
        eventually(lambda: record.propose(Cancel()))  # the first try has failed
        eventually(lambda: len(asked) == 2)


def test_a_new_owner_is_told_of_readers_also_if_it_comes_while_the_old_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with nodes(2, **RARELY) as (one, two):
        one.open_stream("s", EAGER)
        reader = two.stream("s").events(after=0)
        told: list[str] = []

        def order(record: FollowedRecord, order: dict[str, Any], timeout: float, *, is_patient: bool = True) -> None:
            told.append(record.owner)
            if len(told) == 1:
                record.entries([OwnerMark(EntryId(1 << 60, 0), "new", "takeover")])

        monkeypatch.setattr(FollowedRecord, "order", order)
        for _ in range(3):
            node_of(two).tend()
        assert told == [node_of(one).name, "new"]
        reader.close()


def test_what_a_log_says_later_about_its_request_is_known_to_a_node_that_follows_it() -> None:
    with nodes(2) as (one, two):
        stream = one.open_stream("s", EAGER)
        two.stream("s")
        channels = Channels(two._services.streams, 5.0, lambda owner, tokens: None)
        assert channels.get("s").owner is None
        assert stream._record.stored is not None
        stream._record.stored.note(gateway={"owner": "ann", "protocol": "native", "request": {}, "model": "m"})
        eventually(lambda: channels.get("s").owner == "ann")
        assert channels.get("s") is channels.get("s")


def test_the_tokens_of_a_stream_are_counted_where_it_runs_alone() -> None:
    with nodes(3) as systems:
        facts = {"gateway": {"owner": "ann", "protocol": "native", "request": {}, "model": "m"}}
        record = systems[0]._services.open_stream("s", EAGER, metadata={}, on_orphan="continue", facts=facts)
        used: list[int] = []
        channels = [
            Channels(system._services.streams, 5.0, lambda owner, tokens, number=number: used.append(number))  # type: ignore[misc]
            for number, system in enumerate(systems)
        ]
        systems[1].stream("s")
        for number in range(2):
            assert channels[number].get("s").owner == "ann"
        stream = systems[0].stream("s")
        stream.process_token("a")
        stream.stop()
        assert systems[1].stream("s").result(10).text == "a"
        systems[2].stream("s")  # read from the store
        assert channels[2].get("s").owner == "ann"
        for one in channels:
            one.sweep()
        assert record.is_over
        assert used == [0]


def test_readers_elsewhere_of_a_stream_that_has_ended_are_not_kept() -> None:
    with nodes(1) as (one,):
        node, stream = node_of(one), one.open_stream("s", EAGER)
        node._set_readers(stream._record, "other", True)
        assert stream._record in node._readers
        stream.stop()
        eventually(lambda: not node._served)
        node._set_readers(stream._record, "other", True)  # an order that was under way
        assert not node._readers


def test_the_readers_of_a_node_count_until_it_is_missed_for_long_without_a_break() -> None:
    with nodes(1, **RARELY) as (one,):
        node, stream = node_of(one), one.open_stream("s", EAGER)
        now = 1e6
        node._now = lambda: now  # type: ignore[method-assign]
        node._set_readers(stream._record, "other", True)
        for is_living in (False, True, False):
            node.store.announce(NodeInfo("other"), 1e9 if is_living else 0)
            now += 100
            node._tend_readers()
        assert stream._record.hub.subscribers == 1
        now += 100
        node._tend_readers()
        assert stream._record.hub.subscribers == 0


def test_a_node_that_drains_leaves_what_it_is_given_to_others() -> None:
    with nodes(1, **RARELY) as (one,):
        node = node_of(one)
        node.is_draining = True
        node.store.enqueue(Request("r", "log"), node.name)
        node._carry_out_own(b"")
        assert [claim.request.id for claim in node.store.held(node.name)] == ["r"]


def test_a_log_of_something_else_is_no_stream() -> None:
    store = SharedStore()
    mark = OwnerMark(EntryId(1 << 10, 0), "n", "open", encode_value({"digest": b"", "stream_id": "s"}))
    store.append("once\x1fkey", EMPTY, mark)
    with nodes(1, store) as (one,), pytest.raises(penstock.StreamNotFound):
        one.stream("once\x1fkey")


def test_a_stream_that_is_looked_up_while_the_system_stops_ends_for_its_readers() -> None:
    with nodes(2) as (one, two):
        one.open_stream("s", EAGER)
        node, store = node_of(two), two._journal
        watch = store.watch  # type: ignore[union-attr]

        def watch_late(*arguments: Any) -> Any:
            node.close()
            return watch(*arguments)

        store.watch = watch_late  # type: ignore[union-attr, method-assign]
        record = node.load("s")
        assert record is not None
        assert record.is_over
        assert not node._followed


# --- damaged logs ----------------------------------------------------------------------------------------------------


class Rotten(SharedStore):
    """A store in which some logs cannot be read any more, or be appended to by other nodes than the first."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: set[str] = set()
        self.unwritable: set[str] = set()

    def read(self, log: str, *arguments: Any, **named: Any) -> Sequence[Entry]:
        if log in self.unreadable:
            raise StoreDamaged(self.name, f"entry 7-1 of log {log!r} is not what was written")
        return super().read(log, *arguments, **named)

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        good = [append for append in appends if append.log not in self.unwritable]
        answers = iter(super().append_all(good))
        bad = StoreDamaged(self.name, "a key is of another type")
        return [bad if append.log in self.unwritable else next(answers) for append in appends]


def end_of(reader: Iterable[Event]) -> StreamFailed:
    end = list(reader)[-1]
    assert isinstance(end, StreamFailed)
    return end


def test_a_log_that_cannot_be_read_on_ends_for_its_readers_with_the_error_and_goes_on_for_its_owner() -> None:
    store = Rotten()
    with nodes(2, store) as (one, two):
        stream, sound = one.open_stream("s", EAGER), one.open_stream("t", EAGER)
        stream.process_token("a")
        eventually(lambda: stream._record.log.last_seq == 1)
        readers = [two.stream(name).events(after=0) for name in "st"]
        store.unreadable.add("s")
        stream.process_token("b")
        assert isinstance(end_of(readers[0]).error, StoreDamaged)
        with pytest.raises(StoreDamaged):
            two.stream("s")
        eventually(lambda: store.tail("s").seq == 2)
        for each in (stream, sound):
            each.process_token("c")
            each.stop()
            assert each.result(10).text.endswith("c")
        assert isinstance(list(readers[1])[-1], StreamCompleted)
        assert "s" not in store._watches._watches  # nothing tries it again with each entry


def test_events_that_cannot_be_decoded_end_a_stream_for_its_readers_with_the_error() -> None:
    with nodes(2) as (one, two):
        stream = one.open_stream("s", EAGER)
        there = two.stream("s")
        reader, record = there.events(after=0), there._record
        assert isinstance(record, FollowedRecord)
        record.entries([LogFrame(EntryId(1 << 60, 1), 1, b"\xff\x00")])
        error = end_of(reader).error
        assert isinstance(error, StoreDamaged)
        assert record.is_closed
        assert not stream.is_over


def test_a_watcher_that_fails_does_not_fail_the_thread_that_appends() -> None:
    store = SharedStore()
    mark = OwnerMark(EntryId(1 << 10, 0), "n", "open")

    class Failing:
        def entries(self, entries: Sequence[Entry]) -> None:
            raise ValueError("a fault of the watcher")

    store.watch("log", EMPTY, Failing())  # type: ignore[arg-type]
    assert store.append("log", EMPTY, mark) == mark.id


def test_a_history_that_cannot_be_shortened_is_no_fault_of_the_thread_that_writes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Rotten()
    with nodes(1, store) as (one,):
        writer = one._services.writer
        assert writer is not None
        keeper = AgentKeeper(writer, "bob", 5.0)
        store.unreadable.add(log_of("bob"))
        keeper.replace([{"role": "user", "content": "Hello"}])
        eventually(lambda: store.tail(log_of("bob")).seq == 1)
        assert writer.flush(5.0)
        assert "history_not_compacted agent=bob error=StoreDamaged" in caplog.text
        assert "store_callback_failed" not in caplog.text


def test_a_stream_that_cannot_be_recovered_keeps_no_other_one_from_it(caplog: pytest.LogCaptureFixture) -> None:
    store = Rotten()
    with nodes(2, store, **RARELY) as (one, two):
        for name in ("a", "b", "c", "d", "e"):
            one.open_stream(name, EAGER).process_token(name)
            eventually(lambda name=name: store.tail(name).seq == 1)  # type: ignore[misc]
        one._journal.is_cut = True  # type: ignore[union-attr]
        store.unreadable.add("a")
        store.unwritable.add("b")
        frame = store._logs["c"].entries[-1]
        assert isinstance(frame, LogFrame)
        store._logs["c"].entries[-1] = msgspec.structs.replace(frame, data=b"\xff\x00")
        spoil_redo(store, "d")
        claims = store.held(node_of(one).name)
        for claim in claims:
            store.hand_over(node_of(one).name, claim.request.id, node_of(two).name)
        assert recover(two._services, given=store.held(node_of(two).name)) == Recovered(2, 0, 2, 1)
        assert two.stream("e").is_over
        assert isinstance(end_of(two.stream("d").events(after=0)).error, penstock.StreamInterrupted)
        for said in (
            "stored_log_damaged stream_id=a",
            "stored_log_damaged stream_id=c",
            "stream_not_recovered stream_id=b",
        ):
            assert said in caplog.text
        store.unwritable.clear()


def spoil_redo(store: SharedStore, name: str) -> None:
    """Let a stored log say that its call is made again, without saying how."""
    mark = store._logs[name].entries[0]
    assert isinstance(mark, OwnerMark)
    head = decode_value(mark.data)
    store._logs[name].entries[0] = msgspec.structs.replace(mark, data=encode_value({**head, "redo": {"model": "m"}}))
