"""The beginning of an answer that a stored log has already, which the provider sends again from its first piece. Pure.

A process that takes a stream over does not know how the former one's reads fell: its log ends somewhere, often in the
middle of what one event of the provider has said. So the whole answer is asked for again, and as much of it as the log
has is left out, piece by piece and character by character, if it is the same. What differs is another answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, get_args

import msgspec

from penstock.actors.stream.buffer import PartStart
from penstock.events import (
    AnswerEvent,
    Event,
    FrozenDict,
    NoticeEvent,
    SideEvent,
    StreamReset,
    TokenEvent,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
)
from penstock.events.codec import decode_value, encode_value

__all__ = ["Overlap"]

_Item: TypeAlias = Any
"""A text and its kind as a tuple, another event, or a `PartStart`."""

_OF_THE_ANSWER: Final = (*get_args(AnswerEvent), ToolCallStarted, ToolCallCompleted)
_ABOUT_THE_STREAM: Final = get_args(NoticeEvent)
_NO_METADATA: Final = FrozenDict()


class _Piece(NamedTuple):
    """Text that may have been cut anywhere: of one kind and part of the answer, or of one call's arguments."""

    place: tuple[Any, ...]
    text: str


_Stored: TypeAlias = _Piece | SideEvent


class Overlap:
    """What a log has of an answer, and how much of that has come again.

    Args:
        pieces: in order; see `of`.
    """

    __slots__ = ("_at", "_offset", "_pieces", "_start")

    def __init__(self, pieces: Sequence[_Stored]) -> None:
        self._pieces = tuple(pieces)
        self._at = 0  # the piece that is to come next
        self._offset = 0  # characters of it that have come
        self._start: PartStart | None = None  # of the part that the next token belongs to

    @classmethod
    def of(cls, events: Sequence[Event]) -> Overlap | None:
        """What a log with these events has of its last answer: all since the last reset.

        None if that is not the beginning of one answer, whole and with nothing else in between: tokens were dropped, or
        it has events that no answer has.
        """
        runs: list[tuple[tuple[Any, ...], list[str]] | SideEvent] = []
        is_whole = True
        for event in events:
            if isinstance(event, StreamReset) and event.origin is None:
                runs.clear()
                is_whole = True
            elif isinstance(event, _ABOUT_THE_STREAM):
                continue
            elif isinstance(event, TokenEvent) and not event.dropped and event.origin is None:
                _add(runs, (event.kind, event.part, event.phase), event.text)
            elif isinstance(event, ToolCallDelta) and event.origin is None:
                _add(runs, (event.index,), event.text)
            elif isinstance(event, _OF_THE_ANSWER) and event.origin is None:
                runs.append(_plain(event))
            else:
                is_whole = False
        if not is_whole:
            return None
        return cls([_Piece(run[0], "".join(run[1])) if isinstance(run, tuple) else run for run in runs])

    def copy(self) -> Overlap:
        """The same, of which nothing has come again."""
        return Overlap(self._pieces)

    @property
    def is_empty(self) -> bool:
        """Whether the log has nothing of the answer."""
        return not self._pieces

    @property
    def is_passed(self) -> bool:
        """Whether all of it has come again."""
        return self._at == len(self._pieces)

    @property
    def text_length(self) -> int:
        """How many characters of the kind ``"text"`` the log has of the answer."""
        return sum(len(piece.text) for piece in self._pieces if isinstance(piece, _Piece) and piece.place[0] == "text")

    def skip(self, items: Sequence[_Item]) -> list[_Item] | None:
        """Leave out what the log has; returns the rest of the items, or None if they are not what the log has."""
        if self.is_passed:
            return list(items)
        for place, item in enumerate(items):
            if item.__class__ is PartStart:
                self._start = item
                continue
            is_same, rest = self._match(item)
            if not is_same:
                return None
            if self.is_passed:
                start = [] if self._start is None else [self._start]
                return [*start, *([] if rest is None else [rest]), *items[place + 1 :]]
        return []

    def _match(self, item: _Item) -> tuple[bool, _Item]:
        """Compare an item with what is to come; returns whether it is the same, and what of it the log does not have.

        ``(True, None)``: the log has all of it.
        """
        if item.__class__ is tuple:
            text, kind = item
            part, phase = (0, None) if self._start is None else (self._start.part, self._start.phase)
            rest = self._match_text((kind, part, phase), text)
            return rest is not None, (rest, kind) if rest else None
        if isinstance(item, ToolCallDelta):
            rest = self._match_text((item.index,), item.text)
            return rest is not None, msgspec.structs.replace(item, text=rest) if rest else None
        piece = self._pieces[self._at]
        if isinstance(piece, _Piece) or piece != decode_value(encode_value(_plain(item))):  # as the log gives it back
            return False, None
        self._at += 1
        return True, None

    def _match_text(self, place: tuple[Any, ...], text: str) -> str | None:
        """What of a text is left behind the end of the log; None if it differs."""
        piece = self._pieces[self._at]
        if not isinstance(piece, _Piece) or piece.place != place:
            return None
        count = min(len(text), len(piece.text) - self._offset)
        if not piece.text.startswith(text[:count], self._offset):
            return None
        self._offset += count
        if self._offset == len(piece.text):
            self._at, self._offset = self._at + 1, 0
        rest = text[count:]
        return rest if not rest or self.is_passed else None  # else the log has something other than this text's rest


def _add(runs: list[tuple[tuple[Any, ...], list[str]] | SideEvent], place: tuple[Any, ...], text: str) -> None:
    last = runs[-1] if runs else None
    if isinstance(last, tuple) and last[0] == place:
        last[1].append(text)
    elif text:
        runs.append((place, [text]))


def _plain(event: SideEvent) -> SideEvent:
    """An event without what the stream has added to it."""
    return msgspec.structs.replace(event, stream_id="", seq=0, timestamp=0.0, metadata=_NO_METADATA)
