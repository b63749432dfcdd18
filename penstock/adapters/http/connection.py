"""Connections that can be cancelled from another thread, and bodies that return what has arrived.

requests and urllib3 do not expose a request's socket before its response is there. The classes here do: the thread that
runs a request sets its `RequestHandle` with `current_request`, and the connection that this thread then opens or takes
from the pool stores a duplicate of its socket there. A duplicate is needed because a TLS handshake detaches the socket
that it is given, and a close-delimited response takes it from its connection; ``shutdown`` on the duplicate ends a
blocked ``recv`` or handshake regardless of which object owns the socket by then. It costs one file descriptor for each
request under way.
"""

from __future__ import annotations

import http
import http.client
import io
import os
import socket
import ssl
import sys
import time
from typing import Any, Final

from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import wait_for_write
from urllib3.util.ssl_ import create_urllib3_context

from penstock.adapters.http.descriptors import note_descriptor
from penstock.adapters.http.faults import is_local_fault
from penstock.adapters.http.framing import ChunkedBody
from penstock.adapters.http.handle import RequestCancelled, RequestHandle, current
from penstock.errors import OptionError

__all__ = ["CancellableAdapter", "CollectedHead", "EagerResponse"]

_POLL_S = 0.05
_READ_BYTES = 65_536
_NUM_POOLS = 64


def _connect(connection: HTTPConnection, host: str) -> socket.socket:
    """Connect to the first address of ``host`` that answers, checking every 50 ms for a cancel.

    ``getaddrinfo`` cannot be interrupted: a cancel during it takes effect when it returns.
    """
    handle = current.handle
    timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else 60.0
    deadline = handle.deadline if handle is not None else time.monotonic() + timeout
    addresses = socket.getaddrinfo(host.strip("[]"), connection.port, 0, socket.SOCK_STREAM)
    if handle is not None:
        handle.check()
    failure: OSError | None = None
    for left, (family, kind, protocol, _name, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = time.monotonic()
        # As in Go: an address that drops packets must not use up the time of the next ones.
        until = min(deadline, now + max((deadline - now) / left, 2.0))
        sock = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            if connection.source_address:
                sock.bind(connection.source_address)
            _connect_socket(sock, address, until, handle)
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        except OSError as error:
            sock.close()
            # The fault of the provider is what matters: this machine may have no route for IPv6.
            if failure is None or is_local_fault(failure) or not is_local_fault(error):
                failure = error
        except BaseException:
            sock.close()
            raise
        else:
            note_descriptor(sock.fileno())
            return sock
    raise failure or OSError("getaddrinfo gave no address")


def _connect_socket(sock: socket.socket, address: Any, until: float, handle: RequestHandle | None) -> None:
    sock.setblocking(False)
    try:
        sock.connect(address)
    except BlockingIOError:
        while not wait_for_write(sock, max(min(_POLL_S, until - time.monotonic()), 0)):
            if handle is not None:
                handle.check()
            if time.monotonic() >= until:
                raise TimeoutError("timed out") from None
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code)) from None
    if handle is not None:
        handle.check()


_MOST_INTERIM: Final = 100


class EagerResponse(http.client.HTTPResponse):
    """A response that returns in ``read1`` everything that one ``recv`` brought, however many HTTP chunks that is.

    http.client's own returns one HTTP chunk at a time and needs three buffered reads for each.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._handle = current.handle
        self._chunks = ChunkedBody()
        self._interim = 0  # answers before the final one
        if isinstance(sock, CollectedHead):
            sock.response = self

    def _read_status(self) -> tuple[str, int, str]:
        """Have `begin` skip every interim answer as it skips 100 (RFC 9110, section 15.2), except 101."""
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        if not 100 <= status[1] < 200 or status[1] == http.HTTPStatus.SWITCHING_PROTOCOLS:
            return status
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            raise http.client.BadStatusLine(f"more than {_MOST_INTERIM} interim answers")
        return "", http.HTTPStatus.CONTINUE, ""

    def close(self) -> None:
        """Detach the socket first: after this it may be closed, or used by another request."""
        if self._handle is not None and self.headers is not None:  # no headers: a proxy's response to CONNECT
            self._handle.detach()
            self._handle = None
        super().close()

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived, at least one byte; ``b""`` is the end of the body.

        Raises:
            http.client.IncompleteRead: the connection was closed in the middle of a chunked body.
        """
        if n == 0:  # http.client would look for a chunk
            return b""
        if not self.chunked or self.fp is None:
            return super().read1(n)
        while True:
            raw = self.fp.read1(n if n > 0 else _READ_BYTES)
            if not raw:
                self._chunks.close()
            data = self._dechunk(raw)
            if data or self.fp is None:
                return data

    def _dechunk(self, raw: bytes) -> bytes:
        """Extract the chunks' data from ``raw``; at the end of the last chunk, close the response."""
        data = self._chunks.feed(raw)
        if self._chunks.over:
            self.close()
        return data


