"""What a gateway tells of itself: ``/metrics``, its statistics and its readers."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

pytest.importorskip("prometheus_client")

from penstock.adapters.loopback.script import Answer, Script
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.settings import Settings
from penstock.gateway.keys import KeyFile, new_key
from penstock.telemetry.gateway import ReaderInfo
from penstock.telemetry.names import METRICS
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, Served, gateway
from tests.integration.promtool import check_metrics

ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.005)


@pytest.fixture
def server() -> Iterator[Served]:
    with gateway(Script(Answer("one two three"), models={"endless": ENDLESS})) as client:
        yield client


@contextmanager
def with_keys(folder: Path, **options: Any) -> Iterator[tuple[Served, dict[str, dict[str, str]]]]:
    """A gateway with keys, and the headers of each by its scope."""
    file, headers, keys = KeyFile(folder / "keys"), {}, []
    for scope in ("read", "write", "admin"):
        secret, key = new_key(scope, (scope,))
        keys.append(key)
        headers[scope] = {"authorization": f"Bearer {secret}"}
    file.write(keys)
    with gateway(Script(Answer("Hi.")), keys=str(file.path), **options) as server:
        yield server, headers


def read_all(server: Served, **more: Any) -> str:
    stream_id = server.open(**more)
    assert server.get(f"/v1/streams/{stream_id}/events").status_code == 200
    return stream_id


def reader_of(server: Served) -> ReaderInfo | None:
    """The only reader."""
    loop = server.gateway.ticker.loop
    found: list[tuple[ReaderInfo, ...]] = []
    loop.call_soon_threadsafe(lambda: found.append(server.gateway.reader_infos()))
    eventually(lambda: bool(found))
    return found[0][0] if found[0] else None


# --- /metrics ------------------------------------------------------------------------------------------------------


def test_a_scrape_gets_every_metric_of_the_table(server: Served) -> None:
    read_all(server)
    answer = server.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    for metric in METRICS:
        assert f"# TYPE {metric.name} {metric.kind}\n" in answer.text
    assert 'penstock_streams_total{model="m",outcome="completed",provider="openai"} 1.0' in answer.text
    assert check_metrics(answer.content) == ""


def test_a_scraper_may_ask_for_openmetrics(server: Served) -> None:
    answer = server.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_metrics_are_for_keys_with_the_scope_admin(tmp_path: Path) -> None:
    with with_keys(tmp_path) as (server, headers):
        assert [server.get("/metrics", headers=headers[scope]).status_code for scope in ("read", "write", "admin")] == [
            403,
            403,
            200,
        ]
        assert server.get("/metrics").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "llm.example.com"}, 401),
        ({"x-forwarded-for": "10.0.0.1"}, 401),
        ({"forwarded": "for=10.0.0.1"}, 401),
        ({"via": "1.1 proxy"}, 401),
        ({"x-real-ip": "10.0.0.1"}, 401),
    ],
)
def test_metrics_can_be_open_for_this_machine_alone(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    with with_keys(tmp_path, metrics="loopback", hosts=("*",)) as (server, keys):
        assert server.get("/metrics", headers=headers).status_code == status
        assert server.get("/metrics", headers=keys["admin"]).status_code == 200
        assert server.get("/v1/streams").status_code == 401


def test_without_the_extra_the_answer_says_what_to_install(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "penstock.telemetry.prometheus", raising=False)
    answer = server.get("/metrics")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "metrics_not_installed"
    assert "pip install 'penstock[metrics]'" in answer.json()["error"]["message"]
    monkeypatch.undo()
    importlib.import_module("penstock.telemetry.prometheus")


# --- readers -------------------------------------------------------------------------------------------------------


def test_a_reader_is_told_of_while_it_reads(server: Served) -> None:
    stream_id = server.open(model="endless")
    with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
        lines = answer.iter_lines()
        next(lines)
        eventually(lambda: (info := reader_of(server)) is not None and info.seq > 3)
        info = reader_of(server)
        assert info is not None
        assert (info.stream_id, info.protocol, info.key) == (stream_id, "native", "anonymous")
        assert 0 < info.place <= info.frames
        assert server.gateway.statistics().readers == {"native": 1}
    eventually(lambda: server.gateway.statistics().readers == {})
    assert server.gateway.statistics().reader_outcomes == {("native", "left"): 1}


def test_a_reader_that_does_not_read_lags(server: Served) -> None:
    big = Answer(tokens=("x" * 20_000,), repeat=2_000, pace=0.0)
    with gateway(Script(big), slow="disconnect", reader_bytes=100_000, heartbeat=0.2) as slow:
        stream_id = slow.open()
        with slow.get(f"/v1/streams/{stream_id}/events", stream=True):
            eventually(lambda: slow.gateway.statistics().reader_lag.counts[-1] > 0, timeout=PATIENCE)
            info = reader_of(slow)
            assert info is None or info.lag_bytes > 100_000
    eventually(lambda: sum(slow.gateway.statistics().reader_outcomes.values()) == 1)
    assert set(slow.gateway.statistics().reader_outcomes) <= {("native", "too_slow"), ("native", "left")}


def test_readers_are_counted_by_how_they_ended(server: Served) -> None:
    read_all(server)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert server.post("/v1/chat/completions", body | {"stream": True}).status_code == 200
    assert server.post("/v1/chat/completions", body).status_code == 200
    finished = {("native", "finished"): 1, ("openai", "finished"): 2}
    eventually(lambda: server.gateway.statistics().reader_outcomes == finished)  # a client has all a moment before
    assert server.gateway.statistics().overhead.count == 3
    assert server.gateway.statistics().requests == 4


def test_readers_that_a_drain_ends_are_drained(server: Served) -> None:
    stream_id = server.open(model="endless")
    with server.get(f"/v1/streams/{stream_id}/events", stream=True) as answer:
        lines = answer.iter_lines()
        next(lines)
        loop = server.gateway.ticker.loop
        loop.call_soon_threadsafe(lambda: loop.create_task(server.gateway.drain(0.0)))
        eventually(lambda: server.gateway.statistics().reader_outcomes == {("native", "drained"): 1})
    assert server.gateway.statistics().is_draining


def test_what_becomes_of_cursors_is_counted(server: Served) -> None:
    stream_id = read_all(server)
    path = f"/v1/streams/{stream_id}/events"
    assert server.gateway.statistics().resumptions == {}
    assert server.get(f"{path}?after=1").status_code == 200
    assert server.get(f"{path}?after=00000000-1").status_code == 200
    assert server.get(f"{path}?after=latest").status_code in (200, 204)
    assert server.gateway.statistics().resumptions == {"exact": 1, "gap": 1}


def test_a_cursor_before_what_is_folded_is_a_snapshot() -> None:
    chat = StreamOptions(retain_bytes=1_000, batch_size=1, rate_limit=None)
    settings = Settings(chat=chat, request=RequestOptions(max_retries=0))
    with gateway(Script(Answer(tokens=("word " * 20,), repeat=200)), settings) as server:
        stream_id = server.open()
        server.finish(stream_id)
        assert server.get(f"/v1/streams/{stream_id}/events?after=1").headers["x-penstock-gap"] == "1"
        assert server.gateway.statistics().resumptions == {"snapshot": 1}


def test_each_stream_of_a_socket_is_a_reader(server: Served) -> None:
    ids = [server.open(model="endless"), server.open(model="endless")]
    with connect(f"{server.ws}/v1/ws") as socket:
        for stream_id in ids:
            socket.send(json.dumps({"op": "subscribe", "sid": stream_id, "ref": 1}))
        eventually(lambda: server.gateway.statistics().readers == {"socket": 2})
        info = reader_of(server)
        assert info is not None
        assert info.protocol == "socket"
        socket.send(json.dumps({"op": "unsubscribe", "sid": ids[0]}))
        eventually(lambda: server.gateway.statistics().readers == {"socket": 1})
        assert server.gateway.statistics().reader_outcomes == {("socket", "left"): 1}
    eventually(lambda: server.gateway.statistics().reader_outcomes == {("socket", "left"): 2})


def test_the_end_of_a_stream_ends_a_reader_of_a_socket(server: Served) -> None:
    stream_id = server.open()
    server.finish(stream_id)
    with connect(f"{server.ws}/v1/ws") as socket:
        socket.send(json.dumps({"op": "subscribe", "sid": stream_id, "after": 1, "ref": 1}))
        eventually(lambda: server.gateway.statistics().reader_outcomes == {("socket", "finished"): 1})
    assert server.gateway.statistics().resumptions == {"exact": 1}
