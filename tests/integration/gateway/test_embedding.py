"""Streams in the routes of other frameworks: real servers, and a real client that leaves."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import requests
from django.urls import clear_url_caches
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response
from starlette.routing import Route

import penstock
from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.script import Answer, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.gateway import GatewayOptions
from penstock.config.options import StreamOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import OptionError
from penstock.gateway import reader as reader_module
from penstock.gateway import sse_response
from penstock.gateway.django import AsyncEventBody
from penstock.gateway.embedding import Embedded
from penstock.gateway.projector import Projector
from penstock.gateway.wsgi import event_body
from penstock.testing import eventually
from tests.integration.gateway.serving import KEY, ONCE, PATIENCE, events_of, served

EXAMPLES = Path(__file__).parents[3] / "examples" / "web"
WORDS = "one two three four five six seven eight"
QUICK = GatewayOptions(heartbeat=0.1, tick=0.005)


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    models: dict[str, Replies] = {
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
        "late": Answer("late", first_token_delay=60),
        "busy": Status(429, retry_after=7),
    }
    with LoopbackProvider(Script(Answer(WORDS, pace=0.005), models=models)) as made:
        yield made


@pytest.fixture
def system(provider: LoopbackProvider) -> Iterator[penstock.System]:
    options = ProviderOptions(base_url=provider.base_url, api_key=KEY)  # type: ignore[arg-type]
    with penstock.System(Settings(providers={"openai": options}, request=ONCE)) as made:
        yield made


def starlette_app(system: penstock.System, *middleware: Middleware, **more: Any) -> Starlette:
    async def chat(request: Any) -> Response:
        stream = system.chat(request.query_params.get("model", "m"), "Hi", stream_id=request.query_params.get("id"))
        return sse_response(stream, options=QUICK, **more)

    async def again(request: Any) -> Response:
        return sse_response(system.stream(request.path_params["id"]), options=QUICK, **more)

    return Starlette(routes=[Route("/chat", chat), Route("/again/{id}", again)], middleware=middleware)


def text_of(body: str) -> str:
    return "".join(data["text"] for _, name, data in events_of(body) if name == "token")


def leave(url: str, stream: Callable[[], penstock.Stream]) -> None:
    """Ask as a client that leaves as soon as its stream has a subscriber."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), PATIENCE) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: _subscribers(stream))


def _subscribers(stream: Callable[[], penstock.Stream]) -> int:
    try:
        return stream().statistics().subscribers
    except penstock.StreamNotFound:
        return 0


def test_starlette_serves_and_resumes(system: penstock.System) -> None:
    with served(system, starlette_app(system)) as server:
        answer = server.get("/chat?id=s1")
        assert text_of(answer.text) == WORDS
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-penstock-stream-id"] == "s1"
        ids = [id for id, _, _ in events_of(answer.text)]
        rest = server.get("/again/s1", headers={"last-event-id": ids[0]})
        assert [id for id, _, _ in events_of(rest.text)][-1] == ids[-1]
        assert WORDS.endswith(text_of(rest.text))
        assert server.get("/again/s1", headers={"last-event-id": ids[-1]}).status_code == 204
        assert server.get("/again/s1?after=x").status_code == 400


def test_an_error_before_the_first_token_has_its_status(system: penstock.System) -> None:
    with served(system, starlette_app(system)) as server:
        answer = server.get("/chat?model=busy")
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")


@pytest.mark.parametrize("model", ["endless", "late"])
def test_a_client_that_leaves_ends_the_providers_call(system: penstock.System, model: str) -> None:
    left = threading.Event()
    with served(system, starlette_app(system, on_disconnect=left.set)) as server:
        leave(f"{server.url}/chat?model={model}&id=s1", lambda: system.stream("s1"))
        stream = system.stream("s1")
        eventually(lambda: stream.is_over)
        assert left.wait(PATIENCE)
    with pytest.raises(penstock.StreamCancelledError):
        stream.result(PATIENCE)


def test_on_disconnect_replaces_what_the_stream_does(system: penstock.System) -> None:
    with served(system, starlette_app(system, on_disconnect="continue")) as server:
        leave(f"{server.url}/chat?model=endless&id=s1", lambda: system.stream("s1"))
        stream = system.stream("s1")
        eventually(lambda: stream.statistics().subscribers == 0)
        before = stream.statistics().tokens_delivered
        eventually(lambda: stream.statistics().tokens_delivered > before)
        stream.cancel()


class _Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("model", ["endless", "late"])
def test_under_a_base_http_middleware_a_client_that_leaves_is_noticed_too(system: penstock.System, model: str) -> None:
    with served(system, starlette_app(system, Middleware(_Passing))) as server:
        leave(f"{server.url}/chat?model={model}&id=s1", lambda: system.stream("s1"))
        stream = system.stream("s1")
        eventually(lambda: stream.is_over)


