"""The state tables are what the code does: as it is read, and as it runs."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.statetable import END, START
from penstock.testing import SimulatedSystem
from tests.diagrams.machines import MACHINES, UNDRAWN, Machine, moves_of
from tests.diagrams.programs import PROGRAMS
from tests.diagrams.reading import Found, Reader
from tests.diagrams.recording import Recorder, recording
from tests.simulation.programs import Program
from tests.simulation.test_agent_crashes import Turns

SIMULATED = sorted(set(MACHINES) - {"circuit-breaker"})


@pytest.fixture(scope="module")
def recorded() -> Recorder:
    with redirect_stderr(StringIO()), recording() as recorder:  # streams that crash are logged
        for program in PROGRAMS:
            program()
    return recorder


@cache
def read(name: str) -> frozenset[Found]:
    return frozenset(MACHINES[name].read())


def outside(machine: Machine, moves: set[Found] | frozenset[Found]) -> list[Found]:
    return sorted(moves - moves_of(machine.table))


# --- as it is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_every_move_that_the_code_makes_is_in_the_table(name: str) -> None:
    machine = MACHINES[name]
    assert [found for found in outside(machine, read(name)) if not any(one.means(found) for one in machine.never)] == []


@pytest.mark.parametrize("name", MACHINES)
def test_every_move_of_the_table_is_made_by_the_code(name: str) -> None:
    assert sorted(moves_of(MACHINES[name].table) - read(name)) == []


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_said_never_to_happen_is_needed_and_not_in_the_table(name: str) -> None:
    machine = MACHINES[name]
    for never in machine.never:
        assert any(never.means(found) for found in outside(machine, read(name))), never.reason


@pytest.mark.parametrize("name", MACHINES)
def test_a_table_names_every_state_and_no_other(name: str) -> None:
    table = MACHINES[name].table
    states = {state.name for state in table.states}
    for move in table.moves:
        assert set(move.sources) <= states | {START}, move
        assert set(move.targets) <= states | {END}, move
    reached = {target for move in table.moves for target in move.targets}
    assert reached - {END} == states
    assert len(states) == len(table.states)


def test_every_state_machine_of_the_package_with_more_than_one_state_has_a_table() -> None:
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with_table = {machine.recorded for machine in MACHINES.values()}
    ours = [cls for cls in _subclasses(StateMachine) if cls.__module__.startswith("penstock.")]
    assert len(ours) >= 6
    for cls in ours:
        if cls not in with_table and cls.__name__ not in UNDRAWN:
            states = {target for _, _, target in Reader(cls).machine_moves()} - {END}
            assert len(states) == 1, f"{cls.__name__} has no state table"
    assert set(UNDRAWN) <= {cls.__name__ for cls in ours}


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


# --- as it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMULATED)
def test_every_move_that_is_made_is_in_the_table(name: str, recorded: Recorder) -> None:
    machine = MACHINES[name]
    assert outside(machine, recorded.moves[machine.recorded]) == []


@pytest.mark.parametrize("name", SIMULATED)
def test_every_move_of_the_table_is_made(name: str, recorded: Recorder) -> None:
    machine = MACHINES[name]
    made = recorded.moves[machine.recorded]
    for move in machine.table.moves:
        for source, target in move.pairs():
            assert any((source, event, target) in made for event in move.on), (source, target, move.when)


@pytest.mark.seeds(5)
def test_no_random_program_makes_another_move(seed: int) -> None:
    with recording() as recorder:
        with SimulatedSystem(seed) as system:
            program = Program(system, seed, kill_chance=random.Random(seed).choice((0.0, 0.002, 0.02)))
            program.run(40)
            program.end()
        with SimulatedSystem(seed) as system:
            turns = Turns(system, seed)
            turns.run(lambda: None)
            turns.check()
    for name in SIMULATED:
        machine = MACHINES[name]
        assert outside(machine, recorder.moves.get(machine.recorded, set())) == [], name
