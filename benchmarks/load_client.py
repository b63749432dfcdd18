"""Many readers of server-sent events in one process: ``python -m benchmarks.load_client PLAN``, a JSON object.

It has raw sockets and one selector, so that a thousand readers cost little. It prints a JSON object for each moment of
the measurement, and exits with the last one. It works for `benchmarks.served`, which starts it.
"""

from __future__ import annotations

import json
import random
import re
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

__all__ = ["STAMP", "stamped"]

STAMP: Final = re.compile(rb"@([0-9]{10}\.[0-9]{6})")
"""The time (`time.time`) at which a token was made, in its text."""
_PIECE: Final = 262_144
_PATIENCE_S: Final = 120.0
_FIRST_S: Final = 10.0  # for a first token, if none comes in the time of the measurement
_GAP_S: Final = 0.001  # between two connections, so that the readers are spread over the interval of their frames
_SLOW_S: Final = 0.5  # a slow reader reads a little so often
_EVENT: Final = re.compile(rb"id: [0-9a-f]+-([0-9]+)\nevent: ([a-z_]+)\ndata: (\{.*\})\Z")


def stamped(now: float) -> str:
    """A token that says when it was made."""
    return f"@{now:.6f}"


def connect(port: int, request: str, receive_buffer: int = 0) -> socket.socket:
    """Send a request to a server on this machine; the socket does not block."""
    made = socket.socket()
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(_PATIENCE_S)
    made.connect(("127.0.0.1", port))
    made.sendall(request.encode())
    made.setblocking(False)
    return made


class Stamps:
    """A reader that counts frames and tokens, and notes now and then how late a token is.

    A frame is counted by the opening braces of its JSON (the plan's ``braces`` in each, default 1), a token by its
    ``@``: a single byte is never cut in two.
    """

    __slots__ = ("_every", "_late", "_looks", "braces", "tokens")

    def __init__(self, late: list[float], every: int) -> None:
        self.braces = 0
        self.tokens = 0
        self._late = late
        self._every = every
        self._looks = 0

    def take(self, data: bytes) -> None:
        self.braces += data.count(b"{")
        self.tokens += data.count(b"@")
        self._looks += 1
        if not self._looks % self._every:
            now = time.time()
            self._late += [now - float(stamp) for stamp in STAMP.findall(data)]


