"""Gates: which tickets get a place, wait and are woken, or are refused; no place is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.actors.call.gate import Admission, Admitted, Gate, Refused, Ticket, Wait
from penstock.actors.call.gate_table import GateTable, clean_url
from penstock.actors.runtime.clock import SystemClock
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.errors import (
    ApiError,
    CircuitOpen,
    ConnectError,
    IncompleteStream,
    ProviderBusy,
    ProviderTimeout,
    RateLimited,
)
from penstock.events import Usage
from penstock.ports import ProviderRequest, Quota, Secret
from penstock.testing.simulation import VirtualClock

DOWN = ConnectError("h", "refused")
IN = Admitted()


class Client:
    """Holds a ticket, and does what the module's docstring says."""

    def __init__(self, gate: Gate, tokens: int = 0, *, is_retry: bool = False) -> None:
        self.gate = gate
        self.woken = 0
        self.ticket = Ticket(self._wake, tokens, is_retry=is_retry)
        self.answer: Admission | None = None

    def _wake(self) -> None:
        self.woken += 1

    def enter(self) -> Admission:
        self.answer = self.gate.enter(self.ticket)
        return self.answer

    @property
    def is_in(self) -> bool:
        return isinstance(self.answer, Admitted)

    def leave(self, failure: Any = "neutral") -> None:
        self.gate.leave(self.ticket, failure)
        self.answer = None


def make(clock: VirtualClock | None = None, *, failures: int = 5, **limits: Any) -> Gate:
    table = GateTable(clock or VirtualClock(), BreakerOptions(span=0, failures=failures, cooldown=30))
    return table.gate("openai", "https://h/v1", LimitOptions(**limits))


def clients(gate: Gate, count: int) -> list[Client]:
    made = [Client(gate) for _ in range(count)]
    for client in made:
        client.enter()
    return made


def error_of(admission: Admission | None) -> Any:
    assert isinstance(admission, Refused)
    return admission.error


# --- places ----------------------------------------------------------------------------------------------------------


def test_without_limits_everybody_gets_a_place_at_once() -> None:
    gate = make()
    assert all(client.is_in for client in clients(gate, 1000))
    assert gate.statistics().active == 1000


def test_who_asks_again_keeps_the_one_place_it_has() -> None:
    gate = make(concurrent_streams=1)
    client = Client(gate)
    assert [client.enter(), client.enter(), client.enter()] == [IN, IN, IN]
    assert (gate.statistics().active, gate.statistics().requests) == (1, 1)


def test_a_place_is_given_back_once_however_often_it_is_left() -> None:
    gate = make(concurrent_streams=2)
    a, b, c, d = clients(gate, 4)
    for _ in range(3):
        gate.leave(a.ticket)
    assert gate.statistics().active == 1
    assert c.enter() == IN
    assert d.enter() == Wait(None)
    assert b.is_in


@pytest.mark.parametrize("limits", [{}, {"concurrent_streams": 1}])
def test_who_has_left_is_not_let_in_by_a_late_question(limits: dict[str, Any]) -> None:
    gate = make(**limits)
    client = Client(gate)
    client.leave()
    assert isinstance(error_of(client.enter()), ProviderBusy)
    assert gate.statistics().active == 0


def test_whoever_leaves_wakes_the_first_of_the_queue_only() -> None:
    gate = make(concurrent_streams=1)
    a, b, c = clients(gate, 3)
    a.leave(None)
    assert (b.woken, c.woken) == (1, 0)
    assert (c.enter(), b.enter()) == (Wait(None), IN)
    assert c.woken == 1  # it is the first now: perhaps there is room for it too
    assert c.enter() == Wait(None)


def test_who_gives_up_leaves_the_queue_and_the_next_one_is_told() -> None:
    gate = make(concurrent_streams=1)
    a, b, c, d = clients(gate, 4)
    c.leave()
    assert (b.woken, d.woken) == (0, 0)
    b.leave()
    assert d.woken == 1
    a.leave()
    assert d.enter() == IN
    assert gate.statistics().queued == 0


def test_a_full_queue_refuses_at_once_and_says_so() -> None:
    gate = make(concurrent_streams=1, max_queue=1)
    error = error_of(clients(gate, 3)[2].answer)
    assert str(error) == ("openai (https://h/v1): the queue is full: 1 requests wait (max_queue)")
    assert error.retryable
    assert (gate.statistics().refused, gate.statistics().queued) == (1, 1)


def test_who_waited_too_long_leaves_the_queue_with_its_error() -> None:
    gate = make(concurrent_streams=1, queue_timeout=2.5)
    _, b, c = clients(gate, 3)
    error = gate.timed_out(b.ticket)
    assert str(error) == "openai (https://h/v1): the request waited longer than 2.5 s (queue_timeout)"
    assert c.woken == 1
    assert (gate.statistics().refused, gate.statistics().queued) == (1, 1)


def test_a_queue_whose_first_has_died_without_leaving_goes_on() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1, queue_timeout=10)
    a, dead, b = clients(gate, 3)
    clock.move_to(clock.monotonic() + 22)
    c = Client(gate)
    c.enter()  # notices that the first two ought to have given up long ago
    assert b.woken == 0
    assert isinstance(error_of(dead.enter()), ProviderBusy)
    a.leave(None)
    assert c.woken == 1
    assert c.enter() == IN


def test_the_place_of_a_ticket_that_nobody_has_any_more_is_found_again() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1, failures=1)
    lost, waiting = clients(gate, 2)
    lost.ticket = Ticket(lambda: None)
    assert gate.statistics().active == 0
    assert waiting.enter() == IN
    waiting.leave(DOWN)
    clock.move_to(clock.monotonic() + 30)
    trial = Client(gate)
    assert trial.enter() == IN
    trial.ticket = Ticket(lambda: None)
    assert Client(gate).enter() == IN


