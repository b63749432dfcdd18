"""Which kinds of text a derived stream works on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

from penstock.errors import OptionError
from penstock.events import TokenKind

__all__ = ["check_kinds"]

_KINDS: Final[tuple[TokenKind, ...]] = get_args(TokenKind)


def check_kinds(kinds: TokenKind | Iterable[TokenKind]) -> frozenset[TokenKind]:
    """Return the kinds as a set; one kind alone may be given as it is.

    >>> check_kinds("reasoning")
    frozenset({'reasoning'})
    """
    if isinstance(kinds, str):
        found = frozenset((kinds,))
    elif isinstance(kinds, Iterable):
        found = frozenset(kinds)
    else:
        raise OptionError("kinds", type(kinds), _ALLOWED)
    if not found or not found <= set(_KINDS):
        raise OptionError("kinds", kinds, _ALLOWED)
    return found


_ALLOWED: Final = f"some of {', '.join(map(repr, _KINDS))}"
