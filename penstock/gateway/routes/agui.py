"""AG-UI runs."""

from __future__ import annotations

from penstock.gateway.call import HttpCall
from penstock.gateway.opener import dialect_of, open_asked, provider_in
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests import agui as requests
from penstock.gateway.resume import ResumePoint
from penstock.gateway.serving import serve_events, serve_new

__all__ = ["events", "run"]


async def run(call: HttpCall) -> None:
    """Run an agent: answer the messages of a thread."""
    body = await call.exchange.json()
    properties = body.get("forwardedProps")
    given = properties if isinstance(properties, dict) else {}
    default = call.gateway.system.settings.model() or ""
    dialect = dialect_of(call.gateway, provider_in(given) or given.get("provider"), given.get("model") or default)
    asked = requests.parse(body, dialect, default)
    channel = await open_asked(call, asked, body)
    if isinstance(body.get("runId"), str):
        call.gateway.chats[call.key.id, body["runId"]] = channel
    await serve_new(call, channel, {})


async def events(call: HttpCall) -> None:
    """Join a run: the messages so far, then what follows."""
    channel = call.gateway.chats.get((call.key.id, call.exchange.params["run_id"]))
    if channel is None:
        raise RequestRefused.not_found("There is no run with this id.")
    await serve_events(call, channel, ResumePoint.of(call.exchange.headers, call.exchange.query), {})
