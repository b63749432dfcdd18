"""The topic ``$tree``: the supervision tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.gateway.board.sheets import Row, Sheet
from penstock.gateway.board.topics import Topic
from penstock.gateway.core import GatewayCore
from penstock.inspection import Tree

__all__ = ["TreeTopic", "flattened"]

_COLUMNS: Final = ("parent", "name", "kind", "state", "mailbox", "restarts", "children")
"""``parent``: the row's number; 0: it is the root. ``children``: how many there are; fewer may be shown."""
_MOST_CHILDREN: Final = 200
_MOST: Final = 1_000


class TreeTopic(Topic):
    """All processes below the system's supervisor; of each, at most 200 children are shown, and 1,000 in all."""

    interval = 1.0

    def __init__(self, gateway: GatewayCore) -> None:
        super().__init__("$tree")
        self._gateway = gateway
        self._sheet = Sheet(_COLUMNS)

    def begin(self) -> None:
        self._sheet = Sheet(_COLUMNS)

    async def step(self) -> Mapping[str, Any]:
        found = await self._gateway.in_thread(self._gateway.system.tree)
        return change_of(self._sheet, flattened(found))

    def whole(self) -> Mapping[str, Any]:
        return self._sheet.snapshot()


Path = tuple[str, ...]


def flattened(tree: Tree) -> dict[Path, tuple[Path, Tree]]:
    """The processes by path, parents before children: the parent's path, and the process.

    Of many children, those with messages or restarts come first, and then the oldest ones.
    """
    found: dict[Path, tuple[Path, Tree]] = {}
    waiting: list[tuple[Path, Tree]] = [((), tree)]
    while waiting and len(found) < _MOST:
        following: list[tuple[Path, Tree]] = []
        for parent, one in waiting[: _MOST - len(found)]:
            path = (*parent, one.name)
            while path in found:
                path = (*path[:-1], path[-1] + "'")
            found[path] = (parent, one)
            children = one.children
            if len(children) > _MOST_CHILDREN:
                children = tuple(sorted(children, key=lambda child: not (child.mailbox or child.restarts)))
            following += [(path, child) for child in children[:_MOST_CHILDREN]]
        waiting = following
    return found


def change_of(sheet: Sheet, found: Mapping[Path, tuple[Path, Tree]]) -> dict[str, Any]:
    """Put the processes into a sheet; returns what has changed."""
    numbers: dict[Path, int] = {(): 0}
    numbers |= {path: number for path in found if (number := sheet.number(path)) is not None}
    following = sheet.following
    for path in found:
        if path not in numbers:
            numbers[path] = following
            following += 1
    rows: dict[Path, Row] = {
        path: (numbers[parent], one.name, one.kind, one.state, one.mailbox, one.restarts, len(one.children))
        for path, (parent, one) in found.items()
    }
    return sheet.change(rows)
