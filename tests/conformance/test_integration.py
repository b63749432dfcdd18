"""From a provider into a stream, as numbered in the specification of streams, §3 (26 to 31)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import penstock
from penstock.config.limits import BreakerOptions, RetryBudgetOptions
from penstock.errors import ApiError, ConnectError, IncompleteStream, ProtocolError, ProviderTimeout, RateLimited
from penstock.events import Usage
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from penstock.testing import HANG, Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_all_is_well, assert_nothing_is_left, text_of

QUICK = penstock.RequestOptions(retry_base_delay=0.1)
BUSY = ApiError(503, "busy", retryable=True)


@pytest.fixture(params=["blocking", "offer"])
def system(request: pytest.FixtureRequest) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(5, reader_mode=request.param) as system:
        yield system
        assert_nothing_is_left(system)


def ask(system: penstock.System, *attempts: Any, **arguments: Any) -> penstock.Stream:
    arguments.setdefault("request_options", QUICK)
    arguments.setdefault("options", FAST)
    return system.chat("m", "Hello", provider=ScriptedProvider(*attempts), **arguments)


# --- 26 ------------------------------------------------------------------------------------------------------------


def test_I26_chat_and_responses_have_their_own_defaults(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["x"])
    chat = system.create_chat_token_stream("m", "Hello", provider=provider).options
    assert (chat.max_buffer_size, chat.batch_size, chat.flush_interval, chat.rate_limit) == (50, 5, 0.05, None)
    response = system.create_response_token_stream("hi", "m", provider=provider).options
    assert (response.max_buffer_size, response.batch_size, response.flush_interval) == (100, 10, 0.1)
    assert response.rate_limit is None


def test_I26_buffer_batch_and_flush_can_be_given_with_the_call(system: SimulatedSystem) -> None:
    stream = system.chat(
        "m",
        "Hello",
        provider=ScriptedProvider(["x"]),
        token_buffer_size=7,
        token_batch_size=3,
        token_flush_interval=0.2,
    )
    options = stream.options
    assert (options.max_buffer_size, options.batch_size, options.flush_interval) == (7, 3, 0.2)
    with pytest.raises(penstock.OptionError, match="batch_size"):
        system.chat("m", "Hello", provider=ScriptedProvider(["x"]), token_batch_size=51)
    with pytest.raises(penstock.OptionError, match="model"):
        system.chat("", [], provider=ScriptedProvider(["x"]))
    with pytest.raises(penstock.OptionError, match="provider"):
        system.chat("m", "Hello", provider="nobody_knows")


# --- 27 ------------------------------------------------------------------------------------------------------------


def test_I27_the_providers_text_reaches_iterators_actors_and_callbacks(system: SimulatedSystem) -> None:
    stream = ask(system, ["Hel", 0.01, "lo ", 0.2, "world"])
    collector = Collector(stream)
    assert text_of(list(stream)) == "Hello world"
    completed = stream.result()
    assert (completed.text, completed.finish_reason) == ("Hello world", "stop")
    assert_all_is_well(system, [stream], [collector])


def test_I27_a_finish_a_failure_a_truncation_and_a_cancel_are_four_different_ends(system: SimulatedSystem) -> None:
    once = penstock.RequestOptions(max_retries=0)
    finished = ask(system, ["a"], request_options=once)
    failed = ask(system, ["a", BUSY], request_options=once)
    truncated = ask(system, ScriptedAttempt(("a",), finish=None), request_options=once)
    cancelled = ask(system, ["a", HANG], request_options=once)
    collectors = [Collector(stream) for stream in (finished, failed, truncated, cancelled)]
    system.advance(1)
    cancelled.cancel("enough")
    ends = [collector.wait_for_terminal() for collector in collectors]
    assert isinstance(ends[0], penstock.StreamCompleted)
    assert isinstance(ends[1], penstock.StreamFailed)
    assert ends[1].error is BUSY
    assert isinstance(ends[2], penstock.StreamFailed)
    assert isinstance(ends[2].error, IncompleteStream)
    assert isinstance(ends[3], penstock.StreamCancelled)
    assert ends[3].reason == "enough"
    for collector in collectors:
        collector.check()
        assert collector.text == "a"
    for end in ends[1:]:
        assert end.partial == "a"  # type: ignore[union-attr]
    with pytest.raises(IncompleteStream) as caught:
        truncated.result()
    assert caught.value.partial == "a"


def test_I27_usage_and_model_words_that_follow_the_finish_are_in_the_end(system: SimulatedSystem) -> None:
    usage = Usage(input_tokens=3, output_tokens=0)
    stream = ask(
        system,
        ScriptedAttempt(("a", FinishDelta("length", "max_tokens"), 0.5, UsageDelta(usage)), finish=None, done=False),
    )
    # The body ends without an end marker, but the finish reason has come: that is complete.
    completed = stream.result(timeout=10)
    assert (completed.finish_reason, completed.raw_finish_reason, completed.usage) == ("length", "max_tokens", usage)


def test_I27_a_body_that_stays_open_behind_the_finish_is_given_its_grace_and_closed(system: SimulatedSystem) -> None:
    stream = ask(
        system,
        ["a", FinishDelta("stop", "stop"), HANG],
        request_options=penstock.RequestOptions(finish_grace=2.0, idle_timeout=0.5, total_timeout=60),
    )
    system.advance(0.3)
    assert not stream.is_over
    before = system.simulation.clock.monotonic()
    assert stream.result(timeout=10).text == "a"
    assert system.simulation.clock.monotonic() - before < 3
    system.advance(0.01)
    assert system.scripted.cancelled == 1


def test_I27_a_finish_reason_that_comes_with_every_piece_does_not_cut_off_the_next(system: SimulatedSystem) -> None:
    words = [f"{n} " for n in range(8)]
    steps = [step for word in words for step in (word, FinishDelta("stop", "STOP"), 0.4)]
    stream = ask(
        system,
        ScriptedAttempt((*steps, HANG), finish=None, done=False),
        request_options=penstock.RequestOptions(finish_grace=0.5),
    )
    before = system.simulation.clock.monotonic()
    assert stream.result(timeout=60).text == "".join(words)
    assert system.simulation.clock.monotonic() - before < 8 * 0.4 + 1


def test_I27_the_grace_does_not_cut_off_text_that_waits_for_a_slow_stream(system: SimulatedSystem) -> None:
    tokens: list[Any] = [TextDelta(f"{n} ") for n in range(60)]
    slow = penstock.StreamOptions(max_buffer_size=5, batch_size=5, rate_limit=5)
    stream = ask(
        system,
        [[*tokens, FinishDelta("stop", "stop")], HANG],
        options=slow,
        request_options=penstock.RequestOptions(finish_grace=0.5),
    )
    assert stream.result(timeout=60).text == "".join(f"{n} " for n in range(60))


def test_I27_an_error_inside_the_stream_ends_it_once_with_what_came_before(system: SimulatedSystem) -> None:
    error = ApiError(200, "server_error", retryable=False)
    stream = ask(system, ["par", "tial", ErrorDelta(error), "never"])
    collector = Collector(stream)
    end = collector.wait_for_terminal()
    assert isinstance(end, penstock.StreamFailed)
    assert end.error is error
    assert end.partial.startswith("partial")


def test_I27_reasoning_and_tool_calls_are_kept_apart_from_the_text(system: SimulatedSystem) -> None:
    stream = ask(
        system,
        [
            ReasoningDelta("hm"),
            "Yes",
            ToolCallFragment(0, "c1", "f", '{"a"'),
            ToolCallFragment(1, "c2", "g", "{"),
            ToolCallFragment(0, None, None, ": 1}"),
            FinishDelta("tool_calls", "tool_calls"),
        ],
    )
    completed = stream.result(timeout=5)
    assert (completed.text, completed.reasoning) == ("Yes", "hm")
    assert [(call.name, call.arguments) for call in completed.tool_calls] == [("f", {"a": 1}), ("g", None)]


def test_I27_a_cancelled_stream_lets_go_of_its_provider_in_every_phase(system: SimulatedSystem) -> None:
    full = penstock.StreamOptions(max_buffer_size=2, batch_size=2, rate_limit=0.01)
    phases: dict[str, tuple[Any, penstock.StreamOptions]] = {
        "queued": (ScriptedAttempt(queue=HANG), FAST),
        "connecting": (ScriptedAttempt(connect=HANG), FAST),
        "waiting": (ScriptedAttempt(headers=HANG), FAST),
        "streaming": (["a", HANG], FAST),
        "held": ([[TextDelta("x")] * 50], full),
        "retry_wait": ([RateLimited(429, "slow down", retryable=True, retry_after=30)], FAST),
    }
    for number, (phase, (attempt, options)) in enumerate(phases.items(), 1):
        stream = ask(system, attempt, options=options)
        system.advance(1)
        state = system.get_stream_info(stream.stream_id).source
        assert state == ("streaming" if phase == "held" else phase)
        stream.cancel()
        system.settle()
        assert system.scripted.open == 0, phase
        assert system.scripted.started == number
        assert system.runtime.whereis(f"source/{stream.stream_id}") is None
    assert system.statistics().streams_cancelled == len(phases)


def test_I27_cancelling_twice_or_after_the_end_is_harmless(system: SimulatedSystem) -> None:
    stream = ask(system, ["a"])
    stream.result(timeout=5)
    stream.cancel()
    stream.stop()
    stream.cancel()
    assert isinstance(list(stream)[-1], penstock.StreamCompleted)
    with pytest.raises(penstock.StreamClosed):
        stream.process_token("x")
    with pytest.raises(penstock.StreamClosed):
        stream.pause()


# --- 28 ------------------------------------------------------------------------------------------------------------


def test_I28_a_wrapped_handler_keeps_its_results_its_exceptions_and_its_name(system: SimulatedSystem) -> None:
    stream = system.open_stream(options=FAST)
    seen: list[str] = []

    def handler(event: str) -> int:
        """Count letters."""
        assert stream.statistics().tokens_processed == len(seen) + 1  # the stream gets it first
        seen.append(event)
        if event == "bad":
            raise ValueError(event)
        return len(event)

    wrapped = penstock.wrap_existing_handler(handler, stream)
    assert (wrapped.__name__, wrapped.__doc__) == ("handler", "Count letters.")
    assert wrapped("abc") == 3
    with pytest.raises(ValueError, match="bad"):
        wrapped("bad")
    stream.stop()
    assert stream.text == "abcbad"
    with pytest.raises(AssertionError):
        wrapped("late")  # the handler's own assertion: it was called, though the stream has ended


def test_I28_an_extract_that_raises_or_gives_nonsense_does_not_disturb_the_handler(system: SimulatedSystem) -> None:
    stream = system.open_stream(options=FAST)
    broken = penstock.wrap_existing_handler(lambda event: event * 2, stream, extract=lambda event: 1 / 0)  # type: ignore[arg-type,return-value]
    assert broken(4) == 8
    nonsense = penstock.wrap_existing_handler(lambda event: event * 2, stream, extract=lambda event: [event])
    assert nonsense(4) == 8
    assert not stream.is_over


def test_I28_a_full_stream_does_not_disturb_the_handler(system: SimulatedSystem) -> None:
    stream = system.open_stream(options=penstock.StreamOptions(max_buffer_size=1, batch_size=1, push_timeout=0.1))
    stream.pause()
    wrapped = penstock.wrap_existing_handler(lambda event: len(event), stream)
    assert [wrapped("ab"), wrapped("abc")] == [2, 3]
    assert stream.statistics().tokens_processed == 1


# --- 29 ------------------------------------------------------------------------------------------------------------


def test_I29_a_foreign_event_is_turned_into_tokens_and_metadata(system: SimulatedSystem) -> None:
    class Foreign:
        def __init__(self, words: list[str], node: str) -> None:
            self.words, self.node = words, node

    stream = system.open_stream(options=FAST, metadata={"user": 7})
    wrapped = penstock.wrap_existing_handler(
        lambda event: event.node, stream, extract=lambda event: (event.words, {"node": event.node})
    )
    assert wrapped(Foreign(["a", "b"], "first")) == "first"
    system.settle()
    assert wrapped(Foreign(["c", "d"], "second")) == "second"
    stream.stop()
    events = list(stream)
    assert [event.metadata for event in events] == [
        {"user": 7, "node": "first"},
        {"user": 7, "node": "second"},
        events[-1].metadata,
    ]


# --- 30 ------------------------------------------------------------------------------------------------------------


def upper(event: penstock.TokenEvent) -> list[str]:
    return [token.upper() for token in event.tokens]


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_I30_streams_can_be_chained_and_end_alike(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        usage = Usage(output_tokens=3)
        first = ask(system, ["one ", "two ", 0.1, "three", UsageDelta(usage)])
        second = penstock.chain(system, first, upper, options=FAST)
        third = penstock.chain(system, second, lambda event: [event.text[::-1]], options=FAST)
        collector = Collector(third)
        end = collector.wait_for_terminal()
        assert isinstance(end, penstock.StreamCompleted)
        assert (end.finish_reason, end.usage) == ("stop", usage)
        assert sorted(collector.text) == sorted("ONE TWO THREE")
        assert second.text == "ONE TWO THREE"
        assert_all_is_well(system, [first, second, third], [collector])


def test_I30_backpressure_goes_through_the_whole_chain_up_to_the_provider() -> None:
    with SimulatedSystem(3) as system:
        small = penstock.StreamOptions(max_buffer_size=4, batch_size=2, flush_interval=0.05, rate_limit=None)
        words = [f"{n} " for n in range(300)]
        first = ask(system, [word for word in words], options=small)  # noqa: C416 - steps, not words
        second = penstock.chain(system, first, upper, options=small)
        third = penstock.chain(system, second, upper, options=small)
        third.pause()
        system.advance(20)
        # Everything stands: what is under way is what the buffers and windows hold, and the provider waits.
        assert first.statistics().tokens_processed < 60
        assert system.scripted.open == 1
        assert system.get_stream_info(first.stream_id).source == "streaming"  # and it does not time out for that
        taken = first.statistics().tokens_processed
        system.advance(20)
        assert first.statistics().tokens_processed == taken
        third.resume()
        assert third.result(timeout=60).text == "".join(words)
        assert_all_is_well(system, [first, second, third])


def test_I30_who_leaves_the_end_of_a_chain_closes_the_providers_connection() -> None:
    with SimulatedSystem() as system:
        first = ask(system, ["one ", HANG])
        last = penstock.chain(system, penstock.chain(system, first, upper, options=FAST), upper, options=FAST)
        for event in last:
            assert event.text == "ONE "  # type: ignore[union-attr]
            break
        del event
        system.advance(0.1)
        assert first.is_over
        assert system.scripted.open == 0
        assert_all_is_well(system, [first, last])


def test_I30_a_failure_goes_through_with_its_error_and_a_cancel_with_its_reason() -> None:
    with SimulatedSystem() as system:
        once = penstock.RequestOptions(max_retries=0)
        failing = ask(system, ["a", BUSY], request_options=once)
        behind = penstock.chain(system, failing, upper, options=FAST)
        end = Collector(behind).wait_for_terminal()
        assert isinstance(end, penstock.StreamFailed)
        assert isinstance(end.error, ApiError)
        assert (str(end.error), end.partial, end.error.partial) == (str(BUSY), "A", "A")
        hanging = ask(system, ["a", HANG])
        after = penstock.chain(system, hanging, upper, options=FAST)
        system.advance(1)
        hanging.cancel("no more")
        end = Collector(after).wait_for_terminal()
        assert isinstance(end, penstock.StreamCancelled)
        assert end.reason == "no more"
        assert_all_is_well(system, [failing, behind, hanging, after])


def test_I30_a_transform_that_raises_fails_the_new_stream_and_lets_go_of_the_old() -> None:
    with SimulatedSystem() as system:
        first = system.open_stream(options=FAST)
        second = penstock.chain(system, first, lambda event: [][1], options=FAST)
        first.process_tokens(["a", "b"])
        with pytest.raises(penstock.TransformError, match="IndexError") as caught:
            second.result(timeout=1)
        assert isinstance(caught.value.__cause__, IndexError)
        system.settle()
        assert system.get_stream_info(first.stream_id).subscriber_count == 0
        assert not first.is_over  # it was opened with on_orphan="continue"
        first.stop()
        assert_all_is_well(system, [first, second])


# --- 31 ------------------------------------------------------------------------------------------------------------


def test_I31_trouble_before_the_first_delta_is_retried_with_growing_waits(system: SimulatedSystem) -> None:
    starts: list[float] = []
    clock = system.simulation.clock

    class Timed(ScriptedProvider):
        def next_attempt(self) -> ScriptedAttempt:
            starts.append(clock.monotonic())
            return super().next_attempt()

    provider = Timed([BUSY], [ConnectError("host", "refused")], [IncompleteStream("reset")], ["fine"])
    options = penstock.RequestOptions(max_retries=3, retry_base_delay=1, retry_max_delay=2)
    stream = system.chat("m", "Hello", provider=provider, options=FAST, request_options=options)
    collector = Collector(stream)
    assert stream.result(timeout=60).text == "fine"
    waits = [after - before for before, after in pairwise(starts)]
    for wait, longest in zip(waits, (1, 2, 2), strict=True):  # doubles up to the limit, with jitter
        assert longest / 2 <= wait <= longest + 1e-3
    collector.wait_for_terminal()
    collector.check()
    assert system.get_stream_info(stream.stream_id).attempts == 4


def test_I31_after_max_retries_the_last_error_is_the_end(system: SimulatedSystem) -> None:
    provider = ScriptedProvider([BUSY])
    stream = system.chat("m", "Hello", provider=provider, request_options=QUICK.replace(max_retries=2))
    with pytest.raises(ApiError, match="busy"):
        stream.result(timeout=60)
    assert provider.requests == 3


def test_I31_what_cannot_work_later_is_not_tried_again(system: SimulatedSystem) -> None:
    provider = ScriptedProvider([ApiError(400, "never", retryable=False)], ["fine"])
    with pytest.raises(ApiError, match="never"):
        system.chat("m", "Hello", provider=provider).result(timeout=60)
    assert provider.requests == 1


def test_I31_a_rate_limited_request_waits_as_long_as_it_is_told(system: SimulatedSystem) -> None:
    stream = ask(system, [RateLimited(429, "slow", retryable=True, retry_after=20)], ["fine"])
    system.advance(19.9)
    assert system.get_stream_info(stream.stream_id).source == "retry_wait"
    assert stream.result(timeout=1).text == "fine"


def test_I31_a_wait_that_is_longer_than_allowed_is_the_end(system: SimulatedSystem) -> None:
    stream = ask(
        system,
        [RateLimited(429, "slow", retryable=True, retry_after=61)],
        ["fine"],
        request_options=penstock.RequestOptions(retry_after_limit=60),
    )
    with pytest.raises(RateLimited):
        stream.result(timeout=1)


def test_I31_after_the_first_delta_a_failure_keeps_what_came(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["half", BUSY], ["never"])
    stream = system.chat("m", "Hello", provider=provider, options=FAST)
    with pytest.raises(ApiError) as caught:
        stream.result(timeout=10)
    assert caught.value.partial == "half"
    assert provider.requests == 1


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_I31_a_restart_voids_what_came_and_begins_again(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        options = QUICK.replace(on_interrupt="restart")
        small = penstock.StreamOptions(max_buffer_size=3, batch_size=3, flush_interval=0.05, rate_limit=20)
        stream = ask(
            system, [[TextDelta(c) for c in "wrong text"], BUSY], ["right"], options=small, request_options=options
        )
        collector = Collector(stream)
        end = stream.result(timeout=60)
        collector.wait_for_terminal()
        assert (end.text, collector.text) == ("right", "right")
        assert sum(isinstance(event, penstock.StreamReset) for event in collector.events) == 1
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_I31_an_integration_killed_while_the_stream_is_to_forget_does_not_forget_that(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        options = QUICK.replace(on_interrupt="restart")
        stream = ask(system, ["wrong", 0.1, BUSY], ["right"], request_options=options, restart="transient")
        collector = Collector(stream)
        source = stream._record.feed
        assert source is not None
        dispatcher = system.simulation.dispatcher

        def kill_both() -> None:
            if source.state == "retry_wait":
                dispatcher.before_step = None
                assert source.started
                kill(system, stream)  # and with it, what it was asked
                kill(system, f"source/{stream.stream_id}")

        dispatcher.before_step = kill_both
        assert collector.wait_for_terminal(timeout=60) == stream.result(timeout=60)
        assert collector.text == stream.text == "right"
        assert dispatcher.before_step is None
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
def test_I31_a_restart_never_mixes_the_attempts_whatever_crashes_meanwhile(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        options = penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.01, max_retries=5)
        small = penstock.StreamOptions(max_buffer_size=2, batch_size=2, flush_interval=0.01, rate_limit=100)
        stream = ask(
            system,
            [[TextDelta(c) for c in "wrong text"], BUSY],
            [[TextDelta(c) for c in "also wrong"], 0.01, BUSY],
            [[TextDelta(c) for c in "right answer"]],
            options=small,
            request_options=options,
            restart="transient",
        )
        collector = Collector(stream)
        for step in range(seed % 7):
            system.advance(0.013 * (step + 1))
        victim = f"source/{stream.stream_id}" if seed % 2 else stream.stream_id
        if not stream.is_over and system.runtime.whereis(f"source/{stream.stream_id}") is not None:
            kill(system, victim)
        end = collector.wait_for_terminal(timeout=60)
        assert isinstance(end, penstock.StreamCompleted)
        assert end.text == collector.text == "right answer"
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.parametrize(
    ("which", "attempt", "seconds"),
    [
        ("connect", ScriptedAttempt(connect=HANG), 1.0),
        ("first_token", ScriptedAttempt(headers=HANG), 2.0),
        ("first_token", ScriptedAttempt((KeepAlive(), 0.9, KeepAlive(), 0.9, KeepAlive(), HANG)), 2.0),
        ("idle", ScriptedAttempt(("a", HANG)), 3.0),
        ("idle", ScriptedAttempt(("a", *((KeepAlive(), 0.5) * 20))), 3.0),
        ("total", ScriptedAttempt(tuple(["a", 1.0] * 20)), 5.0),
        ("total", ScriptedAttempt(queue=HANG), 5.0),
    ],
)
def test_I31_each_of_the_four_clocks_ends_the_stream(
    system: SimulatedSystem, which: str, attempt: ScriptedAttempt, seconds: float
) -> None:
    options = penstock.RequestOptions(
        connect_timeout=1, first_token_timeout=2, idle_timeout=3, total_timeout=5, max_retries=0
    )
    stream = ask(system, attempt, request_options=options)
    before = system.simulation.clock.monotonic()
    with pytest.raises(ProviderTimeout) as caught:
        stream.result(timeout=60)
    assert caught.value.which == which
    assert caught.value.partial == stream.text
    assert system.simulation.clock.monotonic() - before == pytest.approx(seconds, abs=0.3)
    system.settle()
    assert system.scripted.open == 0


def test_I31_the_total_time_counts_over_all_attempts_and_waits() -> None:
    options = penstock.RequestOptions(max_retries=100, retry_base_delay=1, retry_max_delay=1, total_timeout=10)
    settings = penstock.Settings(breaker=BreakerOptions(enabled=False), retry_budget=RetryBudgetOptions(ratio=None))
    with SimulatedSystem(5, settings) as system, pytest.raises(ProviderTimeout) as caught:
        ask(system, [BUSY], request_options=options).result(timeout=60)
    assert caught.value.which == "total"


def test_I31_a_stream_without_credit_is_not_idle(system: SimulatedSystem) -> None:
    stream = ask(
        system,
        [[TextDelta("x")] * 200],
        options=penstock.StreamOptions(max_buffer_size=10, batch_size=10, rate_limit=None),
        request_options=penstock.RequestOptions(idle_timeout=1),
    )
    stream.pause()
    system.advance(30)
    assert not stream.is_over
    assert system.scripted.open == 1
    stream.resume()
    assert len(stream.result(timeout=10).text) == 200


SILENT = penstock.RequestOptions(idle_timeout=3, max_retries=0)
MODES = pytest.mark.parametrize("mode", ["blocking", "offer"])


def times_out_after(system: SimulatedSystem, stream: penstock.Stream) -> float:
    """Seconds until the stream fails since its provider is silent."""
    before = system.simulation.clock.monotonic()
    with pytest.raises(ProviderTimeout, match="idle"):
        stream.result(timeout=60)
    return system.simulation.clock.monotonic() - before


@MODES
@pytest.mark.parametrize("length", [2.9, 30.0])
@pytest.mark.seeds(5)
def test_I31_a_pause_stops_the_idle_clock_and_a_resume_starts_it_anew(seed: int, mode: Any, length: float) -> None:
    with SimulatedSystem(seed, reader_mode=mode) as system:
        stream = ask(system, ["a", HANG], request_options=SILENT)
        system.advance(2)  # the provider has been silent for two of its three seconds
        stream.pause()
        system.advance(length)
        assert not stream.is_over
        stream.resume()
        assert times_out_after(system, stream) == pytest.approx(3, abs=0.01)
        assert_nothing_is_left(system)


@MODES
@pytest.mark.seeds(5)
def test_I31_text_that_comes_after_a_long_pause_is_delivered(seed: int, mode: Any) -> None:
    with SimulatedSystem(seed, reader_mode=mode) as system:
        stream = ask(system, ["a", 20.0, "b", 12.0, "c"], request_options=SILENT)
        system.advance(1)
        stream.pause()
        system.advance(30)
        stream.resume()
        system.advance(1)
        stream.pause()
        assert stream.text == "ab"
        system.advance(30)
        stream.resume()
        assert stream.result(timeout=5).text == "abc"
        assert_nothing_is_left(system)


@MODES
@pytest.mark.parametrize("length", [2.9, 30.0])
@pytest.mark.parametrize("pieces", ["ab", "abcd"])  # the last one makes the subscriber slow; or some wait in the stream
@pytest.mark.seeds(5)
def test_I31_while_a_slow_block_subscriber_holds_the_stream_the_idle_clock_stands(
    seed: int, mode: Any, pieces: str, length: float
) -> None:
    with SimulatedSystem(seed, reader_mode=mode) as system:
        script = [step for piece in pieces for step in (piece, 0.5)]
        options = FAST.replace(batch_size=1)
        stream = ask(system, [*script, HANG], options=options, request_options=SILENT)
        reader = stream.events(slow="block", window=1)
        system.advance(3)
        assert stream._record.hub.held
        system.advance(length)
        assert not stream.is_over
        for _ in pieces:
            reader.next(timeout=1)
        assert times_out_after(system, stream) == pytest.approx(3, abs=0.2)
        reader.close()
        assert_nothing_is_left(system)


@MODES
@pytest.mark.parametrize("victim", ["stream", "source"])
@pytest.mark.seeds(5)
def test_I31_a_process_that_is_killed_in_a_pause_leaves_the_idle_clock_standing(
    seed: int, mode: Any, victim: str
) -> None:
    with SimulatedSystem(seed, reader_mode=mode) as system:
        script = ["a", HANG] if victim == "stream" else [ScriptedAttempt(("a", HANG)), ScriptedAttempt(("a", HANG))]
        attempts = [script] if victim == "stream" else script
        options = SILENT.replace(on_interrupt="restart", max_retries=1)
        stream = ask(system, *attempts, request_options=options, restart="transient")
        system.advance(2)
        stream.pause()
        system.advance(1)
        kill(system, stream if victim == "stream" else f"source/{stream.stream_id}")
        system.advance(30)
        assert (stream.state, stream.is_over) == ("paused", False)
        assert system.scripted.open == 1
        stream.resume()
        before = system.simulation.clock.monotonic()
        with pytest.raises(ProviderTimeout, match="idle"):
            stream.result(timeout=60)
        assert system.simulation.clock.monotonic() - before >= 2.99
        assert_nothing_is_left(system)


# --- the bound on an answer ------------------------------------------------------------------------------------------


def test_reasoning_that_only_the_provider_can_read_is_bounded_too(system: SimulatedSystem) -> None:
    piece = ReasoningBlockDelta(penstock.ReasoningBlock(kind="redacted_thinking", signature="x" * 400))
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        ask(system, [*[piece] * 3, HANG], request_options=QUICK.replace(max_answer_bytes=1000)).result(timeout=5)


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta, RefusalDelta, None])
def test_an_answer_that_is_too_long_ends_the_stream_and_is_not_read_on(system: SimulatedSystem, kind: Any) -> None:
    def piece(text: str) -> Delta:
        return kind(text) if kind is not None else ToolCallFragment(index=0, id="a", name="f", arguments=text[2:])

    bounded = QUICK.replace(max_answer_bytes=1000)
    enough = ask(system, [piece("x" * 500), piece("y" * 498)], request_options=bounded)
    too_much = ask(system, [piece("x" * 500), piece("y" * 501), HANG], request_options=bounded)
    collectors = [Collector(stream) for stream in (enough, too_much)]
    system.advance(0.5)
    ends = [collector.wait_for_terminal() for collector in collectors]
    assert isinstance(ends[0], penstock.StreamCompleted)
    assert isinstance(ends[1], penstock.StreamFailed)
    assert isinstance(ends[1].error, ProtocolError)
    assert ends[1].error.detail == "the answer is longer than 1000 bytes"
