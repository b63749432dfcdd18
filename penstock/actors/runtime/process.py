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
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

import pykka
from pykka import ActorRegistry
from pykka._envelope import Envelope  # the one thing Pykka does not export and every inbox holds
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from penstock.actors.runtime.bounded import BoundedMailbox, MailboxOptions
from penstock.actors.runtime.grave import give, refuse, refuse_call
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.ref import ProcessRef, StopFlag, SystemMessage
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import NORMAL, Down, ExitNotice, ProcessExit, is_clean
from penstock.config.logs import get_logger
from penstock.errors import StartError, describe_reason

if TYPE_CHECKING:
    from penstock.actors.runtime.runtime import Runtime

__all__ = ["PYKKA_MESSAGES", "Process", "ProcessRef", "Refusal", "SystemMessage"]

PYKKA_MESSAGES: Final = frozenset({ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop})


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

    mailbox_options: MailboxOptions | None = None
    """What is special about its mailbox; set by ``Runtime.spawn(mailbox=…)``, or in the class for all of its kind."""

    _actor_ref: ProcessRef

    ref_class: ClassVar[type[ProcessRef]] = ProcessRef
    """What its ref is made of."""

    # Whoever writes one of the first four sets `_attention` afterwards; its own thread clears `_attention` first and
    # looks at them afterwards. So nothing is overlooked, without a lock and at the price of one look per message.
    _attention: bool = False  # something unusual: it is dead, or one of the following
    _signals: list[ExitNotice] | None = None  # exit signals it must obey
    _suspended: bool = False
    _backlog: deque[Any] | None = None  # taken out of the mailbox and not handled yet; comes before the mailbox
    _answering: Envelope[Any] | None = None  # the call it handles; `_refuse_pending` answers it if it dies in there
    _failure: BaseException | None = None  # what was raised, if it ends of that

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # What Pykka's own __init__ sets, with lighter parts.
        self.actor_urn = uuid.uuid4().urn
        options, enqueue = self.mailbox_options, self.runtime.dispatcher.enqueue
        self.actor_inbox = Mailbox(self, enqueue) if options is None else BoundedMailbox(self, enqueue, options)
        self.actor_stopped = StopFlag()  # type: ignore[assignment] # what Pykka uses of an Event
        self._actor_ref = self.ref_class(self)

    @classmethod
    def start(cls, *args: Any, runtime: Runtime | None = None, **kwargs: Any) -> ProcessRef:
        """Start it on ``runtime``; the same as ``runtime.spawn(cls, …)``."""
        if runtime is None:
            raise TypeError(f"{cls.__name__}.start() needs runtime=; or use runtime.spawn({cls.__name__}, ...)")
        return runtime.spawn(cls, *args, **kwargs)

    def begin(self) -> None:
        """Initialise, in the thread that starts it and before the first message. Called by the runtime.

        Raises:
            StartError: it exited, or was told to, while it initialised.
            Exception: what its ``on_start`` raised.
        """
        try:
            self._begin()
        except ProcessExit as exit_:
            raise StartError(self.label, exit_.reason) from None
        if not self.is_alive:
            raise StartError(self.label, self.exit_reason)
        if self._signals:
            raise StartError(self.label, self._signals[0].reason)

    def _proceed_or_end(self) -> None:
        """Do what comes between `begin` and the first message. Called by the runtime, in the same thread as `begin`."""
        try:
            self._proceed()
        except ProcessExit as exit_:
            self._end(exit_.reason)
        except Exception as error:
            self._end(error)

    def _begin(self) -> None:
        """Initialise. What this raises keeps it from starting."""
        self.on_start()

    def _proceed(self) -> None:
        """Do what comes between the start and the first message. It has started: what this raises is a crash."""

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
            while True:
                if self._attention:
                    count += self._run_attentively(limit - count)
                    if self._attention:
                        break
                while count < limit and not empty():
                    item = get()
                    if (
                        self._attention
                    ):  # looked at when the message is out: whoever sent a signal first is obeyed first
                        self._hold(item)
                        break
                    count += 1
                    handle(item)
                else:
                    break
        except ProcessExit as exit_:
            self._end(exit_.reason)
        except BaseException as error:
            self._end(error)
        finally:
            if self._attention:
                self._look_back()
            inbox.leave()
        return count

    def _attend(self) -> bool:
        """See what is unusual. Whether it lives."""
        self._attention = False
        if not self.is_alive:
            self._attention = True
            return False
        signals = self._signals
        if signals:  # as in OTP: who does not trap exits dies without `terminate`
            self.runtime.bury(self, signals[0].reason)
            return False
        if self._suspended or self._backlog:
            self._attention = True
        return True

    def _run_attentively(self, limit: int) -> int:
        """Handle messages while something is unusual: it is dead, suspended, or has a backlog."""
        count = 0
        inbox = self.actor_inbox
        while count < limit and self._attend() and self._attention:
            count += 1
            if not self._suspended:
                assert self._backlog is not None
                self._handle(self._backlog.popleft())
            elif inbox.empty():
                break
            elif self._is_urgent(item := inbox.get()):
                self._handle(item)
            else:
                self._hold(item)
        return count

    def _hold(self, item: Any) -> None:
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(item)
        self._attention = True

    def _look_back(self) -> None:
        """At the end of a turn: leave no caller unanswered if it is dead, and see to it that a backlog is run."""
        if not self.is_alive:
            self._refuse_pending(self.exit_reason)
        elif self._backlog and not self._suspended:
            self.actor_inbox.call()

    def _is_urgent(self, item: Any) -> bool:
        """Whether it is handled even while suspended."""
        message = item.message if item.__class__ is Envelope else item
        if message.__class__ is ExitNotice:
            return message.sender is not None and message.sender is self.parent
        return isinstance(message, (SystemMessage, _ActorStop))

    def _handle(self, item: Any) -> None:
        if item.__class__ is Envelope:
            if item.reply_to is not None:
                self._answer(item)
                return
            item = item.message
        if isinstance(item, SystemMessage):
            item.apply(self)
        elif item.__class__ is ExitNotice:
            self._notice(item)
        else:
            try:
                self._receive(item)
            except Refusal:  # there is no caller to refuse
                return

    def _notice(self, notice: ExitNotice) -> None:
        """A trapped exit signal: the parent's ends the process, anybody else's is a message."""
        if notice.sender is not None and notice.sender is self.parent:
            raise ProcessExit(notice.reason)
        self._receive(notice)

    def _receive(self, message: Any) -> Any:
        """Pykka's own messages, then ``on_receive``."""
        if message.__class__ in PYKKA_MESSAGES:
            match message:
                case ProxyCall():
                    return self._attribute(message.attr_path)(*message.args, **message.kwargs)
                case ProxyGetAttr():
                    return self._attribute(message.attr_path)
                case ProxySetAttr():
                    return setattr(self._attribute(message.attr_path[:-1]), message.attr_path[-1], message.value)
            raise ProcessExit(NORMAL)  # _ActorStop
        return self.on_receive(message)

    def _attribute(self, path: tuple[str, ...]) -> Any:
        found: Any = self
        for name in path:
            found = getattr(found, name)
        return found

    def _answer(self, call: Envelope[Any]) -> None:
        """Handle a call. If this is the end, `_refuse_pending` answers the caller, when it has ended."""
        self._answering = call  # before the look at whether it lives, as `bury` does it the other way round
        if self._attention and not self.is_alive:
            return
        message, reply = call.message, call.reply_to
        assert reply is not None
        if isinstance(message, SystemMessage):
            try:
                value = message.apply(self)
            except Exception as error:
                refuse(reply, error)
                self._answering = None
                return
        else:
            try:
                value = self._receive(message)
            except Refusal as refusal:
                refuse(reply, refusal.error)
                self._answering = None
                return
        give(reply, value)
        self._answering = None

    # --- suspension ----------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Handle nothing but system messages and exit signals until `resume` (OTP's ``sys:suspend``)."""
        self._suspended = True
        self._attention = True

    def resume(self) -> None:
        """Go on, with what came meanwhile first."""
        self._suspended = False

    def discard_down(self, monitor: int) -> None:
        """Take the `Down` of ``monitor`` out of what waits, if it is there. Only from inside the process."""
        inbox = self.actor_inbox
        for _ in range(len(self._backlog or ())):
            self._hold_unless_down(self._backlog.popleft(), monitor)  # type: ignore[union-attr]
        with contextlib.suppress(queue.Empty):
            while True:
                self._hold_unless_down(inbox.get(), monitor)

    def _hold_unless_down(self, item: Any, monitor: int) -> None:
        if item.__class__ is not Down or item.monitor != monitor:
            self._hold(item)

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self, reason: object) -> None:
        """End with ``reason``: clean up, be dead, tell links and monitors, answer who still waits."""
        if not self.is_alive:
            return
        if self._signals:  # came first
            self.runtime.bury(self, self._signals[0].reason)
            return
        if not is_clean(reason):
            self._report(reason)
        try:
            self.terminate(reason)
        except ProcessExit as exit_:
            reason = exit_.reason
        except BaseException as error:
            reason = error
            self._report(reason)
        if isinstance(reason, BaseException):
            self._failure = reason
        self.runtime.bury(self, reason)

    def _report(self, reason: object) -> None:
        """Log a crash: what, why, where; no message, no text of foreign exceptions."""
        said = describe_reason(reason)
        with contextlib.suppress(Exception):  # a log that fails must not keep it from ending
            shown = self._circumstances(said)
            if isinstance(reason, BaseException) and shown.get("reason") == said:  # not filtered out
                shown["exc_info"] = reason
            get_logger(actor=self.label).error("process_crashed", **shown)

    def _circumstances(self, reason: str) -> dict[str, Any]:
        """What the crash log says."""
        return {"reason": reason, "mailbox": self.actor_inbox.qsize()}

    def dispose(self, reason: object) -> None:
        """Called once by the runtime, when it is dead: release what it holds. Any thread."""
        if self.in_pykka_registry:
            ActorRegistry.unregister(self._actor_ref)
        self._refuse_pending(reason)

    def _refuse_pending(self, reason: object) -> None:
        """Answer the calls it has taken and not answered.

        Called when it is dead: by whoever buries it, and again by its own thread when that finds out, since it may
        have had a call in its hands which the other could not see.
        """
        call = self._answering
        if call is not None and call.reply_to is not None:
            self._refuse_current(call.message, call.reply_to, reason)
        backlog, grave = self._backlog, self.actor_inbox.grave
        while backlog and grave is not None:
            with contextlib.suppress(IndexError):
                grave.answer(backlog.popleft())

    def _refuse_current(self, message: Any, reply: pykka.Future[Any], reason: object) -> None:
        """Answer the call it ended in: its caller gets the very exception."""
        if reason is self._failure and isinstance(reason, BaseException):
            refuse(reply, reason)
        else:
            refuse_call(message, reply, self.label, reason)

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


class Refusal(Exception):
    """Raised while handling a call to let the caller get ``error``, without crashing."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(error)
