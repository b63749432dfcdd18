"""Both readers against servers with scripted bytes: bodies as they arrive, failures, kept connections."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import ssl
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.errors import (
    ApiError,
    AuthenticationError,
    ConnectError,
    IncompleteStream,
    OptionError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
)
from penstock.ports import ChatCall, Delta, ProviderRequest, Secret
from tests.integration.plain_calls import (
    OPTIONS,
    AnyReader,
    PlainDecoder,
    PlainProvider,
    RecordingSink,
    leaving_no_thread,
    post,
)
from tests.integration.raw_server import CERTIFICATE, CHUNKED, HEAD, PATIENCE, Peer, RawServer, chunk


@pytest.fixture(params=[HttpReader, LoopReader])
def reader(request: pytest.FixtureRequest) -> Iterator[AnyReader]:
    with leaving_no_thread(lambda: request.param(4)) as reader:
        yield reader


def run(reader: AnyReader, url: str, options: RequestOptions = OPTIONS) -> RecordingSink:
    sink = RecordingSink()
    reader.start(PlainProvider(), post(url), options, sink)
    sink.wait_ended()
    return sink


def test_a_request_is_not_active_any_more_when_its_sink_learns_of_its_end(reader: AnyReader) -> None:
    class Looking(RecordingSink):
        def ended(self, decoder: Any, error: Any) -> None:
            seen.append(reader.statistics()["active"])
            super().ended(decoder, error)

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n") + b"0\r\n\r\n")

    seen: list[int] = []
    with RawServer(serve) as server:
        sink = Looking()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert sink.wait_ended() is None
    refused = Looking()
    reader.start(PlainProvider(), post("http://127.0.0.1:1"), OPTIONS, refused)
    assert isinstance(refused.wait_ended(), ConnectError)
    assert seen == [0, 0]


# --- bodies --------------------------------------------------------------------------------------------------------


def _chunked() -> tuple[bytes, Callable[[bytes], bytes], bytes]:
    return CHUNKED, chunk, b"0\r\n\r\n"


def _close_delimited() -> tuple[bytes, Callable[[bytes], bytes], bytes]:
    return HEAD + b"\r\n", lambda data: data, b""


def _content_length() -> tuple[bytes, Callable[[bytes], bytes], bytes]:
    return HEAD + b"Content-Length: 30\r\n\r\n", lambda data: data, b""


def _gzipped() -> tuple[bytes, Callable[[bytes], bytes], bytes]:
    packer = zlib.compressobj(wbits=31)
    head = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head, lambda data: chunk(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)), b"0\r\n\r\n"


def _gzipped_until_close() -> tuple[bytes, Callable[[bytes], bytes], bytes]:
    packer = zlib.compressobj(wbits=31)
    head = HEAD + b"Content-Encoding: gzip\r\n\r\n"
    return head, lambda data: packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH), b""


KINDS = [_chunked, _close_delimited, _content_length, _gzipped, _gzipped_until_close]
EVENTS = ["data: one\n\n", "data: two\n\n", "data: 3\n"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", [False, True])
def test_each_event_is_told_before_the_next_byte_is_sent(
    reader: AnyReader, kind: Callable[[], tuple[bytes, Callable[[bytes], bytes], bytes]], tls: bool
) -> None:
    told = [threading.Event() for _ in EVENTS]

    def serve(peer: Peer) -> None:
        head, frame, tail = kind()
        peer.read_request()
        peer.send(head)
        for event, was_told in zip(EVENTS, told, strict=True):
            peer.send(frame(event.encode()))
            assert was_told.wait(PATIENCE), "an event was held back until more came"
        peer.send(tail)

    with RawServer(serve, tls=tls) as server:
        sink = RecordingSink()
        options = OPTIONS.replace(verify_tls=str(CERTIFICATE)) if tls else OPTIONS
        reader.start(PlainProvider(), post(server.url), options, sink)
        for event, was_told in zip(EVENTS, told, strict=True):
            assert sink.next_text() == event
            was_told.set()
        assert sink.wait_ended() is None
    assert sink.calls[0:3] == ["connecting", "waiting", "deltas"]
    assert len(sink.threads) == 1


def test_chunks_that_came_together_are_told_together_and_pieces_of_a_chunk_at_once(reader: AnyReader) -> None:
    first_told = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"a") + chunk(b"b") + b"4;ext=1\r\ncd")
        assert first_told.wait(PATIENCE)
        peer.send(b"ef\r")
        peer.send(b"\n0\r\nX-Trailer: t\r\n\r\n")

    with RawServer(serve) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        text = sink.next_text()
        while text != "abcd":  # head and body may come in two packets
            text += sink.next_text()
        first_told.set()
        assert sink.next_text() == "ef"
        assert sink.wait_ended() is None


def test_a_chunked_body_cut_at_every_byte_is_the_same_body(reader: AnyReader) -> None:
    wire = chunk(b"data: x\n\n") + chunk(b"y" * 17) + b"0\r\nT: u\r\n\r\n"

    def serve(peer: Peer) -> None:
        while peer.read_request():
            peer.send(CHUNKED)
            for at in range(len(wire)):
                peer.send(wire[at : at + 1])

    with RawServer(serve) as server:
        for _ in range(3):
            sink = run(reader, server.url)
            assert sink.error is None
            assert "".join(sink.texts.queue) == "data: x\n\n" + "y" * 17
        assert server.connections == 1
        reader.close(PATIENCE)


def test_a_decoder_that_is_done_ends_the_reading_though_the_server_never_closes(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n") + chunk(b"data: [DONE]\n\n"))
        peer.wait_closed()

    with RawServer(serve) as server:
        sink = run(reader, server.url)
    assert sink.error is None
    assert sink.decoder is not None
    assert sink.decoder.done


def test_a_sink_that_wants_no_more_ends_the_reading(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + chunk(b"data: x\n\n"))
        peer.wait_closed()

    with RawServer(serve) as server:
        sink = RecordingSink(accept=False)
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        assert sink.wait_ended() is None
    assert sink.calls == ["connecting", "waiting", "deltas", "ended"]


def test_a_real_provider_streams_through_the_reader(reader: AnyReader) -> None:
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        seen.append(peer.read_request())
        event = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
        peer.send(CHUNKED + chunk(event) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with RawServer(serve) as server:
        provider = OpenAiChat(Secret("sk-real-1234567"), f"http://localhost:{server.port}/v1")
        sink = RecordingSink()
        call = ChatCall(model="m", input=[{"role": "user", "content": "x"}])
        reader.start(provider, provider.request(call), OPTIONS, sink)
        assert sink.wait_ended() is None
        assert sink.next_text() == "Hi"
        reader.close(PATIENCE)
    assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer sk-real-1234567\r\n" in seen[0]
    assert b'"stream":true' in seen[0]


# --- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end_lags", [False, True])
def test_a_connection_is_used_again_after_a_complete_body(reader: AnyReader, end_lags: bool) -> None:
    def serve(peer: Peer) -> None:
        while peer.read_request():
            body = CHUNKED + chunk(b"data: x\n\n") + chunk(b"data: [DONE]\n\n")
            for piece in (body, b"0\r\n\r\n") if end_lags else (body + b"0\r\n\r\n",):
                peer.send(piece)

    with RawServer(serve) as server:
        for _ in range(5):
            assert run(reader, server.url).error is None
        assert server.connections <= (5 if end_lags else 1)  # whether a late end is in time depends on the scheduler
        reader.close(PATIENCE)


def test_a_closed_reader_closes_kept_connections_though_their_pool_is_still_referred_to(reader: AnyReader) -> None:
    closed = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")
        peer.wait_closed()
        closed.set()

    with RawServer(serve) as server:
        assert run(reader, server.url).error is None
        session = reader._transport._session
        assert session is not None
        manager: Any = session._session.get_adapter(server.url).poolmanager  # type: ignore[attr-defined]
        pools = [manager.pools[key] for key in manager.pools.keys()]  # noqa: SIM118 - it has no `__iter__`
        assert reader.close(PATIENCE) == 0
        assert closed.wait(PATIENCE)
        assert len(pools) == 1


def test_a_kept_connection_that_the_server_closed_meanwhile_is_not_used(reader: AnyReader) -> None:
    closed = threading.Semaphore(0)

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")
        peer.sock.close()
        closed.release()

    with RawServer(serve) as server:
        for _ in range(2):
            assert run(reader, server.url).error is None
            assert closed.acquire(timeout=PATIENCE)
        assert server.connections == 2


def test_environment_proxies_are_used(reader: AnyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")

    with RawServer(serve) as server:
        monkeypatch.setenv("http_proxy", f"http://localhost:{server.port}")
        monkeypatch.setenv("no_proxy", "")
        assert run(reader, "http://provider.invalid/v1").error is None
    assert seen[0].startswith(b"POST http://provider.invalid/v1 HTTP/1.1\r\n")


def test_a_tls_stream_comes_through_a_proxys_tunnel(reader: AnyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = CERTIFICATE.with_name("provider.example.pem")  # connections to this machine are never proxied
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(peer.sock, server_side=True) as inner:
            tunnelled = Peer(inner)
            seen.append(tunnelled.read_request())
            tunnelled.send(CHUNKED + chunk(b"data: x\n\n") + b"0\r\n\r\n")

    with RawServer(serve) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("no_proxy", "")
        sink = run(reader, "https://provider.example:1/v1", OPTIONS.replace(verify_tls=str(certificate)))
    assert sink.error is None
    assert sink.next_text() == "data: x\n\n"
    assert seen[0].startswith(b"CONNECT provider.example:1 HTTP/1.")
    assert b"sk-test" not in seen[0]
    assert b"sk-test" in seen[1]


@pytest.mark.parametrize("is_verified", [False, True])
def test_a_tls_stream_comes_through_the_tunnel_of_a_proxy_that_is_reached_by_tls(
    reader: AnyReader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_verified: bool
) -> None:
    """TLS inside TLS, which urllib3 does in Python: bytes of the answer may be inside either of the two."""
    certificate = CERTIFICATE.with_name("provider.example.pem")
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner.load_cert_chain(certificate)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(CERTIFICATE.read_bytes() + certificate.read_bytes())
    said = [b"data: %d %s\n\n" % (number, b"x" * 6_000) for number in range(20)]

    def serve(peer: Peer) -> None:
        assert peer.read_request().startswith(b"CONNECT provider.example:1 ")
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ours, theirs = socket.socketpair()
        pump = threading.Thread(target=_pump, args=(peer.sock, ours))
        pump.start()
        with inner.wrap_socket(theirs, server_side=True) as sock:
            tunnelled = Peer(sock)
            tunnelled.read_request()
            tunnelled.send(CHUNKED)
            for each in said:
                tunnelled.send(chunk(each))
            tunnelled.send(b"0\r\n\r\n")
            tunnelled.receive()
        pump.join(PATIENCE)

    with RawServer(serve, tls=True) as server:
        monkeypatch.setenv("https_proxy", f"https://localhost:{server.port}")
        monkeypatch.setenv("no_proxy", "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # urllib3 warns of certificates that are not verified
            verify_tls = str(bundle) if is_verified else False
            sink = run(reader, "https://provider.example:1/v1", OPTIONS.replace(verify_tls=verify_tls))
        assert sink.error is None
        assert "".join(sink.texts.queue).encode() == b"".join(said)
        reader.close(PATIENCE)


@pytest.mark.parametrize("knows_it", [True, False])
def test_a_proxy_that_is_reached_by_tls_is_checked_with_the_given_bundle_for_a_plain_url_too(
    reader: AnyReader, monkeypatch: pytest.MonkeyPatch, knows_it: bool
) -> None:
    bundle = CERTIFICATE if knows_it else CERTIFICATE.with_name("provider.example.pem")
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")

    with RawServer(serve, tls=True) as server:
        monkeypatch.setenv("http_proxy", f"https://localhost:{server.port}")
        monkeypatch.setenv("no_proxy", "")
        sink = run(reader, "http://provider.invalid/v1", OPTIONS.replace(verify_tls=str(bundle)))
        reader.close(PATIENCE)
        server.join()
        if not knows_it:
            server.errors.clear()  # its own view of the refused handshake
    if knows_it:
        assert sink.error is None
        assert seen[0].startswith(b"POST http://provider.invalid/v1 HTTP/1.1\r\n")
    else:
        assert isinstance(sink.error, ConnectError)
        assert "certificate" in str(sink.error)
        assert seen == []


def _pump(outer: socket.socket, inner: socket.socket) -> None:
    """Copy bytes between the proxy's TLS connection and a plain socket until either ends."""
    outer.settimeout(0.01)
    with contextlib.suppress(OSError), inner:
        inner.setblocking(False)
        while True:
            for source, target in ((outer, inner), (inner, outer)):
                try:
                    data = source.recv(65_536)
                except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
                    continue
                if not data:
                    return
                target.settimeout(PATIENCE)
                target.sendall(data)
                target.settimeout(0.01 if target is outer else 0)


