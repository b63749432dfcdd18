"""Processes: Pykka actors on a dispatcher, with exit reasons, links and monitors.

A `Process` is a `pykka.Actor`: its refs, proxies and futures work as in Pykka. The differences:

* ``start`` returns when ``on_start`` is done, and raises what that raised;
* an exception in a *call* (``ask``, proxy call) crashes the process, as in OTP: the caller gets the exception, linked
  and monitoring processes learn of the exit. With Pykka only the caller gets the exception;
* ``tell`` to a dead process makes a dead letter. It does not raise in the sender.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn

import pykka
from pykka import ActorRegistry
from pykka._envelope import Envelope  # not exported by Pykka, but every inbox holds it
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from penstock.actors.runtime.bounded import BoundedMailbox, MailboxOptions
from penstock.actors.runtime.dead_process import answer_call_to_dead
from penstock.actors.runtime.dispatcher import clear_frames_later
from penstock.actors.runtime.frames import forget_tracebacks
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.node import Node
from penstock.actors.runtime.reasons import NORMAL, ProcessExit, is_clean
from penstock.actors.runtime.ref import ProcessRef, StopFlag, SystemMessage
from penstock.actors.runtime.reply import Reply, answer_with, answer_with_error
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.config.logs import get_logger
from penstock.errors import StartError, describe_reason

__all__ = ["PYKKA_MESSAGES", "Process", "ProcessRef", "Refusal", "SystemMessage"]

PYKKA_MESSAGES: Final = frozenset({ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop})


# An actor's URN is that of a UUID whose first field counts. The other fields are random, and the same for all actors of
# one process: a random UUID for each takes half as long as the rest of its start.
_numbers: Final = itertools.count(uuid.uuid4().time_low)
_rest_of_urn: str = str(uuid.uuid4())[8:]


def _renew_urn() -> None:
    global _rest_of_urn
    _rest_of_urn = str(uuid.uuid4())[8:]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_urn)


class Process(pykka.Actor):
    """An actor on the dispatcher. Subclass it as you would `pykka.ThreadingActor`, start it with `Runtime.spawn`.

    Hooks, all called in the process and never by two threads at once: ``on_start``; ``on_receive(message)`` for every
    message, including `Down`, and `ExitNotice` if ``trap_exit`` is set; ``terminate(reason)`` at the end, unless the
    process is killed. The default ``terminate`` calls Pykka's ``on_stop`` or ``on_failure``.
    """

    trap_exit: bool = False
    """Whether exit signals arrive as `ExitNotice` messages instead of ending the process. Set it in ``on_start``."""

    in_pykka_registry: ClassVar[bool] = True
    """Whether `pykka.ActorRegistry` lists the process. That is a list whose cost grows with the number of actors: set
    this to False for classes with thousands of instances. `Runtime.whereis` finds names either way."""

    runtime: Node
    exit_reason: object = None
    """Why the process ended; None while it lives."""

    actor_inbox: Mailbox

    name: str | None = None
    parent: ProcessRef | None = None
    """The process given as ``link`` to `Runtime.spawn`. Its exit signal ends this process even if that traps exits;
    `terminate` is called then."""

    mailbox_options: MailboxOptions | None = None
    """Options for the mailbox: set by ``Runtime.spawn(mailbox=…)``, or in a class for all of its instances."""

    _actor_ref: ProcessRef

    ends_quietly: bool = False
    """Set this in ``terminate`` if the clean end of the process needs nothing but that its supervisor forgets it. That
    is done at once then, in the thread of the process, and neither the supervisor nor its observer gets a message."""

    ref_class: ClassVar[type[ProcessRef]] = ProcessRef
    """Class of the process's ref."""

    # A thread that writes `_signals`, `_suspended` or `_backlog` sets `_attention` afterwards; the process's own thread
    # clears `_attention` first and reads them afterwards. So nothing is overlooked, without a lock and at the price of
    # one check per message.
    _attention: bool = False  # something unusual: the process is dead, or one of the following
    _signals: list[ExitNotice] | None = None  # exit signals to obey
    _suspended: bool = False
    _backlog: deque[Any] | None = None  # taken out of the mailbox and not handled yet; handled before the mailbox
    _answering: Envelope[Any] | None = None  # the call being handled; `_answer_pending_calls` answers it after a death
    _failure: BaseException | None = None  # the exception that ended the process

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # What Pykka's own __init__ sets, with lighter parts.
        self.actor_urn = f"urn:uuid:{next(_numbers) & 0xFFFFFFFF:08x}{_rest_of_urn}"
        options, node = self.mailbox_options, self.runtime
        if options is None:
            self.actor_inbox = Mailbox(self, node.dispatcher.enqueue)
        else:
            self.actor_inbox = BoundedMailbox(self, node.dispatcher, node.dead_letters, options)
        self.actor_stopped = StopFlag()  # type: ignore[assignment] # what Pykka uses of an Event
        self._actor_ref = self.ref_class(self)

    @classmethod
    def start(cls, *args: Any, runtime: Node | None = None, **kwargs: Any) -> ProcessRef:
        """Start the process on ``runtime``; the same as ``runtime.spawn(cls, …)``.

        Raises:
            StartError: the process did not start, see `Runtime.spawn`.
            SystemStopped: the runtime is closed.
            Exception: what the constructor or ``on_start`` raised.
        """
        if runtime is None:
            raise TypeError(f"{cls.__name__}.start() needs runtime=; or use runtime.spawn({cls.__name__}, ...)")
        return runtime.spawn(cls, *args, **kwargs)

    def begin(self) -> None:
        """Initialise the process, in the thread that starts it. Called by the runtime.

        Raises:
            StartError: the process exited, was killed or got an exit signal meanwhile.
            Exception: what ``on_start`` raised.
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
        """Initialise. If this raises, the process does not start.

        Raises:
            StartError: for instance, a state machine's ``init`` returned `IGNORE` or `Stop`.
            Exception: what ``on_start`` raised.
        """
        self.on_start()

    def _proceed(self) -> None:
        """Do what comes between the start and the first message. The process has started: an exception is a crash."""

    # --- hooks ---------------------------------------------------------------------------------------------------

    def terminate(self, reason: object) -> None:
        """Clean up before the process ends with ``reason``. An exception raised here becomes the exit reason."""
        if isinstance(reason, BaseException):
            self.on_failure(type(reason), reason, reason.__traceback__)
        else:
            self.on_stop()

    @property
    def label(self) -> str:
        """Name of the process in logs and errors."""
        return self.name or f"{type(self).__name__}-{self.actor_urn[9:17]}"

    # --- for the process itself ----------------------------------------------------------------------------------

    def exit(self, reason: object = NORMAL) -> NoReturn:
        """End now, with ``reason``. Only from inside the process."""
        raise ProcessExit(reason)

    @property
    def ref(self) -> ProcessRef:
        """The process's ref, by which other processes reach it."""
        return self._actor_ref

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
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
                while count < limit and not empty():
                    item = get()
                    # Checked after the message is out: a signal that was sent before the message is obeyed first.
                    # Right behind a suspension there may be its end, or the parent's exit signal.
                    if self._attention and not (self._attend() and self._suspended and self._is_urgent(item)):
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

    def run_step(self, step: Callable[..., object], *arguments: Any) -> None:
        """Call ``step(*arguments)`` in place of a message. The caller holds the mailbox, which is left afterwards.

        What the step raises ends the process, as if a message had raised it. The exception loses its traceback once
        that is in the log: the thread need not be the dispatcher's, and then nothing clears its frames later.
        """
        try:
            step(*arguments)
        except ProcessExit as exit_:
            self._end(exit_.reason)
        except BaseException as error:
            self._end(error)
        finally:
            if self._attention:
                self._look_back()
            if self._failure is not None:
                forget_tracebacks(self._failure)
            self.actor_inbox.leave()

    def _attend(self) -> bool:
        """Find out what is unusual; returns whether the process is alive."""
        self._attention = False
        if not self.is_alive:
            self._attention = True
            return False
        signals = self._signals
        if signals:  # as in OTP: a process that does not trap exits dies without `terminate`
            self.runtime.mark_dead(self._actor_ref, signals[0].reason)
            return False
        if self._suspended or self._backlog:
            self._attention = True
        return True

    def _run_attentively(self, limit: int) -> int:
        """Handle messages while something is unusual: the process is dead, suspended, or has a backlog."""
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
        """At the end of a turn, answer all callers if the process is dead, or have its backlog handled."""
        if not self.is_alive:
            self._answer_pending_calls(self.exit_reason)
        elif self._backlog and not self._suspended:
            self.actor_inbox.call()

    def _is_urgent(self, item: Any) -> bool:
        """Whether the message is handled even while the process is suspended."""
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
            except Refusal:  # there is no caller to get the error
                return

    def _notice(self, notice: ExitNotice) -> None:
        """Handle a trapped exit signal: the parent's ends the process, any other is a message."""
        if notice.sender is not None and notice.sender is self.parent:
            raise ProcessExit(notice.reason)
        self._receive(notice)

    def _receive(self, message: Any) -> Any:
        """Handle Pykka's own messages; pass others to ``on_receive``."""
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
        """Handle a call. If this ends the process, `_answer_pending_calls` answers the caller afterwards."""
        self._answering = call  # before `is_alive` is read; `Runtime.mark_dead` works in the opposite order
        if self._attention and not self.is_alive:
            return
        message, reply = call.message, call.reply_to
        assert reply is not None
        if isinstance(message, SystemMessage):
            try:
                value = message.apply(self)
            except Exception as error:
                answer_with_error(reply, error)
                self._answering = None
                return
        else:
            try:
                value = self._receive(message)
            except Refusal as refusal:
                answer_with_error(reply, refusal.error)
                self._answering = None
                return
        answer_with(reply, value)
        self._answering = None

    # --- suspension ----------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Handle nothing but system messages and exit signals until `resume` (OTP's ``sys:suspend``)."""
        self._suspended = True
        self._attention = True

    def resume(self) -> None:
        """Continue, first with the messages that arrived meanwhile."""
        self._suspended = False

    def discard_down(self, monitor: int) -> None:
        """Remove the `Down` of ``monitor`` from the waiting messages. Only from inside the process."""
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
        """End with ``reason``: clean up, and have the runtime mark the process dead."""
        if not self.is_alive:
            return
        if self._signals:  # arrived first
            self.runtime.mark_dead(self._actor_ref, self._signals[0].reason)
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
            clear_frames_later(reason)
        self.runtime.mark_dead(self._actor_ref, reason)

    def _report(self, reason: object) -> None:
        """Log a crash: the process, the reason and the traceback, but no message and no text of foreign exceptions."""
        described = describe_reason(reason)
        with contextlib.suppress(Exception):  # a log that fails must not keep the process from ending
            shown = self._circumstances(described)
            if isinstance(reason, BaseException) and shown.get("reason") == described:  # not filtered out
                shown["exc_info"] = reason
            get_logger(actor=self.label).error("process_crashed", **shown)

    def _circumstances(self, reason: str) -> dict[str, Any]:
        """Return the fields of the crash log."""
        return {"reason": reason, "mailbox": self.actor_inbox.qsize()}

    def dispose(self, reason: object) -> None:
        """Release what the process holds. Called once by the runtime when the process is dead, in any thread."""
        if self.in_pykka_registry:
            ActorRegistry.unregister(self._actor_ref)
        self._answer_pending_calls(reason)

    def forget_child(self, ref: ProcessRef) -> bool:
        """Forget a child that ends quietly; False: it is not known as one, so that an exit notice is needed.

        Called in the thread of the child, which is dead, while the supervisor may run. It must not block.
        """
        return False

    def _answer_pending_calls(self, reason: object) -> None:
        """Answer the calls that the process has taken out of its mailbox and not answered.

        Called when the process is dead: by the thread that marked it dead, and again by its own thread, which may have
        taken a call that the other thread could not see yet.
        """
        call = self._answering
        if call is not None and call.reply_to is not None:
            self._answer_current_call(call.message, call.reply_to, reason)
        backlog, dead_owner = self._backlog, self.actor_inbox.dead_owner
        while backlog and dead_owner is not None:
            with contextlib.suppress(IndexError):
                dead_owner.answer(backlog.popleft())

    def _answer_current_call(self, message: Any, reply: pykka.Future[Any], reason: object) -> None:
        """Answer the call that was being handled when the process ended: if it crashed, with the exception itself."""
        if reason is self._failure and isinstance(reason, BaseException):
            answer_with_error(reply, reason)
        else:
            answer_call_to_dead(message, reply, self.label, reason)

    # --- required by Pykka of an actor class ---------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Any:
        raise NotImplementedError("a Process makes its mailbox in __init__")

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return Reply()

    def _start_actor_loop(self) -> None:
        raise NotImplementedError("a Process is started by Runtime.spawn")

    def on_receive(self, message: Any) -> Any:
        """Handle a message; the result answers a call. The default counts the message as unexpected."""
        self.runtime.dead_letters.unexpected(message)
        return None

    def __str__(self) -> str:
        return self.label


class Refusal(Exception):
    """Raise this while handling a call: the caller gets ``error``, and the process does not crash."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
