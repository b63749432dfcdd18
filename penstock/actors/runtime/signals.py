"""The messages that tell a process of another one's end. Exit reasons can be imported from here too."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.actors.runtime.reasons import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    ProcessExit,
    Shutdown,
    is_clean,
)
from penstock.actors.runtime.ref import ProcessRef

__all__ = [
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "Down",
    "Ephemeral",
    "ExitNotice",
    "ProcessExit",
    "Shutdown",
    "is_clean",
]


class Ephemeral:
    """Base class of messages that mean nothing to a dead process: one that arrives too late is no dead letter.

    Derive from it the messages between the processes of one unit of work that may end at any moment, such as a stream
    and its provider call. A message whose loss must be noticed must not derive from it.
    """

    __slots__ = ()


class Down(msgspec.Struct, frozen=True):
    """A monitored process is dead. Sent once per monitor, at once if there was no such process (``"noproc"``).

    ``process`` is what was monitored: the ref, or the name if the monitor was set on a name.
    """

    monitor: int
    process: Any
    reason: object


class ExitNotice(msgspec.Struct, frozen=True):
    """A linked process ended, or an exit signal was sent. Only processes with ``trap_exit`` get it as a message."""

    sender: ProcessRef | None
    reason: object
