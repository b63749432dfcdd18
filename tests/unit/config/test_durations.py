from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.durations import parse_duration, parse_optional_duration, parse_rate
from penstock.errors import OptionError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("1ms", 0.001),
        ("2s", 2.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
        ("30d", 2_592_000.0),
        ("0", 0.0),
        ("0.25", 0.25),
        (".5s", 0.5),
        ("2.", 2.0),
        (" 2 s ", 2.0),
    ],
)
def test_a_duration_is_read_in_its_unit_and_a_bare_number_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "s", "fast", "-1s", "1 2s", "1e3", "1e999", "nan", "inf", "infinity", "1min", "2S", "1h30m", "١s"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_duration(text, field="flush_interval")
    assert caught.value.field == "flush_interval"
    assert caught.value.got == text
    assert "100ms, 2s, 1.5m, 1h" in str(caught.value)


def test_a_number_nobody_would_write_is_refused() -> None:
    with pytest.raises(OptionError):
        parse_duration("9" * 1_000_000)
    with pytest.raises(OptionError):
        parse_rate("9" * 1_000_000)


@pytest.mark.parametrize("text", ["none", "None", "unlimited", " UNLIMITED "])
def test_none_and_unlimited_are_none_where_that_is_allowed(text: str) -> None:
    assert parse_optional_duration(text) is None
    assert parse_rate(text) is None
    with pytest.raises(OptionError):
        parse_duration(text)


def test_the_refusal_of_an_optional_duration_says_that_none_is_allowed() -> None:
    with pytest.raises(OptionError, match="or none"):
        parse_optional_duration("never")


@pytest.mark.parametrize(("text", "rate"), [("20", 20.0), ("0.5", 0.5), ("1e9", 1e9), (" 3 ", 3.0)])
def test_a_rate_is_a_number_of_tokens_a_second(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1", "20/s", "nan", "inf", "1e999"])
def test_a_rate_that_is_none_is_refused_with_examples(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_rate(text)
    assert (caught.value.field, caught.value.got) == ("rate_limit", text)
    assert "unlimited" in str(caught.value)


@given(st.integers(0, 10**9))
def test_whole_milliseconds_are_the_nearest_float(milliseconds: int) -> None:
    assert parse_duration(f"{milliseconds}ms") == milliseconds / 1000


@given(st.text())
def test_any_text_is_a_duration_or_an_option_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert parse_duration(text) >= 0
