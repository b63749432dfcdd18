"""The WebSockets by path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from penstock.gateway.call import HttpCall
from penstock.gateway.problems import RequestRefused
from penstock.gateway.responses_connection import ResponsesConnection
from penstock.gateway.socket import StreamSocket

__all__ = ["SOCKETS"]


async def _native(call: HttpCall, receive: Any, send: Any, *, is_authenticated: bool) -> None:
    await StreamSocket(call, receive, send).run(is_authenticated=is_authenticated)


async def _responses(call: HttpCall, receive: Any, send: Any, *, is_authenticated: bool) -> None:
    if not is_authenticated:
        raise RequestRefused.unauthenticated("No API key. Send it as Authorization: Bearer.")
    await ResponsesConnection(call, receive, send).run()


SOCKETS: Final[dict[str, Callable[..., Awaitable[None]]]] = {"/v1/ws": _native, "/v1/responses": _responses}
"""Called with the request, what ASGI gives, and whether the handshake had the key."""
