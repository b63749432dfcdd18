"""Function call arguments that Gemini sends value by value (``partialArgs``), as the JSON text they make.

Each value comes with its place as a JSON path (``$.items[0].name``), long texts in several pieces, all in the order
in which they stand in the object. So the text can be written as they come, and is complete only when the call is: what
was cut off is no JSON, and nobody takes it for a call that can be run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from penstock.adapters.providers.shared.json_values import text_of

__all__ = ["PartialArguments"]

_Key: TypeAlias = str | int
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\[(["'])(.*?)\3\]""")
_DEEPEST = 64


class PartialArguments:
    """Writes one call's arguments. ``skipped`` counts values that cannot be written where they came."""

    def __init__(self) -> None:
        self.skipped = 0
        self._path: tuple[_Key, ...] = ()  # of the innermost object or array that is open
        self._closers: list[str] = []  # what closes each step of that
        self._is_empty = True  # whether nothing has been written into that yet
        self._string: tuple[_Key, ...] | None = None  # whose text may go on
        self._is_broken = False
        self._done: set[tuple[_Key, ...]] = set()  # whatever is closed, and cannot be written into any more

    def begin(self) -> str:
        """The text's beginning."""
        return "{"

    def add(self, value: Mapping[str, Any]) -> str:
        """The text that one of ``partialArgs`` adds."""
        path = _parse(text_of(value.get("jsonPath")))
        if self._string is not None and path == self._string:
            return self._go_on(value)
        written = self._end_string()
        literal = _literal(value)
        if path is None or literal is None or self._is_broken or not self._fits(path):
            # What follows would be told without this: better a call that cannot be run than one that means less.
            self._is_broken = True
            self.skipped += 1
            return written
        written += self._lead_to(path) + literal
        self._done.add(path)
        if value.get("willContinue") is True and literal.endswith('"'):
            self._string = path
            return written[:-1]
        return written

    def end(self) -> str:
        """What closes the text: everything that is open, unless something is missing in it."""
        return "" if self._is_broken else self._end_string() + self._close_down_to(0) + "}"

    def _go_on(self, value: Mapping[str, Any]) -> str:
        more = _quoted(text_of(value.get("stringValue")))[1:-1]
        return more if value.get("willContinue") is True else more + self._end_string()

    def _end_string(self) -> str:
        open_before, self._string = self._string, None
        return '"' if open_before is not None else ""

    def _fits(self, path: tuple[_Key, ...]) -> bool:
        """Whether nothing on the way to ``path`` is closed already, or is an array where it wants an object."""
        if any(path[:depth] in self._done for depth in range(1, len(path) + 1)):
            return False
        shared = self._shared(path)
        inside = self._closers[shared - 1] if shared else "}"
        return isinstance(path[shared], int) == (inside == "]")

    def _shared(self, path: tuple[_Key, ...]) -> int:
        """How many of the steps to ``path`` are open."""
        shared = 0
        while shared < min(len(path) - 1, len(self._path)) and path[shared] == self._path[shared]:
            shared += 1
        return shared

    def _close_down_to(self, depth: int) -> str:
        written = ""
        while len(self._path) > depth:
            self._done.add(self._path)
            written += self._closers.pop()
            self._path = self._path[:-1]
            self._is_empty = False
        return written

    def _lead_to(self, path: tuple[_Key, ...]) -> str:
        """Close and open what lies between the last value and this one, down to the colon before it."""
        shared = self._shared(path)
        written = self._close_down_to(shared)
        for depth in range(shared, len(path)):
            written += "" if self._is_empty else ","
            key = path[depth]
            written += "" if isinstance(key, int) else _quoted(key) + ":"
            self._is_empty = False
            if depth < len(path) - 1:
                is_array = isinstance(path[depth + 1], int)
                written += "[" if is_array else "{"
                self._closers.append("]" if is_array else "}")
                self._path = path[: depth + 1]
                self._is_empty = True
        return written


def _parse(path: str) -> tuple[_Key, ...] | None:
    """The keys of a JSON path; None where it is none, or leads too deep."""
    if not path.startswith("$"):
        return None
    keys: list[_Key] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or len(keys) == _DEEPEST:
            return None
        name, number, _, quoted = step.groups()
        keys.append(name if name is not None else int(number) if number is not None else quoted)
        at = step.end()
    return tuple(keys) if keys and isinstance(keys[0], str) else None


def _literal(value: Mapping[str, Any]) -> str | None:
    if isinstance(text := value.get("stringValue"), str):
        return _quoted(text)
    if isinstance(number := value.get("numberValue"), (int, float)):
        return json.dumps(number)
    if isinstance(switch := value.get("boolValue"), bool):
        return json.dumps(switch)
    return "null" if "nullValue" in value else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
