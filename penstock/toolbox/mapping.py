"""`Stream.map`, `Stream.filter` and `Stream.flat_map`: a function that is called with one unit of text at a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Generator, Iterable, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

from penstock.config.checks import check_choice, check_number
from penstock.config.units import Recutter
from penstock.errors import OptionError
from penstock.events import (
    LoopDetected,
    OriginEnded,
    Phase,
    Progress,
    ProviderEvent,
    SideEvent,
    StallDetected,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    TokenKind,
)
from penstock.toolbox.kinds import check_kinds
from penstock.toolbox.stage import Await, Output, Stage, Steps, with_tokens

__all__ = ["Filter", "FlatMap", "Map", "MapUnit"]

MapUnit: TypeAlias = Literal["token", "event", "word", "sentence", "line"]
"""What the function gets: a token or the text of an event as the provider cut it, or a unit that is cut anew."""

_UNITS: Final = ("token", "event", "word", "sentence", "line")
_MOST: Final = 100  # tokens of one event; what a function makes of one unit may have no end
_PLAIN: Final = frozenset((str, bool, list, tuple))  # what can be no awaitable, seen quickly

# They say nothing about a place in the answer, so text that waits for the end of its unit need not go before them.
_PLACELESS: Final = (Progress, StallDetected, LoopDetected, ProviderEvent)


class _Open:
    """The text of one origin that waits for the end of its unit."""

    __slots__ = ("due", "event", "recutter")

    def __init__(self, recutter: Recutter, event: TokenEvent) -> None:
        self.recutter = recutter
        self.event = event  # the last one of which it has text
        self.due = 0.0

    @property
    def belongs(self) -> tuple[TokenKind, int, Phase | None]:
        return self.event.kind, self.event.part, self.event.phase


class EachUnit(Stage):
    """Calls a function with each unit of the text, and replaces the unit by what the subclass makes of the result.

    The units of an event become one event. An event of which nothing is left is not given. Text that waits for the end
    of its unit goes before an event that has its place in the answer. Each origin has its own open unit.

    Args:
        function: gets one unit; may be async.
        unit: see `MapUnit`.
        kinds: the kinds of text that it works on; others pass.
        flush_interval: seconds after which a unit is taken as complete though it may go on; None: it is held.
    """

    keeps_text = False

    def __init__(
        self,
        function: Callable[[str], Any],
        unit: MapUnit = "token",
        kinds: TokenKind | Collection[TokenKind] = "text",
        flush_interval: float | None = None,
    ) -> None:
        if not callable(function):
            raise OptionError("function", type(function), "a function of one argument")
        check_choice("unit", unit, _UNITS)
        check_number("flush_interval", flush_interval, 0.001, 3600, optional=True)
        self._function = function
        self._kinds = check_kinds(kinds)
        self._unit = unit
        self._flush_interval = flush_interval
        self._open: dict[str | None, _Open] = {}

    def pieces(self, unit: str, result: Any) -> Iterable[str]:
        """What takes the place of the unit."""
        raise NotImplementedError

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if not isinstance(event, TokenEvent) or event.kind not in self._kinds:
            if not self._open or isinstance(event, _PLACELESS):
                return (event,)
            return self._after_open(event)
        match self._unit:
            case "token":
                return self._applied(event.tokens, event)
            case "event":
                return self._applied((event.text,), event)
            case unit:
                return self._recut(event, unit)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        if reset.origin is None:
            self._open.clear()
        else:
            self._open.pop(reset.origin, None)
        self._set_deadline()
        return (reset,)

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`."""
        return self._after_open(terminal) if self._open else (terminal,)

    def overdue(self) -> Steps:
        """See `Stage.overdue`."""
        return self._closed([origin for origin, one in self._open.items() if one.due <= self.now])

    # --- units that are cut anew ---------------------------------------------------------------------------------

    def _recut(self, event: TokenEvent, unit: Literal["word", "sentence", "line"]) -> Generator[Output, Any, None]:
        origin = event.origin
        current = self._open.get(origin)
        if current is not None and current.belongs != (event.kind, event.part, event.phase):
            yield from self._closed([origin])
            current = None
        if current is None:
            current = self._open[origin] = _Open(Recutter(unit), event)
        was_empty = not current.recutter.open
        units = current.recutter.feed(event.text)
        current.event = event
        if not current.recutter.open:
            del self._open[origin]
        elif (was_empty or units) and self._flush_interval is not None:
            current.due = self.now + self._flush_interval
        self._set_deadline()
        yield from self._applied(units, event)

    def _after_open(self, event: SideEvent | TokenEvent | TerminalEvent) -> Generator[Output, Any, None]:
        """Give an event after the open units that come before it: those of its origin, or all if it has none."""
        origin = event.origin if isinstance(event, (TokenEvent, OriginEnded)) else getattr(event, "origin", None)
        yield from self._closed(list(self._open) if origin is None else [origin])
        yield event

    def _closed(self, origins: Collection[str | None]) -> Generator[Output, Any, None]:
        for origin in origins:
            if (current := self._open.pop(origin, None)) is not None:
                self._set_deadline()
                yield from self._applied(current.recutter.flush(), current.event)

    def _set_deadline(self) -> None:
        if self._flush_interval is not None:
            self.deadline = min((one.due for one in self._open.values()), default=None)

    # --- the function --------------------------------------------------------------------------------------------

    def _applied(self, units: Sequence[str], event: TokenEvent) -> Generator[Output, Any, None]:
        """Give what becomes of the units as one event; if the function raises, what it had made until then."""
        function, pieces = self._function, self.pieces
        made: list[str] = []
        try:
            for unit in units:
                result = function(unit)
                if type(result) not in _PLAIN and inspect.isawaitable(result):
                    result = yield from _awaited(result)
                for piece in pieces(unit, result):
                    if len(made) == _MOST:
                        yield with_tokens(event, made)
                        made = []
                    if piece:
                        made.append(piece)
        except Exception:
            if made:
                yield with_tokens(event, made)
            raise
        if made:
            yield with_tokens(event, made)