def test_notes_of_lost_tickets_do_not_pile_up() -> None:
    gate = make()
    for _ in range(100):
        gate.enter(Ticket(lambda: None))
    assert len(gate._lost) <= 1


@pytest.mark.parametrize("look", [Gate.statistics, Gate.is_unused])
def test_whoever_looks_and_finds_a_lost_place_tells_those_who_wait(look: Any) -> None:
    gate = make(concurrent_streams=1)
    lost, waiting = clients(gate, 2)
    lost.ticket = Ticket(lambda: None)
    look(gate)
    assert waiting.woken == 1


def test_whoever_gives_up_finds_a_lost_place_for_those_who_wait() -> None:
    gate = make(concurrent_streams=1)
    lost, first, second = clients(gate, 3)
    lost.ticket = Ticket(lambda: None)
    second.leave()
    assert first.woken == 1
    assert first.enter() == IN


def test_who_still_asks_is_not_taken_for_dead() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1, queue_timeout=0)
    a, b = clients(gate, 2)
    clock.move_to(clock.monotonic() + 100)
    assert b.enter() == Wait(None)
    a.leave(None)
    clock.move_to(clock.monotonic() + 100)
    assert b.enter() == IN


# --- time ------------------------------------------------------------------------------------------------------------


def test_the_first_of_the_queue_knows_how_long_to_wait_and_the_others_are_told() -> None:
    clock = VirtualClock()
    gate = make(clock, requests_per_minute=6)
    a, b, c = clients(gate, 3)
    assert (a.answer, b.answer, c.answer) == (IN, Wait(pytest.approx(10.0)), Wait(None))  # type: ignore[arg-type]
    clock.move_to(clock.monotonic() + 10)
    assert b.enter() == IN
    assert c.woken == 1
    assert c.enter() == Wait(pytest.approx(10.0))  # type: ignore[arg-type]


def test_tokens_are_estimated_first_and_corrected_by_every_usage() -> None:
    gate = make(tokens_per_minute=600)
    a = Client(gate, tokens=100)
    assert a.enter() == IN
    b = Client(gate, tokens=50)
    assert b.enter() == Wait(pytest.approx(5.0))  # type: ignore[arg-type]
    gate.spent(a.ticket, Usage(input_tokens=10, output_tokens=20))
    assert b.woken == 1
    assert b.enter() == IN
    gate.spent(a.ticket, Usage(total_tokens=230))
    a.leave(None)
    gate.spent(a.ticket, Usage(total_tokens=250))
    c = Client(gate, tokens=1)
    assert c.enter() == Wait(pytest.approx(20.1))  # type: ignore[arg-type]
    assert gate.statistics().tokens == 250


def test_usage_that_tells_nothing_or_of_nobody_changes_nothing() -> None:
    gate = make(tokens_per_minute=600)
    a, outsider = Client(gate, tokens=100), Client(gate)
    a.enter()
    for ticket, usage in ((a.ticket, None), (a.ticket, Usage()), (outsider.ticket, Usage(total_tokens=9))):
        gate.spent(ticket, usage)
    assert Client(gate, tokens=1).enter() == Wait(pytest.approx(0.1))  # type: ignore[arg-type]
    assert gate.statistics().tokens == 0


def test_a_hold_lets_nobody_in_until_it_is_over_and_is_never_shortened() -> None:
    clock = VirtualClock()
    gate = make(clock)
    gate.hold(20)
    gate.hold(5)
    gate.hold(-1)
    gate.hold(float("nan"))
    a, b = clients(gate, 2)
    assert (a.answer, b.answer) == (Wait(20.0), Wait(None))
    assert gate.statistics().held_until_s == 20.0
    clock.move_to(clock.monotonic() + 20)
    assert a.enter() == IN
    late = Client(gate)
    assert late.enter() == Wait(None)  # b has been told, and is about to ask
    assert b.woken == 1
    assert b.enter() == Wait(pytest.approx(0.1))  # type: ignore[arg-type]
    clock.move_to(clock.monotonic() + 0.1)
    assert b.enter() == IN
    clock.move_to(clock.monotonic() + 0.1)
    assert late.enter() == IN
    clock.move_to(clock.monotonic() + 5)
    assert Client(gate).enter() == IN
    assert Client(gate).enter() == IN
    assert gate.statistics().held_until_s == 0.0


