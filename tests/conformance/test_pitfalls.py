"""What other streaming systems were seen to do wrong (docs/pitfalls.md): the rows that no other test shows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import penstock
from penstock.adapters.loopback.faults import DelayFirstByte, MalformedJson, StallAfter
from penstock.adapters.loopback.replay import Replay
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import ProviderOptions, RuntimeOptions
from penstock.events import Cost, FinishReason
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.agents import Bench, agent_on, ask, check_history, say, until
from tests.conformance.common import FAST, assert_nothing_is_left, sink

pytestmark = pytest.mark.seeds(5)
ONCE = penstock.RequestOptions(max_retries=0)
HELLO = [{"role": "user", "content": "Hello"}]


class Point(BaseModel):
    x: int


@pytest.fixture
def system(seed: int) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed) as system:
        yield system
    assert_nothing_is_left(system)


@pytest.fixture
def bench(system: SimulatedSystem) -> Bench:
    return Bench(system)


def chat(system: SimulatedSystem, *steps: Any, **more: Any) -> penstock.Stream:
    more.setdefault("options", FAST)
    return system.chat("m", HELLO, provider=ScriptedProvider(list(steps)), request_options=ONCE, **more)


# --- row 7: what it used ---------------------------------------------------------------------------------------------


PRICES = """
[scripted]
names = ["scripted"]
[scripted.models]
m = { input = 1_000, output = 2_000 }
"""


def test_row_07_what_was_used_before_a_cancel_is_billed_though_the_provider_has_told_nothing(
    seed: int, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    with SimulatedSystem(seed, penstock.Settings(prices=str(prices))) as system:
        asked = [{"role": "user", "content": "x" * 36}]
        stream = system.chat("m", asked, provider=ScriptedProvider(["12345678", HANG]), options=FAST)
        collector = Collector(stream)
        system.advance(1)
        stream.cancel()
        end = collector.wait_for_terminal()
        assert end.usage is None, "nobody has told, which is not the same as 0"
        assert end.cost == Cost(amount=0.014, is_estimate=True)
        assert stream.statistics().cost == end.cost


# --- rows 12 and 13: failures and leftovers --------------------------------------------------------------------------


def test_row_12_one_stream_that_stalls_ends_alone_whatever_it_shares_with_the_others(system: SimulatedSystem) -> None:
    slow = ScriptedAttempt(("one ", 30.0, "two"))
    provider = ScriptedProvider(ScriptedAttempt(("one ", HANG)), *[slow] * 9)
    reader, told = sink(system)
    before = set(system.runtime.processes())
    options = ONCE.replace(idle_timeout=10.0)
    patient = ONCE.replace(idle_timeout=60.0)
    streams = [
        system.chat("m", HELLO, provider=provider, options=FAST, request_options=patient if number else options)
        for number in range(10)
    ]
    for stream in streams:
        stream.subscribe(reader)
        system.advance(0.01)  # so that they take their scripts in order
    system.advance(15)
    assert [stream.is_over for stream in streams] == [True] + [False] * 9
    with pytest.raises(penstock.ProviderTimeout, match="idle") as stalled:
        streams[0].result()
    assert stalled.value.partial == "one "
    assert [stream.result(60).text for stream in streams[1:]] == ["one two"] * 9
    system.settle()
    assert sum(isinstance(event, penstock.StreamFailed) for event in told) == 1
    assert sum(isinstance(event, penstock.StreamCompleted) for event in told) == 9
    assert set(system.runtime.processes()) >= before, "nobody had to be restarted"
    assert system.scripted.open == 0
    system.runtime.exit(reader, "kill")


def test_row_13_in_a_system_that_runs_on_nothing_is_left_of_streams_that_were_given_up(system: SimulatedSystem) -> None:
    system.advance(1)
    before, timers = len(system.runtime.processes()), len(system.simulation.runtime.timers)
    for number in range(20):
        give_up_in_every_way(system, number)
        system.advance(0.1)
    system.advance(200)  # beyond all times to live and times to linger
    system.advance(1)
    assert system.scripted.open == 0
    assert system.get_active_streams() == []
    assert len(system.runtime.processes()) == before, system.tree()
    assert len(system.simulation.runtime.timers) <= timers
    with pytest.raises(penstock.StreamNotFound):
        system.get_stream_info("unread-0")


def give_up_in_every_way(system: SimulatedSystem, number: int) -> None:
    never_read = FAST.replace(time_to_live=5.0)
    chat(system, "a", HANG, options=never_read, stream_id=f"unread-{number}")
    system.open_stream(options=never_read)
    events = chat(system, "a", HANG).events()
    next(events)
    del events
    with chat(system, "a", HANG, on_orphan=3.0).events():
        pass
    chat(system, HANG).cancel()
    reader, _ = sink(system)
    chat(system, "a", HANG).subscribe(reader)
    agent, _ = agent_on(system, say("a", HANG), name=f"agent-{number}")
    agent.stream_chat("Hi.", reader)
    system.settle()
    system.runtime.exit(reader, "kill")


# --- row 15: calls of answers that did not end well ------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["content_filter", "refusal", "other"])
def test_row_15_a_whole_call_of_an_answer_that_did_not_end_well_is_not_run(
    system: SimulatedSystem, bench: Bench, finish: FinishReason
) -> None:
    agent, script = agent_on(system, ask(("a", "double", '{"x": 1}'), finish=finish), tools=bench.tools())
    end = agent.stream_chat("Go.").result(60)
    assert (end.finish_reason, [call.arguments for call in end.tool_calls]) == (finish, [{"x": 1}])
    assert (bench.runs, script.requests) == ([], 1)
    check_history(agent.history)


# --- row 16: nothing is final before the end -------------------------------------------------------------------------


def test_row_16_what_is_said_before_a_call_is_not_taken_for_the_answer(system: SimulatedSystem, bench: Bench) -> None:
    first = ask(("a", "double", '{"x": 21}'), text='{"x": 0}', finish="stop")
    agent, _ = agent_on(system, first, say('{"x"', ": 4", "2}"), tools=bench.tools())
    stream = agent.stream_chat("Go.")
    answer = penstock.structured(stream, Point)
    values = list(answer)
    assert bench.runs == ["double 21"], "though the provider said stop"
    assert values[-1] == {"x": 42}
    assert answer.result(5) == Point(x=42)
    assert stream.result(5).text == '{"x": 0}{"x": 42}'


# --- row 20: readers that leave or raise -----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["answer", "tool"])
def test_row_20_leaving_an_agents_loop_ends_its_call_its_tools_and_its_turn(
    system: SimulatedSystem, bench: Bench, phase: str
) -> None:
    first = say("Let ", HANG) if phase == "answer" else ask(("a", "wait", '{"seconds": 500}'), text="Let ")
    agent, _ = agent_on(system, first, say("Well."), tools=bench.tools())
    stream = agent.stream_chat("Go.")
    wanted = penstock.TokenEvent if phase == "answer" else penstock.ToolExecutionStarted
    for event in stream:
        if isinstance(event, wanted):
            break
    system.settle()
    with pytest.raises(penstock.StreamCancelledError, match="no subscriber is left"):
        stream.result()
    assert system.scripted.open == 0
    assert [context.is_cancelled for context in bench.contexts.values()] == [True] * len(bench.contexts)
    assert bench.at_work == 0
    assert agent.stream_chat("Still there?").result(60).text == "Well."
    check_history(agent.history)


# --- the functions and the agent -------------------------------------------------------------------------------------


def test_line_37_what_nobody_understands_of_a_providers_stream_is_counted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty = Script(Answer("a b c", faults=(MalformedJson(1), MalformedJson(2))))
    with (
        caplog.at_level(logging.DEBUG, logger="penstock"),
        LoopbackProvider(faulty) as provider,
        penstock.System(penstock.Settings(chat=FAST)) as system,
    ):
        stream = system.chat("m", HELLO, provider="loopback", base_url=provider.base_url)
        assert stream.result(10).text == "a b c"
        said = [record.getMessage() for record in caplog.records if "not_understood" in record.getMessage()]
    assert len(said) == 1
    assert "count=2" in said[0]
    assert stream.stream_id in said[0]


def test_line_44_an_agents_answer_that_may_go_on_without_readers_is_given_to_the_end(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, _ = agent_on(system, ask(("a", "wait", '{"seconds": 5}')), say("Done."), tools=bench.tools())
    reader, _ = sink(system)
    stream = agent.stream_chat("Go.", reader, on_orphan="continue")
    until(system, lambda: "a" in bench.contexts)
    system.runtime.exit(reader, "kill")
    assert stream.result(60).text == "Done."
    assert bench.runs == ["wait 5"]
    assert not bench.contexts["a"].is_cancelled


# --- further ---------------------------------------------------------------------------------------------------------

MALFORMED = (
    b'data: {"candidates":[{"content":{"role":"model"%s},"finishReason":"MALFORMED_FUNCTION_CALL","index":0}]}\r\n\r\n'
)
WITH_A_CALL = b',"parts":[{"functionCall":{"name":"run","args":{"x":1}}}]'


@pytest.mark.parametrize(("part", "calls"), [(b"", 0), (WITH_A_CALL, 1)], ids=["nothing", "a call"])
def test_further_geminis_malformed_call_is_no_plain_success_and_is_not_run(part: bytes, calls: int) -> None:
    runs: list[int] = []

    def run(x: int) -> None:
        runs.append(x)

    with LoopbackProvider(Script(Replay(MALFORMED % part))) as provider, penstock.System() as system:
        agent = system.agent(model="m", provider="gemini", base_url=provider.url, api_key="k", tools=[run])
        end = agent.stream_chat("Go.").result(10)
        assert (end.finish_reason, end.raw_finish_reason) == ("other", "MALFORMED_FUNCTION_CALL")
        assert (end.text, len(end.tool_calls), runs) == ("", calls, [])
        assert len(provider.requests) == 1
        check_history(agent.history)


Leave = Callable[[penstock.Stream], object]
NEVER_STARTED: dict[str, Leave] = {
    "events": lambda stream: stream.events(),
    "iter": lambda stream: iter(stream),
    "aevents": lambda stream: stream.aevents(),
    "aiter": lambda stream: aiter(stream),
}


@pytest.mark.parametrize("how", NEVER_STARTED)
def test_further_an_iterator_that_was_never_started_gives_back_its_seat_its_call_and_its_place(
    seed: int, how: str
) -> None:
    settings = penstock.Settings(providers={"scripted": ProviderOptions(concurrent_streams=1)})
    with SimulatedSystem(seed, settings) as system:
        provider = ScriptedProvider(["a", HANG], ["b"])
        first = system.chat("m", HELLO, provider=provider, options=FAST)
        second = system.chat("m", HELLO, provider=provider, options=FAST)
        system.advance(1)
        assert system.get_stream_info(second.stream_id).source == "limited"
        events = NEVER_STARTED[how](first)
        assert system.get_stream_info(first.stream_id).subscriber_count == 1
        del events
        assert second.result(5).text == "b"
        assert first.is_over
        assert system.scripted.open == 0


def test_further_a_structured_answer_that_is_left_or_never_begun_holds_nothing(system: SimulatedSystem) -> None:
    stream = chat(system, '{"x": 1', HANG)
    values = iter(penstock.structured(stream, Point))
    del values
    assert system.get_stream_info(stream.stream_id).subscriber_count == 0
    for value in penstock.structured(stream, Point):
        assert value == {"x": 1}
        break
    system.advance(1)
    assert stream.is_over
    assert system.scripted.open == 0


def test_further_a_task_that_leaves_a_structured_answer_closes_the_connection() -> None:
    async def leave(stream: penstock.Stream) -> None:
        async for value in penstock.structured(stream, Point):
            assert value == {"x": 1}
            break

    stalling = Script(Answer(tokens=('{"x": 1', ", ", "}"), faults=(StallAfter(2),)))
    with LoopbackProvider(stalling) as provider, penstock.System() as system:
        stream = system.chat("m", HELLO, provider="loopback", base_url=provider.base_url, options=FAST)
        asyncio.run(leave(stream))
        provider.wait_for(lambda counts: counts.client_disconnects == 1)
        with pytest.raises(penstock.StreamCancelledError):
            stream.result(5)


def test_further_calls_that_were_given_up_keep_no_reader_from_the_next_one() -> None:
    """With two threads to read, of which either would be lost to the first call that leaks."""
    models = {
        "silent": Answer("a", faults=(DelayFirstByte(None),)),
        "stalled": Answer("a b c", faults=(StallAfter(2),)),
        "fine": Answer("fine"),
    }
    settings = penstock.Settings(chat=FAST, runtime=RuntimeOptions(reader="threads", reader_threads=2))
    with LoopbackProvider(Script(models=models)) as provider, penstock.System(settings) as system:
        for number in range(10):
            before = provider.statistics()
            model = ("silent", "stalled")[number % 2]
            stream = system.chat(model, HELLO, provider="loopback", base_url=provider.base_url)
            collector = Collector(stream)
            provider.wait_for(lambda counts, n=before.faults_injected: counts.faults_injected > n)  # type: ignore[misc]
            stream.cancel()
            collector.wait_for_terminal(10)
            provider.wait_for(lambda counts, n=number: counts.client_disconnects == n + 1)  # type: ignore[misc]
        end = system.chat("fine", HELLO, provider="loopback", base_url=provider.base_url).result(10)
        assert end.text == "fine"
        provider.wait_for(lambda counts: counts.active_responses == 0)