@pytest.mark.parametrize(
    "wrong", [{"protocol": "smoke-signals"}, {"on_disconnect": "never"}, {"on_disconnect": -1}, {"stream": None}]
)
def test_wrong_arguments_are_refused_by_name(system: penstock.System, wrong: dict[str, Any]) -> None:
    stream = system.open_stream()
    with pytest.raises(OptionError, match=f"^{next(iter(wrong))}: "):
        sse_response(**{"stream": stream, **wrong})
    stream.cancel()


# --- the examples ------------------------------------------------------------------------------------------------


@contextmanager
def example(name: str, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load an example that asks the loopback provider."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_PROVIDER__MODEL", "m")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, name, module)
    spec.loader.exec_module(module)
    clear_url_caches()  # Django's are of the module that was loaded before
    try:
        yield module
    finally:
        module.system.stop()


def test_the_fastapi_example(provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        example("fastapi_backend", provider, monkeypatch) as module,
        served(module.system, module.app) as server,
    ):
        assert text_of(server.get("/chat?q=Hi").text) == WORDS
        assert server.get("/llm/ready").json() == {"status": "ready"}
        made = server.post("/llm/v1/streams", {"messages": [{"role": "user", "content": "Hi"}]}).json()
        assert made["links"]["events"].startswith("/llm/v1/streams/")
        assert text_of(server.get(made["links"]["events"]).text) == WORDS


def test_the_django_example(provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        example("django_backend", provider, monkeypatch) as module,
        served(module.system, module.application, lifespan="off") as server,
    ):
        answer = server.get("/chat?q=Hi")
        assert text_of(answer.text) == WORDS
        ids = [id for id, _, _ in events_of(answer.text)]
        assert ids == sorted(set(ids), key=lambda id: int(id.partition("-")[2]))
        endless = module.system.chat("endless", "Hi", stream_id="s1")
        monkeypatch.setattr(module.system, "chat", lambda *_: endless)
        leave(f"{server.url}/chat?q=Hi", lambda: endless)
        eventually(lambda: endless.is_over)