@pytest.mark.parametrize("waiting", [1, 7, 400])
def test_after_a_hold_the_waiting_requests_are_spread_and_all_go_soon(waiting: int) -> None:
    clock = VirtualClock()
    gate = make(clock)
    gate.hold(20)
    queue = [Client(gate) for _ in range(waiting)]
    for number, client in enumerate(queue):
        client.ticket.jitter = number * 0.37 % 1
        client.enter()
    start = clock.monotonic() + 20
    clock.move_to(start)
    times = []
    for client in queue:
        while isinstance(answer := client.enter(), Wait):
            assert answer.seconds is not None
            clock.move_to(clock.monotonic() + answer.seconds)
        times.append(clock.monotonic())
    assert times[0] == start
    assert max(times.count(when) for when in times) <= max(1, waiting // 100)
    assert times[-1] <= start + 5.2


# --- keys ------------------------------------------------------------------------------------------------------------

A, B = b"fingerprint of A", b"fingerprint of B"


def of_key(gate: Gate, key: bytes, tokens: int = 0) -> Client:
    client = Client(gate, tokens)
    client.ticket.key = key
    return client


def test_a_hold_for_one_key_holds_no_other_and_the_statistics_show_it_without_the_key() -> None:
    gate = make(VirtualClock())
    first = of_key(gate, A)
    first.enter()
    first.leave(RateLimited(429, "m", retryable=True, retry_after=20.0))
    assert (of_key(gate, A).enter(), of_key(gate, B).enter()) == (Wait(20.0), IN)
    gate.note_quota(Quota(requests_left=0, requests_reset_s=9.0), B)
    assert of_key(gate, B).enter() == Wait(9.0)
    assert of_key(gate, b"").enter() == IN
    statistics = gate.statistics()
    assert (statistics.key_holds_s, statistics.held_until_s, statistics.keys) == ((20.0, 9.0), 20.0, 3)
    assert "fingerprint" not in repr(statistics) + repr(gate) + repr(first.ticket)


def test_a_hold_that_fails_one_key_at_once_fails_no_other() -> None:
    gate = make(VirtualClock(), queue_timeout=30.0)
    gate.hold(600, A)
    assert isinstance(of_key(gate, A).enter(), Refused)
    assert of_key(gate, B).enter() == IN


def test_the_limits_a_minute_and_the_queue_belong_to_the_key() -> None:
    gate = make(VirtualClock(), requests_per_minute=6, max_queue=1)
    clients_of = {key: [of_key(gate, key) for _ in range(3)] for key in (A, B)}
    answers = {key: [client.enter() for client in some] for key, some in clients_of.items()}
    for key in (A, B):
        assert answers[key][:2] == [IN, Wait(10.0)]
        assert isinstance(answers[key][2], Refused)
    assert (gate.statistics().queued, gate.statistics().queue_high_water_mark) == (2, 2)


def test_the_places_belong_to_the_endpoint_and_the_keys_take_turns() -> None:
    gate = make(VirtualClock(), concurrent_streams=1)
    inside = of_key(gate, A)
    inside.enter()
    a1, a2, b1 = of_key(gate, A), of_key(gate, A), of_key(gate, B)
    assert [one.enter() for one in (a1, a2, b1)] == [Wait(None)] * 3
    order = []
    while not all(one.is_in or one.answer is None for one in (a1, a2, b1)):
        inside.leave(None)
        inside = next(one for one in (a1, a2, b1) if one.woken and not one.is_in and one.enter() == IN)
        order.append(inside)
        inside.woken = 0
    assert order[0] is a1
    assert set(order) == {a1, a2, b1}
    assert gate.statistics().active == 1


def test_a_key_that_is_held_does_not_keep_another_from_the_place() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1)
    inside = of_key(gate, b"c")
    inside.enter()
    a, b = of_key(gate, A), of_key(gate, B)
    assert (a.enter(), b.enter()) == (Wait(None), Wait(None))
    gate.hold(20, A)
    inside.leave(None)
    assert b.woken
    assert (a.enter(), b.enter()) == (Wait(20.0), IN)
    clock.move_to(clock.monotonic() + 20)
    assert a.enter() == Wait(None)
    b.leave(None)
    assert a.woken
    assert a.enter() == IN


def test_when_the_circuit_opens_or_closes_the_queues_of_all_keys_are_told() -> None:
    clock = VirtualClock()
    gate = make(clock, failures=1, concurrent_streams=1)
    inside = of_key(gate, b"c")
    inside.enter()
    a, b = of_key(gate, A), of_key(gate, B)
    for one in (a, b):
        one.enter()
    inside.leave(DOWN)
    assert (a.woken, b.woken) == (1, 1)
    for one in (a, b):
        assert isinstance(error_of(one.enter()), CircuitOpen)
    assert gate.statistics().queued == 0


def test_keys_that_are_no_longer_used_are_forgotten() -> None:
    clock = VirtualClock()
    gate = make(clock)
    gate.hold(60, A)
    for number in range(3000):
        client = of_key(gate, str(number).encode())
        client.enter()
        client.leave(None)
    assert gate.statistics().keys < 1100
    assert gate.statistics().key_holds_s == (60.0,)


def test_a_fingerprint_tells_keys_apart_and_reveals_nothing() -> None:
    def request(key: str, name: str = "Authorization", *, plain: bool = False) -> ProviderRequest:
        headers = {name: key} if plain else {}
        return ProviderRequest(
            url="https://h/v1", body=b"", headers=headers, secret_headers={} if plain else {name: Secret(key)}
        )

    table = GateTable(VirtualClock())
    mark = table.fingerprint(request("Bearer sk-1"))
    assert mark == table.fingerprint(request("Bearer sk-1", "authorization", plain=True))
    others = [request("Bearer sk-2"), request("Bearer sk-1", "x-api-key"), ProviderRequest(url="https://h", body=b"")]
    assert len({mark, *map(table.fingerprint, others)}) == 4
    assert b"sk-1" not in mark
    assert GateTable(VirtualClock()).fingerprint(request("Bearer sk-1")) != mark  # another process knows another one


def test_a_429_that_says_how_long_to_wait_holds_before_anybody_else_is_told() -> None:
    gate = make(concurrent_streams=1)
    a, b = clients(gate, 2)
    a.leave(RateLimited(429, "m", retryable=True, retry_after=7.0))
    assert b.woken == 1
    assert b.enter() == Wait(7.0)
    free = make()
    (c,) = clients(free, 1)
    c.leave(RateLimited(429, "m", retryable=True))
    assert Client(free).enter() == IN


def test_no_hold_is_longer_than_an_hour() -> None:
    gate = make(queue_timeout=3600.0)
    gate.hold(1e12)
    assert Client(gate).enter() == Wait(3600.0)


def test_who_would_have_to_wait_longer_than_it_may_is_refused_at_once() -> None:
    clock = VirtualClock()
    gate = make(clock, queue_timeout=10.0)
    (early,) = clients(gate, 1)
    gate.hold(10.0)
    assert Client(gate).enter() == Wait(10.0)
    gate.hold(40.0)
    answer = Client(gate).enter()
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, ProviderBusy)
    assert "40 s" in str(answer.error)
    assert early.is_in  # and is not disturbed
    assert (gate.statistics().queued, gate.statistics().refused) == (1, 1)


