"""State tables: the states of a machine, and the moves between them, as data.

A table stands beside the machine that it describes, in a module named ``states``. Tests compare it with the code and
with the moves of running machines; the diagrams of the documentation are drawn from it. A machine does not read its
own table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["END", "START", "Move", "State", "StateTable"]

START: Final = "start"
"""Where the first move begins; not a state of a machine."""
END: Final = "end"
"""Where the last move leads; not a state of a machine."""


class State(msgspec.Struct, frozen=True):
    """A state."""

    name: str
    """As in the code, and as statistics show it."""
    meaning: str


class Move(msgspec.Struct, frozen=True):
    """A move from any of ``sources`` to any of ``targets``; a pair of the same state is not a move.

    >>> list(Move(("idle", "busy"), ("busy", END), "asked to", on=("Ask",)).pairs())
    [('idle', 'busy'), ('idle', 'end'), ('busy', 'end')]
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    when: str
    """What causes it, in a few words. Moves of the same words are shown as one."""
    on: tuple[str, ...]
    """The events that may cause it: ``"start"``, the name of a message's class, of an internal event, of a method, or
    ``"state timeout"``, ``"NAME timeout"``."""

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The states that it leads from and to."""
        for source in self.sources:
            for target in self.targets:
                if source != target:
                    yield source, target


class StateTable(msgspec.Struct, frozen=True):
    """All states and moves of one machine. If several moves join the same states, the usual one comes first."""

    name: str
    states: tuple[State, ...]
    moves: tuple[Move, ...]
    end: str = END
    """What `END` is called where it is shown."""
