"""Penstock: LLM token streams as supervised actors.

A backend opens one supervised stream per request. The provider's bytes become numbered events, and any number of
subscribers read them, each at its own pace. Start with `System`.

Every name is imported when it is first used, so ``import penstock`` alone loads no other module.
"""

TYPE_CHECKING = False  # type checkers take it for True; importing it from `typing` would cost more than all else here

if TYPE_CHECKING:
    from penstock import sources as sources
    from penstock.actors.agent.record import AgentStatistics
    from penstock.actors.call.gate import EndpointStatistics
    from penstock.actors.call.toolcalls import ToolCallAccumulator
    from penstock.actors.stream.changes import StateChange
    from penstock.actors.stream.histograms import HistogramSnapshot
    from penstock.actors.stream.hub import Subscription
    from penstock.actors.stream.models import ModelStatistics
    from penstock.actors.stream.statistics import StreamStatistics
    from penstock.actors.stream.subscribers.polled import StreamReader
    from penstock.actors.stream.subscribers.pull import Events
    from penstock.adapters.journals.sqlite import SqliteJournal
    from penstock.adapters.journals.valkey import ValkeyJournal
    from penstock.adapters.tools import FunctionTool, tool
    from penstock.agent import Agent
    from penstock.cluster.view import ClusterNodeInfo, ClusterView
    from penstock.config.agents import AgentOptions
    from penstock.config.cluster import ClusterOptions
    from penstock.config.garbage import tune_gc
    from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
    from penstock.config.logs import configure_logging
    from penstock.config.options import RequestOptions, StreamOptions
    from penstock.config.presets import CHAT, DOCUMENT, QUICK, REALTIME, SAFE
    from penstock.config.settings import DefaultProviderOptions, LogOptions, ProviderOptions, RuntimeOptions, Settings
    from penstock.config.version import __version__
    from penstock.errors import (
        AgentBusy,
        AgentCrashed,
        AgentError,
        AgentExists,
        AgentStopped,
        ApiError,
        AuthenticationError,
        BadRequestError,
        BufferFull,
        CallTimeout,
        CircuitOpen,
        ConnectError,
        ContentFilterError,
        ContextLengthExceeded,
        DeliveryError,
        Fenced,
        IncompleteStream,
        LocalError,
        MailboxFull,
        MergeError,
        NoOwner,
        OptionError,
        OutputInvalid,
        PenstockError,
        ProcessCrashed,
        ProcessDead,
        ProcessError,
        ProtocolError,
        ProviderBusy,
        ProviderError,
        ProviderTimeout,
        RaceError,
        RateLimited,
        RunawayAnswer,
        RunsElsewhere,
        SourceError,
        StartError,
        StoreBusy,
        StoreClosed,
        StoreDamaged,
        StoreError,
        StoreFull,
        StoreIncompatible,
        StoreInUse,
        StoreReadOnly,
        StoreUnavailable,
        StreamCancelledError,
        StreamClosed,
        StreamCrashed,
        StreamError,
        StreamExists,
        StreamInterrupted,
        StreamNotFound,
        StreamPoisoned,
        StreamTimeout,
        SubscriberTooSlow,
        SupervisorError,
        SystemDraining,
        SystemForked,
        SystemStopped,
        TeeError,
        ToolArgumentsError,
        ToolError,
        ToolRoundsExceeded,
        TransformError,
    )
    from penstock.events import (
        AnswerPart,
        Choice,
        Citation,
        Cost,
        Disconnected,
        Event,
        Logprobs,
        LoopDetected,
        MediaPart,
        OriginEnded,
        Progress,
        ProviderBlock,
        ProviderEvent,
        ReasoningBlock,
        ReasoningBlockClosed,
        ServerToolCall,
        ServerToolResult,
        StallDetected,
        StreamCancelled,
        StreamCompleted,
        StreamFailed,
        StreamMetrics,
        StreamReset,
        StreamSnapshot,
        StreamStarted,
        TerminalEvent,
        TokenEvent,
        TokenLogprob,
        ToolApprovalRequested,
        ToolCall,
        ToolCallCompleted,
        ToolCallDelta,
        ToolCallStarted,
        ToolExecutionStarted,
        ToolProgress,
        ToolResult,
        Usage,
        to_dict,
    )
    from penstock.inspection import (
        RetryBudgetStatistics,
        StreamInfo,
        StreamSummary,
        SubscriberInfo,
        SystemStatistics,
        Tree,
    )
    from penstock.ports import Insights, InsightsReport, Journal, LogStore, Provider, Secret, Tool, ToolContext
    from penstock.ports.batch import BatchProgress, BatchPrompt, BatchResult, BatchResults
    from penstock.provider_client import ProviderClient, ProviderHealth
    from penstock.stream import Stream
    from penstock.system import System
    from penstock.toolbox.chain import chain, wrap_existing_handler
    from penstock.toolbox.hedge import hedge
    from penstock.toolbox.merge import merge
    from penstock.toolbox.pipe import pipe
    from penstock.toolbox.race import race
    from penstock.toolbox.retry import with_retry
    from penstock.toolbox.structured import PartialJson, Structured, response_format, structured
    from penstock.toolbox.waiting import (
        Completions,
        aas_completed,
        acollect,
        agather,
        as_completed,
        collect,
        gather,
    )

