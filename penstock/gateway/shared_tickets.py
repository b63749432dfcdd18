"""Tickets that every node of a cluster accepts: each is a small log of the store, which expires as ended streams do."""

from __future__ import annotations

import hashlib
import time
from typing import Final

from penstock.events.codec import decode_value, encode_value
from penstock.ports import EMPTY, EntryId, LogFrame, LogStore, OwnerMark, next_epoch

__all__ = ["SharedTickets"]

_FIRST_USE: Final = 60.0  # seconds
_USED: Final = "used"


class SharedTickets:
    """The tickets that the nodes have made. Each method waits for the store.

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
        said = encode_value({"stream_id": stream_id, "key": key_id, "until": time.time() + _FIRST_USE})
        mark = OwnerMark(EntryId(next_epoch(EMPTY, time.time(), self._number), 0), self._node, "open", said)
        log = _log_of(ticket)
        if self._store.append(log, EMPTY, mark) == mark.id:  # its end lets it expire
            self._store.append(log, mark.id, LogFrame(EntryId(mark.id.epoch, 1), 1, b"", is_last=True))

    def find(self, ticket: str, stream_id: str) -> str | None:
        """The id of the key that a ticket was made with, and note its first use; None: it is not valid.

        Raises:
            StoreError: the store does not work.
        """
        log = _log_of(ticket)
        entries = self._store.read(log)
        if not entries or not isinstance(entries[0], OwnerMark):
            return None
        said = decode_value(entries[0].data)
        is_used = any(isinstance(entry, OwnerMark) and entry.reason == _USED for entry in entries)
        if said["stream_id"] != stream_id or not (is_used or said["until"] > time.time()):
            return None
        if not is_used:
            tail = entries[-1].id
            mark = OwnerMark(EntryId(next_epoch(tail, time.time(), self._number), 0), self._node, _USED)
            self._store.append(log, tail, mark)
        return str(said["key"])


def _log_of(ticket: str) -> str:
    """The name of a ticket's log, from which it cannot be guessed. No stream has it, since ids are printable."""
    return f"ticket\x1f{hashlib.sha256(ticket.encode('utf-8', 'surrogatepass')).hexdigest()}"
