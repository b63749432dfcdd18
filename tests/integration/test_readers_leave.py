"""A reader that is gone releases the provider at once, however it went, without the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.pull import Findings, PullSubscription
from penstock.adapters.loopback.faults import DelayFirstByte, StallAfter
from penstock.adapters.loopback.script import Answer, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually

pytestmark = pytest.mark.usefixtures("each_reader")

WORDS = tuple(f'"{n}" ' for n in range(2000))
FAST = penstock.StreamOptions(batch_size=1, flush_interval=0.01, rate_limit=None)
SLOWLY = Answer(tokens=("[1", *[", 1"] * 3000), pace=0.01)
SOON = 10.0

Read = Callable[[penstock.Stream], Any]

READINGS: dict[str, Read] = {
    "the stream": lambda stream: stream,
    "its events": lambda stream: stream.events(),
    "its texts": lambda stream: stream.texts(),
    "its texts, async": lambda stream: stream.atexts(),
    "partial values": lambda stream: penstock.structured(stream, list[int]),
}
EVERY = pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


def serve(replies: Replies) -> LoopbackProvider:
    return LoopbackProvider(Script(replies, answer=SLOWLY))


def ask(system: penstock.System, provider: LoopbackProvider) -> penstock.Stream:
    return system.chat("m", "Hello", provider="loopback", base_url=provider.base_url, options=FAST)


def released(provider: LoopbackProvider, count: int = 1) -> None:
    provider.wait_for(lambda counts: counts.client_disconnects == count, SOON)


def running(system: penstock.System) -> StreamRecord:
    """The record of the only stream."""
    (record,) = [record for record in system._table.all() if not record.is_over]
    return record


def has_text(system: penstock.System) -> bool:
    return bool(running(system).log.text())


def waits_for_event(system: penstock.System) -> bool:
    """Whether the reader of the only stream has read all events, and waits for another one."""
    subscriptions = running(system).hub.subscriptions
    return bool(subscriptions) and all(isinstance(one, PullSubscription) and one._waiting for one in subscriptions)


# --- asyncio ---------------------------------------------------------------------------------------------------------


async def told(task: asyncio.Task[Any]) -> BaseException:
    """The exception of a task that has been cancelled, with its traceback."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


async def told_by_gather(task: asyncio.Task[Any]) -> BaseException:
    found = await asyncio.gather(task, return_exceptions=True)
    error: BaseException = found[0]
    assert isinstance(error, asyncio.CancelledError)
    return error


