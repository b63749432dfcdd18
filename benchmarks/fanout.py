"""One stream to many subscribers of each kind, and to slow ones: what each costs, and whether it is linear."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

import penstock
from benchmarks.probe import Countdown, Meter, ProbeError, Result, measure, memory_kb
from benchmarks.pushed import Sink
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import Event, Stream, StreamOptions, System, TokenEvent
from penstock.config.settings import Settings

__all__ = ["KINDS", "SLOW", "held_load", "load", "run", "slow_load"]

_OPTIONS: Final = StreamOptions(rate_limit=None, batch_size=1, max_buffer_size=1000)
_WINDOW: Final = 64
_PATIENCE_S: Final = 100.0
SLOW: Final = ("coalesce", "drop", "disconnect")


class Reading:
    """Subscribes many, and waits until all have read everything."""

    def __init__(self, system: System, stream: Stream, count: int, tokens: int) -> None:
        self.system = system
        self.stream = stream
        self.countdown = Countdown(count)
        self.tokens = tokens
        self.subscriptions: list[Any] = []

    def subscribe(self) -> None:
        """Add one subscriber."""

    def begin(self) -> None:
        """Do what the subscribers need besides, before tokens come."""

    def finish(self) -> None:
        """Wait until all have the end."""
        self.countdown.wait(_PATIENCE_S)

    def unsubscribe(self) -> None:
        """Remove all subscribers, one by one, in the order in which they came."""
        for subscription in self.subscriptions:
            subscription.unsubscribe()


class Functions(Reading):
    """A function each, which counts."""

    def subscribe(self) -> None:
        self.subscriptions.append(self.stream.subscribe(_counting(self.tokens, self.countdown)))


class Actors(Reading):
    """A supervised process each."""

    def subscribe(self) -> None:
        ref = self.system.runtime.spawn(Sink, self.tokens, self.countdown)
        self.subscriptions.append(self.stream.subscribe(ref))


class AsyncFunctions(Reading):
    """An async function each, on the system's loop."""

    def subscribe(self) -> None:
        count = _counting(self.tokens, self.countdown)

        async def read(event: Event) -> None:
            count(event)

        self.subscriptions.append(self.stream.subscribe(read))


class Iterators(Reading):
    """An iterator each, all read by one thread when everything has come: a thread each would measure the threads."""

    def subscribe(self) -> None:
        self.subscriptions.append(self.stream.events())

    def finish(self) -> None:
        for events in self.subscriptions:
            count = _counting(self.tokens, self.countdown)
            for event in events:
                count(event)
        super().finish()

    def unsubscribe(self) -> None:
        for events in self.subscriptions:
            events.close()


class AsyncIterators(Reading):
    """``async for`` each, in tasks of one loop."""

    def begin(self) -> None:
        ready = threading.Event()

        async def read(events: Any) -> None:
            count = _counting(self.tokens, self.countdown)
            async for event in events:
                count(event)

        async def read_all() -> None:
            tasks = [asyncio.ensure_future(read(events)) for events in self.subscriptions]
            await asyncio.sleep(0)
            ready.set()
            await asyncio.gather(*tasks)

        self.thread = threading.Thread(target=lambda: asyncio.run(read_all()))
        self.thread.start()
        ready.wait(_PATIENCE_S)

    def subscribe(self) -> None:
        self.subscriptions.append(self.stream.events())

    def finish(self) -> None:
        super().finish()
        self.thread.join(_PATIENCE_S)

    def unsubscribe(self) -> None:
        for events in self.subscriptions:
            events.close()


KINDS: Final[dict[str, type[Reading]]] = {
    "functions": Functions,
    "actors": Actors,
    "async functions": AsyncFunctions,
    "iterators": Iterators,
    "async iterators": AsyncIterators,
}


def _counting(tokens: int, countdown: Countdown) -> Callable[[Event], None]:
    got = 0

    def count(event: Event) -> None:
        nonlocal got
        if event.__class__ is TokenEvent:
            got += len(event.tokens)
            if got == tokens:
                countdown.report()

    return count


def load(kind: str, subscribers: int, tokens: int) -> Result:
    """Have ``subscribers`` read one stream to its end, and as many leave another one."""
    with System(Settings()) as system:
        _read(system, KINDS[kind], 10, 5)
        _leave(system, KINDS[kind], 10)
        before = memory_kb()
        result = _read(system, KINDS[kind], subscribers, tokens)
        result["kb"] = (result["kb"] - before) / subscribers
        result["leave_us"] = _leave(system, KINDS[kind], subscribers)
    return result


def _read(system: System, kind: type[Reading], subscribers: int, tokens: int) -> Result:
    stream = system.open_stream(options=_OPTIONS)
    reading = kind(system, stream, subscribers, tokens)
    with Meter() as subscribing:
        for _ in range(subscribers):
            reading.subscribe()
    kb = memory_kb()
    with Meter() as delivering:
        reading.begin()
        for number in range(tokens):
            stream.process_token(f"{number} ", timeout=_PATIENCE_S)
        stream.stop(timeout=_PATIENCE_S)
        reading.finish()
        _wait_for_no_subscriber(stream)
    return {
        "subscribe_us": subscribing.cpu / subscribers * 1e6,
        "event_us": delivering.cpu / subscribers / tokens * 1e6,
        "kb": kb,
    }


