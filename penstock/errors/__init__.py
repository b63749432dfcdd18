"""Every error Penstock raises.

The whole tree::

    PenstockError
    ├── OptionError (also ValueError)          a setting or an argument is not allowed: which, what, what is
    ├── CallTimeout (also TimeoutError, pykka.Timeout)   an answer did not come in time; the process goes on
    ├── ProcessError                           a process could not be reached, started, or died
    │   ├── ProcessDead (also pykka.ActorDeadError)   no such process, or it died before it answered
    │   ├── ProcessCrashed                     it died of an exception; `reason` says which
    │   ├── MailboxFull                        its bounded mailbox has no room for the message
    │   ├── StartError                         it did not start: ignored, bad return, time-out, name taken …
    │   └── SystemStopped                      the system is not running (any more)
    ├── SupervisorError                        a supervisor refused a call (`code` is OTP's own word)
    ├── StreamError                            something about one stream
    │   ├── StreamExists                       its id is taken
    │   ├── StreamNotFound                     nobody has that id
    │   ├── StreamClosed                       it has ended; nothing can be pushed any more
    │   ├── StreamCancelledError               `result()` of a cancelled stream
    │   ├── StreamCrashed                      its actor died; what was delivered is kept
    │   ├── DeliveryError                      too many batches could not be delivered
    │   ├── BufferFull                         no room, and no time left to wait for it
    │   └── SubscriberTooSlow                  a `disconnect` subscriber fell too far behind
    ├── AgentError                             something about one agent
    │   ├── AgentExists                        its name is taken
    │   ├── AgentBusy                          as many messages wait for it as may
    │   ├── AgentStopped                       it takes no messages any more
    │   ├── AgentCrashed                       its process died while it answered
    │   └── ToolRoundsExceeded                 the model asked for tools more often than it may
    ├── OutputInvalid                          a structured answer is no JSON, or not of its model
    ├── ToolError                              a tool's result cannot be told to the model
    │   └── ToolArgumentsError                 the model's arguments do not fit the tool's schema
    └── ProviderError                          the provider, or the way to it; `partial` is the text so far
        ├── ConnectError                       no connection: refused, unknown host, TLS, reset before an answer
        ├── ProviderTimeout                    one of the four clocks ran out; `which` says which
        ├── ProviderBusy                       our own limits: no turn within the queue's time-out, or no place in it
        ├── CircuitOpen                        the endpoint failed too often just now; nothing is sent for a while
        ├── ApiError                           the provider answered with an error: status, code, retryable
        │   ├── AuthenticationError            401, 403: the key
        │   ├── BadRequestError                the request can never work as it is
        │   │   └── ContextLengthExceeded      … because it is too long
        │   ├── RateLimited                    429: `retry_after`
        │   └── ContentFilterError             refused by the provider's filter
        ├── ProtocolError                      bytes that are not what they should be
        └── IncompleteStream                   the stream stopped without saying that it was complete

Constructors take facts and build the message. No message ever holds a key or token text of a stream.
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
    ProtocolError,
    ProviderBusy,
    ProviderError,
    ProviderTimeout,
    RateLimited,
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
    "IncompleteStream",
    "MailboxFull",
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
    "RateLimited",
    "StartError",
    "StreamCancelledError",
    "StreamClosed",
    "StreamCrashed",
    "StreamError",
    "StreamExists",
    "StreamNotFound",
    "SubscriberTooSlow",
    "SupervisorError",
    "SystemStopped",
    "ToolArgumentsError",
    "ToolError",
    "ToolRoundsExceeded",
    "describe_reason",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # tracebacks say where users import them from
