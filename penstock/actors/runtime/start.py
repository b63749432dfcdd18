"""A start with a time-out: a dispatcher's thread initialises the process while the thread that starts it waits."""

from __future__ import annotations

from collections.abc import Callable

from penstock.actors.runtime.process import Process
from penstock.actors.runtime.reply import Reply, answer_with

__all__ = ["PendingStart"]


class PendingStart:
    """Owner of a mailbox until the process has started."""

    def __init__(self, process: Process, done: Reply, undo: Callable[[Process, BaseException], None]) -> None:
        self._process = process
        self._done = done
        self._undo = undo
        self.error: BaseException | None = None
        """Why the process did not start."""
        self.has_begun = False
        """Whether the process is initialised: a crash from then on is that of a started process."""

    @property
    def is_alive(self) -> bool:
        """Whether the start may still succeed."""
        return self._process.is_alive

    def run(self, limit: int) -> int:
        """Start the process, make it the owner of its mailbox, and answer ``done``. Counts as one message."""
        process, inbox = self._process, self._process.actor_inbox
        try:
            process.begin()
            self.has_begun = True
            process._proceed_or_end()
        except BaseException as error:
            self.error = error  # before `_undo`, which wakes the waiting thread
            self._undo(process, error)
        inbox.owner = process
        if inbox.dead_owner is not None:  # the process has died, or the start has just timed out
            inbox.owner = inbox.dead_owner
        inbox.leave()
        answer_with(self._done, None)
        return 1

    def __str__(self) -> str:
        return f"{self._process.label} (starting)"
