"""A server that sends exactly the bytes of a test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 10.0
"""Seconds any wait of these tests may take before it counts as failed; each should take a few milliseconds."""

CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"
"""A self-signed certificate for localhost, with its key, made for these tests."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED_ONCE = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
"""For clients that keep a connection: a handler answers one request, and the connection ends after it."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)

    def receive(self) -> bytes:
        """What the client sent next; ``b""`` if it has closed the connection, which may reset it.

        The connection is reset if the client left something of the last answer unread.
        """
        try:
            return self.sock.recv(65_536)
        except ConnectionResetError:
            return b""

    def read_request(self) -> bytes:
        """Read a request with its body; ``b""`` if the client closed the connection instead."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.receive()
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.partition(b":")[2]):
                    part = self.receive()
                    if not part:
                        return b""
                    body += part
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> bool:
        """Send bytes; returns whether the client is still there.

        A client that has all it wants may close before the end of the framing is sent, which resets the connection.
        """
        try:
            self.sock.sendall(data)
        except (ConnectionError, ssl.SSLEOFError):
            return False
        return True

    def wait_closed(self) -> None:
        """Return when the client has closed; fail if it sends something or keeps the connection open."""
        assert self.receive() == b""


class RawServer:
    """Serves each connection with ``serve`` in a thread of its own; an exception there fails the test at the end."""

    def __init__(
        self, serve: Callable[[Peer], None], *, tls: bool = False, listener: socket.socket | None = None
    ) -> None:
        self._serve = serve
        self._context = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(CERTIFICATE)
        self.connections = 0
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://localhost:{self.port}/v1/chat/completions"
        self._acceptor = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._handle, args=(sock,))
            with self._lock:
                self._threads.append(thread)
                thread.start()

    def _handle(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(PATIENCE)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            with sock:
                self._serve(Peer(sock))
        except BaseException as error:
            self.errors.append(error)

    def join(self) -> None:
        """Wait until every connection so far has been served to its end."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(PATIENCE)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        self.join()
        for sock in self._sockets:
            sock.close()
        assert not any(thread.is_alive() for thread in self._threads), "a server thread is stuck"
        if error is None and self.errors:
            raise self.errors[0]
