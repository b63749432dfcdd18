"""A turn of a real agent, in the order in which it reports its rounds, as the browsers' protocols show it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock.events import (
    Event,
    FinishReason,
    StreamCompleted,
    StreamSnapshot,
    ToolApprovalRequested,
    ToolCallCompleted,
)
from penstock.gateway.answers import anthropic as anthropic_answers
from penstock.gateway.answers import chat as chat_answers
from penstock.gateway.answers import responses as responses_answers
from penstock.gateway.channels import Channel
from penstock.gateway.projections.agui import AguiProjection
from penstock.gateway.projections.anthropic import AnthropicProjection
from penstock.gateway.projections.chat import ChatProjection
from penstock.gateway.projections.frames import Projection
from penstock.gateway.projections.ui import UiProjection
from penstock.gateway.protocols import PROTOCOLS
from penstock.testing import Collector, ScriptedAttempt, SimulatedSystem
from tests.conformance.agents import agent_on, ask, say, until
from tests.unit.gateway.reading import AguiReader, UiReader, fed, opening


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed=1) as running:
        yield running


@penstock.tool
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


@penstock.tool(needs_approval=True)
def erase(name: str) -> str:
    """Erase a file."""
    return f"erased {name}"


def a_turn(system: SimulatedSystem) -> list[Event]:
    """Two rounds of calls with the same ids, the second with two calls that need approval, and an answer."""
    agent, _ = agent_on(
        system,
        ask(("call_0", "double", '{"x":4}'), ("call_1", "double", '{"x":'), text="Let me see. "),
        ask(("call_0", "erase", '{"name":"a"}'), ("call_1", "erase", '{"name":"b"}')),
        say("Eight, ", "and one file is gone."),
        tools=[double, erase],
    )
    collector = Collector(agent.stream_chat("Do it"))
    until(system, lambda: sum(isinstance(event, ToolApprovalRequested) for event in collector.events) == 2)
    assert agent.approve("call_0")
    assert agent.deny("call_1", "keep it")
    collector.wait_for_terminal()
    return list(collector.events)


def last_request(events: list[Event]) -> int:
    return max(event.seq for event in events if isinstance(event, ToolApprovalRequested))


def test_vercels_ui_shows_the_rounds_and_ends_at_the_approvals(system: SimulatedSystem) -> None:
    events = a_turn(system)
    reader = UiReader()
    for frame in fed(UiProjection(opening(v="7", approval="wait")), events):
        reader.read(frame.data)
    shown = [(part["type"], part.get("text", part.get("output"))) for part in reader.parts]
    assert shown[:5] == [
        ("step-start", None),
        ("text", "Let me see. "),
        ("double", "8"),
        ("double", shown[3][1]),
        ("step-start", None),
    ]
    assert str(shown[3][1]).startswith("The arguments are not complete JSON")
    assert shown[5:] == [
        ("erase", "erased a"),
        ("erase", None),
        ("step-start", None),
        ("text", "Eight, and one file is gone."),
    ]
    assert [call["state"] for call in reader.calls.values()][-1] == "tool-output-denied"

    until_asked = [event for event in events if event.seq <= last_request(events)]
    first = UiProjection(opening(v="7"))
    for event in until_asked:
        first.feed(event)
    assert first.caught_up()
    assert first.is_over
    rest = UiReader(*reader.calls)
    for frame in fed(UiProjection(opening(v="7", **{"from": str(last_request(events))})), events):
        rest.read(frame.data)
    assert [part.get("text") for part in rest.parts if part["type"] == "text"] == ["Eight, and one file is gone."]


def test_agui_shows_the_rounds_and_two_runs(system: SimulatedSystem) -> None:
    events = a_turn(system)
    projection, reader = AguiProjection(opening()), AguiReader()
    for event in events:
        if event.seq <= last_request(events):
            for frame in projection.feed(event):
                reader.read(frame.data)
    for frame in projection.caught_up():
        reader.read(frame.data)
    assert [one["toolCallId"] for one in reader.end["outcome"]["interrupts"]] == ["call_0_2", "call_1_2"]
    assert [one["id"] for one in reader.end["outcome"]["interrupts"]] == ["call_0", "call_1"], "as the agent knows them"
    second = AguiReader(reader.messages)
    for frame in fed(AguiProjection(opening(run="r-2", **{"from": str(last_request(events))})), events):
        second.read(frame.data)
    assert second.end["outcome"] == {"type": "success"}
    assert [(message["role"], message.get("content")) for message in second.messages][-4:] == [
        ("assistant", None),
        ("tool", "erased a"),
        ("tool", "The user did not approve this call: keep it"),
        ("assistant", "Eight, and one file is gone."),
    ]


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "other"])
def test_no_protocol_offers_the_client_a_call_that_the_agent_has_run(
    system: SimulatedSystem, finish: FinishReason
) -> None:
    agent, _ = agent_on(
        system,
        ask(("call_0", "double", '{"x":4}')),
        ScriptedAttempt(("Eight and",), finish=finish),
        tools=[double],
    )
    stream = agent.stream_chat("Do it")
    collector = Collector(stream)
    collector.wait_for_terminal()
    end = collector.events[-1]
    assert isinstance(end, StreamCompleted)
    assert (end.finish_reason, [call.id for call in end.tool_calls]) == (finish, ["call_0"])
    told = Channel(stream).opening(PROTOCOLS["openai"], {})
    for answer in (chat_answers.answer, anthropic_answers.answer, responses_answers.answer):
        assert "call_0" not in str(answer(end, told))
    for kind in (ChatProjection, AnthropicProjection):
        projection = kind(told)
        assert b"call_0" not in b"".join(frame.data for event in collector.events for frame in projection.feed(event))


@pytest.mark.parametrize("kind", [ChatProjection, AnthropicProjection])
def test_a_snapshot_with_a_call_that_the_agent_still_runs_offers_nothing(
    system: SimulatedSystem, kind: type[Projection]
) -> None:
    agent, _ = agent_on(system, ask(("call_0", "double", '{"x":4}')), say("Eight."), tools=[double])
    stream = agent.stream_chat("Do it")
    collector = Collector(stream)
    collector.wait_for_terminal()
    made = next(event for event in collector.events if isinstance(event, ToolCallCompleted))
    folded = StreamSnapshot(stream.stream_id, made.seq, ("",), "", "text", 0.0, {}, tool_calls=(made.call,))
    projection = kind(Channel(stream).opening(PROTOCOLS["openai"], {}))
    rest = [event for event in collector.events if event.seq > made.seq]
    assert b"call_0" not in b"".join(frame.data for event in [folded, *rest] for frame in projection.feed(event))


def test_what_is_made_of_an_agents_turn_is_one_too(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("Eight."))
    stream = agent.stream_chat("Do it")
    plain = system.open_stream("plain")
    chained = penstock.chain(system, stream, lambda event: [event.text.upper()])
    merged = penstock.merge(plain, stream)
    told = [Channel(one).opening(PROTOCOLS["openai"], {}).is_turn for one in (chained, merged, plain)]
    assert told == [True, True, False]
