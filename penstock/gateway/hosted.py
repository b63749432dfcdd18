"""The table of agents that clients have started."""

from __future__ import annotations

import secrets
from typing import Final

from penstock.agent import Agent
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["HostedAgent", "HostedAgents"]

_MOST: Final = 10_000
_IDLE: Final = 3_600.0
"""Seconds after which an agent that is not used is forgotten; it ends once it has answered all messages."""


class HostedAgent:
    """An agent, and the key that has started it. ``used_at``: on the loop's clock."""

    __slots__ = ("agent", "agent_id", "model", "owner", "used_at")

    def __init__(self, agent: Agent, owner: str, model: str, now: float) -> None:
        self.agent = agent
        self.agent_id = f"agent_{secrets.token_hex(8)}"
        self.owner = owner
        self.model = model
        self.used_at = now


class HostedAgents:
    """All of them by id. Used on the gateway's loop."""

    def __init__(self) -> None:
        self._agents: dict[str, HostedAgent] = {}

    def admit(self) -> None:
        """Raise `RequestRefused` if there are as many as there may be."""
        if len(self._agents) >= _MOST:
            text = "The server has as many agents as it may have."
            raise RequestRefused(
                Problem(status=503, type="server_error", code="too_many_agents", message=text, retry_after=60.0)
            )

    def add(self, hosted: HostedAgent) -> HostedAgent:
        """Enter an agent."""
        self._agents[hosted.agent_id] = hosted
        return hosted

    def get(self, agent_id: str) -> HostedAgent | None:
        """The agent with that id, or None."""
        return self._agents.get(agent_id)

    def all(self) -> list[HostedAgent]:
        """All agents, oldest first."""
        return list(self._agents.values())

    def forget(self, hosted: HostedAgent) -> None:
        """Remove an agent; harmless if that has been done."""
        self._agents.pop(hosted.agent_id, None)

    def sweep(self, now: float) -> None:
        """Forget agents that have ended, or have not been used for an hour and do nothing."""
        for hosted in list(self._agents.values()):
            if hosted.agent.state not in ("idle", "ended"):
                hosted.used_at = now
            elif not hosted.agent.is_alive or now - hosted.used_at > _IDLE:
                self.forget(hosted)
