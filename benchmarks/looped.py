"""A thousand ``async for`` consumers on one event loop, beside plain asyncio queues that a thread feeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.probe import Meter, ProbeError, Result, measure
from benchmarks.tables import Row, Samples, Table
from penstock import SAFE, System, TokenEvent
from penstock.config.settings import Settings

__all__ = ["penstock_load", "queue_load", "run"]


def penstock_load(consumers: int, tokens: int, rate: float) -> Result:
    """Feed ``consumers`` streams from a thread, ``rate`` tokens a second each, and read each with ``async for``."""

    async def main() -> Result:
        async with System(Settings()) as system:
            streams = [system.open_stream(None, SAFE) for _ in range(consumers)]
            late: list[float] = []

            async def read(events: Any) -> int:
                count = 0
                async for event in events:
                    if isinstance(event, TokenEvent):
                        late.append(time.perf_counter() - float(event.tokens[0]))
                        count += len(event.tokens)
                return count

            readers = [asyncio.ensure_future(read(stream.events())) for stream in streams]
            pushes = [stream.process_token for stream in streams]
            ends = [stream.sink().end for stream in streams]
            return await _measured(readers, pushes, ends, late, tokens, rate)

    return asyncio.run(main())


def queue_load(consumers: int, tokens: int, rate: float) -> Result:
    """The same with an `asyncio.Queue` each, which the thread fills by ``call_soon_threadsafe``."""

    async def main() -> Result:
        loop = asyncio.get_running_loop()
        queues: list[asyncio.Queue[str | None]] = [asyncio.Queue() for _ in range(consumers)]
        late: list[float] = []

        async def read(queue: asyncio.Queue[str | None]) -> int:
            count = 0
            while (token := await queue.get()) is not None:
                late.append(time.perf_counter() - float(token))
                count += 1
            return count

        def pusher(queue: asyncio.Queue[str | None]) -> Callable[[str | None], object]:
            return lambda token: loop.call_soon_threadsafe(queue.put_nowait, token)

        readers = [asyncio.ensure_future(read(queue)) for queue in queues]
        pushes = [pusher(queue) for queue in queues]
        ends = [partial(push, None) for push in pushes]
        return await _measured(readers, pushes, ends, late, tokens, rate)

    return asyncio.run(main())


async def _measured(
    readers: Sequence[Awaitable[int]],
    pushes: Sequence[Callable[[str], object]],
    ends: Sequence[Callable[[], object]],
    late: list[float],
    tokens: int,
    rate: float,
) -> Result:
    """Feed all, and look how long the loop is held meanwhile."""
    holds = [0.0]

    async def probe() -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(0.01)
            holds.append(loop.time() - asked - 0.01)

    def feed() -> None:
        start = time.perf_counter()
        for number in range(tokens):
            for push in pushes:
                push(repr(time.perf_counter()))
            time.sleep(max(0.0, start + (number + 1) / rate - time.perf_counter()))
        for end in ends:
            end()

    await asyncio.sleep(0.1)
    probing = asyncio.create_task(probe())
    with Meter() as meter:
        *counts, _ = await asyncio.gather(*readers, asyncio.to_thread(feed))
    probing.cancel()
    if counts != [tokens] * len(readers):
        raise ProbeError("a consumer did not get every token")
    late.sort()
    holds.sort()
    total = tokens * len(readers)
    return {
        "cpu": meter.cpu / total * 1e6,
        "p50": late[len(late) // 2] * 1e3,
        "p99": late[int(len(late) * 0.99)] * 1e3,
        "hold": holds[int(len(holds) * 0.99)] * 1e3,
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    consumers, tokens, rate = (100, 20, 10.0) if quick else (1000, 50, 10.0)
    ours = [measure(penstock_load, consumers=consumers, tokens=tokens, rate=rate) for _ in range(rounds)]
    theirs = [measure(queue_load, consumers=consumers, tokens=tokens, rate=rate) for _ in range(rounds)]
    table = Table(
        f"{consumers:,} consumers on one event loop",
        f"`async for` over {consumers:,} streams, {rate:g} tokens a second each, beside an `asyncio.Queue` each that"
        " the same thread fills by `call_soon_threadsafe`. A stream is a supervised actor with a log, a buffer and"
        " counters; a queue is a queue.",
    )
    for what, field, unit in (
        ("CPU a token", "cpu", "µs"),
        ("median latency", "p50", "ms"),
        ("p99 latency", "p99", "ms"),
        ("the loop is held, p99", "hold", "ms"),
    ):
        table.rows.append(Row(what, unit, Samples.of(ours, field), None, "asyncio.Queue", Samples.of(theirs, field)))
    return [table]
