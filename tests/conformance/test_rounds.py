"""Tool events while an answer comes, and sources that are conducted round by round."""

from __future__ import annotations

import random
from typing import Any

import pytest

import penstock
from penstock.actors.call.messages import RoundEnded
from penstock.actors.call.record import CallRecord, Conductor
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import all_rounds
from penstock.adapters.providers.catalogue import ProviderChoice
from penstock.errors import ApiError, IncompleteStream
from penstock.events import ToolCallCompleted, ToolCallDelta, ToolCallStarted
from penstock.ports import ChatCall, ReasoningDelta, TextDelta, ToolCallFragment
from penstock.supervisors.system.handler import HANDLER, StartSource
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_all_is_well, assert_nothing_is_left

BUSY = ApiError(503, "busy", retryable=True)
QUICK = penstock.RequestOptions(retry_base_delay=0.1)
F = ToolCallFragment


def shape(events: list[Any]) -> list[Any]:
    """What came, in short."""
    said: list[Any] = []
    for event in events:
        match event:
            case penstock.TokenEvent(text=text):
                said.append(text)
            case ToolCallStarted(index=index):
                said.append(f"started {index}")
            case ToolCallDelta(index=index, text=text):
                said.append(f"{index}: {text}")
            case ToolCallCompleted(index=index):
                said.append(f"completed {index}")
            case _:
                said.append(type(event).__name__)
    return said


