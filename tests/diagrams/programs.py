"""Small programs that together make every move of every state table, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import penstock
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import Outcome
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import ApiError, BadRequestError, ConnectError, PenstockError, ProcessDead, StartError
from penstock.ports import ErrorDelta, OfferSink, Provider, ProviderRequest, ReaderSink, TextDelta
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem
from tests.conformance import agents
from tests.conformance.common import FAST
from tests.conformance.streams import Bench, BrokenJournal
from tests.conformance.test_stream import STATES, in_state

__all__ = ["PROGRAMS"]

# --- token streams -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def streams() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def fail(bench: Bench, failures: int, then: Callable[[], object], tokens: str = "vwxyz", times: int = 1) -> None:
    """Push tokens, and let so many deliveries fail."""
    journal = bench.record.journal
    assert isinstance(journal, BrokenJournal)
    journal.failures = failures
    bench.push_all(*tokens)
    for _ in range(times):
        then()


COMMANDS: Final[tuple[Callable[[Bench], object], ...]] = (
    lambda bench: bench.push_all(*"xy"),
    lambda bench: bench.push_all(*"vwxyz"),
    lambda bench: bench.push_all(*"0123456789"),
    lambda bench: fail(bench, 1, bench.settle),
    lambda bench: fail(bench, 9, bench.settle),
    lambda bench: fail(bench, 1, bench.flush, "x"),
    lambda bench: fail(bench, 9, bench.flush, times=9),
    lambda bench: bench.flush(),
    lambda bench: bench.flush(force=False),
    lambda bench: bench.pause(),
    lambda bench: fail(bench, 0, bench.pause),
    lambda bench: bench.set_options(batch_size=2),
    lambda bench: bench.reset(),
    lambda bench: bench.ref.tell(Complete(Outcome())),
    lambda bench: bench.ref.tell(Fail(PenstockError("broken"), Outcome())),
    lambda bench: bench.stop(),
    lambda bench: bench.cancel(),
    lambda bench: bench.restart(),
    lambda bench: None,
)


def every_command_in_every_state_of_a_stream() -> None:
    with streams() as make:
        for state in STATES:
            for command in COMMANDS:
                for rate_limit in (10.0, 1e6) if state != "rate_limited" else (10.0,):
                    bench = in_state(make, state, rate_limit=rate_limit, max_errors=3)
                    with contextlib.suppress(ProcessDead):
                        command(bench)
                        bench.advance(5)
                        bench.resume()
                    bench.advance(5)


def streams_that_are_restarted() -> None:
    with streams() as make:
        ended = make()
        ended.stop()
        with contextlib.suppress(StartError):
            ended.start()
        recovering = make(journal=BrokenJournal(1), auto_restart=True, max_errors=1)
        recovering.count(1)
        recovering.advance(1)
        recovering.start()
        recovering.advance(10)


# --- provider calls ------------------------------------------------------------------------------------------------


class Job:
    """A request that does what the test says."""

    def __init__(self, sink: Any) -> None:
        self.sink: OfferSink = sink

    def cancel(self) -> None:
        pass


class Reader:
    """Starts nothing; the program says what comes. Implements `penstock.ports.Reader`."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def start(self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink) -> Job:
        self.jobs.append(Job(sink))
        return self.jobs[-1]

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self, timeout: float) -> int:
        return 0


class Decoder:
    """Has decoded a whole answer."""

    model = None
    skipped = 0
    finished = done = True


class Calls:
    """A system with endpoints that take one request at a time."""

    def __init__(self, system: SimulatedSystem, reader: Reader) -> None:
        self.system = system
        self.reader = reader
        self.first = ScriptedProvider(["never used"])

    def call(self, model: str = "", **options: Any) -> penstock.Stream:
        quick = {"connect_timeout": 1.0, "first_token_timeout": 1.0, "idle_timeout": 1.0, "reasoning_timeout": 1.0}
        asked = RequestOptions(**{"retry_base_delay": 0.1, "max_retries": 1, **quick, **options})
        provider = None if model else self.first
        stream = self.system.chat(model or "m", "Hello", provider=provider, options=FAST, request_options=asked)
        self.system.settle()
        return stream

    def go_on(self, state: str) -> OfferSink:
        """Bring the last request that has begun into a state."""
        sink = self.reader.jobs[-1].sink
        steps: dict[str, Callable[[], object]] = {
            "connecting": sink.connecting,
            "waiting": sink.waiting,
            "streaming": lambda: sink.offer([TextDelta("a")], lambda: None),
        }
        for name in () if state == "queued" else steps:
            steps[name]()
            self.system.settle()
            if name == state:
                break
        return sink


