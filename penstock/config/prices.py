"""What a model's answer costs, by a price table: the built-in one (``prices.toml`` in this directory) or your own.

The built-in prices are list prices, good for estimates. The file says when and where they were collected.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Final

from penstock.config.checks import check_choice, check_number, near_miss, type_of, unknown
from penstock.config.long_numbers import read_without_long_numbers
from penstock.errors import OptionError
from penstock.events import Cost, Usage

__all__ = ["Price", "PriceTable", "Rates"]

_BUILT_IN: Final = "prices.toml"
_SIDES: Final = ("inside", "outside")
_TABLE: Final = ("names", "as_of", "source", "cached", "reasoning", "fees", "models")
_OPTIONAL: Final = ("cache_write_1h", "tool_input", "audio_input", "image_input", "audio_output", "image_output")
_RATES: Final = ("input", "cached_input", "cache_write", "output", *_OPTIONAL)
_HIGHEST: Final = 1e6  # per million tokens, or per thousand requests
_HIGHEST_FACTOR: Final = 100
_ORDINARY_TIERS: Final = frozenset({"", "default", "standard", "on_demand"})

# What may follow a family's name: -2025-04-14, -20250929, @20250929, -0613, -001, -latest, -preview, -preview-09-2025
_VERSION: Final = re.compile(
    r"(-(preview|exp))?(-latest|-v?\d{3,4}|[-@]20\d{2}-?\d{2}-?\d{2}|-\d{2}-(\d{2}|20\d{2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices per million tokens. None: not known; the price of other input or output applies, as an estimate."""

    input: float
    cached_input: float
    cache_write: float
    output: float
    cache_write_1h: float | None = None
    tool_input: float | None = None
    audio_input: float | None = None
    image_input: float | None = None
    audio_output: float | None = None
    image_output: float | None = None


class _Sum:
    """The sum of what parts of a usage cost; ``is_estimate``: a part had no price of its own."""

    __slots__ = ("amount", "is_estimate")

    def __init__(self, is_estimate: bool) -> None:
        self.amount = 0.0
        self.is_estimate = is_estimate

    def add(self, count: int, rate: float | None, otherwise: float) -> None:
        if rate is None:
            self.is_estimate = self.is_estimate or count > 0
            rate = otherwise
        self.amount += count * rate

    def add_parts(self, whole: int, rate: float, *parts: tuple[int | None, float | None]) -> None:
        """Add ``whole`` tokens, of which ``parts`` have rates of their own; the rest has ``rate``."""
        for count, own in parts:
            count = min(count or 0, whole)
            whole -= count
            self.add(count, own, rate)
        self.add(whole, rate, rate)


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs, and how its provider counts tokens.

    Attributes:
        rates: for a prompt of ordinary length.
        above: the longest prompt, in tokens, that ``rates`` apply to, and the rates for a longer one.
        is_cached_inside: the input token count includes input read from the cache.
        is_reasoning_inside: the output token count includes reasoning.
        currency: of the rates.
        tiers: by service tier other than the ordinary one, the factor by which all rates are multiplied.
        fees: by name of the provider's own tool, the price of a thousand requests.
    """

    rates: Rates
    above: tuple[int, Rates] | None = None
    is_cached_inside: bool = True
    is_reasoning_inside: bool = True
    currency: str = "USD"
    tiers: Mapping[str, float] = field(default_factory=dict)
    fees: Mapping[str, float] = field(default_factory=dict)

    def cost(self, usage: Usage, is_estimate: bool) -> Cost:
        """Compute what ``usage`` costs. Counts that are not reported cost nothing.

        The cost is an estimate if ``is_estimate`` is true, or if something in the usage has no price of its own: a kind
        of tokens (the price of other input or output is used), a service tier (the ordinary prices are used), or a tool
        of the provider (no fee is added).

        >>> Price(Rates(2.0, 0.5, 2.0, 8.0)).cost(Usage(input_tokens=1000, cached_tokens=200, output_tokens=100), False)
        Cost(amount=0.0025, currency='USD', is_estimate=False, reported=None, source='prices')
        """
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens
        if written is None:
            written = usage.cache_write_1h_tokens or 0
        fresh = usage.input_tokens or 0
        if self.is_cached_inside:
            fresh = max(0, fresh - cached - written)
        output = usage.output_tokens or 0
        reasoning = 0 if self.is_reasoning_inside else usage.reasoning_tokens or 0
        rates = self.rates
        if self.above is not None and fresh + cached + written > self.above[0]:
            rates = self.above[1]
        sound, image = usage.audio_input_tokens, usage.image_input_tokens
        total = _Sum(is_estimate or bool(cached and (sound or image)))  # not known which of them were in the cache
        total.add_parts(fresh, rates.input, (sound, rates.audio_input), (image, rates.image_input))
        total.add(cached, rates.cached_input, rates.cached_input)
        total.add_parts(written, rates.cache_write, (usage.cache_write_1h_tokens, rates.cache_write_1h))
        total.add(usage.tool_input_tokens or 0, rates.tool_input, rates.input)
        audio_output, image_output = usage.audio_output_tokens, usage.image_output_tokens
        total.add_parts(output, rates.output, (audio_output, rates.audio_output), (image_output, rates.image_output))
        total.add(reasoning, rates.output, rates.output)
        tier = (usage.service_tier or "").lower()
        if tier not in _ORDINARY_TIERS:
            total.is_estimate = total.is_estimate or tier not in self.tiers
            total.amount *= self.tiers.get(tier, 1)
        total.amount /= 1e6
        for name, count in (usage.server_tool_requests or {}).items():
            fee = self.fees.get(name)
            total.add(count, None if fee is None else fee / 1000, 0)
        return Cost(
            amount=round(total.amount, 12),
            currency=self.currency,
            is_estimate=total.is_estimate,
            reported=usage.reported_cost,
        )


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by provider and model."""

    _models: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)  # by provider, then by model or pattern

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> PriceTable:
        """Read a price table; None reads the built-in one.

        Raises:
            OptionError: the file cannot be read, or an entry is not allowed. The error names the file and the entry.
        """
        if path is None:
            text, shown = resources.files("penstock.config").joinpath(_BUILT_IN).read_text("utf-8"), _BUILT_IN
        else:
            text, shown = _read(Path(path).expanduser()), str(path)
        try:
            tree = _loads(text, shown)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise OptionError(
                "prices", shown, "a TOML file", problem=f"the file is not valid TOML: {error}", source=shown
            ) from None
        try:
            return cls(_parse_table(tree))
        except OptionError as error:
            raise OptionError(
                f"prices: {error.field}", error.got, error.allowed, problem=error.problem, source=shown
            ) from None

    def find(self, provider: str, model: str) -> Price | None:
        """Look up the price of a model by the provider's name for it. Returns None if it is not known.

        >>> table = PriceTable.load()
        >>> table.find("openai", "gpt-4.1-mini-2025-04-14") == table.find("openai", "gpt-4.1-mini")
        True
        """
        models = self._models.get(provider)
        if not models:
            return None
        name = model.removeprefix("models/").lower()
        if name in models:
            return models[name]
        # A family is the name without a version at its end. The longest known family wins, then the longest pattern.
        families = [name[:end] for end in range(len(name), 0, -1) if _VERSION.fullmatch(name, end)]
        for family in families:
            if family in models:
                return models[family]
        fitting = [pattern for pattern in models for family in families if fnmatchcase(family, pattern)]
        return models[max(fitting, key=len)] if fitting else None


