"""Maps the exceptions of requests, urllib3, http.client and the operating system to Penstock's errors."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

from penstock.adapters.http.descriptors import descriptor_limit
from penstock.errors import (
    ConnectError,
    IncompleteStream,
    LocalError,
    PenstockError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
    describe_reason,
)

__all__ = ["body_failure", "clear_frames", "is_local_fault", "request_failure", "unexpected_failure"]

_LOCAL_FAULTS = {
    errno.EMFILE: "this process has no file descriptors left",
    errno.ENFILE: "the system has no file descriptors left",
    errno.ENOMEM: "the system has no memory left",
    errno.ENOBUFS: "the system has no memory left for sockets",
    errno.EADDRNOTAVAIL: "no local address or port is left for the connection",
    errno.EADDRINUSE: "no local port is left for the connection",
    errno.ENETUNREACH: "it has no route to the network",
    errno.ENETDOWN: "its network is down",
    errno.EAFNOSUPPORT: "it does not support the address family",
    errno.EACCES: "it does not permit the connection",
    errno.EPERM: "it does not permit the connection",
}
"""Errors of the operating system that say nothing about the other side."""
_LOCAL_LOOKUPS = {getattr(socket, name) for name in ("EAI_SYSTEM", "EAI_MEMORY") if hasattr(socket, name)}


def is_local_fault(error: BaseException) -> bool:
    """Whether an exception of the operating system is about this machine rather than the other side."""
    if isinstance(error, MemoryError):
        return True
    # The numbers of these two are not the operating system's.
    return (
        isinstance(error, OSError)
        and not isinstance(error, (socket.gaierror, ssl.SSLError))
        and error.errno in _LOCAL_FAULTS
    )


def _local_failure(causes: list[BaseException]) -> LocalError | None:
    """The error for a fault of this machine; None if there was none among the causes."""
    for cause in causes:
        if isinstance(cause, MemoryError):
            return _local_error(errno.ENOMEM)
        if is_local_fault(cause):
            assert isinstance(cause, OSError) and cause.errno is not None  # noqa: PT018
            return _local_error(cause.errno)
        if isinstance(cause, socket.gaierror):
            if (code := _missing_descriptors()) is not None:  # the lookup reports it as a failure of the name server
                return _local_error(code)
            if cause.args[:1] and cause.args[0] in _LOCAL_LOOKUPS:
                return LocalError("a system call failed while a name was looked up")
    return None


def _local_error(code: int) -> LocalError:
    detail = _LOCAL_FAULTS[code]
    if code == errno.EMFILE and (limit := descriptor_limit()) is not None:
        detail += f": its limit is {limit:,}, and each request takes one (see ulimit -n)"
    return LocalError(detail)


def _missing_descriptors() -> int | None:
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno if error.errno in _LOCAL_FAULTS else None
    return None


def clear_frames(error: BaseException) -> None:
    """Forget the local variables of the frames through which an exception and those before it have come.

    A frame of urllib3 keeps the exception in a variable: a circle, in which the request and its stream would wait for
    the garbage collector.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        found = found.__context__


class _CauseSummary(Exception):
    """Replaces a foreign exception as ``__cause__``: contains its type and place, but neither its text nor its frames.

    Those hold the key, and the connection with its pool, for as long as the error is kept.
    """

    def __init__(self, error: BaseException) -> None:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" in {Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno}" if place else ""
        super().__init__(f"{type(error).__name__}{where}")


