"""Batches with kills between any two events: one result a prompt, nothing lost, nothing doubled, nothing left open."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.process import ProcessRef
from penstock.errors import ApiError, IncompleteStream, RateLimited
from penstock.testing import ScriptedProvider, SimulatedSystem
from penstock.toolbox.batch.reading import PromptReader
from tests.conformance.common import assert_nothing_is_left
from tests.simulation.programs import may_die

pytestmark = [pytest.mark.seeds(25), pytest.mark.sample(3)]

PROMPTS = 14


def attempts_of(chance: random.Random) -> list[list[Any]]:
    """What the provider does: mostly answers, now and then a failure."""
    choices: list[list[Any]] = [
        ["Yes."],
        [0.2, "Yes", 0.1, "."],
        ["Ye", IncompleteStream("cut")],
        [ApiError(503, "down", retryable=True)],
        [RateLimited(429, "slow", retryable=True, retry_after=2.0)],
        [0.3, "Yes."],
    ]
    return [chance.choice(choices) for _ in range(30)] + [["Yes."]]


class Killer:
    """Kills processes between two steps, the roots of the tree and the shared servers apart."""

    def __init__(self, system: SimulatedSystem, seed: int, chance: float) -> None:
        self.system = system
        self.random = random.Random(f"kills {seed}")
        self.chance = chance
        self.killed: list[str] = []
        system.simulation.dispatcher.before_step = self.maybe_kill

    def maybe_kill(self) -> None:
        if self.random.random() >= self.chance:
            return
        runtime = self.system.simulation.runtime
        victims = [ref for ref in runtime.processes() if self.is_victim(ref)]
        if victims:
            victim = self.random.choice(victims)
            self.killed.append(type(runtime._alive[victim]).__name__)
            runtime.exit(victim, "kill")

    def is_victim(self, ref: ProcessRef) -> bool:
        process = self.system.simulation.runtime._alive.get(ref)
        return may_die(process) and ref.label != "system" and not isinstance(process, PromptReader)


@pytest.mark.parametrize("chance", [0.0, 0.003, 0.03])
def test_each_prompt_has_at_most_one_result_whichever_process_dies(seed: int, chance: float) -> None:
    with SimulatedSystem(seed) as system:
        killer = Killer(system, seed, chance)
        provider = ScriptedProvider(*attempts_of(random.Random(seed)))
        batch = system.batch(
            (f"{n}?" for n in range(PROMPTS)),
            provider=provider,
            model="m",
            concurrency=random.Random(seed).randint(1, 5),
        )
        results: list[penstock.BatchResult] = []
        try:
            for result in batch:
                results.append(result)
                if result.end is not None:
                    assert result.end.text == result.text
        except penstock.SystemStopped:  # the supervisors gave up
            assert chance > 0
        finally:
            system.simulation.dispatcher.before_step = None
        assert bool(killer.killed) or chance < 0.03
        counts = Counter(result.id for result in results)
        assert max(counts.values(), default=1) == 1, counts
        if batch.stopped is None:
            assert sorted(counts) == list(range(1, PROMPTS + 1)), killer.killed
        for result in results:
            assert (result.status == "completed") is (result.error is None)
            if result.status == "completed":
                assert result.text == "Yes."
        if not chance:
            assert {result.status for result in results} == {"completed"} or provider.requests > PROMPTS
        system.settle()
        assert system.get_active_streams() == []
    assert_nothing_is_left(system)


def test_a_batch_that_is_closed_at_any_step_leaves_nothing_open(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        chance = random.Random(seed)
        provider = ScriptedProvider(*attempts_of(chance))
        batch = system.batch((f"{n}?" for n in range(PROMPTS)), provider=provider, model="m", concurrency=3)
        steps = chance.randrange(200)

        def count() -> None:
            nonlocal steps
            steps -= 1
            if steps == 0:
                batch.close()

        system.simulation.dispatcher.before_step = count
        given = len(list(batch))
        system.simulation.dispatcher.before_step = None
        batch.close()
        system.settle()
        assert given <= PROMPTS
        assert system.get_active_streams() == []
    assert_nothing_is_left(system)


def test_a_dead_reader_of_prompts_is_an_error_and_no_short_batch(seed: int) -> None:
    def prompts() -> Iterator[str]:
        yield from (f"{n}?" for n in range(PROMPTS))

    with SimulatedSystem(seed) as system:
        batch = system.batch(prompts(), provider=ScriptedProvider([0.5, "Yes."]), model="m", concurrency=2)
        next(batch)
        runtime = system.simulation.runtime
        [reader] = [ref for ref in runtime.processes() if isinstance(runtime._alive.get(ref), PromptReader)]
        runtime.exit(reader, "kill")
        with pytest.raises(penstock.ProcessDead, match="reader of the prompts"):
            list(batch)
        system.settle()
        assert system.get_active_streams() == []
