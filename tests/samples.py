"""Samples: what takes long in many alike cases runs in part in `make test`, and whole in `make whole`.

``@pytest.mark.sample(5)`` on a test, or as a module's ``pytestmark``, leaves one in five of a test's cases, but at
least one. A test that uses `each_reader` runs each of its cases with one of both readers. What is left is chosen by a
checksum of the test's name, so it is the same on every machine and in every worker. ``thorough`` is for tests of which
nothing runs in `make test`.

``--whole`` runs everything. So do ``--judges`` and ``--seeds`` for what they select, and a test that is named on the
command line, with ``::``, always runs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

__all__ = ["add_options", "leave_out_the_rest"]

_READERS = ("threads", "loop")


def add_options(parser: pytest.Parser) -> None:
    """Add ``--whole``."""
    parser.addoption("--whole", action="store_true", help="run every case of every test, and no sample")


def leave_out_the_rest(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not in the sample."""
    if config.getoption("--whole") or config.getoption("--judges") or config.getoption("--seeds") is not None:
        return
    named = _named(config)
    kept = {item.nodeid for item in _sample(items)}
    left_out = [item for item in items if item.nodeid not in kept and not item.nodeid.startswith(named)]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


def _sample(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    found: list[pytest.Item] = []
    cases: dict[str, list[pytest.Item]] = defaultdict(list)  # by test
    for item in items:
        if _is_of_other_reader(item):
            continue
        if item.get_closest_marker("sample") is None:
            found.append(item)
        else:
            cases[item.nodeid.partition("[")[0]].append(item)
    for of_test in cases.values():
        marker = of_test[0].get_closest_marker("sample")
        assert marker is not None
        of_test.sort(key=lambda item: crc32(item.nodeid.encode()))
        found += of_test[: -(-len(of_test) // marker.args[0])]
    return found


def _is_of_other_reader(item: pytest.Item) -> bool:
    """Whether the same case runs with the other one of both readers."""
    call: Any = getattr(item, "callspec", None)
    if call is None or "each_reader" not in call.params:
        return False
    reader: str = call.params["each_reader"]
    others = call.id.split("-")
    others.remove(reader)
    case = "-".join((item.nodeid.partition("[")[0], *others))
    return _READERS[crc32(case.encode()) % 2] != reader


def _named(config: pytest.Config) -> tuple[str, ...]:
    """How the names of the tests that were asked for by name begin."""
    found: list[str] = []
    for argument in config.args:
        path, is_test, rest = argument.partition("::")
        if is_test:
            path = os.path.relpath(config.invocation_params.dir / path, config.rootpath)
            found.append(f"{Path(path).as_posix()}::{rest}")
    return tuple(found)
