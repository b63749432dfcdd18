"""Who answers for the dead."""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Any

import pykka
from pykka.messages import _ActorStop

from penstock.actors.runtime.clock import Fired
from penstock.actors.runtime.ref import SystemMessage, Terminate
from penstock.actors.runtime.signals import NOPROC, Down, Ephemeral, ExitNotice
from penstock.errors import ProcessDead

if TYPE_CHECKING:
    from penstock.actors.runtime.process import Process

__all__ = ["Grave", "give", "refuse", "refuse_call"]


class Grave:
    """What owns the mailbox of a dead process: it answers calls with `ProcessDead` and counts the rest."""

    __slots__ = ("_label", "_late", "_mailbox", "_runtime", "reason")

    def __init__(self, process: Process, reason: object) -> None:
        self._mailbox = process.actor_inbox
        self._label = process.label
        self._runtime = process.runtime
        self._late = False
        self.reason = reason

    def close(self) -> None:
        """Answer what is there; who calls from now on has called a dead process."""
        self.answer_all()
        self._late = True

    def run(self, limit: int) -> int:
        """Answer what came too late. Called by a worker that holds the mailbox."""
        try:
            self.answer_all()
        finally:
            self._mailbox.leave()
        return 0

    def answer_all(self) -> None:
        """Empty the mailbox. Any thread."""
        while True:
            try:
                item = self._mailbox.get()
            except queue.Empty:
                return
            self.answer(item)

    def answer(self, item: Any) -> None:
        """Answer one item."""
        reply = getattr(item, "reply_to", None)
        if isinstance(reply, pykka.Future):
            refuse_call(item.message, reply, self._label, NOPROC if self._late else self.reason)
        elif not _is_ephemeral(item) and not _is_ephemeral(getattr(item, "message", None)):  # it may be in a `Cast`
            self._runtime.dead_letters.record(self._label, item)

    def __str__(self) -> str:
        return f"{self._label} (dead)"


def _is_ephemeral(message: object) -> bool:
    return isinstance(message, (Down, ExitNotice, SystemMessage, Fired, Ephemeral))


def give(reply: pykka.Future[Any], value: Any) -> None:
    """Let a caller get ``value``, unless it has its answer already."""
    with contextlib.suppress(queue.Full):
        reply.set(value)


def refuse(reply: pykka.Future[Any], error: BaseException) -> None:
    """Let a caller get ``error``, unless it has its answer already."""
    with contextlib.suppress(queue.Full):
        reply.set_exception((type(error), error, error.__traceback__))


def refuse_call(message: Any, reply: pykka.Future[Any], label: str, reason: object) -> None:
    """Answer a call whose process ended with ``reason``. Who wanted it to end so has got what it wanted."""
    if (reason != NOPROC and isinstance(message, _ActorStop)) or (
        isinstance(message, Terminate) and (message.reason is reason or message.reason == reason)
    ):
        give(reply, None)
    elif isinstance(message, Terminate) and isinstance(reason, BaseException):
        refuse(reply, reason)
    else:
        refuse(reply, ProcessDead(label, reason))
