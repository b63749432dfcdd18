"""How a process is known to others: its ref, and the messages about it rather than for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pykka
from pykka._envelope import Envelope  # the one thing Pykka does not export and every inbox holds

from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import NORMAL, ProcessExit
from penstock.config.checks import check_number

if TYPE_CHECKING:
    from penstock.actors.runtime.process import Process
    from penstock.actors.runtime.runtime import Runtime

__all__ = ["ProcessRef", "StopFlag", "SystemMessage", "Terminate"]

_LONGEST: Final = 1e9  # seconds


class StopFlag:
    """The part of `threading.Event` that Pykka's refs use of ``actor_stopped``, at a twentieth of its size."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Whether the actor has stopped."""
        return self._set

    def set(self) -> None:
        """Mark it as stopped."""
        self._set = True


class SystemMessage:
    """A message about the process rather than for it (OTP's ``sys``); handled even while it is suspended."""

    __slots__ = ()

    def apply(self, process: Process) -> Any:
        """Do it, in the process's own thread. What this returns or raises goes to the caller and crashes nothing."""
        raise NotImplementedError


class Terminate(SystemMessage):
    """End with ``reason``."""

    __slots__ = ("reason",)

    def __init__(self, reason: object) -> None:
        self.reason = reason

    def apply(self, process: Process) -> Any:
        raise ProcessExit(self.reason)


class ProcessRef(pykka.ActorRef[Any]):
    """A `pykka.ActorRef` of a process."""

    runtime: Runtime
    label: str
    actor_inbox: Mailbox

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.runtime = process.runtime
        self.label = process.label

    def tell(self, message: Any) -> None:
        """Send a message. Never blocks, never raises: what a dead process does not get is a dead letter."""
        self.actor_inbox.put(message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and wait for the answer, or with ``block=False`` return a `Reply` to wait for later.

        Raises:
            ProcessDead: it dies before it answers (carries the exit reason), or was dead already (``"noproc"``).
            CallTimeout: no answer within ``timeout`` seconds. A late one is thrown away.
            Exception: whatever the process raised while it handled the message (it has crashed of it).
        """
        reply = Reply(self.runtime.dispatcher, f"a call to {self.label}")
        self.actor_inbox.put(Envelope(message, reply_to=reply))
        return reply.get(timeout=timeout) if block else reply

    def exit(self, reason: object) -> None:
        """Send an exit signal (OTP's ``exit/2``)."""
        self.runtime.exit(self, reason)

    def terminate(self, reason: object = NORMAL, timeout: float | None = None) -> None:
        """Let it end with ``reason`` and return when it is dead (OTP's ``gen_statem:stop/3``).

        Raises:
            OptionError: ``timeout`` is no time-out; the process lives.
            ProcessDead: it was dead already (``"noproc"``), or ended for another reason.
            CallTimeout: it is not dead after ``timeout`` seconds; it still ends when it gets round to it.
            Exception: what its ``terminate`` raised; it is dead.
        """
        check_number("timeout", timeout, 0, _LONGEST, optional=True)
        self.ask(Terminate(reason), timeout=timeout)

    def __repr__(self) -> str:
        return f"<ProcessRef {self.label}>"

    def __str__(self) -> str:
        return self.label
