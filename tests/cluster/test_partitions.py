"""Networks that are cut, one way or both, answers that do not come, clocks that jump, and servers that load."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.actors.stream.heads import read_log
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.errors import Fenced, StoreUnavailable
from penstock.ports import EMPTY, EntryId, OwnerMark, Request
from penstock.testing import eventually
from tests.cluster.chaos import Chaos, compared, unlike_any
from tests.cluster.checker import History, faults
from tests.cluster.clocks import WallClock
from tests.cluster.conftest import Open
from tests.cluster.namespaces import Namespace
from tests.cluster.owners import Owner
from tests.cluster.proxy import Proxy
from tests.cluster.serving import NodeProcess, asked, node_process, variables_of
from tests.integration.command import run
from tests.integration.engines import PROGRAMS, Server
from tests.integration.gateway.serving import events_of

WAYS = {
    "to the server": {"to_server": True, "to_client": False},
    "from the server": {"to_server": False, "to_client": True},
    "both ways": {"to_server": True, "to_client": True},
}


@pytest.fixture
def link(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


# --- one log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_owner_that_is_cut_off_writes_nothing_after_another_has_its_log(
    way: str, link: Proxy, open_store: Open
) -> None:
    """What the network held comes to the server, or back from it, long after the other owner has begun."""
    store, reader = open_store(), History()
    store.watch("s", EMPTY, reader)
    zombie = Owner(open_store(link.url, timeout=0.3, patience=0.0), number=1)
    zombie.say(5)
    zombie.wait_for_store()
    link.cut(**WAYS[way])
    zombie.say(3)
    eventually(lambda: link.held and isinstance(zombie.writer.last_error, StoreUnavailable), 20)
    owner = Owner(store, number=2)
    owner.say(4)
    owner.wait_for_store()
    link.heal()
    zombie.wait_for_store()  # it may have the answers that were held back, of what the server had before
    with contextlib.suppress(Fenced):
        zombie.say(1)
    eventually(lambda: zombie.log.is_fenced, 20)
    owner.say(1)
    owner.wait_for_store()
    reader.wait_for_event(owner.lines[-1].seq)
    zombie.close()
    owner.close()
    assert faults(store.read("s"), [*zombie.acknowledged, *owner.acknowledged], [reader]) == []
    assert len(owner.acknowledged) == 5


@pytest.mark.parametrize("way", WAYS)
def test_an_owner_that_was_cut_off_for_a_while_goes_on_without_a_second_entry(
    way: str, link: Proxy, open_store: Open
) -> None:
    store, reader = open_store(), History()
    store.watch("s", EMPTY, reader)
    owner = Owner(open_store(link.url, timeout=0.3, patience=0.0))
    owner.say(5)
    owner.wait_for_store()
    link.cut(**WAYS[way])
    owner.say(3)
    eventually(lambda: isinstance(owner.writer.last_error, StoreUnavailable), 20)
    link.heal()
    owner.say(2)
    owner.wait_for_store()
    reader.wait_for_event(10)
    owner.close()
    assert faults(store.read("s"), owner.acknowledged, [reader]) == []
    assert len(owner.acknowledged) == 10


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_was_cut_off_has_everything_afterwards(way: str, link: Proxy, open_store: Open) -> None:
    store, reader = open_store(link.url, timeout=0.3), History()
    store.watch("s", EMPTY, reader)
    owner = Owner(open_store())
    owner.say(2)
    owner.wait_for_store()
    reader.wait_for_event(2)
    link.cut(**WAYS[way])
    owner.say(20)
    owner.wait_for_store()
    link.heal()
    owner.say(1)
    reader.wait_for_event(23)
    owner.close()
    assert faults(owner.store.read("s"), owner.acknowledged, [reader]) == []


def test_whatever_answers_are_lost_no_request_is_claimed_or_given_up_twice(link: Proxy, open_store: Open) -> None:
    """Requests are entered, claimed, renewed, handed over and ended, and each first answer is lost."""
    direct, store = open_store(), open_store(link.url, patience=20.0)
    for number in range(3):
        link.lose_answers(1, b"enqueue")
        owner = Owner(store, f"s{number}", number=1)
        owner.say()
        owner.wait_for_store()
        owner.close()
    ids = [claim.request.id for claim in direct.held("n1")]
    assert sorted(ids) == ["s0", "s1", "s2"]
    link.lose_answers(1, b"keep")
    assert sorted(store.keep("n1", ids)) == sorted(ids)
    link.lose_answers(1, b"hand_over")
    store.hand_over("n1", "s0", "n2")
    link.lose_answers(1, b"release")
    store.release("n1", "s1")
    direct.enqueue(Request("s3", "s3"))
    link.lose_answers(1, b"claim")
    store.claim("n3", 10, 600.0)
    owned = {node: sorted(claim.request.id for claim in direct.held(node)) for node in ("n1", "n2", "n3")}
    assert owned == {"n1": ["s2"], "n2": ["s0"], "n3": ["s3"]}
    assert direct.claim("n4", 10, 600.0) == []
    assert link.lost >= 7


def test_a_server_that_loads_its_files_is_waited_for(server: Server, open_store: Open) -> None:
    store, reader = open_store(patience=0.0), History()
    store.watch("s", EMPTY, reader)
    owner = Owner(store)
    owner.say(5)
    owner.wait_for_store()
    for number in range(300):
        store.append(f"t{number}", EMPTY, OwnerMark(EntryId(1, 0), "a"))
    server.kill_to_load(5_000)
    starting = threading.Thread(target=server.start)
    starting.start()
    eventually(lambda: _says_that_it_loads(store), 20)
    owner.say(5)
    starting.join()
    owner.wait_for_store()
    reader.wait_for_event(10)
    owner.close()
    assert faults(store.read("s"), owner.acknowledged, [reader]) == []
    assert len(owner.acknowledged) == 10


def _says_that_it_loads(store: ValkeyJournal) -> bool:
    try:
        store.tail("s")
    except StoreUnavailable as error:
        return "reads its data from disk" in str(error)
    return False


# --- nodes -----------------------------------------------------------------------------------------------------------


def _is_beyond(node: NodeProcess, stream_id: str, seq: int) -> bool:
    return node.last_seq(stream_id) > seq


def had_by(node: NodeProcess, stream_id: str, **more: str) -> list[tuple[int, str, object]]:
    """What a reader at a node has from the beginning to the end."""
    text = node.get(f"/v1/streams/{stream_id}/events", headers=more).text
    return [(int(id.partition("-")[2]), name, data) for id, name, data in events_of(text) if id]


def owners_of(url: str, stream_id: str) -> list[str]:
    """The names of the nodes that have owned a log, in order."""
    with ValkeyJournal(url) as store:
        marks = [entry for entry in store.read(stream_id) if isinstance(entry, OwnerMark) and entry.reason != "note"]
    return [mark.node.partition("~")[0] for mark in marks]


def test_a_wall_clock_that_jumps_loses_no_lease_and_doubles_no_takeover(tmp_path: Path) -> None:
    words = "".join(f"1.{place} " for place in range(160))
    script = Script([Answer(words, tokens_per_second=40), Answer("2.0 2.1 ")])
    with Server(tmp_path / "server") as server, LoopbackProvider(script) as provider:
        clocks = [WallClock(tmp_path / name) for name in ("clock-a", "clock-b")]
        how = [
            {
                "PENSTOCK_PROVIDERS__OPENAI__BASE_URL": provider.base_url,
                **clock.variables(variables_of()["PYTHONPATH"]),
            }
            for clock in clocks
        ]
        with (
            node_process(tmp_path, server.url, "b", **how[1]) as second,
            node_process(tmp_path, server.url, "a", **how[0]) as first,
        ):
            assert first.post("/v1/streams", asked("s")).status_code == 201
            for seconds in (86_400.0, -86_400.0, 3_600.0):
                clocks[0].jump(seconds)
                clocks[1].jump(-seconds)
                before = second.last_seq("s")
                eventually(partial(_is_beyond, second, "s", before + 2), 20)
            assert owners_of(server.url, "s") == ["a"]
            first.send(signal.SIGKILL)
            had = had_by(second, "s")
            assert owners_of(server.url, "s") == ["a", "b"]
        with ValkeyJournal(server.url) as store:
            assert compared(had, read_log("s", store.read("s")).events) == []
        for clock in clocks:
            clock.close()


@pytest.mark.parametrize("way", ["to the server", "from the server"])
def test_a_node_in_a_network_of_its_own_that_is_cut_is_fenced_when_it_is_back(way: str, tmp_path: Path) -> None:
    """Packets are dropped by routes of the kernel, in one direction."""
    with Namespace() as network:
        settings = ("--bind", f"127.0.0.1 {network.outside}", "--protected-mode", "no")
        with (
            Server(tmp_path / "server", settings=settings) as server,
            LoopbackProvider(Script(unlike_any), host="0.0.0.0") as provider,
        ):
            base_url = f"http://{{}}:{provider.base_url.rpartition(':')[2]}"
            key = run(tmp_path, "keys", "new", str(tmp_path / "keys"), "--name", "a", "--scope", "write").out.strip()
            bearer = {"authorization": f"Bearer {key}"}
            with (
                node_process(
                    tmp_path,
                    server.url,
                    "b",
                    *("--keys", str(tmp_path / "keys")),
                    PENSTOCK_PROVIDERS__OPENAI__BASE_URL=base_url.format("127.0.0.1"),
                ) as second,
                node_process(
                    tmp_path,
                    f"redis://{network.outside}:{server.port}",
                    "a",
                    *("--keys", str(tmp_path / "keys"), "--host", network.inside),
                    prefix=network.prefix,
                    PENSTOCK_PROVIDERS__OPENAI__BASE_URL=base_url.format(network.outside),
                ) as first,
            ):
                assert first.post("/v1/streams", asked("s"), headers=bearer).status_code == 201
                network.cut(to_outside=way == "to the server")
                eventually(lambda: owners_of(server.url, "s") == ["a", "b"], 30)
                network.heal()
                had = had_by(second, "s", **bearer)
                eventually(lambda: had_by(first, "s", **bearer)[-1:] == had[-1:], 30)
                assert had_by(first, "s", **bearer)[-1] == had[-1]
            assert owners_of(server.url, "s") == ["a", "b"]
            with ValkeyJournal(server.url) as store:
                assert compared(had, read_log("s", store.read("s")).events) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_proxy_that_is_cut_holds_what_is_sent(program: str, tmp_path: Path) -> None:
    """The means of the tests themselves."""
    with Server(tmp_path / "server", program) as server, Proxy(server.port) as link, server.client() as direct:
        import redis

        for way, is_done in (("from the server", True), ("to the server", False)):
            with redis.Redis(port=link.port, socket_timeout=1, retry=None) as client:
                client.ping()
                link.cut(**WAYS[way])
                with pytest.raises(redis.TimeoutError):
                    client.set(way, 1)
                if is_done:
                    eventually(partial(direct.exists, way))
                else:
                    assert not direct.exists(way)
                link.heal()
                eventually(partial(direct.exists, way))


# --- all together ----------------------------------------------------------------------------------------------------


def test_every_reader_has_a_run_of_its_log_whatever_the_network_and_the_server_do(tmp_path: Path) -> None:
    plan = ["cut", "lose", "jump", "busy", "fill", "load"]
    chaos = Chaos(tmp_path, seconds=14, nodes=2, streams=10, plan=plan, between=0.5)
    assert chaos.run() == []
    assert sum(chaos.done.values()) >= 4


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_every_reader_has_a_run_of_its_log_when_sentinels_promote_a_replica_that_lags(
    durability: str, tmp_path: Path
) -> None:
    chaos = Chaos(
        tmp_path,
        seconds=3,
        nodes=2,
        streams=8,
        plan=["failover"],
        between=2,
        has_sentinels=True,
        durability=durability,
    )
    assert chaos.run() == []
    assert chaos.done == {"failover": 1}
