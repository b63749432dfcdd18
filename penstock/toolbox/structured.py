"""Structured output: the partial JSON of an answer while it streams, and a validated value when it is complete."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from penstock.actors.stream.subscribers.pull import NOTHING, Findings
from penstock.config.checks import check_number
from penstock.errors import OptionError, OutputInvalid
from penstock.events import (
    AnswerPart,
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

_ALWAYS: Final = 1024  # characters; up to this length, every piece is worth parsing
_GROWTH: Final = 32  # then, growth by a 32nd: all parses together read the text at most 33 times
_SHOWN_PROBLEMS: Final = 10
_REFUSED: Final = "the model refused; its words are in `partial`"
_FILTERED: Final = "the provider's content filter stopped the answer; what came before is in `partial`"


class PartialJson:
    """JSON that arrives in pieces, and its value so far. Pure.

    Feeding is an append. `value` parses the text (jiter, through pydantic-core) if there is more than the last time.
    Parsing only when `is_worth_a_look` is true keeps the total cost linear in the length of the text.

    >>> json = PartialJson()
    >>> json.feed('{"name": "Ad')
    >>> json.value
    {'name': 'Ad'}
    >>> json.feed('a", "age": 3')
    >>> json.value
    {'name': 'Ada', 'age': 3}
    """

    __slots__ = ("_length", "_parsed", "_parts", "_value")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._parsed = 0
        self._value: Any = None

    def feed(self, text: str) -> None:
        """Add a piece."""
        self._parts.append(text)
        self._length += len(text)

    def clear(self) -> None:
        """Discard everything, as the answer begins again."""
        self.__init__()  # type: ignore[misc]

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def is_worth_a_look(self) -> bool:
        """Whether enough text has come since the last parse to parse it again."""
        more = self._length - self._parsed
        return more > 0 and (self._length <= _ALWAYS or more * _GROWTH >= self._parsed)

    @property
    def value(self) -> Any:
        """The JSON value so far, including an unfinished string at its end; None if there is no JSON.

        A number or a string at the very end may still grow. White space and a Markdown fence before the JSON are
        skipped.
        """
        if self._parsed != self._length:
            self._parsed = self._length
            with contextlib.suppress(ValueError):  # no JSON, or nothing yet: keep the last value
                self._value = from_json(_bare(self.text), allow_partial="trailing-strings")
        return self._value


class Structured(Generic[T]):
    """A stream's answer as a value of ``output_type``. Iterate it for partial values; call `result` for the final one.

    Iterating (``for`` or ``async for``) yields plain dicts and lists while the answer streams, each larger than the one
    before. How many there are depends on how fast the answer comes. An iteration counts as a subscriber, as
    `Stream.events` does.
    """

    def __init__(self, stream: Stream, output_type: type[T]) -> None:
        if not isinstance(stream, Stream):
            raise OptionError("stream", type(stream), "a Stream")
        self.stream = stream
        self._adapter = _adapter(output_type)
        self._name = getattr(output_type, "__name__", str(output_type))

    def __iter__(self) -> Findings[Any]:
        return Findings(self.stream._pull, _Partials().find)

    def __aiter__(self) -> Findings[Any]:
        return Findings(self.stream._pull, _Partials().find)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the stream's end and return the validated value.

        Raises:
            OutputInvalid: the model or a content filter refused, or the answer is not JSON or does not fit the type;
                also if it was cut off at the length limit. Of an answer in parts, all text but comments is read, or
                else its last part.
            CallTimeout: the stream has not ended within ``timeout`` seconds.
            PenstockError: the stream failed or was cancelled; as for `Stream.result`.
        """
        check_number("timeout", timeout, 0, 86_400, optional=True)
        return self._validated(self.stream.result(timeout))

    async def aresult(self, timeout: float | None = None) -> T:
        """The same without blocking the event loop."""
        return self._validated(await self.stream.aresult(timeout))

    def _validated(self, completed: StreamCompleted) -> T:
        texts = _answers(completed.text, completed.parts, _start_of_last_round(self.stream))
        if completed.finish_reason == "refusal":
            raise OutputInvalid(self._name, (_REFUSED,), completed.refusal or texts[0])
        if completed.finish_reason == "content_filter":
            raise OutputInvalid(self._name, (_FILTERED,), completed.refusal or texts[0])
        problems: list[ErrorDetails] = []  # of the first text
        for text in texts:
            try:
                return self._adapter.validate_json(_bare(text).strip().removesuffix("```"))
            except ValidationError as error:  # not kept: its traceback has this frame
                problems = problems or error.errors(include_url=False, include_context=False, include_input=False)
        if completed.refusal:
            raise OutputInvalid(self._name, (_REFUSED,), completed.refusal)
        known = _property_names(self._adapter)
        details = tuple(f"{_position(one['loc'], known)}: {one['type']}" for one in problems)
        raise OutputInvalid(self._name, details[:_SHOWN_PROBLEMS], texts[0])


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
        raise _refused(output_type, "a type with a JSON schema", error) from None
    name = re.sub(r"[^\w-]", "_", getattr(output_type, "__name__", "output"), flags=re.ASCII)  # `Page[Recipe]`
    return {"type": "json_schema", "json_schema": {"name": name[:64], "schema": schema}}


