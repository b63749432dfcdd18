"""Plain Pykka actors under supervision: a process that starts the actor, represents it, and ends with it.

Pykka neither announces deaths nor knows exit reasons. So the actor's ``on_stop`` and ``on_failure`` are wrapped: they
report its end, and the exception that caused it, at once. If ``on_start`` raises, neither is called; that end is
noticed within a second.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from penstock.actors.runtime.clock import Timer
from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, SystemMessage
from penstock.actors.runtime.reasons import NOPROC, NORMAL
from penstock.actors.runtime.reply import answer_with_error
from penstock.actors.runtime.signals import ExitNotice
from penstock.errors import ProcessDead

__all__ = ["PlainActor"]

_EVERY: Final = 0.5  # seconds between two checks; an actor found dead twice has ended
_STEP: Final = 0.05  # seconds between two checks while waiting for the actor to stop
_LAST_STEPS: Final = 100  # checks after the actor is dead, while its `on_stop` still runs


class _Ended(msgspec.Struct, frozen=True):
    """The actor has ended."""

    reason: object


class _Check(msgspec.Struct, frozen=True):
    """It is time to check whether the actor is alive."""


class _CheckTimer(Timer):
    __slots__ = ("_inbox",)

    def __init__(self, inbox: Mailbox) -> None:
        super().__init__()
        self._inbox = inbox

    def fire(self, generation: int) -> None:
        self._inbox.put(_Check())


class PlainActor(Process):
    """Represents a plain Pykka actor: starts ``cls`` as Pykka does and passes all messages and calls on to it::

        ChildSpec(id="it", cls=PlainActor, args=(MyThreadingActor, "argument of its constructor"), name="it")

    The process's name, if it has one, refers to the new actor after a restart.

    As in Pykka, an exception in a call goes to the caller and does not end the actor. The exit reason is ``"normal"``
    if the actor stopped, the exception if it failed, else ``"noproc"``. It is ended by ``ActorRef.stop``. An actor
    that does not stop within the ``shutdown`` time of its specification keeps running, since a thread cannot be
    killed.
    """

    trap_exit = True
    in_pykka_registry = False

    _plain: pykka.ActorRef[Any] | None = None
    _check_timer: _CheckTimer | None = None
    _seen_dead: bool = False

    def __init__(self, cls: type[pykka.Actor], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._start_plain: Callable[[], pykka.ActorRef[Any]] = functools.partial(cls.start, *args, **kwargs)
        self._gone = threading.Event()

    def on_start(self) -> None:
        self._plain = self._start_plain()
        self._listen(self._plain._actor_weakref())
        self._check_timer = _CheckTimer(self.actor_inbox)
        self._check_later()

    def _listen(self, actor: Any) -> None:
        """Wrap the actor's ``on_stop`` and ``on_failure`` to report its end, in its thread, after they have run."""
        if actor is None:
            return
        on_stop, on_failure = actor.on_stop, actor.on_failure

        def ended(reason: object) -> None:
            self._gone.set()
            if self.is_alive:
                self.actor_inbox.put(_Ended(reason))

        def stopped() -> None:
            try:
                on_stop()
            finally:
                ended(NORMAL)

        def failed(kind: Any, error: Any, trace: Any) -> None:
            try:
                on_failure(kind, error, trace)
            finally:
                ended(error)

        actor.on_stop, actor.on_failure = stopped, failed

    def _handle(self, item: Any) -> None:
        """Pass on every message that is not for this process itself."""
        message = item.message if item.__class__ is Envelope else item
        if isinstance(message, (SystemMessage, ExitNotice, _ActorStop, _Ended, _Check)):
            super()._handle(item)
            return
        plain = self._plain
        assert plain is not None
        if plain.is_alive():
            plain.actor_inbox.put(item if item.__class__ is Envelope else Envelope(item))
        elif item.__class__ is Envelope and item.reply_to is not None:
            answer_with_error(item.reply_to, ProcessDead(self.label))
        else:
            self.runtime.dead_letters.record(self.label, message)

    def on_receive(self, message: Any) -> Any:
        match message:
            case _Ended(reason=reason):
                self.exit(reason)
            case _Check():
                assert self._plain is not None
                if self._seen_dead:
                    self.exit(NOPROC)
                self._seen_dead = not self._plain.is_alive()
                self._check_later()
            case ExitNotice():
                pass
            case _:
                return super().on_receive(message)
        return None

    def _check_later(self) -> None:
        timer = self._check_timer
        assert timer is not None
        self.runtime.timers.set(timer, self.runtime.clock.monotonic() + _EVERY)
        if not self.is_alive:  # killed meanwhile: `dispose` may have missed this timer
            self.runtime.timers.cancel(timer)

    def terminate(self, reason: object) -> None:
        """Stop the actor and wait until it has stopped, ``on_stop`` included."""
        plain, left = self._plain, _LAST_STEPS
        if plain is None or not plain.is_alive():
            return
        plain.stop(block=False)
        with blocking():
            while self.is_alive and left and not self._gone.wait(_STEP):
                left -= not plain.is_alive()

    def dispose(self, reason: object) -> None:
        """Stop checking, and stop the actor. Called once by the runtime when the process is dead, in any thread."""
        if self._check_timer is not None:
            self.runtime.timers.cancel(self._check_timer)
        if self._plain is not None and self._plain.is_alive():  # this process was killed
            self._plain.stop(block=False)
        super().dispose(reason)