# --- refusals ------------------------------------------------------------------------------------------------------


def _answering(answer: bytes) -> Callable[[Peer], None]:
    def serve(peer: Peer) -> None:
        if peer.read_request():
            peer.send(answer)

    return serve


def test_an_error_answer_becomes_the_providers_error_with_the_key_starred_out(reader: AnyReader) -> None:
    body = b"no such key: sk-test-1234567890, Bearer sk-test-1234567890"
    answer = b"HTTP/1.1 401 X\r\nX-Echo: sk-test-1234567890\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with RawServer(_answering(answer)) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ApiError)
    assert sink.error.status == 401
    assert sink.error.message == "21 no such key: ***, *** ***"
    assert "sk-test" not in repr(sink.error) + str(vars(sink.error))
    assert sink.decoder is None


def test_an_error_inside_the_stream_has_the_key_starred_out_too(reader: AnyReader) -> None:
    frame = b'data: {"error":{"message":"bad key sk-test-1234567890","code":"invalid_api_key"}}\n\n'
    errors: list[ProviderError] = []

    class ErrorSink(RecordingSink):
        def deltas(self, deltas: Sequence[Delta]) -> bool:
            errors.extend(delta.error for delta in deltas if hasattr(delta, "error"))
            return True

    with RawServer(_answering(HEAD + b"\r\n" + frame)) as server:
        sink = ErrorSink()
        provider = OpenAiChat(Secret("unused"), "http://localhost")
        reader.start(provider, post(server.url), OPTIONS, sink)
        assert sink.wait_ended() is None
    assert [str(error) for error in errors] == ["HTTP 200 invalid_api_key: bad key ***"]
    assert isinstance(errors[0], AuthenticationError)
    assert errors[0].message == "bad key ***"


