"""Structured output: the JSON of an answer while it streams, and as a pydantic model when it is there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Generic, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json

from penstock.actors.stream.subscribers.pull import Events
from penstock.config.checks import check_number
from penstock.errors import OptionError, OutputInvalid
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    ToolExecutionStarted,
)
from penstock.stream import Stream

__all__ = ["PartialJson", "Structured", "response_format", "structured"]

T = TypeVar("T")

_ALWAYS: Final = 1024  # up to so many characters, every piece is worth a look
_GROWTH: Final = 32  # from then on, one 32nd more: all looks together read the text at most 33 times
_SHOWN_PROBLEMS: Final = 10
_NOTHING: Final = object()


class PartialJson:
    """JSON that comes in pieces, and what can be said of it so far. Pure.

    Feeding costs nothing but an append. `value` parses (jiter, through pydantic-core) what is there, if that is more
    than the last time; `is_worth_a_look` says when enough has come that looking each time it says so stays linear in
    the text's length over all.

    >>> json = PartialJson()
    >>> json.feed('{"name": "Ad')
    >>> json.value
    {'name': 'Ad'}
    >>> json.feed('a", "age": 3')
    >>> json.value
    {'name': 'Ada', 'age': 3}
    """

    __slots__ = ("_length", "_looked", "_parts", "_value")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._looked = 0
        self._value: Any = None

    def feed(self, text: str) -> None:
        """Add a piece."""
        self._parts.append(text)
        self._length += len(text)

    def clear(self) -> None:
        """Forget all: the answer begins again."""
        self.__init__()  # type: ignore[misc]

    @property
    def text(self) -> str:
        """All of it."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def is_worth_a_look(self) -> bool:
        """Whether so much has come since the last look that `value` is likely to say more."""
        more = self._length - self._looked
        return more > 0 and (self._length <= _ALWAYS or more * _GROWTH >= self._looked)

    @property
    def value(self) -> Any:
        """The JSON so far, an unfinished string at its end included; None while there is nothing, or no JSON.

        A number at the very end may have digits to come, as a string may have characters. Text before the JSON that
        is only white space or a Markdown fence is passed over.
        """
        if self._looked != self._length:
            self._looked = self._length
            with contextlib.suppress(ValueError):  # no JSON, or nothing yet: what was said last still stands
                self._value = from_json(_bare(self.text), allow_partial="trailing-strings")
        return self._value


