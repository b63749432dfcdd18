"""A stream keeps its promises under any commands in any order and schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.actors.stream.messages import Complete
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.subscribers.pull import Events
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.options import Slow
from penstock.errors import BufferFull, CallTimeout, ProcessDead
from penstock.events import (
    Disconnected,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TokenEvent,
    ToolCallDelta,
    ToolResult,
)
from tests.conformance.streams import Bench, BrokenJournal, Crash
from tests.unit.flow.common import Reader

POLICIES = st.sampled_from(("block", "coalesce", "drop", "disconnect"))
TERMINAL = (StreamCompleted, StreamFailed)


class StreamMachine(RuleBasedStateMachine):
    """One stream, a journal that fails on request, subscribers of every kind, and the expected tokens."""

    @initialize(
        seed=st.integers(0, 1000),
        strategy=st.sampled_from(("hybrid", "batch", "time")),
        overflow=st.sampled_from(("block", "drop_oldest", "drop_newest", "error")),
        batch_size=st.integers(1, 4),
        bound=st.integers(4, 12),
        rate=st.sampled_from((None, 5.0, 100.0)),
        retain=st.sampled_from((0, 1000, 1 << 30)),
    )
    def open(self, seed: int, **options: Any) -> None:
        self.journal = BrokenJournal()
        self.bench = Bench(
            seed,
            journal=self.journal,
            restart="transient",
            strategy=options["strategy"],
            overflow=options["overflow"],
            batch_size=options["batch_size"],
            max_buffer_size=options["bound"],
            rate_limit=options["rate"],
            retain_bytes=options["retain"],
            push_timeout=0.5,
            flush_interval=0.1,
            max_errors=1000,
            error_recovery_delay=0.3,
        )
        self.number = 0
        self.pushed = 0  # tokens that were accepted or dropped
        self.voided = 0
        self.results: list[int] = []  # accepted tool results that were not discarded, each with its number
        self.pieces = ""  # accepted pieces of arguments
        self.tool_events = 0
        self.last_reset = 0  # the number of the event; the journal may not have it
        self.told: list[tuple[PushSubscription, list[Any]]] = []
        self.readers: list[tuple[Events, Reader]] = []
        self.most = options["bound"]

    def try_to(self, command: Callable[[], Any]) -> None:
        """Send a command; if the stream crashes on it, send it to the restarted one."""
        self.restart_if_crashed()
        try:
            command()
        except (Crash, ProcessDead):
            self.restart_if_crashed()
            command()

    def next_tokens(self, count: int) -> list[str]:
        self.number += count
        return [f"{number} " for number in range(self.number - count, self.number)]

    # --- what may happen -----------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 20))
    def push(self, count: int) -> None:
        tokens = self.next_tokens(count)
        try:
            self.bench.intake.push_all(tokens)
            self.pushed += count
        except BufferFull as error:
            self.pushed += error.accepted
            assert self.bench.record.options.overflow in ("block", "error")

    @rule()
    def push_one(self) -> None:
        (token,) = self.next_tokens(1)
        try:
            self.bench.push(token, 0)
            self.pushed += 1
        except BufferFull:
            assert self.bench.record.options.overflow in ("block", "error")

    @rule(count=st.integers(1, 3))
    def push_results(self, count: int) -> None:
        for _ in range(count):
            self.tool_events += 1
            self.results.append(self.tool_events)
            result = ToolResult(call_id=str(self.tool_events), name="f", content="42")
            assert self.bench.intake.push_event(result)

    @rule(text=st.sampled_from(("a", "bc")), index=st.integers(0, 1))
    def push_piece(self, text: str, index: int) -> None:
        self.tool_events += 1
        self.pieces += text
        assert self.bench.intake.push_event(ToolCallDelta(index=index, text=text))

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.1, 0.3, 2.0)))
    def advance(self, seconds: float) -> None:
        self.bench.advance(seconds)

    @rule(force=st.booleans())
    def flush(self, force: bool) -> None:
        def flush() -> None:
            before = self.bench.log.tokens
            assert self.bench.flush(force=force) == self.bench.log.tokens - before

        self.try_to(flush)

    @rule()
    def pause(self) -> None:
        self.try_to(self.bench.pause)

    @rule()
    def resume(self) -> None:
        self.try_to(self.bench.resume)

    @rule(
        changes=st.fixed_dictionaries(
            {},
            optional={
                "batch_size": st.integers(1, 4),
                "rate_limit": st.sampled_from((None, 5.0, 100.0)),
                "flush_interval": st.sampled_from((0.01, 0.1, 1.0)),
                "strategy": st.sampled_from(("hybrid", "batch", "time")),
                "overflow": st.sampled_from(("block", "drop_oldest", "drop_newest", "error")),
                "max_buffer_size": st.integers(4, 12),
            },
        )
    )
    def set_options(self, changes: dict[str, Any]) -> None:
        self.try_to(lambda: self.bench.set_options(**changes))
        self.most = max(self.most, self.bench.record.options.max_buffer_size)

    @rule(failures=st.integers(1, 3))
    def break_journal(self, failures: int) -> None:
        self.journal.failures = failures

    @rule()
    def kill(self) -> None:
        self.bench.restart()
        self.restart_if_crashed()

    @rule()
    def crash_while_delivering(self) -> None:
        def crash() -> None:
            self.journal.before = None
            raise Crash

        self.journal.before = crash

    @precondition(lambda self: len(self.told) < 4)
    @rule(slow=POLICIES, window=st.integers(1, 3))
    def subscribe(self, slow: Slow, window: int) -> None:
        self.told.append(self.bench.subscribe(slow, window))

    @precondition(lambda self: self.told)
    @rule(which=st.integers(0, 3))
    def unsubscribe(self, which: int) -> None:
        self.told.pop(which % len(self.told))[0].unsubscribe()

    @precondition(lambda self: len(self.readers) < 4)
    @rule(slow=st.sampled_from(("block", "coalesce")), window=st.integers(1, 3))
    def iterate(self, slow: Slow, window: int) -> None:
        self.readers.append((self.bench.events(slow, window), Reader()))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 3), count=st.integers(1, 5))
    def read(self, which: int, count: int) -> None:
        events, reader = self.readers[which % len(self.readers)]
        for _ in range(count):
            try:
                reader.read(events.next(timeout=0))
            except CallTimeout:
                return

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 3))
    def drop_iterator(self, which: int) -> None:
        self.readers.pop(which % len(self.readers))

    @rule()
    def reset(self) -> None:
        self.restart_if_crashed()
        self.voided += self.bench.intake.size - self.bench.intake.events
        self.results, self.pieces = self.delivered_tool_events()
        self.try_to(self.bench.reset)
        self.last_reset = self.bench.log.last_seq

    def delivered_tool_events(self) -> tuple[list[int], str]:
        """The numbers of the results and the pieces in the journal; of what was tried again, the last try."""
        last = self.bench.log.last_seq
        events = [event for seq, event in sorted({one.seq: one for one in self.journal.events}.items()) if seq <= last]
        results = [int(event.call_id) for event in events if isinstance(event, ToolResult)]
        return results, "".join(event.text for event in events if isinstance(event, ToolCallDelta))

    # --- what always holds ---------------------------------------------------------------------------------------

    def restart_if_crashed(self) -> None:
        self.bench.settle()
        while not self.bench.runtime.is_alive(self.bench.ref):
            self.bench.start()
            self.bench.settle()

    @invariant()
    def it_keeps_its_promises(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        self.restart_if_crashed()
        statistics = bench.record.statistics()
        events = list(bench.log)
        assert [event.seq for event in events] == list(range(bench.log.first_seq, bench.log.last_seq + 1))
        assert all(len(event.tokens) <= 4 for event in events if isinstance(event, TokenEvent))
        assert statistics.buffer_high_water_mark <= self.most + self.tool_events
        waiting = statistics.buffer_size - bench.intake.events
        kept = statistics.tokens_delivered + waiting + self.voided
        assert kept + statistics.tokens_dropped == self.pushed, statistics
        numbers = [int(token) for token in bench.text.split()]
        assert numbers == sorted(set(numbers))
        results, pieces = self.delivered_tool_events()
        assert results == self.results[: len(results)]
        assert self.pieces.startswith(pieces)
        assert not bench.record.is_over
        for subscription, _ in self.told:
            assert subscription.is_active or subscription.slow == "disconnect"

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        self.journal.before = None
        self.journal.failures = 0
        self.it_keeps_its_promises()
        bench.resume()
        bench.set_options(batch_size=1)
        bench.ref.tell(Complete(Outcome()))
        while not bench.record.is_over:
            before = bench.now, bench.log.last_seq
            bench.advance(5)
            for iterator, reader in self.readers:
                self.read_on(iterator, reader)
            bench.settle()
            assert before != (bench.now, bench.log.last_seq)
            assert bench.now < 1e5
        assert isinstance(bench.log.terminal, StreamCompleted)
        statistics = bench.record.statistics()
        assert statistics.tokens_delivered + statistics.tokens_dropped + self.voided == self.pushed
        assert self.delivered_tool_events() == (self.results, self.pieces)
        results = [event for event in self.journal.events if isinstance(event, ToolResult)]
        valid = {event.seq for event in results if event.seq > self.last_reset}
        bench.settle()
        for iterator, reader in self.readers:
            self.read_on(iterator, reader)
            assert isinstance(reader.events[-1], StreamCompleted)
            assert reader.texts["text"] == bench.log.terminal.text
            assert reader.results == len(valid)
        for subscription, told in self.told:
            assert not subscription.is_active
            if subscription.slow == "disconnect" and isinstance(told[-1], Disconnected):
                continue
            assert isinstance(told[-1], StreamCompleted)
            if subscription.slow != "drop":
                reader = Reader()
                for event in told:
                    reader.read(event)
                assert reader.texts["text"] == bench.log.terminal.text
                assert reader.results == len(valid)
        journaled = [event for event in self.journal.events if not isinstance(event, StreamReset)]
        assert isinstance(journaled[-1], StreamCompleted)
        assert bench.record.hub.subscribers == 0
        bench.close()
        assert len(bench.simulation.timers) == 0

    def read_on(self, iterator: Events, reader: Reader) -> None:
        while True:
            try:
                reader.read(iterator.next(timeout=0))
            except (CallTimeout, StopIteration):
                return


TestStream = StreamMachine.TestCase
TestStream.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