def test_only_64_kib_of_an_error_body_are_read(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = chunk(b"z" * 10_000)
        assert not all(peer.send(piece) for _ in range(10_000)), "everything was read"

    with RawServer(serve) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ApiError)
    assert sink.error.message.startswith("65536 zzz")


def test_an_error_body_that_breaks_off_still_gives_the_error(reader: AnyReader) -> None:
    with RawServer(_answering(b"HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\npart")) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ApiError)
    assert sink.error.message == "4 part "


def test_a_compressed_error_body_is_read(reader: AnyReader) -> None:
    body = gzip.compress(b"too much")
    answer = b"HTTP/1.1 429 X\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with RawServer(_answering(answer)) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ApiError)
    assert sink.error.message == "8 too much "


def test_a_redirect_is_an_error_and_its_endless_body_is_not_read(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 307 X\r\nLocation: https://elsewhere.example/steal?q\r\n\r\nmore to come")
        peer.wait_closed()

    with RawServer(serve) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ApiError)
    assert (sink.error.status, sink.error.retryable) == (307, False)
    assert sink.error.message == "redirects are not followed (to elsewhere.example)"


def test_a_web_page_is_not_a_stream(reader: AnyReader) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html>Please log in"
    with RawServer(_answering(answer)) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ProtocolError)
    assert "text/html" in str(sink.error)


