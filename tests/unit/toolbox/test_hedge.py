"""`hedge`: the rules 41 to 47 of the combinators."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import RateLimited
from penstock.ports import ChatCall
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.toolbox.hedge import has_effects
from tests.unit.toolbox.common import BUSY, CUT, REFUSED, ask, now, pushed, read

pytestmark = pytest.mark.seeds(4)

LIMITED = RateLimited(429, "slow", retryable=True)


def hedged(system: penstock.System, provider: ScriptedProvider, *, of: dict[str, Any] | None = None, **how: Any) -> Any:
    return system.hedge(lambda: ask(system, provider, **(of or {})), **how)


def known(system: SimulatedSystem, provider: ScriptedProvider, count: int, seconds: float) -> None:
    """Ask so often, each time with the first token after so many seconds."""
    for _ in range(count):
        ask(system, provider).result()


def test_rule_41_a_call_that_begins_in_time_is_the_only_one(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.4, "A", 3.0, "B"])
        stream = hedged(system, provider, after=1)
        assert stream.result().text == "AB"
        assert (provider.requests, stream.statistics().attempts) == (1, 1)


def test_rule_42_without_content_in_time_a_second_call_is_made_and_the_first_token_wins(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        provider = ScriptedProvider([5.0, "first"], [0.3, "second", 1.0, " end"])
        collector = Collector(hedged(system, provider, after=1))
        system.advance(1.35)
        assert collector.text == "second"
        assert system.scripted.open == 1
        assert collector.wait_for_terminal().text == "second end"
        assert now(system) - start == pytest.approx(2.3, abs=0.05)


def test_rule_42_the_first_may_still_win(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([1.2, "first"], [0.5, "second"])
        assert hedged(system, provider, after=1).result().text == "first"
        assert provider.requests == 2
        system.settle()
        assert system.scripted.open == 0


def test_rule_43_a_first_failure_that_may_pass_makes_the_second_call_at_once(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        provider = ScriptedProvider([0.2, BUSY], [0.1, "second"])
        assert hedged(system, provider, after=1).result().text == "second"
        assert now(system) - start < 0.45


def test_rule_43_a_failure_that_will_not_pass_is_the_end(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.2, REFUSED], ["second"])
        with pytest.raises(penstock.BadRequestError):
            hedged(system, provider, after=1).result()
        assert provider.requests == 1


def test_rule_43_if_all_fail_the_last_error_counts_and_the_others_are_its_causes(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.2, BUSY], [0.2, REFUSED])
        with pytest.raises(penstock.BadRequestError) as caught:
            hedged(system, provider, after=1).result()
        cause = caught.value.__cause__
        assert isinstance(cause, penstock.ApiError)
        assert cause.status == 503


def test_rule_44_after_content_a_failure_is_the_streams(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["A", CUT], ["second"])
        with pytest.raises(penstock.IncompleteStream) as caught:
            hedged(system, provider, after=1).result()
        assert (caught.value.partial, provider.requests) == ("A", 1)


def test_rule_45_an_empty_budget_waits_on_and_is_counted(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([3.0, "A"])
        refused = []
        for _ in range(6):
            stream = hedged(system, provider, after=1)
            stream.result()
            refused.append(stream.statistics().hedges_refused)
        assert refused == [0, 0, 0, 1, 1, 1]
        assert provider.requests == 6 + 3
        for _ in range(8):
            hedged(system, ScriptedProvider(["quick"], base_url=provider.base_url), after=1).result()
        assert hedged(system, provider, after=1).result().text == "A"
        assert provider.requests == 6 + 3 + 2


def test_rule_45_each_provider_has_a_budget_of_its_own_and_none_allows_none(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([3.0, "A"])
        assert hedged(system, provider, after=1, budget=0).result().text == "A"
        assert provider.requests == 1
        for _ in range(4):
            hedged(system, provider, after=1).result()
        other = ScriptedProvider([3.0, "A"])
        hedged(system, other, after=1).result()
        assert other.requests == 2


def test_rule_45_an_empty_budget_also_makes_a_failure_the_end(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY], ["second"])
        with pytest.raises(penstock.ApiError):
            hedged(system, provider, after=1, budget=0).result()
        assert provider.requests == 1


def test_rule_46_under_20_known_times_it_is_two_seconds_then_the_percentile(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([1.0, "A"])
        known(system, provider, 19, 1.0)
        slow = ScriptedProvider([1.5, "first"], base_url=provider.base_url)
        assert hedged(system, slow).result().text == "first"  # the 20th
        assert slow.requests == 1
        start = now(system)
        silent = ScriptedProvider([HANG], ["second"], base_url=provider.base_url)
        assert hedged(system, silent).result().text == "second"
        assert now(system) - start == pytest.approx(1.0, abs=0.1)  # 19 of 20 began within a second


def test_rule_46_another_model_has_times_of_its_own(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.5, "A"])
        known(system, provider, 30, 0.5)
        start = now(system)
        silent = ScriptedProvider([HANG], ["second"], base_url=provider.base_url)
        other = system.hedge(lambda: system.chat("other", "Hello", provider=silent))
        assert other.result().text == "second"
        assert now(system) - start == pytest.approx(2.0, abs=0.1)


def test_a_slow_call_that_lost_is_a_known_time_too(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.5, "A"])
        known(system, provider, 18, 0.5)
        for _ in range(2):  # the second call wins after 1.25 s; the first would have taken longer
            silent = ScriptedProvider([HANG], [0.25, "second"], base_url=provider.base_url)
            hedged(system, silent, after=1).result()
        start = now(system)
        silent = ScriptedProvider([HANG], ["second"], base_url=provider.base_url)
        hedged(system, silent).result()
        assert now(system) - start == pytest.approx(1.25, abs=0.1)


def test_rule_47_each_attempt_may_ask_another_model(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([HANG], ["second"])
        models = ["big", "small"]
        stream = system.hedge(lambda number: system.chat(models[number - 1], "x", provider=provider), after=0.5)
        assert stream.result().model == "small"
        assert [call.model for call in provider.calls] == ["big", "small"]


def test_the_attempts_do_not_retry_and_more_than_two_are_made_one_after_the_other(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        provider = ScriptedProvider([BUSY], [HANG], ["third"])
        stream = hedged(
            system, provider, after=1, most=3, of={"request_options": penstock.RequestOptions(max_retries=5)}
        )
        assert stream.result().text == "third"
        assert (provider.requests, stream.statistics().attempts) == (3, 3)
        assert now(system) - start == pytest.approx(1.0, abs=0.1)


def test_after_a_429_there_is_no_further_attempt_until_there_was_an_answer(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([LIMITED], [2.5, "A"], [1.5, "B"], [1.5, "C"])
        with pytest.raises(RateLimited):
            hedged(system, provider, after=1).result()
        assert provider.requests == 1
        assert hedged(system, provider, after=1).result().text == "A"
        assert provider.requests == 2
        assert hedged(system, provider, after=1).result().text == "B"
        assert provider.requests == 4


def test_while_calls_wait_for_the_limits_there_is_no_further_attempt(seed: int) -> None:
    settings = Settings(providers={"scripted": ProviderOptions(concurrent_streams=1, queue_timeout=60)})
    with SimulatedSystem(seed, settings) as system:
        provider = ScriptedProvider([3.0, "other"], [0.5, "A"])
        ask(system, provider)
        system.settle()
        stream = hedged(system, provider, after=1)
        assert stream.result().text == "A"
        assert (provider.requests, stream.statistics().attempts) == (2, 1)


@pytest.mark.parametrize(
    "parameters",
    [
        {"background": True},
        {"store": True},
        {"conversation": "c"},
        {"web_search_options": {}},
        {"mcp_servers": [{"url": "u"}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "name": "f"}, {"type": "code_execution_20250522", "name": "code_execution"}]},
        {"tools": [{"google_search": {}}]},
    ],
)
def test_a_call_with_effects_is_made_once(parameters: dict[str, Any]) -> None:
    assert has_effects(ChatCall(model="m", input="x", parameters=parameters))
    with SimulatedSystem() as system:
        provider = ScriptedProvider([3.0, "A"])
        stream = system.hedge(lambda: system.chat("m", "x", provider=provider, **parameters), after=1)
        assert stream.result().text == "A"
        assert provider.requests == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0.5, "store": False},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"name": "f", "input_schema": {}}]},
        {"tools": [{"function_declarations": []}]},
        {"tools": None},
    ],
)
def test_functions_of_our_own_are_no_effects(parameters: dict[str, Any]) -> None:
    assert not has_effects(ChatCall(model="m", input="x", parameters=parameters))


def test_an_empty_completion_counts_only_if_no_other_can_win(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([1.2], [0.5, "second"])
        assert hedged(system, provider, after=1).result().text == "second"
        assert hedged(system, ScriptedProvider([0.2]), after=1).result().text == ""


def test_a_derived_attempt_is_known_by_the_call_that_feeds_it(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([LIMITED], [3.0, "a"])
        with pytest.raises(RateLimited):
            ask(system, provider).result()

        def loud() -> penstock.Stream:
            return penstock.chain(system, ask(system, provider), lambda event: [event.text.upper()])

        assert system.hedge(loud, after=1).result().text == "A"
        assert provider.requests == 2


def test_streams_that_no_provider_feeds_are_hedged_too(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [pushed(system), pushed(system, "second")]
        stream = penstock.hedge(lambda number: streams[number - 1], after=1)
        system.advance(1.1)
        assert stream.text == "second"
        assert streams[0].is_over
        stream.cancel()


def test_a_cancelled_attempt_is_no_reason_for_another(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        made = [ask(system, HANG)]
        stream = system.hedge(lambda: made[0], after=1)
        system.settle()
        made[0].cancel("enough")
        with pytest.raises(penstock.StreamCancelledError, match="enough"):
            stream.result(1)


def test_cancelling_the_hedge_closes_all_calls(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = hedged(system, ScriptedProvider([HANG]), after=1)
        system.advance(1.5)
        assert system.scripted.open == 2
        stream.cancel()
        system.settle()
        assert system.scripted.open == 0


def test_events_from_before_the_first_content_are_shown(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = pushed(system)
        stream.sink().push_event(penstock.Citation(kind="url", title="t"))
        hedge = system.hedge(lambda: stream)
        system.settle()
        stream.process_token("text")
        system.settle()
        stream.stop()
        assert [type(event).__name__ for event in read(hedge).events] == ["Citation", "TokenEvent", "StreamCompleted"]


@pytest.mark.parametrize(
    "wrong", [{"after": "p50"}, {"after": -1}, {"most": 0}, {"most": 11}, {"budget": 2}, {"budget": -0.1}]
)
def test_wrong_options_are_refused(wrong: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError):
        system.hedge(lambda: ask(system, "A"), **wrong)


def test_an_attempt_whose_headers_are_slow_is_hedged(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(ScriptedAttempt(("first",), connect=9.0), ["second"])
        assert hedged(system, provider, after=1).result().text == "second"
