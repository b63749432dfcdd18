"""The runtime: what its processes share, that is clock, timers, dispatcher, names, links and dead letters.

It corresponds to a node in Erlang. One Python process can have any number of runtimes; they share nothing.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from pykka import ActorRegistry

from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.clock import Timers
from penstock.actors.runtime.dead_letters import DeadLetters
from penstock.actors.runtime.dead_process import DeadProcess
from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.node import Spawnable
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.reasons import KILL, KILLED, NOPROC, NORMAL, ProcessExit, is_clean
from penstock.actors.runtime.reply import Reply, answer_with
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.actors.runtime.start import PendingStart
from penstock.config.checks import check_number
from penstock.errors import CallTimeout, ProcessDead, StartError, SystemStopped
from penstock.ports import Clock

__all__ = ["Runtime"]

_MANY_SUPERVISORS: Final = 100  # whose restarts are counted apart


class _Relations:
    """Links and monitors of one process. Most processes have one link or none, so the dicts are made when needed."""

    __slots__ = ("_link", "_more", "watched_by", "watches")

    def __init__(self) -> None:
        self._link: ProcessRef | None = None  # the oldest link, unless the older ones have been removed
        self._more: dict[ProcessRef, None] | None = None  # an ordered set, so that a seed always gives the same run
        self.watched_by: dict[int, tuple[ProcessRef, Any]] | None = None  # monitor → (watcher, the ref or name it gave)
        self.watches: dict[int, ProcessRef] | None = None

    @property
    def links(self) -> tuple[ProcessRef, ...]:
        """The processes that it is linked to, in the order in which that was done."""
        first = () if self._link is None else (self._link,)
        return (*first, *self._more) if self._more else first

    def link(self, other: ProcessRef) -> None:
        """Add a link. Harmless if there is one."""
        if self._link is other:
            return
        if self._link is None and not self._more:
            self._link = other
        elif self._more is None:
            self._more = {other: None}
        else:
            self._more[other] = None

    def unlink(self, other: ProcessRef) -> None:
        """Remove a link. Harmless if there is none."""
        if self._link is other:
            self._link = None
        elif self._more:
            self._more.pop(other, None)


class Runtime:
    """Starts processes and keeps the tables of living processes, names, links and monitors.

    All methods may be called from any thread. One lock guards the tables; no user code runs under it.
    """

    def __init__(self, dispatcher: Dispatcher, timers: Timers, clock: Clock, seed: int | None = None) -> None:
        self.dispatcher = dispatcher
        self.random = random.Random(seed)  # noqa: S311 - jitter; a simulation gives the seed
        self.timers = timers
        self.clock = clock
        self.dead_letters = DeadLetters()
        self._lock = threading.RLock()
        self._alive: dict[ProcessRef, Process] = {}
        self._relations: dict[ProcessRef, _Relations] = {}
        self._names: dict[str, ProcessRef] = {}
        self._waiting: dict[ProcessRef, list[Reply]] = {}  # answered when the process is dead
        self._numbers = itertools.count(1)
        self._closed = False
        self.started = 0
        self.ended = 0
        self._restarts: Counter[str] = Counter()

    # --- starting ------------------------------------------------------------------------------------------------

    def spawn(
        self,
        cls: type[Spawnable],
        *args: Any,
        name: str | None = None,
        link: ProcessRef | None = None,
        start_timeout: float | None = None,
        mailbox: MailboxOptions | None = None,
        **kwargs: Any,
    ) -> ProcessRef:
        """Start a process and return its ref when its ``on_start`` is done.

        If this raises, nothing is left of the process, except that an ``on_start`` which hangs still occupies a thread.

        Args:
            cls: a subclass of `Process`.
            *args: for its constructor.
            name: a name for `whereis`, unique while the process lives.
            link: a process to link the new one to before it starts; becomes its ``parent``.
            start_timeout: seconds for ``on_start``, which then runs in a thread of the dispatcher. None runs it in
                the caller's thread, without a limit.
            mailbox: a bound or priorities for the mailbox. None takes the ``mailbox_options`` of the class.
            **kwargs: for its constructor.

        Raises:
            StartError: the process did not start. ``code`` says why: ``"already_started"`` (the name is taken; ``ref``
                is the process that has it), ``"timeout"``, a `ProcessDead` (``link`` is dead), or the reason with
                which the process exited or was killed before it had started.
            SystemStopped: the runtime is closed.
            OptionError: ``start_timeout`` is not allowed.
            TypeError: ``cls`` is not a subclass of `Process`.
            Exception: what the constructor or ``on_start`` raised.
        """
        if not issubclass(cls, Process):
            raise TypeError(f"cannot spawn {cls.__name__}: it is not a subclass of Process")
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
            if not process.is_alive:  # the runtime has been closed meanwhile
                ActorRegistry.unregister(ref)

    def _start_here(self, process: Process) -> None:
        try:
            process.begin()
            process._proceed_or_end()
        except BaseException as error:
            self._undo_start(process, error)
            raise
        finally:
            process.actor_inbox.leave()

    def _start_elsewhere(self, process: Process, timeout: float) -> None:
        ref, inbox = process._actor_ref, process.actor_inbox
        done = Reply(self.dispatcher, f"the start of {process.label}")
        start = PendingStart(process, done, self._undo_start)
        inbox.owner = start
        inbox.call()
        inbox.leave()
        timed_out = False
        if self._wait_unless_dead(ref, done):  # a death also ends the wait, although `on_start` may hang for ever
            try:
                done.get(timeout=timeout)
            except CallTimeout:
                timed_out = not done.is_done
            finally:
                self._stop_waiting(ref, done)
        if timed_out:
            error = StartError(process.label, "timeout")
            self._undo_start(process, error)
            raise error
        if start.error is not None:
            raise start.error
        if not start.has_begun:  # killed in its `on_start`
            raise StartError(process.label, process.exit_reason)

    def _undo_start(self, process: Process, error: BaseException) -> None:
        """Remove a process that did not start: the parent gets no exit notice, and the name is free again."""
        ref = process._actor_ref
        if process.parent is not None:
            self.unlink(ref, process.parent)
        if not isinstance(error, StartError):
            self.mark_dead(ref, error)
        else:  # not wanting to start is a normal end
            self.mark_dead(ref, NORMAL if error.code == "ignore" else error.code)

    # --- ending --------------------------------------------------------------------------------------------------

    def mark_dead(self, ref: ProcessRef, reason: object) -> None:
        """Make a process dead for all others: free its name, notify monitors and links, answer waiting callers.

        A process calls this at its end; `exit` calls it to kill a process. Only the first call has an effect.
        """
        with self._lock:
            process = self._alive.get(ref)
            if process is None:
                return
            process.exit_reason = reason
            process.actor_stopped.set()
            process._attention = True
            dead = DeadProcess(ref, self.dead_letters, reason)
            process.actor_inbox.mark_dead(dead)
            self._forget(ref, process)
            self.ended += 1
        try:
            process.dispose(reason)
        finally:
            forgotten_by = self._forgotten_by(process) if process.ends_quietly and is_clean(reason) else None
            with self._lock:
                self._announce(ref, reason, forgotten_by)
            dead.close()

    def _forgotten_by(self, process: Process) -> ProcessRef | None:
        """The parent of a process that ends quietly, if it has been able to forget it. Called without the lock."""
        parent = process.parent
        supervisor = None if parent is None else self._alive.get(parent)
        return parent if supervisor is not None and supervisor.forget_child(process._actor_ref) else None

    def _forget(self, ref: ProcessRef, process: Process) -> None:
        self._alive.pop(ref, None)
        if process.name is not None and self._names.get(process.name) is ref:
            del self._names[process.name]

    def _announce(self, ref: ProcessRef, reason: object, forgotten_by: ProcessRef | None) -> None:
        """Notify waiting threads, monitors and links, except ``forgotten_by``, which does not know the process now.

        Called with the lock held, so that no notice is sent after `unlink` or `demonitor` has returned. Putting a
        message into the mailbox of a living process runs no foreign code.
        """
        for waiting in self._waiting.pop(ref, ()):
            answer_with(waiting, None)
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
        for peer in relations.links:
            if (theirs := self._relations.get(peer)) is not None:
                theirs.unlink(ref)
            if peer is not forgotten_by:
                self._signal(peer, ref, reason)

    def exit(self, ref: ProcessRef, reason: object, sender: ProcessRef | None = None) -> None:
        """Send an exit signal, as OTP's ``exit(Pid, Reason)``.

        ``"kill"`` cannot be trapped: when this returns, the process is dead for all others (reason ``"killed"``), but
        a thread that runs its code finishes the current message, without effect. Any other reason ends the process
        before its next message, or arrives as an `ExitNotice` if it traps exits. ``"normal"`` from another process is
        ignored unless it traps exits.
        """
        if isinstance(reason, str) and reason == KILL:
            process = self._alive.get(ref)
            if process is not None:
                signals = process._signals  # of two exits the first wins
                self.mark_dead(ref, signals[0].reason if signals else KILLED)
        else:
            self._signal(ref, sender, reason)
        if sender is ref and not self._traps(ref):
            raise ProcessExit(reason)  # must not go on; if it catches this, it ends before its next message

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
                process._signals = [*(process._signals or ()), notice]  # only the first one is obeyed
                process._attention = True
                process.actor_inbox.call()

    # --- links and monitors --------------------------------------------------------------------------------------

    def link(self, one: ProcessRef, other: ProcessRef) -> None:
        """Link two processes: if one ends, the other gets its exit signal.

        Linking twice, or a process to itself, has no effect.

        Raises:
            ProcessDead: ``other`` is dead and ``one`` does not trap exits (if it does, it gets an `ExitNotice`), or
                ``one`` is dead.
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
        """Remove the link between two processes. A notice that is already in a mailbox stays there."""
        with self._lock:
            self._unlink(one, other)

    def _link(self, one: ProcessRef, other: ProcessRef) -> bool:
        if one is other:
            return True
        if one not in self._alive or other not in self._alive:
            return False
        self._relations_of(one).link(other)
        self._relations_of(other).link(one)
        return True

    def _unlink(self, one: ProcessRef, other: ProcessRef) -> None:
        for a, b in ((one, other), (other, one)):
            relations = self._relations.get(a)
            if relations is not None:
                relations.unlink(b)

    def monitor(self, watcher: ProcessRef, target: ProcessRef | str) -> int:
        """Send ``watcher`` one `Down` when ``target`` (a ref or a name) ends, or at once if there is no such process.

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
        """Remove a monitor; returns whether it was set. If so, no `Down` has been sent and none will be.

        A `Down` that is already in the mailbox stays there unless ``flush`` removes it. Only the watcher itself may
        use ``flush``, in its own thread.
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
        """Send a message to a ref or a name. If no process has the name, the message becomes a dead letter.

        Raises:
            MailboxFull: as `ProcessRef.tell`.
        """
        ref = self._names.get(target) if isinstance(target, str) else target
        if ref is not None:
            ref.tell(message)
        else:
            self.dead_letters.record(str(target), message)

    def whereis(self, name: str) -> ProcessRef | None:
        """Return the process that has this name now, or None."""
        return self._names.get(name)

    def names(self) -> dict[str, ProcessRef]:
        """Return all names and their processes."""
        with self._lock:
            return dict(self._names)

    def is_alive(self, ref: ProcessRef) -> bool:
        """Whether the process belongs to this runtime and has not ended."""
        return ref in self._alive

    def exit_reason(self, ref: ProcessRef) -> object:
        """Return why a process ended, None while it lives, ``"noproc"`` if it never started."""
        with self._lock:
            dead = ref.actor_inbox.dead_owner
            return dead.reason if isinstance(dead, DeadProcess) else None if ref in self._alive else NOPROC

    def links_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Return the processes that ``ref`` is linked to."""
        with self._lock:
            relations = self._relations.get(ref)
            return relations.links if relations else ()

    def monitors_of(self, ref: ProcessRef) -> tuple[ProcessRef, ...]:
        """Return the processes that ``ref`` monitors."""
        with self._lock:
            relations = self._relations.get(ref)
            return tuple((relations.watches or {}).values()) if relations else ()

    def note_restart(self, supervisor: str) -> None:
        """Count a child that a supervisor of that name has restarted."""
        with self._lock:
            known = supervisor in self._restarts or len(self._restarts) < _MANY_SUPERVISORS
            self._restarts[supervisor if known else "other"] += 1

    def restarts(self) -> Mapping[str, int]:
        """How many children have been restarted, by the name of their supervisor; from the 101st on as ``"other"``."""
        with self._lock:
            return dict(self._restarts)

    def largest_mailbox(self) -> int:
        """How many messages wait in the fullest mailbox. Takes time in proportion to the number of processes."""
        return max((ref.actor_inbox.qsize() for ref in self.processes()), default=0)

    def processes(self) -> list[ProcessRef]:
        """Return all living processes."""
        with self._lock:
            return list(self._alive)

    def join(self, ref: ProcessRef, timeout: float | None = None) -> bool:
        """Wait for at most ``timeout`` seconds (None: for ever) until ``ref`` is dead; returns whether it is."""
        died = Reply(self.dispatcher, f"the end of {ref.label}")
        if self._wait_unless_dead(ref, died):
            try:
                died.get(timeout=timeout)
            except CallTimeout:
                return not self.is_alive(ref)
            finally:
                self._stop_waiting(ref, died)
        return True

    def _wait_unless_dead(self, ref: ProcessRef, reply: Reply) -> bool:
        """Have ``reply`` answered when ``ref`` is dead; returns False if it is dead already.

        The runtime answers itself, without the help of a process, which could be killed.
        """
        with self._lock:
            if ref not in self._alive:
                return False
            self._waiting.setdefault(ref, []).append(reply)
        return True

    def _stop_waiting(self, ref: ProcessRef, reply: Reply) -> None:
        with self._lock:
            waiting = self._waiting.get(ref)
            if waiting is not None and reply in waiting:
                waiting.remove(reply)
                if not waiting:
                    del self._waiting[ref]

    def close(self) -> None:
        """Kill all processes and start no more. The dispatcher and the timers stay open; their owner closes them."""
        with self._lock:
            self._closed = True
            left = list(self._alive)
        for ref in left:
            self.mark_dead(ref, KILLED)
