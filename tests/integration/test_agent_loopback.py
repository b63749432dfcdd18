"""Agents over real sockets and threads: every wire format, tools that block, many agents at once."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

import penstock
from penstock.actors.agent.history import INTERRUPTED
from penstock.adapters.loopback.faults import ErrorFrame, ResetAfter, StallAfter
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Cycle, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import Collector, eventually
from tests.conformance.agents import check_history, kinds, results

DIALECTS = ("openai", "openai-responses", "anthropic", "ollama", "gemini")
FAST = penstock.StreamOptions(batch_size=4, flush_interval=0.02, rate_limit=None)


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


def talk_to(system: penstock.System, provider: LoopbackProvider, dialect: str, **options: Any) -> penstock.Agent:
    base_url = provider.base_url if dialect.startswith("openai") else provider.url
    options.setdefault("options", FAST)
    return system.agent(
        model=options.pop("model", "tools"), provider=dialect, base_url=base_url, api_key="sk-none", **options
    )


def get_weather(city: str, unit: str = "°C") -> dict[str, Any]:
    """Tell the weather in a city."""
    return {"city": city, "temperature": 21, "unit": unit}


def call(name: str, arguments: str = "{}") -> Answer:
    return Answer(text="", tool_calls=(ScriptedCall(name, arguments),))


def serve(*replies: Any) -> LoopbackProvider:
    return LoopbackProvider(Script(replies[0] if len(replies) == 1 else Cycle(replies)))


# --- every wire format ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_is_called_and_its_result_answered_in_every_wire_format(system: penstock.System, dialect: str) -> None:
    with LoopbackProvider(default_script(10_000)) as provider:
        agent = talk_to(system, provider, dialect, tools=[get_weather], system_prompt="Be brief.")
        collector = Collector(agent.stream_chat("How is the weather?"))
        terminal = collector.wait_for_terminal()
        collector.check()
        assert isinstance(terminal, penstock.StreamCompleted), terminal
        assert terminal.text.startswith("The tool says:")
        assert "21" in terminal.text
        assert [(status, '"temperature":21' in content) for _, status, content in results(collector.events)] == [
            ("ok", True)
        ]
        names = kinds(collector.events)
        assert names[0] == "StreamStarted"
        order = ["ToolCallStarted", "ToolCallCompleted", "ToolExecutionStarted", "ToolResult", "TokenEvent"]
        assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)
        assert terminal.usage is not None
        assert len(provider.requests) == 2
        check_history(agent.history)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_history_is_taken_in_every_wire_format_whatever_was_cut_off(system: penstock.System, dialect: str) -> None:
    talk = Answer(text="one two three four", tokens_per_second=10_000)
    replies = (
        call("get_weather", '{"city": "Zürich"}'),
        Answer(text="Fine. ", tool_calls=(ScriptedCall("get_weather", '{"city": '), ScriptedCall("nothing", "{}"))),
        talk,
        talk.replace(text="a b c d e f", faults=(ErrorFrame(2),)),
        talk.replace(text="a b c d e f", faults=(ResetAfter(2),)),
        talk,
    )
    once = penstock.RequestOptions(max_retries=0)
    with serve(*replies) as provider:
        agent = talk_to(system, provider, dialect, tools=[get_weather], model="m", request_options=once)
        assert agent.stream_chat("First?").result(10).text.endswith("one two three four")
        for question in ("Second?", "Third?"):
            with pytest.raises(penstock.ProviderError):
                agent.stream_chat(question).result(10)
        cancelled = agent.stream_chat("Fourth?")
        cancelled.cancel()
        assert agent.stream_chat("Fifth?").result(10).text
        check_history(agent.history)
        for request in provider.requests:
            check_wire(dialect, request.messages)


def check_wire(dialect: str, messages: list[dict[str, Any]]) -> None:
    """What the strictest servers of a dialect require."""
    roles = [message.get("role") for message in messages]
    if dialect in ("anthropic", "gemini"):
        assert roles[0] == "user"
        assert all(one != other for one, other in pairwise(roles)), roles
    elif dialect in ("openai", "ollama"):
        assert ("user", "user") not in set(pairwise(roles)), roles
        assert ("tool", "user") not in set(pairwise(roles)), roles


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_is_cancelled_at_the_provider_too(system: penstock.System, dialect: str) -> None:
    with serve(Answer(text="one two three four five six", faults=(StallAfter(2),))) as provider:
        agent = talk_to(system, provider, dialect, model="m")
        stream = agent.stream_chat("Count.")
        eventually(lambda: stream.text)
        stream.cancel()
        provider.wait_for(lambda seen: seen.active_responses == 0, 5.0)
        assert agent.history[-1]["content"] == stream.text


# --- tools that block ----------------------------------------------------------------------------------------------


def tool_caller(*names: str) -> Callable[[ReceivedRequest], Answer]:
    """Calls the tools, and says "done" when it has their results."""

    def reply(request: ReceivedRequest) -> Answer:
        if request.tool_result is not None:
            return Answer(text="done")
        return Answer(text="", tool_calls=tuple(ScriptedCall(name, "{}") for name in names))

    return reply


def test_tools_that_block_hold_up_nobody_else() -> None:
    free, blocked = threading.Event(), threading.Semaphore(0)

    def block() -> str:
        blocked.release()
        return "free" if free.wait(20) else "stuck"

    settings = penstock.Settings.load(runtime={"workers": 1})
    with serve(tool_caller(*["block"] * 5)) as provider, penstock.System(settings) as system:
        agents = [talk_to(system, provider, "openai", model="m", tools=[block]) for _ in range(8)]
        streams = [agent.stream_chat("Go.") for agent in agents]
        for _ in range(5 * len(agents)):
            assert blocked.acquire(timeout=10)
        quick = system.open_stream()
        quick.process_text("still here")
        quick.stop()
        assert quick.result(5).text == "still here"
        assert system._tool_quota.taken == 40
        free.set()
        assert [stream.result(10).text for stream in streams] == ["done"] * 8
        eventually(lambda: system._tool_quota.taken == 0)


def test_tools_hold_no_more_threads_than_are_theirs() -> None:
    free, at_once, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def block() -> str:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        free.wait(20)
        with lock:
            at_once[0] -= 1
        return "free"

    settings = penstock.Settings.load(runtime={"max_spares": 8})
    with serve(tool_caller(*["block"] * 5)) as provider, penstock.System(settings) as system:
        agents = [talk_to(system, provider, "openai", model="m", tools=[block]) for _ in range(4)]
        streams = [agent.stream_chat("Go.") for agent in agents]
        eventually(lambda: at_once[0] == 4)
        free.set()
        assert [stream.result(10).text for stream in streams] == ["done"] * 4
        assert most[0] == 4


def test_a_tool_that_does_not_stop_is_cut_off_and_its_thread_counted(system: penstock.System) -> None:
    free = threading.Event()

    def deaf() -> str:
        free.wait(20)
        return "too late"

    options = penstock.AgentOptions(tool_timeout=1.0)
    with serve(tool_caller("deaf")) as provider:
        agent = talk_to(system, provider, "openai", model="m", tools=[deaf], agent_options=options)
        collector = Collector(agent.stream_chat("Go."))
        assert collector.wait_for_terminal().text == "done"
        assert [status for _, status, _ in results(collector.events)] == ["timeout"]
        assert system.statistics().dispatcher.leaked == 1
        assert system._tool_quota.taken == 1
        free.set()
        eventually(lambda: system._tool_quota.taken == 0)
        eventually(lambda: system.statistics().dispatcher.leaked == 0)
        assert "too late" not in str(agent.history)


def test_an_async_tool_is_cancelled_with_its_stream(system: penstock.System) -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with serve(tool_caller("forever")) as provider:
        agent = talk_to(system, provider, "openai", model="m", tools=[forever])
        stream = agent.stream_chat("Go.")
        assert began.wait(10)
        stream.cancel()
        assert cancelled.wait(10)
        assert [message["role"] for message in agent.history] == ["user", "assistant", "tool", "assistant"]
        assert agent.history[-1]["content"] == INTERRUPTED
        eventually(lambda: system._tool_quota.taken == 0)


def test_a_tool_hears_that_the_system_stops(capsys: pytest.CaptureFixture[str]) -> None:
    began, told = threading.Event(), threading.Event()

    def patient(context: penstock.ToolContext) -> str:
        began.set()
        assert context.cancelled.wait(20)
        told.set()
        return "I was told"

    with serve(tool_caller("patient")) as provider:
        with penstock.System(penstock.Settings()) as system:
            agent = talk_to(system, provider, "openai", model="m", tools=[patient])
            stream = agent.stream_chat("Go.")
            assert began.wait(10)
        assert told.wait(10)
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)


def test_a_function_that_asks_a_human_holds_up_nobody(system: penstock.System) -> None:
    asked, verdict = threading.Event(), threading.Event()

    def approve(call: penstock.ToolCall) -> bool:
        asked.set()
        return verdict.wait(20)

    with serve(tool_caller("get_time")) as provider:
        agent = talk_to(system, provider, "openai", model="m", tools=[penstock.tool(name="get_time")(lambda: "noon")],
                        approve=approve)  # fmt: skip
        stream = agent.stream_chat("Go.")
        assert asked.wait(10)
        assert agent.state == "working"
        verdict.set()
        assert stream.result(10).text == "done"


# --- many ----------------------------------------------------------------------------------------------------------


def test_many_agents_answer_many_messages_each_in_order(system: penstock.System) -> None:
    def double(x: int) -> int:
        return 2 * x

    def reply(request: ReceivedRequest) -> Answer:
        if request.tool_result is not None:
            return Answer(text=f"{request.last_user_text}: {request.tool_result}")
        return Answer(text="", tool_calls=(ScriptedCall("double", f'{{"x": {request.last_user_text}}}'),))

    with serve(reply) as provider:
        agents = [talk_to(system, provider, "openai", model="m", tools=[double]) for _ in range(20)]
        streams = [[agent.stream_chat(str(number)) for number in range(5)] for agent in agents]
        for agent, own in zip(agents, streams, strict=True):
            assert [stream.result(30).text for stream in own] == [f"{number}: {2 * number}" for number in range(5)]
            check_history(agent.history)
            assert len(agent.history) == 20


def test_messages_of_many_threads_are_all_answered(system: penstock.System) -> None:
    with serve(Answer(text="yes")) as provider:
        agent = talk_to(system, provider, "openai", model="m")
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda number: agent.stream_chat(f"{number}").result(30).text, range(40)))
        assert texts == ["yes"] * 40
        said = [message["content"] for message in agent.history if message["role"] == "user"]
        assert sorted(said, key=int) == [str(number) for number in range(40)]


def test_an_answer_is_read_in_an_event_loop(system: penstock.System) -> None:
    async def read() -> list[str]:
        stream = agent.stream_chat("How is the weather?")
        return [type(event).__name__ async for event in stream]

    with LoopbackProvider(default_script(10_000)) as provider:
        agent = talk_to(system, provider, "openai", tools=[get_weather])
        names = asyncio.run(read())
        assert (names[0], names[-1]) == ("StreamStarted", "StreamCompleted")


def test_whoever_is_killed_meanwhile_nothing_hangs_and_no_call_is_run_twice(system: penstock.System) -> None:
    chance, runs, numbers = random.Random(7), Counter[int](), itertools.count(1)

    def work(number: int) -> str:
        runs[number] += 1
        return str(number)

    def reply(request: ReceivedRequest) -> Answer:
        if request.tool_result is not None and next(numbers) % 3:
            return Answer(text="done")
        calls = [ScriptedCall("work", f'{{"number": {next(numbers)}}}') for _ in range(3)]
        return Answer(text="hm ", tool_calls=tuple(calls), tokens_per_second=500)

    over = threading.Event()

    def axe() -> None:
        while not over.wait(chance.random() * 0.05):
            kind = chance.choice(["AgentProcess", "TokenStream", "Integration", "Task", "Task"])
            alive = [ref for ref, process in list(system.runtime._alive.items()) if type(process).__name__ == kind]
            if alive:
                system.runtime.exit(chance.choice(alive), "kill")

    with serve(reply) as provider:
        agents = [talk_to(system, provider, "openai", model="m", tools=[work]) for _ in range(6)]
        killer = threading.Thread(target=axe)
        killer.start()
        try:
            ended = [_end_of(agent, "Go.") for _ in range(15) for agent in agents]
        finally:
            over.set()
            killer.join()
        assert "StreamCompleted" in ended
        assert set(runs.values()) <= {1}
        eventually(lambda: system._tool_quota.taken == 0)
        for agent in agents:
            check_history(agent.history)
            assert not agent.is_alive or _end_of(agent, "Once more.") in ("StreamCompleted", "ToolRoundsExceeded")


def _end_of(agent: penstock.Agent, message: str) -> str:
    try:
        return type(agent.stream_chat(message).result(30)).__name__
    except penstock.CallTimeout:
        raise
    except penstock.PenstockError as error:
        return type(error).__name__
