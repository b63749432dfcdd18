"""Watches subscribers: actors that die, and streams that linger after their last subscriber has left."""

from __future__ import annotations

import heapq
from typing import Any, Final

import msgspec
import pykka

from penstock.actors.runtime.node import Node
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.runtime.transitions import Keep, Transition, timeout
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.errors import PenstockError
from penstock.supervisors.calls import Successor
from penstock.supervisors.system.rounds import Rounds

__all__ = ["SuccessorAnswered", "Watching"]

_ORPHANED: Final = "no subscriber is left"
_PATIENCE: Final = 5.0  # seconds that a dead subscriber's supervisor may be dead itself
_LONGEST_DELAY: Final = 0.5  # seconds between two looks for a restarted subscriber


class SuccessorAnswered(Ephemeral, msgspec.Struct, frozen=True):
    """The supervisor of a dead subscriber has answered `Successor`."""

    process: ProcessRef
    reply: Reply


class _Lost:
    """The subscriptions of a dead actor that its supervisor may restart."""

    __slots__ = ("delay", "give_up_at", "subscriptions")

    def __init__(self, subscriptions: list[PushSubscription], give_up_at: float) -> None:
        self.subscriptions = subscriptions
        self.give_up_at = give_up_at
        self.delay = 0.005


class Watching:
    """The handler's tables of subscribers and lingering streams. Used in the handler's process only."""

    def __init__(self, runtime: Node, handler: ProcessRef) -> None:
        self._runtime = runtime
        self._handler = handler
        # The subscriptions of each actor, in order: of our processes, which are monitored, and of plain Pykka actors.
        self._watched: dict[ProcessRef, dict[PushSubscription, None]] = {}
        self._foreign: dict[pykka.ActorRef[Any], dict[PushSubscription, None]] = {}
        self._rounds: Rounds[dict[PushSubscription, None]] = Rounds()
        self._foreign_rounds: Rounds[tuple[pykka.ActorRef[Any], dict[PushSubscription, None]]] = Rounds()
        self._lost: dict[ProcessRef, _Lost] = {}
        self._lingering: dict[int, tuple[float, StreamRecord]] = {}  # by serial: until when, and the record
        self._linger_ends: list[tuple[float, int]] = []  # a heap of the same; some entries are stale

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
        if len(others) >= 16 and len(others) & (len(others) - 1) == 0:  # at each doubling: constant on average
            known[ref] = others = {other: None for other in others if other.is_active}
        others[subscription] = None

    def actor_died(self, process: ProcessRef) -> Transition:
        """End the subscriptions of a monitored actor, or look for the actor that is started in its place."""
        left = []
        for subscription in self._watched.pop(process, ()):
            if subscription.lose():
                left.append(subscription)
            else:
                subscription.died()
        if not left:
            return None
        lost = self._lost.get(process)
        if lost is not None:  # these subscribed just before it died, and are watched only now
            lost.subscriptions += left
            return None
        self._lost[process] = _Lost(left, self._runtime.clock.monotonic() + _PATIENCE)
        return self.look_for_successor(process)

    # --- supervised actors that are restarted --------------------------------------------------------------------

    def look_for_successor(self, process: ProcessRef) -> Transition:
        """Ask the supervisor of a dead actor for the one in its place."""
        lost = self._lost.get(process)
        if lost is None:
            return None
        supervisor = lost.subscriptions[0].supervisor
        assert supervisor is not None
        if not self._runtime.is_alive(supervisor):  # it may be restarted with its children, which have names perhaps
            return self._found(process, None)
        reply = supervisor.ask(Successor(process), block=False)
        handler = self._handler
        reply.when_done(lambda: handler.tell(SuccessorAnswered(process, reply)))
        return None

    def successor_answered(self, answered: SuccessorAnswered) -> Transition:
        """Go on with what the supervisor has answered."""
        try:
            found = answered.reply.get(timeout=0)
        except PenstockError:  # the supervisor is dead
            found = None
        lost = self._lost.get(answered.process)
        if lost is not None and found == "restarting":
            lost.give_up_at = self._runtime.clock.monotonic() + _PATIENCE
            return self._look_again(answered.process, lost)
        return self._found(answered.process, found)

    def _found(self, process: ProcessRef, successor: ProcessRef | None) -> Transition:
        lost = self._lost.get(process)
        if lost is None:
            return None
        name = lost.subscriptions[0].name
        if successor is None and name is not None:
            successor = self._runtime.whereis(name)
        dead = process.actor_inbox.dead_owner
        is_settled = dead is None or dead.is_closed
        if successor is None or successor is process or not is_settled:
            supervisor = lost.subscriptions[0].supervisor
            assert supervisor is not None
            may_come = name is not None and not self._runtime.is_alive(supervisor)
            if (may_come or not is_settled) and self._runtime.clock.monotonic() < lost.give_up_at:
                return self._look_again(process, lost)
            del self._lost[process]
            for subscription in lost.subscriptions:
                subscription.died()
            return None
        del self._lost[process]
        for subscription in lost.subscriptions:
            if subscription.is_active:
                subscription.go_on_with(successor)
                self.watch(subscription)
        return None

    def _look_again(self, process: ProcessRef, lost: _Lost) -> Transition:
        lost.delay = min(2 * lost.delay, _LONGEST_DELAY)
        return Keep(timeout(process, lost.delay))

    def sweep(self) -> None:
        """End the subscriptions of plain Pykka actors that have died, and forget ended subscriptions."""
        for ref, subscriptions in self._foreign_rounds.part(self._foreign.items()):
            if not ref.is_alive():
                del self._foreign[ref]
                for subscription in subscriptions:
                    subscription.died()
            elif not any(subscription.is_active for subscription in subscriptions):
                del self._foreign[ref]
        for watched in self._rounds.part(
            self._watched.values()
        ):  # a long-lived actor must not keep every stream that it has read
            for subscription in [one for one in watched if not one.is_active]:
                del watched[subscription]

    # --- streams without subscribers -----------------------------------------------------------------------------

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
            if len(self._linger_ends) > 2 * len(self._lingering) + 64:  # mostly stale
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
