r"""Lone surrogates in text that leaves the program: UTF-8 cannot encode them, so no request may contain one.

They come from ``surrogateescape`` (file names, ``sys.argv``, standard input) and from JSON such as ``"\ud83d"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

__all__ = ["is_plain_json", "mend_surrogates", "replace_surrogates"]


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs into characters and replace every lone surrogate with U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_surrogates(value: Any) -> Any:
    r"""Apply `replace_surrogates` to all text in JSON-like data, keys of dicts included.

    Data without surrogates is returned as it is, the same object; so is data that is nested too deeply for JSON.

    >>> mend_surrogates([{"text": "caf\udce9"}])
    [{'text': 'caf�'}]
    """
    if is_plain_json(value):
        return value
    try:
        return _mended(value)
    except RecursionError:
        return value


def is_plain_json(value: object) -> bool:
    """Whether this is JSON data as requests need it: of Python's own types, without surrogates, NaN and infinity.

    This is the usual case, and quick to see. False also for data that is nested too deeply.
    """
    try:
        return _is_plain(value)
    except RecursionError:
        return False


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_encodable(value)  # type: ignore[attr-defined, arg-type]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not (key.isascii() or _is_encodable(key)) or not _is_plain(item):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    return kind in _SIMPLE or (kind is float and isfinite(value))  # type: ignore[arg-type]


_SIMPLE: Final = (int, bool, type(None))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() or _is_encodable(value) else replace_surrogates(value)
    if isinstance(value, Mapping):
        pairs = [(_mended(key), _mended(item)) for key, item in value.items()]
        is_same = all(key is old and item is value[old] for (key, item), old in zip(pairs, value, strict=True))
        return value if is_same else dict(pairs)
    if isinstance(value, (list, tuple)):
        items = [_mended(item) for item in value]
        is_same = all(item is old for item, old in zip(items, value, strict=True))
        return value if is_same else items
    return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
