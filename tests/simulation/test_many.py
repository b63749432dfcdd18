"""Streams made of streams, with processes killed between any two steps: the promises of `merge`, `race`, `hedge` and
`with_retry` hold.

Each stream has one terminal event, no source and no call is left open, those that lost are cancelled, and no text is
lost or doubled.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import penstock
from penstock.actors.runtime.process import ProcessRef
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, check_log
from tests.conformance.common import assert_nothing_is_left, text_of
from tests.simulation.programs import may_die

pytestmark = [pytest.mark.seeds(25), pytest.mark.sample(3)]

WORDS = [f"{number} " for number in range(12)]
TEXT = "".join(WORDS)
REFUSALS = (penstock.SystemStopped, penstock.StreamClosed, penstock.CallTimeout, penstock.StartError)
COMBINATORS = ("merge", "race", "race to the end", "hedge", "with_retry")


class Making:
    """Makes random streams of streams in one system, and kills processes while they run."""

    def __init__(self, system: SimulatedSystem, seed: int, kill_chance: float) -> None:
        self.system = system
        self.chance = random.Random(f"made {seed}")
        self.kills = random.Random(f"kills {seed}")
        self.kill_chance = kill_chance
        self.killed: list[ProcessRef] = []
        self.made: list[penstock.Stream] = []
        self.collectors: list[Collector] = []
        self.trace: list[str] = []
        system.simulation.dispatcher.before_step = self.maybe_kill

    def maybe_kill(self) -> None:
        """Kill a random process, but the root, with the chance of this run."""
        if self.kills.random() >= self.kill_chance:
            return
        runtime = self.system.simulation.runtime
        victims = [ref for ref in runtime.processes() if may_die(runtime._alive.get(ref)) and ref.label != "system"]
        if victims:
            victim = self.kills.choice(victims)
            self.killed.append(victim)
            self.trace.append(f"kill {type(runtime._alive[victim]).__name__}")
            runtime.exit(victim, "kill")

    # --- streams -------------------------------------------------------------------------------------------------

    def attempt(self) -> ScriptedAttempt:
        chance = self.chance
        whole: list[Any] = [step for word in WORDS for step in (word, chance.choice((0.0, 0.0, 0.3)))]
        cut = whole[: chance.randrange(len(whole))]
        steps: dict[str, list[Any]] = {
            "whole": [chance.choice((0.0, 0.5, 3.0)), *whole],
            "busy": [0.1, penstock.ApiError(503, "busy", retryable=True)],
            "limited": [penstock.RateLimited(429, "slow", retryable=True, retry_after=1)],
            "refused": [penstock.BadRequestError(400, "no")],
            "broken": [*cut, penstock.IncompleteStream("cut")],
            "hanging": [*cut, HANG],
        }
        return ScriptedAttempt(tuple(steps[chance.choices(list(steps), (6, 2, 1, 1, 2, 1))[0]]))

    def chat(self) -> penstock.Stream:
        provider = ScriptedProvider(*(self.attempt() for _ in range(3)))
        return self.system.chat(
            "m",
            "Hello",
            provider=provider,
            options=penstock.SAFE.replace(max_buffer_size=4, batch_size=self.chance.choice((1, 4))),
            request_options=penstock.RequestOptions(max_retries=self.chance.choice((0, 1)), retry_base_delay=0.01),
            restart=self.chance.choice(("temporary", "transient")),
        )

    def make(self, depth: int, kind: str | None = None) -> penstock.Stream:
        """A stream of one combinator, of streams that are made in the same way."""
        chance, system = self.chance, self.system
        if not depth:
            return self.chat()
        kind = kind or chance.choice(COMBINATORS)
        self.trace.append(kind)
        below = depth - chance.choice((1, 1, depth))
        options = penstock.SAFE.replace(max_buffer_size=chance.choice((2, 100)), batch_size=2)
        factories: list[Callable[[], penstock.Stream]] = [lambda: self.make(below)] * chance.randint(1, 3)
        match kind:
            case "merge":
                inputs = {f"input{number}": factory() for number, factory in enumerate(factories)}
                return system.merge(inputs, on_error=chance.choice(("collect", "fail")), options=options)
            case "race":
                return system.race(*factories, options=options)
            case "race to the end":
                return system.race(*factories, by="completion", options=options)
            case "hedge":
                return system.hedge(factories[0], after=chance.choice(("p95", 0.2)), most=3, options=options)
            case _:
                restart = chance.choice(("reset", "never"))
                return system.with_retry(factories[0], base_delay=0.2, restart=restart, options=options)

    # --- a run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Make streams, read some, cancel some, and let time pass; the kills end with it."""
        chance = self.chance
        try:
            for kind in (*COMBINATORS, None):
                self.try_to(partial(self.make_one, kind))
                for _ in range(chance.randrange(4)):
                    self.try_to(chance.choice((self.read, self.leave, self.wait, self.wait, self.cancel)))
        finally:
            self.system.simulation.dispatcher.before_step = None

    def make_one(self, kind: str | None) -> None:
        self.made.append(self.make(self.chance.randint(1, 2), kind))

    def try_to(self, action: Callable[[], object]) -> None:
        try:
            action()
        except REFUSALS as error:
            self.trace.append(type(error).__name__)

    def read(self) -> None:
        if self.made:
            self.collectors.append(Collector(self.chance.choice(self.made), window=self.chance.choice((1, 64))))

    def leave(self) -> None:
        if self.made:
            self.chance.choice(self.made).events().close()

    def cancel(self) -> None:
        if self.made and self.chance.random() < 0.3:
            self.chance.choice(self.made).cancel("enough")

    def wait(self) -> None:
        self.system.advance(self.chance.choice((0.01, 0.2, 1.0)))
        if not self.killed:  # else the handler may be about to be restarted
            self.check_that_losers_are_cancelled()

    # --- what must hold ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Let the streams end, and check what they had to do."""
        self.system.advance(60)
        self.check_that_parents_are_let_go_of()
        for stream in self.made:
            stream.cancel("it hangs")  # one of its calls does
        self.system.advance(3)
        records = self.system._table.all()
        assert self.system.get_active_streams() == []
        assert self.system.scripted.open == 0
        for record in records:
            stream = self.system.stream(record.stream_id)
            check_log(stream)
            self.check_text(stream)
        for collector in self.collectors:
            self.check_told(collector)
        assert_nothing_is_left(self.system)

    def check_that_parents_are_let_go_of(self) -> None:
        """What lost, and what a stream that has ended was made from, has ended too, without a further call."""
        records = {record.stream_id: record for record in self.system._table.all()}
        for record in records.values():
            if record.is_over:
                running = [name for name in record.parents if name in records and not records[name].is_over]
                assert not running, (record.stream_id, record.kind, running)

    def check_that_losers_are_cancelled(self) -> None:
        """Of what a stream has tried, no more than one runs once there is content."""
        for record in self.system._table.all():
            if record.kind in ("race", "hedge", "with_retry") and record.log.tokens:
                tried = [self.system._table.find(name) for name in record.parents]
                running = [one.stream_id for one in tried if one is not None and not one.is_over]
                assert len(running) <= 1, (record.kind, record.stream_id, running)

    def check_text(self, stream: penstock.Stream) -> None:
        terminal = stream._record.log.terminal
        assert terminal is not None
        texts = list(terminal.texts.values()) or [terminal.text]
        assert all(TEXT.startswith(text) for text in texts), texts
        assert "".join(texts) == "" or sum(map(len, texts)) == len(terminal.text)
        if isinstance(terminal, penstock.StreamCompleted):
            assert all(text == TEXT for text in texts), texts

    def check_told(self, collector: Collector) -> None:
        collector.check()
        ref = getattr(collector.subscription, "ref", None)
        if ref in self.killed or not collector.events or collector.terminal is None:
            assert self.killed, "a living subscriber was not told the end"
            return
        resets = any(isinstance(event, penstock.StreamReset) for event in collector.events)
        if not resets and not collector.terminal.undelivered:
            assert text_of(collector.events) == collector.terminal.text


def run(seed: int, kill_chance: float) -> Making:
    with SimulatedSystem(seed) as system:
        making = Making(system, seed, kill_chance)
        making.run()
        making.check()
    return making


def test_without_crashes_streams_of_streams_keep_their_promises(seed: int) -> None:
    making = run(seed, 0.0)
    assert len(making.made) == len(COMBINATORS) + 1


def test_whichever_process_is_killed_streams_of_streams_keep_their_promises(seed: int) -> None:
    run(seed, 0.01)


def test_under_a_hail_of_crashes_too(seed: int) -> None:
    run(seed, 0.05)


def test_the_same_seed_makes_the_same_streams(seed: int) -> None:
    if seed % 10:
        return
    first, second = run(seed, 0.005), run(seed, 0.005)
    assert first.trace == second.trace
    assert [stream.text for stream in first.made] == [stream.text for stream in second.made]