class Map(EachUnit):
    """Each unit becomes the text that the function returns; the empty text drops it."""

    kind: ClassVar[str] = "map"

    def pieces(self, unit: str, result: Any) -> Iterable[str]:
        """See `EachUnit.pieces`."""
        return (_text(result),)


class Filter(EachUnit):
    """A unit stays if the function returns something true."""

    kind: ClassVar[str] = "filter"

    def pieces(self, unit: str, result: Any) -> Iterable[str]:
        """See `EachUnit.pieces`."""
        return (unit,) if result else ()


class FlatMap(EachUnit):
    """Each unit becomes the texts that the function returns or yields."""

    kind: ClassVar[str] = "flat_map"

    def __init__(
        self,
        function: Callable[[str], Any],
        unit: MapUnit = "token",
        kinds: TokenKind | Collection[TokenKind] = "text",
        flush_interval: float | None = None,
    ) -> None:
        super().__init__(_read_to_the_end(function), unit, kinds, flush_interval)

    def pieces(self, unit: str, result: Any) -> Iterable[str]:
        """See `EachUnit.pieces`."""
        return (result,) if isinstance(result, str) else map(_text, result)


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    raise TypeError(f"the function must return text, and returned {type(result).__name__}")


def _awaited(awaitable: Awaitable[Any]) -> Generator[Output, Any, Any]:
    try:
        return (yield Await(awaitable))
    except asyncio.CancelledError as error:  # not by this stream, which would not ask any more
        raise RuntimeError("the async function was cancelled") from error


def _read_to_the_end(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make an async generator function an async function that returns a list."""
    if not callable(function):
        return function  # it is refused later

    def called(unit: str) -> Any:
        result = function(unit)
        return _collected(result) if isinstance(result, AsyncIterable) else result

    return called


async def _collected(source: AsyncIterable[str]) -> list[str]:
    try:
        return [piece async for piece in source]
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
