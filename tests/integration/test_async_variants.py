"""Calls that wait for a whole answer, blocking and in an event loop: answers, time-outs, cancelled tasks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.errors import CallTimeout, ProviderTimeout
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem, eventually

SLOW = Answer(tokens=("word ",) * 1000, pace=0.05)
PATIENCE = 30.0


class House:
    def __init__(self, provider: LoopbackProvider, system: penstock.System) -> None:
        self.provider = provider
        self.system = system
        self.client = system.provider("openai", base_url=provider.base_url, api_key="k")

    def stream(self) -> penstock.Stream:
        return self.client.stream_chat_completion("Hello", model="m")

    def agent(self) -> penstock.Agent:
        return self.system.agent(model="m", provider="openai", base_url=self.provider.base_url, api_key="k")

    def wait_until_nothing_runs(self) -> None:
        self.provider.wait_for(lambda counts: counts.active_responses == 0, PATIENCE)
        eventually(lambda: self.system.statistics().reader["active"] == 0, PATIENCE)


@pytest.fixture
def house(script: Answer) -> Iterator[House]:
    with LoopbackProvider(Script(script)) as provider, penstock.System() as system:
        yield House(provider, system)


quick = pytest.mark.parametrize("script", [Answer("fine")])
slow = pytest.mark.parametrize("script", [SLOW])


WAYS: list[Callable[[House, float | None], Coroutine[Any, Any, penstock.StreamCompleted]]] = [
    lambda house, timeout: house.stream().aresult(timeout),
    lambda house, timeout: house.client.achat_completion("Hello", model="m", timeout=timeout),
    lambda house, timeout: house.client.achat_completion_with_tools("Hello", [], model="m", timeout=timeout),
    lambda house, timeout: house.agent().achat("Hello", timeout=timeout),
]
CANCELLING = WAYS[1:]


@quick
@pytest.mark.parametrize("way", WAYS)
def test_the_answer_is_returned(house: House, way: Any) -> None:
    assert asyncio.run(way(house, PATIENCE)).text == "fine"
    assert asyncio.run(way(house, None)).text == "fine"


@slow
@pytest.mark.parametrize("way", WAYS)
def test_a_time_out_is_a_call_timeout(house: House, way: Any) -> None:
    with pytest.raises(CallTimeout):
        asyncio.run(way(house, 0.05))


@slow
@pytest.mark.parametrize("way", CANCELLING)
def test_after_a_time_out_the_call_ends(house: House, way: Any) -> None:
    with pytest.raises(CallTimeout):
        asyncio.run(way(house, 0.05))
    house.wait_until_nothing_runs()


@slow
@pytest.mark.parametrize("way", CANCELLING)
def test_a_cancelled_task_ends_the_call(house: House, way: Any) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(way(house, None))
        await asyncio.to_thread(house.provider.wait_for, lambda counts: counts.active_responses == 1, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    house.wait_until_nothing_runs()


@slow
def test_the_stream_goes_on_after_a_wait_for_its_result_has_timed_out(house: House) -> None:
    async def main() -> None:
        stream = house.stream()
        for _ in range(3):
            with pytest.raises(CallTimeout):
                await stream.aresult(0.01)
        assert not stream.is_over
        await asyncio.to_thread(stream.cancel)
        with pytest.raises(penstock.StreamCancelledError):
            await stream.aresult(PATIENCE)

    asyncio.run(main())


@slow
def test_an_agent_that_is_waited_for_without_a_loop_cancels_too(house: House) -> None:
    agent = house.agent()
    with pytest.raises(CallTimeout):
        agent.chat("Hello", timeout=0.2)
    house.wait_until_nothing_runs()
    eventually(lambda: len(agent.history) == 2, PATIENCE)


@quick
def test_an_agent_answers_one_message_after_the_other(house: House) -> None:
    agent = house.agent()
    assert [agent.chat("One").text, asyncio.run(agent.achat("Two")).text] == ["fine"] * 2
    assert [message["role"] for message in agent.history] == ["user", "assistant"] * 2


@quick
def test_a_timeout_that_is_no_number_is_refused(house: House) -> None:
    for wrong in (-1, "1", float("nan")):
        with pytest.raises(penstock.OptionError, match="timeout"):
            asyncio.run(house.stream().aresult(wrong))  # type: ignore[arg-type]
        with pytest.raises(penstock.OptionError, match="timeout"):
            house.agent().chat("Hello", timeout=wrong)  # type: ignore[arg-type]


def test_a_provider_s_own_time_out_stays_what_it_is() -> None:
    options = penstock.RequestOptions(max_retries=0, first_token_timeout=0.05)
    with socket.create_server(("127.0.0.1", 0)) as server, penstock.System() as system:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        stream = system.chat("m", "x", base_url=url, api_key="k", request_options=options)
        with pytest.raises(ProviderTimeout):
            asyncio.run(stream.aresult(PATIENCE))


# --- models and health ------------------------------------------------------------------------------------------------


@quick
def test_models_and_health_come_without_blocking_the_loop(house: House) -> None:
    async def main() -> None:
        names, health = await asyncio.gather(house.client.alist_models(), house.client.ahealth_check())
        assert names == house.client.list_models()
        assert (health.ok, health.status) == (True, 200)

    asyncio.run(main())


def test_a_wrong_key_is_told_by_the_health_check_and_raised_by_the_list() -> None:
    with LoopbackProvider(Script(Status(401)), api_key="right") as provider, penstock.System() as system:
        client = system.provider("openai", base_url=provider.base_url, api_key="wrong")
        assert asyncio.run(client.ahealth_check()).status == 401
        with pytest.raises(penstock.AuthenticationError):
            asyncio.run(client.alist_models())


@pytest.mark.parametrize("call", ["alist_models", "ahealth_check"])
def test_a_silent_server_is_waited_for_as_long_as_allowed_and_left_when_cancelled(call: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, penstock.System() as system:
        server.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        ask = getattr(system.provider("openai", base_url=url, api_key="k"), call)

        async def main() -> None:
            task = asyncio.create_task(ask(PATIENCE))
            connection, _ = await asyncio.to_thread(server.accept)
            with connection:
                connection.settimeout(PATIENCE)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while await asyncio.to_thread(connection.recv, 65_536):
                    pass  # the request, and then the end

        asyncio.run(main())
        if call == "alist_models":
            with pytest.raises(ProviderTimeout):
                asyncio.run(ask(0.1))
        else:
            assert not asyncio.run(ask(0.1)).ok


def test_in_virtual_time_a_time_out_is_virtual() -> None:
    async def main(system: SimulatedSystem) -> None:
        stream = system.chat("any", "Hello", provider=ScriptedProvider(["a", HANG]))
        with pytest.raises(CallTimeout):
            await stream.aresult(20.0)

    with SimulatedSystem() as system:
        system.run(main(system))
