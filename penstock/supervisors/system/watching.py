"""Who reads the streams: the death of subscribed actors, and streams that linger after their last reader has left."""

from __future__ import annotations

import heapq
from typing import Any, Final

import pykka

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.transitions import Keep, Transition, timeout
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.push import PushSubscription

__all__ = ["Watching"]

_ORPHANED: Final = "nobody reads it"


class Watching:
    """The readers' part of the handler's tables. Used in the handler's process only."""

    def __init__(self, runtime: Runtime, handler: ProcessRef) -> None:
        self._runtime = runtime
        self._handler = handler
        # The subscriptions of each actor, in order: of ours, which are monitored, and of plain Pykka actors.
        self._watched: dict[ProcessRef, dict[PushSubscription, None]] = {}
        self._foreign: dict[pykka.ActorRef[Any], dict[PushSubscription, None]] = {}
        self._lingering: dict[int, tuple[float, StreamRecord]] = {}  # by serial: the record, and until when it lingers
        self._linger_ends: list[tuple[float, int]] = []  # a heap of the same; some entries are out of date

    # --- subscribers ---------------------------------------------------------------------------------------------

    def watch(self, subscription: PushSubscription) -> None:
        """End the subscription when its actor dies."""
        ref = subscription.ref
        known: Any = self._watched if isinstance(ref, ProcessRef) else self._foreign
        others = known.get(ref)
        if others is None:
            known[ref] = {subscription: None}
            if isinstance(ref, ProcessRef):
                self._runtime.monitor(self._handler, ref)
            return
        if len(others) >= 16 and len(others) & (len(others) - 1) == 0:  # at each doubling: constant time on average
            known[ref] = others = {other: None for other in others if other.is_active}
        others[subscription] = None

    def actor_died(self, process: ProcessRef) -> None:
        """End all subscriptions of a monitored actor."""
        for subscription in self._watched.pop(process, ()):
            subscription.died()

    def sweep(self) -> None:
        """Look for plain Pykka actors that have died, and forget subscriptions that are over."""
        for ref, subscriptions in list(self._foreign.items()):
            if not ref.is_alive():
                del self._foreign[ref]
                for subscription in subscriptions:
                    subscription.died()
            elif not any(subscription.is_active for subscription in subscriptions):
                del self._foreign[ref]
        for watched in self._watched.values():  # a long-lived actor must not keep every stream that it has read
            for subscription in [one for one in watched if not one.is_active]:
                del watched[subscription]

    # --- streams without readers ---------------------------------------------------------------------------------

    def orphaned(self, record: StreamRecord) -> Transition:
        """Apply ``on_orphan`` to a stream whose last subscriber has left."""
        if record.is_over or not record.hub.is_orphaned:
            return None
        if record.on_orphan == "cancel":
            record.propose(Cancel(_ORPHANED))
        elif record.on_orphan != "continue":
            until = self._runtime.clock.monotonic() + record.on_orphan
            self._lingering[record.serial] = (until, record)
            heapq.heappush(self._linger_ends, (until, record.serial))
            if len(self._linger_ends) > 2 * len(self._lingering) + 64:  # mostly out of date
                self._linger_ends = [(end, serial) for serial, (end, _) in self._lingering.items()]
                heapq.heapify(self._linger_ends)
            return self._wait_for_linger()
        return None

    def _wait_for_linger(self) -> Transition:
        until = self._linger_ends[0][0] if self._linger_ends else None
        return Keep(timeout("linger", until, absolute=True))

    def lingered(self) -> Transition:
        """Cancel every stream whose linger time has passed and that still has no subscriber."""
        now = self._runtime.clock.monotonic()
        while self._linger_ends and self._linger_ends[0][0] <= now:
            ended, serial = heapq.heappop(self._linger_ends)
            until, record = self._lingering.get(serial, (None, None))
            if record is not None and until == ended:
                del self._lingering[serial]
                if record.hub.is_orphaned:
                    record.propose(Cancel(_ORPHANED))
        return self._wait_for_linger()

    def ended(self, record: StreamRecord) -> None:
        """Forget a stream that has ended."""
        self._lingering.pop(record.serial, None)
