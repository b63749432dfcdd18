"""A connection on which a request has been sent, taken from urllib3 so that the loop can read the answer.

Everything up to there is done by requests and urllib3: proxies, CONNECT, TLS, kept connections. The head of the answer
is parsed by them too, from bytes that the loop has collected. What urllib3 does in between, waiting on the socket, is
what the loop does for all connections.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.adapters.http.framing import Body, body_of

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPResponse

__all__ = ["Answer", "SentRequest", "WouldBlock"]

WouldBlock = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What `SentRequest.receive` raises if nothing has arrived."""


class Answer(NamedTuple):
    """The head of an answer."""

    response: HTTPResponse
    """urllib3's, without a body."""

    body: Body
    can_be_kept: bool
    """Whether the connection can be used again after the body."""


class SentRequest:
    """The connection of one request. Belongs to the loop's thread.

    Args:
        raw: the stand-in that requests returned for the response; see `penstock.adapters.http.connection`.

    Raises:
        OSError: the socket is closed.
    """

    def __init__(self, raw: BaseHTTPResponse) -> None:
        self._raw: Any = raw  # has the connection and its pool
        self._connection: Any = raw.connection
        self._sock: Any = raw.connection.sock  # type: ignore[union-attr]
        self.is_plain = isinstance(self._sock, socket.socket) and not isinstance(self._sock, ssl.SSLSocket)
        """Whether it is not encrypted: then nothing is ever pending."""
        self._sock.settimeout(0)
        self.fd: int = self._sock.fileno()
        self.receive = self._sock.recv
        """Receive up to so many bytes, without waiting; ``b""``: the connection was closed. Raises `WouldBlock`."""

    @property
    def may_have_pending(self) -> bool:
        """Whether received bytes may be inside the TLS library, where no poll sees them.

        urllib3's TLS inside TLS, for proxies that are reached by HTTPS, does not say, so for it this is always True.
        """
        if self.is_plain:
            return False
        pending = getattr(self._sock, "pending", None)
        return pending is None or pending() > 0

    def parse(self, head: bytes) -> Answer:
        """Parse the head of the answer; http.client's exceptions say what is wrong with it."""
        from penstock.adapters.http.connection import CollectedHead

        connection, collected = self._connection, CollectedHead(head)
        connection.sock = collected
        try:
            response: HTTPResponse = connection.getresponse()
        finally:
            connection.sock = self._sock  # http.client drops it if the connection cannot be kept
        parsed = collected.response
        assert parsed is not None
        body = body_of(parsed)
        can_be_kept = not parsed.will_close
        parsed.close()  # so that the connection may send its next request
        return Answer(response, body, can_be_kept)

    def keep(self) -> None:
        """Give the connection back to its pool, for further requests; close it if the pool is full."""
        waiting = getattr(self._raw._pool, "pool", None)
        if waiting is None or waiting.full():  # urllib3 would warn of it in the log
            self.close()
        else:
            self._raw.release_conn()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._connection.close()
