"""Under the seeds of every suite the simulated reader both blocks, as production does, and offers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.actors.call.attempt import Attempt
from penstock.ports import Delta
from penstock.testing import SimulatedDispatcher, SimulatedSystem
from penstock.testing.systems import reader_mode_of
from penstock.testing.threads import SimulatedThread
from tests.simulation import test_agent_crashes, test_crashes, test_outages

WAYS = {"blocked", "blocked until there was room", "offered", "offered again once there was room"}
SUITES: dict[str, tuple[Any, Callable[[int], object]]] = {
    "crashes": (test_crashes, lambda seed: test_crashes.run(seed, 0.0)),
    "agents": (test_agent_crashes, lambda seed: test_agent_crashes.run(seed, test_agent_crashes.count_steps)),
    "outages": (
        test_outages,
        lambda seed: test_outages.test_whatever_fails_and_whoever_is_killed_every_place_is_given_back(seed, 0.0),
    ),
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each way into a stream is taken."""
    taken: Counter[str] = Counter()
    pushing: set[SimulatedThread | None] = set()
    deltas, offer, wait = Attempt.deltas, Attempt.offer, SimulatedDispatcher.wait

    def count_deltas(self: Attempt, given: Sequence[Delta]) -> bool:
        taken["blocked"] += 1
        thread = SimulatedThread.current()
        assert thread is not None, "a reader blocks outside of a simulated thread"
        pushing.add(thread)
        try:
            return deltas(self, given)
        finally:
            pushing.remove(thread)

    def count_offer(self: Attempt, given: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        taken["offered" if given else "offered again once there was room"] += 1
        return offer(self, given, on_room)

    def count_wait(self: SimulatedDispatcher, latch: Any, timeout: float | None) -> bool:
        before = self.statistics().messages
        result = wait(self, latch, timeout)
        if SimulatedThread.current() in pushing and self.statistics().messages > before:  # others ran meanwhile
            taken["blocked until there was room"] += 1
        return result

    monkeypatch.setattr(Attempt, "deltas", count_deltas)
    monkeypatch.setattr(Attempt, "offer", count_offer)
    monkeypatch.setattr(SimulatedDispatcher, "wait", count_wait)
    return taken


@pytest.mark.parametrize("name", sorted(SUITES))
def test_a_suite_takes_both_ways_and_waits_for_room_on_both(name: str, taken: Counter[str]) -> None:
    suite, run = SUITES[name]
    [number] = [mark.args[0] for mark in suite.pytestmark if mark.name == "seeds"]
    for seed in range(number):
        before = taken.copy()
        run(seed)
        new = {way.split()[0] for way in taken - before}
        assert new <= {"blocked" if reader_mode_of(seed) == "blocking" else "offered"}
        if taken.keys() >= WAYS:
            return
    raise AssertionError(f"not taken under any seed of the suite: {WAYS - taken.keys()}")


def test_half_of_the_seeds_block() -> None:
    modes = [reader_mode_of(seed) for seed in range(1000)]
    assert modes.count("blocking") == modes.count("offer") == 500
    with SimulatedSystem(7) as blocking, SimulatedSystem(8) as offering:
        assert (blocking.scripted.mode, offering.scripted.mode) == ("blocking", "offer")


def test_every_test_with_seeds_runs_under_at_least_two_neighbours() -> None:
    marker = re.compile(r"^(?:@|pytestmark = )pytest\.mark\.seeds\((\d+)", re.MULTILINE)
    paths = Path(__file__).parents[1].rglob("test_*.py")
    numbers = [int(number) for path in paths for number in marker.findall(path.read_text("utf-8"))]
    assert len(numbers) > 30
    assert min(numbers) >= 2
