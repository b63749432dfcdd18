"""A system that is dropped without stop() warns, and leaves no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import penstock
from penstock.testing import eventually


def untouched() -> None:
    penstock.System(penstock.Settings())


def started() -> None:
    penstock.System(penstock.Settings()).start()


def used() -> penstock.Stream:
    system = penstock.System(penstock.Settings())
    stream = system.open_stream()
    stream.process_token("x")
    return stream


def asking() -> penstock.Stream:
    return penstock.System(penstock.Settings()).chat("lorem", "hi", provider="loopback")


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("penstock", "loopback-"))]


@pytest.mark.parametrize("drop", [started, used, asking])
def test_a_dropped_system_warns_and_its_threads_end(drop: Callable[[], penstock.Stream | None]) -> None:
    with pytest.warns(ResourceWarning, match="dropped without stop"):
        stream = drop()
    eventually(lambda: not ours(), 10)
    if stream is not None:
        assert stream.is_over
        with pytest.raises(penstock.PenstockError):
            stream.result(0)


def test_a_system_that_was_never_used_or_was_stopped_is_dropped_silently() -> None:
    untouched()
    with penstock.System(penstock.Settings()):
        pass
    assert not ours()
