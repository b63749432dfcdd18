"""The one door for ends: a stream's end reaches log, journal and subscribers once, however the stream ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock import otp
from penstock.actors.call.record import CallRecord
from penstock.actors.runtime.process import SystemMessage
from penstock.actors.stream.messages import Cancel, Complete, Fail
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.errors import ApiError, IncompleteStream
from penstock.events import Citation, Event, SideEvent, StreamCancelled, TerminalEvent
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem, eventually, kill
from tests.conformance.agents import Bench as AgentBench
from tests.conformance.agents import agent_on, say
from tests.conformance.common import FAST
from tests.conformance.streams import Bench, BrokenJournal

QUICK = penstock.RequestOptions(retry_base_delay=0.1, max_retries=0)
STEADY = penstock.StreamOptions(batch_size=1, rate_limit=None)
BUSY = ApiError(503, "busy", retryable=False)


def numbered(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.seq, type(event).__name__) for event in events]


# --- the journal has what the log has --------------------------------------------------------------------------------


def paused_and_killed(system: SimulatedSystem, stream: penstock.Stream) -> None:
    stream.pause()
    kill(system, stream)


ENDS: dict[str, Callable[[SimulatedSystem, penstock.Stream], object]] = {
    "stop": lambda system, stream: stream.stop(),
    "cancel": lambda system, stream: stream.cancel("enough"),
    "killed": lambda system, stream: kill(system, stream),
    "killed while it is paused": lambda system, stream: paused_and_killed(system, stream),
    "its supervisor killed": lambda system, stream: kill(system, "streams"),
    "the handler killed with it": lambda system, stream: [kill(system, stream), kill(system, "handler")],
    "the root killed": lambda system, stream: kill(system, "system"),
    "exits": lambda system, stream: kill(system, stream, "shutdown"),
    "its last reader leaves": lambda system, stream: stream.events().close(),
    "the system stopped": lambda system, stream: system.stop(),
}


@pytest.mark.parametrize("restart", ["temporary", "transient"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.seeds(4)
def test_the_journal_equals_the_log_whatever_ended_the_stream(seed: int, end: str, restart: Any) -> None:
    journal = BrokenJournal()
    system = SimulatedSystem(seed)
    with system:
        stream = system.open_stream("s", STEADY, journal=journal, restart=restart, on_orphan="cancel")
        stream.process_tokens(["a", "b"])
        system.advance(1)
        ENDS[end](system, stream)
        system.advance(1)
    assert stream.is_over
    assert numbered(journal.events) == numbered(list(stream._record.log))
    assert numbered(journal.events)[-1][0] == 3


@pytest.mark.parametrize("restart", ["temporary", "transient"])
def test_an_actor_that_is_killed_while_the_journal_writes_leaves_both_equal(restart: Any) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def hold_the_second() -> None:
        if len(journal.events) == 1 and not writing.is_set():
            writing.set()
            go_on.wait(10)

    journal = BrokenJournal()
    journal.before = hold_the_second
    with penstock.System() as system:
        stream = system.open_stream("s", STEADY, journal=journal, restart=restart)
        stream.process_tokens(["a", "b", "c"])
        assert writing.wait(10)
        kill(system, stream)
        go_on.set()
        if restart == "transient":
            stream.stop()
            assert stream.text == "abc"
        eventually(lambda: stream.is_over)
        eventually(lambda: numbered(journal.events) == numbered(list(stream._record.log)))
        assert len(journal.events) >= 3


def test_a_journal_that_fails_for_a_moment_gets_the_end_all_the_same() -> None:
    journal = BrokenJournal()
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, journal=journal)
        stream.process_token("a")
        system.advance(1)
        journal.failures = 2
        stream.cancel()
        assert numbered(journal.events) == [(1, "TokenEvent"), (2, "StreamCancelled")]


def test_a_reset_is_in_the_journal_too() -> None:
    journal = BrokenJournal()
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY, journal=journal)
        stream.process_token("a")
        system.advance(1)
        stream.reset("again")
        stream.stop()
        assert numbered(journal.events) == numbered(list(stream._record.log))
        assert numbered(journal.events)[1] == (2, "StreamReset")


# --- nothing is done twice -------------------------------------------------------------------------------------------


def test_a_stream_ends_once_whatever_else_is_tried() -> None:
    bench = Bench(journal=(journal := BrokenJournal()), batch_size=1, rate_limit=None)
    over: list[object] = []
    bench.record.over.when_done(lambda: over.append(1))
    counted: list[object] = []

    class Table:
        def count_end(self, record: StreamRecord, terminal: TerminalEvent) -> None:
            counted.append(terminal)

    bench.record.table = Table()
    bench.push_all("a")
    bench.settle()
    assert bench.record.finish(Fail(IncompleteStream("x"), Outcome()))
    assert not bench.record.finish(Complete(Outcome()))
    assert not bench.record.finish(Cancel("late"))
    bench.advance(1)
    assert (len(over), len(counted)) == (1, 1)
    assert [type(event).__name__ for event in journal.events] == ["TokenEvent", "StreamFailed"]
    assert bench.log.terminal is journal.events[-1]


class Leaving:
    """A feed that holds events, which another thread may want to have while they are being taken."""

    def __init__(self, held: list[SideEvent]) -> None:
        self.held = held
        self.while_taking: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """Nothing is under way."""

    def outcome(self) -> Outcome:
        return Outcome()

    def leftovers(self) -> list[SideEvent]:
        taken, self.held = self.held, []
        while_taking, self.while_taking = self.while_taking, lambda: None
        while_taking()
        return taken

    round = 1
    asked = ("", "")


@pytest.mark.parametrize("other", [Complete(), Cancel("enough"), Fail(IncompleteStream("cut"))])
def test_of_two_threads_that_end_a_stream_one_writes_the_last_events_and_how_many_tokens_were_dropped(
    other: Complete | Cancel | Fail,
) -> None:
    bench = Bench(batch_size=1, max_buffer_size=1, overflow="drop_newest")
    bench.pause()
    bench.intake.push_all(["a", "b", "c"])
    record, ended = bench.record, threading.Event()
    feed: Any = Leaving([Citation(kind="url", url="u")])
    record.feed = feed

    def end() -> None:
        record.finish(other)
        ended.set()

    thread = threading.Thread(target=end)

    def end_meanwhile() -> None:
        thread.start()
        ended.wait(0.2)  # it is held up, or done

    feed.while_taking = end_meanwhile
    assert record.finish(Cancel(None))
    thread.join()
    bench.settle()
    first, last = bench.log.get(bench.log.last_seq - 1), bench.log.terminal
    assert isinstance(last, StreamCancelled)
    assert (last.reason, last.dropped, [one.url for one in last.citations]) == (None, 2, ["u"])
    assert first == bench.log.last_events[0]


def test_of_two_proposals_the_first_counts_but_a_cancel_replaces_it() -> None:
    with SimulatedSystem() as system:
        record = system.open_stream("s", STEADY)._record
        record.ref = None  # as if it were being restarted
        first = Complete(Outcome())
        assert record.propose(first)
        assert not record.propose(Fail(IncompleteStream("x"), Outcome()))
        assert record.ending is first
        assert record.propose(Cancel("enough"))
        assert not record.propose(Cancel("again"))
        assert record.ending == Cancel("enough")  # type: ignore[comparison-overlap]


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_stream_that_is_cancelled_while_its_actor_restarts_ends_cancelled(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", STEADY, restart="transient", on_orphan="cancel")
        events = stream.events()
        stream.pause()
        kill(system, stream)
        events.close()  # the last reader leaves while there is no actor
        system.advance(5)
        assert isinstance(stream._record.log.terminal, penstock.StreamCancelled)


def test_a_streams_end_is_counted_before_its_result_is_there() -> None:
    with SimulatedSystem() as system:
        seen: list[tuple[int, int]] = []
        for number, end in enumerate(("stop", "cancel")):
            stream = system.open_stream(f"s{number}")
            count = lambda: (system.statistics().streams_completed, system.statistics().streams_cancelled)  # noqa: E731
            stream._record.over.when_done(lambda count=count: seen.append(count()))  # type: ignore[misc]
            getattr(stream, end)()
        assert seen == [(1, 0), (1, 1)]


# --- the provider's connection ---------------------------------------------------------------------------------------


class _Job:
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def cancel(self) -> None:
        self._said.append("closed")


@pytest.mark.parametrize("how", ["cancel", "stop", "orphaned", "killed", "system"])
def test_the_connection_is_closed_once_and_before_what_it_used_is_computed(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    compute = CallRecord.outcome

    def outcome(self: CallRecord) -> Outcome:
        said.append("computed")
        return compute(self)

    with SimulatedSystem() as system:
        provider = ScriptedProvider(["a", HANG])
        stream = system.chat("m", "Hi", provider=provider, options=FAST, request_options=QUICK)
        events = stream.events()
        system.advance(1)
        call = stream._record.feed
        assert isinstance(call, CallRecord)
        call.attempt.job = _Job(said)
        monkeypatch.setattr(CallRecord, "outcome", outcome)
        match how:
            case "cancel":
                stream.cancel()
            case "stop":
                stream.stop()
            case "orphaned":
                events.close()
            case "killed":
                kill(system, stream)
            case "system":
                system.stop()
        if how != "system":
            system.advance(1)
        assert stream.is_over
    assert said.count("closed") == 1
    if how in ("cancel", "orphaned"):
        assert said[0] == "closed"


# --- dead letters ----------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(30)
@pytest.mark.parametrize("end", ["cancel", "stop", "break", "complete", "fail", "callback", "chain", "agent"])
def test_an_ordinary_end_leaves_no_dead_letter(seed: int, end: str) -> None:
    with SimulatedSystem(seed) as system:
        if end == "agent":
            agent, _ = agent_on(system, say("One.", 0.2, "Two."), tools=AgentBench(system).tools())
            agent.stream_chat("Go.")
            system.advance(0.1)
            agent.stop()
        else:
            script: list[Any] = ["a", 0.1, "b", 0.1, BUSY] if end == "fail" else ["a", 0.1, "b", 0.1, "c"]
            stream = system.chat("m", "Hi", provider=ScriptedProvider(script), options=FAST, request_options=QUICK)
            collector = Collector(stream)
            system.advance(0.15)
            match end:
                case "cancel" | "stop":
                    getattr(stream, end)()
                case "break":
                    collector.subscription.unsubscribe()
                case "complete":
                    stream.result(5)
                case "fail":
                    with pytest.raises(penstock.PenstockError):
                        stream.result(5)
                case "callback":
                    stream.subscribe(lambda event: None)
                    collector.subscription.unsubscribe()
                case "chain":
                    chained = penstock.chain(system, stream, lambda event: event.tokens)
                    system.advance(0.01)
                    chained.cancel()
        system.advance(5)
        letters = system.runtime.dead_letters
        assert (letters.count, dict(letters.by_type)) == (0, {})


def test_ordinary_ends_leave_no_dead_letters_over_real_sockets() -> None:
    with penstock.System() as system:
        for how in ("cancel", "stop", "break", "complete", "agent"):
            for _ in range(10):
                if how == "agent":
                    with system.agent(model="echo", provider="loopback") as agent:
                        agent.stream_chat("one two three")
                    continue
                stream = system.chat("echo", "one two three four five six", provider="loopback")
                if how == "break":
                    for _event in stream:
                        break
                elif how == "complete":
                    stream.result(5)
                else:
                    getattr(stream, how)()
        eventually(lambda: system.statistics().streams_active == 0)
        letters = system.runtime.dead_letters
        assert (letters.count, dict(letters.by_type)) == (0, {})


def test_an_end_that_hangs_in_the_journal_is_announced_when_its_actor_is_killed() -> None:
    hanging, go_on = threading.Event(), threading.Event()

    class Hanging:
        def append(self, event: Event) -> None:
            if isinstance(event, penstock.StreamCompleted):
                hanging.set()
                go_on.wait(20)

    with penstock.System() as system:
        stream = system.open_stream("s", STEADY, journal=Hanging())
        stopper = threading.Thread(target=stream.stop)
        stopper.start()
        try:
            assert hanging.wait(10)
            assert stream._record.ref is not None
            system.runtime.exit(stream._record.ref, "kill")
            assert stream.result(timeout=10).finish_reason == "stop"
        finally:
            go_on.set()
            stopper.join(10)


# --- a journal that hangs holds up nothing but its own stream --------------------------------------------------------


class Suspending(SystemMessage):
    """Suspends the process that gets it."""

    __slots__ = ()

    def apply(self, process: Any) -> None:
        process.suspend()


class Hanging:
    """Hangs in every append."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()

    def append(self, event: Event) -> None:
        self.entered.set()
        self.go_on.wait(20)


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("restart", ["temporary", "transient"])
def test_a_journal_that_hangs_when_its_actor_is_killed_holds_up_no_other_stream(
    restart: Any, is_cancelled: bool
) -> None:
    journal = Hanging()
    with penstock.System() as system:
        try:
            stream = system.open_stream("s", STEADY, journal=journal, restart=restart)
            stream.process_token("a")
            assert journal.entered.wait(10)
            if is_cancelled:
                stream._record.propose(Cancel("enough"))
            assert stream._record.ref is not None
            system.runtime.exit(stream._record.ref, "kill")
            system.open_stream("other").stop()
            if restart == "temporary" or is_cancelled:
                eventually(lambda: stream._record.over.is_done, 10)
        finally:
            journal.go_on.set()