async def told_by_wait(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    await asyncio.wait([task])
    return task


@EVERY
@pytest.mark.parametrize("keep", [told, told_by_gather, told_by_wait])
@pytest.mark.parametrize("fault", [StallAfter(2), DelayFirstByte(None), SLOWLY], ids=["midway", "before", "running"])
def test_a_cancelled_task_releases_the_provider_although_its_exception_is_kept(
    system: penstock.System, read: Read, keep: Callable[[asyncio.Task[Any]], Any], fault: Any
) -> None:
    async def body() -> AsyncIterator[Any]:
        async for found in read(ask(system, provider)):
            yield found

    async def respond() -> None:
        async for _ in body():
            pass

    async def main() -> None:
        task = asyncio.create_task(respond())
        await asyncio.to_thread(provider.wait_for, lambda counts: counts.active_responses == 1, 5.0)
        while not (waits_for_event(system) and (has_text(system) or isinstance(fault, DelayFirstByte))):
            await asyncio.sleep(0.001)
        task.cancel()
        kept = await keep(task)
        await asyncio.to_thread(released, provider)
        assert kept is not None

    with serve(fault) as provider:
        asyncio.run(main())


@EVERY
def test_an_error_in_the_body_of_the_loop_releases_the_provider(system: penstock.System, read: Read) -> None:
    async def respond() -> None:
        async for _ in read(ask(system, provider)):
            raise ValueError("the browser does not answer")

    def respond_sync() -> None:
        for _ in read(ask(system, provider)):
            raise ValueError("the browser does not answer")

    with serve(SLOWLY) as provider:
        with pytest.raises(ValueError, match="browser") as kept:
            asyncio.run(respond())
        released(provider)
        with pytest.raises(ValueError, match="browser") as kept_too:
            respond_sync()
        released(provider, 2)
        assert kept is not kept_too


@EVERY
def test_a_wait_that_is_cancelled_and_repeated_goes_on(system: penstock.System, read: Read) -> None:
    stream = system.open_stream(options=FAST)

    async def main() -> tuple[int, list[Any]]:
        events = aiter(read(stream))
        beats, found = 0, []
        while True:
            try:
                found.append(await asyncio.wait_for(anext(events), 0.02))
            except TimeoutError:
                beats += 1
                if beats == 3:
                    stream.process_token("[1, 2")
                elif beats == 6:
                    stream.process_token(", 3]")
                    await asyncio.to_thread(stream.stop)
            except StopAsyncIteration:
                return beats, found

    beats, found = asyncio.run(main())
    assert beats >= 6
    assert len(found) >= 2
    assert stream.text == "[1, 2, 3]"
    assert isinstance(stream.result(0), penstock.StreamCompleted)


@EVERY
def test_an_iterator_lives_while_it_is_waited_for_although_nothing_else_keeps_it(
    system: penstock.System, read: Read
) -> None:
    stream = system.open_stream(options=FAST)
    other = threading.Timer(0.05, stream.process_token, ["[1"])

    async def main() -> Any:
        other.start()
        return await asyncio.wait_for(anext(aiter(read(stream))), 5)

    first = asyncio.run(main())
    assert first is not None
    assert next(iter(read(stream))) == first
    assert stream.events().next(5) == next(iter(stream))
    other.join()


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

REPL = """
import gc, signal, sys

import penstock

gc.disable()
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in the background of a shell
system = penstock.System(penstock.Settings()).start()
FAST = penstock.StreamOptions(batch_size=1)


def ask():
    return system.chat("m", "Hi", provider="loopback", base_url=sys.argv[1], options=FAST)
"""
LOOPS = {
    "the stream": "for event in ask(): print('got', event)",
    "its texts": "for text in ask().texts(): print('got', text)",
    "partial values": "for value in penstock.structured(ask(), list[int]): print('got', value)",
    "a function": "def f():\n    for event in ask(): print('got', event)\n\nf()",
    "a generator": "def g(): yield from ask()\n\nfor event in g(): print('got', event)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("fault", [StallAfter(2), SLOWLY], ids=["waiting", "running"])
def test_ctrl_c_in_an_interactive_session_releases_the_provider(tmp_path: Path, loop: str, fault: Any) -> None:
    start = tmp_path / "start.py"
    start.write_text(REPL)
    root = str(Path(penstock.__file__).parents[1])
    with (
        serve(fault) as provider,
        subprocess.Popen(
            [sys.executable, "-u", "-i", "-q", str(start), provider.base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
            text=True,
        ) as session,
    ):
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(f"{loop}\n\n")
        session.stdin.flush()
        assert session.stdout.readline().startswith("got")
        provider.wait_for(lambda counts: counts.active_responses == 1)
        session.send_signal(signal.SIGINT)
        released(provider)
        session.stdin.write("print(sys.last_type.__name__)\nsystem.stop()\n")
        out, _ = session.communicate(timeout=20)
        assert "KeyboardInterrupt" in out


# --- FastAPI and uvicorn ---------------------------------------------------------------------------------------------


def generator_of(texts: Iterable[str]) -> Iterator[str]:
    yield from texts


@contextlib.contextmanager
def site(system: penstock.System, provider: LoopbackProvider) -> Iterator[int]:
    """An application as users write it, on a port of its own."""
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    @app.get("/async")
    async def respond() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async for event in ask(system, provider):
                yield f"data: {event}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    @app.get("/texts")
    async def respond_with_texts() -> StreamingResponse:
        return StreamingResponse(ask(system, provider).texts(), media_type="text/plain")

    @app.get("/sync")
    def respond_sync() -> StreamingResponse:
        def body() -> Iterator[str]:
            for event in ask(system, provider):
                yield f"data: {event.text if isinstance(event, penstock.TokenEvent) else event}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    @app.get("/sync-texts")
    def respond_sync_with_texts() -> StreamingResponse:
        return StreamingResponse(generator_of(ask(system, provider).texts()), media_type="text/plain")

    @app.get("/sync-kept")
    def respond_sync_and_keep() -> StreamingResponse:
        def body() -> Iterator[str]:
            events = ask(system, provider).events()
            while isinstance(event := events.next(60), penstock.TokenEvent):
                yield f"data: {event.text}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
        assert not thread.is_alive()


def visit(
    port: int, path: str, until: bytes, provider: LoopbackProvider, is_ready: Callable[[], bool] = lambda: True
) -> None:
    """Make a request, and leave when the answer has ``until`` in it, the provider is at work, and ``is_ready()``."""
    before = provider.statistics().requests
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        came = b""
        while until not in came:
            piece = client.recv(65536)
            assert piece, came
            came += piece
        provider.wait_for(lambda counts: counts.requests == before + 1 and counts.active_responses == 1)
        eventually(is_ready)


@pytest.mark.parametrize("path", ["/async", "/texts"])
def test_a_browser_that_leaves_after_the_first_event_releases_the_provider(system: penstock.System, path: str) -> None:
    with serve(SLOWLY) as provider, site(system, provider) as port:
        for count in range(1, 6):
            visit(port, path, b"1", provider)
            released(provider, count)
        eventually(lambda: not system.get_active_streams())


@pytest.mark.parametrize("path", ["/async", "/texts"])
@pytest.mark.parametrize("fault", [DelayFirstByte(None), StallAfter(1)], ids=["before the first event", "in a pause"])
def test_a_browser_that_leaves_while_the_provider_is_silent_releases_it(
    system: penstock.System, path: str, fault: Any
) -> None:
    with serve([fault] * 3) as provider, site(system, provider) as port:
        for count in range(1, 4):
            visit(port, path, b"\r\n\r\n", provider)
            released(provider, count)
        eventually(lambda: not system.get_active_streams())


@pytest.mark.parametrize("path", ["/sync", "/sync-texts", "/sync-kept"])
@pytest.mark.parametrize(
    ("fault", "until"),
    [(DelayFirstByte(None), b"\r\n\r\n"), (StallAfter(1), b"[1")],
    ids=["before the first event", "in a pause"],
)
def test_a_synchronous_body_that_waits_releases_the_provider_and_its_thread(
    system: penstock.System, path: str, fault: Any, until: bytes
) -> None:
    """Threads that wait for ever would use up Starlette's forty."""
    with serve([fault] * 3) as provider, site(system, provider) as port:
        for count in range(1, 4):
            visit(port, path, until, provider, lambda: waits_for_event(system))
            released(provider, count)
        eventually(lambda: not system.get_active_streams())


@pytest.mark.parametrize("fault", [DelayFirstByte(0.3), SLOWLY], ids=["before the first event", "midway"])
def test_a_synchronous_body_releases_the_provider_when_it_is_dropped(system: penstock.System, fault: Any) -> None:
    """If the browser leaves while Starlette sends an event, Starlette does not close the suspended generator.

    It is left in a cycle of exceptions and frames, which only the garbage collector ends.
    """
    with serve([fault] * 3) as provider, site(system, provider) as port:
        for count in range(1, 4):
            visit(port, "/sync", b"\r\n\r\n", provider)
            eventually(lambda count=count: gc.collect() < 0 or provider.statistics().client_disconnects == count, 50)  # type: ignore[misc]
        eventually(lambda: not system.get_active_streams())


def test_texts_that_are_closed_before_they_begin_do_not_cancel_the_stream(system: penstock.System) -> None:
    stream = system.open_stream(on_orphan="cancel")
    closed, left = stream.texts(), stream.texts()
    for texts in (iter(closed), iter(left)):
        assert isinstance(texts, Findings)
        texts.close()
        assert list(texts) == []
        asyncio.run(texts.aclose())
    stream.process_token("a")
    stream.stop()
    assert stream.result(10).text == "a"
