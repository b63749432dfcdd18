"""OpenAI's Chat Completions."""

from __future__ import annotations

from penstock.gateway.answers import chat as answers
from penstock.gateway.call import HttpCall
from penstock.gateway.opener import dialect_of, open_asked, provider_in
from penstock.gateway.projections.frames import encode
from penstock.gateway.protocols import variant_in
from penstock.gateway.requests import chat as requests
from penstock.gateway.serving import serve_new, wait_for_end

__all__ = ["completions"]


async def completions(call: HttpCall) -> None:
    """Ask a model by chat messages."""
    body = await call.exchange.json()
    dialect = dialect_of(call.gateway, provider_in(body), body.get("model"))
    asked = requests.parse(body, dialect)
    default = {"reasoning_field": call.gateway.options.reasoning_field}
    variant = default | call.protocol.closed(variant_in(call.exchange.query))  # before anything is opened
    call.gateway.admit_reader()
    channel = await open_asked(call, asked, body)
    if asked.is_streamed:
        await serve_new(call, channel, variant)
        return
    terminal = await wait_for_end(call, channel)
    answer = answers.answer(terminal, channel.opening(call.protocol, variant))
    await call.exchange.respond(200, encode(answer), call.timing(channel.stream_id))
