"""How the headers with the rest of a rate limit are read."""

from __future__ import annotations

import time

import pytest

from penstock.adapters.providers.shared.rate_limits import parse_quota, parse_seconds
from penstock.ports import Quota


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m", 3720.0),
        ("2m59.56s", 179.56),
        ("1d", 86_400.0),
        ("350\u00b5s", 0.00035),
        ("350\u00c2\u00b5s", 0.00035),
        ("60", 60.0),
        (" 0.5 ", 0.5),
        ("-1", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("1s ago", None),
        ("1x", None),
        ("nan", None),
        ("inf", None),
        ("1" * 400 + "s", None),
    ],
)
def test_durations_are_read_as_go_writes_them_and_as_plain_seconds(text: str | None, seconds: float | None) -> None:
    assert parse_seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_what_is_left_and_when_it_is_full_again() -> None:
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-remaining-tokens": "159.0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert parse_quota(headers) == Quota(
        requests_left=4999, requests_reset_s=0.012, tokens_left=159, tokens_reset_s=360.0
    )


def test_other_names_are_read_too() -> None:
    assert parse_quota({"ratelimit-remaining": "3", "ratelimit-reset": "7"}) == Quota(
        requests_left=3, requests_reset_s=7
    )
    assert parse_quota({"x-ratelimit-remaining-tokens-minute": "8"}) == Quota(tokens_left=8)


def test_a_reset_that_is_a_time_is_turned_into_seconds_by_the_servers_clock() -> None:
    date = {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    for at in ("1767225610", "1767225610000"):
        assert parse_quota({**date, "x-ratelimit-reset": at}) == Quota(requests_reset_s=10.0)
    told = parse_quota({"x-ratelimit-reset": str(int(time.time()) - 100)})
    assert told == Quota(requests_reset_s=0.0)


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "1.5"])
def test_what_cannot_be_read_is_not_told(value: str) -> None:
    assert parse_quota({"x-ratelimit-remaining-requests": value}) is None
    assert parse_quota({}) is None
