"""What the dashboard costs with many streams: bytes of the snapshot, bytes a second, CPU time of each frame."""

from __future__ import annotations

import asyncio
import time
from statistics import mean, median
from typing import Any, Final

import penstock
from benchmarks.probe import measure
from benchmarks.tables import Aim, Row, Samples, Table
from penstock.gateway.asgi import Gateway
from penstock.gateway.board.desk import BoardDesk
from penstock.gateway.board.series import LENGTH
from penstock.gateway.projections.frames import encode

__all__ = ["load", "run"]

_STREAMS: Final = 300
_ABOUT: Final = (
    f"{_STREAMS} streams that get 24 to 36 tokens a second each, and a plot of 15 minutes. CPU time of the event loop's"
    " thread: for one frame of `$board` with its encoding, two each second; and for the sample taken each second."
)


def load(streams: int, frames: int, pause: float) -> dict[str, float]:
    """Watch a system with busy streams; returns bytes and milliseconds by name. ``pause``: seconds between frames."""
    with penstock.System() as system:
        opened = [system.open_stream(stream_id=f"s-{number:016x}") for number in range(streams)]
        return asyncio.run(_watch(system, opened, frames, pause))


async def _watch(system: penstock.System, opened: list[penstock.Stream], frames: int, pause: float) -> dict[str, float]:
    gateway = Gateway(system)
    gateway.start()
    desk = BoardDesk(gateway)
    topic: Any = desk.topic("$board")
    topic.begin()
    sizes, times, samples = [], [], []
    try:
        await topic.step()
        for number in range(frames):
            for place, stream in enumerate(opened):
                stream.process_tokens(["word "] * (12 + (place + number) % 7))
            await asyncio.sleep(pause)
            began = time.thread_time()
            frame = encode({"sid": "$board", "type": "patch", **await topic.step()})
            times.append(time.thread_time() - began)
            sizes.append(len(frame))
            began = time.thread_time()
            desk.sampler.sample()
            samples.append(time.thread_time() - began)
        for second in range(1, LENGTH + 1):
            point = (14_757 + second, 410 + second % 90, 27.5, len(opened))
            desk.sampler.series.add(int(time.time()) + second, point)
        snapshot = topic.snapshot()
    finally:
        topic.end()
        desk.close()
        await gateway.close()
    return {
        "snapshot": len(snapshot) / 1000,
        "speed": 2 * mean(sizes) / 1000,
        "frame": median(times) * 1000,
        "sample": median(samples) * 1000,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Measure the dashboard."""
    results = [
        measure(load, streams=_STREAMS, frames=2 if quick else 20, pause=0.05 if quick else 0.5) for _ in range(rounds)
    ]
    rows = [
        Row("the snapshot", "KB", Samples.of(results, "snapshot"), Aim("at most", 40)),
        Row("changes, each second", "KB", Samples.of(results, "speed"), Aim("at most", 15)),
        Row("a frame", "ms", Samples.of(results, "frame"), Aim("at most", 2)),
        Row("a sample", "ms", Samples.of(results, "sample")),
    ]
    return [Table("The dashboard", _ABOUT, rows)]
