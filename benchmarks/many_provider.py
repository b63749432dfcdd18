"""A provider for thousands of connections, in one thread: ``python -m benchmarks.many_provider``.

It answers every request with the head of an event stream, and sends no event before it is told to. A connection that
begins with a command instead of a request controls it, one command a line:

- ``COUNT``: answered with the number of requests that have come;
- ``STEP k``: one event on each of the next k connections, in turn, so that a client that is late gets no second one;
- ``PACE r``: from now on r events a second on each connection, at times that are spread evenly; 0 stops it;
- ``END``: the last event, and the end of every answer.

The text of each event is the time at which it was sent. It prints its URL, and exits when standard input is closed.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from typing import Any, Final

__all__ = ["Provider", "token_chunk"]

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_TICK_S: Final = 0.001


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    body = {
        "id": "chatcmpl-9abcdefghijklmnopqrstuv",
        "object": "chat.completion.chunk",
        "created": 1763600000,
        "model": "many-4o-mini",
        "service_tier": "default",
        "system_fingerprint": "fp_1234567890",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        "usage": None,
    }
    data = f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def token_chunk(text: str) -> bytes:
    """An event with one token, as one chunk of HTTP."""
    return _event({"content": text}, None)


_STAMP: Final = "1763600000.000000"
_BEFORE, _AFTER = _event({"content": f" {_STAMP}"}, None).split(_STAMP.encode())
_LAST: Final = _event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Provider:
    """See the module's docstring. Everything runs in the thread that calls `serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._unread: dict[socket.socket, bytes] = {}
        self._running: list[socket.socket] = []
        self._next = 0
        self._rate = 0.0
        self._paced_since = 0.0
        self._paced = 0  # events since then
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def serve(self, stop: Any) -> None:
        """Serve until the file ``stop`` is readable."""
        self._selector.register(stop, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(_TICK_S if self._rate else None):
                sock: Any = key.fileobj
                if sock is stop:
                    return
                if sock is self._listener:
                    self._accept()
                else:
                    self._read(sock)
            if self._rate:
                due = int((time.monotonic() - self._paced_since) * self._rate * len(self._running))
                self._send_to_next(due - self._paced)
                self._paced = due

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._unread[sock] = b""
                self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            self._unread.pop(sock, None)
            if sock in self._running:
                self._running.remove(sock)
            sock.close()
            return
        data = self._unread[sock] + data
        if data.startswith(b"POST"):
            head, end, body = data.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if end and len(body) >= int(length or b"0"):
                data = b""
                sock.send(_HEAD)
                self._running.append(sock)
        else:
            while b"\n" in data:
                line, _, data = data.partition(b"\n")
                self._obey(sock, line.decode().split())
        self._unread[sock] = data

    def _obey(self, sock: socket.socket, words: list[str]) -> None:
        match words:
            case ["COUNT"]:
                sock.send(b"%d\n" % len(self._running))
            case ["STEP", count]:
                self._send_to_next(int(count))
            case ["PACE", rate]:
                self._rate, self._paced, self._paced_since = float(rate), 0, time.monotonic()
            case _:
                for each in self._running:
                    with contextlib.suppress(OSError):
                        each.send(_LAST)
                self._running = []

    def _send_to_next(self, count: int) -> None:
        running = self._running
        for _ in range(count if running else 0):
            self._next = (self._next + 1) % len(running)
            with contextlib.suppress(OSError):  # its buffers are full: the client does not keep up
                running[self._next].send(b"%s%.6f%s" % (_BEFORE, time.time(), _AFTER))


def main(answers: str = "{}") -> None:
    """Serve until standard input is closed. It takes no answers, unlike `benchmarks.provider`."""
    del answers
    provider = Provider()
    print(provider.url, flush=True)
    provider.serve(sys.stdin)


if __name__ == "__main__":
    main(*sys.argv[1:])
