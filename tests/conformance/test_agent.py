"""token-streams.md §4, §5: function calls while streaming, and the agent. Tests are named after the lines there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.agent.history import INTERRUPTED, NO_ANSWER
from penstock.actors.runtime.reply import Reply
from penstock.ports import ToolCallFragment
from penstock.testing import HANG, Collector, ScriptedAttempt, SimulatedSystem, kill
from tests.conformance.agents import Bench, SlowTool, agent_on, ask, check_history, kinds, results, say, until
from tests.conformance.common import assert_nothing_is_left, sink

pytestmark = pytest.mark.seeds(5)


@pytest.fixture
def system(seed: int) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed) as system:
        yield system
    assert_nothing_is_left(system)


@pytest.fixture
def bench(system: SimulatedSystem) -> Bench:
    return Bench(system)


def roles(messages: Any) -> list[str]:
    return [message["role"] for message in messages]


# --- calls (§4) ------------------------------------------------------------------------------------------------------


def test_32_33_calls_are_told_as_they_come_then_run_and_then_the_next_round_streams(
    system: SimulatedSystem, bench: Bench
) -> None:
    first = ScriptedAttempt(
        (
            "Let me see. ",
            ToolCallFragment(index=0, id="x", name="double", arguments='{"x"'),
            ToolCallFragment(index=1, id="y", name="double", arguments='{"x": 5}'),
            ToolCallFragment(index=0, arguments=": 2}"),
        ),
        finish="tool_calls",
    )
    agent, script = agent_on(system, first, say("4 and ", "10."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Double 2 and 5."))
    terminal = collector.wait_for_terminal()
    collector.check()
    assert kinds(collector.events) == [
        "StreamStarted", "TokenEvent",
        "ToolCallStarted", "ToolCallDelta", "ToolCallStarted", "ToolCallDelta", "ToolCallDelta",
        "ToolCallCompleted", "ToolCallCompleted",
        "ToolExecutionStarted", "ToolResult", "ToolResult",
        "TokenEvent", "StreamCompleted",
    ]  # fmt: skip
    assert results(collector.events) == [("x", "ok", "4"), ("y", "ok", "10")]
    assert isinstance(terminal, penstock.StreamCompleted)
    assert (terminal.text, terminal.finish_reason) == ("Let me see. 4 and 10.", "stop")
    assert [call.id for call in terminal.tool_calls] == ["x", "y"]
    assert roles(script.asked[1]) == ["user", "assistant", "tool", "tool"]
    assert [tool["function"]["name"] for tool in script.parameters[0]["tools"]] == ["double", "wait", "fail", "report"]


def test_34_tools_run_in_parallel_and_results_are_told_in_the_order_of_the_calls(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, _ = agent_on(
        system, ask(("a", "wait", '{"seconds": 3}'), ("b", "double", '{"x": 1}')), say("Done."), tools=bench.tools()
    )
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: "double 1" in bench.runs)
    assert results(collector.events) == []
    collector.wait_for_terminal()
    assert results(collector.events) == [("a", "ok", "waited 3"), ("b", "ok", "2")]


def test_34_no_more_than_max_tool_calls_run_at_once(system: SimulatedSystem, bench: Bench) -> None:
    calls = [(f"c{number}", "wait", '{"seconds": 1}') for number in range(6)]
    agent, _ = agent_on(
        system, ask(*calls), say("Done."), tools=bench.tools(), agent_options=penstock.AgentOptions(max_tool_calls=2)
    )
    terminal = agent.stream_chat("Go.").result()
    assert terminal.text == "Done."
    assert bench.most_at_once == 2
    assert bench.runs == ["wait 1"] * 6


def test_34_a_slow_tool_is_cut_off_and_the_others_are_not(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(
        system,
        ask(("slow", "wait", '{"seconds": 500}'), ("quick", "double", '{"x": 1}')),
        say("So be it."),
        tools=bench.tools(),
        agent_options=penstock.AgentOptions(tool_timeout=2.0),
    )
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    (_, slow, why), (_, quick, _) = results(collector.events)
    assert (slow, quick) == ("timeout", "ok")
    assert "2 s" in why
    assert bench.contexts["slow"].is_cancelled
    check_history(agent.history)


def test_34_a_tools_own_time_out_counts_before_the_agents(system: SimulatedSystem, bench: Bench) -> None:
    tool = bench.slow("wait", lambda given: [500, "waited"])
    tool.timeout = 1.0
    agent, _ = agent_on(system, ask(("a", "wait", "{}")), say("Well."), tools=[tool])
    start = system.simulation.clock.monotonic()
    agent.stream_chat("Go.").result()
    assert system.simulation.clock.monotonic() - start < 2


def test_34_a_tool_that_is_done_is_not_told_to_stop(system: SimulatedSystem) -> None:
    told: list[str] = []

    def returns(context: penstock.ToolContext) -> str:
        context.on_cancel(lambda: told.append("returns"))
        return "done"

    def raises(context: penstock.ToolContext) -> str:
        context.on_cancel(lambda: told.append("raises"))
        raise ValueError("no")

    agent, _ = agent_on(system, ask(("a", "returns", "{}"), ("b", "raises", "{}")), say("Ok."), tools=[returns, raises])
    assert agent.stream_chat("Go.").result(60).text == "Ok."
    agent.stop()
    assert told == []


def test_34_a_tool_that_cannot_be_told_to_stop_hurts_nobody_else(system: SimulatedSystem) -> None:
    told: list[str] = []

    class Deaf:
        name, description, parameters, timeout, needs_approval = "deaf", "Deaf.", {"type": "object"}, 1.0, False

        def check(self, arguments: Any) -> Any:
            return arguments

        def run(self, arguments: Any, context: penstock.ToolContext) -> Any:
            context.on_cancel(lambda: [][0])
            context.on_cancel(lambda: told.append("stop"))
            return Reply()  # as if it did not return

    agent, _ = agent_on(system, ask(("a", "deaf", "{}")), say("Late."), tools=[Deaf()])
    collector = Collector(agent.stream_chat("Go."))
    assert collector.wait_for_terminal(60).text == "Late."
    assert [status for _, status, _ in results(collector.events)] == ["timeout"]
    assert (told, agent.statistics().restarts, system._tool_quota.taken) == (["stop"], 0, 0)


def test_34_the_late_result_of_a_tool_that_was_cut_off_is_dropped(system: SimulatedSystem, bench: Bench) -> None:
    late = Reply()

    class Deaf(SlowTool):
        def run(self, arguments: Any, context: penstock.ToolContext) -> Any:
            return late

    agent, script = agent_on(
        system,
        ask(("a", "deaf", "{}")),
        say(2.0, "W", 2.0, "ell."),
        tools=[Deaf(bench, "deaf", lambda given: [])],
        agent_options=penstock.AgentOptions(tool_timeout=1.0),
    )
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: results(collector.events))
    late.set("too late")
    assert collector.wait_for_terminal(60).text == "Well."
    assert [status for _, status, _ in results(collector.events)] == ["timeout"]
    assert "too late" not in str(agent.history)
    assert len(script.asked) == 2


def test_34_a_tool_that_raises_is_an_error_that_the_model_sees_and_no_log(
    system: SimulatedSystem, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, script = agent_on(
        system, ask(("a", "fail", "{}"), ("b", "double", '{"x": 1}')), say("Sorry."), tools=bench.tools()
    )
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    assert results(collector.events) == [("a", "error", "RuntimeError: it is broken"), ("b", "ok", "2")]
    assert script.asked[1][2] == {"role": "tool", "tool_call_id": "a", "content": "RuntimeError: it is broken"}
    assert "it is broken" not in repr(collector.events)
    assert "it is broken" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (("a", "double", '{"x": '), "invalid_arguments", "not complete JSON"),
        (("a", "double", '{"x": "two"}'), "invalid_arguments", "x"),
        (("a", "double", "{}"), "invalid_arguments", "x"),
        (("a", "double", "[1]"), "invalid_arguments", "object"),
        (("a", "nothing", "{}"), "unknown_tool", "double"),
    ],
)
def test_35_what_cannot_be_run_is_not_run_and_the_model_is_told_why(
    system: SimulatedSystem, bench: Bench, call: tuple[str, str, str], status: str, words: str
) -> None:
    agent, script = agent_on(system, ask(call), say("I see."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Go."))
    assert isinstance(collector.wait_for_terminal(), penstock.StreamCompleted)
    ((_, said, content),) = results(collector.events)
    assert said == status
    assert words in content
    assert bench.runs == []
    assert script.asked[1][-1]["content"] == content
    check_history(agent.history)


@pytest.mark.parametrize("finish", ["length", "content_filter", "refusal", "other"])
def test_35_a_call_of_an_answer_that_did_not_end_well_is_not_run(
    system: SimulatedSystem, bench: Bench, finish: Any
) -> None:
    agent, script = agent_on(system, ask(("a", "double", ""), text="Let me", finish=finish), tools=bench.tools())
    terminal = agent.stream_chat("Go.").result()
    assert (terminal.finish_reason, len(terminal.tool_calls)) == (finish, 1)
    assert bench.runs == []
    assert len(script.asked) == 1
    assert agent.history[1:] == ({"role": "assistant", "content": "Let me"},)


def test_35_calls_that_the_length_limit_left_whole_are_run(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}'), finish="length"), say("2"), tools=bench.tools())
    assert agent.stream_chat("Go.").result().text == "2"
    assert bench.runs == ["double 1"]


def test_35_a_call_of_an_answer_that_was_cut_off_is_not_run(system: SimulatedSystem, bench: Bench) -> None:
    cut = ScriptedAttempt(("Let ", ToolCallFragment(index=0, id="a", name="double", arguments='{"x": 1}')), finish=None)
    agent, _ = agent_on(system, cut, say("Fine."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Go."))
    terminal = collector.wait_for_terminal()
    assert isinstance(terminal, penstock.StreamFailed)
    assert isinstance(terminal.error, penstock.IncompleteStream)
    assert bench.runs == []
    assert agent.history == (
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "Let "},
    )
    assert agent.stream_chat("And now?").result().text == "Fine."


def test_35_a_call_that_the_provider_runs_itself_is_not_run(system: SimulatedSystem, bench: Bench) -> None:
    search = ToolCallFragment(index=0, id="s", name="double", arguments='{"x": 1}', is_server=True)
    agent, _ = agent_on(system, ScriptedAttempt((search, "Found.")), tools=bench.tools())
    terminal = agent.stream_chat("Search.").result()
    assert (terminal.text, [call.is_server for call in terminal.tool_calls]) == ("Found.", [True])
    assert bench.runs == []
    assert roles(agent.history) == ["user", "assistant"]


def test_36_rounds_go_into_one_stream_with_one_start_and_one_end_and_their_sums(
    system: SimulatedSystem, bench: Bench
) -> None:
    def counted(attempt: ScriptedAttempt, **counts: Any) -> ScriptedAttempt:
        return ScriptedAttempt((*attempt.steps, penstock.ports.UsageDelta(penstock.Usage(**counts))), attempt.finish)

    agent, script = agent_on(
        system,
        counted(ask(("a", "double", '{"x": 1}'), text="One. "), input_tokens=10, output_tokens=3),
        counted(ask(("b", "double", '{"x": 2}'), text="Two. "), input_tokens=20),
        say("Three."),
        tools=bench.tools(),
    )
    collector = Collector(agent.stream_chat("Go."))
    terminal = collector.wait_for_terminal()
    names = kinds(collector.events)
    assert (names.count("StreamStarted"), names.count("StreamCompleted")) == (1, 1)
    assert [event.round for event in collector.events if isinstance(event, penstock.ToolExecutionStarted)] == [1, 2]
    assert terminal.text == "One. Two. Three."
    assert terminal.usage == penstock.Usage(input_tokens=30, output_tokens=3)
    assert [call.id for call in terminal.tool_calls] == ["a", "b"]
    assert terminal.metrics is not None
    assert terminal.metrics.function_calls == 2
    assert roles(agent.history) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [message["content"] for message in agent.history if message["role"] == "assistant"] == [
        "One. ", "Two. ", "Three."
    ]  # fmt: skip
    assert len(script.asked) == 3


def test_36_after_max_tool_rounds_it_fails_and_the_last_calls_are_not_run(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, script = agent_on(
        system, ask(("a", "double", '{"x": 1}'), text="Again. "), tools=bench.tools(), max_tool_rounds=2
    )
    collector = Collector(agent.stream_chat("Go."))
    terminal = collector.wait_for_terminal()
    assert isinstance(terminal, penstock.StreamFailed)
    assert isinstance(terminal.error, penstock.ToolRoundsExceeded)
    assert terminal.error.max_tool_rounds == 2
    assert terminal.error.partial == terminal.partial == "Again. Again. Again. "
    assert bench.runs == ["double 1"] * 2
    assert len(script.asked) == 3
    assert roles(agent.history) == ["user", *["assistant", "tool"] * 3, "assistant"]
    assert "too many rounds" in agent.history[-2]["content"]
    check_history(agent.history)


def test_36_an_id_that_comes_again_in_a_later_round_is_another_call(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system,
        ask(("call_0", "double", '{"x": 1}')), ask(("call_0", "double", '{"x": 2}')), say("Good."),
        tools=bench.tools(),
    )  # fmt: skip
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    assert bench.runs == ["double 1", "double 2"]
    assert [result[0] for result in results(collector.events)] == ["call_0", "call_0"]
    ids = [message["tool_call_id"] for message in script.asked[2] if message["role"] == "tool"]
    assert len(set(ids)) == 2
    check_history(agent.history)


def test_36_a_result_that_is_too_long_is_cut(system: SimulatedSystem, bench: Bench) -> None:
    def long() -> str:
        return "x" * 100_000

    agent, script = agent_on(
        system, ask(("a", "long", "{}")), say("Long."), tools=[long],
        agent_options=penstock.AgentOptions(max_result_bytes=1_000),
    )  # fmt: skip
    agent.stream_chat("Go.").result()
    content = script.asked[1][-1]["content"]
    assert len(content) <= 1_000
    assert "of 100000 bytes" in content


def test_36_what_a_tool_reports_is_told_before_its_result(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "report", '{"steps": 3}')), say("Good."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    told = [event.progress for event in collector.events if isinstance(event, penstock.ToolProgress)]
    assert told == [{"step": 0}, {"step": 1}, {"step": 2}]
    names = kinds(collector.events)
    assert names.index("ToolResult") > max(place for place, name in enumerate(names) if name == "ToolProgress")


def test_36_many_reports_at_once_are_told_as_the_last_of_them(system: SimulatedSystem) -> None:
    def hurry(context: penstock.ToolContext) -> str:
        for step in range(10_000):
            context.report(step)
        return "there"

    agent, _ = agent_on(system, ask(("a", "hurry", "{}")), say("Good."), tools=[hurry])
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    told = [event.progress for event in collector.events if isinstance(event, penstock.ToolProgress)]
    assert told == [9_999]


@pytest.mark.parametrize("held", ["paused", "blocked"])
def test_36_what_tools_report_is_bounded_while_nobody_reads(system: SimulatedSystem, bench: Bench, held: str) -> None:
    steps = [*({"step": step} for step in range(5_000)), "done"]
    tools = [bench.slow(name, lambda given: steps) for name in ("one", "two")]
    agent, _ = agent_on(system, ask(("a", "one", "{}"), ("b", "two", "{}")), say("Good."), tools=tools)
    stream = agent.stream_chat("Go.")
    collector = Collector(stream)
    if held == "paused":
        stream.pause()
    reader = iter(stream.events(slow="block", window=1)) if held == "blocked" else None
    system.advance(1)
    assert bench.at_work == 0
    assert stream.options.max_buffer_size is not None
    assert stream.statistics().buffer_size <= stream.options.max_buffer_size + 10
    if reader is not None:
        reader.close()
    else:
        stream.resume()
    collector.wait_for_terminal(60)
    told = [(one.call_id, one.progress["step"]) for one in collector.events if isinstance(one, penstock.ToolProgress)]
    for name in "ab":
        mine = [step for call_id, step in told if call_id == name]
        assert mine == sorted(set(mine))
        assert mine[-1] == 4_999


def test_36_a_restart_of_a_later_round_would_void_the_earlier_ones_so_it_fails(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, _ = agent_on(
        system,
        ask(("a", "double", '{"x": 1}'), text="One. "),
        ScriptedAttempt(("Tw", penstock.IncompleteStream("broken"))),
        tools=bench.tools(),
        request_options=penstock.RequestOptions(on_interrupt="restart"),
    )
    collector = Collector(agent.stream_chat("Go."))
    terminal = collector.wait_for_terminal()
    assert isinstance(terminal, penstock.StreamFailed)
    assert terminal.partial == "One. Tw"
    assert "StreamReset" not in kinds(collector.events)
    assert agent.history[-1] == {"role": "assistant", "content": "Tw"}


def test_36_a_round_that_fails_before_its_first_delta_is_tried_again(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system,
        ask(("a", "double", '{"x": 1}')),
        ScriptedAttempt((penstock.ApiError(503, "busy", retryable=True),)),
        say("Two."),
        tools=bench.tools(),
    )
    assert agent.stream_chat("Go.").result(60).text == "Two."
    assert script.requests == 3
    assert bench.runs == ["double 1"]


# --- approval --------------------------------------------------------------------------------------------------------


def guarded(bench: Bench) -> list[Any]:
    return [penstock.tool(needs_approval=True)(bench.tools()[0]), bench.tools()[1]]


def test_a_call_that_needs_approval_waits_for_it_and_the_others_do_not(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(
        system, ask(("a", "double", '{"x": 1}'), ("b", "wait", '{"seconds": 0}')), say("Good."), tools=guarded(bench)
    )
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: bench.runs == ["wait 0"])
    asked = [event.call.id for event in collector.events if isinstance(event, penstock.ToolApprovalRequested)]
    assert asked == ["a"]
    assert not agent.approve("b"), "it does not wait"
    assert agent.approve("a")
    assert not agent.approve("a"), "once is enough"
    collector.wait_for_terminal()
    assert bench.runs == ["wait 0", "double 1"]
    assert results(collector.events) == [("a", "ok", "2"), ("b", "ok", "waited 0")]


def test_a_call_that_is_denied_is_not_run_and_the_model_is_told_why(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}')), say("Pity."), tools=guarded(bench))
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: agent.state == "working")
    assert agent.deny("a", "too dear")
    collector.wait_for_terminal()
    ((_, status, content),) = results(collector.events)
    assert (status, "too dear" in content) == ("denied", True)
    assert bench.runs == []


def test_a_call_that_nobody_approves_in_time_is_denied(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(
        system, ask(("a", "double", '{"x": 1}')), say("Pity."), tools=guarded(bench),
        agent_options=penstock.AgentOptions(approval_timeout=10.0),
    )  # fmt: skip
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal(60)
    assert [status for _, status, _ in results(collector.events)] == ["denied"]
    assert bench.runs == []


@pytest.mark.parametrize(("verdict", "status"), [(True, "ok"), (False, "denied"), ("yes", "denied")])
def test_a_function_decides_what_may_run(system: SimulatedSystem, bench: Bench, verdict: Any, status: str) -> None:
    asked: list[str] = []

    def approve(call: penstock.ToolCall) -> Any:
        asked.append(call.name)
        return verdict

    agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}')), say("Well."), tools=bench.tools(), approve=approve)
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal()
    assert [said for _, said, _ in results(collector.events)] == [status]
    assert asked == ["double"]
    assert bench.runs == (["double 1"] if status == "ok" else [])


def test_a_function_that_does_not_know_leaves_it_to_the_user(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(
        system, ask(("a", "double", '{"x": 1}')), say("Well."), tools=bench.tools(), approve=lambda call: None
    )
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: "ToolApprovalRequested" in kinds(collector.events))
    assert agent.approve("a")
    assert collector.wait_for_terminal().text == "Well."
    assert bench.runs == ["double 1"]


def test_a_function_that_breaks_or_takes_too_long_approves_nothing(system: SimulatedSystem, bench: Bench) -> None:
    never = Reply()

    def approve(call: penstock.ToolCall) -> bool:
        if call.id == "a":
            raise RuntimeError("no idea")
        return never  # type: ignore[return-value] # as if it did not return

    agent, _ = agent_on(
        system, ask(("a", "double", '{"x": 1}'), ("b", "double", '{"x": 2}')), say("Well."), tools=bench.tools(),
        approve=approve, agent_options=penstock.AgentOptions(approval_timeout=5.0),
    )  # fmt: skip
    collector = Collector(agent.stream_chat("Go."))
    collector.wait_for_terminal(60)
    assert [status for _, status, _ in results(collector.events)] == ["denied", "denied"]
    assert bench.runs == []


# --- when there are no threads for tools -----------------------------------------------------------------------------


def take_all_places(system: SimulatedSystem) -> None:
    while system._tool_quota.acquire("others", lambda: None):
        pass


def give_all_places_back(system: SimulatedSystem) -> None:
    for _ in range(system._tool_quota.taken):
        system._tool_quota.release()


def test_calls_that_find_no_place_wait_together_and_no_longer_than_a_tool_may(
    system: SimulatedSystem, bench: Bench
) -> None:
    calls = [(name, "double", '{"x": 1}') for name in "abc"]
    agent, _ = agent_on(system, ask(*calls), say("Well."), tools=bench.tools())
    take_all_places(system)
    collector = Collector(agent.stream_chat("Go."))
    system.advance(29)
    assert results(collector.events) == []
    system.advance(2)
    assert [status for _, status, _ in results(collector.events)] == ["timeout"] * 3
    assert collector.wait_for_terminal().text == "Well."
    assert bench.runs == []
    give_all_places_back(system)


def test_an_agent_that_has_ended_waits_for_no_place(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}')), tools=bench.tools())
    take_all_places(system)
    agent.stream_chat("Go.")
    system.advance(1)
    assert agent.state == "working"
    assert system._tool_quota.waiting == 2  # it, and the others
    agent.stop()
    assert system._tool_quota.waiting == 1
    give_all_places_back(system)


def test_a_call_that_has_found_a_place_lets_those_behind_it_wait_for_their_turn(
    system: SimulatedSystem, bench: Bench
) -> None:
    calls = [("a", "wait", '{"seconds": 20}'), ("b", "wait", '{"seconds": 1}')]
    agent, _ = agent_on(
        system, ask(*calls), say("Well."), tools=bench.tools(), agent_options=penstock.AgentOptions(max_tool_calls=1)
    )
    take_all_places(system)
    collector = Collector(agent.stream_chat("Go."))
    system.advance(25)
    give_all_places_back(system)
    collector.wait_for_terminal(60)
    assert [status for _, status, _ in results(collector.events)] == ["ok", "ok"]


def test_a_call_that_finds_no_place_after_its_approval_does_not_wait_for_ever(
    system: SimulatedSystem, bench: Bench
) -> None:
    places = system._tool_quota

    def approve(call: penstock.ToolCall) -> bool:
        take_all_places(system)
        assert not places.acquire("others", lambda: take_all_places(system))  # each thread is taken again at once
        return True

    agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}')), say("Well."), tools=bench.tools(), approve=approve)
    take_all_places(system)
    collector = Collector(agent.stream_chat("Go."))
    system.advance(1)
    places.release()
    collector.wait_for_terminal(60)
    assert [status for _, status, _ in results(collector.events)] == ["timeout"]
    assert bench.runs == []
    give_all_places_back(system)


# --- the agent (§5) --------------------------------------------------------------------------------------------------


def test_39_an_answer_goes_to_an_iterator_an_actor_or_a_function(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("Hello."))
    ref, told = sink(system)
    heard: list[Any] = []
    assert kinds(list(agent.stream_chat("Hi."))) == ["StreamStarted", "TokenEvent", "StreamCompleted"]
    agent.stream_chat("Hi.", ref).result()
    agent.stream_chat("Hi.", heard.append).result()
    system.settle()
    assert kinds(told) == kinds(heard) == ["StreamStarted", "TokenEvent", "StreamCompleted"]
    system.runtime.exit(ref, "kill")


def test_39_a_subscriber_that_cannot_be_told_is_refused_and_nothing_is_said(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("Hello."))
    with pytest.raises(penstock.OptionError):
        agent.stream_chat("Hi.", 7)  # type: ignore[arg-type]
    system.settle()
    assert script.requests == 0
    assert agent.history == ()
    assert agent.stream_chat("Hi.").result().text == "Hello."


def test_39_metadata_and_ids_are_the_streams(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("Hello."), metadata={"user": 3, "tenant": "t"})
    stream = agent.stream_chat("Hi.", stream_id="mine", metadata={"user": 7})
    assert [event.metadata for event in stream] == [{"user": 7, "tenant": "t"}] * 3
    assert system.stream("mine").stream_id == "mine"


def test_40_the_next_message_knows_those_before(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("One."), say("Two."), system_prompt="Be brief.")
    agent.stream_chat("First?").result()
    assert agent.stream_chat("Second?").result().text == "Two."
    assert [(message["role"], message["content"]) for message in script.asked[1]] == [
        ("system", "Be brief."), ("user", "First?"), ("assistant", "One."), ("user", "Second?")
    ]  # fmt: skip
    assert len(agent.history) == 5


def test_40_two_messages_at_once_are_answered_in_order(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("O", 1.0, "ne."), say("Two."))
    first, second = agent.stream_chat("First?"), agent.stream_chat("Second?")
    system.advance(0.5)
    assert (script.requests, second.state, second.is_over) == (1, "idle", False)
    assert agent.statistics().queued == 1
    assert second.result(60).text == "Two."
    assert first.is_over
    assert script.asked[1][1] == {"role": "assistant", "content": "One."}


def test_40_a_message_that_is_cancelled_before_its_turn_has_not_been_said(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("O", 1.0, "ne."), say("Three."))
    agent.stream_chat("First?")
    second, third = agent.stream_chat("Second?"), agent.stream_chat("Third?")
    second.cancel("never mind")
    assert third.result(60).text == "Three."
    assert script.requests == 2
    assert "Second?" not in str(agent.history)
    with pytest.raises(penstock.StreamCancelledError):
        second.result()


def test_40_no_more_messages_wait_than_may(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("O", 1.0, "ne."), agent_options=penstock.AgentOptions(max_queue=1))
    streams = [agent.stream_chat("First?"), agent.stream_chat("Second?")]
    with pytest.raises(penstock.AgentBusy, match="'a' is busy"):
        agent.stream_chat("Third?")
    streams[1].cancel()
    streams.append(agent.stream_chat("Third?"))
    assert streams[2].result(60).text == "One."


def test_40_with_no_queue_at_all_the_next_message_can_be_said_as_soon_as_the_answer_is_there(
    system: SimulatedSystem,
) -> None:
    agent, _ = agent_on(system, say("One."), agent_options=penstock.AgentOptions(max_queue=0))
    for _ in range(5):
        agent.stream_chat("Again?").result()
    assert len(agent.history) == 10


def test_40_who_has_seen_the_end_finds_it_in_the_history(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One."))
    for event in agent.stream_chat("First?"):
        if isinstance(event, penstock.StreamCompleted):
            assert agent.history[-1]["content"] == "One."
    assert agent.statistics().turns == 1


def test_40_a_history_can_be_gone_on_with_and_is_bounded(system: SimulatedSystem) -> None:
    first, _ = agent_on(system, say("One."), system_prompt="Be brief.")
    first.stream_chat("First?").result()
    second, script = agent_on(
        system, say("Two."), name="b", history=first.history,
        agent_options=penstock.AgentOptions(max_history_messages=2),
    )  # fmt: skip
    assert second.history == first.history
    second.stream_chat("Second?").result()
    assert roles(script.asked[0]) == ["system", "user"], "the exchange before has no room beside this one"
    assert [message["content"] for message in second.history] == ["Be brief.", "Second?", "Two."]
    assert second.statistics().history_dropped == 2


def test_40_a_history_is_a_copy(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One."))
    agent.stream_chat([{"type": "text", "text": "First?"}]).result()
    agent.history[0]["content"][0]["text"] = "spoiled"
    assert agent.history[0]["content"][0]["text"] == "First?"


def test_40_what_was_cancelled_stays_as_far_as_it_came(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("One, two, ", HANG), say("Three."))
    stream = agent.stream_chat("Count.")
    until(system, lambda: stream.text)
    stream.cancel()
    assert agent.history == (
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "One, two, "},
    )
    assert agent.stream_chat("Go on.").result().text == "Three."
    assert roles(script.asked[1]) == ["user", "assistant", "user"]
    assert system.scripted.open == 0


def test_40_what_has_failed_without_a_word_has_an_answer_that_says_so(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, ScriptedAttempt((penstock.AuthenticationError(401, "no"),)), say("Now."))
    with pytest.raises(penstock.AuthenticationError):
        agent.stream_chat("Hello?").result()
    assert agent.history[-1]["content"] == INTERRUPTED
    agent.stream_chat("Hello?").result()
    check_history(agent.history)


def test_40_an_answer_without_words_has_some_in_the_history(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say())
    agent.stream_chat("Hello?").result()
    assert agent.history[-1]["content"] == NO_ANSWER


def test_40_calls_that_were_cancelled_have_results_that_say_so(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system,
        ask(("a", "double", '{"x": 1}'), ("b", "wait", '{"seconds": 500}'), ("c", "wait", '{"seconds": 500}')),
        say("Then not."),
        tools=bench.tools(),
        agent_options=penstock.AgentOptions(max_tool_calls=2, tool_timeout=1000.0),
    )
    collector = Collector(stream := agent.stream_chat("Go."))
    until(system, lambda: results(collector.events) and "b" in bench.contexts)
    stream.cancel("enough")
    assert isinstance(collector.wait_for_terminal(), penstock.StreamCancelled)
    system.settle()
    assert bench.contexts["b"].is_cancelled
    check_history(agent.history)
    done, running, *rest = [message["content"] for message in agent.history if message["role"] == "tool"]
    assert done == "2"
    assert "not known" in running
    assert all("not known" in one or "not run" in one for one in rest)
    assert agent.history[-1]["content"] == INTERRUPTED
    assert agent.stream_chat("And?").result().text == "Then not."
    check_history((*script.asked[-1], {"role": "assistant", "content": "."}))


def test_41_errors_are_told_apart_and_have_what_came_before(system: SimulatedSystem) -> None:
    errors: list[penstock.PenstockError] = [
        penstock.ApiError(500, "broken"), penstock.ConnectError("host", "refused", retryable=False),
        penstock.ProtocolError("no events"), penstock.RateLimited(429, "slow down"),
    ]  # fmt: skip
    agent, _ = agent_on(system, *[ScriptedAttempt(("so far", error)) for error in errors])
    for error in errors:
        with pytest.raises(type(error)) as caught:
            agent.stream_chat("Hi.").result(60)
        assert (type(caught.value), caught.value.args, vars(caught.value)) == (type(error), error.args, vars(error))
        assert (caught.value is error, error.__traceback__) == (False, None)
        assert getattr(caught.value, "partial", None) == "so far"


def test_41_a_provider_that_cannot_make_a_request_fails_the_turn_and_not_the_agent(system: SimulatedSystem) -> None:
    agent, script = agent_on(system, say("Fine."))
    request, script.request = script.request, lambda call: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(penstock.AgentCrashed):
        agent.stream_chat("Hi.").result()
    script.request = request  # type: ignore[method-assign]
    assert agent.stream_chat("Hi.").result().text == "Fine."
    assert agent.statistics().restarts == 0


def test_42_what_a_turn_has_done_is_in_its_last_event_and_the_agents_statistics(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, _ = agent_on(
        system, ask(("a", "wait", '{"seconds": 2}'), ("b", "wait", '{"seconds": 2}')), say("Done."),
        tools=bench.tools(),
    )  # fmt: skip
    stream = agent.stream_chat("Go.")
    terminal = stream.result(60)
    assert terminal.metrics is not None
    assert terminal.metrics.function_calls == 2
    assert 1.99 <= terminal.metrics.tool_time_s <= 4.01
    assert terminal.metrics.total_time_s >= terminal.metrics.tool_time_s
    statistics = agent.statistics()
    assert (statistics.turns, statistics.tool_calls, statistics.tool_errors) == (1, 2, 0)


def test_43_agents_have_options_of_their_own(system: SimulatedSystem) -> None:
    agent, _ = agent_on(
        system, say(HANG), options=penstock.StreamOptions(batch_size=1),
        request_options=penstock.RequestOptions(first_token_timeout=3.0, max_retries=0),
    )  # fmt: skip
    stream = agent.stream_chat("Hi.")
    assert stream.options.batch_size == 1
    with pytest.raises(penstock.ProviderTimeout, match="first_token"):
        stream.result(60)


def test_44_an_agent_that_dies_fails_its_stream_and_goes_on_with_its_history(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, script = agent_on(
        system, say("One."), ask(("a", "wait", '{"seconds": 500}')), say("Three."), tools=bench.tools()
    )
    agent.stream_chat("First?").result()
    collector = Collector(agent.stream_chat("Second?"))
    third = agent.stream_chat("Third?")
    until(system, lambda: "a" in bench.contexts)
    kill(system, "agent/a#1")
    terminal = collector.wait_for_terminal()
    assert isinstance(terminal, penstock.StreamFailed)
    assert isinstance(terminal.error, penstock.AgentCrashed)
    assert bench.contexts["a"].is_cancelled
    assert third.result(60).text == "Three."
    assert bench.runs == ["wait 500"], "it is not run again"
    assert roles(agent.history) == ["user", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant"]
    check_history(agent.history)
    assert (script.requests, agent.statistics().restarts) == (3, 1)


def test_44_an_agent_that_crashes_again_and_again_is_given_up_and_says_so(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("O", HANG))
    first, second = agent.stream_chat("First?"), agent.stream_chat("Second?")
    for _ in range(5):
        if agent.is_alive:
            kill(system, "agent/a#1")
            system.settle()
    assert (agent.is_alive, agent.state) == (False, "ended")
    for stream in (first, second):
        with pytest.raises(penstock.AgentCrashed):
            stream.result()
    with pytest.raises(penstock.AgentStopped):
        agent.stream_chat("Third?")
    assert system.scripted.open == 0
    assert system.agent("a", model="m", provider=penstock.testing.ScriptedProvider(["x"])).is_alive, "its name is free"


def test_44_with_the_last_subscriber_the_tools_go(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "wait", '{"seconds": 500}')), say("Well."), tools=bench.tools())
    ref, _ = sink(system)
    stream = agent.stream_chat("Go.", ref)
    until(system, lambda: "a" in bench.contexts)
    system.runtime.exit(ref, "kill")
    system.settle()
    assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)
    assert bench.contexts["a"].is_cancelled
    check_history(agent.history)


def test_44_a_tool_whose_process_is_killed_is_an_error(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "wait", '{"seconds": 500}')), say("Well."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: "a" in bench.contexts)
    (task,) = [ref for ref in system.runtime.processes() if ref.label == "tool/wait"]
    system.runtime.exit(task, "kill")
    collector.wait_for_terminal()
    assert [status for _, status, _ in results(collector.events)] == ["error"]
    assert bench.contexts["a"].is_cancelled


# --- the end ---------------------------------------------------------------------------------------------------------


def test_stop_cancels_what_is_under_way_and_what_waits(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(system, ask(("a", "wait", '{"seconds": 500}')), say("Well."), tools=bench.tools())
    first, second = agent.stream_chat("First?"), agent.stream_chat("Second?")
    until(system, lambda: "a" in bench.contexts)
    assert system.statistics().agents == 1
    agent.stop()
    assert system.statistics().agents == 0
    agent.stop()  # harmless
    for stream in (first, second):
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)
    assert bench.contexts["a"].is_cancelled
    assert (agent.is_alive, agent.state, script.requests) == (False, "ended", 1)
    assert roles(agent.history) == ["user", "assistant", "tool", "assistant"]
    with pytest.raises(penstock.AgentStopped):
        agent.stream_chat("Third?")
    agent_on(system, say("x"))  # its name is free


def test_an_agent_is_a_context_manager(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One."))
    with agent:
        agent.stream_chat("First?").result()
    assert not agent.is_alive


def test_an_agent_that_nobody_holds_ends_when_it_has_answered(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("O", 1.0, "ne."))
    streams = [agent.stream_chat("First?"), agent.stream_chat("Second?")]
    del agent
    assert [stream.result(60).text for stream in streams] == ["One.", "One."]
    system.settle()
    assert not [name for name in system.runtime.names() if name.startswith("agent/")]


def test_stopping_the_system_ends_every_turn(system: SimulatedSystem, bench: Bench) -> None:
    agent, _ = agent_on(system, ask(("a", "wait", '{"seconds": 500}'), text="Let me."), tools=bench.tools())
    first, second = agent.stream_chat("First?"), agent.stream_chat("Second?")
    until(system, lambda: "a" in bench.contexts)
    system.stop()
    for stream in (first, second):
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)
    assert bench.contexts["a"].is_cancelled
    assert roles(agent.history) == ["user", "assistant", "tool", "assistant"]
    with pytest.raises(penstock.PenstockError):
        agent.stream_chat("Third?")


@pytest.mark.parametrize("victim", ["streams", "sources", "tools", "agents", "handler", "agent_handler", "registry"])
def test_whatever_supervisor_dies_the_agent_is_there_afterwards(
    system: SimulatedSystem, bench: Bench, victim: str
) -> None:
    agent, _ = agent_on(system, say("One."), ask(("a", "wait", '{"seconds": 5}')), say("Three."), tools=bench.tools())
    agent.stream_chat("First?").result()
    second = agent.stream_chat("Second?")
    until(system, lambda: "a" in bench.contexts)
    kill(system, victim)
    until(system, lambda: second.is_over)
    system.advance(10)
    assert agent.stream_chat("Third?").result(60).text == "Three."
    assert bench.runs == ["wait 5"]
    check_history(agent.history)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": 7}, {"model": ""}, {"system_prompt": 7}, {"approve": 7}, {"max_tool_rounds": -1},
        {"options": 7}, {"agent_options": 7}, {"history": [{"role": "tool"}]},
        {"tools": "double"}, {"tools": [7]}, {"tools": [len, len]}, {"tools": [{"type": "function"}]},
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_by_name(system: SimulatedSystem, wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"model": "m", "provider": penstock.testing.ScriptedProvider(["x"])}
    with pytest.raises(penstock.OptionError):
        system.agent(**(arguments | wrong))
    assert not [name for name in system.runtime.names() if name.startswith("agent/")]


def test_a_tool_that_the_provider_runs_is_given_to_it_as_it_is(system: SimulatedSystem, bench: Bench) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    agent, script = agent_on(system, say("Found."), tools=[bench.double(), search])
    agent.stream_chat("Search.").result()
    assert script.parameters[0]["tools"][1] == search


def test_36_a_model_that_has_to_call_a_tool_has_to_once(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system, ask(("a", "double", '{"x": 1}')), say("2."), tools=[bench.double()], tool_choice="required"
    )
    agent.stream_chat("Go.").result()
    agent.stream_chat("Again.").result()
    assert [parameters.get("tool_choice") for parameters in script.parameters] == ["required", None, "required"]
    assert all("tools" in parameters for parameters in script.parameters)


def test_stopping_an_agent_of_a_system_that_has_stopped_is_harmless(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        agent, _ = agent_on(system, say("One."))
        agent.stream_chat("First?").result()
    agent.stop()
    assert (agent.is_alive, agent.state, len(agent.history)) == (False, "ended", 2)
    with SimulatedSystem(seed) as system:
        agent, _ = agent_on(system, say("One."))
        kill(system, "system")
        system.settle()
        agent.stop()
        with pytest.raises(penstock.PenstockError):
            agent.stream_chat("Second?")


def test_a_name_is_given_once(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("x"))
    with pytest.raises(penstock.AgentExists, match="'a'"):
        agent_on(system, say("x"))
    assert agent.is_alive


def test_nothing_that_is_said_is_shown(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("secret answer"), system_prompt="secret rule")
    agent.stream_chat("secret question").result()
    shown = f"{agent!r} {agent._record!r} {agent.statistics()} {system.tree()}"
    assert "secret" not in shown


def test_43_what_an_agent_is_not_told_it_takes_from_the_settings(seed: int) -> None:
    with SimulatedSystem(
        seed, penstock.Settings(agent=penstock.AgentOptions(max_tool_rounds=1, max_queue=0))
    ) as system:
        bench = Bench(system)
        agent, _ = agent_on(system, ask(("a", "double", '{"x": 1}')), tools=bench.tools())
        with pytest.raises(penstock.ToolRoundsExceeded):
            agent.stream_chat("Go.").result()
        assert bench.runs == ["double 1"]
