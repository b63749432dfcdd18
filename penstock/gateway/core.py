"""What the routes of a gateway share."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from penstock.cluster.followed import FollowedRecord
from penstock.cluster.node import ClusterNode
from penstock.config.gateway import GatewayOptions
from penstock.config.logs import get_logger
from penstock.errors import OptionError, PenstockError, StoreError, StreamExists, StreamNotFound, describe_reason
from penstock.gateway.channels import Channel, Channels
from penstock.gateway.exchange import Exchange
from penstock.gateway.guard import Guard
from penstock.gateway.hosted import HostedAgents
from penstock.gateway.idempotency import Once, SharedOnce
from penstock.gateway.keys import Key, Scope
from penstock.gateway.limits import KeyLimits
from penstock.gateway.probes import Probes
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.remote_calls import RemoteCalls
from penstock.gateway.shared_tickets import Misses, SharedTickets
from penstock.gateway.stored import StoredResponse, StoredResponses
from penstock.gateway.tally import GatewayTally
from penstock.gateway.ticker import Ticker
from penstock.system import System
from penstock.telemetry.gateway import GatewayRefusal, GatewayStatistics, ReaderInfo

__all__ = ["DRAINING", "Closes", "GatewayCore", "Served"]

T = TypeVar("T")
_THREADS: Final = 8
_LAST_FRAMES: Final = 5.0  # seconds for all readers to get their last frame
_LAST_MOMENT: Final = 1.0  # seconds for the tasks of readers that were cut off
_LOOK: Final = 0.02  # seconds between two looks whether there still are readers
DRAINING: Final = Problem(
    status=503,
    type="server_error",
    code="draining",
    message="The server is shutting down. Connect again.",
    retry_after=1.0,
)
_TOO_MANY_READERS: Final = Problem(
    status=503,
    type="server_error",
    code="too_many_readers",
    message="The server has as many readers as it may have.",
    retry_after=1.0,
)


_TOO_MANY_TICKETS: Final = Problem(
    status=429,
    type="rate_limit_error",
    code="too_many_tickets",
    message="Too many tickets that are not valid are tried. Try again.",
    retry_after=1.0,
)
_REVOKED: Final = Problem(
    status=401, type="authentication_error", code="key_revoked", message="The API key has been revoked."
)


class Served(Protocol):
    """A connection that reads streams."""

    @property
    def key(self) -> Key | None:
        """The key that it was opened with, and without which it ends; None: it looks after that itself."""
        raise NotImplementedError

    @property
    def is_reading(self) -> bool:
        """Whether it waits for anything now, so that a drain should give it time."""
        raise NotImplementedError

    def cut(self, problem: Problem) -> None:
        """End it, with a last frame that says why."""

    def abandon(self) -> None:
        """Cut it off where it is."""

    def look(self, now: float) -> None:
        """Do what has become necessary with time. Called about once a second."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocol of each stream that it reads. Any thread."""
        raise NotImplementedError

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What telemetry is told of each stream that it reads. Called on the loop."""
        raise NotImplementedError


class Closes(Protocol):
    """Something of the gateway that ends with it."""

    def close(self) -> None:
        """End it."""


class GatewayCore:
    """Everything of a gateway but its routes. It belongs to the first event loop that calls it.

    Args:
        system: started by the caller, or with the first request; the gateway does not stop it.
        options: None takes the settings' ``gateway`` group.
    """

    def __init__(self, system: System, options: GatewayOptions | None = None) -> None:
        self.system = system
        self.options = options if options is not None else system.settings.gateway
        if not isinstance(self.options, GatewayOptions):
            raise OptionError("options", type(options).__name__, "a GatewayOptions, or None")
        self.guard = Guard(self.options)
        self.limits = KeyLimits(self.guard.present)
        self.readers: set[Served] = set()
        self.exchanges: set[Exchange] = set()  # requests that are being answered
        self.agents = HostedAgents()
        self.responses = StoredResponses()
        self.chats: dict[tuple[str, str, str], Channel] = {}  # the last stream of a chat or run, by key, kind and id
        self.templates: dict[str, Mapping[str, Any]] = {}
        self.tools: dict[str, Any] = {}
        self.is_draining = False  # `/ready` says so, and no stream is opened
        self.is_ending = False  # no reader is taken either
        self.requests = 0
        self.tally = GatewayTally()
        # A stream's id, and the answer to the request that opened it.
        self.idempotency: Once[tuple[str, bytes]] = Once()
        self.shared_once: SharedOnce | None = None  # the same for all nodes of a cluster
        self.shared_tickets: SharedTickets | None = None
        self._misses = Misses()
        self.probes = Probes()
        self.board: Closes | None = None  # see `penstock.gateway.board.desk.desk_of`
        self.created = time.time()
        self._places = 0  # of readers, that are taken
        self._opening: Counter[str] = Counter()  # streams that are being opened, by key
        self._unread: set[asyncio.Task[Channel]] = set()  # that open streams for requests that have gone
        self._tasks: set[asyncio.Task[Any]] = set()  # see `run_apart`
        self._ticker: Ticker | None = None
        self._channels: Channels | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._remote: RemoteCalls | None = None  # in a cluster
        self._sweeper: asyncio.Task[None] | None = None

    # --- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work on the running event loop. Harmless if it does.

        Raises:
            RuntimeError: it works on another loop.
        """
        loop = asyncio.get_running_loop()
        if self._ticker is None:
            services = self.system._services
            self._channels = Channels(services.streams, services.call_timeout, self._note_use)
            self._threads = ThreadPoolExecutor(_THREADS, "penstock-gateway")
            if (node := self.system._node) is not None:
                self._remote = RemoteCalls()
                node.on_forget = partial(self._forget_response, loop)
                self.shared_once = SharedOnce(node.store, node.name, node.writer.number)
                self.shared_tickets = SharedTickets(node.store, node.name, node.writer.number)
            self._ticker = Ticker(loop, self.options.tick)
            self._sweeper = loop.create_task(self._sweep())
        elif self._ticker.loop is not loop:
            raise RuntimeError("the gateway serves another event loop; make one gateway for each loop")

    @property
    def ticker(self) -> Ticker:
        """The ticker. The gateway must have been started."""
        assert self._ticker is not None
        return self._ticker

    @property
    def channels(self) -> Channels:
        """The channels. The gateway must have been started."""
        assert self._channels is not None
        return self._channels

    async def drain(self, timeout: float | None = None) -> None:
        """Refuse new streams, let those that are read go on for a while, then end all readers with a valid cursor.

        Returns when all readers have left, at the latest 6 seconds after the time-out. ``/ready`` answers 503 from the
        beginning. Streams go on in the system.

        Args:
            timeout: seconds to let streams go on; None takes the option ``drain_timeout``.
        """
        self.is_draining = True
        timeout = self.options.drain_timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        node = self.system._node
        if node is not None:
            await self.in_thread(node.drain, timeout)
        await _until(lambda: not self._is_used(node), until - loop.time())
        await self.end_readers()

    def _is_used(self, node: ClusterNode | None) -> bool:
        """Whether a drain goes on waiting. In a cluster, streams that run here may have readers on other nodes."""
        if node is not None and any(
            record.stored is not None and (record.feed is not None or record.hub.subscribers)
            for record in self.system._services.streams.running()
        ):
            return True
        return any(reader.is_reading for reader in self.readers)

    async def end_readers(self, timeout: float = _LAST_FRAMES) -> None:
        """Refuse new readers, and end the present ones: each gets a last frame and the end of its response.

        Args:
            timeout: seconds; readers that have not taken their last frame by then are cut off without it.
        """
        self.is_draining = self.is_ending = True
        for exchange in self.exchanges:
            exchange.refuse(DRAINING)
        self._each_reader(lambda reader: reader.cut(DRAINING))
        await _until(lambda: not self.readers, timeout)
        self._each_reader(lambda reader: reader.abandon())
        await _until(lambda: not self.readers, _LAST_MOMENT)

    async def close(self) -> None:
        """End everything that belongs to the gateway. Readers are cut off; streams follow their ``on_orphan``."""
        self.is_draining = self.is_ending = True
        self._each_reader(lambda reader: reader.cut(DRAINING))
        sweeper, self._sweeper = self._sweeper, None
        tasks = [*self._tasks] if sweeper is None else [sweeper, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.board is not None:
            self.board.close()
        if self._channels is not None:
            self._channels.close()
        if self._ticker is not None:
            self._ticker.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._remote is not None:
            self._remote.close()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """For the host's lifespan: start the system and the gateway, and close the gateway at the end."""
        await asyncio.to_thread(self.system.start)
        self.start()
        try:
            yield
        finally:
            await self.close()

    async def _sweep(self) -> None:
        """Look after readers and channels, four times in each heartbeat and at least once a second."""
        pause = min(1.0, self.options.heartbeat / 4)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            try:
                self._look_after(loop.time())
                await self.responses.sweep(self.channels.has)
            except Exception as error:  # a fault of ours must not end the heartbeats
                get_logger().error("sweep_failed", reason=describe_reason(error), exc_info=error)

    def _look_after(self, now: float) -> None:
        valid: dict[str, bool] = {}

        def look(reader: Served) -> None:
            reader.look(now)
            for info in reader.infos():
                self.tally.lagged(info.lag_bytes)
            key = reader.key
            if key is not None and key.id not in valid:
                valid[key.id] = self.guard.is_valid(key)
            if key is not None and not valid[key.id]:
                reader.cut(_REVOKED)

        self._each_reader(look)
        if self.shared_once is not None and self.shared_once.is_owing:
            self.later(self.shared_once.settle)
        self.guard.forget_tickets(now, self.channels.knows)
        self.channels.sweep()
        self.agents.sweep(now)
        for name, channel in list(self.chats.items()):
            if not self.channels.has(channel):
                del self.chats[name]

    def _each_reader(self, do: Callable[[Served], None]) -> None:
        """Do something with each reader. A fault of one keeps no other one from it."""
        for reader in list(self.readers):
            try:
                do(reader)
            except Exception as error:
                get_logger().error("reader_failed", reason=describe_reason(error), exc_info=error)

    def _note_use(self, owner: str, tokens: int) -> None:
        key = self.guard.key_of(owner)
        if key is not None:
            self.limits.used(key, tokens, self.ticker.loop.time())

    # --- looking -------------------------------------------------------------------------------------------------

    def reader_infos(self) -> tuple[ReaderInfo, ...]:
        """The connections that read streams now, one for each stream that one reads. Call it on the gateway's loop."""
        return tuple(info for reader in list(self.readers) for info in reader.infos())

    def statistics(self) -> GatewayStatistics:
        """The counters of the gateway. Any thread; never blocks."""
        protocols = [protocol for reader in list(self.readers) for protocol in reader.protocols]
        refused: dict[GatewayRefusal, int] = {}
        if self._remote is not None:
            refused = {"busy": self._remote.refused, "too_many_tickets": self._misses.refused}
        return self.tally.statistics(
            requests=self.requests, readers=protocols, is_draining=self.is_draining, refused=refused
        )

    # --- for the routes ------------------------------------------------------------------------------------------

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that may wait for a process, in one of the gateway's threads."""
        assert self._threads is not None
        context = contextvars.copy_context()  # streams belong to the trace of the request
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(function, *arguments))

    async def where_it_runs(self, channel: Channel, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that waits for the process of a stream. If that is on another node, the gateway's threads do
        not wait for it.

        Raises:
            RequestRefused: as many calls wait for that node, or for all nodes, as may do so (503).
        """
        record = channel.record
        if self._remote is None or not isinstance(record, FollowedRecord) or record.is_over:
            return await self.in_thread(function, *arguments)
        return await asyncio.wrap_future(self._remote.start(record.owner, function, *arguments))

    def run_apart(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work that may last longer than the request for it. It is cancelled when the gateway is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def later(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in one of the gateway's threads, and do not wait for it. An error is logged."""
        assert self._threads is not None
        self._threads.submit(function, *arguments).add_done_callback(_log_unheard)

    async def read(self, stream_id: str | None) -> None:
        """Have an ended stream that is in the store alone read into memory, in one of the gateway's threads.

        Raises:
            StoreError: the store cannot be read, or the stream's log is damaged.
        """
        if stream_id is not None and not self.channels.is_read(stream_id):
            await self.in_thread(self.channels.read, stream_id)

    async def find(self, key: Key, stream_id: str) -> Channel:
        """A stream that a key may read.

        Raises:
            StoreError: as `read`.
            StreamNotFound: there is none, or another key's request has opened it.
        """
        await self.read(stream_id)
        channel = self.channels.get(stream_id)
        if not channel.is_readable(self.guard.present(key)):
            raise StreamNotFound(stream_id)
        return channel

    async def find_response(self, key: Key, response_id: str) -> StoredResponse | None:
        """A response that was stored, here or, as its stream is in a log store, by another process.

        Raises:
            StoreError: as `read`.
        """
        found = self.responses.find(response_id, key.id, is_admin=key.may("admin"))
        if found is not None or not self.channels.has_store:
            return found
        try:
            channel = await self.find(key, response_id)
        except StreamNotFound:
            return None
        head = channel.record.head
        kept = None if head is None else head.facts.get("response")
        if not kept or not kept["is_stored"]:
            return None
        stored = StoredResponse(channel, kept["given"], is_stored=True)
        self.responses.add(response_id, stored)
        return stored

    def _forget_response(self, loop: asyncio.AbstractEventLoop, response_id: str) -> None:
        """Forget a response that another node has deleted. Any thread."""
        with suppress(RuntimeError):  # the gateway's loop has ended
            loop.call_soon_threadsafe(partial(self.responses.forget, response_id))

    async def adopt_ticket(self, ticket: str, stream_id: str) -> None:
        """Look for a ticket that another node has made, so that `Guard.use_ticket` knows it.

        The first use of one that was made here is noted in the store, so that the other nodes take it later.

        A text that is no ticket, or was looked for in vain before, costs the store nothing.

        Raises:
            StoreError: the store cannot be read.
            RequestRefused: too many tickets are looked for in vain (429).
        """
        guard, shared = self.guard, self.shared_tickets
        if shared is None or not guard.is_ticket(ticket) or guard.has_used_ticket(ticket):
            return
        is_own = guard.knows_ticket(ticket)
        if not is_own and self._misses.has(ticket, stream_id):
            return
        if not is_own and not self._misses.admits(self.ticker.loop.time()):
            raise RequestRefused(_TOO_MANY_TICKETS)
        try:
            key_id = await self.in_thread(shared.find, ticket, stream_id)
        except StoreError:
            if is_own:
                return  # it is good here
            raise
        if key_id is not None:
            guard.adopt_ticket(ticket, stream_id, key_id)
            if not is_own:
                self._misses.found()
        elif not is_own:
            self._misses.add(ticket, stream_id)

    async def forget(self, channel: Channel) -> None:
        """Have an ended stream forgotten: here, in the store, and by all nodes.

        Raises:
            RequestRefused: as many calls wait for other nodes as may do so (503). Nothing is forgotten.
            StoreError: the store does not work.
        """
        if self._remote is not None:
            told = self._remote.start("", _forget_stored, self.system, channel.stream_id)
            self.channels.forget(channel)
            await asyncio.wrap_future(told)
            return
        self.channels.forget(channel)
        if self.channels.has_store:
            await self.in_thread(_forget_stored, self.system, channel.stream_id)

    def admit_stream(self, key: Key, stream_id: str | None = None, *, instead_of: Channel | None = None) -> None:
        """Admit the opening of a stream. `enter` must follow without an ``await`` between; `read` comes before.

        Args:
            key: opens it.
            stream_id: that the client asks for.
            instead_of: a stream that will have ended by then, so that it does not count.

        Raises:
            RequestRefused: the key has as many streams as it may have, or the gateway drains.
            StreamExists: the id that the client asks for is that of a stream, or of a response, that is another key's.
        """
        if self.is_draining:
            raise RequestRefused(DRAINING)
        ends = instead_of is not None and instead_of.owner == key.id and not instead_of.record.is_over
        self.limits.admit_stream(key, lambda: self.channels.running(key.id) + self._opening[key.id] - ends)
        if stream_id is not None:
            is_others = self.channels.is_others(stream_id, key.id) or self.responses.is_others(stream_id, key.id)
            if is_others:
                raise StreamExists(stream_id)

    async def enter(self, key: Key, open: Callable[[], T], channel_of: Callable[[T], Channel]) -> Channel:
        """Open a stream in one of the gateway's threads, and enter it.

        If the caller is cancelled meanwhile, the stream is entered nevertheless, and its ``on_orphan`` applies.
        """
        self._opening[key.id] += 1

        async def work() -> Channel:
            try:
                return self.channels.add(channel_of(await self.in_thread(open)))
            finally:
                self._opening[key.id] -= 1
                if not self._opening[key.id]:
                    del self._opening[key.id]

        task = asyncio.get_running_loop().create_task(work())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unread.add(task)
            task.add_done_callback(self._abandon)
            raise

    def _abandon(self, task: asyncio.Task[Channel]) -> None:
        self._unread.discard(task)
        _log_unheard(task)
        if not task.cancelled() and task.exception() is None:
            task.result().abandon_unread()

    def admit_reader(self) -> None:
        """Raise `RequestRefused` if there are as many readers as there may be, or no more are taken."""
        if self.is_ending:
            raise RequestRefused(DRAINING)
        if self._places >= self.options.max_readers:
            raise RequestRefused(_TOO_MANY_READERS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take the place of a reader while the block runs. Each connection that reads, or will, has one.

        Raises:
            RequestRefused: see `admit_reader`.
        """
        self.admit_reader()
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    def admit(self, exchange: Exchange, scope: Scope | None) -> Key:
        """The key of a request, if it may use a route of that scope now. Scope None: no key is needed.

        Raises:
            RequestRefused: it may not.
        """
        key = self.guard.authenticate(exchange.headers, exchange.query, is_needed=scope is not None)
        if scope is not None:
            self.guard.check_scope(key, scope)
            self.limits.admit(key, self.ticker.loop.time())
        if key.max_body is not None:
            exchange.max_body = min(key.max_body, exchange.max_body)
        return key


def _forget_stored(system: System, stream_id: str) -> None:
    services = system._services
    assert services.writer is not None
    services.writer.flush(services.call_timeout)
    services.writer.store.forget(stream_id)
    if system._node is not None:
        system._node.forget_everywhere(stream_id)


def _log_unheard(done: Future[Any] | asyncio.Future[Any]) -> None:
    """Log the error of something that nothing waits for."""
    error = None if done.cancelled() else done.exception()
    if isinstance(error, PenstockError):
        get_logger().warning("unheard_error", reason=describe_reason(error))
    elif error is not None:
        get_logger().error("unheard_error", reason=describe_reason(error), exc_info=error)


async def _until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition is true, at most for so many seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    while not condition() and (left := until - loop.time()) > 0:
        await asyncio.sleep(min(_LOOK, left))
