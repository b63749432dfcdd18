"""Ends that do not deliver what is buffered still give its text."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.errors import StreamCancelledError, StreamClosed, StreamCrashed
from penstock.ports import ReasoningDelta, TextDelta
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem, check_log, kill

WORDS = tuple(f"{number} " for number in range(40))
TEXT = "".join(WORDS)
SLOW = penstock.StreamOptions(batch_size=1, flush_interval=0.05, rate_limit=5.0)


@pytest.mark.seeds(6)
@pytest.mark.parametrize("after", [0.01, 0.1, 3.0, 7.0, 20.0])
def test_a_cancelled_stream_keeps_what_the_provider_has_sent(seed: int, after: float) -> None:
    provider = ScriptedProvider([*WORDS, HANG])
    with SimulatedSystem(seed) as system:
        stream = system.chat("any", "Hello", provider=provider, options=SLOW)
        collector = Collector(stream)
        system.settle()
        system.advance(after)
        stream.cancel("enough")
        end = collector.wait_for_terminal()
    assert isinstance(end, penstock.StreamCancelled)
    assert end.partial == end.text == TEXT
    assert end.undelivered == len(WORDS) - sum(
        len(event.tokens) for event in collector.events if isinstance(event, penstock.TokenEvent)
    )
    assert (end.undelivered > 0) == (after < 10)
    assert end.dropped == 0
    assert TEXT.startswith(collector.text)
    check_log(stream)
    with pytest.raises(StreamCancelledError) as caught:
        stream.result()
    assert caught.value.partial == TEXT


class GreedyJournal:
    """Pushes another token for each event, as a quick reader does when there is room."""

    def __init__(self) -> None:
        self.stream: penstock.Stream | None = None
        self.refused = 0

    def append(self, event: penstock.Event) -> None:
        if self.stream is not None and isinstance(event, penstock.TokenEvent):
            try:
                self.stream._record.intake.push_now([("late ", "text")], lambda: None)
            except StreamClosed:
                self.refused += 1


@pytest.mark.seeds(6)
def test_a_stop_of_the_system_takes_nothing_more_and_emits_all_that_was_taken(seed: int) -> None:
    options = SLOW.replace(max_buffer_size=4)
    journal = GreedyJournal()
    with SimulatedSystem(seed, journal=journal) as system:
        stream = system.chat("any", "Hello", provider=ScriptedProvider([*WORDS, HANG]), options=options)
        system.advance(1)
        stream.pause()
        taken = stream.statistics().tokens_processed
        journal.stream = stream
        system.stop()
        end = stream._record.log.terminal
    assert isinstance(end, penstock.StreamCancelled)
    assert (end.text, end.undelivered) == ("".join(WORDS[:taken]), 0)
    assert journal.refused == 4


@pytest.mark.seeds(6)
def test_every_kind_of_text_is_kept(seed: int) -> None:
    steps: list[Any] = [ReasoningDelta("think "), ReasoningDelta("more"), TextDelta("said "), TextDelta("this"), HANG]
    with SimulatedSystem(seed) as system:
        stream = system.chat("any", "Hello", provider=ScriptedProvider(steps), options=SLOW.replace(rate_limit=0.001))
        collector = Collector(stream)
        system.advance(10)
        stream.cancel()
        end = collector.wait_for_terminal()
    assert (end.reasoning, end.text) == ("think more", "said this")


@pytest.mark.sample(3)
@pytest.mark.seeds(14)
def test_a_stream_whose_actor_is_killed_keeps_what_was_pushed(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", SLOW)
        collector = Collector(stream)
        stream.process_tokens(WORDS)
        system.advance(seed % 7)
        kill(system, "s")
        end = collector.wait_for_terminal()
    assert isinstance(end, penstock.StreamFailed)
    assert isinstance(end.error, StreamCrashed)
    assert end.partial == end.error.partial == TEXT
    assert end.undelivered == len(WORDS) - len("".join(collector.text).split())
    check_log(stream)


@pytest.mark.seeds(4)
@pytest.mark.parametrize("step", range(0, 60, 3))
def test_no_token_is_lost_or_doubled_wherever_the_kill_comes(seed: int, step: int) -> None:
    countdown = iter(range(step, -1, -1))
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", penstock.StreamOptions(batch_size=3, rate_limit=None))
        collector = Collector(stream)
        system.simulation.dispatcher.before_step = lambda: next(countdown, None) == 0 and kill(system, "stream/s")
        pushed = 0
        try:
            for word in WORDS:
                stream.process_token(word)
                pushed += 1
                system.simulation.dispatcher.step()
        except penstock.StreamClosed:
            pass
        system.advance(1)
        system.simulation.dispatcher.before_step = None
        stream.cancel()
        end = collector.wait_for_terminal()
    assert end.text == "".join(WORDS[:pushed])
    delivered = sum(len(event.tokens) for event in collector.events if isinstance(event, penstock.TokenEvent))
    assert end.undelivered == pushed - delivered


@pytest.mark.seeds(6)
def test_the_history_of_an_agent_has_all_that_the_model_said(seed: int) -> None:
    provider = ScriptedProvider([*WORDS, HANG], ["fine"])
    with SimulatedSystem(seed) as system:
        agent = system.agent(model="any", provider=provider, options=SLOW)
        stream = agent.stream_chat("Count")
        system.advance(2)
        stream.cancel("enough")
        system.settle()
        assert [message["content"] for message in agent.history] == ["Count", TEXT]


def test_a_dict_of_any_terminal_event_has_its_text() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", penstock.StreamOptions(batch_size=10))
        collector = Collector(stream)
        stream.process_tokens(["a", "b"])
        stream.cancel()
        plain = penstock.events.to_dict(collector.wait_for_terminal())
    assert (plain["text"], plain["partial"], plain["undelivered"]) == ("ab", "ab", 2)
