"""TLS certificates are always verified, unless verification is explicitly disabled."""

from __future__ import annotations

import http.client
import socket
import time
from types import SimpleNamespace

import pytest
import requests
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from penstock.adapters.http import connection as module
from penstock.adapters.http.connection import CancellableAdapter
from penstock.adapters.http.handle import RequestCancelled
from penstock.errors import OptionError


@pytest.mark.parametrize(
    ("verify", "wanted"),
    [(True, "CERT_REQUIRED"), ("", "CERT_REQUIRED"), (None, "CERT_REQUIRED"), (False, "CERT_NONE")],
)
def test_only_false_itself_switches_verification_off(verify: object, wanted: str) -> None:
    connection = SimpleNamespace()
    CancellableAdapter(1).cert_verify(connection, "https://localhost/", verify, None)
    assert connection.cert_reqs == wanted


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
    with pytest.raises(TimeoutError, match="timed out"):
        module._connect_socket(Silent(), ("192.0.2.1", 443), time.monotonic() - 1, None)  # type: ignore[arg-type]
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


def test_a_read_without_a_size_takes_all_that_has_come() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        response = module.EagerResponse(ours)
        response.begin()
        assert response.read1() == b"a"
        theirs.sendall(b"1\r\nb\r\n" * 5000)  # more than the buffer of a file holds
        assert response.read1() == b"b" * 5000
        theirs.sendall(b"1\r\nc\r\n" * 2 + b"0\r\n\r\n")
        assert response.read1(6) == b"c"
        assert response.read1() == b"c"
        assert response.read1() == b""
        response.close()


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
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            response = module.EagerResponse(ours)
            response.begin()
            theirs.sendall(body)
        came: list[bytes] = []
        with pytest.raises(http.client.IncompleteRead):
            came.extend(iter(lambda: response.read1(4), b""))
        assert before.startswith(b"".join(came))
        response.close()
