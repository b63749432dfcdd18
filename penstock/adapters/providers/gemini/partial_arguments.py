"""Arguments of a function call that Gemini sends value by value (``partialArgs``), written as JSON text.

Each value comes with its place as a JSON path (``$.items[0].name``), long strings in several fragments, all in the
order in which they appear in the object. So the text can be written as they arrive. It is complete only at the end of
the call: arguments that were cut off are not valid JSON, and the call cannot be mistaken for a complete one.
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
    """Writes the arguments of one call.

    Attributes:
        skipped: values that could not be written where they came.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._path: tuple[_Key, ...] = ()  # of the innermost object or array that is open
        self._closers: list[str] = []  # the closing bracket of each step of that path
        self._is_empty = True  # whether that object or array has no content yet
        self._open_string: tuple[_Key, ...] | None = None  # path of the string that may continue
        self._is_broken = False
        self._closed: set[tuple[_Key, ...]] = set()  # paths that cannot be written to any more

    def begin(self) -> str:
        """Return the beginning of the text."""
        return "{"

    def add(self, value: Mapping[str, Any]) -> str:
        """Return the text that one item of ``partialArgs`` adds."""
        path = _parse_path(text_of(value.get("jsonPath")))
        if self._open_string is not None and path == self._open_string:
            return self._continue_string(value)
        written = self._end_string()
        literal = _literal(value)
        if path is None or literal is None or self._is_broken or not self._fits(path):
            # The rest would be valid without this value. A call that cannot be run is better than one that differs
            # from what the model wrote.
            self._is_broken = True
            self.skipped += 1
            return written
        written += self._move_to(path) + literal
        self._closed.add(path)
        if value.get("willContinue") is True and literal.endswith('"'):
            self._open_string = path
            return written[:-1]
        return written

    def end(self) -> str:
        """Return the text that closes everything that is open; nothing if a value is missing."""
        return "" if self._is_broken else self._end_string() + self._close_down_to(0) + "}"

    def _continue_string(self, value: Mapping[str, Any]) -> str:
        text = _quoted(text_of(value.get("stringValue")))[1:-1]
        return text if value.get("willContinue") is True else text + self._end_string()

    def _end_string(self) -> str:
        was_open, self._open_string = self._open_string, None
        return '"' if was_open is not None else ""

    def _fits(self, path: tuple[_Key, ...]) -> bool:
        """Tell whether every step to ``path`` is still open, and is an array or an object as the path requires."""
        if any(path[:depth] in self._closed for depth in range(1, len(path) + 1)):
            return False
        shared = self._shared_steps(path)
        closer = self._closers[shared - 1] if shared else "}"
        return isinstance(path[shared], int) == (closer == "]")

    def _shared_steps(self, path: tuple[_Key, ...]) -> int:
        """Count the steps to ``path`` that are open."""
        shared = 0
        while shared < min(len(path) - 1, len(self._path)) and path[shared] == self._path[shared]:
            shared += 1
        return shared

    def _close_down_to(self, depth: int) -> str:
        written = ""
        while len(self._path) > depth:
            self._closed.add(self._path)
            written += self._closers.pop()
            self._path = self._path[:-1]
            self._is_empty = False
        return written

    def _move_to(self, path: tuple[_Key, ...]) -> str:
        """Close and open what lies between the last value and this one, up to and including the colon before it."""
        shared = self._shared_steps(path)
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


def _parse_path(path: str) -> tuple[_Key, ...] | None:
    """Return the keys of a JSON path; None if it is malformed or too deep."""
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
    if isinstance(boolean := value.get("boolValue"), bool):
        return json.dumps(boolean)
    return "null" if "nullValue" in value else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
