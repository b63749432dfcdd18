"""A thousand readers of two hundred streams: each gets everything, memory is bounded, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import psutil

from benchmarks.probe import ProbeError, Result, measure
from benchmarks.served import client, get, running
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import Stream, StreamOptions, System
from penstock.config.gateway import GatewayOptions
from penstock.config.settings import Settings
from penstock.gateway.asgi import Gateway
from penstock.gateway.projector import Projector
from penstock.gateway.server import GatewayServer, listen

__all__ = ["load", "run"]

_RATE: Final = 20.0
_TEXT: Final = 1000  # characters of a token, so that a slow reader is behind within seconds
_SLOW_BYTES: Final = 1000  # what a slow reader takes twice a second: a tenth of what it is sent
_BUFFER: Final = 16_384  # bytes of a socket's buffers, which would otherwise hold minutes of a stream
_SLOW_BUFFER: Final = 32_768  # a smaller one never shows room for a whole segment: the kernel takes it for stuck
_PATIENCE_S: Final = 20.0


def load(readers: int, streams: int, seconds: float, seed: int = 1) -> Result:
    """Read ``streams`` streams by ``readers`` readers; half of them are slow, and a tenth leaves.

    Raises:
        ProbeError: a reader that stayed did not get every event once and in order, or something was left behind.
    """
    texts = [f"{number:06d} ".ljust(_TEXT, ".") for number in range(int(_RATE * seconds))]
    with System(Settings()) as system:
        gateway = Gateway(system, GatewayOptions(max_readers=readers + 1))
        listeners = listen("127.0.0.1", 0)
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        port = listeners[0].getsockname()[1]
        server = GatewayServer(gateway, listeners)
        with running(server, port):
            _use_once(system, server, port)
            before = _present(server)
            names = [f"s{place}" for place in range(streams)]
            opened = [system.open_stream(name, StreamOptions(rate_limit=None, batch_size=1)) for name in names]
            plan = {
                "do": "check",
                "port": port,
                "requests": [get(f"/v1/streams/{name}/events") for name in names],
                "readers": readers,
                "a_stream": readers // streams,
                "texts": texts,
                "seconds": seconds,
                "seed": seed,
                "slow_buffer": _SLOW_BUFFER,
                "slow_bytes": _SLOW_BYTES,
            }
            with client(plan) as reading:
                reading.next()
                began, grown = time.perf_counter(), _push(opened, texts)
                wall = time.perf_counter() - began
                lag = max((reader.lag for reader in list(gateway.readers)), default=0)  # type: ignore[attr-defined]
                for stream in opened:
                    stream.stop()
                reading.nudge()
                said = reading.next()
            if said["faulty"]:
                raise ProbeError(f"{said['faulty']} of {readers} readers: {'; '.join(said['faults'])}")
            _check_nothing_left(server, opened, before)
    return {
        "stayed": readers - said["left"],
        "left": said["left"],
        "events": (readers - said["left"]) * len(texts),
        "late": wall / seconds,
        "grown_kb": grown / readers,
        "lag_kb": lag / 1024,
    }


def _push(streams: list[Stream], texts: list[str]) -> float:
    """Push the texts into all streams at their pace; returns by how many KB the process has grown at most."""
    process = psutil.Process()
    before = most = process.memory_info().rss
    due = time.monotonic()
    for text in texts:
        due += 1 / _RATE
        for stream in streams:
            stream.process_token(text)
        most = max(most, process.memory_info().rss)
        time.sleep(max(0.0, due - time.monotonic()))
    return (most - before) / 1024


def _use_once(system: System, server: GatewayServer, port: int) -> None:
    """Read and delete a stream, so that everything that is made with the first use is there."""
    stream = system.open_stream("first", StreamOptions(rate_limit=None))
    stream.process_token("Hello")
    stream.stop()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    connection.request("GET", "/v1/streams/first/events", headers={"connection": "close"})
    if b"Hello" not in connection.getresponse().read():
        raise ProbeError("the first reader got nothing")
    connection.close()
    _delete(port, ["first"])
    _wait(lambda: not server.gateway.readers and not server.server_state.connections, "the first reader")


def _delete(port: int, names: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    for name in names:
        connection.request("DELETE", f"/v1/streams/{name}")
        response = connection.getresponse()
        response.read()
        if response.status != 204:
            raise ProbeError(f"deleting {name}: {response.status}")
    connection.close()


def _present(server: GatewayServer) -> dict[str, int]:
    """What could be left behind, by name, and how many there are of it."""
    loop = server.gateway.ticker.loop
    found = asyncio.run_coroutine_threadsafe(_tasks(), loop).result(_PATIENCE_S)
    gc.collect()
    process = psutil.Process()
    return {
        "threads": threading.active_count(),
        "file descriptors": process.num_fds() if hasattr(process, "num_fds") else 0,
        "tasks": found,
        "readers": len(server.gateway.readers),
        "connections": len(server.server_state.connections),
        "streams": len(server.gateway.channels.all()),
        "projectors": sum(type(one) is Projector for one in gc.get_objects()),
    }


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def _check_nothing_left(server: GatewayServer, streams: list[Stream], before: dict[str, int]) -> None:
    _wait(lambda: not any(stream._record.hub.subscriptions for stream in streams), "subscriptions")
    _wait(lambda: not server.server_state.connections, "connections")
    port = int(server.url.rpartition(":")[2])
    _delete(port, [stream.stream_id for stream in streams])
    streams.clear()

    def more() -> dict[str, int]:
        now = _present(server)
        return {name: now[name] - count for name, count in before.items() if now[name] > count}

    deadline = time.monotonic() + _PATIENCE_S
    while (found := more()) and time.monotonic() < deadline:
        time.sleep(0.2)
    if found:
        raise ProbeError(f"left behind: {found}")


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise ProbeError(f"left behind: {what}")
        time.sleep(0.05)


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    readers, streams, seconds = (100, 20, 2.0) if quick else (1000, 200, 15.0)
    results = [
        measure(load, timeout=400.0, readers=readers, streams=streams, seconds=seconds, seed=seed)
        for seed in range(1, rounds + 1)
    ]
    table = Table(
        f"{readers:,} readers of {streams:,} streams",
        f"Server-sent events of the native protocol at {_RATE:g} events/s of {_TEXT} characters, for {seconds:g} s, by"
        " `GatewayServer`; the readers are in another process. Half of them are slow (a tenth of what they are sent,"
        " until the streams have ended), and a tenth leaves at random moments. Each other reader must get every"
        " character once and in order, rising cursors, one end, and the end of the response. Afterwards no thread, file"
        " descriptor, task, subscription, connection or stream may be left. A run in which one of these fails has no"
        " figures.",
    )
    for what, unit, field, aim in (
        ("readers that got everything", "count", "stayed", None),
        ("readers that left", "count", "left", None),
        ("events they got in all", "count", "events", None),
        ("time to push, 1 is on time", "×", "late", None),
        ("how far the last reader was behind", "KB", "lag_kb", None),
        ("most that memory grew by, a reader", "KB", "grown_kb", Aim("at most", 150)),
    ):
        table.rows.append(Row(what, unit, Samples.of(results, field), aim))
    return [table]
