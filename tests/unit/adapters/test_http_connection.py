"""TLS certificates are always verified, unless verification is explicitly disabled."""

from __future__ import annotations

import errno
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from penstock.adapters.http import connection as module
from penstock.adapters.http.connection import CancellableAdapter
from penstock.adapters.http.handle import RequestCancelled, RequestHandle, current_request
from penstock.errors import OptionError


@pytest.mark.parametrize(
    ("verify", "wanted"),
    [(True, "CERT_REQUIRED"), ("", "CERT_REQUIRED"), (None, "CERT_REQUIRED"), (False, "CERT_NONE")],
)
def test_only_false_itself_switches_verification_off(verify: object, wanted: str) -> None:
    pool = SimpleNamespace(ca_certs="of requests", ca_cert_dir="of requests", scheme="https", proxy=None)
    CancellableAdapter(1).cert_verify(pool, "https://localhost/", verify, None)
    assert (pool.cert_reqs, pool.ca_certs, pool.ca_cert_dir) == (wanted, None, None)


def test_an_empty_path_is_no_ca_bundle_and_not_the_absence_of_one() -> None:
    prepared = requests.Request("POST", "https://localhost/").prepare()
    with pytest.raises(OptionError, match="verify_tls"):
        CancellableAdapter(1).build_connection_pool_key_attributes(prepared, "")


def test_an_address_that_does_not_answer_is_left_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = 0

    def never(sock: object, timeout: float) -> bool:
        nonlocal waits
        waits += 1
        assert waits < 100, "it waits for ever"
        return False

    class Silent:
        def setblocking(self, flag: bool) -> None:
            assert not flag

        def connect(self, address: object) -> None:
            raise BlockingIOError

    monkeypatch.setattr(module, "wait_for_write", never)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with pytest.raises(TimeoutError, match="timed out"):
        module._connect_socket(Silent(), ("192.0.2.1", 443), 100.0, None)  # type: ignore[arg-type]
    assert waits == 1


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (socket.gaierror(-2, "Name or service not known"), NameResolutionError),
        (TimeoutError("timed out"), ConnectTimeoutError),
        (ConnectionRefusedError(111, "Connection refused"), NewConnectionError),
    ],
)
def test_a_connection_that_fails_raises_what_urllib3_raises(
    monkeypatch: pytest.MonkeyPatch, failure: OSError, kind: type[Exception]
) -> None:
    def fail(connection: object, host: str) -> socket.socket:
        raise failure

    monkeypatch.setattr(module, "_connect", fail)
    with pytest.raises(kind) as caught:
        module._CancellableConnection("host.invalid", 443)._new_conn()
    assert caught.value.__cause__ is failure


@pytest.mark.parametrize("error", [RequestCancelled(), OSError(24, "Too many open files")])
def test_a_socket_that_cannot_be_attached_to_its_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Handle:
        def attach(self, connection: object, sock: socket.socket) -> None:
            raise error

    with socket.socket() as sock:
        monkeypatch.setattr(module, "_connect", lambda connection, host: sock)
        monkeypatch.setattr(module, "current", SimpleNamespace(handle=Handle()))
        with pytest.raises(type(error)):
            module._CancellableConnection("host.invalid", 443)._new_conn()
        assert sock.fileno() == -1


