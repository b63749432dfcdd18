"""The record of one agent: its history, its queue, and the turn under way.

Like a stream's record, it outlives the agent's process, which may crash and be restarted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from penstock.actors.agent.coroutines import ToolLoops
from penstock.actors.agent.history import History, Message, PastTurn
from penstock.actors.agent.keeping import AgentKeeper
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
from penstock.config.logs import get_logger
from penstock.errors import AgentBusy, AgentStopped
from penstock.events import Cost, ToolCall, ToolResult, Usage
from penstock.ports import ChatCall, Tool

__all__ = ["Advance", "AgentRecord", "AgentStatistics", "Approve"]

Approve: TypeAlias = Callable[[ToolCall], bool | Awaitable[bool | None] | None]
"""Called before a call is run: True runs it, False denies it, None leaves it to `Agent.approve` and `Agent.deny`.

May be async."""


class Advance(Ephemeral, msgspec.Struct, frozen=True):
    """Sent to an agent's process when its record has changed."""


class AgentStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one agent, over the turns that have ended."""

    name: str
    state: str
    turns: int
    """Messages that were answered, or whose answer was cancelled or failed."""
    queued: int
    """Messages that wait for their answer to begin."""
    history_messages: int
    history_dropped: int
    """Messages dropped from the history for lack of room."""
    tool_calls: int
    """Calls that the model made."""
    tool_errors: int
    """Calls that did not end with the tool's result."""
    usage: Usage | None
    """The sum of the reported usage."""
    cost: Cost | None
    restarts: int
    """How often its process was restarted after a crash."""


