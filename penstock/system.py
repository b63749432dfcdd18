"""`System`: the composition root. Everything is wired here and nowhere else.

The supervision tree::

    system  (rest_for_one)
    ├─ registry                names of plain Pykka actors
    ├─ streams   (dynamic)     one TokenStream per stream
    ├─ sources   (dynamic)     one Integration per provider request
    ├─ tools     (dynamic)     one Task per function call that runs
    ├─ agents    (dynamic)     one AgentProcess per agent
    ├─ handler                 opens streams, watches subscribers, cleans up
    ├─ agent_handler           restarts agents, or ends their streams
    ├─ reaper                  once a second: looks for ends that no message reports
    ├─ cluster                 in a cluster: heart, reaper and desk of the node
    └─ user      (dynamic)     your own processes: `System.start_child`
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self

from penstock.actors.agent.table import AgentTable
from penstock.actors.agent.task import ThreadQuota
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher, check_process, is_forked, on_worker
from penstock.actors.runtime.loop_ticker import running_loop
from penstock.actors.runtime.mailbox import hold_wakes, release_wakes
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import KILL, SHUTDOWN
from penstock.actors.stream.models import ModelStatistics
from penstock.actors.stream.storing import StoreWriter
from penstock.actors.stream.table import StreamTable
from penstock.adapters.http.choosing import make_reader
from penstock.adapters.providers.catalogue import Catalogue
from penstock.adapters.providers.chat_calls import check_input
from penstock.agent import create_agent
from penstock.cluster.node import ClusterNode, node_name
from penstock.cluster.processes import cluster_child
from penstock.cluster.view import ClusterView
from penstock.config.checks import check_number
from penstock.config.cluster import ClusterOptions
from penstock.config.logs import get_logger
from penstock.config.options import OnOrphan, RequestOptions, Restart, StreamOptions
from penstock.config.prices import PriceTable
from penstock.config.settings import RuntimeOptions, Settings
from penstock.config.store import StoreOptions
from penstock.config.units import Unit
from penstock.errors import OptionError, PenstockError, SupervisorError, SystemStopped
from penstock.events import StreamCompleted, TerminalEvent
from penstock.inspection import (
    StreamInfo,
    StreamSummary,
    SystemStatistics,
    Tree,
    draw_tree,
    stream_info,
    stream_summary,
    system_statistics,
)
from penstock.ports import ChatCall, Journal, LogStore, Provider, Reader
from penstock.ports.batch import BatchResult, BatchResults, PromptForm
from penstock.provider_client import create_client
from penstock.recovery import load_stream, recover
from penstock.services import Services
from penstock.stream import Stream
from penstock.supervisors.calls import StartChild, TerminateChild
from penstock.supervisors.registry import Names
from penstock.supervisors.spec import ChildSpec, SupervisorFlags
from penstock.supervisors.supervisor import Supervisor
from penstock.supervisors.system.agents import close_agents
from penstock.supervisors.system.asking import ask_until_back
from penstock.supervisors.system.sentinel import Sentinel, end_all, stop_streams
from penstock.supervisors.system.tree import system_children
from penstock.supervisors.system.user import USER, UserSpecs

__all__ = ["System"]

_ROOT: Final = "system"
_FLAGS: Final = SupervisorFlags(strategy="rest_for_one", intensity=50, period=5.0)
_LAST_MOMENT: Final = 0.1  # seconds for each group of threads to end after the time-out
_DROPPED: Final = "its System was dropped without stop()"
_PATIENCE: Final = 1.0  # seconds for each part of a dropped system to end


class System:
    """Supervised token streams for one application. Start as many systems as you like; they share nothing.

    Use it as a context manager, or call `start` (the first use does) and `stop`. One that is dropped without `stop`
    ends with a `ResourceWarning`, and so do its streams and agents, although you may keep their handles. A client keeps
    its system, and so does a subscribed function or a tool that refers to it, while its stream or its agent lives.

    Args:
        settings: None reads the environment and ``penstock.toml`` (`Settings.load`).
        runtime: a runtime of your own, e.g. a simulated one; the system then does not close it.
        reader: runs provider requests; None makes the one that the setting ``runtime.reader`` says.
        providers: more providers by name, each a function of ``api_key`` and ``base_url``, or a ready `Provider`.
        journal: stores the events of every stream that has no journal of its own. A `LogStore`, such as a
            `SqliteJournal`, also keeps them for the next process: the system reads ended streams from it, takes care
            of those that a former process has left when it starts, and closes it when it stops. None takes the
            settings' ``store`` group.
        cluster: share the streams with other systems on the same store, see `ClusterOptions`; its ``url`` names the
            store, unless ``journal`` is one. None takes the settings' ``cluster`` group, where there is no cluster
            without a ``url``.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        runtime: Runtime | None = None,
        reader: Reader | None = None,
        providers: Mapping[str, Callable[..., Provider] | Provider] | None = None,
        journal: Journal | LogStore | None = None,
        cluster: ClusterOptions | None = None,
    ) -> None:
        self.settings = settings if settings is not None else Settings.load()
        if not isinstance(self.settings, Settings):
            raise OptionError("settings", type(settings), "a Settings, or None; Settings.load(path) reads a file")
        self._table = StreamTable()
        self._agents = AgentTable()
        self._tool_quota = ThreadQuota(max(1, self.settings.runtime.max_spares // 2))
        self._names = Names()
        self._user_specs = UserSpecs()
        self._journal = journal
        self._cluster = _cluster_of(cluster, self.settings, journal)
        self._node: ClusterNode | None = None  # of the cluster, once it is started
        self._catalogue = Catalogue(self.settings, providers or {})
        self._prices = PriceTable.load(self.settings.prices)
        self._given_runtime = runtime
        self._given_reader = reader
        self._lock = threading.RLock()
        self._started: Services | None = None
        self._finalizer: weakref.finalize[..., System] | None = None
        self._stopped = False
        self._stop_is_done = threading.Event()

    # --- start and stop ----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the supervision tree. Harmless if it runs.

        Raises:
            SystemStopped: the system has been stopped; make a new one.
            SystemForked: it was started in the process that this one is a fork of; make a new one.
            StoreError: the log store cannot be opened, read or written.
        """
        self._check_process()
        with self._lock:
            if self._stopped:
                raise SystemStopped()
            if self._started is None:
                self._started = services = _start(self)
                # No thread has a reference to the system, so that it can be dropped.
                self._finalizer = weakref.finalize(self, _abandoned, services, *self._owns)
                self._finalizer.atexit = False
        return self

    def stop(self, timeout: float | None = None) -> int:
        """Flush and end all streams in the order they were opened, then everything else.

        A stream whose provider has not finished emits what is buffered, and ends in `StreamCancelled`. Returns the
        number of threads that did not end within ``timeout`` seconds (default: the setting ``shutdown_timeout``).
        Harmless if the system has been stopped, and in a fork of the process that started it.
        """
        check_number("timeout", timeout, 0, 86_400, optional=True)
        limit = self.settings.runtime.shutdown_timeout if timeout is None else timeout
        if self._is_forked:
            return 0
        with self._lock:
            first, self._stopped = not self._stopped, True
            services = self._started
            if services is not None:
                services.is_stopped = True
        if self._finalizer is not None:
            self._finalizer.detach()
        if not first:
            if not on_worker():  # the other call may wait for this actor's thread
                self._stop_is_done.wait(limit + _LAST_MOMENT)
            return 0
        try:
            leaked = 0 if services is None else self._stop_all(services, limit)
        finally:
            self._stop_is_done.set()
        if leaked:
            get_logger().warning("threads_leaked", count=leaked)
        return leaked

    def _stop_all(self, services: Services, limit: float) -> int:
        runtime, root = services.runtime, services.root
        assert root is not None
        deadline = runtime.clock.monotonic() + limit

        def left() -> float:
            return max(0.0, deadline - runtime.clock.monotonic())

        try:
            close_agents(self._agents)
            stop_streams(self._table, left)
            root.stop(block=False)
            if not runtime.join(root, left()):
                runtime.exit(root, KILL)
        except BaseException:  # Ctrl-C: end everything at once
            runtime.exit(root, KILL)
            _close(services, *self._owns, lambda: 0.0)
            raise
        return _close(services, *self._owns, left)

    @property
    def _owns(self) -> tuple[bool, bool]:
        """Whether it made its reader and its runtime, and so closes them."""
        return self._given_reader is None, self._given_runtime is None

    async def __aenter__(self) -> Self:
        running_loop()
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def runtime(self) -> Runtime:
        """The runtime of the system's processes. Starts the system if it has not been started."""
        return self._services.runtime

    @property
    def _services(self) -> Services:
        services = self._started
        if services is None or self._stopped:
            self.start()
            services = self._started
            assert services is not None
        check_process(services.runtime.dispatcher)
        return services

    def _check_process(self) -> None:
        """Raise `SystemForked` if it was started in the process that this one is a fork of."""
        services = self._started
        if services is not None:
            check_process(services.runtime.dispatcher)

    @property
    def _is_forked(self) -> bool:
        return (services := self._started) is not None and is_forked(services.runtime.dispatcher)

    # --- streams -----------------------------------------------------------------------------------------------------

    def open_stream(
        self,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        on_orphan: OnOrphan = "continue",
        restart: Restart = "temporary",
        journal: Journal | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Open a stream to push tokens into by hand.

        Args:
            stream_id: the stream's id; None generates one.
            options: None takes the settings' ``stream`` group.
            metadata: is part of every event.
            on_orphan: what happens when the last subscriber leaves: ``"continue"``, ``"cancel"``, or seconds to
                wait for a new subscriber before it is cancelled.
            restart: if the actor crashes, ``"temporary"`` ends the stream with `StreamFailed`, and ``"transient"``
                restarts the actor from the log, without a gap or a duplicate.
            journal: stores the events before they are delivered.
            timeout: seconds to wait for the start; None takes the setting ``call_timeout``.

        Raises:
            StreamExists: a running stream has that id.
            OptionError: an argument is not allowed.
            SystemStopped: the system has been stopped.
        """
        services = self._services
        record = services.open_stream(
            stream_id,
            options or self.settings.stream,
            metadata=metadata,
            on_orphan=on_orphan,
            restart=restart,
            journal=journal,
            timeout=timeout,
        )
        return Stream(record, services.call_timeout)

    def stream_from(
        self,
        source: object,
        *,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_orphan: OnOrphan = "cancel",
        by: Unit | None = None,
        flush_interval: float = 0.1,
    ) -> Stream:
        """Open a stream that is fed from a source, at once, as fast as it is taken.

        An async source is read in one task, on the running event loop if there is one, else on the system's own. A
        blocking one is read on a bounded pool of threads. If the stream ends first, the source is closed by the task or
        thread that reads it; one that has not closed after two seconds is counted (``leaked_sources`` in
        `SystemStatistics`).

        Args:
            source: an iterable or async iterable of str (each is a token), bytes (UTF-8; broken sequences become
                U+FFFD and are counted as ``replaced``), deltas (`penstock.ports`) or events; a function that returns
                one; a text; a stream; or one of `penstock.sources`.
            stream_id: as for `open_stream`.
            options: None takes the preset `SAFE`: up to 100 tokens wait, no token waits for a batch.
            metadata: is part of every event.
            on_orphan: as for `open_stream`; by default the source is closed when the last subscriber leaves.
            by: what the text is cut into: ``"word"``, ``"sentence"``, ``"line"``, ``"character"`` or a number of
                code points; None: each piece is a token.
            flush_interval: seconds that an incomplete unit may wait for the next piece.

        The stream fails with `SourceError` if the source raises; its ``__cause__`` is the exception, and ``partial``
        the text so far.

        Raises:
            OptionError: an argument is not allowed.
            StreamExists, SystemStopped: as for `open_stream`.
        """
        from penstock.toolbox.feeding import stream_from

        return stream_from(
            self,
            source,
            stream_id=stream_id,
            options=options,
            metadata=metadata,
            on_orphan=on_orphan,
            by=by,
            flush_interval=flush_interval,
        )

    def create_chat_token_stream(
        self,
        model: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        options: StreamOptions | None = None,
        provider: str | Provider | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        stream_id: str | None = None,
        on_orphan: OnOrphan = "cancel",
        restart: Restart = "temporary",
        request_options: RequestOptions | None = None,
        fallback: Sequence[str] | None = None,
        token_buffer_size: int | None = None,
        token_batch_size: int | Literal["adaptive"] | None = None,
        token_flush_interval: float | None = None,
        **request_parameters: Any,
    ) -> Stream:
        """Ask a model, and stream its answer. Returns as soon as the stream runs, before the provider answers.

        Args:
            model: the model's name. ``"anthropic/claude-…"`` also chooses the provider, if nothing else does.
            messages: the conversation, ``[{"role": "user", "content": "Hello"}]`` for every provider; or the text of
                the user's message.
            options: None takes the settings' ``chat`` group: 50/5/50 ms, without a rate limit.
            provider: a name, or a `Provider`; None takes the setting.
            base_url: the provider's URL; None takes the setting, then the provider's own.
            api_key: None takes the setting, then the provider's environment variable.
            metadata: as for `open_stream`.
            stream_id: as for `open_stream`.
            on_orphan: as for `open_stream`; by default the call is cancelled when the last subscriber leaves.
            restart: as for `open_stream`.
            request_options: time-outs and retries; None takes the settings' ``request`` group.
            fallback: models to ask if this one fails, instead of those in ``request_options``.
            token_buffer_size: instead of ``max_buffer_size`` in ``options``.
            token_batch_size: instead of ``batch_size`` in ``options``.
            token_flush_interval: instead of ``flush_interval`` in ``options``; seconds.
            **request_parameters: added to the request unchanged (``temperature=0.2`` …), except those that mean what
                they do in openai-python: ``timeout`` (seconds for every clock but ``total_timeout``, or a mapping of
                ``connect``, ``first_token``, ``idle``, ``reasoning`` and ``total`` to seconds), ``max_retries``,
                ``extra_headers``, ``extra_query`` and ``extra_body``. A name that is nearly a known one is a warning in
                the log; see ``strict_parameters`` in `RequestOptions`.

        Raises:
            OptionError: an argument is not allowed, or there is no key.
            StreamExists, SystemStopped: as for `open_stream`.
        """
        self._check_process()
        chosen = self._catalogue.find(provider, _check_model(model), base_url, api_key)
        stream_options = _adjust(
            options or self.settings.chat, token_buffer_size, token_batch_size, token_flush_interval
        )
        call = ChatCall(model=chosen.model, input=check_input(messages), parameters=request_parameters)
        services = self._services
        record = services.ask(
            chosen,
            call,
            stream_options,
            request_options,
            stream_id=stream_id,
            metadata=metadata,
            on_orphan=on_orphan,
            restart=restart,
            fallback=fallback,
        )
        return Stream(record, services.call_timeout)

    chat = create_chat_token_stream

    async def achat(self, model: str, messages: str | Sequence[Mapping[str, Any]], **arguments: Any) -> Stream:
        """The same as `chat`, in a thread, so that the event loop is not blocked while the stream is opened.

        ``arguments`` and errors are those of `create_chat_token_stream`. If the task is cancelled before the stream is
        returned, the stream is cancelled.
        """
        return await _opened(partial(self.chat, model, messages, **arguments))

    async def arespond(self, input: Any, model: str, **arguments: Any) -> Stream:
        """The same as `respond`, as `achat` is for `chat`."""
        return await _opened(partial(self.respond, input, model, **arguments))

    def create_response_token_stream(
        self,
        input: Any,
        model: str,
        *,
        options: StreamOptions | None = None,
        provider: str | Provider | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        stream_id: str | None = None,
        on_orphan: OnOrphan = "cancel",
        restart: Restart = "temporary",
        request_options: RequestOptions | None = None,
        fallback: Sequence[str] | None = None,
        token_buffer_size: int | None = None,
        token_batch_size: int | Literal["adaptive"] | None = None,
        token_flush_interval: float | None = None,
        **request_parameters: Any,
    ) -> Stream:
        """Ask a model over OpenAI's Responses API, and stream its answer. ``input`` is a text or a list of items.

        A provider without such an API is asked over its chat API, if ``input`` is a text or messages.

        ``options`` None takes the settings' ``response`` group: 100/10/100 ms, without a rate limit. For the other
        arguments and errors see `create_chat_token_stream`.
        """
        self._check_process()
        chosen = self._catalogue.find(provider, _check_model(model), base_url, api_key, responses=True)
        stream_options = _adjust(
            options or self.settings.response, token_buffer_size, token_batch_size, token_flush_interval
        )
        call = ChatCall(model=chosen.model, input=input, parameters=request_parameters)
        services = self._services
        record = services.ask(
            chosen,
            call,
            stream_options,
            request_options,
            stream_id=stream_id,
            metadata=metadata,
            on_orphan=on_orphan,
            restart=restart,
            responses=True,
            fallback=fallback,
        )
        return Stream(record, services.call_timeout)

    respond = create_response_token_stream
    agent = create_agent
    provider = create_client

    def batch(
        self,
        prompts: Iterable[PromptForm],
        *,
        concurrency: int = 10,
        retries: int | None = None,
        on_result: Callable[[BatchResult], object] | None = None,
        max_cost: float | None = None,
        **how: Any,
    ) -> BatchResults:
        """Ask many prompts, a few at a time; iterate the result to get each answer as it comes.

        What would fail for every prompt ends the run, and the others are not asked: a wrong key (401, 403), an unknown
        model, an exhausted quota. A 429 pauses all starts for as long as the provider asks. `BatchResults.stopped` says
        why no more were started; prompts that were not answered then have no result.

        Args:
            prompts: texts; lists of messages; or mappings with ``prompt`` or ``messages`` and, if needed, ``id``,
                ``system``, ``model``, ``params`` and ``metadata``, or with the fields of OpenAI's Batch API. Any
                iterable; at most twice ``concurrency`` are read before they are answered. One that is neither a list
                nor a tuple is read in a thread of its own.
            model: for prompts without one; None takes the setting of the provider.
            concurrency: calls at once, 1 … 10,000.
            retries: further attempts of a prompt after a retryable failure, also one in the middle of its answer,
                0 … 100; None takes ``max_retries`` of the request options. A 429 does not count as an attempt.
            on_result: called with each result before the iterator gives it, in the thread that iterates.
            max_cost: nothing more is started once so much has been spent. Calls under way go on, so the cost may
                exceed it by that of ``concurrency`` answers. Answers without a known price count as nothing.
            max_errors: nothing more is started once more prompts than that have failed.
            ordered: start nothing that is ``concurrency`` or more after the first prompt that has no result yet.
            total: the number of prompts, for `BatchResults.progress`; None takes the length of a list.
            request_options: as for `chat`. ``on_interrupt="fail"`` becomes ``"restart"``.
            **how: other arguments of `chat`: ``provider``, ``base_url``, ``temperature`` …

        Raises:
            OptionError: an argument is not allowed.
        """
        from penstock.toolbox.batch.running import start_batch

        return start_batch(
            self, prompts, concurrency=concurrency, retries=retries, on_result=on_result, max_cost=max_cost, **how
        )

    def stream(self, stream_id: str) -> Stream:
        """The stream with that id, which runs or has ended not longer than ``keep_finished`` ago.

        With a log store, also one that ended longer ago, or in a former process, as long as the store keeps it.

        Raises:
            StreamNotFound: there is none.
            StoreError: the log store cannot be read.
        """
        self._check_process()
        return Stream(self._table.get(stream_id), self.settings.runtime.call_timeout)

    # --- many streams ------------------------------------------------------------------------------------------------

    def merge(self, *streams: Stream | Mapping[str, Stream], **how: Any) -> Stream:
        """Open a stream of the events of several streams, each with its ``origin``; see `penstock.merge`."""
        from penstock.toolbox.merge import merge

        return merge(*streams, system=self, **how)

    def race(self, *factories: Callable[..., Any], **how: Any) -> Stream:
        """Open a stream of the fastest of several streams; see `penstock.race`."""
        from penstock.toolbox.race import race

        return race(*factories, system=self, **how)

    def hedge(self, factory: Callable[..., Any], **how: Any) -> Stream:
        """Open a stream of a call that is made a second time if it is slow to begin; see `penstock.hedge`."""
        from penstock.toolbox.hedge import hedge

        return hedge(factory, system=self, **how)

    def with_retry(self, factory: Callable[..., Any], **how: Any) -> Stream:
        """Open a stream that is made anew when it fails; see `penstock.with_retry`."""
        from penstock.toolbox.retry import with_retry

        return with_retry(factory, system=self, **how)

    def as_completed(self, streams: Iterable[Stream], timeout: float | None = None) -> Iterator[Stream]:
        """The streams in the order in which they end; see `penstock.as_completed`."""
        from penstock.toolbox.waiting import as_completed

        return as_completed(streams, timeout)

    def gather(self, streams: Iterable[Stream], timeout: float | None = None) -> list[StreamCompleted | PenstockError]:
        """Wait for all streams; returns their results in order, errors in place; see `penstock.gather`."""
        from penstock.toolbox.waiting import gather

        return gather(streams, timeout)

    def cancel(self, stream_id: str, reason: str | None = None, timeout: float | None = None) -> None:
        """Cancel the stream with that id. Harmless if it has ended.

        Raises:
            StreamNotFound: there is none.
            CallTimeout: it did not answer within ``timeout`` seconds (None: the setting ``call_timeout``).
        """
        self.stream(stream_id).cancel(reason, timeout)

    def cancel_all(
        self,
        reason: str | None = None,
        *,
        where: Callable[[Stream], object] | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Cancel all running streams, or those for which ``where`` is true, at the same time; returns their ids.

        Args:
            reason: for their `StreamCancelled` events.
            where: gets each running `Stream`; its ``metadata`` may say what it is for. If it raises, none is cancelled.
            timeout: seconds to wait for their ends; None takes the setting ``call_timeout``. Those that take longer end
                later.
        """
        from penstock.toolbox.ending import cancel_all

        return cancel_all(self._services, reason, where, timeout)

    def drain(
        self, timeout: float, reason: str | None = "the system is being drained"
    ) -> dict[str, TerminalEvent | None]:
        """Open no new streams, wait for those that run, and cancel those that still run after ``timeout`` seconds.

        Returns the terminal event of each stream that ran, by id, oldest first; None for one that did not even end when
        it was cancelled. From then on every attempt to open a stream raises `SystemDraining`, except that the streams
        that run may make their further attempts (`race`, `hedge`, `with_retry`). It cannot be undone; call `stop` next.

        In a cluster, streams whose calls may begin again (``on_interrupt``) are first handed to other nodes. For the
        readers in this process they end in `StreamFailed` with `Fenced`.

        Args:
            timeout: 0 … 86,400; 0 cancels all at once.
            reason: for the `StreamCancelled` events.
        """
        from penstock.toolbox.ending import drain

        services = self._services
        if self._node is not None and timeout > 0:
            self._node.drain(timeout)
        return drain(services, timeout, reason)

    # --- processes of your own ---------------------------------------------------------------------------------------

    def start_child(self, spec: ChildSpec, *, timeout: float | None = None) -> ProcessRef | None:
        """Start a process or a supervisor of your own under the system's supervision tree.

        It is drawn in `tree` below ``user``, restarted as its specification says, and ended before the streams when
        the system stops. If it crashes more than three times in five seconds it is removed; nothing else is affected.
        A subscriber that is restarted goes on with the event after the last one it had. Classes and functions for it
        are in `penstock.otp`.

        Args:
            spec: the specification; its ``id`` is unique among your own processes.
            timeout: seconds to wait for its start; None takes the setting ``call_timeout``.

        Returns its ref, or None if its ``init`` returned `IGNORE`.

        Raises:
            SupervisorError: ``already_started``: a process with this id runs; ``invalid_child_spec``.
            StartError: it did not start.
            CallTimeout: it took too long.
            SystemStopped: the system has been stopped.
            Exception: what its start raised.
        """
        try:
            started: ProcessRef | None = self._ask_user_supervisor(StartChild(spec), timeout)
        except SupervisorError as error:  # by a request whose answer was lost?
            if error.code == "already_started" and self._user_specs.find(spec.id) is spec:
                return error.detail if isinstance(error.detail, ProcessRef) else None
            raise
        return started

    def terminate_child(self, id: str, *, timeout: float | None = None) -> None:
        """End a process of your own, and forget its specification. Returns when it is dead.

        Raises:
            SupervisorError: ``not_found``.
            CallTimeout: it took too long.
            SystemStopped: the system has been stopped.
        """
        self._ask_user_supervisor(TerminateChild(id), timeout)

    def _ask_user_supervisor(self, message: StartChild | TerminateChild, timeout: float | None) -> Any:
        check_number("timeout", timeout, 0, 86_400, optional=True)
        services = self._services

        def find() -> ProcessRef | None:
            services.check_running()
            return services.runtime.whereis(USER)

        limit = services.call_timeout if timeout is None else timeout
        return ask_until_back(services.runtime, find, message, limit, "the supervisor of the user's processes")

    # --- looking -----------------------------------------------------------------------------------------------------

    def get_active_streams(self) -> list[StreamInfo]:
        """All running streams, oldest first. Never blocks."""
        self._check_process()
        return [stream_info(record) for record in self._table.all() if not record.is_over]

    def get_stream_info(self, stream_id: str) -> StreamInfo:
        """One stream with its subscribers and statistics. Never blocks.

        Raises:
            StreamNotFound: there is none.
        """
        self._check_process()
        return stream_info(self._table.get(stream_id))

    def get_stream_summaries(self) -> list[StreamSummary]:
        """The most important facts about all running streams, oldest first. Never blocks."""
        self._check_process()
        return [stream_summary(record) for record in self._table.running()]

    def get_model_statistics(self) -> tuple[ModelStatistics, ...]:
        """Counts, costs and histograms of times for each provider and model, of running and ended streams.

        At most 257. Never blocks; takes some microseconds for each running stream.
        """
        self._check_process()
        return self._table.by_model()

    def statistics(self) -> SystemStatistics:
        """Counts of streams, tokens, messages, threads, dead letters."""
        return system_statistics(self._services)

    def cluster_view(self) -> ClusterView:
        """The cluster as this node sees it: nodes, streams, leases, the store. It asks the store.

        Raises:
            OptionError: there is no cluster.
        """
        if self._cluster is None:
            raise OptionError("cluster", None, "a ClusterOptions, when the system is made")
        self._services  # noqa: B018 - it starts the system
        assert self._node is not None
        return self._node.view()

    def tree(self) -> Tree:
        """The supervision tree at this moment; ``print`` draws it."""
        return draw_tree(self.runtime, _ROOT, self.settings.runtime.call_timeout)


def _start(system: System) -> Services:
    """Make everything, and start the supervision tree."""
    settings, journal, cluster = system.settings, system._journal, system._cluster
    # First: nothing has to be ended if it cannot be opened.
    store, number = _store_of(journal, settings.store, cluster), 0
    if store is not None:
        try:
            number = store.new_number()
        except BaseException:
            if store is not journal:
                store.close()
            raise
    runtime = system._given_runtime or _new_runtime(settings.runtime)
    services = Services(
        settings,
        runtime,
        system._given_reader or make_reader(settings.runtime, (hold_wakes, release_wakes)),
        catalogue=system._catalogue,
        prices=system._prices,
        journal=None if isinstance(journal, LogStore) else journal,
        writer=None if store is None else _writer_to(store, runtime, number, cluster),
        streams=system._table,
        agents=system._agents,
        quota=system._tool_quota,
    )
    more: list[ChildSpec] = []
    if cluster is not None:
        assert services.writer is not None
        system._node = node = ClusterNode(services, services.writer, cluster)
        more.append(cluster_child(node))
        services.streams.load, services.leave = node.load, node.close
        services.streams.observe(node)
        if cluster.share_limits:
            services.gates.share(services.writer.store.take)
    children = system_children(system._names, system._table, system._agents, system._user_specs, *more)
    services.root = runtime.spawn(Supervisor, children, _FLAGS, name=_ROOT)
    return _recover(services, *system._owns)


async def _opened(open_stream: Callable[[], Stream]) -> Stream:
    """Open a stream in a thread. If the task is cancelled meanwhile, so is the stream."""
    loop, context = running_loop(), contextvars.copy_context()
    opening = loop.run_in_executor(None, partial(context.run, open_stream))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_cancel_opened)
        raise


def _cancel_opened(opening: asyncio.Future[Stream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().sink().cancel("the caller stopped waiting")


def _close(services: Services, owns_reader: bool, owns_runtime: bool, left: Callable[[], float]) -> int:
    """End everything that the tree runs on; returns the number of threads that did not end."""
    runtime = services.runtime
    end_all(services.streams, services.agents, SHUTDOWN)  # those that have not ended in time
    leaked = 0 if services.writer is None else not _close_store(services, services.writer, left)
    leaked += services.reader.close(max(_LAST_MOMENT, left())) if owns_reader else 0
    leaked += not services.catalogue.close()
    leaked += not services.loop_thread.close(max(_LAST_MOMENT, left()))
    if owns_runtime:
        runtime.close()
        leaked += runtime.dispatcher.close(max(_LAST_MOMENT, left()))
        assert isinstance(runtime.timers, TimerThread)
        leaked += not runtime.timers.close(max(_LAST_MOMENT, left()))
    return leaked


def _recover(services: Services, owns_reader: bool, owns_runtime: bool) -> Services:
    """Start the sentinel, and take care of the streams that a former process has left in the log store."""
    services.runtime.spawn(Sentinel, services.root, services.streams, services.agents)
    if services.writer is None or services.streams.has_store:  # in a cluster, the node does the rest
        return services
    services.streams.load = partial(load_stream, services)
    try:
        recover(services)
        if services.writer.leases is not None:
            services.writer.leases.start(partial(recover, services))
    except BaseException:
        assert services.root is not None
        services.runtime.exit(services.root, KILL)
        _close(services, owns_reader, owns_runtime, lambda: _PATIENCE)
        raise
    return services


def _close_store(services: Services, writer: StoreWriter, left: Callable[[], float]) -> bool:
    """Write what waits, leave the cluster, and close the store; returns whether that was done in time."""
    is_done = writer.close(max(_PATIENCE, left()))
    services.leave()
    writer.store.close()
    return is_done


def _cluster_of(
    given: ClusterOptions | None, settings: Settings, journal: Journal | LogStore | None
) -> ClusterOptions | None:
    """The options of the cluster; None: there is none.

    Raises:
        OptionError: there is no store that several systems can share.
    """
    if given is not None and not isinstance(given, ClusterOptions):
        raise OptionError("cluster", type(given).__name__, "a ClusterOptions or None")
    options = given if given is not None else settings.cluster
    if given is None and options.url is None:
        return None
    if isinstance(journal, LogStore):
        if not journal.is_shared:
            raise OptionError("journal", journal.name, "a store that several systems share, such as a ValkeyJournal")
    elif journal is not None or options.url is None:
        raise OptionError("cluster.url", options.url and "…", "the URL of a server, or journal= with a shared store")
    return options


def _writer_to(store: LogStore, runtime: Runtime, number: int, cluster: ClusterOptions | None) -> StoreWriter:
    if cluster is None:
        return StoreWriter(store, runtime.clock, number=number)
    node = node_name(cluster)
    return StoreWriter(store, runtime.clock, number=number, node=node, lease=cluster.lease, holds_back=True)


def _store_of(
    given: Journal | LogStore | None, options: StoreOptions, cluster: ClusterOptions | None
) -> LogStore | None:
    """The log store that is given, or that the settings ask for."""
    if cluster is not None and not isinstance(given, LogStore):
        from penstock.adapters.journals.valkey import ValkeyJournal  # an extra

        assert cluster.url is not None
        return ValkeyJournal(cluster.url, durability=cluster.durability, owner_wait=cluster.lease + 1)
    if given is not None or options.path is None:
        return given if isinstance(given, LogStore) else None
    from penstock.adapters.journals.sqlite import (
        SqliteJournal,  # sqlite3 need not be loaded by those that do not use it
    )

    return SqliteJournal(
        options.path,
        durability=options.durability,
        synchronous=options.synchronous,
        keep=options.keep,
        max_bytes=options.max_bytes,
    )


def _abandoned(services: Services, owns_reader: bool, owns_runtime: bool) -> None:
    """End what a system has left that was dropped without `System.stop`. Called by the garbage collector, anywhere."""
    if is_forked(services.runtime.dispatcher):
        return

    def end() -> None:
        runtime, root = services.runtime, services.root
        try:
            close_agents(services.agents)
            end_all(services.streams, services.agents, _DROPPED)
            if root is not None:  # a clean end: its children have not crashed
                root.stop(block=False)
                if not runtime.join(root, _PATIENCE):
                    runtime.exit(root, KILL)
        finally:
            _close(services, owns_reader, owns_runtime, lambda: _PATIENCE)

    services.is_stopped = True
    threading.Thread(target=end, name="penstock-end", daemon=True).start()  # the collector's thread may hold any lock
    warnings.warn("a System was dropped without stop(); its streams end now", ResourceWarning, stacklevel=2)


def _check_model(model: object) -> str:
    if not isinstance(model, str) or not model:
        raise OptionError("model", model, "a model's name")
    return model


def _adjust(
    options: StreamOptions,
    buffer_size: int | None,
    batch_size: int | Literal["adaptive"] | None,
    flush_interval: float | None,
) -> StreamOptions:
    if not isinstance(options, StreamOptions):  # Ollama has a parameter of that name
        raise OptionError("options", type(options).__name__, "a StreamOptions or None")
    if buffer_size is batch_size is flush_interval is None:
        return options
    changes = {"max_buffer_size": buffer_size, "batch_size": batch_size, "flush_interval": flush_interval}
    return options.replace(**{name: value for name, value in changes.items() if value is not None})


def _new_runtime(options: RuntimeOptions) -> Runtime:
    dispatcher = ThreadedDispatcher(
        workers=options.workers,
        throughput=options.throughput,
        max_spares=options.max_spares,
        hold_warning=options.hold_warning,
    )
    return Runtime(dispatcher, TimerThread(), SystemClock())
