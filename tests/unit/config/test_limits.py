"""The options of limits, breaker and budget: what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.config.settings import ProviderOptions
from penstock.errors import OptionError

LIMITS: list[tuple[str, float, float, float]] = [
    ("requests_per_minute", 1, 10**9, 0),
    ("tokens_per_minute", 1, 10**12, 0),
    ("concurrent_streams", 1, 10**6, 0),
    ("max_queue", 0, 10**7, -1),
    ("queue_timeout", 0, 86_400, -0.1),
]
RANGES: list[tuple[Any, str, float, float, float]] = [
    *((LimitOptions, *row) for row in LIMITS),
    *((ProviderOptions, *row) for row in LIMITS),
    (BreakerOptions, "failures", 1, 10**6, 0),
    (BreakerOptions, "cooldown", 0.001, 86_400, 0),
    (RetryBudgetOptions, "ratio", 0, 100, -0.1),
    (RetryBudgetOptions, "floor", 0, 10**6, -1),
    (RetryBudgetOptions, "window", 0.1, 86_400, 0.09),
]


@pytest.mark.parametrize(("kind", "field", "low", "high", "below"), RANGES)
def test_both_ends_of_every_range_are_allowed_and_one_beyond_is_refused(
    kind: Any, field: str, low: float, high: float, below: float
) -> None:
    for good in (low, high):
        assert getattr(kind(**{field: good}), field) == good
    for bad in (below, high + 1, float("nan"), True, "1"):
        with pytest.raises(OptionError, match=f"^{field}: got "):
            kind(**{field: bad})


@pytest.mark.parametrize("kind", [LimitOptions, BreakerOptions, RetryBudgetOptions])
def test_what_must_be_a_number_is_not_none(kind: Any) -> None:
    optional = {"requests_per_minute", "tokens_per_minute", "concurrent_streams", "ratio"}
    for field in kind.__dataclass_fields__:
        if field in optional:
            assert getattr(kind(**{field: None}), field) is None
        else:
            with pytest.raises(OptionError, match=f"^{field}: got None"):
                kind(**{field: None})


def test_a_switch_is_true_or_false() -> None:
    assert BreakerOptions(enabled=False).enabled is False
    with pytest.raises(OptionError, match=r"^enabled: got 1, allowed: True \| False"):
        BreakerOptions(enabled=1)  # type: ignore[arg-type]


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(OptionError) as caught:
        BreakerOptions(limit=3)  # type: ignore[call-arg]
    assert str(caught.value) == "limit: no such option of BreakerOptions; there are failures, span, cooldown, enabled"
