"""Joins the fragments of function calls. Pure; linear in their length.

Providers mark fragments in different ways: by index, by id, by both, by an index that is always 0, or not at all
(see https://github.com/ollama/ollama/issues/15457 and https://github.com/openai/openai-python/issues/3201). The rules:

- A new id begins a new call, whatever the index, except that a fragment without a name continues the call of its index
  if that lacks (a part of) its arguments: some servers send a new id with each fragment.
- A fragment without an id belongs to the last call with its index, unless it names another function, or begins a second
  JSON object after a complete one.
- A fragment with neither id nor index belongs to the last call, unless both have a name.
- A fragment with a known id begins a new call if it names another function, or has another index while the arguments of
  the known call are complete. The new call gets an id of its own.

Events report a call as it grows: its start, once its name is known and either its id or that there is none; then each
piece of its arguments. The index and the id that were reported never change.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

from penstock.events import ToolCall, ToolCallCompleted, ToolCallDelta, ToolCallStarted, ToolEvent
from penstock.ports import Delta, ErrorDelta, FinishDelta, ToolCallFragment

__all__ = ["Progress", "ToolCallAccumulator"]

Progress: TypeAlias = Literal["continue", "done", "error"]
"""``continue``: more may come; ``done``: the model has finished; ``error``: the provider has reported an error."""

_MARK = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class _Call:
    __slots__ = (
        "_depth",
        "_escaped",
        "_in_string",
        "_scanned",
        "has_arguments",
        "has_own_id",
        "id",
        "is_no_object",
        "is_reported",
        "is_server",
        "name",
        "parts",
        "place",
        "signature",
        "type",
    )

    def __init__(self, place: int) -> None:
        self.place = place  # index among the answer's calls, from 0
        self.id = ""
        self.has_own_id = False  # the provider sent one; if that comes late, ours may have been reported
        self.name = ""
        self.parts: list[str] = []
        self.has_arguments = False  # something else than white space is among the parts
        self.is_server = False
        self.signature = ""
        self.type = ""
        self.is_reported = False  # its start has been reported
        self.is_no_object = False  # the brackets are closed and it is no JSON object, and cannot become one
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def replace(self, arguments: str) -> None:
        """Take these arguments in the place of all parts."""
        self.parts = [arguments] if arguments else []
        self.has_arguments = bool(arguments.strip())
        self.is_no_object = self._in_string = self._escaped = False
        self._scanned = self._depth = 0

    def add(self, arguments: str) -> None:
        """Add a part of the arguments."""
        self.parts.append(arguments)
        self.has_arguments = self.has_arguments or bool(arguments.strip())

    def is_closed(self) -> bool:
        """Whether every bracket is closed. Each part is scanned once, however often this is called."""
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
    """The calls of one answer, joined from a decoder's deltas, in the order in which they began.

    Either pass every delta of an answer to `process` until it returns something other than ``"continue"``, and then
    call `finalize`; or pass only the fragments to `feed`, which returns the events to report at once.

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

    __slots__ = ("_by_id", "_by_index", "_calls", "_ids", "_progress", "_unreported", "client_calls", "size")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._ids: set[str] = set()  # of the calls, so that no two have the same one
        self._unreported: list[_Call] = []  # have a name, and their start has not been reported
        self._progress: Progress = "continue"
        self.client_calls = 0
        """The number of calls that the provider does not run itself."""
        self.size = 0
        """Characters of the calls: names, ids and arguments."""

    def __len__(self) -> int:
        return len(self._calls)

    def process(self, delta: Delta) -> Progress:
        """Add one delta. Only fragments, the end and errors have an effect; the state ``"error"`` is final."""
        if isinstance(delta, ToolCallFragment):
            self.feed(delta)
        elif isinstance(delta, ErrorDelta):
            self._progress = "error"
        elif isinstance(delta, FinishDelta) and self._progress == "continue":
            self._progress = "done"
        return self._progress

    def finalize(self) -> tuple[ToolCall, ...]:
        """The calls so far; see `finish`. The answer is whole if `process` has seen its end and no error."""
        return self.finish(is_whole=self._progress == "done")

    def feed(self, delta: ToolCallFragment) -> list[ToolEvent]:
        """Add one fragment; returns the events to report."""
        call = self._find(delta)
        is_new = call is None
        if call is None:
            call = _Call(len(self._calls))
            self._calls.append(call)
            self.client_calls += 1
        if delta.id:
            if not call.id:
                call.id = self._free_id(delta.id, call)
                self._ids.add(call.id)
            call.has_own_id = True
            self._by_id[delta.id] = call
        if delta.index is not None:
            self._by_index[delta.index] = call
        if delta.name and not call.name:
            call.name = delta.name
            self._unreported.append(call)
        if delta.is_server and not call.is_server:
            call.is_server = True
            self.client_calls -= 1
        if delta.signature:
            call.signature = delta.signature
        if delta.type:
            call.type = delta.type
        self.size += len(delta.arguments) + len(delta.name or "") + len(delta.id or "")
        if delta.replaces:
            return self._replace(call, delta.arguments, is_new=is_new)
        if delta.arguments:
            call.add(delta.arguments)
            if call.is_reported:
                return [ToolCallDelta(index=call.place, text=delta.arguments)]
        return self._report(call, is_new=is_new) if self._unreported else []

    def _replace(self, call: _Call, arguments: str, *, is_new: bool) -> list[ToolEvent]:
        """Take the whole arguments in the place of the pieces; returns what has not been reported of them."""
        before = "".join(call.parts)
        self.size -= len(before)
        call.replace(arguments)
        if not call.is_reported:
            return self._report(call, is_new=is_new)
        rest = arguments.removeprefix(before) if arguments.startswith(before) else ""
        return [ToolCallDelta(index=call.place, text=rest)] if rest else []

    def _report(self, newest: _Call, *, is_new: bool) -> list[ToolEvent]:
        """Report the start of calls with a name that have an id, or can get none as something else followed."""
        events: list[ToolEvent] = []
        for call in self._unreported:
            if call.has_own_id or call.parts or (is_new and call is not newest):
                self._begin(call, events)
        if events:
            self._unreported = [call for call in self._unreported if not call.is_reported]
        return events

    def _begin(self, call: _Call, events: list[ToolEvent]) -> None:
        call.is_reported = True
        call.id = self._id_of(call)
        self._ids.add(call.id)
        kind = call.type or "function"
        events.append(
            ToolCallStarted(id=call.id, name=call.name, index=call.place, call_type=kind, is_server=call.is_server)
        )
        if call.parts:
            events.append(ToolCallDelta(index=call.place, text="".join(call.parts)))

    def _id_of(self, call: _Call) -> str:
        return call.id or self._free_id(f"call_{call.place}", call)

    def _free_id(self, wanted: str, call: _Call) -> str:
        """The id that is wanted for a call, or with its number behind it, if another one has that."""
        own, number = wanted, call.place
        while own in self._ids:
            own, number = f"{wanted}_{number}", number + 1
        return own

    def complete(self, *, is_finished: bool = True, provider: str | None = None) -> list[ToolEvent]:
        """End the answer, which is complete; returns the remaining events. Arguments as for `finish`."""
        events: list[ToolEvent] = []
        for call in self._calls:
            if not call.is_reported:
                self._begin(call, events)
        self._unreported = []
        calls = self.finish(is_finished=is_finished, provider=provider)
        events += (ToolCallCompleted(index=place, call=call) for place, call in enumerate(calls))
        return events

    def _find(self, delta: ToolCallFragment) -> _Call | None:
        if delta.id:
            known = self._by_id.get(delta.id)
            if known is not None:
                return None if self._reuses_id(known, delta) else known
            known = self._without_id(delta)  # the id may come after the first fragment
            return known if known is not None and (not known.has_own_id or _continues(known, delta)) else None
        return self._without_id(delta)

    def _reuses_id(self, known: _Call, delta: ToolCallFragment) -> bool:
        """Whether the fragment begins another call with the id of ``known``: some providers repeat one id."""
        if not delta.name or delta.name != known.name:
            return bool(delta.name and known.name)
        return delta.index is not None and self._by_index.get(delta.index) is not known and _is_another(known, delta)

    def _without_id(self, delta: ToolCallFragment) -> _Call | None:
        if delta.index is not None:
            call = self._by_index.get(delta.index)
            return None if call is not None and delta.name and call.name and _is_another(call, delta) else call
        if delta.name and self._calls and self._calls[-1].name:
            return None  # only the second name marks a new call
        return self._calls[-1] if self._calls else None

    def finish(
        self, *, is_whole: bool = True, is_finished: bool | None = None, provider: str | None = None
    ) -> tuple[ToolCall, ...]:
        """The calls. ``arguments`` is None if they are not complete JSON; ``arguments_raw`` has them as received.

        Those of a call of type ``"custom"`` are free text. No arguments at all, or ``null``, count as ``{}`` if the
        model has finished, unless there is a call without a name, which may have the arguments. Otherwise they may just
        not have come, and ``arguments`` is None. A call without an id gets one from its index.

        Args:
            is_whole: whether the answer has come to its end.
            is_finished: whether a finish reason has come; None: as ``is_whole``.
            provider: the one that made the calls, and their signatures.
        """
        can_be_empty = is_whole if is_finished is None else is_finished
        can_be_empty = can_be_empty and all(call.name for call in self._calls)
        return tuple(self._finish(call, is_whole, can_be_empty, provider or "") for call in self._calls)

    def _finish(self, call: _Call, is_whole: bool, can_be_empty: bool, provider: str) -> ToolCall:
        raw = "".join(call.parts)
        if call.type == "custom":  # free text
            arguments: object = raw if is_whole else None
        elif raw.strip() in ("", "null"):
            arguments = {} if can_be_empty else None
        else:
            arguments = _parse(raw)
        return ToolCall(
            id=self._id_of(call),
            name=call.name,
            arguments=arguments,
            arguments_raw=raw,
            is_server=call.is_server,
            signature=call.signature,
            type=call.type or "function",
            signed_by=provider if call.signature else "",
        )


def _continues(call: _Call, delta: ToolCallFragment) -> bool:
    """Whether a fragment with a new id, at the index of ``call``, is a further part of its arguments."""
    if delta.name or delta.index is None or not call.name:
        return False
    return not call.has_arguments or not call.is_closed()


def _is_another(call: _Call, delta: ToolCallFragment) -> bool:
    """Whether a fragment with a name belongs to another call, though its index is that of ``call``."""
    if delta.name != call.name:
        return True
    # Some providers repeat the name in every fragment: only a second object after a complete one is another call.
    if not delta.arguments.lstrip().startswith("{") or not "".join(call.parts[-1:]).rstrip().endswith("}"):
        return False
    if call.is_no_object or not call.is_closed():
        return False
    is_object = isinstance(_parse("".join(call.parts)), dict)
    call.is_no_object = not is_object
    return is_object


def _parse(raw: str) -> object:
    """The parsed JSON; None if it is not complete, not valid, or nested too deeply."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
