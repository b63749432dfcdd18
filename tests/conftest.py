"""For all tests: nothing may be left behind."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from penstock.actors.runtime.runtime import Runtime

_OURS = ("penstock", "loopback-")
_PATIENCE_S = 5.0


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
