"""`GatewayServer`: its sockets, its signals, and how it ends; over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import penstock
from penstock.adapters.loopback.faults import StallAfter
from penstock.adapters.loopback.script import Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import OptionError
from penstock.gateway import connection as connection_module
from penstock.gateway import reader as reader_module
from penstock.gateway import server as server_module
from penstock.gateway.asgi import Gateway, app
from penstock.gateway.problems import RequestRefused
from penstock.gateway.server import GatewayServer, listen, serve
from penstock.testing import eventually
from tests.integration.gateway.serving import PATIENCE, events_of

READERS, STREAMS = 50, 5


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System(Settings()) as running:
        yield running


class Running:
    """A server in a thread of its own."""

    def __init__(self, server: GatewayServer) -> None:
        self.server = server
        self.url = server.url
        self.port = int(server.url.rpartition(":")[2])
        self.thread = threading.Thread(target=server.run, name="gateway-server")

    def wait(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the server does not end"


@contextlib.contextmanager
def running(system: penstock.System, **options: Any) -> Iterator[Running]:
    started = threading.Event()
    server = GatewayServer(app(system, **options), listen("127.0.0.1", 0), ready=lambda _: started.set())
    made = Running(server)
    made.thread.start()
    try:
        assert started.wait(PATIENCE)
        yield made
    finally:
        server.stop()
        server.stop()
        made.wait()


class Reading(threading.Thread):
    """A client that reads a stream's events to the end of the response."""

    def __init__(self, port: int, stream_id: str) -> None:
        super().__init__(name="reader", daemon=True)
        self.port, self.stream_id = port, stream_id
        self.began = threading.Event()
        self.body = b""
        self.fault: Exception | None = None

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/v1/streams/{self.stream_id}/events")
            response = connection.getresponse()
            while piece := response.read1(65_536):  # raises IncompleteRead if the body has no end
                self.body += piece
                if b"event: token" in self.body:
                    self.began.set()
        except Exception as error:
            self.fault = error
        finally:
            connection.close()

    @property
    def events(self) -> list[tuple[str, str, Any]]:
        return events_of(self.body.decode())


class Asking(threading.Thread):
    """A client that asks a model and reads the response to its end."""

    def __init__(self, port: int, path: str, fields: dict[str, Any]) -> None:
        super().__init__(name="asker", daemon=True)
        given = "input" if path == "/v1/responses" else "messages"
        self.port, self.path = port, path
        self.asked = {"model": "m", given: [{"role": "user", "content": "Hi"}], **fields}
        self.began = threading.Event()
        self.status = 0
        self.body = b""
        self.fault: Exception | None = None

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", self.path, json.dumps(self.asked))
            response = connection.getresponse()
            self.status = response.status
            while piece := response.read1(65_536):
                self.body += piece
                self.began.set()
        except Exception as error:
            self.fault = error
        finally:
            connection.close()


class Pushing(threading.Thread):
    """Pushes numbered tokens to streams until it is told to end."""

    def __init__(self, streams: list[penstock.Stream]) -> None:
        super().__init__(name="pusher", daemon=True)
        self.streams = streams
        self.must_end = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self.must_end.wait(0.002):
            self.count += 1
            for stream in self.streams:
                stream.process_token(f"{self.count} ")


# --- drain -------------------------------------------------------------------------------------------------------


def test_fifty_of_fifty_readers_of_running_streams_get_a_last_frame_a_valid_cursor_and_a_clean_end(
    system: penstock.System,
) -> None:
    streams = [system.open_stream(f"s{number}") for number in range(STREAMS)]
    pushing = Pushing(streams)
    with running(system, drain_timeout=0.0) as server:
        readers = [Reading(server.port, f"s{number % STREAMS}") for number in range(READERS)]
        for each in (*readers, pushing):
            each.start()
        for reader in readers:
            assert reader.began.wait(PATIENCE)
        server.server.stop()
        for reader in readers:
            reader.join(PATIENCE)
        server.wait()
    pushing.must_end.set()
    pushing.join()
    assert server.server.code == 0
    texts = {}
    for stream in streams:
        stream.stop()
        texts[stream.stream_id] = stream.result().text
    for reader in readers:
        assert reader.fault is None
        *frames, (_, name, cut) = reader.events
        assert (name, cut["code"]) == ("cut", "draining")
        read = "".join(data["text"] for _, _, data in frames)
        seq = int(frames[-1][0].partition("-")[2])
        with system.stream(reader.stream_id).events(after=seq) as rest:
            later = "".join(event.text for event in rest if isinstance(event, penstock.TokenEvent))
        assert read + later == texts[reader.stream_id], "what is after the cursor does not follow what was read"


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"stream": True},
    "/v1/messages": {"stream": True, "max_tokens": 100},
    "/v1/responses": {"stream": True},
}


