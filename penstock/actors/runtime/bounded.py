"""Mailboxes with a bound or priorities, in which system messages overtake all others.

A process has one if its ``spawn`` or its class gives `MailboxOptions`. The ordinary `Mailbox` is smaller and faster,
since it needs no lock.
"""

from __future__ import annotations

import queue
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

import msgspec
import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from penstock.actors.runtime.clock import Fired
from penstock.actors.runtime.dead_letters import DeadLetters
from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.mailbox import DeadOwner, Mailbox, Owner
from penstock.actors.runtime.ref import SystemMessage
from penstock.actors.runtime.reply import answer_with_error
from penstock.actors.runtime.signals import Down, ExitNotice
from penstock.config.checks import check_choice, check_number
from penstock.config.logs import get_logger
from penstock.errors import MailboxFull, OptionError

__all__ = ["BoundedMailbox", "BoundedProcess", "MailboxCounters", "MailboxOptions", "WhenFull"]

WhenFull: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "reject"]

_LAST: Final = 1 << 62  # the priority of Pykka's polite stop, which is handled after everything else
_SYSTEM: Final = (SystemMessage, ExitNotice, Down, Fired)


class MailboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options for the mailbox of one process.

    With any options, system messages (exit notices, `Down`, OTP's ``sys`` requests, the process's own timers) overtake
    all others. Neither they nor Pykka's polite ``stop()`` count towards ``max_size``, and they are never refused.

    Attributes:
        max_size: messages that may wait, 1 … 10,000,000; None sets no bound.
        when_full: what happens to a message that finds no room.
            ``"block"``: the sender waits for at most ``block_timeout``, then as with ``"reject"``. A message that a
            process sends to itself is accepted at once.
            ``"reject"``: the sender gets `MailboxFull`; a call gets it as its answer.
            ``"drop_oldest"``, ``"drop_newest"``: of the messages with the highest rank, the oldest or newest is
            dropped. It becomes a dead letter; a call gets `MailboxFull` as its answer instead.
        block_timeout: seconds, 0 … 86400; None waits for as long as the process lives.
        priority: function from a message (without its envelope) to its rank. Messages with a lower rank are handled
            first, those of equal rank in the order of arrival. Called in the sender's thread; if it raises, the error
            is logged and the rank is 0.

    Raises:
        OptionError: a value is not allowed.

    >>> MailboxOptions(max_size=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: max_size: got 0, allowed: a whole number from 1 to 10000000 or None
    """

    max_size: int | None = None
    when_full: WhenFull = "block"
    block_timeout: float | None = 5.0
    priority: Callable[[Any], int] | None = None

    def __post_init__(self) -> None:
        check_number("max_size", self.max_size, 1, 10_000_000, whole=True, optional=True)
        check_choice("when_full", self.when_full, get_args(WhenFull))
        check_number("block_timeout", self.block_timeout, 0, 86_400, optional=True)
        if self.priority is not None and not callable(self.priority):
            raise OptionError("priority", self.priority, "a function from a message to a number, or None")


class MailboxCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a mailbox with options."""

    size: int
    """Messages that wait now, without system messages but with those a suspended process has put aside."""
    max_size: int | None
    high_water_mark: int
    """Largest number of messages that ever waited."""
    dropped: int
    rejected: int
    """Messages refused with `MailboxFull`, after a wait or at once."""
    blocked: int
    """How often a sender had to wait."""


class BoundedProcess(Owner, Protocol):
    """The part of a process that its bounded mailbox uses."""

    _backlog: deque[Any] | None

    @property
    def label(self) -> str: ...


class BoundedMailbox(Mailbox):
    """A `Mailbox` with `MailboxOptions`. A lock guards it; no foreign code runs under that lock."""

    __slots__ = (
        "_blocked",
        "_dead_letters",
        "_dispatcher",
        "_dropped",
        "_high",
        "_lanes",
        "_lock",
        "_options",
        "_process",
        "_ranks",
        "_reader",
        "_rejected",
        "_size",
        "_system",
        "_waiting",
    )

    def __init__(
        self, process: BoundedProcess, dispatcher: Dispatcher, dead_letters: DeadLetters, options: MailboxOptions
    ) -> None:
        super().__init__(process, dispatcher.enqueue)
        self._process = process
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters
        self._options = options
        self._lock = threading.Lock()
        self._system: deque[Any] = deque()
        self._lanes: dict[int, deque[Any]] = {}  # rank → waiting messages
        self._ranks: list[int] = []  # of lanes that are not empty, sorted
        self._size = 0
        self._waiting: deque[Lock] = deque()  # senders that wait for room
        self._reader = get_ident()  # the thread that runs the process now, or 0; at first the one that starts it
        self._high = self._dropped = self._rejected = self._blocked = 0

    # --- the sender's side ---------------------------------------------------------------------------------------

    def put(self, message: Any) -> None:  # type: ignore[override]
        """Add a message, or do what ``when_full`` says if there is no room, and make sure that the owner runs.

        Raises:
            MailboxFull: the message was rejected. If it was a call, the reply gets the error instead.
        """
        content = message.message if message.__class__ is Envelope else message
        if isinstance(content, _SYSTEM):
            self._system.append(message)
        elif not self._add(message, content):
            return
        if self._dead_owner is not None:  # as in `Mailbox.put`
            self._dead_owner.answer_all()
        elif self._ready.acquire(False):
            self._enqueue(self)

    def _add(self, message: Any, content: Any) -> bool:
        """Add the message, if necessary in place of another one; returns whether a message was added."""
        polite_stop = isinstance(content, _ActorStop)
        rank = _LAST if polite_stop else self._rank(content)
        with self._lock:
            if polite_stop or self._has_room():
                self._insert(message, rank)
                return True
            when_full = self._options.when_full
            victim = self._drop(message, rank) if when_full in ("drop_oldest", "drop_newest") else None
        if victim is not None:
            self._discard(victim)
            return victim is not message
        if when_full == "block" and self._wait_and_insert(message, rank):
            return True
        self._reject(message)
        return False

    def _rank(self, content: Any) -> int:
        priority = self._options.priority
        if priority is None:
            return 0
        try:
            return min(int(priority(content)), _LAST - 1)
        except Exception as error:  # a mistake of the owner must not reach the sender
            get_logger(actor=self._process.label).error("priority_failed", error=type(error).__name__)
            return 0

    def _has_room(self) -> bool:
        limit = self._options.max_size
        return limit is None or self._dead_owner is not None or self._depth() < limit

    def _depth(self) -> int:
        return self._size + len(self._process._backlog or ())

    def _insert(self, message: Any, rank: int) -> None:
        lane = self._lanes.get(rank)
        if lane is None:
            lane = self._lanes[rank] = deque()
            insort(self._ranks, rank)
        lane.append(message)
        self._size += 1
        self._high = max(self._high, self._depth())

    def _drop(self, message: Any, rank: int) -> Any:
        """Make room as ``when_full`` says; returns the message to discard, which may be the new one."""
        self._dropped += 1
        lowest = next((one for one in reversed(self._ranks) if one != _LAST), None)
        if lowest is None or rank > lowest or (rank == lowest and self._options.when_full == "drop_newest"):
            return message
        lane = self._lanes[lowest]
        victim = lane.popleft() if self._options.when_full == "drop_oldest" else lane.pop()
        self._taken_from(lowest, lane)
        self._insert(message, rank)
        return victim

    def _discard(self, message: Any) -> None:
        if not self._refuse_call(message):
            self._dead_letters.record(self._process.label, message)

    def _reject(self, message: Any) -> None:
        with self._lock:
            self._rejected += 1
        if not self._refuse_call(message):
            raise self._error()

    def _refuse_call(self, message: Any) -> bool:
        """If the message is a call, answer it with `MailboxFull`; returns whether it is one."""
        reply = getattr(message, "reply_to", None)
        if not isinstance(reply, pykka.Future):
            return False
        answer_with_error(reply, self._error())
        return True

    def _error(self) -> MailboxFull:
        return MailboxFull(self._process.label, self._options.max_size or 0)

    def _wait_and_insert(self, message: Any, rank: int) -> bool:
        dispatcher = self._dispatcher
        limit = self._options.block_timeout
        deadline = None if limit is None else dispatcher.monotonic() + limit
        first = True
        while True:
            with self._lock:
                if self._has_room() or self._reader == get_ident():
                    self._insert(message, rank)
                    return True
                left = None if deadline is None else deadline - dispatcher.monotonic()
                if left is not None and left <= 0:
                    return False
                self._blocked += first
                first = False
                latch = Lock()
                latch.acquire()
                self._waiting.append(latch)
            try:
                dispatcher.wait(latch, left)
            finally:
                with self._lock:
                    if latch in self._waiting:  # it timed out
                        self._waiting.remove(latch)

    # --- the owner's side ----------------------------------------------------------------------------------------

    def get(self) -> Any:  # type: ignore[override]
        """As `Mailbox.get`."""
        self._reader = get_ident()
        if self._system:
            try:
                return self._system.popleft()
            except IndexError:
                pass
        with self._lock:
            if not self._ranks:
                raise queue.Empty
            rank = self._ranks[0]
            lane = self._lanes[rank]
            message = lane.popleft()
            self._taken_from(rank, lane)
            self._wake_sender()
        return message

    def _taken_from(self, rank: int, lane: deque[Any]) -> None:
        self._size -= 1
        if not lane:
            del self._lanes[rank]
            self._ranks.remove(rank)

    def _wake_sender(self) -> None:
        if self._waiting and self._has_room():
            self._waiting.popleft().release()

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._system and not self._size

    def qsize(self) -> int:
        """How many messages wait."""
        return len(self._system) + self._size

    def leave(self) -> None:
        """As `Mailbox.leave`; messages that were put aside may have been handled, so there may be room."""
        self._reader = 0
        if self._waiting:
            with self._lock:
                self._wake_sender()
        super().leave()

    def mark_dead(self, dead_owner: DeadOwner) -> None:
        """As `Mailbox.mark_dead`; senders stop waiting for room."""
        super().mark_dead(dead_owner)
        with self._lock:
            while self._waiting:
                self._waiting.popleft().release()

    def counters(self) -> MailboxCounters:
        """Return a snapshot of the counters."""
        with self._lock:
            return MailboxCounters(
                size=self._depth(),
                max_size=self._options.max_size,
                high_water_mark=self._high,
                dropped=self._dropped,
                rejected=self._rejected,
                blocked=self._blocked,
            )
