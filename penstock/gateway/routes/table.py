"""The table of all routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.routing import Route as StarletteRoute

from penstock.gateway.call import HttpCall
from penstock.gateway.commands import COMMANDS
from penstock.gateway.keys import Scope
from penstock.gateway.openapi import describe
from penstock.gateway.projections.frames import encode
from penstock.gateway.routes import agents, agui, anthropic, doctor, native, openai, pages, responses, service, ui

__all__ = ["PAGES", "ROUTES", "Methods", "Route", "bound"]

Run: TypeAlias = Callable[[HttpCall], Awaitable[None]]


class Route(NamedTuple):
    """What is done at a path by a method. ``scope`` None: no key is needed."""

    method: str
    path: str
    protocol: str
    scope: Scope | None
    run: Run


Methods: TypeAlias = Mapping[str, Route]
"""The routes of one path."""

_STREAM: Final = "/v1/streams/{stream_id}"
_RESPONSE: Final = "/v1/responses/{response_id}"
_AGENT: Final = "/v1/agents/{agent_id}"


async def _description(call: HttpCall) -> None:
    """The description of all routes, in OpenAPI 3.1."""
    await call.exchange.respond(200, encode(describe(ROUTES)))


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/openapi.json", "native", None, _description),
    Route("GET", "/live", "native", None, service.live),
    Route("GET", "/ready", "native", None, service.ready),
    Route("GET", "/metrics", "native", None, service.metrics),
    Route("GET", "/v1/models", "native", "read", service.models),
    Route("GET", "/v1/cluster", "native", "admin", service.cluster),
    Route("GET", "/v1/doctor/probe", "native", "read", doctor.probe),
    Route("GET", "/v1/doctor/seen", "native", "read", doctor.seen),
    Route("GET", "/v1/streams", "native", "read", native.list_streams),
    Route("POST", "/v1/streams", "native", "write", native.create),
    Route("GET", _STREAM, "native", "read", native.show),
    Route("DELETE", _STREAM, "native", "write", native.delete),
    Route("GET", f"{_STREAM}/events", "native", None, native.events),
    Route("POST", f"{_STREAM}/tickets", "native", "read", native.make_ticket),
    Route("POST", f"{_STREAM}/approvals/{{call_id}}", "native", "write", native.decide),
    Route("PATCH", f"{_STREAM}/options", "native", "write", native.command),
    *(Route("POST", f"{_STREAM}/{name}", "native", "write", native.command) for name in COMMANDS if name != "options"),
    Route("POST", "/v1/chat/completions", "openai", "write", openai.completions),
    Route("POST", "/v1/responses", "responses", "write", responses.create),
    Route("GET", _RESPONSE, "responses", "read", responses.show),
    Route("DELETE", _RESPONSE, "responses", "write", responses.delete),
    Route("POST", f"{_RESPONSE}/cancel", "responses", "write", responses.cancel),
    Route("GET", f"{_RESPONSE}/input_items", "responses", "read", responses.input_items),
    Route("POST", "/v1/messages", "anthropic", "write", anthropic.messages),
    Route("POST", "/v1/ui/chat", "ui", "write", ui.chat),
    Route("GET", "/v1/ui/chat/{chat_id}/stream", "ui", "read", ui.resume),
    Route("POST", "/v1/ui/chat/{chat_id}/stop", "ui", "write", ui.stop),
    Route("POST", "/v1/agui", "agui", "write", agui.run),
    Route("GET", "/v1/agui/{run_id}/events", "agui", "read", agui.events),
    Route("GET", "/v1/agents", "native", "read", agents.list_agents),
    Route("POST", "/v1/agents", "native", "write", agents.create),
    Route("GET", _AGENT, "native", "read", agents.show),
    Route("DELETE", _AGENT, "native", "write", agents.delete),
    Route("POST", f"{_AGENT}/messages", "native", "write", agents.send),
    Route("POST", f"{_AGENT}/approvals/{{call_id}}", "native", "write", agents.decide),
)


PAGES: Final[tuple[Route, ...]] = (
    Route("GET", "/", "native", None, pages.page),
    Route("GET", "/board/{name:path}", "native", None, pages.file),
    Route("GET", "/penstock.mjs", "native", None, pages.client),
)
"""The files for browsers, which are no part of the description."""


def bound(serve: Callable[..., Awaitable[None]]) -> list[StarletteRoute]:
    """The routes for a router, one for each path; ``serve`` is called with its methods and with what ASGI gives."""
    paths: dict[str, dict[str, Route]] = {}
    for route in (*ROUTES, *PAGES):
        paths.setdefault(route.path, {})[route.method] = route
    return [StarletteRoute(path, _Endpoint(methods, serve)) for path, methods in paths.items()]


class _Endpoint:
    """A path as an ASGI app."""

    def __init__(self, methods: Methods, serve: Callable[..., Awaitable[None]]) -> None:
        self._methods = methods
        self._serve = serve

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._serve(self._methods, scope, receive, send)
