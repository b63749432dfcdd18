"""Code that a user hands over runs in a copy of the context of the call that it was handed over by."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import ScriptedProvider, SimulatedSystem
from tests.conformance.agents import ask, say

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
FAST = penstock.StreamOptions(batch_size=1, rate_limit=None)


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    token = tenant.set("nobody")
    yield
    tenant.reset(token)


def whoami() -> str:
    """Who is asking."""
    before = tenant.get()
    tenant.set("changed by a tool")  # reaches neither the other calls nor the caller
    return before


async def whoami_async() -> str:
    """Who is asking."""
    await asyncio.sleep(0)
    return await asyncio.to_thread(whoami)


def contents(events: Any) -> list[str]:
    return [event.content for event in events if isinstance(event, penstock.ToolResult)]


@pytest.mark.parametrize("function", [whoami, whoami_async])
def test_tools_of_each_turn_run_in_the_context_of_its_message(function: Any) -> None:
    calls = ask(("a", function.__name__, "{}"), ("b", function.__name__, "{}"))
    with SimulatedSystem() as system:
        agent = system.agent(model="m", provider=ScriptedProvider(calls, say("x"), calls, say("y")), tools=[function])
        tenant.set("alice")
        first = agent.stream_chat("who?")
        tenant.set("bob")
        second = agent.stream_chat("and now?")
        tenant.set("carol")
        assert contents(first) == ["alice", "alice"]
        assert contents(second) == ["bob", "bob"]
        assert tenant.get() == "carol"


@pytest.mark.parametrize("function", [whoami, whoami_async])
def test_concurrent_tasks_of_one_loop_keep_their_contexts_apart(function: Any) -> None:
    asked = Answer(text="", tool_calls=(ScriptedCall(function.__name__, "{}"),))

    async def turn(system: penstock.System, url: str, name: str) -> list[str]:
        tenant.set(name)
        with system.agent(model="m", base_url=url, api_key="x", tools=[function]) as agent:
            return contents([event async for event in agent.stream_chat("who?")])

    async def main() -> list[list[str]]:
        async def one(name: str) -> list[str]:
            with LoopbackProvider(Script([asked, Answer("done")])) as provider:
                return await turn(system, provider.base_url, name)

        return await asyncio.gather(*[one(f"tenant {n}") for n in range(5)])

    with penstock.System() as system:
        assert asyncio.run(main()) == [[f"tenant {n}"] for n in range(5)]


def test_approve_the_check_of_arguments_and_callbacks_for_cancelling_run_in_it() -> None:
    seen: list[tuple[str, str]] = []

    def approve(call: penstock.ToolCall) -> bool:
        seen.append(("approve", tenant.get()))
        return True

    class Checked(penstock.FunctionTool):
        def check(self, arguments: Any) -> Any:
            seen.append(("check", tenant.get()))
            return super().check(arguments)

    def work(context: penstock.ToolContext) -> str:
        """Work."""
        context.on_cancel(lambda: seen.append(("on_cancel", tenant.get())))
        context.cancel()
        return "done"

    with SimulatedSystem() as system:
        provider = ScriptedProvider(ask(("a", "work", "{}")), say("x"))
        agent = system.agent(model="m", provider=provider, tools=[Checked(work)], approve=approve)
        tenant.set("alice")
        stream = agent.stream_chat("go")
        tenant.set("bob")
        stream.result(60)
    assert seen == [("approve", "alice"), ("check", "alice"), ("on_cancel", "alice")]


@pytest.mark.parametrize("is_lazy", [False, True])
def test_tokenizers_run_in_it(is_lazy: bool) -> None:
    def cut(text: str) -> Iterable[str]:
        return (f"{tenant.get()}:{word} " for word in text.split()) if is_lazy else [f"{tenant.get()}:{text} "]

    with SimulatedSystem() as system:
        tenant.set("alice")
        options = FAST.replace(tokenizer=cut)
        stream = system.chat("m", "Hi", provider=ScriptedProvider(["Hello"]), options=options)
        tenant.set("bob")
        assert stream.result(60).text == "alice:Hello "


@pytest.mark.parametrize("is_lazy", [False, True])
def test_transforms_of_chains_run_in_it(is_lazy: bool) -> None:
    def mark(event: penstock.TokenEvent) -> Iterable[str]:
        return (f"{tenant.get()}:{text} " for text in event.tokens) if is_lazy else [f"{tenant.get()}:{event.text} "]

    with SimulatedSystem() as system:
        first = system.open_stream("first", FAST)
        tenant.set("alice")
        second = penstock.chain(system, first, mark)
        tenant.set("bob")
        first.process_tokens(["a", "b"])
        first.stop()
        assert second.result(60).text == "alice:a alice:b "


def test_subscribed_functions_run_in_it() -> None:
    seen: list[str] = []
    with SimulatedSystem() as system:
        stream = system.open_stream("s", FAST)
        tenant.set("alice")
        stream.subscribe(lambda event: seen.append(tenant.get()))
        tenant.set("bob")
        stream.process_token("a")
        stream.stop()
        system.advance(1)
    assert seen == ["alice", "alice"]


def test_a_provider_of_ones_own_makes_the_requests_of_an_agent_in_it() -> None:
    seen: list[str] = []

    class Signing(ScriptedProvider):
        def request(self, call: Any) -> Any:
            seen.append(tenant.get())
            return super().request(call)

    with SimulatedSystem() as system:
        provider = Signing(ask(("a", "whoami", "{}")), say("x"))
        agent = system.agent(model="m", provider=provider, tools=[whoami])
        tenant.set("alice")
        stream = agent.stream_chat("go")
        tenant.set("bob")
        stream.result(60)
    assert seen == ["alice", "alice"]


def test_a_stream_that_has_ended_keeps_no_context() -> None:
    with SimulatedSystem() as system:
        tenant.set("alice")
        stream = system.open_stream("s", FAST)
        assert stream._record.context[tenant] == "alice"
        stream.stop()
        assert tenant not in stream._record.context
