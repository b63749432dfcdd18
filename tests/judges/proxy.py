"""A TCP proxy that cuts connections in the middle of what the server sends."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

__all__ = ["CuttingProxy"]

PATIENCE_S = 30.0
_COMPRESSION = re.compile(rb"(?im)^sec-websocket-extensions:[^\r]*\r\n")


class CuttingProxy:
    """Passes connections on to a port of this machine.

    A connection on which the server sends the first of ``marks`` is closed after half of the mark; then the next mark
    is looked for, on any connection. WebSockets are not compressed, that the marks can be seen.

    Attributes:
        cuts: how many connections it has cut.
    """

    def __init__(self, port: int, marks: Sequence[bytes]) -> None:
        self.cuts = 0
        self._to = port
        self._marks = list(marks)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_closed = False

    @property
    def port(self) -> int:
        found: int = self._listener.getsockname()[1]
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S).close()  # wakes `accept`
        self._threads[0].join(PATIENCE_S)
        with self._lock:
            left = list(self._sockets)
        self._close(*left)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        for each in left:
            each.close()
        self._listener.close()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="cutting-proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._is_closed:
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._to), PATIENCE_S)
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._ask, client, server)
            self._start(self._answer, server, client)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client sends."""
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(_COMPRESSION.sub(b"", data))
        self._close(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what the server sends, up to the next mark."""
        tail = b""
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                end = self._cut(tail + data)
                if end is not None:
                    client.sendall(data[: max(0, end - len(tail))])
                    break
                client.sendall(data)
                tail = (tail + data)[-64:]
        self._close(client, server)

    def _cut(self, data: bytes) -> int | None:
        """Where the connection is cut; None: nowhere."""
        with self._lock:
            at = data.find(self._marks[0]) if self._marks else -1
            if at < 0:
                return None
            self.cuts += 1
            return at + len(self._marks.pop(0)) // 2
