"""The seeds under which tests of the simulation run, and how to replay one seed.

A test that takes a ``seed``, itself or through a fixture, gives its default number with ``@pytest.mark.seeds(50)``.
With ``threads=True`` it also gets the seed ``"threads"``, unless it uses the fixture ``virtual``. ``--seeds N`` and
``--first-seed K`` choose other seeds; ``--seeds`` also deselects tests without a seed. A failing test prints the
command that replays its seed. Seeds are consecutive, so two or more cover both modes of the simulated reader.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

_REPLAY: Final = "replay"


def add_options(parser: pytest.Parser) -> None:
    """Add ``--seeds`` and ``--first-seed``."""
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=None, help="seeds for each test of the simulation (default: few)")
    group.addoption("--first-seed", type=int, default=0, help="the first of them")


def seed_the_test(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a seed once for each seed."""
    marker = metafunc.definition.get_closest_marker("seeds")
    if marker is None or "seed" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption("--seeds")
    first: int = metafunc.config.getoption("--first-seed")
    values: list[Any] = list(range(first, first + (marker.args[0] if wanted is None else wanted)))
    if marker.kwargs.get("threads") and wanted is None and "virtual" not in metafunc.fixturenames:
        values.append("threads")
    metafunc.parametrize("seed", values)


def leave_out_the_seedless(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests without a seed if ``--seeds`` is given."""
    if config.getoption("--seeds") is None:
        return
    left_out = [item for item in items if _seed_of(item) is None]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _seed_of(item) is not None]


def replay_command(item_id: str, seed: int) -> str:
    """Return the command that runs this test under only this seed."""
    return f"python -m pytest '{item_id}' --first-seed {seed} --seeds 1"


def add_replay(item: pytest.Item, report: pytest.TestReport) -> None:
    """If a test failed under a seed, put the command that replays it into its report."""
    seed = _seed_of(item)
    if report.failed and seed is not None:
        report.sections.append((_REPLAY, replay_command(item.nodeid, seed)))


def write_replays(terminal: Any) -> None:
    """Write the commands that replay the failed tests under the results."""
    failed = (*terminal.stats.get("failed", ()), *terminal.stats.get("error", ()))
    commands = [text for report in failed for name, text in getattr(report, "sections", ()) if name == _REPLAY]
    if commands:
        terminal.section("replay a seed", sep="-")
    for command in dict.fromkeys(commands):
        terminal.write_line(command)


def _seed_of(item: pytest.Item) -> int | None:
    call = getattr(item, "callspec", None)
    seed = None if call is None else call.params.get("seed")
    return seed if isinstance(seed, int) else None