__all__ = [
    "CHAT",
    "DOCUMENT",
    "QUICK",
    "REALTIME",
    "SAFE",
    "Agent",
    "AgentBusy",
    "AgentCrashed",
    "AgentError",
    "AgentExists",
    "AgentOptions",
    "AgentStatistics",
    "AgentStopped",
    "AnswerPart",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BatchProgress",
    "BatchPrompt",
    "BatchResult",
    "BatchResults",
    "BreakerOptions",
    "BufferFull",
    "CallTimeout",
    "Choice",
    "CircuitOpen",
    "Citation",
    "ClusterNodeInfo",
    "ClusterOptions",
    "ClusterView",
    "Completions",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthExceeded",
    "Cost",
    "DefaultProviderOptions",
    "DeliveryError",
    "Disconnected",
    "EndpointStatistics",
    "Event",
    "Events",
    "Fenced",
    "FunctionTool",
    "HistogramSnapshot",
    "IncompleteStream",
    "Insights",
    "InsightsReport",
    "Journal",
    "LimitOptions",
    "LocalError",
    "LogOptions",
    "LogStore",
    "Logprobs",
    "LoopDetected",
    "MailboxFull",
    "MediaPart",
    "MergeError",
    "ModelStatistics",
    "NoOwner",
    "OptionError",
    "OriginEnded",
    "OutputInvalid",
    "PartialJson",
    "PenstockError",
    "ProcessCrashed",
    "ProcessDead",
    "ProcessError",
    "Progress",
    "ProtocolError",
    "Provider",
    "ProviderBlock",
    "ProviderBusy",
    "ProviderClient",
    "ProviderError",
    "ProviderEvent",
    "ProviderHealth",
    "ProviderOptions",
    "ProviderTimeout",
    "RaceError",
    "RateLimited",
    "ReasoningBlock",
    "ReasoningBlockClosed",
    "RequestOptions",
    "RetryBudgetOptions",
    "RetryBudgetStatistics",
    "RunawayAnswer",
    "RunsElsewhere",
    "RuntimeOptions",
    "Secret",
    "ServerToolCall",
    "ServerToolResult",
    "Settings",
    "SourceError",
    "SqliteJournal",
    "StallDetected",
    "StartError",
    "StateChange",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreIncompatible",
    "StoreReadOnly",
    "StoreUnavailable",
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
    "StreamInterrupted",
    "StreamMetrics",
    "StreamNotFound",
    "StreamOptions",
    "StreamPoisoned",
    "StreamReader",
    "StreamReset",
    "StreamSnapshot",
    "StreamStarted",
    "StreamStatistics",
    "StreamSummary",
    "StreamTimeout",
    "Structured",
    "SubscriberInfo",
    "SubscriberTooSlow",
    "Subscription",
    "SupervisorError",
    "System",
    "SystemDraining",
    "SystemForked",
    "SystemStatistics",
    "SystemStopped",
    "TeeError",
    "TerminalEvent",
    "TokenEvent",
    "TokenLogprob",
    "Tool",
    "ToolApprovalRequested",
    "ToolArgumentsError",
    "ToolCall",
    "ToolCallAccumulator",
    "ToolCallCompleted",
    "ToolCallDelta",
    "ToolCallStarted",
    "ToolContext",
    "ToolError",
    "ToolExecutionStarted",
    "ToolProgress",
    "ToolResult",
    "ToolRoundsExceeded",
    "TransformError",
    "Tree",
    "Usage",
    "ValkeyJournal",
    "__version__",
    "aas_completed",
    "acollect",
    "agather",
    "as_completed",
    "chain",
    "collect",
    "configure_logging",
    "gather",
    "hedge",
    "merge",
    "pipe",
    "race",
    "response_format",
    "structured",
    "to_dict",
    "tool",
    "tune_gc",
    "with_retry",
    "wrap_existing_handler",
]

