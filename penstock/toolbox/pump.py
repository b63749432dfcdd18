"""Derived streams: a stream that is fed by a process which reads other streams, and has a `Stage` work on their events.

The process takes an event from a parent only when what it made of the last one is in the derived stream. So the
parents, and what feeds them, wait while the derived stream is full: nothing is kept in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from penstock.actors.runtime.clock import Fired, Timer
from penstock.actors.runtime.dispatcher import clear_frames_later
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.signals import SHUTDOWN
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan, StreamOptions
from penstock.config.presets import SAFE
from penstock.errors import OptionError, StreamClosed, StreamCrashed, SystemStopped, TransformError
from penstock.errors.base import copy_of
from penstock.events import (
    Citation,
    Logprobs,
    Progress,
    SideEvent,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCallCompleted,
    ToolProgress,
)
from penstock.ports import Sink
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.inputs import Inputs
from penstock.toolbox.requests import Answered, Requests
from penstock.toolbox.stage import (
    Annotate,
    AtOnce,
    Await,
    Hold,
    Open,
    Output,
    Release,
    Run,
    Stage,
    Start,
    Unhold,
    Until,
    Wait,
)

__all__ = ["derive"]

_PATIENCE: Final = 2.0  # seconds for a stage to release what it holds
_TURNS: Final = 64  # events in a row; then other processes get the thread
_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)


def derive(
    stage: Stage,
    parents: Sequence[Stream],
    *,
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Any = None,
    on_orphan: OnOrphan = "cancel",
    window: int = 4,
    borders: bool = True,
) -> Stream:
    """Open a stream of what ``stage`` makes of the parents' events.

    It is drawn in `System.tree`, carries backpressure to the parents, and lets go of them when it ends, before its
    terminal event is told. It ends with what the stage gives, and in any case in one terminal event.

    Args:
        stage: belongs to this stream alone.
        parents: the first ones; the stage may open more. Each is read from its beginning.
        system: None is that of the first parent.
        stream_id: None generates one.
        options: None takes the preset `SAFE`: the borders of the parents' events are then kept.
        metadata: None takes that of the first parent.
        on_orphan: as for `System.open_stream`.
        window: how many events of each parent may wait before the parent does.
        borders: whether each token event of the stage becomes one event, unless the options say otherwise.

    Raises:
        OptionError: an argument is not allowed.
        StreamExists, SystemStopped: as for `System.open_stream`.
    """
    for parent in parents:
        if not isinstance(parent, Stream):
            raise OptionError("stream", type(parent), "a Stream")
    if system is None and not parents:
        raise OptionError("system", None, "a System, where there is no parent")
    if system is not None:
        if metadata is None and parents:
            metadata = parents[0].metadata
        target = system.open_stream(stream_id, options or SAFE, metadata=metadata, on_orphan=on_orphan)
    else:
        target = parents[0].open_beside(stream_id, options, metadata=metadata, on_orphan=on_orphan)
    record, runtime = target._record, target._record.runtime
    inputs = Inputs(record, window)
    try:
        for parent in parents:
            inputs.add(parent)
        requests = Requests(record, asyncio._get_running_loop())
        sink = target.sink()
        has_borders = borders and not target.options.flush_interval
        stage.stream_id, stage.random = target.stream_id, runtime.random
        context = contextvars.copy_context()
        pump = runtime.spawn(Pump, target.stream_id, sink, stage, inputs, requests, context, has_borders)
    except BaseException:
        inputs.close()
        target.cancel("it could not be fed")
        raise

    def let_go() -> None:
        inputs.close()
        requests.close()
        runtime.exit(pump, SHUTDOWN)

    names = [parent.stream_id for parent in parents]
    sink.attach(pump if parents else None, let_go, kind=stage.kind, parents=names, counters=stage.counters)
    pump.tell(_GO_ON)
    return target


class _GoOn:
    """There is news of a parent, or room in the derived stream."""

    __slots__ = ()


_GO_ON: Final = _GoOn()
_NOTHING: Final[Any] = object()


class _Room(NamedTuple):
    """There may be room in the derived stream."""


class _ResetDone(NamedTuple):
    """The derived stream has answered the reset."""

    is_done: bool


class _PumpTimer(Timer):
    """Sends `Fired` to the pump."""

    __slots__ = ("_name", "_tell")

    def __init__(self, tell: Callable[[Any], None], name: str) -> None:
        super().__init__()
        self._tell = tell
        self._name = name

    def fire(self, generation: int) -> None:
        self._tell(Fired(self._name, generation))


class _LeakTimer(Timer):
    """Counts a stage that has not released what it holds in time."""

    __slots__ = ("_requests", "_stage")

    def __init__(self, stage: Stage, requests: Requests) -> None:
        super().__init__()
        self._stage = stage
        self._requests = requests

    def fire(self, generation: int) -> None:
        if not self._stage.is_closed():
            self._requests.note_leak(self._stage.kind)


class Pump(Process):
    """Feeds one derived stream. It never blocks.

    ``_waits`` says what it waits for with an output in hand: ``"room"``, ``"time"``, ``"reset"``, ``"answer"``; None:
    it goes on with the next step, or with the next event.
    """

    in_pykka_registry = False

    def __init__(
        self,
        stream_id: str,
        sink: Sink,
        stage: Stage,
        inputs: Inputs,
        requests: Requests,
        context: contextvars.Context,
        has_borders: bool,
    ) -> None:
        self._stream_id = stream_id  # these two first: `label` is used by the base class
        self._stage = stage
        super().__init__()
        self._sink = sink
        self._inputs = inputs
        self._requests = requests
        self._context = context
        self._has_borders = has_borders  # of the parents' events
        self._steps: Iterator[Output] | None = None
        self._answered: Answered | None = None  # for the generator
        self._below: tuple[Iterator[Output], Output | None, Answered | None] | None = None  # interrupted steps
        self._held: Output | None = None  # waits to be handled
        self._waits: str | None = None
        self._tokens: list[tuple[str, TokenKind]] = []  # the rest of a token event
        self._part: tuple[int, Any, Any] = (0, None, None)  # of the last tokens
        self._passed: set[int] = set()  # the parents of which something has been fed since the last reset
        self._has_begun = False
        self._has_ended = False
        tell = self.ref.tell
        self._on_room = partial(tell, _Room())
        inputs.on_news = partial(tell, _GO_ON)
        requests.owner = self.ref
        self._wait, self._deadline, self._expiry = (_PumpTimer(tell, name) for name in ("wait", "deadline", "expiry"))

    @property
    def label(self) -> str:
        """Its name in logs."""
        return f"{self._stage.kind}/{self._stream_id}" if self.name is None else self.name

    def on_receive(self, message: Any) -> None:
        match message:
            case _GoOn():
                self._inputs.heard()
            case _Room():
                if self._waits == "room":
                    self._waits = None
                    self._stage.now = self.runtime.clock.monotonic()
                    self._stage.resumed()
            case _ResetDone(is_done=is_done):
                self._waits = None
                if is_done:
                    self._held, self._part = None, (0, None, None)
            case Answered():
                if self._below is not None:
                    self._below = (*self._below[:2], message)
                elif self._waits == "answer":
                    self._waits, self._held, self._answered = None, None, message
            case Fired(name="wait", generation=generation):
                if generation == self._wait.generation and self._waits == "time":
                    self._waits, self._held = None, None
            case Fired(name="expiry", generation=generation):
                if generation == self._expiry.generation:
                    self._expire()
            case Fired(name="deadline", generation=generation):
                if generation == self._deadline.generation and self._waits == "answer" and self._below is None:
                    self._interrupt()
            case _:
                super().on_receive(message)
                return
        self.go_on()

    # --- one step after the other --------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Do what can be done now."""
        turns = 0
        if not self._has_begun:
            self._has_begun = True
            self._begin_steps(self._stage.begin)
        while self._waits is None:
            if self._steps is None:
                if turns == _TURNS:
                    self.ref.tell(_GO_ON)
                    break
                turns += 1
                if not self._begin_next():
                    break
            item = self._held if self._held is not None else self._next_output()
            if item is _NOTHING:
                self._steps = None
                if self._below is not None:
                    self._return()
                continue
            self._held = item
            if self._act(item):
                self._held = None
        self._set_timers()

    def _begin_next(self) -> bool:
        """Begin with the next event of a parent, or with what is overdue; returns False if there is neither."""
        found = self._inputs.take()
        stage = self._stage
        if found is None:
            if stage.deadline is None or stage.deadline > self.runtime.clock.monotonic():
                return False
            self._begin_steps(stage.overdue)
            return True
        place, event = found
        if isinstance(event, StreamSnapshot):
            self._begin_steps(lambda: self._told_again(event, place))
        elif isinstance(event, StreamReset):
            self._passed.discard(place)
            self._begin_steps(lambda: stage.reset(event, place))
        elif isinstance(event, _TERMINAL):
            self._begin_steps(lambda: stage.end(event, place))
        elif not stage.keeps_text and isinstance(event, (Citation, Logprobs)):
            self._passed.add(place)
            if isinstance(event, Citation):
                spanless = without_span(event)
                self._begin_steps(lambda: stage.feed(spanless, place))
        else:
            self._passed.add(place)
            self._begin_steps(lambda: stage.feed(event, place))
        return True

    def _interrupt(self) -> None:
        """Do what is overdue, while the steps under way wait for an answer."""
        assert self._steps is not None
        self._below = (self._steps, self._held, None)
        self._steps = self._held = self._waits = None
        self._begin_steps(self._stage.overdue)

    def _return(self) -> None:
        """Wait for the answer again, or go on with it if it has come."""
        assert self._below is not None
        self._steps, self._held, answer = self._below
        self._below = None
        if answer is None:
            self._waits = "answer"
        else:
            self._held, self._answered = None, answer

    def _told_again(self, snapshot: StreamSnapshot, place: int) -> Iterator[Output]:
        stage = self._stage
        if place in self._passed:
            reason = "the parent is told again from its start"
            reset = StreamReset(snapshot.stream_id, snapshot.seq, reason, snapshot.timestamp, snapshot.metadata)
            yield from stage.reset(reset, place)
        self._passed.add(place)
        for event in events_of(snapshot):
            if stage.keeps_text or not isinstance(event, Citation):
                yield from stage.feed(event, place)
            else:
                yield from stage.feed(without_span(event), place)

    def _begin_steps(self, call: Callable[[], Iterable[Output]]) -> None:
        self._stage.now = self.runtime.clock.monotonic()
        try:
            self._steps = self._context.run(lambda: iter(call()))
        except Exception as error:
            self._fail(error)

    def _next_output(self) -> Output | Any:
        steps, answer = self._steps, self._answered
        assert steps is not None
        self._stage.now = self.runtime.clock.monotonic()
        self._answered = None
        try:
            if answer is None:
                return self._context.run(next, steps, _NOTHING)
            if answer.error is not None:
                return self._context.run(steps.throw, answer.error)  # type: ignore[attr-defined]
            return self._context.run(steps.send, answer.value)  # type: ignore[attr-defined]
        except StopIteration:
            return _NOTHING
        except Exception as error:
            return self._fail(error)

    def _act(self, item: Output) -> bool:
        """Act on an output; returns False if it has to be handled again, or waits."""
        match item:
            case TokenEvent():
                return self._push_tokens(item)
            case StreamReset(reason=reason, origin=origin):
                self._waits = "reset"
                tell = self.ref.tell
                self._sink.reset(reason, lambda is_done: tell(_ResetDone(is_done)), origin)
                return False
            case StreamCompleted() | StreamFailed() | StreamCancelled():
                self._finish(item)
            case AtOnce(terminal=terminal):
                self._finish(terminal, at_once=True)
            case Wait(until=until):
                if until > self.runtime.clock.monotonic():
                    self._waits = "time"
                    self.runtime.timers.set(self._wait, until)
                    return False
            case Run() | Await() | Open() | Until():
                self._waits = "answer"
                self._request(item)
                return False
            case Start(function=function):
                self._requests.start(function, self._context)
            case Release(place=place):
                self._inputs.release(place)
            case Hold(place=place):
                self._inputs.hold(place)
            case Unhold(place=place):
                self._inputs.resume(place)
            case Annotate(changes=changes):
                self._sink.annotate(changes)
            case _:
                return self._push_event(item)
        return True

    def _request(self, item: Run | Await | Open | Until) -> None:
        match item:
            case Until(listen=listen):
                listen(partial(self.ref.tell, Answered()))
            case Run(function=function):
                self._requests.run(function, self._context)
            case Await(awaitable=awaitable):
                self._requests.await_(awaitable, self._context)
            case Open(factory=factory):
                self._requests.run(lambda: self._adopt(factory()), self._context)

    def _adopt(self, parent: Stream) -> int:
        place = self._inputs.add(parent)
        self._sink.note_parent(parent.stream_id)
        return place

    # --- into the derived stream ---------------------------------------------------------------------------------

    def _push_tokens(self, event: TokenEvent) -> bool:
        tokens, sink = self._tokens, self._sink
        if not tokens:
            if not event.tokens:
                return True
            part = (event.part, event.phase, event.origin)
            if self._has_borders or part != self._part:
                self._part = part
                sink.start_part(*part)
            kind = event.kind
            tokens = self._tokens = [(token, kind) for token in event.tokens]
        try:
            done = sink.push_now(tokens, self._on_room, whole=self._has_borders)
        except StreamClosed:
            self._leave()
        if done == len(tokens):
            self._tokens = []
            return True
        del tokens[:done]
        self._waits = "room"
        return False

    def _push_event(self, event: SideEvent) -> bool:
        if isinstance(event, (Citation, Progress, ToolProgress)):  # the last two are joined while there is no room
            if not self._sink.push_event(event):
                self._leave()
            return True
        try:
            if self._sink.offer_event(event, self._on_room):
                return True
        except StreamClosed:
            self._leave()
        self._waits = "room"
        return False

    # --- the end -------------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        self._stage.now = self.runtime.clock.monotonic()
        try:
            item = self._context.run(self._stage.expired)
        except Exception as error:
            self._fail(error)
        if isinstance(item, AtOnce):
            self._finish(item.terminal, at_once=True)
        elif isinstance(item, _TERMINAL):
            self._finish(item)

    def _fail(self, error: Exception) -> NoReturn:
        """End the stream, as the stage has raised."""
        get_logger(stream_id=self._stream_id).warning(
            "transform_failed", stage=self._stage.kind, error=type(error).__name__
        )
        self._finish(StreamFailed(stream_id="", seq=0, error=TransformError(self._stream_id, self._stage.kind, error)))

    def _finish(self, terminal: TerminalEvent, *, at_once: bool = False) -> NoReturn:
        """End the stream as ``terminal`` says, and this process. The parents are let go of first."""
        self._inputs.close()
        if not self._stage.keeps_text:
            terminal = without_text(terminal)
        self._has_ended = True
        match terminal:
            case StreamCompleted():
                self._sink.end(like=terminal)
            case StreamFailed(error=error):
                if error.__cause__ is not None:
                    clear_frames_later(error.__cause__)
                self._sink.end(copy_of(error), like=terminal, at_once=at_once)
            case StreamCancelled(reason=reason):
                self._sink.cancel(reason)
        self._leave()

    def _leave(self) -> NoReturn:
        self.exit()

    def dispose(self, reason: object) -> None:
        """Let go of the parents, and end the derived stream even if this process was killed. Any thread."""
        super().dispose(reason)
        for timer in (self._wait, self._deadline, self._expiry):
            self.runtime.timers.cancel(timer)
        self._inputs.close()
        self._requests.close()
        if not self._has_ended:
            self._sink.end(StreamCrashed(self._stream_id, (self._stage.kind, reason)))
        self._release_stage()

    def _release_stage(self) -> None:
        """Have the stage let go of what it holds, and count it if it does not within two seconds."""
        stage = self._stage
        rest = stage.close()
        if rest is not None:
            self._requests.start(rest, self._context)
        if not stage.is_closed():
            with contextlib.suppress(SystemStopped):
                self.runtime.timers.set(_LeakTimer(stage, self._requests), self.runtime.clock.monotonic() + _PATIENCE)

    # --- time ----------------------------------------------------------------------------------------------------

    def _set_timers(self) -> None:
        stage = self._stage
        if (self._waits is None and self._steps is None) or (self._waits == "answer" and self._below is None):
            self._set(self._deadline, stage.deadline)
        self._set(self._expiry, stage.expires)

    def _set(self, timer: Timer, when: float | None) -> None:
        if when is None:
            if timer.is_set:
                self.runtime.timers.cancel(timer)
        elif when != timer.when:
            self.runtime.timers.set(timer, when)