@pytest.mark.parametrize(
    ("quota", "held"),
    [
        (None, 0.0),
        (Quota(), 0.0),
        (Quota(requests_left=1, requests_reset_s=9.0, tokens_left=1, tokens_reset_s=9.0), 0.0),
        (Quota(requests_left=0, requests_reset_s=9.0), 9.0),
        (Quota(tokens_left=0, tokens_reset_s=7.0), 7.0),
        (Quota(requests_left=0, requests_reset_s=9.0, tokens_left=0, tokens_reset_s=12.0), 12.0),
        (Quota(requests_left=0), 0.0),
    ],
)
def test_when_the_provider_says_that_nothing_is_left_nobody_is_let_in_until_there_is(
    quota: Quota | None, held: float
) -> None:
    gate = make()
    gate.note_quota(quota)
    assert gate.statistics().held_until_s == held


# --- the circuit -----------------------------------------------------------------------------------------------------


def test_failures_in_a_row_open_the_circuit_and_the_error_says_for_how_long() -> None:
    clock = VirtualClock()
    gate = make(clock, failures=2)
    for client in clients(gate, 2):
        client.leave(DOWN)
    clock.move_to(clock.monotonic() + 10)
    error = error_of(Client(gate).enter())
    assert isinstance(error, CircuitOpen)
    assert error.retry_after == 20.0
    assert str(error) == "openai (https://h/v1) failed too often; it is tried again in 20.0 s"
    statistics = gate.statistics()
    assert (statistics.circuit, statistics.failures, statistics.refused) == ("open", 2, 1)


def test_after_the_cooldown_one_may_try_and_its_first_delta_closes_the_circuit() -> None:
    clock = VirtualClock()
    gate = make(clock, failures=1)
    clients(gate, 1)[0].leave(DOWN)
    clock.move_to(clock.monotonic() + 30)
    assert gate.statistics().circuit == "half_open"
    trial, other = clients(gate, 2)
    assert trial.is_in
    assert isinstance(error_of(other.answer), CircuitOpen)
    gate.answered(trial.ticket)
    gate.answered(trial.ticket)
    assert gate.statistics().circuit == "closed"
    assert Client(gate).enter() == IN
    trial.leave(ProviderTimeout("idle", 1))  # its part was to see whether the endpoint answers
    assert gate.statistics().circuit == "closed"


@pytest.mark.parametrize("failure", ["neutral", ApiError(400, "m"), ApiError(429, "m", retryable=True)])
def test_a_trial_that_says_nothing_of_the_endpoint_lets_another_try(failure: Any) -> None:
    clock = VirtualClock()
    gate = make(clock, failures=1)
    clients(gate, 1)[0].leave(DOWN)
    clock.move_to(clock.monotonic() + 30)
    clients(gate, 1)[0].leave(failure)
    assert gate.statistics().circuit == "half_open"
    last = clients(gate, 1)[0]
    assert last.is_in
    last.leave(None)
    assert gate.statistics().circuit == "closed"


def test_an_answer_that_breaks_off_counts_only_if_nothing_of_it_had_come() -> None:
    gate = make(failures=1)
    a, b = clients(gate, 2)
    gate.answered(a.ticket)
    a.leave(IncompleteStream("closed"))
    assert gate.statistics().circuit == "closed"
    b.leave(IncompleteStream("closed"))
    assert gate.statistics().circuit == "open"


def test_those_who_wait_when_the_circuit_opens_are_told_one_after_the_other() -> None:
    gate = make(failures=1, concurrent_streams=1)
    a, b, c, d = clients(gate, 4)
    a.leave(DOWN)
    for waiting in (b, c, d):
        assert waiting.woken == 1
        assert isinstance(error_of(waiting.enter()), CircuitOpen)
    assert gate.statistics().queued == 0


def test_a_switched_off_breaker_lets_everybody_in() -> None:
    gate = GateTable(VirtualClock(), BreakerOptions(span=0, failures=1, enabled=False)).gate("p", "")
    for _ in range(10):
        client = Client(gate)
        assert client.enter() == IN
        client.leave(DOWN)
    assert (gate.statistics().circuit, gate.statistics().failures) == ("closed", 10)


# --- statistics, table -----------------------------------------------------------------------------------------------


def test_a_gate_counts_what_goes_through_it() -> None:
    gate = make(concurrent_streams=1)
    a, b = clients(gate, 2)
    retry = Client(gate, is_retry=True)
    retry.enter()
    a.leave(DOWN)
    b.enter()
    b.leave(None)
    retry.enter()
    statistics = gate.statistics()
    assert (statistics.name, statistics.base_url) == ("openai", "https://h/v1")
    assert (statistics.requests, statistics.retries, statistics.waits, statistics.failures) == (3, 1, 2, 1)
    assert (statistics.active, statistics.queued, statistics.queue_high_water_mark) == (1, 0, 2)


def test_one_endpoint_has_one_gate_whatever_its_url_says_beside_the_place() -> None:
    table = GateTable(VirtualClock())
    gate = table.gate("openai", "https://h/v1", LimitOptions(concurrent_streams=3))
    for url in ("https://h/v1/", "https://H/v1", "https://user:hunter2@h/v1", "https://h/v1?key=hunter2#x"):
        assert table.gate("openai", url) is gate
    assert table.gate("ollama", "https://h/v1") is not gate
    assert table.gate("openai", "https://h:8/v1") is not gate
    assert gate.limits.concurrent_streams == 3
    assert "hunter2" not in repr(table.gate("x", "https://user:hunter2@h/v1")) + repr(table.statistics())
    assert [one.name for one in table.statistics()] == ["openai", "ollama", "openai", "x"]


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[", ""),
        ("", ""),
        ("nonsense", ""),
        ("HTTP://A/", "http://a"),
    ],
)
def test_a_url_is_cleaned_and_never_refused(url: str, clean: str) -> None:
    assert clean_url(url) == clean


