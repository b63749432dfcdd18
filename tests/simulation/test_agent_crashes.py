"""Agents with crashes of any process between any two steps of a turn.

Every stream has one terminal event. No call runs twice. The history has no call without its result, whatever was cut
off. The agent answers afterwards. Nothing is left: no running tool, no occupied tool slot, no open request.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.process import ProcessRef
from penstock.ports import TextDelta
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, check_log
from tests.conformance.agents import Bench, ask, check_history, say
from tests.conformance.common import FAST, assert_nothing_is_left

pytestmark = [pytest.mark.seeds(40), pytest.mark.sample(4)]

SPARED = ("_OfferingRequest", "Sentinel", "_Steps", "CallbackProcess")
"""The reader's requests, processes that live for one call, the timers of the tools, and the observing subscribers."""
VICTIMS = {
    "agent": "AgentProcess",
    "stream": "TokenStream",
    "source": "Integration",
    "tool": "Task",
    "handler": "StreamHandler",
    "agent_handler": "AgentHandler",
}


class Model(ScriptedProvider):
    """Answers at random; all its calls are different, so that a call that runs twice is noticed."""

    def __init__(self, seed: int) -> None:
        super().__init__(["never used"])
        self.chance = random.Random(f"model {seed}")
        self.asked = 0
        self.is_calm = False

    def next_attempt(self) -> ScriptedAttempt:
        self.requests += 1
        if self.is_calm:
            return say("Calm.")
        chance = self.chance
        if chance.random() < 0.35:
            read = [TextDelta(word) for word in ("words ", "in ", "one ", "read.")]
            return say("Some ", chance.choice((0.0, 0.5)), read)
        if chance.random() < 0.1:
            return ScriptedAttempt(("broken", penstock.ProviderError("broken")))
        attempt = ask(*[self.call() for _ in range(chance.randint(1, 4))], text=chance.choice(("", "Let me see. ")))
        return ScriptedAttempt(attempt.steps, finish=chance.choice(("tool_calls", "tool_calls", "stop", "length")))

    def call(self) -> tuple[str, str, str]:
        self.asked += 1
        number = self.asked
        name, arguments = self.chance.choice(
            [
                ("double", f'{{"x": {number}}}'),
                ("wait", f'{{"seconds": {self.chance.choice((0, 1, 100))}, "number": {number}}}'),
                ("report", f'{{"steps": 2, "number": {number}}}'),
                ("double", f'{{"x": {number}'),
                ("unknown", "{}"),
            ]
        )
        return self.chance.choice((f"c{number}", "call_0" if number % 7 == 0 else f"d{number}")), name, arguments


class Turns:
    """One agent, the messages it gets, and the crashes."""

    def __init__(self, system: SimulatedSystem, seed: int) -> None:
        self.system = system
        self.bench = Bench(system)
        self.model = Model(seed)
        self.chance = random.Random(f"user {seed}")
        self.steps = 0
        self.kills = 0
        self.cancelled = 0
        self.collectors: list[tuple[penstock.Stream, Collector]] = []
        self.agent = system.agent(
            "a",
            model="m",
            provider=self.model,
            tools=self.bench.tools(),
            options=FAST.replace(
                max_buffer_size=2, rate_limit=self.chance.choice((None, 1e9))
            ),  # the latter: no direct turn
            agent_options=penstock.AgentOptions(max_tool_calls=2, tool_timeout=20.0, max_tool_rounds=3),
            request_options=penstock.RequestOptions(retry_base_delay=0.01, on_interrupt="restart"),
        )

    def run(self, interfere: Callable[[], None]) -> None:
        """Send a few messages, and call ``interfere`` between any two steps."""
        self.system.simulation.dispatcher.before_step = interfere
        try:
            for number in range(4):
                self.say(f"message {number}")
                self.system.advance(self.chance.choice((0, 0.1, 3, 30)))
                if self.chance.random() < 0.2 and self.collectors:
                    self.cancelled += 1
                    self.act(lambda: self.chance.choice(self.collectors)[0].cancel("enough"))
            self.system.advance(200)
        finally:
            self.system.simulation.dispatcher.before_step = None

    def act(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except (penstock.StreamClosed, penstock.AgentStopped, penstock.SystemStopped):
            return

    def say(self, text: str) -> None:
        def said() -> None:
            stream = self.agent.stream_chat(text, on_orphan="continue")
            self.collectors.append((stream, Collector(stream)))

        self.act(said)

    def kill(self, chance: random.Random, kinds: tuple[str, ...] = ()) -> None:
        runtime = self.system.simulation.runtime
        victims: list[ProcessRef] = [
            ref
            for ref in runtime.processes()
            if (process := runtime._alive.get(ref)) is not None
            and type(process).__name__ not in SPARED
            and (not kinds or type(process).__name__ in kinds)
            and ref.label != "system"
        ]
        if victims:
            self.kills += 1
            runtime.exit(chance.choice(victims), "kill")

    def check(self) -> None:
        """Check what must hold after any crashes."""
        system, agent, bench = self.system, self.agent, self.bench
        self.model.is_calm = True
        system.advance(600)
        for stream, collector in self.collectors:
            assert stream.is_over, stream
            check_log(stream)
            if collector.terminal is not None:
                collector.check()
        assert len(bench.runs) == len(set(bench.runs)), f"run twice: {bench.runs}"
        assert bench.at_work == 0
        assert system._tool_quota.taken == 0
        check_history(agent.history)
        if agent.is_alive:
            terminal = agent.stream_chat("And now?").result(600)
            assert terminal.text == "Calm."
            assert agent.history[-1]["content"] == "Calm."
            check_history(agent.history)
            agent.stop()
        assert agent.state == "ended"
        assert_nothing_is_left(system)


def run(seed: int, make_interference: Callable[[Turns], Callable[[], None]]) -> Turns:
    with SimulatedSystem(seed) as system:
        turns = Turns(system, seed)
        turns.run(make_interference(turns))
        turns.check()
    return turns


def count_steps(turns: Turns) -> Callable[[], None]:
    def step() -> None:
        turns.steps += 1

    return step


@functools.cache
def steps_of(seed: int) -> int:
    """How many steps the run of a seed has, without a crash."""
    return run(seed, count_steps).steps


def test_without_crashes_the_same_is_promised(seed: int) -> None:
    turns = run(seed, count_steps)
    # A message that was cancelled before its turn is not in the history.
    said = sum(message["role"] == "user" for message in turns.agent.history)
    assert turns.agent.statistics().turns == said >= 5 - turns.cancelled


@pytest.mark.sample(10)
@pytest.mark.parametrize("victim", sorted(VICTIMS))
def test_one_of_each_kind_dies_between_any_two_steps(seed: int, victim: str) -> None:
    steps = steps_of(seed)
    chance = random.Random(f"{victim} {seed}")
    for at in sorted(chance.sample(range(steps), k=min(3, steps))):

        def interference(turns: Turns, at: int = at) -> Callable[[], None]:
            def interfere() -> None:
                turns.steps += 1
                if turns.steps >= at and not turns.kills:
                    turns.kill(chance, (VICTIMS[victim],))

            return interfere

        turns = run(seed, interference)
        assert turns.agent.state == "ended"


@pytest.mark.parametrize("often", [0.003, 0.03])
def test_whoever_is_killed_however_often_the_promises_hold(seed: int, often: float) -> None:
    chance = random.Random(f"kills {seed}")

    def interference(turns: Turns) -> Callable[[], None]:
        def interfere() -> None:
            if chance.random() < often:
                turns.kill(chance)

        return interfere

    run(seed, interference)
