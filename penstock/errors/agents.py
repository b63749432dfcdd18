"""Errors of agents."""

from __future__ import annotations

from penstock.errors.base import PenstockError, describe_reason

__all__ = ["AgentBusy", "AgentCrashed", "AgentError", "AgentExists", "AgentStopped", "ToolRoundsExceeded"]


class AgentError(PenstockError):
    """Something about one agent; ``agent`` is its name.

    ``partial`` is the text that had come before, where the error is how a stream ended; never part of the message.
    """

    partial: str = ""

    def __init__(self, agent: str, message: str) -> None:
        self.agent = agent
        super().__init__(message)


class AgentExists(AgentError):
    """An agent of that name is there already."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent, f"agent {agent!r} exists already")


class AgentBusy(AgentError):
    """As many messages wait for the agent as may; this one was not taken."""

    def __init__(self, agent: str, max_queue: int) -> None:
        self.max_queue = max_queue
        super().__init__(agent, f"agent {agent!r} is busy, and no more than {max_queue} messages may wait for it")


class AgentStopped(AgentError):
    """The agent has been stopped, or given up; it takes no messages any more."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent, f"agent {agent!r} has been stopped")


class AgentCrashed(AgentError):
    """The agent's process died while it answered. Tools that ran are not run again; its history is kept."""

    def __init__(self, agent: str, reason: object) -> None:
        self.reason = reason
        super().__init__(agent, f"agent {agent!r} crashed: {describe_reason(reason)}")


class ToolRoundsExceeded(AgentError):
    """The model asked for tools again after ``max_tool_rounds`` rounds of them; its last calls were not run."""

    def __init__(self, agent: str, max_tool_rounds: int) -> None:
        self.max_tool_rounds = max_tool_rounds
        super().__init__(agent, f"agent {agent!r}: no answer after {max_tool_rounds} rounds of tool calls")
