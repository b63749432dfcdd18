"""One bad message does not end a conversation: it is mended, refused before it is sent, or leaves the history."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.agent.history import INTERRUPTED, NO_ANSWER
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    OptionError,
    RateLimited,
)
from penstock.ports import ChatCall, ProviderRequest, TextDelta, ToolCallFragment
from penstock.testing import HANG, ScriptedAttempt, SimulatedSystem
from tests.conformance.agents import Bench, Script, agent_on, ask, check_history, say, until
from tests.conformance.common import assert_nothing_is_left

BROKEN, MENDED = "caf\udce9", "caf\ufffd"


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(1) as system:
        yield system
    assert_nothing_is_left(system)


@pytest.fixture
def bench(system: SimulatedSystem) -> Bench:
    return Bench(system)


def failing(error: penstock.PenstockError, *before: Any) -> ScriptedAttempt:
    return ScriptedAttempt((*before, error))


def contents(agent: penstock.Agent) -> list[Any]:
    check_history(agent.history)
    return [message["content"] for message in agent.history]


# --- mended or refused at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        BROKEN,
        [{"type": "text", "text": BROKEN}],
        {"role": "user", "content": "Hi", BROKEN: {BROKEN: [BROKEN]}},
        {"role": "user", "content": ({"type": "text", "text": "Hi", "x": {BROKEN: 1}},), "name": BROKEN},
    ],
)
def test_surrogates_in_a_message_are_mended_and_the_next_message_is_answered(
    system: SimulatedSystem, message: Any
) -> None:
    agent, script = agent_on(system, say("One."), say("Two."))
    agent.stream_chat(message).result()
    assert agent.stream_chat("Still there?").result().text == "Two."
    for sent in (*script.asked, agent.history):
        json.dumps(sent, ensure_ascii=False).encode()
    assert MENDED in repr(script.asked[0])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: [{"type": "text", "text": "secret", "x": wrong}],
        lambda wrong: {"role": "user", "content": "secret", "x": [{"y": (1, wrong)}]},
        lambda wrong: {"role": "user", "content": "secret", "x": {wrong: 1}},
    ],
)
def test_numbers_that_json_does_not_have_are_refused_by_stream_chat(
    system: SimulatedSystem, make: Callable[[float], Any], number: float
) -> None:
    agent, script = agent_on(system, say("One."))
    with pytest.raises(OptionError, match=r"^message\..*NaN or infinity") as caught:
        agent.stream_chat(make(number))
    assert "secret" not in str(caught.value)
    assert agent.history == ()
    with pytest.raises(OptionError, match=r"^history\[1\]\..*NaN or infinity"):
        system.agent(
            model="m", provider=script, history=[{"role": "user", "content": "a"}, {**make_message(make(number))}]
        )
    assert agent.stream_chat("Hi").result().text == "One."


def make_message(made: Any) -> dict[str, Any]:
    return made if isinstance(made, dict) else {"role": "user", "content": made}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "secret", "x": {1, 2}},
        {"role": "user", "content": "secret", "x": {("a", "b"): 1}},
        {"role": "user", "content": "secret", "x": 10**5000},
        {"role": "user", "content": 7},
        {"role": "user", "content": True},
        {"role": "user", "content": [7]},
        {"role": "user", "content": b"secret"},
        {"role": "user", "content": ["secret", None]},
    ],
)
def test_what_is_not_json_or_no_content_is_refused_by_stream_chat(system: SimulatedSystem, message: Any) -> None:
    agent, _ = agent_on(system, say("One."))
    with pytest.raises(OptionError, match=r"^message") as caught:
        agent.stream_chat(message)
    assert "secret" not in str(caught.value)
    assert agent.history == ()
    assert agent.stream_chat("Hi").result().text == "One."


def test_what_json_knows_in_another_form_is_kept_in_jsons(system: SimulatedSystem) -> None:
    """The encoder of requests refuses subclasses of str, and keys such as None, which `json` writes."""

    class Text(str):
        pass

    agent, script = agent_on(system, say("One."))
    agent.stream_chat({"role": "user", "content": Text("Hi"), "x": {None: Text("a"), True: (1,)}}).result()
    assert script.asked[0] == [{"role": "user", "content": "Hi", "x": {"null": "a", "true": [1]}}]


def test_surrogates_in_instructions_histories_tools_and_results_are_mended(
    system: SimulatedSystem, bench: Bench
) -> None:
    def fail(x: str) -> None:
        raise ValueError(BROKEN)

    agent, script = agent_on(
        system,
        ask(("a", "tell", "{}"), ("b", "fail", '{"x": ""}'), ("c", "caf", "{}")),
        say("Done."),
        tools=[bench.slow("tell", lambda _: [BROKEN]), penstock.tool(description=BROKEN)(fail)],
        system_prompt=BROKEN,
        history=[
            {"role": "user", "content": BROKEN},
            {"role": "assistant", "content": None, "tool_calls": [{"id": BROKEN, "function": {"name": BROKEN}}]},
            {"role": "tool", "tool_call_id": BROKEN, "content": BROKEN},
        ],
    )
    assert agent.stream_chat("Go.").result().text == "Done."
    for sent in (*script.asked, *script.parameters, agent.history):
        json.dumps(sent, ensure_ascii=False, default=dict).encode()
    assert [message["content"] for message in script.asked[1] if message["role"] == "tool"] == [
        MENDED,
        MENDED,
        f"ValueError: {MENDED}",
        "There is no tool 'caf'. Available tools: tell, fail.",
    ]
    assert script.asked[0][2]["tool_calls"][0]["id"] == script.asked[0][3]["tool_call_id"] == MENDED


def test_surrogates_from_a_provider_of_ones_own_are_mended_in_later_requests(
    system: SimulatedSystem, bench: Bench
) -> None:
    call = ToolCallFragment(index=0, id="c\udce9", name="double\udce9", arguments='{"x": 1}')
    agent, script = agent_on(
        system,
        ScriptedAttempt((TextDelta(BROKEN), call), finish="tool_calls"),
        ScriptedAttempt((TextDelta(BROKEN), call), finish="tool_calls"),
        ScriptedAttempt((TextDelta(BROKEN),)),
        say("Two."),
        tools=bench.tools(),
    )
    agent.stream_chat("Go.").result()
    assert agent.stream_chat("Still there?").result().text == "Two."
    for sent in (*script.asked, agent.history):
        json.dumps(sent, ensure_ascii=False).encode()
    ids = [call["id"] for message in agent.history for call in message.get("tool_calls", ())]
    assert ids == ["c\ufffd", "c\ufffd_2"]


# --- refused by the provider -----------------------------------------------------------------------------------------

REFUSALS = [BadRequestError(400, "no"), ContextLengthExceeded(400, "too long"), ContentFilterError(400, "filtered")]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_message_that_the_provider_refuses_leaves_the_history(
    system: SimulatedSystem, error: penstock.PenstockError
) -> None:
    agent, script = agent_on(system, say("One."), failing(copy.copy(error)), say("Three."))
    agent.stream_chat("First?").result()
    with pytest.raises(type(error)):
        agent.stream_chat([{"type": "image_url", "image_url": {"url": "https://x/broken.png"}}]).result()
    assert contents(agent) == ["First?", "One."]
    assert agent.stream_chat("Third?").result().text == "Three."
    assert "broken.png" not in repr(script.asked[2])
    assert contents(agent) == ["First?", "One.", "Third?", "Three."]
    assert agent.statistics().turns == 3


@pytest.mark.parametrize(
    "attempt",
    [
        failing(AuthenticationError(401, "no")),
        failing(RateLimited(429, "slow")),
        failing(ApiError(500, "broken")),
        failing(ContentFilterError(200, "filtered"), "Some text."),
        ScriptedAttempt((), finish="content_filter"),
    ],
)
def test_a_message_that_failed_for_another_reason_or_was_answered_in_part_stays(
    system: SimulatedSystem, attempt: ScriptedAttempt
) -> None:
    options = penstock.RequestOptions(max_retries=0)
    agent, _ = agent_on(system, attempt, say("Two."), request_options=options)
    stream = agent.stream_chat("First?")
    until(system, lambda: stream.is_over)
    first, answer = contents(agent)
    assert first == "First?"
    assert answer in (INTERRUPTED, NO_ANSWER, "Some text.")


def test_a_turn_whose_tools_have_run_stays_though_the_next_round_is_refused(
    system: SimulatedSystem, bench: Bench
) -> None:
    agent, _ = agent_on(
        system, ask(("a", "double", '{"x": 1}')), failing(BadRequestError(400, "no")), tools=bench.tools()
    )
    with pytest.raises(BadRequestError):
        agent.stream_chat("Go.").result()
    assert contents(agent) == ["Go.", None, "2", INTERRUPTED]


class Picky(Script):
    """A provider that cannot make a request of some messages, as ours do for a malformed data URL."""

    def __init__(self, error: Exception, *attempts: Any) -> None:
        super().__init__(*attempts)
        self.raised = error

    def request(self, call: ChatCall) -> ProviderRequest:
        if "poison" in repr(call.input):
            raise self.raised
        return super().request(call)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OptionError("image_url", "data:…", "a URL"), OptionError), (ValueError("poison"), penstock.AgentCrashed)],
)
def test_a_message_of_which_no_request_can_be_made_leaves_the_history(
    system: SimulatedSystem, error: Exception, raised: type[Exception]
) -> None:
    agent = system.agent(model="m", provider=Picky(error, say("One."), say("Two.")))
    agent.stream_chat("First?").result()
    with pytest.raises(raised):
        agent.stream_chat("poison").result()
    assert agent.stream_chat("Second?").result().text == "Two."
    assert contents(agent) == ["First?", "One.", "Second?", "Two."]


# --- forget, and set -------------------------------------------------------------------------------------------------


def test_forget_drops_the_newest_turns_and_returns_how_many(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system,
        say("One."),
        ask(("a", "double", '{"x": 1}')),
        say("Two."),
        say("Three."),
        tools=bench.tools(),
        system_prompt="Be brief.",
    )
    agent.stream_chat("First?").result()
    agent.stream_chat("Second?").result()
    assert agent.forget() == 1
    assert contents(agent) == ["Be brief.", "First?", "One."]
    agent.stream_chat("Third?").result()
    assert "Second?" not in repr(script.asked[3])
    assert agent.forget(7) == 2
    assert contents(agent) == ["Be brief."]
    assert agent.forget() == 0
    assert agent.statistics().history_dropped == 0


@pytest.mark.parametrize("turns", [0, -1, 1.5, None, "1", True])
def test_forget_takes_a_number_of_turns(system: SimulatedSystem, turns: Any) -> None:
    agent, _ = agent_on(system, say("One."))
    agent.stream_chat("First?").result()
    with pytest.raises(OptionError, match=r"^turns"):
        agent.forget(turns)
    assert len(agent.history) == 2


def test_forget_at_the_end_of_a_stream_drops_its_turn(system: SimulatedSystem) -> None:
    """Also if the agent's process has not noticed the end yet."""
    agent, _ = agent_on(system, say("One."))
    stream = agent.stream_chat("First?")
    found: list[int] = []
    stream.subscribe(
        lambda event: found.append(agent.forget()) if isinstance(event, penstock.StreamCompleted) else None
    )
    until(system, lambda: found)
    assert found == [1]
    assert agent.history == ()


