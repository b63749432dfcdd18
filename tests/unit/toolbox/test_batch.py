"""`System.batch` in virtual time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem, eventually

pytestmark = pytest.mark.seeds(6)


@pytest.fixture
def system(seed: int) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed) as system:
        yield system


def ask(system: SimulatedSystem, provider: ScriptedProvider, prompts: Any, **more: Any) -> penstock.BatchResults:
    return system.batch(prompts, provider=provider, model="m", **more)


def test_every_prompt_has_one_result(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider([0.5, "Yes."])
    results = list(ask(system, provider, [f"{n}?" for n in range(25)], concurrency=4))
    assert sorted(result.id for result in results if isinstance(result.id, int)) == list(range(1, 26))
    assert {(result.status, result.text, result.attempts) for result in results} == {("completed", "Yes.", 1)}
    assert provider.requests == 25
    assert system.get_active_streams() == []


def test_no_more_run_at_once_than_allowed(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider([0.5, "Yes."])
    batch = ask(system, provider, (f"{n}?" for n in range(20)), concurrency=3)
    for _ in batch:
        assert len(system.get_active_streams()) <= 3
        assert batch.progress.running <= 3
    assert batch.progress.completed == 20
    assert batch.stopped is None


def test_a_generator_is_read_a_bounded_way_ahead(system: SimulatedSystem, seed: int) -> None:
    read: list[int] = []

    def prompts() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield f"{number}?"

    batch = ask(system, ScriptedProvider([0.5, "Yes."]), prompts(), concurrency=3)
    for count, _ in enumerate(batch, 1):
        system.settle()
        assert len(read) <= count + 2 * 3
    assert len(read) == 100


def test_results_that_are_not_taken_hold_the_next_calls_back(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Yes."])
    batch = ask(system, provider, [f"{n}?" for n in range(99)], concurrency=4)
    for given, _ in enumerate(batch, 1):
        system.advance(1)
        assert provider.requests <= given + 2 * 4
    assert provider.requests == 99


def test_closing_cancels_all(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Yes."], [HANG])
    batch = ask(system, provider, (f"{n}?" for n in range(9)), concurrency=3)
    assert next(batch).text == "Yes."
    batch.close()
    assert list(batch) == []
    system.settle()
    assert system.get_active_streams() == []
    assert batch.stopped == "closed"


def test_leaving_the_block_or_dropping_it_cancels_all(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Yes."], [HANG])
    with ask(system, provider, ["a", "b", "c"], concurrency=3) as batch:
        next(batch)
    system.settle()
    assert system.get_active_streams() == []
    provider = ScriptedProvider(["Yes."], [HANG])
    batch = ask(system, provider, iter(["a", "b", "c"]), concurrency=3)
    next(batch)
    del batch
    system.settle()
    assert system.get_active_streams() == []


def test_drained_it_gives_what_runs_and_starts_nothing_more(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider([0.5, "Yes."])
    batch = ask(system, provider, [f"{n}?" for n in range(9)], concurrency=3)
    next(batch)
    batch.drain("enough")
    assert 1 + len(list(batch)) == provider.requests < 9
    assert batch.stopped == "enough"


def test_a_failure_in_the_middle_is_retried_from_the_start(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Ha", penstock.IncompleteStream("cut")], ["Half", " and half."])
    [result] = ask(system, provider, ["a"])
    assert (result.text, result.attempts, result.status) == ("Half and half.", 2, "completed")


def test_without_retries_a_failure_has_what_came(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Ha", penstock.IncompleteStream("cut")])
    [result] = ask(system, provider, [{"id": "x", "prompt": "a", "metadata": {"row": 7}}], retries=0)
    assert (result.id, result.text, result.status, result.metadata) == ("x", "Ha", "failed", {"row": 7})
    assert isinstance(result.error, penstock.IncompleteStream)
    assert provider.requests == 1


def test_a_429_pauses_all_starts(system: SimulatedSystem, seed: int) -> None:
    refusal = penstock.RateLimited(429, "slow", retryable=True)  # without a time, the gate itself holds nothing
    starts: list[float] = []

    class Timed(ScriptedProvider):
        def next_attempt(self) -> ScriptedAttempt:
            starts.append(system.runtime.clock.monotonic())
            return super().next_attempt()

    provider = Timed([0.1, "Yes."], [0.1, "Yes."], [refusal], [0.1, "Yes."])
    results = list(ask(system, provider, [f"{n}?" for n in range(9)], concurrency=2))
    assert [result.status for result in results] == ["completed"] * 9
    assert len(starts) == 10
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert sum(gap >= 0.4 for gap in gaps) == 1, "one pause, in which nothing starts"
    assert sum(gap < 0.2 for gap in gaps) == 8
    assert gaps.index(max(gaps)) <= 3, "it comes at once, and not after the other prompts"


def test_a_wrong_key_stops_it_and_the_rest_is_undone(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider([0.1, "Yes."], [0.2, penstock.AuthenticationError(401, "no")])
    batch = ask(system, provider, [f"{n}?" for n in range(50)], concurrency=2)
    results = list(batch)
    assert len(results) < 50
    assert {result.status for result in results} <= {"completed"}
    assert isinstance(batch.stopped, penstock.AuthenticationError)


def test_a_prompt_that_no_provider_takes_fails_alone(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider(["Yes."])
    forms = [{"prompt": "a", "params": {"timeout": "long"}}, "b"]
    bad, good = sorted(ask(system, provider, forms), key=lambda result: result.number)
    assert (bad.status, bad.attempts, good.status) == ("failed", 0, "completed")
    assert isinstance(bad.error, penstock.OptionError)


def test_a_bad_form_and_a_double_id_are_raised_by_place(system: SimulatedSystem, seed: int) -> None:
    provider = ScriptedProvider([HANG])
    with pytest.raises(penstock.OptionError, match=r"prompts\[1\]: prompt: got an empty text"):
        list(ask(system, provider, ["a", "  "]))
    with pytest.raises(penstock.OptionError, match=r"prompts\[1\]: the id 'x' is there twice"):
        list(ask(system, provider, [{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}]))
    system.settle()
    assert system.get_active_streams() == []


def test_what_the_prompts_raise_is_raised_and_all_is_cancelled(system: SimulatedSystem, seed: int) -> None:
    def prompts() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ask(system, ScriptedProvider([HANG]), prompts()))
    system.settle()
    assert system.get_active_streams() == []


def test_each_result_is_shown_before_it_is_given(system: SimulatedSystem, seed: int) -> None:
    seen: list[Any] = []
    for result in ask(system, ScriptedProvider(["Yes."]), ["a", "b"], on_result=seen.append):
        assert seen[-1] is result
    assert len(seen) == 2


def test_an_on_result_that_raises_cancels_all(system: SimulatedSystem, seed: int) -> None:
    def fail(_result: penstock.BatchResult) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ask(system, ScriptedProvider(["Yes."], [HANG]), ["a", "b"], on_result=fail, concurrency=2))
    system.settle()
    assert system.get_active_streams() == []


def test_in_an_event_loop_it_gives_the_same(system: SimulatedSystem, seed: int) -> None:
    async def main() -> list[Any]:
        batch = ask(system, ScriptedProvider([0.5, "Yes."]), (f"{n}?" for n in range(9)), concurrency=3)
        return [result.text async for result in batch]

    assert system.run(main()) == ["Yes."] * 9


def test_a_stopped_system_ends_it(system: SimulatedSystem, seed: int) -> None:
    batch = ask(system, ScriptedProvider(["Yes."], [HANG]), [f"{n}?" for n in range(9)], concurrency=2)
    next(batch)
    system.stop()
    with pytest.raises(penstock.SystemStopped):
        list(batch)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"retries": -1}, "retries"),
        ({"max_cost": -1}, "max_cost"),
        ({"on_result": 7}, "on_result"),
        ({"prompts": "a text"}, "prompts"),
        ({"request_options": 7}, "request_options"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(
    system: SimulatedSystem, seed: int, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(penstock.OptionError, match=field):
        ask(system, ScriptedProvider(["Yes."]), **{"prompts": ["a"], **arguments})


def test_a_wrong_argument_of_every_call_is_raised_and_no_result_of_one(system: SimulatedSystem, seed: int) -> None:
    with pytest.raises(penstock.OptionError, match="provider"):
        list(system.batch(["a"], provider="nobody", model="m"))


def test_results_come_while_the_next_prompt_is_waited_for() -> None:
    given, wanted = threading.Event(), threading.Event()

    def prompts() -> Iterator[str]:
        yield "a"
        wanted.set()
        given.wait(10)
        yield "b"

    with penstock.System(penstock.Settings()) as system:
        batch = system.batch(prompts(), provider="loopback", model="echo", concurrency=4)
        assert next(batch).text == "a"
        eventually(wanted.is_set)
        given.set()
        assert [result.text for result in batch] == ["b"]
