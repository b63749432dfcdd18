"""What is known of values while the code of a state machine is read."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.actors.runtime.transitions import EVENTS, Call, Cast, Info, Internal, NamedTimeout, StateTimeout

__all__ = [
    "CARRIERS", "NONE", "OBJECT", "UNKNOWN", "Const", "Env", "Goto", "Incoming", "Message", "Some", "Value", "all_of",
    "any_of", "attribute", "equal", "is_a", "label", "truth",
]  # fmt: skip

CARRIERS: Final = (Call, Cast, Info)


class Const(NamedTuple):
    """A value that is known."""

    value: Any


class Some(NamedTuple):
    """A value of which at most is known whether it is true, and whether it is None."""

    truth: bool | None = None
    none: bool | None = None


class Incoming(NamedTuple):
    """An event: its class, and the class of its message or its name."""

    kind: type
    detail: Any = None


class Message(NamedTuple):
    """The message of an event."""

    kind: type


class Goto(NamedTuple):
    """What a state method returns; `END` for `Stop`, None for staying."""

    kind: type
    state: Any


Value: TypeAlias = Const | Some | Incoming | Message | Goto
UNKNOWN: Final = Some()
OBJECT: Final = Some(none=False)
NONE: Final = Const(None)


class Env(dict[str, Value]):
    """What is known at one point of one path: local names, and ``self.x``. Not changed once it is made."""

    _hash: int | None = None

    def __hash__(self) -> int:  # type: ignore[override]
        if self._hash is None:
            self._hash = hash(frozenset(self.items()))
        return self._hash

    def put(self, names: Mapping[str, Value]) -> Env:
        return Env({**self, **names})

    def attributes(self) -> Env:
        """What outlives a method."""
        return Env({name: value for name, value in self.items() if "." in name})

    def only(self, *names: str) -> Env:
        return Env({name: value for name, value in self.items() if name in names})


def label(event: Any) -> str:
    """What an event is called in a state table: its message's class, its name, or what kind of time-out it is."""
    match event:
        case Incoming(kind=kind, detail=detail):
            if kind is StateTimeout:
                return "state timeout"
            if kind is NamedTimeout:  # one that an object names is a function call's
                return f"{detail if isinstance(detail, str) else 'call'} timeout"
            return detail.__name__ if isinstance(detail, type) else str(detail)
        case Const(value=Internal(message=message)) | Internal(message=message):
            return str(message)
        case StateTimeout():
            return label(Incoming(StateTimeout))
        case NamedTimeout(name=name):
            return label(Incoming(NamedTimeout, name))
        case Call(message=message) | Cast(message=message) | Info(message=message):
            return type(message).__name__
    return type(event).__name__


def truth(value: Value) -> bool | None:
    """Whether it is true; None if that is not known."""
    match value:
        case Const(value=known):
            return bool(known)
        case Some(truth=known, none=none):
            return False if none else known
    return True


def is_a(value: Value, kinds: Any) -> bool | None:
    """Whether it is an instance of a class, or of one of several; None if that is not known."""
    if kinds is None:
        return None
    match value:
        case Some(none=none):
            return False if none else None
        case Const(value=known):
            return isinstance(known, kinds)
    return issubclass(value.kind, kinds)


def attribute(value: Value, name: str) -> Value:
    match value:
        case Incoming(kind=kind):
            if name == "__class__":
                return Const(kind)
            if name == "message" and kind in CARRIERS:
                return Message(value.detail)
            if name == "name" and kind is NamedTimeout and value.detail is not None:
                return Const(value.detail)
        case Const(value=known) if name == "__class__":
            return Const(type(known))
        case Const(value=known) if type(known) in EVENTS:
            return Const(getattr(known, name))
        case Goto(state=state) if name == "state":
            return state if state is not None else UNKNOWN
    return UNKNOWN


def equal(one: Value, op: ast.cmpop, other: Value) -> bool | None:
    """What a comparison gives, as if it was not negated; None if that is not known."""
    if isinstance(one, Some) or isinstance(other, Some):
        is_never_none = any(isinstance(value, Some) and value.none is False for value in (one, other))
        return False if is_never_none and NONE in (one, other) else None
    if not (isinstance(one, Const) and isinstance(other, Const)):
        return False if isinstance(op, (ast.Is, ast.IsNot)) else None
    match op:
        case ast.Is() | ast.IsNot():
            return one.value is other.value
        case ast.Eq() | ast.NotEq():
            return bool(one.value == other.value)
        case ast.In() | ast.NotIn():
            return one.value in other.value
    return None


def any_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether one holds."""
    found = set(verdicts)
    return True if True in found else None if None in found else False


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold."""
    found = set(verdicts)
    return False if False in found else None if None in found else True
