"""Options of an agent: how far it may go on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock.config.checks import Between, Options

__all__ = ["AgentOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions(Options):
    """How far an agent may go on its own, and how much it remembers.

    Attributes:
        max_tool_rounds: rounds of tool calls in one turn, 0 … 1000. The turn fails with `ToolRoundsExceeded` if the
            model then asks for tools again.
        max_tool_calls: tools that run at the same time, 1 … 1000; further calls of the same round wait.
        tool_timeout: the longest run of a tool that has no timeout of its own, 0.001 … 86,400 s.
        approval_timeout: how long a call waits for approval before it is denied, 0.001 … 2,592,000 s (30 days).
        max_result_bytes: a longer tool result is cut before the model and the subscribers get it, 100 … 2**30.
        max_history_messages: messages kept, 2 … 1,000,000; the oldest exchanges are dropped whole.
        max_history_bytes: bytes of messages kept, 1,000 … 2**40.
        max_queue: messages that may wait while one is answered, 0 … 100,000. Further ones raise `AgentBusy`.

    >>> AgentOptions(max_tool_calls=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: max_tool_calls: got 0, allowed: a whole number from 1 to 1000
    """

    max_tool_rounds: Annotated[int, Between(0, 1_000)] = 8
    max_tool_calls: Annotated[int, Between(1, 1_000)] = 10
    tool_timeout: Annotated[float, Between(0.001, 86_400)] = 30.0
    approval_timeout: Annotated[float, Between(0.001, 30 * 86_400)] = 300.0
    max_result_bytes: Annotated[int, Between(100, 2**30)] = 262_144
    max_history_messages: Annotated[int, Between(2, 1_000_000)] = 1_000
    max_history_bytes: Annotated[int, Between(1_000, 2**40)] = 4 * 1_048_576
    max_queue: Annotated[int, Between(0, 100_000)] = 100