@contextmanager
def chunked(first: bytes = b"") -> Iterator[tuple[module.EagerResponse, socket.socket]]:
    """A response with a chunked body whose head has come, together with ``first``; and the socket at the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(module.EagerResponse(ours)) as response:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
        response.begin()
        yield response, theirs


def test_a_read_without_a_size_takes_all_that_has_come() -> None:
    with chunked(b"1\r\na\r\n") as (response, theirs):
        assert response.read1() == b"a"
        theirs.sendall(b"1\r\nb\r\n" * 5000)  # more than the buffer of a file holds
        assert response.read1() == b"b" * 5000
        theirs.sendall(b"1\r\nc\r\n" * 2 + b"0\r\n\r\n")
        assert response.read1(6) == b"c"
        assert response.read1() == b"c"
        assert response.read1() == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_chunked_body_is_read_in_pieces_of_any_size_and_its_lines_may_end_without_a_return(
    end: bytes, size: int
) -> None:
    with chunked() as (response, _):
        body = end.join((b"2", b"ab", b"3;name=value", b"cde", b"0", b"Trailer: value", b"", b""))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        came = [response._dechunk(piece) for piece in pieces]
        assert b"".join(came) == b"abcde"
        assert response.fp is None


@pytest.mark.parametrize(
    ("body", "before"),
    [
        (b"2\r\nabX\r\n", b"ab"),
        (b"2\r\nab\r\nX\r\n", b"ab"),
        (b"-2\r\nab\r\n", b""),
        (b"\r\n2\r\nab\r\n", b""),
        (b"2;name=value\r\nab\r\n", b"ab"),
    ],
)
def test_a_chunked_body_that_is_malformed_or_breaks_off_is_incomplete(body: bytes, before: bytes) -> None:
    with chunked() as (response, theirs):
        theirs.sendall(body)
        theirs.close()
        came: list[bytes] = []
        with pytest.raises(http.client.IncompleteRead):
            came.extend(iter(lambda: response.read1(4), b""))
        assert before.startswith(b"".join(came))


def test_a_connection_that_belongs_to_no_request_sends_as_urllib3_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = module._PlainConnection("127.0.0.1", server.getsockname()[1])
        connection.request("GET", "/x", headers={"X-Name": "value"})
        accepted, _ = server.accept()
        with accepted:
            connection.close()
            said = b"".join(iter(lambda: accepted.recv(4096), b""))
    assert said.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"X-Name: value" in said


@pytest.mark.parametrize("headers", [None, {}, {"X-Name": "value"}])
def test_a_request_is_sent_with_its_secret_headers_and_says_when(headers: dict[str, str] | None) -> None:
    sent: list[str] = []
    handle = RequestHandle({"X-Key": "secret"}, lambda: sent.append("sent"))
    handle.deadline = time.monotonic() + 20
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = module._PlainConnection("127.0.0.1", server.getsockname()[1])
        with current_request(handle):
            connection.request("GET", "/x", headers=headers)
        accepted, _ = server.accept()
        with accepted:
            connection.close()
            said = b"".join(iter(lambda: accepted.recv(4096), b""))
    assert b"X-Key: secret\r\n" in said
    assert (b"X-Name: value\r\n" in said) == bool(headers)
    assert sent == ["sent"]


@pytest.mark.parametrize("is_answer", [True, False])
def test_a_cancel_after_the_answer_leaves_the_socket_to_the_next_request(is_answer: bool) -> None:
    """A response that is closed before it has headers is a proxy's to CONNECT: the request goes on."""
    ours, theirs = socket.socketpair()
    handle = RequestHandle({}, lambda: None)
    with ours, theirs, current_request(handle):
        handle.attach(SimpleNamespace(close=ours.close), ours)  # type: ignore[arg-type]
        response = module.EagerResponse(ours)
        if is_answer:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
            response.begin()
            assert response.read() == b"a"
        response.close()
        handle.cancel()
        if is_answer:
            theirs.sendall(b"b")
        assert ours.recv(1) == (b"b" if is_answer else b"")


def test_a_bundle_of_certificates_is_read_once_from_a_file_or_a_folder(tmp_path: Path) -> None:
    adapter = CancellableAdapter(1)
    folder = adapter._context(str(tmp_path))
    assert adapter._context(str(tmp_path)) is folder
    whole = adapter._context(DEFAULT_CA_BUNDLE_PATH)
    assert whole is not folder
    assert whole.cert_store_stats()["x509_ca"] > folder.cert_store_stats()["x509_ca"] == 0


