"""Reading finds every move that the code of a machine may make, and a change of the code is noticed."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from penstock.actors.agent.actor import AgentProcess
from penstock.actors.agent.toolround import ToolRound
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.statetable import END, START
from penstock.actors.runtime.transitions import (
    Call,
    Cast,
    Event,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    StateTimeout,
    Stop,
    Transition,
    answer,
    timeout,
)
from tests.diagrams.machines import MACHINES, moves_of
from tests.diagrams.reading import Found, Reader

_GO: Final = Internal("go")
_ALARM: Final = "alarm"


class Open(msgspec.Struct, frozen=True):
    code: int = 0


class Shut(msgspec.Struct, frozen=True):
    pass


class Machine(StateMachine):
    """What the machines of these tests have in common."""

    def init(self) -> Any:
        self._before = "shut"
        return "shut"

    def shut(self, event: Event) -> Transition:
        return self._in_any_state(event)

    def open(self, event: Event) -> Transition:
        return self._in_any_state(event)

    def _in_any_state(self, event: Event) -> Transition:
        return self.unhandled(event)


def moves(machine: type, **more: Any) -> set[Found]:
    return Reader(machine, **more).machine_moves()


def test_a_state_method_is_read_for_every_event_that_the_code_names() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            match event:
                case Call(message=Open(code=7)):
                    return Next("open", answer(event.reply_to), timeout(_ALARM, 5.0))
                case Call(message=Open()):
                    return Keep(answer(event.reply_to))
            return self._in_any_state(event)

        def open(self, event: Event) -> Transition:
            if event.__class__ is StateTimeout or event is _GO:
                return Next("shut")
            if isinstance(event, Cast) and isinstance(event.message, Shut):
                return Next("shut")
            return self._in_any_state(event)

        def _in_any_state(self, event: Event) -> Transition:
            match event:
                case NamedTimeout(name="alarm"):
                    return Stop()
                case Cast(message=Shut()):
                    return None
            return self.unhandled(event)

    assert moves(Door) == {
        (START, "start", "shut"),
        ("shut", "Open", "open"),
        ("open", "state timeout", "shut"),
        ("open", "go", "shut"),
        ("open", "Shut", "shut"),
        ("shut", "alarm timeout", END),
        ("open", "alarm timeout", END),
    }


def test_what_is_not_known_goes_both_ways() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            if event is not _GO:
                return None
            while self.runtime.timers:
                if not self._try():
                    break
            else:
                return self._to("open" if self.data else "ajar")
            return Stop()

        def ajar(self, event: Event) -> Transition:
            try:
                self.data.check()
            except ValueError:
                return Next("shut")
            return None

        def _try(self) -> bool:
            return (limit := len(self.data)) > 3 and limit < 5

        def _to(self, state: str) -> Next:
            self.data = state
            return Next(state)

    assert moves(Door) == {
        (START, "start", "shut"),
        ("shut", "go", "open"),
        ("shut", "go", "ajar"),
        ("shut", "go", END),
        ("ajar", "go", "shut"),
    }


def test_what_is_known_goes_one_way() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            return self._turn(None) if event is _GO else None

        def open(self, event: Event) -> Transition:
            return self._turn("shut") if event is _GO else None

        def _turn(self, state: str | None, *, again: bool = False) -> Transition:
            was_open = self._state == "open"
            if was_open and state is None:
                return Next("never")
            if state is None and not (was_open or self._state in ("ajar", "open")):
                return Next("open")
            return Next(state) if state is not None else Stop()

    assert moves(Door) == {(START, "start", "shut"), ("shut", "go", "open"), ("open", "go", "shut")}


def test_a_state_that_was_put_by_is_known_again() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            return self._rest() if event is _GO else None

        def open(self, event: Event) -> Transition:
            return self._rest() if event is _GO else None

        def resting(self, event: Event) -> Transition:
            if event.__class__ is StateTimeout:
                return Next(self._before)
            return Next("open") if event is _GO else None

        def _rest(self) -> Transition:
            self._before = self._state
            return Next("resting")

    assert moves(Door) == {
        (START, "start", "shut"),
        ("shut", "go", "resting"),
        ("open", "go", "resting"),
        ("resting", "state timeout", "shut"),
        ("resting", "state timeout", "open"),
        ("resting", "go", "open"),
    }


def test_an_attribute_is_kept_in_mind_if_that_is_asked_for() -> None:
    class Door(Machine):
        def init(self) -> Any:
            self._key: object | None = None
            return "shut"

        def shut(self, event: Event) -> Transition:
            return self._turn(event) if event is _GO else None

        def open(self, event: Event) -> Transition:
            self._key = None
            return Next("shut") if event is _GO else self._turn(event)

        def _turn(self, event: Event) -> Transition:
            if self._key is not None:
                return Stop()
            self._key = object()
            return Next("open")

    assert ("shut", "go", END) in moves(Door)
    assert moves(Door, keep=["self._key"]) == {
        (START, "start", "shut"),
        ("shut", "go", "open"),
        ("open", "go", "shut"),
    }


class Latch:
    """A part of a machine, with a state of its own."""

    def __init__(self) -> None:
        self.state = "up"

    def handle(self, latch: Latch, event: Event) -> bool | None:
        if event is _GO:
            latch.state = "down" if latch.state == "up" else "up"
            return True
        return None


def test_methods_of_other_objects_are_read_if_they_are_named() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            if self.data.handle(self.data, event) is None:
                return Stop() if event.__class__ is StateTimeout else None
            return Next("open")

    assert moves(Door, follow={"handle": Latch}) == {
        (START, "start", "shut"),
        ("shut", "go", "open"),
        ("shut", "state timeout", END),
    }


def test_an_attribute_may_be_the_state() -> None:
    reader = Reader(Latch, cell="latch.state")
    assert reader.cell_moves("handle", ["up", "down"]) == {("up", "go", "down"), ("down", "go", "up")}


def test_a_state_that_cannot_be_read_is_an_error() -> None:
    class Door(Machine):
        def shut(self, event: Event) -> Transition:
            return Next(self.data[0]) if event is _GO else None

    with pytest.raises(NotImplementedError, match="cannot be read"):
        moves(Door)


class AnotherWay(AgentProcess):
    """It answers `Decide` with a move that is in no table."""

    def idle(self, event: Event) -> Transition:
        return self._to("working") if isinstance(event, Call) else self._in_any_state(event)


class OneWayLess(AgentProcess):
    """Its calls are never all done."""

    def working(self, event: Event) -> Transition:
        return self._in_any_state(event)


@pytest.mark.parametrize(
    ("changed", "added", "lost"),
    [
        (AnotherWay, ("idle", "Decide", "working"), None),
        (OneWayLess, None, ("working", "TaskDone", "asking")),
    ],
)
def test_a_machine_that_is_changed_is_no_longer_like_its_table(
    changed: type, added: Found | None, lost: Found | None
) -> None:
    found = moves(changed, follow={"handle": ToolRound, "go_on": ToolRound})
    allowed = moves_of(MACHINES["agent"].table)
    assert found - allowed == ({added} if added else set())
    assert lost is None or lost in allowed - found