class Structured(Generic[T]):
    """A stream's answer as a value of ``output_type``. Iterate it for partial values; ask `result` for the whole.

    Iterating (``for`` or ``async for``) gives plain dicts and lists, each more than the one before, while the answer
    streams; how often depends on how fast it comes. It counts as a subscriber of the stream, and ends with it.
    """

    def __init__(self, stream: Stream, output_type: type[T]) -> None:
        if not isinstance(stream, Stream):
            raise OptionError("stream", type(stream), "a Stream")
        self.stream = stream
        self._adapter = _adapter(output_type)
        self._name = getattr(output_type, "__name__", str(output_type))

    def __iter__(self) -> Iterator[Any]:
        json = PartialJson()
        last: Any = _NOTHING
        events: Events = self.stream.events()
        try:
            for event in events:
                value = _look(json, event)
                if value is not _NOTHING and value != last:
                    last = value
                    yield value
        finally:
            events.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        json = PartialJson()
        last: Any = _NOTHING
        events: Events = self.stream.aevents()
        try:
            async for event in events:
                value = _look(json, event)
                if value is not _NOTHING and value != last:
                    last = value
                    yield value
        finally:
            events.close()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the stream's end and give the validated value.

        Raises:
            OutputInvalid: the answer is no JSON, or does not fit; also if it was cut off at the length limit.
            CallTimeout: it has not ended within ``timeout`` seconds.
            PenstockError: the stream failed or was cancelled; what `Stream.result` raises.
        """
        check_number("timeout", timeout, 0, 86_400, optional=True)
        return self._validated(self.stream.result(timeout))

    async def aresult(self) -> T:
        """The same without blocking the event loop."""
        return self._validated(await self.stream.aresult())

    def _validated(self, completed: StreamCompleted) -> T:
        text = _last_round(self.stream, completed)
        try:
            return self._adapter.validate_json(_bare(text).strip().removesuffix("```"))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            said = tuple(f"{'.'.join(map(str, one['loc'])) or 'JSON'}: {one['msg']}" for one in problems)
            raise OutputInvalid(self._name, said[:_SHOWN_PROBLEMS], text) from None


def structured(stream: Stream, output_type: type[T]) -> Structured[T]:
    """Read a stream's answer as a value of ``output_type``, a pydantic model or any type pydantic knows.

    The model must be asked for JSON: ``response_format=response_format(Recipe)`` among the request's parameters.

    >>> from pydantic import BaseModel
    >>> class Point(BaseModel):
    ...     x: int
    >>> from penstock.system import System
    >>> with System() as system:
    ...     stream = system.open_stream()
    ...     point = structured(stream, Point)
    ...     stream.process_tokens(['{"x"', ": 3", "}"])
    ...     stream.stop()
    ...     point.result(timeout=5)
    Point(x=3)
    """
    return Structured(stream, output_type)


def response_format(output_type: type[Any]) -> dict[str, Any]:
    """The request parameter that asks for JSON of that type, in OpenAI's form; each provider's adapter translates it.

    >>> response_format(int)["json_schema"]["schema"]
    {'type': 'integer'}
    """
    adapter = _adapter(output_type)
    try:
        schema = adapter.json_schema()
    except PydanticUserError as error:
        raise _refused(output_type, "a type that JSON can carry", error) from None
    name = re.sub(r"[^\w-]", "_", getattr(output_type, "__name__", "output"), flags=re.ASCII)  # `Page[Recipe]`
    return {"type": "json_schema", "json_schema": {"name": name[:64], "schema": schema}}


def _adapter(output_type: type[T]) -> TypeAdapter[T]:
    try:
        adapter = TypeAdapter(output_type)
        adapter.rebuild()  # where a name in it leads nowhere, pydantic says so only now
    except Exception as error:
        raise _refused(output_type, "a type pydantic knows", error) from None
    return adapter


def _refused(output_type: object, allowed: str, error: Exception) -> OptionError:
    why = str(error).partition("\n")[0] if isinstance(error, PydanticUserError) else type(error).__name__
    return OptionError("output_type", getattr(output_type, "__name__", output_type), f"{allowed} ({why})")


def _look(json: PartialJson, event: Event) -> Any:
    """Take in one event; the value so far if it is time to look, else ``_NOTHING``."""
    match event:
        case StreamSnapshot():
            json.clear()
            json.feed(event.text)
        case TokenEvent(kind="text"):
            json.feed(event.text)
        case StreamReset() | ToolExecutionStarted():
            json.clear()  # what follows is another answer
            return _NOTHING
        case StreamCompleted() | StreamFailed() | StreamCancelled():
            return json.value if json.text else _NOTHING
        case _:
            return _NOTHING
    if not json.is_worth_a_look:
        return _NOTHING
    value = json.value
    return _NOTHING if value is None else value


def _last_round(stream: Stream, completed: StreamCompleted) -> str:
    """The text of the answer, without what an agent's model said before it called its tools."""
    start = 0
    with stream.events() as events:
        said = 0
        for event in events:
            if isinstance(event, StreamSnapshot):
                said = len(event.text)
            elif isinstance(event, TokenEvent) and event.kind == "text":
                said += len(event.text)
            elif isinstance(event, StreamReset):
                said = start = 0
            elif isinstance(event, ToolExecutionStarted):
                start = said
    return completed.text[start:]


def _bare(text: str) -> str:
    """Without the Markdown fence that some models put around it."""
    text = text.lstrip()
    if text.startswith("```"):
        text = text.partition("\n")[2]
    return text