def test_certificates_are_loaded_from_the_file_or_the_folder_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[dict[str, object]] = []

    class Context:
        def load_verify_locations(self, **where: object) -> None:
            loaded.append(where)

    monkeypatch.setattr(module, "create_urllib3_context", lambda **_: Context())
    adapter = CancellableAdapter(1)
    adapter._context(str(tmp_path))
    adapter._context(str(tmp_path / "bundle.pem"))
    assert loaded == [{"capath": str(tmp_path)}, {"cafile": str(tmp_path / "bundle.pem")}]


def test_a_fault_of_this_machine_in_reading_the_bundle_is_not_blamed_on_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Context:
        def load_verify_locations(self, **_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "create_urllib3_context", lambda **_: Context())
    with pytest.raises(OSError, match="Too many open files"):
        CancellableAdapter(1)._context("bundle.pem")


@pytest.mark.parametrize(("verify", "has_context"), [(True, True), ("path", True), (False, False)])
def test_only_verified_tls_has_a_context_of_its_own(
    monkeypatch: pytest.MonkeyPatch, verify: bool | str, has_context: bool
) -> None:
    adapter = CancellableAdapter(1)
    seen: list[str] = []

    def context(bundle: str) -> str:
        seen.append(bundle)
        return "context"

    monkeypatch.setattr(adapter, "_context", context)
    prepared = requests.Request("POST", "https://localhost/").prepare()
    _, tls = adapter.build_connection_pool_key_attributes(prepared, verify)
    assert tls.get("ssl_context") == ("context" if has_context else None)
    assert seen == ([verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH] if has_context else [])
    assert not has_context or not {"ca_certs", "ca_cert_dir"} & set(tls)
    plain = requests.Request("POST", "http://localhost/").prepare()
    _, tls = adapter.build_connection_pool_key_attributes(plain, verify)
    assert "ssl_context" not in tls
    # A proxy that is reached by TLS is verified for a plain URL too.
    assert tls["cert_reqs"] == ("CERT_NONE" if verify is False else "CERT_REQUIRED")


