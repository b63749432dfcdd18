"""The native protocol's routes: streams as resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.config.checks import check_on_orphan
from penstock.errors import OptionError
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.opener import open_asked, open_empty
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.requests import native as requests
from penstock.gateway.serving import ResumePoint, serve_events
from penstock.inspection import stream_info

__all__ = [
    "cancel",
    "create",
    "delete",
    "events",
    "flush",
    "list_streams",
    "make_ticket",
    "pause",
    "push",
    "resume",
    "set_options",
    "show",
]

_MOST_LISTED: Final = 1_000


async def create(call: HttpCall) -> None:
    """Open a stream: a call of a model if there is a model, else an empty one."""
    body = await call.exchange.json(optional=True)
    asked = requests.parse(body, call.gateway.system.settings.model())
    key = call.exchange.headers.get("idempotency-key")
    if key is not None:
        if not 0 < len(key) <= 256:
            raise RequestRefused.bad_request("Idempotency-Key must have 1 to 256 characters.", "Idempotency-Key")
        channel, is_new = await call.gateway.idempotency.once(
            (call.key.id, key), encode(body), lambda: _open(call, asked, body)
        )
    else:
        channel, is_new = await _open(call, asked, body), True
    headers = [("location", _path(call, channel)), ("x-penstock-stream-id", channel.stream_id)]
    await call.exchange.respond(201 if is_new else 200, encode(_created(call, channel)), headers)


async def _open(call: HttpCall, asked: Any, body: Mapping[str, Any]) -> Channel:
    channel = await (open_asked(call, asked, body) if asked.model else open_empty(call, asked, body))
    channel.linger_unread()
    return channel


def _path(call: HttpCall, channel: Channel) -> str:
    return f"{call.exchange.scope.get('root_path', '')}/v1/streams/{channel.stream_id}"


def _created(call: HttpCall, channel: Channel) -> dict[str, Any]:
    path = _path(call, channel)
    links = {"self": path, "events": f"{path}/events"}
    links |= {name: f"{path}/{name}" for name in ("pause", "resume", "cancel", "flush", "tokens", "options", "tickets")}
    return {"stream_id": channel.stream_id, "epoch": channel.epoch, "state": channel.stream.state, "links": links}


# --- looking -----------------------------------------------------------------------------------------------------


async def list_streams(call: HttpCall) -> None:
    """The streams that this key may read, newest first."""
    query = call.exchange.query
    state = query.get("state")
    limit = _whole(query.get("limit", "100"), "limit", 1, _MOST_LISTED)
    found = [one for one in reversed(call.gateway.channels.all()) if is_readable(call, one)]
    if state is not None:
        found = [one for one in found if one.stream.state == state]
    await call.exchange.respond(200, encode({"streams": [_shown(one) for one in found[:limit]], "total": len(found)}))


async def show(call: HttpCall) -> None:
    """One stream with its statistics."""
    channel = find(call)
    info = stream_info(channel.record)
    fields = _shown(channel) | {
        "metadata": dict(channel.stream.metadata),
        "source": info.source,
        "attempts": info.attempts,
        "statistics": msgspec.to_builtins(info.statistics, enc_hook=repr),
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
    }


async def events(call: HttpCall) -> None:
    """The stream's events, in the protocol that ``as`` names."""
    exchange = call.exchange
    name = exchange.query.get("as", "native")
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise RequestRefused.bad_request(f"as must be one of {', '.join(PROTOCOLS)}.", "as")
    stream_id = exchange.params["stream_id"]
    if (ticket := exchange.query.get("ticket")) is not None:
        call.key = call.gateway.guard.use_ticket(ticket, stream_id, call.gateway.ticker.loop.time())
    else:
        call.key = call.gateway.admit(exchange, "read")
    channel = find(call)
    call.protocol = protocol
    await serve_events(call, channel, ResumePoint.of(exchange.headers, exchange.query), _variant(exchange.query))


_VARIANTS: Final = ("v", "events", "extras", "raw", "dynamic", "reasoning_field")
"""Parameters by which a reader chooses what frames look like."""


def _variant(query: Mapping[str, str]) -> dict[str, str]:
    return {name: query[name] for name in _VARIANTS if name in query}


# --- commands ----------------------------------------------------------------------------------------------------


async def pause(call: HttpCall) -> None:
    """Emit nothing until it is resumed."""
    await _command(call, lambda channel: channel.stream.pause())


