"""What can go wrong on the way to a provider, told in our errors. Foreign exceptions stop here."""

from __future__ import annotations

import http.client
import socket
import ssl
import zlib
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import (
    ConnectError,
    IncompleteStream,
    PenstockError,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
    describe_reason,
)

__all__ = ["before_the_answer", "in_the_body", "scrub", "unexpected"]


class _Cause(Exception):
    """Stands for a foreign exception: its type and place, but neither its text nor its frames.

    Those hold the key, and the connection with its pool, for as long as somebody keeps our error.
    """

    def __init__(self, error: BaseException) -> None:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" in {Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno}" if place else ""
        super().__init__(f"{type(error).__name__}{where}")


def _light(error: PenstockError) -> PenstockError:
    """One of our own errors that was raised: without its frames, and with a stand-in for what it came from."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    error.__context__ = None
    error.__cause__ = _Cause(before) if before is not None else None
    return error.with_traceback(None)


def before_the_answer(
    error: BaseException, host: str, *, sent: bool, connect_timeout: float, wait_limit: float
) -> PenstockError:
    """Say what an exception means that came before the response's headers were complete.

    ``sent`` tells a time-out of the connection from one of the answer.
    """
    causes = list(_causes(error))
    if isinstance(ours := _first(causes, PenstockError), PenstockError):  # on its way out, requests may have wrapped it
        return _light(ours)
    told = _told(error, causes, host, sent, connect_timeout, wait_limit)
    told.__cause__ = _Cause(error)
    return told


def _told(
    error: BaseException, causes: list[BaseException], host: str, sent: bool, connect_timeout: float, wait_limit: float
) -> PenstockError:
    import requests
    import urllib3.exceptions as urllib3_errors

    if found := _first(causes, ssl.SSLCertVerificationError, ssl.CertificateError):
        reason = getattr(found, "verify_message", "") or "it does not match"
        return ConnectError(host, f"its TLS certificate is not accepted: {reason}", retryable=False)
    if found := _first(causes, socket.gaierror):
        # EAI_AGAIN: the name server did not answer; everything else: the name has no address.
        again = found.args[:1] == (socket.EAI_AGAIN,)
        return ConnectError(host, "its name cannot be resolved", retryable=again)
    if _first(causes, TimeoutError):  # not urllib3's: its NewConnectionError calls itself a time-out too
        if sent:
            return ProviderTimeout("first_token", wait_limit)
        return ProviderTimeout("connect", connect_timeout)
    proxy = "the proxy " if _first(causes, urllib3_errors.ProxyError, requests.exceptions.ProxyError) else ""
    if _first(causes, ConnectionRefusedError):
        return ConnectError(host, f"{proxy}connection refused")
    if _first(causes, http.client.RemoteDisconnected):
        return ConnectError(host, f"{proxy}connection closed without an answer")
    if _first(causes, ConnectionError):
        return ConnectError(host, f"{proxy}connection reset")
    if _first(causes, ssl.SSLError, urllib3_errors.SSLError, requests.exceptions.SSLError):
        return ConnectError(host, f"{proxy}TLS handshake failed")
    if found := _first(causes, http.client.HTTPException):
        return ProtocolError(f"the answer of {host} is not HTTP: {type(found).__name__}")
    if isinstance(error, (OSError, urllib3_errors.HTTPError)) and not isinstance(error, ValueError):
        return ConnectError(host, f"{proxy}{_in_words(causes)}")
    return unexpected(error)


def in_the_body(error: BaseException, *, chunked: bool, wait_limit: float) -> PenstockError:
    """Say what an exception means that came while a response's body was read."""
    told = _told_in_body(error, chunked, wait_limit)
    told.__cause__ = _Cause(error)
    return told


def _told_in_body(error: BaseException, chunked: bool, wait_limit: float) -> PenstockError:
    import urllib3.exceptions as urllib3_errors

    causes = list(_causes(error))
    if isinstance(error, (urllib3_errors.DecodeError, zlib.error)):
        return ProtocolError("the body's compression is broken")
    if isinstance(error, urllib3_errors.TimeoutError):
        return ProviderTimeout("idle", wait_limit)
    if _first(causes, ConnectionError):
        return IncompleteStream("connection reset")
    if _first(causes, http.client.IncompleteRead):
        where = "in the middle of a chunked body" if chunked else "before the length it had announced"
        return IncompleteStream(f"connection closed {where}")
    if _first(causes, ssl.SSLError, urllib3_errors.SSLError):
        return IncompleteStream("TLS connection broken")
    if isinstance(error, (OSError, urllib3_errors.HTTPError)):
        return IncompleteStream(f"connection broken: {_in_words(causes)}")
    return unexpected(error)


def unexpected(error: BaseException) -> PenstockError:
    """Wrap what nobody foresaw, of which only the type is safe to show; our own errors stay what they are."""
    if isinstance(error, PenstockError):
        return _light(error)
    told = ProviderError(f"reading the provider's answer failed: {describe_reason(error)}")
    told.__cause__ = _Cause(error)
    return told


def scrub(error: PenstockError, secrets: tuple[str, ...]) -> None:
    """Put stars wherever a secret appears in what an error says: providers echo keys."""
    args = tuple(_without(arg, secrets) for arg in error.args)
    if args != error.args:
        error.args = args
    for name, value in vars(error).items():
        if (shown := _without(value, secrets)) != value:
            setattr(error, name, shown)


_SHORTEST_PIECE = 8


def _without(value: object, secrets: tuple[str, ...]) -> object:
    if not isinstance(value, str):
        return value
    for secret in secrets:
        value = value.replace(secret, "***")
    # A message that is cut to what can be shown may end in a piece of one.
    for secret in secrets:
        for length in range(len(secret) - 1, _SHORTEST_PIECE - 1, -1):
            if value.endswith(secret[:length]):
                return value[:-length] + "***"
    return value


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and everything it wraps: requests hides the reason in args, urllib3 in ``reason``."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        context = None if one.__suppress_context__ else one.__context__
        inner = (*one.args, getattr(one, "reason", None), one.__cause__, context)
        todo.extend(part for part in inner if isinstance(part, BaseException))


def _first(causes: list[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _in_words(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return type(causes[-1]).__name__
