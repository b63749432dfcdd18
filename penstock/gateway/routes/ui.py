"""Vercel's UI message stream."""

from __future__ import annotations

from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.opener import dialect_of, open_asked, provider_in
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.ui import read_variant
from penstock.gateway.requests import ui as requests
from penstock.gateway.resume import ResumePoint
from penstock.gateway.serving import serve_events, serve_new
from penstock.gateway.turns import answer_approvals

__all__ = ["chat", "resume", "stop"]


async def chat(call: HttpCall) -> None:
    """Answer the last message of a chat. The chat's id finds the stream again."""
    body = await call.exchange.json()
    chat_id = body.get("id")
    if chat_id is not None and (not isinstance(chat_id, str) or not 0 < len(chat_id) <= 256):
        raise RequestRefused.bad_request("id must be a text of 1 to 256 characters.", "id")
    model = body.get("model") or call.gateway.system.settings.model()
    dialect = dialect_of(call.gateway, provider_in(body) or body.get("provider"), model)
    variant = _variant(call)
    chats = call.gateway.chats
    waiting = None if chat_id is None else chats.get((call.key.id, "chat", chat_id))
    asked = requests.parse(body, dialect, call.gateway.system.settings.model() or "")
    rest = await answer_approvals(call, waiting, requests.approvals(body))
    if rest is not None and waiting is not None:
        await serve_new(call, waiting, {**variant, **rest})
        return
    call.gateway.admit_reader()
    channel = await open_asked(call, asked, body)
    if chat_id is not None:
        chats[call.key.id, "chat", chat_id] = channel
    channel.linger_unread()
    await serve_new(call, channel, variant)


async def resume(call: HttpCall) -> None:
    """The answer that is under way in a chat, from its start; 204 if there is none."""
    variant = _variant(call)
    channel = _under_way(call)
    if channel is None:
        await call.exchange.body(0)
        await call.exchange.respond(204, b"")
        return
    await serve_events(call, channel, ResumePoint(), variant)


async def stop(call: HttpCall) -> None:
    """Cancel the answer that is under way in a chat."""
    await call.exchange.json(optional=True)
    channel = _under_way(call)
    if channel is not None:
        await call.gateway.where_it_runs(channel, channel.stream.cancel, "stopped by the user")
    await call.exchange.respond(204, b"")


def _under_way(call: HttpCall) -> Channel | None:
    channel = call.gateway.chats.get((call.key.id, "chat", call.exchange.params["chat_id"]))
    return channel if channel is not None and not channel.record.is_over else None


def _variant(call: HttpCall) -> dict[str, str]:
    return call.protocol.closed(read_variant(call.exchange.headers.get("x-penstock-ui", ""), call.exchange.query))
