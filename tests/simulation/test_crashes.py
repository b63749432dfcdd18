"""Random programs with crashes at random steps: the promises hold whatever users do and whichever process dies.

Afterwards no event is lost or doubled, every stream has exactly one terminal event, every caller has an answer, and no
process, thread, timer or name is left.
"""

from __future__ import annotations

import pytest

from penstock.testing import SimulatedSystem
from tests.simulation.programs import Program

pytestmark = [pytest.mark.seeds(60), pytest.mark.sample(4)]


def run(seed: int, kill_chance: float) -> Program:
    with SimulatedSystem(seed) as system:
        program = Program(system, seed, kill_chance=kill_chance)
        program.run(40)
        program.end()
    return program


def test_a_program_without_crashes_is_promised_the_same(seed: int) -> None:
    assert run(seed, 0.0).used


def test_whatever_users_do_and_whoever_is_killed_the_promises_hold(seed: int) -> None:
    run(seed, 0.002)


def test_under_a_hail_of_crashes_the_promises_hold_too(seed: int) -> None:
    run(seed, 0.03)


def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    first, second = run(seed, 0.01), run(seed, 0.01)
    assert first.trace == second.trace
    assert [used.stream.text for used in first.used] == [used.stream.text for used in second.used]
