"""The gateway as a server of its own: uvicorn, with other sockets and another way to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Final

import uvicorn

from penstock.config.checks import check_number
from penstock.config.gateway import GatewayOptions
from penstock.config.logs import get_logger
from penstock.errors import OptionError, describe_reason
from penstock.gateway.asgi import Gateway
from penstock.gateway.connection import LimitedConnection
from penstock.gateway.core import GatewayCore
from penstock.gateway.guard import is_loopback
from penstock.system import System

__all__ = ["GatewayServer", "listen", "serve", "url_of"]

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
if sys.platform == "win32":
    _SIGNALS.append(signal.SIGBREAK)
_KEEP_ALIVE: Final = 75  # seconds; longer than the 60 that proxies keep an idle connection to their upstream
_CONNECTIONS: Final = 5  # seconds for responses that are not streams, and for connections to close
_AT_ONCE: Final = 1  # the same after a second signal, and for readers to get their last frame
_CLOSING: Final = 30.0  # seconds for a client to take some more of what was written before the connection was closed
_TICKS: Final = 10  # of uvicorn, a tenth of a second each
_SOCKET: Final = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPALIVE", 30),  # what macOS calls TCP_KEEPIDLE
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),  # milliseconds
)
"""A client that has vanished without a word is noticed within a minute, also if data for it wait to be acknowledged.
Accepted sockets inherit these on Linux and macOS."""


def serve(
    system: System,
    host: str = "127.0.0.1",
    port: int = 8900,
    *,
    options: GatewayOptions | None = None,
    ready: Callable[[GatewayServer], None] | None = None,
    draining: Callable[[int], None] | None = None,
    listeners: Sequence[socket.socket] | None = None,
) -> int:
    """Serve a system's streams until SIGINT or SIGTERM, then drain; see `GatewayServer`. The system is not stopped.

    Call it in the main thread; in another one, no signal is heeded, and `GatewayServer.stop` ends it.

    Args:
        system: it is started if it is not.
        host: a name or an address of this machine. Without keys, one that only this machine can reach.
        port: 0 takes a free one.
        options: None takes the settings' ``gateway`` group.
        ready: called with the server when clients can connect. An error of it ends the server.
        draining: called with the number of readers when the drain begins.
        listeners: to listen at instead of the address; see `listen`.

    Returns:
        0 if all readers were given time to end; 128 plus the number of the second signal, if one came.

    Raises:
        OptionError: an option is not allowed, the keys cannot be read, or the address cannot be listened at.
    """
    system.start()
    gateway = Gateway(system, options)
    if listeners is None:
        listeners = listen(host, port, has_keys=gateway.guard.has_keys)
    server = GatewayServer(gateway, listeners, host, ready, draining)
    server.run()
    return server.code


class GatewayServer(uvicorn.Server):
    """Serves a gateway until a signal, or `stop`.

    Then it drains, in three phases:

    1. ``/ready`` answers 503, and no stream is opened. Streams that are read go on, at most for the option
       ``drain_timeout``.
    2. Readers get a last frame, after which their cursor is valid, and the end of their response.
    3. The listening sockets and idle connections are closed; responses under way get 5 seconds.

    A second signal leaves out what is left of the first phase and shortens the others to a second; a third one ends the
    process at once.

    Args:
        gateway: of no event loop yet.
        listeners: see `listen`. They are closed at the end.
        host: the host name in `url`.
        ready: called when clients can connect.
        draining: called with the number of readers when the drain begins.
    """

    def __init__(
        self,
        gateway: GatewayCore,
        listeners: Sequence[socket.socket],
        host: str = "127.0.0.1",
        ready: Callable[[GatewayServer], None] | None = None,
        draining: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                gateway,  # type: ignore[arg-type]
                http=LimitedConnection,
                lifespan="off",
                log_config=None,
                access_log=False,
                workers=1,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_CONNECTIONS,
                ws_max_size=gateway.options.max_body,
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                ws_per_message_deflate=False,
            )
        )
        self.gateway = gateway
        self.code = 0
        self.url = url_of(host, listeners[0].getsockname()[1])
        self._listeners = list(listeners)
        self._ready = ready
        self._draining = draining
        self._signals = 0
        self._closing: dict[Any, tuple[int, float]] = {}  # connections; bytes that are left, and since when
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Begin to drain, as by a signal; the second call is the second signal. Any thread."""
        self._signals += 1
        loop = self._loop
        if loop is None:
            self.should_exit = True
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                loop.call_soon_threadsafe(self._end)

    # --- uvicorn's own steps -------------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread, between any two instructions of it."""
        if self._signals:
            self.code = 128 + sig
        if self._signals > 1:
            os._exit(self.code)
        self.stop()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals meanwhile. Ignored ones stay so; none is raised again at the end, as uvicorn does."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the running event loop until the end."""
        self._loop = asyncio.get_running_loop()
        self.gateway.start()
        try:
            await super().serve(self._listeners if sockets is None else sockets)
        finally:
            if self._ending is not None:
                self._ending.cancel()
            await self.gateway.close()
            for each in (*getattr(self, "servers", ()), *self._listeners):
                each.close()
            await asyncio.sleep(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        get_logger().info("serving", url=self.url)
        if self._ready is not None:
            self._ready(self)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self._abort_stuck(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _abort_stuck(self, now: float) -> None:
        """Free the sockets that are being closed if the client takes nothing of what was written before."""
        found: dict[Any, tuple[int, float]] = {}
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            if not transport.is_closing():
                continue
            size = transport.get_write_buffer_size()
            known = self._closing.get(connection)
            found[connection] = known if known is not None and known[0] == size else (size, now)
            if now - found[connection][1] >= _CLOSING:
                transport.abort()
        self._closing = found

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # of clients that do not take what was written to them
            connection.transport.abort()
        await asyncio.sleep(0)

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Begin the first phase, or hurry."""
        if self._ending is not None:
            self._ending.cancel()
            self.config.timeout_graceful_shutdown = _AT_ONCE
        self._ending = asyncio.get_running_loop().create_task(self._drain(is_hurried=self._ending is not None))

    async def _drain(self, *, is_hurried: bool) -> None:
        readers = len(self.gateway.readers)
        try:
            if is_hurried:
                await self.gateway.end_readers(_AT_ONCE)
            else:
                get_logger().info("draining", readers=readers)
                if self._draining is not None:
                    self._draining(readers)
                await self.gateway.drain()
            get_logger().info("drained", readers=readers)
        except Exception as error:  # a fault of ours must not keep the server from ending
            get_logger().error("drain_failed", reason=describe_reason(error), exc_info=error)
        self.should_exit = True  # not if a second signal has cancelled this: another task ends the readers then


def listen(host: str, port: int, *, has_keys: bool = False) -> list[socket.socket]:
    """Listen at all addresses of a name, at the same port of each.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.
        has_keys: whether requests need a key. Without, only loopback addresses are allowed.

    Raises:
        OptionError: the host or the port cannot be used; the message says why.
    """
    check_number("port", port, 0, 65_535, whole=True)
    addresses = _addresses(host, port)
    for _, address in addresses:
        if not has_keys and not is_loopback(str(address[0])):
            text = (
                f"Without API keys, only loopback addresses are listened at, and {host} is none. Make a key with"
                " `penstock keys new FILE`, and pass --keys FILE or the setting gateway.keys."
            )
            raise OptionError("host", host, "a loopback address", message=text)
    made: list[socket.socket] = []
    for family, address in addresses:
        number = made[0].getsockname()[1] if made else port
        try:
            made.append(_listener(family, (address[0], number, *address[2:])))
        except OSError as error:
            # Of localhost, which has two addresses, IPv6 may be switched off, or the port may be taken there.
            if not made or (error.errno != errno.EADDRNOTAVAIL and port):
                for each in made:
                    each.close()
                raise _unusable(host, port, error) from None
    return made


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if not host:
        raise OptionError("host", host, "a name or an address of this machine")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise OptionError("host", host, "an address", message=f"The host {host} is not known: {reason}.") from None
    return list(dict.fromkeys([(family, address) for family, _, _, _, address in found]))


def _listener(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    made = socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET:
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _unusable(host: str, port: int, error: OSError) -> OptionError:
    if error.errno == errno.EADDRNOTAVAIL:
        return OptionError("host", host, "an address", message=f"{host} is no address of this machine.")
    reason = os.strerror(error.errno) if error.errno else str(error)
    text = f"Port {port} of {host} cannot be listened at: {reason}. Choose another port, or 0 for a free one."
    return OptionError("port", port, "a free port", message=text)


def url_of(host: str, port: int) -> str:
    """The base URL. For an address that means all addresses, a client on this machine takes the loopback one."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
