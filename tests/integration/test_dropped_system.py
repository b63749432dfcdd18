"""A system that is dropped without stop() warns, and leaves no thread."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

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


def with_an_agent() -> penstock.Stream:
    def wait() -> str:
        """Wait for longer than the test."""
        never.wait(60)
        return ""

    never = threading.Event()
    system = penstock.System(penstock.Settings())
    agent = system.agent(model="tools", provider="loopback", tools=[wait])
    stream = agent.stream_chat("Please wait.")
    eventually(lambda: agent.state in ("working", "idle"), 20)
    never.set()
    return stream


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("penstock", "loopback-"))]


@pytest.mark.parametrize("drop", [started, used, asking, with_an_agent])
def test_a_dropped_system_warns_and_its_threads_end(drop: Callable[[], penstock.Stream | None]) -> None:
    with pytest.warns(ResourceWarning, match="dropped without stop"):
        stream = drop()
    eventually(lambda: not ours(), 10)
    if stream is not None:
        assert stream.is_over


def test_a_system_that_was_never_used_or_was_stopped_is_dropped_silently() -> None:
    untouched()
    with penstock.System(penstock.Settings()):
        pass
    assert not ours()


class Application:
    """Refers to itself and to everything that it uses, as applications do."""

    def __init__(self) -> None:
        self.itself = self
        self.system = penstock.System(penstock.Settings())
        self.stream = self.system.open_stream()
        self.events = iter(self.stream)
        self.agent = self.system.agent(model="echo", provider="loopback")


def test_a_system_in_a_cycle_is_ended_when_the_cycle_is_collected() -> None:
    Application()
    assert ours()
    with pytest.warns(ResourceWarning, match="dropped without stop"):
        gc.collect()  # what the test is about: the cycle is the application's, and only the collector finds it
    eventually(lambda: not ours(), 10)


AT_EXIT = """
import penstock

system = penstock.System(penstock.Settings())
events = iter(system.chat("lorem", "hi", provider="loopback"))
next(events)
agent = system.agent(model="echo", provider="loopback")
agent.stream_chat("hi")
print("ready")
"""


def test_a_program_that_ends_without_stop_ends_quietly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT],
        env={"PYTHONPATH": str(Path(penstock.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
