"""Limits, breakers, budgets, fallbacks, answers that are taken up again, clocks while the model reasons, costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.actors.call.gate import EndpointStatistics
from penstock.config.limits import BreakerOptions, RetryBudgetOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import (
    ApiError,
    BadRequestError,
    CircuitOpen,
    ConnectError,
    IncompleteStream,
    ProviderBusy,
    ProviderTimeout,
    RateLimited,
)
from penstock.events import Cost, Usage
from penstock.ports import (
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    Quota,
    ReasoningDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
from penstock.testing import (
    HANG,
    Collector,
    ResumableProvider,
    ScriptedAttempt,
    ScriptedProvider,
    SimulatedSystem,
    kill,
)
from tests.conformance.common import FAST, assert_all_is_well, assert_nothing_is_left

BUSY = ApiError(503, "busy", retryable=True)
QUICK = penstock.RequestOptions(retry_base_delay=0.1)
ONCE = penstock.RequestOptions(max_retries=0)


def down() -> ConnectError:
    return ConnectError("host", "refused")


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(5) as system:
        yield system
        assert_nothing_is_left(system)
        assert_no_place_is_taken(system)


def limited(seed: int = 5, more: dict[str, Any] | None = None, **limits: Any) -> SimulatedSystem:
    """A system in which scripted providers have those limits."""
    return SimulatedSystem(seed, Settings(providers={"scripted": ProviderOptions(**limits)}, **(more or {})))


def ask(system: penstock.System, provider: ScriptedProvider, **arguments: Any) -> penstock.Stream:
    arguments.setdefault("request_options", QUICK)
    arguments.setdefault("options", FAST)
    return system.chat("m", [{"role": "user", "content": "x" * 36}], provider=provider, **arguments)


def endpoint(system: penstock.System, provider: ScriptedProvider) -> EndpointStatistics:
    (found,) = [one for one in system.statistics().providers if one.base_url == provider.base_url]
    return found


def assert_no_place_is_taken(system: penstock.System) -> None:
    """Works when it has been stopped, too."""
    assert system._started is not None
    assert [one for one in system._started.gates.statistics() if one.active or one.queued] == []


def source_state(system: penstock.System, stream: penstock.Stream) -> str | None:
    return system.get_stream_info(stream.stream_id).source


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_request_that_has_no_turn_yet_is_limited_and_begins_when_it_has() -> None:
    with limited(concurrent_streams=1) as system:
        provider = ScriptedProvider(["a", 5.0, "b"])
        first, second = ask(system, provider), ask(system, provider)
        system.advance(1)
        assert [source_state(system, one) for one in (first, second)] == ["streaming", "limited"]
        assert (provider.requests, endpoint(system, provider).queued) == (1, 1)
        assert second.result(timeout=30).text == "ab"
        assert_all_is_well(system, [first, second])
        assert_no_place_is_taken(system)


def test_a_request_without_a_turn_in_time_fails_as_busy_and_is_not_retried() -> None:
    with limited(concurrent_streams=1, queue_timeout=2) as system:
        provider = ScriptedProvider(["a", HANG])
        first, second = ask(system, provider), ask(system, provider)
        with pytest.raises(ProviderBusy):
            second.result(timeout=2.1)
        assert provider.requests == 1
        first.cancel()
        assert_all_is_well(system, [first, second])
        assert_no_place_is_taken(system)


def test_a_full_queue_refuses_at_once() -> None:
    with limited(concurrent_streams=1, max_queue=1) as system:
        provider = ScriptedProvider([HANG])
        streams = [ask(system, provider) for _ in range(3)]
        with pytest.raises(ProviderBusy):
            streams[2].result(timeout=0.01)
        for stream in streams[:2]:
            stream.cancel()
        assert_all_is_well(system, streams)
        assert_no_place_is_taken(system)


def test_the_time_in_the_queue_counts_for_the_total_time() -> None:
    with limited(concurrent_streams=1) as system:
        provider = ScriptedProvider([HANG])
        first = ask(system, provider, request_options=penstock.RequestOptions(first_token_timeout=60))
        second = ask(system, provider, request_options=penstock.RequestOptions(total_timeout=3))
        with pytest.raises(ProviderTimeout, match="total"):
            second.result(timeout=3.1)
        first.cancel()
        assert_all_is_well(system, [first, second])


def test_one_that_is_cancelled_in_the_queue_leaves_it() -> None:
    with limited(concurrent_streams=1) as system:
        provider = ScriptedProvider([HANG])
        first, second = ask(system, provider), ask(system, provider)
        system.advance(0.1)
        second.cancel()
        system.settle()
        assert endpoint(system, provider).queued == 0
        first.cancel()
        assert_all_is_well(system, [first, second])
        assert_no_place_is_taken(system)


def test_429_holds_everybody_for_as_long_as_the_provider_asks() -> None:
    with limited() as system:
        provider = ScriptedProvider([RateLimited(429, "slow", retryable=True, retry_after=7)], ["fine"])
        first = ask(system, provider)
        system.advance(1)
        second = ask(system, provider)
        system.advance(5)
        assert (source_state(system, second), provider.requests) == ("limited", 1)
        assert [one.result(timeout=3).text for one in (first, second)] == ["fine", "fine"]
        assert_all_is_well(system, [first, second])


def test_a_quota_that_is_used_up_holds_the_next_one(system: SimulatedSystem) -> None:
    quota = Quota(requests_left=0, requests_reset_s=9)
    provider = ScriptedProvider(ScriptedAttempt(("a",), quota=quota), ["b"])
    assert ask(system, provider).result().text == "a"
    second = ask(system, provider)
    system.advance(8)
    assert source_state(system, second) == "limited"
    assert second.result(timeout=2).text == "b"


def test_the_tokens_that_were_used_take_the_place_of_the_estimate() -> None:
    with limited(tokens_per_minute=6000, queue_timeout=100) as system:
        provider = ScriptedProvider(["a", UsageDelta(Usage(input_tokens=300, output_tokens=5700))])
        assert ask(system, provider).result().text == "a"
        assert endpoint(system, provider).tokens == 6000
        second = ask(system, provider)
        system.advance(30)
        assert source_state(system, second) == "limited"
        assert second.result(timeout=40).text == "a"


# --- breaker and budget --------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_down_is_left_alone_and_tried_again() -> None:
    breaker = BreakerOptions(span=0, failures=3, cooldown=20)
    with SimulatedSystem(5, Settings(breaker=breaker)) as system:
        provider = ScriptedProvider(*[[down()]] * 3, ["well again"])
        for _ in range(3):
            with pytest.raises(ConnectError):
                ask(system, provider, request_options=ONCE).result(timeout=5)
        assert endpoint(system, provider).circuit == "open"
        with pytest.raises(CircuitOpen) as caught:  # which may be asked again, by the caller, later
            ask(system, provider).result(timeout=0.1)
        assert caught.value.retryable
        assert 0 < caught.value.retry_after <= 20
        assert provider.requests == 3
        system.advance(20)
        assert ask(system, provider).result(timeout=5).text == "well again"
        assert endpoint(system, provider).circuit == "closed"
        assert_nothing_is_left(system)


def test_the_first_delta_of_a_trial_closes_the_circuit_however_long_the_answer_is() -> None:
    with SimulatedSystem(5, Settings(breaker=BreakerOptions(span=0, failures=1, cooldown=20))) as system:
        provider = ScriptedProvider([down()], ["a", HANG])
        with pytest.raises(ConnectError):
            ask(system, provider, request_options=ONCE).result(timeout=5)
        system.advance(20)
        trial = ask(system, provider)
        system.advance(1)
        assert endpoint(system, provider).circuit == "closed"
        trial.cancel()
        assert_nothing_is_left(system)


def test_a_circuit_that_opens_during_the_retries_says_what_it_was() -> None:
    with SimulatedSystem(5, Settings(breaker=BreakerOptions(span=0, failures=2))) as system:
        error = down()
        provider = ScriptedProvider([error])
        with pytest.raises(CircuitOpen) as caught:
            ask(system, provider).result(timeout=5)
        assert caught.value.__cause__ is error
        assert provider.requests == 2


def test_when_the_budget_is_used_up_the_error_itself_ends_the_stream() -> None:
    settings = Settings(retry_budget=RetryBudgetOptions(floor=1, ratio=0), breaker=BreakerOptions(enabled=False))
    with SimulatedSystem(5, settings) as system:
        provider = ScriptedProvider([BUSY])
        with pytest.raises(ApiError, match="busy"):
            ask(system, provider).result(timeout=5)
        assert provider.requests == 2
        with pytest.raises(ApiError):
            ask(system, provider).result(timeout=5)
        assert provider.requests == 3
        assert system.statistics().providers[0].retries_refused == 2


# --- fallback ------------------------------------------------------------------------------------------------------


def with_backup(backup: ScriptedProvider, **more: Any) -> SimulatedSystem:
    return SimulatedSystem(5, providers={"backup": backup}, **more)


FALL_BACK = QUICK.replace(fallback=("backup/other",))


def backup(*attempts: Any) -> ScriptedProvider:
    return ScriptedProvider(*attempts, name="backup")


def test_when_the_first_has_failed_for_good_the_next_one_answers() -> None:
    second = backup(ScriptedAttempt(("from the other",)))
    with with_backup(second) as system:
        first = ScriptedProvider([down()])
        completed = ask(system, first, request_options=FALL_BACK).result(timeout=10)
        assert (completed.text, completed.provider, completed.model) == ("from the other", "backup", "other")
        assert (first.requests, second.requests) == (3, 1)
        assert_nothing_is_left(system)


@pytest.mark.parametrize(
    "error", [BadRequestError(404, "no such model"), RateLimited(429, "slow", retryable=True, retry_after=10_000)]
)
def test_what_is_not_retried_falls_back_at_once(error: ApiError) -> None:
    second = backup(["fine"])
    with with_backup(second) as system:
        first = ScriptedProvider([error])
        assert ask(system, first, request_options=FALL_BACK).result(timeout=0.5).text == "fine"
        assert first.requests == 1


def test_a_circuit_that_is_open_or_a_queue_that_is_full_falls_back_too() -> None:
    limits = Settings(
        breaker=BreakerOptions(span=0, failures=1),
        providers={"scripted": ProviderOptions(concurrent_streams=1, max_queue=0)},
    )
    with with_backup(backup(["fine"]), settings=limits) as system:
        open_circuit = ScriptedProvider([down()])
        with pytest.raises(ConnectError):
            ask(system, open_circuit, request_options=ONCE).result(timeout=5)
        assert ask(system, open_circuit, request_options=FALL_BACK).result(timeout=1).text == "fine"
        full = ScriptedProvider([HANG])
        taken = ask(system, full)
        assert ask(system, full, request_options=FALL_BACK).result(timeout=1).text == "fine"
        taken.cancel()
        assert_nothing_is_left(system)
        assert_no_place_is_taken(system)


def test_when_all_have_failed_the_last_error_has_the_others_as_its_causes() -> None:
    errors = [down(), BadRequestError(404, "no such model"), ApiError(500, "broken")]
    third = ScriptedProvider([errors[2]], name="third")
    with SimulatedSystem(5, providers={"backup": backup([errors[1]]), "third": third}) as system:
        options = ONCE.replace(fallback=("backup/other", "third/last"))
        stream = ask(system, ScriptedProvider([errors[0]]), request_options=options)
        with pytest.raises(ApiError, match="broken") as caught:
            stream.result(timeout=10)
        assert caught.value.__cause__ is errors[1]
        assert errors[1].__cause__ is errors[0]
        terminal = stream._record.log.terminal
        assert isinstance(terminal, penstock.StreamFailed)
        assert (terminal.provider, terminal.model) == ("third", "last")


def test_the_same_error_twice_makes_no_circle_of_causes() -> None:
    with with_backup(backup([BUSY])) as system:
        options = ONCE.replace(fallback=("backup/other",))
        with pytest.raises(ApiError):
            ask(system, ScriptedProvider([BUSY]), request_options=options).result(timeout=5)
        assert BUSY.__cause__ is None


def test_the_grace_of_an_answer_that_failed_is_not_the_fallbacks() -> None:
    """The error inside the stream sets the clock that waits for the end marker; it must not cut the next one off."""
    with with_backup(backup([1.5, "a slow ", 2.0, "answer"])) as system:
        first = ScriptedProvider(ScriptedAttempt((ErrorDelta(ApiError(200, "no such thing")),), finish=None))
        options = ONCE.replace(fallback=("backup/other",), finish_grace=2.0)
        assert ask(system, first, request_options=options).result(timeout=60).text == "a slow answer"
        assert_nothing_is_left(system)


def test_another_model_of_the_same_provider_is_a_fallback_too(system: SimulatedSystem) -> None:
    provider = ScriptedProvider([BadRequestError(404, "no such model")], ["fine"])
    for names in (("smaller",), ("scripted/smaller",)):
        completed = ask(system, provider, request_options=QUICK.replace(fallback=names)).result(timeout=5)
        assert (completed.text, completed.model) == ("fine", "smaller" if provider.requests == 2 else "m")


def test_a_fallback_can_be_given_with_the_call(system: SimulatedSystem) -> None:
    provider = ScriptedProvider([BadRequestError(404, "no such model")], ["fine"])
    assert ask(system, provider, fallback=["smaller"]).result(timeout=5).model == "smaller"
    with pytest.raises(penstock.OptionError, match="fallback"):
        ask(system, provider, fallback="smaller")


def test_after_the_first_delta_only_a_restart_falls_back() -> None:
    for on_interrupt, text in (("fail", None), ("restart", "whole")):
        with with_backup(backup(["whole"])) as system:
            options = ONCE.replace(fallback=("backup/other",), on_interrupt=on_interrupt)
            stream = ask(system, ScriptedProvider(["half", 0.1, BUSY]), request_options=options)
            collector = Collector(stream)
            if text is None:
                with pytest.raises(ApiError):
                    stream.result(timeout=5)
                assert stream.text == "half"
            else:
                assert stream.result(timeout=5).text == text
            assert_all_is_well(system, [stream], [collector])


def test_the_total_time_covers_the_fallbacks() -> None:
    with with_backup(backup([HANG])) as system:
        options = FALL_BACK.replace(first_token_timeout=4, total_timeout=6, max_retries=0)
        with pytest.raises(ProviderTimeout, match="total"):
            ask(system, ScriptedProvider([HANG]), request_options=options).result(timeout=6.1)


def test_the_cancelled_do_not_fall_back() -> None:
    second = backup(["never"])
    with with_backup(second) as system:
        stream = ask(system, ScriptedProvider([HANG]), request_options=FALL_BACK)
        system.advance(0.1)
        stream.cancel()
        system.advance(5)
        assert second.requests == 0
        assert_nothing_is_left(system)


def test_a_fallback_that_cannot_be_asked_is_refused_at_the_start() -> None:
    class Picky(ScriptedProvider):
        def request(self, call: Any) -> Any:
            raise penstock.OptionError("temperature", 3, "less")

    with SimulatedSystem(5, providers={"backup": Picky(["x"], name="backup")}) as system:
        with pytest.raises(penstock.OptionError, match="temperature"):
            ask(system, ScriptedProvider(["x"]), request_options=FALL_BACK)
        with pytest.raises(penstock.OptionError, match="fallback"):
            ask(system, ScriptedProvider(["x"]), request_options=QUICK.replace(fallback=("backup/",)))
        assert system.statistics().streams_created == 0


# --- going on where it broke ---------------------------------------------------------------------------------------

RESUME = QUICK.replace(on_interrupt="resume")
WHOLE = [step for number in range(10) for step in (f"{number} ", 0.05)]
TEXT = "".join(step for step in WHOLE if isinstance(step, str))


def test_a_broken_answer_goes_on_where_it_broke(system: SimulatedSystem) -> None:
    fragments = [
        ToolCallFragment(index=0, id="a", name="f", arguments='{"x"'),
        ToolCallFragment(index=0, arguments=": 1}"),
    ]
    provider = ResumableProvider(
        [*WHOLE[:7], fragments[0], IncompleteStream("cut")],
        ["0 ", "1 ", "2 ", "3 ", *fragments, IncompleteStream("cut")],
        ["0 ", "1 ", "2 ", "3 ", *fragments, *WHOLE[8:], UsageDelta(Usage(output_tokens=3))],
    )
    stream = ask(system, provider, request_options=RESUME)
    collector = Collector(stream)
    completed = stream.result(timeout=30)
    assert completed.text == TEXT
    assert [call.arguments for call in completed.tool_calls] == [{"x": 1}]
    assert completed.usage == Usage(output_tokens=3)
    assert provider.resumed == 2
    assert not [event for event in collector.events if isinstance(event, penstock.StreamReset)]
    assert_all_is_well(system, [stream], [collector])


def test_an_answer_that_falls_silent_is_taken_up_when_its_reader_has_let_go(system: SimulatedSystem) -> None:
    provider = ResumableProvider([*WHOLE[:6], HANG], WHOLE)
    stream = ask(system, provider, request_options=RESUME.replace(idle_timeout=1))
    assert stream.result(timeout=30).text == TEXT
    assert provider.resumed == 1


def test_resuming_counts_as_a_retry(system: SimulatedSystem) -> None:
    provider = ResumableProvider(["0 ", IncompleteStream("cut")])
    stream = ask(system, provider, request_options=RESUME)
    with pytest.raises(IncompleteStream):
        stream.result(timeout=30)
    assert (provider.requests, stream.text) == (3, "0 ")


def test_a_failure_while_it_is_taken_up_before_anything_came_is_tried_again(system: SimulatedSystem) -> None:
    provider = ResumableProvider([*WHOLE[:6], IncompleteStream("cut")], [down()], WHOLE)
    assert ask(system, provider, request_options=RESUME).result(timeout=30).text == TEXT


def test_what_cannot_be_taken_up_fails(system: SimulatedSystem) -> None:
    stream = ask(system, ScriptedProvider(["half", IncompleteStream("cut")], ["never"]), request_options=RESUME)
    with pytest.raises(IncompleteStream):
        stream.result(timeout=1)
    assert stream.text == "half"


def test_an_answer_of_which_a_part_had_no_room_is_not_taken_up(system: SimulatedSystem) -> None:
    provider = ResumableProvider([[TextDelta("x")] * 20])
    small = penstock.StreamOptions(max_buffer_size=5, batch_size=5, rate_limit=None)
    stream = ask(system, provider, request_options=RESUME, options=small)
    stream.pause()
    system.advance(1)
    kill(system, f"source/{stream.stream_id}")
    system.advance(1)
    stream.resume()
    with pytest.raises(IncompleteStream):
        stream.result(timeout=10)
    assert "x" * 20 != stream.text == "x" * len(stream.text)


def test_a_resumable_answer_is_asked_for(system: SimulatedSystem) -> None:
    asked: list[bool] = []

    class Listening(ScriptedProvider):
        def request(self, call: Any) -> Any:
            asked.append(call.resumable)
            return super().request(call)

    for options in (QUICK, RESUME):
        ask(system, Listening(["x"]), request_options=options).result()
    assert asked == [False, True]


# --- clocks --------------------------------------------------------------------------------------------------------

CLOCKS = penstock.RequestOptions(max_retries=0, first_token_timeout=5, idle_timeout=5, reasoning_timeout=30)


def times_out(system: SimulatedSystem, *steps: Any) -> tuple[str, float]:
    """Which clock runs out, and after how many seconds."""
    begun = system.simulation.clock.monotonic()
    with pytest.raises(ProviderTimeout) as caught:
        ask(system, ScriptedProvider(list(steps)), request_options=CLOCKS).result(timeout=600)
    return caught.value.which, round(system.simulation.clock.monotonic() - begun, 1)


def test_while_the_model_is_known_to_reason_it_may_be_silent_for_longer(system: SimulatedSystem) -> None:
    assert times_out(system, HANG) == ("first_token", 5)
    assert times_out(system, Thinking(), HANG) == ("first_token", 30)
    assert times_out(system, 1.0, Thinking(), 10.0, KeepAlive(), HANG) == ("first_token", 30)
    assert times_out(system, ReasoningDelta("hm"), HANG) == ("idle", 30)
    assert times_out(system, "a", 1.0, Thinking(), HANG) == ("idle", 31)


@pytest.mark.parametrize("behind", [TextDelta("a"), ToolCallFragment(index=0, id="a", name="f")])
def test_what_is_said_behind_the_reasoning_ends_it(system: SimulatedSystem, behind: Any) -> None:
    assert times_out(system, ReasoningDelta("hm"), 12.0, behind, HANG) == ("idle", 17)
    assert times_out(system, [ReasoningDelta("hm"), behind], HANG) == ("idle", 5)
    assert times_out(system, [behind, Thinking()], 1.0, HANG) == ("idle", 30)


def test_signs_of_life_are_no_first_delta(system: SimulatedSystem) -> None:
    """So that a failure behind them is retried as if nothing had come."""
    provider = ScriptedProvider([KeepAlive(), Thinking(), BUSY], ["fine"])
    stream = ask(system, provider)
    assert stream.result(timeout=5).text == "fine"
    assert provider.requests == 2


# --- costs ---------------------------------------------------------------------------------------------------------

PRICES = """
[scripted]
names = ["scripted"]
[scripted.models]
m = { input = 1_000, output = 2_000 }
"""


@pytest.fixture
def priced(tmp_path: Any) -> Iterator[SimulatedSystem]:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    with SimulatedSystem(5, Settings(prices=str(path))) as system:
        yield system


def test_told_usage_is_paid_for(priced: SimulatedSystem) -> None:
    usage = UsageDelta(Usage(input_tokens=3, output_tokens=4))
    assert ask(priced, ScriptedProvider(["a", usage])).result().cost == Cost(amount=0.011)


def test_without_usage_the_cost_is_an_estimate(priced: SimulatedSystem) -> None:
    completed = ask(priced, ScriptedProvider(["four" * 3])).result()
    assert completed.cost == Cost(amount=0.016, is_estimate=True)


def test_the_providers_own_cost_is_told_beside_ours(priced: SimulatedSystem) -> None:
    told = UsageDelta(Usage(input_tokens=3, output_tokens=4, reported_cost=0.5))
    assert ask(priced, ScriptedProvider(["a", told])).result().cost == Cost(amount=0.011, reported=0.5)
    half = UsageDelta(Usage(input_tokens=3, reported_cost=0.5))
    assert ask(priced, ScriptedProvider(["four" * 3, half])).result().cost == Cost(
        amount=0.016, is_estimate=True, reported=0.5
    )


def test_without_a_price_the_cost_is_the_providers_own(system: SimulatedSystem) -> None:
    told = UsageDelta(Usage(input_tokens=3, output_tokens=4, reported_cost=0.0))
    assert ask(system, ScriptedProvider(["a", told])).result().cost == Cost(amount=0, reported=0, source="provider")
    assert ask(system, ScriptedProvider(["a", UsageDelta(Usage(input_tokens=3))])).result().cost is None


def test_usage_told_on_the_way_is_an_estimate_until_the_end(priced: SimulatedSystem) -> None:
    usage = UsageDelta(Usage(input_tokens=3, output_tokens=1))
    stream = ask(priced, ScriptedProvider([usage, "four" * 3, HANG]))
    priced.advance(1)
    stream.cancel()
    terminal = stream._record.log.terminal
    assert terminal is not None
    assert terminal.cost == Cost(amount=0.009, is_estimate=True)


def test_what_the_first_one_used_has_not_the_price_of_one_that_was_never_asked(tmp_path: Any) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES.replace("scripted", "backup").replace("m =", "other ="))
    settings = Settings(prices=str(path), providers={"backup": ProviderOptions(concurrent_streams=1)})
    with with_backup(backup([HANG]), settings=settings) as system:
        options = ONCE.replace(fallback=("backup/other",))
        failed = ScriptedProvider(ScriptedAttempt((UsageDelta(Usage(input_tokens=9, output_tokens=1)), down())))
        streams = [ask(system, failed, request_options=options) for _ in range(2)]
        system.advance(1)
        (waiting,) = [one for one in streams if one._record.feed and one._record.feed.state == "limited"]
        assert waiting.statistics().cost is None


def test_a_model_without_a_price_costs_nobody_knows_what(system: SimulatedSystem) -> None:
    assert ask(system, ScriptedProvider(["a", FinishDelta("stop", "stop")])).result().cost is None
