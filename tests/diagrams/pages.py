"""The tables of states and moves in ``docs/state-diagrams.md``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from penstock.actors.runtime.statetable import END, START, StateTable
from tests.diagrams.machines import MACHINES

__all__ = ["IMAGES", "PAGE", "PLACES", "fill", "tables"]

_DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = _DOCS / "state-diagrams.md"
IMAGES: Final = _DOCS / "images"
PLACES: Final = re.compile(r"(<!-- tables: ([\w-]+) -->\n).*?(<!-- end of tables -->)", re.DOTALL)


def fill(page: str) -> str:
    """Put the tables where the page has a place for them."""
    return PLACES.sub(lambda place: f"{place[1]}{tables(MACHINES[place[2]].table)}{place[3]}", page)


def tables(table: StateTable) -> str:
    """A machine's states and its moves, in Markdown."""
    names = {START: "(start)", END: f"({table.end})"}
    lines = ["", "| state | meaning |", "|---|---|"]
    lines += [f"| `{state.name}` | {state.meaning} |" for state in table.states]
    lines += ["", "| from | when | to |", "|---|---|---|"]
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for move in table.moves:
        rows.setdefault((move.when, move.targets), []).extend(move.sources)
    for (when, targets), sources in rows.items():
        left, right = (", ".join(names.get(name, f"`{name}`") for name in side) for side in (sources, targets))
        lines.append(f"| {left} | {when} | {right} |")
    return "\n".join([*lines, "", ""])
