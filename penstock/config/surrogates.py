r"""Lone surrogates in text that leaves the program: UTF-8 cannot encode them, so no request may contain one.

They come from ``surrogateescape`` (file names, ``sys.argv``, standard input) and from JSON such as ``"\ud83d"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["mend_surrogates", "replace_surrogates"]


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs into characters and replace every lone surrogate with U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_surrogates(value: Any) -> Any:
    r"""Apply `replace_surrogates` to all text in JSON-like data, keys of dicts included.

    Data without surrogates is returned as it is, the same object; so is data that is nested too deeply for JSON.

    >>> mend_surrogates([{"text": "caf\udce9"}])
    [{'text': 'caf�'}]
    """
    try:
        return _mended(value)
    except RecursionError:
        return value


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
