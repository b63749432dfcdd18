"""Where the messages to one process wait.

A mailbox is on the dispatcher's run queue at most once: the lock ``ready`` is held from the moment it is put there
until a worker has run its owner and leaves it. Trying to take that lock *is* the test-and-set, so a sender needs no
other lock, and a process is never run by two workers at once.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol

__all__ = ["Mailbox", "Owner", "Undertaker"]


class Owner(Protocol):
    """Who handles what is in a mailbox: a process, or, after its death, what answers for it."""

    def run(self, limit: int) -> int:
        """Handle at most ``limit`` messages and say how many it were. The caller holds the mailbox."""


class Undertaker(Owner, Protocol):
    """Who answers for a dead process."""

    def answer_all(self) -> None:
        """Empty the mailbox. Any thread, also while a worker is still stuck in the dead process's code."""

    def answer(self, item: Any) -> None:
        """Answer one item."""


class Mailbox:
    """An unbounded queue (flow control is by credit, see `penstock.actors.flow`) that wakes its owner.

    It is what Pykka calls an ``ActorInbox``.
    """

    __slots__ = ("_called", "_enqueue", "_grave", "_ready", "_take", "empty", "get", "owner", "qsize")

    def __init__(self, owner: Owner, enqueue: Callable[[Mailbox], None]) -> None:
        queue: SimpleQueue[Any] = SimpleQueue()
        self.owner = owner
        self._enqueue = enqueue
        self._take = queue.put
        self.get = queue.get_nowait
        self.empty = queue.empty
        self.qsize = queue.qsize
        self._called = False  # to be run although there may be no message
        self._grave: Undertaker | None = None
        self._ready = Lock()
        self._ready.acquire()  # held by who starts the process, until `leave`

    def put(self, message: Any) -> None:
        """Add a message and see to it that the owner runs. Never blocks."""
        self._take(message)
        if self._grave is not None:  # looked at after the message is in, as `bury` empties it after `_grave` is set
            self._grave.answer_all()
        elif self._ready.acquire(False):
            self._enqueue(self)

    def leave(self) -> None:
        """Stop running the owner; if there is something left, or came meanwhile, queue it again."""
        self._ready.release()
        if (self._called or not self.empty()) and self._ready.acquire(False):
            self._called = False
            self._enqueue(self)

    def call(self) -> None:
        """Have the owner run although there may be no message: something else than a message awaits it.

        If it runs right now it may have looked already, so it is run once more.
        """
        self._called = True
        if self._ready.acquire(False):
            self._called = False  # cleared before it is queued: whoever sets it later is seen by that run
            self._enqueue(self)

    def bury(self, grave: Undertaker) -> None:
        """From now on ``grave`` answers what comes, in the thread of whoever sends it."""
        self._grave = grave  # first, see `Starting.run`
        self.owner = grave

    @property
    def grave(self) -> Undertaker | None:
        """Who answers for the process, if it is dead."""
        return self._grave
