"""A proxy between a node and its server, or a replica and its primary: it can lose answers, and cut one way or both."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["Proxy"]


class Proxy:
    """Forwards connections on a loopback port to another one.

    What is sent while a way is cut is held, as by a network that drops packets: TCP sends them again. It arrives when
    the way is whole again, however late, also from a sender that has given its connection up.

    Args:
        target: the port of the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._losing = 0
        self._losing_of = b""
        self._to_server, self._to_client, self._to_replica = (threading.Event() for _ in range(3))
        self._replicas = 0  # grows when replicas are cut off for good
        self.lost = 0
        """Answers that were dropped."""
        self.held = 0
        """Pieces that have come while their way was cut."""
        self.heal()
        self._to_replica.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def lose_answers(self, count: int, of: bytes = b"append") -> None:
        """Drop the next answers to calls of functions that have ``of`` in their name, each with its connection."""
        self._losing, self._losing_of = count, of

    def cut(self, *, to_server: bool, to_client: bool) -> None:
        """Cut the ways that are named, for connections that there are and for new ones."""
        for way, is_cut in ((self._to_server, to_server), (self._to_client, to_client)):
            if is_cut:
                way.clear()

    def heal(self) -> None:
        """Let everything through that was held, and what comes."""
        self._to_server.set()
        self._to_client.set()

    def hold_replicas(self) -> None:
        """Let replicas get nothing more for now: they lag."""
        self._to_replica.clear()

    def drop_replicas(self) -> None:
        """Close the connections of replicas, without what was held for them: their primary has died."""
        self._replicas += 1
        self._to_replica.set()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
            way = _Connection(self._replicas)
            threading.Thread(target=self._forward, args=(client, server, way, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, way, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, connection: _Connection, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_request:
                    connection.note(data, self._losing_of)
                elif connection.is_asked.is_set():
                    connection.is_asked.clear()
                    if self._losing > 0:
                        self._losing -= 1
                        self.lost += 1
                        break
                if not self._pass(connection, is_request):
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pass(self, connection: _Connection, is_request: bool) -> bool:
        """Wait while the way is cut; returns whether to send."""
        way = self._to_server if is_request else self._to_client
        if not way.is_set():
            self.held += 1
            way.wait()
        if connection.is_replica and not is_request:
            self._to_replica.wait()
            return connection.replicas == self._replicas and not self._is_closed
        return not self._is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_closed = True
        self.heal()
        self._to_replica.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                one.close()


class _Connection:
    """What is known of one connection."""

    def __init__(self, replicas: int) -> None:
        self.is_asked = threading.Event()  # set: a function has been called and not answered
        self.is_replica = False
        self.replicas = replicas

    def note(self, data: bytes, name: bytes) -> None:
        """Look at what the client sends."""
        if name and b"FCALL" in data and name in data:
            self.is_asked.set()
        if b"PSYNC" in data:
            self.is_replica = True
