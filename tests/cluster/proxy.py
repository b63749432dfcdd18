"""A proxy that can lose answers: the server has done what it was asked, and the client does not know."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["Proxy"]


class Proxy:
    """Forwards connections on a loopback port to another one.

    Args:
        target: the port of the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._losing = 0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, count: int) -> None:
        """Drop the next answers to calls of functions, each with its connection."""
        self._losing = count

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._sockets += [client, server]
                state = threading.Event()  # set: a function has been called and not answered
                threading.Thread(target=self._forward, args=(client, server, state, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, state, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, state: threading.Event, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_request and b"FCALL" in data and b"append" in data:
                    state.set()
                elif not is_request and state.is_set():
                    state.clear()
                    if self._losing > 0:
                        self._losing -= 1
                        self.lost += 1
                        break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for one in self._sockets:
                one.close()
