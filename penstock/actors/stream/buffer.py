"""The buffer between the producers of tokens and the stream that emits them. Pure; its owner holds the lock.

A batch that is taken counts as buffered until it is committed. If it could not be delivered, or the stream's actor
crashed, it goes back to the front.

Tool events are buffered among the tokens, each as a batch of its own. They are never refused and never dropped, but
they count: while they wait, there is less room for tokens. When the buffer is full, a piece of a call's arguments is
joined to the one before it, and a tool's progress report replaces its previous one, so that there are not many more
events than calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from penstock.config.options import Overflow
from penstock.config.units import whole_prefix
from penstock.events import Phase, Progress, SideEvent, StreamStarted, TokenKind, ToolCallDelta, ToolProgress

__all__ = ["Batch", "EventBatch", "PartStart", "TokenBuffer", "Undelivered"]

_COMPACT_AT: Final = 512
_WHOLE: Final = 12  # characters of a token that is not divided


class Batch(NamedTuple):
    """Tokens of one kind and one part of the answer, in order; they become one event."""

    kind: TokenKind
    tokens: tuple[str, ...]
    part: int = 0
    phase: Phase | None = None
    origin: str | None = None


class EventBatch(NamedTuple):
    """A single event that is not text, not yet numbered."""

    event: SideEvent


class PartStart(NamedTuple):
    """The tokens that follow belong to this part of the answer; see `penstock.events.AnswerPart`.

    No event has tokens from before and after it, even if they are of the same part.
    """

    part: int
    phase: Phase | None = None
    origin: str | None = None


class Undelivered(NamedTuple):
    """A buffered token that no event has."""

    kind: TokenKind
    text: str
    part: int = 0
    phase: Phase | None = None
    origin: str | None = None


class _Pieces:
    """Several pieces of one call's arguments, buffered as one event."""

    __slots__ = ("first", "texts")

    def __init__(self, first: ToolCallDelta) -> None:
        self.first = first
        self.texts = [first.text]

    def joined(self) -> ToolCallDelta:
        return msgspec.structs.replace(self.first, text="".join(self.texts))


