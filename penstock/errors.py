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

from __future__ import annotations

from typing import Any

import pykka

__all__ = [
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
]


class PenstockError(Exception):
    """The root of everything Penstock raises on purpose."""


class OptionError(PenstockError, ValueError):
    """An option, setting or argument has a value that is not allowed.

    >>> str(OptionError("batch_size", 0, "a whole number from 1 to max_buffer_size (1000)"))
    'batch_size: got 0, allowed: a whole number from 1 to max_buffer_size (1000)'
    """

    def __init__(self, field: str, got: object, allowed: str, *, source: str | None = None) -> None:
        self.field = field
        self.got = got
        self.allowed = allowed
        self.source = source
        where = f" (from {source})" if source else ""
        super().__init__(f"{field}: got {got!r}, allowed: {allowed}{where}")


class CallTimeout(PenstockError, pykka.Timeout, TimeoutError):
    """An answer did not come in time. What was asked may still happen; its late answer is thrown away."""

    def __init__(self, what: str, timeout: float) -> None:
        self.what = what
        self.timeout = timeout
        super().__init__(f"{what}: no answer within {timeout:g} s")


# --- processes ---------------------------------------------------------------------------------------------------


class ProcessError(PenstockError):
    """Something about a process (an actor on the dispatcher)."""


class ProcessDead(ProcessError, pykka.ActorDeadError):
    """The process is dead, or died before it answered (OTP's ``noproc`` and exits seen by a caller).

    ``reason`` is its exit reason where it is known, else ``"noproc"``.
    """

    def __init__(self, process: str, reason: object = "noproc") -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} is not alive: {describe_reason(reason)}")


class ProcessCrashed(ProcessError):
    """A process died of something else than a normal end; ``reason`` is its exit reason."""

    def __init__(self, process: str, reason: object) -> None:
        self.process = process
        self.reason = reason
        super().__init__(f"{process} crashed: {describe_reason(reason)}")


class MailboxFull(ProcessError):
    """A message found no room in a bounded mailbox; the process was not told."""

    def __init__(self, process: str, max_size: int) -> None:
        self.process = process
        self.max_size = max_size
        super().__init__(f"the mailbox of {process} is full ({max_size} messages)")


class StartError(ProcessError):
    """A process did not start; nothing of it is left.

    ``code`` is one of ``"already_started"`` (``ref`` is who has the name), ``"bad_return_from_init"``,
    ``"ignore"``, ``"timeout"``, or what ``init`` gave as its reason to stop.
    """

    def __init__(self, process: str, code: object, ref: Any = None) -> None:
        self.process = process
        self.code = code
        self.ref = ref
        super().__init__(f"{process} did not start: {describe_reason(code)}")


class SystemStopped(ProcessError):
    """The system has been stopped, or was never started."""

    def __init__(self, what: str = "the system") -> None:
        super().__init__(f"{what} is not running")


class SupervisorError(PenstockError):
    """A supervisor refused a call. ``code`` is OTP's word for it: ``"already_present"``, ``"not_found"`` …"""

    def __init__(self, code: str, child: object = None, detail: object = None) -> None:
        self.code = code
        self.child = child
        self.detail = detail
        about = f" (child {child!r})" if child is not None else ""
        more = f": {describe_reason(detail)}" if detail is not None else ""
        super().__init__(f"{code}{about}{more}")


# --- streams -----------------------------------------------------------------------------------------------------


class StreamError(PenstockError):
    """Something about one stream; ``stream_id`` says which.

    ``partial`` is the text that had come before, where the error is how a stream ended; never part of the message.
    """

    partial: str = ""

    def __init__(self, stream_id: str, message: str) -> None:
        self.stream_id = stream_id
        super().__init__(message)


class StreamExists(StreamError):
    """A running stream has that id already."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} exists already")


class StreamNotFound(StreamError):
    """No stream has that id."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"there is no stream {stream_id!r}")


class StreamClosed(StreamError):
    """The stream has ended or is ending; it takes no more tokens."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} has ended")


class StreamCancelledError(StreamError):
    """What ``Stream.result()`` raises for a cancelled stream; ``partial`` is the text that came before."""

    def __init__(self, stream_id: str, reason: str | None, partial: str = "") -> None:
        self.reason = reason
        self.partial = partial
        super().__init__(stream_id, f"stream {stream_id!r} was cancelled" + (f": {reason}" if reason else ""))


class StreamCrashed(StreamError):
    """The stream's actor died and was not restarted. What was delivered before is in the log."""

    def __init__(self, stream_id: str, reason: object) -> None:
        self.reason = reason
        super().__init__(stream_id, f"stream {stream_id!r} crashed: {describe_reason(reason)}")


class DeliveryError(StreamError):
    """``max_errors`` batches in a row could not be delivered; the last failure is the ``__cause__``."""

    def __init__(self, stream_id: str, errors: int) -> None:
        self.errors = errors
        super().__init__(stream_id, f"stream {stream_id!r}: {errors} deliveries failed")