def _leave(system: System, kind: type[Reading], subscribers: int) -> float:
    stream = system.open_stream(options=_OPTIONS)
    reading = kind(system, stream, subscribers, 1)
    for _ in range(subscribers):
        reading.subscribe()
    with Meter() as leaving:
        reading.unsubscribe()
        _wait_for_no_subscriber(stream)
    stream.stop(timeout=_PATIENCE_S)
    return leaving.cpu / subscribers * 1e6


def _wait_for_no_subscriber(stream: Stream) -> None:
    hub, pause = stream._record.hub, threading.Event()
    for _ in range(int(_PATIENCE_S / 0.01)):
        if not hub.subscriptions:
            return
        pause.wait(0.01)
    raise ProbeError(f"{len(hub.subscriptions)} subscribers have not left")


def slow_load(slow: str, subscribers: int, tokens: int) -> Result:
    """Have all but one subscriber read nothing until the last token has come, and the one read everything at once."""
    options = _OPTIONS.replace(retain_bytes=1 << 16)
    with System(Settings()) as system:
        stream = system.open_stream(options=options)
        policy: Any = slow
        readers = [stream.events(slow=policy, window=_WINDOW) for _ in range(subscribers)]
        quick = Functions(system, stream, 1, tokens)
        quick.subscribe()
        before = memory_kb()
        with Meter() as pushing:
            for number in range(tokens):
                stream.process_token(f"{number} ", timeout=_PATIENCE_S)
            quick.finish()
        kept = memory_kb() - before
        stream.stop(timeout=_PATIENCE_S)
        events = 0
        with Meter() as reading:
            for reader in readers:
                try:
                    for _ in reader:
                        events += 1
                except penstock.SubscriberTooSlow:
                    events += 1
    return {
        "event_us": pushing.cpu / tokens * 1e6,
        "kept_kb": kept / subscribers,
        "read_us": reading.cpu / subscribers * 1e6,
        "events": events / subscribers,
    }


def held_load(subscribers: int, tokens: int) -> Result:
    """Have iterators with a window of one event, and the policy ``block``, read in turns: each holds the stream."""
    with System(Settings()) as system:
        stream = system.open_stream(options=_OPTIONS)
        readers = [stream.events(slow="block", window=1) for _ in range(subscribers)]

        def push() -> None:
            for number in range(tokens):
                stream.process_token(f"{number} ", timeout=_PATIENCE_S)
            stream.stop(timeout=_PATIENCE_S)

        thread = threading.Thread(target=push)
        with Meter() as meter:
            thread.start()
            for _ in range(tokens + 1):
                for reader in readers:
                    next(reader)
            thread.join()
    return {"event_us": meter.cpu / subscribers / (tokens + 1) * 1e6}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    few, many, tokens = (100, 1000, 5) if quick else (1000, 10_000, 20)
    table = Table(
        "One stream to many subscribers",
        f"{tokens} events of one token to each of them, pushed one after the other; CPU time of the process, the"
        " subscribers included, which only count. To leave is measured with a stream that goes on. Linear means that a"
        f" subscriber among {many:,} costs what one among {few:,} does.",
    )
    for kind in KINDS:
        found = {
            count: [measure(load, kind=kind, subscribers=count, tokens=tokens) for _ in range(rounds)]
            for count in (few, many)
        }
        for what, field in (
            ("to subscribe", "subscribe_us"),
            ("an event to one", "event_us"),
            ("to leave", "leave_us"),
        ):
            _add_rows(table, kind, what, field, found)
        for count, results in found.items():
            table.rows.append(Row(f"{count:,} {kind}: memory of one", "KB", Samples.of(results, "kb")))
    return [table, _slow_table(rounds, quick)]


def _add_rows(table: Table, kind: str, what: str, field: str, found: dict[int, list[Result]]) -> None:
    """Add the figures with few and with many subscribers, and how many times as much the second is."""
    samples = [Samples.of(results, field) for results in found.values()]
    for count, values in zip(found, samples, strict=True):
        table.rows.append(Row(f"{count:,} {kind}: {what}", "µs", values))
    pairs = zip(*(each.values for each in samples), strict=True)
    growth = Samples(tuple(most / least if least else 1.0 for least, most in pairs))
    table.rows.append(Row(f"{kind}: {what}, with so many more", "times", growth, Aim("at most", 2)))


def _slow_table(rounds: int, quick: bool) -> Table:
    subscribers, tokens = (50, 200) if quick else (1000, 5000)
    table = Table(
        "One stream to slow subscribers",
        f"{subscribers:,} iterators with a window of {_WINDOW} events that are not read until {tokens:,} tokens have"
        " come, one an event, and a function that reads all of them meanwhile; the stream keeps 64 KiB of its text."
        " The first rows are of iterators that hold the stream after each event (`block`, a window of one).",
    )
    found = {
        count: [measure(held_load, subscribers=count, tokens=20) for _ in range(rounds)]
        for count in (subscribers // 10, subscribers)
    }
    _add_rows(table, "iterators that hold the stream in turns", "an event to one", "event_us", found)
    for slow in SLOW:
        results = [measure(slow_load, slow=slow, subscribers=subscribers, tokens=tokens) for _ in range(rounds)]
        for what, unit, field in (
            ("an event without a reader", "µs", "event_us"),
            ("memory kept for a reader", "KB", "kept_kb"),
            ("to read the rest", "µs", "read_us"),
            ("events in the rest", "events", "events"),
        ):
            table.rows.append(Row(f"{slow}: {what}", unit, Samples.of(results, field)))
    return table
