"""Fixtures: runtimes on real threads, checked for threads they leave; threads that interleave more than usual."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.runtime import Runtime

GENEROUS = 20.0


@pytest.fixture
def make_runtime() -> Iterator[Callable[..., Runtime]]:
    """Make runtimes; at the end, close them and check that no thread is left."""
    made: list[tuple[Runtime, ThreadedDispatcher, TimerThread]] = []

    def make(**options: Any) -> Runtime:
        dispatcher, timers = ThreadedDispatcher(**options), TimerThread()
        runtime = Runtime(dispatcher, timers, SystemClock())
        made.append((runtime, dispatcher, timers))
        return runtime

    yield make
    for runtime, dispatcher, timers in made:
        runtime.close()
        assert dispatcher.close(GENEROUS) == 0
        assert timers.close(GENEROUS)


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    return make_runtime(workers=2)


@pytest.fixture
def restless() -> Iterator[None]:
    """Make threads switch after every few instructions, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
