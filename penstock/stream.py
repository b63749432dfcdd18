"""`Stream`: the user's handle of one stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable, Mapping
from os import PathLike
from typing import Any, Literal, Protocol

import pykka

from penstock.actors.runtime.dispatcher import check_process
from penstock.actors.runtime.loop_ticker import running_loop
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.changes import StateChange
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.messages import Cancel, Flush, Pause, Reset, Resume, SetOptions, StopStream
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.sink import StreamSink
from penstock.actors.stream.statistics import StreamStatistics
from penstock.actors.stream.subscribers.callback import CallbackSubscription
from penstock.actors.stream.subscribers.coroutine import CoroutineSubscription, is_async
from penstock.actors.stream.subscribers.polled import StreamReader
from penstock.actors.stream.subscribers.pull import Events, Findings, PullSubscription
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.actors.stream.texts import TextFinder, completion
from penstock.config.checks import check_choice, check_number
from penstock.config.options import OnOrphan, Slow, StreamOptions
from penstock.config.presets import SAFE
from penstock.errors import OptionError, ProcessDead, RunsElsewhere, StreamClosed, SystemStopped
from penstock.events import FrozenDict, StreamCompleted, TokenKind
from penstock.ports import Insights, Sink
from penstock.supervisors.system.asking import ask_until_back
from penstock.supervisors.system.handler import HANDLER, Watch

__all__ = ["Stream"]


class Writable(Protocol):
    """An open file, of text or of bytes; see `Stream.tee`."""

    def write(self, data: Any, /) -> object:
        """Write some."""


_SLOW = ("block", "coalesce", "drop", "disconnect")


class Stream:
    """A running or ended stream. All methods may be called from any thread.

    Iterate it to get its events (``for`` or ``async for``); push into it with `process_token`; command it with
    `pause`, `resume`, `set_options`, `flush_buffer`, `stop`, `cancel`; look at it with `state` and `statistics`. The
    handle holds no resources: dropping it does not end the stream.
    """

    __slots__ = ("_call_timeout", "_push", "_record")

    def __init__(self, record: StreamRecord, call_timeout: float) -> None:
        self._record = record
        self._call_timeout = call_timeout
        self._push = record.intake.push

    @property
    def stream_id(self) -> str:
        """The id, unique among the running streams of the system."""
        return self._record.stream_id

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata that every event carries."""
        return self._record.metadata

    @property
    def options(self) -> StreamOptions:
        """The options in force."""
        return self._record.options

    # --- tokens in -----------------------------------------------------------------------------------------------

    def process_token(self, text: str, timeout: float | None = None) -> None:
        """Push one token.

        If the buffer is full, the option ``overflow`` decides what happens. With ``"block"`` this waits for at most
        ``timeout`` seconds (None: the stream's ``push_timeout``).

        Raises:
            BufferFull: there was no room in time.
            StreamClosed: the stream has ended.
        """
        self._push(text, timeout)

    def process_tokens(self, texts: Iterable[str], timeout: float | None = None) -> None:
        """Push several tokens in order; an empty iterable changes nothing.

        Raises:
            BufferFull: there was no room for all of them in time; ``accepted`` says how many were taken.
            StreamClosed: the stream has ended.
        """
        self._record.intake.push_all(texts, timeout)

    def process_text(self, text: str, timeout: float | None = None) -> None:
        """Push a text of any length, split by the stream's ``tokenizer``; without one, as a single token."""
        tokenizer = self._record.options.tokenizer
        self.process_tokens([text] if tokenizer is None else tokenizer(text), timeout)

    def sink(self) -> Sink:
        """The writing end of the stream for code that must not block, such as an actor or a combinator."""
        return StreamSink(self._record)

    def open_beside(
        self,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        on_orphan: OnOrphan = "cancel",
    ) -> Stream:
        """Open a stream in the same system, to push tokens into that are made of this one's.

        Args:
            stream_id: the new stream's id; None generates one.
            options: None takes the preset `SAFE`: no token waits for a batch or a rate.
            metadata: None takes this stream's.
            on_orphan: as for `System.open_stream`.

        Raises:
            StreamExists, OptionError, SystemStopped: as for `System.open_stream`.
        """
        record = self._record
        home = record.home
        if home is None:
            raise SystemStopped()
        wanted = record.metadata if metadata is None else metadata
        opened = home.open_stream(stream_id, options or SAFE, metadata=wanted, on_orphan=on_orphan)
        return Stream(opened, self._call_timeout)

    # --- other streams made of it --------------------------------------------------------------------------------

    def map(
        self,
        function: Callable[[str], str | Awaitable[str]],
        *,
        unit: Literal["token", "event", "word", "sentence", "line"] = "token",
        kinds: TokenKind | Collection[TokenKind] = "text",
        flush_interval: float | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with ``function(unit)`` in the place of each unit of this one's text; ``""`` drops the unit.

        The units of an event stay one event, and other events keep their place. Citations lose their place in the
        text, and `Logprobs` are left out. The new stream ends as this one does.

        A provider may cut anywhere, even in a word: functions that look for words need ``unit="word"``. Then the text
        is cut anew, with the white space after a word or sentence, and the last unit is held until it is certain where
        it ends: until more text, another event of the answer, the end, or ``flush_interval``. At most 64 code points
        of a word and 4,096 of a sentence or line are held.

        Args:
            function: gets one unit, in order, and runs in a copy of the caller's context (`contextvars`). It may be
                async; then one call is awaited after the other, on the caller's running event loop, else on the
                system's.
            unit: what it gets.
            kinds: the kinds of text that it gets; the others pass unchanged.
            flush_interval: seconds, 0.001 … 3600, after which a held unit counts as complete; None: it is held.
            stream_id: of the new stream; None generates one.
            options: of the new stream; None takes the preset `SAFE`: nothing waits for a batch or a rate.

        If ``function`` raises, the new stream ends with `StreamFailed` and `TransformError`, after what was made
        before, and lets go of this one.

        Raises:
            OptionError: an argument is not allowed.
            StreamExists, SystemStopped: as for `System.open_stream`.
        """
        from penstock.toolbox.mapping import Map
        from penstock.toolbox.pump import derive

        stage = Map(function, unit, kinds, flush_interval)
        return derive(stage, [self], stream_id=stream_id, options=options)

    def filter(
        self,
        function: Callable[[str], object],
        *,
        unit: Literal["token", "event", "word", "sentence", "line"] = "token",
        kinds: TokenKind | Collection[TokenKind] = "text",
        flush_interval: float | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the units for which ``function(unit)`` is true. Everything else is as for `map`.

        An event of which nothing is left is not sent.
        """
        from penstock.toolbox.mapping import Filter
        from penstock.toolbox.pump import derive

        stage = Filter(function, unit, kinds, flush_interval)
        return derive(stage, [self], stream_id=stream_id, options=options)

    def flat_map(
        self,
        function: Callable[[str], Iterable[str] | Awaitable[Iterable[str]] | AsyncIterable[str]],
        *,
        unit: Literal["token", "event", "word", "sentence", "line"] = "token",
        kinds: TokenKind | Collection[TokenKind] = "text",
        flush_interval: float | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the texts that ``function(unit)`` returns or yields, none or several.

        Everything else is as for `map`. A text that is returned alone counts as one. What a generator yields is
        taken while the new stream has room, at most 100 tokens an event; an async generator is read to its end first.
        """
        from penstock.toolbox.mapping import FlatMap
        from penstock.toolbox.pump import derive

        stage = FlatMap(function, unit, kinds, flush_interval)
        return derive(stage, [self], stream_id=stream_id, options=options)

    def throttle(
        self,
        rate: float,
        per: Literal["token", "character"] = "token",
        *,
        burst: int | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the same events, not faster than ``rate`` tokens or characters a second.

        Nothing is dropped: this stream, and what feeds it, wait. Text of all kinds counts; other events and the end
        keep their place and are not counted.

        Args:
            rate: per second, 0.001 … 1e9.
            per: ``"character"`` counts code points, and divides tokens, but never a character as a reader sees it.
            burst: how much may go out at once, also at the start; None is a tenth of ``rate``, at least 1.
            stream_id: as for `map`.
            options: as for `map`.

        Raises:
            OptionError, StreamExists, SystemStopped: as for `map`.
        """
        from penstock.toolbox.pump import derive
        from penstock.toolbox.throttle import Throttle

        return derive(Throttle(rate, per, burst), [self], stream_id=stream_id, options=options)

    def take(
        self,
        tokens: int | None = None,
        *,
        characters: int | None = None,
        seconds: float | None = None,
        kinds: TokenKind | Collection[TokenKind] | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the beginning of this one, up to the first limit that is reached.

        It then ends with `StreamCompleted` and the finish reason ``"taken"``, and lets go of this one: a provider's
        call is closed if nothing else reads it (``on_orphan``). If this one ends first, it ends as this one does.
        ``usage`` is what is known so far, an estimate; a call that was not complete has ``arguments=None``.

        Args:
            tokens: at most so many; an event is cut. 0 completes at once.
            characters: at most so many code points. The text ends between two characters as a reader sees them, so it
                may be shorter. The last of them is held until it is certain that nothing belongs to it any more.
            seconds: from now, 0 … a year.
            kinds: the kinds of text that count; the others pass. None counts all.
            stream_id: as for `map`.
            options: as for `map`.

        After a `StreamReset`, tokens and characters are counted anew.

        Raises:
            OptionError: no limit is given, or an argument is not allowed.
            StreamExists, SystemStopped: as for `map`.
        """
        from penstock.toolbox.pump import derive
        from penstock.toolbox.taking import Take

        stage = Take(tokens, characters, seconds, kinds, lambda: self.statistics().usage)
        return derive(stage, [self], stream_id=stream_id, options=options)

    def with_timeout(
        self,
        total: float | None = None,
        idle: float | None = None,
        *,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the same events, that fails with `StreamTimeout` if this one takes too long.

        Args:
            total: seconds, 0.001 … 86,400, from now to the end, whatever it waits for; a pause and a slow reader count.
                What is still buffered is then only in ``partial``.
            idle: seconds, 0.001 … 86,400, from each event of this stream to the next. It does not run while the new
                stream is full because its own reader is slow.
            stream_id: as for `map`.
            options: as for `map`.

        Raises:
            OptionError: no limit is given, or an argument is not allowed.
            StreamExists, SystemStopped: as for `map`.
        """
        from penstock.toolbox.pump import derive
        from penstock.toolbox.timeouts import WithTimeout

        stage = WithTimeout(total, idle, lambda: self.statistics().usage)
        return derive(stage, [self], stream_id=stream_id, options=options)

    def tee(
        self,
        target: str | bytes | PathLike[str] | PathLike[bytes] | Writable | Callable[[str], object],
        *,
        mode: Literal["text", "jsonl"] = "text",
        kinds: TokenKind | Collection[TokenKind] = "text",
        on_error: Literal["fail", "detach"] = "fail",
        flush_every: int = 1,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Open a stream with the same events, each of which is first written to ``target``.

        A path is opened now, as ``PATH.partial``. When this stream has completed, the file is synchronised with the
        disk and renamed to ``PATH``. If this stream fails or is cancelled, or the new one is, it stays
        ``PATH.partial``, whole up to the last flush. A slow disk makes this stream wait; no thread of the dispatcher
        writes.

        Args:
            target: a path; an open file, of text or bytes, which is neither closed nor renamed; or a function of one
                text, async or not.
            mode: ``"text"`` writes the text, in UTF-8 and with the line ends it has; after a `StreamReset` the text
                begins anew (a function is not told; a file must be seekable). ``"jsonl"`` writes each event as
                `to_dict` gives it, one a line; resets, other events and the end too.
            kinds: the kinds of text that are written; all of them pass.
            on_error: when writing fails, ``"fail"`` ends the new stream with `StreamFailed` and `TeeError`;
                ``"detach"`` goes on without the copy, and counts ``tee_errors`` in `statistics`.
            flush_every: how many events are written together, 1 … 100,000.
            stream_id: as for `map`.
            options: as for `map`.

        Raises:
            OSError: the path cannot be opened.
            OptionError: another tee is writing to that path, or an argument is not allowed.
            StreamExists, SystemStopped: as for `map`.
        """
        from penstock.toolbox.tee import tee

        return tee(
            self,
            target,
            mode=mode,
            kinds=kinds,
            on_error=on_error,
            flush_every=flush_every,
            stream_id=stream_id,
            options=options,
        )

    def insights(
        self,
        *,
        on_loop: Literal["report", "cancel"] = "report",
        min_repeats: int = 8,
        min_characters: int | None = None,
        arguments: bool = False,
    ) -> Insights:
        """Watch the stream: count and measure its text, and notice stalls and loops. Ends with the stream.

        It reads for itself, is never waited for, and does not count as a subscriber. A stall (no token for 2 s, or 8
        times the 95th percentile of the time between tokens, if that is longer; not while a tool runs or tokens are
        held in the stream) is told by a `StallDetected` event in this stream; text that repeats itself, 4 times and
        over 200 characters with a period of up to 400, by a `LoopDetected`. Only equal characters count, so
        numbered lists are none.

        Args:
            on_loop: ``"cancel"`` ends the stream with `StreamFailed` and `RunawayAnswer` if the text, or the reasoning,
                repeats itself at least ``min_repeats`` times over ``min_characters``, and closes a provider's call.
                Text that is meant to repeat, such as a thousand zeros, ends it too.
            min_repeats: 4 … 1,000,000.
            min_characters: 200 … 1,000,000,000; None is 1,000, and 3,000 in a code block.
            arguments: whether the arguments of calls are searched for loops too. They never end a stream.

        Raises:
            OptionError: an argument is not allowed.
        """
        from penstock.toolbox.insights import watch

        return watch(self, on_loop=on_loop, min_repeats=min_repeats, min_characters=min_characters, arguments=arguments)

    # --- commands ------------------------------------------------------------------------------------------------

    def flush_buffer(self, *, force: bool = True, timeout: float | None = None) -> int:
        """Emit what is buffered now; returns the number of tokens that were emitted.

        With ``force=False``, a pause, the rate limit and slow ``block`` subscribers still apply.
        """
        count: int = self._ask(Flush(force), timeout)
        return count

    def pause(self, timeout: float | None = None) -> None:
        """Emit nothing until `resume`. What is pushed meanwhile is buffered."""
        self._ask(Pause(), timeout)

    def resume(self, timeout: float | None = None) -> None:
        """Continue after `pause`. Harmless if the stream is not paused."""
        self._ask(Resume(), timeout)

    def set_options(self, *, timeout: float | None = None, **changes: Any) -> None:
        """Change options of the running stream, in any state.

        Raises:
            OptionError: a name or value is not allowed; nothing is changed.
        """
        self._ask(SetOptions(changes), timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Flush, then end with `StreamCompleted`. Returns when that is done; harmless if the stream has ended."""
        self._ask_ended(StopStream(), timeout)

    def cancel(self, reason: str | None = None, timeout: float | None = None) -> None:
        """End now with `StreamCancelled`, and close the provider's connection. Harmless if the stream has ended."""
        self._ask_ended(Cancel(reason), timeout)

    async def acancel(self, reason: str | None = None, timeout: float | None = None) -> None:
        """The same as `cancel`, without blocking the event loop. It is cancelled even if the awaiting task is.

        Raises:
            CallTimeout: it has not ended within ``timeout`` seconds (default: the setting ``call_timeout``).
        """
        record = self._record
        check_process(record.runtime.dispatcher)
        check_number("timeout", timeout, 0, 86_400, optional=True)
        running_loop()
        record.propose(Cancel(reason))
        await record.over.aget(self._call_timeout if timeout is None else timeout)

    # --- inspection ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``idle``, ``buffering``, ``streaming``, ``rate_limited``, ``paused``, ``error`` or ``ended``."""
        return self._record.state

    def get_state(self) -> str:
        """The same as `state`."""
        return self._record.state

    def statistics(self) -> StreamStatistics:
        """The counters of the stream. Never blocks on its actor."""
        check_process(self._record.runtime.dispatcher)
        return self._record.statistics()

    get_statistics = statistics

    def state_changes(self) -> tuple[StateChange, ...]:
        """The last 64 changes of its state, oldest first, with the event that caused each. Never blocks."""
        check_process(self._record.runtime.dispatcher)
        return self._record.state_changes()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended."""
        return self._record.is_over

    @property
    def text(self) -> str:
        """The text of all events so far. Tokens that are still buffered are not part of it."""
        return self._record.log.text()

    # --- events out ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Events:
        return self.events()

    def __aiter__(self) -> Events:
        return self.events()

    def events(self, after: int = 0, *, slow: Slow = "coalesce", window: int = 16) -> Events:
        """An iterator over the events with a ``seq`` greater than ``after``; it ends after the terminal event.

        It counts as a subscriber until it ends, is closed or is dropped. ``slow`` decides what happens when more than
        ``window`` new events wait for it. Events from before it was made are delivered one by one.
        """
        return Events(self._pull(after, slow, window))

    def aevents(self, after: int = 0, *, slow: Slow = "coalesce", window: int = 16) -> Events:
        """The same as `events`, for ``async for``; it waits without blocking the event loop."""
        return self.events(after, slow=slow, window=window)

    def texts(self) -> Iterable[str]:
        """The answer's text alone, piece by piece, for ``for``; it ends when the stream has completed.

        Each iteration counts as a subscriber, as `events` does. Other kinds of text and other events are left out.
        After a `StreamReset` the pieces of the new answer follow; to notice it, read `events`.

        The iteration raises a `PenstockError` if the stream failed or was cancelled, as `result` does.
        """
        return _Texts(self)

    def atexts(self) -> AsyncIterable[str]:
        """The same as `texts`, for ``async for``; it waits without blocking the event loop."""
        return _Texts(self)

    def subscribe(
        self,
        target: pykka.ActorRef[Any] | Callable[[Any], object],
        slow: Slow = "block",
        *,
        after: int = 0,
        window: int = 64,
    ) -> Subscription:
        """Send the events to an actor (any Pykka actor), or call a function with each, in a small process of its own.

        A target that is subscribed already keeps its subscription, and gets each event once. An actor that dies, or a
        function that raises, is unsubscribed.

        An async function is awaited for one event after the other on the caller's running event loop, or without one
        on the system's own. `unsubscribe` cancels the call that runs, unless that call uses it. When the loop ends, the
        function is unsubscribed, with a warning in the log.

        Args:
            target: the actor's ref, or a function of one argument, async or not, which runs in a copy of the caller's
                context (`contextvars`).
            slow: what happens when more than ``window`` events wait for it.
            after: send events with a greater ``seq``; 0 sends all.
            window: 1 … 1,000,000.

        Raises:
            OptionError: the target is neither an actor nor a function, or another argument is not allowed.
            ProcessDead: the actor is dead.
        """
        record = self._record
        check_process(record.runtime.dispatcher)
        cursor = self._cursor(after, slow, window)
        known = record.hub.find(target)
        if known is not None:
            return known
        subscription = self._subscription(target, cursor)
        counts = record.hub.add(subscription)
        if counts is not subscription:  # another thread was faster
            subscription.unsubscribe()
            return counts
        if isinstance(subscription, CoroutineSubscription):
            subscription.begin()
            return subscription
        # After `add`: a handler that is being restarted misses this message, and finds the subscription in the hub.
        handler = record.runtime.whereis(HANDLER)
        if handler is not None:
            handler.tell(Watch(subscription))
        subscription.wake()
        return subscription

    def _subscription(
        self, target: pykka.ActorRef[Any] | Callable[[Any], object], cursor: Cursor
    ) -> PushSubscription | CoroutineSubscription:
        record = self._record
        if isinstance(target, pykka.ActorRef):
            if not target.is_alive():
                raise ProcessDead(str(target))
            return PushSubscription(record.hub, cursor, target, target)
        if is_async(target):
            return CoroutineSubscription(record.hub, cursor, target, record.runtime.dispatcher, self._loop())
        if callable(target) and not isinstance(target, type):
            return CallbackSubscription(record.hub, cursor, target, record.runtime)
        raise OptionError("target", type(target).__name__, "a pykka.ActorRef or a function of one argument")

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The caller's event loop, or the system's."""
        loop, own = asyncio._get_running_loop(), self._record.loop_thread
        if loop is not None:
            return loop
        if own is None:
            raise OptionError("target", "an async function", "an async function where an event loop runs")
        try:
            return own.start()
        except RuntimeError:
            raise SystemStopped() from None

    def reader(
        self,
        on_news: Callable[[], None],
        *,
        after: int = 0,
        slow: Slow = "block",
        window: int = 4,
        counts: bool = True,
    ) -> StreamReader:
        """Subscribe code that must not block, such as a combinator: it takes the events when it wants them.

        Args:
            on_news: called once after each `StreamReader.take` that returned None, when it is worth taking again. Any
                thread; it may do no more than send a message.
            after: take the events with a greater ``seq``; 0 takes all.
            slow: what happens when more than ``window`` events wait.
            window: 1 … 1,000,000.
            counts: whether it counts as a subscriber; else the stream's ``on_orphan`` does not wait for it.

        Raises:
            OptionError: an argument is not allowed.
        """
        record = self._record
        check_process(record.runtime.dispatcher)
        found = StreamReader(record.hub, self._cursor(after, slow, window), on_news, counts=counts)
        record.hub.add(found)
        return found

    def unsubscribe(self, target: pykka.ActorRef[Any] | Callable[[Any], object]) -> None:
        """Undo `subscribe`. Harmless if the target is not subscribed."""
        check_process(self._record.runtime.dispatcher)
        known = self._record.hub.find(target)
        if known is not None:
            known.unsubscribe()

    def result(self, timeout: float | None = None) -> StreamCompleted:
        """Wait for the end and return the `StreamCompleted` event.

        This does not count as a subscriber: if the last one leaves while you wait, ``on_orphan`` still applies.

        Raises:
            PenstockError: the stream failed; its error, with the text so far as ``partial``.
            StreamCancelledError: the stream was cancelled.
            CallTimeout: it has not ended within ``timeout`` seconds (None waits without limit). It keeps running.
        """
        self._record.over.get(timeout=timeout)
        return self._value()

    async def aresult(self, timeout: float | None = None) -> StreamCompleted:
        """The same as `result`, without blocking the event loop."""
        check_number("timeout", timeout, 0, 86_400, optional=True)
        await self._record.over.aget(timeout)
        return self._value()

    def _value(self) -> StreamCompleted:
        terminal = self._record.log.terminal
        assert terminal is not None
        return completion(terminal)

    def reset(self, reason: str, timeout: float | None = None) -> None:
        """Void the answer so far: subscribers get a `StreamReset`, and what is buffered is discarded.

        Raises:
            StreamClosed: the stream has ended.
        """
        self._ask(Reset(reason), timeout)

    def update_metadata(self, changes: Mapping[str, Any]) -> None:
        """Add to the metadata that events carry from now on.

        Raises:
            RunsElsewhere: another node runs the stream.
        """
        if self._record.remote is not None:
            raise RunsElsewhere(self.stream_id, "changing its metadata")
        check_process(self._record.runtime.dispatcher)
        self._record.metadata = FrozenDict({**self._record.metadata, **changes})
        self._record.keep(metadata=self._record.metadata)

    # --- within --------------------------------------------------------------------------------------------------

    def _pull(self, after: int = 0, slow: Slow = "coalesce", window: int = 16) -> PullSubscription:
        check_process(self._record.runtime.dispatcher)
        cursor = self._cursor(after, slow, window)
        subscription = PullSubscription(self._record.hub, cursor, self._record.runtime.dispatcher)
        self._record.hub.add(subscription)
        subscription.wake()
        return subscription

    def _cursor(self, after: int, slow: Slow, window: int) -> Cursor:
        check_number("after", after, 0, 1 << 62, whole=True)
        check_number("window", window, 1, 1_000_000, whole=True)
        check_choice("slow", slow, _SLOW)
        return Cursor(self._record.log, after, slow, window)

    def _ask_ended(self, message: Any, timeout: float | None) -> None:
        with contextlib.suppress(StreamClosed):
            self._ask(message, timeout)

    def _ask(self, message: Any, timeout: float | None) -> Any:
        """Ask the stream's actor; if it is being restarted, ask its successor."""
        record = self._record
        check_process(record.runtime.dispatcher)
        check_number("timeout", timeout, 0, 1e9, optional=True)

        def find() -> ProcessRef:
            ref = record.ref
            if record.is_over or ref is None:
                raise StreamClosed(self.stream_id)
            return ref

        limit = self._call_timeout if timeout is None else timeout
        remote = record.remote
        if remote is not None:
            if record.is_over:
                raise StreamClosed(self.stream_id)
            return remote.ask(message, limit)
        return ask_until_back(record.runtime, find, message, limit, f"stream {self.stream_id!r}")

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id!r}, {self.state}>"


def wait_or_cancel(stream: Stream, timeout: float | None) -> StreamCompleted:
    """Wait for the result, and cancel the stream if the wait ends without one: a time-out, Ctrl-C."""
    try:
        return stream.result(timeout)
    except BaseException:
        _cancel_unwanted(stream)
        raise


async def await_or_cancel(stream: Stream, timeout: float | None) -> StreamCompleted:
    """The same as `wait_or_cancel`, without blocking the event loop; also if the task is cancelled."""
    try:
        return await stream.aresult(timeout)
    except BaseException:
        _cancel_unwanted(stream)
        raise


def _cancel_unwanted(stream: Stream) -> None:
    stream._record.propose(Cancel("the caller stopped waiting"))


class _Texts(Iterable[str], AsyncIterable[str]):
    """What `Stream.texts` returns.

    It is no iterator, so that a response which was made of it, and which a traceback keeps, does not count as a
    subscriber after its iteration has ended.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Findings[str]:
        return Findings(self._stream._pull, TextFinder().find)

    def __aiter__(self) -> Findings[str]:
        return Findings(self._stream._pull, TextFinder().find)
