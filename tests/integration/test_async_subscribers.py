"""Async functions that are subscribed: they are awaited on the caller's event loop, or on the system's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest

import penstock
from penstock.actors.stream.subscribers.coroutine import CoroutineSubscription
from penstock.testing import eventually

FAST = penstock.StreamOptions(batch_size=1, flush_interval=0.01, rate_limit=None)
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


class Collector:
    """An async function in every form in which users have one."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.running = self.most = 0

    async def method(self, event: Any) -> None:
        self.loops.add(asyncio.get_running_loop())
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        self.seen.append(event)

    async def with_options(self, how: str, event: Any) -> None:
        assert how == "well"
        await self.method(event)

    async def __call__(self, event: Any) -> None:
        await self.method(event)

    @property
    def is_complete(self) -> bool:
        return bool(self.seen) and isinstance(self.seen[-1], penstock.StreamCompleted)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.seen if isinstance(event, penstock.TokenEvent))


def closure(collector: Collector) -> Callable[[Any], Any]:
    async def collect(event: Any) -> None:
        await collector.method(event)

    return collect


FORMS: dict[str, Callable[[Collector], Any]] = {
    "a function": closure,
    "a bound method": lambda collector: collector.method,
    "a callable object": lambda collector: collector,
    "a partial": lambda collector: functools.partial(collector.with_options, "well"),
    "a partial of a callable object": lambda collector: functools.partial(collector),
    "a mock": lambda collector: AsyncMock(side_effect=collector.method),
}
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
WORDS = [f"{n} " for n in range(200)]


@EVERY
def test_it_gets_every_event_in_order_and_one_at_a_time_on_the_callers_loop(
    system: penstock.System, form: Callable[[Collector], Any]
) -> None:
    async def main() -> Collector:
        collector = Collector()
        stream = system.open_stream(options=FAST)
        stream.subscribe(form(collector))
        await asyncio.to_thread(stream.process_tokens, WORDS)
        await asyncio.to_thread(stream.stop, 20)
        await asyncio.to_thread(eventually, lambda: collector.is_complete, 20)
        assert collector.loops == {asyncio.get_running_loop()}
        return collector

    collector = asyncio.run(main())
    assert collector.text == "".join(WORDS)
    assert collector.most == 1


@EVERY
def test_without_a_loop_of_the_callers_it_runs_on_the_systems(
    system: penstock.System, form: Callable[[Collector], Any]
) -> None:
    first, second = Collector(), Collector()
    stream = system.open_stream(options=FAST)
    stream.subscribe(form(first))
    stream.process_tokens(WORDS)
    eventually(lambda: first.seen and first.seen[-1].seq > 3)
    stream.subscribe(form(second), after=3)
    stream.stop(20)
    eventually(lambda: first.is_complete and second.is_complete)
    assert first.text == "".join(WORDS)
    assert first.loops == second.loops
    assert second.seen[0].seq > 3
    assert not stream._record.hub.subscriptions


def test_the_subscriber_of_an_agents_message_may_be_async(system: penstock.System) -> None:
    async def main() -> None:
        with system.agent(model="echo", provider="loopback") as agent:
            collector = Collector()
            await agent.stream_chat("hello", collector.method, options=FAST).aresult()
            await asyncio.to_thread(eventually, lambda: collector.is_complete, 20)
            assert "hello" in collector.text

    asyncio.run(main())


@pytest.mark.parametrize("has_loop", [True, False])
def test_it_runs_in_a_copy_of_the_callers_context(system: penstock.System, has_loop: bool) -> None:
    seen: list[str] = []

    async def note(event: Any) -> None:
        seen.append(tenant.get())
        tenant.set("changed")

    def subscribe() -> penstock.Stream:
        stream = system.open_stream(options=FAST)
        tenant.set("alice")
        stream.subscribe(note)
        tenant.set("bob")
        return stream

    async def main() -> None:
        stream = subscribe()
        await asyncio.to_thread(stream.stop)
        await asyncio.to_thread(eventually, lambda: seen, 20)
        assert tenant.get() == "bob"

    if has_loop:
        asyncio.run(main())
    else:
        subscribe().stop()
    eventually(lambda: seen == ["alice"])


