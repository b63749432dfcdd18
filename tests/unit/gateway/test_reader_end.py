"""How the response of one reader ends: by its stream's end, by being cut, and what counts as behind."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from penstock.config.gateway import GatewayOptions
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.reader import SseReader
from penstock.gateway.shelf import Shelf

STOP = Problem(status=503, type="server_error", code="draining", message="Stop.")


class Exchange:
    """Keeps what is sent; ``after_send`` is called after each piece."""

    def __init__(self) -> None:
        self.options = GatewayOptions()
        self.headers: dict[str, str] = {}
        self.sent: list[bytes] = []
        self.is_ended = False
        self.after_send: Any = lambda: None

    async def start(self, status: int, headers: Any) -> None:
        pass

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.after_send()
        await asyncio.sleep(0)

    async def end(self, data: bytes = b"") -> None:
        self.is_ended = True


def frame(seq: int) -> Frame:
    return Frame(seq, b"id: e-%d\nevent: x\ndata: {}\n\n" % seq)


def projector(frames: int) -> Any:
    projection = NativeProjection(Opening(stream_id="s", epoch="e", created=0))
    shelf = Shelf(projection, 1_000_000)
    shelf.add([frame(seq) for seq in range(1, frames + 1)])
    return SimpleNamespace(shelf=shelf, is_over=False, error=None)


def test_a_reader_of_a_stream_that_never_pauses_is_cut_after_the_frames_that_there_were() -> None:
    async def run() -> None:
        source, exchange = projector(1), Exchange()

        def one_more() -> None:
            source.shelf.add([frame(source.shelf.end + 1)])
            assert source.shelf.end < 100, "it is never cut"

        exchange.after_send = one_more
        reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
        reader.cut(STOP)
        await reader.run(())
        *frames, cut = exchange.sent
        assert b"".join(frames) == frame(1).data
        assert b"event: cut" in cut
        assert exchange.is_ended

    asyncio.run(run())


def test_a_reader_that_has_the_streams_end_is_not_cut() -> None:
    async def run() -> None:
        source, exchange = projector(2), Exchange()
        source.is_over = True
        reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
        reader.cut(STOP)
        await reader.run(())
        assert b"".join(exchange.sent) == frame(1).data + frame(2).data
        assert exchange.is_ended

    asyncio.run(run())


def test_a_reader_that_begins_at_the_end_is_not_behind() -> None:
    async def run() -> None:
        source = projector(3)
        assert SseReader(source, Exchange(), source.shelf.end).lag == 0  # type: ignore[arg-type]
        assert SseReader(source, Exchange(), 1).lag > 0  # type: ignore[arg-type]

    asyncio.run(run())
