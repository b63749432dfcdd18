"""For all tests: nothing may be left behind; seeds, and the count of OTP's scenarios."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from penstock.actors.runtime.runtime import Runtime
from penstock.adapters.http import choosing
from tests import samples, scenarios, seeds

_OURS = ("penstock", "loopback-")
_PATIENCE_S = 5.0

# Hypothesis' limits of time would make every property a test of how busy the machine is.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("penstock"), max_examples=20)  # for `make quick`
settings.load_profile("penstock")


def _our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(_OURS)}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a thread of ours running, or a process of a runtime that it has closed."""
    made: list[weakref.ref[Runtime]] = []
    init = Runtime.__init__

    def remember(self: Runtime, *args: object, **kwargs: object) -> None:
        made.append(weakref.ref(self))
        init(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Runtime, "__init__", remember)
    before = _our_threads()
    yield
    deadline = time.monotonic() + _PATIENCE_S
    for thread in _our_threads() - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = sorted(thread.name for thread in _our_threads() - before)
    assert not left, f"threads left behind: {left}"
    for ref in made:
        runtime = ref()
        if runtime is not None and runtime._closed:
            assert not runtime.processes(), f"processes left behind: {runtime.processes()}"


@pytest.fixture(scope="module", params=["threads", "loop"])
def each_reader(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a module twice: with a thread for each call, and with one loop for all.

    `make test` runs each case with one of both, see `tests.samples`. A server of the module that counts its requests
    must ask for this fixture, so that each reader has its own.
    """
    kind: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "_FEW", 0 if kind == "loop" else 1_000_000)
        yield kind


def pytest_addoption(parser: pytest.Parser) -> None:
    seeds.add_options(parser)
    samples.add_options(parser)
    parser.addoption("--judges", action="store_true", help="run all that other programs can judge, and no sample of it")
    parser.addoption("--soak", type=float, default=0.0, help="kill processes under load for so many seconds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    seeds.seed_the_test(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seeds.leave_out_the_seedless(config, items)
    samples.leave_out_the_rest(config, items)
    if not (config.getoption("--judges") or config.getoption("--whole")):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_collection_finish(session: pytest.Session) -> None:
    scenarios.mark_items(session.items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seeds.add_replay(item, report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seeds.write_replays(terminalreporter)
    scenarios.write_count(terminalreporter)
