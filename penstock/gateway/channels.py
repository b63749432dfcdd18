"""Channels: what the gateway knows of each stream that it serves."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.agent import Agent
from penstock.config.counting import dialect_of, inclusive_counts
from penstock.config.gateway import GatewayOptions
from penstock.config.options import OnOrphan
from penstock.errors import StreamNotFound
from penstock.events import TerminalEvent
from penstock.gateway.keys import Key
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import Protocol
from penstock.gateway.requests.asked import Asked
from penstock.gateway.ticker import Ticker
from penstock.stream import Stream

__all__ = ["Channel", "Channels", "Steered", "abandon_unread", "epoch_of", "facts_of"]


_MOST_PROJECTORS: Final = 12


class Steered:
    """Input that was added to an answer under way; it goes into the one that follows. Used on the gateway's loop.

    Attributes:
        items: the inputs, in order, as items of the Responses API.
        count: how many inputs these are.
        size: bytes of them, as JSON.
        waiting: how many requests wait for the stream that follows.
        successor: the stream that follows.
    """

    __slots__ = ("count", "items", "size", "successor", "waiting")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.count = self.size = self.waiting = 0
        self.successor: asyncio.Task[Channel]


def facts_of(owner: str, protocol: str, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """What a stored log says of the request that has opened its stream; see `Channel`."""
    return {"gateway": {"owner": owner, "protocol": protocol, "request": dict(request), "model": model}}


class Channel:
    """One stream. Used on the gateway's loop.

    Args:
        stream: the stream.
        owner: the id of the key that opened it; None: it was not opened by a request.
        protocol: in which it was opened; ``""`` if by no request.
        request: the body of that request.
        model: as the request names it.
        asked: what the request asks for, if the stream can be continued by the same with more input.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        owner: str | None = None,
        protocol: str = "",
        request: Mapping[str, Any] | None = None,
        model: str = "",
        asked: Asked | None = None,
    ) -> None:
        self.stream = stream
        self.record = stream._record
        self.owner = owner
        self.protocol = protocol
        self.request = request or {}
        self.model = model
        self.asked = asked
        self.epoch = epoch_of(self.record)
        head, stored = self.record.head, self.record.stored
        if owner is not None and stored is not None and head is not None and "gateway" not in head.facts:
            stored.note(**facts_of(owner, protocol, self.request, model))
        self.agent: Agent | None = None  # that answers by this stream
        self.agent_id = ""  # of it, if clients can send it messages
        self.steered: Steered | None = None  # input that waits for its end
        self.deny: Callable[[str], None] | None = None  # denies a call about which no client can be asked
        self.on_orphan = self.record.on_orphan  # as it was opened, or set since; the record's is another one to ask
        self.decided: list[str] = []  # the calls that the user has decided about, by id; one may be there twice
        self.is_counted = False  # its use of tokens
        self._asked: dict[str, int] = {}  # see `asked_until`, of projectors that were forgotten
        self._projectors: dict[tuple[Any, ...], Projector] = {}

    @property
    def stream_id(self) -> str:
        return self.record.stream_id

    def is_readable(self, key: Key) -> bool:
        """Whether a key may read and command it: its own one, and those with the scope ``admin``."""
        return self.owner == key.id or key.may("admin")

    @property
    def readers(self) -> int:
        """How many connections read it."""
        return sum(projector.readers for projector in self._projectors.values())

    @property
    def subscriptions(self) -> int:
        """How many subscribers of the stream are those of its connections; several connections share one."""
        return sum(projector.is_active for projector in self._projectors.values())

    def opening(self, protocol: Protocol, variant: Mapping[str, str]) -> Opening:
        """What a projection of a protocol is told."""
        return Opening(
            stream_id=self.stream_id,
            epoch=self.epoch,
            created=int(self.record.created_at),
            model=self.model,
            request=self.request if protocol.name == self.protocol else {},
            variant=dict(variant),
            is_turn=self.record.is_turn,
        )

    def projector(
        self, protocol: Protocol, variant: Mapping[str, str], ticker: Ticker, options: GatewayOptions
    ) -> Projector:
        """The projector of a protocol, made when it is first asked for."""
        variant = protocol.closed(variant)
        key = (protocol.name, *sorted(variant.items()))
        known = self._projectors.get(key)
        if known is None:
            projection = protocol.projection(self.opening(protocol, variant))
            known = Projector(self.record, projection, ticker, options.retain_bytes)
            known.deny = self.deny
            known.pump()
            self._forget_unread()
            self._projectors[key] = known
        return known

    def asked_until(self, protocol: Protocol) -> int:
        """The last event that readers of a protocol got when its answer ended to ask the user."""
        found = [one.seq for key, one in self._projectors.items() if key[0] == protocol.name and one.is_over]
        return max(found, default=self._asked.get(protocol.name, 0))

    def _forget_unread(self) -> None:
        """Forget the oldest projectors without readers, if there are many: their frames can be made again."""
        for key, one in list(self._projectors.items()):
            if len(self._projectors) < _MOST_PROJECTORS:
                return
            if not one.readers:
                if one.is_over:
                    self._asked[key[0]] = max(one.seq, self._asked.get(key[0], 0))
                if one.is_active:
                    one.unsubscribe()
                del self._projectors[key]

    def set_orphan_policy(self, policy: OnOrphan) -> None:
        """Set what happens when the last reader leaves; while the user is asked, it is for the time after that."""
        if self.record.remote is not None:
            self.record.remote.send_orphan_policy(policy)
        elif self.record.on_orphan == self.on_orphan:
            self.record.set_orphan_policy(policy)
        else:
            self.record.keep(on_orphan=policy)
        self.on_orphan = policy

    def linger_unread(self) -> None:
        """Let ``on_orphan`` apply already before the first reader, if it is a time to linger."""
        if isinstance(self.record.on_orphan, (int, float)) and not self.record.hub.had_subscriber:
            abandon_unread(self.record)

    def abandon_unread(self) -> None:
        """Let ``on_orphan`` apply, unless there are readers: the one that the stream was opened for will not come."""
        abandon_unread(self.record)

    def close(self) -> None:
        """Take all projectors out of the stream."""
        for projector in self._projectors.values():
            if projector.is_active:
                projector.unsubscribe()
        self._projectors.clear()


