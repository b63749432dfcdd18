"""A request that is sent several times is carried out once, whichever of its callers goes."""

from __future__ import annotations

import asyncio

import pytest

from penstock.gateway.idempotency import Once
from penstock.gateway.problems import RequestRefused


class Run:
    """What is carried out; it ends when it may."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.count = 0
        self.fault = fault
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self) -> str:
        self.count += 1
        self.has_begun.set()
        await self.may_end.wait()
        if self.fault is not None:
            raise self.fault
        return f"result {self.count}"


def test_a_first_caller_that_is_cancelled_takes_nothing_from_the_second() -> None:
    async def main() -> None:
        once: Once[str] = Once()
        run = Run()
        first, second = (asyncio.ensure_future(once.once("key", b"body", run)) for _ in range(2))
        await asyncio.wait_for(run.has_begun.wait(), 10)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        run.may_end.set()
        assert await asyncio.wait_for(second, 10) == ("result 1", False)
        assert await once.once("key", b"body", run) == ("result 1", False)
        with pytest.raises(RequestRefused):
            await once.once("key", b"another", run)

    asyncio.run(main())


def test_a_run_that_fails_fails_for_all_its_callers_and_is_forgotten() -> None:
    async def main() -> None:
        once: Once[str] = Once()
        run = Run(ValueError("a fault"))
        callers = [asyncio.ensure_future(once.once("key", b"body", run)) for _ in range(3)]
        await asyncio.wait_for(run.has_begun.wait(), 10)
        callers[0].cancel()
        run.may_end.set()
        await asyncio.wait(callers)
        assert callers[0].cancelled()
        assert [type(each.exception()) for each in callers[1:]] == [ValueError] * 2
        run.fault = None
        assert await once.once("key", b"another", run) == ("result 2", True)

    asyncio.run(main())
