"""What a request needs to be answered: its host, origin, key or ticket."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.config.gateway import GatewayOptions
from penstock.gateway.exchange import Exchange
from penstock.gateway.keys import ANONYMOUS, Key, KeyFile, Scope
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["Guard", "is_from_here", "is_loopback"]

_READING: Final = ("GET", "HEAD", "OPTIONS")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY: Final = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-site"),
)
_EXPOSED: Final = (
    "x-request-id, x-penstock-stream-id, x-penstock-overhead-ms, x-penstock-gap, x-penstock-dropped, "
    "x-penstock-ignored, server-timing, retry-after"
)
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")
_FIRST_USE: Final = 60.0
_TICKET: Final = re.compile(r"[A-Za-z0-9_-]{32}")  # 24 bytes in Base64
_MOST_TICKETS: Final = 100_000


class _Ticket(msgspec.Struct):
    stream_id: str
    key: Key
    until: float | None  # of the first use, on the loop's clock; None: it has been used


class Guard:
    """Checks each request. Used on the gateway's loop.

    Without keys, every request is the anonymous one's, which may do everything; so only loopback host names are
    answered, that no page of another host can reach the gateway by a name that it has made to point here.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self._file = KeyFile(options.keys) if options.keys is not None else None
        if self._file is not None:
            self._file.refresh()
        self._tickets: dict[bytes, _Ticket] = {}

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return self._file is not None

    # --- what comes from browsers --------------------------------------------------------------------------------

    def check_origin(self, exchange: Exchange, *, is_socket: bool = False) -> None:
        """Check the host name, and the origin of a request that changes something.

        Raises:
            RequestRefused: the host is not answered (421), or the origin is not allowed (403).
        """
        host = _name_of(exchange.headers.get("host", ""))
        is_open = self.has_keys or "*" in self.options.hosts or host in self.options.hosts
        if host and not is_open and not is_loopback(host):
            text = (
                "Without keys, only loopback host names are answered."
                " Set gateway.keys, or name the host in gateway.hosts."
            )
            raise RequestRefused(_forbidden(421, "host_not_allowed", text))
        origin = exchange.headers.get("origin")
        changes = is_socket or exchange.method not in _READING
        if origin is not None and changes and not self.is_allowed(origin, exchange.headers):
            text = "Pages of this origin may not use the gateway. Name it in gateway.cors."
            raise RequestRefused(_forbidden(403, "origin_not_allowed", text))

    def is_allowed(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether pages of an origin may use the gateway: those of ``cors``, and those of the gateway's own host."""
        if "*" in self.options.cors or origin in self.options.cors:
            return True
        return origin.partition("://")[2].lower() == headers.get("host", "").lower()

    def headers(self, headers: Mapping[str, str], request_id: str) -> list[tuple[str, str]]:
        """The headers of every response."""
        made = [*_SECURITY, ("x-request-id", request_id)]
        origin = headers.get("origin")
        if origin is not None and ("*" in self.options.cors or origin in self.options.cors):
            made += [
                ("access-control-allow-origin", "*" if "*" in self.options.cors else origin),
                ("access-control-expose-headers", _EXPOSED),
                ("vary", "origin"),
            ]
        return made

    def preflight(self, headers: Mapping[str, str], methods: tuple[str, ...]) -> list[tuple[str, str]]:
        """The headers that answer the question whether another origin's page may send a request."""
        allow = [("allow", ", ".join(methods))]
        origin = headers.get("origin")
        if origin is None or not ("*" in self.options.cors or origin in self.options.cors):
            return allow
        asked = headers.get("access-control-request-headers", "")
        return [
            *allow,
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-allow-headers", asked if re.fullmatch(r"[A-Za-z0-9, _-]{0,1024}", asked) else ""),
            ("access-control-max-age", "600"),
        ]

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        """The client's ``x-request-id``, if it is one that can stand in a header and a log."""
        given = headers.get("x-request-id", "")
        return given if _REQUEST_ID.fullmatch(given) else None

    # --- keys ----------------------------------------------------------------------------------------------------

    def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str], *, is_needed: bool) -> Key:
        """The key of a request: in ``Authorization: Bearer``, or in ``x-api-key``.

        Raises:
            RequestRefused: it is needed, and missing or none that is valid (401).
        """
        if self._file is None or not is_needed:
            return ANONYMOUS
        if "key" in query or "api_key" in query:
            raise RequestRefused(
                _unauthorised("A key in the URL would be kept in logs. Send it in a header, or use a ticket.")
            )
        kind, _, value = headers.get("authorization", "").partition(" ")
        secret = value.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "").strip()
        return self.key(secret)

    def key(self, secret: str) -> Key:
        """The key that a text is.

        Raises:
            RequestRefused: it is none that is valid (401).
        """
        if self._file is None:
            return ANONYMOUS
        if not secret:
            raise RequestRefused(_unauthorised("No API key. Send it as Authorization: Bearer, or as x-api-key."))
        key = self._file.find(secret)
        if key is None:
            raise RequestRefused(_unauthorised("This API key is not valid."))
        return key

    def check_scope(self, key: Key, scope: Scope) -> None:
        """Raise `RequestRefused` if the key does not have the scope now (403)."""
        if not self.present(key).may(scope):
            raise RequestRefused(_forbidden(403, "scope_missing", f"This API key does not have the scope {scope}."))

    def is_valid(self, key: Key) -> bool:
        """Whether a key that was valid still is."""
        return self._file is None or self._file.get(key.id) is not None

    def present(self, key: Key) -> Key:
        """A key as it is now in the file; one that has been revoked as it was."""
        return self.key_of(key.id) or key

    def key_of(self, key_id: str) -> Key | None:
        """A valid key by its id. Without keys there is none."""
        return self._file.get(key_id) if self._file is not None else None

    # --- tickets -------------------------------------------------------------------------------------------------

    def new_ticket(self, stream_id: str, key: Key, now: float) -> str:
        """Make a ticket by which one stream can be read without a header, as ``EventSource`` does.

        It must be used within a minute, and is then good while the system knows the stream.

        Raises:
            RequestRefused: there are too many (429).
        """
        if len(self._tickets) >= _MOST_TICKETS:
            text = "There are too many tickets. Try again in a minute."
            raise RequestRefused(Problem(status=429, type="rate_limit_error", code="too_many_tickets", message=text))
        ticket = secrets.token_urlsafe(24)
        self._tickets[_digest(ticket)] = _Ticket(stream_id, key, now + _FIRST_USE)
        return ticket

    def use_ticket(self, ticket: str, stream_id: str, now: float) -> Key:
        """The key of a ticket's maker.

        Raises:
            RequestRefused: it is unknown, too old, or for another stream (401).
        """
        found = self._tickets.get(_digest(ticket))
        is_late = found is not None and found.until is not None and found.until < now
        if found is None or is_late or found.stream_id != stream_id or not self.is_valid(found.key):
            raise RequestRefused(_unauthorised("This ticket is not valid for this stream."))
        found.until = None
        return self.present(found.key)

    @staticmethod
    def is_ticket(text: str) -> bool:
        """Whether a text has the form of a ticket, so that it may be one."""
        return _TICKET.fullmatch(text) is not None

    def knows_ticket(self, ticket: str) -> bool:
        """Whether a ticket was made, or has been used, here."""
        return _digest(ticket) in self._tickets

    def has_used_ticket(self, ticket: str) -> bool:
        """Whether a ticket has been used here."""
        known = self._tickets.get(_digest(ticket))
        return known is not None and known.until is None

    def adopt_ticket(self, ticket: str, stream_id: str, key_id: str) -> None:
        """Accept a ticket that another node has made with a key; without effect if the key is not known here."""
        key = ANONYMOUS if self._file is None and key_id == ANONYMOUS.id else self.key_of(key_id)
        if key is not None and len(self._tickets) < _MOST_TICKETS:
            self._tickets[_digest(ticket)] = _Ticket(stream_id, key, None)

    def forget_tickets(self, now: float, is_known: Callable[[str], bool]) -> None:
        """Forget tickets that were not used in time, and those of streams that are not known any more."""
        for digest, ticket in list(self._tickets.items()):
            if (ticket.until is not None and ticket.until < now) or not is_known(ticket.stream_id):
                del self._tickets[digest]


def is_loopback(host: str) -> bool:
    """Whether a host name, or an address, is this machine's own.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "a.localhost", "example.com")]
    [True, True, True, True, False]
    """
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_from_here(exchange: Exchange) -> bool:
    """Whether a request comes from this machine, to a loopback host name, and through no proxy that says so."""
    peer = exchange.scope.get("client")
    headers = exchange.headers
    return (
        peer is not None
        and is_loopback(str(peer[0]))
        and is_loopback(_name_of(headers.get("host", "")))
        and not any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    )


def _name_of(host: str) -> str:
    """A Host header without its port."""
    host = host.strip().lower()
    found = _HOST.fullmatch(host)
    return found[1] if found is not None else host


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()


def _unauthorised(message: str) -> Problem:
    return Problem(status=401, type="authentication_error", code="invalid_api_key", message=message)


def _forbidden(status: int, code: str, message: str) -> Problem:
    return Problem(status=status, type="permission_error", code=code, message=message)
