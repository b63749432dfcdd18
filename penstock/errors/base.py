"""The root of all errors, and those that belong to no part of the house."""

from __future__ import annotations

import pykka

__all__ = ["CallTimeout", "OptionError", "PenstockError", "describe_reason"]


class PenstockError(Exception):
    """The root of everything Penstock raises on purpose."""


class OptionError(PenstockError, ValueError):
    """An option, setting or argument has a value that is not allowed.

    ``message`` takes the place of the built text where "got, allowed" does not say what is wrong.

    >>> str(OptionError("batch_size", 0, "a whole number from 1 to max_buffer_size (1000)"))
    'batch_size: got 0, allowed: a whole number from 1 to max_buffer_size (1000)'
    """

    def __init__(
        self, field: str, got: object, allowed: str, *, source: str | None = None, message: str | None = None
    ) -> None:
        self.field = field
        self.got = got
        self.allowed = allowed
        self.source = source
        where = f" (from {source})" if source else ""
        super().__init__(message or f"{field}: got {got!r}, allowed: {allowed}{where}")


class CallTimeout(PenstockError, pykka.Timeout, TimeoutError):
    """An answer did not come in time. What was asked may still happen; its late answer is thrown away."""

    def __init__(self, what: str, timeout: float) -> None:
        self.what = what
        self.timeout = timeout
        super().__init__(f"{what}: no answer within {timeout:g} s")


def describe_reason(reason: object) -> str:
    """Say an exit reason in a few words without showing what an exception's arguments hold.

    Our own errors are safe to print; of foreign exceptions only the type is said, since their text may hold
    token text or a key.

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