def test_gates_that_nobody_uses_are_forgotten_when_there_are_many() -> None:
    clock = VirtualClock()
    table = GateTable(clock, BreakerOptions(span=0, failures=1))
    used = table.gate("used", "", LimitOptions(requests_per_minute=1))
    used.enter(Ticket(lambda: None))
    failed = table.gate("failed", "")
    client = Client(failed)
    client.enter()
    client.leave(DOWN)
    held = table.gate("held", "")
    held.hold(60)
    for number in range(2000):
        table.gate("p", f"http://h:{number}")
    assert len(table.statistics()) < 1100
    assert [table.gate(name, "") for name in ("used", "failed", "held")] == [used, failed, held]


def test_the_retry_budget_is_one_for_the_whole_table_and_counts() -> None:
    clock = VirtualClock()
    budget = GateTable(clock, None, RetryBudgetOptions(ratio=0.5, floor=1, window=10)).retry_budget
    for _ in range(4):
        budget.note_request()
    assert [budget.may_retry() for _ in range(5)] == [True, True, True, False, False]
    assert (budget.granted, budget.refused) == (3, 2)
    clock.move_to(clock.monotonic() + 11)
    assert budget.may_retry()


# --- whatever happens ------------------------------------------------------------------------------------------------


class AnyLife(RuleBasedStateMachine):
    """Clients come, are told, give up, end in any order; each asks when it is woken or its time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.gate = make(
            self.clock, concurrent_streams=3, requests_per_minute=120, max_queue=6, failures=3, queue_timeout=86_400
        )
        self.inside: list[Client] = []
        self.queued: list[Client] = []
        self.due: dict[Client, float] = {}
        self.heard: dict[Client, int] = {}

    def ask(self, client: Client) -> None:
        self.heard[client] = client.woken
        self.due.pop(client, None)
        was_first = not self.queued or self.queued[0] is client
        match client.enter():
            case Admitted():
                assert was_first, "a call was overtaken"
                self.inside.append(client)
                if client in self.queued:
                    self.queued.remove(client)
            case Wait(seconds=seconds):
                if client not in self.queued:
                    self.queued.append(client)
                if seconds is not None:
                    assert seconds > 0
                    self.due[client] = self.clock.monotonic() + seconds
            case Refused():
                if client in self.queued:
                    self.queued.remove(client)

    def settle(self) -> None:
        """Every ticket that was woken, or has waited long enough, asks."""
        for _ in range(1000):
            now = self.clock.monotonic()
            ready = [
                one for one in self.queued if one.woken > self.heard[one] or self.due.get(one, now + 1) <= now + 1e-9
            ]
            if not ready:
                return
            self.ask(ready[-1])  # the last one first: the order must not depend on speed
        raise AssertionError("it never comes to rest")

    @rule()
    def come(self) -> None:
        self.ask(Client(self.gate))

    @precondition(lambda self: self.inside)
    @rule(place=st.integers(0, 2), failure=st.sampled_from([None, DOWN, "neutral", ApiError(400, "m")]))
    def end(self, place: int, failure: Any) -> None:
        self.inside.pop(place % len(self.inside)).leave(failure)

    @precondition(lambda self: self.inside)
    @rule(place=st.integers(0, 2))
    def answer(self, place: int) -> None:
        self.gate.answered(self.inside[place % len(self.inside)].ticket)

    @precondition(lambda self: self.queued)
    @rule(place=st.integers(0, 5))
    def give_up(self, place: int) -> None:
        client = self.queued.pop(place % len(self.queued))
        client.leave()
        self.due.pop(client, None)

    @rule(seconds=st.floats(0.01, 20))
    def pass_time(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic() + seconds)

    @rule(seconds=st.floats(0.01, 5))
    def hold(self, seconds: float) -> None:
        self.gate.hold(seconds)

    @rule()
    def rest(self) -> None:
        self.settle()

    @invariant()
    def the_books_agree(self) -> None:
        statistics = self.gate.statistics()
        assert statistics.active == len(self.inside) <= 3
        assert statistics.queued == len(self.queued) <= 6

    def teardown(self) -> None:
        """No ticket starves: with time, and all attempts ending well, the queue empties."""
        for _ in range(100):
            self.settle()
            if not self.queued:
                break
            if self.inside:
                self.inside.pop().leave(None)
            self.clock.move_to(max(self.clock.monotonic() + 0.5, min(self.due.values(), default=0.0)))
        assert not self.queued
        for client in self.inside:
            client.leave(None)
        assert self.gate.statistics().active == 0


TestAnyLife = AnyLife.TestCase


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.integers(1, 300))
def test_in_no_minute_are_more_let_in_than_the_limit_and_its_burst(pauses: list[float], per_minute: int) -> None:
    clock = VirtualClock()
    gate = make(clock, requests_per_minute=per_minute, max_queue=1000, queue_timeout=86_400)
    admitted: list[float] = []
    for pause in pauses:
        clock.move_to(clock.monotonic() + pause)
        client = Client(gate)
        while isinstance(answer := client.enter(), Wait):
            assert answer.seconds is not None
            clock.move_to(clock.monotonic() + answer.seconds)
        admitted.append(clock.monotonic())
    burst = max(1.0, per_minute / 6)
    for first, start in enumerate(admitted):
        assert sum(1 for when in admitted[first:] if when < start + 60) <= per_minute + burst + 1e-6


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that give way after every few instructions, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_that_hammer_a_gate_lose_nothing_and_all_get_through() -> None:
    gate = GateTable(SystemClock(), BreakerOptions(span=0, failures=10**6)).gate(
        "p", "", LimitOptions(concurrent_streams=3)
    )
    inside, most, lock = [0], [0], threading.Lock()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                woken = threading.Event()
                ticket = Ticket(woken.set)
                while not isinstance(gate.enter(ticket), Admitted):
                    if (number + turn) % 7 == 0:
                        break  # gives up
                    assert woken.wait(20), "forgotten"
                    woken.clear()
                else:
                    with lock:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    gate.answered(ticket)
                    gate.spent(ticket, Usage(total_tokens=2))
                    with lock:
                        inside[0] -= 1
                gate.leave(ticket, None if turn % 3 else DOWN)
                gate.leave(ticket)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not errors
    statistics = gate.statistics()
    assert (statistics.active, statistics.queued) == (0, 0)
    assert most[0] <= 3
    assert statistics.tokens == 2 * statistics.requests


@pytest.mark.usefixtures("restless")
def test_threads_that_hammer_a_gate_without_limits_lose_nothing() -> None:
    gate = make()

    def work() -> None:
        for _ in range(2000):
            ticket = Ticket(lambda: None)
            assert gate.enter(ticket) == IN
            gate.leave(ticket, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert (gate.statistics().active, gate.statistics().requests) == (0, 8000)


def test_a_ticket_that_leaves_the_queue_wakes_the_one_of_another_key_that_waited_for_it() -> None:
    gate = GateTable(VirtualClock(), None).gate("p", "", LimitOptions(concurrent_streams=1))
    woken: list[str] = []

    def ticket(name: str) -> Ticket:
        return Ticket(lambda: woken.append(name), key=name.encode())

    inside, first, second = ticket("inside"), ticket("first"), ticket("second")
    assert isinstance(gate.enter(inside), Admitted)
    gate.enter(first)
    gate.leave(inside, None)
    assert woken == ["first"]
    gate.enter(second)  # before the first one has come back for the place
    woken.clear()
    gate.leave(first)
    assert woken == ["second"]
    assert isinstance(gate.enter(second), Admitted)


def test_a_key_whose_queue_was_empty_waits_behind_those_that_queued_before_it() -> None:
    gate = make(concurrent_streams=1)
    inside, early, other, late = (of_key(gate, key) for key in (b"", A, B, A))
    assert inside.enter() == IN
    early.enter()
    early.leave()
    other.enter()
    late.enter()
    inside.leave(None)
    assert (other.woken, late.woken) == (1, 0)
    assert other.enter() == IN


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (Usage(input_tokens=5), 5),
        (Usage(output_tokens=7), 7),
        (Usage(input_tokens=5, output_tokens=7), 12),
        (Usage(input_tokens=5, output_tokens=7, total_tokens=20), 20),
        (Usage(), 0),
        (None, 0),
    ],
)
def test_the_tokens_of_an_endpoint_are_those_that_the_usage_has(usage: Usage | None, tokens: int) -> None:
    gate = make()
    client = Client(gate, 100)
    client.enter()
    gate.spent(client.ticket, usage)
    assert gate.statistics().tokens == tokens


def test_a_refused_ticket_stays_refused_when_there_is_room_again() -> None:
    gate = make(concurrent_streams=1, max_queue=0)
    first, refused = clients(gate, 2)
    error_of(refused.answer)
    first.leave(None)
    assert str(error_of(refused.enter())).endswith("this request has left the queue")
    assert gate.statistics().active == 0
    assert Client(gate).enter() == IN


# --- what is told late, twice or at a border --------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["twice", "after it has left"])
def test_a_first_delta_that_is_told_too_often_or_too_late_does_not_excuse_failures(when: str) -> None:
    gate = make(failures=2)
    a, b, c = clients(gate, 3)
    if when == "twice":
        gate.answered(a.ticket)
    else:
        a.leave()
    b.leave(DOWN)
    gate.answered(a.ticket)
    c.leave(DOWN)
    assert gate.statistics().circuit == "open"


def test_a_first_delta_wakes_nobody_while_the_circuit_is_closed() -> None:
    gate = make(concurrent_streams=1)
    a, b = clients(gate, 2)
    gate.answered(a.ticket)
    assert b.woken == 0


@pytest.mark.parametrize("way", ["first delta", "end"])
def test_the_queues_of_all_keys_are_woken_when_a_trial_closes_the_circuit(way: str) -> None:
    clock = VirtualClock()
    gate = make(clock, failures=1, concurrent_streams=1)
    a, b, same, other = (of_key(gate, key) for key in (A, A, A, B))
    for client in (a, b, same, other):
        client.enter()
    a.leave(DOWN)
    clock.move_to(clock.monotonic() + 30)
    assert b.enter() == IN
    woken = (same.woken, other.woken)
    if way == "first delta":
        gate.answered(b.ticket)
    else:
        b.leave(None)
    assert (same.woken, other.woken) == (woken[0] + 1, woken[1] + 1)
    assert gate.statistics().circuit == "closed"


def test_one_that_is_in_or_gone_when_its_time_is_over_was_not_refused() -> None:
    gate = make(concurrent_streams=1)
    (a,) = clients(gate, 1)
    for _ in range(2):
        gate.timed_out(a.ticket)
    assert (gate.statistics().refused, gate.statistics().active) == (0, 0)


def test_usage_above_the_estimate_wakes_nobody() -> None:
    gate = make(tokens_per_minute=600)
    a, b = Client(gate, tokens=100), Client(gate, tokens=50)
    a.enter()
    b.enter()
    gate.spent(a.ticket, Usage(total_tokens=100))
    gate.spent(a.ticket, Usage(total_tokens=200))
    assert b.woken == 0


def test_refused_retries_and_waits_are_counted_once() -> None:
    gate = make(concurrent_streams=1)
    _, b = clients(gate, 2)
    b.enter()
    gate.note_refused_retry()
    statistics = gate.statistics()
    assert (statistics.waits, statistics.retries_refused, statistics.requests) == (1, 1, 1)


@pytest.mark.parametrize("quota", [Quota(tokens_left=0), Quota(requests_left=0)])
def test_a_quota_that_is_used_up_without_a_time_holds_nobody(quota: Quota) -> None:
    gate = make()
    gate.note_quota(quota)
    assert Client(gate).enter() == IN


def test_a_hold_of_less_than_a_second_holds_and_is_over_at_its_end() -> None:
    clock = VirtualClock()
    gate = make(clock)
    gate.hold(0.5)
    a = Client(gate)
    assert a.enter() == Wait(0.5)
    clock.move_to(clock.monotonic() + 0.5)
    assert (gate.statistics().key_holds_s, gate.statistics().held_until_s) == ((), 0.0)
    assert a.enter() == IN


def test_one_that_leaves_during_a_hold_does_not_end_it() -> None:
    gate = make()
    (a,) = clients(gate, 1)
    gate.hold(20)
    a.leave(None)
    assert Client(gate).enter() == Wait(20.0)


def test_one_that_leaves_after_a_hold_lets_nobody_overtake_those_who_wait() -> None:
    clock = VirtualClock()
    gate = make(clock)
    (a,) = clients(gate, 1)
    gate.hold(20)
    b, late = Client(gate), Client(gate)
    assert b.enter() == Wait(20.0)
    clock.move_to(clock.monotonic() + 60)
    a.leave(None)
    assert late.enter() == Wait(None)
    assert b.enter() == IN


def test_a_queues_first_is_taken_for_dead_only_after_twice_its_time_and_a_second() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1, queue_timeout=10)
    _, silent = clients(gate, 2)
    clock.move_to(clock.monotonic() + 21)
    Client(gate).enter()
    assert silent.enter() == Wait(None)


@pytest.mark.parametrize("limits", [{}, {"concurrent_streams": 5}])
def test_a_gate_is_unused_when_nobody_is_in_it_or_was_lost_in_it(limits: dict[str, Any]) -> None:
    gate = make(**limits)
    assert gate.is_unused()
    a, b = clients(gate, 2)
    a.leave(None)
    assert not gate.is_unused()
    b.ticket = Ticket(lambda: None)  # nobody has the other any more
    assert gate.is_unused()
    assert gate.statistics().active == 0


def test_a_key_that_has_had_a_place_waits_behind_the_other_keys() -> None:
    gate = make(concurrent_streams=2)
    x, y = of_key(gate, b"x"), of_key(gate, b"y")
    waiting = [of_key(gate, key) for key in (A, A, B, B)]
    for client in (x, y, *waiting):
        client.enter()
    x.leave(None)
    assert [client.woken for client in waiting] == [1, 0, 0, 0]
    assert waiting[0].enter() == IN
    before = [client.woken for client in waiting]
    y.leave(None)
    assert [client.woken - woken for client, woken in zip(waiting, before, strict=True)] == [0, 0, 1, 0]


def test_a_gate_is_named_with_its_url_if_it_has_one() -> None:
    gate = Gate(VirtualClock(), "mine", "", LimitOptions(), BreakerOptions())
    assert (repr(gate), repr(make())) == ("<Gate mine>", "<Gate openai (https://h/v1)>")


def test_one_that_finds_a_lost_place_tells_the_key_whose_turn_it_is() -> None:
    gate = make(concurrent_streams=1)
    lost, waiting = of_key(gate, A), of_key(gate, B)
    lost.enter()
    assert waiting.enter() == Wait(None)
    lost.ticket = Ticket(lambda: None)
    assert isinstance(of_key(gate, A).enter(), Wait)
    assert waiting.woken == 1
    assert waiting.enter() == IN


# --- what is looked at, and when --------------------------------------------------------------------------------------


class CountingClock(VirtualClock):
    """Counts how often the time is asked for."""

    asked = 0

    def __init__(self, start: float = 1000.0) -> None:
        super().__init__(start)
        self.kept: list[Client] = []
        """Keep their places, which are looked for if a client is lost."""

    def monotonic(self) -> float:
        self.asked += 1
        return super().monotonic()


def looks(gate: Gate, clock: CountingClock) -> bool:
    """Whether the next ticket is admitted only after a look at the clock."""
    before = clock.asked
    clock.kept.append(client := Client(gate))
    assert client.enter() == IN
    return clock.asked > before


@pytest.mark.parametrize("start", [0.0, 1000.0])
def test_a_gate_where_nothing_is_to_be_checked_admits_without_a_look_at_the_clock(start: float) -> None:
    clock = CountingClock(start)
    gate = make(clock, failures=1)
    (a,) = clients(gate, 1)
    assert not looks(gate, clock)
    a.leave(None)
    assert not looks(gate, clock)
    for limits in ({"concurrent_streams": 5}, {"requests_per_minute": 60}, {"tokens_per_minute": 60}):
        assert looks(make(clock, **limits), clock)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_hold_of_no_time_is_not_checked_for(seconds: float) -> None:
    clock = CountingClock()
    gate = make(clock)
    gate.hold(seconds)
    assert not looks(gate, clock)
    (a,) = clients(gate, 1)
    a.leave(RateLimited(429, "m", retryable=True))
    assert not looks(gate, clock)


@pytest.mark.parametrize(("after", "is_over"), [(25.0, True), (24.75, False)])
@pytest.mark.parametrize("way", ["leaves", "waited"])
def test_a_hold_is_checked_for_until_the_waiting_requests_are_spread(way: str, after: float, *, is_over: bool) -> None:
    clock = CountingClock()
    gate = make(clock)
    (a,) = clients(gate, 1)
    gate.hold(20)
    b = Client(gate)
    assert b.enter() == Wait(20.0)
    if way == "leaves":
        clock.move_to(clock.monotonic() + 20)
        assert b.enter() == IN
        clock.move_to(clock.monotonic() + after - 20)
        a.leave(None)
    else:
        clock.move_to(clock.monotonic() + after)
        assert b.enter() == IN
    clock.move_to(clock.monotonic() + 0.2)  # the next ticket need not wait
    assert looks(gate, clock) is not is_over


def test_a_circuit_that_is_closed_again_is_not_checked() -> None:
    clock = CountingClock()
    gate = make(clock, failures=1)
    (a,) = clients(gate, 1)
    a.leave(DOWN)
    clock.move_to(clock.monotonic() + 30)
    trial = Client(gate)
    assert trial.enter() == IN
    gate.answered(trial.ticket)
    assert not looks(gate, clock)


def test_a_ticket_that_waits_at_a_gate_without_limits_is_not_overtaken() -> None:
    clock = VirtualClock()
    gate = make(clock)
    (inside,) = clients(gate, 1)
    gate.hold(20)
    clock.move_to(clock.monotonic() + 24.95)
    early = Client(gate)
    early.ticket.jitter = 1.0
    assert early.enter() == IN  # and the next one 0.075 s later
    clock.move_to(clock.monotonic() + 0.05)
    inside.leave(None)
    early.ticket = Ticket(lambda: None)  # is lost
    waiting, late = clients(gate, 2)
    assert waiting.answer == Wait(pytest.approx(0.025))  # type: ignore[arg-type]
    assert late.answer == Wait(None)


def test_a_ticket_needs_no_tokens_and_is_no_retry_unless_it_says_so() -> None:
    gate = make(tokens_per_minute=6)  # a burst of 1
    tickets = [Ticket(lambda: None) for _ in range(3)]
    assert [gate.enter(ticket) for ticket in tickets] == [IN] * 3
    assert gate.statistics().retries == 0


def test_the_limits_of_an_endpoint_apply_all_together() -> None:
    gate = make(requests_per_minute=600, tokens_per_minute=6_000, concurrent_streams=1)
    a, b = clients(gate, 2)
    assert (a.answer, b.answer) == (IN, Wait(None))


def test_only_the_first_leaving_wakes() -> None:
    gate = make(concurrent_streams=1)
    inside, other = of_key(gate, A), of_key(gate, B)
    inside.enter()
    other.enter()
    for _ in range(2):
        gate.leave(inside.ticket)
    assert other.woken == 1


def test_a_place_wakes_no_ticket_that_waits_for_something_else() -> None:
    gate = make(concurrent_streams=2, requests_per_minute=6)
    first, limited, inside = of_key(gate, A), of_key(gate, A), of_key(gate, B)
    assert [client.enter() for client in (first, limited, inside)] == [IN, Wait(10.0), IN]
    inside.leave(None)
    assert limited.woken == 0


def test_a_place_passes_by_the_tickets_of_another_key_whose_owners_have_died() -> None:
    clock = VirtualClock()
    gate = make(clock, concurrent_streams=1, queue_timeout=10)
    inside, dead, alive = of_key(gate, b""), of_key(gate, A), of_key(gate, B)
    inside.enter()
    dead.enter()
    clock.move_to(clock.monotonic() + 22)
    alive.enter()
    inside.leave(None)
    assert (dead.woken, alive.woken) == (0, 1)
    assert gate.statistics().queued == 1


def test_an_open_circuit_refuses_until_the_last_moment() -> None:
    clock = VirtualClock()
    gate = make(clock, failures=1)
    (a,) = clients(gate, 1)
    a.leave(DOWN)
    clock.move_to(clock.monotonic() + 29.5)
    assert isinstance(error_of(Client(gate).enter()), CircuitOpen)


def test_a_hold_longer_than_the_queues_time_refuses_no_ticket_that_is_queued() -> None:
    gate = make(concurrent_streams=1, queue_timeout=10)
    _, queued = clients(gate, 2)
    gate.hold(40)
    assert queued.enter() == Wait(40.0)


@pytest.mark.parametrize("in_use", [0, 1024])
def test_keys_without_requests_are_forgotten_at_1024_keys_or_twice_as_many_as_are_in_use(in_use: int) -> None:
    gate = make()
    many = 1024 + in_use
    entered = [of_key(gate, str(number).encode()) for number in range(many)]
    for number, client in enumerate(entered):
        client.enter()
        if number >= in_use:
            client.leave(None)
    assert gate.statistics().keys == many
    of_key(gate, b"last").enter()
    assert gate.statistics().keys == in_use + 1


def test_a_gate_has_what_is_left_of_the_quota_by_the_last_answer_that_says_it() -> None:
    gate = make()
    assert (gate.statistics().requests_left, gate.statistics().tokens_left) == (None, None)
    for quota in (Quota(requests_left=9, tokens_left=8), Quota(requests_left=7, tokens_left=6), None):
        gate.note_quota(quota)
    assert (gate.statistics().requests_left, gate.statistics().tokens_left) == (7, 6)


# --- requests besides the needed ones ---------------------------------------------------------------------------------


def test_a_gate_is_calm_unless_one_waits() -> None:
    gate = make(concurrent_streams=1)
    assert gate.is_calm()
    _, queued = clients(gate, 2)
    assert not gate.is_calm()
    queued.leave()
    assert gate.is_calm()


def test_a_gate_is_calm_unless_a_key_is_held() -> None:
    clock = VirtualClock()
    gate = make(clock)
    of_key(gate, A).enter()
    gate.hold(5, B)
    assert not gate.is_calm()
    clock.move_to(clock.monotonic() + 5)
    assert gate.is_calm()


def test_a_gate_is_calm_unless_its_circuit_is_open() -> None:
    gate = make(failures=1)
    a, b = clients(gate, 2)
    a.leave(DOWN)
    assert not gate.is_calm()
    b.leave(None)  # went in before
    assert not gate.is_calm()


def test_a_gate_is_calm_again_with_the_first_answer_after_a_429() -> None:
    gate = make()
    a, b = clients(gate, 2)
    a.leave(RateLimited(429, "m", retryable=True))
    assert not gate.is_calm()
    gate.answered(b.ticket)
    assert gate.is_calm()


def test_each_gate_measures_its_own_endpoint() -> None:
    assert make().hedging is not make().hedging
