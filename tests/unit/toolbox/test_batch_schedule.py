"""Which prompt of a batch is asked next, when, and what stops all of them; by direct calls."""

from __future__ import annotations

import random
from typing import Any

import pytest

from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CircuitOpen,
    IncompleteStream,
    PenstockError,
    ProviderBusy,
    RateLimited,
    StreamCrashed,
)
from penstock.events import Cost, StreamCompleted, StreamFailed, Usage
from penstock.ports.batch import BatchPrompt
from penstock.toolbox.batch.schedule import BatchJob, Schedule, stops_all


def schedule_of(prompts: int, concurrency: int = 2, retries: int = 2, **more: Any) -> Schedule:
    schedule = Schedule(concurrency, retries, chance=random.Random(1), total=prompts, **more)
    for place in range(1, prompts + 1):
        schedule.add(BatchJob(BatchPrompt(input="x"), place))
    return schedule


def answer(**more: Any) -> StreamCompleted:
    return StreamCompleted(stream_id="s", seq=1, text="yes", **more)


def failure(error: PenstockError, **more: Any) -> StreamFailed:
    return StreamFailed(stream_id="s", seq=1, error=error, **more)


def places(schedule: Schedule, now: float = 0.0) -> list[int]:
    taken = []
    while (job := schedule.take(now)) is not None:
        taken.append(job.place)
    return taken


def take(schedule: Schedule, now: float = 0.0) -> BatchJob:
    job = schedule.take(now)
    assert job is not None
    return job


def test_so_many_run_at_once_in_order() -> None:
    schedule = schedule_of(5)
    first, second = take(schedule), take(schedule)
    assert (first.place, second.place) == (1, 2)
    assert schedule.take(0.0) is None
    assert schedule.wake_at() is None
    assert schedule.ended(second, answer(), 1.0) == "result"
    assert places(schedule, 1.0) == [3]


def test_a_429_pauses_all_starts_for_as_long_as_the_provider_asks() -> None:
    schedule = schedule_of(5)
    first, second = take(schedule), take(schedule)
    assert schedule.ended(first, failure(RateLimited(429, "slow", retryable=True, retry_after=7.0)), 1.0) == "again"
    assert schedule.ended(second, answer(), 2.0) == "result"
    assert schedule.take(7.9) is None
    assert schedule.wake_at() == 8.0
    assert schedule.progress(3.0).paused_s == 5.0
    assert places(schedule, 8.0) == [1, 3], "the one that was refused comes first"


def test_a_429_without_a_time_pauses_for_longer_each_time() -> None:
    schedule = schedule_of(1, concurrency=1, retries=0)
    now, pauses = 0.0, []
    for _ in range(4):
        job = take(schedule, now)
        assert schedule.ended(job, failure(RateLimited(429, "slow", retryable=True)), now) == "again"
        wake = schedule.wake_at()
        assert wake is not None
        pauses.append(wake - now)
        now = wake
    assert all(2 ** (n - 1) <= pause <= 2**n for n, pause in enumerate(pauses)), pauses
    assert schedule.ended(take(schedule, now), answer(), now) == "result"


def test_calls_that_are_refused_during_a_pause_belong_to_it() -> None:
    schedule = schedule_of(20, concurrency=12)
    jobs = [take(schedule) for _ in range(12)]
    for job in jobs:
        assert schedule.ended(job, failure(RateLimited(429, "slow", retryable=True, retry_after=5.0)), 1.0) == "again"
    assert schedule.stopped is None
    assert schedule.wake_at() == 6.0


@pytest.mark.parametrize(
    "error",
    [
        RateLimited(429, "slow", retryable=True, retry_after=1.0),
        ProviderBusy("x", "queue"),
        CircuitOpen("x", 1.0),
    ],
)
def test_ten_pauses_in_a_row_without_an_answer_stop_the_run(error: PenstockError) -> None:
    schedule = schedule_of(2, concurrency=1)
    now, verdicts = 0.0, []
    for _ in range(11):
        verdicts.append(schedule.ended(take(schedule, now), failure(error), now))
        now += 100
    assert verdicts == ["again"] * 10 + ["undone"]
    assert schedule.stopped is error
    assert schedule.is_done


def test_what_may_succeed_later_is_asked_again_a_bounded_number_of_times() -> None:
    schedule = schedule_of(1, retries=2)
    error = IncompleteStream("cut")
    now, delays = 0.0, []
    for _ in range(2):
        assert schedule.ended(take(schedule, now), failure(error, partial="Hal"), now) == "again"
        wake = schedule.wake_at()
        assert wake is not None
        delays.append(wake - now)
        now = wake
    assert [0.5 <= delays[0] <= 1, 1 <= delays[1] <= 2] == [True, True]
    assert schedule.ended(take(schedule, now), failure(error), now) == "result"
    assert schedule.progress(now).failed == 1
    assert schedule.progress(now).retries == 2


