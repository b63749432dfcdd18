"""Streams with adaptive pacing and with an adaptive batch size, in virtual time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock import StreamOptions, TokenEvent, ToolCallStarted
from penstock.errors import OptionError
from penstock.testing import Collector, SimulatedSystem, check_log, kill

PACED = StreamOptions(pacing="adaptive", max_lag=1.0)
TICK = 1 / 30
TEXT = "The gate opens, and water finds its way through the penstock. "


class Watched:
    """A stream and when its events came."""

    def __init__(self, system: SimulatedSystem, options: StreamOptions, **more: Any) -> None:
        self.clock = system.simulation.clock
        self.stream = system.open_stream(None, options, **more)
        self.events: list[tuple[float, Any]] = []
        self.stream.subscribe(lambda event: self.events.append((self.clock.monotonic(), event)))

    def pieces(self, since: float = 0.0) -> list[tuple[float, int]]:
        return [(at, len(event.text)) for at, event in self.events if isinstance(event, TokenEvent) and at >= since]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300)), min_size=1, max_size=8), st.sampled_from([0.1, 0.5, 1])
)
def test_nothing_is_later_than_max_lag_and_a_tick(bursts: list[tuple[float, int]], max_lag: float) -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED.replace(max_lag=max_lag))
        came: list[tuple[float, int]] = []
        said = ""
        for pause, characters in bursts:
            system.advance(pause)
            piece = (TEXT * 5)[:characters]
            said += piece
            came.append((watched.clock.monotonic(), len(said)))
            watched.stream.process_token(piece)
        system.advance(max_lag + 2 * TICK)
        assert watched.stream.text == said
        out = 0
        for at, characters in watched.pieces():
            for arrived, total in came:
                if total > out:
                    assert at <= arrived + max_lag + TICK + 1e-6
                    break
            out += characters
        watched.stream.stop()
        assert watched.stream.result(1).text == said
        check_log(watched.stream)


def test_a_burst_is_spread_over_the_pause_to_the_next_one() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED)
        for _ in range(8):
            watched.stream.process_token(TEXT * 3)
            system.advance(0.5)
        pieces = watched.pieces(since=watched.clock.monotonic() - 2.0)
        gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(pieces)]
        assert max(gaps) < 0.1  # the bursts come each half second
        assert max(characters for _, characters in pieces) < 60
        statistics = watched.stream.statistics()
        assert statistics.pacing_horizon_s == pytest.approx(0.625)
        assert statistics.pacing_rate == pytest.approx(372, rel=0.4)
        assert statistics.tokens_processed == statistics.tokens_delivered + statistics.buffer_size


def test_the_first_text_is_not_held() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED)
        start = watched.clock.monotonic()
        watched.stream.process_token("Hello")
        system.settle()
        assert watched.pieces() == [(start, 5)]


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_all_is_given_at_once_before_a_tool_event_a_change_of_kind_and_the_end(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        watched = Watched(system, PACED)
        stream, clock = watched.stream, watched.clock
        stream.process_token("x" * 50)
        system.advance(1.0)
        for ending in ("tool", "kind", "end"):
            stream.process_token("y" * 300)
            system.advance(0.05)
            held = stream.statistics().buffer_size
            assert held
            now = clock.monotonic()
            if ending == "tool":
                stream.sink().push_event(ToolCallStarted(id="c", name="f", index=0))
            elif ending == "kind":
                stream.sink().push_now([("thought", "reasoning")], lambda: None)
            else:
                stream.stop()
            system.advance(TICK)
            assert all(at <= now + TICK + 1e-9 for at, _ in watched.pieces(now))
            assert stream.text.count("y") % 300 == 0
            system.advance(2.0)
        assert stream.result(1).reasoning == "thought"
        check_log(stream)


def test_a_pause_holds_everything_and_what_is_overdue_comes_with_resume() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED)
        watched.stream.pause()
        watched.stream.process_token(TEXT)
        system.advance(5.0)
        assert watched.stream.text == ""
        watched.stream.resume()
        system.settle()
        assert watched.stream.text.startswith("The gate")
        system.advance(1.1)
        assert watched.stream.text == TEXT


def test_a_full_buffer_does_not_wait_for_a_tick() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED.replace(max_buffer_size=20, push_timeout=0.01))
        watched.stream.process_tokens(["word "] * 500)
        assert watched.clock.monotonic() < 1010.0
        watched.stream.stop()
        assert watched.stream.result(1).text == "word " * 500


def test_empty_tokens_do_not_stay() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED)
        watched.stream.process_tokens(["", ""])
        system.advance(0.1)
        assert watched.stream.statistics().buffer_size == 0


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_a_restarted_stream_goes_on_and_loses_nothing(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("p", PACED, restart="transient")
        collector = Collector(stream)
        for _ in range(4):
            stream.process_token(TEXT)
            system.advance(0.1)
            kill(system, stream)
            system.settle()
        stream.stop()
        assert collector.wait_for_terminal().text == TEXT * 4
        check_log(stream)


def test_pacing_can_be_changed_while_the_stream_runs() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, PACED)
        stream = watched.stream
        stream.process_token(TEXT * 3)
        system.advance(0.01)
        assert stream.statistics().buffer_size
        stream.set_options(pacing="fixed", rate_limit=None, flush_interval=0)
        system.settle()
        assert stream.text == TEXT * 3
        assert stream.statistics().pacing_rate is None
        stream.set_options(pacing="adaptive")
        stream.process_token(TEXT * 3)
        system.advance(0.01)
        assert stream.statistics().buffer_size
        assert stream.statistics().pacing_rate is not None


# --- batch size ------------------------------------------------------------------------------------------------------

ADAPTIVE = StreamOptions(batch_size="adaptive", rate_limit=None)


def test_an_idle_stream_takes_what_waits_at_once() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, ADAPTIVE)
        start = watched.clock.monotonic()
        watched.stream.process_token("a")
        system.settle()
        watched.stream.process_tokens(["b"] * 450)
        system.settle()
        counts = [(at, len(event.tokens)) for at, event in watched.events]
        assert counts == [(start, 1), (start, 200), (start, 200), (start, 50)]
        statistics = watched.stream.statistics()
        assert (statistics.batch_wait_s, statistics.busy) == (0.0, 0.0)
        assert statistics.mean_batch == pytest.approx(451 / 4)


def test_tokens_that_come_while_a_block_reader_is_slow_are_taken_together() -> None:
    with SimulatedSystem(1) as system:
        stream = system.open_stream(None, ADAPTIVE)
        reader = stream.events(slow="block", window=1)
        for number in range(150):
            stream.process_token(f"{number} ")
            system.settle()
        events: list[Any] = [reader.next() for _ in range(3)]
        assert [len(event.tokens) for event in events] == [1, 1, 148]


def test_a_busy_stream_waits_for_half_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, ADAPTIVE.replace(target_latency=0.2))
        monkeypatch.setattr("penstock.actors.stream.batching.BatchSizer.busy", lambda self, now: 0.9)
        start = watched.clock.monotonic()
        for _ in range(10):
            watched.stream.process_token("a")
            system.advance(0.04)
        counts = [(round(at - start, 6), len(event.tokens)) for at, event in watched.events]
        assert counts == [(0.1, 3), (0.22, 3), (0.34, 3)]
        assert watched.stream.statistics().batch_wait_s == 0.1


def test_an_adaptive_batch_keeps_to_the_rate() -> None:
    with SimulatedSystem(1) as system:
        watched = Watched(system, ADAPTIVE.replace(rate_limit=100))
        watched.stream.process_tokens(["a"] * 200)
        system.advance(1.0)
        assert 100 <= len(watched.stream.text) <= 111


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field", "allowed"),
    [
        ({"pacing": "smooth"}, "pacing", "'fixed' | 'adaptive'"),
        ({"max_lag": 0.05}, "max_lag", "a number from 0.1 to 60"),
        ({"max_lag": None}, "max_lag", "a number from 0.1 to 60"),
        ({"batch_size": "auto"}, "batch_size", "a whole number from 1 to 10000000, or 'adaptive'"),
        ({"batch_size": True}, "batch_size", "a whole number from 1 to 10000000, or 'adaptive'"),
        ({"target_latency": 0}, "target_latency", "a number from 0.001 to 10"),
        ({"max_batch": 0}, "max_batch", "a whole number from 1 to 10000000"),
        ({"batch_size": "adaptive", "strategy": "time"}, "strategy", "'hybrid', where batch_size is 'adaptive'"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(options: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(OptionError) as caught:
        StreamOptions(**options)
    assert (caught.value.field, caught.value.allowed) == (field, allowed)


def test_the_settings_have_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PENSTOCK_CHAT__BATCH_SIZE", "adaptive")
    monkeypatch.setenv("PENSTOCK_CHAT__MAX_LAG", "500ms")
    path = tmp_path / "penstock.toml"
    path.write_text('[chat]\npacing = "adaptive"\ntarget_latency = "20ms"\nmax_batch = 50\n')
    chat = penstock.Settings.load(path).chat
    assert (chat.batch_size, chat.max_lag, chat.pacing) == ("adaptive", 0.5, "adaptive")
    assert (chat.target_latency, chat.max_batch, chat.largest_batch) == (0.02, 50, 50)
    monkeypatch.setenv("PENSTOCK_CHAT__BATCH_SIZE", "auto")
    with pytest.raises(OptionError, match="or 'adaptive'"):
        penstock.Settings.load(path)
