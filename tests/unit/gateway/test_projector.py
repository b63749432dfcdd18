"""A fault in handling a stream's news ends its readers, and only those that it must end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.config.settings import Settings
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.projector import Projector
from penstock.gateway.ticker import Ticker


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System(Settings()) as running:
        yield running


class Reader:
    def __init__(self, fault: Exception | None = None) -> None:
        self.woken = asyncio.Event()
        self.fault = fault

    def wake(self) -> None:
        self.woken.set()
        if self.fault is not None:
            raise self.fault


def projector_of(stream: penstock.Stream, ticker: Ticker) -> Projector:
    opening = Opening(stream_id=stream.stream_id, epoch="e", created=0)
    return Projector(stream._record, NativeProjection(opening), ticker, 1_000_000)


def test_a_reader_that_cannot_be_woken_keeps_no_other_one(
    system: penstock.System, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stream = system.open_stream(on_orphan="continue")
        ticker = Ticker(asyncio.get_running_loop(), 0.0)
        projector = projector_of(stream, ticker)
        faulty, other = Reader(ValueError("a fault")), Reader()
        projector.attach(faulty, faulty.wake)
        projector.attach(other, other.wake)
        faulty.woken.clear()
        other.woken.clear()
        stream.process_token("Hi.")
        stream.flush_buffer()
        await asyncio.wait_for(other.woken.wait(), 10)
        assert faulty.woken.is_set()
        assert projector.error is None
        projector.detach(faulty)
        projector.detach(other)
        ticker.close()
        stream.cancel()

    asyncio.run(main())
    assert any("reader_failed" in each.getMessage() for each in caplog.records)


def test_a_fault_after_the_frames_were_made_ends_the_readers(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> None:
        raise ValueError("a fault")

    async def main() -> None:
        stream = system.open_stream(on_orphan="continue")
        ticker = Ticker(asyncio.get_running_loop(), 0.0)
        projector = projector_of(stream, ticker)
        reader = Reader()
        projector.attach(reader, reader.wake)
        reader.woken.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Projector, "unsubscribe", fail)
            stream.stop()
            await asyncio.wait_for(reader.woken.wait(), 10)
        assert projector.is_over
        assert projector.error is None, "the readers have everything"
        ticker.close()

    asyncio.run(main())
    assert any("projection_failed" in each.getMessage() for each in caplog.records)
