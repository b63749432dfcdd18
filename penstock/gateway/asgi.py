"""`Gateway`: the ASGI app."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

from starlette.routing import Router

from penstock.config.gateway import GatewayOptions
from penstock.config.logs import get_logger
from penstock.errors import PenstockError, describe_reason
from penstock.gateway.call import HttpCall
from penstock.gateway.core import DRAINING, GatewayCore
from penstock.gateway.exchange import Exchange, Left, routed_path
from penstock.gateway.keys import ANONYMOUS
from penstock.gateway.problems import INTERNAL, Problem, RequestRefused, problem_of
from penstock.gateway.protocols import PROTOCOLS
from penstock.gateway.routes.sockets import SOCKETS
from penstock.gateway.routes.table import Methods, Route, bound
from penstock.gateway.trace import Trace, read_trace
from penstock.system import System
from penstock.telemetry.propagation import caller_traceparent

__all__ = ["Gateway", "app"]


class Gateway(GatewayCore):
    """The ASGI app that serves a system's streams. It belongs to the first event loop that calls it.

    Args:
        system: started by the caller, or with the first request; the gateway does not stop it.
        options: None takes the settings' ``gateway`` group.
    """

    def __init__(self, system: System, options: GatewayOptions | None = None) -> None:
        super().__init__(system, options)
        self._router = Router(bound(self._serve), redirect_slashes=False)
        self._router.default = self._not_found

    # --- ASGI ----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            self.start()
            await self._router({**scope, "path": routed_path(scope)}, receive, send)
        elif scope["type"] == "websocket":
            self.start()
            await self._serve_socket(scope, receive, send)

    async def _serve_socket(self, scope: Any, receive: Any, send: Any) -> None:
        """Run a WebSocket, if its origin and its key allow it."""
        exchange = Exchange({"method": "GET", **scope}, receive, send, self.options)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        protocol = PROTOCOLS["responses" if path == "/v1/responses" else "socket"]
        call = HttpCall(self, exchange, protocol, ANONYMOUS, "", Trace("", ""), self.ticker.loop.time())
        call.request_id = self.guard.request_id(exchange.headers) or f"req_{secrets.token_hex(12)}"
        call.trace = read_trace(exchange.headers, secrets.token_hex(16), secrets.token_hex(8))
        caller_traceparent.set(call.trace.parent)
        run = SOCKETS.get(path)
        try:
            exchange.check()
            self.guard.check_origin(exchange, is_socket=True)
            if run is None or self.is_draining:
                raise RequestRefused(_NO_SOCKET if run is None else DRAINING)
            has_key = not self.guard.has_keys or bool({"authorization", "x-api-key"} & exchange.headers.keys())
            if has_key:
                call.key = self.admit(exchange, "read")
            with self.place():
                await receive()  # websocket.connect
                await run(call, receive, send, is_authenticated=has_key)
        except PenstockError as error:
            get_logger(request_id=call.request_id).info("socket_refused", code=problem_of(error).code)
            await send({"type": "websocket.close", "code": 1008, "reason": problem_of(error).code})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        phase = "startup"
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception as error:
            await send({"type": f"lifespan.{phase}.failed", "message": describe_reason(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _not_found(self, scope: Any, receive: Any, send: Any) -> None:
        await self._serve({}, scope, receive, send)

    async def _serve(self, methods: Methods, scope: Any, receive: Any, send: Any) -> None:
        """Run the route of a path for the request's method; an error becomes a response in its protocol's shape."""
        self.requests += 1
        began = asyncio.get_running_loop().time()
        request_id = f"req_{secrets.token_hex(12)}"
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = methods.get(method) or next(iter(methods.values()), _NOWHERE)
        protocol = PROTOCOLS[route.protocol]
        exchange = Exchange(scope, receive, send, self.options)
        call = HttpCall(self, exchange, protocol, ANONYMOUS, request_id, Trace("", ""), began)
        self.exchanges.add(exchange)
        if self.is_ending:
            exchange.refuse(DRAINING)
        try:
            call.request_id = self.guard.request_id(exchange.headers) or request_id
            exchange.extra_headers += self.guard.headers(exchange.headers, call.request_id)
            call.trace = read_trace(exchange.headers, secrets.token_hex(16), secrets.token_hex(8))
            caller_traceparent.set(call.trace.parent)
            exchange.check()
            self.guard.check_origin(exchange)
            if method == "OPTIONS" and methods:
                await exchange.respond(204, b"", self.guard.preflight(exchange.headers, tuple(methods)))
                return
            if methods and method not in methods:
                exchange.extra_headers.append(("allow", ", ".join((*methods, "OPTIONS"))))
                raise RequestRefused(_wrong_method(method, tuple(methods)))
            call.key = self.admit(exchange, route.scope)
            await route.run(call)
        except Left:
            pass
        except PenstockError as error:
            await _refuse(call, problem_of(error))
        except Exception as error:
            get_logger(request_id=call.request_id).error(
                "request_failed", path=route.path, reason=describe_reason(error), exc_info=error
            )
            await _refuse(call, INTERNAL)
        finally:
            self.exchanges.discard(exchange)


async def _no_route(call: HttpCall) -> None:
    text = "There is nothing at this path. GET /openapi.json lists what there is."
    raise RequestRefused(Problem(status=404, type="not_found_error", code="not_found", message=text))


_NOWHERE: Final = Route("", "", "native", None, _no_route)


_NO_SOCKET: Final = Problem(
    status=404, type="not_found_error", code="not_found", message="There is no WebSocket at this path."
)


def _wrong_method(method: str, allowed: tuple[str, ...]) -> Problem:
    return Problem(
        status=405,
        type="invalid_request_error",
        code="method_not_allowed",
        message=f"{method} is not possible here; allowed: {', '.join(allowed)}.",
    )


async def _refuse(call: HttpCall, problem: Problem) -> None:
    """Answer with an error, or cut the response off if it has begun."""
    exchange, protocol = call.exchange, call.protocol
    if exchange.has_started:
        return  # the server closes the connection without the end of the body
    headers: list[tuple[str, str]] = []
    if problem.retry_after is not None:
        seconds = max(0.0, problem.retry_after)
        headers += [("retry-after", str(max(1, round(seconds)))), ("retry-after-ms", str(round(seconds * 1000)))]
    if problem.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    data = protocol.error(problem, call.request_id)
    await exchange.respond(protocol.status(problem), data, headers, protocol.error_kind)


def app(system: System, options: GatewayOptions | None = None, **changes: Any) -> Gateway:
    """Make the ASGI app that serves a system's streams.

    Mount it in Starlette or FastAPI (``host.mount("/llm", penstock.gateway.app(system))``), and compose its
    `Gateway.lifespan` into the host's; without that it starts with its first request. ``changes`` are changes to the
    options.

    Raises:
        OptionError: an option is not allowed.
    """
    base = options if options is not None else system.settings.gateway
    return Gateway(system, base.replace(**changes) if changes else base)
