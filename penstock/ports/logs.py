"""`LogStore`: logs that outlive the process that writes them, and what several processes need to share them.

A log is a sequence of *entries*. Each has an id, ``epoch-seq``, that is greater than that of every entry before it:

- a `LogFrame` (``<epoch>-<number of its last event>``) holds the events that were flushed together;
- an `OwnerMark` (``<epoch>-0``) begins an *epoch*: its writer owns the log from there on.

**The log is the lock.** An entry is appended only where its writer expects the tail, so a writer that has missed
another's owner mark is refused from then on (`Append`). There is no other way to append, and no lease is needed for
safety: those of `LogStore.claim` only decide which node serves a request.

The events' own numbers go on across epochs: 1, 2, 3 … An epoch is never shown to a client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from penstock.errors import StoreError

__all__ = [
    "EMPTY",
    "NODE_NUMBERS",
    "Append",
    "Claim",
    "Durability",
    "Entry",
    "EntryId",
    "Limit",
    "LogFrame",
    "LogStore",
    "LogWatcher",
    "NodeInfo",
    "OwnerMark",
    "Registration",
    "Request",
    "StoreStatistics",
    "StoreView",
    "next_epoch",
]

Durability: TypeAlias = Literal["memory", "async", "sync"]
"""When a reader gets an event: before it is stored, which is never (``memory``) or a frame later (``async``), or once
the store has confirmed it (``sync``)."""

NODE_NUMBERS: Final = 1 << 10
"""How many numbers of nodes there are; see `next_epoch`."""


class EntryId(msgspec.Struct, frozen=True, order=True, gc=False):
    """The id of an entry: both 0 … 2**63 - 1. Written ``epoch-seq``; ordered by the epoch, then by ``seq``.

    >>> EntryId.parse("7-2") > EntryId(6, 400)
    True
    """

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the written form.

        Raises:
            ValueError: it is something else.
        """
        epoch, seq = text.split("-")
        return cls(int(epoch), int(seq))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


EMPTY: Final = EntryId(0, 0)
"""The tail of a log without entries."""


def next_epoch(tail: EntryId, now: float, node: int) -> int:
    """The epoch of a new owner: greater than that of ``tail``, and no other node's, without a counter.

    Args:
        tail: of the log that the owner takes over.
        now: Unix time in seconds. A clock that goes back does no harm.
        node: the number of the node, 0 … 1023, different for each; see `LogStore.new_number`.

    >>> next_epoch(EntryId(5 << 10, 3), 0.004, 1) == (6 << 10 | 1)
    True
    """
    if not 0 <= node < NODE_NUMBERS:
        raise ValueError(f"node: got {node}, allowed: 0 to {NODE_NUMBERS - 1}")
    return max(int(now * 1000), (tail.epoch >> 10) + 1) << 10 | node


class LogFrame(msgspec.Struct, frozen=True, gc=False):
    """The events of one log that were flushed together.

    Attributes:
        id: the owner's epoch, and the number of the last event.
        first: the number of the first event, 1 or more: one more than that of the last event before the frame.
        data: the events, encoded (`penstock.events.codec`); opaque to the store.
        is_last: whether the last of them is a terminal event. Nothing but owner marks may follow it, and from then on
            the log may expire.
    """

    id: EntryId
    first: int
    data: bytes
    is_last: bool = False


class OwnerMark(msgspec.Struct, frozen=True, gc=False):
    """The beginning of an epoch.

    Attributes:
        id: the new epoch, and 0.
        node: the name of the owner.
        reason: ``open``, ``takeover``, ``handoff``, ``restart`` …
        data: what the owner tells those that read the log, encoded: with the first mark, what the stream was opened
            with. Opaque to the store.
    """

    id: EntryId
    node: str
    reason: str = "open"
    data: bytes = b""


Entry: TypeAlias = LogFrame | OwnerMark


class Request(msgspec.Struct, frozen=True, gc=False):
    """Something that one node is to do: run a stream.

    Attributes:
        id: 1 to 256 printable characters. A second request with the id of one that is not forgotten is ignored.
        log: the log that it is about.
        data: the rest of it, encoded; opaque to the store.
    """

    id: str
    log: str
    data: bytes = b""


