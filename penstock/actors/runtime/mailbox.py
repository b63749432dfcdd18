"""Where the messages to one process wait.

A mailbox is on the dispatcher's run queue at most once: the lock ``ready`` is held from the moment it is put there
until a worker has run its owner and leaves it. Trying to take that lock *is* the test-and-set, so a sender needs no
other lock, and a process is never run by two workers at once.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections.abc import Callable
from itertools import compress
from threading import Lock
from typing import Any, Final, Protocol

__all__ = ["Mailbox", "Owner", "Undertaker"]


_AT_ONCE: Final = (False,)  # the argument of `Lock.acquire`


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

    __slots__ = ("_called", "_enqueue", "_grave", "_me", "_ready", "_take", "_try", "empty", "get", "owner", "qsize")

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
        self._try = self._ready.acquire
        self._me = (self,)
        self._try()  # held by who starts the process, until `leave`

    def put(self, message: Any) -> None:
        """Add a message and see to it that the owner runs. Never blocks."""
        self._take(message)
        if self._grave is not None:  # looked at after the message is in, as `bury` empties it after `_grave` is set
            self._grave.answer_all()
        elif not self._ready.locked():  # if it is, whoever holds it looks again when it leaves
            self._wake()

    def _wake(self) -> None:
        """Take ``ready`` if it is free, and be queued: in one step of C, or not at all.

        Between two steps of Python, Ctrl-C in the main thread may raise; a mailbox that is held and on no queue would
        never be run again.
        """
        for _ in map(self._enqueue, compress(self._me, map(self._try, _AT_ONCE))):
            pass

    def enter(self) -> Owner:
        """Take it off the run queue; returns whom to run now. Followed by `leave`, which the owner calls."""
        self._called = False  # whoever calls from now on is seen by `leave`
        return self.owner

    def leave(self) -> None:
        """Stop running the owner; if there is something left, or came meanwhile, queue it again."""
        self._ready.release()
        if self._called or not self.empty():
            self._wake()

    def call(self) -> None:
        """Have the owner run although there may be no message: something else than a message awaits it.

        If it runs right now it may have looked already, so it is run once more.
        """
        self._called = True
        self._wake()

    def bury(self, grave: Undertaker) -> None:
        """From now on ``grave`` answers what comes, in the thread of whoever sends it."""
        self._grave = grave  # first, see `Starting.run`
        self.owner = grave

    @property
    def grave(self) -> Undertaker | None:
        """Who answers for the process, if it is dead."""
        return self._grave
