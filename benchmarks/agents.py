"""A tool round of an agent, end to end, and whether the time for long calls and histories is linear."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import requests

from benchmarks.clients import bare_chunks
from benchmarks.peers import open_ai_chunks
from benchmarks.probe import Meter, ProbeError, Result, measure
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import AgentOptions, FunctionTool, StreamCompleted, System, tool
from penstock.actors.agent.history import History, read_turns
from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.config.settings import Settings
from penstock.ports import ToolCallFragment

__all__ = ["MODELS", "load", "peer_load", "run", "scaling"]

_ANSWER = "The sum is seven and the product is twelve."
_QUESTION = "Add and multiply three and four."
_MODEL = "calculator"
MODELS: dict[str, dict[str, Any]] = {
    _MODEL: {"text": _ANSWER, "calls": [["add", '{"a": 3, "b": 4}'], ["multiply", '{"a": 3, "b": 4}']]}
}
"""What the provider serves: two calls, and an answer to their results."""


# --- one turn: a question, two calls, their results, an answer ------------------------------------------------------


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


_TOOLS = (add, multiply)


def _schema(function: FunctionTool) -> dict[str, Any]:
    described = {"name": function.name, "description": function.description, "parameters": function.parameters}
    return {"type": "function", "function": described}


_SCHEMAS = [_schema(each) for each in _TOOLS]


def load(url: str, turns: int) -> Result:
    """Let an agent answer ``turns`` times. It forgets each turn immediately, so all requests have the same size."""
    options = AgentOptions(max_history_messages=2)
    with System(Settings()) as system:
        agent = system.agent(model=_MODEL, tools=_TOOLS, base_url=url, api_key="benchmark", agent_options=options)

        def turn() -> str:
            *_, last = agent.stream_chat(_QUESTION)
            if not isinstance(last, StreamCompleted):
                raise ProbeError(f"the turn ended in {type(last).__name__}")
            return last.text

        return _measured(turn, turns)


def peer_load(client: str, url: str, turns: int) -> Result:
    """Run the same turns in a loop around a client (``bare``, ``openai``) that runs the tools in its own thread."""
    ask = _open_ai(url) if client == "openai" else _bare(url)
    functions: dict[str, Callable[..., int]] = {each.name: each.function for each in _TOOLS}

    def turn() -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": _QUESTION}]
        while True:
            text, calls = ask(messages)
            if not calls:
                return text
            asked = [_asked(*call) for call in calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": asked})
            for call_id, name, arguments in calls:
                result = functions[name](**json.loads(arguments))
                messages.append({"role": "tool", "tool_call_id": call_id, "content": str(result)})

    return _measured(turn, turns)


def _asked(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


_Ask = Callable[[list[dict[str, Any]]], tuple[str, list[list[str]]]]
"""Returns the text of an answer and its calls: id, name, arguments."""


def _bare(url: str) -> _Ask:
    session = requests.Session()

    def ask(messages: list[dict[str, Any]]) -> tuple[str, list[list[str]]]:
        text, calls = "", _Calls()
        for chunk in bare_chunks(session, url, _MODEL, messages=messages, tools=_SCHEMAS):
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls") or ():
                    function = call["function"]
                    calls.add(call["index"], call.get("id"), function.get("name"), function.get("arguments"))
        return text, list(calls.found.values())

    return ask


def _open_ai(url: str) -> _Ask:
    chunks = open_ai_chunks(url)

    def ask(messages: list[dict[str, Any]]) -> tuple[str, list[list[str]]]:
        text, calls = "", _Calls()
        for chunk in chunks(_MODEL, messages=messages, tools=_SCHEMAS):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    calls.add(call.index, call.id, call.function.name, call.function.arguments)
        return text, list(calls.found.values())

    return ask


class _Calls:
    def __init__(self) -> None:
        self.found: dict[int, list[str]] = {}

    def add(self, index: int, call_id: str | None, name: str | None, arguments: str | None) -> None:
        call = self.found.setdefault(index, [call_id or "", name or "", ""])
        call[2] += arguments or ""


def _measured(turn: Callable[[], str], turns: int) -> Result:
    for _ in range(3):  # to warm up
        if turn() != _ANSWER:
            raise ProbeError("the turn did not end in the answer")
    with Meter() as answering:
        for _ in range(turns):
            turn()
    return {"turn_ms": answering.wall / turns * 1e3, "cpu_ms": answering.cpu / turns * 1e3}


# --- ten times as much ----------------------------------------------------------------------------------------------


def scaling(size: int) -> Result:
    """Return how many times as long ten times ``size`` takes: fragments of one call, messages of a history."""
    return {
        "fragments": _times_ten(_accumulated, size),
        "read": _times_ten(_history_read, size),
        "asked": _times_ten(_history_asked, size),
    }


def _times_ten(seconds: Callable[[int], float], size: int) -> float:
    """Compare the best of three runs of each size: the question is whether the time is linear, not how long it is."""
    little = min(seconds(size) for _ in range(3))
    return min(seconds(10 * size) for _ in range(3)) / little


def _accumulated(fragments: int) -> float:
    calls = ToolCallAccumulator()
    with Meter() as feeding:
        calls.feed(ToolCallFragment(index=0, id="call_0", name="write", arguments='{"text":"'))
        for _ in range(fragments):
            calls.feed(ToolCallFragment(index=0, arguments=" word"))
        calls.feed(ToolCallFragment(index=0, arguments='"}'))
        made = calls.finish()
    if made[0].arguments != {"text": " word" * fragments}:
        raise ProbeError("not all arguments have arrived")
    return feeding.cpu


def _conversation(messages: int) -> list[dict[str, Any]]:
    said = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    return said * (messages // 2)


def _history_read(messages: int) -> float:
    given = _conversation(messages)
    with Meter() as reading:
        read_turns(given)
    return reading.cpu


def _history_asked(messages: int) -> float:
    """Make the messages of a request from a history, repeatedly; a long history must not make this quadratic."""
    system, exchanges = read_turns(_conversation(messages))
    history = History(system, exchanges, max_messages=messages + 10, max_bytes=2**30)
    question = [{"role": "user", "content": _QUESTION}]
    with Meter() as asking:
        for _ in range(20):
            asked = history.request(question)
    if len(asked) != messages + 1:
        raise ProbeError(f"{len(asked)} messages instead of {messages + 1}")
    return asking.cpu


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    turns, size = (20, 500) if quick else (300, 5000)
    ours: list[Result] = []
    theirs: dict[str, list[Result]] = {"bare": [], "openai": []}
    scales: list[Result] = []
    with serving(MODELS) as url:
        for _ in range(rounds):
            ours.append(measure(load, url=url, turns=turns))
            for client, found in theirs.items():
                found.append(measure(peer_load, client=client, url=url, turns=turns))
            scales.append(measure(scaling, size=size))
    return [_turns(turns, ours, theirs), _scales(size, scales)]


def _turns(turns: int, ours: list[Result], theirs: dict[str, list[Result]]) -> Table:
    table = Table(
        "An agent’s turn with one round of tools",
        f"{turns:,} turns one after the other, by chat completions over loopback HTTP: a question, calls of two tools"
        " that only calculate, a second request with their results, an answer of a few words. The bare loop is the"
        " same by `requests`, `sseclient-py` and `json`, and runs the tools in its own thread.",
    )
    bare = Samples.of(theirs["bare"], "turn_ms")
    table.rows.append(Row("a turn: wall", "ms", Samples.of(ours, "turn_ms"), None, "bare loop", bare))
    over = Samples(tuple(mine["turn_ms"] - their["turn_ms"] for mine, their in zip(ours, theirs["bare"], strict=True)))
    table.rows.append(Row("of which ours is more than the bare loop", "ms", over))
    for name, client in (("bare loop", "bare"), ("openai-python in a loop", "openai")):
        cpu = Samples.of(theirs[client], "cpu_ms")
        table.rows.append(Row("a turn: CPU", "ms", Samples.of(ours, "cpu_ms"), None, name, cpu))
    wall = Samples.of(theirs["openai"], "turn_ms")
    table.rows.append(Row("a turn: wall", "ms", Samples.of(ours, "turn_ms"), None, "openai-python in a loop", wall))
    return table


def _scales(size: int, scales: list[Result]) -> Table:
    table = Table(
        "Ten times as much, how many times the CPU time",
        f"{size:,} and {10 * size:,} of each, the best of three.",
    )
    for what, field in (
        ("fragments of one call’s arguments", "fragments"),
        ("messages of a history, read and checked", "read"),
        ("messages of a history, made into a request", "asked"),
    ):
        table.rows.append(Row(what, "times", Samples.of(scales, field), Aim("at most", 11)))
    return table
