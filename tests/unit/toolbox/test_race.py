"""`race`: the rules 33 to 40 of the combinators."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.errors import ConnectError
from penstock.events import StreamCompleted, StreamFailed, StreamReset, TokenEvent
from penstock.ports import ReasoningDelta, ToolCallFragment, UsageDelta
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, kill
from penstock.toolbox.requests import Worker
from tests.unit.toolbox.common import BUSY, CUT, REFUSED, ask, now, pushed, read

pytestmark = pytest.mark.seeds(4)

FIRST = [
    ReasoningDelta("hm"),
    ToolCallFragment(0, id="1", name="f", arguments="{}"),
    "text",
]


@pytest.mark.parametrize("first", FIRST, ids=["reasoning", "call", "text"])
def test_rule_33_the_first_content_of_any_kind_wins(seed: int, first: Any) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        race = system.race(lambda: ask(system, 0.3, "slow", HANG), lambda: ask(system, 0.2, first, 1.0, "end"))
        collector = Collector(race)
        assert collector.wait_for_terminal().text.endswith("end")
        assert now(system) - start < 1.25


def test_rule_33_the_calls_of_the_others_are_closed_at_once(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        made = [lambda: ask(system, 0.2, "A", HANG), lambda: ask(system, HANG), lambda: ask(system, 0.5, "C", HANG)]
        race = system.race(*made)
        system.advance(0.3)
        assert race.text == "A"
        winner, *losers = system.get_stream_info(race.stream_id).parents
        assert [system.stream(name).state for name in losers] == ["ended", "ended"]
        assert system.scripted.open == 1
        race.cancel()
        system.settle()
        assert system.stream(winner).is_over


def test_rule_33_what_is_said_about_an_answer_does_not_win_but_is_shown_if_it_does(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a = pushed(system)
        a.sink().push_event(penstock.Citation(kind="url", start=0, end=1, title="t"))
        b = pushed(system)
        race = system.race(lambda: a, lambda: b)
        system.settle()
        assert not race.is_over
        assert system.get_stream_info(a.stream_id).subscriber_count == 1
        a.process_token("text")
        system.settle()
        a.stop()
        kinds = [type(event).__name__ for event in read(race).events]
        assert kinds == ["Citation", "TokenEvent", "StreamCompleted"]


def test_rule_34_a_failure_never_wins(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = system.race(lambda: ask(system, 0.1, BUSY), lambda: ask(system, 0.3, "B"))
        assert race.result().text == "B"


def test_rule_34_an_attempt_that_cannot_be_made_counts_as_failed(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        def broken() -> penstock.Stream:
            raise ValueError("secret")

        assert system.race(broken, lambda: ask(system, 0.3, "B")).result().text == "B"
        with pytest.raises(penstock.RaceError) as caught:
            system.race(broken, lambda: ask(system, "x", provider="no such")).result()
        source, option = caught.value.errors
        assert isinstance(source, penstock.SourceError)
        assert isinstance(source.__cause__, ValueError)
        assert "secret" not in str(caught.value)
        assert isinstance(option, (penstock.OptionError, penstock.SourceError))


def test_rule_35_of_two_that_have_content_the_one_that_stands_first_wins(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        b = pushed(system, "B1", "B2")
        a = pushed(system, "A1")
        system.settle()
        race = system.race(lambda: pushed(system), lambda: a, lambda: b)
        system.settle()
        assert race.text == "A1"
        assert b.is_over
        race.cancel()


def test_rule_36_an_empty_completion_waits_for_the_others(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        assert system.race(lambda: ask(system, 0.1), lambda: ask(system, 0.3, "B")).result().text == "B"
        empty = system.race(lambda: ask(system, 0.1), lambda: ask(system, 0.3, BUSY)).result()
        assert (empty.text, empty.model) == ("", "m")


def test_rule_37_if_all_fail_the_errors_are_in_the_order_of_the_arguments(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = system.race(lambda: ask(system, 0.3, BUSY), lambda: ask(system, 0.1, REFUSED))
        with pytest.raises(penstock.RaceError) as caught:
            race.result()
        assert [type(error).__name__ for error in caught.value.errors] == ["ApiError", "BadRequestError"]
        assert caught.value.retryable
        assert caught.value.stream_id == race.stream_id


def test_rule_38_a_later_failure_of_the_winner_is_the_failure_of_the_race(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = system.race(lambda: ask(system, 0.1, "A", CUT), lambda: ask(system, 0.3, "B"))
        end = read(race).terminal
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.IncompleteStream)
        assert end.partial == "A"


def test_rule_39_usage_is_the_winners_and_spent_is_that_of_all(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        used = UsageDelta(penstock.Usage(input_tokens=7, output_tokens=2, total_tokens=9))
        told = UsageDelta(penstock.Usage(input_tokens=5, output_tokens=1, total_tokens=6))
        race = system.race(
            lambda: ask(system, 0.1, "A", [used]),
            lambda: ask(system, HANG),
            lambda: ask(system, ScriptedAttempt(([told], HANG))),
        )
        end = race.result()
        assert end.usage is not None
        assert end.usage.input_tokens == 7
        spent = race.statistics().spent
        assert spent is not None
        assert spent.input_tokens == 7 + 2 + 5  # "Hello" is estimated as two tokens
        assert race.statistics().attempts == 3


def test_rule_40_by_completion_the_first_that_completes_is_shown_from_its_beginning(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = system.race(
            lambda: ask(system, "A1", 0.5, "A2"), lambda: ask(system, 0.1, "B1", 0.1, "B2"), by="completion"
        )
        collector = Collector(race)
        system.advance(0.15)
        assert collector.events == []
        system.advance(0.1)
        assert [event.text for event in collector.events if isinstance(event, TokenEvent)] == ["B1", "B2"]
        assert isinstance(collector.terminal, StreamCompleted)
        assert system.scripted.open == 0


def test_rule_40_one_that_was_cut_at_its_length_wins_only_if_no_other_completes(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        def short() -> penstock.Stream:
            return ask(system, ScriptedAttempt(("short",), finish="length"))

        assert system.race(short, lambda: ask(system, 0.3, "whole"), by="completion").result().text == "whole"
        cut = system.race(short, lambda: ask(system, 0.3, "x", CUT), by="completion").result()
        assert (cut.text, cut.finish_reason) == ("short", "length")
        with pytest.raises(penstock.RaceError):
            system.race(lambda: ask(system, "x", CUT), lambda: ask(system, BUSY), by="completion").result()


def test_rule_40_each_keeps_no_more_than_the_buffer_holds_except_one(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        providers = [ScriptedProvider([step for n in range(60) for step in (f"{n} ", 0.01 * pace)]) for pace in (1, 2)]
        race = system.race(
            *(lambda provider=provider: ask(system, provider) for provider in providers),
            by="completion",
            options=penstock.SAFE.replace(max_buffer_size=10, batch_size=10),
        )
        system.advance(0.55)
        ahead, behind = (system.stream(name) for name in system.get_stream_info(race.stream_id).parents)
        assert ahead.statistics().tokens_delivered > 40
        assert behind.statistics().tokens_delivered <= 10 + 4 + 2
        assert race.result(10).text == "".join(f"{number} " for number in range(60))


def test_rule_40_if_the_one_that_goes_on_fails_another_goes_on(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        steps = [step for n in range(40) for step in (f"{n} ", 0.01)]
        race = system.race(
            lambda: ask(system, *steps[:60], ConnectError("host", "reset")),
            lambda: ask(system, 0.05, *steps),
            by="completion",
            options=penstock.SAFE.replace(max_buffer_size=5, batch_size=5),
        )
        assert race.result(10).text == "".join(f"{number} " for number in range(40))


def test_a_reset_before_there_is_a_winner_is_not_shown_and_after_it_is(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a, b = pushed(system, "void "), pushed(system)
        race = system.race(lambda: a, lambda: b, by="completion")
        system.settle()
        a.reset("again")
        a.process_token("good")
        system.settle()
        a.stop()
        assert [type(event).__name__ for event in read(race).events] == ["TokenEvent", "StreamCompleted"]
        c, d = pushed(system, "void "), pushed(system)
        race = system.race(lambda: c, lambda: d)
        collector = Collector(race)
        system.settle()
        c.reset("again")
        c.process_token("good")
        system.settle()
        assert any(isinstance(event, StreamReset) for event in collector.events)
        assert race.text == "good"
        race.cancel()


def test_without_a_system_the_first_stream_says_which(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = penstock.race(lambda: ask(system, HANG, metadata={"user": "u"}), lambda: ask(system, 0.1, "B"))
        assert race.metadata == {"user": "u"}
        assert race.result().text == "B"
        with pytest.raises(ZeroDivisionError):
            penstock.race(lambda: 1 / 0, lambda: ask(system, "B"))  # type: ignore[arg-type]
        with pytest.raises(penstock.OptionError, match="factory"):
            penstock.race(lambda: "text")  # type: ignore[arg-type]
        system.settle()
        assert system.scripted.open == 0


@pytest.mark.parametrize("wrong", [(), ("text",), (lambda a, b: a,)])
def test_what_is_no_factory_is_refused(wrong: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError, match="factor"):
        system.race(*wrong)


def test_the_attempts_keep_their_own_retries(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY], ["A"])
        race = system.race(lambda: ask(system, provider, request_options=penstock.RequestOptions(max_retries=1)))
        assert race.result().text == "A"
        assert provider.requests == 2


def test_an_async_factory_is_awaited(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        async def main() -> str:
            async def factory(number: int) -> penstock.Stream:
                return ask(system, f"attempt {number}")

            first = (await system.race(factory).aresult()).text
            return first + (await system.race(lambda number: factory(number), lambda: ask(system, HANG)).aresult()).text

        assert system.run(main()) == "attempt 1attempt 1"


def test_a_race_that_is_cancelled_lets_go_of_all_attempts_also_of_one_that_is_being_made(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        made: list[penstock.Stream] = []

        def slow() -> penstock.Stream:
            system.simulation.dispatcher.pause(1.0)
            made.append(ask(system, "late", HANG))
            return made[-1]

        race = system.race(lambda: ask(system, HANG), slow)
        system.simulation.dispatcher.pause(0.5)
        race.cancel()
        system.advance(2.0)
        assert all(stream.is_over for stream in made)
        assert system.scripted.open == 0


def test_an_attempt_whose_making_is_killed_counts_as_failed_and_what_it_makes_later_is_let_go_of(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        made: list[penstock.Stream] = []

        def slow() -> penstock.Stream:
            system.simulation.dispatcher.pause(1.0)
            made.append(ask(system, "late", HANG))
            return made[-1]

        def kill_it() -> None:
            system.simulation.dispatcher.pause(0.5)
            kill(system, next(ref for ref in system.runtime.processes() if ref.actor_class is Worker))

        system.simulation.start_thread(kill_it)
        race = system.race(slow, lambda: ask(system, "B", 2.0, "!"))
        system.advance(2.0)
        assert race.text == "B"
        assert race.result().text == "B!"
        system.settle()
        assert made[0].is_over


def test_a_race_whose_process_is_killed_fails_and_lets_go(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        race = system.race(lambda: ask(system, HANG), lambda: ask(system, HANG))
        system.settle()
        kill(system, f"race/{race.stream_id}")
        with pytest.raises(penstock.StreamCrashed):
            race.result(1)
        system.settle()
        assert system.scripted.open == 0
