"""What processes of one system share: clock, timers, dispatcher, names, links, dead letters.

It is to processes what a node is to Erlang's. There can be any number of runtimes in one Python process; they share
nothing.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, TypeVar

from pykka import ActorRegistry

from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.clock import Timers
from penstock.actors.runtime.dead_letters import DeadLetters
from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.grave import Grave
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import KILL, KILLED, NOPROC, NORMAL, Down, ExitNotice, ProcessExit
from penstock.actors.runtime.start import Starting
from penstock.config.checks import check_number
from penstock.errors import ProcessDead, StartError, SystemStopped
from penstock.ports import Clock

__all__ = ["Runtime"]

P = TypeVar("P", bound=Process)


class _Relations:
    """Links and monitors of one process; most have few or none, so the dicts are made when needed."""

    __slots__ = ("links", "watched_by", "watches")

    def __init__(self) -> None:
        self.links: dict[ProcessRef, None] | None = None  # a set that keeps its order, so that a seed gives one run
        self.watched_by: dict[int, tuple[ProcessRef, Any]] | None = None  # monitor → (who, what it named)
        self.watches: dict[int, ProcessRef] | None = None


class Runtime:
    """Starts processes and knows which are alive, what they are called, and who is to hear of whose end.

    All methods may be called from any thread. The one lock guards the tables; no user code runs under it.
    """

    def __init__(self, dispatcher: Dispatcher, timers: Timers, clock: Clock) -> None:
        self.dispatcher = dispatcher
        self.timers = timers
        self.clock = clock
        self.dead_letters = DeadLetters()
        self._lock = threading.RLock()
        self._alive: dict[ProcessRef, Process] = {}
        self._relations: dict[ProcessRef, _Relations] = {}
        self._names: dict[str, ProcessRef] = {}
        self._numbers = itertools.count(1)
        self._closed = False
        self.started = 0
        self.ended = 0

    # --- starting ------------------------------------------------------------------------------------------------

    def spawn(
        self,
        cls: type[P],
        *args: Any,
        name: str | None = None,
        link: ProcessRef | None = None,
        start_timeout: float | None = None,
        mailbox: MailboxOptions | None = None,
        **kwargs: Any,
    ) -> ProcessRef:
        """Start a process and return its ref when its ``on_start`` is done.

        Args:
            cls: the class.
            *args: for its constructor.
            name: a name that is unique as long as it lives; looked up with `whereis`.
            link: a process to link it to before it starts (its parent).
            **kwargs: for its constructor.
            start_timeout: seconds for ``on_start``, which then runs in a thread of the dispatcher. None runs it in
                the caller's thread and waits for as long as it takes.
            mailbox: a bound, or priorities, for its mailbox; None is what its class says, by default neither.

        Raises:
            StartError: the name is taken (``already_started``, with the other's ``ref``), ``start_timeout`` is over,
                or it exited, or was made to, before it had started (``code`` is the reason).
            SystemStopped: the runtime is closed.
            Exception: what the constructor or ``on_start`` raised; nothing is left of the process then.
        """
        check_number("start_timeout", start_timeout, 0, 1e9, optional=True)
        process = cls.__new__(cls)
        process.runtime = self
        process.name = name
        process.parent = link
        if mailbox is not None:
            process.mailbox_options = mailbox
        process.__init__(*args, **kwargs)  # type: ignore[misc]
        ref = process._actor_ref
        self._admit(process, ref, name, link)
        if start_timeout is None:
            self._start_here(process)
        else:
            self._start_elsewhere(process, start_timeout)
        return ref

    def _admit(self, process: Process, ref: ProcessRef, name: str | None, link: ProcessRef | None) -> None:
        with self._lock:
            if self._closed:
                raise SystemStopped()
            if name is not None:
                other = self._names.get(name)
                if other is not None:
                    raise StartError(name, "already_started", other)
                self._names[name] = ref
            self._alive[ref] = process
            self.started += 1
            if link is not None and not self._link(link, ref):
                self._forget(ref, process)
                process.actor_stopped.set()
                raise StartError(process.label, ProcessDead(link.label))
        if process.in_pykka_registry:
            ActorRegistry.register(ref)
            if not process.is_alive:  # the runtime was closed meanwhile
                ActorRegistry.unregister(ref)

    def _start_here(self, process: Process) -> None:
        try:
            process.begin()
        except BaseException as error:
            self._undo_start(process, error)
            raise
        finally:
            process.actor_inbox.leave()

    def _start_elsewhere(self, process: Process, timeout: float) -> None:
        started = Reply(self.dispatcher, f"the start of {process.label}")
        inbox = process.actor_inbox
        inbox.owner = Starting(process, started)
        inbox.call()
        inbox.leave()
        try:
            started.get(timeout=timeout)
        except TimeoutError:
            if not started.is_done:
                error = StartError(process.label, "timeout")
                self._undo_start(process, error)
                raise error from None
            started.get()

    def _undo_start(self, process: Process, error: BaseException) -> None:
        """Leave no trace: no exit notice reaches the parent, the name is free again."""
        if process.parent is not None:
            self.unlink(process._actor_ref, process.parent)
        if not isinstance(error, StartError):
            self.bury(process, error)
        else:  # who declines to start ends normally
            self.bury(process, NORMAL if error.code == "ignore" else error.code)

    # --- ending --------------------------------------------------------------------------------------------------

    def bury(self, process: Process, reason: object) -> None:
        """Make ``process`` dead for everybody: free its name, tell monitors and links, answer who waits for it.

        The process calls this at its end; `kill` calls it for one that cannot be asked. The first call counts.
        """
        ref = process._actor_ref
        with self._lock:
            if process.actor_stopped.is_set():
                return
            process.exit_reason = reason
            process.actor_stopped.set()
            process._attention = True
            grave = Grave(process, reason)
            process.actor_inbox.bury(grave)
            self._forget(ref, process)
            self.ended += 1
        try:
            process.dispose(reason)
        finally:
            with self._lock:
                self._announce(ref, reason)
            grave.close()

    def _forget(self, ref: ProcessRef, process: Process) -> None:
        self._alive.pop(ref, None)
        if process.name is not None and self._names.get(process.name) is ref:
            del self._names[process.name]

    def _announce(self, ref: ProcessRef, reason: object) -> None:
        """Tell monitors and links. Under the lock, so that nobody hears of it after `unlink` or `demonitor`.

        What is put into the mailbox of a living process runs no foreign code here.
        """
        relations = self._relations.pop(ref, None)
        if relations is None:
            return
        for monitor, target in (relations.watches or {}).items():
            if (theirs := self._relations.get(target)) is not None and theirs.watched_by:
                theirs.watched_by.pop(monitor, None)
        for monitor, (watcher, named) in (relations.watched_by or {}).items():
            if (theirs := self._relations.get(watcher)) is not None and theirs.watches:
                theirs.watches.pop(monitor, None)
            if watcher in self._alive:
                watcher.actor_inbox.put(Down(monitor, named, reason))
        for peer in relations.links or ():
            if (theirs := self._relations.get(peer)) is not None and theirs.links:
                theirs.links.pop(ref, None)
            self._signal(peer, ref, reason)

    def exit(self, ref: ProcessRef, reason: object, sender: ProcessRef | None = None) -> None:
        """Send an exit signal, as OTP's ``exit(Pid, Reason)``.

        ``"kill"`` cannot be trapped: the process is dead when this returns, for everybody (reason ``"killed"``),
        though a thread that is in its code finishes what it does there. Any other reason ends the process before its
        next message, or comes as an `ExitNotice` if it traps exits. ``"normal"`` from somebody else is ignored
        unless it traps.
        """
        if isinstance(reason, str) and reason == KILL:
            process = self._alive.get(ref)
            if process is not None:
                signals = process._signals  # of two exits the first wins
                self.bury(process, signals[0].reason if signals else KILLED)
        else:
            self._signal(ref, sender, reason)
        if sender is ref and not self._traps(ref):
            raise ProcessExit(reason)  # it must not go on; should it catch this, it ends before its next message

    def _traps(self, ref: ProcessRef) -> bool:
        process = self._alive.get(ref)
        return process is not None and process.trap_exit

    def _signal(self, ref: ProcessRef, sender: ProcessRef | None, reason: object) -> None:
        with self._lock:
            process = self._alive.get(ref)
            if process is None:
                return
            notice = ExitNotice(sender, reason)
            if process.trap_exit:
                process.actor_inbox.put(notice)
            elif sender is ref or not (isinstance(reason, str) and reason == NORMAL):
                process._signals = [*(process._signals or ()), notice]  # the first one counts
                process._attention = True
                process.actor_inbox.call()

    # --- links and monitors --------------------------------------------------------------------------------------

    def link(self, one: ProcessRef, other: ProcessRef) -> None:
        """Tie two processes: if one ends, the other gets its exit signal. Linking twice, or to oneself, does nothing.

        Raises:
            ProcessDead: ``other`` is dead and ``one`` does not trap exits (if it does, it gets an `ExitNotice`).
        """
        with self._lock:
            linked = self._link(one, other)
        if linked:
            return
        process = self._alive.get(one)
        if process is None or not process.trap_exit:
            raise ProcessDead(other.label if process else one.label)
        one.actor_inbox.put(ExitNotice(other, NOPROC))

    def unlink(self, one: ProcessRef, other: ProcessRef) -> None:
        """Untie them. A notice that is already in a mailbox stays there."""
        with self._lock:
            self._unlink(one, other)

    def _link(self, one: ProcessRef, other: ProcessRef) -> bool:
        if one is other:
            return True
        if one not in self._alive or other not in self._alive:
            return False
        for a, b in ((one, other), (other, one)):
            relations = self._relations_of(a)
            if relations.links is None:
                relations.links = {}
            relations.links[b] = None
        return True

    def _unlink(self, one: ProcessRef, other: ProcessRef) -> None:
        for a, b in ((one, other), (other, one)):
            relations = self._relations.get(a)
            if relations is not None and relations.links:
                relations.links.pop(b, None)

    def monitor(self, watcher: ProcessRef, target: ProcessRef | str) -> int:
        """Let ``watcher`` get one `Down` when ``target`` (a ref or a name) ends; at once if there is no such process.

        Returns the number that the `Down` will carry.
        """
        with self._lock:
            number = next(self._numbers)
            ref = self._names.get(target) if isinstance(target, str) else target
            if ref is not None and ref in self._alive and watcher in self._alive:
                theirs, ours = self._relations_of(ref), self._relations_of(watcher)
                if theirs.watched_by is None:
                    theirs.watched_by = {}
                if ours.watches is None:
                    ours.watches = {}
                theirs.watched_by[number] = (watcher, target)
                ours.watches[number] = ref
                return number
        watcher.actor_inbox.put(Down(number, target, NOPROC))
        return number

    def demonitor(self, watcher: ProcessRef, monitor: int, *, flush: bool = False) -> bool:
        """Take a monitor back; returns whether it was there: no `Down` has been sent then, and none will be.

        A `Down` that is already in the mailbox stays there, unless ``flush`` takes it out; that is for the watcher
        itself to ask for, in its own thread.
        """
        process = self._alive.get(watcher)
        found = self._demonitor(watcher, monitor)
        if flush and not found and process is not None:
            process.discard_down(monitor)
        return found

    def _demonitor(self, watcher: ProcessRef, monitor: int) -> bool:
        with self._lock:
            ours = self._relations.get(watcher)
            target = ours.watches.pop(monitor, None) if ours is not None and ours.watches else None
            if target is None:
                return False
            theirs = self._relations.get(target)
            if theirs is not None and theirs.watched_by:
                theirs.watched_by.pop(monitor, None)
            return True

    def _relations_of(self, ref: ProcessRef) -> _Relations:
        relations = self._relations.get(ref)
        if relations is None:
            relations = self._relations[ref] = _Relations()
        return relations

    # --- messages, names and tables ------------------------------------------------------------------------------

    def tell(self, target: ProcessRef | str, message: Any) -> None:
        """Send a message to a ref or to whoever has that name. To nobody is not an error but a dead letter."""
        ref = self._names.get(target) if isinstance(target, str) else target
        if ref is not None:
            ref.tell(message)
        else:
            self.dead_letters.record(str(target), message)

    def whereis(self, name: str) -> ProcessRef | None:
        """Who has that name now."""
        return self._names.get(name)

    def names(self) -> dict[str, ProcessRef]:
        """All names and who has them."""
        with self._lock:
            return dict(self._names)

    def is_alive(self, ref: ProcessRef) -> bool:
        """Whether that process is one of ours and has not ended."""
        return ref in self._alive

    def exit_reason(self, ref: ProcessRef) -> object:
        """Why it ended (``"noproc"`` if that is not known any more), or None while it lives."""
        with self._lock:
            grave = ref.actor_inbox.grave
            return grave.reason if isinstance(grave, Grave) else None if ref in self._alive else NOPROC

    def links_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Whom it is linked to."""
        with self._lock:
            relations = self._relations.get(ref)
            return tuple(relations.links or ()) if relations else ()

    def monitors_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Whom it monitors."""
        with self._lock:
            relations = self._relations.get(ref)
            return tuple((relations.watches or {}).values()) if relations else ()

    def processes(self) -> list[ProcessRef]:
        """Everybody alive."""
        with self._lock:
            return list(self._alive)

    def join(self, ref: ProcessRef, timeout: float | None = None) -> bool:
        """Wait until ``ref`` is dead, for at most ``timeout`` seconds; returns whether it is."""
        if not self.is_alive(ref):
            return True
        died = Reply(self.dispatcher, f"the end of {ref.label}")
        watch = self.spawn(_DeathWatch, ref, died)
        try:
            died.get(timeout=timeout)
        except TimeoutError:
            return not self.is_alive(ref)
        finally:
            self.exit(watch, KILL)
        return True

    def close(self) -> None:
        """Kill what is still alive and start nothing any more. Dispatcher and timers are their owner's to close."""
        with self._lock:
            self._closed = True
            left = list(self._alive.values())
        for process in left:
            self.bury(process, KILLED)


class _DeathWatch(Process):
    """Answers when another process is dead."""

    in_pykka_registry = False

    def __init__(self, target: ProcessRef, died: Reply) -> None:
        super().__init__()
        self._target = target
        self._died = died

    def on_start(self) -> None:
        self.runtime.monitor(self._actor_ref, self._target)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Down):
            self._died.set()
