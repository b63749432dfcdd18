"""What a subscriber receives: immutable events, numbered, in the same order for every subscriber.

Every event of a stream has a ``seq``: 1, 2, 3 … without gaps in the stream's log. The last event is *terminal*
(`StreamCompleted`, `StreamFailed` or `StreamCancelled`), and there is exactly one. A slow subscriber may get one merged
`TokenEvent` in place of several consecutive ones; its ``seq`` is that of the last of them, so
``events(after=event.seq)`` continues exactly after any event.

Times are float seconds: ``timestamp`` since the epoch, names with ``_s`` are durations.

Reprs show sizes, never text, so events may be logged.
"""

from penstock.events.answer import (
    AnswerEvent,
    Citation,
    CitationKind,
    Logprobs,
    MediaKind,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    TokenLogprob,
)
from penstock.events.frozen import FrozenDict, FrozenJson, FrozenList, freeze
from penstock.events.notices import LoopDetected, Progress, StallDetected
from penstock.events.stream import (
    Disconnected,
    Event,
    NoticeEvent,
    OriginEnded,
    SideEvent,
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
    AnswerPart,
    Choice,
    Cost,
    FinishReason,
    Phase,
    ProviderBlock,
    ReasoningBlock,
    StreamMetrics,
    ToolCall,
    Usage,
)

__all__ = [
    "AnswerEvent",
    "AnswerPart",
    "Choice",
    "Citation",
    "CitationKind",
    "Cost",
    "Disconnected",
    "Event",
    "FinishReason",
    "FrozenDict",
    "FrozenJson",
    "FrozenList",
    "Logprobs",
    "LoopDetected",
    "MediaKind",
    "MediaPart",
    "NoticeEvent",
    "OriginEnded",
    "Phase",
    "Progress",
    "ProviderBlock",
    "ProviderEvent",
    "ReasoningBlock",
    "ReasoningBlockClosed",
    "ServerToolCall",
    "ServerToolResult",
    "SideEvent",
    "StallDetected",
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
    "TokenLogprob",
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
    "freeze",
    "to_dict",
]
