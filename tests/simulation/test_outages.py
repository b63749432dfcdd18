"""Failing providers, limits, and crashes at any step: no slot at a gate is lost, and retries stay within the budget."""

from __future__ import annotations

import random
from typing import Any

import pytest

import penstock
from penstock.actors.call.gate import EndpointStatistics
from penstock.config.limits import BreakerOptions, RetryBudgetOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import ApiError, CircuitOpen, ConnectError, IncompleteStream, RateLimited
from penstock.ports import TextDelta
from penstock.testing import (
    HANG,
    Collector,
    ResumableProvider,
    ScriptedAttempt,
    ScriptedProvider,
    SimulatedSystem,
    kill,
)
from tests.conformance.common import FAST, assert_all_is_well

pytestmark = [pytest.mark.seeds(60), pytest.mark.sample(4)]

WORDS = [f"{number} " for number in range(20)]
TEXT = "".join(WORDS)
AT_ONCE = 2
VICTIMS = ("Integration", "StreamHandler", "TokenStream", "DynamicSupervisor")


def gates(system: SimulatedSystem) -> tuple[EndpointStatistics, ...]:
    assert system._started is not None
    return system._started.gates.statistics()


def settings(**more: Any) -> Settings:
    limits = ProviderOptions(concurrent_streams=AT_ONCE, max_queue=6, queue_timeout=5)
    return Settings(providers={"scripted": limits, "backup": limits}, **more)


def script(chance: random.Random) -> ScriptedAttempt:
    reads = [[TextDelta(word) for word in WORDS[start : start + 4]] for start in range(0, len(WORDS), 4)]
    whole: list[Any] = [step for read in reads for step in (read, chance.choice((0.0, 0.02)))]
    cut = whole[: chance.randrange(len(whole))]
    steps = {
        "whole": whole,
        "down": [ConnectError("host", "refused")],
        "busy": [ApiError(503, "busy", retryable=True)],
        "slow": [RateLimited(429, "slow", retryable=True, retry_after=0.3)],
        "broken": [*cut, IncompleteStream("cut")],
        "silent": [*cut, HANG],
    }
    return ScriptedAttempt(tuple(steps[chance.choice(list(steps))]), connect=chance.choice((0.0, 0.1)))


class RandomKiller:
    """Kills random processes, and checks at every step that the limits hold."""

    def __init__(self, system: SimulatedSystem, seed: int, chance: float) -> None:
        self.system = system
        self.random = random.Random(f"kills {seed}")
        self.chance = chance
        self.too_many: list[EndpointStatistics] = []

    def __call__(self) -> None:
        self.too_many += [one for one in gates(self.system) if one.active > AT_ONCE]
        if self.random.random() < self.chance:
            runtime = self.system.simulation.runtime
            victims = [ref for ref in runtime.processes() if type(runtime._alive.get(ref)).__name__ in VICTIMS]
            if victims:
                runtime.exit(self.random.choice(victims), "kill")


@pytest.mark.parametrize("kill_chance", [0.0, 0.004, 0.03])
def test_whatever_fails_and_whoever_is_killed_every_place_is_given_back(seed: int, kill_chance: float) -> None:
    chance = random.Random(seed)
    kinds = (ScriptedProvider, ResumableProvider)
    first = chance.choice(kinds)(*(script(chance) for _ in range(8)))
    backup = chance.choice(kinds)(*(script(chance) for _ in range(8)), name="backup")
    breaker = BreakerOptions(span=0, failures=chance.randint(1, 6), cooldown=0.5)
    budget = RetryBudgetOptions(floor=chance.randint(0, 10))
    with SimulatedSystem(seed, settings(breaker=breaker, retry_budget=budget), providers={"backup": backup}) as system:
        streams, collectors, stopped = [], [], []
        killer = system.simulation.dispatcher.before_step = RandomKiller(system, seed, kill_chance)
        for number in range(8):
            options = penstock.RequestOptions(
                retry_base_delay=0.05,
                first_token_timeout=1,
                idle_timeout=1,
                total_timeout=chance.choice((3.0, 20.0)),
                on_interrupt=chance.choice(("fail", "restart", "resume")),
                fallback=chance.choice(((), ("backup/other",))),
            )
            stream = system.chat(
                "m",
                "Hello",
                provider=first,
                options=FAST.replace(
                    max_buffer_size=chance.choice((2, 1000)),
                    rate_limit=chance.choice((None, 1e9)),  # the latter: no direct turn
                ),
                request_options=options,
                stream_id=f"s{number}",
                on_orphan="continue",
                restart=chance.choice(("temporary", "transient")),
            )
            streams.append(stream)
            collectors.append(Collector(stream))
            system.advance(chance.random() * 0.1)
            if chance.random() < 0.15:
                stopped.append(chance.choice(streams))
                (stopped[-1].stop if chance.random() < 0.5 else stopped[-1].cancel)()
        system.advance(1)
        system.simulation.dispatcher.before_step = None
        system.advance(60)
        assert killer.too_many == []
        assert [stream for stream in streams if not stream.is_over] == []
        assert [one for one in gates(system) if one.active or one.queued] == []
        for stream in streams:
            terminal = stream._record.log.terminal
            assert TEXT.startswith(stream.text)
            if isinstance(terminal, penstock.StreamCompleted) and stream not in stopped:
                assert stream.text == TEXT
        assert_all_is_well(system, streams, collectors)


