"""How many objects a stream is that Python's garbage collector has to look at: its cost grows with their number."""

from __future__ import annotations

import contextvars
import gc
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

import penstock
from penstock.testing import eventually

STREAMS: Final = 50
PATIENCE: Final = 20.0
OPTIONS: Final = penstock.StreamOptions(rate_limit=None, keep_finished=60.0)
RUNNING: Final = 27
ENDED: Final = 19


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def looked_at() -> Counter[str]:
    """What the collector knows, by type."""
    return Counter(type(one).__name__ for one in gc.get_objects())


def per_stream(before: Counter[str]) -> dict[str, int]:
    """How many more there are of each type, for each stream."""
    return {name: more for name, count in (looked_at() - before).items() if (more := round(count / STREAMS))}


@pytest.mark.usefixtures("no_collector")
def test_a_stream_is_few_objects_while_it_runs_and_fewer_once_it_has_ended() -> None:
    with penstock.System() as system:
        for _ in range(3):  # what is made with the first stream
            system.open_stream(options=OPTIONS).stop()
        before = looked_at()
        streams = contextvars.Context().run(lambda: [system.open_stream(options=OPTIONS) for _ in range(STREAMS)])
        running = per_stream(before)
        for stream in streams:
            stream.stop()
        del stream
        eventually(lambda: all(stream._record.ref is None for stream in streams), PATIENCE, "no actor")
        ended = per_stream(before)
    assert sum(running.values()) <= RUNNING, running
    assert sum(ended.values()) <= ENDED, ended
