"""Errors of providers, and of the connections to them."""

from __future__ import annotations

from penstock.errors.base import PenstockError

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "CircuitOpen",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthExceeded",
    "IncompleteStream",
    "LocalError",
    "ProtocolError",
    "ProviderBusy",
    "ProviderError",
    "ProviderTimeout",
    "RateLimited",
]


class ProviderError(PenstockError):
    """The provider failed, or the connection to it.

    Attributes:
        retryable: whether the same request may succeed later.
        partial: the answer's text so far. Set by the stream; never part of the message.
        note: what else is known of the request, such as why it was not retried. Part of the message.
    """

    retryable: bool = False
    partial: str = ""
    note: str = ""

    def annotate(self, note: str) -> None:
        """Add a note to the message, unless it is there."""
        if note not in self.note:
            self.note = f"{self.note}; {note}" if self.note else note

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.note})" if self.note else text


class ConnectError(ProviderError):
    """No connection was made, or it broke before the first byte of an answer."""

    retryable = True

    def __init__(self, host: str, detail: str, *, retryable: bool = True) -> None:
        self.host = host
        self.detail = detail
        self.retryable = retryable
        super().__init__(f"cannot reach {host}: {detail}")


class LocalError(ProviderError):
    """The request could not be made, for a fault of this machine: no file descriptors, memory, ports, route."""

    retryable = True

    def __init__(self, detail: str, *, retryable: bool = True) -> None:
        self.detail = detail
        self.retryable = retryable
        super().__init__(f"this machine cannot make the request: {detail}")


_MISSED = {
    "connect": "no connection",
    "first_token": "no first token",
    "idle": "no further token",
    "total": "no complete answer",
}


class ProviderTimeout(ProviderError, TimeoutError):
    """A time limit has passed: ``which`` is ``"connect"``, ``"first_token"``, ``"idle"`` or ``"total"``."""

    retryable = True

    def __init__(self, which: str, timeout: float) -> None:
        self.which = which
        self.timeout = timeout
        super().__init__(f"{which} timeout: {_MISSED.get(which, 'nothing')} within {timeout:g} s")


class ProviderBusy(ProviderError):
    """The limits set for this provider gave the request no turn in time, or its queue is full. Nothing was sent."""

    retryable = True

    def __init__(self, endpoint: str, detail: str) -> None:
        self.endpoint = endpoint
        self.detail = detail
        super().__init__(f"{endpoint}: {detail}")


class CircuitOpen(ProviderError):
    """The endpoint failed so often that nothing is sent to it for the next ``retry_after`` seconds."""

    retryable = True

    def __init__(self, endpoint: str, retry_after: float) -> None:
        self.endpoint = endpoint
        self.retry_after = retry_after
        super().__init__(f"{endpoint} failed too often; it is tried again in {retry_after:.1f} s")


class ApiError(ProviderError):
    """The provider answered with an error: an HTTP status, or an error event in a stream (``status`` is then 200).

    Attributes:
        status: the HTTP status.
        code: the provider's own word for the error, if it gave one.
        message: the provider's text, with keys replaced by stars.
        retry_after: seconds that the provider asked to wait, if it did.
    """

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
    """The key is missing, wrong, or not authorised for the request (401, 403)."""


class BadRequestError(ApiError):
    """The provider will never accept this request (400, 404, 422 …)."""


class ContextLengthExceeded(BadRequestError):
    """The request is longer than the model's context window."""


class RateLimited(ApiError):
    """Too many requests, or no quota left (429)."""


class ContentFilterError(ApiError):
    """The provider's content filter refused the request."""


class ProtocolError(ProviderError):
    """The provider sent something its protocol does not allow: no event stream, an event over the limit …"""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class IncompleteStream(ProviderError):
    """The provider's stream stopped without its end marker: closed, reset or cut. ``detail`` says how."""

    retryable = True

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"the stream stopped before its end: {detail}")