def test_while_a_turn_runs_forget_and_set_concern_the_turns_before_it(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system,
        say("One."),
        ask(("a", "wait", '{"seconds": 5}')),
        ask(("b", "wait", '{"seconds": 5}')),
        say("Two."),
        tools=bench.tools(),
    )
    agent.stream_chat("First?").result()
    second = agent.stream_chat("Second?")
    until(system, lambda: "a" in bench.contexts)
    assert agent.forget(9) == 1
    until(system, lambda: "b" in bench.contexts)
    assert [message["content"] for message in script.asked[2]] == ["Second?", None, "waited 5"]
    agent.history = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Before."})
    assert second.result().text == "Two."
    assert [message["content"] for message in script.asked[3][:4]] == ["Be kind.", "Before.", NO_ANSWER, "Second?"]
    assert contents(agent)[:4] == ["Be kind.", "Before.", NO_ANSWER, "Second?"]
    assert contents(agent)[-1] == "Two."


def test_a_history_that_is_set_replaces_all_of_it_and_keeps_ids_unique(system: SimulatedSystem, bench: Bench) -> None:
    agent, script = agent_on(
        system, ask(("a", "double", '{"x": 1}')), say("Two."), tools=bench.tools(), system_prompt="Be brief."
    )
    call = {"id": "a", "type": "function", "function": {"name": "double", "arguments": "{}"}}
    given: list[dict[str, Any]] = [
        {"role": "user", "content": BROKEN},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "0"},
        {"role": "assistant", "content": "Zero."},
    ]
    agent.history = iter(given)
    assert contents(agent) == [MENDED, None, "0", "Zero."]
    agent.stream_chat("Go.").result()
    assert [message["content"] for message in script.asked[0]] == [MENDED, None, "0", "Zero.", "Go."]
    ids = [call["id"] for message in agent.history for call in message.get("tool_calls", ())]
    assert ids == ["a", "a_2"]
    agent.history = ()
    assert agent.history == ()


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        None,
        [{"role": "robot", "content": "secret"}],
        [{"role": "user"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": "a"}, {"role": "assistant"}],
        [{"role": "user", "content": "secret"}, {"role": "tool", "tool_call_id": "x", "content": "1"}],
    ],
)
def test_a_history_that_is_not_allowed_is_refused_and_changes_nothing(system: SimulatedSystem, wrong: Any) -> None:
    agent, script = agent_on(system, say("One."))
    agent.stream_chat("First?").result()
    with pytest.raises(OptionError, match=r"^history") as caught:
        agent.history = wrong
    assert "secret" not in str(caught.value)
    assert contents(agent) == ["First?", "One."]
    with pytest.raises(OptionError, match=r"^history"):
        system.agent(model="m", provider=script, history=wrong)


def test_a_history_that_is_set_is_bounded_too(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One."), agent_options=penstock.AgentOptions(max_history_messages=2))
    agent.history = [{"role": "user", "content": str(number)} for number in range(3)]
    assert contents(agent) == ["2", NO_ANSWER]
    assert agent.statistics().history_dropped == 4


def test_the_history_of_a_stopped_agent_can_still_be_changed(system: SimulatedSystem) -> None:
    agent, _ = agent_on(system, say("One."), ScriptedAttempt(("Two", HANG)))
    agent.stream_chat("First?").result()
    agent.stop()
    assert agent.forget() == 1
    agent.history = [{"role": "user", "content": "a"}]
    assert len(agent.history) == 2
