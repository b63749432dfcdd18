"""The buffer between whoever pushes tokens and the stream that emits them. Pure; its owner brings the lock.

A batch that is taken counts as buffered until it is committed: if it could not be delivered, or its stream crashed, it
goes back where it was.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from penstock.config.options import Overflow
from penstock.events import TokenKind

__all__ = ["Batch", "TokenBuffer"]

_COMPACT_AT: Final = 512


class Batch(NamedTuple):
    """Tokens of one kind, in order, as they will be one event."""

    kind: TokenKind
    tokens: tuple[str, ...]


class TokenBuffer:
    """A bounded queue of tokens with an overflow rule.

    Text tokens are kept as bare strings, others as ``(kind, text)``: text is nearly all there is.
    """

    __slots__ = (
        "_head",
        "_items",
        "_other_kinds",
        "_taken",
        "_taken_dropped",
        "_taken_for",
        "dropped",
        "dropped_ever",
        "high_water_mark",
        "max_size",
        "size",
    )

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.size = 0  # tokens in it, those of a taken batch included
        self.high_water_mark = 0
        self.dropped = 0  # since the last batch that was committed
        self.dropped_ever = 0
        self._items: list[Any] = []
        self._head = 0
        self._other_kinds = 0  # how many of the items are no text
        self._taken: Batch | None = None
        self._taken_for = 0  # the number of the event the taken batch is to become
        self._taken_dropped = 0  # how many dropped tokens that event tells of

    def offer(self, token: str) -> bool:
        """Add a text token if there is room; returns whether there was."""
        size = self.size
        if size >= self.max_size:
            return False
        self._items.append(token)
        self.size = size = size + 1
        if size > self.high_water_mark:
            self.high_water_mark = size
        return True

    def offer_kind(self, token: str, kind: TokenKind) -> bool:
        """Add a token of any kind if there is room; returns whether there was."""
        if not self.offer(token):
            return False
        if kind != "text":
            self._items[-1] = (kind, token)
            self._other_kinds += 1
        return True

    def force(self, token: str, kind: TokenKind, overflow: Overflow) -> bool:
        """Add the token; if there is no room, drop it or older ones, as ``overflow`` says. Returns whether it is in.

        A bound that was lowered below what waits holds again after the first ``"drop_oldest"``.
        """
        while not self.offer_kind(token, kind):
            self.dropped += 1
            self.dropped_ever += 1
            if overflow != "drop_oldest" or self._head == len(self._items):
                return False
            self._discard(1)
            self.size -= 1
        return True

    def take(self, limit: int, event_number: int) -> Batch | None:
        """Take the first tokens, all of one kind, at most ``limit``; None if there are none.

        They stay reserved until `commit` or `restore`. The event they become tells of the ``dropped`` tokens so far.
        """
        assert self._taken is None, "the last batch is neither committed nor restored"
        head, items = self._head, self._items
        if head == len(items):
            return None
        if not self._other_kinds:
            batch = Batch("text", tuple(items[head : head + limit]))
        else:
            batch = self._take_kind(limit)
        self._discard(len(batch.tokens))
        self._taken = batch
        self._taken_for = event_number
        self._taken_dropped = self.dropped
        return batch

    def _take_kind(self, limit: int) -> Batch:
        tokens: list[str] = []
        kind: TokenKind | None = None
        for item in self._items[self._head : self._head + limit]:
            its_kind: TokenKind = "text" if item.__class__ is str else item[0]
            token = item if item.__class__ is str else item[1]
            if kind is None:
                kind = its_kind
            elif kind != its_kind:
                break
            tokens.append(token)
        return Batch(kind or "text", tuple(tokens))

    def commit(self, batch: Batch | None = None) -> None:
        """The taken batch is in the log: its room is free. With ``batch``, only if that is the one that is taken."""
        if self._taken is not None and (batch is None or self._taken is batch):
            self.size -= len(self._taken.tokens)
            self.dropped -= self._taken_dropped
            self._taken = None

    def restore(self, batch: Batch | None = None) -> None:
        """The taken batch could not be delivered: it is the first again. With ``batch`` as for `commit`."""
        if batch is not None and self._taken is not batch:
            return
        batch, self._taken = self._taken, None
        if batch is not None:
            text = batch.kind == "text"
            self._items[self._head : self._head] = batch.tokens if text else [(batch.kind, t) for t in batch.tokens]
            self._other_kinds += 0 if text else len(batch.tokens)

    def recover(self, last_event: int) -> None:
        """After a crash: keep the taken batch, unless the log, which ends with ``last_event``, has it already."""
        if last_event >= self._taken_for:
            self.commit()
        else:
            self.restore()

    def clear(self) -> int:
        """Throw everything away; returns how many tokens that were."""
        size = self.size
        self._items.clear()
        self._head = self._other_kinds = self.size = 0
        self._taken = None
        return size

    def _discard(self, count: int) -> None:
        if self._other_kinds:
            gone = self._items[self._head : self._head + count]
            self._other_kinds -= sum(1 for item in gone if item.__class__ is not str)
        self._head += count
        if self._head == len(self._items):
            self._items.clear()
            self._head = 0
        elif self._head >= _COMPACT_AT and self._head * 2 >= len(self._items):
            del self._items[: self._head]
            self._head = 0