def test_a_huge_header_is_a_protocol_error(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"X-Huge: " + b"x" * 200_000 + b"\r\n\r\n")
        peer.wait_closed()

    with RawServer(serve) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ProtocolError)


def test_what_is_not_http_is_a_protocol_error(reader: AnyReader) -> None:
    with RawServer(_answering(b"SSH-2.0-OpenSSH_9\r\n")) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ProtocolError)


def test_netrc_never_takes_the_place_of_the_key(
    reader: AnyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login trap password trap\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        while request := peer.read_request():
            seen.append(request)
            peer.send(HEAD + b"Content-Length: 2\r\n\r\nab")

    with RawServer(serve) as server:
        assert run(reader, server.url).error is None
        sink = RecordingSink()
        without_key = ProviderRequest(url=server.url, body=b"{}")
        reader.start(PlainProvider(), without_key, OPTIONS, sink)
        assert sink.wait_ended() is None
        reader.close(PATIENCE)
    assert b"Authorization: Bearer sk-test-1234567890" in seen[0]
    assert b"authorization" not in seen[1].lower()
    assert base64.b64encode(b"trap:trap") not in seen[0] + seen[1]


def test_cookies_of_one_answer_are_not_sent_with_the_next_request(reader: AnyReader) -> None:
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        while request := peer.read_request():
            seen.append(request)
            peer.send(HEAD + b"Set-Cookie: user=1; Path=/\r\nContent-Length: 2\r\n\r\nab")

    with RawServer(serve) as server:
        for _ in range(2):
            assert run(reader, server.url).error is None
        reader.close(PATIENCE)
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(reader: AnyReader) -> None:
    with RawServer(_answering(b"")) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(), post(server.url, key="sk-\nsecret"), OPTIONS, sink)
        error = sink.wait_ended()
    assert isinstance(error, OptionError)
    assert "secret" not in str(error)


