"""A stream is opened in its caller's thread, whatever the system's own processes do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.actors.call.integration import Integration
from penstock.actors.runtime import inspect
from penstock.errors import StreamCrashed, StreamExists, SystemStopped
from penstock.events import StreamFailed, TerminalEvent
from penstock.testing import ScriptedProvider, SimulatedSystem, kill

HOUSE = ("handler", "streams", "sources")


class Opened:
    """Does something when a stream has entered the table, and nothing of it has been started."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def opened(self, record: Any) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()

    def happened(self, record: Any, event: Any) -> None: ...

    def called(self, record: Any, feed: Any, error: Any) -> None: ...

    def ended(self, record: Any, terminal: TerminalEvent) -> None: ...


def is_settled(system: SimulatedSystem) -> bool:
    """Whether each stream that was opened has ended and been counted, once."""
    totals = system._table.totals()
    return totals.active == 0 and totals.created == totals.completed + totals.failed + totals.cancelled


def process_of(system: SimulatedSystem, name: str) -> Any:
    ref = system.runtime.whereis(name)
    assert ref is not None
    return ref


def test_opening_waits_for_none_of_the_systems_processes() -> None:
    with SimulatedSystem() as system:
        for name in HOUSE:
            inspect.suspend(process_of(system, name))
        streams = [system.chat("m", "x", provider=ScriptedProvider(["a", "b"])) for _ in range(3)]
        assert [stream.result(timeout=5).text for stream in streams] == ["ab"] * 3
        for name in HOUSE:
            inspect.resume(process_of(system, name))
        assert is_settled(system)


@pytest.mark.parametrize("name", HOUSE)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_stream_is_opened_although_a_process_of_the_system_dies(name: str, when: str) -> None:
    for seed in range(5):
        with SimulatedSystem(seed) as system:
            if when == "before":
                kill(system, name)
            else:
                system._table.observe(Opened(lambda: kill(system, name)))
            provider = ScriptedProvider(["a", "b"])
            stream = system.chat("m", "x", provider=provider, stream_id="s")
            assert stream.result(timeout=20).text == "ab"
            assert provider.requests == 1
            assert is_settled(system)


@pytest.mark.parametrize("name", HOUSE)
def test_ctrl_c_while_a_stream_is_opened_leaves_no_stream_behind(name: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with SimulatedSystem() as system:
        system._table.observe(Opened(interrupt))
        with pytest.raises(KeyboardInterrupt):
            system.chat("m", "x", provider=ScriptedProvider(["a"]), stream_id="s")
        assert is_settled(system)
        kill(system, name)
        again = system.chat("m", "x", provider=ScriptedProvider(["a"]), stream_id="s")
        assert again.result(timeout=20).text == "a"


def test_a_system_that_stops_meanwhile_refuses_and_has_ended_the_stream() -> None:
    system = SimulatedSystem().start()
    system._table.observe(Opened(system.stop))
    with pytest.raises(SystemStopped):
        system.open_stream("s")
    assert is_settled(system)


def test_a_refused_id_changes_nothing_for_the_stream_that_has_it() -> None:
    class Kept:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def append(self, event: Any) -> None:
            self.events.append(event)

    with SimulatedSystem() as system:
        stream = system.open_stream("s", journal=(journal := Kept()))
        with pytest.raises(StreamExists):
            system.open_stream("s", journal=journal)
        assert journal.events == []
        stream.process_token("a")
        stream.stop()
        assert [type(event).__name__ for event in journal.events] == ["TokenEvent", "StreamCompleted"]


def test_a_call_whose_integration_cannot_start_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("x")

    monkeypatch.setattr(Integration, "init", fail)
    with SimulatedSystem() as system:
        stream = system.chat("m", "x", provider=ScriptedProvider(["a"]))
        with pytest.raises(StreamCrashed):
            stream.result(timeout=5)
        assert isinstance(stream._record.log.terminal, StreamFailed)
        assert is_settled(system)


def test_ids_that_are_not_given_are_all_different() -> None:
    with SimulatedSystem() as one, SimulatedSystem() as other:
        ids = [system.open_stream().stream_id for system in (one, other) for _ in range(100)]
    assert len(set(ids)) == 200
    assert all(found.startswith("s-") and found.isprintable() for found in ids)
