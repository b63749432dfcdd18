"""The calls of a message of Anthropic's, which are written one after the other even if they come mixed. Pure."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

__all__ = ["CallBlocks", "OpenCall"]

_MARK: Final = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class OpenCall:
    """A call that has begun.

    Attributes:
        block: the index of its content block; None: it waits for the calls before it.
        pieces: the arguments that wait to be sent.
        length: how many characters of arguments have come.
        is_complete: nothing more comes.
        is_stale: pieces may have been missed, so further ones are not taken; the call's end has all of them.
    """

    __slots__ = (
        "_depth",
        "_escaped",
        "_in_string",
        "_seen",
        "_unread",
        "block",
        "id",
        "is_complete",
        "is_server",
        "is_stale",
        "length",
        "name",
        "pieces",
    )

    def __init__(self, id: str, name: str, *, is_server: bool) -> None:
        self.id = id
        self.name = name
        self.is_server = is_server
        self.block: int | None = None
        self.pieces: list[str] = []
        self.length = 0
        self.is_complete = False
        self.is_stale = False
        self._unread: list[str] = []
        self._depth = 0
        self._in_string = self._escaped = self._seen = False

    def add(self, text: str) -> None:
        """Note a piece of its arguments."""
        self.length += len(text)
        self._unread.append(text)
        if self.block is None:
            self.pieces.append(text)

    def is_closed(self) -> bool:
        """Whether it is complete, or its arguments are JSON with all brackets closed. Each piece is read once."""
        text, self._unread = "".join(self._unread), []
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
                self._seen = True
        return self.is_complete or (self._seen and not self._depth and not self._in_string)


class CallBlocks:
    """The calls with open blocks, in the order in which they began.

    Only the first one has a block. The next one begins when that is complete; if nothing says so before, at the end.
    """

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[OpenCall] = deque()

    def add(self, call: OpenCall) -> None:
        """A further call has begun."""
        self._queue.append(call)

    def next_to_begin(self) -> OpenCall | None:
        """The first call, if it has no block yet."""
        return self._queue[0] if self._queue and self._queue[0].block is None else None

    def take_ended(self, *, is_other_waiting: bool = False, is_end: bool = False) -> OpenCall | None:
        """The first call if its block is to end now: it is complete, and something follows or nothing more can come."""
        if not self._queue or self._queue[0].block is None:
            return None
        first = self._queue[0]
        if is_end or first.is_complete or ((is_other_waiting or len(self._queue) > 1) and first.is_closed()):
            return self._queue.popleft()
        return None

    def unfinished(self) -> tuple[OpenCall, ...]:
        """The calls that are not complete."""
        return tuple(call for call in self._queue if not call.is_complete)
