"""New frames are sent without the reader's task where the server takes them at once, and never out of order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from penstock.config.gateway import GatewayOptions
from penstock.gateway.exchange import Exchange
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.reader import SseReader
from penstock.gateway.shelf import Shelf

STOP = Problem(status=503, type="server_error", code="draining", message="Stop.")
SCOPE = {"method": "GET", "path": "/", "headers": []}


class Cycle:
    """As uvicorn's: ``send`` waits before it writes, or not at all."""

    __module__ = "uvicorn.protocols.http.httptools_impl"

    def __init__(self) -> None:
        self.flow = SimpleNamespace(write_paused=False)
        self.room = asyncio.Event()
        self.room.set()
        self.bodies: list[bytes] = []
        self.senders: list[object] = []

    async def send(self, message: dict[str, Any]) -> None:
        await self.wait()
        if message.get("body"):
            self.bodies.append(message["body"])
            try:
                self.senders.append(asyncio.current_task())
            except RuntimeError:
                self.senders.append(None)

    async def wait(self) -> None:
        if not self.room.is_set():
            await self.room.wait()

    def pause(self, *, is_paused: bool) -> None:
        self.flow.write_paused = is_paused
        self.room.clear() if is_paused else self.room.set()


class Other(Cycle):
    """Of another server."""

    __module__ = "another.server"


def frame(seq: int) -> Frame:
    return Frame(seq, b"id: e-%d\nevent: x\ndata: {}\n\n" % seq)


class Reading:
    """A reader with a task that waits for frames."""

    def __init__(self, cycle: Cycle) -> None:
        async def receive() -> Any:
            raise NotImplementedError

        self.cycle = cycle
        shelf = Shelf(NativeProjection(Opening(stream_id="s", epoch="e", created=0)), 1_000_000)
        source: Any = SimpleNamespace(shelf=shelf, is_over=False, error=None)
        self.source = source
        exchange = Exchange(SCOPE, receive, cycle.send, GatewayOptions())
        self.reader = SseReader(source, exchange, 0)
        self.task = asyncio.create_task(self.reader.run(()))

    def come(self, *seqs: int) -> None:
        self.source.shelf.add([frame(seq) for seq in seqs])
        self.reader.take()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self) -> list[bytes]:
        self.source.is_over = True
        self.reader.take()
        await asyncio.wait_for(self.task, 10)
        return self.cycle.bodies


def all_of(count: int) -> bytes:
    return b"".join(frame(seq).data for seq in range(1, count + 1))


def test_frames_are_sent_at_once_by_the_one_that_has_them() -> None:
    async def run() -> None:
        reading = Reading(Cycle())
        await reading.settle()
        reading.come(1)
        assert reading.cycle.bodies == [frame(1).data]
        reading.come(2, 3)
        assert reading.cycle.senders == [asyncio.current_task()] * 2
        assert reading.reader.lag == 0
        assert b"".join(await reading.end()) == all_of(3)

    asyncio.run(run())


def test_frames_of_a_client_that_does_not_read_wait_and_come_in_order() -> None:
    async def run() -> None:
        reading = Reading(Cycle())
        await reading.settle()
        reading.cycle.pause(is_paused=True)
        reading.come(1)
        await reading.settle()
        assert not reading.cycle.bodies
        reading.come(2)
        reading.cycle.pause(is_paused=False)
        reading.come(3)  # its task has something to do: this must not overtake
        await reading.settle()
        assert b"".join(await reading.end()) == all_of(3)

    asyncio.run(run())


def test_a_reader_that_was_woken_for_something_else_sends_by_its_task() -> None:
    async def run() -> None:
        reading = Reading(Cycle())
        await reading.settle()
        reading.reader.cut(STOP)
        reading.come(1)
        assert not reading.cycle.bodies
        await asyncio.wait_for(reading.task, 10)
        first, last = reading.cycle.bodies
        assert first == frame(1).data
        assert b"event: cut" in last

    asyncio.run(run())


def test_a_send_that_waits_although_it_should_not_is_left_to_the_task() -> None:
    async def run() -> None:
        reading = Reading(Cycle())
        await reading.settle()
        reading.cycle.room.clear()  # the flow says that there is room
        reading.come(1)
        assert not reading.cycle.bodies
        reading.cycle.room.set()
        assert await reading.end() == [frame(1).data]

    asyncio.run(run())


def test_a_fault_in_sending_is_the_tasks_and_not_that_of_the_one_that_has_frames() -> None:
    async def run() -> None:
        cycle = Cycle()
        reading = Reading(cycle)
        await reading.settle()

        async def fail() -> None:
            raise ValueError("a fault")

        cycle.wait = fail  # type: ignore[method-assign]
        reading.come(1)
        await asyncio.wait([reading.task], timeout=10)
        assert isinstance(reading.task.exception(), ValueError)

    asyncio.run(run())


def test_frames_for_another_server_are_sent_by_the_task() -> None:
    async def run() -> None:
        reading = Reading(Other())
        await reading.settle()
        reading.come(1)
        assert not reading.cycle.bodies
        assert await reading.end() == [frame(1).data]
        assert reading.cycle.senders == [reading.task]

    asyncio.run(run())
