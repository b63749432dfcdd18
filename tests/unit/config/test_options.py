from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from penstock.config import presets
from penstock.config.agents import AgentOptions
from penstock.config.checks import Options, check_choice, check_number, check_on_orphan
from penstock.config.cluster import ClusterOptions
from penstock.config.dashboard import DashboardOptions
from penstock.config.gateway import GatewayOptions
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.settings import DefaultProviderOptions, LogOptions, ProviderOptions, RuntimeOptions
from penstock.config.store import StoreOptions
from penstock.config.telemetry import TelemetryOptions
from penstock.errors import OptionError

# field, lowest, highest, one below, one above, as the message writes the range
STREAM_RANGES: list[tuple[str, float, float, float, float, str]] = [
    ("max_buffer_size", 10, 10_000_000, 0, 10_000_001, "1 to 10000000"),
    ("batch_size", 1, 1000, 0, 10_000_001, "1 to 10000000"),
    ("flush_interval", 0.001, 3600, 0.0009, 3600.1, "0.001 to 3600"),
    ("rate_limit", 0.001, 1e9, 0, 1e9 + 1, "0.001 to 1000000000"),
    ("push_timeout", 0, 86_400, -0.1, 86_400.1, "0 to 86400"),
    ("max_errors", 1, 1_000_000, 0, 1_000_001, "1 to 1000000"),
    ("error_recovery_delay", 0, 3600, -0.1, 3600.1, "0 to 3600"),
    ("retain_bytes", 0, 2**40, -1, 2**40 + 1, "0 to 1099511627776"),
    ("time_to_live", 0, 2_592_000, -1, 2_592_000.5, "0 to 2592000"),
    ("keep_finished", 0, 2_592_000, -1, 2_592_000.5, "0 to 2592000"),
]
REQUEST_RANGES: list[tuple[str, float, float, float, float, str]] = [
    ("connect_timeout", 0.001, 3600, 0, 3600.1, "0.001 to 3600"),
    ("first_token_timeout", 0.001, 86_400, 0, 86_401, "0.001 to 86400"),
    ("idle_timeout", 0.001, 86_400, 0, 86_401, "0.001 to 86400"),
    ("reasoning_timeout", 0.001, 86_400, 0, 86_401, "0.001 to 86400"),
    ("total_timeout", 0.001, 2_592_000, 0, 2_592_001, "0.001 to 2592000"),
    ("max_retries", 0, 100, -1, 101, "0 to 100"),
    ("retry_base_delay", 0, 3600, -1, 3601, "0 to 3600"),
    ("retry_max_delay", 0, 3600, -1, 3601, "0 to 3600"),
    ("retry_after_limit", 0, 86_400, -1, 86_401, "0 to 86400"),
    ("finish_grace", 0, 60, -0.1, 60.1, "0 to 60"),
    ("max_event_bytes", 1_000, 2**30, 999, 2**30 + 1, "1000 to 1073741824"),
    ("max_answer_bytes", 1_000, 2**40, 999, 2**40 + 1, "1000 to 1099511627776"),
]
RANGES = [(StreamOptions, *row) for row in STREAM_RANGES] + [(RequestOptions, *row) for row in REQUEST_RANGES]
WHOLE = {"max_buffer_size", "batch_size", "max_errors", "retain_bytes", "max_retries"}
WHOLE |= {"max_event_bytes", "max_answer_bytes"}
OPTIONAL = {"max_buffer_size", "rate_limit", "push_timeout", "time_to_live", "total_timeout"}

Kind = type[StreamOptions] | type[RequestOptions]


def made(kind: type[Options], **fields: Any) -> Any:
    return kind(**fields)


@pytest.mark.parametrize(("kind", "field", "low", "high", "below", "above", "_range"), RANGES)
def test_both_ends_of_every_range_are_allowed_and_one_beyond_is_refused(
    kind: Kind, field: str, low: float, high: float, below: float, above: float, _range: str
) -> None:
    assert getattr(made(kind, **{field: low}), field) == low
    assert getattr(made(kind, **{field: high}), field) == high
    for beyond in (below, above):
        with pytest.raises(OptionError) as caught:
            made(kind, **{field: beyond})
        assert (caught.value.field, caught.value.got) == (field, beyond)
        assert f"{field}: got {beyond!r}, allowed: a" in str(caught.value)
        assert f"number from {_range}" in str(caught.value)


@pytest.mark.parametrize(("kind", "field"), [row[:2] for row in RANGES])
def test_what_is_no_number_is_refused(kind: Kind, field: str) -> None:
    wrong: list[Any] = [math.nan, math.inf, -math.inf, "1", True, [1]]
    wrong += [1.5] if field in WHOLE else []
    wrong += [] if field in OPTIONAL else [None]
    for value in wrong:
        with pytest.raises(OptionError, match=f"^{field}: got "):
            made(kind, **{field: value})


@pytest.mark.parametrize("field", sorted(OPTIONAL))
def test_none_is_without_limit_where_that_is_allowed(field: str) -> None:
    kind: Kind = RequestOptions if field == "total_timeout" else StreamOptions
    assert getattr(made(kind, **{field: None}), field) is None
    with pytest.raises(OptionError, match="or None"):
        made(kind, **{field: -1})


