"""Run every test that takes a seed under many seeds: ``python -m tests.simulation --seeds 1000``.

It runs pieces of `PIECE` seeds, each in a process of its own, so that memory stays small and all cores are used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PIECE: Final = 25  # garbage collection gets slower with every test that a process has run
SUITES: Final = (
    "tests/conformance",
    "tests/simulation/test_crashes.py",
    "tests/simulation/test_agent_crashes.py",
    "tests/simulation/test_batch.py",
    "tests/simulation/test_single.py",
    "tests/simulation/test_many.py",
    "tests/diagrams",
)


def pieces(seeds: int, first: int) -> Iterator[tuple[str, int, int]]:
    """Yield suite, first seed and number of seeds of each piece.

    >>> list(pieces(150, 0))[:2]
    [('tests/conformance', 0, 25), ('tests/simulation/test_crashes.py', 0, 25)]
    """
    for start in range(first, first + seeds, PIECE):
        for suite in SUITES:
            yield suite, start, min(PIECE, first + seeds - start)


def run_piece(piece: tuple[str, int, int]) -> bool:
    """Run one piece; print its failures with the commands that replay them."""
    suite, first, seeds = piece
    command = [sys.executable, "-m", "pytest", suite, "--first-seed", str(first), "--seeds", str(seeds), "--tb=short"]
    begun = time.monotonic()
    done = subprocess.run([*command, "-p", "no:cacheprovider"], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode == 0:
        print(f"seeds {first} to {first + seeds - 1} of {suite}: good ({seconds:.0f} s)", flush=True)
        return True
    print(done.stdout, done.stderr, f"seeds {first} to {first + seeds - 1} of {suite}: FAILED", sep="\n", flush=True)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all pieces; the exit status is 1 if a seed has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        good = list(pool.map(run_piece, pieces(chosen.seeds, chosen.first_seed)))
    print(f"{chosen.seeds} seeds from {chosen.first_seed} on: {'all good' if all(good) else 'FAILED'}")
    return not all(good)


if __name__ == "__main__":
    sys.exit(main())
