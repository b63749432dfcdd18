"""`System`: the composition root. Everything is wired here, and nowhere else.

The supervision tree::

    system  (rest_for_one)
    ├─ registry                names of plain Pykka actors
    ├─ streams   (dynamic)     one TokenStream per stream
    ├─ sources   (dynamic)     one Integration per provider request
    ├─ tools     (dynamic)     one Task per function call that runs
    ├─ agents    (dynamic)     one AgentProcess per agent
    ├─ handler                 who reads what; clean-up
    ├─ keeper                  what becomes of agents
    └─ reaper                  once a second: what nobody announces
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from penstock.actors.agent.record import AgentTable
from penstock.actors.agent.task import Places
from penstock.actors.call.record import Source
from penstock.actors.runtime.clock import SystemClock, TimerThread
from penstock.actors.runtime.dispatcher import ThreadedDispatcher, on_worker
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import KILL, SHUTDOWN
from penstock.actors.stream.record import StreamRecord, StreamTable
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.providers.catalogue import Catalogue, ProviderChoice
from penstock.adapters.providers.chat_calls import check_input
from penstock.agent import create_agent
from penstock.config.logs import get_logger
from penstock.config.options import (
    OnOrphan,
    RequestOptions,
    Restart,
    StreamOptions,
    check_choice,
    check_metadata,
    check_number,
    check_on_orphan,
)
from penstock.config.prices import PriceTable
from penstock.config.settings import Settings
from penstock.errors import OptionError, SystemStopped
from penstock.events import FrozenDict
from penstock.inspection import StreamInfo, SystemStatistics, Tree, draw_tree, stream_info, system_statistics
from penstock.ports import ChatCall, Journal, Provider, Reader
from penstock.provider_client import create_client
from penstock.services import Asking
from penstock.stream import Stream
from penstock.supervisors.registry import Names
from penstock.supervisors.spec import SupervisorFlags
from penstock.supervisors.supervisor import Supervisor
from penstock.supervisors.system.agents import close_agents
from penstock.supervisors.system.handler import ask_for_stream
from penstock.supervisors.system.sentinel import Sentinel, end_all, stop_streams
from penstock.supervisors.system.tree import system_children

__all__ = ["System"]

_ROOT: Final = "system"
_LAST_MOMENT: Final = 0.1  # seconds for each group of threads to end when the time for stopping is over


class System:
    """Supervised token streams for one application. Start as many systems as you like; they share nothing.

    Use it as a context manager, or call `start` (the first use does) and `stop`.

    Args:
        settings: None reads the environment and ``penstock.toml`` (`Settings.load`).
        runtime: a runtime of your own, e.g. a simulated one; the system then does not close it.
        reader: what runs provider requests; None makes an `HttpReader`.
        providers: more providers by name, each a function of ``api_key`` and ``base_url``, or a ready `Provider`.
        journal: where all events of all streams are stored, unless a stream has its own.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        runtime: Runtime | None = None,
        reader: Reader | None = None,
        providers: Mapping[str, Callable[..., Provider] | Provider] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.settings = settings if settings is not None else Settings.load()
        if not isinstance(self.settings, Settings):
            raise OptionError("settings", type(settings), "a Settings, or None; Settings.load(path) reads a file")
        self._table = StreamTable()
        self._agents = AgentTable()
        self._tool_places = Places(max(1, self.settings.runtime.max_spares // 2))
        self._names = Names()
        self._journal = journal
        self._catalogue = Catalogue(self.settings, providers or {})
        self._prices = PriceTable.load(self.settings.prices)
        self._given_runtime = runtime
        self._given_reader = reader
        self._lock = threading.RLock()
        self._runtime: Runtime | None = None
        self._reader: Reader | None = None
        self._asking: Asking | None = None
        self._root: ProcessRef | None = None
        self._stopped = False
        self._stop_is_done = threading.Event()

    # --- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the supervision tree. Harmless if it runs.

        Raises:
            SystemStopped: it has been stopped; make a new one.
        """
        with self._lock:
            if self._stopped:
                raise SystemStopped()
            if self._root is None:
                self._runtime = self._given_runtime or self._make_runtime()
                self._reader = self._given_reader or HttpReader(
                    self.settings.runtime.reader_threads, max_queue=self.settings.runtime.reader_queue
                )
                self._asking = Asking(self.settings, self._catalogue, self._prices, self._runtime.clock, self._reader)
                children = system_children(self._names, self._table, self._agents)
                flags = SupervisorFlags(strategy="rest_for_one", intensity=50, period=5.0)
                self._root = self._runtime.spawn(Supervisor, children, flags, name=_ROOT)
                self._runtime.spawn(Sentinel, self._root, self._table, self._agents, self._runtime.clock)
        return self

    def _make_runtime(self) -> Runtime:
        options = self.settings.runtime
        dispatcher = ThreadedDispatcher(
            workers=options.workers,
            throughput=options.throughput,
            max_spares=options.max_spares,
            hold_warning=options.hold_warning,
        )
        return Runtime(dispatcher, TimerThread(), SystemClock())

    def stop(self, timeout: float | None = None) -> int:
        """Flush and end all streams in the order they were opened, then everything else.

        A stream whose provider had not finished ends in `StreamCancelled` after what it had is let out. Returns the
        number of threads that did not end within ``timeout`` seconds (default: the setting ``shutdown_timeout``).
        Harmless if it has been stopped.
        """
        check_number("timeout", timeout, 0, 86_400, optional=True)
        limit = self.settings.runtime.shutdown_timeout if timeout is None else timeout
        with self._lock:
            first, self._stopped = not self._stopped, True
            runtime, reader, root = self._runtime, self._reader, self._root
        if not first:
            if not on_worker():  # an actor's thread is what the other one waits for
                self._stop_is_done.wait(limit + _LAST_MOMENT)
            return 0
        try:
            leaked = 0
            if runtime is not None and reader is not None and root is not None:
                leaked = self._stop_all(runtime, reader, root, limit)
        finally:
            self._stop_is_done.set()
        if leaked:
            get_logger().warning("threads_leaked", count=leaked)
        return leaked

    def _stop_all(self, runtime: Runtime, reader: Reader, root: ProcessRef, limit: float) -> int:
        deadline = runtime.clock.monotonic() + limit

        def left() -> float:
            return max(0.0, deadline - runtime.clock.monotonic())

        try:
            close_agents(self._agents)
            stop_streams(self._table, left)
            root.stop(block=False)
            if not runtime.join(root, left()):
                runtime.exit(root, KILL)
        except BaseException:  # Ctrl-C: at once, then, but whole
            runtime.exit(root, KILL)
            self._close(runtime, reader, lambda: 0.0)
            raise
        return self._close(runtime, reader, left)

    def _close(self, runtime: Runtime, reader: Reader, left: Callable[[], float]) -> int:
        """End what is below the tree; returns how many threads would not."""
        end_all(self._table, self._agents, runtime.clock, SHUTDOWN)  # whatever did not end within its time
        leaked = reader.close(max(_LAST_MOMENT, left())) if self._given_reader is None else 0
        leaked += not self._catalogue.close()
        if self._given_runtime is None:
            runtime.close()
            leaked += runtime.dispatcher.close(max(_LAST_MOMENT, left()))
            assert isinstance(runtime.timers, TimerThread)
            leaked += not runtime.timers.close(max(_LAST_MOMENT, left()))
        return leaked

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_running(self) -> None:
        if self._stopped or (self._root is not None and not self.runtime.is_alive(self._root)):
            raise SystemStopped()

    @property
    def runtime(self) -> Runtime:
        """What the system's processes run on; starts the system if need be."""
        self.start()
        assert self._runtime is not None
        return self._runtime

    # --- streams -------------------------------------------------------------------------------------------------

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
            stream_id: its id; None makes one up.
            options: None takes the settings' ``stream`` group.
            metadata: comes back in every event.
            on_orphan: what happens when its last subscriber leaves: ``"continue"``, ``"cancel"``, or seconds to
                linger before that.
            restart: ``"temporary"`` ends it with `StreamFailed` if its actor crashes, ``"transient"`` restarts the
                actor from the log: no gap, no duplicate.
            journal: where its events are stored before anybody hears of them.
            timeout: seconds to wait for its start; None takes the setting ``call_timeout``.

        Raises:
            StreamExists: a running stream has that id.
            OptionError: an argument is not allowed.
            SystemStopped: the system has been stopped.
        """
        return self._open(
            stream_id, options or self.settings.stream, metadata, on_orphan, restart, journal, None, timeout
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
        token_batch_size: int | None = None,
        token_flush_interval: float | None = None,
        **request_parameters: Any,
    ) -> Stream:
        """Ask a model, and stream its answer. Returns as soon as the stream runs, before the provider answers.

        Args:
            model: the model's name; ``"anthropic/claude-…"`` chooses the provider too, where nothing else does.
            messages: the conversation: ``[{"role": "user", "content": "Hello"}]``, whoever the provider is; or what the
                user says.
            options: None takes the settings' ``chat`` group: 50/5/50 ms and the provider's own pace.
            provider: a name, or a `Provider`; None takes the setting.
            base_url: where the provider is; None takes the setting, then the provider's own.
            api_key: None takes the setting, then the provider's environment variable.
            metadata: as for `open_stream`.
            stream_id: as for `open_stream`.
            on_orphan: as for `open_stream`; by default the provider's call is cancelled when the last one has left.
            restart: as for `open_stream`.
            request_options: time-outs and retries; None takes the settings' ``request`` group.
            fallback: models to ask when this one has failed, instead of those in ``request_options``.
            token_buffer_size: instead of ``max_buffer_size`` in ``options``.
            token_batch_size: instead of ``batch_size`` in ``options``.
            token_flush_interval: instead of ``flush_interval`` in ``options``; seconds.
            **request_parameters: go into the request as they are (``temperature=0.2`` …).

        Raises:
            OptionError: an argument is not allowed, or there is no key.
            StreamExists, SystemStopped: as for `open_stream`.
        """
        chosen = self._catalogue.find(provider, _check_model(model), base_url, api_key)
        stream_options = _adjust(
            options or self.settings.chat, token_buffer_size, token_batch_size, token_flush_interval
        )
        call = ChatCall(model=chosen.model, input=check_input(messages), parameters=request_parameters)
        source = self._make_source(chosen, request_options, call, fallback=fallback)
        return self._open(stream_id, stream_options, metadata, on_orphan, restart, None, source, None)

    chat = create_chat_token_stream

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
        token_batch_size: int | None = None,
        token_flush_interval: float | None = None,
        **request_parameters: Any,
    ) -> Stream:
        """The same over OpenAI's Responses API: ``input`` is a text or a list of items.

        A provider that has nothing like it is asked over its chat, if ``input`` is text or messages.

        ``options`` None takes the settings' ``response`` group: 100/10/100 ms and the provider's own pace. For the
        other arguments and errors see `create_chat_token_stream`.
        """
        chosen = self._catalogue.find(provider, _check_model(model), base_url, api_key, responses=True)
        stream_options = _adjust(
            options or self.settings.response, token_buffer_size, token_batch_size, token_flush_interval
        )
        call = ChatCall(model=chosen.model, input=input, parameters=request_parameters)
        source = self._make_source(chosen, request_options, call, responses=True, fallback=fallback)
        return self._open(stream_id, stream_options, metadata, on_orphan, restart, None, source, None)

    respond = create_response_token_stream
    agent = create_agent
    provider = create_client

    def stream(self, stream_id: str) -> Stream:
        """The stream with that id, running or ended not longer than ``keep_finished`` ago.

        Raises:
            StreamNotFound: there is none.
        """
        return Stream(self._table.get(stream_id), self.settings.runtime.call_timeout)

    # --- looking -------------------------------------------------------------------------------------------------

    def get_active_streams(self) -> list[StreamInfo]:
        """All running streams, oldest first. Waits for nobody."""
        return [stream_info(record) for record in self._table.all() if not record.is_over]

    def get_stream_info(self, stream_id: str) -> StreamInfo:
        """One stream with its subscribers and statistics. Waits for nobody.

        Raises:
            StreamNotFound: there is none.
        """
        return stream_info(self._table.get(stream_id))

    def statistics(self) -> SystemStatistics:
        """Counts of streams, tokens, messages, threads, dead letters."""
        runtime, gates = self.runtime, self._asking.gates if self._asking is not None else None
        return system_statistics(self._table, self._agents, runtime, self._reader, gates)

    def tree(self) -> Tree:
        """The supervision tree as it is now; ``print`` draws it."""
        return draw_tree(self.runtime, _ROOT, self.settings.runtime.call_timeout)

    # --- within --------------------------------------------------------------------------------------------------

    def _make_source(
        self,
        found: ProviderChoice,
        options: RequestOptions | None,
        call: ChatCall,
        conductor: ProcessRef | None = None,
        **more: Any,
    ) -> Source:
        """See `Asking.source`."""
        self.start()
        assert self._asking is not None
        return self._asking.source(found, call, options, conductor=conductor, **more)

    def _open(
        self,
        stream_id: str | None,
        options: StreamOptions,
        metadata: Mapping[str, Any] | None,
        on_orphan: OnOrphan,
        restart: Restart,
        journal: Journal | None,
        source: Source | None,
        timeout: float | None,
    ) -> Stream:
        if stream_id is None:
            stream_id = f"s-{uuid.uuid4().hex[:16]}"
        elif not isinstance(stream_id, str) or not 0 < len(stream_id) <= 256 or not stream_id.isprintable():
            raise OptionError("stream_id", stream_id, "1 to 256 printable characters, or None")
        if not isinstance(options, StreamOptions):
            raise OptionError("options", options, "a StreamOptions or None")
        check_on_orphan(on_orphan)
        check_metadata(metadata)
        check_choice("restart", restart, ("temporary", "transient"))
        check_number("timeout", timeout, 0, 86_400, optional=True)

        def make() -> StreamRecord:
            return StreamRecord(
                self.runtime,
                stream_id,
                options,
                metadata=FrozenDict(metadata or {}),
                on_orphan=on_orphan,
                restart=restart,
                journal=journal or self._journal,
                source=source,
            )

        limit = self.settings.runtime.call_timeout if timeout is None else timeout
        record = ask_for_stream(self.runtime, make, limit, self._check_running)
        return Stream(record, self.settings.runtime.call_timeout)


def _check_model(model: object) -> str:
    if not isinstance(model, str) or not model:
        raise OptionError("model", model, "a model's name")
    return model


def _adjust(
    options: StreamOptions, buffer_size: int | None, batch_size: int | None, flush_interval: float | None
) -> StreamOptions:
    if not isinstance(options, StreamOptions):  # Ollama has a parameter of that name
        raise OptionError("options", type(options).__name__, "a StreamOptions or None")
    changes = {"max_buffer_size": buffer_size, "batch_size": batch_size, "flush_interval": flush_interval}
    return options.replace(**{name: value for name, value in changes.items() if value is not None})
