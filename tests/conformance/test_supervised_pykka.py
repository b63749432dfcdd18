"""Plain Pykka actors as children of a supervisor, as far as Pykka lets one see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher
from penstock.actors.runtime.runtime import Runtime
from penstock.supervisors.calls import terminate_child
from penstock.supervisors.plain import PlainActor
from penstock.supervisors.spec import ChildSpec
from penstock.testing import eventually
from tests.conformance.supervision import GENEROUS, World


class Plain(pykka.ThreadingActor):
    """As users write it."""

    use_daemon_thread = True

    def __init__(self, journal: list[Any], broken: list[Any] | None = None) -> None:
        super().__init__()
        self.journal = journal
        self.broken = broken

    def on_start(self) -> None:
        if self.broken:
            raise self.broken.pop()
        self.journal.append("start")

    def on_stop(self) -> None:
        self.journal.append("stop")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        if callable(message):
            return message(self)
        return ("got", message)


@pytest.fixture
def world() -> Iterator[World]:
    dispatcher = ThreadedDispatcher(workers=2)
    timers = TimerThread()
    runtime = Runtime(dispatcher, timers, SystemClock())
    yield World(runtime, lambda condition: eventually(condition, GENEROUS))
    runtime.close()
    assert dispatcher.close(GENEROUS) == 0
    assert len(timers) == 0
    assert timers.close(GENEROUS)
    eventually(lambda: not pykka.ActorRegistry.get_all(), GENEROUS)


def plain(journal: list[Any], restart: Any = "permanent", **more: Any) -> ChildSpec:
    return ChildSpec(id="plain", cls=PlainActor, args=(Plain, journal), name="plain", restart=restart, **more)


def test_it_is_told_and_asked_through_its_ref(world: World) -> None:
    journal: list[Any] = []
    supervisor = world.supervisor([plain(journal)])
    ref = world.ref(supervisor, "plain")
    assert ref.ask("it", timeout=GENEROUS) == ("got", "it")
    ref.tell(lambda actor: actor.journal.append("told"))
    with pytest.raises(LookupError):  # as in Pykka, this ends nothing
        ref.ask(LookupError("in a call"), timeout=GENEROUS)
    assert ref.ask("it", timeout=GENEROUS) == ("got", "it")
    supervisor.terminate(timeout=GENEROUS)
    assert journal == ["start", "told", "stop"]


def test_one_that_crashes_is_restarted_and_its_name_stays_good(world: World) -> None:
    journal: list[Any] = []
    supervisor = world.supervisor([plain(journal, "transient")])
    old = world.ref(supervisor, "plain")
    error = LookupError("crash")
    old.tell(error)
    assert world.dead(old) is error
    world.until(lambda: world.refs(supervisor)["plain"] not in (old, None))
    name: Any = world.runtime.whereis("plain")
    assert name.ask("it", timeout=GENEROUS) == ("got", "it")
    supervisor.terminate(timeout=GENEROUS)
    assert journal == ["start", "start", "stop"]


def test_one_that_stops_by_itself_has_ended_well(world: World) -> None:
    supervisor = world.supervisor([plain([], "transient")])
    ref = world.ref(supervisor, "plain")
    ref.tell(lambda actor: actor.stop())
    assert world.dead(ref) == "normal"
    world.until(lambda: world.states(supervisor) == {"plain": "undefined"})


def test_one_whose_start_fails_is_noticed_all_the_same(world: World) -> None:
    journal: list[Any] = []
    spec = ChildSpec(id="plain", cls=PlainActor, args=(Plain, journal, [LookupError("start")]), restart="transient")
    supervisor = world.supervisor([spec])
    world.until(lambda: journal == ["start"])  # the second one
    assert world.states(supervisor) == {"plain": "running"}
    supervisor.terminate(timeout=GENEROUS)


def test_terminate_child_waits_until_it_has_stopped(world: World) -> None:
    journal: list[Any] = []
    supervisor = world.supervisor([plain(journal)])
    terminate_child(supervisor, "plain", GENEROUS)
    assert journal == ["start", "stop"]


def test_one_that_is_stuck_is_left_behind_and_told_to_stop(world: World) -> None:
    journal: list[Any] = []
    supervisor = world.supervisor([plain(journal, shutdown=0.05)])
    ref = world.ref(supervisor, "plain")
    stuck, release = threading.Event(), threading.Event()

    def hang(_actor: Any) -> None:
        stuck.set()
        release.wait(GENEROUS)

    ref.tell(hang)
    assert stuck.wait(GENEROUS)
    supervisor.terminate(timeout=GENEROUS)
    assert world.dead(ref) == "killed"
    assert journal == ["start"]
    release.set()
    world.until(lambda: journal == ["start", "stop"])


def test_one_whose_stand_in_is_killed_is_stopped(world: World) -> None:
    journal: list[Any] = []
    supervisor = world.supervisor([plain(journal)])
    world.runtime.exit(world.ref(supervisor, "plain"), "kill")
    world.until(lambda: sorted(journal) == ["start", "start", "stop"])
    supervisor.terminate(timeout=GENEROUS)
