"""One suite over every log store: `penstock.ports.LogStore` says what each must do."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.adapters.journals import command_threads
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.errors import CallTimeout, NoOwner, OptionError, StoreClosed, StoreError
from penstock.ports import (
    EMPTY,
    NODE_NUMBERS,
    Append,
    Entry,
    EntryId,
    Limit,
    LogFrame,
    LogStore,
    NodeInfo,
    OwnerMark,
    Request,
    next_epoch,
)
from tests.contract.log_stores import STORES, SettableClock


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, clock: SettableClock, tmp_path: Path) -> Iterator[LogStore]:
    with STORES[request.param](tmp_path, clock) as opened:
        yield opened
        opened.close()


def mark(epoch: int, data: bytes = b"") -> OwnerMark:
    return OwnerMark(EntryId(epoch, 0), f"node-{epoch}", "open", data)


def frame(epoch: int, first: int, last: int, data: bytes = b"x", is_last: bool = False) -> LogFrame:
    return LogFrame(EntryId(epoch, last), first, data, is_last)


def begin(store: LogStore, log: str = "s", epoch: int = 1) -> EntryId:
    return store.append(log, store.tail(log), mark(epoch))


# --- logs --------------------------------------------------------------------------------------------------------


def test_a_store_is_what_the_port_says(store: LogStore) -> None:
    assert isinstance(store, LogStore)
    assert store.durability in ("async", "sync")
    assert store.name


def test_a_log_that_lapses_is_removed_by_the_clock_of_the_store(store: LogStore, clock: SettableClock) -> None:
    tails = {}
    for log, lapses in (("short", 2.0), ("again", 2.0), ("ended", 2.0), ("kept", 0.0)):
        (tails[log],) = store.append_all([Append(log, EMPTY, mark(1), lapses=lapses)])
        assert tails[log] == EntryId(1, 0)
    clock.advance(1.0)
    assert list(store.read("short")) == [mark(1)]
    assert store.append_all([Append("again", EntryId(1, 0), mark(2), lapses=10.0)]) == [EntryId(2, 0)]
    assert store.append("ended", EntryId(1, 0), frame(1, 1, 1, is_last=True)) == EntryId(1, 1)
    assert store.append("short", EntryId(1, 0), frame(1, 1, 1)) == EntryId(1, 1)  # it lapses nevertheless
    clock.advance(1.5)
    assert {log: store.tail(log).seq or store.tail(log).epoch for log in tails} == {
        "short": 0,
        "again": 2,
        "ended": 1,
        "kept": 1,
    }
    assert list(store.read("short")) == []
    assert not store.forget("short")
    assert store.append("short", EMPTY, mark(3)) == EntryId(3, 0)  # it is another log
    clock.advance(10.0)
    assert store.tail("short") == EntryId(3, 0)
    assert store.tail("again") == EMPTY


SERVERS = sorted(name for name in STORES if name.startswith(("valkey", "redis")))


@pytest.mark.parametrize("name", SERVERS)
def test_a_request_or_a_node_that_cannot_be_read_keeps_no_other_one_from_it(
    name: str, clock: SettableClock, tmp_path: Path
) -> None:
    with STORES[name](tmp_path, clock) as store:
        assert isinstance(store, ValkeyJournal)
        for request in ("a", "bad", "c"):
            store.enqueue(Request(request, "log"))
        (body,) = store._request_keys(store._part_of("bad"), "n")[:1]
        store._engine.run(body, lambda client: client.hset(body, "bad", b"\xc1"))
        store.announce(NodeInfo("n"), 60)
        says = store._nodes[1].encode()
        store.announce(NodeInfo("odd"), 60)
        store._engine.run(says, lambda client: client.hset(says, "odd", b"{"))
        assert [claim.request.id for claim in store.claim("n", 10, 60)] == ["a", "c"]
        assert [claim.request.id for claim in store.held("n")] == ["a", "c"]
        view = store.view()
        assert list(view.nodes) == ["n"]
        assert view.held == {"n": 2}  # the damaged one is gone


@pytest.mark.parametrize("name", SERVERS)
def test_what_a_node_has_claimed_is_forgotten_when_it_has_been_dead_for_a_day(
    name: str, clock: SettableClock, tmp_path: Path
) -> None:
    day = 86_400_000
    with STORES[name](tmp_path, clock) as store:
        assert isinstance(store, ValkeyJournal)
        (key,) = store._request_keys(store._part_of("r"), "dead")[4:]

        def left() -> int:
            return int(store._engine.run(key, lambda client: client.pttl(key)))

        assert store.enqueue(Request("r", "log"), "dead")
        assert day - 60_000 < left() <= day
        store._engine.run(key, lambda client: client.pexpire(key, 5_000))
        assert store.keep("dead", ["r"]) == ["r"]
        assert left() > day - 60_000
        clock.advance(20)
        assert [claim.request.id for claim in store.claim("other", 5, 10)] == ["r"]
        assert 0 < left() <= day  # it still names the request, and goes by itself


def test_a_log_that_is_not_there_is_empty(store: LogStore) -> None:
    assert store.tail("s") == EMPTY
    assert list(store.read("s")) == []
    assert not store.forget("s")


def test_what_is_appended_is_read_in_order_and_whole(store: LogStore) -> None:
    entries: list[Entry] = [mark(1, b"\x00head\xff"), frame(1, 1, 3, bytes(range(256))), frame(1, 4, 4, b"", True)]
    tail = EMPTY
    for entry in entries:
        assert store.append("s", tail, entry) == entry.id
        tail = entry.id
    assert list(store.read("s")) == entries
    assert store.tail("s") == EntryId(1, 4)
    assert list(store.read("s", EntryId(1, 0))) == entries[1:]
    assert list(store.read("s", EntryId(1, 1))) == entries[1:]
    assert list(store.read("s", EntryId(1, 3), 5)) == entries[2:]
    assert list(store.read("s", limit=2)) == entries[:2]
    assert list(store.read("s", EntryId(1, 4))) == []


def test_ids_of_the_largest_epochs_are_kept_exactly(store: LogStore) -> None:
    epoch = next_epoch(EMPTY, 4_000_000_000.0, 1023)
    begin(store, epoch=epoch)
    assert store.tail("s") == EntryId(epoch, 0)
    assert store.append("s", EntryId(epoch, 0), frame(epoch, 1, 2**40)) == EntryId(epoch, 2**40)


def test_an_append_behind_another_tail_answers_that_tail_and_changes_nothing(store: LogStore) -> None:
    begin(store)
    assert store.append("s", EntryId(1, 0), frame(1, 1, 2, b"mine")) == EntryId(1, 2)
    assert store.append("s", EntryId(1, 1), frame(1, 2, 5, b"stale")) == EntryId(1, 2)
    assert store.append("s", EMPTY, frame(1, 1, 9, b"stale")) == EntryId(1, 2)
    assert [entry.id for entry in store.read("s")] == [EntryId(1, 0), EntryId(1, 2)]


def test_an_append_to_a_log_that_lost_its_entries_is_refused(store: LogStore) -> None:
    assert store.append("s", EntryId(1, 5), frame(1, 6, 7)) == EMPTY
    assert list(store.read("s")) == []


def test_a_repeated_append_answers_its_own_id_and_is_stored_once(store: LogStore) -> None:
    begin(store)
    for _ in range(3):
        assert store.append("s", EntryId(1, 0), frame(1, 1, 2, b"once")) == EntryId(1, 2)
    assert [entry.id for entry in store.read("s")] == [EntryId(1, 0), EntryId(1, 2)]


def test_the_owner_before_a_mark_is_fenced(store: LogStore) -> None:
    begin(store, epoch=1)
    store.append("s", EntryId(1, 0), frame(1, 1, 1))
    assert store.append("s", EntryId(1, 1), mark(2)) == EntryId(2, 0)
    assert store.append("s", EntryId(1, 1), frame(1, 2, 2)) == EntryId(2, 0)
    assert store.append("s", EntryId(2, 0), frame(2, 2, 2)) == EntryId(2, 2)


def test_of_two_that_take_a_log_over_one_gets_it(store: LogStore) -> None:
    begin(store, epoch=1)
    assert store.append("s", EntryId(1, 0), mark(3)) == EntryId(3, 0)
    assert store.append("s", EntryId(1, 0), mark(4)) == EntryId(3, 0)


def test_an_id_that_does_not_grow_is_refused_as_a_mistake(store: LogStore) -> None:
    begin(store, epoch=5)
    with pytest.raises(OptionError, match=r"entry\.id"):
        store.append("s", EntryId(5, 0), frame(4, 1, 1))
    with pytest.raises(OptionError, match=r"entry\.id"):
        store.append("s", EntryId(5, 0), mark(5))
    assert store.tail("s") == EntryId(5, 0)


def test_each_append_of_a_transaction_stands_for_itself(store: LogStore) -> None:
    answers = store.append_all(
        [
            Append("a", EMPTY, mark(1)),
            Append("b", EntryId(7, 7), frame(7, 8, 8)),
            Append("a", EntryId(1, 0), frame(1, 1, 1)),
            Append("c", EMPTY, mark(2)),
        ]
    )
    assert list(answers) == [EntryId(1, 0), EMPTY, EntryId(1, 1), EntryId(2, 0)]
    assert [len(store.read(log)) for log in "abc"] == [2, 0, 1]
    assert list(store.append_all([])) == []


def test_of_many_threads_that_append_behind_one_tail_one_succeeds_each_time(store: LogStore) -> None:
    begin(store)
    won: list[tuple[int, int]] = []
    ready = threading.Barrier(4)

    def compete(node: int) -> None:
        ready.wait()
        for seq in range(1, 30):
            answer = store.append("s", EntryId(1, 0) if seq == 1 else EntryId(seq, 0), mark(seq + 1, bytes([node])))
            if answer == EntryId(seq + 1, 0):
                stored = [entry for entry in store.read("s", EntryId(seq, 0), 1) if isinstance(entry, OwnerMark)]
                if stored[0].data == bytes([node]):
                    won.append((seq, node))

    threads = [threading.Thread(target=compete, args=(node,)) for node in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seq for seq, _ in won) == list(range(1, 30))
    assert [entry.id.epoch for entry in store.read("s")] == list(range(1, 31))


def test_names_of_logs_are_told_apart_exactly(store: LogStore) -> None:
    names = ["s", "S", "s ", "\u00fc", "u\u0308", "{s}", "s%", "agent\x1fs", "'; --", "x" * 256]
    for epoch, name in enumerate(names, 1):
        assert store.append(name, EMPTY, mark(epoch)) == EntryId(epoch, 0)
    assert [store.tail(name).epoch for name in names] == list(range(1, len(names) + 1))


def test_trimming_removes_the_entries_before_an_id(store: LogStore) -> None:
    begin(store)
    for seq in range(1, 6):
        store.append("s", EntryId(1, seq - 1), frame(1, seq, seq))
    assert store.trim("s", EntryId(1, 4)) == 4
    assert [entry.id.seq for entry in store.read("s")] == [4, 5]
    assert store.append("s", EntryId(1, 5), frame(1, 6, 6)) == EntryId(1, 6)
    assert store.trim("none", EntryId(1, 4)) == 0
    assert store.trim("s", EntryId(9, 9)) == 2
    assert store.append("s", EntryId(1, 6), frame(1, 7, 7)) == EntryId(1, 7)


def test_a_forgotten_log_is_empty_and_can_begin_again(store: LogStore) -> None:
    begin(store)
    assert store.forget("s")
    assert store.tail("s") == EMPTY
    assert begin(store, epoch=9) == EntryId(9, 0)


# --- watching ----------------------------------------------------------------------------------------------------


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.ids: list[EntryId] = []
        self.rewinds: list[EntryId] = []
        self.errors: list[StoreError] = []

    def entries(self, entries: Sequence[Entry]) -> None:
        with self.condition:
            self.ids += [entry.id for entry in entries]
            self.condition.notify_all()

    def rewound(self, tail: EntryId) -> None:
        with self.condition:
            self.rewinds.append(tail)
            self.condition.notify_all()

    def failed(self, error: StoreError) -> None:
        with self.condition:
            self.errors.append(error)

    def wait_for(self, count: int) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: len(self.ids) >= count, 10)


def test_a_watch_gives_what_is_there_and_what_comes_once_and_in_order(store: LogStore) -> None:
    begin(store)
    store.append("s", EntryId(1, 0), frame(1, 1, 1))
    seen, late = Seen(), Seen()
    watch = store.watch("s", EMPTY, seen)
    other = store.watch("s", EntryId(1, 1), late)
    for seq in range(2, 50):
        store.append("s", EntryId(1, seq - 1), frame(1, seq, seq))
    seen.wait_for(50)
    late.wait_for(48)
    assert seen.ids == [EntryId(1, seq) for seq in range(50)]
    assert late.ids == [EntryId(1, seq) for seq in range(2, 50)]
    assert not seen.errors
    watch.close()
    watch.close()
    other.close()


def test_a_closed_watch_gives_nothing_more(store: LogStore) -> None:
    begin(store)
    seen, other = Seen(), Seen()
    watch = store.watch("s", EMPTY, seen)
    still = store.watch("s", EMPTY, other)
    seen.wait_for(1)
    watch.close()
    store.append("s", EntryId(1, 0), frame(1, 1, 1))
    other.wait_for(2)
    assert seen.ids == [EntryId(1, 0)]
    still.close()


def test_a_watch_may_begin_before_the_log(store: LogStore) -> None:
    seen = Seen()
    watch = store.watch("s", EMPTY, seen)
    begin(store)
    seen.wait_for(1)
    assert seen.ids == [EntryId(1, 0)]
    watch.close()


def test_a_watch_is_told_when_the_log_is_shorter_than_what_it_gave(store: LogStore) -> None:
    begin(store)
    seen = Seen()
    watch = store.watch("s", EMPTY, seen)
    seen.wait_for(1)
    store.forget("s")
    begin(store, epoch=2)
    with seen.condition:
        assert seen.condition.wait_for(lambda: seen.rewinds == [EMPTY], 10)
    seen.wait_for(2)
    assert seen.ids == [EntryId(1, 0), EntryId(2, 0)]
    watch.close()


# --- requests ----------------------------------------------------------------------------------------------------

LEASE = 3.0


def test_a_request_is_given_to_one_node_once(store: LogStore) -> None:
    for number in range(3):
        assert store.enqueue(Request(f"r{number}", f"s{number}", b"\x00\xff"))
    first = store.claim("a", 2, LEASE)
    second = store.claim("b", 5, LEASE)
    assert [claim.request.id for claim in first] == ["r0", "r1"]
    assert [claim.request for claim in second] == [Request("r2", "s2", b"\x00\xff")]
    assert [claim.deliveries for claim in (*first, *second)] == [1, 1, 1]
    assert list(store.claim("a", 5, LEASE)) == []
    assert [claim.request.id for claim in store.held("a")] == ["r0", "r1"]


def test_a_second_request_with_the_same_id_is_ignored(store: LogStore) -> None:
    assert store.enqueue(Request("r", "s", b"1"))
    assert not store.enqueue(Request("r", "t", b"2"))
    (claim,) = store.claim("a", 5, LEASE)
    assert claim.request.data == b"1"
    assert not store.enqueue(Request("r", "s", b"3"))


def test_a_request_that_a_node_has_begun_is_given_to_no_other(store: LogStore) -> None:
    assert store.enqueue(Request("r", "s"), node="a")
    assert list(store.claim("b", 5, LEASE)) == []
    (claim,) = store.held("a")
    assert claim.deliveries == 1


def test_a_claim_that_is_not_kept_goes_to_another_node(store: LogStore, clock: SettableClock) -> None:
    store.enqueue(Request("r", "s"), node="a")
    store.enqueue(Request("q", "t"), node="a")
    clock.advance(2)
    assert list(store.keep("a", ["r", "q", "none"])) == ["r", "q"]
    clock.advance(2)
    assert list(store.keep("a", ["q"])) == ["q"]
    clock.advance(1.5)
    (claim,) = store.claim("b", 5, LEASE)
    assert (claim.request.id, claim.deliveries) == ("r", 2)
    assert list(store.keep("a", ["r", "q"])) == ["q"]
    assert not store.release("a", "r")
    assert store.release("b", "r")
    assert not store.release("b", "r")


def test_a_released_request_is_given_to_nobody(store: LogStore, clock: SettableClock) -> None:
    store.enqueue(Request("r", "s"), node="a")
    assert store.release("a", "r")
    clock.advance(100)
    assert list(store.claim("b", 5, LEASE)) == []
    assert list(store.held("a")) == []


def test_a_claim_is_handed_over_to_a_node_by_name(store: LogStore) -> None:
    store.enqueue(Request("r", "s"), node="a")
    assert store.hand_over("a", "r", "b")
    assert not store.hand_over("a", "r", "c")
    assert [claim.request.id for claim in store.held("b")] == ["r"]
    assert list(store.keep("a", ["r"])) == []


def test_a_claimer_sees_that_the_stream_was_cancelled(store: LogStore, clock: SettableClock) -> None:
    store.enqueue(Request("r", "s"))
    store.enqueue(Request("q", "t"))
    store.cancel("s", 5.0)
    assert [claim.is_cancelled for claim in store.claim("a", 5, LEASE)] == [True, False]
    clock.advance(6)
    assert [claim.is_cancelled for claim in store.claim("b", 5, LEASE)] == [False, False]


def test_a_request_is_opened_and_closed_with_the_entries_of_its_log(store: LogStore, clock: SettableClock) -> None:
    request = Request("r", "s", b"how")
    for _ in range(2):  # the answer of the first was lost
        assert list(store.append_all([Append("s", EMPTY, mark(1), opens=request, node="a")])) == [EntryId(1, 0)]
    assert [(claim.request, claim.deliveries) for claim in store.held("a")] == [(request, 1)]
    assert list(store.claim("b", 5, LEASE)) == []
    stale = Append("s", EMPTY, frame(1, 1, 1, is_last=True), opens=Request("q", "s"), node="a", closes="r")
    assert list(store.append_all([stale])) == [EntryId(1, 0)]
    assert [claim.request.id for claim in store.held("a")] == ["r"]
    clock.advance(4)
    assert [claim.request.id for claim in store.claim("b", 5, LEASE)] == ["r"]
    for _ in range(2):
        store.append_all([Append("s", EntryId(1, 0), frame(1, 1, 1, is_last=True), closes="r")])
    assert list(store.held("b")) == []


# --- commands ----------------------------------------------------------------------------------------------------


def test_a_command_reaches_what_serves_the_log(store: LogStore) -> None:
    serving = store.serve("s", lambda command: b"did " + command)
    assert store.command("s", b"pause", 10.0) == b"did pause"
    with pytest.raises(NoOwner):
        store.command("t", b"pause", 10.0)
    serving.close()
    serving.close()
    with pytest.raises(NoOwner):
        store.command("s", b"pause", 10.0)


def test_a_command_without_a_reply_in_time_is_an_error(store: LogStore) -> None:
    go_on = threading.Event()

    def carry_out(command: bytes) -> bytes:
        go_on.wait(10)
        return b""

    serving = store.serve("s", carry_out)
    with pytest.raises(CallTimeout):
        store.command("s", b"pause", 0.01)
    go_on.set()
    serving.close()


def test_commands_that_wait_are_bounded_and_hold_up_no_other_log(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_threads, "OF_ONE_LOG", 2)
    monkeypatch.setattr(command_threads, "OF_ALL_LOGS", 3)
    go_on, waiting = threading.Event(), threading.Semaphore(0)
    done: list[bytes] = []

    def carry_out(command: bytes) -> bytes:
        if not go_on.is_set():
            waiting.release()
            assert go_on.wait(10)
        done.append(command)
        return command

    serving = [store.serve(log, carry_out) for log in ("s", "t")]
    serving.append(store.serve("free", lambda command: command))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(store.command, "s", b"first", 10.0) for _ in range(2)]
        assert waiting.acquire(timeout=10)
        assert waiting.acquire(timeout=10)
        with pytest.raises(CallTimeout):  # the log has no room
            store.command("s", b"refused", 0.05)
        assert store.command("free", b"other", 10.0) == b"other"
        asked.append(pool.submit(store.command, "t", b"third", 10.0))
        assert waiting.acquire(timeout=10)
        with pytest.raises(CallTimeout):  # none has
            store.command("free", b"refused", 0.05)
        late = pool.submit(store.command, "s", b"late", 10.0)
        go_on.set()
        assert [each.result(10) for each in (*asked, late)] == [b"first", b"first", b"third", b"late"]
    assert sorted(done) == [b"first", b"first", b"late", b"third"]
    assert store.statistics().commands_refused >= 2
    for each in serving:
        each.close()


def test_an_owner_that_has_been_replaced_takes_nothing_away_from_its_successor(store: LogStore) -> None:
    before = store.serve("s", lambda command: b"old")
    after = store.serve("s", lambda command: b"new")
    before.close()
    assert store.command("s", b"", 10.0) == b"new"
    after.close()


# --- shared by all nodes -----------------------------------------------------------------------------------------


def test_a_limit_admits_its_burst_and_then_its_rate(store: LogStore, clock: SettableClock) -> None:
    limit = Limit("k", per_second=0.01, burst=5.0)  # so slow that the time of the test itself does not matter
    assert [store.take(limit) for _ in range(5)] == [0.0] * 5
    assert store.take(limit) == pytest.approx(100, abs=10)
    assert store.take(limit, 2.0) == pytest.approx(200, abs=10)
    assert store.take(Limit("other", 0.01, 5.0)) == 0.0
    clock.advance(100)
    assert store.take(limit) == 0.0
    assert store.take(limit) > 0.0
    clock.advance(1_000_000)
    assert [store.take(limit, 5.0) > 0 for _ in range(2)] == [False, True]
    with pytest.raises(OptionError, match="cost"):
        store.take(limit, 6.0)


def test_the_view_has_the_nodes_that_live_and_what_each_holds(store: LogStore, clock: SettableClock) -> None:
    info = NodeInfo("a", streams=2, capacity=10, address="h:1", facts={"pid": 7})
    store.announce(info, 3.0)
    store.announce(NodeInfo("b"), 3.0)
    store.enqueue(Request("r", "s"), node="a")
    store.enqueue(Request("q", "t"))
    view = store.view()
    assert view.nodes == {"a": info, "b": NodeInfo("b")}
    assert (dict(view.held), view.waiting) == ({"a": 1}, 1)
    assert view.engine
    clock.advance(2)
    store.announce(info, 3.0)
    clock.advance(2)
    assert set(store.view().nodes) == {"a"}
    store.announce(info, 0)
    assert not store.view().nodes
    assert dict(store.view().held) == {"a": 1}


def test_nodes_of_a_shared_store_get_numbers_of_their_own(store: LogStore) -> None:
    numbers = [store.new_number() for _ in range(20)]
    assert all(0 <= number < NODE_NUMBERS for number in numbers)
    assert len(set(numbers)) == (20 if store.is_shared else 1)


def test_appends_are_counted(store: LogStore) -> None:
    begin(store)
    store.append("s", EntryId(1, 0), frame(1, 1, 1))
    store.append("s", EntryId(0, 0), frame(1, 1, 2))
    counts = store.statistics()
    assert (counts.appends, counts.refused, counts.failures) == (2, 1, 0)
    assert counts.transactions == 3


def test_a_closed_store_refuses_everything_with_a_typed_error(store: LogStore) -> None:
    begin(store)
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.append("s", EntryId(1, 0), frame(1, 1, 1))
    with pytest.raises(StoreClosed):
        store.read("s")
    with pytest.raises(StoreClosed):
        store.claim("a", 1, LEASE)
    with pytest.raises(StoreClosed):
        store.command("s", b"", 1.0)
