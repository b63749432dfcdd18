"""What is needed to break off a request from another thread; see `penstock.adapters.http.connection`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

__all__ = ["Broken", "Hold", "current", "holding"]


class Broken(Exception):
    """The hold was cancelled while its thread was on its way to an answer. Stays inside the adapter."""


class Hold:
    """What is needed to break off one request: its cancelled flag, and its socket once there is one.

    ``break_off`` may be called from any thread and never blocks; the rest belongs to the request's own thread.
    """

    def __init__(self, secrets: Mapping[str, str], sent: Callable[[], None]) -> None:
        self.secrets = secrets
        """Header values that are sent with the request and are kept out of every object requests has."""
        self.cancelled = False
        self.deadline = 0.0
        """Monotonic time at which connecting must be over."""
        self._sent = sent
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._connection: HTTPConnection | None = None

    def break_off(self) -> None:
        """Cancel: shut the socket down if there is one. Idempotent."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the other side may have been faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise `Broken` if the request was cancelled."""
        if self.cancelled:
            raise Broken

    def take(self, connection: HTTPConnection, sock: socket.socket) -> None:
        """Hold ``sock``, which has just been connected or taken out of the pool."""
        with self._lock:
            if self.cancelled:
                raise Broken
            if self._socket is None:
                self._socket = socket.fromfd(sock.fileno(), sock.family, sock.type)
            self._connection = connection

    def sent(self) -> None:
        """The whole request is on its way."""
        self._sent()

    def release(self) -> None:
        """Let go of the socket, before it is closed or goes back to the pool. A cancelled one is closed here."""
        with self._lock:
            sock, self._socket = self._socket, None
            connection, self._connection = self._connection, None
            cancelled = self.cancelled
        if sock is not None:
            sock.close()
        if connection is not None and cancelled:
            connection.close()


class _Current(threading.local):
    hold: Hold | None = None


current = _Current()  # one per thread: the only way from requests' call to the connection it ends up with


@contextlib.contextmanager
def holding(hold: Hold) -> Iterator[None]:
    """Within this block, requests of this thread are run under ``hold``."""
    current.hold = hold
    try:
        yield
    finally:
        current.hold = None
        hold.release()
