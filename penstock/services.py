"""The services that the handles of one system share: settings, runtime, reader, catalogue, prices, gates, tables."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from penstock.actors.agent.coroutines import ToolLoops
from penstock.actors.agent.table import AgentTable
from penstock.actors.call.gate_table import GateTable
from penstock.actors.call.record import CallRecord, Candidate, Conductor
from penstock.actors.runtime.dispatcher import blocking, check_process, is_forked
from penstock.actors.runtime.loop_thread import LoopThread
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.quota import ThreadQuota
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.feed import Feed
from penstock.actors.stream.heads import StreamHead, kept_options, new_sse_epoch
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.storing import StoredLog, StoreWriter
from penstock.actors.stream.table import StreamTable
from penstock.adapters.providers.call_options import take_call_options
from penstock.adapters.providers.catalogue import Catalogue, ProviderChoice
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.adapters.providers.shared.blocks import count_foreign_blocks
from penstock.config.checks import check_choice, check_metadata, check_number, check_on_orphan
from penstock.config.options import OnOrphan, RequestOptions, Restart, StreamOptions
from penstock.config.prices import PriceTable
from penstock.config.secret import Secret
from penstock.config.settings import Settings
from penstock.config.surrogates import is_plain_json, mend_surrogates
from penstock.errors import OptionError, StoreUnavailable, StreamExists, SystemDraining, SystemStopped
from penstock.events import FrozenDict
from penstock.ports import EMPTY, ChatCall, EntryId, Journal, LogFrame, Reader, Request
from penstock.ports.messages import check_finite, check_items, check_messages
from penstock.supervisors.system.opening import StreamOpener

__all__ = ["HasServices", "Services", "as_attempt"]


class _Attempt(NamedTuple):
    may_retry: bool = True
    is_further: bool = False


_NO_METADATA: Final = FrozenDict()
_REMEMBERED: Final = 256
"""Models whose prices, and providers whose limits, are looked up once: the table of prices has many patterns."""


def _nothing() -> None:
    pass


_attempt: ContextVar[_Attempt] = ContextVar("attempt", default=_Attempt())  # noqa: B039 - a tuple does not change


@contextlib.contextmanager
def as_attempt(*, may_retry: bool, is_further: bool = True) -> Iterator[None]:
    """Open the streams within as attempts of a derived stream.

    Args:
        may_retry: False: their calls are not repeated, whatever the options say, since the derived stream does that.
        is_further: whether the derived stream runs, so that they are opened although the system is being drained.
    """
    before = _attempt.get()
    token = _attempt.set(_Attempt(may_retry and before.may_retry, is_further or before.is_further))
    try:
        yield
    finally:
        _attempt.reset(token)


_all: weakref.WeakSet[Services] = weakref.WeakSet()  # of this process, for `_after_fork`


class Services:
    """Everything that streams, agents and clients of one system need. Made by the system when it starts.

    Args:
        settings: of the system.
        runtime: the processes run on it.
        reader: runs provider requests.
        catalogue: finds providers by name.
        prices: of the models.
        journal: of streams that have no journal of their own.
        writer: writes the logs of all other streams to a log store; None: there is none.
        streams, agents: the tables.
        quota: the threads that all tools together may hold.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        reader: Reader,
        *,
        catalogue: Catalogue,
        prices: PriceTable,
        journal: Journal | None,
        writer: StoreWriter | None = None,
        streams: StreamTable,
        agents: AgentTable,
        quota: ThreadQuota,
    ) -> None:
        self.settings = settings
        self.runtime = runtime
        self.reader = reader
        self.catalogue = catalogue
        self._price_of = lru_cache(_REMEMBERED)(prices.find)
        self._limits_of = lru_cache(_REMEMBERED)(settings.limits)
        self.journal = journal
        self.writer = writer
        self.streams = streams
        self.agents = agents
        self.quota = quota
        self.leaked_sources = 0
        self.source_quota = ThreadQuota(max(1, settings.runtime.max_spares // 4))
        self.loop_thread = LoopThread()
        self.tool_loops = ToolLoops(self.loop_thread, runtime.dispatcher.blocks)
        self.gates = GateTable(runtime.clock, settings.breaker, settings.retry_budget)
        self.root: ProcessRef | None = None  # the root supervisor, once it is started
        self.is_stopped = False
        self.is_draining = False  # no stream is opened but the attempts of those that run
        self.opener = StreamOpener(runtime, streams)
        self.leave: Callable[[], object] = _nothing  # leaves the cluster, before the store is closed
        self._ids = StreamIds()
        _all.add(self)

    @property
    def call_timeout(self) -> float:
        """Seconds that a call to a process may take, unless the caller says otherwise."""
        return self.settings.runtime.call_timeout

    def check_running(self) -> None:
        """Raise if the system cannot be used.

        Raises:
            SystemForked: it was started in the process that this one is a fork of.
            SystemStopped: it has been stopped, or its supervision tree has ended.
        """
        check_process(self.runtime.dispatcher)
        if self.is_stopped or (self.root is not None and not self.runtime.is_alive(self.root)):
            raise SystemStopped()

    def new_id(self) -> str:
        """An id for a stream that was given none."""
        return self._ids.next()

    def note_leak(self) -> None:
        """Count a source that did not end in time. Any thread."""
        self.leaked_sources += 1

    def open_stream(
        self,
        stream_id: str | None,
        options: StreamOptions,
        *,
        metadata: Mapping[str, Any] | None,
        on_orphan: OnOrphan,
        restart: Restart = "temporary",
        journal: Journal | None = None,
        feed: Feed | None = None,
        redo: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] = _NO_METADATA,
        timeout: float | None = None,
    ) -> StreamRecord:
        """Open a stream and return its record; see `System.open_stream`.

        ``redo``, which `penstock.recovery` needs, and ``facts`` go into the stored log. In a cluster, this returns when
        the log is in the store.
        """
        if stream_id is None:
            stream_id = self._ids.next()
        elif not isinstance(stream_id, str) or not 0 < len(stream_id) <= 256 or not stream_id.isprintable():
            raise OptionError("stream_id", stream_id, "1 to 256 printable characters, or None")
        if not isinstance(options, StreamOptions):
            raise OptionError("options", options, "a StreamOptions or None")
        check_on_orphan(on_orphan)
        check_metadata(metadata)
        check_choice("restart", restart, ("temporary", "transient"))
        check_number("timeout", timeout, 0, 86_400, optional=True)

        if self.is_draining and not _attempt.get().is_further:
            raise SystemDraining()

        frozen = FrozenDict(metadata) if metadata else _NO_METADATA

        def make() -> StreamRecord:
            kept = journal or self.journal
            head = None
            if self.writer is not None and kept is None:
                head = StreamHead(
                    sse_epoch=new_sse_epoch(),
                    created_at=self.runtime.clock.time(),
                    metadata=frozen,
                    options=kept_options(options),
                    on_orphan=on_orphan,
                    restart=restart,
                    redo=redo,
                    facts=facts,
                )
                kept = self._begin_log(self.writer, stream_id, head)
            record = StreamRecord(
                self.runtime,
                stream_id,
                options,
                metadata=frozen,
                on_orphan=on_orphan,
                restart=restart,
                journal=kept,
                feed=feed,
                loop_thread=self.loop_thread,
                home=self,
            )
            record.head = head
            return record

        limit = self.call_timeout if timeout is None else timeout
        return self._findable(self.opener.open(make, limit, self.check_running), limit)

    def _findable(self, record: StreamRecord, timeout: float) -> StreamRecord:
        """Wait until other nodes can find a new stream.

        Raises:
            StreamExists: another node has opened one with the same id at the same time.
            StoreError: the store does not answer. The stream is cancelled.
        """
        stored = record.stored
        if stored is None or stored.opened is None:  # not in a cluster
            return record
        with blocking():
            is_open = stored.opened.wait(timeout)
        if (is_open or record.is_over) and not stored.is_fenced:
            return record
        record.propose(Cancel("its log could not be opened"))
        if stored.is_fenced:
            raise StreamExists(record.stream_id)
        assert self.writer is not None
        raise self.writer.last_error or StoreUnavailable(self.writer.store.name, "it has not answered in time")

    def _begin_log(self, writer: StoreWriter, stream_id: str, head: StreamHead) -> StoredLog:
        """Begin the log of a new stream. The log of an ended one with that id is forgotten.

        Raises:
            StreamExists: a running stream has that id.
            StoreError: the store has failed for too long, or cannot be read.
        """
        before = self.streams.peek(stream_id)
        if before is not None and not before.is_over:
            raise StreamExists(stream_id)
        if before is not None:
            writer.flush(self.call_timeout)
        tail = writer.store.tail(stream_id)
        if tail != EMPTY:
            if before is None and writer.store.is_shared and not _is_ended(writer, stream_id, tail):
                raise StreamExists(stream_id)
            writer.store.forget(stream_id)
        return writer.open(stream_id, head.metadata, head.encode(), tail=EMPTY, request=Request(stream_id, stream_id))

    def ask(
        self,
        found: ProviderChoice,
        call: ChatCall,
        options: StreamOptions,
        request_options: RequestOptions | None,
        *,
        stream_id: str | None,
        metadata: Mapping[str, Any] | None,
        on_orphan: OnOrphan,
        restart: Restart = "temporary",
        responses: bool = False,
        fallback: Sequence[str] | None = None,
        facts: Mapping[str, Any] = _NO_METADATA,
    ) -> StreamRecord:
        """Open the stream of a call's answer; see `System.chat`. ``facts`` as for `open_stream`.

        All of the model's parameters are in ``call``, so that none can have the name of an argument.
        """
        feed = self.call(found, call, request_options, responses=responses, fallback=fallback)
        may_go_on = self.writer is not None and feed.options.on_interrupt != "fail"
        return self.open_stream(
            stream_id,
            options,
            metadata=metadata,
            on_orphan=on_orphan,
            restart=restart,
            feed=feed,
            redo=_redo(found, feed, self._own_url(found, responses), responses=responses) if may_go_on else None,
            facts=facts,
        )

    def _own_url(self, found: ProviderChoice, responses: bool) -> str | None:
        """The provider's URL, if it is another one than the settings give."""
        url: str | None = getattr(found.provider, "base_url", None)
        try:
            usual = self.catalogue.find(found.name, found.model, responses=responses)
        except OptionError:  # the caller has made the provider
            return url
        return None if getattr(usual.provider, "base_url", None) == url else url

    def call(
        self,
        found: ProviderChoice,
        call: ChatCall,
        options: RequestOptions | None,
        *,
        responses: bool = False,
        conductor: Conductor | None = None,
        fallback: Sequence[str] | None = None,
    ) -> CallRecord:
        """Make the record of a call to ``found``, with the fallbacks of its options.

        Args:
            found: the provider and model to ask first.
            call: the request as the caller gave it, in the form of the Responses API if ``responses``.
            options: None takes the settings'.
            responses: whether to use the Responses API where the provider has it.
            conductor: as for `CallRecord`.
            fallback: models to use instead of the options' ``fallback``.

        Raises:
            OptionError: the messages have a form that no provider accepts; a request cannot be built, for the first
                model or a fallback; or a fallback is not known.
        """
        options = options or self.settings.request
        if not isinstance(options, RequestOptions):
            raise OptionError("request_options", type(options).__name__, "a RequestOptions or None")
        call, options = take_call_options(_checked(call, responses=responses), options)
        if fallback is not None:
            options = options.replace(fallback=fallback)
        if conductor is None and not _attempt.get().may_retry:
            options = options.replace(max_retries=0, on_interrupt="fail")
        if options.on_interrupt == "resume":
            call = msgspec.structs.replace(call, resumable=True)
        others = [self.catalogue.fallback(found, name, responses=responses) for name in options.fallback]
        foreign = _without_credentials(call)
        return CallRecord(
            [
                self._candidate(one, call if one.name == found.name else foreign, responses=responses)
                for one in (found, *others)
            ],
            options,
            self.reader,
            retry_budget=self.gates.retry_budget,
            conductor=conductor,
        )

    def _candidate(self, found: ProviderChoice, call: ChatCall, *, responses: bool) -> Candidate:
        call = msgspec.structs.replace(call, model=found.model, provider=found.name)
        if responses and not found.has_responses:
            call = to_chat_call(call)
        request = found.provider.request(call).extended(call)
        return Candidate(
            provider=found.provider,
            call=call,
            request=request,
            account=found.name,
            gate=self.gates.gate(
                found.account, getattr(found.provider, "base_url", ""), self._limits_of(found.account)
            ),
            key=self.gates.fingerprint(request),
            price=self._price_of(found.account, found.model),
            foreign_blocks=count_foreign_blocks(call.input, found.name),
            count_foreign_blocks=partial(count_foreign_blocks, provider=found.name),
        )


def _is_ended(writer: StoreWriter, stream_id: str, tail: EntryId) -> bool:
    """Whether a stored log has its terminal event."""
    last = writer.store.read(stream_id, EntryId(tail.epoch, tail.seq - 1) if tail.seq else EMPTY)
    return any(isinstance(entry, LogFrame) and entry.is_last for entry in last)


def _redo(found: ProviderChoice, feed: CallRecord, base_url: str | None, *, responses: bool) -> Mapping[str, Any]:
    """What the call is made of, for another process: all but keys, which that one has in its settings."""
    call = feed.candidate.call
    options = {
        field.name: getattr(feed.options, field.name)
        for field in dataclasses.fields(feed.options)
        if getattr(feed.options, field.name) != field.default
    }
    return {
        "provider": found.name,
        "model": call.model,
        "base_url": base_url,
        "input": call.input,
        "parameters": dict(call.parameters),
        "headers": {name: value for name, value in call.headers.items() if not isinstance(value, Secret)},
        "query": dict(call.query),
        "responses": responses,
        "options": options,
    }


_CONTINUED: Final = ("previous_response_id", "conversation", "prompt")
"""Parameters with which the provider has a part of the conversation already."""


def _checked(call: ChatCall, *, responses: bool) -> ChatCall:
    """Check the messages; return the call without lone surrogates, which no request can contain."""
    if responses:
        is_continued = any(call.parameters.get(name) is not None for name in _CONTINUED)
        check_items(call.input, is_continued=is_continued)
    else:
        check_messages(call.input)
    if is_plain_json(call.input) and is_plain_json(call.parameters):
        return call
    check_finite(call.input, "input" if responses else "messages")
    return msgspec.structs.replace(call, input=mend_surrogates(call.input), parameters=mend_surrogates(call.parameters))


def _without_credentials(call: ChatCall) -> ChatCall:
    """Return the call for a fallback at another provider, which must not get what the caller gave for the first one."""
    headers = {name: value for name, value in call.headers.items() if not isinstance(value, Secret)}
    return msgspec.structs.replace(call, headers=headers, query={})


def _after_fork() -> None:
    """In the child of a fork, have the parent's systems refuse tokens and readers, which do not look at the pid."""
    for services in list(_all):
        if is_forked(services.runtime.dispatcher):
            services.streams.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class StreamIds:
    """Ids of streams that were given none: unique in this process and, by 48 random bits, among all of them.

    They are no secrets: the next one can be guessed.
    """

    __slots__ = ("_numbers", "_prefix")

    def __init__(self) -> None:
        self._prefix = f"s-{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """Another id. Any thread."""
        return f"{self._prefix}{next(self._numbers):04x}"


class HasServices(Protocol):
    """A system, as the modules below it see it."""

    @property
    def _services(self) -> Services: ...
