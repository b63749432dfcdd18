"""Anthropic's Messages."""

from __future__ import annotations

from penstock.gateway.answers import anthropic as answers
from penstock.gateway.call import HttpCall
from penstock.gateway.opener import dialect_of, open_asked, provider_in
from penstock.gateway.projections.frames import encode
from penstock.gateway.requests import anthropic as requests
from penstock.gateway.serving import serve_new, wait_for_end

__all__ = ["messages"]


async def messages(call: HttpCall) -> None:
    """Ask a model by Anthropic's messages."""
    body = await call.exchange.json()
    dialect = dialect_of(call.gateway, provider_in(body), body.get("model"))
    beta = [name.strip() for name in call.exchange.headers.get("anthropic-beta", "").split(",")]
    asked = requests.parse(body, dialect, beta)
    call.gateway.admit_reader()
    channel = await open_asked(call, asked, body)
    if asked.is_streamed:
        await serve_new(call, channel, {})
        return
    terminal = await wait_for_end(call, channel)
    answer = answers.answer(terminal, channel.opening(call.protocol, {}))
    await call.exchange.respond(200, encode(answer), call.timing(channel.stream_id))
