"""Errors of providers, and of the way to them."""

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
    "ProtocolError",
    "ProviderBusy",
    "ProviderError",
    "ProviderTimeout",
    "RateLimited",
]


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

    retryable = True

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
