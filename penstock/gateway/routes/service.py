"""Routes about the gateway itself."""

from __future__ import annotations

import msgspec

from penstock.gateway.call import HttpCall
from penstock.gateway.guard import is_from_here
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import encode

__all__ = ["cluster", "live", "metrics", "models", "ready"]


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


async def metrics(call: HttpCall) -> None:
    """The metrics for Prometheus, for keys with the scope admin."""
    gateway, exchange = call.gateway, call.exchange
    if not (gateway.options.metrics == "loopback" and is_from_here(exchange)):
        call.key = gateway.admit(exchange, "admin")
    try:
        from penstock.telemetry.prometheus import PenstockCollector, expose
    except ModuleNotFoundError as error:
        text = f"There are no metrics, as {error.name} is not installed: pip install 'penstock[metrics]'."
        problem = Problem(status=404, type="not_found_error", code="metrics_not_installed", message=text)
        raise RequestRefused(problem) from None
    collector = PenstockCollector(gateway.system, gateway=gateway)
    data, kind = await gateway.in_thread(expose, collector, exchange.headers.get("accept", ""))
    await exchange.respond(200, data, _NO_STORE, kind)


async def cluster(call: HttpCall) -> None:
    """The nodes of the cluster, their streams and leases, and the store, for keys with the scope admin."""
    if call.gateway.system._node is None:
        raise RequestRefused.not_found("The server is not part of a cluster.", "no_cluster")
    view = await call.gateway.in_thread(call.gateway.system._node.view)
    await call.exchange.respond(200, encode(msgspec.to_builtins(view)), _NO_STORE)


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
