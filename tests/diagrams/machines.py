"""Every machine that has a state table: how its moves are read from the code, and what reading cannot know."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from penstock.actors.agent.actor import AgentProcess
from penstock.actors.agent.record import AgentRecord
from penstock.actors.agent.states import AGENT, FUNCTION_CALL
from penstock.actors.agent.toolround import ToolRound
from penstock.actors.agent.turn import ToolRun
from penstock.actors.call.breaker import Breaker
from penstock.actors.call.integration import Integration
from penstock.actors.call.states import BREAKER, INTEGRATION
from penstock.actors.runtime.statetable import START, StateTable
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.states import TOKEN_STREAM
from penstock.config.limits import BreakerOptions
from tests.diagrams.reading import Found, Reader

__all__ = ["MACHINES", "UNDRAWN", "Machine", "Never", "moves_of"]


class Never(NamedTuple):
    """Moves that the code seems to allow, and why they do not happen; None is any."""

    reason: str
    on: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None

    def means(self, found: Found) -> bool:
        source, event, target = found
        asked = ((self.sources, source), (self.on, event), (self.targets, target))
        return all(names is None or name in names for names, name in asked)


class Machine(NamedTuple):
    """A machine, its table, and its moves as the code has them."""

    table: StateTable
    recorded: type
    """The class under which its moves are recorded."""
    read: Callable[[], set[Found]]
    never: tuple[Never, ...] = ()


def moves_of(table: StateTable) -> set[Found]:
    """All that a table allows."""
    return {(source, event, target) for move in table.moves for source, target in move.pairs() for event in move.on}


def _function_call() -> set[Found]:
    reader = Reader(ToolRound, follow={"set_result": AgentRecord}, cell="call.state")
    every = [state.name for state in FUNCTION_CALL.states]
    found = {(START, "start", "pending")}
    for entry, states in {"begin": ["pending"], "refuse": ["pending"], "handle": every, "go_on": every}.items():
        found |= reader.cell_moves(entry, states)
    return found


class _Moment(NamedTuple):
    """A circuit breaker at some time, and the epochs with which requests may still report."""

    breaker: Breaker
    now: float = 0.0
    epochs: frozenset[int] = frozenset()

    def circuit(self) -> str:
        return self.breaker.circuit(self.now)

    def outline(self) -> object:
        """Two moments of the same outline have the same future."""
        breaker = self.breaker
        held = frozenset(breaker.epoch - epoch for epoch in self.epochs)
        return self.circuit(), breaker.closed_for(self.now), breaker.failures, held

    def next_ones(self) -> Iterator[tuple[str, _Moment]]:
        """Everything that may come next: time, a request, or the report of one that was let in."""
        yield "time", self._replace(now=self.now + 5.0)
        if self.breaker.closed_for(self.now) == 0:
            after = copy.copy(self.breaker)
            yield "let_in", self._replace(breaker=after, epochs=self.epochs | {after.let_in()})
        for epoch in self.epochs:
            for epochs in (self.epochs, self.epochs - {epoch}):  # several requests may have been let in with it
                for report in ("succeeded", "failed", "abstained"):
                    after = copy.copy(self.breaker)
                    getattr(after, report)(epoch, *([self.now] if report == "failed" else []))
                    yield report, self._replace(breaker=after, epochs=epochs)


def _breaker(steps: int = 7) -> set[Found]:
    """The moves of a circuit breaker: it is small enough to try every sequence of calls."""
    first = _Moment(Breaker(BreakerOptions(span=0, failures=2, cooldown=10.0)))
    found: set[Found] = {(START, "start", first.circuit())}
    here = {first.outline(): first}
    seen = set(here)
    for _ in range(steps):
        reached = {}
        for moment in here.values():
            for event, after in moment.next_ones():
                if after.circuit() != moment.circuit():
                    found.add((moment.circuit(), event, after.circuit()))
                reached[after.outline()] = after
        here = {outline: moment for outline, moment in reached.items() if outline not in seen}
        seen |= set(here)
    return found


MACHINES: Final = {
    "token-stream": Machine(TOKEN_STREAM, TokenStream, lambda: Reader(TokenStream).machine_moves()),
    "provider-call": Machine(
        INTEGRATION,
        Integration,
        lambda: Reader(Integration, keep=["self._attempt"]).machine_moves(),
        (
            Never(
                "what the gate says is not retried, and an answer is forgotten before its successor asks the gate",
                sources=("limited",),
                targets=("retry_wait",),
            ),
            Never(
                "after the first delta, another one is asked from retry_wait, where the stream forgets the answer",
                sources=("streaming",),
                targets=("limited", "queued"),
            ),
        ),
    ),
    "circuit-breaker": Machine(BREAKER, Breaker, _breaker),
    "agent": Machine(
        AGENT,
        AgentProcess,
        lambda: Reader(AgentProcess, follow={"handle": ToolRound, "go_on": ToolRound}).machine_moves(),
    ),
    "function-call": Machine(
        FUNCTION_CALL,
        ToolRun,
        _function_call,
        (
            Never(
                "a decision is taken for a call that waits for approval, and for no other",
                on=("Decide",),
                sources=("pending", "deciding", "running", "done"),
            ),
            Never(
                "only a call that is deciding or running has a task",
                on=("TaskDone", "Down"),
                sources=("pending", "approval"),
            ),
        ),
    ),
}

UNDRAWN: Final = {
    "Emitter": "a part of the token stream",
    "DirectEmitter": "a part of the token stream",
    "_OfferingRequest": "the stand-in for a reader's thread in simulations",
}
"""State machines with several states that have no table, and why."""
