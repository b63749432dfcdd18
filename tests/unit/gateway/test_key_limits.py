"""What a key may use in a minute."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.gateway.keys import Key
from penstock.gateway.limits import KeyLimits
from penstock.gateway.problems import RequestRefused


def test_as_many_requests_as_the_key_may_make_in_a_minute_may_come_at_once() -> None:
    limits, key = KeyLimits(), Key(id="k", requests_per_minute=30)
    for _ in range(30):
        limits.admit(key, 0.0)
    with pytest.raises(RequestRefused) as refused:
        limits.admit(key, 0.0)
    assert refused.value.problem.retry_after == pytest.approx(2.0)
    limits.admit(key, 2.0)


def test_tokens_over_the_limit_delay_the_next_request() -> None:
    limits, key = KeyLimits(), Key(id="k", tokens_per_minute=600)
    limits.admit(key, 0.0)
    limits.used(key, 600, 0.0)
    with pytest.raises(RequestRefused):
        limits.admit(key, 0.0)
    limits.admit(key, 0.1)


def waits(limits: KeyLimits, key: Key, now: float) -> float | None:
    """Seconds that a request is refused for; None: it is not."""
    try:
        limits.admit(key, now)
    except RequestRefused as refused:
        return refused.problem.retry_after
    return None


@pytest.mark.parametrize(
    ("field", "before", "after", "used", "wait"),
    [
        ("requests_per_minute", 2, 20, 2, None),
        ("requests_per_minute", 20, 2, 20, 30.0),
        ("requests_per_minute", 20, 2, 10, None),
        ("tokens_per_minute", 60, 6_000, 1_000, None),
        ("tokens_per_minute", 60, 600, 1_000, 40.1),
        ("tokens_per_minute", 600, 60, 1_200, 61.0),
        ("tokens_per_minute", 600, None, 1_200, None),
    ],
)
def test_a_limit_that_is_changed_counts_from_the_next_request_on(
    field: str, before: int, after: int | None, used: int, wait: float | None
) -> None:
    limit: Any = {field: before}
    key = Key(id="k", **limit)
    changed = msgspec.structs.replace(key, **{field: after})
    limits = KeyLimits()
    if field == "tokens_per_minute":
        limits.used(key, used, 0.0)
    else:
        for _ in range(used):
            limits.admit(key, 0.0)
    assert waits(limits, changed, 0.0) == (None if wait is None else pytest.approx(wait))


def test_a_key_from_before_a_change_has_the_limits_of_now() -> None:
    key = Key(id="k")
    now = [key]
    limits = KeyLimits(lambda _: now[0])
    limits.admit_stream(key, lambda: 5)
    now[0] = Key(id="k", requests_per_minute=1, tokens_per_minute=1, streams=5)
    with pytest.raises(RequestRefused):
        limits.admit_stream(key, lambda: 5)
    limits.admit(key, 0.0)
    assert waits(limits, key, 0.0) == pytest.approx(60.0)
    limits.used(key, 121, 60.0)
    assert waits(limits, key, 60.0) == pytest.approx(121 / 1 * 60)
