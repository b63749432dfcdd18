"""One stream on a simulation, driven directly, with everything it may be told close at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.signals import KILL
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.messages import (
    Cancel,
    Flush,
    GetState,
    GetStatistics,
    Pause,
    Reset,
    Resume,
    SetOptions,
    StopStream,
)
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.statistics import StreamStatistics
from penstock.actors.stream.subscribers.pull import Events, PullSubscription
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.options import Restart, Slow, StreamOptions
from penstock.errors import ProcessDead
from penstock.events import Event, TokenEvent
from penstock.testing import Simulation

TIMEOUT = 60.0


class Crash(BaseException):
    """What no stream catches."""


class BrokenJournal:
    """Keeps what it is given, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.events: list[Event] = []
        self.before: Callable[[], None] | None = None

    def append(self, event: Event) -> None:
        if self.before is not None:
            self.before()
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is full")
        self.events.append(event)


class Sink(Process):
    in_pykka_registry = False

    def __init__(self, events: list[Any]) -> None:
        super().__init__()
        self._events = events

    def on_receive(self, message: Any) -> None:
        self._events.append(message)


class Bench:
    """A stream and its clock."""

    def __init__(
        self,
        seed: int = 0,
        *,
        journal: BrokenJournal | None = None,
        restart: Restart = "temporary",
        metadata: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.simulation = Simulation(seed)
        self.runtime = self.simulation.runtime
        self.record = StreamRecord(
            self.runtime,
            "s",
            StreamOptions(**options),
            metadata=metadata or {},
            on_orphan="continue",
            restart=restart,
            journal=journal,
        )
        self.intake = self.record.intake
        self.log = self.record.log
        self.started_at = self.now
        self.ref = self.start()
        self.push = self.intake.push

    def start(self) -> ProcessRef:
        self.ref = self.runtime.spawn(TokenStream, self.record)
        return self.ref

    def restart(self, reason: object = KILL) -> None:
        self.runtime.exit(self.ref, reason)
        self.simulation.settle()
        if not self.record.is_over:
            self.start()

    @property
    def now(self) -> float:
        return self.simulation.clock.monotonic()

    def settle(self) -> None:
        self.simulation.settle()

    def advance(self, seconds: float) -> None:
        """Let so much time pass, and a moment more than sums of decimal fractions may lack."""
        self.simulation.advance(seconds + 1e-9)

    def push_all(self, *tokens: str) -> None:
        self.intake.push_all(tokens)
        self.settle()

    def count(self, tokens: int) -> None:
        """Push so many tokens, one by one, with everything that follows."""
        for number in range(tokens):
            self.push(f"{number},")
            self.settle()

    # --- calls ---------------------------------------------------------------------------------------------------

    def ask(self, message: Any) -> Any:
        return self.ref.ask(message, timeout=TIMEOUT)

    def flush(self, *, force: bool = True) -> int:
        count: int = self.ask(Flush(force))
        return count

    def pause(self) -> None:
        self.ask(Pause())

    def resume(self) -> None:
        self.ask(Resume())
        self.settle()

    def stop(self) -> None:
        self.ask(StopStream())
        self.settle()

    def cancel(self, reason: str | None = None) -> None:
        self.ask(Cancel(reason))
        self.settle()

    def reset(self) -> None:
        self.ask(Reset("again"))

    def set_options(self, **changes: Any) -> None:
        self.ask(SetOptions(changes))
        self.settle()

    @property
    def state(self) -> str:
        try:
            state: str = self.ask(GetState())
        except ProcessDead:
            assert self.record.is_over
            return self.record.state
        assert state == self.record.state
        return state

    @property
    def statistics(self) -> StreamStatistics:
        statistics: StreamStatistics = self.ask(GetStatistics())
        return statistics

    # --- what came of it -----------------------------------------------------------------------------------------

    @property
    def batches(self) -> list[tuple[str, ...]]:
        return [event.tokens for event in self.log if isinstance(event, TokenEvent)]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    @property
    def times(self) -> list[float]:
        """When each batch went out, in seconds since the start."""
        zero = 1_700_000_000.0 + self.started_at
        return [round(event.timestamp - zero, 6) for event in self.log if isinstance(event, TokenEvent)]

    @property
    def text(self) -> str:
        return self.log.text()

    # --- subscribers ---------------------------------------------------------------------------------------------

    def subscribe(self, slow: Slow = "block", window: int = 64, after: int = 0) -> tuple[PushSubscription, list[Any]]:
        events: list[Any] = []
        sink = self.runtime.spawn(Sink, events)
        subscription = PushSubscription(self.record.hub, Cursor(self.log, after, slow, window), sink, sink)
        self.record.hub.add(subscription)
        subscription.wake()
        return subscription, events

    def events(self, slow: Slow = "coalesce", window: int = 16, after: int = 0) -> Events:
        seat = PullSubscription(self.record.hub, Cursor(self.log, after, slow, window), self.runtime.dispatcher)
        self.record.hub.add(seat)
        return Events(seat)

    def close(self) -> None:
        self.simulation.close()