# --- tool events -----------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_calls_are_told_of_among_the_text_in_the_order_of_coming(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        steps: list[Any] = [
            "a",
            F(index=0, id="x", name="f"),
            [TextDelta("b"), F(index=0, arguments="{"), TextDelta("c"), F(index=1, id="y", name="g", arguments="{}")],
            F(index=0, arguments="}", is_server=True),
        ]
        provider = ScriptedProvider(ScriptedAttempt(tuple(steps), finish="tool_calls"))
        stream = system.chat("m", "Hello", provider=provider, options=FAST)
        collector = Collector(stream)
        completed = stream.result(timeout=10)
        system.settle()
        assert shape(collector.events) == [
            "a", "started 0", "b", "0: {", "c", "started 1", "1: {}", "0: }",
            "completed 0", "completed 1", "StreamCompleted",
        ]  # fmt: skip
        assert [call.is_server for call in completed.tool_calls] == [True, False]
        told = [event.call for event in collector.events if isinstance(event, ToolCallCompleted)]
        assert told == list(completed.tool_calls)
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.parametrize("end", [BUSY, None])
def test_a_call_of_an_answer_that_breaks_off_is_never_completed(end: ApiError | None) -> None:
    with SimulatedSystem(3) as system:
        steps: tuple[Any, ...] = ("a", F(index=0, id="x", name="f", arguments="{}"), *([end] if end else []))
        provider = ScriptedProvider(ScriptedAttempt(steps, finish=None))
        stream = system.chat("m", "Hello", provider=provider, options=FAST)
        collector = Collector(stream)
        collector.wait_for_terminal()
        assert shape(collector.events) == ["a", "started 0", "0: {}", "StreamFailed"]


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_a_reset_voids_calls_too(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(
            ["a", F(index=0, id="x", name="f", arguments="{"), 0.2, BUSY],
            [F(index=0, id="y", name="g", arguments="{}")],
        )
        options = QUICK.replace(on_interrupt="restart")
        stream = system.chat("m", "Hello", provider=provider, options=FAST, request_options=options)
        collector = Collector(stream)
        completed = stream.result(timeout=10)
        system.settle()
        assert [call.name for call in completed.tool_calls] == ["g"]
        at = shape(collector.events).index("StreamReset")
        assert shape(collector.events)[at:] == ["StreamReset", "started 0", "0: {}", "completed 0", "StreamCompleted"]
        assert "completed 0" not in shape(collector.events)[:at]
        assert_all_is_well(system, [stream], [collector])


# --- rounds ----------------------------------------------------------------------------------------------------------


class Rounds(Process):
    """Asks so many rounds, then ends the stream as the last one ended."""

    in_pykka_registry = False

    def __init__(self, rounds: int, ended: list[Any]) -> None:
        super().__init__()
        self._rounds = rounds
        self._ended = ended

    def on_receive(self, message: Any) -> None:
        assert isinstance(message, RoundEnded)
        record, call = message.record, message.record.feed
        assert isinstance(call, CallRecord)
        assert record.ending is None
        self._ended.append(message)
        record.rounds = (*record.rounds, message.outcome)
        if message.error is None and len(self._ended) < self._rounds:
            record.feed = call.next_round([{"role": "user", "content": "go on"}])
            handler = self.runtime.whereis(HANDLER)
            assert handler is not None
            handler.tell(StartSource(record))
            return
        total = all_rounds(record.rounds)
        record.propose(Complete(total) if message.error is None else Fail(message.error, total))


def conducted(
    system: SimulatedSystem, provider: ScriptedProvider, rounds: int, **options: Any
) -> tuple[penstock.Stream, list[Any], ProcessRef]:
    ended: list[Any] = []
    conductor = system.runtime.spawn(Rounds, rounds, ended)
    services, found = system._services, ProviderChoice(provider, "m", "scripted", False)
    call = services.call(found, ChatCall(model="m", input="Hello"), QUICK, conductor=Conductor("rounds", conductor))
    record = services.open_stream(None, FAST.replace(**options), metadata=None, on_orphan="continue", feed=call)
    return penstock.Stream(record, 5.0), ended, conductor


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
def test_a_conducted_source_has_as_many_rounds_as_are_asked_for(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([ReasoningDelta("hm"), "one "], [BUSY], ["two ", 0.1, "2 "], ["three"])
        stream, ended, conductor = conducted(system, provider, 3)
        collector = Collector(stream)
        assert stream.result(timeout=10).text == "one two 2 three"
        assert [each.error for each in ended] == [None] * 3
        assert [each.outcome.text for each in ended] == ["one ", "two 2 ", "three"]
        assert ended[0].outcome.reasoning == "hm"
        assert "one " not in repr(ended)
        system.runtime.exit(conductor, "kill")
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
def test_a_rounds_text_is_what_the_stream_took_however_it_is_cut_off(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        words: list[Any] = [
            [TextDelta(f"{number} ") for number in range(start, start + 3)] for start in range(0, 30, 3)
        ]
        provider = ScriptedProvider([step for word in words for step in (word, 0.05)])
        stream, ended, conductor = conducted(system, provider, 1, max_buffer_size=2, rate_limit=50)
        system.advance(chance.random() * 0.6)
        kill(system, f"source/{stream.stream_id}")
        system.advance(5)
        (ending,) = ended
        assert isinstance(ending.error, IncompleteStream)
        assert ending.outcome.text == stream.text
        system.runtime.exit(conductor, "kill")
        assert_all_is_well(system, [stream])


def test_a_stream_whose_conductor_is_dead_fails_when_the_round_ends() -> None:
    with SimulatedSystem(2) as system:
        stream, ended, conductor = conducted(system, ScriptedProvider(["a", 0.2, "b"]), 3)
        system.advance(0.1)
        system.runtime.exit(conductor, "kill")
        with pytest.raises(penstock.AgentCrashed, match="rounds") as caught:
            stream.result(timeout=5)
        assert (caught.value.partial, ended) == ("ab", [])
        assert_all_is_well(system, [stream])


def test_an_integration_that_cannot_be_kept_alive_is_told_to_the_conductor_as_a_failure() -> None:
    with SimulatedSystem(2) as system:
        stream, ended, conductor = conducted(system, ScriptedProvider([HANG]), 3)
        for _ in range(10):
            ref = stream._record.feed.ref  # type: ignore[union-attr]
            if ref is not None and ref.is_alive():
                system.runtime.exit(ref, "kill")
            system.advance(0.05)
        assert [type(each.error) for each in ended] == [penstock.StreamCrashed]
        system.runtime.exit(conductor, "kill")
        assert stream.is_over
        assert_nothing_is_left(system)


@pytest.mark.sample(5)
@pytest.mark.seeds(40)
def test_whoever_is_killed_each_round_is_told_once(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["a", 0.1, "b"])
        stream, ended, conductor = conducted(system, provider, 3)
        for _ in range(3):
            system.advance(chance.random() * 0.2)
            for _ in range(chance.randrange(20)):
                system.simulation.dispatcher.step()
            victim = chance.choice((HANDLER, "sources", f"source/{stream.stream_id}"))
            if system.runtime.whereis(victim) is not None:
                kill(system, victim)
        system.advance(10)
        assert stream.is_over
        # A round that breaks off behind its first delta fails, and is the last one.
        assert [each.error for each in ended[:-1]] == [None] * (len(ended) - 1)
        assert len(ended) <= 3
        system.runtime.exit(conductor, "kill")
        assert_all_is_well(system, [stream])
