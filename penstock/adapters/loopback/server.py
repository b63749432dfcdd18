"""The loopback provider: an HTTP server with its own thread and event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from penstock.adapters.loopback.connection import Connection, ConnectionLimits, OpenConnections
from penstock.adapters.loopback.endpoints import Endpoints
from penstock.adapters.loopback.ledger import Ledger, ReceivedRequest, Statistics
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.script import Playback, Script
from penstock.config.checks import check_number
from penstock.errors import CallTimeout, OptionError, SystemStopped
from penstock.ports import Secret

__all__ = ["LoopbackProvider", "serve"]

_STOP_S = 5.0
"""How long stopping may take beyond its grace period before it is reported as hanging."""


class LoopbackProvider:
    """A provider that speaks five dialects, answers as its script says, and counts what it does.

    Use it as a context manager, or call `start` and `stop`. It can be started again after a stop; the script continues
    where it was. Every method may be called from any thread but the provider's own.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | Secret | None = None,
        max_connections: int = 2000,
        max_body_bytes: int = 16 * 1_048_576,
        max_header_bytes: int = 65_536,
        history: int = 1000,
    ) -> None:
        """Create the provider without starting it.

        Args:
            script: the answers; None gives the same short answer to every request. See also `default_script`.
            host: the address to listen on.
            port: 0 uses any free port.
            api_key: the key that clients must send in the way of their dialect; None accepts any key, or none.
            max_connections: connections beyond this number are answered with 503 and closed.
            max_body_bytes: a larger request is answered with 413.
            max_header_bytes: a longer head is answered with 431.
            history: how many requests `requests` keeps.

        Raises:
            OptionError: an argument is not allowed.
        """
        if script is not None and not isinstance(script, Script):
            raise OptionError("script", script, "a Script or None")
        if not isinstance(host, str) or not host:
            raise OptionError("host", host, "an address to listen on")
        check_number("port", port, 0, 65_535, whole=True)
        check_number("max_connections", max_connections, 1, 1_000_000, whole=True)
        check_number("max_body_bytes", max_body_bytes, 1, 2**30, whole=True)
        check_number("max_header_bytes", max_header_bytes, 256, 2**24, whole=True)
        check_number("history", history, 0, 1_000_000, whole=True)
        self._address = (host, port)
        self._limits = ConnectionLimits(
            body_bytes=max_body_bytes, header_bytes=max_header_bytes, connections=max_connections
        )
        self._ledger = Ledger(history)
        key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._endpoints = Endpoints(Playback(script or Script()), self._ledger, key)
        self._running: _ServerThread | None = None

    # --- life -------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start listening. When this returns, clients can connect. Does nothing if the provider is running.

        Raises:
            OptionError: the host or the port cannot be used; the message says why.
        """
        if self._running is None:
            listener = _listen(*self._address)
            self._running = _ServerThread(listener, self._endpoints, self._ledger, self._limits)
        return self

    def stop(self, grace: float = 0.0) -> None:
        """Refuse new connections, wait ``grace`` seconds for responses in progress, close all, end the thread.

        Does nothing if the provider is not running.

        Raises:
            CallTimeout: the thread does not end, because a function of the script does not return.
        """
        check_number("grace", grace, 0, 86_400)
        running, self._running = self._running, None
        if running is not None:
            running.stop(grace)

    def wait(self) -> None:
        """Block until the provider is stopped, or the calling thread is interrupted (`KeyboardInterrupt`)."""
        if self._running is not None:
            self._running.ended.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- state and counters -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the provider is listening."""
        return self._running is not None

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            SystemStopped: the provider is not running.
        """
        if self._running is None:
            raise SystemStopped("the loopback provider")
        return self._running.port

    @property
    def url(self) -> str:
        """The root URL ``http://127.0.0.1:PORT``, the base URL for the clients of Anthropic, Ollama and Gemini.

        Raises:
            SystemStopped: the provider is not running.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI's clients: ``http://127.0.0.1:PORT/v1``.

        Raises:
            SystemStopped: the provider is not running.
        """
        return f"{self.url}/v1"

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The most recent requests, oldest first, without ``/healthz``."""
        return self._ledger.requests

    def statistics(self) -> Statistics:
        """Return the current counters, counted over all starts."""
        return self._ledger.statistics()

    def wait_for(self, condition: Callable[[Statistics], bool], timeout: float = 5.0) -> Statistics:
        """Wait until ``condition`` holds, and return the counters. It must be fast: it is called under a lock.

        Raises:
            CallTimeout: it did not hold within ``timeout`` seconds; the message has the counters.
        """
        return self._ledger.wait_for(condition, timeout)

    def wait_for_requests(self, count: int, timeout: float = 5.0) -> tuple[ReceivedRequest, ...]:
        """Wait until ``count`` requests have been received in total, and return the kept ones.

        Raises:
            CallTimeout: fewer were received within ``timeout`` seconds.
        """
        self._ledger.wait_for(lambda statistics: statistics.requests >= count, timeout)
        return self._ledger.requests

    def __repr__(self) -> str:
        return f"LoopbackProvider({self.base_url})" if self.running else "LoopbackProvider(stopped)"


