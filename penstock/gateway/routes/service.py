"""Routes about the gateway itself."""

from __future__ import annotations

from penstock.gateway.call import HttpCall
from penstock.gateway.projections.frames import encode

__all__ = ["live", "models", "ready"]


async def live(call: HttpCall) -> None:
    """Whether the process works at all."""
    await call.exchange.respond(200, b'{"status":"ok"}', _NO_STORE)


async def ready(call: HttpCall) -> None:
    """Whether it takes requests: 503 while it drains, and after its system was stopped."""
    if call.gateway.system._stopped:
        await call.exchange.respond(503, b'{"status":"stopped"}', _NO_STORE)
    elif call.gateway.is_draining:
        await call.exchange.respond(503, b'{"status":"draining"}', _NO_STORE)
    else:
        await call.exchange.respond(200, b'{"status":"ready"}', _NO_STORE)


_NO_STORE = (("cache-control", "no-store"),)


async def models(call: HttpCall) -> None:
    """The models that are configured, in the form of OpenAI's list."""
    settings = call.gateway.system.settings
    names = dict.fromkeys([settings.provider.name, *settings.providers])
    created = int(call.gateway.created)
    data = [
        {"id": model, "object": "model", "created": created, "owned_by": name}
        for name in names
        if (model := settings.model(name))
    ]
    await call.exchange.respond(200, encode({"object": "list", "data": data}))
