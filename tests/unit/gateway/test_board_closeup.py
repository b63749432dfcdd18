"""The timeline of one stream on the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import penstock
from penstock.gateway.board.closeup import StreamTopic

OPENED = ["state", "start → idle"]
ENDED = ["state", "idle → ended"]
END = ["end", "completed"]


class Ticking:
    """A clock that moves on by two milliseconds whenever it is read."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        self._now += 0.002
        return self._now

    time = monotonic


class Watched:
    """A record and its log that call back when an event is read: before, and after if there was none."""

    def __init__(self, record: Any, before: Callable[[], object], after: Callable[[], object]) -> None:
        self._record, self._log, self._before, self._after = record, record.log, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record if hasattr(self._record, name) else self._log, name)

    @property
    def log(self) -> Any:
        return self

    def get(self, seq: int) -> Any:
        self._before()
        event = self._log.get(seq)
        if event is None:
            self._after()
        return event


@pytest.fixture
def system() -> Iterator[penstock.System]:
    with penstock.System() as running:
        yield running


def topic_of(system: penstock.System, stream: penstock.Stream) -> StreamTopic:
    gateway: Any = SimpleNamespace(system=system, reader_infos=lambda: ())
    return StreamTopic(gateway, stream._record)


def lines_of(topic: StreamTopic, steps: int = 1) -> list[list[str]]:
    """What the lines say, without their times, as they came in so many steps."""
    found: list[list[str]] = []
    for _ in range(steps):
        made = asyncio.run(topic.step())
        found += [line[1:3] for line in (made or {}).get("lines", ())]
    assert found == [line[1:3] for line in topic.whole()["lines"]]
    return found


def test_the_end_is_the_last_line_although_the_state_changes_after_its_time(system: penstock.System) -> None:
    system.runtime.clock = Ticking()
    stream = system.open_stream()
    stream.stop()
    assert lines_of(topic_of(system, stream)) == [OPENED, ENDED, END]


def test_the_end_is_the_last_line_in_whichever_moment_it_comes(system: penstock.System) -> None:
    for when in ("before", "after"):
        stream = system.open_stream()
        topic = topic_of(system, stream)
        ends: dict[str, Callable[[], object]] = {"before": str, "after": str, when: stream.stop}
        topic.record = Watched(stream._record, **ends)  # type: ignore[assignment]
        assert lines_of(topic, steps=2) == [OPENED, ENDED, END]