class _Threads(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def wsgi_server(application: Any) -> Iterator[str]:
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, application, _Threads, _Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_flask_example(provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with example("flask_backend", provider, monkeypatch) as module, wsgi_server(module.app) as url:
        answer = requests.get(f"{url}/chat?q=Hi", timeout=PATIENCE)
        assert text_of(answer.text) == WORDS
        endless = module.system.chat("endless", "Hi", stream_id="s1")
        monkeypatch.setattr(module.system, "chat", lambda *_: endless)
        leave(f"{url}/chat?q=Hi", lambda: endless)
        eventually(lambda: endless.is_over)


@contextmanager
def serving(name: str, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """An example on a server of its own: its module and URL."""
    with example(name, provider, monkeypatch) as module:
        if name == "flask_backend":
            with wsgi_server(module.app) as url:
                yield module, url
        elif name == "django_backend":
            with served(module.system, module.application, lifespan="off") as server:
                yield module, server.url
        else:
            with served(module.system, module.app) as server:
                yield module, server.url


@pytest.mark.parametrize("name", ["fastapi_backend", "django_backend", "flask_backend"])
def test_a_gap_is_told_and_refused_to_a_strict_reader(
    provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with serving(name, provider, monkeypatch) as (module, url):

        def get(query: str, cursor: str = "") -> requests.Response:
            headers = {"last-event-id": cursor} if cursor else {}
            return requests.get(f"{url}/chat?q=Hi{query}", headers=headers, timeout=PATIENCE)

        whole = module.system.chat("m", "Hi")
        options = StreamOptions(retain_bytes=1_000, rate_limit=None, batch_size=1, flush_interval=0.01)
        folded = module.system.open_stream(options=options)
        folded.process_tokens([f"{number:03d} " for number in range(300)])
        folded.stop()
        for stream in (whole, folded):
            stream.result(PATIENCE)
        assert folded._record.log.first_seq > 6
        monkeypatch.setattr(module.system, "chat", lambda *_: whole)
        other = get("", "00000000-2")
        found = events_of(other.text)
        assert other.headers["x-penstock-gap"] == "1"
        assert found[0][1:] == ("gap", {"reason": "epoch", "epoch": found[1][0].partition("-")[0]})
        assert text_of(other.text) == WORDS
        strict = get("&strict=1", "00000000-2")
        assert (strict.status_code, strict.json()["error"]["type"]) == (410, "gone")
        exact = get("&strict=1&after=1")
        assert (exact.status_code, "x-penstock-gap" in exact.headers) == (200, False)

        monkeypatch.setattr(module.system, "chat", lambda *_: folded)
        joined = get("&after=5")
        assert joined.headers["x-penstock-gap"] == "1"
        assert events_of(joined.text)[0][1] == "snapshot"
        strict = get("&strict=1&after=5")
        assert (strict.status_code, strict.json()["error"]["first_seq"]) == (410, folded._record.log.first_seq)
        begun = get("&strict=1")
        assert (begun.status_code, "x-penstock-gap" in begun.headers) == (200, False)


# --- responses that are not read to their end --------------------------------------------------------------------


class Asgi:
    """As an ASGI server: a client that leaves when it is told to, and takes nothing after some messages."""

    scope: ClassVar[dict[str, Any]] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.is_stuck = asyncio.Event()
        self.leaves = asyncio.Event()
        self.is_asked = False

    async def receive(self) -> dict[str, Any]:
        if not self.is_asked:
            self.is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.takes:
            self.takes -= 1
        else:
            self.is_stuck.set()
            await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("takes", [0, 1])
def test_a_client_that_does_not_read_cancels_nothing_of_the_host(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    monkeypatch.setattr(reader_module, "_STUCK", 0.0)
    stream = system.open_stream(on_orphan="cancel")
    stream.process_text("Hi.")

    async def host() -> str:
        client = Asgi(takes)
        response = sse_response(stream, options=QUICK)
        response.background = BackgroundTask(left.append, True)
        await response(client.scope, client.receive, client.send)
        task = asyncio.current_task()
        assert task is not None
        return f"went on, {task.cancelling()} cancellations"

    left: list[bool] = []
    assert asyncio.run(host()) == "went on, 0 cancellations"
    assert left == [True]
    eventually(lambda: stream.is_over)


@pytest.mark.parametrize("when", ["before it reads", "while it reads"])
def test_a_host_that_is_cancelled_ends_as_cancelled_and_so_does_its_stream(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    stream = system.open_stream(on_orphan="cancel")

    async def host() -> None:
        client = Asgi(takes=0)

        async def for_ever(self: Any) -> None:
            client.is_stuck.set()
            await asyncio.get_running_loop().create_future()

        if when == "before it reads":
            monkeypatch.setattr(Projector, "catch_up", for_ever)
        response = sse_response(stream, options=QUICK)
        task = asyncio.ensure_future(response(client.scope, client.receive, client.send))
        if when == "while it reads":
            stream.process_text("Hi.")
        await client.is_stuck.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(host())
    eventually(lambda: stream.is_over)


@pytest.mark.parametrize("iterates", [False, True])
def test_a_body_that_is_closed_leaves_its_stream_also_before_its_first_part(
    system: penstock.System, iterates: bool
) -> None:
    left: list[str] = []
    streams = [system.open_stream(on_orphan="cancel") for _ in range(3)]
    for stream in streams:
        stream.process_text("Hi.")

    def embedded(name: str, stream: penstock.Stream) -> Embedded:
        return Embedded(stream, "native", None, lambda: left.append(name), QUICK, {})

    body = event_body(embedded("wsgi", streams[0]), {}, "")
    assert body is not None
    if iterates:
        assert next(body)
    body.close()
    body.close()

    async def close(stream: penstock.Stream, *, elsewhere: bool) -> None:
        one = embedded("django", stream)
        body = AsyncEventBody(one, one.point({}, {}))
        if iterates:
            assert await anext(body)
        if elsewhere:
            await asyncio.to_thread(body.close)
            await asyncio.sleep(0)
        else:
            await body.aclose()
        await body.aclose()

    asyncio.run(close(streams[1], elsewhere=True))
    asyncio.run(close(streams[2], elsewhere=False))
    for stream in streams:
        eventually(lambda stream=stream: stream.is_over)  # type: ignore[misc]
    assert left == ["wsgi", "django", "django"]


@pytest.mark.parametrize("takes", [0, 1])
def test_django_closes_a_body_of_a_client_that_has_left(
    provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    with example("django_backend", provider, monkeypatch) as module:
        endless = module.system.chat("endless", "Hi", stream_id="s1")
        monkeypatch.setattr(module.system, "chat", lambda *_: endless)

        async def serve() -> None:
            client = Asgi(takes)
            headers = [(b"host", b"localhost")]
            scope = {**client.scope, "path": "/chat", "query_string": b"q=Hi", "headers": headers}
            task = asyncio.ensure_future(module.application(scope, client.receive, client.send))
            await client.is_stuck.wait()
            client.leaves.set()
            await asyncio.wait([task])
            assert task.exception() is None

        asyncio.run(serve())
        eventually(lambda: endless.is_over)