def events_of(snapshot: StreamSnapshot) -> list[TokenEvent | SideEvent]:
    """What a snapshot stands for: the parts of the answer, in order, and then the other events."""
    texts: dict[str, str] = {"text": snapshot.text, "reasoning": snapshot.reasoning, "refusal": snapshot.refusal}
    words = [
        TokenEvent(
            snapshot.stream_id,
            snapshot.seq,
            (text,),
            text,
            part.kind,
            snapshot.timestamp,
            snapshot.metadata,
            part=part.index,
            phase=part.phase,
            origin=part.origin,
        )
        for part in snapshot.parts
        if (text := texts[part.kind][part.start : part.end])
    ]
    calls = [ToolCallCompleted(index=index, call=call) for index, call in enumerate(snapshot.tool_calls)]
    return [*words, *calls, *snapshot.tool_results, *snapshot.answer_events, *snapshot.notices]


def without_span(citation: Citation) -> Citation:
    """The citation without its place in a text that has changed."""
    return msgspec.structs.replace(citation, start=None, end=None)


def without_text(terminal: TerminalEvent) -> TerminalEvent:
    """A terminal event without what refers to places in its text, which has changed."""
    citations = tuple(map(without_span, terminal.citations))
    return msgspec.structs.replace(terminal, citations=citations, logprobs=(), provider_blocks=())
