"""The ticker handles news together, at once after a silence, and at most once a tick."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from penstock.gateway.ticker import Ticker


class Counted:
    def __init__(self, ticker: Ticker) -> None:
        self.ticker = ticker
        self.at: list[float] = []
        self.thread: int | None = None
        self.pumped = asyncio.Event()

    def pump(self) -> None:
        self.at.append(self.ticker.loop.time())
        self.thread = threading.get_ident()
        self.pumped.set()


async def _threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)


def test_news_of_many_threads_is_handled_on_the_loop_in_few_ticks() -> None:
    async def main() -> None:
        ticker = Ticker(asyncio.get_running_loop(), 0.01)
        one = Counted(ticker)

        def work() -> None:
            for _ in range(500):
                ticker.note(one)

        await _threads(8, work)
        while len(one.at) < 4_000:
            one.pumped.clear()
            await asyncio.wait_for(one.pumped.wait(), 10)
        assert one.thread == threading.get_ident()
        assert ticker.ticks < 1_000
        ticker.close()

    asyncio.run(main())


def test_news_after_a_silence_does_not_wait_for_a_tick() -> None:
    async def main() -> None:
        ticker = Ticker(asyncio.get_running_loop(), 60.0)
        one = Counted(ticker)
        ticker.note(one)
        await asyncio.wait_for(one.pumped.wait(), 10)
        one.pumped.clear()
        ticker.note(one)  # waits for the tick, a minute later
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(one.at) == 1
        ticker.close()

    asyncio.run(main())


class Faulty(Counted):
    def pump(self) -> None:
        super().pump()
        raise ValueError("a fault")


def test_a_fault_in_handling_one_is_logged_and_keeps_no_other_one(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        unhandled: list[object] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        ticker = Ticker(loop, 0.0)
        faulty, one = Faulty(ticker), Counted(ticker)
        ticker.note(faulty)
        ticker.note(one)
        await asyncio.wait_for(faulty.pumped.wait(), 10)
        assert len(one.at) == 1
        assert not unhandled
        ticker.close()

    asyncio.run(main())
    assert ["pump_failed" in each.getMessage() for each in caplog.records] == [True]


def test_a_closed_ticker_handles_nothing() -> None:
    async def main() -> None:
        ticker = Ticker(asyncio.get_running_loop(), 0.0)
        one = Counted(ticker)
        ticker.close()
        ticker.note(one)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not one.at

    asyncio.run(main())


def test_a_ticker_whose_loop_is_closed_takes_news_without_an_error() -> None:
    loop = asyncio.new_event_loop()
    ticker = Ticker(loop, 0.0)
    loop.close()
    ticker.note(Counted(ticker))
