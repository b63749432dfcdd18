"""Faults of a real server, and of nodes: what each does to logs, readers and requests."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from penstock.adapters.journals import valkey_listener
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.errors import StoreDamaged, StoreFull, StoreIncompatible, StoreReadOnly, StoreUnavailable
from penstock.ports import EMPTY, Append, EntryId, LogFrame, OwnerMark, Request
from penstock.testing import eventually
from tests.cluster.checker import History, faults
from tests.cluster.conftest import ON_DISK, Open
from tests.cluster.owners import Owner
from tests.cluster.proxy import Proxy
from tests.integration.engines import Server


def mark(epoch: int) -> OwnerMark:
    return OwnerMark(EntryId(epoch, 0), "a")


# --- the server dies -------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_and_restarted_on_its_disk_loses_nothing(server: Server, open_store: Open) -> None:
    store, elsewhere = open_store(), open_store()
    owner, reader = Owner(store), History()
    elsewhere.watch("s", EMPTY, reader)
    owner.say(5)
    reader.wait_for_event(5)
    server.kill()
    owner.say(5)
    reader.wait_for_error()
    server.start()
    owner.say(5)
    owner.wait_for_store()
    reader.wait_for_event(15)
    owner.close()
    assert faults(store.read("s"), owner.acknowledged, [reader]) == []
    assert len(owner.acknowledged) == 15


def test_a_server_that_comes_back_empty_gets_logs_and_requests_again_from_their_owner(
    server: Server, open_store: Open
) -> None:
    store, elsewhere = open_store(), open_store()
    owner, reader = Owner(store), History()
    elsewhere.watch("s", EMPTY, reader)
    owner.say(5)
    owner.wait_for_store()
    reader.wait_for_event(5)
    server.kill()
    server.empty()
    server.start()
    owner.say(5)
    owner.wait_for_store()
    reader.wait_for_event(10)
    owner.close()
    assert faults(store.read("s"), owner.acknowledged, [reader]) == []
    assert [claim.request.id for claim in store.held("n1")] == ["s"]


def test_functions_that_are_gone_are_loaded_again(server: Server, open_store: Open) -> None:
    store = open_store()
    with server.client() as client:
        client.execute_command("FUNCTION", "FLUSH")
        assert store.append_all([Append("s", EMPTY, mark(1)), Append("t", EMPTY, mark(1))]) == [EntryId(1, 0)] * 2
        client.execute_command("FUNCTION", "FLUSH")
    assert store.enqueue(Request("r", "s"))


def test_answers_that_are_lost_lead_to_no_second_entry(server: Server, open_store: Open) -> None:
    with Proxy(server.port) as proxy:
        store = open_store(f"redis://127.0.0.1:{proxy.port}")
        owner = Owner(store)
        for _ in range(5):
            proxy.lose_answers(1)
            owner.say(2)
            owner.wait_for_store()
        owner.close()
        assert proxy.lost >= 4
        assert faults(store.read("s"), owner.acknowledged) == []
        assert len(owner.acknowledged) == 10
        store.close()


def test_a_first_call_whose_answer_is_lost_is_told_as_new(server: Server, open_store: Open) -> None:
    with Proxy(server.port) as proxy:
        store = open_store(f"redis://127.0.0.1:{proxy.port}")
        mark_and_frame = [Append("s", EMPTY, mark(1)), Append("s", EntryId(1, 0), LogFrame(EntryId(1, 2), 1, b"x"))]
        proxy.lose_answers(1)
        assert store.append_all(mark_and_frame) == [EntryId(1, 0), EntryId(1, 2)]
        assert [entry.id for entry in store.read("s")] == [EntryId(1, 0), EntryId(1, 2)]
        assert store.statistics().appends == 2
        store.close()


def test_an_answer_that_stays_away_is_a_typed_error_within_the_bound(server: Server, open_store: Open) -> None:
    store = open_store(timeout=1.0, patience=1.0)
    server.stop()
    try:
        with pytest.raises(StoreUnavailable):
            store.append("s", EMPTY, mark(1))
    finally:
        server.go_on()
    assert store.append("s", store.tail("s"), mark(2)) == EntryId(2, 0)


def test_a_watcher_is_told_of_a_server_that_hangs_and_has_everything_when_it_goes_on(
    server: Server, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_listener, "_SILENCE", 0.1)
    monkeypatch.setattr(valkey_listener, "_WAIT", 0.05)
    store, reader = open_store(timeout=0.3), History()
    store.watch("s", EMPTY, reader)
    owner = Owner(store)
    owner.say()
    reader.wait_for_event(1)
    server.stop()
    try:
        reader.wait_for_error()
        owner.say()
    finally:
        server.go_on()
    reader.wait_for_event(2)
    owner.close()
    assert faults(store.read("s"), owner.acknowledged, [reader]) == []


# --- owners ----------------------------------------------------------------------------------------------------------


def test_a_writer_that_was_away_is_fenced_and_its_readers_go_on_with_the_new_owner(open_store: Open) -> None:
    zombie = Owner(open_store(), number=1)
    reader = History()
    store = open_store()
    store.watch("s", EMPTY, reader)
    zombie.say(5)
    zombie.wait_for_store()
    owner = Owner(store, number=2)
    owner.say(3)
    owner.wait_for_store()
    zombie.say(3)
    zombie.wait_for_store()
    assert zombie.log.is_fenced
    owner.say(2)
    owner.wait_for_store()
    reader.wait_for_event(10)
    zombie.close()
    owner.close()
    assert faults(store.read("s"), [*zombie.acknowledged, *owner.acknowledged], [reader]) == []


def test_of_two_that_race_for_a_log_one_owns_it_at_a_time(open_store: Open) -> None:
    stores = [open_store(), open_store()]
    reader = History()
    stores[0].watch("s", EMPTY, reader)
    ready = threading.Barrier(2)
    acknowledged = []

    def take_over_and_write(number: int) -> None:
        for _ in range(6):
            ready.wait(30)
            owner = Owner(stores[number], number=number + 1)
            for _ in range(5):
                if not owner.log.is_fenced:
                    owner.say()
            owner.wait_for_store()
            owner.close()
            acknowledged.extend(owner.acknowledged)

    threads = [threading.Thread(target=take_over_and_write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = stores[0].read("s")
    reader.wait_for_event(max(line.seq for line in acknowledged))
    assert faults(log, acknowledged, [reader]) == []


# --- errors of the server --------------------------------------------------------------------------------------------


def test_a_full_server_is_a_typed_error_and_what_waits_is_written_when_there_is_room(
    server: Server, open_store: Open
) -> None:
    store = open_store(patience=0.1)
    owner = Owner(store)
    owner.say()
    owner.wait_for_store()
    with server.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StoreFull):
            store.append("t", EMPTY, mark(1))
        assert store.read("s")
        owner.say(3)
        eventually(lambda: isinstance(owner.writer.last_error, StoreFull))
        client.config_set("maxmemory", "0")
    owner.wait_for_store()
    owner.close()
    assert faults(store.read("s"), owner.acknowledged) == []


def test_a_busy_server_is_waited_for_and_then_a_typed_error(server: Server, open_store: Open) -> None:
    store = open_store(patience=0.2)
    with server.client() as client, server.client() as other:
        client.config_set("busy-reply-threshold", "10")
        looping = threading.Thread(target=_loop_for_ever, args=(other,))
        looping.start()
        try:
            eventually(lambda: _is_busy(client))
            with pytest.raises(StoreUnavailable, match="busy"):
                store.append("s", EMPTY, mark(1))
            killing = threading.Timer(0.05, client.script_kill)
            killing.start()
            assert open_store(patience=20.0).append("s", EMPTY, mark(1)) == EntryId(1, 0)
            killing.join()
        finally:
            looping.join(30)


def _loop_for_ever(client: object) -> None:
    import redis

    with pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)  # type: ignore[attr-defined]


def _is_busy(client: object) -> bool:
    import redis

    try:
        client.ping()  # type: ignore[attr-defined]
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_servers_that_will_not_do_are_refused_when_the_store_is_opened(
    server: Server, open_store: Open, tmp_path: Path
) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreIncompatible, match="allkeys-lru"):
            open_store()
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+info", "+ping"], keys=["*"])
        with pytest.raises(StoreIncompatible, match="permit") as refused:
            open_store(f"redis://reader:secret@127.0.0.1:{server.port}")
        assert "secret" not in str(refused.value)
        with pytest.raises(StoreIncompatible, match="password") as refused:
            open_store(f"redis://reader:wrong@127.0.0.1:{server.port}")
        assert "wrong" not in str(refused.value)
        all_it_needs = ["+@all", "-@dangerous", "+info"]
        client.acl_setuser(
            "node", enabled=True, passwords=["+secret"], commands=all_it_needs, keys=["ps:*"], channels=["ps:*"]
        )
        store = open_store(f"redis://node:secret@127.0.0.1:{server.port}/0")
        owner, reader = Owner(store), History()
        store.watch("s", EMPTY, reader)
        owner.say()
        reader.wait_for_event(1)
        owner.close()
        assert "secret" not in store.name + repr(store)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="replica"):
            store.append("t", EMPTY, mark(1))
        with pytest.raises(StoreReadOnly):
            open_store()
        client.replicaof("NO", "ONE")
        assert store.append("t", EMPTY, mark(1)) == EntryId(1, 0)


def test_a_key_of_another_program_damages_no_other_log(server: Server, open_store: Open) -> None:
    store = open_store()
    with server.client() as client:
        client.set(store._key_of("t"), "not a log")
    answers = store.append_all([Append(log, EMPTY, mark(1)) for log in "stu"])
    assert answers[0] == answers[2] == EntryId(1, 0)
    assert isinstance(answers[1], StoreDamaged)
    counts = store.statistics()
    assert (counts.appends, counts.failures, counts.transactions) == (2, 1, 1)
    with pytest.raises(StoreDamaged):
        store.read("t")


def test_entries_that_nothing_of_ours_has_written_are_typed_errors(server: Server, open_store: Open) -> None:
    store, reader = open_store(), History()
    with server.client() as client:
        for field, value in ((b"x", b"1"), (b"f", b"no number"), (b"o", b"\xc1")):
            client.delete(store._key_of("s"))
            client.xadd(store._key_of("s"), {field: value}, id="1-1")
            with pytest.raises(StoreDamaged, match="1-1"):
                store.read("s")
    store.watch("s", EMPTY, reader)
    reader.wait_for_error()


def test_a_server_that_is_not_there_is_a_typed_error(server: Server, open_store: Open) -> None:
    server.kill()
    with pytest.raises(StoreUnavailable) as refused:
        open_store(patience=0.0)
    assert refused.value.store == server.url


# --- the level sync --------------------------------------------------------------------------------------------------


def test_at_the_level_sync_nothing_is_read_that_no_replica_has(
    server: Server, open_store: Open, tmp_path: Path
) -> None:
    program = "valkey" if "valkey" in open_store().view().engine.lower() else "redis"
    replica_of = ("--replicaof", f"127.0.0.1 {server.port}", "--repl-diskless-sync-delay", "0")
    with Server(tmp_path / "replica", program, (*ON_DISK, *replica_of)) as replica:
        with server.client() as client:
            eventually(lambda: client.info("replication").get("slave0", {}).get("state") == "online", 20)
        store = open_store(durability="sync", confirm_within=0.2, patience=0.0)
        elsewhere = open_store(durability="sync", confirm_within=0.2)
        owner, reader, late = Owner(store), History(), History()
        elsewhere.watch("s", EMPTY, reader)
        owner.say(3)
        owner.wait_for_store()
        reader.wait_for_event(3)
        replica.stop()
        owner.say(2)
        eventually(lambda: owner.writer.last_error is not None)
        assert "0 of 1 replicas" in str(owner.writer.last_error)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):  # again, with nothing new to write
            store.append("s", EntryId(1, 0), store.read("s")[-1])
        elsewhere.watch("s", EMPTY, late)
        late.wait_for_error()
        assert store.tail("s").seq == 5  # it is there, and no reader has it
        assert [len(one.entries_had) and one.entries_had[-1].id.seq for one in (reader, late)] == [3, 0]
        replica.go_on()
        owner.wait_for_store()
        reader.wait_for_event(5)
        late.wait_for_event(5)
        owner.close()
        assert faults(store.read("s"), owner.acknowledged, [reader, late]) == []


def test_a_disk_that_does_not_confirm_is_a_typed_error(tmp_path: Path) -> None:
    with Server(tmp_path / "server", "valkey", ("--appendonly", "yes", "--appendfsync", "no")) as server:
        how = {"durability": "sync", "replicas": 0, "on_disk": True, "patience": 0.0}
        with ValkeyJournal(server.url, **how) as store:  # type: ignore[arg-type]
            with pytest.raises(StoreUnavailable, match="disk has not confirmed"):
                store.append("s", EMPTY, mark(1))
            assert store.statistics().failures == 1
            with server.client() as client:
                client.config_set("appendfsync", "always")
            assert store.append("s", EMPTY, mark(1)) == EntryId(1, 0)


def test_a_server_that_cannot_confirm_by_disk_says_so(tmp_path: Path) -> None:
    with Server(tmp_path / "server", "redis", ON_DISK) as server:
        with server.client() as client:
            version = client.info("server")["redis_version"]
        if not version.startswith("7.0."):
            pytest.skip(f"Redis {version} has WAITAOF")
        how = {"durability": "sync", "replicas": 0, "on_disk": True}
        with (
            ValkeyJournal(server.url, **how) as store,  # type: ignore[arg-type]
            pytest.raises(StoreIncompatible, match="lacks"),
        ):
            store.append("s", EMPTY, mark(1))
