"""Record the moves that state machines make while they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from penstock.actors.agent.toolround import ToolRound
from penstock.actors.agent.turn import ToolRun
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.statetable import END, START
from penstock.actors.runtime.transitions import Next, Stop
from penstock.errors import StartError
from tests.diagrams.reading import Found
from tests.diagrams.values import label

__all__ = ["Recorder", "recording"]


class Recorder:
    """The moves that were made.

    Attributes:
        moves: by class.
        entry: how the round of function calls that is at work was entered.
    """

    def __init__(self) -> None:
        self.moves: dict[type, set[Found]] = {}
        self.entry = ""

    def note(self, machine: type, source: str, event: str, target: str) -> None:
        if source != target:
            self.moves.setdefault(machine, set()).add((source, event, target))


@contextmanager
def recording() -> Iterator[Recorder]:
    """Note every move of every machine, and of the calls of agents."""
    recorder = Recorder()
    with ExitStack() as stack:
        for patched in (*_machines(recorder), *_calls(recorder)):
            stack.enter_context(patched)
        yield recorder


def _machines(recorder: Recorder) -> Iterator[Any]:
    begin, apply = StateMachine._begin, StateMachine._apply

    def noted_begin(self: StateMachine) -> None:
        try:
            begin(self)
        except StartError:
            recorder.note(type(self), START, "start", END)
            raise
        recorder.note(type(self), START, "start", self.state)

    def noted_apply(self: StateMachine, result: Any, event: Any, *, first: bool = False) -> bool:
        if not first and isinstance(result, (Next, Stop)):
            target = result.state if isinstance(result, Next) else END
            recorder.note(type(self), self.state, label(event), target)
        return apply(self, result, event, first=first)

    yield patch.object(StateMachine, "_begin", noted_begin)
    yield patch.object(StateMachine, "_apply", noted_apply)


def _calls(recorder: Recorder) -> Iterator[Any]:
    slot: Any = vars(ToolRun)["state"]

    def set_state(call: ToolRun, state: str) -> None:
        source = _value(slot, call)
        slot.__set__(call, state)
        recorder.note(ToolRun, source or START, recorder.entry if source else "start", state)

    yield patch.object(ToolRun, "state", property(lambda call: slot.__get__(call), set_state))
    for name in ("begin", "refuse", "handle", "go_on"):
        yield patch.object(ToolRound, name, _entered(recorder, name, getattr(ToolRound, name)))


def _value(slot: Any, call: ToolRun) -> str | None:
    try:
        value: str = slot.__get__(call)
    except AttributeError:
        return None
    return value


def _entered(recorder: Recorder, name: str, method: Any) -> Any:
    def entered(self: ToolRound, *arguments: Any) -> Any:
        recorder.entry = label(arguments[0]) if name == "handle" else name
        return method(self, *arguments)

    return entered
