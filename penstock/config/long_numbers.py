"""Finds the numbers in a TOML file that have more digits than Python converts (`sys.get_int_max_str_digits`)."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import Any, Final

from penstock.config.checks import Shown
from penstock.errors import OptionError

__all__ = ["read_without_long_numbers"]

_RUN: Final = re.compile(r"[0-9][0-9_]{639,}")  # 640 is the lowest limit that Python allows
_MARK: Final = 7_313_000_000_000
"""Plus a position in the text, the number that replaces a long one there while its key is looked for."""


def read_without_long_numbers(text: str, file: str, prefix: str = "") -> tuple[dict[str, Any], list[OptionError]]:
    """Parse a TOML text that `tomllib` has refused for its long numbers.

    Returns the settings without those that have such a number, and at least one error: for each number one with its
    key, after ``prefix``, and its line.

    Raises:
        tomllib.TOMLDecodeError: there is another fault in the text.
    """
    limit = sys.get_int_max_str_digits()
    marks: dict[int, re.Match[str]] = {}

    def mark(run: re.Match[str]) -> str:
        if _count(run) <= limit:
            return run[0]
        marks[_MARK + run.start()] = run
        return str(_MARK + run.start())

    tree = tomllib.loads(_RUN.sub(mark, text))
    places: dict[int, str] = {}
    _take_numbers(tree, marks, "", places)
    errors = [
        OptionError(
            prefix + place,
            Shown(f"a number of {_count(marks[number])} digits"),
            f"a number of at most {limit} digits",
            source=f"{file}, line {1 + text.count(chr(10), 0, marks[number].start())}",
        )
        for number, place in sorted(places.items())
    ]
    if not errors:
        problem = f"a number in the file has more than {limit} digits"
        errors.append(OptionError(f"{prefix}config", file, "a TOML file", problem=problem, source=file))
    return tree, errors


def _count(run: re.Match[str]) -> int:
    return len(run[0].replace("_", ""))


def _take_numbers(value: Any, marks: dict[int, Any], place: str, places: dict[int, str]) -> bool:
    """Note the places of the marked numbers, and remove the settings that have them; whether ``value`` has one.

    Digits in texts, keys and floats are never refused, so they may keep their marks: this result is only for errors.
    """
    if isinstance(value, dict):
        found = [key for key, item in value.items() if _take_numbers(item, marks, f"{place}.{key}".strip("."), places)]
        for key in found:
            del value[key]
    elif isinstance(value, list):
        return sum(_take_numbers(item, marks, place, places) for item in value) > 0  # all of them, not up to the first
    elif isinstance(value, int) and abs(value) in marks:
        places[abs(value)] = place
        return True
    return False
