"""The node: what one system does so that others can read, command and take over its streams, and it theirs.

Its state outlives the processes that work on it (`penstock.cluster.processes`): they may crash and be restarted.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.storing import StoredLog, StoreWriter
from penstock.cluster.followed import FollowedRecord
from penstock.cluster.orders import carry_out
from penstock.cluster.pushes import WaitingPushes
from penstock.cluster.sharing import room_of, share_out
from penstock.cluster.view import ClusterView, node_infos
from penstock.config.cluster import ClusterOptions
from penstock.config.logs import get_logger
from penstock.errors import CallTimeout, NoOwner, PenstockError, StoreError, describe_reason
from penstock.events import TerminalEvent
from penstock.ports import EMPTY, Claim, NodeInfo, Registration, StoreView
from penstock.recovery import recover, stored_log, stored_record
from penstock.services import Services

__all__ = ["ClusterNode", "node_name"]

_KEPT_AT_ONCE: Final = 500
_TAKEN_AT_ONCE: Final = 50  # streams that one look takes over, so that several nodes share those of a dead one
_MISSES: Final = 60.0  # seconds for an owner to write a log again: twice as long as it tries to reach the store
_ENDED_FOR: Final = 60.0  # seconds for which an owner looks whether the store still has a stream's end
_LINGERS: Final = 30.0  # seconds that a node which has died may be missed before its readers count no more


def node_name(options: ClusterOptions) -> str:
    """The name of a new node: no other process has it, or has had it."""
    name = options.node
    if name is None:
        host = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())
        name = host.strip("._-")[:64] or "node"
    return f"{name}~{secrets.token_hex(3)}"


class ClusterNode:
    """One node. Any thread may call it; `beat`, `reap` and `tend` are each called by one process, and may wait.

    Args:
        services: of the system.
        writer: to the store that the nodes share; its node's name is that of this node.
        options: of the cluster.
    """

    def __init__(self, services: Services, writer: StoreWriter, options: ClusterOptions) -> None:
        self.services = services
        self.writer = writer
        self.store = writer.store
        self.options = options
        self.name = writer.node
        self.is_draining = False
        self._lock = threading.Lock()
        self._followed: dict[FollowedRecord, None] = {}
        self._served: dict[StreamRecord, Registration | None] = {}  # that run here; None: not served yet
        self._readers: dict[StreamRecord, dict[str, _RemoteReaders]] = {}  # of those, on other nodes
        self._pushes = WaitingPushes()  # of other nodes to those
        self._own: Registration | None = None  # serves the orders to the node itself
        self._beat_at: float | None = None  # when the store renewed the lease last
        self._steady_since: float | None = None  # … each time since, without a failure
        self._look_at = 0.0
        self._is_closed = False
        self._is_full = False  # it has as many streams as it may have
        self.on_forget: Callable[[str], object] = _ignore  # called when another node has had a stream forgotten
        self.wake: Callable[[], None] = _nothing  # has `tend` called soon

    # --- opening and reading, any thread -------------------------------------------------------------------------

    def load(self, stream_id: str) -> StreamRecord | None:
        """The record of a stream that the store has and this system has not: ended, or run by another node.

        Raises:
            StoreError: the store cannot be read, or the log is damaged.
        """
        found = stored_log(self.services, stream_id)
        if found is None:
            return None
        past, entries = found
        if past.is_ended:
            return stored_record(self.services, stream_id, past)
        record = FollowedRecord(self.services, stream_id, past, self.store, self.options.lease, entries)
        record.follow(past.tail)
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._followed[record] = None
        if is_closed:
            record.finish(Cancel())
        return record

    def opened(self, record: Any) -> None:
        """Serve a new stream's orders soon. See `penstock.actors.stream.observing.StreamObserver`, as the next ones."""
        if record.stored is not None:
            with self._lock:
                self._served[record] = None
            self.wake()

    def ended(self, record: Any, terminal: TerminalEvent) -> None:
        """Serve its orders no more, soon."""
        self.wake()

    def happened(self, record: Any, event: object) -> None:
        """Nothing."""

    def called(self, record: Any, feed: object, error: object) -> None:
        """Nothing."""

    # --- once in a heartbeat -------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Say that the node lives, and renew its claims; stop what it has lost."""
        now = self._now()
        try:
            self._announce()
            self._renew(now)
        except StoreError as error:
            if self._steady_since is not None:
                get_logger().warning("lease_not_renewed", store=self.store.name, error=type(error).__name__)
            self._steady_since = None
            return
        self._beat_at = self._now()
        if self._steady_since is None:
            self._steady_since = self._beat_at
            self._look_at_ended(self._beat_at)
        self.writer.note_answer()

    def _announce(self) -> None:
        totals = self.services.streams.totals()
        facts: dict[str, str | int | float | bool] = {
            "followed": len(self._followed),
            "waiting": self.writer.waiting,
            "store_failing": self.writer.last_error is not None,
        }
        info = NodeInfo(
            self.name, totals.active, self.options.capacity, self.is_draining, self.options.advertise, facts
        )
        self.store.announce(info, self.options.lease)

    def _renew(self, now: float) -> None:
        """Renew the claims. After an absence of a lease, none is: what others have taken is given up first."""
        leases = self.writer.leases
        assert leases is not None
        claims = leases.claims()
        if self._beat_at is not None and now - self._beat_at > self.options.lease:
            get_logger().warning("node_was_away", seconds=round(now - self._beat_at, 1), streams=len(claims))
            self._steady_since = None
            mine = {claim.request.id for claim in self.store.held(self.name)}
        else:
            names, mine = list(claims), set()
            for first in range(0, len(names), _KEPT_AT_ONCE):
                mine.update(self.store.keep(self.name, names[first : first + _KEPT_AT_ONCE]))
        for request, log in claims.items():
            if request not in mine and isinstance(log, StoredLog):
                self._lost(log)

    def _lost(self, log: StoredLog) -> None:
        """Find the owner of the log of a claim that the store does not know any more, and enter the request again."""
        self.writer.verify(log)
        if log.request is not None and not log.is_fenced and (log.opened is None or log.opened.is_set()):
            self.store.enqueue(log.request, self.name)  # no effect if another node has it

    def _look_at_ended(self, now: float) -> None:
        """Have the ends written again that the store may have lost while it was away: a replica lags by some seconds.

        Nothing else would notice. Their requests are there again too, and another node would begin them anew.
        """
        for record in self.services.streams.all():
            stored, ended_at = record.stored, record.ended_at
            if stored is not None and not stored.is_fenced and ended_at is not None and now - ended_at < _ENDED_FOR:
                self.writer.verify(stored)

    # --- the reaper's --------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Take over streams whose nodes have died, once the store has worked for a lease, and those given to this."""
        if self.is_draining or self.services.is_stopped:
            return
        since = self._steady_since
        if since is None or self._now() - since < self.options.lease:
            return
        limit = self._room(_TAKEN_AT_ONCE)
        self._note_full(is_full=limit == 0)
        if not limit:
            return
        try:
            self.take_over(None, limit)
        except StoreError as error:
            get_logger().warning("streams_not_taken_over", store=self.store.name, error=type(error).__name__)

    def _room(self, most: int) -> int:
        return room_of(self.options.capacity, self.services.streams.totals().active, most)

    def _note_full(self, *, is_full: bool) -> None:
        """Say once that the node takes nothing over, until it does so again."""
        if is_full and not self._is_full:
            get_logger().warning("node_full", node=self.name, capacity=self.options.capacity)
        self._is_full = is_full

    def take_over(self, given: Sequence[Claim] | None = None, limit: int = _TAKEN_AT_ONCE) -> None:
        """Take over streams that have no living owner, or ``given`` ones."""
        recover(self.services, limit=limit, max_deliveries=self.options.max_deliveries, given=given)

    def _take_given(self) -> None:
        """Take over the streams that other nodes have handed to this one.

        One that drains leaves them to the lease: another node finds them when that is over. So does a full one with
        those for which it has no room.
        """
        if self.is_draining:
            return
        leases = self.writer.leases
        assert leases is not None
        given = [claim for claim in self.store.held(self.name) if not leases.has(claim.request.id)]
        room = self._room(len(given))
        if room < len(given):
            get_logger().warning("streams_not_taken_over", node=self.name, full=True, streams=len(given) - room)
        if room:
            self.take_over(given[:room])

    # --- the desk's ----------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Serve the orders to new streams, leave those that have ended, and tell owners where there are readers."""
        try:
            if self._own is None:
                self._own = self.store.serve(_own_log(self.name), self._carry_out_own)
            self._tend_served()
            self._tend_followed()
            self._tend_readers()
        except StoreError as error:
            get_logger().warning("orders_not_served", store=self.store.name, error=type(error).__name__)

    def _tend_served(self) -> None:
        with self._lock:
            served = list(self._served.items())
        for record, registration in served:
            is_gone = record.is_over or record.is_displaced
            if registration is None and not is_gone:
                self._served[record] = self.store.serve(record.stream_id, partial(self._carry_out, record))
            elif is_gone and (record.is_announced or record.is_displaced):
                if registration is not None:
                    registration.close()
                with self._lock:
                    self._served.pop(record, None)
                    self._readers.pop(record, None)

    def _carry_out(self, record: StreamRecord, data: bytes) -> bytes:
        return carry_out(record, data, self._set_readers, self._pushes, self.services.call_timeout)

    def _carry_out_own(self, data: bytes) -> bytes:
        """An order to the node itself: to look for streams that were given to it, or to forget one."""
        if data:
            self._forget(data.decode())
        else:
            self._take_given()
        return b""

    def _forget(self, stream_id: str) -> None:
        streams = self.services.streams
        record = streams.peek(stream_id)
        if record is not None and record.is_over:
            streams.forget(record)
        self.on_forget(stream_id)

    def forget_everywhere(self, stream_id: str) -> None:
        """Have all other nodes forget an ended stream that is no longer in the store. Those that are away keep it."""
        with contextlib.suppress(StoreError):
            for node in self.store.view().nodes:
                if node != self.name:
                    with contextlib.suppress(NoOwner, CallTimeout):
                        self.store.command(_own_log(node), stream_id.encode(), self.options.lease)

    def _tend_followed(self) -> None:
        with self._lock:
            followed = list(self._followed)
        silent: set[str] = set()  # nodes that have not answered: they would hold up all that is to be done here
        for record in followed:
            self._look_for(record)
            if record.is_closed:
                self.services.streams.note_end(record)
                with self._lock:
                    self._followed.pop(record, None)
                continue
            record.hub.sweep()
            owner = record.owner
            has_readers = record.hub.subscribers > 0
            told, policy = owner if has_readers else "", record.untold_policy
            if (told != record.told or policy is not None) and owner not in silent:
                order = {"do": "readers", "node": self.name, "on": has_readers}
                try:
                    if policy is not None:  # before the owner may need it, as there are no readers any more
                        record.send_orphan_policy(policy, self.options.heartbeat)
                    if told != record.told:
                        record.order(order, self.options.heartbeat, is_patient=False)
                except (CallTimeout, NoOwner):  # a store may look for an owner all the time that it is given
                    silent.add(owner)
                except PenstockError:
                    pass  # the next time
                else:
                    record.told = told

    def _look_for(self, record: FollowedRecord) -> None:
        """Give up a log that the store has lost, and that no owner has written again for long."""
        since = record.missed_since
        if since is not None and self._now() - since >= _MISSES and self.store.tail(record.stream_id) == EMPTY:
            record.lose()

    # --- readers on other nodes ----------------------------------------------------------------------------------

    def _set_readers(self, record: StreamRecord, node: str, is_on: bool) -> None:
        """Note whether another node has readers of a stream that runs here, for its ``on_orphan``."""
        with self._lock:
            if record not in self._served:  # it has ended meanwhile
                return
            known = self._readers.setdefault(record, {})
            before = known.pop(node, None)
            if is_on:
                known[node] = before or _RemoteReaders(record)
        if is_on and before is None:
            record.hub.add(known[node])
        elif not is_on and before is not None:
            before.unsubscribe()

    def _tend_readers(self) -> None:
        """Let the readers of nodes that have died count no more."""
        now = self._now()
        if not self._readers or now < self._look_at:
            return
        self._look_at = now + self.options.lease
        living = self.store.view().nodes
        with self._lock:
            missed = [
                (record, node, reader)
                for record, nodes in self._readers.items()
                for node, reader in nodes.items()
                if reader.is_missed(now, is_living=node in living)
            ]
            for record, node, _ in missed:
                self._readers[record].pop(node, None)
        for _, _, reader in missed:
            reader.unsubscribe()

    # --- the end -------------------------------------------------------------------------------------------------

    def drain(self, timeout: float) -> int:
        """Take no more streams, and hand those that can begin again elsewhere to other nodes; returns how many.

        Others go on here, and so do those for which no node has room. Harmless if it has been done.
        """
        self.is_draining = True
        with contextlib.suppress(StoreError):
            self._announce()
        records = [record for record in self.services.streams.running() if _can_move(record)]
        targets = self._targets(len(records))
        if len(targets) < len(records):
            get_logger().warning("streams_not_handed_over", streams=len(records) - len(targets), of=len(records))
        until = time.monotonic() + timeout
        moving: list[tuple[StreamRecord, str]] = []
        for record, target in zip(records, targets, strict=False):
            assert record.stored is not None
            record.stored.hand_over(to=target)
            moving.append((record, target))
        count = 0
        for record, target in moving:
            count += self._hand(record, target, until)
        for target in {target for _, target in moving}:
            with contextlib.suppress(PenstockError):  # it looks for itself when it renews its claims
                self.store.command(_own_log(target), b"", max(0.1, until - time.monotonic()))
        return count

    def _targets(self, count: int) -> list[str]:
        """The living nodes that take so many streams over, one for each stream; fewer if there is no more room."""
        if not count:
            return []
        try:
            view = self.store.view()
        except StoreError:
            return []
        nodes = view.nodes.values()
        return share_out(count, [info for info in nodes if info.node != self.name and not info.is_draining])

    def _hand(self, record: StreamRecord, target: str, until: float) -> bool:
        stored = record.stored
        assert stored is not None
        while not stored.is_fenced and not record.is_over and time.monotonic() < until:
            self.services.runtime.dispatcher.pause(0.005)
        if not stored.is_fenced or stored.request is None:
            return False
        with contextlib.suppress(StoreError):  # it is found when its lease has ended
            return self.store.hand_over(self.name, stored.request.id, target)
        return False

    def close(self) -> None:
        """Follow and serve nothing more, and leave the cluster."""
        with self._lock:
            self._is_closed = True
            followed, self._followed = list(self._followed), {}
            served, self._served = list(self._served.values()), {}
        for record in followed:
            record.finish(Cancel())
        for registration in (*served, self._own):
            if registration is not None:
                registration.close()
        with contextlib.suppress(StoreError):
            self.store.announce(NodeInfo(self.name), 0)

    # --- looking -------------------------------------------------------------------------------------------------

    def view(self) -> ClusterView:
        """The cluster as this node sees it. Asks the store, and never raises: a store that is away is a part of it."""
        error: StoreError | None = self.writer.last_error
        try:
            found = self.store.view()
        except StoreError as problem:
            found, error = StoreView({}, {}, 0, ""), problem
        beat_at = self._beat_at
        return ClusterView(
            node=self.name,
            nodes=node_infos(self.name, found.nodes, found.held),
            waiting=found.waiting,
            engine=found.engine,
            store=self.store.name,
            is_well=error is None,
            problem="" if error is None else describe_reason(error),
            lag_events=self.writer.waiting,
            beat_age_s=-1.0 if beat_at is None else round(self._now() - beat_at, 3),
            lease_s=self.options.lease,
            commands_refused=self._commands_refused(),
        )

    def _commands_refused(self) -> int:
        try:
            return self.store.statistics().commands_refused
        except StoreError:
            return 0

    def _now(self) -> float:
        return self.services.runtime.clock.monotonic()


