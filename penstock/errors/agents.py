"""Errors of agents."""

from __future__ import annotations

from penstock.errors.base import PenstockError, describe_reason

__all__ = ["AgentBusy", "AgentCrashed", "AgentError", "AgentExists", "AgentStopped", "ToolRoundsExceeded"]


class AgentError(PenstockError):
    """An error about one agent; ``agent`` is its name.

    ``partial`` is the answer's text so far, if a stream ended with this error. It is never part of the message.
    """

    partial: str = ""

    def __init__(self, agent: str, message: str) -> None:
        self.agent = agent
        super().__init__(message)


class AgentExists(AgentError):
    """An agent has the same name."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent, f"agent {agent!r} already exists; stop it first, or choose another name")


class AgentBusy(AgentError):
    """The agent's queue is full: ``max_queue`` messages are waiting. This one was not accepted."""

    def __init__(self, agent: str, max_queue: int) -> None:
        self.max_queue = max_queue
        super().__init__(agent, f"agent {agent!r} is busy and its queue is full (max_queue: {max_queue})")


class AgentStopped(AgentError):
    """The agent has been stopped, or abandoned by its supervisor; it takes no more messages."""

    def __init__(self, agent: str) -> None:
        super().__init__(agent, f"agent {agent!r} has been stopped and takes no more messages")


class AgentCrashed(AgentError):
    """The agent's process died while it was answering.

    Its history is kept and stays valid. No tool call is run a second time.
    """

    def __init__(self, agent: str, reason: object) -> None:
        self.reason = reason
        super().__init__(agent, f"agent {agent!r} crashed: {describe_reason(reason)}")


class ToolRoundsExceeded(AgentError):
    """The model asked for tools again after ``max_tool_rounds`` rounds of calls. Its last calls were not run."""

    def __init__(self, agent: str, max_tool_rounds: int) -> None:
        self.max_tool_rounds = max_tool_rounds
        super().__init__(
            agent, f"agent {agent!r}: no answer after {max_tool_rounds} rounds of tool calls (max_tool_rounds)"
        )
