"""Prices: how a model is looked up, how a cost is computed, and how a broken file is refused."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from penstock.config.prices import Price, PriceTable, Rates
from penstock.errors import OptionError
from penstock.events import Usage

OURS = PriceTable.load()
MILLION = 1_000_000


def own(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    return path


def amount(provider: str, model: str, **counts: Any) -> float:
    price = OURS.find(provider, model)
    assert price is not None
    return price.cost(Usage(**counts), False).amount


# --- which price -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "family"),
    [
        ("openai", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("openai", "gpt-4.1-nano-2025-04-14", "gpt-4.1-nano"),
        ("openai-responses", "o4-mini-2025-04-16", "o4-mini"),
        ("openai", "gpt-5-chat-latest", "gpt-5-chat"),
        ("openai", "GPT-5-Mini", "gpt-5-mini"),
        ("openai", "gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-20250514", "claude-opus-4"),
        ("anthropic", "claude-opus-4-1-20250805", "claude-opus-4-1"),
        ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-flash-lite-preview-06-17", "gemini-2.5-flash-lite"),
        ("gemini", "gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gemini", "gemini-3-pro-preview", "gemini-3-pro"),
        ("gemini", "models/gemini-2.0-flash-001", "gemini-2.0-flash"),
    ],
)
def test_a_version_has_its_familys_price(provider: str, model: str, family: str) -> None:
    price = OURS.find(provider, model)
    assert price is not None
    assert price is OURS.find(provider, family)


def test_models_whose_names_begin_alike_keep_apart() -> None:
    names = ("gpt-5", "gpt-5-mini", "gpt-5-pro", "gpt-5.2", "gpt-4.1", "gpt-4.1-mini", "o3", "o3-mini", "o3-pro")
    assert len({id(OURS.find("openai", name)) for name in names}) == len(names)
    assert amount("openai", "gpt-4o-2024-05-13", input_tokens=MILLION) == 5.0
    assert amount("openai", "gpt-4o-2024-11-20", input_tokens=MILLION) == 2.5
    assert amount("anthropic", "claude-opus-4-5-20251101", input_tokens=MILLION) == 5.0
    assert amount("anthropic", "claude-opus-4-1-20250805", input_tokens=MILLION) == 15.0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-9"),
        ("openai", "gpt-5.9"),
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-4.1-mini-of-mine"),
        ("openai", ""),
        ("openai", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-flash-image"),
        ("ollama", "qwen3"),
        ("nobody", "gpt-4.1"),
    ],
)
def test_what_is_not_in_the_table_has_no_price(provider: str, model: str) -> None:
    assert OURS.find(provider, model) is None


def test_of_several_patterns_that_fit_the_longest_is_taken(tmp_path: Path) -> None:
    path = own(
        "[mine.models]\n"
        '"*" = {input = 1, output = 1}\n"gpt-*" = {input = 2, output = 2}\n'
        '"gpt-[45]*" = {input = 3, output = 3}\n"gpt-5" = {input = 4, output = 4}\n',
        tmp_path,
    )
    table = PriceTable.load(path)
    found = [table.find("mine", model) for model in ("llama", "gpt-9", "gpt-4.1", "gpt-5", "gpt-5-2025-08-07")]
    assert [one and one.rates.input for one in found] == [1, 2, 3, 4, 4]


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_openai_counts_cached_input_and_reasoning_inside() -> None:
    counts = {"input_tokens": MILLION, "cached_tokens": MILLION // 2, "output_tokens": 100_000, "reasoning_tokens": 9}
    assert amount("openai", "gpt-4.1-mini", **counts) == pytest.approx(0.2 + 0.05 + 0.16)


def test_anthropic_counts_what_went_through_its_cache_outside() -> None:
    counts = {"input_tokens": 10_000, "cached_tokens": 100_000, "cache_write_tokens": 20_000, "output_tokens": 10_000}
    assert amount("anthropic", "claude-haiku-4-5", **counts) == pytest.approx(0.01 + 0.01 + 0.025 + 0.05)


def test_gemini_counts_cached_input_inside_and_thoughts_outside() -> None:
    counts = {"input_tokens": 100_000, "cached_tokens": 50_000, "output_tokens": 10_000, "reasoning_tokens": 30_000}
    assert amount("gemini", "gemini-2.5-flash", **counts) == pytest.approx(0.015 + 0.0015 + 0.1)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"input_tokens": 200_000, "output_tokens": 1000}, 0.25 + 0.01),
        ({"input_tokens": 200_001, "output_tokens": 1000}, 0.5000025 + 0.015),
        ({"input_tokens": 200_001, "cached_tokens": 200_001}, 0.05000025),
    ],
)
def test_a_long_prompt_has_prices_of_its_own(counts: dict[str, int], expected: float) -> None:
    assert amount("gemini", "gemini-2.5-pro", **counts) == pytest.approx(expected)


def test_a_prompt_is_long_with_what_was_in_the_cache() -> None:
    counts = {"input_tokens": 1, "cached_tokens": 150_000, "cache_write_tokens": 50_000}
    assert amount("anthropic", "claude-sonnet-4-5", **counts) == pytest.approx(6e-6 + 0.09 + 0.375)


def test_what_is_not_told_costs_nothing_and_no_count_makes_a_cost_negative() -> None:
    price = Price(Rates(1, 1, 1, 1))
    assert price.cost(Usage(), False).amount == 0
    assert price.cost(Usage(input_tokens=5, cached_tokens=10), False).amount == pytest.approx(10e-6)


def test_a_cost_says_its_currency_and_whether_it_is_an_estimate(tmp_path: Path) -> None:
    path = own('currency = "EUR"\n[mine.models]\nm = {input = 1, output = 2}', tmp_path)
    price = PriceTable.load(path).find("mine", "m")
    assert price is not None
    cost = price.cost(Usage(output_tokens=MILLION), is_estimate=True)
    assert (cost.amount, cost.currency, cost.is_estimate) == (2.0, "EUR", True)


# --- files -----------------------------------------------------------------------------------------------------------


def test_our_table_says_of_every_provider_from_when_and_where_its_prices_are() -> None:
    tree = tomllib.loads(resources.files("penstock.config").joinpath("prices.toml").read_text("utf-8"))
    assert tree.pop("currency") == "USD"
    assert set(tree) == {"openai", "anthropic", "gemini"}
    for table in tree.values():
        assert table["as_of"].startswith("20")
        assert table["source"].startswith("https://")


def test_in_our_table_output_is_dearer_than_input_and_the_cache_cheaper() -> None:
    for models in OURS._models.values():
        for price in models.values():
            for rates in (price.rates, *(price.above[1:] if price.above else ())):
                assert isinstance(rates, Rates)
                assert 0 < rates.cached_input <= rates.input <= rates.cache_write <= rates.output


def test_a_file_of_ones_own_takes_the_place_of_ours(tmp_path: Path) -> None:
    table = PriceTable.load(own('[x]\nnames = ["openai", "azure"]\n[x.models]\nm = {input = 1, output = 2}', tmp_path))
    assert table.find("openai", "gpt-4.1") is None
    assert table.find("openai", "m") == table.find("azure", "m") == Price(Rates(1, 1, 1, 2))
    assert table.find("x", "m") is None


def test_the_documented_table_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text("utf-8")
    example = next(block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[openai.models]" in block)
    table = PriceTable.load(own(example, tmp_path))
    assert table.find("openai-responses", "gpt-4.1-mini-2025-04-14") == Price(Rates(0.4, 0.1, 0.4, 1.6))
    assert table.find("openai", "gpt-4.1-nano") == Price(Rates(2.0, 0.5, 2.0, 8.0))
    long = table.find("openai", "gpt-5.4")
    assert long is not None
    assert long.above == (272_000, Rates(5.0, 5.0, 5.0, 22.5))


def test_an_empty_file_knows_no_price(tmp_path: Path) -> None:
    assert PriceTable.load(own("", tmp_path)).find("openai", "gpt-4.1") is None


@pytest.mark.parametrize(
    ("text", "field", "shown"),
    [
        ("[x", "prices", "prices: the file is not valid TOML: "),
        ("x = 1", "prices: x", "got a value of type int, allowed: a table"),
        ("[x]", "prices: x.models", "x.models: the entry is missing"),
        ("[x]\nmodel = 1\n[x.models]", "prices: x.model", "x.model: no such entry; did you mean models?"),
        ("[x]\nmodels = 3", "prices: x.models", "got a value of type int, allowed: a table"),
        ("[x]\nnames = 'x'\n[x.models]", "prices: x.names", "got 'x', allowed: a list of provider names"),
        ("[x]\ncached = 'both'\n[x.models]", "prices: x.cached", "got 'both', allowed: 'inside' | 'outside'"),
        ("[x.models]\nm = 3", "prices: x.models.m", "got a value of type int, allowed: a table"),
        ("[x.models]\nm = {input = 1}", "prices: x.models.m.output", "m.output: the entry is missing"),
        (
            "[x.models]\nm = {input = 1, ouput = 1}",
            "prices: x.models.m.ouput",
            "m.ouput: no such entry; did you mean output?",
        ),
        ("[x.models]\nm = {input = -1, output = 1}", "prices: x.models.m.input", "got -1, allowed: a number from 0 to"),
        ("[x.models]\nm = {input = '1', output = 1}", "prices: x.models.m.input", "got '1', allowed: a number"),
        ("[x.models]\nm = {input = nan, output = 1}", "prices: x.models.m.input", "got nan"),
        (
            "[x.models]\nm = {input = 1, output = 1, above = {input = 1, output = 1}}",
            "prices: x.models.m.above.tokens",
            "above.tokens: the entry is missing",
        ),
        (
            "[x.models]\nm = {input = 1, output = 1, above = {tokens = 0, input = 1, output = 1}}",
            "prices: x.models.m.above.tokens",
            "got 0, allowed: a whole number from 1",
        ),
        ("currency = 'dollars'", "prices: currency", "got 'dollars', allowed: three capital letters"),
    ],
)
def test_a_broken_file_is_named_with_its_entry_and_what_is_allowed(
    text: str, field: str, shown: str, tmp_path: Path
) -> None:
    path = own(text, tmp_path)
    with pytest.raises(OptionError) as caught:
        PriceTable.load(path)
    assert caught.value.field == field
    assert shown in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "shown"), [("nowhere.toml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(name: str, shown: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=shown) as caught:
        PriceTable.load(tmp_path / name)
    assert (caught.value.field, caught.value.got) == ("prices", str(tmp_path / name))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(OptionError, match="UTF-8"):
        PriceTable.load(path)


def test_the_same_table_is_found_whatever_the_type_of_the_path(tmp_path: Path) -> None:
    path: Any = own("[x.models]\nm = {input = 1, output = 2}", tmp_path)
    assert PriceTable.load(str(path)) == PriceTable.load(path)