def test_an_address_that_refuses_or_is_cancelled_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer:
        def __init__(self, code: int) -> None:
            self.code = code
            self.blocks = True

        def setblocking(self, flag: bool) -> None:
            self.blocks = flag

        def connect(self, address: object) -> None:
            assert not self.blocks
            raise BlockingIOError

        def getsockopt(self, level: int, option: int) -> int:
            return self.code

    asked: list[float] = []
    answers = iter([False, True])

    def wait(sock: object, timeout: float) -> bool:
        asked.append(timeout)
        return next(answers, True)

    monkeypatch.setattr(module, "wait_for_write", wait)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    until = 1000.0
    refused, fine = Peer(errno.ECONNREFUSED), Peer(0)
    with pytest.raises(ConnectionRefusedError):
        module._connect_socket(refused, None, until, None)  # type: ignore[arg-type]
    assert asked == [0.05] * 2
    module._connect_socket(fine, None, until, None)  # type: ignore[arg-type]
    module._connect_socket(fine, None, 100.03125, None)  # type: ignore[arg-type]
    assert asked[-1] == 0.03125, "no longer than the address has"
    handle = RequestHandle({}, lambda: None)
    handle.cancel()
    with pytest.raises(RequestCancelled):
        module._connect_socket(fine, None, until, handle)  # type: ignore[arg-type]
    answers = iter([False])
    asked.clear()
    with pytest.raises(RequestCancelled):
        module._connect_socket(refused, None, until, handle)  # type: ignore[arg-type]
    assert len(asked) == 1, "it does not wait for the address to answer"


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints", b"199 New"])
@pytest.mark.parametrize(("interim", "is_read"), [(0, True), (1, True), (100, True), (101, False)])
def test_up_to_a_hundred_interim_answers_are_skipped(status: bytes, interim: int, is_read: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        theirs.sendall(b"HTTP/1.1 " + (status + b"\r\n\r\nHTTP/1.1 ") * interim + answer.removeprefix(b"HTTP/1.1 "))
        response = module.EagerResponse(ours)
        if is_read:
            response.begin()
            assert response.status == 200
        else:
            with pytest.raises(http.client.BadStatusLine):
                response.begin()
        response.close()


def test_an_answer_that_switches_the_protocol_is_the_final_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        response = module.EagerResponse(ours)
        response.begin()
        assert response.status == 101
        response.close()


def test_the_size_of_a_read_may_differ_from_time_to_time() -> None:
    with chunked() as (response, theirs):
        theirs.sendall(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")
        assert [response.read1(size) for size in (4, 0, 1, 100, -1)] == [b"a", b"", b"b", b"c", b""]


def test_a_size_line_without_an_end_is_refused() -> None:
    with chunked() as (response, _):
        assert response._dechunk(b"1" * module._READ_BYTES) == b""
        with pytest.raises(http.client.LineTooLong):
            response._dechunk(b"1" * (module._READ_BYTES + 1))


@pytest.mark.parametrize(
    ("timeout", "limits"),
    [(9.0, [103.0, 104.5, 109.0]), (3.0, [102.0, 102.0, 103.0]), ("default", [120.0, 130.0, 160.0])],
)
def test_no_address_uses_up_the_time_of_the_next_ones(
    monkeypatch: pytest.MonkeyPatch, timeout: Any, limits: list[float]
) -> None:
    made: list[Any] = []

    class Socket:
        def __init__(self, *kind: object) -> None:
            self.options: list[Any] = []
            self.closed = False
            made.append(self)

        def setsockopt(self, *option: object) -> None:
            self.options.append(option)

        def bind(self, address: object) -> None:
            self.options.append(address)

        def close(self) -> None:
            self.closed = True

    untils: list[float] = []

    def refuse(sock: object, address: object, until: float, handle: object) -> None:
        untils.append(until)
        raise ConnectionRefusedError(address)

    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"192.0.2.{number}", 443)) for number in range(3)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(module, "_connect_socket", refuse)
    connection: Any = SimpleNamespace(
        timeout=timeout, port=443, socket_options=[(1, 2, 3)], source_address=("192.0.2.9", 0)
    )
    with pytest.raises(ConnectionRefusedError) as caught:
        module._connect(connection, "host.invalid")
    assert caught.value.args == (("192.0.2.2", 443),)
    assert untils == limits
    assert [sock.options for sock in made] == [[(1, 2, 3), ("192.0.2.9", 0)]] * 3
    assert all(sock.closed for sock in made)


@pytest.mark.parametrize(
    ("timeout", "deadline", "left"), [(9.0, None, 9.0), (0.0, None, 0.001), (9.0, 105.0, 5.0), (9.0, 99.0, 0.001)]
)
def test_a_socket_that_is_connected_is_noted_and_has_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, timeout: float, deadline: float | None, left: float
) -> None:
    timeouts: list[float] = []
    noted: list[int] = []
    sock: Any = SimpleNamespace(settimeout=timeouts.append, fileno=lambda: 7)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(socket, "socket", lambda *_: sock)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(module, "_connect_socket", lambda *_: None)
    monkeypatch.setattr(module, "note_descriptor", noted.append)
    connection: Any = SimpleNamespace(timeout=timeout, port=443, socket_options=None, source_address=None)
    if deadline is None:
        assert module._connect(connection, "host.invalid") is sock
    else:
        handle = RequestHandle({}, lambda: None)
        handle.deadline = deadline
        with current_request(handle):
            assert module._connect(connection, "host.invalid") is sock
    assert (timeouts, noted) == ([left], [7])


def test_a_connection_that_was_closed_before_its_response_is_not_handed_over() -> None:
    connection = module._PlainConnection("host.invalid", 443)
    with current_request(RequestHandle({}, lambda: None, hands_over=True)):
        with pytest.raises(http.client.ResponseNotReady):
            connection.getresponse()
        connection.sock = SimpleNamespace(close=lambda: None)
        assert connection.getresponse().status == 200
    connection.close()


