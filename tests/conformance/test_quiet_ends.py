"""Which ends of streams and calls the handler hears of: those after which something is left for it to do."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock.actors.stream.messages import Fail
from penstock.supervisors.spec import ChildExited
from penstock.supervisors.system.handler import StreamHandler
from penstock.testing.scripted import ScriptedProvider
from penstock.testing.systems import SimulatedSystem


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """By which supervisor the handler was told of an end."""
    heard: list[str | None] = []
    plain = StreamHandler._child_exited

    def note(handler: StreamHandler, exited: ChildExited) -> None:
        heard.append(exited.supervisor)
        plain(handler, exited)

    monkeypatch.setattr(StreamHandler, "_child_exited", note)
    return heard


@pytest.mark.parametrize(
    ("how", "on_orphan", "told"),
    [
        ("stop", "cancel", []),
        ("cancel", "cancel", []),
        ("stop", "continue", []),
        ("stop", 30.0, ["streams"]),  # it may linger
        ("fail", "cancel", ["streams"]),  # the failure is logged
        ("kill", "cancel", ["streams"]),
    ],
)
def test_the_handler_hears_of_a_stream_only_if_something_is_left_to_do(
    how: str, on_orphan: Any, told: list[str], heard: list[str | None]
) -> None:
    with SimulatedSystem(seed=1) as system:
        stream = system.open_stream(on_orphan=on_orphan)
        record = stream._record
        assert record.ref is not None
        if how == "stop":
            stream.stop()
        elif how == "cancel":
            stream.cancel()
        elif how == "fail":
            record.propose(Fail(penstock.SourceError(stream.stream_id, ValueError())))
        else:
            system.simulation.runtime.exit(record.ref, "kill")
        system.settle()
        assert record.is_over
        assert record.is_announced
        assert heard == told
        assert not [process for process in system.simulation.runtime.processes() if "stream/" in process.label]


def test_of_a_call_that_is_done_the_handler_hears_nothing(heard: list[str | None]) -> None:
    with SimulatedSystem(seed=1) as system:
        stream = system.chat("model", "Hello", provider=ScriptedProvider(["One ", "two"]))
        assert stream.result().text == "One two"
        system.settle()
        assert heard == []