# --- breaks --------------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_retryable(reader: AnyReader) -> None:
    with RawServer(_answering(b"")) as server:
        pass
    sink = run(reader, server.url)
    assert isinstance(sink.error, ConnectError)
    assert sink.error.retryable
    assert sink.error.detail == "connection refused"
    assert sink.error.__cause__ is not None
    assert sink.calls == ["connecting", "ended"]


def test_an_unknown_host_is_told_as_such(reader: AnyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = run(reader, "http://no-such-host.invalid/v1")
    assert isinstance(sink.error, ConnectError)
    assert "resolved" in sink.error.detail


def test_an_untrusted_certificate_is_refused_for_good(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        raise AssertionError("the handshake went through")

    with RawServer(serve, tls=True) as server:
        sink = run(reader, server.url)
        assert isinstance(sink.error, ConnectError)
        assert not sink.error.retryable
        assert "certificate" in sink.error.detail
        server.join()
        server.errors.clear()  # its own view of the refused handshake


def test_certificates_are_not_verified_where_the_options_say_so(reader: AnyReader) -> None:
    answering = _answering(HEAD + b"Content-Length: 2\r\n\r\nab")
    with RawServer(answering, tls=True) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # urllib3 warns of it
        assert run(reader, server.url, OPTIONS.replace(verify_tls=False)).error is None


def test_a_certificate_for_another_host_is_refused_for_good(reader: AnyReader) -> None:
    with RawServer(_answering(b""), tls=True) as server:
        url = server.url.replace("localhost", "127.0.0.1")
        sink = run(reader, url, OPTIONS.replace(verify_tls=str(CERTIFICATE)))
        server.join()
        server.errors.clear()
    assert isinstance(sink.error, ConnectError)
    assert not sink.error.retryable


def test_a_ca_bundle_that_is_not_there_is_an_option_error(reader: AnyReader) -> None:
    sink = run(reader, "https://localhost:1/", OPTIONS.replace(verify_tls="/no/such/bundle.pem"))
    assert isinstance(sink.error, OptionError)
    assert sink.error.field == "verify_tls"


def test_a_server_that_closes_without_an_answer_is_a_connect_error(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()

    with RawServer(serve) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ConnectError)
    assert sink.error.retryable
    assert sink.calls == ["connecting", "waiting", "ended"]


def _resetting(head: bytes) -> Callable[[Peer], None]:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(head)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()

    return serve


def test_a_reset_in_the_body_leaves_the_stream_incomplete(reader: AnyReader) -> None:
    with RawServer(_resetting(CHUNKED + chunk(b"data: x\n\n"))) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, (IncompleteStream, ConnectError))  # the reset may overtake the head
    assert "reset" in str(sink.error)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (CHUNKED + chunk(b"data: x\n\n") + b"40\r\ndata: tru", "in the middle of a chunked body"),
        (CHUNKED + chunk(b"data: x\n\n"), "in the middle of a chunked body"),
        (CHUNKED + b"zz\r\n", "in the middle of a chunked body"),
        (CHUNKED + b"-5\r\nabc", "in the middle of a chunked body"),
        (HEAD + b"Content-Length: 99\r\n\r\ndata: x\n\n", "before the announced length"),
    ],
)
def test_a_truncated_body_is_incomplete(reader: AnyReader, body: bytes, where: str) -> None:
    with RawServer(_answering(body)) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, IncompleteStream)
    assert where in sink.error.detail
    assert sink.decoder is not None