LOCAL, LOCAL_TOO = OSError(errno.ENETUNREACH, "no route"), OSError(errno.EADDRNOTAVAIL, "no address")
REFUSED, RESET = ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ([LOCAL], LOCAL),
        ([LOCAL, LOCAL_TOO], LOCAL_TOO),
        ([REFUSED, LOCAL], REFUSED),
        ([LOCAL, REFUSED, LOCAL_TOO], REFUSED),
        ([REFUSED, RESET], RESET),
    ],
)
def test_if_no_address_answers_the_last_fault_of_the_provider_is_told(
    monkeypatch: pytest.MonkeyPatch, failures: list[OSError], told: OSError
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443))] * len(failures)
    left = iter(failures)

    def fail(*_: object) -> None:
        raise next(left)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(module, "_connect_socket", fail)
    connection: Any = SimpleNamespace(timeout=9.0, port=443, socket_options=None, source_address=None)
    with pytest.raises(OSError) as caught:
        module._connect(connection, "host.invalid")
    assert caught.value is told


def test_a_request_that_is_cancelled_while_its_host_is_looked_up_connects_to_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle = RequestHandle({}, lambda: None)
    made: list[Any] = []

    def look_up(*_: object) -> list[Any]:
        handle.cancel()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(module, "_connect_socket", lambda *_: made.append(_))
    connection: Any = SimpleNamespace(timeout=9.0, port=443, socket_options=None, source_address=None)
    with current_request(handle), pytest.raises(RequestCancelled):
        module._connect(connection, "host.invalid")
    assert made == []


def test_a_cancel_while_it_connects_closes_the_socket_and_tries_no_other_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443))] * 2
    tried: list[socket.socket] = []

    def cancelled(sock: socket.socket, *_: object) -> None:
        tried.append(sock)
        raise RequestCancelled

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(module, "_connect_socket", cancelled)
    connection: Any = SimpleNamespace(timeout=9.0, port=443, socket_options=None, source_address=None)
    with pytest.raises(RequestCancelled):
        module._connect(connection, "host.invalid")
    assert [sock.fileno() for sock in tried] == [-1]


@pytest.mark.parametrize(
    ("proxy", "is_ours"), [("http://p", True), ("https://p", True), ("socks5://p", False), ("SOCKS4://p", False)]
)
def test_a_request_through_a_proxy_can_be_cancelled_unless_it_speaks_socks(
    monkeypatch: pytest.MonkeyPatch, proxy: str, is_ours: bool
) -> None:
    manager = SimpleNamespace(pool_classes_by_scheme="theirs")
    monkeypatch.setattr(HTTPAdapter, "proxy_manager_for", lambda _self, _proxy, **_: manager)
    assert CancellableAdapter(1).proxy_manager_for(proxy) is manager
    assert manager.pool_classes_by_scheme == (module._POOLS if is_ours else "theirs")


def test_a_pool_that_goes_while_all_are_closed_is_left_out() -> None:
    adapter = CancellableAdapter(1)
    adapter.poolmanager.pools = SimpleNamespace(keys=lambda: ["gone"], get=lambda _key: None, clear=lambda: None)
    adapter.close()


def test_a_request_on_a_kept_connection_can_be_cancelled() -> None:
    handle = RequestHandle({}, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = module._PlainConnection("127.0.0.1", server.getsockname()[1])
        connection.connect()
        accepted, _ = server.accept()
        with accepted, current_request(handle):
            connection.request("GET", "/x")
            handle.cancel()
            assert connection.sock.recv(1) == b""
            connection.close()


def test_after_the_first_request_no_file_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = CancellableAdapter(1)
    prepared = requests.Request("GET", "https://localhost/").prepare()
    _, first = adapter.build_connection_pool_key_attributes(prepared, DEFAULT_CA_BUNDLE_PATH)
    looked: list[object] = []
    for name in ("isdir", "exists", "isfile"):
        monkeypatch.setattr(f"os.path.{name}", looked.append)
    _, second = adapter.build_connection_pool_key_attributes(prepared, DEFAULT_CA_BUNDLE_PATH)
    assert (second, looked) == (first, [])
    assert set(first) == {"cert_reqs", "ssl_context"}
