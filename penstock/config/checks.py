"""Checks of single values, and the base class of all options.

Every refusal is an `OptionError` that names the field, the value and what is allowed. A value that may hold a key or
token text is replaced by its type or by stars.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias, get_args, get_origin, get_type_hints

from penstock.errors import OptionError

__all__ = [
    "STARS",
    "Between",
    "Masked",
    "Options",
    "Shown",
    "check_choice",
    "check_field",
    "check_metadata",
    "check_models",
    "check_number",
    "check_on_orphan",
    "collected",
    "near_miss",
    "type_of",
    "unknown",
]


class Shown(str):
    """Text that an error message shows without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Masked(Shown):
    """A text of which secrets have been replaced by stars; shown with quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(self))


STARS = Shown("***")
"""Shown in an error message in place of a value that may be a secret."""


def type_of(value: object) -> Shown:
    """Describe a value by its type only, for an error about a value that may hold a secret or token text."""
    return Shown(f"a value of type {type(value).__name__}")


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` was probably meant to be, or None if none is close.

    >>> near_miss("bacth_size", ["batch_size", "max_errors"])
    'batch_size'
    >>> near_miss("rwa", ["raw", "row"])  # too short for a share of equal letters
    'raw'
    """
    names = list(known)
    swapped = (one for one in names if len(one) == len(name) and sorted(one) == sorted(name))
    return next(swapped, None) or next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.75)), None)


def unknown(
    field: str, what: str, known: Iterable[str], *, meant: str | None, source: str | None = None
) -> OptionError:
    """Make the error for a name that does not exist, with the name that was meant or all that there are.

    The value is not shown: it may be a key under a misspelt name.

    >>> str(unknown("bacth_size", "option", ["batch_size"], meant="batch_size"))
    'bacth_size: no such option; did you mean batch_size?'
    """
    names = ", ".join(known)
    hint = f"did you mean {meant}?" if meant else f"there are {names}"
    return OptionError(field, STARS, names, problem=f"no such {what}; {hint}", source=source)


@contextmanager
def collected(errors: list[OptionError]) -> Iterator[None]:
    """Append an `OptionError` raised within to ``errors``, without its context, instead of raising it."""
    try:
        yield
    except OptionError as error:
        error.__cause__ = error.__context__ = error.__traceback__ = None  # they may hold what was read: a key
        errors.append(error)


# --- single values ---------------------------------------------------------------------------------------------------


def check_number(
    field: str, value: object, low: float, high: float, *, whole: bool = False, optional: bool = False
) -> None:
    """Raise `OptionError` unless ``value`` is a number from ``low`` to ``high`` (or None if ``optional``).

    NaN and bools are refused.

    >>> check_number("rate_limit", float("nan"), 0.001, 1e9, optional=True)
    Traceback (most recent call last):
    penstock.errors.OptionError: rate_limit: got nan, allowed: a number from 0.001 to 1000000000 or None
    """
    if value is None and optional:
        return
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:  # type: ignore[operator]
        return
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {_plain(low)} to {_plain(high)}" + (" or None" if optional else "")
    raise OptionError(field, value, allowed)


def _plain(number: float) -> str:
    """Write a limit with all its digits and without an exponent."""
    return str(int(number)) if number == int(number) else f"{number:f}".rstrip("0")


def check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise `OptionError` unless ``value`` equals one of ``choices`` and has its type, so 1 is not True."""
    for choice in choices:
        if value is choice or (value == choice and type(value) is type(choice)):
            return
    raise OptionError(field, value, " | ".join(repr(choice) for choice in choices))


def check_on_orphan(value: object) -> None:
    """Raise `OptionError` unless ``value`` is a valid ``on_orphan``: what to do when the last subscriber has left."""
    if value in ("cancel", "continue"):
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 86_400:
        return
    raise OptionError("on_orphan", value, "'cancel' | 'continue' | a number of seconds to linger, from 0 to 86400")


def check_models(field: str, value: object) -> None:
    """Raise `OptionError` unless ``value`` is a list or a tuple of names of models."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in value):
        raise OptionError(field, value, "a list of model names")


def check_metadata(value: object) -> None:
    """Raise `OptionError` unless ``value`` is a mapping or None. The error shows its type only."""
    if value is not None and not isinstance(value, Mapping):
        raise OptionError("metadata", type_of(value), "a dict, or None")


# --- options ---------------------------------------------------------------------------------------------------------

_Check: TypeAlias = Callable[[str, object], None]


class Between(NamedTuple):
    """The range of a numeric option, both ends included: ``Annotated[int, Between(1, 64)]``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Base class of all options: an immutable value that is validated when it is made.

    Subclasses are dataclasses with the same three arguments. The annotation of a field says what is allowed:
    ``bool``; a ``Literal``; ``Annotated[int | float | None, Between(low, high)]``; or ``Annotated[T, check]``, where
    ``check(field, value)`` raises `OptionError`. Rules for more than one field go into `_check`.
    """

    def __new__(cls, *_args: object, **fields: object) -> Self:
        """Refuse unknown names, which the generated constructor would report as a TypeError."""
        known = cls.__dataclass_fields__
        for name in fields:
            if name not in known:
                raise unknown(name, f"option of {cls.__name__}", known, meant=near_miss(name, known))
        return object.__new__(cls)

    def __post_init__(self) -> None:
        kind = type(self)
        for name, check in _CHECKS.get(kind) or _checks_of(kind):
            check(name, getattr(self, name))
        self._check()

    def _check(self) -> None:
        """Check what depends on several fields, and normalise values. Called after the checks of single fields."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated as a whole.

        Raises:
            OptionError: a field is unknown or a value is not allowed. The original is unchanged in any case.
        """
        return dataclasses.replace(self, **changes)


def check_field(kind: type[Options], name: str, value: object) -> None:
    """Check the value of one field of ``kind`` by itself.

    Raises:
        OptionError: it is not allowed.
    """
    for field, check in _CHECKS.get(kind) or _checks_of(kind):
        if field == name:
            check(name, value)


_CHECKS: dict[type[Options], tuple[tuple[str, _Check], ...]] = {}


def _checks_of(kind: type[Options]) -> tuple[tuple[str, _Check], ...]:
    hints = get_type_hints(kind, include_extras=True)
    checks = tuple((field.name, _check_of(hints[field.name])) for field in dataclasses.fields(kind))
    _CHECKS[kind] = checks
    return checks


def _check_of(hint: Any) -> _Check:
    plain, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if plain is bool:
        return partial(check_choice, choices=(True, False))
    if get_origin(plain) is Literal:
        return partial(check_choice, choices=get_args(plain))
    (extra,) = extras
    if isinstance(extra, Between):
        types = get_args(plain) or (plain,)
        return _range_check(*extra, whole=float not in types, optional=NoneType in types)
    check: _Check = extra
    return check


def _range_check(low: float, high: float, *, whole: bool, optional: bool) -> _Check:
    kinds = (int,) if whole else (int, float)

    def check(field: str, value: Any) -> None:
        # Kept short for values that are allowed: options are made for every request.
        if value.__class__ not in kinds or not low <= value <= high:
            check_number(field, value, low, high, whole=whole, optional=optional)

    return check