class Append(msgspec.Struct, frozen=True, gc=False):
    r"""One entry to append to one log.

    The answer is the tail of the log afterwards. It is ``entry.id`` if the entry is stored: now, or by an earlier try
    whose answer was lost. Any other id is the tail that was found instead of ``expected``; the log is then unchanged.
    What a refused owner of epoch *e* concludes:

    - the tail's epoch is *e*, and its ``seq`` is less than that of ``expected``: the store has lost entries that it had
      confirmed. Append them again, from memory.
    - the tail's epoch is *e*, and its ``seq`` is greater: earlier appends of its own whose answers were lost. Go on
      behind them.
    - the tail's epoch is less than *e*, or the log is `EMPTY`: the owner mark is gone too. Append it again behind that
      tail, if none of another owner stands there.
    - the tail's epoch is greater: fenced. Stop, and append nothing more.

    Attributes:
        log: the name of the log: the id of its stream (1 to 256 printable characters), or a name with ``\x1f`` in it.
        expected: the tail after which the entry belongs.
        entry: its id is greater than ``expected``.
        opens: a request to enter if the entry is stored, held by ``node``; see `LogStore.enqueue`. Done again without
            harm if the append is repeated.
        node: holds that request.
        closes: the id of a request to end if the entry is stored, whichever node holds it.
        lapses: if the entry is stored, the log is removed so many seconds later by the store's clock, whether it has
            ended or not. A later append with ``lapses``, or with the last frame, counts instead. 0: it is not. Never
            used on a stream's log.
    """

    log: str
    expected: EntryId
    entry: Entry
    opens: Request | None = None
    node: str = ""
    closes: str = ""
    lapses: float = 0.0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A request that a node has been given.

    Attributes:
        request: the request.
        deliveries: how often it has been given to a node, this time included.
        is_cancelled: whether `LogStore.cancel` was called for its log: do not begin it.
    """

    request: Request
    deliveries: int = 1
    is_cancelled: bool = False


class Limit(msgspec.Struct, frozen=True, gc=False):
    """A limit that all nodes share: on average ``per_second``, and ``burst`` at once.

    Attributes:
        key: what is limited; 1 to 256 characters, never an API key itself.
        per_second: more than 0.
        burst: the most that may be taken at once; 1 or more.
    """

    key: str
    per_second: float
    burst: float


class NodeInfo(msgspec.Struct, frozen=True):
    """What a node says of itself.

    Attributes:
        node: its name, unique.
        streams: how many streams it runs.
        capacity: how many it may run; 0: no limit.
        is_draining: it takes no more.
        address: where other nodes or a balancer reach it; may be empty.
        facts: anything else, of JSON types.
    """

    node: str
    streams: int = 0
    capacity: int = 0
    is_draining: bool = False
    address: str = ""
    facts: Mapping[str, str | int | float | bool] = {}


class StoreView(msgspec.Struct, frozen=True):
    """What a store knows of the nodes that share it.

    Attributes:
        nodes: those that have announced themselves and not expired, by name.
        held: the number of claimed requests of each node, also of one that has expired.
        waiting: the number of requests that no node has claimed.
        engine: what the store is, with its version, for display.
    """

    nodes: Mapping[str, NodeInfo]
    held: Mapping[str, int]
    waiting: int
    engine: str


class StoreStatistics(msgspec.Struct, frozen=True):
    """Counters of a store in this process. Counts are since it was opened.

    Attributes:
        appends: entries that were stored.
        refused: appends that found another tail.
        transactions: round trips, or transactions, with appends.
        failures: requests that raised a `StoreError`.
        bytes: what the store holds, in bytes; None if that is not known.
        logs: how many logs it holds; None if that is not known.
        commands_refused: how often a command for this process was not carried out at once, or not in time, as too many
            were under way. A sender that tries again counts again.
    """

    appends: int = 0
    refused: int = 0
    transactions: int = 0
    failures: int = 0
    bytes: int | None = None
    logs: int | None = None
    commands_refused: int = 0


class LogWatcher(Protocol):
    """What follows a log. Called by a thread of the store, one call at a time; it must not wait."""

    def entries(self, entries: Sequence[Entry]) -> None:
        """Take entries: each once, in order, without a gap."""

    def rewound(self, tail: EntryId) -> None:
        """Note that the store has lost entries that were given: its log ends at ``tail``, and goes on from there."""

    def failed(self, error: StoreError) -> None:
        """Note that the store does not answer. The watch goes on by itself when it answers again.

        After `StoreDamaged` it does not: an entry cannot be read, and the watch has ended.
        """


class Registration(Protocol):
    """What `LogStore.watch` and `LogStore.serve` return."""

    def close(self) -> None:
        """End it. Harmless if that has been done. A call that is under way may still finish."""


@runtime_checkable
class LogStore(Protocol):
    """Keeps logs and requests outside the process. Any thread may call it; each method may block.

    Every method may raise a `StoreError`; the store then holds what it held before, except that after
    `StoreUnavailable` the request may have been carried out. Times are seconds. Requests, leases, limits and nodes use
    the store's clock.
    """

    @property
    def name(self) -> str:
        """The store, for messages and the dashboard; without any password."""
        raise NotImplementedError

    @property
    def durability(self) -> Durability:
        """When a reader may get an event. ``sync``: `append_all` returns only once an entry survives what the store's
        documentation says.
        """
        raise NotImplementedError

    @property
    def is_shared(self) -> bool:
        """Whether several processes, or several systems of one, may write it at once. If not, nothing that is claimed
        when it is opened has a living owner; else a claim is its node's until the lease is over.
        """
        raise NotImplementedError

    # --- logs ----------------------------------------------------------------------------------------------------

    def append(self, log: str, expected: EntryId, entry: Entry) -> EntryId:
        """Append one entry if the log's tail is ``expected``; returns the tail afterwards, see `Append`.

        Raises:
            StoreError: as the answer of `append_all`.
        """
        raise NotImplementedError

    def append_all(self, appends: Sequence[Append]) -> Sequence[EntryId | StoreError]:
        """Append entries of any number of logs, in order, in one transaction or round trip; returns their answers.

        Each append stands for itself: one that is refused, or fails, has no effect on the others. Several for one log
        are carried out in order. What an append opens or closes happens with it, where the store can in the same
        transaction; else directly after it, so that a stored entry may be without it after a crash.

        Raises:
            StoreError: of all of them.
        """
        raise NotImplementedError

    def read(self, log: str, after: EntryId = EMPTY, limit: int | None = None) -> Sequence[Entry]:
        """The entries after ``after``, oldest first, at most ``limit``. Empty if there are none, or no such log.

        Raises:
            StoreDamaged: an entry cannot be read.
        """
        raise NotImplementedError

    def tail(self, log: str) -> EntryId:
        """The id of the last entry; `EMPTY` if there is none."""
        raise NotImplementedError

    def watch(self, log: str, after: EntryId, watcher: LogWatcher) -> Registration:
        """Give the watcher all entries after ``after``, those that are there and those that come."""
        raise NotImplementedError

    def trim(self, log: str, before: EntryId) -> int:
        """Remove the entries whose id is less than ``before``; returns how many.

        The last entry always stays. Never used on a stream's log.
        """
        raise NotImplementedError

    def forget(self, log: str) -> bool:
        """Remove a log with everything about it; returns whether there was one."""
        raise NotImplementedError

    # --- requests ------------------------------------------------------------------------------------------------

    def enqueue(self, request: Request, node: str | None = None) -> bool:
        """Enter a request; returns whether it is new. Its id is known as long as it is waiting or claimed, at least.

        Args:
            request: the request.
            node: this node has begun it already: it holds the claim from the beginning, as its first delivery.
        """
        raise NotImplementedError

    def claim(self, node: str, limit: int, lease: float) -> Sequence[Claim]:
        """Claim at most ``limit`` requests: those that no node has, and those not kept for ``lease`` seconds.

        Oldest first. A node's own claims are not given to it again, unless it has not kept them for that long.
        """
        raise NotImplementedError

    def keep(self, node: str, requests: Sequence[str]) -> Sequence[str]:
        """Renew the claims on requests, by id; returns the ids of those that the node still has."""
        raise NotImplementedError

    def release(self, node: str, request: str) -> bool:
        """End a request: it is done. Returns whether the node had the claim; another's is left alone."""
        raise NotImplementedError

    def hand_over(self, node: str, request: str, to: str) -> bool:
        """Give a claim to another node, which finds it by `held`. Returns whether the node had it."""
        raise NotImplementedError

    def held(self, node: str) -> Sequence[Claim]:
        """The claims of a node, oldest first, those that it was given by `hand_over` included."""
        raise NotImplementedError

    # --- commands ------------------------------------------------------------------------------------------------

    def command(self, log: str, command: bytes, timeout: float) -> bytes:
        """Have the owner of a log carry out a command; returns its reply.

        Raises:
            NoOwner: nothing serves the log now.
            CallTimeout: the owner has not replied within ``timeout`` seconds.
        """
        raise NotImplementedError

    def serve(self, log: str, carry_out: Callable[[bytes], bytes]) -> Registration:
        """Carry out the commands to a log, until the registration is closed.

        The function is called by a thread of the store, for several commands at once, and must not wait long. If it
        raises, the caller of `command` gets no reply. A store may bound how many it carries out at once; a further one
        waits for its turn, within its time-out.
        """
        raise NotImplementedError

    def cancel(self, log: str, lease: float) -> None:
        """Mark a log as cancelled for ``lease`` seconds, for a node that claims its request; see `Claim`."""
        raise NotImplementedError

    # --- shared by all nodes -------------------------------------------------------------------------------------

    def take(self, limit: Limit, cost: float = 1.0) -> float:
        """Take from a limit; returns 0.0, or the seconds to wait before the next try, with nothing taken.

        ``cost``: at most ``limit.burst``.
        """
        raise NotImplementedError

    def new_number(self) -> int:
        """A number for a new node, 0 … 1023, see `next_epoch`. On a shared store the 1,023 before it have others."""
        raise NotImplementedError

    def announce(self, info: NodeInfo, lease: float) -> None:
        """Enter a node, or renew it, for ``lease`` seconds. 0 removes it."""
        raise NotImplementedError

    def view(self) -> StoreView:
        """The nodes, and how many requests each has."""
        raise NotImplementedError

    def statistics(self) -> StoreStatistics:
        """The counters. Never blocks for long."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it, in this process. Every later call raises `StoreClosed`. Harmless if that has been done."""
        raise NotImplementedError
