"""What a key may use in a minute."""

from __future__ import annotations

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