@contextlib.contextmanager
def calls() -> Iterator[Calls]:
    reader = Reader()
    one = ProviderOptions(concurrent_streams=1, queue_timeout=5.0)
    settings = Settings(providers={"scripted": one, "backup": one})
    backup = ScriptedProvider(["never used"], name="backup")
    with SimulatedSystem(settings=settings, reader=reader, providers={"backup": backup}) as system:
        yield Calls(system, reader)
        system.stop()


DOWN: Final = ConnectError("host", "refused")
BUSY: Final = ApiError(503, "busy", retryable=True)
NEWS: Final[tuple[Callable[[OfferSink], object], ...]] = (
    lambda sink: sink.ended(Decoder(), None),  # type: ignore[arg-type]
    lambda sink: sink.ended(None, DOWN),
    lambda sink: sink.ended(None, BadRequestError(404, "no such model")),
    lambda sink: sink.offer([ErrorDelta(BUSY)], lambda: None),
    lambda sink: sink.waiting(),
    lambda sink: sink.offer([TextDelta("a")], lambda: None),
    lambda sink: None,
)
AT_WORK: Final = ("queued", "connecting", "waiting", "streaming")


def every_news_in_every_state_of_a_call() -> None:
    for state in AT_WORK:
        for news in NEWS:
            for max_retries in (0, 1):
                with calls() as bench:
                    stream = bench.call(max_retries=max_retries, on_interrupt="restart")
                    news(bench.go_on(state))
                    bench.system.advance(5)
                    stream.cancel()


def calls_that_fall_back() -> None:
    for state in AT_WORK[:3]:
        for is_free in (True, False):
            with calls() as bench:
                if not is_free:
                    bench.call("backup/other")
                bench.call(max_retries=0, fallback=("backup/other",))
                bench.go_on(state).ended(None, DOWN)
                bench.system.settle()
    for is_free in (True, False):
        with calls() as bench:
            if not is_free:
                bench.call("backup/other")
            bench.call()
            bench.call(fallback=("backup/other",))  # has no turn in time
            bench.system.advance(20)


def kill_call(system: SimulatedSystem, stream: penstock.Stream) -> None:
    source = stream._record.feed
    assert source is not None
    assert source.ref is not None
    system.runtime.exit(source.ref, "kill")


def calls_that_are_cancelled_or_killed() -> None:
    for state in AT_WORK:
        for is_killed in (True, False):
            with calls() as bench:
                stream = bench.call()
                bench.go_on(state)
                kill_call(bench.system, stream) if is_killed else stream.cancel()
                bench.system.advance(1)
    with calls() as bench:
        bench.call()
        waits = bench.call()
        late = bench.call(total_timeout=1.0)
        bench.system.advance(2)
        waits.cancel()
        assert late.is_over


def calls_that_wait_for_each_other() -> None:
    with calls() as bench:
        first, second = bench.call(), bench.call()
        bench.reader.jobs[0].sink.ended(None, DOWN)
        bench.system.advance(1)  # the second one has the place that the first one asks for again
        second.cancel()
        bench.system.advance(1)
        bench.reader.jobs[-1].sink.ended(None, DOWN)
        bench.system.advance(1)
        assert first.is_over
    for total_timeout in (None, 2.0):
        with calls() as bench:
            first = bench.call(retry_base_delay=10.0, total_timeout=total_timeout)
            bench.reader.jobs[0].sink.ended(None, DOWN)
            bench.system.advance(3)
            first.cancel()
            bench.system.advance(1)


# --- agents --------------------------------------------------------------------------------------------------------

_WAIT: Final = agents.ask(("a", "wait", '{"seconds": 2}'))


@contextlib.contextmanager
def simulated() -> Iterator[SimulatedSystem]:
    with SimulatedSystem() as system:
        yield system
        system.stop()


