"""A system that is dropped without stop() warns, and leaves no thread."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
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


FAST = penstock.StreamOptions(batch_size=1, flush_interval=0.01, rate_limit=None)


def gone(system: Callable[[], penstock.System | None]) -> None:
    """Wait until a system has been dropped, with its warning, and its threads have ended."""

    def is_gone() -> bool:
        gc.collect()
        return system() is None and not any(name.startswith("penstock") for name in ours())

    with pytest.warns(ResourceWarning, match="dropped without stop"):
        eventually(is_gone, 10)


def test_a_dropped_system_ends_cleanly_and_its_streams_say_why(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(ResourceWarning, match="dropped without stop"), pytest.raises(penstock.StreamCrashed) as caught:
        penstock.System(penstock.Settings()).chat("lorem", "hi", provider="loopback").result(20)
    assert "its System was dropped without stop()" in str(caught.value)
    eventually(lambda: not ours(), 10)
    assert "process_crashed" not in caplog.text


def test_an_agent_that_outlives_its_system_ends_and_its_tools_are_cancelled() -> None:
    started, cancelled = threading.Event(), threading.Event()

    def wait(context: penstock.ToolContext) -> str:
        """Wait."""
        started.set()
        if context.cancelled.wait(10):
            cancelled.set()
        return "done"

    async def wait_async() -> str:
        """Wait."""
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return "done"

    for tool in (wait, wait_async):
        started.clear()
        cancelled.clear()
        asked = Answer(text="", tool_calls=(ScriptedCall(tool.__name__, "{}"),))
        with LoopbackProvider(Script([asked, Answer("done")])) as provider:
            system = penstock.System(penstock.Settings())
            agent = system.agent(model="m", base_url=provider.base_url, api_key="x", tools=[tool])
            stream = agent.stream_chat("go")
            assert started.wait(10)
            with pytest.warns(ResourceWarning, match="dropped without stop"):
                del system
            with pytest.raises(penstock.PenstockError):
                stream.result(10)
            assert cancelled.wait(10)
            eventually(lambda agent=agent: not agent.is_alive, 10)  # type: ignore[misc]
            with pytest.raises(penstock.AgentStopped):
                agent.stream_chat("again")
        eventually(lambda: not ours(), 10)


def test_a_producer_that_waits_for_room_is_refused_when_the_system_is_dropped() -> None:
    system = penstock.System(penstock.Settings())
    stream = system.open_stream(options=FAST.replace(max_buffer_size=2))
    stream.pause()
    errors: list[BaseException] = []

    def push() -> None:
        try:
            stream.process_tokens("abcdef", timeout=30)
        except penstock.PenstockError as error:
            errors.append(error)

    producer = threading.Thread(target=push)
    producer.start()
    eventually(lambda: stream.statistics().tokens_processed == 2)
    with pytest.warns(ResourceWarning, match="dropped without stop"):
        del system
    producer.join(10)
    assert [type(error) for error in errors] == [penstock.StreamClosed]
    eventually(lambda: not ours(), 10)


class App:
    """A program that keeps everything in one object, in cycles."""

    def __init__(self) -> None:
        self.me = self
        self.system = penstock.System(penstock.Settings()).start()
        self.stream = self.system.open_stream(options=FAST)
        self.agent = self.system.agent(model="echo", provider="loopback", tools=[self.tool])
        self.iterator = iter(self.stream)

    def tool(self) -> str:
        """Describe the system."""
        return str(self.system)

    async def note(self, event: object) -> None:
        assert self.system is not None

    def note_sync(self, event: object) -> None:
        assert self.system is not None


def test_a_system_in_a_cycle_is_dropped_once_no_stream_or_agent_of_it_refers_to_it() -> None:
    app = App()
    app.stream.subscribe(app.note)
    app.stream.subscribe(app.note_sync)
    app.stream.process_token("x")
    app.stream.stop()
    app.agent.stop()
    system = weakref.ref(app.system)
    gc.disable()
    try:
        del app
        gone(system)
    finally:
        gc.enable()


def test_a_client_keeps_its_system() -> None:
    client = penstock.System(penstock.Settings()).provider("loopback")
    system = weakref.ref(client._chat.__self__)  # type: ignore[attr-defined]
    gc.collect()
    assert client.chat_completion("hello", model="echo", timeout=20).text == "hello"
    clients = [client]
    del client
    with pytest.warns(ResourceWarning, match="dropped without stop"):
        clients.clear()
    gone_too = system() is None
    assert gone_too
    eventually(lambda: not ours(), 10)


AT_EXIT = """
import sys, threading
import penstock

system = penstock.System(penstock.Settings())
stream = system.chat("lorem", "hi", provider="loopback")
stream.subscribe(lambda event: None)
other = penstock.System(penstock.Settings()).start()
if "cycle" in sys.argv:
    system.me = system
    del system
"""


@pytest.mark.parametrize("how", ["plain", "cycle"])
def test_a_program_that_ends_without_stop_ends_at_once_and_silently(how: str) -> None:
    root = str(Path(penstock.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, how], env={"PYTHONPATH": root}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
