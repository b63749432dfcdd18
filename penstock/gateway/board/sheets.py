"""Tables that change, as few bytes. Pure.

A `Sheet` is at the server: it is given all rows and says what has changed. A `SheetCopy` is at the reader's side: it
is given the snapshot and the changes. Rows have numbers, so that a change need not repeat a long id.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any, TypeAlias

__all__ = ["Row", "Sheet", "SheetCopy", "changed"]

Row: TypeAlias = tuple[Any, ...]
"""The values of the columns."""


class Sheet:
    """A table as its readers have it.

    Args:
        columns: their names.

    >>> sheet = Sheet(("id", "state", "tokens"))
    >>> sheet.change({"a": ("a", "idle", 0), "b": ("b", "idle", 0)})
    {'added': [[1, 'a', 'idle', 0], [2, 'b', 'idle', 0]]}
    >>> sheet.change({"a": ("a", "idle", 7)})
    {'rows': [[1, 2, 7]], 'gone': [2]}
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._rows: dict[Hashable, tuple[int, Row]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._rows)

    def number(self, key: Hashable) -> int | None:
        """The number of a row; None: there is none. A row that is gone and comes again has another one."""
        found = self._rows.get(key)
        return None if found is None else found[0]

    @property
    def following(self) -> int:
        """The number of the next new row; later ones count on from it, in the order in which they are given."""
        return self._last + 1

    def snapshot(self) -> dict[str, Any]:
        """``columns``, and all ``rows``, each with its number and its values."""
        return {"columns": self.columns, "rows": [[number, *row] for number, row in self._rows.values()]}

    def change(self, rows: Mapping[Any, Row]) -> dict[str, Any]:
        """Take the rows that there are now, by key; returns what has changed. What has not is left out.

        Returns:
            ``rows``: lists of a row's number, and the place and the value of each column that has changed, one after
            the other. ``added``: lists of a new row's number and values. ``gone``: numbers.
        """
        known, places = self._rows, range(len(self.columns))
        made: list[list[Any]] = []
        added: list[list[Any]] = []
        now: dict[Hashable, tuple[int, Row]] = {}
        for key, row in rows.items():
            found = known.get(key)
            if found is None:
                self._last += 1
                now[key] = (self._last, row)
                added.append([self._last, *row])
                continue
            number, before = found
            if before == row:
                now[key] = found
                continue
            now[key] = (number, row)
            change = [number]
            for place in compress(places, map(ne, before, row)):
                change += (place, row[place])
            made.append(change)
        gone = [number for key, (number, _) in known.items() if key not in now]
        self._rows = now
        parts = {"rows": made, "added": added, "gone": gone}
        return {name: part for name, part in parts.items() if part}


class SheetCopy:
    """A table as a reader has it.

    Attributes:
        columns: their names.
        rows: the values by row number, in the order in which the rows were added.
    """

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: dict[int, list[Any]] = {}

    def take(self, snapshot: Mapping[str, Any]) -> None:
        """Begin again with a snapshot of `Sheet.snapshot`."""
        self.columns = tuple(snapshot["columns"])
        self.rows = {number: values for number, *values in snapshot["rows"]}

    def apply(self, change: Mapping[str, Any]) -> None:
        """Apply what `Sheet.change` has returned. Numbers that are not known are ignored."""
        for number in change.get("gone", ()):
            self.rows.pop(number, None)
        for number, *values in change.get("added", ()):
            self.rows[number] = values
        for number, *pairs in change.get("rows", ()):
            row = self.rows.get(number)
            if row is not None:
                for place, value in zip(pairs[::2], pairs[1::2], strict=True):
                    row[place] = value

    def named(self) -> list[dict[str, Any]]:
        """All rows as mappings of the columns' names."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows.values()]


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are new or have another value.

    >>> changed({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None})
    {'b': 3, 'c': None}
    """
    return {name: value for name, value in now.items() if name not in before or before[name] != value}
