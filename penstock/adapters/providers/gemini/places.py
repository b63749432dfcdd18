"""Places in an answer's text: Google counts bytes of UTF-8, Penstock characters."""

from __future__ import annotations

from typing import Final

from penstock.adapters.providers.shared.surrogates import replace_surrogates

__all__ = ["WrittenText"]

_STEP: Final = 1_024
_CONTINUING: Final = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that do not begin a character."""
_BLOCKS: Final = 8
"""In so many of the last blocks of text a place is looked for."""


class WrittenText:
    """An answer's text so far.

    Converting a place takes the same time however long the text is; the text is encoded once, and not before a place
    is asked for.

    Attributes:
        pieces: what has been written since the last look. The decoder appends to it.
        block_from: how many characters come before the present block of text.
    """

    __slots__ = ("_blocks", "_data", "_half", "_marks", "block_from", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.block_from = 0
        self._half = ""  # a high surrogate: the other half of the character may be in the next piece
        self._data = bytearray()
        self._marks = [0]  # characters before byte 0, 1,024, 2,048 …
        self._blocks: list[int] = []  # the bytes before each block but the first

    def start_block(self) -> None:
        """Begin a block: something stands between the text so far and the text to come."""
        self._look(is_whole=True)
        self._blocks.append(len(self._data))
        self.block_from = self._characters(len(self._data))

    def span(self, start: int, end: int, said: str = "") -> tuple[int, int] | None:
        """Return the places in characters of the text from byte ``start`` to before byte ``end``.

        Args:
            start: first byte, counted from the start of the text; or of a block, if the text of that matches.
            end: the byte after the last one.
            said: the text there, if the provider quotes it.

        Returns:
            None: it is empty, lies outside of the text, cuts a character into pieces, or is not certain.
        """
        self._look()
        if not 0 <= start < end:
            return None
        if said:
            quoted = replace_surrogates(said).encode()
            for origin in (0, *self._blocks[: -_BLOCKS - 1 : -1]):
                if len(quoted) == end - start and self._data.startswith(quoted, origin + start):
                    return self._characters(origin + start), self._characters(origin + end)
            if self._blocks:
                return None
        if end > len(self._data) or not self._is_border(start) or not self._is_border(end):
            return None
        return self._characters(start), self._characters(end)

    def _look(self, *, is_whole: bool = False) -> None:
        """Encode what has been written. Half of a character waits for its other half, unless the text ``is_whole``."""
        if not self.pieces and not self._half:
            return
        text = self._half + "".join(self.pieces)
        self.pieces.clear()
        self._half = ""
        if not is_whole and "\ud800" <= text[-1] <= "\udbff":
            self._half, text = text[-1], text[:-1]
        self._data += replace_surrogates(text).encode()
        while len(self._marks) * _STEP <= len(self._data):
            self._marks.append(self._characters(len(self._marks) * _STEP))

    def _characters(self, before: int) -> int:
        """How many characters begin before a byte."""
        mark = min(before // _STEP, len(self._marks) - 1)
        return self._marks[mark] + len(self._data[mark * _STEP : before].translate(None, _CONTINUING))

    def _is_border(self, place: int) -> bool:
        return place == len(self._data) or self._data[place] not in _CONTINUING
