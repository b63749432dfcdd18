"""A server in this process, and the load client in another one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import uvicorn

from benchmarks.probe import ProbeError, Result

__all__ = ["Client", "client", "counted", "get", "post", "running"]

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 30.0


@contextmanager
def running(server: uvicorn.Server, port: int, listeners: list[socket.socket] | None = None) -> Iterator[int]:
    """Run a server in a thread within this block; yields its port. ``listeners`` None: it has its own."""
    thread = threading.Thread(target=server.run, args=(listeners,), name="server")
    thread.start()
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ProbeError("the server did not start")
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)
        if thread.is_alive():
            server.force_exit = True
            thread.join(_PATIENCE_S)
        for listener in listeners or ():
            listener.close()


def get(path: str, **headers: str) -> str:
    """A request for a stream of events, as the load client sends it."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{more}\r\n"


def post(path: str, body: Mapping[str, Any], **headers: str) -> str:
    """A request with a JSON body."""
    data = json.dumps(body)
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n{more}\r\n{data}"


class Client:
    """A load client that runs."""

    def __init__(self, source: IO[str], sink: IO[str]) -> None:
        self._source = source
        self._sink = sink

    def next(self) -> dict[str, Any]:
        """Wait for what it says next.

        Raises:
            ProbeError: it ended instead.
        """
        line = self._source.readline()
        if not line:
            raise ProbeError("the load client has ended; its error is on standard error")
        said: dict[str, Any] = json.loads(line)
        return said

    def nudge(self) -> None:
        """Send it an empty line."""
        self._sink.write("\n")
        self._sink.flush()


@contextmanager
def client(plan: Mapping[str, Any]) -> Iterator[Client]:
    """Run a load client within this block."""
    command = [sys.executable, "-m", "benchmarks.load_client"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(plan) + "\n")
        process.stdin.flush()
        yield Client(process.stdout, process.stdin)
        process.wait(_PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(_PATIENCE_S)
        process.stdin.close()
        process.stdout.close()


def counted(plan: Mapping[str, Any], cpu: Callable[[], float]) -> Result:
    """Let a load client count, and measure the server meanwhile.

    Args:
        plan: see `benchmarks.load_client.count`.
        cpu: the CPU time of the server so far, in seconds.
    """
    with client({"do": "count", **plan}) as load:
        begin, before, began = load.next(), cpu(), time.perf_counter()
        end, after, ended = load.next(), cpu(), time.perf_counter()
        late = load.next()
    frames, tokens = end["frames"] - begin["frames"], end["tokens"] - begin["tokens"]
    if not frames:
        raise ProbeError("no frame came")
    late.pop("at")
    return {
        "frames": frames,
        "tokens": tokens,
        "rate": tokens / (ended - began),
        "frame_us": (after - before) / frames * 1e6,
        "token_us": (after - before) / max(tokens, 1) * 1e6,
        "cpu_share": (after - before) / (ended - began) * 100,
        **late,
    }
