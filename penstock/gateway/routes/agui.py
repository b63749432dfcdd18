"""AG-UI runs."""

from __future__ import annotations

from penstock.gateway.call import HttpCall
from penstock.gateway.opener import dialect_of, open_asked, provider_in
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests import agui as requests
from penstock.gateway.resume import ResumePoint
from penstock.gateway.serving import serve_events, serve_new
from penstock.gateway.turns import answer_approvals

__all__ = ["events", "run"]


async def run(call: HttpCall) -> None:
    """Run an agent: answer the messages of a thread."""
    body = await call.exchange.json()
    properties = body.get("forwardedProps")
    given = properties if isinstance(properties, dict) else {}
    default = call.gateway.system.settings.model() or ""
    dialect = dialect_of(call.gateway, provider_in(given) or given.get("provider"), given.get("model") or default)
    asked = requests.parse(body, dialect, default)
    thread, run_id = body["threadId"], body["runId"]
    chats = call.gateway.chats
    waiting = chats.get((call.key.id, "thread", thread))
    rest = await answer_approvals(call, waiting, requests.approvals(body))
    if rest is not None and waiting is not None:
        chats[call.key.id, "run", run_id] = waiting
        await serve_new(call, waiting, {**rest, "run": run_id})
        return
    call.gateway.admit_reader()
    channel = await open_asked(call, asked, body)
    chats[call.key.id, "run", run_id] = chats[call.key.id, "thread", thread] = channel
    channel.linger_unread()
    await serve_new(call, channel, {})


async def events(call: HttpCall) -> None:
    """Join a run: the messages so far, then what follows."""
    channel = call.gateway.chats.get((call.key.id, "run", call.exchange.params["run_id"]))
    if channel is None:
        raise RequestRefused.not_found("There is no run with this id.")
    await serve_events(call, channel, ResumePoint.of(call.exchange.headers, call.exchange.query), {})
