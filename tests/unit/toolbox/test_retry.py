"""`with_retry`: the rules 48 to 54 of the combinators."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import penstock
from penstock.errors import CircuitOpen, RateLimited
from penstock.events import SideEvent, StreamFailed, TokenEvent
from penstock.ports import Delta, UsageDelta
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.toolbox.pump import derive
from penstock.toolbox.retry import Retrying
from penstock.toolbox.stage import AtOnce, Stage, Steps, failed
from tests.unit.toolbox.common import BUSY, CUT, REFUSED, ask, now, pushed, read

pytestmark = pytest.mark.seeds(4)


def retried(system: penstock.System, provider: ScriptedProvider, **how: Any) -> penstock.Stream:
    return system.with_retry(lambda: ask(system, provider), **how)


def names(collector: Collector) -> list[str]:
    return [type(event).__name__ for event in collector.events]


def test_rule_48_failures_before_content_are_not_noticed(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY], [BUSY], ["answer"])
        stream = retried(system, provider)
        assert names(read(stream)) == ["TokenEvent", "StreamCompleted"]
        assert (stream.text, provider.requests, stream.statistics().attempts) == ("answer", 3, 3)
        assert system.get_stream_info(stream.stream_id).attempts == 3


def test_rule_49_after_content_a_reset_is_sent_and_the_answer_begins_anew(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["1", "2", "3", "4", "5", CUT], ["whole answer"])
        collector = read(retried(system, provider))
        assert names(collector) == [*["TokenEvent"] * 5, "StreamReset", "TokenEvent", "StreamCompleted"]
        assert collector.text == collector.terminal.text == "whole answer"  # type: ignore[union-attr]
        reset = collector.events[5]
        assert isinstance(reset, penstock.StreamReset)
        assert reset.reason == "IncompleteStream"


def test_rule_49_the_reset_is_sent_before_the_wait(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["void", penstock.ApiError(503, "x", retryable=True, retry_after=5)], ["whole"])
        stream = retried(system, provider)
        system.advance(1)
        assert stream.text == ""
        assert not stream.is_over
        assert stream.result().text == "whole"


def test_rule_50_never_keeps_what_came(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["1", "2", "3", "4", "5", CUT], ["whole answer"])
        end = read(retried(system, provider, restart="never")).terminal
        assert isinstance(end, StreamFailed)
        assert (end.partial, provider.requests) == ("12345", 1)
        assert isinstance(end.error, penstock.IncompleteStream)
        provider = ScriptedProvider([BUSY], ["answer"])
        assert retried(system, provider, restart="never").result().text == "answer"


def test_rule_51_an_error_that_will_not_pass_is_not_retried(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([REFUSED], ["answer"])
        with pytest.raises(penstock.BadRequestError):
            retried(system, provider).result()
        assert provider.requests == 1


def test_rule_52_a_cancellation_while_it_waits_ends_it_at_once(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([penstock.ApiError(503, "busy", retryable=True, retry_after=30)], ["answer"])
        stream = retried(system, provider)
        system.advance(1)
        start = now(system)
        stream.cancel("enough")
        system.settle()
        assert stream.is_over
        assert now(system) - start < 0.1
        system.advance(60)
        assert provider.requests == 1


def test_rule_53_the_provider_says_how_long_to_wait(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        provider = ScriptedProvider([RateLimited(429, "slow", retryable=True, retry_after=7)], ["answer"])
        assert retried(system, provider, max_delay=1).result().text == "answer"
        assert 7 <= now(system) - start < 7.5


def test_rule_53_a_wait_that_is_too_long_is_none(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([penstock.ApiError(503, "busy", retryable=True, retry_after=61)], ["answer"])
        with pytest.raises(penstock.ApiError):
            retried(system, provider).result()
        assert provider.requests == 1
        assert retried(system, ScriptedProvider(*provider._attempts), max_delay=90).result().text == "answer"


class Timeout(Stage):
    """A short form of `Stream.with_timeout`."""

    kind = "with_timeout"

    def begin(self) -> Steps:
        self.expires = self.now + 10
        return ()

    def expired(self) -> AtOnce:
        return AtOnce(failed(penstock.StreamTimeout(self.stream_id, "total", 10)))


def test_rule_54_a_time_limit_outside_counts_all_attempts(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        provider = ScriptedProvider([3.0, penstock.ApiError(503, "busy", retryable=True, retry_after=1)])
        stream = retried(system, provider, retries=10)
        with pytest.raises(penstock.StreamTimeout):
            derive(Timeout(), [stream]).result()
        assert now(system) - start == pytest.approx(10, abs=0.01)
        system.settle()
        assert stream.is_over
        assert (system.scripted.open, provider.requests) == (0, 3)


def test_three_retries_are_three_whatever_the_options_of_the_attempts_say(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY])
        options = penstock.RequestOptions(max_retries=5, on_interrupt="restart")
        stream = system.with_retry(lambda: ask(system, provider, request_options=options, max_retries=4))
        with pytest.raises(penstock.ApiError) as caught:
            stream.result()
        assert provider.requests == 4
        chain = [caught.value]
        while isinstance(chain[-1].__cause__, penstock.ApiError):
            chain.append(chain[-1].__cause__)
        assert len(chain) == 4
        assert BUSY.__cause__ is None
        assert ask(system, ScriptedProvider([BUSY], ["own"]), request_options=options).result().text == "own"


def test_the_wait_is_random_grows_and_is_the_same_for_the_same_seed(seed: int) -> None:
    def waits(seed: int, **how: Any) -> list[float]:
        with SimulatedSystem(seed) as system:
            times: list[float] = []

            def factory() -> penstock.Stream:
                times.append(now(system))
                return ask(system, BUSY)

            with pytest.raises(penstock.ApiError):
                system.with_retry(factory, **how).result()
            return [later - earlier for earlier, later in pairwise(times)]

    found = waits(seed, retries=6, base_delay=2, max_delay=9)
    assert found == waits(seed, retries=6, base_delay=2, max_delay=9)
    assert all(0 <= wait <= most for wait, most in zip(found, (2, 4, 8, 9, 9, 9), strict=True))
    assert found != waits(seed + 1, retries=6, base_delay=2, max_delay=9)
    assert waits(seed, retries=2, base_delay=0) == pytest.approx([0, 0], abs=1e-6)


def test_the_jitter_is_full() -> None:
    with SimulatedSystem() as system:
        stage = Retrying([], 2.0, 30.0, "reset")
        stage.random = system.runtime.random
        stage._makers = [None] * 3  # type: ignore[list-item]
        stage.attempts = [None]  # type: ignore[list-item]
        waits = [stage._delay(BUSY) or 0.0 for _ in range(500)]
        assert min(waits) < 0.1
        assert max(waits) > 1.9


def test_the_usage_is_the_last_ones_and_spent_is_that_of_all(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        used: list[Delta] = [UsageDelta(penstock.Usage(input_tokens=5, output_tokens=3, total_tokens=8))]
        provider = ScriptedProvider(ScriptedAttempt(("void", used, CUT)), ScriptedAttempt(("whole", used)))
        stream = retried(system, provider)
        end = stream.result()
        spent = stream.statistics().spent
        assert end.usage is not None
        assert spent is not None
        assert (end.usage.input_tokens, spent.input_tokens, spent.output_tokens) == (5, 10, 6)


def test_a_circuit_that_is_open_is_waited_for(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        start = now(system)
        calls: list[int] = []

        def factory(number: int) -> penstock.Stream:
            calls.append(number)
            if number == 1:
                raise CircuitOpen("endpoint", 4.0)
            return ask(system, f"attempt {number}")

        assert system.with_retry(factory).result().text == "attempt 2"
        assert now(system) - start == pytest.approx(4.0)
        assert calls == [1, 2]


def test_a_factory_that_raises_anything_else_ends_it(seed: int) -> None:
    with SimulatedSystem(seed) as system:

        def factory() -> penstock.Stream:
            raise ValueError("secret")

        with pytest.raises(penstock.SourceError) as caught:
            system.with_retry(factory).result()
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(ValueError, match="secret"):
            penstock.with_retry(factory)


def test_a_cancelled_attempt_is_never_repeated(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        made: list[penstock.Stream] = []

        def factory() -> penstock.Stream:
            made.append(ask(system, "A", HANG))
            return made[-1]

        stream = system.with_retry(factory)
        system.settle()
        made[0].cancel("enough")
        with pytest.raises(penstock.StreamCancelledError, match="enough"):
            stream.result(1)
        assert len(made) == 1


def test_what_is_said_about_an_answer_that_did_not_begin_is_forgotten(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        first, second = pushed(system), pushed(system)
        for number, stream in enumerate((first, second)):
            stream.sink().push_event(penstock.Citation(kind="url", title=str(number)))
        streams = iter((first, second))
        collector = Collector(system.with_retry(lambda: next(streams), base_delay=0))
        system.settle()
        first.sink().end(penstock.IncompleteStream("cut"))
        system.advance(0.1)
        second.process_token("text")
        system.settle()
        second.stop()
        collector.wait_for_terminal()
        assert [event.title for event in collector.events if isinstance(event, penstock.Citation)] == ["1"]
        assert names(collector) == ["Citation", "TokenEvent", "StreamCompleted"]


def test_a_reset_of_the_attempt_itself_is_passed_on_once_there_was_content(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = pushed(system)
        collector = Collector(system.with_retry(lambda: stream))
        system.settle()
        stream.reset("nothing yet")
        stream.process_token("void")
        system.settle()
        stream.reset("again")
        stream.process_token("good")
        system.settle()
        stream.stop()
        assert collector.wait_for_terminal().text == "good"
        assert names(collector) == ["TokenEvent", "StreamReset", "TokenEvent", "StreamCompleted"]


def test_each_attempt_may_ask_another_model(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([BUSY], ["answer"])
        models = {1: "big", 2: "small"}
        stream = penstock.with_retry(lambda number: system.chat(models[number], "x", provider=provider), base_delay=0)
        assert stream.result().model == "small"


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"base_delay": -1}, {"max_delay": "x"}, {"restart": "always"}])
def test_wrong_options_are_refused(wrong: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError):
        system.with_retry(lambda: ask(system, "A"), **wrong)


class Raising(Stage):
    kind = "raising"

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        raise ValueError("transform")


def test_a_failed_transform_is_not_retried(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider(["A"])
        stream = system.with_retry(lambda: derive(Raising(), [ask(system, provider)]))
        with pytest.raises(penstock.TransformError):
            stream.result()
        assert provider.requests == 1