def test_one_that_is_killed_while_it_waits_for_its_turn_gets_it_all_the_same(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed, settings()) as system:
        provider = ScriptedProvider([step for word in WORDS for step in (word, 0.02)])
        streams = [system.chat("m", "Hello", provider=provider, options=FAST, stream_id=f"s{n}") for n in range(6)]
        system.advance(chance.random() * 0.3)
        limited = [one for one in streams if system.get_stream_info(one.stream_id).source == "limited"]
        for stream in chance.sample(limited, len(limited) // 2):
            kill(system, f"source/{stream.stream_id}")
        assert {stream.result(timeout=30).text for stream in streams} == {TEXT}
        assert (provider.requests, gates(system)[0].active, gates(system)[0].queued) == (6, 0, 0)
        assert_all_is_well(system, streams)


def test_a_resumed_answer_has_no_gap_and_nothing_twice_wherever_it_breaks(seed: int) -> None:
    chance = random.Random(seed)
    whole: list[Any] = [step for word in WORDS for step in (word, chance.choice((0.0, 0.02)))]
    first, second = sorted(chance.sample(range(1, len(whole)), 2))
    ends = (IncompleteStream("cut"), HANG)
    provider = ResumableProvider([*whole[:first], chance.choice(ends)], [*whole[:second], chance.choice(ends)], whole)
    with SimulatedSystem(seed) as system:
        stream = system.chat(
            "m",
            "Hello",
            provider=provider,
            options=FAST.replace(max_buffer_size=chance.choice((3, 1000))),
            request_options=penstock.RequestOptions(
                on_interrupt="resume", first_token_timeout=1, idle_timeout=1, retry_base_delay=0.1
            ),
        )
        collector = Collector(stream)
        if chance.random() < 0.5:
            system.advance(chance.random() * 0.2)
            stream.pause()
            system.advance(chance.random() * 3)
            stream.resume()
        assert stream.result(timeout=60).text == TEXT
        assert provider.requests == 3
        assert_all_is_well(system, [stream], [collector])


def test_an_integration_that_is_killed_takes_its_answer_up_if_all_of_it_was_taken(seed: int) -> None:
    chance = random.Random(seed)
    provider = ResumableProvider([step for word in WORDS for step in (word, 0.02)])
    with SimulatedSystem(seed) as system:
        options = penstock.RequestOptions(on_interrupt="resume", retry_base_delay=0.1)
        stream = system.chat("m", "Hello", provider=provider, options=FAST, request_options=options)
        collector = Collector(stream)
        system.advance(0.05 + chance.random() * 0.3)
        kill(system, f"source/{stream.stream_id}")
        collector.wait_for_terminal(timeout=30)
        if isinstance(collector.events[-1], penstock.StreamCompleted):
            assert (stream.text, provider.resumed) == (TEXT, 1)
        else:  # it was between two attempts, or a delta was being delivered at that moment
            assert TEXT.startswith(stream.text)
        assert_all_is_well(system, [stream], [collector])


def test_an_outage_opens_the_circuit_bounds_the_retries_and_is_found_to_be_over(seed: int) -> None:
    chance = random.Random(seed)
    outage = chance.randint(20, 60)  # this many requests fail
    breaker = BreakerOptions(span=0, failures=5, cooldown=2)
    budget = RetryBudgetOptions(ratio=0.2, floor=3, window=10)
    with SimulatedSystem(seed, Settings(breaker=breaker, retry_budget=budget)) as system:
        provider = ScriptedProvider(*[[ConnectError("host", "refused")]] * outage, ["well"])
        asked = 100
        streams = []
        for _ in range(asked):
            streams.append(system.chat("m", "Hello", provider=provider, options=FAST, on_orphan="continue"))
            system.advance(0.1)
        system.advance(30)
        (gate,) = gates(system)
        assert gate.retries <= 2 * (3 + 0.2 * asked)
        assert gate.requests < asked / 2  # most were refused, and not sent
        errors = {type(one._record.log.terminal.error) for one in streams}  # type: ignore[union-attr]
        assert CircuitOpen in errors
        for _ in range(outage):  # each trial after its cooldown is one request
            if provider.requests >= outage:
                break
            system.advance(2)
            streams.append(system.chat("m", "Hello", provider=provider, options=FAST, on_orphan="continue"))
            system.advance(1)
        system.advance(2)
        last = system.chat("m", "Hello", provider=provider, options=FAST)
        assert last.result(timeout=5).text == "well"
        assert gates(system)[0].circuit == "closed"
        assert_all_is_well(system, [*streams, last])