def _adapter(output_type: type[T]) -> TypeAdapter[T]:
    try:
        adapter = TypeAdapter(output_type)
        adapter.rebuild()  # pydantic reports a name that it cannot resolve only here
    except Exception as error:
        raise _refused(output_type, "a type pydantic knows", error) from None
    return adapter


def _property_names(adapter: TypeAdapter[Any]) -> set[str]:
    """The names of all properties in the type's JSON schema."""
    try:
        schemas: list[Any] = [adapter.json_schema()]
    except PydanticUserError:
        return set()
    names: set[str] = set()
    while schemas:
        match schemas.pop():
            case dict() as schema:
                properties = schema.get("properties")
                names |= set(properties) if isinstance(properties, dict) else set()
                schemas += schema.values()
            case list() as items:
                schemas += items
    return names


def _position(place: tuple[int | str, ...], known: set[str]) -> str:
    """Where in the answer a problem is. A name that is not the type's own may be the answer's and becomes a star."""
    return ".".join(str(part) if isinstance(part, int) or part in known else "*" for part in place) or "JSON"


def _refused(output_type: object, allowed: str, error: Exception) -> OptionError:
    why = str(error).partition("\n")[0] if isinstance(error, PydanticUserError) else type(error).__name__
    return OptionError("output_type", getattr(output_type, "__name__", output_type), f"{allowed} ({why})")


class _Partials:
    """Finds the partial values in a stream's events."""

    __slots__ = ("_json", "_last", "_part")

    def __init__(self) -> None:
        self._json = PartialJson()
        self._part = 0
        self._last: Any = NOTHING

    def find(self, event: Event) -> Any:
        """Add one event; returns the value so far if it is worth parsing now and has changed, else ``NOTHING``."""
        value = self._look(event)
        if value is NOTHING or value == self._last:
            return NOTHING
        self._last = value
        return value

    def _look(self, event: Event) -> Any:
        json = self._json
        match event:
            case StreamSnapshot():
                for text in _answers(event.text, event.parts):
                    json.clear()
                    json.feed(text)
                    if json.value is not None:
                        break
                self._part = event.parts[-1].index if event.parts else 0
            case TokenEvent(kind="text", phase="commentary"):
                return NOTHING
            case TokenEvent(kind="text", part=part):
                if part != self._part:
                    self._part = part
                    if json.value is None:  # words before one of the provider's tools, and no JSON
                        json.clear()
                json.feed(event.text)
            case StreamReset() | ToolExecutionStarted():
                json.clear()  # another answer follows
                return NOTHING
            case StreamCompleted() | StreamFailed() | StreamCancelled():
                return json.value if json.text else NOTHING
            case _:
                return NOTHING
        if not json.is_worth_a_look:
            return NOTHING
        value = json.value
        return NOTHING if value is None else value


def _start_of_last_round(stream: Stream) -> int:
    """How many characters an agent's text has from before its last tool calls."""
    start = length = 0
    with stream.events() as events:
        for event in events:
            if isinstance(event, StreamSnapshot):
                length = len(event.text)
            elif isinstance(event, TokenEvent) and event.kind == "text":
                length += len(event.text)
            elif isinstance(event, StreamReset):
                length = start = 0
            elif isinstance(event, ToolExecutionStarted):
                start = length
    return start


def _answers(text: str, parts: Sequence[AnswerPart], start: int = 0) -> list[str]:
    """What may be the JSON in the text from ``start`` on: all of it but comments, and its last part.

    If the provider says what is the final answer, then that alone.
    """
    own = [part for part in parts if part.kind == "text" and part.end > start]
    final = [part for part in own if part.phase == "final_answer"]
    own = final or [part for part in own if part.phase != "commentary"] or own
    if not own:
        return [text[start:]]
    pieces = [text[max(part.start, start) : part.end] for part in own]
    return ["".join(pieces), *(pieces[-1:] if len(pieces) > 1 else ())]


def _bare(text: str) -> str:
    """Remove the opening Markdown fence that some models add."""
    text = text.lstrip()
    if text.startswith("```"):
        text = text.partition("\n")[2]
    return text
