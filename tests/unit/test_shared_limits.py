"""Limits that several nodes share: together they admit as much as one may."""

from __future__ import annotations

from collections.abc import Callable

from penstock.actors.call.gate import Admitted, Gate, Refused, Ticket, Wait
from penstock.actors.call.gate_table import GateTable
from penstock.actors.call.shares import MinuteShares
from penstock.adapters.journals.memory_store import MemoryLogStore
from penstock.config.limits import LimitOptions
from penstock.errors import StoreUnavailable
from penstock.ports import Limit, ProviderRequest, Secret
from penstock.testing.simulation import VirtualClock

LIMITS = LimitOptions(requests_per_minute=60)  # a burst of 10


def gates(clock: VirtualClock, count: int = 2, limits: LimitOptions = LIMITS) -> list[Gate]:
    store = MemoryLogStore(clock=clock)
    tables = [GateTable(clock) for _ in range(count)]
    for table in tables:
        table.share(store.take)
    return [table.gate("p", "https://p", limits) for table in tables]


def ticket(wake: Callable[[], object] = lambda: None, tokens: int = 0, key: bytes = b"k") -> Ticket:
    return Ticket(wake, tokens, key=key)


def test_two_nodes_admit_together_what_one_may() -> None:
    clock = VirtualClock()
    one, two = gates(clock)
    admitted = [isinstance(gate.enter(ticket()), Admitted) for _ in range(10) for gate in (one, two)]
    assert admitted.count(True) == 10
    assert admitted[:10] == [True] * 10


def test_the_first_of_a_key_is_told_when_to_ask_again_and_wakes_the_next() -> None:
    clock = VirtualClock()
    one, _ = gates(clock)
    for _ in range(10):
        one.enter(ticket())
    woken: list[str] = []
    first, second, other = ticket(), ticket(lambda: woken.append("second")), ticket(key=b"l")
    told = one.enter(first)
    assert isinstance(told, Wait)
    assert told.seconds is not None
    assert 0.9 < told.seconds <= 1.0
    assert one.enter(second) == Wait(None)
    assert isinstance(one.enter(other), Admitted)
    clock.move_to(clock.monotonic() + told.seconds + 0.001)
    assert isinstance(one.enter(first), Admitted)
    assert woken == ["second"]
    assert isinstance(one.enter(second), Wait)
    third = ticket(lambda: woken.append("third"))
    assert one.enter(third) == Wait(None)
    one.timed_out(second)
    assert woken == ["second", "third"]


def test_a_ticket_takes_its_share_once() -> None:
    clock = VirtualClock()
    (gate,) = gates(clock, 1, LIMITS.replace(concurrent_streams=1))
    inside, waiting = ticket(), ticket()
    assert isinstance(gate.enter(inside), Admitted)
    for _ in range(20):  # the place is taken, the share is not taken again
        assert isinstance(gate.enter(waiting), Wait)
    gate.leave(inside, None)
    assert isinstance(gate.enter(waiting), Admitted)
    gate.leave(waiting, None)
    admitted = 2
    while isinstance(gate.enter(one := ticket()), Admitted):
        gate.leave(one, None)
        admitted += 1
    assert admitted == 10


def test_a_ticket_that_asks_again_in_its_place_or_after_it_has_left_takes_nothing() -> None:
    clock, taken = VirtualClock(), []

    def take(limit: Limit, cost: float = 1.0) -> float:
        taken.append(limit.key)
        return 0.0

    table = GateTable(clock)
    table.share(take)
    gate, one = table.gate("p", "https://p", LIMITS), ticket()
    assert [isinstance(gate.enter(one), Admitted) for _ in range(3)] == [True] * 3
    gate.leave(one, None)
    assert isinstance(gate.enter(one), Refused)
    assert len(taken) == 1


def test_tokens_are_shared_too_and_one_larger_than_the_burst_is_admitted() -> None:
    clock = VirtualClock()
    one, two = gates(clock, 2, LimitOptions(tokens_per_minute=6_000))  # a burst of 1,000
    assert isinstance(one.enter(ticket(tokens=5_000)), Admitted)
    told = two.enter(ticket(tokens=100))
    assert isinstance(told, Wait)
    assert told.seconds is not None
    assert 0.9 < told.seconds <= 1.0


def test_a_ticket_that_waits_for_tokens_takes_one_request() -> None:
    clock, taken = VirtualClock(), []

    def take(limit: Limit, cost: float = 1.0) -> float:
        taken.append(limit.key.rpartition(" ")[2])
        return 1.0 if taken[-1] == "tokens" else 0.0

    shares = MinuteShares(take, "p", LIMITS.replace(tokens_per_minute=6_000), clock)
    for _ in range(3):
        assert shares.ask("a", b"k", 100, lambda: None) == 1.0
    assert taken == ["requests", "tokens", "tokens", "tokens"]


def test_a_ticket_that_asks_while_the_first_one_leaves_finds_it_in_the_queue_or_not_at_all() -> None:
    clock, woken = VirtualClock(), []
    shares = MinuteShares(lambda limit, cost: 1.0, "p", LIMITS, clock)
    assert shares.ask("a", b"k", 0, lambda: None) == 1.0
    assert shares.ask("b", b"k", 0, lambda: woken.append("b")) is None

    class Gap:
        """A lock in whose first gap another thread asks."""

        lock, is_over = shares._lock, False

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()
            if not self.is_over:
                self.is_over = True
                assert shares.ask("c", b"k", 0, lambda: None) is None

    shares._lock = Gap()  # type: ignore[assignment]
    shares.remove("a", b"k")
    assert woken == ["b"]


def test_a_full_queue_refuses() -> None:
    clock = VirtualClock()
    (gate,) = gates(clock, 1, LIMITS.replace(max_queue=2))
    answers = [gate.enter(ticket()) for _ in range(14)]
    assert [type(answer) for answer in answers[10:]] == [Wait, Wait, Wait, Refused]


def test_without_the_store_each_node_keeps_the_limits_by_itself() -> None:
    clock = VirtualClock()
    table = GateTable(clock)

    def take(limit: Limit, cost: float = 1.0) -> float:
        raise StoreUnavailable("s", "away")

    table.share(take)
    gate = table.gate("p", "https://p", LIMITS)
    admitted = [isinstance(gate.enter(ticket()), Admitted) for _ in range(20)]
    assert admitted.count(True) == 10


def free(limit: Limit, cost: float = 1.0) -> float:
    return 0.0


def test_keys_have_the_same_fingerprint_on_all_nodes_only_where_limits_are_shared() -> None:
    clock = VirtualClock()
    request = ProviderRequest(url="https://p", body=b"", secret_headers={"authorization": Secret("k")})
    shared = [GateTable(clock) for _ in range(2)]
    for table in shared:
        table.share(free)
    assert shared[0].fingerprint(request) == shared[1].fingerprint(request)
    assert GateTable(clock).fingerprint(request) != GateTable(clock).fingerprint(request)


def test_a_gate_without_limits_a_minute_does_not_ask_the_store() -> None:
    clock = VirtualClock()
    (gate,) = gates(clock, 1, LimitOptions(concurrent_streams=5))
    assert gate.shared is None
