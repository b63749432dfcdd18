"""A gateway on a real port, for tests."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
import uvicorn

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, Settings
from penstock.gateway.asgi import Gateway, app
from penstock.testing import eventually

T = TypeVar("T")
PATIENCE = 20.0
KEY = "sk-test-0123456789abcdef"
ONCE = RequestOptions(max_retries=0)
SLOWLY = Answer("one two three four five six seven eight", pace=0.02)


class Served:
    """A gateway that is served: its system, and a client for it."""

    def __init__(self, system: penstock.System, gateway: Any, port: int) -> None:
        self.system = system
        self.gateway: Gateway = gateway
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"
        self.session = requests.Session()
        self.provider: LoopbackProvider

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, f"{self.url}{path}", timeout=PATIENCE, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.request("POST", path, json=body, **more)

    def open(self, **more: Any) -> str:
        """Open a stream of the embedded provider; returns its id."""
        asked = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
        answer = self.post("/v1/streams", asked)
        assert answer.status_code == 201, answer.text
        stream_id: str = answer.json()["stream_id"]
        return stream_id

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.gateway.ticker.loop).result(PATIENCE)

    def finish(self, stream_id: str) -> None:
        """Wait until a stream has ended."""
        eventually(lambda: self.system.stream(stream_id).is_over)


@contextmanager
def served(system: penstock.System, gateway: Any = None, *, lifespan: Any = "on", **options: Any) -> Iterator[Served]:
    """Serve a gateway, or another ASGI app, until the block ends."""
    gateway = app(system, **options) if gateway is None else gateway
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(gateway, log_level="critical", lifespan=lifespan, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway-server")
    thread.start()
    try:
        eventually(lambda: server.started)
        with requests.Session() as session:
            client = Served(system, gateway, listener.getsockname()[1])
            client.session = session
            yield client
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        if thread.is_alive():
            server.force_exit = True
            thread.join(PATIENCE)
        listener.close()


@contextmanager
def gateway(
    script: Any = None,
    settings: Settings | None = None,
    *,
    wrap: Callable[[Gateway], Any] | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A system with one scripted loopback provider for all providers, and its gateway; ``wrap`` puts it into an app."""
    with LoopbackProvider(script if isinstance(script, Script) else Script(script or SLOWLY)) as provider:
        providers = {
            name: ProviderOptions(base_url=url, api_key=KEY, model="m")  # type: ignore[arg-type]
            for name, url in {
                "openai": provider.base_url,
                "openai-responses": provider.base_url,
                "anthropic": provider.url,
                "gemini": provider.url,
                "ollama": provider.url,
            }.items()
        }
        base = settings or Settings(request=ONCE)
        made = dataclasses.replace(base, providers=providers)
        with penstock.System(made) as system:
            inner = app(system, **options)
            with served(system, inner if wrap is None else wrap(inner)) as client:
                client.gateway = inner
                client.provider = provider
                yield client


def events_of(text: str) -> list[tuple[str, str, Any]]:
    """The server-sent events of a body: id, name, data."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            data = fields.get("data", "null")
            found.append(
                (fields.get("id", ""), fields.get("event", ""), data if data == "[DONE]" else json.loads(data))
            )
    return found
