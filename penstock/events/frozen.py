"""Read-only dicts and lists: all subscribers of a stream share its events, and so does the next request."""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any, Final, NoReturn

__all__ = ["FrozenDict", "FrozenJson", "FrozenList", "freeze"]

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class FrozenDict(dict[str, Any]):
    """A read-only dict. All events of a stream share one, so no subscriber may change it for the others."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError("the content of an event is read-only")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


class FrozenJson(FrozenDict):
    """A dict that is read-only at all levels. Made by `freeze`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[FrozenJson], tuple[dict[str, Any]]]:
        return FrozenJson, (dict(self),)


class FrozenList(list[Any]):
    """A read-only list of values that are read-only at all levels; equal to a list with the same items."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError("the content of an event is read-only")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse

    def __reduce__(self) -> tuple[type[FrozenList], tuple[list[Any]]]:
        return FrozenList, (list(self),)


def freeze(value: Any) -> Any:
    """Return JSON-like data with read-only dicts and lists at all levels; what is read-only already is not copied.

    Any other `Mapping` and subclasses of `list` become read-only dicts and lists too. A tuple stays one, with read-only
    items.

    >>> freeze({"content": [{"text": "Hi"}]})["content"].append("x")
    Traceback (most recent call last):
    ...
    TypeError: the content of an event is read-only

    Raises:
        RecursionError: it is nested too deeply.
    """
    kind = type(value)
    if kind is FrozenJson or kind is FrozenList:
        return value
    if kind is dict or kind is FrozenDict:
        return FrozenJson({name: freeze(item) for name, item in value.items()})
    if kind is list:
        return FrozenList(map(freeze, value))
    if kind in _PLAIN:
        return value
    if isinstance(value, tuple):
        items = tuple(map(freeze, value))
        return value if all(map(is_, items, value)) else items
    if isinstance(value, Mapping):
        return FrozenJson({name: freeze(item) for name, item in value.items()})
    return FrozenList(map(freeze, value)) if isinstance(value, list) else value
