"""Systems and agents in ``async with``: they end with the block, and the loop stays free meanwhile."""

from __future__ import annotations

import asyncio

import penstock


def test_a_system_and_an_agent_end_with_their_block() -> None:
    async def main() -> tuple[penstock.System, penstock.Agent]:
        async with (
            penstock.System(penstock.Settings()) as system,
            system.agent(model="echo", provider="loopback") as agent,
        ):
            completed = await agent.stream_chat("hello").aresult()
            assert "hello" in completed.text
            assert agent.is_alive
        return system, agent

    system, agent = asyncio.run(main())
    assert not agent.is_alive
    try:
        system.open_stream()
    except penstock.SystemStopped:
        return
    raise AssertionError("it still runs")
