"""Counters: whatever `result` has returned or raised is in the statistics already."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.agents import agent_on, ask, say

ROUNDS = 60
PATIENCE = 30.0
FAST = penstock.StreamOptions(rate_limit=None, flush_interval=0.01)
ONCE = penstock.RequestOptions(max_retries=0)
BUSY = penstock.ApiError(503, "busy", retryable=True)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that give way after every few instructions, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def ends(statistics: penstock.SystemStatistics) -> tuple[int, int, int]:
    return statistics.streams_completed, statistics.streams_failed, statistics.streams_cancelled


@pytest.mark.usefixtures("restless")
def test_on_threads_whatever_has_a_result_is_counted() -> None:
    models: dict[str, Any] = {"good": Answer("a b c"), "bad": Status(500)}
    with LoopbackProvider(Script(models=models)) as server, penstock.System() as system:
        client = system.provider("openai", base_url=server.base_url, api_key="sk-any")
        for done in range(1, ROUNDS + 1):
            completed = client.stream_chat_completion("Hi", model="good", options=FAST)
            assert completed.result(PATIENCE).text == "a b c"
            seen = system.statistics()
            assert ends(seen) == (done, done - 1, done - 1)
            assert (seen.tokens, seen.streams_active, seen.reader["active"]) == (3 * done, 0, 0)
            failed = client.stream_chat_completion("Hi", model="bad", options=FAST, request_options=ONCE)
            with pytest.raises(penstock.ApiError):
                failed.result(PATIENCE)
            seen = system.statistics()
            assert (ends(seen), seen.reader["active"]) == ((done, done, done - 1), 0)
            assert failed.statistics().errors == 1
            [gate] = seen.providers
            assert (gate.active, gate.requests, gate.failures) == (0, 2 * done, done)
            pushed = system.open_stream(options=FAST)
            pushed.cancel()
            with pytest.raises(penstock.StreamCancelledError):
                pushed.result(PATIENCE)
            seen = system.statistics()
            assert (ends(seen), seen.streams_active) == ((done, done, done), 0)


@pytest.mark.usefixtures("restless")
def test_on_threads_the_totals_agree_with_each_other_at_every_moment() -> None:
    with penstock.System() as system:
        enough = threading.Event()
        wrong: list[Any] = []

        def look() -> None:
            tokens = 0
            while not enough.is_set():
                seen = system.statistics()
                if seen.streams_created != seen.streams_active + sum(ends(seen)) or seen.tokens < tokens:
                    wrong.append(seen)
                tokens = seen.tokens

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(ROUNDS):
            stream = system.open_stream(options=FAST)
            stream.process_tokens(["a", "b"])
            stream.stop()
            stream.result(PATIENCE)
        enough.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert wrong == []
        assert system.statistics().tokens == 2 * ROUNDS


def test_a_stream_that_ends_while_the_totals_are_read_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        stream.process_tokens(["a", "b"])
        system.advance(1)

        def end_and_list() -> list[Any]:
            stream.stop()
            return []

        monkeypatch.setattr(system._services.agents, "all", end_and_list)
        seen = system.statistics()
        assert seen.tokens == 2
        assert seen.streams_created == seen.streams_active + sum(ends(seen)) == 1


@pytest.mark.parametrize("mode", ["blocking", "offer"])
@pytest.mark.parametrize("end", ["complete", "fail", "retried", "cancel"])
@pytest.mark.seeds(5)
def test_when_the_waiter_is_released_everything_is_counted(seed: int, mode: Any, end: str) -> None:
    attempts: dict[str, list[Any]] = {
        "complete": [["a", "b"]],
        "fail": [[BUSY]],
        "retried": [[BUSY], ["a", "b"]],
        "cancel": [["a", "b", HANG]],
    }
    with SimulatedSystem(seed, reader_mode=mode) as system:
        options = penstock.RequestOptions(max_retries=len(attempts[end]) - 1)
        provider = ScriptedProvider(*attempts[end])
        stream = system.chat("m", "Hi", provider=provider, options=FAST, request_options=options)
        seen: list[tuple[penstock.SystemStatistics, Any, Any]] = []

        def look() -> None:
            seen.append((system.statistics(), stream.statistics(), system.get_stream_info(stream.stream_id)))

        stream._record.over.when_done(look)
        system.advance(5)
        if end == "cancel":
            stream.cancel()
        system.advance(5)
        [(house, mine, info)] = seen
        assert ends(house) == {"fail": (0, 1, 0), "cancel": (0, 0, 1)}.get(end, (1, 0, 0))
        tokens = 0 if end == "fail" else 2
        assert (house.streams_created, house.streams_active, house.tokens) == (1, 0, tokens)
        assert (mine.state, mine.tokens_delivered, mine.buffer_size) == ("ended", tokens, 0)
        assert mine.errors == {"fail": 1, "retried": 1}.get(end, 0)
        assert (info.attempts, info.state) == (2 if end == "retried" else 1, "ended")
        [gate] = house.providers
        retried = end == "retried"
        assert (gate.active, gate.queued, gate.requests, gate.retries) == (0, 0, 1 + retried, int(retried))
        assert gate.failures == mine.errors
        assert house.reader["active"] == 0 or end == "cancel"  # a cancelled request may still close its connection
        assert mine == stream.statistics()
        after = system.statistics()
        assert (ends(after), after.tokens, after.providers) == (ends(house), house.tokens, house.providers)


@pytest.mark.seeds(5)
def test_when_the_waiter_is_released_the_agent_has_counted_the_turn(seed: int) -> None:
    usage = penstock.Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    with SimulatedSystem(seed) as system:

        def fail() -> str:
            """Fail."""
            raise LookupError("no")

        agent, _ = agent_on(system, ask(("x", "fail", "{}")), say("So.", usage=usage), tools=[fail])
        stream = agent.stream_chat("Go.")
        seen: list[Any] = []
        stream._record.over.when_done(lambda: seen.append(agent.statistics()))
        assert stream.result(10).text == "So."
        [counted] = seen
        assert (counted.turns, counted.queued, counted.tool_calls, counted.tool_errors) == (1, 0, 1, 1)
        assert (counted.usage, counted.history_messages) == (usage, 4)


def test_a_queued_message_that_is_cancelled_has_left_the_queue_when_its_result_is_there() -> None:
    with SimulatedSystem() as system:
        limits = penstock.AgentOptions(max_queue=1)
        agent, _ = agent_on(system, ScriptedAttempt(("a", HANG)), say("So."), agent_options=limits)
        first = agent.stream_chat("One.")
        system.advance(1)
        second = agent.stream_chat("Two.")
        assert agent.statistics().queued == 1
        agent._record._stream_over = lambda turn: None  # type: ignore[method-assign] # its thread is not that far
        second.cancel()
        with pytest.raises(penstock.StreamCancelledError):
            second.result(1)
        assert agent.statistics().queued == 0
        third = agent.stream_chat("Three.")  # there is room
        assert agent.statistics().queued == 1
        for stream in (first, third):
            stream.cancel()
        system.advance(1)
