"""The native protocol's routes: streams as resources."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from penstock.errors import StreamNotFound
from penstock.gateway.agents import decide as decide_call
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.commands import prepare
from penstock.gateway.idempotency import SharedOnce
from penstock.gateway.opener import created, open_native, path_of
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.protocols import PROTOCOLS, variant_in
from penstock.gateway.resume import ResumePoint
from penstock.gateway.serving import serve_events
from penstock.inspection import stream_info

__all__ = ["command", "create", "decide", "delete", "events", "list_streams", "make_ticket", "show"]

_MOST_LISTED: Final = 1_000
_LONGEST_KEY: Final = 256


async def create(call: HttpCall) -> None:
    """Open a stream: a call of a model if there is a model, else an empty one."""
    body = await call.exchange.json(optional=True)
    key = call.exchange.headers.get("idempotency-key")
    is_opened = True  # and by no other node

    async def run() -> tuple[str, bytes]:
        nonlocal is_opened
        if key is not None and call.gateway.shared_once is not None:
            stream_id, data, is_opened = await _once_in_the_cluster(call, call.gateway.shared_once, body, key)
            return stream_id, data
        channel = await open_native(call, body)
        return channel.stream_id, encode(created(call, channel))

    if key is None:
        (stream_id, data), is_new = await run(), True
    elif not 0 < len(key) <= _LONGEST_KEY:
        raise RequestRefused.bad_request(
            f"Idempotency-Key must have 1 to {_LONGEST_KEY} characters.", "Idempotency-Key"
        )
    else:
        (stream_id, data), is_new = await call.gateway.idempotency.once((call.key.id, key), encode(body), run)
    headers = [("location", path_of(call, stream_id)), ("x-penstock-stream-id", stream_id)]
    await call.exchange.respond(201 if is_new and is_opened else 200, data, headers)


async def _once_in_the_cluster(
    call: HttpCall, shared: SharedOnce, body: dict[str, Any], key: str
) -> tuple[str, bytes, bool]:
    gateway = call.gateway

    async def run(stream_id: str) -> bytes:
        return encode(created(call, await open_native(call, body, stream_id)))

    async def find(stream_id: str) -> bytes | None:
        try:
            return encode(created(call, await gateway.find(call.key, stream_id)))
        except StreamNotFound:
            return None

    asked = body.get("stream_id")
    stream_id = asked if isinstance(asked, str) and asked else gateway.system._services.new_id()
    return await shared.once((call.key.id, key), encode(body), stream_id, run, find, gateway.in_thread)


# --- looking -----------------------------------------------------------------------------------------------------


async def list_streams(call: HttpCall) -> None:
    """The streams that this key may read, newest first."""
    query = call.exchange.query
    state = query.get("state")
    limit = _whole(query.get("limit", "100"), "limit", 1, _MOST_LISTED)
    found = [one for one in reversed(call.gateway.channels.all()) if one.is_readable(call.key)]
    if state is not None:
        found = [one for one in found if one.stream.state == state]
    await call.exchange.respond(200, encode({"streams": [_shown(one) for one in found[:limit]], "total": len(found)}))


async def show(call: HttpCall) -> None:
    """One stream with its statistics."""
    channel = await _channel(call)
    info = stream_info(channel.record)
    remote = channel.record.remote
    there: Mapping[str, Any] = {}
    if remote is not None:
        with suppress(RequestRefused):  # the node is busy: as if it did not answer
            there = await call.gateway.where_it_runs(channel, remote.facts)
    fields = _shown(channel) | {
        "metadata": dict(channel.stream.metadata),
        "source": info.source,
        "attempts": info.attempts,
        "statistics": msgspec.to_builtins(info.statistics, enc_hook=repr),
        **there,
    }
    await call.exchange.respond(200, encode(fields))


def _shown(channel: Channel) -> dict[str, Any]:
    record = channel.record
    return {
        "stream_id": channel.stream_id,
        "epoch": channel.epoch,
        "state": channel.stream.state,
        "protocol": channel.protocol or None,
        "model": channel.model or None,
        "created_at": record.created_at,
        "last_seq": record.log.last_seq,
        "first_seq": record.log.first_seq,
        "is_over": record.is_over,
        "readers": channel.readers,
        **({} if record.remote is None else {"runs": "elsewhere"}),
    }


async def events(call: HttpCall) -> None:
    """The stream's events, in the protocol that ``as`` names."""
    exchange = call.exchange
    name = exchange.query.get("as", "native")
    protocol = PROTOCOLS.get(name)
    if protocol is None or name == "socket":
        known = ", ".join(each for each in PROTOCOLS if each != "socket")
        raise RequestRefused.bad_request(f"as must be one of {known}.", "as")
    call.protocol = protocol
    stream_id = exchange.params["stream_id"]
    if (ticket := exchange.query.get("ticket")) is not None:
        await call.gateway.adopt_ticket(ticket, stream_id)
        call.key = call.gateway.guard.use_ticket(ticket, stream_id, call.gateway.ticker.loop.time())
    else:
        call.key = call.gateway.admit(exchange, "read")
    channel = await _channel(call)
    await serve_events(call, channel, ResumePoint.of(exchange.headers, exchange.query), variant_in(exchange.query))


# --- commands ----------------------------------------------------------------------------------------------------


async def command(call: HttpCall) -> None:
    """Carry out the command that the path ends with."""
    body = await call.exchange.json(optional=True)
    channel = await _channel(call)
    command = prepare(call.exchange.path.rpartition("/")[2], channel, body)
    result = await call.gateway.where_it_runs(channel, command)
    fields = {"stream_id": channel.stream_id, "state": channel.stream.state}
    await call.exchange.respond(200, encode(fields | dict(result or {})))


async def decide(call: HttpCall) -> None:
    """Approve or deny a tool call of the agent that answers by this stream."""
    channel = await _channel(call)
    body = await call.exchange.json()
    if channel.agent is None:
        raise RequestRefused.not_found("No agent answers by this stream.", "agent_not_found")
    call_id = call.exchange.params["call_id"]
    waited = await decide_call(call, channel.agent, call_id, body)
    if waited:
        channel.decided.append(call_id)
    await call.exchange.respond(200, encode({"call_id": call_id, "waited": waited}))


async def delete(call: HttpCall) -> None:
    """Cancel it if it runs, and forget it."""
    channel = await _channel(call)
    await call.gateway.where_it_runs(channel, channel.stream.cancel, "deleted by a client")
    await call.gateway.forget(channel)
    await call.exchange.respond(204, b"")


async def make_ticket(call: HttpCall) -> None:
    """Make a ticket by which `events` can be read without a header."""
    channel = await _channel(call)
    ticket = call.gateway.guard.new_ticket(channel.stream_id, call.key, call.gateway.ticker.loop.time())
    shared = call.gateway.shared_tickets
    if shared is not None:
        await call.gateway.in_thread(shared.add, ticket, channel.stream_id, call.key.id)
    url = f"{path_of(call, channel.stream_id)}/events?ticket={ticket}"
    await call.exchange.respond(201, encode({"ticket": ticket, "expires_in": 60, "url": url}))


# --- within ------------------------------------------------------------------------------------------------------


async def _channel(call: HttpCall) -> Channel:
    return await call.gateway.find(call.key, call.exchange.params["stream_id"])


def _whole(text: str, field: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise RequestRefused.bad_request(f"{field} must be a whole number from {low} to {high}.", field)
    return int(text)
