"""Options of an agent: how far it may go by itself."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.options import _Options, check_number

__all__ = ["AgentOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions(_Options):
    """How far an agent may go by itself, and how much it remembers. Durations in seconds.

    Attributes:
        max_tool_rounds: how often in one turn the model may call tools and be asked again with the results, 0 … 1000.
        max_tool_calls: how many tools run at the same time, 1 … 1000; further calls of the same round wait.
        tool_timeout: how long a tool may take, unless it has a time-out of its own, 0.001 … 86400.
        approval_timeout: how long a call waits for approval before it is denied, 0.001 … 30 days.
        max_result_bytes: a longer result is cut before the model, or anybody, gets it; 100 … 2**30.
        max_history_messages: messages that are kept, 2 … 1,000,000; the oldest exchanges are dropped whole.
        max_history_bytes: bytes of messages that are kept, 1,000 … 2**40.
        max_queue: messages that may wait while one is answered, 0 … 100,000.

    >>> AgentOptions(max_tool_calls=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: max_tool_calls: got 0, allowed: a whole number from 1 to 1000
    """

    max_tool_rounds: int = 8
    max_tool_calls: int = 10
    tool_timeout: float = 30.0
    approval_timeout: float = 300.0
    max_result_bytes: int = 262_144
    max_history_messages: int = 1_000
    max_history_bytes: int = 4 * 1_048_576
    max_queue: int = 100

    def __post_init__(self) -> None:
        check_number("max_tool_rounds", self.max_tool_rounds, 0, 1_000, whole=True)
        check_number("max_tool_calls", self.max_tool_calls, 1, 1_000, whole=True)
        check_number("tool_timeout", self.tool_timeout, 0.001, 86_400)
        check_number("approval_timeout", self.approval_timeout, 0.001, 30 * 86_400)
        check_number("max_result_bytes", self.max_result_bytes, 100, 2**30, whole=True)
        check_number("max_history_messages", self.max_history_messages, 2, 1_000_000, whole=True)
        check_number("max_history_bytes", self.max_history_bytes, 1_000, 2**40, whole=True)
        check_number("max_queue", self.max_queue, 0, 100_000, whole=True)
