"""What stands under the root of a system, in the order in which it starts."""

from __future__ import annotations

from penstock.actors.agent.record import AgentTable
from penstock.actors.stream.record import StreamTable
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.registry import REGISTRY, Names, Registry
from penstock.supervisors.spec import ChildSpec
from penstock.supervisors.system.agents import AGENTS, KEEPER, TOOL_TASK, TOOLS, AgentKeeper
from penstock.supervisors.system.handler import HANDLER, SOURCES, STREAMS, StreamHandler
from penstock.supervisors.system.reaper import Reaper

__all__ = ["system_children"]


def system_children(names: Names, table: StreamTable, agents: AgentTable) -> list[ChildSpec]:
    """The root's children; it restarts with one of them those behind it (``rest_for_one``).

    Agents use streams, sources and tools, and so stand behind them: what an agent has lost with one of these, it finds
    out as it is restarted. The handler and the keeper look after what stands before them.
    """
    return [
        ChildSpec(id=REGISTRY, name=REGISTRY, cls=Registry, args=(names,)),
        ChildSpec(id=STREAMS, name=STREAMS, cls=DynamicSupervisor, kwargs={"observer": HANDLER}, shutdown=5.0),
        ChildSpec(id=SOURCES, name=SOURCES, cls=DynamicSupervisor, kwargs={"observer": HANDLER}, shutdown=5.0),
        ChildSpec(id=TOOLS, name=TOOLS, cls=DynamicSupervisor, args=(TOOL_TASK,), shutdown=5.0),
        ChildSpec(id=AGENTS, name=AGENTS, cls=DynamicSupervisor, kwargs={"observer": KEEPER}, shutdown=5.0),
        ChildSpec(id=HANDLER, name=HANDLER, cls=StreamHandler, args=(table,)),
        ChildSpec(id=KEEPER, name=KEEPER, cls=AgentKeeper, args=(agents,)),
        ChildSpec(id="reaper", name="reaper", cls=Reaper),
    ]
