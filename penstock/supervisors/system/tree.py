"""The children of a system's root supervisor, in the order in which they start."""

from __future__ import annotations

from penstock.actors.agent.table import AgentTable
from penstock.actors.stream.table import StreamTable
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.registry import REGISTRY, Names, Registry
from penstock.supervisors.spec import ChildSpec
from penstock.supervisors.system.agents import AGENT_HANDLER, AGENTS, TOOL_TASK, TOOLS, AgentHandler
from penstock.supervisors.system.handler import HANDLER, SOURCES, STREAMS, StreamHandler
from penstock.supervisors.system.reaper import Reaper
from penstock.supervisors.system.user import USER, UserSpecs, UserSupervisor

__all__ = ["system_children"]


def system_children(
    names: Names, table: StreamTable, agents: AgentTable, user: UserSpecs, *more: ChildSpec
) -> list[ChildSpec]:
    """The root's children. If one crashes, it is restarted together with those after it (``rest_for_one``).

    Agents use streams, sources and tools, and so come after them: agents are restarted together with these. The two
    handlers clean up after everything before them. The user's own processes come last: they may use all of it, and
    nothing else is restarted because of them. ``more`` come before those.
    """
    return [
        ChildSpec(id=REGISTRY, name=REGISTRY, cls=Registry, args=(names,)),
        ChildSpec(id=STREAMS, name=STREAMS, cls=DynamicSupervisor, kwargs={"observer": HANDLER}, shutdown=5.0),
        ChildSpec(id=SOURCES, name=SOURCES, cls=DynamicSupervisor, kwargs={"observer": HANDLER}, shutdown=5.0),
        ChildSpec(id=TOOLS, name=TOOLS, cls=DynamicSupervisor, args=(TOOL_TASK,), shutdown=5.0),
        ChildSpec(id=AGENTS, name=AGENTS, cls=DynamicSupervisor, kwargs={"observer": AGENT_HANDLER}, shutdown=5.0),
        ChildSpec(id=HANDLER, name=HANDLER, cls=StreamHandler, args=(table,)),
        ChildSpec(id=AGENT_HANDLER, name=AGENT_HANDLER, cls=AgentHandler, args=(agents,)),
        ChildSpec(id="reaper", name="reaper", cls=Reaper),
        *more,
        ChildSpec(id=USER, name=USER, cls=UserSupervisor, args=(user,)),
    ]
