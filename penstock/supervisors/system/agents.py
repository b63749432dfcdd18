"""Agents and their tools in the supervision tree: how they are started, and what follows when one ends."""

from __future__ import annotations

from typing import Any, Final

from penstock.actors.agent.actor import AgentProcess
from penstock.actors.agent.record import AgentRecord
from penstock.actors.agent.table import AgentTable
from penstock.actors.agent.task import Job, Task
from penstock.actors.agent.turn import end_stream
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import NOPROC
from penstock.actors.stream.messages import Cancel, Fail
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import AgentCrashed, ProcessDead, SupervisorError, describe_reason
from penstock.supervisors.calls import ReportChild, StartChild
from penstock.supervisors.spec import BRUTAL_KILL, ChildExited, ChildSpec
from penstock.supervisors.system.asking import ask_until_back
from penstock.supervisors.system.handler import HANDLER, StartSource

__all__ = [
    "AGENTS",
    "AGENT_HANDLER",
    "TOOLS",
    "TOOL_TASK",
    "AgentHandler",
    "close_agents",
    "end_agents",
    "start_agent",
    "start_call",
    "start_task",
]

AGENTS: Final = "agents"
TOOLS: Final = "tools"
AGENT_HANDLER: Final = "agent_handler"

TOOL_TASK: Final = ChildSpec(id="tool", cls=Task, restart="temporary", shutdown=BRUTAL_KILL)
"""The child of the supervisor of tools. It is killed at once at shutdown: its agent has ended before it."""


class AgentHandler(Process):
    """Restarts agents that ended with their supervisor, and ends the streams of agents that are not restarted.

    Accepts: `ChildExited` from the supervisor of agents.
    Fails: restarted; asks the supervisor for the state of every agent in the table.
    """

    in_pykka_registry = False

    def __init__(self, table: AgentTable) -> None:
        super().__init__()
        self._table = table

    def on_start(self) -> None:
        for record in self._table.all():
            self._tell_agents(ReportChild(_spec(record)))

    def on_receive(self, message: Any) -> None:
        match message:
            case ChildExited(spec=spec, reason=reason):
                record: AgentRecord = spec.args[0]
                if isinstance(reason, str) and reason == NOPROC:
                    self._tell_agents(StartChild(_spec(record)))
                else:
                    self._end_agent(record, reason)
            case _:
                super().on_receive(message)

    def _tell_agents(self, message: Any) -> None:
        ref = self.runtime.whereis(AGENTS)
        if ref is not None:  # if None, it is being restarted, and so is this process
            ref.tell(message)

    def _end_agent(self, record: AgentRecord, reason: object) -> None:
        for turn in record.close():  # empty if the agent was stopped
            error = AgentCrashed(record.name, reason)
            error.__cause__ = reason if isinstance(reason, BaseException) else None
            get_logger(agent=record.name).error("agent_not_restarted", reason=describe_reason(reason))
            end_stream(turn.stream, Fail(error))
        self._table.forget(record)
        record.end()


def _spec(record: AgentRecord) -> ChildSpec:
    return ChildSpec(
        id=f"{record.name}#{record.serial}",
        cls=AgentProcess,
        args=(record,),
        restart="transient",
        name=f"agent/{record.name}#{record.serial}",
    )


def start_agent(runtime: Runtime, record: AgentRecord, timeout: float) -> None:
    """Start an agent, from any thread. If its supervisor is being restarted, it is started afterwards.

    Raises:
        CallTimeout: it did not start within ``timeout`` seconds.
        PenstockError: it did not start.
    """
    what = f"the start of agent {record.name!r}"
    try:
        ask_until_back(runtime, lambda: runtime.whereis(AGENTS), StartChild(_spec(record)), timeout, what)
    except SupervisorError as error:
        if error.code != "already_started":  # by the agent handler, which found it in the table
            raise


def close_agents(table: AgentTable) -> None:
    """Close every agent, as the system is being stopped. Turns under way end as other streams do."""
    for record in table.all():
        for turn in record.close():
            if turn.stream.feed is None:
                turn.stream.propose(Cancel("shutdown"))


def end_agents(table: AgentTable) -> None:
    """End every agent, as the tree has ended."""
    for record in table.all():
        record.close()
        table.forget(record)
        record.end()


def start_call(runtime: Runtime, record: StreamRecord) -> None:
    """Have the handler start a stream's call. If the handler crashes first, its successor finds it in the record."""
    handler = runtime.whereis(HANDLER)
    if handler is not None:
        handler.tell(StartSource(record))


def start_task(runtime: Runtime, job: Job) -> Reply:
    """Have a job's task started; the reply is the task's ref, or the reason why it was not started."""
    tools = runtime.whereis(TOOLS)
    if tools is None:  # it is being restarted, and so is the agent
        reply = Reply(runtime.dispatcher, "the start of a tool")
        reply.fail(ProcessDead(TOOLS))
        return reply
    asked: Reply = tools.ask(StartChild((job,)), block=False)
    return asked
