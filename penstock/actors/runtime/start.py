"""Starting a process in a thread of the dispatcher, with a time-out."""

from __future__ import annotations

from penstock.actors.runtime.process import Process
from penstock.actors.runtime.reply import Reply

__all__ = ["Starting"]


class Starting:
    """Owns a mailbox while the process's ``on_start`` runs in a thread of the dispatcher."""

    def __init__(self, process: Process, started: Reply) -> None:
        self._process = process
        self._started = started

    @property
    def is_alive(self) -> bool:
        """Whether anybody still waits for it to start."""
        return self._process.is_alive

    def run(self, limit: int) -> int:
        process, inbox = self._process, self._process.actor_inbox
        error: BaseException | None = None
        try:
            process.begin()
        except BaseException as problem:
            error = problem
            process.runtime._undo_start(process, error)
        inbox.owner = process
        if inbox.grave is not None:  # it is dead, or its starter has just given up
            inbox.owner = inbox.grave
        inbox.leave()
        if error is not None:
            self._started.fail(error)
        else:
            self._started.set()
        return 1

    def __str__(self) -> str:
        return f"{self._process.label} (starting)"
