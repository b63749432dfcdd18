"""`Crowd`: the subscribers of a stream that has many, so that one more or less takes no longer than with few."""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any, Final, Protocol, TypeVar

__all__ = ["LARGEST_TUPLE", "Crowd", "Member", "key_of"]

LARGEST_TUPLE: Final = 16
"""So many subscribers are in a tuple, which takes less memory and is read sooner; with more of them, in a crowd."""


class Member(Protocol):
    """What a crowd knows of a subscriber."""

    is_active: bool

    @property
    def counts(self) -> bool: ...

    @property
    def targets(self) -> tuple[Any, ...]: ...


M = TypeVar("M", bound=Member)


def key_of(target: Any) -> object:
    """A key that two targets share if they are the same. A foreign ``__eq__`` is not used: it may return anything.

    It is valid as long as the target lives.

    >>> key_of("".join) == key_of("".join), key_of([]) == key_of([1].copy)
    (True, False)
    """
    return (id(target.__self__), id(target.__func__)) if isinstance(target, MethodType) else id(target)


class Crowd(dict[M, None]):
    """Subscribers in the order in which they came, by themselves and by their targets.

    The caller serialises `enter`, `leave` and `targets_changed`. The garbage collector may call `leave` during any of
    them, and other threads read meanwhile.
    """

    __slots__ = ("_all", "_by_target", "_version")

    def __init__(self, members: Iterable[M]) -> None:
        super().__init__()
        self._by_target: dict[object, M] = {}
        self._version = object()  # another one after each change
        self._all: tuple[object, tuple[M, ...]] = (None, ())
        for member in members:
            self.enter(member)

    def enter(self, member: M) -> None:
        """Add a subscriber."""
        self[member] = None
        for target in member.targets:
            self._by_target[key_of(target)] = member
        self._version = object()

    def leave(self, member: M) -> bool:
        """Remove a subscriber; returns whether it was here."""
        if member not in self:
            return False
        self.pop(member, None)
        for target in member.targets:
            if self._by_target.get(key_of(target)) is member:
                self._by_target.pop(key_of(target), None)
        self._version = object()
        return True

    def targets_changed(self, member: M, before: Any) -> None:
        """Find a subscriber by its new targets; ``before`` may not be one of them any more."""
        if self._by_target.get(key_of(before)) is member:  # also of one that has left: it did so by its new targets
            self._by_target.pop(key_of(before), None)
        if member in self:
            for target in member.targets:
                self._by_target[key_of(target)] = member

    def find(self, target: Any) -> M | None:
        """The subscriber with that target."""
        return self._by_target.get(key_of(target))

    def all(self) -> tuple[M, ...]:
        """All subscribers; takes time only after a change."""
        version, found = self._all
        while version is not self._version:
            version = self._version
            try:
                found = tuple(self)
            except RuntimeError:  # it has changed meanwhile
                version = None
            else:
                self._all = version, found
        return found

    @property
    def has_active(self) -> bool:
        """Whether one counts and is active: most often the last one, which is looked at first."""
        while True:
            try:
                return any(member.is_active and member.counts for member in reversed(self))
            except RuntimeError:
                continue
