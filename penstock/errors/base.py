"""The root of all errors, and the errors that any part of the package may raise."""

from __future__ import annotations

import pykka

__all__ = ["CallTimeout", "OptionError", "PenstockError", "describe_reason"]


class PenstockError(Exception):
    """The root of everything Penstock raises on purpose."""


class OptionError(PenstockError, ValueError):
    """An option, a setting or an argument has a value that is not allowed.

    Attributes:
        field: the name of the option, with its group if it is a setting (``stream.batch_size``).
        got: the value, or a substitute if it may hold a key or token text.
        allowed: what is allowed, in words.
        source: where a setting was found: a file, or an environment variable. None for arguments in code.
        problem: what is wrong, where "got …, allowed: …" would not be clear; the message then says this instead.

    The keyword ``message`` replaces the whole text, the field's name included.

    >>> str(OptionError("batch_size", 0, "a whole number from 1 to max_buffer_size (1000)"))
    'batch_size: got 0, allowed: a whole number from 1 to max_buffer_size (1000)'
    >>> str(OptionError("prices", None, "a file", problem="cannot read own.toml", source="PENSTOCK_PRICES"))
    'prices: cannot read own.toml (from PENSTOCK_PRICES)'
    """

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
        super().__init__(message or f"{field}: {problem or f'got {got!r}, allowed: {allowed}'}{where}")


class CallTimeout(PenstockError, pykka.Timeout, TimeoutError):
    """A call was not answered within ``timeout`` seconds.

    The request may still be carried out; a late answer is discarded.
    """

    def __init__(self, what: str, timeout: float) -> None:
        self.what = what
        self.timeout = timeout
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
