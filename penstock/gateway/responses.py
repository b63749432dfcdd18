"""Begins responses of OpenAI's Responses API."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.opener import open_asked, open_empty
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.responses import continued, previous_not_found, terms
from penstock.gateway.stored import StoredResponse

__all__ = ["begin_response"]


async def begin_response(
    call: HttpCall,
    body: Mapping[str, Any],
    asked: Asked,
    own: Mapping[str, StoredResponse] | None = None,
    *,
    generates: bool = True,
) -> tuple[Channel, StoredResponse]:
    """Open the stream of a response, and enter it.

    Args:
        call: the request, or the connection.
        body: as it came.
        asked: the same, read.
        own: further responses that may be continued: of the same connection.
        generates: False: the response is complete at once, without text; its input can be continued.

    Raises:
        RequestRefused: the response that it continues is not known.
        PenstockError: the stream cannot be opened.
    """
    meant, given = terms(body), asked.input
    if meant.previous_response_id is not None:
        given = await _continued(call, meant.previous_response_id, body, own or {})
    stream_id = asked.stream_id or f"resp_{secrets.token_hex(16)}"
    asked = msgspec.structs.replace(asked, input=given, stream_id=stream_id)
    facts = {"response": {"given": given, "is_stored": meant.is_stored}}
    channel = await (open_asked if generates else open_empty)(call, asked, body, facts)
    if not generates:
        try:
            await call.gateway.in_thread(channel.stream.stop)
        except BaseException:  # the request has gone, or is refused
            channel.abandon_unread()
            raise
    channel.linger_unread()
    stored = StoredResponse(channel, given, is_stored=meant.is_stored)
    call.gateway.responses.add(stream_id, stored)
    return channel, stored


async def _continued(
    call: HttpCall, previous_id: str, body: Mapping[str, Any], own: Mapping[str, StoredResponse]
) -> Any:
    key = call.key
    found = await call.gateway.find_response(key, previous_id) or own.get(previous_id)
    if found is not None:
        await found.settle()
    if found is None or found.terminal is None:
        raise previous_not_found()
    return continued(found.terminal, found.given, body, found.results)
