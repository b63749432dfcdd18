"""The agent's process: it asks a model, runs the tools that the model calls, and asks again, into one stream.

| state | meaning |
|---|---|
| ``idle`` | no message waits for an answer |
| ``asking`` | the provider streams a round of the answer |
| ``working`` | tools run, or wait for a thread or for approval |
| ``ending`` | the stream emits what is buffered, and ends |

It never blocks: it exchanges messages with streams, sources and tools. Its state is in its `AgentRecord`. After a crash
the turn under way ends in `StreamFailed`, none of its calls is run again, and queued messages are answered afterwards.

Accepts: `Advance` (its record has changed); `RoundEnded` from a source; the messages of `ToolRound`; `Decide` as a
call.
Sends: tool events and the ending to its stream; starts and kills tasks.
Fails: restarted by its supervisor.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.actors.agent.history import distinct_calls
from penstock.actors.agent.record import Advance, AgentRecord
from penstock.actors.agent.results import is_paused, is_runnable
from penstock.actors.agent.task import TaskDone
from penstock.actors.agent.toolround import Decide, Progressed, ToolRound
from penstock.actors.agent.turn import ToolRun, Turn, end_stream
from penstock.actors.call.messages import RoundEnded
from penstock.actors.call.record import CallRecord, Conductor
from penstock.actors.runtime.signals import NORMAL, Down
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Action,
    Call,
    Cast,
    Event,
    Info,
    Internal,
    Keep,
    NamedTimeout,
    Next,
    Stop,
    Transition,
    answer,
    next_event,
)
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import Outcome, all_rounds
from penstock.errors import AgentCrashed, OptionError, PenstockError, ToolRoundsExceeded
from penstock.events import StreamStarted, ToolCall
from penstock.ports import ChatCall, Tool

__all__ = ["AgentProcess"]

_LOOK: Final = Internal("look")


class AgentProcess(StateMachine):
    """See the module's docstring. There is one for each agent, under the supervisor of agents."""

    def init(self, record: AgentRecord) -> Next:
        self._agent = record
        self._turn: Turn | None = None
        self._asked = 0  # requests to the model in this turn
        self._tools: ToolRound | None = None  # the calls of the present round
        turn = record.take_over(self.ref)  # first: from now on, changes of the record are reported to this process
        if turn is None or not turn.has_begun:
            return Next("idle", next_event(_LOOK))
        self._turn = turn
        if not turn.stream.is_over:
            error = AgentCrashed(record.name, "its process crashed during the answer")
            end_stream(turn.stream, Fail(error))
        return Next("ending", next_event(_LOOK))

    @property
    def label(self) -> str:
        """The process's name, which has the agent's."""
        return self.name or super().label

    # --- states --------------------------------------------------------------------------------------------------

    def idle(self, event: Event) -> Transition:
        """No message waits for an answer."""
        return self._in_any_state(event)

    def asking(self, event: Event) -> Transition:
        """The provider streams a round of the answer."""
        match event:
            case Cast(message=RoundEnded(record=stream) as ended) if self._turn and stream is self._turn.stream:
                return self._round_ended(self._turn, ended.outcome, ended.error)
        return self._in_any_state(event)

    def working(self, event: Event) -> Transition:
        """Tools run, or wait."""
        assert self._turn is not None
        assert self._tools is not None
        actions = self._tools.handle(event)
        if actions is None:
            return self._in_any_state(event)
        return self._work(self._turn, self._tools, actions)

    def ending(self, event: Event) -> Transition:
        """The stream emits what is buffered, and ends."""
        return self._in_any_state(event)

    def _in_any_state(self, event: Event) -> Transition:
        match event:
            case Cast(message=Advance()) | Internal():
                return self._advance()
            case Call(message=Decide()):
                return Keep(answer(event.reply_to, False))
            case Cast(message=RoundEnded() | TaskDone() | Progressed()) | Info(message=Down()) | NamedTimeout():
                return None  # of a round that has been abandoned
        return self.unhandled(event)

    # --- turns ---------------------------------------------------------------------------------------------------

    def _advance(self) -> Transition:
        """Act on a change of the record: clear a turn that has ended, and begin the next one."""
        agent = self._agent
        if not agent.settle():
            turn = agent.turn
            if turn is not None and not turn.has_begun:  # taken from the queue just before a crash
                return self._begin_turn(turn)
            return None
        actions = self._tools.abandon() if self._tools is not None else []
        self._turn = self._tools = None
        agent.clear(self.ref)
        turn = None if agent.is_closed else agent.take(self.ref)
        if turn is not None:
            return self._begin_turn(turn, *actions)
        if agent.is_abandoned:
            agent.close()
        if agent.is_closed:
            return Stop(NORMAL)
        return self._to("idle", *actions)

    def _begin_turn(self, turn: Turn, *actions: Action) -> Transition:
        self._turn = turn
        self._asked = 0
        self._agent.begin(turn, self.ref)
        turn.stream.intake.push_event(StreamStarted(model=self._agent.model))
        return self._ask_model(turn, *actions)

    def _ask_model(self, turn: Turn, *actions: Action) -> Transition:
        """Have the provider stream the next round."""
        self._asked += 1
        try:
            turn.stream.feed = turn.stream.context.copy().run(self._make_call, turn)
        except PenstockError as error:
            turn.cannot_be_asked = isinstance(error, OptionError)
            return self._end_turn(turn, Fail(error), *actions)
        except Exception as error:  # in a provider that the user has supplied
            turn.cannot_be_asked = True
            failure = AgentCrashed(self._agent.name, error)
            failure.__cause__ = error
            return self._end_turn(turn, Fail(failure), *actions)
        self._agent.start_call(turn.stream)
        return self._to("asking", *actions)

    def _make_call(self, turn: Turn) -> CallRecord:
        agent, before = self._agent, turn.call
        messages = agent.request(turn)
        if before is None:
            chat = ChatCall(model=agent.model, input=messages, parameters=agent.parameters)
            turn.call = agent.make_call(chat, Conductor(agent.name, self.ref))
            return turn.call
        # A forced tool call applies to the first round only, or the model would call tools for ever.
        must_call = agent.parameters.get("tool_choice") not in (None, "auto", "none")
        turn.call = call = before.next_round(messages, without=("tool_choice",) if must_call else ())
        if call.options.on_interrupt == "restart":
            # A reset would void the earlier rounds too, as if their tools had not run.
            call.options = call.options.replace(on_interrupt="fail")
        return call

    def _round_ended(self, turn: Turn, outcome: Outcome, error: PenstockError | None) -> Transition:
        agent = self._agent
        total = all_rounds([*turn.stream.rounds, outcome])
        if error is not None:
            return self._end_turn(turn, Fail(error, total))
        asked = [call for call in outcome.tool_calls if not call.is_server]
        is_last = len(turn.rounds) + turn.pauses >= agent.options.max_tool_rounds
        if not asked and is_paused(outcome):
            agent.pause_round(turn, outcome, self.ref)
            if is_last:
                return self._end_turn(turn, Fail(ToolRoundsExceeded(agent.name, agent.options.max_tool_rounds), total))
            return self._ask_model(turn)
        if not asked or not is_runnable(outcome.finish_reason, asked):
            turn.answer = outcome
            return self._end_turn(turn, Complete(total))
        calls = self._calls_of(turn, asked)
        agent.begin_calls(turn, outcome, calls, self.ref)
        tools = ToolRound(self, agent, turn, calls)
        if is_last:
            tools.refuse("This call was not run: there were too many rounds of calls.")
            return self._end_turn(turn, Fail(ToolRoundsExceeded(agent.name, agent.options.max_tool_rounds), total))
        self._tools = tools
        return self._work(turn, tools, tools.begin())

    def _calls_of(self, turn: Turn, asked: list[ToolCall]) -> list[ToolRun]:
        return [ToolRun(call, kept, self._tool_for(call)) for call, kept in distinct_calls(asked, turn.used_ids)]

    def _tool_for(self, call: ToolCall) -> Tool | None:
        tool = self._agent.tools.get(call.name)
        return tool if tool is not None and getattr(tool, "type", "function") == call.type else None

    def _work(self, turn: Turn, tools: ToolRound, actions: list[Action]) -> Transition:
        """Start the calls that may start. Once all have their results, ask the model again."""
        if not tools.go_on(actions):
            return self._to("working", *actions)
        self._agent.end_calls(turn, self.ref)
        self._tools = None
        return self._ask_model(turn, *actions)

    def _end_turn(self, turn: Turn, ending: Complete | Fail, *actions: Action) -> Transition:
        end_stream(turn.stream, ending)
        return self._to("ending", *actions)

    # --- within --------------------------------------------------------------------------------------------------

    def dispose(self, reason: object) -> None:
        """End its tasks. The runtime calls this once, when the process is dead for any reason. Any thread."""
        super().dispose(reason)
        tools = self._tools
        if tools is not None:
            tools.abandon()

    def _to(self, state: str, *actions: Action) -> Next:
        self._agent.state = state
        return Next(state, *actions)

    def format_status(self, status: dict[str, Any]) -> dict[str, Any]:
        """State and sizes; no text of the conversation."""
        return status | {"agent": self._agent.name, "asked": self._asked}