def agents_that_answer() -> None:
    with simulated() as system:
        bench = agents.Bench(system)
        agent, _ = agents.agent_on(system, _WAIT, agents.say("One."), agents.say("Two."), tools=bench.tools())
        streams = [agent.stream_chat("Go."), agent.stream_chat("And now?")]
        system.advance(10)
        assert all(stream.is_over for stream in streams)
        agent.stop()


def agents_whose_streams_are_cancelled() -> None:
    for script in (agents.say(1.0, HANG), _WAIT):
        for more in ((), ("And now?",)):
            for stops in (False, True):
                with simulated() as system:
                    bench = agents.Bench(system)
                    agent, _ = agents.agent_on(system, script, agents.say("Well."), tools=bench.tools())
                    stream = agent.stream_chat("Go.")
                    for text in more:
                        agent.stream_chat(text)
                    system.advance(1)
                    if stops:
                        agent._record.cancel_all("enough")
                    else:
                        stream.cancel()
                    system.advance(10)


def agents_that_are_stopped_while_a_stream_is_paused() -> None:
    with simulated() as system:
        agent, _ = agents.agent_on(system, agents.say(1.0, "Well."))
        stream = agent.stream_chat("Go.", on_orphan="continue")
        system.settle()
        stream.pause()
        system.advance(5)
        agent._record.close()
        system.advance(1)
        stream.resume()
        system.advance(5)


def agents_whose_requests_cannot_be_made() -> None:
    for first in (agents.say(HANG), agents.say("One."), _WAIT):
        for cancels in (False, True):
            with simulated() as system:
                bench = agents.Bench(system)
                agent, script = agents.agent_on(system, first, tools=bench.tools())
                stream = agent.stream_chat("Go.")
                system.advance(1)
                script.request = lambda call: 1 / 0  # type: ignore[method-assign,assignment,return-value]
                agent.stream_chat("And now?")
                if cancels:
                    stream.cancel()
                system.advance(10)


def agents_that_are_killed() -> None:
    for script in (agents.say(HANG), _WAIT):
        with simulated() as system:
            bench = agents.Bench(system)
            agent, _ = agents.agent_on(system, script, agents.say("Well."), tools=bench.tools())
            agent.stream_chat("Go.")
            system.advance(1)
            assert agent._record.ref is not None
            system.runtime.exit(agent._record.ref, "kill")
            system.advance(10)


def function_calls_of_every_kind() -> None:
    asked = agents.ask(
        ("a", "double", '{"x": 1}'), ("b", "double", '{"x": '), ("c", "nothing", "{}"), ("d", "wait", '{"seconds": 9}')
    )
    answers: list[Any] = [None, lambda call: True, lambda call: False, lambda call: None, lambda call: 1 / 0]
    for approve in answers:
        for decision in (True, False, None):
            with simulated() as system:
                bench = agents.Bench(system)
                tools = bench.tools()
                for tool in tools:
                    if hasattr(tool, "needs_approval"):
                        tool.needs_approval = True
                agent, _ = agents.agent_on(
                    system, asked, agents.say("Done."), tools=tools, approve=approve,
                    agent_options=penstock.AgentOptions(approval_timeout=5.0, tool_timeout=3.0, max_tool_calls=1),
                )  # fmt: skip
                agent.stream_chat("Go.")
                system.advance(1)
                if decision is not None:
                    for id in "abcd":
                        if decision:
                            agent.approve(id)
                        else:
                            agent.deny(id)
                system.advance(60)
                agent.stop()


def function_calls_in_too_many_rounds() -> None:
    with simulated() as system:
        bench = agents.Bench(system)
        agent, _ = agents.agent_on(
            system, _WAIT, _WAIT, tools=bench.tools(), agent_options=penstock.AgentOptions(max_tool_rounds=1)
        )
        agent.stream_chat("Go.")
        system.advance(30)


PROGRAMS: Final[tuple[Callable[[], None], ...]] = (
    every_command_in_every_state_of_a_stream,
    streams_that_are_restarted,
    every_news_in_every_state_of_a_call,
    calls_that_fall_back,
    calls_that_are_cancelled_or_killed,
    calls_that_wait_for_each_other,
    agents_that_answer,
    agents_whose_streams_are_cancelled,
    agents_that_are_stopped_while_a_stream_is_paused,
    agents_whose_requests_cannot_be_made,
    agents_that_are_killed,
    function_calls_of_every_kind,
    function_calls_in_too_many_rounds,
)
