"""What the core needs from outside, as Protocols, and the values that cross this boundary.

Adapters implement these; the core knows nothing else about them. Tests may implement them too, as `penstock.testing`
does.

Data flows ``bytes → Decoder → deltas → ReaderSink → stream``. Text is a `TextDelta`; everything else that a decoder
produces has its own type.
"""

from penstock.ports.deltas import (
    BlockDelta,
    BlockStart,
    ChoiceDelta,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    KeepAlive,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
from penstock.ports.insights import Insights, InsightsReport
from penstock.ports.provider import (
    CanListModels,
    CanResume,
    ChatCall,
    Decoder,
    Provider,
    ProviderRequest,
    Quota,
    Secret,
    TellsQuota,
)
from penstock.ports.reading import (
    HeaderSink,
    OfferSink,
    Reader,
    ReaderJob,
    ReaderSink,
)
from penstock.ports.services import (
    Clock,
    Journal,
)
from penstock.ports.sink import Sink
from penstock.ports.source import Annotate, Item, Pause, PushedSource, Source, Void
from penstock.ports.tools import (
    Tool,
    ToolContext,
)

__all__ = [
    "Annotate",
    "BlockDelta",
    "BlockStart",
    "CanListModels",
    "CanResume",
    "ChatCall",
    "ChoiceDelta",
    "CitationDelta",
    "Clock",
    "Decoder",
    "Delta",
    "ErrorDelta",
    "EventDelta",
    "FinishDelta",
    "FinishHeld",
    "HeaderSink",
    "Insights",
    "InsightsReport",
    "Item",
    "Journal",
    "KeepAlive",
    "MetadataDelta",
    "OfferSink",
    "Pause",
    "Provider",
    "ProviderRequest",
    "PushedSource",
    "Quota",
    "Reader",
    "ReaderJob",
    "ReaderSink",
    "ReasoningBlockDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "Secret",
    "Sink",
    "Source",
    "TellsQuota",
    "TextDelta",
    "Thinking",
    "Tool",
    "ToolCallFragment",
    "ToolContext",
    "UsageDelta",
    "Void",
]