def _loads(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # a number that Python refuses to convert
        _, (error, *others) = read_without_long_numbers(text, shown, "prices: ")
    raise error.joined(others)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"cannot read {path}: it is not encoded in UTF-8"
    raise OptionError("prices", str(path), "a TOML file in UTF-8", problem=problem)


# --- from the file to prices -----------------------------------------------------------------------------------------


def _parse_table(tree: dict[str, Any]) -> dict[str, dict[str, Price]]:
    currency = tree.pop("currency", "USD")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise OptionError("currency", currency, "three capital letters, such as USD")
    found: dict[str, dict[str, Price]] = {}
    for section, table in tree.items():
        _check_table(section, table, _TABLE, needed=("models",))
        names = table.get("names", [section])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise OptionError(f"{section}.names", names, "a list of provider names")
        for side in ("cached", "reasoning"):
            check_choice(f"{section}.{side}", table.get(side, "inside"), _SIDES)
        fees = _parse_numbers(f"{section}.fees", table.get("fees", {}), _HIGHEST)
        models = table["models"]
        _check_table(f"{section}.models", models)
        prices = {
            model.lower(): _parse_price(f"{section}.models.{model}", entry, table, currency, fees)
            for model, entry in models.items()
        }
        for name in names:
            found[name] = found.get(name, {}) | prices
    return found


def _parse_price(where: str, entry: Any, table: Mapping[str, Any], currency: str, fees: Mapping[str, float]) -> Price:
    _check_table(where, entry, (*_RATES, "above", "tiers"), needed=("input", "output"))
    above = entry.get("above")
    if above is not None:
        _check_table(f"{where}.above", above, (*_RATES, "tokens"), needed=("tokens", "input", "output"))
        check_number(f"{where}.above.tokens", above["tokens"], 1, 1e9, whole=True)
    return Price(
        rates=_parse_rates(where, entry),
        above=None if above is None else (above["tokens"], _parse_rates(f"{where}.above", above)),
        is_cached_inside=table.get("cached", "inside") == "inside",
        is_reasoning_inside=table.get("reasoning", "inside") == "inside",
        currency=currency,
        tiers=_parse_numbers(f"{where}.tiers", entry.get("tiers", {}), _HIGHEST_FACTOR),
        fees=fees,
    )


def _parse_numbers(where: str, table: Any, highest: float) -> dict[str, float]:
    _check_table(where, table)
    for name, number in table.items():
        check_number(f"{where}.{name}", number, 0, highest)
    return {name.lower(): number for name, number in table.items()}


def _parse_rates(where: str, entry: Mapping[str, Any]) -> Rates:
    for name in _RATES:
        check_number(f"{where}.{name}", entry.get(name, 0), 0, _HIGHEST)
    as_input = entry["input"]
    return Rates(
        input=as_input,
        cached_input=entry.get("cached_input", as_input),
        cache_write=entry.get("cache_write", as_input),
        output=entry["output"],
        **{name: entry.get(name) for name in _OPTIONAL},
    )


def _check_table(where: str, table: Any, known: tuple[str, ...] = (), *, needed: tuple[str, ...] = ()) -> None:
    if not isinstance(table, dict):
        raise OptionError(where, type_of(table), "a table")
    for name in table:
        if known and name not in known:
            raise unknown(f"{where}.{name}", "entry", known, meant=near_miss(name, known))
    for name in needed:
        if name not in table:
            raise OptionError(f"{where}.{name}", None, "a value", problem="the entry is missing")
