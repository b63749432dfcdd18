"""Request bodies as JSON, with errors that say which value cannot be encoded and never show its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from penstock.errors import OptionError

__all__ = ["encode_body"]

_LONGEST_KEY = 40


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Encode a request's body as JSON.

    Raises:
        OptionError: a value cannot be encoded. The error names its place, such as ``messages[1].content``.
    """
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError):
        pass
    raise _explain(body)  # outside the except block: the encoder's own error contains what the user wrote


class _Problem(NamedTuple):
    path: str
    kind: type
    reason: str


def _explain(body: Mapping[str, Any]) -> OptionError:
    problem = _Problem("parameters", type(body), "they cannot be encoded as JSON")
    for name, value in body.items():
        try:
            found = next(_problems(value, name), None)
        except RecursionError:
            found = _Problem(name, type(value), "it is nested too deeply for JSON")
        if found is not None:
            problem = found
            break
    message = f"{problem.path}: {problem.reason}"
    return OptionError(problem.path, problem.kind, "a value that can be encoded as JSON", message=message)


def _problems(value: object, path: str) -> Iterator[_Problem]:
    if isinstance(value, str):
        at = next((at for at, char in enumerate(value) if "\ud800" <= char <= "\udfff"), None)
        if at is not None:
            reason = f"a lone surrogate (U+{ord(value[at]):04X}) at character {at + 1} cannot be encoded as UTF-8"
            yield _Problem(path, type(value), reason)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not _is_encodable({key: None}):
                yield _Problem(path, type(value), f"a key of type {type(key).__name__} cannot be encoded as JSON")
            yield from _problems(item, path + _step(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _problems(item, f"{path}[{number}]")
    elif not _is_encodable(value):
        yield _Problem(path, type(value), f"a value of type {type(value).__name__} cannot be encoded as JSON")


def _step(key: object) -> str:
    """Name a key in a path, unless it may be text that was written for the model."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() and len(key) <= _LONGEST_KEY else "[…]"


def _is_encodable(value: object) -> bool:
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
