"""`Stream.insights` in virtual time: what it counts, tells and ends, and that it is no burden."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock import LoopDetected, RunawayAnswer, StallDetected, StreamFailed, ToolExecutionStarted, ToolResult
from penstock.errors import OptionError
from penstock.testing import Collector, ScriptedProvider, SimulatedSystem, check_log
from tests.unit.toolbox.single import system

__all__ = ["system"]

LOOP = "and so on and "


def told(collector: Collector, kind: type) -> list[Any]:
    return [event for event in collector.events if isinstance(event, kind)]


def test_it_counts_and_measures(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    insights = stream.insights()
    for piece in ("One two. ", "Three!\n", "```py\n", "x = 1\n", "```"):
        stream.process_token(piece)
        system.advance(0.1)
    stream.sink().push_now([("thought", "reasoning")], lambda: None)
    stream.stop()
    report = insights.report()
    assert (report.characters, report.reasoning_characters) == (31, 7)
    assert (report.words, report.sentences, report.lines, report.code_blocks) == (8, 3, 4, 1)
    assert report.tokens == 6
    assert report.inter_token_p50_s == pytest.approx(0.1)
    assert report.inter_token_p99_s == pytest.approx(0.1)
    assert report.tokens_per_second == pytest.approx(12.0)
    assert (report.stalls, report.loops, report.last_loop) == (0, 0, None)


def test_a_reset_begins_the_counts_anew(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    with stream.insights() as insights:
        stream.process_token("void")
        system.settle()
        stream.reset("again")
        stream.process_token("valid text")
        system.settle()
        assert (insights.report().characters, insights.report().words) == (10, 2)
    stream.process_token("more")
    system.settle()
    assert insights.report().characters == 10  # it is closed
    stream.stop()


def test_it_is_no_subscriber_and_nothing_waits_for_it(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", 5.0, "b ", 5.0, "c"])
    stream = system.chat("m", "Hello", provider=provider)
    insights = stream.insights()
    assert stream.statistics().subscribers == 0
    reader = stream.events()
    reader.next()
    reader.close()
    system.settle()
    assert stream.is_over  # `on_orphan`: the last subscriber has left
    assert insights.report().characters == 2

    stream = system.open_stream("s", penstock.SAFE.replace(batch_size=1))
    insights = stream.insights()
    stream.process_tokens(["x"] * 5000)
    stream.stop()
    assert insights.report().characters == 5000


def test_a_late_one_begins_with_what_has_been_folded(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE.replace(retain_bytes=0))
    stream.process_tokens(["word "] * 300)
    system.settle()
    insights = stream.insights()
    stream.process_tokens(["word "] * 10)
    stream.stop()
    assert (insights.report().characters, insights.report().words) == (1550, 310)


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_stall_is_told_once_and_again_after_the_next_token(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", penstock.SAFE)
        insights = stream.insights()
        collector = Collector(stream)
        for _ in range(3):
            stream.process_token("a")
            system.advance(0.3)
        assert not told(collector, StallDetected)
        system.advance(20)
        (stall,) = told(collector, StallDetected)
        assert stall.limit == pytest.approx(2.4)
        assert stall.seconds == pytest.approx(2.4)
        assert insights.report().is_stalled
        stream.process_token("b")
        system.advance(1)
        assert not insights.report().is_stalled
        stream.process_token("c")
        stream.stop()
        assert insights.report().stalls == 1


def test_the_wait_for_the_first_token_is_a_stall_too(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    stream.insights()
    collector = Collector(stream)
    system.advance(2.5)
    assert [stall.seconds for stall in told(collector, StallDetected)] == [2.0]
    stream.stop()


def test_neither_a_tool_nor_a_pause_is_a_stall(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    stream.insights()
    collector = Collector(stream)
    stream.process_token("a")
    call = penstock.ToolCall(id="c", name="f", arguments={})
    stream.sink().push_event(ToolExecutionStarted(round=1, calls=(call,)))
    system.advance(30)
    stream.sink().push_event(ToolResult(call_id="c", name="f", status="ok", content="", duration_s=30.0))
    system.advance(1)
    stream.process_token("b")
    system.settle()
    stream.pause()
    stream.process_token("held")
    system.advance(30)
    assert not told(collector, StallDetected)
    stream.resume()
    system.settle()
    stream.process_token("c")
    system.advance(2.5)
    assert not told(collector, StallDetected)  # 30 s are not unusual here
    stream.stop()


def test_silence_after_a_tool_is_a_stall_by_the_usual_time(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    stream.insights()
    collector = Collector(stream)
    stream.process_token("a")
    call = penstock.ToolCall(id="c", name="f", arguments={})
    stream.sink().push_event(ToolExecutionStarted(round=1, calls=(call,)))
    system.advance(30)
    stream.sink().push_event(ToolResult(call_id="c", name="f"))
    stream.process_token("b")
    system.advance(2.5)
    assert [stall.limit for stall in told(collector, StallDetected)] == [2.0]
    stream.stop()


@pytest.mark.parametrize("kind", ["text", "reasoning"])
def test_a_loop_is_told_once(system: SimulatedSystem, kind: Any) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    stream.insights()
    collector = Collector(stream)
    stream.sink().push_now([("Well:\n", kind)], lambda: None)
    for _ in range(100):
        stream.sink().push_now([(LOOP, kind)], lambda: None)
        system.settle()
    stream.stop()
    collector.wait_for_terminal()
    (loop,) = told(collector, LoopDetected)
    assert (loop.kind, loop.period) == (kind, len(LOOP))
    assert loop.start == 6
    assert loop.repeats >= 4
    assert loop.repeats * loop.period >= 200 - loop.period
    check_log(stream)


def test_a_loop_that_goes_on_ends_the_stream_when_that_is_asked_for(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["Well:\n", *[LOOP] * 10_000])
    stream = system.chat("m", "Hello", provider=provider)
    insights = stream.insights(on_loop="cancel")
    collector = Collector(stream)
    terminal = collector.wait_for_terminal()
    assert isinstance(terminal, StreamFailed)
    assert isinstance(terminal.error, RunawayAnswer)
    assert terminal.partial == terminal.error.partial == "Well:\n" + LOOP
    assert (terminal.error.kind, terminal.error.period, terminal.error.start) == ("text", len(LOOP), 6)
    assert 1000 <= insights.report().characters < 20_000
    assert len(told(collector, LoopDetected)) == 1
    with pytest.raises(RunawayAnswer, match="repeated 14 characters"):
        stream.result()
    check_log(stream)


def test_a_reasoning_loop_keeps_the_text(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    stream.insights(on_loop="cancel", min_repeats=4, min_characters=200)
    stream.process_token("The answer")
    for _ in range(200):
        if stream.is_over:
            break
        stream.sink().push_now([(LOOP, "reasoning")], lambda: None)
        system.settle()
    with pytest.raises(RunawayAnswer) as caught:
        stream.result()
    assert (caught.value.kind, caught.value.partial) == ("reasoning", "The answer")


def test_in_a_code_block_it_takes_three_thousand_characters(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    insights = stream.insights(on_loop="cancel")
    stream.process_token("```\n")
    count = 0
    while not stream.is_over:
        stream.process_token("0, ")
        system.settle()
        count += 3
        assert count < 4000
    assert count >= 3000
    assert insights.report().loops == 1


@pytest.mark.parametrize(("asked", "loops"), [(False, 0), (True, 1)])
def test_arguments_are_searched_only_if_asked_for_and_never_end_the_stream(
    system: SimulatedSystem, asked: bool, loops: int
) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    insights = stream.insights(on_loop="cancel", arguments=asked)
    for _ in range(300):
        stream.sink().push_event(penstock.ToolCallDelta(index=0, text='"0", "0", '))
    stream.stop()
    report = insights.report()
    assert report.loops == loops
    assert not asked or (report.last_loop is not None and report.last_loop.kind == "arguments")
    assert stream.result().text == ""


def test_arguments_are_searched_for_each_input_by_itself(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    insights = stream.insights(arguments=True)
    for number in range(300):
        for text, origin in (('"0", "0", ', "a"), (f"{number**3} ", "b")):
            stream.sink().push_event(penstock.ToolCallDelta(index=0, text=text, origin=origin))
    stream.stop()
    assert insights.report().loops == 1


def test_a_derived_stream_has_the_whole_text_that_it_was_given(system: SimulatedSystem) -> None:
    stream = system.open_stream("s", penstock.SAFE)
    loud = stream.map(str.upper)
    stream.insights(on_loop="cancel")
    while not stream.is_over:
        stream.process_token(LOOP)
        system.settle()
    with pytest.raises(RunawayAnswer):
        loud.result(10)
    assert len(loud.text) >= 1000
    assert loud.text.startswith(LOOP.upper())


@pytest.mark.parametrize(
    ("arguments", "field", "allowed"),
    [
        ({"on_loop": "stop"}, "on_loop", "'report' | 'cancel'"),
        ({"min_repeats": 3}, "min_repeats", "a whole number from 4 to 1000000"),
        ({"min_characters": 100}, "min_characters", "a whole number from 200 to 1000000000 or None"),
        ({"arguments": 1}, "arguments", "True | False"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(
    system: SimulatedSystem, arguments: dict[str, Any], field: str, allowed: str
) -> None:
    stream = system.open_stream("s")
    with pytest.raises(OptionError) as caught:
        stream.insights(**arguments)
    assert (caught.value.field, caught.value.allowed) == (field, allowed)
    stream.stop()