async def resume(call: HttpCall) -> None:
    """Continue after a pause."""
    await _command(call, lambda channel: channel.stream.resume())


async def flush(call: HttpCall) -> None:
    """Emit what is buffered now."""
    await _command(call, lambda channel: {"tokens": channel.stream.flush_buffer()})


async def cancel(call: HttpCall) -> None:
    """End it now. Harmless if it has ended."""
    body = await call.exchange.json(optional=True)
    reason = body.get("reason", "cancelled by a client")
    if not isinstance(reason, str) or len(reason) > 1_000:
        raise RequestRefused.bad_request("reason must be a text of at most 1000 characters.", "reason")
    await _command(call, lambda channel: channel.stream.cancel(reason))


async def push(call: HttpCall) -> None:
    """Push tokens by hand, and end the stream with ``end``."""
    body = await call.exchange.json()
    tokens, text, end = body.get("tokens"), body.get("text"), body.get("end", False)
    if tokens is not None and (not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens)):
        raise RequestRefused.bad_request("tokens must be a list of texts.", "tokens")
    if text is not None and not isinstance(text, str):
        raise RequestRefused.bad_request("text must be a text.", "text")
    if not isinstance(end, bool):
        raise RequestRefused.bad_request("end must be true or false.", "end")
    if tokens is None and text is None and not end:
        raise RequestRefused.bad_request("Give tokens, text or end.")

    def run(channel: Channel) -> Any:
        if tokens:
            channel.stream.process_tokens(tokens, 0)
        if text:
            channel.stream.process_tokens([text], 0)
        if end:
            channel.stream.stop()
        return {"accepted": len(tokens or ()) + bool(text)}

    await _command(call, run)


async def set_options(call: HttpCall) -> None:
    """Change options of the running stream, or what happens when its last reader leaves."""
    body = await call.exchange.json()
    changes = dict(body)
    has_policy, policy = "on_orphan" in changes, changes.pop("on_orphan", None)
    if has_policy:
        try:
            check_on_orphan(policy)
        except OptionError as error:
            raise RequestRefused.bad_request(str(error), "on_orphan") from None

    def run(channel: Channel) -> None:
        if changes:
            requests.check_changes(changes, "options")
            channel.stream.set_options(**changes)
        if has_policy:
            channel.record.on_orphan = policy

    await _command(call, run)


async def delete(call: HttpCall) -> None:
    """Cancel it if it runs, and forget it."""
    channel = find(call)
    await call.gateway.in_thread(channel.stream.cancel, "deleted by a client")
    call.gateway.channels.forget(channel)
    await call.exchange.respond(204, b"")


async def make_ticket(call: HttpCall) -> None:
    """Make a ticket by which `events` can be read without a header."""
    channel = find(call)
    ticket = call.gateway.guard.new_ticket(channel.stream_id, call.key, call.gateway.ticker.loop.time())
    url = f"{_path(call, channel)}/events?ticket={ticket}"
    await call.exchange.respond(201, encode({"ticket": ticket, "expires_in": 60, "url": url}))


async def _command(call: HttpCall, run: Any) -> None:
    channel = find(call)
    if channel.record.is_over and call.exchange.path.rpartition("/")[2] != "cancel":
        text = "The stream has ended."
        raise RequestRefused(Problem(status=409, type="invalid_request_error", code="stream_ended", message=text))
    result = await call.gateway.in_thread(run, channel)
    fields = {"stream_id": channel.stream_id, "state": channel.stream.state}
    await call.exchange.respond(200, encode(fields | (result if isinstance(result, dict) else {})))


# --- within ------------------------------------------------------------------------------------------------------


def find(call: HttpCall, stream_id: str | None = None) -> Channel:
    """The stream that a request is about.

    Raises:
        StreamNotFound: there is none.
        RequestRefused: another key's request has opened it; that is not told from one that does not exist.
    """
    channel = call.gateway.channels.get(stream_id or call.exchange.params["stream_id"])
    if not is_readable(call, channel):
        text = f"no stream {channel.stream_id!r}"
        raise RequestRefused(Problem(status=404, type="not_found_error", code="stream_not_found", message=text))
    return channel


def is_readable(call: HttpCall, channel: Channel) -> bool:
    """Whether a request's key may read a stream: its own, and with the scope ``admin`` each."""
    return channel.owner == call.key.id or call.key.may("admin")


def _whole(text: str, field: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise RequestRefused.bad_request(f"{field} must be a whole number from {low} to {high}.", field)
    return int(text)
