"""Async tools run on one event loop: the caller's, or the system's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.loop_thread import LoopThread
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually

FAST = penstock.StreamOptions(batch_size=4, flush_interval=0.02, rate_limit=None)
LIMITS = penstock.AgentOptions(tool_timeout=20)


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


@contextlib.contextmanager
def agent_with(
    system: penstock.System, *tools: Any, calls: int = 3, turns: int = 1, limits: penstock.AgentOptions = LIMITS
) -> Iterator[penstock.Agent]:
    name = penstock.tool(tools[0]).name
    asked = Answer(text="", tool_calls=tuple(ScriptedCall(name, f'{{"i": {i}}}') for i in range(calls)))
    with (
        LoopbackProvider(Script([asked, Answer("done")] * turns)) as provider,
        system.agent(
            model="m", base_url=provider.base_url, api_key="x", tools=tools, agent_options=limits, options=FAST
        ) as agent,
    ):
        yield agent


def results(events: Any) -> list[tuple[str, str]]:
    return [(event.status, event.content) for event in events if isinstance(event, penstock.ToolResult)]


class Pool:
    """Belongs to the loop that uses it first, like a pool of database connections."""

    def __init__(self) -> None:
        self.lock = asyncio.Semaphore(1)
        self.loops: set[int] = set()

    async def query(self, i: int) -> str:
        """Query."""
        self.loops.add(id(asyncio.get_running_loop()))
        async with self.lock:
            await asyncio.sleep(0.02)
        return f"row {i}"


ROWS = [("ok", "row 0"), ("ok", "row 1"), ("ok", "row 2")]


def test_without_a_loop_of_the_callers_all_calls_of_all_turns_and_agents_share_the_systems(
    system: penstock.System,
) -> None:
    pool = Pool()
    for _ in range(2):
        with agent_with(system, pool.query, turns=2) as agent:
            assert results(agent.stream_chat("go")) == ROWS
            assert results(agent.stream_chat("go")) == ROWS
    assert len(pool.loops) == 1


def test_in_a_coroutine_the_tools_run_on_its_loop(system: penstock.System) -> None:
    pool = Pool()

    async def main() -> None:
        with agent_with(system, pool.query) as agent:
            async with pool.lock:  # the caller uses the pool too
                stream = agent.stream_chat("go")
                await asyncio.to_thread(eventually, lambda: pool.loops, 20)  # a tool waits for the pool
            assert results([event async for event in stream]) == ROWS
        assert pool.loops == {id(asyncio.get_running_loop())}

    asyncio.run(main())
    assert not any(thread.name == "penstock-loop" for thread in threading.enumerate())


@pytest.mark.parametrize("how", ["iterate", "result", "sleep", "callback"])
def test_a_coroutine_that_blocks_its_loop_does_not_stop_the_tools(
    system: penstock.System, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool()
    ended = threading.Event()

    def note(event: penstock.Event) -> None:
        if isinstance(event, penstock.StreamCompleted):
            ended.set()

    async def main() -> None:
        with agent_with(system, pool.query, turns=2) as agent:
            for _ in range(2):
                ended.clear()
                stream = agent.stream_chat("go", note)
                match how:
                    case "iterate":
                        assert results(stream) == ROWS
                    case "result":
                        stream.result(20)
                    case "sleep":
                        while not stream.is_over:
                            time.sleep(0.01)
                    case "callback":
                        assert ended.wait(20)
                assert results(stream.events()) == ROWS
            assert id(asyncio.get_running_loop()) not in pool.loops

    asyncio.run(main())
    assert len(pool.loops) == 1
    assert caplog.text.count("event_loop_blocked") == 1


def test_a_turn_of_a_loop_that_has_ended_runs_its_tools_on_the_systems(system: penstock.System) -> None:
    pool = Pool()
    go = threading.Event()

    def hold(i: int) -> str:
        """Hold."""
        go.wait(20)
        return "held"

    with (
        LoopbackProvider(
            Script(
                [
                    Answer(text="", tool_calls=(ScriptedCall("hold", '{"i": 0}'),)),
                    Answer(text="", tool_calls=(ScriptedCall("query", '{"i": 1}'),)),
                    Answer("done"),
                ]
            )
        ) as provider,
        system.agent(
            model="m", base_url=provider.base_url, api_key="x", tools=[hold, pool.query], options=FAST
        ) as agent,
    ):

        async def main() -> penstock.Stream:
            return agent.stream_chat("go", on_orphan="continue")

        stream = asyncio.run(main())
        go.set()
        assert results(stream.events()) == [("ok", "held"), ("ok", "row 1")]


def test_parallel_calls_really_run_at_the_same_time(system: penstock.System) -> None:
    barrier = asyncio.Barrier(3)

    async def meet(i: int) -> str:
        """Meet."""
        await barrier.wait()
        return f"row {i}"

    with agent_with(system, meet) as agent:
        assert results(agent.stream_chat("go")) == ROWS


@pytest.mark.parametrize("where", ["own", "callers"])
@pytest.mark.parametrize("why", ["timeout", "cancel", "stop"])
def test_cancelling_reaches_the_coroutine(system: penstock.System, where: str, why: str) -> None:
    seen: list[str] = []

    async def wait(i: int) -> str:
        """Wait."""
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "never"

    limits = penstock.AgentOptions(tool_timeout=1.0 if why == "timeout" else 30)

    def act(agent: penstock.Agent, stream: penstock.Stream) -> None:
        if why == "cancel":
            stream.cancel("enough")
        elif why == "stop":
            agent.stop()

    with agent_with(system, wait, calls=1, limits=limits) as agent:
        if where == "own":
            stream = agent.stream_chat("go", on_orphan="continue")
            eventually(lambda: seen)
            act(agent, stream)
            eventually(lambda: seen == ["begun", "cancelled"])
        else:

            async def main() -> None:
                stream = agent.stream_chat("go", on_orphan="continue")
                await asyncio.to_thread(eventually, lambda: seen, 20)
                await asyncio.to_thread(act, agent, stream)
                await asyncio.to_thread(eventually, lambda: len(seen) >= 2, 20)

            asyncio.run(asyncio.wait_for(main(), 20))
            assert seen == ["begun", "cancelled"]
        eventually(lambda: system._tool_quota.taken == 0)


def test_the_system_ends_its_loop_and_what_runs_on_it(system: penstock.System) -> None:
    seen: list[str] = []

    async def stubborn(i: int) -> str:
        """Take no notice of being cancelled, once."""
        seen.append("begun")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        seen.append("still here")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")
        return "never"

    with agent_with(system, stubborn, calls=1) as agent:
        agent.stream_chat("go", on_orphan="continue")
        eventually(lambda: seen)
    assert system.stop() == 0
    eventually(lambda: seen == ["begun", "still here", "ended"])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: asyncio.sleep(0, "slept"), ("ok", "slept")),
        (lambda: asyncio.wait_for(asyncio.sleep(9), 0.01), ("error", "TimeoutError")),
        (lambda: _raise(KeyError("no such key")), ("error", "KeyError")),
        (lambda: asyncio.sleep(0, object()), ("error", "cannot be encoded as JSON")),
        (lambda: _Awaitable(), ("ok", "awaited")),
    ],
)
def test_whatever_awaitable_a_function_returns_is_awaited(
    system: penstock.System, make: Callable[[], Any], expected: tuple[str, str]
) -> None:
    def act(i: int) -> Any:
        """Act."""
        return make()

    with agent_with(system, act, calls=1) as agent:
        ((status, content),) = results(agent.stream_chat("go"))
    assert status == expected[0]
    assert expected[1] in content


async def _raise(error: Exception) -> None:
    raise error


class _Awaitable:
    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return "awaited"


# --- the loop's thread -----------------------------------------------------------------------------------------------


def test_a_loop_thread_that_was_never_needed_has_no_thread_and_is_closed_at_once() -> None:
    loop = LoopThread()
    assert loop.close(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_coroutine(asyncio.sleep(0))


def test_a_loop_thread_runs_coroutines_and_cancels_those_that_are_left() -> None:
    loop = LoopThread()
    assert loop.run_coroutine(asyncio.sleep(0, "done")).result(20) == "done"
    left = loop.run_coroutine(asyncio.sleep(60))
    assert loop.start() is loop.start()
    assert loop.close(20)
    assert left.cancelled()
    assert loop.close(0)


def test_a_loop_thread_that_cannot_make_its_loop_says_so_and_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "too many open files")

    own = LoopThread("penstock-test-loop")
    monkeypatch.setattr(asyncio, "new_event_loop", make)
    for _ in range(2):
        with pytest.raises(OSError, match="too many open files"):
            own.start()
    monkeypatch.undo()
    assert own.start().is_running()
    assert own.close(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # "Event loop stopped before …"
def test_a_loop_thread_that_has_ended_starts_again() -> None:
    own = LoopThread("penstock-test-loop")
    first = own.start()
    first.call_soon_threadsafe(first.stop)
    eventually(lambda: first.is_closed() and not own._thread.is_alive())  # type: ignore[union-attr]
    second = own.start()
    assert second is not first
    assert own.run_coroutine(asyncio.sleep(0, "done")).result(10) == "done"
    assert own.close(10)


def test_a_task_of_a_loop_thread_may_close_it() -> None:
    loop = LoopThread()

    async def close() -> bool:
        return loop.close(20)

    assert loop.run_coroutine(close()).result(20)
    assert loop.close(20)


@pytest.mark.parametrize("is_allowed", [True, False])
@pytest.mark.parametrize("has_loop", [True, False])
def test_approve_may_be_async_and_runs_on_the_same_loop(
    system: penstock.System, is_allowed: bool, has_loop: bool
) -> None:
    pool = Pool()
    loops: set[int] = set()

    async def approve(call: penstock.ToolCall) -> bool:
        await asyncio.sleep(0.01)
        loops.add(id(asyncio.get_running_loop()))
        return is_allowed

    async def main(agent: penstock.Agent) -> list[Any]:
        return [event async for event in agent.stream_chat("go")]

    asked = Answer(text="", tool_calls=(ScriptedCall("query", '{"i": 1}'),))
    with (
        LoopbackProvider(Script([asked, Answer("done")])) as provider,
        system.agent(model="m", base_url=provider.base_url, api_key="x", tools=[pool.query], approve=approve) as agent,
    ):
        events = asyncio.run(main(agent)) if has_loop else list(agent.stream_chat("go"))
    assert [status for status, _ in results(events)] == ["ok" if is_allowed else "denied"]
    assert not is_allowed or loops == pool.loops
    assert len(loops) == 1


def test_an_async_approve_that_takes_too_long_is_cancelled(system: penstock.System) -> None:
    cancelled = threading.Event()

    async def approve(call: penstock.ToolCall) -> bool:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return True

    asked = Answer(text="", tool_calls=(ScriptedCall("query", '{"i": 1}'),))
    limits = penstock.AgentOptions(approval_timeout=1.0)
    with (
        LoopbackProvider(Script([asked, Answer("done")])) as provider,
        system.agent(
            model="m",
            base_url=provider.base_url,
            api_key="x",
            tools=[Pool().query],
            approve=approve,
            agent_options=limits,
        ) as agent,
    ):
        assert [status for status, _ in results(agent.stream_chat("go"))] == ["denied"]
    assert cancelled.wait(20)


# --- loops that end, and loops that are blocked ----------------------------------------------------------------------


def test_a_tool_that_exits_ends_neither_the_systems_loop_nor_its_own_turn(system: penstock.System) -> None:
    calls = iter((True, False, False))

    async def work(i: int) -> str:
        if next(calls):
            raise SystemExit(2)
        return "fine"

    with agent_with(system, work, calls=1, turns=3) as agent:
        found = [results(agent.stream_chat("go"))[0] for _ in range(3)]
    assert found == [("error", "SystemExit: 2"), ("ok", "fine"), ("ok", "fine")]


def test_a_tool_that_exits_does_not_end_the_callers_loop(system: penstock.System) -> None:
    async def work(i: int) -> str:
        raise SystemExit(2)

    async def main() -> list[tuple[str, str]]:
        return results([event async for event in agent.stream_chat("go")])

    with agent_with(system, work, calls=1) as agent:
        assert asyncio.run(main()) == [("error", "SystemExit: 2")]


def test_a_loop_that_is_blocked_after_a_tool_has_begun_is_told(system: penstock.System) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work(i: int) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise
        return "row"

    async def main() -> list[tuple[str, str]]:
        stream = agent.stream_chat("go")
        await asyncio.to_thread(begun.wait, 10)
        stream.result(60)  # blocks the loop
        await asyncio.to_thread(ended.wait, 10)  # what was reported as failed does not run on
        return results(stream.events())

    with agent_with(system, work, calls=1) as agent:
        ((status, content),) = asyncio.run(main())
    assert (status, ended.is_set()) == ("error", True)
    assert "blocked by a call" in content


def test_a_tool_of_a_loop_that_has_stopped_does_not_run_on_when_it_continues(system: penstock.System) -> None:
    begun, ends = threading.Event(), list[str]()
    go_on = asyncio.Event()

    async def work(i: int) -> str:
        begun.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")
        return "row"

    async def begin() -> penstock.Stream:
        stream = agent.stream_chat("go")
        await asyncio.to_thread(begun.wait, 10)
        return stream

    async def continue_() -> None:
        go_on.set()
        await asyncio.to_thread(eventually, lambda: ends, 20)

    loop = asyncio.new_event_loop()
    with agent_with(system, work, calls=1) as agent:
        stream = loop.run_until_complete(begin())
        ((status, _),) = results(stream.events())
        loop.run_until_complete(continue_())
        loop.close()
    assert (status, ends) == ("error", ["cancelled"])