def test_a_journal_that_hangs_only_after_its_actor_has_died_holds_up_no_other_stream() -> None:
    journal = Hanging()
    with penstock.System() as system:
        try:
            stream = system.open_stream("s", STEADY, journal=journal)
            assert stream._record.ref is not None
            system.runtime.exit(stream._record.ref, "kill")
            assert journal.entered.wait(10)
            system.open_stream("other").stop()
        finally:
            journal.go_on.set()
        eventually(lambda: stream._record.over.is_done, 10)


def test_an_end_that_hangs_in_the_journal_is_announced_although_the_handler_dies_too() -> None:
    journal = Hanging()
    with penstock.System() as system:
        try:
            stream = system.open_stream("s", STEADY, journal=journal)
            actor, handler = stream._record.ref, system.runtime.whereis("handler")
            assert actor is not None
            assert handler is not None
            stream._record.propose(Cancel("enough"))
            assert journal.entered.wait(10)
            handler.actor_inbox.put(Suspending())  # it does not act on the actor's death before it dies itself
            system.runtime.exit(actor, "kill")
            streams = system.runtime.whereis("streams")
            assert streams is not None
            eventually(lambda: not otp.which_children(streams, 5), 10)
            assert not stream._record.over.is_done
            system.runtime.exit(handler, "kill")
            eventually(lambda: stream._record.over.is_done, 10)
        finally:
            journal.go_on.set()


def test_a_record_is_counted_once_although_it_is_entered_again() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        stream.stop()
        table = system._services.streams
        table.forget(stream._record)
        table.add(stream._record)  # by a handler that is asked again after a crash
        statistics = system.statistics()
        assert (statistics.streams_created, statistics.streams_active) == (1, 0)
        with pytest.raises(penstock.StreamNotFound):
            table.get("s")


def test_a_failure_is_logged_once_although_the_handler_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock")
    with SimulatedSystem() as system:
        stream = system.open_stream("s", STEADY)
        kill(system, stream)
        system.settle()
        assert isinstance(stream._record.log.terminal, penstock.StreamFailed)
        kill(system, "handler")
        system.advance(1)
        assert system.runtime.whereis("handler") is not None
    assert caplog.text.count("stream_failed") == 1
