"""Iterators over a stream: alive while they are used, and gone with what drops them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator

import pytest

import penstock
from penstock.testing import SimulatedSystem, eventually

STEADY = penstock.StreamOptions(batch_size=1, rate_limit=None)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What must let go has to do so by itself."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_an_iterator_that_is_held_by_its_call_only_waits_for_the_next_event() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        stream.process_token("a")
        assert stream.events().next(timeout=5).seq == 1
        assert next(stream.events()).seq == 1


def test_an_async_iterator_that_is_held_by_its_call_only_waits_for_the_next_event() -> None:
    async def first(stream: penstock.Stream) -> int:
        return (await anext(stream.aevents())).seq

    with penstock.System() as system:
        stream = system.open_stream("s", STEADY)
        stream.process_token("a")
        assert asyncio.run(first(stream)) == 1


@pytest.mark.parametrize("read_before", [0, 1])
def test_a_cancelled_reader_lets_go_though_its_task_and_exception_are_kept(
    read_before: int, without_collector: None
) -> None:
    async def read(stream: penstock.Stream, got: list[int]) -> None:
        async for event in stream:
            got.append(event.seq)  # noqa: PERF401 - the loop is what is tested

    async def main(stream: penstock.Stream) -> tuple[asyncio.Task[None], BaseException]:
        got: list[int] = []
        task = asyncio.create_task(read(stream, got))
        while len(got) < read_before or not stream._record.hub.subscribers:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        (kept,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(kept, asyncio.CancelledError)
        return task, kept

    with penstock.System() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        for _ in range(read_before):
            stream.process_token("a")
        kept = asyncio.run(main(stream))
        eventually(lambda: stream.is_over)
        assert kept


def test_a_heartbeat_around_the_next_event_does_not_end_the_reader() -> None:
    async def main(stream: penstock.Stream) -> list[str]:
        seen: list[str] = []
        events = stream.aevents()
        waiting = asyncio.ensure_future(events.__anext__())
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting), 0.01)
            seen.append("beat")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(events.__anext__(), 0.01)
        stream.process_token("a")
        seen.append(type(await waiting).__name__)
        stream.process_token("b")
        seen.append(type(await anext(events)).__name__)
        return seen

    with penstock.System() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        seen = asyncio.run(main(stream))
        assert (seen[:3], seen[-2:]) == (["beat"] * 3, ["TokenEvent", "TokenEvent"])


def test_an_interrupted_loop_lets_go_though_the_exception_is_kept(
    monkeypatch: pytest.MonkeyPatch, without_collector: None
) -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, on_orphan="cancel")
        stream.process_token("a")
        dispatcher = system.simulation.dispatcher

        def interrupted(latch: object, timeout: float | None) -> bool:
            raise KeyboardInterrupt

        def loop() -> None:
            for _ in stream:
                monkeypatch.setattr(dispatcher, "wait", interrupted)

        with pytest.raises(KeyboardInterrupt) as kept:
            loop()
        monkeypatch.undo()
        system.advance(1)
        assert stream.is_over
        assert kept.value.__traceback__ is not None