class TokenBuffer:
    """A bounded queue of tokens with an overflow rule.

    Text tokens, by far the most frequent items, are kept as bare strings, other tokens as ``(kind, text)``, events as
    they are. The starts of parts stand between them, and count as nothing.
    """

    __slots__ = (
        "_events_until",
        "_head",
        "_items",
        "_other_kinds",
        "_present",
        "_taken",
        "_taken_dropped",
        "_taken_for",
        "_taken_size",
        "dropped",
        "dropped_ever",
        "dropped_text",
        "events",
        "high_water_mark",
        "max_size",
        "size",
    )

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.size = 0  # buffered tokens and events, including those of a taken batch
        self.events = 0  # how many of them are events
        self.high_water_mark = 0
        self.dropped = 0  # since the last committed batch
        self.dropped_ever = 0
        self.dropped_text = 0  # characters of text dropped since the last `clear`
        self._items: list[Any] = []
        self._head = 0
        self._events_until = 0  # there are no tokens among the items before this index; for `_drop_oldest`
        self._other_kinds = 0  # how many of the items are not text tokens
        self._present = _FIRST_PART  # the part of the first item, if that is a token
        self._taken: Batch | EventBatch | None = None
        self._taken_size = 0
        self._taken_for = 0  # the number of the event that the taken batch becomes
        self._taken_dropped = 0  # the dropped tokens that this event reports

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

    def offer_all(self, tokens: Sequence[tuple[str, TokenKind]], first: int) -> int:
        """Add tokens of any kind from index ``first`` on, while there is room; returns the index of the first one left.

        The same as `offer_kind` one by one, in a sixth of the time where all are text.
        """
        room = self.max_size - self.size
        some = tokens[first : first + room] if room > 0 else ()
        texts = [text for text, kind in some if kind == "text"]
        if len(texts) < len(some):
            for text, kind in some:
                self.offer_kind(text, kind)
        elif texts:
            self._items += texts
            self.size = size = self.size + len(texts)
            if size > self.high_water_mark:
                self.high_water_mark = size
        return first + len(some)

    def pass_by(self, count: int) -> PartStart | None:
        """Count ``count`` tokens that are not buffered; returns the part that they belong to.

        None, without a change, if anything waits: a token, an event, the start of a part, a report of dropped tokens.
        """
        if self._items or self.size or self.dropped:
            return None
        if count > self.high_water_mark:
            self.high_water_mark = count
        return self._present

    def start_part(self, start: PartStart) -> None:
        """Add the start of a part; it needs no room."""
        self._items.append(start)
        self._other_kinds += 1

    def put_event(self, event: SideEvent) -> None:
        """Add an event, even without room."""
        if self.size >= self.max_size and self._join(event):
            return
        self._items.append(event)
        self.events += 1
        self._other_kinds += 1
        self.size = size = self.size + 1
        if size > self.high_water_mark:
            self.high_water_mark = size

    def _join(self, event: SideEvent) -> bool:
        """Merge ``event`` into one that is buffered already; returns whether there is such an event."""
        items = self._items
        if isinstance(event, ToolCallDelta) and self._head < len(items):
            last = items[-1]
            first = last.first if last.__class__ is _Pieces else last
            if first.__class__ is ToolCallDelta and first.index == event.index and first.origin == event.origin:
                if first is last:
                    last = items[-1] = _Pieces(first)
                last.texts.append(event.text)
                return True
        elif isinstance(event, (ToolProgress, Progress)):
            for place in range(len(items) - 1, self._head - 1, -1):  # only progress reports may stand in between
                other = items[place]
                if other.__class__ is not event.__class__:
                    return False
                if other.origin == event.origin and getattr(other, "call_id", "") == getattr(event, "call_id", ""):
                    items[place] = event
                    return True
        return False

    def due(self, limit: int) -> int:
        """How many tokens, at most ``limit``, come before the next event or part; 0 if an event is first."""
        self._pass_starts()
        items, head = self._items, self._head
        for count, item in enumerate(items[head : head + limit]):
            if _is_event(item):
                return count
        return min(limit, len(items) - head)

    def before_border(self) -> tuple[int, int]:
        """How many tokens and events stand up to the last border, and how many characters come after it.

        A border is an event, or the first token of another kind than that of the token before.
        """
        items, head = self._items, self._head
        if not self._other_kinds:
            return 0, sum(map(len, items[head:]))
        count = until = characters = 0
        kind: TokenKind | None = None
        for item in items[head:]:
            if item.__class__ is PartStart:
                continue
            if _is_event(item):
                count += 1
                until, characters, kind = count, 0, None
                continue
            item_kind: TokenKind = "text" if item.__class__ is str else item[0]
            token = item if item.__class__ is str else item[1]
            if item_kind != kind:
                until, characters, kind = count, 0, item_kind
            count += 1
            characters += len(token)
        return until, characters

    def portion(self, characters: int, least: int) -> tuple[int, int, int]:
        """How many of the first tokens are nearly so many ``characters``: tokens, their characters, tokens divided.

        At least ``least`` tokens, if there are so many. A token of up to 12 characters counts if half of it does; a
        longer one is divided, between two characters as a reader sees them.
        """
        items = self._items
        tokens = given = 0
        for place in range(self._head, len(items)):
            item = items[place]
            if item.__class__ is PartStart:
                continue
            if _is_event(item):
                break
            token = item if item.__class__ is str else item[1]
            left = characters - given
            if tokens >= least and len(token) > left and (len(token) > _WHOLE or left * 2 < len(token)):
                part = whole_prefix(token, left) if len(token) > _WHOLE else ""
                if not part:
                    break
                rest = token[len(part) :]
                items[place : place + 1] = (part, rest) if item is token else ((item[0], part), (item[0], rest))
                self._other_kinds += item is not token
                self.size += 1
                return tokens + 1, given + len(part), 1
            if tokens >= least and left <= 0:
                break
            tokens += 1
            given += len(token)
        return tokens, given, 0

    def force(self, token: str, kind: TokenKind, overflow: Overflow) -> bool:
        """Add the token; if there is no room, drop it or older ones, by ``overflow``. Returns whether it was added.

        If ``max_size`` was lowered below ``size``, the first ``"drop_oldest"`` drops as many tokens as are too many.
        """
        while not self.offer_kind(token, kind):
            self.dropped += 1
            self.dropped_ever += 1
            if overflow != "drop_oldest" or not self._drop_oldest():
                self.dropped_text += len(token) if kind == "text" else 0
                return False
            self.size -= 1
        return True

    def _drop_oldest(self) -> bool:
        """Drop the oldest token; returns whether there was one. Events before it keep their place."""
        items, head = self._items, self._head
        place = head
        if place < len(items) and _is_event(items[place]):
            place = max(place, self._events_until)
            while place < len(items) and _is_event(items[place]):
                place += 1
            self._events_until = place
        if place == len(items):
            return False
        item = items[place]
        self.dropped_text += len(item) if item.__class__ is str else 0
        if place == head:
            self._discard(1)
        else:
            self._other_kinds -= item.__class__ is not str
            del items[place]
        return True

    def take(self, limit: int, event_number: int) -> Batch | EventBatch | None:
        """Take the first tokens, all of one kind and part, at most ``limit``, or the event that is first.

        None if the buffer is empty.

        The batch stays reserved until `commit` or `restore`. A token event reports the tokens ``dropped`` so far; a
        tool event has no such field.
        """
        assert self._taken is None, "the last batch is neither committed nor restored"
        if self._other_kinds:
            self._pass_starts()
        head, items = self._head, self._items
        if head == len(items):
            return None
        self._taken_for = event_number
        if self.events and _is_event(items[head]):
            return self._take_event()
        if not self._other_kinds:
            batch = Batch("text", tuple(items[head : head + limit]), *self._present)
        else:
            batch = self._take_kind(limit)
        self._taken_size = size = len(batch.tokens)
        self._discard(size)
        self._taken = batch
        self._taken_dropped = self.dropped
        return batch

    def _take_event(self) -> EventBatch:
        item = self._items[self._head]
        batch = EventBatch(item.joined() if item.__class__ is _Pieces else item)
        self._discard(1)
        self._taken = batch
        self._taken_size = 1
        self._taken_dropped = 0
        return batch

    def _take_kind(self, limit: int) -> Batch:
        tokens: list[str] = []
        kind: TokenKind | None = None
        for item in self._items[self._head : self._head + limit]:
            if _is_event(item):
                break
            item_kind: TokenKind = "text" if item.__class__ is str else item[0]
            token = item if item.__class__ is str else item[1]
            if kind is None:
                kind = item_kind
            elif kind != item_kind:
                break
            tokens.append(token)
        return Batch(kind or "text", tuple(tokens), *self._present)

    def _pass_starts(self) -> None:
        """Note and discard the starts of parts at the front."""
        while self._head < len(self._items) and self._items[self._head].__class__ is PartStart:
            self._present = self._items[self._head]
            self._discard(1)

    def commit(self, batch: Batch | EventBatch | None = None) -> None:
        """Free the room of the taken batch, which is in the log. With ``batch``, only if that is the taken one."""
        taken = self._taken
        if taken is not None and (batch is None or taken is batch):
            self.size -= self._taken_size
            self.dropped -= self._taken_dropped
            if taken.__class__ is EventBatch:
                self.events -= 1
            self._taken = None

    def restore(self, batch: Batch | EventBatch | None = None) -> None:
        """Put the taken batch back to the front, as it could not be delivered. ``batch`` as for `commit`."""
        if batch is not None and self._taken is not batch:
            return
        batch, self._taken = self._taken, None
        if batch is not None:
            back: Sequence[Any]
            match batch:
                case EventBatch(event=event):
                    back = (event,)
                case Batch(kind="text", tokens=tokens):
                    back = tokens
                case Batch():
                    back = [(batch.kind, token) for token in batch.tokens]
            self._items[self._head : self._head] = back
            self._other_kinds += sum(1 for item in back if item.__class__ is not str)

    def recover(self, last_event: int) -> None:
        """After a crash, restore the taken batch unless the log, which ends with number ``last_event``, has it."""
        if last_event >= self._taken_for:
            self.commit()
        else:
            self.restore()

    def undelivered(self, last_event: int) -> list[Undelivered]:
        """The tokens that no event has, in order, where the log ends with number ``last_event``."""
        taken = self._taken if last_event < self._taken_for else None  # else the log has it, and `commit` is to come
        found = []
        if isinstance(taken, Batch):
            found += [Undelivered(taken.kind, token, *taken[2:]) for token in taken.tokens]
        present = self._present
        for item in self._items[self._head :]:
            if item.__class__ is str:
                found.append(Undelivered("text", item, *present))
            elif item.__class__ is tuple:
                kind, token = item
                found.append(Undelivered(kind, token, *present))
            elif item.__class__ is PartStart:
                present = item
        return found

    def undelivered_events(self, last_event: int) -> list[SideEvent]:
        """The same for the events."""
        taken = self._taken if last_event < self._taken_for else None
        first = [taken.event] if isinstance(taken, EventBatch) else []
        return first + [
            item.joined() if item.__class__ is _Pieces else item
            for item in self._items[self._head :]
            if _is_event(item) and item.__class__ is not PartStart
        ]

    def discard_origin(self, origin: str) -> None:
        """Discard the tokens and the events of one origin. No batch is taken."""
        present = self._present
        kept: list[Any] = []
        for item in self._items[self._head :]:
            if item.__class__ is PartStart:
                present = item
            elif _origin_of(item, present) == origin:
                self.size -= 1
                self.events -= _is_event(item)
                continue
            kept.append(item)
        self._items[:] = kept
        self._head = self._events_until = 0
        self._other_kinds = sum(1 for item in kept if item.__class__ is not str)

    def clear(self, *, but_start: bool = False) -> int:
        """Discard everything, except a `StreamStarted` if ``but_start``; returns the number of discarded tokens.

        The tokens that follow belong to the first part again.
        """
        tokens = self.size - self.events
        self.dropped_text = 0
        self._present = _FIRST_PART
        spared: list[Any] = []
        if but_start:
            spared += (item for item in self._items[self._head :] if item.__class__ is StreamStarted)
        self._items[:] = spared
        self._head = self._events_until = 0
        self._other_kinds = self.events = self.size = len(spared)
        self._taken = None
        return tokens

    def _discard(self, count: int) -> None:
        if self._other_kinds:
            gone = self._items[self._head : self._head + count]
            self._other_kinds -= sum(1 for item in gone if item.__class__ is not str)
        self._head += count
        if self._head == len(self._items):
            self._items.clear()
            self._head = self._events_until = 0
        elif self._head >= _COMPACT_AT and self._head * 2 >= len(self._items):
            del self._items[: self._head]
            self._events_until = max(0, self._events_until - self._head)
            self._head = 0


_FIRST_PART: Final = PartStart(0)


def _origin_of(item: Any, present: PartStart) -> str | None:
    """The origin of an item: an event has its own, a token that of its part."""
    if not _is_event(item):
        return present.origin
    origin: str | None = (item.first if item.__class__ is _Pieces else item).origin
    return origin


def _is_event(item: Any) -> bool:
    """Whether an item is an event, or the start of a part."""
    return item.__class__ is not str and item.__class__ is not tuple
