"""The public face as users write it, for the type checker: `make check` reads this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import pykka
from pydantic import BaseModel

import penstock


class Recipe(BaseModel):
    name: str


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
    async for text in stream.atexts():
        assert_type(text, str)
    for text in stream.texts():
        assert_type(text, str)
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
    assert_type(system.get_stream_summaries(), list[penstock.StreamSummary])
    assert_type(system.get_model_statistics(), tuple[penstock.ModelStatistics, ...])
    assert_type(stream.state_changes(), tuple[penstock.StateChange, ...])
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
        assert_type(agent.forget(2), int)
        agent.history = [{"role": "user", "content": "Hi"}]
    return agent.history


@penstock.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@penstock.tool(timeout=5, needs_approval=True, name="remove")
async def delete(path: str, context: penstock.ToolContext) -> str:
    """Delete a file."""
    context.report(0.5)
    return "kept" if context.is_cancelled else path


SCHEMA = {"name": "now", "parameters": {"type": "object", "properties": {}}}


def watch(system: penstock.System) -> list[str]:
    assert_type(add, penstock.FunctionTool)
    assert_type(delete, penstock.FunctionTool)
    agent = system.agent(
        model="anthropic/m",
        tools=[add, delete, print, (SCHEMA, lambda: "12:00"), {"type": "web_search_20250305", "name": "web_search"}],
        system_prompt="Be brief.",
        max_tool_rounds=3,
        approve=lambda call: True if call.name == "add" else None,
        history=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}],
    )
    told: list[str] = []
    for event in agent.stream_chat({"role": "user", "content": "What is 17 + 25?"}):
        match event:
            case penstock.StreamStarted(model=model):
                assert_type(model, str | None)
            case penstock.ToolCallStarted(id=id, name=name, index=index):
                assert_type(index, int)
                told += [id, name]
            case penstock.ToolCallDelta(text=text):
                told.append(text)
            case penstock.ToolCallCompleted(call=call) | penstock.ToolApprovalRequested(call=call):
                assert_type(call, penstock.ToolCall)
                told.append(call.arguments_raw)
            case penstock.ToolExecutionStarted(calls=calls, round=number):
                assert_type(calls, tuple[penstock.ToolCall, ...])
                assert_type(number, int)
            case penstock.ToolProgress(call_id=call_id, progress=progress):
                told.append(f"{call_id}: {progress}")
            case penstock.ToolResult(call_id=call_id, name=name, status=status, content=content):
                assert status in ("ok", "error", "timeout", "denied", "unknown_tool", "invalid_arguments")
                told.append(content)
            case penstock.StreamCompleted(cost=cost, metrics=metrics, provider=provider):
                assert_type(cost, penstock.Cost | None)
                assert_type(metrics, penstock.StreamMetrics | None)
                assert_type(provider, str | None)
    assert_type(agent.history, tuple[dict[str, Any], ...])
    agent.stop(timeout=2.0)
    return told


def cook(system: penstock.System) -> str:
    stream = system.chat("m", "A recipe, please.", response_format=penstock.response_format(Recipe))
    recipe = penstock.structured(stream, Recipe)
    for partial in recipe:
        print(partial)
    assert_type(recipe.result(timeout=1.0), Recipe)
    return recipe.result().name


async def cook_async(stream: penstock.Stream) -> list[int]:
    numbers = penstock.structured(stream, list[int])
    async for partial in numbers:
        print(partial)
    return await numbers.aresult()


def set_up() -> penstock.System:
    settings = penstock.Settings(
        request=penstock.RequestOptions(reasoning_timeout=60, on_interrupt="resume", fallback=["anthropic/m"]),
        agent=penstock.AgentOptions(tool_timeout=5),
        breaker=penstock.BreakerOptions(failures=3, cooldown=10),
        retry_budget=penstock.RetryBudgetOptions(ratio=None),
        provider=penstock.DefaultProviderOptions(name="openai", model="m"),
        providers={"openai": penstock.ProviderOptions(requests_per_minute=500, concurrent_streams=20)},
        runtime=penstock.RuntimeOptions(workers=4),
        log=penstock.LogOptions(level="info"),
        prices="prices.toml",
    )
    assert_type(settings.limits("openai"), penstock.LimitOptions)
    system = penstock.System(settings)
    system.chat("m", "Hello", fallback=["anthropic/m", "other"], request_options=penstock.RequestOptions(max_retries=0))
    assert_type(system.statistics().providers, tuple[penstock.EndpointStatistics, ...])
    return system


def fail(stream: penstock.Stream) -> float | None:
    try:
        stream.result()
    except penstock.RateLimited as error:
        assert_type(error.partial, str)
        return error.retry_after
    except penstock.CircuitOpen as error:
        return error.retry_after
    except penstock.ApiError as error:
        assert_type(error.status, int)
    except (penstock.ProviderBusy, penstock.ToolRoundsExceeded, penstock.AgentBusy, penstock.OutputInvalid):
        return None
    return 0.0


def misspell() -> None:
    print(penstock.Sytem)  # type: ignore[attr-defined]  # the lazy names do not hide a mistake
    assert_type(penstock.__version__, str)