_HOMES = {
    "actors.agent.record": ("AgentStatistics",),
    "actors.call.gate": ("EndpointStatistics",),
    "actors.call.toolcalls": ("ToolCallAccumulator",),
    "actors.stream.changes": ("StateChange",),
    "actors.stream.histograms": ("HistogramSnapshot",),
    "actors.stream.hub": ("Subscription",),
    "actors.stream.models": ("ModelStatistics",),
    "actors.stream.statistics": ("StreamStatistics",),
    "actors.stream.subscribers.polled": ("StreamReader",),
    "actors.stream.subscribers.pull": ("Events",),
    "adapters.journals.sqlite": ("SqliteJournal",),
    "adapters.journals.valkey": ("ValkeyJournal",),
    "adapters.tools": ("FunctionTool", "tool"),
    "agent": ("Agent",),
    "cluster.view": ("ClusterNodeInfo", "ClusterView"),
    "config.agents": ("AgentOptions",),
    "config.cluster": ("ClusterOptions",),
    "config.garbage": ("tune_gc",),
    "config.limits": ("BreakerOptions", "LimitOptions", "RetryBudgetOptions"),
    "config.logs": ("configure_logging",),
    "config.options": ("RequestOptions", "StreamOptions"),
    "config.presets": ("CHAT", "DOCUMENT", "QUICK", "REALTIME", "SAFE"),
    "config.settings": ("DefaultProviderOptions", "LogOptions", "ProviderOptions", "RuntimeOptions", "Settings"),
    "config.version": ("__version__",),
    "inspection": (
        "RetryBudgetStatistics",
        "StreamInfo",
        "StreamSummary",
        "SubscriberInfo",
        "SystemStatistics",
        "Tree",
    ),
    "ports": ("Insights", "InsightsReport", "Journal", "LogStore", "Provider", "Secret", "Tool", "ToolContext"),
    "ports.batch": ("BatchProgress", "BatchPrompt", "BatchResult", "BatchResults"),
    "provider_client": ("ProviderClient", "ProviderHealth"),
    "stream": ("Stream",),
    "system": ("System",),
    "toolbox.chain": ("chain", "wrap_existing_handler"),
    "toolbox.hedge": ("hedge",),
    "toolbox.merge": ("merge",),
    "toolbox.pipe": ("pipe",),
    "toolbox.race": ("race",),
    "toolbox.retry": ("with_retry",),
    "toolbox.structured": ("PartialJson", "Structured", "response_format", "structured"),
    "toolbox.waiting": ("Completions", "aas_completed", "acollect", "agather", "as_completed", "collect", "gather"),
}
"""Where the public names are defined; those that are not here are in ``errors`` or ``events``."""

if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would accept any name

    def __getattr__(name: str) -> object:
        """Import ``name``, a public name or a module of this package, when it is first used (PEP 562)."""
        from importlib import import_module, util

        if name in __all__:
            home = next((home for home, names in _HOMES.items() if name in names), None)
            if home is None:
                home = "errors" if name in import_module(f"{__name__}.errors").__all__ else "events"
            value = getattr(import_module(f"{__name__}.{home}"), name)
        elif not name.startswith("_") and util.find_spec(f"{__name__}.{name}") is not None:
            value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(_refusal(name), name=name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def _refusal(name: str) -> str:
    text = f"module {__name__!r} has no attribute {name!r}"
    if name.startswith("_"):  # a tool asks; it does not read the text
        return text
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=1)
    return f"{text}. Did you mean: {near[0]!r}?" if near else text
