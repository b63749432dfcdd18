"""OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from penstock.gateway.answers.responses import queued
from penstock.gateway.call import HttpCall
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.requests.responses import parse, terms
from penstock.gateway.responses import begin_response
from penstock.gateway.serving import serve_from, serve_new, wait_for_end
from penstock.gateway.stored import StoredResponse, response_of

__all__ = ["cancel", "create", "delete", "input_items", "show"]


async def create(call: HttpCall) -> None:
    """Answer an input, or continue an earlier response."""
    body = await call.exchange.json()
    asked = parse(body)
    call.gateway.admit_reader()
    channel, _ = await begin_response(call, body, asked)
    if asked.is_streamed:
        await serve_new(call, channel, {})
    elif terms(body).is_background:
        answer = queued(channel.opening(call.protocol, {}))
        await call.exchange.respond(200, encode(answer), call.timing(channel.stream_id))
    else:
        await wait_for_end(call, channel)
        await call.exchange.respond(200, encode(await response_of(channel)), call.timing(channel.stream_id))


async def show(call: HttpCall) -> None:
    """A response as it is now, or its events after ``starting_after``."""
    query = call.exchange.query
    stored = await _find(call)
    if query.get("stream", "false") != "true":
        await call.exchange.respond(200, encode(await stored.now()))
        return
    channel = stored.channel
    if channel is None:
        raise RequestRefused.not_found("The events of this response are no longer kept.", "response_not_streamable")
    after = query.get("starting_after", "-1")
    if not (after == "-1" or (after.isascii() and after.isdigit() and len(after) < 18)):
        raise RequestRefused.bad_request("starting_after must be a sequence number.", "starting_after")
    await call.exchange.body(0)
    projector = channel.projector(call.protocol, {}, call.gateway.ticker, call.gateway.options)
    await projector.catch_up()
    await serve_from(call, channel, projector, 0 if after == "-1" else projector.shelf.after_number(int(after)))


async def cancel(call: HttpCall) -> None:
    """Cancel a response that runs; one that has ended stays as it is."""
    await call.exchange.json(optional=True)
    stored = await _find(call)
    channel = stored.channel
    if channel is not None and not channel.record.is_over:
        await call.gateway.where_it_runs(channel, channel.stream.cancel, "cancelled by the client")
    await call.exchange.respond(200, encode(await stored.now()))


async def delete(call: HttpCall) -> None:
    """Cancel a response if it runs, and forget it."""
    stored = await _find(call)
    response_id = call.exchange.params["response_id"]
    channel = stored.channel
    if channel is not None:
        await call.gateway.where_it_runs(channel, channel.stream.cancel, "deleted by the client")
        await call.gateway.forget(channel)
    call.gateway.responses.forget(response_id)
    await call.exchange.respond(200, encode({"id": response_id, "object": "response", "deleted": True}))


async def input_items(call: HttpCall) -> None:
    """What a response was asked with, the earlier responses that it continues included."""
    given = (await _find(call)).given
    items: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    data = [
        {"id": f"item_{number}", "type": "message", **item} if isinstance(item, dict) else item
        for number, item in enumerate(items)
    ]
    ids = {"first_id": _id_of(data[0]), "last_id": _id_of(data[-1])} if data else {"first_id": None, "last_id": None}
    await call.exchange.respond(200, encode({"object": "list", "data": data, **ids, "has_more": False}))


def _id_of(item: Any) -> Any:
    return item.get("id") if isinstance(item, dict) else None


async def _find(call: HttpCall) -> StoredResponse:
    response_id = call.exchange.params["response_id"]
    found = await call.gateway.find_response(call.key, response_id)
    if found is None:
        raise RequestRefused.not_found("There is no response with this id.", "response_not_found")
    return found
