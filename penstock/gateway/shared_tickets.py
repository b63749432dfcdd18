"""Tickets that every node of a cluster accepts: each is a small log of the store, which the store removes in time."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final

from penstock.errors import StoreDamaged, StoreError
from penstock.events.codec import CodecError, decode_value, encode_value
from penstock.ports import EMPTY, Append, Entry, EntryId, LogFrame, LogStore, OwnerMark, next_epoch

__all__ = ["Misses", "SharedTickets"]

_FIRST_USE: Final = 60.0  # seconds


class SharedTickets:
    """The tickets that the nodes have made. Each method waits for the store.

    The log of a ticket that is not used lapses after a minute, by the clock of the store, as those of the nodes may
    differ. With the first use it ends, and then expires as the logs of ended streams do.

    Args:
        store: that the nodes share.
        node: the name of this node.
        number: its number.
    """

    def __init__(self, store: LogStore, node: str, number: int) -> None:
        self._store = store
        self._node = node
        self._number = number

    def add(self, ticket: str, stream_id: str, key_id: str) -> None:
        """Let all nodes know a ticket that was made here.

        Raises:
            StoreError: the store does not work.
        """
        said = encode_value({"stream_id": stream_id, "key": key_id})
        mark = OwnerMark(EntryId(next_epoch(EMPTY, time.time(), self._number), 0), self._node, "open", said)
        self._append(_log_of(ticket), EMPTY, mark, _FIRST_USE)

    def find(self, ticket: str, stream_id: str) -> str | None:
        """The id of the key that a ticket was made with, and note its first use; None: it is not valid.

        Raises:
            StoreError: the store does not work, or what it has of the ticket is damaged.
        """
        log = _log_of(ticket)
        entries = self._store.read(log)
        if not entries:
            return None
        try:
            first = entries[0]
            said = decode_value(first.data if isinstance(first, OwnerMark) else b"")
            known, key = str(said["stream_id"]), str(said["key"])
        except (CodecError, LookupError, TypeError) as error:
            raise StoreDamaged(self._store.name, "what it has of a ticket is not what was written") from error
        if known != stream_id:
            return None
        tail = entries[-1].id
        if not isinstance(entries[-1], LogFrame):  # another node may do so at the same time
            self._append(log, tail, LogFrame(EntryId(tail.epoch, 1), 1, b"", is_last=True))
        return key

    def _append(self, log: str, tail: EntryId, entry: Entry, lapses: float = 0.0) -> None:
        (answer,) = self._store.append_all([Append(log, tail, entry, lapses=lapses)])
        if isinstance(answer, StoreError):
            raise answer


class Misses:
    """What was looked for in the store in vain. Pure; bounded, so that guessed tickets cost the store little.

    Args:
        most: how many tickets it remembers.
        per_second: how many look-ups may be in vain within a second.
    """

    def __init__(self, most: int = 10_000, per_second: int = 50) -> None:
        self._most = most
        self._per_second = per_second
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._second = 0
        self._count = 0
        self.refused = 0
        """How many look-ups were not made because there were too many in vain."""

    def has(self, ticket: str, stream_id: str) -> bool:
        """Whether a ticket is known not to be valid for a stream."""
        return (_log_of(ticket), stream_id) in self._known

    def admits(self, now: float) -> bool:
        """Whether a further look-up may be made now. It counts as one in vain, until `found` is called.

        Args:
            now: seconds on any clock that does not go back.
        """
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        if self._count >= self._per_second:
            self.refused += 1
            return False
        self._count += 1
        return True

    def found(self) -> None:
        """Note that a look-up was not in vain."""
        self._count = max(0, self._count - 1)

    def add(self, ticket: str, stream_id: str) -> None:
        """Note that a look-up was in vain. The oldest one is forgotten if there are too many."""
        self._known[_log_of(ticket), stream_id] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _log_of(ticket: str) -> str:
    """The name of a ticket's log, from which it cannot be guessed. No stream has it, since ids are printable."""
    return f"ticket\x1f{hashlib.sha256(ticket.encode('utf-8', 'surrogatepass')).hexdigest()}"
