"""Connects streams to existing event callbacks, to foreign event systems, and to other streams."""

from __future__ import annotations

import contextvars
import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from penstock.actors.runtime.process import Process, SystemMessage
from penstock.actors.runtime.signals import SHUTDOWN, is_clean
from penstock.config.logs import get_logger
from penstock.config.options import StreamOptions
from penstock.errors import OptionError, PenstockError, StreamClosed, StreamCrashed, StreamError
from penstock.events import (
    AnswerEvent,
    Citation,
    Logprobs,
    Phase,
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
)
from penstock.ports import Sink
from penstock.stream import Stream
from penstock.system import System

__all__ = ["Extract", "chain", "tokens_of", "wrap_existing_handler"]

R = TypeVar("R")

Extract: TypeAlias = Callable[[Any], Iterable[str] | tuple[Iterable[str], Mapping[str, Any]]]
"""Returns the tokens of a foreign event, or a pair of tokens and metadata for the stream's events from then on."""


def wrap_existing_handler(
    handler: Callable[[Any], R], stream: Stream, extract: Extract | None = None
) -> Callable[[Any], R]:
    """Wrap an existing event callback so that it also feeds a stream.

    The stream gets the tokens first. Then ``handler`` is called, and the wrapper returns or raises what it does. The
    handler is called even if the stream has ended, or is full for longer than its ``push_timeout``, or ``extract``
    raises, which is logged.

    Args:
        handler: the existing callback.
        stream: gets the tokens.
        extract: finds the tokens of an event; None takes `tokens_of`.

    >>> with System() as system:
    ...     stream = system.open_stream()
    ...     handle = wrap_existing_handler(lambda event: len(event), stream)
    ...     handle("Hello")
    ...     stream.stop()
    ...     stream.text
    5
    'Hello'
    """
    _check(handler=handler, stream=stream)
    find = extract or tokens_of

    def wrapped(event: Any) -> R:
        try:
            _feed(stream, find(event))
        except StreamError:
            pass  # the handler must work without the stream
        except Exception as error:  # and without the result of `extract`
            get_logger(stream_id=stream.stream_id).warning("extract_failed", error=type(error).__name__)
        return handler(event)

    return functools.update_wrapper(wrapped, handler)


def _feed(stream: Stream, found: Iterable[str] | tuple[Iterable[str], Mapping[str, Any]]) -> None:
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        tokens, metadata = found
        stream.update_metadata(metadata)
        stream.process_tokens(tokens)
    else:
        stream.process_tokens(found)


def tokens_of(event: Any) -> list[str]:
    """The tokens of a common event: a text, a `TokenEvent`, or an OpenAI chat chunk (object or dict).

    >>> tokens_of({"choices": [{"delta": {"content": "Hi"}}]})
    ['Hi']
    """
    if isinstance(event, str):
        return [event]
    if isinstance(event, TokenEvent):
        return list(event.tokens)
    choices = _get(event, "choices")
    if isinstance(choices, (list, tuple)) and choices:
        content = _get(_get(choices[0], "delta"), "content")
        if isinstance(content, str) and content:
            return [content]
    return []