def test_another_prompt_is_asked_while_one_waits_for_its_next_attempt() -> None:
    schedule = schedule_of(3, concurrency=1)
    assert schedule.ended(take(schedule), failure(ApiError(503, "down", retryable=True)), 0.0) == "again"
    assert places(schedule) == [2]


def test_what_cannot_succeed_fails_at_once() -> None:
    schedule = schedule_of(2)
    assert schedule.ended(take(schedule), failure(BadRequestError(400, "no")), 0.0) == "result"
    assert schedule.ended(take(schedule), failure(StreamCrashed("s", "boom")), 0.0) == "result"


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (AuthenticationError(401, "key"), True),
        (AuthenticationError(403, "no"), True),
        (BadRequestError(404, "no such model"), True),
        (BadRequestError(400, "no such model", code="model_not_found"), True),
        (RateLimited(429, "quota", code="insufficient_quota", retryable=False), True),
        (ApiError(402, "pay"), True),
        (RateLimited(429, "slow", retryable=True), False),
        (BadRequestError(400, "too long"), False),
        (ApiError(500, "down", retryable=True), False),
        (StreamCrashed("s", "boom"), False),
    ],
)
def test_what_would_fail_for_all_stops_the_run(error: PenstockError, stops: bool) -> None:
    assert stops_all(error) is stops
    schedule = schedule_of(4)
    first, second = take(schedule), take(schedule)
    verdict = schedule.ended(first, failure(error), 0.0)
    assert (verdict == "undone") is stops
    assert (schedule.stopped is error) is stops
    if stops:
        assert schedule.take(0.0) is None
        assert not schedule.is_done, "the second one runs on"
        assert schedule.ended(second, answer(), 0.0) == "result"
        assert schedule.is_done


def test_at_the_most_cost_nothing_is_started() -> None:
    schedule = schedule_of(5, max_cost=1.0)
    first, second = take(schedule), take(schedule)
    schedule.ended(first, answer(cost=Cost(amount=0.6), usage=Usage(input_tokens=2, output_tokens=3)), 1.0)
    assert schedule.stopped is None
    third = take(schedule, 1.0)
    schedule.ended(second, answer(cost=Cost(amount=0.6)), 2.0)
    assert schedule.take(2.0) is None
    assert schedule.ended(third, answer(cost=Cost(amount=0.6)), 3.0) == "result", "those under way are paid for anyway"
    seen = schedule.progress(3.0)
    assert seen.cost is not None
    assert (round(seen.cost.amount, 9), seen.tokens, seen.output_tokens) == (1.8, 5, 3)


def test_a_failed_attempt_costs_only_if_something_came_of_it() -> None:
    schedule = schedule_of(2)
    down = ApiError(503, "down", retryable=True)
    schedule.ended(take(schedule), failure(down, cost=Cost(amount=9)), 0.0)
    assert schedule.progress(0.0).cost is None
    job = take(schedule)
    schedule.ended(job, failure(IncompleteStream("cut"), cost=Cost(amount=2), partial="Half"), 0.0)
    assert job.cost == Cost(amount=2)


def test_more_failures_than_allowed_stop_the_run() -> None:
    schedule = schedule_of(9, max_errors=1)
    for _ in range(2):
        assert schedule.stopped is None
        schedule.ended(take(schedule), failure(BadRequestError(400, "no")), 0.0)
    assert schedule.stopped == "2 prompts have failed, 1 may"


def test_in_order_nothing_runs_ahead_of_the_first_open_prompt() -> None:
    schedule = schedule_of(9, concurrency=3, ordered=True)
    first, second, third = (take(schedule) for _ in range(3))
    schedule.ended(second, answer(), 0.0)
    schedule.ended(third, answer(), 0.0)
    assert schedule.take(0.0) is None
    assert schedule.wake_at() is None
    schedule.ended(first, answer(), 0.0)
    assert places(schedule) == [4, 5, 6]


def test_after_a_stop_a_retryable_failure_counts_as_undone() -> None:
    schedule = schedule_of(2)
    job = take(schedule)
    schedule.stop("interrupted")
    assert schedule.ended(job, failure(ApiError(503, "down", retryable=True)), 0.0) == "undone"
    assert schedule.is_done
    assert schedule.progress(0.0).stopped == "interrupted"


def test_the_time_that_is_left_is_that_of_the_present_rate() -> None:
    schedule = schedule_of(4)
    first, second = take(schedule, 10.0), take(schedule, 10.0)
    schedule.ended(first, answer(usage=Usage(output_tokens=30)), 12.0)
    schedule.ended(second, answer(usage=Usage(output_tokens=30)), 14.0)
    seen = schedule.progress(14.0)
    assert (seen.seconds, seen.eta_s, seen.tokens_per_second, seen.done) == (4.0, 4.0, 15.0, 2)
