"""`Stream.insights`: a reader of its own that counts, measures, and notices stalls and loops.

It reads with ``slow="coalesce"``, so the stream never waits for it, and what waits comes together when it is late. The
events `StallDetected` and `LoopDetected` are pushed into the stream, whose other readers get them in their place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from penstock.actors.runtime.clock import Fired, Timer
from penstock.actors.runtime.process import Process
from penstock.actors.stream.subscribers.polled import StreamReader
from penstock.config.checks import check_choice, check_number
from penstock.errors import RunawayAnswer
from penstock.events import (
    Event,
    LoopDetected,
    Progress,
    StallDetected,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    ToolCallDelta,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.ports import InsightsReport
from penstock.stream import Stream
from penstock.toolbox.loops import LoopFinder, Repetition
from penstock.toolbox.measures import Pace, TextCounts

__all__ = ["Book", "LoopLimits", "StreamInsights", "watch"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_TURNS: Final = 64  # events in a row; then other processes get the thread
_SHORTEST_STALL: Final = 2.0  # seconds
_USUAL: Final = 8  # times the 95th percentile of the time between tokens
_REPEATS, _CHARACTERS = 4, 200  # of a loop that is told
_TO_CANCEL, _TO_CANCEL_CODE = 1000, 3000  # characters of a loop that ends the stream
_WINDOW: Final = 64


class LoopLimits:
    """What a loop must be to end the stream.

    Args:
        cancel: whether any does.
        repeats: at least so many.
        characters: at least so many; None is 1,000, and 3,000 in a code block.
    """

    def __init__(self, cancel: bool, repeats: int = 8, characters: int | None = None) -> None:
        self.cancel = cancel
        self.repeats = repeats
        self.characters = characters

    def exceeded_by(self, run: Repetition, *, in_code: bool) -> bool:
        """Whether that run ends the stream."""
        least = self.characters or (_TO_CANCEL_CODE if in_code else _TO_CANCEL)
        return self.cancel and run.repeats >= self.repeats and run.length >= least


class Book:
    """Everything that is known of one stream. The time is passed in; its owner serialises its use.

    Args:
        limits: when a loop ends the stream.
        arguments: whether arguments of calls are searched for loops.
        now: when it begins to watch, in monotonic seconds.
    """

    def __init__(self, limits: LoopLimits, arguments: bool, now: float) -> None:
        self._limits = limits
        self._arguments = arguments
        self._pace = Pace()
        self._running: set[str] = set()  # the ids of the calls that run
        self._begin_anew()
        self.active_at = now
        """When the last event of the answer came."""
        self.stalls = self.loops = 0
        self.is_stalled = False
        self.last_loop: LoopDetected | None = None
        self._start = now

    def _begin_anew(self) -> None:
        self._counts = TextCounts()
        self._reasoning = 0
        self._tokens = 0
        self._finders: dict[Any, LoopFinder] = {}  # by kind, by kind and origin, or by origin and index of a call
        self._told: dict[Any, int] = {}  # where the run begins that has been told

    def feed(self, event: Event, now: float) -> LoopDetected | RunawayAnswer | None:
        """Take an event of the stream; returns a loop that has not been told, or an error that ends the stream."""
        if isinstance(event, (Progress, StallDetected, LoopDetected)):
            return None
        self.active_at = now
        if isinstance(event, StreamSnapshot):
            self._begin_anew()
            self._counts.feed(event.text)
            self._reasoning, self._tokens = len(event.reasoning), len(event.tokens)
            found = self._search("text", "text", event.text)
            return found or self._search("reasoning", "reasoning", event.reasoning)
        if isinstance(event, TokenEvent):
            return self._feed_tokens(event, now)
        if isinstance(event, ToolCallDelta):
            call = (event.origin, event.index)
            return self._search("arguments", call, event.text) if self._arguments else None
        if isinstance(event, StreamReset):
            self._begin_anew()
        elif isinstance(event, ToolExecutionStarted):
            self._pace.interrupt()
            self._running.update(call.id for call in event.calls)
        elif isinstance(event, ToolResult):
            self._running.discard(event.call_id)
        return None

    def _feed_tokens(self, event: TokenEvent, now: float) -> LoopDetected | RunawayAnswer | None:
        text, kind = event.text, event.kind
        self.is_stalled = False
        self._pace.came(len(event.tokens), len(text), now)
        self._tokens += len(event.tokens)
        if kind == "text":
            self._counts.feed(text)
        elif kind == "reasoning":
            self._reasoning += len(text)
        else:
            return None
        return self._search(kind, (kind, event.origin) if event.origin else kind, text)

    def _search(self, kind: str, key: Any, text: str) -> LoopDetected | RunawayAnswer | None:
        finder = self._finders.get(key)
        if finder is None:
            finder = self._finders[key] = LoopFinder()
        if not finder.feed(text):
            return None
        run = finder.run
        if run is None or run.length < _CHARACTERS or run.repeats < _REPEATS:
            return None
        if kind != "arguments" and self._limits.exceeded_by(run, in_code=kind == "text" and self._counts.in_code):
            return RunawayAnswer("", kind, run.period, run.repeats, run.start)
        if self._told.get(key) == run.start:
            return None
        self._told[key] = run.start
        self.loops += 1
        self.last_loop = LoopDetected(kind=kind, period=run.period, repeats=run.repeats, start=run.start)
        return self.last_loop

    # --- stalls --------------------------------------------------------------------------------------------------

    def stall_limit(self) -> float:
        """Seconds without a token after which the stream is stalled."""
        return max(_SHORTEST_STALL, _USUAL * (self._pace.quantile(0.95) or 0.0))

    @property
    def may_stall(self) -> bool:
        """Whether silence is a stall: it is none while a tool runs, nor told twice."""
        return not self._running and not self.is_stalled

    def stall(self, now: float) -> StallDetected:
        """Note a stall."""
        self.is_stalled = True
        self.stalls += 1
        last = self._start if self._pace.last is None else self._pace.last
        return StallDetected(seconds=now - last, limit=self.stall_limit())

    def report(self, now: float) -> InsightsReport:
        """Everything, as of now."""
        counts, pace = self._counts, self._pace
        tokens, characters = pace.rates(now)
        return InsightsReport(
            characters=counts.characters,
            reasoning_characters=self._reasoning,
            words=counts.words,
            sentences=counts.sentences,
            lines=counts.lines,
            code_blocks=counts.code_blocks,
            tokens=self._tokens,
            tokens_per_second=tokens,
            characters_per_second=characters,
            inter_token_p50_s=pace.quantile(0.5),
            inter_token_p95_s=pace.quantile(0.95),
            inter_token_p99_s=pace.quantile(0.99),
            stalls=self.stalls,
            is_stalled=self.is_stalled,
            loops=self.loops,
            last_loop=self.last_loop,
        )


class _Look:
    """There is news of the stream."""

    __slots__ = ()


_LOOK: Final = _Look()


class _StallTimer(Timer):
    """Sends `Fired` to the watcher."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self._tell = tell

    def fire(self, generation: int) -> None:
        self._tell(Fired("stall", generation))


