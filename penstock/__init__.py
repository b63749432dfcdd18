"""Penstock: LLM token streams as supervised actors.

A backend opens one supervised stream per request; the provider's bytes become numbered events that any number of
subscribers read, each at its own pace. See `System` for the way in.
"""

from penstock.actors.iteration import Events
from penstock.actors.record import StreamStatistics
from penstock.actors.subscriptions import Subscription
from penstock.chaining import chain, wrap_existing_handler
from penstock.config.logs import configure_logging
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.presets import CHAT, DOCUMENT, REALTIME
from penstock.config.settings import Settings
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    BufferFull,
    CallTimeout,
    ConnectError,
    ContentFilterError,
    ContextLengthExceeded,
    DeliveryError,
    IncompleteStream,
    OptionError,
    PenstockError,
    ProcessCrashed,
    ProcessDead,
    ProcessError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StartError,
    StreamCancelledError,
    StreamClosed,
    StreamCrashed,
    StreamError,
    StreamExists,
    StreamNotFound,
    SubscriberTooSlow,
    SupervisorError,
    SystemStopped,
)
from penstock.events import (
    Disconnected,
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    ToolCall,
    Usage,
    to_dict,
)
from penstock.inspection import StreamInfo, SubscriberInfo, SystemStatistics, Tree
from penstock.stream import Stream
from penstock.system import System

__all__ = [
    "CHAT",
    "DOCUMENT",
    "REALTIME",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BufferFull",
    "CallTimeout",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthExceeded",
    "DeliveryError",
    "Disconnected",
    "Event",
    "Events",
    "IncompleteStream",
    "OptionError",
    "PenstockError",
    "ProcessCrashed",
    "ProcessDead",
    "ProcessError",
    "ProtocolError",
    "ProviderError",
    "ProviderTimeout",
    "RateLimited",
    "RequestOptions",
    "Settings",
    "StartError",
    "Stream",
    "StreamCancelled",
    "StreamCancelledError",
    "StreamClosed",
    "StreamCompleted",
    "StreamCrashed",
    "StreamError",
    "StreamExists",
    "StreamFailed",
    "StreamInfo",
    "StreamNotFound",
    "StreamOptions",
    "StreamReset",
    "StreamSnapshot",
    "StreamStatistics",
    "SubscriberInfo",
    "SubscriberTooSlow",
    "Subscription",
    "SupervisorError",
    "System",
    "SystemStatistics",
    "SystemStopped",
    "TerminalEvent",
    "TokenEvent",
    "ToolCall",
    "Tree",
    "Usage",
    "chain",
    "configure_logging",
    "to_dict",
    "wrap_existing_handler",
]
