"""What a process may ask of its runtime."""

from __future__ import annotations

from typing import Any, Protocol

from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.clock import Timers
from penstock.actors.runtime.dead_letters import DeadLetters
from penstock.actors.runtime.ref import ProcessRef, RefNode
from penstock.ports import Clock

__all__ = ["Node", "Spawnable"]


class Spawnable(Protocol):
    """What `Node.spawn` starts: `penstock.actors.runtime.process.Process` and its subclasses."""

    def begin(self) -> None: ...

    def dispose(self, reason: object) -> None: ...


class Node(RefNode, Protocol):
    """The runtime as its processes see it.

    `penstock.actors.runtime.runtime.Runtime` implements it and documents the methods in full.
    """

    timers: Timers
    clock: Clock
    dead_letters: DeadLetters
    started: int
    ended: int

    def spawn(
        self,
        cls: type[Spawnable],
        *args: Any,
        name: str | None = None,
        link: ProcessRef | None = None,
        start_timeout: float | None = None,
        mailbox: MailboxOptions | None = None,
        **kwargs: Any,
    ) -> ProcessRef:
        """Start a process and return its ref.

        Raises:
            StartError: it did not start.
            Exception: what its constructor or ``on_start`` raised.
        """

    def mark_dead(self, ref: ProcessRef, reason: object) -> None:
        """Make a process dead for all others. A process calls this at its end."""

    def link(self, one: ProcessRef, other: ProcessRef) -> None:
        """Link two processes: if one ends, the other gets its exit signal."""

    def unlink(self, one: ProcessRef, other: ProcessRef) -> None:
        """Remove the link between two processes."""

    def monitor(self, watcher: ProcessRef, target: ProcessRef | str) -> int:
        """Send ``watcher`` one `Down` when ``target`` ends; returns the monitor's number."""

    def demonitor(self, watcher: ProcessRef, monitor: int, *, flush: bool = False) -> bool:
        """Remove a monitor; returns whether it was set."""

    def tell(self, target: ProcessRef | str, message: Any) -> None:
        """Send a message to a ref or a name."""

    def whereis(self, name: str) -> ProcessRef | None:
        """Return the process with this name."""

    def names(self) -> dict[str, ProcessRef]:
        """Return all names and their processes."""

    def is_alive(self, ref: ProcessRef) -> bool:
        """Whether the process belongs to this runtime and has not ended."""

    def exit_reason(self, ref: ProcessRef) -> object:
        """Return why a process ended, or None while it lives."""

    def links_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Return the processes that ``ref`` is linked to."""

    def monitors_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Return the processes that ``ref`` monitors."""

    def note_restart(self, supervisor: str) -> None:
        """Count a child that a supervisor of that name has restarted."""

    def processes(self) -> list[ProcessRef]:
        """Return all living processes."""

    def join(self, ref: ProcessRef, timeout: float | None = None) -> bool:
        """Wait until a process is dead; returns whether it is."""

    def close(self) -> None:
        """Kill all processes and start no more."""
