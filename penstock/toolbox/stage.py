"""Stages: what a derived stream makes of its parents' events. Pure; `penstock.toolbox.pump` runs them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import msgspec

from penstock.errors import PenstockError
from penstock.events import (
    FinishReason,
    SideEvent,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    Usage,
)
from penstock.ports import Annotate

if TYPE_CHECKING:
    from penstock.stream import Stream

__all__ = [
    "Annotate",
    "AtOnce",
    "Await",
    "Hold",
    "Open",
    "Output",
    "Release",
    "Run",
    "Stage",
    "Start",
    "Steps",
    "Unhold",
    "Until",
    "Wait",
    "completed",
    "failed",
    "with_tokens",
]


class Wait(NamedTuple):
    """Do nothing until that time (monotonic seconds, as `Stage.now`). Meanwhile the parents wait."""

    until: float


class Run(NamedTuple):
    """Call a function that may block, on a thread of the system's bounded pool. Its result is sent to the generator.

    What it raises is thrown into the generator.
    """

    function: Callable[[], Any]


class Start(NamedTuple):
    """The same, but nothing waits for the function, and nothing comes of its result."""

    function: Callable[[], object]


class Await(NamedTuple):
    """Await this on the loop where the derived stream was made, else on the system's; result as for `Run`."""

    awaitable: Awaitable[Any]


class Until(NamedTuple):
    """Do nothing until a callback is called, by any thread. The function gets it, and calls it at once if need be."""

    listen: Callable[[Callable[[], None]], None]


class Open(NamedTuple):
    """Call a function that returns a further parent, as `Run` does. Its place is sent to the generator."""

    factory: Callable[[], Stream]


class Release(NamedTuple):
    """Let go of the parent at that place: its ``on_orphan`` decides what becomes of it. No more of it is fed."""

    place: int


class Hold(NamedTuple):
    """Read no more of the parent at that place, which then waits as it does for any slow reader."""

    place: int


class Unhold(NamedTuple):
    """Read the parent at that place again, after `Hold`."""

    place: int


class AtOnce(NamedTuple):
    """Fail without waiting for a slow reader or a pause; what is buffered is only in ``partial``."""

    terminal: StreamFailed


Request: TypeAlias = Wait | Until | Run | Start | Await | Open | Release | Hold | Unhold | Annotate
Output: TypeAlias = TokenEvent | SideEvent | StreamReset | TerminalEvent | AtOnce | Request
"""What a stage gives: events for the derived stream, in order, and requests to whatever runs it.

A terminal event ends the stream; nothing after it counts. Its finish reason, usage, cost, calls and error are taken;
its text and numbers are not. ``stream_id``, ``seq``, ``timestamp`` and ``metadata`` of events are set by the stream.
"""

Steps: TypeAlias = Iterable[Output] | Generator[Output, Any, None]
"""A list, or a generator where the result of `Run`, `Await` or `Open` is needed. The next step is asked for when the
stream has taken the one before, so a generator that is slow to be asked holds the parents back."""


class Stage:
    """Base class: passes everything on unchanged. Subclasses replace what they need.

    Every method is called in a copy of the context of the code that made the derived stream, never by two threads at
    once, and gives `Steps`. If one raises, the stream fails with `TransformError`. ``place`` is the number of the
    parent, from 0, in the order given or opened.
    """

    kind: ClassVar[str] = "stage"
    """The combinator's name, for people."""

    keeps_text: ClassVar[bool] = True
    """Whether places in the text stay valid: else citations lose their spans, and `Logprobs` are not passed on."""

    stream_id: str = ""
    """Of the derived stream; set before the first call."""

    random: random.Random
    """For jitter; set before the first call. In a simulation its seed is the simulation's."""

    now: float = 0.0
    """Monotonic seconds; set before each call."""

    deadline: float | None = None
    """When `overdue` is called, unless an event comes first or the stage's outputs still wait for room. While the
    stage waits for the answer to a request, `overdue` is called in between; it must then make no request itself."""

    expires: float | None = None
    """When `expired` is called, whatever else waits."""

    def begin(self) -> Steps:
        """Act before the first event."""
        return ()

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """Take an event that is neither a reset nor an end. A `StreamSnapshot` comes as the events it stands for."""
        return (event,)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """Forget what came of this parent, and pass the reset on."""
        return (reset,)

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """A parent has ended. The default ends the stream as the parent did; give what is still held before."""
        return (terminal,)

    def overdue(self) -> Steps:
        """The `deadline` has passed. Set it anew, or to None: it is called again as long as it is over."""
        return ()

    def expired(self) -> Output | None:
        """The time of `expires` has come. What it gives, a terminal event or an `AtOnce`, ends the stream now."""
        return None

    def resumed(self) -> None:
        """The derived stream has room again, after it had none: its own reader had held it."""

    def counters(self) -> Mapping[str, Any]:
        """Fields of `StreamStatistics` that this stage counts. Any thread."""
        return {}

    def close(self) -> Callable[[], object] | None:
        """Release files and the like. Called once, when nothing more will be fed, however it ended. Any thread.

        It must not block; what may block is returned as a function, which is called on a thread of the bounded pool.
        """
        return None

    def is_closed(self) -> bool:
        """Whether everything is released. If it is not two seconds after `close`, it counts as leaked. Any thread."""
        return True


def with_tokens(event: TokenEvent, tokens: Sequence[str]) -> TokenEvent:
    """The same event with other tokens.

    >>> with_tokens(TokenEvent("s", 1, ("a", "b"), "ab", "text", 0.0, {}), ["A"]).text
    'A'
    """
    if event.tokens == tuple(tokens):
        return event
    return msgspec.structs.replace(event, tokens=tuple(tokens), text="".join(tokens))


def completed(finish_reason: FinishReason = "stop", *, usage: Usage | None = None, **facts: Any) -> StreamCompleted:
    """The end of a derived stream that has completed of itself; ``facts`` are fields of `StreamCompleted`."""
    return StreamCompleted(stream_id="", seq=0, text="", finish_reason=finish_reason, usage=usage, **facts)


def failed(error: PenstockError, *, like: TerminalEvent | None = None) -> StreamFailed:
    """The end of a derived stream that fails with ``error``; usage, cost and calls are those of ``like``."""
    if like is None:
        return StreamFailed(stream_id="", seq=0, error=error)
    names = [name for name in StreamFailed.__struct_fields__ if name not in ("error", "partial")]
    return StreamFailed(error=error, **{name: getattr(like, name) for name in names})