class AgentRecord:
    """The state of one agent that outlives its process. Any thread may use it.

    An abandoned process may still run for a moment. Methods that only the agent's process may call take its ref as
    ``by``: a process that has been replaced exits there, and changes nothing.
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
        loops: ToolLoops,
        keeper: AgentKeeper | None = None,
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
        self.loops = loops
        self.keeper = keeper  # None: the history is not stored
        self.serial = 0  # assigned by the table; distinguishes records that have had the same name
        self.ref: ProcessRef | None = None  # the present process
        self.state = "idle"
        self.turn: Turn | None = None  # under way, or ended and not yet cleared
        self.is_closed = False  # takes no more messages, and ends after the turn under way
        self.is_abandoned = False  # its handle is gone: it ends when its queue has been answered
        self.over = Reply(runtime.dispatcher, f"the end of agent {name!r}")
        self.starts = 0
        self.lock = threading.RLock()  # guards the queue, the history, and the turn's way into it
        self._history = history
        self._queue: deque[Turn] = deque()
        self._reserved = 0
        self._turns = self._tool_calls = self._tool_errors = 0
        self._usage: Usage | None = None
        self._cost: Cost | None = None

    def __repr__(self) -> str:
        return f"AgentRecord({self.name!r}, {self.state})"

    def take_over(self, by: ProcessRef) -> Turn | None:
        """Make ``by`` the agent's process; returns the turn under way."""
        with self.lock:
            self.ref = by
            self.starts += 1
            return self.turn

    def _check(self, by: ProcessRef) -> None:
        if self.ref is not by:
            raise ProcessExit(KILLED)

    def tell(self, message: Any) -> None:
        """Send a message to the agent's process. One that is being restarted reads the record when it starts."""
        ref = self.ref
        if ref is not None and self.runtime.is_alive(ref):
            ref.tell(message)

    # --- messages in -------------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Reserve a place in the queue for a message whose stream is still to be opened. Call `submit` afterwards.

        Raises:
            AgentBusy: the queue is full.
            AgentStopped: it is closed.
        """
        with self.lock:
            if self.is_closed:
                raise AgentStopped(self.name)
            is_busy = self.turn is not None and not self.turn.stream.is_over
            if self._reserved + self._queued() + is_busy > self.options.max_queue:
                raise AgentBusy(self.name, self.options.max_queue)
            self._reserved += 1

    def submit(self, turn: Turn | None) -> None:
        """Queue a turn in the reserved place, or give the place back (None).

        Raises:
            AgentStopped: it is closed; the turn is not queued.
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

    def _queued(self) -> int:
        """How many turns wait. After the end of its stream a turn does not, even before `_stream_over` is called."""
        return sum(not turn.stream.is_over for turn in self._queue)

    def _stream_over(self, turn: Turn) -> None:
        with self.lock:
            if turn in self._queue:  # the answer was cancelled before the model was asked
                self._queue.remove(turn)
        self.tell(Advance())

    def take(self, by: ProcessRef) -> Turn | None:
        """Take the next turn, which is then under way; there must be no other one. None if the queue is empty."""
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
        """Note that the answer begins. If the process crashes after this, the turn is not answered again."""
        with self.lock:
            self._check(by)
            turn.has_begun = True

    def close(self) -> list[Turn]:
        """Take no more messages; returns the turns that have not ended."""
        with self.lock:
            self.is_closed = True
            turns = [*([self.turn] if self.turn is not None else ()), *self._queue]
            self._queue.clear()
        self.tell(Advance())
        return turns

    def end(self) -> None:
        """Note that the agent has ended for good."""
        self.state = "ended"
        self.quota.forget(self)
        with contextlib.suppress(queue.Full):
            self.over.set()

    def cancel_all(self, reason: str) -> list[Turn]:
        """Take no more messages, and cancel the streams of all turns; returns the turns."""
        turns = self.close()
        for turn in turns:
            turn.stream.propose(Cancel(reason))
        return turns

    def abandon(self) -> None:
        """Note that the handle is gone: the agent ends when its queue has been answered."""
        self.is_abandoned = True
        self.tell(Advance())

    # --- the history -------------------------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Add the turn under way to the history if its stream has ended; returns False if the stream still runs.

        This is called before every use of the history, so that the history is up to date once the stream has ended,
        even if the agent's process has not been notified yet.
        """
        with self.lock:
            turn = self.turn
            if turn is None or turn.is_settled:
                return True
            terminal = turn.stream.log.terminal
            if terminal is None:
                return False
            past = self._past_of(turn) if turn.has_begun and not turn.is_refused() else None
            turn.is_settled = True  # after this, nothing below can fail
            if turn.has_begun:
                self._turns += 1
                is_first = self._turns == 1  # before it, None is nothing; after it, None is not known
                self._usage = (
                    terminal.usage if is_first else add_usages([self._usage, terminal.usage], none_is_unknown=True)
                )
                self._cost = terminal.cost if is_first else add_costs([self._cost, terminal.cost], none_is_unknown=True)
                if past is not None:
                    self._history.add(past)
                    if self.keeper is not None:
                        self.keeper.add(past, self._history.past_messages)
            return True

    def _past_of(self, turn: Turn) -> PastTurn:
        """The turn's entry in the history; its words alone if the rest cannot be sent to any provider."""
        try:
            return turn.past()
        except (RecursionError, TypeError, ValueError) as error:
            get_logger(agent=self.name).warning("turn_kept_as_text", error=type(error).__name__)
            return turn.past_words()

    def clear(self, by: ProcessRef) -> None:
        """Remove the turn under way if it is settled. No process must work on it."""
        with self.lock:
            self._check(by)
            if self.turn is not None and self.turn.is_settled:
                self.turn = None

    def request(self, turn: Turn) -> list[Message]:
        """The messages to send to the model for the turn's next round."""
        with self.lock:
            return self._history.request(turn.to_send())

    def messages(self) -> tuple[Message, ...]:
        """The history of all turns that have ended, as a copy."""
        with self.lock:
            self.settle()
            return self._history.messages()

    def past_messages(self) -> list[Message]:
        """The history of all turns that have ended, without the instructions. It must not be changed."""
        with self.lock:
            return self._history.past_messages()

    def set_history(self, system: list[Message], turns: list[PastTurn]) -> None:
        """Replace the history of all turns that have ended. The turn under way is added when it ends."""
        with self.lock:
            self.settle()
            self._history.replace(system, turns)
            if self.keeper is not None:
                self.keeper.replace(self._history.past_messages())
            if self.turn is not None:
                self.turn.used_ids |= self._history.call_ids()

    def forget(self, turns: int) -> int:
        """Remove the newest turns that have ended from the history; returns how many."""
        with self.lock:
            self.settle()
            count = self._history.forget(turns)
            if self.keeper is not None:
                self.keeper.forget(count)
            return count

    def begin_calls(self, turn: Turn, outcome: Outcome, calls: list[ToolRun], by: ProcessRef) -> None:
        """Note the calls with which a round has ended."""
        with self.lock:
            self._check(by)
            if not turn.is_settled:
                turn.stream.rounds = (*turn.stream.rounds, outcome)
                turn.calls = calls
                self._tool_calls += len(calls)

    def pause_round(self, turn: Turn, outcome: Outcome, by: ProcessRef) -> None:
        """Note that the provider has paused in the middle of its message."""
        with self.lock:
            self._check(by)
            if not turn.is_settled:
                turn.stream.rounds = (*turn.stream.rounds, outcome)
                turn.paused.append(outcome)
                turn.pauses += 1

    def set_result(self, turn: Turn, call: ToolRun, result: ToolResult, by: ProcessRef) -> None:
        """Set the result of a call, unless it has one or the turn is settled."""
        with self.lock:
            self._check(by)
            if not turn.is_settled and call.result is None:
                call.result = result
                call.state = "done"
                self._tool_errors += result.status != "ok"

    def end_calls(self, turn: Turn, by: ProcessRef) -> None:
        """Note that all calls of the round have their results."""
        with self.lock:
            self._check(by)
            if not turn.is_settled:
                turn.rounds.append(turn.round_under_way())
                turn.calls, turn.paused = [], []

    def statistics(self) -> AgentStatistics:
        """A snapshot. Never blocks on the agent's process."""
        with self.lock:
            self.settle()
            return AgentStatistics(
                name=self.name,
                state=self.state,
                turns=self._turns,
                queued=self._queued(),
                history_messages=len(self._history),
                history_dropped=self._history.dropped,
                tool_calls=self._tool_calls,
                tool_errors=self._tool_errors,
                usage=self._usage,
                cost=self._cost,
                restarts=max(0, self.starts - 1),
            )
