"""The asyncio face: opening, reading, cancelling without blocking a loop, a thousand readers on one, no loop at all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.loop_ticker import LoopTicker, ticker_of
from penstock.testing import ScriptedProvider, SimulatedSystem, eventually

FAST = penstock.StreamOptions(batch_size=1, flush_interval=0, rate_limit=None)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[penstock.System]:
    async with penstock.System(penstock.Settings()) as system:
        yield system


def test_a_conversation_from_beginning_to_end() -> None:
    async def main() -> None:
        async with running() as system:
            stream = await system.achat("echo", "Hello there", provider="loopback")
            texts = [text async for text in stream.atexts()]
            assert "Hello there" in "".join(texts)
            assert (await stream.aresult(10)).text == "".join(texts)
            async with system.agent("a", model="echo", provider="loopback") as agent:
                assert "Good day" in (await agent.achat("Good day", timeout=10)).text
            assert not agent.is_alive
        with pytest.raises(penstock.SystemStopped):
            await system.achat("echo", "Hello", provider="loopback")

    asyncio.run(main())


def test_a_response_too() -> None:
    async def main() -> None:
        async with running() as system:
            stream = await system.arespond("Hello there", "echo", provider="loopback")
            assert "Hello there" in (await stream.aresult(10)).text

    asyncio.run(main())


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_acancel_ends_the_stream_and_is_harmless_afterwards(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        async def main() -> None:
            stream = system.chat("m", "Hello", provider=ScriptedProvider(["a", 1000.0, "b"]))
            async for _ in stream:
                break
            await stream.acancel("enough")
            assert stream.is_over
            await stream.acancel("again")
            with pytest.raises(penstock.StreamCancelledError) as caught:
                await stream.aresult()
            assert caught.value.reason == "enough"

        system.run(main())


def test_acancel_says_when_the_stream_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running() as system:
            stream = system.open_stream()
            monkeypatch.setattr(type(stream._record), "propose", lambda *args, **more: False)
            with pytest.raises(penstock.CallTimeout):
                await stream.acancel(timeout=0.01)
            monkeypatch.undo()
            with pytest.raises(penstock.OptionError):
                await stream.acancel(timeout=-1)
            await stream.acancel()

    asyncio.run(main())


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_cancelling_the_reading_task_closes_the_providers_call(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        async def main() -> None:
            stream = system.chat("m", "Hello", provider=ScriptedProvider(["a", 1000.0, "b"]))
            began = asyncio.Event()

            async def read() -> None:
                async for _ in stream.atexts():
                    began.set()

            task = asyncio.create_task(read())
            await began.wait()
            assert stream.statistics().subscribers == 1
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert stream.statistics().subscribers == 0  # at once, although the task's exception still exists
            with pytest.raises(penstock.StreamCancelledError):
                await stream.aresult(1)

        system.run(main())


def test_a_stream_that_nobody_gets_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is cancelled while `achat` opens the stream."""

    async def main() -> None:
        async with running() as system:
            opened: list[penstock.Stream] = []
            entered, go_on = threading.Event(), threading.Event()
            real = penstock.System.chat

            def slow(self: Any, *args: Any, **more: Any) -> penstock.Stream:
                entered.set()
                assert go_on.wait(10)
                opened.append(real(self, *args, **more))
                return opened[0]

            monkeypatch.setattr(penstock.System, "chat", slow)
            task = asyncio.create_task(system.achat("lorem", "Hello", provider="loopback"))
            await asyncio.to_thread(entered.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            await asyncio.to_thread(eventually, lambda: opened)
            with pytest.raises(penstock.StreamCancelledError):
                await opened[0].aresult(10)

    asyncio.run(main())


def test_a_thousand_readers_are_woken_together() -> None:
    """Not one wake-up an event: 1,000 streams tell 20 events each, and the loop is woken by the tick."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        woken = 0
        real = loop.call_soon_threadsafe

        def counted(*args: Any, **more: Any) -> Any:
            nonlocal woken
            woken += 1
            return real(*args, **more)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign,assignment]
        async with running() as system:
            streams = [system.open_stream(None, FAST) for _ in range(1000)]
            ready = asyncio.Barrier(1001)

            async def read(stream: penstock.Stream) -> int:
                events = stream.events()
                await ready.wait()
                return sum([len(event.tokens) async for event in events if isinstance(event, penstock.TokenEvent)])

            readers = [asyncio.create_task(read(stream)) for stream in streams]
            await ready.wait()
            before, woken = ticker_of(loop).ticks, 0

            def feed() -> None:
                for _ in range(20):
                    for stream in streams:
                        stream.process_token("x")
                for stream in streams:
                    stream.sink().end()

            await asyncio.gather(asyncio.to_thread(feed), *readers)
            assert [task.result() for task in readers] == [20] * 1000
            ticks = ticker_of(loop).ticks - before
            assert woken <= ticks + 10
            assert ticks < 5000  # 20,000 events and 1,000 ends

    asyncio.run(main())


class TurnsLoop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def taken_a_turn(consumers: int, tokens: int, *, is_fed_meanwhile: bool) -> Counter[int]:
    """How many events the consumers of as many streams have taken in each turn of their loop, by its number."""
    taken: Counter[int] = Counter()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnsLoop)
        async with running() as system:
            streams = [system.open_stream(None, FAST) for _ in range(consumers)]
            go = asyncio.Event()

            async def read(stream: penstock.Stream) -> int:
                count, events = 0, stream.events(window=1000)
                await go.wait()
                async for event in events:
                    taken[loop.turns] += 1
                    count += isinstance(event, penstock.TokenEvent)
                return count

            readers = [asyncio.create_task(read(stream)) for stream in streams]
            await asyncio.sleep(0)

            def feed() -> None:
                for _ in range(tokens):
                    for stream in streams:
                        stream.process_token("x")
                for stream in streams:
                    stream.stop()

            feeding = asyncio.to_thread(feed)
            if not is_fed_meanwhile:
                await feeding
                await asyncio.to_thread(eventually, lambda: all(stream.is_over for stream in streams), 60)
            go.set()
            if is_fed_meanwhile:
                await feeding
            assert await asyncio.gather(*readers) == [tokens] * consumers

    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        runner.run(main())
    return taken


@pytest.mark.parametrize("is_fed_meanwhile", [False, True])
def test_a_thousand_consumers_take_few_events_in_one_turn_of_the_loop(is_fed_meanwhile: bool) -> None:
    taken = taken_a_turn(1000, 6, is_fed_meanwhile=is_fed_meanwhile)
    assert taken.total() == 1000 * 7
    # Each turn: 50 without waiting, and one each of those that were woken in it and in the one before.
    assert max(taken.values()) <= 50 + 2 * 25


def test_one_consumer_with_much_to_take_leaves_the_loop_to_others() -> None:
    taken = taken_a_turn(1, 900, is_fed_meanwhile=False)
    assert taken.total() == 901
    assert max(taken.values()) <= 51


# --- the ticker ------------------------------------------------------------------------------------------------------


def test_few_are_woken_at_once_and_many_once_a_tick() -> None:
    with SimulatedSystem(1) as system:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            ticker = LoopTicker(loop)
            start = loop.time()

            async def wait_for(count: int) -> float:
                futures = [loop.create_future() for _ in range(count)]
                for future in futures:
                    ticker.note(future)
                await asyncio.gather(*futures)
                return loop.time() - start

            for _ in range(5):
                assert await wait_for(10) == 0.0
            assert await wait_for(1000) == 0.0  # after a few
            assert await wait_for(1000) == pytest.approx(0.005)
            assert await wait_for(3) == pytest.approx(0.010)
            assert await wait_for(1000) == pytest.approx(0.010)
            assert ticker.ticks == 9

        system.run(main())


def test_no_turn_sets_more_than_25_though_further_ticks_come_meanwhile() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnsLoop)
        ticker = LoopTicker(loop)
        seen: Counter[int] = Counter()

        def noted(count: int) -> list[asyncio.Future[None]]:
            futures = [loop.create_future() for _ in range(count)]
            for future in futures:
                future.add_done_callback(lambda _: seen.update([loop.turns]))
                ticker.note(future)
            return futures

        first = noted(200)
        ticker._tick(loop)
        second = noted(200)
        ticker._tick(loop)  # as the first one has not yet set all
        third = [ticker.turn(loop) for _ in range(100)]
        for future in third:
            future.add_done_callback(lambda _: seen.update([loop.turns]))
        await asyncio.gather(*first, *second, *third)
        assert seen.total() == 500
        assert max(seen.values()) <= 25

    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        runner.run(main())


def test_a_future_that_was_cancelled_and_a_loop_that_was_closed_are_harmless() -> None:
    async def main() -> LoopTicker:
        loop = asyncio.get_running_loop()
        ticker = ticker_of(loop)
        assert ticker_of(loop) is ticker
        gone = loop.create_future()
        gone.cancel()
        ticker.note(gone)
        await asyncio.sleep(0)
        return ticker

    ticker = asyncio.run(main())
    loop = ticker.loop()
    if loop is not None:
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        ticker.note(future)
        assert not future.done()
    del loop
    assert asyncio.run(main()) is not ticker


# --- without a loop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        lambda system, stream: stream.aresult(),
        lambda system, stream: stream.acancel(),
        lambda system, stream: anext(aiter(stream)),
        lambda system, stream: anext(aiter(stream.atexts())),
        lambda system, stream: system.achat("echo", "Hello", provider="loopback"),
        lambda system, stream: system.__aenter__(),
        lambda system, stream: system.agent("a", model="echo", provider="loopback").__aenter__(),
    ],
    ids=["aresult", "acancel", "anext", "atexts", "achat", "System", "Agent"],
)
def test_another_async_library_is_refused_clearly(start: Any) -> None:
    """As trio would, this drives the coroutine itself, and no asyncio loop runs."""
    with penstock.System(penstock.Settings()) as system:
        stream = system.open_stream()
        waiting = start(system, stream)
        with pytest.raises(RuntimeError, match=r"need a running asyncio event loop.*trio\.to_thread"):
            waiting.__await__().send(None)
        stream.cancel()
