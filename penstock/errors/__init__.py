"""Every error Penstock raises.

The whole tree::

    PenstockError
    ├── OptionError (also ValueError)          an option or argument is not allowed: which, the value, what is allowed
    ├── CallTimeout (also TimeoutError, pykka.Timeout)   a call was not answered in time; the process goes on
    ├── ProcessError                           about a process (an actor on the dispatcher)
    │   ├── ProcessDead (also pykka.ActorDeadError)   it is dead, or died before it answered
    │   ├── ProcessCrashed                     it died abnormally; `reason` says of what
    │   ├── MailboxFull                        its bounded mailbox has no room for the message
    │   ├── StartError                         it did not start: ignored, bad return, timeout, name taken …
    │   └── SystemStopped                      the system has been stopped, or was never started
    │       ├── SystemDraining                 the system is being drained: it opens no further stream
    │       └── SystemForked                   the system was started in the process that this one is a fork of
    ├── SupervisorError                        a supervisor refused a call (`code` is OTP's own word)
    ├── StreamError                            about one stream
    │   ├── StreamExists                       a running stream has the same id
    │   ├── StreamNotFound                     no stream has that id
    │   ├── StreamClosed                       it takes no more tokens or commands
    │   ├── StreamCancelledError               raised by `result()` of a cancelled stream
    │   ├── StreamCrashed                      its actor died; events already delivered are kept
    │   ├── DeliveryError                      too many deliveries in a row failed
    │   ├── BufferFull                         its buffer had no room in time
    │   ├── SubscriberTooSlow                  a `slow="disconnect"` subscriber fell too far behind
    │   ├── SourceError                        what feeds it failed: an iterable, a file, a program
    │   ├── TransformError                     a function of `map`, `filter`, `chain` … raised
    │   ├── TeeError                           its copy could not be written
    │   ├── MergeError                         an input of a merged stream did not complete; `errors`, `results`
    │   ├── RaceError                          no attempt of a race completed; `errors`
    │   ├── StreamInterrupted                  the process that ran it has ended; what it had written is kept
    │   │   └── StreamPoisoned                 several processes that ran it have ended
    │   ├── Fenced                             its log has another owner now: this process may not append to it
    │   ├── NoOwner                            no process runs it now, so no command reaches it
    │   ├── RunsElsewhere                      another node runs it, and this can be done only there
    │   ├── StreamTimeout                      a limit of `with_timeout` has passed; `which` says which
    │   └── RunawayAnswer                      the answer repeated itself without end
    ├── AgentError                             about one agent
    │   ├── AgentExists                        an agent has the same name
    │   ├── AgentBusy                          its queue of messages is full
    │   ├── AgentStopped                       it takes no more messages
    │   ├── AgentCrashed                       its process died while it was answering
    │   └── ToolRoundsExceeded                 the model asked for tools more often than allowed
    ├── StoreError                             a log store cannot do what it was asked for; nothing is half-written
    │   ├── StoreUnavailable                   it does not answer; the request may be repeated
    │   ├── StoreBusy                          too many events wait to be written
    │   ├── StoreClosed                        it has been closed in this process
    │   ├── StoreFull                          the disk, a quota or the server's memory is full
    │   ├── StoreReadOnly                      it cannot be written
    │   ├── StoreDamaged                       what it holds is damaged, or is not a store
    │   ├── StoreIncompatible                  another version of Penstock made it, or its server lacks what is needed
    │   └── StoreInUse                         another process writes it
    ├── OutputInvalid                          a structured answer is not JSON, or does not fit its model
    ├── ToolError                              a tool's result cannot be given to the model
    │   └── ToolArgumentsError                 the model's arguments do not fit the tool's schema
    └── ProviderError                          the provider or its connection failed; `partial` is the text so far
        ├── ConnectError                       no connection: refused, unknown host, TLS, reset before an answer
        ├── LocalError                         this machine cannot make the request: no descriptors, ports, route …
        ├── ProviderTimeout                    one of the four time limits has passed; `which` says which
        ├── ProviderBusy                       our own limits: no turn within `queue_timeout`, or the queue is full
        ├── CircuitOpen                        the endpoint failed too often; nothing is sent for a while
        ├── ApiError                           the provider answered with an error: status, code, retryable
        │   ├── AuthenticationError            401, 403: the key is missing, wrong or not authorised
        │   ├── BadRequestError                the request can never succeed as it is
        │   │   └── ContextLengthExceeded      … because it is too long for the model
        │   ├── RateLimited                    429: too many requests; `retry_after`
        │   └── ContentFilterError             refused by the provider's content filter
        ├── ProtocolError                      the provider sent something its protocol does not allow
        └── IncompleteStream                   the stream stopped without its end marker

Constructors take facts and build the message. Durations are float seconds. No message holds a key or token text.
"""

from penstock.errors.agents import AgentBusy, AgentCrashed, AgentError, AgentExists, AgentStopped, ToolRoundsExceeded
from penstock.errors.base import CallTimeout, OptionError, PenstockError, describe_reason
from penstock.errors.processes import (
    MailboxFull,
    ProcessCrashed,
    ProcessDead,
    ProcessError,
    StartError,
    SupervisorError,
    SystemDraining,
    SystemForked,
    SystemStopped,
)
from penstock.errors.providers import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CircuitOpen,
    ConnectError,
    ContentFilterError,
    ContextLengthExceeded,
    IncompleteStream,
    LocalError,
    ProtocolError,
    ProviderBusy,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from penstock.errors.stores import (
    Fenced,
    NoOwner,
    RunsElsewhere,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIncompatible,
    StoreInUse,
    StoreReadOnly,
    StoreUnavailable,
    StreamInterrupted,
    StreamPoisoned,
)
from penstock.errors.streams import (
    BufferFull,
    DeliveryError,
    StreamCancelledError,
    StreamClosed,
    StreamCrashed,
    StreamError,
    StreamExists,
    StreamNotFound,
    SubscriberTooSlow,
)
from penstock.errors.toolbox import (
    MergeError,
    RaceError,
    RunawayAnswer,
    SourceError,
    StreamTimeout,
    TeeError,
    TransformError,
)
from penstock.errors.tools import OutputInvalid, ToolArgumentsError, ToolError

__all__ = [
    "AgentBusy",
    "AgentCrashed",
    "AgentError",
    "AgentExists",
    "AgentStopped",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BufferFull",
    "CallTimeout",
    "CircuitOpen",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthExceeded",
    "DeliveryError",
    "Fenced",
    "IncompleteStream",
    "LocalError",
    "MailboxFull",
    "MergeError",
    "NoOwner",
    "OptionError",
    "OutputInvalid",
    "PenstockError",
    "ProcessCrashed",
    "ProcessDead",
    "ProcessError",
    "ProtocolError",
    "ProviderBusy",
    "ProviderError",
    "ProviderTimeout",
    "RaceError",
    "RateLimited",
    "RunawayAnswer",
    "RunsElsewhere",
    "SourceError",
    "StartError",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreIncompatible",
    "StoreReadOnly",
    "StoreUnavailable",
    "StreamCancelledError",
    "StreamClosed",
    "StreamCrashed",
    "StreamError",
    "StreamExists",
    "StreamInterrupted",
    "StreamNotFound",
    "StreamPoisoned",
    "StreamTimeout",
    "SubscriberTooSlow",
    "SupervisorError",
    "SystemDraining",
    "SystemForked",
    "SystemStopped",
    "TeeError",
    "ToolArgumentsError",
    "ToolError",
    "ToolRoundsExceeded",
    "TransformError",
    "describe_reason",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # tracebacks show the path that users import from
