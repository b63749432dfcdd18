"""Nothing that a provider says, and nothing that a subscriber does with it, can harm a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.actors.agent.history import INTERRUPTED, NO_ANSWER
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.errors import ContentFilterError, OptionError
from penstock.events import (
    Cost,
    MediaPart,
    ReasoningBlock,
    ServerToolCall,
    ServerToolResult,
    StreamCompleted,
    Usage,
)
from penstock.ports import (
    BlockDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ToolCallFragment,
)
from penstock.testing import ScriptedAttempt, SimulatedSystem
from tests.conformance.agents import agent_on, ask, check_history, say
from tests.conformance.common import assert_nothing_is_left

PAUSE = FinishDelta("other", "pause_turn")


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(1) as system:
        yield system
    assert_nothing_is_left(system)


def result_of_search(content: str) -> list[Delta]:
    """What our decoder makes of a result of the provider's own search; ``content`` is JSON."""
    block = f'{{"type": "web_search_tool_result", "tool_use_id": "s", "content": {content}}}'
    body = f'data: {{"type": "content_block_start", "index": 0, "content_block": {block}}}\n\n'
    return [delta for delta in MessagesDecoder(1 << 20).feed(body.encode()) if not isinstance(delta, KeepAlive)]


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


def blocks_in(messages: Any) -> list[Any]:
    return [block["data"] for message in messages for block in message.get("provider_blocks", ())]


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_an_infinite_number_in_a_block_goes_back_as_null(system: SimulatedSystem, number: str) -> None:
    agent, script = agent_on(system, say("One.", *result_of_search(f'[{{"score": {number}}}]')), say("Two."))
    assert [agent.chat(word).text for word in ("First?", "Second?")] == ["One.", "Two."]
    assert blocks_in(script.asked[1])[0]["content"] == [{"score": None}]
    system.agent("b", model="m", provider=script, history=json.loads(json.dumps(agent.history)))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_a_call_with_an_infinite_number_is_not_run_and_the_conversation_goes_on(
    system: SimulatedSystem, number: str
) -> None:
    ran: list[float] = []

    def wait(seconds: float) -> str:
        """Wait."""
        ran.append(seconds)
        return "done"

    agent, script = agent_on(
        system, ask(("c", "wait", f'{{"seconds": {number}}}')), say("One."), say("Two."), tools=[wait]
    )
    assert [agent.chat(word).text for word in ("First?", "Second?")] == ["One.", "Two."]
    assert ran == []
    assert script.asked[1][1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert "not strict JSON" in script.asked[1][2]["content"]


def test_an_infinite_number_of_a_users_provider_goes_back_as_null_too(system: SimulatedSystem) -> None:
    odd = ReasoningBlockDelta(ReasoningBlock(kind="k", text="caf\ud83d", signature="s"))
    agent, script = agent_on(system, say("One.", odd, BlockDelta({"n": float("nan"), "t": "\ud83d"})), say("Two."))
    assert [agent.chat(word).text for word in ("First?", "Second?")] == ["One.", "Two."]
    assert blocks_in(script.asked[1]) == [{"n": None, "t": "\ufffd"}]


def test_an_error_shows_no_name_of_what_a_model_has_made(system: SimulatedSystem) -> None:
    made = {"provider": "p", "data": {"secret": {"secret": float("nan")}}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
    messages.append({"role": "assistant", "content": "b", "provider_blocks": [made]})
    agent, script = agent_on(system, say("One."))
    with pytest.raises(OptionError, match=r"provider_blocks\[0\].*NaN") as caught:
        agent.history = messages
    assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="NaN") as caught:
        system.chat("m", [*messages, {"role": "user", "content": "c"}], provider=script)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("levels", [150, 400, 700, 960])
def test_a_deeply_nested_result_does_not_end_the_conversation(system: SimulatedSystem, levels: int) -> None:
    agent, script = agent_on(system, say("One.", *result_of_search(nested(levels))), say("Two."))
    assert [agent.chat(word).text for word in ("First?", "Second?")] == ["One.", "Two."]
    assert [message["content"] for message in agent.history] == ["First?", "One.", "Second?", "Two."]
    assert len(blocks_in(script.asked[1])) == (levels < 200)
    assert agent.statistics().restarts == 0


def test_a_turn_whose_block_is_no_json_is_kept_as_text(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One.", BlockDelta({"x": object()})), say("Two."))
    assert [agent.chat(word).text for word in ("First?", "Second?")] == ["One.", "Two."]
    assert [message["content"] for message in agent.history] == ["First?", "One.", "Second?", "Two."]
    assert (agent.statistics().restarts, agent.statistics().turns) == (0, 2)


@pytest.mark.parametrize("levels", [300, 600, 975])
def test_a_deeply_nested_message_is_refused_at_once(system: SimulatedSystem, levels: int) -> None:
    extra: list[Any] = []
    for _ in range(levels):
        extra = [extra]
    part = {"type": "text", "text": "x", "extra": extra}
    agent, _ = agent_on(system, say("One."))
    with pytest.raises(OptionError, match="nested too deeply"):
        agent.stream_chat([part])
    with pytest.raises(OptionError, match="nested too deeply"):
        agent.history = [{"role": "user", "content": [part]}]
    assert agent.chat("Hello").text == "One."


def test_a_nested_message_is_sent_and_read_back(system: SimulatedSystem) -> None:
    part = {"type": "text", "text": "x", "extra": json.loads(nested(250))}
    agent, script = agent_on(system, say("One."))
    assert agent.chat([part]).text == "One."
    assert agent.history[0]["content"] == script.asked[0][0]["content"] == [part]
    agent.history = agent.history


def test_the_history_says_which_provider_signed_a_call(system: SimulatedSystem) -> None:
    signed = ToolCallFragment(index=0, id="c", name="nothing", arguments="{}", signature="sealed")
    agent, script = agent_on(system, ScriptedAttempt((signed,), finish="tool_calls"), say("Two."))
    assert agent.chat("First?").text == "Two."
    for messages in (script.asked[1], agent.history):
        call = messages[1]["tool_calls"][0]
        assert (call["signature"], call["signed_by"]) == ("sealed", "scripted")


def test_a_call_whose_arguments_never_came_is_not_run_with_its_defaults(system: SimulatedSystem) -> None:
    ran: list[str] = []

    def delete_files(path: str = "/") -> str:
        """Delete files."""
        ran.append(path)
        return "deleted"

    named = ToolCallFragment(index=0, id="a", name="delete_files")
    without_name = ToolCallFragment(index=1, id="b", arguments='{"path": "/x"}')
    calls = FinishDelta("tool_calls", "tool_calls")
    for steps, runs in (((named, without_name, calls), []), ((named, calls), ["/"])):
        ran.clear()
        asking = ScriptedAttempt(steps, finish=None)
        agent, script = agent_on(system, asking, say("Done."), name=None, tools=[delete_files])
        assert agent.chat("Clean up").text == "Done."
        assert ran == runs
        assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("media", "words"),
    [
        ([MediaPart(kind="image", data="aGk=")], "[picture]"),
        ([MediaPart(kind="image", data="aGk="), MediaPart(kind="image", url="u")], "[picture] [picture]"),
        ([MediaPart(kind="audio", data="aGk=")], "[sound]"),
        ([MediaPart(kind="audio", data="aGk=", transcript="Good\nday. ")], "Good day."),
        ([MediaPart(kind="video", url="u"), MediaPart(kind="file", url="u")], "[video] [file]"),
        ([MediaPart(kind="image", data="aA==", is_partial=True)], NO_ANSWER),
    ],
)
def test_an_answer_that_is_only_a_picture_is_an_answer(
    system: SimulatedSystem, media: list[MediaPart], words: str
) -> None:
    agent, script = agent_on(system, say(*map(EventDelta, media)), say("Two."))
    assert agent.chat("First?").text == ""
    assert agent.chat("Second?").text == "Two."
    assert script.asked[1][1]["content"] == words
    check_history(agent.history)


def test_a_picture_before_a_pause_is_told(system: SimulatedSystem) -> None:
    paused = ScriptedAttempt((EventDelta(MediaPart(kind="image", data="aGk=")), PAUSE), finish=None)
    agent, _ = agent_on(system, paused, ScriptedAttempt())
    assert agent.chat("First?").text == ""
    assert agent.history[-1]["content"] == "[picture]"


@pytest.mark.parametrize("retain_bytes", [1_048_576, 0])
def test_a_picture_of_an_earlier_round_does_not_stand_for_the_last_answer(
    system: SimulatedSystem, retain_bytes: int
) -> None:
    picture = EventDelta(MediaPart(kind="image", data="aGk="))
    called = ScriptedAttempt(
        (picture, ToolCallFragment(index=0, id="c", name="nothing", arguments="{}")), finish="tool_calls"
    )
    agent, _ = agent_on(system, called, say(picture), say("Two."))
    options = system.settings.chat.replace(retain_bytes=retain_bytes)
    completed = agent.chat("First?", options=options)
    assert len(completed.media) == 2
    assert agent.history[-1]["content"] == "[picture]"


def test_the_usage_of_a_conversation_is_whole_or_says_that_it_is_not(system: SimulatedSystem) -> None:
    usage = Usage(input_tokens=3, output_tokens=1, reported_cost=0.5)
    agent, _ = agent_on(system, say("One.", usage=usage), say("Two.", usage=usage), say("Three."))
    agent.chat("First?")
    first = agent.statistics()
    assert (first.usage, first.cost) == (usage, Cost(amount=0.5, reported=0.5, source="provider"))
    agent.chat("Second?")
    assert agent.statistics().cost == Cost(amount=1.0, reported=1.0, source="provider")
    agent.chat("Third?")  # without a usage
    last = agent.statistics()
    assert last.cost is not None
    assert (last.cost.amount, last.cost.is_estimate, last.cost.reported) == (1.0, True, None)
    assert last.usage is not None
    assert last.usage.reported_cost is None


@pytest.mark.parametrize(
    "before", [MediaPart(kind="image", data="aGk="), ServerToolCall(id="s", name="web_search", input={})]
)
def test_a_turn_with_a_picture_or_a_search_stays_though_it_is_refused_then(
    system: SimulatedSystem, before: Any
) -> None:
    refused = ScriptedAttempt((EventDelta(before), ErrorDelta(ContentFilterError(200, "blocked"))), finish=None)
    agent, _ = agent_on(system, refused)
    with pytest.raises(ContentFilterError):
        agent.chat("First?")
    assert [message["content"] for message in agent.history] == ["First?", INTERRUPTED]


def test_a_subscriber_cannot_change_what_goes_back(system: SimulatedSystem) -> None:
    sealed = '[{"encrypted_content": "sealed"}]'
    agent, script = agent_on(system, ask(("c", "nothing", "{}")), say("One.", *result_of_search(sealed)), say("Two."))
    tried: list[object] = []

    def change(event: Any) -> None:
        blocks: list[Any] = []
        if isinstance(event, ServerToolResult):
            blocks = list(event.output)
        elif isinstance(event, StreamCompleted):
            blocks = [block.data for block in event.provider_blocks]
        for block in blocks:
            tried.append(block)
            with pytest.raises(TypeError, match="read-only"):
                block.clear()

    stream = agent.stream_chat("First?")
    stream.subscribe(change)
    assert stream.result().text == "One."
    system.settle()
    assert agent.chat("Second?").text == "Two."
    assert len(tried) == 2
    assert blocks_in(script.asked[2]) == blocks_in(agent.history) == [
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"encrypted_content": "sealed"}]}
    ]  # fmt: skip
