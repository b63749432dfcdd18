"""A system from outside: streams, counters, the supervision tree. Never shows token text or keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pykka

from penstock.actors.call.gate import EndpointStatistics
from penstock.actors.runtime.dispatcher import DispatcherStatistics
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.statistics import StreamStatistics
from penstock.config.options import StreamOptions
from penstock.errors import PenstockError
from penstock.services import Services
from penstock.supervisors.calls import WhichChildren

__all__ = [
    "RetryBudgetStatistics",
    "StreamInfo",
    "StreamSummary",
    "SubscriberInfo",
    "SystemStatistics",
    "Tree",
    "draw_tree",
    "stream_info",
    "stream_summary",
    "system_statistics",
]


class SubscriberInfo(msgspec.Struct, frozen=True):
    """One subscriber of a stream."""

    target: str
    """The actor's label, the callback's name, or ``"iterator"``."""
    slow: str
    seq: int
    """The number of the last event that was delivered to it."""
    pending: int
    dropped: int
    lag_bytes: int = 0
    """About how many bytes of memory the ``pending`` events take; of folded ones all text counts."""


class StreamSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a running stream that a list of many streams shows. Made in a few microseconds.

    Times are Unix times, durations seconds; None has not happened yet.
    """

    stream_id: str
    state: str
    provider: str
    """The provider's name; ``""`` if none feeds the stream."""
    model: str
    """The model that was asked for."""
    created_at: float
    tokens: int
    """Tokens delivered."""
    tokens_per_second: float
    """As in `StreamStatistics`."""
    time_to_first_token_s: float | None
    last_token_time: float | None
    subscribers: int
    buffer_size: int
    max_buffer_size: int | None
    """None: unbounded."""
    attempts: int
    """Provider requests made for it so far."""
    errors: int
    """Failed deliveries, provider attempts and tool calls."""
    restarts: int


class RetryBudgetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the retries that requests wanted to make; see `RetryBudgetOptions`."""

    granted: int
    refused: int


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one stream."""

    stream_id: str
    state: str
    subscriber_count: int
    created_at: float
    options: StreamOptions
    subscribers: tuple[SubscriberInfo, ...]
    statistics: StreamStatistics
    source: str | None
    """The state of its integration, if a provider feeds it."""
    attempts: int
    """Provider requests made for it so far; of `race`, `hedge` and `with_retry`, the streams that were tried."""
    kind: str | None = None
    """What it is made by, if neither by a call nor by hand: ``"map"``, ``"merge"``, ``"text"`` …"""
    parents: tuple[str, ...] = ()
    """The ids of the streams that it is made from."""


class SystemStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a system."""

    streams_created: int
    streams_active: int
    streams_completed: int
    streams_failed: int
    streams_cancelled: int
    agents: int
    """Agents that take messages."""
    subscriptions: int
    tokens: int
    """Tokens delivered by all streams so far."""
    processes: int
    processes_started: int
    timers: int
    dead_letters: int
    unexpected_messages: int
    dispatcher: DispatcherStatistics
    reader: Mapping[str, int]
    leaked_sources: int = 0
    """Sources of streams that had ended two seconds before, and still held a thread or were not closed."""
    providers: tuple[EndpointStatistics, ...] = ()
    """One for every endpoint that was used, oldest first."""
    states: Mapping[str, int] = {}
    """Running streams by state."""
    restarts: Mapping[str, int] = {}
    """Children restarted so far, by the name of their supervisor; from the 101st name on as ``"other"``."""
    largest_mailbox: int = 0
    """Messages that wait in the fullest mailbox."""
    retry_budget: RetryBudgetStatistics = RetryBudgetStatistics(granted=0, refused=0)


class Tree(msgspec.Struct, frozen=True):
    """A process and its descendants."""

    name: str
    kind: str
    state: str
    mailbox: int
    restarts: int
    children: tuple[Tree, ...] = ()
    made_by: str = ""
    """Of a stream that is made from others, or from a source: ``"merge of s-1, s-2"``."""

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> list[str]:
        restarts = f", {self.restarts} restarts" if self.restarts else ""
        mailbox = f", {self.mailbox} waiting" if self.mailbox else ""
        made_by = f", {self.made_by}" if self.made_by else ""
        lines = [f"{first}{self.name}  ({self.kind}, {self.state}{mailbox}{restarts}{made_by})"]
        for child in self.children:
            last = child is self.children[-1]
            lines += child._lines(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
        return lines


def stream_info(record: StreamRecord) -> StreamInfo:
    """The state of a stream. Never blocks."""
    statistics = record.statistics()
    subscribers = tuple(
        SubscriberInfo(_target_name(one.target), one.slow, one.seq, one.pending, one.dropped, one.lag_bytes)
        for one in record.hub.subscriptions
    )
    return StreamInfo(
        stream_id=record.stream_id,
        state=record.state,
        subscriber_count=len(subscribers),
        created_at=record.created_at,
        options=record.options,
        subscribers=subscribers,
        statistics=statistics,
        source=None if record.feed is None else record.feed.state,
        attempts=statistics.attempts,
        kind=record.kind,
        parents=record.parents,
    )


def stream_summary(record: StreamRecord) -> StreamSummary:
    """The facts about a stream for a list. Never blocks."""
    counters, feed, tokens = record.counters, record.feed, record.log.tokens
    provider, model = record.source()
    first = counters.first_delivery
    seconds = 0.0 if first is None else counters.last_delivery - first
    return StreamSummary(
        stream_id=record.stream_id,
        state=record.state,
        provider=provider,
        model=model,
        created_at=record.created_at,
        tokens=tokens,
        tokens_per_second=(tokens - counters.first_tokens) / seconds if seconds > 0 else 0.0,
        time_to_first_token_s=None if first is None else first - record.created_monotonic,
        last_token_time=record.last_token_time,
        subscribers=record.hub.subscribers,
        buffer_size=record.intake.size,
        max_buffer_size=record.options.max_buffer_size,
        attempts=0 if feed is None else feed.attempts,
        errors=counters.errors + counters.failed_attempts + counters.tool_errors,
        restarts=counters.restarts,
    )


def system_statistics(services: Services) -> SystemStatistics:
    """All counters of a system. Never blocks."""
    table, runtime, budget = services.streams, services.runtime, services.gates.retry_budget
    totals = table.totals()
    return SystemStatistics(
        streams_created=totals.created,
        streams_active=totals.active,
        streams_completed=totals.completed,
        streams_failed=totals.failed,
        streams_cancelled=totals.cancelled,
        agents=sum(1 for agent in services.agents.all() if not agent.is_closed),
        subscriptions=sum(len(record.hub.subscriptions) for record in table.all() if record.ended_at is None),
        tokens=totals.tokens,
        processes=len(runtime.processes()),
        processes_started=runtime.started,
        timers=len(runtime.timers),
        dead_letters=runtime.dead_letters.count,
        unexpected_messages=runtime.dead_letters.unexpected_count,
        dispatcher=runtime.dispatcher.statistics(),
        reader=services.reader.statistics(),
        leaked_sources=services.leaked_sources,
        providers=services.gates.statistics(),
        states=Counter(record.state for record in table.running()),
        restarts=runtime.restarts(),
        largest_mailbox=runtime.largest_mailbox(),
        retry_budget=RetryBudgetStatistics(granted=budget.granted, refused=budget.refused),
    )


def draw_tree(runtime: Runtime, name: str, timeout: float) -> Tree:
    """The tree below the process of that name. A supervisor that does not answer in time is drawn without children."""
    ref = runtime.whereis(name)
    if ref is None:
        return Tree(name, "?", "dead", 0, 0)
    return _draw(runtime, ref, name, 0, timeout)


def _draw(runtime: Runtime, ref: ProcessRef, name: str, restarts: int, timeout: float) -> Tree:
    process = ref._actor_weakref()
    kind = ref.actor_class.__name__
    state = str(getattr(process, "state", "running")) if runtime.is_alive(ref) else "dead"
    children: list[Tree] = []
    if getattr(ref.actor_class, "is_supervisor", False):
        try:
            infos: list[Any] = ref.ask(WhichChildren(), timeout=timeout)
        except (PenstockError, TimeoutError):
            state = "no answer"
        else:
            for info in reversed(infos):  # in the order they were started
                if info.ref is None:
                    down = "restarting" if info.state == "restarting" else "down"
                    children.append(Tree(info.id, info.cls.__name__, down, 0, info.restarts))
                else:
                    label = info.ref.label
                    children.append(_draw(runtime, info.ref, label, info.restarts, timeout))
    made_by = process.made_by if isinstance(process, TokenStream) else ""
    return Tree(name, kind, state, ref.actor_inbox.qsize(), restarts, tuple(children), made_by)


def _target_name(target: Any) -> str:
    """The name of a subscriber. For a function without a name, its type, since a partial's repr shows arguments."""
    if target is None:
        return "iterator"
    if isinstance(target, ProcessRef):
        return target.label
    if isinstance(target, pykka.ActorRef):
        return str(target)
    name = getattr(target, "__name__", None)
    return name if isinstance(name, str) else type(target).__name__
