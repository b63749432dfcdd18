"""The root of all errors, and the errors that any part of the package may raise."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeVar

import msgspec
import pykka

__all__ = ["CallTimeout", "OptionError", "PenstockError", "copy_of", "describe_reason", "rebuild_error"]


class PenstockError(Exception):
    """The root of everything Penstock raises on purpose.

    Errors can be pickled and copied, also those of subclasses with an ``__init__`` of their own. A pickle and a deep
    copy have the message and all attributes, but no ``__cause__``, ``__context__`` and traceback. Attributes that are
    not plain data (a foreign exception, a process) become text that describes them; see `describe_reason`.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = ({name: _to_plain(value) for name, value in fields.items()} for fields in _state_of(self))
        return rebuild_error, (type(self), tuple(map(_to_plain, self.args)), *state)

    def __copy__(self) -> Self:
        copied: Self = rebuild_error(type(self), self.args, *_state_of(self))
        return copied


def _state_of(error: PenstockError) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of an error: those in its ``__dict__``, and those in slots of a subclass."""
    state: Any = object.__getstate__(error)
    fields, slots = state if isinstance(state, tuple) else (state, None)
    return dict(fields or {}), dict(slots or {})


Error = TypeVar("Error", bound="PenstockError")


def copy_of(error: Error) -> Error:
    """The same error with the same causes: for another stream, or to be raised while this one is kept.

    To raise the kept one would make a circle of it, its traceback, and a caller's frame that has what keeps it.
    """
    copied = copy.copy(error)
    copied.__context__ = error.__context__
    copied.__cause__ = error.__cause__
    copied.__suppress_context__ = error.__suppress_context__
    return copied


def rebuild_error(
    kind: type[PenstockError], args: tuple[Any, ...], fields: dict[str, Any], slots: dict[str, Any]
) -> Any:
    """Make an error without calling its ``__init__``, which takes facts and not the message."""
    builtin: Any = next(one for one in kind.__mro__ if one.__module__ == "builtins" and "__new__" in vars(one))
    error = builtin.__new__(kind, *args) if issubclass(kind, BaseExceptionGroup) else builtin.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    for name, value in slots.items():
        setattr(error, name, value)
    return error


_LONGEST_NUMBER = 2_000
"""In bits; Python may refuse to write a longer one in digits, as pickle's protocol 0 does."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def _to_plain(value: Any) -> Any:
    """Return plain data and Penstock's errors as they are; describe anything else in words."""
    try:
        return _plain_or_described(value)
    except RecursionError:
        return type(value).__name__


def _plain_or_described(value: Any) -> Any:
    kind = type(value)
    if kind is int and value.bit_length() > _LONGEST_NUMBER:
        return _shown(value)
    if kind in _PLAIN or isinstance(value, (PenstockError, msgspec.Struct)):  # an event is plain data itself
        return value
    if kind in (tuple, list, set, frozenset):
        return kind(map(_plain_or_described, value))
    if kind is dict:
        return {_plain_or_described(key): _plain_or_described(item) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    return value.__name__ if isinstance(value, type) else describe_reason(value)


class OptionError(PenstockError, ValueError):
    """An option, a setting or an argument has a value that is not allowed.

    Attributes:
        field: the name of the option, with its group if it is a setting (``stream.batch_size``).
        got: the value, or a substitute if it may hold a key or token text.
        allowed: what is allowed, in words.
        source: where a setting was found: a file, or an environment variable. None for arguments in code.
        problem: what is wrong, where "got …, allowed: …" would not be clear; the message then says this instead.

        others: further errors of the same kind, if settings have more than one. The message then has one line for each.

    The keyword ``message`` replaces the whole text, the field's name included.

    >>> str(OptionError("batch_size", 0, "a whole number from 1 to max_buffer_size (1000)"))
    'batch_size: got 0, allowed: a whole number from 1 to max_buffer_size (1000)'
    >>> str(OptionError("prices", None, "a file", problem="cannot read own.toml", source="PENSTOCK_PRICES"))
    'prices: cannot read own.toml (from PENSTOCK_PRICES)'
    """

    others: tuple[OptionError, ...] = ()

    def __init__(
        self,
        field: str,
        got: object,
        allowed: str,
        *,
        source: str | None = None,
        problem: str | None = None,
        message: str | None = None,
    ) -> None:
        self.field = field
        self.got = got
        self.allowed = allowed
        self.source = source
        self.problem = problem
        where = f" (from {source})" if source else ""
        super().__init__(message or f"{field}: {problem or f'got {_shown(got)}, allowed: {allowed}'}{where}")

    def joined(self, others: Iterable[OptionError]) -> OptionError:
        """Return an error with the attributes of this one, and a line of the message for each of the ``others``."""
        error = copy.copy(self)
        error.others = tuple(others)
        error.args = ("\n".join(map(str, (self, *error.others))),)
        return error


def _shown(value: object) -> str:
    """The repr of a value; of an integer that Python refuses to write in digits, its size."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        return f"a number of {value.bit_length()} bits"
    try:
        return repr(value)
    except ValueError:  # sys.get_int_max_str_digits: there is such a number in it
        return f"a {type(value).__name__}"


class CallTimeout(PenstockError, pykka.Timeout, TimeoutError):
    """A call was not answered within ``timeout`` seconds.

    The request may still be carried out; a late answer is discarded.

    Attributes:
        what: what was waited for.
        timeout: seconds.
        pending: of a wait for several streams (`as_completed`, `gather`), those that have not ended. They run on.
    """

    def __init__(self, what: str, timeout: float, pending: Sequence[Any] = ()) -> None:
        self.what = what
        self.timeout = timeout
        self.pending = tuple(pending)
        super().__init__(f"{what}: no answer within {timeout:g} s")


def describe_reason(reason: object) -> str:
    """Describe an exit reason in a few words that hold neither a key nor token text.

    The messages of Penstock's own errors are safe to show. Other exceptions are described by their type only, since
    their messages may quote anything.

    >>> describe_reason(ValueError("secret"))
    'ValueError'
    >>> describe_reason("shutdown")
    'shutdown'
    """
    if isinstance(reason, PenstockError):
        return f"{type(reason).__name__}: {reason}"
    if isinstance(reason, BaseException):
        return type(reason).__name__
    if isinstance(reason, str):
        return reason
    if isinstance(reason, tuple):
        return "(" + ", ".join(describe_reason(part) for part in reason) + ")"
    return type(reason).__name__