def test_answers_in_every_protocol_are_cut_with_an_error_and_never_with_the_end_of_an_answer() -> None:
    with LoopbackProvider(Script(models={"m": StallAfter(3)})) as provider:
        reached = ProviderOptions(base_url=provider.base_url, model="m")
        with (
            penstock.System(Settings(providers={"openai": reached})) as system,
            running(system, drain_timeout=0.0) as server,
        ):
            asking = [Asking(server.port, path, fields) for path, fields in ASKED.items()]
            waiting = Asking(server.port, "/v1/chat/completions", {})
            for each in (*asking, waiting):
                each.start()
            for each in asking:
                assert each.began.wait(PATIENCE)
            eventually(lambda: len(server.server.gateway.readers) == 4)
            server.server.stop()
            server.wait()
            for each in (*asking, waiting):
                each.join(PATIENCE)
    for each in asking:
        assert (each.fault, each.status) == (None, 200)
        assert b"The server is shutting down." in each.body
        for end in (b"[DONE]", b"message_stop", b"response.completed", b'"stop"'):
            assert end not in each.body
    assert (waiting.fault, waiting.status) == (None, 503)
    assert json.loads(waiting.body)["error"]["code"] == "draining"


def test_while_it_drains_streams_that_are_read_go_on_and_no_other_is_opened(system: penstock.System) -> None:
    stream = system.open_stream("read")
    stream.process_token("before ")
    with running(system, drain_timeout=600.0) as server:
        reader = Reading(server.port, "read")
        reader.start()
        assert reader.began.wait(PATIENCE)
        assert requests.get(f"{server.url}/ready", timeout=PATIENCE).status_code == 200
        server.server.stop()
        eventually(lambda: requests.get(f"{server.url}/ready", timeout=PATIENCE).status_code == 503)
        assert requests.get(f"{server.url}/live", timeout=PATIENCE).status_code == 200
        refused = requests.post(f"{server.url}/v1/streams", json={}, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "1"
        pushed = requests.post(f"{server.url}/v1/streams/read/tokens", json={"text": "after", "end": True}, timeout=20)
        assert pushed.status_code == 200
        server.wait()  # by itself: there is no reader any more
        reader.join(PATIENCE)
    assert (reader.fault, server.server.code) == (None, 0)
    assert [name for _, name, _ in reader.events][-1] == "end"
    assert reader.events[-1][2]["text"] == "before after"


def test_a_second_stop_ends_the_readers_at_once(system: penstock.System) -> None:
    system.open_stream("read").process_token("text")
    with running(system, drain_timeout=600.0) as server:
        reader = Reading(server.port, "read")
        reader.start()
        assert reader.began.wait(PATIENCE)
        server.server.stop()
        server.server.stop()
        server.wait()
        reader.join(PATIENCE)
    assert reader.fault is None
    assert reader.events[-1][1:] == ("cut", {"code": "draining", "message": reader.events[-1][2]["message"]})


def test_a_reader_that_takes_nothing_does_not_keep_the_server(system: penstock.System) -> None:
    stream = system.open_stream("big")
    with running(system, drain_timeout=0.0) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /v1/streams/big/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            gateway = server.server.gateway
            eventually(lambda: bool(gateway.readers))
            stream.process_tokens(["x" * 1_000_000] * 16, 0)
            (reader,) = gateway.readers
            eventually(lambda: getattr(reader, "lag", 0) > 0)
            server.server.stop()
            server.server.stop()
            server.wait()
        assert not gateway.readers


def test_the_socket_of_a_reader_that_takes_nothing_is_freed(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_STUCK", 0.0)
    monkeypatch.setattr(server_module, "_CLOSING", 0.0, raising=False)
    stream = system.open_stream("s1", on_orphan="continue")
    with running(system) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /v1/streams/s1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: len(server.server.gateway.readers) == 1)
        stream.process_tokens(["w" * 1_000_000] * 16, 0)
        eventually(lambda: not server.server.gateway.readers)
        eventually(lambda: not server.server.server_state.connections)
    stream.cancel()


def test_a_fault_in_draining_does_not_keep_the_server(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Any, timeout: float | None = None) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(Gateway, "drain", fail)
    with running(system) as server:
        server.server.stop()
        server.wait()
    assert any("drain_failed" in each.getMessage() for each in caplog.records)


def test_an_idle_socket_is_not_waited_for(system: penstock.System) -> None:
    from websockets.exceptions import ConnectionClosedOK
    from websockets.sync.client import connect

    with running(system, drain_timeout=600.0) as server:
        with connect(f"ws://127.0.0.1:{server.port}/v1/ws") as client:
            client.send(json.dumps({"op": "ping", "ref": 1}))
            assert json.loads(client.recv(PATIENCE))["ok"]
            server.server.stop()
            with pytest.raises(ConnectionClosedOK) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        server.wait()


def test_no_reader_is_taken_while_readers_are_ended(system: penstock.System) -> None:
    gateway = Gateway(system)
    gateway.admit_reader()
    gateway.is_ending = True
    with pytest.raises(RequestRefused) as refused:
        gateway.admit_reader()
    assert (refused.value.problem.status, refused.value.problem.code) == (503, "draining")


def test_a_stop_before_the_server_runs_ends_it_when_it_does(system: penstock.System) -> None:
    server = GatewayServer(app(system), listen("127.0.0.1", 0))
    server.stop()
    made = Running(server)
    made.thread.start()
    made.wait()
    server.stop()  # harmless


# --- limits ------------------------------------------------------------------------------------------------------


def answer_to(port: int, data: bytes) -> bytes:
    """Everything that the server sends before it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65_536):
                received += piece
        return received


@pytest.mark.parametrize(
    "head",
    [
        b"GET /live HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 70_000,
        b"GET /live HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 12_000,
        b"GET /" + b"x" * 70_000,
    ],
    ids=["one header", "many headers", "the path"],
)
def test_a_head_that_does_not_end_is_refused(system: penstock.System, head: bytes) -> None:
    with running(system) as server:
        assert answer_to(server.port, head).startswith(b"HTTP/1.1 431 ")
        assert requests.get(f"{server.url}/live", timeout=PATIENCE).status_code == 200


def test_a_head_that_takes_too_long_is_refused(system: penstock.System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_HEAD_TIME", 0.05)
    with running(system) as server:
        for head in (b"", b"GET /live HTTP/1.1\r\nhost: loc"):
            assert answer_to(server.port, head).startswith(b"HTTP/1.1 408 ")


def test_a_large_body_and_a_second_request_are_no_part_of_the_head(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_HEAD_TIME", 600.0)
    with running(system) as server, requests.Session() as session:
        for number in range(3):
            body = {"stream_id": f"s{number}", "metadata": {"x": "y" * 200_000}}
            assert session.post(f"{server.url}/v1/streams", json=body, timeout=PATIENCE).status_code in (201, 400)
            assert session.get(f"{server.url}/live", timeout=PATIENCE).status_code == 200


# --- signals -----------------------------------------------------------------------------------------------------


def test_ignored_signals_stay_ignored_and_the_others_are_given_back(system: penstock.System) -> None:
    with contextlib.closing(listen("127.0.0.1", 0)[0]) as listener:
        server = GatewayServer(app(system), [listener])
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        term = signal.getsignal(signal.SIGTERM)
        try:
            with server.capture_signals():
                assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) == server.handle_exit
            assert signal.getsignal(signal.SIGTERM) == term
        finally:
            signal.signal(signal.SIGINT, before)


def test_serve_returns_when_it_has_been_stopped(system: penstock.System) -> None:
    seen: list[str] = []

    def ready(server: GatewayServer) -> None:
        seen.append(server.url)
        server.stop()

    assert serve(system, port=0, ready=ready) == 0
    assert seen[0].startswith("http://127.0.0.1:")


def test_an_error_of_ready_ends_the_server(system: penstock.System) -> None:
    def ready(server: GatewayServer) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        serve(system, port=0, ready=ready)


# --- sockets -----------------------------------------------------------------------------------------------------


def test_accepted_connections_notice_a_client_that_has_vanished() -> None:
    if sys.platform != "linux":
        pytest.skip("these options are Linux's")
    (listener,) = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10


def test_all_addresses_of_a_name_have_the_same_port() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({each.getsockname()[1] for each in listeners}) == 1
    finally:
        for each in listeners:
            each.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_only_loopback_addresses_are_listened_at(host: str) -> None:
    with pytest.raises(OptionError, match=r"^Without API keys, only loopback addresses .* `penstock keys new FILE`"):
        listen(host, 0)


def test_with_keys_every_address_may_be_listened_at() -> None:
    for each in listen("0.0.0.0", 0, has_keys=True):
        each.close()


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("a..b", "The host a..b is not known: it is no host name."),
        ("192.0.2.1", "192.0.2.1 is no address of this machine."),
        ("", "host: got '', allowed: a name or an address of this machine"),
    ],
)
def test_a_bad_host_is_explained(host: str, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        listen(host, 0, has_keys=True)
    assert (refused.value.field, str(refused.value)) == ("host", message)


def test_a_port_in_use_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OptionError, match=rf"^Port {port} of 127.0.0.1 cannot be listened at: .* 0 for a free one"):
            listen("127.0.0.1", port)


def test_the_url_of_all_addresses_is_the_loopback_one(system: penstock.System) -> None:
    for host, url in (("0.0.0.0", "http://127.0.0.1:"), ("::", "http://[::1]:"), ("h.example", "http://h.example:")):
        with contextlib.closing(listen("127.0.0.1", 0)[0]) as listener:
            assert GatewayServer(app(system), [listener], host).url.startswith(url)
