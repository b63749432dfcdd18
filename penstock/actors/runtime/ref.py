"""Refs, by which processes are known to others, and the messages that every process understands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
import pykka
from pykka._envelope import Envelope  # not exported by Pykka, but every inbox holds it

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.reasons import NORMAL, ProcessExit
from penstock.actors.runtime.reply import Reply
from penstock.config.checks import check_number

__all__ = ["ProcessRef", "RefNode", "RefProcess", "StopFlag", "SystemMessage", "Terminate"]

_LONGEST: Final = 1e9  # seconds


class StopFlag(msgspec.Struct, gc=False):
    """The part of `threading.Event` that Pykka's refs use of ``actor_stopped``, at a twentieth of its size."""

    has_stopped: bool = False

    def is_set(self) -> bool:
        """Whether the actor has stopped."""
        return self.has_stopped

    def set(self) -> None:
        """Mark the actor as stopped."""
        self.has_stopped = True


class SystemMessage:
    """A message about the process itself (OTP's ``sys``), handled even while the process is suspended."""

    __slots__ = ()

    def apply(self, process: Any) -> Any:
        """Act on ``process``, in its own thread. The caller gets the result or the exception; neither is a crash."""
        raise NotImplementedError


class Terminate(SystemMessage):
    """End with ``reason``."""

    __slots__ = ("reason",)

    def __init__(self, reason: object) -> None:
        self.reason = reason

    def apply(self, process: Any) -> Any:
        raise ProcessExit(self.reason)


class RefNode(Protocol):
    """The part of a runtime that refs use; see `penstock.actors.runtime.node.Node`."""

    dispatcher: Dispatcher

    def exit(self, ref: ProcessRef, reason: object, sender: ProcessRef | None = None) -> None:
        """See `Runtime.exit`."""


class RefProcess(Protocol):
    """The part of a process that its ref uses."""

    @property
    def runtime(self) -> RefNode: ...

    @property
    def label(self) -> str: ...


class ProcessRef(pykka.ActorRef[Any]):
    """A `pykka.ActorRef` of a process."""

    runtime: RefNode
    label: str
    actor_inbox: Mailbox

    on_returned: tuple[Callable[[Any], bool], ...] = ()
    """Called with each message that the process has not handled when it is dead, in any thread. A message that one of
    them takes back (returns True for) is no dead letter."""

    def __init__(self, process: RefProcess) -> None:
        super().__init__(process)
        self.runtime = process.runtime
        self.label = process.label

    def tell(self, message: Any) -> None:
        """Send a message. A message to a dead process becomes a dead letter.

        It neither blocks nor raises, unless the mailbox has a bound (`MailboxOptions`): then it may wait for room.

        Raises:
            MailboxFull: the mailbox has a bound and no room, and its ``when_full`` is ``"reject"`` or ``"block"``.
        """
        self.actor_inbox.put(message)

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and wait for the answer, or with ``block=False`` return a `Reply` to wait for later.

        Raises:
            ProcessDead: the process died before it answered (carries the exit reason) or was dead (``"noproc"``).
            MailboxFull: its mailbox has a bound and no room. With ``block=False``, `Reply.get` raises it.
            CallTimeout: no answer within ``timeout`` seconds. A late answer is ignored.
            Exception: what the process raised while it handled the message; it has crashed.
        """
        reply = Reply(self.runtime.dispatcher, f"a call to {self.label}")
        self.actor_inbox.put(Envelope(message, reply_to=reply))
        return reply.get(timeout=timeout) if block else reply

    def exit(self, reason: object) -> None:
        """Send an exit signal (OTP's ``exit/2``)."""
        self.runtime.exit(self, reason)

    def terminate(self, reason: object = NORMAL, timeout: float | None = None) -> None:
        """End the process with ``reason`` and return when it is dead (OTP's ``gen_statem:stop/3``).

        Raises:
            OptionError: ``timeout`` is not a valid time-out; the process is not ended.
            ProcessDead: the process was dead already (``"noproc"``), or ended for another reason.
            CallTimeout: it is not dead after ``timeout`` seconds; it still ends when its turn comes.
            Exception: what its ``terminate`` raised; it is dead.
        """
        check_number("timeout", timeout, 0, _LONGEST, optional=True)
        self.ask(Terminate(reason), timeout=timeout)

    def __repr__(self) -> str:
        return f"<ProcessRef {self.label}>"

    def __str__(self) -> str:
        return self.label
