"""Two gateways on one store: each serves every stream, in every protocol, from any cursor, and takes its commands."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.cli.top import BoardView
from penstock.config.gateway import GatewayOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.contract.log_stores import SettableClock
from tests.integration.gateway.serving import PATIENCE, Served, events_of, served
from tests.unit.cluster.nodes import OPTIONS, Link, SharedStore, node_of

SLOW = Answer("".join(f"word{number} " for number in range(200)), tokens_per_second=150)


@contextlib.contextmanager
def gateways(
    script: Script, count: int = 2, *, keys: str | None = None, store: SharedStore | None = None, **changes: Any
) -> Iterator[list[Served]]:
    store = store or SharedStore()
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(LoopbackProvider(script))
        settings = Settings(providers={"openai": ProviderOptions(base_url=provider.base_url, model="m")})
        made = []
        for number in range(count):
            options = OPTIONS.replace(node=f"n{number}", **changes)
            system = stack.enter_context(penstock.System(settings, journal=Link(store), cluster=options))
            one = stack.enter_context(served(system, options=GatewayOptions(keys=keys)))
            one.provider = provider
            made.append(one)
        yield made


def read(gateway: Served, stream_id: str, after: str | None = None, **query: str) -> requests.Response:
    headers = {} if after is None else {"last-event-id": after}
    return gateway.get(f"/v1/streams/{stream_id}/events", headers=headers, params=query)


def test_every_gateway_serves_a_stream_in_every_protocol_live_and_from_a_cursor() -> None:
    with gateways(Script([SLOW])) as (one, two):
        stream_id = one.open(messages=[{"role": "user", "content": "Hi"}])
        with ThreadPoolExecutor(4) as pool:
            live = [pool.submit(read, gateway, stream_id) for gateway in (one, two)]
            chat = pool.submit(read, two, stream_id, **{"as": "openai"})
            first, second = (events_of(each.result().text) for each in live)
            assert "word199" in chat.result().text
        texts = ["".join(data["text"] for _, name, data in found if name == "token") for found in (first, second)]
        assert texts[0] == texts[1] == "".join(f"word{number} " for number in range(200))
        assert first[-1][0] == second[-1][0]  # the same epoch, and the same number
        epoch, _, last = first[-1][0].partition("-")
        rest = events_of(read(two, stream_id, f"{epoch}-{int(last) - 3}").text)
        assert int(rest[0][0].partition("-")[2]) > int(last) - 3  # what waits at once is joined
        assert rest[-1] == first[-1]
        assert read(two, stream_id, first[-1][0]).status_code == 204


def test_commands_to_any_gateway_reach_the_stream() -> None:
    with gateways(Script([SLOW])) as (one, two):
        assert one.post("/v1/streams", {"stream_id": "s"}).status_code == 201
        assert two.post("/v1/streams/s/tokens", {"text": "Hello"}).json()["accepted"] == 1
        assert two.post("/v1/streams/s/pause").json()["state"] == "paused"
        assert one.get("/v1/streams/s").json()["state"] == "paused"
        shown = two.get("/v1/streams/s").json()
        assert shown["state"] == "paused"
        assert shown["runs"] == "elsewhere"
        assert shown["owner"].startswith("n0~")
        assert two.post("/v1/streams/s/resume").status_code == 200
        assert two.request("PATCH", "/v1/streams/s/options", json={"batch_size": 7, "on_orphan": 60}).status_code == 200
        stream = one.system.stream("s")
        assert stream.options.batch_size == 7
        assert stream._record.on_orphan == 60
        assert two.request("PATCH", "/v1/streams/s/options", json={"batch_size": 0}).status_code == 400
        assert two.post("/v1/streams/s/tokens", {"text": " again", "end": True}).status_code == 200
        assert stream.result(PATIENCE).text == "Hello again"
        assert two.post("/v1/streams/s/pause").status_code == 409
        fed = one.open(messages=[{"role": "user", "content": "Hi"}])
        assert two.post(f"/v1/streams/{fed}/tokens", {"text": "no"}).status_code == 400
        assert two.post(f"/v1/streams/{fed}/cancel", {"reason": "enough"}).status_code == 200
        assert events_of(read(one, fed).text)[-1][2]["type"] == "StreamCancelled"
        assert two.request("DELETE", f"/v1/streams/{fed}").status_code == 204
        for gateway in (one, two):
            assert gateway.get(f"/v1/streams/{fed}").status_code == 404


def test_commands_to_a_node_that_hangs_hold_up_neither_the_routes_nor_the_commands_to_others() -> None:
    with gateways(Script([SLOW]), 3) as (frozen, here, other):
        assert frozen.post("/v1/streams", {"stream_id": "s"}).status_code == 201
        assert other.post("/v1/streams", {"stream_id": "o"}).status_code == 201
        assert [here.get(f"/v1/streams/{name}").status_code for name in "so"] == [200, 200]
        link, thawed, waiting = here.system._journal, threading.Event(), threading.Semaphore(0)
        send = link.command  # type: ignore[union-attr]

        def command(log: str, data: bytes, timeout: float) -> bytes:
            if log != "o":
                waiting.release()
                assert thawed.wait(PATIENCE)
            return bytes(send(log, data, timeout))

        link.command = command  # type: ignore[union-attr, method-assign]
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(here.post, "/v1/streams/s/pause") for _ in range(12)]
            asked += [pool.submit(here.request, "DELETE", "/v1/streams/s") for _ in range(4)]
            for _ in range(4):
                assert waiting.acquire(timeout=PATIENCE)
            eventually(lambda: sum(each.done() for each in asked) == 12)
            refused = [each.result() for each in asked if each.done()]
            assert {(one.status_code, one.json()["error"]["code"]) for one in refused} == {(503, "busy")}
            assert refused[0].headers["retry-after"] == "1"
            assert here.gateway._remote is not None
            assert here.gateway._remote.refused == 12
            assert here.post("/v1/streams", {"stream_id": "own"}).status_code == 201
            assert here.get("/metrics").status_code == here.get("/v1/cluster").status_code == 200
            assert here.gateway.statistics().refused == {"busy": 12, "too_many_tickets": 0}
            assert 'penstock_gateway_refused_total{code="busy"} 12' in here.get("/metrics").text
            assert here.post("/v1/streams/own/pause").json()["state"] == "paused"
            assert here.post("/v1/streams/o/pause").json()["state"] == "paused"
            assert here.get("/v1/streams/s").json()["runs"] == "elsewhere"  # without what its node would say
            thawed.set()
        assert here.post("/v1/streams/o/resume").status_code == 200


def test_another_key_neither_reads_nor_commands_a_stream_by_the_other_gateway(tmp_path: Path) -> None:
    keys = [new_key(name) for name in ("ann", "bob")]
    KeyFile(tmp_path / "keys").write([made for _, made in keys])
    ann, bob = ({"authorization": f"Bearer {key}"} for key, _ in keys)
    with gateways(Script([SLOW]), keys=str(tmp_path / "keys")) as (one, two):
        assert one.post("/v1/streams", {"stream_id": "s"}, headers=ann).status_code == 201
        response = one.post("/v1/responses", {"model": "m", "input": "Hi", "background": True}, headers=ann).json()
        asked = [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/tickets"), ("DELETE", "")]
        for method, path in asked:
            assert two.request(method, f"/v1/streams/s{path}", headers=bob).status_code == 404
        for method, path in [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")]:
            assert two.request(method, f"/v1/responses/{response['id']}{path}", headers=bob).status_code == 404
        assert two.post("/v1/streams", {"stream_id": "s"}, headers=bob).status_code == 409
        assert two.get("/v1/streams", headers=bob).json()["total"] == 0
        assert two.get("/v1/cluster", headers=bob).status_code == 403
        assert two.get("/v1/streams/s", headers=ann).json()["state"] == "idle"


def test_a_ticket_of_one_gateway_opens_the_stream_at_the_other(tmp_path: Path) -> None:
    key, made = new_key("ann")
    KeyFile(tmp_path / "keys").write([made])
    with gateways(Script([SLOW]), keys=str(tmp_path / "keys")) as (one, two):
        headers = {"authorization": f"Bearer {key}"}
        one.post("/v1/streams", {"stream_id": "s"}, headers=headers)
        one.post("/v1/streams/s/tokens", {"text": "a", "end": True}, headers=headers)
        url = one.post("/v1/streams/s/tickets", headers=headers).json()["url"]
        assert two.get("/v1/streams/s/events").status_code == 401
        for _ in range(2):  # an EventSource connects again with the same one
            assert events_of(two.get(url).text)[-1][2]["text"] == "a"
        assert two.get(url.replace("/s/", "/t/")).status_code == 401
        assert two.get(url + "x").status_code == 401


def test_a_ticket_that_was_used_where_it_was_made_is_good_at_the_other_a_minute_later(tmp_path: Path) -> None:
    with ticketed(tmp_path) as (one, two, clock, headers):
        used, unused = (one.post("/v1/streams/s/tickets", headers=headers).json()["url"] for _ in range(2))
        assert one.get(used).status_code == 200
        clock.advance(61)
        assert two.get(used).status_code == 200  # a browser that connects again
        assert two.get(unused).status_code == 401


@pytest.mark.parametrize("skew", [-86_400, 86_400])
def test_the_age_of_a_ticket_does_not_depend_on_the_clocks_of_the_nodes(
    skew: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ticketed(tmp_path) as (one, two, clock, headers):
        early, late = (one.post("/v1/streams/s/tickets", headers=headers).json()["url"] for _ in range(2))
        monkeypatch.setattr("penstock.gateway.shared_tickets.time", SimpleNamespace(time=lambda: time.time() + skew))
        clock.advance(59)
        assert two.get(early).status_code == 200
        clock.advance(2)
        assert two.get(late).status_code == 401


def test_what_is_no_ticket_costs_the_store_nothing_and_guesses_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ticketed(tmp_path) as (one, two, _, headers):
        link, reads = two.system._journal, []
        read_log = link.read  # type: ignore[union-attr]

        def noting(log: str, *arguments: Any, **named: Any) -> Any:
            if log.startswith("ticket"):
                reads.append(log)
            return read_log(log, *arguments, **named)

        link.read = noting  # type: ignore[union-attr, method-assign]
        for garbage in ("", "x", "a" * 31, "a" * 33, "a" * 31 + "!", "a" * 31 + "\n", "a" * 5_000, "\u00e9" * 32):
            assert two.get("/v1/streams/s/events", params={"ticket": garbage}).status_code == 401
        assert reads == []
        monkeypatch.setattr(two.gateway._misses, "_per_second", 3)
        admits = two.gateway._misses.admits
        monkeypatch.setattr(two.gateway._misses, "admits", lambda now: admits(1_000.0))  # all in one second
        for guess in (0, 1, 1, 0, 2):
            assert two.get("/v1/streams/s/events", params={"ticket": f"{guess:032}"}).status_code == 401
        assert len(reads) == 3
        refused = two.get("/v1/streams/s/events", params={"ticket": f"{3:032}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_tickets")
        assert two.gateway._misses.refused == 1
        assert two.gateway.statistics().refused == {"busy": 0, "too_many_tickets": 1}
        assert len(reads) == 3
        monkeypatch.undo()
        url = one.post("/v1/streams/s/tickets", headers=headers).json()["url"]
        assert two.get(url).status_code == 200


@contextlib.contextmanager
def ticketed(tmp_path: Path) -> Iterator[tuple[Served, Served, SettableClock, dict[str, str]]]:
    """Two gateways, the clock of their store, the headers of a key, and its stream ``s``, which has ended."""
    key, made = new_key("ann")
    KeyFile(tmp_path / "keys").write([made])
    clock, headers = SettableClock(), {"authorization": f"Bearer {key}"}
    with gateways(Script([SLOW]), keys=str(tmp_path / "keys"), store=SharedStore(clock=clock)) as (one, two):
        one.post("/v1/streams", {"stream_id": "s"}, headers=headers)
        one.post("/v1/streams/s/tokens", {"text": "a", "end": True}, headers=headers)
        yield one, two, clock, headers


def test_an_idempotency_key_is_free_again_once_the_store_is_back() -> None:
    with gateways(Script([SLOW])) as (one, two):
        link, is_away = one.system._journal, threading.Event()
        append_all = link.append_all  # type: ignore[union-attr]

        def appending(appends: Any) -> Any:
            if is_away.is_set() and any(append.log.startswith("once") for append in appends):
                raise penstock.StoreUnavailable("memory", "away")
            answers = append_all(appends)
            if any(append.log.startswith("once") for append in appends):
                is_away.set()  # it goes away as soon as the request is begun
            return answers

        link.append_all = appending  # type: ignore[union-attr, method-assign]
        headers = {"idempotency-key": "k"}
        refused = one.post("/v1/streams", {"options": {"no_such_option": 1}}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "options.no_such_option")
        shared = one.gateway.shared_once
        assert shared is not None
        assert shared.is_owing
        link.append_all = append_all  # type: ignore[union-attr, method-assign]
        eventually(lambda: not shared.is_owing)
        assert two.post("/v1/streams", {"stream_id": "s"}, headers=headers).status_code == 201


def test_the_same_idempotency_key_at_two_gateways_makes_one_call() -> None:
    with gateways(Script([SLOW] * 9)) as (one, two):
        body = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"idempotency-key": "k1"}
        barrier = threading.Barrier(4)

        def ask(gateway: Served) -> str:
            barrier.wait()
            answer = requests.post(f"{gateway.url}/v1/streams", json=body, headers=headers, timeout=PATIENCE)
            assert answer.status_code in (200, 201), answer.text
            return str(answer.json()["stream_id"])

        with ThreadPoolExecutor(4) as pool:
            ids = set(pool.map(ask, (one, two, one, two)))
        assert len(ids) == 1
        assert len(one.provider.requests) <= 1
        other = requests.post(f"{two.url}/v1/streams", json=body | {"model": "n"}, headers=headers, timeout=PATIENCE)
        assert other.status_code == 422
        assert ask_again(two, body, headers) == ids.pop()
        one.provider.wait_for_requests(1)
        assert len(one.provider.requests) == 1


def ask_again(gateway: Served, body: dict[str, Any], headers: dict[str, str]) -> str:
    answer = requests.post(f"{gateway.url}/v1/streams", json=body, headers=headers, timeout=PATIENCE)
    return str(answer.json()["stream_id"])


def test_an_idempotent_request_that_another_node_has_answered_opens_nothing() -> None:
    with gateways(Script([SLOW])) as (one, two):
        headers = {"idempotency-key": "k1"}
        answers = [gateway.post("/v1/streams", {"stream_id": "x"}, headers=headers) for gateway in (one, two, two, one)]
        assert [answer.status_code for answer in answers] == [201, 200, 200, 200]
        assert len({answer.text for answer in answers}) == 1


def test_an_idempotent_request_that_is_refused_may_be_sent_again() -> None:
    with gateways(Script([SLOW] * 9)) as (one, two):
        headers = {"idempotency-key": "k1"}
        wrong = {"stream_id": "x", "options": {"batch_size": 0}}
        assert one.post("/v1/streams", wrong, headers=headers).status_code == 400
        assert two.post("/v1/streams", wrong, headers=headers).status_code == 400
        assert two.post("/v1/streams", {"stream_id": "x"}, headers=headers).status_code == 201


def test_a_stored_response_is_shown_continued_and_deleted_by_the_other_gateway() -> None:
    answers = Script([Answer("First."), Answer("Second.")])
    with gateways(answers) as (one, two):
        body = {"model": "m", "input": "One", "provider": "openai"}
        response = one.post("/v1/responses", {"model": "m", "input": "One"}).json()
        assert body["input"] == "One"
        shown = two.get(f"/v1/responses/{response['id']}").json()
        assert shown == response
        again = two.post("/v1/responses", {"model": "m", "input": "Two", "previous_response_id": response["id"]})
        assert again.status_code == 200, again.text
        asked = one.provider.requests[-1].body
        assert "First." in str(asked)
        assert "One" in str(asked)
        assert one.request("DELETE", f"/v1/responses/{response['id']}").status_code == 200
        for gateway in (one, two):
            assert gateway.get(f"/v1/responses/{response['id']}").status_code == 404


def test_readers_of_a_node_that_has_lost_its_stream_are_told_to_connect_again() -> None:
    with gateways(Script([SLOW, Answer("Elsewhere.")])) as (one, two):
        stream_id = one.open(request_options={"on_interrupt": "restart"}, on_orphan="continue")
        with ThreadPoolExecutor(2) as pool:
            here, there = (pool.submit(read, gateway, stream_id) for gateway in (one, two))
            eventually(lambda: one.system.stream(stream_id)._record.log.last_seq > 3)
            one.system._journal.is_cut = True  # type: ignore[union-attr]
            whole = events_of(there.result().text)
            one.system._journal.is_cut = False  # type: ignore[union-attr]
            part = here.result().text
        assert whole[-1][2]["type"] == "StreamCompleted"
        assert whole[-1][2]["text"] == "Elsewhere."
        assert '"moved"' in part
        had = [event for event in events_of(part) if event[0]]
        assert had[-1][1] == "token"  # it has no end of its own
        rest = events_of(read(one, stream_id, had[-1][0]).text)
        assert told(had + rest) == told(whole)


def test_a_response_whose_stream_has_moved_is_shown_as_it_goes_on() -> None:
    with gateways(Script([SLOW, Answer("Elsewhere.")])) as (one, _):
        body: dict[str, Any] = {"model": "m", "input": "Hi", "background": True}
        body["penstock"] = {"request_options": {"on_interrupt": "restart"}}
        response_id = one.post("/v1/responses", body).json()["id"]
        record = one.system.stream(response_id)._record
        eventually(lambda: record.log.last_seq > 3)
        one.system._journal.is_cut = True  # type: ignore[union-attr]
        eventually(lambda: node_of(one.system).store._store.held(node_of(one.system).name) == [], 10)  # type: ignore[attr-defined]
        one.system._journal.is_cut = False  # type: ignore[union-attr]
        eventually(lambda: record.is_over)

        def shown() -> Any:
            return one.get(f"/v1/responses/{response_id}").json()

        eventually(lambda: shown()["status"] == "completed", 10)
        assert "Elsewhere." in str(shown()["output"])


def told(events: list[Any]) -> list[str]:
    """The words before and after each reset, and the end; pieces may be joined in other ways."""
    found = [""]
    for _, name, data in events:
        if name == "token":
            found[-1] += data["text"]
        elif name == "reset":
            found.append("")
    return [*found, events[-1][2]["text"]]


def test_a_drain_hands_over_what_can_begin_again_and_waits_for_the_rest() -> None:
    with gateways(Script([SLOW, SLOW, Answer("Elsewhere.")]), lease=30.0) as (one, two):
        moves = one.open(request_options={"on_interrupt": "restart"}, on_orphan="continue")
        stays = one.open(on_orphan="continue")
        for stream_id in (moves, stays):
            record = one.system.stream(stream_id)._record
            eventually(partial(lambda record: record.log.last_seq > 3, record))
        eventually(lambda: len(node_of(two.system).store.view().nodes) == 2)
        one.on_loop(one.gateway.drain(PATIENCE))
        assert one.post("/v1/streams", {}).status_code == 503
        assert events_of(read(two, moves).text)[-1][2]["text"] == "Elsewhere."
        end = events_of(read(two, stays).text)[-1]
        assert end[2]["type"] == "StreamCompleted"
        assert "word199" in end[2]["text"]


def test_the_view_of_the_cluster_is_a_resource() -> None:
    with gateways(Script([SLOW])) as (one, two):
        one.post("/v1/streams", {"stream_id": "s"})
        eventually(lambda: [node["held"] for node in two.get("/v1/cluster").json()["nodes"]] == [1, 0])
        view = two.get("/v1/cluster").json()
        assert [node["name"] for node in view["nodes"]] == ["n0", "n1"]
        assert view["is_well"] is True
        with connect(f"{two.ws}/v1/ws", open_timeout=PATIENCE) as socket:
            socket.send('{"op":"subscribe","sid":"$board","ref":"b"}')
            board = BoardView()
            while not board.kpi:
                told = json.loads(socket.recv(PATIENCE))
                for frame in told if isinstance(told, list) else [told]:
                    if frame.get("sid") == "$board" and "type" in frame:
                        board.take(frame)
        assert [node[:2] for node in board.kpi["cluster"]["nodes"]] == [["n0", "alive"], ["n1", "here"]]
        assert board.cluster().startswith("n0 1  n1 0*  store works, lease renewed ")
    with penstock.System(Settings()) as system, served(system) as alone:
        assert alone.get("/v1/cluster").status_code == 404


@pytest.mark.parametrize("path", ["/v1/streams/none", "/v1/responses/none"])
def test_what_no_node_knows_is_not_found(path: str) -> None:
    with gateways(Script([SLOW])) as (one, _):
        assert one.get(path).status_code == 404
