"""Puts the fragments of function calls together. Pure and linear.

Providers disagree on how fragments are marked: by index, by id, by both, by an index that is always 0, by nothing
(see https://github.com/ollama/ollama/issues/15457 and https://github.com/openai/openai-python/issues/3201). The rule
here: a new id begins a new call, whatever its index; a fragment without an id belongs to the last call with its
index, unless it names another function or begins a second object where the first is complete; one without either
belongs to the last call, unless that has a name and it brings one too. An id that is known names another call if that
has another function, or another index and all its arguments; such a call gets an id of its own.

A call is told of as it grows: that it has begun once its name is known, and its id, or that none comes; then each piece
of its arguments. What is told of first, its place and its id, stays what it is.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

from penstock.events import ToolCall, ToolCallCompleted, ToolCallDelta, ToolCallStarted, ToolEvent
from penstock.ports import Delta, ErrorDelta, FinishDelta, ToolCallFragment

__all__ = ["Progress", "ToolCallAccumulator"]

Progress: TypeAlias = Literal["continue", "done", "error"]
"""More may come; the model has finished; the provider has reported an error."""

_MARK = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class _Call:
    __slots__ = (
        "_depth",
        "_escaped",
        "_in_string",
        "_scanned",
        "has_own_id",
        "id",
        "is_hopeless",
        "is_server",
        "is_told",
        "name",
        "parts",
        "place",
        "signature",
    )

    def __init__(self, place: int) -> None:
        self.place = place  # among the answer's calls, from 0
        self.id = ""
        self.has_own_id = False  # the provider gave it one; if that comes late, we may have given it another
        self.name = ""
        self.parts: list[str] = []
        self.is_server = False
        self.signature = ""
        self.is_told = False  # that it has begun
        self.is_hopeless = False  # closed, and yet no object: nothing that follows makes it one
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def is_closed(self) -> bool:
        """Whether every bracket is closed. Looks at each part once, however often it is asked."""
        text = "".join(self.parts[self._scanned :])
        self._scanned = len(self.parts)
        start = int(self._escaped and bool(text))
        self._escaped = self._escaped and not text
        for mark in _MARK.finditer(text, start):
            sign = mark[0]
            if sign[0] == "\\":
                self._escaped = len(sign) == 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if sign in "{[" else -1
        return not self._depth and not self._in_string


class ToolCallAccumulator:
    """The calls of one answer, put together from a decoder's deltas; in the order in which they began.

    Give `process` every delta of an answer, of whatever kind, until it says that there is no more to come, and ask
    `finalize`; or give `feed` the fragments alone, which says what is to be told of them at once.

    >>> calls = ToolCallAccumulator()
    >>> calls.process(ToolCallFragment(index=0, id="b", name="now"))
    'continue'
    >>> calls.process(FinishDelta("tool_calls", "tool_use"))
    'done'
    >>> [(call.name, call.arguments) for call in calls.finalize()]
    [('now', {})]

    >>> calls = ToolCallAccumulator()
    >>> calls.feed(ToolCallFragment(index=0, id="a", name="add", arguments='{"x":'))[0].name
    'add'
    >>> calls.feed(ToolCallFragment(index=0, arguments=" 1}"))[0].text
    ' 1}'
    >>> [(call.name, call.arguments) for call in calls.finish()]
    [('add', {'x': 1})]
    """

    __slots__ = ("_by_id", "_by_index", "_calls", "_progress", "_untold")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._untold: list[_Call] = []  # have a name, and are not told of
        self._progress: Progress = "continue"

    def __len__(self) -> int:
        return len(self._calls)

    def process(self, delta: Delta) -> Progress:
        """Take one delta; what is no fragment of a call, nor an end, changes nothing. An error is never taken back."""
        if isinstance(delta, ToolCallFragment):
            self.feed(delta)
        elif isinstance(delta, ErrorDelta):
            self._progress = "error"
        elif isinstance(delta, FinishDelta) and self._progress == "continue":
            self._progress = "done"
        return self._progress

    def finalize(self) -> tuple[ToolCall, ...]:
        """The calls as they are; see `finish`. The answer is whole if `process` has seen its end and no error."""
        return self.finish(is_whole=self._progress == "done")

    def feed(self, delta: ToolCallFragment) -> list[ToolEvent]:
        """Add one fragment; returns what is to be told of it."""
        call = self._find(delta)
        is_new = call is None
        if call is None:
            call = _Call(len(self._calls))
            self._calls.append(call)
        if delta.id:
            call.id = call.id or (f"{delta.id}_{call.place}" if is_new and delta.id in self._by_id else delta.id)
            call.has_own_id = True
            self._by_id[delta.id] = call
        if delta.index is not None:
            self._by_index[delta.index] = call
        if delta.name and not call.name:
            call.name = delta.name
            self._untold.append(call)
        if delta.is_server:
            call.is_server = True
        if delta.signature:
            call.signature = delta.signature
        if delta.arguments:
            call.parts.append(delta.arguments)
            if call.is_told:
                return [ToolCallDelta(index=call.place, text=delta.arguments)]
        return self._tell(call, is_new=is_new) if self._untold else []

    def _tell(self, newest: _Call, *, is_new: bool) -> list[ToolEvent]:
        """Tell of the calls that have a name, and an id or something behind it: nothing can bring one in time."""
        events: list[ToolEvent] = []
        for call in self._untold:
            if call.has_own_id or call.parts or (is_new and call is not newest):
                self._begin(call, events)
        if events:
            self._untold = [call for call in self._untold if not call.is_told]
        return events

    def _begin(self, call: _Call, events: list[ToolEvent]) -> None:
        call.is_told = True
        call.id = self._id_of(call)
        events.append(ToolCallStarted(id=call.id, name=call.name, index=call.place))
        if call.parts:
            events.append(ToolCallDelta(index=call.place, text="".join(call.parts)))

    def _id_of(self, call: _Call) -> str:
        return call.id or f"call_{call.place}"

    def complete(self) -> list[ToolEvent]:
        """The answer is complete: what is to be told of its calls."""
        events: list[ToolEvent] = []
        for call in self._calls:
            if not call.is_told:
                self._begin(call, events)
        self._untold = []
        events += (ToolCallCompleted(index=place, call=call) for place, call in enumerate(self.finish()))
        return events

    def _find(self, delta: ToolCallFragment) -> _Call | None:
        if delta.id:
            known = self._by_id.get(delta.id)
            if known is not None:
                return None if self._is_namesake(known, delta) else known
            known = self._without_id(delta)  # the id may come after the first fragment
            return known if known is not None and not known.has_own_id else None
        return self._without_id(delta)

    def _is_namesake(self, known: _Call, delta: ToolCallFragment) -> bool:
        """Whether it is of another call than the one that has its id: some give all calls of an answer the same."""
        if not delta.name or not known.name or delta.name != known.name:
            return bool(delta.name and known.name)
        return delta.index is not None and self._by_index.get(delta.index) is not known and _is_another(known, delta)

    def _without_id(self, delta: ToolCallFragment) -> _Call | None:
        if delta.index is not None:
            call = self._by_index.get(delta.index)
            return None if call is not None and delta.name and call.name and _is_another(call, delta) else call
        if delta.name and self._calls and self._calls[-1].name:
            return None  # nothing but a second name marks it
        return self._calls[-1] if self._calls else None

    def finish(self, *, is_whole: bool = True) -> tuple[ToolCall, ...]:
        """The calls. Arguments that are not complete JSON are None, and as they came in ``arguments_raw``.

        No arguments at all, or ``null``, mean none are needed: ``{}``; of an answer that is not whole they may only
        not have come. A call without an id gets one from its place.
        """
        return tuple(self._finish(call, is_whole) for call in self._calls)

    def _finish(self, call: _Call, is_whole: bool) -> ToolCall:
        raw = "".join(call.parts)
        if raw.strip() in ("", "null"):
            arguments: object = {} if is_whole else None
        else:
            arguments = _parse(raw)
        return ToolCall(
            id=self._id_of(call),
            name=call.name,
            arguments=arguments,
            arguments_raw=raw,
            is_server=call.is_server,
            signature=call.signature,
        )


def _is_another(call: _Call, delta: ToolCallFragment) -> bool:
    """Whether a fragment with a name belongs to another call, though its index is that of ``call``."""
    if delta.name != call.name:
        return True
    # Some say the name with every fragment: only a second object behind a complete one is another call.
    if not delta.arguments.lstrip().startswith("{") or not "".join(call.parts[-1:]).rstrip().endswith("}"):
        return False
    if call.is_hopeless or not call.is_closed():
        return False
    is_object = isinstance(_parse("".join(call.parts)), dict)
    call.is_hopeless = not is_object
    return is_object


def _parse(raw: str) -> object:
    """The parsed JSON; None if it is not complete, or no JSON, or deeper than anything a tool could want."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
