"""The mailbox of a process.

A mailbox is on the dispatcher's run queue at most once: its lock ``ready`` is held from the moment it is queued until
a worker has run the owner and leaves the mailbox. Trying to take that lock *is* the test-and-set. So a sender needs no
other lock, and a process is never run by two workers at once.
"""

from __future__ import annotations

import os
from _queue import SimpleQueue
from collections.abc import Callable
from itertools import compress
from threading import Lock, get_ident
from typing import Any, Final, Protocol

__all__ = ["DeadOwner", "Mailbox", "Owner", "hold_wakes", "release_wakes"]


_AT_ONCE: Final = (False,)  # the argument of `Lock.acquire`


_held: Final[dict[int, list[Mailbox]]] = {}
"""Mailboxes that are taken and not queued yet, by the thread that has put messages into them."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # a thread of the child may have the number of one of the parent


def hold_wakes() -> None:
    """Queue no owner for the messages that this thread sends until `release_wakes`.

    For a thread that sends many in turn and does not wait in between: otherwise each wakes a worker, and the two change
    places at the interpreter's lock again and again. Not for the main thread, where Ctrl-C may raise in between.
    """
    _held.setdefault(get_ident(), [])


def release_wakes() -> None:
    """Queue the owners of all mailboxes that were held back. Harmless without `hold_wakes`."""
    for mailbox in _held.pop(get_ident(), ()):
        mailbox._enqueue(mailbox)


class Owner(Protocol):
    """Handles the messages in a mailbox: a process, or after its death a `DeadOwner`."""

    def run(self, limit: int) -> int:
        """Handle at most ``limit`` messages and return how many it handled. The caller holds the mailbox."""


class DeadOwner(Owner, Protocol):
    """Owns the mailbox of a dead process."""

    @property
    def is_closed(self) -> bool:
        """Whether the messages that were waiting have been dealt with."""

    def answer_all(self) -> None:
        """Empty the mailbox. Called from any thread, even while a worker is still stuck in the dead process's code."""

    def answer(self, item: Any) -> None:
        """Answer one item."""


class Mailbox(SimpleQueue[Any]):
    """An unbounded queue that wakes its owner; what Pykka calls an ``ActorInbox``.

    It needs no bound where senders are limited by credit, as streams are. It *is* a queue of the standard library, so
    that a process takes one object for it, and not one for each of the queue's methods.
    """

    __slots__ = ("_called", "_dead_owner", "_enqueue", "_ready", "owner")

    _take = SimpleQueue.put

    def __init__(self, owner: Owner, enqueue: Callable[[Mailbox], None]) -> None:
        self.owner = owner
        self._enqueue = enqueue
        self._called = False  # the owner is to run although there may be no message
        self._dead_owner: DeadOwner | None = None
        self._ready = ready = Lock()
        ready.acquire()  # the thread that starts the process holds it, until `leave`

    get: Callable[[], Any] = SimpleQueue.get_nowait  # type: ignore[assignment]
    """Take the oldest message. Raises ``queue.Empty`` if there is none. Only the thread that holds the mailbox."""

    def put(self, message: Any) -> None:  # type: ignore[override]
        """Add a message and make sure that the owner runs. Never blocks."""
        self._take(message)
        if self._dead_owner is not None:  # looked at after the message is in, as it is set before the queue is emptied
            self._dead_owner.answer_all()
        elif not self._ready.locked():  # if it is, the thread that holds it looks again when it leaves
            self._wake()

    def _wake(self) -> None:
        """Take ``ready`` if it is free and queue the mailbox, in one step of C code.

        Between two steps of Python code, Ctrl-C may raise in the main thread. A mailbox that is held but not queued
        would never run again.
        """
        if _held and (held := _held.get(get_ident())) is not None:
            if self._ready.acquire(False):
                held.append(self)
            return
        for _ in map(self._enqueue, compress((self,), map(self._ready.acquire, _AT_ONCE))):
            pass

    def enter(self) -> Owner:
        """Return the owner to run, after the mailbox has been taken off the run queue. The owner calls `leave`."""
        self._called = False  # `leave` sees calls that come from now on
        return self.owner

    def borrow(self) -> bool:
        """Hold the mailbox if it is idle and empty; returns whether that is so. The caller then calls `leave`.

        Meanwhile its owner runs nowhere else, and what the caller does comes after all messages so far.
        """
        if not self._ready.acquire(False):
            return False
        if self._called or not self.empty():
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Stop running the owner; queue the mailbox again if it is not empty or was called meanwhile."""
        self._ready.release()
        if self._called or not self.empty():
            self._wake()

    def call(self) -> None:
        """Run the owner although there may be no message, because something other than a message awaits it.

        If it is running now, it may have looked already, so it runs once more.
        """
        self._called = True
        self._wake()

    def mark_dead(self, dead_owner: DeadOwner) -> None:
        """From now on ``dead_owner`` answers every message, in the sender's thread."""
        self._dead_owner = dead_owner  # before `owner`, see `PendingStart.run`
        self.owner = dead_owner

    @property
    def dead_owner(self) -> DeadOwner | None:
        """Answers for the process if that is dead."""
        return self._dead_owner