def test_broken_compression_is_a_protocol_error(reader: AnyReader) -> None:
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!"
    with RawServer(_answering(answer)) as server:
        sink = run(reader, server.url)
    assert isinstance(sink.error, ProtocolError)


def test_a_last_event_without_its_blank_line_is_told_even_when_the_connection_breaks(reader: AnyReader) -> None:
    cut = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n'
    with RawServer(_answering(CHUNKED + chunk(cut) + b"9\r\nda")) as server:
        sink = RecordingSink()
        provider = OpenAiChat(None, "http://localhost")
        reader.start(provider, post(server.url), OPTIONS, sink)
        error = sink.wait_ended()
    assert isinstance(error, IncompleteStream)
    assert sink.next_text() == "Hi"


def test_a_handshake_that_never_comes_is_a_connect_timeout(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        while peer.receive():
            pass

    with RawServer(serve) as server:
        url = server.url.replace("http:", "https:")
        sink = run(reader, url, OPTIONS.replace(connect_timeout=0.05))
    assert isinstance(sink.error, ProviderTimeout)
    assert (sink.error.which, sink.error.timeout) == ("connect", 0.05)


@pytest.mark.parametrize(("head", "which"), [(b"", "first_token"), (HEAD, "first_token"), (CHUNKED, "idle")])
@pytest.mark.parametrize("tls", [False, True])
def test_a_silent_provider_is_given_up_after_the_longest_wait(
    reader: AnyReader, head: bytes, which: str, tls: bool
) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(head)
        peer.wait_closed()

    with RawServer(serve, tls=tls) as server:
        sink = run(reader, server.url, OPTIONS.replace(total_timeout=1.0, verify_tls=str(CERTIFICATE)))
    assert isinstance(sink.error, ProviderTimeout)
    assert (sink.error.which, sink.error.timeout) == (which, 1.0)


def test_a_provider_that_speaks_in_time_is_not_given_up(reader: AnyReader) -> None:
    """Many waits, each much shorter than the longest one that is allowed, and all together longer."""

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED)
        for _ in range(22):
            assert not go.acquire(timeout=0.1)
            peer.send(chunk(b"x"))
        peer.send(b"0\r\n\r\n")

    go = threading.Semaphore(0)
    with RawServer(serve) as server:
        sink = run(reader, server.url, OPTIONS.replace(total_timeout=2.0))
        reader.close(PATIENCE)
    assert sink.error is None
    assert "".join(sink.texts.queue) == 22 * "x"


@pytest.mark.parametrize("tls", [False, True])
def test_a_provider_is_reached_by_ipv6(reader: AnyReader, tls: bool) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with RawServer(_answering(CHUNKED + chunk(b"data: x\n\n") + b"0\r\n\r\n"), tls=tls, listener=listener) as server:
        url = server.url.replace("localhost", "[::1]")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # urllib3 warns of certificates that are not verified
            sink = run(reader, url, OPTIONS.replace(verify_tls=False))
        reader.close(PATIENCE)
    assert sink.error is None
    assert sink.next_text() == "data: x\n\n"


# --- bugs of others ------------------------------------------------------------------------------------------------


