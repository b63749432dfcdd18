"""What is needed to cancel a request from another thread; `penstock.adapters.http.connection` says how it works."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

__all__ = ["RequestCancelled", "RequestHandle", "current", "current_request"]


class RequestCancelled(Exception):
    """The request was cancelled before its response was there. Never leaves the adapter."""


class RequestHandle:
    """What is needed to cancel one request: a flag, and its socket once there is one.

    ``cancel`` may be called from any thread and never blocks; everything else belongs to the request's own thread.
    """

    def __init__(
        self, secret_headers: Mapping[str, str], on_sent: Callable[[], None], *, hands_over: bool = False
    ) -> None:
        self.secret_headers = secret_headers
        """Sent with the request, and kept out of all objects of the requests library."""
        self.hands_over = hands_over
        """Whether another thread reads the response: the request's own thread does not wait for it."""
        self.cancelled = False
        self.deadline = 0.0
        """Monotonic time until which the connection must be established."""
        self.proxy = ""
        """The proxy that the request goes through, without user and password; ``""``: none."""
        self._on_sent = on_sent
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._connection: HTTPConnection | None = None

    def cancel(self) -> None:
        """Set the flag, and shut down the socket if there is one. Idempotent."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the peer may have closed it already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise `RequestCancelled` if the request was cancelled."""
        if self.cancelled:
            raise RequestCancelled

    def attach(self, connection: HTTPConnection, sock: socket.socket) -> None:
        """Duplicate ``sock``, which was just connected or taken from the pool.

        Raises:
            RequestCancelled: the request was cancelled before.
        """
        with self._lock:
            if self.cancelled:
                raise RequestCancelled
            if self._socket is None:
                self._socket = socket.fromfd(sock.fileno(), sock.family, sock.type)
            self._connection = connection

    def sent(self) -> None:
        """Report that the whole request was sent."""
        self._on_sent()

    def forget(self) -> None:
        """Report nothing any more, and let go of what it was reported to: the exchange, which has this handle."""
        self._on_sent = _nothing

    def detach(self) -> None:
        """Close the duplicate, before the socket is closed or returns to the pool. Closes a cancelled connection."""
        with self._lock:
            sock, self._socket = self._socket, None
            connection, self._connection = self._connection, None
            cancelled = self.cancelled
        if sock is not None:
            sock.close()
        if connection is not None and cancelled:
            connection.close()


def _nothing() -> None:
    return


class _Current(threading.local):
    handle: RequestHandle | None = None


current = _Current()  # the only way from a call of requests to the connection that it uses


@contextlib.contextmanager
def current_request(handle: RequestHandle) -> Iterator[None]:
    """Within this block, requests of this thread belong to ``handle``."""
    current.handle = handle
    try:
        yield
    finally:
        current.handle = None
        handle.detach()
