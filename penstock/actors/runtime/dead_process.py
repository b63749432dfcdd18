"""What answers calls to a dead process."""

from __future__ import annotations

import queue
import weakref
from typing import Any

import pykka
from pykka.messages import _ActorStop

from penstock.actors.runtime.clock import Fired
from penstock.actors.runtime.dead_letters import DeadLetters
from penstock.actors.runtime.reasons import NOPROC
from penstock.actors.runtime.ref import ProcessRef, SystemMessage, Terminate
from penstock.actors.runtime.reply import answer_with, answer_with_error, is_answered
from penstock.actors.runtime.signals import Down, Ephemeral, ExitNotice
from penstock.errors import ProcessDead

__all__ = ["DeadProcess", "answer_call_to_dead"]


class DeadProcess:
    """Owner of a dead process's mailbox: answers calls with `ProcessDead` and counts other messages as dead letters.

    A call that was waiting when the process died gets the exit reason, a later one ``"noproc"``.

    The mailbox has it, so it knows the mailbox and the ref only weakly: a process that is dead, and that no other knows
    any more, is no circle that waits for the garbage collector.
    """

    __slots__ = ("_dead_letters", "_label", "_late", "_mailbox", "_ref", "reason")

    def __init__(self, ref: ProcessRef, dead_letters: DeadLetters, reason: object) -> None:
        self._ref = weakref.ref(ref)
        self._mailbox = weakref.ref(ref.actor_inbox)
        self._label = ref.label
        self._dead_letters = dead_letters
        self._late = False
        self.reason = reason

    def close(self) -> None:
        """Answer the calls that are waiting; calls from now on get ``"noproc"``."""
        self.answer_all()
        self._late = True

    @property
    def is_closed(self) -> bool:
        """Whether the messages that were waiting have been dealt with."""
        return self._late

    def run(self, limit: int) -> int:
        """Empty the mailbox. Called by a worker that holds it."""
        mailbox = self._mailbox()
        assert mailbox is not None
        try:
            self.answer_all()
        finally:
            mailbox.leave()
        return 0

    def answer_all(self) -> None:
        """Empty the mailbox. Any thread."""
        mailbox = self._mailbox()
        while mailbox is not None:
            try:
                item = mailbox.get()
            except queue.Empty:
                return
            self.answer(item)

    def answer(self, item: Any) -> None:
        """Answer one item."""
        reply = getattr(item, "reply_to", None)
        if isinstance(reply, pykka.Future):
            answer_call_to_dead(item.message, reply, self._label, NOPROC if self._late else self.reason)
        elif not self._is_ignored(item):
            self._dead_letters.record(self._label, item)

    def _is_ignored(self, item: Any) -> bool:
        if _is_ephemeral(item) or _is_ephemeral(getattr(item, "message", None)):  # it may be in a `Cast`
            return True
        ref = self._ref()
        return ref is not None and any(take_back(item) for take_back in ref.on_returned)

    def __str__(self) -> str:
        return f"{self._label} (dead)"


def _is_ephemeral(message: object) -> bool:
    return isinstance(message, (Down, ExitNotice, SystemMessage, Fired, Ephemeral))


def answer_call_to_dead(message: Any, reply: pykka.Future[Any], label: str, reason: object) -> None:
    """Answer a call to a process that ended with ``reason``.

    A call that asked for just this end has succeeded. Any other call gets `ProcessDead`, or from `Terminate` the
    exception that the process ended with. One that is answered already stays so.
    """
    if is_answered(reply):
        return
    if (reason != NOPROC and isinstance(message, _ActorStop)) or (
        isinstance(message, Terminate) and (message.reason is reason or message.reason == reason)
    ):
        answer_with(reply, None)
    elif isinstance(message, Terminate) and isinstance(reason, BaseException):
        answer_with_error(reply, reason)
    else:
        answer_with_error(reply, ProcessDead(label, reason))