def test_a_bug_in_the_decoder_ends_the_request_with_an_error(reader: AnyReader) -> None:
    class Buggy(PlainDecoder):
        def feed(self, chunk: bytes) -> list[Delta]:
            raise ValueError("secret text")

    with RawServer(_answering(HEAD + b"\r\nabc")) as server:
        sink = RecordingSink()
        reader.start(PlainProvider(Buggy), post(server.url), OPTIONS, sink)
        error = sink.wait_ended()
    assert isinstance(error, ProviderError)
    assert "ValueError" in str(error)
    assert "secret" not in str(error)


def test_a_bug_in_the_sink_ends_the_request_with_an_error(reader: AnyReader) -> None:
    class Buggy(RecordingSink):
        def deltas(self, deltas: Sequence[Delta]) -> bool:
            raise ConnectionResetError("mine")

    with RawServer(_answering(HEAD + b"\r\nabc")) as server:
        sink = Buggy()
        reader.start(PlainProvider(), post(server.url), OPTIONS, sink)
        error = sink.wait_ended()
    assert type(error) is ProviderError  # and not "connection reset"


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        ("304 X", 304, "unexpected status"),
        ("302 X\r\nLocation: https://me:hush@elsewhere.example:8/x", 302, "(to elsewhere.example:8)"),
        ("302 X\r\nLocation: https://[hush/", 302, "redirects are not followed"),
    ],
)
def test_a_status_that_is_no_answer_is_told_whatever_its_location_is(
    reader: AnyReader, head: str, status: int, message: str
) -> None:
    with RawServer(_answering(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())) as server:
        sink = run(reader, server.url)
        reader.close(PATIENCE)
    assert isinstance(sink.error, ApiError)
    assert sink.error.status == status
    assert sink.error.message.endswith(message)
    assert "hush" not in str(sink.error)


def test_an_answer_in_several_codings_is_refused(reader: AnyReader) -> None:
    body = gzip.compress(gzip.compress(b"data: x\n\n"))
    head = HEAD + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with RawServer(_answering(head + body)) as server:
        sink = run(reader, server.url)
        reader.close(PATIENCE)
    assert isinstance(sink.error, ProtocolError)
    assert "several content codings" in str(sink.error)
    assert sink.texts.empty()


def _everything(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_an_error_keeps_neither_frames_nor_connections_nor_keys(reader: AnyReader) -> None:
    with RawServer(_answering(b"")) as server:
        url = server.url
    refused = run(reader, url).error
    with RawServer(_answering(HEAD + b"Content-Length: 30\r\n\r\nx")) as server:
        cut = run(reader, server.url).error
    unverifiable = run(reader, "https://localhost:1/", OPTIONS.replace(verify_tls="/no/such/bundle.pem")).error
    for error, cause in ((refused, "ConnectionError"), (cut, "ProtocolError"), (unverifiable, "FileNotFoundError")):
        assert error is not None
        assert error.__cause__ is not None
        assert cause in str(error.__cause__)
        for each in _everything(error):
            assert each.__traceback__ is None
            assert all(isinstance(value, str) for value in each.args)


# --- interim answers -------------------------------------------------------------------------------------------------

INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nContent-Length: 4\r\nRetry-After: 9\r\n\r\n",
    b"HTTP/1.1 110 \r\nX: y\r\n\r\n",
    b"HTTP/1.1 199 Unknown\r\n\r\n",
]


@pytest.mark.parametrize("interim", [*INTERIM, b"".join(INTERIM), b"".join(INTERIM) * 20])
@pytest.mark.parametrize("step", [1_000_000, 7])
def test_interim_answers_are_skipped(reader: AnyReader, interim: bytes, step: int) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        answer = interim + CHUNKED + chunk(b"data: x\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        for start in range(0, len(answer), step):
            peer.send(answer[start : start + step])

    with RawServer(serve) as server:
        sink = run(reader, server.url)
        assert sink.error is None
        assert "".join(sink.texts.queue).startswith("data: x\n\n")
        reader.close(PATIENCE)


def test_interim_answers_without_end_are_an_error(reader: AnyReader) -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        assert not all(peer.send(INTERIM[1]) for _ in range(100_000)), "everything was read"

    with RawServer(serve) as server:
        assert isinstance(run(reader, server.url).error, ProviderError)
        reader.close(PATIENCE)
