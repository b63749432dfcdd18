"""What is known of an agent beyond any process's life: its history, what waits, and the turn under way.

As a stream's log outlives its actor, this outlives the agent's process, which may crash and be restarted around it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from penstock.actors.agent.history import History, Message
from penstock.actors.agent.task import Job, ThreadQuota
from penstock.actors.agent.turn import ToolRun, Turn
from penstock.actors.call.record import CallRecord, Conductor
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import KILLED, Ephemeral, ProcessExit
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.outcome import Outcome, add_costs, add_usages
from penstock.actors.stream.record import StreamRecord
from penstock.config.agents import AgentOptions
from penstock.errors import AgentBusy, AgentStopped
from penstock.events import Cost, ToolCall, ToolResult, Usage
from penstock.ports import ChatCall, Tool

__all__ = ["Advance", "AgentRecord", "AgentStatistics", "Approve"]

Approve: TypeAlias = Callable[[ToolCall], bool | None]
"""Asked before a call is run: True runs it, False denies it, None leaves it to `Agent.approve` and `Agent.deny`."""


class Advance(Ephemeral, msgspec.Struct, frozen=True):
    """Told to an agent when something has changed in its record: look at it."""


class AgentStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has done. Of turns that have ended."""

    name: str
    state: str
    turns: int
    """Messages that were answered, or whose answer was cancelled or has failed."""
    queued: int
    """Messages that wait."""
    history_messages: int
    history_dropped: int
    """Messages that the history had no room for any more."""
    tool_calls: int
    """Calls that the model asked for."""
    tool_errors: int
    """Calls that came to anything else than the tool's result."""
    usage: Usage | None
    """The sum of what was told."""
    cost: Cost | None
    restarts: int
    """How often its process was restarted after a crash."""