def abandon_unread(record: StreamRecord) -> None:
    """Let a stream's ``on_orphan`` apply as if a reader had come and left, unless there are readers."""
    if not record.is_over and not record.hub.subscribers:
        placeholder = _Placeholder(record.hub, Cursor(record.log, 0, "coalesce", 1), None)
        record.hub.add(placeholder)
        placeholder.unsubscribe()


class _Placeholder(Subscription):
    """A subscriber that comes and goes, as a reader would that left at once."""

    def wake(self) -> None:
        pass


def epoch_of(record: StreamRecord) -> str:
    """The epoch of a stream's log: another one for each log, also if streams have the same id.

    That of a stored log is stored with it, so that cursors stay valid in the next process.
    """
    if record.head is not None:
        return record.head.sse_epoch
    seed = f"{_PROCESS} {record.stream_id} {record.serial} {record.created_at!r}"
    return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:8]


_PROCESS: Final = secrets.token_hex(8)
"""Distinguishes the logs of this process from those of one before it with the same clock and ids."""


class Channels:
    """All channels by stream id. A channel is forgotten when the system has forgotten its stream.

    Args:
        table: of the system.
        call_timeout: of the streams, in seconds.
        used: called once for each stream that has ended, with its owner and the number of tokens it has used; at the
            latest when its channel is forgotten.
    """

    def __init__(self, table: StreamTable, call_timeout: float, used: Callable[[str, int], None]) -> None:
        self._table = table
        self._call_timeout = call_timeout
        self._used = used
        self._channels: dict[str, Channel] = {}

    def add(self, channel: Channel) -> Channel:
        """Enter the channel of a new stream; it replaces that of an ended one with the same id."""
        replaced = self._channels.get(channel.stream_id)
        if replaced is not None:
            self._count(replaced)
        self._channels[channel.stream_id] = channel
        return channel

    @property
    def has_store(self) -> bool:
        """Whether streams may be in a store alone."""
        return self._table.has_store

    def is_read(self, stream_id: str) -> bool:
        """Whether a stream is in memory, or cannot be in a store. If not, `read` must be called before `get`."""
        return not self._table.has_store or self._table.peek(stream_id) is not None

    def read(self, stream_id: str) -> None:
        """Read an ended stream from the store, if it is there, so that the system has it in memory. Any thread; waits.

        Raises:
            StoreError: the store cannot be read, or the stream's log is damaged.
        """
        self._table.find(stream_id)

    def get(self, stream_id: str) -> Channel:
        """The channel of a stream that the system has in memory.

        Raises:
            StreamNotFound: it has none.
        """
        record = self._table.peek(stream_id)
        if record is None:
            raise StreamNotFound(stream_id)
        known = self._channels.get(stream_id)
        facts = record.head and record.head.facts.get("gateway")  # of the process that opened it, if not this one
        is_late = bool(facts) and record.remote is not None and known is not None and known.owner is None
        if known is not None and known.record is record and not is_late:
            return known
        if known is not None and known.record.is_over:
            known.close()  # one that still runs has readers, which get its end: by the log, or as it has moved
        stream = Stream(record, self._call_timeout)
        channel = Channel(stream) if not facts else Channel(stream, **facts)
        channel.is_counted = record.remote is not None or record.is_over  # where it runs, or ran
        return self.add(channel)

    def all(self) -> list[Channel]:
        """All channels of streams that the system has in memory, oldest first."""
        found = []
        for record in self._table.all():
            try:
                found.append(self.get(record.stream_id))
            except StreamNotFound:
                continue
        return found

    def knows(self, stream_id: str) -> bool:
        """Whether the system has a stream with that id in memory."""
        return self._table.peek(stream_id) is not None

    def is_others(self, stream_id: str, owner: str) -> bool:
        """Whether a stream with that id that another key's request, or no request, has opened is in memory."""
        record, known = self._table.peek(stream_id), self._channels.get(stream_id)
        return record is not None and (known is None or known.record is not record or known.owner != owner)

    def has(self, channel: Channel) -> bool:
        """Whether the system still has the channel's stream in memory."""
        return self._table.peek(channel.stream_id) is channel.record

    def readers_of(self, record: StreamRecord) -> int:
        """How many connections to the gateway, and others in the program, read a stream."""
        found = self._channels.get(record.stream_id)
        others = record.hub.subscribers
        if found is None or found.record is not record:
            return others
        return others - found.subscriptions + found.readers

    def running(self, owner: str) -> int:
        """How many streams of a key run."""
        return sum(
            one.owner == owner and not one.record.is_over and one.record.remote is None
            for one in self._channels.values()
        )

    def forget(self, channel: Channel) -> None:
        """Have the system forget an ended stream."""
        self._count(channel)
        channel.close()
        self._table.forget(channel.record)
        if self._channels.get(channel.stream_id) is channel:
            del self._channels[channel.stream_id]

    def sweep(self) -> None:
        """Count what ended streams have used, and forget the channels of those that the system has forgotten."""
        for stream_id, channel in list(self._channels.items()):
            self._count(channel)
            if self._table.peek(stream_id) is not channel.record and channel.record.is_over:
                channel.close()
                del self._channels[stream_id]

    def _count(self, channel: Channel) -> None:
        """Count what a stream has used, once, when it has ended."""
        terminal = channel.record.log.terminal
        if terminal is not None and not channel.is_counted:
            channel.is_counted = True
            if channel.owner is not None:
                self._used(channel.owner, _tokens_of(terminal))

    def close(self) -> None:
        """Close and forget all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


def _tokens_of(terminal: TerminalEvent) -> int:
    usage = terminal.usage
    if usage is None:
        return terminal.metrics.tokens if terminal.metrics is not None else 0
    counts = inclusive_counts(usage, dialect_of(terminal))
    return (counts.asked or 0) + (counts.answered or 0)
