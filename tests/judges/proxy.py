"""TCP proxies that cut connections in the middle of what the server sends."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

__all__ = ["CuttingProxy", "FaultyProxy", "RefusingProxy"]

PATIENCE_S = 30.0
_COMPRESSION = re.compile(rb"(?im)^sec-websocket-extensions:[^\r]*\r\n")


class CuttingProxy:
    """Passes connections on to a port of this machine.

    A connection on which the server sends the first of ``marks`` is closed after half of the mark; then the next mark
    is looked for, on any connection. WebSockets are not compressed, that the marks can be seen.

    Attributes:
        cuts: how many connections it has cut.
        gone: how many it has closed at once, as nothing answers at the port.
    """

    def __init__(self, port: int, marks: Sequence[bytes]) -> None:
        self.cuts = 0
        self.gone = 0
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
            try:
                server = socket.create_connection(("127.0.0.1", self._to), PATIENCE_S)
            except ConnectionError:
                self.gone += 1
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._ask, client, server)
            self._start(self._answer, server, client)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut_all(self) -> None:
        """Close all connections that there are now."""
        with self._lock:
            self._close(*self._sockets)

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


class FaultyProxy(CuttingProxy):
    """Passes connections on, and does them harm once `begin` was called: until it has done so often enough.

    What happens to a connection is drawn when its first bytes come: after some bytes from the server it is closed,
    reset, or nothing is passed on any more; or what the client sends is lost with it; and some of them are slow.

    Attributes:
        most: how many connections it does harm to.
        kinds: what it has done, by name.
    """

    def __init__(self, port: int, seed: int = 1, most: int = 0) -> None:
        super().__init__(port, [])
        self.most = most
        self.kinds: dict[str, int] = {}
        self._random = random.Random(seed)
        self._has_begun = threading.Event()
        self._is_over = threading.Event()
        self._plans: dict[socket.socket, list[Any]] = {}

    def begin(self) -> None:
        """Do harm from now on, also to the connections that there are."""
        self._has_begun.set()

    def __exit__(self, *about: Any) -> None:
        self._is_over.set()
        super().__exit__(*about)

    def _plan(self, server: socket.socket) -> list[Any]:
        """What happens to a connection: its kind, after how many bytes, and the delay of each piece in seconds."""
        with self._lock:
            if server not in self._plans and self._has_begun.is_set():
                kind = self._random.choice(("close", "close", "reset", "stall", "lose"))
                size = self._random.choice((0, 100, 400, 1_000, 3_000))
                delay = self._random.choice((0.0, 0.0, 0.0, 0.003, 0.02))
                self._plans[server] = [kind, self._random.randint(0, size), delay]
            return self._plans.get(server, ["none", 0, 0.0])

    def _harm(self, kind: str) -> bool:
        with self._lock:
            if self.cuts >= self.most:
                return False
            self.cuts += 1
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            return True

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if self._plan(server)[0] == "lose" and self._random.random() < 0.5 and self._harm("lose"):
                    break
                server.sendall(_COMPRESSION.sub(b"", data))
        self._close(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                kind, _, delay = plan = self._plan(server)
                if delay:
                    self._is_over.wait(delay)
                if kind != "none" and len(data) > plan[1] and self._harm("close" if kind == "lose" else kind):
                    client.sendall(data[: plan[1]])
                    if kind == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        with self._lock:
                            self._sockets.discard(client)
                        client.close()
                    while kind == "stall" and server.recv(65_536):
                        pass  # until the client leaves
                    break
                plan[1] -= len(data)
                client.sendall(data)
        self._close(client, server)


class RefusingProxy(CuttingProxy):
    """Passes connections on, but no WebSocket once `refuse` was called, until `allow` is.

    Attributes:
        refused: how many WebSockets it has refused.
        passed: how many it has passed on.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port, [])
        self.refused = 0
        self.passed = 0
        self._how: str | None = None
        self._tunnels: set[socket.socket] = set()  # the clients of WebSockets

    def refuse(self, how: str) -> None:
        """Refuse WebSockets from now on, and cut those that there are.

        ``"status"`` answers 403; ``"close"`` closes the connection after the answer 101, before the first message.
        """
        self._how = how
        with self._lock:
            self._close(*self._tunnels)

    def allow(self) -> None:
        """Pass all on again."""
        self._how = None

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if b"\r\nupgrade: websocket\r\n" in data.lower():
                    if self._how == "status":
                        self.refused += 1
                        client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        break
                    self.passed += self._how is None
                    with self._lock:
                        self._tunnels.add(client)
                server.sendall(_COMPRESSION.sub(b"", data))
        self._close(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if self._how == "close" and data.startswith(b"HTTP/1.1 101 "):
                    self.refused += 1
                    client.sendall(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                    break
                client.sendall(data)
        self._close(server, client)