class _RemoteReaders(Subscription):
    """The readers of one other node, as one subscriber: they count for ``on_orphan``, and hold nothing back."""

    __slots__ = ("_missed_since",)

    def __init__(self, record: StreamRecord) -> None:
        super().__init__(record.hub, Cursor(record.log, 0, "coalesce", 1), None)
        self._missed_since: float | None = None

    def is_missed(self, now: float, *, is_living: bool) -> bool:
        """Whether its node has been missed for long without a break."""
        if is_living:
            self._missed_since = None
            return False
        if self._missed_since is None:
            self._missed_since = now
        return now - self._missed_since >= _LINGERS

    @property
    def seq(self) -> int:
        return 1 << 62  # it has its own log

    @property
    def pending(self) -> int:
        return 0

    @property
    def lag_bytes(self) -> int:
        return 0

    def wake(self) -> None:
        """Nothing: the store tells that node."""


def _can_move(record: StreamRecord) -> bool:
    """Whether a stream can begin again on another node."""
    return (
        record.stored is not None
        and not record.is_over
        and record.ending is None
        and record.head is not None
        and record.head.redo is not None
    )


def _own_log(node: str) -> str:
    """The name under which a node gets its own orders. No stream has it, since ids of streams are printable."""
    return f"node\x1f{node}"


def _nothing() -> None:
    pass


def _ignore(_: object) -> None:
    pass
