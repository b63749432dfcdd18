"""``python -m benchmarks [NAME …] [--quick] [--rounds N] [--write] | --is-current``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import (
    agents,
    board,
    clustered,
    compared,
    decoders,
    derived,
    dialects,
    facts,
    fanout,
    frames,
    hedging,
    idle,
    lifecycle,
    looped,
    many,
    merging,
    overhead,
    paced,
    pushed,
    readers,
    rhythm,
    saturated,
    shared_store,
    stages,
    stores,
    supervised,
)
from benchmarks.machine import describe_machine, describe_versions, measured_tree, tree_hash
from benchmarks.probe import ProbeError
from benchmarks.tables import HEADINGS, Table, cells, to_markdown

__all__ = ["main"]

BENCHMARKS: dict[str, Callable[[int, bool], list[Table]]] = {
    "pushed": pushed.run,
    "saturated": saturated.run,
    "dialects": dialects.run,
    "decoders": decoders.run,
    "agents": agents.run,
    "paced": paced.run,
    "many": many.run,
    "lifecycle": lifecycle.run,
    "derived": derived.run,
    "supervised": supervised.run,
    "frames": frames.run,
    "readers": readers.run,
    "rhythm": rhythm.run,
    "idle": idle.run,
    "looped": looped.run,
    "overhead": overhead.run,
    "merging": merging.run,
    "hedging": hedging.run,
    "facts": facts.run,
    "fanout": fanout.run,
    "board": board.run,
    "shared_store": shared_store.run,
    "clustered": clustered.run,
    "stages": stages.run,
    "stores": stores.run,
}
_HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks (all by default), print the tables and what got slower than on the page of results.

    With ``--write`` the page is written afterwards.
    """
    command = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to try it out, not to quote figures")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is measured (default: 3)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    parser.add_argument("--is-current", action="store_true", help="say whether RESULTS.md measured this code, and end")
    options = parser.parse_args(command)
    if options.is_current:
        return _say_whether_current(_HERE / "RESULTS.md")
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name}; there are {', '.join(BENCHMARKS)}")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    machine, began = describe_machine(), time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"{machine}\n{describe_versions()}")
    tables: list[Table] = []
    for name in options.names or BENCHMARKS:
        try:
            found = BENCHMARKS[name](options.rounds, options.quick)
        except ProbeError as error:
            console.print(f"{name}: {error}", markup=False)
            return 1
        for table in found:
            _print(console, table)
        tables += found
    seconds = time.monotonic() - began
    console.print(f"in {seconds:.0f} s")
    page = _HERE / "RESULTS.md"
    if not options.quick and page.exists():
        before = compared.read_page(page.read_text("utf-8"))
        changes = compared.compare(before, compared.page_of(tables, options.rounds))
        for line in compared.report(changes, "benchmarks/RESULTS.md"):
            console.print(line, markup=False, highlight=False)
    if options.write:
        page.write_text(_page(tables, machine, " ".join(command), options.rounds, seconds))
        console.print(f"written: {page}")
    return 0


def _say_whether_current(page: Path) -> int:
    measured, present = measured_tree(page), tree_hash()
    if measured == present:
        print(f"benchmarks/RESULTS.md measured this code (penstock/ tree {present}).")
    else:
        print(
            f"Note: benchmarks/RESULTS.md measured other code (penstock/ tree {measured}); this is {present}. "
            "`make bench` measures again."
        )
    return 0


def _print(console: Console, table: Table) -> None:
    drawn = RichTable(title=table.title, caption=table.about, title_justify="left", caption_justify="left")
    for place, heading in enumerate(HEADINGS):
        drawn.add_column(heading, justify="right" if place in (1, 2, 4, 5) else "left")
    for row in table.rows:
        drawn.add_row(*(cell.replace("**", "") for cell in cells(row)))
    console.print(drawn)
    for remark in table.remarks:
        console.print(f"- {remark}", markup=False)


def _page(tables: list[Table], machine: str, command: str, rounds: int, seconds: float) -> str:
    head = (
        "# Measured\n\n"
        "<!-- Written by `python -m benchmarks --write`. Explanations go into NOTES.md, which is appended. -->\n\n"
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {seconds:.0f} s, by `python -m benchmarks {command}`\n"
        f"- {machine}\n"
        f"- {describe_versions()}\n"
        f"- penstock/ tree {tree_hash()}\n\n"
        f"Figures are the median of {rounds} rounds (smallest – largest), ours and the peer’s taking turns, each in a"
        " fresh process. *Many streams* is measured once, over some seconds, so it shows no range. Other work on the"
        " machine is in the figures: compare within a row rather than with another day’s page.\n"
    )
    notes = _HERE / "NOTES.md"
    parts = [head, *(to_markdown(table) for table in tables)]
    if notes.exists():
        parts.append(notes.read_text())
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
