"""Plain Pykka actors under supervision: a process that starts one, stands for it, and ends with it.

Pykka announces no deaths and knows no exit reasons. What it lets one see is seen: an actor's ``on_stop`` and
``on_failure`` are listened to, so that its end and the exception that was the cause are known at once; an end that
neither of them tells of (``on_start`` raised) is noticed within a second.
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
from penstock.actors.runtime.grave import refuse
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, SystemMessage
from penstock.actors.runtime.signals import NOPROC, NORMAL, ExitNotice
from penstock.errors import ProcessDead

__all__ = ["PlainActor"]

_EVERY: Final = 0.5  # seconds between two looks; what is seen dead twice is dead
_STEP: Final = 0.05  # seconds between two looks at whether it is still worth waiting for
_LAST_STEPS: Final = 100  # how often, for one that is dead and whose `on_stop` has not ended


class _Ended(msgspec.Struct, frozen=True):
    reason: object


class _Look(msgspec.Struct, frozen=True):
    pass


class _Clock(Timer):
    __slots__ = ("_inbox",)

    def __init__(self, inbox: Mailbox) -> None:
        super().__init__()
        self._inbox = inbox

    def fire(self, generation: int) -> None:
        self._inbox.put(_Look())


class PlainActor(Process):
    """Starts ``cls`` as Pykka does and passes on what it is told and asked, so its ref, and its name if it has one,
    stay good when the actor behind it is another one::

        ChildSpec(id="it", cls=PlainActor, args=(MyThreadingActor, "what its constructor gets"), name="it")

    As in Pykka, an exception in a call goes to the caller and ends nothing. Its end is clean if it stopped, a crash
    with the exception if that was the cause, else ``"noproc"``. It is ended by ``ActorRef.stop``; one that does not
    end within the time-out of its specification is left behind, since a thread cannot be killed.
    """

    trap_exit = True
    in_pykka_registry = False

    _plain: pykka.ActorRef[Any] | None = None
    _looks: _Clock | None = None
    _seen_dead: bool = False

    def __init__(self, cls: type[pykka.Actor], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._start_plain: Callable[[], pykka.ActorRef[Any]] = functools.partial(cls.start, *args, **kwargs)
        self._gone = threading.Event()

    def on_start(self) -> None:
        self._plain = self._start_plain()
        self._listen(self._plain._actor_weakref())
        self._looks = _Clock(self.actor_inbox)
        self._look_later()

    def _listen(self, actor: Any) -> None:
        """Hear of its end, in its own thread, after whatever it does then itself."""
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
        """Pass on what is not for this process itself."""
        message = item.message if item.__class__ is Envelope else item
        if isinstance(message, (SystemMessage, ExitNotice, _ActorStop, _Ended, _Look)):
            super()._handle(item)
            return
        plain = self._plain
        assert plain is not None
        if plain.is_alive():
            plain.actor_inbox.put(item if item.__class__ is Envelope else Envelope(item))
        elif item.__class__ is Envelope and item.reply_to is not None:
            refuse(item.reply_to, ProcessDead(self.label))
        else:
            self.runtime.dead_letters.record(self.label, message)

    def on_receive(self, message: Any) -> Any:
        match message:
            case _Ended(reason=reason):
                self.exit(reason)
            case _Look():
                assert self._plain is not None
                if self._seen_dead:
                    self.exit(NOPROC)
                self._seen_dead = not self._plain.is_alive()
                self._look_later()
            case ExitNotice():
                pass
            case _:
                return super().on_receive(message)
        return None

    def _look_later(self) -> None:
        looks = self._looks
        assert looks is not None
        self.runtime.timers.set(looks, self.runtime.clock.monotonic() + _EVERY)
        if not self.is_alive:  # killed meanwhile, so `dispose` may not have seen it
            self.runtime.timers.cancel(looks)

    def terminate(self, reason: object) -> None:
        """Stop the actor and wait until it has, ``on_stop`` included."""
        plain, left = self._plain, _LAST_STEPS
        if plain is None or not plain.is_alive():
            return
        plain.stop(block=False)
        with blocking():
            while self.is_alive and left and not self._gone.wait(_STEP):
                left -= not plain.is_alive()

    def dispose(self, reason: object) -> None:
        """Called once by the runtime, when it is dead: release what it holds. Any thread."""
        if self._looks is not None:
            self.runtime.timers.cancel(self._looks)
        if self._plain is not None and self._plain.is_alive():  # it was killed
            self._plain.stop(block=False)
        super().dispose(reason)