# --- slow, failing and leaving functions -----------------------------------------------------------------------------


def test_a_slow_one_holds_the_stream_or_is_disconnected_as_its_policy_says(system: penstock.System) -> None:
    seen: dict[str, list[Any]] = {"block": [], "disconnect": [], "drop": [], "coalesce": []}

    async def main() -> None:
        gate = asyncio.Event()
        stream = system.open_stream(options=FAST)

        def reader(policy: str) -> Callable[[Any], Any]:
            async def read(event: Any) -> None:
                await gate.wait()
                seen[policy].append(event)

            return read

        for policy in seen:
            stream.subscribe(reader(policy), slow=policy, window=4)  # type: ignore[arg-type]
        for word in WORDS[:20]:
            stream.process_token(word)
        await asyncio.to_thread(eventually, lambda: stream._record.hub.held, 20)
        assert stream.statistics().tokens_delivered < 10
        gate.set()
        await asyncio.to_thread(eventually, lambda: stream.statistics().tokens_delivered >= 20, 20)
        await asyncio.to_thread(stream.stop)
        ends = (penstock.StreamCompleted, penstock.Disconnected)
        await asyncio.to_thread(
            eventually, lambda: all(events and isinstance(events[-1], ends) for events in seen.values()), 20
        )

    asyncio.run(main())
    assert "".join(event.text for event in seen["block"] if isinstance(event, penstock.TokenEvent)) == "".join(
        WORDS[:20]
    )
    assert isinstance(seen["disconnect"][-1], penstock.Disconnected)
    for policy in ("block", "drop", "coalesce"):
        assert isinstance(seen[policy][-1], penstock.StreamCompleted)


def test_a_call_of_ours_that_blocks_its_loop_does_not_wait_for_it_for_ever(system: penstock.System) -> None:
    """With ``slow="block"`` the stream would wait for the loop, and the loop for the stream."""

    def feed(stream: penstock.Stream) -> None:
        stream.process_tokens(WORDS)
        stream.stop(20)

    async def main() -> Collector:
        collector = Collector()
        stream = system.open_stream(options=FAST)
        stream.subscribe(collector.method, window=2)
        other = threading.Thread(target=feed, args=(stream,))
        other.start()
        eventually(lambda: stream._record.hub.held)  # it waits for its subscriber, which cannot run
        assert stream.result(10).text == "".join(WORDS)
        await asyncio.to_thread(eventually, lambda: collector.is_complete, 20)
        other.join()
        return collector

    assert asyncio.run(main()).text == "".join(WORDS)


@pytest.mark.parametrize("has_loop", [True, False])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=repr)
def test_one_that_raises_is_unsubscribed_and_the_error_is_logged(
    system: penstock.System, caplog: pytest.LogCaptureFixture, error: BaseException, has_loop: bool
) -> None:
    calls: list[Any] = []

    async def fail(event: Any) -> None:
        calls.append(event)
        raise error

    def feed(stream: penstock.Stream) -> None:
        stream.process_token("a")
        eventually(lambda: not stream._record.hub.subscriptions)
        stream.process_token("b")
        stream.stop()

    async def main() -> None:
        stream = system.open_stream(options=FAST)
        stream.subscribe(fail)
        await asyncio.to_thread(feed, stream)

    if has_loop:
        asyncio.run(main())
    else:
        stream = system.open_stream(options=FAST)
        stream.subscribe(fail)
        feed(stream)
    assert len(calls) == 1
    assert [record.levelno for record in caplog.records if "process_crashed" in record.getMessage()] == [logging.ERROR]


