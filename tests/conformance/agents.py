"""What tests of agents have in common: scripts with calls, tools that take virtual time, what a history must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

import penstock
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Cast,
    Event,
    Internal,
    Keep,
    Next,
    Stop,
    Transition,
    next_event,
    state_timeout,
)
from penstock.events import FinishReason
from penstock.ports import ChatCall, Delta, ProviderRequest, ToolCallFragment, ToolContext, UsageDelta
from penstock.testing import ScriptedAttempt, ScriptedProvider, SimulatedSystem


def ask(*calls: tuple[str, str, str], text: str = "", finish: FinishReason = "tool_calls") -> ScriptedAttempt:
    """An answer that calls functions: (id, name, arguments) each."""
    fragments: list[Delta] = [
        ToolCallFragment(index=place, id=id, name=name, arguments=arguments)
        for place, (id, name, arguments) in enumerate(calls)
    ]
    return ScriptedAttempt((*([text] if text else ()), *fragments), finish=finish)


def say(*words: Any, usage: penstock.Usage | None = None) -> ScriptedAttempt:
    """An answer in words."""
    return ScriptedAttempt((*words, *([UsageDelta(usage)] if usage is not None else ())))


class Script(ScriptedProvider):
    """A scripted provider that remembers what it was asked."""

    def __init__(self, *attempts: Any) -> None:
        super().__init__(*attempts)
        self.asked: list[list[dict[str, Any]]] = []
        self.parameters: list[Mapping[str, Any]] = []

    def request(self, call: ChatCall) -> ProviderRequest:
        self.asked.append(msgspec.json.decode(msgspec.json.encode(call.input)))
        self.parameters.append(call.parameters)
        return super().request(call)


class SlowTool:
    """A tool that takes virtual time and no thread. Implements `Tool`.

    ``script`` makes steps of the arguments: a number waits for so many seconds, a text is the result, an exception is
    raised, anything else is reported.
    """

    description = "A tool of a test."
    needs_approval = False

    def __init__(self, bench: Bench, name: str, script: Callable[[Mapping[str, Any]], Iterable[Any]]) -> None:
        self.name = name
        self.timeout: float | None = None
        self.parameters: Mapping[str, Any] = {"type": "object"}
        self.bench = bench
        self.script = script

    def check(self, arguments: Any) -> Mapping[str, Any]:
        if not isinstance(arguments, dict):
            raise penstock.ToolArgumentsError("not an object")
        return arguments

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        bench = self.bench
        bench.runs.append(" ".join([self.name, *(f"{value:g}" for value in arguments.values())]))
        bench.contexts[context.call_id] = context
        reply = Reply(bench.system.runtime.dispatcher)
        ref = bench.system.runtime.spawn(_Steps, bench, list(self.script(arguments)), context, reply)
        context.on_cancel(lambda: ref.tell("cancel"))
        return reply


class _Steps(StateMachine):
    """What a `SlowTool` does, one after the other."""

    def init(self, bench: Bench, steps: list[Any], context: ToolContext, reply: Reply) -> Next:
        self.bench, self.steps, self.context, self.reply = bench, steps, context, reply
        bench.at_work += 1
        bench.most_at_once = max(bench.most_at_once, bench.at_work)
        return Next("working", next_event(Internal("go")))

    def working(self, event: Event) -> Transition:
        match event:
            case Cast(message="cancel"):
                self.bench.at_work -= 1
                return Stop()
        step = self.steps.pop(0)
        if isinstance(step, (int, float)):
            return Keep(state_timeout(step))
        if not isinstance(step, (str, Exception)):
            self.context.report(step)
            return Keep(state_timeout(1e-9))
        self.bench.at_work -= 1
        self.reply.fail(step) if isinstance(step, Exception) else self.reply.set(step)
        return Stop()


class Bench:
    """Tools for one simulated system, and what has been run."""

    def __init__(self, system: SimulatedSystem) -> None:
        self.system = system
        self.runs: list[str] = []
        self.contexts: dict[str, ToolContext] = {}
        self.at_work = 0
        self.most_at_once = 0

    def double(self) -> Any:
        def double(x: int) -> int:
            """Double a number."""
            self.runs.append(f"double {x}")
            return 2 * x

        return double

    def slow(self, name: str, script: Callable[[Mapping[str, Any]], Iterable[Any]]) -> Any:
        return SlowTool(self, name, script)

    def tools(self) -> list[Any]:
        def fail() -> None:
            """Fail."""
            self.runs.append("fail")
            raise RuntimeError("it is broken")

        return [
            self.double(),
            self.slow("wait", lambda given: [given["seconds"], f"waited {given['seconds']:g}"]),
            fail,
            self.slow("report", lambda given: [*({"step": step} for step in range(given["steps"])), "reported"]),
        ]


def agent_on(system: SimulatedSystem, *attempts: Any, tools: Any = (), **options: Any) -> tuple[penstock.Agent, Script]:
    script = Script(*attempts)
    return system.agent(options.pop("name", "a"), model="m", provider=script, tools=tools, **options), script


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


def results(events: list[Any]) -> list[tuple[str, str, str]]:
    return [(event.call_id, event.status, event.content) for event in events if isinstance(event, penstock.ToolResult)]


def check_history(messages: tuple[dict[str, Any], ...]) -> None:
    """The form that every provider takes; see `penstock.actors.agent.history`."""
    rest = [message for message in messages if message["role"] != "system"]
    while rest:
        assert rest.pop(0)["role"] == "user"
        while True:
            message = rest.pop(0)
            assert message["role"] == "assistant", message["role"]
            if not message.get("tool_calls"):
                assert message["content"].strip()
                break
            for call in message["tool_calls"]:
                result = rest.pop(0)
                assert (result["role"], result["tool_call_id"]) == ("tool", call["id"])


def until(system: SimulatedSystem, predicate: Callable[[], Any], seconds: float = 60.0) -> None:
    """Let time pass until something is so."""
    for _ in range(int(seconds * 100)):
        if predicate():
            return
        system.advance(0.01)
    raise AssertionError("it never was so")
