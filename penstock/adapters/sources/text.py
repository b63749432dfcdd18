"""A text as a source: cut into units, and paced if need be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.config.checks import check_number, type_of
from penstock.config.units import Unit, check_unit, cut
from penstock.errors import OptionError
from penstock.ports import Pause

__all__ = ["TextSource", "text"]


def text(text: str, by: Unit = "word", delay: float = 0.0) -> TextSource:
    """A text as a source of a stream, unit by unit. The units join to exactly the text.

    The stream's `statistics` have ``position`` and ``total`` in code points, and ``progress``.

    Args:
        text: of any length.
        by: ``"word"``, ``"sentence"``, ``"line"``, ``"character"`` (a grapheme cluster), or a number of code points,
            which never cuts a character either.
        delay: seconds between two units, 0 … 3600.

    Raises:
        OptionError: an argument is not allowed.
    """
    if not isinstance(text, str):
        raise OptionError("text", type_of(text), "a str")
    check_unit("by", by)
    check_number("delay", delay, 0, 3600)
    return TextSource(text, by, delay)


class TextSource:
    """Made by `text`. Implements `penstock.ports.Source`."""

    kind = "text"
    blocks = False
    on_own_loop = False

    def __init__(self, text: str, by: Unit, delay: float) -> None:
        self._text = text
        self._by = by
        self._delay = delay
        self._position = 0

    def open(self) -> Iterator[str | Pause]:
        """See `Source.open`."""
        pause = Pause(self._delay) if self._delay else None
        for unit in cut(self._text, self._by):
            if pause is not None and self._position:
                yield pause
            self._position += len(unit)
            yield unit

    def cancel(self) -> None:
        """See `Source.cancel`."""

    def counters(self) -> Mapping[str, Any]:
        """See `Source.counters`."""
        total = len(self._text)
        return {
            "position": self._position,
            "total": total,
            "progress": self._position / total if total else 1.0,
        }