def test_a_plain_function_that_returns_a_coroutine_is_unsubscribed_with_an_advice(
    system: penstock.System, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    stream = system.open_stream(options=FAST)
    stream.subscribe(lambda event: collector.method(event))
    stream.process_token("a")
    eventually(lambda: not stream._record.hub.subscriptions)
    assert "subscribe an async function itself" in caplog.text


@pytest.mark.parametrize("has_loop", [True, False])
def test_unsubscribing_cancels_the_call_that_runs(system: penstock.System, has_loop: bool) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def hang(event: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def main() -> None:
        await asyncio.to_thread(leave, subscribe())

    def subscribe() -> penstock.Stream:
        stream = system.open_stream(options=FAST, on_orphan="cancel")
        stream.subscribe(hang)
        return stream

    def leave(stream: penstock.Stream) -> None:
        stream.process_token("a")
        assert started.wait(5)
        stream.unsubscribe(hang)
        assert cancelled.wait(5)
        eventually(lambda: stream.is_over)

    if has_loop:
        asyncio.run(main())
    else:
        leave(subscribe())


def test_one_that_unsubscribes_itself_ends_its_call(system: penstock.System, caplog: pytest.LogCaptureFixture) -> None:
    ends: list[Any] = []

    async def main() -> None:
        async def once(event: Any) -> None:
            stream.unsubscribe(once)
            await asyncio.sleep(0.01)
            ends.append(event)

        stream = system.open_stream(options=FAST)
        other = Collector()
        stream.subscribe(once)
        stream.subscribe(other.method)
        stream.process_token("a")
        stream.process_token("b")
        await asyncio.to_thread(eventually, lambda: ends, 20)
        await asyncio.to_thread(stream.stop)
        await asyncio.to_thread(eventually, lambda: other.is_complete, 20)  # by now the first one would have got it too

    asyncio.run(main())
    assert [event.text for event in ends] == ["a"]
    assert "async_subscriber_cancelled" not in caplog.text


# --- loops and systems that end --------------------------------------------------------------------------------------


def run_and_close(main: Any) -> None:
    """Run something on a loop that ends without cancelling its tasks."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", [asyncio.run, run_and_close], ids=["cancelled", "closed"])
@pytest.mark.parametrize("token", ["", "x"], ids=["silent", "at the next token"])
def test_when_its_loop_ends_it_is_unsubscribed_with_one_warning(
    system: penstock.System,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Any], None],
    token: str,
) -> None:
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)  # "Task was destroyed but it is pending!"

    async def main() -> penstock.Stream:
        stream = system.open_stream(options=FAST, on_orphan="cancel")
        subscription = stream.subscribe(Collector().method)
        assert isinstance(subscription, CoroutineSubscription)
        while subscription._task is None:
            await asyncio.sleep(0)
        streams.append(stream)
        return stream

    streams: list[penstock.Stream] = []
    run(main())
    stream = streams[0]
    if token and not stream.is_over:
        stream.process_token(token)
    eventually(lambda: stream.is_over, 5)
    assert not stream._record.hub.subscriptions
    assert caplog.text.count("async_subscriber_cancelled") == 1


def test_a_function_that_suppresses_its_cancellation_does_not_keep_the_loop_from_ending(
    system: penstock.System,
) -> None:
    started = threading.Event()

    async def stubborn(event: Any) -> None:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        calls.append(event)

    async def main() -> None:
        stream = system.open_stream(options=FAST)
        stream.subscribe(stubborn)
        stream.process_token("a")
        assert await asyncio.to_thread(started.wait, 5)

    calls: list[Any] = []
    asyncio.run(main())  # or it never ends
    assert len(calls) == 1


@pytest.mark.parametrize("has_loop", [True, False])
def test_the_system_stops_although_a_call_never_ends(has_loop: bool) -> None:
    started = threading.Event()

    async def hang(event: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    def stop() -> None:
        assert started.wait(5)
        assert system.stop() == 0  # within the time-out, or threads would be left

    async def main() -> None:
        stream.subscribe(hang)
        stream.process_token("a")
        await asyncio.to_thread(stop)

    system = penstock.System(penstock.Settings()).start()
    stream = system.open_stream(options=FAST)
    if has_loop:
        asyncio.run(main())
        return
    stream.subscribe(hang)
    stream.process_token("a")
    stop()
    with pytest.raises(penstock.SystemStopped):
        stream.subscribe(Collector().method)