def _without_frames(error: PenstockError) -> PenstockError:
    """Strip an error of Penstock's own that was raised: no frames, and a summary in place of its cause."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    error.__context__ = None
    error.__cause__ = _CauseSummary(before) if before is not None else None
    return error.with_traceback(None)


def request_failure(
    error: BaseException, host: str, *, sent: bool, connect_timeout: float, wait_limit: float, is_proxied: bool = False
) -> PenstockError:
    """Map an exception that was raised before the response's headers were complete.

    Args:
        error: what was raised.
        host: where the request went.
        sent: whether the request was sent completely; tells a time-out of the connection from one of the response.
        connect_timeout: in seconds, for the error.
        wait_limit: the longest wait for the response in seconds, for the error.
        is_proxied: whether the connection goes to a proxy.
    """
    causes = list(_causes(error))
    if isinstance(ours := _first(causes, PenstockError), PenstockError):  # requests may have wrapped it
        return _without_frames(ours)
    mapped = _local_failure(causes) or _map_request_failure(
        error, causes, host, sent, connect_timeout, wait_limit, is_proxied
    )
    mapped.__cause__ = _CauseSummary(error)
    return mapped


def _map_request_failure(
    error: BaseException,
    causes: list[BaseException],
    host: str,
    sent: bool,
    connect_timeout: float,
    wait_limit: float,
    is_proxied: bool,
) -> PenstockError:
    import requests
    import urllib3.exceptions as urllib3_errors

    if found := _first(causes, ssl.SSLCertVerificationError, ssl.CertificateError):
        reason = getattr(found, "verify_message", "") or "it does not match"
        return ConnectError(host, f"its TLS certificate is not accepted: {reason}", retryable=False)
    if found := _first(causes, socket.gaierror):
        # EAI_AGAIN: the name server did not answer; everything else: the name has no address.
        is_temporary = found.args[:1] == (socket.EAI_AGAIN,)
        whose = "the proxy's name" if is_proxied else "its name"
        return ConnectError(host, f"{whose} cannot be resolved", retryable=is_temporary)
    if _first(causes, TimeoutError):  # not urllib3's TimeoutError: its NewConnectionError is one as well
        if sent:
            return ProviderTimeout("first_token", wait_limit)
        return ProviderTimeout("connect", connect_timeout)
    proxy = "the proxy " if _first(causes, urllib3_errors.ProxyError, requests.exceptions.ProxyError) else ""
    if _first(causes, ConnectionRefusedError):
        return ConnectError(host, f"{proxy}connection refused")
    if _first(causes, http.client.RemoteDisconnected):
        return ConnectError(host, f"{proxy}connection closed without a response")
    if _first(causes, ConnectionError):
        return ConnectError(host, f"{proxy}connection reset")
    if _first(causes, ssl.SSLError, urllib3_errors.SSLError, requests.exceptions.SSLError):
        return ConnectError(host, f"{proxy}TLS handshake failed")
    if found := _first(causes, http.client.HTTPException):
        return ProtocolError(f"the response of {host} is not HTTP: {type(found).__name__}")
    if isinstance(error, (OSError, urllib3_errors.HTTPError)) and not isinstance(error, ValueError):
        return ConnectError(host, f"{proxy}{_describe(causes)}")
    return unexpected_failure(error)


def body_failure(error: BaseException, *, chunked: bool, wait_limit: float) -> PenstockError:
    """Map an exception that was raised while a response's body was read.

    Args:
        error: what was raised.
        chunked: whether the body came in HTTP chunks.
        wait_limit: the longest wait for data in seconds, for the error.
    """
    mapped = _map_body_failure(error, chunked, wait_limit)
    mapped.__cause__ = _CauseSummary(error)
    return mapped


def _map_body_failure(error: BaseException, chunked: bool, wait_limit: float) -> PenstockError:
    import urllib3.exceptions as urllib3_errors

    causes = list(_causes(error))
    if local := _local_failure(causes):
        return local
    if isinstance(error, (urllib3_errors.DecodeError, zlib.error)):
        return ProtocolError("the body's compression is broken")
    if isinstance(error, urllib3_errors.TimeoutError):
        return ProviderTimeout("idle", wait_limit)
    if _first(causes, ConnectionError):
        return IncompleteStream("connection reset")
    if _first(causes, http.client.IncompleteRead):
        where = "in the middle of a chunked body" if chunked else "before the announced length"
        return IncompleteStream(f"connection closed {where}")
    if _first(causes, ssl.SSLError, urllib3_errors.SSLError):
        return IncompleteStream("TLS connection broken")
    if isinstance(error, (OSError, urllib3_errors.HTTPError)):
        return IncompleteStream(f"connection broken: {_describe(causes)}")
    return unexpected_failure(error)


def unexpected_failure(error: BaseException) -> PenstockError:
    """Wrap any other exception, of which only the type is safe to show; Penstock's own errors stay as they are."""
    if isinstance(error, PenstockError):
        return _without_frames(error)
    if local := _local_failure([cause for cause in _causes(error) if not isinstance(cause, PermissionError)]):
        local.__cause__ = _CauseSummary(error)
        return local
    wrapped = ProviderError(f"reading the provider's response failed: {describe_reason(error)}")
    wrapped.__cause__ = _CauseSummary(error)
    return wrapped


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything it wraps: requests keeps the reason in args, urllib3 in ``reason``."""
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        cause = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        context = None if cause.__suppress_context__ else cause.__context__
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__, context)
        pending.extend(part for part in inner if isinstance(part, BaseException))


def _first(causes: list[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _describe(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return type(causes[-1]).__name__