class BufferFull(StreamError):
    """The stream's buffer had no room for the token(s) within the time allowed. Nothing of the rest was taken.

    ``accepted`` says how many of the tokens of the call were taken before.
    """

    def __init__(self, stream_id: str, max_buffer_size: int, timeout: float | None, accepted: int = 0) -> None:
        self.max_buffer_size = max_buffer_size
        self.timeout = timeout
        self.accepted = accepted
        waited = f" within {timeout:g} s" if timeout else ""
        super().__init__(stream_id, f"stream {stream_id!r}: no room{waited} in a buffer of {max_buffer_size} tokens")


class SubscriberTooSlow(StreamError):
    """A subscriber with ``slow="disconnect"`` had more than ``window`` events waiting and was let go."""

    def __init__(self, stream_id: str, window: int) -> None:
        self.window = window
        super().__init__(stream_id, f"stream {stream_id!r}: a subscriber had more than {window} events waiting")


class OutputInvalid(PenstockError):
    """A structured answer is no JSON, or does not fit its model.

    ``problems`` says where and why, without the answer's text, which is in ``partial``.
    """

    def __init__(self, model: str, problems: tuple[str, ...], partial: str) -> None:
        self.model = model
        self.problems = problems
        self.partial = partial
        super().__init__(f"the answer is no {model}: " + "; ".join(problems))


# --- tools -------------------------------------------------------------------------------------------------------


class ToolError(PenstockError):
    """A tool cannot do, or tell, what was asked. Its text goes to the model."""


class ToolArgumentsError(ToolError):
    """The model's arguments do not fit; the text says which and why, for the model to do better."""


# --- providers ---------------------------------------------------------------------------------------------------


class ProviderError(PenstockError):
    """The provider failed, or the way to it.

    Attributes:
        retryable: whether the same request may work later.
        partial: the text that had come before (set by the stream; never part of the message).
    """

    retryable: bool = False
    partial: str = ""


class ConnectError(ProviderError):
    """No connection, or it broke before the first byte of an answer."""

    retryable = True

    def __init__(self, host: str, detail: str, *, retryable: bool = True) -> None:
        self.host = host
        self.detail = detail
        self.retryable = retryable
        super().__init__(f"cannot reach {host}: {detail}")


_MISSED = {
    "connect": "no connection",
    "first_token": "no first token",
    "idle": "no further token",
    "total": "not complete",
}


class ProviderTimeout(ProviderError, TimeoutError):
    """One of the clocks ran out: ``which`` is ``"connect"``, ``"first_token"``, ``"idle"`` or ``"total"``."""

    retryable = True

    def __init__(self, which: str, timeout: float) -> None:
        self.which = which
        self.timeout = timeout
        super().__init__(f"{which} time-out: {_MISSED.get(which, 'nothing')} within {timeout:g} s")


class ProviderBusy(ProviderError):
    """The limits set for this provider left no turn in time, or the queue for one is full. Nothing was sent."""

    retryable = True

    def __init__(self, endpoint: str, detail: str) -> None:
        self.endpoint = endpoint
        self.detail = detail
        super().__init__(f"{endpoint}: {detail}")


class CircuitOpen(ProviderError):
    """The endpoint failed so often that nothing is sent to it until ``retry_after`` seconds from now."""

    def __init__(self, endpoint: str, retry_after: float) -> None:
        self.endpoint = endpoint
        self.retry_after = retry_after
        super().__init__(f"{endpoint} failed too often; it is tried again in {retry_after:.1f} s")


class ApiError(ProviderError):
    """The provider answered with an error, as an HTTP status or as an error frame under HTTP 200 (``status`` 200)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        about = f" {code}" if code else ""
        super().__init__(f"HTTP {status}{about}: {message}")


class AuthenticationError(ApiError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""


class BadRequestError(ApiError):
    """The provider will never accept this request (400, 404, 422 …)."""


class ContextLengthExceeded(BadRequestError):
    """The request is longer than the model's context."""


class RateLimited(ApiError):
    """Too many requests (429); ``retry_after`` is how many seconds the provider asked to wait, if it did."""


class ContentFilterError(ApiError):
    """The provider's content filter refused the request."""


class ProtocolError(ProviderError):
    """The provider sent what its protocol does not allow: not an event stream, an event over the limit …"""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class IncompleteStream(ProviderError):
    """The stream stopped without its end marker: closed, reset or cut. ``detail`` says how."""

    retryable = True

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"the stream stopped before its end: {detail}")


def describe_reason(reason: object) -> str:
    """Say an exit reason in a few words without showing what an exception's arguments hold.

    Our own errors are safe to print; of foreign exceptions only the type is said, since their text may hold
    token text or a key.

    >>> describe_reason(ValueError("secret"))
    'ValueError'
    >>> describe_reason("shutdown")
    'shutdown'
    """
    if isinstance(reason, PenstockError):
        return f"{type(reason).__name__}: {reason}"
    if isinstance(reason, BaseException):
        return type(reason).__name__
    if isinstance(reason, str):
        return reason
    if isinstance(reason, tuple):
        return "(" + ", ".join(describe_reason(part) for part in reason) + ")"
    return type(reason).__name__
