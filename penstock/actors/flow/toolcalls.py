"""Puts the fragments of function calls together. Pure and linear.

Providers disagree on how fragments are marked: by index, by id, by both, by an index that is always 0, by nothing
(see https://github.com/ollama/ollama/issues/15457 and https://github.com/openai/openai-python/issues/3201). The rule
here: a new id begins a new call, whatever its index; a fragment without an id belongs to the last call with its
index, unless it names another function or begins a second object where the first is complete; one without either
belongs to the last call, unless that has a name and it brings one too.
"""

from __future__ import annotations

import re

import msgspec

from penstock.events import ToolCall
from penstock.ports import ToolCallFragment

__all__ = ["ToolCallAccumulator"]


_MARK = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class _Call:
    __slots__ = ("_depth", "_escaped", "_in_string", "_scanned", "id", "is_hopeless", "name", "parts")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.parts: list[str] = []
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
    """Feed it every `ToolCallFragment` of an answer; `finish` gives the calls in the order in which they began.

    >>> calls = ToolCallAccumulator()
    >>> calls.feed(ToolCallFragment(index=0, id="a", name="add", arguments='{"x":'))
    >>> calls.feed(ToolCallFragment(index=0, arguments=" 1}"))
    >>> [(call.name, call.arguments) for call in calls.finish()]
    [('add', {'x': 1})]
    """

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def feed(self, delta: ToolCallFragment) -> None:
        """Add one fragment."""
        call = self._find(delta)
        if call is None:
            call = _Call()
            self._calls.append(call)
        if delta.id:
            call.id = delta.id
            self._by_id[delta.id] = call
        if delta.index is not None:
            self._by_index[delta.index] = call
        if delta.name and not call.name:
            call.name = delta.name
        if delta.arguments:
            call.parts.append(delta.arguments)

    def _find(self, delta: ToolCallFragment) -> _Call | None:
        if delta.id:
            known = self._by_id.get(delta.id)
            if known is not None:
                return known
            known = self._without_id(delta)  # the id may come after the first fragment
            return known if known is not None and not known.id else None
        return self._without_id(delta)

    def _without_id(self, delta: ToolCallFragment) -> _Call | None:
        if delta.index is not None:
            call = self._by_index.get(delta.index)
            return None if call is not None and delta.name and call.name and _is_another(call, delta) else call
        if delta.name and self._calls and self._calls[-1].name:
            return None  # nothing but a second name marks it
        return self._calls[-1] if self._calls else None

    def finish(self) -> tuple[ToolCall, ...]:
        """The calls. Arguments that are not complete JSON are None, and as they came in ``arguments_raw``.

        No arguments at all, or ``null``, mean none are needed: ``{}``. A call without an id gets one from its place.
        """
        return tuple(_finish(call, place) for place, call in enumerate(self._calls))


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


def _finish(call: _Call, place: int) -> ToolCall:
    raw = "".join(call.parts)
    arguments = {} if raw.strip() in ("", "null") else _parse(raw)
    return ToolCall(id=call.id or f"call_{place}", name=call.name, arguments=arguments, arguments_raw=raw)
