"""What a gateway's core does when something in it fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.config.settings import Settings
from penstock.errors import StreamExists
from penstock.gateway.asgi import Gateway
from penstock.gateway.core import DRAINING
from penstock.gateway.keys import ANONYMOUS
from penstock.testing import eventually


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System(Settings()) as running:
        yield running


class Reader:
    """A reader that notes what is done with it, and may fail at that."""

    key = None
    is_reading = False
    protocols = ()

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.done: set[str] = set()

    def _do(self, what: str) -> None:
        self.done.add(what)
        if self.fails:
            raise ValueError("a fault")

    def look(self, now: float) -> None:
        self._do("look")

    def infos(self) -> tuple[Any, ...]:
        return ()

    def cut(self, problem: Any) -> None:
        assert problem is DRAINING
        self._do("cut")

    def abandon(self) -> None:
        self._do("abandon")


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [each for each in caplog.records if name in each.getMessage()]


def test_a_reader_that_fails_keeps_no_other_one_from_being_looked_after_and_ended(
    system: penstock.System, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gateway = Gateway(system)
        gateway.start()
        readers: list[Any] = [Reader(fails=fails) for fails in (True, False, True, False)]
        gateway.readers.update(readers)
        gateway._look_after(0.0)
        await gateway.end_readers(0.0)
        assert [each.done for each in readers] == [{"look", "cut", "abandon"}] * 4
        await gateway.close()

    monkeypatch.setattr("penstock.gateway.core._LAST_MOMENT", 0.0)
    asyncio.run(main())
    assert len(logged(caplog, "reader_failed")) == 2 * 4  # to look, to cut, to abandon, and to cut when it is closed


@pytest.mark.parametrize("error", [ValueError("a fault"), StreamExists("s1")])
def test_an_error_that_nothing_waits_for_is_logged(
    system: penstock.System, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    may_end = threading.Event()

    def fail() -> Any:
        assert may_end.wait(10)
        raise error

    async def main() -> None:
        has_begun, tell = asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe

        def begin() -> Any:
            tell(has_begun.set)
            fail()

        gateway = Gateway(system)
        gateway.start()
        gateway.later(fail)
        entering = asyncio.ensure_future(gateway.enter(ANONYMOUS, begin, lambda channel: channel))
        await asyncio.wait_for(has_begun.wait(), 10)
        entering.cancel()
        await asyncio.wait([entering])
        may_end.set()
        await asyncio.wait(gateway._unread)
        assert not gateway._unread
        await gateway.close()

    asyncio.run(main())
    eventually(lambda: len(logged(caplog, "unheard_error")) == 2)


class Server:
    """As an ASGI server that runs a lifespan."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.sent: list[str] = []
        self.started = asyncio.Event()
        self.may_stop = asyncio.Event()
        self._received = 0

    async def receive(self) -> dict[str, str]:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        self.started.set()
        await self.may_stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: dict[str, str]) -> None:
        self.sent.append(message["type"].removeprefix("lifespan."))
        if self.sent[-1] == self.fails_at:
            raise OSError("the server has gone")


@pytest.mark.parametrize("way", ["cancelled", "startup.complete", "shutdown.complete", ""])
def test_whatever_ends_a_lifespan_closes_the_gateway(system: penstock.System, way: str) -> None:
    async def main() -> None:
        gateway = Gateway(system)
        server = Server(way)
        running = asyncio.ensure_future(gateway({"type": "lifespan"}, server.receive, server.send))
        await asyncio.wait([running, asyncio.ensure_future(server.started.wait())], return_when="FIRST_COMPLETED")
        if way == "cancelled":
            running.cancel()
        server.may_stop.set()
        await asyncio.wait([running])
        assert running.cancelled() == (way == "cancelled")
        assert gateway.is_ending
        assert gateway._sweeper is None
        with pytest.raises(RuntimeError):
            gateway.later(print)
        server.started.set()

    asyncio.run(main())


def test_a_gateway_that_cannot_start_says_why_and_keeps_nothing(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        def fail(*given: Any) -> Any:
            raise OSError("no threads")

        gateway = Gateway(system)
        server = Server()
        with monkeypatch.context() as patch:
            patch.setattr("penstock.gateway.core.ThreadPoolExecutor", fail)
            with pytest.raises(OSError, match="no threads"):
                await gateway({"type": "lifespan"}, server.receive, server.send)
        assert server.sent == ["startup.failed"]
        gateway.start()
        assert await gateway.in_thread(threading.current_thread) is not threading.current_thread()
        await gateway.close()

    asyncio.run(main())