class AgentRecord:
    """Everything of one agent that does not die with its process. Methods may be called from any thread.

    A process that was given up may still run a few lines. What only the agent's process may do it does ``by`` its ref:
    one that another has taken the place of ends there, and changes nothing.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        model: str,
        tools: Mapping[str, Tool],
        parameters: Mapping[str, Any],
        options: AgentOptions,
        history: History,
        approve: Approve | None,
        make_call: Callable[[ChatCall, Conductor], CallRecord],
        start_call: Callable[[StreamRecord], None],
        start_task: Callable[[Job], Reply],
        quota: ThreadQuota,
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.model = model
        self.tools = tools
        self.parameters = parameters
        self.options = options
        self.approve = approve
        self.make_call = make_call
        self.start_call = start_call
        self.start_task = start_task
        self.quota = quota
        self.serial = 0  # given by the table: tells it from others that have had its name
        self.ref: ProcessRef | None = None  # the process that is the agent right now
        self.state = "idle"
        self.turn: Turn | None = None  # under way, or over and not cleared away yet
        self.is_closed = False  # takes no messages any more, and ends when the turn under way is over
        self.is_abandoned = False  # nobody holds it: it ends when it has answered what it was asked
        self.over = Reply(runtime.dispatcher, f"the end of agent {name!r}")
        self.starts = 0
        self.lock = threading.RLock()  # guards the queue, the history, and what a turn becomes in it
        self._history = history
        self._queue: deque[Turn] = deque()
        self._reserved = 0
        self._turns = self._tool_calls = self._tool_errors = 0
        self._usage: Usage | None = None
        self._cost: Cost | None = None

    def __repr__(self) -> str:
        return f"AgentRecord({self.name!r}, {self.state})"

    def take_over(self, by: ProcessRef) -> Turn | None:
        """Be the agent from now on; returns the turn that is under way."""
        with self.lock:
            self.ref = by
            self.starts += 1
            return self.turn

    def _check(self, by: ProcessRef) -> None:
        if self.ref is not by:
            raise ProcessExit(KILLED)

    def tell(self, message: Any) -> None:
        """Tell the agent's process, if it lives; one that is being restarted looks at the record when it is back."""
        ref = self.ref
        if ref is not None and self.runtime.is_alive(ref):
            ref.tell(message)

    # --- messages in ---------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Keep a place in the queue for a message whose stream is to be opened; to be followed by `submit`.

        Raises:
            AgentBusy: the queue is full.
            AgentStopped: it takes no messages any more.
        """
        with self.lock:
            if self.is_closed:
                raise AgentStopped(self.name)
            is_busy = self.turn is not None and not self.turn.stream.is_over
            if self._reserved + len(self._queue) + is_busy > self.options.max_queue:
                raise AgentBusy(self.name, self.options.max_queue)
            self._reserved += 1

    def submit(self, turn: Turn | None) -> None:
        """Queue a turn in the place that was kept, or (None) give that back.

        Raises:
            AgentStopped: it takes no messages any more; the turn is not queued.
        """
        with self.lock:
            self._reserved -= 1
            if turn is None:
                return
            if self.is_closed:
                raise AgentStopped(self.name)
            self._queue.append(turn)
        turn.stream.over.when_done(lambda: self._stream_over(turn))
        self.tell(Advance())

    def _stream_over(self, turn: Turn) -> None:
        with self.lock:
            if turn in self._queue:  # nobody wants the answer any more, and the question has not been asked
                self._queue.remove(turn)
        self.tell(Advance())

    def take(self, by: ProcessRef) -> Turn | None:
        """The next turn, which is under way from now on; only when there is none."""
        with self.lock:
            self._check(by)
            assert self.turn is None
            while self._queue:
                turn = self._queue.popleft()
                if not turn.stream.is_over:
                    self.turn = turn
                    turn.used_ids = self._history.call_ids()
                    return turn
            return None

    def begin(self, turn: Turn, by: ProcessRef) -> None:
        """It begins to be answered, and if whoever does that crashes, nobody else does."""
        with self.lock:
            self._check(by)
            turn.has_begun = True

    def close(self) -> list[Turn]:
        """Take no messages any more; returns the turns that have not ended."""
        with self.lock:
            self.is_closed = True
            turns = [*([self.turn] if self.turn is not None else ()), *self._queue]
            self._queue.clear()
        self.tell(Advance())
        return turns

    def end(self) -> None:
        """It is gone for good."""
        self.state = "ended"
        self.quota.forget(self)
        with contextlib.suppress(queue.Full):
            self.over.set()

    def cancel_all(self, reason: str) -> list[Turn]:
        """Take no messages any more, and let every turn end in `StreamCancelled`; returns them."""
        turns = self.close()
        for turn in turns:
            turn.stream.propose(Cancel(reason))
        return turns

    def abandon(self) -> None:
        """Nobody holds it any more."""
        self.is_abandoned = True
        self.tell(Advance())

    # --- the history ---------------------------------------------------------------------------------------------

    def settle(self) -> bool:
        """If the stream of the turn under way is over, enter the turn into the history; whether it is entered.

        Whoever wants to know the history does this first. So it is up to date for whoever has seen the stream's end,
        whether the agent's process has heard of that or not.
        """
        with self.lock:
            turn = self.turn
            if turn is None or turn.is_settled:
                return True
            terminal = turn.stream.log.terminal
            if terminal is None:
                return False
            turn.is_settled = True
            if turn.has_begun:
                self._turns += 1
                self._usage = add_usages([self._usage, terminal.usage])
                self._cost = add_costs([self._cost, terminal.cost])
                self._history.add(turn.past())
            return True

    def clear(self, by: ProcessRef) -> None:
        """The turn under way is settled and nothing is at work for it any more."""
        with self.lock:
            self._check(by)
            if self.turn is not None and self.turn.is_settled:
                self.turn = None

    def request(self, turn: Turn) -> list[Message]:
        """What to send to the model for the turn's next round."""
        with self.lock:
            return self._history.request(turn.messages())

    def messages(self) -> tuple[Message, ...]:
        """The history of all turns that have ended, as a copy."""
        with self.lock:
            self.settle()
            return self._history.messages()

    def begin_calls(self, turn: Turn, outcome: Outcome, calls: list[ToolRun], by: ProcessRef) -> None:
        """A round has ended in calls."""
        with self.lock:
            self._check(by)
            if not turn.is_settled:
                turn.stream.rounds.append(outcome)
                turn.calls = calls
                self._tool_calls += len(calls)

    def set_result(self, turn: Turn, call: ToolRun, result: ToolResult, by: ProcessRef) -> None:
        """Note what a call has come to, if that still counts."""
        with self.lock:
            self._check(by)
            if not turn.is_settled and call.result is None:
                call.result = result
                call.state = "done"
                self._tool_errors += result.status != "ok"

    def end_calls(self, turn: Turn, by: ProcessRef) -> None:
        """All calls of the round have their results."""
        with self.lock:
            self._check(by)
            if not turn.is_settled:
                turn.rounds.append(turn.round_under_way())
                turn.calls = []

    def statistics(self) -> AgentStatistics:
        """A snapshot; asks nobody."""
        with self.lock:
            self.settle()
            return AgentStatistics(
                name=self.name,
                state=self.state,
                turns=self._turns,
                queued=len(self._queue),
                history_messages=len(self._history),
                history_dropped=self._history.dropped,
                tool_calls=self._tool_calls,
                tool_errors=self._tool_errors,
                usage=self._usage,
                cost=self._cost,
                restarts=max(0, self.starts - 1),
            )