def count(plan: dict[str, Any]) -> None:
    """Read with all readers; say when the measurement begins and ends, and what has come by then.

    The measurement begins ``settle`` seconds after each reader has had a token. It takes ``seconds``, or until a first
    token has come, if that is later.
    """
    selector = selectors.DefaultSelector()
    late: list[float] = []
    readers: list[Stamps] = []

    def read(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not until():
            for key, _ in selector.select(left):
                connection: Any = key.fileobj
                data = connection.recv(_PIECE)
                if not data:
                    raise SystemExit("a response has ended before the measurement")
                key.data.take(data)

    for place in range(plan["readers"]):
        reader = Stamps(late, plan.get("looks", 1))
        readers.append(reader)
        request = plan["requests"][place % len(plan["requests"])]
        selector.register(connect(plan["port"], request), selectors.EVENT_READ, reader)
        read(plan.get("gap", _GAP_S))
    read(_PATIENCE_S, lambda: all(reader.tokens for reader in readers))
    silent = sum(not reader.tokens for reader in readers)
    if silent:
        raise SystemExit(f"{silent} of {len(readers)} readers had got nothing after {_PATIENCE_S:g} s")
    read(plan["settle"])
    late.clear()

    def say(what: str) -> None:
        braces, tokens = sum(one.braces for one in readers), sum(one.tokens for one in readers)
        counts = {"frames": braces / plan.get("braces", 1), "tokens": tokens}
        print(json.dumps({"at": what, **counts}), flush=True)

    say("begin")
    read(plan["seconds"])
    read(_FIRST_S, lambda: bool(late))
    say("end")
    late.sort()
    said = {f"p{part}_ms": late[int(len(late) * part / 100)] * 1e3 for part in (50, 99)} if late else {}
    print(json.dumps({"at": "late", **said}), flush=True)


class Checked:
    """A reader that must get every event of its stream once, in order, and one end.

    Pieces of text may come joined; the text is then compared with what they had to be.
    """

    __slots__ = (
        "_expected",
        "_need",
        "_raw",
        "_rest",
        "ends",
        "fault",
        "is_slow",
        "is_whole",
        "last",
        "leaves_at",
        "text",
    )

    def __init__(self, expected: str) -> None:
        self.is_slow = False
        self.is_whole = False  # the end of the response's body has come
        self.leaves_at: float | None = None
        self.text = 0  # characters
        self.last = 0  # the number of the last event
        self.ends = 0
        self.fault = ""
        self._expected = expected
        self._raw = bytearray()
        self._need = 0  # bytes of the chunk that has begun; 0: the head has not come
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Read the chunks of the body that have come whole."""
        raw = self._raw
        raw += data
        if not self._need:
            head, found, body = bytes(raw).partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200 ") or b"\r\ntransfer-encoding: chunked" not in head:
                self.fault = f"not a stream: {head[:40]!r}"
            raw[:] = body
            self._need = 1
        while len(raw) >= self._need and (end := raw.find(b"\r\n", 0, 20)) > 0:
            size = int(raw[:end], 16)
            self._need = end + size + 4
            if len(raw) < self._need:
                return
            self.is_whole = size == 0
            *events, self._rest = (self._rest + raw[end + 2 : end + 2 + size]).split(b"\n\n")
            del raw[: self._need]
            self._need = 1
            for event in events:
                if not self.fault:
                    self._take(event)

    def _take(self, event: bytes) -> None:
        found = _EVENT.search(event)  # after a sign of life
        if found is None:
            self.fault = f"an event without a cursor: {event[:80]!r}"
            return
        seq, name, fields = int(found[1]), found[2].decode(), json.loads(found[3])
        if self.ends:
            self.fault = f"a {name} after the end"
        elif seq <= self.last:
            self.fault = f"event {seq} after event {self.last}"
        elif name == "token":
            text = fields["text"]
            if self._expected[self.text : self.text + len(text)] != text:
                self.fault = f"event {seq} is not what follows {self.text} characters"
            self.text += len(text)
        elif name == "end":
            self.ends += 1
        elif name != "stream_started":
            self.fault = f"an unexpected {name}"
        self.last = seq

    def close(self) -> None:
        """The response has ended."""
        if not self.fault and (self.ends != 1 or self.text != len(self._expected)):
            self.fault = f"{self.ends} ends, {self.text} of {len(self._expected)} characters"
        if not self.fault and not self.is_whole:
            self.fault = "the response was cut off after the last event"


def check(plan: dict[str, Any]) -> None:
    """Read with all readers to their ends, some slowly, while some leave; say what each got.

    Half of the readers are slow until the server has said, by a line on standard input, that it has sent everything.
    A tenth of all leaves within ``seconds``.
    """
    chance = random.Random(plan["seed"])
    selector = selectors.DefaultSelector()
    expected = "".join(plan["texts"])
    readers: dict[socket.socket, Checked] = {}
    for place in range(plan["readers"]):
        reader = Checked(expected)
        reader.is_slow = place % 2 == 1
        request = plan["requests"][place // plan["a_stream"]]
        connection = connect(plan["port"], request, plan["slow_buffer"] if reader.is_slow else 0)
        readers[connection] = reader
        if not reader.is_slow:
            selector.register(connection, selectors.EVENT_READ, reader)
    print(json.dumps({"at": "begin"}), flush=True)
    began = time.monotonic()
    for connection in chance.sample(sorted(readers, key=lambda one: one.fileno()), len(readers) // 10):
        readers[connection].leaves_at = began + chance.uniform(0.1, 0.9) * plan["seconds"]
    selector.register(sys.stdin, selectors.EVENT_READ)
    _read_all(plan, selector, readers)
    left = sum(reader.leaves_at is not None for reader in readers.values())
    faults = [reader.fault for reader in readers.values() if reader.fault]  # leaving early is none
    print(json.dumps({"at": "end", "faults": faults[:5], "faulty": len(faults), "left": left}), flush=True)


def _read_all(plan: dict[str, Any], selector: selectors.BaseSelector, readers: dict[socket.socket, Checked]) -> None:
    """Read until each response has ended or its reader has left."""
    is_slow, began = True, time.monotonic()
    next_slow = began
    open_ones = set(readers)
    deadline = time.monotonic() + plan["seconds"] + 2 * _PATIENCE_S

    def take(connection: socket.socket, most: int) -> None:
        try:
            data = connection.recv(most)
        except BlockingIOError:
            return
        except ConnectionResetError:
            reader = readers[connection]
            reader.fault = f"cut off after {time.monotonic() - began:.1f} s and {reader.text} characters"
            leave(connection)
            return
        if data:
            readers[connection].take(data)
        else:
            readers[connection].close()
            leave(connection)

    def leave(connection: socket.socket) -> None:
        if connection in selector.get_map():
            selector.unregister(connection)
        connection.close()
        open_ones.discard(connection)

    while open_ones and time.monotonic() < deadline:
        for key, _ in selector.select(0.05):
            if key.data is None:
                sys.stdin.readline()
                selector.unregister(sys.stdin)
                is_slow = False
                for connection in [one for one in open_ones if readers[one].is_slow]:
                    selector.register(connection, selectors.EVENT_READ, readers[connection])
            elif isinstance(key.fileobj, socket.socket) and key.fileobj in open_ones:
                take(key.fileobj, _PIECE)
        now = time.monotonic()
        for connection in [one for one in open_ones if (readers[one].leaves_at or now) < now]:
            leave(connection)
        if is_slow and now >= next_slow:
            next_slow = now + _SLOW_S
            for connection in [one for one in open_ones if readers[one].is_slow]:
                take(connection, plan["slow_bytes"])
    for connection in list(open_ones):
        readers[connection].fault = "the response did not end"
        leave(connection)


if __name__ == "__main__":
    _plan: dict[str, Any] = json.loads(sys.stdin.readline())
    {"count": count, "check": check}[_plan["do"]](_plan)