@pytest.mark.parametrize(
    ("kind", "field", "good", "bad"),
    [
        (StreamOptions, "strategy", ("hybrid", "batch", "time"), ("size", None, 1)),
        (StreamOptions, "overflow", ("block", "drop_oldest", "drop_newest", "error"), ("drop", "")),
        (StreamOptions, "error_recovery", (True, False), (1, 0, "true", None)),
        (StreamOptions, "auto_restart", (True, False), (1, "no")),
        (StreamOptions, "debug", (True, False), (1, "no")),
        (StreamOptions, "tokenizer", (None, str.split), ("words", 1)),
        (RequestOptions, "on_interrupt", ("fail", "restart", "resume"), ("retry", None)),
        (
            RequestOptions,
            "fallback",
            ((), ("gpt-4.1", "anthropic/claude-sonnet-4-5")),
            ("gpt-4.1", None, (1,), ("",), (" ",)),
        ),
        (RequestOptions, "verify_tls", (True, False, "/ca.pem"), (None, 1, "", "  \t")),
    ],
)
def test_a_choice_is_one_of_its_words(kind: Kind, field: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        assert getattr(made(kind, **{field: value}), field) == value
    for value in bad:
        with pytest.raises(OptionError, match=f"^{field}: got .*, allowed: "):
            made(kind, **{field: value})


KINDS: list[type[Options]] = [
    StreamOptions,
    RequestOptions,
    AgentOptions,
    LimitOptions,
    BreakerOptions,
    RetryBudgetOptions,
    GatewayOptions,
    DashboardOptions,
    TelemetryOptions,
    StoreOptions,
    ClusterOptions,
    RuntimeOptions,
    LogOptions,
    ProviderOptions,
    DefaultProviderOptions,
]


def test_every_kind_of_options_is_tested_here() -> None:
    kinds = [Options]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.__name__ for kind in kinds} == {"Options", *(kind.__name__ for kind in KINDS)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_refused_by_name_with_those_there_are(kind: type[Options]) -> None:
    for make in (partial(made, kind), made(kind).replace):
        with pytest.raises(OptionError) as caught:
            make(colour="red")
        names = ", ".join(kind.__dataclass_fields__)
        assert (caught.value.field, caught.value.got, caught.value.allowed) == ("colour", "***", names)
        assert str(caught.value) == f"colour: no such option of {kind.__name__}; there are {names}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_option_is_refused_with_the_name_that_was_meant_and_without_its_value(kind: type[Options]) -> None:
    for name in kind.__dataclass_fields__:
        misspelt = name[:-2] + name[-1] + name[-2]
        with pytest.raises(OptionError) as caught:
            made(kind, **{misspelt: "sk-secret"})
        assert str(caught.value) == f"{misspelt}: no such option of {kind.__name__}; did you mean {name}?"
        assert "sk-secret" not in repr(vars(caught.value))


@pytest.mark.parametrize("kind", KINDS)
def test_all_options_are_immutable_values_without_other_attributes(kind: type[Options]) -> None:
    options = made(kind)
    assert options == made(kind) == options.replace()
    assert hash(options) == hash(made(kind))
    assert not hasattr(options, "__dict__")
    for name in kind.__dataclass_fields__:
        with pytest.raises(AttributeError):
            setattr(options, name, getattr(options, name))


def test_fallbacks_may_be_given_as_a_list_and_are_kept_as_what_cannot_change() -> None:
    assert RequestOptions(fallback=["a", "b"]).fallback == ("a", "b")


def test_a_batch_cannot_be_larger_than_the_buffer() -> None:
    assert StreamOptions(max_buffer_size=10, batch_size=10).batch_size == 10
    with pytest.raises(
        OptionError, match=r"batch_size: got 11, allowed: a whole number from 1 to max_buffer_size \(10\)"
    ):
        StreamOptions(max_buffer_size=10, batch_size=11)


def test_replace_gives_a_validated_copy_and_leaves_the_original() -> None:
    options = StreamOptions()
    assert options.replace(batch_size=3).batch_size == 3
    with pytest.raises(OptionError):
        options.replace(batch_size=0)
    assert options.batch_size == 10


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        StreamOptions().batch_size = 3  # type: ignore[misc]


def test_the_defaults_are_the_documented_ones() -> None:
    options = StreamOptions()
    assert (options.max_buffer_size, options.batch_size, options.flush_interval) == (1000, 10, 0.1)
    assert (options.rate_limit, options.max_errors) == (100, 5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (presets.CHAT, (50, 5, 0.1, 20)),
        (presets.DOCUMENT, (200, 20, 0.3, 100)),
        (presets.REALTIME, (10, 2, 0.05, 30)),
        (presets.CHAT_DEFAULTS, (50, 5, 0.05, None)),
        (presets.RESPONSE_DEFAULTS, (100, 10, 0.1, None)),
    ],
)
def test_the_presets_are_the_documented_ones(options: StreamOptions, expected: tuple[float | None, ...]) -> None:
    assert (options.max_buffer_size, options.batch_size, options.flush_interval, options.rate_limit) == expected


@pytest.mark.parametrize("value", ["cancel", "continue", 0, 1.5, 86_400])
def test_on_orphan_is_a_word_or_seconds(value: object) -> None:
    check_on_orphan(value)


@pytest.mark.parametrize("value", ["stop", -1, 86_401, None, True, math.nan])
def test_on_orphan_refuses_anything_else(value: object) -> None:
    with pytest.raises(OptionError, match="on_orphan"):
        check_on_orphan(value)


def test_limits_are_written_with_all_their_digits() -> None:
    with pytest.raises(OptionError, match=r"x: got 0, allowed: a number from 0\.25 to 10000000$"):
        check_number("x", 0, 0.25, 1e7)


def test_a_choice_does_not_take_a_number_for_a_switch() -> None:
    with pytest.raises(OptionError, match=r"x: got 1, allowed: True \| False"):
        check_choice("x", 1, (True, False))
