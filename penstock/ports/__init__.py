"""The edge of the core: what it needs of the world, as Protocols, and the values that cross.

Adapters implement these; the core knows nothing else of them. A test may implement them too: `penstock.testing` does.

The data's way is ``bytes → Decoder → deltas → ReaderSink → stream``. Text travels as `TextDelta`; everything else
that a decoder can say has a type of its own.
"""

from penstock.ports.deltas import (
    ChoiceDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
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
from penstock.ports.tools import (
    Tool,
    ToolContext,
)

__all__ = [
    "CanListModels",
    "CanResume",
    "ChatCall",
    "ChoiceDelta",
    "Clock",
    "Decoder",
    "Delta",
    "ErrorDelta",
    "FinishDelta",
    "HeaderSink",
    "Journal",
    "KeepAlive",
    "OfferSink",
    "Provider",
    "ProviderRequest",
    "Quota",
    "Reader",
    "ReaderJob",
    "ReaderSink",
    "ReasoningBlockDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "Secret",
    "TellsQuota",
    "TextDelta",
    "Thinking",
    "Tool",
    "ToolCallFragment",
    "ToolContext",
    "UsageDelta",
]
