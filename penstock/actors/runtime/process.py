"""Processes: Pykka actors on a dispatcher, with exit reasons, links and monitors.

A `Process` is a `pykka.Actor`: its refs, proxies and futures work as in Pykka. What differs, and must be known:

* `start` returns when `on_start` is done, and raises what it raised;
* an exception in a *call* (``ask``, proxy call) crashes the process, as in OTP: the caller gets the exception, links
  and monitors get the exit. Pykka would only tell the caller;
* ``tell`` to a dead process goes to the dead letters instead of raising in an innocent sender.
"""

from __future__ import annotations

import contextlib
import queue
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pykka
from pykka import ActorRegistry
from pykka._envelope import Envelope  # the one thing Pykka does not export and every inbox holds
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import NORMAL, Down, ExitNotice, ProcessExit, is_clean
from penstock.config.logs import get_logger
from penstock.errors import ProcessDead, describe_reason

if TYPE_CHECKING:
    from penstock.actors.runtime.runtime import Runtime

__all__ = ["Grave", "Process", "ProcessRef", "StopFlag", "SystemMessage", "refuse"]


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
            ProcessDead: it is dead, or dies before it answers; carries the exit reason.
            CallTimeout: no answer within ``timeout`` seconds. A late one is thrown away.
            Exception: whatever the process raised while it handled the message (it has crashed of it).
        """
        reply = Reply(self.runtime.dispatcher, f"a call to {self.label}")
        self.actor_inbox.put(Envelope(message, reply_to=reply))
        return reply.get(timeout=timeout) if block else reply

    def exit(self, reason: object) -> None:
        """Send an exit signal (OTP's ``exit/2``)."""
        self.runtime.exit(self, reason)

    def __repr__(self) -> str:
        return f"<ProcessRef {self.label}>"

    def __str__(self) -> str:
        return self.label


class Process(pykka.Actor):
    """An actor on the dispatcher. Subclass it as you would `pykka.ThreadingActor`.

    Start it with `Runtime.spawn`.

    Hooks, all called in the process and never by two threads at once: ``on_start``; ``on_receive(message)`` for every
    message, including `Down`, and `ExitNotice` if ``trap_exit`` is set; ``terminate(reason)`` at the end, unless it
    was killed. The default ``terminate`` calls Pykka's ``on_stop`` or ``on_failure``.
    """

    trap_exit: bool = False
    """Whether exit signals come as `ExitNotice` messages instead of ending this process. Set it in ``on_start``."""

    in_pykka_registry: ClassVar[bool] = True
    """Whether it can be found in `pykka.ActorRegistry`. That is a list, with a cost that grows with the number of
    actors: set it to False for classes of which there are thousands. Names are in `Runtime.whereis` either way."""

    runtime: Runtime
    exit_reason: object = None
    """Why it ended; None while it lives."""

    actor_inbox: Mailbox

    name: str | None = None
    parent: ProcessRef | None = None
    """Who it was linked to when it started; its exit signal ends it even if it traps exits (after `terminate`)."""

    _actor_ref: ProcessRef

    _attention: bool = False  # look at the following two, and whether it is still alive, before the next message
    _signals: list[ExitNotice] | None = None  # exit signals it must obey
    _backlog: deque[Any] | None = None  # what came while it was suspended; None: it is not

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # What Pykka's own __init__ sets, with lighter parts.
        self.actor_urn = uuid.uuid4().urn
        self.actor_inbox = Mailbox(self, self.runtime.dispatcher.enqueue)
        self.actor_stopped = StopFlag()
        self._actor_ref = ProcessRef(self)

    @classmethod
    def start(cls, *args: Any, runtime: Runtime | None = None, **kwargs: Any) -> ProcessRef:
        """Start it on ``runtime``; the same as ``runtime.spawn(cls, …)``."""
        if runtime is None:
            raise TypeError(f"{cls.__name__}.start() needs runtime=; or use runtime.spawn({cls.__name__}, ...)")
        return runtime.spawn(cls, *args, **kwargs)

    def _begin(self) -> None:
        """Initialise, in whatever thread starts it, before the first message."""
        self.on_start()

    # --- hooks ---------------------------------------------------------------------------------------------------

    def terminate(self, reason: object) -> None:
        """Clean up; ``reason`` is why it ends. What this raises becomes the exit reason."""
        if isinstance(reason, BaseException):
            self.on_failure(type(reason), reason, reason.__traceback__)
        else:
            self.on_stop()

    @property
    def label(self) -> str:
        """What it is called in logs and errors."""
        return self.name or f"{type(self).__name__}-{self.actor_urn[9:17]}"

    # --- what a process may do to itself -------------------------------------------------------------------------

    def exit(self, reason: object = NORMAL) -> NoReturn:
        """End now, with ``reason``. Only from inside the process."""
        raise ProcessExit(reason)

    @property
    def ref(self) -> ProcessRef:
        """How others know it."""
        return self._actor_ref

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self.actor_stopped.is_set()

    # --- the loop, run by a worker that holds the mailbox --------------------------------------------------------

    def run(self, limit: int) -> int:
        """Handle at most ``limit`` messages."""
        inbox = self.actor_inbox
        empty = inbox.empty
        get = inbox.get
        handle = self._handle
        count = 0
        try:
            if self._attention and not self._attend(limit):
                return 0
            while count < limit and not empty():
                count += 1
                handle(get())
                if self._attention and not self._attend(limit):
                    break
        except ProcessExit as exit_:
            self._end(exit_.reason)
        except BaseException as error:
            self._end(error)
        finally:
            inbox.leave()
        return count

    def _attend(self, limit: int) -> bool:
        """Something unusual: a signal, a suspension, or it was killed meanwhile. Whether to go on as usual."""
        if not self.is_alive:
            return False
        signals = self._signals
        if signals:  # as in OTP: who does not trap exits dies without `terminate`
            self.runtime.bury(self, signals[0].reason)
            return False
        if self._backlog is None:
            self._attention = False
            return True
        self._run_suspended(limit)
        return self._backlog is None and not self._attention

    def _handle(self, item: Any) -> None:
        if item.__class__ is Envelope:
            reply = item.reply_to
            if reply is not None:
                self._answer(item.message, reply)
                return
            item = item.message
        if isinstance(item, SystemMessage):
            item.apply(self)
        elif item.__class__ is ExitNotice:
            self._notice(item)
        else:
            self._receive(item)

    def _notice(self, notice: ExitNotice) -> None:
        """A trapped exit signal: the parent's ends the process, anybody else's is a message."""
        if notice.sender is not None and notice.sender is self.parent:
            raise ProcessExit(notice.reason)
        self._receive(notice)

    def _receive(self, message: Any) -> Any:
        """Pykka's own messages, then ``on_receive``."""
        match message:
            case ProxyCall():
                return self._attribute(message.attr_path)(*message.args, **message.kwargs)
            case ProxyGetAttr():
                return self._attribute(message.attr_path)
            case ProxySetAttr():
                return setattr(self._attribute(message.attr_path[:-1]), message.attr_path[-1], message.value)
            case _ActorStop():
                raise ProcessExit(NORMAL)
        return self.on_receive(message)

    def _attribute(self, path: tuple[str, ...]) -> Any:
        found: Any = self
        for name in path:
            found = getattr(found, name)
        return found

    def _answer(self, message: Any, reply: pykka.Future[Any]) -> None:
        """Handle a call. The caller is answered whatever happens, and after the end if this is the end."""
        if isinstance(message, SystemMessage):
            try:
                reply.set(message.apply(self))
            except Exception as error:
                refuse(reply, error)
            return
        try:
            value = self._receive(message)
        except ProcessExit as exit_:
            self._end(exit_.reason)
            if isinstance(message, _ActorStop):
                reply.set(None)
            else:
                refuse(reply, ProcessDead(self.label, exit_.reason))
            raise
        except BaseException as error:
            self._end(error)
            refuse(reply, error)
            raise
        reply.set(value)

    # --- suspension ----------------------------------------------------------------------------------------------

    def _run_suspended(self, limit: int) -> None:
        """Serve system messages only and keep the rest for later."""
        inbox = self.actor_inbox
        while limit and not inbox.empty() and self._backlog is not None:
            limit -= 1
            item = inbox.get()
            message = item.message if item.__class__ is Envelope else item
            if isinstance(message, (SystemMessage, _ActorStop)):
                self._handle(item)
            else:
                self._backlog.append(item)

    def suspend(self) -> None:
        """Handle nothing but system messages and exit signals until `resume` (OTP's ``sys:suspend``)."""
        if self._backlog is None:
            self._backlog = deque()
            self._attention = True

    def resume(self) -> None:
        """Go on, with what came meanwhile first."""
        backlog, self._backlog = self._backlog, None
        while backlog:
            self._handle(backlog.popleft())
            if self._backlog is not None:  # suspended again by that message
                self._backlog.extend(backlog)
                return

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self, reason: object) -> None:
        """End with ``reason``: clean up, be dead, tell links and monitors, answer who still waits."""
        if not self.is_alive:
            return
        if not is_clean(reason):
            self._report(reason)
        try:
            self.terminate(reason)
        except ProcessExit as exit_:
            reason = exit_.reason
        except BaseException as error:
            reason = error
        self.runtime.bury(self, reason)

    def _report(self, reason: object) -> None:
        """Log a crash: what, why, where; no message, no text of foreign exceptions."""
        get_logger(actor=self.label).error("process_crashed", reason=describe_reason(reason), **self._circumstances())

    def _circumstances(self) -> dict[str, Any]:
        """What else the crash log says."""
        return {"mailbox": self.actor_inbox.qsize()}

    def _dispose(self, reason: object) -> None:
        """Called once by the runtime, when it is dead for everybody: release what it holds. Any thread."""
        if self.in_pykka_registry:
            ActorRegistry.unregister(self._actor_ref)

    # --- what Pykka asks of an actor class -----------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise NotImplementedError("a Process makes its mailbox in __init__")

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return Reply()

    def _start_actor_loop(self) -> None:
        raise NotImplementedError("a Process is started by Runtime.spawn")

    def on_receive(self, message: Any) -> Any:
        """Handle a message; what it returns answers a call. The default counts it as unexpected."""
        self.runtime.dead_letters.unexpected(message)
        return None

    def __str__(self) -> str:
        return self.label


class Grave:
    """What owns the mailbox of a dead process: it answers calls with `ProcessDead` and counts the rest."""

    is_alive = False
    __slots__ = ("_label", "_mailbox", "_runtime", "reason")

    def __init__(self, process: Process, reason: object) -> None:
        self._mailbox = process.actor_inbox
        self._label = process.label
        self._runtime = process.runtime
        self.reason = reason

    def run(self, limit: int) -> int:
        """Answer what came too late. Called by a worker that holds the mailbox."""
        self.answer_all()
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
            refuse(reply, ProcessDead(self._label, self.reason))
        elif not isinstance(item, (Down, ExitNotice, SystemMessage)):
            self._runtime.dead_letters.record(self._label, item)

    def __str__(self) -> str:
        return f"{self._label} (dead)"


def refuse(reply: pykka.Future[Any], error: BaseException) -> None:
    """Let a caller get ``error``, unless it has its answer already."""
    with contextlib.suppress(queue.Full):
        reply.set_exception((type(error), error, error.__traceback__))
