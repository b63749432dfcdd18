"""Combinators of combinators: the rules 58 and 59. `chain` and `pipe`."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.events import SideEvent, TokenEvent
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Stage, Steps
from tests.unit.toolbox.common import BUSY, ask, pushed, read, take

pytestmark = pytest.mark.seeds(4)


def loud(system: penstock.System) -> Any:
    return lambda stream: penstock.chain(system, stream, lambda event: [event.text.upper()])


class Copying(Stage):
    """A short form of `Stream.tee`."""

    kind = "tee"

    def __init__(self, copy: list[str]) -> None:
        self._copy = copy

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        if isinstance(event, TokenEvent):
            self._copy.append(event.text)
        return (event,)


def test_rule_58_a_race_of_with_retry(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        failing, slow = ScriptedProvider([BUSY], [BUSY], ["quick in the end"]), ScriptedProvider([5.0, "slow"])
        race = system.race(
            lambda: system.with_retry(lambda: ask(system, failing), base_delay=0.5),
            lambda: ask(system, slow),
        )
        assert race.result().text == "quick in the end"
        assert failing.requests == 3
        system.settle()
        assert system.scripted.open == 0


def test_rule_58_a_hedge_of_a_race_makes_no_retries(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY])
        options = penstock.RequestOptions(max_retries=5)
        stream = system.hedge(lambda: system.race(lambda: ask(system, provider, request_options=options)), after=1)
        with pytest.raises(penstock.RaceError):
            stream.result()
        assert provider.requests == 2


def test_rule_58_a_merge_of_take(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [ask(system, "1", "2", "3", HANG) for _ in range(2)]
        merged = system.merge({"a": take(streams[0], 1), "b": take(streams[1], 2)})
        end = merged.result(1)
        assert end.texts == {"a": "1", "b": "12"}
        system.settle()
        assert all(stream.is_over for stream in streams)


@pytest.mark.parametrize(("copies_first", "copied"), [(True, "123"), (False, "12")])
def test_rule_58_before_or_after_take_means_what_it_reads(seed: int, copies_first: bool, copied: str) -> None:
    with SimulatedSystem(seed) as system:
        copy: list[str] = []
        stages = [lambda stream: derive(Copying(copy), [stream]), lambda stream: take(stream, 2)]
        source = pushed(system)
        stream = penstock.pipe(source, *(stages if copies_first else stages[::-1]))
        source.process_tokens(["1"])
        source.sink().push_now([(text, "text") for text in "23"], lambda: None, whole=True)
        assert stream.result(1).text == "12"
        assert "".join(copy) in (copied, "12" if copies_first else copied)


def test_rule_58_a_stage_is_cancelled_through_all_others(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.merge(
            {
                "race": system.race(lambda: ask(system, HANG), lambda: take(ask(system, HANG), 2)),
                "hedge": system.hedge(lambda: system.with_retry(lambda: ask(system, "A", HANG)), after=1),
            }
        )
        system.advance(2)
        assert system.scripted.open == 3
        stream.cancel()
        system.settle()
        assert system.scripted.open == 0
        assert system.get_active_streams() == []


def test_rule_59_when_the_end_is_told_the_parents_have_been_let_go_of(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        parents = [pushed(system, "1", "2"), pushed(system, "3")]
        stream = take(system.merge(*parents), 1)
        counts: list[int] = []

        def note(event: Any) -> None:
            if isinstance(event, penstock.StreamCompleted):
                (merged,) = system.get_stream_info(stream.stream_id).parents
                counts.append(system.get_stream_info(merged).subscriber_count)

        stream.subscribe(note)
        stream.result(1)
        system.settle()
        assert counts == [0]
        assert all(parent.is_over for parent in parents)


def test_rule_59_losers_of_a_race_are_let_go_of_before_its_first_event(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        loser = pushed(system)
        race = system.race(lambda: ask(system, 0.1, "A", HANG), lambda: loser)
        counts: list[int] = []
        race.subscribe(lambda event: counts.append(system.get_stream_info(loser.stream_id).subscriber_count))
        system.advance(0.2)
        assert counts == [0]
        race.cancel()


def test_pipe_goes_from_left_to_right(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        source = pushed(system, "a", "b", "c")
        stream = penstock.pipe(source, loud(system), lambda parent: take(parent, 2))
        assert read(stream).text == "AB"
        assert penstock.pipe(source) is source


def test_pipe_lets_go_of_what_it_made_if_a_later_stage_raises(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        source = pushed(system, "a")
        made: list[penstock.Stream] = []

        def first(stream: penstock.Stream) -> penstock.Stream:
            made.append(loud(system)(stream))
            return made[-1]

        with pytest.raises(ZeroDivisionError):
            penstock.pipe(source, first, lambda stream: 1 / 0)  # type: ignore[arg-type,return-value]
        system.settle()
        assert made[0].is_over
        assert source.is_over
        with pytest.raises(penstock.OptionError, match=r"stages\[0\]"):
            penstock.pipe(pushed(system), lambda stream: "text")  # type: ignore[arg-type,return-value]
        with pytest.raises(penstock.OptionError, match=r"stages\[1\]"):
            penstock.pipe(pushed(system), loud(system), "text")  # type: ignore[arg-type]


def test_a_merged_stream_can_be_chained(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        merged = system.merge({"a": pushed(system, "x"), "b": pushed(system, "y")})
        collector = Collector(loud(system)(merged))
        system.settle()
        origins = {event.origin: event.text for event in collector.events if isinstance(event, TokenEvent)}
        assert origins == {"a": "X", "b": "Y"}
        merged.cancel()


def test_a_chain_is_in_the_system_of_its_stream_unless_another_is_named() -> None:
    with SimulatedSystem(1) as system, SimulatedSystem(2) as other:
        first = system.open_stream("first", penstock.SAFE, metadata={"who": "first"})
        near = penstock.chain(first, lambda event: [event.text.upper()], stream_id="near")
        far = penstock.chain(first, lambda event: [event.text * 2], stream_id="far", system=other)
        assert system.stream("near") is not None
        assert other.stream("far") is not None
        with pytest.raises(penstock.StreamNotFound):
            system.stream("far")
        assert near.metadata == far.metadata == {"who": "first"}
        first.process_tokens(["ab", "c"])
        first.stop()
        system.settle()
        other.settle()
        assert (near.result(1).text, far.result(1).text) == ("ABC", "abcabc")


def test_a_chain_takes_two_arguments_or_three() -> None:
    with SimulatedSystem(1) as system:
        stream = system.open_stream()
        for arguments, more in (((system, stream, str, 4), {}), ((system, stream, str), {"system": system})):
            with pytest.raises(TypeError, match="takes a stream and a function"):
                penstock.chain(*arguments, **more)  # type: ignore[call-overload]
