"""Who looks after agents: how they and their tools are started, and what happens when one is gone for good."""

from __future__ import annotations

import threading
from typing import Any, Final

from penstock.actors.agent.actor import AgentProcess
from penstock.actors.agent.record import AgentRecord, AgentTable
from penstock.actors.agent.task import Job, Task
from penstock.actors.agent.turn import end_stream
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import NOPROC
from penstock.actors.stream.messages import Cancel, Fail
from penstock.actors.stream.record import StreamRecord
from penstock.config.logs import get_logger
from penstock.errors import AgentCrashed, CallTimeout, ProcessDead, SupervisorError, describe_reason
from penstock.supervisors.calls import ReportChild, StartChild
from penstock.supervisors.spec import BRUTAL_KILL, ChildExited, ChildSpec
from penstock.supervisors.system.handler import HANDLER, StartSource

__all__ = [
    "AGENTS",
    "KEEPER",
    "TOOLS",
    "TOOL_TASK",
    "AgentKeeper",
    "close_agents",
    "end_agents",
    "start_agent",
    "start_source",
    "start_task",
]

AGENTS: Final = "agents"
TOOLS: Final = "tools"
KEEPER: Final = "keeper"
_RESTART_LOOK: Final = 0.005  # seconds between two looks whether a crashed supervisor is back

TOOL_TASK: Final = ChildSpec(id="tool", cls=Task, restart="temporary", shutdown=BRUTAL_KILL)
"""What the supervisor of tools starts. Killed at once: its agent has gone first, so nobody waits for it."""


class AgentKeeper(Process):
    """Starts agents again that ended with their supervisor, and ends the streams of those that are gone for good.

    Accepts: `ChildExited` from the supervisor of agents.
    Fails: restarted; asks the supervisor after every agent in the table.
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
                    self._bury(record, reason)
            case _:
                super().on_receive(message)

    def _tell_agents(self, message: Any) -> None:
        ref = self.runtime.whereis(AGENTS)
        if ref is not None:  # if not, it is just being restarted, and we with it
            ref.tell(message)

    def _bury(self, record: AgentRecord, reason: object) -> None:
        for turn in record.close():  # none, if it was stopped
            error = AgentCrashed(record.name, reason)
            error.__cause__ = reason if isinstance(reason, BaseException) else None
            get_logger(agent=record.name).error("agent_given_up", reason=describe_reason(reason))
            end_stream(turn.stream, Fail(error, turn.stream.outcome()))
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


def start_agent(runtime: Runtime, record: AgentRecord, limit: float) -> None:
    """Start an agent, from outside. If its supervisor is just being restarted, it is started afterwards.

    Raises:
        CallTimeout: that took too long.
        PenstockError: it did not start.
    """
    deadline = runtime.clock.monotonic() + limit
    while True:
        left = deadline - runtime.clock.monotonic()
        agents = runtime.whereis(AGENTS)
        try:
            if left <= 0:
                raise CallTimeout(f"the start of agent {record.name!r}", limit)
            if agents is None:
                raise ProcessDead(AGENTS)
            agents.ask(StartChild(_spec(record)), timeout=left)
        except ProcessDead:
            never = threading.Lock()
            never.acquire()
            runtime.dispatcher.wait(never, min(_RESTART_LOOK, max(left, 0.0)))
        except SupervisorError as error:
            if error.code != "already_started":  # by the keeper, which had found it in the table
                raise
            return
        else:
            return


def close_agents(table: AgentTable) -> None:
    """Let no agent begin anything any more, as the system ends. What is under way ends as all streams do."""
    for record in table.all():
        for turn in record.close():
            stream = turn.stream
            if stream.source is None and stream.ref is not None:
                stream.ref.tell(Cancel("shutdown"))


def end_agents(table: AgentTable) -> None:
    """The tree has ended, and nobody else is left to say that its agents have."""
    for record in table.all():
        record.close()
        table.forget(record)
        record.end()


def start_source(runtime: Runtime, record: StreamRecord) -> None:
    """Have a stream's source started. Should the handler crash before it has, the next one finds it to be done."""
    handler = runtime.whereis(HANDLER)
    if handler is not None:
        handler.tell(StartSource(record))


def start_task(runtime: Runtime, job: Job) -> Reply:
    """Have a job's task started; the reply is its ref, or why it was not."""
    tools = runtime.whereis(TOOLS)
    if tools is None:  # it is just being restarted, and whoever asks with it
        reply = Reply(runtime.dispatcher, "the start of a tool")
        reply.fail(ProcessDead(TOOLS))
        return reply
    asked: Reply = tools.ask(StartChild((job,)), block=False)
    return asked
