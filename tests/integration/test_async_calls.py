"""The async twins of calls that wait: they leave the loop free, and cancelling their task ends what they wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import StallAfter
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually
from tests.integration.raw_server import Peer, RawServer

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


async def beats(awaitable: Awaitable[Any]) -> tuple[Any, int]:
    """The result, and how often the loop did something else meanwhile."""
    count = 0

    async def beat() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0.005)
            count += 1

    other = asyncio.create_task(beat())
    try:
        return await awaitable, count
    finally:
        other.cancel()


# --- Stream.aresult ---------------------------------------------------------------------------------------------------


def test_aresult_times_out_as_result_does_and_may_be_called_again(system: penstock.System) -> None:
    async def main() -> None:
        stream = system.open_stream()
        for timeout in (0, 0.05):
            with pytest.raises(penstock.CallTimeout) as caught:
                await stream.aresult(timeout)
            with pytest.raises(penstock.CallTimeout) as expected:
                stream.result(timeout)
            assert str(caught.value) == str(expected.value)
        assert not stream.is_over
        assert len(stream._record.over._callbacks or ()) == 1  # waits that are over leave nothing
        stream.process_token("a")
        await asyncio.to_thread(stream.stop)
        assert (await stream.aresult(0)).text == "a"
        assert (await stream.aresult(5)).text == "a"

    asyncio.run(main())


def test_a_cancelled_aresult_leaves_nothing_and_the_stream_goes_on(system: penstock.System) -> None:
    async def main() -> None:
        stream = system.open_stream()
        task = asyncio.create_task(stream.aresult(60))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(stream._record.over._callbacks or ()) == 1
        assert not stream.is_over
        with pytest.raises(penstock.CallTimeout):
            await penstock.structured(stream, list[int]).aresult(0.01)

    asyncio.run(main())


def test_a_stream_that_failed_with_a_time_out_is_not_taken_for_one_of_the_wait(system: penstock.System) -> None:
    async def main() -> None:
        stream = system.open_stream()
        stream.sink().end(penstock.ProviderTimeout("idle", 3))
        with pytest.raises(penstock.ProviderTimeout):
            await stream.aresult(5)

    asyncio.run(main())


# --- Agent.chat -------------------------------------------------------------------------------------------------------


def test_chat_and_achat_return_the_whole_answer(system: penstock.System) -> None:
    with system.agent(model="echo", provider="loopback") as agent:
        assert "one" in agent.chat("one", timeout=20).text
        completed, count = asyncio.run(beats(agent.achat([{"type": "text", "text": "two"}], timeout=20)))
        assert isinstance(completed, penstock.StreamCompleted)
        assert count > 0
        assert len(agent.history) == 4


def test_a_chat_that_times_out_goes_on_and_becomes_part_of_the_history(system: penstock.System) -> None:
    answer = Answer(tokens=("slowly ",) * 30, pace=0.02)
    with (
        LoopbackProvider(Script([answer] * 3)) as provider,
        system.agent(model="m", base_url=provider.base_url, api_key="x") as agent,
    ):
        with pytest.raises(penstock.CallTimeout):
            agent.chat("one", timeout=0.05, stream_id="first")
        with pytest.raises(penstock.CallTimeout):
            asyncio.run(agent.achat("two", timeout=0.05, stream_id="second"))
        for name in ("first", "second"):
            assert system.stream(name).result(20).text == "slowly " * 30
        assert len(agent.history) == 4
        with pytest.raises(penstock.OptionError):
            agent.chat("three", timeout=-1)
        assert agent.statistics().turns == 2


def test_a_chat_whose_task_is_cancelled_releases_the_provider(system: penstock.System) -> None:
    async def main(agent: penstock.Agent, provider: LoopbackProvider) -> None:
        task = asyncio.create_task(agent.achat("hello"))
        await asyncio.to_thread(provider.wait_for, lambda counts: counts.active_responses == 1, 5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with (
        LoopbackProvider(Script(StallAfter(1))) as provider,
        system.agent(model="m", base_url=provider.base_url, api_key="x") as agent,
    ):
        asyncio.run(main(agent, provider))
        provider.wait_for(lambda counts: counts.client_disconnects == 1, 1.0)


# --- a provider's client ----------------------------------------------------------------------------------------------


def test_each_call_of_a_client_that_waits_has_a_twin_with_the_same_result(system: penstock.System) -> None:
    def add(x: int) -> int:
        """Add."""
        return x

    client = system.provider("loopback")
    pairs: list[tuple[Callable[..., Any], Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any]]] = [
        (client.chat_completion, client.achat_completion, (HELLO,), {"model": "echo"}),
        (client.chat_completion_with_tools, client.achat_completion_with_tools, (HELLO, [add]), {"model": "echo"}),
        (client.list_models, client.alist_models, (), {}),
        (client.health_check, client.ahealth_check, (), {}),
    ]
    for call, twin, arguments, options in pairs:
        expected = call(*arguments, **options)
        found, _ = asyncio.run(beats(twin(*arguments, **options)))
        if isinstance(expected, penstock.StreamCompleted):
            assert (found.text, found.tool_calls) == (expected.text, expected.tool_calls)
        elif isinstance(expected, list):
            assert found == expected
        else:
            assert (found.ok, found.status) == (expected.ok, expected.status) == (True, 200)


class Silent:
    """A server that takes a request and never answers."""

    def __init__(self) -> None:
        self.asked, self.left = threading.Event(), threading.Event()

    def __call__(self, peer: Peer) -> None:
        peer.read_request()
        self.asked.set()
        while peer.sock.recv(1):
            pass
        self.left.set()


def test_a_twin_leaves_the_loop_free_and_times_out(system: penstock.System) -> None:
    silent = Silent()
    with RawServer(silent) as server:
        client = system.provider("openai", base_url=f"{server.url}/v1", api_key="x")

        async def main() -> tuple[Any, int]:
            with pytest.raises(penstock.ProviderTimeout):
                await client.alist_models(0.2)
            return await beats(client.ahealth_check(0.2))

        health, count = asyncio.run(main())
    assert not health.ok
    assert "0.2" in health.detail
    assert count > 5


def test_a_twin_whose_task_is_cancelled_closes_the_connection(system: penstock.System) -> None:
    silent = Silent()
    with RawServer(silent) as server:
        client = system.provider("openai", base_url=f"{server.url}/v1", api_key="x")

        async def main() -> None:
            task = asyncio.create_task(client.alist_models(60))
            await asyncio.to_thread(silent.asked.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert silent.left.wait(2)


def test_a_completion_whose_task_is_cancelled_or_times_out_releases_the_provider(system: penstock.System) -> None:
    with LoopbackProvider(Script([StallAfter(1)] * 2)) as provider:
        client = system.provider("openai", base_url=provider.base_url, api_key="x")

        async def main() -> None:
            with pytest.raises(penstock.CallTimeout):
                await client.achat_completion(HELLO, model="m", timeout=0.2)
            task = asyncio.create_task(client.achat_completion(HELLO, model="m"))
            await asyncio.to_thread(provider.wait_for, lambda counts: counts.requests == 2, 5.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        provider.wait_for(lambda counts: counts.client_disconnects == 2, 2.0)
    eventually(lambda: not system.get_active_streams())
