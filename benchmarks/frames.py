"""What a frame costs the server, for many readers of server-sent events at the pace of a model."""

from __future__ import annotations

import importlib.util
import threading
import time
from typing import Final

import psutil
import uvicorn

from benchmarks.load_client import stamped
from benchmarks.probe import Result, measure
from benchmarks.served import counted, get, running
from benchmarks.sse_peers import APPS, Beat
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import StreamOptions, System
from penstock.config.gateway import GatewayOptions
from penstock.config.settings import Settings
from penstock.gateway.asgi import Gateway
from penstock.gateway.server import GatewayServer, listen

__all__ = ["gateway_load", "has_sse_starlette", "peer_load", "run"]

_RATE: Final = 20.0
_SLICES: Final = 10  # of an interval: streams get their tokens at different moments
_RAW, _SHARED, _STARLETTE, _SSE = APPS
_AIMS: Final = {_RAW: 1.3, _STARLETTE: 1.0}
"""By how many times the CPU time of a peer the gateway may take."""


def gateway_load(readers: int, streams: int, seconds: float) -> Result:
    """Measure the gateway, with streams that a thread of the same process pushes tokens into."""
    options = StreamOptions(rate_limit=None, batch_size=1)
    with System(Settings()) as system:
        opened = [system.open_stream(f"s{place}", options) for place in range(streams)]
        gateway = Gateway(system, GatewayOptions(max_readers=readers + 1))
        listeners = listen("127.0.0.1", 0)
        ending = threading.Event()
        slices = [[stream.process_token for stream in opened[place::_SLICES]] for place in range(_SLICES)]

        def push() -> None:
            due, interval = time.monotonic(), 1 / _RATE / _SLICES
            while not ending.is_set():
                for pushes in slices:
                    due += interval
                    time.sleep(max(0.0, due - time.monotonic()))
                    text = stamped(time.time())
                    for push_one in pushes:
                        push_one(text)

        producer = threading.Thread(target=push, name="producer")
        with running(GatewayServer(gateway, listeners), listeners[0].getsockname()[1]) as port:
            producer.start()
            try:
                # A stream that a reader comes to late is sent from now on: what came before is not measured.
                requests = [get(f"/v1/streams/{stream.stream_id}/events?after=latest") for stream in opened]
                return _measured(port, requests, readers, seconds)
            finally:
                ending.set()
                producer.join()
                for stream in opened:
                    stream.stop()


def peer_load(app: str, readers: int, seconds: float) -> Result:
    """Measure one of the apps of `benchmarks.sse_peers`, served by uvicorn."""
    beat = Beat(_RATE)
    config = uvicorn.Config(APPS[app](beat), lifespan="off", log_config=None, access_log=False, port=0)
    listener = config.bind_socket()
    with running(uvicorn.Server(config), listener.getsockname()[1], [listener]) as port:
        try:
            return _measured(port, [get("/sse")], readers, seconds)
        finally:
            beat.is_over = True
            time.sleep(2 * beat.interval)


def has_sse_starlette() -> bool:
    """Whether that peer can be measured."""
    return importlib.util.find_spec("sse_starlette") is not None


def _measured(port: int, requests: list[str], readers: int, seconds: float) -> Result:
    plan = {
        "port": port,
        "requests": requests,
        "readers": readers,
        "settle": seconds / 4,
        "seconds": seconds,
        "looks": 5,
    }
    result = counted(plan, time.process_time)
    return result | {"rss_mb": psutil.Process().memory_info().rss / 1024 / 1024}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    seconds = 2.0 if quick else 6.0
    sizes = ((50, 10), (20, 4)) if quick else ((1000, 200), (200, 40))
    table = Table(
        f"Frames of server-sent events at {_RATE:g} a second for each reader",
        "CPU time (user and system, all threads) of the serving process for each token that reached a reader; the same"
        " client, in a process of its own, reads all. The gateway serves its native protocol by `GatewayServer`; each"
        " stream has five readers, and a thread of the same process pushes its tokens: that thread and the streams"
        " themselves are in the figures. The others write the same bytes (about 110 for a frame), which each makes for"
        " each reader; a timer for each reader is their usual form. What comes to a reader that is behind is joined by"
        " the gateway, so that a frame may have several tokens; the others are behind instead.",
    )
    for readers, streams in sizes:
        ours: list[Result] = []
        theirs: dict[str, list[Result]] = {}
        for _ in range(rounds):
            ours.append(measure(gateway_load, timeout=300.0, readers=readers, streams=streams, seconds=seconds))
            for app in APPS:
                if app != _SSE or has_sse_starlette():
                    theirs.setdefault(app, []).append(
                        measure(peer_load, timeout=300.0, app=app, readers=readers, seconds=seconds)
                    )
        _add_rows(table, f"{readers:,} readers", ours, theirs, readers * _RATE)
    if not has_sse_starlette():
        table.remarks.append("**sse-starlette is not installed**: it is among the development tools.")
    return [table]


def _add_rows(table: Table, size: str, ours: list[Result], theirs: dict[str, list[Result]], offered: float) -> None:
    for app, results in theirs.items():
        limit = _AIMS.get(app)
        aim = None if limit is None else Aim("times less", 1 / limit)
        samples = Samples.of(results, "token_us")
        table.rows.append(Row(f"{size}: CPU a token", "µs", Samples.of(ours, "token_us"), aim, app, samples))
    raw = theirs[_RAW]
    for what, unit, field in (
        ("CPU a frame on the wire", "µs", "frame_us"),
        ("delivered", f"tokens/s of {offered:,.0f}", "rate"),
        ("lateness p50", "ms", "p50_ms"),
        ("lateness p99", "ms", "p99_ms"),
        ("memory of the process", "MB", "rss_mb"),
    ):
        table.rows.append(Row(f"{size}: {what}", unit, Samples.of(ours, field), None, _RAW, Samples.of(raw, field)))
