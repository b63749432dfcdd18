"""`LoopReader`: what a reader with a thread for each call does not have. Credit, one thread, one descriptor a call."""

from __future__ import annotations

import gzip
import importlib
import os
import queue
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.adapters.http import loop as loop_module
from penstock.adapters.http import loop_exchange
from penstock.adapters.http.handover import SentRequest
from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.polling import Poll, make_poll
from penstock.errors import IncompleteStream, LocalError, ProviderError
from penstock.ports import Delta
from penstock.testing import eventually
from tests.integration.plain_calls import OPTIONS, PlainDecoder, PlainProvider, RecordingSink, leaving_no_thread, post
from tests.integration.raw_server import CERTIFICATE, CHUNKED, HEAD, PATIENCE, Peer, RawServer, chunk

TLS = OPTIONS.replace(verify_tls=str(CERTIFICATE))


@pytest.fixture
def reader() -> Iterator[LoopReader]:
    with leaving_no_thread(lambda: LoopReader(4, max_queue=3)) as reader:
        yield reader


class Debtor(RecordingSink):
    """A sink that has room only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.has_room = False
        self.asked: queue.Queue[Callable[[], None]] = queue.Queue()

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        if deltas:
            self.deltas(deltas)
        if self.has_room:
            return True
        self.asked.put(on_room)
        return None

    def wait_asked(self) -> Callable[[], None]:
        return self.asked.get(timeout=PATIENCE)

    def text(self) -> str:
        return "".join(self.texts.queue)


# --- credit --------------------------------------------------------------------------------------------------------


def _send_until_held(peer: Peer, piece: bytes, count: int, held: threading.Event) -> None:
    """Send pieces; set ``held`` when the client takes nothing for a while."""
    view = memoryview(piece * count)
    peer.sock.setblocking(False)
    while view:
        if not select.select([], [peer.sock], [], 0.3)[1]:
            held.set()
            assert select.select([], [peer.sock], [], PATIENCE)[1]
        try:
            view = view[peer.sock.send(view[:262_144]) :]
        except BlockingIOError:
            continue


def test_a_stream_without_room_holds_the_provider_and_not_our_memory(reader: LoopReader) -> None:
    held = threading.Event()
    piece, count = chunk(b"x" * 65_000), 400

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED)
        _send_until_held(peer, piece, count, held)
        peer.sock.setblocking(True)
        peer.send(b"0\r\n\r\n")

    with RawServer(serve) as server:
        sink = Debtor()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        on_room = sink.wait_asked()
        assert held.wait(PATIENCE), "the provider is never slowed down"
        assert len(sink.text()) <= 8_192
        assert sink.asked.empty()  # it is asked once
        sink.has_room = True
        on_room()
        assert sink.wait_ended() is None
    assert len(sink.text()) == 65_000 * count


@pytest.mark.parametrize("tls", [False, True])
def test_a_cancel_of_a_stream_without_room_closes_its_connection(reader: LoopReader, tls: bool) -> None:
    closed = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()
        closed.set()

    with RawServer(serve, tls=tls) as server:
        sink = Debtor()
        job = reader.start(PlainProvider(), post(server.url), TLS if tls else OPTIONS, sink)
        on_room = sink.wait_asked()
        job.cancel()
        assert isinstance(sink.wait_ended(), IncompleteStream)
        assert closed.wait(PATIENCE)
        on_room()  # too late, and harmless


def test_a_provider_that_leaves_a_stream_without_room_does_not_keep_the_loop_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self._poll: Poll = make_poll()

        def wait(self, timeout: float | None) -> list[int]:
            ready = self._poll.wait(timeout)
            waits.append(len(ready))
            return ready

        def __getattr__(self, name: str) -> Any:
            return getattr(self._poll, name)

    monkeypatch.setattr(loop_module, "make_poll", Counting)
    reader = LoopReader(2)

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))

    with RawServer(serve) as server:
        sink = Debtor()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        on_room = sink.wait_asked()
        server.join()  # it has closed the connection
        before = len(waits)
        seen = threading.Event()
        assert reader._loop is not None
        reader._loop.post(seen.set)
        assert seen.wait(PATIENCE)
        assert sum(waits[before:]) == 0
        sink.has_room = True
        on_room()
        assert isinstance(sink.wait_ended(), IncompleteStream)
    assert reader.close(PATIENCE) == 0


def test_a_sink_that_has_no_room_again_and_again_gets_everything_in_order(reader: LoopReader) -> None:
    words = [f"{number} " for number in range(200)]

    class Poor(RecordingSink):
        """Has room every third time it is asked."""

        asked = 0

        def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
            if deltas:
                self.deltas(deltas)
            self.asked += 1
            if self.asked % 3:
                on_room()
                return None
            return True

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + b"".join(chunk(word.encode()) for word in words))
        peer.send(b"0\r\n\r\n")

    with RawServer(serve) as server:
        sink = Poor()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert sink.wait_ended() is None
        reader.close(PATIENCE)
    assert "".join(sink.texts.queue) == "".join(words)


def test_what_a_compressed_body_expands_to_comes_in_pieces_and_only_as_there_is_room(reader: LoopReader) -> None:
    body = gzip.compress(b"x" * 10_000_000)

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with RawServer(serve) as server:
        sink = Debtor()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        for pieces in range(1, 4):
            on_room = sink.wait_asked()
            assert len(sink.text()) <= 65_536 * pieces
            if pieces == 3:
                sink.has_room = True
            else:
                sink.has_room = False
                sink.offer = _once(sink)  # type: ignore[method-assign]
            on_room()
        assert sink.wait_ended() is None
        reader.close(PATIENCE)
    assert len(sink.text()) == 10_000_000


def _once(sink: Debtor) -> Callable[..., bool | None]:
    """Let the next offer through, which asks whether there is room, and none after it."""

    def offer(deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        del sink.offer
        return True

    return offer


@pytest.mark.parametrize("end", [chunk(b"[DONE]"), chunk(b"last") + b"0\r\n\r\n", chunk(b"last")])
def test_an_answer_that_ends_while_there_is_no_room_ends_when_there_is(reader: LoopReader, end: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + end)
        if end.endswith(b"[DONE]\r\n"):
            peer.wait_closed()

    with RawServer(serve) as server:
        sink = Debtor()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        on_room = sink.wait_asked()
        assert not sink.has_ended.is_set()
        sink.has_room = True
        on_room()
        error = sink.wait_ended()
        assert isinstance(error, IncompleteStream) if end == chunk(b"last") else error is None
        reader.close(PATIENCE)


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("size", [16_000, 70_000])
def test_bytes_inside_the_tls_library_are_read_though_nothing_more_arrives(
    reader: LoopReader, has_room: bool, size: int
) -> None:
    """A TLS record of 16 KiB is decrypted as a whole, so that the socket has nothing left to wake a poll."""
    told = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED)
        peer.send(chunk(b"x" * size))
        assert told.wait(PATIENCE), "bytes were left inside the TLS library"
        peer.send(b"0\r\n\r\n")

    with RawServer(serve, tls=True) as server:
        sink = Debtor()
        sink.has_room = has_room
        reader.start(PlainProvider(), post(server.url), TLS, sink)
        if not has_room:
            on_room = sink.wait_asked()
            sink.has_room = True
            on_room()
        eventually(lambda: len(sink.text()) == size, timeout=PATIENCE)
        told.set()
        assert sink.wait_ended() is None
        reader.close(PATIENCE)


# --- opening -------------------------------------------------------------------------------------------------------


def test_a_cancel_during_a_name_lookup_ends_the_request_though_the_lookup_goes_on(
    reader: LoopReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, let_go = threading.Event(), threading.Event()
    lookup = socket.getaddrinfo

    def slow(*arguments: Any) -> Any:
        looking.set()
        assert let_go.wait(PATIENCE)
        return lookup(*arguments)

    def serve(peer: Peer) -> None:
        raise AssertionError("a cancelled request was sent")

    with RawServer(serve) as server:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        sink = RecordingSink()
        job = reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert looking.wait(PATIENCE)
        job.cancel()
        assert isinstance(sink.wait_ended(), IncompleteStream)
        assert not let_go.is_set()
        assert reader.statistics()["active"] == 0
        let_go.set()
        assert reader.close(PATIENCE) == 0
        assert server.connections == 0


def test_requests_wait_for_an_opener_in_a_bounded_queue_and_a_cancel_takes_them_out(reader: LoopReader) -> None:
    shaking = threading.Semaphore(0)

    def shake(peer: Peer) -> None:
        assert peer.sock.recv(65_536)  # the client's hello, which is not answered
        shaking.release()
        peer.wait_closed()

    with RawServer(shake) as server:
        request = post(server.url.replace("http:", "https:"))
        sinks = [RecordingSink() for _ in range(7)]
        jobs = [reader.start(PlainProvider(), request, OPTIONS, sink) for sink in sinks]
        for _ in range(3):  # the last free opener is for another endpoint
            assert shaking.acquire(timeout=PATIENCE)
        seen = reader.statistics()
        assert (seen["active"], seen["queued"], seen["started"]) == (3, 4, 7)
        with pytest.raises(ProviderError, match="too many requests"):
            reader.start(PlainProvider(), request, OPTIONS, RecordingSink())
        jobs[5].cancel()
        assert isinstance(sinks[5].wait_ended(), IncompleteStream)
        assert sinks[5].calls == ["ended"]
        assert reader.statistics()["queued"] == 3
        assert reader.close(PATIENCE) == 0
        for sink in sinks:
            assert isinstance(sink.wait_ended(), IncompleteStream)
        server.join()
        server.errors.clear()  # a reset instead of an end


def test_a_waiting_answer_holds_no_thread_but_the_loops(reader: LoopReader) -> None:
    go = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        assert go.wait(PATIENCE)
        peer.send(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nab")

    with RawServer(serve) as server:
        sinks = [RecordingSink() for _ in range(30)]
        for sink in sinks:
            eventually(lambda: reader.statistics()["queued"] == 0)
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        for sink in sinks:
            assert sink.is_waiting.wait(PATIENCE)
        assert reader.statistics()["active"] == 30
        assert reader.statistics()["threads"] <= 5
        go.set()
        for sink in sinks:
            assert sink.wait_ended() is None
        names = {name for sink in sinks for name in sink.threads}
    assert names == {"penstock-reader-loop"}


# --- descriptors ---------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="lists the process's descriptors")


@linux
@pytest.mark.parametrize("tls", [False, True])
def test_a_call_under_way_takes_one_descriptor(reader: LoopReader, tls: bool) -> None:
    count = 20
    go = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        assert go.wait(PATIENCE)
        peer.send(b"0\r\n\r\n")

    with RawServer(serve, tls=tls) as server:
        first = RecordingSink()
        reader.start(PlainProvider(), post(server.url), TLS if tls else OPTIONS, first)
        first.next_text()
        before = len(os.listdir("/proc/self/fd"))
        sinks = [RecordingSink() for _ in range(count)]
        for sink in sinks:
            eventually(lambda: reader.statistics()["queued"] == 0)
            reader.start(PlainProvider(), post(server.url), TLS if tls else OPTIONS, sink)
        for sink in sinks:
            sink.next_text()
        # The server's ends are in this process too.
        eventually(lambda: len(os.listdir("/proc/self/fd")) - before == 2 * count)
        go.set()
        for sink in sinks:
            assert sink.wait_ended() is None
        reader.close(PATIENCE)


@linux
def test_a_process_without_descriptors_is_told_its_limit() -> None:
    resource: Any = importlib.import_module("resource")  # Windows has none, and type checkers know that

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reader = LoopReader(2)
    with RawServer(serve) as server:
        warm = RecordingSink()
        reader.start(PlainProvider(), post(server.url), OPTIONS, warm)
        assert warm.wait_ended() is None
        server.join()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        held = []
        try:
            try:
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            sink = RecordingSink()
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
            error = sink.wait_ended()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in held:
                os.close(fd)
        assert isinstance(error, LocalError)
        assert f"its limit is {used + 1:,}" in str(error)
    assert reader.close(PATIENCE) == 0


@linux
def test_a_loop_that_gets_no_descriptor_refuses_the_request_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> Poll:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(loop_module, "make_poll", none_left)
    reader = LoopReader(2)
    with pytest.raises(LocalError, match="its limit is"):
        reader.start(PlainProvider(), post("http://localhost:1"), OPTIONS, RecordingSink())
    assert reader.close(PATIENCE) == 0


def test_a_loop_whose_poll_fails_ends_its_requests_and_the_next_one_has_another(
    reader: LoopReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    go = threading.Event()

    def serve(peer: Peer) -> None:
        if peer.read_request().endswith(b"finish"):
            peer.send(CHUNKED + chunk(b"data: x\n\n") + b"0\r\n\r\n")
            return
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()

    def broken(timeout: float | None) -> list[int]:
        raise MemoryError

    with RawServer(serve) as server:
        read, paused = RecordingSink(), Debtor()
        for sink in (read, paused):
            reader.start(PlainProvider(), post(server.url, body=b"wait"), OPTIONS, sink)
        read.next_text()
        on_room = paused.wait_asked()
        loop = reader._loop
        assert loop is not None
        monkeypatch.setattr(loop._poll, "wait", broken)
        loop.post(go.set)
        assert go.wait(PATIENCE)
        assert isinstance(read.wait_ended(), ProviderError)
        assert loop.join(PATIENCE)
        paused.has_room = True
        on_room()
        assert isinstance(paused.wait_ended(), ProviderError)
        last = RecordingSink()
        reader.start(PlainProvider(), post(server.url, body=b"finish"), OPTIONS, last)
        assert last.wait_ended() is None
        assert reader._loop is not loop
        assert reported == [MemoryError]


@pytest.mark.parametrize("method", ["close", "keep"])
def test_a_connection_that_cannot_be_let_go_does_not_keep_its_call(
    reader: LoopReader, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    let_go = getattr(SentRequest, method)

    def fail(self: SentRequest) -> None:
        let_go(self)
        raise ZeroDivisionError

    monkeypatch.setattr(SentRequest, method, fail)

    def serve(peer: Peer) -> None:
        peer.read_request()
        more = b"Connection: close\r\n" if method == "close" else b""
        peer.send(HEAD + more + b"Content-Length: 2\r\n\r\nab")

    with RawServer(serve) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert sink.wait_ended() is None
        eventually(lambda: reader.statistics()["active"] == 0, PATIENCE)
        assert reported == [ZeroDivisionError]


def test_an_opened_connection_that_cannot_be_taken_over_ends_its_call(
    reader: LoopReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(SentRequest):
        def __init__(self, raw: Any) -> None:
            raise NotImplementedError

    monkeypatch.setattr(loop_exchange, "SentRequest", Refusing)

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.wait_closed()

    with RawServer(serve) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert isinstance(sink.wait_ended(), ProviderError)


def test_an_encrypted_connection_that_is_always_ready_has_one_turn_posted_at_a_time() -> None:
    posted: list[Callable[[], None]] = []
    loop: Any = SimpleNamespace(now=0.0, post=posted.append, unwatch=lambda fd: None)
    sent: Any = SimpleNamespace(
        is_plain=False, may_have_pending=True, fd=0, receive=lambda size: b"x", close=lambda: None
    )
    sink: Any = RecordingSink()
    request = post("https://localhost:1")
    exchange = loop_exchange.LoopExchange(
        PlainProvider(), request, OPTIONS, sink, loop, withdraw=lambda job: None, forget=lambda job: None
    )
    exchange._sent_request, exchange._phase = sent, loop_exchange._Phase.BODY
    exchange._decoder = PlainDecoder()
    for _ in range(3):
        exchange.ready()
        assert len(posted) == 1
        exchange.ready()  # by the poll, in the same turn
        assert len(posted) == 1
        posted.pop()()
        assert len(posted) == 1
    assert len(sink.batches) == 3 * 3 * 8


@linux
def test_closing_leaves_no_descriptor_of_calls_in_any_phase() -> None:
    def serve(peer: Peer) -> None:
        kind = peer.read_request().partition(b"\r\n\r\n")[2]
        if kind != b"head":
            peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()

    before = len(os.listdir("/proc/self/fd"))
    with RawServer(serve) as server:
        reader = LoopReader(4)
        body, paused, head = RecordingSink(), Debtor(), RecordingSink()
        for sink, kind in ((body, b"body"), (paused, b"body"), (head, b"head")):
            reader.start(PlainProvider(), post(server.url, body=kind), OPTIONS, sink)
        body.next_text()
        paused.wait_asked()
        assert head.is_waiting.wait(PATIENCE)
        assert reader.close(PATIENCE) == 0
        assert all(isinstance(sink.wait_ended(), IncompleteStream) for sink in (body, paused, head))
    assert len(os.listdir("/proc/self/fd")) == before


# --- kept connections ----------------------------------------------------------------------------------------------


def test_a_connection_with_bytes_after_the_body_is_not_used_again(reader: LoopReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfoisted")
        peer.wait_closed()

    with RawServer(serve) as server:
        for _ in range(2):
            sink = RecordingSink()
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
            assert sink.wait_ended() is None
            assert sink.next_text() == "ab"
        assert server.connections == 2


def test_of_many_connections_only_a_few_are_kept_and_the_log_is_silent_about_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from penstock.adapters.http import loop_reader

    monkeypatch.setattr(loop_reader, "_KEPT", 2)
    reader = LoopReader(8)
    all_there = threading.Barrier(6)

    def serve(peer: Peer) -> None:
        peer.read_request()
        all_there.wait(PATIENCE)
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")
        peer.wait_closed()

    with RawServer(serve) as server:
        sinks = [RecordingSink() for _ in range(6)]
        for sink in sinks:
            reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        for sink in sinks:
            assert sink.wait_ended() is None
        (pool,) = _pools(reader, server.url)
        kept = [each for each in list(pool.pool.queue) if each is not None]
        assert len(kept) <= 2
        assert not [each for each in caplog.records if each.name.startswith("urllib3") and each.levelname == "WARNING"]
        assert reader.close(PATIENCE) == 0


def _pools(reader: LoopReader, url: str) -> list[Any]:
    session = reader._transport._session
    assert session is not None
    manager: Any = session._session.get_adapter(url).poolmanager  # type: ignore[attr-defined]
    return [manager.pools[key] for key in manager.pools.keys()]  # noqa: SIM118 - it has no `__iter__`


# --- bugs of others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["connecting", "waiting", "offer", "answered"])
def test_a_sink_that_fails_ends_its_own_request_and_no_other(reader: LoopReader, method: str) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()

    def fail(*_: object) -> None:
        raise ValueError("secret")

    with RawServer(serve) as server:
        fine, broken = RecordingSink(), RecordingSink()
        job = reader.start(PlainProvider(), post(server.url), OPTIONS, fine)
        fine.next_text()
        setattr(broken, method, fail)
        reader.start(PlainProvider(), post(server.url), OPTIONS, broken)
        error = broken.wait_ended()
        assert isinstance(error, ProviderError)
        assert "ValueError" in str(error)
        assert "secret" not in str(error)
        assert not fine.has_ended.is_set()
        job.cancel()
        fine.wait_ended()
        server.join()
        server.errors.clear()  # the failed request may not even have been sent


def test_a_decoder_that_fails_leaves_no_connection(reader: LoopReader) -> None:
    closed = threading.Event()

    class Buggy(PlainDecoder):
        def feed(self, chunk: bytes) -> list[Delta]:
            raise MemoryError

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()
        closed.set()

    with RawServer(serve) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(Buggy), post(server.url), OPTIONS, sink)
        assert isinstance(sink.wait_ended(), LocalError)
        assert closed.wait(PATIENCE)
