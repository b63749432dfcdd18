"""One HTTP request and its response, as an ASGI server gives them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote

from penstock.config.gateway import GatewayOptions
from penstock.gateway.bodies import decode_object
from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["Exchange", "Headers", "Left", "routed_path"]

Headers: TypeAlias = Iterable[tuple[str, str]]
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F))
_PATIENCE: Final = 30.0  # seconds for the next part of a body
_LARGE: Final = 262_144  # bytes of a body that is decoded in a thread
_LONGEST_QUERY: Final = 16_384
_SLASH: Final = "\0"  # one that was percent-encoded; no id has this character
_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)


class Left(Exception):
    """The client has closed the connection."""


class Exchange:
    """Reads the request within limits, and sends the response. Used by one task, but for `watch`."""

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any, options: GatewayOptions) -> None:
        self.scope = scope
        self.options = options
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            if key == "host" and self.headers.get(key, text) != text:
                text = self.headers.pop(key) + ", " + text  # which is no host that is answered
            self.headers.setdefault(key, text)
        self.query: dict[str, str] = {}
        self.extra_headers: list[tuple[str, str]] = []  # of every response
        self.max_body = options.max_body
        self.has_started = False
        self.is_complete = False
        self._receive = receive
        self._send = send
        self._flow = _flow_of(send)
        self._is_read = False
        self._patience: asyncio.Timeout | None = None  # while a part of the body is waited for
        self._refusal: Problem | None = None

    def check(self) -> None:
        """Read the query.

        Raises:
            RequestRefused: path or query are too long (414), or the query has too many parameters.
        """
        query = self.scope.get("query_string", b"")
        if len(query) > _LONGEST_QUERY or len(self.path) > _LONGEST_QUERY:
            text = f"The URL is longer than {_LONGEST_QUERY} bytes."
            raise RequestRefused(Problem(status=414, type="invalid_request_error", code="uri_too_long", message=text))
        try:
            self.query.update(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100))
        except ValueError:
            raise RequestRefused.bad_request("The query has too many parameters.") from None

    @property
    def params(self) -> Mapping[str, str]:
        """The parameters in the path."""
        params: Mapping[str, str] = self.scope.get("path_params", {})
        return {name: value.replace(_SLASH, "/") for name, value in params.items()}

    # --- the request ---------------------------------------------------------------------------------------------

    async def body(self, limit: int | None = None) -> bytes:
        """Read the body.

        Raises:
            RequestRefused: it is longer than ``limit`` (default: ``max_body``), or no part of it comes for 30 seconds,
                or `refuse` was called. The rest is not read.
            Left: the client has gone.
        """
        most = self.max_body if limit is None else min(limit, self.max_body)
        chunks: list[bytes] = []
        size = 0
        while True:
            try:
                message = await self._next_part()
            except TimeoutError:
                if self._refusal is not None:
                    raise RequestRefused(self._refusal) from None
                text = f"No part of the body has come for {_PATIENCE:g} s."
                raise RequestRefused(
                    Problem(status=408, type="invalid_request_error", code="request_timeout", message=text)
                ) from None
            if message["type"] == "http.disconnect":
                raise Left
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most:
                text = f"The body is longer than {most} bytes."
                raise RequestRefused(
                    Problem(status=413, type="invalid_request_error", code="request_too_large", message=text)
                )
            chunks.append(chunk)
            if not message.get("more_body"):
                self._is_read = True
                return b"".join(chunks)

    async def json(self, *, optional: bool = False) -> dict[str, Any]:
        """Read the body as a JSON object; with ``optional``, no body is an empty one.

        Raises:
            RequestRefused: it is none, too long, nested too deeply, or has too many messages.
            Left: the client has gone.
        """
        if self.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            text = "The body must not be compressed."
            raise RequestRefused(
                Problem(status=415, type="invalid_request_error", code="unsupported_encoding", message=text)
            )
        data = await self.body()
        if optional and not data.strip():
            return {}
        if len(data) > _LARGE:
            return await asyncio.to_thread(decode_object, data, self.options)
        return decode_object(data, self.options)

    def refuse(self, problem: Problem) -> None:
        """Wait no longer for a body that has not come; `body` raises the problem."""
        self._refusal = problem
        if self._patience is not None and not self._patience.expired():  # else `body` is about to raise already
            self._patience.reschedule(0.0)

    async def _next_part(self) -> Any:
        if self._refusal is not None:
            raise RequestRefused(self._refusal)
        try:
            async with asyncio.timeout(_PATIENCE) as self._patience:
                return await self._receive()
        finally:
            self._patience = None

    async def until_left(self) -> None:
        """Return when the client has closed the connection. Read the body before."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # --- the response --------------------------------------------------------------------------------------------

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers."""
        self.has_started = True
        raw = [(name.encode("latin-1"), _header(value)) for name, value in (*headers, *self.extra_headers)]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes) -> None:
        """Send a part of the body. Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def send_now(self, data: bytes) -> bool:
        """Send a part of the body if that needs no waiting and no task; otherwise nothing is sent.

        Only where uvicorn sends, without anything between: it waits before it writes, or not at all.
        """
        flow = self._flow
        if flow is None or flow.write_paused:
            return False
        sending = self._send({"type": "http.response.body", "body": data, "more_body": True})
        try:
            sending.send(None)
        except StopIteration:
            return True
        sending.close()
        return False

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self.is_complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def respond(self, status: int, data: bytes, headers: Headers = (), kind: str = "application/json") -> None:
        """Send a whole response."""
        empty = status in (204, 304)
        about = () if empty else (("content-type", kind), ("content-length", str(len(data))))
        await self.start(status, (*about, *headers))
        await self.end(b"" if empty or self.method == "HEAD" else data)


def routed_path(scope: Mapping[str, Any]) -> str:
    """The path by which a request is routed: a slash that was percent-encoded, as one in an id, separates nothing."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower() or unquote(raw.decode("latin-1")) != path:  # a host that has changed the path
        return path
    return _SLASH.join(unquote(part) for part in _ENCODED_SLASH.split(raw.decode("latin-1")))


def _flow_of(send: Any) -> Any:
    """Uvicorn's view of whether a connection takes more; None: another server sends, or something between."""
    cycle = getattr(send, "__self__", None)
    is_uvicorn = type(cycle).__module__ in ("uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl")
    return getattr(cycle, "flow", None) if is_uvicorn else None


def _header(value: str) -> bytes:
    """A header's value; what is not in ASCII, such as of a stream's id, is percent-encoded as UTF-8."""
    return (value if value.isascii() else quote(value, safe=_PLAIN, errors="replace")).encode("latin-1")
