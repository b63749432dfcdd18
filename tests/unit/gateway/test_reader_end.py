"""How the response of one reader ends: by its stream's end, by being cut, and what counts as behind."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.config.gateway import GatewayOptions
from penstock.events import TokenEvent
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


def test_what_there_was_when_a_reader_began_is_not_behind() -> None:
    async def run() -> None:
        source = projector(3)
        late, live = (SseReader(source, Exchange(), place) for place in (1, source.shelf.end))  # type: ignore[arg-type]
        assert (late.lag, live.lag) == (0, 0)
        source.shelf.add([frame(4)])
        assert late.lag == live.lag == len(frame(4).data)

    asyncio.run(run())


LONG_AFTER = 1_000_000.0  # seconds


def test_a_reader_is_stuck_only_while_it_is_sent_something() -> None:
    async def run() -> None:
        source, exchange = projector(0), Exchange()
        waits = asyncio.Event()

        async def until_taken(data: bytes) -> None:
            waits.set()
            await asyncio.get_running_loop().create_future()

        exchange.send = until_taken  # type: ignore[method-assign]
        reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
        task = reader._task = asyncio.ensure_future(reader.run(()))
        source.shelf.add([frame(1)])
        reader.look(asyncio.get_running_loop().time() + LONG_AFTER)
        assert not reader.is_abandoned, "it was sent nothing, so that it could not take anything"
        reader.wake()
        await waits.wait()
        reader.look(asyncio.get_running_loop().time() + LONG_AFTER)
        assert reader.is_abandoned
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())


@pytest.mark.parametrize("part", ["start", "send", "end"])
def test_a_client_that_takes_no_part_of_a_response_is_cut_off_once(part: str) -> None:
    async def run() -> None:
        source, exchange = projector(1), Exchange()
        source.is_over = True
        waits = asyncio.Event()

        async def until_taken(*given: Any) -> None:
            waits.set()
            await asyncio.get_running_loop().create_future()

        async def serve() -> bool:
            reader._task = asyncio.current_task()
            try:
                await reader.run(())
            except asyncio.CancelledError:
                return reader.is_own_end()
            return False

        setattr(exchange, part, until_taken)
        reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
        task = asyncio.ensure_future(serve())
        await waits.wait()
        for _ in range(2):
            reader.look(asyncio.get_running_loop().time() + LONG_AFTER)
            assert (reader.is_abandoned, task.cancelling()) == (True, 1)
        await asyncio.wait([task])
        assert task.result()
        assert task.cancelling() == 0

    asyncio.run(run())


def test_a_task_that_is_cancelled_by_others_too_ends_as_cancelled() -> None:
    async def run() -> None:
        async def serve() -> bool:
            reader = SseReader(projector(0), Exchange(), 0)  # type: ignore[arg-type]
            readers.append(reader)
            has_begun.set()
            try:
                await reader.run(())
            except asyncio.CancelledError:
                return reader.is_own_end()
            return True

        readers: list[SseReader] = []
        for by_reader in (True, False):
            has_begun = asyncio.Event()
            task = asyncio.ensure_future(serve())
            await asyncio.wait_for(has_begun.wait(), 10)
            if by_reader:
                readers[-1].abandon()
            task.cancel()
            await asyncio.wait([task])
            assert not task.result()

    asyncio.run(run())


def test_an_answer_that_is_not_streamed_may_take_any_time() -> None:
    async def run() -> None:
        source, exchange = projector(0), Exchange()
        has_begun = asyncio.Event()
        source.attach = lambda *given: has_begun.set()
        source.detach = lambda *given: None

        async def until_left() -> None:
            await asyncio.get_running_loop().create_future()

        exchange.until_left = until_left  # type: ignore[attr-defined]
        exchange.options = GatewayOptions(slow="disconnect", reader_bytes=1_000)
        reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
        waiting = asyncio.ensure_future(reader.until_over())
        await asyncio.wait_for(has_begun.wait(), 10)
        source.shelf.add([frame(seq) for seq in range(1, 200)])
        reader.look(asyncio.get_running_loop().time() + LONG_AFTER)
        assert not reader.is_abandoned
        assert reader.must_end is None
        source.is_over = True
        reader.wake()
        await waiting
        await reader.close()

    asyncio.run(run())


def test_a_reader_holds_a_bounded_part_of_what_it_has_to_send() -> None:
    async def run() -> None:
        for retain in (10_000, 10_000_000):  # most of it old and joined, or all of it as single frames
            projection = NativeProjection(Opening(stream_id="s", epoch="e", created=0))
            source, exchange = projector(0), Exchange()
            source.shelf, source.is_over = Shelf(projection, retain), True
            for seq in range(1, 1_001):
                token = TokenEvent("s", seq, ("w" * 2_000,), "w" * 2_000, "text", 0.0, {})
                source.shelf.add(projection.feed(token))
            reader = SseReader(source, exchange, 0)  # type: ignore[arg-type]
            await reader.run(())
            sent = b"".join(exchange.sent)
            assert sent.count(b"w") == 2_000_000
            assert len(exchange.sent) > 5
            assert max(map(len, exchange.sent)) < 300_000

    asyncio.run(run())