class StreamInsights:
    """The handle, and all that is known; see `penstock.ports.Insights`. The watcher calls it too."""

    def __init__(self, stream: Stream, book: Book) -> None:
        self._book = book
        self._stream_id = stream.stream_id
        self._statistics = stream.statistics
        self._sink = stream.sink()
        self._runtime = stream._record.runtime
        self._lock = threading.Lock()  # guards the book and the reader
        self._watcher = self._runtime.spawn(Watcher, self)
        tell = self._watcher.tell
        self._reader: StreamReader | None = stream.reader(
            lambda: tell(_LOOK), slow="coalesce", window=_WINDOW, counts=False
        )
        tell(_LOOK)

    def report(self) -> InsightsReport:
        """See `penstock.ports.Insights.report`."""
        while self.read(_TURNS):
            pass
        with self._lock:
            return self._book.report(self._runtime.clock.monotonic())

    def read(self, limit: int) -> bool:
        """Read at most so many events; returns whether there may be more. Any thread."""
        with self._lock:
            for _ in range(limit):
                event = None if self._reader is None else self._reader.take()
                if event is None:
                    return False
                if isinstance(event, _TERMINAL):
                    self._forget()
                    return False
                self._tell(self._book.feed(event, self._runtime.clock.monotonic()))
            return True

    def _tell(self, found: LoopDetected | RunawayAnswer | None) -> None:
        """Say in the stream what has been found in it."""
        if isinstance(found, RunawayAnswer):
            error = RunawayAnswer(self._stream_id, found.kind, found.period, found.repeats, found.start)
            self._sink.end(error, at_once=True)
        elif found is not None:
            self._sink.push_event(found)

    def look_for_stall(self) -> float | None:
        """Tell a stall if there is one; returns when to look again (monotonic), or None: after the next event."""
        with self._lock:
            book, now = self._book, self._runtime.clock.monotonic()
            if self._reader is None or not book.may_stall:
                return None
            due = book.active_at + book.stall_limit()
            if now < due:
                return due
            if not self._statistics().buffer_size:  # else it is the stream that holds the tokens
                self._sink.push_event(book.stall(now))
            return None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be read."""
        return self._reader is None

    def close(self) -> None:
        """See `penstock.ports.Insights.close`."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
            self._watcher.stop(block=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Watcher(Process):
    """Reads one stream for `StreamInsights`, and looks for stalls. It never blocks."""

    in_pykka_registry = False

    def __init__(self, insights: StreamInsights) -> None:
        super().__init__()
        self._insights = insights
        self._timer = _StallTimer(self.ref.tell)

    def on_receive(self, message: Any) -> None:
        match message:
            case _Look():
                if self._insights.read(_TURNS):
                    self.ref.tell(_LOOK)
                elif not self._timer.is_set and not self._insights.is_over:
                    self._look_for_stall()
            case Fired(generation=generation):
                if generation == self._timer.generation:
                    self._look_for_stall()
            case _:
                super().on_receive(message)

    def _look_for_stall(self) -> None:
        when = self._insights.look_for_stall()
        if when is not None:
            self.runtime.timers.set(self._timer, when)

    def terminate(self, reason: object) -> None:
        """Set no timer any more."""
        self.runtime.timers.cancel(self._timer)


def watch(
    stream: Stream,
    *,
    on_loop: str = "report",
    min_repeats: int = 8,
    min_characters: int | None = None,
    arguments: bool = False,
) -> StreamInsights:
    """Watch a stream; see `Stream.insights`."""
    check_choice("on_loop", on_loop, ("report", "cancel"))
    check_number("min_repeats", min_repeats, _REPEATS, 1_000_000, whole=True)
    check_number("min_characters", min_characters, _CHARACTERS, 1_000_000_000, whole=True, optional=True)
    check_choice("arguments", arguments, (True, False))
    limits = LoopLimits(on_loop == "cancel", min_repeats, min_characters)
    return StreamInsights(stream, Book(limits, arguments, stream._record.runtime.clock.monotonic()))