class _ServerThread:
    """The socket, the thread and the event loop between one start and its stop."""

    def __init__(self, listener: socket.socket, endpoints: Endpoints, ledger: Ledger, limits: ConnectionLimits) -> None:
        self.port: int = listener.getsockname()[1]
        self.ended = Event()
        self._connections = OpenConnections()
        self._make = lambda: Connection(endpoints, ledger, limits, self._connections)
        self._grace = 0.0
        ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = Thread(target=self._run, args=(listener, ready), name=f"loopback-{self.port}", daemon=True)
        self._thread.start()
        self._loop, self._stopping = ready.result()

    def stop(self, grace: float) -> None:
        self._grace = grace
        with suppress(RuntimeError):  # the loop is closed: the thread has ended already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(grace + _STOP_S)
        if self._thread.is_alive():
            raise CallTimeout("stopping the loopback provider", grace + _STOP_S)

    def _run(self, listener: socket.socket, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        try:
            asyncio.run(self._serve(listener, ready))
        except BaseException as error:
            if ready.done():
                raise
            listener.close()
            ready.set_exception(error)
        finally:
            self.ended.set()

    async def _serve(
        self, listener: socket.socket, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
    ) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await loop.create_server(self._make, sock=listener, backlog=1024)
        ready.set_result((loop, stopping))
        await stopping.wait()
        # Stop accepting before closing: at `close` asyncio leaks a socket that is accepted but not yet wrapped.
        self._connections.closed = True
        with suppress(NotImplementedError):  # the loop of Windows has no readers
            loop.remove_reader(listener)
        accepting = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*accepting, return_exceptions=True)
        server.close()
        for connection in tuple(self._connections.members):
            connection.finish()
        if self._grace and self._connections.members:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._connections.empty.wait(), self._grace)
        for connection in tuple(self._connections.members):
            connection.abort()
        if self._connections.members:
            await self._connections.empty.wait()
        await server.wait_closed()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno and error.errno > 0 else error
        if isinstance(error, socket.gaierror):
            raise OptionError("host", host, f"an address of this machine ({error})") from error
        raise OptionError("port", port, f"a port that is free on {host} ({reason})") from error


def serve(
    host: str = "127.0.0.1",
    port: int = 8787,
    script: Script | None = None,
    *,
    api_key: str | None = None,
    grace: float = 1.0,
    ready: Callable[[LoopbackProvider], None] | None = None,
) -> None:
    """Serve until the calling thread is interrupted (`KeyboardInterrupt`, which is caught), then stop. Prints nothing.

    Args:
        host: the address to listen on.
        port: 0 uses any free port.
        script: the answers; None is `default_script`.
        api_key: the key that clients must send in the way of their dialect; None accepts any key, or none.
        grace: seconds to wait for responses in progress.
        ready: called once, when clients can connect.

    Raises:
        OptionError: an argument is not allowed, or the address cannot be listened on.
    """
    provider = LoopbackProvider(script or default_script(), host=host, port=port, api_key=api_key)
    with suppress(KeyboardInterrupt):
        provider.start()
        try:
            if ready is not None:
                ready(provider)
            provider.wait()
        finally:
            provider.stop(grace)