def _get(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def chain(
    system: System,
    stream: Stream,
    transform: Callable[[TokenEvent], Iterable[str]],
    *,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
) -> Stream:
    """Open a stream whose tokens are ``transform`` of another stream's token events.

    The other events are passed on, in order, with the new stream's numbers: citations without their place in the text,
    and no `Logprobs`, since the transform changes the text. What the old stream no longer has one by one comes as one
    token event for each part, and then the other events (see `StreamSnapshot`). Backpressure is passed on too: while
    the new stream is full, the old one waits, and so on up to the provider. The new stream ends as the old one does,
    after emitting what it has buffered, with the same finish reason, usage and calls, or the same error. It is reset
    when the old one is. If ``transform`` raises, the new stream fails with `StreamCrashed`; its cause is the
    exception. If the new stream ends first, it unsubscribes from the old one at once. ``transform`` runs in a copy of
    the caller's context (`contextvars`).
    """
    _check(transform=transform, stream=stream)
    target = system.open_stream(stream_id, options, metadata=stream.metadata, on_orphan="cancel")
    target._record.is_turn = stream._record.is_turn
    runtime = system.runtime
    relay = target._record.feeder = runtime.spawn(
        _Relay, target.stream_id, target.sink(), transform, contextvars.copy_context()
    )
    subscription = stream.subscribe(relay, slow="block", window=1)

    def release() -> None:
        subscription.unsubscribe()
        runtime.exit(relay, SHUTDOWN)

    target._record.over.when_done(release)
    return target


def _check(*, stream: object, **functions: object) -> None:
    if not isinstance(stream, Stream):
        raise OptionError("stream", type(stream), "a Stream")
    for name, function in functions.items():
        if not callable(function):
            raise OptionError(name, type(function), "a function of one argument")


class _PartStart(msgspec.Struct, frozen=True):
    """The next tokens belong to another part."""

    part: int
    phase: Phase | None


class _Reset(msgspec.Struct, frozen=True):
    """What came before is void."""

    reason: str


_Item: TypeAlias = list[tuple[str, TokenKind]] | SideEvent | _PartStart | _Reset


class _Relay(Process):
    """Passes events from one stream to the sink of another. It never blocks: without room it is suspended.

    While it is suspended it does not even acknowledge its last event, so the first stream waits.
    """

    in_pykka_registry = False

    def __init__(
        self,
        stream_id: str,
        sink: Sink,
        transform: Callable[[TokenEvent], Iterable[str]],
        context: contextvars.Context,
    ) -> None:
        super().__init__()
        self._stream_id = stream_id
        self._sink = sink
        self._transform = transform
        self._context = context
        self._waiting: deque[_Item] = deque()  # what there is no room for yet
        self._part: tuple[int, Phase | None] = (0, None)  # of the last tokens
        self._has_passed = False  # something on since the start or the last reset
        self._is_asked = False  # the reset is under way

    @property
    def label(self) -> str:
        """Its name in logs."""
        return f"relay-{self.actor_urn[9:17]}"

    def on_receive(self, message: Any) -> None:
        match message:
            case StreamSnapshot():
                if self._has_passed:
                    self._reset("the chained stream is told again from its start")
                for one in _events_of(message):
                    self._take(one)
            case StreamReset(reason=reason):
                self._reset(reason)
            case StreamCompleted():
                self._sink.end(like=_without_text(message))
            case StreamFailed(error=error):
                self._sink.end(_copy(error), like=_without_text(message))
            case StreamCancelled(reason=reason):
                self._sink.cancel(reason)
            case _ if isinstance(message, (TokenEvent, SideEvent)):
                self._take(message)
            case _:
                return
        self.go_on()

    def dispose(self, reason: object) -> None:
        """End the target, as nothing feeds it any more, even if this process was killed. Any thread."""
        super().dispose(reason)
        if not is_clean(reason):
            self._sink.end(StreamCrashed(self._stream_id, ("relay", reason)))

    def _reset(self, reason: str) -> None:
        self._waiting.append(_Reset(reason))
        self._part, self._has_passed = (0, None), False

    def _take(self, event: TokenEvent | SideEvent) -> None:
        self._has_passed = True
        if isinstance(event, TokenEvent):
            self._take_tokens(event)
        elif isinstance(event, Citation):
            self._waiting.append(_without_span(event))
        elif not isinstance(event, Logprobs):  # they are of the text before the transform
            self._waiting.append(event)

    def _take_tokens(self, event: TokenEvent) -> None:
        if (event.part, event.phase) != self._part:
            self._part = (event.part, event.phase)
            self._waiting.append(_PartStart(*self._part))
        try:
            tokens = self._context.run(self._transformed, event)
        except Exception as error:
            get_logger(stream_id=self._stream_id).warning("transform_failed", error=type(error).__name__)
            failure = StreamCrashed(self._stream_id, ("transform", error))
            failure.__cause__ = error
            self._sink.end(failure)
            self.exit()
        if tokens:
            self._waiting.append(tokens)

    def _transformed(self, event: TokenEvent) -> list[tuple[str, TokenKind]]:
        return [(str(token), "text") for token in self._transform(event)]

    def go_on(self) -> None:
        """Push what waits, in order, until there is no room for something."""
        waiting = self._waiting
        try:
            while waiting and self._push(waiting[0]):
                waiting.popleft()
        except StreamClosed:
            waiting.clear()  # the target has ended, and unsubscribes this process
        if waiting:
            self.suspend()
        else:
            self.resume()

    def _push(self, item: _Item) -> bool:
        """Push one item; returns False if (a part of) it must wait.

        Raises:
            StreamClosed: the target has ended.
        """
        tell = self.ref.tell
        match item:
            case list():
                del item[: self._sink.push_now(item, lambda: tell(_GO_ON))]
                return not item
            case _PartStart(part=part, phase=phase):
                self._sink.start_part(part, phase)
            case _Reset(reason=reason):
                if not self._is_asked:
                    self._is_asked = True
                    self._sink.reset(reason, lambda is_done: tell(_ResetDone(is_done)))
                return False
            case _ if isinstance(item, AnswerEvent):
                return self._sink.offer_event(item, lambda: tell(_GO_ON))
            case _:
                self._sink.push_event(item)
        return True

    def reset_done(self, is_done: bool) -> None:
        """Continue after the reset, or ask for it again if the target's actor crashed meanwhile."""
        self._is_asked = False
        if is_done:
            self._waiting.popleft()
        self.go_on()


class _GoOn(SystemMessage):
    """There is room in the target."""

    __slots__ = ()

    def apply(self, process: Process) -> None:
        assert isinstance(process, _Relay)
        process.go_on()


class _ResetDone(SystemMessage):
    """The target has answered the reset."""

    __slots__ = ("is_done",)

    def __init__(self, is_done: bool) -> None:
        self.is_done = is_done

    def apply(self, process: Process) -> None:
        assert isinstance(process, _Relay)
        process.reset_done(self.is_done)


_GO_ON: Final = _GoOn()


def _events_of(snapshot: StreamSnapshot) -> list[TokenEvent | SideEvent]:
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
        )
        for part in snapshot.parts
        if (text := texts[part.kind][part.start : part.end])
    ]
    calls = [ToolCallCompleted(index=index, call=call) for index, call in enumerate(snapshot.tool_calls)]
    return [*words, *calls, *snapshot.tool_results, *snapshot.answer_events]


def _without_span(citation: Citation) -> Citation:
    return msgspec.structs.replace(citation, start=None, end=None)


def _without_text(terminal: TerminalEvent) -> TerminalEvent:
    """A terminal event without what refers to places in its text, which the transform has changed."""
    citations = tuple(map(_without_span, terminal.citations))
    return msgspec.structs.replace(terminal, citations=citations, logprobs=(), provider_blocks=())


def _copy(error: PenstockError) -> PenstockError:
    """The same error for another stream, which has a ``partial`` of its own."""
    copy: PenstockError = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
