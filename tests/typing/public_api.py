"""The public face as users write it, for the type checker: `make check` reads this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import pykka

import penstock


def read(system: penstock.System) -> str:
    stream = system.chat("gpt-4.1-mini", [{"role": "user", "content": "Hello"}], options=penstock.CHAT, temperature=0.2)
    assert_type(stream, penstock.Stream)
    for event in stream:
        assert_type(event, penstock.Event)
        match event:
            case penstock.TokenEvent(text=text, kind=kind, seq=seq):
                assert_type(text, str)
                assert_type(seq, int)
                assert kind in ("text", "reasoning", "refusal")
            case penstock.StreamCompleted(usage=usage, tool_calls=calls):
                assert_type(usage, penstock.Usage | None)
                assert_type(calls, tuple[penstock.ToolCall, ...])
            case penstock.StreamFailed(error=error, partial=partial):
                assert_type(error, penstock.PenstockError)
                assert_type(partial, str)
            case penstock.StreamCancelled(reason=reason):
                assert_type(reason, str | None)
            case penstock.StreamReset():
                pass
    assert_type(stream.result(timeout=1.0), penstock.StreamCompleted)
    assert_type(stream.statistics(), penstock.StreamStatistics)
    assert_type(stream.statistics().time_to_first_token_s, float | None)
    return stream.state


async def read_async(system: penstock.System) -> penstock.StreamCompleted:
    stream = system.create_response_token_stream("Hello", "gpt-4.1-mini")
    async for event in stream.aevents(after=3):
        assert_type(event, penstock.Event)
    return await stream.aresult()


def push(system: penstock.System, actor: pykka.ActorRef[Any], metadata: Mapping[str, Any]) -> None:
    stream = system.open_stream("id", penstock.StreamOptions(batch_size=5), metadata=metadata, on_orphan=2.5)
    stream.process_token("Hi", timeout=1.0)
    stream.process_tokens(["a", "b"])
    assert_type(stream.flush_buffer(), int)
    stream.set_options(rate_limit=None)
    stream.pause()
    stream.resume()
    assert_type(stream.subscribe(actor, slow="drop"), penstock.Subscription)
    stream.subscribe(print, slow="coalesce").unsubscribe()
    stream.cancel("enough")
    stream.stop()
    assert_type(system.get_active_streams(), list[penstock.StreamInfo])
    assert_type(system.tree(), penstock.Tree)
    assert_type(system.statistics(), penstock.SystemStatistics)


def wrap(stream: penstock.Stream) -> int:
    handler = penstock.wrap_existing_handler(lambda event: len(str(event)), stream)
    return handler("Hi")


def ask(system: penstock.System) -> penstock.ToolCall:
    client = system.provider("anthropic", base_url="http://localhost:1", api_key="key")
    assert_type(client, penstock.ProviderClient)
    assert_type(client.chat_completion([{"role": "user", "content": "Hi"}], model="m"), penstock.StreamCompleted)
    assert_type(client.stream_chat_completion([], model="m", temperature=0.2), penstock.Stream)
    assert_type(client.list_models(timeout=1.0), list[str])
    assert_type(client.health_check(), penstock.ProviderHealth)
    return client.chat_completion_with_tools([], [print], model="m").tool_calls[0]


def converse(system: penstock.System, actor: pykka.ActorRef[Any]) -> tuple[dict[str, Any], ...]:
    options = penstock.AgentOptions(max_tool_calls=2)
    with system.agent("a", model="m", tools=[len], agent_options=options, temperature=0.2) as agent:
        assert_type(agent, penstock.Agent)
        assert_type(agent.stream_chat("Hi", actor), penstock.Stream)
        agent.stream_chat([{"type": "text", "text": "Hi"}], print, metadata={"user": 7}, on_orphan="continue")
        assert_type(agent.approve("call_1"), bool)
        agent.deny("call_1", "no")
        assert_type(agent.statistics(), penstock.AgentStatistics)
    return agent.history
