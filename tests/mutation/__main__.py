"""Change the package in one place at a time, and see whether the tests notice: ``python -m tests.mutation``.

Changes that are known to have no effect (`tests.mutation.equivalents`) are left out. The others are made in copies in a
temporary folder, one for each job. A run of the tests that takes too long counts as noticed. Ctrl-C, or SIGTERM, ends
the run and prints what has been found so far.

The tests run in sessions of their own: Ctrl-C in a terminal does not reach them, which would look like a failed test,
and they can be killed with all processes that they have started. Their temporary files are in the temporary folder too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Final, NamedTuple

from tests.mutation.changes import Change, changes
from tests.mutation.equivalents import are_known
from tests.mutation.modules import MODULES

_ROOT: Final = Path(__file__).parents[2]
_NO_CACHES: Final = shutil.ignore_patterns("__pycache__")
_MEMORY: Final = 8 << 30  # bytes of address space; a change may make a loop endless
_PYTEST: Final = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
except (ImportError, ValueError, OSError):
    pass
import penstock, pytest
assert penstock.__file__.startswith(sys.argv.pop(1)), penstock.__file__
sys.exit(pytest.main(sys.argv[1:]))
"""


class Trial(NamedTuple):
    """One change to try."""

    module: str
    change: Change


class Mutation:
    """A run over several modules.

    Args:
        folder: holds the copies, one for each job, and the temporary files of the tests.
        limit: seconds that one run of tests may take.
        ends_at: no run starts after this time, and those under way are killed.
    """

    def __init__(self, folder: Path, jobs: int, limit: float, ends_at: float) -> None:
        self._limit = limit
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._ends_at = ends_at
        self._copies: SimpleQueue[Path] = SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self.results: list[tuple[Trial, bool]] = []
        for job in range(jobs):
            copy = folder / str(job)
            for part in ("penstock", "tests", "docs"):
                shutil.copytree(_ROOT / part, copy / part, ignore=_NO_CACHES)
            for part in ("pyproject.toml", "README.md"):
                shutil.copy(_ROOT / part, copy)
            self._copies.put(copy)

    def passes(self, module: str) -> bool | None:
        """Whether the module's tests pass unchanged; None if there was no time."""
        copy = self._copies.get()
        try:
            return self._run(copy, module)
        finally:
            self._copies.put(copy)

    def attempt(self, trial: Trial) -> None:
        """Run the tests with one change, and print whether they noticed it."""
        copy = self._copies.get()
        path = copy / "penstock" / trial.module
        before = path.read_bytes()
        try:
            path.write_text(trial.change.text, encoding="utf-8")
            passed = self._run(copy, trial.module)
        finally:
            path.write_bytes(before)
            self._copies.put(copy)
        if passed is None:
            return
        with self._lock:
            self.results.append((trial, not passed))
        print("NOT NOTICED" if passed else "noticed    ", _shown(trial), flush=True)

    def stop(self) -> None:
        """Start no more runs, and kill those under way."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def _run(self, copy: Path, module: str) -> bool | None:
        """Run a module's tests; returns whether they pass, or None if the run was stopped."""
        left = self._ends_at - time.monotonic()
        command = [sys.executable, "-c", _PYTEST, str(copy), "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile", "quick", "--whole", *MODULES[module]]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["TMPDIR"] = str(self._temporary)
        with self._lock:
            if self._stopped or left <= 0:
                return None
            process = subprocess.Popen(
                command,
                cwd=copy,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            code = process.wait(min(self._limit, left))
        except subprocess.TimeoutExpired:
            return False if self._limit <= left else None
        finally:
            _kill(process)
            process.wait()
            with self._lock:
                self._running.discard(process)
        return None if self._stopped else code == 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run of tests with the processes that it has started, unless it has ended."""
    if process.poll() is None:  # else its number may be another process's by now
        if sys.platform == "win32":
            process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):  # its thread has just waited for it
                os.killpg(process.pid, signal.SIGKILL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shown(trial: Trial) -> str:
    module, change = trial
    old, new = (" ".join(text.split())[:120] for text in (change.old, change.new))
    return f"penstock/{module}:{change.line} {change.function}: {old} -> {new}"


def report(results: Sequence[tuple[Trial, bool]]) -> None:
    """Print for each module how many changes were tried and noticed, and those that were not."""
    for module in (*MODULES, None):
        noticed = [was for trial, was in results if module in (None, trial.module)]
        if not noticed:
            continue
        score = 100 * sum(noticed) / len(noticed)
        name = f"penstock/{module}" if module else "all"
        print(
            f"{name}: {len(noticed)} tried, {sum(noticed)} noticed, {noticed.count(False)} not noticed, {score:.0f} %"
        )
        for trial, was in results:
            if trial.module == module and not was:
                print(f"    {_shown(trial)}")


def chosen(modules: Sequence[str], sample: int, seed: int) -> list[Trial]:
    """Draw at most ``sample`` changes of each module (0: all) that may have an effect, and mix the modules."""
    chance = random.Random(seed)
    trials: list[Trial] = []
    for module in modules:
        source = (_ROOT / "penstock" / module).read_text(encoding="utf-8")
        found = [change for change, has_none in are_known(module, source, changes(source)) if not has_none]
        if sample and len(found) > sample:
            found = chance.sample(found, sample)
        trials += [Trial(module, change) for change in found]
    chance.shuffle(trials)
    return trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the changes; the exit status is 1 if the tests of a module fail without any change."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--modules", nargs="*", default=list(MODULES), choices=list(MODULES), metavar="MODULE")
    parser.add_argument("--sample", type=int, default=10, help="changes of each module; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one run of a module's tests")
    parser.add_argument("--minutes", type=float, default=60.0, help="for everything")
    given = parser.parse_args(arguments)
    broken: list[str] = []
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        ends_at = time.monotonic() + 60 * given.minutes
        mutation = Mutation(Path(folder), given.jobs, given.limit, ends_at)
        with ThreadPoolExecutor(given.jobs) as pool:
            try:
                passing = dict(zip(given.modules, pool.map(mutation.passes, given.modules), strict=True))
                broken = [module for module, passes in passing.items() if passes is False]
                sound = [module for module, passes in passing.items() if passes]
                for _ in pool.map(mutation.attempt, chosen(sound, given.sample, given.seed)):
                    pass
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end the report
                mutation.stop()
    report(mutation.results)
    for module in broken:
        print(f"penstock/{module}: its tests fail, or take longer than {given.limit:g} s, without any change")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
