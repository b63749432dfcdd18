"""A simulated system under asyncio, and waits of it that can never end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock.errors import CallTimeout
from penstock.testing import HANG, Deadlock, ScriptedProvider, SimulatedSystem

BATCHES = penstock.StreamOptions(batch_size=2, flush_interval=0.05, rate_limit=None)


async def read(system: penstock.System, provider: ScriptedProvider) -> str:
    stream = system.chat("any", "Hello", provider=provider, options=BATCHES)
    return "".join([event.text async for event in stream if isinstance(event, penstock.TokenEvent)])


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_events_and_results_come_in_virtual_time(seed: int) -> None:
    async def main(system: SimulatedSystem) -> float:
        provider = ScriptedProvider(["a ", 100.0, "b ", 900.0, "c"])
        assert await read(system, provider) == "a b c"
        assert (await system.chat("any", "Hello", provider=provider).aresult()).text == "a b c"
        await asyncio.sleep(600)
        return asyncio.get_running_loop().time()

    options = penstock.Settings(request=penstock.RequestOptions(idle_timeout=1000.0, total_timeout=None))
    with SimulatedSystem(seed, options) as system:
        start = system.simulation.clock.monotonic()
        assert system.run(main(system)) - start >= 600 + 2 * 1000


def test_the_seed_decides_how_tasks_and_actors_take_turns() -> None:
    def order(seed: int) -> tuple[str, ...]:
        seen: list[str] = []

        async def follow(system: SimulatedSystem, name: str) -> None:
            provider = ScriptedProvider(["x", "y", "z"])
            seen.extend([name async for _ in system.chat("any", "Hello", provider=provider, options=BATCHES)])

        async def main(system: SimulatedSystem) -> None:
            await asyncio.gather(*(follow(system, name) for name in "abc"))

        with SimulatedSystem(seed) as system:
            system.run(main(system))
        return tuple(seen)

    assert all(order(seed) == order(seed) for seed in range(20))
    assert len({order(seed) for seed in range(60)}) > 5


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_time_limit_of_asyncio_is_virtual_and_the_cancelled_reader_lets_go(seed: int) -> None:
    async def main(system: SimulatedSystem) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await read(system, ScriptedProvider(["a", HANG]))
        await asyncio.sleep(1)
        assert system.scripted.open == 0

    settings = penstock.Settings(request=penstock.RequestOptions(idle_timeout=5000.0, total_timeout=None))
    with SimulatedSystem(seed, settings) as system:
        system.run(main(system))


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_to_thread_runs_blocking_calls_in_simulated_threads(seed: int) -> None:
    def block(system: penstock.System) -> str:
        return system.chat("any", "Hello", provider=ScriptedProvider(["a ", 60.0, "b"])).result().text

    def fail() -> None:
        raise ValueError("from the thread")

    async def main(system: SimulatedSystem) -> None:
        texts = await asyncio.gather(*(asyncio.to_thread(block, system) for _ in range(3)))
        assert texts == ["a b"] * 3
        with pytest.raises(ValueError, match="from the thread"):
            await asyncio.to_thread(fail)

    options = penstock.Settings(request=penstock.RequestOptions(idle_timeout=100.0))
    with SimulatedSystem(seed, options) as system:
        system.run(main(system))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-simulated")]


def test_async_with_starts_and_stops_the_system_in_the_loop() -> None:
    async def main(system: SimulatedSystem) -> None:
        async with system:
            assert await read(system, ScriptedProvider(["a"])) == "a"

    system = SimulatedSystem(1)
    system.run(main(system))
    with pytest.raises(penstock.SystemStopped):
        system.open_stream("late")


# --- waits that can never end -------------------------------------------------------------------------------------


FOR_EVER = penstock.StreamOptions(time_to_live=None)


def forgotten_stop(system: SimulatedSystem) -> Any:
    stream = system.open_stream("forgotten", FOR_EVER)
    stream.process_token("a")
    return stream.result()


def iterator_without_events(system: SimulatedSystem) -> Any:
    return list(system.open_stream("forgotten"))


def task_that_awaits_the_result(system: SimulatedSystem) -> Any:
    async def main() -> None:
        await system.open_stream("forgotten", FOR_EVER).aresult()

    return system.run(main())


def tasks_that_wait_for_each_other(system: SimulatedSystem) -> Any:
    async def main() -> None:
        stream = system.open_stream("forgotten")
        ready = asyncio.Event()

        async def push() -> None:
            await ready.wait()
            stream.process_token("a")

        async def follow() -> None:
            async for _ in stream:
                ready.set()

        await asyncio.gather(push(), follow())

    return system.run(main())


@pytest.mark.seeds(4)
@pytest.mark.parametrize(
    "wait", [forgotten_stop, iterator_without_events, task_that_awaits_the_result, tasks_that_wait_for_each_other]
)
def test_a_wait_that_nothing_can_end_raises_and_says_what_waits(
    wait: Callable[[SimulatedSystem], Any], seed: int
) -> None:
    with SimulatedSystem(seed) as system, pytest.raises(Deadlock) as caught:
        wait(system)
    message = str(caught.value)
    assert "stream 'forgotten'" in message
    assert wait.__code__.co_filename in message


def test_the_message_names_the_call_and_its_line() -> None:
    with SimulatedSystem() as system, pytest.raises(Deadlock) as caught:
        forgotten_stop(system)
    line = forgotten_stop.__code__.co_firstlineno + 3
    assert f"Stream.result() in {__file__}, line {line}" in str(caught.value)


@pytest.mark.parametrize("time_to_live", [3.0, 3600.0])
def test_a_wait_that_the_time_to_live_ends_is_no_deadlock(time_to_live: float) -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("short", penstock.StreamOptions(time_to_live=time_to_live))
        with pytest.raises(penstock.StreamCancelledError, match="time_to_live"):
            stream.result()


def test_a_wait_with_a_limit_ends_with_that_limit() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("forgotten", FOR_EVER)
        with pytest.raises(CallTimeout):
            stream.result(timeout=1000.0)
        with pytest.raises(Deadlock):
            stream.result()
        with pytest.raises(CallTimeout):  # a deadlock leaves the system usable
            stream.result(timeout=1.0)


def test_a_scripted_provider_keeps_what_it_was_asked() -> None:
    provider = ScriptedProvider([penstock.errors.ConnectError("h", "refused")], ["a"])
    with SimulatedSystem() as system:
        system.chat("one", [{"role": "user", "content": "Q"}], provider=provider, temperature=0.5).result()
    (call,) = provider.calls
    assert (call.model, call.input, call.parameters["temperature"]) == (
        "one", [{"role": "user", "content": "Q"}], 0.5
    )  # fmt: skip
    assert provider.requests == 2


@pytest.mark.parametrize("way", ["async for", "aresult"])
def test_in_another_loop_a_wait_raises_instead_of_hanging(way: str) -> None:
    async def main(system: SimulatedSystem) -> None:
        stream = system.open_stream("forgotten", FOR_EVER)
        if way == "aresult":
            await stream.aresult()
        async for _ in stream:
            pass

    with SimulatedSystem() as system, pytest.raises(Deadlock, match="call SimulatedSystem"):
        asyncio.run(main(system))
