"""Ended streams that are in a store alone: the gateway's loop never waits for the store."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import penstock
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.config.settings import Settings
from penstock.gateway.asgi import app
from penstock.ports import EMPTY, Entry, EntryId
from tests.integration.gateway.serving import PATIENCE, Served, served


class SlowStore(MemoryLogStore):
    """A store whose answers can be held back, as a network may; notes which threads read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[str] = []
        self.is_read = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def read(self, log: str, after: EntryId = EMPTY, limit: int | None = None) -> Sequence[Entry]:
        self.readers.append(threading.current_thread().name)
        self.is_read.set()
        assert self.may_answer.wait(PATIENCE)
        return super().read(log, after, limit)


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def server(store: SlowStore) -> Iterator[Served]:
    with penstock.System(Settings(), journal=store) as system, served(system, gateway := app(system)) as client:
        client.gateway = gateway
        yield client


def leave_in_store(server: Served, stream_id: str) -> None:
    """Have a stream that is no longer in memory."""
    stream = server.system.open_stream(stream_id)
    stream.process_token("Hello")
    stream.stop()
    stream.result(PATIENCE)
    writer = server.system._services.writer
    assert writer is not None
    assert writer.flush(PATIENCE)
    server.system._table.forget(stream._record)


def test_other_requests_are_answered_while_the_store_is_read(server: Served, store: SlowStore) -> None:
    leave_in_store(server, "s")
    server.system.open_stream("other")
    store.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.get, "/v1/streams/s")
        try:
            assert store.is_read.wait(PATIENCE)
            assert requests.get(f"{server.url}/v1/streams/other", timeout=PATIENCE / 4).status_code == 200
            assert not waiting.done()
        finally:
            store.may_answer.set()
        assert waiting.result(PATIENCE).json()["is_over"]


def subscribe(server: Served, stream_id: str) -> None:
    with connect(f"{server.ws}/v1/ws", subprotocols=[Subprotocol("penstock.v1")]) as socket:
        socket.send(json.dumps({"op": "subscribe", "ref": 1, "sid": stream_id}))
        while (message := json.loads(socket.recv(PATIENCE))) and isinstance(message, list):
            pass
        assert message["ok"], message


def command(server: Served, stream_id: str) -> None:
    with connect(f"{server.ws}/v1/ws", subprotocols=[Subprotocol("penstock.v1")]) as socket:
        socket.send(json.dumps({"op": "cancel", "ref": 1, "sid": stream_id}))
        while (message := json.loads(socket.recv(PATIENCE))) and isinstance(message, list):
            pass
        assert message["ref"] == 1


WAYS: dict[str, Callable[[Served, str], object]] = {
    "shown": lambda server, name: server.get(f"/v1/streams/{name}").raise_for_status(),
    "events": lambda server, name: server.get(f"/v1/streams/{name}/events").raise_for_status(),
    "ticket": lambda server, name: server.post(f"/v1/streams/{name}/tickets").raise_for_status(),
    "deleted": lambda server, name: server.request("DELETE", f"/v1/streams/{name}").raise_for_status(),
    "opened": lambda server, name: server.post("/v1/streams", {"stream_id": name}),
    "asked": lambda server, name: server.post(
        "/v1/streams", {"stream_id": name, "model": "loopback/echo", "messages": [{"role": "user", "content": "Hi"}]}
    ),
    "subscribed": subscribe,
    "commanded": command,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stored_stream_is_read_in_a_thread_of_the_gateway(server: Served, store: SlowStore, way: str) -> None:
    leave_in_store(server, "s")
    WAYS[way](server, "s")
    assert store.readers
    assert all(name.startswith("penstock-gateway") for name in store.readers), store.readers


def test_looking_after_the_channels_reads_nothing_and_forgets_what_is_no_longer_in_memory(
    server: Served, store: SlowStore
) -> None:
    leave_in_store(server, "s")
    server.get("/v1/streams/s").raise_for_status()
    server.system._table.forget(server.system._table.get("s"))
    store.readers.clear()

    async def look() -> None:
        server.gateway._look_after(server.gateway.ticker.loop.time())

    server.on_loop(look())
    assert not store.readers
    assert "s" not in server.gateway.channels._channels
    assert server.get("/v1/streams/s").json()["is_over"]
