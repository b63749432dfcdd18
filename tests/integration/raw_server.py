"""A server that sends exactly the bytes of a test, and a provider and a sink for the reader's tests."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.config.options import RequestOptions
from penstock.errors import ApiError, PenstockError, ProviderError
from penstock.ports import ChatCall, Decoder, Delta, ProviderRequest, Secret, TextDelta

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

    def read_request(self) -> bytes:
        """Read a request with its body; ``b""`` if the client closed the connection instead."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.sock.recv(65_536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                while len(body) < int(line.partition(b":")[2]):
                    part = self.sock.recv(65_536)
                    if not part:
                        return b""
                    body += part
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_closed(self) -> None:
        """Return when the client has closed; fail if it sends something or keeps the connection open."""
        with contextlib.suppress(ConnectionResetError):
            assert self.sock.recv(1) == b""


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


class PlainDecoder:
    """Emits each chunk as text, unchanged; ``[DONE]`` is the end."""

    def __init__(self) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None

    def feed(self, chunk: bytes) -> list[Delta]:
        text = chunk.decode()
        self.done = "[DONE]" in text
        return [TextDelta(text)]

    def close(self) -> list[Delta]:
        return []


class PlainProvider:
    """A provider whose decoder can be chosen; error answers become `ApiError` with the body as the message."""

    name = "plain"

    def __init__(self, make: Callable[[], Decoder] = PlainDecoder) -> None:
        self._make = make

    def request(self, call: ChatCall) -> ProviderRequest:
        raise NotImplementedError

    def decoder(self, options: RequestOptions) -> Decoder:
        return self._make()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return ApiError(status, f"{len(body)} {body[:300].decode()} {headers.get('x-echo', '')}")


class RecordingSink:
    """Keeps every call, in order, with the thread that made it."""

    def __init__(self, *, accept: bool = True) -> None:
        self.accept = accept
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.texts: queue.Queue[str] = queue.Queue()
        self.batches: list[int] = []
        self.decoder: Decoder | None = None
        self.error: PenstockError | None = None
        self.is_connecting = threading.Event()
        self.is_waiting = threading.Event()
        self.has_ended = threading.Event()

    def _note(self, call: str) -> None:
        assert "ended" not in self.calls, f"{call} after ended"
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def connecting(self) -> None:
        self._note("connecting")
        self.is_connecting.set()

    def waiting(self) -> None:
        self._note("waiting")
        self.is_waiting.set()

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        self._note("deltas")
        self.batches.append(len(deltas))
        for delta in deltas:
            if isinstance(delta, TextDelta):
                self.texts.put(delta.text)
        return self.accept

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        """There is always room."""
        return self.deltas(deltas)

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        self._note("ended")
        self.decoder = decoder
        self.error = error
        self.has_ended.set()

    def next_text(self) -> str:
        return self.texts.get(timeout=PATIENCE)

    def wait_ended(self) -> PenstockError | None:
        assert self.has_ended.wait(PATIENCE), f"not ended: {self.calls}"
        return self.error


def post(url: str, *, key: str = "sk-test-1234567890", body: bytes = b"{}") -> ProviderRequest:
    return ProviderRequest(
        url=url,
        body=body,
        headers={"Content-Type": "application/json"},
        secret_headers={"Authorization": Secret(f"Bearer {key}")},
    )
