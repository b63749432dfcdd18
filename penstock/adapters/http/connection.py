"""Connections that can be broken off from another thread, and bodies that give what has arrived.

requests and urllib3 tell nobody which socket a request runs on before its response is there. The classes here do: the
thread that runs a request names its `Hold` with `holding`, and whichever connection that thread then opens or takes
out of the pool puts a duplicate of its socket there. A duplicate, because a TLS handshake detaches the socket it is
given and a close-delimited response takes it away from its connection; ``shutdown`` on the duplicate ends a blocked
``recv`` or handshake whoever owns the socket by then. It costs one file descriptor for each request under way.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
import time
from typing import Any

from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import wait_for_write
from urllib3.util.ssl_ import create_urllib3_context

from penstock.adapters.http.hold import Broken, Hold, current
from penstock.errors import OptionError

__all__ = ["ArrivedResponse", "CancellableAdapter"]

_POLL_S = 0.05
_READ_BYTES = 65_536
_NUM_POOLS = 64


def _connect(connection: HTTPConnection, host: str) -> socket.socket:
    """Connect to the first address of ``host`` that answers, looking up every 50 ms whether anybody still wants it.

    ``getaddrinfo`` cannot be interrupted: a cancel during it takes effect when it returns.
    """
    hold = current.hold
    timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else 60.0
    deadline = hold.deadline if hold is not None else time.monotonic() + timeout
    addresses = socket.getaddrinfo(host.strip("[]"), connection.port, 0, socket.SOCK_STREAM)
    failure: OSError = OSError("getaddrinfo gave no address")
    for left, (family, kind, protocol, _name, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = time.monotonic()
        # As Go does: an address that swallows packets may not use up the time of those after it.
        until = min(deadline, now + max((deadline - now) / left, 2.0))
        sock = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            if connection.source_address:
                sock.bind(connection.source_address)
            _connect_socket(sock, address, until, hold)
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _connect_socket(sock: socket.socket, address: Any, until: float, hold: Hold | None) -> None:
    sock.setblocking(False)
    try:
        sock.connect(address)
    except BlockingIOError:
        while not wait_for_write(sock, max(min(_POLL_S, until - time.monotonic()), 0)):
            if hold is not None:
                hold.check()
            if time.monotonic() >= until:
                raise TimeoutError("timed out") from None
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code)) from None
    if hold is not None:
        hold.check()


class ArrivedResponse(http.client.HTTPResponse):
    """A response whose ``read1`` gives all that one ``recv`` brought, however many HTTP chunks that is.

    http.client's gives one HTTP chunk at a time and costs three buffered reads for each.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._hold = current.hold
        self._size_line = b""  # the beginning of a chunk's size line, of a trailer, or of a chunk's CRLF
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False

    def close(self) -> None:
        """Let go of the socket first: from here on it may be closed or be somebody else's."""
        if self._hold is not None and self.headers is not None:  # no headers: a proxy's answer to CONNECT
            self._hold.release()
            self._hold = None
        super().close()

    def read1(self, n: int = -1) -> bytes:
        """Give what has arrived, at least one byte; ``b""`` is the end of the body.

        Raises:
            http.client.IncompleteRead: the connection was closed in the middle of a chunked body.
        """
        if not self.chunked or self.fp is None or n == 0:
            return super().read1(n)
        while True:
            raw = self.fp.read1(n if n > 0 else _READ_BYTES)
            if not raw:
                raise http.client.IncompleteRead(b"")
            data = self._dechunk(self._size_line + raw)
            if data or self.fp is None:
                return data

    def _dechunk(self, raw: bytes) -> bytes:
        """Take the chunks' data out of ``raw``; closes the response at the last chunk's end."""
        out: list[bytes] = []
        at, length = 0, len(raw)
        while at < length:
            if left := self._chunk_left:
                piece = raw[at : at + left]
                out.append(piece)
                at += len(piece)
                self._chunk_left = left - len(piece)
                self._after_chunk = True
                continue
            end = raw.find(b"\n", at)
            if end < 0:
                if length - at > _READ_BYTES:
                    raise http.client.LineTooLong("chunk size")
                break
            line = raw[at:end]
            at = end + 1
            if self._after_chunk:
                if line.strip():
                    raise http.client.IncompleteRead(b"")
                self._after_chunk = False
            elif self._in_trailer:
                if not line.strip():
                    self.close()
                    return b"".join(out)
            else:
                try:
                    size = int(line.partition(b";")[0], 16)
                except ValueError:
                    size = -1
                if size < 0:
                    raise http.client.IncompleteRead(b"")
                self._chunk_left = size
                self._in_trailer = not size
        self._size_line = raw[at:]
        return b"".join(out)


class _Holding(HTTPConnection):
    """Both kinds of connection: opens its socket itself, and tells the current hold of it and of what is sent."""

    response_class = ArrivedResponse

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
        if current.hold is not None:
            try:
                current.hold.take(self, sock)
            except Broken:
                sock.close()
                raise
        return sock

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        hold = current.hold
        if hold is None:
            super().request(method, url, body, headers, **options)
            return
        if self.sock is not None:  # kept alive, or connected before for TLS
            hold.take(self, self.sock)
        super().request(method, url, body, {**(headers or {}), **hold.secrets}, **options)
        hold.sent()


class _PlainConnection(_Holding):
    pass


class _TlsConnection(_Holding, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class CancellableAdapter(HTTPAdapter):
    """requests' transport with our connections, for direct requests and through HTTP proxies (not SOCKS)."""

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

    # requests would read the CA bundle for every new connection, which is 15 ms of work; here it is read once.

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if verify is not False and host["scheme"] == "https":
            tls.pop("ca_certs", None)
            tls.pop("ca_cert_dir", None)
            tls["ssl_context"] = self._context(verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH)
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_NONE" if verify is False else "CERT_REQUIRED"
        conn.ca_certs = None  # they are in the pool's context

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
                raise OptionError("verify_tls", bundle, "the path of a CA bundle") from error
            self._contexts[bundle] = context
        return context