class CollectedHead:
    """Stands in for a connection's socket while http.client parses a head that another thread has received.

    Args:
        head: as received, to its empty line.
    """

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.response: EagerResponse | None = None
        """What has been made of it."""

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._head)

    def settimeout(self, timeout: float | None) -> None:
        """Do nothing: the head is there."""

    def close(self) -> None:
        """Do nothing: the socket is not here."""


class _CancellableConnection(HTTPConnection):
    """The base of both kinds of connection: opens its socket itself, and attaches it to the current request."""

    response_class = EagerResponse

    def _new_conn(self) -> socket.socket:
        try:
            sock = _connect(self, self._dns_host)
            sys.audit("http.client.connect", self, self.host, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        if current.handle is not None:
            try:
                current.handle.attach(self, sock)
            except (RequestCancelled, OSError):  # cancelled, or no file descriptor for the duplicate
                sock.close()
                raise
        return sock

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        handle = current.handle
        if handle is None:
            super().request(method, url, body, headers, **options)
            return
        if self.sock is not None:  # kept alive, or already connected for TLS
            handle.attach(self, self.sock)
        super().request(method, url, body, {**(headers or {}), **handle.secret_headers}, **options)
        handle.sent()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Wait for the response; if the request hands its connection over, return a stand-in without content at once.

        urllib3 and requests then return as usual, and the connection stays with the stand-in, to be taken from there.
        """
        handle = current.handle
        if handle is None or not handle.hands_over or self.sock is None:
            return super().getresponse()
        return HTTPResponse(preload_content=False, status=http.HTTPStatus.OK)


class _PlainConnection(_CancellableConnection):
    pass


class _TlsConnection(_CancellableConnection, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class CancellableAdapter(HTTPAdapter):
    """requests' transport with cancellable connections, for direct requests and HTTP proxies (not SOCKS)."""

    def __init__(self, connections: int) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        super().__init__(pool_connections=_NUM_POOLS, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close all pooled connections now. urllib3 closes them when the last reference to their pool is gone."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it has no `__iter__`
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    # requests reads the CA bundle for every new connection, which takes 15 ms; here it is read once.

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        is_ours = verify is not False and request.url.lower().startswith("https:")
        # True instead of the bundle, as requests would look each time whether it is a file or a directory.
        host, tls = super().build_connection_pool_key_attributes(request, is_ours or verify, cert)
        if is_ours:
            tls["ssl_context"] = self._context(_bundle(verify))
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_NONE" if verify is False else "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None  # the pool's context contains them
        if verify is not False and conn.scheme == "https" and conn.proxy is not None:
            # Otherwise a proxy that is reached by TLS would be checked with the system's CAs.
            context = self._context(_bundle(verify))
            conn.conn_kw["ssl_context"] = context  # of a plain URL, the proxy is the only one that is checked
            conn.conn_kw["proxy_config"] = conn.proxy_config._replace(ssl_context=context)

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
            try:
                if os.path.isdir(bundle):
                    context.load_verify_locations(capath=bundle)
                else:
                    context.load_verify_locations(cafile=bundle)
            except OSError as error:
                if is_local_fault(error):
                    raise
                raise OptionError("verify_tls", bundle, "the path of a CA bundle") from error
            self._contexts[bundle] = context
        return context


def _bundle(verify: bool | str) -> str:
    return verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
