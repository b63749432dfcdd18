"""What combinators share that make streams themselves: factories, and the attempts that they have made."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from penstock.actors.call.record import CallRecord
from penstock.actors.stream.outcome import add_usages
from penstock.actors.stream.record import StreamRecord
from penstock.errors import OptionError, PenstockError, SourceError, StreamCancelledError
from penstock.errors.base import copy_of
from penstock.events import (
    Citation,
    Logprobs,
    LoopDetected,
    OriginEnded,
    Progress,
    ProviderEvent,
    SideEvent,
    StallDetected,
    StreamCompleted,
    StreamFailed,
    StreamStarted,
    TerminalEvent,
    TokenEvent,
    Usage,
)
from penstock.services import Services, as_attempt
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Await, Open, Release, Stage, Steps

__all__ = ["Attempts", "Factory", "Maker", "Try", "calls_of", "chained", "is_content", "is_fleeting", "open_first"]

Factory: TypeAlias = Callable[..., Stream] | Callable[..., Awaitable[Stream]]
"""Returns a new stream each time. It may block, or be async. If it takes one argument, it gets the attempt's number,
from 1."""

_GIVEN_UP: Final = "what it was made for has ended"
_ABOUT: Final = (
    *(StreamStarted, ProviderEvent, Citation, Logprobs),
    *(Progress, StallDetected, LoopDetected, OriginEnded),
)


def is_content(event: TokenEvent | SideEvent) -> bool:
    """Whether an event begins an answer: text of any kind, a call, a result, a picture; not what is said about it.

    >>> is_content(TokenEvent("s", 1, ("a",), "a", "reasoning", 0.0, {})), is_content(Progress(message="50 %"))
    (True, False)
    """
    return bool(event.tokens) if isinstance(event, TokenEvent) else not isinstance(event, _ABOUT)


def is_fleeting(event: TokenEvent | SideEvent) -> bool:
    """Whether an event matters only at its time."""
    return isinstance(event, (Progress, StallDetected))


class Maker:
    """Calls a factory for one attempt.

    Args:
        factory: what the user gave.
        number: of the attempt, from 1.
        may_retry: whether the attempt's calls keep their own retries.

    Raises:
        OptionError: the factory is no function, or needs more than one argument.
    """

    def __init__(self, factory: Factory, number: int = 1, *, may_retry: bool) -> None:
        self._call: Callable[[], Any] = factory if _wanted(factory) == 0 else partial(factory, number)
        self._may_retry = may_retry

    def __call__(self, *, is_further: bool = True) -> Stream:
        """Call it. May block.

        Raises:
            NotYet: it is async.
            OptionError: it returned something else.
            Exception: what it raised.
        """
        with as_attempt(may_retry=self._may_retry, is_further=is_further):
            return _checked(self._call())

    async def awaited(self, made: Awaitable[Any]) -> Stream:
        """Await what an async factory returned."""
        with as_attempt(may_retry=self._may_retry):
            return _checked(await made)


class NotYet(Exception):
    """A factory has returned an awaitable."""

    def __init__(self, made: Awaitable[Any]) -> None:
        self.made = made


def _checked(made: object) -> Stream:
    if inspect.isawaitable(made):
        raise NotYet(made)
    if not isinstance(made, Stream):
        raise OptionError("factory", type(made), "a function that returns a Stream")
    return made


def _wanted(factory: Factory) -> int:
    if not callable(factory) or isinstance(factory, Stream):
        raise OptionError("factory", type(factory), "a function that returns a new Stream")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a function of C
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one for one in parameters if one.kind in positional and one.default is one.empty]
    if len(needed) > 1:
        raise OptionError("factory", factory, "a function of no argument, or of the attempt's number")
    return len(needed)


class Try:
    """A stream that a combinator has made, or has failed to make."""

    __slots__ = ("began", "error", "events", "has_content", "is_full", "number", "place", "size", "stream", "terminal")

    def __init__(self, number: int, began: float) -> None:
        self.number = number
        self.began = began  # monotonic
        self.stream: Stream | None = None
        self.place: int | None = None
        self.terminal: TerminalEvent | None = None
        self.error: PenstockError | None = None  # why it has not completed
        self.events: list[TokenEvent | SideEvent] = []  # not shown yet
        self.has_content = False
        self.size = 0  # tokens and other events, where they are counted
        self.is_full = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.terminal is not None or self.error is not None

    @property
    def has_completed(self) -> bool:
        """Whether it ended well."""
        return isinstance(self.terminal, StreamCompleted)

    def ended(self, terminal: TerminalEvent) -> None:
        """Note its end."""
        self.terminal = terminal
        if isinstance(terminal, StreamFailed):
            self.error = terminal.error
        elif not isinstance(terminal, StreamCompleted):
            self.error = StreamCancelledError(terminal.stream_id, terminal.reason, terminal.partial)

    def usage(self) -> Usage | None:
        """What it has used: as reported, else an estimate; of a request that the provider refused, None."""
        if self.stream is None:
            return None
        statistics = self.stream.statistics()
        used = statistics.spent or statistics.usage
        if used is None and self.terminal is None:  # it was let go of before it had an answer
            estimates = [call.bill(None, is_over=False)[0] for call in calls_of(self.stream) if call.attempts]
            return add_usages(estimates)
        return used


class Attempts(Stage):
    """Base class of the stages that make their parents themselves."""

    def __init__(self) -> None:
        self.attempts: list[Try] = []  # in the order in which they were made
        self._by_place: dict[int, Try] = {}
        self._first: Stream | None = None
        self._spent: tuple[Usage | None] | None = None  # once it is closed

    def take_first(self, stream: Stream) -> None:
        """Note that the first attempt was made before the stage began; it is at place 0."""
        self._first = stream

    def make(self, maker: Maker) -> Generator[Any, Any, Try]:
        """Make one more attempt. If that fails, the attempt has an ``error``."""
        attempt = Try(len(self.attempts) + 1, self.now)
        self.attempts.append(attempt)
        if self._first is not None:
            attempt.stream, self._first, place = self._first, None, 0
        else:
            try:
                place = yield from self._open(attempt, maker)
            except Exception as error:
                attempt.error = error if isinstance(error, PenstockError) else SourceError(self.stream_id, error)
                return attempt
        attempt.place = place
        self._by_place[place] = attempt
        return attempt

    def _open(self, attempt: Try, maker: Maker) -> Generator[Any, Any, int]:
        def make() -> Stream:
            attempt.stream = maker()
            return attempt.stream

        async def amake(made: Awaitable[Any]) -> Stream:
            stream = attempt.stream = await maker.awaited(made)
            if self._spent is not None:  # the result reaches nothing that would read the stream
                stream.sink().cancel(_GIVEN_UP)
            return stream

        try:
            place: int = yield Open(make)
        except NotYet as later:
            made = yield Await(amake(later.made))
            place = yield Open(lambda: made)
        return place

    def attempt_at(self, place: int) -> Try | None:
        """The attempt at that place; None for one whose making was given up."""
        return self._by_place.get(place)

    def release_all_but(self, kept: Try) -> Steps:
        """Let go of the other attempts, so that their calls are closed."""
        for attempt in self.attempts:
            if attempt is not kept:
                attempt.events.clear()
                if attempt.place is not None and attempt.terminal is None:
                    yield Release(attempt.place)

    def counters(self) -> Mapping[str, Any]:
        """See `Stage.counters`."""
        spent = self._spent
        return {"attempts": len(self.attempts), "spent": self._sum() if spent is None else spent[0]}

    def _sum(self) -> Usage | None:
        return add_usages([attempt.usage() for attempt in self.attempts])

    def close(self) -> None:
        """See `Stage.close`. The attempts are let go of, so that this stage does not keep their streams."""
        self._spent = (self._sum(),)
        for attempt in self.attempts:
            attempt.stream = None
            attempt.events.clear()


def open_first(stage: Attempts, makers: Sequence[Maker], system: System | None, **how: Any) -> Stream:
    """Open the stream of a stage that makes its attempts with ``makers``.

    Without a system, the first attempt is made here, in the caller's thread, since its system is that of the stream.
    """
    if system is not None:
        return derive(stage, [], system=system, **how)
    try:
        first = makers[0](is_further=False)
    except NotYet as later:
        close = getattr(later.made, "close", None)
        if close is not None:
            close()
        raise OptionError("system", None, "a System, where a factory is async") from None
    stage.take_first(first)
    try:
        return derive(stage, [first], **how)
    except BaseException:
        first.sink().cancel(_GIVEN_UP)
        raise


def calls_of(stream: Stream) -> list[CallRecord]:
    """The provider calls that feed a stream, directly or through the streams that it is made from."""
    found: list[CallRecord] = []
    seen: set[str] = set()
    waiting: list[StreamRecord] = [stream._record]
    while waiting:
        record = waiting.pop(0)
        if record.stream_id in seen:
            continue
        seen.add(record.stream_id)
        if isinstance(record.feed, CallRecord):
            found.append(record.feed)
        home = record.home
        if isinstance(home, Services):
            parents = (home.streams.peek(name) for name in record.parents)
            waiting += (parent for parent in parents if parent is not None)
    return found


def chained(errors: Sequence[PenstockError]) -> PenstockError:
    """A copy of the last error, with the ones before it as its causes."""
    last = copy_of(errors[0])
    for error in errors[1:]:
        copied = copy_of(error)
        if copied.__cause__ is None:
            copied.__cause__ = last
        last = copied
    return last
