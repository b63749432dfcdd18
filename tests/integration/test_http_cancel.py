"""Cancelling and closing both readers in every phase of a request: the server sees it, and the sink is called.

What only one of them has (a thread for each call, a sink that has no room) is tested below, and in test_http_loop.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.config.options import RequestOptions
from penstock.errors import IncompleteStream, ProviderError
from penstock.ports import Delta, Reader
from tests.integration.plain_calls import AnyReader, PlainProvider, RecordingSink, leaving_no_thread, post
from tests.integration.raw_server import CERTIFICATE, CHUNKED, HEAD, PATIENCE, Peer, RawServer, chunk

OPTIONS = RequestOptions(connect_timeout=60, verify_tls=str(CERTIFICATE))


@pytest.fixture(params=[HttpReader, LoopReader])
def reader(request: pytest.FixtureRequest) -> Iterator[AnyReader]:
    with leaving_no_thread(lambda: request.param(2, max_queue=3)) as reader:
        yield reader


@pytest.fixture
def threads() -> Iterator[HttpReader]:
    """A reader with a thread for each call."""
    with leaving_no_thread(lambda: HttpReader(2, max_queue=3)) as reader:
        yield reader


class Phase:
    """A server that stops at one phase of a request, and then waits for the connection to be closed."""

    def __init__(self, go: Callable[[Peer], None]) -> None:
        self._go = go
        self.reached = threading.Event()
        self.closed = threading.Event()

    def __call__(self, peer: Peer) -> None:
        self._go(peer)
        self.reached.set()
        peer.wait_closed()
        self.closed.set()


def _handshaking(peer: Peer) -> None:
    assert peer.sock.recv(65_536)[:1] == b"\x16"  # the client's hello, which is not answered


def _waiting_for_headers(peer: Peer) -> None:
    peer.read_request()


def _waiting_for_more_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(HEAD)


def _waiting_for_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(CHUNKED)


def _inside_a_chunk(peer: Peer) -> None:
    peer.read_request()
    peer.send(CHUNKED + chunk(b"data: x\n\n") + b"40\r\ndata: ")


def _inside_a_close_delimited_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(HEAD + b"\r\ndata: x\n\n")


def _inside_an_error_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\npart")


PHASES = [
    (_waiting_for_headers, False),
    (_waiting_for_more_headers, False),
    (_waiting_for_body, False),
    (_inside_a_chunk, False),
    (_inside_a_close_delimited_body, False),
    (_inside_an_error_body, False),
    (_waiting_for_headers, True),
    (_waiting_for_body, True),
    (_inside_a_chunk, True),
    (_inside_a_close_delimited_body, True),
]


@pytest.mark.parametrize(("go", "tls"), PHASES)
def test_a_cancel_closes_the_connection_and_ends_the_request(
    reader: AnyReader, go: Callable[[Peer], None], tls: bool
) -> None:
    phase = Phase(go)
    sink = RecordingSink()
    with RawServer(phase, tls=tls) as server:
        job = reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert phase.reached.wait(PATIENCE)
        assert sink.is_waiting.wait(PATIENCE)
        job.cancel()
        assert phase.closed.wait(10), "the server does not see the connection closed"
        assert isinstance(sink.wait_ended(), IncompleteStream)
    job.cancel()
    assert sink.calls[-1] == "ended"
    assert reader.statistics()["active"] == 0


def test_a_cancel_ends_a_tls_handshake(reader: AnyReader) -> None:
    phase = Phase(_handshaking)
    sink = RecordingSink()
    with RawServer(phase) as server:
        job = reader.start(PlainProvider(), post(server.url.replace("http:", "https:")), OPTIONS, sink)
        assert phase.reached.wait(PATIENCE)
        job.cancel()
        assert phase.closed.wait(10)
        sink.wait_ended()
    assert sink.calls == ["connecting", "ended"]


def test_a_cancel_ends_the_wait_for_a_proxys_tunnel(reader: AnyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    phase = Phase(_waiting_for_headers)
    sink = RecordingSink()
    with RawServer(phase) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("no_proxy", "")
        job = reader.start(PlainProvider(), post("https://provider.example:1/v1"), OPTIONS, sink)
        assert phase.reached.wait(PATIENCE)
        job.cancel()
        assert phase.closed.wait(10)
        assert isinstance(sink.wait_ended(), IncompleteStream)


def test_a_cancel_ends_the_wait_for_a_connection(reader: AnyReader) -> None:
    with contextlib.ExitStack() as held:
        # A listener whose queue is full answers no further connection: Linux drops the handshake's last packets.
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        sink = RecordingSink()
        job = reader.start(PlainProvider(), post(f"http://127.0.0.1:{address[1]}/"), OPTIONS, sink)
        assert sink.is_connecting.wait(PATIENCE)
        assert not sink.has_ended.is_set()
        job.cancel()
        assert isinstance(sink.wait_ended(), IncompleteStream)
    assert sink.calls == ["connecting", "ended"]


def test_a_cancel_ends_the_sending_of_a_request_nobody_reads(reader: AnyReader) -> None:
    accepted = threading.Event()
    let_go = threading.Event()

    def serve(peer: Peer) -> None:
        accepted.set()
        assert let_go.wait(PATIENCE)

    with RawServer(serve) as server:
        sink = RecordingSink()
        job = reader.start(PlainProvider(), post(server.url, body=b"x" * 50_000_000), OPTIONS, sink)
        assert accepted.wait(PATIENCE)
        job.cancel()
        assert isinstance(sink.wait_ended(), IncompleteStream)
        let_go.set()


def test_a_cancel_is_seen_by_the_server_while_the_sink_still_blocks(threads: HttpReader) -> None:
    in_sink, let_go = threading.Event(), threading.Event()

    class Blocking(RecordingSink):
        def deltas(self, deltas: Sequence[Delta]) -> bool:
            in_sink.set()
            return not let_go.wait(PATIENCE)

    phase = Phase(_inside_a_chunk)
    sink = Blocking()
    with RawServer(phase) as server:
        job = threads.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert in_sink.wait(PATIENCE)
        job.cancel()
        assert phase.closed.wait(10)
        assert not sink.has_ended.is_set()
        let_go.set()
        assert isinstance(sink.wait_ended(), IncompleteStream)


def test_a_cancelled_connection_is_not_used_again(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        while peer.read_request():
            peer.send(CHUNKED + chunk(b"data: x\n\n"))

    with RawServer(serve) as server:
        for _ in range(3):
            sink = RecordingSink()
            job = reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
            assert sink.next_text() == "data: x\n\n"
            job.cancel()
            sink.wait_ended()
        assert server.connections == 3


def test_a_cancel_of_a_request_on_a_kept_connection_closes_it(reader: AnyReader) -> None:
    waiting = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")
        peer.read_request()
        waiting.set()
        peer.wait_closed()

    with RawServer(serve) as server:
        first = RecordingSink()
        reader.start(PlainProvider(), post(server.url), OPTIONS, first)
        assert first.wait_ended() is None
        second = RecordingSink()
        job = reader.start(PlainProvider(), post(server.url), OPTIONS, second)
        assert waiting.wait(PATIENCE)
        job.cancel()
        assert isinstance(second.wait_ended(), IncompleteStream)
        assert server.connections == 1


def test_a_cancel_after_the_end_does_not_touch_the_connections_next_request(reader: AnyReader) -> None:
    ask_again = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")
        peer.read_request()
        assert ask_again.wait(PATIENCE)
        peer.send(HEAD + b"Content-Length: 2\r\n\r\ncd")

    with RawServer(serve) as server:
        first, second = RecordingSink(), RecordingSink()
        old = reader.start(PlainProvider(), post(server.url), OPTIONS, first)
        assert first.wait_ended() is None
        reader.start(PlainProvider(), post(server.url), OPTIONS, second)
        assert second.is_waiting.wait(PATIENCE)
        old.cancel()
        ask_again.set()
        assert second.wait_ended() is None
        assert second.next_text() == "cd"
        assert server.connections == 1


# --- the queue -----------------------------------------------------------------------------------------------------


class Busy:
    """A server that does not respond until it is released."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, peer: Peer) -> None:
        if not peer.read_request():
            return
        assert self.go.wait(PATIENCE)
        peer.send(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nab")


def test_a_queued_request_that_is_cancelled_ends_though_all_threads_are_busy(threads: HttpReader) -> None:
    busy = Busy()
    with RawServer(busy) as server:
        sinks = [RecordingSink() for _ in range(4)]
        jobs = [threads.start(PlainProvider(), post(server.url), OPTIONS, sink) for sink in sinks]
        assert sinks[1].is_waiting.wait(PATIENCE)
        jobs[2].cancel()
        assert isinstance(sinks[2].wait_ended(), IncompleteStream)
        assert sinks[2].calls == ["ended"]
        assert sinks[2].decoder is None
        assert threads.statistics()["queued"] == 1
        busy.go.set()
        for sink in (sinks[0], sinks[1], sinks[3]):
            assert sink.wait_ended() is None


def test_a_queued_request_is_cancelled_in_the_callers_thread_if_no_other_can_be_started(
    threads: HttpReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refusing(self: threading.Thread) -> None:
        if self.name == "penstock-reader-dismisser":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    busy, is_over = Busy(), threading.Event()
    with RawServer(busy) as server:
        sinks = [RecordingSink() for _ in range(3)]
        jobs = [threads.start(PlainProvider(), post(server.url), OPTIONS, sink) for sink in sinks]
        assert sinks[1].is_waiting.wait(PATIENCE)

        def cancel() -> None:
            jobs[2].cancel()
            assert is_over.wait(PATIENCE)

        canceller = threading.Thread(target=cancel, name="the canceller")
        canceller.start()
        assert isinstance(sinks[2].wait_ended(), IncompleteStream)
        assert sinks[2].threads == {"the canceller"}
        assert threads.statistics()["threads"] == 2
        busy.go.set()
        assert threads.close(PATIENCE) == 0  # which is not the reader's own thread
        is_over.set()
        canceller.join(PATIENCE)


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(threads: HttpReader) -> None:
    busy = Busy()
    with RawServer(busy) as server:
        sinks = [RecordingSink() for _ in range(5)]
        jobs = [threads.start(PlainProvider(), post(server.url), OPTIONS, sink) for sink in sinks]
        with pytest.raises(ProviderError, match="too many requests"):
            threads.start(PlainProvider(), post(server.url), OPTIONS, RecordingSink())
        jobs[4].cancel()
        sinks[4].wait_ended()
        late = RecordingSink()
        threads.start(PlainProvider(), post(server.url), OPTIONS, late)
        assert threads.statistics()["started"] == 6
        busy.go.set()
        assert late.wait_ended() is None


@pytest.mark.parametrize("kind", [HttpReader, LoopReader])
def test_idle_threads_retire(kind: type[AnyReader]) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nab")

    with leaving_no_thread(lambda: kind(2, idle_timeout=0)) as reader, RawServer(serve) as server:
        for _ in range(3):
            sink = RecordingSink()
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
            assert sink.wait_ended() is None


# --- closing the reader --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HttpReader, LoopReader])
def test_closing_the_reader_ends_what_runs_and_what_waits(kind: type[AnyReader]) -> None:
    before = threading.active_count()
    reader: Reader = kind(2)
    busy = Busy()
    with RawServer(busy) as server:
        sinks = [RecordingSink() for _ in range(5)]
        for sink in sinks:
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert sinks[1].is_waiting.wait(PATIENCE)
        assert reader.close(PATIENCE) == 0
        assert all(isinstance(sink.error, IncompleteStream) for sink in sinks)
        assert reader.statistics() == {"active": 0, "queued": 0, "started": 5, "threads": 0, "leaked": 0}
        with pytest.raises(ProviderError, match="closed"):
            reader.start(PlainProvider(), post(server.url), OPTIONS, RecordingSink())
        assert reader.close(PATIENCE) == 0
        busy.go.set()
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", [HttpReader, LoopReader])
def test_a_request_that_is_started_while_the_reader_closes_ends_or_is_refused(
    kind: type[AnyReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is between the reader's first look and the queue when ``close`` comes to the pool."""
    is_starting, is_closing, has_started = threading.Event(), threading.Event(), threading.Event()

    class Slow(dict[str, Any]):
        def items(self) -> Any:
            is_starting.set()
            assert is_closing.wait(PATIENCE)
            return super().items()

    phase, sink = Phase(_waiting_for_headers), RecordingSink()
    refusals: list[ProviderError] = []

    def start() -> None:
        request = post(server.url)
        request = msgspec.structs.replace(request, secret_headers=Slow(request.secret_headers))
        try:
            reader.start(PlainProvider(), request, OPTIONS, sink)
        except ProviderError as error:
            refusals.append(error)
        has_started.set()

    with RawServer(phase) as server:
        reader: AnyReader = kind(2)
        close = reader._pool.close

        def closing() -> Any:
            is_closing.set()
            assert has_started.wait(PATIENCE)
            return close()

        monkeypatch.setattr(reader._pool, "close", closing)
        starter = threading.Thread(target=start)
        starter.start()
        assert is_starting.wait(PATIENCE)
        assert reader.close(PATIENCE) == 0
        starter.join(PATIENCE)
        assert refusals or isinstance(sink.wait_ended(), IncompleteStream)


@pytest.mark.parametrize("kind", [HttpReader, LoopReader])
def test_a_thread_stuck_in_its_sink_is_counted_as_leaked_until_it_comes_back(kind: type[AnyReader]) -> None:
    in_sink, let_go = threading.Event(), threading.Event()

    class Stuck(RecordingSink):
        def waiting(self) -> None:
            in_sink.set()
            assert let_go.wait(PATIENCE)

    reader = kind(2)
    busy = Busy()
    with RawServer(busy) as server:
        sink = Stuck()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert in_sink.wait(PATIENCE)
        assert reader.close(0.01) == 1
        assert reader.statistics()["leaked"] == 1
        let_go.set()
        sink.wait_ended()
        assert reader.close(PATIENCE) == 0
        assert reader.statistics()["leaked"] == 0
        busy.go.set()


@pytest.mark.parametrize("kind", [HttpReader, LoopReader])
def test_a_sink_may_close_the_reader_it_is_called_from(kind: type[AnyReader]) -> None:
    reader = kind(2)
    left: list[int] = []

    class Closing(RecordingSink):
        def deltas(self, deltas: Sequence[Delta]) -> bool:
            left.append(reader.close(PATIENCE))
            return True

    phase = Phase(_inside_a_chunk)
    with RawServer(phase) as server:
        sink = Closing()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert isinstance(sink.wait_ended(), IncompleteStream)
    assert left == [0]
    assert reader.close(PATIENCE) == 0
