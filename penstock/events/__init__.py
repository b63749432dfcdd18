"""What a subscriber receives: frozen, numbered, in one order for everybody.

Every event of a stream has a ``seq``: 1, 2, 3 … without gaps in the stream's log, and exactly one *terminal* event
(`StreamCompleted`, `StreamFailed` or `StreamCancelled`) is the last. A subscriber that is slow may get one merged
`TokenEvent` for several in a row; its ``seq`` is that of the last of them, so ``events(after=event.seq)`` always
goes on exactly where one stopped.

The reprs say sizes, never text: events may be logged.
"""

from penstock.events.stream import (
    Disconnected,
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    to_dict,
)
from penstock.events.tools import (
    StreamStarted,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolEvent,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    ToolResultStatus,
)
from penstock.events.values import (
    Choice,
    Cost,
    FinishReason,
    FrozenDict,
    ReasoningBlock,
    StreamMetrics,
    ToolCall,
    Usage,
)

__all__ = [
    "Choice",
    "Cost",
    "Disconnected",
    "Event",
    "FinishReason",
    "FrozenDict",
    "ReasoningBlock",
    "StreamCancelled",
    "StreamCompleted",
    "StreamFailed",
    "StreamMetrics",
    "StreamReset",
    "StreamSnapshot",
    "StreamStarted",
    "TerminalEvent",
    "TokenEvent",
    "TokenKind",
    "ToolApprovalRequested",
    "ToolCall",
    "ToolCallCompleted",
    "ToolCallDelta",
    "ToolCallStarted",
    "ToolEvent",
    "ToolExecutionStarted",
    "ToolProgress",
    "ToolResult",
    "ToolResultStatus",
    "Usage",
    "to_dict",
]
